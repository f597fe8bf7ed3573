"""What chapter 2.1 asserts about its ladder, chapter 5.3 quotes."""

import re
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"


def bands(name):
    """The line "BANDS = ..." of a notebook."""
    code = "\n".join(cell.source for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells)
    return re.findall(r"^BANDS = .*$", code, flags=re.MULTILINE)


def test_chapter_5_3_quotes_the_bands_that_chapter_2_1_asserts():
    assert bands("02_1_language_models") == bands("05_3_training") != []
