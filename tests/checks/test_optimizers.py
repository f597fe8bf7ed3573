"""The checks of chapter 4.3: solutions pass, each named mistake gets its own message."""

import math

import pytest
import torch

from gptlib.checks.optimizers import (
    check_adam_step,
    check_clip,
    check_factored_step,
    check_sigmoid,
    check_slope,
)
from gptlib.theory.autograd import Value

CHECKS = (check_slope, check_sigmoid, check_adam_step, check_clip, check_factored_step)


def slope(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


def sigmoid(a):
    s = 1 / (1 + math.exp(-a.data)) if a.data > 0 else math.exp(a.data) / (1 + math.exp(a.data))
    return Value(s, (a,), (s * (1 - s),))


def adam_step(parameter, gradient, mean, square, t, lr, *, correct=True, power=2, start=0,
              divide=lambda m, v: m / (v.sqrt() + 1e-8), sign=-1, beta=0.9):
    mean = beta * mean + (1 - beta) * gradient
    square = 0.999 * square + 0.001 * gradient**power
    m = mean / (1 - 0.9 ** (t + start)) if correct else mean
    v = square / (1 - 0.999 ** (t + start)) if correct else square
    return parameter + sign * lr * divide(m, v), mean, square


def clip(gradients, max_norm):
    norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
    return [g * min(1.0, max_norm / norm) for g in gradients]


def _adam(**mistake):
    return lambda *inputs: adam_step(*inputs, **mistake)


def _in_place(gradients, max_norm):
    for gradient in gradients:
        gradient.mul_(0.2)
    return gradients


def _length(gradients):
    return math.sqrt(sum(g.square().sum().item() for g in gradients))


def _sigmoid(value=lambda s: s, slope=lambda s, a: s * (1 - s), inputs=True):
    def answer(a):
        s = 1 / (1 + math.exp(-max(a.data, -700)))
        return Value(value(s), (a,), (slope(s, a.data),)) if inputs else Value(value(s))
    return answer


def _guess(r, c):
    return (r / r.mean())[:, None] * c


def factored_step(parameter, gradient, rows, columns, t, lr, *, beta=lambda t: 1 - t**-0.8,
                  mean=lambda s, axis: s.mean(axis), guess=_guess, small=1e-30,
                  root=torch.sqrt, sign=-1):
    square, share = gradient**2 + small, beta(t)
    rows = share * rows + (1 - share) * mean(square, 1)
    columns = share * columns + (1 - share) * mean(square, 0)
    return parameter + sign * lr * gradient / root(guess(rows, columns)), rows, columns


def _factored(**mistake):
    return lambda *inputs: factored_step(*inputs, **mistake)


def _exchanged(parameter, gradient, rows, columns, t, lr):
    new, rows, columns = factored_step(parameter, gradient, rows, columns, t, lr)
    return new, columns, rows


def _whole_square(parameter, gradient, rows, columns, t, lr):
    return parameter - lr * gradient, gradient**2, columns


WRONG = [
    (check_slope, lambda f, x, h: (f(x + h) - f(x)) / h, "to the right only"),
    (check_slope, lambda f, x, h: (f(x) - f(x - h)) / h, "to the left only"),
    (check_slope, lambda f, x, h: (f(x + h) - f(x - h)) / h, "2 h apart"),
    (check_slope, lambda f, x, h: (f(x - h) - f(x + h)) / (2 * h), "sign"),
    (check_slope, lambda f, x, h: 3 * x**2, "seem to know"),
    (check_slope, lambda f, x, h: f(x), "expected 12.01"),
    (check_slope, lambda f, x, h: slope(lambda z: z**3, x, h), "not for exp"),
    (check_slope, lambda f, x, h: "12", "expected a number"),
    (check_sigmoid, lambda a: 1 / (1 + math.exp(-a.data)), "expected a Value"),
    (check_sigmoid, _sigmoid(value=lambda s: 1 - s), "minus"),
    (check_sigmoid, lambda a: a.tanh(), "your value is"),
    (check_sigmoid, _sigmoid(inputs=False), "does not know its input"),
    (check_sigmoid, _sigmoid(slope=lambda s, a: s), "right for exp"),
    (check_sigmoid, _sigmoid(slope=lambda s, a: a * (1 - a)), "with the result s"),
    (check_sigmoid, _sigmoid(slope=lambda s, a: -s * (1 - s)), "wrong sign"),
    (check_sigmoid, _sigmoid(slope=lambda s, a: 1 - s * s), "yours is"),
    (check_sigmoid, lambda a: 1 / (1 + (-a).exp()), "raised ValueError"),
    (check_adam_step, lambda *inputs: adam_step(*inputs)[0], "three tensors"),
    (check_adam_step, _adam(power=1), "second average"),
    (check_adam_step, _adam(beta=0.1), "beta is the share"),
    (check_adam_step, _adam(beta=0.8), "0.9 mean"),
    (check_adam_step, _adam(power=3), "0.999 square"),
    (check_adam_step, _adam(sign=1), "uphill"),
    (check_adam_step, _adam(correct=False), "bias correction is missing"),
    (check_adam_step, _adam(start=-1), "count from 0"),
    (check_adam_step, _adam(divide=lambda m, v: m / (v + 1e-8)), "root of the square"),
    (check_adam_step, _adam(divide=lambda m, v: m / (v + 1e-8).sqrt()), "inside the root"),
    (check_adam_step, _adam(divide=lambda m, v: m), "the step is not"),
    (check_clip, _in_place, "in place"),
    (check_clip, lambda gs, limit: gs[0] * 0.2, "return a list"),
    (check_clip, lambda gs, limit: [g.flatten() for g in clip(gs, limit)], "keep its shape"),
    (check_clip, lambda gs, limit: [g * limit / g.norm() for g in gs], "by itself"),
    (check_clip, lambda gs, limit: [g.clamp(-limit, limit) for g in gs], "by itself"),
    (check_clip, lambda gs, limit: [g.clone() for g in gs], "nothing was clipped"),
    (check_clip, lambda gs, limit: [g * limit / _length(gs) ** 2 for g in gs], "take its root"),
    (check_clip, lambda gs, limit: [g * limit / 7 for g in gs], "add as squares"),
    (check_clip, lambda gs, limit: [g * 0 for g in gs], "expected (0.6, 0)"),
    (check_clip, lambda gs, limit: [g * limit / _length(gs) for g in gs], "never scale up"),
    (check_factored_step, lambda *inputs: factored_step(*inputs)[0], "three tensors"),
    (check_factored_step, _exchanged, "are exchanged"),
    (check_factored_step, _whole_square, "the shapes (2,) and (3,)"),
    (check_factored_step, _factored(beta=lambda t: t**-0.8), "share of the old average"),
    (check_factored_step, _factored(beta=lambda t: 0.999), "not 0.999"),
    (check_factored_step, _factored(beta=lambda t: 1 - (t + 1) ** -0.8), "count from 0"),
    (check_factored_step, _factored(mean=lambda s, axis: s.sum(axis)), "take their mean"),
    (check_factored_step, _factored(mean=lambda s, axis: s.sqrt().mean(axis) ** 2), "squared the"),
    (check_factored_step, _factored(mean=lambda s, axis: s.amax(axis)), "averages should be"),
    (check_factored_step, _factored(sign=1), "uphill"),
    (check_factored_step, _factored(root=lambda v: v), "root of the guess"),
    (check_factored_step, _factored(guess=lambda r, c: r[:, None] * c), "as a whole"),
    (check_factored_step, _factored(guess=lambda r, c: r[:, None] * c / r.sum()),
     "sum of the rows"),
    (check_factored_step, _factored(guess=lambda r, c: r[:, None] * c / c.mean()),
     "mean of the columns"),
    (check_factored_step, _factored(guess=lambda r, c: (r[:, None] + c) / 2), "you added them"),
    (check_factored_step, _factored(root=torch.abs, guess=lambda r, c: 1 + 0 * _guess(r, c)),
     "the step is not: lr g"),
    (check_factored_step, _factored(small=0.0), "a row without any gradient"),
    (check_factored_step, _factored(guess=lambda r, c: r[:, None] * c / r.mean()),
     "a matrix without any gradient"),
]


@pytest.mark.parametrize("check, solution", zip(
    CHECKS, (slope, sigmoid, adam_step, clip, factored_step)))
def test_the_solution_is_correct(check, solution):
    assert check.judge(solution).status == "correct"


def test_a_sigmoid_composed_of_other_operations_is_correct():
    assert check_sigmoid.judge(lambda a: 0.5 * (a * 0.5).tanh() + 0.5).status == "correct"


@pytest.mark.parametrize("check", CHECKS)
def test_a_stub_is_not_attempted(check):
    def stub(*inputs):
        ...

    assert check.judge(stub).status == "not attempted"


@pytest.mark.parametrize("check, answer, message", WRONG)
def test_each_mistake_is_named(check, answer, message):
    verdict = check.judge(answer)
    assert verdict.status == "mistake" and message in verdict.message


def test_no_two_mistakes_of_a_check_share_all_their_words():
    named = {(check, message) for check, _, message in WRONG}
    assert len(named) == len(WRONG) - 1  # clipping tensors and clipping numbers are one mistake


def test_an_in_place_adam_is_told_so():
    def careless(parameter, gradient, mean, square, t, lr):
        mean.mul_(0.9).add_(0.1 * gradient)
        return torch.zeros(3), mean, square

    assert "in place" in check_adam_step.judge(careless).message
