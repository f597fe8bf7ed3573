"""Checks of chapter 5.2, the decoder."""

import copy
import math
from typing import Any

import torch

from gptlib.checks import as_tensor, attempt, close, exercise, expect, expect_agreement
from gptlib.model.config import GPTConfig
from gptlib.model.encoder_decoder import Decoder
from gptlib.model.gpt import GPT

IGNORED = -100


@exercise
def check_decoder_batch(answer: Any) -> None:
    """`decoder_batch(sentences, start, end)` -> inputs and targets, (B, T) int64 each.

    Inputs begin with `start` and are padded with `end`; targets close with `end` and are padded
    with -100.
    """
    result = attempt(answer, [[5, 6, 7], [8]], 1, 2)
    expect(len(result) == 2 and getattr(result, "ndim", 3) == 3,  # one (B, T) tensor has B = 2
           "expected two tensors: return inputs, targets")
    inputs, targets = map(as_tensor, result)
    expect(inputs.dtype == targets.dtype == torch.int64, "token ids are int64 tensors")
    _expect_the_shape(tuple(inputs.shape), tuple(targets.shape))
    expect(not torch.equal(inputs, targets.masked_fill(targets == IGNORED, 2)),
           "inputs and targets are the same: a decoder that may see its target copies it")
    expect(inputs[0, 0] != 5, "the inputs lack `start`: without it nothing predicts the first "
           "token")
    expect(inputs[0].tolist() == [1, 5, 6, 7], "the first row of the inputs should be start and "
           f"the sentence, [1, 5, 6, 7]; yours is {inputs[0].tolist()}")
    expect(targets[0, -1] == 2, "the targets lack `end`: a model that never learns to say it never "
           "stops")
    expect(targets[0].tolist() == [5, 6, 7, 2], "the first row of the targets should be the "
           f"sentence and end, [5, 6, 7, 2]; yours is {targets[0].tolist()}")
    expect(targets[1].tolist() != [8, 2, 2, 2], "the targets are padded with `end`: the loss would "
           "count them, and most of what a short sentence teaches is to go on ending; use -100")
    expect(targets[1].tolist() != [8, IGNORED, IGNORED, IGNORED], "the short sentence never ends: "
           "`end` stands behind each sentence, before the padding")
    expect(inputs[1].tolist() == [1, 8, 2, 2] and targets[1].tolist() == [8, 2, IGNORED, IGNORED],
           f"the second rows should be [1, 8, 2, 2] and [8, 2, -100, -100]; yours are "
           f"{inputs[1].tolist()} and {targets[1].tolist()}")
    rows = as_tensor(attempt(answer, [[3], [4, 5]], 9, 9)[1]).tolist()
    expect(rows == [[3, 9, IGNORED], [4, 5, 9]], "start and end may be one token, as in this "
           f"chapter: for [[3], [4, 5]] and 9 the targets are [[3, 9, -100], [4, 5, 9]]; yours "
           f"are {rows}. Find the padding by the lengths, not by the id")
    expect_agreement(answer, _batch, [([[4, 5]], 0, 3), ([[7] * 6, [], [9, 8]], 11, 10)])


def _expect_the_shape(inputs: tuple, targets: tuple) -> None:
    """The shape (2, 4) for sentences of 3 tokens and 1 token."""
    expect(inputs == targets, f"the shapes {inputs} and {targets} differ: every input position "
           "has one target")
    expect(inputs[-1] != 3, "T is 3 for a longest sentence of 3 tokens: there is no room for "
           "`start` in the inputs and `end` in the targets")
    expect(inputs[-1] != 5, "T is 5: the inputs need no `end` and the targets no `start`")
    expect(inputs == (2, 4), f"the shapes are {inputs}, expected (2, 4)")


def _batch(sentences: list, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
    T = max(map(len, sentences)) + 1
    inputs = [[start, *s, *[end] * (T - 1 - len(s))] for s in sentences]
    targets = [[*s, end, *[IGNORED] * (T - 1 - len(s))] for s in sentences]
    return torch.tensor(inputs), torch.tensor(targets)


@exercise
def check_cross_attention(answer: Any) -> None:
    """`cross_attention(x, source, real, w_q, w_k, w_v)` -> (T, D): one head, one sentence pair."""
    case = x, source, real, w_q, w_k, w_v = _pair(3, [1, 1, 1, 1, 0], C=6, D=4)
    got = as_tensor(attempt(answer, *case))
    expect(got.shape != (5, 4), "the result has a row for each source token: queries come from x, "
           "and there is one result for each query")
    expect(got.shape == (3, 4), f"the result has shape {tuple(got.shape)}, expected (T, D)")

    def variant(queries=x, keys=source, values=source, mask=real, root=2.0, dim=-1):
        scores = (queries @ w_q) @ (keys @ w_k).T / root
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim) @ (values @ w_v)

    expect(not got.isnan().any(), "the result is nan: a row of scores, or a column, is -inf as a "
           "whole; the softmax goes over the source, the last dimension")
    expect(not close(got, variant(keys=x, values=x, mask=None)), "keys and values come from x: "
           "that is self-attention; here they come from the source")
    expect(not close(got, variant(mask=None)), "the mask is missing: the last source token is "
           "padding")
    expect(not close(got, variant(mask=~real)), "the mask is inverted: `real` is True where to "
           "look")
    expect(not close(got, variant(root=1.0)), "the scores are not divided by the root of D")
    expect(not close(got, variant(root=4.0)), "you divided by D: divide by its root")
    expect(not close(got, variant(root=math.sqrt(6))), "you divided by the root of C = 6: the "
           "scores are sums over the D = 4 features of a head")
    expect(not close(got, variant(mask=None, dim=0)), "the softmax goes over the queries: each "
           "query spreads its attention over the source, the last dimension")
    past = torch.ones(3, 5, dtype=torch.bool).tril()
    expect(not close(got, variant(mask=real & past)), "you added a causal mask: the source is "
           "known as a whole, every target position may see all of it")
    _expect_the_padding_to_be_cut_in_the_scores(got, case)
    first = _cross_attention(*case)[0].tolist()
    expect(close(got, _cross_attention(*case), 1e-4), f"the first row should be "
           f"{[round(value, 3) for value in first]}; yours is "
           f"{[round(value, 3) for value in got[0].tolist()]}")
    expect_agreement(answer, _cross_attention, [
        _pair(2, [1, 1, 1], C=4, D=9), _pair(4, [1, 1, 0, 0], C=3, D=2), _pair(1, [1], C=2, D=1),
        _pair(2, [0, 1, 1], C=4, D=9)], 1e-4)


def _expect_the_padding_to_be_cut_in_the_scores(got: torch.Tensor, case: tuple) -> None:
    x, source, real, w_q, w_k, w_v = case
    scores, values = (x @ w_q) @ (source @ w_k).T / 2, source @ w_v
    expect(not close(got, (scores * real).softmax(-1) @ values), "you set the scores of padding "
           "to 0, and exp(0) is 1: only -inf gives the weight 0")
    expect(not close(got, (scores.softmax(-1) * real) @ values), "you took the weights of padding "
           "away after the softmax: the others no longer add up to 1; mask the scores before it")


def _pair(T: int, real: list[int], C: int, D: int) -> tuple[torch.Tensor, ...]:
    """x, source, real and the three matrices of one case."""
    generator = torch.Generator().manual_seed(4)
    shapes = (T, C), (len(real), C), (C, D), (C, D), (C, D)
    x, source, *matrices = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, source, torch.tensor(real).bool(), *matrices


def _cross_attention(x: torch.Tensor, source: torch.Tensor, real: torch.Tensor, w_q: torch.Tensor,
                     w_k: torch.Tensor, w_v: torch.Tensor) -> torch.Tensor:
    scores = (x @ w_q) @ (source @ w_k).T / math.sqrt(w_q.shape[1])
    return scores.masked_fill(~real, -torch.inf).softmax(-1) @ (source @ w_v)


@exercise
def check_em_step(answer: Any) -> None:
    """`em_step(t, pairs)` -> the next t (F, E), t[f, e] = P(e | f); one step of IBM model 1."""
    t = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.25, 0.25, 0.5]]).double()
    pairs = [([0, 1], [0, 1]), ([0, 2], [2, 0]), ([1], [1])]
    got = as_tensor(attempt(answer, t, pairs))
    expect(got.shape == (3, 3), f"the table has shape {tuple(got.shape)}, expected (F, E)")
    expect(not got.isnan().any(), "a row is nan: 0 / 0; every row with a count can be divided")
    soft, rows = _counts(t, pairs), torch.ones(3).double()
    expect(not close(got, soft), "these are the expected counts: divide each row by its sum")
    expect(not close(got.sum(0), rows) or close(got.sum(1), rows), "your columns sum to 1: "
           "P(f | e); row f holds P(e | f)")
    for name, message in (
            ("pairs", "every pair counts fully: an English word is one word, so its shares over "
             "the Chinese words of its sentence must sum to 1"),
            ("other", "you share out each Chinese word over the English ones: the model says that "
             "every English word has one Chinese word behind it, so the shares over f sum to 1"),
            ("even", "every word of the sentence gets the same share: use t, or nothing is learnt"),
            ("hard", "each English word goes to its best Chinese word as a whole: that is hard "
             "EM; the expectation keeps the shares")):
        expect(not close(got, _rows(_counts(t, pairs, name), t)), message)
    right = _em_step(t, pairs)
    expect(not close(got, t), "the table has not changed")
    expect(close(got, right), f"row 0 should be {[round(v, 3) for v in right[0].tolist()]}; yours "
           f"is {[round(v, 3) for v in got[0].tolist()]}")
    _expect_unseen_rows_kept(answer, torch.cat((t, t[:1])), pairs)
    wide = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]).double()
    for f, e in (([0, 1], [2, 3, 2]), ([0, 0, 1], [1, 2])):
        got, word = attempt(answer, wide, [(f, e)]), "Chinese" if len(f) == 3 else "English"
        expect(close(got, _em_step(wide, [(f, e)])), f"right until a sentence has the same "
               f"{word} word twice, as in {(f, e)}: both count; with repeated indices `+=` keeps "
               "one of them (a loop or index_add_ keeps both), and so does a set or a dict")
    expect_agreement(answer, _em_step, [
        (wide, [([1], [0, 3]), ([1, 0], [3])]), (torch.ones(1, 1), [([0], [0])]), (wide, []),
        (torch.full((5, 2), 0.5), [([4, 0, 4], [1, 1]), ([2], [0])])])


def _expect_unseen_rows_kept(answer: Any, t: torch.Tensor, pairs: list) -> None:
    """The last word of t is in none of the pairs."""
    last = as_tensor(attempt(answer, t, pairs))[-1]
    case = "the row of a Chinese word that is in none of the pairs"
    expect(not last.isnan().any(), f"{case} is nan: leave it as it was")
    expect(not close(last, torch.zeros(3)), f"{case} became zero: leave it as it was")
    expect(close(last, t[-1]), f"{case} has changed: leave it as it was")


def _counts(t: torch.Tensor, pairs: list, kind: str = "soft") -> torch.Tensor:
    """Expected counts (F, E), right ("soft") or as one of the usual mistakes counts them."""
    counts = torch.zeros_like(t)
    for f, e in pairs:
        part = t[f][:, e]  # (words of one sentence, words of the other)
        share = {"soft": part / part.sum(0), "pairs": part,
                 "other": part / part.sum(1, keepdim=True),
                 "even": torch.full_like(part, 1 / len(f)),
                 "hard": (part == part.amax(0)).double()}[kind]
        for i, row in zip(f, share):
            for j, value in zip(e, row):
                counts[i, j] += value
    return counts


def _rows(counts: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Counts to probabilities; rows without a count stay as they are in t."""
    totals = counts.sum(1, keepdim=True)
    return torch.where(totals > 0, counts / totals.clamp(min=1e-12), t)


def _em_step(t: torch.Tensor, pairs: list) -> torch.Tensor:
    return _rows(_counts(t, pairs), t)


@exercise
def check_warm_start(answer: Any) -> None:
    """`warm_start(decoder, gpt)` -> a decoder that begins as the GPT and can learn the source."""
    _expect_warm(answer, GPTConfig(7, context_length=6, n_layer=2, n_head=2, n_embd=8), T=4, S=5)
    _expect_warm(answer, GPTConfig(5, context_length=3, n_layer=3, n_head=1, n_embd=6), T=3, S=1)


def _expect_warm(answer: Any, config: GPTConfig, T: int, S: int) -> None:
    decoder, gpt = Decoder(config), GPT(config)
    for parameter in [*decoder.parameters(), *gpt.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)
    before = copy.deepcopy(gpt.state_dict())
    result = attempt(answer, decoder, gpt)
    expect(isinstance(result, Decoder), f"expected the decoder, got {type(result).__name__}")
    same = all(torch.equal(value, before[name]) for name, value in gpt.state_dict().items())
    expect(same, "you changed the GPT")
    ids = torch.randint(config.vocab_size, (2, T))
    source = torch.randn(2, S, config.n_embd)
    if not close(result(ids, source), gpt(ids), 1e-4):
        _expect_a_reason(result, before)
    outputs = [block.cross_attention for block in result.blocks]
    expect(any(p.requires_grad for attention in outputs for p in attention.parameters()),
           "the cross-attention is frozen: it must be able to learn")
    result(ids, source).square().sum().backward()
    # The bias of the output moves in any case; what it adds does not depend on the source.
    learning = [any(p.grad is not None and p.grad.abs().sum() > 0
                    for name, p in attention.named_parameters() if name != "output.bias")
                for attention in outputs]
    expect(all(learning), "no gradient reaches what reads the source: zero one factor alone, the "
           "output; if the values are zero as well, the product stays zero for ever")


def _expect_a_reason(result: Decoder, gpt: dict[str, torch.Tensor]) -> None:
    """Say why the decoder gives other logits than the GPT with these weights."""
    kept = {name: value for name, value in result.state_dict().items() if "cross" not in name}
    copied = all(torch.equal(value, gpt[name]) for name, value in kept.items())
    expect(copied, "the GPT's weights are not in the decoder: load_state_dict with strict=False, "
           "or copy every entry that both have")
    biases = [block.cross_attention.output.bias for block in result.blocks]
    weights = [block.cross_attention.output.weight for block in result.blocks]
    expect(not (all((w == 0).all() for w in weights) and any((b != 0).any() for b in biases)),
           "the bias of the cross-attention's output still adds to the stream: zero it, too")
    zero = [bool((w == 0).all()) for w in weights]
    expect(not any(zero) or all(zero), "some blocks still add what they read from the source: "
           "zero the output of the cross-attention in every block")
    expect(False, "the decoder gives other logits than the GPT: what its cross-attention adds to "
           "the stream must be 0 at the start")
