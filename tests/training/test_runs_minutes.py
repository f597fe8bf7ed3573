"""`minutes` becomes a number of steps, measured on the very model and data that are trained."""

import dataclasses

import pytest

from gptlib.training import runs


@pytest.mark.parametrize("tokenizer", ["bpe", "byte", "char"])
def test_the_model_that_is_timed_has_the_vocabulary_of_the_one_that_is_trained(
        config, tmp_path, monkeypatch, tokenizer):
    sizes, real = [], runs.build

    def build(settings, vocab_size, *rest):
        sizes.append(vocab_size)
        return real(settings, vocab_size, *rest)

    monkeypatch.setattr(runs, "build", build)
    config = dataclasses.replace(config, tokenizer=tokenizer, vocab_size=2000)
    next(runs.run(config, tmp_path / "run", minutes=0.001))
    own = runs.prepare(config, tmp_path / "run")[0].vocab_size
    assert sizes == [own, own] and own < 2000


class Clock:
    """Time passes in steps (2 s, the first 30 s), in held-out losses (10 ms a token) and in
    checkpoints (5 s) alone."""

    def __init__(self, monkeypatch):
        self.now, train, evaluate = 0.0, runs.train, runs.evaluate_loss
        save = runs.save_checkpoint

        def timed_train(*arguments):
            steps = train(*arguments)
            self.now += 28.0  # the first is slow, as on a GPU
            for step in steps:
                self.now += 2.0
                yield step

        def timed_loss(model, data):
            self.now += 0.01 * len(data.ids)
            return evaluate(model, data)

        def timed_save(*arguments, **options):
            self.now += 5.0
            save(*arguments, **options)

        monkeypatch.setattr(runs, "save_checkpoint", timed_save)
        monkeypatch.setattr(runs, "perf_counter", lambda: self.now)
        monkeypatch.setattr(runs, "train", timed_train)
        monkeypatch.setattr(runs, "evaluate_loss", timed_loss)


@pytest.mark.parametrize("evaluate_every, checkpoint_every", [(2, 1000), (1000, 3), (1000, 1000)])
def test_the_run_takes_the_minutes_that_were_asked_for(config, tmp_path, monkeypatch,
                                                       evaluate_every, checkpoint_every):
    config = dataclasses.replace(config, tokenizer="byte", evaluate_every=evaluate_every,
                                 checkpoint_every=checkpoint_every)
    clock = Clock(monkeypatch)
    progress = runs.run(config, tmp_path / "run", minutes=5)
    first = next(progress)
    began = clock.now - 30.0
    steps = [at.step.step for at in progress]
    assert steps[-1] == first.max_steps == runs.stored_config(tmp_path / "run")[0].max_steps
    assert clock.now - began == pytest.approx(300 + 28, rel=0.05)


def test_it_ends_as_if_the_number_had_been_given(config, tmp_path):
    list(runs.run(config, tmp_path / "timed", minutes=0.002))
    found, _ = runs.stored_config(tmp_path / "timed")
    list(runs.run(found, tmp_path / "given"))
    for name in ("model.safetensors", "optimizer.safetensors", "training.json"):
        assert (tmp_path / "timed" / name).read_bytes() == (tmp_path / "given" / name).read_bytes()


def test_a_run_goes_on_for_some_minutes_more(config, tmp_path, monkeypatch):
    list(runs.run(config, tmp_path / "run"))
    Clock(monkeypatch)
    steps = [at.step.step for at in
             runs.run(config, tmp_path / "run", continued=True, minutes=2)]
    assert steps[0] == 25 and steps[-1] == runs.stored_config(tmp_path / "run")[0].max_steps
    assert 40 <= len(steps) <= 60


def test_at_least_one_step_is_made(config, tmp_path):
    assert len(list(runs.run(config, tmp_path / "run", minutes=1e-6))) == 1
