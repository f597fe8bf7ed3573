"""Stored models by name: a checkpoint, one of the book's, and the pretrained one."""

import json

import pytest
import torch

from gptlib.formats.checkpoint import save_checkpoint
from gptlib.formats.gguf import read_gguf
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.chat_template import SMOLLM2_SYSTEM
from gptlib.text.corpora import member_path
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.training import stored
from gptlib.training.adapters import save_adapter
from gptlib.training.lora import add_lora
from gptlib.training.stored import open_model, prepared, storyteller
from gptlib.writing.chat import Chat
from gptlib.writing.closing import Closing
from gptlib.writing.inference import InferenceModel

SHAPE = dict(context_length=16, n_layer=1, n_head=2, n_embd=16)


@pytest.fixture(scope="module")
def pretrained():
    return open_model("smollm2")


def test_a_checkpoint_opens_by_its_folder_with_what_is_known_about_it(tmp_path, monkeypatch):
    tokenizer = ByteTokenizer(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    model = GPT(GPTConfig(tokenizer.vocab_size, **SHAPE))
    save_checkpoint(tmp_path / "own", model, tokenizer, step=3, metadata={"of": "stories"})
    monkeypatch.chdir(tmp_path)
    for name in ("own", str(tmp_path / "own"), "./own"):
        opened, theirs, about = open_model(name)
        assert torch.equal(opened.embedding.weight, model.embedding.weight)
        assert theirs.special_tokens == tokenizer.special_tokens
        assert (about["step"], about["of"]) == (3, "stories")
        assert about["chat"] == {"start_tokens": [256]}  # <|endoftext|>, and no system message
        assert prepared(opened, about).table is not None  # float32, as it was trained


def test_a_model_that_comes_with_the_book_opens_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "<|endoftext|>" in open_model("stories")[1].special_tokens


def test_a_folder_called_like_the_pretrained_model_is_opened_instead(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint("smollm2", GPT(GPTConfig(256, **SHAPE)), ByteTokenizer())
    assert open_model("smollm2")[1].vocab_size == 256


@pytest.mark.parametrize("name, message", [("nobody", "there is no model 'nobody'"),
                                           ("./nobody", "no checkpoint"),
                                           ("bare", "holds no tokenizer")])
def test_what_cannot_be_opened_is_told(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint("bare", GPT(GPTConfig(256, **SHAPE)))
    with pytest.raises(ValueError, match=message):
        open_model(name)


def test_the_pretrained_model_answers_with_the_system_message_of_its_own_file(pretrained):
    model, tokenizer, about = pretrained
    template = read_gguf(member_path("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")).metadata[
        "tokenizer.chat_template"]
    assert about["chat"] == {"system": SMOLLM2_SYSTEM} and SMOLLM2_SYSTEM in template
    exact = prepared(model, about | {"weights": "float32"})  # rounded weights may say otherwise
    chat = Chat(exact, tokenizer, **about["chat"])
    question = "What is the capital of France?"
    reply = "".join(chat.reply(question, temperature=0, max_new_tokens=40))
    assert reply == "The capital of France is Paris."  # and it stops there


def test_an_adapter_opens_with_its_change_and_tells_to_an_end():
    model, tokenizer, about = open_model("storyteller")
    assert type(model) is GPT and about["step"] == 400 and about["weights"] == "int8"
    writer, penalty = storyteller(model, tokenizer, about)
    assert type(writer) is Closing and penalty == 1.1
    assert writer.end_token == tokenizer.special_tokens["<|endoftext|>"]


def test_another_model_tells_without_penalty_and_without_a_push_to_the_end():
    writer, penalty = storyteller(*open_model("stories"))
    assert type(writer) is InferenceModel and penalty == 1


def test_an_adapter_that_chats_says_what_begins_a_conversation(tmp_path, monkeypatch):
    """And one that tells has the system message of its base, and its own way of telling."""
    shape = GPTConfig(300, **SHAPE)
    for name, told in (("chats", {"chat": {"start_tokens": [256]}}), ("tells", {})):
        model = GPT(shape)
        add_lora(model, 1)
        save_adapter(tmp_path / name, model, "base", told)
    tokenizer = ByteTokenizer(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))

    def fake(folder, context_length):
        return GPT(shape), tokenizer, {"step": 0} | json.loads(
            (folder / "adapter.json").read_text())["about"]

    monkeypatch.setattr(stored, "load_adapted", fake)
    assert open_model(str(tmp_path / "chats"))[2]["chat"] == {"start_tokens": [256]}
    assert open_model(str(tmp_path / "chats"))[2]["telling"] == {}
    assert open_model(str(tmp_path / "tells"))[2]["chat"] == {"system": SMOLLM2_SYSTEM}
    assert open_model(str(tmp_path / "tells"))[2]["telling"] == stored.TELLING


@pytest.mark.parametrize("told, message", [
    ({"start_tokens": [259]}, "expected ids below 259"), ({"start_tokens": [True]}, "expected ids"),
    ({"start_tokens": "<|endoftext|>"}, "expected a list"), ({}, "start_tokens is missing"),
    ([], "expected an object"), ({"start_tokens": [0], "system": "x"}, "does not know")])
def test_an_adapter_with_other_chat_options_is_refused(told, message, tmp_path, monkeypatch):
    model = GPT(GPTConfig(300, **SHAPE))
    add_lora(model, 1)
    save_adapter(tmp_path, model, "base", {"chat": told})
    tokenizer = ByteTokenizer(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    monkeypatch.setattr(stored, "load_adapted",
                        lambda folder, context: (model, tokenizer, {"chat": told}))
    with pytest.raises(ValueError, match=message):
        open_model(str(tmp_path))
