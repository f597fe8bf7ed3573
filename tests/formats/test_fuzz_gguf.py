"""Changed GGUF files: refused by name, or read exactly as the `gguf` library reads them."""

import struct
from pathlib import Path
from typing import Any

import gguf
import hypothesis
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import strategies as st
from mutations import fuzz, limits, mutated_bytes, mutated_json
from small_gguf import metadata, tensors, write_gguf

from gptlib.formats.gguf import load_gguf, read_gguf

SMALL = {"llama.embedding_length": 32, "llama.feed_forward_length": 32, "llama.context_length": 24,
         "llama.attention.head_count": 2, "llama.attention.head_count_kv": 1,
         "llama.rope.dimension_count": 16, "llama.vocab_size": 281, "general.name": "Fox",
         "general.alignment": 32, "tokenizer.ggml.add_bos_token": False,
         "tokenizer.ggml.eos_token_id": 1, "tokenizer.chat_template": "{{ messages }}"}
WEIGHTS = tensors(n_layer=2, kv=16, width=32, hidden=32)
# what a missing key means, in files of this shape
DEFAULTS = {"llama.attention.head_count_kv": 2, "llama.rope.freq_base": 10_000.0,
            "llama.rope.dimension_count": 16, "llama.vocab_size": 281,
            "tokenizer.ggml.add_bos_token": False}
NOT_OF_THE_MODEL = ("general.name", "general.alignment", "tokenizer.chat_template",
                    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.scores")


class Whole:
    """A small file, what the gguf library reads from it, and what we make of it."""

    def __init__(self, file: Path) -> None:
        self.file = write_gguf(file, Kind.Q8_0, keys=SMALL, weights=WEIGHTS)
        self.content, self.meaning = file.read_bytes(), meaning(trusted(file))
        self.ours = summary(*load_gguf(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    return Whole(tmp_path_factory.mktemp("fuzz") / "fox.gguf")


def trusted(file) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and tensors as the gguf library reads them."""
    reader = gguf.GGUFReader(file)
    values = {key: field.contents() for key, field in reader.fields.items()
              if not key.startswith("GGUF.")}
    with np.errstate(all="ignore"):
        return values, {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
                        for tensor in reader.tensors}


def meaning(theirs: tuple[dict[str, Any], dict[str, np.ndarray]]) -> tuple:
    """What of a file decides ids and logits."""
    values = {k: v for k, v in (DEFAULTS | theirs[0]).items() if k not in NOT_OF_THE_MODEL}
    kinds = values.get("tokenizer.ggml.token_type", [1] * len(values["tokenizer.ggml.tokens"]))
    values["tokenizer.ggml.token_type"] = [3 if kind == 2 else kind for kind in kinds]  # special
    return values, {name: array.tobytes() for name, array in theirs[1].items()}


def summary(model, tokenizer) -> tuple:
    """What of the object that was read decides ids and logits."""
    return (model.config, {name: tensor.numpy().tobytes() for name, tensor
                           in model.state_dict().items()}, tokenizer.token_bytes,
            tokenizer.special_tokens, tokenizer._user_defined, tokenizer._bpe.merges)


def check_read(whole: Whole, content: bytes) -> None:
    """Read a changed file within the limits and hold what comes out against the gguf library."""
    whole.file.write_bytes(content)
    try:
        with limits():
            model, tokenizer = load_gguf(whole.file)
            ours = read_gguf(whole.file)
    except ValueError as error:
        assert type(error) is ValueError and str(whole.file) in str(error)
        hypothesis.event("refused")
        return
    theirs = trusted(whole.file)
    assert ours.metadata == theirs[0] and set(ours.tensors) == set(theirs[1])
    for name, array in theirs[1].items():
        np.testing.assert_array_equal(ours.tensor(name).numpy(), array)
    with torch.no_grad():
        assert model(torch.tensor([[1]])).shape == (1, 1, tokenizer.vocab_size)
    same = meaning(theirs) == whole.meaning
    assert (summary(model, tokenizer) == whole.ours) == same
    hypothesis.event("the same" if same else "other numbers")


@fuzz
@hypothesis.given(st.data())
def test_changed_bytes_are_refused_or_read_as_the_gguf_library_does(whole, data):
    at = data.draw(st.just(0) | st.integers(0, 7_000))  # the header has 6,272 bytes
    content = whole.content
    check_read(whole, content[:at] + mutated_bytes(data.draw, content[at:]))


@fuzz
@hypothesis.given(st.data())
def test_changed_metadata_is_refused_or_read_as_the_gguf_library_does(whole, data):
    values = mutated_json(data.draw, {"general.architecture": "llama", **metadata(), **SMALL})
    check_read(whole, with_metadata(whole.content, values))


def with_metadata(content: bytes, values: dict[str, Any]) -> bytes:
    """The small file with other metadata; what GGUF has no type for is left out."""
    pairs = [text(key) + packed for key, value in values.items() if (packed := pack(value))]
    first, last = b"token_embd.weight", b"blk.1.ffn_down.weight"
    begin = content.index(struct.pack("<Q", len(first)) + first)
    end = content.index(last) + len(last) + 32  # dimensions, shape, type and place
    header = content[:16] + struct.pack("<Q", len(pairs)) + b"".join(pairs) + content[begin:end]
    return header + bytes(-len(header) % 32) + content[end + -end % 32:]


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded


def pack(value: Any) -> bytes:
    """Type and value as GGUF keeps them; nothing for what it has no type for."""
    if isinstance(value, list):
        entries = [pack(entry) for entry in value]
        kinds = {entry[:4] for entry in entries} or {struct.pack("<I", 8)}
        if len(kinds) > 1 or b"" in kinds:
            return b""
        return (struct.pack("<I", 9) + kinds.pop() + struct.pack("<Q", len(entries))
                + b"".join(entry[4:] for entry in entries))
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, float):
        fits = not 3e38 < abs(value) < float("inf")
        return struct.pack("<If", 6, value) if fits else struct.pack("<Id", 12, value)
    if isinstance(value, int) and -2**63 <= value < 2**64:
        code = (4, "I") if 0 <= value < 2**32 else (11, "q") if value < 0 else (10, "Q")
        return struct.pack(f"<I{code[1]}", code[0], value)
    return b""
