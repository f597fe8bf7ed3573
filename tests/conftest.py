"""What all tests share: one thread, no windows, repeatable examples, tools and mutations found."""

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GPTLIB_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
sys.path.append(str(Path(__file__).resolve().parent))  # for mutations.py

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from gptlib.runtime import setup  # noqa: E402

hypothesis.settings.register_profile("book", deadline=None, derandomize=True)
hypothesis.settings.load_profile("book")


@pytest.fixture(autouse=True)
def same_numbers_every_time():
    """Every test starts from the same seeds, on the same number of threads."""
    setup(seed=0)
