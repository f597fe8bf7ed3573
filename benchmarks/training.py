"""Learning speed: from scratch to the loss of the common small CPU recipe, and beyond it.

    python benchmarks/training.py

Everyone reads the same stories, letter by letter, with the same tenth held out, and is judged by
the loss over all of it. "The recipe" is the one that small GPTs on a CPU are usually trained with:
4 layers, 128 wide, a context of 64, batches of 12, 2,000 steps of AdamW from 1e-3 along a cosine
to 1e-4, GPT-2's block. Three tables: time to that loss; what each change does in 200 steps; and
the time of a step of the recipe's model with other programs' models and loops.
"""

import os
import statistics
import time
from dataclasses import dataclass, field

import torch
import transformers
import x_transformers
from measure import ratio, take_turns, write
from torch import Tensor, nn
from torch.nn import functional

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT, look_up
from gptlib.runtime import setup
from gptlib.text.corpora import load_text
from gptlib.text.datasets import TokenDataset, batches
from gptlib.text.tokenizers import CharTokenizer
from gptlib.training.config import TrainConfig
from gptlib.training.evaluation import evaluate_loss
from gptlib.training.loop import train
from gptlib.training.optim import AdamW, Muon, parameter_groups

CONTEXT, BATCH = 64, 12
COMMAND = "python benchmarks/training.py"


class WithPrevious(GPT):
    """A GPT whose embedding also takes in a share of the embedding of the character before.

    Copying the neighbour is what the first layer of attention would have to learn first; here a
    single trained number for each feature does it (compare token shift: Peng et al., 2023).
    """

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.share = nn.Parameter(torch.full((config.n_embd,), 0.5))

    def embed(self, ids: Tensor, start: int = 0) -> Tensor:
        """ids (B, T) to vectors (B, T, C); nothing stands before the window."""
        x = super().embed(ids, start)
        return x + self.share * functional.pad(x, (0, 0, 1, 0))[:, :-1]


class WithTables(GPT):
    """A GPT that also looks up the last two and the last three characters in tables.

    A pair or a triple of characters is then a letter of its own, learned by counting more than
    by computing: a memory of n-grams, almost free of multiplications. Triples share `ROWS` rows
    by hashing (compare hash embeddings: Svenstrup et al., 2017).
    """

    ROWS, PRIME = 16384, 1_000_003

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.pairs = nn.Embedding(config.vocab_size**2, config.n_embd)
        self.triples = nn.Embedding(self.ROWS, config.n_embd)
        for table in (self.pairs, self.triples):
            nn.init.normal_(table.weight, std=0.02)

    def embed(self, ids: Tensor, start: int = 0) -> Tensor:
        """ids (B, T) to vectors (B, T, C); before the window stands id 0."""
        V = self.config.vocab_size
        one_back, two_back = (functional.pad(ids, (n, 0))[:, :-n] for n in (1, 2))
        pairs = one_back * V + ids
        triples = (two_back * V * V + pairs) * self.PRIME % 2**31 % self.ROWS
        return (super().embed(ids, start) + look_up(self.pairs, pairs)
                + look_up(self.triples, triples))


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; the defaults are those of the common recipe."""

    steps: int = 2000
    modern: bool = False
    shape: dict = field(default_factory=lambda: dict(n_layer=4, n_head=4, n_embd=128))
    muon: float | None = None  # its learning rate, for the matrices inside the blocks
    rate: float = 1e-3  # AdamW's
    kind: type[GPT] = GPT
    decay: float = 1.0  # last part of the run, in which the rate falls

    def model(self, V: int) -> GPT:
        """A fresh model for V characters."""
        make = GPTConfig.modern if self.modern else GPTConfig
        torch.manual_seed(0)
        return self.kind(make(V, CONTEXT, **self.shape))

    def optimizer(self, model: GPT) -> torch.optim.Optimizer:
        """AdamW, or Muon with AdamW beside it."""
        if self.muon is None:
            return AdamW(parameter_groups(model, weight_decay=0.1), self.rate, (0.9, 0.99))
        groups = parameter_groups(model, weight_decay=0.0, muon=True)
        return Muon(groups, self.muon, adamw_lr=self.rate)

    def config(self) -> TrainConfig:
        """A cosine to a tenth for AdamW, a line to zero for Muon."""
        if self.muon is None:
            return TrainConfig(self.steps, schedule="cosine", final_fraction=0.1, warmup_steps=100)
        return TrainConfig(self.steps, schedule="linear", decay_fraction=self.decay)


ONE = dict(n_layer=1, n_head=2, n_embd=64)
RECIPES = {
    "the recipe": Recipe(),
    "without tables": Recipe(330, True, dict(n_layer=1, n_head=2, n_embd=96), muon=0.02,
                             rate=0.02, kind=WithPrevious),
    "with n-gram tables": Recipe(220, True, ONE, muon=0.03, rate=0.02, kind=WithTables),
    "the recipe's time": Recipe(2400, True, dict(n_layer=2, n_head=4, n_embd=128), muon=0.02,
                                rate=0.01, decay=0.8, kind=WithPrevious),
}
SHORT = {  # each row adds one change to the row above
    "the recipe": Recipe(200),
    "today's block, AdamW at 6e-3": Recipe(200, True, rate=6e-3),
    "Muon for the blocks": Recipe(200, True, muon=0.02, rate=6e-3),
    "one layer": Recipe(200, True, dict(n_layer=1, n_head=4, n_embd=128), muon=0.02, rate=6e-3),
    "half as wide": Recipe(200, True, ONE, muon=0.02, rate=6e-3),
    "rates of 0.03 and 0.02": Recipe(200, True, ONE, muon=0.03, rate=0.02),
    "the character before": Recipe(200, True, ONE, muon=0.03, rate=0.02, kind=WithPrevious),
    "n-gram tables, in its place": Recipe(200, True, ONE, muon=0.03, rate=0.02, kind=WithTables),
}


def main() -> None:
    """Measure the three tables."""
    setup(0, int(os.environ.get("GPTLIB_THREADS", "2")))
    transformers.logging.set_verbosity_error()
    text = load_text("stories")
    tokenizer = CharTokenizer.train(text)
    data, held_out = TokenDataset.from_text(text, tokenizer, CONTEXT).split(0.9)
    V = tokenizer.vocab_size
    single_steps(data, V)
    changes(data, held_out, V)
    to_the_recipes_loss(data, held_out, V)


def learn(recipe: Recipe, data: TokenDataset, V: int) -> tuple[GPT, float]:
    """Train; the model and the seconds from the making of the model to the last step."""
    began = time.perf_counter()
    model = recipe.model(V)
    for _ in train(model, batches(data, BATCH), recipe.optimizer(model), recipe.config()):
        pass
    return model, time.perf_counter() - began


def to_the_recipes_loss(data: TokenDataset, held_out: TokenDataset, V: int) -> None:
    """The first table: seconds and held-out loss of whole runs, in turn."""
    losses, rows, facts = {}, [], {"shares": f"{RECIPES['without tables'].shape['n_embd']}"}

    def work(name: str) -> float:
        model, seconds = learn(RECIPES[name], data, V)
        losses[name] = evaluate_loss(model, held_out, batch_size=64)
        return seconds

    chosen = {name: (lambda name=name: work(name)) for name in RECIPES}
    times = take_turns(chosen, rounds=2, warm_up=False)  # a round takes five minutes
    for name, recipe in RECIPES.items():
        seconds, gain = statistics.median(times[name]), ratio(times, "the recipe", name)
        difference = losses[name] - losses["the recipe"]
        size = recipe.model(V).num_parameters()
        gain = f"{gain:.1f}" if difference <= 0 else "loss not reached"
        rows.append([name, f"{size:,}", recipe.steps, f"{seconds:.1f}", f"{losses[name]:.3f}",
                     f"{difference:+.3f}", gain])
        facts |= {f"{name}, loss": f"{losses[name]:.2f}", f"{name}, times": gain,
                  f"{name}, seconds": f"{seconds:.1f}", f"{name}, difference": f"{difference:+.2f}"}
    write("training", command=COMMAND, rows=rows, facts=facts, columns=[
        "run", "parameters", "steps", "seconds", "held-out loss in nats", "difference",
        "times faster than the recipe"])


def changes(data: TokenDataset, held_out: TokenDataset, V: int) -> None:
    """The second table: what each change does to the loss and the time of 200 steps."""
    rows, facts = [], {}
    for name, recipe in SHORT.items():
        model, seconds = learn(recipe, data, V)
        loss = evaluate_loss(model, held_out, batch_size=64)
        rows.append([name, f"{loss:.3f}", f"{seconds / recipe.steps * 1e3:.1f}"])
        facts[f"{name}, loss"] = f"{loss:.2f}"
    write("changes", command=COMMAND, rows=rows, facts=facts,
          columns=["change", "loss after 200 steps", "milliseconds a step"])


def single_steps(data: TokenDataset, V: int) -> None:
    """The third table: 30 steps of the recipe's model in five programs, in turn."""
    shape, recipe = dict(n_layer=4, n_head=4, n_embd=128), Recipe(steps=30)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=V, n_positions=CONTEXT, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0, **shape))
    other = x_transformers.TransformerWrapper(
        num_tokens=V, max_seq_len=CONTEXT,
        attn_layers=x_transformers.Decoder(dim=128, depth=4, heads=4, attn_dim_head=32,
                                           attn_flash=True))
    ours = GPT(GPTConfig(V, CONTEXT, **shape))
    fused = torch.optim.AdamW(ours.parameters(), 1e-3, fused=True)

    def loop(optimizer: torch.optim.Optimizer) -> None:
        for _ in train(ours, batches(data, BATCH), optimizer, recipe.config()):
            pass

    competitors = {
        "plain loop, this book's model": lambda: plain_loop(ours, data, recipe.steps),
        "plain loop, Transformers": lambda: plain_loop(
            lambda x: theirs(x, use_cache=False).logits, data, recipe.steps, theirs),
        "plain loop, x-transformers": lambda: plain_loop(other, data, recipe.steps),
        "gptlib.training.loop.train": lambda: loop(recipe.optimizer(ours)),
        "train, PyTorch's fused AdamW": lambda: loop(fused)}
    times, rows, facts = take_turns(competitors, rounds=7), [], {}
    for name, seconds in times.items():
        gain = ratio(times, name, "gptlib.training.loop.train")
        rows.append([name, f"{statistics.median(seconds) / recipe.steps * 1e3:.1f}", f"{gain:.2f}"])
        facts[name] = f"{gain:.2f}"
    write("steps", command=COMMAND, rows=rows, facts=facts,
          packages=("transformers", "x-transformers"),
          columns=["loop and model", "milliseconds a step", "times gptlib.training.loop.train"])


def plain_loop(model, data: TokenDataset, steps: int, module: nn.Module | None = None) -> None:
    """The loop of most tutorials: a stack of slices, cross-entropy, clipping, PyTorch's AdamW."""
    module = module or model
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(steps):
        starts = torch.randint(len(data), (BATCH,))
        x = torch.stack([data.ids[i:i + CONTEXT] for i in starts])
        y = torch.stack([data.ids[i + 1:i + 1 + CONTEXT] for i in starts])
        loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        loss.item()


if __name__ == "__main__":
    main()
