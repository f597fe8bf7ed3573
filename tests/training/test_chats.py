"""Learning to chat: the loss is on the replies, and a stopped training goes on."""

import json
import math

import pytest
import torch

from gptlib.formats.checkpoint import load_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text import conversations
from gptlib.text.chat_template import MARKS
from gptlib.text.conversations import Parts, Turn
from gptlib.text.corpora import END
from gptlib.text.datasets import IGNORED, batches
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.training import chats
from gptlib.training.adapt import AdaptConfig, adapt
from gptlib.training.adapters import load_adapter
from gptlib.training.config import TrainConfig

TOKENIZER = ByteTokenizer((END, *MARKS))
END_ID = TOKENIZER.special_tokens[END]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Chats that answer each number with the next one, and few steps."""
    talks = [[Turn("AB"[k % 2], f"{(i + k) % 10}") for k in range(12)] for i in range(20)]
    monkeypatch.setattr(conversations, "split", lambda: Parts(talks, talks[:3], talks[3:6]))
    monkeypatch.setattr(chats, "OWN", TrainConfig(max_steps=6, warmup_steps=1))


def base():
    torch.manual_seed(1)
    return GPT(GPTConfig(TOKENIZER.vocab_size, 96, n_layer=1, n_head=2, n_embd=16))


def run(folder, stop=None):
    model, losses = base(), []
    for step, val_loss in chats.finetune(model, TOKENIZER, folder, batch_size=2, every=2):
        losses.append((step.step, val_loss))
        if step.step == stop:
            break
    return model, losses


def test_windows_begin_where_a_piece_does_and_only_replies_are_learned():
    data, val_data = chats.chat_data(TOKENIZER, 96)
    x, y = next(batches(data, 32))
    assert (x[:, 0] == END_ID).all()
    learned = {TOKENIZER.decode(row[row != IGNORED]) for row in y}
    assert all(set(text) <= set("0123456789<|im_end|>") for text in learned)
    assert TOKENIZER.decode(val_data.ids[val_data.learn])[:11] == "1<|im_end|>"


def test_both_speakers_are_learned_from():
    ids, learn = chats.chat_data(TOKENIZER, 96)[0].ids, chats.chat_data(TOKENIZER, 96)[0].learn
    replies = TOKENIZER.decode(ids[learn]).split(MARKS[1])[:12]
    assert replies == list("135791") + list("024680")  # the first chat, and the first chat swapped


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path):
    whole, losses = run(tmp_path / "whole")
    run(tmp_path / "parts", stop=3)  # one step after the last save
    parts, rest = run(tmp_path / "parts")
    assert [step for step, _ in rest] == [3, 4, 5, 6] and rest[-1] == losses[-1]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters()))
    lines = [json.loads(line) for line in (tmp_path / "parts/log.jsonl").open()]
    assert [(line["step"], line["val_loss"]) for line in lines] == losses[1::2]


def test_a_folder_of_another_model_or_with_other_settings_is_refused(tmp_path):
    run(tmp_path, stop=3)
    other = base()
    with torch.no_grad():
        other.embedding.weight.add_(1)
    for model, seed in ((other, 0), (base(), 1)):
        with pytest.raises(ValueError, match="was trained from .* choose another folder"):
            next(chats.finetune(model, TOKENIZER, tmp_path, batch_size=2, every=2, seed=seed))


def test_the_folder_is_a_checkpoint_that_chats(tmp_path):
    model, losses = run(tmp_path)
    stored, tokenizer, about = load_checkpoint(tmp_path)
    assert about["step"] == 6 and tokenizer.special_tokens == TOKENIZER.special_tokens
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), stored.parameters()))
    assert losses[-1][1] < math.log(TOKENIZER.vocab_size)


def test_an_adapter_tells_what_stands_before_its_conversations(tmp_path):
    model, told = base(), {"chat": {"start_tokens": [END_ID]}}
    data = chats.chat_data(TOKENIZER, 96)
    config = AdaptConfig(rank=1, max_steps=2, evaluate_every=1)
    for _ in adapt(model, *data, config, tmp_path, told):
        pass
    assert load_adapter(tmp_path / "best", base())["chat"] == told["chat"]
