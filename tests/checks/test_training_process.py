import math

import pytest
import torch

from gptlib.checks import training_process as checks
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


CASES = [
    ("windows", lambda i, T, s: windows(i, T, s)[0], "return two tensors"),
    ("windows", lambda i, T, s: [list(part) for part in windows(i, T, s)], "should be tensors"),
    ("windows", lambda i, T, s: [part.T for part in windows(i, T, s)], "shape (T, B)"),
    ("windows", too_wide, "has T + 1 columns"),
    ("windows", lambda i, T, s: windows(i, T - 1, s), "expected (B, T) = (3, 4)"),
    ("windows", lambda i, T, s: windows(i, T, [s[0]] * 3), "every row is the first window"),
    ("windows", lambda i, T, s: windows(i, T, [0, 1, 2]), "should begin with the ids"),
    ("windows", shifted(0), "y equals x"),
    ("windows", shifted(-1), "write backwards"),
    ("windows", shifted(4), "y is the next window"),
    ("windows", shifted(2), "its y should be"),
    ("steps_to_memorise", without_zero_grad, "without zero_grad"),
    ("steps_to_memorise", without_step, "300 forward passes and no end"),
    ("steps_to_memorise", lambda *a: steps_to_memorise(*a) + 1, "one too many"),
    ("steps_to_memorise", lambda *a: steps_to_memorise(*a) - 1, "one too few"),
    ("steps_to_memorise", lambda *a: 40, "you returned 40"),
    ("steps_to_memorise", lambda m, x, y, o, g: next_token_loss(m(x), y), "looks like a loss"),
    ("steps_to_memorise", update_first, "needs 0 updates"),
    ("steps_to_memorise", once_more, "updated once more"),
    ("steps_to_memorise", lambda *a: "ten", "expected one number"),
    ("frequency_loss", lambda t, v, n: frequency_loss(v, v, n), "counted in the held-out text"),
    ("frequency_loss", raw_frequencies, "left out the 1"),
    ("frequency_loss",
     lambda t, v, n: -(smoothed(t, n) * (len(t) + n) / len(t)).log()[v].mean(), "N + V"),
    ("frequency_loss", lambda t, v, n: frequency_loss(t, v, n) * len(v), "this is the sum"),
    ("frequency_loss", lambda t, v, n: -frequency_loss(t, v, n), "the sign"),
    ("frequency_loss", lambda t, v, n: frequency_loss(t, v, n) / math.log(2), "these are bits"),
    ("frequency_loss", lambda t, v, n: -smoothed(t, n).log().mean(), "over the vocabulary"),
    ("frequency_loss", entropy, "the entropy of the frequencies"),
    ("frequency_loss", lambda t, v, n: 1.0, "yours is 1.0000"),
    ("frequency_loss", barely_more, "never occurs in train_ids"),
    ("decide", lambda old, new: True, "expected one of"),
    ("decide", lambda old, new: by_mean(new, old), "better when it is lower"),
    ("decide", lambda old, new: "not established", "that is established"),
    ("decide", lambda old, new: "better", "is worse in every seed"),
    ("decide", by_mean, "one lucky seed"),
    ("decide", by_best, "the best run is new"),
    ("decide", by_mean_of_three, "nothing is established"),
    ("decide", by_ranges, "Compare seed by seed"),
    ("decide", by_count, "one run of each"),
    ("decide", lambda old, new: "better" if len(old) > 1 and old == new else decide(old, new),
     "the two lists are equal"),
]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("name", ["windows", "steps_to_memorise", "frequency_loss", "decide"])
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"
