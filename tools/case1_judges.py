"""What needs no road in case 1, and what judges its judges: controls with a known answer."""

import random
import re
from functools import cache, partial
from itertools import combinations
from pathlib import Path

import case1_roads as roads
from case1_roads import SEED, Road, Sizes

from gptlib.text import stories, storyworld
from gptlib.theory.ngram import NGram
from gptlib.training.runs import encode_documents
from gptlib.writing import judging
from gptlib.writing.heroes import hero, keeps_hero

SPOILED = ("sentences", "words", "other half")  # known to be worse; the others show a bias


def hero_control(sizes: Sizes) -> dict:
    """How often `keeps_hero` says yes where it should, and where it should not; beside it the
    rule that any capitalised word of the first half stands in the last third."""
    tales = list(storyworld.tales(sizes.heroes, storyworld.TEST))
    made = [tale.text for tale in tales]
    heroes = [tale.facts[0].roles["hero"] for tale in tales]
    known = stories.short_tales([*roads.parts().train, *roads.parts().validation])
    true = [" ".join(story.text.split()[:300]) for story in known[:sizes.heroes]]
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
    tokenizer = roads.open_road("books", books).tokenizer
    tales = [story.text for story in roads.parts().train]
    made = [tale.text for tale in storyworld.tales(sizes.learned or 2000)]
    found = {}
    for name, known, test in (("true", tales, roads.true_scenes(part, sizes)),
                              ("made", made, roads.made_scenes(sizes))):
        trigram = NGram(3, tokenizer.vocab_size).fit(encode_documents(known, tokenizer))
        score = cache(partial(judging.continuation_bits, trigram, tokenizer))
        found[name] = {"trigram": roads.scene_test(score, test),
                       "shared words": roads.scene_test(judging.shared_words(known), test)}
    return found


def passages(part: str, count: int, words: int = 90) -> list[str]:
    """Whole sentences of true stories, about `words` words each, from the beginning of a
    paragraph, story after story in turn."""
    draw, found = random.Random(SEED), []
    texts = [story.text.split("\n\n") for story in getattr(roads.parts(), part)]
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
    score = roads.likelihood(road)
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
