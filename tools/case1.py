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
import json
import platform
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from time import perf_counter

import case1_roads as roads
import torch
from case1_judges import (
    SPOILED,
    blind_pairs,
    hero_control,
    judge_control,
    judges,
    scene_controls,
)
from case1_roads import PROMPT, ROOT, SEED, WINDOW, Road, Sizes

from gptlib.files import write_text
from gptlib.runtime import setup
from gptlib.training import stored
from gptlib.writing import judging

RESULTS = {"test": ROOT / "book" / "results" / "case1.json",
           "validation": ROOT / "runs" / "case1-validation.json"}
ROADS = ("books", "world", "adapted", "pretrained")
PENALTY = {"repetition_penalty": stored.TELLING["repetition_penalty"]}
ENDING = {name: stored.TELLING[name] for name in ("after", "per_hundred")}
VARIANTS = {"books": {"plain": {}}, "world": {"plain": {}},
            "adapted": {"plain": {}, "penalty": PENALTY, "ending": ENDING,
                        "penalty and ending": PENALTY | ENDING},
            "pretrained": {"plain": {}, "penalty": PENALTY}}
QUICK = Sizes(stories=3, scenes=2, tales=8, heroes=20, pairs=3, samples=3, tokens=24, learned=50)


def steps(options: argparse.Namespace, sizes: Sizes, results: dict) -> Iterator[tuple]:
    """All measures in order: where each is stored, and what makes it."""
    folders = {"books": options.books, "world": options.world, "adapted": options.adapter}
    texts = partial(roads.texts_of, options.part, sizes)
    if options.road in (None, "controls"):
        yield ("controls", "heroes"), partial(hero_control, sizes)
        yield ("controls", "scenes"), partial(scene_controls, options.part, sizes, options.books)
    for name in ROADS:
        if options.road not in (None, name):
            continue
        road = partial(same_road, name, folders.get(name), results)
        yield (name, "about"), lambda road=road: road().about
        yield (name, "bits"), lambda road=road: roads.bits(road(), texts())
        yield (name, "scenes"), lambda road=road: roads.scene_test(
            roads.likelihood(road()), roads.true_scenes(options.part, sizes))
        if name == "world":
            yield (name, "made scenes"), lambda road=road: roads.scene_test(
                roads.likelihood(road()), roads.made_scenes(sizes))
        for variant, settings in VARIANTS[name].items():
            yield (name, f"samples, {variant}"), lambda road=road, settings=settings: roads.samples(
                road(), settings, sizes)
    if options.road in (None, "controls"):
        yield from judge_steps(texts, sizes, results)


def same_road(name: str, folder: Path | None, results: dict) -> Road:
    """The road, if it is the one that the file has measured so far."""
    road = roads.open_road(name, folder)
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
            judges(roads.open_road("pretrained"))[name], plain["pretrained"], sizes)
        if results.get("judges", {}).get(name, {}).get("usable") and len(plain) == len(ROADS):
            yield ("pairs", name), lambda name=name: blind_pairs(
                judges(roads.open_road("pretrained"))[name],
                plain | {"true stories": texts()})


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
    titles = [story.title for story in getattr(roads.parts(), options.part)]
    about = {"command": "python tools/case1.py", "part": options.part, "seed": SEED,
             "window": WINDOW, "prompt": PROMPT, "sizes": vars(sizes),
             "stories": titles[:sizes.stories],
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
