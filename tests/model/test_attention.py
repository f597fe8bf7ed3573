"""Attention: loops over Python numbers, the written-out form and the fused kernel are one."""

import math

import pytest
import torch

from gptlib.model.attention import (
    CausalSelfAttention,
    attention,
    attention_weights,
    causal_mask,
    padding_mask,
    rms_norm,
    rotary_angles,
    rotate,
)
from gptlib.model.config import GPTConfig


def in_loops(q, k, v, causal):
    """One head in plain Python: q (T, D), k and v (S, D) as lists of lists."""
    T, S, D = len(q), len(k), len(q[0])
    result = []
    for t in range(T):
        seen = range(S - T + t + 1) if causal else range(S)
        scores = [sum(q[t][i] * k[s][i] for i in range(D)) / math.sqrt(D) for s in seen]
        largest = max(scores)
        exponentials = [math.exp(score - largest) for score in scores]
        weights = [e / sum(exponentials) for e in exponentials]
        result.append([sum(w * v[s][i] for w, s in zip(weights, seen)) for i in range(len(v[0]))])
    return result


def loops_over_heads(q, k, v, causal):
    group = q.shape[1] // k.shape[1]
    return torch.tensor([[in_loops(q[b, h].tolist(), k[b, h // group].tolist(),
                                   v[b, h // group].tolist(), causal)
                          for h in range(q.shape[1])] for b in range(q.shape[0])])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("B, H, H_kv, T, S, D", [
    (1, 1, 1, 1, 1, 1), (2, 3, 3, 5, 5, 4), (2, 4, 2, 3, 7, 4), (1, 4, 1, 1, 6, 2),
    (3, 2, 1, 6, 6, 3), (1, 2, 2, 2, 3, 5)])
def test_loops_written_out_and_fused_agree(B, H, H_kv, T, S, D, causal):
    torch.manual_seed(0)
    q, k, v = torch.randn(B, H, T, D), torch.randn(B, H_kv, S, D), torch.randn(B, H_kv, S, D)
    expected = loops_over_heads(q, k, v, causal)
    for fused in (False, True):
        got = attention(q, k, v, causal=causal, fused=fused)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_more_queries_than_keys_work_without_a_mask_and_are_refused_with_one():
    q, k = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 3, 4)
    for fused in (False, True):
        assert attention(q, k, k, causal=False, fused=fused).shape == (1, 2, 5, 4)
        with pytest.raises(ValueError, match="5 queries but only 3 keys"):
            attention(q, k, k, fused=fused)


def test_plain_matrices_without_batch_and_heads_work():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 2).unbind()
    expected = torch.tensor(in_loops(q.tolist(), k.tolist(), v.tolist(), True))
    for fused in (False, True):
        torch.testing.assert_close(attention(q, k, v, fused=fused), expected)


def test_the_mask_is_aligned_bottom_right():
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True] * 4]
    assert causal_mask(1, 3).tolist() == [[True] * 3]


def test_weights_are_a_distribution_over_the_past():
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 6, 5)
    weights = attention_weights(q, k)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4))
    assert (weights[..., ~causal_mask(4, 6)] == 0).all()
    assert (weights[..., causal_mask(4, 6)] > 0).all()


def test_equal_keys_give_the_mean_of_the_values():
    k, v = torch.ones(3, 2), torch.tensor([[0.0], [3.0], [6.0]])
    assert attention(torch.randn(3, 2), k, v).flatten().tolist() == pytest.approx([0, 1.5, 3])


def test_scores_are_divided_by_the_root_of_d():
    q = k = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]])
    weights = attention_weights(q, k)[1]  # scores 1 and 4, divided by 2
    assert weights[1].item() == pytest.approx(math.exp(2) / (math.exp(0.5) + math.exp(2)))


def test_dropout_of_weights_keeps_the_mean_in_both_forms():
    torch.manual_seed(0)
    q, k, v = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 4000, 4), torch.ones(1, 1, 4000, 4)
    for fused in (False, True):
        got = attention(q, k, v, causal=False, fused=fused, dropout=0.5)
        assert got.mean().item() == pytest.approx(1.0, abs=0.1)
        assert not torch.allclose(got, torch.ones_like(got), atol=1e-5)


def test_gradients_of_both_forms_agree():
    torch.manual_seed(0)
    inputs = [torch.randn(2, heads, 5, 4, requires_grad=True) for heads in (4, 2, 2)]
    gradients = [torch.autograd.grad(attention(*inputs, fused=fused).square().sum(), inputs)
                 for fused in (False, True)]
    for written, fused in zip(*gradients):
        torch.testing.assert_close(written, fused, atol=1e-5, rtol=1e-4)


def test_rms_norm_is_torchs():
    x = torch.randn(3, 5, 8) * 4
    torch.testing.assert_close(rms_norm(x, 1e-3), torch.nn.functional.rms_norm(x, (8,), eps=1e-3))
    assert rms_norm(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])  # 1e4 squared is beyond float16
def test_rms_norm_of_16_bit_numbers_is_exact_to_their_rounding(dtype, scale):
    x = (torch.randn(5, 64) * scale).to(dtype)
    exact = rms_norm(x.double(), eps=1e-14)
    assert rms_norm(x, eps=1e-14).dtype == dtype
    torch.testing.assert_close(rms_norm(x, eps=1e-14).double(), exact, atol=0,
                               rtol=torch.finfo(dtype).eps)


def test_rms_norm_keeps_float64_and_its_float32_bits_are_pinned():
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    by_hand = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(rms_norm(x), by_hand, rtol=1e-14, atol=0)
    assert torch.autograd.gradcheck(rms_norm, x)
    single = x.detach().float()  # stored outputs and weights depend on these very bits
    scale = ((single * single).mean(-1, keepdim=True) + 1e-5).rsqrt()
    assert torch.equal(rms_norm(single), single * scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_written_out_attention_bears_scores_beyond_the_largest_float16(dtype):
    q = k = torch.randn(1, 2, 5, 64).mul(60).to(dtype)
    v = torch.randn(1, 2, 5, 64).to(dtype)
    assert (q.float() @ k.float().mT).max() > 65504
    weights = attention_weights(q, k)
    assert weights.dtype == dtype and weights.isfinite().all()
    written, fused = (attention(q, k, v, fused=fused) for fused in (False, True))
    torch.testing.assert_close(written, fused, atol=0.02, rtol=0.02)


def test_rotation_by_hand():
    rotation = rotary_angles(head_dim=4, context_length=3, base=100.0)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(3, 4)
    turned = rotate(x, rotation)[2]  # position 2: pair (1, 3) by 2, pair (2, 4) by 2 / 100^(1/2)
    c, s, c2, s2 = math.cos(2), math.sin(2), math.cos(0.2), math.sin(0.2)
    expected = [c - 3 * s, 2 * c2 - 4 * s2, 3 * c + s, 4 * c2 + 2 * s2]
    assert turned.tolist() == pytest.approx(expected, rel=1e-5)
    assert rotate(x, rotation)[0].tolist() == [1, 2, 3, 4]


def test_rotated_scores_depend_on_distance_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 8)
    rotation = rotary_angles(8, 50)
    turned_q, turned_k = rotate(q.expand(50, 8), rotation), rotate(k.expand(50, 8), rotation)
    for distance in (0, 3, 17):
        scores = [turned_q[t] @ turned_k[t - distance] for t in range(distance, 50)]
        torch.testing.assert_close(torch.stack(scores), scores[0].expand(len(scores)),
                                   atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"n_kv_head": 2}, {"n_kv_head": 1, "qk_norm": True},
                                     {"position": "rope", "bias": False}])
def test_the_class_is_projection_attention_projection(changes):
    torch.manual_seed(0)
    config = GPTConfig(10, 6, 1, n_head=4, n_embd=16, **changes)
    module = CausalSelfAttention(config)
    rotation = rotary_angles(4, 6) if config.position == "rope" else None
    x = torch.randn(2, 6, 16)
    q, k, v = module.project(x, rotation)
    assert q.shape == (2, 4, 6, 4) and k.shape == v.shape == (2, config.kv_heads, 6, 4)
    heads = loops_over_heads(q, k, v, causal=True)
    expected = module.output(heads.transpose(1, 2).flatten(2))
    for fused in (True, False):
        module.fused = fused
        torch.testing.assert_close(module(x, rotation), expected, atol=1e-6, rtol=1e-5)


def test_one_head_projects_each_position_by_its_own_matrix():
    torch.manual_seed(0)
    module = CausalSelfAttention(GPTConfig(10, 6, 1, n_head=2, n_embd=6, bias=False))
    x = torch.randn(1, 4, 6)
    w_q, w_k, w_v = module.qkv.weight.view(3, 2, 3, 6)[:, 1]  # the second head's three matrices
    for got, matrix in zip(module.project(x), (w_q, w_k, w_v)):
        torch.testing.assert_close(got[0, 1], x[0] @ matrix.T)


def test_normalised_queries_and_keys_have_length_root_d():
    module = CausalSelfAttention(GPTConfig(10, 6, 1, n_head=2, n_embd=32, qk_norm=True))
    q, k, v = module.project(torch.randn(2, 6, 32))
    for x in (q, k):
        torch.testing.assert_close(x.norm(dim=-1), torch.full(x.shape[:-1], 4.0), rtol=1e-2,
                                   atol=1e-2)
    assert v.norm(dim=-1).std() > 0.01


def test_a_padding_mask_hides_the_filling_of_each_row_but_lets_it_see_itself():
    mask = padding_mask(torch.tensor([0, 2]), T=3, S=4)
    assert mask.shape == (2, 1, 3, 4) and mask[0].all()
    assert mask[1, 0].int().tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("T", [1, 4])
def test_rows_behind_filling_find_what_they_find_without_it(fused, T):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, T, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    padding = torch.tensor([0, 4])
    got = attention(q, k, v, fused=fused, mask=padding_mask(padding, T, 6))
    assert got.isfinite().all()
    for row, n in enumerate(padding.tolist()):
        t = max(0, n - (6 - T))  # queries that are filling themselves
        alone = attention(q[row:row + 1, :, t:], k[row:row + 1, :, n:], v[row:row + 1, :, n:],
                          fused=fused)
        torch.testing.assert_close(got[row:row + 1, :, t:], alone)
