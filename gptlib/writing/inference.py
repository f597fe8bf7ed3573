"""A trained GPT prepared for writing: the same function with fewer operations a token.

Reading one token is a different job from training. Each matrix is multiplied by a single row, so
the time goes into fetching weights from memory and, in small models, into starting operations.
Three remedies, measured together in benchmarks/generation.py: no modules, all rows of a step in
one matrix (B T, C); each matrix stored with its longer side contiguous; weights of 16, 8 or 4 bits.
A fourth is for one token of one sequence on a CPU: there every operation is so small that starting
it costs most, and NumPy starts one in a fraction of PyTorch's time.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptlib.model.attention import attention, padding_mask, rms_norm, rotate
from gptlib.model.cache import KVCache
from gptlib.model.gpt import GPT, Block, Norm, check_ids, look_up, positions

LARGE = 2**17  # from so many weights on, a product with a few rows is turned round
GROUP = 32  # weights that share a scale and a middle in int4, as in GGUF's Q4_1


class Function(NamedTuple):
    """A function of rows (N, C) in PyTorch, and of a single row (C,) in NumPy."""

    rows: Callable[[Tensor], Tensor]
    row: Callable[[np.ndarray], np.ndarray] | None = None


class Layer(NamedTuple):
    """What one block does."""

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
    first round what they multiply to bfloat16, and keep the embedding table in the model's type.
    Sums are float32, whatever the model's type.

    Everything is copied, so what happens to the model later is not seen; let go of it where memory
    is short. ValueError for other `weights`, for widths that int4 cannot group, and for a subclass
    of GPT, which may compute something else.
    """

    def __init__(self, model: GPT, weights: str = "float32"):
        if weights not in PACKED:
            raise ValueError(f"weights is {weights!r}; expected one of {', '.join(PACKED)}")
        if type(model) is not GPT:
            raise ValueError(f"got a {type(model).__name__}; expected a GPT itself: only its own "
                             f"function is known here")
        pack, learned = PACKED[weights], model.config.position == "learned"
        self.config, self.embedding = model.config, copy.deepcopy(model.embedding)
        if weights == "float32":
            self.embedding.float()
        self.positions = _own(model.position_embedding).weight.detach() if learned else None
        self.angles = None if learned else tuple(
            angles.to(torch.float32, copy=True) for angles in (model.rotary_cos, model.rotary_sin))
        table = self.embedding.weight.detach()
        self.table = _array(table) if weights == "float32" else None  # None: NumPy is not used
        with torch.no_grad():
            self.layers = [_layer(_own(block), pack) for block in model.blocks]
            final_norm = _own(model.final_norm)
            self.final_norm, self.scale = _norm(final_norm), final_norm.weight.detach()
            last = model.embedding if model.config.tie_weights else model.output
            shared = model.config.tie_weights and weights == "float32"  # one table for both ends
            last = self.embedding if shared else _own(last)
            self.output = _int8(last) if weights == "int4" else pack(last)

    def parameters(self) -> Iterator[Tensor]:
        """The last norm's weight: it tells where the model lies, and that sums are float32."""
        return iter((self.scale,))

    def __call__(self, ids: Tensor, cache: KVCache | None = None,
                 padding: Tensor | None = None) -> Tensor:
        """ids (B, T) int64 to logits (B, T, V). With a cache, ids continue what it holds; `padding`
        (B,) int64 is that of `GPT.forward`."""
        check_ids(ids, self.config, 0 if cache is None else cache.length)
        one = cache is not None and padding is None and ids.numel() == cache.batch_size == 1
        if one and self.table is not None:
            id = ids.item()
            if 0 <= id < len(self.table):  # other ids are refused below
                return torch.from_numpy(self._read_one(id, cache)).view(1, 1, -1)
        with torch.no_grad():
            return self._read(ids, cache, padding)

    def _read(self, ids: Tensor, cache: KVCache | None, padding: Tensor | None) -> Tensor:
        (B, T), start = ids.shape, 0 if cache is None else cache.length
        places = positions(start, start + T, padding)
        x = look_up(self.embedding, ids).float()
        if self.positions is not None:
            x = x + self.positions[places]
        rotation = self.angles and tuple(table[places] for table in self.angles)
        mask = None
        if padding is not None:
            rotation = rotation and tuple(table[:, None] for table in rotation)  # for all heads
            mask = padding_mask(padding, T, start + T)
        x = x.view(B * T, -1)
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv.rows(layer.norm1.rows(x))
            x = layer.output.rows(self._attend(qkv, (B, T), rotation, cache, number, mask)) + x
            x = layer.down.rows(self._activate(layer, layer.norm2.rows(x))) + x
        if cache is not None:
            cache.advance(T)
        return self.output.rows(self.final_norm.rows(x)).view(B, T, -1)

    def _read_one(self, id: int, cache: KVCache) -> np.ndarray:
        """The same for one token of one sequence, behind a cache: an id to logits (V,)."""
        n, x = cache.length, self.table[id]
        if self.positions is not None:
            x = x + self.positions.numpy()[n]
        rotation = self.angles and tuple(table.numpy()[n] for table in self.angles)
        with np.errstate(over="ignore"):  # exp() may become infinite: its inverse is the right 0
            for number, layer in enumerate(self.layers):
                y = self._attend_one(layer.qkv.row(layer.norm1.row(x)), rotation, cache, number)
                x = layer.output.row(y) + x
                x = layer.down.row(self._activate_one(layer, layer.norm2.row(x))) + x
        cache.advance(1)
        return self.output.row(self.final_norm.row(x))

    def _attend(self, qkv: Tensor, shape: tuple[int, int], rotation: tuple | None,
                cache: KVCache | None, layer: int, mask: Tensor | None) -> Tensor:
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
        y = attention(q, k, v, mask=mask)
        return (y if T == 1 else y.transpose(1, 2)).reshape(B * T, config.n_embd)

    def _attend_one(self, qkv: np.ndarray, rotation: tuple | None, cache: KVCache,
                    layer: int) -> np.ndarray:
        """`_attend` for one token: projections ((H + 2 H_kv) D,) to what the heads found, (C,)."""
        config, n = self.config, cache.length
        H, H_kv, D = config.n_head, config.kv_heads, config.head_dim
        qkv = qkv.reshape(-1, D)
        qk, v = qkv[:H + H_kv], qkv[H + H_kv:]
        if config.qk_norm:
            square = np.add.reduce(qk * qk, axis=1, keepdims=True)
            qk = qk / np.sqrt(square / D + config.norm_eps)
        if rotation is not None:
            cos, sin = rotation
            turned = np.concatenate((-qk[:, D // 2:], qk[:, :D // 2]), axis=1)
            qk = qk * cos + turned * sin
        keys, values = cache.arrays(layer)
        keys[:, n], values[:, n] = qk[H:], v
        q = qk[:H].reshape(H_kv, -1, D) * D ** -0.5  # the queries that share keys stand together
        scores = q @ keys[:, :n + 1].transpose(0, 2, 1)
        weights = np.exp(scores - np.maximum.reduce(scores, axis=2, keepdims=True))
        y = weights @ values[:, :n + 1] / np.add.reduce(weights, axis=2, keepdims=True)
        return y.reshape(-1)

    def _activate_one(self, layer: Layer, x: np.ndarray) -> np.ndarray:
        hidden = layer.up.row(x)
        if layer.gate is not None:
            gate = layer.gate.row(x)
            return gate / (1 + np.exp(-gate)) * hidden
        if self.config.activation == "gelu":  # (1 + tanh z) / 2 = 1 / (1 + exp(-2 z))
            a = -2 * math.sqrt(2 / math.pi)
            return hidden / (1 + np.exp((hidden * hidden * (0.044715 * a) + a) * hidden))
        hidden = np.maximum(hidden, 0)
        return hidden * hidden

    def _activate(self, layer: Layer, x: Tensor) -> Tensor:
        hidden = layer.up.rows(x)
        if layer.gate is not None:
            return F.silu(layer.gate.rows(x)) * hidden
        if self.config.activation == "gelu":
            return F.gelu(hidden, approximate="tanh")
        return hidden.relu().square()


def _own(module: nn.Module) -> nn.Module:
    """A copy in float32. It is made of one block at a time: beside packed weights there is then
    never more of the model than that."""
    return copy.deepcopy(module).float()


def _layer(block: Block, pack: Callable[[nn.Linear], Function]) -> Layer:
    attention, network = block.attention, block.feed_forward
    gate = pack(network.gate) if network.activation == "swiglu" else None
    return Layer(_norm(block.norm1), pack(attention.qkv), pack(attention.output),
                 _norm(block.norm2), pack(network.up), gate, pack(network.down))


def _norm(norm: Norm) -> Function:
    weight, eps, shape = norm.weight.detach(), norm.eps, norm.weight.shape
    w, C = _array(weight), len(weight)
    if not norm.layernorm:
        return Function(lambda x: rms_norm(x, eps) * weight,
                        lambda x: x * (w / math.sqrt(x.dot(x) / C + eps)))
    bias, b = _bias(norm)

    def row(x: np.ndarray) -> np.ndarray:
        x = x - np.add.reduce(x) / C
        x = x * (w / math.sqrt(x.dot(x) / C + eps))
        return x if b is None else x + b

    return Function(lambda x: torch.layer_norm(x, shape, weight, bias, eps), row)


def _float32(linear: nn.Linear | nn.Embedding) -> Function:
    """A product with one row runs along the contiguous side; the longer it is, the better. With
    a few rows x, a large matrix W is faster on the left: W x' instead of x W'."""
    large, (bias, b) = linear.weight.detach(), _bias(linear)
    weight = large.t()
    if weight.shape[1] > weight.shape[0]:
        weight = weight.contiguous()
    w = _array(weight)

    def row(x: np.ndarray) -> np.ndarray:
        return x.dot(w) if b is None else x.dot(w) + b

    def rows(x: Tensor) -> Tensor:
        if large.numel() < LARGE:
            return x @ weight if bias is None else torch.addmm(bias, x, weight)
        y = large @ x.t() if bias is None else torch.addmm(bias[:, None], large, x.t())
        return y.t().contiguous()

    return Function(rows, row)


def _bfloat16(linear: nn.Linear | nn.Embedding) -> Function:
    weight, (bias, _) = linear.weight.detach().bfloat16(), _bias(linear)
    bias = None if bias is None else bias.bfloat16()
    return Function(lambda x: F.linear(x.bfloat16(), weight, bias).float())


def _int8(linear: nn.Linear | nn.Embedding) -> Function:
    weight = linear.weight.detach()
    scale = (weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127).bfloat16()
    whole = (weight / scale.float()).round().clamp(-127, 127).to(torch.int8)
    scale = scale.flatten()
    return _rounded(linear, lambda x: torch._weight_int8pack_mm(x, whole, scale))


def _int4(linear: nn.Linear | nn.Embedding) -> Function:
    weight = linear.weight.detach()
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
    return _rounded(linear,
                    lambda x: torch._weight_int4pack_mm_for_cpu(x, packed, GROUP, scales))


def _rounded(linear: nn.Linear | nn.Embedding, product: Callable[[Tensor], Tensor]) -> Function:
    """A product of bfloat16 rows, with the bias added in float32; NumPy has no such numbers."""
    bias, _ = _bias(linear)

    def rows(x: Tensor) -> Tensor:
        y = product(x.bfloat16()).float()
        return y if bias is None else y + bias

    return Function(rows)


def _bias(layer: nn.Module) -> tuple[Tensor | None, np.ndarray | None]:
    """The bias, if there is one, for both libraries."""
    bias = getattr(layer, "bias", None)
    return (None, None) if bias is None else (bias.detach(), _array(bias.detach()))


def _array(tensor: Tensor) -> np.ndarray | None:
    """The tensor's memory as NumPy sees it; None where that is not float32 on a CPU."""
    usable = tensor.device.type == "cpu" and tensor.dtype == torch.float32
    return tensor.numpy() if usable else None


PACKED = {"float32": _float32, "bfloat16": _bfloat16, "int8": _int8, "int4": _int4}
