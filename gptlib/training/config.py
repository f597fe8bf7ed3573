"""The settings of a training loop, checked when they are made."""

import dataclasses
from typing import Self

from gptlib.model.config import read_fields, require, require_choice, require_count


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
        require_count("max_steps", self.max_steps)
        require_count("warmup_steps", self.warmup_steps, least=0)
        require_count("accumulation", self.accumulation)
        require_choice("schedule", self.schedule, ("constant", "linear", "cosine"))
        require_choice("precision", self.precision, ("float32", "bfloat16", "float16"))
        for name in ("final_fraction", "decay_fraction"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is {value}; expected a fraction between 0 and 1")
        require(
            self.grad_clip is None or self.grad_clip > 0,
            f"grad_clip is {self.grad_clip}; expected a positive norm, or None for no clipping",
        )
        require(
            not self.shard or self.precision != "float16" and not self.compile,
            f"shard is True, precision {self.precision!r} and compile {self.compile}; a sharded "
            f"model trains in 'float32' or 'bfloat16' and is not compiled",
        )

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """The inverse of `to_dict`; an unknown key raises a ValueError that names it."""
        return read_fields(cls, values)

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)
