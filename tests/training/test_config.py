"""Configurations refuse what cannot work, and say why."""

import dataclasses
import json
import math

import pytest

from gptlib.model.config import GPTConfig
from gptlib.training.config import TrainConfig


def test_a_configuration_survives_json():
    for config in (GPTConfig(10), GPTConfig.modern(99, 32, n_kv_head=2), GPTConfig.gpt2("gpt2-xl")):
        assert GPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    training = TrainConfig(max_steps=7, schedule="cosine", grad_clip=None)
    assert TrainConfig.from_dict(json.loads(json.dumps(training.to_dict()))) == training


def test_a_configuration_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPTConfig(10).n_layer = 3


def test_unknown_keys_are_refused_by_name():
    with pytest.raises(ValueError, match="unknown key 'n_heads' for GPTConfig; did you mean"):
        GPTConfig.from_dict({"vocab_size": 10, "n_heads": 4})
    with pytest.raises(ValueError, match="unknown key 'zzz' for TrainConfig; known keys: max_step"):
        TrainConfig.from_dict({"zzz": 4})


@pytest.mark.parametrize("changes, message", [
    ({"n_embd": 30}, "n_embd is 30 and n_head is 4; n_embd must be a multiple"),
    ({"n_kv_head": 3}, "n_head is 4 and n_kv_head is 3; n_head must be a multiple"),
    ({"n_embd": 12, "position": "rope"}, "head_dim is 3; rotary"),
    ({"position": "alibi"}, "position is 'alibi'; expected one of learned, rope"),
    ({"norm": "batch"}, "norm is 'batch'"), ({"activation": "relu"}, "activation is 'relu'"),
    ({"n_layer": 0}, "n_layer is 0; expected a whole number, 1 or more"),
    ({"n_head": 2.0}, "n_head is 2.0"), ({"vocab_size": True}, "vocab_size is True"),
    ({"dropout": 1.0}, "dropout is 1.0; expected 0 <= dropout < 1")])
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**({"vocab_size": 10} | changes))


@pytest.mark.parametrize("changes, message", [
    ({"schedule": "step"}, "schedule is 'step'"), ({"precision": "int8"}, "precision is 'int8'"),
    ({"max_steps": 0}, "max_steps is 0"), ({"max_steps": 10**12}, "max_steps is 10000000000"),
    ({"warmup_steps": -1}, "warmup_steps is -1"), ({"accumulation": 0.5}, "accumulation is 0.5"),
    ({"grad_clip": 0.0}, "grad_clip is 0.0"), ({"grad_clip": math.nan}, "grad_clip is nan"),
    ({"grad_clip": math.inf}, "grad_clip is inf"), ({"grad_clip": "1"}, "grad_clip is '1'"),
    ({"final_fraction": 2}, "final_fraction is 2"), ({"final_fraction": "0"}, "final_fraction is"),
    ({"decay_fraction": math.nan}, "decay_fraction is nan"),
    ({"decay_fraction": None}, "decay_fraction is None"),
    ({"compile": "no"}, "compile is 'no'; expected True or False"), ({"shard": 1}, "shard is 1")])
def test_impossible_training_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_what_the_device_or_a_single_process_cannot_do_is_refused():
    with pytest.raises(ValueError, match="float16.*the model is on cpu"):
        TrainConfig(precision="float16").require_machine("cpu", 1)
    with pytest.raises(ValueError, match="shard is True in a single process"):
        TrainConfig(shard=True).require_machine("cpu", 1)
    TrainConfig(precision="float16").require_machine("cuda", 1)
    TrainConfig(shard=True).require_machine("cpu", 2)


def test_none_means_the_usual_choice():
    config = GPTConfig(10, n_head=8, n_embd=64)
    assert (config.kv_heads, config.hidden, config.head_dim) == (8, 256, 8)
    changed = dataclasses.replace(config, n_kv_head=2, mlp_hidden=100)
    assert (changed.kv_heads, changed.hidden) == (2, 100)


def test_gpt2_has_its_published_shape():
    config = GPTConfig.gpt2()
    assert (config.vocab_size, config.context_length, config.n_layer) == (50257, 1024, 12)
    with pytest.raises(ValueError, match="name is 'gpt4'"):
        GPTConfig.gpt2("gpt4")


def test_modern_is_todays_block_and_takes_changes():
    config = GPTConfig.modern(10, n_layer=3, qk_norm=False)
    assert (config.position, config.norm, config.activation) == ("rope", "rmsnorm", "relu2")
    assert not (config.bias or config.tie_weights or config.qk_norm)
    assert config.n_layer == 3 and config.zero_init
