"""GPT: token ids in, logits of the next token out. GPT-2's block by default, today's by config.

Radford et al. (2019), "Language Models are Unsupervised Multitask Learners".
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from gptlib.model.attention import (
    CausalSelfAttention,
    Rotation,
    padding_mask,
    rms_norm,
    rotary_angles,
)
from gptlib.model.cache import KVCache
from gptlib.model.config import GPTConfig


class Norm(nn.Module):
    """Layer norm (Ba et al., 2016) or RMS norm (Zhang and Sennrich, 2019) over the last dimension.

    Layer norm subtracts the mean and divides by the standard deviation; RMS norm only divides by
    the root of the mean square. Both then scale each feature by a trained weight.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.layernorm, self.eps = config.norm == "layernorm", config.norm_eps
        self.weight = nn.Parameter(torch.ones(config.n_embd))
        has_bias = self.layernorm and config.bias
        self.bias = nn.Parameter(torch.zeros(config.n_embd)) if has_bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (.., C) to (.., C)."""
        if self.layernorm:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return rms_norm(x, self.eps) * self.weight


class FeedForward(nn.Module):
    """The network that each position passes through alone: C to hidden to C."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.activation = config.activation
        self.up = nn.Linear(config.n_embd, config.hidden, bias=config.bias)
        if self.activation == "swiglu":
            self.gate = nn.Linear(config.n_embd, config.hidden, bias=config.bias)
        self.down = nn.Linear(config.hidden, config.n_embd, bias=config.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, T, C) to (B, T, C)."""
        hidden = self.up(x)
        if self.activation == "gelu":
            hidden = F.gelu(hidden, approximate="tanh")
        elif self.activation == "relu2":
            hidden = hidden.relu()
            hidden = hidden * hidden  # the gradient of square() takes twice as long
        else:  # SwiGLU (Shazeer, 2020): one projection opens or closes the other
            hidden = F.silu(self.gate(x)) * hidden
        return self.down(hidden)


class Block(nn.Module):
    """Attention, then feed-forward; each reads the normalised residual stream and adds to it."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.norm1, self.norm2 = Norm(config), Norm(config)
        self.attention = CausalSelfAttention(config)
        self.feed_forward = FeedForward(config)
        self.dropout = config.dropout

    def forward(self, x: torch.Tensor, rotation: Rotation | None = None,
                cache: KVCache | None = None, layer: int = 0,
                mask: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, T, C) to (B, T, C)."""
        y = self.attention(self.norm1(x), rotation, cache, layer, mask)
        x = x + F.dropout(y, self.dropout, self.training)
        y = self.feed_forward(self.norm2(x))
        return x + F.dropout(y, self.dropout, self.training)


def initialise(model: nn.Module, config: GPTConfig) -> None:
    """GPT-2's start: normal with deviation 0.02, biases zero; the layers of each block that write
    into the residual stream smaller by sqrt(2 L), or zero with `zero_init`."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    std = 0.0 if config.zero_init else 0.02 / math.sqrt(2 * config.n_layer)
    for name, weight in model.named_parameters():
        if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
            nn.init.normal_(weight, std=std)


class GPT(nn.Module):
    """A language model: ids (B, T) to logits (B, T, V); position t predicts token t + 1.

    With `tie_weights` the output layer is the embedding table again (Press and Wolf, 2017): one
    parameter, registered once and used twice.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position == "learned":
            self.position_embedding = nn.Embedding(config.context_length, config.n_embd)
        else:
            cos, sin = rotary_angles(config.head_dim, config.context_length, config.rope_base)
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = Norm(config)
        if not config.tie_weights:
            self.output = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        initialise(self, config)

    def num_parameters(self) -> int:
        """Number of trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def embed(self, ids: torch.Tensor, start: int = 0,
              padding: torch.Tensor | None = None) -> torch.Tensor:
        """ids (B, T) at positions start, start + 1, .. to vectors (B, T, C)."""
        x = look_up(self.embedding, ids)
        if self.config.position == "learned":
            places = positions(start, start + ids.shape[1], padding)
            x = x + self.position_embedding.weight[places]
        return F.dropout(x, self.config.dropout, self.training)

    def rotation(self, start: int, stop: int,
                 padding: torch.Tensor | None = None) -> Rotation | None:
        """Angles of the rotary positions start to stop - 1, (T, D), or (B, 1, T, D) with padding;
        None where positions are learned."""
        if self.config.position == "learned":
            return None
        places = positions(start, stop, padding)
        cos, sin = self.rotary_cos[places], self.rotary_sin[places]
        return (cos, sin) if padding is None else (cos[:, None], sin[:, None])

    def unembed(self, x: torch.Tensor) -> torch.Tensor:
        """Residual stream (B, T, C) to logits (B, T, V): the final norm and the output layer."""
        table = self.embedding.weight if self.config.tie_weights else self.output.weight
        return F.linear(self.final_norm(x), table)

    def forward(self, ids: torch.Tensor, cache: KVCache | None = None,
                padding: torch.Tensor | None = None) -> torch.Tensor:
        """ids (B, T) int64 to logits (B, T, V). With a cache, ids continue what it holds.

        `padding` (B,) int64: how many tokens at the left end of each row, the cache's part
        included, are filling. Nothing looks at them, and positions are counted from behind them, so
        the logits of the others are those that the row gets alone, up to rounding.
        """
        start = 0 if cache is None else cache.length
        check_ids(ids, self.config, start)
        stop = start + ids.shape[1]
        x = self.embed(ids, start, padding)
        rotation = self.rotation(start, stop, padding)
        # only where it is needed: a block of the reader's own need not know of padding
        filled = {} if padding is None else {"mask": padding_mask(padding, ids.shape[1], stop)}
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, cache, layer, **filled)
        if cache is not None:
            cache.advance(ids.shape[1])
        return self.unembed(x)


def positions(start: int, stop: int, padding: torch.Tensor | None) -> slice | torch.Tensor:
    """Positions of the columns start to stop - 1: a slice, or (B, T) where rows begin behind
    filling (which itself gets position 0)."""
    if padding is None:
        return slice(start, stop)
    columns = torch.arange(start, stop, device=padding.device)
    return (columns - padding[:, None]).clamp(min=0)


def look_up(table: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    """Rows of an embedding table (V, C) for ids (B, T): (B, T, C); refuses ids beyond it."""
    try:
        return table(ids)
    except IndexError:  # on the CPU the look-up itself checks the range, at no cost
        raise ValueError(
            f"token ids lie between {ids.min().item()} and {ids.max().item()}; expected 0 to "
            f"{table.num_embeddings - 1}: does the tokenizer belong to this model?") from None


def check_ids(ids: torch.Tensor, config: GPTConfig, start: int = 0) -> None:
    """Refuse what is no batch of ids, or too long behind `start` positions in a cache."""
    if ids.dim() != 2 or ids.dtype != torch.int64 or ids.numel() == 0:
        raise ValueError(
            f"got ids of shape {tuple(ids.shape)} and type {ids.dtype}; expected at least one "
            f"token, (B, T) int64: a single sequence needs ids[None], or torch.tensor([ids])")
    T, longest = ids.shape[1], config.context_length
    if start + T > longest:
        past = f" after {start} in the cache" if start else ""
        raise ValueError(f"got {T} tokens{past}; the model's context_length is {longest}: keep "
                         f"the newest {longest} tokens, ids[:, -{longest}:]")
