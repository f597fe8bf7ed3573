"""A trained GPT prepared for writing: the same function with fewer operations a token.

Reading one token is a different job from training. Each matrix is multiplied by a single row, so
the time goes into fetching weights from memory and, in small models, into starting operations.
Three remedies, measured together in benchmarks/generation.py: no modules, all rows of a step in
one matrix (B T, C); each matrix stored with its longer side contiguous; weights of 16, 8 or 4 bits.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptlib.attention import attention, rms_norm, rotate
from gptlib.cache import KVCache
from gptlib.model import GPT, Norm, check_ids, look_up

Function = Callable[[Tensor], Tensor]
GROUP = 32  # weights that share a scale and a middle in int4, as in GGUF's Q4_1


class Layer(NamedTuple):
    """What one block does, as functions on rows (N, C)."""

    norm1: Function
    qkv: Function
    output: Function
    norm2: Function
    up: Function
    gate: Function | None
    down: Function


class InferenceModel:
    """A language model with the weights of `model`: ids (B, T) to logits (B, T, V), no gradients.

    `weights` says how the matrices are kept. "float32": the model's own logits up to rounding.
    "bfloat16": half of the bytes. "int8": a whole number from -127 to 127 for each weight and a
    scale for each row (absolute maximum: Dettmers et al., 2022, section 2). "int4": 0 to 15, with
    a scale and an offset for every 32 weights of a row; the output table in int8. All but the
    first round what they multiply to bfloat16. The embeddings stay, and what happens to the model
    later is not seen. ValueError for other `weights`, or widths that int4 cannot group.
    """

    def __init__(self, model: GPT, weights: str = "float32"):
        if weights not in PACKED:
            raise ValueError(f"weights is {weights!r}; expected one of {', '.join(PACKED)}")
        pack = PACKED[weights]
        self.config, self.embedding = model.config, model.embedding
        learned = model.config.position == "learned"
        self.positions = model.position_embedding.weight.detach() if learned else None
        self.angles = None if learned else (model.rotary_cos, model.rotary_sin)
        with torch.no_grad():
            self.layers = [Layer(
                _norm(block.norm1), pack(block.attention.qkv), pack(block.attention.output),
                _norm(block.norm2), pack(block.feed_forward.up),
                pack(block.feed_forward.gate) if model.config.activation == "swiglu" else None,
                pack(block.feed_forward.down)) for block in model.blocks]
            self.final_norm = _norm(model.final_norm)
            table = model.embedding if model.config.tie_weights else model.output
            self.output = _int8(table) if weights == "int4" else pack(table)

    def parameters(self) -> Iterator[Tensor]:
        """The embedding table: it tells where the model lies, and in which precision it adds."""
        return iter((self.embedding.weight.detach(),))

    @torch.no_grad()
    def __call__(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """ids (B, T) int64 to logits (B, T, V). With a cache, ids continue what it holds."""
        start = 0 if cache is None else cache.length
        check_ids(ids, self.config, start)
        (B, T), stop = ids.shape, start + ids.shape[1]
        x = look_up(self.embedding, ids)
        if self.positions is not None:
            x = x + self.positions[start:stop]
        rotation = self.angles and tuple(table[start:stop] for table in self.angles)
        x = x.view(B * T, -1)
        for number, layer in enumerate(self.layers):
            y = self._attend(layer.qkv(layer.norm1(x)), (B, T), rotation, cache, number)
            x = layer.output(y) + x
            x = layer.down(self._activate(layer, layer.norm2(x))) + x
        if cache is not None:
            cache.advance(T)
        return self.output(self.final_norm(x)).view(B, T, -1)

    def _attend(self, qkv: Tensor, shape: tuple[int, int], rotation: tuple | None,
                cache: KVCache | None, layer: int) -> Tensor:
        """Projections (B T, (H + 2 H_kv) D) to what the heads found, (B T, C)."""
        config, (B, T) = self.config, shape
        H, H_kv = config.n_head, config.kv_heads
        n = H + 2 * H_kv
        # a single token needs no transposition: that saves an operation here and one below
        split = qkv.view(B, n, 1, -1) if T == 1 else qkv.view(B, T, n, -1).transpose(1, 2)
        if rotation is None and not config.qk_norm:
            q, k, v = split.split_with_sizes((H, H_kv, H_kv), dim=1)
        else:
            qk, v = split.split_with_sizes((H + H_kv, H_kv), dim=1)
            qk = rms_norm(qk, config.norm_eps) if config.qk_norm else qk
            qk = qk if rotation is None else rotate(qk, rotation)
            q, k = qk.split_with_sizes((H, H_kv), dim=1)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        y = attention(q, k, v)
        return (y if T == 1 else y.transpose(1, 2)).reshape(B * T, config.n_embd)

    def _activate(self, layer: Layer, x: Tensor) -> Tensor:
        hidden = layer.up(x)
        if layer.gate is not None:
            return F.silu(layer.gate(x)) * hidden
        if self.config.activation == "gelu":
            return F.gelu(hidden, approximate="tanh")
        return hidden.relu().square()


def _norm(norm: Norm) -> Function:
    weight, bias, eps, shape = norm.weight.detach(), norm.bias, norm.eps, norm.weight.shape
    if norm.layernorm:
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps)
    return lambda x: rms_norm(x, eps) * weight


def _float32(linear: nn.Linear | nn.Embedding) -> Function:
    """A product with one row runs along the contiguous side; the longer it is, the better."""
    weight, bias = linear.weight.detach().t(), getattr(linear, "bias", None)
    if weight.shape[1] > weight.shape[0]:
        weight = weight.contiguous()
    return lambda x: x @ weight if bias is None else torch.addmm(bias, x, weight)


def _bfloat16(linear: nn.Linear | nn.Embedding) -> Function:
    weight, bias = linear.weight.detach().bfloat16(), getattr(linear, "bias", None)
    bias = None if bias is None else bias.detach().bfloat16()
    return lambda x: F.linear(x.bfloat16(), weight, bias).float()


def _int8(linear: nn.Linear | nn.Embedding) -> Function:
    weight, bias = linear.weight.detach(), getattr(linear, "bias", None)
    scale = (weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127).bfloat16()
    whole = (weight / scale.float()).round().clamp(-127, 127).to(torch.int8)
    scale = scale.flatten()

    def product(x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x.bfloat16(), whole, scale).float()
        return y if bias is None else y + bias

    return product


def _int4(linear: nn.Linear | nn.Embedding) -> Function:
    weight, bias = linear.weight.detach(), getattr(linear, "bias", None)
    if weight.shape[1] % GROUP or weight.shape[0] % GROUP:
        raise ValueError(f"a matrix is {weight.shape[0]} by {weight.shape[1]}; int4 needs "
                         f"multiples of {GROUP}: choose int8, or another width")
    groups = weight.unflatten(1, (-1, GROUP))
    least, most = groups.amin(2), groups.amax(2)
    scale = ((most - least).clamp(min=1e-12) / 15).bfloat16()
    middle = (least + 8 * scale).bfloat16()  # what the whole number 8 stands for
    whole = ((groups - middle[..., None].float()) / scale[..., None].float() + 8).round()
    whole = whole.clamp(0, 15).flatten(1).to(torch.int32)
    packed = torch._convert_weight_to_int4pack_for_cpu(whole, 1)
    scales = torch.stack((scale, middle), dim=2).transpose(0, 1).contiguous()  # (groups, rows, 2)

    def product(x: Tensor) -> Tensor:
        y = torch._weight_int4pack_mm_for_cpu(x.bfloat16(), packed, GROUP, scales).float()
        return y if bias is None else y + bias

    return product


PACKED = {"float32": _float32, "bfloat16": _bfloat16, "int8": _int8, "int4": _int4}
