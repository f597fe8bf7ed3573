"""Writing a stored model once more: for other programs, or smaller; nothing there is harmed."""

import contextlib
import os
from pathlib import Path

import torch

from gptlib.files import is_unused, replace_files
from gptlib.formats import huggingface
from gptlib.formats.checkpoint import FILES, has_checkpoint, save_checkpoint
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import Tokenizer

# what an export writes, and what it removes of a model of another kind
EXPORTS = {"gptlib": (*FILES, *huggingface.FILES, *huggingface.LEFT_OVER),
           "huggingface": (*huggingface.FILES, *huggingface.LEFT_OVER, *FILES)}


def export_model(model: GPT, tokenizer: Tokenizer, metadata: dict, *, source: Path, out: Path,
                 to: str, force: bool = False) -> None:
    """Write to the folder `out` what was read from the folder `source`.

    `to` is "huggingface", or "gptlib": a checkpoint of half the size, without an optimizer. Made
    whole or not at all. ValueError for another `to`, and for an `out` that is the model itself,
    other things than a model, or another model, this one without `force`.
    """
    if to not in EXPORTS:
        raise ValueError(f"--to is {to!r}; expected huggingface or gptlib")
    _check_target(source, out, force)

    def write(folder: Path) -> None:
        if to == "huggingface":
            huggingface.to_huggingface(model, tokenizer, folder)
        else:
            about = {key: value for key, value in metadata.items() if key != "step"}
            save_checkpoint(folder, model, tokenizer, step=metadata["step"], metadata=about,
                            dtype=torch.bfloat16)

    missing = [path for path in (out, *out.parents) if not path.exists()]
    try:
        replace_files(out, EXPORTS[to], write)
    except Exception:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _check_target(source: Path, out: Path, force: bool) -> None:
    """Refuse to export into the model itself, and over other things; over another model, too,
    without `force`."""
    real = Path(os.path.realpath(out))
    if any(each.exists() and each.samefile(source) for each in (real, *real.parents)):
        raise ValueError(f"--out is {out}, which is the model {source} itself or lies inside it; "
                         f"expected another folder: the export would destroy what it reads")
    if is_unused(out):
        return
    if not (out / "config.json").is_file() and not has_checkpoint(out):
        raise ValueError(f"--out is {out}, which is there and holds no model; expected a new or an "
                         f"empty folder: choose another")
    if not force:
        raise ValueError(f"{out} already holds a model; expected a new folder: choose another, or "
                         f"replace that model (--force)")
