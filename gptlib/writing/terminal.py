"""A conversation in a terminal, or line by line through pipes."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptlib.writing.chat import Chat, load_messages, save_messages

HELP = ("/reset forgets what was said, /save FILE writes it down, /quit leaves. Ctrl-C stops a "
        "reply; at the prompt it leaves.")


def converse(chat: Chat, **decoding: Any) -> bool:
    """Answer each line of the standard input until it ends; returns whether all went well.

    Replies, and nothing else, are written to the standard output, each with a line end; in a
    terminal a prompt as well. What there is to tell goes to the standard error. `decoding` are the
    options of `Chat.reply`.
    """
    in_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if in_terminal:
        _tell(HELP)
    fine = True
    for line in _lines(in_terminal):
        if line.strip() == "/quit":
            break
        try:
            if line.startswith("/"):
                _tell(obey(chat, line))
            elif line.strip():
                _answer(chat, line, decoding)
        except ValueError as error:
            _tell(f"error: {error}")
            fine = False
    return fine


def obey(chat: Chat, line: str) -> str:
    """Do what a line that begins with "/" commands; returns what to tell. ValueError for unknown
    commands, and for a file that cannot be written or holds something else."""
    command, _, name = line.strip().partition(" ")
    if command == "/reset" and not name:
        chat.reset()
        return "forgotten"
    if command == "/save" and name.strip():
        file = Path(name.strip()).expanduser()
        if file.exists():
            load_messages(file)  # raises for what is no conversation: it is not written over
        try:
            save_messages(file, chat.messages)
        except OSError as error:
            raise ValueError(f"{file} cannot be written ({error}); choose another") from error
        return f"{len(chat.messages)} messages are in {file}"
    raise ValueError(f"{line.strip()!r} is no command; expected /reset, /save FILE or /quit, or a "
                     f"message that does not begin with a slash")


def _answer(chat: Chat, line: str, decoding: dict[str, Any]) -> None:
    try:
        with contextlib.closing(chat.reply(line, **decoding)) as pieces:
            for piece in pieces:
                print(piece, end="", flush=True)
    except KeyboardInterrupt:  # heard enough; what was said stays in the history
        pass
    print(flush=True)


def _lines(in_terminal: bool) -> Iterator[str]:
    """Lines without their ends, until the input ends or Ctrl-C."""
    if in_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() then edits lines and recalls them)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            yield input("> " if in_terminal else "")
    if in_terminal:
        print()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
