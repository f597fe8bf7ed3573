"""Seeds, threads and devices: one call makes a notebook print the same numbers everywhere."""

import contextlib
import os
import random
from collections.abc import Iterator

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


def device_of(model: object) -> torch.device:
    """Where a model's parameters lie; the CPU for one without parameters, such as an n-gram."""
    parameters = getattr(model, "parameters", None)
    first = next(iter(parameters()), None) if callable(parameters) else None
    return torch.device("cpu") if first is None else first.device


@contextlib.contextmanager
def mode(model: object, training: bool) -> Iterator[None]:
    """Training or evaluation mode (dropout on or off) inside `with`; afterwards every module has
    the mode that it had before. A model that is no nn.Module has no modes and is left alone."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    before = [module.training for module in modules]
    if modules:
        model.train(training)
    try:
        yield
    finally:
        for module, was_training in zip(modules, before):
            module.training = was_training
