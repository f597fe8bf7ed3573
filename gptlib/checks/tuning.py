"""Checks of chapter 5.4, hyperparameter tuning."""

import itertools
import math
import statistics
from typing import Any

from gptlib.checks import as_number, attempt, close, exercise, expect, expect_agreement


@exercise
def check_rate_grid(answer: Any) -> None:
    """`answer(low, high, n)` -> n rates from low to high, each the same multiple of the last."""
    got = _numbers(attempt(answer, 0.001, 0.016, 5), "rates")
    right = [0.001, 0.002, 0.004, 0.008, 0.016]
    expect(not _same(got, [0.001 + i * 0.00375 for i in range(5)]),
           "your rates have equal differences: four of the five lie in the upper three quarters, "
           "and none between 0.001 and 0.004; use equal ratios")
    expect(not _same(got, right[:-1]) and not _same(got, right[1:]),
           "one end is missing: both low and high belong to the grid")
    expect(not _same(got, right[::-1]), "the order: from low to high")
    expect(not _same(got, [0.001 * 16 ** (i / 5) for i in range(5)]),
           "the last rate is below high: n rates have n - 1 steps between them")
    expect(not _same(got, [math.log(rate) for rate in right])
           and not _same(got, [math.log10(rate) for rate in right]),
           "these are logarithms: equal steps there, but return the rates themselves")
    expect(_same(got, right), f"for 0.001, 0.016 and n = 5 the rates are {right}; yours are {got}")
    two = _numbers(attempt(answer, 1e-5, 1e-1, 2), "rates")
    expect(_same(two, [1e-5, 1e-1]), f"for n = 2 only the ends are left; yours are {two}")
    for low, high, n in ((1, 1000, 4), (0.3, 0.3, 3), (2e-4, 0.05, 11)):
        got = _numbers(attempt(answer, low, high, n), "rates")
        right = [low * (high / low) ** (i / (n - 1)) for i in range(n)]
        expect(_same(got, right), f"for {low}, {high} and n = {n} the rates are "
               f"{[float(f'{rate:.4g}') for rate in right]}; yours are {got}")


@exercise
def check_difference(answer: Any) -> None:
    """`answer(a, b)` -> (mean of a less mean of b, standard error of that difference)."""
    a, b = [2.0, 2.2, 2.4, 2.6], [2.1, 2.2, 2.3]
    gap, error = _pair(attempt(answer, a, b))
    va, vb = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    right = math.sqrt(va + vb)
    expect(not close(gap, -0.1), "the sign: the mean of a less the mean of b")
    expect(close(gap, 0.1), f"the means are 2.3 and 2.2; your difference is {gap:.4f}")
    expect(not close(error, va + vb), "that is a variance: take its root")
    population = math.sqrt(statistics.pvariance(a) / len(a) + statistics.pvariance(b) / len(b))
    expect(not close(error, population), "divide the squares by n - 1, not by n: the mean was "
           "estimated from the same few numbers (statistics.stdev does)")
    expect(not close(error, math.sqrt(va) + math.sqrt(vb)), "you added the two errors: they are "
           "independent, so add their squares and take the root")
    expect(not close(error, math.sqrt(statistics.variance(a) + statistics.variance(b))),
           "that is how far two single runs differ: a mean of n runs has 1/n of the variance")
    expect(not close(error, math.sqrt(va)) and not close(error, math.sqrt(vb)),
           "that is the error of one mean: both are uncertain")
    pooled = (3 * statistics.variance(a) + 2 * statistics.variance(b)) / 5
    expect(not close(error, math.sqrt(pooled * (1 / 4 + 1 / 3))), "you pooled the two "
           "variances, as if both settings were equally noisy: each mean has the variance of its "
           "own runs over n")
    expect(close(error, right), f"for a = {a} and b = {b} the standard error is {right:.4f}; yours "
           f"is {error:.4f}")
    for a, b in (([1.0, 3.0], [4.0, 4.5, 3.5, 8.0, 2.0]), ([2, 2, 2], [1, 5]), ([0.5] * 2,) * 2):
        gap, error = _pair(attempt(answer, a, b))
        expect(close([gap, error], _difference(a, b)), f"for a = {a} and b = {b} expected "
               f"{_difference(a, b)}, got {(gap, error)}")


def _difference(a: list[float], b: list[float]) -> tuple[float, float]:
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    return statistics.mean(a) - statistics.mean(b), error


@exercise
def check_noise_scale(answer: Any) -> None:
    """`answer(small, large, b_small, b_large)`: noise over signal from two squared lengths."""
    signal, noise = 2.0, 60.0
    small, large = signal + noise / 4, signal + noise / 100
    got = as_number(attempt(answer, small, large, 4, 100))
    right = noise / signal
    expect(not close(got, signal / noise), "upside down: noise over signal, in examples")
    expect(not close(got, noise), "that is the noise alone, tr(S): divide it by the signal")
    expect(not close(got, noise / large), "the large batch still has noise of its own: its squared "
           "length is not |G|^2; remove the noise of both")
    expect(got > 0, "the answer is negative: the small batch has the longer gradient, because "
           "noise adds length")
    rooted = _from_lengths(math.sqrt(small), math.sqrt(large), 4, 100)
    expect(not close(got, rooted), "the arguments are squared lengths already: take no root")
    expect(close(got, right), f"with |G|^2 = 2 and tr(S) = 60 the squared lengths are {small:g} "
           f"and {large:g} for batches of 4 and 100, and the answer is 30; yours is {got:.3f}")
    other = as_number(attempt(answer, 1 + 8 / 2, 1 + 8 / 8, 2, 8))
    expect(close(other, 8.0), "for |G|^2 = 1 and tr(S) = 8 and batches of 2 and 8 the answer is 8; "
           f"yours is {other:.3f}: do the batch sizes enter?")
    expect_agreement(answer, _from_lengths, [(3.0, 2.0, 1, 2), (0.75, 0.5, 16, 512),
                                             (5.0, 5.0, 3, 30)])


@exercise
def check_best_of(answer: Any) -> None:
    """`answer(losses, k)`: the expected smallest of k losses drawn from the list."""
    losses = [5.0, 1.0, 4.0, 2.0]
    values = [as_number(attempt(answer, losses, k)) for k in (1, 2, 4)]
    right = [_expected(losses, k) for k in (1, 2, 4)]
    expect(not close(values[1], 1.0) or not close(values[0], 1.0),
           "you return the smallest of all, whatever k is: how often is it among k draws?")
    expect(not (close(values[0], 5.0) and close(values[1], 1.0)),
           "you take the first k in the order they came: another order gives another curve; "
           "average over all choices of k")
    expect(not all(close(value, 3.0) for value in values),
           "that is the mean of all: of k draws only the best counts")
    replaced = sum(min(pair) for pair in itertools.product(losses, repeat=2)) / 16
    expect(not close(values[1], replaced), "you draw with replacement: the same trial twice is no "
           "second trial; a set of k different ones")
    expect(not close(values[1], sum(max(p) for p in itertools.combinations(losses, 2)) / 6),
           "that is the expected largest: losses are better when they are small")
    expect(close(values[0], right[0]), f"for k = 1 the answer is the mean, 3; yours is "
           f"{values[0]:.4f}")
    expect(close(values[2], 1.0), "for k = 4 of 4 the answer is the smallest, 1; yours is "
           f"{values[2]:.4f}")
    expect(close(values[1], right[1]) or abs(values[1] - right[1]) > 0.1, "close, but not exact: "
           "you drew sets at random, which leaves noise; count how many sets have each loss as "
           "their smallest")
    expect(close(values[1], right[1]), f"for {losses} and k = 2 the six pairs have the smaller "
           f"values 1, 4, 2, 1, 1, 2, their mean is {right[1]:.4f}; yours is {values[1]:.4f}")
    expect_agreement(answer, _expected, [
        ([3.5], 1), ([2.0, 1.0, 2.0, 2.0, 2.0], 2), ([7, 3, 9, -4, 0, 2], 2)])
    _Loss.compared = 0
    many = [_Loss(7 * i % 40) for i in range(40)]
    expect(close(as_number(attempt(answer, many, 20)), 20 / 21, 1e-6),
           "for the losses 0, 1, ... 39 and k = 20 the answer is 20/21")


class _Loss(float):
    """A loss that ends an answer which compares without end."""

    compared = 0

    def __lt__(self, other: float) -> bool:
        return _Loss._counted(float(self) < float(other))

    def __gt__(self, other: float) -> bool:
        return _Loss._counted(float(self) > float(other))

    @staticmethod
    def _counted(result: bool) -> bool:
        _Loss.compared += 1
        expect(_Loss.compared < 100_000, "for 40 losses and k = 20 you list the sets, and there "
               "are 138 billion of them: count how many have each loss as their smallest")
        return result


def _expected(losses: list[float], k: int) -> float:
    chosen = list(itertools.combinations(losses, k))
    return sum(min(group) for group in chosen) / len(chosen)


def _from_lengths(small: float, large: float, b_small: int, b_large: int) -> float:
    signal = (b_large * large - b_small * small) / (b_large - b_small)
    return (small - large) / (1 / b_small - 1 / b_large) / signal


def _same(got: list[float], expected: list[float]) -> bool:
    return len(got) == len(expected) and all(
        math.isclose(x, y, rel_tol=1e-4) for x, y in zip(got, expected))


def _numbers(values: Any, what: str) -> list[float]:
    expect(hasattr(values, "__iter__"), f"expected a list of {what}, got {values!r}")
    return [as_number(value) for value in values]


def _pair(values: Any) -> list[float]:
    pair = _numbers(values, "two numbers")
    expect(len(pair) == 2, f"expected two numbers, difference and standard error; got {len(pair)}")
    return pair
