"""One pair of decoding settings in package, command line, model card and chapter 8.4."""

import json
import re
from pathlib import Path

import pytest
import typer

from gptlib import __main__
from gptlib.writing.sampling import DECODING

ROOT = Path(__file__).resolve().parent.parent
PAIR = (DECODING["temperature"], DECODING["top_p"])


@pytest.mark.parametrize("name", ["generate", "chat"])
def test_the_command_line_writes_with_them(name):
    command = typer.main.get_command(__main__.app).commands[name]
    defaults = {option.name: option.default for option in command.params}
    assert (defaults["temperature"], defaults["top_p"]) == PAIR
    assert (defaults["top_k"], defaults["min_p"]) == (None, None)
    assert defaults["repetition_penalty"] == {"generate": None, "chat": 1}[name]  # None: its own


def test_the_model_card_advises_them():
    card = (ROOT / "models" / "stories" / "README.md").read_text(encoding="utf-8")
    advised = re.findall(r"Use ([\d.]+) with top-p ([\d.]+\d)", card)
    assert [tuple(map(float, each)) for each in advised] == [PAIR]


def test_the_samples_that_chapter_8_4_shows_are_written_with_them():
    text = (ROOT / "notebooks" / "08_4_stories_writing.ipynb").read_text(encoding="utf-8")
    code = ["".join(cell["source"]) for cell in json.loads(text)["cells"]
            if cell["cell_type"] == "code"]
    shown = [cell for cell in code if "textwrap.fill" in cell]
    found = re.findall(r"temperature=([\d.]+),\s*top_p=([\d.]+)", "\n".join(shown))
    assert len(found) >= 2 and {tuple(map(float, each)) for each in found} == {PAIR}
    named = re.findall(r'"([\d.]+) and top-p ([\d.]+)": dict\(temperature=\1, top_p=\2\)',
                       "\n".join(code))
    assert tuple(map(float, named[0])) == PAIR, "the table of decodings has a row for them"
