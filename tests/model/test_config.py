"""A configuration checks the type and the range of each of its fields and names the wrong one."""

import dataclasses
import math

import pytest

from gptlib.model.config import GPTConfig

COUNTS = ("vocab_size", "context_length", "n_layer", "n_head", "n_embd", "n_kv_head", "mlp_hidden")
SWITCHES = ("qk_norm", "bias", "tie_weights", "zero_init")
NUMBERS = {"rope_base": (0, 0.5, -1, 1e31), "norm_eps": (0, -1e-5, 2), "dropout": (-0.1, 1, 2)}
CHOICES = ("position", "norm", "activation")


def test_every_field_is_checked_in_one_of_four_ways():
    names = [field.name for field in dataclasses.fields(GPTConfig)]
    assert sorted(names) == sorted((*COUNTS, *SWITCHES, *NUMBERS, *CHOICES))


@pytest.mark.parametrize("name, values", [
    *((name, (0, -1, 1.0, "4", True, [4], math.nan)) for name in COUNTS),
    *((name, (0, 1, "false", "True", None, [])) for name in SWITCHES),
    *((name, (*wrong, "0.1", None, True, [0.1], math.nan, math.inf, 10**400))
      for name, wrong in NUMBERS.items()),
    *((name, (None, "", "other", 1, ["rope"], True)) for name in CHOICES),
])
def test_a_wrong_value_is_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} is ") as error:
            GPTConfig(**{"vocab_size": 13} | {name: value})
        assert repr(value) in str(error.value) and "expected" in str(error.value)


def test_none_stands_for_a_width_that_follows_from_others_and_whole_numbers_are_numbers():
    config = GPTConfig(13, n_kv_head=None, mlp_hidden=None, dropout=0, rope_base=10_000, norm_eps=1)
    assert (config.kv_heads, config.hidden) == (config.n_head, 4 * config.n_embd)
    for name in ("vocab_size", "context_length", "n_layer", "n_head", "n_embd"):
        with pytest.raises(ValueError, match=f"^{name} is None"):
            GPTConfig(**{"vocab_size": 13} | {name: None})
