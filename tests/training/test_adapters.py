"""Adapters come back beside their base, and beside no other model."""

import json

import pytest
import torch
from torch import nn

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.training import adapters
from gptlib.training.adapters import (
    BASE,
    has_adapter,
    load_adapted,
    load_adapter,
    save_adapter,
    weights_hash,
)
from gptlib.training.lora import add_lora, lora_layers, merge

IDS = torch.arange(12)[None]


def small(seed=1):
    torch.manual_seed(seed)
    return GPT(GPTConfig(31, 12, n_layer=2, n_head=2, n_embd=16))


@pytest.fixture
def saved(tmp_path):
    model = small()
    add_lora(model, rank=3)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.B, std=0.2)
    save_adapter(tmp_path / "adapter", model, "a small one", {"steps": 5}, dtype=torch.float32)
    return tmp_path / "adapter", model(IDS)


def test_it_comes_back_and_says_what_it_is(saved):
    folder, logits = saved
    model = small()
    assert load_adapter(folder, model) == {"steps": 5, "step": 0}
    assert torch.equal(model(IDS), logits)
    content = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    assert content["base"] == "a small one" and content["rank"] == 3 and content["alpha"] == 6


def test_the_base_is_not_stored_and_half_precision_halves_the_file(saved, tmp_path):
    model = small()
    load_adapter(saved[0], model)
    save_adapter(tmp_path / "half", model, "a small one")
    sizes = [(folder / "adapter.safetensors").stat().st_size
             for folder in (saved[0], tmp_path / "half")]
    assert sizes[1] < 0.7 * sizes[0] < 0.7 * 4 * sum(p.numel() for p in small().parameters())


def test_the_hash_is_that_of_the_base_with_or_without_lora():
    model = small()
    before = weights_hash(model)
    add_lora(model)
    assert weights_hash(model) == before != weights_hash(small(seed=2))


def test_another_base_is_refused_and_stays_as_it_was(saved):
    other = small(seed=2)
    with pytest.raises(ValueError, match="belongs to 'a small one'"):
        load_adapter(saved[0], other)
    assert not lora_layers(other)


def test_a_merged_model_cannot_be_saved_as_an_adapter(saved, tmp_path):
    model = small()
    load_adapter(saved[0], model)
    merge(model)
    with pytest.raises(ValueError, match="unmerge"):
        save_adapter(tmp_path / "merged", model, "a small one")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("key, value, message", [
    ("rank", 4, "shape"), ("rank", 0, "rank"), ("rank", "3", "rank"), ("alpha", "big", "alpha"),
    ("format", "peft", "format"), ("targets", ["qkv"], "it holds"), ("targets", [1], "targets"),
    ("secret", 1, "secret"), ("base_hash", "0" * 64, "belongs to"),
])
def test_a_changed_description_is_refused(saved, key, value, message):
    file = saved[0] / "adapter.json"
    content = json.loads(file.read_text(encoding="utf-8")) | {key: value}
    file.write_text(json.dumps(content), encoding="utf-8")
    model = small()
    with pytest.raises(ValueError, match=message):
        load_adapter(saved[0], model)
    assert not lora_layers(model)


def test_a_cut_file_is_refused(saved):
    file = saved[0] / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match="adapter.safetensors"):
        load_adapter(saved[0], small())


def test_an_adapted_model_is_a_plain_gpt_with_the_change_in_its_matrices(tmp_path, monkeypatch):
    model = small()
    add_lora(model, rank=3)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.B, std=0.2)
    save_adapter(tmp_path / "ours", model, BASE, {"of": "tales"}, dtype=torch.float32)
    monkeypatch.setattr(adapters, "load_gguf", lambda context_length: (small(), "its tokenizer"))
    adapted, tokenizer, about = load_adapted(tmp_path / "ours")
    assert type(adapted) is GPT and not lora_layers(adapted) and tokenizer == "its tokenizer"
    assert about == {"of": "tales", "step": 0} and has_adapter(tmp_path / "ours")
    torch.testing.assert_close(adapted(IDS), model(IDS), atol=1e-5, rtol=1e-4)
    save_adapter(tmp_path / "other", model, "another base")
    with pytest.raises(ValueError, match="its base is 'another base'; only SmolLM2"):
        load_adapted(tmp_path / "other")
    assert not has_adapter(tmp_path)
