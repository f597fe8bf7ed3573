"""The tokenizer inside a GGUF file: byte-level BPE with the file's own ids.

Read is the kind that SmolLM2 has ("gpt2" with the split "smollm"). What a key and a type of token
mean, and what holds where a key is missing, is as in llama.cpp; the format: ggml's docs/gguf.md.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import regex

from gptlib.files import Fields, broken, shown
from gptlib.text.bpe import split_words
from gptlib.text.tokenizers import BPETokenizer, Tokenizer, bytes_of, parse_merges

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5  # types of tokens
# ids that have a part in chats or in writing; none of them changes the ids of a text
_ROLES = ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "prefix",
          "suffix", "middle", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep")
# what would change the ids of a text, or of other kinds of tokenizers, if it were true
_SWITCHES = ("add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix",
             "remove_extra_whitespaces")
# no part in byte-level BPE: the scores of other kinds, the template of a chat, and the tokenizer
# once more in the format of another library
_WITHOUT_EFFECT = ("tokenizer.ggml.scores", "tokenizer.chat_template", "tokenizer.chat_templates",
                   "tokenizer.huggingface.json")


class GGUFTokenizer(Tokenizer):
    """Byte-level BPE with the ids of a GGUF file; each digit is a word of its own ("smollm").

    Read are the keys of `metadata` that begin with "tokenizer."; an unknown one is refused, and
    errors (ValueError) name `file`. Each token has a type: normal ones (1) are bytes in visible
    characters, unknown (2) and control (3) ones are the special tokens. User-defined ones (4) are
    plain text and always one token, whatever stands around them. Unused ones (5) fill up the
    vocabulary: they come from no text and are decoded to nothing.
    """

    def __init__(self, metadata: Mapping[str, Any], file: str | Path = "the GGUF file") -> None:
        fields = Fields(file, {key: value for key, value in metadata.items()
                               if key.startswith("tokenizer.")})
        tokens, types, merges = _read(fields)
        special = [token for token, kind in zip(tokens, types) if kind in (_UNKNOWN, _CONTROL)]
        super().__init__([], special)
        ids = {token: i for i, token in enumerate(tokens)}
        self.special_tokens = {token: ids[token] for token in special}
        self._user_defined = {token: ids[token] for token, kind in zip(tokens, types)
                              if kind == _USER_DEFINED}
        self.token_bytes = [_bytes(fields, i, kind) for i, kind in enumerate(types)]
        normal = {self.token_bytes[i]: i for i, kind in enumerate(types) if kind == _NORMAL}
        self._bpe = _merged(fields, merges)  # merges alike, with ids of its own
        self._ids = [normal.get(piece) for piece in self._bpe.token_bytes]
        if None in self._ids[256:]:
            number = self._ids.index(None, 256) - 256
            raise broken(file, f"tokenizer.ggml.merges has {merges[number]!r} as number {number}; "
                               f"expected merges that make one of the file's normal tokens")

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Turn a text into ids; with `allow_special`, special tokens in it become their own id.

        As in llama.cpp, tokens that are found whole are cut out first, the longest before the
        others. Raises ValueError for what no id stands for: a lone surrogate, or a character with
        a byte that the vocabulary lacks.
        """
        whole = self._user_defined | (self.special_tokens if allow_special else {})
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"lone surrogate at position {error.start}: half of a character has "
                             f"no UTF-8 form") from None
        parts: list[tuple[int, str, int | None]] = [(0, text, None)]  # (position, text, id if any)
        for token in sorted(whole, key=lambda token: -len(token.encode())):
            if token in text:
                parts = [cut for part in parts for cut in _cut_out(part, token, whole[token])]
        ids = []
        for position, part, known in parts:
            ids += self._encode_ordinary(part, position) if known is None else [known]
        return ids

    def _encode_ordinary(self, text: str, offset: int) -> list[int]:
        ids = []
        for piece in regex.findall(r"\p{N}|\P{N}+", text):
            for word in split_words(piece):
                ids += [self._ids[i] for i in self._bpe.encode(word)]
        if None in ids:
            place = next(i for i, character in enumerate(text)
                         if None in [self._ids[i] for i in self._bpe.encode(character)])
            raise ValueError(f"character {text[place]!r} (U+{ord(text[place]):04X}) at position "
                             f"{offset + place} has a byte that the file's vocabulary lacks; "
                             f"remove it")
        return ids


def _read(fields: Fields) -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types and the merges; every other key of the tokenizer is checked."""
    key = "tokenizer.ggml.{}".format
    fields.read(key("model"), str, choices=("gpt2",))
    fields.read(key("pre"), str, choices=("smollm",))
    tokens = _list(fields, key("tokens"), str)
    token, times = Counter(tokens).most_common(1)[0] if tokens else ("", 0)
    if times != 1 or "" in tokens:
        raise broken(fields.file, f"{key('tokens')} holds {shown(token)} {times} times; expected "
                                  f"different tokens, none of them empty")
    types = _list(fields, key("token_type"), int, [_NORMAL] * len(tokens))
    others = set(types) - {_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED}
    if len(types) != len(tokens) or others:
        raise broken(fields.file, f"{key('token_type')} has {len(types)} entries, the type "
                                  f"{min(others, default=1)} among them; expected 1, 2, 3, 4 or 5 "
                                  f"for each of {len(tokens)} tokens")
    merges = _list(fields, key("merges"), str)
    for role in _ROLES:
        fields.read(key(f"{role}_token_id"), int, None, least=0, most=len(tokens) - 1)
    for switch in _SWITCHES:
        fields.read(key(switch), bool, False, choices=(False,))
    named = [k for k in fields.values if str(k).startswith("tokenizer.chat_template.")]
    fields.ignore(*_WITHOUT_EFFECT, *named)
    fields.finish()
    return tokens, types, merges


def _list(fields: Fields, key: str, kind: type, *default: list) -> list:
    values = fields.read(key, list, *default)
    if any(type(value) is not kind for value in values):
        raise broken(fields.file, f"{key} is {shown(values)}; expected a list of {kind.__name__}")
    return values


def _bytes(fields: Fields, i: int, kind: int) -> bytes:
    """What token i stands for."""
    token = fields.values["tokenizer.ggml.tokens"][i]
    if kind == _UNUSED:
        return b""
    if kind != _NORMAL:
        return token.encode("utf-8")
    try:
        return bytes_of(token)
    except KeyError as error:
        raise broken(fields.file, f"tokenizer.ggml.tokens has {shown(token)} as number {i}, of "
                                  f"type 1; expected bytes in visible characters, not "
                                  f"{error.args[0]!r}") from None


def _merged(fields: Fields, merges: Sequence[str]) -> BPETokenizer:
    try:
        return BPETokenizer(parse_merges(merges))
    except (KeyError, ValueError) as error:
        raise broken(fields.file, f"tokenizer.ggml.merges cannot be read ({error}); expected pairs "
                                  f"like 'Ġt he', each of two tokens that were made before"
                     ) from error


def _cut_out(part: tuple[int, str, int | None], token: str, i: int
             ) -> list[tuple[int, str, int | None]]:
    """The part of a text in pieces: each `token` in it becomes its id, from left to right."""
    position, text, known = part
    if known is not None or token not in text:
        return [part]
    pieces = []
    for piece in text.split(token):
        if piece:
            pieces.append((position, piece, None))
        pieces.append((position + len(piece), token, i))
        position += len(piece) + len(token)
    return pieces[:-1]
