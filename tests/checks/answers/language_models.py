"""Answers to the exercises of chapter 2.1: right ones written otherwise, and wrong ones."""

import torch
from torch import nn
from torch.nn import functional


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


def with_pairs_of_strings(ids, vocab_size):
    pairs = {(int(a), int(b)) for a, b in zip(ids, ids[1:])}
    return [sum(b == token for _, b in pairs) / len(pairs) for token in range(vocab_size)]


def without_own(ids, vocab_size):
    pairs = {(int(a), int(b)) for a, b in zip(ids, ids[1:]) if a != b}
    return [sum(b == token for _, b in pairs) / len(pairs) for token in range(vocab_size)]


def windows_in_lists(ids, n, pad):
    return [[[int(row[i]) if i >= 0 else pad for i in range(t - n + 1, t + 1)]
             for t in range(len(row))] for row in ids]


def windows_by_cutting(ids, n, pad):
    """Right as long as a window is not longer than the text."""
    rows = functional.pad(ids, (n - 1, 0), value=pad)
    return torch.stack([rows[:, i:i + ids.shape[1]] for i in range(n)], dim=-1)


def at_the_last_position_only(first, second, weight):
    def model(ids):
        return mix(first, second, weight)(ids)[:, -1:].expand(-1, ids.shape[1], -1)
    return model


def for_one_row(first, second, weight):
    return lambda ids: mix(first, second, weight)(ids[:1]).expand(*ids.shape, -1)


class InFloat(Recurrent):
    """Builds a float32 tensor of its own, which a float64 model cannot use."""

    def forward(self, ids):
        states, _ = self.cell(self.embed(ids), torch.zeros(1, len(ids), 64))
        return self.head(states)


class Attending(nn.Module):
    """One head of attention with a table of 64 places."""

    def __init__(self, vocab_size, causal=True):
        super().__init__()
        self.embed, self.place = nn.Embedding(vocab_size, 32), nn.Embedding(64, 32)
        self.qkv, self.head = nn.Linear(32, 96), nn.Linear(32, vocab_size)
        self.causal = causal

    def forward(self, ids):
        x = self.embed(ids) + self.place(torch.arange(ids.shape[1]))
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.head(x + functional.scaled_dot_product_attention(q, k, v,
                                                                     is_causal=self.causal))


class Dropping(Recurrent):
    def forward(self, ids):
        return functional.dropout(super().forward(ids), 0.5)


class Kernel(nn.Module):
    """A convolution over 33 places; the padding on both sides is cut on the left."""

    def __init__(self, vocab_size, size=256):
        super().__init__()
        self.embed = nn.Embedding(size, 16)
        self.conv = nn.Conv1d(16, 64, 33, padding=32)
        self.head = nn.Linear(64, size)

    def forward(self, ids):
        x = self.conv(self.embed(ids).transpose(1, 2))[..., :ids.shape[1]]
        return self.head(x.transpose(1, 2).relu())


OTHERWISE = [
    ("check_continuation", with_pairs_of_strings),
    ("check_continuation", lambda i, v: continuation(i, v).double().numpy()),
    ("check_windows", windows_in_lists),
    ("check_windows", windows_by_cutting),
    ("check_windows", lambda i, n, p: windows(i, n, p).numpy()),
    ("check_mix", mix_by(lambda a, b, w: 7 + torch.logaddexp(
        a.log_softmax(-1) + torch.tensor(w).log(),
        b.log_softmax(-1) + torch.tensor(1 - w).log()))),
    ("check_mix", mix_by(lambda a, b, w: torch.lerp(b.softmax(-1), a.softmax(-1), w).log())),
    ("check_far_sighted", Wide),
    ("check_far_sighted", Recurrent),
    ("check_far_sighted", InFloat),
    ("check_far_sighted", lambda v: Kernel(v, v)),
    ("check_far_sighted", Attending),
]

MISTAKES = [
    ("check_continuation", lambda i, v: continuation(i, v) * 8, "these are counts"),
    ("check_continuation", lambda i, v: i.bincount(minlength=v) / len(i), "share of occurrences"),
    ("check_continuation", every_pair, "you count every pair"),
    ("check_continuation", successors, "what comes after each token"),
    ("check_continuation", first_counts, "no predecessor"),
    ("check_continuation", lambda i, v: torch.full((v,), 1 / v), "the predecessors are"),
    ("check_continuation", lambda i, v: torch.zeros(4), "shape (4,)"),
    ("check_continuation", lambda i, v: {}, "has another form than the task asks for"),
    ("check_windows", lambda i, n, p: i.unfold(1, n, 1), "the first positions are missing"),
    ("check_windows", lambda i, n, p: windows(i, n, p)[:, :, 0], "has shape (2, 4)"),
    ("check_windows", lambda i, n, p: functional.pad(i, (n, 0), value=p).unfold(1, n, 1)[:, :-1],
     "one token too early"),
    ("check_windows", lambda i, n, p: functional.pad(i, (0, n - 1), value=p).unfold(1, n, 1),
     "tokens that come later"),
    ("check_windows", lambda i, n, p: functional.pad(i, (n - 2, 1), value=p).unfold(1, n, 1),
     "tokens that come later"),
    ("check_windows", lambda i, n, p: windows(i, n, p).flip(-1), "newest first"),
    ("check_windows", lambda i, n, p: torch.stack([
        functional.pad(row[max(0, t - n + 1):t + 1], (0, max(0, n - 1 - t)), value=p)
        for row in i for t in range(len(row))]).view(*i.shape, n), "not on the right"),
    ("check_windows", lambda i, n, p: torch.zeros(*i.shape, n).long(), "yours are [[0, 0, 0]"),
    ("check_windows", across_rows, "a text of its own"),
    ("check_windows", lambda i, n, p: windows(i, 3, 0), "`n` or `pad` has no effect"),
    ("check_windows", lambda i, n, p: i.tolist(), "has shape (2, 4)"),
    ("check_windows", lambda i, n, p: [[1], [2, 3]], "has another form than the task asks for"),
    ("check_mix", lambda f, s, w: torch.zeros(1, 3, 4), "return the function"),
    ("check_mix", mix_by(lambda a, b, w: (w * a.softmax(-1) + (1 - w) * b.softmax(-1))[:, -1]),
     "must return logits"),
    ("check_mix", mix_by(lambda a, b, w: w * a + 0 * b + (1 - w) * 0 * a), "there are nans"),
    ("check_mix", mix_by(lambda a, b, w: w * a.softmax(-1) + (1 - w) * b.softmax(-1)),
     "these are probabilities"),
    ("check_mix", lambda f, s, w: mix(s, f, w), "the weight belongs to the first model"),
    ("check_mix", lambda f, s, w: mix(f, s, 0.5), "no effect"),
    ("check_mix", mix_by(lambda a, b, w: (w * a.exp() + (1 - w) * b.exp()).log()),
     "not normalised"),
    ("check_mix", mix_by(lambda a, b, w: w * a + (1 - w) * b), "you mixed logarithms"),
    ("check_mix", lambda f, s, w: mix(f, s, w * 0.9), "yours are"),
    ("check_far_sighted", lambda v: lambda ids: ids, "expected an nn.Module"),
    ("check_far_sighted", lambda v: Wide(v, hidden=512), "at most 100,000"),
    ("check_far_sighted", LastOnly, "expected (B, T, V)"),
    ("check_far_sighted", lambda v: Recurrent(v, batch_first=False),
     "rows of a batch must not mix"),
    ("check_far_sighted", WholeText, "reads the future"),
    ("check_far_sighted", lambda v: Wide(v, shift=1), "reads the future"),
    ("check_far_sighted", Blind, "the newest token has no effect"),
    ("check_far_sighted", lambda v: Wide(v, window=6), "a token 8 places before"),
    ("check_far_sighted", lambda v: Wide(v, window=32), "a token 32 places before"),
    ("check_continuation", lambda i, v: continuation(i, int(i.max()) + 1), "has shape (4,)"),
    ("check_continuation", lambda i, v: functional.pad(continuation(i, 0), (0, 1))[:v],
     "wrong for ([3, 0], 7)"),
    ("check_continuation", lambda i, v: continuation(i, v) * 8 / v, "the predecessors are"),
    ("check_continuation", without_own, "may be its own predecessor"),
    ("check_windows", lambda i, n, p: windows(i, max(n, 2), p), "wrong for"),
    ("check_windows", lambda i, n, p: torch.where(windows(i, n, 0) == 0, p, windows(i, n, 0)),
     "wrong for"),
    ("check_mix", at_the_last_position_only, "each position"),
    ("check_mix", for_one_row, "each position"),
    ("check_mix", mix_by(lambda a, b, w: (w * a.softmax(1) + (1 - w) * b.softmax(1)).log()),
     "along dimension 1, T"),
    ("check_mix", mix_by(lambda a, b, w: (w * a.softmax(0) + (1 - w) * b.softmax(0)).log()),
     "along dimension 0, B"),
    ("check_far_sighted", lambda v: Attending(v, causal=False), "reads the future"),
    ("check_far_sighted", Dropping, "two calls with the same ids"),
    ("check_far_sighted", Kernel, "for vocab_size 40"),
    ("check_far_sighted", lambda v: nn.Embedding(v, v), "a token 1 places before"),
]
