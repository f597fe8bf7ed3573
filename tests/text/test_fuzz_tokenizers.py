"""Changed tokenizer files: refused by name, or read as what they say.

A tokenizer.json that is accepted must give the ids of the `tokenizers` library, whatever changed;
the two small formats of this book, saved again, must be the changed file.
"""

import pytest
import tokenizers as reference
from hypothesis import event, given
from hypothesis import strategies as st
from mutations import fuzz, limits, mutated_json_bytes, same_json, strict_json

from gptlib.text.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, load_tokenizer

END = "<|endoftext|>"
TEXT = "The old fox's den wasn't far. We'll see, said the fox: 3 hens! naïve 曹操曰 🙂 hahaha\n"
HARD = ["", " ", " \n\n  x", "don't DON'T 'tis", "tab\tcr\r\nnul\0", "曹操曰：“宁教我”　全角",
        "🙂🙂", "aaaaaaaa", "trailing ", "ĠĊ Ġthe", f"a{END} b <|user|>  c<|USER|>",
        f" {END}{END}the", "The FOX's fox", "\xa0!\"#abc¡", TEXT]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "tokenizer.json"


def saved(file, tokenizer):
    tokenizer.save(file)
    return file.read_bytes()


def read(file, content):
    """The tokenizer in a changed file, or None where it was refused in the right way."""
    file.write_bytes(content)
    try:
        with limits():
            return load_tokenizer(file)
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith(f"{file}: "), error
        event("refused")
        return None


@fuzz
@given(st.data())
def test_a_changed_tokenizer_json_gives_the_library_s_ids_or_is_refused(file, data):
    content = saved(file, BPETokenizer.train(TEXT, 290, (END, "<|user|>")))
    changed = mutated_json_bytes(data.draw, strict_json(content))
    ours = read(file, changed)
    if ours is None:
        return
    strict_json(changed)
    theirs = reference.Tokenizer.from_file(str(file))
    assert ours.vocab_size == theirs.get_vocab_size()
    for text in HARD:
        theirs.encode_special_tokens = False
        ids = theirs.encode(text).ids
        assert ours.encode(text, allow_special=True) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
        theirs.encode_special_tokens = True
        assert ours.encode(text) == theirs.encode(text).ids
    event("the same" if same_json(strict_json(changed), strict_json(content)) else "other content")


@fuzz
@given(st.data())
def test_a_changed_file_of_this_book_s_tokenizers_is_what_it_says_or_refused(file, data):
    tokenizer = data.draw(st.sampled_from([
        CharTokenizer.train("ab\n é🙂"), ByteTokenizer(), ByteTokenizer((END, "<|user|>"))]))
    content = saved(file, tokenizer)
    changed = mutated_json_bytes(data.draw, strict_json(content))
    ours = read(file, changed)
    if ours is None:
        return
    assert same_json(strict_json(saved(file, ours)), strict_json(changed))
    event("the same" if same_json(strict_json(changed), strict_json(content)) else "other content")
