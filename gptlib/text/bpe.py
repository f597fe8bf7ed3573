"""Byte pair encoding on lists of numbers: learn merges, apply merges.

Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016),
over bytes and with the word split of Radford et al., "Language Models are Unsupervised Multitask
Learners" (2019), i.e. of GPT-2. The classes that readers use are in `gptlib.text.tokenizers`.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import regex

# GPT-2's split: English contractions; letters, digits or other signs, each with at most one space
# in front; then runs of white space, of which the last blank is left for the word that follows.
SPLIT = regex.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
_WORD_END = regex.compile(r"\S(?=\s)")

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


def split_parts(text: str, size: int = 1 << 18) -> Iterator[str]:
    """Cut a text into parts of about `size` characters, where `split_words` cuts it anyway.

    The words of all parts are the words of the text: none has a blank after another sign. All
    words of a long text at once take many times its memory, those of one part do not.
    """
    start = 0
    while start < len(text):
        found = _WORD_END.search(text, start + size)
        end = found.end() if found else len(text)
        yield text[start:end]
        start = end


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
    remember which words hold a pair, and recount only the neighbours of a merge. A word is a
    string with the character chr(i) for the id i, since strings are what Python searches fastest.
    The pairs are in a heap. A count there can be too high, since merging a neighbour takes
    pairs away; on top it is put right.
    """
    rows = ["".join(map(chr, to_ids(word))) for word in words]
    weights = list(words.values())
    counts, places = _count_pairs(rows, weights)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < max_merges:
        count, best = heapq.heappop(heap)
        if -count != counts[best]:
            heapq.heappush(heap, (-counts[best], best))
            continue
        if count == 0:  # the most frequent pair is nowhere left
            break
        new = chr(256 + len(merges))
        merges.append((ord(best[0]), ord(best[1])))
        created = defaultdict(list)
        for place in places.pop(best):
            rows[place], changes = _replace(rows[place], best, new)
            for old, pair in changes:
                counts[old] -= weights[place]
                counts[pair] += weights[place]
                created[pair].append(place)
        places |= created
        for pair in created:
            heapq.heappush(heap, (-counts[pair], pair))
    return merges


def _count_pairs(rows: Sequence[str], weights: Sequence[int],
                 ) -> tuple[Counter[str], dict[str, list[int]]]:
    """How often each pair occurs in the text, and the places of the words that hold it."""
    counts: Counter[str] = Counter()
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        for left, right in pairwise(row):
            counts[left + right] += weights[place]
            places[left + right].append(place)
    return counts, places


def _replace(row: str, pair: str, new: str) -> tuple[str, list[tuple[str, str]]]:
    """The row with `new` for each `pair`, from left to right, and what became of the neighbours.

    >>> _replace("then", "he", "X")
    ('tXn', [('th', 'tX'), ('en', 'Xn')])
    """
    parts = row.split(pair)
    changes = [(pair[1] + pair[0], new + new)] * parts[1:-1].count("")
    for left, right in pairwise(parts):
        if left:
            changes.append((left[-1] + pair[0], left[-1] + new))
        if right:
            changes.append((pair[1] + right[0], new + right[0]))
    return new.join(parts), changes


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
