"""GGUF files that are refused: damaged ones, and those that say what nothing here reads."""

import struct

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from mutations import limits
from small_gguf import TOKENS, tensors, write_gguf

from gptlib.formats.gguf import load_gguf, read_gguf


def test_bad_files_are_refused_with_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="missing.gguf does not exist"):
        read_gguf(tmp_path / "missing.gguf")
    with pytest.raises(ValueError, match="expected a GGUF file"):
        load_gguf("")  # no path is another thing than an empty one
    path = tmp_path / "other.gguf"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        read_gguf(path)
    path.write_bytes(b"PK\x03\x04 not this")
    with pytest.raises(ValueError, match="expected a GGUF file"):
        read_gguf(path)
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    path.write_bytes(whole[:3000])
    with pytest.raises(ValueError, match="damaged or cut off"):
        read_gguf(path)
    path.write_bytes(whole[:-500])
    with pytest.raises(ValueError, match="it was cut off"):
        load_gguf(path)
    path.write_bytes(whole[:4] + (9).to_bytes(4, "little") + whole[8:])
    with pytest.raises(ValueError, match="GGUF version 9"):
        read_gguf(path)


def test_files_of_another_kind_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="general.architecture is 'qwen2'"):
        load_gguf(write_gguf(tmp_path / "a.gguf", architecture="qwen2"))
    with pytest.raises(ValueError, match="GGUF type 2"):
        load_gguf(write_gguf(tmp_path / "b.gguf", Kind.Q4_0))
    with pytest.raises(ValueError, match="tokenizer.ggml.pre is 'llama-bpe'"):
        load_gguf(write_gguf(tmp_path / "c.gguf", keys={"tokenizer.ggml.pre": "llama-bpe"}))
    with pytest.raises(ValueError, match="blk.1.attn_k.weight is missing"):
        load_gguf(write_gguf(tmp_path / "d.gguf", weights={"blk.1.attn_k.weight": None}))


@pytest.mark.parametrize("name, shape", [
    ("blk.0.attn_q.bias", (64,)), ("blk.1.attn_k.bias", (32,)), ("blk.1.attn_v.bias", (32,)),
    ("blk.0.attn_output.bias", (64,)), ("blk.0.ffn_down.bias", (64,)), ("rope_freqs.weight", (8,)),
    ("blk.0.ffn_gate_inp.weight", (2, 64)), ("blk.2.attn_norm.weight", (64,)),
    ("output.bias", (len(TOKENS),)), ("stranger", (3,))])
def test_a_tensor_that_nothing_reads_is_refused_by_name(tmp_path, name, shape):
    path = write_gguf(tmp_path / "a.gguf", weights={name: np.ones(shape, np.float32)})
    with pytest.raises(ValueError, match=f"a.gguf: it holds {name}"):
        load_gguf(path)


@pytest.mark.parametrize("key, value", [
    ("rope.scaling.type", "linear"), ("rope.scaling.type", "yarn"), ("rope.scaling.factor", 2.0),
    ("rope.scale_linear", 2.0), ("rope.scaling.original_context_length", 16),
    ("rope.scaling.attn_factor", 2.0), ("rope.dimension_count", 8), ("rope.freq_base", 0.0),
    ("rope.freq_base", float("nan")), ("rope.freq_base", "10000"), ("rope.freq_base_swa", 1e4),
    ("attention.key_length", 8), ("attention.value_length", 32), ("attention.scale", 0.5),
    ("attention.sliding_window", 8), ("attention.causal", False), ("attention.clamp_kqv", 1.0),
    ("attention.head_count", 3), ("attention.head_count", 2**31), ("attention.head_count_kv", 3),
    ("attention.head_count_kv", [2, 2]), ("attention.head_count_kv", 4),
    ("attention.layer_norm_rms_epsilon", -1.0), ("attention.layer_norm_epsilon", 1e-5),
    ("expert_count", 8), ("expert_used_count", 2), ("logit_scale", 0.5), ("embedding_scale", 12.0),
    ("residual_scale", 0.5), ("final_logit_softcapping", 30.0), ("use_parallel_residual", True),
    ("tensor_data_layout", "Meta AI original pth"), ("vocab_size", 99), ("stranger", 1),
    ("block_count", 1), ("block_count", 3), ("block_count", 2**31), ("block_count", 0),
    ("block_count", True), ("context_length", 0), ("embedding_length", 32),
    ("embedding_length", 2**31), ("feed_forward_length", 64), ("feed_forward_length", "96")])
def test_a_key_that_means_another_model_is_refused(tmp_path, key, value):
    path = write_gguf(tmp_path / "a.gguf", keys={f"llama.{key}": value})
    with limits(), pytest.raises(ValueError, match="a.gguf: ") as error:
        load_gguf(path)
    # a number that contradicts the tensors is shown beside one of them
    assert f"llama.{key} is" in str(error.value) or key in (
        "attention.head_count", "attention.head_count_kv", "block_count", "embedding_length",
        "feed_forward_length")


@pytest.mark.parametrize("key, value", [
    ("general.type", "adapter"), ("general.quantization_version", 1), ("general.stranger", "x"),
    ("split.count", 2), ("llama", 1), ("qwen2.block_count", 2), ("adapter.type", "lora")])
def test_other_keys_are_refused_by_name(tmp_path, key, value):
    with pytest.raises(ValueError, match=f"a.gguf: {key} is "):
        load_gguf(write_gguf(tmp_path / "a.gguf", keys={key: value}))


@pytest.mark.parametrize("key", [
    "block_count", "context_length", "embedding_length", "feed_forward_length",
    "attention.head_count", "attention.layer_norm_rms_epsilon"])
def test_a_key_without_a_default_is_asked_for(tmp_path, key):
    with pytest.raises(ValueError, match=f"a.gguf: llama.{key} is missing"):
        load_gguf(write_gguf(tmp_path / "a.gguf", keys={f"llama.{key}": None}))


def test_a_file_with_many_layers_in_its_words_only_is_refused_at_once(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", keys={"llama.block_count": 20_000})
    with limits(seconds=1), pytest.raises(ValueError, match="llama.block_count is 20000"):
        load_gguf(path)


# ---- damaged containers, byte by byte


@pytest.fixture
def whole(tmp_path) -> tuple:
    path = write_gguf(tmp_path / "a.gguf", keys={"general.alignment": 32})
    return path, path.read_bytes()


def number_after(content: bytes, text: bytes, number: bytes, skip: int = 0) -> bytes:
    """`content` with `number` written `skip` bytes behind the first `text`."""
    at = content.index(text) + len(text) + skip
    return content[:at] + number + content[at + len(number):]


def u32(n: int) -> bytes:
    return struct.pack("<I", n)


def u64(n: int) -> bytes:
    return struct.pack("<Q", n)


@pytest.mark.parametrize("change, message", [
    (lambda c: c[:8] + u64(2**60) + c[16:], "header .* 1,152,921,504,606,846,976 values"),
    (lambda c: c[:16] + u64(2**60) + c[24:], "header .* are announced"),
    (lambda c: c[:24] + u64(2**60) + c[32:], "key number 0, .* are announced"),
    (lambda c: number_after(c, b"llama.block_count", u32(99)), "llama.block_count has the value"),
    (lambda c: number_after(c, b"ggml.tokens", u64(2**60), 8), "tokenizer.ggml.tokens is damaged"),
    (lambda c: number_after(c, b"ggml.tokens", u64(2**63), 16), "tokenizer.ggml.tokens is damag"),
    (lambda c: number_after(c, b"ggml.token_type", u64(2**62), 8), "tokenizer.ggml.token_type is"),
    (lambda c: number_after(c, b"ggml.tokens", u32(9), 4), "ggml.tokens has the value type 9"),
    (lambda c: number_after(c, b"ggml.tokens", u32(10), 4), "number 12, behind token.*ggml.tokens"),
    (lambda c: c.replace(b"<|im_end|>", b"<|im_\xff\xfe|>"), "tokenizer.ggml.tokens .*utf-8"),
    (lambda c: c.replace(b"llama.block_count", b"llama.block_" + 5 * b"\xff"), "number 1,"),
    (lambda c: c.replace(b"llama.rope.freq_base", b"llama.context_length"), "stands twice"),
    (lambda c: c.replace(b"blk.1.ffn_up", b"blk.0.ffn_up"), "'blk.0.ffn_up.weight' stands twice"),
    (lambda c: number_after(c, b"alignment", u32(0), 4), "general.alignment is 0"),
    (lambda c: number_after(c, b"alignment", u32(33), 4), "general.alignment is 33"),
    (lambda c: number_after(c, b"alignment", u32(48), 4), "general.alignment is 48"),
    (lambda c: number_after(c, b"alignment", u32(2**31), 4), "general.alignment is 2147483648"),
    (lambda c: number_after(c, b"output_norm.weight", u32(2**31)), "2147483648 dimensions"),
    (lambda c: number_after(c, b"output_norm.weight", u32(0)), "0 dimensions"),
    (lambda c: number_after(c, b"output_norm.weight", u64(0), 4), r"shape \(0,\)"),
    (lambda c: number_after(c, b"output_norm.weight", u64(2**63), 4), "ends within the tensor"),
    (lambda c: number_after(c, b"token_embd.weight", 2 * u64(2**32), 4), "ends within the tens"),
    (lambda c: number_after(c, b"output_norm.weight", u32(77), 12), "GGUF type 77"),
    (lambda c: number_after(c, b"output_norm.weight", u64(2**62), 16), "'output_norm.weight' beg"),
    (lambda c: number_after(c, b"output_norm.weight", u64(0), 16), "'output_norm.weight' begins"),
    (lambda c: number_after(c, b"output_norm.weight", u64(33), 16), "'output_norm.weight' begins"),
    (lambda c: c + bytes(64), "expected nothing behind it"),
    (lambda c: b"GGUF" + struct.pack(">IQQ", 3, 20, 14) + c[24:], "big-endian"),
    (lambda c: b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
])
def test_what_a_damaged_file_says_costs_no_time_and_no_memory(whole, change, message):
    path, content = whole
    damaged = change(content)
    assert damaged != content
    path.write_bytes(damaged)
    with limits(), pytest.raises(ValueError, match=f"(?s)a.gguf.*{message}"):
        load_gguf(path)


def test_rows_that_are_no_whole_blocks_are_refused(tmp_path):
    content = write_gguf(tmp_path / "a.gguf", Kind.Q8_0).read_bytes()
    (tmp_path / "a.gguf").write_bytes(number_after(content, b"token_embd.weight", u64(65), 4))
    with pytest.raises(ValueError, match=r"shape \(281, 65\); expected rows of whole blocks of 32"):
        read_gguf(tmp_path / "a.gguf")


def test_a_bool_that_is_neither_0_nor_1_is_refused(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", keys={"tokenizer.ggml.add_bos_token": False})
    assert load_gguf(path)
    path.write_bytes(number_after(path.read_bytes(), b"add_bos_token", b"\2", 4))
    with pytest.raises(ValueError, match="a.gguf: tokenizer.ggml.add_bos_token is damaged"):
        load_gguf(path)


def test_the_same_token_twice_is_found_in_time_in_a_large_vocabulary(tmp_path):
    tokens = [*TOKENS[:2], *(chr(256 + i // 300) * (1 + i % 300) for i in range(40_000)), "a"]
    path = write_gguf(tmp_path / "a.gguf", weights=tensors(len(TOKENS)), keys={
        "tokenizer.ggml.tokens": [*tokens, tokens[-2]], "tokenizer.ggml.token_type": None})
    with limits(), pytest.raises(ValueError, match="tokenizer.ggml.tokens holds .* 2 times"):
        load_gguf(path)
