"""Checkpoints: exact, atomic, and clear about files that do not fit."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gptlib.formats import checkpoint
from gptlib.formats.checkpoint import load_checkpoint, model_path, resume, save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.tokenizers import CharTokenizer
from gptlib.training.config import TrainConfig
from gptlib.training.loop import train
from gptlib.training.optim import AdamW, Muon, parameter_groups

DATA = TokenDataset((torch.arange(2000) ** 2 // 7) % 13, context_length=8)
CONFIG = GPTConfig.modern(13, 8, n_layer=1, n_head=2, n_embd=16, dropout=0.2)
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def small_gpt(seed=0, config=CONFIG):
    torch.manual_seed(seed)
    return GPT(config)


def adamw(model):
    return AdamW(parameter_groups(model))


def muon(model):
    return Muon(parameter_groups(model, muon=True))


def equal(model, other):
    return all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters()))


def test_model_tokenizer_and_metadata_come_back(tmp_path):
    model, tokenizer = small_gpt(), CharTokenizer.train("hello wide world")
    save_checkpoint(tmp_path / "run", model, tokenizer, step=7, metadata={"text": "hellö"})
    state = torch.get_rng_state()
    loaded, loaded_tokenizer, metadata = load_checkpoint(tmp_path / "run")
    assert equal(model, loaded) and loaded.config == CONFIG and not loaded.training
    assert loaded_tokenizer.encode("hold") == tokenizer.encode("hold")
    assert metadata == {"step": 7, "text": "hellö"}
    assert torch.equal(state, torch.get_rng_state())
    x = next(batches(DATA, 2))[0]
    assert torch.equal(model.eval()(x), loaded(x))


def test_the_folder_holds_open_formats_only(tmp_path):
    model = small_gpt()
    save_checkpoint(tmp_path / "run", model, CharTokenizer.train("ab"), optimizer=adamw(model))
    names = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert names == ["config.json", "model.safetensors", "optimizer.safetensors",
                     "tokenizer.json", "training.json"]
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["format"], config["format_version"]) == ("gptlib", 1)
    assert GPTConfig.from_dict(config["model"]) == CONFIG
    assert load_file(tmp_path / "run/model.safetensors").keys() == model.state_dict().keys()
    assert sorted(os.listdir(tmp_path)) == ["run"]  # nothing is left beside it


def test_bfloat16_weights_take_half_the_space_and_load_as_float32(tmp_path):
    model = small_gpt()
    save_checkpoint(tmp_path / "run", model, dtype=torch.bfloat16)
    stored = load_file(tmp_path / "run/model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.parameters())  # the caller's is untouched
    loaded, _, _ = load_checkpoint(tmp_path / "run")
    for p, q in zip(model.parameters(), loaded.parameters()):
        assert q.dtype == torch.float32
        assert torch.equal(p.bfloat16().float(), q)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("build", [adamw, muon])
def test_resumed_training_ends_bit_for_bit_as_uninterrupted(tmp_path, build, accumulation):
    config = TrainConfig(max_steps=12, warmup_steps=2, schedule="cosine",
                         accumulation=accumulation)
    model = small_gpt()
    optimizer = build(model)
    losses = []
    for step in train(model, batches(DATA, 4), optimizer, config):
        losses.append(step.loss)
        if step.step == 5:
            save_checkpoint(tmp_path / "run", model, step=5, optimizer=optimizer)

    other = small_gpt(seed=1)  # another start and other random states, all to be replaced
    optimizer = build(other)
    start = resume(tmp_path / "run", other, optimizer)
    rest = train(other, batches(DATA, 4, start=start * accumulation), optimizer, config,
                 start=start)
    assert [step.loss for step in rest] == losses[5:]
    assert equal(model, other)


@POSIX
@pytest.mark.parametrize("build", [adamw, muon])
def test_training_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path, build):
    config = TrainConfig(max_steps=12, schedule="linear")

    def go_on():
        model = small_gpt()
        optimizer = build(model)
        start = 0
        if (tmp_path / "run").exists():
            start = resume(tmp_path / "run", model, optimizer)
        for step in train(model, batches(DATA, 4, start=start), optimizer, config, start=start):
            save_checkpoint(tmp_path / "run", model, step=step.step, optimizer=optimizer)
            yield step.step, model

    uninterrupted = small_gpt()
    for _ in train(uninterrupted, batches(DATA, 4), build(uninterrupted), config):
        pass
    for killed_after in (4, 9):
        pid = os.fork()
        if pid == 0:
            try:
                for step, _ in go_on():
                    if step == killed_after:
                        os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)  # an error must not go on as a second run of the tests
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    steps = list(go_on())
    assert [step for step, _ in steps] == [10, 11, 12]
    assert equal(steps[-1][1], uninterrupted)


def test_other_files_in_the_folder_survive_a_new_save(tmp_path):
    path = tmp_path / "run"
    save_checkpoint(path, small_gpt())
    (path / "README.md").write_text("a model card")
    (path / "samples").mkdir()
    (path / "samples" / "one.txt").write_text("once upon a time")
    save_checkpoint(path, small_gpt())
    assert (path / "README.md").read_text() == "a model card"
    assert (path / "samples" / "one.txt").read_text() == "once upon a time"


def test_a_new_save_without_tokenizer_or_optimizer_keeps_none_of_the_old(tmp_path):
    path, model = tmp_path / "run", small_gpt()
    save_checkpoint(path, model, CharTokenizer.train("ab"), optimizer=adamw(model))
    save_checkpoint(path, model)
    assert load_checkpoint(path)[1] is None
    with pytest.raises(ValueError, match="holds no optimizer state"):
        resume(path, model, adamw(model))


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is no checkpoint; expected a new or an empty folder"):
        save_checkpoint(tmp_path / "thesis", small_gpt())
    assert (tmp_path / "thesis" / "chapter1.txt").exists()


def spoil(path, name, how):
    file = path / name
    if how == "missing":
        file.unlink()
    elif how == "cut off":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif how == "foreign":
        file.write_bytes(b"PK\x03\x04 something else \xff\xfe")
    elif how == "empty":
        file.write_bytes(b"")


@pytest.mark.parametrize("how", ["missing", "cut off", "foreign", "empty"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.json",
                                  "tokenizer.json", "optimizer.safetensors"])
def test_a_spoilt_file_is_named(tmp_path, name, how):
    path, model = tmp_path / "run", small_gpt()
    optimizer = adamw(model)
    list(train(model, batches(DATA, 4), optimizer, TrainConfig(max_steps=1)))
    save_checkpoint(path, model, CharTokenizer.train("ab"), step=1, optimizer=optimizer)
    spoil(path, name, how)
    before = [p.clone() for p in model.parameters()]
    if (name, how) == ("tokenizer.json", "missing"):
        assert load_checkpoint(path)[1] is None  # a model without a tokenizer is whole
        return
    with pytest.raises(ValueError, match=name):
        if name == "optimizer.safetensors":
            resume(path, model, optimizer)
        else:
            load_checkpoint(path)
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters()))


def change_config(path, **changes):
    config = json.loads((path / "config.json").read_text())
    config |= changes
    (path / "config.json").write_text(json.dumps(config))


def test_weights_that_do_not_fit_the_configuration_are_named_with_both_shapes(tmp_path):
    save_checkpoint(tmp_path / "run", small_gpt())
    change_config(tmp_path / "run", model=CONFIG.to_dict() | {"vocab_size": 17})
    with pytest.raises(ValueError, match=r"embedding.weight has the shape \(13, 16\).*\(17, 16\)"):
        load_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("names, message", [
    ({"output.weight": "head.weight"}, "output.weight is missing"),
    ({"output.weight": None}, "output.weight is missing"),
    ({"more.weight": "more.weight"}, "it holds more.weight; expected no tensor that the model"),
])
def test_missing_and_foreign_weights_are_named(tmp_path, names, message):
    save_checkpoint(tmp_path / "run", small_gpt())
    file = tmp_path / "run/model.safetensors"
    weights = load_file(file) | {"more.weight": torch.ones(2)}
    if "more.weight" not in names:
        del weights["more.weight"]
    weights = {names.get(name, name): tensor for name, tensor in weights.items()}
    weights.pop(None, None)
    save_file(weights, file)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("changes, message", [
    ({"format_version": 2}, "format_version is 2; this gptlib reads 1"),
    ({"format_version": True}, "format_version is True; expected a whole number"),
    ({"format": None, "model_type": "gpt2"}, "looks like a Hugging Face model"),
    ({"architecture": "Decoder"}, "architecture is 'Decoder'; expected one of 'GPT'"),
    ({"architecture": None}, "architecture is None"),
    ({"model": {"vocab": 5}}, "unknown key 'vocab'"),
    ({"model": {}}, "model.activation is missing"),
    ({"model": [5]}, r"model is \[5\]; expected an object"),
    ({"quantization": "int8"}, "quantization is 'int8'; expected no key"),
])
def test_a_configuration_of_another_format_is_refused(tmp_path, changes, message):
    save_checkpoint(tmp_path / "run", small_gpt())
    change_config(tmp_path / "run", **changes)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "run")


def test_a_path_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no checkpoint at .*nowhere"):
        load_checkpoint(tmp_path / "nowhere")


def test_resuming_another_run_changes_nothing(tmp_path):
    model = small_gpt()
    save_checkpoint(tmp_path / "run", model, optimizer=muon(model))
    other = small_gpt(seed=1)
    before = [p.clone() for p in other.parameters()]
    with pytest.raises(ValueError, match="holds the state of 'Muon'; got AdamW"):
        resume(tmp_path / "run", other, adamw(other))
    wide = small_gpt(config=GPTConfig.modern(13, 8, n_layer=1, n_head=2, n_embd=32))
    with pytest.raises(ValueError, match=r"config.json: model.n_embd is 16; got a model with 32"):
        resume(tmp_path / "run", wide, muon(wide))
    with pytest.raises(ValueError, match="parameters; the optimizer has"):
        resume(tmp_path / "run", other, Muon(list(other.blocks[0].attention.parameters())))
    assert all(torch.equal(p, q) for p, q in zip(before, other.parameters()))


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="got a Linear; expected a gptlib.model.gpt.GPT"):
        save_checkpoint(tmp_path / "run", nn.Linear(2, 2))
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        save_checkpoint(tmp_path / "run", small_gpt(), metadata={"tensor": torch.ones(2)})
    with pytest.raises(ValueError, match="tokenizer has 26 tokens and the model 13"):
        save_checkpoint(tmp_path / "run", small_gpt(),
                        CharTokenizer([chr(ord("a") + i) for i in range(26)]))
    assert not list(tmp_path.iterdir())


def test_a_model_of_the_book_is_found_by_name_and_an_unknown_one_lists_them(tmp_path, monkeypatch):
    elsewhere = tmp_path / "gptlib" / "formats" / "checkpoint.py"
    monkeypatch.setattr(checkpoint, "__file__", str(elsewhere))
    with pytest.raises(ValueError, match="no model 'tales'; the models there are: none"):
        model_path("tales")
    save_checkpoint(tmp_path / "models" / "stories", small_gpt())
    assert model_path("stories") == tmp_path / "models" / "stories"
    with pytest.raises(ValueError, match="the models there are: stories"):
        model_path("../models/stories")
    save_checkpoint(tmp_path / "gptlib" / "models" / "chat", small_gpt())  # an installed package
    assert model_path("chat") == tmp_path / "gptlib" / "models" / "chat"
