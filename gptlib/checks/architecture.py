"""Checks of the exercises in chapter 3.2, The architecture of GPT."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gptlib.checks import as_tensor, attempt, close, exercise, expect, expect_agreement
from gptlib.model.config import GPTConfig


@exercise
def check_layer_norm(answer: Any) -> None:
    """`answer(x, eps)` normalises x (T, C) over its last dimension, without weights."""
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.0, 10.0, 0.0, 10.0], [5.0, 5.0, 5.0, 5.0]])
    got, eps = as_tensor(attempt(answer, x, 1e-5)), 1e-5
    expect(got.shape == x.shape,
           f"expected a tensor of the shape of x, {tuple(x.shape)}, got {tuple(got.shape)}")
    expect(not got.isnan().any().item(),
           "a row of equal numbers gives nan: its variance is 0, so add eps before the root")
    centred = x - x.mean(-1, keepdim=True)
    over_time = (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt()
    expect(not close(got, over_time, 1e-4),
           "you normalised over the positions; each position is normalised alone, over dim=-1")
    expect(not close(got, (x - x.mean()) / (x.var(correction=0) + eps).sqrt(), 1e-3),
           "you took one mean and one variance for the whole tensor; each position has its own, "
           "over dim=-1")
    expect(not close(got[:2], (x / (x.square().mean(-1, keepdim=True) + eps).sqrt())[:2], 1e-4),
           "you didn't subtract the mean: that is RMS norm")
    expect(not close(got[:2], (centred / (x.var(-1, keepdim=True) + eps).sqrt())[:2], 1e-4),
           "you divided by the sample variance, with C - 1; layer norm divides by C: correction=0")
    expect(not close(got[:2], (centred / (x.var(-1, correction=0, keepdim=True) + eps))[:2], 1e-4),
           "you divided by the variance; divide by its root")
    expect(not close(got, centred), "you subtracted the mean; now divide by the standard deviation")
    expect(close(got, _layer_norm(x, eps), 1e-4), "the rows don't have mean 0 and variance 1")
    tiny = torch.tensor([[0.0, 1e-3]])
    expect(close(attempt(answer, tiny, 1e-5), _layer_norm(tiny, 1e-5), 1e-4),
           "for tiny inputs the result differs: eps belongs under the root")
    wide = torch.tensor([[1.0, -2.0, 0.5, 0.0, 4.0], [3.0, 3.0, 3.0, 3.0, 2.0]])
    expect(not close(attempt(answer, wide, 0.5), _layer_norm(wide, 1e-5), 1e-4),
           "you don't use eps as it is given: with eps=0.5 the result is that of 1e-5")
    expect_agreement(answer, _layer_norm, [
        (wide, 0.5), (torch.ones(1, 1), 1e-5), (wide.T.contiguous() * 10, 1e-3)], 1e-4)


def _layer_norm(x: Tensor, eps: float) -> Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps)


@exercise
def check_block(answer: Any) -> None:
    """`answer(x, norm1, attention, norm2, feed_forward)` is a pre-norm block with residuals."""
    x, parts = torch.tensor([[1.0], [2.0], [5.0]]), (_tenth, _plus_one, _half, torch.square)
    norm1, attention, norm2, feed_forward = parts
    got = as_tensor(attempt(answer, x, *parts))
    middle = x + attention(norm1(x))
    expect(not close(got, feed_forward(norm2(attention(norm1(x))))),
           "there is no residual connection: add each part's result to its input")
    expect(not close(got, middle), "the feed-forward network is missing")
    expect(not close(got, feed_forward(norm2(middle))),
           "the feed-forward network replaces the stream: add its result to what came in")
    expect(not close(got, attention(norm1(x)) + feed_forward(norm2(attention(norm1(x))))),
           "attention replaces the stream: add its result to x")
    post = norm1(x + attention(x))
    expect(not close(got, norm2(post + feed_forward(post))),
           "you normalise after the addition (post-norm, as in 2017); GPT-2 normalises what each "
           "part reads, and the stream itself is never normalised inside a block")
    inside = norm1(x) + attention(norm1(x))
    expect(not close(got, norm2(inside) + feed_forward(norm2(inside))),
           "you add to the normalised input; add to x itself")
    expect(not close(got, middle + feed_forward(norm2(x))),
           "both parts read the same x; the feed-forward network reads the stream after attention")
    expect(not close(got, middle + feed_forward(middle)),
           "the feed-forward network reads the stream without its norm")
    expect(not close(got, middle + feed_forward(norm1(middle))),
           "norm1 is used twice: each part has a norm of its own")
    first = x + feed_forward(norm2(x))
    expect(not close(got, first + attention(norm1(first))),
           "the feed-forward network comes first: attention does")
    branch = x + norm1(attention(x))
    expect(not close(got, branch + norm2(feed_forward(branch))),
           "you normalise what a part returns; normalise what it reads")
    expect(close(got, _block(x, *parts)),
           "expected y = x + attention(norm1(x)), then y + feed_forward(norm2(y))")
    expect_agreement(answer, _block, [
        (torch.arange(12.0).view(4, 3) - 5, _half, _running_sum, _tenth, torch.relu),
        (torch.tensor([[[1.0, -2.0]]]), _tenth, torch.cos, _plus_one, torch.square)])


def _block(x: Tensor, norm1: Callable, attention: Callable, norm2: Callable,
           feed_forward: Callable) -> Tensor:
    y = x + attention(norm1(x))
    return y + feed_forward(norm2(y))


def _tenth(z: Tensor) -> Tensor:
    return z / 10


def _plus_one(z: Tensor) -> Tensor:
    return z + 1


def _half(z: Tensor) -> Tensor:
    return z / 2


def _running_sum(z: Tensor) -> Tensor:
    return z.cumsum(-2)  # like attention, it mixes positions


@exercise
def check_count_parameters(answer: Any) -> None:
    """`answer(V, T, L, C)` counts the parameters of a GPT-2 with tied weights and biases."""
    V, T, L, C = 101, 16, 3, 8
    got = attempt(answer, V, T, L, C)
    right = _count(V, T, L, C)
    biases = L * 9 * C
    expect(got != right + V * C,
           "you counted an output layer of its own; GPT-2 uses the embedding table again")
    expect(got != right - T * C, "the position table is missing: T C")
    expect(got != right - V * C, "the token table is missing: V C")
    expect(got != right - 2 * C, "the final norm is missing: 2 C")
    expect(got != right - biases, "the biases of the linear layers are missing: 9 C per block")
    expect(got != right - L * 4 * C, "the two norms of each block are missing: 4 C per block")
    expect(got != right - L * 8 * C * C,
           "the feed-forward network is missing: two matrices of C times 4 C, 8 C^2 per block")
    expect(got != right - L * 4 * C * C,
           "4 C^2 per block are missing: attention has four matrices of C times C (queries, keys, "
           "values, output), and the feed-forward network two of C times 4 C")
    expect(got != right - (L - 1) * (12 * C * C + 13 * C),
           "you counted one block: multiply by the number of layers")
    expect(got == right, f"for V=101, T=16, L=3, C=8 you got {got}; expected {right}. A block has "
           f"12 C^2 weights, 9 C biases and 4 C norm parameters")
    full = attempt(answer, 50257, 1024, 12, 768)
    expect(full == 124_439_808, f"for GPT-2 you got {full}; expected 124,439,808")
    expect_agreement(answer, _count, [(7, 3, 1, 4), (2, 1, 5, 1)], tolerance=0)


def _count(V: int, T: int, L: int, C: int) -> int:
    return GPTConfig(V, T, L, n_head=1, n_embd=C).num_parameters()


@exercise
def check_training_bytes(answer: Any) -> None:
    """`answer(parameters)`: bytes for weights, gradients and AdamW's two moments in float32."""
    got = attempt(answer, 1000)
    expect(got != 4000, "these are the weights alone: add gradients and the optimizer's state")
    expect(got != 8000, "AdamW's state is missing: it keeps two numbers for each parameter")
    expect(got != 12_000, "one of four is missing: weight, gradient, first and second moment")
    expect(got != 4 and got != 16, "that is for one parameter: multiply by their number")
    expect(got != 128_000, "these are bits: 8 bits are a byte")
    expect(got not in (16_000 / 1e6, 16_000 / 2**20, 16_000 / 1e9, 16_000 / 2**30),
           "expected bytes, not megabytes or gigabytes")
    expect(got == 16_000, f"for 1,000 parameters you got {got}; expected 16,000 bytes")
    expect_agreement(answer, lambda parameters: 16 * parameters, [(1,), (0,), (124_439_808,)],
                     tolerance=0)
