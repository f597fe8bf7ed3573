"""Checks of chapter 5.2, the decoder."""

import copy
import math

import torch

from gptlib.checks import attempt, close, exercise, expect
from gptlib.model.config import GPTConfig
from gptlib.model.encoder_decoder import Decoder
from gptlib.model.gpt import GPT

IGNORED = -100


@exercise
def check_decoder_batch(decoder_batch) -> None:
    """`decoder_batch(sentences, start, end)` -> inputs and targets, (B, T) int64 each.

    Inputs begin with `start` and are padded with `end`; targets close with `end` and are padded
    with -100.
    """
    result = attempt(decoder_batch, [[5, 6, 7], [8]], 1, 2)
    expect(isinstance(result, tuple) and len(result) == 2
           and all(isinstance(part, torch.Tensor) for part in result),
           "expected two tensors: return inputs, targets")
    inputs, targets = result
    expect(inputs.dtype == targets.dtype == torch.int64, "token ids are int64 tensors")
    shapes = tuple(inputs.shape), tuple(targets.shape)
    expect(inputs.shape == targets.shape, f"the shapes {shapes[0]} and {shapes[1]} differ: every "
           "input position has one target")
    expect(inputs.shape[1] != 3, "T is 3 for a longest sentence of 3 tokens: there is no room for "
           "`start` in the inputs and `end` in the targets")
    expect(inputs.shape[1] != 5, "T is 5: the inputs need no `end` and the targets no `start`")
    expect(inputs.shape == (2, 4), f"the shapes are {shapes[0]}, expected (2, 4)")
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
    expect(inputs[1].tolist() == [1, 8, 2, 2] and targets[1].tolist() == [8, 2, IGNORED, IGNORED],
           f"the second rows should be [1, 8, 2, 2] and [8, 2, -100, -100]; yours are "
           f"{inputs[1].tolist()} and {targets[1].tolist()}")


@exercise
def check_cross_attention(cross_attention) -> None:
    """`cross_attention(x, source, real, w_q, w_k, w_v)` -> (T, D): one head, one sentence pair."""
    generator = torch.Generator().manual_seed(4)
    x, source = (torch.randn(n, 6, generator=generator) for n in (3, 5))
    w_q, w_k, w_v = (torch.randn(6, 4, generator=generator) for _ in range(3))
    real = torch.tensor([True, True, True, True, False])
    got = attempt(cross_attention, x, source, real, w_q, w_k, w_v)
    expect(isinstance(got, torch.Tensor), f"expected a tensor, got {type(got).__name__}")
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
    expect(not close(got, variant(root=math.sqrt(6))), "you divided by the root of C = 6: the "
           "scores are sums over the D = 4 features of a head")
    expect(not close(got, variant(mask=None, dim=0)), "the softmax goes over the queries: each "
           "query spreads its attention over the source, the last dimension")
    past = torch.ones(3, 5, dtype=torch.bool).tril()
    expect(not close(got, variant(mask=real & past)), "you added a causal mask: the source is "
           "known as a whole, every target position may see all of it")
    first = variant()[0].tolist()
    expect(close(got, variant(), 1e-4), f"the first row should be "
           f"{[round(value, 3) for value in first]}; yours is "
           f"{[round(value, 3) for value in got[0].tolist()]}")


@exercise
def check_em_step(em_step) -> None:
    """`em_step(t, pairs)` -> the next t (F, E), t[f, e] = P(e | f); one step of IBM model 1."""
    t = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.25, 0.25, 0.5]]).double()
    pairs = [([0, 1], [0, 1]), ([0, 2], [2, 0]), ([1], [1])]
    got = attempt(em_step, t, pairs)
    expect(isinstance(got, torch.Tensor), f"expected a tensor, got {type(got).__name__}")
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
        expect(not close(got, _rows(_counts(t, pairs, name))), message)
    right = _rows(soft)
    expect(not close(got, t), "the table has not changed")
    expect(close(got, right), f"row 0 should be {[round(v, 3) for v in right[0].tolist()]}; yours "
           f"is {[round(v, 3) for v in got[0].tolist()]}")
    rest = attempt(em_step, torch.cat((t, t[:1])), pairs)
    expect(not torch.as_tensor(rest).isnan().any(), "the row of a Chinese word that is in none of "
           "the pairs is nan: leave it as it was")


@exercise
def check_warm_start(warm_start) -> None:
    """`warm_start(decoder, gpt)` -> a decoder that begins as the GPT and can learn the source."""
    torch.manual_seed(0)
    config = GPTConfig(7, context_length=6, n_layer=2, n_head=2, n_embd=8)
    decoder, gpt = Decoder(config), GPT(config)
    for parameter in [*decoder.parameters(), *gpt.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)
    before = copy.deepcopy(gpt.state_dict())
    result = attempt(warm_start, decoder, gpt)
    expect(isinstance(result, Decoder), f"expected the decoder, got {type(result).__name__}")
    same = all(torch.equal(value, before[name]) for name, value in gpt.state_dict().items())
    expect(same, "you changed the GPT")
    ids, source = torch.tensor([[1, 2, 3, 4]]), torch.randn(1, 5, 8)
    logits, goal = result(ids, source), gpt(ids)
    kept = {name: value for name, value in result.state_dict().items() if "cross" not in name}
    copied = all(torch.equal(value, before[name]) for name, value in kept.items())
    expect(copied, "the GPT's weights are not in the decoder: load_state_dict with strict=False, "
           "or copy every entry that both have")
    biases = [block.cross_attention.output.bias for block in result.blocks]
    weights = [block.cross_attention.output.weight for block in result.blocks]
    expect(not (all((w == 0).all() for w in weights) and any((b != 0).any() for b in biases)),
           "the bias of the cross-attention's output still adds to the stream: zero it, too")
    expect(close(logits, goal, 1e-4), "the decoder gives other logits than the GPT: what its "
           "cross-attention adds to the stream must be 0 at the start")
    learning = all(p.requires_grad for p in result.parameters())
    expect(learning, "some parameters are frozen: the cross-attention must be able to learn")
    logits.square().sum().backward()
    first = result.blocks[0].cross_attention
    gradients = [parameter.grad for parameter in (first.output.weight, first.output.bias)]
    expect(gradients[0] is not None and gradients[0].abs().sum() > 0,
           "no gradient reaches the cross-attention's output: zero the output alone; if the values "
           "are zero as well, the product stays zero for ever")


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


def _rows(counts: torch.Tensor) -> torch.Tensor:
    return counts / counts.sum(1, keepdim=True)
