"""What the story model shall read: mixtures compared at the same number of steps, for 8.3.1.

    python tools/old_books.py    # what is missing in book/results/old_books.csv: 50 minutes

Every arm trains the same small model from nothing on the train part of case 1 and is judged by the
stories of the validation part, each read from its beginning. All arms share one tokenizer. A run
that is in the file is not repeated; remove its line to do so.

once        every story once, and the novels
some        the books told to small children several times (`stories.REPEATS`), and the novels
more        the same, twice as often
alone       every story once and no novels, so that each is read more often
four books  some, without Grimm and Andersen
"""

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from time import process_time

import torch

from gptlib.model.gpt import GPT
from gptlib.runtime import setup
from gptlib.text import stories
from gptlib.text.corpora import END
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.stories import Story
from gptlib.text.tokenizers import BPETokenizer
from gptlib.theory import information
from gptlib.training.evaluation import token_losses
from gptlib.training.loop import train
from gptlib.training.run_config import RunConfig
from gptlib.training.runs import build, encode_documents
from gptlib.training.tuning import append_result, read_results

RESULTS = Path(__file__).resolve().parent.parent / "book" / "results" / "old_books.csv"
RECIPE = RunConfig(("stories",), vocab_size=2048, n_layer=2, n_head=4, n_embd=128,
                   context_length=128, batch_size=8, dropout=0.1, learning_rate=0.006,
                   warmup_steps=50, decay_fraction=0.8, max_steps=1600)
TALES = {"grimm": 3, "andersen": 3}  # how often, where the told books come several times
ARMS, SEEDS = ("once", "some", "more", "alone", "four books"), range(3)
COLUMNS = ["arm", "seed", "steps", "tokens", "readings", "loss", "bits_per_byte", "seconds"]
HEADER = ["command: python tools/old_books.py",
          f"torch {torch.__version__}, {platform.machine()}, one thread",
          "tokens: of one reading; loss: nats per token in training, mean of the last 100 steps",
          "bits_per_byte: of the validation part"]


def texts(arm: str, train_part: Sequence[Story]) -> list[str]:
    """What an arm reads in one reading."""
    if arm in ("once", "alone"):
        return [s.text for s in train_part] + (stories.novels() if arm == "once" else [])
    kept = [s for s in train_part if arm != "four books" or s.book not in TALES]
    times = 2 if arm == "more" else 1
    often = stories.REPEATS | TALES
    told = [s.text for s in kept for _ in range(times * often[s.book])]
    return told + stories.novels()


def bits_per_byte(model: GPT, tokenizer: BPETokenizer, judges: Sequence[Story]) -> float:
    """Of all stories together, each read from its beginning in windows of the model's context."""
    nats = []
    for story in judges:
        ids = torch.tensor([tokenizer.special_tokens[END], *tokenizer.encode(story.text)])
        data = TokenDataset(ids, min(model.config.context_length, len(ids) - 1))
        nats.append(token_losses(model, data).double().sum().item())
    return information.bits_per_byte(sum(nats), sum(len(s.text.encode()) for s in judges))


def run(arm: str, seed: int, tokenizer: BPETokenizer, parts: stories.Parts) -> dict:
    """One model, from nothing to its verdict."""
    began = process_time()
    setup(seed, threads=1)
    ids = encode_documents(texts(arm, parts.train), tokenizer)
    model, optimizer, plan = build(RECIPE, tokenizer.vocab_size)
    drawn = batches(TokenDataset(ids, RECIPE.context_length), RECIPE.batch_size, seed)
    losses = [step.loss for step in train(model, drawn, optimizer, plan)]
    read = RECIPE.max_steps * RECIPE.batch_size * RECIPE.context_length
    return {"arm": arm, "seed": seed, "steps": RECIPE.max_steps, "tokens": len(ids),
            "readings": read / len(ids), "loss": sum(losses[-100:]) / len(losses[-100:]),
            "bits_per_byte": bits_per_byte(model, tokenizer, parts.validation),
            "seconds": process_time() - began}


def main() -> int:
    """Run what the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results file")
    out = parser.parse_args().out
    rows = read_results(out)[1] if out.exists() else []
    known = {(row["arm"], row["seed"]) for row in rows}
    parts = stories.parts(stories.tales())
    tokenizer = BPETokenizer.train(END.join(texts("once", parts.train)), RECIPE.vocab_size, (END,))
    for seed in SEEDS:
        for arm in ARMS:
            if (arm, seed) not in known:
                row = run(arm, seed, tokenizer, parts)
                append_result(out, COLUMNS, row, HEADER)
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
