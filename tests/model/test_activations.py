"""Looking inside: what is recorded is what the model computed."""

import pytest
import torch

from gptlib.model.activations import attention_maps, record, residual_streams
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT

CONFIGS = [GPTConfig(23, 10, n_layer=3, n_head=4, n_embd=16, dropout=0.3),
           GPTConfig.modern(23, 10, n_layer=2, n_head=4, n_embd=16, n_kv_head=2, zero_init=False)]


@pytest.mark.parametrize("config", CONFIGS)
def test_attention_maps_are_the_weights_that_the_model_used(config):
    torch.manual_seed(0)
    model, ids = GPT(config).eval(), torch.randint(23, (2, 7))
    maps = attention_maps(model, ids)
    assert len(maps) == config.n_layer and maps[0].shape == (2, 4, 7, 7)
    names = ["blocks.1.norm1", "blocks.1.attention"]
    with record(model, names) as outputs:
        model(ids)
    attention = model.blocks[1].attention
    _, _, v = attention.project(outputs["blocks.1.norm1"], model.rotation(0, 7))
    mixed = maps[1] @ v.repeat_interleave(4 // config.kv_heads, dim=1)
    expected = attention.output(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(outputs["blocks.1.attention"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_residual_stream_ends_in_the_logits(config):
    torch.manual_seed(0)
    model, ids = GPT(config), torch.randint(23, (2, 7))
    streams = residual_streams(model, ids)
    assert len(streams) == config.n_layer + 1
    assert model.training  # the mode is restored
    model.eval()
    torch.testing.assert_close(streams[0], model.embed(ids))
    torch.testing.assert_close(model.unembed(streams[-1]), model(ids))
    rotation = model.rotation(0, 7)
    torch.testing.assert_close(model.blocks[1](streams[1], rotation), streams[2])


def test_recording_leaves_no_hook_behind_even_after_an_error():
    model = GPT(CONFIGS[0]).eval()
    with pytest.raises(ValueError), record(model, ["blocks.0"]):
        model(torch.tensor([[99]]))
    with record(model, ["blocks.0"]) as outputs:
        model(torch.tensor([[1, 2]]))
    before = outputs["blocks.0"].clone()
    model(torch.tensor([[3, 4]]))
    assert torch.equal(outputs["blocks.0"], before)
    assert not outputs["blocks.0"].requires_grad


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no module 'blocks.9'"):
        with record(GPT(CONFIGS[0]), ["blocks.9"]):
            pass
