import math

import pytest
import torch

from gptlib.checks.decoding import check_correction, check_greedy, check_nucleus, check_positions


def greedy(model, ids, count, *, position=-1, dim=1, extra=0, only_new=False, once=False):
    start = ids
    for _ in range(count + extra):
        new = model(start if once else ids)[:, position].argmax(-1)
        ids = torch.cat((ids, new[:, None].expand(1, 1 if dim else ids.shape[1])), dim=dim)
    return ids[:, start.shape[1]:] if only_new else ids


def nucleus(logits, p, *, late=False, early=False, order=False, probabilities=True):
    ranked, ids = logits.sort(descending=True)
    total = (ranked.softmax(-1) if probabilities else ranked.exp() * 0).cumsum(-1)
    before = total - ranked.softmax(-1)
    remove = before >= p
    if early:
        remove = total > p
    if late:
        remove = torch.cat((torch.tensor([False]), remove[:-1]))
    ranked = ranked.masked_fill(remove, -math.inf)
    return ranked if order else torch.empty_like(logits).scatter(0, ids, ranked)


def keeps_first(logits, p):
    result = nucleus(logits, p, early=True)
    result[logits.argmax()] = logits.max()
    return result


def positions(prompt, new, cached):
    return prompt + new - 1 if cached else sum(prompt + i for i in range(new))


def correction(p, q):
    rest = (p - q).clamp(min=0)
    return (p / q).clamp(max=1), rest / rest.sum()


def changes_input(logits, p):
    logits[0] = 0
    return logits


@pytest.mark.parametrize("check, solution", [
    (check_greedy, greedy), (check_nucleus, nucleus), (check_positions, positions),
    (check_correction, correction)])
def test_the_solution_passes_and_the_stub_is_not_attempted(check, solution):
    assert check.judge(solution).status == "correct"
    assert check.judge(lambda *arguments: ...).status == "not attempted"
    assert check.judge(None).status == "not attempted"


@pytest.mark.parametrize("wrong, message", [
    (dict(only_new=True), "only the new tokens"),
    (dict(dim=0), "dimension 0"),
    (dict(extra=1), "5 tokens and 4"),
    (dict(extra=-1), "3 tokens and 4"),
    (dict(position=0), "position 0"),
    (dict(once=True), "read the model once"),
])
def test_wrong_loops_are_told_what_is_wrong(wrong, message):
    verdict = check_greedy.judge(lambda *arguments: greedy(*arguments, **wrong))
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("wrong, message", [
    (keeps_first, "crosses p"),
    (lambda z, p: nucleus(z, p, order=True), "sorted order"),
    (lambda z, p: nucleus(z, p, late=True), "one token too many"),
    (lambda z, p: z, "nothing is removed"),
    (lambda z, p: nucleus(z, p).softmax(-1).log(), "must stay as they were"),
    (lambda z, p: nucleus(z, p) if p > 0.1 else z - math.inf, "nothing is left"),
    (lambda z, p: nucleus(z, max(p, 0.6)), "alone is enough"),
    (changes_input, "in place"),
    (lambda z, p: z.sort().values[:2], "same shape"),
])
def test_wrong_nuclei_are_told_what_is_wrong(wrong, message):
    verdict = check_nucleus.judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("wrong, message", [
    (lambda prompt, new, cached: positions(prompt, new, False), "come out the same"),
    (lambda prompt, new, cached: prompt + new - cached, "whole text again"),
    (lambda prompt, new, cached: prompt + new if cached else 46, "let the model read the last"),
    (lambda prompt, new, cached: prompt + new if cached else 33, "need not be read"),
    (lambda prompt, new, cached: 12 if cached else 36, "10, 11 and 12"),
    (lambda prompt, new, cached: new if cached else positions(prompt, new, False), "prompt must"),
    (lambda prompt, new, cached: 12 if cached else 33, "wrong for a prompt of 1"),
    (lambda prompt, new, cached: 20 if cached else 33, "10 \\+ 1 \\+ 1"),
])
def test_wrong_counts_are_told_what_is_wrong(wrong, message):
    verdict = check_positions.judge(wrong)
    assert verdict.status == "mistake"
    assert message.replace("\\", "") in verdict.message


@pytest.mark.parametrize("wrong, message", [
    (lambda p, q: p / q, "two tensors"),
    (lambda p, q: (p / q, correction(p, q)[1]), "above 1"),
    (lambda p, q: ((q / p).clamp(max=1), correction(p, q)[1]), "divide q by p"),
    (lambda p, q: (p * q, correction(p, q)[1]), "is min(1"),
    (lambda p, q: (correction(p, q)[0], p), "draw from p"),
    (lambda p, q: (correction(p, q)[0], p - q), "negative"),
    (lambda p, q: (correction(p, q)[0], (p - q).clamp(min=0)), "normalise"),
    (lambda p, q: (correction(p, q)[0], q), "divided by its sum"),
])
def test_wrong_corrections_are_told_what_is_wrong(wrong, message):
    verdict = check_correction.judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message
