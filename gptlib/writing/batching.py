"""Many requests at once: prompts of different lengths in one batch, and rows that change in it.

A model reads rectangles (B, T). Prompts are filled up on the left, so that all of them end in the
same column, where the next token goes; the model hides the filling and counts positions from
behind it. When a request ends, its row in the cache goes to the next one that waits, which is moved
to end in that same column (continuous batching: Yu et al., 2022, "Orca").
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gptlib.model.cache import KVCache
from gptlib.model.gpt import GPT
from gptlib.runtime import device_of, mode
from gptlib.writing.constraints import Constraint, Guard
from gptlib.writing.inference import InferenceModel
from gptlib.writing.sampling import draw, penalise_repetition, probabilities, sample


def pad(rows: Sequence[Sequence[int]], side: str = "left", fill: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of ids as one rectangle, (B, T) int64, and how many ids of `fill` each row got, (B,).

    For writing the side is the left one: then the last column holds every row's newest token.
    """
    if side not in ("left", "right"):
        raise ValueError(f"side is {side!r}; expected 'left' or 'right'")
    if not rows or not all(len(row) for row in rows):
        raise ValueError("expected one row or more, each with at least one token id")
    longest = max(map(len, rows))
    missing = [longest - len(row) for row in rows]
    filled = [[fill] * n + list(row) if side == "left" else list(row) + [fill] * n
              for n, row in zip(missing, rows)]
    return torch.tensor(filled, dtype=torch.long), torch.tensor(missing)


@dataclass(frozen=True)
class Request:
    """One prompt, ids, to be continued by at most `max_new_tokens`; each has its own generator, so
    that its text does not depend on its neighbours."""

    prompt: Sequence[int]
    max_new_tokens: int
    generator: torch.Generator | None = None
    constraint: Constraint | None = None


class Reply(NamedTuple):
    """What a request got, and when: seconds since `serve` was asked for its first result."""

    number: int  # the request's place among all
    ids: list[int]  # the new tokens, a stop token at the end included
    first: float  # when its first token was there
    last: float  # when its last one was


def serve(model: GPT | InferenceModel, requests: Sequence[Request], *, slots: int = 8,
          stop_tokens: Sequence[int] = (), repetition_penalty: float = 1.0,
          temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
          min_p: float | None = None) -> Iterator[Reply]:
    """Continue all requests, `slots` of them side by side, and yield each reply as soon as it ends.

    Each gets the tokens that `generate` with the same options writes for it alone, up to the
    rounding of logits. Raises ValueError for a request that doesn't fit into the model's context,
    which here never moves on, and for a model that is neither a GPT nor one prepared for writing.
    """
    options = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    if not isinstance(model, GPT | InferenceModel):
        raise ValueError(f"got a {type(model).__name__}; expected a GPT or an InferenceModel: no "
                         f"other model here can read rows that begin behind filling")
    if slots < 1:
        raise ValueError(f"slots is {slots}; expected 1 or more")
    waiting = deque(_Row(number, request, tuple(stop_tokens), model.config.context_length)
                    for number, request in enumerate(requests))

    def replies() -> Iterator[Reply]:
        begun, batch = time.perf_counter(), None
        while waiting or (batch and batch.rows):
            with torch.inference_mode(), mode(model, training=False):
                if batch is None:
                    first = [waiting.popleft() for _ in range(min(slots, len(waiting)))]
                    batch = _Batch(model, first, repetition_penalty, options)
                ended = batch.turn(waiting, begun)
            yield from ended

    return replies()


class _Row:
    """A request and what has been written for it."""

    def __init__(self, number: int, request: Request, stops: tuple[int, ...], context_length: int):
        prompt, most = list(request.prompt), request.max_new_tokens
        if not prompt or most < 1 or len(prompt) + most > context_length:
            raise ValueError(f"request {number} has a prompt of {len(prompt)} tokens and asks for "
                             f"{most}; expected at least 1 of each, and together at most "
                             f"{context_length}, the model's context_length")
        self.number, self.request, self.stops = number, request, stops
        self.ids, self.first, self.last, self.ended = prompt, 0.0, 0.0, False
        constraint = request.constraint
        self.guard = constraint and Guard(constraint, 1, most, stops)

    @property
    def new(self) -> list[int]:
        return self.ids[len(self.request.prompt):]

    def add(self, token: int, seconds: float) -> None:
        self.first, self.last = self.first or seconds, seconds
        self.ids.append(token)
        self.ended = token in self.stops or len(self.new) == self.request.max_new_tokens
        if self.guard:
            self.guard.follow(torch.tensor([token]))


class _Batch:
    """Rows that are written side by side: one cache, and how much of each row in it is filling."""

    def __init__(self, model: GPT | InferenceModel, rows: list[_Row], penalty: float,
                 options: dict):
        self.model, self.rows, self.penalty, self.options = model, rows, penalty, options
        self.cache, self.spare = self._new_cache(len(rows)), self._new_cache(1)
        ids, padding = pad([row.ids for row in rows])
        self.padding = padding.to(device_of(model))
        self.logits = self._read(ids)

    def _new_cache(self, rows: int) -> KVCache:
        dtype = next(self.model.parameters()).dtype
        return KVCache(self.model.config, rows, dtype, device_of(self.model))

    def _read(self, ids: Tensor) -> Tensor:
        """All rows go on by ids (B, T): logits (B, V) of what comes next."""
        ids = ids.to(self.padding.device)
        return self.model(ids, cache=self.cache, padding=self.padding)[:, -1]

    def turn(self, waiting: deque[_Row], begun: float) -> list[Reply]:
        """Write one token in every row; those that end leave their place to one that waits."""
        replies, new = [], list(range(len(self.rows)))
        while new:
            self._draw(new, begun)
            ended = [i for i in new if self.rows[i].ended]
            replies += [Reply(row.number, row.new, row.first, row.last)
                        for row in (self.rows[i] for i in ended)]
            new = ended[:len(waiting)]
            for i in new:
                self._replace(i, waiting.popleft())
        self._drop_ended()
        if self.rows:
            self.logits = self._read(torch.tensor([row.ids[-1:] for row in self.rows]))
        return replies

    def _draw(self, chosen: list[int], begun: float) -> None:
        """One token for each of the chosen rows, each from its own generator."""
        rows, logits = [self.rows[i] for i in chosen], self.logits[chosen]
        if self.penalty != 1 or any(row.guard for row in rows):
            logits = torch.cat([self._changed(z[None], row) for z, row in zip(logits, rows)])
        if self.options["temperature"] == 0:
            tokens = sample(logits, **self.options).tolist()
        else:
            p = probabilities(logits, **self.options)
            tokens = [draw(p[k:k + 1], row.request.generator).item() for k, row in enumerate(rows)]
        seconds = time.perf_counter() - begun
        for token, row in zip(tokens, rows):
            row.add(token, seconds)

    def _changed(self, logits: Tensor, row: _Row) -> Tensor:
        """Logits (1, V) of one row after the penalty and the constraint."""
        seen = [token for token in row.ids if token not in row.stops]  # which the penalty spares
        seen = torch.tensor([seen], dtype=torch.long, device=logits.device)
        logits = penalise_repetition(logits, seen, self.penalty)
        return row.guard.restrict(logits) if row.guard else logits

    def _replace(self, i: int, row: _Row) -> None:
        """Read a new prompt alone and move what it left in its cache into row i."""
        self.spare.reset()
        ids = torch.tensor([row.ids], device=self.padding.device)
        last = self.model(ids, cache=self.spare)[:, -1]
        self.rows[i] = row
        self.padding[i] = self.cache.length  # of the row that ended nothing is left
        self._align(self.spare.length)
        self.cache.insert(i, self.spare)
        self.padding[i] = self.cache.length - self.spare.length
        self.logits[i] = last[0]

    def _drop_ended(self) -> None:
        left = [i for i, row in enumerate(self.rows) if not row.ended]
        if left and len(left) < len(self.rows):
            self.cache.keep(left)
            self.padding = self.padding[left]
            self._align(0)
        self.rows = [self.rows[i] for i in left]

    def _align(self, length: int) -> None:
        """Move the shared end so that it leaves room for the longest row, or for `length` tokens,
        and for no more: what lies before all rows would cost time and take up the context."""
        longest = self.cache.length - int(self.padding.min())
        by = max(longest, length) - self.cache.length
        self.padding += by
        self.cache.shift(by)
