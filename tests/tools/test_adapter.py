"""The race of ranks and rates: equal time, resumable, and the stored file says how it was made."""

import adapter
import pytest
import torch

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.training.lora import lora_layers
from gptlib.training.tuning import append_result, read_results


def small():
    torch.manual_seed(1)
    return GPT(GPTConfig(31, 12, n_layer=1, n_head=2, n_embd=16))


def paces(**seconds):
    """Rows of the part "pace": for each rank its seconds, in rounds."""
    return [{"part": "pace", "library": "gptlib", "rank": int(rank[1:]), "seconds": each}
            for rank, values in seconds.items() for each in values]


def test_a_rank_that_is_slower_gets_fewer_steps_in_the_same_time():
    rows = paces(r4=[2.0, 2.0, 9.0], r16=[2.0, 2.1, 2.0], r64=[2.6, 2.5, 2.4])
    assert adapter.steps_of(16, rows) == adapter.steps_of(4, rows) == adapter.STEPS
    assert adapter.steps_of(64, rows) == round(adapter.STEPS * 2.0 / 2.5)


def test_the_pace_of_peft_is_not_that_of_a_rank():
    rows = paces(r16=[2.0]) + [{**paces(r16=[8.0])[0], "library": "peft"}]
    assert adapter.steps_of(16, rows) == adapter.STEPS


def test_without_a_pace_the_race_says_what_to_run():
    with pytest.raises(SystemExit, match="--part pace"):
        adapter.steps_of(64, paces(r16=[2.0]))


def test_every_rank_meets_every_rate_with_every_seed_and_the_corners_come_last():
    planned = adapter.planned()
    assert len(planned) == len(set(planned)) == 3 * 3 * 3
    near = [rank == 16 or rate == 1e-3 for rank, rate, _ in planned]
    assert near == [True] * 15 + [False] * 12


def test_the_windows_that_judge_lie_evenly_from_the_first_token_to_the_last():
    ids = torch.arange(3 * (adapter.WINDOW + 1))
    first, second, third = adapter.spread(ids, 3)
    assert first[0] == 0 and third[-1] == len(ids) - 1
    assert {len(each) for each in (first, second, third)} == {adapter.WINDOW + 1}
    assert second[0] - first[0] == third[0] - second[0]


def test_adapters_of_two_twins_stand_beside_the_same_tensors():
    base = small()
    ours = adapter.with_lora(adapter.twin(base), "gptlib", 2)
    theirs = adapter.with_lora(adapter.twin(base), "peft", 2)
    assert not lora_layers(base) and lora_layers(ours) and not lora_layers(theirs)
    learned = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (ours, theirs)]
    assert learned[0] == learned[1] > 0
    stored = {p.data_ptr() for p in base.parameters()}
    assert {p.data_ptr() for m in (ours, theirs) for p in m.parameters()
            if not p.requires_grad} == stored


def test_what_the_file_holds_is_not_measured_again(monkeypatch, tmp_path):
    def raced(rank, rate, seed, steps):
        return {"part": "race", "library": "gptlib", "rank": rank, "learning_rate": rate,
                "seed": seed, "steps": steps, "seconds": 1.0, "validation": 3.0}

    def row(part, **values):
        return {"part": part, "library": "gptlib", "rank": 16, "seed": 0, "seconds": 2.0} | values

    monkeypatch.setattr(adapter, "raced", raced)
    monkeypatch.setattr(adapter, "memories", lambda: iter([row("memory")] * 3))
    monkeypatch.setattr(adapter, "paces", lambda: iter(
        [row("pace", rank=rank) for rank in (4, 16, 64, 16)] * adapter.ROUNDS))
    path = tmp_path / "deeper" / "adapter.csv"
    monkeypatch.setattr("sys.argv", ["adapter.py", "--out", str(path)])
    assert adapter.main() == 0
    whole = path.read_text(encoding="utf-8")
    assert len(read_results(path)[1]) == 3 + 4 * adapter.ROUNDS + 1 + 27
    assert adapter.main() == 0 and path.read_text(encoding="utf-8") == whole
    path.write_text("\n".join(whole.split("\n")[:-6]) + "\n", encoding="utf-8")
    assert adapter.main() == 0 and path.read_text(encoding="utf-8") == whole


def test_half_a_pace_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "adapter.csv"
    half = {"part": "pace", "library": "gptlib", "rank": 4, "seconds": 2.0}
    append_result(path, adapter.COLUMNS, half, adapter.HEADER)
    monkeypatch.setattr("sys.argv", ["adapter.py", "--out", str(path)])
    with pytest.raises(SystemExit, match="remove those lines"):
        adapter.main()


def test_the_stored_results_are_complete_and_name_their_command():
    header, rows = read_results(adapter.RESULTS)
    text = " ".join(header)
    assert "command: python tools/adapter.py" in text and "torch" in text and "peft" in text
    race = {(row["rank"], row["learning_rate"], row["seed"]): row
            for row in rows if row["part"] == "race"}
    assert set(race) == {(0, 0, 0), *adapter.planned()}
    for (rank, _, _), row in race.items():
        assert row["steps"] == (adapter.steps_of(rank, rows) if rank else 0)
        assert 2.5 < row["validation"] < 3.5


def test_a_step_takes_no_longer_than_pefts_and_needs_at_most_as_much_memory():
    rows = read_results(adapter.RESULTS)[1]
    pace = {library: [row["seconds"] for row in rows if row["part"] == "pace"
                      and row["library"] == library and row["rank"] == 16]
            for library in ("gptlib", "peft")}
    ratios = sorted(a / b for a, b in zip(pace["gptlib"], pace["peft"]))
    assert len(ratios) == adapter.ROUNDS and ratios[len(ratios) // 2] < 1.03
    memory = {row["library"]: row["peak_mb"] for row in rows if row["part"] == "memory"}
    assert memory["gptlib"] < memory["peft"] and min(memory.values()) < 2400
