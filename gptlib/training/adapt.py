"""Adapt the pretrained model to a text: LoRA trained by the loop of every chapter, in a folder.

`python -m gptlib.training.adapt TRAIN VALIDATION FOLDER` reads two files of documents with
<|endoftext|> between them. FOLDER is an adapter that can go on where it stands; FOLDER/best is
the one with the lowest validation loss so far: that is where to stop.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
import typer
from torch import nn

from gptlib.formats.gguf import load_gguf
from gptlib.runtime import setup
from gptlib.text.corpora import read_documents
from gptlib.text.datasets import TokenDataset, batches
from gptlib.training import run_log
from gptlib.training.adapters import (
    BASE,
    has_adapter,
    load_adapter,
    resume_adapter,
    save_adapter,
)
from gptlib.training.config import TrainConfig
from gptlib.training.evaluation import evaluate_loss
from gptlib.training.loop import Step, train
from gptlib.training.lora import add_lora
from gptlib.training.optim import AdamW
from gptlib.training.runs import encode_documents


@dataclass(frozen=True)
class AdaptConfig:
    """How an adapter is trained; `add_lora` and `TrainConfig` check the values."""

    rank: int = 16
    learning_rate: float = 1e-3  # of AdamW, without weight decay
    batch_size: int = 2  # windows in a step
    max_steps: int = 400
    warmup_steps: int = 20
    decay_fraction: float = 0.8  # the last part of the run, in which the rate falls to 0
    evaluate_every: int = 100  # steps between two validation losses, each followed by a save
    seed: int = 0


def adapt(model: nn.Module, train_data: TokenDataset, val_data: TokenDataset, config: AdaptConfig,
          folder: str | Path, told: dict | None = None) -> Iterator[tuple[Step, float | None]]:
    """Train LoRA beside `model` and yield each step with the validation loss where it was taken.

    A folder with an unfinished adapter goes on, bit for bit, as if it had never stopped; other
    settings or texts than its own, or another base, raise ValueError. What is `told`, a dict that
    JSON can hold, is stored in the adapter as well.
    """
    folder = Path(folder)
    settings = dataclasses.asdict(config) | {
        "context_length": train_data.context_length, "train_sha256": _hash(train_data),
        "validation_sha256": _hash(val_data)}
    plan = TrainConfig(max_steps=config.max_steps, warmup_steps=config.warmup_steps,
                       schedule="linear", decay_fraction=config.decay_fraction)
    optimizer, start, best, before = _begin(model, config, settings, folder)
    began = perf_counter()
    windows = batches(train_data, config.batch_size, config.seed, start)
    for step in train(model, windows, optimizer, plan, start):
        measured = step.step % config.evaluate_every == 0 or step.step == config.max_steps
        val_loss = evaluate_loss(model, val_data, batch_size=4) if measured else None
        if measured:
            about = (told or {}) | {"settings": settings, "val_loss": val_loss}
            if val_loss < best:
                best = val_loss
                save_adapter(folder / "best", model, BASE, about, step=step.step)
            save_adapter(folder, model, BASE, about | {"best": best}, dtype=torch.float32,
                         step=step.step, optimizer=optimizer)
        if measured or step.step % 10 == 0:
            run_log.append(folder, step, val_loss, before + perf_counter() - began)
        yield step, val_loss


def _begin(model: nn.Module, config: AdaptConfig, settings: dict,
           folder: Path) -> tuple[AdamW, int, float, float]:
    """LoRA in place, and its optimizer; step, lowest loss and seconds of what was done before."""
    continued = has_adapter(folder)
    if continued:
        about = load_adapter(folder, model)
        if about["settings"] != settings:
            raise ValueError(f"{folder} was trained with {about['settings']}; got {settings}: "
                             f"go on with its own settings, or choose another folder")
    else:
        add_lora(model, config.rank)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], config.learning_rate,
                      betas=(0.9, 0.95), weight_decay=0.0)
    if not continued:
        return optimizer, 0, math.inf, 0.0
    start = resume_adapter(folder, optimizer)
    return optimizer, start, about["best"], run_log.rewind(folder, start)


def _hash(data: TokenDataset) -> str:
    """SHA-256 of the ids, by which a resumed training knows its texts again."""
    return hashlib.sha256(data.ids.long().numpy().data).hexdigest()


def main(train_file: Path, validation_file: Path, folder: Path, context_length: int = 256,
         rank: int = AdaptConfig.rank, learning_rate: float = AdaptConfig.learning_rate,
         batch_size: int = AdaptConfig.batch_size, max_steps: int = AdaptConfig.max_steps,
         decay_fraction: float = AdaptConfig.decay_fraction, seed: int = AdaptConfig.seed,
         threads: int | None = None) -> None:
    """Adapt SmolLM2-135M-Instruct to the documents of TRAIN_FILE."""
    config = AdaptConfig(rank, learning_rate, batch_size, max_steps,
                         decay_fraction=decay_fraction, seed=seed)
    setup(seed, threads)
    model, tokenizer = load_gguf(context_length=context_length)
    data = [TokenDataset(encode_documents(read_documents(file), tokenizer), context_length)
            for file in (train_file, validation_file)]
    folder.mkdir(parents=True, exist_ok=True)
    for step, val_loss in adapt(model, *data, config, folder):
        if val_loss is not None:
            print(f"step {step.step} of {max_steps}: validation loss {val_loss:.4f} nats per "
                  f"token", flush=True)


if __name__ == "__main__":
    typer.run(main)
