"""The long hyperparameter sweep of chapter 5.4: every trial is one line of book/results/tuning.csv.

    python tools/sweep.py                # what is missing, to the end: about 17 minutes of one core
    python tools/sweep.py --minutes 4    # a piece of it; run the command again to go on
    python tools/sweep.py --only grid    # one part

A trial that is in the file is not run again. To repeat everything, remove the file first.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import optuna
import torch

from gptlib.runtime import setup
from gptlib.training.tuning import Trial, append_result, data, read_results, run, suggest

RESULTS = Path(__file__).resolve().parent.parent / "book" / "results" / "tuning.csv"
SETTINGS = [field.name for field in fields(Trial)]
COLUMNS = ["part", *SETTINGS, "steps", "parameters", "validation", "test", "seconds"]
HEADER = ["command: python tools/sweep.py",
          f"torch {torch.__version__}, optuna {optuna.__version__}, one thread",
          "seeds: in the column seed; studies propose with seed 1000 + number",
          "losses in nats per character, seconds of processor time"]
RATES = [0.0005 * 2**k for k in range(7)]  # 0.0005 to 0.032
SHAPES = [(1, 92), (2, 64), (4, 44), (8, 32)]  # layers and width with about equal parameters
STUDIES = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
STUDY_LENGTH = 25
FRESH_SEEDS = range(100, 105)
PARTS = ("grid", "seeds", "tokens", "shape", "width", *STUDIES, "again")


def planned() -> Iterator[tuple[str, Trial]]:
    """The trials that are known beforehand, with the part that each belongs to."""
    for seed in range(3):
        for batch_size in (4, 16, 64):
            for rate in RATES:
                yield "grid", Trial(rate, batch_size, seed=seed)
    yield from (("seeds", Trial(seed=seed)) for seed in range(12))
    for tokens in (25_600, 409_600):
        yield from (("tokens", Trial(rate, tokens=tokens)) for rate in RATES[1:6])
    for seed in range(2):
        for n_layer, n_embd in SHAPES:
            for rate in RATES[2:6]:
                yield "shape", Trial(rate, n_layer=n_layer, n_embd=n_embd, seed=seed)
    for carried in (False, True):
        for n_embd in (32, 64, 128, 256):
            for rate in (*RATES, 0.064):
                yield "width", Trial(rate, tokens=65_536, n_embd=n_embd, carried=carried)


def proposed(part: str, rows: list[dict]) -> Trial | None:
    """The next trial of a study, from what is known so far; None when the study is complete.

    A new sampler for each trial, seeded with its number: an interrupted study goes on as it would
    have gone.
    """
    past = [row for row in rows if row["part"] == part]
    if len(past) == STUDY_LENGTH:
        return None
    study = optuna.create_study(sampler=STUDIES[part](seed=1000 + len(past)))
    for row in past:
        log2 = row["batch_size"].bit_length() - 1
        asked = optuna.trial.FixedTrial(row | {"log2_batch_size": log2})
        suggest(asked)
        study.add_trial(optuna.trial.create_trial(
            params=asked.params, distributions=asked.distributions, value=row["validation"]))
    return suggest(study.ask())


def repeated(rows: list[dict]) -> Iterator[tuple[str, Trial]]:
    """The best trial of each study again, and the default, with seeds that no trial has seen."""
    best = {}
    for part in STUDIES:
        mine = [row for row in rows if row["part"] == part]
        if not mine:
            raise SystemExit(f"there are no trials of {part!r} to repeat; run --only {part} first")
        row = min(mine, key=lambda row: row["validation"])
        best[f"{part} again"] = Trial(**{name: row[name] for name in SETTINGS})
    best["default again"] = Trial()
    for seed in FRESH_SEEDS:
        yield from ((part, replace(trial, seed=seed)) for part, trial in best.items())


def missing(rows: list[dict], only: str | None) -> Iterator[tuple[str, Trial]]:
    """What is still to run, in order; `rows` grows while this goes on."""
    def unknown(part: str, trial: Trial) -> bool:
        known = [row for row in rows if row["part"] == part]
        return all(any(row[name] != getattr(trial, name) for name in SETTINGS) for row in known)

    yield from ((part, trial) for part, trial in planned()
                if only in (None, part) and unknown(part, trial))
    for part in STUDIES:
        while only in (None, part) and (trial := proposed(part, rows)):
            yield part, trial
    if only in (None, "again"):
        yield from ((part, trial) for part, trial in repeated(rows) if unknown(part, trial))


def measure(part: str, trial: Trial, budget: int | None) -> dict:
    """Run one trial and return its row. With `budget` it is cut to that many steps, for a test."""
    shown = trial if budget is None else replace(trial, tokens=budget * 64 * trial.batch_size)
    setup(trial.seed, threads=1)
    began = time.process_time()
    losses = run(shown)
    return {"part": part, **asdict(trial), "steps": shown.steps,
            "parameters": trial.config.num_parameters(), "validation": losses.validation,
            "test": losses.test, "seconds": time.process_time() - began}


def main() -> int:
    """Read the command line and run what is missing until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--only", choices=PARTS, help="one part of the sweep")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results file")
    parser.add_argument("--trials", type=int, default=sys.maxsize, help="at most so many")
    parser.add_argument("--budget", type=int, help="cut each trial to so many steps, for a test")
    options = parser.parse_args()
    if options.budget and options.out == RESULTS:
        parser.error("--budget cuts the trials short: name another file with --out")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = read_results(options.out)[1] if options.out.exists() else []
    began, count = time.monotonic(), 0
    data()
    for part, trial in missing(rows, options.only):
        if count == options.trials or time.monotonic() - began > 60 * options.minutes:
            print(f"stopped after {count} trials; run the command again to go on")
            return 0
        row = measure(part, trial, options.budget)
        append_result(options.out, COLUMNS, row, HEADER)
        rows.append(read_results(options.out)[1][-1])  # as rounded in the file
        count += 1
        print(f"{part:14} {trial.learning_rate:.4g} batch {trial.batch_size} {trial.n_layer}x"
              f"{trial.n_embd} seed {trial.seed}: {row['validation']:.4f} nats, "
              f"{row['seconds']:.1f} s", flush=True)
    print(f"complete: {len(rows)} trials in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
