"""Checks of the exercises: each says "not attempted yet", "correct", or what the likely mistake is.

A check is a function decorated with `exercise`. Its body tries the reader's answer and calls
`expect(condition, message)`; the first condition that fails is the verdict. It names the likely
mistakes first and ends with `expect_agreement`, which compares the answer with a reference on
inputs of different shapes, so that no answer passes by chance. The reader sees one printed line;
`check.judge(answer)` returns the same verdict for the tests.
"""

import contextlib
import functools
import inspect
import random
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
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
    except _Mistake:  # from a model of ours that was called in a wrong way
        raise
    except Exception as error:
        raise _Mistake(f"your function raised {type(error).__name__}: {error}") from error
    if result is None or result is Ellipsis:
        raise _NotAttempted("your function returned None")
    for before, after in zip(inputs, copies):
        expect(_same(before, after), "you changed the caller's input in place: work on a copy")
    return result


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    """Whether two results are the same, numbers up to `tolerance` (relative and absolute).

    Numbers, tensors, arrays, and lists, tuples and dicts of them; what the reader returned may be
    a list, a tuple, an array or a tensor, as long as the shape is right.
    """
    if isinstance(expected, dict):
        return isinstance(got, dict) and got.keys() == expected.keys() and all(
            close(got[key], expected[key], tolerance) for key in expected)
    if isinstance(expected, list | tuple):
        return not isinstance(got, str) and len(got) == len(expected) and all(
            close(g, e, tolerance) for g, e in zip(got, expected))
    if not isinstance(expected, int | float | complex | torch.Tensor | np.ndarray | np.generic):
        return bool(got == expected)
    got, expected = _wide(got), _wide(expected)
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=tolerance,
                                                          atol=tolerance, equal_nan=True)


def as_tensor(value: Any) -> torch.Tensor:
    """What the reader returned as one tensor: numbers, a tensor, an array, or lists of these.

    Numbers of Python keep their precision: floats become float64, not float32. Lists of unequal
    lengths raise an error, which `exercise` turns into a verdict.
    """
    if isinstance(value, list | tuple) and len(value) > 0:
        return torch.stack([as_tensor(inner) for inner in value])
    value = float(value) if isinstance(value, Fraction) else value
    return torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None)


def as_number(value: Any) -> float:
    """The one number that the reader returned: of Python, of NumPy, or a tensor with one element.
    Anything else ends the check."""
    number = None
    if not isinstance(value, str | bytes | list | tuple):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            number = as_tensor(value)
    expect(number is not None and number.numel() == 1 and not number.is_complex(),
           f"expected a number, got {type(value).__name__} {_shown(value)}")
    return number.item()


def expect_agreement(answer: Callable, reference: Callable, cases: Iterable[tuple],
                     tolerance: float = 1e-5) -> None:
    """End the check unless the answer gives what `reference` gives for all cases.

    A case is the tuple of inputs of one call. Choose cases of different shapes, and the corners:
    nothing, one, repeated, unequal lengths.
    """
    for inputs in cases:
        expected = reference(*(_copy(value) for value in inputs))
        got = attempt(answer, *inputs)
        called = ", ".join(_shown(value) for value in inputs)
        if not close(got, expected, tolerance):
            raise _Mistake(f"wrong for ({called}): expected {_shown(expected)}, got {_shown(got)}"
                           f"{_first_difference(got, expected, tolerance)}")


def exercise(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Turn a body of `expect` calls into a check that prints one verdict.

    Whatever the answer is, the check ends with a verdict: what the body's lines cannot use has
    another form than the task asks for, and the docstring's first sentence tells the task. The
    states of all random generators are afterwards as they were before.
    """
    task = " ".join(inspect.getdoc(check).split("\n\n")[0].split())

    def judge(answer: Any) -> Verdict:
        try:
            if answer is None or answer is Ellipsis:
                raise _NotAttempted("there is no answer in the cell")
            with _random_states_kept():
                check(answer)
        except _NotAttempted as reason:
            return Verdict("not attempted", f"not attempted yet: {reason}")
        except _Mistake as mistake:
            return Verdict("mistake", f"not yet: {mistake}")
        except Exception as error:
            return Verdict("mistake", f"not yet: your result has another form than the task asks "
                                      f"for ({type(error).__name__}: {error}). The task: {task}")
        return Verdict("correct", "correct")

    @functools.wraps(check)
    def show(answer: Any) -> None:
        print(textwrap.fill(judge(answer).message, width=84))

    show.judge = judge
    return show


@contextlib.contextmanager
def _random_states_kept() -> Iterator[None]:
    """The same draws in every check, and none of them missing in the notebook afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return type(value)(map(_copy, value)) if type(value) in (list, tuple) else value


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, torch.Tensor | np.ndarray):
        return type(before) is type(after) and before.shape == after.shape and bool(
            ((before == after) | (before != before)).all())
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(_same(before[k], after[k]) for k in before)
    if type(before) in (list, tuple):
        return len(before) == len(after) and all(map(_same, before, after))
    return True


def _first_difference(got: Any, expected: Any, tolerance: float) -> str:
    """Where two tensors differ that are too large to be shown; nothing for anything else."""
    if not isinstance(expected, torch.Tensor) or expected.numel() <= 12:
        return ""
    got, expected = _wide(got), _wide(expected)
    if got.shape != expected.shape:
        return ""
    wrong = ~got.isclose(expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    place = wrong.nonzero()[0].tolist()
    right, here = (_shown(values[*place].item()) for values in (expected, got))
    return f"; first at {place}: {right}, not {here}"


def _wide(value: Any) -> torch.Tensor:
    tensor = as_tensor(value)
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _shown(value: Any) -> str:
    """An input or a result for a message: small ones whole, large tensors by their shape."""
    if isinstance(value, torch.Tensor | np.ndarray):
        value = torch.as_tensor(value)
        if value.numel() > 12:
            return f"a tensor of shape {tuple(value.shape)}"
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(_shown, value))
        text = f"[{inside}]" if isinstance(value, list) else f"({inside})"
    else:
        text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
