"""A run goes on as it was, with the same settings and the same texts, or says why not."""

import dataclasses
import json
import re
import shutil

import pytest
import torch

from gptlib.formats.checkpoint import load_checkpoint
from gptlib.training import runs

END = "<|endoftext|>"


@pytest.fixture
def begun(config, text_file, tmp_path):
    """The settings and the folder of a run of two corpora that stands at step 10 of 24."""
    for name in ("first.txt", "second.txt"):
        shutil.copy(text_file, tmp_path / name)
    corpus = (str(tmp_path / "first.txt"), str(tmp_path / "second.txt"))
    config = dataclasses.replace(config, corpus=corpus)
    for at in runs.run(config, tmp_path / "run"):
        if at.step.step == 15:
            break
    return config, tmp_path / "run"


def go_on(config, folder):
    return [at.step.step for at in runs.run(config, folder, continued=True)]


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def change(file, edit):
    file.write_text(edit(file.read_text(encoding="utf-8")), encoding="utf-8")


EDITS = {
    "a letter": lambda text: text.replace("Anna", "Anne", 1),
    "a document more": lambda text: text + END + "A new one.",
    "a document less": lambda text: text.rpartition(END)[0],
    "documents in another order": lambda text: END.join(reversed(text.split(END))),
    "two documents joined": lambda text: text.replace(END, "\n", 1),
}


@pytest.mark.parametrize("name", ["first.txt", "second.txt"])
@pytest.mark.parametrize("edit", EDITS)
def test_another_text_behind_the_same_path_is_refused_by_name(begun, name, edit):
    config, folder = begun
    before = content(folder)
    change(folder.parent / name, EDITS[edit])
    with pytest.raises(ValueError, match=rf"{name} is not the text that the run in .*run began "
                                         r"with: it is now \d+ characters in \d+ documents .*then "
                                         r"it was \d+ characters in 20 documents"):
        go_on(config, folder)
    assert content(folder) == before


def test_what_does_not_change_the_documents_is_no_other_text(begun):
    config, folder = begun
    change(folder.parent / "first.txt", lambda text: text.replace(END, f"\n{END}\n") + "\n")
    assert go_on(config, folder) == list(range(11, 25))


def test_texts_that_are_encoded_otherwise_are_refused(begun, monkeypatch):
    config, folder = begun
    real = runs.encode_documents
    monkeypatch.setattr(runs, "encode_documents",
                        lambda documents, tokenizer: real(list(documents)[::-1], tokenizer))
    with pytest.raises(ValueError, match="divided or encoded otherwise"):
        go_on(config, folder)


def test_the_record_of_the_texts_is_stored_and_stays_the_same(begun):
    config, folder = begun
    record = load_checkpoint(folder)[2]["data"]
    assert [each["name"] for each in record["corpora"]] == list(config.corpus)
    assert record["training"]["tokens"] == len(runs.prepare(config, folder)[1].ids)
    assert record["held_out"]["tokens"] == len(runs.prepare(config, folder)[2].ids)
    assert all(len(record[part]["sha256"]) == 64 for part in ("training", "held_out"))
    go_on(config, folder)
    assert load_checkpoint(folder)[2]["data"] == record


def edit_training(folder, edit):
    values = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    edit(values["metadata"])
    (folder / "training.json").write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize("edit, message", [
    (lambda m: m.pop("data"), "no record of the texts"),
    (lambda m: m.update(data=5), "no record of the texts"),
    (lambda m: m.update(data={"corpora": [1, 2]}), "is not the text.*unknown"),
    (lambda m: m["data"]["corpora"].pop(), "otherwise"),
    (lambda m: m.pop("run"), "without the settings of a run"),
    (lambda m: m.update(run=None), "training.json: the settings of the run are None"),
    (lambda m: m["run"].update(heads=4), "training.json: unknown key 'heads'"),
    (lambda m: m["run"].pop("seed"), "training.json: the settings of the run lack seed"),
    (lambda m: m["run"].update(n_layer="two"), "training.json: n_layer is 'two'")])
def test_a_damaged_record_or_setting_is_told(begun, edit, message):
    config, folder = begun
    edit_training(folder, edit)
    with pytest.raises(ValueError, match=message):
        go_on(config, folder)


def test_other_settings_are_refused_by_name(begun):
    config, folder = begun
    other = dataclasses.replace(config, batch_size=4, dropout=0.5)
    with pytest.raises(ValueError, match=r"dropout is 0\.5, the run's own is 0\.2; batch_size is 4,"
                                         r" the run's own is 2"):
        go_on(other, folder)


def test_a_run_without_its_tokenizer_is_refused(begun):
    config, folder = begun
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="holds no tokenizer"):
        go_on(config, folder)


def test_a_finished_run_is_left_as_it_is(begun, monkeypatch):
    config, folder = begun
    go_on(config, folder)
    before = content(folder)
    monkeypatch.setattr(runs, "_prepare", lambda *_: pytest.fail("nothing is left to train"))
    assert go_on(config, folder) == [] and content(folder) == before


def test_a_finished_run_with_a_later_end_goes_on(begun):
    config, folder = begun
    go_on(config, folder)
    assert go_on(dataclasses.replace(config, max_steps=30), folder) == list(range(25, 31))


def test_an_end_that_lies_behind_is_refused(begun):
    config, folder = begun
    with pytest.raises(ValueError, match="max_steps is 9 and the run in .* stands at step 10"):
        go_on(dataclasses.replace(config, max_steps=9), folder)


def test_a_damaged_log_is_told_before_anything_changes(begun):
    config, folder = begun
    log = folder / "log.jsonl"
    log.write_bytes(b"\0\0\0\n" + log.read_bytes())
    before = content(folder)
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1: got .*; expected an entry.*without"):
        go_on(config, folder)
    assert content(folder) == before
    log.unlink()
    assert go_on(config, folder)[-1] == 24
    steps = [json.loads(line)["step"] for line in log.read_text(encoding="utf-8").splitlines()]
    assert steps == [12, 20, 24]


def test_a_torn_last_line_of_the_log_does_no_harm(begun):
    config, folder = begun
    with open(folder / "log.jsonl", "a", encoding="utf-8") as log:
        log.write('{"step": 1')
    go_on(config, folder)
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 12, 20, 24]


def test_a_finished_run_that_was_killed_while_its_files_were_moved_is_tidied(begun):
    """As replace_files leaves it: the new files under .ready, some of them moved, some old."""
    config, folder = begun
    old = content(folder)
    go_on(config, folder)
    whole = content(folder)
    for name in ("tokenizer.json", "training.json", "optimizer.safetensors"):
        (folder / ".ready").mkdir(exist_ok=True)
        (folder / name).rename(folder / ".ready" / name)
        (folder / name).write_bytes(old[name])
    assert go_on(config, folder) == [] and content(folder) == whole
    (folder / ".writing").mkdir()  # and where a kill has left the beginning of another save
    (folder / ".writing" / "config.json").write_text("{", encoding="utf-8")
    assert go_on(config, folder) == [] and content(folder) == whole
    assert not any(path.is_dir() for path in folder.iterdir())


def test_settings_and_step_of_a_run_are_told(begun):
    config, folder = begun
    assert runs.stored_config(folder) == (config, 10)
    assert runs.stored_config(str(folder)) == (config, 10)


def test_the_random_state_of_the_caller_does_not_matter(begun):
    config, folder = begun
    shutil.copytree(folder, folder.parent / "copy")
    go_on(config, folder)
    torch.rand(7)
    go_on(config, folder.parent / "copy")
    ours, theirs = (content(each) for each in (folder, folder.parent / "copy"))
    for each in (ours, theirs):
        each["log.jsonl"] = re.sub(rb'"seconds": [\d.]+', b"", each["log.jsonl"])
    assert ours == theirs
