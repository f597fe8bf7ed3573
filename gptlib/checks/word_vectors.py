"""Checks of chapter 2.2.3, word vectors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gptlib.checks import (
    as_number,
    as_tensor,
    attempt,
    close,
    exercise,
    expect,
    expect_agreement,
)


@exercise
def check_keep_probability(answer: Any) -> None:
    """`keep_probability(counts, t)` -> (V,): the chance that an occurrence of a word is kept."""
    counts, t = torch.tensor([900.0, 90.0, 9.0, 1.0]), 0.01
    f = counts / counts.sum()
    got = as_tensor(attempt(answer, counts, t))
    expect(got.shape == (4,), f"the shape is {tuple(got.shape)}, expected one number a word, (4,)")
    right, got = (t / f).sqrt().clamp(max=1), got.float()
    expect(not bool(((got == 0) | (got == 1)).all()),
           "these are draws, only zeros and ones: return the probabilities, without chance")
    expect(not close(got, 1 - right) and not close(got, 1 - (t / f).sqrt()),
           "this is the probability of throwing an occurrence away: frequent words must get the "
           "small numbers")
    expect(not close(got, (t / f).sqrt()), "a probability above 1 for the rare words: cap at 1")
    expect(not close(got, (t / f).clamp(max=1)) and not close(got, t / f),
           "the square root is missing: without it the most frequent words almost vanish")
    expect(not close(got, (t / counts).sqrt().clamp(max=1)),
           "you used counts where f is a share: divide by the number of all words")
    expect(not close(got, (f / t).sqrt().clamp(max=1)) and not close(got, (f / t).sqrt()),
           "the fraction is upside down: it is t / f, so that frequent words get small numbers")
    expect(close(got, right), f"for counts {counts.tolist()} and t = {t} the answer is "
           f"{_rounded(right)}; yours is {_rounded(got)}")
    expect_agreement(answer, lambda counts, t: [
        min(1.0, (t * counts.sum().item() / n) ** 0.5) for n in counts.tolist()], [
            (torch.tensor([3.0, 1.0]), 1e-3), (torch.tensor([7, 7, 700, 1, 2, 70]), 0.1),
            (torch.tensor([5.0]), 2.0)])


@exercise
def check_glove_gradients(answer: Any) -> None:
    """`glove_gradients(w, c, b, b2, x, x_max)` -> gradients of one cell for w, c, b and b2."""
    w, c = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 1.0, 2.0])
    b, b2, x, x_max = torch.tensor(0.3), torch.tensor(-0.1), torch.tensor(20.0), 100.0
    error = w @ c + b + b2 - x.log()
    f = (x / x_max) ** 0.75

    got = _four(answer, w, c, b, b2, x, x_max)

    def is_built_from(g: Tensor) -> bool:
        """Whether the answer is (g c, g w, g, g): right but for the number g in front."""
        return close(got[0], g * c) and close(got[1], g * w) and close(got[2], g)

    g = 2 * f * error
    expect(not is_built_from(-g), "the sign: the gradient points uphill, where the error grows")
    expect(not (close(got[0], g * w) and close(got[1], g * c)),
           "w and c are swapped: the derivative of w.c by w is c")
    expect(not is_built_from(f * error), "the 2 of the square is missing")
    expect(not is_built_from(2 * error), "the weight f(x) is missing")
    expect(not is_built_from(2 * x / x_max * error), "f(x) has the power 3/4: (x / x_max) ** 0.75")
    expect(not is_built_from(2 * f * (w @ c + b + b2 - x)),
           "the product is compared with the logarithm of the count, not with the count")
    expect(not is_built_from(2 * f * (w @ c - x.log())), "the error contains b and b2, too")
    expect(not is_built_from(g) or close(got[3], g),
           "b and b2 both stand in the error with the factor 1: their gradients are equal")
    expect(is_built_from(g), f"for the test cell the gradient of b is {g:.4f} and that of w is "
           f"{_rounded(g * c)}; yours are {got[2].item():.4f} and {_rounded(got[0])}")
    large = torch.tensor(300.0)
    expect(close(_four(answer, w, c, b, b2, large, x_max)[2], 2 * (w @ c + b + b2 - large.log())),
           "for x above x_max the weight must stay at 1: cap it")
    line = torch.linspace(-1, 2, 10)
    expect_agreement(answer, _glove, [
        (line.sin(), line.cos(), torch.tensor(-0.4), torch.tensor(0.9), torch.tensor(3.0), 10.0),
        (line[:1], line[1:2], torch.tensor(1.0), torch.tensor(2.0), torch.tensor(50.0), 50.0)])


def _four(answer: Callable, *inputs: Any) -> list[Tensor]:
    got = attempt(answer, *inputs)
    expect(len(got) == 4 and getattr(got, "ndim", 2) == 2,
           "return four gradients: for w, c, b and b2, in this order")
    got = [as_tensor(value).detach().float() for value in got]
    expect(got[0].shape == (3,) and got[1].shape == (3,),
           "the gradients of w and c have the shape of w and c")
    return got


def _glove(w: Tensor, c: Tensor, b: Tensor, b2: Tensor, x: Tensor, x_max: float) -> tuple:
    g = 2 * min(1.0, x.item() / x_max) ** 0.75 * (w @ c + b + b2 - x.log())
    return g * c, g * w, g, g


@exercise
def check_complete(answer: Any) -> None:
    """`complete(vectors, a, b, c)` -> the row d for which a : b = c : d, by cosine."""
    generator = torch.Generator().manual_seed(193)  # each mistake finds another row
    vectors = torch.randn(40, 5, generator=generator)
    vectors *= 0.2 + torch.rand(40, 1, generator=generator)  # of different length
    a, b, c = 4, 11, 23
    right = _complete(vectors, a, b, c)
    got = as_number(attempt(answer, vectors, a, b, c))
    expect(got not in (a, b, c),
           "your answer is one of the three words of the question: leave them out, c itself "
           "mostly wins otherwise")
    expect(got != _complete(vectors, b, a, c), "the direction: it is b - a + c; you went from b "
           "to a")
    expect(got != _complete(vectors, a, b, c, raw=True),
           "scale all vectors to length 1 before you add them: long ones decide otherwise")
    expect(got != _complete(vectors, a, b, c, dot=True),
           "you compared by dot product with vectors of different length: divide by the lengths")
    expect(got != _complete(vectors, a, b, c, worst=True), "this is the row that is least alike: "
           "the largest cosine is wanted")
    expect(got == right, f"in the test the answer is row {right}, yours is row {got}")
    small = torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.0, 0.1], [-3.0, 0.5], [-0.2, -0.2]])
    wide = torch.linspace(-2, 2, 12 * 9).mul(40).sin().view(12, 9)
    expect_agreement(answer, _complete, [
        (small, 0, 1, 2), (small, 3, 3, 0), (small, 2, 0, 2), (wide, 11, 0, 5),
        (vectors * 100, c, a, b)])


@exercise
def check_cbow_gradients(answer: Any) -> None:
    """`cbow_gradients(context, target, noise)` -> gradients for (n, d), (d,) and (K, d)."""
    generator = torch.Generator().manual_seed(0)
    context, noise = torch.randn(4, 3, generator=generator), torch.randn(2, 3, generator=generator)
    target = torch.randn(3, generator=generator)
    right = _cbow(context.mean(0), target, noise)
    got = attempt(answer, context, target, noise)
    expect(len(got) == 3, "return three gradients: of context, target and noise")
    of_context, of_target, of_noise = (as_tensor(value).detach().float() for value in got)
    expect(of_context.shape == (4, 3), f"the gradient of context has shape "
           f"{tuple(of_context.shape)}: every context word gets a row of its own, (n, d)")
    expect(of_target.shape == (3,) and of_noise.shape == (2, 3),
           "a gradient has the shape of its tensor: (d,) for target, (K, d) for noise")
    summed = _cbow(context.sum(0), target, noise)
    expect(not close(of_target, summed[1]) or close(of_target, right[1]),
           "h is the mean of the context vectors; yours is their sum")
    expect(not (close(of_target, -right[1]) and close(of_noise, -right[2])),
           "the sign: you return the direction in which the loss falls, not the gradient")
    expect(close(of_target, right[1]), f"the gradient of target is (sigmoid(h . target) - 1) h = "
           f"{_rounded(right[1])}; yours is {_rounded(of_target)}")
    expect(not close(of_noise, -right[2]) and not close(
        of_noise, (torch.sigmoid(noise @ context.mean(0)) - 1)[:, None] * context.mean(0)),
           "noise words are pushed away: their factor is sigmoid(h . z), not sigmoid - 1 or minus "
           "sigmoid")
    expect(close(of_noise, right[2]), f"the gradient of the first noise word is "
           f"{_rounded(right[2][0])}; yours is {_rounded(of_noise[0])}")
    each = right[0]
    expect(not close(of_context, each.expand(4, 3)),
           "each context word gets the whole gradient of h: h is a mean of n vectors, so the "
           "chain rule divides by n")
    only_true = (torch.sigmoid(context.mean(0) @ target) - 1) * target / 4
    expect(not close(of_context, only_true.expand(4, 3)), "the noise words also pull at h: their "
           "part is missing in the gradient of context")
    expect(close(of_context, (each / 4).expand(4, 3)), f"each row of the gradient of context is "
           f"{_rounded(each / 4)}; your first is {_rounded(of_context[0])}")
    line = torch.linspace(-2, 2, 30)
    expect_agreement(answer, _cbow_of_all, [
        (line[:12].sin().view(6, 2), line[3:5], line[10:20].view(5, 2)),
        (line[:5].view(1, 5), line[5:10].cos(), line[20:25].view(1, 5))])


def _cbow_of_all(context: Tensor, target: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    of_h, of_target, of_noise = _cbow(context.mean(0), target, noise)
    return (of_h / len(context)).expand(len(context), -1), of_target, of_noise


def _complete(vectors: Tensor, a: int, b: int, c: int, raw: bool = False, dot: bool = False,
              worst: bool = False) -> int:
    """The answer, or that of a usual mistake: vectors not scaled, dot product, smallest cosine."""
    units = vectors / vectors.norm(dim=1, keepdim=True)
    parts = vectors if raw or dot else units
    scores = (vectors if dot else units) @ (parts[b] - parts[a] + parts[c])
    scores = -scores if worst else scores
    scores[torch.tensor([a, b, c])] = -torch.inf
    return scores.argmax().item()


def _cbow(h: Tensor, target: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the loss for h, target and noise."""
    true, false = torch.sigmoid(h @ target) - 1, torch.sigmoid(noise @ h)
    return true * target + false @ noise, true * h, false[:, None] * h


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 3) for value in values.tolist()]
