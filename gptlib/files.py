"""The border: what a file says is checked here before anything is built from it.

Readers of checkpoints, tokenizers and models of other programs all go through this module. A file
is understood whole or refused with a ValueError that names the file, the key, what was got and
what was expected. No number in a file costs time or memory before it was held against the file's
size, and no key is passed over in silence. What is written takes the place of the old as a whole.
"""

import json
import math
import os
import reprlib
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

LARGEST_JSON = 2**25  # bytes; the tokenizer.json of a vocabulary of 256,000 tokens has 2^25
LARGEST_HEADER = 2**24  # bytes of a safetensors header; a thousand layers need a tenth of it
_WRITING, _READY = ".writing", ".ready"  # folders inside the folder whose files are replaced
_REQUIRED = object()
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string",
          list: "a list", dict: "an object"}
# the types of numbers by their safetensors names
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
          "U8": torch.uint8, "BOOL": torch.bool}


def broken(file: str | Path, what: str, do: str = "") -> ValueError:
    """The one form of an error about a file: which file, what is wrong with it, what to do."""
    what = what[:500].encode("utf-8", "backslashreplace").decode()  # keys may be anything
    return ValueError(f"{file}: {what}" + (f": {do}" if do else ""))


def _repair(content: bytes) -> str:
    pointer = "it is the pointer of Git LFS, not the file itself: run `git lfs pull` at its source"
    return pointer if content.startswith(b"version ") else "fetch or save it again"


# ---- JSON


def read_json(file: str | Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """The JSON object in a file: UTF-8, at most `largest` bytes, each key once, finite numbers."""
    file = Path(file)
    if not file.is_file():
        raise broken(file, "there is no such file")
    size = file.stat().st_size
    if not 0 < size <= largest:
        raise broken(file, f"it has {size:,} bytes; expected a JSON file of 1 to {largest:,}")
    return parse_json(file.read_bytes(), file)


def parse_json(content: bytes, file: str | Path) -> dict[str, Any]:
    """The JSON object in `content`, which came from `file` and has a length that was checked."""

    def number(text: str) -> float:
        if not math.isfinite(float(text)):
            raise ValueError(f"{text[:20]} is not a finite number")
        return float(text)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(values := dict(pairs)) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"the key {shown(twice)} stands twice")
        return values

    try:
        values = json.loads(content.decode("utf-8"), object_pairs_hook=once, parse_float=number,
                            parse_constant=number)
    except RecursionError:
        raise broken(file, "its lists are nested too deeply; expected a model's file") from None
    except ValueError as error:  # no UTF-8, no JSON, or one of the two rules above
        raise broken(file, f"it is cut off or not JSON in UTF-8 ({error})", _repair(content)
                     ) from error
    if isinstance(values, dict):
        return values
    raise broken(file, f"it holds a {type(values).__name__}; expected a JSON object")


class Fields:
    """The keys and values of one object in a file, read one by one; `finish` refuses the rest.

    `where` is put before each key in messages: "model." for the object under the key model.
    """

    def __init__(self, file: str | Path, values: Mapping[str, Any], where: str = "") -> None:
        if not isinstance(values, Mapping):
            raise broken(file, f"{where.rstrip('.')} is {shown(values)}; expected an object")
        self.file, self.values, self.where = file, values, where
        self._left = set(values)

    def read(self, key: str, kind: type, default: Any = _REQUIRED, *, least: float | None = None,
             most: float | None = None, choices: Sequence[Any] | None = None) -> Any:
        """The value under `key`, checked; `default` where the key is missing.

        `kind` is int, float (whole numbers too), bool, str, list or dict. A null is accepted where
        the default is None. Raises ValueError.
        """
        self._left.discard(key)
        if key not in self.values:
            if default is not _REQUIRED:
                return default
            raise broken(self.file, f"{self.where}{key} is missing; expected {_WORDS[kind]}")
        value = self.values[key]
        if value is None and default is None:
            return None
        right = isinstance(value, (int, float) if kind is float else kind)
        right = right and (kind is bool or not isinstance(value, bool))
        if right and kind is float:
            right = abs(value) <= sys.float_info.max  # which NaN fails
            value = float(value) if right else value
        right = (right and (least is None or value >= least) and (most is None or value <= most)
                 and (choices is None or value in choices))
        if not right:
            expected = (_WORDS[kind] if choices is None
                        else f"one of {', '.join(map(repr, choices))}")
            expected += "" if least is None else f" of at least {least:,}"
            expected += "" if most is None else f", at most {most:,}"
            got = shown(self.values[key])
            raise broken(self.file, f"{self.where}{key} is {got}; expected {expected}")
        return value

    def object(self, key: str) -> "Fields":
        """The object under `key`, to be read and finished like this one."""
        return Fields(self.file, self.read(key, dict), f"{self.where}{key}.")

    def ignore(self, *keys: str) -> None:
        """Keys that may be there and change nothing of what is read."""
        self._left -= set(keys)

    def finish(self) -> None:
        """Refuse what nothing has read: it may mean what the reader does not know."""
        if self._left:
            key = min(self._left, key=str)
            others = f" (and {len(self._left) - 1} more)" if len(self._left) > 1 else ""
            raise broken(self.file, f"{self.where}{key} is {shown(self.values[key])}{others}; "
                                    f"expected no key that this reader does not know")


def shown(value: Any) -> str:
    """A value for a message: short, also where it is a long list."""
    return f"{text[:60]}..." if len(text := reprlib.repr(value)) > 60 else text


# ---- safetensors


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor: the safetensors name of its type, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def tensor_info(tensor: torch.Tensor) -> TensorInfo:
    """What a header would say of a tensor in memory."""
    names = {dtype: name for name, dtype in _TYPES.items()}
    return TensorInfo(names.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))


def read_header(file: str | Path) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file by name, without reading them.

    Types, shapes and places are checked against each other and against the file's size: the
    tensors must fill it without a gap. Format: 8 bytes with the header's length, the header in
    JSON, the numbers (huggingface.co/docs/safetensors).
    """
    file = Path(file)
    if not file.is_file():
        raise broken(file, "there is no such file; expected a safetensors file")
    size = file.stat().st_size
    with open(file, "rb") as opened:
        start = opened.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise broken(file, f"it has {size:,} bytes and a header of {length:,}; expected a "
                               f"whole safetensors file", _repair(start))
        values = parse_json(opened.read(length), file)
    metadata = Fields(file, values.pop("__metadata__", {}), "__metadata__.")
    for key in metadata.values:
        metadata.read(key, str)
    tensors, places = {}, []
    for name in values:
        entry = Fields(file, values[name], f"{name}.")
        dtype = entry.read("dtype", str, choices=tuple(_TYPES))
        shape = _counts(entry, "shape")
        begin, end = _counts(entry, "data_offsets", length=2)
        entry.finish()
        size_of_all = _TYPES[dtype].itemsize * math.prod(shape)
        if end - begin != size_of_all:
            raise broken(file, f"{name} has the shape {shape} in {dtype} and {end - begin:,} bytes;"
                               f" expected {size_of_all:,}")
        tensors[name] = TensorInfo(dtype, shape)
        places.append((begin, end))
    _require_filled(file, places, size - 8 - length)
    return tensors


def _require_filled(file: Path, places: list[tuple[int, int]], size: int) -> None:
    """Raise a ValueError unless the tensors fill the `size` bytes behind the header, each once."""
    position = 0
    for begin, end in sorted(places):
        if begin != position:
            raise broken(file, f"a tensor begins at byte {begin:,}; expected {position:,}, where "
                               f"the one before it ends")
        position = end
    if position != size:
        raise broken(file, f"it holds {size:,} bytes of numbers; expected {position:,}: it was cut "
                           f"off, or something was added to it")


def _counts(entry: Fields, key: str, length: int | None = None) -> tuple[int, ...]:
    counts = entry.read(key, list)
    whole = all(type(count) is int and 0 <= count < 2**60 for count in counts)
    if not whole or len(counts) > 8 or length not in (None, len(counts)):
        raise broken(entry.file, f"{entry.where}{key} is {shown(counts)}; expected a short list of "
                                 f"whole numbers")
    return tuple(counts)


def require_tensors(file: str | Path, found: Mapping[str, TensorInfo],
                    expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a ValueError unless the names are exactly those expected, each with its shape and a
    type of floating numbers."""
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise broken(file, f"{name} is missing; expected the shape {expected[name]}")
        if name not in expected:
            raise broken(file, f"it holds {name}; expected no tensor that the model lacks")
        dtype, shape = found[name].dtype, found[name].shape
        if shape != expected[name]:
            raise broken(file, f"{name} has the shape {shape}; expected {expected[name]}")
        if dtype not in ("F64", "F32", "F16", "BF16"):
            raise broken(file, f"{name} has the type {dtype}; expected floating numbers")


def read_tensors(file: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file whose header was read and found right; copies, so that
    the file can be replaced while they live."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name).clone() for name in opened.keys()}
    except (SafetensorError, OSError) as error:
        raise broken(file, f"it is cut off or no safetensors file ({error})") from error


# ---- writing


def write_text(file: str | Path, text: str) -> None:
    """Write a text file, or leave the one that is there: written aside, then renamed."""
    file = Path(os.path.realpath(file))  # a link stays a link
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8", newline="\n")
        force_to_disk(aside)
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def replace_files(folder: str | Path, names: Sequence[str], write: Callable[[Path], None]) -> None:
    """Let `write` make new files, which take the place of all those in `names` at once.

    `write` gets an empty folder and must make at least the first name. Names that it leaves out
    are removed from `folder`; other files there stay. The new files lie in a folder .writing
    inside `folder`, which is then renamed to .ready: that one renaming is the moment at which they
    count (`current` finds them there), and moving them to their places can be repeated. `folder`
    itself is never renamed: it may be a link, a mount point or the current folder. A failure
    raises OSError; either all of the old files count or all of the new ones.
    """
    folder = Path(folder)
    new = folder / _WRITING
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            force_to_disk(folder.absolute().parent)
        _move_ready(folder, names)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        write(new)
        for file in (*new.iterdir(), new):
            force_to_disk(file)
        if not {names[0]} <= set(os.listdir(new)) <= set(names):
            raise ValueError(f"{os.listdir(new)} were written; expected files of {names}")
        new.rename(folder / _READY)
    except Exception as error:
        shutil.rmtree(new, ignore_errors=True)
        if not isinstance(error, OSError | SafetensorError):
            raise
        raise OSError(f"the files could not be written to {folder} ({error}); what was there "
                      f"before is unchanged: free some space or choose another folder") from error
    force_to_disk(folder)
    _move_ready(folder, names)


def current(folder: str | Path, names: Sequence[str], name: str) -> Path:
    """Where the newest whole set written by `replace_files` has the file `name`."""
    ready, folder = Path(folder) / _READY, Path(folder)
    whole = (ready / names[0]).exists()  # the first name is moved first
    return ready / name if whole or (ready / name).exists() else folder / name


def is_unused(folder: str | Path) -> bool:
    """Whether nothing stands at this path, or a folder that is empty but for the rest of a first
    `replace_files` that was killed before its files counted."""
    if not Path(folder).is_dir():
        return not os.path.lexists(folder)
    return all(name == _WRITING for name in os.listdir(folder))


def _move_ready(folder: Path, names: Sequence[str]) -> None:
    """Move files that are ready to their places: here, or after a kill at the next writing."""
    ready = folder / _READY
    if not ready.is_dir():
        return
    if (ready / names[0]).exists():  # nothing was moved yet, so what is not there is left out
        for name in names:
            if not (ready / name).exists():
                (folder / name).unlink(missing_ok=True)
        force_to_disk(folder)
        os.replace(ready / names[0], folder / names[0])
        for each in (folder, ready):  # a power cut must not undo this move and keep later ones
            force_to_disk(each)
    for name in names:
        if (ready / name).exists():
            os.replace(ready / name, folder / name)
    shutil.rmtree(ready)
    force_to_disk(folder)


def force_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk, so that a power cut cannot take it back."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
