"""Checks of the exercises in chapter 6: kinds of tasks, and what applications need."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptlib.checks import as_number, as_tensor, attempt, close, exercise, expect, expect_agreement
from gptlib.writing.quality import words


@exercise
def check_overlap(answer: Any) -> None:
    """`overlap(text, reference)` -> F1 of their words in [0, 1], 0 if no word is shared.

    Words as `gptlib.writing.quality.words` finds them; a word counts as often as in both texts.
    """
    def got(text: str, reference: str) -> float:
        return as_number(attempt(answer, text, reference))

    expect(close(got("a fox ran", "a fox ran"), 1.0), "a text and itself overlap in all words: 1")
    value = got("the fox", "the fox ran away from home")
    expect(not close(value, 1.0), "you return the precision alone: two right words are no summary "
           "of six; combine it with the recall")
    expect(not close(value, 1 / 3), "you return the recall alone: a text that repeats everything "
           "would get 1; combine it with the precision")
    expect(not close(value, 2 / 3), "you return the mean of precision and recall; F1 is the "
           "harmonic one, 2 p r / (p + r)")
    expect(close(value, 0.5), f"two of two words are right, of six two are found: expected 0.5, "
           f"got {value:.3f}")
    value = got("the the the the", "the fox")
    expect(not close(value, 2 / 3) and value <= 1, "you count a repeated word each time: a word is "
           "shared as often as it stands in both texts, here once")
    expect(close(got("The FOX.", "the fox"), 1.0), "capitals and full stops are no part of a word: "
           "use `words`")
    expect(got("", "a fox") == 0 and got("a fox", "the wolf") == 0, "without a shared word the "
           "overlap is 0")
    expect_agreement(answer, _overlap, [
        ("a a b", "a b b"), ("the king and the queen", "the queen saw the king and the fox"),
        ("fox", "a fox, a fox, a fox"), ("It's his", "it's hers"), ("one two three four", "four")])


def _overlap(text: str, reference: str) -> float:
    ours, theirs = Counter(words(text)), Counter(words(reference))
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0


@exercise
def check_rearrange(answer: Any) -> None:
    """`rearrange(ids, start, stop, marks)` -> list of ids: the hole `ids[start:stop]` goes last.

    marks are the ids of three special tokens: before the beginning, the end and the hole.
    """
    ids, marks = [10, 11, 12, 13, 14, 15], (1, 2, 3)
    got = _as_list(attempt(answer, ids, 2, 4, marks))
    expect(sorted(got) != sorted(ids), "the marks are missing: without them nobody could tell "
           "where the hole was")
    expect(got != [1, 10, 11, 3, 12, 13, 2, 14, 15], "the hole still stands in the middle: it must "
           "come last, or the model would have to write it before it has read what follows")
    expect(got != [2, 14, 15, 1, 10, 11, 3, 12, 13], "the beginning comes first, then the end")
    expect(got != [1, 10, 11, 2, 14, 15, 3], "the hole is missing: in training it is what the "
           "model learns to write; leave it out when you ask")
    expect(got != [1, 10, 11, 2, 13, 14, 15, 3, 12], "`stop` is the first place behind the hole, "
           "as in ids[start:stop]")
    expect(got == [1, 10, 11, 2, 14, 15, 3, 12, 13],
           f"expected [1, 10, 11, 2, 14, 15, 3, 12, 13], got {got}")
    expect_agreement(lambda *inputs: _as_list(answer(*inputs)), _rearrange, [
        (list(range(20)), 0, 5, (97, 98, 99)), (list(range(7)), 3, 7, (9, 8, 7)),
        (list(range(9)), 4, 5, (50, 60, 70)), ([4, 4, 4], 1, 1, (7, 8, 9))])


def _as_list(value: Any) -> list:
    expect(isinstance(value, list | tuple | Tensor), f"expected a list of ids, got {value!r}")
    return [int(i) for i in value]


def _rearrange(ids: list[int], start: int, stop: int, marks: Sequence[int]) -> list[int]:
    before, after, hole = marks
    return [before, *ids[:start], after, *ids[stop:], hole, *ids[start:stop]]


@exercise
def check_masked(answer: Any) -> None:
    """`masked(first, second, language)` -> (N,): how often each text is written under the mask.

    first (V,) and second (V, V) are probabilities of the first token, and of the second after it.
    language lists the N allowed texts, pairs of ids; at each step only tokens that lead into it
    are kept, and their probabilities divided by their sum.
    """
    first = torch.tensor([0.9, 0.08, 0.02])
    second = torch.tensor([[0.01, 0.98, 0.01], [0.1, 0.9, 0.0], [0.3, 0.3, 0.4]])
    language = [(0, 0), (1, 1)]
    got = as_tensor(attempt(answer, first, second, language))
    joint = torch.tensor([0.009, 0.072])
    expect(got.shape == (2,), f"expected one number for each text, got shape {tuple(got.shape)}")
    expect(not close(got, joint), "these are the model's own probabilities, without a mask: they "
           "do not sum to 1 over the language")
    expect(not close(got, joint / joint.sum(), 1e-4), "you divided once, over whole texts: that is "
           "the conditional distribution, which no step of a mask can know; divide at each step")
    expect(not close(got, torch.tensor([0.9 / 0.98 * 0.01, 0.08 / 0.98 * 0.9]), 1e-4),
           "the second step has a mask, too: after 0 only 0 is allowed, so it gets probability 1")
    expect(not close(got, torch.tensor([0.009, 0.072]) / 0.98), "the second step has a mask, too")
    expect(not close(got, torch.tensor([0.9, 0.08])), "divide by the sum of the allowed tokens at "
           "the first step, too: 0.98")
    expect(close(got, torch.tensor([0.9, 0.08]) / 0.98, 1e-4),
           f"expected 0.9 / 0.98 and 0.08 / 0.98, got {got.tolist()}")
    g = torch.Generator().manual_seed(0)
    cases = []
    for V, texts in ((3, [(0, 0), (0, 1), (2, 2)]), (4, [(3, 1), (0, 0), (3, 2), (1, 3), (3, 3)]),
                     (5, [(2, 2)])):
        cases.append((torch.rand(V, generator=g).softmax(0),
                      torch.randn(V, V, generator=g).softmax(1), texts))
    expect_agreement(lambda *inputs: as_tensor(answer(*inputs)), _masked, cases)


def _masked(first: Tensor, second: Tensor, language: list[tuple[int, int]]) -> Tensor:
    starts = sorted({a for a, _ in language})
    kept = [first[a] / first[starts].sum()
            * second[a, b] / second[a, [d for c, d in language if c == a]].sum()
            for a, b in language]
    return torch.stack(kept)


@exercise
def check_taken_back(answer: Any) -> None:
    """`taken_back(pieces, vocabulary)` -> the largest number of last pieces that begin a longer
    token.

    pieces are the tokens of a prompt as bytes, vocabulary all tokens as bytes.
    """
    vocabulary = [b"h", b"t", b"p", b":", b"/", b"http", b"://", b"an", b"ana", b"nanas", b"n",
                  b"a", b"b", b" ", b" a"]

    def got(*pieces: bytes) -> float:
        return as_number(attempt(answer, list(pieces), vocabulary))

    expect(got(b"b", b"p") == 0, "no longer token begins with the last piece: nothing is taken "
           "back")
    expect(got(b"http", b":") != 0, 'the prompt may end inside a token: b":" begins b"://"')
    expect(got(b"p", b"h", b"t") != 0, "the last piece alone begins no longer token, but the last "
           'two together begin b"http": do not stop at the first that fails')
    expect(got(b"b", b"http") != 1, "a piece that is itself a token begins no longer one here: ask "
           "for tokens with more bytes than it has")
    expect(got(b"b", b"n", b"an") != 1, 'you stop at the first that works: b"an" begins b"ana", '
           'and the last two together, b"nan", begin b"nanas"')
    expect(got(b"http", b":") == 1 and got(b"b", b"n", b"an") == 2, "expected 1 for http, : and 2 "
           "for b, n, an")
    expect(got() == 0 and got(b"a", b"n") == 2, "all pieces of a prompt may be taken back, and of "
           "an empty prompt none")
    expect_agreement(answer, _taken_back, [
        ([b"b", b" "], vocabulary), ([b":", b"/"], vocabulary), ([b"b", b"h", b"t", b"t"],
        vocabulary), ([b"x"], [b"x", b"y"]), ([b"a", b"b", b"c"], [b"abcd", b"b"]),
        ([b"b", b"c"], [b"abcd", b"bc"])])


def _taken_back(pieces: list[bytes], vocabulary: list[bytes]) -> int:
    tails = [b"".join(pieces[-count:]) for count in range(1, len(pieces) + 1)]
    return max((count for count, tail in enumerate(tails, 1) for token in vocabulary
                if token.startswith(tail) and token != tail), default=0)
