"""Checks of the exercises: each says "not attempted yet", "correct", or what the likely mistake is.

A check is a function decorated with `exercise`. Its body tries the reader's answer and calls
`expect(condition, message)`; the first condition that fails is the verdict. The reader sees one
printed line; `check.judge(answer)` returns the same verdict for the tests.
"""

import functools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check: `status` is "correct", "mistake" or "not attempted"."""

    status: str
    message: str


class _NotAttempted(Exception):
    pass


class _Mistake(Exception):
    pass


def expect(condition: bool, message: str) -> None:
    """End the check with `message`, which names the likely mistake, unless the condition holds."""
    if not condition:
        raise _Mistake(message)


def attempt(answer: Callable, *inputs: Any, **options: Any) -> Any:
    """Call the reader's function on copies of the inputs.

    A result of None means that the stub is still there. An exception of the reader's code is a
    verdict, never a traceback through ours; changed inputs are a mistake of their own.
    """
    if not callable(answer):
        kind = type(answer).__name__
        raise _Mistake(f"expected a function, got {kind}: pass its name, without ()")
    copies = [_copy(value) for value in inputs]
    try:
        result = answer(*copies, **options)
    except Exception as error:
        raise _Mistake(f"your function raised {type(error).__name__}: {error}") from error
    if result is None or result is Ellipsis:
        raise _NotAttempted("your function returned None")
    for before, after in zip(inputs, copies):
        expect(_same(before, after), "you changed the caller's input in place: work on a copy")
    return result


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    """Whether two numbers or tensors have the same shape and differ by at most `tolerance`."""
    got, expected = torch.as_tensor(got).double(), torch.as_tensor(expected).double()
    same_shape = got.shape == expected.shape
    return same_shape and torch.allclose(got, expected, rtol=tolerance, atol=tolerance)


def exercise(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Turn a body of `attempt` and `expect` calls into a check that prints one verdict."""

    def judge(answer: Any) -> Verdict:
        try:
            if answer is None or answer is Ellipsis:
                raise _NotAttempted("there is no answer in the cell")
            check(answer)
        except _NotAttempted as reason:
            return Verdict("not attempted", f"not attempted yet: {reason}")
        except _Mistake as mistake:
            return Verdict("mistake", f"not yet: {mistake}")
        return Verdict("correct", "correct")

    @functools.wraps(check)
    def show(answer: Any) -> None:
        print(textwrap.fill(judge(answer).message, width=84))

    show.judge = judge
    return show


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return list(value) if isinstance(value, list) else value


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, torch.Tensor):
        return before.shape == after.shape and torch.equal(
            torch.nan_to_num(before), torch.nan_to_num(after))
    return before == after if isinstance(before, list) else True
