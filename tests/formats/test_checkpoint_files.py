"""Checkpoints from strangers, and what may not be saved: understood whole, or refused by name."""

import dataclasses
import json
import os
import shutil

import pytest
import torch
from mutations import limits
from safetensors.torch import load_file, save_file
from torch import nn

from gptlib.formats import checkpoint
from gptlib.formats.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from gptlib.formats.gguf_tokenizer import GGUFTokenizer
from gptlib.model.config import GPTConfig
from gptlib.model.encoder_decoder import Decoder
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import ByteTokenizer, CharTokenizer

MODERN = GPTConfig.modern(13, 8, n_layer=2, n_head=2, n_embd=16)
GPT2 = GPTConfig(13, 8, n_layer=1, n_head=2, n_embd=16)


def small_gpt(config=MODERN):
    torch.manual_seed(0)
    return GPT(config)


@pytest.fixture
def run(tmp_path):
    save_checkpoint(tmp_path / "run", small_gpt(), CharTokenizer("ab"), step=3)
    return tmp_path / "run"


def change(file, *keys, **changes):
    """Change the object under `keys` of a JSON file."""
    values = inner = json.loads(file.read_text())
    for key in keys:
        inner = inner[key]
    inner |= changes
    file.write_text(json.dumps(values))


# ---- what is saved


def test_a_compiled_model_is_saved_as_the_model_inside(run):
    model = small_gpt()
    save_checkpoint(run, torch.compile(model), step=4)
    loaded, _, metadata = load_checkpoint(run)
    assert metadata["step"] == 4
    for ours, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_matrix_that_two_layers_share_is_saved_twice(run):
    model = small_gpt()
    model.output.weight = model.embedding.weight
    save_checkpoint(run, model)
    loaded = load_checkpoint(run)[0]
    assert torch.equal(loaded.output.weight, model.embedding.weight)
    assert torch.equal(loaded.embedding.weight, model.embedding.weight)


class Louder(GPT):
    """A reader's variant, with the same weights and another answer."""

    def forward(self, ids, cache=None):
        return 2 * super().forward(ids, cache)


def with_a_layer_exchanged():
    model = small_gpt()
    model.blocks[1].feed_forward.up = nn.Sequential(nn.Linear(16, 2), nn.Linear(2, 64))
    return model


def diverged():
    model = small_gpt()
    model.output.weight.data[3, 5] = float("nan")
    return model


@pytest.mark.parametrize("model, message", [
    (lambda: Decoder(GPT2), "got a Decoder; expected a gptlib.model.gpt.GPT itself"),
    (lambda: Louder(MODERN), "got a Louder; expected"),
    (lambda: nn.DataParallel(small_gpt()), "got a DataParallel; expected"),
    (lambda: torch.compile(nn.Linear(2, 2)), "got a Linear; expected"),
    (with_a_layer_exchanged, "blocks.1.feed_forward.up.weight is missing"),
    (diverged, "output.weight holds numbers that are not finite"),
], ids=lambda value: getattr(value, "__name__", None))
def test_a_model_that_could_not_be_loaded_does_not_replace_one_that_can(run, model, message):
    with pytest.raises(ValueError, match=message):
        save_checkpoint(run, model(), step=9)
    assert load_checkpoint(run)[2]["step"] == 3


@pytest.mark.parametrize("options, message", [
    ({"dtype": torch.int8}, "has the type I8; expected floating numbers"),
    ({"dtype": torch.float8_e4m3fn}, "has the type torch.float8_e4m3fn; expected"),
    ({"step": -1}, "training.json: step is -1; expected a whole number of at least 0"),
    ({"step": 1.5}, "step is 1.5; expected a whole number"),
    ({"metadata": {"loss": float("nan")}}, "NaN is not a finite number"),
    ({"metadata": {"a": [1, {"b": float("inf")}]}}, "Infinity is not a finite number"),
    ({"metadata": {"step": 4}}, "metadata.step would hide the checkpoint's own step"),
    ({"metadata": {1: "a", "1": "b"}}, "the key '1' stands twice"),
    ({"metadata": {"text": "a" * 2**22}}, "training.json would have 4,194,.*a file of its own"),
    ({"metadata": ["a"]}, "metadata is .*; expected an object"),
    ({"tokenizer": object()}, "got a object; expected one of CharTokenizer, ByteTokenizer, BPE"),
    ({"tokenizer": GGUFTokenizer.__new__(GGUFTokenizer)}, "got a GGUFTokenizer; expected one of"),
    ({"tokenizer": ByteTokenizer()}, "the tokenizer has 256 tokens and the model 13"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_could_not_be_read_again_is_not_saved(run, options, message):
    with pytest.raises(ValueError, match=message):
        save_checkpoint(run, small_gpt(), **{"step": 9} | options)
    assert load_checkpoint(run)[2]["step"] == 3 and ".writing" not in os.listdir(run)


def test_weights_beyond_the_range_of_a_small_type_are_not_saved(run):
    model = small_gpt()
    model.embedding.weight.data[0, 0] = 1e6  # float16 ends at 65,504
    with pytest.raises(ValueError, match="embedding.weight holds numbers that are not finite in "
                                         "torch.float16"):
        save_checkpoint(run, model, dtype=torch.float16)
    save_checkpoint(run, model, dtype=torch.bfloat16)
    assert load_checkpoint(run)[0].embedding.weight[0, 0].item() == pytest.approx(1e6, rel=1e-2)


def test_a_model_of_another_program_is_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="exists and is no checkpoint"):
        save_checkpoint(tmp_path, small_gpt())
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_folder_holds_a_checkpoint_if_its_config_says_so(run, tmp_path):
    assert has_checkpoint(run) and not has_checkpoint(tmp_path)
    (run / "model.safetensors").unlink()
    assert has_checkpoint(run)  # a damaged one
    change(run / "config.json", format="other")
    assert not has_checkpoint(run)


# ---- what is read


@pytest.mark.parametrize("key, value", [
    ("n_layer", 20_000), ("n_layer", 10**12), ("n_layer", 1), ("n_layer", 0), ("n_layer", "2"),
    ("n_layer", 2.0), ("vocab_size", 10**12), ("vocab_size", 10**30), ("vocab_size", 12),
    ("vocab_size", True), ("context_length", 10**12), ("context_length", -1), ("n_embd", 10**9),
    ("n_embd", 2**62), ("n_head", 3), ("n_head", 10**12), ("n_kv_head", 1), ("n_kv_head", 0),
    ("mlp_hidden", 10**15), ("mlp_hidden", 63), ("norm_eps", "abc"), ("norm_eps", None),
    ("norm_eps", 0), ("norm_eps", -1e-5), ("norm_eps", 10**400), ("norm_eps", True),
    ("bias", "false"), ("bias", 0), ("bias", None), ("qk_norm", "true"), ("tie_weights", 1),
    ("zero_init", []), ("dropout", 2), ("dropout", -0.1), ("dropout", "0.1"), ("dropout", False),
    ("rope_base", 0), ("rope_base", -1), ("rope_base", "1e4"), ("rope_base", 1e300),
    ("position", "alibi"), ("position", ["rope"]), ("norm", None), ("activation", "relu"),
    ("position", "learned"), ("activation", "swiglu"), ("bias", True),
    ("tie_weights", True),
], ids=str)
def test_a_wrong_number_in_the_configuration_is_refused_at_once(run, key, value):
    change(run / "config.json", "model", **{key: value})
    # The file named is the configuration, or that of the weights which it does not fit.
    with limits(), pytest.raises(ValueError, match=r"run/(config\.json|model\.safetensors): ") as e:
        load_checkpoint(run)
    fits_alone = {"n_layer", "vocab_size", "n_embd", "n_kv_head", "mlp_hidden", "position",
                  "activation", "bias", "tie_weights"}
    assert key in str(e.value) or ("model.safetensors" in str(e.value) and key in fits_alone)


@pytest.mark.parametrize("key, value", [("norm_eps", float("nan")), ("dropout", float("inf"))])
def test_what_is_no_number_is_refused(run, key, value):
    change(run / "config.json", "model", **{key: value})
    with pytest.raises(ValueError, match=r"config\.json: .*not a finite number"):
        load_checkpoint(run)
    with pytest.raises(ValueError, match=f"{key} is {value}; expected a number from"):
        GPTConfig(13, **{key: value})


@pytest.mark.parametrize("config", [MODERN, GPT2], ids=["rope", "learned"])
def test_a_long_context_needs_weights_that_back_it(tmp_path, config):
    save_checkpoint(tmp_path, small_gpt(config))
    for length in (10**12, 600_000):
        change(tmp_path / "config.json", "model", context_length=length)
        with limits(), pytest.raises(ValueError, match=r"context_length|position_embedding.weight"):
            load_checkpoint(tmp_path)
    too_long = dataclasses.replace(MODERN, context_length=10**6)
    with pytest.raises(ValueError, match="context_length is 1,000,000; expected at most 524,288"):
        save_checkpoint(tmp_path, small_gpt(too_long))  # what was saved could be loaded


@pytest.mark.parametrize("field", dataclasses.fields(GPTConfig), ids=lambda field: field.name)
def test_every_field_must_be_there_since_a_default_may_be_another_model(run, field):
    values = json.loads((run / "config.json").read_text())
    del values["model"][field.name]
    (run / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"config\.json: model\.{field.name} is missing"):
        load_checkpoint(run)


@pytest.mark.parametrize("key", ["format", "format_version", "architecture", "model"])
def test_every_key_of_the_configuration_is_needed(run, key):
    values = json.loads((run / "config.json").read_text())
    del values[key]
    (run / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"config\.json: {key} is (missing|None)"):
        load_checkpoint(run)


@pytest.mark.parametrize("changes, message", [
    ({"step": -5}, "step is -5; expected a whole number of at least 0"),
    ({"step": True}, "step is True"), ({"step": 2.0}, "step is 2.0"), ({"step": None}, "step is"),
    ({"step": 10**30}, "step is 1000.*at most"), ({"metadata": []}, r"metadata is \[\]; expected"),
    ({"metadata": {"step": 1}}, "metadata.step would hide"), ({"optimizer": 3}, "optimizer is 3"),
    ({"epoch": 3}, "epoch is 3; expected no key that this reader does not know"),
])
def test_a_wrong_training_file_is_refused(run, changes, message):
    change(run / "training.json", **changes)
    with pytest.raises(ValueError, match=rf"training\.json: {message}"):
        load_checkpoint(run)


def test_weights_of_another_type_or_not_finite_are_refused(run):
    file = run / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {"output.weight": weights["output.weight"].to(torch.int32)}, file)
    with pytest.raises(ValueError, match=r"model\.safetensors: output.weight has the type I32"):
        load_checkpoint(run)
    weights["output.weight"][0, 0] = float("inf")
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"model\.safetensors: output.weight holds .* not finite"):
        load_checkpoint(run)


def test_the_pointer_of_git_lfs_is_called_by_its_name(run):
    (run / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 548105171\n")
    with pytest.raises(ValueError, match=r"model\.safetensors: .*pointer of Git LFS.*git lfs pull"):
        load_checkpoint(run)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(run):
    ByteTokenizer().save(run / "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer\.json: the tokenizer has 256 tokens and the"):
        load_checkpoint(run)


def test_what_else_lies_in_the_folder_is_not_read(run):
    (run / "adapter.json").write_text("{broken")
    (run / "notes").mkdir()
    assert load_checkpoint(run)[2]["step"] == 3


def test_a_reader_gets_one_whole_checkpoint_while_a_run_saves_the_next(run, monkeypatch):
    read, model = checkpoint.read_tensors, small_gpt()
    model.output.weight.data.fill_(7)

    def slow(file):
        monkeypatch.setattr(checkpoint, "read_tensors", read)
        save_checkpoint(run, model, step=4)
        return read(run / "model.safetensors")

    monkeypatch.setattr(checkpoint, "read_tensors", slow)
    loaded, tokenizer, metadata = load_checkpoint(run)
    assert metadata["step"] == 4 and tokenizer is None
    assert torch.equal(loaded.output.weight, model.output.weight)


def test_a_file_that_goes_away_while_it_is_read_is_an_error_not_an_endless_loop(run, monkeypatch):
    def gone(file):
        shutil.rmtree(run)
        raise FileNotFoundError(file)

    monkeypatch.setattr(checkpoint, "read_header", gone)
    with pytest.raises(ValueError, match="there is no checkpoint"):
        load_checkpoint(run)
