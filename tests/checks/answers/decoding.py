"""Answers to the exercises of chapter 7.1: right ones written otherwise, and wrong ones."""

import math

import numpy as np
import torch


def greedy(position=-1, dim=1, extra=0, only_new=False, once=False, newest=False):
    def answer(model, ids, count):
        start = ids
        for _ in range(count + extra):
            read = start if once else ids[:, -1:] if newest else ids
            new = model(read)[:, position].argmax(-1)
            ids = torch.cat((ids, new[:, None].expand(1, 1 if dim else ids.shape[1])), dim=dim)
        return ids[:, start.shape[1]:] if only_new else ids
    return answer


def greedy_in_a_list(model, ids, count):
    row = ids[0].tolist()
    while len(row) < ids.shape[1] + count:
        row.append(int(model(torch.tensor([row]))[0, -1].argmax()))
    return [row]


def greedy_into_room(model, ids, count):
    T = ids.shape[1]
    text = torch.zeros(1, T + count, dtype=torch.int32)
    text[:, :T] = ids
    for t in range(T, T + count):
        text[0, t] = model(text[:, :t].long()).softmax(-1)[0, t - 1].topk(1).indices.item()
    return text


def greedy_without_a_batch(model, ids, count):
    row = ids[0]
    for _ in range(count):
        row = torch.cat((row, model(row)[-1].argmax()[None]))
    return row[None]


def draws(model, ids, count):
    for _ in range(count):
        ids = torch.cat((ids, torch.multinomial(model(ids)[:, -1].softmax(-1), 1)), 1)
    return ids


def nucleus(keep=lambda before, total, p: before < p, order=False,
            probabilities=lambda z: z.softmax(-1)):
    def answer(logits, p):
        ranked, ids = logits.sort(descending=True)
        share = probabilities(ranked)
        ranked = ranked.masked_fill(~keep(share.cumsum(-1) - share, share.cumsum(-1), p), -math.inf)
        return ranked if order else torch.empty_like(logits).scatter(0, ids, ranked)
    return answer


def nucleus_from_below(logits, p):
    """Take away the tail: in rising order, while its sum stays within 1 - p."""
    ranked, ids = logits.sort()
    tail = ids[ranked.softmax(0).cumsum(0) <= 1 - p]
    result = logits.clone()
    result[tail] = -math.inf
    return result


def nucleus_by_a_loop(logits, p):
    result, total = [-math.inf] * len(logits), 0.0
    probabilities = torch.softmax(logits, -1).tolist()
    for token in sorted(range(len(logits)), key=lambda i: -probabilities[i]):
        if total >= p:
            break
        result[token] = logits[token].item()
        total += probabilities[token]
    return result


def nucleus_in_numpy(logits, p):
    z = logits.numpy().copy()
    order = np.argsort(-z)
    probability = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    z[order[np.searchsorted(probability[order].cumsum(), p) + 1:]] = -np.inf
    return z


def roll_without_zero(before, total, p):
    return total.roll(1) < p


def keeps_first(logits, p):
    result = nucleus(lambda before, total, p: total <= p)(logits, p)
    result[logits.argmax()] = logits.max()
    return result


def one_token_late(before, total, p):
    return torch.cat((torch.tensor([True]), (before < p)[:-1]))


def unsorted(logits, p):
    share = logits.softmax(-1)
    return logits.masked_fill(share.cumsum(-1) - share >= p, -math.inf)


def changes_input(logits, p):
    logits[0] = 0
    return logits


def positions(prompt, new, cached):
    return prompt + new - 1 if cached else sum(prompt + i for i in range(new))


def positions_by_steps(prompt, new, cached):
    """Text grows by one; with a cache what has been read is not read again."""
    computed, length, read = 0, prompt, 0
    for _ in range(new):
        computed += length - read
        read = length if cached else 0
        length += 1
    return computed


def correction(p, q):
    rest = (p - q).clamp(min=0)
    return (p / q).clamp(max=1), rest / rest.sum()


def correction_in_lists(p, q):
    accept = [min(1.0, a / b) for a, b in zip(p.tolist(), q.tolist())]
    more = [max(0.0, a - b) for a, b in zip(p.tolist(), q.tolist())]
    return [accept, [value / sum(more) for value in more]]


def correction_by_what_is_left(p, q):
    accepted = torch.minimum(p, q)
    return accepted / q, (p - accepted) / (1 - accepted.sum())


OTHERWISE = [
    ("check_greedy", greedy_in_a_list),
    ("check_greedy", greedy_into_room),
    ("check_greedy", lambda *inputs: greedy()(*inputs).numpy()),
    ("check_nucleus", nucleus_from_below),
    ("check_nucleus", nucleus_by_a_loop),
    ("check_nucleus", nucleus_in_numpy),
    ("check_nucleus", nucleus()),
    ("check_positions", positions_by_steps),
    ("check_positions", lambda prompt, new, cached: prompt + new - 1 if cached else
     new * (prompt + (new - 1) / 2)),
    ("check_correction", correction_in_lists),
    ("check_correction", lambda p, q: list(correction(p, q))),
    ("check_correction", lambda p, q: torch.stack(correction_by_what_is_left(p, q))),
    ("check_correction", lambda p, q: tuple(part.numpy() for part in correction(p, q))),
]

MISTAKES = [
    ("check_greedy", greedy(only_new=True), "only the new tokens"),
    ("check_greedy", greedy(dim=0), "dimension 0"),
    ("check_greedy", greedy(extra=1), "5 tokens and 4"),
    ("check_greedy", greedy(extra=-1), "3 tokens and 4"),
    ("check_greedy", greedy(position=0), "position 0"),
    ("check_greedy", greedy(once=True), "read the model once"),
    ("check_greedy", greedy(newest=True), "the newest token alone"),
    ("check_greedy", greedy_without_a_batch, "you call it with (3,)"),
    ("check_greedy", lambda model, ids, count: greedy()(model, ids.clone().fill_(1), count),
     "the prompt at the front has changed"),
    ("check_greedy", lambda model, ids, count: greedy()(model, ids, count)[0],
     "expected ids of shape (1, 7)"),
    ("check_greedy", lambda model, ids, count: torch.cat((ids, ids, ids[:, :1]), 1),
     "this model says 2, 3, 4, 0"),
    ("check_greedy", draws, "you draw"),
    ("check_greedy", lambda model, ids, count: greedy()(model, ids, max(count, 1)), "wrong for ("),
    ("check_nucleus", keeps_first, "crosses p"),
    ("check_nucleus", nucleus(order=True), "sorted order"),
    ("check_nucleus", nucleus(keep=one_token_late), "one token too many"),
    ("check_nucleus", unsorted, "order of the vocabulary"),
    ("check_nucleus", lambda z, p: z, "nothing is removed"),
    ("check_nucleus", nucleus(keep=roll_without_zero), "without the likeliest token"),
    ("check_nucleus", lambda z, p: z.masked_fill(z.softmax(-1) < 0.4, -math.inf), "crosses p"),
    ("check_nucleus", lambda z, p: z.masked_fill(z.softmax(-1) < 0.1, -math.inf),
     "alone is enough"),
    ("check_nucleus", lambda z, p: z.masked_fill(z.softmax(-1) < 1 - p, -math.inf),
     "nothing is left"),
    ("check_nucleus", lambda z, p: nucleus()(z, p).softmax(-1).log(), "must stay as they were"),
    ("check_nucleus", lambda z, p: nucleus()(z, p) if p > 0.1 else z - math.inf, "nothing is left"),
    ("check_nucleus", lambda z, p: nucleus()(z, max(p, 0.6)), "alone is enough"),
    ("check_nucleus", nucleus(probabilities=torch.exp), "with 2 added to all logits"),
    ("check_nucleus", lambda z, p: nucleus()(z.log_softmax(-1), p), "logarithms of probabilities"),
    ("check_nucleus", lambda z, p: z.masked_fill(nucleus()(z, p).softmax(-1) < 0.1, -math.inf),
     "wrong for ("),
    ("check_nucleus", changes_input, "in place"),
    ("check_nucleus", lambda z, p: z.sort().values[:2], "same shape"),
    ("check_positions", lambda prompt, new, cached: positions(prompt, new, False),
     "come out the same"),
    ("check_positions", lambda prompt, new, cached: prompt + new - cached, "whole text again"),
    ("check_positions", lambda prompt, new, cached: prompt + new - 1 if cached else prompt * new,
     "not 3 times 10"),
    ("check_positions", lambda prompt, new, cached: prompt + new if cached else 46,
     "let the model read the last"),
    ("check_positions", lambda prompt, new, cached: prompt + new if cached else 33,
     "need not be read"),
    ("check_positions", lambda prompt, new, cached: 12 if cached else 36, "10, 11 and 12"),
    ("check_positions",
     lambda prompt, new, cached: new if cached else positions(prompt, new, False), "prompt must"),
    ("check_positions", lambda prompt, new, cached: 12 if cached else 33,
     "wrong for a prompt of 1"),
    ("check_positions", lambda prompt, new, cached: 20 if cached else 33, "10 + 1 + 1"),
    ("check_positions", lambda prompt, new, cached: min(positions(prompt, new, cached), 100),
     "wrong for (100, 50, True): expected 149, got 100"),
    ("check_correction", lambda p, q: p / q, "two tensors"),
    ("check_correction", lambda p, q: (p / q, correction(p, q)[1]), "above 1"),
    ("check_correction", lambda p, q: ((q / p).clamp(max=1), correction(p, q)[1]), "divide q by p"),
    ("check_correction", lambda p, q: (torch.minimum(p, q), correction(p, q)[1]),
     "is that over q"),
    ("check_correction", lambda p, q: (p * q, correction(p, q)[1]), "is min(1"),
    ("check_correction", lambda p, q: (correction(p, q)[0], p), "draw from p"),
    ("check_correction", lambda p, q: (correction(p, q)[0], correction(q, p)[1]),
     "subtract p from q"),
    ("check_correction", lambda p, q: (correction(p, q)[0], p - q), "negative"),
    ("check_correction", lambda p, q: (correction(p, q)[0], (p - q).clamp(min=0)), "normalise"),
    ("check_correction", lambda p, q: (correction(p, q)[0], q), "divided by its sum"),
    ("check_correction", lambda p, q: (correction(p, q)[0], (p - q).clamp(min=0) / 0.4),
     "wrong for ("),
    ("check_correction", lambda p, q: (correction(p, q)[0].sum(), correction(p, q)[1]),
     "of shape (3,)"),
]
