"""JSON schemas as regular expressions: every text of the pattern is a document of the schema.

Not every document of the schema is a text of the pattern: properties come in the order in which the
schema lists them, all of them, with the spaces of `json.dumps`, and numbers without an exponent.

A schema without references is nested as deeply as it is written down, so it can be written out in
full, and a finite automaton is enough; what nests without an end ("$ref" to itself) would need a
stack, and is refused. So is every other keyword that is not listed here, by its name.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

NOTES = {"$schema", "$id", "title", "description", "examples", "default"}  # they forbid nothing
# One character of a string: itself, or escaped. Escapes of surrogates are left out: two of them are
# one character, which would spoil the lengths, and one alone is none.
CHARACTER = (r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]'
             r"|\\u(?:[0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))")
MOST_DIGITS = 15  # so many digits a float64 keeps, so other programs read the same number


def schema_pattern(schema: Mapping[str, Any]) -> str:
    """The regular expression of a JSON schema, for `Automaton.from_pattern`.

    Known are "type": object ("properties", "required", "additionalProperties"), array ("items",
    "minItems", "maxItems"), string ("minLength", "maxLength"), integer ("minimum", "maximum"),
    number, boolean, null; and "enum", "const" and "anyOf". Raises ValueError for any other keyword.
    """
    if not isinstance(schema, Mapping):
        raise ValueError(f"a schema is {schema!r}; expected a JSON object with a type")
    _only(schema, {"type", "enum", "const", "anyOf"}.union(*(known for _, known in KINDS.values())))
    for key in ("enum", "const", "anyOf"):
        if key in schema:
            _only(schema, {key} if key == "anyOf" else {key, "type"})
            return _group(_given(schema, key) if key != "anyOf" else
                          [schema_pattern(option) for option in _list(schema, "anyOf")])
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f'"type" is {kind!r}; expected one of {", ".join(KINDS)}, or "enum", '
                         f'"const" or "anyOf"')
    write, keywords = KINDS[kind]
    _only(schema, {"type", *keywords})
    return write(schema)


def _object(schema: Mapping) -> str:
    properties, closed = schema.get("properties", {}), schema.get("additionalProperties", False)
    required = schema.get("required", [])
    if not (isinstance(properties, Mapping) and isinstance(closed, bool)
            and isinstance(required, list)):
        raise ValueError(f'"properties" is {properties!r}, "required" {required!r}, '
                         f'"additionalProperties" {closed!r}; expected an object, a list of names, '
                         f"and true or false")
    missing = [name for name in required if name not in properties]
    if missing:
        raise ValueError(f'"required" names {missing[0]!r}, which "properties" does not describe')
    fields = [f"{_literal(name)}: {schema_pattern(inner)}" for name, inner in properties.items()]
    return r"\{" + ", ".join(fields) + r"\}"


def _array(schema: Mapping) -> str:
    if "items" not in schema:
        raise ValueError('an array has no "items"; expected the schema of its elements')
    item = schema_pattern(schema["items"])
    least, most = _bounds(schema, "minItems", "maxItems")
    if most == 0:
        return r"\[\]"
    rest = f"(?:, {item}){{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
    return rf"\[{item}{rest}\]" if least else rf"\[(?:{item}{rest})?\]"


def _string(schema: Mapping) -> str:
    least, most = _bounds(schema, "minLength", "maxLength")
    return f'"{CHARACTER}{{{least},{"" if most is None else most}}}"'


def _integer(schema: Mapping) -> str:
    edge = 10**MOST_DIGITS - 1
    low, high = schema.get("minimum", -edge), schema.get("maximum", edge)
    if not all(type(value) is int and abs(value) <= edge for value in (low, high)) or low > high:
        raise ValueError(f'"minimum" and "maximum" are {low!r} and {high!r}; expected whole '
                         f"numbers of at most {MOST_DIGITS} digits, the smaller one first")
    negative = [] if low >= 0 else [f"-(?:{_between(max(1, -high), -low)})"]
    return _group(negative + ([] if high < 0 else [_between(max(0, low), high)]))


def _between(low: int, high: int) -> str:
    """The whole numbers from low to high, 0 or more, as a pattern: 7 to 23 is [7-9]|1[0-9]|2[0-3].

    Each option holds as many numbers as possible whose last digits run from 0 to 9.
    """
    options = []
    while low <= high:
        size = 1  # so many numbers from low on share a beginning
        while low % (size * 10) == 0 and low + size * 10 - 1 <= high and low:
            size *= 10
        last = low + size - 1
        step = low // size % 10  # further blocks of this size, while only this digit changes
        while step < 9 and last + size <= high:
            last, step = last + size, step + 1
        digits = zip(str(low), str(last))
        options.append("".join(a if a == b else f"[{a}-{b}]" for a, b in digits))
        low = last + 1
    return "|".join(options)


def _number(schema: Mapping) -> str:
    return rf"-?(?:0|[1-9][0-9]{{0,{MOST_DIGITS - 7}}})(?:\.[0-9]{{1,6}})?"


KINDS: dict[str, tuple[Callable[[Mapping], str], Sequence[str]]] = {
    "object": (_object, ("properties", "required", "additionalProperties")),
    "array": (_array, ("items", "minItems", "maxItems")),
    "string": (_string, ("minLength", "maxLength")),
    "integer": (_integer, ("minimum", "maximum")),
    "number": (_number, ()),
    "boolean": (lambda schema: "(?:true|false)", ()),
    "null": (lambda schema: "null", ()),
}
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float),
         "boolean": bool, "null": type(None)}


def _given(schema: Mapping, key: str) -> list[str]:
    """Patterns of the values that "enum" lists, or of the one of "const"."""
    values = _list(schema, "enum") if key == "enum" else [schema["const"]]
    kind = schema.get("type")
    for value in values if kind is not None else ():
        right = isinstance(value, TYPES.get(kind, ()))
        if not right or isinstance(value, bool) != (kind == "boolean"):
            raise ValueError(f'"{key}" holds {value!r}, which is not of the type {kind!r}')
    return [_literal(value) for value in values]


def _literal(value: Any) -> str:
    return re.escape(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _group(options: Sequence[str]) -> str:
    return f"(?:{'|'.join(options)})"


def _list(schema: Mapping, key: str) -> list:
    if not isinstance(schema[key], list) or not schema[key]:
        raise ValueError(f'"{key}" is {schema[key]!r}; expected a list with at least one element')
    return schema[key]


def _bounds(schema: Mapping, least: str, most: str) -> tuple[int, int | None]:
    low, high = schema.get(least, 0), schema.get(most)
    whole = all(type(value) is int and value >= 0 for value in (low, high) if value is not None)
    if not whole or low is None or (high is not None and high < low):
        raise ValueError(f'"{least}" and "{most}" are {low!r} and {high!r}; expected whole numbers '
                         f"from 0 on, the smaller one first")
    return low, high


def _only(schema: Mapping, known: set[str]) -> None:
    for key in schema:
        if key not in known | NOTES:
            raise ValueError(f'the keyword "{key}" is not known here, or not where the type is '
                             f'{schema.get("type")!r}; expected {", ".join(sorted(known))}')
