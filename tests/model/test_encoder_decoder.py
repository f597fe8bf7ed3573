"""The encoder and the decoder: equal to PyTorch's layers, blind to padding and to the future."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gptlib.model.attention import attention, attention_weights, rms_norm
from gptlib.model.config import GPTConfig
from gptlib.model.encoder_decoder import (
    Attention,
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderDecoder,
    EncoderLayer,
    pad,
)
from gptlib.model.gpt import GPT, FeedForward, Norm

C, H = 8, 2
CONFIG = GPTConfig(vocab_size=11, context_length=9, n_layer=2, n_head=H, n_embd=C)
REAL = torch.tensor([[True, True, True, True, True], [True, True, False, False, False],
                     [True, True, True, False, False]])  # (B, S)


def shaken(module: nn.Module) -> nn.Module:
    """Every parameter random, the norms' too: a fresh module is nearly the identity."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module.eval()


def copied(norm: Norm, theirs: nn.LayerNorm) -> None:
    theirs.load_state_dict(norm.state_dict())


def copied_attention(mine: Attention, theirs: nn.MultiheadAttention) -> None:
    theirs.in_proj_weight.copy_(torch.cat((mine.query.weight, mine.key_value.weight)))
    theirs.in_proj_bias.copy_(torch.cat((mine.query.bias, mine.key_value.bias)))
    theirs.out_proj.load_state_dict(mine.output.state_dict())


def copied_feed_forward(mine: FeedForward, theirs: nn.Module) -> None:
    theirs.linear1.load_state_dict(mine.up.state_dict())
    theirs.linear2.load_state_dict(mine.down.state_dict())


OPTIONS = dict(dim_feedforward=4 * C, dropout=0.0, batch_first=True, norm_first=True,
               activation=lambda z: F.gelu(z, approximate="tanh"))


@torch.no_grad()
def test_the_encoder_layer_equals_that_of_pytorch():
    mine = shaken(EncoderLayer(CONFIG))
    theirs = nn.TransformerEncoderLayer(C, H, **OPTIONS).eval()
    copied(mine.norm1, theirs.norm1)
    copied(mine.norm2, theirs.norm2)
    copied_attention(mine.attention, theirs.self_attn)
    copied_feed_forward(mine.feed_forward, theirs)
    x = torch.randn(3, 5, C)
    expected = theirs(x, src_key_padding_mask=~REAL)
    torch.testing.assert_close(mine(x, REAL)[REAL], expected[REAL], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine(x), theirs(x), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(mine(x)[REAL], expected[REAL], atol=1e-2)


@pytest.mark.parametrize("T", [4, 5])  # 5 is also the length of the source
@torch.no_grad()
def test_the_decoder_layer_equals_that_of_pytorch(T):
    mine = shaken(DecoderLayer(CONFIG))
    theirs = nn.TransformerDecoderLayer(C, H, **OPTIONS).eval()
    for norm, other in ((mine.norm1, theirs.norm1), (mine.cross_norm, theirs.norm2),
                        (mine.norm2, theirs.norm3)):
        copied(norm, other)
    theirs.self_attn.in_proj_weight.copy_(mine.attention.qkv.weight)
    theirs.self_attn.in_proj_bias.copy_(mine.attention.qkv.bias)
    theirs.self_attn.out_proj.load_state_dict(mine.attention.output.state_dict())
    copied_attention(mine.cross_attention, theirs.multihead_attn)
    copied_feed_forward(mine.feed_forward, theirs)
    x, source = torch.randn(3, T, C), torch.randn(3, 5, C)
    future = nn.Transformer.generate_square_subsequent_mask(T) < 0  # True where to look away
    expected = theirs(x, source, tgt_mask=future, memory_key_padding_mask=~REAL)
    torch.testing.assert_close(mine(x, source, REAL), expected, atol=1e-5, rtol=1e-5)
    without = theirs(x, source, tgt_mask=future)
    torch.testing.assert_close(mine(x, source), without, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(without, expected, atol=1e-2)


@torch.no_grad()
def test_padding_never_changes_the_result_of_a_real_position():
    encoder = shaken(Encoder(CONFIG))
    sentences = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 1]]
    ids, real = pad(sentences)
    together = encoder(ids, real)
    other = encoder(ids.masked_fill(~real, 10), real)
    for row, sentence in enumerate(sentences):
        alone = encoder(torch.tensor([sentence]))[0]
        torch.testing.assert_close(together[row, :len(sentence)], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other[row, :len(sentence)], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_position_of_the_encoder_sees_both_sides_and_its_own_place():
    encoder = shaken(Encoder(CONFIG))
    before, after = encoder(torch.tensor([[1, 2, 3], [1, 2, 9]]))
    assert (before != after).any(-1).all()
    same = encoder(torch.tensor([[4, 4, 4]]))[0]
    assert not torch.allclose(same[0], same[1], atol=1e-3)


@torch.no_grad()
def test_the_decoder_never_sees_the_future_and_always_the_whole_source():
    model = shaken(EncoderDecoder(CONFIG, CONFIG))
    source, target = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 4]])
    before = model(source, None, target)
    changed = torch.tensor([[1, 2, 9, 4]])
    moved = (model(source, None, changed) != before).any(-1)[0]
    assert moved.tolist() == [False, False, True, True]
    for s in range(5):
        other = source.clone()
        other[0, s] = 10
        assert (model(other, None, target) != before).any(-1).all()


@torch.no_grad()
def test_padding_of_source_and_target_leaves_the_logits_of_real_tokens_alone():
    model = shaken(EncoderDecoder(CONFIG, CONFIG))
    sources, targets = [[1, 2], [3, 4, 5, 6, 7]], [[1, 2, 3, 4], [5]]
    source, real = pad(sources)
    target, _ = pad(targets)
    together = model(source, real, target)
    for row, (s, t) in enumerate(zip(sources, targets)):
        alone = model(torch.tensor([s]), None, torch.tensor([t]))[0]
        torch.testing.assert_close(together[row, :len(t)], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_its_cross_attention_the_decoder_is_the_gpt():
    decoder, gpt = shaken(Decoder(CONFIG)), GPT(CONFIG).eval()
    left = {name: value for name, value in decoder.state_dict().items() if "cross" not in name}
    gpt.load_state_dict(left)  # strict: the same names and shapes, none missing, none too many
    ids, source = torch.tensor([[1, 2, 3]]), torch.randn(1, 4, C)
    assert not torch.allclose(decoder(ids, source), gpt(ids), atol=1e-2)
    for block in decoder.blocks:
        block.cross_attention.output.weight.zero_()
        block.cross_attention.output.bias.zero_()
    torch.testing.assert_close(decoder(ids, source), gpt(ids))


@torch.no_grad()
def test_weights_are_those_that_the_layer_uses():
    module = shaken(Attention(CONFIG))
    x, source = torch.randn(3, 4, C), torch.randn(3, 5, C)
    weights = module.weights(x, source, REAL)  # (B, H, T, S)
    assert weights.shape == (3, H, 4, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, H, 4))
    assert (weights.transpose(1, 3)[~REAL] == 0).all()
    _, _, v = module.project(x, source)
    by_hand = module.output((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x, source, REAL), by_hand)


@torch.no_grad()
def test_heads_that_share_keys_are_full_heads_with_repeated_weights():
    shared = shaken(Attention(dataclasses.replace(CONFIG, n_head=4, n_kv_head=2)))
    full = Attention(dataclasses.replace(CONFIG, n_head=4)).eval()
    full.query.load_state_dict(shared.query.state_dict())
    full.output.load_state_dict(shared.output.state_dict())
    for ours, theirs in zip(shared.key_value.parameters(), full.key_value.parameters()):
        heads = ours.unflatten(0, (2, 2, C // 4))  # keys and values, two heads, each C / 4 wide
        theirs.copy_(heads.repeat_interleave(2, dim=1).flatten(0, 2))
    x, source = torch.randn(3, 4, C), torch.randn(3, 5, C)
    torch.testing.assert_close(shared(x, source, REAL), full(x, source, REAL))
    torch.testing.assert_close(shared.weights(x, source), full.weights(x, source))


def test_queries_and_keys_are_normalised_where_the_configuration_says_so():
    plain = shaken(Attention(CONFIG))
    normed = shaken(Attention(dataclasses.replace(CONFIG, qk_norm=True)))
    x, source = torch.randn(3, 4, C), torch.randn(3, 5, C)
    q, k, v = plain.project(x, source)
    expected = rms_norm(q), rms_norm(k), v
    for ours, theirs in zip(normed.project(x, source), expected):
        torch.testing.assert_close(ours, theirs)


CHANGES = dict(vocab_size=12, context_length=8, n_layer=3, n_head=4, n_embd=16, n_kv_head=1,
               mlp_hidden=5, position="rope", norm="rmsnorm", norm_eps=1.0, activation="swiglu",
               qk_norm=True, bias=False, tie_weights=False, zero_init=True, dropout=0.5)
MEANINGLESS = {"rope_base"}  # of learned positions, for a GPT as well


def fingerprint(kind: type[nn.Module], config: GPTConfig) -> list[torch.Tensor]:
    """First weights, and what the module in training mode makes of ids once it is shaken."""
    torch.manual_seed(0)
    module = kind(config)
    first = [parameter.detach().clone() for parameter in module.parameters()]
    shaken(module).train()
    source = () if kind is Encoder else (torch.randn(2, 3, config.n_embd),)
    return [*first, module(torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]]), *source)]


@pytest.mark.parametrize("kind", [Encoder, Decoder])
@pytest.mark.parametrize("name", sorted({f.name for f in dataclasses.fields(GPTConfig)}
                                        - MEANINGLESS))
def test_every_field_of_the_configuration_is_obeyed_or_refused_by_name(kind, name):
    before = fingerprint(kind, CONFIG)
    try:
        after = fingerprint(kind, dataclasses.replace(CONFIG, **{name: CHANGES[name]}))
    except ValueError as error:
        assert name in str(error)
        return
    assert len(before) != len(after) or any(a.shape != b.shape or not torch.equal(a, b)
                                            for a, b in zip(before, after))


def test_an_encoder_without_tied_weights_is_refused_since_it_has_no_output_layer():
    untied = dataclasses.replace(CONFIG, tie_weights=False)
    with pytest.raises(ValueError, match="tie_weights is False; .*no output layer"):
        Encoder(untied)
    assert Decoder(untied).output.weight.shape == (11, C)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("T, S", [(5, 5), (2, 5), (1, 5)])
def test_a_mask_and_the_causal_mask_hold_together_written_out_and_fused(T, S, causal):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, H, T, 4), torch.randn(3, H, S, 4), torch.randn(3, H, S, 4)
    mask = REAL.flip(0)[:, None, None] if not causal else REAL[:, None, None]
    got = [attention(q, k, v, causal=causal, fused=fused, mask=mask) for fused in (False, True)]
    torch.testing.assert_close(*got)
    weights = attention_weights(q, k, causal, mask)
    assert (weights.masked_select(~mask) == 0).all()
    if causal:
        assert (weights[0, :, 0, S - T + 1:] == 0).all()


def test_pad_fills_up_on_the_right():
    ids, real = pad([[5, 6, 7], [8]], padding=1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1]] and ids.dtype == torch.int64
    assert real.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize("sequences", [[], [[1], []]])
def test_pad_refuses_what_attention_cannot_average(sequences):
    with pytest.raises(ValueError, match="at least one"):
        pad(sequences)


def test_mistakes_of_the_caller_are_named():
    x, source = torch.randn(3, 4, C), torch.randn(3, 5, C)
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 5\).*the other sequence"):
        Attention(CONFIG)(x, source, torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="got 10 tokens"):
        Encoder(CONFIG)(torch.zeros(1, 10, dtype=torch.int64))
    with pytest.raises(ValueError, match="8 wide, the decoder 16"):
        EncoderDecoder(CONFIG, GPTConfig(11, n_head=2, n_embd=16))
    with pytest.raises(ValueError, match="learned positions"):
        Encoder(GPTConfig(11, position="rope"))


def test_dropout_acts_on_embedding_and_layers_and_in_training_only():
    torch.manual_seed(0)
    config = GPTConfig(11, context_length=9, n_layer=1, n_head=2, n_embd=64, dropout=0.5)
    ids = torch.tensor([[1, 2, 3]])
    encoder, layer = Encoder(config), EncoderLayer(config)
    x = torch.randn(1, 3, 64)
    assert not torch.equal(layer(x), layer(x))
    encoder.blocks = nn.ModuleList()  # what is left is the embedding and the final norm
    assert not torch.equal(encoder(ids), encoder(ids))
    encoder.eval()
    layer.eval()
    assert torch.equal(encoder(ids), encoder(ids)) and torch.equal(layer(x), layer(x))


def test_weights_start_small_and_the_result_is_normalised():
    torch.manual_seed(0)
    encoder = Encoder(GPTConfig(11, context_length=9, n_layer=2, n_head=2, n_embd=64))
    layer = encoder.blocks[0]
    assert abs(layer.attention.query.weight.std() - 0.02) < 0.002
    assert abs(layer.attention.output.weight.std() - 0.01) < 0.001
    assert abs(layer.feed_forward.down.weight.std() - 0.01) < 0.001
    vectors = encoder(torch.tensor([[1, 2, 3]]))
    torch.testing.assert_close(vectors.std(-1, correction=0), torch.ones(1, 3), atol=0.02, rtol=0)
