"""The command line: train, stop, go on, write."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from typer.testing import CliRunner

from gptlib.__main__ import app
from gptlib.formats.checkpoint import load_checkpoint, save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text import corpora
from gptlib.text.tokenizers import ByteTokenizer

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


def test_corpora_tells_what_all_of_them_weigh():
    """Each wheel once: several sources lie in the same one."""
    wheels = {each.wheel_sha256: each.megabytes for each in corpora.sources().values()}
    assert f"({sum(wheels.values()):.0f} MB)" in invoke("corpora", "--help").output


def test_corpora_lists_names_and_licences():
    text = invoke("corpora").output
    assert "stories" in text and "public domain" in text
