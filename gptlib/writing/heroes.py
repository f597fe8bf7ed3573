"""Whom a tale is about, and whether it is still about that one at its end: a heuristic, measured.

It reads words only: who is introduced, which names and nouns come again. tools/case1.py counts its
hits and false alarms on tales of the made world, on the same with the hero exchanged in the last
third, on true stories, and on halves of two stories put together.
"""

import re
from collections import Counter
from dataclasses import dataclass

_NAMED = re.compile(r"\b(?:named|called|name (?:was|is)) (?:the )?([A-Z]\w+(?: [A-Z]\w+)*)")
_FIRST_SEEN = re.compile(
    r"\b(?:once upon a time,?|once|there (?:once )?(?:was|lived))(?:,? [a-z ]{2,30}?,)?"
    r"(?: there (?:was|lived))?(?: once)? an? ((?:[a-z'-]+,? ){0,3}?[a-z'-]+)"
    r"(?=[,.;:]|\s(?:who|named|called|whose|which|that|in|on|at|by|and|with|of|had|lived|was|went|"
    r"came|sat|stood)\b)", re.IGNORECASE)
# words that "there was a ..." and "the ..." often name, and that are nobody
_NOBODY = frozenset("time day moment way word thing while hour night morning evening year home "
                    "place house deal bit few side hand eye door road end piece voice".split())
_TITLES = frozenset("I Mr Mrs Miss Dr God Lord Oh Sir English Christmas".split())


@dataclass(frozen=True)
class Hero:
    """Whom a tale is about, as far as its words tell: a name, a kind ("hen"), or both."""

    name: str = ""
    kind: str = ""

    def stands_in(self, text: str) -> bool:
        """Whether the text names the hero; a pronoun does not count, it could be anyone's."""
        named = self.name and re.search(rf"\b{re.escape(self.name)}\b", text)
        kind = self.kind and re.search(rf"\b{re.escape(self.kind)}(?:e?s)?\b", text, re.IGNORECASE)
        return bool(named or kind)


def hero(text: str) -> Hero | None:
    """Who is introduced ("there was a shy fox named Tom"); otherwise the name said most often,
    or the noun that comes with "a" and again with "the". None where there is nobody.
    """
    named, seen = _NAMED.search(text), _FIRST_SEEN.search(text)
    name = named.group(1).split()[-1] if named else ""
    kind = seen.group(1).split()[-1].lower() if seen else ""
    kind = "" if kind in _NOBODY else kind
    if not name and not kind:  # a word that only begins sentences is no name
        inside = set(re.findall(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\b", text)) - _TITLES
        name = _most_often({word: len(re.findall(rf"\b{word}\b", text)) for word in inside})
    if not name and not kind:
        again = Counter(re.findall(r"\bthe (?:little |old |poor |young )?([a-z]{3,})\b",
                                   text.lower()))
        kind = _most_often({noun: count for noun, count in again.items() if noun not in _NOBODY
                            and re.search(rf"\b(?:an?|his|her) (?:[a-z]+ )?{noun}\b",
                                          text, re.IGNORECASE)})
    return Hero(name, kind) if name or kind else None


def _most_often(counts: dict[str, int]) -> str:
    """The word with the highest count above 1, the first in the alphabet of several; or ""."""
    return min((word for word in counts if counts[word] > 1),
               key=lambda word: (-counts[word], word), default="")


def keeps_hero(text: str) -> bool | None:
    """Whether the hero of a text's first half still stands in its last third; None without one."""
    places = [word.start() for word in re.finditer(r"\S+", text)]
    if len(places) < 6:
        return None
    found = hero(text[:places[len(places) // 2]])
    return found and found.stands_in(text[places[-(len(places) // 3)]:])
