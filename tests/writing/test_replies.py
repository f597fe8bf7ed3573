"""Replies are judged by faults that a reader can see, and pairs follow from their number."""

import pytest

from gptlib.writing.replies import Choice, Reply, judge_reply, make_choices

SOUND = "Yes, I saw it last week. Did you like it?"


@pytest.mark.parametrize("text, ended, faults", [
    (SOUND, True, {}),
    ("No.", True, {}),
    ("", True, {"empty": "no word"}),
    (" ... ", True, {"empty": "no word"}),
    ("Yes, I saw it last", False, {"unfinished": "no end token"}),
    ("I like it a lot, and I LIKE it, a dog!", True, {"repeats": "i like it a"}),
    ("I like it and you like it too", True, {}),  # only two words stand twice
    ("Fine.\nUser: and you?", True, {"other speaker": "User:"}),
    ("User: how are you?", True, {"other speaker": "User:"}),
    ("Fine<|im_start|>user\nand you?", True, {"other speaker": "<|im_start|>"}),
    ("We took plan B: it rained.", True, {}),  # not at the beginning of a line
    ("B: no", False, {"unfinished": "no end token", "other speaker": "B:"}),
])
def test_each_fault_is_named_with_its_evidence(text, ended, faults):
    assert judge_reply(text, ended) == faults


def test_a_reply_rambles_from_one_word_above_the_limit():
    text = " ".join(f"word{i}" for i in range(12))
    assert judge_reply(text, True, longest=12) == {}
    assert judge_reply(text, True, longest=11) == {"rambles": "12 words"}


def test_the_marks_of_another_speaker_can_be_given():
    assert judge_reply("Hal: no", True) == {}
    assert judge_reply("Hal: no", True, turns=["\nHal:"]) == {"other speaker": "Hal:"}


def test_the_reply_with_fewest_faults_is_chosen_against_the_one_with_most():
    sound, cut, worst = Reply(SOUND, True), Reply("Well, I", False), Reply("A: well, I", False)
    found = make_choices(["one", "two", "three"], [[cut, worst, sound, sound], [sound, sound], []])
    assert found == [Choice("one", sound, worst)]
    long = make_choices(["one"], [[sound, Reply("Yes.", True)]], longest=2)
    assert long == [Choice("one", Reply("Yes.", True), sound)]


def test_lists_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="1 prompts and 2 lists of replies"):
        make_choices(["one"], [[], []])
