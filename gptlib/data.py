"""Token ids as training examples: windows of one long sequence, drawn in repeatable batches."""

from collections.abc import Iterator
from typing import Self

import numpy as np
import torch

from gptlib.tokenizers import Tokenizer


class TokenDataset:
    """One long sequence of token ids, read through windows of `context_length` tokens.

    `ids` is 1-D and integer: a list, an int64 tensor, or a memory-mapped int32 array (which stays
    on disk; each batch is converted to int64). `len()` is the number of windows.
    """

    def __init__(self, ids: torch.Tensor, context_length: int) -> None:
        ids = torch.as_tensor(ids)
        if context_length < 1:
            raise ValueError(f"context_length is {context_length}; expected 1 or more tokens")
        if ids.dim() != 1:
            raise ValueError(
                f"the ids have shape {tuple(ids.shape)}; expected one sequence, shape (N,): "
                f"join the texts before encoding them, or the encoded ids with torch.cat"
            )
        if not len(ids):
            raise ValueError("there are no ids; expected at least one window: is the text empty?")
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(
                f"the ids are {ids.dtype}; expected whole numbers (torch.int64): "
                f"pass what tokenizer.encode returns"
            )
        if len(ids) < context_length + 1:
            raise ValueError(
                f"got {len(ids)} ids for a context of {context_length}; expected at least "
                f"{context_length + 1} (a window and the token after it): "
                f"use a longer text or a shorter context_length"
            )
        self.ids = ids
        self.context_length = context_length

    @classmethod
    def from_text(cls, text: str, tokenizer: Tokenizer, context_length: int) -> Self:
        """Encode `text` with `tokenizer.encode`; an empty or too short text is a ValueError."""
        if not text:
            raise ValueError("the text is empty; expected some text to encode")
        return cls(torch.tensor(tokenizer.encode(text), dtype=torch.long), context_length)

    def __len__(self) -> int:
        return len(self.ids) - self.context_length

    def split(self, fraction: float = 0.9) -> tuple[Self, Self]:
        """The first `fraction` of the ids and the rest, as two data sets without overlap.

        Contiguous on purpose: windows drawn at random for validation would overlap with windows
        of the training part, and the model would be tested on text that it was trained on.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction is {fraction}; expected a number between 0 and 1")
        cut = round(fraction * len(self.ids))
        needed = self.context_length + 1
        if min(cut, len(self.ids) - cut) < needed:
            raise ValueError(
                f"splitting {len(self.ids)} ids at {fraction} gives {cut} and "
                f"{len(self.ids) - cut}; expected at least {needed} on both sides: "
                f"use a longer text, a shorter context_length or another fraction"
            )
        return (type(self)(self.ids[:cut], self.context_length),
                type(self)(self.ids[cut:], self.context_length))


def batches(dataset: TokenDataset, batch_size: int, seed: int = 0,
            start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches (x, y), each (B, T) int64; y is x one token later.

    Windows are drawn uniformly with replacement. Batch number i depends on (seed, i) alone, so
    a run that stopped after k batches goes on with `start=k` as if it had never stopped.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more windows")
    if seed < 0 or start < 0:
        raise ValueError(f"seed is {seed} and start is {start}; expected numbers from 0 on")
    return _batches(dataset, batch_size, seed, start)


def _batches(dataset, batch_size, seed, number):
    # every window as a row of one view (N - T, T + 1): a batch is then a single index operation
    windows = dataset.ids.unfold(0, dataset.context_length + 1, 1)
    while True:
        rows = np.random.default_rng((seed, number)).integers(len(dataset), size=batch_size)
        batch = windows[torch.from_numpy(rows)].long()
        yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
        number += 1
