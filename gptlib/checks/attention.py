"""Checks of the exercises in chapter 3.1, How GPT works."""

import math
from typing import Any

import torch

from gptlib.checks import attempt, close, exercise, expect, expect_agreement
from gptlib.model import attention


@exercise
def check_weights_of_one_query(answer: Any) -> None:
    """`answer(query, keys)` returns the attention weights of one query over S keys, as a list."""
    query, keys = [1.0, 2.0, 0.0, -1.0], [[0.5, 1.0, 0.0, 0.0], [1, 0, 2, 1], [2, 2, 0, -2]]
    got = attempt(answer, query, keys)
    scores = [sum(q * k for q, k in zip(query, key)) for key in keys]
    expect(len(got) == len(keys), "expected a list with one weight for each key")
    expect(not close(got, scores) and not close(got, [score / 2 for score in scores]),
           "these are scores: they still have to go through the softmax to become weights")
    expect(close(sum(got), 1.0), "your weights don't add up to 1: divide by the sum over all keys")
    expect(not close(got, _softmax(scores)),
           "you forgot the scaling: divide each score by the square root of the number of features")
    expect(not close(got, _softmax([score / 4 for score in scores])),
           "you divided by the number of features; the scaling is by its square root")
    expect(close(got, _softmax([score / 2 for score in scores])),
           "the weights are not softmax(query . key / sqrt(D))")
    wide = [1.0, 0.0, -1.0, 2.0, 0.5, 0.0, 1.0, 1.0, -2.0]  # D = 9
    expect(not close(attempt(answer, wide, [wide, wide[::-1]]),
                     _weights(wide, [wide, wide[::-1]], root=2.0)),
           "right for 4 features, wrong for 9: divide by the square root of D, not by 2")
    large = attempt(answer, [400.0, 0.0, 0.0, 0.0], [[4.0, 0, 0, 0], [0.0, 0, 0, 0]])
    expect(close(large, [1.0, 0.0]),
           "large scores overflow exp: subtract the largest score from all of them first")
    expect_agreement(answer, _weights, [(wide, [wide, wide[::-1]]), ([2.0], [[0.0], [1.0]]),
                                        ([1.0, -1.0], [[3.0, 4.0]])])


def _softmax(scores: list[float]) -> list[float]:
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [value / sum(exponentials) for value in exponentials]


def _weights(query: list[float], keys: list[list[float]], root: float | None = None) -> list[float]:
    root = root or math.sqrt(len(query))
    return _softmax([sum(q * k for q, k in zip(query, key)) / root for key in keys])


@exercise
def check_may_look(answer: Any) -> None:
    """`answer(T, S)` returns the (T, S) causal mask, True where query t may look at key s."""
    square = torch.as_tensor(attempt(answer, 4, 4))
    expect(square.shape == (4, 4), f"expected a mask of shape (4, 4), got {tuple(square.shape)}")
    square, expected = square.bool(), attention.causal_mask(4, 4)
    expect(not torch.equal(square, ~expected),
           "your mask is True where a position must not look: turn it round")
    expect(square.diagonal().all().item(),
           "your mask hides the diagonal: a position must see itself")
    expect(not torch.equal(square, expected.T),
           "rows and columns are exchanged: each position sees its future instead of its past")
    expect(not square.triu(1).any().item(),
           "a position sees the future: True above the diagonal")
    expect(torch.equal(square, expected), "some position does not see all of its past")
    wide = torch.as_tensor(attempt(answer, 2, 5))
    expect(wide.shape == (2, 5),
           f"with 2 queries and 5 keys the mask has shape (2, 5), got {tuple(wide.shape)}")
    expect(not torch.equal(wide.bool(), torch.ones(2, 5).tril().bool()),
           "your mask is aligned top-left: with 2 queries and 5 keys the queries are the last two "
           "of five positions, so the last one sees all five keys")
    expect(torch.equal(wide.bool(), attention.causal_mask(2, 5)),
           "with 2 queries and 5 keys: the first query sees 4 keys, the second all 5")
    expect_agreement(answer, attention.causal_mask, [(1, 1), (1, 6), (3, 4)])


@exercise
def check_split_heads(answer: Any) -> None:
    """`answer(x, n_head)` cuts x (T, C) into heads (H, T, D)."""
    x = torch.arange(24.0).view(4, 6)
    got = attempt(answer, x, 2)
    expect(isinstance(got, torch.Tensor), "expected a tensor")
    expected = _split(x, 2)
    expect(got.shape != (4, 2, 3),
           "the heads must come first, (H, T, D): exchange the first two dimensions")
    expect(got.shape == (2, 4, 3), f"expected shape (2, 4, 3), got {tuple(got.shape)}")
    expect(not torch.equal(got, x.view(2, 4, 3)),
           "view alone cuts the sequence: your first head holds two whole positions. Cut the last "
           "dimension into (H, D) first, then exchange dimensions")
    expect(not torch.equal(got, x.view(4, 3, 2).permute(2, 0, 1)),
           "you dealt the features out in turn, (D, H); a head takes neighbours: (H, D)")
    expect(torch.equal(got, expected), "the shape is right, the numbers sit in the wrong places")
    expect_agreement(answer, _split, [(torch.arange(30.0).view(3, 10), 5),
                                      (torch.arange(8.0).view(1, 8), 1)])


def _split(x: torch.Tensor, n_head: int) -> torch.Tensor:
    return x.view(x.shape[0], n_head, -1).transpose(0, 1)


@exercise
def check_previous_token(answer: Any) -> None:
    """`answer()` returns (W_q, W_k), (8, 8) each, that make one-hot positions look one back."""
    got = attempt(answer)
    expect(len(got) == 2, "expected the two matrices W_q, W_k")
    w_q, w_k = (torch.as_tensor(matrix).float() for matrix in got)
    expect(w_q.shape == w_k.shape == (8, 8), "expected two matrices of shape (8, 8)")
    x = torch.eye(8)
    weights = attention.attention_weights(x @ w_q, x @ w_k)
    # Position 0 has nothing before it and may do what it likes.
    own, previous, second = weights.diagonal()[1:], weights.diagonal(-1), weights.diagonal(-2)
    expect(not (own > 0.9).all().item(), "each position looks at itself: shift one of the matrices")
    future = attention.attention_weights(x @ w_q, x @ w_k, causal=False).diagonal(1)
    expect(not (future > 0.5).all().item(),
           "each position looks for the next one, which the mask hides: shift the other way")
    expect(not (second > 0.5).all().item(),
           "each position looks two back: you shifted both matrices")
    least = int(previous.argmin())
    expect(not (previous < 0.9).all().item() or not (previous > own).all().item(),
           f"the right place is preferred, but only with weight {previous.min():.2f}: multiply a "
           f"matrix by a larger number")
    expect((previous >= 0.99).all().item(),
           f"position {least + 1} gives position {least} the weight {previous.min():.2f}; each "
           f"position but the first must give 0.99 to the one before it")
