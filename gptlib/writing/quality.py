"""What can be measured about texts without a model: variety, repetition, copying, near-duplicates.

Everything counts words in lower case without punctuation, so that a changed comma hides nothing.
An n-gram here is n words in a row.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

NGram = tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of a text in lower case; an apostrophe inside a word belongs to it."""
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def ngrams(text: str, n: int) -> list[NGram]:
    """All n-grams of a text in order; none if it has fewer than n words."""
    if n < 1:
        raise ValueError(f"n is {n}; expected 1 or more words")
    tokens = words(text)
    return [tuple(tokens[i:i + n]) for i in range(len(tokens) - n + 1)]


def distinct_n(texts: Iterable[str], n: int = 2) -> float:
    """Share of the n-grams of all texts together that are different ones, in [0, 1].

    Li et al. (2016), arXiv:1510.03055. It falls with the amount of text: compare equal amounts.
    """
    counts = Counter(gram for text in texts for gram in ngrams(text, n))
    _need(counts.total(), n)
    return len(counts) / counts.total()


def repetition(text: str, n: int = 4) -> float:
    """Share of the n-grams of one text that stood in it before, in [0, 1].

    seq-rep-n of Welleck et al. (2020), arXiv:1908.04319: 0 if nothing is said twice.
    """
    grams = ngrams(text, n)
    _need(len(grams), n)
    return 1 - len(set(grams)) / len(grams)


def overlap(text: str, known: set[NGram], n: int = 8) -> float:
    """Share of the n-grams of `text` that are in `known`, in [0, 1].

    `known` is, say, `ngram_set(training_texts, n)`: the share that could have been copied.
    """
    grams = ngrams(text, n)
    _need(len(grams), n)
    return sum(gram in known for gram in grams) / len(grams)


def ngram_set(texts: Iterable[str], n: int = 8) -> set[NGram]:
    """The different n-grams of all texts; none spans two texts."""
    return {gram for text in texts for gram in ngrams(text, n)}


class CopyFinder:
    """Finds what a text shares word for word with reference texts, to the longest run."""

    def __init__(self, references: Sequence[str]) -> None:
        # a separator that is no word keeps runs from crossing the border of two texts
        self._joined = " " + " | ".join(" ".join(words(text)) for text in references) + " "

    def longest(self, text: str) -> str:
        """The longest run of words of `text` that also stands in a reference; "" if none."""
        tokens, best = words(text), ""
        start, length = 0, 1  # only runs longer than the best one are looked for
        while start + length <= len(tokens):
            run = " ".join(tokens[start:start + length])
            if f" {run} " in self._joined:
                best, length = run, length + 1
            else:
                start += 1
        return best


def near_duplicates(texts: Sequence[str], n: int = 5,
                    threshold: float = 0.1) -> list[tuple[int, int, float]]:
    """Pairs (i, j, share), i < j, of texts of which the shorter shares at least `threshold` of
    its different n-grams with the other, the most alike first.

    Containment of Broder (1997), counted exactly; an index from n-grams to texts makes the pairs
    that share nothing cost nothing. A text with fewer than n words is compared with none.
    """
    sets = [set(ngrams(text, n)) for text in texts]
    holders: dict[NGram, list[int]] = {}
    for i, grams in enumerate(sets):
        for gram in grams:
            holders.setdefault(gram, []).append(i)
    shared = Counter((i, j) for found in holders.values() for k, j in enumerate(found)
                     for i in found[:k])
    pairs = [(i, j, count / min(len(sets[i]), len(sets[j]))) for (i, j), count in shared.items()]
    return sorted((pair for pair in pairs if pair[2] >= threshold),
                  key=lambda pair: (-pair[2], pair[:2]))


def _need(count: int, n: int) -> None:
    if count == 0:
        raise ValueError(f"the text has fewer than {n} words, so no {n}-gram to count; "
                         "give a longer text or a smaller n")
