"""Checks of chapter 2.2.4, sequence to sequence."""

import torch

from gptlib.checks import attempt, close, exercise, expect


@exercise
def check_gru_step(gru_step) -> None:
    """`gru_step(x, h, w_x, w_h, b_x, b_h)` -> the next state (B, C), with PyTorch's weights.

    The four tensors are those of `torch.nn.GRUCell`: (3 C, I), (3 C, C), (3 C,) and (3 C,), the
    rows of the reset gate first, then those of the update gate, then those of the proposal.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator)
              for shape in ((2, 3), (2, 4), (12, 3), (12, 4), (12,), (12,))]
    got = attempt(gru_step, *inputs)
    expect(isinstance(got, torch.Tensor), f"expected a tensor, got {type(got).__name__}")
    expect(got.shape == (2, 4), f"the new state has shape {tuple(got.shape)}, expected (2, 4): "
           "one row of C numbers for each row of the batch")
    expect(not close(got, _gru(*inputs, reset_first=True), 1e-4),
           "you multiplied h by the reset gate before the matrix product, as Cho et al. (2014) "
           "print it; PyTorch multiplies the product W h + b by the gate")
    expect(not close(got, _gru(*inputs, bias_outside=True), 1e-4),
           "the bias b_h of the proposal belongs inside the bracket that the reset gate "
           "multiplies: r * (W h + b_h)")
    expect(not close(got, _gru(*inputs, keep_new=True), 1e-4),
           "your update gate works the other way round: z near 1 must keep the old state, "
           "h' = (1 - z) n + z h")
    expect(not close(got, _gru(*inputs, swapped=True), 1e-4),
           "you swapped the gates: PyTorch's first C rows belong to the reset gate, the next C "
           "rows to the update gate")
    expect(not close(got, _gru(*inputs, no_reset=True), 1e-4),
           "you compute the reset gate but nothing is multiplied by it")
    expect(not close(got, _gru(*inputs, squash=torch.sigmoid), 1e-4),
           "the proposal goes through tanh, not through the sigmoid: a state may be negative")
    expect(not close(got, _gru(*inputs, squash=lambda value: value), 1e-4),
           "the proposal has no tanh: states would grow without limit")
    x, h, w_x, w_h, b_x, b_h = inputs
    expect(not close(got, _gru(x, h, w_x, w_h, b_x * 0, b_h * 0), 1e-4), "you left out the biases")
    right = _gru(*inputs)
    expect(close(got, right, 1e-4), f"on a small random cell the first row should be "
           f"{_rounded(right[0])}; yours is {_rounded(got[0])}")


@exercise
def check_additive_context(additive_context) -> None:
    """`additive_context(query, states, mask, w_q, w_s, v)` -> the context (B, C).

    query (B, C), states (B, S, C), mask (B, S) with True for real positions, w_q and w_s (C, A),
    v (A,).
    """
    generator = torch.Generator().manual_seed(1)
    query, states, w_q, w_s, v = (
        torch.randn(shape, generator=generator)
        for shape in ((2, 3), (2, 5, 3), (3, 4), (3, 4), (4,)))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    inputs = (query, states, mask, w_q, w_s, v)
    got = attempt(additive_context, *inputs)
    expect(isinstance(got, torch.Tensor), f"expected a tensor, got {type(got).__name__}")
    weights, right = _additive(*inputs)
    expect(not (got.shape == weights.shape and close(got, weights, 1e-4)),
           "these are the weights: the context is the average of the states under them")
    expect(got.shape == (2, 3), f"the context has shape {tuple(got.shape)}, expected (2, 3): one "
           "vector of C numbers for each row of the batch")
    expect(not got.isnan().any(), "nan: a row of scores is -inf everywhere; True in the mask marks "
           "the positions to keep")
    expect(not close(got, _additive(query, states, ~mask | mask, w_q, w_s, v)[1], 1e-4),
           "you look at the padding: set its scores to -inf before the softmax")
    expect(not close(got, _additive(query, states, mask, w_q, w_s, v, curve=lambda s: s)[1], 1e-4),
           "without tanh the query cancels: it adds the same number to every score, and the "
           "softmax ignores that")
    expect(not close(got, _additive(*inputs, multiply=True)[1], 1e-4),
           "you multiplied W q and W s: additive attention adds them before the tanh")
    zeroed = weights.new_tensor(_unnormalised(*inputs))
    expect(not close(got, (zeroed[..., None] * states).sum(1), 1e-4),
           "the weights of the second row do not sum to 1: you masked after the softmax; mask the "
           "scores")
    across = _scores(query, states, w_q, w_s, v).masked_fill(~mask, -1e9).softmax(0)
    expect(not close(got, (across[..., None] * states).sum(1), 1e-4),
           "your softmax runs over the batch: it must run over the positions of one source")
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expect(not close(got, mean, 1e-4), "this is the plain average of the states: the query has no "
           "effect")
    expect(close(got, right, 1e-4), f"in a small random case the first row should be "
           f"{_rounded(right[0])}; yours is {_rounded(got[0])}")


@exercise
def check_mix_inputs(mix_inputs) -> None:
    """`mix_inputs(inputs, guesses, keep)` -> (B, T): inputs, some replaced by earlier guesses.

    inputs (B, T) are the tokens that a teacher would show, guesses (B, T) the model's best token
    at each position, keep (B, T) is True where the teacher's token stays.
    """
    inputs = torch.tensor([[1, 10, 11, 12, 13], [1, 20, 21, 22, 23]])
    guesses = torch.tensor([[50, 51, 52, 53, 54], [60, 61, 62, 63, 64]])
    keep = torch.tensor([[False, True, False, True, False], [True, False, True, False, True]])
    right = torch.tensor([[1, 10, 51, 12, 53], [1, 60, 21, 62, 23]])
    got = attempt(mix_inputs, inputs, guesses, keep)
    expect(isinstance(got, torch.Tensor) and got.shape == inputs.shape,
           f"expected a tensor of shape (2, 5), got {tuple(getattr(got, 'shape', ()))}")
    unshifted = torch.where(keep, inputs, guesses)
    later = torch.cat((unshifted[:, :1] * 0 + 1, unshifted[:, 1:]), dim=1)
    expect(not torch.equal(got, unshifted) and not torch.equal(got, later),
           "you put the guess of position t into input t: it is the guess for the token that "
           "comes after it, so the answer would stand in the question; shift by one")
    rolled = torch.where(keep, inputs, guesses.roll(1, dims=1))
    expect(not torch.equal(got, rolled),
           "the first input was replaced: nothing was guessed before it, and the start mark stays "
           "whatever keep says")
    shifted = torch.cat((inputs[:, :1], guesses[:, :-1]), dim=1)
    expect(not torch.equal(got, torch.where(keep, shifted, inputs)),
           "keep is used the wrong way round: True means that the teacher's token stays")
    expect(not torch.equal(got, shifted), "you replaced every input: keep has no effect")
    expect(not torch.equal(got, inputs), "nothing was replaced: keep has no effect")
    expect(torch.equal(got, right), f"for inputs {inputs[0].tolist()}, guesses "
           f"{guesses[0].tolist()} and keep {keep[0].int().tolist()} the answer is "
           f"{right[0].tolist()}; yours is {got[0].tolist()}")


@exercise
def check_restore_in_pieces(restore_in_pieces) -> None:
    """`restore_in_pieces(restore, source, most)` -> the whole restored text.

    `restore` turns a string into a string and is trusted for at most `most` words. Every piece
    but the first begins with the last word of the piece before, as context; that word's
    restoration is dropped.
    """
    source = "n pn  tm thr ws  lttl grl lvd  wd"  # 12 words, three of them empty
    got, calls = _watched(restore_in_pieces, source, 4)
    words = source.split(" ")
    expect(isinstance(got, str), f"expected a string, got {type(got).__name__}")
    longest = max((len(call.split(" ")) for call in calls), default=0)
    expect(longest > 0, "you never called restore")
    expect(longest <= 4, f"you gave restore {longest} words at once: at most {4}, the word of "
           "context included")
    right = " ".join(f"{word}+" for word in words)
    expect(not got.split(" ") == [f"{word}+" for word in source.split()],
           'an empty word was lost: the source has two spaces where "a" stood; split(" ") keeps '
           "an empty word, split() does not")
    repeated = [word for i in range(0, len(words) - 1, 3) for word in words[i:i + 4]]
    expect(got != " ".join(f"{word}+" for word in repeated),
           "the word of context appears twice: drop the first restored word of every piece after "
           "the first")
    last_call = calls[-1].split(" ")
    expect(got.split(" ")[-1:] == ["wd+"] and last_call[-1] == "wd", "the end of the source is "
           "missing: the last piece is shorter than the others")
    no_context = [" ".join(words[i:i + 4]) for i in range(0, len(words), 4)]
    expect(calls != no_context, "your pieces have no word of context: each piece after the first "
           "starts with the last word of the piece before")
    expect(got == right, f"the restored words are {got!r}, expected {right!r}")
    expect(len(calls) == 4, f"you called restore {len(calls)} times for 12 words; 4 calls are "
           "enough: 4 new words in the first, at most 3 in each of the others")
    whole, calls = _watched(restore_in_pieces, "thr ws  grl", 8)
    expect(whole == "thr+ ws+ + grl+" and len(calls) == 1,
           "a source that fits into one piece needs one call and no context")


def _gru(x, h, w_x, w_h, b_x, b_h, *, reset_first=False, bias_outside=False, keep_new=False,
         swapped=False, no_reset=False, squash=torch.tanh):
    """One GRU step in PyTorch's form, or with one of the likely mistakes."""
    x_r, x_z, x_n = (x @ w_x.T + b_x).chunk(3, dim=1)
    h_r, h_z, h_n = (h @ w_h.T + b_h).chunk(3, dim=1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    if swapped:
        r, z = z, r
    _, _, bias = b_h.chunk(3)
    _, _, matrix = w_h.chunk(3)
    if reset_first:
        h_n = (r * h) @ matrix.T + bias
    elif bias_outside:
        h_n = r * (h_n - bias) + bias
    elif not no_reset:
        h_n = r * h_n
    n = squash(x_n + h_n)
    return z * n + (1 - z) * h if keep_new else (1 - z) * n + z * h


def _scores(query, states, w_q, w_s, v, curve=torch.tanh, multiply=False):
    asked, offered = (query @ w_q)[:, None], states @ w_s
    return curve(asked * offered if multiply else asked + offered) @ v


def _additive(query, states, mask, w_q, w_s, v, **options):
    scores = _scores(query, states, w_q, w_s, v, **options)
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return weights, (weights[..., None] * states).sum(1)


def _unnormalised(query, states, mask, w_q, w_s, v):
    return (_scores(query, states, w_q, w_s, v).softmax(-1) * mask).tolist()


def _watched(restore_in_pieces, source, most):
    """The reader's answer with a `restore` that adds a + to each word, and the pieces it got."""
    calls = []

    def restore(piece):
        calls.append(piece)
        return " ".join(f"{word}+" for word in piece.split(" "))

    return attempt(restore_in_pieces, restore, source, most), calls


def _rounded(row) -> list[float]:
    return [round(value, 3) for value in row.tolist()]
