"""Checkpoints: a folder of open formats, replaced as a whole or not at all.

config.json            the format's name and version, the architecture and the model's shape
model.safetensors      the weights
tokenizer.json         the tokenizer, where there is one
training.json          step, metadata, and the optimizer's settings
optimizer.safetensors  the optimizer's tensors and the random states, for `resume`

A new checkpoint is written inside the folder and counts from one renaming on
(`gptlib.files.replace_files`). What `load_checkpoint` would refuse, `save_checkpoint` refuses.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gptlib.files import (
    Fields,
    broken,
    current,
    is_unused,
    parse_json,
    read_header,
    read_json,
    read_tensors,
    replace_files,
    shown,
    tensor_info,
)
from gptlib.formats.optimizer_state import pack_optimizer, set_random_states, unpack_optimizer
from gptlib.formats.shapes import require_finite, require_shapes
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.runtime import rank, whole
from gptlib.text.tokenizers import KINDS, Tokenizer, load_tokenizer

FORMAT = "gptlib"
FORMAT_VERSION = 1
ARCHITECTURES = {"GPT": (GPT, GPTConfig)}  # models that can be stored, by their name in the file
FILES = ("config.json", "model.safetensors", "tokenizer.json", "training.json",
         "optimizer.safetensors")
_LARGEST = 2**22  # bytes of config.json and of training.json


def save_checkpoint(path: str | Path, model: GPT, tokenizer: Tokenizer | None = None, *,
                    step: int = 0, optimizer: torch.optim.Optimizer | None = None,
                    metadata: dict | None = None, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint to the folder `path`, or leave the one that is there as it is.

    With `optimizer` the run can be resumed. `metadata` is a dict that JSON can hold. `dtype`
    stores the weights in another type, say torch.bfloat16 (half the size). Of a compiled model the
    model inside is saved. Other files in the folder are kept. In a run of several processes all
    may call, and must if the model is sharded: its parts are gathered, and the first process
    writes. What could not be loaded again raises ValueError, a write that fails OSError.
    """
    path, first = Path(path), rank()[0] == 0
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper renames the weights
    _architecture(model)
    if first:
        _check_target(path, model, tokenizer)
    training = {"step": step, "metadata": {} if metadata is None else metadata}
    weights = _gather(model.state_dict(), dtype)
    state = None
    if optimizer is not None:
        training["optimizer"], state = pack_optimizer(optimizer, path / "optimizer.safetensors")
        state = _gather(state)
    if not first:
        return
    texts = {"config.json": _json(path / "config.json", _description(model)),
             "training.json": _json(path / "training.json", training)}
    _read_training(path, texts["training.json"])
    require_shapes(path, model.config, {name: tensor_info(t) for name, t in weights.items()})
    require_finite(path, weights | (state or {}))

    def write(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_bytes(text)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.save(folder / "tokenizer.json")
        if state is not None:
            save_file(state, folder / "optimizer.safetensors")

    replace_files(path, FILES, write)


def load_checkpoint(path: str | Path) -> tuple[GPT, Tokenizer | None, dict]:
    """Read (model, tokenizer or None, metadata) from a checkpoint's folder.

    The model is float32, on the CPU, in eval mode; metadata holds `step` and what was saved with
    it. Random states are left alone. A file that is missing, cut off, foreign or does not fit
    raises a ValueError that names it, and so do weights that are not finite: what they compute
    is no text, and a run that went so far has an older checkpoint. The optimizer's files are read
    by `resume` alone, which refuses such numbers there, too.
    """
    config, training, tokenizer, weights = _undisturbed(Path(path), _read_all)
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
        model = GPT(config)
    model.load_state_dict(weights)  # copies, and so converts bfloat16 to the model's float32
    return model.eval(), tokenizer, {**training.values["metadata"], "step": training.values["step"]}


def resume(path: str | Path, model: GPT, optimizer: torch.optim.Optimizer) -> int:
    """Put a checkpoint's weights, optimizer state and random states back; return its step.

    `model` and `optimizer` are built as for the first run. Then go on with
    `train(model, batches(..., start=step * accumulation), optimizer, config, start=step)`:
    the end is bit for bit that of a run without a stop. (Only the loss scale of float16 starts
    anew.) A checkpoint of another model or optimizer raises ValueError before anything changes.
    """
    path, model = Path(path), getattr(model, "_orig_mod", model)
    training, saved_config = _read_training(path), _read_config(path)
    if "optimizer" not in training.values:
        raise broken(training.file, "it holds no optimizer state; expected a checkpoint saved with "
                                    "optimizer=...", "load_checkpoint reads its weights")
    _architecture(model)
    own, config_file = model.config.to_dict(), _file(path, "config.json")
    for name, value in saved_config.to_dict().items():
        if own[name] != value:
            raise broken(config_file, f"model.{name} is {value!r}; got a model with {own[name]!r}",
                         "build the model from the saved configuration")
    state, random_states = unpack_optimizer(training.object("optimizer"),
                                            _file(path, "optimizer.safetensors"), optimizer)
    weights = _read_weights(path, saved_config)
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    set_random_states(random_states)
    return training.values["step"]


def has_checkpoint(path: str | Path) -> bool:
    """Whether the folder `path` holds a checkpoint, be it in order or damaged."""
    try:
        return read_json(_file(Path(path), "config.json"), _LARGEST).get("format") == FORMAT
    except ValueError:
        return False


def model_path(name: str) -> Path:
    """The folder of a trained model that comes with the book: models/<name> of the repository,
    or its copy inside the installed package. An unknown name is a ValueError that lists them."""
    package = Path(__file__).parent.parent
    models = {}
    for root in (package / "models", package.parent / "models"):
        for kind in ("config.json", "adapter.json"):  # a checkpoint, or what LoRA learned
            models |= {file.parent.name: file.parent for file in root.glob(f"*/{kind}")}
    if name not in models:
        known = ", ".join(sorted(models)) or "none (they come with the book's repository)"
        raise ValueError(f"there is no model {name!r}; the models there are: {known}")
    return models[name]


# ---- writing


def _architecture(model: nn.Module) -> str:
    """The name under which models of this class are stored. Raises ValueError for others, and for
    subclasses: they may compute something else, and would come back as the plain class."""
    kind = type(model)
    if hasattr(kind, "unshard"):  # fully_shard has put a class of its own in front
        kind = kind.__mro__[2]
    for name, (stored, config) in ARCHITECTURES.items():
        if kind is stored and type(model.config) is config:
            return name
    raise ValueError(f"got a {kind.__name__}; expected a gptlib.model.gpt.GPT itself")


def _description(model: GPT) -> dict[str, Any]:
    return {"format": FORMAT, "format_version": FORMAT_VERSION,
            "architecture": _architecture(model), "model": model.config.to_dict()}


def _check_target(path: Path, model: GPT, tokenizer: Tokenizer | None) -> None:
    if tokenizer is not None:
        if type(tokenizer) not in KINDS.values():
            raise ValueError(f"got a {type(tokenizer).__name__}; expected one of "
                             f"{', '.join(kind.__name__ for kind in KINDS.values())}")
        _check_tokenizer(path, tokenizer, model.config)
    if not is_unused(path) and not has_checkpoint(path):
        raise ValueError(f"{path} exists and is no checkpoint; expected a new or an empty folder, "
                         f"or an older checkpoint to replace: choose another path")


def _json(file: Path, content: dict) -> bytes:
    """The bytes to write. (JSON turns tuples into lists and keys into strings.)"""
    try:
        text = json.dumps(content, indent=2).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} cannot be written as JSON ({error}); expected metadata of "
                         f"numbers, strings, lists and dicts") from error
    if len(text) > _LARGEST:
        raise ValueError(f"{file.name} would have {len(text):,} bytes; expected at most "
                         f"{_LARGEST:,}: save large metadata in a file of its own")
    return text


def _gather(tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """On the CPU, and whole where they were sharded, one by one; the first process keeps them."""
    kept, places = {}, set()
    for name, tensor in tensors.items():
        tensor = whole(tensor.detach())
        if rank()[0] == 0:
            tensor = tensor.to("cpu", dtype or tensor.dtype).contiguous()
            shared = tensor.data_ptr() in places  # which safetensors refuses
            kept[name] = tensor.clone() if shared else tensor
            places.add(tensor.data_ptr())
    return kept


# ---- reading


def _file(folder: Path, name: str) -> Path:
    return current(folder, FILES, name)


def _read_all(folder: Path) -> tuple[GPTConfig, Fields, Tokenizer | None, dict[str, Tensor]]:
    config, training = _read_config(folder), _read_training(folder)
    return config, training, _read_tokenizer(folder, config), _read_weights(folder, config)


def _undisturbed(folder: Path, read: Callable[[Path], Any]) -> Any:
    """What `read` gets from the folder, read again if meanwhile a run saved another checkpoint."""
    while True:
        before = _saved_files(folder)
        try:
            result = read(folder)
        except (ValueError, OSError):
            if _saved_files(folder) == before:
                raise
        else:
            if _saved_files(folder) == before:
                return result


def _saved_files(folder: Path) -> list[tuple[int, int] | None]:
    """What tells the files of one save from those of another, wherever they are just now."""
    found: list[tuple[int, int] | None] = []
    for name in FILES:
        try:
            status = _file(folder, name).stat()
            found.append((status.st_ino, status.st_mtime_ns))
        except OSError:  # there is none, or it was moved just now
            found.append(None)
    return found


def _read_config(folder: Path) -> GPTConfig:
    file = _file(folder, "config.json")
    if not file.exists():
        raise ValueError(f"there is no checkpoint at {folder.absolute()}: config.json is missing; "
                         f"expected a folder written by save_checkpoint. Is the path right?")
    values = read_json(file, _LARGEST)
    fields = Fields(file, values)
    if values.get("format") != FORMAT:
        hint = ("it looks like a Hugging Face model: use gptlib.formats.huggingface"
                if "model_type" in values else "is the path right?")
        raise broken(file, f"format is {shown(values.get('format'))}; expected {FORMAT!r}, "
                           f"written by save_checkpoint", hint)
    fields.read("format", str)
    version = fields.read("format_version", int)
    if version != FORMAT_VERSION:
        raise broken(file, f"format_version is {version}; this gptlib reads {FORMAT_VERSION}",
                     "install the version that wrote it")
    name = fields.read("architecture", str, choices=tuple(ARCHITECTURES))
    model = fields.object("model")
    fields.finish()
    config = ARCHITECTURES[name][1]
    known = {field.name for field in dataclasses.fields(config)}
    missing = known - set(model.values)
    if missing and known > set(model.values):  # a default could silently be another model
        raise broken(file, f"model.{min(missing)} is missing; expected all of {config.__name__}")
    try:
        return config.from_dict(model.values)
    except ValueError as error:
        raise broken(file, f"its model cannot be read: {error}") from error


def _read_training(folder: Path, content: bytes | None = None) -> Fields:
    """training.json, its step and metadata checked; of `content` before it is written."""
    file = _file(folder, "training.json")
    values = read_json(file, _LARGEST) if content is None else parse_json(content, file)
    fields = Fields(file, values)
    fields.read("step", int, least=0, most=2**53)
    if "step" in fields.read("metadata", dict):
        raise broken(file, "metadata.step would hide the checkpoint's own step",
                     "give it another name")
    if "optimizer" in values:
        fields.object("optimizer")
    fields.finish()
    return fields


def _read_tokenizer(folder: Path, config: GPTConfig) -> Tokenizer | None:
    file = _file(folder, "tokenizer.json")
    if not file.exists():
        return None
    tokenizer = load_tokenizer(file)
    _check_tokenizer(file, tokenizer, config)
    return tokenizer


def _check_tokenizer(file: Path, tokenizer: Tokenizer, config: GPTConfig) -> None:
    if tokenizer.vocab_size > config.vocab_size:
        raise broken(file, f"the tokenizer has {tokenizer.vocab_size} tokens and the model "
                           f"{config.vocab_size}; expected the tokenizer the model was trained "
                           f"with")


def _read_weights(folder: Path, config: GPTConfig) -> dict[str, Tensor]:
    file = _file(folder, "model.safetensors")
    require_shapes(file, config, read_header(file))
    weights = read_tensors(file)
    require_finite(file, weights)
    return weights
