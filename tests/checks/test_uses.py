"""The reviews that the check of chapter 1.2 asks about."""

from gptlib.checks import uses as checks


def test_the_fresh_reviews_are_balanced_and_different_ones():
    reviews = checks.fresh_reviews()
    assert len({text for text, _ in reviews}) == len(reviews) == checks.FRESH
    assert [label for _, label in reviews].count("positive") == checks.FRESH // 2
