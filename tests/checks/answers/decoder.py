"""Answers to the exercises of chapter 5.2: right ones written otherwise, and wrong ones."""

import copy

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence


def decoder_batch(sentences, start, end):
    T = max(map(len, sentences)) + 1
    inputs = torch.full((len(sentences), T), end)
    targets = torch.full((len(sentences), T), -100)
    for row, sentence in enumerate(sentences):
        inputs[row, :len(sentence) + 1] = torch.tensor([start, *sentence])
        targets[row, :len(sentence) + 1] = torch.tensor([*sentence, end])
    return inputs, targets


def batch_by_pad_sequence(sentences, start, end):
    inputs = [torch.tensor([start] + sentence) for sentence in sentences]
    targets = [torch.tensor(sentence + [end]) for sentence in sentences]
    return [pad_sequence(inputs, batch_first=True, padding_value=end),
            pad_sequence(targets, batch_first=True, padding_value=-100)]


def batch_in_numpy(sentences, start, end):
    shape = len(sentences), max(map(len, sentences)) + 1
    inputs, targets = np.full(shape, end), np.full(shape, -100)
    inputs[:, 0] = start
    for i, sentence in enumerate(sentences):
        for t, token in enumerate(sentence):
            inputs[i, t + 1] = targets[i, t] = token
        targets[i, len(sentence)] = end
    return inputs, targets


def edited(inputs=lambda x: x, targets=lambda y: y):
    def wrong(sentences, start, end):
        x, y = decoder_batch(sentences, start, end)
        return inputs(x), targets(y)
    return wrong


def padding_by_id(sentences, start, end):
    inputs = decoder_batch(sentences, start, end)[0]
    targets = inputs.roll(-1, 1)
    targets[:, -1] = end
    targets[inputs == end] = -100
    return inputs, targets


def ends_the_longest_alone(sentences, start, end):
    inputs, targets = decoder_batch(sentences, start, end)
    targets[:, :-1][targets[:, :-1] == end] = -100
    return inputs, targets


def cross_attention(x, source, real, w_q, w_k, w_v):
    scores = (x @ w_q) @ (source @ w_k).T / w_q.shape[1] ** 0.5
    return scores.masked_fill(~real, -torch.inf).softmax(-1) @ (source @ w_v)


def cross_by_loops(x, source, real, w_q, w_k, w_v):
    """One query after the other, over the real tokens alone; a list of lists."""
    keys, values = source[real] @ w_k, source[real] @ w_v
    rows = []
    for query in x @ w_q:
        exponentials = torch.exp(keys @ query / query.numel() ** 0.5)
        rows.append((exponentials @ values / exponentials.sum()).tolist())
    return rows


def cross_by_einsum(x, source, real, w_q, w_k, w_v):
    scores = torch.einsum("tc,cd,ed,se->ts", x, w_q, w_k, source) / w_k.shape[-1] ** 0.5
    scores = scores + torch.where(real, 0.0, -1e9)
    return torch.softmax(scores, dim=1).matmul(source).matmul(w_v).double()


def cross_by_library(x, source, real, w_q, w_k, w_v):
    return torch.nn.functional.scaled_dot_product_attention(
        x @ w_q, source @ w_k, source @ w_v, attn_mask=real[None].expand(len(x), -1))


def hand_made_scores(change):
    def wrong(x, source, real, w_q, w_k, w_v):
        scores = (x @ w_q) @ (source @ w_k).T / w_q.shape[1] ** 0.5
        return change(scores, real) @ (source @ w_v)
    return wrong


def padding_by_count(x, source, real, w_q, w_k, w_v):
    n = int(real.sum())
    return cross_attention(x, source[:n], real[:n] | True, w_q, w_k, w_v)


def em_counts(t, pairs, share):
    counts = torch.zeros_like(t)
    for f, e in pairs:
        for j in e:
            for i in f:
                counts[i, j] += share(t, i, j, f, e)
    return counts


def rows(counts, t):
    totals = counts.sum(1, keepdim=True)
    return torch.where(totals > 0, counts / totals.clamp(min=1e-12), t)


def with_share(share):
    return lambda t, pairs: rows(em_counts(t, pairs, share), t)


def right_share(t, i, j, f, e):
    return t[i, j] / sum(t[k, j] for k in f)


def em_by_dicts(t, pairs):
    """Counts in dicts and rows in lists, as the chapter's loops do it."""
    counts, totals = {}, {}
    for f, e in pairs:
        for j in e:
            norm = sum(t[i, j].item() for i in f)
            for i in f:
                share = t[i, j].item() / norm
                counts[i, j] = counts.get((i, j), 0) + share
                totals[i] = totals.get(i, 0) + share
    return [[counts.get((i, j), 0) / totals[i] if i in totals else t[i, j].item()
             for j in range(t.shape[1])] for i in range(t.shape[0])]


def em_by_matrices(t, pairs):
    """One-hot matrices add up what belongs to the same word."""
    counts = torch.zeros_like(t)
    for f, e in pairs:
        F, E = torch.eye(t.shape[0], dtype=t.dtype)[f], torch.eye(t.shape[1], dtype=t.dtype)[e]
        part = F @ t @ E.T
        counts += F.T @ (part / part.sum(0)) @ E
    new = t.clone()
    seen = counts.sum(1) > 0
    new[seen] = counts[seen] / counts[seen].sum(1, keepdim=True)
    return new


def em_that_overwrites(t, pairs):
    counts = torch.zeros_like(t)
    for f, e in pairs:
        part = t[f][:, e]
        counts[torch.tensor(f)[:, None], torch.tensor(e)] += part / part.sum(0)
    return rows(counts, t)


def without_rows(value):
    def wrong(t, pairs):
        counts = em_counts(t, pairs, right_share)
        new = counts / counts.sum(1, keepdim=True)
        return new if value is None else new.nan_to_num(value)
    return wrong


def warm_start(decoder, gpt):
    decoder.load_state_dict(gpt.state_dict(), strict=False)
    with torch.no_grad():
        for block in decoder.blocks:
            block.cross_attention.output.weight.zero_()
            block.cross_attention.output.bias.zero_()
    return decoder


def zero_values(decoder, gpt):
    """The values and the output's bias are zero; the output may be anything."""
    decoder.load_state_dict(gpt.state_dict(), strict=False)
    for block in decoder.blocks:
        cross = block.cross_attention
        width = cross.output.weight.shape[0]
        cross.key_value.weight.data[width:] = 0
        cross.key_value.bias.data[width:] = 0
        cross.output.bias.data.zero_()
    return decoder


def copied_entry_by_entry(decoder, gpt):
    result = copy.deepcopy(decoder)
    state = result.state_dict()
    for name, value in gpt.state_dict().items():
        state[name] = value
    result.load_state_dict({name: torch.zeros_like(value) if "cross_attention.output" in name
                            else value for name, value in state.items()})
    return result


def with_a_frozen_gpt(decoder, gpt):
    """Only the cross-attention learns, as in models that keep a language model as it is."""
    for name, parameter in warm_start(decoder, gpt).named_parameters():
        parameter.requires_grad_("cross" in name)
    return decoder


def without_bias(decoder, gpt):
    decoder.load_state_dict(gpt.state_dict(), strict=False)
    for block in decoder.blocks:
        block.cross_attention.output.weight.data.zero_()
    return decoder


def all_zero(decoder, gpt):
    for block in warm_start(decoder, gpt).blocks:
        for parameter in block.cross_attention.parameters():
            parameter.data.zero_()
    return decoder


def frozen(decoder, gpt):
    return warm_start(decoder, gpt).requires_grad_(False)


def frozen_output(decoder, gpt):
    for block in warm_start(decoder, gpt).blocks:
        block.cross_attention.output.weight.requires_grad_(False)
    return decoder


def only_zeroed(decoder, gpt):
    state = {k: v.clone() for k, v in decoder.state_dict().items() if "cross" not in k}
    warm_start(decoder, gpt)
    decoder.load_state_dict(state, strict=False)
    return decoder


def only_copied(decoder, gpt):
    decoder.load_state_dict(gpt.state_dict(), strict=False)
    return decoder


def first_blocks(count):
    def wrong(decoder, gpt):
        decoder.load_state_dict(gpt.state_dict(), strict=False)
        for block in decoder.blocks[:count]:
            for parameter in block.cross_attention.output.parameters():
                parameter.data.zero_()
        return decoder
    return wrong


def shared(decoder, gpt):
    result = warm_start(decoder, gpt)
    with torch.no_grad():
        gpt.embedding.weight.zero_()
    return result


OTHERWISE = [
    ("check_decoder_batch", batch_by_pad_sequence),
    ("check_decoder_batch", batch_in_numpy),
    ("check_decoder_batch", lambda *a: [part.tolist() for part in decoder_batch(*a)]),
    ("check_decoder_batch", lambda *a: torch.stack(decoder_batch(*a))),
    ("check_cross_attention", cross_by_loops),
    ("check_cross_attention", cross_by_einsum),
    ("check_cross_attention", cross_by_library),
    ("check_em_step", em_by_dicts),
    ("check_em_step", em_by_matrices),
    ("check_em_step", with_share(right_share)),
    ("check_warm_start", zero_values),
    ("check_warm_start", copied_entry_by_entry),
    ("check_warm_start", with_a_frozen_gpt),
]

MISTAKES = [
    ("check_decoder_batch", edited(targets=lambda y: y.clone().fill_(2)), "[5, 6, 7, 2]"),
    ("check_decoder_batch", lambda s, a, b: (decoder_batch(s, a, b)[0],) * 2, "are the same"),
    ("check_decoder_batch", edited(lambda x: x[:, 1:], lambda y: y[:, :-1]), "no room"),
    ("check_decoder_batch", edited(lambda x: x[:, 1:]), "differ"),
    ("check_decoder_batch", edited(lambda x: torch.cat((x, x[:, :1]), 1),
                                   lambda y: torch.cat((y[:, :1], y), 1)), "T is 5"),
    ("check_decoder_batch", edited(lambda x: x.roll(-1, 1)), "lack `start`"),
    ("check_decoder_batch", edited(lambda x: x.flip(0)), "should be start and the sentence"),
    ("check_decoder_batch", edited(targets=lambda y: y.masked_fill(y == 2, 9)), "lack `end`"),
    ("check_decoder_batch", edited(targets=lambda y: y.masked_fill(y < 0, 2)), "padded with `end`"),
    ("check_decoder_batch", edited(targets=lambda y: y.masked_fill(y < 0, 0)), "second rows"),
    ("check_decoder_batch", ends_the_longest_alone, "the short sentence never ends"),
    ("check_decoder_batch", edited(lambda x: x.float()), "int64"),
    ("check_decoder_batch", lambda s, a, b: decoder_batch(s, a, b)[0], "two tensors"),
    ("check_decoder_batch", edited(lambda x: x.repeat(2, 1), lambda y: y.repeat(2, 1)),
     "expected (2, 4)"),
    ("check_decoder_batch", padding_by_id, "may be one token"),
    ("check_decoder_batch", lambda s, a, b: decoder_batch([r[:3] for r in s], a, b), "wrong for ("),
    ("check_cross_attention", lambda x, s, r, *w: cross_attention(x, x, r[:3], *w),
     "self-attention"),
    ("check_cross_attention", lambda x, s, r, *w: cross_attention(s, x, r[:3], *w),
     "queries come from x"),
    ("check_cross_attention", lambda x, s, r, *w: cross_attention(x, s, r | True, *w),
     "mask is missing"),
    ("check_cross_attention", lambda x, s, r, *w: cross_attention(x, s, ~r, *w), "inverted"),
    ("check_cross_attention", lambda x, s, r, q, k, v: cross_attention(x, s, r, 2 * q, k, v),
     "not divided by the root"),
    ("check_cross_attention", lambda x, s, r, q, k, v: cross_attention(x, s, r, q / 2, k, v),
     "divided by D"),
    ("check_cross_attention",
     lambda x, s, r, q, k, v: cross_attention(x, s, r, q * (4 / 6) ** 0.5, k, v), "root of C"),
    ("check_cross_attention", lambda x, s, r, q, k, v:
     ((x @ q) @ (s @ k).T / 2).softmax(0) @ (s @ v), "over the queries"),
    ("check_cross_attention", lambda x, s, r, q, k, v: ((x @ q) @ (s @ k).T / 2).masked_fill(
        ~r, -torch.inf).softmax(0) @ (s @ v), "is nan"),
    ("check_cross_attention", lambda x, s, r, *w: cross_attention(
        x, s, r & torch.ones(3, 5, dtype=torch.bool).tril(), *w), "causal mask"),
    ("check_cross_attention", hand_made_scores(lambda z, real: (z * real).softmax(-1)),
     "exp(0) is 1"),
    ("check_cross_attention", hand_made_scores(lambda z, real: z.softmax(-1) * real),
     "after the softmax"),
    ("check_cross_attention", lambda x, s, r, *w: cross_attention(x, s, r, *w) * 2,
     "first row should"),
    ("check_cross_attention", lambda x, s, r, *w: cross_attention(x, s, r, *w)[:, :2],
     "expected (T, D)"),
    ("check_cross_attention", lambda x, s, r, q, k, v: cross_attention(
        x, s, r, q * q.shape[1] ** 0.5 / 2, k, v), "; first at [0, 0]: "),
    ("check_cross_attention", padding_by_count, "wrong for ("),
    ("check_em_step", lambda t, p: em_counts(t, p, right_share), "expected counts"),
    ("check_em_step",
     lambda t, p: em_counts(t, p, right_share) / em_counts(t, p, right_share).sum(0), "P(f | e)"),
    ("check_em_step", with_share(lambda t, i, j, f, e: t[i, j]), "counts fully"),
    ("check_em_step", with_share(lambda t, i, j, f, e: t[i, j] / sum(t[i, k] for k in e)),
     "share out each Chinese word"),
    ("check_em_step", with_share(lambda t, i, j, f, e: 1 / len(f)), "the same share"),
    ("check_em_step",
     with_share(lambda t, i, j, f, e: float(t[i, j] == max(t[k, j] for k in f))), "hard EM"),
    ("check_em_step", without_rows(None), "of the pairs is nan"),
    ("check_em_step", without_rows(0.0), "became zero"),
    ("check_em_step", without_rows(1 / 3), "has changed: leave it"),
    ("check_em_step", em_that_overwrites, "the same English word twice"),
    ("check_em_step", lambda t, p: em_by_matrices(t, [(f, sorted(set(e))) for f, e in p]),
     "the same English word twice"),
    ("check_em_step", lambda t, p: em_by_matrices(t, [(sorted(set(f)), e) for f, e in p]),
     "the same Chinese word twice"),
    ("check_em_step", lambda t, p: em_by_matrices(t, p).clamp(max=0.95), "wrong for ("),
    ("check_em_step", lambda t, p: t, "has not changed"),
    ("check_em_step", lambda t, p: t * torch.nan, "0 / 0"),
    ("check_em_step", lambda t, p: t.softmax(1), "row 0 should be"),
    ("check_em_step", lambda t, p: t[:2], "has shape (2, 3)"),
    ("check_warm_start", without_bias, "the bias"),
    ("check_warm_start", all_zero, "no gradient"),
    ("check_warm_start", frozen_output, "no gradient"),
    ("check_warm_start", frozen, "frozen"),
    ("check_warm_start", only_zeroed, "are not in the decoder"),
    ("check_warm_start", only_copied, "must be 0 at the start"),
    ("check_warm_start", first_blocks(1), "in every block"),
    ("check_warm_start", first_blocks(2), "in every block"),
    ("check_warm_start", shared, "you changed the GPT"),
    ("check_warm_start", lambda d, g: g, "got GPT"),
]
