"""The data of case 1."""

import subprocess
import sys

from gptlib.text import stories
from gptlib.text.corpora import documents
from gptlib.training import runs
from gptlib.writing import quality


def test_clean_turns_quotation_marks_and_keeps_apostrophes():
    assert stories.clean("'Well!' said Alice, 'I don't know. It's Bill's--' and 'EAT ME' stood.") \
        == '"Well!" said Alice, "I don\'t know. It\'s Bill\'s--" and "EAT ME" stood.'


def test_the_stories_are_without_titles_plays_and_single_quotes():
    found = stories.stories()
    assert len(found) == 99
    assert not {story.title for story in found} & stories.LEFT_OUT.keys()
    alice = "".join(story.text for story in found if story.book == "carroll-alice")
    assert alice.startswith("Alice was beginning to get very tired")
    assert alice.count('"') > 2000
    bread = next(story for story in found if story.title == "The Gingerbread Man")
    assert bread.text.startswith("Once upon a time there was a little old woman")


def test_every_title_left_out_exists_in_the_corpus():
    titles = {document.split("\n\n")[0] for document in documents("stories")}
    assert stories.LEFT_OUT.keys() <= titles


def test_the_split_takes_every_tenth_story_and_loses_none():
    found = stories.stories()
    train, held_out = stories.split(found)
    assert len(held_out) == 9 and held_out[0] is found[9]
    assert [story for story in found if story in train or story in held_out] == found
    assert not set(train) & set(held_out)
    assert {story.book for story in held_out} == set(stories.REPEATS)


def test_no_held_out_story_has_a_near_duplicate_to_learn_from():
    found = stories.stories()
    held_out = {found.index(story) for story in stories.split(found)[1]}
    pairs = quality.near_duplicates([story.text for story in found], n=5, threshold=0.05)
    assert [pair for pair in pairs if len(held_out & set(pair[:2])) == 1] == []


def test_the_mixture_repeats_training_stories_and_contains_no_held_out_one():
    train, held_out = stories.split(stories.stories())
    texts = stories.mixture(train)
    for story in train:
        assert texts.count(story.text) == stories.REPEATS[story.book] - 1
    assert not set(texts) & {story.text for story in held_out}


def test_the_written_files_give_the_training_command_this_split(tmp_path):
    subprocess.run([sys.executable, "-m", "gptlib.text.stories", str(tmp_path)], check=True,
                   capture_output=True)
    files = [str(tmp_path / name) for name in ("stories.txt", "mixture.txt")]
    documents, held_out = runs.split_documents(files)
    train, expected = stories.split(stories.stories())
    assert held_out == [story.text for story in expected]
    assert documents == [story.text for story in train] + stories.mixture(train)
