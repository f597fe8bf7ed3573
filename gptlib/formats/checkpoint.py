"""Checkpoints: a folder of open formats, replaced as a whole or not at all.

config.json            the format's name and version, the shape of the model
model.safetensors      the weights
tokenizer.json         the tokenizer, where there is one
training.json          step, metadata, and the optimizer's settings
optimizer.safetensors  the optimizer's tensors and the random states, for `resume`

A new checkpoint is written into a folder beside the old one, forced to the disk, and renamed. If
the process dies between the two renames, the old one is found under its second name.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.runtime import rank, whole
from gptlib.text.tokenizers import Tokenizer, load_tokenizer

FORMAT = "gptlib"
FORMAT_VERSION = 1
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "training.json",
          "optimizer.safetensors")


def save_checkpoint(path: str | Path, model: GPT, tokenizer: Tokenizer | None = None, *,
                    step: int = 0, optimizer: torch.optim.Optimizer | None = None,
                    metadata: dict | None = None, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint to the folder `path`, or leave the one that is there as it is.

    With `optimizer` the run can be resumed. `metadata` is a dict that JSON can hold. `dtype`
    stores the weights in another type, say torch.bfloat16 (half the size). Other files in an old
    checkpoint's folder are kept. In a run of several processes all may call, and must if the model
    is sharded: its parts are gathered, and the first process writes. A write that fails raises
    OSError; the last checkpoint is then still there.
    """
    path, first = Path(path).absolute(), rank()[0] == 0
    if first:
        _check_target(path, model, tokenizer)
    training = {"step": step, "metadata": metadata or {}}
    weights = _gather(model.state_dict(), dtype)
    state = None
    if optimizer is not None:
        training["optimizer"], state = _pack_optimizer(optimizer)
    if not first:
        return
    description = {"format": FORMAT, "format_version": FORMAT_VERSION,
                   "model": model.config.to_dict()}
    try:
        texts = {"config.json": json.dumps(description, indent=2),
                 "training.json": json.dumps(training, indent=2)}
    except TypeError as error:
        raise ValueError(f"the metadata cannot be written as JSON ({error}); expected a dict of "
                         f"numbers, strings, lists and dicts") from error

    def write(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text + "\n", encoding="utf-8")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.save(folder / "tokenizer.json")
        if state is not None:
            save_file(state, folder / "optimizer.safetensors")

    _replace_folder(path, write)


def load_checkpoint(path: str | Path) -> tuple[GPT, Tokenizer | None, dict]:
    """Read (model, tokenizer or None, metadata) from a checkpoint's folder.

    The model is float32, on the CPU, in eval mode; metadata holds `step` and what was saved with
    it. Random states are left alone. A file that is missing, cut off, foreign or does not fit
    raises a ValueError that names it.
    """
    folder = _find(Path(path))
    description = _read_json(folder / "config.json")
    config = _model_config(folder / "config.json", description)
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
        model = GPT(config)
    _load_weights(model, folder)
    tokenizer_file = folder / "tokenizer.json"
    tokenizer = None
    if tokenizer_file.exists():
        try:
            tokenizer = load_tokenizer(tokenizer_file)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{tokenizer_file} cannot be read ({error}); expected a tokenizer "
                             f"saved by gptlib: save the checkpoint again") from error
    training = _read_training(folder)
    return model.eval(), tokenizer, {**training["metadata"], "step": training["step"]}


def resume(path: str | Path, model: GPT, optimizer: torch.optim.Optimizer) -> int:
    """Put a checkpoint's weights, optimizer state and random states back; return its step.

    `model` and `optimizer` are built as for the first run. Then go on with
    `train(model, batches(..., start=step * accumulation), optimizer, config, start=step)`:
    the end is bit for bit that of a run without a stop. (Only the loss scale of float16 starts
    anew.) A checkpoint of another model or optimizer raises ValueError before anything changes.
    """
    folder = _find(Path(path))
    training = _read_training(folder)
    if "optimizer" not in training:
        raise ValueError(f"{folder} holds no optimizer state; expected a checkpoint saved with "
                         f"optimizer=...: load_checkpoint reads its weights")
    saved_config = _model_config(folder / "config.json", _read_json(folder / "config.json"))
    if saved_config != model.config:
        raise ValueError(f"{folder} holds a model of the shape {saved_config}; got one of the "
                         f"shape {model.config}: build the model from the saved configuration")
    tensors = _read_tensors(folder / "optimizer.safetensors")
    state = _unpack_optimizer(training["optimizer"], tensors, optimizer, folder)
    _load_weights(model, folder)
    optimizer.load_state_dict(state)
    torch.set_rng_state(tensors["random.cpu"])
    for i in range(torch.cuda.device_count()):
        if f"random.cuda.{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"random.cuda.{i}"], i)
    return training["step"]


def model_path(name: str) -> Path:
    """The folder of a trained model that comes with the book: models/<name> of the repository,
    or its copy inside the installed package. An unknown name is a ValueError that lists them."""
    package = Path(__file__).parent.parent
    models = {}
    for root in (package / "models", package.parent / "models"):
        models |= {file.parent.name: file.parent for file in root.glob("*/config.json")}
    if name not in models:
        known = ", ".join(sorted(models)) or "none (they come with the book's repository)"
        raise ValueError(f"there is no model {name!r}; the models there are: {known}")
    return models[name]


# ---- writing


def _check_target(path: Path, model: GPT, tokenizer: Tokenizer | None) -> None:
    if not isinstance(getattr(model, "config", None), GPTConfig):
        raise ValueError(f"got a {type(model).__name__}; expected a gptlib.model.gpt.GPT")
    if tokenizer is not None and tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens and the model "
                         f"{model.config.vocab_size}; expected the tokenizer the model was "
                         f"trained with")
    ours = path.is_dir() and (not any(path.iterdir()) or (path / "config.json").exists())
    if path.exists() and not ours:
        raise ValueError(f"{path} exists and is no checkpoint; expected a new or an empty folder, "
                         f"or an older checkpoint to replace: choose another path")


def _replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside `path`, then swap the two by renaming."""
    partial, previous = _beside(path, "partial"), _beside(path, "previous")
    if previous.exists() and not path.exists():
        previous.rename(path)  # an earlier save was killed between the two renames
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
        if path.exists():
            _keep_other_files(path, partial)
        for file in partial.rglob("*"):
            _force_to_disk(file)
        _force_to_disk(partial)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"the checkpoint could not be written to {path} ({error}); what was there "
                      f"before is unchanged: free some space or choose another folder") from error
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
        path.rename(previous)
    partial.rename(path)  # killed just before this line: `_find` still finds `previous`
    _force_to_disk(path.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f".{path.name}.{word}")


def _keep_other_files(old: Path, new: Path) -> None:
    for file in old.iterdir():
        if file.name in _FILES:
            continue
        if file.is_dir():
            shutil.copytree(file, new / file.name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(file, new / file.name)


def _force_to_disk(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict, dict[str, Tensor]]:
    """Settings and numbers for JSON; tensors, with the random states, for safetensors."""
    saved = optimizer.state_dict()
    tensors = {"random.cpu": torch.get_rng_state()}
    for i in range(torch.cuda.device_count()):
        tensors[f"random.cuda.{i}"] = torch.cuda.get_rng_state(i)
    numbers: dict[str, dict] = {}
    for index, values in saved["state"].items():
        numbers[str(index)] = {}
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"state.{index}.{name}"] = value
            else:
                numbers[str(index)][name] = value
    settings = {"class": type(optimizer).__name__, "groups": saved["param_groups"],
                "numbers": numbers}
    return settings, _gather(tensors)


def _gather(tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """On the CPU, and whole where they were sharded, one by one; the first process keeps them."""
    kept = {}
    for name, tensor in tensors.items():
        tensor = whole(tensor.detach())
        if rank()[0] == 0:
            kept[name] = tensor.to("cpu", dtype or tensor.dtype).contiguous()
    return kept


# ---- reading


def _find(path: Path) -> Path:
    path = path.absolute()
    for folder in (path, _beside(path, "previous")):
        if (folder / "config.json").exists():
            return folder
    raise ValueError(f"there is no checkpoint at {path}: config.json is missing; expected a folder "
                     f"written by save_checkpoint. Is the path right?")


def _read_json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _broken(file, "it is missing") from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise _broken(file, f"it is cut off or not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _broken(file, f"it holds a {type(content).__name__}, expected an object")
    return content


def _read_training(folder: Path) -> dict:
    training = _read_json(folder / "training.json")
    if not isinstance(training.get("step"), int) or not isinstance(training.get("metadata"), dict):
        raise _broken(folder / "training.json", "expected the keys step and metadata")
    return training


def _read_tensors(file: Path) -> dict[str, Tensor]:
    if not file.exists():
        raise _broken(file, "it is missing")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise _broken(file, f"it is cut off or not in the safetensors format: {error}") from error


def _model_config(file: Path, description: dict) -> GPTConfig:
    if description.get("format") != FORMAT:
        hint = ("; it looks like a Hugging Face model: use gptlib.formats.huggingface"
                if "model_type" in description else "")
        raise ValueError(f"{file} has format {description.get('format')!r}; expected {FORMAT!r}, "
                         f"written by save_checkpoint{hint}")
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"{file} has format version {version!r}; this gptlib reads "
                         f"{FORMAT_VERSION}: install the version that wrote it")
    try:
        return GPTConfig.from_dict(description["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(file, f"its model cannot be read: {error}") from error


def _load_weights(model: GPT, folder: Path) -> None:
    file = folder / "model.safetensors"
    weights, wanted = _read_tensors(file), model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights:
            raise _broken(file, f"{name} is missing, which config.json's model has")
        if name not in wanted:
            raise _broken(file, f"it holds {name}, which config.json's model has not")
        if weights[name].shape != wanted[name].shape:
            raise _broken(file, f"{name} has shape {tuple(weights[name].shape)}; config.json's "
                                f"model expects {tuple(wanted[name].shape)}")
    model.load_state_dict(weights)  # copies, and so converts bfloat16 to the model's float32


def _unpack_optimizer(saved: dict, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer,
                      folder: Path) -> dict:
    name = type(optimizer).__name__
    if saved["class"] != name:
        raise ValueError(f"{folder} holds the state of {saved['class']}; got {name}: build the "
                         f"optimizer of the saved run")
    state = {int(index): dict(values) for index, values in saved["numbers"].items()}
    for key, tensor in tensors.items():
        if key.startswith("state."):
            _, index, entry = key.split(".", 2)
            state[int(index)][entry] = tensor
    # JSON has no tuples, and optimizers keep some (Adam's betas)
    groups = [{key: tuple(value) if isinstance(value, list) and key != "params" else value
               for key, value in group.items()} for group in saved["groups"]]
    sizes = [len(group["params"]) for group in groups]
    got = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != got:
        raise ValueError(f"{folder} holds groups of {sizes} parameters; the optimizer has {got}: "
                         f"build it with the same parameter_groups")
    return {"state": state, "param_groups": groups}


def _broken(file: Path, what: str) -> ValueError:
    return ValueError(f"{file} cannot be used: {what}. Expected a file of one whole checkpoint "
                      f"written by save_checkpoint: save it again or take an older one")
