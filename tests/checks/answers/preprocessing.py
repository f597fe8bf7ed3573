"""Answers to the exercises of chapter 2.2.1: right ones written otherwise, and wrong ones."""

import functools
import itertools
import random
import re
import unicodedata
from fractions import Fraction

import numpy as np
import torch


def clean(text):
    text = unicodedata.normalize("NFC", text).replace("\u00a0", " ")
    return re.sub("[\ufeff\u200b\u00ad]", "", text)


def no_format_characters(text):
    text = unicodedata.normalize("NFC", text).replace("\u00a0", " ")
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def strip_accents(text):
    parts = unicodedata.normalize("NFD", text)
    return "".join(c for c in parts if unicodedata.category(c) != "Mn")


def chinese_sentences(text):
    return re.findall(r".+?(?:[。！？]+[”’」』）]*|$)", text)


def spans(words):
    ends, place = set(), 0
    for word in words:
        ends.add((place, place + len(word)))
        place += len(word)
    return ends


def scores(words, reference, of=spans):
    got, wanted = of(words), of(reference)
    return len(got & wanted) / len(got), len(got & wanted) / len(wanted)


def word_f1(words, reference, of=spans):
    precision, recall = scores(words, reference, of)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def ends(words):
    return {end for _, end in spans(words)}


def count_segmentations(text, dictionary, longest=5, known=True, last=0):
    @functools.cache
    def ways(start):
        if start == len(text):
            return 1
        stops = range(start + 1, min(start + longest, len(text) - last * (start == 0)) + 1)
        return sum(ways(stop) for stop in stops if text[start:stop] in dictionary
                   or (not known and stop == start + 1))

    return ways(0)


def edges(text, dictionary):
    return sum(text[i:j] in dictionary for i in range(len(text)) for j in range(i + 1, i + 5)
               if j <= len(text))


def paired_interval(a, b, resamples, tail=0.025, paired=True, scale=1.0, sign=1):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(a), (resamples, len(a)), generator=generator)
    other = drawn if paired else torch.randint(len(a), (resamples, len(a)), generator=generator)
    means = sign * scale * (a[drawn].mean(1) - b[other].mean(1))
    return means.quantile(tail).item(), means.quantile(1 - tail).item()


def clean_by_table(text):
    table = dict.fromkeys([0x200B, 0xAD, 0xFEFF]) | {0xA0: " "}
    return unicodedata.normalize("NFC", text.translate(table))


def every_blank(text):
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in clean(text))


def by_lookbehind(text):
    parts = re.split(r"([。！？]+[”’」』）]*)", text)
    pairs = itertools.zip_longest(parts[::2], parts[1::2], fillvalue="")
    return tuple(piece for piece in map("".join, pairs) if piece)


def by_walking(text):
    pieces, piece = [], ""
    for character in text:
        last = piece.rstrip("”’」』）")[-1:]
        inside = character in "。！？" or (character in "”’」』）" and last in "。！？")
        if last and last in "。！？" and not inside:
            pieces.append(piece)
            piece = ""
        piece += character
    return [*pieces, piece] if piece else pieces


def f1_by_ends(words, reference):
    right, shared = 0, spans(words) & spans(reference)
    for span in shared:
        right += span in spans(words)
    return Fraction(2 * right, len(words) + len(reference))


def f1_without_care(words, reference):
    precision, recall = scores(words, reference)
    return 2 * precision * recall / (precision + recall)


def f1_by_index(words, reference):
    right = sum(word == other for word, other in zip(words, reference))
    return 2 * right / (len(words) + len(reference))


def ways_from_the_left(text, dictionary):
    ways = np.zeros(len(text) + 1, dtype=int)
    ways[0] = 1
    for end in range(1, len(text) + 1):
        ways[end] = sum(ways[end - len(w)] for w in dictionary if w and text[:end].endswith(w)
                        and len(w) <= end)
    return ways[-1]


def ways_by_recursion(text, dictionary):
    return 1 if not text else sum(ways_by_recursion(text[len(word):], dictionary)
                                  for word in dictionary if text.startswith(word))


def interval_of_numpy(a, b, resamples):
    d = (a - b).numpy()
    means = d[np.random.default_rng(1).integers(len(d), size=(resamples, len(d)))].mean(1)
    return np.quantile(means, [0.025, 0.975])


def interval_in_a_loop(a, b, resamples):
    items = range(len(a))
    d, means = (a - b).tolist(), []
    for _ in range(resamples):
        means.append(sum(d[i] for i in random.choices(items, k=len(d))) / len(d))
    return torch.tensor(means).quantile(torch.tensor([0.025, 0.975]))


def interval_of_a_bell(a, b, resamples):
    d = a - b
    half = 1.96 * d.std() / len(d) ** 0.5
    return d.mean() - half, d.mean() + half


def first_400(a, b, resamples):
    return paired_interval(a[:400], b[:400], resamples)


OTHERWISE = [
    ("check_clean", clean_by_table),
    ("check_clean", lambda t: re.sub("[\u200b\u00ad\ufeff]", "", unicodedata.normalize(
        "NFC", unicodedata.normalize("NFD", t))).replace("\u00a0", " ")),
    ("check_chinese_sentences", by_lookbehind),
    ("check_chinese_sentences", by_walking),
    ("check_word_f1", f1_by_ends),
    ("check_word_f1", lambda w, r: torch.tensor(word_f1(w, r))),
    ("check_count_segmentations", ways_from_the_left),
    ("check_count_segmentations", ways_by_recursion),
    ("check_paired_interval", interval_of_numpy),
    ("check_paired_interval", interval_in_a_loop),
]

MISTAKES = [
    ("check_clean", lambda t: unicodedata.normalize("NFKC", t), "x² became x2"),
    ("check_clean", strip_accents, "thrown away"),
    ("check_clean", lambda t: t.encode("ascii", "ignore").decode(), "thrown away"),
    ("check_clean", lambda t: t, "NFC composes"),
    ("check_clean", lambda t: unicodedata.normalize("NFD", t), "NFC composes"),
    ("check_clean", lambda t: unicodedata.normalize("NFC", t), "a no-break space"),
    ("check_clean", lambda t: unicodedata.normalize("NFC", t).replace("\u00a0", ""),
     "grown together"),
    ("check_clean", lambda t: unicodedata.normalize("NFC", t).replace("\u00a0", " "),
     "something invisible is left"),
    ("check_clean", lambda t: clean(t).lower(), "capital letters"),
    ("check_clean", lambda t: clean(t).replace(",", ""), "expected 'A rabbit hole"),
    ("check_clean", no_format_characters, "U+200D joins"),
    ("check_clean", lambda t: clean(t).replace("\u200c", ""), "U+200C separates"),
    ("check_clean", lambda t: clean(t).replace("，", ","), "full-width"),
    ("check_clean", lambda t: " ".join(clean(t).split()), "line breaks"),
    ("check_clean", lambda t: clean(t).replace("“", '"'), "nothing here may change"),
    ("check_clean", lambda t: t.encode(), "return a string"),
    ("check_chinese_sentences", lambda t: re.split("[。！？]", t), "marks or characters are lost"),
    ("check_chinese_sentences", lambda t: re.findall(r".+?[。！？]+[”]*", t),
     "after the last mark"),
    ("check_chinese_sentences", lambda t: re.split(r"(?<=[。！？])(?![。！？])", t),
     "a closing mark"),
    ("check_chinese_sentences", lambda t: re.findall(r".*?(?:[。！？]+”?|$)", t), "is empty"),
    ("check_chinese_sentences", lambda t: re.findall(r".+?(?:[。！？]”?|$)", t), "cut in two"),
    ("check_chinese_sentences", lambda t: re.findall(r".+?(?:[，：。！？]+”?|$)", t), "at a comma"),
    ("check_chinese_sentences", lambda t: [t], "expected ["),
    ("check_chinese_sentences", lambda t: chinese_sentences(t) if len(t) > 9 else [t[:1], t[1:]],
     "is one sentence"),
    ("check_chinese_sentences", lambda t: t, "a list of strings"),
    ("check_word_f1", lambda w, r: 100 * word_f1(w, r), "percent"),
    ("check_word_f1", lambda w, r: scores(w, r)[0], "the precision alone"),
    ("check_word_f1", lambda w, r: scores(w, r)[1], "the recall alone"),
    ("check_word_f1", lambda w, r: sum(scores(w, r)) / 2, "arithmetic mean"),
    ("check_word_f1", lambda w, r: word_f1(w, r, ends), "counted boundaries"),
    ("check_word_f1", lambda w, r: word_f1(w, r, set), "without their places"),
    ("check_word_f1", lambda w, r: 0.5, "give 2/3"),
    ("check_word_f1", lambda w, r: word_f1(w, r) or 0.1, "0 expected"),
    ("check_count_segmentations", edges, "words that fit somewhere"),
    ("check_count_segmentations", lambda t, d: 1, "one way only"),
    ("check_count_segmentations", lambda t, d: ["研究"], "not the list"),
    ("check_count_segmentations", lambda t, d: count_segmentations(t, d, longest=2),
     "three characters"),
    ("check_count_segmentations", lambda t, d: 6, "in 5 ways"),
    ("check_count_segmentations", lambda t, d: count_segmentations(t, d, last=1),
     "covers the whole"),
    ("check_count_segmentations", lambda t, d: 5 if len(t) == 4 else 3, "in 2 ways"),
    ("check_count_segmentations", lambda t, d: count_segmentations(t, d, known=False),
     "cannot stand"),
    ("check_count_segmentations", lambda t, d: count_segmentations(t, d) or 1, "0 ways"),
    ("check_count_segmentations", lambda t, d: count_segmentations(t, d) % 100_000, "Fibonacci"),
    ("check_paired_interval", lambda a, b, n: paired_interval(a, b, n, paired=False),
     "drew new items"),
    ("check_paired_interval", lambda a, b, n: paired_interval(a, b, n, tail=0.05), "too narrow"),
    ("check_paired_interval", lambda a, b, n: paired_interval(a, b, n, sign=-1), "the sign"),
    ("check_paired_interval", lambda a, b, n: paired_interval(a, b, n)[::-1],
     "lower end comes first"),
    ("check_paired_interval", lambda a, b, n: paired_interval(a, b, n, scale=400),
     "these are counts"),
    ("check_paired_interval", lambda a, b, n: ((a - b).mean(), (a - b).mean()), "no width"),
    ("check_paired_interval", lambda a, b, n: (0.2, 0.3), "around 0.05"),
    ("check_paired_interval", lambda a, b, n: (0.007, 0.093), "a width of about 0.075"),
    ("check_paired_interval", lambda a, b, n: 0.05, "two numbers"),
    ("check_clean", lambda t: clean(t).strip(), "strip() changes"),
    ("check_clean", every_blank, "U+3000"),
    ("check_clean", lambda t: clean(t.removeprefix("\ufeff").replace("\ufeff", "?")), "wrong for"),
    ("check_clean", lambda t: clean(t.replace("\u200b", "", 1)) if "\u200b\u200b" not in t else
     t.replace("\u200b", "", 1), "wrong for"),
    ("check_clean", lambda t: re.sub("[\u200b\u00ad\ufeff]", "", t.replace("e\u0301", "é").replace(
        "\u00a0", " ")), "wrong for"),
    ("check_chinese_sentences", lambda t: re.findall(r".+?(?:[。！？]+[”’」』）]?|$)", t),
     "several closing marks"),
    ("check_chinese_sentences", lambda t: re.findall(r".+?(?:[。！？]+[”」』]*|$)", t),
     "is one of the closing marks"),
    ("check_chinese_sentences", lambda t: re.findall(r".+?(?:[。！？]{1,2}[”’」』）]*|$)", t),
     "for '啊！！！真的？' expected"),
    ("check_chinese_sentences", lambda t: re.findall(r".+?(?:[。！？.!?]+[”’」』）]*|$)", t),
     "for '3.5米!好?' expected"),
    ("check_chinese_sentences", lambda t: chinese_sentences(t) or [""], "for '' expected []"),
    ("check_word_f1", f1_without_care, "P + R divides by zero"),
    ("check_word_f1", f1_by_index, "a place is counted in characters"),
    ("check_count_segmentations", lambda t, d: count_segmentations(t, d) if t else 0,
     "the empty text has one way"),
    ("check_count_segmentations", lambda t, d: count_segmentations(t, d, longest=4),
     "has 2 ways, got 1"),
    ("check_paired_interval", interval_of_a_bell, "with one resample"),
    ("check_paired_interval", lambda a, b, n: paired_interval(a, b, 1000), "with one resample"),
    ("check_paired_interval", first_400, "wrong for 1000"),
    ("check_paired_interval", lambda a, b, n: tuple(sorted(map(abs, paired_interval(a, b, n)))),
     "wrong for 1000"),
]
