"""The reader of made tales finds nothing in true ones, and each kind of contradiction in others."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from gptlib.text import storyworld
from gptlib.text.storyreader import CONTRADICTIONS, read

TALE = """Once upon a time a shy fox lived at the mill. His name was Tom. Tom had a red kite and \
took it everywhere, even to bed. One windy day Tom went to the forest to play, and there the red \
kite was lost.

So the fox set off to the forest. On the way he saw the first violets. But in front of the forest \
there was a wide river, and Tom could not get across.

Just then Tom met an old owl named Ida. "Can I help you?" asked the owl. Tom told her about the \
red kite and the river. "I have a boat," said the owl, "but I am hungry. Bring me a jar of honey, \
and you shall have it."

Tom ran to the farm, found a jar of honey and brought it back to the owl. Then the owl gave him \
the boat.

With the boat it was easy to get across. And there, in the forest, lay the red kite. Tom gave the \
boat back to the owl and thanked her three times.

That evening Tom walked back to the mill and sang all the way. And that is how Tom the fox and \
Ida the owl became friends."""


def test_the_example_holds():
    reading = read(TALE)
    assert reading.holds and not reading.contradictions
    assert [sentence.event for sentence in reading.sentences] == [
        "open", "love", "lose", "set out", "see", "block", "meet", "ask", "tell lost", "trade",
        "fetch", "give", "use", "find", "thank", "return", "end"]


@given(st.integers(0, 10**12))
@settings(max_examples=150)
def test_every_tale_of_the_world_holds_and_is_read_back_fact_by_fact(number):
    tale = storyworld.tell(number)
    reading = read(tale.text)
    assert reading.holds, (tale.text, reading.contradictions)
    assert [s.event for s in reading.sentences] == [fact.event for fact in tale.facts]
    for sentence, fact in zip(reading.sentences, tale.facts):
        for role, form, words in sentence.fields:
            entity = fact.roles[role]
            meant = getattr(entity, form) if form else str(entity)
            assert words.lower() == meant.lower()


@pytest.mark.parametrize("old, new, kind", [
    ("Just then Tom met", "Just then Ned met", "names"),
    ("So the fox set off", "So the bear set off", "kinds"),
    ("named Ida", "named Tom", "names"),
    ("Ida the owl", "Wanda the owl", "names"),
    ("Tom the fox", "Tom the bear", "kinds"),
    ("His name was Tom", "Her name was Tom", "pronouns"),
    ("thanked her three", "thanked him three", "pronouns"),
    ("set off to the forest", "set off to the harbour", "places"),
    ("walked back to the mill", "walked back to the farm", "places"),
    ("lay the red kite", "lay the blue kite", "things"),
    ("found a jar of honey", "found a loaf of bread", "things"),
    ("gave him the boat", "gave him the ladder", "help"),
    ("easy to get across", "easy to get over", "help"),
    ("I have a boat", "I have a ladder", "help"),
    ("Then the owl gave him the boat.", "", "order"),
    ("And there, in the forest, lay the red kite.", "", "order"),
    ("shall have it.\"", "shall have it.", "quotes"),
    ("So the fox set off to the forest.", "So the fox set off to forest the.", "unread"),
])
def test_each_kind_of_contradiction_is_found(old, new, kind):
    assert old in TALE and kind in CONTRADICTIONS
    reading = read(TALE.replace(old, new))
    assert reading.contradictions[kind] and not reading.holds


def test_a_tale_cut_short_or_told_twice_does_not_hold():
    assert not read(TALE[:len(TALE) // 2]).holds
    assert not read(f"{TALE} {TALE}").holds


def test_a_wrong_tool_that_would_have_helped_is_a_contradiction_of_help():
    wrong = ("A wise bear named Sam came by and offered him a boat. But what use is a boat against "
             "a wide river?")
    text = TALE.replace("\n\nJust then", f" {wrong}\n\nJust then")
    assert read(text).contradictions["help"]
    useless = text.replace("a boat. But what use is a boat", "a key. But what use is a key")
    assert read(useless).holds


@given(st.text(max_size=200))
def test_any_text_can_be_read_and_none_is_lost(text):
    reading = read(text)
    assert not reading.holds
    assert "".join("".join(s.text for s in reading.sentences).split()) == "".join(text.split())
