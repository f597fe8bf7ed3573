"""What every stored notebook promises: executed, in normal form, readable, with its exercises."""

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

import notebooks as tool

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in PATHS]
SECONDS = {"08": 240, "09": 240, "10": 120, "11": 120}  # of processor time; all others 90
BOOK_SECONDS = 50 * 60
TAGS = {"remove-cell", "hide-input", "nbval-ignore-output", "raises-exception",
        "wide-figure"}
LONGEST_LINE, LONGEST_CELL, LARGEST_FILE = 84, 18, 2_000_000
COLLAPSED = {"jupyter": {"source_hidden": True, "outputs_hidden": True}, "cellView": "form"}

every_notebook = pytest.mark.parametrize("name", NAMES)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def markdown(name: str) -> str:
    return "\n\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")


def printed(cell: nbformat.NotebookNode) -> str:
    """All text that a cell's outputs carry."""
    texts = [output.get("text", "") for output in cell.outputs]
    for output in cell.outputs:
        texts += [value for kind, value in output.get("data", {}).items() if "text" in kind]
    return "\n".join(texts)


def python_only(source: str) -> str:
    """The cell without magics, so that `ast` can read it."""
    return "\n".join(re.sub(r"^(\s*)%.*", r"\1pass", line) for line in source.split("\n"))


def test_the_table_of_contents_names_exactly_the_notebooks_that_exist():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    assert [f"notebooks/{name}" for name in NAMES] == [f for f in files if "notebooks/" in f]


@every_notebook
def test_every_cell_was_executed_once_in_order(name):
    # nbval leaves a cell without a count unchecked, so none may be without.
    cells = code_cells(name)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.source.strip() for cell in cells), "an empty code cell"


@every_notebook
def test_no_errors_warnings_or_addresses_are_stored(name):
    for cell in code_cells(name):
        expected_error = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.outputs:
            assert output.output_type != "error" or expected_error, f"error in:\n{cell.source}"
            assert output.get("name") != "stderr", f"stderr, {output.text!r}, of:\n{cell.source}"
        assert not re.search(r"\bat 0x[0-9a-f]{6,}", printed(cell)), f"address of:\n{cell.source}"


@every_notebook
def test_nothing_names_a_folder_of_one_machine(name):
    # Put together here, so that this file does not contain the words either.
    folders = "|".join(["/ro" + "ot/", "/ho" + "me/", "/Us" + "ers/", "/wo" + "rk/", "/tm" + "p/"])
    for cell in read(name).cells:
        text = cell.source + (printed(cell) if cell.cell_type == "code" else "")
        assert not re.search(rf"{folders}|\b[A-Z]:\\Users", text), cell.source


@every_notebook
def test_the_file_is_in_normal_form(name):
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    tool.normalise(notebook)
    same = nbformat.writes(notebook, version=4) + "\n" == text
    assert same, "not as tools/notebooks.py stores it: run `make notebooks`"
    assert len(text) < LARGEST_FILE, f"{len(text)} bytes; at most {LARGEST_FILE}"


@every_notebook
def test_the_recorded_run_time_belongs_to_this_code_and_is_short(name):
    recorded = json.loads(tool.RUN_TIMES.read_text(encoding="utf-8"))["notebooks"]
    assert name in recorded, "no recorded run: execute it with tools/notebooks.py"
    assert recorded[name]["code"] == tool.code_hash(read(name)), "changed since its last run"
    seconds, limit = recorded[name]["cpu_seconds"], SECONDS.get(name[:2], 90)
    assert seconds <= limit, f"{seconds:.0f} s of processor time; at most {limit}"


def test_the_whole_book_runs_in_fifty_minutes():
    recorded = json.loads(tool.RUN_TIMES.read_text(encoding="utf-8"))["notebooks"]
    seconds = sum(recorded[name]["cpu_seconds"] for name in NAMES if name in recorded)
    assert seconds <= BOOK_SECONDS, f"{seconds:.0f} s of processor time; at most {BOOK_SECONDS}"


@every_notebook
def test_the_title_carries_the_number_of_the_file(name):
    title = read(name).cells[0].source.split("\n")[0]
    number = ".".join(str(int(part)) for part in re.match(r"[\d_]+", name)[0].split("_") if part)
    assert re.match(rf"# {re.escape(number)}\b", title), f"title {title!r}, number {number}"


@every_notebook
def test_the_first_cells_install_seed_and_import(name):
    first, second, *others = code_cells(name)
    assert first.source == tool.setup_cell_source()
    assert "from gptlib.runtime import setup" in second.source
    assert re.search(r"^setup\(seed=\d+\)$", second.source, flags=re.MULTILINE)
    for cell in others:
        nodes = ast.walk(ast.parse(python_only(cell.source)))
        scattered = any(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes)
        assert not scattered, f"import below the first cells:\n{cell.source}"


@every_notebook
def test_every_import_is_installed_with_the_package(name):
    # Otherwise the notebook stops on Colab, where only gptlib[book] was installed.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["book"]
    distributions = {re.match(r"[\w-]+", line)[0].replace("-", "_").lower() for line in needed}
    if "scikit_learn" in distributions:
        distributions.add("sklearn")  # the one package whose import has another name
    for cell in code_cells(name)[:2]:
        for node in ast.walk(ast.parse(python_only(cell.source))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                modules = names if isinstance(node, ast.Import) else [node.module]
                roots = {module.split(".")[0] for module in modules}
                unknown = roots - sys.stdlib_module_names - distributions - {"gptlib", "IPython"}
                assert not unknown, f"not in pyproject.toml: {sorted(unknown)}"


@every_notebook
def test_cells_are_short_enough_to_read(name):
    for number, cell in enumerate(code_cells(name)):
        lines = cell.source.split("\n")
        long = len([line for line in lines if line.strip()]) > LONGEST_CELL
        assert number == 1 or not long, cell.source  # the second cell holds the imports
        for line in lines:
            assert len(line) <= LONGEST_LINE, f"{len(line)} characters: {line}"
            assert not line.rstrip().endswith(";"), line


@every_notebook
def test_only_known_tags_are_used(name):
    for number, cell in enumerate(code_cells(name)):
        tags = set(cell.metadata.get("tags", []))
        assert tags <= TAGS, f"unknown tags {sorted(tags - TAGS)}"
        assert ("remove-cell" in tags) == (number == 0), "only the set-up cell is left out"


@every_notebook
def test_every_figure_has_a_text_that_says_what_it_shows(name):
    for cell in code_cells(name):
        if any(kind.startswith("image/") for o in cell.outputs for kind in o.get("data", {})):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) >= 30, f"alt text {alt!r} of:\n{cell.source}"
    for alt in re.findall(r"!\[(.*?)\]\(", markdown(name)):
        assert len(alt) >= 30, f"alt text {alt!r} of a picture in the prose"


def exercises(name: str) -> dict[str, dict]:
    """Exercises by label: the cells of the task, whether it has a hint, those of the solution."""
    found, current, inside = {}, None, None
    for cell in read(name).cells:
        head = cell.source.split("\n")[0] if cell.cell_type == "markdown" else ""
        fence = re.match(r":{3,}\{(exercise-start|exercise-end|hint|solution-start|solution-end)\}",
                         head)
        kind = fence[1] if fence else None
        if kind == "exercise-start":
            current = re.search(r"^:label: (\S+)", cell.source, flags=re.MULTILINE)[1]
            found[current] = {"head": head, "task": [], "hint": "", "solution": [], "for": ""}
        if kind == "hint":
            found[current]["hint"] = cell.source
        if kind == "solution-start":
            found[current]["for"] = head.split("}")[1].strip()
            assert ":class: dropdown" in cell.source, f"{current}: the solution lies open"
        if kind:
            inside = {"exercise-start": "task", "solution-start": "solution"}.get(kind)
        elif inside and cell.cell_type == "code":
            found[current][inside].append(cell)
    return found


@every_notebook
def test_every_exercise_has_a_stub_a_check_a_hint_and_a_collapsed_solution(name):
    for label, parts in exercises(name).items():
        assert re.search(r"[●○]{3}.*\d+ minutes", parts["head"]), f"{label}: {parts['head']}"
        assert parts["for"] == label, f"{label}: the solution is for {parts['for']!r}"
        assert ":class: dropdown" in parts["hint"], f"{label}: no folded hint"
        stub, solution = parts["task"], parts["solution"]
        assert any("not attempted yet" in printed(cell) for cell in stub), f"{label}: stub"
        assert all("check_" in "".join(cell.source for cell in cells) for cells in (stub, solution))
        assert any(printed(cell).strip() == "correct" for cell in solution), f"{label}: solution"
        for cell in solution:
            kept = {key: cell.metadata.get(key) for key in COLLAPSED}
            assert kept == COLLAPSED, f"{label}: the solution is not collapsed: {kept}"


@every_notebook
def test_a_notebook_has_two_to_five_exercises_and_five_quiz_questions(name):
    count = len(exercises(name))
    assert 2 <= count <= 5, f"{count} exercises"
    numbers = re.findall(r"\{dropdown\} Quiz (\d+)\. .+\?", markdown(name))
    assert numbers == list("12345"), f"quiz questions {numbers}"


@every_notebook
def test_the_notebook_ends_with_its_references(name):
    head, _, links = markdown(name).rpartition("References")
    assert re.search(r"^(#+ |\*\*)$", head.split("\n")[-1]), "no heading 'References'"
    assert "https://" in links, "references without a link"
