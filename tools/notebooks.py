"""Execute the notebooks, store them in one normal form, and record what each run cost.

    python tools/notebooks.py                                  # all of them
    python tools/notebooks.py notebooks/04_1_probability.ipynb # the ones named
    python tools/notebooks.py --normalise                      # tidy without executing

A notebook runs from top to bottom in a fresh kernel, in its own folder, on one thread. If a cell
raises, the stored notebook stays as it was and the command ends with status 1.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
import psutil
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
RUN_TIMES = ROOT / "book" / "run_times.json"
ONE_THREAD = {"GPTLIB_THREADS": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
KEPT_METADATA = ("tags", "mystnb", "jupyter", "cellView")
LONGEST_CELL = 900  # seconds; a cell that takes longer hangs
LONGEST_OPENING = 8  # lines; a longer cell of imports is folded on the page, not in JupyterLab


@dataclass(frozen=True)
class Cost:
    """What one execution of a notebook took, the start of its kernel and imports included."""

    code: str  # hash of the code cells that were run: a changed notebook has no recorded cost
    cpu_seconds: float  # processor time of all threads; hardly depends on what else runs
    wall_seconds: float  # by the clock; longer on a busy machine
    peak_memory_mb: int  # largest resident memory of the kernel and its child processes


def repository_url() -> str:
    """The address of the book's repository, from the one place that knows it: _config.yml."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    return config["repository"]["url"]


def setup_cell_source() -> str:
    """The first code cell of every notebook: installs gptlib where it is missing."""
    return (
        "# Installs gptlib where it is missing (on Colab); elsewhere it does nothing.\n"
        "import importlib.util\n\n"
        'if importlib.util.find_spec("gptlib") is None:\n'
        f'    repository = "{repository_url()}"\n'
        '    %pip install --quiet "gptlib[book] @ {repository}/archive/main.zip"'
    )


def is_setup_cell(cell: NotebookNode) -> bool:
    """Whether this is the cell that `setup_cell_source` describes, in any version of it."""
    return cell.cell_type == "code" and 'find_spec("gptlib")' in cell.source


def code_hash(notebook: NotebookNode) -> str:
    """A short hash of all code, so that a recorded cost can be matched with what was run."""
    code = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def put_setup_cell(notebook: NotebookNode) -> None:
    """Insert the set-up cell before the first code cell, or bring it up to date; fold imports."""
    code_cells = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    if not code_cells:
        raise ValueError("the notebook has no code cell")
    first = code_cells[0]
    if is_setup_cell(notebook.cells[first]):
        notebook.cells[first].source = setup_cell_source()
    else:
        notebook.cells.insert(first, nbformat.v4.new_code_cell(setup_cell_source()))
    notebook.cells[first].metadata = NotebookNode(tags=["remove-cell"])
    imports = [cell for cell in notebook.cells[first + 1:] if cell.cell_type == "code"][:1]
    if imports and len(imports[0].source.split("\n")) > LONGEST_OPENING:
        imports[0].metadata = NotebookNode(tags=["hide-input"])


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join consecutive outputs of one stream: how they were split depends on timing."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def normalise(notebook: NotebookNode) -> None:
    """Bring a notebook into its stored form, in place: equal content gives equal bytes."""
    put_setup_cell(notebook)
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        cell.source = "\n".join(line.rstrip() for line in cell.source.strip("\n").split("\n"))
        cell.metadata = NotebookNode(
            {key: cell.metadata[key] for key in KEPT_METADATA if key in cell.metadata})
        cell.pop("attachments", None)
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3 (ipykernel)", "language": "python",
                    "name": "python3"},
        language_info={"file_extension": ".py", "mimetype": "text/x-python", "name": "python",
                       "pygments_lexer": "ipython3"},
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5


class MemoryWatch(threading.Thread):
    """Samples the resident memory of a process and its children until `stop` is called."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.peak, self.finished = process, 0, threading.Event()

    def sample(self) -> None:
        """Add up the family's memory now; a process that has just ended counts as nothing."""
        memory = 0
        try:
            for member in [self.process, *self.process.children(recursive=True)]:
                memory += member.memory_info().rss
        except psutil.NoSuchProcess:
            pass
        self.peak = max(self.peak, memory)

    def run(self) -> None:
        """Sample twice a second."""
        while not self.finished.wait(0.5):
            self.sample()

    def stop(self) -> int:
        """End the sampling and return the peak in bytes."""
        self.finished.set()
        self.join()
        self.sample()
        return self.peak


def execute(notebook: NotebookNode, folder: Path) -> Cost:
    """Run all cells in a fresh kernel, in place; raises CellExecutionError where a cell does."""
    client = NotebookClient(
        notebook, timeout=LONGEST_CELL, kernel_name="python3", record_timing=False,
        store_widget_state=False, resources={"metadata": {"path": str(folder)}})
    started, count = time.perf_counter(), 0
    with client.setup_kernel():
        kernel = psutil.Process(client.km.provisioner.pid)
        watch = MemoryWatch(kernel)
        watch.start()
        try:
            for index, cell in enumerate(notebook.cells):
                if cell.cell_type == "code":
                    count += 1
                    cell.outputs, cell.execution_count = [], None
                    client.execute_cell(cell, index, execution_count=count)
        finally:
            peak = watch.stop()
        used = kernel.cpu_times()
    wall = time.perf_counter() - started
    cpu = used.user + used.system + used.children_user + used.children_system
    return Cost(code_hash(notebook), round(cpu, 1), round(wall, 1), round(peak / 1e6))


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.MULTILINE)
        if name:
            return name.group(1).strip()
    return platform.processor() or platform.machine()


def record(name: str, cost: Cost) -> None:
    """Write the cost of one notebook into book/run_times.json, beside those of the others."""
    table = json.loads(RUN_TIMES.read_text(encoding="utf-8")) if RUN_TIMES.exists() else {}
    table["machine"] = {
        "processor": processor(), "cores": os.cpu_count(), "system": platform.system(),
        "python": platform.python_version(), "torch": importlib.metadata.version("torch")}
    known = table.get("notebooks", {}) | {name: asdict(cost)}
    table["notebooks"] = {
        key: known[key] for key in sorted(known) if (NOTEBOOKS / f"{key}.ipynb").exists()}
    write(RUN_TIMES, json.dumps(table, indent=2) + "\n")


def write(path: Path, text: str) -> None:
    """Replace a file at once, so that an interrupted run leaves the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def process(path: Path, only_normalise: bool) -> bool:
    """Execute (unless told otherwise), normalise and store one notebook; False if a cell raised."""
    notebook = nbformat.read(path, as_version=4)
    normalise(notebook)
    cost = None
    if not only_normalise:
        try:
            cost = execute(notebook, path.parent)
        except CellExecutionError as error:
            print(f"{path.stem}: a cell raised; the stored notebook is unchanged\n{error}",
                  file=sys.stderr)
            return False
        normalise(notebook)
    write(path, nbformat.writes(notebook, version=4) + "\n")
    if cost is None:
        print(f"{path.stem}: normalised")
    else:
        if path.parent == NOTEBOOKS:
            record(path.stem, cost)
        print(f"{path.stem}: {cost.cpu_seconds} s of processor time, {cost.wall_seconds} s by the "
              f"clock, {cost.peak_memory_mb} MB", flush=True)
    return True


def main() -> int:
    """Read the command line, process the notebooks, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    parser.add_argument("--normalise", action="store_true", help="tidy without executing")
    options = parser.parse_args()
    os.environ.update(ONE_THREAD)
    paths = [path.resolve() for path in options.notebooks] or sorted(NOTEBOOKS.glob("*.ipynb"))
    missing = [path for path in paths if not path.is_file()]
    if missing:
        parser.error(f"no such notebook: {missing[0]}")
    results = [process(path, options.normalise) for path in paths]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
