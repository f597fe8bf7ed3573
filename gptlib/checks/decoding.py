"""Checks of chapter 7.1, autoregressive models."""

import math
from typing import Any

import torch
from torch import Tensor

from gptlib.checks import as_tensor, attempt, close, exercise, expect, expect_agreement


def _one_hot(ids: Tensor, V: int) -> Tensor:
    """Ids as vectors (1, T, V); ids without the dimension of the batch end the check."""
    expect(ids.dim() == 2,
           f"the model reads ids of shape (1, T); you call it with {tuple(ids.shape)}")
    return torch.nn.functional.one_hot(ids % V, V).float()


def _cycle(ids: Tensor) -> Tensor:
    """A model of five tokens that counts upwards: after i comes i + 1, after 4 comes 0."""
    return _one_hot(ids + 1, 5) * 3


def _total(ids: Tensor) -> Tensor:
    """A model of seven tokens that reads the whole text: next comes the sum of all ids, mod 7."""
    return _one_hot(ids.cumsum(1), 7) * 0.01 - 5


@exercise
def check_greedy(answer: Any) -> None:
    """`greedy(model, ids, count)` appends the `count` likeliest tokens to ids (1, T)."""
    got = as_tensor(attempt(answer, _cycle, torch.tensor([[0, 3, 1]]), 4))
    shape = tuple(got.shape)
    expect(shape != (1, 4), "you return only the new tokens: keep the prompt in front of them")
    expect(shape != (5, 3) and shape != (7, 3),
           f"your result has the shape {shape}: you joined along dimension 0, which adds texts to "
           "the batch; time is dimension 1")
    expect(shape != (1, 6) and shape != (1, 8),
           f"you appended {shape[-1] - 3} tokens and 4 were asked for: count the rounds")
    expect(shape == (1, 7), f"expected ids of shape (1, 7) for 3 + 4 tokens, got {shape}")
    expect(got[0, :3].tolist() == [0, 3, 1], "the prompt at the front has changed")
    expect(got[0, 3:].tolist() != [1, 1, 1, 1],
           "you read the prediction of position 0 each time: the newest position is logits[:, -1]")
    expect(got[0, 3:].tolist() != [2, 2, 2, 2],
           "you read the model once and repeat its answer: call it again on the longer ids")
    expect(got[0, 3:].tolist() == [2, 3, 4, 0],
           f"after 1 this model says 2, 3, 4, 0; you appended {got[0, 3:].tolist()}")
    total = as_tensor(attempt(answer, _total, torch.tensor([[1, 2]]), 5))
    expect(total.tolist() != [[1, 2, 2, 2, 2, 2, 2]],
           "you give the model the newest token alone; without a cache it reads all ids so far")
    again = as_tensor(attempt(answer, _total, torch.tensor([[1, 2]]), 5))
    expect(torch.equal(total, again), "you draw: the same prompt gives other tokens each time; "
           "greedy takes the likeliest one, argmax")
    expect_agreement(answer, _greedy, [
        (_total, torch.tensor([[1, 2]]), 5), (_total, torch.tensor([[3]]), 9),
        (_cycle, torch.tensor([[4, 4]]), 0)])


def _greedy(model: Any, ids: Tensor, count: int) -> Tensor:
    for _ in range(count):
        ids = torch.cat((ids, model(ids)[:, -1:].argmax(-1)), dim=1)
    return ids


@exercise
def check_nucleus(answer: Any) -> None:
    """`nucleus(logits, p)` sets all logits (V,) outside of the nucleus to -inf."""
    logits = torch.tensor([0.1, 0.5, 0.05, 0.3, 0.05]).log()
    got = as_tensor(attempt(answer, logits, 0.7))
    expect(got.shape == logits.shape,
           "expected a tensor of the same shape (5,) with -inf for what is removed")
    kept = _kept(got)
    expect(kept != [1], "you drop the token that crosses p: 0.5 alone does not reach 0.7, so 0.3 "
                        "must stay as well")
    expect(kept != [0, 1], "you return the logits in sorted order: put each back into its place")
    expect(kept != [0, 1, 3], "you keep one token too many: 0.5 + 0.3 has already reached 0.7")
    expect(kept != [0, 1, 2, 3], "you add up in the order of the vocabulary: begin with the "
                                 "likeliest token, so sort first")
    expect(len(kept) != 5, "nothing is removed: add up probabilities, i.e. the softmax, and "
                           "compare the sum with p")
    expect(1 in kept, f"you keep {kept}, without the likeliest token, 1: before it stands nothing, "
                      "0, whatever roll or a shift puts there")
    expect(kept == [1, 3], f"of 0.1, 0.5, 0.05, 0.3, 0.05 and p = 0.7 tokens 1 and 3 must stay; "
                           f"you keep {kept}")
    expect(close(got[[1, 3]], logits[[1, 3]]), "the logits of kept tokens must stay as they were")
    least = _kept(attempt(answer, logits, 0.01))
    expect(len(least) > 0, "for p = 0.01 nothing is left: the likeliest token "
                           "must always stay, or there is nothing to draw")
    expect(least == [1], "for p = 0.01 the likeliest token alone is enough")
    moved = as_tensor(attempt(answer, logits + 2, 0.7))
    expect(_kept(moved) == [1, 3], f"with 2 added to all logits you keep {_kept(moved)}: logits "
           "are no logarithms of probabilities until the softmax has normalised them")
    expect(close(moved[[1, 3]], logits[[1, 3]] + 2), "you return the logarithms of probabilities: "
           "the logits of kept tokens must stay as they were")
    more = torch.tensor([2.0, -1.0, 3.5, 0.0, 1.0, 2.5, -3.0])
    expect_agreement(answer, _nucleus, [
        (more, 0.9), (more, 0.6), (more - 10, 0.9999), (torch.tensor([-4.0]), 0.5)])


def _kept(logits: Any) -> list[int]:
    return (as_tensor(logits) > -math.inf).nonzero().flatten().tolist()


def _nucleus(logits: Tensor, p: float) -> Tensor:
    probability = logits.softmax(-1)
    before = (probability * (probability > probability[:, None])).sum(-1)
    return logits.masked_fill(before >= p, -math.inf)


@exercise
def check_positions(answer: Any) -> None:
    """`positions(prompt, new, cached)` counts the positions that the model computes."""
    with_cache, without = attempt(answer, 10, 3, True), attempt(answer, 10, 3, False)
    expect(with_cache != without, "with and without a cache come out the same: the cache is there "
                                  "so that no position is computed twice")
    expect(without != 13, "without a cache each round computes the whole text again: add the "
                          "lengths of all rounds")
    expect(without != 30, "without a cache each round is one position longer than the one before: "
                          "10 + 11 + 12, not 3 times 10")
    expect((with_cache, without) != (13, 46),
           "you let the model read the last new token, but nothing follows it: it need not be read")
    expect(without != 46 and without != 36,
           f"without a cache the rounds read 10, 11 and 12 positions, which is 33; got {without}")
    expect(with_cache != 3 and with_cache != 2,
           "the prompt must be read too, once: the first round computes all of its positions")
    expect(with_cache != 13, "the last new token need not be read: nothing follows it")
    expect((with_cache, without) == (12, 33),
           f"10 tokens and 3 new ones: 10 + 1 + 1 = 12 with a cache and 10 + 11 + 12 = 33 without; "
           f"got {with_cache} and {without}")
    expect((attempt(answer, 1, 5, True), attempt(answer, 1, 5, False)) == (5, 15),
           "right for 10 and 3; wrong for a prompt of 1 token and 5 new ones (5 and 15)")
    expect_agreement(answer, _positions, [
        (7, 1, True), (7, 1, False), (100, 50, True), (100, 50, False)], tolerance=0)


def _positions(prompt: int, new: int, cached: bool) -> int:
    return prompt + new - 1 if cached else new * prompt + new * (new - 1) // 2


@exercise
def check_correction(answer: Any) -> None:
    """`correction(p, q)` gives acceptance probabilities (V,) and the second draw's."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    got = attempt(answer, p, q)
    expect(len(got) == 2, "expected two tensors: the acceptance probabilities and the "
                          "distribution of the draw after a rejection")
    accept, rest = (as_tensor(value) for value in got)
    expect(accept.shape == p.shape and rest.shape == p.shape, "expected two tensors of shape (3,)")
    expect(not close(accept, p / q), "an acceptance probability above 1: where p is larger than "
                                     "q, always accept: min(1, p / q)")
    expect(not close(accept, (q / p).clamp(max=1)),
           "you divide q by p: a token that the draft proposes too often must be rejected")
    expect(not close(accept, torch.minimum(p, q)), "min(p, q) is how often a token is proposed and "
           "accepted; once it is proposed, the probability is that over q")
    expect(close(accept, torch.tensor([1.0, 1.0, 1 / 3])),
           "the acceptance probability of token x is min(1, p(x) / q(x))")
    expect(not close(rest, p), "after a rejection you draw from p: then tokens that the draft "
                               "likes come out too often; draw from what is missing, p - q")
    expect(not close(rest, (q - p).clamp(min=0)) and not close(rest, torch.tensor([0.0, 0.0, 1])),
           "you subtract p from q: after a rejection draw what the draft proposes too seldom, "
           "max(0, p - q)")
    expect(bool((rest >= 0).all()), "a negative probability: only what p has more of than q "
                                    "counts, max(0, p - q)")
    expect(not close(rest, (p - q).clamp(min=0)), "max(0, p - q) does not sum to 1: normalise it")
    expect(close(rest, torch.tensor([0.75, 0.25, 0.0])),
           "the second draw follows max(0, p - q), divided by its sum")
    expect_agreement(answer, _correction, [
        (torch.tensor([0.1, 0.9]), torch.tensor([0.5, 0.5])),
        (torch.tensor([0.0, 0.3, 0.05, 0.25, 0.4]), torch.tensor([0.2, 0.3, 0.1, 0.1, 0.3]))])


def _correction(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    missing = (p - q).clamp(min=0)
    return torch.minimum(p, q) / q, missing / missing.sum()
