"""How the benchmarks measure: competitors in turn, medians, ratios within a round, one file each.

A shared machine gets faster and slower by the minute. So the competitors of one table take turns
(A B A B ...), and a ratio is the median of the ratios of neighbours, not the ratio of two medians
of different minutes. Every benchmark writes `benchmarks/results/NAME.json`; the page of the
book on speed is made from these files.
"""

import importlib.metadata
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parent / "results"
Times = dict[str, list[float]]  # seconds of each competitor, one for each round


def take_turns(competitors: dict[str, Callable[[], object]], rounds: int = 5,
               warm_up: bool = True) -> Times:
    """Run all competitors, round after round, and note the seconds by the clock.

    A competitor that returns a float has timed itself (to leave out its preparation).
    """
    times: Times = {name: [] for name in competitors}
    for number in range(-1 if warm_up else 0, rounds):
        for name, work in competitors.items():
            time.sleep(0.1)  # idle threads of the one before spin for a while, then they sleep
            began = time.perf_counter()
            result = work()
            seconds = result if isinstance(result, float) else time.perf_counter() - began
            if number >= 0:
                times[name].append(seconds)
    return times


def ratio(times: Times, numerator: str, denominator: str) -> float:
    """How many times longer `numerator` takes: the median over the rounds."""
    pairs = zip(times[numerator], times[denominator])
    return statistics.median(above / below for above, below in pairs)


def spread(values: Sequence[float]) -> str:
    """The smallest and the largest value, three digits each: "1.02 to 1.31"."""
    return f"{min(values):.3g} to {max(values):.3g}"


def write(name: str, *, command: str, columns: Sequence[str], rows: Sequence[Sequence[object]],
          facts: dict[str, str], note: str = "", packages: Sequence[str] = ()) -> None:
    """Store one table, and the single numbers (`facts`, as text) that the page quotes.

    `packages` are the peers, whose versions belong to the result.
    """
    content = {
        "command": command, "machine": machine(packages), "columns": list(columns),
        "rows": [[str(cell) for cell in row] for row in rows], "facts": facts, "note": note}
    path = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, path)
    show(name, content)


def machine(packages: Sequence[str] = ()) -> dict[str, str]:
    """What the numbers depend on."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", *packages)}
    return {"processor": processor(), "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": str(os.cpu_count()), "threads": str(torch.get_num_threads()),
            "system": platform.system(), "python": platform.python_version(), **versions}


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def show(name: str, content: dict) -> None:
    """Print a stored table."""
    rows = [content["columns"], *content["rows"]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(content["columns"]))]
    print(f"\n{name}")
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)))
    for key, value in content["facts"].items():
        print(f"  {key}: {value}")
