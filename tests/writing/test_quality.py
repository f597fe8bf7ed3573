"""Measures of generated texts: worked examples small enough to count by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptlib.writing import quality

TEXT = st.lists(st.sampled_from("a b c d".split()), min_size=6, max_size=40).map(" ".join)


def test_words_ignore_case_and_punctuation_but_keep_apostrophes():
    assert quality.words('"Don\'t go," said the HEN; "it\'s 3 o\'clock."') == [
        "don't", "go", "said", "the", "hen", "it's", "3", "o'clock"]
    assert quality.words("Élan vital, 你好") == ["élan", "vital", "你好"]


def test_distinct_n_counts_by_hand():
    # bigrams: (the hen), (hen and), (and the), (the hen) | (the hen): 5, of which 3 differ
    assert quality.distinct_n(["The hen and the hen", "the hen"], n=2) == pytest.approx(3 / 5)
    assert quality.distinct_n(["a b c d"], n=1) == 1


def test_repetition_is_zero_without_and_near_one_with_loops():
    assert quality.repetition("one two three four five six", n=4) == 0
    assert quality.repetition("a b a b a b", n=2) == pytest.approx(3 / 5)  # ab ba ab ba ab
    assert quality.repetition("so so so so so so so so", n=4) == pytest.approx(4 / 5)


def test_overlap_is_the_share_of_known_ngrams():
    known = quality.ngram_set(["the little red hen ran", "away she flew"], n=2)
    assert quality.overlap("The little red fox ran away", known, n=2) == pytest.approx(2 / 5)
    assert quality.overlap("the little red hen", known, n=2) == 1


def test_an_ngram_never_spans_two_texts():
    assert ("ran", "away") not in quality.ngram_set(["the hen ran", "away she flew"], n=2)
    finder = quality.CopyFinder(["the hen ran", "away she flew"])
    assert finder.longest("hen ran away she") == "hen ran"


def test_the_longest_copied_run_is_found_wherever_it_stands():
    finder = quality.CopyFinder(["Once upon a time there was a little red hen who lived alone."])
    text = "There was a fox. There was a little red fox, and once upon a time there was a hen."
    assert finder.longest(text) == "once upon a time there was a"
    assert finder.longest("Nothing here matches: zebra") == ""
    assert finder.longest("hens") == ""  # half a word is no word


@given(TEXT, TEXT)
def test_the_longest_run_equals_brute_force(reference, text):
    tokens = text.split()
    runs = [tokens[i:j] for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1)]
    longest = max((len(run) for run in runs if f" {' '.join(run)} " in f" {reference} "), default=0)
    assert len(quality.CopyFinder([reference]).longest(text).split()) == longest


@given(TEXT)
def test_shares_lie_between_zero_and_one_and_a_text_overlaps_itself(text):
    assert 0 <= quality.repetition(text, 2) < 1
    assert 0 < quality.distinct_n([text], 2) <= 1
    assert quality.overlap(text, quality.ngram_set([text], 3), 3) == 1


def test_near_duplicates_are_found_and_ordered_by_their_share():
    story = "once there was a hen who found a grain of wheat and planted it in the yard"
    texts = [story, "a fox went by the river to drink in the evening", story.upper() + "!",
             story + " while the cat slept on the wall and the duck swam in the pond all day",
             "short"]
    pairs = quality.near_duplicates(texts, n=5, threshold=0.5)
    assert [(i, j) for i, j, _ in pairs] == [(0, 2), (0, 3), (2, 3)]
    assert [share for _, _, share in pairs] == [1, 1, 1]  # the shorter is contained in the longer
    assert quality.near_duplicates(texts[:2], n=5, threshold=0.01) == []


def test_near_duplicates_count_the_shorter_text():
    first, second = "a b c d e f g", "x a b c y z w v u t"  # share abc of 5 trigrams
    assert quality.near_duplicates([first, second], n=3, threshold=0.1) == [(0, 1, 1 / 5)]


@pytest.mark.parametrize("call", [
    lambda: quality.repetition("too short", 4), lambda: quality.distinct_n([], 2),
    lambda: quality.overlap("one", set(), 8)])
def test_too_short_a_text_is_refused(call):
    with pytest.raises(ValueError, match="fewer than"):
        call()


def test_n_must_be_positive():
    with pytest.raises(ValueError, match="n is 0"):
        quality.ngrams("a b", 0)
