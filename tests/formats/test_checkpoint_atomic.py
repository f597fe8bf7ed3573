"""Checkpoints that are interrupted: whatever happens, one whole checkpoint can be loaded."""

import itertools
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from gptlib import files
from gptlib.formats import checkpoint
from gptlib.formats.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import CharTokenizer

CONFIG = GPTConfig.modern(13, 8, n_layer=1, n_head=2, n_embd=16)
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def constant_gpt(value, config=CONFIG):
    """A model whose weights are all `value`: a mixture of two checkpoints would show."""
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def save(path, step, model=None):
    """All parts say which step they are of; odd steps have a tokenizer and even ones have none."""
    save_checkpoint(path, model or constant_gpt(step), CharTokenizer("ab") if step % 2 else None,
                    step=step, metadata={"of": step})


def assert_whole(path):
    """The checkpoint at `path` loads and all its parts are of one step; returns that step."""
    model, tokenizer, metadata = load_checkpoint(path)
    values = {float(v) for p in model.parameters() for v in p.detach().unique()}
    assert values == {float(metadata["step"])} == {float(metadata["of"])}
    assert (tokenizer is not None) == bool(metadata["step"] % 2)
    return metadata["step"]


def rest_of_the_writing(path):
    return [name for name in os.listdir(path) if name.startswith(".")]


@pytest.fixture(params=["folder", "link", "."])
def path(request, tmp_path, monkeypatch):
    """The same place by three names: a folder, a link to it, and the current folder."""
    (tmp_path / "run").mkdir()
    if request.param == ".":
        monkeypatch.chdir(tmp_path / "run")
        return Path(".")
    if request.param == "link":
        (tmp_path / "link").symlink_to(tmp_path / "run", target_is_directory=True)
        return tmp_path / "link"
    return tmp_path / "run"


@POSIX
def test_a_kill_at_a_random_moment_leaves_a_whole_checkpoint(path):
    torch.set_num_threads(1)
    config = GPTConfig(97, n_layer=3, n_head=4, n_embd=128, context_length=64)  # 2.5 MB
    models, chance = [constant_gpt(value, config) for value in range(4)], random.Random(0)
    began = time.perf_counter()
    save(path, 0, models[0])
    one_save = time.perf_counter() - began
    for round_number in range(6):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                for step in itertools.count(round_number):
                    save(path, step % 4, models[step % 4])
                    os.write(write_end, bytes([step % 4]))
            finally:
                os._exit(1)  # an error must not go on as a second run of the tests
        os.close(write_end)
        finished = os.read(read_end, 1)
        time.sleep(chance.uniform(0, 2 * one_save))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        finished += os.read(read_end, 10_000)
        os.close(read_end)
        # the last save that was reported, or the one that was under way
        assert assert_whole(path) in (finished[-1], (finished[-1] + 1) % 4)


class Killed(BaseException):
    """Stands for the end of the process: no `except OSError` or clean-up may run after it."""


@pytest.fixture
def kill_before(monkeypatch):
    """A function that says before which of the following operations the process ends."""
    at = {"calls": itertools.count(), "limit": -1}

    def dying(function):
        def call(*arguments, **options):
            if next(at["calls"]) == at["limit"]:
                raise Killed
            return function(*arguments, **options)
        return call

    for owner, name in [(checkpoint, "save_file"), (files, "force_to_disk"), (files.os, "replace"),
                        (files.shutil, "rmtree"), (Path, "write_bytes"), (Path, "write_text"),
                        (Path, "rename"), (Path, "mkdir"), (Path, "unlink")]:
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
    monkeypatch.setattr(files.os, "fsync", lambda _: None)  # slow, and no power is cut here
    return lambda number: at.update(calls=itertools.count(), limit=number)


def left_by_a_kill(path, when):
    """The folder as a save of step 1 over step 0 left it that was killed at another moment."""
    for file in path.iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    if when == "never":
        return save(path, 1)
    save(path, 0)
    save(path / ".ready", 1)
    if when == "while writing":  # step 0 counts
        (path / ".ready" / "model.safetensors").write_bytes(b"half")
        (path / ".ready").rename(path / ".writing")
    elif when != "before the moves":
        (path / ".ready" / "config.json").replace(path / "config.json")
    if when == "after the moves":
        for file in (path / ".ready").iterdir():
            file.replace(path / file.name)


MOMENTS = ("never", "while writing", "before the moves", "amid the moves", "after the moves")


@pytest.mark.parametrize("path, when", [
    *(("folder", when) for when in MOMENTS), ("link", "never"), (".", "never"),
    ("link", "before the moves"), (".", "before the moves")], indirect=["path"])
def test_a_kill_before_any_single_operation_leaves_a_whole_checkpoint(path, when, kill_before):
    """Where random kills hardly ever hit, also if an earlier save was killed before this one."""
    found, inode = [], path.stat().st_ino
    while not found or found[-1] != "finished":
        kill_before(-1)
        left_by_a_kill(path, when)
        old = assert_whole(path)
        kill_before(len(found))
        try:
            save(path, 2)
            found.append("finished")
        except Killed:
            found.append(assert_whole(path))
        assert path.stat().st_ino == inode  # a folder that is a mount point cannot be exchanged
    assert assert_whole(path) == 2 and rest_of_the_writing(path) == []
    # killed early the old one is there, killed late the new one
    assert found == sorted(found[:-1]) + ["finished"] and set(found[:-1]) == {old, 2}
    assert old == (0 if when == "while writing" else 1) and len(found) > 15


def test_a_first_save_that_was_killed_does_not_block_the_next(tmp_path, kill_before):
    for number in itertools.count():
        run = tmp_path / f"run{number}"
        kill_before(number)
        try:
            save(run, 1)
            break
        except Killed:
            pass
        kill_before(-1)
        if has_checkpoint(run):
            assert assert_whole(run) == 1
        save(run, 2)
        assert assert_whole(run) == 2 and rest_of_the_writing(run) == []
    assert number > 10


def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(path, monkeypatch):
    save(path, 1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left.*what was there before is unchanged.*free"):
        save(path, 2)
    assert assert_whole(path) == 1 and rest_of_the_writing(path) == []


@POSIX
def test_a_write_that_the_system_refuses_leaves_the_old_checkpoint(path):
    import resource

    config = GPTConfig(97, n_layer=2, n_head=4, n_embd=128)
    save(path, 1, constant_gpt(1, config))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # as a full disk would
    try:
        with pytest.raises(OSError, match="could not be written"):
            save(path, 2, constant_gpt(2, config))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert assert_whole(path) == 1
    assert rest_of_the_writing(path) == []
