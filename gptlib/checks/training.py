"""Exercise checks of chapter 5.3: loss of a set, bits per character, clipping, diagnosis."""

import math
from collections.abc import Callable
from typing import Any

import torch

from gptlib.checks import (
    as_number,
    as_tensor,
    attempt,
    close,
    exercise,
    expect,
    expect_agreement,
)


@exercise
def check_mean_loss(answer: Any) -> None:
    """mean_loss(batch_losses, batch_tokens) -> the loss per token of the whole set."""
    losses, tokens = [1.0, 4.0, 2.0], [100, 10, 50]
    got = as_number(attempt(answer, losses, tokens))
    expect(not close(got, sum(losses) / 3),
           "you averaged the batches: a token of the small batch then counts ten times as much "
           "as one of the large batch")
    weighted = sum(loss * n for loss, n in zip(losses, tokens))
    expect(not close(got, weighted),
           "this is the loss of all tokens together: divide by the number of tokens")
    expect(not close(got, weighted / 3),
           "you divided by the number of batches: divide by the number of tokens")
    expect(close(got, weighted / 160), f"for {losses} over {tokens} tokens expected "
           f"{weighted / 160:.4f}, got {got}")
    one = as_number(attempt(answer, [2.5], [7]))
    expect(close(one, 2.5), f"one batch alone has its own mean as the loss: 2.5, not {one}")
    expect_agreement(answer, lambda losses, tokens: sum(
        loss * n for loss, n in zip(losses, tokens)) / sum(tokens), [
            ([3.0, 1.0], [1, 1]), ([0.5, 9.0, 2.0, 4.0], [64, 0, 64, 3]), ([1.0] * 5, [8] * 5)])


@exercise
def check_bits_per_character(answer: Any) -> None:
    """to_bits_per_character(nats_per_token, tokens, characters) -> bits per character."""
    nats, tokens, characters = 4.0, 1000, 2750
    got = as_number(attempt(answer, nats, tokens, characters))
    right = nats * tokens / characters / math.log(2)
    expect(not close(got, right * math.log(2)),
           "these are nats per character: one bit is ln 2 = 0.693 nats, so divide by ln 2")
    expect(not close(got, right * math.log(2) ** 2),
           "you multiplied by ln 2: a nat is 1.443 bits, so bits are the larger number")
    expect(not close(got, nats / math.log(2)),
           "these are bits per token: spread the bits of all tokens over the characters")
    expect(not close(got, nats / math.log(2) * characters / tokens),
           "tokens and characters are exchanged: a token of 2.75 characters shares its bits "
           "among them, so the number gets smaller")
    expect(close(got, right), f"for {nats} nats per token, {tokens} tokens and {characters} "
           f"characters expected {right:.4f}, got {got}")
    expect_agreement(answer, lambda nats, tokens, characters: nats * tokens / characters
                     / math.log(2), [(1.5, 300, 300), (7.0, 40, 25), (0.0, 1, 9), (2.0, 1, 1000)])


@exercise
def check_clip(answer: Any) -> None:
    """clip(gradients, largest): the list of gradients, scaled so that their joint norm fits."""
    gradients = [torch.tensor([1.0, 2.0]), torch.tensor([[2.0], [4.0]])]  # joint norm 5
    own = _with_copies(answer)
    got = attempt(own, gradients, 1.0)
    expect(len(got) == 2 and getattr(got, "ndim", 2) == 2,
           "return a list with one gradient for each that came in")
    each = [gradient / gradient.norm() for gradient in gradients]
    expect(not close(got, each),
           "you clipped each tensor by its own norm: that changes the direction of the whole "
           "gradient; compute one norm over all tensors")
    expect(not close(got, [g.clamp(-1, 1) for g in gradients]),
           "you clamped single numbers: that changes the direction; scale all by one factor")
    expect(not close(got, [g / 25 for g in gradients]),
           "you divided by the squared norm: take the square root of the sum of squares")
    expect(close(got, [g / 5 for g in gradients]),
           "gradients (1, 2) and (2, 4) have the norm 5 together; with largest = 1 each must be "
           "divided by 5")
    expect(not close(attempt(own, gradients, 2.5), got),
           "largest has no effect: with largest = 2.5 each gradient must be divided by 2")
    expect(close(attempt(own, gradients, 10.0), gradients),
           "a gradient shorter than the limit must stay as it is: you made it longer")
    zero = attempt(own, [torch.zeros(2)], 1.0)
    expect(not as_tensor(zero[0]).isnan().any(), "a gradient of zeros gives nan: 0 / 0 in your "
           "factor")
    expect_agreement(own, _clip, [
        ([torch.tensor(-8.0)], 0.5), ([torch.zeros(1, 3), torch.zeros(2)], 1.0), (
            [torch.full((2, 3), 2.0), torch.tensor(1.0), -torch.ones(1, 1, 4)], 3.0)])


def _with_copies(answer: Any) -> Callable:
    """The answer on copies of the gradients: the task lets it scale the caller's own."""
    def own(gradients: list[torch.Tensor], largest: float) -> Any:
        copies = [gradient.clone() for gradient in gradients]
        result = answer(copies, largest)
        expect(result is not None or close(copies, gradients), "you scaled the gradients in place "
               "and returned nothing: return the list")
        return result

    return own if callable(answer) else answer


def _clip(gradients: list[torch.Tensor], largest: float) -> list[torch.Tensor]:
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    return [gradient * (largest / norm if norm > largest else 1.0) for gradient in gradients]


@exercise
def check_diagnose(answer: Any) -> None:
    """diagnose(losses, vocab_size, unigram) -> one of five names."""
    start, unigram = math.log(512), 5.0
    descent = [start - 2.5 * step / 60 for step in range(61)]
    cases = {
        "healthy": descent,
        "diverged": [start, 6.0, 5.5, 7.0, 11.0, math.nan],
        "dead": [start] * 40,
        "leak": [start - 6.15 * step / 60 for step in range(61)],
        "shuffled": [start, 5.8, 5.4, 5.2, 5.1, 5.05, 5.02, 5.03, 5.01],
    }
    for name, losses in cases.items():
        got = attempt(answer, losses, 512, unigram)
        expect(got in cases, f"expected one of {', '.join(sorted(cases))}; got {got!r}")
        expect(got == name, _WRONG[name].format(got=got))
    got = attempt(answer, [start, 6.1, 5.6, 9.0, 14.0, 30.0], 512, unigram)
    expect(got == "diverged", f"a loss that ends far above its start has diverged, also without "
           f"nan; you said {got!r}")
    _expect_other_vocabularies(answer)


def _expect_other_vocabularies(answer: Callable) -> None:
    """Clear cases again, with another ln V, another unigram loss and other lengths."""
    for size, unigram in ((20_000, 7.0), (70, 2.9)):
        start = math.log(size)

        def fall(end: float, steps: int, start: float = start) -> list[float]:
            return [end + (start - end) * 0.7**step for step in range(steps)]

        cases = {"healthy": fall(unigram - 1.5, 35), "diverged": [start, start + 5, math.inf],
                 "dead": [start] * 12, "leak": fall(0.02, 50), "shuffled": fall(unigram, 45)}
        for name, losses in cases.items():
            got = attempt(answer, losses, size, unigram)
            expect(got == name, f"with V = {size:,} (ln V = {start:.2f}) and the unigram loss "
                   f"{unigram}: " + _WRONG[name].format(got=got))


_WRONG = {
    "healthy": "a loss that falls from ln V to well below the unigram loss is healthy; you said "
               "{got!r}",
    "diverged": "the curve ends with nan or inf and you said {got!r}: every comparison with "
                "nan is False, so ask math.isnan first",
    "dead": "a loss that never leaves ln V means that nothing is learned; you said {got!r}",
    "leak": "a loss near 0 on real text is too good to be true; you said {got!r}",
    "shuffled": "a loss that settles at the unigram loss knows how frequent tokens are and "
                "nothing about their order; you said {got!r}",
}
