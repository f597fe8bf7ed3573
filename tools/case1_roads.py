"""The roads of case 1: their models, the texts that judge them, and what is measured of each."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import islice
from pathlib import Path

import torch

from gptlib.formats.checkpoint import load_checkpoint
from gptlib.formats.gguf import load_gguf
from gptlib.model.gpt import GPT
from gptlib.text import stories, storyreader, storyworld
from gptlib.text.corpora import END
from gptlib.text.datasets import TokenDataset
from gptlib.text.tokenizers import Tokenizer
from gptlib.training.adapters import load_adapted, weights_hash
from gptlib.training.evaluation import token_losses
from gptlib.writing import judging, quality
from gptlib.writing.closing import Closing
from gptlib.writing.generation import generate
from gptlib.writing.heroes import hero, keeps_hero
from gptlib.writing.inference import InferenceModel
from gptlib.writing.sampling import DECODING

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"books": "stories", "world": "storyworld", "adapted": "storyteller"}  # in models/
SEED, WINDOW, PROMPT = 0, 256, "Once upon a time"


@dataclass(frozen=True)
class Sizes:
    """How much is measured; `--quick` measures little, to see whether everything runs."""

    stories: int | None = None  # of the part; None: all
    scenes: int = 8  # of a story
    tales: int = 64  # of the made world, for its own scene test
    heroes: int = 300  # tales and stories on which the hero is looked for
    pairs: int = 40  # passages on which a judge is judged
    samples: int = 16
    tokens: int = 400  # of a sample, at most
    learned: int | None = None  # training texts in which copies are looked for; None: all


@dataclass(frozen=True)
class Road:
    """A writer: its model, its tokenizer, and what it is."""

    name: str
    model: GPT
    tokenizer: Tokenizer
    about: dict


# ---- the roads and their texts


@lru_cache(1)  # one at a time: a pretrained model takes half a gigabyte
def open_road(name: str, folder: Path | None = None) -> Road:
    """Load a road; `folder` instead of its place in models/. FileNotFoundError without one."""
    folder = folder or ROOT / "models" / FOLDERS[name] if name in FOLDERS else None
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder.name}")
    if name in ("books", "world"):
        model, tokenizer, _ = load_checkpoint(folder)
        about = {"sha256": _sha256(folder / "model.safetensors")}
    elif name == "adapted":
        model, tokenizer, told = load_adapted(folder, 1024)
        about = {"sha256": _sha256(folder / "adapter.safetensors"), "step": told["step"]}
    else:
        model, tokenizer = load_gguf(context_length=1024)
        about = {"base_sha256": weights_hash(model)}
    about["parameters"] = sum(p.numel() for p in model.parameters())
    return Road(name, model.eval(), tokenizer, about)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def parts() -> stories.Parts:
    """The three parts of case 1."""
    return stories.parts(stories.tales())


def texts_of(part: str, sizes: Sizes) -> list[str]:
    """The texts that judge."""
    return [story.text for story in getattr(parts(), part)][:sizes.stories]


def learned(name: str) -> Iterable[str]:
    """The texts that a road has learned from; of the pretrained model nobody knows, so the tales
    stand for them."""
    if name == "world":
        count = storyworld.TOLD + storyworld.MORE
        return (tale.text for tale in storyworld.tales(count))
    tales = [story.text for story in parts().train]
    return tales + stories.novels() if name == "books" else tales


# ---- measures of a road


def bits(road: Road, texts: list[str]) -> dict:
    """Bits per byte, and by position in the window, with intervals over stories."""
    end, found = road.tokenizer.special_tokens[END], []
    for text in texts:
        ids = [end, *road.tokenizer.encode(text)]
        data = TokenDataset(torch.tensor(ids), WINDOW)
        losses = token_losses(road.model, data, batch_size=4)
        found.append((losses, judging.byte_sizes(ids[1:], road.tokenizer)))
    story_bits = [losses.double().sum().item() / torch.log(torch.tensor(2.0)).item()
                  for losses, _ in found]
    sizes = [len(text.encode()) for text in texts]
    places = torch.stack([judging.by_position(*each, WINDOW) for each in found])  # stories, bins, 2
    starts = [1, *(edge + 1 for edge in judging.EDGES)]
    return {"bits_per_byte": judging.ratio_interval(story_bits, sizes),
            "positions": {f"{first}-{last}": judging.ratio_interval(*places[:, i].T)
                          for i, (first, last) in enumerate(zip(starts, judging.EDGES))},
            "stories": [[round(b, 1), size] for b, size in zip(story_bits, sizes)]}


def likelihood(road: Road) -> judging.Score:
    """Bits per byte of a passage behind a context, each looked up once."""
    return cache(partial(judging.continuation_bits, road.model, road.tokenizer))


def scene_test(score: judging.Score, found: list[judging.Scene]) -> dict:
    """Accuracy against both rivals: with the context, without it, and by what it gains."""
    ways = {"with context": score, "without context": lambda context, passage: score("", passage),
            "gain": lambda context, passage: score(context, passage) - score("", passage)}
    return {"scenes": len(found), "stories": len({scene.story for scene in found})} | {
        rival: {way: judging.accuracy(judging.margins(each, found, rival))
                for way, each in ways.items()} for rival in ("other", "same")}


def true_scenes(part: str, sizes: Sizes) -> list[judging.Scene]:
    """Scenes of the true stories."""
    return judging.scenes(texts_of(part, sizes), sizes.scenes, seed=SEED)


def made_scenes(sizes: Sizes) -> list[judging.Scene]:
    """Scenes of tales of the made world that no model has seen; they are shorter."""
    tales = [tale.text for tale in storyworld.tales(sizes.tales, storyworld.TEST)]
    return judging.scenes(tales, 2, context=60, length=25, seed=SEED)


def samples(road: Road, options: dict, sizes: Sizes) -> dict:
    """The first texts from one seed, and what can be measured of them without a model."""
    options = dict(options)
    end = road.tokenizer.special_tokens[END]
    model = InferenceModel(road.model)
    if "after" in options:
        closing = {name: options.pop(name) for name in ("after", "per_hundred")}
        model = Closing(model, end, **closing)
    prompt = torch.tensor([[end, *road.tokenizer.encode(PROMPT)]] * sizes.samples)
    rows = generate(model, prompt, max_new_tokens=sizes.tokens, stop_tokens=(end,),
                    generator=torch.Generator().manual_seed(SEED), **DECODING, **options)
    closed = [row[-1] == end for row in rows.tolist()]
    texts = [road.tokenizer.decode([i for i in row if i != end]) for row in rows.tolist()]
    return {"decoding": DECODING | options, "seed": SEED, "closes": sum(closed),
            **text_measures(texts, road.name, sizes), "closed": closed, "texts": texts}


def text_measures(texts: list[str], name: str, sizes: Sizes) -> dict:
    """Length, hero, repetition, variety, copies and unknown words of a road's texts."""
    asked, copied = quality.ngram_set(texts, 8), set()
    known = list(islice(learned(name), sizes.learned))
    for text in known:  # only what is asked for: the n-grams of 60,000 tales would fill memory
        copied |= asked.intersection(quality.ngrams(text, 8))
    whole = [text for text in texts if len(quality.words(text)) >= 8]
    finder = quality.CopyFinder(known)
    lower = [word for text in texts for word in re.findall(r"\b[a-z]+\b", text)]
    kept = [keeps_hero(text) for text in texts]
    found = {"words": [len(quality.words(text)) for text in texts],
             "with_hero": sum(each is not None for each in kept), "keeps_hero": kept.count(True),
             "repetition_4": sum(map(quality.repetition, whole)) / len(whole),
             "distinct_2": quality.distinct_n(texts),
             "overlap_8": sum(quality.overlap(text, copied) for text in whole) / len(whole),
             "longest_copy": max(map(finder.longest, texts), key=lambda run: len(run.split())),
             "unknown_words": sum(word not in dictionary() for word in lower) / len(lower),
             "heroes": [str(hero(text) and (hero(text).name or hero(text).kind)) for text in texts]}
    if name == "world":
        readings = [storyreader.read(text) for text in texts]
        found["holds"] = sum(reading.holds for reading in readings)
    return found


@cache
def dictionary() -> frozenset[str]:
    """Every word of the training tales, the novels, and some tales of the made world."""
    made = [tale.text for tale in storyworld.tales(2000)]
    return frozenset(word for text in [*learned("books"), *made] for word in quality.words(text))
