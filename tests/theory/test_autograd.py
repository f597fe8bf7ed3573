"""The scalar engine finds the gradients that PyTorch finds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib.theory.autograd import Value

# Each operation on plain numbers, Values and 0-dimensional tensors alike, kept away from the
# places where it has no slope or grows without bound.
BINARY = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b.tanh(),
    "divide": lambda a, b: a / (b * b + 0.5),
    "from constant": lambda a, b: (2.0 - a) * (1.5 / (b ** 2 + 1)),
}
UNARY = {
    "exp": lambda a: a.tanh().exp(),
    "log": lambda a: (a * a + 0.1).log(),
    "tanh": lambda a: a.tanh(),
    "relu": lambda a: a.relu(),
    "cube": lambda a: a.tanh() ** 3,
    "root": lambda a: (a * a + 0.1) ** 0.5,
    "inverse": lambda a: (a * a + 0.5) ** -1,
    "negative": lambda a: -a,
    "squash": lambda a: 0.5 * a.tanh() - 1,
}


@st.composite
def graphs(draw):
    """Leaves, and a program that combines any earlier results: shared parts are the rule."""
    leaves = draw(st.lists(st.floats(-2, 2), min_size=1, max_size=4))
    program = []
    for position in range(len(leaves), len(leaves) + draw(st.integers(1, 12))):
        earlier = st.integers(0, position - 1)
        name = draw(st.sampled_from(sorted(BINARY) + sorted(UNARY)))
        program.append((name, draw(earlier), draw(earlier)))
    return leaves, program


def _evaluate(leaves, program):
    results = list(leaves)
    for name, first, second in program:
        a, b = results[first], results[second]
        results.append(BINARY[name](a, b) if name in BINARY else UNARY[name](a))
    return results[-1].tanh()


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_gradients_of_random_graphs_equal_torchs(graph):
    numbers, program = graph
    ours = [Value(number) for number in numbers]
    theirs = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in numbers]
    our_result, their_result = _evaluate(ours, program), _evaluate(theirs, program)
    assert our_result.data == pytest.approx(their_result.item(), rel=1e-9, abs=1e-12)
    our_result.backward()
    their_result.backward()
    for value, tensor in zip(ours, theirs):
        expected = 0.0 if tensor.grad is None else tensor.grad.item()
        assert value.gradient == pytest.approx(expected, rel=1e-7, abs=1e-10)


def test_a_small_network_gets_torchs_gradients():
    """Two inputs, four tanh units, one linear output, squared error on three points."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    output = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(3, generator=generator, dtype=torch.float64)
    hidden = torch.tanh(x @ weights[:, :2].T + weights[:, 2])
    loss = ((hidden @ output[:4] + output[4] - y) ** 2).mean()
    loss.backward()

    w = [[Value(number) for number in row] for row in weights.tolist()]
    v = [Value(number) for number in output.tolist()]
    errors = []
    for (x1, x2), target in zip(x.tolist(), y.tolist()):
        units = [(row[0] * x1 + row[1] * x2 + row[2]).tanh() for row in w]
        prediction = sum((a * b for a, b in zip(units, v)), v[4])
        errors.append((prediction - target) ** 2)
    our_loss = sum(errors) / 3
    our_loss.backward()
    assert our_loss.data == pytest.approx(loss.item())
    assert [[value.gradient for value in row] for row in w] == [
        pytest.approx(row) for row in weights.grad.tolist()]
    assert [value.gradient for value in v] == pytest.approx(output.grad.tolist())


def test_a_value_used_twice_gets_both_shares():
    a = Value(3.0)
    (a * a + a).backward()
    assert a.gradient == 7.0


def test_a_diamond_is_walked_in_order():
    """d is used by its neighbour and by the result: it may only pass on the complete sum."""
    a = Value(2.0)
    d = a * 3
    e = d * d
    (e * d).backward()  # (3 a)^3, slope 81 a^2
    assert a.gradient == 81 * 4


def test_the_slope_of_relu_at_zero_is_zero_as_in_torch():
    a, tensor = Value(0.0), torch.tensor(0.0, requires_grad=True)
    a.relu().backward()
    tensor.relu().backward()
    assert a.gradient == tensor.grad.item() == 0.0


def test_gradients_add_up_over_calls_as_in_torch():
    a = Value(2.0)
    b = a * a
    b.backward()
    b.backward()
    assert (a.gradient, b.gradient) == (8.0, 2.0)


def test_a_chain_of_ten_thousand_operations_needs_no_deep_recursion():
    start = Value(1.0)
    result = start
    for _ in range(10_000):
        result = result + 0.001
    result.backward()
    assert start.gradient == 1.0 and result.data == pytest.approx(11.0)


def test_numbers_may_stand_on_either_side():
    a = Value(4.0)
    results = [1 + a, 1 - a, 3 * a, 2 / a, a - 1, a / 2, -a]
    assert [value.data for value in results] == [5, -3, 12, 0.5, 3, 2, -4]


@pytest.mark.parametrize("make, message", [
    (lambda: Value("3"), "'3'"),
    (lambda: Value(True), "True"),
    (lambda: Value(torch.ones(2)), "Tensor"),
    (lambda: Value(1.0) + [2], r"\[2\]"),
    (lambda: Value(1.0) / 0, "divisor"),
    (lambda: Value(0.0).log(), r"log\(0.0\)"),
    (lambda: Value(-2.0) ** 0.5, "positive base"),
    (lambda: Value(0.0) ** -1, "positive base"),
    (lambda: Value(2.0) ** Value(3.0), "constant"),
    (lambda: Value(1e3).exp(), "overflows"),
    (lambda: Value(1e200) ** 2, r"1e\+200 \*\* 2 has no finite real value"),
    (lambda: Value(1e-200) ** -2, "less extreme"),
    (lambda: Value(1e-320) ** 0.01, "or slope"),  # 0.0006, but the slope exceeds all floats
    (lambda: Value(2.0) ** "2", "'2'"),
])
def test_mistakes_are_told_with_what_was_got(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_zero_to_the_power_of_zero_is_one_with_slope_zero():
    a = Value(0.0)
    b = a**0
    b.backward()
    assert (b.data, a.gradient) == (1.0, 0.0) and math.isfinite(b.gradient)
