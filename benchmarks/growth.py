"""How cost grows: time and memory against context, width, depth, batch and corpus size.

    python benchmarks/growth.py

About four minutes on two cores, float32. Along each axis one size changes and the rest stays; all
sizes of all axes take turns, so that a slow minute of the machine falls on all alike. Through the
medians goes the law that the arithmetic leads to expect, say a + b T + c T^2 with coefficients
that can't be negative. `benchmarks/figures.py` draws the points and the laws.
"""

import json
import os
import statistics
import time
import tracemalloc
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from measure import RESULTS, machine, take_turns, write
from scipy.optimize import nnls
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from gptlib.model.cache import KVCache
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.runtime import mode, setup
from gptlib.text.corpora import load_text
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.tokenizers import BPETokenizer
from gptlib.training.config import TrainConfig
from gptlib.training.evaluation import evaluate_loss
from gptlib.training.loop import train
from gptlib.training.optim import AdamW, parameter_groups
from gptlib.writing.generation import Reader

COMMAND = "python benchmarks/growth.py"
ROUNDS = 5
V, L, C, HEAD = 512, 2, 128, 32  # vocabulary, layers, width, features of one head
T, B = 64, 8  # context and batch, where they are not the axis
CONTEXTS = (64, 128, 256, 384, 512, 1024, 2048)
CACHED = 512  # a layer's T x T weights: 4 MB, which a processor's cache can hold; later they can't
WIDTHS = (64, 96, 128, 192, 256, 384, 512)
DEPTHS = (1, 2, 3, 4, 6, 8, 12)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CORPORA = (125_000, 250_000, 500_000, 1_000_000, 2_000_000, 4_000_000)
HELD_OUT = (2_000, 4_000, 8_000, 16_000, 32_000)
STEP, TOKEN, PASS = "a training step", "one new token", "the whole text"


@dataclass
class Law:
    """value = sum of coefficient * size ** power, with the largest relative deviation."""

    powers: Sequence[float]
    coefficients: list[float]
    largest: float  # the largest size that it was fitted to
    deviation: float

    def at(self, size: np.ndarray | float) -> np.ndarray | float:
        """What the law says of a size."""
        return sum(c * size**power for c, power in zip(self.coefficients, self.powers))

    def crossover(self) -> float:
        """The size from which the quadratic part is larger than the linear one."""
        linear, quadratic = (self.coefficients[list(self.powers).index(p)] for p in (1, 2))
        return linear / quadratic if quadratic else float("inf")


def fit(points: dict[int, float], powers: Sequence[float],
        given: Mapping[float, float] = MappingProxyType({})) -> Law:
    """The law of {size: value}: least squares of the relative deviations, so that small sizes
    count as much as large ones. `given` are coefficients, by power, that are known already."""
    size, value = np.array(list(points), dtype=float), np.array(list(points.values()), dtype=float)
    columns = {power: size**power for power in powers}
    rest = value - sum(given[power] * columns[power] for power in given)
    free = np.stack([columns[power] for power in powers if power not in given], axis=1)
    scale = free.max(axis=0)  # else 1 and 2048^2 stand side by side
    found = iter(nnls(free / scale / value[:, None], rest / value)[0] / scale)
    coefficients = [float(given[p] if p in given else next(found)) for p in powers]
    law = Law(powers, coefficients, float(size.max()), 0.0)
    law.deviation = float(np.abs(law.at(size) / value - 1).max())
    return law


@dataclass
class Axis:
    """One axis: what is done at each size (it returns its seconds), and the laws looked for."""

    name: str
    letter: str
    of_what: str
    work: dict[int, Callable[[], float]]
    time: Sequence[float]  # the powers of the law of time
    memory: Sequence[float] = ()  # the powers of the law of memory, () where it is not measured
    memory_of: str = "peak memory"
    turns: dict[int, list[float]] = field(default_factory=dict)  # the seconds of every round
    seconds: dict[int, float] = field(default_factory=dict)  # their medians
    bytes: dict[int, int] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)  # activations kept for the backward pass
    counted: dict[int, int] = field(default_factory=dict)  # the same by arithmetic
    laws: dict[str, Law] = field(default_factory=dict)  # of "seconds", "bytes" and "kept"

    def text(self, quantity: str = "seconds") -> str:
        """The law as text: "2.10 ms + 12.3 µs T + 9.80 ns T²"; a part that is zero is left out."""
        names = {0: "", 0.5: f" √{self.letter}", 1: f" {self.letter}", 2: f" {self.letter}²"}
        law, unit = self.laws[quantity], "s" if quantity == "seconds" else "B"
        return " + ".join(amount(coefficient, unit) + names[power]
                          for power, coefficient in zip(law.powers, law.coefficients)
                          if coefficient)


class LiveBytes(TorchDispatchMode):
    """The bytes of all tensors that are alive, followed from operation to operation.

    `owned` are those that are there from the start. What a kernel allocates and frees inside
    is not seen. The peak is the same in every run, and that of PyTorch's profiler to some bytes.
    """

    def __init__(self, owned: Sequence[torch.Tensor] = ()):
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()
        for tensor in owned:
            self._note(tensor)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor)
        return result

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()  # views share one
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


class Training:
    """A model in gptlib's own loop, of which one step after the other is taken."""

    def __init__(self, ids: torch.Tensor, *, T: int = T, B: int = B, L: int = L, C: int = C,
                 fused: bool = True):
        self.config = GPTConfig.modern(V, T, n_layer=L, n_embd=C, n_head=C // HEAD)
        self.B, self.fused, self.ids = B, fused, ids
        self.model = GPT(self.config)
        for block in self.model.blocks:
            block.attention.fused = fused
        self.optimizer = AdamW(parameter_groups(self.model))
        self.run = train(self.model, batches(TokenDataset(ids, T), B), self.optimizer,
                         TrainConfig(max_steps=10**9))

    def step(self) -> None:
        """One step: batch, forward and backward pass, clipping, AdamW."""
        next(self.run)

    def memory(self) -> tuple[int, int]:
        """Bytes of a step: the peak, with all that the run owns, and the activations kept."""
        self.step()  # makes AdamW's averages
        averages = [tensor for state in self.optimizer.state.values()
                    for tensor in state.values() if isinstance(tensor, torch.Tensor)]
        owned = [self.ids, *self.model.parameters(), *self.model.buffers(), *averages]
        storages = {tensor.untyped_storage().data_ptr() for tensor in owned}
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in storages:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        self.optimizer.zero_grad()
        with LiveBytes(owned) as live, saved_tensors_hooks(note, lambda tensor: tensor):
            self.step()
        return live.peak, sum(kept.values())

    def arithmetic(self) -> int:
        """The bytes that a backward pass through this block needs, counted on paper.

        Numbers for each token and layer: 20 C (7 vectors of width C, the 2 C of queries and keys,
        the 3 C of the projection, twice the 4 C inside the feed-forward network), a factor of
        each norm (2 and, for queries and keys, 2 H); fused attention keeps H sums, written out
        H T weights. Behind the blocks 3 C, a factor and V log-probabilities. A mask has 1 byte.
        """
        c = self.config
        T, H, C = c.context_length, c.n_head, c.n_embd
        attention = H if self.fused else H * T
        token = c.n_layer * (20 * C + 2 + 2 * H + attention) + 3 * C + 1 + V
        masks = 0 if self.fused else c.n_layer * T * T
        return 4 * self.B * T * token + masks + 16 * self.B * T  # and the ids of x and y


def repeated(work: Callable[[], object], least: float = 0.15) -> Callable[[], float]:
    """A turn: the mean seconds of as many calls as fit into `least`, without the first, which
    finds the processor's caches full of another competitor's data; a long call is taken alone."""
    def turn() -> float:
        began = time.perf_counter()
        work()
        alone = time.perf_counter() - began
        if alone > least:
            return alone
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < least:
            work()
            count += 1
        return (time.perf_counter() - began) / count
    return turn


def training_axis(name: str, letter: str, runs: dict[int, Training], time: Sequence[int],
                  memory: Sequence[int]) -> Axis:
    """Steps of several runs; the memory is measured here, since it needs no turns."""
    axis = Axis(name, letter, STEP, {n: repeated(run.step) for n, run in runs.items()},
                time, memory)
    for size, run in runs.items():
        axis.bytes[size], axis.kept[size] = run.memory()
        axis.counted[size] = run.arithmetic()
    return axis


def training_axes(ids: torch.Tensor) -> list[Axis]:
    """A step against context, width, depth, batch and the number of tokens in the corpus."""
    def corpus(n: int) -> Training:
        return Training(ids.repeat(-(-n // len(ids)))[:n].clone())

    return [
        training_axis("context, fused", "T", {
            n: Training(ids, T=n, B=1) for n in CONTEXTS}, (0, 1, 2), (0, 1)),
        training_axis("context, written out", "T", {
            n: Training(ids, T=n, B=1, fused=False) for n in CONTEXTS}, (0, 1, 2), (0, 1, 2)),
        training_axis("width", "C", {n: Training(ids, C=n) for n in WIDTHS}, (0, 1, 2), (0, 1, 2)),
        training_axis("depth", "L", {n: Training(ids, L=n) for n in DEPTHS}, (0, 1), (0, 1)),
        training_axis("batch", "B", {n: Training(ids, B=n) for n in BATCHES}, (0, 1), (0, 1)),
        training_axis("corpus, step", "N", {n: corpus(n) for n in CORPORA}, (0,), (0, 1))]


def corpus_axes(text: str, ids: torch.Tensor) -> list[Axis]:
    """BPE training and encoding against the characters, a batch and a test against the tokens."""
    parts = {n: text[:n] for n in CORPORA}
    merges = BPETokenizer.train(text[:1_000_000], V).merges
    tokens = {n: ids.repeat(-(-n // len(ids)))[:n] for n in CORPORA}
    drawn = {n: batches(TokenDataset(tokens[n], T), B) for n in CORPORA}
    model = Training(ids).model

    def learn(n: int) -> Callable[[], object]:
        return lambda: BPETokenizer.train(parts[n], 2 * V)

    def encode(n: int) -> Callable[[], float]:
        def work() -> float:
            tokenizer = BPETokenizer(merges)  # one that remembers no word yet
            began = time.perf_counter()
            tokenizer.encode(parts[n])
            return time.perf_counter() - began
        return work

    learning = Axis("BPE training", "N", PASS, {n: learn(n) for n in CORPORA}, (0.5, 1), (0, 1),
                    "peak of Python's objects")
    learning.bytes = {n: python_peak(learn(n)) for n in CORPORA[:-1]}  # following takes time
    return [
        learning,
        Axis("BPE encoding", "N", PASS, {n: encode(n) for n in CORPORA}, (0, 1)),
        Axis("corpus, batch", "N", "a batch", {
            n: repeated(lambda n=n: next(drawn[n])) for n in CORPORA}, (0,)),
        Axis("evaluation", "N", PASS, {
            n: repeated(lambda n=n: evaluate_loss(model, TokenDataset(tokens[CORPORA[0]][:n], T)))
            for n in HELD_OUT}, (0, 1))]


def python_peak(work: Callable[[], object]) -> int:
    """The peak of the memory of Python's objects during `work`."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def generation_axes(ids: torch.Tensor) -> list[Axis]:
    """The time of the token at position S, with a cache and without; the memory of the cache."""
    model = Training(ids, T=CONTEXTS[-1]).model

    def read(n: int, use_cache: bool) -> Callable[[], float]:
        reader = Reader(model, use_cache=use_cache)

        def work() -> None:  # with a cache: all but the last token are known after the first call
            with torch.inference_mode(), mode(model, training=False):
                reader.read(ids[None, :n])
        return repeated(work)

    cached = Axis("generation, cache", "S", TOKEN, {n: read(n, True) for n in CONTEXTS},
                  (0, 1), (1,), "memory of the cache")
    for n in CONTEXTS:
        with LiveBytes() as live:
            cache = KVCache(GPTConfig.modern(V, n, n_layer=L, n_embd=C, n_head=C // HEAD))
        cached.bytes[n] = live.now
        del cache
    return [cached, Axis("generation, no cache", "S", TOKEN,
                         {n: read(n, False) for n in CONTEXTS}, (0, 1, 2))]


def measure(axes: dict[str, Axis]) -> None:
    """All sizes of all axes in turn, the median of each, and the laws."""
    turns = {f"{name} {n}": axis.work[n] for name, axis in axes.items() for n in axis.work}
    times = take_turns(turns, ROUNDS)
    for axis in axes.values():
        axis.turns = {n: times[f"{axis.name} {n}"] for n in axis.work}
        axis.seconds = {n: statistics.median(turns) for n, turns in axis.turns.items()}
        axis.laws["seconds"] = fit(axis.seconds, axis.time)
        if axis.bytes:
            axis.laws["bytes"] = fit(axis.bytes, axis.memory)
        if axis.letter == "T":
            axis.laws["kept"] = fit(axis.kept, axis.memory)
    fused, written = axes["context, fused"], axes["context, written out"]
    # The models differ in their attention alone, so what is linear in T is the same. And the time
    # of one weight grows when the weights leave the cache, and once more where the system hands
    # out fresh pages for every large tensor (half of the time of 2,048, seen on Linux).
    written.laws["seconds"] = fit({n: t for n, t in written.seconds.items() if n <= CACHED},
                                  written.time, {1: fused.laws["seconds"].coefficients[1]})


def amount(value: float, unit: str) -> str:
    """Three digits with a prefix: "12.3 ms", "4.56 kB"."""
    prefixes = {1e9: "G", 1e6: "M", 1e3: "k", 1: "", 1e-3: "m", 1e-6: "µ", 1e-9: "n", 1e-12: "p"}
    size = next((size for size in prefixes if abs(value) >= size * 0.9995), 1)
    if unit == "B":
        size = max(size, 1)
    digits = min(2, 2 - int(np.floor(np.log10(max(abs(value) / size, 1e-3)))))
    return f"{value / size:.{digits}f} {prefixes[size]}{unit}"


def table(axes: dict[str, Axis]) -> list[list[str]]:
    """The rows: axis, what was measured, law, deviation, sizes, values at both ends."""
    rows = []
    for axis in axes.values():
        labels = {"seconds": f"time of {axis.of_what}", "bytes": axis.memory_of,
                  "kept": "kept for the backward pass"}
        for quantity, law in axis.laws.items():
            values, unit = getattr(axis, quantity), "s" if quantity == "seconds" else "B"
            ends = [amount(values[n], unit) for n in (min(values), max(values))]
            fitted = "" if law.largest == max(values) else f", up to {law.largest:,.0f}"
            rows.append([axis.name, labels[quantity], axis.text(quantity),
                         f"{law.deviation:.1%}{fitted}", ", ".join(f"{n:,}" for n in values),
                         " to ".join(ends)])
    return rows


def write_points(axes: dict[str, Axis]) -> None:
    """The medians and the laws as numbers, for the figures."""
    rows = [[axis.name, n, axis.seconds[n], axis.bytes.get(n), axis.kept.get(n)]
            for axis in axes.values() for n in axis.work]
    laws = [{"axis": axis.name, "quantity": quantity, "powers": list(law.powers),
             "coefficients": law.coefficients, "largest": law.largest}
            for axis in axes.values() for quantity, law in axis.laws.items()]
    content = {"command": COMMAND, "machine": machine(), "rows": rows, "laws": laws,
               "columns": ["axis", "size", "seconds", "bytes", "kept"]}
    (RESULTS / "growth_points.json").write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def flops_crossover(written_out: bool) -> float:
    """Where attention's multiplications equal the others, by counting.

    A token's step costs 6 FLOPs for each matrix parameter (embedding look-ups are free) and
    12 L C T in attention; the fused kernel skips the future, which is half of it.
    """
    matrices = 12 * L * C**2 + V * C
    return 6 * matrices / ((12 if written_out else 6) * L * C)


def ratio(above: Axis, n: int, below: Axis, m: int) -> float:
    """How many times longer `above` takes at size n than `below` at m: paired within a round."""
    return statistics.median(a / b for a, b in zip(above.turns[n], below.turns[m]))


def doubling(axis: Axis, quantity: str) -> str:
    """By what the last doubling of the size multiplies the "seconds" or the "bytes", as text."""
    values = getattr(axis, quantity)
    n = max(values)
    factor = ratio(axis, n, axis, n // 2) if quantity == "seconds" else values[n] / values[n // 2]
    return f"{factor:.2f}"


def context_facts(fused: Axis, written: Axis) -> dict[str, str]:
    """What a page quotes about time and memory against the context."""
    facts, longest = {}, CONTEXTS[-1]
    for name, axis in (("fused", fused), ("written", written)):
        law = axis.laws["seconds"]
        others = law.coefficients[0] + law.coefficients[1] * longest
        facts |= {
            f"context_time_{name}": axis.text(),
            f"context_crossover_{name}": f"{law.crossover():,.0f}",
            f"context_crossover_flops_{name}": f"{flops_crossover(axis is written):,.0f}",
            f"context_quadratic_share_{name}": f"{1 - others / axis.seconds[longest]:.0%}",
            f"context_doubling_time_{name}": doubling(axis, "seconds"),
            f"context_doubling_memory_{name}": doubling(axis, "bytes"),
            f"context_kept_{name}": axis.text("kept"),
            f"context_memory_{name}": axis.text("bytes"),
            f"context_peak_longest_{name}": amount(axis.bytes[longest], "B")}
    slower = ratio(written, longest, fused, longest)
    larger = written.bytes[longest] / fused.bytes[longest]
    return facts | {
        "context_longest": f"{longest:,}", "context_cached": f"{CACHED:,}",
        "context_weights_longest": amount(4 * C // HEAD * longest**2, "B"),
        **{f"context_over_law_written_{n}": f"{written.seconds[n] / law.at(n):.1f}"
           for n in CONTEXTS if n > CACHED},
        "context_written_over_fused_time": f"{slower:.1f}",
        "context_written_over_fused_memory": f"{larger:.1f}",
        "context_memory_crossover_written": f"{written.laws['kept'].crossover():,.0f}"}


def training_facts(axes: dict[str, Axis]) -> dict[str, str]:
    """What a page quotes about width, depth, batch and the training step's corpus."""
    width, depth, batch, corpus = (axes[n] for n in ("width", "depth", "batch", "corpus, step"))
    kept = [abs(axis.counted[n] / axis.kept[n] - 1) for axis in axes.values() for n in axis.kept]
    widest = WIDTHS[-1]
    parameters = GPTConfig.modern(V, T, n_layer=L, n_embd=widest, n_head=1).num_parameters()
    typical = statistics.median(corpus.seconds.values())
    apart = max(abs(seconds / typical - 1) for seconds in corpus.seconds.values())
    rows = {n: n * T / seconds for n, seconds in batch.seconds.items()}  # tokens a second
    drawing = statistics.median(axes["corpus, batch"].seconds.values())
    return {
        "kept_arithmetic_deviation": f"{max(kept):.2%}",
        **{f"{axis.name}_time": axis.text() for axis in (width, depth, batch)},
        **{f"{axis.name}_memory": axis.text("bytes") for axis in (width, depth, batch)},
        "width_crossover": f"{width.laws['seconds'].crossover():,.0f}",
        "width_doubling_time": doubling(width, "seconds"),
        "width_doubling_memory": doubling(width, "bytes"),
        "width_peak_per_parameter": f"{width.bytes[widest] / parameters:.0f} bytes",
        "batch_tokens_per_second_one": f"{rows[BATCHES[0]]:,.0f}",
        "batch_tokens_per_second_most": f"{rows[BATCHES[-1]]:,.0f}",
        "batch_gain": f"{rows[BATCHES[-1]] / rows[BATCHES[0]]:.1f}",
        "corpus_step_time": amount(typical, "s"),
        "corpus_step_apart": f"{apart:.0%}",
        "corpus_growth": f"{CORPORA[-1] // CORPORA[0]}",
        "corpus_batch_time": amount(drawing, "s"),
        "corpus_batch_share": f"{drawing / typical:.1%}"}


def other_facts(axes: dict[str, Axis]) -> dict[str, str]:
    """What a page quotes about tokenization, evaluation and generation."""
    learning, encoding = axes["BPE training"], axes["BPE encoding"]
    cached, whole = axes["generation, cache"], axes["generation, no cache"]
    n, with_cache, without = CONTEXTS[-1], cached.laws["seconds"], whole.laws["seconds"]
    text = [law.at(np.arange(1, n + 1)).sum() for law in (with_cache, without)]
    return {
        **{f"{name}_time": axes[axis].text() for name, axis in (
            ("bpe_training", "BPE training"), ("bpe_encoding", "BPE encoding"),
            ("evaluation", "evaluation"), ("generation_cache", "generation, cache"),
            ("generation_no_cache", "generation, no cache"))},
        "bpe_training_doubling_time": doubling(learning, "seconds"),
        "bpe_training_doubling_memory": doubling(learning, "bytes"),
        "bpe_training_peak": amount(learning.bytes[CORPORA[-2]], "B"),
        "bpe_encoding_doubling_time": doubling(encoding, "seconds"),
        "generation_ratio_first": f"{ratio(whole, CONTEXTS[0], cached, CONTEXTS[0]):.1f}",
        "generation_ratio_last": f"{ratio(whole, n, cached, n):.0f}",
        "generation_crossover_no_cache": f"{without.crossover():,.0f}",
        "generation_text_cache": amount(text[0], "s"),
        "generation_text_no_cache": amount(text[1], "s"),
        "generation_cache_token": amount(cached.laws["bytes"].coefficients[0], "B")}


def main() -> None:
    """Measure all axes and write the table and the points."""
    setup(0, threads=int(os.environ.get("GPTLIB_THREADS", "2")))
    text = load_text("plays")
    ids = torch.tensor(BPETokenizer.train(text[:500_000], V).encode(text[:500_000]))
    every = [*training_axes(ids), *corpus_axes(text, ids), *generation_axes(ids)]
    axes = {axis.name: axis for axis in every}
    measure(axes)
    shape = f"{L} layers, {C} wide, {C // HEAD} heads, vocabulary {V}, float32"
    facts = {"shape": shape, "rounds": str(ROUNDS), "batch_and_context": f"{B} rows of {T} tokens",
             **context_facts(axes["context, fused"], axes["context, written out"]),
             **training_facts(axes), **other_facts(axes)}
    for axis in every:
        name = axis.name.replace(", ", "_").replace(" ", "_").lower()
        facts |= {f"deviation_{name}_{quantity}": f"{law.deviation:.1%}"
                  for quantity, law in axis.laws.items()}
    write_points(axes)
    write("growth", command=COMMAND, rows=table(axes), facts=facts,
          columns=["axis", "what", "law", "largest deviation", "sizes", "measured"],
          note=f"{shape}; batches of {B} rows of {T} tokens, one row where the context grows.")


if __name__ == "__main__":
    main()
