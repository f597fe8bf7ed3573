import json
import random
import re

import jsonschema
import pytest

from gptlib.writing.schemas import schema_pattern

NESTED = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "kind": {"enum": ["fox", "a \"b\" c", "é.*", 3, None, [1, 2]]},
        "size": {"type": "object", "properties": {"cm": {"type": "number"}}, "required": ["cm"],
                 "additionalProperties": False},
        "wishes": {"type": "array", "minItems": 1, "maxItems": 3,
                   "items": {"anyOf": [{"type": "integer", "minimum": -5, "maximum": 120},
                                       {"type": "boolean"}, {"type": "null"}]}},
        "grid": {"type": "array", "items": {"type": "array", "items": {"const": 0}}},
    },
    "required": ["name", "wishes"],
}


def matches(schema, text):
    return re.fullmatch(schema_pattern(schema), text, re.ASCII) is not None


def test_a_document_in_the_layout_of_json_dumps_is_a_text_of_the_pattern():
    document = {"name": 'é"\n\\', "kind": "é.*", "size": {"cm": -1.5}, "wishes": [-5, True, None],
                "grid": [[], [0, 0]]}
    jsonschema.validate(document, NESTED)
    assert matches(NESTED, json.dumps(document, ensure_ascii=False))
    for ascii_only in (True, False):  # only in a string, not in a listed value, é may be escaped
        assert matches(NESTED, json.dumps(document | {"kind": 3}, ensure_ascii=ascii_only))


@pytest.mark.parametrize("change", [
    {"name": ""}, {"name": "too long a name"}, {"kind": "wolf"}, {"size": {}}, {"wishes": []},
    {"wishes": [1, 2, 3, 4]}, {"wishes": [121]}, {"wishes": [-6]}, {"wishes": ["a"]},
    {"grid": [[1]]}, {"size": {"cm": "5"}}])
def test_what_is_no_document_of_the_schema_is_no_text_of_the_pattern(change):
    document = {"name": "a", "kind": 3, "size": {"cm": 1}, "wishes": [1], "grid": []}
    assert matches(NESTED, json.dumps(document))
    assert not jsonschema.Draft202012Validator(NESTED).is_valid(document | change)
    assert not matches(NESTED, json.dumps(document | change))


def test_a_range_of_whole_numbers_holds_exactly_these():
    rng = random.Random(0)
    bounds = [(0, 0), (-1, 0), (7, 23), (-120, -7), (99, 1000), (0, 10**15 - 1)]
    bounds += [(low, low + rng.randrange(2000)) for low in rng.sample(range(-2000, 2000), 60)]
    for low, high in bounds:
        schema = {"type": "integer", "minimum": low, "maximum": high}
        pattern = re.compile(schema_pattern(schema))
        near = {edge + d for edge in (low, high, 0) for d in range(-110, 111)}
        for number in near:
            assert (pattern.fullmatch(str(number)) is not None) == (low <= number <= high)


def test_lengths_count_characters_as_a_reader_of_json_does():
    schema = {"type": "string", "minLength": 2, "maxLength": 2}
    assert matches(schema, r'"\u00e9\n"') and matches(schema, '"😀é"')
    assert not matches(schema, r'"\ud83d\ude00"')  # one character, written as two surrogates
    assert not matches(schema, '"a"') and not matches(schema, '"a\nb"')
    assert not matches({"type": "string"}, '"a\n"')  # a line break must be escaped


@pytest.mark.parametrize("schema, named", [
    ({"type": "string", "pattern": "a"}, '"pattern"'),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}}, r'"\$ref"'),
    ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, '"uniqueItems"'),
    ({"type": "number", "minimum": 0}, '"minimum"'),
    ({"type": "integer", "multipleOf": 2}, '"multipleOf"'),
    ({"enum": [1], "maximum": 2}, '"maximum"'),
    ({"type": ["string", "null"]}, '"type"'), ({"type": "text"}, '"type"'), ({}, '"type"'),
    ({"type": "object", "properties": {}, "required": ["a"]}, '"required" names \'a\''),
    ({"type": "object", "properties": [], "required": []}, '"properties"'),
    ({"type": "object", "properties": {}, "additionalProperties": {}}, '"additionalProperties"'),
    ({"type": "array"}, '"items"'), ({"enum": []}, '"enum"'), ({"anyOf": 3}, '"anyOf"'),
    ({"type": "string", "enum": ["a", 1]}, "holds 1"), ({"type": "integer", "const": True}, "True"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, '"maxLength"'),
    ({"type": "array", "items": {"type": "null"}, "maxItems": -1}, '"maxItems"'),
    ({"type": "integer", "minimum": 0.5}, '"minimum"'),
    ({"type": "integer", "minimum": 10**16}, '"minimum"'), (True, "JSON object"),
])
def test_a_schema_that_is_not_known_is_refused_by_the_name_of_its_keyword(schema, named):
    with pytest.raises(ValueError, match=named):
        schema_pattern(schema)


def test_empty_objects_and_arrays_and_titles_are_known():
    assert matches({"type": "object", "title": "nothing", "description": "at all"}, "{}")
    assert matches({"type": "array", "items": {"type": "null"}, "maxItems": 0}, "[]")
    assert matches({"type": "array", "items": {"type": "null"}}, "[null, null, null]")
