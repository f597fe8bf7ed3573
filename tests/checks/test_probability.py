import math

import pytest
import torch

from gptlib.checks import probability as checks


def table(ids, vocab_size):
    counts = torch.zeros(vocab_size, vocab_size)
    for previous, token in zip(ids[:-1].tolist(), ids[1:].tolist()):
        counts[previous, token] += 1
    return counts


def conditional_table(ids, vocab_size):
    counts = table(ids, vocab_size)
    totals = counts.sum(1, keepdim=True)
    return torch.where(totals > 0, counts / totals.clamp(min=1), 1 / vocab_size)


def draw(p, u):
    return min(searched(p, u), p.nonzero().max().item())


def searched(p, u):
    return torch.searchsorted(p.cumsum(0), u, right=True).item()


def log_probability(model, ids):
    logs = model(ids[None, :-1])[0].log_softmax(-1)
    return logs.gather(1, ids[1:, None]).sum().item()


def own_position(model, ids):
    return model(ids[None])[0].log_softmax(-1).gather(1, ids[:, None]).sum().item()


def multiplied(model, ids):
    return model(ids[None, :-1])[0].softmax(-1).gather(1, ids[1:, None]).prod().log().item()


def raw_logits(model, ids):
    return model(ids[None, :-1])[0].gather(1, ids[1:, None]).sum().item()


def perplexity(p):
    return (-p.log().mean()).exp().item()


def mean_step(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()


def draws_to_tell(p, q, odds):
    step = mean_step(p, q)
    return math.log(odds) / step if step > 0 else math.inf


def way_over(step):
    """A wrong answer: log(odds) over another step than the right one."""
    return lambda p, q, odds: math.log(odds) / step(p, q)


def entropy(p):
    return -torch.xlogy(p, p).sum()


CASES = [
    ("conditional_table", table, "these are counts"),
    ("conditional_table", lambda i, v: conditional_table(i, v).T, "P(previous | next)"),
    ("conditional_table", lambda i, v: conditional_table(i.flip(0), v), "row 0 should be"),
    ("conditional_table", lambda i, v: table(i, v) / table(i, v).sum(), "the joint probability"),
    ("conditional_table",
     lambda i, v: table(i, v) / torch.bincount(i, minlength=v).clamp(min=1)[:, None],
     "only three followers"),
    ("conditional_table", lambda i, v: table(i, v) / table(i, v).sum(1, keepdim=True), "is nan"),
    ("conditional_table",
     lambda i, v: table(i, v) / table(i, v).sum(1, keepdim=True).clamp(min=1), "be uniform"),
    ("conditional_table", lambda i, v: torch.zeros(3, 3), "has shape (3, 3)"),
    ("conditional_table", lambda i, v: [[0.5]], "expected a tensor, got list"),
    ("draw", lambda p, u: p.argmax().item(), "the likeliest"),
    ("draw", lambda p, u: draw(p, u) - 1, "one token too early"),
    ("draw", lambda p, u: max(0, int((p.cumsum(0) <= u).nonzero().max())), "one token too early"),
    ("draw", lambda p, u: 3, "u has no effect"),
    ("draw", lambda p, u: int(u * 5), "yours are"),
    ("draw", lambda p, u: torch.searchsorted(p.cumsum(0), u).item(), "u = 0 gives token 0"),
    ("draw", lambda p, u: draw(p, u if u == 0 else u - 1e-9), "u = 0.5 belongs to token 2"),
    ("draw", searched, "rounding may leave the running sum"),
    ("draw", lambda p, u: min(searched(p, u), len(p) - 1), "rounding may leave the running sum"),
    ("draw", lambda p, u: p, "expected one number"),
    ("log_probability", own_position, "at its own position"),
    ("log_probability", raw_logits, "raw logits"),
    ("log_probability", lambda m, i: torch.tensor(log_probability(m, i)).exp(), "itself"),
    ("log_probability", lambda m, i: log_probability(m, i) / (len(i) - 1), "the mean"),
    ("log_probability", lambda m, i: -log_probability(m, i), "the sign"),
    ("log_probability", lambda m, i: log_probability(m, i) / 0.6931472, "these are bits"),
    ("log_probability", multiplied, "you multiply first"),
    ("log_probability", lambda m, i: 1.0, "yours is 1.0000"),
    ("perplexity", lambda p: (1 / p).mean(), "averaged 1/p"),
    ("perplexity", lambda p: 1 / p.mean(), "inverted the mean"),
    ("perplexity", lambda p: 1 / p.prod(), "the T-th root"),
    ("perplexity", lambda p: 2 ** -p.log().mean(), "two bases"),
    ("perplexity", lambda p: p.log().mean().exp(), "the sign"),
    ("perplexity", lambda p: -p.log().mean(), "mean loss"),
    ("perplexity", lambda p: -p.log2().mean(), "mean loss"),
    ("perplexity", lambda p: p.prod() ** (-1 / len(p)), "underflows"),
    ("perplexity", lambda p: 3.0, "yours is 3.000"),
    ("draws_to_tell", lambda p, q, odds: odds / mean_step(p, q), "not to odds"),
    ("draws_to_tell", way_over(lambda p, q: mean_step(q, p)), "you averaged over q"),
    ("draws_to_tell", way_over(lambda p, q: -mean_step(q, p)), "your steps count with q(x)"),
    ("draws_to_tell", way_over(lambda p, q: (p / q).log().mean()), "over the vocabulary"),
    ("draws_to_tell", way_over(lambda p, q: (p * (p / q).log().abs()).sum()), "dropped the sign"),
    ("draws_to_tell", way_over(lambda p, q: (p * p / q).sum().log()), "of the mean ratio"),
    ("draws_to_tell", way_over(lambda p, q: entropy(q) - entropy(p)), "two entropies"),
    ("draws_to_tell", lambda p, q, odds: math.log2(odds) / mean_step(p, q), "two bases"),
    ("draws_to_tell", lambda p, q, odds: math.log10(odds) / mean_step(p, q), "yours is"),
    ("draws_to_tell", lambda p, q, odds: mean_step(p, q) / math.log(odds), "upside down"),
    ("draws_to_tell", way_over(lambda p, q: -mean_step(p, q)), "draws from p speak for p"),
    ("draws_to_tell", lambda p, q, odds: math.ceil(draws_to_tell(p, q, odds)), "do not round"),
    ("draws_to_tell", lambda p, q, odds: 30.0, "yours is 30.00"),
    ("draws_to_tell", way_over(lambda p, q: (p * (p / q).log()).sum()), "makes your answer nan"),
    ("draws_to_tell", way_over(lambda p, q: (p * ((p + 1e-3) / q).log()).sum()), "yours is"),
    ("draws_to_tell", lambda p, q, odds: math.log(odds) / (p * (p / q).log()).nansum().item(),
     "never told apart"),
]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("name", ["conditional_table", "draw", "draws_to_tell", "log_probability",
                                  "perplexity"])
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"
