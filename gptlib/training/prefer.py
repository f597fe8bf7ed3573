"""Improve a model that chats by pairs of its own replies: DPO, in a folder.

    python -m gptlib.training.prefer runs/chatter/best runs/preferred

The model answers beginnings of the students' conversations, each several times. Of each prompt's
replies the one with the fewest faults (`gptlib.writing.replies`) is the better one, and the one
with the most the worse: nobody's taste, only what can be checked by eye. They are in choices.jsonl.

Most faults come with length, so the worse reply is mostly the longer one, and a model that was
taught by such pairs said little more than "Haha". Therefore the better reply is the longest of the
good ones, the worse the shortest of the bad ones, and pairs of very different lengths are left out.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import typer

from gptlib.files import is_unused, write_text
from gptlib.formats.gguf import load_gguf
from gptlib.model.gpt import GPT
from gptlib.runtime import setup
from gptlib.text import conversations
from gptlib.text.chat_template import Message, encode_chat
from gptlib.text.tokenizers import Tokenizer
from gptlib.training import run_log
from gptlib.training.adapters import BASE, load_adapted, load_adapter, save_adapter
from gptlib.training.config import TrainConfig
from gptlib.training.loop import train
from gptlib.training.optim import AdamW
from gptlib.training.preference import (
    DPO,
    Pair,
    PairScores,
    pair_batches,
    pair_log_probabilities,
    pair_scores,
)
from gptlib.writing.dialogues import answers
from gptlib.writing.replies import Choice, make_choices

PROMPTS, REPLIES = 480, 4  # conversations that are answered, and how often each
LONGEST = 35  # words: nine messages of ten are not longer
DECODING = {"temperature": 0.8, "top_p": 0.95}  # a little livelier than in use
PLAN = TrainConfig(max_steps=40, warmup_steps=4, schedule="linear")
LONGER = 2.5  # times the tokens of the better reply that the worse one may have
BATCH = 2  # pairs in a step
LEAST = 20  # pairs, of which every fifth is held out
CONTEXT, MOST = 320, 80  # tokens of a conversation with its reply, and of the reply


def beginnings(count: int, seed: int = 0) -> list[list[Message]]:
    """Conversations of the training part up to a user's message, the first, second or third."""
    dice = random.Random(seed)
    pieces = dice.sample(conversations.pieces(conversations.split().train), count)
    return [conversations.messages(piece[:dice.choice((1, 3, 5))]) for piece in pieces]


def choices(model: GPT, tokenizer: Tokenizer, start: Sequence[int] = ()) -> list[Choice]:
    """Pairs of the model's replies to `beginnings`, of which one has fewer faults and is not much
    shorter; `start` are the ids that stand before each conversation."""
    asked = [(talk, ids) for talk in beginnings(PROMPTS)
             if len(ids := [*start, *encode_chat(talk, tokenizer)]) <= CONTEXT - MOST]
    replies = answers(model, tokenizer, [talk for talk, _ in asked for _ in range(REPLIES)],
                      start_tokens=start, max_new_tokens=MOST, **DECODING)
    found = [sorted(replies[i:i + REPLIES], key=lambda reply: len(reply.ids))
             for i in range(0, len(replies), REPLIES)]
    longest = make_choices(asked, [each[::-1] for each in found], longest=LONGEST)
    shortest = make_choices(asked, found, longest=LONGEST)
    pairs = [Choice(a.prompt, a.chosen, b.rejected) for a, b in zip(longest, shortest)]
    return [pair for pair in pairs if len(pair.rejected.ids) <= LONGER * len(pair.chosen.ids)]


def as_pairs(found: Sequence[Choice]) -> list[Pair]:
    """The same as ids, for DPO."""
    return [Pair(choice.prompt[1], choice.chosen.ids, choice.rejected.ids) for choice in found]


def prefer(model: GPT, pairs: Sequence[Pair], folder: Path, about: dict,
           learning_rate: float = 5e-5, plan: TrainConfig = PLAN) -> tuple[PairScores, PairScores]:
    """DPO of the LoRA beside `model`; the scores of every fifth pair, which is held out, before
    and after. `folder` becomes an adapter."""
    held_out, learned = pairs[::5], [pair for i, pair in enumerate(pairs) if i % 5]
    reference, theirs = (pair_log_probabilities(model, part, BATCH) for part in (learned, held_out))
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], learning_rate,
                      betas=(0.9, 0.95), weight_decay=0.0)
    began = perf_counter()
    for step in train(model, pair_batches(learned, reference, BATCH), optimizer, plan, loss=DPO()):
        run_log.append(folder, step, None, perf_counter() - began)
    scores = [pair_scores(log_p, theirs) for log_p in
              (theirs, pair_log_probabilities(model, held_out, BATCH))]
    told = about | {"pairs": len(learned), "held_out": [each._asdict() for each in scores]}
    save_adapter(folder, model, BASE, told, step=plan.max_steps)
    return scores[0], scores[1]


def main(adapter: Path, folder: Path, threads: int | None = None) -> None:
    """Improve the ADAPTER of a model that chats, into FOLDER."""
    setup(0, threads)
    if not is_unused(folder):
        raise ValueError(f"{folder} is there and is no empty folder; expected a new or an empty "
                         f"one for the adapter: choose another")
    merged, tokenizer, about = load_adapted(adapter, CONTEXT)
    if "chat" not in about:
        raise ValueError(f"{adapter} was not trained to chat; expected an adapter written by "
                         f"`python -m gptlib.training.chats`")
    found = choices(merged, tokenizer, about["chat"]["start_tokens"])
    if len(found) < LEAST:
        raise ValueError(f"there are {len(found)} pairs of replies of which one is better; "
                         f"expected at least {LEAST}: the model makes too few faults to learn from")
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"prompt": [message.content for message in choice.prompt[0]],
                         "chosen": choice.chosen.text, "rejected": choice.rejected.text},
                        ensure_ascii=False) for choice in found)
    write_text(folder / "choices.jsonl", "".join(line + "\n" for line in lines))
    lengths = [sum(len(each.ids) for each in side) / len(found) for side in
               zip(*((choice.chosen, choice.rejected) for choice in found))]
    print(f"{len(found)} pairs; tokens of the chosen {lengths[0]:.1f}, of the rejected "
          f"{lengths[1]:.1f}", flush=True)
    del merged
    model, _ = load_gguf(context_length=CONTEXT)
    load_adapter(adapter, model)
    before, after = prefer(model, as_pairs(found), folder, {"chat": about["chat"]})
    print(f"before: {before}\nafter:  {after}")


if __name__ == "__main__":
    typer.run(main)
