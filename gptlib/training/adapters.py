"""Adapters: what LoRA learned, as a folder of its own beside the model that it belongs to.

adapter.json         the base's name and hash, rank, alpha, the names of the matrices
adapter.safetensors  A and B of each matrix
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
from gptlib.training.lora import add_lora, lora_layers

_FILES = ("adapter.json", "adapter.safetensors")
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


def save_adapter(folder: str | Path, model: nn.Module, base: str, about: dict | None = None,
                 dtype: torch.dtype = torch.bfloat16) -> None:
    """Write what LoRA learned, without the base: adapter.json and adapter.safetensors.

    `base` says in words which model it belongs to; its weights' hash is stored beside. `about` is
    a dict that JSON can hold. Replaces an older adapter as a whole. Raises ValueError for a model
    without LoRA, and OSError where it cannot be written.
    """
    layers = lora_layers(model)
    if not layers:
        raise ValueError("the model has no LoRA layers; expected one after add_lora")
    first = next(iter(layers.values()))
    rank = len(first.A)
    text = json.dumps({"format": _FORMAT, "format_version": _VERSION, "base": base,
                       "base_hash": weights_hash(model), "rank": rank,
                       "alpha": first.scale * rank, "about": about or {},
                       "targets": sorted({name.rpartition(".")[2] for name in layers})},
                      indent=2, allow_nan=False)
    tensors = {f"{name}.{part}": getattr(layer, part).detach().cpu().to(dtype).contiguous()
               for name, layer in layers.items() for part in "AB"}

    def write(new: Path) -> None:
        (new / _FILES[0]).write_text(text + "\n", encoding="utf-8")
        save_file(tensors, new / _FILES[1])

    replace_files(folder, _FILES, write)


def load_adapter(folder: str | Path, model: nn.Module) -> dict:
    """Put a saved adapter beside the matrices of its base model; returns what was told about it.

    Raises ValueError for a damaged or foreign adapter, or one of another base.
    """
    file, weights = (current(folder, _FILES, name) for name in _FILES)
    fields = Fields(file, read_json(file))
    fields.read("format", str, choices=(_FORMAT,))
    fields.read("format_version", int, choices=(_VERSION,))
    base, wanted = fields.read("base", str), fields.read("base_hash", str)
    rank, alpha = fields.read("rank", int, least=1, most=4096), fields.read("alpha", float)
    targets, about = fields.read("targets", list), fields.read("about", dict)
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
    add_lora(model, rank, alpha, targets)
    tensors = read_tensors(weights)
    with torch.no_grad():
        for name, layer in lora_layers(model).items():
            layer.A.copy_(tensors[f"{name}.A"])
            layer.B.copy_(tensors[f"{name}.B"])
    return about
