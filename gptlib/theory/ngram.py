"""N-gram language models: counts of short token sequences and three ways to use them.

An n-gram model predicts a token from the n - 1 tokens before it. Smoothing:
"none"        maximum likelihood: c(context, token) / c(context)
"add-k"       k imagined occurrences of every token after every context (Laplace, Lidstone)
"kneser-ney"  interpolated Kneser-Ney (Kneser and Ney, 1995; Chen and Goodman, 1999): take a
              discount off every count and give it to the model of the next shorter context,
              which counts after how many different tokens an n-gram came, not how often
"""

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

SMOOTHINGS = ("none", "add-k", "kneser-ney")


class NGram:
    """An n-gram language model: call it on (B, T) ids for (B, T, V) log-probabilities.

    The counts are a tree: row r of level n is one n-gram, and its key is
    (row of its first n - 1 tokens at level n - 1) * V + (its last token).
    Keys are sorted, so the tokens that follow a context lie next to each other, no key exceeds
    (length of the text) * V, and memory grows with the number of different n-grams only.
    """

    def __init__(self, order: int, vocab_size: int, smoothing: str = "kneser-ney", *,
                 k: float = 0.1, discount: float | None = None) -> None:
        """order: n, 1 or more. k: for "add-k". discount: for "kneser-ney", 0 to 1; None
        estimates one for each level from the numbers of n-grams seen once and twice."""
        if order < 1:
            raise ValueError(f"order is {order}; expected 1 (no context) or more")
        if vocab_size < 1:
            raise ValueError(f"vocab_size is {vocab_size}; expected 1 or more")
        if smoothing not in SMOOTHINGS:
            raise ValueError(f"smoothing is {smoothing!r}; expected one of {', '.join(SMOOTHINGS)}")
        if smoothing == "add-k" and not 0 < k * vocab_size < math.inf:
            raise ValueError(f'k is {k}; expected a positive number (smoothing="none" is k = 0)')
        if discount is not None and not 0 < discount < 1:
            raise ValueError(f"discount is {discount}; expected a number between 0 and 1")
        self.order, self.vocab_size, self.smoothing = order, vocab_size, smoothing
        self.k, self.discount = k, discount
        self._keys: list[np.ndarray] = []  # level n at [n - 1]: sorted int64
        self._counts: list[np.ndarray] = []  # how often each row occurred
        self._contexts: list[np.ndarray] = []  # how many different tokens came before it
        self._discounts: list[tuple[float, float]] = []  # for counts and for contexts

    def fit(self, ids: Tensor | Sequence[int]) -> Self:
        """Count all n-grams of 1 to `order` tokens in a text (N,); earlier counts are dropped."""
        ids = self._checked(ids)
        if ids.ndim != 1 or len(ids) < self.order:
            raise ValueError(f"ids have shape {ids.shape}; expected one text of at least "
                             f"{self.order} tokens, the order of the model")
        levels, before = [], []
        rows = np.zeros(len(ids) + 1, dtype=np.int64)  # level 0 has one row: the empty context
        for n in range(1, self.order + 1):
            keys = rows[: len(ids) - n + 1] * self.vocab_size + ids[n - 1:]
            shorter = rows
            keys, rows, counts = np.unique(keys, return_inverse=True, return_counts=True)
            if n > 1:
                suffix = np.empty(len(keys), dtype=np.int64)  # the row of its last n - 1 tokens
                suffix[rows] = shorter[1: len(rows) + 1]
                before.append(np.bincount(suffix, minlength=len(levels[-1][1])))
            levels.append((keys, counts))
        before.append(counts)  # a place-holder: the longest context uses occurrences
        self._set_counts([keys for keys, _ in levels], [counts for _, counts in levels], before)
        return self

    def _set_counts(self, keys: list, counts: list, contexts: list) -> None:
        self._keys, self._counts, self._contexts = keys, counts, contexts
        self._discounts = [(self._discount(occurrences), self._discount(before))
                           for occurrences, before in zip(counts, contexts)]

    def __call__(self, ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, V): at each position the log-probabilities of the next token.

        Position t sees the tokens t - n + 2 to t, at the start of the row as many as there are.
        What the model holds impossible is -inf.
        """
        if ids.dim() != 2:
            raise ValueError(f"ids have shape {tuple(ids.shape)}; expected (B, T)")
        (B, T), length = ids.shape, self.order - 1
        tokens = self._checked(ids)
        contexts = np.full((B, T, length), -1, dtype=np.int64)  # -1: before the start
        for back in range(min(length, T)):
            contexts[:, back:, length - 1 - back] = tokens[:, : T - back]
        contexts = contexts.reshape(B * T, length)
        if length:  # contexts come again and again: each is looked up once
            contexts, where = np.unique(contexts, axis=0, return_inverse=True)
        else:
            contexts, where = contexts[:1], np.zeros(B * T, dtype=np.int64)
        with np.errstate(divide="ignore"):
            logs = np.log(self._predict(contexts)).astype(np.float32)
        return torch.from_numpy(logs[where.ravel()]).view(B, T, self.vocab_size).to(ids.device)

    def variant(self, order: int | None = None, **options) -> Self:
        """Another model over the same counts, which are shared: nothing is counted again.

        order: this one's or lower. options: smoothing, k, discount, as for a new model.
        """
        order = self.order if order is None else order
        if order > self.order:
            raise ValueError(f"order is {order}; expected at most {self.order}, up to which this "
                             "model has counted: fit a new one")
        kept = {"smoothing": self.smoothing, "k": self.k, "discount": self.discount}
        model = NGram(order, self.vocab_size, **(kept | options))
        model._set_counts(self._keys[:order], self._counts[:order], self._contexts[:order])
        return model

    def count(self, context: Tensor | Sequence[int] = ()) -> Tensor:
        """(V,) int64: how often each token followed the last n - 1 tokens of `context`."""
        context = self._last_tokens(context)
        context = context[:, (context < 0).sum():]
        _, tokens, rows = self._followers(context)
        counts = torch.zeros(self.vocab_size, dtype=torch.int64)
        counts[tokens] = torch.from_numpy(self._counts[context.shape[1]][rows])
        return counts

    def probabilities(self, context: Tensor | Sequence[int] = ()) -> Tensor:
        """(V,) float64: the distribution of the token after `context`, which sums to 1."""
        return torch.from_numpy(self._predict(self._last_tokens(context))[0])

    def _predict(self, contexts: np.ndarray) -> np.ndarray:
        """Contexts (M, n - 1), -1 where there is no token -> probabilities (M, V), float64."""
        if self.smoothing == "kneser-ney":
            return self._kneser_ney(contexts)
        k = self.k if self.smoothing == "add-k" else 0.0
        present = (contexts >= 0).sum(1)
        counts = np.zeros((len(contexts), self.vocab_size))
        for length in range(self.order):
            chosen = np.flatnonzero(present == length)
            who, tokens, rows = self._followers(contexts[chosen, self.order - 1 - length:])
            counts[chosen[who], tokens] = self._counts[length][rows]
        counts += k
        totals = counts.sum(1, keepdims=True)
        counts[totals[:, 0] == 0] = 1.0  # nothing is known after an unseen context: uniform
        return counts / np.where(totals == 0, self.vocab_size, totals)

    def _kneser_ney(self, contexts: np.ndarray) -> np.ndarray:
        """From the shortest context (none) to the longest, each mixed with the one before.

        The longest context that a row has uses occurrences, the shorter ones different contexts.
        """
        M, present = len(contexts), (contexts >= 0).sum(1)
        p = np.full((M, self.vocab_size), 1 / self.vocab_size)
        for length in range(self.order):
            who, tokens, rows = self._followers(contexts[:, self.order - 1 - length:])
            longest = present[who] == length
            weights = np.where(longest, self._counts[length][rows], self._contexts[length][rows])
            taken = np.minimum(weights, np.where(longest, *self._discounts[length]))
            totals = np.bincount(who, weights, M)
            free = np.bincount(who, taken, M) / np.maximum(totals, 1)
            p *= np.where(totals > 0, free, 1.0)[:, None]  # an unseen context changes nothing
            p[who, tokens] += (weights - taken) / np.maximum(totals, 1)[who]
        return p

    def _discount(self, weights: np.ndarray) -> float:
        """n1 / (n1 + 2 n2) of Ney, Essen and Kneser (1994); 0.75 where a text is too small."""
        if self.discount is not None:
            return self.discount
        once, twice = (weights == 1).sum(), (weights == 2).sum()
        return float(once / (once + 2 * twice)) if once and twice else 0.75

    def _followers(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every token seen after each of the contexts (M, length), as one flat list of three
        columns: index of the context, token, row of the n-gram at level `length` + 1."""
        if not self._keys:
            raise ValueError("this model has counted no text yet; call fit(ids) first")
        V, length = self.vocab_size, contexts.shape[1]
        row = np.zeros(len(contexts), dtype=np.int64)
        for level in range(length):  # down the tree, one token at a time; -1 is "not there"
            keys, token = self._keys[level], contexts[:, level]
            wanted = row * V + token
            row = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            row[keys[row] != wanted] = -1  # below it every key is wrong: none is negative
        first = np.searchsorted(self._keys[length], row * V)
        last = np.searchsorted(self._keys[length], (row + 1) * V)
        found = np.where(row < 0, 0, last - first)
        starts = first - (np.cumsum(found) - found)
        rows = np.arange(found.sum()) + np.repeat(starts, found)
        return np.repeat(np.arange(len(contexts)), found), self._keys[length][rows] % V, rows

    def _last_tokens(self, context: Tensor | Sequence[int]) -> np.ndarray:
        """One context as (1, n - 1), cut or filled with -1 on the left."""
        tokens, length = self._checked(context), self.order - 1
        tokens = tokens[max(0, len(tokens) - length):]
        return np.pad(tokens, (length - len(tokens), 0), constant_values=-1)[None]

    def _checked(self, ids: Tensor | Sequence[int]) -> np.ndarray:
        array = torch.as_tensor(ids).cpu().numpy()
        if array.size and array.dtype.kind not in "iu":
            raise ValueError(f"ids have type {array.dtype}; expected whole numbers")
        outside = array[(array < 0) | (array >= self.vocab_size)]
        if outside.size:
            raise ValueError(f"id {outside[0]} is outside the vocabulary of {self.vocab_size} "
                             "tokens; use the tokenizer whose vocab_size the model was given")
        return array.astype(np.int64)
