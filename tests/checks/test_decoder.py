import pytest
import torch

from gptlib.checks import decoder as checks


def decoder_batch(sentences, start, end):
    T = max(map(len, sentences)) + 1
    inputs = torch.full((len(sentences), T), end)
    targets = torch.full((len(sentences), T), -100)
    for row, sentence in enumerate(sentences):
        inputs[row, :len(sentence) + 1] = torch.tensor([start, *sentence])
        targets[row, :len(sentence) + 1] = torch.tensor([*sentence, end])
    return inputs, targets


def edited(inputs=lambda x: x, targets=lambda y: y):
    def wrong(sentences, start, end):
        x, y = decoder_batch(sentences, start, end)
        return inputs(x), targets(y)
    return wrong


def cross_attention(x, source, real, w_q, w_k, w_v):
    scores = (x @ w_q) @ (source @ w_k).T / w_q.shape[1] ** 0.5
    return scores.masked_fill(~real, -torch.inf).softmax(-1) @ (source @ w_v)


def em_step(t, pairs):
    counts = torch.zeros_like(t)
    for f, e in pairs:
        for j in e:
            total = sum(t[i, j] for i in f)
            for i in f:
                counts[i, j] += t[i, j] / total
    totals = counts.sum(1, keepdim=True)
    return torch.where(totals > 0, counts / totals.clamp(min=1e-12), t)


def em_counts(t, pairs, share):
    counts = torch.zeros_like(t)
    for f, e in pairs:
        for j in e:
            for i in f:
                counts[i, j] += share(t, i, j, f, e)
    return counts


def with_share(share):
    def wrong(t, pairs):
        counts = em_counts(t, pairs, share)
        return counts / counts.sum(1, keepdim=True)
    return wrong


def right_share(t, i, j, f, e):
    return t[i, j] / sum(t[k, j] for k in f)


def warm_start(decoder, gpt):
    decoder.load_state_dict(gpt.state_dict(), strict=False)
    with torch.no_grad():
        for block in decoder.blocks:
            block.cross_attention.output.weight.zero_()
            block.cross_attention.output.bias.zero_()
    return decoder


def without_bias(decoder, gpt):
    biases = [block.cross_attention.output.bias.clone() for block in decoder.blocks]
    warm_start(decoder, gpt)
    with torch.no_grad():
        for block, bias in zip(decoder.blocks, biases):
            block.cross_attention.output.bias.copy_(bias)
    return decoder


def all_zero(decoder, gpt):
    warm_start(decoder, gpt)
    with torch.no_grad():
        for block in decoder.blocks:
            for parameter in block.cross_attention.parameters():
                parameter.zero_()
    return decoder


def frozen(decoder, gpt):
    return warm_start(decoder, gpt).requires_grad_(False)


def only_zeroed(decoder, gpt):
    state = {k: v.clone() for k, v in decoder.state_dict().items() if "cross" not in k}
    warm_start(decoder, gpt)
    decoder.load_state_dict(state, strict=False)
    return decoder


def only_copied(decoder, gpt):
    decoder.load_state_dict(gpt.state_dict(), strict=False)
    return decoder


def shared(decoder, gpt):
    result = warm_start(decoder, gpt)
    with torch.no_grad():
        gpt.embedding.weight.zero_()
    return result


CASES = [
    ("decoder_batch", edited(targets=lambda y: y.clone().fill_(2)), "[5, 6, 7, 2]"),
    ("decoder_batch", lambda s, a, b: (decoder_batch(s, a, b)[0],) * 2, "are the same"),
    ("decoder_batch", edited(lambda x: x[:, 1:], lambda y: y[:, :-1]), "no room"),
    ("decoder_batch", edited(lambda x: x[:, 1:]), "differ"),
    ("decoder_batch", edited(lambda x: torch.cat((x, x[:, :1]), 1),
                             lambda y: torch.cat((y[:, :1], y), 1)), "T is 5"),
    ("decoder_batch", edited(lambda x: x.roll(-1, 1)), "lack `start`"),
    ("decoder_batch", edited(lambda x: x.flip(0)), "should be start and the sentence"),
    ("decoder_batch", edited(targets=lambda y: y.masked_fill(y == 2, 9)), "lack `end`"),
    ("decoder_batch", edited(targets=lambda y: y.masked_fill(y < 0, 2)), "padded with `end`"),
    ("decoder_batch", edited(targets=lambda y: y.masked_fill(y < 0, 0)), "second rows"),
    ("decoder_batch", edited(lambda x: x.float()), "int64"),
    ("decoder_batch", lambda s, a, b: decoder_batch(s, a, b)[0], "two tensors"),
    ("decoder_batch", edited(lambda x: x.repeat(2, 1), lambda y: y.repeat(2, 1)),
     "expected (2, 4)"),
    ("cross_attention", lambda x, s, r, *w: cross_attention(x, x, r[:3], *w), "self-attention"),
    ("cross_attention", lambda x, s, r, *w: cross_attention(s, x, r[:3], *w),
     "queries come from x"),
    ("cross_attention", lambda x, s, r, *w: cross_attention(x, s, r | True, *w), "mask is missing"),
    ("cross_attention", lambda x, s, r, *w: cross_attention(x, s, ~r, *w), "inverted"),
    ("cross_attention", lambda x, s, r, q, k, v: cross_attention(x, s, r, 2 * q, k, v),
     "not divided by the root"),
    ("cross_attention", lambda x, s, r, q, k, v: cross_attention(x, s, r, q * (4 / 6) ** 0.5, k, v),
     "root of C"),
    ("cross_attention", lambda x, s, r, q, k, v:
     ((x @ q) @ (s @ k).T / 2).softmax(0) @ (s @ v), "over the queries"),
    ("cross_attention", lambda x, s, r, q, k, v: ((x @ q) @ (s @ k).T / 2).masked_fill(
        ~r, -torch.inf).softmax(0) @ (s @ v), "is nan"),
    ("cross_attention", lambda x, s, r, *w: cross_attention(
        x, s, r & torch.ones(3, 5, dtype=torch.bool).tril(), *w), "causal mask"),
    ("cross_attention", lambda x, s, r, *w: cross_attention(x, s, r, *w) * 2, "first row should"),
    ("cross_attention", lambda x, s, r, *w: cross_attention(x, s, r, *w)[:, :2], "expected (T, D)"),
    ("cross_attention", lambda *a: cross_attention(*a).tolist(), "got list"),
    ("em_step", lambda t, p: em_counts(t, p, right_share), "expected counts"),
    ("em_step", lambda t, p: em_counts(t, p, right_share) / em_counts(t, p, right_share).sum(0),
     "P(f | e)"),
    ("em_step", with_share(lambda t, i, j, f, e: t[i, j]), "counts fully"),
    ("em_step", with_share(lambda t, i, j, f, e: t[i, j] / sum(t[i, k] for k in e)),
     "share out each Chinese word"),
    ("em_step", with_share(lambda t, i, j, f, e: 1 / len(f)), "the same share"),
    ("em_step", with_share(lambda t, i, j, f, e: float(t[i, j] == max(t[k, j] for k in f))),
     "hard EM"),
    ("em_step", with_share(right_share), "leave it as it was"),
    ("em_step", lambda t, p: t, "has not changed"),
    ("em_step", lambda t, p: t * torch.nan, "0 / 0"),
    ("em_step", lambda t, p: t.softmax(1), "row 0 should be"),
    ("em_step", lambda t, p: t[:2], "has shape (2, 3)"),
    ("em_step", lambda t, p: t.tolist(), "got list"),
    ("warm_start", without_bias, "the bias"),
    ("warm_start", all_zero, "no gradient"),
    ("warm_start", frozen, "frozen"),
    ("warm_start", only_zeroed, "are not in the decoder"),
    ("warm_start", only_copied, "must be 0 at the start"),
    ("warm_start", shared, "you changed the GPT"),
    ("warm_start", lambda d, g: g, "got GPT"),
]
NAMES = ["decoder_batch", "cross_attention", "em_step", "warm_start"]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"
