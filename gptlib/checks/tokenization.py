"""Checks of the exercises of chapter 2.2.2."""

import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from gptlib.checks import as_number, attempt, close, exercise, expect, expect_agreement
from gptlib.text.bpe import split_words
from gptlib.text.tokenizers import BPETokenizer, ByteTokenizer


@exercise
def check_count_pairs(answer: Any) -> None:
    """`count_pairs(words)`: {ids of a word: how often} to {pair: how often it occurs}."""
    words = {(1, 2, 3): 5, (2, 1): 2, (2,): 9, (3, 3, 3): 4}
    expected = {(1, 2): 5, (2, 3): 5, (2, 1): 2, (3, 3): 8}
    got = attempt(answer, words)
    expect(hasattr(got, "items"), f"return a dictionary {{pair: count}}, not {type(got).__name__}")
    got = {pair: count for pair, count in got.items() if count}
    expect(got != {(1, 2): 1, (2, 3): 1, (2, 1): 1, (3, 3): 2},
           "you counted each word once: a word that occurs 5 times brings its pairs 5 times")
    expect(got != {(1, 2): 7, (2, 3): 5, (3, 3): 8},
           "you sorted the pair: (1, 2) and (2, 1) are different pairs")
    expect(got != {**expected, (3, 3): 4},
           "the word (3, 3, 3) holds the pair (3, 3) twice, you counted it once")
    outside = sorted(set(got) - set(expected))
    expect(not outside, f"the pair {outside[0] if outside else ''} occurs in no word: pairs do "
           "not cross from one word into the next")
    expect(got == expected, f"expected {expected}, got {got}")
    for words in ({}, {(5,): 3, (): 2}, {(4, 4, 4, 4): 1, (7, 4, 4): 10, (300, 4): 1}):
        expected = Counter()
        for ids, count in words.items():
            expected.update(list(pairwise(ids)) * count)
        got = {pair: count for pair, count in attempt(answer, words).items() if count}
        expect(got == expected, f"for {words} expected {dict(expected)}, got {got}")


@exercise
def check_encode_word(answer: Any) -> None:
    """`encode_word(ids, ranks)`: apply merges; the pair of rank r becomes the id 256 + r."""
    def run(ids: list[int], ranks: dict[tuple[int, int], int]) -> list[int]:
        return list(attempt(answer, ids, ranks))

    got = run([1, 2], {(5, 6): 0, (1, 2): 1})
    expect(got != [1], "the new id is 256 + rank: the numbers below 256 are single bytes")
    expect(got == [257], f"[1, 2] with the rank 1 for (1, 2) should give [257], got {got}")
    got = run([0, 1, 2], {(1, 2): 0, (0, 1): 1})
    expect(got != [257, 2], "you merged the first pair from the left; the pair with the lowest "
           "rank comes first, wherever it stands")
    expect(got == [0, 256], f"[0, 1, 2] should give [0, 256], got {got}")
    got = run([1, 2, 9, 1, 2], {(1, 2): 0})
    expect(got != [256, 9, 1, 2], "you merged one occurrence: the same pair stands there again")
    got = run([1, 2, 3], {(1, 2): 0, (256, 3): 1})
    expect(got != [256, 3], "you stopped too early: a merged token can be part of the next merge")
    expect(got == [257], f"[1, 2, 3] should give [257], got {got}")
    got = run([1, 1, 1], {(1, 1): 0})
    expect(got == [256, 1], f"three times the same id: from the left, [256, 1]; got {got}")
    for ids in ([], [7], [7, 8]):
        got = run(ids, {(1, 2): 0})
        expect(got == ids, f"{ids} has no pair to merge and should stay as it is, got {got}")
    table = {(97, 98): 0, (256, 97): 1, (256, 257): 2, (98, 98): 3}
    expect_agreement(answer, _encode_word, [
        (list(b"abababbb"), table), (list(b"bababaab"), table), ([97, 98], table),
        (list(b"xyz"), {}), ([2, 2, 2, 2, 2], {(2, 2): 44, (300, 300): 45})])


def _encode_word(ids: list[int], ranks: dict[tuple[int, int], int]) -> list[int]:
    while known := [pair for pair in pairwise(ids) if pair in ranks]:
        best, merged = min(known, key=ranks.get), []
        for token in ids:
            if merged and (merged[-1], token) == best:
                merged[-1] = 256 + ranks[best]
            else:
                merged.append(token)
        ids = merged
    return ids


@exercise
def check_bytes_per_token(answer: Any) -> None:
    """`bytes_per_token(tokenizer, text)`: UTF-8 bytes of the text over its number of tokens."""
    tokenizer = BPETokenizer([(b"t", b"h"), (b"th", b"e")])
    text = "the thé"                     # the | blank | th | two bytes of é: 5 tokens
    got = as_number(attempt(answer, tokenizer, text))
    expect(not close(got, 5 / 8) and not close(got, 5 / 7),
           "you divided tokens by length: this is tokens per byte, so turn the fraction over")
    expect(not close(got, 7 / 5),
           "you divided characters by tokens: é is one character but two bytes; encode the text")
    expect(not close(got, 1), "you rounded to a whole number: use / instead of //")
    expect(close(got, 8 / 5), f"8 bytes in 5 tokens are 1.6 bytes a token, got {got}")
    again = as_number(attempt(answer, tokenizer, "the the the"))  # 5 tokens, two different ones
    expect(not close(again, 11 / 2), "you divided by the number of different tokens: each token "
           "counts as often as it stands there")
    expect(close(again, 11 / 5), f"'the the the' has 11 bytes in 5 tokens, 2.2, got {again}")
    got = as_number(attempt(answer, ByteTokenizer(), "狐狸"))
    expect(close(got, 1.0), f"with ByteTokenizer it is 1 for every text, got {got}")


@exercise
def check_split_digits(answer: Any) -> None:
    """`split_digits(text)`: GPT-2's word split, but each digit is a piece of its own."""
    text = "In 2024 we'll  add 480+481, ok?"
    got = _split(answer, text)
    expect("".join(got) == text, "the pieces joined must be the text again: characters are lost")
    expect(got != split_words(text), "this is still GPT-2's split: 2024 is one piece")
    expect(len(got) < len(text), "you cut words into letters, too: only digits stand alone")
    crowded = [piece for piece in got if sum(c.isdigit() for c in piece) > 1]
    expect(not crowded, f"the piece {crowded[0] if crowded else ''!r} holds more than one digit")
    expect(" add" in got, "a blank stays in front of the word that follows, as in GPT-2's split")
    eastern = _split(answer, "٤٨٠")
    expect(eastern == list("٤٨٠"), "your pattern knows 0 to 9 only: \\p{N} stands for every "
           "kind of digit, such as the Arabic ٤٨٠")
    for other in (text, "3 m², ½ Ⅷ\n", "", "7", "it's\t42  b4 x", "一九84年 8.15"):
        got = _split(answer, other)
        expect("".join(got) == other, f"joined, the pieces of {other!r} must be the text again, "
               f"got {got}: \\d is not all of \\p{{N}}, and what no part matches is lost")
        words, expected = _without_digits(got), _without_digits(split_words(other))
        expect(words == expected, f"apart from digits cut as GPT-2 does: {expected}, got {words}")
        digits = [piece.strip() for piece in got if any(c.isdigit() for c in piece)]
        expect(digits == [c for c in other if c.isdigit()],
               f"each digit of {other!r} is a piece of its own, got {digits}")


def _split(answer: Callable, text: str) -> list[str]:
    got = attempt(answer, text)
    expect(not isinstance(got, str), "return a list of strings")
    pieces = list(got)
    expect(all(isinstance(piece, str) for piece in pieces), "return a list of strings")
    return pieces


def _without_digits(pieces: list[str]) -> list[str]:
    """Pieces that are neither blanks nor numbers of any kind, such as ½ and Ⅷ."""
    return [piece for piece in pieces if not piece.isspace()
            and not any(unicodedata.category(c)[0] == "N" for c in piece)]


class _Counted(Mapping):
    """A table of costs that counts how often it is read."""

    def __init__(self, table: dict[bytes, float]) -> None:
        self.table, self.reads = table, 0

    def __getitem__(self, key: bytes) -> float:
        self.reads += 1
        return self.table[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)


@exercise
def check_cheapest(answer: Any) -> None:
    """`cheapest(word, cost)`: tokens that join to the word, with the smallest sum of costs."""
    singles = {bytes([byte]): 4 for byte in b"abcdef"}
    cost = singles | {b"abc": 3, b"abcd": 6, b"bc": 1, b"def": 2, b"ef": 5, b"cdef": 9}
    got = attempt(answer, b"abcdef", cost)
    expect(not isinstance(got, int | float), "return the list of tokens, not their price")
    got = list(got)
    expect(all(isinstance(token, bytes) for token in got), "return a list of bytes objects, such "
           f"as [b'abc', b'def'], got {got}: in a loop over bytes each element is a number")
    expect(b"".join(got[::-1]) != b"abcdef" or len(got) < 2,
           "your tokens stand in reverse order: you collected them from the end of the word")
    expect(b"".join(got) == b"abcdef", f"your tokens join to {b''.join(got)}, not to b'abcdef'")
    unknown = [token for token in got if token not in cost]
    expect(not unknown, f"the token {unknown[0] if unknown else b''} has no cost: it is not in the "
           "vocabulary")
    expect(got != [b"abcd", b"ef"], "you took the longest token at each place (6 + 5 = 11); "
           "abc and def cost 3 + 2 = 5")
    expect(got == [b"abc", b"def"], f"b'abcdef' costs {sum(cost[token] for token in got)} in your "
           f"cut {got}; the cheapest cut costs 3 + 2 = 5")
    dear = list(attempt(answer, b"abc", singles | {b"abc": 20, b"bc": 3, b"ab": 8}))
    expect(dear != [b"abc"], "you looked for the fewest tokens: one token of cost 20 is dearer "
           "than a and bc, which cost 4 + 3")
    expect(dear != [b"ab", b"c"], "you went from left to right and kept the longest piece whose "
           "price is below that of its bytes: later tokens must be able to change the first")
    expect(dear == [b"a", b"bc"], f"b'abc' should be cut into [b'a', b'bc'] here, got {dear}")
    expect(list(attempt(answer, b"", singles)) == [], "an empty word has no tokens: "
           "return an empty list")
    counted = _Counted({b"a" * n: n + 1 / n for n in range(1, 16)})
    long = list(attempt(answer, b"a" * 15, counted))
    expect(counted.reads < 5000, f"for a word of 15 bytes you read {counted.reads:,} costs: you "
           "try all ways to cut; keep the cheapest way for each beginning of the word")
    expect(long == [b"a" * 15], f"one token of 15 bytes is the cheapest here, got {long}")
    draw = random.Random(0)
    word = bytes(draw.choices(b"abc", k=40))
    pieces = {word[i:j] for i in range(40) for j in range(i + 1, min(i + 7, 41))}
    expect_agreement(answer, _cheapest, [
        (word[:size], {piece: len(piece) ** 0.5 + draw.random() for piece in sorted(pieces)})
        for size in (40, 9, 1)])


def _cheapest(word: bytes, cost: dict[bytes, float]) -> list[bytes]:
    best: list[tuple[float, list[bytes]]] = [(0.0, [])]
    for end in range(1, len(word) + 1):
        best.append(min((best[start][0] + cost[word[start:end]],
                         [*best[start][1], word[start:end]])
                        for start in range(end) if word[start:end] in cost))
    return best[-1][1]
