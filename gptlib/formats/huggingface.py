"""GPT-2 of Transformers to `GPT` and back: the same weights under other names, the same logits.

A folder that `to_huggingface` writes opens offline with `AutoModelForCausalLM.from_pretrained`.
Reading and writing need no Transformers. Its layers (`Conv1D`) keep a weight as (in, out), where
`nn.Linear` keeps (out, in): so the matrices of the blocks are transposed.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import BPETokenizer

_TOP = {"wte": "embedding", "wpe": "position_embedding", "ln_f": "final_norm"}
_BLOCK = {"ln_1": "norm1", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.output",
          "ln_2": "norm2", "mlp.c_fc": "feed_forward.up", "mlp.c_proj": "feed_forward.down"}
# what GPT-2's block is: a GPT with other values has no place in it
_GPT2_BLOCK = {"position": "learned", "norm": "layernorm", "activation": "gelu", "qk_norm": False,
               "bias": True}
# fields of Transformers' GPT2Config and the values that `GPT` implements
_EXPECTED = {"model_type": ("gpt2",), "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
             "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
             "add_cross_attention": (False,)}


def from_huggingface(source: str | Path | nn.Module) -> GPT:
    """A `GPT` in eval mode with the weights of a GPT-2 of Transformers.

    `source` is a folder with config.json and model.safetensors, or a `GPT2LMHeadModel`. Raises
    ValueError for another architecture, a missing file, or weights that don't fit the config.
    """
    if isinstance(source, nn.Module):
        description, theirs = source.config.to_dict(), source.state_dict()
    else:
        description, theirs = _read_folder(Path(source))
    config = _config_from(description)
    theirs = {name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
    state = {}
    for their_name, our_name, transposed in _names(config):
        if their_name not in theirs:
            raise ValueError(f"the weights have no {their_name!r}; expected those of a GPT-2 "
                             f"with {config.n_layer} layers and a language-model head")
        state[our_name] = theirs[their_name].mT if transposed else theirs[their_name]
    model = GPT(config)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights don't fit the shape in config.json: {error}") from error
    return model.eval()


def to_huggingface(model: GPT, tokenizer: BPETokenizer, folder: str | Path) -> None:
    """Write model and tokenizer as a folder that Transformers opens as GPT-2.

    Raises ValueError for a model whose block is not GPT-2's, or another kind of tokenizer.
    """
    config = model.config
    _require_gpt2_block(config)
    if not isinstance(tokenizer, BPETokenizer):
        raise ValueError(f"got a {type(tokenizer).__name__}; expected a BPETokenizer, because "
                         f"GPT-2's files hold byte-level BPE")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = model.state_dict(), {}
    for their_name, our_name, transposed in _names(config):
        prefix = "" if their_name.startswith("lm_head") else "transformer."
        tensor = ours[our_name].mT if transposed else ours[our_name]
        theirs[prefix + their_name] = tensor.detach().cpu().contiguous()
    save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    end = tokenizer.special_tokens.get("<|endoftext|>")
    _write_json(folder / "config.json", _config_to(config, end) | {"dtype": dtype})
    _write_json(folder / "generation_config.json", {"bos_token_id": end, "eos_token_id": end})
    _write_tokenizer(tokenizer, folder)


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


def _read_folder(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}; expected a folder saved by Transformers or "
                             f"by to_huggingface, with the weights in one safetensors file")
    description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return description, load_file(folder / "model.safetensors")


def _config_from(description: dict) -> GPTConfig:
    for key, values in _EXPECTED.items():
        if description.get(key, values[0]) not in values:
            raise ValueError(f"{key} is {description[key]!r}; expected "
                             f"{' or '.join(map(repr, values))}: only GPT-2's block is read")
    return GPTConfig(
        vocab_size=description["vocab_size"], context_length=description["n_positions"],
        n_layer=description["n_layer"], n_head=description["n_head"],
        n_embd=description["n_embd"], mlp_hidden=description.get("n_inner"),
        norm_eps=description.get("layer_norm_epsilon", 1e-5),
        tie_weights=description.get("tie_word_embeddings", True),
        dropout=description.get("resid_pdrop", 0.1))


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


def _write_tokenizer(tokenizer: BPETokenizer, folder: Path) -> None:
    """tokenizer.json, and the older pair vocab.json and merges.txt with the same content."""
    tokenizer.save(folder / "tokenizer.json")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["content"]: token["id"] for token in content["added_tokens"]}
    _write_json(folder / "vocab.json", content["model"]["vocab"] | special)
    merges = [" ".join(pair) for pair in content["model"]["merges"]]
    text = "\n".join(["#version: 0.2", *merges, ""])
    (folder / "merges.txt").write_text(text, encoding="utf-8", newline="\n")


def _write_json(path: Path, content: dict) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
