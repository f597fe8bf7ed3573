"""An arithmetic coder (Rissanen, 1976; Pasco, 1976): text as one binary fraction.

The coder gives every possible text its own part of the interval from 0 to 1, as wide as the model
finds the text probable. Any number inside names the text, and a part of width w holds a number
of about -log2(w) bits. All arithmetic is on whole numbers of any size, so nothing is rounded
except the probabilities, once, to multiples of 2**-32.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_PRECISION = 32  # bits of a probability

# the ids so far -> (V,) probabilities of the next one, the same for coding and for decoding
Probabilities = Callable[[list[int]], Tensor]


def encode(ids: Sequence[int], probabilities: Probabilities) -> str:
    """A string of 0 and 1, less than 1 bit longer than the sum of -log2 p(id)."""
    ids = [int(token) for token in ids]
    low, width, shift = 0, 1, 0  # the part is [low, low + width) / 2**shift
    for i, token in enumerate(ids):
        bounds = _bounds(probabilities(ids[:i]))
        if not 0 <= token < len(bounds) - 1:
            raise ValueError(f"id {token} is outside the model's {len(bounds) - 1} tokens")
        low = (low << _PRECISION) + width * bounds[token]
        width *= bounds[token + 1] - bounds[token]
        shift += _PRECISION
    length = shift - width.bit_length() + 1  # least length with 2**-length <= width / 2**shift
    number = -(-low // (1 << (shift - length)))  # the first of these fractions that is not below
    return format(number, f"0{length}b") if length else ""


def decode(code: str, probabilities: Probabilities, length: int) -> list[int]:
    """The ids that `encode` was given; `length` is their number."""
    if set(code) - {"0", "1"}:
        raise ValueError(f"code has the characters {sorted(set(code))}; expected only 0 and 1")
    # the place of the code inside the current part, as the fraction place / whole
    place, whole = int(code or "0", 2), 1 << len(code)
    ids: list[int] = []
    for _ in range(length):
        bounds = _bounds(probabilities(list(ids)))
        token = bisect_right(bounds, (place << _PRECISION) // whole) - 1
        place = (place << _PRECISION) - bounds[token] * whole
        whole *= bounds[token + 1] - bounds[token]
        ids.append(token)
    return ids


def _bounds(p: Tensor) -> list[int]:
    """V + 1 whole numbers from 0 to 2**32: the parts of the tokens, each at least 1 wide."""
    tolerance = max(1e-4, torch.finfo(p.dtype).eps) if p.is_floating_point() else 1e-4
    p = p.detach().double().cpu()
    if p.dim() != 1 or not (p >= 0).all() or not abs(p.sum().item() - 1) < tolerance:
        raise ValueError(f"probabilities have shape {tuple(p.shape)} and sum to {p.sum():.6g}; "
                         "expected (V,), no value negative, with the sum 1")
    total, cumulative = 1 << _PRECISION, torch.cumsum(p / p.sum(), 0)
    inner = torch.round(cumulative * total).long()
    if inner[0] < 1 or (inner.diff() < 1).any():  # a token without a part could not be coded
        inner = torch.round(cumulative * (total - len(p))).long() + torch.arange(1, len(p) + 1)
    return [0, *inner.tolist()]
