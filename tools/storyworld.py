"""Which facts of the made world a model keeps, by depth, recipe and time: chapter 8.3.2's figure.

    python tools/storyworld.py                 # book/results/storyworld.csv
    python tools/storyworld.py FOLDER ...      # book/results/storyworld_course.csv

The first command trains models by the recipe of models/storyworld, one change at a time, and stops
after 700 steps, before the rate begins to fall. A run that is in the file is not
repeated; remove its lines to do so. The second command measures checkpoints of the long run:
copies of its folder that were made while it trained.

Each line is one model after some steps. Of the words that a tale of the test part has decided (the
hero's name once it is said, the tool that fits the obstacle), it says which share the model finds
among the words of their list: 1 of 56 names, of 36 kinds, of 30 places, of 42 words for things, of
10 tools. Where `tales` is given, so many were written and read by `storyreader`, and `hold` hold.
"""

import argparse
import csv
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from gptlib.formats.checkpoint import load_checkpoint
from gptlib.model.gpt import GPT
from gptlib.runtime import mode, setup
from gptlib.text import storyreader, storyworld
from gptlib.text.corpora import END
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.tokenizers import Tokenizer
from gptlib.training.loop import train
from gptlib.training.run_config import RunConfig
from gptlib.training.runs import build, prepare
from gptlib.training.tuning import read_results
from gptlib.writing.generation import generate
from gptlib.writing.sampling import DECODING

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "runs" / "tales-data"
RESULTS = ROOT / "book" / "results"
RECIPE = {"vocab_size": 2048, "block": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 128,
          "embedding_std": 0.1, "context_length": 384, "windows": "documents", "batch_size": 12,
          "learning_rate": 0.0015, "warmup_steps": 50, "decay_fraction": 0.6, "max_steps": 2000}
STEPS, EVERY, TALES = 700, 50, 20
# layers, where windows begin, deviation of the embeddings at the start; RUNS add the seed, and
# four layers with seed 0 are the long run itself
MODELS = [(2, "documents", 0.1), (1, "documents", 0.1), (2, "documents", 0.02),
          (2, "anywhere", 0.1), (4, "documents", 0.1)]
RUNS = [(*kind, seed) for seed in range(3) for kind in MODELS if (kind[0], seed) != (4, 0)]
SETTINGS = ["n_layer", "windows", "embedding_std", "seed"]
LISTS = {"names": list(storyworld.NAMES), "kinds": storyworld.KINDS,
         "places": list(storyworld.PLACES), "things": storyworld.COLOURS + storyworld.THINGS,
         "help": storyworld.TOOLS}
COLUMNS = [*SETTINGS, "step", *LISTS]
COURSE = [*COLUMNS, "tales", "hold", *(f"{kind} broken" for kind in storyreader.CONTRADICTIONS)]


def decided(tale: storyworld.Tale) -> dict[str, str]:
    """The words that name the tale's facts, with the list that each belongs to."""
    roles = tale.facts[0].roles
    people = [roles[role] for role in storyreader.PEOPLE if role in roles]
    places = [roles[role] for role in storyreader.PLACES if role in roles]
    return {**{person.name: "names" for person in people},
            **{person.kind: "kinds" for person in people},
            **{place.noun: "places" for place in places},
            **dict.fromkeys(roles["thing"].noun.split(), "things"), roles["tool"].noun: "help"}


def questions(tale: storyworld.Tale, tokenizer: Tokenizer) -> Iterator[tuple[str, int, list[int]]]:
    """What the tale has decided: (list, place of the token in its ids, tokens of the list).

    The ids begin with the end token. A word counts from its second mention on; the tool that fits
    counts from its first, because the obstacle is said before.
    """
    lists, said = decided(tale), set()
    encode = functools.cache(tokenizer.encode)
    for i, token in enumerate(tokenizer.encode(tale.text), start=1):
        piece = tokenizer.decode([token])
        word = piece.strip()
        if word in lists and (lists[word] == "help" or word in said):
            before = piece[:len(piece) - len(word)]  # a space, or nothing behind a quotation mark
            options = [encode(before + other) for other in LISTS[lists[word]]]
            yield lists[word], i, [ids[0] for ids in options if len(ids) == 1]
        said.add(word)


@torch.no_grad()
def kept(model: GPT, tokenizer: Tokenizer, tales: list[storyworld.Tale]) -> dict[str, float]:
    """For each list the share of decided words that the model, asked for one of the list, finds.

    It reads the true tale up to the word, or as much of that as fits into its context.
    """
    T, right = model.config.context_length, {name: [] for name in LISTS}
    with mode(model, training=False):
        for tale in tales:
            ids = torch.tensor([tokenizer.special_tokens[END], *tokenizer.encode(tale.text)])
            logits = model(ids[None, :T])[0]
            for name, i, options in questions(tale, tokenizer):
                scores = logits[i - 1] if i <= T else model(ids[None, i - T:i])[0, -1]
                right[name].append(options[int(scores[options].argmax())] == int(ids[i]))
    return {name: round(sum(found) / len(found), 4) for name, found in right.items()}


def told(model: GPT, tokenizer: Tokenizer, count: int, seed: int = 0) -> dict[str, int]:
    """How many of `count` tales hold, written with the decoding of the command line, and how many
    contradict themselves in each kind."""
    end = tokenizer.special_tokens[END]
    prompt = torch.tensor([[end, *tokenizer.encode("Once upon a time")]] * count)
    rows = generate(model, prompt, max_new_tokens=400, stop_tokens=(end,), **DECODING,
                    generator=torch.Generator().manual_seed(seed))
    readings = [storyreader.read(tokenizer.decode([i for i in row if i != end]))
                for row in rows.tolist()]
    broken = {f"{kind} broken": sum(reading.contradictions[kind] > 0 for reading in readings)
              for kind in storyreader.CONTRADICTIONS}
    return {"tales": count, "hold": sum(reading.holds for reading in readings), **broken}


def run(settings: tuple[int, str, float, int], ids: torch.Tensor,
        tokenizer: Tokenizer) -> Iterator[dict]:
    """Train one model from nothing and measure it on the way."""
    chosen = dict(zip(SETTINGS, settings))
    config = RunConfig(corpus=("stories",), **(RECIPE | chosen))
    setup(config.seed, threads=1)
    at = tokenizer.special_tokens[END] if config.windows == "documents" else None
    windows = TokenDataset(ids, config.context_length, begin_at=at)
    model, optimizer, plan = build(config, tokenizer.vocab_size)
    tales = list(storyworld.tales(TALES, storyworld.TEST))
    drawn = batches(windows, config.batch_size, config.seed)
    for step in train(model, drawn, optimizer, plan):
        if step.step % EVERY == 0:
            yield {**chosen, "step": step.step, **kept(model, tokenizer, tales)}
        if step.step == STEPS:
            return


def read(path: Path) -> list[dict]:
    """The rows of a results file; none if it is not there."""
    return read_results(path)[1] if path.exists() else []


def write(path: Path, columns: list[str], rows: list[dict], command: str) -> None:
    """Write a results file anew, with what it was made with."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(f"# command: python tools/storyworld.py{command}\n"
                   f"# torch {torch.__version__}, one thread\n")
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def missing(rows: list[dict]) -> list[tuple[int, str, float, int]]:
    """The runs that are not, or not to their end, in the file."""
    done = {tuple(row[name] for name in SETTINGS) for row in rows if row["step"] == STEPS}
    return [settings for settings in RUNS if settings not in done]


def sweep(path: Path) -> None:
    """Run what is missing in the file."""
    rows = read(path)
    if not missing(rows):
        return
    if not DATA.exists():
        storyworld.write(DATA)
    corpus = (str(DATA / "tales.txt"), str(DATA / "more.txt"))
    setup(0, threads=1)
    tokenizer, data, _ = prepare(RunConfig(corpus=corpus, **RECIPE))
    for settings in missing(rows):
        for row in run(settings, data.ids, tokenizer):
            print(row, flush=True)
            rows.append(row)
        write(path, COLUMNS, rows, "")


def course(path: Path, folders: list[Path], count: int) -> None:
    """Measure checkpoints of one run; `count` tales are written where the step allows."""
    setup(0, threads=1)
    tales, rows = list(storyworld.tales(TALES, storyworld.TEST)), read(path)
    for folder in folders:
        model, tokenizer, about = load_checkpoint(folder)
        if about["step"] in {row["step"] for row in rows}:
            continue
        chosen = {name: about["run"][name] for name in SETTINGS}
        rows.append({**chosen, "step": about["step"], **kept(model, tokenizer, tales),
                     **told(model, tokenizer, count)})
        rows.sort(key=lambda row: row["step"])
        print(rows[-1], flush=True)
        write(path, COURSE, rows, " FOLDER ...")


def main() -> int:
    """Run the sweep, or measure the folders that are named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="checkpoints of one run")
    parser.add_argument("--tales", type=int, default=64, help="tales written by each checkpoint")
    options = parser.parse_args()
    if options.folders:
        course(RESULTS / "storyworld_course.csv", options.folders, options.tales)
    else:
        sweep(RESULTS / "storyworld.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
