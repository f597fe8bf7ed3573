"""The training loop, as a generator: `for step in train(model, batches, optimizer, config):`."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor
from torch.nn import functional

from gptlib.runtime import device_of, mode, rank, whole
from gptlib.text.datasets import IGNORED
from gptlib.training.config import TrainConfig, require_whole
from gptlib.training.optim import learning_rate_at


@dataclass(frozen=True)
class Step:
    """What one optimizer step did."""

    step: int  # steps taken so far, this one included
    loss: float  # nats per item (token, or what the loss counts), on its batch, before the update
    learning_rate: float  # of the first parameter group
    grad_norm: float  # length of the whole gradient, before clipping
    tokens_per_second: float  # items of the step over its time, in all processes together


class Loss(Protocol):
    """What `train` lowers: the mean over the items of a step, such as tokens or pairs of answers.

    A batch is (x, ...): the model reads x, and the loss reads the tensors that follow. All have
    as many rows as x, because processes share out rows; items must not lie across two shares.
    """

    def count(self, *targets: Tensor) -> int:
        """The number of items in a whole batch, from what follows x in it."""

    def total(self, output: Tensor, *targets: Tensor) -> Tensor:
        """The sum of their losses in nats (scalar), from what the model made of x."""


class NextToken:
    """The loss of a language model: cross-entropy of each target that is not IGNORED."""

    def count(self, targets: Tensor) -> int:
        """Tokens of targets (B, T) that are predicted."""
        return int((targets != IGNORED).sum())

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of their losses in nats, for logits (B, T, V)."""
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(),
                                        ignore_index=IGNORED, reduction="sum")


NEXT_TOKEN = NextToken()


def next_token_loss(logits: Tensor, targets: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """Mean cross-entropy in nats of logits (B, T, V) for targets (B, T), as a scalar tensor.

    Positions whose target is `ignore_index` do not count.
    """
    if logits.dim() != 3 or logits.shape[:2] != targets.shape:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and targets {tuple(targets.shape)}; "
            f"expected (B, T, V) and (B, T): pass the whole output of the model and the batch's y"
        )
    # cross_entropy wants the classes in dimension 1, so every position becomes a row of its own
    return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(),
                                    ignore_index=ignore_index)


def train(model: torch.nn.Module, batches: Iterable[tuple[Tensor, ...]],
          optimizer: torch.optim.Optimizer, config: TrainConfig,
          start: int = 0, loss: Loss = NEXT_TOKEN) -> Iterator[Step]:
    """Train `model` and yield a `Step` after each of the steps start + 1 ... config.max_steps.

    `batches` yields (x, y), each (B, T), or what another `loss` reads; a step takes
    `config.accumulation` of them. To go on after step k, pass start=k and batches that begin at
    number k * config.accumulation.

    Where torch.distributed is initialised, give every process the same batches: each takes its
    share of the rows, and gradients are summed, so n processes do what one would do. With
    `config.shard` each also keeps only its part of the weights, gradients and optimizer state
    (from here on, in `model` and `optimizer`); then all must evaluate and save together.

    A loss or a gradient that is not finite raises FloatingPointError and leaves the weights as
    they were. However the loop ends, the model gets back its mode (train or eval).
    """
    require_whole("start", start, 0, config.max_steps)
    forward, scaler = _prepare(model, optimizer, config)
    batches = iter(batches)
    with mode(model, training=True):
        for number in range(start, config.max_steps):
            began = time.perf_counter()
            model.train()  # in case the loop's body left it in eval mode
            rate = _set_learning_rate(optimizer, learning_rate_at(number, config))
            micro_batches = _take(batches, config.accumulation, number, config.max_steps)

            optimizer.zero_grad()
            with _own_randomness(number, device_of(model)):
                mean, count = accumulate_gradients(forward, micro_batches, config.precision,
                                                   scaler, loss)
            _check_finite("loss", mean, number + 1, rate, optimizer)

            scaler.unscale_(optimizer)
            norm = clip_gradients(model, config.grad_clip)
            if not scaler.is_enabled():  # the scaler itself skips steps whose gradient overflows
                _check_finite("gradient", norm, number + 1, rate, optimizer)
            scaler.step(optimizer)
            scaler.update()
            yield Step(number + 1, mean, rate, norm, count / (time.perf_counter() - began))


def accumulate_gradients(model: Callable[[Tensor], Tensor],
                         micro_batches: list[tuple[Tensor, ...]], precision: str = "float32",
                         scaler: torch.amp.GradScaler | None = None,
                         loss: Loss = NEXT_TOKEN) -> tuple[float, int]:
    """Add to `.grad` the gradient of the mean loss over all tokens of several batches.

    Each batch's loss is a sum over its tokens divided by the number of tokens of **all** batches.
    (The mean of the batches' means would weigh a token more where fewer are predicted.)
    Returns the mean loss in nats and the number of tokens; or of other items, see `Loss`.
    """
    device = device_of(model)
    own, processes = rank()
    count = sum(loss.count(*targets) for _, *targets in micro_batches)
    if count == 0:
        raise ValueError("every target of the batch is ignored; expected at least one to predict")
    total = torch.zeros((), device=device)
    for batch in micro_batches:
        if len(batch[0]) % processes:
            raise ValueError(f"a batch has {len(batch[0])} rows for {processes} processes; "
                             f"expected a multiple: change batch_size")
        x, *targets = (tensor[own::processes].to(device) for tensor in batch)
        with torch.autocast(device.type, _DTYPES[precision], enabled=precision != "float32"):
            logits = model(x)
        part = loss.total(logits, *targets) / count
        (scaler.scale(part) if scaler else part).backward()
        total += part.detach()
    if processes > 1:
        gradients = [] if _is_sharded(model) else [  # those of shards are summed in `backward`
            p.grad for p in model.parameters() if p.grad is not None]
        for tensor in [total, *gradients]:
            distributed.all_reduce(tensor)  # a sum: every share is already divided by them all
    return total.item(), count


def clip_gradients(model: torch.nn.Module, largest: float | None) -> float:
    """Shrink the gradient of all parameters together to the norm `largest` if it is longer.

    Returns the norm before. None only measures. (Pascanu, Mikolov and Bengio, 2013.)
    """
    limit = math.inf if largest is None else largest
    return whole(torch.nn.utils.clip_grad_norm_(model.parameters(), limit)).item()


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _take(batches: Iterator, count: int, number: int, steps: int) -> list:
    taken = []
    for _ in range(count):
        batch = next(batches, None)
        if batch is None:
            raise ValueError(f"the batches ended at step {number + 1} of {steps}; expected an "
                             f"endless iterator, such as gptlib.text.datasets.batches, or fewer "
                             f"max_steps")
        taken.append(batch)
    return taken


def _prepare(model: torch.nn.Module, optimizer: torch.optim.Optimizer,
             config: TrainConfig) -> tuple[Callable[[Tensor], Tensor], torch.amp.GradScaler]:
    device = device_of(model).type
    config.require_machine(device, rank()[1])
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    if rank()[1] > 1 and not _is_sharded(model):
        for tensor in (*model.parameters(), *model.buffers()):
            distributed.broadcast(tensor.detach(), src=0)  # all start from the first one's weights
        if config.shard:
            _shard(model, optimizer)
            device = device_of(model).type
    scaler = torch.amp.GradScaler(device, enabled=config.precision == "float16")
    return torch.compile(model) if config.compile else model, scaler


def _set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return optimizer.param_groups[0]["lr"]


def _check_finite(name: str, value: float, step: int, rate: float,
                  optimizer: torch.optim.Optimizer) -> None:
    if not math.isfinite(value):
        optimizer.zero_grad()
        raise FloatingPointError(
            f"the {name} is {value} at step {step} with learning rate {rate:.3g}; the weights "
            f"are those of step {step - 1}: lower the learning rate, lengthen the warm-up or "
            f"clip the gradient"
        )


@contextlib.contextmanager
def _own_randomness(number: int, device: torch.device) -> Iterator[None]:
    """Of several processes each drops other activations, chosen by (seed, step, process).

    The state outside does not move, so that the one that a checkpoint keeps is right for all.
    """
    own, processes = rank()
    if processes == 1:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        mixed = np.random.SeedSequence((torch.initial_seed(), number, own))
        torch.manual_seed(int(mixed.generate_state(1)[0]))
        yield


def _is_sharded(model: torch.nn.Module) -> bool:
    return any(hasattr(p, "full_tensor") for p in model.parameters())


def _shard(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Split every weight by rows over the processes, and its optimizer state alike (FSDP2).

    A block's weights are gathered for the moment in which it computes. (Zhao et al., 2023.)
    """
    if type(optimizer).__name__ == "Muon":  # on rows alone it would be wrong, without an error
        raise ValueError("shard is True and the optimizer is Muon, which needs whole matrices; "
                         "expected one that treats each number alone, such as AdamW")
    from torch.distributed.fsdp import fully_shard  # takes a second to import
    from torch.distributed.tensor import distribute_tensor

    kind = "cuda" if "nccl" in distributed.get_backend_config() else "cpu"
    mesh = distributed.init_device_mesh(kind, (rank()[1],))
    before = dict(model.named_parameters())
    for module in (*getattr(model, "blocks", ()), model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        module.set_gradient_divide_factor(1.0)  # a sum, not the mean over the processes
        module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    shards = {before[name]: shard for name, shard in model.named_parameters()}
    for group in optimizer.param_groups:
        group["params"] = [shards.get(p, p) for p in group["params"]]
    for old, new in shards.items():
        state = optimizer.state.pop(old, None)
        if state:
            optimizer.state[new] = {
                key: distribute_tensor(value, mesh, new.placements, src_data_rank=None)
                if isinstance(value, Tensor) and value.shape == new.shape else value
                for key, value in state.items()}
