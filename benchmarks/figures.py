"""The figures of the page on speed, from the stored measurements: nothing is measured here.

    python benchmarks/figures.py

Reads the tables in `benchmarks/results` and draws `book/_static/speed_*.png` and `growth_*.png`.
In the latter points are medians and lines the fitted laws.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from gptlib.plotting import COLORS, figure

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
STATIC = ROOT / "book" / "_static"
DPI = 150  # 5.6 inches become 840 pixels
WIDTH = 5.6  # inches; narrower than a notebook's figures, so that a phone's text stays readable
BLUE, RED, GREEN, LIGHT = *COLORS[:3], COLORS[4]
Points = dict[str, dict]  # of each axis: "size", "seconds", "bytes" as arrays, "laws", "largest"


def read(name: str) -> dict:
    """One stored table."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def read_points() -> Points:
    """The stored points, sorted by axis."""
    stored = read("growth_points")
    axes: Points = {}
    for name, *values in stored["rows"]:
        axis = axes.setdefault(name, {"rows": [], "laws": {}, "largest": {}})
        axis["rows"].append(values)
    for axis in axes.values():
        for column, values in zip(stored["columns"][1:], zip(*axis.pop("rows"))):
            axis[column] = np.array(values, dtype=float)
    for law in stored["laws"]:
        axis = axes[law["axis"]]
        axis["laws"][law["quantity"]] = dict(zip(law["powers"], law["coefficients"]))
        axis["largest"][law["quantity"]] = law["largest"]
    return axes


def part(law: dict[float, float], sizes: np.ndarray, *powers: float) -> np.ndarray:
    """The law at `sizes`, or only its parts of the given powers."""
    return sum(law[power] * sizes**power for power in powers or law)


def between(sizes: np.ndarray) -> np.ndarray:
    """Many sizes from the smallest to the largest, for a smooth line."""
    return np.geomspace(sizes.min(), sizes.max(), 200)


def draw(ax: Axes, axis: dict, quantity: str, unit: float, *, color: str, marker: str,
         label: str) -> None:
    """Points and fitted law of one axis, the values divided by `unit`; the line is pale
    beyond the largest size that the law was fitted to."""
    line = between(axis["size"])
    value = part(axis["laws"][quantity], line) / unit
    fitted = line <= axis["largest"][quantity] * 1.001
    ax.plot(line[fitted], value[fitted], color=color, linewidth=1.8)
    ax.plot(line[~fitted], value[~fitted], color=color, linewidth=1.8, alpha=0.35)
    ax.plot(axis["size"], axis[quantity] / unit, marker, color=color, label=label, markersize=6)


def plain(value: float, _: object = None) -> str:
    """A tick as a plain number: 0.5, 20, 2,000."""
    return f"{value:,.10g}"


def log_log(ax: Axes, sizes: np.ndarray, x_label: str, y_label: str) -> None:
    """Both axes logarithmic with plain numbers, a tick at each doubling of the size."""
    ax.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    doublings = round(np.log2(sizes.max() / sizes.min()))
    ax.xaxis.set_major_locator(FixedLocator([sizes.min() * 2**i for i in range(doublings + 1)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(plain))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(plain))


def context(axes: Points) -> Figure:
    """Time of a step against the context, with the linear and the quadratic part."""
    fig, ax = figure(width=WIDTH, height=4.2)
    written, fused = axes["context, written out"], axes["context, fused"]
    draw(ax, written, "seconds", 1e-3, color=RED, marker="s", label="attention written out")
    draw(ax, fused, "seconds", 1e-3, color=BLUE, marker="o", label="attention fused")
    line = between(fused["size"])
    law = fused["laws"]["seconds"]
    ax.plot(line, part(law, line, 1) / 1e-3, ":", color="black", label="linear part (of both)")
    for axis, color, name in ((written, RED, "written out"), (fused, BLUE, "fused")):
        ax.plot(line, part(axis["laws"]["seconds"], line, 2) / 1e-3, "--", color=color,
                linewidth=1.2, label=f"quadratic part, {name}")
    log_log(ax, fused["size"], "context T (tokens)", "time of a training step (ms)")
    ax.set_ylim(bottom=0.5 * fused["seconds"].min() / 1e-3)
    ax.legend(loc="upper left", frameon=False, fontsize=9)
    return fig


def memory(axes: Points) -> Figure:
    """Peak memory of a step against the context."""
    fig, ax = figure(width=WIDTH, height=3.8)
    for name, color, marker in (("written out", RED, "s"), ("fused", BLUE, "o")):
        draw(ax, axes[f"context, {name}"], "bytes", 1e6, color=color, marker=marker,
             label=f"attention {name}")
    ax.set(xlabel="context T (tokens)", ylabel="peak memory of a step (MB)", ylim=(0, None))
    ax.xaxis.set_major_locator(FixedLocator([0, 512, 1024, 1536, 2048]))
    ax.xaxis.set_major_formatter(FuncFormatter(plain))
    ax.legend(loc="upper left", frameon=False)
    return fig


def shape(axes: Points) -> Figure:
    """Time and memory against width and against depth, one panel each."""
    fig, panels = figure(1, 2, width=WIDTH, height=6.6)
    for ax, name, label in zip(panels, ("width", "depth"), ("width C", "depth L (layers)")):
        axis = axes[name]
        draw(ax, axis, "seconds", 1e-3, color=BLUE, marker="o", label="time (ms)")
        draw(ax, axis, "bytes", 1e6, color=GREEN, marker="^", label="peak memory (MB)")
        law, line = axis["laws"]["seconds"], between(axis["size"])
        if 2 in law:
            ax.plot(line, part(law, line, 2) / 1e-3, "--", color=BLUE, linewidth=1.2,
                    label="quadratic part of the time")
        ax.set(xlabel=label, ylabel="a step: ms, MB", xlim=(0, None), ylim=(0, None))
        ax.xaxis.set_major_locator(FixedLocator(axis["size"][axis["size"] != 96]))
        ax.legend(loc="upper left", frameon=False)
    return fig


def generation(axes: Points) -> Figure:
    """Time of a new token against its position, with a cache and without."""
    fig, ax = figure(width=WIDTH, height=3.8)
    for name, color, marker, label in (
            ("no cache", RED, "s", "without a cache"), ("cache", BLUE, "o", "with a cache")):
        draw(ax, axes[f"generation, {name}"], "seconds", 1e-3, color=color, marker=marker,
             label=label)
    log_log(ax, axes["generation, cache"]["size"], "position S of the token (tokens before it)",
            "time of one new token (ms)")
    ax.legend(loc="upper left", frameon=False)
    return fig


def bars(ax: Axes, values: dict[str, dict[str, float]], label: str) -> None:
    """Horizontal bars, `values[row][series]`, with their numbers; the first row stands on top."""
    series = {name: [row.get(name, np.nan) for row in values.values()]
              for row in values.values() for name in row}
    drawn = ax.grouped_bar(series, tick_labels=list(values), orientation="horizontal",
                           group_spacing=0.5, colors=(BLUE, LIGHT))
    for container, numbers in zip(drawn.bar_containers, series.values()):
        ax.bar_label(container, ["" if np.isnan(x) else f"{x:.{2 if x < 10 else 1}f}"
                                 for x in numbers], padding=2, fontsize=8)
    ax.invert_yaxis()
    ax.margins(y=0.02)
    ax.set_xlabel(label)
    ax.grid(visible=False, axis="y")


def writing() -> Figure:
    """How many times as fast as Transformers each program writes, one panel a model."""
    models: dict[str, dict] = {}
    for model, prompts, name, _, times, *_ in read("generation")["rows"]:
        if name not in ("Transformers", "drawing alone"):
            named = f"{prompts} prompt" + "s" * (prompts != "1")
            models.setdefault(model, {}).setdefault(name, {})[named] = float(times)
    fig, panels = figure(1, len(models), width=WIDTH, height=7.6)
    for ax, (model, values) in zip(panels, models.items()):
        bars(ax, values, "times the speed of Transformers")
        ax.axvline(1, color="black", linewidth=1, linestyle=":")
        ax.set_title(model + ", context 256")
        ax.set_xlim(right=1.12 * max(max(row.values()) for row in values.values()))
    panels[0].legend(loc="center right", bbox_to_anchor=(1, 0.75))
    return fig


def tokens() -> Figure:
    """Megabytes a second of each tokenizer, one panel a kind of work."""
    works: dict[str, dict] = {}
    for work, text, name, _, speed, _ in read("tokenization")["rows"]:
        works.setdefault(work, {}).setdefault(name, {})[text] = float(speed)
    fig, panels = figure(1, len(works), width=WIDTH, height=8.4)
    for ax, (work, values) in zip(panels, works.items()):
        bars(ax, values, "MB a second")
        ax.set(title=work, xscale="log", xlim=(0.2, 260))
        ax.xaxis.set_major_formatter(FuncFormatter(plain))
    panels[0].legend(loc="lower right")
    return fig


def main() -> None:
    """Draw all figures and store them as PNG."""
    axes = read_points()
    drawn = {f"growth_{make.__name__}": make(axes) for make in (context, memory, shape, generation)}
    drawn |= {f"speed_{make.__name__}": make() for make in (writing, tokens)}
    for name, fig in drawn.items():
        path = STATIC / f"{name}.png"
        fig.savefig(path, dpi=DPI, metadata={"Software": None})
        plt.close(fig)
        print(path.relative_to(ROOT).as_posix())


if __name__ == "__main__":
    main()
