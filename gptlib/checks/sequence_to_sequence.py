"""Checks of chapter 2.2.4, sequence to sequence."""

import math
from collections.abc import Callable
from typing import Any

import torch

from gptlib.checks import as_tensor, attempt, close, exercise, expect, expect_agreement


@exercise
def check_gru_step(answer: Any) -> None:
    """`gru_step(x, h, w_x, w_h, b_x, b_h)` -> the next state (B, C), with PyTorch's weights.

    The four tensors are those of `torch.nn.GRUCell`: (3 C, I), (3 C, C), (3 C,) and (3 C,), the
    rows of the reset gate first, then those of the update gate, then those of the proposal.
    """
    inputs = _cell(B=2, width=3, C=4)
    got = as_tensor(attempt(answer, *inputs))
    expect(got.shape == (2, 4), f"the new state has shape {tuple(got.shape)}, expected (2, 4): "
           "one row of C numbers for each row of the batch")
    expect(not close(got, _gru(*inputs, reset_first=True), 1e-4),
           "you multiplied h by the reset gate before the matrix product, as Cho et al. (2014) "
           "print it; PyTorch multiplies the product W h + b by the gate")
    expect(not close(got, _gru(*inputs, bias_outside=True), 1e-4),
           "the bias b_h of the proposal belongs inside the bracket that the reset gate "
           "multiplies: r * (W h + b_h)")
    expect(not close(got, _gru(*inputs, keep_new=True), 1e-4),
           "your update gate works the other way round: z near 1 must keep the old state, "
           "h' = (1 - z) n + z h")
    expect(not close(got, _gru(*inputs, swapped=True), 1e-4),
           "you swapped the gates: PyTorch's first C rows belong to the reset gate, the next C "
           "rows to the update gate")
    expect(not close(got, _gru(*inputs, no_reset=True), 1e-4),
           "you compute the reset gate but nothing is multiplied by it")
    expect(not close(got, _gru(*inputs, squash=torch.sigmoid), 1e-4),
           "the proposal goes through tanh, not through the sigmoid: a state may be negative")
    expect(not close(got, _gru(*inputs, squash=lambda value: value), 1e-4),
           "the proposal has no tanh: states would grow without limit")
    x, h, w_x, w_h, b_x, b_h = inputs
    expect(not close(got, _gru(x, h, w_x, w_h, b_x * 0, b_h * 0), 1e-4), "you left out the biases")
    right = _gru(*inputs)
    expect(close(got, right, 1e-4), f"on a small random cell the first row should be "
           f"{_rounded(right[0])}; yours is {_rounded(got[0])}")
    expect_agreement(answer, _gru, [_cell(B=1, width=5, C=2), _cell(B=3, width=1, C=7),
                                    _cell(B=6, width=2, C=2)], 1e-4)


@exercise
def check_additive_context(answer: Any) -> None:
    """`additive_context(query, states, mask, w_q, w_s, v)` -> the context (B, C).

    query (B, C), states (B, S, C), mask (B, S) with True for real positions, w_q and w_s (C, A),
    v (A,).
    """
    inputs = query, states, mask, w_q, w_s, v = _source([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], 3, 4)
    got = as_tensor(attempt(answer, *inputs))
    weights, right = _additive(*inputs)
    expect(not close(got, weights, 1e-4),
           "these are the weights: the context is the average of the states under them")
    expect(got.shape == (2, 3), f"the context has shape {tuple(got.shape)}, expected (2, 3): one "
           "vector of C numbers for each row of the batch")
    expect(not got.isnan().any(), "nan: a row of scores is -inf everywhere; True in the mask marks "
           "the positions to keep")
    expect(not close(got, _additive(query, states, ~mask | mask, w_q, w_s, v)[1], 1e-4),
           "you look at the padding: set its scores to -inf before the softmax")
    expect(not close(got, _additive(query, states, mask, w_q, w_s, v, curve=lambda s: s)[1], 1e-4),
           "without tanh the query cancels: it adds the same number to every score, and the "
           "softmax ignores that")
    expect(not close(got, _additive(*inputs, multiply=True)[1], 1e-4),
           "you multiplied W q and W s: additive attention adds them before the tanh")
    _expect_the_mask_in_its_place(got, *inputs)
    expect(close(got, right, 1e-4), f"in a small random case the first row should be "
           f"{_rounded(right[0])}; yours is {_rounded(got[0])}")
    expect_agreement(answer, lambda *case: _additive(*case)[1], [
        _source([[1]], 2, 6), _source([[0, 1, 1], [1, 0, 1], [1, 1, 1]], 3, 3),
        _source([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]], 5, 1)], 1e-4)


def _expect_the_mask_in_its_place(got, query, states, mask, w_q, w_s, v) -> None:
    scores = _scores(query, states, w_q, w_s, v)

    def averaged(weights: torch.Tensor) -> bool:
        return close(got, (weights[..., None] * states).sum(1), 1e-4)

    expect(not averaged(scores.softmax(-1) * mask), "the weights of the second row do not sum to "
           "1: you masked after the softmax; mask the scores")
    expect(not averaged((scores * mask).softmax(-1)), "you multiplied the scores by the mask: a "
           "score of 0 still gets a weight; padding needs the score -inf")
    expect(not averaged(scores.masked_fill(~mask, -math.inf).softmax(0).nan_to_num()),
           "your softmax runs over the batch: it must run over the positions of one source")
    expect(not averaged(mask / mask.sum(1, keepdim=True)), "this is the plain average of the "
           "states: the query has no effect")


def _source(mask: list[list[int]], C: int, A: int) -> tuple[torch.Tensor, ...]:
    """Random inputs of one step of additive attention, for a mask (B, S)."""
    real = torch.tensor(mask).bool()
    (B, S), generator = real.shape, torch.Generator().manual_seed(1)
    query, states, w_q, w_s, v = (torch.randn(shape, generator=generator) for shape in (
        (B, C), (B, S, C), (C, A), (C, A), (A,)))
    return query, states, real, w_q, w_s, v


@exercise
def check_mix_inputs(answer: Any) -> None:
    """`mix_inputs(inputs, guesses, keep)` -> (B, T): inputs, some replaced by earlier guesses.

    inputs (B, T) are the tokens that a teacher would show, guesses (B, T) the model's best token
    at each position, keep (B, T) is True where the teacher's token stays.
    """
    inputs = torch.tensor([[1, 10, 11, 12, 13], [1, 20, 21, 22, 23]])
    guesses = torch.tensor([[50, 51, 52, 53, 54], [60, 61, 62, 63, 64]])
    keep = torch.tensor([[False, True, False, True, False], [True, False, True, False, True]])
    right = torch.tensor([[1, 10, 51, 12, 53], [1, 60, 21, 62, 23]])
    got = as_tensor(attempt(answer, inputs, guesses, keep))
    expect(got.shape == inputs.shape,
           f"expected a tensor of shape (2, 5), got {tuple(got.shape)}")
    unshifted = torch.where(keep, inputs, guesses)
    later = torch.cat((unshifted[:, :1] * 0 + 1, unshifted[:, 1:]), dim=1)
    expect(not torch.equal(got, unshifted) and not torch.equal(got, later),
           "you put the guess of position t into input t: it is the guess for the token that "
           "comes after it, so the answer would stand in the question; shift by one")
    rolled = torch.where(keep, inputs, guesses.roll(1, dims=1))
    expect(not torch.equal(got, rolled),
           "the first input was replaced: nothing was guessed before it, and the start mark stays "
           "whatever keep says")
    shifted = torch.cat((inputs[:, :1], guesses[:, :-1]), dim=1)
    expect(not torch.equal(got, torch.where(keep, shifted, inputs)),
           "keep is used the wrong way round: True means that the teacher's token stays")
    expect(not torch.equal(got, shifted), "you replaced every input: keep has no effect")
    expect(not torch.equal(got, inputs), "nothing was replaced: keep has no effect")
    expect(torch.equal(got, right), f"for inputs {inputs[0].tolist()}, guesses "
           f"{guesses[0].tolist()} and keep {keep[0].int().tolist()} the answer is "
           f"{right[0].tolist()}; yours is {got[0].tolist()}")
    random = torch.randint(2, (4, 7)).bool()
    expect_agreement(answer, _mixed, [
        (torch.tensor([[7]]), torch.tensor([[9]]), torch.tensor([[False]])),
        (inputs[:1, :3] + 1, guesses[:1, :3], keep[1:, :3]),
        (torch.arange(28).view(4, 7), 50 + torch.arange(28).view(4, 7), random)])


def _mixed(inputs: torch.Tensor, guesses: torch.Tensor, keep: torch.Tensor) -> list:
    return [[row[t] if kept[t] or t == 0 else guess[t - 1] for t in range(len(row))]
            for row, guess, kept in zip(inputs.tolist(), guesses.tolist(), keep.tolist())]


@exercise
def check_restore_in_pieces(answer: Any) -> None:
    """`restore_in_pieces(restore, source, most)` -> the whole restored text.

    `restore` turns a string into a string and is trusted for at most `most` words. Every piece
    but the first begins with the last word of the piece before, as context; that word's
    restoration is dropped.
    """
    source = "n pn  tm thr ws  lttl grl lvd  wd"  # 12 words, three of them empty
    got, calls = _watched(answer, source, 4)
    words = source.split(" ")
    expect(isinstance(got, str), f"expected a string, got {type(got).__name__}")
    longest = max((len(call.split(" ")) for call in calls), default=0)
    expect(longest > 0, "you never called restore")
    expect(longest <= 4, f"you gave restore {longest} words at once: at most {4}, the word of "
           "context included")
    right = " ".join(f"{word}+" for word in words)
    expect(not got.split(" ") == [f"{word}+" for word in source.split()],
           'an empty word was lost: the source has two spaces where "a" stood; split(" ") keeps '
           "an empty word, split() does not")
    repeated = [word for i in range(0, len(words) - 1, 3) for word in words[i:i + 4]]
    expect(got != " ".join(f"{word}+" for word in repeated),
           "the word of context appears twice: drop the first restored word of every piece after "
           "the first")
    last_call = calls[-1].split(" ")
    expect(got.split(" ")[-1:] == ["wd+"] and last_call[-1] == "wd", "the end of the source is "
           "missing: the last piece is shorter than the others")
    no_context = [" ".join(words[i:i + 4]) for i in range(0, len(words), 4)]
    expect(calls != no_context, "your pieces have no word of context: each piece after the first "
           "starts with the last word of the piece before")
    expect(got == right, f"the restored words are {got!r}, expected {right!r}")
    expect(len(calls) == 4, f"you called restore {len(calls)} times for 12 words; 4 calls are "
           "enough: 4 new words in the first, at most 3 in each of the others")
    whole, calls = _watched(answer, "thr ws  grl", 8)
    expect(whole == "thr+ ws+ + grl+" and len(calls) == 1,
           "a source that fits into one piece needs one call and no context")
    for text, most in ((source, 5), (source, 2), ("lc", 3), ("th qn  sd", 3), ("a a a a a", 4)):
        _expect_a_chain(answer, text, most)


def _expect_a_chain(answer: Callable, source: str, most: int) -> None:
    """Any right way to cut; a restored word tells here which place in its piece it had."""
    got, calls = _watched(answer, source, most, mark="{place}")
    words, pieces = source.split(" "), [call.split(" ") for call in calls]
    case = f"for the source {source!r} and most = {most}"
    expect(max(map(len, pieces)) <= most, f"{case} you gave restore more than {most} words")
    expect(len(calls) == 1 + max(0, math.ceil((len(words) - most) / (most - 1))),
           f"{case} you called restore {len(calls)} times")
    expect(all(before[-1] == after[0] for before, after in zip(pieces, pieces[1:])),
           f"{case} a piece does not begin with the last word of the piece before")
    expect(pieces[0] + [word for piece in pieces[1:] for word in piece[1:]] == words,
           f"{case} the pieces do not make up the source")
    restored = [[f"{word}{place}" for place, word in enumerate(piece)] for piece in pieces]
    early = [word for piece in restored[:-1] for word in piece[:-1]] + restored[-1]
    expect(len(pieces) == 1 or got != " ".join(early), "you dropped the last restored word of "
           "the piece before: drop the word of context, the first restored word of the later piece")
    expect(got == " ".join(restored[0] + [word for piece in restored[1:] for word in piece[1:]]),
           f"{case} you restored {got!r} from the pieces {calls}")


def _cell(B: int, width: int, C: int) -> tuple[torch.Tensor, ...]:
    """Random inputs of a GRU step: x, h, w_x, w_h, b_x, b_h."""
    generator = torch.Generator().manual_seed(B)
    shapes = (B, width), (B, C), (3 * C, width), (3 * C, C), (3 * C,), (3 * C,)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _gru(x, h, w_x, w_h, b_x, b_h, *, reset_first=False, bias_outside=False, keep_new=False,
         swapped=False, no_reset=False, squash=torch.tanh):
    """One GRU step in PyTorch's form, or with one of the likely mistakes."""
    x_r, x_z, x_n = (x @ w_x.T + b_x).chunk(3, dim=1)
    h_r, h_z, h_n = (h @ w_h.T + b_h).chunk(3, dim=1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    if swapped:
        r, z = z, r
    _, _, bias = b_h.chunk(3)
    _, _, matrix = w_h.chunk(3)
    if reset_first:
        h_n = (r * h) @ matrix.T + bias
    elif bias_outside:
        h_n = r * (h_n - bias) + bias
    elif not no_reset:
        h_n = r * h_n
    n = squash(x_n + h_n)
    return z * n + (1 - z) * h if keep_new else (1 - z) * n + z * h


def _scores(query, states, w_q, w_s, v, curve=torch.tanh, multiply=False):
    asked, offered = (query @ w_q)[:, None], states @ w_s
    return curve(asked * offered if multiply else asked + offered) @ v


def _additive(query, states, mask, w_q, w_s, v, **options):
    scores = _scores(query, states, w_q, w_s, v, **options)
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return weights, (weights[..., None] * states).sum(1)


def _watched(answer: Callable, source: str, most: int, mark: str = "+") -> tuple[Any, list[str]]:
    """The reader's answer with a `restore` that adds a mark to each word, and the pieces it got."""
    calls = []

    def restore(piece: str) -> str:
        calls.append(piece)
        return " ".join(word + mark.format(place=place)
                        for place, word in enumerate(piece.split(" ")))

    return attempt(answer, restore, source, most), calls


def _rounded(row: torch.Tensor) -> list[float]:
    return [round(value, 3) for value in row.tolist()]
