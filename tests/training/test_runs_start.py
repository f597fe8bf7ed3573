"""A run that cannot work is refused before anything is written, and a start that fails leaves
nothing that would block the corrected command."""

import dataclasses
import math

import pytest

from gptlib.formats.checkpoint import load_checkpoint
from gptlib.training import runs

END = "<|endoftext|>"
WORDS = "the small red boat sails over the wide blue sea and comes back "


def write(folder, documents):
    file = folder / "own.txt"
    file.write_text(END.join(documents), encoding="utf-8")
    return (str(file),)


# ten documents, of which the last, with 3 letters, is held out
SHORT_END = [f"{number} {WORDS * 3}" for number in range(9)] + ["end"]
SHORT_TEXT = [f"{number} {WORDS * 3}" for number in range(9)] + [WORDS * 100]

MISTAKES = {
    "held out": (SHORT_END, {"context_length": 16}, {}, r"held-out part of .*own\.txt has 5 tokens;"
                 r" expected at least 17.*\(a tenth of it is held out\).*--context-length"),
    "training": (SHORT_TEXT, {"context_length": 5000}, {}, r"training part of .*own\.txt has \d+ "
                 r"tokens; expected at least 5001"),
    "both short": (["abc " * 300], {"context_length": 2000}, {}, r"training part .* 1\d\d\d to"),
    "all alike": ([WORDS * 3] * 20, {}, {}, "all documents of .*own.txt are alike"),
    "no document": ([" "] * 100, {}, {}, "own.txt holds no text between its <.endoftext.>"),
    "too little": (["abc"], {}, {}, "holds 3 characters; expected at least 1,000"),
    "no file": (None, {"corpus": ("nowhere",)}, {}, "'nowhere' is neither a corpus nor a file"),
    "shape": (SHORT_TEXT, {"precision": "float16"}, {}, "float16 training needs a CUDA GPU"),
    "shard": (SHORT_TEXT, {"optimizer": "adamw"}, {"shard": True}, "shard is True in a single pro"),
    "no threads": (SHORT_TEXT, {}, {"threads": 0}, "threads is 0; expected a whole number from 1"),
    "threads": (SHORT_TEXT, {}, {"threads": 10**6}, "threads is 1000000; expected"),
    "minutes": (SHORT_TEXT, {}, {"minutes": math.nan}, "minutes is nan; expected a number from"),
    "no minutes": (SHORT_TEXT, {}, {"minutes": 0}, "minutes is 0; expected"),
    "no memory": (SHORT_TEXT, {"n_layer": 1000, "n_embd": 65536}, {}, "parameters on batches of 2"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_work_is_said_as_such_and_nothing_is_written(config, tmp_path, name):
    documents, changes, options, message = MISTAKES[name]
    (tmp_path / "text").mkdir()
    corpus = write(tmp_path / "text", documents) if documents else ()
    config = dataclasses.replace(config, tokenizer="byte", **{"corpus": corpus} | changes)
    for folder in ("new/run", "there"):
        (tmp_path / "there").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=message):
            list(runs.run(config, tmp_path / folder, **options))
    assert not (tmp_path / "new").exists() and not any((tmp_path / "there").iterdir())


def broken_at(step, monkeypatch):
    """From this step on the held-out loss is NaN."""
    real, calls = runs.evaluate_loss, []

    def evaluate(model, data):
        calls.append(1)
        return math.nan if len(calls) >= step else real(model, data)

    monkeypatch.setattr(runs, "evaluate_loss", evaluate)


@pytest.mark.parametrize("folder", ["new/run", "there", "link"])
def test_a_run_that_fails_before_its_first_checkpoint_leaves_nothing(config, tmp_path, folder,
                                                                      monkeypatch):
    config = dataclasses.replace(config, evaluate_every=1)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    with monkeypatch.context() as patch:
        broken_at(8, patch)
        with pytest.raises(FloatingPointError, match="held-out loss is nan after step 8.*lower"):
            list(runs.run(config, tmp_path / folder))
    assert not (tmp_path / "new").exists() and not any((tmp_path / "there").iterdir())
    corrected = dataclasses.replace(config, learning_rate=1e-4)
    assert len(list(runs.run(corrected, tmp_path / folder))) == 24


def test_a_run_that_fails_later_keeps_its_checkpoint(config, tmp_path, monkeypatch):
    broken_at(12, monkeypatch)
    with pytest.raises(FloatingPointError):
        list(runs.run(dataclasses.replace(config, evaluate_every=1), tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run")[2]["step"] == 10


def test_a_disk_that_is_full_from_the_start_leaves_nothing(config, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gptlib.formats.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        list(runs.run(config, tmp_path / "new" / "run"))
    assert not any(tmp_path.iterdir())


def test_what_others_put_into_the_folder_meanwhile_stays(config, tmp_path, monkeypatch):
    broken_at(5, monkeypatch)
    progress = runs.run(dataclasses.replace(config, evaluate_every=1), tmp_path / "run")
    next(progress)
    (tmp_path / "run" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FloatingPointError):
        list(progress)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_reader_who_stops_iterating_can_go_on(config, tmp_path):
    for _ in runs.run(config, tmp_path / "run"):
        break
    assert len(list(runs.run(config, tmp_path / "run", continued=True))) == 24


def test_a_folder_with_a_run_is_not_overwritten(config, tmp_path):
    short = dataclasses.replace(config, max_steps=1)
    list(runs.run(short, tmp_path / "a"))
    with pytest.raises(ValueError, match="already holds a run.*--resume"):
        list(runs.run(short, tmp_path / "a"))


@pytest.mark.parametrize("make", [
    lambda path: path.write_text("text", encoding="utf-8"),
    lambda path: (path.mkdir(), (path / "letter.txt").write_text("dear", encoding="utf-8")),
    lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to(path)])
def test_what_is_there_and_no_empty_folder_is_refused_at_once(config, tmp_path, make, monkeypatch):
    make(tmp_path / "a")
    monkeypatch.setattr(runs, "_prepare", lambda *_: pytest.fail("the text was read before"))
    with pytest.raises(ValueError, match="is there and is no empty folder"):
        list(runs.run(config, tmp_path / "a"))
    assert len(list(tmp_path.iterdir())) == 1
