"""Constraints: which tokens may come next, so that what a model writes stays in a language.

An automaton knows the bytes that may come next; a token is a row of bytes. So for each state of the
automaton the whole vocabulary, laid out as a tree of common beginnings, is walked once, and what
arrives alive is allowed (Willard and Louf, 2023, arXiv:2307.09702). `generate` and `stream` take a
constraint and give every other token the probability 0, before temperature and filters:

    constraint = Constraint.from_schema(schema, tokenizer)
    ids = generate(model, prompt, max_new_tokens=100, constraint=constraint, stop_tokens=[end])

A text always ends in the language: a stop token is allowed only where the text is complete, and no
token is allowed from which the end can no longer be reached in the tokens that are left. (The other
choice, to stop anywhere and tell the caller, would leave every caller with half a document.)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptlib.text.tokenizers import Tokenizer
from gptlib.writing.automata import DEAD, FAR, START, Automaton, fewest_steps
from gptlib.writing.schemas import schema_pattern


class Constraint:
    """An automaton over bytes seen through a tokenizer: states in, allowed tokens out.

    The first look at a state walks the vocabulary; the answer is kept. Special tokens are never
    part of a text, whatever their names spell. Raises ValueError if no sequence of tokens makes a
    text of the language.
    """

    start = START  # the state in which nothing has been written yet

    def __init__(self, automaton: Automaton, tokenizer: Tokenizer):
        self.automaton, self.token_bytes = automaton, tokenizer.token_bytes
        self.special_ids = special = set(tokenizer.special_tokens.values())
        self._tree = _Tree([b"" if i in special else piece
                            for i, piece in enumerate(tokenizer.token_bytes)])
        self._masks: dict[int, tuple[Tensor, int]] = {}
        self.fewest = self._count()
        if self.fewest[START] == FAR:
            raise ValueError("no tokens of this tokenizer make a text of the language; expected a "
                             "tokenizer that has every byte, or every character that is needed")

    @classmethod
    def from_pattern(cls, pattern: str, tokenizer: Tokenizer) -> "Constraint":
        """Texts that a regular expression matches as a whole (`gptlib.writing.patterns`)."""
        return cls(Automaton.from_pattern(pattern), tokenizer)

    @classmethod
    def from_schema(cls, schema: Mapping[str, Any], tokenizer: Tokenizer) -> "Constraint":
        """Documents of a JSON schema (`gptlib.writing.schemas`)."""
        return cls.from_pattern(schema_pattern(schema), tokenizer)

    def accepts(self, state: int) -> bool:
        """Whether the text may end here."""
        return bool(self.automaton.accepting[state])

    def step(self, state: int, token: int) -> int:
        """The state after one more token; 0 if the text has left the language."""
        return self.automaton.run(self.token_bytes[token], state)

    def allowed(self, state: int, remaining: int) -> Tensor:
        """(V,) booleans: the tokens after which the text can still be completed, if this one is
        the first of `remaining` that may be written. Not to be changed: it is kept."""
        if state not in self._masks:
            following = self._walk(state)
            farthest = int(self.fewest[following[following != DEAD]].max(initial=0))
            self._masks[state] = torch.from_numpy(following != DEAD), farthest
        mask, farthest = self._masks[state]
        if farthest < remaining:
            return mask
        following = self._walk(state)  # near the end: only tokens that lead there in time
        return torch.from_numpy((following != DEAD) & (self.fewest[following] < remaining))

    def _walk(self, state: int) -> np.ndarray:
        """(V,) the state after each token; dead for special tokens."""
        return self._tree.walk(self.automaton.table, state)

    def _count(self) -> np.ndarray:
        """(S,) the fewest tokens that complete a text from each state that tokens can reach."""
        sources, targets, waiting, seen = [], [], [START], {DEAD, START}
        while waiting:
            state = waiting.pop()
            following = np.unique(self._walk(state))
            sources.append(np.full(len(following), state))
            targets.append(following)
            waiting += set(following.tolist()) - seen
            seen.update(following.tolist())
        return fewest_steps(self.automaton.accepting, np.concatenate(sources),
                            np.concatenate(targets))


class Guard:
    """Keeps the rows of a batch in the language of a constraint while they are written.

    At most `max_new_tokens` tokens follow, and a row ends with one of `stop_tokens`. Raises
    ValueError if the shortest text is longer than that, for stop tokens that are none or could be
    part of a text, and for a model with fewer tokens than the tokenizer.
    """

    def __init__(self, constraint: Constraint, rows: int, max_new_tokens: int,
                 stop_tokens: Sequence[int]):
        shortest = int(constraint.fewest[constraint.start])
        if shortest > max_new_tokens:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; expected at least {shortest}: "
                             f"so many tokens has the shortest text that the constraint allows")
        if not stop_tokens or not set(stop_tokens) <= constraint.special_ids:
            raise ValueError(f"stop_tokens are {list(stop_tokens)}; with a constraint expected one "
                             f"special token or more of {sorted(constraint.special_ids)}: by "
                             f"drawing it the model says that the text is complete")
        self.constraint, self.stops = constraint, list(stop_tokens)
        self.remaining = max_new_tokens
        self.states: list[int | None] = [constraint.start] * rows  # None: the row has ended

    def restrict(self, logits: Tensor) -> Tensor:
        """Logits (B, V) with -inf for each token that would leave the language."""
        rows, V = len(self.states), len(self.constraint.token_bytes)
        if logits.shape[-1] < V:
            raise ValueError(f"the model has {logits.shape[-1]} tokens and the constraint's "
                             f"tokenizer {V}: do they belong together?")
        allowed = torch.zeros(rows, logits.shape[-1], dtype=torch.bool)
        for row, state in zip(allowed, self.states):
            if state is None:
                row[self.stops] = True
                continue
            row[:V] = self.constraint.allowed(state, self.remaining)
            row[self.stops] = self.constraint.accepts(state)
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def follow(self, new: Tensor) -> None:
        """Move on by one token a row, (B,)."""
        self.remaining -= 1
        for i, (state, token) in enumerate(zip(self.states, new.tolist())):
            ended = state is None or token in self.stops
            self.states[i] = None if ended else self.constraint.step(state, token)


class _Tree:
    """The vocabulary as a tree of common beginnings: "the" hangs below "th", that below "t".

    The nodes of a level lie side by side in arrays, so that all of them take their step at once.
    """

    def __init__(self, pieces: Sequence[bytes]):
        self.size, depth = len(pieces), max(map(len, pieces), default=0)
        node = {b"": 0}
        self.levels: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        for length in range(1, depth + 1):
            long = [(i, piece[:length]) for i, piece in enumerate(pieces) if len(piece) >= length]
            prefixes = dict.fromkeys(prefix for _, prefix in long)
            new = {prefix: n for n, prefix in enumerate(prefixes)}
            ends = [(i, new[prefix]) for i, prefix in long if len(pieces[i]) == length]
            self.levels.append((np.array([node[prefix[:-1]] for prefix in new]),
                                np.array([prefix[-1] for prefix in new]),
                                np.array([i for i, _ in ends], dtype=int),
                                np.array([n for _, n in ends], dtype=int)))
            node = new

    def walk(self, table: np.ndarray, state: int) -> np.ndarray:
        """(V,) the state after each token's bytes, beginning at `state`; 0 for an empty token."""
        result, states = np.full(self.size, DEAD, np.int32), np.array([state], np.int32)
        for parents, last_bytes, tokens, nodes in self.levels:
            states = table[states[parents], last_bytes]
            if not states.any():  # every branch has died
                break
            result[tokens] = states[nodes]
        return result


def heal(prompt: str, tokenizer: Tokenizer) -> tuple[list[int], bytes]:
    """Take back the last tokens of a prompt if a longer token could begin there.

    A prompt ends where its writer stopped, not where a token ends: after "http:" the model was
    shown "://" as one token, and never ":" with "//" behind it. Returns the ids that stay and the
    bytes that were taken back; the next tokens must spell these first:

        ids, removed = heal(prompt, tokenizer)
        constraint = Constraint(Automaton.beginning(removed), tokenizer)

    The ids are empty if all of the prompt could be the beginning of one token: then begin with the
    token that the model knows from the beginning of a document.
    """
    ids, special = tokenizer.encode(prompt), set(tokenizer.special_tokens.values())
    pieces = [piece for i, piece in enumerate(tokenizer.token_bytes) if i not in special]
    longest, best = max(map(len, pieces)), 0
    for count in range(1, len(ids) + 1):
        end = b"".join(tokenizer.token_bytes[i] for i in ids[-count:])
        if len(end) >= longest:
            break
        if any(len(piece) > len(end) and piece.startswith(end) for piece in pieces):
            best = count
    kept = len(ids) - best
    return ids[:kept], b"".join(tokenizer.token_bytes[i] for i in ids[kept:])
