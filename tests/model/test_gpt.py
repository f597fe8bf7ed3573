"""GPT for every field of its configuration: sizes, causality, the cache, errors."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch

from gptlib.model.cache import KVCache
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT, Norm

SMALL = GPTConfig(23, context_length=10, n_layer=2, n_head=4, n_embd=16)
CONFIGS = {
    "gpt2": SMALL,
    "modern": GPTConfig.modern(23, 10, n_layer=2, n_head=4, n_embd=16),
    "llama": dataclasses.replace(SMALL, position="rope", norm="rmsnorm", activation="swiglu",
                                 bias=False, n_kv_head=2, mlp_hidden=24),
    "one shared head": dataclasses.replace(SMALL, n_kv_head=1, qk_norm=True, tie_weights=False),
    "one layer, one head": dataclasses.replace(SMALL, n_layer=1, n_head=1, activation="relu2"),
}


def random_gpt(config: GPTConfig, seed: int = 0) -> GPT:
    """Weights large enough that every part matters, also those that start at zero."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def chunkings(total: int):
    """Every way to cut `total` positions into consecutive pieces."""
    for cuts in itertools.product((False, True), repeat=total - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), total]
        yield [b - a for a, b in itertools.pairwise(edges)]


def test_parameters_are_as_many_as_the_configuration_says():
    choices = itertools.product(
        ("learned", "rope"), ("layernorm", "rmsnorm"), ("gelu", "relu2", "swiglu"), (None, 1, 2),
        (None, 20), (True, False), (True, False))
    names = ("position", "norm", "activation", "n_kv_head", "mlp_hidden", "bias", "tie_weights")
    for values in choices:
        config = dataclasses.replace(SMALL, **dict(zip(names, values)))
        assert GPT(config).num_parameters() == config.num_parameters(), config


@pytest.mark.parametrize("name, millions", [("gpt2", 124.4), ("gpt2-medium", 354.8),
                                            ("gpt2-large", 774.0), ("gpt2-xl", 1557.6)])
def test_published_shapes_have_the_published_number_of_parameters(name, millions):
    config = GPTConfig.gpt2(name)
    assert config.num_parameters() / 1e6 == pytest.approx(millions, abs=0.05)
    with torch.device("meta"):
        assert GPT(config).num_parameters() == config.num_parameters()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_have_one_shape_and_every_parameter_gets_a_gradient(name):
    model = random_gpt(CONFIGS[name]).train()
    logits = model(torch.randint(23, (3, 7)))
    assert logits.shape == (3, 7, 23) and logits.dtype == torch.float32
    logits.logsumexp(-1).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        used = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert used, parameter_name


@pytest.mark.parametrize("name", CONFIGS)
def test_changing_a_later_token_leaves_earlier_logits_unchanged(name):
    model = random_gpt(CONFIGS[name])
    ids = torch.randint(23, (2, 10))
    for position in range(10):
        changed = ids.clone()
        changed[:, position] = (ids[:, position] + 1) % 23
        before, after = model(ids), model(changed)
        torch.testing.assert_close(before[:, :position], after[:, :position], atol=0, rtol=0)
        assert (before[:, position:] - after[:, position:]).abs().amax((0, 2)).min() > 1e-4


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_cached_equals_uncached_for_every_chunking(name):
    model = random_gpt(CONFIGS[name])
    ids = torch.randint(23, (2, 7))
    expected = model(ids)
    cache = KVCache(model.config, batch_size=2)
    for sizes in chunkings(7):
        cache.reset()
        logits = torch.cat([model(piece, cache=cache) for piece in ids.split(sizes, 1)], 1)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        assert cache.length == 7


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_written_out_attention_equals_the_fused_kernel_with_and_without_cache(name):
    model, ids = random_gpt(CONFIGS[name]), torch.randint(23, (2, 9))
    expected = model(ids)
    for block in model.blocks:
        block.attention.fused = False
    torch.testing.assert_close(model(ids), expected, atol=1e-5, rtol=1e-5)
    cache = KVCache(model.config, batch_size=2)
    pieces = [model(piece, cache=cache) for piece in ids.split((4, 1, 4), 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_cropped_cache_goes_on_as_if_the_rest_had_never_been_read():
    model = random_gpt(CONFIGS["modern"])
    ids, other = torch.randint(23, (1, 9)), torch.randint(23, (1, 4))
    cache = KVCache(model.config)
    model(torch.cat((ids[:, :5], other), 1), cache=cache)
    cache.crop(5)
    torch.testing.assert_close(model(ids[:, 5:], cache=cache), model(ids)[:, 5:],
                               atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_sequences_of_a_batch_do_not_see_each_other():
    for config in CONFIGS.values():
        model, ids = random_gpt(config), torch.randint(23, (3, 8))
        alone = torch.cat([model(row[None]) for row in ids])
        torch.testing.assert_close(model(ids), alone, atol=1e-5, rtol=1e-5)


def test_order_matters_by_position_alone():
    ids = torch.randint(23, (1, 6)).repeat(1, 1)
    for position in ("learned", "rope"):
        model = random_gpt(dataclasses.replace(SMALL, n_layer=1, position=position))
        swapped = ids[:, [1, 0, 2, 3, 4, 5]]
        assert (model(ids)[:, -1] - model(swapped)[:, -1]).abs().max() > 1e-4


def test_tied_weights_are_registered_once_and_used_twice():
    model = GPT(SMALL)
    assert not [name for name in model.state_dict() if name.startswith("output")]
    model.embedding.weight.data[5] *= 0
    assert (model(torch.tensor([[1, 2]]))[..., 5] == 0).all()


def test_rotary_tables_are_not_saved_and_follow_the_model():
    model = GPT(CONFIGS["modern"])
    assert not [name for name in model.state_dict() if "rotary" in name]
    assert model.to(torch.float64).rotation(0, 3)[0].dtype == torch.float64


def test_initial_deviations_are_gpt2s():
    torch.manual_seed(0)
    block = GPT(GPTConfig(500, 64, n_layer=8, n_head=4, n_embd=128)).blocks[3]
    assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.feed_forward.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for layer in (block.attention.output, block.feed_forward.down):
        assert layer.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
        assert (layer.bias == 0).all()


def test_an_untrained_model_hardly_knows_anything():
    torch.manual_seed(0)
    ids = torch.randint(23, (4, 10))
    for config in CONFIGS.values():
        log_probabilities = GPT(config)(ids).log_softmax(-1)
        assert log_probabilities.mean().item() == pytest.approx(-math.log(23), abs=0.2)


def test_zero_init_makes_every_block_pass_its_input_through_at_the_start():
    model = GPT(CONFIGS["modern"])
    x = torch.randn(2, 5, 16)
    assert torch.equal(model.blocks[0](x, model.rotation(0, 5)), x)


def test_dropout_acts_in_training_only():
    model = GPT(dataclasses.replace(SMALL, dropout=0.5))
    ids = torch.randint(23, (2, 6))
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_norms_are_torchs():
    x = torch.randn(2, 3, 16)
    torch.testing.assert_close(Norm(SMALL)(x), torch.nn.LayerNorm(16)(x))
    rms = Norm(dataclasses.replace(SMALL, norm="rmsnorm"))
    torch.testing.assert_close(rms(x), torch.nn.RMSNorm(16, eps=1e-5)(x))


@pytest.mark.parametrize("ids, message", [
    (torch.zeros(3, dtype=torch.int64), r"shape \(3,\).*expected at least one token, \(B, T\)"),
    (torch.zeros(1, 3), "torch.float32.*int64"),
    (torch.zeros(1, 3, dtype=torch.int32), "torch.int32.*int64"),
    (torch.zeros(1, 0, dtype=torch.int64), "at least one token"),
    (torch.tensor([[4, 23]]), "between 4 and 23; expected 0 to 22"),
    (torch.tensor([[-1, 3]]), "between -1 and 3; expected 0 to 22"),
    (torch.zeros(1, 11, dtype=torch.int64), "got 11 tokens; the model's context_length is 10")])
def test_wrong_ids_are_refused_with_a_message(ids, message):
    with pytest.raises(ValueError, match=message):
        GPT(SMALL)(ids)


def test_a_full_cache_is_refused_before_anything_is_written():
    model, cache = GPT(SMALL), KVCache(SMALL)
    model(torch.zeros(1, 8, dtype=torch.int64), cache=cache)
    with pytest.raises(ValueError, match="got 3 tokens after 8 in the cache"):
        model(torch.zeros(1, 3, dtype=torch.int64), cache=cache)
    assert cache.length == 8
    with pytest.raises(ValueError, match="batch_size"):
        model(torch.zeros(2, 1, dtype=torch.int64), cache=cache)


def test_bfloat16_and_float64_models_run():
    for dtype in (torch.bfloat16, torch.float64):
        for config in CONFIGS.values():
            model = GPT(config).to(dtype).eval()
            cache = KVCache(config, dtype=dtype)
            assert model(torch.tensor([[1, 2, 3]]), cache=cache).dtype == dtype
            assert model(torch.tensor([[4]]), cache=cache).shape == (1, 1, 23)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_float16_model_with_large_vectors_predicts_what_its_float64_copy_predicts(name):
    model = random_gpt(CONFIGS[name])
    model.embedding.weight.data *= 3000  # their squares are beyond float16
    if model.config.tie_weights:  # the logits would be, too: the last norm takes it back
        model.final_norm.weight.data /= 3000
    half, ids = copy.deepcopy(model).half(), torch.randint(23, (2, 10))
    expected = copy.deepcopy(half).double()(ids).softmax(-1)
    torch.testing.assert_close(half(ids).double().softmax(-1), expected, atol=0.02, rtol=0)
    assert expected.std(-1).mean() > 0.02  # far from uniform, as zeros everywhere would be


@pytest.mark.parametrize("name", CONFIGS)
def test_every_part_is_called_as_a_module_so_that_hooks_see_it(name):
    model, seen = random_gpt(CONFIGS[name]), set()
    for part, module in model.named_modules():
        module.register_forward_hook(lambda *_, part=part: seen.add(part))
    model(torch.tensor([[1, 2, 3]]))
    containers = {"blocks", "position_embedding", "output"}  # sliced, or read as a table
    assert set(dict(model.named_modules())) - seen <= containers


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_row_behind_filling_gets_the_logits_that_it_gets_alone(name, fused):
    model = random_gpt(CONFIGS[name])
    for block in model.blocks:
        block.attention.fused = fused
    torch.manual_seed(1)
    ids, padding = torch.randint(23, (3, 10)), torch.tensor([0, 3, 9])
    with torch.no_grad():
        together = model(ids, padding=padding)
        changed = model(torch.where(torch.arange(10) < padding[:, None], 5, ids), padding=padding)
        for row, n in enumerate(padding.tolist()):
            alone = model(ids[row:row + 1, n:])[0]
            torch.testing.assert_close(together[row, n:], alone, atol=1e-5, rtol=1e-5)
            assert torch.equal(together[row, n:], changed[row, n:])  # whatever the filling is
    assert together.isfinite().all()


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_behind_filling_can_be_read_in_pieces_and_move_in_the_cache(name):
    model = random_gpt(CONFIGS[name])
    torch.manual_seed(1)
    ids, padding = torch.randint(23, (3, 8)), torch.tensor([2, 3, 6])
    with torch.no_grad():
        whole, cache = model(ids, padding=padding), KVCache(model.config, 3)
        model(ids[:, :4], cache=cache, padding=padding)
        piece = model(ids[:, 4:7], cache=cache, padding=padding)
        cache.shift(-2)
        last = model(ids[:, 7:], cache=cache, padding=padding - 2)
    torch.testing.assert_close(piece[:2], whole[:2, 4:7], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(piece[2, 2:], whole[2, 6:7], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, whole[:, 7:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_without_filling_the_logits_are_what_they_were_bit_for_bit(name):
    model = random_gpt(CONFIGS[name])
    ids = torch.arange(10)[None]
    with torch.no_grad():
        expected = model(ids)
        torch.testing.assert_close(model(ids, padding=torch.tensor([0])), expected, atol=1e-5,
                                   rtol=1e-5)
        x, rotation = model.embed(ids), model.rotation(0, 10)
        for layer, block in enumerate(model.blocks):
            x = block(x, rotation, None, layer)
        assert torch.equal(model.unembed(x), expected)
