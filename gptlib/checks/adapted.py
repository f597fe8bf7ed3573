"""Checks of the exercises of chapter 8.3.3, A pretrained model, adapted."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptlib.checks import (
    as_number,
    as_tensor,
    attempt,
    close,
    exercise,
    expect,
    expect_agreement,
)


def _case(batch: int, n_in: int, n_out: int, rank: int, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator) for shape in (
        (batch, n_in), (n_out, n_in), (rank, n_in), (n_out, rank)))


@exercise
def check_lora_forward(answer: Any) -> None:
    """`lora_forward(x, W, A, B, alpha)`: x (batch, in) through W and its change, (batch, out)."""
    x, W, A, B = _case(2, 5, 3, 2)
    got = as_tensor(attempt(answer, x, W, A, B, 6.0))
    expect(tuple(got.shape) == (2, 3), f"expected shape (2, 3), one row of outputs for each row of "
           f"x, got {tuple(got.shape)}")
    frozen, change = x @ W.T, x @ A.T @ B.T
    expect(not close(got, frozen), "this is the frozen matrix alone: add the change")
    expect(not close(got, 3 * change), "this is the change alone: add it to the frozen matrix")
    expect(not close(got, frozen + change), "you left out the factor alpha / rank")
    expect(not close(got, frozen + 6 * change), "you multiplied by alpha; the factor is alpha over "
           "the rank: B A is a sum of that many products")
    expect(not close(got, frozen + 6 / 5 * change), "you divided alpha by the number of inputs; "
           "the rank is the number of rows of A")
    expect(not close(got, 3 * (frozen + change)), "you scaled the frozen matrix as well")
    expect_agreement(answer, _lora_forward, [
        (x, W, A, B, 6.0), (*_case(1, 4, 4, 1, 1), 2.0), (*_case(3, 2, 6, 4, 2), 1.0),
        (x, W, A, torch.zeros_like(B), 6.0)], tolerance=1e-4)


def _lora_forward(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + alpha / len(A) * (x @ A.T @ B.T)


@exercise
def check_adapter_bytes(answer: Any) -> None:
    """`adapter_bytes(shapes, rank)`: bytes in bfloat16 of A and B for matrices (out, in)."""
    got = as_number(attempt(answer, [(10, 6)], 3))
    expect(got != 48, "this is how many numbers there are; a bfloat16 has two bytes")
    expect(got != 192, "these are four bytes a number, float32; a bfloat16 has two")
    expect(got not in (120, 60), "this is the whole matrix; LoRA stores A (rank, in) and B (out, "
           "rank) only")
    expect(got != 2 * 3 * 10 * 6, "you multiplied out and in; A has rank x in numbers and B has "
           "out x rank, so they are added")
    expect(got != 32, "you forgot the rank")
    expect_agreement(answer, _adapter_bytes, [
        ([(10, 6)], 3), ([(960, 576), (576, 576)], 16), ([], 4), ([(1, 2), (1, 2), (7, 7)], 1)])


def _adapter_bytes(shapes: Sequence[tuple[int, int]], rank: int) -> int:
    return 2 * sum(rank * (n_out + n_in) for n_out, n_in in shapes)


@exercise
def check_thin(answer: Any) -> None:
    """`thin(change, rank)`: (B, A) whose product is the closest of that rank to `change`."""
    change = _case(1, 6, 4, 2)[1]
    B, A = (as_tensor(part) for part in attempt(answer, change, 2))
    expect(tuple(B.shape) == (4, 2) and tuple(A.shape) == (2, 6),
           f"expected B (4, 2) and A (2, 6) for a change of shape (4, 6) and rank 2, got "
           f"{tuple(B.shape)} and {tuple(A.shape)}")
    U, S, V = torch.linalg.svd(change, full_matrices=False)
    expect(not close(B @ A, U[:, :2] @ V[:2]), "you left out the singular values")
    expect(not close(B @ A, U[:, -2:] * S[-2:] @ V[-2:]), "you kept the smallest singular values; "
           "the largest carry most of the change")
    for shape, rank in (((4, 6), 2), ((5, 3), 1), ((3, 3), 3), ((2, 7), 1)):
        change = _case(1, shape[1], shape[0], 1, seed=rank)[1]
        B, A = (as_tensor(part) for part in attempt(answer, change, rank))
        U, S, V = torch.linalg.svd(change, full_matrices=False)
        best, got = S[rank:].square().sum(), (change - (B @ A).float()).square().sum()
        expect(close(got, best, 1e-3), f"for shape {shape} and rank {rank} the squared distance is "
               f"{got:.4f}; the closest product has {best:.4f}")
