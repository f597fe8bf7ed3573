"""Checks of chapter 4.1, probability in language models."""

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

_IDS = torch.tensor([0, 1, 0, 2, 0, 1, 3, 0])  # ends with a token that has followers elsewhere
_NEXT = torch.tensor([[0, 2 / 3, 1 / 3, 0], [1 / 2, 0, 0, 1 / 2], [1, 0, 0, 0], [1, 0, 0, 0]])


@exercise
def check_conditional_table(answer: Any) -> None:
    """`conditional_table(ids, vocab_size)` -> (V, V): row a holds P(next | a), from counts."""
    table = as_tensor(attempt(answer, _IDS, 4)).float()
    expect(table.shape == (4, 4), f"the table has shape {tuple(table.shape)}, expected (V, V)")
    expect(not (torch.equal(table, table.round()) and table.sum() > 4),
           "these are counts: divide each row by its sum")
    expect(not close(table, _NEXT.T) and not close(table.sum(0), torch.ones(4)),
           "your columns sum to 1, not your rows: P(previous | next) is another question; "
           "token a is the row, the token after it the column")
    expect(not close(table.sum(), 1.0),
           "the whole table sums to 1: that is the joint probability P(a, b); divide each row by "
           "its own sum")
    expect(not close(table[0].sum(), 0.75),
           "row 0 sums to 3/4: token 0 occurs four times but has only three followers, because "
           "the text ends with it; divide by the number of followers")
    expect(not close(table[0], torch.tensor([0, 0.5, 0.5, 0])), "the pair 0 1 comes twice and you "
           "counted it once: counts[a, b] += 1 with tensors a, b does so; see the hint")
    expect(close(table, _NEXT), f"for the text {_IDS.tolist()} row 0 should be [0, 2/3, 1/3, 0]; "
           f"yours is {[round(value, 3) for value in table[0].tolist()]}")
    unseen = as_tensor(attempt(answer, _IDS, 5)).float()[4]
    expect(not unseen.isnan().any(), "the row of a token that never occurs is nan: 0 / 0; make it "
           "uniform, 1/V")
    expect(close(unseen, torch.full((5,), 0.2)),
           "the row of a token that never occurs should be uniform, 1/V: it must sum to 1, too")
    expect_agreement(answer, _table, [(torch.tensor([2, 0, 1]), 3), (torch.tensor([1]), 2), (
        torch.tensor([0, 0, 0, 0]), 1), (torch.arange(30) ** 2 % 13, 13)])


def _table(ids: torch.Tensor, vocab_size: int) -> torch.Tensor:
    rows = []
    for a in range(vocab_size):
        followers = ids[1:][ids[:-1] == a].bincount(minlength=vocab_size)
        rows.append(followers / followers.sum() if followers.any() else
                    torch.full((vocab_size,), 1 / vocab_size))
    return torch.stack(rows)


@exercise
def check_draw(answer: Any) -> None:
    """`draw(p, u)` -> the id whose part of [0, 1) holds the number u."""
    p = torch.tensor([0.0, 0.5, 0.2, 0.0, 0.3], dtype=torch.float64)
    cases = ((0.1, 1), (0.6, 2), (0.69, 2), (0.75, 4), (0.999, 4))
    got = [as_number(attempt(answer, p, u)) for u, _ in cases]
    expect(got != [1] * 5, "you always return token 1, the likeliest: u decides, not the maximum")
    expect(got != [0, 1, 1, 3, 3] and got != [0, 1, 1, 2, 3],
           "every answer is one token too early: you want the first token at which the running "
           "sum is above u")
    expect(len(set(got)) > 1, f"you return {got[0]} for every u: u has no effect")
    expect(got == [token for _, token in cases],
           f"for p = {p.tolist()} and u = {[u for u, _ in cases]} the tokens are "
           f"{[token for _, token in cases]}; yours are {got}")
    expect(as_number(attempt(answer, p, 0.0)) == 1,
           "u = 0 gives token 0, whose probability is 0: the running sum must be above u, not "
           "only equal to it (torch.searchsorted has right=True for that)")
    expect(as_number(attempt(answer, p, 0.5)) == 2,
           "u = 0.5 belongs to token 2, whose part is [0.5, 0.7): parts own their left end")
    short = torch.tensor([0.5, 0.5 - 1e-12, 0.0], dtype=torch.float64)
    expect(as_number(attempt(answer, short, 1 - 1e-15)) == 1,
           "rounding may leave the running sum a little below u: then the token is the last one "
           "whose probability is not 0, and yours is another")
    half = torch.tensor([0.5, 0.0, 0.5])
    expect_agreement(answer, _draw, [(half, 0.5), (half, 0.49), (torch.tensor([1.0]), 0.99), (
        torch.full((1000,), 1e-3).double(), 0.7315), (half.flip(0)[:2] * 2, 0.0)])


def _draw(p: torch.Tensor, u: float) -> int:
    total, last = 0.0, 0
    for token, share in enumerate(p.tolist()):
        total, last = total + share, token if share > 0 else last
        if u < total:
            return token
    return last


@exercise
def check_log_probability(answer: Any) -> None:
    """`log_probability(model, ids)` -> log P(ids[1:] | ids[0]) in nats; ids is (T,)."""
    model, ids = _model_of(3), torch.tensor([0, 1, 1, 2, 0])
    scores = model(ids[None])[0].double()
    logs, places = scores.log_softmax(-1), torch.arange(4)
    right, got = logs[places, ids[1:]].sum().item(), as_number(attempt(answer, model, ids))
    own = logs[torch.arange(5), ids].sum().item()
    expect(not close(got, scores[places, ids[1:]].sum()),
           "you added raw logits: a model of this book may return any scores; log_softmax over "
           "the vocabulary makes them log-probabilities")
    expect(not close(got, own) and not close(got, own - logs[0, 0].item()),
           "you scored each token with the logits at its own position: those predict the next "
           "token; compare logits[:-1] with ids[1:]")
    expect(not close(got, math.exp(right)),
           "this is the probability itself: for a long text it is 0 in floating point; return the "
           "sum of logarithms")
    expect(not close(got, right / 4), "this is the mean over tokens: the chain rule wants the sum")
    expect(not close(got, -right), "the sign: a probability is at most 1, its logarithm at most 0")
    expect(not close(got, right / math.log(2)), "these are bits: use the natural logarithm")
    expect(not close(got, sum(model(ids[None, t:t + 1])[0, 0].log_softmax(-1)[ids[t + 1]].item()
                              for t in range(4))), "you asked the model about each token alone: "
           "it must read everything that comes before, ids[:t + 1]")
    expect(not close(got, scores.log_softmax(0)[places, ids[1:]].sum()) and not close(
        got, scores[:-1].log_softmax(0)[places, ids[1:]].sum()),
           "your softmax runs over the positions: the probabilities of one position are along the "
           "last dimension")
    expect(close(got, right, 1e-4), f"for the ids {ids.tolist()} of a small test model the answer "
           f"is {right:.4f}; yours is {got:.4f}")
    expect(math.isfinite(as_number(attempt(answer, model, ids.repeat(500)))),
           "for a text of 2,500 tokens your answer is infinite: you multiply first and take the "
           "logarithm afterwards; add logarithms")
    expect_agreement(answer, _log_probability, [
        (_model_of(7), torch.tensor([6, 2])), (_model_of(7), torch.arange(20) % 7),
        (_model_of(2), torch.tensor([1]))], 1e-4)


def _model_of(vocab_size: int) -> Callable:
    """A model that reads the whole text: its scores depend on the mean token so far."""
    table = torch.linspace(-9, 9, vocab_size**2).sin().view(vocab_size, vocab_size) * 3

    def model(ids: torch.Tensor) -> torch.Tensor:
        expect(ids.ndim == 2, f"you called the model with ids of shape {tuple(ids.shape)}: it "
               "wants a batch (B, T), so add the dimension with ids[None]")
        counts = torch.arange(1, ids.shape[1] + 1)[:, None]
        return table[ids] + 2 * table.flip(0)[ids].cumsum(1) / counts

    return model


def _log_probability(model: Callable, ids: torch.Tensor) -> float:
    logs = model(ids[None])[0].double().log_softmax(-1)
    return sum(logs[t, token].item() for t, token in enumerate(ids[1:]))


@exercise
def check_perplexity(answer: Any) -> None:
    """`perplexity(probabilities)` -> the inverse probability per token; input (T,)."""
    p = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8], dtype=torch.float64)
    got = as_number(attempt(answer, p))
    expect(not close(got, (1 / p).mean()),
           "you averaged 1/p: that is an arithmetic mean; the chain rule multiplies, so the mean "
           "must be geometric (average the logarithms)")
    expect(not close(got, 1 / p.mean()),
           "you inverted the mean probability: the chain rule multiplies, so average the "
           "logarithms")
    expect(not close(got, 1 / p.prod()), "this is 1/P of the whole text: take the T-th root, so "
           "that texts of different length can be compared")
    expect(not close(got, 2 ** (-p.log().mean())) and not close(got, math.e ** -p.log2().mean()),
           "two bases are mixed: 2 ** belongs to log2, exp to the natural logarithm")
    expect(not close(got, p.log().mean().exp()), "the sign: your answer is below 1; a perplexity "
           "is the inverse of a probability")
    expect(not close(got, -p.log().mean()) and not close(got, -p.log2().mean()),
           "this is the mean loss: perplexity is the base of your logarithm to that power")
    expect(close(got, 2**2.25), f"for p = [1/2, 1/4, 1/8, 1/8] the perplexity is 2 ** 2.25 = "
           f"{2**2.25:.3f}; yours is {got:.3f}")
    long = as_number(attempt(answer, torch.full((2000,), 0.2).double()))
    expect(close(long, 5.0), "2,000 tokens of probability 1/5 must give 5: multiplying "
           "them underflows to 0; average logarithms instead")
    expect_agreement(answer, lambda p: math.exp(-sum(map(math.log, p.tolist())) / len(p)), [
        (torch.tensor([0.25]),), (torch.tensor([1.0, 1.0]),), (torch.tensor([0.9, 1e-9, 0.3]),)])


@exercise
def check_draws_to_tell(answer: Any) -> None:
    """`draws_to_tell(p, q, odds)` -> mean draws from p until p(x)/q(x) multiply to `odds`."""
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    q = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    step, goal = (p * (p / q).log()).sum().item(), math.log(1000)
    got = as_number(attempt(answer, p, q, 1000))
    expect(not close(got, 1000 / step), "the logarithms add up to log(odds), not to odds")
    expect(not close(got, goal / (q * (q / p).log()).sum()), "you averaged over q: the tokens are "
           "drawn from p, so each step log p(x)/q(x) counts with p(x)")
    expect(not close(got, -goal / (q * (q / p).log()).sum()), "your steps count with q(x): the "
           "tokens are drawn from p")
    expect(not close(got, goal / (p / q).log().mean()),
           "you averaged over the vocabulary: a likely token comes more often, so weigh with p")
    expect(not close(got, goal / (p * (p / q).log().abs()).sum()),
           "you dropped the sign of the steps: a token that is likelier under q walks back")
    expect(not close(got, goal / (p * p / q).sum().log()),
           "you took the logarithm of the mean ratio: ratios multiply, so average the logarithms")
    expect(not close(got, goal / (torch.xlogy(q, 1 / q) - torch.xlogy(p, 1 / p)).sum()),
           "this is a difference of two entropies: both logarithms count with p(x)")
    expect(not close(got, goal / step * math.log(2)) and not close(got, goal / step / math.log(2)),
           "two bases are mixed: use the same logarithm for the odds and for the steps")
    expect(not close(got, step / goal), "your fraction stands upside down: the way over the step")
    expect(not close(got, -goal / step), "the sign: draws from p speak for p, so a step of "
           "log p(x)/q(x) is positive on average")
    expect(got not in (math.floor(goal / step), math.ceil(goal / step)),
           "do not round: the number is an average")
    expect(close(got, goal / step, 1e-4), f"for p = {p.tolist()}, q = {q.tolist()} and odds of "
           f"1,000 it takes {goal / step:.2f} draws on average; yours is {got:.2f}")
    never = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    got = as_number(attempt(answer, never, torch.full((3,), 1 / 3).double(), 1000))
    expect(not math.isnan(got), "a token that p never draws makes your answer nan: 0 log 0 counts "
           "as 0")
    expect(close(got, goal / math.log(1.5), 1e-4), "for p = [1/2, 1/2, 0] against [1/3, 1/3, 1/3] "
           f"each draw adds log 3/2: {goal / math.log(1.5):.2f} draws; yours is {got:.2f}")
    _expect_other_draws(answer)


def _expect_other_draws(answer: Callable) -> None:
    """Equal distributions; two tokens and five, other odds; 1 to 1 needs no draw."""
    coin, fair = torch.tensor([[0.6, 0.4], [0.5, 0.5]], dtype=torch.float64)
    try:
        same = answer(fair, fair.clone(), 1000)
    except Exception:  # the usual one is ZeroDivisionError
        same = -1.0
    expect(as_number(same) == math.inf, "two equal distributions are never told apart: return "
           "math.inf, before you divide by 0")
    many = torch.arange(1, 6, dtype=torch.float64) / 15

    def draws(p: torch.Tensor, q: torch.Tensor, odds: float) -> float:
        return math.log(odds) / sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist()))

    expect_agreement(answer, draws, [(coin, fair, 1000), (coin, fair, 2.5), (fair, coin, 50),
                                     (many, many.flip(0), 1e9), (many, many.roll(1), 1)])
