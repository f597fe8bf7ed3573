"""A corpus larger than memory: a token file of 2 GB is trained on without being read.

    python benchmarks/large_corpus.py

Needs 3 GB on the disk of the temporary folder (TMPDIR), removed at the end. Each row runs in a
process of its own, which samples its memory. Counted is what belongs to the process alone: pages
of a mapped file are the system's, which keeps them while it has room and drops them when it needs
it. (USS would count those that no other process has mapped.)
"""

import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import measure
import numpy as np
import psutil

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.runtime import setup
from gptlib.text.corpora import load_text
from gptlib.text.datasets import TokenDataset, batches, write_tokens
from gptlib.text.tokenizers import BPETokenizer
from gptlib.training.config import TrainConfig
from gptlib.training.evaluation import evaluate_loss
from gptlib.training.loop import train
from gptlib.training.optim import AdamW, parameter_groups

MB = 1_000_000
FILE, TEXT, FREE = 2_000 * MB, 100 * MB, 3_000 * MB  # bytes
CONTEXT, BATCH, STEPS, EVALUATED = 64, 16, 100, 100_000
BATCHES, ROUNDS = 200, 9


def private_bytes() -> int:
    """Memory of this process that no file stands behind."""
    process = psutil.Process()
    memory = process.memory_info()
    return memory.rss - memory.shared if hasattr(memory, "shared") else (
        process.memory_full_info().uss)


@contextmanager
def peak() -> Iterator[list[int]]:
    """A list [memory before, largest memory inside `with`], by samples every 5 ms."""
    found, stop = [private_bytes(), 0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            found[1] = max(found[1], private_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        found[1] = max(found[1], private_bytes())


def encode(folder: Path, streamed: bool) -> tuple[list[int], float]:
    """Encode text.txt in pieces, or at once; memory and seconds."""
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    with peak() as memory:
        began = time.perf_counter()
        if streamed:
            write_tokens(folder / "tokens.npy", folder / "text.txt", tokenizer)
        else:
            text = (folder / "text.txt").read_text(encoding="utf-8")
            np.save(folder / "whole.npy", np.array(tokenizer.encode(text), np.uint16))
        seconds = time.perf_counter() - began
    return memory, seconds


def make_large(folder: Path) -> int:
    """large.npy: the encoded text again and again; returns the number of ids."""
    ids = np.load(folder / "tokens.npy", mmap_mode="r")
    count = (FILE - 128) // 2  # behind the header, two bytes each
    large = np.lib.format.open_memmap(folder / "large.npy", "w+", np.uint16, (count,))
    for start in range(0, count, len(ids)):
        large[start:start + len(ids)] = ids[:count - start]
    large.flush()
    return count


def use(folder: Path, name: str, mapped: bool) -> list[int]:
    """Train a tiny GPT and evaluate it on a slice; memory."""
    setup(0)
    vocabulary = BPETokenizer.load(folder / "tokenizer.json").vocab_size
    model = GPT(GPTConfig.modern(vocabulary, CONTEXT, n_layer=1, n_head=2, n_embd=32))
    with peak() as memory:
        dataset = open_data(folder, name, mapped)
        config = TrainConfig(max_steps=STEPS)
        for _ in train(model, batches(dataset, BATCH), AdamW(parameter_groups(model)), config):
            pass
        evaluate_loss(model, TokenDataset(dataset.ids[-EVALUATED:], CONTEXT))
    return memory


def open_data(folder: Path, name: str, mapped: bool) -> TokenDataset:
    """A token file, mapped or read into memory as int64."""
    if mapped:
        return TokenDataset.from_file(folder / name, CONTEXT)
    return TokenDataset(np.load(folder / name).astype(np.int64), CONTEXT)


def time_batches(folder: Path) -> tuple[measure.Times, list[float]]:
    """Seconds of BATCHES batches: mapped large file, small file in memory; the first from disk."""
    setup(0)
    forget(folder / "large.npy")
    large = open_data(folder, "large.npy", mapped=True)
    cold = [seconds_of(draw(large, seed=1 + i)) for i in range(3)]
    with open(folder / "large.npy", "rb") as file:  # into the cache, as far as it has room
        while file.read(64 * MB):
            pass
    small = open_data(folder, "tokens.npy", mapped=False)
    return measure.take_turns({"mapped": draw(large), "memory": draw(small)}, ROUNDS), cold


def draw(dataset: TokenDataset, seed: int = 0) -> Callable[[], object]:
    return lambda: sum(1 for _ in islice(batches(dataset, BATCH, seed), BATCHES))


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def forget(path: Path) -> None:
    """Ask the system to drop a file from its cache; where it cannot be asked, nothing happens."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def alone(work: Callable, *arguments: object) -> object:
    """The result of `work` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def prepare(folder: Path) -> None:
    """text.txt of 100 MB (the plays, repeated) and a tokenizer of 4,096 tokens."""
    text = load_text("plays")
    BPETokenizer.train(text[:MB], 4096).save(folder / "tokenizer.json")
    with open(folder / "text.txt", "w", encoding="utf-8", newline="\n") as file:
        while file.tell() < TEXT:
            file.write(text)


def main() -> None:
    """Measure all rows and store the table."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    print(f"{free / MB:,.0f} MB are free in {tempfile.gettempdir()}; {FREE / MB:,.0f} are needed")
    if free < FREE:
        raise SystemExit("set TMPDIR to a folder with more room")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        pieces, pieces_seconds = alone(encode, folder, True)
        whole, whole_seconds = alone(encode, folder, False)
        same = (folder / "tokens.npy").read_bytes() == (folder / "whole.npy").read_bytes()
        count = make_large(folder)
        mapped = alone(use, folder, "large.npy", True)
        memory = alone(use, folder, "tokens.npy", False)
        times, cold = alone(time_batches, folder)
        sizes = {each.name: each.stat().st_size for each in folder.iterdir()}
    report(sizes, count, same, pieces, pieces_seconds, whole, whole_seconds, mapped, memory, times,
           cold)


def report(sizes: dict[str, int], count: int, same: bool, pieces: list[int], pieces_seconds: float,
           whole: list[int], whole_seconds: float, mapped: list[int], memory: list[int],
           times: measure.Times, cold: list[float]) -> None:
    """Write the table and the facts."""
    if not same:
        raise SystemExit("the ids of the streamed text differ from those of the whole")
    micro = {name: f"{1e6 / BATCHES * statistics.median(values):.0f}"
             for name, values in (*times.items(), ("cold", cold))}
    large, small, text = (megabytes(sizes[name]) for name in
                          ("large.npy", "tokens.npy", "text.txt"))
    measure.write(
        "large_corpus", command="python benchmarks/large_corpus.py",
        columns=("what", "file (MB)", "memory before (MB)", "peak memory (MB)", "µs a batch"),
        rows=[("train on a mapped file", large, *map(megabytes, mapped), micro["mapped"]),
              ("the same, file not in the cache", large, "", "", micro["cold"]),
              ("train on ids in memory", small, *map(megabytes, memory), micro["memory"]),
              ("encode a text in pieces", text, *map(megabytes, pieces), ""),
              ("encode a text at once", text, *map(megabytes, whole), "")],
        facts={"file_mb": large, "file_tokens": f"{count:,}",
               "train_peak_mb": megabytes(mapped[1]), "train_growth_mb": grown(mapped),
               "memory_growth_mb": grown(memory), "memory_file_mb": small,
               "batch_us": micro["mapped"], "batch_cold_us": micro["cold"],
               "batch_memory_us": micro["memory"],
               "batch_ratio": f"{measure.ratio(times, 'mapped', 'memory'):.2f}",
               "text_mb": text, "encode_peak_mb": megabytes(pieces[1]),
               "encode_growth_mb": grown(pieces), "encode_seconds": f"{pieces_seconds:.0f}",
               "encode_whole_growth_mb": grown(whole),
               "encode_whole_seconds": f"{whole_seconds:.0f}"},
        note=f"Memory is that of the process without pages of files. Training: {STEPS} steps of "
             f"{BATCH} windows of {CONTEXT} tokens, then {EVALUATED:,} tokens evaluated.")


def megabytes(size: int) -> str:
    return f"{size / MB:,.0f}"


def grown(memory: list[int]) -> str:
    return megabytes(memory[1] - memory[0])


if __name__ == "__main__":
    main()
