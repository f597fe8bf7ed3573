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
    titles = {document.split("\n\n")[0]
              for document in documents("stories") + documents("tales")}
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


def test_the_three_parts_are_whole_stories_and_none_weighs_more_than_a_fifth():
    found = stories.tales()
    parts = stories.parts(found)
    held_out = [*parts.validation, *parts.test]
    every = [*parts.train, *held_out]
    assert len(set(every)) == len(every) and (len(parts.validation), len(parts.test)) == (13, 13)
    for part in (parts.validation, parts.test):
        lengths = [len(story.text) for story in part]
        assert max(lengths) <= 0.2 * sum(lengths) and 70_000 < sum(lengths) < 80_000
    early = stories.split(stories.stories())[1]
    assert not set(early) & {*parts.train, *parts.test}  # earlier chapters judge with these
    assert set(found) - set(every) == {story for story in early
                                       if len(story.text) > stories.LONGEST}


def test_no_story_of_the_other_parts_is_nearly_one_of_the_test_part():
    found = stories.tales()
    test = {found.index(story) for story in stories.parts(found).test}
    pairs = quality.near_duplicates([story.text for story in found], n=5, threshold=0.025)
    assert [pair for pair in pairs if len(test & set(pair[:2])) == 1] == []


def test_the_test_part_stands_in_no_file_that_a_model_reads(tmp_path):
    stories.write(tmp_path)
    parts = stories.parts(stories.tales())
    tales = (tmp_path / "tales.txt").read_text(encoding="utf-8")
    validation = (tmp_path / "validation.txt").read_text(encoding="utf-8")
    for story in parts.test:
        assert story.text not in tales and story.text not in validation
    assert all(story.text in validation for story in parts.validation)
    assert not any(story.text in tales for story in parts.validation)
    books = {story.book for story in parts.train if story.text in tales}
    assert books == {"burgess-busterbrown", "carroll-alice", "bryant-stories", "grimm", "andersen"}


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
