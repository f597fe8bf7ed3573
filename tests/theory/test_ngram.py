import math
import time
from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib.theory.ngram import SMOOTHINGS, NGram

A, B, C, D = range(4)
ABABAC = [A, B, A, B, A, C]  # a small text; D is in the vocabulary and never occurs
texts = st.lists(st.integers(0, 3), min_size=5, max_size=40)


def naive_kneser_ney(ids, order, vocab_size, discount):
    """The recursion of the textbook over dictionaries, one probability at a time."""
    grams = [tuple(ids[i:i + order]) for i in range(len(ids) - order + 1)]
    counts = {order: Counter(grams)}
    for n in range(1, order):
        before = defaultdict(set)
        for i in range(len(ids) - n):
            before[tuple(ids[i + 1:i + 1 + n])].add(ids[i])
        counts[n] = {gram: len(tokens) for gram, tokens in before.items()}

    def probability(token, context):
        if context is None:
            return 1 / vocab_size
        level = counts[len(context) + 1]
        followers = {gram[-1]: c for gram, c in level.items() if gram[:-1] == context}
        lower = probability(token, context[1:] if context else None)
        if not followers:
            return lower
        total = sum(followers.values())
        kept = max(followers.get(token, 0) - discount, 0)
        return (kept + discount * len(followers) * lower) / total

    return probability


def test_counts_are_those_of_the_text():
    model = NGram(3, 4).fit(ABABAC)
    assert model.count().tolist() == [3, 2, 1, 0]
    assert model.count([A]).tolist() == [0, 2, 1, 0]
    assert model.count([B, A]).tolist() == [0, 1, 1, 0]
    assert model.count([A, A]).tolist() == model.count([D, A]).tolist() == [0, 0, 0, 0]


def test_maximum_likelihood_is_the_ratio_of_counts():
    model = NGram(2, 4, "none").fit(ABABAC)
    torch.testing.assert_close(model.probabilities([A]),
                               torch.tensor([0, 2 / 3, 1 / 3, 0], dtype=torch.float64))
    assert model.probabilities([D]).tolist() == [0.25] * 4  # never seen: it knows nothing


def test_add_k_imagines_k_occurrences_of_every_token():
    model = NGram(2, 4, "add-k", k=0.5).fit(ABABAC)
    torch.testing.assert_close(model.probabilities([A]),
                               torch.tensor([0.5, 2.5, 1.5, 0.5], dtype=torch.float64) / 5)


def test_kneser_ney_worked_by_hand():
    model = NGram(2, 4, "kneser-ney", discount=0.5).fit(ABABAC)
    # one token came before each of a, b and c: 1/3 each, half of it given to the uniform 1/4
    shorter = torch.tensor([7, 7, 7, 3], dtype=torch.float64) / 24
    # after a: b twice, c once; half an occurrence off each leaves 1/3 to the shorter context
    expected = torch.tensor([7, 36 + 7, 12 + 7, 3], dtype=torch.float64) / 72
    torch.testing.assert_close(model.probabilities([A]), expected)
    torch.testing.assert_close(model.probabilities([D]), shorter)  # unseen: all of it
    # at the start of a text there is no context to have seen: occurrences 3, 2, 1 of 6
    start = torch.tensor([2.5, 1.5, 0.5, 0], dtype=torch.float64) / 6 + 0.25 / 4
    torch.testing.assert_close(model.probabilities([]), start)


def test_kneser_ney_counts_contexts_not_occurrences():
    # b occurs six times but always after a; c three times, after three different tokens
    ids = [A, B] * 6 + [A, C, D, C, B, C]
    model = NGram(2, 4, discount=0.5).fit(ids)
    assert model.count()[B] > model.count()[C]
    assert model.probabilities([])[B] > model.probabilities([])[C]
    assert NGram(2, 5, discount=0.5).fit(ids).probabilities([4])[C] > \
        NGram(2, 5, discount=0.5).fit(ids).probabilities([4])[B]  # 4 was never seen


@settings(max_examples=30, deadline=None)
@given(texts, st.integers(1, 4), st.lists(st.integers(0, 3), max_size=5))
def test_kneser_ney_equals_the_textbook_recursion(ids, order, context):
    model = NGram(order, 4, discount=0.6).fit(ids)
    context = context[max(0, len(context) - order + 1):]
    probability = naive_kneser_ney(ids, len(context) + 1, 4, 0.6)
    expected = [probability(token, tuple(context)) for token in range(4)]
    assert model.probabilities(context).tolist() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(texts, st.integers(1, 5), st.sampled_from(SMOOTHINGS), st.lists(st.integers(0, 3)))
def test_probabilities_sum_to_one_after_every_context(ids, order, smoothing, context):
    p = NGram(order, 4, smoothing).fit(ids).probabilities(context)
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert (p > 0).all() or smoothing == "none"


@settings(max_examples=30, deadline=None)
@given(texts, st.integers(1, 5), st.sampled_from(SMOOTHINGS), st.integers(1, 7))
def test_as_a_language_model_it_predicts_from_the_tokens_up_to_each_position(ids, order, smoothing,
                                                                           length):
    model = NGram(order, 4, smoothing).fit(ids)
    rows = torch.randint(0, 4, (2, length), generator=torch.manual_seed(0))
    logits = model(rows)
    assert logits.shape == (2, length, 4) and logits.dtype == torch.float32
    for b in range(2):
        for t in range(length):
            expected = model.probabilities(rows[b, : t + 1])
            torch.testing.assert_close(logits[b, t].exp().double(), expected, atol=1e-6, rtol=1e-5)


def test_only_the_last_tokens_of_a_context_count():
    model = NGram(3, 4).fit(ABABAC)
    assert model.probabilities([D, D, B, A]).tolist() == model.probabilities([B, A]).tolist()
    assert model.count([D, D, B, A]).tolist() == model.count([B, A]).tolist()
    assert NGram(1, 4).fit(ABABAC).probabilities([B]).tolist() == \
        NGram(1, 4).fit(ABABAC).probabilities([]).tolist()


def test_discounts_are_estimated_from_what_was_seen_once_and_twice():
    p = NGram(2, 4).fit(ABABAC).probabilities([A])
    # bigrams: ab and ba twice, ac once, so 1 / (1 + 2 * 2); one level down a, b and c each came
    # after one token, none after two: 0.75
    shorter = 0.25 / 3 + 0.75 / 4
    assert p[C].item() == pytest.approx(0.8 / 3 + 2 * 0.2 / 3 * shorter)
    assert p[D].item() == pytest.approx(2 * 0.2 / 3 * 0.75 / 4)


def test_a_longer_context_predicts_better_where_the_text_has_one():
    ids = torch.tensor([A, A, B, B] * 50)  # two tokens before tell the next for certain
    likelihoods = [NGram(order, 4).fit(ids)(ids[None])[0, 2:-1].gather(1, ids[3:, None]).mean()
                   for order in (1, 2, 3)]
    assert likelihoods[0] < likelihoods[1] < likelihoods[2] and likelihoods[2] > -0.05


@settings(max_examples=20, deadline=None)
@given(texts, st.integers(1, 5), st.sampled_from(SMOOTHINGS))
def test_a_variant_equals_a_model_that_counted_the_text_itself(ids, order, smoothing):
    counted = NGram(5, 4, "add-k", k=2).fit(ids)
    fresh = NGram(order, 4, smoothing, k=0.3).fit(ids)
    rows = torch.randint(0, 4, (2, 6), generator=torch.manual_seed(0))
    assert torch.equal(counted.variant(order, smoothing=smoothing, k=0.3)(rows), fresh(rows))
    assert counted.variant().k == 2 and counted.order == 5


def test_large_vocabularies_do_not_overflow():
    ids = torch.randint(0, 100_000, (500,), generator=torch.manual_seed(0))
    model = NGram(5, 100_000, "none").fit(ids)  # 100,000 to the fifth is above 2**63
    assert model.probabilities(ids[10:14])[ids[14]] == 1


def test_counting_a_long_text_takes_about_a_second_for_each_order():
    ids = torch.randint(0, 80, (300_000,), generator=torch.manual_seed(0))
    start = time.process_time()
    NGram(5, 80).fit(ids)
    assert time.process_time() - start < 5  # 1.4 million tokens: about 5 times this


@pytest.mark.parametrize("make, message", [
    (lambda: NGram(0, 4), "order is 0"),
    (lambda: NGram(2, 0), "vocab_size is 0"),
    (lambda: NGram(2, 4, "laplace"), "smoothing is 'laplace'; expected one of none, add-k"),
    (lambda: NGram(2, 4, "add-k", k=0), "k is 0"),
    (lambda: NGram(2, 4, "add-k", k=math.nan), "k is nan"),
    (lambda: NGram(2, 4, "add-k", k=math.inf), "k is inf"),
    (lambda: NGram(2, 4, "add-k", k=1e308), "k is 1e[+]308"),  # four of them are infinite
    (lambda: NGram(2, 4, discount=1.0), "discount is 1.0"),
    (lambda: NGram(3, 4).fit([0, 1]), "at least 3 tokens"),
    (lambda: NGram(2, 4).fit([0, 4, 1]), "id 4 is outside the vocabulary of 4 tokens"),
    (lambda: NGram(2, 4).fit([0, -1, 1]), "id -1 is outside"),
    (lambda: NGram(2, 4).fit([0.5, 1.0]), "expected whole numbers"),
    (lambda: NGram(2, 4).fit(torch.zeros(2, 3, dtype=torch.long)), "expected one text"),
    (lambda: NGram(2, 4).probabilities([0]), "call fit"),
    (lambda: NGram(2, 4).fit(ABABAC)(torch.tensor([[0, 9]])), "id 9 is outside"),
    (lambda: NGram(2, 4).fit(ABABAC).variant(3), "order is 3; expected at most 2"),
    (lambda: NGram(2, 4).variant(1).probabilities([0]), "call fit"),
    (lambda: NGram(2, 4).fit(ABABAC)(torch.tensor([0, 1])), r"expected \(B, T\)"),
])
def test_mistakes_are_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fitting_again_forgets_the_first_text():
    model = NGram(2, 4).fit([D] * 9).fit(ABABAC)
    assert model.count().tolist() == [3, 2, 1, 0]
    assert model.probabilities([A])[D] < 0.1
