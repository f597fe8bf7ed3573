"""Checks of chapter 3.4, one training step: four pieces of the backward pass."""

from typing import Any

import torch

from gptlib.checks import as_tensor, attempt, close, exercise, expect, expect_agreement

_LOGITS = torch.tensor(
    [[1.0, 0.0, -1.0, 0.5], [0.0, 2.0, 0.0, -0.5], [0.5, 0.5, 1.5, 0.0]]).double()
_SCORES = torch.tensor([[0.5, -torch.inf, -torch.inf], [1.0, 0.0, -torch.inf], [0.0, 1.0, 2.0]])
_WEIGHTS = _SCORES.double().softmax(-1)
_ABOVE = torch.tensor([[0.3, -0.2, 0.4], [-0.5, 0.6, 0.1], [0.2, -0.4, 0.7]]).double()


def _tensor(result: Any, shape: tuple[int, ...], letters: str) -> torch.Tensor:
    """The reader's result as float64, if it has the shape that the input has."""
    got = as_tensor(result)
    expect(got.shape == shape, f"the gradient has shape {tuple(got.shape)}; expected "
           f"{shape}, {letters}: a gradient has the shape of what it belongs to")
    return got.detach().double()


def _numbers(values: torch.Tensor) -> list[float]:
    return [round(value, 3) for value in values.tolist()]


@exercise
def check_loss_gradient(answer: Any) -> None:
    """`loss_gradient(logits, targets)` -> (T, V): the slope of the mean loss by each logit."""
    targets = torch.tensor([2, 0, 0])
    got = _tensor(attempt(answer, _LOGITS, targets), (3, 4), "(T, V)")
    p, y = _LOGITS.softmax(-1), torch.nn.functional.one_hot(targets, 4).double()
    right = (p - y) / 3
    expect(not close(got, p - y),
           "you left out the division by T: the loss is the mean over the positions, so each has "
           "a share of 1/T in it")
    expect(not close(got, -right),
           "the sign: raising the logit of the right token lowers the loss, so its slope is "
           "negative: p - y, not y - p")
    expect(not close(got, p / 3) and not close(got, p),
           "you forgot to subtract 1 at the right token: without it every logit would be pushed "
           "down")
    expect(not close(got, (p - y) / 12),
           "you divided by T times V: the mean is over the T positions only")
    expect(not close(got, (_LOGITS - y) / 3),
           "you subtracted from the logits: turn them into probabilities first")
    expect(not close(got, (_LOGITS.softmax(0) - y) / 3),
           "your softmax runs over the positions: the probabilities of one position must sum to 1")
    expect(not close(got, right * y),
           "only the right token has a gradient in your answer: the others have one, too, because "
           "they stand in the denominator of the softmax")
    expect(close(got, right), f"the first row should be {_numbers(right[0])}; yours is "
           f"{_numbers(got[0])}")
    wide = torch.linspace(-3, 3, 30).view(5, 6).cos()
    expect_agreement(answer, _loss_gradient, [
        (wide, torch.tensor([5, 5, 0, 2, 5])), (wide[:1, :2], torch.tensor([1])),
        (_LOGITS.T, torch.tensor([2, 1, 0, 0])), (wide[:, :1], torch.zeros(5).long())])


def _loss_gradient(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = logits.double().requires_grad_()
    return torch.autograd.grad(torch.nn.functional.cross_entropy(logits, targets), logits)[0]


@exercise
def check_softmax_backward(answer: Any) -> None:
    """`softmax_backward(weights, d_weights)` -> the gradient of the scores, both (T, S)."""
    a, d = _WEIGHTS, _ABOVE
    got = _tensor(attempt(answer, a, d), (3, 3), "(T, S)")
    right = a * (d - (a * d).sum(-1, keepdim=True))
    expect(not got.isnan().any(), "your answer holds nan: a masked weight is 0; do not divide by "
           "it or take its logarithm")
    expect(not close(got, a * (1 - a) * d),
           "you used the slope of each weight by its own score only, a (1 - a): a higher score "
           "also takes weight from all the others in its row")
    expect(not close(got, a * d),
           "this is a * d: subtract from each d the mean of its row under the weights first, so "
           "that the gradients of a row sum to 0")
    expect(not close(got, d - (a * d).sum(-1, keepdim=True)),
           "the factor a in front is missing: a score whose weight is 0, such as a masked one, "
           "must have gradient 0")
    expect(not close(got, a * (d - d.mean(-1, keepdim=True))),
           "you subtracted the plain mean of the row: it must be the mean under the weights, the "
           "sum of a * d")
    expect(not close(got, a * (d - d.sum(-1, keepdim=True))),
           "you subtracted the sum of d: it must be the sum of a * d")
    expect(not close(got, a * (d - (a * d).sum(0, keepdim=True))),
           "your sum runs down the columns: each row is a softmax of its own")
    expect(not close(got, -right), "the sign: a * (d - sum), not a * (sum - d)")
    expect(close(got, right), f"the last row should be {_numbers(right[2])}; yours is "
           f"{_numbers(got[2])}")
    wide = torch.linspace(-3, 3, 10).view(2, 5).sin().double()
    expect_agreement(answer, lambda a, d: a * (d - (a * d).sum(-1, keepdim=True)), [
        (wide.softmax(-1), wide.flip(1)), (torch.ones(1, 1).double(), torch.ones(1, 1).double()),
        (wide.T.softmax(-1), wide.T * 9)])


@exercise
def check_embedding_gradient(answer: Any) -> None:
    """`embedding_gradient(ids, d_x, vocab_size)` -> (V, C): what reaches the table's rows."""
    ids = torch.tensor([0, 3, 1, 0, 0])
    d_x = torch.tensor([[0.5, -1.0], [0.2, 0.3], [-0.4, 0.6], [1.0, 2.0], [0.1, -0.2]]).double()
    got = as_tensor(attempt(answer, ids, d_x, 6))
    expect(got.shape != (2, 6), "your table lies on its side, (C, V): one row for each token")
    expect(got.shape != (5, 2),
           "you returned one row for each position; expected one row for each token of the "
           "vocabulary, (V, C) = (6, 2)")
    got = _tensor(got, (6, 2), "(V, C)")
    right = torch.zeros(6, 2).double().index_add_(0, ids, d_x)
    last, first = right.clone(), right.clone()
    last[0], first[0] = d_x[4], d_x[0]
    expect(not close(got, last), "the row of token 0 holds the gradient of its last occurrence "
           "only: `table[ids] = d_x` and `table[ids] += d_x` overwrite; the three must be added")
    expect(not close(got, first), "the row of token 0 holds the gradient of its first occurrence "
           "only: it occurs three times, and all three count")
    mean = right.clone()
    mean[0] /= 3
    expect(not close(got, mean), "you averaged over the occurrences of a token: shares of a number "
           "that is used several times are added")
    expect(close(got[[2, 4, 5]], torch.zeros(3, 2)), "tokens 2, 4 and 5 do not occur in the ids: "
           "their rows have no influence on the loss, so their gradient is 0")
    expect(close(got, right), f"the row of token 0 should be {_numbers(right[0])}; yours is "
           f"{_numbers(got[0])}")
    expect_agreement(answer, _embedding_gradient, [
        (torch.tensor([4]), d_x[:1], 5), (torch.zeros(5).long(), d_x, 1),
        (torch.arange(8) ** 2 % 7, torch.linspace(-1, 2, 24).double().view(8, 3), 12)])


def _embedding_gradient(ids: torch.Tensor, d_x: torch.Tensor, vocab_size: int) -> torch.Tensor:
    return torch.stack([d_x[ids == token].sum(0) for token in range(vocab_size)])


@exercise
def check_layer_norm_backward(answer: Any) -> None:
    """`layer_norm_backward(x, d_out, eps)` -> the gradient of x; all (T, C), without a weight."""
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.5, -1.0, 0.0, 2.5]]).double()
    d = torch.tensor([[0.4, -0.3, 0.2, 0.5], [-0.1, 0.6, 0.3, -0.2]]).double()
    eps = 0.5
    got = _tensor(attempt(answer, x, d, eps), (2, 4), "(T, C)")

    def wrong(eps: float = eps, **flaw: Any) -> torch.Tensor:
        return _layer_norm_backward(x, d, eps, **flaw)

    expect(not close(got, wrong(centre=False, project=False)),
           "you divided by the root only, as if mean and variance were constants: they are made of "
           "the same numbers")
    expect(not close(got, wrong(project=False)),
           "the share that runs through the variance is missing: subtract n times the mean of "
           "d_out * n as well")
    expect(not close(got, wrong(centre=False)),
           "the share that runs through the mean is missing: subtract the mean of d_out as well")
    expect(not close(got, wrong(divide=False)),
           "you forgot to divide by the root of the variance: a larger x is less sensitive")
    expect(not close(got, wrong(correction=1)),
           "your variance divides by C - 1: layer norm divides by C (correction=0)")
    expect(not close(got, wrong(0.0)), "you left out eps: it stands under the root, in the "
           "backward pass as in the forward pass")
    expect(close(got.sum(-1), torch.zeros(2)),
           "the gradients of a row must sum to 0: adding the same number to all of x changes "
           "nothing; do your means run over the last dimension?")
    right = wrong()
    expect(close(got, right), f"the first row should be {_numbers(right[0])}; yours is "
           f"{_numbers(got[0])}")
    line = torch.linspace(-2, 5, 15).double().view(3, 5)
    expect_agreement(answer, _layer_norm_backward, [
        (line.sin(), line.cos(), 1e-5), (line[:1], line[1:2], 0.1), (line.T, line.T.sin(), 1e-3)])


def _layer_norm_backward(x, d, eps, *, centre=True, project=True, divide=True, correction=0):
    """The gradient of x, right by default, with the usual mistakes."""
    centred = x - x.mean(-1, keepdim=True)
    sigma = (x.var(-1, keepdim=True, correction=correction) + eps).sqrt()
    n = centred / sigma
    inner = d - centre * d.mean(-1, keepdim=True)
    inner = inner - project * n * (d * n).mean(-1, keepdim=True)
    return inner / sigma if divide else inner
