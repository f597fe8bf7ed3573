"""Changed files for the fuzz tests of all formats, and the limits that each try must keep.

A fuzz test draws changes of a small real file, reads the result inside `limits()`, and accepts
two outcomes: an object whose content it can account for, or a ValueError that names the file:

    @fuzz
    @given(st.data())
    def test_...(data):
        file.write_bytes(mutated_bytes(data.draw, content))
        with limits():
            ...

In CI each such test runs 300 examples; `python tools/fuzz.py` runs 10,000 of each.
"""

import contextlib
import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("GPTLIB_FUZZ", "300"))
ALWAYS_THE_SAME = "GPTLIB_FUZZ" not in os.environ
SECONDS, BYTES = 2.0, 200 * 2**20  # what one try may take

fuzz = settings(max_examples=EXAMPLES, derandomize=ALWAYS_THE_SAME, database=None, deadline=None,
                suppress_health_check=list(HealthCheck))

Draw = Callable[[st.SearchStrategy], Any]

# Sizes and counts that overflow, allocate, or come out negative where somebody subtracts.
_NUMBERS = [0, 1, 2, 3, 7, 16, 255, 256, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 10**12,
            2**53, 2**63 - 1, 2**63, 2**64 - 1]
_VALUES = [None, True, False, -1, -0.0, 0.5, 1.0, 1e-9, 1e300, -1e300, 10**30, float("nan"),
           float("inf"), "", "a", "abc", "false", "1", "\ud800", [], {}, [[]], {"a": 1}, [None],
           [0], [1, 2, 3], *_NUMBERS]


def mutated_bytes(draw: Draw, content: bytes) -> bytes:
    """`content` with one to three changes of its bytes, most of them near its start.

    A change cuts it off, flips one bit, writes a number of 4 or 8 bytes over what was there,
    removes, doubles or inserts some bytes, or exchanges two stretches. The result can equal
    `content` (rarely), and differs from it anywhere, also in the numbers of tensors: what a change
    there may do is for the test to say. `draw` is that of a composite strategy, or `data.draw`.
    """
    for _ in range(draw(st.integers(1, 3))):
        content = _change_bytes(draw, content)
    return content


def _change_bytes(draw: Draw, content: bytes) -> bytes:
    near = st.integers(0, min(len(content), 512))  # where headers and counts stand
    place = near | near | st.integers(0, len(content))
    at, size = draw(place), draw(st.sampled_from([1, 1, 2, 4, 8, 8, 33, 256]))
    how = draw(st.sampled_from(["flip", "flip", "flip", "number", "number", "cut", "remove",
                                "double", "insert", "exchange"]))
    if how == "flip" and at < len(content):
        flipped = content[at] ^ 1 << draw(st.integers(0, 7))
        return content[:at] + bytes([flipped]) + content[at + 1:]
    if how == "number":
        width = draw(st.sampled_from([4, 8]))
        number = draw(st.sampled_from(_NUMBERS) | st.integers(0, 2**64 - 1)) % 2**(8 * width)
        return content[:at] + number.to_bytes(width, "little") + content[at + width:]
    if how == "remove":
        return content[:at] + content[at + size:]
    if how == "double":
        return content[:at + size] + content[at:]
    if how == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=16)) + content[at:]
    if how == "exchange":
        first, second = sorted((at, draw(place)))
        middle = content[first + size:second]
        return (content[:first] + content[second:second + size] + middle
                + content[first:first + size] + content[second + size:])
    return content[:at]


def mutated_json(draw: Draw, values: Any) -> Any:
    """A copy of JSON `values` with one to three changes somewhere inside, dicts and lists alike.

    A change gives a place another value (of another type, out of range, or that of another
    place), removes it, doubles it, renames a key, adds an unknown key, or wraps a value into a
    list. The result may hold NaN, infinity and lone surrogates, which json.dumps writes and
    readers refuse. It can equal `values`: compare before saying that something changed.
    """
    values = copy.deepcopy(values)
    for _ in range(draw(st.integers(1, 3))):
        inside = list(_places(values))
        if not inside:
            return values
        _change_json(draw, *draw(st.sampled_from(inside)), inside)
    return values


def _places(values: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of everything inside; of long lists and dicts a few."""
    if isinstance(values, dict | list) and depth < 8:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        for key in keys[:24] + keys[24:][-6:]:
            yield values, key
            yield from _places(values[key], depth + 1)


def _change_json(draw: Draw, container: Any, key: Any, inside: list[tuple[Any, Any]]) -> None:
    how = draw(st.sampled_from(["value", "value", "value", "remove", "copy", "double", "rename",
                                "add", "wrap", "number", "cut"]))
    value = container[key]
    if how == "remove":
        del container[key]
    elif how == "copy":
        other, name = draw(st.sampled_from(inside))
        container[key] = copy.deepcopy(other[name])
    elif how == "double" and isinstance(container, list):
        container.insert(key, copy.deepcopy(value))
    elif how == "rename" and isinstance(container, dict):
        new = draw(st.sampled_from([key + "_", key.upper(), key[:-1], ""]))
        container[new] = container.pop(key)
    elif how == "add" and isinstance(value, dict):
        value[draw(st.sampled_from(["unknown", "bias", "dtype", "step"]))] = draw(_any_value)
    elif how == "wrap":
        container[key] = [value]
    elif how == "number" and type(value) in (int, float):
        change = draw(st.sampled_from([-1, 1, 2, 0.5, -2 * value, value, 999 * value]))
        container[key] = value + change
    elif how == "cut" and isinstance(value, str | list):
        container[key] = value[:draw(st.integers(0, len(value)))]
    else:
        container[key] = draw(_any_value)


_any_value = (st.sampled_from(_VALUES).map(copy.deepcopy)  # later changes may reach into a list
              | st.integers(-10, 10) | st.floats() | st.text(max_size=5))


def mutated_json_bytes(draw: Draw, values: Any) -> bytes:
    """`mutated_json` as a file, or `values` as a file whose text has a fault of its own.

    The second kind is what no dict can hold: a key that stands twice, a byte order mark, another
    encoding, thousands of nested lists, changed bytes, two objects, a comma too many.
    """
    text = json.dumps(values, ensure_ascii=draw(st.booleans()))
    how = draw(st.sampled_from(["values"] * 12 + ["bytes"] * 4 + [
        "twice", "twice", "mark", "utf-16", "nested", "two", "comma", "number", "empty"]))
    if how == "values":
        text = json.dumps(mutated_json(draw, values))
    elif how == "bytes":
        return mutated_bytes(draw, text.encode())
    elif how == "twice":
        first = draw(st.sampled_from([key for key in values])) if values else "a"
        text = f"{text[:-1]}, {json.dumps(first)}: {json.dumps(draw(_any_value))}}}"
    elif how == "utf-16":
        return text.encode("utf-16")
    elif how == "nested":
        depth = draw(st.sampled_from([100, 2_000, 100_000]))
        text = f'{text[:-1]}, "a": {"[" * depth}{"]" * depth}}}'
    elif how == "number":
        number = draw(st.sampled_from(["1e999", "NaN", "-Infinity", "9" * 5000]))
        text = f'{text[:-1]}, "a": {number}}}'
    text = {"mark": "\ufeff" + text, "two": text + text, "comma": text[:-1] + ",}",
            "empty": ""}.get(how, text)
    return text.encode()


def mutated_safetensors(draw: Draw, content: bytes) -> bytes:
    """A safetensors file with changed bytes, or with a changed header whose length is right."""
    if draw(st.booleans()):
        return mutated_bytes(draw, content)
    length = int.from_bytes(content[:8], "little")
    header = mutated_json_bytes(draw, json.loads(content[8:8 + length]))
    return len(header).to_bytes(8, "little") + header + content[8 + length:]


def strict_json(content: bytes) -> Any:
    """The JSON in a file, read without gptlib; an error where a key stands twice or a number is
    not finite, so that a file which gptlib accepts can be held against it."""
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), "a key stands twice"
        return dict(pairs)

    def finite(text: str) -> float:
        assert abs(float(text)) < float("inf"), text
        return float(text)

    return json.loads(content.decode(), object_pairs_hook=once, parse_float=finite,
                      parse_constant=finite)


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values mean the same: 1 and 1.0 do, 1 and true don't."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


@contextlib.contextmanager
def limits(seconds: float = SECONDS, memory: int = BYTES) -> Iterator[None]:
    """What runs inside `with` may take `seconds` of computing and allocate `memory` bytes more.

    An allocation beyond that fails as on a machine without memory (MemoryError, or PyTorch's
    RuntimeError), so nothing has to be measured afterwards. Only Linux knows this limit.
    """
    began = time.process_time()
    with _address_space(memory):
        yield
    took = time.process_time() - began
    assert took < seconds, f"it took {took:.1f} s; at most {seconds:.1f}"


@contextlib.contextmanager
def _address_space(more: int) -> Iterator[None]:
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    import resource

    now = int(pages.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
