import itertools
import math
import statistics

import pytest

from gptlib.checks import tuning as checks


def rate_grid(low, high, n):
    return [low * (high / low) ** (i / (n - 1)) for i in range(n)]


def difference(a, b):
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    return statistics.mean(a) - statistics.mean(b), error


def noise_scale(small, large, b_small, b_large):
    signal = (b_large * large - b_small * small) / (b_large - b_small)
    return (small - large) / (1 / b_small - 1 / b_large) / signal


def best_of(losses, k):
    n = len(losses)
    sets = [math.comb(n - i - 1, k - 1) for i in range(n)]
    return sum(loss * count for loss, count in zip(sorted(losses), sets)) / math.comb(n, k)


def gap(a, b):
    return difference(a, b)[0]


def error(a, b, spread):
    return gap(a, b), spread(a, b)


def listed(losses, k):
    chosen = itertools.islice(itertools.combinations(losses, k), 1000)
    smallest = [min(group) for group in chosen]
    return sum(smallest) / len(smallest)


def with_replacement(losses, k):
    smallest = [min(group) for group in itertools.product(losses, repeat=k)]
    return sum(smallest) / len(smallest)


v, pv, sd, root = statistics.variance, statistics.pvariance, statistics.stdev, math.sqrt
CASES = [
    ("rate_grid", lambda a, b, n: [a + (b - a) * i / (n - 1) for i in range(n)], "differences"),
    ("rate_grid", lambda *a: rate_grid(*a)[:-1], "one end is missing"),
    ("rate_grid", lambda *a: rate_grid(*a)[1:], "one end is missing"),
    ("rate_grid", lambda *a: rate_grid(*a)[::-1], "the order"),
    ("rate_grid", lambda a, b, n: [a * (b / a) ** (i / n) for i in range(n)], "n - 1 steps"),
    ("rate_grid", lambda *a: [math.log(x) for x in rate_grid(*a)], "these are logarithms"),
    ("rate_grid", lambda *a: [math.log10(x) for x in rate_grid(*a)], "these are logarithms"),
    ("rate_grid", lambda a, b, n: [a * 2**i for i in range(n)], "only the ends are left"),
    ("rate_grid", lambda *a: [1.0], "yours are [1.0]"),
    ("rate_grid", lambda *a: 0.5, "expected a list"),
    ("difference", lambda a, b: (-gap(a, b), 0.1), "the sign"),
    ("difference", lambda a, b: (0.7, 0.1), "your difference is 0.7000"),
    ("difference", lambda a, b: error(a, b, lambda a, b: v(a) / 4 + v(b) / 3), "take its root"),
    ("difference", lambda a, b: error(a, b, lambda a, b: root(pv(a) / 4 + pv(b) / 3)), "n - 1"),
    ("difference", lambda a, b: error(a, b, lambda a, b: sd(a) / 2 + sd(b) / root(3)), "squares"),
    ("difference", lambda a, b: error(a, b, lambda a, b: root(v(a) + v(b))), "two single runs"),
    ("difference", lambda a, b: error(a, b, lambda a, b: sd(a) / 2), "the error of one mean"),
    ("difference", lambda a, b: error(a, b, lambda a, b: 9), "yours is 9.0000"),
    ("difference", gap, "expected a list of two numbers"),
    ("noise_scale", lambda *a: 1 / noise_scale(*a), "upside down"),
    ("noise_scale", lambda s, g, b, c: (s - g) / (1 / b - 1 / c), "the noise alone"),
    ("noise_scale", lambda s, g, b, c: (s - g) / (1 / b - 1 / c) / g, "of its own"),
    ("noise_scale", lambda s, g, b, c: -noise_scale(s, g, b, c), "negative"),
    ("noise_scale", lambda s, g, b, c: noise_scale(root(s), root(g), b, c), "take no root"),
    ("noise_scale", lambda s, g, b, c: noise_scale(s, g, 4, 100), "do the batch sizes enter"),
    ("noise_scale", lambda *a: 7, "yours is 7.000"),
    ("best_of", lambda losses, k: min(losses), "the smallest of all"),
    ("best_of", lambda losses, k: min(losses[:k]), "the first k"),
    ("best_of", lambda losses, k: sum(losses) / len(losses), "the mean of all"),
    ("best_of", with_replacement, "with replacement"),
    ("best_of", lambda losses, k: -best_of([-x for x in losses], k), "the expected largest"),
    ("best_of", lambda losses, k: best_of(losses, k) + (k == 1), "for k = 1"),
    ("best_of", lambda losses, k: best_of(losses, k) + (k == 4), "for k = 4 of 4"),
    ("best_of", lambda losses, k: best_of(losses, k) + (k == 2), "for [5.0, 1.0, 4.0, 2.0]"),
    ("best_of", listed, "k = 20"),
    ("best_of", lambda losses, k: "low", "expected one number"),
]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("name", ["rate_grid", "difference", "noise_scale", "best_of"])
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"
