"""Tokenizers against worked examples, their own inverse, `tokenizers` and `tiktoken`."""

import codecs
import json
import os
import pickle
import time
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import tiktoken
import tokenizers as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib.text.bpe import (
    BYTE_ORDER,
    apply_merges,
    learn_merges,
    merge,
    split_parts,
    split_words,
    to_ids,
)
from gptlib.text.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, load_tokenizer

END = "<|endoftext|>"
TEXT = """The old fox's den wasn't far. "We'll see," said the fox, "what you've got: 3 hens!"
Once upon a time, in the 1800s, there was a village; naïve café-goers sat there -- and there...

    indented    code:  for (i = 0; i < 10; i++) { total += values[i]; }\t\n\n\n
曹操曰：“宁教我负天下人，休教天下人负我。”玄德曰：“备愿往。” 天下大势，分久必合，合久必分。
hahaha banana bananas aaaa aaaaaaa ------------
🙂🙂 👩‍👩‍👧 e\u0301 \u0627\u0644\u0633\u0644\u0627\u0645
"""
HARD = [
    "", " ", "  ", "\n", " \n\n  x", "a", "don't DON'T we'll 'tis ''s", "x  y   z    ",
    "tab\tcr\r\nnul\0bell\a del\x7f fs\x1c\x1d\x1e\x1f nel\x85 nbsp\xa0 ls\u2028",
    "zwsp\u200b bom\ufeff",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇨🇳 🙂🙂", "曹操曰：“宁教我负天下人”　全角空格", "السلام عليكم ١٢٣ مرحبًا",
    "e\u0301 \u1e69 ﬁ ½ Ⅷ ² ㋿", "def f(x):\n\treturn x**2  # 10_000\n\n\nf(1e-5)",
    "1234567 3.14159 1,000,000 0x1F", "aaaaaaaaaaaaaaaaaaaaaaa", "----------====",
    " leading", "trailing ", "ĠĊ Ġthe",
    "\U0010ffff \U0001f9ff\ufffd\ufffe", f"a{END}b", f"{END}{END}", f" {END} x", "<|endoftext",
]
any_text = st.text(max_size=60)
# The three programs carry tables of different Unicode versions: leave unassigned characters out.
assigned_text = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=40)


@pytest.fixture(scope="module")
def small() -> BPETokenizer:
    return BPETokenizer.train(TEXT, 400)


@pytest.fixture(scope="module")
def gpt2() -> BPETokenizer:
    return BPETokenizer.gpt2()


@pytest.fixture(scope="module")
def tiktoken_gpt2(gpt2) -> tiktoken.Encoding:
    ranks = {piece: i for i, piece in enumerate(gpt2.token_bytes[:-1])}
    pattern = (r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")
    return tiktoken.Encoding("gpt2-from-corpora", pat_str=pattern, mergeable_ranks=ranks,
                             special_tokens={END: 50256}, explicit_n_vocab=50257)


def all_kinds() -> list:
    return [CharTokenizer.train(TEXT), ByteTokenizer(), ByteTokenizer((END, "<|user|>")),
            BPETokenizer.train(TEXT, 300), BPETokenizer.train(TEXT, 280, ("<|a|>", "<|a|>b"))]


def trained_by_library(text: str, vocab_size: int) -> reference.Tokenizer:
    """The same rules in `tokenizers`: all 256 bytes first, special tokens added afterwards."""
    other = reference.Tokenizer(reference.models.BPE())
    other.pre_tokenizer = reference.pre_tokenizers.ByteLevel(add_prefix_space=False)
    other.decoder = reference.decoders.ByteLevel()
    trainer = reference.trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False,
        initial_alphabet=reference.pre_tokenizers.ByteLevel.alphabet())
    other.train_from_iterator([text], trainer)
    return other


# --- the algorithm on small numbers -------------------------------------------------------------

def test_merge_goes_from_left_to_right_and_does_not_overlap():
    assert merge([1, 1, 1], (1, 1), 256) == [256, 1]
    assert merge([1, 2, 1, 2, 1], (1, 2), 256) == [256, 256, 1]
    assert merge([], (1, 2), 256) == []


def test_the_example_of_sennrich_learns_es_est_lo_low():
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    pieces = [bytes([byte]) for byte in BYTE_ORDER]
    for left, right in learn_merges(words, 10):
        pieces.append(pieces[left] + pieces[right])
    # counted by hand: es 9, then st 9 has become es+t 9; lo 7, low 7; then the new-words (6)
    assert pieces[256:260] == [b"es", b"est", b"lo", b"low"]
    assert b"newest" in pieces[260:] and len(pieces) == 266


def test_learning_stops_when_every_word_is_one_token():
    assert len(learn_merges({"ab": 3, "abc": 1}, 100)) == 2
    assert BPETokenizer.train("ab ab", 1000).vocab_size == 256 + 2 + 1


@pytest.mark.parametrize("vocab_size", [256, 257, 300, 400, 600, 5000])
def test_training_gives_the_ids_of_the_tokenizers_library(vocab_size):
    ours = BPETokenizer.train(TEXT, vocab_size, special_tokens=())
    other = trained_by_library(TEXT, vocab_size)
    assert ours._vocabulary() == other.get_vocab()
    for text in [TEXT, *HARD]:
        assert ours.encode(text) == other.encode(text).ids


@settings(max_examples=60, deadline=None)
@given(st.text("ab ", max_size=60), st.integers(256, 290))
def test_ties_are_broken_as_the_tokenizers_library_breaks_them(text, vocab_size):
    ours = BPETokenizer.train(text + "a", vocab_size, special_tokens=())
    assert ours._vocabulary() == trained_by_library(text + "a", vocab_size).get_vocab()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text("abé", min_size=1, max_size=12), st.integers(1, 5), max_size=6))
def test_learning_agrees_with_counting_everything_anew_each_round(words):
    sequences, merges = {word: to_ids(word) for word in words}, []
    while counts := Counter(pair for word, ids in sequences.items() for pair in pairwise(ids)
                            for _ in range(words[word])):
        merges.append(min(counts, key=lambda pair: (-counts[pair], pair)))
        sequences = {word: merge(ids, merges[-1], 255 + len(merges))
                     for word, ids in sequences.items()}
    assert learn_merges(words, 10_000) == merges
    assert learn_merges(words, 3) == merges[:3]


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab1'. \n\x1c\u3000\xa0曹")) | assigned_text,
       st.integers(0, 8))
def test_the_words_of_the_parts_of_a_text_are_the_words_of_the_text(text, size):
    parts = list(split_parts(text, size))
    assert [word for part in parts for word in split_words(part)] == split_words(text)
    assert all(len(part) >= size for part in parts[:-1])


def test_a_text_with_blanks_is_cut_into_parts_of_the_size_asked_for():
    assert list(split_parts("one two  three\n\nfour", 2)) == ["one", " two", "  three", "\n\nfour"]
    assert max(map(len, split_parts("word " * 1000, 100))) < 110


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([32, 33, 34]), max_size=30))
def test_the_heap_applies_merges_as_the_plain_loop_does(ids):
    ranks = {pair: i for i, pair in enumerate(learn_merges({"abab": 3, "aab": 4, "bbbb": 2}, 9))}
    plain = list(ids)
    while candidates := [p for p in zip(plain, plain[1:]) if p in ranks]:
        best = min(candidates, key=ranks.get)
        plain = merge(plain, best, 256 + ranks[best])
    assert apply_merges(ids, ranks) == plain


def test_a_hundred_thousand_letters_without_a_blank_take_seconds_not_hours(small):
    letters = "".join(np.random.default_rng(0).choice(list("thefoxsdn"), 100_000))
    start = time.process_time()
    ids = small.encode(letters)
    assert time.process_time() - start < 5
    assert small.decode(ids) == letters


def test_encoding_and_training_hold_one_part_of_a_long_text_at_a_time(small):
    text = "the fox " * 130_000  # 1 MB; all its words at once take 16 MB
    for work in (small.encode, lambda text: BPETokenizer.train(text, 260)):
        tracemalloc.start()
        work(text)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10_000_000


# --- the real vocabulary ------------------------------------------------------------------------

def test_gpt2_has_its_published_size_and_ids(gpt2):
    assert gpt2.vocab_size == 50257 and gpt2.special_tokens == {END: 50256}
    assert gpt2.encode("Hello, world!") == [15496, 11, 995, 0]


@pytest.mark.parametrize("text", [*HARD, TEXT])
def test_gpt2_gives_the_ids_of_tiktoken(gpt2, tiktoken_gpt2, text):
    assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text)
    with_special = tiktoken_gpt2.encode(text, allowed_special="all")
    assert gpt2.encode(text, allow_special=True) == with_special
    assert gpt2.decode(with_special) == text


@settings(max_examples=150, deadline=None)
@given(assigned_text)
def test_gpt2_gives_the_ids_of_tiktoken_on_any_text(gpt2, tiktoken_gpt2, text):
    assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text)


# --- round trips, special tokens, wrong input ---------------------------------------------------

@settings(max_examples=150, deadline=None)
@given(any_text)
def test_decode_inverts_encode_for_every_text(small, text):
    for tokenizer in (small, ByteTokenizer(("<|a|>",)), CharTokenizer.train(text + "x")):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert b"".join(tokenizer.token_bytes[i] for i in ids) == text.encode()
        assert tokenizer.encode(text, allow_special=True) is not None
    assert "".join(split_words(text)) == text


@pytest.mark.parametrize("tokenizer", [ByteTokenizer((END,)), BPETokenizer.train(TEXT, 300)])
def test_special_tokens_are_ordinary_characters_unless_allowed(tokenizer):
    text = f"the fox{END} and{END}"
    end = tokenizer.special_tokens[END]
    assert end == tokenizer.vocab_size - 1
    assert end not in tokenizer.encode(text)
    assert tokenizer.encode(text, allow_special=True).count(end) == 2
    assert tokenizer.decode(tokenizer.encode(text, allow_special=True)) == text


def test_the_longest_special_token_wins():
    tokenizer = ByteTokenizer(("<a>", "<a>b"))
    assert tokenizer.encode("<a>b<a>", allow_special=True) == [257, 256]


def test_nothing_is_learned_from_the_letters_of_special_tokens():
    tokenizer = BPETokenizer.train(f"ab{END}" * 50, 400)
    assert tokenizer.merges == [(b"a", b"b")]


def test_bytes_that_are_no_utf8_decode_to_the_replacement_character():
    assert ByteTokenizer().decode([0xE6, 0x9B, 65, 0xFF]) == "\ufffdA\ufffd"


def test_token_bytes_let_an_incremental_decoder_hold_back_half_characters(gpt2):
    decoder, pieces = codecs.getincrementaldecoder("utf-8")("replace"), []
    for i in gpt2.encode("玄德 🙂"):
        pieces.append(decoder.decode(gpt2.token_bytes[i]))
    assert "".join(pieces) == "玄德 🙂" and "" in pieces


@pytest.mark.parametrize("ids", [[3, 256 + 10**6], [3, -1]])
def test_ids_out_of_range_are_refused_with_their_position(ids):
    for tokenizer in all_kinds():
        with pytest.raises(ValueError, match=rf"token id {ids[1]} at position 1"):
            tokenizer.decode(ids)


def test_decode_takes_lists_arrays_and_tensors_but_only_one_row_of_whole_numbers():
    tokenizer, ids = ByteTokenizer(), [72, 105]
    for row in (ids, tuple(ids), iter(ids), np.array(ids), torch.tensor(ids),
                list(torch.tensor(ids))):
        assert tokenizer.decode(row) == "Hi"
    for wrong in ([ids], torch.tensor([ids]), torch.tensor([0.5]), 72):
        with pytest.raises(ValueError, match="one row of token ids"):
            tokenizer.decode(wrong)


def test_a_lone_surrogate_is_refused_with_its_position():
    for tokenizer in all_kinds():
        for allowed in (False, True):
            with pytest.raises(ValueError, match=r"lone surrogate U\+D83D at position 2"):
                tokenizer.encode("ab\ud83d", allow_special=allowed)
    for train in (CharTokenizer.train, lambda text: BPETokenizer.train(text, 300)):
        with pytest.raises(ValueError, match="lone surrogate"):
            train("ab\ud83d")


def test_an_unknown_character_is_named_with_its_position():
    with pytest.raises(ValueError, match=r"'é' \(U\+00E9\) at position 3"):
        CharTokenizer.train("abc").encode("abcé")


def test_an_empty_training_text_is_refused():
    for train in (CharTokenizer.train, lambda text: BPETokenizer.train(text, 300)):
        with pytest.raises(ValueError, match="training text is empty"):
            train("")


def test_impossible_vocabularies_are_refused():
    with pytest.raises(ValueError, match="at least 257"):
        BPETokenizer.train(TEXT, 256)
    with pytest.raises(ValueError, match="must differ"):
        ByteTokenizer(("<a>", "<a>"))
    with pytest.raises(ValueError, match="each once"):
        CharTokenizer(["a", "b", "a"])
    with pytest.raises(ValueError, match="merge number 0"):
        BPETokenizer([(b"ab", b"c")])
    with pytest.raises(ValueError, match="also an ordinary token"):
        BPETokenizer([(b"e", b"n")], special_tokens=("en",))


# --- files --------------------------------------------------------------------------------------

def test_save_and_load_keep_every_id(tmp_path):
    for tokenizer in all_kinds():
        tokenizer.save(tmp_path / "tokenizer.json")
        again = load_tokenizer(tmp_path / "tokenizer.json")
        assert type(again) is type(tokenizer)
        assert again.token_bytes == tokenizer.token_bytes
        assert again.special_tokens == tokenizer.special_tokens
        assert again.encode(TEXT, allow_special=True) == tokenizer.encode(TEXT, allow_special=True)
    assert os.listdir(tmp_path) == ["tokenizer.json"]


@pytest.mark.parametrize("special", [(END,), (END, "<|user|>", "<|bot|>"), ()])
def test_the_tokenizers_library_reads_our_file_and_gives_the_same_ids(tmp_path, special):
    ours = BPETokenizer.train(TEXT, 400, special)
    ours.save(tmp_path / "tokenizer.json")
    other = reference.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert other.get_vocab_size() == ours.vocab_size
    for text in [*HARD, TEXT, f"<|user|>hi{END}<|bot|>"]:
        other.encode_special_tokens = False  # i.e. special tokens in the text count
        ids = other.encode(text).ids
        assert ids == ours.encode(text, allow_special=True)
        assert other.decode(ids, skip_special_tokens=False) == ours.decode(ids) == text
        other.encode_special_tokens = True
        assert other.encode(text).ids == ours.encode(text)


def test_gpt2_saved_is_read_by_the_tokenizers_library(tmp_path, gpt2):
    gpt2.save(tmp_path / "tokenizer.json")
    other = reference.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*HARD, TEXT]:
        assert other.encode(text).ids == gpt2.encode(text, allow_special=True)
    assert BPETokenizer.load(tmp_path / "tokenizer.json").merges == gpt2.merges


def test_a_file_saved_by_the_tokenizers_library_is_read_by_us(tmp_path):
    other = trained_by_library(TEXT, 350)
    other.add_special_tokens([END])
    other.save(str(tmp_path / "tokenizer.json"))
    ours = BPETokenizer.load(tmp_path / "tokenizer.json")
    assert ours.special_tokens == {END: 350}
    assert ours.encode(TEXT) == other.encode(TEXT).ids


def test_a_truncated_file_is_refused_at_any_length(tmp_path):
    path = tmp_path / "tokenizer.json"
    for tokenizer in (CharTokenizer.train("aé"), ByteTokenizer(), BPETokenizer.train(TEXT, 270)):
        tokenizer.save(path)
        whole = path.read_bytes().rstrip()
        for length in range(0, len(whole), max(1, len(whole) // 50)):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"tokenizer\.json: it (is cut off|has 0 bytes)"):
                load_tokenizer(path)


def test_foreign_files_are_refused_with_the_reason(tmp_path, small):
    path = tmp_path / "tokenizer.json"
    for content, message in [
            ("[1, 2]", "it holds a list; expected a JSON object"),
            ('{"a": 1}', "no tokenizer of a known type, got None"),
            ('{"type": "characters"}', "characters is missing; expected a string"),
            ('{"type": "characters", "characters": ""}', "characters cannot be used: no charac"),
            ('{"type": "characters", "characters": "aba"}', "characters cannot be .* each once"),
            ('{"type": "characters", "characters": "a\\ud800"}', "lone surrogate U.D800"),
            ('{"type": "characters", "characters": ["a"]}', "characters is .*expected a string"),
            ('{"type": "characters", "characters": "a", "more": 1}', "more is 1; expected no"),
            ('{"type": "bytes"}', "special_tokens is missing"),
            ('{"type": "bytes", "special_tokens": 3}', "special_tokens is 3; expected a list"),
            ('{"type": "bytes", "special_tokens": [3]}', "special tokens are .3.; expected"),
            ('{"type": "bytes", "special_tokens": [""]}', "differ and not be empty"),
            ('{"type": "bytes", "special_tokens": ["a", "a"]}', "must differ and not be empty"),
            ('{"type": "bytes", "special_tokens": ["\\udc00"]}', "lone surrogate U.DC00"),
            ('{"type": "bytes", "special_tokens": [], "special_tokens": ["a"]}', "stands twice"),
            ('{"model": {"type": "BPE"}}', "version is missing"),
            ('{"model": {"type": "WordPiece"}}', "'WordPiece'"),
            ('{"type": ["BPE"]}', "no tokenizer of a known type")]:
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            load_tokenizer(path)
    ByteTokenizer().save(path)
    with pytest.raises(ValueError, match="holds 'bytes'; expected a tokenizer of type 'BPE'"):
        BPETokenizer.load(path)
    small.save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["merges"][0], content["model"]["merges"][1] = content["model"]["merges"][1::-1]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="model.vocab.-- is 256; expected 257: gptlib numbers the"):
        BPETokenizer.load(path)
    first = trained_by_library(TEXT, 300)
    first.pre_tokenizer = reference.pre_tokenizers.Whitespace()
    first.save(str(path))
    with pytest.raises(ValueError, match="pre_tokenizer.type is 'Whitespace'; expected one of"):
        BPETokenizer.load(path)


def test_a_failed_save_leaves_the_old_file_whole(tmp_path, small, monkeypatch):
    path = tmp_path / "tokenizer.json"
    small.save(path)
    before = path.read_bytes()

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ByteTokenizer().save(path)
    assert path.read_bytes() == before


def test_tokenizers_can_be_sent_to_other_processes(small):
    again = pickle.loads(pickle.dumps(small))
    assert again.encode(TEXT) == small.encode(TEXT)
