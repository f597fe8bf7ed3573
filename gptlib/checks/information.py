"""Checks of chapter 4.2, information theory."""

import math
from typing import Any

import torch
from torch import Tensor

from gptlib.checks import as_number, attempt, close, exercise, expect
from gptlib.theory.information import cross_entropy, entropy, kl_divergence


def _distribution(*shares: float) -> Tensor:
    return torch.tensor(shares, dtype=torch.double)


def _rows(*rows: tuple) -> Tensor:
    return torch.stack([_distribution(*row) for row in rows])


_P, _Q = _distribution(0.5, 0.25, 0.125, 0.125), _distribution(0.25, 0.25, 0.4, 0.1)


@exercise
def check_entropy(answer: Any) -> None:
    """`entropy_in_bits(p)` of a 1-D tensor of probabilities."""
    got = as_number(attempt(answer, _P))
    expect(not close(got, -1.75), "the sign: log2 of a probability is negative, a surprise is not")
    expect(not close(got, 1.75 * math.log(2)), "these are nats: use log2")
    expect(not close(got, -_P.log2().sum()), "you added the surprises without weights: each counts "
           "as often as it happens, p times")
    expect(not close(got, -_P.log2().mean()), "you averaged the surprises with equal weights: each "
           "counts as often as it happens, p times")
    expect(not close(got, 1.75 / 4), "you took the mean over the outcomes: the weights are p "
           "already, so add")
    expect(not close(got, 2**1.75), "this is 2 to the power of the entropy, a number of outcomes: "
           "the entropy is the exponent")
    expect(close(got, 1.75), f"for p = {_P.tolist()} the entropy is 1.75 bits; yours is {got:.4f}")
    certain = as_number(attempt(answer, _distribution(0.0, 1.0)))
    expect(not math.isnan(certain), "for p = [0, 1] you return nan: 0 * log 0 counts as 0; "
           "torch.xlogy knows that")
    expect(close(certain, 0.0), f"for p = [0, 1] the entropy is 0; yours is {certain:.4g}")
    for p in (_distribution(1.0), _distribution(*[0.125] * 8), torch.tensor([0.25, 0.0, 0.75])):
        _expect_number(attempt(answer, p), entropy(p), f"p = {p.tolist()}")


@exercise
def check_kl(answer: Any) -> None:
    """`kl(p, q)` -> D(p || q) in bits for 1-D tensors of probabilities."""
    right, got = kl_divergence(_P, _Q).item(), as_number(attempt(answer, _P, _Q))
    expect(not close(got, kl_divergence(_Q, _P)), "this is D(q || p): the first argument is the "
           "one that outcomes come from; it weighs the logarithms")
    expect(not close(got, cross_entropy(_P, _Q)), "this is the cross-entropy H(p, q): subtract the "
           "bits that p needs anyway, H(p)")
    expect(not close(got, right * math.log(2)), "these are nats: use log2")
    expect(not close(got, -right), "the sign: the divergence is never negative")
    expect(not close(got, right / 4) and not close(got, right * math.log(2) / 4),
           "you took the mean over the outcomes: the weights are p already, so add")
    expect(not close(got, (_P / _Q).log2().sum()), "you added the logarithms without weights: each "
           "outcome counts p times")
    expect(not close(got, (_P - _Q).abs().sum() / 2), "this is the total variation distance: "
           "compare the logarithms")
    expect(close(got, right), f"for p = {_P.tolist()} and q = {_Q.tolist()} the divergence is "
           f"{right:.4f} bits; yours is {got:.4f}")
    p, q = _distribution(1.0, 0.0), _distribution(0.5, 0.5)
    half = as_number(attempt(answer, p, q))
    expect(not math.isnan(half), "where p is 0 you return nan: such an outcome costs nothing")
    expect(close(half, 1.0), f"for p = [1, 0] and q = [1/2, 1/2] the answer is 1; yours is {half}")
    expect(as_number(attempt(answer, q, p)) == math.inf, "where q is 0 and p is not, the "
           "divergence is infinite: no code word was reserved for what happens")
    both = _distribution(0.0, 0.5, 0.5), _distribution(0.0, 0.25, 0.75)
    expect(not math.isnan(as_number(attempt(answer, *both))), "where p and q are both 0 you return "
           "nan: what never happens costs nothing, whatever q says")
    for p, q in (both, (_distribution(0.0, 0.0, 1.0), _distribution(0.25, 0.25, 0.5)),
                 (_distribution(1.0), _distribution(1.0)), (_Q.float(), _Q.float())):
        _expect_number(attempt(answer, p, q), kl_divergence(p, q),
                       f"p = {p.tolist()} and q = {q.tolist()}")


@exercise
def check_bits_per_byte(answer: Any) -> None:
    """`bits_per_byte(mean_loss, num_tokens, text)`: mean loss in nats per token."""
    text, mean_loss, tokens = "café 东西", 3.0, 6
    size, nats = len(text.encode()), 18.0  # 12 bytes, 7 characters
    got = as_number(attempt(answer, mean_loss, tokens, text))
    expect(not close(got, nats / size), "these are nats per byte: divide by ln 2")
    expect(not close(got, nats * math.log(2) / size), "you multiplied by ln 2: a nat is the larger "
           "unit, 1.44 bits, so divide")
    expect(not close(got, nats / math.log(2) / len(text)), "these are bits per character: é takes "
           "two bytes and 东 three; len(text.encode()) counts them")
    expect(not close(got, mean_loss / math.log(2)), "these are bits per token: the loss of the "
           "text is the mean times the number of tokens, and its length is in bytes")
    expect(not close(got, mean_loss / math.log(2) / size), "you divided the loss of one token by "
           "the bytes of the whole text: multiply by the number of tokens")
    expect(not close(got, nats / math.log(2)), "these are the bits of the whole text: divide by "
           "its bytes")
    expect(not close(got, size * math.log(2) / nats), "these are bytes per bit: turn the fraction "
           "round")
    expect(close(got, nats / math.log(2) / size), f"for {tokens} tokens of {mean_loss} nats and "
           f"{text!r} the answer is {nats / math.log(2) / size:.4f}; yours is {got:.4f}")
    for mean_loss, tokens, text in ((2, 1, "a"), (0.0, 3, "naïve"), (1.25, 9, " one\r\n\n🙂 \n")):
        right = mean_loss * tokens / math.log(2) / len(text.encode())
        _expect_number(attempt(answer, mean_loss, tokens, text), right,
                       f"{tokens} tokens of {mean_loss} nats and the text {text!r}")


@exercise
def check_entropy_rate(answer: Any) -> None:
    """`entropy_rate(P)` in bits per token; P (S, S) has P(next | current) in its rows."""
    P = _rows((0.9, 0.1), (0.5, 0.5))
    stationary = _distribution(5 / 6, 1 / 6)  # solves pi P = pi
    right, got = (stationary * entropy(P)).sum().item(), as_number(attempt(answer, P))
    expect(not close(got, entropy(P).mean()), "you averaged the rows with equal weights: the "
           "source is in state 0 five times as often as in state 1; weigh by that")
    expect(not close(got, entropy(stationary)), "this is the entropy of one token alone: the "
           "token before it is known, so average the entropies of the rows")
    expect(not close(got, entropy(P).sum()), "you added the entropies of the rows: weigh each by "
           "the share of time that the source spends in it")
    expect(not close(got, right * math.log(2)), "these are nats: use log2")
    after = [(share @ entropy(P)).item() for share in (P.mean(0), P[0], P[1], P.mean(0) @ P)]
    expect(not any(close(got, value) for value in after), "you look at the source after a step or "
           "two: it has run for a long time, so take many")
    expect(close(got, right, 1e-4), f"for P = {P.tolist()} the rate is {right:.4f} bits; yours is "
           f"{got:.4f}")
    cycle = _rows((0, 1, 0), (0, 0, 1), (1, 0, 0))
    zero = as_number(attempt(answer, cycle))
    expect(not math.isnan(zero), "for a source that runs in a circle you return nan: 0 * log 0 "
           "counts as 0")
    expect(close(zero, 0.0), f"a source that runs in a circle has the rate 0; yours is {zero:.4f}")
    _expect_the_share_of_time(answer)
    left = _rows((0.5, 0.25, 0.25, 0), (0, 0.8, 0.1, 0.1), (0, 0.1, 0.8, 0.1), (0, 0.2, 0.2, 0.6))
    mean = entropy(left)[1:] @ _distribution(0.4, 0.4, 0.2)  # state 0 is left and does not return
    for P, right in ((left, mean), (_rows((1,)), 0.0), (torch.full((4, 4), 0.25), 2.0)):
        _expect_number(attempt(answer, P), right, f"P = {P.tolist()}", 1e-4)


def _expect_the_share_of_time(answer: Any) -> None:
    """A source that is in state 0 every second time, and in 1 or 2 between: half a bit a token."""
    P = _rows((0, 0.5, 0.5), (1, 0, 0), (1, 0, 0))
    _expect_number(attempt(answer, P), 0.5,
                   f"P = {P.tolist()}, which is in state 0 every second time (such a source never "
                   "settles, however often you multiply by P: take the mean of the shares before "
                   "and after a step, or solve share @ P = share)", 1e-4)


def _expect_number(result: Any, right: Any, case: str, tolerance: float = 1e-5) -> None:
    got, right = as_number(result), float(right)
    expect(close(got, right, tolerance),
           f"wrong for {case}: expected {right:.4f}, got {got:.4f}")
