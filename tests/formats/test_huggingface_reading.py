"""Folders of Transformers that are read as another program meant them, or refused by name."""

import json

import pytest
import torch
import transformers
from mutations import limits
from safetensors.torch import load_file, save_file
from small_huggingface import shake, write_folder
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from gptlib.formats.huggingface import from_huggingface

transformers.logging.set_verbosity_error()


def small_gpt2(kind=GPT2LMHeadModel, **changes):
    fields = dict(vocab_size=61, n_positions=24, n_layer=2, n_head=4, n_embd=32,
                  bos_token_id=0, eos_token_id=0)
    return shake(kind(GPT2Config(**(fields | changes))))


# ---- config.json against the weights


@pytest.mark.parametrize("layers", [1, 3, 20_000, 10**12])
def test_a_number_of_layers_that_is_not_that_of_the_weights_is_refused_at_once(tmp_path, layers):
    write_folder(tmp_path, {"n_layer": layers})
    name = {1: "it holds h.1.attn", 3: "h.2.attn.c_attn.bias is missing"}
    with limits(seconds=1), pytest.raises(ValueError, match=name.get(layers, f"n_layer is {layers}")
                                          ) as error:
        from_huggingface(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name, shape", [
    ("score.weight", (2, 32)), ("transformer.h.0.crossattention.c_attn.weight", (32, 64)),
    ("transformer.h.2.attn.bias", (1, 1, 32, 32)), ("multiple_choice_head.summary.weight", (1, 32)),
    ("h.0.attn.c_attn.lora_A.weight", (4, 32)), ("lm_head.bias", (270,))])
def test_a_tensor_that_nothing_reads_is_refused_by_name(tmp_path, name, shape):
    write_folder(tmp_path, weights={name: torch.ones(shape)})
    short = name.removeprefix("transformer.")
    with pytest.raises(ValueError, match=f"model.safetensors: it holds {short}"):
        from_huggingface(tmp_path)


def test_the_causal_masks_that_older_files_keep_are_no_weights(tmp_path):
    plain = from_huggingface(write_folder(tmp_path / "a")).state_dict()
    masks = {f"transformer.h.{layer}.attn.{name}": value for layer in range(2) for name, value in
             (("bias", torch.ones(1, 1, 32, 32).tril()), ("masked_bias", torch.tensor(-1e4)))}
    old = from_huggingface(write_folder(tmp_path / "b", weights=masks)).state_dict()
    assert all(torch.equal(plain[name], old[name]) for name in plain)


def test_names_without_transformer_in_front_are_read_as_well_but_not_both(tmp_path):
    theirs = small_gpt2(GPT2Model)
    theirs.save_pretrained(tmp_path)
    assert "wte.weight" in load_file(tmp_path / "model.safetensors")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        logits = theirs(ids).last_hidden_state @ theirs.wte.weight.T
        for source in (tmp_path, theirs):
            torch.testing.assert_close(from_huggingface(source)(ids), logits, atol=1e-5, rtol=1e-5)
    twice = {"ln_f.bias": torch.zeros(32)}
    with pytest.raises(ValueError, match="holds both transformer.ln_f.bias and ln_f.bias|"
                                         "holds both ln_f.bias and transformer.ln_f.bias"):
        from_huggingface(write_folder(tmp_path / "twice", weights=twice))


def test_an_output_layer_of_its_own_must_be_there_if_the_config_says_so(tmp_path):
    with pytest.raises(ValueError, match="lm_head.weight is missing"):
        from_huggingface(write_folder(tmp_path, {"tie_word_embeddings": False}))
    with pytest.raises(ValueError, match="lm_head.weight differs from wte.weight"):
        from_huggingface(write_folder(tmp_path, {"tie_word_embeddings": True}, tie_weights=False))
    table = load_file(write_folder(tmp_path) / "model.safetensors")["transformer.wte.weight"]
    model = from_huggingface(write_folder(tmp_path, weights={"lm_head.weight": table.clone()}))
    assert model.config.tie_weights and torch.equal(model.embedding.weight, table)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types_become_float32(tmp_path, dtype):
    write_folder(tmp_path, {"torch_dtype": str(dtype).removeprefix("torch.")})
    file = tmp_path / "model.safetensors"
    stored = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(stored, file)
    state = from_huggingface(tmp_path).state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert torch.equal(state["embedding.weight"], stored["transformer.wte.weight"].float())


@pytest.mark.parametrize("value", [torch.full((32,), torch.nan), torch.ones(32, dtype=torch.int32),
                                   torch.full((32,), 1e300, dtype=torch.float64),
                                   torch.ones(32, 1), torch.ones(0)])
def test_weights_that_are_no_finite_numbers_of_the_right_shape_are_refused(tmp_path, value):
    write_folder(tmp_path, weights={"transformer.ln_f.bias": value})
    with pytest.raises(ValueError, match="model.safetensors: ln_f.bias (holds|has) "):
        from_huggingface(tmp_path)


# ---- what config.json says


@pytest.mark.parametrize("key, value", [
    ("model_type", "llama"), ("model_type", None), ("activation_function", "relu"),
    ("activation_function", "gelu"), ("scale_attn_weights", False),
    ("scale_attn_by_inverse_layer_idx", True), ("reorder_and_upcast_attn", True),
    ("add_cross_attention", True), ("is_encoder_decoder", True), ("n_ctx", 16),
    ("n_inner", 64), ("n_inner", "128"), ("n_inner", 0), ("n_head", 5), ("n_head", 0),
    ("n_head", 4.0), ("n_embd", 64), ("n_embd", 10**12), ("n_positions", 33),
    ("vocab_size", 10**12), ("vocab_size", "270"), ("vocab_size", True), ("n_layer", -2),
    ("layer_norm_epsilon", "1e-5"), ("layer_norm_epsilon", None), ("layer_norm_epsilon", -1e-5),
    ("layer_norm_epsilon", True), ("layer_norm_epsilon", [1e-5]), ("tie_word_embeddings", "false"),
    ("tie_word_embeddings", None), ("resid_pdrop", 1.0), ("resid_pdrop", "0.1"),
    ("attn_pdrop", -1), ("embd_pdrop", 2), ("quantization_config", {"bits": 4}),
    ("pruned_heads", {"0": [1]}), ("auto_map", {"AutoModel": "mine.Model"}), ("dtype", "int8"),
    ("torch_dtype", 16), ("architectures", ["GPT2ForSequenceClassification"]),
    ("architectures", "GPT2LMHeadModel"), ("hidden_size", 32), ("rope_theta", 1e4),
    ("attention_bias", False), ("stranger", None)])
def test_a_key_that_means_another_model_is_refused(tmp_path, key, value):
    write_folder(tmp_path, {key: value})
    with limits(), pytest.raises(ValueError, match=f"{tmp_path}.*") as error:
        from_huggingface(tmp_path)
    by_shape = {"n_inner": "c_fc", "n_embd": "c_attn", "n_positions": "wpe", "vocab_size": "wte",
                "resid_pdrop": "dropout"}
    assert key in str(error.value) or by_shape[key] in str(error.value)


@pytest.mark.parametrize("key", ["model_type", "vocab_size", "n_positions", "n_layer", "n_head",
                                 "n_embd"])
def test_a_key_without_a_default_is_asked_for(tmp_path, key):
    write_folder(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    del written[key]
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=f"config.json: {key} is missing"):
        from_huggingface(tmp_path)


def test_keys_without_effect_on_logits_are_read_over(tmp_path):
    said = {"transformers_version": "2.1", "n_ctx": 32, "task_specific_params": {"a": {"b": 1}},
            "bos_token_id": 50256, "do_sample": True, "id2label": {"0": "x"}, "attn_pdrop": 0.0,
            "quantization_config": None, "pruned_heads": {}, "_name_or_path": "gpt2",
            "architectures": None, "initializer_range": 0.5, "summary_type": "mean",
            "activation_function": "gelu_pytorch_tanh", "torch_dtype": "float16"}
    model, plain = from_huggingface(write_folder(tmp_path / "a", said)), from_huggingface(
        write_folder(tmp_path / "b"))
    ids = torch.arange(20)[None]
    assert torch.equal(model(ids), plain(ids))


def test_every_key_that_transformers_writes_itself_is_known():
    theirs = small_gpt2(pad_token_id=0)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(from_huggingface(theirs)(ids), theirs(ids).logits, atol=1e-5,
                                   rtol=1e-5)


# ---- models that are no folders


@pytest.mark.parametrize("changes, named", [
    ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn is True"),
    ({"activation_function": "relu"}, "activation_function is 'relu'"),
    ({"add_cross_attention": True}, "add_cross_attention is True")])
def test_a_model_object_is_checked_like_a_folder(changes, named):
    with pytest.raises(ValueError, match=f"GPT2LMHeadModel.config: {named}"):
        from_huggingface(small_gpt2(**changes))


def test_a_model_whose_layers_were_cut_off_behind_its_config_is_refused():
    theirs = small_gpt2()
    theirs.transformer.h = theirs.transformer.h[:1]
    with pytest.raises(ValueError, match="GPT2LMHeadModel: h.1.attn.c_attn.bias is missing"):
        from_huggingface(theirs)
    with pytest.raises(ValueError, match="got a Linear; expected a GPT2LMHeadModel"):
        from_huggingface(torch.nn.Linear(2, 2))


def test_the_weights_are_copies_and_the_random_state_stays(tmp_path):
    theirs = small_gpt2()
    before = torch.get_rng_state()
    ours = from_huggingface(theirs)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        theirs.transformer.wte.weight.zero_()
    assert ours.embedding.weight.abs().sum() > 0
    assert from_huggingface(torch.compile(theirs)).config == ours.config


# ---- damaged and other files


def pointer(content: bytes) -> bytes:
    return (b"version https://git-lfs.github.com/spec/v1\noid sha256:"
            + b"4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n")


@pytest.mark.parametrize("name, change, message", [
    ("model.safetensors", pointer, "pointer of Git LFS"),
    ("config.json", pointer, "pointer of Git LFS"),
    ("model.safetensors", lambda c: b"", "expected a whole safetensors file"),
    ("model.safetensors", lambda c: c[:100], "expected a whole safetensors file"),
    ("model.safetensors", lambda c: c[:-4], "was cut off"),
    ("model.safetensors", lambda c: c + b"1234", "was cut off, or something was added"),
    ("model.safetensors", lambda c: b"\xff" * 8 + c[8:], "expected a whole safetensors file"),
    ("model.safetensors", lambda c: c[:8] + b"[" + c[9:], "not JSON"),
    ("config.json", lambda c: b"", "it has 0 bytes"), ("config.json", lambda c: b"[1, 2]", "list"),
    ("config.json", lambda c: b"null", "NoneType"), ("config.json", lambda c: c[:50], "cut off"),
    ("config.json", lambda c: b"\x80" + c, "UTF-8"), ("config.json", lambda c: b"{}", "model_type"),
    ("config.json", lambda c: b'{"n_layer": 1, ' + c[1:], "n_layer"),
    ("config.json", lambda c: c.replace(b"1e-05", b"NaN"), "NaN is not a finite number"),
])
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, name, change, message):
    write_folder(tmp_path)
    content = (tmp_path / name).read_bytes()
    assert change(content) != content
    (tmp_path / name).write_bytes(change(content))
    with limits(), pytest.raises(ValueError, match=f"(?s){name}.*{message}"):
        from_huggingface(tmp_path)


@pytest.mark.parametrize("others, message", [
    ((), "has no model.safetensors; expected"),
    (("pytorch_model.bin",), "pytorch_model.bin, a pickle, .* never opened here"),
    (("pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"), "a pickle"),
    (("model-00001-of-00002.safetensors", "model.safetensors.index.json"),
     "model.safetensors.index.json: its weights lie in several files"),
    (("tf_model.h5", "flax_model.msgpack"), "has no model.safetensors; expected")])
def test_weights_in_other_files_are_told_what_to_do_with(tmp_path, others, message):
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    for name in others:
        (tmp_path / name).write_bytes(b"\x80\x02cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ValueError, match=f"{tmp_path} .*{message}.*save_pretrained"):
        from_huggingface(tmp_path)


def test_a_folder_with_an_adapter_is_another_model(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ValueError, match="adapter_config.json: it adds an adapter"):
        from_huggingface(tmp_path)
