"""`python -m gptlib chat` as a program: through pipes, in a terminal, stopped by Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from gptlib.formats.checkpoint import save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import ByteTokenizer

POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and terminals")
TOKENIZER = ByteTokenizer(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))


def save_talker(path, scores, context_length):
    """A model that scores the next token the same whatever it reads."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOKENIZER.vocab_size, context_length=context_length, n_layer=1, n_head=1,
                          n_embd=8, position="rope", norm="layernorm", bias=True,
                          tie_weights=False))
    with torch.no_grad():
        model.final_norm.weight.zero_()
        model.final_norm.bias.fill_(1)
        model.output.weight.zero_()
        for token, score in scores.items():
            model.output.weight[token] = score / 8
    save_checkpoint(path, model, TOKENIZER)
    return str(path)


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """Says a, b and c at random, for some ten letters."""
    end = TOKENIZER.special_tokens["<|im_end|>"]
    scores = {ord("a"): 40.0, ord("b"): 40.0, ord("c"): 40.0, end: 38.0}
    return save_talker(tmp_path_factory.mktemp("talker") / "model", scores, 400)


@pytest.fixture(scope="module")
def rambler(tmp_path_factory):
    """Says x for ever."""
    return save_talker(tmp_path_factory.mktemp("rambler") / "model", {ord("x"): 90.0}, 2**15)


def start(*arguments):
    return subprocess.Popen([sys.executable, "-m", "gptlib", "chat", *arguments], text=True,
                            encoding="utf-8", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def answered(text, *arguments):
    result = subprocess.run([sys.executable, "-m", "gptlib", "chat", *arguments], input=text,
                            capture_output=True, text=True, encoding="utf-8", timeout=120)
    return result.returncode, result.stdout, result.stderr


def test_lines_in_replies_out_and_the_same_seed_says_the_same(talker):
    options = ("--model", talker, "--seed", "1", "--temperature", "1", "--top-p", "1")
    code, output, errors = answered("hello\né三🙂\n", *options)
    assert (code, errors) == (0, "") and len(output.splitlines()) == 2
    assert set(output) <= set("abc\n") and len(output) > 4
    assert answered("hello\né三🙂\n", *options) == (code, output, errors)


def test_a_saved_conversation_is_gone_on_with(talker, tmp_path):
    file, again = str(tmp_path / "talk.jsonl"), str(tmp_path / "again.jsonl")
    code, output, errors = answered(f"one\n/save {file}\n/quit\nnever\n", "--model", talker,
                                    "--system", "Be brief.")
    assert code == 0 and errors == f"3 messages are in {file}\n"
    assert answered(f"two\n/save {again}\n", "--model", talker, "--load", file)[0] == 0
    rows = [json.loads(line) for line in open(again, encoding="utf-8")]
    assert [row["role"] for row in rows] == ["system", *["user", "assistant"] * 2]
    assert [rows[0]["content"], rows[1]["content"], rows[3]["content"]] == ["Be brief.", "one",
                                                                           "two"]
    assert rows[2]["content"] == output.rstrip("\n")


def test_what_went_wrong_is_told_and_the_exit_code_says_so(talker):
    code, output, errors = answered("/what\nhello\n" + "x" * 500 + "\n", "--model", talker)
    assert code == 1 and len(output.splitlines()) == 1
    assert [line.split(";")[0] for line in errors.splitlines()] == [
        "error: '/what' is no command", errors.splitlines()[1].split(";")[0]]
    assert "context_length is 400: shorten the message" in errors and "Traceback" not in errors


def test_bytes_that_are_no_text_are_told(talker):
    result = subprocess.run([sys.executable, "-m", "gptlib", "chat", "--model", talker],
                            input=b"caf\xe9\nyes\n", capture_output=True, timeout=120)
    assert result.returncode == 1 and b"lone surrogate" in result.stderr
    assert len(result.stdout.splitlines()) == 1


def wait_for(process, count=1):
    assert set(process.stdout.read(count)) == {"x"}


@POSIX
def test_ctrl_c_stops_the_reply_and_not_the_program(rambler, tmp_path):
    file = tmp_path / "talk.jsonl"
    process = start("--model", rambler, "--max-new-tokens", "30000")
    process.stdin.write("talk\n")
    process.stdin.flush()
    wait_for(process, 5)
    process.send_signal(signal.SIGINT)
    first = process.stdout.readline()
    assert first.strip("x") == "\n" and len(first) < 20_000
    process.stdin.write("more\n")
    process.stdin.flush()
    wait_for(process, 5)
    process.send_signal(signal.SIGINT)
    second = process.stdout.readline()
    output, errors = process.communicate(f"/save {file}\n", timeout=60)
    assert process.returncode == 0 and output == "" and "Traceback" not in errors
    asked, said, asked_again, said_again = (
        json.loads(line)["content"] for line in open(file, encoding="utf-8"))
    assert (asked, asked_again) == ("talk", "more")
    for content, rest in ((said, first), (said_again, second)):
        assert set(content) == {"x"}  # Ctrl-C may come between a piece and its printing
        assert 0 <= len(content) - len("xxxxx" + rest[:-1]) <= 1


@POSIX
def test_ctrl_c_while_nothing_is_said_leaves(rambler):
    process = start("--model", rambler, "--max-new-tokens", "3")
    process.stdin.write("talk\n")
    process.stdin.flush()
    assert process.stdout.readline() == "xxx\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "") and process.returncode == 0


@POSIX
def test_a_reader_who_leaves_is_no_error(rambler):
    process = start("--model", rambler, "--max-new-tokens", "30000")
    process.stdin.write("talk\n")
    process.stdin.flush()
    wait_for(process, 5)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=60)


@POSIX
def test_in_a_terminal_there_is_a_prompt_and_ctrl_c_twice_leaves(rambler):
    pexpect = pytest.importorskip("pexpect")
    terminal = pexpect.spawn(sys.executable, ["-m", "gptlib", "chat", "--model", rambler,
                                              "--max-new-tokens", "30000"], timeout=120)
    terminal.expect_exact("Ctrl-C stops a reply")
    terminal.expect_exact("\r\n> ")
    terminal.sendline("talk")
    terminal.expect_exact("xxxxx")
    terminal.sendintr()
    terminal.expect_exact("\r\n> ")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0 and b"Traceback" not in terminal.before


@POSIX
def test_in_a_terminal_the_end_of_the_input_leaves(talker):
    pexpect = pytest.importorskip("pexpect")
    terminal = pexpect.spawn(sys.executable, ["-m", "gptlib", "chat", "--model", talker],
                             timeout=120)
    terminal.expect_exact("> ")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
