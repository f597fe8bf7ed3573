import math

import pytest
import torch

from gptlib.checks import sequence_to_sequence as checks


def gru_step(x, h, w_x, w_h, b_x, b_h, **flaw):
    """The solution, or with a flaw: the name of what is done wrong."""
    x_r, x_z, x_n = (x @ w_x.T + b_x).chunk(3, dim=1)
    h_r, h_z, h_n = (h @ w_h.T + b_h).chunk(3, dim=1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    if flaw.get("gates_swapped"):
        r, z = z, r
    if flaw.get("reset_first"):
        h_n = (r * h) @ w_h[-4:].T + b_h[-4:]
    elif flaw.get("bias_outside"):
        h_n = r * (h @ w_h[-4:].T) + b_h[-4:]
    elif not flaw.get("no_reset"):
        h_n = r * h_n
    n = flaw.get("curve", torch.tanh)(x_n + h_n)
    return z * n + (1 - z) * h if flaw.get("mixed_up") else (1 - z) * n + z * h


def additive_context(query, states, mask, w_q, w_s, v):
    scores = torch.tanh((query @ w_q)[:, None] + states @ w_s) @ v
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    return (weights[:, None] @ states)[:, 0]


def scores_of(query, states, mask, w_q, w_s, v):
    return torch.tanh((query @ w_q)[:, None] + states @ w_s) @ v


def averaged(weights, states):
    return (weights[:, None] @ states)[:, 0]


def weights_only(*inputs):
    return scores_of(*inputs).masked_fill(~inputs[2], -math.inf).softmax(-1)


def inverted_mask(query, states, mask, *weights):
    return additive_context(query, states, ~mask, *weights)


def masked_late(*inputs):
    return averaged(scores_of(*inputs).softmax(-1) * inputs[2], inputs[1])


def over_the_batch(*inputs):
    scores = scores_of(*inputs).masked_fill(~inputs[2], -math.inf)
    return averaged(scores.softmax(0), inputs[1])


def without_tanh(query, states, mask, w_q, w_s, v):
    scores = ((query @ w_q)[:, None] + states @ w_s) @ v
    return averaged(scores.masked_fill(~mask, -math.inf).softmax(-1), states)


def multiplied(query, states, mask, w_q, w_s, v):
    scores = torch.tanh((query @ w_q)[:, None] * (states @ w_s)) @ v
    return averaged(scores.masked_fill(~mask, -math.inf).softmax(-1), states)


def no_mask(query, states, mask, *weights):
    return additive_context(query, states, torch.ones_like(mask), *weights)


def plain_average(query, states, mask, *weights):
    return averaged(mask / mask.sum(1, keepdim=True), states)


def mix_inputs(inputs, guesses, keep):
    before = torch.cat((inputs[:, :1], guesses[:, :-1]), dim=1)
    return torch.where(keep, inputs, before)


def restore_in_pieces(restore, source, most):
    words, step = source.split(" "), most - 1
    restored = restore(" ".join(words[:most])).split(" ")
    for start in range(most, len(words), step):
        piece = " ".join(words[start - 1:start + step])
        restored += restore(piece).split(" ")[1:]
    return " ".join(restored)


def no_context(restore, source, most):
    words = source.split(" ")
    return " ".join(restore(" ".join(words[i:i + most])) for i in range(0, len(words), most))


def with_repeats(restore, source, most):
    words = source.split(" ")
    return " ".join(restore(" ".join(words[i:i + most]))
                    for i in range(0, len(words) - 1, most - 1))


def too_long(restore, source, most):
    return restore_in_pieces(restore, source, most + 1)


def loses_empty_words(restore, source, most):
    return restore_in_pieces(restore, " ".join(source.split()), most)


def loses_the_end(restore, source, most):
    words = source.split(" ")
    return restore_in_pieces(restore, " ".join(words[:-2]), most)


def wasteful(restore, source, most):
    return restore_in_pieces(restore, source, 2)


def context_for_one_piece(restore, source, most):
    whole = restore_in_pieces(restore, source, most)
    if len(source.split(" ")) <= most:
        restore(source)
    return whole


def shuffled(restore, source, most):
    return " ".join(restore_in_pieces(restore, source, most).split(" ")[::-1][1:] + ["wd+"])


CASES = [
    ("gru_step", lambda *i: gru_step(*i, reset_first=True), "before the matrix product"),
    ("gru_step", lambda *i: gru_step(*i, bias_outside=True), "inside the bracket"),
    ("gru_step", lambda *i: gru_step(*i, mixed_up=True), "the other way round"),
    ("gru_step", lambda *i: gru_step(*i, gates_swapped=True), "swapped the gates"),
    ("gru_step", lambda *i: gru_step(*i, no_reset=True), "nothing is multiplied"),
    ("gru_step", lambda *i: gru_step(*i, curve=torch.sigmoid), "not through the sigmoid"),
    ("gru_step", lambda *i: gru_step(*i, curve=lambda n: n), "no tanh"),
    ("gru_step", lambda x, h, w_x, w_h, b_x, b_h: gru_step(x, h, w_x, w_h, 0 * b_x, 0 * b_h),
     "left out the biases"),
    ("gru_step", lambda x, h, *weights: h.clone(), "yours is"),
    ("gru_step", lambda x, h, *weights: h[0], "has shape (4,)"),
    ("gru_step", lambda *i: 0.5, "expected a tensor, got float"),
    ("gru_step", lambda x, h, w_x, *weights: x @ w_x, "your function raised RuntimeError"),
    ("additive_context", weights_only, "these are the weights"),
    ("additive_context", inverted_mask, "nan"),
    ("additive_context", no_mask, "the padding"),
    ("additive_context", without_tanh, "the query cancels"),
    ("additive_context", multiplied, "you multiplied"),
    ("additive_context", masked_late, "masked after the softmax"),
    ("additive_context", over_the_batch, "over the batch"),
    ("additive_context", plain_average, "the plain average"),
    ("additive_context", lambda q, s, m, *w: s[:, 0], "yours is"),
    ("additive_context", lambda q, s, m, *w: s, "has shape (2, 5, 3)"),
    ("additive_context", lambda *i: [0.0], "expected a tensor, got list"),
    ("mix_inputs", lambda i, g, k: torch.where(k, i, g), "shift by one"),
    ("mix_inputs", lambda i, g, k: torch.cat((i[:, :1], torch.where(k, i, g)[:, 1:]), 1),
     "shift by one"),
    ("mix_inputs", lambda i, g, k: torch.where(k, i, g.roll(1, 1)), "the first input"),
    ("mix_inputs", lambda i, g, k: mix_inputs(i, g, ~k), "the wrong way round"),
    ("mix_inputs", lambda i, g, k: mix_inputs(i, g, torch.zeros_like(k)), "every input"),
    ("mix_inputs", lambda i, g, k: i + 0, "nothing was replaced"),
    ("mix_inputs", lambda i, g, k: i + 1, "yours is"),
    ("mix_inputs", lambda i, g, k: mix_inputs(i, g, k)[:, 1:], "expected a tensor of shape"),
    ("mix_inputs", lambda i, g, k: i.masked_scatter_(~k, g), "in place"),
    ("restore_in_pieces", no_context, "no word of context"),
    ("restore_in_pieces", with_repeats, "appears twice"),
    ("restore_in_pieces", too_long, "5 words at once"),
    ("restore_in_pieces", lambda r, s, m: r(s), "12 words at once"),
    ("restore_in_pieces", loses_empty_words, "an empty word was lost"),
    ("restore_in_pieces", loses_the_end, "the end of the source is missing"),
    ("restore_in_pieces", wasteful, "4 calls are enough"),
    ("restore_in_pieces", context_for_one_piece, "one call and no context"),
    ("restore_in_pieces", shuffled, "the restored words are"),
    ("restore_in_pieces", lambda r, s, m: s, "never called restore"),
    ("restore_in_pieces", lambda r, s, m: [r(s)], "expected a string, got list"),
]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message, verdict.message


@pytest.mark.parametrize("name", ["gru_step", "additive_context", "mix_inputs",
                                  "restore_in_pieces"])
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"


def test_pytorchs_own_cell_passes_the_check_of_the_gru():
    def by_library(x, h, w_x, w_h, b_x, b_h):
        cell = torch.nn.GRUCell(x.shape[1], h.shape[1])
        cell.load_state_dict({"weight_ih": w_x, "weight_hh": w_h, "bias_ih": b_x, "bias_hh": b_h})
        return cell(x, h).detach()

    assert checks.check_gru_step.judge(by_library).status == "correct"
