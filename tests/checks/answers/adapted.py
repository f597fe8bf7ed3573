"""Answers to the exercises of chapter 8.3.3: right ones written otherwise, and wrong ones."""

import numpy as np
import torch


def whole_matrix(x, W, A, B, alpha):
    return x @ (W + alpha / A.shape[0] * B @ A).T


def forward(scale=None, frozen=1.0, change=1.0):
    def answer(x, W, A, B, alpha):
        factor = {None: alpha / len(A), "alpha": alpha, "none": 1.0,
                  "in": alpha / A.shape[1]}[scale]
        return frozen * (x @ W.T) + change * factor * (x @ A.T @ B.T)
    return answer


def by_numpy(change, rank):
    U, S, V = np.linalg.svd(np.array(change), full_matrices=False)
    root = np.sqrt(S[:rank])
    return U[:, :rank] * root, root[:, None] * V[:rank]


def by_eigenvectors(change, rank):
    values, vectors = torch.linalg.eigh(change.double() @ change.double().T)
    B = vectors[:, -rank:]
    return [B, B.T @ change.double()]


def svd(scale=True, largest=True):
    def answer(change, rank):
        U, S, V = torch.linalg.svd(change, full_matrices=False)
        kept = slice(0, rank) if largest else slice(len(S) - rank, len(S))
        return U[:, kept] * (S[kept] if scale else 1.0), V[kept]
    return answer


OTHERWISE = [
    ("check_lora_forward", whole_matrix),
    ("check_lora_forward", lambda x, W, A, B, alpha: torch.stack(
        [W @ row + alpha / len(A) * (B @ (A @ row)) for row in x])),
    ("check_adapter_bytes", lambda shapes, rank: sum(2 * rank * sum(shape) for shape in shapes)),
    ("check_thin", by_numpy),
    ("check_thin", by_eigenvectors),
]

MISTAKES = [
    ("check_lora_forward", forward(change=0.0), "frozen matrix alone"),
    ("check_lora_forward", forward(frozen=0.0), "change alone"),
    ("check_lora_forward", forward(scale="none"), "left out the factor"),
    ("check_lora_forward", forward(scale="alpha"), "alpha over the rank"),
    ("check_lora_forward", forward(scale="in"), "number of rows of A"),
    ("check_lora_forward", lambda x, W, A, B, alpha: alpha / len(A) * (x @ W.T + x @ A.T @ B.T),
     "scaled the frozen matrix"),
    ("check_lora_forward", lambda x, W, A, B, alpha: W @ x.T, "expected shape (2, 3)"),
    ("check_adapter_bytes", lambda shapes, rank: sum(rank * sum(s) for s in shapes), "two bytes"),
    ("check_adapter_bytes", lambda shapes, rank: sum(4 * rank * sum(s) for s in shapes), "float32"),
    ("check_adapter_bytes", lambda shapes, rank: sum(2 * n * m for n, m in shapes), "whole matrix"),
    ("check_adapter_bytes", lambda shapes, rank: sum(2 * rank * n * m for n, m in shapes),
     "so they are added"),
    ("check_adapter_bytes", lambda shapes, rank: sum(2 * sum(s) for s in shapes),
     "forgot the rank"),
    ("check_thin", svd(scale=False), "left out the singular values"),
    ("check_thin", svd(largest=False), "smallest singular values"),
    ("check_thin", lambda change, rank: svd()(change, rank)[::-1], "expected B (4, 2)"),
    ("check_thin", lambda change, rank: (change[:, :rank], torch.eye(rank, change.shape[1])),
     "the squared distance is"),
]
