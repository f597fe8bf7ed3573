"""InferenceModel: the GPT's own function, faster; with rounded weights, close to it."""

import copy
import gc
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gptlib.model.cache import KVCache
from gptlib.model.config import GPTConfig
from gptlib.model.encoder_decoder import Decoder
from gptlib.model.gpt import GPT
from gptlib.writing.generation import generate
from gptlib.writing.inference import InferenceModel

CONFIGS = {
    "gpt2": GPTConfig(50, 24, n_layer=2, n_head=4, n_embd=32),
    "modern": GPTConfig.modern(50, 24, n_layer=2, n_head=4, n_embd=32),
    "llama": GPTConfig(50, 24, n_layer=2, n_head=4, n_kv_head=2, n_embd=32, mlp_hidden=64,
                       position="rope", norm="rmsnorm", activation="swiglu", bias=False),
    "large": GPTConfig(50, 24, n_layer=1, n_head=4, n_embd=192),  # its MLP is turned round
    "wide head": GPTConfig.modern(20, 24, n_layer=1, n_head=2, n_embd=32, n_kv_head=1),
}


def random_gpt(config: GPTConfig) -> GPT:
    """Weights far from the start, so that no projection is zero and no bias is."""
    model = GPT(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model


@pytest.fixture(params=CONFIGS, ids=str)
def model(request):
    return random_gpt(CONFIGS[request.param])


class CountOperations(TorchDispatchMode):
    """Counts what PyTorch starts."""

    number = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        self.number += 1
        return operation(*arguments, **(options or {}))


def some_ids(model: GPT, B: int = 3, T: int = 17) -> torch.Tensor:
    return torch.randint(model.config.vocab_size, (B, T))


def test_its_logits_are_those_of_the_model(model):
    ids = some_ids(model)
    torch.testing.assert_close(InferenceModel(model)(ids), model(ids), rtol=0, atol=2e-5)


@pytest.mark.parametrize("chunks", [(17,), (1,) * 17, (5, 1, 1, 7, 3)], ids=str)
def test_with_a_cache_every_chunking_gives_the_logits_of_the_model(model, chunks):
    ids, fast = some_ids(model), InferenceModel(model)
    cache = KVCache(model.config, batch_size=3)
    parts = [fast(part, cache=cache) for part in ids.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), rtol=0, atol=2e-5)


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_behind_filling_get_the_logits_of_the_model(model, rows):
    ids, padding = some_ids(model, B=rows), torch.tensor([4, 0, 16])[:rows]
    fast, cache = InferenceModel(model), KVCache(model.config, batch_size=rows)
    parts = [fast(part, cache=cache, padding=padding) for part in ids.split((10, 1, 1, 5), dim=1)]
    seen = torch.arange(17) >= padding[:, None]
    expected = model(ids, padding=padding)
    torch.testing.assert_close(torch.cat(parts, dim=1)[seen], expected[seen], rtol=0, atol=2e-5)
    torch.testing.assert_close(fast(ids, padding=padding)[seen], expected[seen], rtol=0, atol=2e-5)


@pytest.mark.parametrize("context", [1, 9])
def test_one_token_of_one_sequence_is_read_by_numpy_with_the_same_result(model, context):
    ids, fast, cache = some_ids(model, B=1, T=20), InferenceModel(model), KVCache(model.config)
    fast(ids[:, :context], cache=cache)
    for t in range(context, 20):
        with CountOperations() as count:
            logits = fast(ids[:, t:t + 1], cache=cache)
        assert count.number <= 10  # in PyTorch: it only hands over the memory
        torch.testing.assert_close(logits[0, 0], model(ids)[0, t], rtol=0, atol=2e-5)
    assert cache.length == 20


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CONFIGS)
def test_numpy_bears_activations_as_large_as_those_of_pretrained_models(name):
    model = random_gpt(CONFIGS[name])
    for block in model.blocks:
        block.feed_forward.up.weight.data *= 100  # exp() overflows in the activation
    ids, fast, cache = some_ids(model, B=1), InferenceModel(model), KVCache(model.config)
    logits = torch.cat([fast(id[None, None], cache=cache) for id in ids[0]], dim=1)
    torch.testing.assert_close(logits, model(ids), rtol=1e-4, atol=1e-4 * logits.abs().max().item())


@pytest.mark.parametrize("id", [-1, 50])
def test_numpy_does_not_take_ids_out_of_range_for_places_from_the_end(id):
    model = random_gpt(CONFIGS["gpt2"])
    fast, cache = InferenceModel(model), KVCache(model.config)
    with pytest.raises(ValueError, match=f"token ids lie between {id} and {id}"):
        fast(torch.tensor([[id]]), cache=cache)
    assert cache.length == 0


def test_it_writes_what_the_model_writes(model):
    fast = InferenceModel(model)
    for options in ({"temperature": 0}, {"temperature": 0.8, "top_k": 10}):
        written = [generate(m, some_ids(model)[:, :3] * 0 + 1, max_new_tokens=40,
                            generator=torch.Generator().manual_seed(1), **options)
                   for m in (model, fast)]
        assert torch.equal(*written)


@pytest.mark.parametrize("weights, most", [("bfloat16", 1e-5), ("int8", 1e-5), ("int4", 1e-3)])
def test_rounded_weights_change_the_probabilities_a_little(model, weights, most):
    ids = some_ids(model)
    exact = model(ids).log_softmax(-1)
    rounded = InferenceModel(model, weights)(ids).log_softmax(-1)
    assert not torch.equal(exact, rounded)
    divergence = (exact.exp() * (exact - rounded)).sum(-1)
    assert divergence.mean() < most  # nats; bfloat16 without its biases has 3e-3


def test_int8_keeps_each_row_to_half_a_step_of_its_own_scale():
    model = random_gpt(CONFIGS["modern"])
    linear = model.blocks[0].feed_forward.up
    linear.weight.data[3] *= 100  # a row that would spoil a scale shared by all
    product = InferenceModel(model, "int8").layers[0].up.rows
    weight = linear.weight
    error = (product(torch.eye(weight.shape[1])).T - weight).abs()  # identity: the weights back
    step = weight.abs().amax(1, keepdim=True) / 127
    assert (error <= 0.5 * step + 0.006 * weight.abs() + 1e-6).all()  # and bfloat16's rounding


def test_int4_gives_back_weights_that_were_stored_in_groups_of_sixteen_levels():
    """As those of a Q4_1 file are: only the rounding of scale and offset to bfloat16 remains."""
    model = random_gpt(CONFIGS["llama"])
    linear = model.blocks[0].attention.output
    scale, least = torch.rand(32, 1), torch.randn(32, 1)
    levels = torch.stack([torch.randperm(32) % 16 for _ in range(32)])  # all 16 in each group
    linear.weight.data = least + scale * levels
    product = InferenceModel(model, "int4").layers[0].output.rows
    error = (product(torch.eye(32)).T - linear.weight).abs()
    assert (error < 0.05 * scale + 0.004 * linear.weight.abs()).all()


def test_int4_refuses_widths_that_it_cannot_group():
    with pytest.raises(ValueError, match="120 by 40; int4 needs multiples of 32"):
        InferenceModel(random_gpt(GPTConfig.modern(50, 24, n_layer=1, n_head=2, n_embd=40,
                                                   mlp_hidden=48)), "int4")


def test_a_row_of_zeros_stays_zero_in_int8():
    model = random_gpt(CONFIGS["modern"])
    model.blocks[0].feed_forward.up.weight.data[0] = 0
    rows = InferenceModel(model, "int8").layers[0].up.rows(torch.ones(1, 32))
    assert rows[0, 0] == 0 and rows.isfinite().all()


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
def test_no_gradient_flows_and_the_model_is_not_touched(model, weights):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = InferenceModel(model, weights)(some_ids(model))
    assert not logits.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.is_contiguous() for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
def test_what_happens_to_the_model_later_is_not_seen(model, weights, dtype):
    """Whoever trains on while an InferenceModel writes must not get half of both."""
    model.to(dtype)
    ids, fast = some_ids(model, B=1), InferenceModel(model, weights)

    def logits():
        cache = KVCache(model.config)
        parts = fast(ids), fast(ids[:, :9], cache=cache), fast(ids[:, 9:10], cache=cache)
        return torch.cat(parts, dim=1)

    before, first = logits(), model(ids)
    first.float().logsumexp(-1).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    for buffer in model.buffers():
        buffer.zero_()
    moved = (model(ids) - first).abs().max()
    assert moved > 0.01 and torch.equal(logits(), before)


def test_a_matrix_that_is_contiguous_either_way_round_is_copied_too():
    model = random_gpt(GPTConfig(5, 24, n_layer=1, n_head=1, n_embd=1))  # all are (n, 1) or (1, n)
    ids, fast = some_ids(model), InferenceModel(model)
    before = fast(ids)
    for parameter in model.parameters():
        parameter.data += 1
    assert torch.equal(fast(ids), before)


@pytest.mark.parametrize("weights, most", [("float32", 2e-5), ("bfloat16", 0.05), ("int8", 0.05),
                                           ("int4", 0.4)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64],
                         ids=str)
@pytest.mark.parametrize("name", ["gpt2", "modern", "llama"])
def test_a_model_of_every_type_writes_with_every_kind_of_weights(name, dtype, weights, most):
    model = random_gpt(CONFIGS[name]).to(dtype)
    fast, ids = InferenceModel(model, weights), some_ids(model)
    exact = copy.deepcopy(model).double()(ids)
    assert fast(ids).dtype == torch.float32
    assert (fast(ids) - exact).abs().max() < most * exact.abs().max()
    for prompts in (ids[:1, :3], ids[:, :3]):  # one is read by NumPy where it can be
        written = [generate(fast, prompts, max_new_tokens=30, temperature=0, use_cache=use_cache)
                   for use_cache in (True, False)]
        assert written[0].shape == (len(prompts), 33)
        alike = (written[0] == written[1]).double().mean()
        assert alike == 1 if weights == "float32" else alike > 0.6  # rounding may turn a tie


def test_a_model_that_computes_something_else_is_refused_not_taken_for_a_gpt():
    class Shifted(GPT):
        def embed(self, ids, start=0):
            return super().embed(ids, start) + 1

    for kind in (Shifted, Decoder):
        with pytest.raises(ValueError, match=f"got a {kind.__name__}; expected a GPT itself"):
            InferenceModel(kind(CONFIGS["gpt2"]))


def test_it_does_not_hold_on_to_the_model(model):
    """Otherwise int8 would add to the memory of the float32 weights instead of replacing it."""
    copy = GPT(model.config)
    fast, gone = InferenceModel(copy, "int8"), weakref.ref(copy)
    del copy
    gc.collect()
    assert gone() is None and fast(some_ids(model)).isfinite().all()


def test_wrong_input_is_named_as_by_the_model(model):
    fast = InferenceModel(model)
    with pytest.raises(ValueError, match="25 tokens; the model's context_length is 24"):
        fast(some_ids(model, T=25))
    with pytest.raises(ValueError, match="expected 0 to .*does the tokenizer belong"):
        fast(torch.tensor([[model.config.vocab_size]]))
    with pytest.raises(ValueError, match=r"single sequence needs ids\[None\]"):
        fast(torch.tensor([1, 2]))


def test_an_unknown_kind_of_weights_is_refused():
    with pytest.raises(ValueError, match="weights is 'int2'; expected one of float32"):
        InferenceModel(random_gpt(CONFIGS["gpt2"]), "int2")
