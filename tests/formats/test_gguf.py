"""GGUF files: small ones written by the `gguf` library, and the real one that the book uses."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from gptlib.formats.gguf import GGUFTokenizer, dequantise, load_gguf, read_gguf
from gptlib.text.corpora import member_path
from gptlib.text.tokenizers import BYTE_ORDER, BPETokenizer
from gptlib.writing.generation import generate

MERGES = BPETokenizer.train("the fox and the hen and the fox said that the hen is there " * 9,
                            vocab_size=280, special_tokens=()).merges
SPECIAL = ["<|endoftext|>", "<|im_end|>"]


def visible(piece: bytes) -> str:
    vocabulary = BPETokenizer([], ())._vocabulary()
    characters = {BYTE_ORDER[i]: token for token, i in vocabulary.items()}
    return "".join(characters[byte] for byte in piece)


def write_file(path, kind=Kind.F32, architecture="llama", pre="smollm", leave_out=()):
    """A model of 2 layers, 64 wide, 4 heads and 2 for keys and values, with random weights."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(32)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    pieces = [bytes([byte]) for byte in BYTE_ORDER] + [left + right for left, right in MERGES]
    tokens = SPECIAL + [visible(piece) for piece in pieces]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * len(pieces))
    writer.add_token_merges([f"{visible(left)} {visible(right)}" for left, right in MERGES])
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), 64), "output_norm": (64,)}
    for layer in range(2):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in {
            "attn_norm": (64,), "attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64),
            "attn_output": (64, 64), "ffn_norm": (64,), "ffn_gate": (96, 64),
            "ffn_up": (96, 64), "ffn_down": (64, 96)}.items()}
    for name, shape in shapes.items():
        values = rng.normal(0, 0.3, shape).astype(np.float32)
        if name in leave_out:
            continue
        if len(shape) == 1 or kind == Kind.F32:
            writer.add_tensor(f"{name}.weight", values)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_1, Kind.F16])
def test_quantised_tensors_equal_those_of_the_gguf_library(tmp_path, kind):
    path = write_file(tmp_path / "model.gguf", kind)
    theirs = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
              for tensor in gguf.GGUFReader(path).tensors}
    ours = read_gguf(path)
    assert set(ours.tensors) == set(theirs)
    for name, values in theirs.items():
        got = ours.tensor(name)
        assert got.dtype == torch.float32 and tuple(got.shape) == values.shape
        np.testing.assert_allclose(got.numpy(), values, rtol=1e-6, atol=1e-6)


def test_a_block_of_four_bits_by_hand():
    layout = np.dtype([("scale", "<f2"), ("least", "<f2"), ("q", "u1", 16)])
    block = np.zeros(1, layout)
    block["scale"], block["least"] = 0.5, -2.0
    block["q"][0, 0], block["q"][0, 15] = 0x31, 0xF0  # q[0] = 1, q[16] = 3; q[15] = 0, q[31] = 15
    x = dequantise(block)
    assert (x[0], x[16], x[15], x[31]) == (-1.5, -0.5, -2.0, 5.5)


def test_a_small_file_gives_the_logits_of_transformers_reading_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    path = write_file(tmp_path / "model.gguf")
    model, tokenizer = load_gguf(path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        str(tmp_path), gguf_file=path.name, dtype=torch.float32)
    ids = torch.tensor([tokenizer.encode("the fox said 12 hens")])
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_the_context_and_the_type_of_the_weights_can_be_chosen(tmp_path):
    model, _ = load_gguf(write_file(tmp_path / "model.gguf"), context_length=8,
                         dtype=torch.bfloat16)
    assert model.config.context_length == 8 and not model.training
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.tensor([[5, 6, 7]])).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="context_length is 8"):
        model(torch.zeros(1, 9, dtype=torch.int64))


def test_the_tokenizer_splits_digits_and_keeps_special_tokens_apart(tmp_path):
    tokenizer = GGUFTokenizer(read_gguf(write_file(tmp_path / "m.gguf")).metadata)
    ids = tokenizer.encode("the 12<|im_end|>", allow_special=True)
    assert [tokenizer.token_bytes[i] for i in ids] == [b"the", b" ", b"1", b"2", b"<|im_end|>"]
    assert ids[-1] == 1 == tokenizer.special_tokens["<|im_end|>"]
    assert 1 not in tokenizer.encode("<|im_end|>")  # ordinary text unless allowed
    for text in ("", "naïve 🎉\n\n x", "你好"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bad_files_are_refused_with_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="missing.gguf does not exist"):
        read_gguf(tmp_path / "missing.gguf")
    path = tmp_path / "other.gguf"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        read_gguf(path)
    path.write_bytes(b"PK\x03\x04 not this")
    with pytest.raises(ValueError, match="expected a GGUF file"):
        read_gguf(path)
    whole = write_file(tmp_path / "whole.gguf").read_bytes()
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
    with pytest.raises(ValueError, match="architecture 'qwen2'"):
        load_gguf(write_file(tmp_path / "a.gguf", architecture="qwen2"))
    with pytest.raises(ValueError, match="GGUF type 2"):
        load_gguf(write_file(tmp_path / "b.gguf", Kind.Q4_0))
    with pytest.raises(ValueError, match="tokenizer is .*'llama-bpe'"):
        load_gguf(write_file(tmp_path / "c.gguf", pre="llama-bpe"))
    with pytest.raises(ValueError, match="no tensor 'blk.1.attn_k.weight'"):
        load_gguf(write_file(tmp_path / "d.gguf", leave_out=("blk.1.attn_k",)))


@pytest.fixture(scope="module")
def smollm2():
    return load_gguf(context_length=128)


@pytest.fixture(scope="module")
def reference():
    """The same file read by Transformers."""
    transformers = pytest.importorskip("transformers")
    path = member_path("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(str(path.parent),
                                                             gguf_file=path.name)


HARD = ["Once upon a time, there were 1234 foxes.", "it's 3.14159 …\n\n  \"Hello\"\t",
        "你好，世界 🎉 é", "def f(x):\n\treturn x**2  # comment\n",
        "<|im_start|>user\nHi<|im_end|>\n"]


def test_the_real_tokenizer_gives_the_ids_of_transformers(smollm2, reference):
    for text in HARD:
        ids = smollm2[1].encode(text, allow_special=True)
        assert ids == reference[1](text, add_special_tokens=False)["input_ids"], text
        assert smollm2[1].decode(ids) == text


def test_digits_are_cut_off_before_words_are_split_as_in_llama_cpp(smollm2):
    # Transformers splits words first, which differs for two spaces before a digit only.
    tokenizer = smollm2[1]
    assert [tokenizer.token_bytes[i] for i in tokenizer.encode("a  3")] == [b"a", b"  ", b"3"]


def test_the_real_model_gives_the_logits_of_transformers(smollm2, reference):
    model, tokenizer = smollm2
    assert model.num_parameters() == 134_515_008
    ids = torch.tensor([tokenizer.encode(HARD[0] + HARD[3])])
    with torch.no_grad():
        torch.testing.assert_close(model(ids), reference[0](ids).logits, atol=5e-4, rtol=0)


def test_the_real_model_answers_and_stops(smollm2):
    model, tokenizer = smollm2
    prompt = ("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
              "<|im_start|>assistant\n")
    ids = torch.tensor(tokenizer.encode(prompt, allow_special=True))
    end = tokenizer.special_tokens["<|im_end|>"]
    out = generate(model, ids, max_new_tokens=20, temperature=0, stop_tokens=[end])[0]
    assert tokenizer.decode(out[len(ids):]) == "The capital of France is Paris.<|im_end|>"
