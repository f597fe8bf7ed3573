"""Run the fuzz tests of all file formats with many examples, and print how these ended.

    python tools/fuzz.py               # 10,000 of each; this takes an hour
    python tools/fuzz.py 2000 gguf     # fewer, of the tests whose file's name has this word

Each run draws new examples (the tests in CI always draw the same 300). An example that fails is
shown with its data; make it a test of its own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def outcomes(report: str) -> list[tuple[str, int, dict[str, int]]]:
    """Name of the test, number of examples and how many ended in which way, for each test in
    what pytest prints with --hypothesis-show-statistics."""
    found = []
    for block in re.split(r"^(?=tests/\S+::\w+:$)", report, flags=re.MULTILINE):
        name = re.match(r"tests/\S+::(\w+):$", block, flags=re.MULTILINE)
        counts = re.search(r"- (\d+) passing, (\d+) failing, and (\d+) invalid", block)
        if name is None or counts is None:
            continue
        tried = sum(map(int, counts.groups()))  # the shares below are of all that were drawn
        shares = re.findall(r"\* ([\d.]+)%, (.+)", block)
        ended = {what: round(float(share) * tried / 100) for share, what in shares}
        found.append((name[1], int(counts[1]) + int(counts[2]), ended))
    return found


def main() -> int:
    """Run the tests, a process for each file, and print the counts."""
    examples = sys.argv[1] if len(sys.argv) > 1 else "10000"
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    status = 0
    for file in sorted(ROOT.glob(f"tests/*/test_fuzz_*{word}*.py")):
        command = [sys.executable, "-m", "pytest", str(file), "--hypothesis-show-statistics"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                                env=os.environ | {"GPTLIB_FUZZ": examples})
        for name, tried, ended in outcomes(result.stdout):
            print(f"{name}: {tried:,} examples; "
                  + ", ".join(f"{count:,} {what}" for what, count in ended.items()), flush=True)
        if result.returncode != 0:
            print(result.stdout, result.stderr, sep="\n")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
