import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib.theory.coding import decode, encode
from gptlib.theory.ngram import NGram


def constant(*p):
    return lambda ids: torch.tensor(p, dtype=torch.float64)


def bits(ids, probabilities):
    """Sum of -log2 p, what the model says the text costs."""
    return -sum(math.log2(probabilities(ids[:i])[token]) for i, token in enumerate(ids))


def pseudo_random(seed, size):
    """A model whose probabilities depend on the whole prefix, some of them small."""
    def probabilities(ids):
        generator = torch.manual_seed(hash((seed, *ids)) % 2**31)
        return torch.softmax(2 * torch.randn(size, generator=generator), -1)
    return probabilities


def test_a_code_worked_by_hand():
    # 1 has the upper half, then 0 the lower half of it: [1/2, 3/4) holds 0.10 in binary
    assert encode([1, 0], constant(0.5, 0.5)) == "10"
    # the parts of 0, 1 and 2 are [0, 1/2), [1/2, 3/4) and [3/4, 1)
    model = constant(0.5, 0.25, 0.25)
    assert [encode([token], model) for token in range(3)] == ["0", "10", "11"]


@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(0, 9), st.integers(1, 40))
def test_decoding_gives_back_what_was_encoded_within_a_bit_of_its_cost(data, seed, size):
    ids = data.draw(st.lists(st.integers(0, size - 1), max_size=20))
    model = pseudo_random(seed, size)
    code = encode(ids, model)
    assert decode(code, model, len(ids)) == ids
    assert bits(ids, model) - 0.01 <= len(code) <= bits(ids, model) + 1.01


def test_a_token_of_probability_zero_can_still_be_coded():
    model = constant(1.0, 0.0)
    code = encode([0, 1, 0], model)
    assert decode(code, model, 3) == [0, 1, 0] and 31 <= len(code) <= 33
    assert encode([0] * 50, model) == "0"


def test_an_empty_text_needs_no_bits():
    assert encode([], constant(0.5, 0.5)) == ""
    assert decode("", constant(0.5, 0.5), 0) == []


def test_a_text_of_thousands_of_tokens_survives():
    ids = torch.randint(0, 5, (4000,), generator=torch.manual_seed(0)).tolist()
    model = NGram(2, 5).fit(ids)
    table = torch.stack([model.probabilities([a]) for a in range(5)])

    def probabilities(prefix):
        return table[prefix[-1]] if prefix else torch.full((5,), 0.2)

    code = encode(ids, probabilities)
    assert decode(code, probabilities, len(ids)) == ids
    assert 0 <= len(code) - bits(ids, probabilities) <= 1.01


def test_decoding_with_another_model_gives_another_text():
    ids = [0, 1, 2, 1, 0, 2, 2, 1]
    code = encode(ids, constant(0.2, 0.3, 0.5))
    assert decode(code, constant(0.5, 0.3, 0.2), len(ids)) != ids


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_of_16_bits_are_codes_too(dtype):
    table = (4 * torch.randn(6, 500)).softmax(-1).to(dtype)
    assert ((table.double().sum(-1) - 1).abs() > 1e-4).any()  # rounded, they do not sum to 1
    ids = [3, 499, 0, 17, 250, 3]
    code = encode(ids, lambda prefix: table[len(prefix)])
    assert decode(code, lambda prefix: table[len(prefix)], len(ids)) == ids


def test_what_cannot_be_coded_is_refused():
    with pytest.raises(ValueError, match="id 2 is outside the model's 2 tokens"):
        encode([0, 2], constant(0.5, 0.5))
    with pytest.raises(ValueError, match="sum to 1.2"):
        encode([0], constant(0.6, 0.6))
    with pytest.raises(ValueError, match="expected only 0 and 1"):
        decode("0120", constant(0.5, 0.5), 2)
