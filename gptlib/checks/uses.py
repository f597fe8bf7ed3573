"""Checks of chapter 1.2, what GPT is used for."""

import functools
import math
from typing import Any

import torch

from gptlib.checks import (
    as_number,
    as_tensor,
    attempt,
    close,
    exercise,
    expect,
    expect_agreement,
)
from gptlib.text import corpora

LABELS = ("negative", "positive")
FRESH, NEEDED = 20, 13  # reviews that `check_classifier` asks about, right answers it wants


@exercise
def check_choose(answer: Any) -> None:
    """`choose(logits, candidates)` -> (N,): the index of the likeliest candidate of each row."""
    logits = torch.tensor([[9.0, 1.0, 4.0, 2.0, 3.0], [0.0, 8.0, 1.0, 5.0, 2.0],
                           [7.0, 3.0, 2.0, 1.0, 6.0]])
    candidates = torch.tensor([3, 4, 2])
    got = as_tensor(attempt(answer, logits, candidates)).long()
    right = logits[:, candidates].argmax(-1)
    expect(not _equal(got, logits.argmax(-1)),
           "you took the likeliest of all V tokens: the answer must be one of the candidates, so "
           "pick their columns first, logits[:, candidates]")
    expect(not _equal(got, candidates[right]),
           "these are token ids: return the index into `candidates`, 0 to K - 1, which is what "
           "the labels are counted by")
    expect(not _equal(got, logits[:, candidates].argmin(-1)),
           "these are the least likely candidates: argmax, not argmin")
    expect(not _equal(got, logits[:, candidates].argmax(0)),
           "you compared the rows with each other: each row is one text, and the candidates "
           "compete within it (the last dimension)")
    expect(got.shape == (3,), f"your answer has shape {tuple(got.shape)}; expected one index for "
           "each of the 3 rows")
    expect(_equal(got, right), f"for the small test the answer is {right.tolist()}; yours is "
           f"{got.tolist()}")
    wide = torch.linspace(-9, 9, 40).sin().view(4, 10) * 30 - 40
    expect_agreement(answer, _choose, [
        (logits[:1], torch.tensor([4, 0])), (wide, torch.tensor([9, 2, 5, 0, 7])),
        (logits.T, torch.tensor([1])), (-logits, torch.tensor([0, 1, 2, 3, 4]))])


def _choose(logits: torch.Tensor, candidates: torch.Tensor) -> list[int]:
    scores = [[row[i] for i in candidates.tolist()] for row in logits.tolist()]
    return [row.index(max(row)) for row in scores]


@exercise
def check_answer_score(answer: Any) -> None:
    """`answer_score(logits, ids, prompt_length)` -> mean log-probability of the answer, nats."""
    table = torch.tensor([[2.0, 1.0, 0.0], [0.5, 3.0, 1.0], [1.0, 1.0, 4.0]])
    ids = torch.tensor([1, 0, 2, 0, 1, 2, 2])
    logits, n = table[ids], 4  # the test model looks at one token only; the answer has 3 tokens
    logs = logits.log_softmax(-1)
    terms = logs[:-1].gather(1, ids[1:, None])[:, 0]  # terms[t] is about ids[t + 1]
    right = terms[n - 1:].mean().item()
    got = as_number(attempt(answer, logits, ids, n))
    own = logs.gather(1, ids[:, None])[:, 0]
    raw = logits[:-1].gather(1, ids[1:, None])[:, 0]
    expect(not close(got, own[n:].mean()),
           "you scored each token with the logits at its own position: those predict the token "
           "after it; the first answer token is predicted at prompt_length - 1")
    expect(not close(got, terms[n:].mean()),
           "the first token of the answer is missing: it is predicted at the last position of the "
           "prompt, prompt_length - 1")
    expect(not close(got, terms.mean()) and not close(got, terms.sum()),
           "you scored the prompt, too: it is the same for all candidates of one question, but it "
           "drowns the answer and is no part of it")
    expect(not close(got, terms[n - 1:].sum()),
           "this is the sum: return the mean per token, so that a long answer is not punished for "
           "its length")
    expect(not close(got, raw[n - 1:].mean()),
           "you averaged raw logits: log_softmax over the vocabulary makes them log-probabilities")
    expect(not close(got, -right), "the sign: log-probabilities are at most 0; the best answer has "
           "the largest one")
    expect(not close(got, math.exp(right)), "this is a probability: return its logarithm")
    expect(not close(got, right / math.log(2)), "these are bits: use the natural logarithm")
    over = logits.log_softmax(0)[:-1].gather(1, ids[1:, None])[n - 1:].mean()
    expect(not close(got, over), "your softmax runs over the positions: the probabilities of one "
           "position are along the last dimension")
    expect(close(got, right, 1e-4), f"for the small test the answer is {right:.4f}; yours is "
           f"{got:.4f}")
    wide = torch.linspace(-9, 9, 54).sin().view(9, 6) * 4
    expect_agreement(answer, _answer_score, [
        (wide, torch.arange(9) % 6, 1), (wide, torch.arange(9) ** 2 % 6, 8),
        (wide[:2], torch.tensor([5, 0]), 1)], 1e-4)


def _answer_score(logits: torch.Tensor, ids: torch.Tensor, prompt_length: int) -> float:
    places = range(prompt_length, len(ids))
    return sum(logits[t - 1].double().log_softmax(0)[ids[t]].item() for t in places) / len(places)


@exercise
def check_mentions(answer: Any) -> None:
    """`mentions(answer, name)` -> whether the name stands in the answer, as whole words."""
    def says(text: str, name: str) -> bool:
        return attempt(lambda *inputs: bool(answer(*inputs)), text, name)

    attempt(answer, "Paris", "Paris")  # None is a stub here, and later as good as False
    expect(says("Paris", "Paris"), 'the answer "Paris" names Paris; yours says False')
    expect(says("The capital of France is Paris.", "Paris"),
           "you compare the whole answer with the name: a chat model answers in a sentence; look "
           "for the name in it")
    expect(not says("The capital is Ankara.", "Paris"),
           "you say True although the name is not there")
    expect(not says("The capital of Oman is Muscatine.", "Muscat"),
           'you find "Muscat" in "Muscatine": compare whole words, not letters')
    expect(says("the capital is PARIS", "Paris"), '"PARIS" is Paris: ignore the case')
    expect(says("It is Bogota.", "Bogotá") and says("It is Bogotá.", "Bogota"),
           '"Bogota" is "Bogotá": ignore accents on both sides (unicodedata.normalize("NFD", text) '
           "splits a letter from its accent)")
    expect(says("It is Port-au-Prince.", "Port au Prince"),
           'a hyphen or a full stop separates words like a space: "Port-au-Prince" is '
           '"Port au Prince"')
    expect(says("It is New Delhi, in the north.", "New Delhi"),
           'a name may have several words: "New Delhi" stands in the answer')
    expect(not says("The new capital is not Delhi.", "New Delhi"),
           "the words of a name must stand next to each other and in order")
    expect(not says("I mean Delhi New Town.", "New Delhi"), "the words of a name must be in order")
    expect(not says("The woman lives in Romania.", "Oman"),
           'you find "Oman" in "woman" or "Romania": a whole word begins where a word begins')
    for text, name, wanted in (
            ("It is Washington D.C., on a river.", "Washington, D.C.", True), ("", "Paris", False),
            ("New York; New Delhi!", "New Delhi", True), ("It is New", "New Delhi", False),
            ("Sao Tome\nis it", "São Tomé", True), ("Is it “Malé”?", "MALE", True),
            ("It is Malé.", "Male\u0301", True), ("(a+b) is Lima", "Lima", True)):
        expect(says(text, name) == wanted, f"{text!r} and the name {name!r}: expected {wanted}")


@exercise
def check_select_and_report(answer: Any) -> None:
    """`select_and_report(dev, test)` -> (index of the chosen prompt, accuracy to report).

    dev (P, N) and test (P, M) hold 1 where prompt p answered item n correctly.
    """
    dev = torch.tensor([[1, 0, 0, 1, 0], [1, 1, 1, 0, 1], [1, 1, 0, 0, 1]]).float()
    test = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]]).float()
    got = attempt(answer, dev, test)
    expect(hasattr(got, "__len__") and len(got) == 2,
           f"expected two values, (index, accuracy), got {got!r}")
    index, accuracy = as_number(got[0]), as_number(got[1])
    expect(not (index == 2 and close(accuracy, 1.0)),
           "you chose the prompt that is best on the test items: then its accuracy there is the "
           "luckiest of all, not an estimate; choose on dev")
    expect(not close(accuracy, 0.8), "you report the accuracy on the items that you chose by: it "
           "is the largest of several, so it is too high; report the one on test")
    both = torch.cat((dev, test), 1).mean(1)
    expect(index != both.argmax(), "you chose on dev and test together: nothing is left that the "
           "choice has not seen")
    expect(not close(accuracy, test.mean()), "this is the mean over all prompts: report the chosen "
           "one")
    expect(index == 1, f"prompt 1 has the most right answers on dev; you chose {index:g}")
    expect(close(accuracy, 0.5), f"the chosen prompt answers 2 of 4 test items; you report "
           f"{accuracy:.3f}")
    wide = (torch.arange(60).view(5, 12) ** 2 % 7 < 3).float()
    wide[3] = 1.0
    expect_agreement(answer, _select_and_report, [
        (dev.flip(0)[:2], test[:2, :1]), (wide, wide.flip(0)[:, :9]), (dev[:1], test[2:])])


def _select_and_report(dev: torch.Tensor, test: torch.Tensor) -> tuple[int, float]:
    best = int(dev.sum(1).argmax())
    return best, test[best].sum().item() / test.shape[1]


@exercise
def check_classifier(answer: Any) -> None:
    """`classify(review)` -> "negative" or "positive"; asked about fresh reviews.

    They are reviews of 40 to 59 characters, which the chapter doesn't use, half of them each.
    """
    reviews = fresh_reviews()
    answers = []
    for text, _ in reviews:
        said = attempt(answer, text)
        expect(said in LABELS, f"for the review {text!r} you returned {said!r}; expected one of "
               f"the strings {LABELS}")
        answers.append(said)
    expect(len(set(answers)) == 2, f"you say {answers[0]!r} to all {FRESH} reviews: that is the "
           "majority baseline, right in half of the cases; compare the two scores with their "
           "prior, or look whether the review reaches the model at all")
    right = sum(said == label for said, (_, label) in zip(answers, reviews))
    expect(right > FRESH - NEEDED, f"{right} of {FRESH} right: worse than a coin by as much as a "
           "good answer is better; are your labels swapped?")
    expect(right >= NEEDED, f"{right} of {FRESH} right, {NEEDED} wanted: a coin reaches that in "
           "about one of eight tries; try examples in the prompt, other words for the labels, or "
           "a threshold (choose on reviews of your own, not on these)")


@functools.cache
def fresh_reviews() -> tuple[tuple[str, str], ...]:
    """(text, label) of the short reviews that `check_classifier` asks about."""
    short = [review for review in corpora.load_records("reviews")
             if 40 <= len(review["text"]) < 60 and review["text"].isascii()]
    chosen = []
    for label, name in (("rotten", "negative"), ("fresh", "positive")):
        texts = [review["text"] for review in short if review["label"] == label]
        step = len(texts) // (FRESH // 2)
        chosen += [(text, name) for text in texts[step // 2::step][:FRESH // 2]]
    return tuple(chosen)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)
