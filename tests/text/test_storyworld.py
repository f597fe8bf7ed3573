"""The made world tells tales that hold, and knows what is in them."""

import math
import random
import re
from collections import Counter

import pytest

from gptlib.text import storyworld


def test_the_same_number_tells_the_same_tale_and_another_one_another():
    assert storyworld.tell(7) == storyworld.tell(7)
    assert len({tale.text for tale in storyworld.tales(500)}) == 500


def test_tales_number_on_from_the_first():
    assert [t.text for t in storyworld.tales(3, first=5)] == [
        storyworld.tell(number).text for number in (5, 6, 7)]


def test_a_tale_is_of_the_length_and_the_vocabulary_that_the_book_tells():
    tales = [tale.text for tale in storyworld.tales(2000)]
    lengths = [len(text.split()) for text in tales]
    words = {word.lower() for text in tales for word in re.findall("[A-Za-z]+", text)}
    assert 150 < min(lengths) and max(lengths) < 320 and 200 < sum(lengths) / 2000 < 250
    assert 560 < len(words) < 700
    assert all(text.startswith("Once upon a time") for text in tales)


def test_the_number_of_different_tales_is_larger_than_a_million_millions():
    # Every tale has the probability exp(-nats); were there N tales, some had at least 1 / N.
    assert min(tale.nats for tale in storyworld.tales(2000)) > math.log(1e12)


def test_the_choices_that_a_tale_counts_are_even():
    plots = Counter(tale.facts[1].event for tale in storyworld.tales(3000))
    assert all(abs(count / 3000 - 1 / 3) < 0.04 for count in plots.values()) and len(plots) == 3


def test_the_information_of_a_tale_is_the_sum_of_the_logarithms_of_its_choices(monkeypatch):
    counted = []
    choice = random.Random.choice
    monkeypatch.setattr(random.Random, "choice", lambda dice, options: counted.append(len(options))
                        or choice(dice, options))
    assert storyworld.tell(3).nats == pytest.approx(math.log(math.prod(counted)))


def test_each_tool_helps_against_one_obstacle_and_no_form_is_shared():
    forms = [form for name, (a, past, tool) in storyworld.OBSTACLES.items()
             for form in (name, a, past, tool)]
    assert len(forms) == len(set(forms))


@pytest.mark.parametrize("words, expected", [("old owl", "an old owl"), ("red kite", "a red kite")])
def test_the_article_fits_the_first_letter(words, expected):
    assert storyworld.article(words) == expected
