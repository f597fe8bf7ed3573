"""The students' chats: turns, roles, a split without a chat in two parts, ids to learn from."""

import re
from bisect import bisect
from itertools import chain

import pytest
import torch

from gptlib.text import conversations, corpora
from gptlib.text.chat_template import MARKS, Message, chat_text, encode_conversation
from gptlib.text.conversations import Turn, encode, messages, parse, pieces
from gptlib.text.datasets import IGNORED, TokenDataset, batches
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.writing.quality import near_duplicates, ngram_set, ngrams

TOKENIZER = ByteTokenizer((corpora.END, *MARKS))
CHAT = [Turn("A", "hi"), Turn("B", "hello"), Turn("A", "bye")]


@pytest.fixture(scope="module")
def parts():
    return conversations.split()


def as_text(turns):
    return "\n".join(f"{turn.speaker}: {turn.text}" for turn in turns)


def all_chats():
    return [as_text(parse(document)) for document in corpora.documents("chitchat")]


def test_lines_in_a_row_by_one_speaker_become_one_turn():
    assert parse("A: hi\nA: you\nB: hello: there\nA: bye") == [
        Turn("A", "hi you"), Turn("B", "hello: there"), Turn("A", "bye")]


@pytest.mark.parametrize("line", ["C: hi", "hi", "A:hi", "A: ", ""])
def test_other_lines_are_refused(line):
    with pytest.raises(ValueError, match="expected 'A: ...' or 'B: ...'"):
        parse(f"A: hi\n{line}")


def test_the_one_who_begins_is_the_user_or_with_swap_the_assistant():
    assert messages(CHAT) == [Message("user", "hi"), Message("assistant", "hello"),
                              Message("user", "bye")]
    assert [each.role for each in messages(CHAT, swap=True)] == ["assistant", "user", "assistant"]


def test_whoever_has_the_first_word_is_the_user_also_where_it_is_b():
    assert [each.role for each in messages(CHAT[1:])] == ["user", "assistant"]


def test_pieces_are_what_was_said_without_short_rests():
    chats = [[Turn("AB"[k % 2], str(k)) for k in range(n)] for n in (3, 4, 10, 13)]
    found = [[int(turn.text) for turn in piece] for piece in pieces(chats, 4)]
    assert found == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9],
                     [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_the_command_writes_what_the_training_command_reads(tmp_path, monkeypatch):
    chats = [CHAT * 9, CHAT[:2] * 20]
    parts = conversations.Parts(chats, [], [])
    monkeypatch.setattr(conversations, "split", lambda: parts)
    conversations.main(tmp_path / "new")
    found = corpora.read_documents(tmp_path / "new" / "chats.txt")
    assert [text + "\n" for text in found] == [
        chat_text(messages(chat), reply=False) for chat in chats]


def test_each_chat_stands_in_one_part_and_the_parts_have_fixed_sizes(parts):
    assert [len(part) for part in parts] == [2503, 138, 138]
    found = [as_text(turns) for part in parts for turns in part]
    assert len(set(found)) == len(found) and set(found) < set(all_chats())


def test_the_training_command_holds_out_what_validates_and_tests(parts):
    documents = all_chats()
    held_out = documents[corpora.HELD_OUT - 1::corpora.HELD_OUT]
    assert {as_text(turns) for turns in (*parts.validation, *parts.test)} <= set(held_out)
    assert not {as_text(turns) for turns in parts.train} & set(held_out)


def test_speakers_take_turns(parts):
    for turns in (turns for part in parts for turns in part):
        assert [turn.speaker for turn in turns] == ["A", "B"] * (len(turns) // 2) + (
            ["A"] * (len(turns) % 2))


def test_no_chat_of_one_part_is_nearly_one_of_another(parts):
    """Runs of 8 words: what is shared are greetings ("hey how are you good how are you")."""
    train, *held_out = [[re.sub("^[AB]:", "", as_text(turns), flags=re.MULTILINE)
                         for turns in part] for part in parts]
    known = ngram_set(chain(*held_out))
    alike = [text for text in train if not known.isdisjoint(ngrams(text, 8))]
    texts, starts = [*alike, *chain(*held_out)], (len(alike), len(alike) + len(held_out[0]))
    pairs = [pair for pair in near_duplicates(texts, n=8, threshold=0.2)
             if bisect(starts, pair[0]) != bisect(starts, pair[1])]
    assert pairs == [] and len(alike) > 100


def test_no_turn_is_a_pasted_story(parts):
    turns = [turn for part in parts for turns in part for turn in turns]
    lengths = [len(turn.text.split()) for turn in turns]
    assert 150 < max(lengths) <= conversations.LONGEST


def test_nobody_s_account_or_address_is_told(parts):
    text = "\n".join(as_text(turns) for part in parts for turns in part)
    assert not re.search(r"@\w|https?:|www\.|\d{3}-\d{4}", text)
    assert not re.search(r"(?i)\bmy (?:insta|instagram|snapchat|ig) (?:name )?is\b", text)


def test_ids_and_mask_are_those_of_the_conversations_one_after_the_other():
    other = [Turn("A", "so?"), Turn("B", "no")]
    ids, learn = encode([CHAT, other], TOKENIZER)
    end = TOKENIZER.special_tokens[corpora.END]
    expected = [encode_conversation(messages(turns), TOKENIZER) for turns in (CHAT, other)]
    assert ids.tolist() == [end, *expected[0][0], end, *expected[1][0]]
    assert learn.tolist() == [False, *expected[0][1], False, *expected[1][1]]
    assert TOKENIZER.decode(ids[learn]) == "hello<|im_end|>no<|im_end|>"


def test_with_both_roles_all_that_is_said_is_learned_once():
    ids, learn = encode([CHAT], TOKENIZER, both=True, system="Chat.")
    assert TOKENIZER.decode(ids[learn]) == "hello<|im_end|>" + "hi<|im_end|>bye<|im_end|>"
    assert TOKENIZER.decode(ids).count("<|im_start|>system\nChat.<|im_end|>") == 2


def test_a_tokenizer_without_an_end_of_text_needs_none():
    ids, _ = encode([CHAT], ByteTokenizer(MARKS))
    assert ids[0] == ByteTokenizer(MARKS).special_tokens[MARKS[0]]


def test_batches_of_the_chats_teach_replies_alone(parts):
    ids, learn = encode(parts.validation[:5], TOKENIZER)
    for begin_at in (None, TOKENIZER.special_tokens[MARKS[0]]):
        dataset = TokenDataset(ids, 64, begin_at, learn)
        x, y = next(batches(dataset, 16))
        assert (y != IGNORED).any(1).all() and (y == IGNORED).any()
        assert begin_at is None or (x[:, 0] == begin_at).all()
    replies = [turn.text for turns in parts.validation[:5] for turn in turns if turn.speaker == "B"]
    assert TOKENIZER.decode(ids[learn]) == "".join(f"{text}<|im_end|>" for text in replies)
    assert isinstance(learn, torch.Tensor) and learn.dtype == torch.bool
