"""Checks of chapter 2.1, language models."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gptlib.checks import as_tensor, attempt, close, exercise, expect, expect_agreement

_IDS = torch.tensor([0, 1, 2, 1, 2, 1, 2, 3, 0, 3, 1, 0])
_PREDECESSORS = torch.tensor([2.0, 3, 1, 2, 0])  # different tokens before each, of five


@exercise
def check_continuation(answer: Any) -> None:
    """`continuation(ids, vocab_size)` -> (V,): the share of different pairs that end in a token."""
    got = as_tensor(attempt(answer, _IDS, 5)).float()
    expect(got.shape == (5,), f"your result has shape {tuple(got.shape)}, expected (V,) = (5,)")
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
    expect(close(got, _PREDECESSORS / 8), f"for the ids {_IDS.tolist()} the predecessors are "
           f"{_PREDECESSORS.int().tolist()} of 8 pairs, so {(_PREDECESSORS / 8).tolist()}; yours "
           f"is {[round(value, 3) for value in got.tolist()]}")
    own = as_tensor(attempt(answer, torch.tensor([1, 1, 1, 0]), 2)).tolist()
    expect(close(own, [0.5, 0.5]), "for the ids [1, 1, 1, 0] the pairs are 1 1 and 1 0: a token "
           f"may be its own predecessor; yours is {own}")
    expect_agreement(answer, _continuation, [
        (torch.tensor([3, 0]), 7), (torch.tensor([12, 1, 1, 12, 11, 2]), 13)])


def _continuation(ids: Tensor, vocab_size: int) -> Tensor:
    pairs = set(zip(ids[:-1].tolist(), ids[1:].tolist()))
    counts = [sum(last == token for _, last in pairs) for token in range(vocab_size)]
    return torch.tensor(counts) / len(pairs)


@exercise
def check_windows(answer: Any) -> None:
    """`windows(ids, n, pad)` -> (B, T, n): for each position the n tokens up to it, in order."""
    ids, pad = torch.tensor([[5, 6, 7, 8], [1, 2, 3, 4]]), 0
    got = as_tensor(attempt(answer, ids, 3, pad))
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
    other = as_tensor(attempt(answer, ids, 2, 9))
    expect(other.shape == (2, 4, 2) and other[0, 0].tolist() == [9, 5],
           "`n` or `pad` has no effect: with n = 2 and pad = 9 the first window is [9, 5]")
    expect_agreement(answer, _windows, [(ids, 1, 0), (torch.tensor([[4, 3]]), 5, 7),
                                        (torch.arange(21).view(3, 7), 4, 30)])


def _windows(ids: Tensor, n: int, pad: int) -> list:
    return [[([pad] * n + row[:t + 1])[-n:] for t in range(len(row))] for row in ids.tolist()]


_FIRST = torch.tensor([0.7, 0.2, 0.1, 0.0])
_SECOND = torch.tensor([0.1, 0.1, 0.2, 0.6])


@exercise
def check_mix(answer: Any) -> None:
    """`mix(first, second, weight)` -> a model with the weighted mean of the probabilities."""
    def first(ids: Tensor) -> Tensor:
        return _FIRST.log().expand(*ids.shape, 4)

    def second(ids: Tensor) -> Tensor:
        return _SECOND.log().expand(*ids.shape, 4) + 2.0  # any scores, not yet log-probabilities

    _expect_the_last_dimension(answer)
    wanted = 0.75 * _FIRST + 0.25 * _SECOND
    got = _mixed(answer, first, second, 0.75, torch.tensor([[0, 1, 2]]))[0, 0]
    expect(not got.isnan().any(), "there are nans: -inf is an honest log-probability; 0 * -inf is "
           "not a number, so mix probabilities, not their logarithms")
    expect(not close(got, wanted), "these are probabilities: a model returns logits, so take the "
           "logarithm at the end")
    p = got.softmax(-1)
    expect(not close(p, 0.25 * _FIRST + 0.75 * _SECOND),
           "the weight belongs to the first model: yours gives it to the second")
    expect(not close(p, (_FIRST + _SECOND) / 2), "the weight has no effect")
    raw = 0.75 * _FIRST + 0.25 * _SECOND * math.exp(2)
    expect(not close(p, raw / raw.sum()), "the second model's scores are not normalised: softmax "
           "first, or it gets a larger share than its weight")
    expect(p[3] > 0, "what one model holds impossible has become impossible: you mixed logarithms "
           "(a product); mix the probabilities (a sum)")
    expect(close(p, wanted), f"with the weight 0.75 the probabilities are "
           f"{[round(value, 3) for value in wanted.tolist()]}; yours are "
           f"{[round(value, 3) for value in p.tolist()]}")
    _expect_mixtures_of_models_that_read(answer)


def _mixed(answer: Callable, first: Callable, second: Callable, weight: float,
           ids: Tensor) -> Tensor:
    """The logits (B, T, V) of the reader's mixture for ids (B, T)."""
    model = attempt(answer, first, second, weight)
    expect(callable(model), "expected a model, that is a function of ids: return the function "
           "that mixes, not its result")
    got, shape = as_tensor(attempt(model, ids)).float(), first(ids).shape
    expect(got.shape == shape, f"your model must return logits (B, T, V) for ids (B, T), here "
           f"{tuple(shape)}; yours have shape {tuple(got.shape)}")
    return got


# Logits (V, V) of two models of six tokens that look at the last token.
_TABLES = torch.linspace(-4, 4, 2 * 6 * 6).sin().view(2, 6, 6) * 6
_TEXTS = torch.tensor([[0, 5, 3, 3, 1], [2, 2, 4, 0, 1]])


def _expect_the_last_dimension(answer: Callable) -> None:
    first, second = (lambda ids, table=table: table[ids] for table in _TABLES)
    got = _mixed(answer, first, second, 0.3, _TEXTS)
    for dim, name in enumerate("BT"):
        wrong = 0.3 * first(_TEXTS).softmax(dim) + 0.7 * second(_TEXTS).softmax(dim)
        expect(not close(got.exp(), wrong), f"your softmax runs along dimension {dim}, {name}: the "
               "probabilities of the V tokens are along the last one")


def _expect_mixtures_of_models_that_read(answer: Callable) -> None:
    """Another shape, probabilities that differ from place to place, one model alone."""
    first, second = (lambda ids, table=table: table[ids] for table in _TABLES)
    p, q = first(_TEXTS).softmax(-1), second(_TEXTS).softmax(-1)
    for weight in (0.3, 0.0, 1.0):
        got = _mixed(answer, first, second, weight, _TEXTS)
        expect(close(got.softmax(-1), weight * p + (1 - weight) * q, 1e-4),
               f"wrong for models whose logits differ from place to place, ids (2, 5) and weight "
               f"{weight}: mix the probabilities of each position")


@exercise
def check_far_sighted(answer: Any) -> None:
    """`make_model(vocab_size)` -> nn.Module: causal, sees 32 tokens back, 100,000 parameters."""
    model = attempt(answer, 256)
    expect(isinstance(model, nn.Module), f"expected an nn.Module, got {type(model).__name__}")
    size = sum(parameter.numel() for parameter in model.parameters())
    expect(size <= 100_000, f"your model has {size:,} parameters; at most 100,000 are allowed")
    _expect_causal_sight(model, 256, 64)  # the windows of the chapter
    _expect_causal_sight(attempt(answer, 40), 40, 48)


def _expect_causal_sight(model: nn.Module, V: int, T: int) -> None:
    ids = torch.randint(V, (2, T))
    logits = _run(model.eval(), ids)
    expect(logits.shape == (2, T, V), f"for vocab_size {V} and ids (2, {T}) the logits have shape "
           f"{tuple(logits.shape)}; expected (B, T, V) = (2, {T}, {V})")
    expect(_run(model, ids[:, :1]).shape == (2, 1, V), "it must read a text of one token, too")
    expect(torch.equal(_run(model, ids), logits), "two calls with the same ids give different "
           "logits in eval mode: nothing may be drawn there")
    model = _in_double(model, ids)
    logits = _run(model, ids)

    def moved(position: int) -> Tensor:
        """How far another token there moves the logits at each place, (2, T)."""
        changed = ids.clone()
        changed[0, position] = (changed[0, position] + 1) % V
        return (_run(model, changed) - logits).abs().amax(-1) / logits.abs().max()

    middle, late = moved(T // 2), moved(T - 1)  # what only rounding moves is below 1e-5
    expect(max(late[1].max(), middle[1].max()) < 1e-5, "a change in one text moves the logits of "
           "the other: the rows of a batch must not mix")
    expect(max(late[0, :-1].max(), middle[0, :T // 2].max()) < 1e-5, "a token changes logits "
           "before its own position: the model reads the future, and its loss will be too good to "
           "be true")
    expect(late[0, -1] > 0, "the newest token has no effect on the prediction of the next one")
    for distance in (1, 8, 16, 32):
        expect(moved(T - 1 - distance)[0, -1] > 0, f"a token {distance} places before the newest "
               "has no effect on the last prediction: the model must see 32 places back")


def _run(model: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return attempt(model, ids)


def _in_double(model: nn.Module, ids: Tensor) -> nn.Module:
    """The same model in float64 if it can, for a fresh RNN moves logits by 1e-9 over 32 places."""
    try:
        double = copy.deepcopy(model).double()
        double(ids)
        return double
    except Exception:  # it builds float32 tensors of its own
        return model
