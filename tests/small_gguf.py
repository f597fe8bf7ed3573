"""Small GGUF files, written by the `gguf` library with any key or tensor changed, for the tests."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as Type

from gptlib.text.bpe import BYTE_CHARACTERS, BYTE_ORDER
from gptlib.text.tokenizers import BPETokenizer

MERGES = BPETokenizer.train("the fox and the hen and the fox said that the hen is there " * 9,
                            vocab_size=280, special_tokens=()).merges
SPECIAL = ["<|endoftext|>", "<|im_end|>"]


def visible(piece: bytes) -> str:
    """Bytes in the visible characters that files keep them in."""
    return "".join(BYTE_CHARACTERS[byte] for byte in piece)


PIECES = [bytes([byte]) for byte in BYTE_ORDER] + [left + right for left, right in MERGES]
TOKENS = SPECIAL + [visible(piece) for piece in PIECES]
TYPES = [3, 3] + [1] * len(PIECES)


def metadata() -> dict[str, Any]:
    """A model of 2 layers, 64 wide, 4 heads and 2 for keys and values; the types are guessed."""
    return {
        "llama.block_count": 2, "llama.context_length": 32, "llama.embedding_length": 64,
        "llama.feed_forward_length": 96, "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.merges": [f"{visible(left)} {visible(right)}" for left, right in MERGES]}


def tensors(vocab_size: int = len(TOKENS), n_layer: int = 2, kv: int = 32, width: int = 64,
            hidden: int = 96) -> dict[str, np.ndarray]:
    """Random weights that fit `metadata`."""
    shapes = {"token_embd": (vocab_size, width), "output_norm": (width,)}
    for layer in range(n_layer):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in {
            "attn_norm": (width,), "attn_q": (width, width), "attn_k": (kv, width),
            "attn_v": (kv, width), "attn_output": (width, width), "ffn_norm": (width,),
            "ffn_gate": (hidden, width), "ffn_up": (hidden, width),
            "ffn_down": (width, hidden)}.items()}
    rng = np.random.default_rng(0)
    return {f"{name}.weight": rng.normal(0, 0.3, shape).astype(np.float32)
            for name, shape in shapes.items()}


def write_gguf(path: Path, kind: Kind = Kind.F32, architecture: str = "llama",
               keys: dict[str, Any] | None = None,
               weights: dict[str, np.ndarray | None] | None = None) -> Path:
    """Write a file in which `keys` and `weights` are changed or added; None leaves one out.

    Extra tokens in keys["tokenizer.ggml.tokens"] get rows of the embedding. Matrices become `kind`.
    """
    values = metadata() | (keys or {})
    tokens = values["tokenizer.ggml.tokens"] or TOKENS
    arrays = tensors(len(tokens)) | (weights or {})
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        if value is not None:
            writer.add_key_value(key, value, *_types(value))
    writer.data_alignment = values.get("general.alignment") or 32
    for name, array in arrays.items():
        if array is None:
            continue
        if array.ndim == 1 or kind == Kind.F32:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _types(value: Any) -> tuple[Type, ...]:
    """The GGUF type of a value, and that of the entries of a list."""
    if isinstance(value, list):
        inside = {str: Type.STRING, int: Type.INT32, float: Type.FLOAT32}
        return Type.ARRAY, inside[type((value or [""])[0])]
    alone = {bool: Type.BOOL, int: Type.UINT32, float: Type.FLOAT32, str: Type.STRING}
    return (alone[type(value)],)
