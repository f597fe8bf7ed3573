"""Checks of chapter 1.1, the history of GPT."""

from typing import Any

from gptlib.checks import attempt, exercise, expect

_XL = (24, 2048, 24, 128, 1320)  # two rows of Brown et al. (2020), table 2.1 and table D.1
_13B = (40, 5140, 40, 128, 12850)


@exercise
def check_rough_count(answer: Any) -> None:
    """`answer(n_layer, n_embd, vocab_size)`: the blocks' weights and the token table, no more."""
    L, C, V = 5, 10, 100
    got = _number(attempt(answer, L, C, V))
    blocks, table = 12 * L * C * C, V * C
    expect(got != 12 * L * C + table, "the width is not squared: a matrix has C rows and C columns")
    expect(got != blocks, "the token table is missing: V rows of C numbers")
    expect(got != blocks + 2 * table, "the table is counted twice: GPT-2 and GPT-3 use it again as "
           "the output layer")
    expect(got != 4 * L * C * C + table, "that is attention alone: the feed-forward network has "
           "two matrices of 4 C times C, 8 C^2 together")
    expect(got != 12 * C * C + table, "that is one block: multiply by the number of layers")
    expect(got == blocks + table, f"for L=5, C=10, V=100 the rule gives {blocks + table:,}; yours "
           f"gives {got:,.0f}")


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


@exercise
def check_training_days(answer: Any) -> None:
    """`answer(parameters, tokens, devices, peak, used)`: days of training by the rule 6 N D."""
    N, D, devices, peak, used = 1e9, 2e10, 8, 1e14, 0.5
    got = _number(attempt(answer, N, D, devices, peak, used))
    seconds = 6 * N * D / (devices * peak * used)
    days = seconds / 86400

    def like(value):
        return abs(got / value - 1) < 1e-6

    expect(got > 0, "a training takes more than zero days")
    expect(not like(days / 3), "that is the forward pass alone, 2 N D: the backward pass costs "
           "4 N D more")
    expect(not like(days / 6), "the factor 6 is missing: 2 operations forward and 4 backward for "
           "each parameter and token")
    expect(not like(days * used * used), "you multiplied by the share that is used: a machine that "
           "reaches half of its peak takes twice as long")
    expect(not like(days * used), "the share of the peak that is used is missing")
    expect(not like(days * devices) and not like(days * devices**2),
           "the devices work side by side: divide by their number")
    expect(not like(seconds), "these are seconds: a day has 86,400")
    expect(not like(seconds / 3600), "these are hours: a day has 24")
    expect(like(days), f"for a billion parameters, 20 billion tokens and 8 devices that reach half "
           f"of 10^14 operations a second the answer is {days:.3f} days; yours is {got:.3f}")


@exercise
def check_compute_optimal(answer: Any) -> None:
    """`answer(operations)` -> (parameters, tokens) with 20 tokens for each parameter, C = 6 N D."""
    C = 1.2e20
    got = attempt(answer, C)
    expect(isinstance(got, (tuple, list)) and len(got) == 2,
           "expected two numbers: parameters and tokens")
    N, D = (_number(value) for value in got)
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


@exercise
def check_mixture(answer: Any) -> None:
    """`answer(L, C, H, K, D, F, experts, used, V)` -> (all parameters, those used for a token)."""
    shape = (2, 6, 4, 2, 3, 5, 7, 2, 11)
    got = attempt(answer, *shape)
    expect(isinstance(got, (tuple, list)) and len(got) == 2,
           "expected two numbers: all parameters, and those that one token uses")
    total, active = (_number(value) for value in got)
    parts = _mixture_parts(*shape)
    right = sum(parts.values())
    L, C, H, K, D, F, experts, _, _ = shape
    biases = L * (D * (H + 2 * K) + C + experts + experts * (2 * F + C))
    expect(total != right - biases, f"the biases are missing: {biases} in the small shape of the "
           "check; every matrix of a block has them, the router's and the experts' too")
    expect(total != right - L * experts * (C * F + F), "an expert has three matrices: gate, up and "
           "down; one of the first two is missing")
    for name, size in parts.items():
        expect(total != right - size, f"missing: {name}, {size} in the small shape of the check")
    expect(total != right - parts["the token table"] * 2, "the two tables of V rows are missing")
    expect(total == right, f"for the shape {shape} the total is {right}; yours is {total:.0f}")
    expert = parts["the experts"] // 7
    expect(active != right, "active equals total: a token uses 2 of the 7 experts of each layer")
    expect(active != right - 5 * expert, "the token table is counted as active: a look-up reads "
           "one row of it (the output table is used whole)")
    expect(active != right - 5 * expert - 2 * parts["the token table"], "the output table is used "
           "for every token: it is active")
    right_active = right - 5 * expert - parts["the token table"]
    expect(active == right_active, f"for the small shape the active parameters are {right_active}; "
           f"yours are {active:.0f}")


def _mixture_parts(L, C, H, K, D, F, experts, used, V) -> dict[str, int]:
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


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        expect(False, f"expected a number, got {value!r}")
