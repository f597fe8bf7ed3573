"""Teach a model to chat: supervised fine-tuning on the students' conversations.

    python -m gptlib.training.chats smollm2 runs/chatter            # LoRA beside SmolLM2
    python -m gptlib.training.chats runs/chat-base runs/chat        # all weights of one's own model

The loss is that of every chapter, on the replies alone: what a user says, and the headers before
each message, are read and not learned. Each conversation comes in pieces, and twice, so that the
model learns what both speakers say. A training that was stopped goes on with the same command.
"""

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import typer

from gptlib.formats.checkpoint import (
    has_checkpoint,
    load_checkpoint,
    resume,
    save_checkpoint,
)
from gptlib.formats.gguf import load_gguf
from gptlib.model.gpt import GPT
from gptlib.runtime import setup
from gptlib.text import conversations
from gptlib.text.corpora import END
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.tokenizers import Tokenizer
from gptlib.training import run_log
from gptlib.training.adapt import AdaptConfig, adapt
from gptlib.training.adapters import weights_hash
from gptlib.training.config import TrainConfig
from gptlib.training.evaluation import evaluate_loss
from gptlib.training.loop import Step, train
from gptlib.training.optim import AdamW, parameter_groups
from gptlib.training.stored import PRETRAINED, open_checkpoint

LORA = AdaptConfig()
OWN = TrainConfig(max_steps=300, warmup_steps=20, schedule="linear", decay_fraction=0.8)
JUDGED = 12  # conversations of the validation part that are looked at on the way


def chat_data(tokenizer: Tokenizer, context_length: int) -> tuple[TokenDataset, TokenDataset]:
    """What is learned from, in windows that begin where a piece does, and what judges."""
    parts = conversations.split()
    end = tokenizer.special_tokens[END]
    ids, learn = conversations.encode(conversations.pieces(parts.train), tokenizer, both=True)
    train_data = TokenDataset(ids, context_length, begin_at=end, learn=learn)
    ids, learn = conversations.encode(parts.validation[:JUDGED], tokenizer)
    return train_data, TokenDataset(ids, context_length, learn=learn)


def finetune(model: GPT, tokenizer: Tokenizer, folder: Path, *, batch_size: int = 12,
             learning_rate: float = 1e-3, every: int = 100, seed: int = 0
             ) -> Iterator[tuple[Step, float | None]]:
    """Train all weights on the replies and yield each step with the validation loss where it was
    taken; `folder` is a checkpoint, from which an unfinished training goes on.

    ValueError for a folder that was trained from another model, or with other settings.
    """
    data, val_data = chat_data(tokenizer, model.config.context_length)
    optimizer = AdamW(parameter_groups(model, weight_decay=0.1), learning_rate)
    begun = {"base_hash": weights_hash(model), "batch_size": batch_size,
             "learning_rate": learning_rate, "seed": seed, "max_steps": OWN.max_steps}

    def save(step: int) -> None:
        save_checkpoint(folder, model, tokenizer, step=step, optimizer=optimizer,
                        metadata={"fine_tuned": begun})

    if not has_checkpoint(folder):
        save(0)
    if (theirs := load_checkpoint(folder)[2].get("fine_tuned")) != begun:
        raise ValueError(f"{folder} was trained from {theirs}; got {begun}: go on with the same "
                         f"model and settings, or choose another folder")
    start = resume(folder, model, optimizer)
    before, began = run_log.rewind(folder, start), perf_counter()
    for step in train(model, batches(data, batch_size, seed, start), optimizer, OWN, start):
        measured = step.step % every == 0 or step.step == OWN.max_steps
        val_loss = evaluate_loss(model, val_data) if measured else None
        if measured or step.step % 10 == 0:
            run_log.append(folder, step, val_loss, before + perf_counter() - began)
        if measured:
            save(step.step)
        yield step, val_loss


def main(base: str, folder: Path, threads: int | None = None) -> None:
    """Teach BASE, smollm2 or the folder of a model with the marks of a chat, into FOLDER."""
    setup(0, threads)
    if base == PRETRAINED:
        folder.mkdir(parents=True, exist_ok=True)
        model, tokenizer = load_gguf(context_length=256)
        data = chat_data(tokenizer, 256)
        told = {"chat": {"start_tokens": [tokenizer.special_tokens[END]]}}
        steps, last = adapt(model, *data, LORA, folder, told), LORA.max_steps
    else:
        model, tokenizer, _ = open_checkpoint(Path(base))
        steps, last = finetune(model, tokenizer, folder), OWN.max_steps
    for step, val_loss in steps:
        if val_loss is not None:
            print(f"step {step.step} of {last}: validation loss {val_loss:.4f} nats per token of "
                  f"the replies", flush=True)


if __name__ == "__main__":
    typer.run(main)
