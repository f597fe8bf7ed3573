"""Answers to the exercises of chapter 8.3.2: right ones written otherwise, and wrong ones."""

import math
from collections import Counter


def by_index(claims):
    broken = 0
    for i, (role, name) in enumerate(claims):
        mine = [n for r, n in claims[:i] if r == role]
        firsts = {r: n for r, n in reversed(claims[:i])}
        broken += mine[0] != name if mine else name in firsts.values()
    return broken


def names(against="first", taken=True, any_name=False):
    def answer(claims):
        known, said, broken = {}, set(), 0
        for role, name in claims:
            if role not in known:
                broken += taken and name in (said if any_name else known.values())
                known[role] = name
            else:
                broken += known[role] != name
                if against == "last":
                    known[role] = name
            said.add(name)
        return broken
    return answer


def changes(claims):
    counts = Counter()
    for role, name in claims:
        counts[role, name] += 1
    return len(counts) - len({role for role, _ in counts})


OTHERWISE = [
    ("check_names_broken", by_index),
    ("check_draws", lambda draws: math.log(math.prod(math.perm(n, k) for n, k in draws))),
    ("check_draws", lambda draws: sum(math.lgamma(n + 1) - math.lgamma(n - k + 1)
                                      for n, k in draws)),
]

MISTAKES = [
    ("check_names_broken", lambda claims: 0, "that is a contradiction"),
    ("check_names_broken", lambda claims: len(claims), "keeps one name has no contradiction"),
    ("check_names_broken", names(taken=False), "two roles have one name"),
    ("check_names_broken", names(against="last"), "the return to the first name"),
    ("check_names_broken", changes, "two roles have one name"),
    ("check_names_broken", names(any_name=True), "belongs to nobody yet"),
    ("check_draws", lambda draws: sum(k * math.log2(n) for n, k in draws), "these are bits"),
    ("check_draws", lambda draws: math.log(sum(n * k for n, k in draws)), "add up"),
    ("check_draws", lambda draws: math.prod(n ** k for n, k in draws), "take its logarithm"),
    ("check_draws", lambda draws: sum(k * math.log(n) for n, k in draws), "put the first thing"),
    ("check_draws", lambda draws: sum(math.log(math.comb(n, k)) for n, k in draws), "sets"),
]
