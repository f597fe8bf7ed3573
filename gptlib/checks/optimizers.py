"""Checks of chapter 4.3: slopes, the scalar engine, Adam and clipping."""

import math
from collections.abc import Callable

import torch

from gptlib.checks import attempt, close, exercise, expect
from gptlib.theory.autograd import Value


@exercise
def check_slope(answer: Callable) -> None:
    """`slope(f, x, h)`: the central difference (f(x + h) - f(x - h)) / (2 h)."""
    def cube(x: float) -> float:
        return x**3

    got = attempt(answer, cube, 2.0, 0.1)
    expect(isinstance(got, int | float), f"expected a number, got {type(got).__name__}")
    central, forward, backward = 12.01, 12.61, 11.41
    expect(not close(got, forward), "you looked to the right only: the slope of x ** 3 at 2 came "
           "out as 12.61 with h = 0.1; use x - h as well, and the error falls from h to h squared")
    expect(not close(got, backward), "you looked to the left only: use x + h as well")
    expect(not close(got, 2 * central), "you divided by h: the two points lie 2 h apart")
    expect(not close(got, -central), "your sign is wrong: subtract the left value from the right")
    expect(not close(got, 12.0), "you seem to know the derivative of x ** 3: call f, which may be "
           "any function, at two points")
    expect(close(got, central), f"for x ** 3 at 2 with h = 0.1 expected 12.01, got {got:.4f}")
    expect(close(attempt(answer, math.exp, 0.0, 0.01), math.sinh(0.01) / 0.01),
           "right for x ** 3 but not for exp: use the f, x and h that are passed in")


@exercise
def check_sigmoid(answer: Callable) -> None:
    """`sigmoid(a)` of a Value: 1 / (1 + exp(-a)) with its slope s (1 - s)."""
    for number in (0.7, -1.5):
        a = Value(number)
        got = attempt(answer, a)
        expect(isinstance(got, Value), f"expected a Value, got {type(got).__name__}: return "
               "Value(result, (a,), (slope,)), or compute with a itself")
        s = 1 / (1 + math.exp(-number))
        expect(not close(got.data, 1 - s), "your function falls: it is exp(-a), with the minus")
        expect(close(got.data, s),
               f"sigmoid({number}) is {s:.4f}, your value is {got.data:.4f}")
        got.backward()
        slope = a.gradient
        expect(slope != 0, "the result does not know its input, so a.gradient stays 0: pass "
               "(a,) as inputs and (slope,) as slopes")
        expect(not close(slope, s), "your slope is s itself, which is right for exp, not here")
        expect(not close(slope, number * (1 - number)),
               "you wrote a (1 - a): the slope is s (1 - s) with the result s")
        expect(not close(slope, -s * (1 - s)), "your slope has the wrong sign: sigmoid rises")
        expect(close(slope, s * (1 - s)),
               f"at {number} the slope is {s * (1 - s):.4f}, yours is {slope:.4f}")
    large = attempt(answer, Value(-800.0))
    expect(close(large.data, 0.0), "sigmoid(-800) is 0 to 300 digits")


def _adam(g, mean, square, t, *, start=0, corrected=True, root=True, inside=False):
    """Adam's change of a parameter at rate 1, right by default, with the usual mistakes."""
    mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
    m = mean / (1 - 0.9 ** (t + start)) if corrected else mean
    v = square / (1 - 0.999 ** (t + start)) if corrected else square
    if not root:
        return m / (v + 1e-8)
    return m / (v + 1e-8).sqrt() if inside else m / (v.sqrt() + 1e-8)


@exercise
def check_adam_step(answer: Callable) -> None:
    """`adam_step(parameter, gradient, mean, square, t, lr)` returns the three new tensors."""
    parameter, g = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, -4.0, 1e-7])
    mean, square = torch.tensor([0.2, 1.0, 0.0]), torch.tensor([0.3, 2.0, 0.0])
    got = attempt(answer, parameter, g, mean, square, 3, 0.1)
    expect(isinstance(got, tuple | list) and len(got) == 3,
           "return three tensors: the parameter, the mean and the square")
    new, new_mean, new_square = got
    expect(not close(new_square, 0.999 * square + 0.001 * g),
           "the second average is of the gradient's square, g ** 2, not of g")
    expect(not close(new_mean, 0.1 * mean + 0.9 * g),
           "beta is the share of the old average that stays: 0.9 old + 0.1 new")
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
    expect(stepped(), "the averages are right, the step is not: lr m / (sqrt(v) + 1e-8) with the "
           "corrected m and v")


@exercise
def check_clip(answer: Callable) -> None:
    """`clip(gradients, max_norm)`: new tensors, scaled together so that their norm fits."""
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[0.0], [4.0]])]  # together: length 5
    kept = [g.clone() for g in gradients]
    got = attempt(answer, gradients, 1.0)
    expect(all(torch.equal(g, k) for g, k in zip(gradients, kept)),
           "you changed the caller's tensors in place: return new ones")
    expect(isinstance(got, tuple | list) and len(got) == 2,
           "return a list with one tensor for each that came in")
    expect([tuple(g.shape) for g in got] == [(2,), (2, 1)],
           "each gradient must keep its shape")
    flat = torch.cat([g.flatten() for g in got])
    expect(not close(flat, torch.tensor([1.0, 0, 0, 1])), "you clipped each tensor, or each "
           "number, by itself, which turns the gradient: one factor for all keeps its direction")
    expect(not close(flat, torch.tensor([3.0, 0, 0, 4])), "nothing was clipped: the length of "
           "both tensors together is 5, the limit 1")
    expect(not close(flat, torch.tensor([3.0, 0, 0, 4]) / 25),
           "you divided by the squared length: take its root")
    expect(not close(flat, torch.tensor([3.0, 0, 0, 4]) / 7),
           "you divided by the sum of the lengths: lengths add as squares, 9 + 16 = 25")
    expect(close(flat, torch.tensor([0.6, 0, 0, 0.8])), "expected (0.6, 0) and (0, 0.8) for the "
           f"limit 1, got {flat.tolist()}")
    small = torch.cat([g.flatten() for g in attempt(answer, gradients, 10.0)])
    expect(close(small, torch.tensor([3.0, 0, 0, 4])),
           "a gradient that is short enough must stay as it is: never scale up")


@exercise
def check_factored_step(answer: Callable) -> None:
    """`factored_step(parameter, gradient, rows, columns, t, lr)`: three new tensors."""
    p, g = torch.zeros(2, 3), torch.tensor([[1.0, -2.0, 4.0], [3.0, 1.0, 0.5]])
    rows, columns = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 4.0, 2.0])
    beta = 1 - 4**-0.8
    r, c = (beta * old + (1 - beta) * (g**2).mean(axis)
            for old, axis in ((rows, 1), (columns, 0)))
    got = attempt(answer, p, g, rows, columns, 4, 0.1)
    expect(isinstance(got, tuple | list) and len(got) == 3,
           "return three tensors: the parameter, the rows and the columns")
    new, new_rows, new_columns = got
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
        expect(not new.isnan().any(), message)


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
