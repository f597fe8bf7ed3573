"""How long the first cell of a chapter takes: its imports against those of torch alone.

    python benchmarks/imports.py

Child processes in turn, each of which times its own import line. Before each turn nothing is
cleared but Python's own state: the files are in the memory of the system after the first turn.
The table also names the modules that cost most beside torch, from `python -X importtime`.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import measure

ROOT = Path(__file__).resolve().parent.parent
TORCH, CHAPTER, FIGURE = "import torch", "a chapter's imports", "the same and the first figure"
LINES = {
    TORCH: "import torch",
    CHAPTER: """\
from gptlib import plotting
from gptlib.model.config import GPTConfig
from gptlib.training.config import TrainConfig
from gptlib.text.corpora import documents
from gptlib.text.datasets import TokenDataset, batches
from gptlib.training.evaluation import evaluate_loss
from gptlib.writing.generation import generate
from gptlib.model.gpt import GPT
from gptlib.training.optim import AdamW, parameter_groups
from gptlib.runtime import setup
from gptlib.text.tokenizers import BPETokenizer, CharTokenizer
from gptlib.training.loop import train""",
}
LINES[FIGURE] = f"{LINES[CHAPTER]}\nplotting.figure()"
ROUNDS = 9
SHOWN = 8  # modules


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a fresh Python that finds gptlib."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True,
                          cwd=ROOT)


def seconds_of(lines: str) -> Callable[[], float]:
    """Work for `take_turns`: a fresh process tells how long the lines took."""
    program = (f"import time\nbegan = time.perf_counter()\n{lines}\n"
               "print(time.perf_counter() - began)")
    return lambda: float(python("-c", program).stdout)


def dearest(lines: str) -> list[tuple[str, float]]:
    """The modules beside torch's and numpy's that cost most by themselves: (name, ms)."""
    report = python("-X", "importtime", "-c", lines).stderr
    own: dict[str, float] = {}
    for line in report.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) != 3 or not fields[0].strip().isdigit():
            continue
        name = fields[2].strip()
        top = name if name.startswith("gptlib") else name.split(".")[0]
        own[top] = own.get(top, 0.0) + int(fields[0]) / 1000
    others = [(name, cost) for name, cost in own.items()
              if name not in ("torch", "torchgen", "numpy", "functorch")]
    return sorted(others, key=lambda item: -item[1])[:SHOWN]


def main() -> None:
    """Measure, write benchmarks/results/imports.json."""
    times = measure.take_turns({name: seconds_of(lines) for name, lines in LINES.items()}, ROUNDS)
    rows, facts = [], {}
    for name, seconds in times.items():
        median, longer = sorted(seconds)[ROUNDS // 2], measure.ratio(times, name, TORCH)
        rows.append([name, f"{median:.2f}", measure.spread(seconds), f"{longer:.2f}"])
        facts[f"{name}: seconds"] = f"{median:.2f}"
        facts[f"{name}: times torch"] = f"{longer:.2f}"
    costs = dearest(LINES[CHAPTER])
    facts["dearest modules"] = ", ".join(f"{name} {cost:.0f} ms" for name, cost in costs)
    measure.write("imports", command="python benchmarks/imports.py", rows=rows, facts=facts,
                  columns=["lines", "seconds", "smallest to largest", "times torch"],
                  note="A new process each time, files in the system's cache.")


if __name__ == "__main__":
    main()
