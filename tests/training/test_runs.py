"""A whole run in its folder: what it leaves, what it holds out, and how a cut one ends."""

import dataclasses
import json

import pytest
import torch

from gptlib.formats.checkpoint import load_checkpoint
from gptlib.runtime import setup
from gptlib.text.tokenizers import ByteTokenizer, CharTokenizer
from gptlib.training import runs
from gptlib.training.run_config import RunConfig
from gptlib.training.runs import encode_documents, split_documents


def entries(folder):
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in lines]


def weights(folder):
    return load_checkpoint(folder)[0].state_dict()


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "tokenizer": "char"}])
def test_a_run_that_was_cut_off_ends_like_one_that_was_not(config, tmp_path, changes):
    config = dataclasses.replace(config, **changes)
    assert [at.step.step for at in runs.run(config, tmp_path / "whole")] == list(range(1, 25))
    for at in runs.run(config, tmp_path / "cut"):
        if at.step.step == 17:  # the last checkpoint is that of step 10, the log goes to 12
            break
    assert runs.stored_config(tmp_path / "cut") == (config, 10)
    steps = [at.step.step for at in runs.run(config, tmp_path / "cut", continued=True)]
    assert steps == list(range(11, 25))
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert entries(tmp_path / "whole") == entries(tmp_path / "cut")


def test_held_out_loss_is_logged_where_it_was_measured(config, tmp_path):
    measured = {at.step.step: at.val_loss for at in runs.run(config, tmp_path / "a")
                if at.val_loss is not None}
    logged = {entry["step"]: entry["val_loss"] for entry in entries(tmp_path / "a")
              if entry["val_loss"] is not None}
    assert measured == logged and list(measured) == [12, 24]


def test_every_tenth_document_of_the_first_corpus_is_held_out(text_file, tmp_path):
    train, held_out = split_documents([str(text_file)])
    documents = text_file.read_text(encoding="utf-8").split("<|endoftext|>")
    assert held_out == [documents[9], documents[19]]
    assert train == [text for i, text in enumerate(documents) if i not in (9, 19)]


def test_what_is_held_out_is_removed_from_the_other_corpora(text_file, tmp_path):
    other = tmp_path / "other.txt"
    documents = text_file.read_text(encoding="utf-8").split("<|endoftext|>")
    other.write_text("<|endoftext|>".join([documents[9], "new " * 300]), encoding="utf-8")
    train, held_out = split_documents([str(text_file), str(other)])
    assert len(train) == 18 + 1 and not set(train) & set(held_out)


def test_every_file_of_a_folder_is_a_document_of_its_own(tmp_path):
    texts = [f"# Note {i}\n\n" + f"word{i} " * 40 + "end" for i in range(12)]
    for i, text in enumerate(texts):
        (tmp_path / f"{i:02}.md").write_text(text + "\n\n", encoding="utf-8")
    (tmp_path / "12.txt").write_text("one <|endoftext|>\ntwo", encoding="utf-8")
    train, held_out = split_documents([str(tmp_path)])
    assert held_out == [texts[9]]
    assert train == [*texts[:9], *texts[10:], "one", "two"]


def test_of_a_single_document_the_end_is_held_out(tmp_path):
    file = tmp_path / "one.txt"
    file.write_text("0123456789" * 200, encoding="utf-8")
    train, held_out = split_documents([str(file)])
    assert len(train[0]) == 1800 and len(held_out[0]) == 200 and train[0][-1] == "9"


def test_documents_are_separated_by_the_end_of_text_token():
    ids = encode_documents(["ab", "c"], ByteTokenizer(("<|endoftext|>",)))
    assert ids.tolist() == [256, 97, 98, 256, 99, 256]
    assert encode_documents(["ab", "c"], CharTokenizer("\nabc")).tolist() == [1, 2, 0, 0, 3]


def test_training_windows_begin_at_documents_where_that_is_asked_for(config, text_file):
    config = dataclasses.replace(config, corpus=(str(text_file),), tokenizer="byte",
                                 windows="documents")
    tokenizer, train_data, val_data = runs.prepare(config)
    end = tokenizer.special_tokens["<|endoftext|>"]
    x, _ = next(runs.batches(train_data, 8))
    assert x[:, 0].tolist() == [end] * 8 and val_data.begin_at is None
    with pytest.raises(ValueError, match="windows is 'documents' with tokenizer 'char'"):
        dataclasses.replace(config, tokenizer="char")


def test_embeddings_begin_as_far_apart_as_the_run_says_and_nothing_else_changes(config):
    setup(0)
    usual, *_ = runs.build(dataclasses.replace(config, embedding_std=0.02), 500)
    setup(0)
    wide, *_ = runs.build(dataclasses.replace(config, embedding_std=0.1), 500)
    assert wide.embedding.weight.std().item() == pytest.approx(0.1, rel=0.05)
    pairs = zip(usual.named_parameters(), wide.parameters())
    assert all(torch.allclose(5 * a, b) if name == "embedding.weight" else torch.equal(a, b)
               for (name, a), b in pairs)


@pytest.mark.parametrize("kind", ["bpe", "byte"])
def test_the_marks_of_a_chat_become_tokens_where_the_texts_have_them(kind, tmp_path):
    talk = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
    for name, text, marks in (("chats", talk, 2), ("plain", "hi hello ", 0)):
        documents = [f"{text * 9}{i}" for i in range(20)]
        (tmp_path / f"{name}.txt").write_text("<|endoftext|>".join(documents))
        config = RunConfig((str(tmp_path / f"{name}.txt"),), tokenizer=kind, vocab_size=280,
                           context_length=16)
        tokenizer, data, _ = runs.prepare(config)
        assert len(tokenizer.special_tokens) == 1 + marks
        found = tokenizer.special_tokens.get("<|im_start|>")
        assert (data.ids == found).sum().item() == 9 * marks * 18 if marks else found is None
