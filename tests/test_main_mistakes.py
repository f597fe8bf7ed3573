"""A user's mistake ends the command with one line that says what to do, code 1, and no trace."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from gptlib import __main__
from gptlib.formats.checkpoint import save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import ByteTokenizer, CharTokenizer
from gptlib.training import stored

WORDS = "the small red boat sails over the wide blue sea and comes back "
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and pipes")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with texts, two small models, and things that are neither."""
    place = tmp_path_factory.mktemp("place")
    (place / "text.txt").write_text(WORDS * 100, encoding="utf-8")
    (place / "short.txt").write_text(WORDS, encoding="utf-8")
    documents = [f"{number} {WORDS * 3}" for number in range(9)] + ["end"]
    (place / "end.txt").write_text("<|endoftext|>".join(documents), encoding="utf-8")
    (place / "latin.txt").write_bytes("caf\xe9 ".encode("latin-1") * 300)
    (place / "binary.txt").write_bytes(b"\0\1" * 2000)
    (place / "empty").mkdir()
    (place / "full").mkdir()
    (place / "full" / "letter").write_text("dear", encoding="utf-8")
    shape = dict(context_length=16, n_layer=1, n_head=2, n_embd=16)
    save_checkpoint(place / "model", GPT(GPTConfig(256, **shape)), ByteTokenizer())
    save_checkpoint(place / "letters", GPT(GPTConfig(3, **shape)), CharTokenizer("abc"))
    save_checkpoint(place / "bare", GPT(GPTConfig(3, **shape)))
    return place


def told(arguments, monkeypatch, capsys):
    """The exit code of the command, in this process, and what it wrote to stderr."""
    monkeypatch.setattr(sys, "argv", ["gptlib", *arguments])
    with pytest.raises(SystemExit) as exit:
        __main__.main()
    return exit.value.code, capsys.readouterr().err


def listing(place):
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


TRAIN = "train --out new/run --corpus text.txt --tokenizer byte --context-length 16".split()
SMALL = "--n-layer 1 --n-head 2 --n-embd 16".split()
GENERATE = "generate --model model --prompt ab --max-new-tokens 3".split()


def changed(base, *options):
    return [([*base, *option.split()], message) for option, message in options]


MISTAKES = [
    (["train", "--out", "x"], "no corpus is named"),
    *changed(
        TRAIN, ("--corpus nowhere", "neither a corpus nor a file"), ("--n-embd 30", "multiple of"),
        ("--batch-size 0", "batch_size is 0"), ("--seed -1", "seed is -1"),
        ("--seed 99999999999999999999", "seed is 99999999999999999999"),
        ("--learning-rate nan", "learning_rate is nan"), ("--learning-rate inf", "rate is inf"),
        ("--learning-rate -1", "learning_rate is -1"), ("--learning-rate 0", "learning_rate is 0"),
        ("--muon-learning-rate nan", "muon_learning_rate is nan"),
        ("--weight-decay nan", "weight_decay is nan"), ("--weight-decay -1", "weight_decay is -1"),
        ("--dropout 1", "dropout is 1"), ("--dropout nan", "dropout is nan"),
        ("--decay-fraction 2", "decay_fraction is 2"), ("--decay-fraction nan", "fraction is nan"),
        ("--context-length 0", "context_length is 0"), ("--n-layer 20000", "n_layer is 20000"),
        ("--n-embd 65536 --n-layer 1000", "needs more than"), ("--vocab-size 10", "vocab_size is"),
        ("--vocab-size 1000000000000", "vocab_size is 1000000000000"),
        ("--batch-size 1000000 --context-length 1000000", "needs more than"),
        ("--max-steps 0", "max_steps is 0"), ("--warmup-steps -1", "warmup_steps is -1"),
        ("--evaluate-every 0", "evaluate_every is 0"), ("--checkpoint-every 0", "every is 0"),
        ("--tokenizer words", "expected one of bpe, byte, char"), ("--block gpt5", "block is"),
        ("--schedule step", "schedule is 'step'"), ("--optimizer sgd", "optimizer is 'sgd'"),
        ("--precision float16", "float16 training needs a CUDA GPU"),
        ("--threads 0", "threads is 0"), ("--threads -1", "threads is -1"),
        ("--threads 100000", "threads is 100000"), ("--device abacus", "this machine has cpu"),
        ("--shard", "--optimizer adamw"), ("--shard --optimizer adamw", "single process"),
        ("--minutes nan", "minutes is nan"), ("--minutes 0", "minutes is 0"),
        ("--minutes -2", "minutes is -2"), ("--minutes inf", "minutes is inf"),
        ("--minutes 1 --max-steps 5", "expected one"), ("--context-length 9000", "training part"),
        ("--out text.txt", "no empty folder"), ("--out full", "no empty folder"),
        ("--out text.txt/run", "Not a directory"), ("--out model", "already holds a run"),
        ("--resume", "--corpus, --tokenizer, --context-length: leave them out")),
    *(([*TRAIN[:3], "--tokenizer", "byte", "--corpus", name], message) for name, message in (
        ("short.txt", "expected at least 1,000"), ("latin.txt", "is not utf-8"),
        ("binary.txt", "like a binary file"), ("empty", "no text at empty"), ("", "corpus is ''"),
        ("end.txt", "the held-out part of end.txt has 5 tokens"))),
    (["train", "--resume", "--out", "x"], "no checkpoint at"),
    (["train", "--resume", "--out", "model"], "without the settings of a run"),
    (["train", "--resume", "--out", "text.txt"], "no checkpoint at"),
    *changed(
        GENERATE, ("--model nobody", "there is no model"), ("--model ./nowhere", "no checkpoint"),
        ("--model text.txt", "no checkpoint"), ("--model full", "no checkpoint"),
        ("--model bare", "holds no tokenizer"), ("--model letters --prompt xyz", "'x' (U+0078)"),
        ("--temperature nan", "temperature is nan"), ("--temperature -1", "temperature is -1"),
        ("--top-k 0", "top_k is 0"), ("--top-p 2", "top_p is 2"), ("--top-p nan", "top_p is nan"),
        ("--min-p 2", "min_p is 2"), ("--repetition-penalty 0", "repetition_penalty is 0"),
        ("--max-new-tokens -1", "max_new_tokens is -1"), ("--seed -1", "seed is -1"),
        (f"--seed {2**70}", f"seed is {2**70}"), ("--threads 0", "threads is 0"),
        ("--device cuda:7", "this machine has"), ("--prompt \udcff", "U+DCFF"),
        (f"--prompt {'x' * 300}", "300 tokens")),
    ([*GENERATE, "--prompt", ""], "the prompt is empty"),
    *changed(
        ["chat", "--model", "model"], ("--model nobody", "there is no model"),
        ("--model bare", "holds no tokenizer"), ("--model model", "no special token <|im_start|>"),
        ("--load nowhere", "nowhere: it is no file"), ("--load text.txt", "text.txt, line 1"),
        ("--temperature nan", "temperature is nan"), ("--top-k 0", "top_k is 0"),
        ("--max-new-tokens -1", "max_new_tokens is -1"), ("--seed -1", "seed is -1"),
        ("--device cuda:7", "this machine has"), ("--threads 0", "threads is 0")),
    (["export", "--model", "model", "--to", "paper", "--out", "x"], "expected huggingface or gpt"),
    (["export", "--model", "nobody", "--to", "gptlib", "--out", "x"], "there is no model"),
    (["export", "--model", "bare", "--to", "gptlib", "--out", "x"], "holds no tokenizer"),
    (["export", "--model", "model", "--to", "huggingface", "--out", "deep/x"], "ByteTokenizer"),
    (["corpora", "nothing"], "unknown source"),
]


@pytest.mark.parametrize("arguments, message", MISTAKES,
                         ids=[" ".join(arguments)[:80] for arguments, _ in MISTAKES])
def test_a_mistake_ends_with_one_line_and_code_1_and_leaves_nothing(arguments, message, place,
                                                                     monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = listing(place)
    code, errors = told(arguments, monkeypatch, capsys)
    assert code == 1 and message in errors and errors.count("\n") == 1, errors
    assert errors.startswith("error: ") and listing(place) == before


@pytest.mark.parametrize("name, value, arguments, message", [
    ("GPTLIB_THREADS", "many", GENERATE, "GPTLIB_THREADS is 'many'"),
    ("GPTLIB_THREADS", "0", TRAIN, "GPTLIB_THREADS is '0'"),
    ("WORLD_SIZE", "2", TRAIN, "LOCAL_RANK is nothing"),
    ("GPTLIB_DATA", "text.txt", ["corpora", "stories"], "text.txt")])
def test_a_variable_that_makes_no_sense_is_told_in_one_line(name, value, arguments, message, place,
                                                            monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setenv(name, value)
    before = listing(place)
    code, errors = told(arguments, monkeypatch, capsys)
    assert code == 1 and message in errors and errors.count("\n") == 1, errors
    assert listing(place) == before


def test_the_corrected_command_works_after_each_mistake(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for mistake in ("--batch-size 0", "--seed -1", "--learning-rate nan", "--context-length 9000"):
        assert told([*TRAIN, *mistake.split()], monkeypatch, capsys)[0] == 1
    assert told([*TRAIN, *SMALL, "--max-steps", "1"], monkeypatch, capsys)[0] == 0


@pytest.mark.parametrize("error, message", [
    (PermissionError(13, "Permission denied", "/a"), "[Errno 13] Permission denied: '/a'"),
    (IsADirectoryError(21, "Is a directory", "/a"), "[Errno 21] Is a directory: '/a'"),
    (FileNotFoundError(2, "No such file", "/a"), "[Errno 2] No such file: '/a'"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "can't decode byte 0xff"),
    (FloatingPointError("the loss\n  is nan"), "the loss is nan"), (MemoryError(), "MemoryError"),
    (torch.OutOfMemoryError("Tried to allocate 7 GiB"), "Tried to allocate 7 GiB"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "can't allocate memory")])
def test_errors_of_the_system_are_one_line_too(error, message, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(stored, "load_checkpoint", lambda folder: throw(error))
    code, errors = told(GENERATE, monkeypatch, capsys)
    assert code == 1 and message in errors and errors.count("\n") == 1, errors


def throw(error):
    raise error


def test_a_fault_of_the_program_keeps_its_place(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(stored, "load_checkpoint", lambda folder: throw(RuntimeError("a bug")))
    monkeypatch.setattr(sys, "argv", ["gptlib", *GENERATE])
    with pytest.raises(RuntimeError, match="a bug"):
        __main__.main()


def test_ctrl_c_while_something_is_read_ends_without_a_traceback(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(stored, "load_checkpoint", lambda folder: throw(KeyboardInterrupt()))
    code, errors = told(GENERATE, monkeypatch, capsys)
    assert code != 0 and "Traceback" not in errors


def test_ctrl_c_ends_a_text_and_its_line(place, monkeypatch, capsys):
    def pieces(*_, **__):
        yield " one"
        raise KeyboardInterrupt

    monkeypatch.chdir(place)
    monkeypatch.setattr(__main__, "stream", pieces)
    monkeypatch.setattr(sys, "argv", ["gptlib", *GENERATE])
    with pytest.raises(SystemExit) as exit:
        __main__.main()
    assert exit.value.code == 0 and capsys.readouterr() == ("ab one\n", "")


def start(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "gptlib", *arguments], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@POSIX
@pytest.mark.parametrize("delay", [0.3, 1.2])
def test_ctrl_c_while_the_program_itself_is_read_ends_without_a_traceback(delay):
    process = start("corpora", preexec_fn=lambda: signal.signal(signal.SIGINT,
                                                                signal.default_int_handler))
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors, errors


@POSIX
@pytest.mark.parametrize("arguments, lines", [
    (["corpora"], 0), (["corpora"], 1),
    (["generate", "--model", "stories", "--prompt", "Once\n", "--max-new-tokens", "400"], 1)])
def test_a_pipe_whose_reader_leaves_is_no_error(arguments, lines):
    process = start(*arguments)
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(timeout=120)
    assert errors == "", errors


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_behind_the_output_is_told_in_one_line():
    with open("/dev/full", "w") as full:
        result = subprocess.run([sys.executable, "-m", "gptlib", "corpora"], stdout=full,
                                stderr=subprocess.PIPE, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr == "error: [Errno 28] No space left on device\n"


def test_a_training_whose_reader_leaves_can_go_on(place):
    process = start(*TRAIN[:2], "piped", *TRAIN[3:], *SMALL, "--max-steps", "60",
                    "--evaluate-every", "5", "--checkpoint-every", "20", cwd=place)
    next(itertools.islice(process.stdout, 2, None))
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait(timeout=120)
    process = start("train", "--resume", "--out", "piped", cwd=place)
    output, errors = process.communicate(timeout=120)
    assert "60 of 60 steps, finished" in output, errors
