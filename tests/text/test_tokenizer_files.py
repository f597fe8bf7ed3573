"""tokenizer.json: accepted with the ids of the `tokenizers` library, or refused with the key."""

import copy
import json

import pytest
import tokenizers as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

from gptlib.text.tokenizers import BPETokenizer, load_tokenizer

END = "<|endoftext|>"
TEXT = "The old fox's den wasn't far. We'll see, said the fox: 3 hens! naïve 曹操曰 🙂 hahaha\n"
HARD = [
    "", " ", " x", "the fox", " \n\n  x", "don't DON'T 'tis ''s", "tab\tcr\r\nnul\0bell\a", "🙂🙂",
    "曹操曰：“宁教我负天下人”　全角空格", "e\u0301 \u1e69 ﬁ ½ Ⅷ", "x**2  # 10_000\n\n\nf(1e-5)",
    "aaaaaaaaaaaaaaaa", " leading", "trailing ", "ĠĊ Ġthe", f"a{END}b", f"{END}{END}",
    f" {END} x", f"x {END}  y{END}\n", "a<|user|> b", "x<|user|>y", " <|user|>", "<|user|><|user|>",
    "The <|USER|> fox", "ab<|user", "xx thethe them the", "FOX Fox foX", "é ı İ ß", TEXT,
]


@pytest.fixture(scope="module")
def small():
    return BPETokenizer.train(TEXT * 3, 300, (END, "<|user|>"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def content(small, folder):
    small.save(folder / "small.json")
    return json.loads((folder / "small.json").read_text(encoding="utf-8"))


def assert_same_ids(ours, file):
    """Ours and the library's reading of a file agree on hard texts, in both ways to encode."""
    theirs = reference.Tokenizer.from_file(str(file))
    for text in HARD:
        theirs.encode_special_tokens = False
        ids = theirs.encode(text).ids
        assert ours.encode(text, allow_special=True) == ids, repr(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), repr(text)
        theirs.encode_special_tokens = True
        assert ours.encode(text) == theirs.encode(text).ids, repr(text)


def at(content, *keys):
    for key in keys:
        content = content[key]
    return content


MISSING = object()
TEMPLATE = {
    "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {}}
END_IN_FRONT = TEMPLATE | {
    "single": [{"SpecialToken": {"id": END, "type_id": 0}}, *TEMPLATE["single"]],
    "special_tokens": {END: {"id": END, "ids": [298], "tokens": [END]}}}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
FOX = {"type": "Split", "pattern": {"String": "fox"}, "behavior": "Isolated", "invert": False}
OPTIONS = {  # what a file may say instead: at a place, one of several values
    ("version",): ["1.0", "2.0"],
    ("truncation",): [None, MISSING, {"direction": "Right", "max_length": 4, "stride": 0,
                                      "strategy": "LongestFirst"}],
    ("padding",): [None, {"strategy": {"Fixed": 9}, "direction": "Right", "pad_id": 0,
                          "pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "!"}],
    ("normalizer",): [None, MISSING, {"type": "Lowercase"}, {"type": "NFC"}, {"type": "NFKC"},
                      {"type": "Prepend", "prepend": "_"}],
    ("pre_tokenizer",): [BYTES, None, {"type": "Whitespace"},
                         {"type": "Sequence", "pretokenizers": [FOX, BYTES]}],
    ("pre_tokenizer", "add_prefix_space"): [False, True],
    ("pre_tokenizer", "use_regex"): [True, MISSING, False],
    ("pre_tokenizer", "trim_offsets"): [True, False],
    ("post_processor",): [None, MISSING, TEMPLATE, END_IN_FRONT, BYTES,
                          BYTES | {"add_prefix_space": True, "trim_offsets": False},
                          {"type": "Sequence", "processors": [BYTES, END_IN_FRONT]}],
    ("decoder",): [BYTES, BYTES | {"add_prefix_space": True, "use_regex": False}, None,
                   {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always",
                    "split": True}],
    ("model", "type"): ["BPE", MISSING, "WordPiece"],
    ("model", "dropout"): [None, MISSING, 0.0, 0.5, 1.0],
    ("model", "unk_token"): [None, END, "?"],
    ("model", "continuing_subword_prefix"): [None, "", "##"],
    ("model", "end_of_word_suffix"): [None, "", "</w>"],
    ("model", "fuse_unk"): [False, True], ("model", "byte_fallback"): [False, MISSING, True],
    ("model", "ignore_merges"): [False, MISSING, True],
    ("model", "vocab", END): [298, MISSING, 7, 999],
    ("model", "vocab", "<|user|>"): [299, MISSING],
    ("added_tokens", 0, "id"): [298, 299, 0],
    ("added_tokens", 0, "special"): [True, False],
    ("added_tokens", 1, "lstrip"): [False, True], ("added_tokens", 1, "rstrip"): [False, True],
    ("added_tokens", 1, "single_word"): [False, True],
    ("added_tokens", 0, "normalized"): [False, True],
    ("added_tokens", 1, "normalized"): [False, True],
    ("added_tokens", 1, "content"): ["<|user|>", "the", END, "<|endoftext|>x", "fox"],
    ("added_tokens", 1, "unknown"): [MISSING, 1],
    ("unknown",): [MISSING, None],
}


def with_options(content, options):
    content = copy.deepcopy(content)
    for *keys, last in sorted(options, key=len):
        value, inner = options[*keys, last], at(content, *keys)
        if inner is None:
            continue  # the whole part has been taken away
        if value is MISSING:
            inner.pop(last, None)
        else:
            inner[last] = copy.deepcopy(value)
    return content


@settings(max_examples=300, deadline=None)
@given(st.sets(st.sampled_from(sorted(OPTIONS, key=str)), max_size=4).flatmap(
    lambda places: st.fixed_dictionaries({p: st.sampled_from(OPTIONS[p]) for p in places})))
def test_a_file_is_accepted_with_the_library_s_ids_or_refused(folder, content, options):
    file = folder / "options.json"
    file.write_text(json.dumps(with_options(content, options)), encoding="utf-8")
    try:
        ours = load_tokenizer(file)
    except ValueError as error:
        assert str(error).startswith(str(file))
        return
    assert_same_ids(ours, file)


HARMLESS = {  # alone they change nothing, and other programs write them
    ("truncation",): [MISSING], ("normalizer",): [MISSING],
    ("pre_tokenizer", "use_regex"): [MISSING],
    ("pre_tokenizer", "trim_offsets"): [False], ("decoder",): [OPTIONS["decoder",][1]],
    ("post_processor",): [MISSING, TEMPLATE, BYTES, OPTIONS["post_processor",][5]],
    ("model", "type"): [MISSING], ("model", "dropout"): [MISSING, 0.0],
    ("model", "unk_token"): [END, "?"], ("model", "continuing_subword_prefix"): [""],
    ("model", "end_of_word_suffix"): [""], ("model", "fuse_unk"): [True],
    ("model", "byte_fallback"): [MISSING], ("model", "ignore_merges"): [MISSING]}


@pytest.mark.parametrize("place", OPTIONS, ids=lambda place: ".".join(map(str, place)))
def test_each_option_alone_is_accepted_where_it_means_the_same_and_named_where_not(
        folder, content, place):
    file = folder / "options.json"
    for value in OPTIONS[place]:
        changed = with_options(content, {place: value})
        file.write_text(json.dumps(changed), encoding="utf-8")
        if changed == content or value in HARMLESS.get(place, []):
            assert_same_ids(load_tokenizer(file), file)
        else:
            key = next(key for key in reversed(place) if isinstance(key, str))
            with pytest.raises(ValueError, match=f"{key}|added.tokens"):
                load_tokenizer(file)


def assert_refused(file, message):
    with pytest.raises(ValueError, match=message):
        load_tokenizer(file)


def written(file, content):
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


@pytest.mark.parametrize("vocab_has_them", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_special_tokens_may_stand_in_the_vocabulary_or_beside_it(
        tmp_path, content, vocab_has_them, normalized):
    content = copy.deepcopy(content)
    for token in content["added_tokens"]:
        token["normalized"] = normalized
        if not vocab_has_them:
            del content["model"]["vocab"][token["content"]]
    file = written(tmp_path / "t.json", content)
    assert_same_ids(load_tokenizer(file), file)
    content["added_tokens"].reverse()  # the library numbers those beside it in this order
    assert_refused(written(file, content), r"added_tokens\[0\].id is 299; expected 298")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text("<|a> ", min_size=2, max_size=4), max_size=4, unique=True),
       st.lists(st.text("<|a> b", max_size=12), min_size=1, max_size=8))
def test_special_tokens_that_contain_each_other_are_found_as_the_library_finds_them(
        folder, special, texts):
    try:
        ours = BPETokenizer([(b"a", b"b"), (b"<", b"|")], special)
    except ValueError:
        return  # it is also an ordinary token
    ours.save(folder / "special.json")
    theirs = reference.Tokenizer.from_file(str(folder / "special.json"))
    for text in texts:
        assert ours.encode(text, allow_special=True) == theirs.encode(text).ids


def test_files_saved_by_transformers_are_read(tmp_path, small, content):
    file = written(tmp_path / "tokenizer.json", content)
    PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=END).save_pretrained(tmp_path / "a")
    theirs = GPT2Tokenizer(
        vocab=content["model"]["vocab"], merges=[tuple(m) for m in content["model"]["merges"]])
    theirs.save_pretrained(tmp_path / "b")
    for name, special in [("a", [END, "<|user|>"]), ("b", [END])]:
        saved = tmp_path / name / "tokenizer.json"
        if name == "a":
            ours = load_tokenizer(saved)
            assert list(ours.special_tokens) == special
            assert_same_ids(ours, saved)
        else:  # its <|user|> is an ordinary token that no merge makes
            assert_refused(saved, r"<\|user\|>|added_tokens")


def test_the_form_of_gpt2_s_own_file_is_read(tmp_path, content):
    """As OpenAI's GPT-2 has been passed on since 2020: merges as strings, no type of the model."""
    content = copy.deepcopy(content)
    content["model"] = {key: content["model"][key] for key in (
        "dropout", "unk_token", "fuse_unk", "vocab")} | {
        "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "merges": [" ".join(pair) for pair in content["model"]["merges"]]}
    content["added_tokens"] = content["added_tokens"][:1]
    content["added_tokens"][0]["normalized"] = True
    del content["model"]["vocab"]["<|user|>"]
    del content["pre_tokenizer"]["use_regex"]
    content["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    content["post_processor"] = content["decoder"] | {"trim_offsets": False}
    file = written(tmp_path / "t.json", content)
    assert_same_ids(load_tokenizer(file), file)


def replaced(content, first_merge):
    content["model"]["merges"][0] = first_merge


def updated(content, **ids):
    content["model"]["vocab"] |= ids


@pytest.mark.parametrize("change, message", [
    (lambda c: updated(c, a=True), "model.vocab.a is True; expected a whole number"),
    (lambda c: updated(c, a=64.0), "model.vocab.a is 64.0; expected a whole number"),
    (lambda c: updated(c, a=1), "model.vocab.a is 1; expected 64"),
    (lambda c: updated(c, new=300), "model.vocab.new is 300; expected no such token"),
    (lambda c: c["model"]["vocab"].pop("a"), "model.vocab.a is missing; expected 64"),
    (lambda c: replaced(c, "a b c"), r"model.merges\[0\] is 'a b c'; expected two tokens"),
    (lambda c: replaced(c, ["a"]), r"model.merges\[0\] is \['a'\]; expected two tokens"),
    (lambda c: replaced(c, ["a", 1]), r"model.merges\[0\] is .*; expected two tokens"),
    (lambda c: replaced(c, ["a", " "]), "model.merges .*merge number 0 is .*visible characters"),
    (lambda c: replaced(c, ["a", "zz"]), "model.merges .*merge number 0 is .*tokens made earlier"),
    (lambda c: replaced(c, c["model"]["merges"][1]), "model.merges .*merge number 1 is"),
    (lambda c: c["added_tokens"].append(3), r"added_tokens\[2\] is 3; expected an object"),
    (lambda c: c["added_tokens"][0].pop("lstrip"), r"added_tokens\[0\].lstrip is missing"),
    (lambda c: c["added_tokens"][0].update(content="\ud800"), "lone surrogate|added tokens"),
    (lambda c: c["pre_tokenizer"].pop("trim_offsets"), "pre_tokenizer.trim_offsets is missing"),
    (lambda c: c["pre_tokenizer"].update(more=1), "pre_tokenizer.more is 1; expected no key"),
    (lambda c: c.pop("model"), "no tokenizer of a known type"),
])
def test_other_damage_is_named_too(tmp_path, content, change, message):
    content = copy.deepcopy(content)
    change(content)
    assert_refused(written(tmp_path / "t.json", content), message)


def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path, small):
    (tmp_path / "link.json").symlink_to(tmp_path / "t.json")
    small.save(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "t.json").is_file()
    assert load_tokenizer(tmp_path / "link.json").merges == small.merges
