"""Each check of case 1 passes its solution and names every likely mistake."""

import math
import re

import pytest

from gptlib.checks import stories as checks


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


SOLUTIONS = {"check_shared": shared, "check_bits_per_byte": bits_per_byte,
             "check_repetition": repetition, "check_longest_copy": longest_copy}

WRONG = [
    ("check_shared", lambda a, b, n: len(set(grams(a, n)) & set(grams(b, n))), "number of common"),
    ("check_shared", lambda a, b, n: len(set(grams(a, n)) & set(grams(b, n)))
     / len(set(grams(a, n)) | set(grams(b, n))), "Jaccard"),
    ("check_shared", lambda a, b, n: shared(b, a, n), "of the second text"),
    ("check_shared", lambda a, b, n: sum(g in grams(b, n) for g in grams(a, n))
     / len(grams(a, n)), "set first"),
    ("check_shared", lambda a, b, n: shared(a, b, 1), "single words"),
    ("check_shared", lambda a, b, n: shared(a[:-1], b[:-1], n), "len\\(words\\) - n \\+ 1"),
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
    ("check_longest_copy", lambda w, s: 7, "expected 4"),
    ("check_longest_copy", lambda w, s: max(1, longest_copy(w, s)), "expected 0, got 1"),
]


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    judge = getattr(checks, name).judge
    assert judge(SOLUTIONS[name]).status == "correct"
    assert judge(lambda *inputs: ...).status == "not attempted"
    assert judge(lambda *inputs: None).status == "not attempted"


@pytest.mark.parametrize("name, answer, message", WRONG)
def test_each_likely_mistake_gets_its_own_message(name, answer, message):
    verdict = getattr(checks, name).judge(answer)
    assert verdict.status == "mistake"
    assert re.search(message, verdict.message), verdict.message
