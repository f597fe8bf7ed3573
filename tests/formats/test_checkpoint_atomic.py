"""Checkpoints that are interrupted: whatever happens, one whole checkpoint can be loaded."""

import itertools
import os
import random
import shutil
import signal
import time

import pytest
import torch

from gptlib.formats import checkpoint
from gptlib.formats.checkpoint import load_checkpoint, save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT

CONFIG = GPTConfig.modern(13, 8, n_layer=1, n_head=2, n_embd=16)
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def constant_gpt(value, config=CONFIG):
    """A model whose weights are all `value`: a mixture of two checkpoints would show."""
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def assert_whole(path):
    """The checkpoint at `path` loads and all its parts are of one step; returns that step."""
    model, _, metadata = load_checkpoint(path)
    values = {float(v) for p in model.parameters() for v in p.detach().unique()}
    assert values == {float(metadata["step"])} == {float(metadata["of"])}
    return metadata["step"]


@POSIX
def test_a_kill_at_a_random_moment_leaves_a_whole_checkpoint(tmp_path):
    torch.set_num_threads(1)
    config = GPTConfig(97, n_layer=3, n_head=4, n_embd=256, context_length=64)  # 10 MB
    models = [constant_gpt(value, config) for value in range(4)]
    path, chance = tmp_path / "run", random.Random(0)
    began = time.perf_counter()
    save_checkpoint(path, models[0], step=0, metadata={"of": 0})
    one_save = time.perf_counter() - began
    for round_number in range(12):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            for step in itertools.count(round_number):
                value = step % 4
                save_checkpoint(path, models[value], step=value, metadata={"of": value})
                os.write(write_end, bytes([value]))
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


@pytest.mark.parametrize("killed_before", ["never", "between the renames", "in the clean-up"])
def test_a_kill_before_any_single_operation_leaves_a_whole_checkpoint(
        tmp_path, monkeypatch, killed_before):
    """Where the random kills hardly ever hit: between the renames, and during the clean-up."""
    path, previous = tmp_path / "run", tmp_path / ".run.previous"
    calls, limit = itertools.count(), 10**9

    def dying(function):
        def call(*arguments, **options):
            if next(calls) == limit:
                raise Killed
            return function(*arguments, **options)
        return call

    for owner, name in [(checkpoint, "save_file"), (checkpoint, "_force_to_disk"),
                        (checkpoint.Path, "write_text"), (checkpoint.Path, "rename"),
                        (checkpoint.Path, "mkdir"), (checkpoint.shutil, "rmtree")]:
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
    found = []
    while not found or found[-1] != "finished":
        limit = 10**9
        for folder in tmp_path.iterdir():
            shutil.rmtree(folder)
        save_checkpoint(path, constant_gpt(1), step=1, metadata={"of": 1})
        if killed_before == "between the renames":
            path.rename(previous)
        elif killed_before == "in the clean-up":
            previous.mkdir()
            (previous / "config.json").write_text("{}")
        calls, limit = itertools.count(), len(found)
        try:
            save_checkpoint(path, constant_gpt(2), step=2, metadata={"of": 2})
            found.append("finished")
        except Killed:
            found.append(assert_whole(path))
    assert assert_whole(path) == 2 and sorted(os.listdir(tmp_path)) == ["run"]
    # killed early the old one is there, killed late the new one
    assert found == sorted(found[:-1]) + ["finished"] and set(found[:-1]) == {1, 2}


def test_a_broken_unfinished_save_beside_it_does_no_harm(tmp_path):
    path = tmp_path / "run"
    save_checkpoint(path, constant_gpt(3), step=3, metadata={"of": 3})
    unfinished = tmp_path / ".run.partial"
    shutil.copytree(path, unfinished)
    whole = (unfinished / "model.safetensors").read_bytes()
    (unfinished / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert assert_whole(path) == 3
    save_checkpoint(path, constant_gpt(4), step=4, metadata={"of": 4})
    assert assert_whole(path) == 4
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "run"
    save_checkpoint(path, constant_gpt(1), step=1, metadata={"of": 1})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left.*what was there before is unchanged.*free"):
        save_checkpoint(path, constant_gpt(2), step=2, metadata={"of": 2})
    assert assert_whole(path) == 1
    assert sorted(os.listdir(tmp_path)) == ["run"]


@POSIX
def test_a_write_that_the_system_refuses_leaves_the_old_checkpoint(tmp_path):
    import resource

    path, config = tmp_path / "run", GPTConfig(97, n_layer=2, n_head=4, n_embd=128)
    save_checkpoint(path, constant_gpt(1, config), step=1, metadata={"of": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # as a full disk would
    try:
        with pytest.raises(OSError, match="could not be written"):
            save_checkpoint(path, constant_gpt(2, config), step=2, metadata={"of": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert assert_whole(path) == 1
    assert sorted(os.listdir(tmp_path)) == ["run"]
