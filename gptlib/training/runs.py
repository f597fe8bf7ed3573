"""A training run in a folder: data, model, checkpoints, a log, and the way back after a stop.

The folder is a checkpoint (see `gptlib.formats.checkpoint`) with `log.jsonl` beside it: a line
every ten steps, with the held-out loss where it was measured. `python -m gptlib train` is this
module.
"""

import contextlib
import dataclasses
import json
import signal
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Self

import torch

from gptlib.formats.checkpoint import load_checkpoint, resume, save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.runtime import largest_of_all, rank, setup
from gptlib.text import corpora
from gptlib.text.corpora import END, HELD_OUT
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer
from gptlib.training.config import TrainConfig
from gptlib.training.evaluation import evaluate_loss
from gptlib.training.loop import Step, train
from gptlib.training.optim import AdamW, Muon, parameter_groups


def _setting(default, help: str):
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class RunConfig:
    """All that decides the outcome of a run. It is stored with the checkpoint, for resuming.

    The help texts are those of `python -m gptlib train --help`.
    """

    corpus: tuple[str, ...] = _setting((), "A corpus, a text file or a folder; repeat it to join "
                                       "several. A tenth of the first is held out.")
    tokenizer: str = _setting("bpe", "bpe, byte or char.")
    vocab_size: int = _setting(4096, "Tokens of the BPE.")
    block: str = _setting("modern", "modern (GPTConfig.modern) or gpt2.")
    context_length: int = _setting(256, "Tokens that the model can read.")
    n_layer: int = _setting(4, "Blocks.")
    n_head: int = _setting(4, "Attention heads.")
    n_embd: int = _setting(128, "Width of the residual stream.")
    dropout: float = _setting(0.0, "Share of activations set to zero.")
    optimizer: str = _setting("muon", "muon (AdamW beside the blocks' matrices) or adamw.")
    learning_rate: float = _setting(3e-3, "Of AdamW.")
    muon_learning_rate: float = _setting(0.02, "Of Muon.")
    weight_decay: float = _setting(0.1, "Of all matrices.")
    schedule: str = _setting("linear", "Decay: constant, linear or cosine.")
    warmup_steps: int = _setting(20, "Steps over which the rate rises.")
    decay_fraction: float = _setting(1.0, "Last part of the run, in which the rate decays.")
    batch_size: int = _setting(16, "Windows in a step.")
    max_steps: int = _setting(500, "Optimizer steps in the whole run.")
    precision: str = _setting("float32", "float32, bfloat16 or float16.")
    seed: int = _setting(0, "Of weights, dropout and batches.")
    evaluate_every: int = _setting(100, "Steps between two held-out losses.")
    checkpoint_every: int = _setting(100, "Steps between two checkpoints.")

    def __post_init__(self) -> None:
        choices = {"tokenizer": ("bpe", "byte", "char"), "block": ("modern", "gpt2"),
                   "optimizer": ("muon", "adamw")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of "
                                 f"{', '.join(allowed)}")
        for name in ("evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more steps")
        if not self.corpus:
            raise ValueError("no corpus is named; expected at least one, such as 'stories', or "
                             "the path of a text file")

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """The inverse of `dataclasses.asdict`, from JSON."""
        return cls(**{**values, "corpus": tuple(values["corpus"])})


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
    parts = [_documents(name) for name in corpus]
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
    return torch.tensor(tokenizer.encode("\n\n".join(documents)))


def run(config: RunConfig, folder: str | Path, *, continued: bool = False,
        device: str | torch.device = "cpu", threads: int | None = None,
        shard: bool = False) -> Iterator[Progress]:
    """Train as `config` says and yield each step; checkpoints and the log go to `folder`.

    With `continued` the run in `folder` goes on where its last checkpoint stands, as if it had
    never stopped. Ctrl-C lets the step finish, writes a checkpoint and ends the iteration; a
    second Ctrl-C raises KeyboardInterrupt. In several processes (`runtime.process_group`) all
    iterate and the first one writes; `shard` splits the model over them. One process can
    continue what several began.
    """
    folder, first = Path(folder), rank()[0] == 0
    _check_start(config, folder, continued, shard)
    setup(config.seed, threads)
    tokenizer, train_data, val_data = prepare(config, folder if continued else None)
    model, optimizer, train_config = build(config, tokenizer.vocab_size, device, shard)
    start = resume(folder, model, optimizer) if continued else 0
    before = _rewind_log(folder, start) if continued and first else 0.0

    def save(step: int) -> None:
        save_checkpoint(folder, model, tokenizer, step=step, optimizer=optimizer,
                        metadata={"run": dataclasses.asdict(config)})

    if not continued:
        save(0)
    began = perf_counter()
    data = batches(train_data, config.batch_size, config.seed, start)
    with _interruptions() as interrupted:
        for step in train(model, data, optimizer, train_config, start):
            done = step.step == config.max_steps
            measured = done or step.step % config.evaluate_every == 0
            val_loss = evaluate_loss(model, val_data) if measured else None
            if first and (measured or step.step % 10 == 0):
                _log(folder, step, val_loss, before + perf_counter() - began)
            stop = largest_of_all(bool(interrupted))  # all stop at the same step, or they hang
            if done or stop or step.step % config.checkpoint_every == 0:
                save(step.step)
            yield Progress(step, config.max_steps, val_loss)
            if stop:
                return


def stored_config(folder: str | Path) -> tuple[RunConfig, int]:
    """The settings of the run in `folder`, and the step at which it stands."""
    metadata = load_checkpoint(folder)[2]
    if "run" not in metadata:
        raise ValueError(f"{folder} is a checkpoint without the settings of a run; expected a "
                         f"folder written by `python -m gptlib train`")
    return RunConfig.from_dict(metadata["run"]), metadata["step"]


def prepare(config: RunConfig, folder: Path | None = None
            ) -> tuple[Tokenizer, TokenDataset, TokenDataset]:
    """Tokenizer, training data and held-out data. The tokenizer of `folder`, or a new one, which
    learns from the training documents alone (characters: from all, so that none is unknown)."""
    documents, held_out = split_documents(config.corpus)
    if folder is not None:
        tokenizer = load_checkpoint(folder)[1]
    elif config.tokenizer == "bpe":
        tokenizer = BPETokenizer.train(END.join(documents), config.vocab_size, (END,))
    elif config.tokenizer == "byte":
        tokenizer = ByteTokenizer((END,))
    else:
        tokenizer = CharTokenizer.train("\n\n".join(documents + held_out))
    T = config.context_length
    return (tokenizer, TokenDataset(encode_documents(documents, tokenizer), T),
            TokenDataset(encode_documents(held_out, tokenizer), T))


def build(config: RunConfig, vocab_size: int, device: str | torch.device = "cpu",
          shard: bool = False) -> tuple[GPT, torch.optim.Optimizer, TrainConfig]:
    """A fresh model, its optimizer, and the settings of the loop.

    With `shard` the model stays on the CPU: it may be too large for one GPU, and `train` moves
    each process's part.
    """
    shape = dict(n_layer=config.n_layer, n_head=config.n_head, n_embd=config.n_embd,
                 dropout=config.dropout)
    make = GPTConfig.modern if config.block == "modern" else GPTConfig
    model = GPT(make(vocab_size, config.context_length, **shape)).to("cpu" if shard else device)
    groups = parameter_groups(model, weight_decay=config.weight_decay,
                              muon=config.optimizer == "muon")
    optimizer = (Muon(groups, config.muon_learning_rate, adamw_lr=config.learning_rate)
                 if config.optimizer == "muon" else AdamW(groups, config.learning_rate))
    return model, optimizer, TrainConfig(
        max_steps=config.max_steps, warmup_steps=config.warmup_steps, schedule=config.schedule,
        decay_fraction=config.decay_fraction, precision=config.precision, shard=shard)


def steps_in(minutes: float, config: RunConfig, device: str | torch.device = "cpu",
             threads: int | None = None, shard: bool = False) -> int:
    """How many steps fit into `minutes`, from the median time of a few on a model thrown away.

    The number is fixed before the run starts, because the learning rate needs to know the end;
    if the machine gets busier, the run takes longer.
    """
    if not minutes > 0:
        raise ValueError(f"minutes is {minutes}; expected a positive number")
    setup(config.seed, threads)
    model, optimizer, train_config = build(config, config.vocab_size, device, shard)
    ids = torch.randint(config.vocab_size, (config.context_length * 20,))
    data = batches(TokenDataset(ids, config.context_length), config.batch_size)
    times, began = [], perf_counter()
    for step in train(model, data, optimizer, train_config):
        times.append(perf_counter() - began)
        if step.step >= 8 or largest_of_all(sum(times)) > 60:
            break
        began = perf_counter()
    typical = largest_of_all(statistics.median(times[1:] or times))
    return max(1, round(60 * minutes / typical))


def _check_start(config: RunConfig, folder: Path, continued: bool, shard: bool) -> None:
    if config.batch_size % rank()[1]:
        raise ValueError(f"batch_size is {config.batch_size} for {rank()[1]} processes; expected a "
                         f"multiple, so that each gets as many windows")
    if shard and config.optimizer == "muon":
        raise ValueError("optimizer is 'muon', which needs whole matrices; expected 'adamw' for a "
                         "sharded model (--optimizer adamw)")
    # All look before the first one writes.
    if largest_of_all(not continued and (folder / "config.json").exists()):
        raise ValueError(f"{folder} already holds a run; expected a new folder: choose another, "
                         f"or continue that run (--resume)")


def _documents(name: str) -> list[str]:
    if name in corpora.names():
        return corpora.documents(name)
    if not Path(name).exists():
        raise ValueError(f"{name!r} is neither a corpus nor a file or folder; the corpora are "
                         f"{', '.join(corpora.names())}")
    texts = (text.strip() for text in corpora.from_path(name).split(END))
    return [text for text in texts if text]


def _log(folder: Path, step: Step, val_loss: float | None, seconds: float) -> None:
    entry = {"step": step.step, "loss": round(step.loss, 4), "val_loss": val_loss,
             "learning_rate": step.learning_rate, "grad_norm": round(step.grad_norm, 4),
             "seconds": round(seconds, 1)}
    with open(folder / "log.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")


def _rewind_log(folder: Path, step: int) -> float:
    """Drop what was logged after the checkpoint; returns the seconds that the rest took."""
    file = folder / "log.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be torn
    kept = [entry for entry in entries if entry["step"] <= step]
    file.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
    return kept[-1]["seconds"] if kept else 0.0


@contextlib.contextmanager
def _interruptions() -> Iterator[list[int]]:
    """A list that is empty until Ctrl-C (or a request to terminate) arrives, once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame) -> None:
        received.append(number)
        signal.signal(number, before[number])  # the next one has its usual effect

    try:
        for number in before:
            signal.signal(number, note)
    except ValueError:
        before = {}  # outside the main thread nothing can be caught, and nothing arrives
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
