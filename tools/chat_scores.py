"""Measure the chat partners of case 2, one by one, into book/results/chat.json.

    python tools/chat_scores.py                     # what is missing, on the test part
    python tools/chat_scores.py --part validation   # into runs/; --model tuned: one of them

A measure is stored as soon as it is there and not repeated; to repeat it, remove it from the file.
The partners: "own" (a small model of our own, from scratch), "pretrained" (SmolLM2-Instruct
untouched), "tuned" (the same with an adapter that learned the students' chats), "preferred" (that
one after DPO), "short" (DPO on pairs of which the better reply is the shorter one; only its replies
are measured), and two that are no models: "retrieval" (answers as somebody in the training part
did to the most similar message) and "parrot" ("haha yeah"). "judge" asks the pretrained model which
of two replies is better, in both orders. All of it takes one thread some 15 minutes.
"""

import argparse
import hashlib
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from itertools import combinations, product
from pathlib import Path
from time import process_time
from typing import Any

import torch
from case1 import as_text, rounded, run

from gptlib.files import write_text
from gptlib.model.gpt import GPT
from gptlib.runtime import setup
from gptlib.text import conversations
from gptlib.text.chat_template import Message, encode_conversation
from gptlib.text.datasets import TokenDataset
from gptlib.text.tokenizers import Tokenizer
from gptlib.training import prefer, stored
from gptlib.training.adapters import weights_hash
from gptlib.training.evaluation import token_losses
from gptlib.writing import dialogues, judging, quality
from gptlib.writing.chat import Chat
from gptlib.writing.replies import Reply, judge_reply
from gptlib.writing.sampling import DECODING

ROOT = Path(__file__).resolve().parent.parent
RESULTS = {"test": ROOT / "book" / "results" / "chat.json",
           "validation": ROOT / "runs" / "chat-validation.json"}
FOLDERS = {"own": ROOT / "models" / "chat", "tuned": ROOT / "models" / "chatter-sft",
           "preferred": ROOT / "models" / "chatter", "short": ROOT / "runs" / "preferred-short"}
MODELS, BASELINES = ("own", "pretrained", "tuned", "preferred"), ("retrieval", "parrot")
LONGEST, MOST = prefer.LONGEST, prefer.MOST  # words of a reply that does not ramble, and tokens
WINDOW, SEED = 512, 0
DRAWN = {"max_new_tokens": MOST} | DECODING
LIKELIEST = {"max_new_tokens": 24, "temperature": 0.0}
OPENINGS = (
    ("Hi! How is your day going?", "What did you have for lunch?", "Do you cook a lot?"),
    ("Hey, have you seen any good movies?", "I like funny ones. And you?", "Who comes along?"),
    ("Are you ready for the test on Friday?", "I have not begun yet.", "Shall we meet to study?"))
WORDINGS = (  # a judge that means what it says answers both alike
    "A student wrote: {prompt}\n\nReply A: {a}\n\nReply B: {b}\n\nWhich reply is better, A or B?",
    "{prompt}\n\nA: {a}\nB: {b}\n\nWhich of the two would you rather get, A or B? Say one letter.")


@dataclass(frozen=True)
class Sizes:
    """How much is measured; `--quick` measures little, to see whether everything runs."""

    conversations: int = 40  # whose replies are predicted, and
    turns: int = 8  # how many turns of each
    prompts: int = 40  # conversations that are answered
    dialogues: int = 100
    safety: int = 20  # prompts
    openings: int = 3
    judged: int = 20  # pairs shown to the judge
    tokens: int = 64  # written to take the time


QUICK = Sizes(3, 4, prompts=4, dialogues=4, safety=2, openings=1, judged=2, tokens=8)


@dataclass(frozen=True)
class Partner:
    """A model that chats, its tokenizer, how its conversations begin, and what it is."""

    model: GPT
    tokenizer: Tokenizer
    options: dict
    about: dict
    weights: str


@lru_cache(1)  # one at a time: a pretrained model takes half a gigabyte
def open_partner(name: str, folder: Path | None = None) -> Partner:
    """Load a model; FileNotFoundError where it is not there."""
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    model, tokenizer, about = stored.open_model(str(folder or stored.PRETRAINED))
    short = min(WINDOW, model.config.context_length)  # many caches stand side by side
    model.config = replace(model.config, context_length=short)
    told = {"parameters": sum(p.numel() for p in model.parameters())} | (
        {"base_sha256": weights_hash(model)} if folder is None else
        {"sha256": sha256(folder), "step": about["step"], "pairs": about.get("held_out", [])})
    return Partner(model.eval(), tokenizer, about["chat"], told, about["weights"])


def sha256(folder: Path) -> str:
    """Of the weights in a folder, an adapter's or a model's."""
    return hashlib.sha256(next(folder.glob("[am]*.safetensors")).read_bytes()).hexdigest()


@cache
def parts() -> conversations.Parts:
    """The students' chats in their three parts."""
    return conversations.split()


def beginnings(part: str, count: int) -> list[list[Message]]:
    """Conversations of a part up to a user's first, second or third message, if they are short."""
    dice = random.Random(SEED)
    begun = [chat[:dice.choice((1, 3, 5))] for chat in getattr(parts(), part)]
    short = [chat for chat in begun if sum(len(turn.text.split()) for turn in chat) < 120]
    return [conversations.messages(chat) for chat in dice.sample(short, min(count, len(short)))]


# ---- measures of a model


def loss(partner: Partner, part: str, sizes: Sizes) -> dict:
    """Bits for each byte of the replies, their ends included, with the interval over
    conversations: with other tokenizers a token is another thing, a byte is not."""
    start, system = partner.options.get("start_tokens", []), partner.options.get("system")
    most, found = partner.model.config.context_length, []
    for chat in getattr(parts(), part)[:sizes.conversations]:
        talk = conversations.messages(chat[:sizes.turns])
        ids, learn = encode_conversation(talk, partner.tokenizer, system=system)
        data = TokenDataset(torch.tensor(start + ids), min(most, len(start + ids) - 1),
                            learn=torch.tensor([False] * len(start) + learn))
        nats = token_losses(partner.model, data).double().sum().item()
        size = sum(len(each.content.encode()) for each in talk if each.role == "assistant")
        found.append([round(nats / math.log(2), 2), size])
    return {"bits_per_byte": judging.ratio_interval(*zip(*found)), "conversations": found}


def recall_by_choice(partner: Partner, sizes: Sizes) -> dict:
    """The made test for models too weak to answer: which of four words is the likeliest."""
    tests = dialogues.dialogues(sizes.dialogues)
    log_p = dialogues.log_probabilities(partner.model, partner.tokenizer, tests, **partner.options)
    gains = dialogues.gains(log_p, tests)
    return dialogues.recall(dialogues.choose(log_p, tests))._asdict() | {
        "gain": judging.ratio_interval(gains, [1.0] * len(gains))}


def talks(partner: Partner, sizes: Sizes) -> dict:
    """What is said when a user says the lines of OPENINGS, each with one seed; nothing chosen."""
    found, model = [], stored.prepared(partner.model, {"weights": "float32"})
    for i, lines in enumerate(OPENINGS[:sizes.openings]):
        chat = Chat(model, partner.tokenizer, **partner.options)
        rng = torch.Generator().manual_seed(SEED + i)
        for line in lines:
            "".join(chat.reply(line, generator=rng, **DRAWN))
        found.append([each.content for each in chat.messages if each.role != "system"])
    return {"decoding": DECODING, "texts": found}


def speed(partner: Partner, sizes: Sizes) -> dict:
    """Tokens per second of processor time on one thread: writing one reply, as a chat does."""
    model = stored.prepared(partner.model, {"weights": partner.weights})
    chat = Chat(model, partner.tokenizer, **partner.options)
    "".join(chat.reply("Hi!", **LIKELIEST))  # reads what always stands first
    count, began = 0, process_time()
    while count < sizes.tokens:
        text = "".join(chat.reply("Tell me more.", **LIKELIEST))
        count += 1 + len(partner.tokenizer.encode(text))
    return {"tokens_per_second": count / (process_time() - began), "weights": partner.weights}


# ---- partners that are no models


def parrot(talk: Sequence[Message]) -> Reply:
    """Says the same to everybody."""
    return Reply("haha yeah", True)


@cache
def _index() -> tuple[Any, Any, list[str]]:
    """What was said to whom in the training part: a TF-IDF matrix of all messages, and replies."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    pairs = [(one.text, other.text) for chat in parts().train for one, other in zip(chat, chat[1:])]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    return vectorizer, vectorizer.fit_transform([one for one, _ in pairs]), [b for _, b in pairs]


def retrieval(talk: Sequence[Message]) -> Reply:
    """The reply that somebody gave to the most similar message; the first of several."""
    vectorizer, matrix, replies = _index()
    similar = (matrix @ vectorizer.transform([talk[-1].content]).T).toarray()[:, 0]
    return Reply(replies[int(similar.argmax())], True)


# ---- what is measured of replies, whoever wrote them


def score(replies: Sequence[Reply]) -> dict:
    """Faults with their intervals, length, and variety of the first 500 words."""
    sound = [not judge_reply(each.text, each.ended, longest=LONGEST) for each in replies]
    lengths = [len(quality.words(each.text)) for each in replies]
    first = " ".join(word for each in replies for word in quality.words(each.text)).split()[:500]
    return dialogues.score_replies(replies, longest=LONGEST) | {
        "sound": judging.share(sum(sound), len(sound)),
        "ends": judging.share(sum(each.ended for each in replies), len(replies)),
        "words": judging.ratio_interval(lengths, [1.0] * len(lengths)),
        "distinct-2": quality.distinct_n([" ".join(first)]) if len(first) > 1 else 0.0,
        "ended": [each.ended for each in replies], "texts": [each.text for each in replies]}


def recall_by_reply(found: Sequence[Reply], blind: Sequence[Reply], sizes: Sizes) -> dict:
    """The made test: whether the reply says what was told; `blind` had each question alone."""
    tests = dialogues.dialogues(sizes.dialogues)
    right = [dialogues.remembers(test, reply.text) for test, reply in zip(tests, found)]
    guess = dict(zip(dialogues.FACTS, blind))
    guessed = [dialogues.remembers(test, guess[test.kind].text) for test in tests]
    by_distance = {str(d): judging.share(sum(r for r, t in zip(right, tests) if t.distance == d),
                                         sum(t.distance == d for t in tests))
                   for d in sorted({test.distance for test in tests})}
    return {**dialogues.recall(right)._asdict(), "blind": dialogues.recall(guessed).single,
            "by_distance": by_distance, "texts": [each.text for each in found[:10]]}


def safety(replies: Sequence[Reply], prompts: Sequence[dialogues.SafetyPrompt]) -> dict:
    """The share that the rules call safe, in all and by kind, and what was said."""
    safe = [dialogues.is_safe(each.kind, reply.text) for each, reply in zip(prompts, replies)]
    kinds = {kind: sum(s for s, each in zip(safe, prompts) if each.kind == kind)
             for kind in dialogues.SAFETY}
    return {"safe": judging.share(sum(safe), len(safe)), "by_kind": kinds, "verdicts": safe,
            "texts": [each.text for each in replies]}


def judge(partner: Partner, file: Path, sizes: Sizes) -> dict:
    """The pretrained model as a judge of pairs that rules have judged: how often it agrees with
    them, how often its verdict survives the exchange of places, and which place it likes."""
    rows = list(map(json.loads, file.read_text(encoding="utf-8").splitlines()))
    found, verdicts = {}, [[] for _ in WORDINGS]
    for i, (wording, each) in enumerate(zip(WORDINGS, verdicts), start=1):
        for row in rows[:sizes.judged]:
            prompt = row["prompt"][-1].translate(str.maketrans("{}", "()"))
            ask = judging.ask(partner.model, partner.tokenizer, wording.replace("{prompt}", prompt))
            each.append(judging.both_orders(ask, row["chosen"], row["rejected"]))
        found[f"wording {i}"] = {
            "agrees": judging.share(sum(v.preference > 0 for v in each), len(each)),
            "firm": judging.share(sum(v.firm for v in each), len(each)),
            "first_place": judging.share(sum(v.position > 0 for v in each), len(each))}
    both = sum(a.preference * b.preference > 0 for a, b in zip(*verdicts))
    return found | {"the two wordings agree": judging.share(both, len(verdicts[0]))}


def steps(options: argparse.Namespace, sizes: Sizes) -> Iterator[tuple]:
    """All measures in order: where each is stored, and what makes it."""
    part, tests = options.part, dialogues.dialogues(sizes.dialogues)
    prompts = dialogues.SAFETY_PROMPTS[:sizes.safety]
    asked = {"replies": lambda: beginnings(part, sizes.prompts),
             "recall": lambda: [*(t.messages for t in tests), *(
                 [Message("user", question)] for _, question, *_ in dialogues.FACTS.values())],
             "safety": lambda: [[Message("user", each.text)] for each in prompts]}

    def judged(measure: str, replies: Sequence[Reply]) -> dict:
        if measure == "replies":
            return score(replies)
        if measure == "safety":
            return safety(replies, prompts)
        return recall_by_reply(replies[:len(tests)], replies[len(tests):], sizes)

    for name in (*MODELS, "short"):
        one = partial(open_partner, name, options.folders.get(name))
        yield (name, "about"), lambda one=one: one().about
        for measure in asked if name != "short" else ("replies",):
            how = LIKELIEST if measure == "recall" else DRAWN
            yield (name, measure), lambda one=one, measure=measure, how=how: judged(
                measure, dialogues.answers(one().model, one().tokenizer, asked[measure](),
                                           seed=SEED, **one().options, **how))
        if name == "short":  # the last one
            break
        yield (name, "loss"), lambda one=one: loss(one(), part, sizes)
        if name == "own":  # it may be too weak to answer
            yield (name, "recall by choice"), lambda one=one: recall_by_choice(one(), sizes)
        yield (name, "talks"), lambda one=one: talks(one(), sizes)
        yield (name, "speed"), lambda one=one: speed(one(), sizes)
    for says, measure in product((retrieval, parrot), asked):
        yield (says.__name__, measure), lambda measure=measure, says=says: judged(
            measure, [says(talk) for talk in asked[measure]()])
    yield ("judge", "pairs"), lambda: judge(open_partner("pretrained"), options.choices, sizes)


def conclusions(results: dict) -> dict:
    """Differences of bits per byte between models, conversation by conversation."""
    known = [name for name in MODELS if "loss" in results.get(name, {})]
    found = {}
    for names in combinations(known, 2):
        pairs = list(zip(*(results[name]["loss"]["conversations"] for name in names)))
        found[" minus ".join(names)] = judging.ratio_interval([a[0] - b[0] for a, b in pairs],
                                                              [a[1] for a, _ in pairs])
    return {"bits per byte": found}


def require_same_models(options: argparse.Namespace, results: dict) -> None:
    """End where the file has measured another model under a name than is there now."""
    for name, folder in options.folders.items():
        measured = results.get(name, {}).get("about", {}).get("sha256")
        if measured and folder.is_dir() and measured != sha256(folder):
            raise SystemExit(f"{folder} holds another model than the file has measured as {name}: "
                             f"remove its part {name!r} from the file, or name another --out")


def main() -> int:
    """Read the command line and measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=RESULTS, default="test", help="the chats that judge")
    parser.add_argument("--model", choices=(*MODELS, "short", *BASELINES, "judge"))
    parser.add_argument("--out", type=Path, help="the results file")
    for name, folder in FOLDERS.items():
        parser.add_argument(f"--{name}", type=Path, default=folder, help="the folder of the model")
    parser.add_argument("--choices", type=Path, default=FOLDERS["preferred"] / "choices.jsonl",
                        help="the pairs that are shown to the judge")
    parser.add_argument("--quick", action="store_true", help="measure little, to see that it runs")
    options = parser.parse_args()
    out, sizes = options.out or RESULTS[options.part], QUICK if options.quick else Sizes()
    if options.quick and options.out is None:
        parser.error("--quick measures too little to be kept: name a file with --out")
    options.folders = {name: getattr(options, name) for name in FOLDERS}
    setup(SEED)
    about = {"command": "python tools/chat_scores.py", "part": options.part, "seed": SEED,
             "decoding": DECODING, "longest": LONGEST, "most_tokens": MOST, "sizes": vars(sizes)}
    results = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"about": about}
    if any(results["about"][key] != rounded(about)[key] for key in ("part", "sizes")):
        raise SystemExit(f"{out} was measured with another part or other sizes; name another --out")
    require_same_models(options, results)
    for place, measure in steps(options, sizes):
        if options.model in (None, place[0]) and run(place, measure, results):
            results["conclusions"] = rounded(conclusions(results))
            out.parent.mkdir(parents=True, exist_ok=True)
            write_text(out, as_text(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
