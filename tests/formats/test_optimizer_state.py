"""The optimizer's state in a checkpoint: it fits the optimizer that goes on, or is refused."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptlib.formats.checkpoint import resume, save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.training import optim
from gptlib.training.optim import AdamW, Muon, parameter_groups

CONFIG = GPTConfig.modern(13, 8, n_layer=1, n_head=2, n_embd=16)
IDS = torch.arange(16).view(2, 8) % 13


def small_gpt(seed=0):
    torch.manual_seed(seed)
    return GPT(CONFIG)


def steps(model, optimizer, count):
    for _ in range(count):
        optimizer.zero_grad()
        model(IDS).logsumexp(-1).sum().backward()
        optimizer.step()


def adamw(model):
    return AdamW(parameter_groups(model))


def muon(model):
    return Muon(parameter_groups(model, muon=True))


@pytest.fixture
def run(tmp_path):
    model = small_gpt()
    optimizer = adamw(model)
    steps(model, optimizer, 2)
    save_checkpoint(tmp_path, model, step=2, optimizer=optimizer)
    return tmp_path


BUILDERS = {
    "SGD": lambda p: optim.SGD(p), "Momentum": lambda p: optim.Momentum(p),
    "RMSProp": lambda p: optim.RMSProp(p), "Adam": lambda p: optim.Adam(p),
    "torch SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "torch momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "torch AdamW": lambda p: torch.optim.AdamW(p, amsgrad=True),
    "torch RMSprop": lambda p: torch.optim.RMSprop(p, momentum=0.5),
    "torch Adagrad": lambda p: torch.optim.Adagrad(p),
    "torch NAdam": lambda p: torch.optim.NAdam(p),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_every_optimizer_goes_on_bit_for_bit(tmp_path, build):
    model = small_gpt()
    optimizer = build(model.parameters())
    steps(model, optimizer, 2)
    save_checkpoint(tmp_path, model, step=2, optimizer=optimizer)
    steps(model, optimizer, 2)
    other = small_gpt(seed=1)
    optimizer = build(other.parameters())
    assert resume(tmp_path, other, optimizer) == 2
    steps(other, optimizer, 2)
    for p, q in zip(model.parameters(), other.parameters()):
        assert torch.equal(p, q)


def test_parameters_that_never_had_a_gradient_have_no_state(tmp_path):
    model = small_gpt()
    optimizer = adamw(model)
    model.embedding.weight.requires_grad_(False)
    steps(model, optimizer, 1)
    save_checkpoint(tmp_path, model, optimizer=optimizer)
    other = small_gpt(seed=1)
    resumed = adamw(other)
    resume(tmp_path, other, resumed)
    assert len(resumed.state) == len(list(other.parameters())) - 1


def test_a_changed_learning_rate_comes_back_with_the_rate_it_started_from(tmp_path):
    model = small_gpt()
    optimizer = muon(model)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * 0.25
    save_checkpoint(tmp_path, model, optimizer=optimizer)
    resumed = muon(model)
    resume(tmp_path, model, resumed)
    assert [g["lr"] for g in resumed.param_groups] == [g["lr"] for g in optimizer.param_groups]
    assert [g["betas"] for g in resumed.param_groups] == [(0.9, 0.95)] * 3  # a tuple again


def test_a_compiled_model_goes_on(run):
    model = small_gpt(seed=1)
    assert resume(run, torch.compile(model), adamw(model)) == 2


@pytest.mark.parametrize("options, message", [
    ({"betas": (0.9, 0.999)}, r"betas is \[0.9, 0.95\]; the optimizer has .0.9, 0.999"),
    ({"eps": 1e-6}, "eps is 1e-08; the optimizer has 1e-06"),
    ({"lr": 1e-3}, "initial_lr is 0.003; the optimizer has 0.001"),
])
def test_an_optimizer_with_other_settings_is_told_which(run, options, message):
    model = small_gpt()
    with pytest.raises(ValueError, match=rf"training\.json: optimizer\.groups\[0\]\.{message}"):
        resume(run, model, AdamW(parameter_groups(model), **options))


def first_group(**changes):
    def change(saved):
        saved["groups"][0] |= changes
    return change


def without(*keys):
    def change(saved):
        for key in keys[:-1]:
            saved = saved[key]
        del saved[keys[-1]]
    return change


def setting(value, *keys):
    def change(saved):
        for key in keys[:-1]:
            saved = saved[key]
        saved[keys[-1]] = value
    return change


@pytest.mark.parametrize("change, message", [
    (setting(3, "class"), "class is 3; expected a string"),
    (setting("Adam", "class"), "holds the state of 'Adam'; got AdamW"),
    (without("class"), "class is missing"),
    (without("groups"), "groups is missing"),
    (without("numbers"), "numbers is missing"),
    (setting(1, "version"), "version is 1; expected no key"),
    (setting([], "groups"), r"groups have \[\] parameters; the optimizer has"),
    (setting([1, 2], "groups"), r"groups\[0\] is 1; expected an object"),
    (first_group(lr=-1), r"groups\[0\].lr is -1; expected a number of at least 0"),
    (first_group(lr="fast"), r"groups\[0\].lr is 'fast'; expected a number"),
    (first_group(initial_lr=1), r"groups\[0\].initial_lr is 1; the optimizer has 0.003"),
    (first_group(weight_decay=True), r"weight_decay is True; the optimizer has 0.1"),
    (first_group(betas=0.9), r"betas is 0.9; the optimizer has \(0.9, 0.95\)"),
    (first_group(momentum=0.9), r"groups\[0\].momentum is 0.9; expected no key"),
    (first_group(params=[0, 0, 1, 2, 3, 4]), r"groups\[0\].params is .*; the optimizer has"),
    (without("groups", 0, "eps"), r"groups\[0\].eps is None; the optimizer has 1e-08"),
    (setting("4", "numbers", "0", "step"), "numbers.0.step is '4'; expected a whole number"),
    (setting(-4, "numbers", "0", "step"), "numbers.0.step is -4; expected a whole number of"),
    (setting(10**400, "numbers", "0", "step"), "numbers.0.step is 1000.*at most"),
    (without("numbers", "0", "step"), "numbers.0.step is missing"),
    (without("numbers", "0"), "state.0.mean is .*; the optimizer keeps no such tensor"),
    (setting({}, "numbers", "77"), "numbers.77 is {}; expected no key"),
    (setting(5, "numbers", "0", "velocity"), "numbers.0.velocity is 5; expected no key"),
    (setting([], "numbers", "0"), r"numbers.0 is \[\]; expected an object"),
])
def test_a_wrong_setting_is_named_and_nothing_changes(run, change, message):
    training = json.loads((run / "training.json").read_text())
    change(training["optimizer"])
    (run / "training.json").write_text(json.dumps(training))
    refused(run, message)


def tensors_with(**changes):
    return lambda tensors: tensors | changes


def tensors_without(name):
    return lambda tensors: {key: tensors[key] for key in tensors if key != name}


def with_a_bit_that_means_nothing(state):
    state = state.clone()
    state[29] ^= 1  # the state's numbers have 32 bits and are kept in 64
    return state


@pytest.mark.parametrize("change, message", [
    (tensors_with(**{"state.0.mean": torch.ones(3)}), r"state.0.mean is .*3.*\(13, 16\)"),
    (tensors_with(**{"state.0.mean": torch.ones(13, 16).double()}), "state.0.mean is .*F64"),
    (tensors_with(**{"state.0.more": torch.ones(3)}), "state.0.more is .*keeps no such tensor"),
    (tensors_with(**{"state.99.mean": torch.ones(3)}), "state.99.mean is .*keeps no such tensor"),
    (tensors_with(notes=torch.ones(3)), "notes is .*keeps no such tensor"),
    (tensors_with(**{"state.0.mean": torch.full((13, 16), float("nan"))}),
     "state.0.mean holds numbers that are not finite"),
    (tensors_without("state.1.square"), "state.1.square is missing; the optimizer keeps"),
    (tensors_without("random.cpu"), "random.cpu is missing; expected the state of the random"),
    (tensors_with(**{"random.cpu": torch.ones(7, dtype=torch.uint8)}),
     "random.cpu is no state of this PyTorch's generator"),
    (tensors_with(**{"random.cpu": torch.ones(5056)}), "it holds random.cpu.*F32"),
    (tensors_with(**{"random.cpu": torch.full((5056,), 255, dtype=torch.uint8)}),
     "random.cpu is no state of this PyTorch's generator"),
    (lambda tensors: tensors | {"random.cpu": with_a_bit_that_means_nothing(tensors["random.cpu"])},
     "random.cpu is no state of this PyTorch's generator .it leaves some bytes out"),
    (tensors_with(**{"random.tpu": torch.ones(7, dtype=torch.uint8)}), "it holds random.tpu"),
])
def test_a_wrong_tensor_is_named_and_nothing_changes(run, change, message):
    file = run / "optimizer.safetensors"
    save_file(change(load_file(file)), file)
    refused(run, rf"optimizer\.safetensors: {message}")


def refused(run, message):
    model = small_gpt(seed=1)
    optimizer = adamw(model)
    steps(model, optimizer, 1)
    before = copy.deepcopy([model.state_dict(), optimizer.state_dict()])
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        resume(run, model, optimizer)
    for (name, value), old in zip(model.state_dict().items(), before[0].values()):
        assert torch.equal(value, old), name
    assert str(optimizer.state_dict()) == str(before[1])
    assert torch.equal(torch.get_rng_state(), random)


def test_the_random_state_of_a_device_that_is_not_here_is_left_alone(run):
    file = run / "optimizer.safetensors"
    save_file(load_file(file) | {"random.cuda.7": torch.zeros(16, dtype=torch.uint8)}, file)
    model = small_gpt(seed=1)
    assert resume(run, model, adamw(model)) == 2


def test_an_optimizer_that_could_not_be_read_again_is_not_saved(tmp_path):
    model = small_gpt()
    optimizer = torch.optim.ASGD(model.parameters())
    steps(model, optimizer, 1)
    with pytest.raises(ValueError, match="a ASGD cannot be stored"):
        save_checkpoint(tmp_path, model, optimizer=optimizer)
    optimizer = adamw(model)
    steps(model, optimizer, 1)
    optimizer.state[model.embedding.weight]["mean"] = torch.ones(2)
    with pytest.raises(ValueError, match=r"state.0.mean is .*\(2,\).*; the optimizer keeps"):
        save_checkpoint(tmp_path, model, optimizer=optimizer)
    optimizer.state[model.embedding.weight]["mean"] = torch.full((13, 16), float("inf"))
    with pytest.raises(ValueError, match="state.0.mean holds numbers that are not finite"):
        save_checkpoint(tmp_path, model, optimizer=optimizer)
    assert not list(tmp_path.iterdir())
