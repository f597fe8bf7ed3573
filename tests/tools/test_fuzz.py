"""The counts of the fuzz tests are those that hypothesis reports."""

import fuzz

REPORT = """..                                                                       [100%]
============================ Hypothesis Statistics =============================
tests/text/test_fuzz_tokenizers.py::test_one:

  - during generate phase (13.80 seconds):
    - Typical runtimes: ~ 13-56 ms, of which ~ 0-11 ms in data generation
    - 300 passing, 0 failing, and 34 invalid test cases
    - Events:
      * 87.13%, refused
      * 2.69%, other content, all of it

  - Stopped because settings.max_examples=300


tests/text/test_fuzz_tokenizers.py::test_two:

  - during generate phase (1.00 seconds):
    - 9 passing, 1 failing, and 0 invalid test cases
    - Found 1 distinct error in this phase
    - Events:
      * 90.00%, refused
"""


def test_each_test_is_found_with_its_examples_and_their_ends():
    assert fuzz.outcomes(REPORT) == [
        ("test_one", 300, {"refused": 291, "other content, all of it": 9}),
        ("test_two", 10, {"refused": 9})]
