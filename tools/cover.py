"""Draw the picture of the README and of the first page: a trained model choosing its words.

    python tools/cover.py

Every word and every number in it comes from models/stories.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.patheffects import withStroke
from torch import Tensor

from gptlib.formats.checkpoint import load_checkpoint, model_path
from gptlib.plotting import COLORS
from gptlib.runtime import setup
from gptlib.writing.generation import generate

PICTURE = Path(__file__).resolve().parent.parent / "book" / "_static" / "cover.png"
PROMPT = "Once upon a time"
STEPS, CANDIDATES, SEED = 8, 5, 3
INK, GREY, LINE = "#1f2a37", "#7a8694", "#d5dae0"


@torch.inference_mode()
def choices() -> tuple[list[str], list[list[tuple[str, float]]]]:
    """The written tokens, and before each of them the likeliest candidates with probabilities."""
    setup(seed=SEED)
    model, tokenizer, _ = load_checkpoint(model_path("stories"))
    model.eval()
    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    generator = torch.Generator().manual_seed(SEED)
    ids = generate(model, prompt, max_new_tokens=STEPS, temperature=0.8, top_p=0.9,
                   generator=generator)
    start = prompt.shape[1]
    probabilities: Tensor = torch.softmax(model(ids)[0, start - 1:-1].float(), dim=-1)
    likeliest = probabilities.topk(CANDIDATES)
    columns = [
        [(tokenizer.decode([token]), chance) for token, chance in zip(row, chances)]
        for row, chances in zip(likeliest.indices.tolist(), likeliest.values.tolist())]
    written = ids[0, start:].tolist()
    for column, token, row in zip(columns, written, probabilities):
        if tokenizer.decode([token]) not in [word for word, _ in column]:
            column[-1] = (tokenizer.decode([token]), float(row[token]))
    return [tokenizer.decode([token]) for token in written], columns


def draw(written: list[str], columns: list[list[tuple[str, float]]]) -> plt.Figure:
    """Columns of candidates, larger where likelier; a line runs through the chosen ones."""
    fig, ax = plt.subplots(figsize=(9, 4.2), dpi=180)
    path = []
    for x, (column, chosen) in enumerate(zip(columns, written)):
        for y, (word, chance) in enumerate(column):
            picked = word == chosen
            if picked:
                path.append((x, -y))
            ax.text(x, -y, word.strip() or "␣", ha="center", va="center", zorder=3,
                    fontsize=9 + 7 * chance**0.5, color="white" if picked else INK,
                    fontweight="bold" if picked else "normal", alpha=1 if picked else 0.75,
                    bbox={"boxstyle": "round,pad=0.35", "facecolor": COLORS[0]} | {
                        "edgecolor": "none"} if picked else None)
            ax.text(x, -y - 0.38, f"{chance:.0%}" if chance >= 0.01 else "< 1%", ha="center",
                    va="center", fontsize=7, color=GREY, zorder=3,
                    path_effects=[withStroke(linewidth=3, foreground="white")])
    ax.plot(*zip(*path), color=COLORS[5], linewidth=3, alpha=0.75, zorder=1)
    ax.text(-0.5, 1.15, PROMPT + "".join(written) + " …", fontsize=16, color=INK, ha="left",
            va="center", fontweight="bold")
    ax.set(xlim=(-0.6, len(columns) - 0.4), ylim=(-CANDIDATES + 0.3, 1.6))
    ax.axis("off")
    fig.tight_layout(pad=0.4)
    return fig


def main() -> int:
    """Draw and store the picture."""
    draw(*choices()).savefig(PICTURE, facecolor="white", metadata={"Software": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
