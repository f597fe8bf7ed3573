"""Token files: encoded in pieces, opened without being read, refused when something is wrong."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import regex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib.text import datasets
from gptlib.text.datasets import TokenDataset, batches, write_tokens
from gptlib.text.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer
from gptlib.training import evaluation
from gptlib.training.evaluation import bits_per_character, evaluate_loss, token_losses

END = "<|endoftext|>"
# Merges that a wrong cut would break: of letters, blanks, line breaks, contractions, signs.
TOKENIZER = BPETokenizer.train("the cat's  \n\n they'll sing 'll we've 12 34 !? \n" * 50, 320,
                               (END,))
WORDS = ["the", "cat", "'ll", "'", "l", "s", " ", "  ", "\n", "\t", "\r\n", "\u3000", "\x1c",
         "\x85", "é", "三", "🙂", "12", "!?", ".", END]


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(datasets, "PIECE", 5)
    monkeypatch.setattr(evaluation, "PIECE", 5)


def ids_of(path):
    return np.load(path).tolist()


@settings(max_examples=300, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=40), piece=st.integers(1, 12),
       cuts=st.lists(st.integers(0, 40), max_size=3), special=st.booleans())
def test_ids_are_those_of_the_whole_text_wherever_it_is_cut(tmp_path_factory, words, piece, cuts,
                                                           special):
    text, path = "".join(words), tmp_path_factory.getbasetemp() / "tokens.npy"
    edges = [0, *sorted(cuts), len(text)]
    texts = [text[a:b] for a, b in zip(edges, edges[1:])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "PIECE", piece)
        for tokenizer in (TOKENIZER, ByteTokenizer((END,)), CharTokenizer.train(text)):
            count = write_tokens(path, texts, tokenizer, allow_special=special)
            assert ids_of(path) == tokenizer.encode(text, allow_special=special)
            assert count == len(ids_of(path))


def test_a_text_is_encoded_in_pieces_that_begin_at_white_space(tmp_path, small_pieces):
    class Listening(ByteTokenizer):
        def encode(self, text, allow_special=False):
            pieces.append(text)
            return super().encode(text, allow_special)

    pieces, text = [], "one two three\n\nfour five, six seven"
    write_tokens(tmp_path / "a.npy", text, Listening())
    assert "".join(pieces) == text and max(map(len, pieces)) < 12
    assert all(regex.match(r"\s", piece) for piece in pieces[1:])


def test_files_and_texts_are_joined_as_they_are(tmp_path, small_pieces):
    (tmp_path / "a.txt").write_text("äöü the cat's\r\nlong tail", encoding="utf-8")
    (tmp_path / "b.txt").write_text(" of two", encoding="utf-8")
    parts = [tmp_path / "a.txt", END, tmp_path / "b.txt", "s"]
    write_tokens(tmp_path / "tokens.npy", parts, TOKENIZER, allow_special=True)
    text = f"äöü the cat's\nlong tail{END} of twos"
    assert ids_of(tmp_path / "tokens.npy") == TOKENIZER.encode(text, allow_special=True)
    write_tokens(tmp_path / "tokens.npy", tmp_path / "b.txt", TOKENIZER)
    assert ids_of(tmp_path / "tokens.npy") == TOKENIZER.encode(" of two")


@pytest.mark.parametrize("vocab_size, dtype", [(65_536, np.uint16), (65_537, np.int32)])
def test_the_file_is_as_narrow_as_the_vocabulary_allows(tmp_path, vocab_size, dtype):
    tokenizer = CharTokenizer([chr(i) for i in range(0x10000, 0x10000 + vocab_size)])
    write_tokens(tmp_path / "a.npy", chr(0x10000 + vocab_size - 1) * 2, tokenizer)
    assert np.load(tmp_path / "a.npy").dtype == dtype
    assert ids_of(tmp_path / "a.npy") == [vocab_size - 1] * 2


@pytest.mark.parametrize("dtype", ["uint16", "int32", "uint32", "int64"])
def test_a_file_gives_the_numbers_of_the_same_ids_in_memory(tmp_path, small_pieces, dtype):
    ids = (torch.arange(300) ** 2 // 7) % 50
    np.save(tmp_path / "ids.npy", ids.numpy().astype(dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        disk = TokenDataset.from_file(tmp_path / "ids.npy", 8, vocab_size=50)
    memory = TokenDataset(ids, 8)
    for (x, y), (u, v), _ in zip(batches(disk, 4), batches(memory, 4), range(3)):
        assert x.dtype == torch.int64 and torch.equal(x, u) and torch.equal(y, v)
    table = torch.randn(50, 50)

    def model(x):
        return table[x]

    for ours, theirs in zip([disk, *disk.split(0.7)], [memory, *memory.split(0.7)]):
        assert torch.equal(token_losses(model, ours), token_losses(model, theirs))
        assert evaluate_loss(model, ours) == pytest.approx(
            token_losses(model, theirs).double().mean().item(), rel=1e-12)  # 20 at a time
        characters = CharTokenizer([chr(97 + i) for i in range(50)])
        bits = token_losses(model, theirs).double().sum().item() / math.log(2)
        assert bits_per_character(model, ours, characters) == pytest.approx(
            bits / (len(theirs.ids) - 1), rel=1e-12)  # every token is one character


def test_opening_and_splitting_copy_nothing(tmp_path):
    """What changes in the file afterwards is seen, so nothing was read ahead."""
    np.save(tmp_path / "ids.npy", np.arange(1000, dtype=np.uint16))
    dataset = TokenDataset.from_file(tmp_path / "ids.npy", 8, vocab_size=1000)
    parts = dataset.split(0.5)
    drawn = next(batches(parts[1], 2))[0]
    ids = np.load(tmp_path / "ids.npy", mmap_mode="r+")
    ids += 1
    ids.flush()
    for each, first in zip((dataset, *parts), (1, 1, 501)):
        assert each.ids.dtype == torch.uint16 and int(each.ids[0]) == first
    assert torch.equal(next(batches(parts[1], 2))[0], drawn + 1)


def test_losses_are_summed_in_parts_and_never_all_held(small_pieces, monkeypatch):
    joined = []
    cat = torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts: joined.append(cat(parts)) or joined[-1])
    evaluate_loss(lambda x: torch.zeros(*x.shape, 3), TokenDataset([0, 1, 2] * 100, 4), 2)
    assert max(map(len, joined)) == 24 and sum(map(len, joined)) == 299  # 4 * PIECE, in batches


def test_a_file_that_fails_halfway_leaves_the_old_one(tmp_path, small_pieces):
    path = tmp_path / "tokens.npy"
    write_tokens(path, "abc abc", CharTokenizer(" abc"))
    with pytest.raises(ValueError, match="after the first 12 characters: character 'd'"):
        write_tokens(path, "abc abca abc d", CharTokenizer(" abc"))
    assert ids_of(path) == [1, 2, 3, 0, 1, 2, 3]
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.npy"]


@pytest.mark.parametrize("texts", ["", [], ["", ""]])
def test_empty_texts_are_refused(tmp_path, texts):
    with pytest.raises(ValueError, match="the texts are empty"):
        write_tokens(tmp_path / "a.npy", texts, ByteTokenizer())
    assert not any(tmp_path.iterdir())


def test_a_text_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="a.txt is not UTF-8"):
        write_tokens(tmp_path / "a.npy", tmp_path / "a.txt", ByteTokenizer())


def test_a_byte_order_mark_is_no_part_of_a_file_s_text(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8-sig")
    write_tokens(tmp_path / "t.npy", [tmp_path / "a.txt", tmp_path / "b.txt"], ByteTokenizer())
    assert ids_of(tmp_path / "t.npy") == ByteTokenizer().encode("ab")


@pytest.mark.parametrize("texts", ["my book.txt", ["once", "my book.txt"], "elsewhere/book.md"])
def test_the_name_of_a_file_is_not_encoded_as_a_text(tmp_path, monkeypatch, texts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my book.txt").write_text("Once there was a hen.")
    with pytest.raises(ValueError, match=r"the name of a file; expected a text, or Path\('"):
        write_tokens(tmp_path / "t.npy", texts, ByteTokenizer())
    assert not (tmp_path / "t.npy").exists()


@pytest.mark.parametrize("text", ["see book.txt", "book", "LICENSE", "one.\n", "1.5", "\0."])
def test_a_text_that_only_looks_like_a_name_is_encoded(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LICENSE").write_text("a word that a text may well consist of")
    assert write_tokens(tmp_path / "t.npy", text, ByteTokenizer()) == len(text)


def test_special_tokens_with_white_space_are_refused(tmp_path):
    tokenizer = ByteTokenizer(("<end of text>",))
    with pytest.raises(ValueError, match="'<end of text>' contains white space"):
        write_tokens(tmp_path / "a.npy", "a", tokenizer, allow_special=True)
    assert write_tokens(tmp_path / "a.npy", "a <end of text>", tokenizer) == 15


def damaged(path: Path, kind: str) -> None:
    np.save(path, np.arange(100, dtype=np.uint16))
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[:-1])
    elif kind == "cut in its header":
        path.write_bytes(content[:40])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("to be or not to be", encoding="utf-8")
    elif kind == "floats":
        np.save(path, np.zeros(100))
    elif kind == "square":
        np.save(path, np.zeros((10, 10), dtype=np.uint16))
    elif kind == "objects":
        np.save(path, np.array([{}, {}]), allow_pickle=True)
    elif kind == "swapped bytes":
        np.save(path, np.arange(100, dtype=np.dtype(np.uint16).newbyteorder()))


@pytest.mark.parametrize("kind, message", [
    ("cut", "cut off or no token file"), ("cut in its header", "cut off or no token file"),
    ("empty", "cut off or no token file"), ("text", "cut off or no token file"),
    ("objects", "cut off or no token file"), ("floats", "holds float64"),
    ("square", r"uint16 of shape \(10, 10\)"), ("swapped bytes", "holds >u2|holds <u2")])
def test_what_is_no_token_file_is_refused_by_name(tmp_path, kind, message):
    damaged(tmp_path / "a.npy", kind)
    with pytest.raises(ValueError, match=f"a.npy.*{message}"):
        TokenDataset.from_file(tmp_path / "a.npy", 8)


def test_ids_outside_the_vocabulary_are_refused(tmp_path, small_pieces):
    np.save(tmp_path / "a.npy", np.arange(100, dtype=np.uint16))
    assert len(TokenDataset.from_file(tmp_path / "a.npy", 8, vocab_size=100)) == 92
    with pytest.raises(ValueError, match="ids from 95 to 99; expected 0 to 98: was it written"):
        TokenDataset.from_file(tmp_path / "a.npy", 8, vocab_size=99)
    np.save(tmp_path / "b.npy", np.arange(-3, 100, dtype=np.int32))
    with pytest.raises(ValueError, match="ids from -3 to 1"):
        TokenDataset.from_file(tmp_path / "b.npy", 8, vocab_size=100)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.npy"):
        TokenDataset.from_file(tmp_path / "nowhere.npy", 8)
