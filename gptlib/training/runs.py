"""A training run in a folder: data, model, checkpoints, a log, and the way back after a stop.

The folder is a checkpoint (see `gptlib.formats.checkpoint`) with `log.jsonl` beside it: a line
every ten steps, with the held-out loss where it was measured. `python -m gptlib train` is this
module.
"""

import contextlib
import dataclasses
import math
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from gptlib.files import broken, is_unused
from gptlib.formats.checkpoint import (
    FILES,
    has_checkpoint,
    load_checkpoint,
    resume,
    save_checkpoint,
)
from gptlib.model.config import require_number
from gptlib.model.gpt import GPT
from gptlib.runtime import interruptions, largest_of_all, rank, setup
from gptlib.text import corpora
from gptlib.text.chat_template import MARKS
from gptlib.text.corpora import END, HELD_OUT
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer
from gptlib.training import run_log, run_record
from gptlib.training.config import TrainConfig
from gptlib.training.evaluation import evaluate_loss
from gptlib.training.loop import Step, train
from gptlib.training.optim import AdamW, Muon, parameter_groups
from gptlib.training.run_config import EMBEDDING_STD, RunConfig


@dataclass(frozen=True)
class Progress:
    """One step of a run; `val_loss` (nats per token) where it was measured."""

    step: Step
    max_steps: int
    val_loss: float | None


def split_documents(corpus: Sequence[str]) -> tuple[list[str], list[str]]:
    """Documents to train on and documents held out, from names of corpora or paths of texts.

    Held out is every tenth document of the **first** corpus, which the model is meant for; the
    others are there to learn from. Of fewer than ten documents the last tenth of each is held
    out. What is held out is removed from the other corpora, should they contain it.
    """
    return _split([_documents(name) for name in corpus])


def _split(parts: list[list[str]]) -> tuple[list[str], list[str]]:
    first = parts[0]
    if len(first) >= HELD_OUT:
        held_out = first[HELD_OUT - 1::HELD_OUT]
    else:
        cuts = [len(text) - len(text) // HELD_OUT for text in first]
        held_out = [text[cut:] for text, cut in zip(first, cuts)]
        parts = [[text[:cut] for text, cut in zip(first, cuts)]
                 if part == first else part for part in parts]
    kept_away = set(held_out)
    return [text for part in parts for text in part if text not in kept_away], held_out


def encode_documents(documents: Sequence[str], tokenizer: Tokenizer) -> torch.Tensor:
    """Ids (N,) of all documents with the end-of-text token before, between and after them.

    A tokenizer without that token gets an empty line between documents.
    """
    if END in tokenizer.special_tokens:
        text = END + "".join(document + END for document in documents)
        return torch.tensor(tokenizer.encode(text, allow_special=True))
    return torch.tensor(tokenizer.encode("\n\n".join(documents)), dtype=torch.long)


def run(config: RunConfig, folder: str | Path, *, continued: bool = False,
        minutes: float | None = None, device: str | torch.device = "cpu",
        threads: int | None = None, shard: bool = False) -> Iterator[Progress]:
    """Train as `config` says and yield each step; checkpoints and the log go to `folder`.

    With `continued` the run in `folder` goes on where its last checkpoint stands, as if it had
    never stopped; only `max_steps` may differ from its own settings, and its texts must be the
    same. `minutes` replaces `max_steps` by what fits (`steps_in`). Ctrl-C lets the step finish,
    writes a checkpoint and ends the iteration; a second Ctrl-C raises KeyboardInterrupt. In
    several processes (`runtime.process_group`) all iterate and the first one writes; `shard`
    splits the model over them. One process can continue what several began.

    Raises ValueError for what cannot work before anything is written, and FloatingPointError
    where the numbers are no longer finite. A new run that fails before its first checkpoint
    leaves nothing behind.
    """
    folder, device = Path(folder), torch.device(device)
    require_number("minutes", 1 if minutes is None else minutes, 1e-6, 1e6)
    config.require_machine(device, rank()[1], shard)
    if not continued:
        _check_new(folder)
    setup(config.seed, threads)
    tokenizer, metadata = _open(folder) if continued else (None, {"step": 0})
    start = metadata["step"]
    if continued:
        _require_same_settings(folder, metadata, config)
        untidy = largest_of_all(_has_leftovers(folder))  # all look before the first one writes
        if start == config.max_steps and minutes is None and not untidy:
            return
    *data, record = _prepare(config, tokenizer)
    if continued:
        run_record.require_same(folder, metadata.get("data"), record)
    if minutes is not None:
        fitting = steps_in(minutes, config, tuple(data), device, shard)
        config = dataclasses.replace(config, max_steps=start + fitting)
    setup(config.seed, threads)  # once more: the steps that were timed drew numbers
    metadata = {"run": dataclasses.asdict(config), "data": record}
    with _undone_if_it_fails(folder, continued) as saved:
        yield from _go(config, folder, tuple(data), metadata, start if continued else None, saved,
                       device, shard)


def _go(config: RunConfig, folder: Path, data: tuple, metadata: dict, start: int | None,
        saved: list[int], device: torch.device, shard: bool) -> Iterator[Progress]:
    tokenizer, train_data, val_data = data
    model, optimizer, plan = build(config, tokenizer.vocab_size, device, shard)
    first, before = rank()[0] == 0, 0.0

    def save(step: int) -> None:
        if first:
            run_log.keep(folder)
        save_checkpoint(folder, model, tokenizer, step=step, optimizer=optimizer,
                        metadata=metadata)
        saved.append(step)

    if start is None:
        save(start := 0)
    else:
        resume(folder, model, optimizer)
        before = run_log.rewind(folder, start) if first else 0.0
        if largest_of_all(start == config.max_steps):  # and all have read what is there
            save(start)  # which tidies up: the last one was killed as it moved its files
    began = perf_counter()
    windows = batches(train_data, config.batch_size, config.seed, start)
    with interruptions() as interrupted:
        for step in train(model, windows, optimizer, plan, start):
            done = step.step == config.max_steps
            measured = done or step.step % config.evaluate_every == 0
            val_loss = _finite(evaluate_loss(model, val_data), step) if measured else None
            if first and (measured or step.step % 10 == 0):
                run_log.append(folder, step, val_loss, before + perf_counter() - began)
            stop = largest_of_all(bool(interrupted))  # all stop at the same step, or they hang
            if done or stop or step.step % config.checkpoint_every == 0:
                save(step.step)
            yield Progress(step, config.max_steps, val_loss)
            if stop:
                return


def stored_config(folder: str | Path) -> tuple[RunConfig, int]:
    """The settings of the run in `folder`, and the step at which it stands."""
    metadata = load_checkpoint(folder)[2]
    return _settings(folder, metadata), metadata["step"]


def prepare(config: RunConfig, folder: Path | None = None
            ) -> tuple[Tokenizer, TokenDataset, TokenDataset]:
    """Tokenizer, training data and held-out data. The tokenizer of `folder`, or a new one, which
    learns from the training documents alone (characters: from all, so that none is unknown). The
    marks of a chat template become tokens where these documents have them.
    Raises ValueError for a text with too little for a window in either part."""
    return _prepare(config, None if folder is None else _open(folder)[0])[:3]


def _prepare(config: RunConfig, tokenizer: Tokenizer | None
             ) -> tuple[Tokenizer, TokenDataset, TokenDataset, dict]:
    """What `prepare` returns, and a record of the data, by which a resumed run knows it again."""
    parts = [_documents(name) for name in config.corpus]
    documents, held_out = _split(parts)
    if not documents:
        raise ValueError(f"all documents of {' and '.join(config.corpus)} are alike, and one is "
                         f"held out; expected others to train on")
    special = (END, *(mark for mark in MARKS if any(mark in text for text in documents)))
    if tokenizer is None and config.tokenizer == "bpe":
        tokenizer = BPETokenizer.train(END.join(documents), config.vocab_size, special)
    elif tokenizer is None and config.tokenizer == "byte":
        tokenizer = ByteTokenizer(special)
    elif tokenizer is None:
        tokenizer = CharTokenizer.train("\n\n".join(documents + held_out))
    train_data = _dataset(config, "training", documents, tokenizer)
    val_data = _dataset(config, "held-out", held_out, tokenizer)
    record = run_record.make(config.corpus, parts, train_data.ids, val_data.ids)
    return tokenizer, train_data, val_data, record


def build(config: RunConfig, vocab_size: int, device: str | torch.device = "cpu",
          shard: bool = False) -> tuple[GPT, torch.optim.Optimizer, TrainConfig]:
    """A fresh model, its optimizer, and the settings of the loop.

    With `shard` the model stays on the CPU: it may be too large for one GPU, and `train` moves
    each process's part.
    """
    model = GPT(config.model_config(vocab_size))
    with torch.no_grad():  # at 0.1 a small model learned to copy far sooner: chapter 8.3.2
        model.embedding.weight.mul_(config.embedding_std / EMBEDDING_STD)
    model = model.to("cpu" if shard else device)
    groups = parameter_groups(model, weight_decay=config.weight_decay,
                              muon=config.optimizer == "muon")
    optimizer = (Muon(groups, config.muon_learning_rate, adamw_lr=config.learning_rate)
                 if config.optimizer == "muon" else AdamW(groups, config.learning_rate))
    return model, optimizer, config.train_config(shard)


def steps_in(minutes: float, config: RunConfig,
             data: tuple[Tokenizer, TokenDataset, TokenDataset],
             device: str | torch.device = "cpu", shard: bool = False) -> int:
    """How many steps fit into `minutes`, with the held-out losses and checkpoints between them.

    Measured on a model thrown away: the median time of a few steps on `data` (what `prepare`
    returned), the time of a part of a held-out loss, and of a checkpoint in a temporary folder.
    The number is fixed before the run starts, because the learning rate needs to know the end; if
    the machine gets busier, the run takes longer.
    """
    tokenizer, train_data, val_data = data
    model, optimizer, plan = build(config, tokenizer.vocab_size, device, shard)
    plan = dataclasses.replace(plan, max_steps=9)
    times, began = [], perf_counter()
    for _ in train(model, batches(train_data, config.batch_size), optimizer, plan):
        times.append(perf_counter() - began)
        if largest_of_all(sum(times)) > 60:
            break
        began = perf_counter()
    part = TokenDataset(val_data.ids[:64 * config.context_length + 1], config.context_length)
    began = perf_counter()
    evaluate_loss(model, part)
    evaluation = (perf_counter() - began) * len(val_data.ids) / len(part.ids)
    began = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(folder, model, tokenizer, optimizer=optimizer)
        saving = perf_counter() - began
    step = (statistics.median(times[1:] or times) + evaluation / config.evaluate_every
            + saving / config.checkpoint_every)
    left = 60 * minutes - largest_of_all(evaluation + saving)  # which follow the last step
    return max(1, round(left / largest_of_all(step)))


def _has_leftovers(folder: Path) -> bool:
    """Whether a kill has left a folder of `replace_files` inside: files of the newest checkpoint
    that are not yet in their places, or those of an unfinished one."""
    return any(path.is_dir() and path.name.startswith(".") for path in folder.iterdir())


def _check_new(folder: Path) -> None:
    """Refuse a folder with anything in it. All processes look before the first one writes."""
    if largest_of_all(has_checkpoint(folder)):
        raise ValueError(f"{folder} already holds a run; expected a new folder: choose another, "
                         f"or continue that run (--resume)")
    if largest_of_all(not is_unused(folder)):
        raise ValueError(f"{folder} is there and is no empty folder; expected a new or an empty "
                         f"one for the run: choose another")


@contextlib.contextmanager
def _undone_if_it_fails(folder: Path, continued: bool) -> Iterator[list[int]]:
    """Remove a new run that fails before its first checkpoint, so that the corrected command finds
    what this one found. Yields a list for the steps of the checkpoints that were saved."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    saved: list[int] = []
    try:
        yield saved
    except Exception:
        if rank()[0] == 0 and not continued and not any(saved):
            for name in (*FILES, run_log.NAME):
                (folder / name).unlink(missing_ok=True)
            for path in missing:
                with contextlib.suppress(OSError):  # somebody has put something else there
                    path.rmdir()
        raise


def _open(folder: str | Path) -> tuple[Tokenizer, dict]:
    _, tokenizer, metadata = load_checkpoint(folder)
    if tokenizer is None:
        raise ValueError(f"{folder} holds no tokenizer; expected a folder written by "
                         f"`python -m gptlib train`")
    return tokenizer, metadata


def _settings(folder: str | Path, metadata: dict) -> RunConfig:
    if "run" not in metadata:
        raise ValueError(f"{folder} is a checkpoint without the settings of a run; expected a "
                         f"folder written by `python -m gptlib train`")
    try:
        return RunConfig.from_dict(metadata["run"])
    except ValueError as error:
        raise broken(Path(folder) / "training.json", str(error)) from error


def _require_same_settings(folder: Path, metadata: dict, config: RunConfig) -> None:
    own = dataclasses.asdict(_settings(folder, metadata))
    changed = [f"{name} is {value!r}, the run's own is {own[name]!r}"
               for name, value in dataclasses.asdict(config).items()
               if value != own[name] and name != "max_steps"]
    if changed:
        raise ValueError(f"{folder} cannot go on with other settings: {'; '.join(changed)}. "
                         f"Expected its own: only max_steps may change")
    if metadata["step"] > config.max_steps:
        raise ValueError(f"max_steps is {config.max_steps} and the run in {folder} stands at step "
                         f"{metadata['step']}; expected more steps")


def _dataset(config: RunConfig, part: str, documents: list[str],
             tokenizer: Tokenizer) -> TokenDataset:
    ids, T = encode_documents(documents, tokenizer), config.context_length
    if len(ids) <= T:
        of = config.corpus[0] if part == "held-out" else " and ".join(config.corpus)
        hint = " (a tenth of it is held out)" if part == "held-out" else ""
        raise ValueError(f"the {part} part of {of} has {len(ids)} tokens; expected at least "
                         f"{T + 1}, a window of context_length {T} and the token after it: take a "
                         f"longer text{hint}, or a smaller context_length (--context-length)")
    at_documents = part == "training" and config.windows == "documents"
    return TokenDataset(ids, T, tokenizer.special_tokens[END] if at_documents else None)


def _documents(name: str) -> list[str]:
    if name in corpora.names():
        return corpora.documents(name)
    if not Path(name).exists():
        raise ValueError(f"{name!r} is neither a corpus nor a file or folder; the corpora are "
                         f"{', '.join(corpora.names())}")
    return corpora.read_documents(name)


def _finite(loss: float, step: Step) -> float:
    if not math.isfinite(loss):
        raise FloatingPointError(f"the held-out loss is {loss} after step {step.step}; the last "
                                 f"checkpoint is from before it: lower the learning rate")
    return loss
