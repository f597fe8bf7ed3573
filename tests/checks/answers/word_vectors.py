"""Answers to the exercises of chapter 2.2.3: right ones written otherwise, and wrong ones."""

import math

import numpy as np
import torch
from torch.nn import functional


def keep_probability(counts, t):
    return (t * counts.sum() / counts).sqrt().clamp(max=1)


def glove_gradients(w, c, b, b2, x, x_max):
    g = 2 * (x / x_max).clamp(max=1) ** 0.75 * (w @ c + b + b2 - x.log())
    return g * c, g * w, g, g


def glove_with(factor, rows=lambda g, w, c: (g * c, g * w, g, g)):
    """A wrong answer: another factor in front, or the parts in another order."""
    def answer(w, c, b, b2, x, x_max):
        return rows(factor(w, c, b, b2, x, x_max), w, c)
    return answer


def right_factor(w, c, b, b2, x, x_max):
    return glove_gradients(w, c, b, b2, x, x_max)[2]


def complete(vectors, a, b, c):
    units = vectors / vectors.norm(dim=1, keepdim=True)
    scores = units @ (units[b] - units[a] + units[c])
    scores[[a, b, c]] = -torch.inf
    return scores.argmax().item()


def not_left_out(vectors, a, b, c):
    units = vectors / vectors.norm(dim=1, keepdim=True)
    return (units @ (units[b] - units[a] + units[c])).argmax()


def not_scaled(vectors, a, b, c):
    scores = torch.cosine_similarity(vectors, vectors[b] - vectors[a] + vectors[c])
    scores[[a, b, c]] = -1
    return scores.argmax()


def dot_product(vectors, a, b, c):
    scores = vectors @ (vectors[b] - vectors[a] + vectors[c])
    scores[[a, b, c]] = -torch.inf
    return scores.argmax()


def least_alike(vectors, a, b, c):
    units = vectors / vectors.norm(dim=1, keepdim=True)
    scores = units @ (units[b] - units[a] + units[c])
    scores[[a, b, c]] = torch.inf
    return scores.argmin()


def cbow_gradients(context, target, noise):
    h, n = context.mean(0), len(context)
    true, false = torch.sigmoid(h @ target) - 1, torch.sigmoid(noise @ h)
    of_h = true * target + false @ noise
    return (of_h / n).expand(n, -1), true * h, torch.outer(false, h)


def cbow_with(change):
    def answer(context, target, noise):
        return change(*cbow_gradients(context, target, noise), context, target, noise)
    return answer


def cbow_of_the_sum(context, target, noise):
    return cbow_gradients(context * len(context), target, noise)


def without_noise(of_context, of_target, of_noise, context, target, noise):
    true = torch.sigmoid(context.mean(0) @ target) - 1
    return (true * target / 4).expand(4, -1), of_target, of_noise


def noise_as_true(of_context, of_target, of_noise, context, target, noise):
    h = context.mean(0)
    return of_context, of_target, torch.outer(torch.sigmoid(noise @ h) - 1, h)


def glove_by_autograd(w, c, b, b2, x, x_max):
    inputs = [value.clone().requires_grad_() for value in (w, c, b, b2)]
    w, c, b, b2 = inputs
    weight = min(float(x) / x_max, 1.0) ** 0.75
    return torch.autograd.grad(weight * (w @ c + b + b2 - math.log(x)) ** 2, inputs)


def glove_in_numbers(w, c, b, b2, x, x_max):
    w, c = w.tolist(), c.tolist()
    error = sum(p * q for p, q in zip(w, c)) + float(b) + float(b2) - math.log(float(x))
    number = 2 * error * (float(x / x_max) ** 0.75 if x < x_max else 1)
    return [[number * value for value in c], [number * value for value in w], number, number]


def glove_with_100(w, c, b, b2, x, x_max):
    return glove_gradients(w, c, b, b2, x, 100.0)


def complete_by_search(vectors, a, b, c):
    vectors = vectors.numpy()
    units = [row / math.sqrt(row @ row) for row in vectors]
    goal = units[b] - units[a] + units[c]
    others = [d for d in range(len(units)) if d not in {a, b, c}]
    return max(others, key=lambda d: units[d] @ goal / np.linalg.norm(goal))


def complete_by_cosine(vectors, a, b, c):
    units = functional.normalize(vectors)
    order = functional.cosine_similarity(units, units[b] - units[a] + units[c]).argsort(
        descending=True)
    return next(row for row in order if row not in (a, b, c))


def only_c_left_out(vectors, a, b, c):
    units = vectors / vectors.norm(dim=1, keepdim=True)
    scores = units @ (units[b] - units[a] + units[c])
    scores[c] = -torch.inf
    return scores.argmax()


def cbow_by_autograd(context, target, noise):
    inputs = [value.clone().requires_grad_() for value in (context, target, noise)]
    context, target, noise = inputs
    h = context.mean(0)
    loss = -functional.logsigmoid(h @ target) - functional.logsigmoid(-(noise @ h)).sum()
    return torch.autograd.grad(loss, inputs)


def cbow_in_lists(context, target, noise):
    of_context, of_target, of_noise = cbow_gradients(context, target, noise)
    return [of_context.tolist(), of_target.tolist(), of_noise.tolist()]


def cbow_with_four(context, target, noise):
    of_context, of_target, of_noise = cbow_gradients(context, target, noise)
    return of_context * len(context) / 4, of_target, of_noise


def cbow_with_mean_noise(context, target, noise):
    of_context, of_target, of_noise = cbow_gradients(context, target, noise)
    return of_context, of_target, of_noise * 2 / len(noise)


OTHERWISE = [
    ("check_keep_probability", lambda n, t: [min(1, math.sqrt(t / (x / sum(n.tolist()))))
                                             for x in n.tolist()]),
    ("check_keep_probability", lambda n, t: np.minimum(1, np.sqrt(t * n.sum().item() / n.numpy()))),
    ("check_glove_gradients", glove_by_autograd),
    ("check_glove_gradients", glove_in_numbers),
    ("check_complete", complete_by_search),
    ("check_complete", complete_by_cosine),
    ("check_cbow_gradients", cbow_by_autograd),
    ("check_cbow_gradients", cbow_in_lists),
]

MISTAKES = [
    ("check_keep_probability", lambda n, t: 1 - keep_probability(n, t),
     "throwing an occurrence away"),
    ("check_keep_probability", lambda n, t: 1 - (t * n.sum() / n).sqrt(),
     "throwing an occurrence away"),
    ("check_keep_probability", lambda n, t: (t * n.sum() / n).sqrt(), "cap at 1"),
    ("check_keep_probability", lambda n, t: (t * n.sum() / n).clamp(max=1),
     "square root is missing"),
    ("check_keep_probability", lambda n, t: (t / n).sqrt().clamp(max=1), "you used counts"),
    ("check_keep_probability", lambda n, t: (n / n.sum() / t).sqrt().clamp(max=1), "upside down"),
    ("check_keep_probability", lambda n, t: (keep_probability(n, t) > 0.5).float(),
     "these are draws"),
    ("check_keep_probability", lambda n, t: keep_probability(n, t)[:3], "the shape is (3,)"),
    ("check_keep_probability", lambda n, t: 0.5, "the shape is ()"),
    ("check_keep_probability", lambda n, t: n / n.sum(), "yours is [0.9, 0.09, 0.009, 0.001]"),
    ("check_glove_gradients", glove_with(lambda *a: -right_factor(*a)), "the sign"),
    ("check_glove_gradients", glove_with(right_factor, lambda g, w, c: (g * w, g * c, g, g)),
     "w and c are swapped"),
    ("check_glove_gradients", glove_with(lambda *a: right_factor(*a) / 2), "the 2 of the square"),
    ("check_glove_gradients", glove_with(lambda w, c, b, b2, x, m: 2 * (w @ c + b + b2 - x.log())),
     "the weight f(x) is missing"),
    ("check_glove_gradients",
     glove_with(lambda w, c, b, b2, x, m: 2 * x / m * (w @ c + b + b2 - x.log())), "power 3/4"),
    ("check_glove_gradients",
     glove_with(lambda w, c, b, b2, x, m: 2 * (x / m) ** 0.75 * (w @ c + b + b2 - x)),
     "logarithm of the count"),
    ("check_glove_gradients",
     glove_with(lambda w, c, b, b2, x, m: 2 * (x / m) ** 0.75 * (w @ c - x.log())),
     "contains b and b2"),
    ("check_glove_gradients", glove_with(right_factor, lambda g, w, c: (g * c, g * w, g, 0 * g)),
     "their gradients are equal"),
    ("check_glove_gradients",
     glove_with(lambda w, c, b, b2, x, m: 2 * (x / m) ** 0.75 * (w @ c + b + b2 - x.log())),
     "cap it"),
    ("check_glove_gradients", lambda w, c, b, b2, x, m: w, "return four gradients"),
    ("check_glove_gradients", lambda w, c, b, b2, x, m: (b, b, b, b), "the shape of w and c"),
    ("check_glove_gradients", lambda w, c, b, b2, x, m: (w, w, b, b), "yours are 0.3000"),
    ("check_complete", not_left_out, "one of the three words"),
    ("check_complete", lambda v, a, b, c: complete(v, b, a, c), "the direction"),
    ("check_complete", not_scaled, "before you add them"),
    ("check_complete", dot_product, "by dot product"),
    ("check_complete", least_alike, "least alike"),
    ("check_complete", lambda v, a, b, c: v, "expected a number"),
    ("check_complete", lambda v, a, b, c: 0, "yours is row 0"),
    ("check_cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x * 4, t, z)), "divides by n"),
    ("check_cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x[0], t, z)), "a row of its own"),
    ("check_cbow_gradients", cbow_with(lambda x, t, z, *inputs: (-x, -t, -z)), "the sign"),
    ("check_cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x, t, -z)), "pushed away"),
    ("check_cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x, t, 2 * z)), "first noise word"),
    ("check_cbow_gradients", cbow_with(noise_as_true), "pushed away"),
    ("check_cbow_gradients", cbow_with(without_noise), "the noise words also pull at h"),
    ("check_cbow_gradients", cbow_of_the_sum, "yours is their sum"),
    ("check_cbow_gradients", cbow_with(lambda x, t, z, *inputs: (2 * x, t, z)), "your first is"),
    ("check_cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x, 2 * t, z)),
     "gradient of target is"),
    ("check_cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x, t[:2], z)), "(d,) for target"),
    ("check_cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x, t)), "return three gradients"),
    ("check_keep_probability", lambda n, t: (0.01 * n.sum() / n).sqrt().clamp(max=1), "wrong for"),
    ("check_glove_gradients", glove_with_100, "wrong for"),
    ("check_complete", only_c_left_out, "wrong for"),
    ("check_complete", lambda v, a, b, c: complete(v, a, b, c) if len(v) > 9 else 4, "wrong for"),
    ("check_cbow_gradients", cbow_with_four, "wrong for"),
    ("check_cbow_gradients", cbow_with_mean_noise, "wrong for"),
]
