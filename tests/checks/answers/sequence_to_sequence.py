"""Answers to the exercises of chapter 2.2.4: right ones written otherwise, and wrong ones."""

import math

import torch


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


def gru_by_library(x, h, w_x, w_h, b_x, b_h):
    cell = torch.nn.GRUCell(x.shape[1], h.shape[1])
    cell.load_state_dict({"weight_ih": w_x, "weight_hh": w_h, "bias_ih": b_x, "bias_hh": b_h})
    return cell(x, h)


def gru_by_rows(x, h, w_x, w_h, b_x, b_h):
    C = h.shape[1]
    rows = []
    for x_, h_ in zip(x, h):
        a, b = w_x @ x_ + b_x, w_h @ h_ + b_h
        r, z = 1 / (1 + (-a[:C] - b[:C]).exp()), 1 / (1 + (-a[C:2 * C] - b[C:2 * C]).exp())
        n = torch.tanh(a[2 * C:] + r * b[2 * C:])
        rows.append((n + z * (h_ - n)).tolist())
    return rows


def gru_of_four(x, h, w_x, w_h, b_x, b_h):
    return gru_step(x, h, w_x, w_h, b_x, b_h, reset_first=False) if h.shape[1] == 4 else h


def additive_by_rows(query, states, mask, w_q, w_s, v):
    contexts = []
    for q, rows, real in zip(query, states, mask):
        rows = rows[real]
        scores = torch.stack([torch.dot(v, torch.tanh(w_q.T @ q + w_s.T @ row)) for row in rows])
        contexts.append(scores.softmax(0) @ rows)
    return contexts


def additive_with_large_number(query, states, mask, w_q, w_s, v):
    scores = torch.einsum("bsa,a->bs", torch.tanh(query.unsqueeze(1) @ w_q + states @ w_s), v)
    weights = torch.softmax(scores - 1e9 * (1 - mask.float()), dim=1)
    return torch.einsum("bs,bsc->bc", weights, states).numpy()


def scores_times_mask(*inputs):
    return averaged((scores_of(*inputs) * inputs[2]).softmax(-1), inputs[1])


def mask_by_length(query, states, mask, *weights):
    real = torch.arange(mask.shape[1]) < mask.sum(1, keepdim=True)
    return additive_context(query, states, real, *weights)


def mix_on_a_copy(inputs, guesses, keep):
    mixed = inputs.clone()
    mixed[:, 1:][~keep[:, 1:]] = guesses[:, :-1][~keep[:, 1:]]
    return mixed


def mix_in_lists(inputs, guesses, keep):
    rows = inputs.tolist()
    for b, row in enumerate(rows):
        for t in range(1, len(row)):
            if not keep[b, t]:
                row[t] = int(guesses[b, t - 1])
    return rows


def mix_with_start_1(inputs, guesses, keep):
    before = torch.cat((torch.ones_like(inputs[:, :1]), guesses[:, :-1]), dim=1)
    return torch.where(keep, inputs, before)


def pieces_with_while(restore, source, most):
    rest, done = source.split(" "), []
    while True:
        piece, rest = rest[:most], rest[most:]
        done += restore(" ".join(piece)).split(" ")[1 if done else 0:]
        if not rest:
            return " ".join(done)
        rest = [piece[-1], *rest]


def balanced_pieces(restore, source, most):
    words = source.split(" ")
    number = 1 + max(0, math.ceil((len(words) - most) / (most - 1)))
    edges = [round(1 + (len(words) - 1) * i / number) for i in range(number + 1)]
    done = []
    for start, stop in zip(edges, edges[1:]):
        done += restore(" ".join(words[start - 1:stop])).split(" ")[1 if done else 0:]
    return " ".join(done)


def drops_the_last_of_the_piece_before(restore, source, most):
    words, done = source.split(" "), []
    done = restore(" ".join(words[:most])).split(" ")
    for start in range(most, len(words), most - 1):
        done = done[:-1] + restore(" ".join(words[start - 1:start + most - 1])).split(" ")
    return " ".join(done)


def in_fours(restore, source, most):
    return restore_in_pieces(restore, source, most if most == 8 else 4)


def one_call_too_many(restore, source, most):
    """A last piece that holds the word of context alone, where the words come out even."""
    words, done = source.split(" "), []
    for start in range(0, max(1, len(words)), most - 1):
        done += restore(" ".join(words[start:start + most])).split(" ")[1 if done else 0:]
        if start + most > len(words):
            break
    return " ".join(done)


OTHERWISE = [
    ("check_gru_step", gru_by_library),
    ("check_gru_step", gru_by_rows),
    ("check_additive_context", additive_by_rows),
    ("check_additive_context", additive_with_large_number),
    ("check_mix_inputs", mix_on_a_copy),
    ("check_mix_inputs", mix_in_lists),
    ("check_restore_in_pieces", pieces_with_while),
    ("check_restore_in_pieces", balanced_pieces),
]

MISTAKES = [
    ("check_gru_step", lambda *i: gru_step(*i, reset_first=True), "before the matrix product"),
    ("check_gru_step", lambda *i: gru_step(*i, bias_outside=True), "inside the bracket"),
    ("check_gru_step", lambda *i: gru_step(*i, mixed_up=True), "the other way round"),
    ("check_gru_step", lambda *i: gru_step(*i, gates_swapped=True), "swapped the gates"),
    ("check_gru_step", lambda *i: gru_step(*i, no_reset=True), "nothing is multiplied"),
    ("check_gru_step", lambda *i: gru_step(*i, curve=torch.sigmoid), "not through the sigmoid"),
    ("check_gru_step", lambda *i: gru_step(*i, curve=lambda n: n), "no tanh"),
    ("check_gru_step", lambda x, h, w_x, w_h, b_x, b_h: gru_step(x, h, w_x, w_h, 0 * b_x, 0 * b_h),
     "left out the biases"),
    ("check_gru_step", lambda x, h, *weights: h.clone(), "yours is"),
    ("check_gru_step", lambda x, h, *weights: h[0], "has shape (4,)"),
    ("check_gru_step", lambda *i: 0.5, "has shape ()"),
    ("check_gru_step", lambda x, h, w_x, *weights: x @ w_x, "your function raised RuntimeError"),
    ("check_additive_context", weights_only, "these are the weights"),
    ("check_additive_context", inverted_mask, "nan"),
    ("check_additive_context", no_mask, "the padding"),
    ("check_additive_context", without_tanh, "the query cancels"),
    ("check_additive_context", multiplied, "you multiplied"),
    ("check_additive_context", masked_late, "masked after the softmax"),
    ("check_additive_context", over_the_batch, "over the batch"),
    ("check_additive_context", plain_average, "the plain average"),
    ("check_additive_context", lambda q, s, m, *w: s[:, 0], "yours is"),
    ("check_additive_context", lambda q, s, m, *w: s, "has shape (2, 5, 3)"),
    ("check_additive_context", lambda *i: [0.0], "has shape (1,)"),
    ("check_mix_inputs", lambda i, g, k: torch.where(k, i, g), "shift by one"),
    ("check_mix_inputs", lambda i, g, k: torch.cat((i[:, :1], torch.where(k, i, g)[:, 1:]), 1),
     "shift by one"),
    ("check_mix_inputs", lambda i, g, k: torch.where(k, i, g.roll(1, 1)), "the first input"),
    ("check_mix_inputs", lambda i, g, k: mix_inputs(i, g, ~k), "the wrong way round"),
    ("check_mix_inputs", lambda i, g, k: mix_inputs(i, g, torch.zeros_like(k)), "every input"),
    ("check_mix_inputs", lambda i, g, k: i + 0, "nothing was replaced"),
    ("check_mix_inputs", lambda i, g, k: i + 1, "yours is"),
    ("check_mix_inputs", lambda i, g, k: mix_inputs(i, g, k)[:, 1:], "expected a tensor of shape"),
    ("check_mix_inputs", lambda i, g, k: i.masked_scatter_(~k, g), "in place"),
    ("check_restore_in_pieces", no_context, "no word of context"),
    ("check_restore_in_pieces", with_repeats, "appears twice"),
    ("check_restore_in_pieces", too_long, "5 words at once"),
    ("check_restore_in_pieces", lambda r, s, m: r(s), "12 words at once"),
    ("check_restore_in_pieces", loses_empty_words, "an empty word was lost"),
    ("check_restore_in_pieces", loses_the_end, "the end of the source is missing"),
    ("check_restore_in_pieces", wasteful, "4 calls are enough"),
    ("check_restore_in_pieces", context_for_one_piece, "one call and no context"),
    ("check_restore_in_pieces", shuffled, "the restored words are"),
    ("check_restore_in_pieces", lambda r, s, m: s, "never called restore"),
    ("check_restore_in_pieces", lambda r, s, m: [r(s)], "expected a string, got list"),
    ("check_gru_step", gru_of_four, "wrong for"),
    ("check_additive_context", scores_times_mask, "you multiplied the scores by the mask"),
    ("check_additive_context", mask_by_length, "wrong for"),
    ("check_mix_inputs", mix_with_start_1, "wrong for ([[7]]"),
    ("check_restore_in_pieces", drops_the_last_of_the_piece_before, "drop the word of context"),
    ("check_restore_in_pieces", in_fours, "and most = 5"),
    ("check_restore_in_pieces", one_call_too_many, "times"),
]
