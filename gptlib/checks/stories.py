"""Checks of the exercises of case 1 (chapters 8.1 to 8.4)."""

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

HEN = "the hen found a grain and the hen ate it".split()
FOX = "the fox saw that the hen found a grain of corn".split()


def _sets(first: list[str], second: list[str], n: int) -> tuple[set, set]:
    return tuple({tuple(words[i:i + n]) for i in range(len(words) - n + 1)}
                 for words in (first, second))


@exercise
def check_shared(answer: Any) -> None:
    """`shared(first, second, n)`: share of the first text's n-grams that the second has."""
    got = as_number(attempt(answer, HEN, FOX, 2))
    a, b = _sets(HEN, FOX, 2)
    right = len(a & b) / len(a)
    expect(not close(got, len(a & b)), "you return the number of common n-grams; divide it by the "
           "number of different n-grams of the first text")
    expect(not close(got, len(a & b) / len(a | b)), "you divided by the n-grams of both texts "
           "together (Jaccard): a short story inside a long book would hardly show")
    expect(not close(got, len(a & b) / len(b)), "you divided by the n-grams of the second text; "
           "the question is how much of the first one is found again")
    every = [tuple(HEN[i:i + 2]) for i in range(len(HEN) - 1)]
    expect(not close(got, sum(gram in b for gram in every) / len(every)), "you counted an n-gram "
           "as often as it occurs; put them into a set first: here each different one counts once")
    one = len(set(HEN) & set(FOX)) / len(set(HEN))
    expect(not close(got, one), "you compared single words; compare runs of n words")
    last = as_number(attempt(answer, ["a", "b", "c"], ["x", "b", "c"], 2))
    expect(close(last, 0.5), f"for a b c and x b c expected 0.5, got {last:.3f}: is the last "
           "n-gram there? There are len(words) - n + 1 of them")
    expect(close(got, right), f"for the two sentences and n=2 expected {right:.3f}, got {got:.3f}")
    inside = as_number(attempt(answer, "on a mat".split(), "upon a mate".split(), 2))
    expect(close(inside, 0), "you searched in texts, not in lists of words: \"on a\" stands in "
           "\"upon a\", but on is not upon; compare tuples of words")
    expect_agreement(answer, _shared, [
        (HEN, FOX, 1), (FOX, HEN, 3), (["ab", "c"], ["a", "bc"], 2), (["a"], [], 1),
        (["a", "a", "a"], ["b", "a", "a"], 2), (HEN, HEN, len(HEN))])


def _shared(first: list[str], second: list[str], n: int) -> float:
    known, different = _sets(second, first, n)
    return len(different & known) / len(different)


@exercise
def check_readings(answer: Any) -> None:
    """`readings(tokens, sizes, repeats)`: how often each text of a mixture is read, (N,)."""
    tokens, sizes, repeats = 1200.0, [100.0, 50.0], [1, 4]  # a reading of the mixture: 300
    got = attempt(answer, tokens, sizes, repeats)
    expect(as_tensor(got).shape == (2,), "return a list with one number for each text")
    expect(not close(got, [4.0, 4.0]), "so often the whole mixture is read; a text that stands in "
           "it four times is read four times as often")
    expect(not close(got, [8.0, 32.0]), "one reading of the mixture is longer than its texts: in "
           "the total, too, each counts as often as it stands there")
    expect(not close(got, [12.0, 96.0]), "you gave all tokens to every text; they are shared by "
           "all of the mixture")
    expect(not close(got, [400.0, 800.0]), "these are tokens; divide by the size of each text")
    expect(not close(got, [1 / 3, 2 / 3]), "these are shares of the mixture; how often is each "
           "text read in the whole training?")
    expect(close(got, [4.0, 16.0]), f"for 1,200 tokens, sizes 100 and 50, repeats 1 and 4 expected "
           f"4 and 16, got {as_tensor(got).tolist()}")
    expect_agreement(answer, _readings, [
        (90.0, [30.0], [3]), (1.0, [10.0, 20.0, 30.0], [1, 1, 2]), (500.0, [7.0, 5.0], [2, 3])])


def _readings(tokens: float, sizes: list[float], repeats: list[int]) -> list[float]:
    total = sum(size * times for size, times in zip(sizes, repeats))
    return [tokens / total * times for times in repeats]


@exercise
def check_lead(answer: Any) -> None:
    """`lead(theirs, ours, sizes)`: bits per byte that we need less, over all stories together."""
    theirs, ours, sizes = [60.0, 900.0], [40.0, 880.0], [10.0, 390.0]
    got = as_number(attempt(answer, theirs, ours, sizes))
    expect(not close(got, -0.1), "the sign is turned round: the lead is positive where the other "
           "model needs more bits")
    expect(not close(got, 40), "these are bits; divide by the bytes of all stories")
    expect(not close(got, (2 + 20 / 390) / 2), "you took the mean of each story's bits per byte: "
           "then a story of ten bytes weighs as much as one of 390. Add up first")
    expect(close(got, 0.1), f"for 60 and 900 bits against 40 and 880, of 10 and 390 bytes, "
           f"expected 0.100, got {got:.3f}")
    expect_agreement(answer, _lead, [
        ([3.0], [3.0], [2.0]), ([1.0, 2.0, 9.0], [2.0, 1.0, 3.0], [1.0, 4.0, 5.0]),
        ([5.0, 1.0], [6.0, 4.0], [2.0, 8.0])])


def _lead(theirs: list[float], ours: list[float], sizes: list[float]) -> float:
    return (sum(theirs) - sum(ours)) / sum(sizes)


@exercise
def check_bits_per_byte(answer: Any) -> None:
    """`bits_per_byte(losses, text)`: losses in nats per token (N,), of a text of some bytes."""
    losses, text = torch.tensor([2.0, 1.0, 3.0]), "Ein Märchen"  # 11 characters, 12 bytes
    got = as_number(attempt(answer, losses, text))
    right = 6 / math.log(2) / 12
    expect(not close(got, 6 / 12), "you kept nats; divide by ln 2 to get bits")
    expect(not close(got, 6 * math.log(2) / 12), "you multiplied by ln 2; a nat is 1 / ln 2 = 1.44 "
           "bits, so divide")
    expect(not close(got, 2 / math.log(2)), "these are bits per token: divide the total of the "
           "losses, not their mean, by the number of bytes")
    expect(not close(got, 2 / math.log(2) / 12), "you divided the mean loss by the bytes; take "
           "the sum of the losses")
    expect(not close(got, 6 / math.log(2) / 11), "you counted characters; ä takes two bytes in "
           "UTF-8: len(text.encode())")
    expect(close(got, right), f"for losses of 2, 1, 3 nats and 12 bytes expected {right:.4f}, "
           f"got {got:.4f}")
    expect_agreement(answer, lambda losses, text: losses.sum().item() / math.log(2)
                     / len(text.encode()), [(torch.tensor([0.5]), "中文\n"), (
                         torch.arange(9.0), "a day 👩"), (torch.zeros(2), "no")])


@exercise
def check_repetition(answer: Any) -> None:
    """`repetition(words, n)`: share of the n-grams of a text that stood in it before."""
    loop = "so they ran and so they ran and so they ran".split()  # 9 trigrams, 4 different
    got = as_number(attempt(answer, loop, 3))
    expect(not close(got, 4 / 9), "this is the share of different n-grams; repetition is what is "
           "left to 1")
    expect(not close(got, 1 - 4 / 11), "you divided by the number of words; a text of N words has "
           "N - n + 1 n-grams")
    expect(not close(got, 0.0), "you compare a run with its neighbour only: so they ran comes "
           "back four words later")
    expect(not close(got, 1.0), "you count every n-gram that occurs twice, its first time too; "
           "only the second and later ones are repetitions")
    expect(not close(got, 1 - 4 / 8), "the last n-gram is missing: there are N - n + 1")
    expect(close(got, 5 / 9), f"for {' '.join(loop)!r} and n=3 expected {5 / 9:.3f}, got {got:.3f}")
    fresh = as_number(attempt(answer, "one two three four".split(), 3))
    expect(close(fresh, 0.0), f"a text that repeats nothing has repetition 0, got {fresh:.3f}")
    glued = as_number(attempt(answer, ["ab", "c", "a", "bc"], 2))
    expect(close(glued, 0.0), "you joined the words of a run without a blank: ab c and a bc are "
           "two runs; use tuples")
    expect_agreement(answer, _repetition, [
        ("to be or not to be".split(), 2), (["a"] * 5, 2), (["a"] * 5, 5), (["x", "y", "x"], 1),
        (loop, 4)])


def _repetition(words: list[str], n: int) -> float:
    grams = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
    return sum(gram in grams[:i] for i, gram in enumerate(grams)) / len(grams)


@exercise
def check_longest_copy(answer: Any) -> None:
    """`longest_copy(words, source)`: length of the longest run of words that both lists share."""
    source = "once upon a time there was a little red hen".split()
    mixed = "there was a fox once upon a time and a little hen".split()
    got = attempt(answer, mixed, source)
    expect(not isinstance(got, (list, tuple, str)), "return the length of the run, not its words")
    got, common = as_number(got), sum(word in source for word in mixed)
    expect(got != common, f"{common} words occur in both texts, but the longest run, words that "
           "follow each other in both, has 4")
    expect(got != 7, "you left out words in between (once upon a time ... a little ... hen): a "
           "run has no gap, in neither list")
    expect(got != 3, "you stopped at the first run (there was a); a longer one comes later")
    expect(got == 4, f"expected 4 (once upon a time), got {got}")
    edge = as_number(attempt(answer, "a little red hen".split(), source))
    expect(edge == 4, f"for a text that is the end of the source expected 4, got {edge}: does "
           "your loop reach the last word?")
    nothing = as_number(attempt(answer, ["zebra"], source))
    expect(nothing == 0, f"for texts without a common word expected 0, got {nothing}")
    gap = as_number(attempt(answer, "a little hen".split(), source))
    expect(gap == 2, f"for a little hen, where the source has a little red hen, expected 2, got "
           f"{gap}: the run may have no gap in the source")
    gap = as_number(attempt(answer, "a time long ago there was a".split(), source))
    expect(gap == 3, f"for a time long ago there was a, where the source has a time there was a, "
           f"expected 3, got {gap}: the run may have no gap in the words")
    inside = as_number(attempt(answer, "on a time".split(), source))
    expect(inside == 2, "you searched in texts, not in lists of words: \"on a time\" stands in "
           "\"upon a time\", but on is not upon")
    expect_agreement(answer, _longest, [
        ([], source), (["a"], []), (list("aab"), list("aaab")), (list("abab"), list("babab")),
        (source[::-1], source), (list("aabc"), list("aaxabc")),
        (list("xabcabd"), list("abcabcabd"))])


def _longest(words: list[str], source: list[str]) -> int:
    return max((n for n in range(1, len(words) + 1) if set.intersection(
        *_sets(words, source, n))), default=0)
