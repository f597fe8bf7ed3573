"""One trial of a hyperparameter search: settings in, held-out losses out, always on equal terms.

Chapter 5.4 runs a few trials of this module live; `python tools/sweep.py` runs the long sweep and
stores its results in book/results/tuning.csv.
"""

import csv
import functools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gptlib.model.config import GPTConfig, require_number, require_switch
from gptlib.model.gpt import GPT
from gptlib.text import stories
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.tokenizers import CharTokenizer
from gptlib.training.config import SMALLEST_RATE, TrainConfig, require_whole
from gptlib.training.evaluation import evaluate_loss
from gptlib.training.loop import train
from gptlib.training.optim import AdamW

CONTEXT_LENGTH = 64
HELD_OUT = 24_576  # characters for choosing (validation), and as many others for reporting (test)
BASE_WIDTH = 64  # the width at which a rate "carried over" is the rate itself


@dataclass(frozen=True)
class Trial:
    """What one trial is made of. A budget of training tokens, not of steps, keeps trials equal."""

    learning_rate: float = 0.004  # peak rate of AdamW
    batch_size: int = 16  # windows of 64 characters in a step
    tokens: int = 102_400  # characters read in the whole training
    n_layer: int = 2
    n_embd: int = 64
    carried: bool = False  # divide the rate of the matrices by n_embd / 64 (the idea of muP)
    seed: int = 0  # of the first weights and of the batches

    def __post_init__(self) -> None:
        require_number("learning_rate", self.learning_rate, SMALLEST_RATE, 1.0)
        require_whole("batch_size", self.batch_size, 1, 2**20)
        require_whole("tokens", self.tokens, 1, 2**40)
        require_whole("n_layer", self.n_layer, 1, 1000)
        require_whole("n_embd", self.n_embd, 1, 2**16)
        require_switch("carried", self.carried)
        require_whole("seed", self.seed, 0, 2**63 - 1)

    @property
    def steps(self) -> int:
        """Optimizer steps: the budget over the tokens of a batch."""
        return max(1, round(self.tokens / (self.batch_size * CONTEXT_LENGTH)))

    @property
    def config(self) -> GPTConfig:
        """The shape: today's block on characters, two heads in every layer."""
        vocab_size = data()[0].vocab_size
        return GPTConfig.modern(vocab_size, CONTEXT_LENGTH, n_layer=self.n_layer, n_head=2,
                                n_embd=self.n_embd)


class Losses(NamedTuple):
    """Nats per character on the two held-out texts; infinite where the training broke off."""

    validation: float
    test: float


def equal_cost(trial: Trial, like: Trial = Trial()) -> Trial:
    """The trial with so many tokens that it costs as many operations, 6 N D, as `like`."""
    operations = like.tokens * like.config.num_parameters()
    return replace(trial, tokens=round(operations / trial.config.num_parameters()))


def suggest(ask: Any) -> Trial:
    """A trial of the long search: `ask` is an Optuna trial, which draws each value from its range.

    All of them cost the same, so a wide or deep model must do with less text.
    """
    return equal_cost(Trial(
        learning_rate=ask.suggest_float("learning_rate", 5e-4, 6.4e-2, log=True),
        batch_size=2 ** ask.suggest_int("log2_batch_size", 3, 6),
        n_layer=ask.suggest_int("n_layer", 1, 4),
        n_embd=ask.suggest_int("n_embd", 48, 128, step=16)))


@functools.lru_cache(maxsize=1)
def data() -> tuple[CharTokenizer, TokenDataset, TokenDataset, TokenDataset]:
    """Tokenizer, training, validation and test data: whole stories are held out."""
    found, held_out = stories.split(stories.stories())
    text, other = ("\n\n".join(story.text for story in part) for part in (found, held_out))
    tokenizer = CharTokenizer.train(text + other)
    ids = torch.tensor(tokenizer.encode(other))
    parts = torch.tensor(tokenizer.encode(text)), ids[:HELD_OUT], ids[HELD_OUT : 2 * HELD_OUT]
    return tokenizer, *(TokenDataset(part, CONTEXT_LENGTH) for part in parts)


def parameter_rates(model: GPT, trial: Trial) -> list[dict[str, Any]]:
    """Groups for AdamW. A carried rate is divided, for each matrix but the embedding, by how much
    wider the model is than `BASE_WIDTH`: Yang et al. (2022), the part that concerns Adam."""
    factor = BASE_WIDTH / trial.n_embd if trial.carried else 1.0
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [{"params": matrices, "lr": factor * trial.learning_rate},
            {"params": others, "lr": trial.learning_rate}]


def fit(trial: Trial) -> GPT:
    """Train a model as the trial says: warm-up over 5 % of the steps, then down to zero."""
    torch.manual_seed(trial.seed)
    model = GPT(trial.config)
    plan = TrainConfig(max_steps=trial.steps, warmup_steps=trial.steps // 20, schedule="linear")
    optimizer = AdamW(parameter_rates(model, trial))
    for _ in train(model, batches(data()[1], trial.batch_size, trial.seed), optimizer, plan):
        pass
    return model


def run(trial: Trial) -> Losses:
    """Train and measure. A training that diverges is a result, too: infinite losses."""
    try:
        model = fit(trial)
    except FloatingPointError:
        return Losses(math.inf, math.inf)
    return Losses(*(evaluate_loss(model, part) for part in data()[2:]))


def results_path() -> Path:
    """The stored results of the long sweep, in the repository or inside the installed package."""
    package = Path(__file__).parent.parent
    for folder in (package / "results", package.parent / "book" / "results"):
        if (folder / "tuning.csv").is_file():
            return folder / "tuning.csv"
    raise ValueError("book/results/tuning.csv is missing; make it with `python tools/sweep.py`")


def read_results(path: str | Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Header lines (command, versions, seeds) and rows of a results file, numbers as numbers."""
    with open(path, encoding="utf-8", newline="") as file:
        lines = file.read().splitlines()
    header = [line[1:].strip() for line in lines if line.startswith("#")]
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return header, [{key: _number(value) for key, value in row.items()} for row in rows]


def append_result(path: Path, columns: list[str], row: dict[str, Any], header: list[str]) -> None:
    """Add a row to a results file; a new file begins with the header lines and the columns."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            file.writelines(f"# {line}\n" for line in header)
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value
                         for key, value in row.items()})


def _number(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
