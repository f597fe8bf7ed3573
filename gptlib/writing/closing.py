"""Bringing a text to its end: a model that grows more willing to stop the longer it writes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gptlib.model.cache import KVCache
from gptlib.model.gpt import GPT
from gptlib.writing.inference import InferenceModel


class Closing:
    """A language model that adds to the logit of `end_token`, the more the longer the text is.

    Behind `after` tokens, those of the prompt included, the logit grows by `per_hundred` for each
    hundred tokens. So the text ends where an end is likely anyway, only sooner: the model's own
    opinion of the place decides. (A model of long stories rarely ends within a page by itself.)
    Ids (B, T) to logits (B, T, V); `model` must be in eval mode.
    """

    def __init__(self, model: GPT | InferenceModel, end_token: int, *, after: int,
                 per_hundred: float) -> None:
        if not 0 <= end_token < model.config.vocab_size:
            raise ValueError(f"end_token is {end_token}; expected an id of the model, from 0 to "
                             f"{model.config.vocab_size - 1}")
        if after < 0 or not per_hundred >= 0:
            raise ValueError(f"after is {after} and per_hundred {per_hundred}; expected numbers "
                             f"from 0 on")
        self.model, self.config = model, model.config
        self.end_token, self.after, self.per_hundred = end_token, after, per_hundred

    def parameters(self) -> Iterator[Tensor]:
        """Those of the model: they tell its device and type."""
        return self.model.parameters()

    def __call__(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        start = 0 if cache is None else cache.length
        logits = (self.model(ids) if cache is None else self.model(ids, cache=cache)).clone()
        lengths = torch.arange(start + 1, start + ids.shape[1] + 1, device=logits.device)
        raised = self.per_hundred / 100 * (lengths - self.after).clamp(min=0)
        logits[..., self.end_token] += raised
        return logits
