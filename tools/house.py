"""Draw the rooms of gptlib as a house, from the code as it is: book/_static/house.svg.

    python tools/house.py

A room stands on the floor above the highest room that it imports; the modules at the door carry
them all. What a room is for is the docstring of its package, up to the colon.
"""

import ast
import textwrap
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gptlib"
PICTURE = ROOT / "book" / "_static" / "house.svg"
WIDTH, MARGIN, GAP, GROUND, ROOF = 960, 40, 12, 64, 84  # in pixels
HEAD, LINE = 46, 18  # of a room: the height of its name, and of each line below
COLORS = ("#dcebf7", "#fdf0d2", "#dff2e6", "#f6e1ee", "#f1efe2")  # floor by floor; text is dark
ORDER = ("text", "model", "theory", "formats", "writing", "media", "training")  # left to right


@cache
def rooms() -> dict[str, list[str]]:
    """The modules of each room, and under "" those at the door."""
    found: dict[str, list[str]] = {"": []}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if path.stem.startswith("__"):
            continue
        found.setdefault(parts[0] if len(parts) > 1 else "", []).append(parts[-1])
    return found


@cache
def used(room: str) -> frozenset[str]:
    """The other rooms that a room imports."""
    names = set()
    for path in (PACKAGE / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {f"{node.module}.{alias.name}".split(".")[1]
                          for alias in node.names if node.module.split(".")[0] == "gptlib"}
    return frozenset(names & set(rooms()) - {room, ""})


def floor(room: str) -> int:
    """0 for a room that imports no other; otherwise one more than the highest that it imports."""
    return 1 + max(map(floor, used(room)), default=-1)


def purpose(room: str) -> str:
    """What the room is for: the first words of its docstring."""
    text = (PACKAGE / room / "__init__.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(text)).split(":")[0].split("\n")[0].rstrip(".")


def box(x: float, y: float, width: float, height: float, color: str, title: str,
        lines: list[str]) -> str:
    """One room: its name, and lines of small text below it."""
    texts = [f'<text x="{x + 14:.0f}" y="{y + 28:.0f}" class="name">{escape(title)}</text>']
    texts += [f'<text x="{x + 14:.0f}" y="{y + HEAD + 4 + LINE * i:.0f}" class="{kind}">'
              f"{escape(line)}</text>" for i, (kind, line) in enumerate(lines)]
    return (f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6" '
            f'fill="{color}" stroke="#5b6770"/>\n' + "\n".join(texts))


def wrapped(text: str, width: float, kind: str) -> list[tuple[str, str]]:
    return [(kind, line) for line in textwrap.wrap(text, int((width - 24) / 7))]


def draw() -> str:
    """The picture as SVG text."""
    names = sorted(set(rooms()) - {"", "checks"}, key=ORDER.index)
    floors = [[name for name in names if floor(name) == level]
              for level in range(1 + max(map(floor, names)))]
    inside, parts = WIDTH - 2 * MARGIN, []
    widths = [(inside - GAP * (len(row) - 1)) / len(row) for row in floors]
    lines = {name: wrapped(purpose(name), width, "text")
             + wrapped(" · ".join(rooms()[name]), width, "code")
             for row, width in zip(floors, widths) for name in row}
    tall = [HEAD + LINE * max(len(lines[name]) for name in row) for row in floors]
    height = ROOF + sum(tall) + GAP * len(floors) + GROUND + 2 * MARGIN
    y = height - MARGIN - GROUND
    door = [("text", "seeds, threads and devices, figures, and what every file has to pass")]
    parts.append(box(MARGIN, y, inside, GROUND, "#e3e6e8",
                     "the door: " + " · ".join(rooms()[""]), door))
    for level, (row, width) in enumerate(zip(floors, widths)):
        y -= tall[level] + GAP
        parts += [box(MARGIN + number * (width + GAP), y, width, tall[level],
                      COLORS[level % len(COLORS)], name, lines[name])
                  for number, name in enumerate(row)]
    roof = f"{MARGIN / 2:.0f},{y - GAP:.0f} {WIDTH / 2:.0f},{y - GAP - ROOF:.0f} " \
           f"{WIDTH - MARGIN / 2:.0f},{y - GAP:.0f}"
    under_roof = [("name", "python -m gptlib"), ("text", "and checks, the answers to exercises")]
    parts.append(f'<polygon points="{roof}" fill="{COLORS[-1]}" stroke="#5b6770"/>')
    parts += [f'<text x="{WIDTH / 2:.0f}" y="{y - GAP - 30 + 20 * i:.0f}" text-anchor="middle" '
              f'class="{kind}">{line}</text>' for i, (kind, line) in enumerate(under_roof)]
    style = ("text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1d2429}"
             ".name{font-size:18px;font-weight:600}.text{font-size:13.5px}"
             ".code{font-size:13px;font-style:italic}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'role="img" aria-label="The rooms of gptlib as a house">\n<style>{style}</style>\n'
            f'<rect width="{WIDTH}" height="{height:.0f}" rx="10" fill="#ffffff"/>\n'
            + "\n".join(parts) + "\n</svg>\n")


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8", newline="\n")
    print(f"drawn: {PICTURE.relative_to(ROOT)}")
