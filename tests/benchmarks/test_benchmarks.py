"""How speed is measured, and that the page of the book shows all that was, and nothing else."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import measure  # noqa: E402
import run  # noqa: E402

PAGE = (ROOT / "book" / "speed.md").read_text(encoding="utf-8")
TABLES = {path.stem: json.loads(path.read_text(encoding="utf-8"))
          for path in (ROOT / "benchmarks" / "results").glob("*.json")}


def test_competitors_take_turns_and_the_first_round_does_not_count():
    order = []
    works = {name: lambda name=name: order.append(name) for name in "AB"}
    times = measure.take_turns(works, rounds=3)
    assert order == ["A", "B"] * 4
    assert {name: len(seconds) for name, seconds in times.items()} == {"A": 3, "B": 3}


def test_a_competitor_that_returns_a_float_has_timed_itself():
    assert measure.take_turns({"A": lambda: 7.0}, rounds=2) == {"A": [7.0, 7.0]}


def test_the_ratio_compares_neighbours_not_medians_of_other_minutes():
    """A slow minute hits both: in each round A takes twice as long as B."""
    times = {"A": [2.0, 20.0, 2.0, 2.2], "B": [1.0, 10.0, 1.0, 1.1]}
    assert measure.ratio(times, "A", "B") == 2.0
    times["B"][1] = 1000.0  # one bad round changes nothing
    assert measure.ratio(times, "A", "B") == 2.0


def test_a_table_is_stored_with_the_machine_and_replaces_the_old_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    for value in (1, 2):
        measure.write("speed", command="python x.py", columns=["what", "seconds"],
                      rows=[["sum", value]], facts={"sum": f"{value}"}, packages=["numpy"])
    stored = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert stored["rows"] == [["sum", "2"]] and stored["facts"] == {"sum": "2"}
    assert {"processor", "instructions", "threads", "torch", "numpy"} <= set(stored["machine"])
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]
    assert "sum   2" in capsys.readouterr().out


def test_every_script_that_make_bench_runs_exists_and_no_other():
    helpers = {"measure", "run", "figures"}
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert set(run.ALL) == scripts - helpers


def test_the_page_shows_every_table_and_only_tables_that_were_measured():
    shown = set(re.findall(r"```\{benchmark\} (\w+)", PAGE))
    assert shown == {name for name, table in TABLES.items() if "facts" in table}


@pytest.mark.parametrize("name", sorted(name for name in TABLES if "facts" in TABLES[name]))
def test_a_table_names_the_script_that_made_it(name):
    script = TABLES[name]["command"].removeprefix("python ")
    assert (ROOT / script).exists()
    assert all(len(row) == len(TABLES[name]["columns"]) for row in TABLES[name]["rows"])


def test_every_number_that_the_page_quotes_or_compares_was_measured():
    quoted = re.findall(r"\{measured\}`(\w+): ([^`]+)`", PAGE)
    compared = re.findall(r"\{met\}`(\w+): (.+?) [<>]= ", PAGE)
    compared += re.findall(r"\{met\}`[^`]+ [<>]= (\w+): ([^`]+)`", PAGE)
    assert quoted and compared
    for name, fact in quoted + compared:
        assert fact in TABLES[name]["facts"], f"{name} has no fact {fact!r}"
