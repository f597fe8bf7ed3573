"""From logits to a token: pure functions on (B, V) logits. Nothing here changes its input.

A filter returns logits in which the removed tokens are -inf, so filters can be chained.
"""

import math
from numbers import Real

import torch
from torch import Tensor

# How the book's story model writes unless told otherwise: chapter 8.4, its card, the command line.
DECODING = {"temperature": 0.7, "top_p": 0.9}


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Logits divided by a temperature above 0 (Ackley et al., 1985), shifted so the largest is 0.

    The shift leaves the probabilities as they are and keeps small temperatures from overflowing.
    """
    temperature = _number("temperature", temperature)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; expected a number above 0 (sample() takes "
                         f"0 as well, and then returns the most likely token)")
    # beyond these bounds float32 would divide 0 by 0, or infinity by infinity
    temperature = min(max(temperature, 1e-30), 1e30)
    return (logits - logits.amax(-1, keepdim=True)) / temperature


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Only the k largest logits of each row (Fan et al., 2018): exactly k, also where some tie."""
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ValueError(f"top_k is {top_k!r}; expected a whole number, 1 or more (None: no limit)")
    if top_k >= logits.size(-1):
        return logits
    values, ids = logits.topk(top_k, dim=-1)
    return torch.full_like(logits, -math.inf).scatter(-1, ids, values)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Only the nucleus (Holtzman et al., 2020): the fewest tokens whose probabilities reach top_p.

    The token that crosses the line is kept, so at least one always is.
    """
    top_p = _number("top_p", top_p)
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; expected a probability in (0, 1] (1: no limit)")
    if top_p == 1:
        return logits
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    total = ordered.softmax(-1).cumsum(-1)
    removed = total.roll(1, -1) >= top_p  # total: probability of the tokens before this one
    removed[..., 0] = False  # also where float32 takes top_p for 0
    ordered = ordered.masked_fill(removed, -math.inf)
    return torch.empty_like(logits).scatter(-1, ids, ordered)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Only tokens at least `min_p` times as likely as the likeliest one (Nguyen et al., 2024)."""
    min_p = _number("min_p", min_p)
    if not 0 <= min_p <= 1:
        raise ValueError(f"min_p is {min_p}; expected a fraction in [0, 1] (0: no limit)")
    if min_p == 0:
        return logits
    floor = logits.amax(-1, keepdim=True) + math.log(min_p)
    return logits.masked_fill(logits < floor, -math.inf)


def penalise_repetition(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Make the tokens in `ids` (B, T) less likely, once each (CTRL: Keskar et al., 2019).

    Their logits are divided by the penalty where positive and multiplied by it where negative,
    and stay finite: a penalty makes no token impossible.
    """
    penalty = _number("repetition_penalty", penalty)
    if not 0 < penalty < math.inf:
        raise ValueError(f"repetition_penalty is {penalty}; expected a number above 0 (1: none)")
    if penalty == 1:
        return logits
    penalty = min(max(penalty, 1e-30), 1e30)  # what float32 can tell from 0 and infinity
    seen, limit = logits.gather(-1, ids), torch.finfo(logits.dtype).max
    penalised = torch.where(seen > 0, seen / penalty, seen * penalty).clamp(-limit, limit)
    return logits.scatter(-1, ids, torch.where(seen.isinf(), seen, penalised))


def filter_logits(logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None,
                  top_p: float | None = None, min_p: float | None = None) -> Tensor:
    """Temperature, then top-k, top-p and min-p, each on what the one before has left: (B, V)."""
    if _number("temperature", temperature) != 1:
        logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return logits if min_p is None else keep_min_p(logits, min_p)


def probabilities(logits: Tensor, *, temperature: float = 1.0, **filters) -> Tensor:
    """The distribution that `sample` draws from, (B, V); at temperature 0 one token has it all."""
    logits, best = _checked(logits, temperature)
    if temperature == 0:
        filter_logits(logits, **filters)  # refuses what sample() would refuse
        return torch.nn.functional.one_hot(best, logits.size(-1)).float()
    return filter_logits(logits, temperature=temperature, **filters).softmax(-1)


def sample(logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None,
           top_p: float | None = None, min_p: float | None = None,
           generator: torch.Generator | None = None) -> Tensor:
    """Draw one token id from each row of logits (B, V): (B,) int64.

    The draw inverts the cumulative distribution: one uniform number a row, (0, 1], falls on the
    first token at which the running sum of probabilities has reached it. That is exact (a removed
    token is never drawn) and cheaper than noise on every token. The same generator, on the CPU,
    serves every device. Temperature 0 is the argmax and draws nothing.
    Raises ValueError for logits that hold nan or +inf, or rows in which every token is -inf.
    """
    logits, best = _checked(logits, temperature)
    if temperature == 0:
        filter_logits(logits, top_k=top_k, top_p=top_p, min_p=min_p)
        return best
    kept = filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    return _draw(kept.softmax(-1), generator)  # each row sums to 1: nothing to check


def draw(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One id from each row of weights (B, V), none negative, in proportion to them: (B,) int64.

    Raises ValueError for a negative weight, and for a row whose sum is not a positive number.
    """
    sums = weights.sum(-1)
    if not ((weights >= 0).all() and (0 < sums).all() and (sums < math.inf).all()):  # nor nan
        raise ValueError("a row of weights holds negative numbers, or sums to 0, infinity or nan; "
                         "expected probabilities: logits go through softmax first")
    return _draw(weights, generator)


def _draw(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    wide = torch.float32 if weights.device.type == "mps" else torch.float64  # MPS has no float64
    running = weights.cumsum(-1, dtype=wide)
    device = "cpu" if generator is None else generator.device
    uniform = 1 - torch.rand(len(weights), 1, dtype=wide, device=device, generator=generator)
    target = uniform.to(weights.device) * running[:, -1:]
    return torch.searchsorted(running, target).squeeze(-1)


def _number(name: str, value: float) -> float:
    """An option as a float; refuses what is no real number, by name."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} is {value!r}; expected a number, not a {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.inf if value > 0 else -math.inf


def _checked(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The logits as float32 or wider, and each row's most likely token; refuses bad logits."""
    if logits.dim() != 2 or not logits.is_floating_point() or not logits.shape[1]:
        shape = tuple(logits.shape)
        raise ValueError(f"logits are {logits.dtype} of shape {shape}; expected floats (B, V): of "
                         f"a model's (B, T, V) take the last position, logits[:, -1]")
    if not 0 <= _number("temperature", temperature) < math.inf:
        raise ValueError(f"temperature is {temperature}; expected 0 (most likely token) or more")
    logits = logits if logits.dtype == torch.float64 else logits.float()
    largest, best = logits.max(-1)  # nan is larger than anything: one maximum finds all bad rows
    if (largest - largest).any():  # nan, unless the number is finite; isfinite takes twice as long
        raise ValueError("the largest logit of a row is not finite: the row holds nan or +inf (the "
                         "model diverged), or every token has been removed (all are -inf)")
    return logits, best
