"""The controls of chapter 9.3: the same windows under both masks, and nothing measured twice."""

import chats
import pytest
import torch

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.chat_template import MARKS
from gptlib.text.conversations import Parts, Turn
from gptlib.text.corpora import END
from gptlib.text.datasets import IGNORED, batches
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.training.tuning import append_result, read_results

TALK = [Turn("AB"[i % 2], f"line {i}") for i in range(24)]


@pytest.fixture
def tiny(monkeypatch):
    """A base of one layer over bytes, four chats in each part, and a page of prose."""
    tokenizer = ByteTokenizer((END, *MARKS))
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, n_layer=1, n_head=2, n_embd=16))
    monkeypatch.setattr(chats, "base", lambda: (model, tokenizer))
    monkeypatch.setattr(chats, "parts", lambda: Parts([TALK] * 4, [TALK] * 4, []))
    monkeypatch.setattr(chats.corpora, "documents", lambda name: [f"{name}, a page. " * 30])
    chats.learned.cache_clear()
    yield model, tokenizer
    chats.learned.cache_clear()


def test_both_masks_see_the_same_windows_and_only_one_leaves_the_user_out(tiny):
    data = chats.learned(64, 12, 1)
    (x, y), (same_x, all_y) = (next(batches(data[arm], 3)) for arm in ("replies", "everything"))
    assert x.equal(same_x)
    kept = y != IGNORED
    assert 0 < kept.sum() < (all_y != IGNORED).sum()
    assert y[kept].equal(all_y[kept])


def test_finetuning_leaves_the_base_as_it_was(tiny):
    model, _ = tiny
    before = model.embedding.weight.clone()
    tuned = chats.finetune(model, chats.learned(64, 12, 1)["replies"], 2, 2, seed=0)
    assert model.embedding.weight.equal(before)
    assert not tuned.embedding.weight.equal(before)


def test_the_bytes_of_a_conversation_are_those_of_its_replies_alone(tiny):
    model, tokenizer = tiny
    rows = list(chats.judged(model, tokenizer, [tokenizer.special_tokens[END]]))
    assert [row["item"] for row in rows] == [0, 3]  # one validation chat in three
    assert rows[0]["bytes"] == len("line 1") * 4  # of eight turns the second speaker's four
    assert rows[0]["tokens"] == rows[0]["bytes"] + 4  # over bytes: each byte, and each end


def test_a_system_message_changes_the_loss_and_not_what_is_counted(tiny):
    model, tokenizer = tiny
    plain, told = (next(chats.judged(model, tokenizer, (), system)) for system in (None, "Be kind"))
    assert plain["tokens"] == told["tokens"] and plain["bytes"] == told["bytes"]
    assert plain["nats"] != told["nats"]


def test_what_the_file_has_is_not_measured_again(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(chats, "BASE_STEPS", 1)
    path = tmp_path / "deeper" / "chats.csv"
    for row in chats.missing([], "base", "none"):
        append_result(path, chats.COLUMNS, row, chats.HEADER)
    header, rows = read_results(path)
    assert header[0] == "command: python tools/chats.py"
    assert [row["arm"] for row in rows] == ["untouched"] + ["replies"] * 3 + ["everything"] * 3 + [
        "replies"] * 2
    assert not list(chats.missing(rows, "base", "none"))
    left = [(row["arm"], row["seed"]) for row in chats.missing(rows[:-3], "base", "none")]
    assert left == [("everything", 2), ("replies", 0), ("replies", 0)]
