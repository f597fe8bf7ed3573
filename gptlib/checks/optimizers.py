"""Checks of chapter 4.3: slopes, the scalar engine, Adam and clipping."""

import math
from collections.abc import Callable
from typing import Any

import torch

from gptlib.checks import (
    as_number,
    as_tensor,
    attempt,
    close,
    exercise,
    expect,
    expect_agreement,
)
from gptlib.theory.autograd import Value


@exercise
def check_slope(answer: Any) -> None:
    """`slope(f, x, h)`: the central difference (f(x + h) - f(x - h)) / (2 h)."""
    def cube(x: float) -> float:
        return x**3

    got = as_number(attempt(answer, cube, 2.0, 0.1))
    central, forward, backward = 12.01, 12.61, 11.41
    expect(not close(got, forward), "you looked to the right only: the slope of x ** 3 at 2 came "
           "out as 12.61 with h = 0.1; use x - h as well, and the error falls from h to h squared")
    expect(not close(got, backward), "you looked to the left only: use x + h as well")
    expect(not close(got, 2 * central), "you divided by h: the two points lie 2 h apart")
    expect(not close(got, central / 100), "you multiplied by h: write (2 * h) in brackets")
    expect(not close(got, -central), "your sign is wrong: subtract the left value from the right")
    expect(not close(got, 12.0), "you seem to know the derivative of x ** 3, or use an h of your "
           "own: call f, which may be any function, at two points")
    expect(close(got, central), f"for x ** 3 at 2 with h = 0.1 expected 12.01, got {got:.4f}")
    expect(close(as_number(attempt(answer, math.exp, 0.0, 0.01)), math.sinh(0.01) / 0.01),
           "right for x ** 3 but not for exp: use the f, x and h that are passed in")
    expect_agreement(answer, _slope, [(math.sin, -1.0, 0.5), (abs, 0.25, 1.0), (cube, 0, 1)])


def _slope(f: Callable, x: float, h: float) -> float:
    return (f(x + h) - f(x - h)) / (2 * h)


@exercise
def check_sigmoid(answer: Any) -> None:
    """`sigmoid(a)` of a Value: 1 / (1 + exp(-a)) with its slope s (1 - s)."""
    for number in (0.7, -1.5, 0.0, 3.0):
        a = Value(number)
        got = attempt(answer, a)
        expect(isinstance(got, Value), f"expected a Value, got {type(got).__name__}: return "
               "Value(result, (a,), (slope,)), or compute with a itself")
        expect(a.data == number, "you changed a itself: make a new Value")
        s = 1 / (1 + math.exp(-number))
        expect(number == 0 or not close(got.data, 1 - s),
               "your function falls: it is exp(-a), with the minus")
        expect(close(got.data, s),
               f"sigmoid({number}) is {s:.4f}, your value is {got.data:.4f}")
        got.backward()
        _expect_the_slope(a.gradient, s, number)
    try:
        large = answer(Value(-800.0))
    except (OverflowError, ValueError) as error:
        large = error
    expect(isinstance(large, Value), f"sigmoid(-800) raised {large}: for a negative a write "
           "exp(a) / (1 + exp(a)), whose exponentials do not grow")
    expect(close(large.data, 0.0), "sigmoid(-800) is 0 to 300 digits")
    x = Value(0.4)
    (answer(x * 2.0) * 3.0 + x).backward()
    expect(close(x.gradient, 6 * _rise(0.8) + 1), f"alone it is right; inside 3 sigmoid(2 x) + x "
           f"at 0.4 the slope is {6 * _rise(0.8) + 1:.4f}, yours is {x.gradient:.4f}: the slope "
           "belongs into the new Value, and backward applies the chain rule")


def _rise(a: float) -> float:
    """The slope of the sigmoid at a."""
    return 1 / (1 + math.exp(-a)) / (1 + math.exp(a))


def _expect_the_slope(slope: float, s: float, number: float) -> None:
    expect(slope != 0, "the result does not know its input, so a.gradient stays 0: pass "
           "(a,) as inputs and (slope,) as slopes")
    expect(not close(slope, s), "your slope is s itself, which is right for exp, not here")
    expect(not close(slope, number * (1 - number)),
           "you wrote a (1 - a): the slope is s (1 - s) with the result s")
    expect(not close(slope, -s * (1 - s)), "your slope has the wrong sign: sigmoid rises")
    expect(close(slope, s * (1 - s)),
           f"at {number} the slope is {s * (1 - s):.4g}, yours is {slope:.4g}")


def _adam(g, mean, square, t, *, start=0, corrected=True, root=True, inside=False, early=False):
    """Adam's change of a parameter at rate 1, right by default, with the usual mistakes."""
    mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
    m = mean / (1 - 0.9 ** (t + start)) if corrected else mean
    v = square / (1 - 0.999 ** (t + start)) if corrected else square
    if early:
        return m * math.sqrt(1 - 0.999**t) / (square.sqrt() + 1e-8)
    if not root:
        return m / (v + 1e-8)
    return m / (v + 1e-8).sqrt() if inside else m / (v.sqrt() + 1e-8)


def _adam_step(parameter, g, mean, square, t, lr):
    return (parameter - lr * _adam(g, mean, square, t), 0.9 * mean + 0.1 * g,
            0.999 * square + 0.001 * g**2)


@exercise
def check_adam_step(answer: Any) -> None:
    """`adam_step(parameter, gradient, mean, square, t, lr)` returns the three new tensors."""
    parameter, g = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, -4.0, 1e-7])
    mean, square = torch.tensor([0.2, 1.0, 0.0]), torch.tensor([0.3, 2.0, 0.0])
    new, new_mean, new_square = _three(attempt(answer, parameter, g, mean, square, 3, 0.1),
                                       "the mean and the square")
    expect(not close(new_square, 0.999 * square + 0.001 * g),
           "the second average is of the gradient's square, g ** 2, not of g")
    expect(not close(new_mean, 0.1 * mean + 0.9 * g),
           "beta is the share of the old average that stays: 0.9 old + 0.1 new")
    expect(not close(new_mean, (0.9 * mean + 0.1 * g) / (1 - 0.9**3)),
           "return the averages without correction: corrected ones are for the step alone")
    expect(close(new_mean, 0.9 * mean + 0.1 * g), "the mean should be 0.9 mean + 0.1 gradient")
    expect(close(new_square, 0.999 * square + 0.001 * g**2),
           "the square should be 0.999 square + 0.001 gradient ** 2, returned without correction")

    def stepped(**mistake):
        return close(new, parameter - 0.1 * _adam(g, mean, square, 3, **mistake), 1e-4)

    expect(not close(new, parameter + 0.1 * _adam(g, mean, square, 3), 1e-4),
           "you walked uphill: subtract the step")
    expect(not stepped(corrected=False), "the bias correction is missing: divide the mean by "
           "1 - 0.9 ** t and the square by 1 - 0.999 ** t")
    expect(not stepped(start=-1), "you count from 0: t is 1 in the first step")
    expect(not stepped(root=False), "divide by the root of the square, not by the square")
    expect(not stepped(inside=True), "you added 1e-8 inside the root: a tiny gradient then hardly "
           "moves its parameter; add it to the root")
    expect(not stepped(early=True), "you added 1e-8 before the correction of the square: a tiny "
           "gradient then moves its parameter less; correct first")
    expect(stepped(), "the averages are right, the step is not: lr m / (sqrt(v) + 1e-8) with the "
           "corrected m and v")
    none = torch.zeros(2, 2)
    still = as_tensor(attempt(answer, none, none, none, none, 1, 0.1)[0])
    expect(not still.isnan().any(), "a parameter whose gradient was always 0 becomes nan: add "
           "1e-8 to the root before you divide")
    other = torch.linspace(-3, 3, 8).view(2, 4)
    expect_agreement(answer, _adam_step, [
        (other, other.sin(), other.cos(), other**2, 1, 0.02), (none, none, none, none, 1, 0.1),
        (torch.tensor(2.0), torch.tensor(-1.0), torch.tensor(0.1), torch.tensor(0.5), 900, 1.0)])


def _three(got: Any, averages: str) -> list[torch.Tensor]:
    """The three tensors that a step returns. One tensor of three rows has no dimensions inside."""
    message = f"return three tensors: the parameter, {averages}"
    expect(len(got) == 3, message)
    tensors = [as_tensor(each) for each in got]
    expect(all(tensor.ndim > 0 for tensor in tensors), message)
    return tensors


@exercise
def check_clip(answer: Any) -> None:
    """`clip(gradients, max_norm)`: new tensors, scaled together so that their norm fits."""
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[0.0], [4.0]])]  # together: length 5
    got = attempt(answer, gradients, 1.0)
    expect(len(got) == 2 and getattr(got, "ndim", 2) == 2,
           "return a list with one tensor for each that came in")
    got = [as_tensor(g) for g in got]
    expect([tuple(g.shape) for g in got] == [(2,), (2, 1)],
           "each gradient must keep its shape")
    flat = _flat(got)
    expect(not close(flat, torch.tensor([1.0, 0, 0, 1])), "you clipped each tensor, or each "
           "number, by itself, which turns the gradient: one factor for all keeps its direction")
    expect(not close(flat, torch.tensor([3.0, 0, 0, 4])), "nothing was clipped: the length of "
           "both tensors together is 5, the limit 1")
    expect(not close(flat, torch.tensor([3.0, 0, 0, 4]) / 25),
           "you divided by the squared length: take its root")
    expect(not close(flat, torch.tensor([3.0, 0, 0, 4]) / 7),
           "you divided by the sum of the lengths: lengths add as squares, 9 + 16 = 25")
    expect(not close(flat, torch.tensor([3.0, 0, 0, 4]) / 4),
           "you divided by the largest number: the length is the root of the sum of squares")
    expect(close(flat, torch.tensor([0.6, 0, 0, 0.8])), "expected (0.6, 0) and (0, 0.8) for the "
           f"limit 1, got {flat.tolist()}")
    expect(not close(_flat(attempt(answer, gradients, 2.0)), flat),
           "max_norm has no effect: for the limit 2 expected (1.2, 0) and (0, 1.6)")
    expect(close(_flat(attempt(answer, gradients, 10.0)), torch.tensor([3.0, 0, 0, 4])),
           "a gradient that is short enough must stay as it is: never scale up")
    nothing = [torch.zeros(2), torch.zeros(3, 1)]
    try:
        still = _flat(answer(nothing, 1.0))
    except ZeroDivisionError:
        still = torch.tensor(math.nan)
    expect(not still.isnan().any(), "gradients that are all 0 have the length 0: nothing may be "
           "divided by it")
    expect_agreement(answer, _clip, [(nothing, 1.0), ([torch.tensor(-8.0)], 0.5), (
        [torch.full((2, 3), 2.0), torch.tensor(1.0), -torch.ones(1, 1, 4)], 3.0)])


def _flat(gradients: Any) -> torch.Tensor:
    return torch.cat([as_tensor(g).flatten() for g in gradients])


def _clip(gradients: list, max_norm: float) -> list:
    length = _flat(gradients).norm().item()
    return [g * (max_norm / length if length > max_norm else 1.0) for g in gradients]


@exercise
def check_factored_step(answer: Any) -> None:
    """`factored_step(parameter, gradient, rows, columns, t, lr)`: three new tensors."""
    p, g = torch.zeros(2, 3), torch.tensor([[1.0, -2.0, 4.0], [3.0, 1.0, 0.5]])
    rows, columns = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 4.0, 2.0])
    beta = 1 - 4**-0.8
    r, c = (beta * old + (1 - beta) * (g**2).mean(axis)
            for old, axis in ((rows, 1), (columns, 0)))
    new, new_rows, new_columns = _three(attempt(answer, p, g, rows, columns, 4, 0.1),
                                        "the rows and the columns")
    expect(new.shape == p.shape, f"the new parameter has the shape {tuple(new.shape)}; "
           "expected (2, 3)")
    _check_factors(new_rows, new_columns, rows, columns, g, beta)
    right = (r / r.mean())[:, None] * c

    def stepped(divisor: torch.Tensor) -> bool:
        return close(new, p - 0.1 * g / divisor, 1e-4)

    expect(not close(new, p + 0.1 * g / right.sqrt(), 1e-4), "you walked uphill: subtract the step")
    expect(not stepped(right), "divide by the root of the guess, not by the guess")
    expect(not stepped((r[:, None] * c).sqrt()), "the guess is too large or too small as a whole: "
           "divide r c by the mean of the rows")
    expect(not stepped((right / 2).sqrt()), "you divided by the sum of the rows: take their mean")
    expect(not stepped((r[:, None] * c / c.mean()).sqrt()),
           "you divided by the mean of the columns: in this test the averages started from other "
           "numbers than the rows, so divide by the mean of the rows")
    expect(not stepped(((r[:, None] + c) / 2).sqrt()), "rows and columns multiply, you added them")
    expect(stepped(right.sqrt()), "the averages are right, the step is not: "
           "lr g / sqrt(r c / mean of r)")
    quiet, none = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.zeros(2, 2)
    for gradient, message in (
            (quiet, "a row without any gradient gives nan: add 1e-30 to every square"),
            (none, "a matrix without any gradient gives nan: 1e-30 times 1e-30 is 0 in float32, so "
             "divide the rows by their mean before you multiply")):
        new = attempt(answer, none, gradient, torch.zeros(2), torch.zeros(2), 1, 0.1)[0]
        expect(not as_tensor(new).isnan().any(), message)
    square, wide = torch.tensor([[1.0, 2.0], [3.0, 6.0]]), torch.linspace(-2, 3, 4)[None]
    expect_agreement(answer, _factored_step, [
        (square, square, torch.ones(2), torch.ones(2), 1, 0.5),
        (wide, wide.cos(), torch.ones(1), torch.ones(4) / 2, 30, 0.01),
        (wide.T, wide.T.sin(), torch.ones(4), torch.ones(1) * 2, 2, 0.01)])


def _factored_step(p, g, rows, columns, t, lr):
    beta, square = 1 - t**-0.8, g**2 + 1e-30
    rows = beta * rows + (1 - beta) * square.mean(1)
    columns = beta * columns + (1 - beta) * square.mean(0)
    return p - lr * g / ((rows / rows.mean())[:, None] * columns).sqrt(), rows, columns


def _check_factors(new_rows: torch.Tensor, new_columns: torch.Tensor, rows: torch.Tensor,
                   columns: torch.Tensor, g: torch.Tensor, beta: float) -> None:
    """The averages: means of squares over the right axis, with the right share of the old ones."""
    shapes = [tuple(torch.as_tensor(x).shape) for x in (new_rows, new_columns)]
    expect(shapes != [(3,), (2,)], "rows and columns are exchanged: mean(1) goes along a row and "
           "leaves one number for each row")
    expect(shapes == [(2,), (3,)], f"for a matrix of 2 rows and 3 columns the averages have the "
           f"shapes (2,) and (3,), got {shapes[0]} and {shapes[1]}")

    def averaged(share: float, of: Callable = lambda s, axis: s.mean(axis)) -> bool:
        return (close(new_rows, share * rows + (1 - share) * of(g**2, 1))
                and close(new_columns, share * columns + (1 - share) * of(g**2, 0)))

    expect(not averaged(1 - beta), "beta is the share of the old average that is kept: "
           "beta old + (1 - beta) new")
    expect(not averaged(0.999), "beta is not 0.999: it is 1 - t ** -0.8")
    expect(not averaged(1 - 5**-0.8), "you count from 0: t is 1 in the first step")
    expect(not averaged(beta, lambda s, axis: s.sum(axis)),
           "you added the squares of a row: take their mean")
    expect(not averaged(beta, lambda s, axis: s.sqrt().mean(axis) ** 2),
           "you squared the mean: take the mean of the squares")
    expect(averaged(beta), "the averages should be beta old + (1 - beta) (mean of the squares), "
           "with beta = 1 - t ** -0.8")
