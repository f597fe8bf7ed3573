"""The log of a run: log.jsonl beside the checkpoint, a line of JSON for each step that is told."""

import json
from pathlib import Path

from gptlib.files import Fields, broken, force_to_disk, parse_json, shown
from gptlib.training.loop import Step

NAME = "log.jsonl"


def append(folder: Path, step: Step, val_loss: float | None, seconds: float) -> None:
    """Add a line: the step, `val_loss` (nats per token, None where it was not measured), and the
    seconds that the run has taken so far."""
    entry = {"step": step.step, "loss": round(step.loss, 4), "val_loss": val_loss,
             "learning_rate": step.learning_rate, "grad_norm": round(step.grad_norm, 4),
             "seconds": round(seconds, 1)}
    with open(folder / NAME, "a", encoding="utf-8", newline="\n") as log:
        log.write(json.dumps(entry) + "\n")


def keep(folder: Path) -> None:
    """Force the log to the disk, so that a power cut does not take what a checkpoint follows."""
    if (folder / NAME).exists():
        force_to_disk(folder / NAME)


def rewind(folder: Path, step: int) -> float:
    """Cut off what was logged after the checkpoint of `step`; returns the seconds that it took.

    A last line without its end was torn by a kill, after the checkpoint, and is cut off as well.
    Any other line that is no entry, or none of a later step than the line before, raises
    ValueError.
    """
    file = folder / NAME
    if not file.exists():
        return 0.0
    lines = file.read_bytes().splitlines(keepends=True)
    length, last, seconds, end = 0, 0, 0.0, b""
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith((b"}", b"\n")):
            break
        last, so_far = _read(line, f"{file}, line {number}", last + 1)
        if last <= step:
            length, seconds, end = length + len(line), so_far, b"" if b"\n" in line else b"\n"
    with open(file, "r+b") as log:  # cut, not written again: a kill finds it whole at any moment
        log.truncate(length)
        log.seek(length)
        log.write(end)
    return seconds


def _read(line: bytes, where: str, least: int) -> tuple[int, float]:
    try:
        entry = Fields(where, parse_json(line, where))
        return entry.read("step", int, least=least), entry.read("seconds", float, least=0)
    except ValueError as error:
        got = shown(line.decode("utf-8", errors="replace"))
        raise broken(where, f"got {got}; expected an entry of a run's log from step {least} on",
                     "repair or remove this line, or the log: the run goes on without") from error
