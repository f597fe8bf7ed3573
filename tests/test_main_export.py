"""`export` never destroys what it reads, and replaces another model only when told to."""

import json
import os
import random

import pytest
import torch
from typer.testing import CliRunner

from gptlib import __main__
from gptlib.formats.checkpoint import load_checkpoint, model_path, save_checkpoint
from gptlib.formats.huggingface import from_huggingface, to_huggingface
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import BPETokenizer
from gptlib.training import runs
from gptlib.training.run_config import RunConfig

SHAPE = dict(context_length=16, n_layer=1, n_head=2, n_embd=16)
TOKENIZER = BPETokenizer.train("to be or not to be " * 20, 260)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with GPT-2's block after four steps."""
    place = tmp_path_factory.mktemp("trained")
    draw = random.Random(0)
    words = [draw.choice("red blue green old new small big".split()) for _ in range(2000)]
    (place / "text.txt").write_text(" ".join(words), encoding="utf-8")
    config = RunConfig(corpus=(str(place / "text.txt"),), vocab_size=280, block="gpt2",
                       batch_size=2, max_steps=4, **SHAPE)
    list(runs.run(config, place / "run"))
    return place / "run"


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of that run as `run` in the current folder."""
    os.mkdir(tmp_path / "run")
    for file in trained.iterdir():
        (tmp_path / "run" / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def export(model, out, to, *options):
    result = CliRunner().invoke(__main__.app, ["export", "--model", str(model), "--out", str(out),
                                               "--to", to, *options])
    return result.exception if result.exit_code else None


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_export_halves_the_weights_and_keeps_the_model(run):
    assert export("run", "small", "gptlib") is None
    sizes = [(path / "model.safetensors").stat().st_size for path in (run, run.parent / "small")]
    assert sizes[1] < 0.6 * sizes[0]
    before, after = load_checkpoint("run"), load_checkpoint("small")
    ids = torch.tensor([[1, 2, 3]])
    assert after[2] == before[2]
    torch.testing.assert_close(after[0](ids), before[0](ids), atol=0.02, rtol=0.02)


def test_export_to_hugging_face_writes_all_that_its_writer_writes(run):
    assert export("run", "hf", "huggingface") is None
    model, tokenizer, _ = load_checkpoint("run")
    to_huggingface(model, tokenizer, "expected")
    assert content(run.parent / "hf") == content(run.parent / "expected")


def test_another_block_than_gpt2_s_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint("new", GPT(GPTConfig.modern(260, **SHAPE)), TOKENIZER)
    assert isinstance(export("new", "deep/hf", "huggingface"), ValueError)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("to", ["gptlib", "huggingface"])
@pytest.mark.parametrize("options", [[], ["--force"]])
@pytest.mark.parametrize("model, out", [
    ("run", "run"), ("run", "link"), ("link", "run"), ("link", "link"), ("run", "./run/"),
    ("run", "run/../run"), ("run", "run/small"), ("run", "link/deep/er"), ("link", "run/small"),
    ("run", "again/run")])
def test_the_model_itself_is_never_written_to(run, model, out, options, to):
    os.symlink("run", "link")
    os.symlink(".", "again")
    before = content(run)
    error = export(model, out, to, *options)
    assert "itself or lies inside it" in str(error) and isinstance(error, ValueError)
    assert content(run) == before and len(list(run.iterdir())) == len(before)


@pytest.mark.parametrize("model, out", [(".", "."), (".", "small"), ("../run", "."),
                                        (".", "../run")])
def test_the_current_folder_is_the_model_itself_too(run, model, out, monkeypatch):
    monkeypatch.chdir(run)
    before = content(run)
    assert "itself or lies inside it" in str(export(model, out, "gptlib", "--force"))
    assert content(run) == before


def test_a_model_of_the_book_is_no_exception():
    folder = model_path("stories")
    before = (folder / "config.json").read_bytes()
    assert "itself" in str(export("stories", folder, "huggingface", "--force"))
    assert (folder / "config.json").read_bytes() == before


def other_model(folder, seed=1, block=GPTConfig):
    torch.manual_seed(seed)
    save_checkpoint(folder, GPT(block(260, **SHAPE)), TOKENIZER,
                    optimizer=None, metadata={"of": "another"})


@pytest.mark.parametrize("to", ["gptlib", "huggingface"])
def test_another_model_is_replaced_only_with_force(run, to):
    other_model("other")
    before = content(run.parent / "other")
    assert "already holds a model" in str(export("run", "other", to))
    assert "--force" in str(export("run", "other", to))
    assert content(run.parent / "other") == before
    assert export("run", "other", to, "--force") is None
    assert export("run", "fresh", to) is None
    assert content(run.parent / "other") == content(run.parent / "fresh")


@pytest.mark.parametrize("first, second", [("gptlib", "huggingface"), ("huggingface", "gptlib")])
def test_of_a_model_of_another_kind_nothing_is_left_and_other_files_stay(run, first, second):
    assert export("run", "out", first) is None
    (run.parent / "out" / "README.md").write_text("my card", encoding="utf-8")
    (run.parent / "out" / "special_tokens_map.json").write_text("{}", encoding="utf-8")
    assert export("run", "out", second, "--force") is None
    assert export("run", "fresh", second) is None
    after = content(run.parent / "out")
    assert after.pop("README.md") == b"my card" and after == content(run.parent / "fresh")


@pytest.mark.parametrize("make", ["file", "folder", "link to nowhere"])
@pytest.mark.parametrize("options", [[], ["--force"]])
def test_what_is_no_model_is_never_written_to(run, make, options):
    if make == "file":
        (run.parent / "out").write_text("text", encoding="utf-8")
    elif make == "folder":
        (run.parent / "out").mkdir()
        (run.parent / "out" / "letter").write_text("dear", encoding="utf-8")
    else:
        os.symlink("nowhere", "out")
    error = export("run", "out", "gptlib", *options)
    assert "is there and holds no model" in str(error) and isinstance(error, ValueError)
    assert sorted(os.listdir()) == ["out", "run"]
    assert make != "folder" or os.listdir("out") == ["letter"]


@pytest.mark.parametrize("to", ["gptlib", "huggingface"])
def test_a_failure_leaves_the_model_that_was_there(run, to, monkeypatch):
    other_model("other")
    before = content(run.parent / "other")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gptlib.formats.checkpoint.save_file", full)
    monkeypatch.setattr("gptlib.formats.huggingface.save_file", full)
    assert "No space left" in str(export("run", "other", to, "--force"))
    assert content(run.parent / "other") == before
    assert sorted(os.listdir("other")) == sorted(before)
    assert "No space left" in str(export("run", "new", to)) and not os.path.exists("new")


def test_an_empty_folder_is_filled_and_a_link_to_one_stays_a_link(run):
    os.mkdir("there")
    os.symlink("there", "out")
    assert export("run", "out", "huggingface") is None
    assert os.path.islink("out")
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(from_huggingface("there")(ids), load_checkpoint("run")[0](ids))
    assert json.loads((run.parent / "there" / "config.json").read_text())["model_type"] == "gpt2"
