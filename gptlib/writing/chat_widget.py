"""A chat box for a notebook: a line to type in, the conversation above it, a button to begin again.

It needs a running kernel. On a page without one a browser shows what the cell printed last, so put
a stored conversation beside it (`as_html`).
"""

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from gptlib.text.chat_template import Message
from gptlib.writing.chat import Chat

ROLES = {"user": "you", "assistant": "model"}


def as_html(messages: Sequence[Message], writing: bool = False) -> str:
    """A conversation as HTML; what somebody typed is text and never becomes a tag. The last message
    ends in a mark while it is being written."""
    rows = [f"<p><b>{ROLES.get(each.role, each.role)}:</b> "
            f"{html.escape(each.content).replace(chr(10), '<br>')}" for each in messages]
    return "</p>".join(rows) + (" &#9612;</p>" if writing else "</p>" if rows else "")


class ChatWidget:
    """A chat box around `chat`; `decoding` are the options of `Chat.reply`.

    Type a message and press Enter, or the button Send, which the Tab key reaches. While a reply is
    written both are locked. Display `box`, or let it be the last value of a cell.
    """

    def __init__(self, chat: Chat, **decoding: Any) -> None:
        self.chat, self.decoding = chat, decoding
        self.shown = widgets.HTML(as_html(chat.messages), layout=widgets.Layout(
            height="16em", overflow="auto", border="1px solid #888", padding="0 1em"))
        self.line = widgets.Text(placeholder="Say something and press Enter",
                                 description="you:")
        self.send = widgets.Button(description="Send", tooltip="Send the message")
        self.again = widgets.Button(description="Begin again", tooltip="Forget what was said")
        self.note = widgets.Label()
        self.line.on_msg(self._heard)
        self.send.on_click(self.say)
        self.again.on_click(self.reset)
        self.box = widgets.VBox([self.shown, widgets.HBox([self.line, self.send, self.again]),
                                 self.note])

    def say(self, _: object = None) -> None:
        """Send what stands in the line and show the reply as it is written. A message that the
        model cannot take stays in the line, and the note below says why."""
        text = self.line.value.strip()
        if not text or self.line.disabled:
            return
        self._lock(True)
        said, pieces = [*self.chat.messages, Message("user", text)], []
        try:
            self.note.value = ""
            for piece in self.chat.reply(text, **self.decoding):
                pieces.append(piece)
                self.shown.value = as_html([*said, Message("assistant", "".join(pieces))], True)
            self.line.value = ""
        except ValueError as error:
            self.note.value = str(error)
        finally:
            self.shown.value = as_html(self.chat.messages)
            self._lock(False)

    def _heard(self, _: object, content: dict, buffers: object) -> None:
        if content.get("event") == "submit":  # the Enter key; leaving the line sends nothing
            self.say()

    def reset(self, _: object = None) -> None:
        """Forget what was said."""
        self.chat.reset()
        self.shown.value, self.line.value, self.note.value = as_html(self.chat.messages), "", ""

    def _lock(self, locked: bool) -> None:
        for each in (self.line, self.send, self.again):
            each.disabled = locked

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.box)
