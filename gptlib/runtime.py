"""One call that makes a notebook print the same numbers on every machine."""

import os
import random

import numpy as np
import torch


def setup(seed: int = 0, threads: int | None = None) -> None:
    """Seed Python, NumPy and PyTorch, and fix the number of CPU threads.

    `threads` defaults to the environment variable GPTLIB_THREADS, and to 1 without it: sums are
    split over threads, so another number of threads gives another rounding, and after some 50
    training steps other digits. Set GPTLIB_THREADS=2 to train about 1.5 times as fast on two
    quiet cores and accept that.
    """
    if threads is None:
        value = os.environ.get("GPTLIB_THREADS", "1")
        if not value.isdigit() or int(value) < 1:
            raise ValueError(f"GPTLIB_THREADS is {value!r}; expected a whole number, 1 or more")
        threads = int(value)
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def best_device() -> torch.device:
    """The GPU if there is one (CUDA, then Apple's MPS), otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
