"""The checks of chapter 2.2.1: solutions pass, and each named mistake gets its own message."""

import functools
import re
import unicodedata

import pytest
import torch

from gptlib.checks import preprocessing as checks


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


CASES = [
    ("clean", lambda t: unicodedata.normalize("NFKC", t), "x² became x2"),
    ("clean", strip_accents, "thrown away"),
    ("clean", lambda t: t.encode("ascii", "ignore").decode(), "thrown away"),
    ("clean", lambda t: t, "NFC composes"),
    ("clean", lambda t: unicodedata.normalize("NFD", t), "NFC composes"),
    ("clean", lambda t: unicodedata.normalize("NFC", t), "a no-break space"),
    ("clean", lambda t: unicodedata.normalize("NFC", t).replace("\u00a0", ""),
     "grown together"),
    ("clean", lambda t: unicodedata.normalize("NFC", t).replace("\u00a0", " "),
     "something invisible is left"),
    ("clean", lambda t: clean(t).lower(), "capital letters"),
    ("clean", lambda t: clean(t).replace(",", ""), "expected 'A rabbit hole"),
    ("clean", no_format_characters, "U+200D joins"),
    ("clean", lambda t: clean(t).replace("\u200c", ""), "U+200C separates"),
    ("clean", lambda t: clean(t).replace("，", ","), "full-width"),
    ("clean", lambda t: " ".join(clean(t).split()), "line breaks"),
    ("clean", lambda t: clean(t).replace("“", '"'), "nothing here may change"),
    ("clean", lambda t: t.encode(), "return a string"),
    ("chinese_sentences", lambda t: re.split("[。！？]", t), "marks or characters are lost"),
    ("chinese_sentences", lambda t: re.findall(r".+?[。！？]+[”]*", t), "after the last mark"),
    ("chinese_sentences", lambda t: re.split(r"(?<=[。！？])(?![。！？])", t), "a closing mark"),
    ("chinese_sentences", lambda t: re.findall(r".*?(?:[。！？]+”?|$)", t), "is empty"),
    ("chinese_sentences", lambda t: re.findall(r".+?(?:[。！？]”?|$)", t), "cut in two"),
    ("chinese_sentences", lambda t: re.findall(r".+?(?:[，：。！？]+”?|$)", t), "at a comma"),
    ("chinese_sentences", lambda t: [t], "expected ["),
    ("chinese_sentences", lambda t: chinese_sentences(t) if len(t) > 9 else [t[:1], t[1:]],
     "is one sentence"),
    ("chinese_sentences", lambda t: t, "a list of strings"),
    ("word_f1", lambda w, r: 100 * word_f1(w, r), "percent"),
    ("word_f1", lambda w, r: scores(w, r)[0], "the precision alone"),
    ("word_f1", lambda w, r: scores(w, r)[1], "the recall alone"),
    ("word_f1", lambda w, r: sum(scores(w, r)) / 2, "arithmetic mean"),
    ("word_f1", lambda w, r: word_f1(w, r, ends), "counted boundaries"),
    ("word_f1", lambda w, r: word_f1(w, r, set), "without their places"),
    ("word_f1", lambda w, r: 0.5, "give 2/3"),
    ("word_f1", lambda w, r: word_f1(w, r) or 0.1, "0 expected"),
    ("count_segmentations", edges, "words that fit somewhere"),
    ("count_segmentations", lambda t, d: 1, "one way only"),
    ("count_segmentations", lambda t, d: ["研究"], "not the list"),
    ("count_segmentations", lambda t, d: count_segmentations(t, d, longest=2), "three characters"),
    ("count_segmentations", lambda t, d: 6, "in 5 ways"),
    ("count_segmentations", lambda t, d: count_segmentations(t, d, last=1), "covers the whole"),
    ("count_segmentations", lambda t, d: 5 if len(t) == 4 else 3, "in 2 ways"),
    ("count_segmentations", lambda t, d: count_segmentations(t, d, known=False), "cannot stand"),
    ("count_segmentations", lambda t, d: count_segmentations(t, d) or 1, "0 ways"),
    ("count_segmentations", lambda t, d: count_segmentations(t, d) % 100_000, "Fibonacci"),
    ("paired_interval", lambda a, b, n: paired_interval(a, b, n, paired=False), "drew new items"),
    ("paired_interval", lambda a, b, n: paired_interval(a, b, n, tail=0.05), "too narrow"),
    ("paired_interval", lambda a, b, n: paired_interval(a, b, n, sign=-1), "the sign"),
    ("paired_interval", lambda a, b, n: paired_interval(a, b, n)[::-1], "lower end comes first"),
    ("paired_interval", lambda a, b, n: paired_interval(a, b, n, scale=400), "these are counts"),
    ("paired_interval", lambda a, b, n: ((a - b).mean(), (a - b).mean()), "no width"),
    ("paired_interval", lambda a, b, n: (0.2, 0.3), "around 0.05"),
    ("paired_interval", lambda a, b, n: (0.007, 0.093), "a width of about 0.075"),
    ("paired_interval", lambda a, b, n: 0.05, "two numbers"),
]
NAMES = ["clean", "chinese_sentences", "word_f1", "count_segmentations", "paired_interval"]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).message == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"
