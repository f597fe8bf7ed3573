import pytest
import torch

from gptlib.checks import word_vectors as checks


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


CASES = [
    ("keep_probability", lambda n, t: 1 - keep_probability(n, t), "throwing an occurrence away"),
    ("keep_probability", lambda n, t: 1 - (t * n.sum() / n).sqrt(), "throwing an occurrence away"),
    ("keep_probability", lambda n, t: (t * n.sum() / n).sqrt(), "cap at 1"),
    ("keep_probability", lambda n, t: (t * n.sum() / n).clamp(max=1), "square root is missing"),
    ("keep_probability", lambda n, t: (t / n).sqrt().clamp(max=1), "you used counts"),
    ("keep_probability", lambda n, t: (n / n.sum() / t).sqrt().clamp(max=1), "upside down"),
    ("keep_probability", lambda n, t: (keep_probability(n, t) > 0.5).float(), "these are draws"),
    ("keep_probability", lambda n, t: keep_probability(n, t)[:3], "the shape is (3,)"),
    ("keep_probability", lambda n, t: 0.5, "expected a tensor, got float"),
    ("keep_probability", lambda n, t: n / n.sum(), "yours is [0.9, 0.09, 0.009, 0.001]"),
    ("glove_gradients", glove_with(lambda *a: -right_factor(*a)), "the sign"),
    ("glove_gradients", glove_with(right_factor, lambda g, w, c: (g * w, g * c, g, g)),
     "w and c are swapped"),
    ("glove_gradients", glove_with(lambda *a: right_factor(*a) / 2), "the 2 of the square"),
    ("glove_gradients", glove_with(lambda w, c, b, b2, x, m: 2 * (w @ c + b + b2 - x.log())),
     "the weight f(x) is missing"),
    ("glove_gradients",
     glove_with(lambda w, c, b, b2, x, m: 2 * x / m * (w @ c + b + b2 - x.log())), "power 3/4"),
    ("glove_gradients",
     glove_with(lambda w, c, b, b2, x, m: 2 * (x / m) ** 0.75 * (w @ c + b + b2 - x)),
     "logarithm of the count"),
    ("glove_gradients",
     glove_with(lambda w, c, b, b2, x, m: 2 * (x / m) ** 0.75 * (w @ c - x.log())),
     "contains b and b2"),
    ("glove_gradients", glove_with(right_factor, lambda g, w, c: (g * c, g * w, g, 0 * g)),
     "their gradients are equal"),
    ("glove_gradients",
     glove_with(lambda w, c, b, b2, x, m: 2 * (x / m) ** 0.75 * (w @ c + b + b2 - x.log())),
     "cap it"),
    ("glove_gradients", lambda w, c, b, b2, x, m: w, "return four gradients"),
    ("glove_gradients", lambda w, c, b, b2, x, m: (b, b, b, b), "the shape of w and c"),
    ("glove_gradients", lambda w, c, b, b2, x, m: (w, w, b, b), "yours are 0.3000"),
    ("complete", not_left_out, "one of the three words"),
    ("complete", lambda v, a, b, c: complete(v, b, a, c), "the direction"),
    ("complete", not_scaled, "before you add them"),
    ("complete", dot_product, "by dot product"),
    ("complete", least_alike, "least alike"),
    ("complete", lambda v, a, b, c: v, "expected the number of one row"),
    ("complete", lambda v, a, b, c: 0, "yours is row 0"),
    ("cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x * 4, t, z)), "divides by n"),
    ("cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x[0], t, z)), "a row of its own"),
    ("cbow_gradients", cbow_with(lambda x, t, z, *inputs: (-x, -t, -z)), "the sign"),
    ("cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x, t, -z)), "pushed away"),
    ("cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x, t, 2 * z)), "first noise word"),
    ("cbow_gradients", cbow_with(noise_as_true), "pushed away"),
    ("cbow_gradients", cbow_with(without_noise), "the noise words also pull at h"),
    ("cbow_gradients", cbow_of_the_sum, "yours is their sum"),
    ("cbow_gradients", cbow_with(lambda x, t, z, *inputs: (2 * x, t, z)), "your first is"),
    ("cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x, 2 * t, z)), "gradient of target is"),
    ("cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x, t[:2], z)), "(d,) for target"),
    ("cbow_gradients", cbow_with(lambda x, t, z, *inputs: (x, t)), "return three gradients"),
]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message, verdict.message


@pytest.mark.parametrize(
    "name", ["keep_probability", "glove_gradients", "complete", "cbow_gradients"])
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"
