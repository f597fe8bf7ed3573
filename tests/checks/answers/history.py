"""Answers to the exercises of chapter 1.1: right ones written otherwise, and wrong ones."""

import math

import numpy as np
import torch

from gptlib.model.config import GPTConfig


def rough_count(n_layer, n_embd, vocab_size):
    return 12 * n_layer * n_embd**2 + vocab_size * n_embd


def rough_count_by_matrices(n_layer, n_embd, vocab_size):
    matrices = [n_embd * n_embd] * 4 + [n_embd * 4 * n_embd] * 2
    return float(n_layer * sum(matrices) + vocab_size * n_embd)


def count(n_layer, width):
    return GPTConfig(50257, 2048, n_layer, 1, width).num_parameters()


def misprint(n_layer, width, n_head, head_dim, millions, unit=1e6, distance=abs):
    def miss(C):
        return distance(count(n_layer, C) / unit - millions)

    if n_head * head_dim == width:
        return None
    return "width" if miss(n_head * head_dim) < miss(width) else "heads"


def misprint_by_ratio(n_layer, width, n_head, head_dim, millions):
    """The smallest distance by itself, counted with the rule of the chapter's first exercise."""
    names = {width: "heads", n_head * head_dim: "width"}
    if len(names) == 2:
        return names[min(names, key=lambda C: abs(rough_count(n_layer, C, 50257 + 2048)
                                                  - 1e6 * millions))]


def training_days(parameters, tokens, devices, peak, used):
    return 6 * parameters * tokens / (devices * peak * used) / 86400


def days_in_numpy(parameters, tokens, devices, peak, used):
    speed = np.array([peak * used] * devices).sum()
    return np.divide(np.float64(parameters) * tokens * 6, speed * 60 * 60 * 24)


def compute_optimal(operations):
    parameters = math.sqrt(operations / 120)
    return parameters, 20 * parameters


def optimal_tokens_first(operations):
    tokens = (operations * 20 / 6) ** 0.5
    return np.array([tokens / 20, tokens])


def mixture(L, C, H, K, D, F, experts, used, V, *, bias=1, matrices=3, norms=2, sinks=True,
            router=True, output=True, table_active=False):
    attention = C * D * (H + 2 * K) + H * D * C + bias * (D * (H + 2 * K) + C) + H * sinks
    expert = matrices * C * F + bias * ((matrices - 1) * F + C)
    other = (router * (C + bias) * experts) + norms * C
    tables = V * C * (1 + output)
    total = L * (attention + other + experts * expert) + C + tables
    active = total - L * (experts - used) * expert - (0 if table_active else V * C)
    return total, active


def mixture_by_what_is_active(L, C, H, K, D, F, experts, used, V):
    """The active ones counted directly, and everything idle added."""
    matrices = [(C, H * D), (C, K * D), (C, K * D), (H * D, C), (C, experts)]
    expert = sum((rows + 1) * columns for rows, columns in ((C, F), (C, F), (F, C)))
    layer = sum((rows + 1) * columns for rows, columns in matrices) + H + 2 * C
    active = L * (layer + used * expert) + C + C * V
    return torch.tensor([active + L * (experts - used) * expert + V * C, active])


def mixture_with(change):
    """The right numbers of another shape."""
    return lambda L, C, H, K, D, F, experts, used, V: mixture(
        **(dict(L=L, C=C, H=H, K=K, D=D, F=F, experts=experts, used=used, V=V)
           | change(C, H, experts, used)))


def heads_as_wide_as_the_stream(L, C, H, K, D, F, experts, used, V):
    total, active = mixture(L, C, H, K, D, F, experts, used, V)
    missing = L * (H * D - C) * (2 * C + 1)
    return total - missing, active - missing


def idle_in_one_layer(L, C, H, K, D, F, experts, used, V):
    total, active = mixture(L, C, H, K, D, F, experts, used, V)
    return total, active + (L - 1) * (experts - used) * (3 * C * F + 2 * F + C)


def second_wrong(change):
    def wrong(*shape):
        total, active = mixture(*shape)
        return total, change(total, active, *shape)
    return wrong


def disagreement_is_the_width(n_layer, width, n_head, head_dim, millions):
    return None if n_head * head_dim == width else "width"


def by_name(n_layer, width, n_head, head_dim, millions):
    return {2048: "heads", 5140: "width"}.get(width)


def swapped(*row):
    return {"heads": "width", "width": "heads"}.get(misprint(*row))


OTHERWISE = [
    ("check_rough_count", rough_count_by_matrices),
    ("check_rough_count", lambda L, C, V: torch.tensor(rough_count(L, C, V))),
    ("check_misprint", misprint_by_ratio),
    ("check_misprint", lambda *row: misprint(*row[:4], row[4] * 1e6, unit=1)),
    ("check_training_days", days_in_numpy),
    ("check_training_days", lambda N, D, n, p, u: N / 1e12 * D / n / (p / 1e12) / u / 14400),
    ("check_compute_optimal", optimal_tokens_first),
    ("check_compute_optimal", lambda C: [round(N) for N in compute_optimal(C)]),
    ("check_mixture", mixture_by_what_is_active),
    ("check_mixture", lambda *shape: [float(n) for n in mixture(*shape)]),
]

MISTAKES = [
    ("check_rough_count", lambda L, C, V: 12 * L * C + V * C, "not squared"),
    ("check_rough_count", lambda L, C, V: 12 * L * C * C, "the token table is missing"),
    ("check_rough_count", lambda L, C, V: 12 * L * C * C + V, "C numbers each"),
    ("check_rough_count", lambda L, C, V: rough_count(L, C, 2 * V), "counted twice"),
    ("check_rough_count", lambda L, C, V: 4 * L * C * C + V * C, "attention alone"),
    ("check_rough_count", lambda L, C, V: 12 * C * C + V * C, "one block"),
    ("check_rough_count", lambda L, C, V: 12 * (L * C)**2 + V * C, "only C is squared"),
    ("check_rough_count", lambda L, C, V: 7, "yours gives 7"),
    ("check_rough_count", lambda L, C, V: 7000, "wrong for (1, 1, 1): expected 13, got 7000"),
    ("check_rough_count", lambda L, C, V: "many", "expected a number"),
    ("check_misprint", lambda *row: "width", "the answer is None"),
    ("check_misprint", lambda *row: 5140, 'expected None, "width" or "heads"'),
    ("check_misprint", disagreement_is_the_width, "always blame the width"),
    ("check_misprint", lambda *r: disagreement_is_the_width(*r) and "heads",
     "always blame the heads"),
    ("check_misprint", swapped, "exchanged"),
    ("check_misprint", by_name, "an invented row"),
    ("check_misprint", lambda *row: misprint(*row) if row[1] < 5000 else None,
     "you answer 'heads'"),
    ("check_misprint", lambda *row: misprint(*row, unit=1), "the smaller of the two widths"),
    ("check_misprint", lambda *row: misprint(*row, distance=float),
     "the smaller of the two widths"),
    ("check_misprint", lambda *row: misprint(*row) if row[0] > 1 else "width",
     "for the invented row (1, 60, 4, 16, 3)"),
    ("check_misprint", lambda L, C, H, D, millions: misprint(H, C, L, D, millions),
     "the row holds layers, width, heads"),
    ("check_training_days", lambda *a: training_days(*a) / 3, "the forward pass alone"),
    ("check_training_days", lambda *a: training_days(*a) * 4 / 6, "the backward pass alone"),
    ("check_training_days", lambda *a: training_days(*a) / 6, "the factor 6 is missing"),
    ("check_training_days", lambda N, D, n, p, u: 6 * N * D * u / (n * p) / 86400,
     "you multiplied"),
    ("check_training_days", lambda N, D, n, p, u: 6 * N * D / (n * p) / 86400, "is missing"),
    ("check_training_days", lambda N, D, n, p, u: 6 * N * D / (p * u) / 86400, "side by side"),
    ("check_training_days", lambda *a: training_days(*a) * 86400, "seconds"),
    ("check_training_days", lambda *a: training_days(*a) * 1440, "minutes"),
    ("check_training_days", lambda *a: training_days(*a) * 24, "hours"),
    ("check_training_days", lambda *a: -1, "more than zero"),
    ("check_training_days", lambda *a: 10.0, "yours is 10.000"),
    ("check_training_days", lambda *a: training_days(1e9, 2e10, 8, 1e14, 0.5),
     "wrong for (4.05e+11"),
    ("check_compute_optimal", lambda C: compute_optimal(C)[::-1], "exchanged"),
    ("check_compute_optimal", lambda C: (math.sqrt(C / 6), math.sqrt(C / 6)),
     "times your parameters"),
    ("check_compute_optimal", lambda C: (math.sqrt(C / 20), 20 * math.sqrt(C / 20)),
     "six times over"),
    ("check_compute_optimal", lambda C: (C / 120, 20 * C / 120), "take the square root"),
    ("check_compute_optimal", lambda C: 5.0, "expected two numbers"),
    ("check_compute_optimal", lambda C: (0, 0), "must be positive"),
    ("check_compute_optimal", lambda C: (1e9, 2e10), "wrong for (3.14e+23)"),
    ("check_mixture", lambda *s: mixture(*s, bias=0), "the biases are missing"),
    ("check_mixture", lambda *s: mixture(*s, matrices=2), "three matrices"),
    ("check_mixture", lambda *s: mixture(*s, norms=0), "missing: two norms"),
    ("check_mixture", lambda *s: mixture(*s, norms=1), "two norms, not one"),
    ("check_mixture", lambda *s: mixture(*s, sinks=False), "missing: one number a head"),
    ("check_mixture", lambda *s: mixture(*s, router=False), "missing: the router"),
    ("check_mixture", lambda *s: mixture(*s, output=False), "missing: the token table"),
    ("check_mixture", mixture_with(lambda C, H, experts, used: {"K": H}), "K heads each"),
    ("check_mixture", heads_as_wide_as_the_stream, "not C wide here"),
    ("check_mixture", lambda *s: (mixture(*s)[0],) * 2, "active equals total"),
    ("check_mixture", lambda *s: mixture(*s, table_active=True), "counted as active"),
    ("check_mixture", second_wrong(lambda total, active, *s: active - s[1] * s[8]),
     "the output table is used"),
    ("check_mixture", mixture_with(lambda C, H, experts, used: {"used": experts - used}),
     "took away the experts that work"),
    ("check_mixture", mixture_with(lambda C, H, experts, used: {"used": 1}), "not one expert"),
    ("check_mixture", idle_in_one_layer, "multiply by L"),
    ("check_mixture", mixture_with(lambda C, H, experts, used: {"used": 2}), "wrong for (1, 4, 2"),
    ("check_mixture", lambda *s: (mixture(*s)[0], 3), "yours are 3"),
    ("check_mixture", lambda *s: (5, 3), "yours is 5"),
    ("check_mixture", lambda *s: mixture(*s)[0], "expected two numbers"),
]
