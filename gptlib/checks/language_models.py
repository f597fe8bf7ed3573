"""Checks of chapter 2.1, language models."""

import math

import torch
from torch import Tensor, nn

from gptlib.checks import attempt, close, exercise, expect

_IDS = torch.tensor([0, 1, 2, 1, 2, 1, 2, 3, 0, 3, 1, 0])
_PREDECESSORS = torch.tensor([2.0, 3, 1, 2, 0])  # different tokens before each, of five


@exercise
def check_continuation(continuation) -> None:
    """`continuation(ids, vocab_size)` -> (V,): the share of different pairs that end in a token."""
    got = attempt(continuation, _IDS, 5)
    expect(isinstance(got, Tensor), f"expected a tensor, got {type(got).__name__}")
    expect(got.shape == (5,), f"your result has shape {tuple(got.shape)}, expected (V,) = (5,)")
    got, wanted = got.float(), _PREDECESSORS / 8
    expect(not close(got, _PREDECESSORS), "these are counts: divide by the number of different "
           "pairs, so that the result sums to 1")
    expect(not close(got, torch.tensor([3.0, 4, 3, 2, 0]) / 12),
           "this is the share of occurrences, the unigram model: count different predecessors")
    expect(not close(got, torch.tensor([2.0, 4, 3, 2, 0]) / 11),
           "you count every pair: the pair 1 2 occurs three times and counts once")
    expect(not close(got, torch.tensor([2.0, 2, 2, 2, 0]) / 8),
           "you count what comes after each token: the token is the second one of the pair")
    expect(not close(got, torch.tensor([3.0, 3, 1, 2, 0]) / 9),
           "the first token of the text has no predecessor: it makes no pair")
    expect(close(got, wanted), f"for the ids {_IDS.tolist()} the predecessors are "
           f"{_PREDECESSORS.int().tolist()} of 8 pairs, so {wanted.tolist()}; yours is "
           f"{[round(value, 3) for value in got.tolist()]}")


@exercise
def check_windows(windows) -> None:
    """`windows(ids, n, pad)` -> (B, T, n): for each position the n tokens up to it, in order."""
    ids, pad = torch.tensor([[5, 6, 7, 8], [1, 2, 3, 4]]), 0
    got = attempt(windows, ids, 3, pad)
    expect(isinstance(got, Tensor), f"expected a tensor, got {type(got).__name__}")
    expect(got.shape != (2, 2, 3), "the first positions are missing: fill their windows with `pad` "
           "on the left, so that there is one for each of the T positions")
    expect(got.shape == (2, 4, 3), f"your result has shape {tuple(got.shape)}; expected (B, T, n) "
           "= (2, 4, 3)")
    first = got[0].tolist()
    expect(first != [[0, 0, 0], [0, 0, 5], [0, 5, 6], [5, 6, 7]],
           "your windows end one token too early: the logits at a position predict the next token, "
           "so the window contains the position's own")
    expect(first[0] != [5, 6, 7] and first[0] != [0, 5, 6],
           f"the window at position 0 is {first[0]}: it contains tokens that come later, which is "
           "what the model must predict")
    expect(first != [[5, 0, 0], [6, 5, 0], [7, 6, 5], [8, 7, 6]],
           "newest first: turn each window round, the oldest token stands on the left")
    expect(first[0] != [5, 0, 0], "a short window is filled on the left, not on the right")
    expect(first == [[0, 0, 5], [0, 5, 6], [5, 6, 7], [6, 7, 8]],
           f"for the row {ids[0].tolist()} the windows are [0, 0, 5], [0, 5, 6], [5, 6, 7], "
           f"[6, 7, 8]; yours are {first}")
    expect(got[1, 0].tolist() == [0, 0, 1], f"row 1 begins with the window {got[1, 0].tolist()}: "
           "every row of the batch is a text of its own")
    other = attempt(windows, ids, 2, 9)
    expect(other.shape == (2, 4, 2) and other[0, 0].tolist() == [9, 5],
           "`n` or `pad` has no effect: with n = 2 and pad = 9 the first window is [9, 5]")


@exercise
def check_mix(mix) -> None:
    """`mix(first, second, weight)` -> a model with the weighted mean of the probabilities."""
    first_p = torch.tensor([0.7, 0.2, 0.1, 0.0])
    second_p = torch.tensor([0.1, 0.1, 0.2, 0.6])
    ids = torch.tensor([[0, 1, 2]])

    def first(ids):
        return first_p.log().expand(*ids.shape, 4)

    def second(ids):
        return second_p.log().expand(*ids.shape, 4) + 2.0  # any scores, not yet log-probabilities

    def attempted(weight):
        model = attempt(mix, first, second, weight)
        expect(callable(model), "expected a model, that is a function of ids: return the function "
               "that mixes, not its result")
        got = attempt(model, ids)
        expect(isinstance(got, Tensor) and got.shape == (1, 3, 4),
               "your model must return logits (B, T, V) for ids (B, T)")
        return got[0, 0]

    wanted, got = 0.75 * first_p + 0.25 * second_p, attempted(0.75)
    expect(not got.isnan().any(), "there are nans: -inf is an honest log-probability; 0 * -inf is "
           "not a number, so mix probabilities, not their logarithms")
    expect(not close(got, wanted), "these are probabilities: a model returns logits, so take the "
           "logarithm at the end")
    p = got.softmax(-1)
    expect(not close(p, 0.25 * first_p + 0.75 * second_p),
           "the weight belongs to the first model: yours gives it to the second")
    expect(not close(p, (first_p + second_p) / 2), "the weight has no effect")
    raw = 0.75 * first_p + 0.25 * second_p * math.exp(2)
    expect(not close(p, raw / raw.sum()), "the second model's scores are not normalised: softmax "
           "first, or it gets a larger share than its weight")
    expect(p[3] > 0, "what one model holds impossible has become impossible: you mixed logarithms "
           "(a product); mix the probabilities (a sum)")
    expect(close(p, wanted), f"with the weight 0.75 the probabilities are "
           f"{[round(value, 3) for value in wanted.tolist()]}; yours are "
           f"{[round(value, 3) for value in p.tolist()]}")


@exercise
def check_far_sighted(make_model) -> None:
    """`make_model(vocab_size)` -> nn.Module: causal, sees 32 tokens back, 100,000 parameters."""
    V, T = 256, 80
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = attempt(make_model, V)
        ids = torch.randint(V, (2, T))
    expect(isinstance(model, nn.Module), f"expected an nn.Module, got {type(model).__name__}")
    size = sum(parameter.numel() for parameter in model.parameters())
    expect(size <= 100_000, f"your model has {size:,} parameters; at most 100,000 are allowed")
    model.eval()
    logits = attempt(model, ids).detach()
    expect(logits.shape == (2, T, V), f"for ids (2, {T}) the logits have shape "
           f"{tuple(logits.shape)}; expected (B, T, V) = (2, {T}, {V})")
    expect(attempt(model, ids[:, :1]).shape == (2, 1, V), "it must read a text of one token, too")

    def moved(position):  # at which positions does another token there change the logits?
        changed = ids.clone()
        changed[0, position] = (changed[0, position] + 1) % V
        return (attempt(model, changed).detach() - logits).abs().amax(-1) > 0

    late = moved(T - 1)
    expect(not late[1].any(), "a change in one text moves the logits of the other: the rows of a "
           "batch must not mix")
    expect(not late[0, :-1].any(), "a token changes logits before its own position: the model "
           "reads the future, and its loss will be too good to be true")
    expect(bool(late[0, -1]), "the newest token has no effect on the prediction of the next one")
    for distance in (1, 8, 16, 32):
        expect(bool(moved(T - 1 - distance)[0, -1]), f"a token {distance} places before the newest "
               "has no effect on the last prediction: the model must see 32 places back")
