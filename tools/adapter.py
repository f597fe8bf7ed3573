"""The race of ranks and rates of chapter 8.3.3: every measurement is a line of
book/results/adapter.csv.

    python tools/adapter.py               # what is missing: about 35 minutes of one thread
    python tools/adapter.py --part race   # one part

memory  the largest memory of a process that loads the model and takes four steps
pace    seconds of a training step, rank by rank in turn, and of peft's LoRA on the same weights
race    ranks and rates at equal time: each rank takes as many steps as fit by its pace, and then
        reads a part of the validation tales; three seeds, the same windows for all of a seed

A line that is in the file is not measured again. To repeat everything, remove the file first.
"""

import argparse
import copy
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from time import process_time

import torch
from torch import nn

from gptlib.formats.gguf import load_gguf
from gptlib.model.gpt import GPT
from gptlib.runtime import setup
from gptlib.text import stories
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.tokenizers import Tokenizer
from gptlib.training.config import TrainConfig
from gptlib.training.evaluation import token_losses
from gptlib.training.loop import train
from gptlib.training.lora import add_lora, remove_lora
from gptlib.training.optim import AdamW
from gptlib.training.runs import encode_documents
from gptlib.training.tuning import append_result, read_results

RESULTS = Path(__file__).resolve().parent.parent / "book" / "results" / "adapter.csv"
COLUMNS = ["part", "library", "rank", "learning_rate", "seed", "steps", "seconds", "validation",
           "peak_mb"]
WINDOW, BATCH = 256, 2  # as in `gptlib.training.adapt`
RACE_BATCH = 1  # half of it: then the race takes half of the time
OWN_RANK, OWN_RATE = 16, 1e-3  # what the stored adapter was trained with
RANKS, RATES, SEEDS = (4, 16, 64), (3e-4, 1e-3, 3e-3), range(3)
STEPS = 32  # of the rank 16; the others get the same time
ROUNDS = 6  # of the pace
JUDGED = 16  # windows of the validation tales, spread over them evenly
HEADER = ["command: python tools/adapter.py",
          f"torch {torch.__version__}, peft {version('peft')}, {platform.machine()}, one thread",
          "seeds: in the column seed; of the pace it is the number of the round",
          "validation in nats per token, seconds of processor time, peak_mb in 10^6 bytes"]
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "1000000"}  # bytes; glibc would raise it as it goes
PACES = [("gptlib", 4), ("gptlib", 16), ("gptlib", 64), ("peft", 16)]
Row = dict[str, object]


@cache
def model_and_tokenizer() -> tuple[GPT, Tokenizer]:
    """The base, whose frozen weights all measurements share."""
    return load_gguf(context_length=WINDOW)


@cache
def texts() -> tuple[TokenDataset, list[TokenDataset]]:
    """The tales that are learned, as for the stored adapter, and the windows that judge."""
    tokenizer, case = model_and_tokenizer()[1], stories.parts(stories.tales())
    learned = [story.text for story in stories.short_tales(case.train)]
    ids = encode_documents([story.text for story in case.validation], tokenizer)
    return (TokenDataset(encode_documents(learned, tokenizer), WINDOW),
            [TokenDataset(window, WINDOW) for window in spread(ids, JUDGED)])


def spread(ids: torch.Tensor, count: int) -> list[torch.Tensor]:
    """`count` windows of WINDOW + 1 ids, at equal distances from the first to the last."""
    last = len(ids) - WINDOW - 1
    return [ids[i:i + WINDOW + 1] for i in torch.linspace(0, last, count).long().tolist()]


def with_lora(model: GPT, library: str, rank: int) -> GPT:
    """Put LoRA beside the matrices of `model`, of this library or of peft."""
    names = add_lora(model, rank)
    if library == "peft":
        import peft  # only where it is measured: it takes memory itself

        remove_lora(model)
        peft.inject_adapter_in_model(peft.LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=names, lora_dropout=0.0), model)
    return model


def optimizer_of(model: nn.Module, rate: float) -> AdamW:
    """Over what is learned, as in `gptlib.training.adapt`."""
    learned = [p for p in model.parameters() if p.requires_grad]
    return AdamW(learned, rate, betas=(0.9, 0.95), weight_decay=0.0)


def twin(model: GPT) -> GPT:
    """Another model of the same tensors: they are frozen, so no copy is needed."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in model.parameters()})


def paces() -> Iterator[Row]:
    """The seconds of one step of each kind, in turn; every kind has taken a step before."""
    base = model_and_tokenizer()[0]
    runs = {}
    for library, rank in PACES:
        setup(0, threads=1)
        model = with_lora(twin(base), library, rank)
        runs[library, rank] = train(model, batches(texts()[0], BATCH),
                                    optimizer_of(model, OWN_RATE), TrainConfig(ROUNDS + 1))
        next(runs[library, rank])
    for number in range(ROUNDS):
        for (library, rank), steps in runs.items():
            began = process_time()
            next(steps)
            yield {"part": "pace", "library": library, "rank": rank, "seed": number, "steps": 1,
                   "learning_rate": OWN_RATE, "seconds": process_time() - began}


def peak(library: str) -> float:
    """Megabytes (10^6 bytes) that this process has needed at most, after four steps."""
    import resource  # not on Windows, where the rest of this file runs

    setup(0, threads=1)
    model = with_lora(model_and_tokenizer()[0], library, OWN_RANK)
    for _ in train(model, batches(texts()[0], BATCH), optimizer_of(model, OWN_RATE),
                   TrainConfig(max_steps=4)):
        pass
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def memories() -> Iterator[Row]:
    """The same four steps in a process of their own for each library, and for gptlib with glibc
    told to give large blocks back to the system at once."""
    for library, told in (("gptlib", {}), ("peft", {}), ("gptlib", GIVE_BACK)):
        found = subprocess.run([sys.executable, __file__, "--peak", library], check=True,
                               capture_output=True, text=True, env=os.environ | told).stdout
        yield {"part": "memory", "library": " ".join([library, *told]), "rank": OWN_RANK,
               "seed": 0, "steps": 4, "learning_rate": OWN_RATE,
               "peak_mb": float(found.split()[-1])}


def planned() -> list[tuple[int, float, int]]:
    """(rank, rate, seed) in the order of the race: first what differs from the settings of the
    stored adapter in at most one of both, then the corners of the grid."""
    grid = [(rank, rate, seed) for seed, rank, rate in product(SEEDS, RANKS, RATES)]
    return sorted(grid, key=lambda each: each[0] != OWN_RANK and each[1] != OWN_RATE)


def steps_of(rank: int, rows: list[Row]) -> int:
    """How many steps of this rank take as long as STEPS steps of OWN_RANK."""
    found = {each: [row["seconds"] for row in rows if row["part"] == "pace"
                    and row["library"] == "gptlib" and row["rank"] == each]
             for each in (rank, OWN_RANK)}
    if not all(found.values()):
        raise SystemExit("the file holds no pace; run --part pace first")
    return round(STEPS * median(found[OWN_RANK]) / median(found[rank]))


def judged(model: GPT) -> float:
    """Mean nats a token of the windows that judge."""
    windows = texts()[1]
    return sum(token_losses(model, each, 1).mean().item() for each in windows) / len(windows)


def raced(rank: int, rate: float, seed: int, steps: int) -> Row:
    """Train one adapter and judge it. Without steps: the untouched model."""
    setup(seed, threads=1)
    model, data = model_and_tokenizer()[0], texts()[0]
    began = process_time()
    if steps:
        add_lora(model, rank)
        plan = TrainConfig(max_steps=steps, warmup_steps=3, schedule="linear", decay_fraction=0.8)
        for _ in train(model, batches(data, RACE_BATCH, seed), optimizer_of(model, rate), plan):
            pass
    seconds = process_time() - began
    row = {"part": "race", "library": "gptlib", "rank": rank, "learning_rate": rate, "seed": seed,
           "steps": steps, "seconds": seconds, "validation": judged(model)}
    remove_lora(model)  # unmerged: the base again
    return row


def race(rows: list[Row]) -> Iterator[Row]:
    """What the race lacks; the untouched model first."""
    known = {(row["rank"], row["learning_rate"], row["seed"])
             for row in rows if row["part"] == "race"}
    if (0, 0.0, 0) not in known:
        yield raced(0, 0.0, 0, 0)
    for rank, rate, seed in planned():
        if (rank, rate, seed) not in known:
            yield raced(rank, rate, seed, steps_of(rank, rows))


def missing(rows: list[Row], only: str | None) -> Iterator[Row]:
    """Measure what the file lacks; `rows` grows while this goes on. A pace is measured in one go,
    so half of one is a reason to begin again."""
    have = {part: sum(row["part"] == part for row in rows) for part in ("pace", "memory")}
    if have["pace"] not in (0, ROUNDS * len(PACES)) or have["memory"] not in (0, 3):
        raise SystemExit("the file holds a part of a pace or of the memory; remove those lines")
    if only in (None, "memory") and not have["memory"]:  # first: Linux counts a child's peak
        yield from list(memories())                      # from the size that its parent has
    if only in (None, "pace") and not have["pace"]:
        yield from list(paces())
    if only in (None, "race"):
        yield from race(rows)


def main() -> int:
    """Read the command line and measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=("memory", "pace", "race"), help="one part only")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results file")
    parser.add_argument("--peak", choices=("gptlib", "peft"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak))
        return 0
    rows = read_results(options.out)[1] if options.out.exists() else []
    for row in missing(rows, options.part):
        append_result(options.out, COLUMNS, row, HEADER)
        rows.append(read_results(options.out)[1][-1])  # as rounded in the file
        print(", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in row.items()), flush=True)
    print(f"complete: {len(rows)} lines in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
