"""Answers to the exercises of chapter 6: right ones written otherwise, and wrong ones."""

from collections import Counter

import torch

from gptlib.writing.quality import words


def parts(text, reference):
    ours, theirs = Counter(words(text)), Counter(words(reference))
    shared = sum(min(count, theirs[word]) for word, count in ours.items())
    return shared, sum(ours.values()), sum(theirs.values())


def overlap(text, reference):
    shared, ours, theirs = parts(text, reference)
    if shared == 0:
        return 0
    p, r = shared / ours, shared / theirs
    return torch.tensor(2 * p * r / (p + r))


def of_sets(text, reference):
    ours, theirs = set(words(text)), set(words(reference))
    return 2 * len(ours & theirs) / max(1, len(ours) + len(theirs))


def each_time(text, reference):
    ours, theirs = words(text), words(reference)
    if not ours or not set(ours) & set(theirs):
        return 0
    p = sum(word in theirs for word in ours) / len(ours)
    r = sum(word in ours for word in theirs) / len(theirs)
    return 2 * p * r / (p + r)


def of_split(text, reference):
    ours, theirs = Counter(text.split()), Counter(reference.split())
    return 2 * (ours & theirs).total() / max(1, ours.total() + theirs.total())


def unguarded(text, reference):
    shared, ours, theirs = parts(text, reference)
    p, r = shared / ours, shared / theirs
    return 2 * p * r / (p + r)


def mean(text, reference):
    shared, ours, theirs = parts(text, reference)
    return (shared / max(1, ours) + shared / max(1, theirs)) / 2


def rearrange(ids, start, stop, marks):
    return torch.tensor([marks[0]] + ids[:start] + [marks[1]] + ids[stop:] + [marks[2]]
                        + ids[start:stop])


def in_the_middle(ids, start, stop, marks):
    a, b, c = marks
    return [a, *ids[:start], c, *ids[start:stop], b, *ids[stop:]]


def masked_in_matrices(first, second, language):
    allowed = torch.zeros_like(second)
    for a, b in language:
        allowed[a, b] = 1
    one = first * (allowed.sum(1) > 0)
    two = second * allowed
    table = (one / one.sum())[:, None] * two / two.sum(1, keepdim=True).clamp(min=1e-30)
    return [table[a, b].item() for a, b in language]


def joint(first, second, language):
    return torch.stack([first[a] * second[a, b] for a, b in language])


def first_only(first, second, language):
    starts = list({a for a, _ in language})
    return torch.stack([first[a] / first[starts].sum() * second[a, b] for a, b in language])


def second_only(first, second, language):
    ends = [[d for c, d in language if c == a] for a, _ in language]
    return torch.stack([first[a] * second[a, b] / second[a, following].sum()
                        for (a, b), following in zip(language, ends)])


def first_alone(first, second, language):
    starts = list({a for a, _ in language})
    return torch.stack([first[a] / first[starts].sum() for a, _ in language])


def taken_back(pieces, vocabulary):
    fits = [k for k in range(len(pieces))
            if any(t != (tail := b"".join(pieces[k:])) and t[:len(tail)] == tail
                   for t in vocabulary)]
    return len(pieces) - min(fits) if fits else 0


def from_the_end(pieces, vocabulary, first=False, longer=True):
    """Counts up while it works, or until it does."""
    for count in range(1, len(pieces) + 1):
        tail = b"".join(pieces[-count:])
        works = any(t.startswith(tail) and (len(t) > len(tail) or not longer) for t in vocabulary)
        if works and first:
            return count
        if not works and not first:
            return count - 1
    return 0 if first else len(pieces)


def or_equal(pieces, vocabulary):
    return max((k for k in range(1, len(pieces) + 1)
                if any(t.startswith(b"".join(pieces[-k:])) for t in vocabulary)), default=0)


def inside(pieces, vocabulary):
    return max((k for k in range(1, len(pieces) + 1)
                if any(b"".join(pieces[-k:]) in t and len(t) > len(b"".join(pieces[-k:]))
                       for t in vocabulary)), default=0)


def not_all(pieces, vocabulary):
    return taken_back(pieces[1:], vocabulary)


OTHERWISE = [
    ("check_overlap", overlap),
    ("check_overlap", lambda t, r: 2 * parts(t, r)[0] / max(1, sum(parts(t, r)[1:]))),
    ("check_rearrange", rearrange),
    ("check_rearrange", lambda i, a, b, m: tuple(rearrange(i, a, b, m).tolist())),
    ("check_masked", masked_in_matrices),
    ("check_taken_back", taken_back),
    ("check_taken_back", lambda p, v: torch.tensor(taken_back(p, v))),
]

MISTAKES = [
    ("check_overlap", lambda t, r: parts(t, r)[0] / max(1, parts(t, r)[1]), "the precision alone"),
    ("check_overlap", lambda t, r: parts(t, r)[0] / max(1, parts(t, r)[2]), "the recall alone"),
    ("check_overlap", mean, "the harmonic one"),
    ("check_overlap", of_sets, "in both texts"),
    ("check_overlap", each_time, "in both texts"),
    ("check_overlap", of_split, "use `words`"),
    ("check_overlap", unguarded, "ZeroDivisionError"),
    ("check_overlap", lambda t, r: parts(t, r)[0], "overlap in all words"),
    ("check_rearrange", lambda i, a, b, m: i[:a] + i[b:] + i[a:b], "the marks are missing"),
    ("check_rearrange", in_the_middle, "still stands in the middle"),
    ("check_rearrange", lambda i, a, b, m: [m[1], *i[b:], m[0], *i[:a], m[2], *i[a:b]],
     "the beginning comes first"),
    ("check_rearrange", lambda i, a, b, m: [m[0], *i[:a], m[1], *i[b:], m[2]],
     "the hole is missing"),
    ("check_rearrange", lambda i, a, b, m: rearrange(i, a, b - 1, m), "first place behind"),
    ("check_rearrange", lambda i, a, b, m: 3, "expected a list of ids"),
    ("check_masked", joint, "without a mask"),
    ("check_masked", lambda f, s, w: joint(f, s, w) / joint(f, s, w).sum(), "over whole texts"),
    ("check_masked", first_only, "the second step has a mask"),
    ("check_masked", second_only, "at the first step, too"),
    ("check_masked", first_alone, "wrong for"),
    ("check_masked", lambda f, s, w: masked_in_matrices(f, s, w)[:1], "one number for each text"),
    ("check_taken_back", lambda p, v: 0, "may end inside a token"),
    ("check_taken_back", from_the_end, "do not stop at the first that fails"),
    ("check_taken_back", or_equal, "nothing is taken back"),
    ("check_taken_back", lambda p, v: from_the_end(p, v, first=True), "at the first that works"),
    ("check_taken_back", inside, "nothing is taken back"),
    ("check_taken_back", not_all, "all pieces of a prompt"),
    ("check_taken_back", lambda p, v: len(p), "nothing is taken back"),
]
