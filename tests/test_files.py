"""The border: JSON, safetensors headers and writing, with what strangers and full disks do."""

import errno
import json
import os
import re
import time
from pathlib import Path

import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from mutations import fuzz, limits, mutated_safetensors
from safetensors import safe_open
from safetensors.torch import save_file

from gptlib import files
from gptlib.files import (
    Fields,
    TensorInfo,
    broken,
    current,
    is_unused,
    parse_json,
    read_header,
    read_json,
    read_tensors,
    replace_files,
    require_tensors,
    tensor_info,
    write_text,
)

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n"


def put(folder, content):
    file = folder / "a.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


# ---- JSON


def test_an_object_is_read_as_python_reads_it(tmp_path):
    values = {"a": 1, "b": [1.5, None, True, {"ü": "🙂"}], "": {}, "big": 10**30, "e": 1e-300}
    assert read_json(put(tmp_path, json.dumps(values))) == values
    assert read_json(put(tmp_path, json.dumps(values, ensure_ascii=False))) == values


@pytest.mark.parametrize("content, message", [
    ("", "it has 0 bytes; expected a JSON file of 1 to"),
    ("{", "cut off or not JSON"), ('{"a": 1}}', "cut off or not JSON"), ("{}{}", "not JSON"),
    ("\ufeff{}", "not JSON.*BOM"), ("{}".encode("utf-16"), "not JSON in UTF-8"),
    (b'{"a": "\xff"}', "not JSON in UTF-8"), ("{'a': 1}", "not JSON"), ('{"a": 1,}', "not JSON"),
    ("[1]", "it holds a list; expected a JSON object"), ("null", "it holds a NoneType"),
    ('"a"', "it holds a str"), ("3", "it holds a int"),
    ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
    ('{"b": [{"a": {}, "c": 1, "a": 2}]}', "the key 'a' stands twice"),
    ('{"a": NaN}', "NaN is not a finite number"), ('{"a": [-Infinity]}', "-Infinity is not"),
    ('{"a": 1e999}', "1e999 is not a finite number"), ('{"a": -1e999}', "-1e999 is not a finite"),
    ('{"a": ' + "9" * 5000 + "}", "not JSON"),
    ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested too deeply"),
    (POINTER, "the pointer of Git LFS, not the file itself: run `git lfs pull`"),
], ids=lambda value: str(value)[:20])
def test_what_is_no_json_object_is_refused(tmp_path, content, message):
    file = put(tmp_path, content)
    with limits(), pytest.raises(ValueError, match=rf"^{re.escape(str(file))}: .*{message}"):
        read_json(file)


def test_a_file_that_is_not_there_or_too_large_is_refused_unread(tmp_path):
    for wrong in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ValueError, match="there is no such file"):
            read_json(wrong)
    file = put(tmp_path, "{}")
    os.truncate(file, 2**40)  # a terabyte, of which the disk holds nothing
    with limits(), pytest.raises(ValueError, match="it has 1,099,511,627,776 bytes; expected"):
        read_json(file)
    with pytest.raises(ValueError, match="it has 9 bytes; expected a JSON file of 1 to 8"):
        read_json(put(tmp_path, '{"a": 12}'), largest=8)


def test_the_last_of_many_keys_that_stands_twice_is_found_quickly():
    text = ", ".join(f'"{i}": 0' for i in range(200_000))
    began = time.process_time()
    with pytest.raises(ValueError, match="'199999' stands twice"):
        parse_json(f'{{{text}, "199999": 1}}'.encode(), "a.json")
    assert time.process_time() - began < 2


# ---- fields


def fields(**values):
    return Fields("a.json", values, "model.")


@pytest.mark.parametrize("kind, right, wrong", [
    (int, [0, -3, 10**30], [True, 1.0, "1", None, [1]]),
    (float, [0, -3, 0.5, 1e300], [True, "1", None, [1.0], float("nan"), float("inf"), 10**400]),
    (bool, [True, False], [0, 1, "true", None]),
    (str, ["", "a"], [1, None, ["a"]]),
    (list, [[], [1]], [(), {}, "a", None]),
    (dict, [{}, {"a": 1}], [[], "a", None]),
])
def test_a_value_has_the_kind_that_is_asked_for(kind, right, wrong):
    for value in right:
        assert fields(a=value).read("a", kind) == value
        assert isinstance(fields(a=value).read("a", kind), kind)
    for value in wrong:
        with pytest.raises(ValueError, match=r"^a.json: model.a is .*; expected (a|an|true) "):
            fields(a=value).read("a", kind)


def test_limits_and_choices_are_told():
    assert fields(a=3).read("a", int, least=3, most=3) == 3
    with pytest.raises(ValueError, match="a is 2; expected a whole number of at least 3, at most"):
        fields(a=2).read("a", int, least=3, most=1_000)
    with pytest.raises(ValueError, match="a is 4; expected a whole number, at most 3"):
        fields(a=4).read("a", int, most=3)
    with pytest.raises(ValueError, match="a is 'c'; expected one of 'a', 'b'"):
        fields(a="c").read("a", str, choices=("a", "b"))
    with pytest.raises(ValueError, match="a is 1; expected one of True"):
        fields(a=1).read("a", bool, choices=(True,))


def test_a_default_stands_for_a_missing_key_and_null_only_for_none():
    assert fields().read("a", int, 5) == 5 and fields().read("a", int, None) is None
    assert fields(a=None).read("a", int, None) is None
    with pytest.raises(ValueError, match="model.a is None; expected a whole number"):
        fields(a=None).read("a", int, 5)
    with pytest.raises(ValueError, match="model.a is missing; expected a whole number"):
        fields().read("a", int)


def test_what_nothing_has_read_is_refused():
    one = fields(a=1, b=2, c=3, d={"e": 4})
    one.read("a", int)
    one.ignore("b", "not there")
    inner = one.object("d")
    with pytest.raises(ValueError, match="^a.json: model.c is 3; expected no key that this reader"):
        one.finish()
    with pytest.raises(ValueError, match="^a.json: model.d.e is 4; expected no key"):
        inner.finish()
    with pytest.raises(ValueError, match=r"model.a is 1 \(and 1 more\)"):
        fields(a=1, b=2).finish()
    with pytest.raises(ValueError, match="^a.json: model.d is 3; expected an object"):
        fields(d=3).object("d")


def test_a_message_stays_short_and_printable():
    for value in ("x" * 10**6, ["x"] * 10**6, {"x" * 10**6: 1}, [[[["x" * 99] * 99] * 99] * 99]):
        with pytest.raises(ValueError) as error:
            fields(a=value).read("a", int)
        assert len(str(error.value)) < 200
    with pytest.raises(ValueError) as error:
        fields(**{"\ud800" + "x" * 10**6: 1}).finish()
    assert len(str(error.value)) < 700 and str(error.value).encode()
    assert str(broken("a", "b")) == "a: b" and str(broken("a", "b", "c")) == "a: b: c"


# ---- safetensors


def header_file(folder, header, numbers=b"\0" * 16, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file = folder / "a.safetensors"
    size = len(text) if length is None else length
    file.write_bytes(size.to_bytes(8, "little") + text + numbers)
    return file


def entry(begin, end, shape=None, dtype="F32", **more):
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]} | more


def test_a_header_says_what_the_library_reads(tmp_path):
    tensors = {
        "matrix": torch.randn(2, 3), "vector": torch.arange(5), "half": torch.randn(2).half(),
        "brain": torch.randn(3).bfloat16(), "bytes": torch.ones(7, dtype=torch.uint8),
        "scalar": torch.tensor(1.5), "none": torch.ones(0, 4), "truth": torch.tensor([True])}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt", "note": "ü"})
    header = read_header(tmp_path / "a.safetensors")
    assert header == {name: tensor_info(tensor) for name, tensor in tensors.items()}
    assert header["matrix"] == TensorInfo("F32", (2, 3))
    read = read_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    (tmp_path / "a.safetensors").write_bytes(b"")  # what was read does not hang on the file
    assert torch.equal(read["matrix"], tensors["matrix"])


@pytest.mark.parametrize("header, message", [
    ({"a": entry(0, 16), "b": entry(8, 16)}, "a tensor begins at byte 8; expected 16"),
    ({"a": entry(0, 8), "b": entry(12, 16)}, "a tensor begins at byte 12; expected 8"),
    ({"a": entry(4, 16)}, "a tensor begins at byte 4; expected 0"),
    ({"a": entry(0, 16), "b": entry(0, 16)}, "a tensor begins at byte 0; expected 16"),
    ({"a": entry(0, 8)}, "it holds 16 bytes of numbers; expected 8: it was cut off, or something"),
    ({"a": entry(0, 2**50)}, "it holds 16 bytes of numbers; expected 1,125,899,906,842,624"),
    ({"a": entry(16, 0)}, r"a has the shape \(-?4,\) in F32 and -16 bytes|whole numbers"),
    ({"a": entry(0, 16, [5])}, r"a has the shape \(5,\) in F32 and 16 bytes; expected 20"),
    ({"a": entry(0, 16, [2**40, 2**40])}, "and 16 bytes; expected 4,835,703,278,458,516,698,824,7"),
    ({"a": entry(0, 16, [2**60])}, "a.shape is .*; expected a short list of whole numbers"),
    ({"a": entry(0, 16, [-4])}, "a.shape is .*; expected a short list of whole numbers"),
    ({"a": entry(0, 16, [4.0])}, "a.shape is .*; expected a short list"),
    ({"a": entry(0, 4, [True])}, "a.shape is .*; expected a short list"),
    ({"a": entry(0, 16, [1] * 8 + [4])}, "a.shape is .*; expected a short list"),
    ({"a": entry(0, 16, "4")}, "a.shape is '4'; expected a list"),
    ({"a": entry(0, 16, dtype="F8_E4M3")}, "a.dtype is 'F8_E4M3'; expected one of 'F64', 'F32'"),
    ({"a": entry(0, 16, dtype=4)}, "a.dtype is 4; expected one of"),
    ({"a": entry(0, 16) | {"data_offsets": [0, 8, 16]}}, "a.data_offsets is .*short list"),
    ({"a": entry(0, 16) | {"data_offsets": [0]}}, "a.data_offsets is"),
    ({"a": {"dtype": "F32", "shape": [4]}}, "a.data_offsets is missing"),
    ({"a": entry(0, 16, scale=2)}, "a.scale is 2; expected no key that this reader does not know"),
    ({"a": [0, 16]}, r"a is \[0, 16\]; expected an object"),
    ({"a": entry(0, 16), "__metadata__": {"step": 4}}, "__metadata__.step is 4; expected a string"),
    ({"a": entry(0, 16), "__metadata__": "pt"}, "__metadata__ is 'pt'; expected an object"),
    (b'{"a": {}, "a": {}}', "the key 'a' stands twice"),
    (b"[1]", "it holds a list; expected a JSON object"),
    (b"{}", "it holds 16 bytes of numbers; expected 0"),
    (b"\xff\xfe", "not JSON in UTF-8"),
], ids=str)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path, header, message):
    file = header_file(tmp_path, header)
    with limits(), pytest.raises(ValueError, match=rf"^{re.escape(str(file))}: .*{message}"):
        read_header(file)


@pytest.mark.parametrize("content", [
    b"", b"\x02", (2**63 + 5).to_bytes(8, "little"), (2**40).to_bytes(8, "little") + b"{}",
    (3).to_bytes(8, "little") + b"{}", (0).to_bytes(8, "little"), POINTER])
def test_a_file_without_a_whole_header_is_refused(tmp_path, content):
    file = put(tmp_path, content)
    message = "pointer of Git LFS" if content == POINTER else "expected a whole safetensors file"
    with limits(), pytest.raises(ValueError, match=message):
        read_header(file)
    with pytest.raises(ValueError, match="there is no such file; expected a safetensors file"):
        read_header(tmp_path / "nothing")


def test_a_file_that_lost_its_numbers_after_its_header_was_read_is_refused(tmp_path):
    file = header_file(tmp_path, {"a": entry(0, 16)})
    read_header(file)
    os.truncate(file, file.stat().st_size - 8)
    with pytest.raises(ValueError, match="a.safetensors: it is cut off or no safetensors file"):
        read_tensors(file)


@fuzz
@given(st.data())
def test_a_changed_file_is_refused_or_read_as_the_library_reads_it(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "changed.safetensors"
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4), "c": torch.ones(0)}, file)
    file.write_bytes(mutated_safetensors(data.draw, file.read_bytes()))
    try:
        with limits():
            header, tensors = read_header(file), read_tensors(file)
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith(f"{file}: ")
        return event("refused")
    with safe_open(file, "pt") as theirs:
        assert header.keys() == tensors.keys() == set(theirs.keys())
        for name, info in header.items():
            assert info == tensor_info(tensors[name]) == tensor_info(theirs.get_tensor(name))
            assert tensors[name].numpy().tobytes() == theirs.get_tensor(name).numpy().tobytes()
    return event("read")


def test_tensors_must_be_those_of_the_model():
    found = {"a": TensorInfo("F32", (2, 3)), "b": TensorInfo("BF16", ())}
    require_tensors("f", found, {"a": (2, 3), "b": ()})
    for names, message in [({"a": (2, 3)}, "it holds b; expected no tensor that the model lacks"),
                           ({"a": (3, 2), "b": ()}, r"a has the shape \(2, 3\); expected \(3, 2\)"),
                           ({"a": (2, 3), "b": (), "c": (1,)}, "c is missing; expected the")]:
        with pytest.raises(ValueError, match=f"^f: {message}"):
            require_tensors("f", found, names)
    with pytest.raises(ValueError, match="a has the type I64; expected floating numbers"):
        require_tensors("f", {"a": TensorInfo("I64", (2,))}, {"a": (2,)})


# ---- writing

NAMES = ("first", "second", "third")


def writer(*names, text="new"):
    def write(folder):
        for name in names:
            (folder / name).write_text(text)
    return write


def contents(folder):
    return {file.name: file.read_text() for file in Path(folder).iterdir()}


def test_new_files_replace_all_of_the_old_and_leave_others_alone(tmp_path):
    folder = tmp_path / "deep" / "run"
    replace_files(folder, NAMES, writer("first", "second", text="old"))
    (folder / "notes").write_text("mine")
    replace_files(folder, NAMES, writer("first", "third"))
    assert contents(folder) == {"first": "new", "third": "new", "notes": "mine"}
    assert current(folder, NAMES, "third") == folder / "third"


def test_files_that_are_ready_count_before_they_are_moved(tmp_path):
    writer("first", "second", text="old")(tmp_path)
    (tmp_path / ".ready").mkdir()
    writer("first", "third")(tmp_path / ".ready")
    for name in NAMES:  # the second one is gone, though the old one still lies there
        assert current(tmp_path, NAMES, name).exists() == (name != "second")
        assert name == "second" or current(tmp_path, NAMES, name).read_text() == "new"
    (tmp_path / ".ready" / "first").rename(tmp_path / "first")
    assert current(tmp_path, NAMES, "first") == tmp_path / "first"
    assert current(tmp_path, NAMES, "third") == tmp_path / ".ready" / "third"


def test_files_are_on_the_disk_before_they_count_and_the_first_moves_before_the_others(
        tmp_path, monkeypatch):
    done, names = [], {}

    def note(what, function):
        def call(*arguments, **options):
            done.append((what, Path(str(arguments[0])).name))
            return function(*arguments, **options)
        return call

    monkeypatch.setattr(files, "force_to_disk", note("force", files.force_to_disk))
    monkeypatch.setattr(Path, "rename", note("rename", Path.rename))
    monkeypatch.setattr(os, "replace", note("replace", os.replace))
    replace_files(tmp_path / "run", NAMES, writer("second", "first"))
    names = {step: i for i, step in reversed(list(enumerate(done)))}
    counts = names["rename", ".writing"]
    assert names["force", "first"] < counts and names["force", "second"] < counts
    assert names["force", ".writing"] < counts
    after = done[counts + 1:]
    assert after.index(("force", "run")) < after.index(("replace", "first"))
    first, second = after.index(("replace", "first")), after.index(("replace", "second"))
    assert ("force", "run") in after[first:second] and ("force", ".ready") in after[first:second]


@pytest.mark.parametrize("failure, message", [
    (OSError(errno.ENOSPC, "No space left on device"), "No space left.*is unchanged: free some"),
    (ValueError("a number"), "^a number$"),
    (KeyboardInterrupt(), "^$"),
])
def test_a_writing_that_fails_leaves_what_was_there(tmp_path, failure, message):
    replace_files(tmp_path, NAMES, writer("first", "second", text="old"))

    def write(folder):
        writer("first")(folder)
        raise failure

    with pytest.raises(type(failure), match=message):
        replace_files(tmp_path, NAMES, write)
    for name in NAMES[:2]:
        assert current(tmp_path, NAMES, name).read_text() == "old"
    replace_files(tmp_path, NAMES, writer("first"))
    assert contents(tmp_path) == {"first": "new"}


@pytest.mark.parametrize("made", [("second",), (), ("first", "fourth")])
def test_other_files_than_those_announced_are_a_mistake(tmp_path, made):
    replace_files(tmp_path, NAMES, writer("first", text="old"))
    with pytest.raises(ValueError, match="were written; expected files of .*first"):
        replace_files(tmp_path, NAMES, writer(*made))
    assert contents(tmp_path) == {"first": "old"}


def test_a_folder_is_unused_until_its_files_count(tmp_path):
    assert is_unused(tmp_path / "new") and is_unused(tmp_path)
    (tmp_path / ".writing").mkdir()
    assert is_unused(tmp_path)
    (tmp_path / ".ready").mkdir()
    assert not is_unused(tmp_path)
    (tmp_path / "file").write_text("")
    assert not is_unused(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert not is_unused(tmp_path / "link")
    (tmp_path / "linked").symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    assert is_unused(tmp_path / "linked")


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, name):
    file = tmp_path / "a.json"
    write_text(file, "ü\n")
    assert file.read_bytes() == "ü\n".encode()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "new\n")
    assert contents(tmp_path) == {"a.json": "ü\n"}
