"""The settings of a run: each has a range, stored ones are complete, and what cannot work is told
before anything is written."""

import dataclasses
import json
import math

import pytest
import torch

from gptlib.formats.checkpoint import load_checkpoint, model_path
from gptlib.model.gpt import GPT
from gptlib.training import run_config
from gptlib.training.loop import next_token_loss
from gptlib.training.run_config import RunConfig

NAMES = [field.name for field in dataclasses.fields(RunConfig)]
GOOD = RunConfig(corpus=("stories",))
WHOLE = [field.name for field in dataclasses.fields(RunConfig) if field.type is int]
BROKEN = [field.name for field in dataclasses.fields(RunConfig) if field.type is float]
CHOSEN = [field.name for field in dataclasses.fields(RunConfig) if field.type is str]


def test_every_field_is_of_a_kind_that_is_tested_here():
    assert {*WHOLE, *BROKEN, *CHOSEN, "corpus"} == set(NAMES)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [-1, 10**30, 2.5, math.nan, "4", True, None])
def test_a_number_that_must_be_whole_is_refused_by_name_outside_its_range(name, value):
    with pytest.raises(ValueError, match=rf"{name} is .*; expected a whole number from \d"):
        dataclasses.replace(GOOD, **{name: value})


@pytest.mark.parametrize("name", sorted(set(WHOLE) - {"warmup_steps", "seed"}))
def test_zero_is_refused_where_something_is_counted(name):
    with pytest.raises(ValueError, match=f"{name} is 0; expected"):
        dataclasses.replace(GOOD, **{name: 0})


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf, "0.1", None, True, 10**400])
def test_a_number_that_is_negative_or_not_finite_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; expected a number from"):
        dataclasses.replace(GOOD, **{name: value})


@pytest.mark.parametrize("changes, message", [
    ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ({"muon_learning_rate": 3}, "muon_learning_rate is 3"),
    ({"dropout": 1.0}, "dropout is 1.0"), ({"decay_fraction": 1.5}, "decay_fraction is 1.5"),
    ({"weight_decay": 60.0}, "weight_decay is 60.0 with a learning rate of 0.02.*signs"),
    ({"n_embd": 30}, "n_embd is 30 and n_head is 4"),
    ({"n_head": 128}, "head_dim is 1; rotary"),
    ({"corpus": "stories"}, "corpus is 'stories'; expected a tuple"),
    ({"corpus": ("stories", "")}, "corpus is ''"), ({"corpus": (3,)}, "corpus is 3")])
def test_what_no_model_or_optimizer_can_use_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GOOD, **changes)


def test_the_ends_of_the_ranges_are_allowed():
    dataclasses.replace(GOOD, seed=2**63 - 1, warmup_steps=0, weight_decay=0.0, dropout=0.0,
                        decay_fraction=0.0, learning_rate=1, batch_size=1, context_length=1,
                        vocab_size=257, max_steps=1)
    dataclasses.replace(GOOD, optimizer="adamw", weight_decay=60.0, learning_rate=0.01)


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("value", ["", "other", 3, None])
def test_another_choice_is_refused_with_those_there_are(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; expected one of .*, "):
        dataclasses.replace(GOOD, **{name: value})


def stored(**changes):
    values = json.loads(json.dumps(dataclasses.asdict(GOOD))) | changes
    return {name: value for name, value in values.items() if value != "left out"}


def test_settings_survive_json():
    changed = dataclasses.replace(GOOD, corpus=("a", "b"), n_layer=7, dropout=0.25)
    assert RunConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(changed)))) == changed


@pytest.mark.parametrize("values, message", [
    (stored(n_layers=4), "unknown key 'n_layers' for RunConfig; did you mean 'n_layer'"),
    (stored(zzz=1), "unknown key 'zzz'"), (stored(n_layer="4"), "n_layer is '4'"),
    (stored(n_layer=4.0), "n_layer is 4.0"), (stored(dropout="0"), "dropout is '0'"),
    (stored(block=None), "block is None"), (stored(corpus="stories"), "corpus is 'stories'"),
    (stored(corpus={"a": 1}), "corpus is {'a': 1}"), (stored(corpus=[1]), "corpus is 1"),
    (stored(corpus=[]), "no corpus"), (stored(corpus="left out"), "corpus is None"),
    (stored(n_layer="left out", seed="left out"), "lack n_layer, seed"),
    (None, "settings of the run are None"), ([1], "settings of the run are"), ({}, "corpus")])
def test_stored_settings_that_are_unknown_missing_or_of_another_kind_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.from_dict(values)


CPU = torch.device("cpu")


@pytest.mark.parametrize("changes, arguments, message", [
    ({"batch_size": 16}, (CPU, 3, False), "batch_size is 16 for 3 processes"),
    ({"precision": "float16"}, (CPU, 1, False), "float16.*on cpu"),
    ({"optimizer": "adamw"}, (CPU, 1, True), "shard is True in a single process"),
    ({}, (CPU, 2, True), "--optimizer adamw"),
    ({"n_layer": 1000, "n_embd": 65536}, (CPU, 1, False), "parameters.*GB.*smaller n_embd"),
    ({"batch_size": 2**20, "context_length": 2**20}, (CPU, 1, False), "1048576 x 1048576 tokens")])
def test_what_this_machine_cannot_do_is_refused(changes, arguments, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GOOD, **changes).require_machine(*arguments)


def test_the_memory_that_is_needed_is_held_against_the_device(monkeypatch):
    shape = GOOD.model_config(4096)
    monkeypatch.setattr(run_config, "memory", lambda device: 16 * shape.num_parameters())
    with pytest.raises(ValueError, match=f"{shape.num_parameters():,} parameters on batches of 16"):
        GOOD.require_machine(CPU, 1, False)
    monkeypatch.setattr(run_config, "memory", lambda device: None)  # a system that does not tell
    GOOD.require_machine(CPU, 1, False)


def test_the_memory_estimate_is_below_what_a_step_really_keeps_but_not_far(monkeypatch):
    """Above it, it would refuse what works."""
    config = dataclasses.replace(GOOD, vocab_size=300, context_length=64, n_embd=64, batch_size=8)
    model, kept = GPT(config.model_config(300)), {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.zeros(8, 64, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = next_token_loss(model(ids), ids)
    assert loss.isfinite()
    really = sum(kept.values()) + 12 * model.config.num_parameters()  # gradients, two averages
    monkeypatch.setattr(run_config, "memory", lambda device: really)
    config.require_machine(CPU, 1, False)
    monkeypatch.setattr(run_config, "memory", lambda device: 0.3 * really)
    with pytest.raises(ValueError, match="needs more than"):
        config.require_machine(CPU, 1, False)


def test_the_stored_settings_of_the_book_s_own_model_are_read():
    settings = RunConfig.from_dict(load_checkpoint(model_path("stories"))[2]["run"])
    assert settings.vocab_size == 2048 and settings.max_steps == 5000
