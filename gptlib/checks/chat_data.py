"""Checks of the exercises of 9.1 and 9.2: what a chat learns from, and how it is judged."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptlib.checks import as_number, attempt, close, exercise, expect, expect_agreement
from gptlib.text.chat_template import MARKS, Message, chat_text

START, END = MARKS
TALK = [("user", "How are you?"), ("assistant", "Fine!"), ("user", "Good.")]


@exercise
def check_as_text(answer: Any) -> None:
    """`as_text(messages, reply)` -> str, the conversation by the chat template.

    messages are pairs (role, content). With `reply` the text ends where the assistant speaks.
    """
    got = _text(attempt(answer, TALK[:1], False))
    right = f"{START}user\nHow are you?{END}\n"
    expect(got != f"{START}user\nHow are you?{END}", "a line end stands behind each "
           f"{END}, too")
    expect(got != f"{START}user How are you?{END}\n" and got != f"{START}user: How are you?{END}\n",
           "behind the role stands a line end, nothing else")
    expect(got != f"user\nHow are you?{END}\n", f"each message begins with {START}")
    expect(got != f"{START}user\nHow are you?\n{END}\n", f"between the content and {END} stands "
           "nothing: a line end there would be a part of what is said")
    expect(got != f"{START}user\nHow are you?\n", f"no {END} ends the message: a model that never "
           "sees it never learns to stop")
    expect(got != right + f"{START}assistant\n", "the header of the reply is there although "
           "`reply` is False: then the conversation is complete")
    expect(got == right, f"for one message and reply=False expected {right!r}, got {got!r}")
    asked = _text(attempt(answer, TALK[:1], True))
    expect(asked != right, "with `reply` the text goes on with the assistant's header: without it "
           "the model may go on as anybody")
    expect(asked != right + f"{START}assistant", "a line end stands behind the header's role, too: "
           "it is what the model has always seen before a reply")
    expect(asked != right + f"{START}assistant\n{END}\n", "the reply's header is left open: what "
           "comes next is for the model to say")
    expect(asked == right + f"{START}assistant\n", f"with reply=True expected the same and then "
           f"'{START}assistant\\n', got {asked!r}")
    expect_agreement(answer, _as_text, [
        (TALK, True), (TALK[:2], False), ([], True), ([("system", "Be brief."), *TALK], True),
        ([("user", "two\nlines"), ("assistant", "")], False)])


def _text(value: Any) -> str:
    expect(isinstance(value, str), f"expected a string, got {type(value).__name__}")
    return value


def _as_text(messages: Sequence[tuple[str, str]], reply: bool) -> str:
    return chat_text([Message(*each) for each in messages], reply=reply)


@exercise
def check_reply_loss(answer: Any) -> None:
    """`reply_loss(losses, learn)` -> mean loss of the tokens that are learned, nats per token.

    losses (N - 1,): entry i is the loss of predicting token i + 1. learn (N,): of each token,
    whether it is learned.
    """
    losses = torch.tensor([8.0, 1.0, 2.0, 26.0, 3.0])
    learn = torch.tensor([False, False, True, True, False, True])
    got = as_number(attempt(answer, losses, learn))
    expect(not close(got, losses.mean().item()), "this is the mean over all tokens: what the user "
           "says counts, too")
    expect(not close(got, losses[learn[:-1]].mean().item()), "your mask is one token late: "
           "losses[i] belongs to token i + 1, whose mark is learn[i + 1]")
    expect(not close(got, 6.0), "this is the sum; divide it by the number of learned tokens")
    expect(not close(got, 6 / 5), "you divided by the number of all tokens; by how many of them "
           "are learned, or long questions would make the loss look small")
    expect(not close(got, (1.5 + 3) / 2), "this is the mean of the two replies' means: a token of "
           "a short reply would weigh more; every learned token weighs the same")
    expect(close(got, 2.0), f"learned are the losses 1, 2 and 3: expected 2, got {got:.3f}")
    first = as_number(attempt(answer, torch.tensor([4.0, 6.0]), torch.tensor([True, True, True])))
    expect(close(first, 5.0), "the first token is predicted from nothing and has no loss, even "
           f"where its mark is True: expected the mean of 4 and 6, got {first:.3f}")
    g = torch.Generator().manual_seed(0)
    expect_agreement(answer, _reply_loss, [
        (torch.rand(n, generator=g), torch.rand(n + 1, generator=g) > 0.4) for n in (6, 9, 40)])


def _reply_loss(losses: Tensor, learn: Tensor) -> float:
    return losses[learn[1:]].mean().item()


@exercise
def check_pairs_right(answer: Any) -> None:
    """`pairs_right(right)` -> share of pairs of which both are right.

    right holds True or False for each dialogue; 2 i and 2 i + 1 are twins.
    """
    right = [True, True, False, True, True, False, False, False, True, True, False, True]
    got = as_number(attempt(answer, right))
    expect(not close(got, sum(right) / len(right)), "this is the share of single dialogues; a "
           "guess is right in one of two twins")
    expect(not close(got, 5 / 6), "you count pairs with one right, too: both have to be")
    expect(not close(got, 2 / 12), "divide by the number of pairs, not of dialogues")
    expect(not close(got, 3 / 11), "you compare each dialogue with the next one: twins are 0 and "
           "1, 2 and 3, and so on, and no dialogue has two")
    expect(not close(got, 3 / 6), "a pair with both wrong is no success: the twins agree, and "
           "neither is right")
    expect(close(got, 2 / 6), f"of six pairs two are right in both: expected 0.333, got {got:.3f}")
    expect_agreement(answer, _pairs_right, [
        ([True, True],), ([True, False] * 5,), ([False] * 4,), ([False, True, True, True],),
        ([True] * 6 + [False] * 2,)])


def _pairs_right(right: Sequence[bool]) -> float:
    both = [a and b for a, b in zip(right[::2], right[1::2])]
    return sum(both) / len(both)


@exercise
def check_speakers_apart(answer: Any) -> None:
    """`speakers_apart(chats, held_out)` -> three numbers of chats: to learn from, to test, lost.

    chats are pairs of speakers, held_out a set of speakers. No speaker may be in both parts.
    """
    chats = [("ann", "bob"), ("ann", "cid"), ("cid", "dan"), ("dan", "eve"), ("eve", "dan"),
             ("bob", "ann"), ("fay", "ann")]
    held_out = {"dan", "eve"}
    got = [as_number(number) for number in _three(attempt(answer, chats, held_out))]
    expect(got != [4, 3, 0], "a chat between the two kinds is no test: the speaker who is learned "
           "from would be in both parts")
    expect(got != [5, 2, 0], "a chat between the two kinds is nothing to learn from: the speaker "
           "who is held out would be in both parts")
    expect(sorted(got) != [1, 2, 4] or got == [4, 2, 1], "the order is: to learn from, to test, "
           "lost")
    expect(sum(got) == 7, f"each of the seven chats belongs to one number; yours sum to "
           f"{sum(got):g}")
    expect(got == [4, 2, 1], f"expected 4, 2 and 1, got {got}")
    expect_agreement(lambda *inputs: [as_number(n) for n in _three(answer(*inputs))],
                     _speakers_apart, [
        ([("a", "b")], set("c")), ([("a", "b"), ("b", "a")], set("ab")), ([], set("a")),
        ([(x, y) for x in "abcd" for y in "efgh"], set("abe"))])


def _three(value: Any) -> list:
    expect(isinstance(value, list | tuple | Tensor) and len(value) == 3,
           f"expected three numbers, got {value!r}")
    return list(value)


def _speakers_apart(chats: Sequence[tuple[str, str]], held_out: set[str]) -> list[int]:
    counts = [sum(speaker in held_out for speaker in chat) for chat in chats]
    return [counts.count(0), counts.count(2), counts.count(1)]
