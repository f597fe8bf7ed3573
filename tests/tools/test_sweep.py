"""The long sweep: resumable, one line a trial, and the stored file says how it was made."""

import collections

import pytest
import sweep

from gptlib.training.tuning import Trial, read_results, results_path


def run(monkeypatch, path, *options):
    monkeypatch.setattr("sys.argv", ["sweep.py", "--out", str(path), "--budget", "2", *options])
    return sweep.main()


def test_a_run_in_pieces_gives_the_same_lines_as_a_run_at_once(monkeypatch, tmp_path, capsys):
    def lines(path):
        return [{**row, "seconds": 0} for row in read_results(path)[1]]

    whole, pieces = tmp_path / "whole.csv", tmp_path / "deeper" / "pieces.csv"
    run(monkeypatch, whole, "--only", "tpe", "--trials", "3")
    run(monkeypatch, pieces, "--only", "tpe", "--trials", "2")
    assert "run the command again" in capsys.readouterr().out
    run(monkeypatch, pieces, "--only", "tpe", "--trials", "1")
    assert lines(whole) == lines(pieces) and len(lines(whole)) == 3


def test_no_time_left_means_no_trial(monkeypatch, tmp_path):
    run(monkeypatch, tmp_path / "none.csv", "--minutes", "-1")
    assert not (tmp_path / "none.csv").exists()


def test_no_planned_trial_stands_twice():
    counts = collections.Counter(sweep.planned())
    assert max(counts.values()) == 1 and len(counts) > 100


def test_the_stored_results_are_complete_and_name_their_command():
    header, rows = read_results(results_path())
    text = " ".join(header)
    assert "command: python tools/sweep.py" in text and "torch" in text and "seed" in text
    assert not list(sweep.missing(rows, None))
    assert {row["part"] for row in rows} == {
        "grid", "seeds", "tokens", "shape", "width", "tpe", "random", "tpe again",
        "random again", "default again"}
    for row in rows:
        assert row["steps"] == Trial(**{name: row[name] for name in sweep.SETTINGS}).steps
        assert 1 < row["validation"] < 5 and 1 < row["test"] < 5


def test_the_sweep_took_less_than_25_minutes_of_one_core():
    assert sum(row["seconds"] for row in read_results(results_path())[1]) < 25 * 60


def test_what_would_spoil_the_stored_file_or_names_no_part_is_refused(monkeypatch, tmp_path):
    for options in (["--budget", "2"], ["--only", "gird"]):
        monkeypatch.setattr("sys.argv", ["sweep.py", *options])
        with pytest.raises(SystemExit) as refusal:
            sweep.main()
        assert refusal.value.code == 2
    with pytest.raises(SystemExit, match="run --only tpe first"):
        run(monkeypatch, tmp_path / "new.csv", "--only", "again")
