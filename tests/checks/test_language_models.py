import re
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn
from torch.nn import functional

from gptlib.checks import language_models as checks

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"


def continuation(ids, vocab_size):
    pairs = torch.stack([ids[:-1], ids[1:]]).unique(dim=1)
    return pairs[1].bincount(minlength=vocab_size) / pairs.shape[1]


def every_pair(ids, vocab_size):
    return ids[1:].bincount(minlength=vocab_size) / (len(ids) - 1)


def successors(ids, vocab_size):
    pairs = torch.stack([ids[:-1], ids[1:]]).unique(dim=1)
    return pairs[0].bincount(minlength=vocab_size) / pairs.shape[1]


def first_counts(ids, vocab_size):
    counts = continuation(ids, vocab_size) * 8
    counts[ids[0]] += 1
    return counts / counts.sum()


def windows(ids, n, pad):
    return functional.pad(ids, (n - 1, 0), value=pad).unfold(1, n, 1)


def across_rows(ids, n, pad):
    return windows(ids.reshape(1, -1), n, pad).view(*ids.shape, n)


def mix(first, second, weight):
    def model(ids):
        p = weight * first(ids).softmax(-1) + (1 - weight) * second(ids).softmax(-1)
        return p.log()
    return model


def mix_by(formula):
    return lambda first, second, weight: lambda ids: formula(first(ids), second(ids), weight)


class Wide(nn.Module):
    """An MLP over a window; `shift` tokens are read beyond the position."""

    def __init__(self, vocab_size, window=33, width=4, shift=0, hidden=64):
        super().__init__()
        self.window, self.shift = window, shift
        self.embed = nn.Embedding(vocab_size, width)
        self.hidden = nn.Linear(window * width, hidden)
        self.head = nn.Linear(hidden, vocab_size)

    def forward(self, ids):
        x = functional.pad(self.embed(ids), (0, 0, self.window - 1 - self.shift, self.shift))
        return self.head(self.hidden(x.unfold(1, self.window, 1).flatten(2)).tanh())


class Recurrent(nn.Module):
    def __init__(self, vocab_size, batch_first=True):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, 16)
        self.cell = nn.RNN(16, 64, batch_first=batch_first)
        self.head = nn.Linear(64, vocab_size)

    def forward(self, ids):
        return self.head(self.cell(self.embed(ids))[0])


class WholeText(Recurrent):
    def forward(self, ids):
        return self.head(self.embed(ids).mean(1, keepdim=True).expand(-1, ids.shape[1], -1)
                         .repeat(1, 1, 4))


class LastOnly(Recurrent):
    def forward(self, ids):
        return super().forward(ids)[:, -1]


class Blind(Recurrent):
    def forward(self, ids):
        return functional.pad(super().forward(ids)[:, :-1], (0, 0, 1, 0))


def far_sighted(vocab_size):
    return Wide(vocab_size)


CASES = [
    ("continuation", lambda i, v: continuation(i, v) * 8, "these are counts"),
    ("continuation", lambda i, v: i.bincount(minlength=v) / len(i), "share of occurrences"),
    ("continuation", every_pair, "you count every pair"),
    ("continuation", successors, "what comes after each token"),
    ("continuation", first_counts, "no predecessor"),
    ("continuation", lambda i, v: torch.full((v,), 1 / v), "the predecessors are"),
    ("continuation", lambda i, v: torch.zeros(4), "shape (4,)"),
    ("continuation", lambda i, v: [0.2] * 5, "expected a tensor, got list"),
    ("windows", lambda i, n, p: i.unfold(1, n, 1), "the first positions are missing"),
    ("windows", lambda i, n, p: windows(i, n, p)[:, :, 0], "has shape (2, 4)"),
    ("windows", lambda i, n, p: functional.pad(i, (n, 0), value=p).unfold(1, n, 1)[:, :-1],
     "one token too early"),
    ("windows", lambda i, n, p: functional.pad(i, (0, n - 1), value=p).unfold(1, n, 1),
     "tokens that come later"),
    ("windows", lambda i, n, p: functional.pad(i, (n - 2, 1), value=p).unfold(1, n, 1),
     "tokens that come later"),
    ("windows", lambda i, n, p: windows(i, n, p).flip(-1), "newest first"),
    ("windows", lambda i, n, p: torch.stack([
        functional.pad(row[max(0, t - n + 1):t + 1], (0, max(0, n - 1 - t)), value=p)
        for row in i for t in range(len(row))]).view(*i.shape, n), "not on the right"),
    ("windows", lambda i, n, p: torch.zeros(*i.shape, n).long(), "yours are [[0, 0, 0]"),
    ("windows", across_rows, "a text of its own"),
    ("windows", lambda i, n, p: windows(i, 3, 0), "`n` or `pad` has no effect"),
    ("windows", lambda i, n, p: i.tolist(), "expected a tensor, got list"),
    ("mix", lambda f, s, w: torch.zeros(1, 3, 4), "return the function"),
    ("mix", mix_by(lambda a, b, w: (w * a.softmax(-1) + (1 - w) * b.softmax(-1))[:, -1]),
     "must return logits"),
    ("mix", mix_by(lambda a, b, w: w * a + 0 * b + (1 - w) * 0 * a), "there are nans"),
    ("mix", mix_by(lambda a, b, w: w * a.softmax(-1) + (1 - w) * b.softmax(-1)),
     "these are probabilities"),
    ("mix", lambda f, s, w: mix(s, f, w), "the weight belongs to the first model"),
    ("mix", lambda f, s, w: mix(f, s, 0.5), "no effect"),
    ("mix", mix_by(lambda a, b, w: (w * a.exp() + (1 - w) * b.exp()).log()), "not normalised"),
    ("mix", mix_by(lambda a, b, w: w * a + (1 - w) * b), "you mixed logarithms"),
    ("mix", lambda f, s, w: mix(f, s, w * 0.9), "yours are"),
    ("far_sighted", lambda v: lambda ids: ids, "expected an nn.Module"),
    ("far_sighted", lambda v: Wide(v, hidden=512), "at most 100,000"),
    ("far_sighted", LastOnly, "expected (B, T, V)"),
    ("far_sighted", lambda v: Recurrent(v, batch_first=False), "rows of a batch must not mix"),
    ("far_sighted", WholeText, "reads the future"),
    ("far_sighted", lambda v: Wide(v, shift=1), "reads the future"),
    ("far_sighted", Blind, "the newest token has no effect"),
    ("far_sighted", lambda v: Wide(v, window=6), "a token 8 places before"),
    ("far_sighted", lambda v: Wide(v, window=32), "a token 32 places before"),
]
SOLUTIONS = ["continuation", "windows", "mix", "far_sighted"]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"


def bands(name):
    """The line "BANDS = ..." of a notebook."""
    code = "\n".join(cell.source for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells)
    return re.findall(r"^BANDS = .*$", code, flags=re.MULTILINE)


def test_chapter_5_3_quotes_the_bands_that_chapter_2_1_asserts():
    assert bands("02_1_language_models") == bands("05_3_training") != []
