"""The controls of chapter 9.3: every measurement is a line of book/results/chats.csv.

    python tools/chats.py                # what is missing: about 15 minutes of one thread
    python tools/chats.py --part small   # one part

small       a small model from nothing: pretraining and then replies or everything, and each of
            both stages alone for as many steps as the two together; three seeds
base        from the stored base: replies or everything for the same steps, three seeds; and other
            rates, with what each does to a text of another kind
pretrained  bits of the replies, conversation by conversation: SmolLM2-Instruct untouched, told to
            be a student, and with the adapter
memory      the made dialogues, pair by pair: how many of both are right, and the gain in nats

A line that is in the file is not measured again. To repeat everything, remove the file first.
"""

import argparse
import copy
import dataclasses
import platform
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from time import process_time

import torch
from torch import Tensor

from gptlib.formats.checkpoint import load_checkpoint, model_path
from gptlib.model.gpt import GPT
from gptlib.runtime import setup
from gptlib.text import conversations, corpora
from gptlib.text.chat_template import SMOLLM2_SYSTEM, chat_text, encode_conversation
from gptlib.text.corpora import END
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.tokenizers import Tokenizer
from gptlib.training.config import TrainConfig
from gptlib.training.evaluation import evaluate_loss, token_losses
from gptlib.training.loop import train
from gptlib.training.optim import AdamW, parameter_groups
from gptlib.training.run_config import RunConfig
from gptlib.training.runs import build, encode_documents
from gptlib.training.stored import open_model, start_of_text
from gptlib.training.tuning import append_result, read_results
from gptlib.writing import dialogues

RESULTS = Path(__file__).resolve().parent.parent / "book" / "results" / "chats.csv"
COLUMNS = ["part", "arm", "seed", "steps", "learning_rate", "item", "validation", "tales", "nats",
           "tokens", "bytes", "right", "seconds"]
PARTS = ("small", "base", "pretrained", "memory")
SEEDS = range(3)
FIRST, SECOND = 240, 60  # steps of the two stages of the small model
SMALL = RunConfig(("whole chats", "prose"), block="gpt2", context_length=256, n_layer=2, n_head=4,
                  n_embd=128, embedding_std=0.1, learning_rate=2e-3, warmup_steps=20,
                  decay_fraction=0.6, batch_size=4)  # the recipe of the stored base, smaller
SMALL_TURNS = 8
EVERY = 4  # one chat in so many, and one document of prose, is enough for it
BASE_STEPS, BASE_BATCH = 40, 4
RATE, OTHER_RATES = 1e-3, (1e-4, 1e-2)
JUDGES, TURNS = 3, 8  # one validation chat in three, and its first turns
TALES = 20_000  # characters of the first of the children's stories, which no model here has read
STUDENT = ("You are a student at an American university. You chat with another student. Answer in "
           "one or two short, casual sentences.")
PAIRS = 20  # of made dialogues
HEADER = ["command: python tools/chats.py",
          f"torch {torch.__version__}, {platform.machine()}, one thread",
          "seeds: in the column seed; everything else has 0",
          "validation and tales in nats per token, seconds of processor time"]
Row = dict[str, object]


@cache
def parts() -> conversations.Parts:
    """The students' chats in their three parts."""
    return conversations.split()


def conversation(turns: Sequence[conversations.Turn], tokenizer: Tokenizer, start: Sequence[int],
                 system: str | None) -> tuple[Tensor, Tensor, int]:
    """Ids and what of them is a reply, with what stands before; and the bytes of the replies."""
    talk = conversations.messages(turns)
    ids, learn = encode_conversation(talk, tokenizer, system=system)
    size = sum(len(each.content.encode()) for each in talk if each.role == "assistant")
    return torch.tensor([*start, *ids]), torch.tensor([False] * len(start) + learn), size


def judged(model: GPT, tokenizer: Tokenizer, start: Sequence[int] = (),
           system: str | None = None) -> Iterator[dict]:
    """Of each validation chat that judges: nats, tokens and bytes of its replies."""
    for number in range(0, len(parts().validation), JUDGES):
        ids, learn, size = conversation(parts().validation[number][:TURNS], tokenizer, start,
                                        system)
        data = TokenDataset(ids, min(len(ids) - 1, model.config.context_length), learn=learn)
        losses = token_losses(model, data).double()
        yield {"item": number, "nats": losses.sum().item(), "tokens": len(losses), "bytes": size}


def verdict(model: GPT, tokenizer: Tokenizer) -> dict:
    """Nats a token of the replies, and of a text of another kind."""
    found = list(judged(model, tokenizer, start_of_text(tokenizer)))
    ids = encode_documents([corpora.documents("stories")[0][:TALES]], tokenizer)
    total, count = (sum(row[key] for row in found) for key in ("nats", "tokens"))
    return {"validation": total / count,
            "tales": evaluate_loss(model, TokenDataset(ids, model.config.context_length))}


# ---- our own models


@cache
def base() -> tuple[GPT, Tokenizer]:
    """The pretrained model of our own."""
    return load_checkpoint(model_path("chat-base"))[:2]


@cache
def learned(context: int, turns: int, every: int) -> dict[str, TokenDataset]:
    """Three ways to read the training part: whole with prose, and in pieces with the loss on the
    replies or on everything. The windows of the last two are the same."""
    tokenizer, chats = base()[1], parts().train[::every]
    end = tokenizer.special_tokens[END]
    whole = [chat_text(conversations.messages(chat), reply=False).rstrip("\n") for chat in chats]
    texts = encode_documents(whole + corpora.documents("prose")[::every], tokenizer)
    ids, learn = conversations.encode(conversations.pieces(chats, turns), tokenizer, both=True)
    everything = ids != end
    return {"texts": TokenDataset(texts, context),
            "replies": TokenDataset(ids, context, begin_at=end, learn=learn),
            "everything": TokenDataset(ids, context, begin_at=end, learn=everything)}


def pretrain(data: TokenDataset, steps: int, seed: int) -> GPT:
    """A small model from nothing, as `python -m gptlib train` does it."""
    setup(seed, threads=1)
    config = dataclasses.replace(SMALL, max_steps=steps)
    model, optimizer, plan = build(config, base()[1].vocab_size)
    for _ in train(model, batches(data, config.batch_size, seed), optimizer, plan):
        pass
    return model


def finetune(model: GPT, data: TokenDataset, steps: int, batch: int, seed: int,
             rate: float = RATE) -> GPT:
    """A copy of the model after SFT, as `gptlib.training.chats` does it."""
    setup(seed, threads=1)
    model = copy.deepcopy(model)
    optimizer = AdamW(parameter_groups(model, weight_decay=0.1), rate)
    plan = TrainConfig(max_steps=steps, warmup_steps=5, schedule="linear", decay_fraction=0.8)
    for _ in train(model, batches(data, batch, seed), optimizer, plan):
        pass
    return model


def small(seed: int) -> Iterator[Row]:
    """Two stages against one, all with FIRST + SECOND steps; and what the first one reaches."""
    data, began = learned(SMALL.context_length, SMALL_TURNS, EVERY), process_time()

    def row(arm: str, steps: int, model: GPT) -> Row:
        nonlocal began
        told = {"part": "small", "arm": arm, "seed": seed, "steps": steps,
                "seconds": process_time() - began, **verdict(model, base()[1])}
        began = process_time()
        return told

    first = pretrain(data["texts"], FIRST, seed)
    yield row("pretraining", FIRST, first)
    for arm in ("replies", "everything"):
        model = finetune(first, data[arm], SECOND, SMALL.batch_size, seed)
        yield row(arm, FIRST + SECOND, model) | {"learning_rate": RATE}
    for arm, kind in (("pretraining alone", "texts"), ("replies alone", "replies")):
        yield row(arm, FIRST + SECOND, pretrain(data[kind], FIRST + SECOND, seed))


def from_base(known: set[tuple]) -> Iterator[Row]:
    """Both masks, seed by seed, then other rates; the base itself first."""
    model, tokenizer = base()
    data = learned(model.config.context_length, conversations.PIECE, 1)
    if ("base", "untouched", 0, 0.0) not in known:
        yield {"part": "base", "arm": "untouched", "seed": 0, "steps": 0, "learning_rate": 0.0,
               "seconds": 0.0, **verdict(model, tokenizer)}
    plans = [*product(("replies", "everything"), SEEDS, (RATE,)),
             *product(("replies",), (0,), OTHER_RATES)]
    for arm, seed, rate in plans:
        if ("base", arm, seed, rate) not in known:
            began = process_time()
            tuned = finetune(model, data[arm], BASE_STEPS, BASE_BATCH, seed, rate)
            yield {"part": "base", "arm": arm, "seed": seed, "steps": BASE_STEPS,
                   "learning_rate": rate, "seconds": process_time() - began,
                   **verdict(tuned, tokenizer)}


# ---- models that come from elsewhere


def partners(adapter: str) -> dict[str, tuple[str, dict]]:
    """Each partner's model, and what stands before its conversations."""
    return {"untouched": ("smollm2", {"system": SMOLLM2_SYSTEM}),
            "told": ("smollm2", {"system": STUDENT}), "adapter": (adapter, {}),
            "own base": ("chat-base", {}), "own": ("chat", {})}


def opened(name: str, options: dict) -> tuple[GPT, Tokenizer, dict]:
    """A model ready to be judged; those that learned the chats begin as they did there."""
    model, tokenizer, about = open_model(name)
    return model.eval(), tokenizer, options or {"start_tokens": about["chat"]["start_tokens"]}


def pretrained(adapter: str, arm: str) -> Iterator[Row]:
    """One row for each conversation."""
    name, options = partners(adapter)[arm]
    model, tokenizer, options = opened(name, options)
    for row in judged(model, tokenizer, options.get("start_tokens", ()), options.get("system")):
        yield {"part": "pretrained", "arm": arm} | row


def memory(adapter: str, arm: str) -> Iterator[Row]:
    """One row for each pair of made dialogues."""
    name, options = partners(adapter)[arm]
    model, tokenizer, options = opened(name, options)
    tests = dialogues.dialogues(2 * PAIRS)
    log_p = dialogues.log_probabilities(model, tokenizer, tests, **options)
    right, gains = dialogues.choose(log_p, tests), dialogues.gains(log_p, tests)
    for i, gain in enumerate(gains):
        yield {"part": "memory", "arm": arm, "item": i, "right": sum(right[2 * i:2 * i + 2]),
               "nats": gain}


# ---- the file


def missing(rows: list[Row], only: str | None, adapter: str) -> Iterator[Row]:
    """Measure what the file lacks. A seed of the small model, and a partner, in one go."""
    known = {(row["part"], row["arm"], row["seed"], row["learning_rate"]) for row in rows}
    for seed in SEEDS if only in (None, "small") else ():
        if ("small", "replies alone", seed, "") not in known:
            yield from list(small(seed))
    if only in (None, "base"):
        yield from from_base(known)
    for part, arm in product(PARTS[2:], partners(adapter)):
        if only in (None, part) and (part, arm) not in {key[:2] for key in known}:
            yield from list((pretrained if part == "pretrained" else memory)(adapter, arm))


def main() -> int:
    """Read the command line and measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=PARTS, help="one part only")
    parser.add_argument("--adapter", default="chatter", help="the adapter after SFT, by name or "
                        "folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results file")
    options = parser.parse_args()
    setup(0, threads=1)
    rows = read_results(options.out)[1] if options.out.exists() else []
    for row in missing(rows, options.part, options.adapter):
        append_result(options.out, COLUMNS, row, HEADER)
        print(", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in row.items()), flush=True)
    print(f"complete: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
