"""GGUF files of llama.cpp: a small pretrained model in one file, read into `GPT`.

A GGUF file holds a header, key-value metadata (shape of the model, tokenizer, chat template) and
the tensors, most of them quantised in blocks of 32 numbers. Read here are the architecture "llama"
and the tensor types F32, F16, Q8_0 and Q4_1. The format: ggml's docs/gguf.md. What the file says
is used, or known to have no effect on ids and logits (the lists below), or refused by name.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptlib.files import Fields, TensorInfo, broken, require_tensors
from gptlib.formats.gguf_tokenizer import GGUFTokenizer
from gptlib.model.config import GPTConfig, require_count
from gptlib.model.gpt import GPT
from gptlib.text.corpora import member_path

LARGEST_HEADER = 2**24  # bytes of header and metadata; a vocabulary of 49,152 tokens takes 2^21
LARGEST_CONTEXT = 2**22  # context times head_dim, the angles of rotary positions: 64 MB in float32
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # the numbers of GGUF's value types, as struct names them
_STRING, _ARRAY = 8, 9
# tensor types: number, name, elements of a block, layout of a block
_BLOCKS = {
    0: ("F32", 1, np.dtype([("x", "<f4")])),
    1: ("F16", 1, np.dtype([("x", "<f2")])),
    3: ("Q4_1", 32, np.dtype([("scale", "<f2"), ("least", "<f2"), ("q", "u1", 16)])),
    8: ("Q8_0", 32, np.dtype([("scale", "<f2"), ("q", "i1", 32)])),
}
_BLOCK = {"attn_norm": "norm1", "attn_output": "attention.output", "ffn_norm": "norm2",
          "ffn_gate": "feed_forward.gate", "ffn_up": "feed_forward.up",
          "ffn_down": "feed_forward.down"}
# what a file tells of itself to people and to catalogues: no effect on ids and logits
_TOLD = tuple(f"general.{name}" for name in (
    "name", "author", "version", "organization", "finetune", "basename", "description",
    "quantized_by", "size_label", "license", "license.name", "license.link", "url", "doi", "uuid",
    "repo_url", "tags", "languages", "file_type"))
_TOLD_BEGINNINGS = ("general.source.", "general.base_model.", "general.dataset.",
                    "general.sampling.", "quantize.imatrix.")


@dataclass(frozen=True)
class GGUF:
    """An opened file: `metadata` by key, and where each tensor lies."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int, int]]  # name: shape (rows, .., columns), type,
    # first byte

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor in float32, its quantised blocks multiplied out."""
        if name not in self.tensors:
            raise ValueError(f"{self.path.name} has no tensor {name!r}; it has "
                             f"{', '.join(list(self.tensors)[:3])}, ...")
        shape, kind, start = self.tensors[name]
        _, size, layout = _BLOCKS[kind]
        blocks = np.memmap(self.path, layout, "r", start, shape=(math.prod(shape) // size,))
        with np.errstate(invalid="ignore"):  # infinity times zero: `load_gguf` refuses it by name
            return torch.from_numpy(dequantise(blocks).reshape(shape))


def dequantise(blocks: np.ndarray) -> np.ndarray:
    """Quantised blocks (N,) to float32 numbers (N * elements of a block,).

    Q8_0 keeps 32 numbers as a scale and 32 whole numbers from -128 to 127: x = scale * q.
    Q4_1 keeps a scale, the least of the 32 and 4 bits each: x = least + scale * q, q from 0 to 15;
    byte i holds q[i] in its lower half and q[i + 16] in its upper.
    """
    if "x" in blocks.dtype.names:
        return blocks["x"].astype(np.float32)
    scale = blocks["scale"].astype(np.float32)[:, None]
    if "least" not in blocks.dtype.names:
        return (scale * blocks["q"]).ravel()
    q = np.concatenate((blocks["q"] & 15, blocks["q"] >> 4), axis=1)
    return (blocks["least"].astype(np.float32)[:, None] + scale * q).ravel()


def load_gguf(path: str | Path | None = None, *, context_length: int | None = None,
              dtype: torch.dtype = torch.float32) -> tuple[GPT, GGUFTokenizer]:
    """A `GPT` in eval mode and its tokenizer from a GGUF file of the architecture "llama".

    Without a path: SmolLM2-135M-Instruct, fetched on first use (93 MB). `context_length` shortens
    the context, and with it the memory of a KV cache. Raises ValueError for other architectures
    and tensor types, for damaged files, and for whatever the file says that nothing here reads.
    """
    if dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype is {dtype}; expected float64, float32, bfloat16 or float16")
    if context_length is not None:
        require_count("context_length", context_length)
    if path is None:
        path = member_path("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    file = read_gguf(path)
    tokenizer = GGUFTokenizer(file.metadata, file.path)
    config = _shortened(file, _config(file, tokenizer.vocab_size), context_length)
    require_tensors(file.path, {name: TensorInfo("F32", shape)  # all are read as float32
                                for name, (shape, _, _) in file.tensors.items()}, _shapes(config))
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
        model = GPT(config).to(dtype).requires_grad_(False)
    state = model.state_dict()
    for name, tensor in _weights(file, config, dtype):
        state[name].copy_(tensor)
    return model.eval(), tokenizer


def _config(file: GGUF, vocab_size: int) -> GPTConfig:
    """The model's shape; missing keys have llama.cpp's defaults."""
    fields = Fields(file.path, {key: value for key, value in file.metadata.items()
                                if not key.startswith("tokenizer.")})  # read by the tokenizer
    fields.read("general.architecture", str, choices=("llama",))
    fields.read("general.type", str, "model", choices=("model",))
    fields.read("general.quantization_version", int, 2, choices=(2,))  # of the blocks' layouts
    fields.read("general.alignment", int, 32)  # checked where the tensors are placed
    fields.ignore(*_TOLD, *(k for k in fields.values if k.startswith(_TOLD_BEGINNINGS)))
    count = {"kind": int, "least": 1}
    heads = fields.read("llama.attention.head_count", **count)
    width = fields.read("llama.embedding_length", **count)
    values = dict(
        vocab_size=vocab_size, n_head=heads, n_embd=width,
        context_length=fields.read("llama.context_length", **count),
        n_layer=fields.read("llama.block_count", **count, most=len(file.tensors)),
        n_kv_head=fields.read("llama.attention.head_count_kv", **count, default=heads),
        mlp_hidden=fields.read("llama.feed_forward_length", **count),
        rope_base=fields.read("llama.rope.freq_base", float, 10_000.0, least=1),
        norm_eps=fields.read("llama.attention.layer_norm_rms_epsilon", float, least=0),
        position="rope", norm="rmsnorm", activation="swiglu", bias=False,
        tie_weights="output.weight" not in file.tensors)
    for name in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        fields.read(f"llama.{name}", int, width // heads, choices=(width // heads,))
    fields.read("llama.vocab_size", int, vocab_size, choices=(vocab_size,))
    fields.read("llama.attention.causal", bool, True, choices=(True,))
    fields.read("llama.rope.scaling.type", str, "none", choices=("none",))
    for name in ("expert_count", "expert_used_count"):
        fields.read(f"llama.{name}", int, 0, choices=(0,))
    fields.finish()
    try:
        return GPTConfig(**values)
    except ValueError as error:
        raise broken(file.path, str(error)) from error


def _shortened(file: GGUF, config: GPTConfig, context_length: int | None) -> GPTConfig:
    own = config.context_length
    if context_length is not None and context_length > own:
        raise ValueError(f"context_length is {context_length:,}; {file.path.name} was trained on "
                         f"{own:,} positions: choose at most that")
    config = replace(config, context_length=own if context_length is None else context_length)
    if config.context_length * config.head_dim > LARGEST_CONTEXT:
        raise broken(file.path, f"llama.context_length is {own:,}, which takes more memory than "
                                f"this reader gives unasked",
                     f"pass context_length, at most {LARGEST_CONTEXT // config.head_dim:,}")
    return config


def _shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that the file must have, and of no other."""
    C, key_value = config.n_embd, config.kv_heads * config.head_dim
    shapes = {"token_embd.weight": (config.vocab_size, C), "output_norm.weight": (C,)}
    if not config.tie_weights:
        shapes["output.weight"] = (config.vocab_size, C)
    block = {"attn_norm": (C,), "attn_q": (C, C), "attn_k": (key_value, C),
             "attn_v": (key_value, C), "attn_output": (C, C), "ffn_norm": (C,),
             "ffn_gate": (config.hidden, C), "ffn_up": (config.hidden, C),
             "ffn_down": (C, config.hidden)}
    return shapes | {f"blk.{layer}.{name}.weight": shape for layer in range(config.n_layer)
                     for name, shape in block.items()}


def _weights(file: GGUF, config: GPTConfig, dtype: torch.dtype
             ) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights under the names of `GPT`, one by one."""

    def read(name: str) -> torch.Tensor:
        tensor = file.tensor(f"{name}.weight").to(dtype)
        if not tensor.isfinite().all():
            raise broken(file.path, f"{name}.weight holds numbers that are not finite in {dtype}")
        return tensor

    yield "embedding.weight", read("token_embd")
    yield "final_norm.weight", read("output_norm")
    if not config.tie_weights:
        yield "output.weight", read("output")
    for layer in range(config.n_layer):
        for theirs, ours in _BLOCK.items():
            yield f"blocks.{layer}.{ours}.weight", read(f"blk.{layer}.{theirs}")
        q, k, v = (read(f"blk.{layer}.attn_{part}") for part in "qkv")
        qkv = (_halves(q, config.n_head), _halves(k, config.kv_heads), v)
        yield f"blocks.{layer}.attention.qkv.weight", torch.cat(qkv)


def _halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo llama.cpp's order of rows: it turns neighbours (2i, 2i + 1), `GPT` (i, i + D/2)."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weight.shape)


# ---- the container


def read_gguf(path: str | Path) -> GGUF:
    """Read header and metadata; tensors stay on disk until they are asked for.

    Every count, length and place is held against the file's size before anything is made of it.
    """
    path = Path(path)
    if not path.is_file() or not path.stat().st_size:
        what = "is empty" if path.is_file() else "does not exist"
        raise ValueError(f"{path} {what}; expected a GGUF file")
    with open(path, "rb") as file:
        content = file.read(LARGEST_HEADER)
    if content.startswith(b"version https://git-lfs"):
        raise broken(path, "it is the pointer of Git LFS, not the file itself",
                     "run `git lfs pull` where it came from")
    if content[:4] != b"GGUF":
        raise ValueError(f"{path} begins with {content[:4]!r}; expected a GGUF file")
    return _read_header(_Reader(path, content))


class _Reader:
    """Reads the header's values one after the other; `reading` says in errors which one."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content, self.position = path, content, 4  # behind the word GGUF
        self.reading = "the header"

    def need(self, count: int, size: int) -> int:
        """The position, if `count` values of at least `size` bytes can follow."""
        left = len(self.content) - self.position
        if count * size > left:
            raise broken(self.path, f"{self.reading} is damaged or cut off: {count:,} values of "
                                    f"{size} bytes or more are announced, {left:,} bytes are left")
        return self.position

    def scalar(self, code: str) -> Any:
        size = struct.calcsize("<" + code)
        (value,) = struct.unpack_from("<" + code, self.content, self.need(1, size))
        self.position += size
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        start = self.need(length, 1)
        self.position += length
        try:
            return self.content[start:self.position].decode("utf-8")
        except UnicodeDecodeError as error:
            raise broken(self.path, f"{self.reading} is damaged: {error}") from error

    def value(self) -> Any:
        kind = self.scalar("I")
        if kind != _ARRAY:
            return self.values(kind, 1)[0]
        return self.values(self.scalar("I"), self.scalar("Q"))

    def values(self, kind: int, count: int) -> list:
        if kind == _STRING:
            self.need(count, 8)
            return [self.string() for _ in range(count)]
        if kind not in _SCALARS:  # lists in lists among them, which llama.cpp has not either
            raise broken(self.path, f"{self.reading} has the value type {kind}; expected a number, "
                                    f"a text, or a list of them")
        code = _SCALARS[kind]
        size = struct.calcsize("<" + code)
        start = self.need(count, size)
        self.position += count * size
        if code == "?" and max(self.content[start:self.position], default=0) > 1:
            raise broken(self.path, f"{self.reading} is damaged: expected 0 or 1 for a bool")
        return list(struct.unpack_from(f"<{count}{code}", self.content, start))


def _read_header(reader: _Reader) -> GGUF:
    version = reader.scalar("I")
    if version not in (2, 3):
        big = ": its bytes are in big-endian order" if version >> 24 in (1, 2, 3) else ""
        raise broken(reader.path, f"it has GGUF version {version}{big}; expected 2 or 3, "
                                  f"little-endian")
    tensor_count, pair_count = reader.scalar("Q"), reader.scalar("Q")
    reader.need(tensor_count, 24)
    reader.need(pair_count, 13)
    metadata: dict[str, Any] = {}
    for number in range(pair_count):
        reader.reading = f"key number {number}, behind {reader.reading},"
        key = reader.string()
        reader.reading = key
        if key in metadata:
            raise broken(reader.path, f"the key {key} stands twice")
        metadata[key] = reader.value()
    infos = [_read_info(reader, number) for number in range(tensor_count)]
    return GGUF(reader.path, metadata, _places(reader, metadata, infos))


def _read_info(reader: _Reader, number: int) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and place of one tensor."""
    reader.reading = f"tensor number {number}"
    name, dimensions = reader.string(), reader.scalar("I")
    reader.reading = f"the tensor {name!r}"
    if not 1 <= dimensions <= 4:
        raise broken(reader.path, f"{reader.reading} has {dimensions} dimensions; expected 1 to 4")
    shape = tuple(reader.scalar("Q") for _ in range(dimensions))[::-1]  # stored fastest first
    kind, offset = reader.scalar("I"), reader.scalar("Q")
    if kind not in _BLOCKS:
        known = ", ".join(block[0] for block in _BLOCKS.values())
        raise broken(reader.path, f"the tensor {name!r} has GGUF type {kind}; expected one of "
                                  f"{known}")
    if shape[-1] % _BLOCKS[kind][1] or 0 in shape:
        raise broken(reader.path, f"the tensor {name!r} has the shape {shape}; expected rows of "
                                  f"whole blocks of {_BLOCKS[kind][1]}")
    return name, shape, kind, offset


def _places(reader: _Reader, metadata: dict[str, Any],
            infos: list[tuple[str, tuple[int, ...], int, int]]
            ) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Where each tensor lies: one behind the other, from multiple to multiple of the alignment."""
    alignment = Fields(reader.path, metadata).read("general.alignment", int, 32, least=8,
                                                   most=2**20)
    if alignment & alignment - 1:
        raise broken(reader.path, f"general.alignment is {alignment}; expected a power of two")

    def aligned(position: int) -> int:
        return -(-position // alignment) * alignment

    start, size = aligned(reader.position), reader.path.stat().st_size
    tensors, end = {}, start
    for name, shape, kind, offset in infos:
        if name in tensors:
            raise broken(reader.path, f"the tensor {name!r} stands twice")
        if start + offset != aligned(end):
            raise broken(reader.path, f"the tensor {name!r} begins at byte {offset:,} of the "
                                      f"numbers; expected {aligned(end) - start:,}, behind the one "
                                      f"before it")
        _, items, layout = _BLOCKS[kind]
        end = start + offset + math.prod(shape) // items * layout.itemsize
        if end > size:
            raise broken(reader.path, f"it has {size:,} bytes and ends within the tensor {name!r}; "
                                      f"it was cut off: fetch it again")
        tensors[name] = (shape, kind, start + offset)
    if size > max(aligned(end), start):
        raise broken(reader.path, f"it has {size:,} bytes, and its last tensor ends at {end:,}; "
                                  f"expected nothing behind it")
    return tensors
