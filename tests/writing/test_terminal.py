"""The loop of a chat, line by line: replies on the output, all else beside it."""

import io
import sys

import pytest
import torch

from gptlib.text.chat_template import Message
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.writing.chat import Chat, load_messages, save_messages
from gptlib.writing.terminal import converse, obey

TOKENIZER = ByteTokenizer(("<|im_start|>", "<|im_end|>"))


def parrot(ids):
    """Says the last letter of the newest message, then ends."""
    row = ids[0].tolist()
    if row[-1] == ord("\n"):  # behind the header: the letter before the newest <|im_end|>
        word = row[max(place for place, id in enumerate(row) if id == 257) - 1]
    else:
        word = 257
    return torch.nn.functional.one_hot(torch.full_like(ids, word), 258).float() * 100


@pytest.fixture
def chat():
    return Chat(parrot, TOKENIZER)


def told(chat, text, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return converse(chat), *capsys.readouterr()


def test_each_line_is_answered_on_a_line_and_nothing_else_is_written(chat, monkeypatch, capsys):
    assert told(chat, "abc\n\n  \nxyz", monkeypatch, capsys) == (True, "c\nz\n", "")
    assert [each.content for each in chat.messages] == ["abc", "c", "xyz", "z"]


def test_an_input_that_is_empty_says_nothing(chat, monkeypatch, capsys):
    assert told(chat, "", monkeypatch, capsys) == (True, "", "")


def test_quit_ends_before_the_input_does(chat, monkeypatch, capsys):
    assert told(chat, "a\n/quit\nb\n", monkeypatch, capsys) == (True, "a\n", "")


def test_reset_begins_again(chat, monkeypatch, capsys):
    assert told(chat, "a\n/reset\nb\n", monkeypatch, capsys)[:2] == (True, "a\nb\n")
    assert [each.content for each in chat.messages] == ["b", "b"]


def test_a_mistake_is_told_beside_the_replies_and_the_chat_goes_on(chat, monkeypatch, capsys):
    fine, output, errors = told(chat, "a\n/rest\n\udcffx\nb\n", monkeypatch, capsys)
    assert (fine, output) == (False, "a\nb\n")
    first, second = errors.splitlines()
    assert first.startswith("error: '/rest' is no command; expected /reset, /save FILE or /quit")
    assert second.startswith("error: lone surrogate U+DCFF")
    assert [each.content for each in chat.messages] == ["a", "a", "b", "b"]


def test_a_line_that_begins_with_a_blank_is_a_message(chat, monkeypatch, capsys):
    assert told(chat, " /quit?\n", monkeypatch, capsys) == (True, "?\n", "")


def test_saved_is_what_was_said_and_only_another_conversation_is_replaced(chat, tmp_path):
    "".join(chat.reply("hi"))
    file = tmp_path / "my talk.jsonl"
    assert obey(chat, f"/save {file}") == f"2 messages are in {file}"
    assert load_messages(file) == [Message("user", "hi"), Message("assistant", "i")]
    save_messages(file, [Message("user", "old")])
    obey(chat, f"/save {file}")
    assert load_messages(file)[0].content == "hi"
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(ValueError, match="letter.txt, line 1: it is cut off or not JSON"):
        obey(chat, f"/save {tmp_path / 'letter.txt'}")
    assert (tmp_path / "letter.txt").read_text(encoding="utf-8") == "dear"


@pytest.mark.parametrize("line", ["/save", "/save  ", "/reset all", "/", "/help", "//"])
def test_commands_that_there_are_not_are_refused(chat, line):
    with pytest.raises(ValueError, match="is no command; expected /reset, /save FILE or /quit"):
        obey(chat, line)


def test_a_file_that_cannot_be_written_is_told(chat, tmp_path):
    with pytest.raises(ValueError, match="cannot be written .*choose another"):
        obey(chat, f"/save {tmp_path / 'nowhere' / 'talk.jsonl'}")


def test_ctrl_c_stops_the_reply_and_the_next_line_is_answered(monkeypatch, capsys):
    def impatient(ids):
        if len(ids[0]) == stopped_at[0]:
            raise KeyboardInterrupt
        return parrot(ids) if stopped_at[0] is None else torch.nn.functional.one_hot(
            torch.full_like(ids, ord("x")), 258).float() * 100

    def lines():
        yield "hello\n"
        stopped_at[0] = None
        yield "abc\n"

    stopped_at = [45]
    chat, source = Chat(impatient, TOKENIZER), lines()
    monkeypatch.setattr("builtins.input", lambda prompt: next(source, "/quit").rstrip("\n"))
    assert converse(chat)
    output = capsys.readouterr().out
    first, second = output.splitlines()
    assert set(first) == {"x"} and second == "c"
    assert [each.content for each in chat.messages] == ["hello", first, "abc", "c"]


def test_ctrl_c_while_a_line_is_awaited_leaves(chat, monkeypatch, capsys):
    def interrupted(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    assert converse(chat) and capsys.readouterr() == ("", "")
