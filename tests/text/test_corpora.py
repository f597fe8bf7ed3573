"""Corpora: what the names mean, where texts are kept, and texts of the reader's own."""

import sys
from pathlib import Path

import pytest

from gptlib.text import corpora


def test_unknown_names_are_refused_with_the_known_ones():
    for call in (corpora.documents, corpora.fetch):
        with pytest.raises(ValueError, match="'novellas'; expected one of .*"):
            call("novellas")
    with pytest.raises(ValueError, match="no member 'x'"):
        corpora.member_path("gpt2-vocabulary", "x")


def test_the_user_cache_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("GPTLIB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert corpora.cache_folder() == tmp_path / "gptlib"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert corpora.cache_folder() == Path.home() / "Library" / "Caches" / "gptlib"


def test_the_stories_are_104_unwrapped_documents_without_headers():
    stories = corpora.documents("stories")
    assert len(stories) == 104
    assert stories[5].startswith("The Gingerbread Man\n\nOnce upon a time there was a little old")
    text = corpora.load_text("stories")
    assert text == "\n\n".join(stories) + "\n"
    assert 1_370_000 < len(text) < 1_376_000
    for mark in ("_", "\r", "[Illustration", "Project Gutenberg", "  "):
        assert mark not in text
    assert not set(stories) & set(corpora.documents("prose"))


def test_every_corpus_holds_what_the_table_promises():
    counts = {"prose": 280, "plays": 38, "tales": 57, "chitchat": 2848, "sanguo": 120,
              "gutenberg/carroll-alice": 12, "gutenberg/shakespeare-caesar": 1}
    assert {name: len(corpora.documents(name)) for name in counts} == counts
    assert set(counts) < set(corpora.names())
    assert "HAMLET:\nSeems, madam! nay it is; I know not 'seems.'" in corpora.load_text("plays")
    assert corpora.member_path("gpt2-vocabulary", "encoder.json").stat().st_size == 1_042_301


def test_the_tales_have_straight_quotation_marks_paragraphs_and_verses():
    tales = corpora.documents("tales")
    assert tales[6].startswith('Clever Hans\n\nThe mother of Hans said: "Whither away, Hans?"')
    text = "".join(tales)
    assert not set("‘’“”_*[]\t") & set(text) and "  " not in text
    assert '"Rapunzel, Rapunzel,\nLet down your hair to me."\n\nRapunzel had' in text
    duckling = tales[-1]
    assert duckling.startswith("The Ugly Duckling\n\n") and duckling.count('"') > 100
    assert "king's son" in text


@pytest.mark.parametrize("content, encoding, message", [
    (b"", None, "is empty"), (b" \n", None, "is empty"),
    (b"\x00\x01\x02PNG" * 50, None, "binary"), (b"a" * 50, None, "holds 50 characters"),
    ("é".encode("latin-1") * 900, None, r"not utf-8.*byte 0 is 0xe9.*latin-1"),
    (b"a" * 2000, "klingon", "unknown encoding 'klingon'"),
])
def test_an_unusable_text_of_the_readers_own_is_explained(tmp_path, content, encoding, message):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        corpora.from_path(path, encoding)


@pytest.mark.parametrize("codec, encoding", [
    ("utf-8", None), ("utf-8-sig", None), ("utf-8-sig", "utf-8"), ("utf-16", None),
    ("gb18030", "gb18030")])
def test_the_readers_own_text_is_read_in_any_named_encoding(tmp_path, codec, encoding):
    text = "从前有一只母鸡。\n" * 150
    path = tmp_path / "mine.txt"
    path.write_bytes(text.replace("\n", "\r\n").encode(codec))
    assert corpora.from_path(path, encoding) == text


def test_a_folder_of_texts_is_joined_in_name_order_as_documents(tmp_path):
    (tmp_path / "b.md").write_text("second " * 100)
    (tmp_path / "a.txt").write_text("first " * 100)
    (tmp_path / "c.png").write_bytes(b"\x00")
    text = corpora.from_path(tmp_path)
    assert text.startswith("first") and text.endswith("second\n")
    assert "first\n\n<|endoftext|>\n\nsecond" in text
    with pytest.raises(ValueError, match="no text at"):
        corpora.from_path(tmp_path / "nothing")


def test_documents_that_were_written_are_read_again(tmp_path):
    texts = ["a" * 600, "b\n\nb" * 200]
    corpora.write_documents(tmp_path / "texts.txt", texts)
    assert corpora.read_documents(tmp_path / "texts.txt") == texts
    (tmp_path / "empty.txt").write_text("<|endoftext|> \n" * 100)
    with pytest.raises(ValueError, match="holds no text between"):
        corpora.read_documents(tmp_path / "empty.txt")
