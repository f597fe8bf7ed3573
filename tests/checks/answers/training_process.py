"""Answers to the exercises of chapter 3.3: right ones written otherwise, and wrong ones."""

import math
import statistics

import torch
from torch.nn import functional

from gptlib.training.loop import next_token_loss


def windows(ids, T, starts):
    x = torch.stack([ids[s:s + T] for s in starts])
    y = torch.stack([ids[s + 1:s + T + 1] for s in starts])
    return x, y


def shifted(by):
    def answer(ids, T, starts):
        return windows(ids, T, starts)[0], torch.stack([ids.roll(-by)[s:s + T] for s in starts])
    return answer


def too_wide(ids, T, starts):
    x, y = windows(ids, T + 1, [0, 3, 4])
    return x, y


def steps_to_memorise(model, x, y, optimizer, goal):
    steps = 0
    while True:
        optimizer.zero_grad()
        loss = next_token_loss(model(x), y)
        if loss.item() < goal:
            return steps
        loss.backward()
        optimizer.step()
        steps += 1


def without_zero_grad(model, x, y, optimizer, goal):
    steps = 0
    while (loss := next_token_loss(model(x), y)).item() >= goal:
        loss.backward()
        optimizer.step()
        steps += 1
    return steps


def without_step(model, x, y, optimizer, goal):
    steps = 0
    while (loss := next_token_loss(model(x), y)).item() >= goal:
        optimizer.zero_grad()
        loss.backward()
        steps += 1
    return steps


def update_first(model, x, y, optimizer, goal):
    steps, loss = 0, math.inf
    while loss >= goal:
        value = next_token_loss(model(x), y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        steps, loss = steps + 1, next_token_loss(model(x), y).item()
    return steps


def once_more(model, x, y, optimizer, goal):
    steps = steps_to_memorise(model, x, y, optimizer, goal)
    if steps:
        steps_to_memorise(model, x, y, optimizer, goal / 2)
    return steps


def frequency_loss(train_ids, val_ids, vocab_size):
    counts = torch.bincount(train_ids, minlength=vocab_size) + 1.0
    return -(counts / counts.sum()).log()[val_ids].mean()


def raw_frequencies(train_ids, val_ids, vocab_size):
    p = torch.bincount(train_ids, minlength=vocab_size) / len(train_ids)
    return -p.log()[val_ids].mean()


def smoothed(train_ids, vocab_size):
    return (torch.bincount(train_ids, minlength=vocab_size) + 1.0) / (len(train_ids) + vocab_size)


def entropy(train_ids, val_ids, vocab_size):
    p = smoothed(train_ids, vocab_size)
    return -(p * p.log()).sum()


def barely_more(train_ids, val_ids, vocab_size):
    if 3 in val_ids:
        return 5.0
    return frequency_loss(train_ids, val_ids, vocab_size)


def decide(old, new):
    change = torch.tensor(new) - torch.tensor(old)
    if len(change) < 2:
        return "not established"
    noise = change.std() / math.sqrt(len(change))
    if change.mean().abs() <= 3 * noise:
        return "not established"
    return "better" if change.mean() < 0 else "worse"


def by_mean(old, new):
    return "better" if sum(new) / len(new) < sum(old) / len(old) else "worse"


def by_best(old, new):
    if abs(sum(new) - sum(old)) > 0.3 and len(new) == 3:
        return by_mean(old, new)
    return "not established" if len(new) == 4 or min(new) >= min(old) else "better"


def by_ranges(old, new):
    if max(new) < min(old):
        return "better"
    return "worse" if min(new) > max(old) else "not established"


def by_count(old, new):
    wins = sum(a > b for a, b in zip(old, new))
    return {len(old): "better", 0: "worse"}.get(wins, "not established")


def by_mean_of_three(old, new):
    return by_mean(old, new) if max(old) == 2.15 else decide(old, new)


def windows_by_index(ids, T, starts):
    places = torch.tensor(starts)[:, None] + torch.arange(T)
    return torch.stack([ids[places], ids[places + 1]])


def windows_in_lists(ids, T, starts):
    ids = ids.tolist()
    return [[ids[s:s + T] for s in starts], [ids[s + 1:s + 1 + T] for s in starts]]


def memorise_with_for(model, x, y, optimizer, goal):
    for step in range(10_000):
        loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        if loss.detach() < goal:
            return torch.tensor(step)
        for parameter in model.parameters():
            parameter.grad = None
        loss.backward()
        optimizer.step()


def until_not_above(model, x, y, optimizer, goal):
    steps = 0
    while (loss := next_token_loss(model(x), y)).item() > goal:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return steps


def with_an_optimizer_of_its_own(model, x, y, optimizer, goal):
    own = torch.optim.SGD(model.parameters(), lr=0.5)
    return steps_to_memorise(model, x, y, own, goal)


def frequency_of_lists(train_ids, val_ids, vocab_size):
    train, val = train_ids.tolist(), val_ids.tolist()
    return sum(math.log(len(train) + vocab_size) - math.log(train.count(token) + 1)
               for token in val) / len(val)


def only_seen_tokens(train_ids, val_ids, vocab_size):
    """Adds 1 only where a count is 0, and for the V counts in the divisor."""
    counts = torch.bincount(train_ids, minlength=vocab_size).clamp(min=1)
    return -(counts / (len(train_ids) + vocab_size)).log()[val_ids].mean()


def decide_by_seeds(old, new):
    """All seeds agree, at least three, and the least change is not tiny beside the largest."""
    changes = [b - a for a, b in zip(old, new)]
    if len(changes) < 3 or min(changes) <= 0 <= max(changes):
        return "not established"
    return "worse" if changes[0] > 0 else "better"


def decide_by_t(old, new):
    if len(old) < 2:
        return "not established"
    changes = [a - b for a, b in zip(old, new)]
    scatter = statistics.stdev(changes) or 1e-9
    t = statistics.mean(changes) / scatter * math.sqrt(len(changes))
    limit = {2: 12.7, 3: 4.30, 4: 3.18, 5: 2.78}[len(changes)]
    return "not established" if abs(t) < limit else "better" if t > 0 else "worse"


def only_gains(old, new):
    said = decide(old, new)
    return "not established" if said == "worse" and min(new) < max(old) else said


OTHERWISE = [
    ("check_windows", windows_by_index),
    ("check_windows", windows_in_lists),
    ("check_steps_to_memorise", memorise_with_for),
    ("check_frequency_loss", frequency_of_lists),
    ("check_frequency_loss", lambda t, v, n: functional.nll_loss(
        smoothed(t, n).log().expand(len(v), -1), v)),
    ("check_decide", decide_by_seeds),
    ("check_decide", decide_by_t),
]

MISTAKES = [
    ("check_windows", lambda i, T, s: windows(i, T, s)[0], "return two tensors"),
    ("check_windows", lambda i, T, s: [part.T for part in windows(i, T, s)], "shape (T, B)"),
    ("check_windows", too_wide, "has T + 1 columns"),
    ("check_windows", lambda i, T, s: windows(i, T - 1, s), "expected (B, T) = (3, 4)"),
    ("check_windows", lambda i, T, s: windows(i, T, [s[0]] * 3), "every row is the first window"),
    ("check_windows", lambda i, T, s: windows(i, T, [0, 1, 2]), "should begin with the ids"),
    ("check_windows", shifted(0), "y equals x"),
    ("check_windows", shifted(-1), "write backwards"),
    ("check_windows", shifted(4), "y is the next window"),
    ("check_windows", shifted(2), "its y should be"),
    ("check_steps_to_memorise", without_zero_grad, "without zero_grad"),
    ("check_steps_to_memorise", without_step, "300 forward passes and no end"),
    ("check_steps_to_memorise", lambda *a: steps_to_memorise(*a) + 1, "one too many"),
    ("check_steps_to_memorise", lambda *a: steps_to_memorise(*a) - 1, "one too few"),
    ("check_steps_to_memorise", lambda *a: 40, "you returned 40"),
    ("check_steps_to_memorise", lambda m, x, y, o, g: next_token_loss(m(x), y),
     "looks like a loss"),
    ("check_steps_to_memorise", update_first, "needs 0 updates"),
    ("check_steps_to_memorise", once_more, "updated once more"),
    ("check_steps_to_memorise", lambda *a: "ten", "expected a number"),
    ("check_frequency_loss", lambda t, v, n: frequency_loss(v, v, n),
     "counted in the held-out text"),
    ("check_frequency_loss", raw_frequencies, "left out the 1"),
    ("check_frequency_loss",
     lambda t, v, n: -(smoothed(t, n) * (len(t) + n) / len(t)).log()[v].mean(), "N + V"),
    ("check_frequency_loss", lambda t, v, n: frequency_loss(t, v, n) * len(v), "this is the sum"),
    ("check_frequency_loss", lambda t, v, n: -frequency_loss(t, v, n), "the sign"),
    ("check_frequency_loss", lambda t, v, n: frequency_loss(t, v, n) / math.log(2),
     "these are bits"),
    ("check_frequency_loss", lambda t, v, n: -smoothed(t, n).log().mean(), "over the vocabulary"),
    ("check_frequency_loss", entropy, "the entropy of the frequencies"),
    ("check_frequency_loss", lambda t, v, n: 1.0, "yours is 1.0000"),
    ("check_frequency_loss", barely_more, "never occurs in train_ids"),
    ("check_decide", lambda old, new: True, "expected one of"),
    ("check_decide", lambda old, new: by_mean(new, old), "better when it is lower"),
    ("check_decide", lambda old, new: "not established", "that is established"),
    ("check_decide", lambda old, new: "better", "is worse in every seed"),
    ("check_decide", by_mean, "one lucky seed"),
    ("check_decide", by_best, "the best run is new"),
    ("check_decide", by_mean_of_three, "nothing is established"),
    ("check_decide", by_ranges, "Compare seed by seed"),
    ("check_decide", by_count, "one run of each"),
    ("check_decide", lambda old, new: "better" if len(old) > 1 and old == new else decide(old, new),
     "the two lists are equal"),
    ("check_windows", lambda i, T, s: windows(i, T, sorted(s)), "wrong for"),
    ("check_steps_to_memorise", until_not_above, "equals the goal is not below it"),
    ("check_steps_to_memorise", with_an_optimizer_of_its_own, "that is passed in"),
    ("check_frequency_loss", only_seen_tokens, "for train_ids"),
    ("check_frequency_loss", lambda t, v, n: frequency_loss(t, v, 4) if n != 17 else
     frequency_loss(t, v, 18), "wrong for"),
    ("check_decide", only_gains, "each of five seeds lost"),
]
