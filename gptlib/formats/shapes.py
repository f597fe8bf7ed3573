"""What the weights of a model must be: their names and shapes, by arithmetic, which a reader
compares with a file's header before it builds the model; and finite.

(The model itself could be built on PyTorch's "meta" device, but filling its weights with random
numbers there imports a symbolic algebra system, which takes two seconds.)
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from gptlib.files import TensorInfo, broken, require_tensors
from gptlib.model.config import GPTConfig

_ROTARY = 2**22  # positions times features that a model may have whatever its size: 65,536 by 64


def require_shapes(file: Path, config: GPTConfig, header: Mapping[str, TensorInfo]) -> None:
    """Raise a ValueError unless the header holds the tensors of a GPT of this shape.

    It runs before the model is built, so that no number of a configuration costs memory that the
    weights do not back: not even the tables of rotary positions, which are not stored.
    """
    expected = {}
    for name, shape in weight_shapes(config):
        if name not in header:  # however many blocks there are to be, this stops at the first
            raise broken(file, f"{name} is missing, which config.json's model has; expected the "
                               f"shape {shape}")
        expected[name] = shape
    require_tensors(file, header, expected)
    weights = sum(math.prod(info.shape) for info in header.values())
    longest = max(_ROTARY, weights) // config.head_dim
    if config.position == "rope" and config.context_length > longest:
        raise broken(file, f"config.json's context_length is {config.context_length:,}; expected "
                           f"at most {longest:,} rotary positions for {weights:,} weights")


def weight_shapes(config: GPTConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the weights of `GPT(config)`, one by one: nothing is allocated."""
    C, key_value = config.n_embd, 2 * config.kv_heads * config.head_dim
    norm_bias, bias = config.bias and config.norm == "layernorm", config.bias
    yield "embedding.weight", (config.vocab_size, C)
    if config.position == "learned":
        yield "position_embedding.weight", (config.context_length, C)
    yield from _with_bias("final_norm", (C,), norm_bias)
    if not config.tie_weights:
        yield "output.weight", (config.vocab_size, C)
    for i in range(config.n_layer):
        yield from _with_bias(f"blocks.{i}.norm1", (C,), norm_bias)
        yield from _with_bias(f"blocks.{i}.norm2", (C,), norm_bias)
        yield from _with_bias(f"blocks.{i}.attention.qkv", (C + key_value, C), bias)
        yield from _with_bias(f"blocks.{i}.attention.output", (C, C), bias)
        yield from _with_bias(f"blocks.{i}.feed_forward.up", (config.hidden, C), bias)
        if config.activation == "swiglu":
            yield from _with_bias(f"blocks.{i}.feed_forward.gate", (config.hidden, C), bias)
        yield from _with_bias(f"blocks.{i}.feed_forward.down", (C, config.hidden), bias)


def _with_bias(name: str, shape: tuple[int, ...],
               bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def require_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless all numbers are finite."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise broken(file, f"{name} holds numbers that are not finite in {tensor.dtype}",
                         "take an older checkpoint, or a type with a larger range")
