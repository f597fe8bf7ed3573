"""The mixtures of old books: what each arm reads, and that all are judged alike."""

import dataclasses
from collections import Counter

import old_books as tool
import pytest

from gptlib.text import stories
from gptlib.text.corpora import END
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.training.tuning import read_results


@pytest.fixture(scope="module")
def parts():
    return stories.parts(stories.tales())


def counts(arm, parts):
    read = Counter(tool.texts(arm, parts.train))
    return {book: {read[s.text] for s in parts.train if s.book == book}
            for book in (*stories.REPEATS, *tool.TALES)}


def test_each_arm_reads_each_book_as_often_as_it_says(parts):
    once = dict.fromkeys((*stories.REPEATS, *tool.TALES), {1})
    some = {book: {times} for book, times in (stories.REPEATS | tool.TALES).items()}
    assert counts("once", parts) == counts("alone", parts) == once
    assert counts("some", parts) == some
    assert counts("more", parts) == {book: {2 * n} for book, (n,) in some.items()}
    assert counts("four books", parts) == some | {"grimm": {0}, "andersen": {0}}


def test_every_arm_but_one_reads_the_novels_and_none_a_story_that_judges(parts):
    novel = stories.novels()[0]
    judges = {s.text for part in (parts.validation, parts.test) for s in part}
    for arm in tool.ARMS:
        read = tool.texts(arm, parts.train)
        assert (novel in read) == (arm != "alone")
        assert not judges & set(read)


def test_a_run_is_judged_by_the_validation_part_and_not_repeated(parts, monkeypatch, tmp_path,
                                                                 capsys):
    few = stories.Parts(parts.train[:3], parts.validation[:1], [])
    monkeypatch.setattr(tool, "RECIPE", dataclasses.replace(
        tool.RECIPE, n_layer=1, n_embd=16, context_length=16, max_steps=2))
    monkeypatch.setattr(tool, "ARMS", ("alone",))
    monkeypatch.setattr(tool.stories, "tales", lambda: None)
    monkeypatch.setattr(tool.stories, "parts", lambda found: few)
    monkeypatch.setattr(tool.BPETokenizer, "train", lambda *args: ByteTokenizer((END,)))
    monkeypatch.setattr("sys.argv", ["old_books.py", "--out", str(tmp_path / "found.csv")])
    assert tool.main() == 0 and capsys.readouterr().out.count("alone") == 3
    rows = read_results(tmp_path / "found.csv")[1]
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert all(7 < row["bits_per_byte"] < 9 for row in rows)  # it has learned next to nothing
    assert tool.main() == 0 and capsys.readouterr().out == ""
