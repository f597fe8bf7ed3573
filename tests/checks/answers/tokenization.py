"""Answers to the exercises of chapter 2.2.2: right ones written otherwise, and wrong ones."""

import functools
from collections import Counter
from itertools import pairwise

import numpy as np
import regex

from gptlib.text.bpe import SPLIT, merge, split_words


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


def splitter(pattern):
    return lambda text: regex.findall(pattern, text)


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


REST = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GLUED = r"\p{N}| ?[\p{L}']+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def pairs_in_a_loop(words):
    counts = {}
    for ids in words:
        for i in range(len(ids) - 1):
            counts.setdefault((ids[i], ids[i + 1]), 0)
            counts[ids[i], ids[i + 1]] += words[ids]
    return counts


def pairs_without_own(words):
    return {(a, b): count for (a, b), count in count_pairs(words).items() if a != b or a == 3}


def encode_in_rank_order(ids, ranks):
    for pair, rank in sorted(ranks.items(), key=lambda item: item[1]):
        ids = merge(ids, pair, 256 + rank)
    return tuple(ids)


def encode_step_by_step(ids, ranks):
    """One merge at a time, always the leftmost of the lowest rank."""
    ids = list(ids)
    while len(ids) > 1:
        rank, i = min((ranks.get(pair, 10**9), i) for i, pair in enumerate(pairwise(ids)))
        if rank == 10**9:
            break
        ids[i:i + 2] = [256 + rank]
    return np.array(ids, dtype=int)


def counted_ranks(ids, ranks):
    """The place in the sorted table instead of the rank."""
    return encode_word(ids, {pair: n for n, pair in enumerate(sorted(ranks, key=ranks.get))})


def split_and_cut(text):
    pieces = []
    for piece in split_words(text):
        cut = regex.findall(r" ?\p{N}", piece)
        pieces += cut if "".join(cut) == piece else [piece]
    return tuple(pieces)


def cheapest_by_memory(word, cost):
    @functools.cache
    def rest(start):
        if start == len(word):
            return 0.0, ()
        return min((cost[word[start:end]] + rest(end)[0], (word[start:end], *rest(end)[1]))
                   for end in range(start + 1, len(word) + 1) if word[start:end] in cost)

    return rest(0)[1]


def cheapest_over_the_vocabulary(word, cost):
    best = {0: (0, [])}
    for end in range(1, len(word) + 1):
        best[end] = min(((best[end - len(token)][0] + price, best[end - len(token)][1] + [token])
                         for token, price in cost.items() if word[:end].endswith(token)),
                        key=lambda way: way[0])
    return best[len(word)][1]


def two_at_most(word, cost):
    """The best way of at most two tokens, else one byte after the other."""
    ways = [[word[:i], word[i:]] for i in range(1, len(word))] + [[word]] * bool(word)
    known = [way for way in ways if all(token in cost for token in way)]
    return min(known, key=lambda way: price(way, cost), default=[bytes([b]) for b in word])


OTHERWISE = [
    ("check_count_pairs", pairs_in_a_loop),
    ("check_count_pairs", lambda w: {
        pair: sum(n * list(pairwise(ids)).count(pair) for ids, n in w.items())
        for every in w for pair in pairwise(every)}),
    ("check_encode_word", encode_in_rank_order),
    ("check_encode_word", encode_step_by_step),
    ("check_bytes_per_token", lambda t, s: np.mean([len(s.encode()) / len(t.encode(s))])),
    ("check_bytes_per_token", lambda t, s: sum(1 for _ in bytes(s, "utf-8"))
     / sum(1 for _ in t.encode(s))),
    ("check_split_digits", splitter(r" ?\p{N}|" + REST)),
    ("check_split_digits", splitter(r"\p{N}|" + REST)),
    ("check_split_digits", split_and_cut),
    ("check_split_digits", lambda text: [match.group() for match in regex.finditer(
        r" ?\p{Nd}|" + SPLIT.pattern, text)]),
    ("check_cheapest", cheapest_by_memory),
    ("check_cheapest", cheapest_over_the_vocabulary),
]

MISTAKES = [
    ("check_count_pairs", lambda w: count_pairs(w, weighted=False), "counted each word once"),
    ("check_count_pairs", lambda w: count_pairs(w, ordered=False), "you sorted the pair"),
    ("check_count_pairs", lambda w: count_pairs(w, once=True), "twice, you counted it once"),
    ("check_count_pairs", count_across_words, "do not cross from one word into the next"),
    ("check_count_pairs", lambda w: 3, "return a dictionary"),
    ("check_count_pairs", lambda w: {}, "expected {(1, 2): 5"),
    ("check_encode_word", rank_as_id, "the new id is 256 + rank"),
    ("check_encode_word", leftmost_first, "the pair with the lowest rank comes first"),
    ("check_encode_word", one_occurrence, "you merged one occurrence"),
    ("check_encode_word", one_round, "you stopped too early"),
    ("check_encode_word", from_the_right, "from the left, [256, 1]"),
    ("check_encode_word", needs_a_pair, "has no pair to merge"),
    ("check_encode_word", in_place, "in place"),
    ("check_encode_word", lambda ids, ranks: [3, 3], "should give [257]"),
    ("check_bytes_per_token", lambda t, s: len(t.encode(s)) / len(s.encode()),
     "turn the fraction over"),
    ("check_bytes_per_token", lambda t, s: len(t.encode(s)) / len(s), "turn the fraction over"),
    ("check_bytes_per_token", lambda t, s: len(s) / len(t.encode(s)),
     "é is one character but two bytes"),
    ("check_bytes_per_token", lambda t, s: len(s.encode()) // len(t.encode(s)),
     "rounded to a whole number"),
    ("check_bytes_per_token", lambda t, s: 1.6, "11 bytes in 5 tokens"),
    ("check_bytes_per_token", lambda t, s: 2.5, "8 bytes in 5 tokens"),
    ("check_split_digits", split_words, "this is still GPT-2's split"),
    ("check_split_digits", list, "you cut words into letters"),
    ("check_split_digits", splitter(r"\d"), "characters are lost"),
    ("check_split_digits", splitter(r" ?\p{N}{1,3}|" + REST), "holds more than one digit"),
    ("check_split_digits", splitter(r"\p{N}|\p{L}+|'\p{L}+|[^\s\p{L}\p{N}]+|\s+"),
     "a blank stays in front"),
    ("check_split_digits", splitter(r"[0-9]|" + REST.replace(r"\p{N}", "0-9") + r"|\p{N}+"),
     "\\p{N}"),
    ("check_split_digits", splitter(GLUED), "apart from digits"),
    ("check_split_digits", " ".join, "return a list of strings"),
    ("check_cheapest", lambda w, c: price(cheapest(w, c), c), "not their price"),
    ("check_cheapest", lambda w, c: list(w), "each element is a number"),
    ("check_cheapest", lambda w, c: cheapest(w, c)[::-1], "in reverse order"),
    ("check_cheapest", lambda w, c: cheapest(w, c)[:-1], "join to b'abc'"),
    ("check_cheapest", lambda w, c: [w], "has no cost"),
    ("check_cheapest", longest_first, "you took the longest token at each place"),
    ("check_cheapest", lambda w, c: [bytes([byte]) for byte in w], "costs 24 in your cut"),
    ("check_cheapest", lambda w, c: cheapest(w, dict.fromkeys(c, 1)),
     "you looked for the fewest tokens"),
    ("check_cheapest", longest_that_pays, "you went from left to right"),
    ("check_cheapest", lambda w, c: cheapest(w, c) if len(w) > 3 else [b"a", b"b", b"c"],
     "[b'a', b'bc']"),
    ("check_cheapest", lambda w, c: cheapest(w, c) or [b""], "an empty word"),
    ("check_cheapest", all_ways, "you try all ways"),
    ("check_cheapest", lambda w, c: cheapest(w, c) if len(w) < 15 else [b"a"] * 15,
     "one token of 15"),
    ("check_cheapest", lambda w, c: all_ways_over_the_vocabulary(w, c)[1], "you try all ways"),
    ("check_count_pairs", pairs_without_own, "expected {(4, 4): 13"),
    ("check_encode_word", counted_ranks, "wrong for ([2, 2, 2, 2, 2]"),
    ("check_bytes_per_token", lambda t, s: len(s.encode()) / len(set(t.encode(s))),
     "different tokens"),
    ("check_bytes_per_token", lambda t, s: len(s.encode()) / len(s.split()), "8 bytes in 5 tokens"),
    ("check_split_digits", splitter(r" ?\d|" + REST), "is not all of"),
    ("check_split_digits", splitter(r"\p{N}|" + REST.replace(r"\s+(?!\S)|", "")),
     "a blank stays in front"),
    ("check_cheapest", two_at_most, "wrong for"),
]
