"""Answers to the exercises of chapter 4.3: right ones written otherwise, and wrong ones."""

import math

import torch

from gptlib.theory.autograd import Value


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


def adam_in_the_papers_order(parameter, gradient, mean, square, t, lr):
    mean, square = mean.lerp(gradient, 0.1), torch.lerp(square, gradient.square(), 0.001)
    rate = lr / (1 - 0.9**t)
    return [parameter - rate * mean / (square.sqrt() / math.sqrt(1 - 0.999**t) + 1e-8),
            mean, square]


def adam_on_its_own_copies(parameter, gradient, mean, square, t, lr):
    parameter, mean, square = parameter.clone(), mean.clone(), square.clone()
    mean.mul_(0.9).add_(gradient, alpha=0.1)
    square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    parameter -= lr * mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
    return torch.stack([parameter, mean, square])


def averages_corrected_in_place(parameter, gradient, mean, square, t, lr):
    mean = (0.9 * mean + 0.1 * gradient) / (1 - 0.9**t)
    square = (0.999 * square + 0.001 * gradient**2) / (1 - 0.999**t)
    return parameter - lr * mean / (square.sqrt() + 1e-8), mean, square


def careless_adam(parameter, gradient, mean, square, t, lr):
    mean.mul_(0.9).add_(0.1 * gradient)
    return torch.zeros(3), mean, square


def clip_with_tensors(gradients, max_norm):
    norm = torch.stack([g.norm() for g in gradients]).norm()
    return tuple(g * torch.clamp(max_norm / norm, max=1.0) if norm > 0 else g for g in gradients)


def clip_on_copies(gradients, max_norm):
    copies = [g.clone().requires_grad_() for g in gradients]
    for copy in copies:
        copy.grad = copy.detach().clone()
    torch.nn.utils.clip_grad_norm_(copies, max_norm)
    return [copy.grad for copy in copies]


def factored_by_outer(parameter, gradient, rows, columns, t, lr):
    share = t**-0.8
    square = gradient.square() + 1e-30
    rows = rows + share * (square.mean(dim=-1) - rows)
    columns = columns + share * (square.mean(dim=-2) - columns)
    root = torch.outer((rows / rows.mean()).sqrt(), columns.sqrt())
    return [parameter - lr * gradient / root, rows, columns]


def sigmoid_of_a_new_leaf(a):
    return sigmoid(Value(a.data))


def sigmoid_that_writes_the_gradient(a):
    s = 1 / (1 + math.exp(-max(a.data, -700)))
    a.gradient = s * (1 - s)
    return Value(s)


OTHERWISE = [
    ("check_slope", lambda f, x, h: f(x + h) / h / 2 - f(x - h) / h / 2),
    ("check_slope", lambda f, x, h: ((f(x + h) - f(x)) / h + (f(x) - f(x - h)) / h) / 2),
    ("check_slope", lambda f, x, h: torch.tensor(slope(f, x, h))),
    ("check_sigmoid", lambda a: 0.5 * (a * 0.5).tanh() + 0.5),
    ("check_sigmoid", lambda a: a.exp() / (a.exp() + 1)),
    ("check_sigmoid", lambda a: 1 / ((-a).exp() + 1) if a.data > -20 else a.exp()),
    ("check_adam_step", adam_in_the_papers_order),
    ("check_adam_step", adam_on_its_own_copies),
    ("check_clip", clip_with_tensors),
    ("check_clip", clip_on_copies),
    ("check_factored_step", factored_by_outer),
]

MISTAKES = [
    ("check_slope", lambda f, x, h: (f(x + h) - f(x)) / h, "to the right only"),
    ("check_slope", lambda f, x, h: (f(x) - f(x - h)) / h, "to the left only"),
    ("check_slope", lambda f, x, h: (f(x + h) - f(x - h)) / h, "2 h apart"),
    ("check_slope", lambda f, x, h: (f(x - h) - f(x + h)) / (2 * h), "sign"),
    ("check_slope", lambda f, x, h: 3 * x**2, "seem to know"),
    ("check_slope", lambda f, x, h: f(x), "expected 12.01"),
    ("check_slope", lambda f, x, h: slope(lambda z: z**3, x, h), "not for exp"),
    ("check_slope", lambda f, x, h: "12", "expected a number"),
    ("check_sigmoid", lambda a: 1 / (1 + math.exp(-a.data)), "expected a Value"),
    ("check_sigmoid", _sigmoid(value=lambda s: 1 - s), "minus"),
    ("check_sigmoid", lambda a: a.tanh(), "your value is"),
    ("check_sigmoid", _sigmoid(inputs=False), "does not know its input"),
    ("check_sigmoid", _sigmoid(slope=lambda s, a: s), "right for exp"),
    ("check_sigmoid", _sigmoid(slope=lambda s, a: a * (1 - a)), "with the result s"),
    ("check_sigmoid", _sigmoid(slope=lambda s, a: -s * (1 - s)), "wrong sign"),
    ("check_sigmoid", _sigmoid(slope=lambda s, a: 1 - s * s), "yours is"),
    ("check_sigmoid", lambda a: 1 / (1 + (-a).exp()), "sigmoid(-800) raised"),
    ("check_adam_step", lambda *inputs: adam_step(*inputs)[0], "three tensors"),
    ("check_adam_step", _adam(power=1), "second average"),
    ("check_adam_step", _adam(beta=0.1), "beta is the share"),
    ("check_adam_step", _adam(beta=0.8), "0.9 mean"),
    ("check_adam_step", _adam(power=3), "0.999 square"),
    ("check_adam_step", _adam(sign=1), "uphill"),
    ("check_adam_step", _adam(correct=False), "bias correction is missing"),
    ("check_adam_step", _adam(start=-1), "count from 0"),
    ("check_adam_step", _adam(divide=lambda m, v: m / (v + 1e-8)), "root of the square"),
    ("check_adam_step", _adam(divide=lambda m, v: m / (v + 1e-8).sqrt()), "inside the root"),
    ("check_adam_step", _adam(divide=lambda m, v: m), "the step is not"),
    ("check_clip", _in_place, "in place"),
    ("check_clip", lambda gs, limit: gs[0] * 0.2, "return a list"),
    ("check_clip", lambda gs, limit: [g.flatten() for g in clip(gs, limit)], "keep its shape"),
    ("check_clip", lambda gs, limit: [g * limit / g.norm() for g in gs], "by itself"),
    ("check_clip", lambda gs, limit: [g.clamp(-limit, limit) for g in gs], "by itself"),
    ("check_clip", lambda gs, limit: [g.clone() for g in gs], "nothing was clipped"),
    ("check_clip", lambda gs, limit: [g * limit / _length(gs) ** 2 for g in gs], "take its root"),
    ("check_clip", lambda gs, limit: [g * limit / 7 for g in gs], "add as squares"),
    ("check_clip", lambda gs, limit: [g * 0 for g in gs], "expected (0.6, 0)"),
    ("check_clip", lambda gs, limit: [g * limit / _length(gs) for g in gs], "never scale up"),
    ("check_factored_step", lambda *inputs: factored_step(*inputs)[0], "three tensors"),
    ("check_factored_step", _exchanged, "are exchanged"),
    ("check_factored_step", _whole_square, "the shapes (2,) and (3,)"),
    ("check_factored_step", _factored(beta=lambda t: t**-0.8), "share of the old average"),
    ("check_factored_step", _factored(beta=lambda t: 0.999), "not 0.999"),
    ("check_factored_step", _factored(beta=lambda t: 1 - (t + 1) ** -0.8), "count from 0"),
    ("check_factored_step", _factored(mean=lambda s, axis: s.sum(axis)), "take their mean"),
    ("check_factored_step", _factored(mean=lambda s, axis: s.sqrt().mean(axis) ** 2),
     "squared the"),
    ("check_factored_step", _factored(mean=lambda s, axis: s.amax(axis)), "averages should be"),
    ("check_factored_step", _factored(sign=1), "uphill"),
    ("check_factored_step", _factored(root=lambda v: v), "root of the guess"),
    ("check_factored_step", _factored(guess=lambda r, c: r[:, None] * c), "as a whole"),
    ("check_factored_step", _factored(guess=lambda r, c: r[:, None] * c / r.sum()),
     "sum of the rows"),
    ("check_factored_step", _factored(guess=lambda r, c: r[:, None] * c / c.mean()),
     "mean of the columns"),
    ("check_factored_step", _factored(guess=lambda r, c: (r[:, None] + c) / 2), "you added them"),
    ("check_factored_step", _factored(root=torch.abs, guess=lambda r, c: 1 + 0 * _guess(r, c)),
     "the step is not: lr g"),
    ("check_factored_step", _factored(small=0.0), "a row without any gradient"),
    ("check_factored_step", _factored(guess=lambda r, c: r[:, None] * c / r.mean()),
     "a matrix without any gradient"),
    ("check_slope", lambda f, x, h: slope(f, x, 1e-5), "an h of your own"),
    ("check_slope", lambda f, x, h: (f(x + h) - f(x - h)) / 2 * h, "write (2 * h) in brackets"),
    ("check_slope", lambda f, x, h: slope(f, x, h) if h != 0.5 else 0.0, "wrong for (sin, -1"),
    ("check_sigmoid", sigmoid_of_a_new_leaf, "does not know its input"),
    ("check_sigmoid", sigmoid_that_writes_the_gradient, "inside 3 sigmoid(2 x) + x"),
    ("check_adam_step", averages_corrected_in_place, "without correction"),
    ("check_adam_step", careless_adam, "in place"),
    ("check_adam_step", _adam(divide=lambda m, v: m / v.sqrt()), "the step is not"),
    ("check_adam_step", lambda *inputs: adam_step(*inputs[:4], 3, inputs[5]), "wrong for"),
    ("check_adam_step", lambda *inputs: adam_step(*inputs[:5], 0.1), "wrong for"),
    ("check_clip", lambda gs, limit: clip(gs, 1.0), "max_norm has no effect"),
    ("check_clip", lambda gs, limit: [g * limit / max(abs(n) for x in gs for n in x.flatten())
                                      for g in gs], "the largest number"),
    ("check_clip", lambda gs, limit: torch.cat([g.flatten() for g in clip(gs, limit)]),
     "return a list"),
    ("check_clip", lambda gs, limit: [g / max(1.0, _length(gs) / limit) if _length(gs) > 2 else
                                      g / _length(gs) for g in gs], "the length 0"),
    ("check_clip", lambda gs, limit: [g * min(1, limit / _length(gs[:2])) if any(map(
        torch.any, gs)) else g for g in gs], "wrong for"),
    ("check_factored_step", lambda *inputs: factored_step(*inputs[:5], 0.1), "wrong for"),
    ("check_factored_step", lambda *inputs: factored_step(*inputs[:4], max(inputs[4], 2),
                                                          inputs[5]), "wrong for"),
]
