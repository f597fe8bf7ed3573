"""Reads a tale of the made world back into facts, and counts where it contradicts itself.

Each wording of `storyworld.SENTENCES` becomes a pattern whose fields remember what stands there.
A tale is read sentence by sentence; what was said first holds, and every later word that says
otherwise is a contradiction of its kind. For tales that `storyworld` wrote the count is zero. A
model's tale may do what it likes: what no pattern fits is counted as unread.
"""

import re
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from gptlib.text import storyworld as world

PEOPLE = ("hero", "helper", "friend", "other")
PLACES = ("home", "place", "fetch")
PRONOUNS = {"he": "he she", "He": "He She", "him": "him her", "his": "his her", "His": "His Her",
            "self": "himself herself"}
# The kinds of contradiction, in the order of the figure that shows them.
CONTRADICTIONS = ("names", "kinds", "pronouns", "places", "things", "help", "order", "quotes",
                  "unread")
# What may follow what: a tale is one path. Events in brackets may be left out.
ORDER = re.compile(
    "open (?:love lose (?P<lost>)|friend gift (?P<gift>)|wish rumour (?P<wish>))"
    "set_out see block (?:sad )?(?:wrong )?meet ask "
    "(?:(?(lost)tell_lost |(?(gift)tell_gift |tell_wish )))"
    "(?:trade fetch give |lend )use (?:(?(gift)deliver |find ))thank return end $")


@dataclass(frozen=True)
class Sentence:
    """One sentence as read: its event, and (role, form, words) for each field. Event "" where no
    pattern fits; then `text` is all that is known."""

    event: str
    fields: list[tuple[str, str, str]]
    text: str


@dataclass(frozen=True)
class Reading:
    """A tale as read, with the number of contradictions of each kind."""

    sentences: list[Sentence]
    contradictions: Counter[str]

    @property
    def holds(self) -> bool:
        """Whether the tale is whole and says nothing that contradicts it."""
        return not self.contradictions.total()


def read(text: str) -> Reading:
    """Read a tale. Any text can be read; of a text from elsewhere nearly all is "unread"."""
    sentences = list(_sentences(text))
    found: Counter[str] = Counter()
    known: dict[str, str] = {}
    for sentence in sentences:
        found["unread"] += not sentence.event
        for role, form, words in sentence.fields:
            for kind, key, value in _claims(role, form, words, known):
                found[kind] += known.setdefault(key, value) != value
    names = [known[role] for role in PEOPLE if role in known]
    found["names"] += len(names) - len(set(names))  # two people, one name
    if "obstacle" in known and "tool" in known:
        right = world.OBSTACLES[known["obstacle"]][2]
        found["help"] += (known["tool"] != right) + (known.get("wrong") == right)
    events = "".join(f"{s.event.replace(' ', '_')} " for s in sentences if s.event)
    found["order"] += not ORDER.fullmatch(events)
    found["quotes"] += text.count('"') % 2
    return Reading(sentences, +found)


def _claims(role: str, form: str, words: str, known: dict[str, str]
            ) -> Iterator[tuple[str, str, str]]:
    """What a field says: (kind of contradiction if it is not so, what about, what)."""
    if form in PRONOUNS:
        sex = "he" if words.lower() in ("he", "him", "his", "himself") else "she"
        yield "pronouns", f"sex of {role}", sex
    elif role in PEOPLE and not form:
        if role not in known:
            yield "pronouns", f"sex of {role}", world.NAMES[words]
        yield "names", role, words
    elif role in PEOPLE:
        yield "kinds", f"kind of {role}", words.split()[-1]
    elif role in PLACES:
        yield "places", role, words.split()[-1]
    elif role == "obstacle":
        yield "help", role, _obstacles()[words]
    elif role in ("thing", "tool", "food", "wrong"):
        noun = re.sub("^an? ", "", words, flags=re.IGNORECASE)
        yield "things" if role in ("thing", "food") else "help", role, noun


def _sentences(text: str) -> Iterator[Sentence]:
    position, text = 0, text.strip()
    while position < len(text):
        fits = [(match.end(), match, event, fields) for pattern, event, fields in _patterns()
                if (match := pattern.match(text, position))]
        if fits:
            end, match, event, fields = max(fits, key=lambda fit: fit[0])
            yield Sentence(event, [(*field, words) for field, words in
                                   zip(fields, match.groups())], match.group())
        else:
            end = re.compile(r'.*?(?:[.!?]"?(?=\s)|$)', re.DOTALL).match(text, position).end()
            yield Sentence("", [], text[position:end])
        position = end + len(text[end:]) - len(text[end:].lstrip())


@cache
def _patterns() -> list[tuple[re.Pattern, str, list[tuple[str, str]]]]:
    """A pattern for each wording, with its event and the (role, form) of its groups."""
    patterns = []
    for event, wordings in world.SENTENCES.items():
        for wording in wordings:
            source, fields = "", []
            for literal, field, *_ in string.Formatter().parse(wording):
                source += re.escape(literal).replace(r"\ ", r"\s")
                if field:
                    role, _, form = field.partition(".")
                    first = "" if source else "(?i:"  # a sentence begins with a capital letter
                    source += f"{first}({_alternatives(role, form)})" + (")" if first else "")
                    fields.append((role, form))
            patterns.append((re.compile(source + r"(?=\s|$)"), event, fields))
    return patterns


@cache
def _alternatives(role: str, form: str) -> str:
    """The words that may stand in a field, as a pattern."""
    if role in PEOPLE:
        kinds = "|".join(world.KINDS)
        manners = "|".join(world.TRAITS + world.MANNERS)
        return {"": "|".join(world.NAMES), "kind": kinds, "who": f"an? (?:{manners}) (?:{kinds})"
                }.get(form) or "|".join(PRONOUNS[form].split())
    if role in PLACES:
        places = map(world.Place, world.PLACES)
        return "|".join(re.escape(getattr(place, form) if form else str(place)) for place in places)
    if role == "obstacle":
        return "|".join(_obstacles()) if not form else "|".join(
            getattr(world.Obstacle(noun), form) for noun in world.OBSTACLES)
    if role in ("time", "sight"):
        return "|".join(world.TIMES if role == "time" else world.SIGHTS)
    nouns = {"thing": f"(?:{'|'.join(world.COLOURS)}) (?:{'|'.join(world.THINGS)})",
             "food": "|".join(world.FOODS)}.get(role, "|".join(world.TOOLS))
    return f"an? (?:{nouns})" if form else nouns


@cache
def _obstacles() -> dict[str, str]:
    """The obstacle behind each way to name it."""
    return {words: noun for noun in world.OBSTACLES
            for words in (noun, world.OBSTACLES[noun][0], world.OBSTACLES[noun][1])}
