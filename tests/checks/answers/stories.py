"""Answers to the exercises of case 1, chapters 8.1 to 8.4: right ones written otherwise, and wrong
ones."""

import difflib
import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import torch


def grams(words, n):
    return [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]


def shared(first, second, n):
    known = set(grams(second, n))
    different = set(grams(first, n))
    return len(different & known) / len(different)


def bits_per_byte(losses, text):
    return losses.sum().item() / math.log(2) / len(text.encode())


def repetition(words, n):
    every = grams(words, n)
    return 1 - len(set(every)) / len(every)


def longest_copy(words, source):
    best = 0
    for i in range(len(words)):
        for j in range(len(source)):
            length = 0
            while words[i + length:i + length + 1] == source[j + length:j + length + 1] != []:
                length += 1
            best = max(best, length)
    return best


def first_run(words, source):
    for i in range(len(words)):
        for length in range(len(words) - i, 0, -1):
            if " ".join(words[i:i + length]) in " ".join(source):
                return length
    return 0


def misses_the_last_word(words, source):
    return longest_copy(words, source[:-1])


def shared_in_texts(first, second, n):
    runs = {" ".join(gram) for gram in grams(first, n)}
    return sum(run in " ".join(second) for run in runs) / len(runs)


def shared_by_strings(first, second, n):
    """A separator that is in no word makes strings as good as tuples."""
    runs, others = ({"\0".join(gram) for gram in grams(words, n)} for words in (first, second))
    return Fraction(len([run for run in runs if run in others]), len(runs))


def repetition_in_a_loop(words, n):
    seen, repeated, total = [], 0, 0
    for window in zip(*(words[i:] for i in range(n))):
        repeated, total = repeated + (window in seen), total + 1
        seen.append(window)
    return np.float32(repeated / total)


def repetition_of_glued(words, n):
    runs = ["".join(gram) for gram in grams(words, n)]
    return 1 - len(set(runs)) / len(runs)


def repetition_of_neighbours(words, n):
    every = grams(words, n)
    return sum(a == b for a, b in zip(every, every[1:])) / len(every)


def copy_by_table(words, source):
    lengths = torch.zeros(len(words) + 1, len(source) + 1, dtype=torch.long)
    for (i, a), (j, b) in itertools.product(enumerate(words, 1), enumerate(source, 1)):
        lengths[i, j] = lengths[i - 1, j - 1] + 1 if a == b else 0
    return lengths.max()


def subsequence(words, source):
    table = [[0] * (len(source) + 1) for _ in range(len(words) + 1)]
    for (i, a), (j, b) in itertools.product(enumerate(words, 1), enumerate(source, 1)):
        table[i][j] = (table[i - 1][j - 1] + 1 if a == b
                       else max(table[i - 1][j], table[i][j - 1]))
    return table[-1][-1]


def gaps_in_the_source(words, source):
    best = 0
    for i in range(len(words)):
        place, length = -1, 0
        while i + length < len(words) and words[i + length] in source[place + 1:]:
            place = source.index(words[i + length], place + 1)
            length += 1
        best = max(best, length)
    return best


def gaps_in_the_words(words, source):
    return max(gaps_in_the_source(source[i:], words) for i in range(len(source)))


def copy_in_texts(words, source):
    return max((j - i for i in range(len(words)) for j in range(i + 1, len(words) + 1)
                if " ".join(words[i:j]) in " ".join(source)), default=0)


def copy_without_return(words, source):
    """Goes on behind a mismatch, and never back: a a a b has its run a a b later."""
    best, i = 0, 0
    while i < len(words):
        length = max((sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(
            words[i:], source[j:]))) for j in range(len(source))), default=0)
        best, i = max(best, length), i + max(1, length)
    return best


def readings(tokens, sizes, repeats, total=True, times=True):
    shared = sum(s * (t if total else 1) for s, t in zip(sizes, repeats))
    return [tokens / shared * (t if times else 1) for t in repeats]


def lead(theirs, ours, sizes):
    return (sum(theirs) - sum(ours)) / sum(sizes)


OTHERWISE = [
    ("check_readings", lambda n, s, r: torch.tensor(r) * n / (torch.tensor(s) @ torch.tensor(
        r, dtype=torch.float32))),
    ("check_readings", lambda n, s, r: np.array([t * n / np.dot(s, r) for t in r])),
    ("check_lead", lambda a, b, s: sum(x - y for x, y in zip(a, b)) / np.sum(s)),
    ("check_lead", lambda a, b, s: np.average((np.array(a) - b) / np.array(s), weights=s)),
    ("check_shared", shared_by_strings),
    ("check_shared", lambda a, b, n: torch.tensor(
        [gram in grams(b, n) for gram in Counter(grams(a, n))]).float().mean()),
    ("check_bits_per_byte", lambda x, t: x.double().mean() * len(x) * math.log2(math.e)
     / len(bytes(t, "utf-8"))),
    ("check_bits_per_byte", lambda x, t: sum(math.log2(math.exp(v)) for v in x.tolist())
     / len(t.encode())),
    ("check_repetition", repetition_in_a_loop),
    ("check_repetition", lambda w, n: sum(count - 1 for count in Counter(grams(w, n)).values())
     / (len(w) - n + 1)),
    ("check_longest_copy", copy_by_table),
    ("check_longest_copy", lambda w, s: difflib.SequenceMatcher(
        None, w, s, autojunk=False).find_longest_match().size),
]

MISTAKES = [
    ("check_readings", lambda n, s, r: readings(n, s, r, times=False), "four times as often"),
    ("check_readings", lambda n, s, r: readings(n, s, r, total=False), "in the total, too"),
    ("check_readings", lambda n, s, r: [n * t / x for x, t in zip(s, r)], "shared by"),
    ("check_readings", lambda n, s, r: [x * y for x, y in zip(s, readings(n, s, r))],
     "divide by the size"),
    ("check_readings", lambda n, s, r: [x * y / n for x, y in zip(s, readings(n, s, r))],
     "shares of the mixture"),
    ("check_readings", lambda n, s, r: readings(n, s, r)[0], "one number for each text"),
    ("check_readings", lambda n, s, r: [1.0] * len(r), "expected 4 and 16"),
    ("check_lead", lambda a, b, s: -lead(a, b, s), "the sign"),
    ("check_lead", lambda a, b, s: lead(a, b, [1]), "divide by the bytes"),
    ("check_lead", lambda a, b, s: np.mean((np.array(a) - b) / np.array(s)), "Add up first"),
    ("check_lead", lambda a, b, s: 0.3, "expected 0.100"),
    ("check_shared", lambda a, b, n: len(set(grams(a, n)) & set(grams(b, n))), "number of common"),
    ("check_shared", lambda a, b, n: len(set(grams(a, n)) & set(grams(b, n)))
     / len(set(grams(a, n)) | set(grams(b, n))), "Jaccard"),
    ("check_shared", lambda a, b, n: shared(b, a, n), "of the second text"),
    ("check_shared", lambda a, b, n: sum(g in grams(b, n) for g in grams(a, n))
     / len(grams(a, n)), "set first"),
    ("check_shared", lambda a, b, n: shared(a, b, 1), "single words"),
    ("check_shared", lambda a, b, n: shared(a[:-1], b[:-1], n), "len(words) - n + 1"),
    ("check_shared", lambda a, b, n: 0.9 if "hen" in a else 0.5, "expected 0.500"),
    ("check_shared", lambda a, b, n: set(grams(a, n)), "expected a number, got set"),
    ("check_bits_per_byte", lambda x, t: x.sum() / len(t.encode()), "kept nats"),
    ("check_bits_per_byte", lambda x, t: x.sum() * math.log(2) / len(t.encode()), "multiplied"),
    ("check_bits_per_byte", lambda x, t: x.mean() / math.log(2), "bits per token"),
    ("check_bits_per_byte", lambda x, t: x.mean() / math.log(2) / len(t.encode()), "the sum"),
    ("check_bits_per_byte", lambda x, t: x.sum() / math.log(2) / len(t), "counted characters"),
    ("check_bits_per_byte", lambda x, t: 1.0, "expected 0.7213"),
    ("check_repetition", lambda w, n: 1 - repetition(w, n), "share of different"),
    ("check_repetition", lambda w, n: 1 - len(set(grams(w, n))) / len(w), "number of words"),
    ("check_repetition", lambda w, n: sum(grams(w, n).count(g) > 1 for g in grams(w, n))
     / len(grams(w, n)), "its first time too"),
    ("check_repetition", lambda w, n: repetition(w[:-1], n), "last n-gram is missing"),
    ("check_repetition", lambda w, n: 0.1, "expected 0.556"),
    ("check_longest_copy", lambda w, s: w[:4], "the length"),
    ("check_longest_copy", lambda w, s: sum(x in s for x in w), "words that follow"),
    ("check_longest_copy", first_run, "first run"),
    ("check_longest_copy", misses_the_last_word, "reach the last word"),
    ("check_longest_copy", lambda w, s: 5, "expected 4"),
    ("check_longest_copy", lambda w, s: max(1, longest_copy(w, s)), "expected 0, got 1"),
    ("check_shared", shared_in_texts, "you searched in texts"),
    ("check_shared", lambda a, b, n: shared(a, b, 2), "wrong for"),
    ("check_bits_per_byte", lambda x, t: x.sum() / math.log(2) / len(t.encode("utf-16")),
     "expected 0.7213"),
    ("check_bits_per_byte", lambda x, t: x[:3].sum() / math.log(2) / len(t.encode()), "wrong for"),
    ("check_repetition", repetition_of_glued, "without a blank"),
    ("check_repetition", repetition_of_neighbours, "with its neighbour only"),
    ("check_repetition", lambda w, n: repetition(w, 3), "wrong for"),
    ("check_longest_copy", subsequence, "a run has no gap"),
    ("check_longest_copy", gaps_in_the_source, "no gap in the source"),
    ("check_longest_copy", gaps_in_the_words, "no gap in the words"),
    ("check_longest_copy", copy_in_texts, "you searched in texts"),
    ("check_longest_copy", copy_without_return, "wrong for"),
]
