"""Answers to the exercises of chapter 4.2: right ones written otherwise, and wrong ones."""

import math

import numpy as np
import torch

LN2 = math.log(2)


def entropy(p):
    return -torch.xlogy(p, p).sum().item() / LN2


def entropy_by_a_loop(p):
    return sum(-x * math.log2(x) for x in p.tolist() if x > 0)


def kl(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().item() / LN2


def kl_by_a_loop(p, q):
    bits = 0
    for a, b in zip(p.tolist(), q.tolist()):
        if a > 0:
            bits += a * math.log2(a / b) if b > 0 else math.inf
    return bits


def kl_of_what_happens(p, q):
    return (p[p > 0] * (p[p > 0] / q[p > 0]).log2()).sum()


def clipped(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q.clamp(min=1e-9))).sum().item() / LN2


def bits_per_byte(mean_loss, num_tokens, text):
    return mean_loss * num_tokens / LN2 / len(text.encode())


def by_perplexity(mean_loss, num_tokens, text):
    """The bits of the text's probability, which is the perplexity to the power of -tokens."""
    perplexity = torch.exp(torch.tensor(float(mean_loss), dtype=torch.float64))
    return num_tokens * perplexity.log2() / len(bytes(text, "utf-8"))


def stationary(P, steps=1000, lazy=True, start=None):
    share = torch.full((len(P),), 1 / len(P), dtype=P.dtype) if start is None else start
    for _ in range(steps):
        share = (share + share @ P) / 2 if lazy else share @ P
    return share


def entropy_rate(P):
    return sum(share * entropy(row) for share, row in zip(stationary(P).tolist(), P))


def rate_by_equations(P):
    """share @ (P - 1) = 0, and the shares add up to 1: S + 1 equations, least squares."""
    S = len(P)
    left = np.vstack([P.double().numpy().T - np.eye(S), np.ones(S)])
    share = np.linalg.lstsq(left, np.array([0.0] * S + [1.0]), rcond=None)[0]
    return share @ np.array([entropy_by_a_loop(row) for row in P])


def rate_by_eigenvector(P):
    values, vectors = torch.linalg.eig(P.T.double())
    share = vectors[:, (values - 1).abs().argmin()].real
    return (share / share.sum() * torch.special.entr(P.double()).sum(1)).sum() / LN2


def rate_by_walking_on_average(P):
    """The mean of the shares over many steps: it settles where the shares themselves do not."""
    share, total = torch.full((len(P),), 1 / len(P)).double(), 0
    for _ in range(40_000):
        total, share = total + share, share @ P.double()
    return [entropy_by_a_loop(row) for row in P] @ (total / 40_000).numpy()


def rate_with(share_of):
    return lambda P: (share_of(P) @ (-torch.xlogy(P, P).sum(1) / LN2)).item()


OTHERWISE = [
    ("check_entropy", entropy_by_a_loop),
    ("check_entropy", lambda p: torch.special.entr(p).sum() / LN2),
    ("check_entropy", lambda p: -(p * p.log2()).nan_to_num(0.0).sum().numpy()),
    ("check_entropy", lambda p: np.array([(p * torch.where(p > 0, 1 / p, 1).log2()).sum()])),
    ("check_kl", kl_by_a_loop),
    ("check_kl", kl_of_what_happens),
    ("check_kl", lambda p, q: torch.where(p > 0, p * (p / q).log2(), 0.0).sum()),
    ("check_bits_per_byte", by_perplexity),
    ("check_bits_per_byte", lambda m, n, t: m * n * math.log2(math.e) / len(t.encode("utf8"))),
    ("check_entropy_rate", entropy_rate),
    ("check_entropy_rate", rate_by_equations),
    ("check_entropy_rate", rate_by_eigenvector),
    ("check_entropy_rate", rate_by_walking_on_average),
]

MISTAKES = [
    ("check_entropy", lambda p: -entropy(p), "the sign"),
    ("check_entropy", lambda p: entropy(p) * LN2, "these are nats"),
    ("check_entropy", lambda p: -p.log2().sum(), "without weights"),
    ("check_entropy", lambda p: -p.log2().mean(), "with equal weights"),
    ("check_entropy", lambda p: -torch.xlogy(p, p).mean() / LN2, "the mean over the outcomes"),
    ("check_entropy", lambda p: 2 ** entropy(p), "the entropy is the exponent"),
    ("check_entropy", lambda p: -(p * p.log2()).sum(), "0 * log 0"),
    ("check_entropy", lambda p: -(p * (p + 1e-3).log2()).sum(), "is 1.75 bits"),
    ("check_entropy", lambda p: -(p * p.clamp(min=1e-3).log2()).sum() + (p == 0).sum(), "is 0"),
    ("check_entropy", lambda p: min(entropy(p), 2.0), "wrong for p = [0.125,"),
    ("check_entropy", lambda p: p, "expected a number"),
    ("check_kl", lambda p, q: kl(q, p), "D(q || p)"),
    ("check_kl", lambda p, q: kl(p, q) + entropy(p), "the cross-entropy"),
    ("check_kl", lambda p, q: kl(p, q) * LN2, "these are nats"),
    ("check_kl", lambda p, q: -kl(p, q), "never negative"),
    ("check_kl", lambda p, q: kl(p, q) / len(p), "mean over the outcomes"),
    ("check_kl", lambda p, q: (p / q).log2().sum(), "without weights"),
    ("check_kl", lambda p, q: (p - q).abs().sum() / 2, "total variation"),
    ("check_kl", lambda p, q: (p * (p / q).log2()).sum(), "you return nan"),
    ("check_kl", lambda p, q: torch.nn.functional.kl_div(q.log(), p, reduction="sum") / LN2,
     "p and q are both 0"),
    ("check_kl", lambda p, q: (p * (p / q).log2())[(p > 0) & (q > 0)].sum(), "is infinite"),
    ("check_kl", clipped, "is infinite"),
    ("check_kl", lambda p, q: max(kl(p, q), 0.1), "wrong for p = "),
    ("check_kl", lambda p, q: 0.5, "yours is 0.5000"),
    ("check_bits_per_byte", lambda m, n, t: m * n / len(t.encode()), "nats per byte"),
    ("check_bits_per_byte", lambda m, n, t: m * n * LN2 / len(t.encode()), "multiplied by ln 2"),
    ("check_bits_per_byte", lambda m, n, t: m * n / LN2 / len(t), "bits per character"),
    ("check_bits_per_byte", lambda m, n, t: m / LN2, "bits per token"),
    ("check_bits_per_byte", lambda m, n, t: m / LN2 / len(t.encode()), "number of tokens"),
    ("check_bits_per_byte", lambda m, n, t: m * n / LN2, "of the whole text"),
    ("check_bits_per_byte", lambda m, n, t: len(t.encode()) * LN2 / (m * n), "bytes per bit"),
    ("check_bits_per_byte", lambda m, n, t: bits_per_byte(m, n, t.strip()), "wrong for 9 tokens"),
    ("check_bits_per_byte", lambda m, n, t: bits_per_byte(m, 6, t), "wrong for 1 tokens"),
    ("check_bits_per_byte", lambda m, n, t: 1.0, "yours is 1.0000"),
    ("check_entropy_rate", rate_with(lambda P: torch.full((len(P),), 1 / len(P)).double()),
     "with equal weights"),
    ("check_entropy_rate", rate_with(lambda P: stationary(P.T)), "with equal weights"),
    ("check_entropy_rate", lambda P: entropy(stationary(P)), "one token alone"),
    ("check_entropy_rate", lambda P: sum(entropy(row) for row in P), "you added"),
    ("check_entropy_rate", lambda P: entropy_rate(P) * LN2, "these are nats"),
    ("check_entropy_rate", rate_with(lambda P: P.mean(0)), "after a step or two"),
    ("check_entropy_rate", lambda P: -(stationary(P)[:, None] * P * P.log2()).sum().item(),
     "in a circle you return nan"),
    ("check_entropy_rate", lambda P: entropy_rate(P) if P.min() > 0 else 1.0, "has the rate 0"),
    ("check_entropy_rate", rate_with(lambda P: stationary(P, lazy=False)), "never settles"),
    ("check_entropy_rate", rate_with(lambda P: torch.linalg.matrix_power(P, 1000)[0]),
     "never settles"),
    ("check_entropy_rate", lambda P: min(entropy_rate(P), 1.0), "wrong for P = "),
    ("check_entropy_rate", lambda P: 0.1, "yours is 0.1000"),
]
