"""Answers to the exercises of chapter 4.1: right ones written otherwise, and wrong ones."""

import bisect
import itertools
import math

import numpy as np
import torch


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


def pairs_once(ids, vocab_size):
    counts = torch.zeros(vocab_size, vocab_size)
    counts[ids[:-1], ids[1:]] += 1
    return torch.where(counts.sum(1, keepdim=True) > 0, counts / counts.sum(1, keepdim=True),
                       1 / vocab_size)


def table_of_lists(ids, vocab_size):
    rows = [[0] * vocab_size for _ in range(vocab_size)]
    for a, b in itertools.pairwise(ids.tolist()):
        rows[a][b] += 1
    return [[n / sum(row) for n in row] if any(row) else [1 / vocab_size] * vocab_size
            for row in rows]


def draw_by_bisection(p, u):
    shares = p.tolist()
    ends = list(itertools.accumulate(shares))
    last = max(token for token, share in enumerate(shares) if share)
    return np.int64(min(bisect.bisect(ends, u), last))


def token_by_token(model, ids):
    total = 0.0
    for t in range(1, len(ids)):
        total += model(ids[None, :t])[0, -1].log_softmax(-1)[ids[t]]
    return total


def by_cross_entropy(model, ids):
    logits = model(ids.view(1, -1))[0, :-1]
    return -torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum")


def each_token_alone(model, ids):
    return sum(model(ids[None, t - 1:t])[0, -1].log_softmax(-1)[ids[t]].item()
               for t in range(1, len(ids)))


def without_batch(model, ids):
    return model(ids[:-1]).log_softmax(-1).gather(1, ids[1:, None]).sum().item()


def over_positions(model, ids):
    return model(ids[None, :-1])[0].log_softmax(0).gather(1, ids[1:, None]).sum().item()


OTHERWISE = [
    ("check_conditional_table", table_of_lists),
    ("check_conditional_table", lambda i, v: conditional_table(i, v).double().numpy()),
    ("check_draw", draw_by_bisection),
    ("check_draw", lambda p, u: torch.argmax(((p.cumsum(0) > u) & (p > 0)).int())
     if p.sum() > u else p.nonzero()[-1]),
    ("check_log_probability", token_by_token),
    ("check_log_probability", by_cross_entropy),
    ("check_perplexity", lambda p: 2 ** -p.log2().mean()),
    ("check_perplexity", lambda p: math.prod(x ** (-1 / len(p)) for x in p.tolist())),
    ("check_draws_to_tell", lambda p, q, odds: math.inf if torch.equal(p, q) else math.log2(odds)
     / sum(a * math.log2(a / b) for a, b in zip(p.tolist(), q.tolist()) if a)),
    ("check_draws_to_tell", lambda p, q, odds: torch.as_tensor(draws_to_tell(p, q, odds))),
]

MISTAKES = [
    ("check_conditional_table", table, "these are counts"),
    ("check_conditional_table", lambda i, v: conditional_table(i, v).T, "P(previous | next)"),
    ("check_conditional_table", lambda i, v: conditional_table(i.flip(0), v), "row 0 should be"),
    ("check_conditional_table", lambda i, v: table(i, v) / table(i, v).sum(),
     "the joint probability"),
    ("check_conditional_table",
     lambda i, v: table(i, v) / torch.bincount(i, minlength=v).clamp(min=1)[:, None],
     "only three followers"),
    ("check_conditional_table", lambda i, v: table(i, v) / table(i, v).sum(1, keepdim=True),
     "is nan"),
    ("check_conditional_table",
     lambda i, v: table(i, v) / table(i, v).sum(1, keepdim=True).clamp(min=1), "be uniform"),
    ("check_conditional_table", lambda i, v: torch.zeros(3, 3), "has shape (3, 3)"),
    ("check_conditional_table", lambda i, v: [[0.5]], "has shape (1, 1)"),
    ("check_draw", lambda p, u: p.argmax().item(), "the likeliest"),
    ("check_draw", lambda p, u: draw(p, u) - 1, "one token too early"),
    ("check_draw", lambda p, u: max(0, int((p.cumsum(0) <= u).nonzero().max())),
     "one token too early"),
    ("check_draw", lambda p, u: 3, "u has no effect"),
    ("check_draw", lambda p, u: int(u * 5), "yours are"),
    ("check_draw", lambda p, u: torch.searchsorted(p.cumsum(0), u).item(), "u = 0 gives token 0"),
    ("check_draw", lambda p, u: draw(p, u if u == 0 else u - 1e-9), "u = 0.5 belongs to token 2"),
    ("check_draw", searched, "rounding may leave the running sum"),
    ("check_draw", lambda p, u: min(searched(p, u), len(p) - 1),
     "rounding may leave the running sum"),
    ("check_draw", lambda p, u: p, "expected a number"),
    ("check_log_probability", own_position, "at its own position"),
    ("check_log_probability", raw_logits, "raw logits"),
    ("check_log_probability", lambda m, i: torch.tensor(log_probability(m, i)).exp(), "itself"),
    ("check_log_probability", lambda m, i: log_probability(m, i) / (len(i) - 1), "the mean"),
    ("check_log_probability", lambda m, i: -log_probability(m, i), "the sign"),
    ("check_log_probability", lambda m, i: log_probability(m, i) / 0.6931472, "these are bits"),
    ("check_log_probability", multiplied, "you multiply first"),
    ("check_log_probability", lambda m, i: 1.0, "yours is 1.0000"),
    ("check_perplexity", lambda p: (1 / p).mean(), "averaged 1/p"),
    ("check_perplexity", lambda p: 1 / p.mean(), "inverted the mean"),
    ("check_perplexity", lambda p: 1 / p.prod(), "the T-th root"),
    ("check_perplexity", lambda p: 2 ** -p.log().mean(), "two bases"),
    ("check_perplexity", lambda p: p.log().mean().exp(), "the sign"),
    ("check_perplexity", lambda p: -p.log().mean(), "mean loss"),
    ("check_perplexity", lambda p: -p.log2().mean(), "mean loss"),
    ("check_perplexity", lambda p: p.prod() ** (-1 / len(p)), "underflows"),
    ("check_perplexity", lambda p: 3.0, "yours is 3.000"),
    ("check_draws_to_tell", lambda p, q, odds: odds / mean_step(p, q), "not to odds"),
    ("check_draws_to_tell", way_over(lambda p, q: mean_step(q, p)), "you averaged over q"),
    ("check_draws_to_tell", way_over(lambda p, q: -mean_step(q, p)), "your steps count with q(x)"),
    ("check_draws_to_tell", way_over(lambda p, q: (p / q).log().mean()), "over the vocabulary"),
    ("check_draws_to_tell", way_over(lambda p, q: (p * (p / q).log().abs()).sum()),
     "dropped the sign"),
    ("check_draws_to_tell", way_over(lambda p, q: (p * p / q).sum().log()), "of the mean ratio"),
    ("check_draws_to_tell", way_over(lambda p, q: entropy(q) - entropy(p)), "two entropies"),
    ("check_draws_to_tell", lambda p, q, odds: math.log2(odds) / mean_step(p, q), "two bases"),
    ("check_draws_to_tell", lambda p, q, odds: math.log10(odds) / mean_step(p, q), "yours is"),
    ("check_draws_to_tell", lambda p, q, odds: mean_step(p, q) / math.log(odds), "upside down"),
    ("check_draws_to_tell", way_over(lambda p, q: -mean_step(p, q)), "draws from p speak for p"),
    ("check_draws_to_tell", lambda p, q, odds: math.ceil(draws_to_tell(p, q, odds)),
     "do not round"),
    ("check_draws_to_tell", lambda p, q, odds: 30.0, "yours is 30.00"),
    ("check_draws_to_tell", way_over(lambda p, q: (p * (p / q).log()).sum()),
     "makes your answer nan"),
    ("check_draws_to_tell", way_over(lambda p, q: (p * ((p + 1e-3) / q).log()).sum()), "yours is"),
    ("check_draws_to_tell", lambda p, q, odds: math.log(odds) / (p * (p / q).log()).nansum().item(),
     "never told apart"),
    ("check_conditional_table", pairs_once, "counted it once"),
    ("check_conditional_table", lambda i, v: torch.nan_to_num(
        conditional_table(i, v) if i.bincount(minlength=v).bool().sum() > 3 else
        table(i, v) / table(i, v).sum(1, keepdim=True)), "wrong for ([2, 0, 1], 3)"),
    ("check_draw", lambda p, u: draw(p, u) if len(p) > 2 else 1, "wrong for ([1], 0.99)"),
    ("check_draw", lambda p, u: sum(u >= end for end in (0.0, 0.5, 0.7, 0.7)[:len(p) - 1]),
     "rounding may leave"),
    ("check_log_probability", without_batch, "add the dimension with ids[None]"),
    ("check_log_probability", each_token_alone, "read everything that comes before"),
    ("check_log_probability", over_positions, "over the positions"),
    ("check_log_probability", lambda m, i: log_probability(m, i) if len(i) != 2 else 0.0,
     "wrong for (model, [6, 2])"),
    ("check_perplexity", lambda p: [perplexity(p)], "expected a number"),
    ("check_perplexity", lambda p: perplexity(p) if len(p) > 3 else (1 / p).mean(), "wrong for"),
    ("check_draws_to_tell", lambda p, q, odds: math.log(1000) / (torch.xlogy(p, p) - torch.xlogy(
        p, q)).sum() if not torch.equal(p, q) else math.inf, "wrong for ([0.6, 0.4]"),
]
