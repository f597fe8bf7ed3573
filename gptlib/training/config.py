"""The settings of a training loop, checked when they are made."""

import dataclasses
from typing import Self

from gptlib.model.config import (
    read_fields,
    require,
    require_choice,
    require_number,
    require_switch,
)

MOST_STEPS = 10**9  # more is a typing error; so is a rate below SMALLEST_RATE
SMALLEST_RATE = 1e-12


def require_whole(name: str, value: int, least: int, most: int) -> None:
    """Raise a ValueError unless the field `name` is a whole number from `least` to `most`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole and least <= value <= most,
            f"{name} is {value!r}; expected a whole number from {least:,} to {most:,}")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How `gptlib.training.loop.train` runs. The learning rate itself belongs to the optimizer."""

    max_steps: int = 500  # optimizer steps in the whole run
    warmup_steps: int = 0  # steps over which the learning rate rises linearly from 0
    schedule: str = "constant"  # after the warm-up: "constant", "linear" or "cosine" decay
    final_fraction: float = 0.0  # learning rate at the end, as a fraction of its peak
    decay_fraction: float = 1.0  # the part of the run, at its end, over which the rate decays
    grad_clip: float | None = 1.0  # largest norm of the whole gradient; None: no clipping
    accumulation: int = 1  # batches whose gradients are averaged into one step
    precision: str = "float32"  # "float32", "bfloat16" or "float16" (with loss scaling) autocast
    compile: bool = False  # pass the model through torch.compile first
    shard: bool = False  # of several processes each keeps a part of weights and optimizer state

    def __post_init__(self) -> None:
        require_whole("max_steps", self.max_steps, 1, MOST_STEPS)
        require_whole("warmup_steps", self.warmup_steps, 0, MOST_STEPS)
        require_whole("accumulation", self.accumulation, 1, MOST_STEPS)
        require_choice("schedule", self.schedule, ("constant", "linear", "cosine"))
        require_choice("precision", self.precision, ("float32", "bfloat16", "float16"))
        require_number("final_fraction", self.final_fraction, 0.0, 1.0)
        require_number("decay_fraction", self.decay_fraction, 0.0, 1.0)
        if self.grad_clip is not None:  # None: no clipping
            require_number("grad_clip", self.grad_clip, SMALLEST_RATE, 1e12)
        require_switch("compile", self.compile)
        require_switch("shard", self.shard)
        require(
            not self.shard or self.precision != "float16" and not self.compile,
            f"shard is True, precision {self.precision!r} and compile {self.compile}; a sharded "
            f"model trains in 'float32' or 'bfloat16' and is not compiled",
        )

    def require_machine(self, device: str, processes: int) -> None:
        """Raise a ValueError where a kind of device ("cpu", "cuda"), or the number of processes,
        cannot do what these settings say."""
        require(self.precision != "float16" or device == "cuda",
                f"precision is 'float16' and the model is on {device}; float16 training needs a "
                f"CUDA GPU: use 'bfloat16' or 'float32'")
        require(not self.shard or processes > 1,
                "shard is True in a single process; expected several: start them with "
                "python -m torch.distributed.run --nproc_per_node=2")

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """The inverse of `to_dict`; an unknown key raises a ValueError that names it."""
        return read_fields(cls, values)

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)
