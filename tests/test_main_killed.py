"""`train`, killed at any moment, goes on to the same end, wherever its folder lies."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).resolve().parent / "killing.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been():
    result = subprocess.run([sys.executable, str(DRIVER), "12"], capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": str(DRIVER.parent.parent)},
                            timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    counts = {name: int(count) for name, count in
              re.findall(r"^(\w[\w ]*?) +(\d+)  \{", result.stdout, re.MULTILINE)}
    assert {"start", "step", "save", "swap"} <= set(counts) and sum(counts.values()) == 12
    assert result.stdout.endswith("all ended as the uncut run did\n")
