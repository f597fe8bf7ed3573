"""Answers to the exercises of chapter 5.4: right ones written otherwise, and wrong ones."""

import itertools
import math
import random
import statistics

import numpy as np
import torch


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


def grid_by_steps(low, high, n):
    rates = [low]
    for _ in range(n - 1):
        rates.append(rates[-1] * (high / low) ** (1 / (n - 1)))
    return tuple(rates)


def difference_of_arrays(a, b):
    a, b = np.array(a, dtype=float), np.array(b, dtype=float)
    return np.array([a.mean() - b.mean(), np.hypot(*(x.std(ddof=1) / len(x) ** 0.5
                                                     for x in (a, b)))])


def difference_of_tensors(a, b):
    a, b = torch.tensor(a).double(), torch.tensor(b).double()
    return a.mean() - b.mean(), (a.var() / len(a) + b.var() / len(b)).sqrt()


def noise_by_solving(small, large, b_small, b_large):
    """The two equations as a matrix: signal + noise / B = length."""
    signal, noise = np.linalg.solve([[1, 1 / b_small], [1, 1 / b_large]], [small, large])
    return noise / signal


def best_by_steps(losses, k):
    """Each loss in turn: the chance that it is drawn and no smaller one is."""
    n, total, none_yet = len(losses), 0.0, 1.0
    for i, loss in enumerate(sorted(losses)):
        drawn = min(1.0, k / (n - i))
        total, none_yet = total + none_yet * drawn * loss, none_yet * (1 - drawn)
    return total


def drawn(losses, k):
    rng = random.Random(0)
    return sum(min(rng.sample(losses, k)) for _ in range(2000)) / 2000 if 1 < k < 4 else (
        best_of(losses, k))


def every_set(losses, k):
    smallest = [min(group) for group in itertools.combinations(losses, k)]
    return sum(smallest) / len(smallest)


def of_different_losses(losses, k):
    different = sorted(set(losses))
    return best_of(different, min(k, len(different)))


def pooled(a, b):
    both = ((len(a) - 1) * v(a) + (len(b) - 1) * v(b)) / (len(a) + len(b) - 2)
    return gap(a, b), root(both * (1 / len(a) + 1 / len(b)))


v, pv, sd, root = statistics.variance, statistics.pvariance, statistics.stdev, math.sqrt

OTHERWISE = [
    ("check_rate_grid", grid_by_steps),
    ("check_rate_grid", np.geomspace),
    ("check_rate_grid", lambda low, high, n: torch.linspace(
        math.log(low), math.log(high), n).exp()),
    ("check_difference", difference_of_arrays),
    ("check_difference", difference_of_tensors),
    ("check_noise_scale", noise_by_solving),
    ("check_noise_scale", lambda s, g, b, c: (s - g) * b * c / (c * g - b * s)),
    ("check_best_of", best_by_steps),
    ("check_best_of", lambda losses, k: np.float64(best_of(losses, k))),
]

MISTAKES = [
    ("check_rate_grid", lambda a, b, n: [a + (b - a) * i / (n - 1) for i in range(n)],
     "differences"),
    ("check_rate_grid", lambda *a: rate_grid(*a)[:-1], "one end is missing"),
    ("check_rate_grid", lambda *a: rate_grid(*a)[1:], "one end is missing"),
    ("check_rate_grid", lambda *a: rate_grid(*a)[::-1], "the order"),
    ("check_rate_grid", lambda a, b, n: [a * (b / a) ** (i / n) for i in range(n)], "n - 1 steps"),
    ("check_rate_grid", lambda *a: [math.log(x) for x in rate_grid(*a)], "these are logarithms"),
    ("check_rate_grid", lambda *a: [math.log10(x) for x in rate_grid(*a)], "these are logarithms"),
    ("check_rate_grid", lambda a, b, n: [a * 2**i for i in range(n)], "only the ends are left"),
    ("check_rate_grid", lambda *a: [1.0], "yours are [1.0]"),
    ("check_rate_grid", lambda *a: 0.5, "expected a list"),
    ("check_difference", lambda a, b: (-gap(a, b), 0.1), "the sign"),
    ("check_difference", lambda a, b: (0.7, 0.1), "your difference is 0.7000"),
    ("check_difference", lambda a, b: error(a, b, lambda a, b: v(a) / 4 + v(b) / 3),
     "take its root"),
    ("check_difference", lambda a, b: error(a, b, lambda a, b: root(pv(a) / 4 + pv(b) / 3)),
     "n - 1"),
    ("check_difference", lambda a, b: error(a, b, lambda a, b: sd(a) / 2 + sd(b) / root(3)),
     "squares"),
    ("check_difference", lambda a, b: error(a, b, lambda a, b: root(v(a) + v(b))),
     "two single runs"),
    ("check_difference", lambda a, b: error(a, b, lambda a, b: sd(a) / 2), "the error of one mean"),
    ("check_difference", lambda a, b: error(a, b, lambda a, b: 9), "yours is 9.0000"),
    ("check_difference", gap, "expected a list of two numbers"),
    ("check_noise_scale", lambda *a: 1 / noise_scale(*a), "upside down"),
    ("check_noise_scale", lambda s, g, b, c: (s - g) / (1 / b - 1 / c), "the noise alone"),
    ("check_noise_scale", lambda s, g, b, c: (s - g) / (1 / b - 1 / c) / g, "of its own"),
    ("check_noise_scale", lambda s, g, b, c: -noise_scale(s, g, b, c), "negative"),
    ("check_noise_scale", lambda s, g, b, c: noise_scale(root(s), root(g), b, c), "take no root"),
    ("check_noise_scale", lambda s, g, b, c: noise_scale(s, g, 4, 100), "do the batch sizes enter"),
    ("check_noise_scale", lambda *a: 7, "yours is 7.000"),
    ("check_best_of", lambda losses, k: min(losses), "the smallest of all"),
    ("check_best_of", lambda losses, k: min(losses[:k]), "the first k"),
    ("check_best_of", lambda losses, k: sum(losses) / len(losses), "the mean of all"),
    ("check_best_of", with_replacement, "with replacement"),
    ("check_best_of", lambda losses, k: -best_of([-x for x in losses], k), "the expected largest"),
    ("check_best_of", lambda losses, k: best_of(losses, k) + (k == 1), "for k = 1"),
    ("check_best_of", lambda losses, k: best_of(losses, k) + (k == 4), "for k = 4 of 4"),
    ("check_best_of", lambda losses, k: best_of(losses, k) + (k == 2), "for [5.0, 1.0, 4.0, 2.0]"),
    ("check_best_of", listed, "k = 20"),
    ("check_best_of", lambda losses, k: "low", "expected a number"),
    ("check_rate_grid", lambda low, high, n: [low * 10**i for i in range(n)] if n == 4 else
     rate_grid(low, high, 5)[:n] if n == 5 else [low, high], "for 0.3, 0.3 and n = 3"),
    ("check_difference", pooled, "you pooled the two variances"),
    ("check_difference", lambda a, b: error(a, b, lambda a, b: root(v(a) / 4 + v(b) / 3)),
     "for a = [1.0, 3.0]"),
    ("check_noise_scale", lambda s, g, b, c: noise_scale(s, g, b, c) if c != 512 else 1,
     "wrong for (0.75, 0.5, 16, 512)"),
    ("check_best_of", drawn, "you drew sets at random"),
    ("check_best_of", every_set, "you list the sets"),
    ("check_best_of", of_different_losses, "wrong for ([2, 1, 2, 2, 2], 2)"),
]
