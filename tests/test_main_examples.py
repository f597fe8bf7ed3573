"""Every example of `--help` runs, one after the other; every command in the pages parses."""

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gptlib.__main__ import app
from gptlib.formats.checkpoint import load_checkpoint
from gptlib.formats.huggingface import from_huggingface
from gptlib.text import corpora

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ["corpora", "train", "generate", "chat", "export"]
STARTS = ("python -m gptlib ", "python -m torch.distributed.run ")
SMALL = ("--vocab-size 300 --context-length 16 --n-layer 1 --n-head 2 --n-embd 16 "
         "--batch-size 2").split()


def examples(name):
    lines = CliRunner().invoke(app, [name, "--help"]).output.splitlines()
    return [line.strip() for line in lines if line.strip().startswith(STARTS)]


def in_small(line):
    """The arguments of an example; a new training gets small settings, and moments for minutes,
    and a chat few words."""
    arguments = shlex.split(line)[3:]
    if "train" in arguments and "--resume" not in arguments:
        end = ["--minutes", "0.002"] if "--minutes" in arguments else ["--max-steps", "2"]
        arguments += [*SMALL, *end]
    if arguments[0] == "chat":
        arguments += ["--max-new-tokens", "3"]
    return arguments


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_on_one_line(name):
    assert [line for line in examples(name) if f"-m gptlib {name} " in line] == examples(name) != []


def test_all_examples_run_in_the_order_of_the_help(tmp_path, monkeypatch):
    documents = corpora.documents
    monkeypatch.setattr(corpora, "documents", lambda name: documents(name)[:12])
    monkeypatch.chdir(tmp_path)
    for line in [line for name in COMMANDS for line in examples(name)]:
        if line.startswith(STARTS[0]):
            result = CliRunner().invoke(app, in_small(line), input="Hello\n")
            assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"
            assert result.output.strip(), f"{line}: it says nothing"
    assert load_checkpoint("runs/stories-small")[2]["run"]["corpus"] == ["stories"]
    assert from_huggingface("runs/gpt2-hf").config == load_checkpoint("runs/gpt2")[0].config


def test_the_example_of_several_processes_runs(tmp_path):
    (line,) = [line for line in examples("train") if line.startswith(STARTS[1])]
    arguments = [*in_small(line), "--tokenizer", "byte"]  # which needs no minute to be learned
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])  # a free one, in case that others run beside
    result = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--master_port", port,
                             *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and "2 of 2 steps, finished" in result.stdout, result.stderr


def texts():
    """(file, text) of all pages that show commands; of notebooks their cells."""
    for folder, pattern in ((".", "*.md"), ("book", "**/*.md"), ("models", "**/*.md")):
        for file in sorted((ROOT / folder).glob(pattern)):
            yield file.name, file.read_text(encoding="utf-8")
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        yield file.name, "\n".join("".join(cell["source"]) for cell in cells)
    yield "Makefile", (ROOT / "Makefile").read_text(encoding="utf-8")


def shown_commands():
    """(file, arguments) of each line that calls the command; `...` stands for what is left out."""
    for name, text in texts():
        for line in text.replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(?:\S*python\S*|\$\(BIN\)/python) -m (?:torch\.distributed\.run "
                             r"\S+ -m )?gptlib (.*)", line)
            if found:
                yield name, shlex.split(found[1].replace(" ...", ""))


def test_every_command_in_the_pages_has_options_that_there_are():
    command, seen = typer.main.get_command(app), []
    for file, (name, *arguments) in shown_commands():
        context = command.commands[name].make_context(name, arguments)  # raises for an unknown one
        assert context.params, file
        seen.append(file)
    assert {"README.md", "Makefile", "08_3_1_old_books.ipynb", "speed.md"} <= set(seen)
