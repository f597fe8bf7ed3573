"""Checks of the exercises of chapter 8.3.2, A made story world."""

import math
from collections.abc import Sequence
from typing import Any

from gptlib.checks import as_number, attempt, close, exercise, expect, expect_agreement

Claims = Sequence[tuple[str, str]]

SWAP = [("hero", "Tom"), ("helper", "Ida"), ("hero", "Ida"), ("helper", "Ida")]


@exercise
def check_names_broken(answer: Any) -> None:
    """`names_broken(claims)`: how many (role, name) claims contradict the tale before them."""
    same = as_number(attempt(answer, [("hero", "Tom"), ("helper", "Ida"), ("hero", "Tom")]))
    expect(same == 0, f"a tale in which everybody keeps one name has no contradiction, got {same}")
    swapped = as_number(attempt(answer, SWAP))
    expect(swapped != 0, "the hero is Tom and is called Ida later on: that is a contradiction")
    twice = as_number(attempt(answer, [("hero", "Tom"), ("helper", "Tom")]))
    expect(twice != 0, "two roles have one name from the start: nobody knows who Tom is; count it")
    long = [("hero", "Tom"), ("hero", "Ned"), ("hero", "Ned"), ("hero", "Tom")]
    got = as_number(attempt(answer, long))
    expect(got != 1, "you compared each name with the one before; what was said first holds, so "
           "Ned is wrong both times")
    back = as_number(attempt(answer, [("hero", "Tom"), ("hero", "Ned"), ("hero", "Tom")]))
    expect(back != 2, "you compared each name with the one before, and so counted the return to "
           "the first name as well")
    later = [("hero", "Tom"), ("hero", "Ida"), ("helper", "Ida")]
    expect(as_number(attempt(answer, later)) == 1,
           "for hero Tom, hero Ida, helper Ida expected 1: the name Ida belongs to nobody yet when "
           "the helper gets it, because the hero's first name is Tom")
    expect_agreement(answer, _names_broken, [
        ([],), (SWAP,), (long,), ([("a", "x"), ("b", "x"), ("c", "x"), ("b", "y"), ("b", "x")],),
        ([(role, "Tom") for role in "abc"] * 2,)])


def _names_broken(claims: Claims) -> int:
    first: dict[str, str] = {}
    broken = 0
    for role, name in claims:
        if role not in first:
            broken += name in first.values()
            first[role] = name
        else:
            broken += first[role] != name
    return broken


@exercise
def check_draws(answer: Any) -> None:
    """`nats_of(draws)`: information of draws (size, count): count different things of a list."""
    got = as_number(attempt(answer, [(8, 1), (2, 1)]))
    expect(not close(got, math.log2(16)), "these are bits; use the natural logarithm")
    expect(not close(got, math.log(10)), "you added the sizes before the logarithm; the numbers "
           "of possibilities multiply, so their logarithms add up")
    expect(not close(got, 16), "this is the number of possibilities; take its logarithm")
    expect(close(got, math.log(16)), f"one of 8 and one of 2: expected ln 16, got {got:.3f}")
    pair = as_number(attempt(answer, [(5, 2)]))
    expect(not close(pair, 2 * math.log(5)), "you put the first thing back: the second is drawn "
           "from one thing fewer")
    expect(not close(pair, math.log(10)), "you counted sets; who is the hero and who the helper "
           "makes a difference, so the order counts")
    expect_agreement(answer, _nats_of, [
        ([(5, 2)],), ([],), ([(56, 3), (25, 2), (10, 1)],), ([(1, 1), (3, 3)],), ([(7, 0)],)])


def _nats_of(draws: Sequence[tuple[int, int]]) -> float:
    return sum(math.log(size - i) for size, count in draws for i in range(count))
