"""Configurations: frozen dataclasses that check themselves and refuse unknown keys by name."""

import dataclasses
import difflib
from typing import Self, TypeVar

Config = TypeVar("Config")


def read_fields(cls: type[Config], values: dict) -> Config:
    """Build a configuration from a dict (say, of a JSON file); an unknown key is an error."""
    known = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(known)}"
            raise ValueError(f"unknown key {key!r} for {cls.__name__}{hint}")
    return cls(**values)


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with `message` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError unless the field `name` has one of the values `choices`."""
    require(value in choices, f"{name} is {value!r}; expected one of {', '.join(choices)}")


def require_count(name: str, value: int, least: int = 1) -> None:
    """Raise a ValueError unless the field `name` is a whole number of at least `least`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    valid = whole and value >= least
    require(valid, f"{name} is {value!r}; expected a whole number, {least} or more")


def require_number(name: str, value: float, least: float, most: float) -> None:
    """Raise a ValueError unless the field `name` has a number from `least` to `most`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    require(number and least <= value <= most,  # which NaN fails
            f"{name} is {value!r}; expected a number from {least:g} to {most:g}")


def require_switch(name: str, value: bool) -> None:
    """Raise a ValueError unless the field `name` is True or False (and not, say, "false")."""
    require(isinstance(value, bool), f"{name} is {value!r}; expected True or False")


# name: (n_layer, n_head, n_embd), Radford et al. (2019), table 2, and the released weights
_GPT2_SHAPES = {
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT. The defaults are GPT-2's block at a size that trains on a laptop."""

    vocab_size: int  # V: number of tokens
    context_length: int = 256  # longest sequence the model can read
    n_layer: int = 4  # L: number of blocks
    n_head: int = 4  # H: attention heads (of the queries)
    n_embd: int = 128  # C: width of the residual stream
    n_kv_head: int | None = None  # heads of keys and values; None: as many as n_head
    mlp_hidden: int | None = None  # width inside the feed-forward network; None: 4 C
    position: str = "learned"  # "learned" (GPT-2) or "rope" (Su et al., 2021)
    rope_base: float = 10_000.0  # slowest wavelength of the rotary positions, over 2 pi
    norm: str = "layernorm"  # "layernorm" (GPT-2) or "rmsnorm" (Zhang and Sennrich, 2019)
    norm_eps: float = 1e-5  # added to the variance inside the norm
    activation: str = "gelu"  # "gelu" (GPT-2's tanh form), "relu2" (So et al., 2021), "swiglu"
    qk_norm: bool = False  # normalise queries and keys (Henry et al., 2020), no parameters
    bias: bool = True  # biases in linear layers and layer norms
    tie_weights: bool = True  # the output layer is the embedding table again
    zero_init: bool = False  # output projections of attention and MLP start at zero, not small
    dropout: float = 0.0  # probability of zeroing an activation during training

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "n_layer", "n_head", "n_embd"):
            require_count(name, getattr(self, name))
        for name in ("n_kv_head", "mlp_hidden"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        for name in ("qk_norm", "bias", "tie_weights", "zero_init"):
            require_switch(name, getattr(self, name))
        require_number("rope_base", self.rope_base, 1, 1e30)
        require_number("norm_eps", self.norm_eps, 1e-30, 1)
        require_number("dropout", self.dropout, 0, 1)
        require_choice("position", self.position, ("learned", "rope"))
        require_choice("norm", self.norm, ("layernorm", "rmsnorm"))
        require_choice("activation", self.activation, ("gelu", "relu2", "swiglu"))
        require(
            self.n_embd % self.n_head == 0,
            f"n_embd is {self.n_embd} and n_head is {self.n_head}; n_embd must be a multiple of "
            f"n_head, because each head takes an equal share of the width",
        )
        require(
            self.n_head % self.kv_heads == 0,
            f"n_head is {self.n_head} and n_kv_head is {self.kv_heads}; n_head must be a multiple "
            f"of n_kv_head, because each key-value head serves an equal group of query heads",
        )
        require(
            self.position != "rope" or self.head_dim % 2 == 0,
            f"head_dim is {self.head_dim}; rotary positions turn pairs of features, so n_embd / "
            f"n_head must be even",
        )
        require(self.dropout < 1, f"dropout is {self.dropout}; expected 0 <= dropout < 1")

    @property
    def head_dim(self) -> int:
        """D: features of one head."""
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, with None resolved."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def hidden(self) -> int:
        """Width inside the feed-forward network, with None resolved."""
        return 4 * self.n_embd if self.mlp_hidden is None else self.mlp_hidden

    def num_parameters(self) -> int:
        """Number of trained numbers in `GPT(self)`, by arithmetic: nothing is allocated."""
        C, one = self.n_embd, int(self.bias)
        norm = C * (2 if self.norm == "layernorm" and self.bias else 1)
        query, key_value = C, self.kv_heads * self.head_dim
        attention = C * (query + 2 * key_value) + one * (query + 2 * key_value) + C * C + one * C
        matrices_up = 2 if self.activation == "swiglu" else 1
        mlp = matrices_up * (C + one) * self.hidden + (self.hidden + one) * C
        embeddings = self.vocab_size * C * (1 if self.tie_weights else 2)
        positions = self.context_length * C if self.position == "learned" else 0
        return embeddings + positions + self.n_layer * (2 * norm + attention + mlp) + norm

    @classmethod
    def gpt2(cls, name: str = "gpt2") -> Self:
        """The published shapes: gpt2 (124 M), gpt2-medium, gpt2-large, gpt2-xl (1.5 billion)."""
        require_choice("name", name, tuple(_GPT2_SHAPES))
        n_layer, n_head, n_embd = _GPT2_SHAPES[name]
        return cls(50257, 1024, n_layer, n_head, n_embd)

    @classmethod
    def modern(cls, vocab_size: int, context_length: int = 256, **changes) -> Self:
        """Today's block: rotary positions, RMSNorm, normalised queries and keys, squared ReLU,
        no biases, an output layer of its own, output projections that start at zero."""
        block = dict(position="rope", norm="rmsnorm", activation="relu2", qk_norm=True,
                     bias=False, tie_weights=False, zero_init=True)
        return cls(vocab_size, context_length, **(block | changes))

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """The inverse of `to_dict`; an unknown key raises a ValueError that names it."""
        return read_fields(cls, values)

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)
