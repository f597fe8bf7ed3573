"""Who a tale is about: known openings, made tales with known facts, and tales that were spoiled."""

import re

import pytest

from gptlib.text import storyworld
from gptlib.writing.heroes import Hero, hero, keeps_hero
from gptlib.writing.judging import halves

TALES = list(storyworld.tales(100, storyworld.TEST))


@pytest.mark.parametrize("text, found", [
    ("Once upon a time there was a shy fox named Tom, who lived at the mill.", Hero("Tom", "fox")),
    ("Once upon a time, by the sea, there lived a tiny mole. His name was Max.",
     Hero("Max", "mole")),
    ("There was once a poor little boy called Hans.", Hero("Hans", "boy")),
    ("Once there was a good old man who had a cow.", Hero("", "man")),
    ("Once upon a time there was a little red hen.", Hero("", "hen")),
    ("Then came Alice. The cat saw Alice, and Alice saw it.", Hero("Alice", "")),
    ("A tailor sat there. The little tailor sang, and the tailor danced.", Hero("", "tailor")),
    ("It rained and rained. Then it snowed. Then it stopped.", None),
    ("", None),
])
def test_the_hero_of_an_opening(text, found):
    assert hero(text) == found


def test_a_word_that_only_begins_sentences_is_no_name():
    assert hero("Then it came. Then it went. Then it slept. Then it woke.") is None


def test_a_pronoun_is_nobody():
    fox = Hero("Tom", "fox")
    assert fox.stands_in("and Tom slept") and fox.stands_in("The FOXES slept")
    assert not fox.stands_in("and he slept") and not fox.stands_in("Tommy had a foxglove")


def test_the_hero_of_every_made_tale_is_found_and_kept():
    for tale in TALES:
        person = tale.facts[0].roles["hero"]
        assert hero(tale.text) == Hero(person.name, person.kind)
        assert keeps_hero(tale.text) is True


def test_an_exchanged_hero_is_missed():
    for tale in TALES:
        person = tale.facts[0].roles["hero"]
        places = [word.start() for word in re.finditer(r"\S+", tale.text)]
        cut = places[-(len(places) // 3)]
        end = re.sub(rf"\b({person.name}|{person.kind})\b", "Somebody", tale.text[cut:])
        assert keeps_hero(tale.text[:cut] + end) is False


def test_halves_of_two_tales_mostly_lose_their_hero():
    texts = [tale.text for tale in TALES]
    kept = [keeps_hero(halves(a, b)) for a, b in zip(texts, texts[1:] + texts[:1])]
    assert kept.count(True) < 15 and kept.count(False) > 85


def test_a_text_without_a_hero_or_of_a_few_words_is_neither_kept_nor_lost():
    assert keeps_hero("It rained. " * 10) is None
    assert keeps_hero("Once there was") is None
