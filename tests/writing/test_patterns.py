import re

import pytest

from gptlib.writing.patterns import Characters, Choice, Repeated, Sequential, parse, without


def characters(sign):
    return Characters(((ord(sign), ord(sign)),))


def test_a_pattern_becomes_a_choice_of_sequences_of_repeated_characters():
    a, b = characters("a"), characters("b")
    assert parse("a|bb*") == Choice((a, Sequential((b, Repeated(b, 0, None)))))
    assert parse("(?:ab){2,3}") == Repeated(Sequential((a, b)), 2, 3)
    assert parse("a{4}") == Repeated(a, 4, 4) and parse("a{4,}") == Repeated(a, 4, None)
    assert parse("") == Sequential(())


def test_a_class_holds_ranges_and_its_negation_the_rest_of_all_characters():
    assert parse("[a-c_]") == Characters(((97, 99), (95, 95)))
    assert parse(r"[^\x00-\x7f]") == Characters(((0x80, 0x10FFFF),))
    assert parse("[]-]") == Characters(((93, 93), (45, 45)))
    assert without([(0, 9)], [(3, 4), (9, 20)]) == ((0, 2), (5, 8))


@pytest.mark.parametrize("pattern", [
    "a)", "(a", "[a", "[z-a]", "a**", "a*?", "*a", "a{2,1}", "a{x}", "a{,2}", "(?=a)", "(?P<n>a)",
    "^a", "a$", r"\b", r"(a)\1", "\\", r"\uzz", r"\u12", "a{2"])
def test_what_is_no_pattern_or_not_known_is_refused_with_its_place(pattern):
    with pytest.raises(ValueError, match="at position"):
        parse(pattern)


def test_a_pattern_that_is_nested_without_measure_is_refused():
    with pytest.raises(ValueError, match="nested too deeply"):
        parse("(" * 20_000 + "a" + ")" * 20_000)


def test_what_re_escapes_means_itself():
    for sign in map(chr, range(1, 256)):
        assert parse(re.escape(sign)) == characters(sign)
