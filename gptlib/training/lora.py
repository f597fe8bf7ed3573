"""LoRA: train a small change beside frozen matrices (Hu et al., 2021, arXiv:2106.09685).

A matrix W (out, in) of a trained model stays as it is, and what is learned is the product of two
thin ones beside it: y = W x + (alpha / rank) B A x, with A (rank, in) and B (out, rank). B starts
at zero, so the first step begins at the trained model. Training, saving and generating go on as
with any model: `train`, an optimizer over the parameters that ask for gradients, `generate`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# the matrices of a block; embedding and output layer stay out, as in the paper
TARGETS = ("qkv", "output", "up", "gate", "down")


class LoRALinear(nn.Module):
    """A frozen linear layer with a trained change of low rank beside it."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        make = {"device": base.weight.device, "dtype": torch.float32}
        self.A = nn.Parameter(torch.empty(rank, base.in_features, **make))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank, **make))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear starts
        self._kept: Tensor | None = None  # W, while the change is merged into the layer

    @property
    def weight(self) -> Tensor:
        """W as it stands in the layer: with the change where it is merged."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        """The layer's own bias: LoRA does not change it."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """x (.., in) to (.., out)."""
        y = self.base(x)
        if self.merged:
            return y
        return y + self.scale * F.linear(F.linear(x, self.A), self.B)

    @property
    def merged(self) -> bool:
        """Whether the change stands in W."""
        return self._kept is not None

    @torch.no_grad()
    def merge(self) -> None:
        """Add the change to W: the layer is as fast as without LoRA. W itself is kept aside."""
        if not self.merged:
            self._kept = self.base.weight.data
            self.base.weight.data = self._kept + self.scale * (self.B @ self.A).to(self._kept)

    def unmerge(self) -> None:
        """Put W back, bit for bit: it was kept, because taking B A off again would round."""
        if self.merged:
            self.base.weight.data, self._kept = self._kept, None


def add_lora(model: nn.Module, rank: int = 8, alpha: float | None = None,
             targets: Sequence[str] = TARGETS) -> list[str]:
    """Freeze `model` and put LoRA beside the linear layers named in `targets`; returns their names.

    `alpha` is twice the rank unless given. Names are the last parts of module names; at least one
    layer must have one of them. Raises ValueError otherwise, and where LoRA is there already.
    """
    if not (type(rank) is int and rank > 0):
        raise ValueError(f"rank is {rank!r}; expected a whole number, 1 or more")
    if lora_layers(model):
        raise ValueError("the model has LoRA layers already; expected one without")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in linear if name.rpartition(".")[2] in targets]
    if not chosen:
        raise ValueError(f"no linear layer is named {', '.join(targets)}; the model has "
                         f"{', '.join(sorted({name.rpartition('.')[2] for name in linear}))}")
    model.requires_grad_(False)
    for name in chosen:
        parent, _, child = name.rpartition(".")
        layer = model.get_submodule(name)
        setattr(model.get_submodule(parent), child,
                LoRALinear(layer, rank, 2.0 * rank if alpha is None else alpha))
    return chosen


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The LoRA layers of a model by name."""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, LoRALinear)}


def merge(model: nn.Module) -> None:
    """Merge every change into its matrix, see `LoRALinear.merge`."""
    for layer in lora_layers(model).values():
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Put every matrix back as it was before `merge`."""
    for layer in lora_layers(model).values():
        layer.unmerge()


def remove_lora(model: nn.Module) -> None:
    """Make plain linear layers of the LoRA layers, with their changes where they are merged."""
    for name, layer in lora_layers(model).items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.base)
