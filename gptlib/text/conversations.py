"""The data of case 2: chats of two students, split by conversation, as ids to learn from.

    train, validation, test = conversations.split()
    ids, learn = conversations.encode(pieces(train), tokenizer, both=True)
    dataset = TokenDataset(ids, context_length, begin_at=end_of_text, learn=learn)

`python -m gptlib.text.conversations FOLDER` writes chats.txt: the same as a text to learn from
without any mask, as `python -m gptlib train` does.

What the texts are like: short messages, half of them of at most 12 words, by some 900 students of
an American university in 2018, who were given a question to talk about and prizes for talking
much. They speak of classes, films, food, church, and often of the competition itself. First names
occur in the talk. Chats with contact details are left out in `gptlib.text.cleaning`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import typer
from torch import Tensor

from gptlib.text import corpora
from gptlib.text.chat_template import Message, chat_text, encode_conversation
from gptlib.text.corpora import HELD_OUT, write_documents
from gptlib.text.tokenizers import Tokenizer

LONGEST = 200  # words of a turn: more, in 2 chats of 100, is a story pasted in, or a game


PIECE = 12  # turns: some 350 tokens


class Turn(NamedTuple):
    """What one speaker says until the other one does."""

    speaker: str  # "A", who begins, or "B"
    text: str


class Parts(NamedTuple):
    """The conversations to learn from, to choose by, and to judge by, once."""

    train: list[list[Turn]]
    validation: list[list[Turn]]
    test: list[list[Turn]]


def parse(document: str) -> list[Turn]:
    """The turns of lines "A: ..." and "B: ..."; lines in a row by one speaker become one turn.

    Raises ValueError for a line of another form.
    """
    turns: list[Turn] = []
    for line in document.split("\n"):
        speaker, separator, text = line.partition(": ")
        if speaker not in ("A", "B") or not separator or not text.strip():
            raise ValueError(f"a line of the conversation is {line[:60]!r}; expected 'A: ...' or "
                             f"'B: ...'")
        if turns and turns[-1].speaker == speaker:
            turns[-1] = Turn(speaker, f"{turns[-1].text} {text}")
        else:
            turns.append(Turn(speaker, text))
    return turns


def split() -> Parts:
    """Of each twenty chats the tenth is for validation and the twentieth for testing.

    So `python -m gptlib train --corpus chitchat`, which holds out every tenth, learns from none
    of them. Chats with a turn of more than LONGEST words are left out of all parts. The split is by
    conversation, not by speaker: most of the test chats are by two students who both talk in
    others of the training part too, since a few of them talked with hundreds.
    """
    parts = Parts([], [], [])
    for number, document in enumerate(corpora.documents("chitchat")):
        turns = parse(document)
        if max(len(turn.text.split()) for turn in turns) > LONGEST:
            continue
        held_out = number % HELD_OUT == HELD_OUT - 1
        part = (1 + number // HELD_OUT % 2) if held_out else 0
        parts[part].append(turns)
    return parts


def pieces(chats: Iterable[Sequence[Turn]], turns: int = PIECE) -> list[Sequence[Turn]]:
    """Each chat cut into pieces of so many turns; a rest of fewer than half of them is left out.

    A piece begins like a chat of its own, so that a model learns to come in anywhere, and with
    its end it fits into a short context.
    """
    found = []
    for chat in chats:
        starts = range(0, len(chat), turns)
        found += [part for i in starts if len(part := chat[i:i + turns]) >= turns / 2]
    return found


def messages(turns: Sequence[Turn], swap: bool = False) -> list[Message]:
    """The speaker who begins as the user and the other as the assistant; with `swap` the other
    way round, so that the assistant has the first word."""
    user, assistant = ("assistant", "user") if swap else ("user", "assistant")
    return [Message(user if turn.speaker == turns[0].speaker else assistant, turn.text)
            for turn in turns]


def encode(chats: Sequence[Sequence[Turn]], tokenizer: Tokenizer, *, both: bool = False,
           system: str | None = None) -> tuple[Tensor, Tensor]:
    """All conversations one after the other, for `TokenDataset`: ids (N,) int64 and learn (N,)
    bool, which marks the replies.

    Each begins behind an <|endoftext|>, where the tokenizer has one. With `both` it comes a
    second time with swapped roles, so that what both say is learned.
    """
    end = [tokenizer.special_tokens[corpora.END]] if corpora.END in tokenizer.special_tokens else []
    ids, learn = [], []
    for turns in chats:
        for swap in (False, True)[:1 + both]:
            own, learned = encode_conversation(messages(turns, swap), tokenizer, system=system)
            ids += end + own
            learn += [False] * len(end) + learned
    return torch.tensor(ids, dtype=torch.long), torch.tensor(learn, dtype=torch.bool)


def main(folder: Path) -> None:
    """Write chats.txt to FOLDER: the training part, whole, by the template of a chat."""
    folder.mkdir(parents=True, exist_ok=True)
    chats = split().train
    write_documents(folder / "chats.txt", [chat_text(messages(turns), reply=False).rstrip("\n")
                                           for turns in chats])
    print(f"{len(chats)} conversations are in {folder / 'chats.txt'}")


if __name__ == "__main__":
    typer.run(main)
