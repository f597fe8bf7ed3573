"""Run every test of the book, part by part, and say at the end which part failed.

    python tools/test.py

All parts run, also after a failure; the exit status is 1 if any failed.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from notebooks import ONE_THREAD

ROOT = Path(__file__).resolve().parent.parent
LINTED = ["gptlib", "tests", "tools", "book", "notebooks", "benchmarks"]


def parts() -> dict[str, list[str]]:
    """The parts in their order: a name and a command."""
    python = [sys.executable, "-m"]
    jupyter_book = str(Path(sys.executable).with_name("jupyter-book"))
    linted = [folder for folder in LINTED if (ROOT / folder).exists()]
    return {
        "Lint": [*python, "ruff", "check", *linted],
        "Unit tests": [*python, "pytest", "tests", "--ignore=tests/test_book.py", "--durations=5"],
        "Site, warnings are errors": [jupyter_book, "build", ".", "--all", "-W", "-n",
                                      "--keep-going", "-q"],
        "The built pages": [*python, "pytest", "tests/test_book.py"],
        "Notebooks against their stored outputs": [
            *python, "pytest", "--nbval", "notebooks", "--nbval-current-env",
            "--nbval-sanitize-with", "tests/nbval_sanitize.cfg",
            "--nbval-kernel-startup-timeout", "120", "-n", "2", "--dist", "loadfile",
            "--durations=10"],
    }


def main() -> int:
    """Run the parts; return 0 if all passed, otherwise 1."""
    environment = os.environ | ONE_THREAD | {"PYTHONUTF8": "1"}
    lines, failed = [], False
    for name, command in parts().items():
        shown = " ".join(["python", *command[1:]] if command[0] == sys.executable else command)
        print(f"\n=== {name}: {shown}\n", flush=True)
        started = time.perf_counter()
        status = subprocess.run(command, cwd=ROOT, env=environment)
        verdict = "passed" if status.returncode == 0 else f"FAILED (status {status.returncode})"
        failed = failed or status.returncode != 0
        lines.append(f"{time.perf_counter() - started:7.1f} s  {verdict:20}  {name}")
    print("\n" + "=" * 72 + "\n" + "\n".join(lines), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
