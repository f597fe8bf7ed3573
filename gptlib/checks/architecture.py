"""Checks of the exercises in chapter 3.2, The architecture of GPT."""

from typing import Any

import torch

from gptlib.checks import attempt, close, exercise, expect
from gptlib.model.config import GPTConfig


@exercise
def check_layer_norm(answer: Any) -> None:
    """`answer(x, eps)` normalises x (T, C) over its last dimension, without weights."""
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.0, 10.0, 0.0, 10.0], [5.0, 5.0, 5.0, 5.0]])
    got, eps = attempt(answer, x, 1e-5), 1e-5
    expect(isinstance(got, torch.Tensor) and got.shape == x.shape,
           "expected a tensor of the same shape as x")
    expect(not got.isnan().any().item(),
           "a row of equal numbers gives nan: its variance is 0, so add eps before the root")
    centred = x - x.mean(-1, keepdim=True)
    over_time = (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt()
    expect(not close(got, over_time, 1e-4),
           "you normalised over the positions; each position is normalised alone, over dim=-1")
    expect(not close(got[:2], (x / (x.square().mean(-1, keepdim=True) + eps).sqrt())[:2], 1e-4),
           "you didn't subtract the mean: that is RMS norm")
    expect(not close(got[:2], (centred / (x.var(-1, keepdim=True) + eps).sqrt())[:2], 1e-4),
           "you divided by the sample variance, with C - 1; layer norm divides by C: correction=0")
    expect(not close(got[:2], (centred / (x.var(-1, correction=0, keepdim=True) + eps))[:2], 1e-4),
           "you divided by the variance; divide by its root")
    expect(close(got, torch.nn.functional.layer_norm(x, (4,), eps=eps), 1e-4),
           "the rows don't have mean 0 and variance 1")
    tiny = torch.tensor([[0.0, 1e-3]])
    expect(close(attempt(answer, tiny, 1e-5), torch.nn.functional.layer_norm(tiny, (2,), eps=1e-5),
                 1e-4), "for tiny inputs the result differs: eps belongs under the root")


@exercise
def check_block(answer: Any) -> None:
    """`answer(x, norm1, attention, norm2, feed_forward)` is a pre-norm block with residuals."""
    def norm1(z):
        return z / 10

    def attention(z):
        return z + 1

    def norm2(z):
        return z / 2

    def feed_forward(z):
        return z.square()

    x = torch.tensor([1.0, 2.0, 5.0])
    got = attempt(answer, x, norm1, attention, norm2, feed_forward)
    expect(isinstance(got, torch.Tensor), "expected a tensor")
    middle = x + attention(norm1(x))
    expect(not close(got, feed_forward(norm2(attention(norm1(x))))),
           "there is no residual connection: add each part's result to its input")
    expect(not close(got, middle), "the feed-forward network is missing")
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
    expect(close(got, middle + feed_forward(norm2(middle))),
           "expected y = x + attention(norm1(x)), then y + feed_forward(norm2(y))")


@exercise
def check_count_parameters(answer: Any) -> None:
    """`answer(V, T, L, C)` counts the parameters of a GPT-2 with tied weights and biases."""
    V, T, L, C = 101, 16, 3, 8
    got = attempt(answer, V, T, L, C)
    right = GPTConfig(V, T, L, n_head=2, n_embd=C).num_parameters()
    biases = L * 9 * C
    expect(got != right + V * C,
           "you counted an output layer of its own; GPT-2 uses the embedding table again")
    expect(got != right - T * C, "the position table is missing: T C")
    expect(got != right - 2 * C, "the final norm is missing: 2 C")
    expect(got != right - biases, "the biases of the linear layers are missing: 9 C per block")
    expect(got != right - L * 4 * C, "the two norms of each block are missing: 4 C per block")
    expect(got == right, f"for V=101, T=16, L=3, C=8 you got {got}; expected {right}. A block has "
           f"12 C^2 weights, 9 C biases and 4 C norm parameters")
    full = attempt(answer, 50257, 1024, 12, 768)
    expect(full == 124_439_808, f"for GPT-2 you got {full}; expected 124,439,808")


@exercise
def check_training_bytes(answer: Any) -> None:
    """`answer(parameters)`: bytes for weights, gradients and AdamW's two moments in float32."""
    got = attempt(answer, 1000)
    expect(got != 4000, "these are the weights alone: add gradients and the optimizer's state")
    expect(got != 8000, "AdamW's state is missing: it keeps two numbers for each parameter")
    expect(got != 12_000, "one of four is missing: weight, gradient, first and second moment")
    expect(got != 4 and got != 16, "that is for one parameter: multiply by their number")
    expect(got != 16_000 / 1e6, "expected bytes, not megabytes")
    expect(got == 16_000, f"for 1,000 parameters you got {got}; expected 16,000 bytes")
