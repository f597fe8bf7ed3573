"""Tokenizer files: which keys they may have, and what each must say.

Three kinds: {"type": "characters", ...} and {"type": "bytes", ...} of this book, and the
tokenizer.json of the `tokenizers` library as far as it says what `BPETokenizer` does: GPT-2's
byte-level BPE. A file that asks for more, say a token put in front of each text, would give other
ids: it is refused with the key that says so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptlib.files import Fields, broken, read_json, shown, write_text

TYPES = ("characters", "bytes", "BPE")
# what Transformers writes where nothing is put around a text
_NOTHING_ADDED = {
    "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {}}
_ORDER = ("gptlib numbers the 256 bytes, then the merges, then the special tokens; "
          "tokenizers.Tokenizer.from_file reads others")


@dataclass(frozen=True)
class BPEFile:
    """What a tokenizer.json says: merges and tokens in visible characters, ids by token."""

    merges: list[list[str]]
    special_tokens: list[str]
    vocabulary: dict[str, int]


def open_tokenizer(path: str | Path, kind: str | None = None) -> tuple[str, Fields]:
    """The type of a tokenizer's file, one of `TYPES`, and its fields. ValueError if it is none of
    them, or not the `kind` that was asked for."""
    values = read_json(path)
    model = values.get("model")
    if isinstance(model, dict):  # files of GPT-2's time name no type
        found = model.get("type", "BPE" if "merges" in model else None)
    else:
        found = values.get("type")
    if kind is not None and found != kind:
        raise broken(path, f"it holds {shown(found)}; expected a tokenizer of type {kind!r}",
                     "load_tokenizer(path) chooses the class by the file")
    if found not in TYPES:
        raise broken(path, f"it holds no tokenizer of a known type, got {shown(found)}; expected "
                           f"one of {', '.join(TYPES)}")
    return found, Fields(path, values)


def read_characters(fields: Fields) -> str:
    """The characters of a `CharTokenizer`, in the order of their ids."""
    fields.read("type", str)
    characters = fields.read("characters", str)
    fields.finish()
    return characters


def read_special_tokens(fields: Fields) -> list[str]:
    """The special tokens of a `ByteTokenizer`, in the order of their ids."""
    fields.read("type", str)
    tokens = fields.read("special_tokens", list)
    fields.finish()
    return tokens


def read_bpe(fields: Fields) -> BPEFile:
    """A tokenizer.json, every key of it checked."""
    fields.read("version", str, choices=("1.0",))
    _without(fields, "truncation", "padding", "normalizer")
    _byte_level(fields.object("pre_tokenizer"), ids_depend_on_it=True)
    _byte_level(fields.object("decoder"))
    if fields.read("post_processor", dict, None) not in (None, _NOTHING_ADDED):
        _byte_level(fields.object("post_processor"))  # it corrects offsets
    model, tokens = fields.object("model"), fields.read("added_tokens", list)
    special = [Fields(fields.file, token, f"added_tokens[{i}].") for i, token in enumerate(tokens)]
    fields.finish()
    merges, vocabulary = _model(model)
    return BPEFile(merges, _special_tokens(special, len(merges), vocabulary), vocabulary)


def _without(fields: Fields, *keys: str) -> None:
    for key in keys:
        fields.ignore(key)
        if (value := fields.values.get(key)) is not None:
            raise broken(fields.file, f"{fields.where}{key} is {shown(value)}; expected null",
                         "tokenizers.Tokenizer.from_file knows it")


def _byte_level(part: Fields, ids_depend_on_it: bool = False) -> None:
    """One of the three parts that say ByteLevel; the flags count in the pre-tokenizer alone."""
    part.read("type", str, choices=("ByteLevel",))
    part.read("add_prefix_space", bool, choices=(False,) if ids_depend_on_it else None)
    part.read("trim_offsets", bool)
    part.read("use_regex", bool, True, choices=(True,) if ids_depend_on_it else None)
    part.finish()


def _model(model: Fields) -> tuple[list[list[str]], dict[str, int]]:
    model.read("type", str, "BPE", choices=("BPE",))
    model.read("dropout", float, None, choices=(0.0,))
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        model.read(key, str, None, choices=("",))
    for key in ("byte_fallback", "ignore_merges"):
        model.read(key, bool, False, choices=(False,))
    model.read("unk_token", str, None)  # no text has an unknown byte, as all 256 are tokens
    model.read("fuse_unk", bool, False)
    vocabulary, merges = model.read("vocab", dict), model.read("merges", list)
    model.finish()
    for token, i in vocabulary.items():
        if type(i) is not int:
            raise broken(model.file, f"model.vocab.{token} is {shown(i)}; expected a whole number")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    for i, pair in enumerate(pairs):
        if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
            got = shown(merges[i])
            raise broken(model.file, f"model.merges[{i}] is {got}; expected two tokens")
    return pairs, vocabulary


def require_vocabulary(fields: Fields, found: Mapping[str, int],
                       expected: Mapping[str, int]) -> None:
    """Raise a ValueError unless the ids are those of the merges. `found` may lack the special
    tokens: they stand in `added_tokens`."""
    special = {token["content"] for token in fields.values["added_tokens"]}
    for token in sorted(found.keys() | expected.keys()):
        missing = token in special and token not in found
        if found.get(token) != expected.get(token) and not missing:
            raise broken(fields.file, f"model.vocab.{token} is {found.get(token, 'missing')}; "
                                      f"expected {expected.get(token, 'no such token')}", _ORDER)


def _special_tokens(tokens: list[Fields], merges: int, vocabulary: Mapping[str, int]) -> list[str]:
    """The contents of the added tokens, which must be special and have the last ids."""
    contents = []
    for number, token in enumerate(tokens):
        if token.read("id", int) != 256 + merges + number:
            raise broken(token.file, f"{token.where}id is {token.values['id']}; expected "
                                     f"{256 + merges + number}", _ORDER)
        contents.append(token.read("content", str))
        for flag in ("single_word", "lstrip", "rstrip"):
            token.read(flag, bool, choices=(False,))
        # Without a normalizer it says which tokens are looked for first, if they differ in it.
        token.read("normalized", bool, choices=(tokens[0].values.get("normalized"),))
        token.read("special", bool, choices=(True,))
        token.finish()
    inside = [content in vocabulary for content in contents]
    if any(inside) and not all(inside):
        lacking = shown(contents[inside.index(False)])
        raise broken(tokens[0].file, f"model.vocab has some of the added tokens and lacks "
                                     f"{lacking}; expected all or none")
    return contents


def write_tokenizer(path: str | Path, content: dict[str, Any]) -> None:
    """Write a tokenizer's file, or leave the one that is there as it is."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
