"""Answers to the exercises of chapter 3.1: right ones written otherwise, and wrong ones."""

import math

import numpy as np
import torch

CONSTANT = ("check_previous_token",)


def weights(scale=None, normalise=True, safe=True, softmax=True):
    def answer(query, keys):
        root = scale or math.sqrt(len(query))
        scores = [sum(q * k for q, k in zip(query, key)) / root for key in keys]
        if not softmax:
            return scores
        exponentials = [math.exp(score - (max(scores) if safe else 0)) for score in scores]
        return [value / (sum(exponentials) if normalise else 1) for value in exponentials]
    return answer


def weights_as_array(query, keys):
    scores = np.array(keys) @ np.array(query) / np.sqrt(len(query))
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


def mask_by_comparison(T, S):
    return torch.arange(S)[None] <= torch.arange(T)[:, None] + S - T


def previous(w_q=30.0, shift_q=0, shift_k=1):
    return lambda: (w_q * torch.eye(8).roll(shift_q, dims=1), torch.eye(8).roll(shift_k, dims=1))


def off_at_the_second_position():
    w_q = 30 * torch.eye(8)
    w_q[1] = 0
    return w_q, torch.eye(8).roll(1, dims=1)


OTHERWISE = [
    ("check_weights_of_one_query", weights_as_array),
    ("check_weights_of_one_query", lambda q, k: torch.softmax(
        torch.tensor(k, dtype=torch.float64) @ torch.tensor(q, dtype=torch.float64)
        / len(q) ** 0.5, 0)),
    ("check_may_look", mask_by_comparison),
    ("check_may_look", lambda T, S: [[s <= t + S - T for s in range(S)] for t in range(T)]),
    ("check_split_heads", lambda x, H: torch.stack(x.chunk(H, dim=1))),
    ("check_split_heads", lambda x, H: x.reshape(len(x), H, -1).permute(1, 0, 2).clone()),
    ("check_previous_token", lambda: [100 * torch.eye(8).roll(-1, dims=1).double(), torch.eye(8)]),
]

MISTAKES = [
    ("check_weights_of_one_query", weights(softmax=False), "these are scores"),
    ("check_weights_of_one_query", weights(normalise=False), "don't add up to 1"),
    ("check_weights_of_one_query", weights(scale=1.0), "forgot the scaling"),
    ("check_weights_of_one_query", weights(scale=4.0), "by its square root"),
    ("check_weights_of_one_query", weights(scale=2.0), "not by 2"),
    ("check_weights_of_one_query", weights(safe=False), "math range error"),
    ("check_weights_of_one_query", lambda q, k: [0.2, 0.3, 0.5], "are not softmax"),
    ("check_weights_of_one_query", lambda q, k: 0.5, "has another form than the task asks for"),
    ("check_may_look", lambda T, S: torch.ones(T, S).tril(S - T) == 0, "turn it round"),
    ("check_may_look", lambda T, S: torch.ones(T, S).tril(S - T - 1), "hides the diagonal"),
    ("check_may_look", lambda T, S: torch.ones(T, S).triu(), "rows and columns"),
    ("check_may_look", lambda T, S: torch.ones(T, S).tril(1), "above the diagonal"),
    ("check_may_look", lambda T, S: torch.eye(T, S), "all of its past"),
    ("check_may_look", lambda T, S: torch.ones(T, S).tril(), "aligned top-left"),
    ("check_may_look", lambda T, S: torch.ones(T, T).tril(), "has shape (2, 5), got (2, 2)"),
    ("check_split_heads", lambda x, H: x.view(H, x.shape[0], -1), "cuts the sequence"),
    ("check_split_heads", lambda x, H: x.view(x.shape[0], H, -1), "heads must come first"),
    ("check_split_heads", lambda x, H: x.view(x.shape[0], -1, H).permute(2, 0, 1),
     "dealt the features out"),
    ("check_split_heads", lambda x, H: x, "expected shape (2, 4, 3), got (4, 6)"),
    ("check_split_heads", lambda x, H: torch.stack(x.chunk(2, dim=1)), "wrong for ("),
    ("check_previous_token", previous(shift_k=0), "looks at itself"),
    ("check_previous_token", previous(shift_q=1, shift_k=0), "the mask hides"),
    ("check_previous_token", previous(shift_q=-1), "two back"),
    ("check_previous_token", previous(w_q=1.0), "larger number"),
    ("check_previous_token", off_at_the_second_position, "position 1 gives position 0 the weight"),
    ("check_previous_token", lambda: torch.eye(8), "two matrices W_q, W_k"),
]
