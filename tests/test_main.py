import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from typer.testing import CliRunner

from gptlib import __main__
from gptlib.__main__ import app
from gptlib.formats.checkpoint import load_checkpoint, save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import BPETokenizer, ByteTokenizer

SMALL = ("--vocab-size 280 --context-length 16 --n-layer 1 --n-head 2 --n-embd 16 --batch-size 2 "
         "--dropout 0.1 --evaluate-every 1000 --checkpoint-every 1000").split()


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    draw = random.Random(0)
    words = [draw.choice("red blue green old new small big".split()) for _ in range(2000)]
    file = tmp_path_factory.mktemp("text") / "tiny.txt"
    file.write_text(" ".join(words), encoding="utf-8")
    return str(file)


def command(*arguments):
    return [sys.executable, "-m", "gptlib", *map(str, arguments)]


def finished(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, encoding="utf-8",
                          timeout=120)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send SIGINT to a single process")
def test_train_interrupt_resume_generate(text_file, tmp_path):
    options = ["train", "--corpus", text_file, *SMALL, "--max-steps", 120]
    whole = invoke(*options, "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output

    process = subprocess.Popen(command(*options, "--out", tmp_path / "cut"), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    log = tmp_path / "cut" / "log.jsonl"
    while not log.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "go on with --resume" in output, (output, errors)
    assert "Traceback" not in errors
    step = load_checkpoint(tmp_path / "cut")[2]["step"]
    assert 10 <= step < 120

    resumed = invoke("train", "--resume", "--out", tmp_path / "cut")
    assert "120 of 120 steps, finished" in resumed.output
    weights = [load_checkpoint(tmp_path / name)[0].state_dict() for name in ("whole", "cut")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    result = finished("generate", "--model", tmp_path / "cut", "--prompt", "old", "--seed", 1,
                      "--max-new-tokens", 20)
    assert result.returncode == 0 and result.stdout.startswith("old") and len(result.stdout) > 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny"
    model = GPT(GPTConfig(256, context_length=16, n_layer=1, n_head=2, n_embd=16))
    save_checkpoint(path, model, ByteTokenizer(), step=7)
    return path


def test_the_same_seed_writes_the_same_text(folder):
    texts = [invoke("generate", "--model", folder, "--prompt", "ab", "--seed", seed,
                    "--max-new-tokens", 12).output for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_text_is_written_as_utf8_even_if_the_terminal_says_otherwise(folder):
    result = subprocess.run(command("generate", "--model", folder, "--prompt", "é三🙂",
                                    "--max-new-tokens", 1), capture_output=True,
                            env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=120)
    assert result.returncode == 0 and result.stdout.startswith("é三🙂".encode())


def test_export_halves_the_weights_and_keeps_the_model(folder, tmp_path):
    result = invoke("export", "--model", folder, "--to", "gptlib", "--out", tmp_path / "small")
    assert result.exit_code == 0
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "small")]
    assert sizes[1] < 0.6 * sizes[0]
    before, after = load_checkpoint(folder), load_checkpoint(tmp_path / "small")
    ids = torch.tensor([[1, 2, 3]])
    assert after[2] == before[2]
    torch.testing.assert_close(after[0](ids), before[0](ids), atol=0.02, rtol=0.02)


def test_export_to_hugging_face_writes_its_files(tmp_path):
    tokenizer = BPETokenizer.train("to be or not to be " * 20, 260)
    shape = dict(context_length=16, n_layer=1, n_head=2, n_embd=16)
    save_checkpoint(tmp_path / "gpt2", GPT(GPTConfig(260, **shape)), tokenizer)
    save_checkpoint(tmp_path / "new", GPT(GPTConfig.modern(260, **shape)), tokenizer)
    options = ["--to", "huggingface", "--out", tmp_path / "hf"]
    assert isinstance(invoke("export", "--model", tmp_path / "new", *options).exception, ValueError)
    assert invoke("export", "--model", tmp_path / "gpt2", *options).exit_code == 0
    assert '"gpt2"' in (tmp_path / "hf" / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments, message", [
    (["train", "--out", "x"], "no corpus is named"),
    (["train", "--out", "x", "--corpus", "nowhere"], "neither a corpus nor a file"),
    (["train", "--out", "x", "--resume"], "no checkpoint at"),
    (["train", "--out", "x", "--corpus", "stories", "--n-embd", "30"], "multiple of"),
    (["train", "--out", "x", "--corpus", "stories", "--device", "abacus"], "this machine has cpu"),
    (["generate", "--model", "nobody", "--prompt", "a"], "there is no model"),
    (["generate", "--model", "./nowhere", "--prompt", "a"], "no checkpoint at"),
    (["corpora", "nothing"], "unknown source"),
])
def test_mistakes_end_with_one_line_and_code_1(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gptlib", *arguments])
    monkeypatch.setattr(sys, "stdout", open(os.devnull, "w", encoding="utf-8"))
    monkeypatch.setattr(sys, "stderr", open(tmp_path / "errors", "w+", encoding="utf-8"))
    with pytest.raises(SystemExit) as exit:
        __main__.main()
    sys.stderr.seek(0)
    errors = sys.stderr.read()
    assert exit.value.code == 1 and message in errors and errors.count("\n") == 1


def test_a_wrong_option_ends_with_code_2_and_without_a_traceback():
    result = finished("train", "--out", "x", "--n-layer", "many")
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_resume_refuses_other_settings(text_file, tmp_path):
    out = tmp_path / "a"
    assert invoke("train", "--corpus", text_file, *SMALL, "--max-steps", 2, "--out", out
                  ).exit_code == 0
    result = invoke("train", "--resume", "--out", out, "--batch-size", 3)
    assert "--batch-size" in str(result.exception)
    longer = invoke("train", "--resume", "--out", out, "--max-steps", 4)
    assert "4 of 4 steps, finished" in longer.output


@pytest.mark.parametrize("name", ["corpora", "train", "generate", "export"])
def test_help_shows_an_example_on_one_line(name):
    text = invoke(name, "--help").output
    assert re.search(rf"python -m gptlib {name} \S.*\S", text)


def test_corpora_lists_names_and_licences():
    text = invoke("corpora").output
    assert "stories" in text and "public domain" in text
