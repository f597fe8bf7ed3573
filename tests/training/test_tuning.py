"""Trials of chapter 5.4: equal budgets, rates that carry over, repeatable results."""

import math

import optuna
import pytest
import torch

from gptlib.model.gpt import GPT
from gptlib.training import tuning
from gptlib.training.tuning import Trial

SHORT = Trial(tokens=2 * 16 * 64)


def test_steps_spend_the_budget_of_tokens():
    assert Trial(batch_size=16, tokens=102_400).steps == 100
    assert Trial(batch_size=64, tokens=102_400).steps == 25
    assert Trial(batch_size=64, tokens=10).steps == 1


def test_equal_cost_means_equal_operations():
    like = Trial()
    for n_layer, n_embd in ((1, 48), (4, 128)):
        trial = tuning.equal_cost(Trial(n_layer=n_layer, n_embd=n_embd), like)
        cost = trial.tokens * trial.config.num_parameters()
        assert math.isclose(cost, like.tokens * like.config.num_parameters(), rel_tol=1e-4)


def test_suggested_trials_stay_in_their_ranges_and_cost_the_same():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = tuning.suggest(study.ask())
        assert 5e-4 <= trial.learning_rate <= 6.4e-2 and trial.batch_size in (8, 16, 32, 64)
        assert trial == tuning.equal_cost(trial)


def test_whole_stories_are_held_out_and_the_two_texts_differ():
    tokenizer, train_data, validation, test = tuning.data()
    assert len(validation.ids) == len(test.ids) == tuning.HELD_OUT
    held_out, known = (tokenizer.decode(part.ids[5000:5200].tolist())
                       for part in (validation, train_data))
    everything = tokenizer.decode(train_data.ids.tolist())
    assert known in everything and held_out not in everything
    assert not torch.equal(validation.ids, test.ids)


def test_a_carried_rate_follows_the_width_for_matrices_alone():
    for n_embd, factor in ((32, 2.0), (64, 1.0), (256, 0.25)):
        trial = Trial(0.01, n_embd=n_embd, carried=True)
        model = GPT(trial.config)
        matrices, others = tuning.parameter_rates(model, trial)
        assert math.isclose(matrices["lr"], 0.01 * factor) and others["lr"] == 0.01
        held = matrices["params"] + others["params"]
        assert sum(p.numel() for p in held) == model.num_parameters()
        assert any(p is model.embedding.weight for p in others["params"])
        assert any(p is model.output.weight for p in matrices["params"])
        plain, _ = tuning.parameter_rates(model, Trial(0.01, n_embd=n_embd))
        assert plain["lr"] == 0.01


def test_a_trial_gives_the_same_losses_twice_and_others_with_another_seed():
    first, again = tuning.run(SHORT), tuning.run(SHORT)
    assert first == again
    assert tuning.run(Trial(tokens=SHORT.tokens, seed=1)) != first
    assert 3 < first.validation < 4.4 and 3 < first.test < 4.4


def test_a_training_that_breaks_off_counts_as_infinitely_bad(monkeypatch):
    def diverge(trial):
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(tuning, "fit", diverge)
    assert tuning.run(SHORT) == (math.inf, math.inf)


def test_results_come_back_as_numbers(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("# command: x\n# torch 2\npart,carried,rate,steps,loss\n"
                    "grid,True,0.004,25,inf\nwidth,False,1e-05,7,2.5\n", encoding="utf-8")
    header, rows = tuning.read_results(path)
    assert header == ["command: x", "torch 2"]
    assert rows[0] == {"part": "grid", "carried": True, "rate": 0.004, "steps": 25,
                       "loss": math.inf}
    assert rows[1]["rate"] == 1e-5 and rows[1]["carried"] is False


def test_missing_results_are_an_error_that_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "__file__", str(tmp_path / "gptlib" / "training" / "tuning.py"))
    with pytest.raises(ValueError, match="python tools/sweep.py"):
        tuning.results_path()


@pytest.mark.parametrize("changes", [
    {"learning_rate": math.nan}, {"learning_rate": 0.0}, {"batch_size": 0}, {"batch_size": 2.0},
    {"tokens": 0}, {"n_layer": 0}, {"n_embd": -2}, {"carried": "no"}, {"seed": -1}])
def test_a_trial_that_makes_no_sense_is_refused_by_name(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))} is"):
        Trial(**changes)
