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


def filled(length, B=3):
    cache = KVCache(CONFIG, batch_size=B)
    for layer in range(2):
        cache.append(layer, *pair(length, start=10 * layer, B=B))
    cache.advance(length)
    return cache


def held(cache, layer, row=0):
    """Keys and values of one row, of the first head and feature."""
    return [tensors[layer][row, 0, :cache.length, 0].tolist()
            for tensors in (cache._keys, cache._values)]


@pytest.mark.parametrize("by", [-3, -1, 0, 2])
def test_a_shift_moves_all_layers_and_changes_the_length(by):
    cache = filled(4)
    cache.shift(by)
    assert cache.length == 4 + by
    for layer in range(2):
        keys, values = held(cache, layer)
        expected = [10.0 * layer + i for i in range(4)][max(0, -by):]
        assert keys[max(0, by):] == expected and values[max(0, by):] == [-k for k in expected]


def test_a_shift_beyond_what_is_held_or_reserved_is_refused():
    for by in (-5, 3):
        with pytest.raises(ValueError, match=f"cannot shift by {by}"):
            filled(4).shift(by)


def test_an_inserted_row_ends_where_the_others_end_and_leaves_them_as_they_were():
    cache, other = filled(4), KVCache(CONFIG)
    for layer in range(2):
        other.append(layer, *pair(2, start=50 + 10 * layer, B=1))
    other.advance(2)
    cache.insert(1, other)
    for layer in range(2):
        start = 10.0 * layer
        assert held(cache, layer, 1)[0][2:] == [50 + start, 51 + start]
        assert held(cache, layer, 1)[1][2:] == [-50 - start, -51 - start]
        for row in (0, 2):
            assert held(cache, layer, row)[0] == [start, start + 1, start + 2, start + 3]


def test_only_one_row_that_is_no_longer_than_the_others_can_be_inserted():
    for other in (filled(5, B=1), filled(2)):
        with pytest.raises(ValueError, match="expected one row of at most 4"):
            filled(4).insert(0, other)


def test_rows_that_are_kept_stay_whole_and_in_the_order_asked_for():
    cache, other = filled(4), filled(3, B=1)
    cache.insert(2, other)
    before = held(cache, 1, 2)
    cache.keep([2, 0])
    assert cache.batch_size == 2 and cache.length == 4 and held(cache, 1, 0) == before
    cache.append(0, *pair(1, B=2))
    for rows in ([], [2], [-1]):
        with pytest.raises(ValueError, match="expected one or more"):
            cache.keep(rows)
