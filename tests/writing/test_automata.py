import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptlib.writing.automata import DEAD, Automaton, utf8_ranges

ATOMS = st.sampled_from(["a", "b", "é", "€", "😀", "[ab]", "[^a]", "[a-é]", ".", r"\d", r"\W", "()",
                         r"\u20ac", r"[^\x00-\u07ff]"])
COUNTS = st.sampled_from(["", "*", "+", "?", "{2}", "{1,}", "{0,2}", "{1,3}"])
ATOM = st.builds("{}{}".format, ATOMS, COUNTS)
PATTERNS = st.recursive(ATOM, lambda inner: st.one_of(
    st.builds("{}{}".format, inner, inner), st.builds("(?:{}|{})".format, inner, inner),
    st.builds("({}){}".format, inner, COUNTS)), max_leaves=5)
TEXTS = st.text(alphabet="abé€😀1 \n", max_size=6)


@settings(max_examples=400, deadline=None)
@given(PATTERNS, st.lists(TEXTS, min_size=1, max_size=8))
@example("(?:a*)*b|", ["", "aab", "b", "a"])
def test_what_an_automaton_accepts_is_what_re_matches(pattern, texts):
    automaton = Automaton.from_pattern(pattern)
    for text in texts:
        expected = re.fullmatch(pattern, text, re.ASCII) is not None
        assert automaton.accepts(text.encode()) == expected, (pattern, text)


@settings(max_examples=100, deadline=None)
@given(PATTERNS, TEXTS)
def test_a_state_is_dead_exactly_where_no_text_goes_on_like_that(pattern, text):
    automaton = Automaton.from_pattern(pattern)
    state = automaton.run(text.encode())
    reached, waiting = {state} - {DEAD}, [state]
    while waiting:
        new = set(automaton.table[waiting.pop()].tolist()) - reached - {DEAD}
        reached |= new
        waiting += new
    assert (state != DEAD) == any(automaton.accepting[s] for s in reached)


@pytest.mark.parametrize("first, last", [(0, 0x10FFFF), (0x41, 0x41), (0x7F, 0x80), (0xE9, 0x20AC),
                                         (0x7FF, 0x10000), (0xE000, 0xFFFF), (0x1F600, 0x1F64F)])
def test_byte_ranges_are_the_encodings_of_the_code_points_and_of_no_others(first, last):
    sequences = list(utf8_ranges(first, last))

    def found(code):
        encoded = chr(code).encode("utf-8", "surrogatepass")
        return sum(len(s) == len(encoded) and all(low <= byte <= high for byte, (low, high)
                                                  in zip(encoded, s)) for s in sequences)

    rng = np.random.default_rng(0)
    edges = [code + d for code in (0, 0x7F, 0x7FF, 0xFFFF, first, last) for d in (-1, 0, 1)]
    for code in [*edges, *rng.integers(0, 0x110000, 300).tolist()]:
        if 0 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            assert found(code) == (first <= code <= last), hex(code)


def test_surrogates_are_in_no_language():
    automaton = Automaton.from_pattern(r".|[\ud800-\udfff]")
    assert not automaton.accepts("\ud83d".encode("utf-8", "surrogatepass"))
    assert automaton.accepts("😀".encode())


def test_the_beginnings_of_a_prefix_accept_any_bytes_behind_it():
    automaton = Automaton.beginning(b"\xc3")
    assert automaton.accepts(b"\xc3") and automaton.accepts(b"\xc3\x00\xff")
    assert not automaton.accepts(b"") and automaton.run(b"\xc4") == DEAD
    assert Automaton.beginning(b"").accepts(b"anything")


def test_a_pattern_that_needs_too_many_states_is_refused():
    with pytest.raises(ValueError, match="more than 20,000 states"):
        Automaton.from_pattern("a{9000}b{9000}c{9000}")
    with pytest.raises(ValueError, match="more than 20,000 states"):
        Automaton.from_pattern("[ab]*a[ab]{15}")  # must remember the last sixteen letters
