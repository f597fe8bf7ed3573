"""Records: what is left out and mended, on small cases and counted on the real files."""

import bz2
import csv
import io
import json
import re
from collections import Counter

import pytest

from gptlib.text import corpora, records


def test_a_dictionary_is_read_entry_by_entry_without_its_licence_and_its_insults():
    licence = "  1 This software and database is being provided to you  \n"
    able = '00001740 00 a 02 able(p) 0 well_off 1 000 | having the means; "able to swim"\n'
    dog = '00002000 04 n 01 dog 0 000 | a tame animal; or so; "a dog barks"; "dogs"\n'
    insult = "00003000 04 n 01 word 0 000 | (ethnic slur) offensive term\n"
    members = [licence + able, "", licence + dog + insult, ""]
    entries = list(records.wordnet([member.encode() for member in members]))
    assert entries == [
        {"words": ["able", "well off"], "word_class": "adjective",
         "definition": "having the means", "examples": ["able to swim"]},
        {"words": ["dog"], "word_class": "noun", "definition": "a tame animal; or so",
         "examples": ["a dog barks", "dogs"]}]


def test_every_source_of_records_holds_what_the_table_promises():
    counts = {"reviews": 12_749, "sentences": 4_267, "countries": 224, "wordnet": 116_627}
    found = {name: corpora.load_records(name) for name in counts}
    assert {name: len(rows) for name, rows in found.items()} == counts
    assert found["sentences"][0]["traditional"] == "老師，您好！"
    assert "".join(found["sentences"][0]["words"]) == "老师您好"
    assert {row["word_class"] for row in found["wordnet"]} == {
        "adjective", "adverb", "noun", "verb"}
    with pytest.raises(ValueError, match="unknown records 'tales'; expected one of"):
        corpora.load_records("tales")


def raw_reviews():
    content = corpora._read_bytes("reviews", "rotten_tomatoes_corpus_full.csv.bz2")[0]
    rows = csv.DictReader(io.StringIO(bz2.decompress(content).decode("utf-8"), newline=""))
    return [row for row in rows if row["category"] != "plot"]


def test_a_review_stands_once_even_if_its_film_has_two_names():
    raw, kept = raw_reviews(), corpora.load_records("reviews")
    letters = Counter(re.sub(r"\W", "", row["text"]).casefold() for row in kept)
    assert len(raw) - len(kept) == 59 and max(letters.values()) == 1
    films = {row["movie_name"] for row in raw} - {row["movie"] for row in kept}
    assert films == {"the_crime_of_padre_amaro"}  # its 35 stand under the Spanish name too


def test_reviews_hold_characters_instead_of_their_names_in_html():
    assert sum("&" in row["text"] and ";" in row["text"] for row in raw_reviews()) == 27
    texts = [row["text"] for row in corpora.load_records("reviews")]
    assert not [text for text in texts if re.search(r"&\S*;", text)]
    assert sum("Lilo & Stitch" in text for text in texts) == 5
    assert any(text.endswith("rap and R&B names and references.") for text in texts)


def raw_sentences():
    return json.loads(corpora._read_bytes("sentences", "sentences.json")[0])


def test_sentences_without_a_translation_and_repeated_ones_are_left_out():
    raw, kept = raw_sentences(), corpora.load_records("sentences")
    kinds = Counter(re.sub(r"-[pq]\d+$", "-", row["translation"]["en"]) for row in raw)
    assert (kinds["placeholder"], kinds["placeholder-"], kinds["PH"]) == (65, 15, 2)
    assert len(raw) - len(kept) == 65 + 15 + 2 + 5
    assert max(Counter(row["chinese"] for row in kept).values()) == 1
    assert [row["level"] for row in kept if row["chinese"] == "这条路不通。"] == [2]  # the first
    odd = [row["english"] for row in kept if not re.fullmatch(r"[A-Z\"0-9].*[.?!\"]",
                                                              row["english"])]
    assert odd == []
    chinese = [row["english"] for row in kept if re.search(r"[\u4e00-\u9fff]", row["english"])]
    assert chinese == ["At New Year there's a 福 on the door."]


def test_a_word_with_one_reading_has_it_in_the_pinyin():
    readings = Counter()
    for row in raw_sentences():
        readings.update((token["word"], token["pinyin"]) for token in row["tokens"])
    assert readings["了", "liǎo"] == 59 and readings["了", "le"] == 1050
    pinyin = {row["chinese"]: row["pinyin"] for row in corpora.load_records("sentences")}
    assert pinyin["到了，请下车。"] == "dào le qǐng xià chē"
    assert pinyin["我很了解他。"] == "wǒ hěn liǎo jiě tā"  # part of a longer word
    assert pinyin["他陪同客人参观。"] == "tā péi tóng kè rén cān guān"
    assert not [words for words in pinyin if "到了" in words and "dào liǎo" in pinyin[words]]


def test_countries_have_one_entry_and_the_capital_of_today():
    capitals = {row["name"]: row["capital"] for row in corpora.load_records("countries")}
    assert len(capitals) == 224 == len(corpora.load_records("countries"))
    assert all(isinstance(capital, str) for capital in capitals.values())
    known = {"Burundi": "Gitega", "Kazakhstan": "Astana", "Vatican City State": "Vatican City",
             "Eswatini": "Mbabane", "North Macedonia": "Skopje", "France": "Paris"}
    assert {name: capitals[name] for name in known} == known
    for gone in ("Palestine", "Holy See (Vatican City State)", "Serbia and Montenegro",
                 "Swaziland", "British Indian Ocean Territory"):
        assert gone not in capitals


def test_no_correction_is_for_an_entry_that_the_files_do_not_have():
    files = corpora._read_bytes("countries", "[a-z]*.json")
    names = Counter(json.loads(content)["name"] for content in files)
    assert set(records._NO_COUNTRY) | set(records._FACTS) <= set(names)
    assert max(names.values()) == 1


def test_the_majority_of_a_film_s_other_reviews_leaves_the_review_itself_out():
    labels = {"a": "fresh fresh rotten", "b": "fresh rotten", "c": "rotten"}
    rows = [{"movie": movie, "label": label} for movie in labels
            for label in labels[movie].split()]
    assert records.majority_of_others(rows) == [
        "fresh", "fresh", "fresh",  # a tie for the first two
        "rotten", "fresh", "fresh"]  # nobody else about c: a tie of none


def test_most_other_reviews_of_a_film_agree_in_almost_three_of_four_cases():
    rows = corpora.load_records("reviews")
    right = [guess == row["label"] for guess, row in zip(records.majority_of_others(rows), rows)]
    assert 0.72 < sum(right) / len(right) < 0.75
