"""Parity with Transformers on small random weights: GPT-2 both ways, and Llama's block."""

import json

import pytest
import torch
import transformers
from small_huggingface import TEXT, shake, small_gpt
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from gptlib.formats.huggingface import from_huggingface, to_huggingface
from gptlib.model.cache import KVCache
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import BPETokenizer, CharTokenizer

transformers.logging.set_verbosity_error()


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(TEXT, vocab_size=270)


def small_gpt2(**changes) -> GPT2LMHeadModel:
    fields = dict(vocab_size=61, n_positions=24, n_layer=2, n_head=4, n_embd=32,
                  bos_token_id=0, eos_token_id=0)
    return shake(GPT2LMHeadModel(GPT2Config(**(fields | changes))))


@pytest.mark.parametrize("changes", [{}, {"n_inner": 48}, {"tie_word_embeddings": False},
                                     {"layer_norm_epsilon": 1e-2}])
def test_gpt2_of_transformers_gives_the_same_logits_here(changes):
    theirs = small_gpt2(**changes)
    ours = from_huggingface(theirs)
    ids = torch.randint(61, (3, 24))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_greedy_text_is_equal_with_both_caches():
    theirs = small_gpt2()
    ours = from_huggingface(theirs)
    prompt = torch.randint(1, 61, (1, 4))
    expected = theirs.generate(prompt, max_new_tokens=16, do_sample=False, eos_token_id=None,
                               pad_token_id=0)
    cache, tokens, ids = KVCache(ours.config), prompt, prompt
    with torch.no_grad():
        for _ in range(16):
            tokens = ours(tokens, cache=cache)[:, -1:].argmax(-1)
            ids = torch.cat((ids, tokens), dim=1)
    assert ids.tolist() == expected.tolist()


@pytest.mark.parametrize("tied", [True, False])
def test_a_written_folder_opens_in_transformers_with_equal_logits(tmp_path, tokenizer, tied):
    model = small_gpt(tokenizer, tie_weights=tied, dropout=0.1)
    to_huggingface(model, tokenizer, tmp_path)
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    ids = torch.tensor([tokenizer.encode("the cat sat on")])
    with torch.no_grad():
        torch.testing.assert_close(model(ids), opened(ids).logits, atol=1e-5, rtol=1e-5)
    assert opened.config.resid_pdrop == opened.config.attn_pdrop == 0.1


def test_a_written_folder_reads_back_as_the_same_model(tmp_path, tokenizer):
    model = small_gpt(tokenizer, dropout=0.1, mlp_hidden=40, norm_eps=1e-3)
    to_huggingface(model, tokenizer, tmp_path)
    back = from_huggingface(tmp_path)
    assert back.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


def test_the_written_tokenizer_gives_the_same_ids_in_transformers(tmp_path, tokenizer):
    to_huggingface(small_gpt(tokenizer), tokenizer, tmp_path)
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    text = " that cat’s Mat\n\n  猫 12"
    assert opened(text)["input_ids"] == tokenizer.encode(text)
    assert opened.eos_token_id == tokenizer.special_tokens["<|endoftext|>"]


def test_the_older_tokenizer_files_hold_the_whole_vocabulary(tmp_path, tokenizer):
    to_huggingface(small_gpt(tokenizer), tokenizer, tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocabulary.values()) == list(range(tokenizer.vocab_size))
    lines = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(tokenizer.merges)


@pytest.mark.parametrize("changes, named", [
    ({"position": "rope"}, "position='rope'"), ({"norm": "rmsnorm"}, "norm='rmsnorm'"),
    ({"activation": "swiglu"}, "activation='swiglu'"), ({"qk_norm": True}, "qk_norm=True"),
    ({"bias": False}, "bias=False"), ({"n_kv_head": 2}, "n_kv_head=2")])
def test_a_block_that_is_not_gpt2s_is_refused_by_name(tmp_path, tokenizer, changes, named):
    with pytest.raises(ValueError, match=named):
        to_huggingface(small_gpt(tokenizer, **changes), tokenizer, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_tokenizers_architectures_and_folders_are_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="got a CharTokenizer; expected a BPETokenizer"):
        to_huggingface(small_gpt(tokenizer), CharTokenizer.train("abc"), tmp_path)
    with pytest.raises(ValueError, match="has no config.json"):
        from_huggingface(tmp_path)
    with pytest.raises(ValueError, match="model_type is 'llama'"):
        from_huggingface(small_llama(GPTConfig(9, 8, 1, 2, 8, norm="rmsnorm")))
    with pytest.raises(ValueError, match="activation_function is 'relu'"):
        from_huggingface(small_gpt2(activation_function="relu"))


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path, tokenizer):
    to_huggingface(small_gpt(tokenizer), tokenizer, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    for field, value, message in (("n_layer", 3, "h.2.attn.c_attn.bias is missing"),
                                  ("n_positions", 16, r"wpe.weight has the shape \(32, 32\)")):
        (tmp_path / "config.json").write_text(json.dumps(written | {field: value}))
        with pytest.raises(ValueError, match=message):
            from_huggingface(tmp_path)


def small_llama(config: GPTConfig) -> LlamaForCausalLM:
    return shake(LlamaForCausalLM(LlamaConfig(
        vocab_size=config.vocab_size, max_position_embeddings=config.context_length,
        num_hidden_layers=config.n_layer, num_attention_heads=config.n_head,
        num_key_value_heads=config.kv_heads, hidden_size=config.n_embd,
        head_dim=config.head_dim, intermediate_size=config.hidden, rms_norm_eps=config.norm_eps,
        tie_word_embeddings=config.tie_weights, bos_token_id=0, eos_token_id=0,
        rope_parameters={"rope_theta": config.rope_base, "rope_type": "default"})))


def llama_weights(theirs: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    weights = theirs.state_dict()
    ours = {"embedding.weight": weights["model.embed_tokens.weight"],
            "final_norm.weight": weights["model.norm.weight"]}
    if not theirs.config.tie_word_embeddings:
        ours["output.weight"] = weights["lm_head.weight"]
    parts = {"norm1": "input_layernorm", "attention.output": "self_attn.o_proj",
             "norm2": "post_attention_layernorm", "feed_forward.gate": "mlp.gate_proj",
             "feed_forward.up": "mlp.up_proj", "feed_forward.down": "mlp.down_proj"}
    for layer in range(theirs.config.num_hidden_layers):
        block = f"model.layers.{layer}."
        for our_name, name in parts.items():
            ours[f"blocks.{layer}.{our_name}.weight"] = weights[f"{block}{name}.weight"]
        ours[f"blocks.{layer}.attention.qkv.weight"] = torch.cat(
            [weights[f"{block}self_attn.{letter}_proj.weight"] for letter in "qkv"])
    return ours


@pytest.mark.parametrize("n_kv_head, tied, base", [(2, False, 10_000.0), (4, True, 100.0)])
def test_rmsnorm_rope_swiglu_and_grouped_heads_equal_llamas_block(n_kv_head, tied, base):
    config = GPTConfig(61, 24, 2, n_head=4, n_embd=32, n_kv_head=n_kv_head, mlp_hidden=80,
                       position="rope", rope_base=base, norm="rmsnorm", activation="swiglu",
                       bias=False, tie_weights=tied)
    theirs, ours = small_llama(config), GPT(config).eval()
    ours.load_state_dict(llama_weights(theirs))
    ids = torch.randint(61, (3, 24))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)
