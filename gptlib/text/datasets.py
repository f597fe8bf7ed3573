"""Token ids as training examples: windows of one long sequence, drawn in repeatable batches.

A corpus larger than memory is encoded piece by piece into a token file, from which each batch
reads its windows: `write_tokens`, then `TokenDataset.from_file`.
"""

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import numpy as np
import regex
import torch

from gptlib.text.tokenizers import Tokenizer

IGNORED = -100  # a target with this value is not predicted: padding, or another speaker's words
PIECE = 1 << 20  # characters that are encoded at once, or tokens that are looked at at once


class TokenDataset:
    """One long sequence of token ids, read through windows of `context_length` tokens.

    `ids` is 1-D and integer: a list, an int64 tensor, or a memory-mapped int32 array (which stays
    on disk; each batch is converted to int64). Windows begin anywhere, or only at the token
    `begin_at`, say the one before each document: then no window lacks the beginning of what it
    shows. `len()` is the number of windows.

    `learn`, 1-D and bool, says of each id whether it shall be predicted; without it, all are. The
    others are read and not learned: as targets they are IGNORED, evaluation leaves them out, and
    windows that would teach nothing are no windows.
    """

    def __init__(self, ids: torch.Tensor, context_length: int,
                 begin_at: int | None = None, learn: torch.Tensor | None = None) -> None:
        ids = torch.as_tensor(ids)
        if context_length < 1:
            raise ValueError(f"context_length is {context_length}; expected 1 or more tokens")
        if ids.dim() != 1:
            raise ValueError(
                f"the ids have shape {tuple(ids.shape)}; expected one sequence, shape (N,): "
                f"join the texts before encoding them, or the encoded ids with torch.cat"
            )
        if not len(ids):
            raise ValueError("there are no ids; expected at least one window: is the text empty?")
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(
                f"the ids are {ids.dtype}; expected whole numbers (torch.int64): "
                f"pass what tokenizer.encode returns"
            )
        if len(ids) < context_length + 1:
            raise ValueError(
                f"got {len(ids)} ids for a context of {context_length}; expected at least "
                f"{context_length + 1} (a window and the token after it): "
                f"use a longer text or a shorter context_length"
            )
        self.ids = ids
        self.context_length = context_length
        self.begin_at = begin_at
        self.learn = None if learn is None else _checked_learn(torch.as_tensor(learn), len(ids))
        self.starts = None if begin_at is None and learn is None else self._starts()

    @classmethod
    def from_text(cls, text: str, tokenizer: Tokenizer, context_length: int) -> Self:
        """Encode `text` with `tokenizer.encode`; an empty or too short text is a ValueError."""
        if not text:
            raise ValueError("the text is empty; expected some text to encode")
        return cls(torch.tensor(tokenizer.encode(text), dtype=torch.long), context_length)

    @classmethod
    def from_file(cls, path: str | Path, context_length: int,
                  vocab_size: int | None = None) -> Self:
        """Open what `write_tokens` wrote, or any .npy file of one row of ids, without reading it.

        With `vocab_size` the file is read through once, in pieces, and ids from there on are
        refused. ValueError also for a file that is cut off or of another kind.
        """
        try:
            ids = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is cut off or no token file ({error}); expected a .npy file "
                             f"written by write_tokens: write it again") from error
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or not ids.dtype.isnative:
            raise ValueError(f"{path} holds {ids.dtype} of shape {ids.shape}; expected one row of "
                             f"whole numbers, such as write_tokens writes")
        with warnings.catch_warnings():  # torch warns of the file's write protection, which we want
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            dataset = cls(ids, context_length)
        for start in range(0, len(ids) if vocab_size is not None else 0, PIECE):
            low, high = (int(f(ids[start:start + PIECE])) for f in (np.min, np.max))
            if low < 0 or high >= vocab_size:
                raise ValueError(f"{path} holds ids from {low} to {high}; expected 0 to "
                                 f"{vocab_size - 1}: was it written with another tokenizer?")
        return dataset

    def __len__(self) -> int:
        return len(self.ids) - self.context_length if self.starts is None else len(self.starts)

    def _starts(self) -> torch.Tensor:
        """Where windows begin, if not everywhere."""
        T = self.context_length
        fits = torch.ones(len(self.ids) - T, dtype=torch.bool)
        if self.begin_at is not None:
            fits &= self.ids[:-T] == self.begin_at
            if not fits.any():
                raise ValueError(f"no window of {T} tokens and the one after them begins at token "
                                 f"{self.begin_at}; expected it before each document: use longer "
                                 f"texts or a shorter context_length")
        if self.learn is not None:
            known = torch.cat((torch.zeros(1, dtype=torch.long), self.learn.cumsum(0)))
            fits &= known[T + 1:] > known[1:-T]  # of its T targets, all but its first id, some
            if not fits.any():
                raise ValueError(f"no window of {T} tokens teaches anything: learn is False for "
                                 f"all of its targets; expected replies within reach of what "
                                 f"begins a window")
        return fits.nonzero().flatten()

    def split(self, fraction: float = 0.9) -> tuple[Self, Self]:
        """The first `fraction` of the ids and the rest, as two data sets without overlap.

        Contiguous on purpose: windows drawn at random for validation would overlap with windows
        of the training part, and the model would be tested on text that it was trained on.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction is {fraction}; expected a number between 0 and 1")
        cut = round(fraction * len(self.ids))
        needed = self.context_length + 1
        if min(cut, len(self.ids) - cut) < needed:
            raise ValueError(
                f"splitting {len(self.ids)} ids at {fraction} gives {cut} and "
                f"{len(self.ids) - cut}; expected at least {needed} on both sides: "
                f"use a longer text, a shorter context_length or another fraction"
            )
        return tuple(type(self)(self.ids[part], self.context_length, self.begin_at,
                                None if self.learn is None else self.learn[part])
                     for part in (slice(cut), slice(cut, None)))


def batches(dataset: TokenDataset, batch_size: int, seed: int = 0,
            start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches (x, y), each (B, T) int64; y is x one token later.

    Windows are drawn uniformly with replacement. Batch number i depends on (seed, i) alone, so
    a run that stopped after k batches goes on with `start=k` as if it had never stopped. Where the
    data set says what to learn, y holds IGNORED for all else.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more windows")
    if seed < 0 or start < 0:
        raise ValueError(f"seed is {seed} and start is {start}; expected numbers from 0 on")
    return _batches(dataset, batch_size, seed, start)


def _batches(dataset, batch_size, seed, number):
    # every window as a row of one view (N - T, T + 1): a batch is then a single index operation
    size = dataset.context_length + 1
    windows = dataset.ids.unfold(0, size, 1)
    learned = None if dataset.learn is None else dataset.learn.unfold(0, size, 1)
    while True:
        rows = np.random.default_rng((seed, number)).integers(len(dataset), size=batch_size)
        rows = torch.from_numpy(rows)
        rows = rows if dataset.starts is None else dataset.starts[rows]
        batch = windows[rows].long()
        x, y = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
        yield x, y if learned is None else y.masked_fill(~learned[rows][:, 1:], IGNORED)
        number += 1


def _checked_learn(learn: torch.Tensor, count: int) -> torch.Tensor:
    if learn.dtype != torch.bool or learn.shape != (count,):
        raise ValueError(f"learn is {learn.dtype} of shape {tuple(learn.shape)}; expected "
                         f"torch.bool of shape ({count},): one for each id")
    return learn


def write_tokens(path: str | Path, texts: Path | Iterable[Path | str], tokenizer: Tokenizer, *,
                 allow_special: bool = False) -> int:
    """Encode texts into a token file, in bounded memory; returns the number of ids.

    `texts` is a file (a Path, UTF-8) or an iterable of files and of texts (str), which are joined
    as they are; a file's byte order mark is no part of its text. The ids are those of
    `tokenizer.encode` of the whole. The file is NumPy's .npy of uint16, or of int32 for more than
    65,536 tokens; it appears when it is complete. A str that names a file is a ValueError.
    """
    spaced = [token for token in tokenizer.special_tokens if regex.search(r"\s", token)]
    if allow_special and spaced:
        raise ValueError(f"the special token {spaced[0]!r} contains white space, where texts are "
                         f"cut; expected none: encode this text as a whole")
    path, count, read = Path(path), 0, 0
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            _write_header(file, dtype, 0)
            start = file.tell()
            for piece in _pieces([texts] if isinstance(texts, Path | str) else texts):
                try:
                    ids = np.array(tokenizer.encode(piece, allow_special=allow_special), dtype)
                except ValueError as error:
                    raise ValueError(f"after the first {read} characters: {error}") from error
                file.write(ids.tobytes())
                count, read = count + len(ids), read + len(piece)
            if not count:
                raise ValueError("the texts are empty; expected some text to encode")
            file.seek(0)
            _write_header(file, dtype, count)  # NumPy leaves room in it for a larger number
            if file.tell() != start:
                raise OSError(f"NumPy's header of {path} grew: update numpy")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def _write_header(file, dtype: np.dtype, count: int) -> None:
    np.lib.format.write_array_header_1_0(file, {
        "descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)})


def _pieces(texts: Iterable[Path | str]) -> Iterator[str]:
    """The joined texts in pieces that can be encoded apart: each begins at a white space after
    something else, where the word split always cuts. A text without any is one piece."""
    rest = ""
    for text in _read(texts):
        rest += text
        if len(rest) >= PIECE:
            space = regex.search(r"(?r)(?<=\S)\s", rest)  # the last one: (?r) searches backwards
            if space:
                yield rest[:space.start()]
                rest = rest[space.start():]
    yield rest


def _read(texts: Iterable[Path | str]) -> Iterator[str]:
    for text in texts:
        if isinstance(text, str):
            if _names_a_file(text):
                raise ValueError(f"got the text {text!r}, which is the name of a file; expected "
                                 f"a text, or Path({text!r}) to read that file")
            yield from (text[i:i + PIECE] for i in range(0, len(text), PIECE))
        else:
            with open(text, encoding="utf-8-sig") as file:
                try:
                    yield from iter(lambda: file.read(PIECE), "")
                except UnicodeDecodeError as error:
                    raise ValueError(f"{text} is not UTF-8 ({error}); save it as such") from error


def _names_a_file(text: str) -> bool:
    """Whether a text is a file's name given by mistake: it is like book.txt, or the file exists."""
    named = len(text) < 4096 and regex.search(r"[./\\]", text) and os.path.isfile(text)
    return bool(named or regex.fullmatch(r"\S+\.(txt|md)", text))
