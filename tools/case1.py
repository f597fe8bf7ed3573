"""One judge for the roads of case 1: measure them all into book/results/case1.json.

    python tools/case1.py                     # what is missing, on the test part
    python tools/case1.py --part validation   # into runs/case1-validation.json
    python tools/case1.py --road adapted      # one road, or "controls": what needs no road

Each measure is stored as soon as it is there and not repeated; to repeat one, remove it from the
file. The roads: "books" (old books, from scratch), "world" (a made story world, from scratch),
"adapted" (a pretrained model with an adapter), "pretrained" (the same model untouched). One thread
of a quiet core needs about an hour. Bits are those of each story behind an end token, in windows
of 256 tokens that do not overlap; the end token behind a story is not counted.
"""

import argparse
import hashlib
import json
import platform
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import combinations, islice
from pathlib import Path
from time import perf_counter

import torch

from gptlib.files import write_text
from gptlib.formats.checkpoint import load_checkpoint
from gptlib.formats.gguf import load_gguf
from gptlib.model.gpt import GPT
from gptlib.runtime import setup
from gptlib.text import stories, storyreader, storyworld
from gptlib.text.corpora import END
from gptlib.text.datasets import TokenDataset
from gptlib.text.tokenizers import Tokenizer
from gptlib.theory.ngram import NGram
from gptlib.training import stored
from gptlib.training.adapters import load_adapted, weights_hash
from gptlib.training.evaluation import token_losses
from gptlib.training.runs import encode_documents
from gptlib.writing import judging, quality
from gptlib.writing.closing import Closing
from gptlib.writing.generation import generate
from gptlib.writing.heroes import hero, keeps_hero
from gptlib.writing.inference import InferenceModel
from gptlib.writing.sampling import DECODING

ROOT = Path(__file__).resolve().parent.parent
RESULTS = {"test": ROOT / "book" / "results" / "case1.json",
           "validation": ROOT / "runs" / "case1-validation.json"}
ROADS = ("books", "world", "adapted", "pretrained")
FOLDERS = {"books": "stories", "world": "storyworld", "adapted": "storyteller"}  # in models/
SEED, WINDOW, PROMPT = 0, 256, "Once upon a time"
PENALTY = {"repetition_penalty": stored.TELLING["repetition_penalty"]}
ENDING = {name: stored.TELLING[name] for name in ("after", "per_hundred")}
VARIANTS = {"books": {"plain": {}}, "world": {"plain": {}},
            "adapted": {"plain": {}, "penalty": PENALTY, "ending": ENDING,
                        "penalty and ending": PENALTY | ENDING},
            "pretrained": {"plain": {}, "penalty": PENALTY}}
SPOILED = ("sentences", "words", "other half")  # known to be worse; the others show a bias


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


QUICK = Sizes(stories=3, scenes=2, tales=8, heroes=20, pairs=3, samples=3, tokens=24, learned=50)


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
        closing = {name: options.pop(name) for name in ENDING}
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


# ---- what needs no road, and what judges the judges


def hero_control(sizes: Sizes) -> dict:
    """How often `keeps_hero` says yes where it should, and where it should not; beside it the
    rule that any capitalised word of the first half stands in the last third."""
    tales = list(storyworld.tales(sizes.heroes, storyworld.TEST))
    made = [tale.text for tale in tales]
    heroes = [tale.facts[0].roles["hero"] for tale in tales]
    true = [" ".join(story.text.split()[:300]) for story in [*parts().train, *parts().validation]
            if story.book != "edgeworth-parents"][:sizes.heroes]
    sets = {"made": made, "made, hero exchanged": list(map(exchanged, tales)),
            "made, halves of two": list(map(judging.halves, made, made[1:] + made[:1])),
            "true": true, "true, halves of two":
            [judging.halves(text, true[(i + 37) % len(true)]) for i, text in enumerate(true)]}
    named = sum(found is not None and (found.name, found.kind) == (person.name, person.kind)
                for found, person in zip(map(hero, made), heroes))
    return {"name and kind found": judging.share(named, len(made))} | {
        name: {"keeps_hero": judging.share(sum(keeps_hero(text) is True for text in texts),
                                           len(texts)),
               "no hero found": sum(keeps_hero(text) is None for text in texts),
               "any capitalised word": judging.share(sum(map(a_name_returns, texts)), len(texts))}
        for name, texts in sets.items()}


def exchanged(tale: storyworld.Tale) -> str:
    """The tale with another hero in its last third: other name, other kind, the same sex."""
    draw, person = random.Random(SEED), tale.facts[0].roles["hero"]
    other = draw.choice([name for name, sex in storyworld.NAMES.items()
                         if sex == person.he and not re.search(rf"\b{name}\b", tale.text)])
    kind = draw.choice([kind for kind in storyworld.HEROES if kind not in tale.text])
    places = [word.start() for word in re.finditer(r"\S+", tale.text)]
    cut = places[-(len(places) // 3)]
    rest = re.sub(rf"\b{person.name}\b", other, tale.text[cut:])
    return tale.text[:cut] + re.sub(rf"\b{person.kind}\b", kind, rest)


def a_name_returns(text: str) -> bool:
    """The trivial rule: a word with a capital letter inside a sentence comes back at the end."""
    tokens = text.split()
    first, last = tokens[:len(tokens) // 2], tokens[-(len(tokens) // 3):]
    names = {re.sub(r"\W.*", "", word) for before, word in zip(first, first[1:])
             if word[0].isupper() and before[-1].isalpha()} - {"I"}
    return bool(names & {re.sub(r"\W.*", "", word) for word in last} - {""})


def scene_controls(part: str, sizes: Sizes, books: Path | None) -> dict:
    """The scene test of what sees no scene: a trigram model, and shared words alone."""
    tokenizer = open_road("books", books).tokenizer
    tales = [story.text for story in parts().train]
    made = [tale.text for tale in storyworld.tales(sizes.learned or 2000)]
    found = {}
    for name, known, test in (("true", tales, true_scenes(part, sizes)),
                              ("made", made, made_scenes(sizes))):
        trigram = NGram(3, tokenizer.vocab_size).fit(encode_documents(known, tokenizer))
        score = cache(partial(judging.continuation_bits, trigram, tokenizer))
        found[name] = {"trigram": scene_test(score, test),
                       "shared words": scene_test(judging.shared_words(known), test)}
    return found


def passages(part: str, count: int, words: int = 90) -> list[str]:
    """Whole sentences of true stories, about `words` words each, from the beginning of a
    paragraph, story after story in turn."""
    draw, found = random.Random(SEED), []
    texts = [story.text.split("\n\n") for story in getattr(parts(), part)]
    for i in range(20 * count):
        paragraphs = texts[i % len(texts)]
        tail = " ".join(paragraphs[draw.randrange(len(paragraphs)):])
        chosen: list[str] = []
        for sentence in judging.sentences(tail):
            if len(" ".join([*chosen, sentence]).split()) > words:
                break
            chosen.append(sentence)
        text = " ".join(" ".join(chosen).split())
        if len(set(judging.sentences(text))) > 2 and len(text.split()) > words // 2:
            found.append(text)
    return list(dict.fromkeys(found))[:count]


def judge_control(compare: judging.Compare, own: list[str], sizes: Sizes) -> dict:
    """What a judge is worth on pairs with a known answer, and which way it leans on others.

    Always on passages of the validation part. "cut" and "own" have no right answer: there the
    share says how often it prefers the longer, and a true passage to a text of its own.
    """
    true = passages("validation", sizes.pairs)
    rivals = {how: [judging.spoil(text, how, other, SEED + i) for i, (text, other) in
                    enumerate(zip(true, true[1:] + true[:1]))] for how in judging.SPOILS}
    rivals["own"] = [" ".join(text.split()[:len(other.split())]) for text, other in zip(own, true)]
    found, letters = {"pairs": len(true)}, []
    for how, texts in rivals.items():
        verdicts = [judging.both_orders(compare, text, rival) for text, rival in zip(true, texts)]
        found[how] = {"prefers the true one": judging.accuracy([v.preference for v in verdicts]),
                      "same in both orders": judging.share(sum(v.firm for v in verdicts),
                                                           len(verdicts)),
                      "preferences": [round(v.preference, 4) for v in verdicts]}
        letters += verdicts
    found["leaning to the first place"] = sum(v.position for v in letters) / len(letters)
    found["usable"] = all(found[how]["prefers the true one"].low > 0.5
                          for how in ("sentences", "repeated"))
    return found


def judges(road: Road) -> dict[str, judging.Compare]:
    """Three judges out of the pretrained model: asked in two wordings, by likelihood, by what the
    order of the sentences gains."""
    score = likelihood(road)
    gain = cache(partial(judging.order_gain, score))
    asked = {f"asked, wording {i + 1}": judging.ask(road.model, road.tokenizer, wording)
             for i, wording in enumerate(judging.WORDINGS)}
    return asked | {"likelihood": lambda first, second: score("", second) - score("", first),
                    "order": lambda first, second: gain(first) - gain(second)}


def blind_pairs(compare: judging.Compare, texts: dict[str, list[str]]) -> dict:
    """For each two writers, how often the first one's text number i is preferred to the other's,
    both cut to the length of the shorter."""
    found = {}
    for one, other in combinations(texts, 2):
        verdicts = []
        for a, b in zip(texts[one], texts[other]):
            length = min(len(a.split()), len(b.split()))
            a, b = (" ".join(text.split()[:length]) for text in (a, b))
            verdicts.append(judging.both_orders(compare, a, b).preference)
        found[f"{one} before {other}"] = judging.accuracy(verdicts)
    return found


# ---- the file


def steps(options: argparse.Namespace, sizes: Sizes, results: dict) -> Iterator[tuple]:
    """All measures in order: where each is stored, and what makes it."""
    folders = {"books": options.books, "world": options.world, "adapted": options.adapter}
    texts = partial(texts_of, options.part, sizes)
    if options.road in (None, "controls"):
        yield ("controls", "heroes"), partial(hero_control, sizes)
        yield ("controls", "scenes"), partial(scene_controls, options.part, sizes, options.books)
    for name in ROADS:
        if options.road not in (None, name):
            continue
        road = partial(same_road, name, folders.get(name), results)
        yield (name, "about"), lambda road=road: road().about
        yield (name, "bits"), lambda road=road: bits(road(), texts())
        yield (name, "scenes"), lambda road=road: scene_test(
            likelihood(road()), true_scenes(options.part, sizes))
        if name == "world":
            yield (name, "made scenes"), lambda road=road: scene_test(
                likelihood(road()), made_scenes(sizes))
        for variant, settings in VARIANTS[name].items():
            yield (name, f"samples, {variant}"), lambda road=road, settings=settings: samples(
                road(), settings, sizes)
    if options.road in (None, "controls"):
        yield from judge_steps(texts, sizes, results)


def same_road(name: str, folder: Path | None, results: dict) -> Road:
    """The road, if it is the one that the file has measured so far."""
    road = open_road(name, folder)
    stored = results.get(name, {}).get("about", road.about)
    if any(stored[key] != value for key, value in road.about.items()):
        raise SystemExit(f"{name} is {road.about} and the file has measured {stored}: remove "
                         f"its part {name!r} from the file, or name another --out")
    return road


def judge_steps(texts: Callable[[], list[str]], sizes: Sizes, results: dict) -> Iterator[tuple]:
    """The judges and their verdicts; they need the samples of the roads."""
    plain = {name: results[name]["samples, plain"]["texts"] for name in ROADS
             if "samples, plain" in results.get(name, {})}
    if "pretrained" not in plain:
        print("the judges wait for the samples of the road pretrained")
        return
    for name in ("asked, wording 1", "asked, wording 2", "likelihood", "order"):
        yield ("judges", name), lambda name=name: judge_control(
            judges(open_road("pretrained"))[name], plain["pretrained"], sizes)
        if results.get("judges", {}).get(name, {}).get("usable") and len(plain) == len(ROADS):
            yield ("pairs", name), lambda name=name: blind_pairs(
                judges(open_road("pretrained"))[name], plain | {"true stories": texts()})


def conclusions(results: dict) -> dict:
    """What follows from the stored numbers alone: differences of the roads, story by story, and
    how far the two wordings of the asked judge agree."""
    found: dict = {"bits per byte": {}}
    for one, other in combinations([name for name in ROADS if "bits" in results.get(name, {})], 2):
        pairs = list(zip(results[one]["bits"]["stories"], results[other]["bits"]["stories"]))
        found["bits per byte"][f"{one} minus {other}"] = judging.ratio_interval(
            [a[0] - b[0] for a, b in pairs], [a[1] for a, b in pairs])
    asked = [results.get("judges", {}).get(f"asked, wording {i}") for i in (1, 2)]
    if all(asked):
        pairs = [pair for how in (*SPOILED, "repeated", "cut")
                 for pair in zip(*(each[how]["preferences"] for each in asked))]
        found["the two wordings agree"] = judging.share(sum(a * b > 0 for a, b in pairs),
                                                        len(pairs))
    return found


def run(place: tuple[str, str], measure: Callable[[], dict], results: dict) -> bool:
    """Take a measure that the file lacks; False where it has it, or where a model is not there."""
    road, name = place
    if name in results.get(road, {}):
        return False
    began = perf_counter()
    try:
        found = measure()
    except FileNotFoundError as error:
        print(f"{road}, {name}: left out, {error}", flush=True)
        return False
    seconds = perf_counter() - began
    results.setdefault(road, {})[name] = rounded(found | {"seconds": round(seconds, 1)})
    print(f"{road}, {name}: {seconds:.0f} s", flush=True)
    return True


def rounded(value: object) -> object:
    """As the file has it: four digits behind the point, intervals as lists of three numbers."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


def as_text(results: dict) -> str:
    """JSON with a short list on one line."""
    text = json.dumps(rounded(results), indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ",
                  found.group(1)) + "]", text) + "\n"


def main() -> int:
    """Read the command line and measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=RESULTS, default="test", help="the stories that judge")
    parser.add_argument("--road", choices=(*ROADS, "controls"), help="one road only")
    parser.add_argument("--out", type=Path, help="the results file")
    parser.add_argument("--books", type=Path, help="folder instead of models/stories")
    parser.add_argument("--world", type=Path, help="folder instead of models/storyworld")
    parser.add_argument("--adapter", type=Path, help="folder instead of models/storyteller")
    parser.add_argument("--quick", action="store_true", help="measure little, to see that it runs")
    options = parser.parse_args()
    out, sizes = options.out or RESULTS[options.part], QUICK if options.quick else Sizes()
    if options.quick and options.out is None:
        parser.error("--quick measures little: name another file with --out")
    setup(SEED)
    about = {"command": "python tools/case1.py", "part": options.part, "seed": SEED,
             "window": WINDOW, "prompt": PROMPT, "sizes": vars(sizes),
             "stories": [story.title for story in getattr(parts(), options.part)][:sizes.stories],
             "versions": {"python": platform.python_version(), "torch": torch.__version__},
             "threads": torch.get_num_threads(), "intervals": "95 %: value, low, high"}
    results = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"about": about}
    if any(results["about"][key] != rounded(about)[key] for key in ("part", "sizes", "stories")):
        raise SystemExit(f"{out} was measured with other stories or sizes; name another --out")
    for place, measure in steps(options, sizes, results):
        if run(place, measure, results):
            results["conclusions"] = rounded(conclusions(results))
            out.parent.mkdir(parents=True, exist_ok=True)
            write_text(out, as_text(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
