"""The state of an optimizer and of the random generators, for a checkpoint and back.

Settings and counts go into training.json, tensors into optimizer.safetensors under the names
state.<parameter>.<name>, random.cpu and random.cuda.<device>. What is read is compared with the
optimizer that is to go on, before anything is restored.
"""

import copy
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptlib.files import (
    Fields,
    TensorInfo,
    broken,
    read_header,
    read_tensors,
    shown,
    tensor_info,
)
from gptlib.formats.shapes import require_finite

_SCHEDULED = ("lr", "initial_lr")  # the rate that a schedule changes, and the one it started from


def pack_optimizer(optimizer: torch.optim.Optimizer,
                   file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and counts for JSON; tensors, with the random states, for the safetensors `file`.

    Raises ValueError for a state that `unpack_optimizer` would refuse.
    """
    saved = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, values in saved["state"].items():
        numbers[str(index)] = {}
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"state.{index}.{name}"] = value
            else:
                numbers[str(index)][name] = value
    found = {name: tensor_info(tensor) for name, tensor in tensors.items()}
    _check_state(Fields(file, numbers), found, optimizer, file)
    tensors["random.cpu"] = torch.get_rng_state()
    for i in range(torch.cuda.device_count()):
        tensors[f"random.cuda.{i}"] = torch.cuda.get_rng_state(i)
    settings = {"class": type(optimizer).__name__, "groups": saved["param_groups"],
                "numbers": numbers}
    return settings, tensors


def unpack_optimizer(saved: Fields, file: Path, optimizer: torch.optim.Optimizer
                     ) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `optimizer.load_state_dict` takes, and the random states by their names.

    `saved` holds the settings, `file` the tensors. They must fit `optimizer`: its class, its
    groups and their settings (except for the learning rate, which a schedule changes), and for
    each parameter the names, types and shapes of what this optimizer keeps. Raises ValueError.
    """
    name, got = saved.read("class", str), type(optimizer).__name__
    if name != got:
        raise broken(saved.file, f"it holds the state of {shown(name)}; got {got}",
                     "build the optimizer of the saved run")
    groups = _groups(saved, optimizer)
    numbers = saved.object("numbers")
    saved.finish()
    header = read_header(file)
    _check_state(numbers, {name: info for name, info in header.items()
                           if not name.startswith("random.")}, optimizer, file)
    tensors = read_tensors(file)
    require_finite(file, tensors)
    state = {int(index): dict(values) for index, values in numbers.values.items()}
    for name in [name for name in tensors if name.startswith("state.")]:
        _, index, key = name.split(".", 2)
        state[int(index)][key] = tensors.pop(name)
    _check_random(file, tensors)
    return {"state": state, "param_groups": groups}, tensors


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Put back the random states that `unpack_optimizer` returned, of the devices there are."""
    torch.set_rng_state(states["random.cpu"])
    for i in range(torch.cuda.device_count()):
        if f"random.cuda.{i}" in states:
            torch.cuda.set_rng_state(states[f"random.cuda.{i}"], i)


def _groups(saved: Fields, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The saved groups: those of `optimizer` with the saved learning rates."""
    values, own = saved.read("groups", list), optimizer.state_dict()["param_groups"]
    groups = [Fields(saved.file, value, f"{saved.where}groups[{i}].")
              for i, value in enumerate(values)]
    sizes = [len(group.read("params", list)) for group in groups]
    if sizes != [len(group["params"]) for group in own]:
        raise broken(saved.file, f"{saved.where}groups have {shown(sizes)} parameters; the "
                                 f"optimizer has {[len(group['params']) for group in own]}",
                     "build it with the same parameter_groups")
    for group, settings in zip(groups, own):
        rates = {key: group.read(key, float, least=0) for key in _SCHEDULED
                 if key in settings or key in group.values}
        changed = {key: value for key, value in settings.items() if key != "lr"}
        for key, value in changed.items():
            group.ignore(key)
            if key not in group.values or json.dumps(group.values[key]) != json.dumps(value):
                raise broken(saved.file, f"{group.where}{key} is {shown(group.values.get(key))}; "
                                         f"the optimizer has {shown(value)}",
                             "build it as for the saved run")
        group.finish()
        settings.update(rates)  # the rest is equal, and the tuples that JSON lacks are in `own`
    return own


def _check_state(numbers: Fields, found: Mapping[str, TensorInfo],
                 optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Raise a ValueError unless numbers and tensors are what the optimizer keeps: for each
    parameter all of it, or nothing (it never had a gradient)."""
    expected = {}
    for index, kept in enumerate(_kept_after_a_step(optimizer)):
        if str(index) not in numbers.values:
            continue
        counts = numbers.object(str(index))
        for name, value in kept.items():
            if isinstance(value, Tensor):
                expected[f"state.{index}.{name}"] = tensor_info(value)
            else:  # a number of steps
                counts.read(name, int, least=0, most=2**53)
        counts.finish()
    numbers.finish()
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise broken(file, f"{name} is {found.get(name, 'missing')}; the optimizer keeps "
                               f"{expected.get(name, 'no such tensor')}",
                         "build the optimizer of the saved run")


def _kept_after_a_step(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What an optimizer of this class and these settings keeps of each parameter: found by a step
    of its twin on tensors that have shapes and no numbers."""
    twin = copy.copy(optimizer)  # without the hooks
    twin.__dict__ = {**optimizer.__dict__, **twin.__dict__, "state": defaultdict(dict)}
    twin.param_groups = [
        {**group, "params": [torch.empty(p.shape, dtype=p.dtype, device="meta", requires_grad=True)
                             for p in group["params"]]} for group in optimizer.param_groups]
    parameters = [p for group in twin.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    try:
        twin.step()
    except Exception as error:  # it reads numbers, or needs a closure
        raise ValueError(f"a {type(optimizer).__name__} cannot be stored ({error}); expected an "
                         f"optimizer of gptlib.training.optim, or one like them: save without "
                         f"optimizer") from error
    return [twin.state.get(parameter, {}) for parameter in parameters]


def _check_random(file: Path, tensors: Mapping[str, Tensor]) -> None:
    if "random.cpu" not in tensors:
        raise broken(file, "random.cpu is missing; expected the state of the random generator")
    for name, tensor in tensors.items():
        found = re.fullmatch(r"random\.(?:cpu|cuda\.([0-9]+))", name)
        if found is None or tensor.dtype != torch.uint8 or tensor.dim() != 1:
            raise broken(file, f"it holds {name}, {tensor_info(tensor)}; expected the bytes of "
                               f"random states, random.cpu and random.cuda.<device>")
        number = int(found[1] or 0)
        if number < torch.cuda.device_count() or found[1] is None:
            generator = torch.Generator("cpu" if found[1] is None else f"cuda:{number}")
            try:
                generator.set_state(tensor)
                why = "it leaves some bytes out" if not generator.get_state().equal(tensor) else ""
            except RuntimeError as error:
                why = str(error)
            if why:
                raise broken(file, f"{name} is no state of this PyTorch's generator ({why})")
