"""Kill `python -m gptlib train` at chosen moments, let it go on, and compare the end.

`test_main_killed.py` does it at a few moments; this does it at as many as you like, and counts:

    python tests/killing.py 200

A moment is a file operation in the run's folder (before it, or in the middle of a write), a step of
the optimizer (before or after it), or a time. The process is a fork of one that has read PyTorch
already, so a try costs a fraction of a second; a few are killed as commands of their own.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
TARGETS = ("folder", "link", "dot", "mount")
SETTINGS = ("--tokenizer byte --context-length 8 --n-layer 1 --n-head 2 --n-embd 16 --batch-size 2 "
            "--dropout 0.1 --max-steps 12 --evaluate-every 5 --checkpoint-every 4").split()


class Moment(NamedTuple):
    """When a run is killed: at operation `number` of it, which is part of `phase`."""

    number: int
    phase: str  # start, step, save or swap
    what: str


class Operations:
    """Counts what a run does from here on, in this process, and kills it at operation `last`."""

    def __init__(self, place: "Place", folder: Path, last: int | None) -> None:
        self.folder, self.last, self.phase = os.path.realpath(folder), last, "start"
        self.text = os.path.realpath(place.folder / "text.txt")
        self.moments: list[Moment] = []
        self.looking = True

    def note(self, what: str) -> None:
        """One operation is about to happen."""
        self.moments.append(Moment(len(self.moments), self.phase, what))
        if len(self.moments) - 1 == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Watch files through Python's audit events, and what these do not tell."""
        from torch.optim import optimizer

        from gptlib.formats import checkpoint
        from gptlib.training import run_log

        sys.addaudithook(self.audit)
        optimizer.register_optimizer_step_pre_hook(lambda own, *_: self.step(own, "before"))
        optimizer.register_optimizer_step_post_hook(lambda own, *_: self.step(own, "after"))
        fsync, save_file, append = os.fsync, checkpoint.save_file, run_log.append

        def noted_fsync(descriptor: int) -> None:
            self.note("fsync")
            fsync(descriptor)

        def torn_save_file(tensors: dict, file: Path, **options: object) -> None:
            save_file(tensors, file, **options)
            self.torn(file, 0, f"half of {Path(file).name}")

        def torn_append(folder: Path, *arguments: object) -> None:
            log = folder / run_log.NAME
            before = log.stat().st_size if log.exists() else 0
            append(folder, *arguments)
            self.torn(log, before, "half a line of the log")

        os.fsync, checkpoint.save_file, run_log.append = noted_fsync, torn_save_file, torn_append

    def torn(self, file: Path, before: int, what: str) -> None:
        """A moment at which only a half of what was just written is there."""
        if len(self.moments) == self.last:
            os.truncate(file, (before + os.path.getsize(file)) // 2)
        self.note(what)

    def step(self, optimizer: object, when: str) -> None:
        """A step of the optimizer: of the run itself, not one that only asks for shapes."""
        if not optimizer.param_groups[0]["params"][0].is_meta:
            self.phase = "step"
            self.note(f"{when} a step")

    def audit(self, event: str, arguments: tuple) -> None:
        """An audit event of Python; only those of the text and the run's folder count."""
        if not self.looking or event not in FILE_EVENTS:
            return
        path = arguments[1 if event == "os.rename" else 0]
        if not isinstance(path, str | os.PathLike):
            return
        self.looking = False
        path = os.path.realpath(path)
        self.looking = True
        if not path.startswith((self.folder, self.text)):
            return
        name = os.path.basename(path)
        if name == ".writing" and event == "os.mkdir":
            self.phase = "save"
        elif name == "log.jsonl":
            self.phase = "step"
        self.note(f"{event} {name}")
        if event == "os.rename" and name == ".ready":
            self.phase = "swap"


class Place:
    """A folder with a text in it, and in it the places where runs are made."""

    def __init__(self, folder: Path, can_mount: bool) -> None:
        self.folder = folder
        self.targets = TARGETS if can_mount else TARGETS[:3]
        draw = random.Random(0)
        words = [draw.choice("red blue green old new small big".split()) for _ in range(600)]
        (folder / "text.txt").write_text(" ".join(words), encoding="utf-8")
        self.command = ["train", "--corpus", str(folder / "text.txt"), *SETTINGS]

    def empty(self, target: str) -> tuple[Path, str]:
        """The folder in which a command is started, and its --out: a place without a run."""
        run = self.folder / ("mounted" if target == "mount" else "run")
        for file in run.iterdir() if target == "mount" else [run]:
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        if target == "link":
            run.mkdir()
            (self.folder / "link").unlink(missing_ok=True)
            (self.folder / "link").symlink_to("run")
        elif target == "dot":
            run.mkdir()
            return run, "."
        return self.folder, {"link": "link", "mount": "mounted"}.get(target, "run")


class Result(NamedTuple):
    """How a command ended."""

    killed: bool
    code: int
    errors: str


def content(folder: Path) -> dict[str, bytes]:
    """All files of a run, those in folders too; of the log without its seconds."""
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*")
             if file.is_file()}
    files["log.jsonl"] = re.sub(rb', "seconds": [\d.]+', b"", files.get("log.jsonl", b""))
    return files | {f"{each.relative_to(folder)}/": b"" for each in folder.rglob("*")
                    if each.is_dir()}


def forked(cwd: Path, arguments: list[str], place: Path, act: Callable[[], None] = lambda: None,
           after: float | None = None) -> Result:
    """Run the command in a fork of this process; `act` is done there first. Killed `after`
    seconds, if these are given."""
    from gptlib import __main__

    errors = place / "errors.txt"
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.chdir(cwd)
            sys.stdout = open(os.devnull, "w", encoding="utf-8")
            sys.stderr = open(errors, "w", encoding="utf-8")
            sys.argv = ["gptlib", *arguments]
            act()
            __main__.main()
        except SystemExit as exit:
            code = exit.code or 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    return Result(killed, 0 if killed else os.WEXITSTATUS(status),
                  errors.read_text(encoding="utf-8") if errors.exists() else "")


def read_pytorch() -> None:
    """Import all that a run imports, and nothing that starts a thread, before the first fork."""
    import torch
    import torch._dynamo  # optimizers ask for it when their state is read  # noqa: F401

    from gptlib import __main__  # noqa: F401

    torch.set_num_threads(1)


def record(place: Place) -> tuple[list[Moment], dict[str, bytes], float]:
    """The moments of a run that is not cut, what it leaves, and its seconds."""
    cwd, out = place.empty("folder")
    listed = place.folder / "moments.txt"

    def act() -> None:
        operations = Operations(place, cwd / out, None)
        operations.install()
        import gptlib.__main__ as command

        main = command.main

        def told() -> None:
            try:
                main()
            finally:
                operations.looking = False
                listed.write_text("\n".join("\t".join(map(str, each))
                                            for each in operations.moments), encoding="utf-8")

        command.main = told

    began = time.perf_counter()
    result = forked(cwd, [*place.command, "--out", out], place.folder, act)
    seconds = time.perf_counter() - began
    assert result.code == 0, result.errors
    rows = (line.split("\t") for line in listed.read_text(encoding="utf-8").splitlines())
    return ([Moment(int(number), phase, what) for number, phase, what in rows],
            content(cwd / out), seconds)


def go_on(place: Place, cwd: Path, out: str) -> None:
    """What a user does after a kill: --resume, or the command again where nothing was saved."""
    result = forked(cwd, ["train", "--resume", "--out", out], place.folder)
    if result.code == 1 and "there is no checkpoint" in result.errors:
        result = forked(cwd, [*place.command, "--out", out], place.folder)
    assert result.code == 0, f"{out} in {cwd}: {result.errors}"


def kill(place: Place, target: str, expected: dict[str, bytes], moment: Moment | None,
         after: float | None = None, again: int | None = None) -> tuple[bool, bool]:
    """One try: killed at a moment or after some seconds, perhaps as it goes on, too, at operation
    `again`, and then led to its end. Returns whether the first and the second time did kill; a
    wrong end is an AssertionError."""
    cwd, out = place.empty(target)

    def at(number: int | None) -> Callable[[], None]:
        return Operations(place, cwd / out, number).install

    first = forked(cwd, [*place.command, "--out", out], place.folder,
                   at(moment and moment.number), after)
    assert first.killed or first.code == 0, first.errors
    second = False
    if again is not None:
        resume = ["train", "--resume", "--out", out]
        second = forked(cwd, resume, place.folder, at(again)).killed
    go_on(place, cwd, out)
    found = content(cwd / out)
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    assert not wrong, f"{target}, {moment or after}: {', '.join(wrong)} differ from the uncut run"
    return first.killed, second


def kill_command(place: Place, target: str, expected: dict[str, bytes], after: float) -> bool:
    """The same with a command of its own, started as a user does, and killed after some seconds."""
    cwd, out = place.empty(target)
    process = subprocess.Popen([sys.executable, "-m", "gptlib", *place.command, "--out", out],
                               cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after)
    process.kill()
    killed = process.wait() == -signal.SIGKILL
    go_on(place, cwd, out)
    assert content(cwd / out) == expected, f"{target}, killed after {after:.2f} s"
    return killed


def spread(moments: list[Moment], count: int) -> list[Moment]:
    """`count` moments, as many of each phase as there are, evenly; one may come more than once."""
    phases = {phase: [each for each in moments if each.phase == phase]
              for phase in dict.fromkeys(each.phase for each in moments)}
    chosen = []
    for number in range(count):
        own = list(phases.values())[number % len(phases)]
        of_phase, turn = -(-count // len(phases)), number // len(phases)
        chosen.append(own[turn * len(own) // of_phase % len(own)])
    return chosen


@contextlib.contextmanager
def places() -> Iterator[Place]:
    """A place for runs, with a file system mounted in it where this user may do that."""
    with tempfile.TemporaryDirectory(prefix="killed-") as name:
        folder = Path(name).resolve()
        (folder / "mounted").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder / "mounted")]
        try:
            mounted = subprocess.run(mount, capture_output=True).returncode == 0
        except OSError:
            mounted = False
        try:
            yield Place(folder, mounted)
        finally:
            if mounted:
                subprocess.run(["umount", "-l", str(folder / "mounted")], check=True)


def main(count: int) -> None:
    """Kill `count` times: three quarters at moments, the rest after random times."""
    read_pytorch()
    draw, killed, twice = random.Random(0), Counter(), 0
    with places() as place:
        moments, expected, seconds = record(place)
        print(f"an uncut run has {len(moments)} operations and takes {seconds:.2f} s;",
              f"targets: {', '.join(place.targets)}")
        at_moments = spread(moments, count * 3 // 4)
        for number in range(count):
            target = place.targets[(number + number // 4) % len(place.targets)]
            again = draw.randrange(len(moments) // 2) if number % 3 == 2 else None
            if number < len(at_moments):
                name = at_moments[number].phase
                first, second = kill(place, target, expected, at_moments[number], again=again)
                assert first
            elif number % 10:
                name, after = "a time", draw.uniform(0, seconds)
                first, second = kill(place, target, expected, None, after, again)
            else:
                name, after, second = "a command", draw.uniform(0, 4 + 2 * seconds), False
                first = kill_command(place, target, expected, after)
            while not first:  # this run was quicker: earlier, then
                after /= 2
                first, second = kill(place, target, expected, None, after, again)
            killed[name, target] += 1
            twice += second
    for phase in dict.fromkeys(phase for phase, _ in killed):
        row = {target: killed[phase, target] for target in TARGETS}
        print(f"{phase:10} {sum(row.values()):4}  {row}")
    print(f"{killed.total()} runs, {twice} of them killed twice; all ended as the uncut run did")


if __name__ == "__main__":
    main(int(sys.argv[1]))
