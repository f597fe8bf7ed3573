"""Checks of chapter 2.2.1, text preprocessing."""

import re
import unicodedata
from collections.abc import Callable
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

_CLOSING = "”’」』）"


@exercise
def check_clean(answer: Any) -> None:
    """`clean(text)`: what looks equal becomes equal, and nothing else changes."""
    got = attempt(answer, "cafe\u0301 in x² and ½")
    expect(isinstance(got, str), f"return a string, not {type(got).__name__}")
    expect("x2" not in got and "1⁄2" not in got, "x² became x2: NFKC (or NFKD) replaces whatever "
           "is only similar; use a form that keeps the difference")
    expect("cafe " not in got and "x²" in got,
           "accents or signs were thrown away: é, ² and ½ belong to the text")
    expect(got == "café in x² and ½",
           "e followed by U+0301 must become the one code point é: NFC composes")
    got = attempt(answer, "\ufeffA rab\u200bbit\u00a0hole, extra\u00adordinary")
    expect("\u00a0" not in got, "a no-break space (U+00A0) looks like a blank and should be one")
    expect(" hole" in got, "the no-break space was deleted: two words have grown together")
    expect(not set("\ufeff\u200b\u00ad") & set(got), "something invisible is left: the byte order "
           "mark U+FEFF, the zero-width space U+200B or the soft hyphen U+00AD")
    expect(got[:1] != "a", "you changed capital letters: Polish and polish are two words")
    expect(got == "A rabbit hole, extraordinary", f"expected 'A rabbit hole, extraordinary', "
           f"got {got!r}")
    got = attempt(answer, "👩\u200d🚀 می\u200cخواهم")
    expect("\u200d" in got, "U+200D joins the emoji of the astronaut: without it a woman "
           "and a rocket stand there. Not every invisible character may go")
    expect("\u200c" in got, "U+200C separates the parts of a Persian word: it is spelling. Not "
           "every invisible character may go")
    _expect_the_visible_stays(answer)
    expect_agreement(answer, _clean, [
        ("",), ("a\u00ad\u00ada \ufeffn\u0303\u00a0\u00a0\u200b\u200bo\u0308",),
        ("한\u200b 한글 ∑ ∫ ℵ ™ ﬁ",)])


def _expect_the_visible_stays(answer: Callable) -> None:
    same = "“你好，世界！”\n\tＡ  ok"
    got = attempt(answer, same)
    expect("，" in got and "Ａ" in got, "full-width signs were changed: in Chinese text ， is the "
           "comma")
    expect("\n\t" in got and "  " in got, "line breaks, tabs or double blanks were changed: they "
           "are visible, and part of the text")
    expect(got == same, f"nothing here may change, got {got!r}")
    expect(attempt(answer, "\n  a line\n\n") == "\n  a line\n\n",
           "blanks or line breaks at the ends were cut off: strip() changes what is visible")
    expect(attempt(answer, "中\u3000文") == "中\u3000文", "the wide blank of Chinese text, U+3000, "
           "was changed: it looks other than a blank")


def _clean(text: str) -> str:
    return re.sub("[\u200b\u00ad\ufeff]", "", unicodedata.normalize("NFC", text)).replace(
        "\u00a0", " ")


@exercise
def check_chinese_sentences(answer: Any) -> None:
    """`chinese_sentences(text)`: pieces that end with 。！？ and the closing marks behind them."""
    text = "玄德大喜。张飞曰：“何不早说？！”众人皆笑，饮酒。天明"
    got = _pieces(answer, text)
    joined = "".join(got)
    expect(joined != text.removesuffix("天明"), "the rest after the last mark is lost")
    expect(joined == text, "joined, the pieces must be the text again: marks or characters are "
           "lost. re.split drops what it cuts at; re.findall or a lookbehind does not")
    expect(all(got), "one of the pieces is empty")
    expect(not any(piece[0] in _CLOSING for piece in got),
           "a closing mark ” begins a piece: it belongs to the sentence before")
    expect(not any(piece[0] in "。！？" for piece in got),
           "？！ was cut in two: marks in a row end one sentence")
    expect(not any(piece.endswith(("，", "：")) for piece in got),
           "you cut at a comma or colon: only 。！？ end a sentence")
    expected = ["玄德大喜。", "张飞曰：“何不早说？！”", "众人皆笑，饮酒。", "天明"]
    expect(got == expected, f"expected {expected}, got {got}")
    got = _pieces(answer, "天明。")
    expect(got == ["天明。"], f"'天明。' is one sentence, got {got}")
    got = _pieces(answer, "「他说：『走！』」我走")
    expect(not any(piece[0] in _CLOSING for piece in got), f"several closing marks may stand "
           f"behind one end mark: ！』」 ends one sentence, got {got}")
    for mark in _CLOSING:
        got = _pieces(answer, f"走。{mark}我走")
        expect(got == [f"走。{mark}", "我走"], f"{mark} is one of the closing marks, too: expected "
               f"{[f'走。{mark}', '我走']}, got {got}")
    for text, expected in (
            ("", []), ("无标点", ["无标点"]), ("啊！！！真的？", ["啊！！！", "真的？"]),
            ("见“老”友。 再见", ["见“老”友。", " 再见"]), ("3.5米!好?", ["3.5米!好?"])):
        got = _pieces(answer, text)
        expect(got == expected, f"for {text!r} expected {expected}, got {got}")


def _pieces(answer: Callable, text: str) -> list[str]:
    got = attempt(answer, text)
    expect(not isinstance(got, str), "return a list of strings")
    pieces = list(got)
    expect(all(isinstance(piece, str) for piece in pieces), "return a list of strings")
    return pieces


@exercise
def check_word_f1(answer: Any) -> None:
    """`word_f1(words, reference)`: F1 of the words that stand at the same place in both."""
    reference, words = ["我们", "在", "我们", "家"], ["我", "们", "在", "我们", "家"]
    got = as_number(attempt(answer, words, reference))
    expect(not close(got, 200 / 3), "return a number from 0 to 1, not percent")
    try:
        moved = as_number(answer(["中国", "中", "国"], ["中", "国", "中国"]))
    except ZeroDivisionError:
        moved = None
    expect(moved is not None, "where no word is right, precision and recall are 0, and P + R "
           "divides by zero: F1 is 0")
    expect(not close(moved, 1), "you compared words without their places: 中/国/中国 and "
           "中国/中/国 have the same words, and none stands at its place")
    expect(not close(got, 3 / 5), "3/5 is the precision alone: the share of your words that are "
           "right")
    expect(not close(got, 3 / 4), "3/4 is the recall alone: the share of the reference that you "
           "found")
    expect(not close(got, 27 / 40), "this is the arithmetic mean of precision and recall; F1 is "
           "the harmonic one, 2PR / (P + R)")
    expect(not close(got, 6 / 7) and not close(got, 8 / 9), "you counted boundaries, not words: a "
           "word is right if both its ends are")
    expect(not close(got, 0), "you compared the first word with the first, the second with the "
           "second: a place is counted in characters, for 我/们 moves all words behind it")
    expect(close(got, 2 / 3), f"precision 3/5 and recall 3/4 give 2/3, got {got}")
    expect(close(moved, 0), f"中国/中/国 for 中/国/中国: no word is right, 0 expected, got {moved}")
    expect_agreement(answer, _word_f1, [
        (["天", "天", "天"], ["天", "天", "天"]), (["一二三四五"], ["一二三", "四五"]),
        (["哈", "哈", "哈", "哈哈哈"], ["哈", "哈哈", "哈", "哈", "哈"]), (["好"], ["好"])])


def _word_f1(words: list[str], reference: list[str]) -> float:
    def spans(cut: list[str]) -> set:
        return {(sum(map(len, cut[:i])), sum(map(len, cut[:i + 1]))) for i in range(len(cut))}

    return 2 * len(spans(words) & spans(reference)) / (len(words) + len(reference))


@exercise
def check_count_segmentations(answer: Any) -> None:
    """`count_segmentations(text, dictionary)`: in how many ways words of it make up the text."""
    def run(text: str, words: str) -> float:
        got = attempt(answer, text, set(words.split()))
        expect(not isinstance(got, list | tuple | set),
               "return how many there are, not the list of them")
        return as_number(got)

    got = run("研究生命", "研 究 生 命 研究 研究生 生命")
    expect(got != 7, "7 is the number of words that fit somewhere; asked is in how many ways a "
           "row of words covers the text")
    expect(got != 1, "you followed one way only: add up the ways of every first word")
    expect(got != 4, "one way is missing: a word may have three characters, too")
    expect(got == 5, f"研究生命 can be cut in 5 ways (研究生/命 is one), got {got}")
    got = run("研究", "研 究 研究")
    expect(got != 1, "the word that covers the whole text counts, too: look at your ranges")
    expect(got == 2, f"研究 can be cut in 2 ways, got {got}")
    got = run("研究", "研 研究")
    expect(got == 1, "a character that is no word of the dictionary cannot stand alone: 研究 with "
           f"研 and 研究 has 1 way, got {got}")
    expect(run("命", "研 究") == 0, "a text that no words make up has 0 ways")
    expect(run("", "研 究") == 1, "the empty text has one way: the row of no words")
    expect(run("哈" * 25, "哈 哈哈") == 121_393,
           "25 times 哈, alone or in pairs: 121,393 ways (a Fibonacci number)")
    for text, words, ways in (("abab", "a b ab aba bab abab", 7), ("中华人民共和国万岁", "中华人民"
                              "共和国 中华 人民 共和国 万岁", 2), ("哈哈哈", "哈哈", 0)):
        got = run(text, words)
        expect(got == ways, f"{text} with the words {words} has {ways} ways, got {got}")


@exercise
def check_paired_interval(answer: Any) -> None:
    """`paired_interval(right_a, right_b, resamples)`: 95 % interval of the difference A - B."""
    right_a = torch.tensor([1.0] * 320 + [0.0] * 80)
    right_b = torch.tensor([1.0] * 280 + [0.0] * 40 + [1.0] * 20 + [0.0] * 60)
    low, high = _two_ends(answer, right_a, right_b, 4000)
    expect(low <= high, "the lower end comes first")
    middle, width = (low + high) / 2, high - low
    expect(abs(middle + 0.05) > 0.02, "the sign: asked is A minus B, and A is right more often")
    expect(width > 1e-6, "the interval has no width: draw with replacement, so that some items "
           "come twice and others not at all")
    expect(width < 10, "these are counts: divide by the number of items")
    expect(abs(middle - 0.05) < 0.02, f"the interval should lie around 0.05, yours is around "
           f"{middle:.3f}")
    expect(width < 0.095, "you drew new items for each of the two. Draw the items once and compare "
           "both on them: what is hard for both then cancels")
    expect(width > 0.068, "the interval is too narrow: 95 % leave 2.5 % on each side, not 5 %")
    expect(0.068 < width < 0.083, f"expected a width of about 0.075, got {width:.3f}")
    low, high = _two_ends(answer, right_a, right_b, 1)
    expect(low == high, "with one resample there is one difference, so both quantiles are that "
           "number: draw as often as `resamples` says")
    worse = torch.tensor([1.0] * 100 + [0.0] * 300 + [1.0] * 400 + [0.0] * 200)
    better = torch.tensor([0.0] * 100 + [1.0] * 700 + [0.0] * 200)
    low, high = _two_ends(answer, worse, better, 2000)
    middle, width = (low + high) / 2, high - low
    expect(abs(middle + 0.2) < 0.02 and 0.06 < width < 0.09, "right for 400 items, wrong for 1000 "
           f"with a difference of -0.2: expected about (-0.237, -0.163), got ({low:.3f}, "
           f"{high:.3f})")
    low, high = _two_ends(answer, right_a, right_a, 50)
    expect(low == high == 0, "two methods that are right on the same items differ by 0 in every "
           f"draw, got ({low:.3f}, {high:.3f})")


def _two_ends(answer: Callable, right_a: torch.Tensor, right_b: torch.Tensor,
              resamples: int) -> list[float]:
    ends = as_tensor(attempt(answer, right_a, right_b, resamples))
    expect(ends.shape == (2,), "return two numbers, the lower and the upper end")
    return ends.tolist()
