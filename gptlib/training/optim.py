"""Optimizers with every step written out, groups of parameters, and learning-rate schedules.

Each optimizer is a subclass of `torch.optim.Optimizer`, so `zero_grad`, `state_dict` and
PyTorch's own schedulers work with it, and each gives the numbers of its namesake in `torch.optim`
(the tests compare them step by step). Write g for the gradient and p for the parameter.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gptlib.training.config import TrainConfig

# Coefficients of Jordan et al. (2024): five steps bring every singular value between 0.002 and 1
# to between 0.68 and 1.21, quickly, instead of slowly to exactly 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Optimizer(torch.optim.Optimizer):
    """The loop that all optimizers share; a subclass says what happens to one tensor.

    Each group keeps `initial_lr`, the rate that it was made with, which schedules multiply.
    Raises ValueError for a negative learning rate or decay, and for an averaging factor outside
    [0, 1).
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; what is missing comes from the defaults."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("initial_lr", group["lr"])
        for name in ("lr", "weight_decay", "eps"):
            value = group.get(name, 0.0)
            if not 0 <= value < math.inf:  # written so that nan fails, too
                raise ValueError(f"{name} is {value}; expected zero or a positive number")
        for name in ("momentum", "decay", "betas"):
            values = group.get(name, 0.0)
            for value in values if isinstance(values, tuple) else (values,):
                if not 0 <= value < 1:
                    raise ValueError(f"{name} is {values}; expected 0 <= {name} < 1, since it "
                                     "is the share of the old average that is kept")

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient; `closure`, if given, computes the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, self.state[parameter], group)
        return loss

    def update(self, parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
        """Change `parameter` in place; `state` is this tensor's memory, empty at first."""
        raise NotImplementedError


class SGD(Optimizer):
    """Gradient descent: p <- p - lr g."""

    def __init__(self, params: Iterable, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def update(self, parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
        """One step along the negative gradient."""
        parameter.sub_(gradient * group["lr"])


class Momentum(Optimizer):
    """Gradient descent with a velocity (Polyak, 1964): v <- momentum v + g; p <- p - lr v."""

    def __init__(self, params: Iterable, lr: float = 0.1, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    def update(self, parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
        """Add the gradient to the velocity, then move along the velocity."""
        velocity = _memory(state, "velocity", parameter)
        velocity.mul_(group["momentum"]).add_(gradient)
        parameter.sub_(velocity * group["lr"])


class RMSProp(Optimizer):
    """Each number's step is divided by the root mean square of its recent gradients (Hinton, 2012).

    s <- decay s + (1 - decay) g^2;  p <- p - lr g / (sqrt(s) + eps). `decay` is PyTorch's `alpha`.
    """

    def __init__(self, params: Iterable, lr: float = 0.01, decay: float = 0.99,
                 eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "eps": eps})

    def update(self, parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
        """Update the mean square, then divide by its root."""
        square = _memory(state, "square", parameter)
        square.lerp_(gradient.square(), 1 - group["decay"])
        parameter.sub_(group["lr"] * gradient / (square.sqrt() + group["eps"]))


class Adam(Optimizer):
    """Momentum and RMSProp together, with bias correction (Kingma and Ba, 2015).

    `weight_decay` is added to the gradient (w p), so that the division shrinks it as well:
    AdamW exists because of that.
    """

    def __init__(self, params: Iterable, lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def update(self, parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
        """One step of Adam on the gradient with the decay added."""
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        _adam_step(parameter, gradient, state, group)


class AdamW(Adam):
    """Adam whose weight decay acts on the parameter itself (Loshchilov and Hutter, 2019).

    p <- p (1 - lr weight_decay), then Adam's step. The defaults are those of this book's small
    models: a second beta of 0.95 forgets old gradients in some 20 steps instead of 1,000.
    """

    def __init__(self, params: Iterable, lr: float = 3e-3,
                 betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
                 weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(self, parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
        """Shrink the parameter, then one step of Adam."""
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        _adam_step(parameter, gradient, state, group)


class Muon(Optimizer):
    """Momentum whose step is replaced by (nearly) the closest orthogonal matrix.

    Jordan et al. (2024). All directions of a weight matrix then move about equally far. It is
    made for the matrices inside a network: `parameter_groups(model, muon=True)` marks the others
    "adamw", and they get AdamW's step here, with the rate `adamw_lr`. Momentum (Nesterov's form)
    and the scaling by sqrt(max(1, rows / columns)) follow `torch.optim.Muon`, which iterates in
    bfloat16, while here the iteration runs in the parameter's own precision. Queries, keys and
    values stand in one matrix, and so does their step; Jordan advises three. Measured on five
    seeds, 2 layers of 96 and 400 steps at the best rate of both, three won by 0.016 nats a
    character (95 % interval 0.009 to 0.023).
    """

    def __init__(self, params: Iterable, lr: float = 0.02, momentum: float = 0.95,
                 weight_decay: float = 0.0, adamw_lr: float = 3e-3,
                 betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8) -> None:
        self.adamw_lr = adamw_lr
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay,
                    "betas": betas, "eps": eps, "algorithm": "muon"}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; a group's "algorithm" is "muon" (2-D matrices only) or "adamw"."""
        if param_group.get("algorithm") == "adamw":
            param_group.setdefault("lr", self.adamw_lr)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["algorithm"] not in ("muon", "adamw"):
            raise ValueError(f'algorithm is {group["algorithm"]!r}; expected "muon" or "adamw"')
        shapes = [tuple(p.shape) for p in group["params"] if p.ndim != 2]
        if group["algorithm"] == "muon" and shapes:
            raise ValueError(f"Muon got a parameter of shape {shapes[0]}; expected matrices: use "
                             "parameter_groups(model, muon=True), which gives the rest to AdamW")

    def update(self, parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
        """One step of Muon or of AdamW, as the group says."""
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        if group["algorithm"] == "adamw":
            _adam_step(parameter, gradient, state, group)
            return
        momentum = group["momentum"]
        velocity = _memory(state, "velocity", parameter)
        velocity.lerp_(gradient, 1 - momentum)
        step = newton_schulz(gradient.lerp(velocity, momentum))
        rows, columns = parameter.shape
        parameter.sub_(step * (group["lr"] * math.sqrt(max(1, rows / columns))))


def newton_schulz(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix with the singular vectors of `matrix` (2-D) and singular values near 1.

    The iteration X <- a X + b (X X^T) X + c (X X^T)^2 X sends every singular value s to
    a s + b s^3 + c s^5. We apply it to the small square X X^T and collect the factors, so that
    the long side is multiplied twice only: half of the work for a feed-forward layer.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)  # now no singular value exceeds 1, where the iteration would diverge
    square = x @ x.mT
    factor = None
    for step in range(steps):
        polynomial = torch.addmm(square, square, square, beta=b, alpha=c)
        polynomial.diagonal().add_(a)  # a I + b X X^T + c (X X^T)^2
        factor = polynomial if factor is None else polynomial @ factor
        if step + 1 < steps:
            square = polynomial @ square @ polynomial
    x = factor @ x
    return (x.mT if tall else x).to(matrix.dtype)


def parameter_groups(model: nn.Module, *, weight_decay: float = 0.1,
                     muon: bool = False) -> list[dict[str, Any]]:
    """The model's trainable parameters as groups for an optimizer.

    Matrices (embeddings included) get `weight_decay`; vectors (norms, biases) get none. With
    `muon=True` each group also has an "algorithm": "muon" for the matrices inside the module
    list `blocks`, "adamw" for the rest. A tied matrix appears once.
    """
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inside = parameter.ndim == 2 and "blocks" in name.split(".")
            algorithm = "muon" if muon and inside else "adamw"
            decay = weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((algorithm, decay), []).append(parameter)
    if muon and not any(algorithm == "muon" for algorithm, _ in groups):
        raise ValueError("the model has no trainable matrix inside a module named `blocks`; "
                         "expected one for muon=True: use AdamW(parameter_groups(model))")
    extra = [{"algorithm": algorithm} if muon else {} for algorithm, _ in groups]
    return [{"params": parameters, "weight_decay": decay} | more
            for ((_, decay), parameters), more in zip(groups.items(), extra)]


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """The factor in [0, 1] that multiplies each group's `initial_lr` at `step` (the first is 0).

    The factor rises in equal parts, reaches 1 at `warmup_steps`, stays there, and over the last
    `decay_fraction` of the run falls to `final_fraction`, which it has at `max_steps` and keeps.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    start = max(config.warmup_steps, round(config.max_steps * (1 - config.decay_fraction)))
    progress = min(max(step - start, 0) / max(config.max_steps - start, 1), 1.0)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "linear":
        height = 1 - progress
    else:
        height = (1 + math.cos(math.pi * progress)) / 2
    return config.final_fraction + (1 - config.final_fraction) * height


def _memory(state: dict, name: str, parameter: Tensor) -> Tensor:
    """The running average `name` of one parameter: zeros when it is asked for the first time."""
    if name not in state:
        state[name] = torch.zeros_like(parameter)
    return state[name]


def _adam_step(parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
    """Kingma and Ba (2015), algorithm 1."""
    beta1, beta2 = group["betas"]
    t = state["step"] = state.get("step", 0) + 1
    mean = _memory(state, "mean", parameter).lerp_(gradient, 1 - beta1)
    square = _memory(state, "square", parameter)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    # Both averages start at zero and are too small at first; the divisions mend that.
    scale = (square / (1 - beta2**t)).sqrt_().add_(group["eps"])
    parameter.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**t))
