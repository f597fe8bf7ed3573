"""Checks of chapter 1.1, the history of GPT."""

import math
from typing import Any

from gptlib.checks import as_number, attempt, exercise, expect, expect_agreement
from gptlib.model.config import GPTConfig

_XL = (24, 2048, 24, 128, 1320)  # two rows of Brown et al. (2020), table 2.1 and table D.1
_13B = (40, 5140, 40, 128, 12850)


@exercise
def check_rough_count(answer: Any) -> None:
    """`answer(n_layer, n_embd, vocab_size)`: the blocks' weights and the token table, no more."""
    L, C, V = 5, 10, 100
    got = as_number(attempt(answer, L, C, V))
    blocks, table = 12 * L * C * C, V * C
    expect(got != 12 * L * C + table, "the width is not squared: a matrix has C rows and C columns")
    expect(got != blocks, "the token table is missing: V rows of C numbers")
    expect(got != blocks + V, "the token table has V rows of C numbers each: V C")
    expect(got != blocks + 2 * table, "the table is counted twice: GPT-2 and GPT-3 use it again as "
           "the output layer")
    expect(got != 4 * L * C * C + table, "that is attention alone: the feed-forward network has "
           "two matrices of 4 C times C, 8 C^2 together")
    expect(got != 12 * C * C + table, "that is one block: multiply by the number of layers")
    expect(got != 12 * (L * C)**2 + table, "only C is squared: L blocks have L times 12 C^2")
    expect(got == blocks + table, f"for L=5, C=10, V=100 the rule gives {blocks + table:,}; yours "
           f"gives {got:,.0f}")
    expect_agreement(answer, _rough_count, [(1, 1, 1), (3, 7, 2), (48, 1600, 50257)], tolerance=0)


def _rough_count(n_layer: int, n_embd: int, vocab_size: int) -> int:
    return 12 * n_layer * n_embd**2 + vocab_size * n_embd


@exercise
def check_misprint(answer: Any) -> None:
    """`answer(n_layer, width, n_head, head_dim, millions)`: None, "width" or "heads"."""
    def attempted(*row):
        # None is a right answer here, so it is wrapped: attempt takes a bare None for a stub
        return attempt(lambda *values: [answer(*values)], *row)[0]

    xl, wide = attempted(*_XL), attempted(*_13B)
    if xl in (None, ...) and wide in (None, ...):  # the stub
        attempt(answer, *_XL)
    expect(xl in (None, "width", "heads"), f'expected None, "width" or "heads", got {xl!r}')
    consistent = attempted(12, 768, 12, 64, 125)
    expect(consistent is None, f"the smallest GPT-3 has 12 heads of 64 and a width of 768, which "
           f"agree: the answer is None, yours is {consistent!r}")
    expect((xl, wide) != ("width", "heads"), "the two are exchanged: with the printed width of "
           "2048 the XL model has 1,316 million parameters, as table D.1 says, so its heads are "
           "the misprint")
    expect((xl, wide) != ("width", "width"), "you always blame the width: count the parameters "
           "with the printed width and see whether they come out")
    expect((xl, wide) != ("heads", "heads"), "you always blame the heads: for the 13B model, "
           "count with the printed width and with heads times head size, and compare both with "
           "the published number")
    expect((xl, wide) == ("heads", "width"), f"for the XL and the 13B model you answer {xl!r} and "
           f"{wide!r}")
    made_up = attempted(10, 1000, 8, 64, 58)  # 8 heads of 64 are 512: width 512 gives 58 million
    expect(made_up == "width", "for an invented row (10 layers, width 1000, 8 heads of 64, 58 "
           f"million) you answer {made_up!r}: do not look for GPT-3's names or sizes, count")
    larger = attempted(10, 512, 8, 125, 172), attempted(10, 1000, 8, 64, 172)
    expect(larger != ("heads", "width"), "you always believe the smaller of the two widths: "
           "count_gpt3 counts single parameters and `millions` counts millions, so divide the "
           "count by 10^6 before you compare; then compare distances, without their sign")
    for row in ((10, 512, 8, 125, 172), (10, 1000, 8, 64, 172), (1, 60, 4, 16, 3),
                (24, 1024, 16, 64, 1), (2, 128, 4, 16, 3), (30, 512, 2, 128, 60)):
        got, right = attempted(*row), _misprint(*row)
        expect(got == right, f"for the invented row {row} the answer is {right!r}, yours is "
               f"{got!r}: the row holds layers, width, heads, size of a head, millions")


def _misprint(n_layer: int, width: int, n_head: int, head_dim: int, millions: float) -> str | None:
    def miss(C: int) -> float:
        return abs(GPTConfig(50257, 2048, n_layer, 1, C).num_parameters() / 1e6 - millions)

    if n_head * head_dim == width:
        return None
    return "width" if miss(n_head * head_dim) < miss(width) else "heads"


@exercise
def check_training_days(answer: Any) -> None:
    """`answer(parameters, tokens, devices, peak, used)`: days of training by the rule 6 N D."""
    N, D, devices, peak, used = 1e9, 2e10, 8, 1e14, 0.5
    got = as_number(attempt(answer, N, D, devices, peak, used))
    days = _training_days(N, D, devices, peak, used)
    seconds = days * 86400

    def like(value):
        return abs(got / value - 1) < 1e-6

    expect(got > 0, "a training takes more than zero days")
    expect(not like(days / 3), "that is the forward pass alone, 2 N D: the backward pass costs "
           "4 N D more")
    expect(not like(days / 1.5), "that is the backward pass alone, 4 N D: the forward pass costs "
           "2 N D more")
    expect(not like(days / 6), "the factor 6 is missing: 2 operations forward and 4 backward for "
           "each parameter and token")
    expect(not like(days * used * used), "you multiplied by the share that is used: a machine that "
           "reaches half of its peak takes twice as long")
    expect(not like(days * used), "the share of the peak that is used is missing")
    expect(not like(days * devices) and not like(days * devices**2),
           "the devices work side by side: divide by their number")
    expect(not like(seconds), "these are seconds: a day has 86,400")
    expect(not like(seconds / 60), "these are minutes: a day has 1,440")
    expect(not like(seconds / 3600), "these are hours: a day has 24")
    expect(like(days), f"for a billion parameters, 20 billion tokens and 8 devices that reach half "
           f"of 10^14 operations a second the answer is {days:.3f} days; yours is {got:.3f}")
    expect_agreement(answer, _training_days, [
        (405e9, 15.6e12, 16_384, 989e12, 0.41), (124_439_808, 10**10, 1, 10**13, 1),
        (7e9, 2e12, 3, 3e14, 0.3)])


def _training_days(parameters: float, tokens: float, devices: int, peak: float, used: float
                   ) -> float:
    return 6 * parameters * tokens / (devices * peak * used) / 86400


@exercise
def check_compute_optimal(answer: Any) -> None:
    """`answer(operations)` -> (parameters, tokens) with 20 tokens for each parameter, C = 6 N D."""
    C = 1.2e20
    got = attempt(answer, C)
    expect(_is_a_pair(got), "expected two numbers: parameters and tokens")
    N, D = (as_number(value) for value in got)
    expect(N > 0 and D > 0, "both numbers must be positive")
    expect(abs(N / 2e10 - 1) > 1e-6 or abs(D / 1e9 - 1) > 1e-6,
           "the two are exchanged: parameters first; there are 20 tokens for each parameter, not "
           "20 parameters for each token")
    expect(abs(D / N / 20 - 1) < 1e-6, f"your tokens are {D / N:.3g} times your parameters; the "
           "rule of the Chinchilla paper is 20")
    spent = 6 * N * D
    expect(abs(spent / C / 6 - 1) > 1e-6, "the budget is used six times over: C = 6 N D, so N is "
           "the root of C / 120, not of C / 20")
    expect(abs(spent / C - 1) < 1e-6, f"6 N D of your answer is {spent:.3g} operations; the "
           f"budget is {C:.3g}. Put D = 20 N into C = 6 N D and take the square root")
    expect_agreement(answer, _compute_optimal, [(3.14e23,), (6 * 70e9 * 1.4e12,), (3 * 10**15,)])


def _compute_optimal(operations: float) -> tuple[float, float]:
    return math.sqrt(operations / 120), 20 * math.sqrt(operations / 120)


@exercise
def check_mixture(answer: Any) -> None:
    """`answer(L, C, H, K, D, F, experts, used, V)` -> (all parameters, those used for a token)."""
    shape = L, C, H, K, D, F, experts, used, V = (2, 7, 4, 2, 3, 5, 9, 2, 11)
    got = attempt(answer, *shape)
    expect(_is_a_pair(got), "expected two numbers: all parameters, and those that one token uses")
    total, active = (as_number(value) for value in got)
    parts = _mixture_parts(*shape)
    right = sum(parts.values())
    biases = L * (D * (H + 2 * K) + C + experts + experts * (2 * F + C))
    expect(total != right - biases, f"the biases are missing: {biases} in the small shape of the "
           "check; every matrix of a block has them, the router's and the experts' too")
    expect(total != right - L * experts * (C * F + F), "an expert has three matrices: gate, up and "
           "down; one of the first two is missing")
    for name, size in parts.items():
        expect(total != right - size, f"missing: {name}, {size} in the small shape of the check")
    expect(total != right - parts["the token table"] * 2, "the two tables of V rows are missing")
    expect(total != right + L * 2 * (H - K) * D * (C + 1), "keys and values have K heads each, "
           "fewer than the H of the queries")
    expect(right - total not in [L * (H * D - C) * n for n in (C, C + 1, 2 * C + 1)],
           "H heads of size D are not C wide here: queries and the output of attention have H D")
    expect(total != right - L * C, "each layer has two norms, not one")
    expect(total == right, f"for the shape {shape} the total is {right}; yours is {total:.0f}")
    _expect_active(active, shape, parts)
    expect_agreement(answer, _mixture, [(1, 4, 2, 2, 5, 3, 4, 4, 9), (3, 2, 6, 1, 1, 8, 1, 1, 2),
                                        (36, 2880, 64, 8, 64, 2880, 128, 4, 201_088)], tolerance=0)


def _expect_active(active: float, shape: tuple[int, ...], parts: dict[str, int]) -> None:
    """The second number, for a shape with 2 layers and 2 of 9 experts in use."""
    right, table, expert = sum(parts.values()), parts["the token table"], parts["the experts"] // 9
    expect(active != right, "active equals total: a token uses 2 of the 9 experts of each layer")
    expect(active != right - 7 * expert, "the token table is counted as active: a look-up reads "
           "one row of it (the output table is used whole)")
    expect(active != right - 7 * expert - 2 * table, "the output table is used for every token: it "
           "is active")
    expect(active != right - 2 * expert - table, "you took away the experts that work; the idle "
           "ones, experts - used, are not active")
    expect(active != right - 7 * expert // 2 - table, "every layer has idle experts: multiply by L")
    expect(active != right - 8 * expert - table, "not one expert works on a token but `used` of "
           "them")
    right_active = _mixture(*shape)[1]
    expect(active == right_active, f"for the small shape the active parameters are {right_active}; "
           f"yours are {active:.0f}")


def _mixture(L: int, C: int, H: int, K: int, D: int, F: int, experts: int, used: int, V: int
             ) -> tuple[int, int]:
    parts = _mixture_parts(L, C, H, K, D, F, experts, used, V)
    idle = parts["the experts"] // experts * (experts - used)
    return sum(parts.values()), sum(parts.values()) - idle - parts["the token table"]


def _mixture_parts(L: int, C: int, H: int, K: int, D: int, F: int, experts: int, used: int, V: int
                   ) -> dict[str, int]:
    """The parts of gpt-oss's shape."""
    return {
        "queries, keys and values": L * (C * D * (H + 2 * K) + D * (H + 2 * K)),
        "the output projection of attention": L * (H * D * C + C),
        "one number a head, which attention may look at instead of a token": L * H,
        "the router, with its biases": L * (C * experts + experts),
        "the experts": L * experts * (C * 2 * F + 2 * F + F * C + C),
        "two norms a layer": L * 2 * C,
        "the final norm": C,
        "the token table": V * C,
        "the output table": V * C,
    }


def _is_a_pair(result: Any) -> bool:
    return hasattr(result, "__len__") and getattr(result, "ndim", 1) > 0 and len(result) == 2
