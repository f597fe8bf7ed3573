"""Answers to the exercises of chapter 5.3: right ones written otherwise, and wrong ones."""

import math

import numpy as np
import torch


def mean_loss(losses, tokens):
    return sum(loss * n for loss, n in zip(losses, tokens)) / sum(tokens)


def to_bits_per_character(nats_per_token, tokens, characters):
    return nats_per_token * tokens / math.log(2) / characters


def norm(gradients):
    return torch.cat([g.flatten() for g in gradients]).norm()


def clip(gradients, largest):
    factor = min(1.0, largest / (norm(gradients).item() + 1e-12))
    return [g * factor for g in gradients]


def diagnose(losses, vocab_size, unigram):
    start, end = losses[0], losses[-1]
    if math.isnan(end) or end > start + 1:
        return "diverged"
    if end > math.log(vocab_size) - 0.2:
        return "dead"
    if end < 0.5:
        return "leak"
    return "shuffled" if end > unigram - 0.2 else "healthy"


def without_isnan(losses, vocab_size, unigram):
    return diagnose([0 if math.isnan(x) else x for x in losses], vocab_size, unigram)


def instead(name, other):
    """The right diagnosis, but `other` where `name` would be right."""
    def wrong(*arguments):
        said = diagnose(*arguments)
        return other if said == name else said
    return wrong


def nan_only(losses, vocab_size, unigram):
    if math.isnan(losses[-1]):
        return "diverged"
    return diagnose([losses[0], min(losses[-1], losses[0])], vocab_size, unigram)


def clip_in_place(gradients, largest):
    factor = min(1.0, largest / max(norm(gradients).item(), 1e-12))
    for gradient in gradients:
        gradient *= factor
    return gradients


def clip_in_place_without_return(gradients, largest):
    clip_in_place(gradients, largest)


def diagnose_by_curve(losses, vocab_size, unigram):
    start, end = math.log(vocab_size), sum(losses[-3:]) / len(losses[-3:])
    if not math.isfinite(end) or end > 1.3 * start:
        return "diverged"
    if max(abs(loss - start) for loss in losses) < 0.1:
        return "dead"
    if end < 0.2:
        return "leak"
    return "healthy" if end < unigram - 0.5 else "shuffled"


def diagnose_512(losses, vocab_size, unigram):
    return diagnose(losses, 512, unigram)


def diagnose_5(losses, vocab_size, unigram):
    return diagnose(losses, vocab_size, 5.0)


OTHERWISE = [
    ("check_mean_loss", lambda losses, n: np.average(losses, weights=n)),
    ("check_mean_loss", lambda losses, n: torch.tensor(losses) @ torch.tensor(n).float() / sum(n)),
    ("check_bits_per_character", lambda nats, t, c: nats * math.log2(math.e) * (t / c)),
    ("check_bits_per_character", lambda nats, t, c: math.log2(math.exp(nats)) / (c / t)),
    ("check_clip", clip_in_place),
    ("check_clip", lambda gs, most: tuple(g / torch.clamp(norm(gs) / most, min=1) for g in gs)),
    ("check_diagnose", diagnose_by_curve),
]

MISTAKES = [
    ("check_mean_loss", lambda losses, n: sum(losses) / len(losses), "you averaged the batches"),
    ("check_mean_loss", lambda losses, n: sum(a * b for a, b in zip(losses, n)),
     "divide by the number of tokens"),
    ("check_mean_loss", lambda losses, n: sum(a * b for a, b in zip(losses, n)) / len(n),
     "divided by the number of batches"),
    ("check_mean_loss", lambda losses, n: max(losses), "expected 1.5000, got 4.0"),
    ("check_mean_loss", lambda losses, n: 1.5, "one batch alone"),
    ("check_bits_per_character", lambda nats, t, c: nats * t / c, "these are nats per character"),
    ("check_bits_per_character", lambda nats, t, c: nats * t / c * math.log(2),
     "you multiplied by ln 2"),
    ("check_bits_per_character", lambda nats, t, c: nats / math.log(2), "these are bits per token"),
    ("check_bits_per_character", lambda nats, t, c: nats / math.log(2) * c / t,
     "tokens and characters are exchanged"),
    ("check_bits_per_character", lambda nats, t, c: nats, "expected 2.0985, got 4.0"),
    ("check_clip", lambda gs, most: gs[0], "one gradient for each"),
    ("check_clip", lambda gs, most: [g * most / g.norm() for g in gs], "by its own norm"),
    ("check_clip", lambda gs, most: [g.clamp(-most, most) for g in gs], "clamped single numbers"),
    ("check_clip", lambda gs, most: [g * most / norm(gs) ** 2 for g in gs], "squared norm"),
    ("check_clip", lambda gs, most: [g.clone() for g in gs], "have the norm 5 together"),
    ("check_clip", lambda gs, most: [g * most / (norm(gs) + 1e-12) for g in gs],
     "you made it longer"),
    ("check_clip", lambda gs, most: [g * torch.clamp(most / norm(gs), max=1) if norm(gs) else
                                   g / norm(gs) for g in gs], "gives nan"),
    ("check_diagnose", without_isnan, "ask math.isnan first"),
    ("check_diagnose", instead("dead", "healthy"), "never leaves ln V"),
    ("check_diagnose", instead("leak", "healthy"), "too good to be true"),
    ("check_diagnose", instead("shuffled", "healthy"), "nothing about their order"),
    ("check_diagnose", instead("healthy", "leak"), "is healthy"),
    ("check_diagnose", nan_only, "also without nan"),
    ("check_diagnose", lambda *_: "ill", "expected one of dead, diverged"),
    ("check_mean_loss", lambda losses, n: mean_loss(losses, n) if len(losses) != 2 else losses[0],
     "wrong for ([3, 1], [1, 1])"),
    ("check_bits_per_character", lambda nats, t, c: nats / math.log(2) / 2.75, "wrong for (1.5,"),
    ("check_bits_per_character", lambda nats, t, c: round(to_bits_per_character(nats, t, c), 2),
     "expected 2.0985, got 2.1"),
    ("check_clip", clip_in_place_without_return, "returned nothing"),
    ("check_clip", lambda gs, most: clip(gs, min(most, 1.0)), "largest has no effect"),
    ("check_clip", lambda gs, most: [g * most / max(norm(gs), most) if len(gs) < 3 else g
                                     for g in gs], "wrong for"),
    ("check_diagnose", diagnose_512, "with V = 20,000"),
    ("check_diagnose", diagnose_5, "with V = 20,000"),
]
