"""The mixture of experts that chapter 1.1 has the reader count is that of gpt-oss."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from solutions import solution  # noqa: E402


def test_the_solution_counts_what_was_published_for_both_sizes():
    mixture = solution("history.check_mixture")
    # 116.83 and 20.91 billion parameters, 5.13 and 3.61 billion active
    large = mixture(36, 2880, 64, 8, 64, 2880, 128, 4, 201_088)
    small = mixture(24, 2880, 64, 8, 64, 2880, 32, 4, 201_088)
    assert [round(n / 1e9, 2) for n in large + small] == [116.83, 5.13, 20.91, 3.61]
