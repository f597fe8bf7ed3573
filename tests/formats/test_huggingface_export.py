"""What `to_huggingface` writes, what Transformers makes of it, and when nothing is written."""

import json
import os

import pytest
import torch
import transformers
from small_huggingface import TEXT, small_gpt, write_folder

from gptlib import files
from gptlib.formats.checkpoint import save_checkpoint
from gptlib.formats.huggingface import FILES, from_huggingface, to_huggingface
from gptlib.model.config import GPTConfig
from gptlib.model.encoder_decoder import Decoder
from gptlib.text.tokenizers import BPETokenizer

transformers.logging.set_verbosity_error()
HARD = ["", " ", "the cat", " that cat’s Mat\n\n  猫 12", "a  b   c\t\n ", "'s it's 'll x'LL",
        "stop <|endoftext|> now<|endoftext|>", "é e\u0301 🎉👍🏽", "\r\n\x00\x7f", "ａｂｃ ½ ²³",
        "<|im_start|>user\n", "[PAD] <s> </s> <unk> <pad>", "\u200b\u00a0x\u3000", "Ġthe Ċ"]


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(TEXT, vocab_size=270)


@pytest.mark.parametrize("special", [(), ("<|endoftext|>",), ("<|im_start|>",),
                                     ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
def test_transformers_adds_no_id_and_gives_the_same_ids(tmp_path, special):
    tokenizer = BPETokenizer.train(TEXT, vocab_size=275, special_tokens=special)
    model = small_gpt(tokenizer)
    to_huggingface(model, tokenizer, tmp_path)
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert len(opened) == tokenizer.vocab_size <= model.config.vocab_size
    end = "<|endoftext|>" if "<|endoftext|>" in special else None
    assert (opened.eos_token, opened.bos_token, opened.unk_token) == (end, end, None)
    assert opened.model_max_length == 32
    for text in HARD:
        ids = tokenizer.encode(text, allow_special=True)
        assert opened(text)["input_ids"] == ids, text
        assert opened.decode(ids) == text
    config = transformers.AutoConfig.from_pretrained(tmp_path, local_files_only=True)
    assert config.eos_token_id == tokenizer.special_tokens.get("<|endoftext|>")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_type_of_the_weights_is_said_and_kept(tmp_path, tokenizer, dtype):
    model = small_gpt(tokenizer).to(dtype)
    to_huggingface(model, tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == config["torch_dtype"] == str(dtype).removeprefix("torch.")
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert opened.dtype == dtype
    back = from_huggingface(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.float(), back[name]), name


def test_a_tokenizer_smaller_than_the_model_is_its_own_and_a_larger_one_is_not(tmp_path, tokenizer):
    to_huggingface(small_gpt(tokenizer, vocab_size=300), tokenizer, tmp_path / "padded")
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "padded")
    assert len(opened) == 270
    with pytest.raises(ValueError, match="the tokenizer has 270 ids and the model 269"):
        to_huggingface(small_gpt(tokenizer, vocab_size=269), tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_the_files_of_the_format_are_written(tmp_path, tokenizer):
    to_huggingface(small_gpt(tokenizer), tokenizer, tmp_path / "a" / "b")
    assert sorted(os.listdir(tmp_path / "a" / "b")) == sorted(FILES)


# ---- what is there is kept


def contents(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob("*") if file.is_file()}


def earlier_export(folder, tokenizer):
    write_folder(folder)


def checkpoint(folder, tokenizer):
    save_checkpoint(folder, small_gpt(tokenizer), tokenizer)


def notes(folder, tokenizer):
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")


def hidden(folder, tokenizer):
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref")


@pytest.mark.parametrize("there", [earlier_export, checkpoint, notes, hidden])
def test_a_folder_that_holds_anything_is_asked_about_and_left_as_it_is(tmp_path, tokenizer, there):
    there(tmp_path / "out", tokenizer)
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match="out already holds files; .*overwrite=True"):
        to_huggingface(small_gpt(tokenizer), tokenizer, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_overwrite_replaces_the_model_and_keeps_other_files(tmp_path, tokenizer):
    small = BPETokenizer.train(TEXT, vocab_size=262, special_tokens=())
    to_huggingface(small_gpt(small), small, tmp_path)
    (tmp_path / "README.md").write_text("mine")
    for name in ("added_tokens.json", "special_tokens_map.json", "adapter_config.json"):
        (tmp_path / name).write_text('{"<pad>": 999}')  # of a third model
    model = small_gpt(tokenizer, n_layer=1)
    to_huggingface(model, tokenizer, tmp_path, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == sorted([*FILES, "README.md"])
    assert from_huggingface(tmp_path).config == model.config
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path)) == tokenizer.vocab_size


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, tokenizer):
    (tmp_path / "out").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="out is a file; expected a folder"):
            to_huggingface(small_gpt(tokenizer), tokenizer, tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("broken", ["save_file", "_write_json", "_write_tokenizer"])
def test_a_write_that_fails_leaves_the_old_model_whole(tmp_path, tokenizer, monkeypatch, broken):
    write_folder(tmp_path / "out")
    before = contents(tmp_path / "out")

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"gptlib.formats.huggingface.{broken}", fail)
    with pytest.raises(OSError, match="could not be written.*No space left"):
        to_huggingface(small_gpt(tokenizer, n_layer=1), tokenizer, tmp_path / "out",
                       overwrite=True)
    assert contents(tmp_path / "out") == before
    with pytest.raises(OSError):
        to_huggingface(small_gpt(tokenizer), tokenizer, tmp_path / "new")
    assert contents(tmp_path) == {f"out/{name}": content for name, content in before.items()}


def test_an_export_killed_while_its_files_are_moved_is_read_whole(tmp_path, tokenizer, monkeypatch):
    write_folder(tmp_path)
    model = small_gpt(tokenizer, n_layer=1)
    monkeypatch.setattr(files, "_move_ready", lambda folder, names: None)  # as if killed before it
    to_huggingface(model, tokenizer, tmp_path, overwrite=True)
    assert from_huggingface(tmp_path).config == model.config
    monkeypatch.undo()
    to_huggingface(model, tokenizer, tmp_path, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == sorted(FILES)


# ---- what cannot be meant is refused


def test_what_is_no_gpt_of_one_type_with_finite_weights_is_refused(tmp_path, tokenizer):
    mixed, nan = small_gpt(tokenizer), small_gpt(tokenizer)
    mixed.final_norm.to(torch.bfloat16)
    with torch.no_grad():
        nan.blocks[1].attention.qkv.bias[3] = torch.nan
    for model, message in (
            (Decoder(GPTConfig(270, n_layer=1, n_embd=8)), "got a Decoder; expected a GPT"),
            (mixed, "weights are bfloat16, float32; expected one of"),
            (nan, "blocks.1.attention.qkv.bias holds numbers that are not finite"),
            (small_gpt(tokenizer, position="rope"), "position='rope'")):
        with pytest.raises(ValueError, match=message):
            to_huggingface(model, tokenizer, tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_of_a_compiled_model_the_model_inside_is_written(tmp_path, tokenizer):
    model = small_gpt(tokenizer)
    to_huggingface(torch.compile(model), tokenizer, tmp_path)
    back = from_huggingface(tmp_path).state_dict()
    assert all(torch.equal(tensor, back[name]) for name, tensor in model.state_dict().items())
