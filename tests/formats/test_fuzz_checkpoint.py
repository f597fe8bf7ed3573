"""Changed checkpoints: refused by name, or read as what their files say, nothing left out.

What was read is saved again, and the new files are compared with the changed ones, which are
read without gptlib. A change that is accepted thus shows in the object that comes back: another
number in a tensor, other metadata, another field of the configuration of the same shapes.
"""

import os
import shutil

import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from mutations import (
    fuzz,
    limits,
    mutated_json_bytes,
    mutated_safetensors,
    same_json,
    strict_json,
)
from safetensors.torch import load_file

from gptlib.formats.checkpoint import FILES, load_checkpoint, resume, save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import CharTokenizer
from gptlib.training.optim import AdamW, parameter_groups

CONFIG = GPTConfig.modern(7, 8, n_layer=2, n_head=2, n_embd=8, mlp_hidden=8)
IDS = torch.arange(16).view(2, 8) % 7
METADATA = {"run": {"corpus": ["stories"], "seed": 0, "dropout": 0.1, "note": None}, "loss": 2.5}


def parts():
    model = GPT(CONFIG)
    return model, AdamW(parameter_groups(model))


def write(path, seed, steps):
    torch.manual_seed(seed)
    model, optimizer = parts()
    for _ in range(steps):
        optimizer.zero_grad()
        model(IDS).logsumexp(-1).sum().backward()
        optimizer.step()
    save_checkpoint(path, model, CharTokenizer("abcd"[seed:]), step=steps, optimizer=optimizer,
                    metadata=METADATA | {"seed": seed})


class Files(dict):
    """The contents of a checkpoint's files by name; not shown in reports, for it is long."""

    def __repr__(self):
        return f"Files({', '.join(self)})"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder, and the files of two checkpoints of one shape. Nothing waits for the disk."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        contents = []
        for seed in (0, 1):
            write(folder / str(seed), seed, steps=1 + seed)
            contents.append(Files({f: (folder / str(seed) / f).read_bytes() for f in FILES}))
        yield folder / "run", *contents


def changed_files(draw, content, other):
    """The files of a checkpoint with one of them changed, exchanged or missing."""
    name = draw(st.sampled_from(FILES))
    how = draw(st.sampled_from(["content"] * 8 + ["exchanged", "missing"]))
    if how == "missing":
        return Files({file: content[file] for file in FILES if file != name})
    if how == "exchanged":
        return Files(content | {name: other[draw(st.sampled_from([name, name, *FILES]))]})
    if name.endswith(".safetensors"):
        return Files(content | {name: mutated_safetensors(draw, content[name])})
    return Files(content | {name: mutated_json_bytes(draw, strict_json(content[name]))})


def put(path, content):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, data in content.items():
        (path / name).write_bytes(data)


def assert_says_the_same(path, content, names):
    """The files that gptlib has saved at `path` say what those in `content` say."""
    for name in names:
        assert (path / name).exists() == (name in content), name
        if name not in content:
            continue
        if name.endswith(".json"):
            assert same_json(strict_json((path / name).read_bytes()), strict_json(content[name]))
            continue
        (path / "compared").write_bytes(content[name])
        ours, theirs = load_file(path / name), load_file(path / "compared")
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(ours[key], theirs[key].to(ours[key].dtype)), key


def assert_named(error, path):
    assert type(error) is ValueError and str(path) in str(error)
    assert any(name in str(error) for name in FILES), error


@fuzz
@given(st.data())
def test_a_changed_checkpoint_is_refused_or_loads_as_what_it_says(folders, data):
    path, content, other = folders
    changed = changed_files(data.draw, content, other)
    put(path, changed)
    try:
        with limits():
            model, tokenizer, metadata = load_checkpoint(path)
    except ValueError as error:
        assert_named(error, path)
        unchanged = all(changed.get(name) == content[name] for name in FILES[:4])
        assert not unchanged, error
        return event("refused")
    step = metadata.pop("step")
    put(path, {})
    save_checkpoint(path, model, tokenizer, step=step, metadata=metadata)
    if "optimizer" in (training := strict_json(changed["training.json"])):
        del training["optimizer"]  # read by `resume` alone
    assert same_json(strict_json((path / "training.json").read_bytes()), training)
    assert_says_the_same(path, changed, ("config.json", "model.safetensors", "tokenizer.json"))
    return event("the same" if changed == content else "other content, all of it")


@fuzz
@given(st.data())
def test_a_run_goes_on_from_a_changed_checkpoint_as_it_says_or_not_at_all(folders, data):
    path, content, other = folders
    changed = changed_files(data.draw, content, other)
    put(path, changed)
    torch.manual_seed(5)
    model, optimizer = parts()
    before = [p.detach().clone() for p in model.parameters()]
    random = torch.get_rng_state()
    try:
        with limits():
            step = resume(path, model, optimizer)
    except ValueError as error:
        assert_named(error, path)
        assert all(torch.equal(p, q) for p, q in zip(before, model.parameters()))
        assert not optimizer.state and torch.equal(random, torch.get_rng_state())
        return event("refused")
    metadata = strict_json(changed["training.json"])["metadata"]
    put(path, {})
    save_checkpoint(path, model, step=step, optimizer=optimizer, metadata=metadata)
    assert_says_the_same(path, changed, [name for name in FILES if name != "tokenizer.json"])
    return event("the same" if changed == content else "other content, all of it")
