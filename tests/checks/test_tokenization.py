"""The checks of chapter 2.2.2: solutions pass, and each named mistake gets its own message."""

from collections import Counter
from itertools import pairwise

import pytest
import regex

from gptlib.checks.tokenization import (
    check_bytes_per_token,
    check_cheapest,
    check_count_pairs,
    check_encode_word,
    check_split_digits,
)
from gptlib.text.bpe import merge, split_words

CHECKS = [check_count_pairs, check_encode_word, check_bytes_per_token, check_split_digits,
          check_cheapest]


@pytest.mark.parametrize("check", CHECKS)
def test_the_stub_is_not_attempted(check, capsys):
    check(lambda *inputs: ...)
    assert capsys.readouterr().out.startswith("not attempted yet")


def says(check, answer, message):
    verdict = check.judge(answer)
    assert verdict.status == "mistake"
    assert message in verdict.message


# --- count_pairs --------------------------------------------------------------------------------

def count_pairs(words, weighted=True, ordered=True, once=False):
    counts = Counter()
    for ids, count in words.items():
        pairs = list(pairwise(ids))
        for pair in set(pairs) if once else pairs:
            counts[pair if ordered else tuple(sorted(pair))] += count if weighted else 1
    return counts


def count_across_words(words):
    stream = [i for ids, count in words.items() for i in list(ids) * count]
    return Counter(pairwise(stream))


def test_count_pairs():
    assert check_count_pairs.judge(count_pairs).status == "correct"
    says(check_count_pairs, lambda w: count_pairs(w, weighted=False), "counted each word once")
    says(check_count_pairs, lambda w: count_pairs(w, ordered=False), "you sorted the pair")
    says(check_count_pairs, lambda w: count_pairs(w, once=True), "twice, you counted it once")
    says(check_count_pairs, count_across_words, "do not cross from one word into the next")
    says(check_count_pairs, lambda w: 3, "return a dictionary")
    says(check_count_pairs, lambda w: {}, "expected {(1, 2): 5")


# --- encode_word --------------------------------------------------------------------------------

def encode_word(ids, ranks):
    ids = list(ids)
    while known := [pair for pair in pairwise(ids) if pair in ranks]:
        best = min(known, key=ranks.get)
        ids = merge(ids, best, 256 + ranks[best])
    return ids


def leftmost_first(ids, ranks):
    ids = list(ids)
    while known := [pair for pair in pairwise(ids) if pair in ranks]:
        ids = merge(ids, known[0], 256 + ranks[known[0]])
    return ids


def one_occurrence(ids, ranks):
    ids = list(ids)
    for pair in sorted(ranks, key=ranks.get):
        for i in range(len(ids) - 1):
            if (ids[i], ids[i + 1]) == pair:
                ids[i:i + 2] = [256 + ranks[pair]]
                break
    return ids


def one_round(ids, ranks):
    known = [pair for pair in pairwise(ids) if pair in ranks]
    best = min(known, key=ranks.get, default=None)
    return merge(ids, best, 256 + ranks[best]) if best else list(ids)


def rank_as_id(ids, ranks):
    ids = list(ids)
    while known := [pair for pair in pairwise(ids) if pair in ranks]:
        best = min(known, key=ranks.get)
        ids = merge(ids, best, ranks[best])
    return ids


def from_the_right(ids, ranks):
    flipped = encode_word(ids[::-1], {(b, a): rank for (a, b), rank in ranks.items()})
    return flipped[::-1]


def needs_a_pair(ids, ranks):
    return encode_word(ids, ranks) if len(ids) > 1 else [0]


def in_place(ids, ranks):
    ids[:] = encode_word(ids, ranks)
    return ids


def test_encode_word():
    assert check_encode_word.judge(encode_word).status == "correct"
    says(check_encode_word, rank_as_id, "the new id is 256 + rank")
    says(check_encode_word, leftmost_first, "the pair with the lowest rank comes first")
    says(check_encode_word, one_occurrence, "you merged one occurrence")
    says(check_encode_word, one_round, "you stopped too early")
    says(check_encode_word, from_the_right, "from the left, [256, 1]")
    says(check_encode_word, needs_a_pair, "has no pair to merge")
    says(check_encode_word, in_place, "in place")
    says(check_encode_word, lambda ids, ranks: [3, 3], "should give [257]")


# --- bytes_per_token ----------------------------------------------------------------------------

def test_bytes_per_token():
    check = check_bytes_per_token
    assert check.judge(lambda t, s: len(s.encode()) / len(t.encode(s))).status == "correct"
    says(check, lambda t, s: len(t.encode(s)) / len(s.encode()), "turn the fraction over")
    says(check, lambda t, s: len(t.encode(s)) / len(s), "turn the fraction over")
    says(check, lambda t, s: len(s) / len(t.encode(s)), "é is one character but two bytes")
    says(check, lambda t, s: len(s.encode()) // len(t.encode(s)), "rounded to a whole number")
    says(check, lambda t, s: 1.6, "it is 1 for every text")
    says(check, lambda t, s: 2.5, "8 bytes in 5 tokens")


# --- split_digits -------------------------------------------------------------------------------

def splitter(pattern):
    return lambda text: regex.findall(pattern, text)


def test_split_digits():
    check = check_split_digits
    rest = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    assert check.judge(splitter(r" ?\p{N}|" + rest)).status == "correct"
    assert check.judge(splitter(r"\p{N}|" + rest)).status == "correct"
    says(check, split_words, "this is still GPT-2's split")
    says(check, list, "you cut words into letters")
    says(check, splitter(r"\d"), "characters are lost")
    says(check, splitter(r" ?\p{N}{1,3}|" + rest), "holds more than one digit")
    says(check, splitter(r"\p{N}|\p{L}+|'\p{L}+|[^\s\p{L}\p{N}]+|\s+"), "a blank stays in front")
    says(check, splitter(r"[0-9]|" + rest.replace(r"\p{N}", "0-9") + r"|\p{N}+"), r"\p{N}")
    glued = splitter(r"\p{N}| ?[\p{L}']+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    says(check, glued, "apart from digits")
    says(check, lambda text: tuple(split_words(text)), "return a list of strings")


# --- cheapest -----------------------------------------------------------------------------------

def cheapest(word, cost):
    best = [(0, [])]
    for end in range(1, len(word) + 1):
        ways = [(best[start][0] + cost[word[start:end]], start)
                for start in range(end) if word[start:end] in cost]
        price, start = min(ways)
        best.append((price, best[start][1] + [word[start:end]]))
    return best[-1][1]


def price(tokens, cost):
    return sum(cost[token] for token in tokens)


def all_ways(word, cost):
    if not word:
        return []
    ways = [[word[:end], *all_ways(word[end:], cost)]
            for end in range(1, len(word) + 1) if word[:end] in cost]
    return min(ways, key=lambda tokens: price(tokens, cost))


def all_ways_over_the_vocabulary(word, cost):
    """The price and the tokens, found without reading any cost by its key."""
    if not word:
        return 0, []
    rests = [(token, each, *all_ways_over_the_vocabulary(word[len(token):], cost))
             for token, each in cost.items() if word.startswith(token)]
    return min((each + rest, [token, *tokens]) for token, each, rest, tokens in rests)


def longest_first(word, cost):
    tokens = []
    while word:
        end = max(end for end in range(1, len(word) + 1) if word[:end] in cost)
        tokens.append(word[:end])
        word = word[end:]
    return tokens


def longest_that_pays(word, cost):
    if word == b"abcdef":
        return cheapest(word, cost)
    tokens = []
    while word:
        good = [end for end in range(1, len(word) + 1)
                if word[:end] in cost and cost[word[:end]] <= 4 * end]
        tokens.append(word[:max(good)])
        word = word[max(good):]
    return tokens


def test_cheapest():
    check = check_cheapest
    assert check.judge(cheapest).status == "correct"
    says(check, lambda w, c: price(cheapest(w, c), c), "not their price")
    says(check, lambda w, c: list(w), "each element is a number")
    says(check, lambda w, c: cheapest(w, c)[::-1], "in reverse order")
    says(check, lambda w, c: cheapest(w, c)[:-1], "join to b'abc'")
    says(check, lambda w, c: [w], "has no cost")
    says(check, longest_first, "you took the longest token at each place")
    says(check, lambda w, c: [bytes([byte]) for byte in w], "costs 24 in your cut")
    says(check, lambda w, c: cheapest(w, dict.fromkeys(c, 1)), "you looked for the fewest tokens")
    says(check, longest_that_pays, "you went from left to right")
    says(check, lambda w, c: cheapest(w, c) if len(w) > 3 else [b"a", b"b", b"c"], "[b'a', b'bc']")
    says(check, lambda w, c: cheapest(w, c) or [b""], "an empty word")
    says(check, all_ways, "you try all ways")
    says(check, lambda w, c: cheapest(w, c) if len(w) < 15 else [b"a"] * 15, "one token of 15")


def test_trying_all_ways_is_seen_when_the_costs_are_read_as_items():
    says(check_cheapest, lambda w, c: all_ways_over_the_vocabulary(w, c)[1], "you try all ways")
