"""The checks of chapter 5.3: solutions pass, each named mistake gets its own message."""

import math

import pytest
import torch

from gptlib.checks.training import (
    check_bits_per_character,
    check_clip,
    check_diagnose,
    check_mean_loss,
)


def stub(*_):
    ...


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


ALL = {check_mean_loss: mean_loss, check_bits_per_character: to_bits_per_character,
       check_clip: clip, check_diagnose: diagnose}


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


WRONG = [
    (check_mean_loss, lambda losses, n: sum(losses) / len(losses), "you averaged the batches"),
    (check_mean_loss, lambda losses, n: sum(a * b for a, b in zip(losses, n)),
     "divide by the number of tokens"),
    (check_mean_loss, lambda losses, n: sum(a * b for a, b in zip(losses, n)) / len(n),
     "divided by the number of batches"),
    (check_mean_loss, lambda losses, n: max(losses), "expected 1.5000, got 4.0"),
    (check_mean_loss, lambda losses, n: 1.5, "one batch alone"),
    (check_bits_per_character, lambda nats, t, c: nats * t / c, "these are nats per character"),
    (check_bits_per_character, lambda nats, t, c: nats * t / c * math.log(2),
     "you multiplied by ln 2"),
    (check_bits_per_character, lambda nats, t, c: nats / math.log(2), "these are bits per token"),
    (check_bits_per_character, lambda nats, t, c: nats / math.log(2) * c / t,
     "tokens and characters are exchanged"),
    (check_bits_per_character, lambda nats, t, c: nats, "expected 2.0985, got 4.0"),
    (check_clip, lambda gs, most: gs[0], "one gradient for each"),
    (check_clip, lambda gs, most: [g * most / g.norm() for g in gs], "by its own norm"),
    (check_clip, lambda gs, most: [g.clamp(-most, most) for g in gs], "clamped single numbers"),
    (check_clip, lambda gs, most: [g * most / norm(gs) ** 2 for g in gs], "squared norm"),
    (check_clip, lambda gs, most: [g.clone() for g in gs], "have the norm 5 together"),
    (check_clip, lambda gs, most: [g * most / (norm(gs) + 1e-12) for g in gs],
     "you made it longer"),
    (check_clip, lambda gs, most: [g * torch.clamp(most / norm(gs), max=1) if norm(gs) else
                                   g / norm(gs) for g in gs], "gives nan"),
    (check_diagnose, without_isnan, "ask math.isnan first"),
    (check_diagnose, instead("dead", "healthy"), "never leaves ln V"),
    (check_diagnose, instead("leak", "healthy"), "too good to be true"),
    (check_diagnose, instead("shuffled", "healthy"), "nothing about their order"),
    (check_diagnose, instead("healthy", "leak"), "is healthy"),
    (check_diagnose, nan_only, "also without nan"),
    (check_diagnose, lambda *_: "ill", "expected one of dead, diverged"),
]


@pytest.mark.parametrize("check", ALL)
def test_the_solution_passes(check):
    assert check.judge(ALL[check]).message == "correct"


@pytest.mark.parametrize("check", ALL)
def test_the_stub_is_not_attempted(check):
    assert check.judge(stub).status == "not attempted"


@pytest.mark.parametrize("check, answer, message", WRONG)
def test_each_mistake_gets_its_own_message(check, answer, message):
    verdict = check.judge(answer)
    assert verdict.status == "mistake"
    assert message in verdict.message


def test_no_two_mistakes_share_a_message():
    messages = [check.judge(answer).message for check, answer, _ in WRONG]
    assert len(set(messages)) == len(messages)
