"""Causal self-attention: written out, so that its weights can be looked at, and fused, for speed.

Vaswani et al. (2017), arXiv:1706.03762. Shapes: queries (.., H, T, D), keys and values
(.., H_kv, S, D). With a cache S is larger than T: the queries are the last T of S positions.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from gptlib.model.cache import KVCache
from gptlib.model.config import GPTConfig

Rotation = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, each (T, D)


def causal_mask(T: int, S: int, device: torch.device | None = None) -> torch.Tensor:
    """(T, S) booleans: True where query t may look at key s.

    Aligned bottom-right: the last query sees every key, because queries are the newest positions.
    (PyTorch's `is_causal=True` aligns top-left, so that one query would see only key 0.)
    """
    if T > S:
        raise ValueError(f"{T} queries but only {S} keys; every query needs its own position "
                         f"among the keys: pass causal=False if these are two sequences")
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def padding_mask(padding: torch.Tensor, T: int, S: int) -> torch.Tensor:
    """(B, 1, T, S) booleans: False for keys that are filling, the first padding[b] of each row.

    A query that is filling itself may look at itself: over no key at all there is no softmax.
    """
    keys = torch.arange(S, device=padding.device)
    return (keys >= padding[:, None, None, None]) | (keys == keys[S - T:, None])


def attention_weights(q: torch.Tensor, k: torch.Tensor, causal: bool = True,
                      mask: torch.Tensor | None = None) -> torch.Tensor:
    """How much each query looks at each key: (.., T, S), non-negative, each row sums to 1.

    softmax(q k' / sqrt(D)), with weight 0 for the future if `causal`, and wherever `mask`
    (booleans that broadcast to (.., T, S), such as those of padding) is False.
    """
    keys = _at_least_float32(_serve_groups(k, q)).transpose(-2, -1)
    scores = _at_least_float32(q) @ keys / math.sqrt(q.shape[-1])
    if causal:
        past = causal_mask(q.shape[-2], k.shape[-2], q.device)
        mask = past if mask is None else past & mask
    scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1).to(q.dtype)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool = True,
              fused: bool = True, dropout: float = 0.0,
              mask: torch.Tensor | None = None) -> torch.Tensor:
    """The average of the values under the attention weights: (.., T, D).

    `fused` uses PyTorch's kernel, which never stores the (T, S) weights (Dao et al., 2022,
    arXiv:2205.14135); otherwise the three lines of the definition run. `dropout` is the probability
    with which a weight is zeroed; `mask` is that of `attention_weights`.
    """
    if not fused:
        weights = F.dropout(attention_weights(q, k, causal, mask), dropout)
        return weights @ _serve_groups(v, q)
    T, S = q.shape[-2], k.shape[-2]
    square = mask is None and T == S  # then the kernel has a causal mask of its own
    if causal and T > 1 and not square:
        past = causal_mask(T, S, q.device)
        mask = past if mask is None else past & mask
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal and T > 1 and square,
        enable_gqa=q.dim() > 2 and q.shape[-3] != k.shape[-3])


def _serve_groups(x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Repeat each head of keys or values for its group of query heads (Ainslie et al., 2023)."""
    if q.dim() < 3 or x.shape[-3] == q.shape[-3]:
        return x
    return x.repeat_interleave(q.shape[-3] // x.shape[-3], dim=-3)


def rms_norm(x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """x (.., D) scaled so that the mean square over the last dimension is 1.

    Written out because, on a CPU, training through `F.rms_norm` takes twice as long.
    """
    wide = _at_least_float32(x)
    mean_square = (wide * wide).mean(-1, keepdim=True)
    return (wide * (mean_square + eps).rsqrt()).to(x.dtype)


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """x itself, or as float32 if its numbers have 16 bits: in float16 a square beyond 65,504 is
    infinite, in bfloat16 a sum has two digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rotary_angles(head_dim: int, context_length: int, base: float = 10_000.0) -> Rotation:
    """Cosines and sines (context_length, D), float32, of rotary positions (Su et al., 2021).

    Feature i is paired with feature i + D/2; at position p the pair turns by p / base^(2i/D).
    """
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(context_length, dtype=torch.float64)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Turn the feature pairs of x (.., T, D) by the angles of their positions; lengths stay."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class CausalSelfAttention(nn.Module):
    """Multi-head attention of a sequence to its own past; `fused = False` runs it written out.

    With `n_kv_head` smaller than `n_head`, groups of query heads share keys and values (GQA).
    """

    fused = True

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.n_head, config.kv_heads, config.head_dim
        self.qk_norm, self.eps, self.dropout = config.qk_norm, config.norm_eps, config.dropout
        wide = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv = nn.Linear(config.n_embd, wide, bias=config.bias)  # three projections in one
        self.output = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def project(self, x: torch.Tensor, rotation: Rotation | None = None
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x (B, T, C) to queries (B, H, T, D), keys and values (B, H_kv, T, D)."""
        B, T, _ = x.shape
        H, H_kv = self.heads, self.kv_heads
        split = self.qkv(x).view(B, T, H + 2 * H_kv, self.head_dim).transpose(1, 2)
        qk, v = split.split((H + H_kv, H_kv), dim=1)  # q and k are normalised and turned alike
        if self.qk_norm:
            qk = rms_norm(qk, self.eps)
        if rotation is not None:
            qk = rotate(qk, rotation)
        q, k = qk.split((H, H_kv), dim=1)
        return q, k, v

    def forward(self, x: torch.Tensor, rotation: Rotation | None = None,
                cache: KVCache | None = None, layer: int = 0,
                mask: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, T, C) to (B, T, C). `rotation` holds the angles of these T positions; with a cache
        the T positions follow those that the cache already holds for `layer`. `mask` is that of
        `attention_weights`."""
        q, k, v = self.project(x, rotation)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        dropout = self.dropout if self.training else 0.0
        y = attention(q, k, v, fused=self.fused, dropout=dropout, mask=mask)
        return self.output(y.transpose(1, 2).reshape(x.shape))
