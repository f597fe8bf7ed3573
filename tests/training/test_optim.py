"""Our optimizers give the numbers of torch.optim, and Muon's step is nearly orthogonal."""

import copy
import math

import pytest
import torch
from torch import nn

from gptlib.training import optim
from gptlib.training.config import TrainConfig
from gptlib.training.optim import newton_schulz

SHAPES = [(), (5,), (3, 4), (2, 3, 4)]
PAIRS = {
    "SGD": (optim.SGD, torch.optim.SGD, {}, {}),
    "momentum": (optim.Momentum, torch.optim.SGD, {"momentum": 0.8}, {"momentum": 0.8}),
    "RMSProp": (optim.RMSProp, torch.optim.RMSprop, {"decay": 0.9}, {"alpha": 0.9}),
    "Adam": (optim.Adam, torch.optim.Adam, {}, {}),
    "Adam with decay": (optim.Adam, torch.optim.Adam, {"weight_decay": 0.1},
                        {"weight_decay": 0.1}),
    "AdamW": (optim.AdamW, torch.optim.AdamW, {"weight_decay": 0.1, "betas": (0.8, 0.95)},
              {"weight_decay": 0.1, "betas": (0.8, 0.95)}),
}
OURS = {name: pair[::2] for name, pair in PAIRS.items()} | {"Muon": (optim.Muon, {})}


def _parameters(shapes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def _run(parameters, optimizer, steps=range(20)):
    """Steps on a curved loss, with a learning rate that changes from step to step."""
    for step in steps:
        optimizer.zero_grad()
        sum(((p - 1) ** 2 * (i + 1)).sum() + (3 * p).sin().sum()
            for i, p in enumerate(parameters)).backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - step / 40)
        optimizer.step()


@pytest.mark.parametrize("name", PAIRS)
def test_twenty_steps_equal_torch_optim(name):
    ours_class, theirs_class, our_options, their_options = PAIRS[name]
    ours, theirs = _parameters(SHAPES), _parameters(SHAPES)
    start = [p.detach().clone() for p in ours]
    _run(ours, ours_class(ours, lr=0.01, **our_options))
    _run(theirs, theirs_class(theirs, lr=0.01, **their_options))
    for ours_p, theirs_p, before in zip(ours, theirs, start):
        assert not torch.allclose(ours_p, before)
        torch.testing.assert_close(ours_p, theirs_p, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OURS)
def test_a_saved_state_continues_bit_for_bit(name, tmp_path):
    make, options = OURS[name]
    shapes = [(3, 4), (6, 2)]
    whole = _parameters(shapes, dtype=torch.float32)
    _run(whole, make(whole, lr=0.01, **options))
    first = _parameters(shapes, dtype=torch.float32)
    optimizer = make(first, lr=0.01, **options)
    _run(first, optimizer, range(10))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    second = copy.deepcopy(first)
    resumed = make(second, lr=0.5, **options)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.param_groups[0]["initial_lr"] == 0.01
    _run(second, resumed, range(10, 20))
    assert all(torch.equal(a, b) for a, b in zip(whole, second))


def test_a_first_adam_step_moves_every_number_by_the_learning_rate():
    (parameter,) = _parameters([(4,)])
    parameter.grad = torch.tensor([1e-3, -1.0, 50.0, -1e4], dtype=torch.float64)
    before = parameter.detach().clone()
    optim.Adam([parameter], lr=0.01).step()
    expected = torch.tensor([-0.01, 0.01, -0.01, 0.01], dtype=torch.float64)
    torch.testing.assert_close(parameter - before, expected, rtol=1e-4, atol=0)


def test_parameters_without_a_gradient_stay_as_they_are():
    with_gradient, without = _parameters([(2, 2), (2, 2)])
    with_gradient.grad = torch.ones_like(with_gradient)
    before = without.detach().clone()
    optimizer = optim.Muon([with_gradient, without], weight_decay=0.1)
    optimizer.step()
    assert torch.equal(without, before) and without not in optimizer.state


def test_a_closure_is_evaluated_and_its_loss_returned():
    (parameter,) = _parameters([(3,)])
    optimizer = optim.SGD([parameter], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    first, second = optimizer.step(closure), optimizer.step(closure)
    torch.testing.assert_close(second, first * 0.8**2)


@pytest.mark.parametrize("options", [
    {"lr": -0.1}, {"eps": -1.0}, {"weight_decay": -0.1}, {"betas": (0.9, 1.0)},
    {"lr": float("nan")}, {"lr": float("inf")}, {"eps": float("nan")},
    {"weight_decay": float("nan")}, {"betas": (float("nan"), 0.9)}])
def test_impossible_settings_are_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        optim.AdamW(_parameters([(2,)]), **options)


# Muon


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (16, 4), (64, 48)])
def test_the_newton_schulz_step_has_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = newton_schulz(1000 * matrix)
    assert step.shape == matrix.shape
    singular = torch.linalg.svdvals(step)
    relative = torch.linalg.svdvals(matrix / matrix.norm())
    assert relative.min() > 0.002  # the range for which the coefficients promise what follows
    assert singular.min() > 0.68 and singular.max() < 1.21


def test_newton_schulz_applies_its_polynomial_to_the_singular_values():
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(5, 9, generator=generator, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    a, b, c = optim.NEWTON_SCHULZ
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(newton_schulz(matrix), u @ s.diag() @ vh, rtol=1e-6, atol=1e-6)


def test_newton_schulz_agrees_with_torchs_in_bfloat16():
    theirs = torch.optim._muon._zeropower_via_newtonschulz
    for shape in [(32, 32), (96, 32), (32, 128)]:
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        expected = theirs(gradient, optim.NEWTON_SCHULZ, 5, 1e-7).float()
        difference = newton_schulz(gradient) - expected
        assert difference.norm() < 0.05 * expected.norm()


def test_newton_schulz_of_a_zero_gradient_is_zero():
    assert torch.equal(newton_schulz(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_twenty_steps_of_muon_equal_torch_muon_with_the_same_iteration(monkeypatch):
    """torch.optim.Muon iterates in bfloat16: with its iteration replaced, the rest must agree."""
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz",
                        lambda gradient, *_: newton_schulz(gradient))
    shapes = [(3, 4), (8, 2), (5, 5)]
    ours, theirs = _parameters(shapes), _parameters(shapes)
    options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}
    _run(ours, optim.Muon(ours, **options))
    _run(theirs, torch.optim.Muon(theirs, **options))
    for ours_p, theirs_p in zip(ours, theirs):
        torch.testing.assert_close(ours_p, theirs_p, rtol=1e-10, atol=1e-10)


class _Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)])
        self.frozen = nn.Parameter(torch.zeros(4, 4), requires_grad=False)
        self.output = nn.Linear(4, 6)

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.output(x)


def _names(model, groups):
    by_id = {id(p): name for name, p in model.named_parameters()}
    return [sorted(by_id[id(p)] for p in group["params"]) for group in groups]


def test_parameter_groups_decay_matrices_and_not_vectors():
    model = _Small()
    groups = optim.parameter_groups(model, weight_decay=0.2)
    matrices, vectors = sorted(groups, key=lambda group: -group["weight_decay"])
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.2, 0.0)
    assert _names(model, [matrices, vectors]) == [
        ["blocks.0.weight", "blocks.2.weight", "embedding.weight", "output.weight"],
        ["blocks.0.bias", "blocks.1.bias", "blocks.1.weight", "blocks.2.bias", "output.bias"]]


def test_muon_groups_take_the_matrices_of_the_blocks_and_nothing_else():
    model = _Small()
    groups = optim.parameter_groups(model, muon=True)
    muon = [group for group in groups if group["algorithm"] == "muon"]
    assert _names(model, muon) == [["blocks.0.weight", "blocks.2.weight"]]
    everything = [name for names in _names(model, groups) for name in names]
    assert sorted(everything) == sorted(n for n, p in model.named_parameters() if p.requires_grad)


def test_a_tied_matrix_stands_in_one_group_once():
    model = _Small()
    model.output.weight = model.embedding.weight
    everything = [p for group in optim.parameter_groups(model, muon=True) for p in group["params"]]
    assert len(everything) == len({id(p) for p in everything})


def test_muon_gives_the_other_groups_the_step_of_adamw_with_their_own_rate():
    torch.manual_seed(0)
    model = _Small().double()
    twin = copy.deepcopy(model)
    ours = optim.Muon(optim.parameter_groups(model, muon=True), lr=0.05, adamw_lr=0.004)
    rates = {group["algorithm"]: group["initial_lr"] for group in ours.param_groups}
    assert rates == {"muon": 0.05, "adamw": 0.004}
    rest = [p for name, p in twin.named_parameters()
            if p.requires_grad and not (p.ndim == 2 and name.startswith("blocks"))]
    theirs = torch.optim.AdamW([{"params": [p for p in rest if p.ndim == 2], "weight_decay": 0.1},
                                {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0}],
                               lr=0.004, betas=(0.9, 0.95))
    for network, optimizer in ((model, ours), (twin, theirs)):
        network(torch.arange(6)).square().mean().backward()
        optimizer.step()
    moved = dict(model.named_parameters())
    for name, parameter in twin.named_parameters():
        if any(parameter is p for p in rest):
            torch.testing.assert_close(moved[name], parameter)


def test_muon_refuses_vectors_and_unknown_algorithms_and_models_without_blocks():
    with pytest.raises(ValueError, match=r"shape \(3,\).*parameter_groups"):
        optim.Muon(_parameters([(3,)]))
    with pytest.raises(ValueError, match="'shampoo'"):
        optim.Muon([{"params": _parameters([(3, 3)]), "algorithm": "shampoo"}])
    with pytest.raises(ValueError, match="blocks"):
        optim.parameter_groups(nn.Linear(2, 2), muon=True)


# Schedules


def test_a_run_with_warm_up_and_linear_decay_by_hand():
    config = TrainConfig(max_steps=10, warmup_steps=2, schedule="linear", final_fraction=0.2)
    factors = [optim.learning_rate_at(step, config) for step in range(12)]
    assert factors == pytest.approx([1/3, 2/3, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2])


def test_the_cosine_is_half_way_down_in_the_middle_of_its_part():
    config = TrainConfig(max_steps=100, schedule="cosine", decay_fraction=0.4, final_fraction=0.1)
    factors = {step: optim.learning_rate_at(step, config) for step in (0, 60, 70, 80, 100)}
    assert factors == pytest.approx({0: 1, 60: 1, 70: 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2,
                                     80: 0.55, 100: 0.1})


def test_schedules_stay_in_their_range_and_only_fall_after_the_warm_up():
    for schedule in ("constant", "linear", "cosine"):
        for warmup in (0, 3, 20, 50):
            for fraction in (0.0, 0.3, 1.0):
                config = TrainConfig(max_steps=20, warmup_steps=warmup, schedule=schedule,
                                     decay_fraction=fraction)
                factors = [optim.learning_rate_at(step, config) for step in range(30)]
                assert all(0 <= factor <= 1 for factor in factors)
                assert factors[:warmup] == sorted(factors[:warmup])
                assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
                assert warmup >= 20 or factors[warmup] == 1
