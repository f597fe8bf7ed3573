"""One judge for several writers: bits per byte story by story, the scene test, blind pairs.

Each measure is a function of its own, and each has a control that shows what it is worth: a model
that sees no scene, or pairs of which one side is known to be worse. A score of a passage is a
number, "the lower, the likelier"; intervals hold 95 % unless told otherwise.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gptlib.runtime import device_of, mode
from gptlib.text.chat_template import SMOLLM2_SYSTEM, Message, encode_chat
from gptlib.text.corpora import END
from gptlib.text.tokenizers import Tokenizer
from gptlib.writing.generation import LanguageModel
from gptlib.writing.quality import words

EDGES = (8, 16, 32, 64, 128, 256)  # the last positions of the bins of `by_position`
Score = Callable[[str, str], float]  # (context, passage) -> a number, the lower the likelier


class Interval(NamedTuple):
    """A measured value and the interval around it."""

    value: float
    low: float
    high: float


# ---- intervals


def ratio_interval(tops: Sequence[float] | Tensor, bottoms: Sequence[float] | Tensor,
                   level: float = 0.95, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """sum(tops) / sum(bottoms) with the interval over resampled units, such as whole stories.

    A story's words are hard or easy together, the next story is another one: so stories are drawn
    with replacement, not tokens (Efron, 1979). Two models are compared by the differences of their
    tops: what makes a story hard for both cancels. ValueError for fewer than 2 units.
    """
    tops, bottoms = (torch.as_tensor(each, dtype=torch.double) for each in (tops, bottoms))
    if tops.ndim != 1 or tops.shape != bottoms.shape or len(tops) < 2 or not 0 < level < 1:
        raise ValueError(f"got {len(tops)} tops, {len(bottoms)} bottoms and level {level}; "
                         f"expected one of each for at least 2 units, and a share such as 0.95")
    generator = torch.Generator().manual_seed(seed)
    ratios = torch.empty(resamples, dtype=torch.double)
    for i in range(resamples):
        drawn = torch.randint(len(tops), (len(tops),), generator=generator)
        ratios[i] = tops[drawn].sum() / bottoms[drawn].sum()
    tail = torch.tensor([(1 - level) / 2, 1 - (1 - level) / 2], dtype=torch.double)
    low, high = torch.quantile(ratios, tail).tolist()
    return Interval((tops.sum() / bottoms.sum()).item(), low, high)


def share(right: float, count: int, z: float = 1.959964) -> Interval:
    """right / count with the interval of Wilson (1927); a tie may count as half a success."""
    if not 0 <= right <= count or count < 1:
        raise ValueError(f"got {right} of {count}; expected 0 to count, and at least one trial")
    p, spread = right / count, z * z / count
    middle = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / count + spread / count / 4) / (1 + spread)
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half))  # free of rounding


# ---- bits


def byte_sizes(ids: Sequence[int], tokenizer: Tokenizer) -> Tensor:
    """How many bytes of text each id stands for, (N,) int64; a special token stands for none."""
    special = set(tokenizer.special_tokens.values())
    return torch.tensor([0 if i in special else len(tokenizer.token_bytes[i]) for i in ids])


def by_position(losses: Tensor, sizes: Tensor, context_length: int,
                edges: Sequence[int] = EDGES) -> Tensor:
    """Bits and bytes by position in the window, (bins, 2): does more context help?

    losses (N,) in nats and sizes (N,) in bytes are those of one story's tokens, predicted in
    windows of `context_length` that do not overlap. Bin i holds the positions (from 1) after
    edges[i - 1] up to edges[i]. Only full windows count, so that every bin has seen the same ones.
    """
    if edges[0] < 1 or edges[-1] > context_length or sorted(set(edges)) != list(edges):
        raise ValueError(f"edges are {edges}; expected rising positions, 1 to {context_length}")
    whole = len(losses) // context_length * context_length
    bits = losses[:whole].double().view(-1, context_length).sum(0) / math.log(2)
    both = torch.stack([bits, sizes[:whole].double().view(-1, context_length).sum(0)], dim=1)
    widths = [b - a for a, b in zip([0, *edges], edges)]
    return torch.stack([part.sum(0) for part in both[:edges[-1]].split(widths)])


def continuation_bits(model: LanguageModel, tokenizer: Tokenizer, context: str,
                      passage: str) -> float:
    """Bits per byte of `passage` behind `context` (or "": behind the end token alone).

    Both are encoded as one text, as in training. A token that holds bytes of both counts as one
    of the passage. Where the two are longer than the model's context, the oldest tokens go.
    """
    size = len(passage.encode())
    if not size:
        raise ValueError("the passage is empty; expected some text to predict")
    start = [tokenizer.special_tokens[END]] if END in tokenizer.special_tokens else []
    ids = [*start, *tokenizer.encode(context + passage)]
    left = byte_sizes(ids, tokenizer).flip(0).cumsum(0)
    count = min(int((left < size).sum()) + 1, len(ids) - 1)  # tokens of the passage
    limit = getattr(getattr(model, "config", None), "context_length", len(ids))
    if count > limit:
        raise ValueError(f"the passage has {count} tokens and the model's context_length is "
                         f"{limit}; expected a shorter passage")
    shown = torch.tensor(ids[-limit - 1:])
    with torch.inference_mode(), mode(model, training=False):
        logits = model(shown[None, :-1].to(device_of(model)))[0, -count:].float().cpu()
    nats = functional.cross_entropy(logits, shown[-count:], reduction="sum")
    return nats.item() / math.log(2) / size


# ---- the scene test


@dataclass(frozen=True)
class Scene:
    """A context and three passages of equal length in words: what follows it, a later passage
    of the same story, and what follows the context of a scene from another story."""

    story: int  # number of the story
    context: str
    true: str
    same: str
    other: str


def scenes(stories: Sequence[str], per_story: int = 8, context: int = 100, length: int = 40,
           seed: int = 0) -> list[Scene]:
    """Scenes of `stories`: `context` words up to a paragraph's end, and `length` words each.

    Every passage begins with a paragraph and stands at least `context` words into its story: no
    beginning gives itself away. Every true passage is the other passage of exactly one scene of
    another story, so that without the context nothing tells them apart. The same story's passage
    begins at least `length` words after the end of the true one. Stories too short are left out.
    """
    draw, found = random.Random(seed), []
    order = list(enumerate(stories))
    draw.shuffle(order)
    for number, text in order:
        places = [(word.start(), word.end()) for word in re.finditer(r"\S+", text)]
        starts = [i for i in range(context, len(places) - length + 1)
                  if "\n\n" in text[places[i - 1][1]:places[i][0]]]
        pairs = {i: [j for j in starts if j >= i + 2 * length] for i in starts}
        usable = [i for i in starts if pairs[i]]
        for i in sorted(draw.sample(usable, min(per_story, len(usable)))):
            true, same = (text[places[k][0]:places[k + length - 1][1]]
                          for k in (i, draw.choice(pairs[i])))
            found.append((number, text[places[i - context][0]:places[i][0]], true, same))
    most = max(Counter(number for number, *_ in found).values(), default=0)
    step = len(found) // 2
    if not 0 < most <= step:
        raise ValueError(f"{len(found)} scenes were found, {most} of them in one story; expected "
                         f"no story to have more than half: give more stories, or fewer per story")
    return [Scene(number, before, true, same, found[(k + step) % len(found)][2])
            for k, (number, before, true, same) in enumerate(found)]


def margins(score: Score, found: Sequence[Scene], rival: str) -> list[float]:
    """How much likelier the true passage is than the one called `rival`: "same" or "other"."""
    return [score(scene.context, getattr(scene, rival)) - score(scene.context, scene.true)
            for scene in found]


def accuracy(margin: Sequence[float]) -> Interval:
    """The share of margins above 0; a tie is half right."""
    return share(sum(m > 0 for m in margin) + sum(m == 0 for m in margin) / 2, len(margin))


def shared_words(texts: Iterable[str], weight: float = 0.1) -> Score:
    """A control that knows only which words the context has: bits per word of a passage.

    A unigram model of `texts`, mixed with the word frequencies of the context (the cache of Kuhn
    and De Mori, 1990): it sees shared names, and no order of words at all.
    """
    known = Counter(word for text in texts for word in words(text))
    total, kinds = known.total(), len(known) + 1  # one kind more for all that is unknown

    def score(context: str, passage: str) -> float:
        seen, found = Counter(words(context)), words(passage)
        recent = weight if seen else 0.0
        return -sum(math.log2((1 - recent) * (known[word] + 1) / (total + kinds)
                              + recent * seen[word] / max(1, seen.total()))
                    for word in found) / max(1, len(found))

    return score


# ---- pairs

SPOILS = ("sentences", "words", "other half", "cut", "repeated")
# Two wordings of one question: a judge that means what it says answers both alike.
WORDINGS = (
    "Here are two texts.\n\nText A:\n{a}\n\nText B:\n{b}\n\nWhich text is the better story for "
    "children, A or B? Answer with one letter.",
    "A: {a}\n\nB: {b}\n\nOne of these two stories makes sense from sentence to sentence, and a "
    "child would rather hear it. Which one is it, A or B? Answer with the letter only.",
)
Compare = Callable[[str, str], float]  # (first, second) -> above 0 where the first is preferred


def spoil(text: str, how: str, other: str = "", seed: int = 0) -> str:
    """A text that is known to be worse, or only other: one of `SPOILS`.

    "sentences" and "words" are shuffled; "other half" ends with the second half of `other`; "cut"
    is the first half, as good and shorter; "repeated" says its first 15 words again and again.
    """
    if how not in SPOILS:
        raise ValueError(f"how is {how!r}; expected one of {', '.join(SPOILS)}")
    draw, tokens = random.Random(seed), text.split()
    if how == "other half":
        return halves(text, other)
    if how == "cut":
        return " ".join(tokens[:len(tokens) // 2])
    if how == "repeated":
        return " ".join((tokens[:15] * len(tokens))[:len(tokens)])
    parts = tokens if how == "words" else sentences(text)
    if len(set(parts)) < 2:
        raise ValueError(f"the text has fewer than two different {how} to shuffle")
    shuffled = parts
    while shuffled == parts:
        shuffled = draw.sample(parts, len(parts))
    return " ".join(shuffled)


def halves(first: str, second: str) -> str:
    """The first half of one text and the second half of another, by words."""
    cuts = [[word.start() for word in re.finditer(r"\S+", text)] for text in (first, second)]
    return first[:cuts[0][len(cuts[0]) // 2]] + second[cuts[1][len(cuts[1]) // 2]:]


def sentences(text: str) -> list[str]:
    """The sentences of a text; the quotation mark that closes one belongs to it."""
    return re.split(r'(?<=[.!?])\s+|(?<=[.!?]")\s+', text.strip())


def ask(model: LanguageModel, tokenizer: Tokenizer, wording: str) -> Compare:
    """A chat model that is asked: ln p("A") - ln p("B") for two texts shown as A and B."""
    a, b = (tokenizer.encode(letter)[0] for letter in "AB")

    def compare(first: str, second: str) -> float:
        question = Message("user", wording.format(a=first, b=second))
        ids = torch.tensor([encode_chat([question], tokenizer, system=SMOLLM2_SYSTEM)])
        with torch.inference_mode(), mode(model, training=False):
            logits = model(ids.to(device_of(model)))[0, -1].float()
        return (logits[a] - logits[b]).item()

    return compare


def order_gain(score: Score, text: str, shuffles: int = 3, seed: int = 0) -> float:
    """How much likelier a text is than itself with its sentences shuffled, on average.

    Style and choice of words cancel, and a text that only repeats itself gains nothing. 0 for a
    text without two different sentences.
    """
    if len(set(sentences(text))) < 2:
        return 0.0
    worse = [score("", spoil(text, "sentences", seed=seed + i)) for i in range(shuffles)]
    return sum(worse) / shuffles - score("", " ".join(sentences(text)))


class Verdict(NamedTuple):
    """A pair judged in both orders, in the units of the judge (nats, or bits per byte)."""

    preference: float  # for the first text, whatever its place: above 0 where it is preferred
    position: float  # for the first place, whatever stands there

    @property
    def firm(self) -> bool:
        """Whether the same text wins in both orders."""
        return abs(self.preference) > abs(self.position)


def both_orders(compare: Compare, one: str, other: str) -> Verdict:
    """Judge a pair in both orders; the position takes no part in the preference."""
    there, back = compare(one, other), compare(other, one)
    return Verdict((there - back) / 2, (there + back) / 2)
