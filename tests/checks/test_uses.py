import re
import unicodedata

import pytest
import torch

from gptlib.checks import uses as checks


def choose(logits, candidates):
    return logits[:, candidates].argmax(-1)


def answer_score(logits, ids, prompt_length):
    logs = logits[:-1].log_softmax(-1)
    return logs.gather(1, ids[1:, None])[prompt_length - 1:].mean().item()


def terms(logits, ids):
    return logits[:-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]


def own_position(logits, ids, prompt_length):
    return logits.log_softmax(-1).gather(1, ids[:, None])[prompt_length:].mean()


def raw(logits, ids, prompt_length):
    return logits[:-1].gather(1, ids[1:, None])[prompt_length - 1:].mean()


def plain(text):
    split = unicodedata.normalize("NFD", text.lower())
    return re.findall(r"\w+", "".join(c for c in split if not unicodedata.combining(c)))


def mentions(answer, name):
    said, wanted = plain(answer), plain(name)
    starts = range(len(said) - len(wanted) + 1)
    return any(said[i:i + len(wanted)] == wanted for i in starts)


def with_accents(answer, name):
    return re.search(rf"\b{name.lower()}\b", answer.lower()) is not None


def select_and_report(dev, test):
    best = dev.mean(1).argmax()
    return best.item(), test[best].mean().item()


def on_test(dev, test):
    return test.mean(1).argmax().item(), test.mean(1).max().item()


def on_both(dev, test):
    best = torch.cat((dev, test), 1).mean(1).argmax()
    return best.item(), test[best].mean().item() - 0.01


def classify(text):
    return dict(checks.fresh_reviews())[text]


def swapped(text):
    return "negative" if classify(text) == "positive" else "positive"


def every_second(text):
    return checks.LABELS[[review for review, _ in checks.fresh_reviews()].index(text) % 2]


CASES = [
    ("choose", lambda z, c: z.argmax(-1), "likeliest of all V tokens"),
    ("choose", lambda z, c: c[choose(z, c)], "these are token ids"),
    ("choose", lambda z, c: z[:, c].argmin(-1), "argmax, not argmin"),
    ("choose", lambda z, c: z[:, c].argmax(0), "the rows with each other"),
    ("choose", lambda z, c: choose(z, c)[:1], "has shape (1,)"),
    ("choose", lambda z, c: torch.zeros(3), "yours is [0, 0, 0]"),
    ("choose", lambda z, c: 2, "expected a tensor"),
    ("answer_score", own_position, "at its own position"),
    ("answer_score", lambda z, i, n: terms(z, i)[n:].mean(), "first token of the answer"),
    ("answer_score", lambda z, i, n: terms(z, i).mean(), "the prompt, too"),
    ("answer_score", lambda z, i, n: terms(z, i).sum(), "the prompt, too"),
    ("answer_score", lambda z, i, n: terms(z, i)[n - 1:].sum(), "this is the sum"),
    ("answer_score", raw, "raw logits"),
    ("answer_score", lambda z, i, n: -answer_score(z, i, n), "the sign"),
    ("answer_score", lambda z, i, n: terms(z, i)[n - 1:].mean().exp(), "its logarithm"),
    ("answer_score", lambda z, i, n: 7.0, "yours is 7.0000"),
    ("answer_score", lambda z, i, n: terms(z, i), "expected one number"),
    ("mentions", lambda a, n: False, "yours says False"),
    ("mentions", lambda a, n: a == n, "in a sentence"),
    ("mentions", lambda a, n: True, "the name is not there"),
    ("mentions", lambda a, n: n in a, "whole words"),
    ("mentions", lambda a, n: re.search(rf"\b{n}\b", a) is not None, "ignore the case"),
    ("mentions", with_accents, "ignore accents"),
    ("mentions", lambda a, n: " ".join(plain(n)) in [" ".join(plain(a)[i:i + len(n.split())])
                                                      for i in range(9)] and "-" not in a,
     "a hyphen"),
    ("mentions", lambda a, n: any(word == " ".join(plain(n)) for word in plain(a)) or "-" in a,
     "several words"),
    ("mentions", lambda a, n: set(plain(n)) <= set(plain(a)), "next to each other"),
    ("select_and_report", on_test, "luckiest of all"),
    ("select_and_report", lambda d, t: (1, d.mean(1).max()), "too high"),
    ("select_and_report", on_both, "dev and test together"),
    ("select_and_report", lambda d, t: (1, t.mean()), "mean over all prompts"),
    ("select_and_report", lambda d, t: (0, 0.5), "you chose 0"),
    ("select_and_report", lambda d, t: (1, 0.25), "you report 0.250"),
    ("select_and_report", lambda d, t: 1, "expected two values"),
    ("classifier", lambda text: "fresh", "expected one of the strings"),
    ("classifier", lambda text: "positive", "majority baseline"),
    ("classifier", swapped, "labels swapped"),
    ("classifier", every_second, "10 of 20 right"),
    ("classifier", lambda text: classify(text + "?"), "raised KeyError"),
]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("name, answer", [
    ("choose", choose), ("answer_score", answer_score), ("mentions", mentions),
    ("select_and_report", select_and_report), ("classifier", classify)])
def test_the_solution_passes_and_the_stub_is_not_attempted(name, answer):
    check = getattr(checks, f"check_{name}")
    assert check.judge(answer).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"


def test_the_fresh_reviews_are_balanced_and_different_ones():
    reviews = checks.fresh_reviews()
    assert len({text for text, _ in reviews}) == len(reviews) == checks.FRESH
    assert [label for _, label in reviews].count("positive") == checks.FRESH // 2
