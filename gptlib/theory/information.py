"""Measures of information (Shannon, 1948; Cover and Thomas, 2006, chapter 2).

Distributions are tensors of probabilities with any leading shape; the last dimension holds the
outcomes. Joint distributions hold X in dimension -2 and Y in dimension -1. The unit is the bit;
`base=math.e` gives nats. 0 log 0 is 0.
"""

import math

import torch
from torch import Tensor

_TOLERANCE = 1e-4  # how far a sum may be from 1; float32 softmaxes stay well inside


def entropy(p: Tensor, base: float = 2.0) -> Tensor:
    """H(p): the least mean number of bits that tell which outcome of p came.

    p: (..., outcomes) -> (...). ValueError if p is not a distribution.
    """
    _check_distribution(p, "p")
    return torch.special.entr(p).sum(-1) / math.log(base)


def cross_entropy(p: Tensor, q: Tensor, base: float = 2.0) -> Tensor:
    """H(p, q): the mean number of bits when outcomes come from p and the code is made for q.

    p, q: (..., outcomes) of one shape -> (...). Infinite where q rules out what p allows.
    """
    _check_pair(p, q)
    return -torch.xlogy(p, q).sum(-1) / math.log(base)


def kl_divergence(p: Tensor, q: Tensor, base: float = 2.0) -> Tensor:
    """D(p || q) = H(p, q) - H(p): the bits wasted by coding p with a code made for q.

    p, q: (..., outcomes) of one shape -> (...). Infinite where q rules out what p allows.
    """
    _check_pair(p, q)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1) / math.log(base)


def joint_entropy(joint: Tensor, base: float = 2.0) -> Tensor:
    """H(X, Y) of a joint distribution (..., X, Y) -> (...)."""
    _check_joint(joint)
    return torch.special.entr(joint).sum((-2, -1)) / math.log(base)


def conditional_entropy(joint: Tensor, base: float = 2.0) -> Tensor:
    """H(Y | X) = H(X, Y) - H(X): what is left to learn about Y once X is known.

    joint: (..., X, Y) -> (...). For H(X | Y) pass `joint.transpose(-2, -1)`.
    """
    return joint_entropy(joint, base) - entropy(joint.sum(-1), base)


def mutual_information(joint: Tensor, base: float = 2.0) -> Tensor:
    """I(X; Y): the bits that X tells about Y, as the divergence of the joint from the product.

    joint: (..., X, Y) -> (...).
    """
    _check_joint(joint)
    independent = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return kl_divergence(joint.flatten(-2), independent.flatten(-2), base)


def perplexity(nats: float | Tensor) -> float | Tensor:
    """exp(nats): the number of equally likely tokens that would be as hard to predict.

    nats: mean loss in nats per token, a number or a tensor of any shape.
    """
    return torch.exp(nats) if isinstance(nats, Tensor) else math.exp(nats)


def bits_per_byte(total_nats: float, num_bytes: int) -> float:
    """The summed loss of a text in bits, per byte of its UTF-8 form: comparable across tokenizers.

    total_nats: the sum over tokens, not their mean.
    """
    if num_bytes < 1:
        raise ValueError(f"num_bytes is {num_bytes}; expected the length of the text, 1 or more")
    return total_nats / math.log(2) / num_bytes


def _check_distribution(p: Tensor, name: str) -> None:
    if p.dim() == 0 or not p.is_floating_point():
        raise ValueError(f"{name} has shape {tuple(p.shape)} and type {p.dtype}; expected "
                         "probabilities as floats, with the outcomes in the last dimension")
    if not (p >= 0).all():  # written so that nan fails, too
        raise ValueError(f"{name} has a value of {p.min().item():.3g}; probabilities are 0 or more "
                         "(logits go through softmax first)")
    sums = p.sum(-1).flatten()
    worst = sums[(sums - 1).abs().argmax()].item()
    if not abs(worst - 1) <= _TOLERANCE:
        raise ValueError(f"{name} sums to {worst:.6g} over its outcomes; expected 1 (divide counts "
                         "by their sum, pass logits through softmax)")


def _check_pair(p: Tensor, q: Tensor) -> None:
    if p.shape != q.shape:
        raise ValueError(f"p has shape {tuple(p.shape)} and q has shape {tuple(q.shape)}; expected "
                         "one shape (use expand to compare many with one)")
    _check_distribution(p, "p")
    _check_distribution(q, "q")


def _check_joint(joint: Tensor) -> None:
    if joint.dim() < 2:
        raise ValueError(f"joint has shape {tuple(joint.shape)}; expected (..., X, Y)")
    _check_distribution(joint.flatten(-2), "joint")
