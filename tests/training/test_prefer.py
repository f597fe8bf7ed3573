"""Pairs of a model's own replies, and what DPO makes of them."""

import pytest
import torch

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text import conversations
from gptlib.text.chat_template import MARKS, Message
from gptlib.text.conversations import Parts, Turn
from gptlib.text.corpora import END
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.training import prefer
from gptlib.training.adapters import load_adapter
from gptlib.training.config import TrainConfig
from gptlib.training.lora import add_lora
from gptlib.writing.replies import Reply, judge_reply

TOKENIZER = ByteTokenizer((END, *MARKS))
STOP = TOKENIZER.special_tokens[MARKS[1]]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    talks = [[Turn("AB"[k % 2], f"word {i} {k}") for k in range(12)] for i in range(20)]
    monkeypatch.setattr(conversations, "split", lambda: Parts(talks, [], []))
    monkeypatch.setattr(prefer, "PROMPTS", 12)


def base():
    """A model that mostly says the bytes of "ab ", and sometimes ends."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(TOKENIZER.vocab_size, 512, n_layer=1, n_head=2, n_embd=16,
                          tie_weights=False))
    likely = TOKENIZER.encode("ab ")
    with torch.no_grad():
        model.final_norm.bias[0] = 5.0  # a number that is always there, and what it speaks for
        model.output.weight[:, 0] = 0.0
        model.output.weight[[*likely, STOP], 0] = torch.tensor([1.5, 1.5, 1.5, 1.0])
    return model


def test_beginnings_end_with_the_user_and_repeat():
    talks = prefer.beginnings(12)
    assert {len(talk) for talk in talks} <= {1, 3, 5} and len({len(talk) for talk in talks}) > 1
    assert all(talk[-1].role == "user" == talk[0].role for talk in talks)
    assert talks == prefer.beginnings(12)


def test_the_better_reply_has_fewer_faults():
    found = prefer.choices(base(), TOKENIZER)
    assert found

    def faults(reply):
        return len(judge_reply(reply.text, reply.ended, longest=prefer.LONGEST))

    assert all(faults(choice.chosen) < faults(choice.rejected) for choice in found)


def test_of_good_replies_the_longest_counts_and_pairs_of_other_lengths_are_left_out(monkeypatch):
    good, bad = "it is a long word", "word " * 60
    drawn = [("a", True), (good, True), (bad * 2, True), (bad, True)]
    replies = [Reply(text, ended, TOKENIZER.encode(text)) for text, ended in drawn]
    monkeypatch.setattr(prefer, "answers", lambda *_, **options: replies * 2)
    monkeypatch.setattr(prefer, "beginnings", lambda count: [[Message("user", "hi")]] * 2)
    assert prefer.choices(None, TOKENIZER) == []
    monkeypatch.setattr(prefer, "LONGER", 20)
    pair = prefer.choices(None, TOKENIZER)[0]
    assert (pair.chosen.text, pair.rejected.text) == (good, bad)


def test_after_dpo_the_held_out_pairs_are_told_apart_better(tmp_path):
    model = base()
    add_lora(model, 4)
    found = prefer.as_pairs(prefer.choices(base(), TOKENIZER))
    plan = TrainConfig(max_steps=15, warmup_steps=1)
    about = {"chat": {"start_tokens": [256]}}
    before, after = prefer.prefer(model, found, tmp_path, about, learning_rate=0.003, plan=plan)
    assert before.margin == 0 and after.margin > 0 and after.loss < before.loss
    told = load_adapter(tmp_path, base())
    assert told["chat"] == about["chat"] and told["step"] == 15
    assert told["held_out"][1]["margin"] == after.margin


@pytest.mark.parametrize("about, found, message", [
    ({}, [], "was not trained to chat"), ({"chat": {"start_tokens": []}}, [1] * 19, "19 pairs")])
def test_what_cannot_be_improved_is_told_and_nothing_is_written(about, found, message, tmp_path,
                                                               monkeypatch):
    monkeypatch.setattr(prefer, "load_adapted", lambda *_: (None, TOKENIZER, about))
    monkeypatch.setattr(prefer, "choices", lambda *_: found)
    with pytest.raises(ValueError, match=message):
        prefer.main(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "log.jsonl").write_text("mine")
    with pytest.raises(ValueError, match="no empty folder"):
        prefer.main(tmp_path, tmp_path)
