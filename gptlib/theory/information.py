"""Measures of information (Shannon, 1948; Cover and Thomas, 2006, chapter 2).

Distributions are tensors of probabilities with any leading shape; the last dimension holds the
outcomes. Joint distributions hold X in dimension -2 and Y in dimension -1. The unit is the bit;
`base=math.e` gives nats. 0 log 0 is 0. Sums run in float32 or wider, also for numbers of 16 bits.
"""

import math

import torch
from torch import Tensor

_TOLERANCE = 1e-4  # how far a sum may be from 1; float32 softmaxes stay well inside


def entropy(p: Tensor, base: float = 2.0) -> Tensor:
    """H(p): the least mean number of bits that tell which outcome of p came.

    p: (..., outcomes) -> (...). ValueError if p is not a distribution.
    """
    p = _distribution(p, "p")
    return torch.special.entr(p).sum(-1) / math.log(base)


def cross_entropy(p: Tensor, q: Tensor, base: float = 2.0) -> Tensor:
    """H(p, q): the mean number of bits when outcomes come from p and the code is made for q.

    p, q: (..., outcomes) of one shape -> (...). Infinite where q rules out what p allows.
    """
    p, q = _pair(p, q)
    return -torch.xlogy(p, q).sum(-1) / math.log(base)


def kl_divergence(p: Tensor, q: Tensor, base: float = 2.0) -> Tensor:
    """D(p || q) = H(p, q) - H(p): the bits wasted by coding p with a code made for q.

    p, q: (..., outcomes) of one shape -> (...). Infinite where q rules out what p allows.
    """
    p, q = _pair(p, q)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1) / math.log(base)


def joint_entropy(joint: Tensor, base: float = 2.0) -> Tensor:
    """H(X, Y) of a joint distribution (..., X, Y) -> (...)."""
    joint = _joint(joint)
    return torch.special.entr(joint).sum((-2, -1)) / math.log(base)


def conditional_entropy(joint: Tensor, base: float = 2.0) -> Tensor:
    """H(Y | X) = H(X, Y) - H(X): what is left to learn about Y once X is known.

    joint: (..., X, Y) -> (...). For H(X | Y) pass `joint.transpose(-2, -1)`.
    """
    joint = _joint(joint)
    return joint_entropy(joint, base) - entropy(joint.sum(-1), base)


def mutual_information(joint: Tensor, base: float = 2.0) -> Tensor:
    """I(X; Y): the bits that X tells about Y, as the divergence of the joint from the product.

    joint: (..., X, Y) -> (...).
    """
    joint = _joint(joint)
    independent = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return kl_divergence(joint.flatten(-2), independent.flatten(-2), base)


def perplexity(nats: float | Tensor) -> float | Tensor:
    """exp(nats): the number of equally likely tokens that would be as hard to predict.

    nats: mean loss in nats per token, a number or a tensor of any shape. Infinite where the
    result exceeds the largest float (from 709.8 nats on; for a tensor of float32 from 88.7 on).
    """
    if isinstance(nats, Tensor):
        return torch.exp(_wide(nats))
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def bits_per_byte(total_nats: float, num_bytes: int) -> float:
    """The summed loss of a text in bits, per byte of its UTF-8 form: comparable across tokenizers.

    total_nats: the sum over tokens, not their mean.
    """
    if num_bytes < 1:
        raise ValueError(f"num_bytes is {num_bytes}; expected the length of the text, 1 or more")
    return total_nats / math.log(2) / num_bytes


def _wide(x: Tensor) -> Tensor:
    """x itself, or as float32 if its numbers have 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _distribution(p: Tensor, name: str) -> Tensor:
    """p in float32 or wider; refuses what is no distribution.

    Of numbers of 16 bits, 0.001 (float16) or 0.008 (bfloat16) may be missing in the sum, since each
    is rounded that much; they are divided by it.
    """
    if p.dim() == 0 or not p.is_floating_point():
        raise ValueError(f"{name} has shape {tuple(p.shape)} and type {p.dtype}; expected "
                         "probabilities as floats, with the outcomes in the last dimension")
    if not (p >= 0).all():  # written so that nan fails, too
        raise ValueError(f"{name} has a value of {p.min().item():.3g}; probabilities are 0 or more "
                         "(logits go through softmax first)")
    wide = _wide(p)
    sums = wide.sum(-1, keepdim=True)
    worst = sums.flatten()[(sums - 1).abs().argmax()].item()
    if not abs(worst - 1) <= max(_TOLERANCE, torch.finfo(p.dtype).eps):
        raise ValueError(f"{name} sums to {worst:.6g} over its outcomes; expected 1 (divide counts "
                         "by their sum, pass logits through softmax)")
    return p if wide is p else wide / sums


def _pair(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    if p.shape != q.shape:
        raise ValueError(f"p has shape {tuple(p.shape)} and q has shape {tuple(q.shape)}; expected "
                         "one shape (use expand to compare many with one)")
    return _distribution(p, "p"), _distribution(q, "q")


def _joint(joint: Tensor) -> Tensor:
    if joint.dim() < 2:
        raise ValueError(f"joint has shape {tuple(joint.shape)}; expected (..., X, Y)")
    flat = _distribution(joint.flatten(-2), "joint")
    return joint if flat.dtype == joint.dtype else flat.view(joint.shape)
