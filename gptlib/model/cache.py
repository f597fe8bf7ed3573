"""The key-value cache: what attention has already computed for earlier tokens of a sequence."""

import copy
from collections.abc import Sequence

import numpy as np
import torch

from gptlib.model.config import GPTConfig


class KVCache:
    """Keys and values of all layers, so that each token passes through the model only once.

    One object serves the whole model: each layer calls `append`, then the model calls `advance`
    once. Memory is reserved at the start (`capacity` positions), so a step writes and never grows.
    No gradient flows through the cache. Explained by Pope et al. (2022), arXiv:2211.05102.
    """

    def __init__(self, config: GPTConfig, batch_size: int = 1,
                 dtype: torch.dtype | None = None, device: torch.device | str | None = None):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected 1 or more sequences")
        self.capacity = config.context_length
        self.length = 0
        shape = (batch_size, config.kv_heads, self.capacity, config.head_dim)
        with torch.inference_mode(False):  # so that the cache can be written in any mode later
            layers = range(config.n_layer)
            self._keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
            self._values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]

    @property
    def batch_size(self) -> int:
        """B: sequences that the cache holds side by side."""
        return self._keys[0].shape[0]

    def append(self, layer: int, keys: torch.Tensor,
               values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values (B, H_kv, T, D) behind the present length.

        Returns all keys and all values (B, H_kv, S, D) with S = length + T: views, not copies.
        """
        T = keys.shape[2]
        end = self.length + T
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.length} positions and got {T} more; its "
                             f"capacity is {self.capacity}: crop it or start a new one")
        if keys.shape[0] != self.batch_size:
            raise ValueError(f"the cache was made for batch_size {self.batch_size} and got "
                             f"{keys.shape[0]} sequences: make a KVCache with that batch_size")
        all_keys, all_values = self._keys[layer], self._values[layer]
        if keys.requires_grad:
            keys, values = keys.detach(), values.detach()
        all_keys.narrow(2, self.length, T).copy_(keys)
        all_values.narrow(2, self.length, T).copy_(values)
        return all_keys.narrow(2, 0, end), all_values.narrow(2, 0, end)

    def arrays(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """All keys and values of a cache of one row on the CPU, (H_kv, capacity, D) in NumPy: the
        same memory, to read from and to write to."""
        return self._keys[layer].numpy()[0], self._values[layer].numpy()[0]

    def advance(self, count: int) -> None:
        """Make `count` appended positions part of the past; called once a forward pass."""
        self.length += count

    def crop(self, length: int) -> None:
        """Forget everything after the first `length` positions (speculative decoding needs it)."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot crop to {length}: the cache holds {self.length} positions")
        self.length = length

    def reset(self) -> None:
        """Forget everything; the memory is kept and used again."""
        self.length = 0

    def shift(self, by: int) -> None:
        """Move all that is held to the right by `by` positions, or to the left if that is negative.

        On the right the `by` first positions become filling, for the model's `padding` to hide; on
        the left the first -by positions are forgotten.
        """
        if not -self.length <= by <= self.capacity - self.length:
            raise ValueError(f"cannot shift by {by}: the cache holds {self.length} of "
                             f"{self.capacity} positions")
        first, count = max(0, -by), self.length - max(0, -by)
        for tensor in (*self._keys, *self._values):
            kept = tensor.narrow(2, first, count).clone()  # the two places may overlap
            tensor.narrow(2, first + by, count).copy_(kept)
        self.length += by

    def insert(self, row: int, other: "KVCache") -> None:
        """Let `row` hold what the one row of `other` holds, so that both end at the same position;
        what stands before it there is filling. ValueError if `other` holds more positions."""
        count = other.length
        if other.batch_size != 1 or count > self.length:
            raise ValueError(f"got {other.batch_size} rows of {count} positions; expected one row "
                             f"of at most {self.length}: shift this cache to the right first")
        for mine, its in zip((*self._keys, *self._values), (*other._keys, *other._values)):
            mine[row].narrow(1, self.length - count, count).copy_(its[0].narrow(1, 0, count))

    def keep(self, rows: Sequence[int]) -> None:
        """Hold only these rows from now on, in this order."""
        if not rows or not all(0 <= row < self.batch_size for row in rows):
            raise ValueError(f"rows are {list(rows)}; expected one or more of the "
                             f"{self.batch_size} here")
        with torch.inference_mode(False):
            self._keys = [keys[list(rows)] for keys in self._keys]
            self._values = [values[list(rows)] for values in self._values]

    def repeat(self, count: int) -> "KVCache":
        """A new cache of `count` rows, each a copy of the one row here: the beginning that many
        prompts share is read once. Raises ValueError if there is more than one row."""
        if self.batch_size != 1 or count < 1:
            raise ValueError(f"got {self.batch_size} rows to be repeated {count} times; expected "
                             f"one row and a count of 1 or more")
        rows = copy.copy(self)
        with torch.inference_mode(False):
            rows._keys = [keys.repeat(count, 1, 1, 1) for keys in self._keys]
            rows._values = [values.repeat(count, 1, 1, 1) for values in self._values]
        return rows
