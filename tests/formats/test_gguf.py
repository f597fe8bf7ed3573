"""GGUF models: small ones written by the `gguf` library, and the real one that the book uses."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from small_gguf import TOKENS, tensors, write_gguf

from gptlib.formats.gguf import dequantise, load_gguf, read_gguf
from gptlib.text.corpora import member_path
from gptlib.writing.generation import generate


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_1, Kind.F16])
def test_quantised_tensors_equal_those_of_the_gguf_library(tmp_path, kind):
    path = write_gguf(tmp_path / "model.gguf", kind)
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
    path = write_gguf(tmp_path / "model.gguf")
    model, tokenizer = load_gguf(path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        str(tmp_path), gguf_file=path.name, dtype=torch.float32)
    ids = torch.tensor([tokenizer.encode("the fox said 12 hens")])
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_an_output_layer_of_its_own_and_a_key_for_each_head_are_read_alike(tmp_path):
    transformers = pytest.importorskip("transformers")
    own = np.random.default_rng(1).normal(0, 0.3, (len(TOKENS), 64)).astype(np.float32)
    path = write_gguf(tmp_path / "model.gguf", keys={"llama.attention.head_count_kv": 4,
                                                     "llama.rope.freq_base": 100.0},
                      weights=tensors(kv=64) | {"output.weight": own})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        str(tmp_path), gguf_file=path.name, dtype=torch.float32)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_gguf(path)[0](ids), theirs(ids).logits, atol=1e-4,
                                   rtol=1e-4)


def test_missing_keys_have_the_defaults_of_llama_cpp(tmp_path):
    every_head = tensors(kv=64)
    told = {"llama.attention.head_count_kv": 4, "llama.rope.freq_base": 10_000.0,
            "llama.rope.dimension_count": 16, "llama.attention.key_length": 16,
            "llama.attention.value_length": 16, "llama.vocab_size": len(TOKENS),
            "llama.rope.scaling.type": "none", "llama.expert_count": 0,
            "llama.attention.causal": True, "general.alignment": 32,
            "general.quantization_version": 2, "tokenizer.ggml.token_type": [1] * len(TOKENS),
            "tokenizer.ggml.add_bos_token": False}
    left_out = {key: None for key in told}
    long, tokenizer = load_gguf(write_gguf(tmp_path / "a.gguf", keys=told, weights=every_head))
    short, other = load_gguf(write_gguf(tmp_path / "b.gguf", keys=left_out, weights=every_head))
    assert short.config == long.config
    ids = torch.tensor([tokenizer.encode("the fox said <|im_end|>", allow_special=True)])
    assert other.encode("the fox said <|im_end|>", allow_special=True) == ids[0].tolist()
    assert torch.equal(short(ids), long(ids))
    assert other.special_tokens == {}  # without types all tokens are ordinary


def test_the_alignment_of_the_file_is_followed(tmp_path):
    plain, _ = load_gguf(write_gguf(tmp_path / "a.gguf"))
    for alignment in (8, 4096):
        path = write_gguf(tmp_path / "b.gguf", keys={"general.alignment": alignment})
        model, _ = load_gguf(path)
        for name, tensor in plain.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name])


def test_what_a_file_tells_to_people_is_read_over(tmp_path):
    told = {"general.name": "Fox", "general.tags": ["a", "b"], "general.file_type": 0,
            "general.base_model.0.name": "Hen", "general.sampling.temp": 0.7,
            "tokenizer.chat_template": "{{ messages }}", "tokenizer.ggml.eos_token_id": 1,
            "tokenizer.ggml.scores": [0.0] * len(TOKENS)}
    model, _ = load_gguf(write_gguf(tmp_path / "a.gguf", keys=told))
    plain, _ = load_gguf(write_gguf(tmp_path / "b.gguf"))
    ids = torch.arange(9)[None]
    assert torch.equal(model(ids), plain(ids))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_logits_are_nearly_the_same_in_every_type(tmp_path, dtype):
    path = write_gguf(tmp_path / "model.gguf", Kind.Q8_0)
    model, _ = load_gguf(path, dtype=dtype)
    ids = torch.arange(12)[None]
    expected = load_gguf(path)[0](ids)
    assert model(ids).dtype == dtype
    torch.testing.assert_close(model(ids).float(), expected, rtol=0, atol=0.1)


def test_a_type_that_holds_no_weights_or_not_these_is_refused(tmp_path):
    path = write_gguf(tmp_path / "a.gguf")
    for dtype in (torch.int32, torch.complex64, "float32"):
        with pytest.raises(ValueError, match="dtype is .*; expected float64"):
            load_gguf(path, dtype=dtype)
    for value, dtype in ((1e5, torch.float16), (np.inf, torch.float32)):
        path = write_gguf(tmp_path / "a.gguf", weights={
            "output_norm.weight": np.full(64, value, np.float32)})
        with pytest.raises(ValueError, match="a.gguf: output_norm.weight holds .* not finite"):
            load_gguf(path, dtype=dtype)


def test_the_context_and_the_type_of_the_weights_can_be_chosen(tmp_path):
    model, _ = load_gguf(write_gguf(tmp_path / "model.gguf"), context_length=8,
                         dtype=torch.bfloat16)
    assert model.config.context_length == 8 and not model.training
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.tensor([[5, 6, 7]])).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="context_length is 8"):
        model(torch.zeros(1, 9, dtype=torch.int64))


@pytest.mark.parametrize("wrong", [33, 0, -1, 8.0, True])
def test_a_context_that_the_file_does_not_have_is_refused(tmp_path, wrong):
    path = write_gguf(tmp_path / "model.gguf")
    assert load_gguf(path, context_length=32)[0].config.context_length == 32
    with pytest.raises(ValueError, match=f"context_length is {wrong}; "):
        load_gguf(path, context_length=wrong)


def test_a_context_too_long_for_the_memory_has_to_be_shortened(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", keys={"llama.context_length": 2**31})
    with pytest.raises(ValueError, match="llama.context_length is 2,147,483,648.*at most 262,144"):
        load_gguf(path)
    assert load_gguf(path, context_length=64)[0].config.context_length == 64


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
