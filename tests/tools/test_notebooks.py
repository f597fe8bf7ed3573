"""The tool that executes notebooks: one normal form, and nothing stored when a cell raises."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import notebooks as tool


def example(*sources: str) -> nbformat.NotebookNode:
    cells = [new_code_cell(source, metadata={"lines_to_next_cell": 2}) for source in sources]
    return new_notebook(cells=[new_markdown_cell("# 1 A title"), *cells])


def test_normal_form_is_reached_in_one_step():
    notebook = example("print(1)", "print(1)")
    tool.normalise(notebook)
    once = nbformat.writes(notebook)
    tool.normalise(notebook)
    assert nbformat.writes(notebook) == once
    assert [cell.metadata for cell in notebook.cells[2:]] == [{}, {}]
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_the_set_up_cell_is_put_first_and_replaced_when_it_is_old():
    notebook = example("print(1)")
    tool.normalise(notebook)
    assert notebook.cells[1].source == tool.setup_cell_source()
    notebook.cells[1].source = notebook.cells[1].source.replace("build-a-gpt", "elsewhere")
    tool.normalise(notebook)
    assert [cell.source for cell in notebook.cells[1:]] == [tool.setup_cell_source(), "print(1)"]


def test_a_long_cell_of_imports_is_folded_on_the_page():
    long = "\n".join(f"import module_{i}" for i in range(tool.LONGEST_OPENING + 1))
    for source, tags in ((long, {"tags": ["hide-input"]}), ("import math", {})):
        notebook = example(source, long)
        tool.normalise(notebook)
        assert [cell.metadata for cell in notebook.cells[2:]] == [tags, {}]


def test_streams_are_merged_as_if_printed_at_once():
    pieces = [new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n")]
    other = new_output("stream", name="stderr", text="c\n")
    merged = tool.merge_streams([*pieces, other])
    assert [(output.name, output.text) for output in merged] == [
        ("stdout", "a\nb\n"), ("stderr", "c\n")]


def test_the_hash_follows_the_code_and_nothing_else():
    notebook, changed = example("print(1)"), example("print(2)")
    before = tool.code_hash(notebook)
    notebook.cells[0].source = "# another title"
    assert tool.code_hash(notebook) == before != tool.code_hash(changed)


@pytest.mark.parametrize("source", ["1 / 0", "import no_such_module"])
def test_a_notebook_with_an_error_stays_as_it_was(tmp_path, source):
    path = tmp_path / "broken.ipynb"
    path.write_text(nbformat.writes(example("x = 1", source)), encoding="utf-8")
    before = path.read_bytes()
    assert tool.process(path, only_normalise=False) is False
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["broken.ipynb"]


def test_execution_stores_outputs_counts_and_a_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(tool, "RUN_TIMES", tmp_path / "run_times.json")
    path = tmp_path / "00_example.ipynb"
    path.write_text(nbformat.writes(example("x = 6 * 7", "print(x)\nx")), encoding="utf-8")
    assert tool.process(path, only_normalise=False)
    stored = nbformat.read(path, as_version=4)
    assert [cell.get("execution_count") for cell in stored.cells] == [None, 1, 2, 3]
    assert stored.cells[3].outputs[0].text == "42\n"
    cost = json.loads((tmp_path / "run_times.json").read_text())["notebooks"]["00_example"]
    assert cost["code"] == tool.code_hash(stored)
    assert cost["cpu_seconds"] > 0 and cost["wall_seconds"] > 0 and cost["peak_memory_mb"] > 10
