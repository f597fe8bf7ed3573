"""Byte pair encoding on lists of numbers: learn merges, apply merges.

Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016),
over bytes and with the word split of Radford et al., "Language Models are Unsupervised Multitask
Learners" (2019), i.e. of GPT-2. The classes that readers use are in `gptlib.tokenizers`.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import regex

# GPT-2's split: English contractions; letters, digits or other signs, each with at most one space
# in front; then runs of white space, of which the last blank is left for the word that follows.
SPLIT = regex.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

# GPT-2 numbers the 256 bytes by this order: first those that Latin-1 prints as a visible sign.
_VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_ORDER = bytes(_VISIBLE + [b for b in range(256) if b not in _VISIBLE])
BYTE_IDS = {byte: i for i, byte in enumerate(BYTE_ORDER)}
# Files store each byte as one visible character: itself, or U+0100 and up for the invisible ones.
BYTE_CHARACTERS = {b: chr(b if i < len(_VISIBLE) else 256 + i - len(_VISIBLE))
                   for i, b in enumerate(BYTE_ORDER)}

Pair = tuple[int, int]


def split_words(text: str) -> list[str]:
    """Cut a text as GPT-2 does; `"".join` of the words is the text, and no token crosses a cut."""
    return SPLIT.findall(text)


def to_ids(word: str) -> list[int]:
    """The ids 0 to 255 of the UTF-8 bytes of a word, numbered as in GPT-2 (`BYTE_ORDER`)."""
    return [BYTE_IDS[byte] for byte in word.encode("utf-8")]


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace each occurrence of `pair` by `new_id`, from left to right.

    >>> merge([1, 2, 1, 2, 1], (1, 2), 256)
    [256, 256, 1]
    """
    merged = []
    for right in ids:
        if merged and (merged[-1], right) == pair:
            merged[-1] = new_id
        else:
            merged.append(right)
    return merged


def learn_merges(words: Mapping[str, int], max_merges: int) -> list[Pair]:
    """Learn up to `max_merges` pairs from {word: how often}; number i makes the id 256 + i.

    Each round merges the most frequent pair, on a tie the one with the smaller ids, as
    the `tokenizers` library does. Fewer merges come back if every word is one token.

    Recounting the text every round would take hours. So: count each unique word once,
    remember which words hold a pair, and keep the pairs in a heap. A count in the heap can
    be too high, since merging a neighbour takes pairs away; on top it is put right.
    """
    sequences = [to_ids(word) for word in words]
    weights = list(words.values())
    counts, places = _count_pairs(sequences, weights)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < max_merges:
        count, best = heapq.heappop(heap)
        if -count != counts[best]:
            if counts[best] > 0:
                heapq.heappush(heap, (-counts[best], best))
            continue
        new_id = 256 + len(merges)
        merges.append(best)
        created = set()
        for place in places.pop(best):
            before, weight = sequences[place], weights[place]
            after = sequences[place] = merge(before, best, new_id)
            for pair in pairwise(before):
                counts[pair] -= weight
            for pair in pairwise(after):
                counts[pair] += weight
                if new_id in pair:
                    created.add(pair)
                    places[pair].add(place)
        for pair in created:
            heapq.heappush(heap, (-counts[pair], pair))
    return merges


def _count_pairs(sequences: Sequence[Sequence[int]], weights: Sequence[int],
                 ) -> tuple[Counter[Pair], dict[Pair, set[int]]]:
    """How often each pair occurs in the text, and the places of the words that hold it."""
    counts: Counter[Pair] = Counter()
    places: dict[Pair, set[int]] = defaultdict(set)
    for place, ids in enumerate(sequences):
        for pair in pairwise(ids):
            counts[pair] += weights[place]
            places[pair].add(place)
    return counts, places


def apply_merges(ids: list[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Merge the pair of lowest rank, the leftmost first, until no pair has a rank.

    The symbols are a linked list and the candidates a heap, so that a word of n bytes costs
    n log n: a million letters without a blank are a word, too.
    """
    ids, end = [*ids, -1], len(ids)              # -1 marks the end, and symbols merged away
    after = [*range(1, end + 1), end]
    before = list(range(-1, end))
    heap = [(ranks[pair], i, pair) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank, i, pair = heapq.heappop(heap)
        j = after[i]
        if (ids[i], ids[j]) != pair:             # one of the two was merged meanwhile
            continue
        ids[i], ids[j] = 256 + rank, -1
        after[i] = after[j]
        before[after[j]] = i
        for left in (before[i], i):
            pair = (ids[left], ids[after[left]])
            if pair in ranks:                    # never with a -1
                heapq.heappush(heap, (ranks[pair], left, pair))
    return [i for i in ids if i >= 0]
