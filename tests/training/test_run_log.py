"""The log of a run: cut back to the checkpoint, whatever a kill has left; damage is told."""

import json

import pytest

from gptlib.training import run_log
from gptlib.training.loop import Step


def line(step, seconds=None):
    return json.dumps({"step": step, "loss": 1.5, "seconds": seconds or step / 10}) + "\n"


@pytest.fixture
def log(tmp_path):
    file = tmp_path / run_log.NAME
    file.write_text(line(10) + line(20) + line(30), encoding="utf-8")
    return file


def test_an_entry_is_a_line_of_json(tmp_path):
    for number, loss in ((10, 2.5), (12, None)):
        run_log.append(tmp_path, Step(number, 3.123456, 0.1, 0.98761, 5.0), loss, 1.26)
    first, second = (json.loads(each) for each in
                     (tmp_path / run_log.NAME).read_text(encoding="utf-8").splitlines())
    assert first == {"step": 10, "loss": 3.1235, "val_loss": 2.5, "learning_rate": 0.1,
                     "grad_norm": 0.9876, "seconds": 1.3}
    assert second["val_loss"] is None


@pytest.mark.parametrize("step, kept, seconds", [
    (30, 3, 3.0), (29, 2, 2.0), (20, 2, 2.0), (9, 0, 0.0), (1000, 3, 3.0)])
def test_what_came_after_the_checkpoint_is_cut_off(log, tmp_path, step, kept, seconds):
    assert run_log.rewind(tmp_path, step) == seconds
    assert log.read_text(encoding="utf-8") == "".join(map(line, (10, 20, 30)[:kept]))


@pytest.mark.parametrize("length", range(1, len(line(40)) - 1))
def test_a_last_line_that_a_kill_has_torn_anywhere_is_cut_off(log, tmp_path, length):
    with open(log, "a", encoding="utf-8") as opened:
        opened.write(line(40)[:length])
    assert run_log.rewind(tmp_path, 30) == 3.0
    assert log.read_text(encoding="utf-8") == line(10) + line(20) + line(30)


def test_a_last_entry_without_its_line_end_is_kept(log, tmp_path):
    log.write_text(line(10) + line(20)[:-1], encoding="utf-8")
    assert run_log.rewind(tmp_path, 20) == 2.0
    assert log.read_text(encoding="utf-8") == line(10) + line(20)


def test_without_a_log_there_is_nothing_to_cut(tmp_path):
    assert run_log.rewind(tmp_path, 5) == 0.0 and not list(tmp_path.iterdir())
    (tmp_path / run_log.NAME).touch()
    assert run_log.rewind(tmp_path, 5) == 0.0


@pytest.mark.parametrize("damage", [
    b"\n", b'{"step": 1', b"\0" * 40 + b"\n", b"[1, 2]\n", b"7\n", b'{"loss": 1.0, "seconds": 1}\n',
    b'{"step": 15}\n', b'{"step": "15", "seconds": 1}\n', b'{"step": 15, "seconds": NaN}\n',
    b'{"step": 15, "seconds": -1}\n', b'{"step": true, "seconds": 1}\n', b"\xff\xfe\n",
    line(10).encode(), line(5).encode(), b"[" * 10_000 + b"\n"])
def test_damage_in_the_middle_is_refused_with_file_line_and_advice(log, tmp_path, damage):
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + damage + b"".join(lines[1:]))
    before = log.read_bytes()
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2: got .*repair or remove this line"):
        run_log.rewind(tmp_path, 30)
    assert log.read_bytes() == before
