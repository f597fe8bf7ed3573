"""The chat box of a notebook, its handlers called without a browser."""

import pytest

from gptlib.text.chat_template import MARKS, Message
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.writing.chat import Chat
from gptlib.writing.chat_widget import ChatWidget, as_html


class Script:
    """A model of bytes that says "ok" and ends, whatever it reads."""

    config = None

    def __init__(self, tokenizer, limit=None):
        self.ids = [*b"ok", tokenizer.special_tokens[MARKS[1]]]
        self.header, self.size = len(b"assistant\n") + 1, tokenizer.vocab_size
        if limit:
            self.config = type("Config", (), {"context_length": limit})()

    def __call__(self, ids):
        import torch
        logits = torch.zeros(1, ids.shape[1], self.size)
        start = max(i for i, id in enumerate(ids[0].tolist()) if id == self.size - 2)
        place = ids.shape[1] - start - self.header
        logits[0, -1, self.ids[min(max(place, 0), 2)]] = 50
        return logits


@pytest.fixture
def box():
    tokenizer = ByteTokenizer(MARKS)
    return ChatWidget(Chat(Script(tokenizer), tokenizer), temperature=0)


def enter(box, text):
    """What a browser does: the letters arrive, then the Enter key."""
    box.line.value = text
    box.line._handle_custom_msg({"event": "submit"}, [])


def test_enter_sends_the_line_and_shows_the_reply(box):
    enter(box, "hello")
    assert [each.content for each in box.chat.messages] == ["hello", "ok"]
    assert box.shown.value == as_html(box.chat.messages) and "<b>you:</b> hello" in box.shown.value
    assert box.line.value == "" and not box.line.disabled


def test_the_button_sends_too_and_typing_alone_sends_nothing(box):
    box.line.value = "hello"
    assert box.chat.messages == []
    box.send.click()
    assert [each.role for each in box.chat.messages] == ["user", "assistant"]
    box.send.click()  # an empty line
    assert len(box.chat.messages) == 2


def test_the_reply_is_seen_growing_and_the_box_is_locked_meanwhile(box):
    seen = []
    box.shown.observe(lambda change: seen.append((change.new, box.line.disabled)), "value")
    enter(box, "hello")
    texts = [text.rpartition("</b>")[2] for text, _ in seen]
    assert [text.split(" ")[1].split("<")[0] for text in texts] == ["o", "ok", "ok"]
    assert [locked for _, locked in seen] == [True, True, True] and "&#9612;" in texts[0]


def test_begin_again_forgets(box):
    enter(box, "hello")
    box.again.click()
    assert box.chat.messages == [] and box.shown.value == ""
    enter(box, "hello")
    assert len(box.chat.messages) == 2


def test_what_is_typed_never_becomes_a_tag(box):
    enter(box, "<script>alert(1)</script>\n&")
    assert "<script>" not in box.shown.value
    assert "&lt;script&gt;" in box.shown.value
    assert as_html([Message("user", "a\nb")]) == "<p><b>you:</b> a<br>b</p>"


def test_a_message_that_is_too_long_is_explained_and_stays_in_the_line():
    tokenizer = ByteTokenizer(MARKS)
    box = ChatWidget(Chat(Script(tokenizer, limit=40), tokenizer), temperature=0)
    enter(box, "x" * 50)
    assert "shorten the message" in box.note.value and box.line.value == "x" * 50
    assert box.chat.messages == [] and not box.send.disabled
    enter(box, "x")
    assert box.note.value == "" and len(box.chat.messages) == 2
