"""Figures in one style: arrays in, matplotlib axes out.

The colours are those of Okabe and Ito (2008), which readers with any kind of colour vision can
tell apart; the background stays white, so that a figure reads in the light and the dark theme.

Matplotlib takes about half a second to import, so the first figure does it and not the first cell.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE = {
    "axes.prop_cycle": f"cycler('color', {list(COLORS)})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "font.size": 10,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 110,
    "figure.dpi": 110,
    "legend.frameon": False,
}


def figure(columns: int = 1, rows: int = 1, *, width: float = 7.0,
           height: float = 3.4) -> tuple[Figure, Axes]:
    """A figure of `width` by `height` inches and its axes (an array of them if more than one)."""
    import matplotlib.pyplot as plt

    plt.draw_if_interactive()  # loads the notebook's backend; inside the context, leaving it would
    with plt.rc_context(_STYLE):  # switch interactive drawing off and later figures would vanish
        return plt.subplots(rows, columns, figsize=(width, height), layout="constrained")


def curves(ax: Axes, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *,
           x_label: str, y_label: str, markers: bool = False) -> Axes:
    """Draw lines {name: (x, y)}; the legend is left out for a single line without a name."""
    for i, (name, (x, y)) in enumerate(series.items()):
        marker = _MARKERS[i % len(_MARKERS)] if markers else None
        ax.plot(np.asarray(x), np.asarray(y), label=name, linewidth=1.8,
                color=COLORS[i % len(COLORS)], marker=marker)
    ax.set(xlabel=x_label, ylabel=y_label)
    if any(series):
        ax.legend()
    return ax


def bars(ax: Axes, values: Mapping[str, float], *, x_label: str, form: str = "{:.2f}") -> Axes:
    """Draw horizontal bars {name: value}, first on top, each with its value written at its end."""
    drawn = ax.barh(list(values), list(values.values()), color=COLORS[0])
    ax.bar_label(drawn, [form.format(value) for value in values.values()], padding=3)
    ax.invert_yaxis()
    ax.grid(False)
    ax.set_xlabel(x_label)
    ax.margins(x=0.15)
    return ax


def heatmap(ax: Axes, matrix: ArrayLike, *, row_labels: Sequence[str] = (),
            column_labels: Sequence[str] = (), x_label: str = "", y_label: str = "",
            form: str | None = None, limits: tuple[float, float] | None = None) -> Axes:
    """Draw a matrix (rows, columns), dark where large; `form` such as "{:.2f}" writes its numbers.

    For attention: rows are the positions that look (T), columns those looked at (S).
    """
    matrix = np.asarray(matrix, dtype=float)
    low, high = limits if limits else (np.nanmin(matrix), np.nanmax(matrix))
    ax.imshow(matrix, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    ax.set_xticks(range(len(column_labels)), column_labels, rotation=45, ha="right")
    ax.set_yticks(range(len(row_labels)), row_labels)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.grid(False)
    if form:
        for (row, column), value in np.ndenumerate(matrix):
            dark = (value - low) > 0.6 * (high - low)
            ax.text(column, row, form.format(value), ha="center", va="center",
                    color="white" if dark else "black", fontsize=8)
    return ax


def film(fig: Figure, draw: Callable[[int], object], frames: int, *,
         milliseconds: int = 100) -> bytes:
    """An animated PNG: `draw(t)` changes the figure for t = 0 ... frames - 1.

    It plays once and stops on the last picture, so that nothing on the page moves for ever.
    """
    import matplotlib.pyplot as plt
    from PIL import Image

    pictures = []
    for t in range(frames):
        draw(t)
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=100)
        fig.set_layout_engine("none")  # the first picture has settled the layout
        pictures.append(Image.open(buffer).convert("RGB"))
    plt.close(fig)
    palette = pictures[-1].quantize(128)  # few colours, one palette: a fraction of the size
    pictures = [picture.quantize(palette=palette, dither=0) for picture in pictures]
    buffer = io.BytesIO()
    pictures[0].save(buffer, format="png", save_all=True, append_images=pictures[1:],
                     duration=milliseconds, loop=1)
    return buffer.getvalue()
