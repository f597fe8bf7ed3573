"""Small models and folders of GPT-2 for the tests of `gptlib.formats.huggingface`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gptlib.formats.huggingface import to_huggingface
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import BPETokenizer

TEXT = "the cat sat on the mat, the rat sat on the cat; that is that. " * 3


def shake(model: torch.nn.Module) -> torch.nn.Module:
    """Random values everywhere, also in biases and norms, which start at zero and one."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def small_gpt(tokenizer: BPETokenizer, **changes) -> GPT:
    """A model that knows the tokenizer's ids."""
    torch.manual_seed(4)
    config = GPTConfig(tokenizer.vocab_size, context_length=32, n_layer=2, n_head=4, n_embd=32)
    return shake(GPT(dataclasses.replace(config, **changes)))


def write_folder(folder: Path, keys: dict[str, Any] | None = None,
                 weights: dict[str, torch.Tensor | None] | None = None, **changes) -> Path:
    """A folder for Transformers whose config.json and weights are changed afterwards: `keys` and
    `weights` are changed or added, and None leaves a tensor out; `changes` are the model's."""
    tokenizer = BPETokenizer.train(TEXT, vocab_size=270)
    to_huggingface(small_gpt(tokenizer, **changes), tokenizer, folder, overwrite=True)
    if keys is not None:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(written | keys), encoding="utf-8")
    if weights is not None:
        tensors = load_file(folder / "model.safetensors") | weights
        save_file({name: tensor for name, tensor in tensors.items() if tensor is not None},
                  folder / "model.safetensors", metadata={"format": "pt"})
    return folder
