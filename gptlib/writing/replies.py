"""Verdicts on replies that you can check by eye, and pairs of a better and a worse one.

Nothing here knows whether a reply is true, kind or clever: five faults are looked for, each with
its evidence, and of several replies to one prompt the one with fewer faults is the better one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from gptlib.writing.quality import ngrams, words

# what begins another message: the mark of the chat template, or a speaker's name before a colon
TURNS = ("<|im_start|>", "\nUser:", "\nAssistant:", "\nA:", "\nB:")


class Reply(NamedTuple):
    """A reply that a model wrote."""

    text: str
    ended: bool  # whether it said its end token before the limit
    ids: Sequence[int] = ()  # its tokens, the end token included


class Choice(NamedTuple):
    """A prompt, the reply with the fewest faults and the one with the most."""

    prompt: Any
    chosen: Reply
    rejected: Reply


def judge_reply(text: str, ended: bool, *, longest: int = 60,
                turns: Sequence[str] = TURNS) -> dict[str, str]:
    """The faults of a reply, each with its evidence; none if it is sound.

    empty          it holds no word
    unfinished     it was cut off at the limit
    rambles        it has more than `longest` words
    repeats        four words in a row stand in it twice (case and punctuation do not count)
    other speaker  it begins another message: one of `turns` stands in it, "\\n" being a new line
    """
    faults = {}
    count, times = len(words(text)), Counter(ngrams(text, 4))
    if not count:
        faults["empty"] = "no word"
    if not ended:
        faults["unfinished"] = "no end token"
    if count > longest:
        faults["rambles"] = f"{count} words"
    if again := [gram for gram, number in times.items() if number > 1]:
        faults["repeats"] = " ".join(again[0])
    if others := [turn for turn in turns if turn in f"\n{text}"]:
        faults["other speaker"] = others[0].strip()
    return faults


def make_choices(prompts: Sequence, replies: Sequence[Sequence[Reply]], *, longest: int = 60,
                 turns: Sequence[str] = TURNS) -> list[Choice]:
    """For each prompt the best and the worst of its replies; nothing where all are alike.

    Of several with as many faults the first one is taken. What the model should learn is only in
    the difference: if worse replies are longer ones, it learns above all to be brief.
    """
    if len(prompts) != len(replies):
        raise ValueError(f"got {len(prompts)} prompts and {len(replies)} lists of replies; "
                         f"expected as many")
    found = []
    for prompt, several in zip(prompts, replies):
        counts = [len(judge_reply(reply.text, reply.ended, longest=longest, turns=turns))
                  for reply in several]
        if counts and min(counts) < max(counts):
            best, worst = counts.index(min(counts)), counts.index(max(counts))
            found.append(Choice(prompt, several[best], several[worst]))
    return found
