"""Run all benchmarks, one after the other, on a machine with nothing else to do.

    python benchmarks/run.py                       # about half an hour
    python benchmarks/run.py generation training   # the ones named

Each replaces its tables in benchmarks/results; the figures are drawn at the end.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ALL = ["imports", "tokenization", "generation", "pretrained", "training", "growth", "large_corpus"]


def main() -> int:
    """Run what is named, or all; return 1 if any failed."""
    names = sys.argv[1:] or ALL
    unknown = [name for name in names if name not in ALL]
    if unknown:
        raise SystemExit(f"no benchmark is called {unknown[0]!r}; there are {', '.join(ALL)}")
    environment = os.environ | {"PYTHONUTF8": "1"}
    failed = []
    for name in [*names, "figures"]:
        print(f"=== {name}", flush=True)
        began = time.perf_counter()
        status = subprocess.run([sys.executable, HERE / f"{name}.py"], env=environment).returncode
        print(f"    {time.perf_counter() - began:.0f} s", flush=True)
        failed += [name] if status else []
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
