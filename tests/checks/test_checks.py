"""What holds for every check of an exercise, and what each of them says to its own mistakes.

The files in answers/ hold, for each chapter, right answers written otherwise (OTHERWISE) and wrong
ones with a part of the message they get (MISTAKES). Solutions come from the notebooks, except those
that run a model for minutes (INSTEAD).

    python tests/checks/test_checks.py      # the table: checks against properties
"""

import importlib
import inspect
import random
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptlib.checks import close
from gptlib.theory.autograd import Value

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from solutions import places, solution  # noqa: E402

CHAPTERS = sorted(path.stem for path in (HERE / "answers").glob("*.py"))
ANSWERS = {chapter: runpy.run_path(str(HERE / "answers" / f"{chapter}.py")) for chapter in CHAPTERS}
# Checks whose answer takes no inputs, or is no function: a constant is what they ask for.
CONSTANT = {f"{chapter}.{name}" for chapter, answers in ANSWERS.items()
            for name in answers.get("CONSTANT", ())}


def checks_of(chapter: str) -> dict[str, Any]:
    module = importlib.import_module(f"gptlib.checks.{chapter}")
    return {f"{chapter}.{name}": value for name, value in inspect.getmembers(module)
            if name.startswith("check_") and hasattr(value, "judge")}


def answers_of(kind: str) -> list[tuple]:
    """All answers of one kind, the name of the check as in CHECKS: two chapters have a clip."""
    return [(f"{chapter}.{name}", *rest) for chapter, answers in ANSWERS.items()
            for name, *rest in answers[kind]]


CHECKS = {name: check for chapter in CHAPTERS for name, check in checks_of(chapter).items()}
OTHERWISE, MISTAKES = answers_of("OTHERWISE"), answers_of("MISTAKES")
INSTEAD = {f"{chapter}.{name}": answer for chapter, answers in ANSWERS.items()
           for name, answer in answers.get("INSTEAD", {}).items()}
every_check = pytest.mark.parametrize("name", sorted(CHECKS))


class Recorded:
    """A function that remembers the form of its inputs and what it returned first."""

    def __init__(self, function: Any) -> None:
        self.function, self.forms, self.results = function, set(), []

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        self.forms.add(repr([form(value) for value in (*inputs, *options.values())]))
        result = self.function(*inputs, **options)
        self.results.append(result)
        return result


def form(value: Any) -> Any:
    """What two inputs must differ in to be of different shape: sizes, or a plain value itself."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return tuple(value.shape)
    if isinstance(value, list | tuple | dict | set):
        return len(value), [form(inner) for inner in value][:3]
    if isinstance(value, torch.nn.Module):
        return sum(parameter.numel() for parameter in value.parameters())
    if isinstance(value, Value):
        return value.data
    return value if isinstance(value, int | float | str | bytes | bool) else type(value).__name__


class Odd:
    """An object that nothing in a check expects."""


ODD_RESULTS = [0, -1, 1.5, "text", "", b"bytes", [], {}, (), (1, 2), [None], [[1], [2, 3]],
               {"a": 1}, True, 1j, float("nan"), set(), Odd(), Odd, len, torch.tensor([]),
               torch.zeros(2, 3), torch.tensor(float("nan")), torch.zeros(0, 4), np.zeros(3),
               np.array("a"), torch.ones(1, dtype=torch.bool), iter([1]), (None, None), [[]]]


def failing(*_: Any, **__: Any) -> None:
    raise RuntimeError("the answer's own fault")


ODD_ANSWERS = [3, "x", [1], {}, torch.zeros(2), Odd(), Odd, failing, lambda: 1, lambda x: x,
               lambda *x: x, lambda *x: lambda *y: y, len, sum, torch.zeros, int]


def solution_of(name: str) -> Any:
    return INSTEAD[name] if name in INSTEAD else solution(name)


def the_solution_of_the_notebook_is_correct(name: str) -> str:
    return verdict(name, solution_of(name), "correct")


def a_stub_is_not_attempted(name: str) -> str:
    return verdict(name, lambda *_, **__: None, "not attempted") or verdict(
        name, None, "not attempted") or verdict(name, ..., "not attempted")


def answers_of_any_type_get_a_verdict_and_are_not_correct(name: str) -> str:
    answers = ODD_ANSWERS + [lambda *_, r=result, **__: r for result in ODD_RESULTS]
    for number, answer in enumerate(answers):
        try:
            status = CHECKS[name].judge(answer).status
        except BaseException as error:
            return f"odd answer {number}: {type(error).__name__}: {error}"
        if status == "correct":
            return f"odd answer {number} is called correct"
    return ""


def no_constant_function_is_correct(name: str) -> str:
    if name in CONSTANT:
        return ""
    recorded = Recorded(solution_of(name))
    if CHECKS[name].judge(recorded).status != "correct":
        return "the solution does not pass when it is wrapped"
    for number, result in enumerate(recorded.results[:3] + recorded.results[-1:]):
        if CHECKS[name].judge(lambda *_, r=result, **__: r).status == "correct":
            return f"a function that always returns the result of call {number} is called correct"
    return ""


def inputs_of_at_least_two_shapes_are_tried(name: str) -> str:
    if name in CONSTANT:
        return ""
    recorded = Recorded(solution_of(name))
    CHECKS[name].judge(recorded)
    return "" if len(recorded.forms) >= 2 else f"only inputs of the form {recorded.forms}"


def the_random_states_stay(name: str) -> str:
    answer = solution_of(name)
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    CHECKS[name].judge(answer)
    after = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    same = torch.equal(before[0], after[0]) and before[1:] == after[1:]
    return "" if same else "a random generator was moved"


def a_right_answer_written_otherwise_is_correct(name: str) -> str:
    others = [answer for check, answer in OTHERWISE if check == name]
    for answer in others:
        if problem := verdict(name, answer, "correct"):
            return problem
    return "" if others else "no other right answer is tried"


def at_least_two_mistakes_are_named(name: str) -> str:
    messages = {message for check, _, message in MISTAKES if check == name}
    return "" if len(messages) >= 2 else f"{len(messages)} mistakes are tried"


def verdict(name: str, answer: Any, wanted: str) -> str:
    got = CHECKS[name].judge(answer)
    return "" if got.status == wanted else f"{got.status}: {got.message}"


PROPERTIES = [the_solution_of_the_notebook_is_correct, a_stub_is_not_attempted,
              answers_of_any_type_get_a_verdict_and_are_not_correct,
              no_constant_function_is_correct, inputs_of_at_least_two_shapes_are_tried,
              the_random_states_stay, a_right_answer_written_otherwise_is_correct,
              at_least_two_mistakes_are_named]


@every_check
def test_every_check_has_all_properties(name):
    problems = {test.__name__: problem for test in PROPERTIES if (problem := test(name))}
    assert not problems, "\n".join(f"{name}: not so that {p}: {w}" for p, w in problems.items())


@pytest.mark.parametrize("name, answer, message", MISTAKES,
                         ids=[f"{name}-{message[:30]}" for name, _, message in MISTAKES])
def test_each_mistake_is_named(name, answer, message):
    got = CHECKS[name].judge(answer)
    assert got.status == "mistake" and message in got.message, got


def test_every_check_belongs_to_a_chapter_with_answers_and_to_an_exercise():
    modules = {path.stem for path in (HERE.parents[1] / "gptlib" / "checks").glob("*.py")}
    assert modules - {"__init__"} == set(CHAPTERS)
    assert set(places()) == set(CHECKS)


def test_results_may_be_lists_of_tensors_and_large_counts_stay_exact():
    rows = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]
    assert close(rows, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert close(16_777_217.0, 16_777_217, tolerance=0)  # float32 counts to 2^24


def table() -> str:
    """Checks against properties, as text: a dot where it holds, NO where not."""
    heads = [f"{number} {test.__name__.replace('_', ' ')}"
             for number, test in enumerate(PROPERTIES, 1)]
    lines = [*heads, "", f"{'check':48}" + "".join(f"{n:>4}" for n in range(1, len(heads) + 1))]
    failed = 0
    for name in sorted(CHECKS):
        results = [test(name) for test in PROPERTIES]
        failed += sum(map(bool, results))
        lines.append(f"{name:48}" + "".join("  NO" if r else "   ." for r in results))
    return "\n".join([*lines, f"{len(CHECKS)} checks, {failed} without a property"])


if __name__ == "__main__":
    print(table())
