import math

import pytest

from gptlib.checks import history as checks
from gptlib.model.config import GPTConfig


def rough_count(n_layer, n_embd, vocab_size):
    return 12 * n_layer * n_embd**2 + vocab_size * n_embd


def misprint(n_layer, width, n_head, head_dim, millions):
    def miss(C):
        count = GPTConfig(50257, 2048, n_layer, 1, C).num_parameters()
        return abs(count / 1e6 - millions)

    if n_head * head_dim == width:
        return None
    return "width" if miss(n_head * head_dim) < miss(width) else "heads"


def training_days(parameters, tokens, devices, peak, used):
    return 6 * parameters * tokens / (devices * peak * used) / 86400


def compute_optimal(operations):
    parameters = math.sqrt(operations / 120)
    return parameters, 20 * parameters


def mixture(L, C, H, K, D, F, experts, used, V, *, bias=1, matrices=3, norms=True, sinks=True,
            router=True, output=True, table_active=False):
    attention = C * D * (H + 2 * K) + H * D * C + bias * (D * (H + 2 * K) + C) + H * sinks
    expert = matrices * C * F + bias * ((matrices - 1) * F + C)
    other = (router * (C + bias) * experts) + norms * 2 * C
    tables = V * C * (1 + output)
    total = L * (attention + other + experts * expert) + C + tables
    active = total - L * (experts - used) * expert - (0 if table_active else V * C)
    return total, active


def disagreement_is_the_width(n_layer, width, n_head, head_dim, millions):
    return None if n_head * head_dim == width else "width"


def by_name(n_layer, width, n_head, head_dim, millions):
    return {2048: "heads", 5140: "width"}.get(width)


def swapped(*row):
    return {"heads": "width", "width": "heads"}.get(misprint(*row))


CASES = [
    ("rough_count", lambda L, C, V: 12 * L * C + V * C, "not squared"),
    ("rough_count", lambda L, C, V: 12 * L * C * C, "the token table is missing"),
    ("rough_count", lambda L, C, V: rough_count(L, C, 2 * V), "counted twice"),
    ("rough_count", lambda L, C, V: 4 * L * C * C + V * C, "attention alone"),
    ("rough_count", lambda L, C, V: 12 * C * C + V * C, "one block"),
    ("rough_count", lambda L, C, V: 7, "yours gives 7"),
    ("rough_count", lambda L, C, V: "many", "expected a number"),
    ("misprint", lambda *row: "width", "the answer is None"),
    ("misprint", lambda *row: 5140, 'expected None, "width" or "heads"'),
    ("misprint", disagreement_is_the_width, "always blame the width"),
    ("misprint", lambda *r: disagreement_is_the_width(*r) and "heads", "always blame the heads"),
    ("misprint", swapped, "exchanged"),
    ("misprint", by_name, "an invented row"),
    ("misprint", lambda *row: misprint(*row) if row[1] < 5000 else None, "you answer 'heads'"),
    ("training_days", lambda *a: training_days(*a) / 3, "the forward pass alone"),
    ("training_days", lambda *a: training_days(*a) / 6, "the factor 6 is missing"),
    ("training_days", lambda N, D, n, p, u: 6 * N * D * u / (n * p) / 86400, "you multiplied"),
    ("training_days", lambda N, D, n, p, u: 6 * N * D / (n * p) / 86400, "is missing"),
    ("training_days", lambda N, D, n, p, u: 6 * N * D / (p * u) / 86400, "side by side"),
    ("training_days", lambda *a: training_days(*a) * 86400, "seconds"),
    ("training_days", lambda *a: training_days(*a) * 24, "hours"),
    ("training_days", lambda *a: -1, "more than zero"),
    ("training_days", lambda *a: 10.0, "yours is 10.000"),
    ("compute_optimal", lambda C: compute_optimal(C)[::-1], "exchanged"),
    ("compute_optimal", lambda C: (math.sqrt(C / 6), math.sqrt(C / 6)), "times your parameters"),
    ("compute_optimal", lambda C: (math.sqrt(C / 20), 20 * math.sqrt(C / 20)), "six times over"),
    ("compute_optimal", lambda C: (C / 120, 20 * C / 120), "take the square root"),
    ("compute_optimal", lambda C: 5.0, "expected two numbers"),
    ("compute_optimal", lambda C: (0, 0), "must be positive"),
    ("mixture", lambda *s: mixture(*s, bias=0), "the biases are missing"),
    ("mixture", lambda *s: mixture(*s, matrices=2), "three matrices"),
    ("mixture", lambda *s: mixture(*s, norms=False), "missing: two norms"),
    ("mixture", lambda *s: mixture(*s, sinks=False), "missing: one number a head"),
    ("mixture", lambda *s: mixture(*s, router=False), "missing: the router"),
    ("mixture", lambda *s: mixture(*s, output=False), "missing: the token table"),
    ("mixture", lambda *s: (mixture(*s)[0],) * 2, "active equals total"),
    ("mixture", lambda *s: mixture(*s, table_active=True), "counted as active"),
    ("mixture", lambda *s: (mixture(*s)[0], mixture(*s)[1] - 66), "the output table is used"),
    ("mixture", lambda *s: (mixture(*s)[0], 3), "yours are 3"),
    ("mixture", lambda *s: (5, 3), "yours is 5"),
    ("mixture", lambda *s: mixture(*s)[0], "expected two numbers"),
]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("name", ["rough_count", "misprint", "training_days", "compute_optimal",
                                  "mixture"])
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"


def test_the_mixture_of_the_exercise_is_that_of_gpt_oss():
    # published: 116.83 and 20.91 billion parameters, 5.13 and 3.61 billion active
    large = mixture(36, 2880, 64, 8, 64, 2880, 128, 4, 201_088)
    small = mixture(24, 2880, 64, 8, 64, 2880, 32, 4, 201_088)
    assert [round(n / 1e9, 2) for n in large + small] == [116.83, 5.13, 20.91, 3.61]
