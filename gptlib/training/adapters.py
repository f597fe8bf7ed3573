"""Adapters: what LoRA learned, as a folder of its own beside the model that it belongs to.

adapter.json           the base's name and hash, rank, alpha, the names of the matrices, the step
adapter.safetensors    A and B of each matrix
optimizer.safetensors  where training shall go on: the optimizer's tensors and the random states
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gptlib.files import (
    Fields,
    broken,
    current,
    read_header,
    read_json,
    read_tensors,
    replace_files,
    require_tensors,
)
from gptlib.formats.gguf import load_gguf
from gptlib.formats.optimizer_state import pack_optimizer, set_random_states, unpack_optimizer
from gptlib.formats.shapes import require_finite
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import Tokenizer
from gptlib.training.lora import add_lora, lora_layers, merge, remove_lora

BASE = "SmolLM2-135M-Instruct"  # the pretrained model of the book
_FILES = ("adapter.json", "adapter.safetensors", "optimizer.safetensors")
_FORMAT, _VERSION = "gptlib adapter", 1


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of the frozen weights, by which an adapter knows its base; float32, by name."""
    digest = hashlib.sha256()
    for name, tensor in _base_weights(model):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def _base_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    layers = lora_layers(model)
    merged = [name for name, layer in layers.items() if layer.merged]
    if merged:
        raise ValueError(f"{merged[0]} is merged; expected a model with its changes beside it: "
                         f"call unmerge(model) first")
    for name, tensor in model.named_parameters():
        owner, _, kind = name.rpartition(".")
        if owner not in layers:
            yield name.replace(".base.", "."), tensor


def save_adapter(folder: str | Path, model: nn.Module, base: str, about: dict | None = None, *,
                 dtype: torch.dtype = torch.bfloat16, step: int = 0,
                 optimizer: torch.optim.Optimizer | None = None) -> None:
    """Write what LoRA learned, without the base: adapter.json and adapter.safetensors.

    `base` says in words which model it belongs to; its weights' hash is stored beside. `about` is
    a dict that JSON can hold. With `optimizer` training can go on (`resume_adapter`); then keep
    float32. Replaces an older adapter as a whole. Raises ValueError for a model without LoRA or
    with numbers that are not finite, and OSError where it cannot be written.
    """
    folder, layers = Path(folder), lora_layers(model)
    if not layers:
        raise ValueError("the model has no LoRA layers; expected one after add_lora")
    first = next(iter(layers.values()))
    rank = len(first.A)
    content = {"format": _FORMAT, "format_version": _VERSION, "base": base,
               "base_hash": weights_hash(model), "rank": rank, "alpha": first.scale * rank,
               "targets": sorted({name.rpartition(".")[2] for name in layers}),
               "step": step, "about": about or {}}
    tensors = {f"{name}.{part}": getattr(layer, part).detach().cpu().to(dtype).contiguous()
               for name, layer in layers.items() for part in "AB"}
    require_finite(folder / _FILES[1], tensors)
    state = None
    if optimizer is not None:
        content["optimizer"], state = pack_optimizer(optimizer, folder / _FILES[2])
        require_finite(folder / _FILES[2], state)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"

    def write(new: Path) -> None:
        (new / _FILES[0]).write_text(text, encoding="utf-8", newline="\n")
        save_file(tensors, new / _FILES[1])
        if state is not None:
            save_file(state, new / _FILES[2])

    replace_files(folder, _FILES, write)


def load_adapter(folder: str | Path, model: nn.Module) -> dict:
    """Put a saved adapter beside the matrices of its base model; returns what was told about it,
    with its `step`.

    Raises ValueError for a damaged or foreign adapter, or one of another base.
    """
    file, weights = (current(folder, _FILES, name) for name in _FILES[:2])
    fields = Fields(file, read_json(file))
    fields.read("format", str, choices=(_FORMAT,))
    fields.read("format_version", int, choices=(_VERSION,))
    base, wanted = fields.read("base", str), fields.read("base_hash", str)
    rank, alpha = fields.read("rank", int, least=1, most=4096), fields.read("alpha", float)
    targets, about = fields.read("targets", list), fields.read("about", dict)
    step = fields.read("step", int, least=0)
    fields.ignore("optimizer")  # `resume_adapter` reads it
    fields.finish()
    if not all(isinstance(target, str) for target in targets):
        raise broken(file, f"targets is {targets}; expected names")
    found = read_header(weights)
    if (got := weights_hash(model)) != wanted:
        raise broken(file, f"it belongs to {base!r} with the hash {wanted[:12]}; the model has "
                           f"{got[:12]}", "load the base that it was trained on")
    names = [name for name, module in model.named_modules()
             if isinstance(module, nn.Linear) and name.rpartition(".")[2] in targets]
    shapes = {}
    for name in names:
        layer = model.get_submodule(name)
        shapes |= {f"{name}.A": (rank, layer.in_features), f"{name}.B": (layer.out_features, rank)}
    require_tensors(weights, found, shapes)
    tensors = read_tensors(weights)
    require_finite(weights, tensors)
    add_lora(model, rank, alpha, targets)
    with torch.no_grad():
        for name, layer in lora_layers(model).items():
            layer.A.copy_(tensors[f"{name}.A"])
            layer.B.copy_(tensors[f"{name}.B"])
    return {**about, "step": step}


def resume_adapter(folder: str | Path, optimizer: torch.optim.Optimizer) -> int:
    """Put optimizer and random states back beside an adapter that `load_adapter` has read.

    Returns the step. Raises ValueError for an adapter without them, or for another optimizer.
    """
    file, states = current(folder, _FILES, _FILES[0]), current(folder, _FILES, _FILES[2])
    fields = Fields(file, read_json(file))
    if "optimizer" not in fields.values:
        raise broken(file, "it holds no optimizer state; expected one saved with optimizer=",
                     "train it again from the start")
    state, random = unpack_optimizer(fields.object("optimizer"), states, optimizer)
    optimizer.load_state_dict(state)
    set_random_states(random)
    return fields.read("step", int, least=0)


def has_adapter(folder: str | Path) -> bool:
    """Whether the folder holds an adapter, be it whole or damaged."""
    return current(folder, _FILES, _FILES[0]).exists()


def load_adapted(folder: str | Path, context_length: int | None = None
                 ) -> tuple[GPT, Tokenizer, dict]:
    """The book's pretrained model with the adapter of a folder merged into it: a plain GPT in
    float32, its tokenizer, and what was told about the adapter.

    The base is fetched on first use. ValueError as `load_adapter`, and for another base.
    """
    file = current(folder, _FILES, _FILES[0])
    base = Fields(file, read_json(file)).read("base", str)
    if base != BASE:
        raise broken(file, f"its base is {base!r}; only {BASE} is fetched by name",
                     "load that base yourself and pass it to load_adapter")
    model, tokenizer = load_gguf(context_length=context_length)
    about = load_adapter(folder, model)
    merge(model)
    remove_lora(model)
    return model.requires_grad_(False), tokenizer, about
