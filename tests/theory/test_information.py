import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gptlib.theory.information import (
    bits_per_byte,
    conditional_entropy,
    cross_entropy,
    entropy,
    joint_entropy,
    kl_divergence,
    mutual_information,
    perplexity,
)

ONE_ARGUMENT = (entropy, joint_entropy, conditional_entropy, mutual_information)


def distributions(*shape):
    """Float64 distributions of this shape, some outcomes impossible."""
    weights = arrays(float, shape, elements=st.sampled_from([0.0, 0.01, 0.3, 1.0, 7.0]))
    return weights.filter(lambda w: w.sum() > 0).map(lambda w: torch.from_numpy(w / w.sum()))


def test_entropy_of_known_distributions_in_bits():
    assert entropy(torch.tensor([0.5, 0.5])).item() == 1
    assert entropy(torch.tensor([1.0, 0.0])).item() == 0
    assert entropy(torch.full((8,), 1 / 8)).item() == pytest.approx(3)
    assert entropy(torch.tensor([0.5, 0.25, 0.125, 0.125])).item() == pytest.approx(1.75)


def test_base_e_gives_nats():
    p = torch.tensor([0.5, 0.5])
    assert entropy(p, base=math.e).item() == pytest.approx(math.log(2))


def test_leading_dimensions_are_kept():
    p = torch.softmax(torch.randn(2, 3, 5, generator=torch.manual_seed(0)), -1)
    assert entropy(p).shape == (2, 3)
    torch.testing.assert_close(entropy(p)[1, 2], entropy(p[1, 2]))
    joint = torch.softmax(torch.randn(4, 6), -1).reshape(4, 2, 3)
    assert mutual_information(joint).shape == conditional_entropy(joint).shape == (4,)
    torch.testing.assert_close(mutual_information(joint)[1], mutual_information(joint[1]))


@given(distributions(6), distributions(6))
def test_entropy_and_divergence_equal_scipy(p, q):
    assert entropy(p).item() == pytest.approx(scipy.stats.entropy(p, base=2), abs=1e-9)
    expected = scipy.stats.entropy(p, q, base=2)
    assert kl_divergence(p, q).item() == pytest.approx(expected, abs=1e-9)


@given(distributions(6), distributions(6))
def test_divergence_is_never_negative_and_cross_entropy_never_below_entropy(p, q):
    assert kl_divergence(p, q).item() >= -1e-12
    assert kl_divergence(p, p).item() == 0
    assert cross_entropy(p, q).item() >= entropy(p).item() - 1e-12
    torch.testing.assert_close(cross_entropy(p, p), entropy(p))


def test_a_possible_outcome_that_q_rules_out_costs_infinitely_many_bits():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    assert cross_entropy(p, q).item() == kl_divergence(p, q).item() == math.inf
    assert kl_divergence(q, p).item() == 1  # the other way round nothing is ruled out


def test_a_joint_distribution_worked_by_hand():
    # X is a fair coin; Y copies heads and is fair after tails
    joint = torch.tensor([[0.5, 0.0], [0.25, 0.25]])
    assert joint_entropy(joint).item() == pytest.approx(1.5)
    assert conditional_entropy(joint).item() == pytest.approx(0.5)
    h_y = -0.75 * math.log2(0.75) - 0.25 * math.log2(0.25)
    assert mutual_information(joint).item() == pytest.approx(h_y - 0.5)
    assert conditional_entropy(joint.T).item() == pytest.approx(1.5 - h_y)


@given(distributions(3, 4))
def test_chain_rule(joint):
    torch.testing.assert_close(joint_entropy(joint),
                               entropy(joint.sum(-1)) + conditional_entropy(joint))
    # the same from the rows: the entropy of Y given each x, weighted by p(x)
    p_x = joint.sum(-1)
    rows = joint / p_x.clamp(min=1e-300)[:, None]
    by_rows = sum(p * entropy(row) for p, row in zip(p_x, rows) if p > 0)
    torch.testing.assert_close(conditional_entropy(joint), by_rows, atol=1e-12, rtol=1e-9)


@given(distributions(3, 4))
def test_mutual_information_is_symmetric_and_at_most_the_smaller_entropy(joint):
    shared = mutual_information(joint).item()
    h_x, h_y = entropy(joint.sum(-1)).item(), entropy(joint.sum(-2)).item()
    assert -1e-12 <= shared <= min(h_x, h_y) + 1e-12
    assert shared == pytest.approx(mutual_information(joint.T).item(), abs=1e-12)
    assert shared == pytest.approx(h_y - conditional_entropy(joint).item(), abs=1e-12)


@settings(max_examples=20)
@given(distributions(3), distributions(4))
def test_independent_variables_share_nothing(p, q):
    assert mutual_information(p[:, None] * q).item() == pytest.approx(0, abs=1e-12)


def test_perplexity_of_a_uniform_choice_is_the_number_of_choices():
    assert perplexity(math.log(80)) == pytest.approx(80)
    losses = torch.tensor([0.0, math.log(2)])
    torch.testing.assert_close(perplexity(losses), torch.tensor([1.0, 2.0]))


def test_perplexity_beyond_the_largest_float_is_infinite_as_torch_says():
    for nats in (1000.0, 710.0, 1e308, math.inf):
        assert perplexity(nats) == math.inf
        assert perplexity(torch.tensor(nats)).item() == math.inf
    assert perplexity(709.0) == pytest.approx(8.2184e307)
    assert math.isnan(perplexity(math.nan))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_perplexity_beyond_float16_comes_from_a_loss_of_16_bits(dtype):
    assert perplexity(torch.tensor(12.0, dtype=dtype)).item() == pytest.approx(math.exp(12))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distributions_of_16_bits_are_accepted_and_summed_in_float32(dtype):
    p, q = (4 * torch.randn(2, 8, 60, 50)).flatten(2).softmax(-1).to(dtype).view(2, 8, 60, 50)
    measures = [lambda p, q: entropy(p.flatten(1)), lambda p, q: joint_entropy(p),
                lambda p, q: cross_entropy(p.flatten(1), q.flatten(1)),
                lambda p, q: kl_divergence(p.flatten(1), q.flatten(1)),
                lambda p, q: conditional_entropy(p), lambda p, q: mutual_information(p)]
    wide = [x.double() / x.double().sum((-2, -1), keepdim=True) for x in (p, q)]
    for measure in measures:
        torch.testing.assert_close(measure(p, q).double(), measure(*wide), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="sums to 1.0[12]"):
        entropy(torch.tensor([0.5, 0.52], dtype=dtype))


def test_bits_per_byte_of_a_uniform_byte_is_eight():
    assert bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8)
    with pytest.raises(ValueError, match="num_bytes is 0"):
        bits_per_byte(1.0, 0)


@pytest.mark.parametrize("measure", ONE_ARGUMENT)
@pytest.mark.parametrize("bad, message", [
    ([[-0.5, 1.5]], "-0.5"),
    ([[0.5, 0.4]], "sums to 0.9"),
    ([[0.5, 0.5002]], "sums to 1.0002"),
    ([[float("nan"), 1.0]], "nan"),
])
def test_what_is_not_a_distribution_is_refused(measure, bad, message):
    with pytest.raises(ValueError, match=message):
        measure(torch.tensor(bad))


def test_both_arguments_are_checked():
    good, bad = torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.6])
    for measure in (cross_entropy, kl_divergence):
        with pytest.raises(ValueError, match="q sums to 1.1"):
            measure(good, bad)
        with pytest.raises(ValueError, match="p sums to 1.1"):
            measure(bad, good)


def test_shapes_that_differ_and_missing_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\).*\(1, 2\)"):
        cross_entropy(torch.tensor([0.5, 0.5]), torch.tensor([[0.5, 0.5]]))
    with pytest.raises(ValueError, match=r"expected \(..., X, Y\)"):
        mutual_information(torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="as floats"):
        entropy(torch.tensor([1, 0]))
    with pytest.raises(ValueError, match=r"shape \(\)"):
        entropy(torch.tensor(1.0))


def test_a_sum_within_the_tolerance_is_accepted():
    assert entropy(torch.tensor([0.5, 0.50005])).item() == pytest.approx(1, abs=1e-3)
