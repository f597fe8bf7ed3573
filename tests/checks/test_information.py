import math

import pytest
import torch

from gptlib.checks import information as checks

LN2 = math.log(2)


def entropy(p):
    return -torch.xlogy(p, p).sum().item() / LN2


def kl(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().item() / LN2


def clipped(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q.clamp(min=1e-9))).sum().item() / LN2


def bits_per_byte(mean_loss, num_tokens, text):
    return mean_loss * num_tokens / LN2 / len(text.encode())


def entropy_rate(P):
    pi = torch.full((len(P),), 1 / len(P), dtype=P.dtype)
    for _ in range(1000):
        pi = pi @ (P + torch.eye(len(P))) / 2
    return sum(share * entropy(row) for share, row in zip(pi.tolist(), P))


def stationary_entropy(P):
    pi = torch.full((len(P),), 1 / len(P), dtype=P.dtype)
    for _ in range(1000):
        pi = pi @ P
    return entropy(pi)


def unsafe(P):
    pi = torch.full((len(P),), 1 / len(P), dtype=P.dtype)
    for _ in range(1000):
        pi = pi @ P
    return -(pi[:, None] * P * P.log2()).sum().item()


CASES = [
    ("entropy", lambda p: -entropy(p), "the sign"),
    ("entropy", lambda p: entropy(p) * LN2, "these are nats"),
    ("entropy", lambda p: -p.log2().sum(), "without weights"),
    ("entropy", lambda p: -p.log2().mean(), "with equal weights"),
    ("entropy", lambda p: -(p * p.log2()).sum(), "0 * log 0"),
    ("entropy", lambda p: -(p * (p + 1e-3).log2()).sum(), "is 1.75 bits"),
    ("entropy", lambda p: -(p * p.clamp(min=1e-3).log2()).sum() + (p == 0).sum(), "is 0"),
    ("entropy", lambda p: p, "expected one number"),
    ("kl", lambda p, q: kl(q, p), "D(q || p)"),
    ("kl", lambda p, q: kl(p, q) + entropy(p), "the cross-entropy"),
    ("kl", lambda p, q: kl(p, q) * LN2, "these are nats"),
    ("kl", lambda p, q: -kl(p, q), "never negative"),
    ("kl", lambda p, q: (p - q).abs().sum() / 2, "total variation"),
    ("kl", lambda p, q: (p * (p / q).log2()).sum(), "you return nan"),
    ("kl", clipped, "is infinite"),
    ("kl", lambda p, q: 0.5, "yours is 0.5000"),
    ("bits_per_byte", lambda m, n, t: m * n / len(t.encode()), "nats per byte"),
    ("bits_per_byte", lambda m, n, t: m * n * LN2 / len(t.encode()), "multiplied by ln 2"),
    ("bits_per_byte", lambda m, n, t: m * n / LN2 / len(t), "bits per character"),
    ("bits_per_byte", lambda m, n, t: m / LN2, "bits per token"),
    ("bits_per_byte", lambda m, n, t: m / LN2 / len(t.encode()), "number of tokens"),
    ("bits_per_byte", lambda m, n, t: 1.0, "yours is 1.0000"),
    ("entropy_rate", lambda P: sum(entropy(row) for row in P) / len(P), "with equal weights"),
    ("entropy_rate", stationary_entropy, "one token alone"),
    ("entropy_rate", lambda P: sum(entropy(row) for row in P), "you added"),
    ("entropy_rate", lambda P: entropy_rate(P) * LN2, "these are nats"),
    ("entropy_rate", unsafe, "in a circle you return nan"),
    ("entropy_rate", lambda P: 0.1, "yours is 0.1000"),
]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("name", ["entropy", "kl", "bits_per_byte", "entropy_rate"])
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"
