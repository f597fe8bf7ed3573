"""Checks of chapter 5.1, the encoder."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gptlib.checks import as_tensor, attempt, close, exercise, expect, expect_agreement


@exercise
def check_real_positions(answer: Any) -> None:
    """`real_positions(lengths, S)` -> (B, S) booleans; lengths is (B,), padding on the right."""
    lengths = torch.tensor([3, 1, 5])
    real = as_tensor(attempt(answer, lengths, 5))
    right = _real_positions(lengths, 5)
    expect(real.shape != (5, 3), "your mask is (S, B): rows are sentences, columns positions")
    expect(real.shape == (3, 5), f"the mask has shape {tuple(real.shape)}, expected (B, S)")
    expect(real.dtype == torch.bool, f"the mask is {real.dtype}: a comparison gives booleans, and "
           "a mask of numbers would be added to the scores by PyTorch's kernel")
    expect(not torch.equal(real, ~right), "your mask is True at padding: that is the convention of "
           "nn.MultiheadAttention's key_padding_mask; here True means that the token is real")
    expect(not torch.equal(real, torch.arange(5) <= lengths[:, None]),
           "one position too many is True: positions count from 0, so a sentence of 3 tokens ends "
           "at position 2")
    expect(not torch.equal(real, right.flip(1)), "your padding stands on the left")
    expect(torch.equal(real, right),
           f"for lengths [3, 1, 5] the rows are {right.int().tolist()}; yours are "
           f"{real.int().tolist()}")
    wide = as_tensor(attempt(answer, torch.tensor([2, 0]), 4))
    expect(wide.shape != (2, 2), "S may be larger than the longest sentence: for lengths [2, 0] "
           "and S = 4 the mask has shape (2, 4); yours is (2, 2)")
    expect_agreement(answer, _real_positions, [
        (torch.tensor([2, 0]), 4), (torch.tensor([1]), 1), (torch.tensor([4, 4, 1, 2]), 4)])


def _real_positions(lengths: Tensor, S: int) -> Tensor:
    return torch.arange(S) < lengths[:, None]


@exercise
def check_mean_of_real(answer: Any) -> None:
    """`mean_of_real(vectors, real)` -> (B, C): the mean of (B, S, C) over the real positions."""
    vectors = torch.arange(24.0).view(2, 4, 3) ** 2 / 10
    real = torch.tensor([[True, True, True, True], [True, True, False, False]])
    mean = as_tensor(attempt(answer, vectors, real))
    expect(mean.shape != (3,), "this is one mean for the whole batch: every sentence has its own")
    expect(mean.shape == (2, 3), f"the means have shape {tuple(mean.shape)}, expected (B, C)")
    masked = vectors * real[..., None]
    expect(not close(mean, vectors.mean(1)), "the padding is in your mean: use `real`")
    expect(not close(mean, masked.mean(1)), "you set the padding to zero and still divide by S: "
           "divide by the number of real positions, or short sentences get short vectors")
    expect(not close(mean, masked.sum(1)), "this is the sum: divide it by the number of real "
           "positions")
    expect(not close(mean, masked.sum(1) / real.sum()), "you divide by the real positions of the "
           "whole batch: every sentence has a number of its own, real.sum(1, keepdim=True)")
    expect(not close(mean, vectors[:, 0]), "this is the first position alone")
    expect(not close(mean, masked.amax(1)), "this is the largest number, not the mean")
    right = _mean_of_real(vectors, real)
    expect(close(mean, right), f"the mean of the second sentence is "
           f"{[round(v, 2) for v in right[1].tolist()]}; yours is "
           f"{[round(v, 2) for v in mean[1].tolist()]}")
    square = torch.arange(12.0).view(2, 3, 2) - 5, torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()
    got = as_tensor(attempt(answer, *square))
    expect(not close(got, (square[0] * square[1][..., None]).sum(1) / square[1].sum(1)),
           "with as many sentences as features you divide each column, not each row: the numbers "
           "of real positions must be a column (B, 1)")
    gaps = vectors, torch.tensor([[False, True, False, True], [False, False, False, True]])
    got = as_tensor(attempt(answer, *gaps))
    first = _real_positions(gaps[1].sum(1), 4)
    expect(not close(got, _mean_of_real(vectors, first)), "you take the first positions, as many "
           "as are real; take those where the mask is True, wherever they stand")
    expect_agreement(answer, _mean_of_real, [
        square, gaps, (torch.ones(1, 1, 2), torch.ones(1, 1).bool()),
        (torch.arange(40.0).view(4, 5, 2), torch.ones(4, 5).tril().bool())])


def _mean_of_real(vectors: Tensor, real: Tensor) -> Tensor:
    return (vectors * real[..., None]).sum(1) / real.sum(1, keepdim=True)


def _norm(z: Tensor) -> Tensor:
    return (z - z.mean(-1, keepdim=True)) / z.std(-1, keepdim=True)


def _second_norm(z: Tensor) -> Tensor:
    return 2 * _norm(z)


def _same(z: Tensor) -> Tensor:
    return z


class _Layer:
    """A small layer whose parts can be left out or exchanged, one mistake at a time."""

    def __init__(self, B: int, S: int, C: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(B, S, C, generator=generator) + 1.0
        self.real = torch.arange(S) < torch.tensor([S, *[1] * (B - 1)])[:, None]
        self.w1, self.w2 = torch.randn(2, C, C, generator=generator)

    def attention(self, queries_from: Tensor, keys_and_values_from: Tensor,
                  real: Tensor | None = None) -> Tensor:
        source = keys_and_values_from
        real = torch.ones(source.shape[:2], dtype=torch.bool) if real is None else real
        scores = (queries_from @ source.mT / 2).masked_fill(~real[:, None], -torch.inf)
        return scores.softmax(-1) @ source @ self.w1

    def feed_forward(self, z: Tensor) -> Tensor:
        return (z @ self.w2).relu()

    def inputs(self) -> tuple:
        """The arguments of the reader's function."""
        return self.x, self.real, _norm, self.attention, _second_norm, self.feed_forward

    def result(self, masked: bool = True, first: Callable = _norm, second: Callable = _second_norm,
               keep: float = 1.0, keep2: float = 1.0) -> Tensor:
        y = first(self.x)
        h = keep * self.x + self.attention(y, y, self.real if masked else None)
        return keep2 * h + self.feed_forward(second(h))

    def rearranged(self) -> dict[str, Tensor]:
        """The results of layers whose parts are all there and in the wrong places."""
        x, real, y = self.x, self.real, _norm(self.x)
        post = _norm(x + self.attention(x, x, real))
        beside = x + self.attention(y, y, real) + self.feed_forward(_second_norm(x))
        replaced = y + self.attention(y, y, real)
        first = x + self.feed_forward(_second_norm(x))
        swapped = first + self.attention(_norm(first), _norm(first), real)
        raw = x + self.attention(y, x, real)
        return {"post": _second_norm(post + self.feed_forward(post)), "beside": beside,
                "replaced": _second_norm(replaced) + self.feed_forward(_second_norm(replaced)),
                "swapped": swapped, "raw": raw + self.feed_forward(_second_norm(raw))}


@exercise
def check_encoder_layer(answer: Any) -> None:
    """`encoder_layer(x, real, norm1, attention, norm2, feed_forward)` -> (B, S, C), pre-norm."""
    layer = _Layer(2, 3, 4)
    got = as_tensor(attempt(answer, *layer.inputs()))
    expect(got.shape == layer.x.shape,
           f"expected a tensor of the shape of x, {tuple(layer.x.shape)}, got {tuple(got.shape)}")
    _expect_all_parts(got, layer)
    wrong = layer.rearranged()
    expect(not close(got, wrong["post"]), "this is post-norm, the layer of 2017: here each norm "
           "stands before its layer, inside the branch, and the sum itself is not normalised")
    expect(not close(got, wrong["replaced"]), "you add to the normalised stream: the branch reads "
           "norm(x), but the sum takes x itself")
    expect(not close(got, wrong["beside"]), "the feed-forward network reads x: it must read the "
           "sum of x and the attention's result")
    expect(not close(got, wrong["swapped"]), "the feed-forward network comes first: attention does")
    expect(not close(got, wrong["raw"]), "queries come from norm(x), keys and values from x: in "
           "self-attention all three come from the same normalised vectors")
    expect(close(got, layer.result(), 1e-4), "the result differs from x + attention(norm1(x)), "
           "followed by the same with norm2 and the feed-forward network")
    for shape in ((1, 5, 2), (3, 1, 6)):
        layer = _Layer(*shape)
        expect(close(attempt(answer, *layer.inputs()), layer.result(), 1e-4),
               f"right for x of shape (2, 3, 4), wrong for x of shape {shape}")


def _expect_all_parts(got: Tensor, layer: _Layer) -> None:
    expect(not close(got, layer.result(masked=False)), "the mask is missing: pass `real` to the "
           "attention, or every sentence also reads its padding")
    expect(not close(got, layer.result(keep2=0.0)), "the feed-forward network replaces the "
           "stream: add its result to what came in (the mistake of many tutorials)")
    expect(not close(got, layer.result(keep=0.0)), "the attention replaces the stream: add its "
           "result to x")
    expect(not close(got, layer.result(keep=0.0, keep2=0.0)), "both residual connections are "
           "missing: each of the two layers adds to the stream")
    expect(not close(got, layer.result(first=_same, second=_same)), "the norms are missing")
    expect(not close(got, layer.result(second=_same)), "the norm before the feed-forward network "
           "is missing")
    expect(not close(got, layer.result(first=_same)), "the norm before the attention is missing")
    expect(not close(got, layer.result(second=_norm)), "norm1 is used twice: each layer has its "
           "own norm")
    expect(not close(got, layer.result(first=_second_norm, second=_norm)), "the norms are "
           "exchanged: norm1 stands before the attention, norm2 before the feed-forward network")


@exercise
def check_same_words(answer: Any) -> None:
    """`same_words()` -> five or more (praise, blame): two reviews of one bag of words."""
    pairs = list(attempt(answer))
    expect(all(len(pair) == 2 and all(isinstance(review, str) for review in pair)
               for pair in pairs), "expected a list of pairs of strings: [(praise, blame), ...]")
    seen = set()
    for praise, blame in pairs:
        words, others = (re.findall(r"[a-z']+", text.lower()) for text in (praise, blame))
        missing = Counter(words) - Counter(others), Counter(others) - Counter(words)
        rest = sorted((missing[0] + missing[1]).elements())
        expect(not rest, f"{praise!r} and {blame!r} are not the same bag: {', '.join(rest)} stands "
               "in one more often than in the other")
        expect(words != others, f"{praise!r} and {blame!r} have the same words in the same order: "
               "an encoder of words reads one and the same sentence")
        expect(len(words) >= 4, f"{praise!r} has {len(words)} words: write at least 4")
        bag = tuple(sorted(words))
        expect(bag not in seen, f"two of your pairs use the bag of {praise!r}: write another")
        seen.add(bag)
    expect(len(pairs) >= 5, f"{len(pairs)} pairs so far: five are asked for")
