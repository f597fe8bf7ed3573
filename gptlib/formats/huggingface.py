"""GPT-2 of Transformers to `GPT` and back: the same weights under other names, the same logits.

A folder that `to_huggingface` writes opens offline with `AutoModelForCausalLM.from_pretrained`.
Reading and writing need no Transformers. Its layers (`Conv1D`) keep a weight as (in, out), where
`nn.Linear` keeps (out, in): so the matrices of the blocks are transposed. What config.json says is
used, or known to have no effect on logits (the lists below), or refused by name.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from gptlib.files import (
    Fields,
    TensorInfo,
    broken,
    current,
    is_unused,
    read_header,
    read_json,
    read_tensors,
    replace_files,
    require_tensors,
    tensor_info,
)
from gptlib.formats.shapes import weight_shapes
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import BPETokenizer

FILES = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
         "tokenizer_config.json", "vocab.json", "merges.txt")
# what Transformers would read beside these, left by another model: removed with `overwrite`
LEFT_OVER = ("added_tokens.json", "special_tokens_map.json", "chat_template.jinja",
              "adapter_config.json", "model.safetensors.index.json")
_TYPES = ("float64", "float32", "float16", "bfloat16")
_TOP = {"wte": "embedding", "wpe": "position_embedding", "ln_f": "final_norm"}
_BLOCK = {"ln_1": "norm1", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.output",
          "ln_2": "norm2", "mlp.c_fc": "feed_forward.up", "mlp.c_proj": "feed_forward.down"}
# what GPT-2's block is: a GPT with other values has no place in it
_GPT2_BLOCK = {"position": "learned", "norm": "layernorm", "activation": "gelu", "qk_norm": False,
               "bias": True}
# fields of Transformers' GPT2Config and the values that `GPT` implements, the default first
_EXPECTED = {"activation_function": ("gelu_new", "gelu_pytorch_tanh"),
             "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
             "reorder_and_upcast_attn": (False,), "add_cross_attention": (False,),
             "is_encoder_decoder": (False,)}
# fields without effect on logits: who wrote the file, how to train and to generate, heads and
# labels for other tasks, what to return beside the logits
_WITHOUT_EFFECT = (
    "transformers_version", "_name_or_path", "use_bfloat16", "tf_legacy_loss",
    "_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "torchscript",
    "initializer_range", "gradient_checkpointing", "chunk_size_feed_forward", "use_cache",
    "output_past", "output_hidden_states", "output_attentions", "output_scores", "return_dict",
    "return_dict_in_generate", "summary_type", "summary_use_proj", "summary_activation",
    "summary_proj_to_labels", "summary_first_dropout", "task_specific_params", "finetuning_task",
    "problem_type", "id2label", "label2id", "num_labels", "_num_labels", "is_decoder",
    "tie_encoder_decoder", "cross_attention_hidden_size", "prefix", "tokenizer_class",
    "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id",
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
    "num_return_sequences", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens",
    "begin_suppress_tokens", "remove_invalid_values", "exponential_decay_length_penalty")


# ---- reading


def from_huggingface(source: str | Path | nn.Module) -> GPT:
    """A `GPT` in eval mode, in float32 on the CPU, with the weights of a GPT-2 of Transformers.

    `source` is a folder with config.json and model.safetensors, or a `GPT2LMHeadModel`. Its
    dropout is `resid_pdrop`. Raises ValueError for another architecture, a missing or damaged
    file, weights that don't fit config.json, and whatever either of them says that `GPT` is not.
    """
    if isinstance(source, nn.Module):
        source = getattr(source, "_orig_mod", source)  # torch.compile's wrapper renames the weights
        if not hasattr(source, "config"):
            raise ValueError(f"got a {type(source).__name__}; expected a GPT2LMHeadModel")
        file, weights = type(source).__name__, source.state_dict()
        fields = Fields(f"{file}.config", source.config.to_dict())
        header = {name: tensor_info(tensor) for name, tensor in weights.items()}
    else:
        description, file = _find_files(Path(source))
        fields = Fields(description, read_json(description))
        header, weights = read_header(file), None
    config = _config_from(fields, len(header))
    theirs = _own_names(file, header, config)
    shapes = dict(weight_shapes(config))
    expected = {name: shapes[ours][::-1] if transposed else shapes[ours]
                for name, ours, transposed in _names(config)}
    if "lm_head.weight" in theirs:  # there, too, where it is the embedding once more
        expected["lm_head.weight"] = shapes["embedding.weight"]
    require_tensors(file, {short: header[name] for short, name in theirs.items()}, expected)
    weights = read_tensors(file) if weights is None else weights
    return _build(file, config, {short: weights[name] for short, name in theirs.items()})


def _build(file: str | Path, config: GPTConfig, theirs: Mapping[str, torch.Tensor]) -> GPT:
    for name, tensor in theirs.items():
        if not tensor.float().isfinite().all():
            raise broken(file, f"{name} holds numbers that are not finite in float32")
    head = theirs.get("lm_head.weight")
    if config.tie_weights and head is not None and not torch.equal(head, theirs["wte.weight"]):
        raise broken(file, "lm_head.weight differs from wte.weight; expected the same weights, as "
                           "tie_word_embeddings is true in the config")
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
        model = GPT(config)
    model.load_state_dict({ours: theirs[name].mT if transposed else theirs[name]
                           for name, ours, transposed in _names(config)})  # copies, as float32
    return model.eval()


def _names(config: GPTConfig) -> Iterator[tuple[str, str, bool]]:
    """(their name, our name, whether the matrix is transposed) of every tensor."""
    for theirs, ours in _TOP.items():
        parts = ("weight", "bias") if ours == "final_norm" else ("weight",)
        yield from ((f"{theirs}.{part}", f"{ours}.{part}", False) for part in parts)
    for layer in range(config.n_layer):
        for theirs, ours in _BLOCK.items():
            for part in ("weight", "bias"):
                transposed = part == "weight" and "norm" not in ours
                yield f"h.{layer}.{theirs}.{part}", f"blocks.{layer}.{ours}.{part}", transposed
    if not config.tie_weights:
        yield "lm_head.weight", "output.weight", False


def _own_names(file: str | Path, header: Mapping[str, TensorInfo], config: GPTConfig
               ) -> dict[str, str]:
    """The names in the file by their short form, without "transformer." and without the causal
    masks that older versions of Transformers keep among the weights."""
    masks = {f"h.{layer}.attn.{name}" for layer in range(config.n_layer)
             for name in ("bias", "masked_bias")}
    names: dict[str, str] = {}
    for name in header:
        short = name.removeprefix("transformer.")
        if short in names:
            raise broken(file, f"it holds both {name} and {names[short]}; expected one of them")
        names[short] = name
    return {short: name for short, name in names.items() if short not in masks}


def _find_files(folder: Path) -> tuple[Path, Path]:
    """config.json and model.safetensors of a folder."""
    has = {name: (folder / name).exists() for name in (
        "pytorch_model.bin", "pytorch_model.bin.index.json", "model.safetensors.index.json",
        "adapter_config.json")}
    files = [current(folder, FILES, name) for name in ("config.json", "model.safetensors")]
    for file in files:
        if file.is_file():
            continue
        what = f"{folder} has no {file.name}"
        if file.name == "model.safetensors" and has["model.safetensors.index.json"]:
            what += ", but model.safetensors.index.json: its weights lie in several files"
        elif file.name == "model.safetensors" and has["pytorch_model.bin"] | has[
                "pytorch_model.bin.index.json"]:
            what += (", but pytorch_model.bin, a pickle, which could run any program and is never "
                     "opened here")
        raise ValueError(f"{what}; expected a folder saved by Transformers or by to_huggingface, "
                         f"with the weights in one safetensors file: open it in Transformers and "
                         f"save_pretrained(..., max_shard_size='100GB') writes one")
    if has["adapter_config.json"]:
        raise broken(folder / "adapter_config.json", "it adds an adapter's weights to the model's; "
                                                     "expected a model alone", "merge the two")
    return files[0], files[1]


def _config_from(fields: Fields, tensors: int) -> GPTConfig:
    """The model's shape, where the weights are `tensors` tensors; every key is checked."""
    fields.read("model_type", str, choices=("gpt2",))
    positions = fields.read("n_positions", int, least=1)
    values = dict(
        vocab_size=fields.read("vocab_size", int, least=1), context_length=positions,
        n_layer=fields.read("n_layer", int, least=1, most=tensors),
        n_head=fields.read("n_head", int, least=1), n_embd=fields.read("n_embd", int, least=1),
        mlp_hidden=fields.read("n_inner", int, None, least=1),
        norm_eps=fields.read("layer_norm_epsilon", float, 1e-5, least=0),
        tie_weights=fields.read("tie_word_embeddings", bool, True),
        dropout=fields.read("resid_pdrop", float, 0.1, least=0, most=1))
    for key in ("attn_pdrop", "embd_pdrop"):  # of training only; `GPT` has one dropout for all
        fields.read(key, float, 0.1, least=0, most=1)
    for key, choices in _EXPECTED.items():
        fields.read(key, type(choices[0]), choices[0], choices=choices)
    fields.read("n_ctx", int, positions, choices=(positions,))
    for key in ("pruned_heads", "quantization_config", "auto_map"):
        fields.read(key, dict, None, choices=({},))
    for key in ("dtype", "torch_dtype"):  # of the weights, which the tensors say themselves
        fields.read(key, str, None, choices=(*_TYPES, "auto"))
    for name in fields.read("architectures", list, None) or ():
        if name not in ("GPT2LMHeadModel", "GPT2Model"):
            raise broken(fields.file, f"architectures holds {name!r}; expected GPT2LMHeadModel")
    fields.ignore(*_WITHOUT_EFFECT)
    fields.finish()
    try:
        return GPTConfig(**values)
    except ValueError as error:
        raise broken(fields.file, str(error)) from error


# ---- writing


def to_huggingface(model: GPT, tokenizer: BPETokenizer, folder: str | Path, *,
                   overwrite: bool = False) -> None:
    """Write model and tokenizer as a folder that Transformers opens as GPT-2.

    All files appear at once, or none. A folder that holds anything is refused unless `overwrite`
    is given, which replaces what Transformers would read there and keeps other files. Raises
    ValueError for a model whose block is not GPT-2's, another kind of tokenizer, and one with more
    ids than the model has; OSError if the files cannot be written.
    """
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper renames the weights
    if type(model) is not GPT:  # a subclass computes something else, or with more weights
        raise ValueError(f"got a {type(model).__name__}; expected a GPT")
    config, folder = model.config, Path(folder)
    _require_gpt2_block(config)
    if not isinstance(tokenizer, BPETokenizer):
        raise ValueError(f"got a {type(tokenizer).__name__}; expected a BPETokenizer, because "
                         f"GPT-2's files hold byte-level BPE")
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size:,} ids and the model "
                         f"{config.vocab_size:,}; expected the tokenizer of its training")
    weights = _their_weights(model)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; expected a folder: choose another path")
    if not overwrite and not is_unused(folder):
        raise ValueError(f"{folder} already holds files; expected a new or an empty folder: choose "
                         f"another, or replace the model there with overwrite=True")

    def write(new: Path) -> None:
        save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
        end = tokenizer.special_tokens.get("<|endoftext|>")
        dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
        types = {"dtype": dtype, "torch_dtype": dtype}  # since Transformers 4.56, and before it
        _write_json(new / "config.json", _config_to(config, end) | types)
        _write_json(new / "generation_config.json", {"bos_token_id": end, "eos_token_id": end})
        _write_tokenizer(tokenizer, config.context_length, new)

    replace_files(folder, (*FILES, *LEFT_OVER), write)


def _their_weights(model: GPT) -> dict[str, torch.Tensor]:
    ours, theirs = model.state_dict(), {}
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in ours.values()}
    if len(dtypes) > 1 or not dtypes <= set(_TYPES):
        raise ValueError(f"the model's weights are {', '.join(sorted(dtypes))}; expected one of "
                         f"{', '.join(_TYPES)} for all of them")
    for their_name, our_name, transposed in _names(model.config):
        prefix = "" if their_name.startswith("lm_head") else "transformer."
        tensor = ours[our_name].mT if transposed else ours[our_name]
        if not tensor.isfinite().all():
            raise ValueError(f"{our_name} holds numbers that are not finite; expected a model "
                             f"that computes: take an earlier checkpoint")
        theirs[prefix + their_name] = tensor.detach().cpu().contiguous()
    return theirs


def _config_to(config: GPTConfig, end: int | None) -> dict:
    """config.json as Transformers' GPT2Config reads it; `end` is the end token's id, if any."""
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "vocab_size": config.vocab_size, "n_positions": config.context_length,
        "n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd,
        "n_inner": config.mlp_hidden, "activation_function": "gelu_new",
        "layer_norm_epsilon": config.norm_eps, "tie_word_embeddings": config.tie_weights,
        "attn_pdrop": config.dropout, "embd_pdrop": config.dropout, "resid_pdrop": config.dropout,
        "bos_token_id": end, "eos_token_id": end}


def _require_gpt2_block(config: GPTConfig) -> None:
    wrong = {name: getattr(config, name) for name, value in _GPT2_BLOCK.items()
             if getattr(config, name) != value}
    if config.kv_heads != config.n_head:
        wrong["n_kv_head"] = config.kv_heads
    if wrong:
        settings = ", ".join(f"{name}={value!r}" for name, value in wrong.items())
        raise ValueError(f"the model has {settings}, which GPT-2's block in Transformers does not "
                         f"have; expected the block of GPTConfig's defaults")


def _write_tokenizer(tokenizer: BPETokenizer, context_length: int, folder: Path) -> None:
    """tokenizer.json, and the older pair vocab.json and merges.txt with the same content.

    tokenizer_config.json names the class that takes tokenizer.json as it is. Without it
    Transformers takes GPT-2's, which adds an end token, beyond the model's ids if it is unknown.
    """
    tokenizer.save(folder / "tokenizer.json")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["content"]: token["id"] for token in content["added_tokens"]}
    _write_json(folder / "vocab.json", content["model"]["vocab"] | special)
    merges = [" ".join(pair) for pair in content["model"]["merges"]]
    text = "\n".join(["#version: 0.2", *merges, ""])
    (folder / "merges.txt").write_text(text, encoding="utf-8", newline="\n")
    roles = dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>")
    _write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context_length,
        "clean_up_tokenization_spaces": False, **(roles if "<|endoftext|>" in special else {})})


def _write_json(path: Path, content: dict) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
