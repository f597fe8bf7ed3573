import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib.writing.sampling import (
    apply_temperature,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    probabilities,
    sample,
)

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0]])  # softmax: 0.644, 0.237, 0.087, 0.032
FILTERS = [{"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.7}, {"min_p": 0.2}, {}]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def kept(logits):
    return (logits > -math.inf).nonzero()[:, -1].tolist()


def test_temperature_zero_is_the_argmax_and_draws_nothing():
    generator = seeded()
    before = generator.get_state()
    logits = torch.randn(5, 9, generator=seeded(1))
    assert torch.equal(sample(logits, temperature=0, generator=generator), logits.argmax(-1))
    assert torch.equal(generator.get_state(), before)


def test_temperature_worked_example():
    """exp(4), exp(2), exp(0) over their sum: 0.867, 0.117, 0.016."""
    p = apply_temperature(torch.tensor([[2.0, 1.0, 0.0]]), 0.5).softmax(-1)
    expected = [math.exp(z) / (math.exp(4) + math.exp(2) + 1) for z in (4, 2, 0)]
    torch.testing.assert_close(p, torch.tensor([expected]))


def test_tiny_temperature_does_not_overflow():
    logits = torch.tensor([[59_000.0, 60_000.0]]).half()
    for temperature in (1e-5, 1e-30, 1e-300):
        assert probabilities(logits, temperature=temperature).tolist() == [[0, 1]]
        assert sample(logits, temperature=temperature).item() == 1


def test_top_k_keeps_exactly_k_on_ties():
    for k in (1, 2, 3, 7):
        assert len(kept(keep_top_k(torch.zeros(1, 7), k))) == k
    assert kept(keep_top_k(LOGITS, 2)) == [0, 1]
    assert keep_top_k(LOGITS, 99).equal(LOGITS)


def test_top_p_keeps_the_token_that_crosses_the_line():
    assert kept(keep_top_p(LOGITS, 0.7)) == [0, 1]  # 0.644 is not enough, 0.881 is
    assert kept(keep_top_p(LOGITS, 0.64)) == [0]
    assert kept(keep_top_p(LOGITS, 0.9)) == [0, 1, 2]


def test_top_p_keeps_at_least_one_token_in_place_of_the_others():
    shuffled = torch.tensor([[0.0, 5.0, 1.0], [3.0, 0.0, 9.0]])
    once = keep_top_p(shuffled, 1e-9)
    assert once.isfinite().nonzero().tolist() == [[0, 1], [1, 2]]
    assert once[0, 1] == 5 and once[1, 2] == 9


def test_top_p_of_a_half_on_two_equal_tokens_keeps_one():
    assert len(kept(keep_top_p(torch.zeros(1, 2), 0.5))) == 1


def test_min_p_keeps_tokens_relative_to_the_likeliest():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    assert kept(keep_min_p(logits, 0.55)) == [0, 1]  # 0.3 / 0.5 = 0.6, 0.2 / 0.5 = 0.4
    assert kept(keep_min_p(logits, 1.0)) == [0]
    assert kept(keep_min_p(logits, 0.0)) == [0, 1, 2]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_once():
    ids = torch.tensor([[0, 3, 0, 0]])
    penalised = penalise_repetition(LOGITS, ids, 2.0)
    torch.testing.assert_close(penalised, torch.tensor([[1.0, 1.0, 0.0, -2.0]]))


def test_no_function_changes_its_input():
    before = LOGITS.clone()
    for options in FILTERS:
        sample(LOGITS, generator=seeded(), **options)
        probabilities(LOGITS, **options)
    penalise_repetition(LOGITS, torch.tensor([[0]]), 1.3)
    assert torch.equal(LOGITS, before)


TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NUMBERS = st.one_of(st.floats(-30, 30), st.sampled_from(
    [-math.inf, -1e308, -3e38, -6e4, -1e-40, 0.0, -0.0, 5e-324, 1e-40, 6e4, 3e38, 1e308]))
OPTIONS = st.fixed_dictionaries({}, optional={
    "temperature": st.one_of(st.floats(0, 5), st.sampled_from(
        [0, 1, 5e-324, 1e-300, 1e-40, 1e-7, 1e7, 1e38, 1e300, 1.7e308, 10**300])),
    "top_k": st.one_of(st.none(), st.integers(1, 20), st.just(10**400)),
    "top_p": st.one_of(st.none(), st.floats(0, 1, exclude_min=True), st.sampled_from(
        [5e-324, 1e-300, 1e-40, 1e-8, 1 - 1e-16, 1])),
    "min_p": st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0, 5e-324, 1e-300, 1])),
})


@st.composite
def rows_of_logits(draw):
    """(B, V) of any float type, each row with at least one token that is not removed."""
    B, V, dtype = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.sampled_from(TYPES))
    rows = draw(st.lists(st.lists(NUMBERS, min_size=V, max_size=V), min_size=B, max_size=B))
    most = torch.finfo(dtype).max
    logits = torch.tensor(rows, dtype=torch.float64).clamp(max=most).to(dtype)
    logits[:, draw(st.integers(0, V - 1))].clamp_(min=-most)
    return logits


@settings(max_examples=200)
@given(rows_of_logits(), OPTIONS, st.integers(0, 9))
def test_whatever_the_options_the_drawn_token_is_one_that_may_be_drawn(logits, options, seed):
    ids = sample(logits, generator=seeded(seed), **options)
    p = probabilities(logits, **options)
    assert ids.shape == (len(logits),) and ids.dtype == torch.int64
    assert (ids >= 0).all() and (ids < logits.shape[1]).all()
    assert (p.gather(1, ids[:, None]) > 0).all()
    assert (logits.gather(1, ids[:, None]) > -math.inf).all()
    torch.testing.assert_close(p.double().sum(-1), torch.ones(len(p), dtype=torch.float64),
                               atol=1e-5, rtol=0)


@settings(max_examples=200)
@given(rows_of_logits(), st.one_of(st.floats(0.01, 100), st.sampled_from(
    [5e-324, 1e-300, 1e-40, 1e40, 1e300, 1.7e308])))
def test_no_penalty_removes_a_token_or_brings_back_a_removed_one(logits, penalty):
    seen = torch.arange(logits.shape[1]).expand(len(logits), -1)
    penalised = penalise_repetition(logits, seen, penalty)
    assert penalised.dtype == logits.dtype and not penalised.isnan().any()
    assert torch.equal(penalised.isinf(), logits.isinf())
    sample(penalised, generator=seeded())


@pytest.mark.parametrize("options", FILTERS)
def test_draws_follow_the_distribution_by_a_chi_square_test(options):
    n = 40_000
    p = probabilities(LOGITS, **options)[0].double()
    drawn = sample(LOGITS.expand(n, -1), generator=seeded(3), **options)
    counts = drawn.bincount(minlength=4).double()
    assert counts[p == 0].sum() == 0
    p, counts = p[p > 0], counts[p > 0]
    statistic = ((counts - n * p) ** 2 / (n * p)).sum().item()
    limit = {1: 0.0, 2: 10.83, 3: 13.82, 4: 16.27}[len(p)]  # 99.9 % quantiles of chi-square
    assert statistic <= limit


def test_probabilities_equal_renormalised_kept_ones():
    p = LOGITS.softmax(-1)
    expected = torch.tensor([[p[0, 0], p[0, 1], 0, 0]]) / (p[0, 0] + p[0, 1])
    torch.testing.assert_close(probabilities(LOGITS, top_k=2), expected)
    torch.testing.assert_close(probabilities(LOGITS, top_p=0.7), expected)
    one_hot = torch.tensor([[1.0, 0, 0, 0]])
    torch.testing.assert_close(probabilities(LOGITS, temperature=0), one_hot)


def test_same_seed_same_draws_and_the_global_state_stays_untouched():
    logits = torch.randn(8, 50, generator=seeded(2))
    before = torch.get_rng_state()
    assert torch.equal(sample(logits, generator=seeded(5)), sample(logits, generator=seeded(5)))
    assert not torch.equal(sample(logits, generator=seeded(5)), sample(logits, generator=seeded()))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_weight_of_zero_is_never_drawn_at_either_end():
    weights = torch.tensor([[0.0, 1e-20, 0.0, 1.0, 0.0]]).expand(20_000, -1)
    assert set(draw(weights, seeded()).tolist()) == {3}
    assert set(draw(weights[:, :3], seeded()).tolist()) == {1}


@pytest.mark.parametrize("random, drawn", [(0.0, 3), (1 - 2**-53, 1), (0.5, 3)])
def test_the_extreme_random_numbers_fall_on_tokens_with_weight(monkeypatch, random, drawn):
    def fixed(*shape, dtype, **options):
        return torch.full(shape, random, dtype=dtype)

    monkeypatch.setattr(torch, "rand", fixed)
    assert draw(torch.tensor([[0.0, 0.4, 0.0, 0.6, 0.0]])).item() == drawn


@pytest.mark.parametrize("weights", [[0.0, 0.0], [math.nan, 1.0], [-1.0, 2.0], [1.0, math.inf]])
def test_weights_that_are_no_probabilities_are_refused_not_drawn_from(weights):
    with pytest.raises(ValueError, match="expected probabilities"):
        draw(torch.tensor([[0.5, 0.5], weights]))


def test_half_precision_logits_are_drawn_in_float32():
    logits = torch.zeros(1, 3000, dtype=torch.bfloat16)
    assert len(set(sample(logits.expand(3000, -1), generator=seeded()).tolist())) > 1500


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_with_nan_or_infinity_are_refused(bad):
    logits = torch.tensor([[0.0, 1.0], [0.0, bad]])
    for temperature in (0, 1):
        with pytest.raises(ValueError, match="nan or \\+inf"):
            sample(logits, temperature=temperature)


def test_a_row_without_any_token_left_is_refused():
    with pytest.raises(ValueError, match="every token has been removed"):
        sample(torch.full((1, 4), -math.inf))


@pytest.mark.parametrize("logits", [torch.zeros(2, 0), torch.zeros(2, 3, dtype=torch.int64)])
def test_logits_that_are_no_floats_or_of_no_token_are_refused(logits):
    with pytest.raises(ValueError, match=r"expected floats \(B, V\)"):
        sample(logits)


def test_logits_of_a_whole_sequence_are_refused_with_the_cure():
    with pytest.raises(ValueError, match="logits\\[:, -1\\]"):
        sample(torch.zeros(1, 5, 4))


NO_NUMBERS = [math.nan, -math.inf, math.inf, -5e-324, -1e300, True, False, "0.5", [0.5], 1j,
              torch.tensor(0.5), 10**400]
BAD = {"top_p": [*NO_NUMBERS, 0.0, 1.1, 1 + 1e-15], "min_p": [*NO_NUMBERS, -0.1, 2.0],
       "top_k": [*NO_NUMBERS[:-1], 0, -1, 1.5, 2.0]}


def short(value):
    """The name of a case: 10**400 has too many digits."""
    return str(value)[:12]


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("name, value", [(name, bad) for name in BAD for bad in BAD[name]],
                         ids=short)
def test_filters_out_of_range_are_refused_by_name(name, value, temperature):
    for function in (sample, probabilities):
        with pytest.raises(ValueError, match=f"{name} is .*expected"):
            function(LOGITS, temperature=temperature, **{name: value})


@pytest.mark.parametrize("temperature", [*NO_NUMBERS, -0.1, None], ids=short)
def test_bad_temperatures_are_refused(temperature):
    for function in (sample, probabilities, apply_temperature):
        with pytest.raises(ValueError, match="temperature is .*expected"):
            function(LOGITS, temperature=temperature)


@pytest.mark.parametrize("penalty", [*NO_NUMBERS, 0.0, -1.0, None], ids=short)
def test_bad_repetition_penalties_are_refused(penalty):
    with pytest.raises(ValueError, match="repetition_penalty"):
        penalise_repetition(LOGITS, torch.tensor([[0]]), penalty)
