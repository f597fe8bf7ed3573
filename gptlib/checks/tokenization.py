"""Checks of the exercises of chapter 2.2.2."""

from collections.abc import Callable, ItemsView, Iterator

from gptlib.checks import attempt, close, exercise, expect
from gptlib.text.bpe import split_words
from gptlib.text.tokenizers import BPETokenizer, ByteTokenizer


@exercise
def check_count_pairs(answer: Callable) -> None:
    """`count_pairs(words)`: {ids of a word: how often} to {pair: how often it occurs}."""
    words = {(1, 2, 3): 5, (2, 1): 2, (2,): 9, (3, 3, 3): 4}
    expected = {(1, 2): 5, (2, 3): 5, (2, 1): 2, (3, 3): 8}
    got = attempt(answer, dict(words))
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


@exercise
def check_encode_word(answer: Callable) -> None:
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


@exercise
def check_bytes_per_token(answer: Callable) -> None:
    """`bytes_per_token(tokenizer, text)`: UTF-8 bytes of the text over its number of tokens."""
    tokenizer = BPETokenizer([(b"t", b"h"), (b"th", b"e")])
    text = "the thé"                     # the | blank | th | two bytes of é: 5 tokens
    got = attempt(answer, tokenizer, text)
    expect(not close(got, 5 / 8) and not close(got, 5 / 7),
           "you divided tokens by length: this is tokens per byte, so turn the fraction over")
    expect(not close(got, 7 / 5),
           "you divided characters by tokens: é is one character but two bytes; encode the text")
    expect(type(got) is not int, "you rounded to a whole number: use / instead of //")
    expect(close(got, 8 / 5), f"8 bytes in 5 tokens are 1.6 bytes a token, got {got}")
    got = attempt(answer, ByteTokenizer(), "狐狸")
    expect(close(got, 1.0), f"with ByteTokenizer it is 1 for every text, got {got}")


@exercise
def check_split_digits(answer: Callable) -> None:
    """`split_digits(text)`: GPT-2's word split, but each digit is a piece of its own."""
    text = "In 2024 we'll  add 480+481, ok?"
    got = attempt(answer, text)
    expect(isinstance(got, list) and all(isinstance(piece, str) for piece in got),
           "return a list of strings")
    expect("".join(got) == text, "the pieces joined must be the text again: characters are lost")
    expect(got != split_words(text), "this is still GPT-2's split: 2024 is one piece")
    expect(len(got) < len(text), "you cut words into letters, too: only digits stand alone")
    crowded = [piece for piece in got if sum(c.isdigit() for c in piece) > 1]
    expect(not crowded, f"the piece {crowded[0] if crowded else ''!r} holds more than one digit")
    expect(" add" in got, "a blank stays in front of the word that follows, as in GPT-2's split")
    eastern = attempt(answer, "٤٨٠")
    expect(eastern == list("٤٨٠"), "your pattern knows 0 to 9 only: \\p{N} stands for every "
           "kind of digit, such as the Arabic ٤٨٠")
    words, expected = _without_digits(got), _without_digits(split_words(text))
    expect(words == expected, f"apart from digits cut as GPT-2 does: {expected}, got {words}")


def _without_digits(pieces: list[str]) -> list[str]:
    return [p for p in pieces if not p.isspace() and not any(c.isdigit() for c in p)]


class _Counted(dict):
    """A table of costs that counts how often it is read."""

    reads = 0

    def __getitem__(self, key: bytes) -> float:
        self.reads += 1
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.reads += 1
        return super().__contains__(key)

    def __iter__(self) -> Iterator[bytes]:
        self.reads += 1
        return super().__iter__()

    def get(self, key: bytes, default: float | None = None) -> float | None:
        """Read one cost, or the default."""
        self.reads += 1
        return super().get(key, default)

    def items(self) -> ItemsView[bytes, float]:
        """Read all costs, which counts as one reading."""
        self.reads += 1
        return super().items()


@exercise
def check_cheapest(answer: Callable) -> None:
    """`cheapest(word, cost)`: tokens that join to the word, with the smallest sum of costs."""
    singles = {bytes([byte]): 4 for byte in b"abcdef"}
    cost = singles | {b"abc": 3, b"abcd": 6, b"bc": 1, b"def": 2, b"ef": 5, b"cdef": 9}
    got = attempt(answer, b"abcdef", _Counted(cost))
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
    dear = list(attempt(answer, b"abc", _Counted(singles | {b"abc": 20, b"bc": 3, b"ab": 8})))
    expect(dear != [b"abc"], "you looked for the fewest tokens: one token of cost 20 is dearer "
           "than a and bc, which cost 4 + 3")
    expect(dear != [b"ab", b"c"], "you went from left to right and kept the longest piece whose "
           "price is below that of its bytes: later tokens must be able to change the first")
    expect(dear == [b"a", b"bc"], f"b'abc' should be cut into [b'a', b'bc'] here, got {dear}")
    expect(list(attempt(answer, b"", _Counted(singles))) == [], "an empty word has no tokens: "
           "return an empty list")
    counted = _Counted({b"a" * n: n + 1 / n for n in range(1, 16)})
    long = list(attempt(answer, b"a" * 15, counted))
    expect(counted.reads < 5000, f"for a word of 15 bytes you read {counted.reads:,} costs: you "
           "try all ways to cut; keep the cheapest way for each beginning of the word")
    expect(long == [b"a" * 15], f"one token of 15 bytes is the cheapest here, got {long}")
