"""The key-value cache alone; that cached equals uncached stands in test_model.py."""

import pytest
import torch

from gptlib.model.cache import KVCache
from gptlib.model.config import GPTConfig

CONFIG = GPTConfig(11, context_length=6, n_layer=2, n_head=4, n_embd=8, n_kv_head=2)


def pair(T, start=0, B=3):
    keys = torch.arange(start, start + T).float().view(1, 1, T, 1).expand(B, 2, T, 2)
    return keys, -keys


def test_appended_positions_come_back_in_order_behind_the_past():
    cache = KVCache(CONFIG, batch_size=3)
    for start, T in ((0, 3), (3, 1), (4, 2)):
        for layer in range(2):
            keys, values = cache.append(layer, *pair(T, start))
            assert keys.shape == values.shape == (3, 2, start + T, 2)
            assert keys[2, 1, :, 0].tolist() == list(range(start + T))
            assert torch.equal(values, -keys)
        cache.advance(T)
        assert cache.length == start + T
    assert cache.capacity == 6 and cache.batch_size == 3


def test_layers_are_kept_apart():
    cache = KVCache(CONFIG, batch_size=3)
    cache.append(0, *pair(2))
    keys, _ = cache.append(1, *pair(2, start=7))
    assert keys[0, 0, :, 0].tolist() == [7, 8]


def test_crop_forgets_the_end_and_the_next_append_overwrites_it():
    cache = KVCache(CONFIG, batch_size=3)
    cache.append(0, *pair(5))
    cache.advance(5)
    cache.crop(2)
    keys, _ = cache.append(0, *pair(1, start=9))
    assert keys[0, 0, :, 0].tolist() == [0, 1, 9]
    cache.reset()
    assert cache.length == 0


def test_errors_say_what_was_got_and_what_to_do():
    cache = KVCache(CONFIG, batch_size=3)
    cache.append(0, *pair(4))
    cache.advance(4)
    with pytest.raises(ValueError, match="holds 4 positions and got 3 more; its capacity is 6"):
        cache.append(0, *pair(3))
    with pytest.raises(ValueError, match="made for batch_size 3 and got 2 sequences"):
        cache.append(0, *pair(1, B=2))
    for length in (-1, 5):
        with pytest.raises(ValueError, match=f"cannot crop to {length}: the cache holds 4"):
            cache.crop(length)
    with pytest.raises(ValueError, match="batch_size is 0"):
        KVCache(CONFIG, batch_size=0)


def test_a_cache_made_in_inference_mode_can_be_written_outside_it():
    with torch.inference_mode():
        cache = KVCache(CONFIG, batch_size=3)
        cache.append(0, *pair(1))
    cache.append(0, *pair(1))


def test_type_and_no_gradient():
    cache = KVCache(CONFIG, batch_size=3, dtype=torch.bfloat16)
    keys, _ = cache.append(0, *(x.clone().requires_grad_() for x in pair(2)))
    assert keys.dtype == torch.bfloat16 and not keys.requires_grad


def test_repeated_rows_start_alike_and_are_independent_of_the_original():
    cache = KVCache(CONFIG)
    for layer in range(2):
        cache.append(layer, *pair(2, B=1))
    cache.advance(2)
    rows = cache.repeat(3)
    assert (rows.batch_size, rows.length, cache.batch_size) == (3, 2, 1)
    keys, values = rows.append(1, *pair(1, start=5))
    rows.advance(1)
    assert keys[2, 1, :, 0].tolist() == [0, 1, 5] and torch.equal(values, -keys)
    assert cache.length == 2 and cache.append(1, *pair(1, start=9, B=1))[0][0, 0, 2, 0] == 9
    assert rows.append(1, *pair(1, start=6))[0][0, 0, :, 0].tolist() == [0, 1, 5, 6]
    with pytest.raises(ValueError, match="expected one row"):
        rows.repeat(2)
    with pytest.raises(ValueError, match="a count of 1 or more"):
        cache.repeat(0)
