"""Tokenizers: text to token ids and back, by characters, by bytes, or by byte pair encoding.

All have `encode`, `decode`, `vocab_size`, `special_tokens`, `token_bytes`, `save` and `load`.
Byte-level BPE is that of Radford et al. (2019); its algorithm stands in `gptlib.text.bpe`.
"""

import json
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import regex

from gptlib.files import broken
from gptlib.text.bpe import (
    BYTE_CHARACTERS,
    BYTE_ORDER,
    Pair,
    apply_merges,
    learn_merges,
    split_parts,
    split_words,
    to_ids,
)
from gptlib.text.corpora import member_path
from gptlib.text.tokenizer_files import (
    open_tokenizer,
    read_bpe,
    read_characters,
    read_special_tokens,
    require_vocabulary,
    write_tokenizer,
)

_CACHE_SIZE = 200_000  # words; a text has far fewer different ones, and the memory stays bounded
_CHARACTER_BYTES = {character: byte for byte, character in BYTE_CHARACTERS.items()}


class Tokenizer:
    """What the three tokenizers share; `token_bytes[i]` is the bytes that token i stands for.

    Special tokens have the last ids. In a text they are ordinary characters, unless `encode` is
    told `allow_special=True`: a reader's text must not be able to end a conversation.
    """

    def __init__(self, pieces: Sequence[bytes], special_tokens: Sequence[str] = ()) -> None:
        if isinstance(special_tokens, str) or not all(isinstance(t, str) for t in special_tokens):
            raise ValueError(f"special tokens are {special_tokens!r}; expected a list of strings")
        if len(set(special_tokens)) < len(special_tokens) or "" in special_tokens:
            raise ValueError(f"special tokens must differ and not be empty, got {special_tokens}")
        first = len(pieces)
        self.special_tokens = {token: first + i for i, token in enumerate(special_tokens)}
        self.token_bytes = [*pieces, *(_utf8(token) for token in special_tokens)]
        longest_first = sorted(special_tokens, key=len, reverse=True)
        self._special = regex.compile("|".join(map(regex.escape, longest_first)) or r"(?!)")

    @property
    def vocab_size(self) -> int:
        """The number of token ids, special tokens included."""
        return len(self.token_bytes)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Turn a text into ids; with `allow_special`, special tokens in it become their own id.

        Raises ValueError for what no id stands for: a lone surrogate, an unknown character.
        """
        _utf8(text)
        if not allow_special:
            return self._encode_ordinary(text, 0)
        ids, start = [], 0
        for found in self._special.finditer(text):
            ids += self._encode_ordinary(text[start:found.start()], start)
            ids.append(self.special_tokens[found.group()])
            start = found.end()
        return ids + self._encode_ordinary(text[start:], start)

    def decode(self, ids: Iterable[int]) -> str:
        """Turn one row of ids (a list, or a 1-D tensor or array) into text.

        Bytes that are not valid UTF-8, such as half of a character, become U+FFFD.
        """
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        try:
            row = [operator.index(i) for i in ids]
        except TypeError:
            raise ValueError("decode expects one row of token ids, i.e. whole numbers; "
                             "for a batch (B, T) decode each row, for logits choose ids first"
                             ) from None
        for position, i in enumerate(row):
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"token id {i} at position {position} is outside the vocabulary: "
                                 f"expected 0 to {self.vocab_size - 1}; "
                                 "was it encoded by another tokenizer?")
        return b"".join(self.token_bytes[i] for i in row).decode("utf-8", errors="replace")

    def _encode_ordinary(self, text: str, offset: int) -> list[int]:
        """Encode text without special tokens; `offset` is its position, for error messages."""
        raise NotImplementedError


class CharTokenizer(Tokenizer):
    """One token for each of the given characters; all others are refused."""

    def __init__(self, characters: Sequence[str]) -> None:
        if not characters:
            raise ValueError("no characters: the training text is empty; give one with at least "
                             "one character")
        wrong = [c for c in characters if not isinstance(c, str) or len(c) != 1]
        wrong = wrong or [c for c, n in Counter(characters).items() if n > 1]
        if wrong:
            raise ValueError(f"expected single characters, each once; got {wrong[0]!r}")
        super().__init__([_utf8(character) for character in characters])
        self.characters = list(characters)
        self._ids = {character: i for i, character in enumerate(characters)}

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """The characters of a text, sorted by code point."""
        return cls(sorted(set(text)))

    def _encode_ordinary(self, text: str, offset: int) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            unknown = error.args[0]
            raise ValueError(
                f"character {unknown!r} (U+{ord(unknown):04X}) at position "
                f"{offset + text.index(unknown)} is not among the {self.vocab_size} characters of "
                "this tokenizer; remove it, or train on a text that has it, or use ByteTokenizer"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write a small JSON file, atomically."""
        write_tokenizer(path, {"type": "characters", "characters": "".join(self.characters)})

    @classmethod
    def load(cls, path: str | Path) -> "CharTokenizer":
        """Read what `save` wrote; ValueError if the file is another one or damaged."""
        return _load(path, "characters")


class ByteTokenizer(Tokenizer):
    """One token for each of the 256 bytes: any text, id = byte. Special tokens follow from 256."""

    def __init__(self, special_tokens: Sequence[str] = ()) -> None:
        super().__init__([bytes([byte]) for byte in range(256)], special_tokens)

    def _encode_ordinary(self, text: str, offset: int) -> list[int]:
        return list(text.encode("utf-8"))

    def save(self, path: str | Path) -> None:
        """Write a small JSON file, atomically."""
        write_tokenizer(path, {"type": "bytes", "special_tokens": list(self.special_tokens)})

    @classmethod
    def load(cls, path: str | Path) -> "ByteTokenizer":
        """Read what `save` wrote; ValueError if the file is another one or damaged."""
        return _load(path, "bytes")


class BPETokenizer(Tokenizer):
    """Byte-level byte pair encoding with GPT-2's word split.

    Ids: the 256 bytes in GPT-2's order, then one for each merge, then the special tokens.
    `merges` are pairs of bytes, the earliest learned first.
    """

    def __init__(self, merges: Sequence[tuple[bytes, bytes]],
                 special_tokens: Sequence[str] = ()) -> None:
        pieces = [bytes([byte]) for byte in BYTE_ORDER]
        known = {piece: i for i, piece in enumerate(pieces)}
        self._ranks: dict[Pair, int] = {}
        for rank, (left, right) in enumerate(merges):
            if left not in known or right not in known or left + right in known:
                raise ValueError(f"merge number {rank} is ({left!r}, {right!r}); expected two "
                                 "tokens made earlier, which together make a new one")
            self._ranks[known[left], known[right]] = rank
            known[left + right] = len(pieces)
            pieces.append(left + right)
        super().__init__(pieces, special_tokens)
        ordinary = {_visible(piece) for piece in pieces}
        for token in special_tokens:
            if token in ordinary:
                raise ValueError(f"the special token {token!r} is also an ordinary token; choose "
                                 "one that the word split cuts, such as <|endoftext|>")
        self.merges = list(merges)
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(cls, text: str, vocab_size: int,
              special_tokens: Sequence[str] = ("<|endoftext|>",)) -> "BPETokenizer":
        """Learn a vocabulary of `vocab_size` tokens, special tokens included.

        It comes out smaller if the text has no pair left to merge. Special tokens in the text
        separate documents; nothing is learned from their letters.
        """
        max_merges = vocab_size - 256 - len(special_tokens)
        if max_merges < 0:
            raise ValueError(f"vocab_size is {vocab_size}; expected at least "
                             f"{256 + len(special_tokens)}: 256 bytes and the special tokens")
        if not text:
            raise ValueError("the training text is empty; give one with at least one character")
        _utf8(text)
        untrained = cls([], special_tokens)
        words: Counter[str] = Counter()
        for document in untrained._special.split(text):
            for part in split_parts(document):
                words.update(split_words(part))
        return cls(_to_bytes(learn_merges(words, max_merges)), special_tokens)

    @classmethod
    def gpt2(cls) -> "BPETokenizer":
        """GPT-2's own vocabulary: 50,257 tokens, fetched on first use by `gptlib.text.corpora`."""
        lines = member_path("gpt2-vocabulary", "vocab.bpe").read_text(encoding="utf-8")
        merges = parse_merges(lines.split("\n")[1:-1])  # without the version and the last newline
        tokenizer = cls(merges, ("<|endoftext|>",))
        ids = json.loads(member_path("gpt2-vocabulary", "encoder.json").read_text("utf-8"))
        if ids != tokenizer._vocabulary():
            raise ValueError("encoder.json and vocab.bpe of GPT-2 don't belong together; "
                             "delete both from the data folder and fetch them again")
        return tokenizer

    def _encode_ordinary(self, text: str, offset: int) -> list[int]:
        cache, ids = self._cache, []
        for part in split_parts(text):
            for word in split_words(part):
                known = cache.get(word)
                if known is None:
                    if len(cache) >= _CACHE_SIZE:
                        cache.clear()
                    known = cache[word] = apply_merges(to_ids(word), self._ranks)
                ids += known
        return ids

    def _vocabulary(self) -> dict[str, int]:
        """Ids by token, ordinary tokens in visible characters, as GPT-2's encoder.json has them."""
        ordinary = self.token_bytes[:self.vocab_size - len(self.special_tokens)]
        return {_visible(piece): i for i, piece in enumerate(ordinary)} | self.special_tokens

    def save(self, path: str | Path) -> None:
        """Write the `tokenizer.json` of the `tokenizers` library, atomically."""
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                      "use_regex": True}
        merges = [[_visible(left), _visible(right)] for left, right in self.merges]
        write_tokenizer(path, {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": token, **flags, "special": True}
                             for token, i in self.special_tokens.items()],
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
            "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": self._vocabulary(), "merges": merges}})

    @classmethod
    def load(cls, path: str | Path) -> "BPETokenizer":
        """Read a tokenizer.json; ValueError if it is damaged or of another kind of tokenizer."""
        return _load(path, "BPE")


def load_tokenizer(path: str | Path) -> CharTokenizer | ByteTokenizer | BPETokenizer:
    """Load any tokenizer that this module has saved; the file says which one it is."""
    return _load(path)


KINDS = {"characters": CharTokenizer, "bytes": ByteTokenizer, "BPE": BPETokenizer}


def _load(path: str | Path, kind: str | None = None) -> Any:
    kind, fields = open_tokenizer(path, kind)
    if kind == "characters":
        characters = read_characters(fields)
        return _built(path, "characters", lambda: CharTokenizer(characters))
    if kind == "bytes":
        special_tokens = read_special_tokens(fields)
        return _built(path, "special_tokens", lambda: ByteTokenizer(special_tokens))
    file = read_bpe(fields)
    tokenizer = _built(path, "model.merges and added_tokens",
                       lambda: BPETokenizer(parse_merges(file.merges), file.special_tokens))
    require_vocabulary(fields, file.vocabulary, tokenizer._vocabulary())
    return tokenizer


def _built(path: str | Path, keys: str, build: Callable[[], Tokenizer]) -> Tokenizer:
    try:
        return build()
    except ValueError as error:
        raise broken(path, f"{keys} cannot be used: {error}") from error


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"lone surrogate U+{ord(text[error.start]):04X} at position {error.start}: half of a "
            "character has no UTF-8 form; read the text again with its right encoding") from None


def _visible(piece: bytes) -> str:
    return "".join(BYTE_CHARACTERS[byte] for byte in piece)


def parse_merges(merges: Iterable[str | Sequence[str]]) -> list[tuple[bytes, bytes]]:
    """Read merges in visible characters, "Ġt he" or ["Ġt", "he"]; ValueError for others."""
    pairs = []
    for number, merge in enumerate(merges):
        try:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            pairs.append((bytes_of(left), bytes_of(right)))
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"merge number {number} is {merge!r}; expected two tokens in visible "
                             f"characters") from None
    return pairs


def bytes_of(visible: str) -> bytes:
    """The bytes behind a token in visible characters: "Ġthe" is b" the"."""
    return bytes(_CHARACTER_BYTES[character] for character in visible)


def _to_bytes(merges: Iterable[Pair]) -> list[tuple[bytes, bytes]]:
    pieces, pairs = [bytes([byte]) for byte in BYTE_ORDER], []
    for left, right in merges:
        pairs.append((pieces[left], pieces[right]))
        pieces.append(pieces[left] + pieces[right])
    return pairs
