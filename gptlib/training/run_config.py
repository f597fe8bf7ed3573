"""The settings of a whole run, checked when they are made: `python -m gptlib train`'s options."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

import torch

from gptlib.model.config import GPTConfig, read_fields, require, require_choice, require_number
from gptlib.runtime import memory
from gptlib.training.config import MOST_STEPS, SMALLEST_RATE, TrainConfig, require_whole

EMBEDDING_STD = 0.02  # with which `GPT` begins, as GPT-2 did


def _choice(default: str, help: str, *choices: str) -> Any:
    return field(default=default, metadata={"help": help, "choices": choices})


def _number(default: float, help: str, least: float, most: float) -> Any:
    return field(default=default, metadata={"help": help, "range": (least, most)})


@dataclass(frozen=True)
class RunConfig:
    """All that decides the outcome of a run. It is stored with the checkpoint, for resuming.

    The help texts are those of `python -m gptlib train --help`. A value outside of a field's
    range or choices raises ValueError; the upper ends are far beyond what is useful.
    """

    corpus: tuple[str, ...] = field(default=(), metadata={
        "help": "A corpus, a text file or a folder; repeat it to join several. A tenth of the "
                "first is held out."})
    tokenizer: str = _choice("bpe", "bpe, byte or char.", "bpe", "byte", "char")
    vocab_size: int = _number(4096, "Tokens of the BPE.", 257, 2**20)
    block: str = _choice("modern", "modern (GPTConfig.modern) or gpt2.", "modern", "gpt2")
    context_length: int = _number(256, "Tokens that the model can read.", 1, 2**20)
    n_layer: int = _number(4, "Blocks.", 1, 1000)
    n_head: int = _number(4, "Attention heads.", 1, 2**16)
    n_embd: int = _number(128, "Width of the residual stream.", 1, 2**16)
    embedding_std: float = _number(EMBEDDING_STD, "Deviation of the embeddings before training.",
                                   1e-6, 100)
    dropout: float = _number(0.0, "Share of activations set to zero.", 0.0, 0.99)
    optimizer: str = _choice("muon", "muon (AdamW beside the blocks' matrices) or adamw.",
                             "muon", "adamw")
    learning_rate: float = _number(3e-3, "Of AdamW.", SMALLEST_RATE, 1.0)
    muon_learning_rate: float = _number(0.02, "Of Muon.", SMALLEST_RATE, 1.0)
    weight_decay: float = _number(0.1, "Of all matrices.", 0.0, 1000.0)
    schedule: str = _choice("linear", "Decay: constant, linear or cosine.",
                            "constant", "linear", "cosine")
    warmup_steps: int = _number(20, "Steps over which the rate rises.", 0, MOST_STEPS)
    decay_fraction: float = _number(1.0, "Last part of the run, in which the rate decays.",
                                    0.0, 1.0)
    windows: str = _choice("anywhere", "Where a window begins: anywhere, or at documents.",
                           "anywhere", "documents")
    batch_size: int = _number(16, "Windows in a step.", 1, 2**20)
    max_steps: int = _number(500, "Optimizer steps in the whole run.", 1, MOST_STEPS)
    precision: str = _choice("float32", "float32, bfloat16 or float16.",
                             "float32", "bfloat16", "float16")
    seed: int = _number(0, "Of weights, dropout and batches.", 0, 2**63 - 1)
    evaluate_every: int = _number(100, "Steps between two held-out losses.", 1, MOST_STEPS)
    checkpoint_every: int = _number(100, "Steps between two checkpoints.", 1, MOST_STEPS)

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            name, value = setting.name, getattr(self, setting.name)
            if "choices" in setting.metadata:
                require_choice(name, value, setting.metadata["choices"])
            elif "range" in setting.metadata:
                check = require_whole if setting.type is int else require_number
                check(name, value, *setting.metadata["range"])
        require(isinstance(self.corpus, tuple), f"corpus is {self.corpus!r}; expected a tuple of "
                                                f"names of corpora and paths")
        require(self.corpus != (), "no corpus is named; expected at least one, such as "
                                   "'stories', or the path of a text file")
        for name in self.corpus:
            require(isinstance(name, str) and name != "",
                    f"corpus is {name!r}; expected the name of a corpus or a path")
        require(self.windows == "anywhere" or self.tokenizer != "char",
                "windows is 'documents' with tokenizer 'char', which has no token that ends a "
                "document; expected bpe or byte")
        self.model_config(self.vocab_size)  # its rules tie fields together
        rate = max(self.learning_rate, self.muon_learning_rate if self.optimizer == "muon" else 0)
        require(rate * self.weight_decay <= 1,
                f"weight_decay is {self.weight_decay} with a learning rate of {rate}; expected a "
                f"product of at most 1, or the decay turns the weights' signs round")

    def model_config(self, vocab_size: int) -> GPTConfig:
        """The shape of the model for a tokenizer of `vocab_size` tokens."""
        make = GPTConfig.modern if self.block == "modern" else GPTConfig
        return make(vocab_size, self.context_length, n_layer=self.n_layer, n_head=self.n_head,
                    n_embd=self.n_embd, dropout=self.dropout)

    def train_config(self, shard: bool = False) -> TrainConfig:
        """The settings of the loop; `shard` splits the model over several processes."""
        return TrainConfig(
            max_steps=self.max_steps, warmup_steps=self.warmup_steps, schedule=self.schedule,
            decay_fraction=self.decay_fraction, precision=self.precision, shard=shard)

    def require_machine(self, device: torch.device, processes: int, shard: bool) -> None:
        """Raise a ValueError for what cannot work on this device, or in so many processes.

        The memory is estimated from below: 16 bytes a parameter for weights, gradients and the
        optimizer's two averages, and the largest of what a step keeps for its backward pass.
        """
        require(self.batch_size % processes == 0,
                f"batch_size is {self.batch_size} for {processes} processes; expected a multiple, "
                f"so that each gets as many windows")
        require(not shard or self.optimizer != "muon",
                "optimizer is 'muon', which needs whole matrices; expected 'adamw' for a sharded "
                "model (--optimizer adamw)")
        self.train_config(shard).require_machine(device.type, processes)
        shape = self.model_config(self.vocab_size if self.tokenizer == "bpe" else 257)
        B, T, V = self.batch_size // processes, self.context_length, shape.vocab_size
        least = 16 * shape.num_parameters() / (processes if shard else 1)
        least += B * T * (8 * V + 20 * self.n_layer * self.n_embd)
        there = memory(device)
        require(there is None or least <= there,
                f"a model of {shape.num_parameters():,} parameters on batches of {B} x {T} tokens "
                f"needs more than {least / 1e9:,.1f} GB, and there are {(there or 0) / 1e9:,.1f} "
                f"GB: take a smaller n_embd, n_layer, vocab_size, context_length or batch_size")

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """The inverse of `dataclasses.asdict`, from JSON. A ValueError names what is unknown,
        missing or of another kind: with a default in its place it would be another run."""
        require(isinstance(values, dict), f"the settings of the run are {values!r:.60}; expected "
                                          f"an object with a value for each setting")
        names = values.get("corpus")
        corpus = tuple(names) if isinstance(names, list) else names
        config = read_fields(cls, values | {"corpus": corpus})
        missing = [each.name for each in dataclasses.fields(cls) if each.name not in values]
        require(not missing, f"the settings of the run lack {', '.join(missing)}; expected a value "
                             f"for each")
        return config
