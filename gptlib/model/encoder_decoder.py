"""The Transformer as it was first built: an encoder that reads, a decoder that reads it and writes.

Vaswani et al. (2017), arXiv:1706.03762, with the block of this book's GPT: each norm stands before
its layer (pre-norm), positions are learned and the bend is a GELU. The paper had the norm after the
sum (post-norm), fixed sines and ReLU. A GPT is the decoder below without its cross-attention.

`real` is always a tensor of booleans (B, S): True where a token of the source is real, False where
it is padding. (PyTorch's `key_padding_mask` is the opposite: True where to look away.)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from gptlib.model.attention import attention, attention_weights, rms_norm
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT, Block, FeedForward, Norm, check_ids, initialise


def pad(sequences: Sequence[Sequence[int]], padding: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences of ids to one batch: ids (B, S), filled up on the right, and `real` (B, S).

    Raises ValueError for an empty sequence: attention over no position at all is 0 / 0.
    """
    lengths = [len(sequence) for sequence in sequences]
    if not lengths or not min(lengths):
        raise ValueError(f"got sequences of lengths {lengths}; expected at least one token in each")
    ids = torch.full((len(lengths), max(lengths)), padding)
    for row, sequence in zip(ids, sequences):
        row[:len(sequence)] = torch.as_tensor(sequence)
    return ids, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


class Attention(nn.Module):
    """Multi-head attention without a causal mask: x looks at a source, which may be x itself.

    `n_kv_head` and `qk_norm` of the configuration mean what they mean in `CausalSelfAttention`.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        C, self.head_dim, self.dropout = config.n_embd, config.head_dim, config.dropout
        self.qk_norm, self.eps = config.qk_norm, config.norm_eps
        self.query = nn.Linear(C, C, bias=config.bias)
        self.key_value = nn.Linear(C, 2 * config.kv_heads * self.head_dim, bias=config.bias)
        self.output = nn.Linear(C, C, bias=config.bias)

    def project(self, x: torch.Tensor, source: torch.Tensor
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x (B, T, C) to queries (B, H, T, D), source (B, S, C) to keys, values (B, H_kv, S, D)."""
        both = self.query(x), *self.key_value(source).chunk(2, dim=-1)
        q, k, v = (z.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for z in both)
        if self.qk_norm:
            q, k = rms_norm(q, self.eps), rms_norm(k, self.eps)
        return q, k, v

    def weights(self, x: torch.Tensor, source: torch.Tensor,
                real: torch.Tensor | None = None) -> torch.Tensor:
        """How much each position of x looks at each of the source: (B, H, T, S)."""
        q, k, _ = self.project(x, source)
        return attention_weights(q, k, causal=False, mask=_over_heads(real, source))

    def forward(self, x: torch.Tensor, source: torch.Tensor,
                real: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, T, C) and source (B, S, C) to (B, T, C); padding of the source has no weight.

        Raises ValueError if `real` is not (B, S), as the mask of another sequence often is not.
        """
        q, k, v = self.project(x, source)
        dropout = self.dropout if self.training else 0.0
        y = attention(q, k, v, causal=False, dropout=dropout, mask=_over_heads(real, source))
        return self.output(y.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Self-attention to both sides, then feed-forward; each adds to the residual stream."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.norm1, self.norm2 = Norm(config), Norm(config)
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.dropout = config.dropout

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, S, C) to (B, S, C)."""
        y = self.norm1(x)
        y = self.attention(y, y, real)
        x = x + F.dropout(y, self.dropout, self.training)
        y = self.feed_forward(self.norm2(x))
        return x + F.dropout(y, self.dropout, self.training)


class DecoderLayer(Block):
    """The block of a GPT with one more layer in its middle: attention to the encoded source."""

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.cross_norm, self.cross_attention = Norm(config), Attention(config)

    def forward(self, x: torch.Tensor, source: torch.Tensor,
                real: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, T, C) and source (B, S, C) to (B, T, C)."""
        y = self.attention(self.norm1(x))
        x = x + F.dropout(y, self.dropout, self.training)
        y = self.cross_attention(self.cross_norm(x), source, real)
        x = x + F.dropout(y, self.dropout, self.training)
        y = self.feed_forward(self.norm2(x))
        return x + F.dropout(y, self.dropout, self.training)


class Encoder(nn.Module):
    """ids (B, S) to one vector for each position, (B, S, C), which has seen both sides of it.

    ValueError for a configuration with rotary positions, or with an output layer of its own
    (`tie_weights=False`): an encoder has no output layer.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = _learned_positions(config)
        if not config.tie_weights:
            raise ValueError("tie_weights is False; expected True: an encoder has no output layer "
                             "that could be one of its own")
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.context_length, config.n_embd)
        self.blocks = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layer))
        self.final_norm = Norm(config)
        initialise(self, config)

    def forward(self, ids: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """ids (B, S) int64 to vectors (B, S, C). What stands at padding is of no use."""
        S, longest = ids.shape[1], self.config.context_length
        if S > longest:
            raise ValueError(f"got {S} tokens; the encoder's context_length is {longest}: cut the "
                             f"longest sequences, or build it with a longer context")
        x = self.embedding(ids) + self.position_embedding.weight[:S]
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x, real)
        return self.final_norm(x)


class Decoder(GPT):
    """A GPT that also looks at a source. Padding of the target needs no mask: it stands on the
    right, where the causal mask hides it, and the loss leaves it out. ValueError for a
    configuration with rotary positions."""

    def __init__(self, config: GPTConfig):
        super().__init__(_learned_positions(config))
        self.blocks = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_layer))
        initialise(self, config)

    def forward(self, ids: torch.Tensor, source: torch.Tensor,
                real: torch.Tensor | None = None) -> torch.Tensor:
        """ids (B, T) of the target and the encoded source (B, S, C) to logits (B, T, V)."""
        check_ids(ids, self.config)
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, source, real)
        return self.unembed(x)


class EncoderDecoder(nn.Module):
    """p(target | source), token by token. Both halves may have vocabularies of their own."""

    def __init__(self, encoder: GPTConfig, decoder: GPTConfig):
        super().__init__()
        if encoder.n_embd != decoder.n_embd:
            raise ValueError(f"the encoder is {encoder.n_embd} wide, the decoder {decoder.n_embd}; "
                             f"expected equal n_embd: the decoder reads the encoder's vectors")
        self.encoder, self.decoder = Encoder(encoder), Decoder(decoder)

    def forward(self, source: torch.Tensor, real: torch.Tensor | None,
                target: torch.Tensor) -> torch.Tensor:
        """source ids (B, S), their `real`, target ids (B, T) to logits (B, T, V)."""
        return self.decoder(target, self.encoder(source, real), real)


def _over_heads(real: torch.Tensor | None, source: torch.Tensor) -> torch.Tensor | None:
    """real (B, S) as a mask (B, 1, 1, S) for all heads and all queries."""
    if real is not None and real.shape != source.shape[:2]:
        raise ValueError(f"the mask has shape {tuple(real.shape)} for a source of shape "
                         f"{tuple(source.shape[:2])}; expected one boolean for each of its tokens: "
                         f"is it the mask of the other sequence?")
    return None if real is None else real[:, None, None]


def _learned_positions(config: GPTConfig) -> GPTConfig:
    if config.position != "learned":
        raise ValueError(f"position is {config.position!r}; these models have learned positions")
    return config
