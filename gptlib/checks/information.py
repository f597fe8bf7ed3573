"""Checks of chapter 4.2, information theory."""

import math

import torch

from gptlib.checks import attempt, close, exercise, expect
from gptlib.theory.information import cross_entropy, entropy, kl_divergence

_P = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.double)
_Q = torch.tensor([0.25, 0.25, 0.4, 0.1], dtype=torch.double)


@exercise
def check_entropy(entropy_in_bits) -> None:
    """`entropy_in_bits(p)` of a 1-D tensor of probabilities."""
    got = _number(attempt(entropy_in_bits, _P))
    expect(not close(got, -1.75), "the sign: log2 of a probability is negative, a surprise is not")
    expect(not close(got, 1.75 * math.log(2)), "these are nats: use log2")
    expect(not close(got, -_P.log2().sum()), "you added the surprises without weights: each counts "
           "as often as it happens, p times")
    expect(not close(got, -_P.log2().mean()), "you averaged the surprises with equal weights: each "
           "counts as often as it happens, p times")
    expect(close(got, 1.75), f"for p = {_P.tolist()} the entropy is 1.75 bits; yours is {got:.4f}")
    certain = _number(attempt(entropy_in_bits, torch.tensor([0.0, 1.0], dtype=torch.double)))
    expect(not math.isnan(certain), "for p = [0, 1] you return nan: 0 * log 0 counts as 0; "
           "torch.xlogy knows that")
    expect(close(certain, 0.0), f"for p = [0, 1] the entropy is 0; yours is {certain:.4g}")


@exercise
def check_kl(kl) -> None:
    """`kl(p, q)` -> D(p || q) in bits for 1-D tensors of probabilities."""
    right, got = kl_divergence(_P, _Q).item(), _number(attempt(kl, _P, _Q))
    expect(not close(got, kl_divergence(_Q, _P)), "this is D(q || p): the first argument is the "
           "one that outcomes come from; it weighs the logarithms")
    expect(not close(got, cross_entropy(_P, _Q)), "this is the cross-entropy H(p, q): subtract the "
           "bits that p needs anyway, H(p)")
    expect(not close(got, right * math.log(2)), "these are nats: use log2")
    expect(not close(got, -right), "the sign: the divergence is never negative")
    expect(not close(got, (_P - _Q).abs().sum() / 2), "this is the total variation distance: "
           "compare the logarithms")
    expect(close(got, right), f"for p = {_P.tolist()} and q = {_Q.tolist()} the divergence is "
           f"{right:.4f} bits; yours is {got:.4f}")
    p, q = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.5, 0.5]).double()
    half = _number(attempt(kl, p, q))
    expect(not math.isnan(half), "where p is 0 you return nan: such an outcome costs nothing")
    expect(close(half, 1.0), f"for p = [1, 0] and q = [1/2, 1/2] the answer is 1; yours is {half}")
    expect(_number(attempt(kl, q, p)) == math.inf, "where q is 0 and p is not, the divergence is "
           "infinite: no code word was reserved for what happens")


@exercise
def check_bits_per_byte(bits_per_byte) -> None:
    """`bits_per_byte(mean_loss, num_tokens, text)`: mean loss in nats per token."""
    text, mean_loss, tokens = "café 东西", 3.0, 6
    size, nats = len(text.encode()), 18.0  # 12 bytes, 7 characters
    got = _number(attempt(bits_per_byte, mean_loss, tokens, text))
    expect(not close(got, nats / size), "these are nats per byte: divide by ln 2")
    expect(not close(got, nats * math.log(2) / size), "you multiplied by ln 2: a nat is the larger "
           "unit, 1.44 bits, so divide")
    expect(not close(got, nats / math.log(2) / len(text)), "these are bits per character: é takes "
           "two bytes and 东 three; len(text.encode()) counts them")
    expect(not close(got, mean_loss / math.log(2)), "these are bits per token: the loss of the "
           "text is the mean times the number of tokens, and its length is in bytes")
    expect(not close(got, mean_loss / math.log(2) / size), "you divided the loss of one token by "
           "the bytes of the whole text: multiply by the number of tokens")
    expect(close(got, nats / math.log(2) / size), f"for {tokens} tokens of {mean_loss} nats and "
           f"{text!r} the answer is {nats / math.log(2) / size:.4f}; yours is {got:.4f}")


@exercise
def check_entropy_rate(entropy_rate) -> None:
    """`entropy_rate(P)` in bits per token; P (S, S) has P(next | current) in its rows."""
    P = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.double)
    stationary = torch.tensor([5 / 6, 1 / 6], dtype=torch.double)  # solves pi P = pi
    right, got = (stationary * entropy(P)).sum().item(), _number(attempt(entropy_rate, P))
    expect(not close(got, entropy(P).mean()), "you averaged the rows with equal weights: the "
           "source is in state 0 five times as often as in state 1; weigh by that")
    expect(not close(got, entropy(stationary)), "this is the entropy of one token alone: the "
           "token before it is known, so average the entropies of the rows")
    expect(not close(got, entropy(P).sum()), "you added the entropies of the rows: weigh each by "
           "the share of time that the source spends in it")
    expect(not close(got, right * math.log(2)), "these are nats: use log2")
    expect(close(got, right, 1e-4), f"for P = {P.tolist()} the rate is {right:.4f} bits; yours is "
           f"{got:.4f}")
    cycle = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]).double()
    zero = _number(attempt(entropy_rate, cycle))
    expect(not math.isnan(zero), "for a source that runs in a circle you return nan: 0 * log 0 "
           "counts as 0")
    expect(close(zero, 0.0), f"a source that runs in a circle has the rate 0; yours is {zero:.4f}")


def _number(result) -> float:
    try:
        return float(torch.as_tensor(result))
    except (TypeError, ValueError, RuntimeError):
        expect(False, f"expected one number, got {result!r}")
