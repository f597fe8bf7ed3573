"""Seeds, threads, devices, processes, signals: what a run needs to repeat its numbers elsewhere."""

import contextlib
import os
import random
import signal
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as distributed

MOST_THREADS = 1024  # beyond it the system may refuse to start them, and ends the process


def setup(seed: int = 0, threads: int | None = None) -> None:
    """Seed Python, NumPy and PyTorch, and fix the number of CPU threads.

    `threads` defaults to the environment variable GPTLIB_THREADS, and to 1 without it: sums are
    split over threads, so another number of threads gives another rounding, and after some 50
    training steps other digits. Set GPTLIB_THREADS=2 to train about 1.5 times as fast on two
    quiet cores and accept that.
    """
    name, value = "threads", threads
    if threads is None:
        name, value = "GPTLIB_THREADS", os.environ.get("GPTLIB_THREADS", "1")
    number = int(value) if str(value).isdecimal() else 0
    if not 1 <= number <= MOST_THREADS:
        raise ValueError(f"{name} is {value!r}; expected a whole number from 1 to {MOST_THREADS}")
    torch.set_num_threads(number)
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


def memory(device: torch.device) -> int | None:
    """Bytes of memory of a GPU, or of the whole machine; None where the system does not tell."""
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


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


@contextlib.contextmanager
def interruptions() -> Iterator[list[int]]:
    """A list that is empty until Ctrl-C (or a request to terminate) arrives, once.

    The next one has its usual effect. Outside the main thread nothing is caught.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    try:
        for number in before:
            signal.signal(number, note)
    except ValueError:
        before = {}  # outside the main thread nothing can be caught, and nothing arrives
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def process_group(device: str | torch.device = "cpu") -> Iterator[torch.device]:
    """Join the other processes inside `with`; yields this process's device.

    Under `python -m torch.distributed.run --nproc_per_node=2 ...` each process gets the GPU of its
    number on the machine, if `device` is "cuda". Started without it, there is nothing to join.
    """
    device = torch.device(device)
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    number = os.environ.get("LOCAL_RANK", "nothing")
    if not number.isdecimal():
        raise ValueError(f"WORLD_SIZE is set and LOCAL_RANK is {number}; expected both as "
                         f"python -m torch.distributed.run sets them, or neither")
    backend, own = "gloo", int(number)
    if device.type == "cuda":
        if own >= torch.cuda.device_count():
            raise ValueError(f"this is process {own} of its machine, which has "
                             f"{torch.cuda.device_count()} GPUs; expected a GPU for each process: "
                             f"start fewer with --nproc_per_node")
        device, backend = torch.device("cuda", own), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise ValueError(f"the device is {device}; several processes need cpu or cuda")
    distributed.init_process_group(backend)
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank() -> tuple[int, int]:
    """The number of this process and how many there are: (0, 1) if torch.distributed is unused."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def largest_of_all(value: float) -> float:
    """The largest of the values of all processes: for what they must decide alike."""
    if rank()[1] == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return shared.item()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor, gathered (all processes must ask for it); any other tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
