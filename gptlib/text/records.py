"""From the raw files of `gptlib.text.corpora` to records: pure functions.

What is wrong in a file is mended where the right value is certain, and otherwise left out; each
case stands here by name with its reason.
"""

import bz2
import csv
import html
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence

# Words of the sentences that have one reading as a word of their own; the file spells some of
# them as inside another word (了 as in 了解 after 到, 的 as in 目的, 参 as in 人参).
_READINGS = {"了": "le", "的": "de", "都": "dōu", "和": "hé", "结果": "jié guǒ",
             "解决": "jiě jué", "参加": "cān jiā", "参观": "cān guān"}
# Translations that nobody wrote: "placeholder", "placeholder-p3", "PH".
_PLACEHOLDER = re.compile(r"(?:placeholder|PH)\b.*", re.IGNORECASE)
_TRANSLATIONS = {"The exam is近; prepare well.": "The exam is near; prepare well."}

# Names and capitals of the countries that have changed, or that the file spells otherwise.
_FACTS = {
    "Burundi": {"capital": "Gitega"},  # since 2019; before, Bujumbura
    "Equatorial Guinea": {"capital": "Ciudad de la Paz"},  # since January 2026; before, Malabo
    "French Polynesia": {"capital": "Papeete"},  # spelled Papeetē
    "Kazakhstan": {"capital": "Astana"},  # again since 2022; from 2019, Nur-Sultan
    "Montenegro": {"subregion": "Southern Europe"},  # as the United Nations group it
    "Republic of Macedonia": {"name": "North Macedonia"},  # since 2019
    "Serbia": {"subregion": "Southern Europe"},  # as the United Nations group it
    "Swaziland": {"name": "Eswatini",  # since 2018
                  "capital": "Mbabane"},  # the file has Lobamba, where the parliament sits
    "Vatican City State": {"capital": "Vatican City"},  # a list in the file
}
# Entries without one capital that can be asked for.
_NO_COUNTRY = {
    "Antilles néerlandaises": "dissolved in 2010",
    "British Indian Ocean Territory": "no capital; in the file of the British Virgin Islands",
    "French Southern and Antarctic Lands": "administered from Réunion",
    "Holy See (Vatican City State)": "the Vatican a second time, with another capital",
    "Hong Kong": "a city; the capital given is its colonial name",
    "Israel": "the status of Jerusalem is disputed",
    "Montserrat": "Plymouth was given up after 1995 and lies under ash",
    "Palestine": "Ramallah here, Jerusalem in the entry below",
    "Palestine, State of": "Palestine a second time, with another capital",
    "Serbia and Montenegro": "two states since 2006",
    "South Africa": "three capitals",
    "Sri Lanka": "Colombo, but the parliament has sat in Kotte since 1982",
    "Tokelau": "no capital: each atoll governs itself",
    "Western Sahara": "claimed by two; its capital is under Moroccan rule",
}

# Marks of the entries of a dictionary that a reader need not meet, in lower case.
_UNKIND = ("offensive", " slur", "disparag", "derogat", "obscen", "vulgar", "taboo", "pornograph",
           "sexual", " rape", " whor", "prostitut", "genocid", " nazi", "fuck", " shit", "bitch",
           " cunt", " nigg", " slut", " fag", " dick", "pussy")


def reviews(members: list[bytes]) -> Iterator[dict]:
    """Film reviews of one line, marked fresh or rotten; summaries of plots are left out.

    A text that stood before, capitals and punctuation aside, is left out: one film of the file
    has all its reviews under two names.
    """
    table = io.StringIO(bz2.decompress(members[0]).decode("utf-8"), newline="")
    seen = set()
    for row in csv.DictReader(table):
        text = html.unescape(" ".join(row["text"].split()))
        text = re.sub(r"(?<=&[A-Za-z]);|(?<=&[A-Z]\.);", "", text)  # the file has R&amp;B; for R&B
        letters = re.sub(r"\W", "", text).casefold()
        if row["category"] != "plot" and letters not in seen:
            seen.add(letters)
            yield {"text": text, "label": row["category"], "movie": row["movie_name"]}


def majority_of_others(rows: Sequence[dict]) -> list[str]:
    """For each review the label that most other reviews of its film have; on a tie, "fresh".

    A baseline that reads no word. It needs reviews of the same film, which a split by film denies.
    """
    fresh, total = Counter(), Counter(row["movie"] for row in rows)
    for row in rows:
        fresh[row["movie"]] += row["label"] == "fresh"
    others = [(fresh[row["movie"]] - (row["label"] == "fresh"), total[row["movie"]] - 1)
              for row in rows]
    return ["fresh" if 2 * good >= count else "rotten" for good, count in others]


def sentences(members: list[bytes]) -> Iterator[dict]:
    """Chinese sentences in both scripts with their words, pinyin and English translation.

    Pairs without a translation are left out, and a sentence that stood before. The pinyin is a
    program's; for 得, 地, 着 and other signs with several readings it is not always right.
    """
    seen = set()
    for row in json.loads(members[0]):
        english = row["translation"]["en"]
        if _PLACEHOLDER.fullmatch(english) or row["chinese"] in seen:
            continue
        seen.add(row["chinese"])
        words = [(token["word"], token["pinyin"]) for token in row["tokens"]]
        yield {"chinese": row["chinese"], "traditional": row["traditional"],
               "words": [word for word, _ in words],
               "pinyin": " ".join(_READINGS.get(word, reading) for word, reading in words),
               "english": _TRANSLATIONS.get(english, english),
               "level": row["hsk_level"], "topic": row["topic"]}


def countries(members: list[bytes]) -> Iterator[dict]:
    """Names and facts; an entry that lacks one of them or is no country today is left out."""
    fields = ("name", "capital", "region", "subregion", "demonym")
    for member in members:
        facts = json.loads(member)
        if all(facts.get(field) for field in fields) and facts["name"] not in _NO_COUNTRY:
            yield {field: facts[field] for field in fields} | _FACTS.get(facts["name"], {})


def wordnet(members: list[bytes]) -> Iterator[dict]:
    """Sets of synonyms with their word class, a definition and examples; insults are left out."""
    for word_class, member in zip(("adjective", "adverb", "noun", "verb"), members):
        for line in member.decode("ascii").splitlines():
            if line.startswith("  "):  # the head of the file: its licence
                continue
            entry, _, gloss = line.partition(" | ")
            fields = entry.split()
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]  # each is followed by a number
            words = [re.sub(r"\(.*\)", "", word).replace("_", " ") for word in words]
            everything = f" {' '.join(words)} {gloss}".lower()
            if not any(mark in everything for mark in _UNKIND):
                yield {"words": words, "word_class": word_class,
                       "definition": re.split(r'; (?=")', gloss)[0].strip(),
                       "examples": re.findall(r'"([^"]+)"', gloss)}
