"""Writing text with a language model: any callable from ids (B, T) to logits (B, T, V)."""

import codecs
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gptlib.model.cache import KVCache
from gptlib.model.config import GPTConfig
from gptlib.runtime import device_of, mode
from gptlib.text.tokenizers import Tokenizer
from gptlib.writing.constraints import Constraint, Guard
from gptlib.writing.sampling import draw, penalise_repetition, probabilities, sample

LanguageModel = Callable[[Tensor], Tensor]


class Reader:
    """Shows a model the newest window of a growing sequence and returns what it predicts.

    The window holds everything until the context is full; then it jumps to the newest half and
    fills again, with and without a cache alike, so that both predict the same. (If it moved on by
    one token at a time, every position in the cache would change at every step.)
    """

    def __init__(self, model: LanguageModel, batch_size: int = 1, use_cache: bool = True):
        config = getattr(model, "config", None)
        self.model = model
        self.limit = getattr(config, "context_length", None)
        self.start = 0  # where the window begins
        self.cache = None
        if use_cache and isinstance(config, GPTConfig):
            dtype = next(model.parameters()).dtype
            self.cache = KVCache(config, batch_size, dtype, device_of(model))

    def room(self, length: int) -> int:
        """How many tokens fit behind the first `length`; moves the window if these do not fit."""
        if self.limit is None:
            return 2**31
        if length - self.start > self.limit:
            self.start = length - max(1, self.limit // 2)
            if self.cache is not None:
                self.cache.reset()
        return self.start + self.limit - length

    def read(self, ids: Tensor, last: int = 1) -> Tensor:
        """Logits (B, last, V) at the last positions of ids (B, T). All other positions must hold
        what they held in the call before; the cache forgets those after them."""
        T = ids.shape[1]
        self.room(T)
        if self.cache is None:
            return self.model(ids[:, self.start:])[:, -last:]
        known = min(self.cache.length, T - self.start - last)
        self.cache.crop(known)
        return self.model(ids[:, self.start + known:], cache=self.cache)[:, -last:]


def generate(model: LanguageModel, prompt: Tensor, *, max_new_tokens: int, temperature: float = 1.0,
             top_k: int | None = None, top_p: float | None = None, min_p: float | None = None,
             repetition_penalty: float = 1.0, stop_tokens: Sequence[int] = (),
             constraint: Constraint | None = None, generator: torch.Generator | None = None,
             use_cache: bool = True) -> Tensor:
    """Continue prompts of equal length, ids (B, T) or (T,), by up to `max_new_tokens` tokens.

    Returns prompts and continuations, (B, T + new). A row that drew one of `stop_tokens` is
    filled up with it; when every row has, generation ends early. A `constraint` keeps the
    continuations in a language (`gptlib.writing.constraints`). The other options are those of
    `gptlib.writing.sampling`; temperature 0 is greedy, and the penalty spares stop tokens. Without
    a cache the whole window is read again for every token. Raises ValueError for an empty prompt,
    one longer than the model's context, and a constraint that `max_new_tokens` is too short for.
    """
    ids = _check_prompt(model, prompt, max_new_tokens)
    reader = Reader(model, len(ids), use_cache)
    guard = constraint and Guard(constraint, len(ids), max_new_tokens, stop_tokens)
    options = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    stops = torch.tensor(list(stop_tokens), dtype=torch.long, device=ids.device)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    with _reading(model):
        for _ in range(max_new_tokens):
            new = _next(reader, ids, repetition_penalty, stops, generator, options, guard=guard)
            if len(stops):
                new = torch.where(ended, ids[:, -1], new)  # a row that has ended repeats its last
            ids = torch.cat((ids, new[:, None]), dim=1)
            if len(stops):
                ended |= torch.isin(new, stops)
                if ended.all():
                    break
    return ids.clone()  # made outside inference mode, so that it may be trained on


def stream(model: LanguageModel, tokenizer: Tokenizer, prompt: str, *, max_new_tokens: int = 200,
           temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
           min_p: float | None = None, repetition_penalty: float = 1.0,
           start_tokens: Sequence[int] = (), stop_tokens: Sequence[int] | None = None,
           constraint: Constraint | None = None,
           generator: torch.Generator | None = None) -> Iterator[str]:
    """Continue a text and yield the continuation piece by piece, as soon as it is certain.

    A character that spans several tokens is yielded when its last byte is there, never in halves.
    The model reads `start_tokens` before the prompt: the token that ends a document in training
    tells it that this is the beginning of a new one, not the middle of something. Stops at
    `stop_tokens` (by default all special tokens of the tokenizer), which are not yielded. Ids that
    the tokenizer lacks, as where a model has more rows than it has tokens, are never drawn. A
    `constraint` is that of `generate`. Between two pieces the model has the mode it had before,
    also when you stop reading.
    """
    ids = tokenizer.encode(prompt)  # empty stays empty: that is an error of the caller
    ids = torch.tensor([*start_tokens, *ids] if ids else ids, dtype=torch.long)
    ids = _check_prompt(model, ids, max_new_tokens)
    options = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    stops = tokenizer.special_tokens.values() if stop_tokens is None else stop_tokens
    ends = torch.tensor(list(stops), dtype=torch.long, device=ids.device)
    known = tokenizer.vocab_size
    guard = constraint and Guard(constraint, 1, max_new_tokens, list(stops))

    def pieces(ids: Tensor) -> Iterator[str]:
        reader = Reader(model)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for _ in range(max_new_tokens):
            with _reading(model):
                new = _next(reader, ids, repetition_penalty, ends, generator, options, known, guard)
            if new.item() in stops:
                break
            ids = torch.cat((ids, new[:, None]), dim=1)
            if piece := decoder.decode(tokenizer.token_bytes[new.item()]):
                yield piece
        if rest := decoder.decode(b"", final=True):  # bytes that never became a character
            yield rest

    return pieces(ids)


class Beam(NamedTuple):
    """One result of `beam_search`."""

    ids: Tensor  # (T + new,), the prompt included
    log_probability: float  # of the new tokens together, in nats
    score: float  # log_probability divided by (number of new tokens) ** length_power


def beam_search(model: LanguageModel, prompt: Tensor, *, max_new_tokens: int, beam_width: int = 4,
                length_power: float = 1.0, stop_tokens: Sequence[int] = ()) -> list[Beam]:
    """Look for the most probable continuation of one prompt, ids (T,) or (1, T).

    At each step the `beam_width` best of all one-token extensions survive. A continuation that
    ends in a stop token is finished and keeps its place. Without normalisation (`length_power` 0)
    short ones win, since each token can only lower the probability; 1 compares the mean per
    token (compare Wu et al., 2016, section 7). Returns all beams, the best score first.
    """
    ids = _check_prompt(model, prompt, max_new_tokens, batch_size=1)
    if beam_width < 1:
        raise ValueError(f"beam_width is {beam_width}; expected 1 or more")
    prompt_length, finished = ids.shape[1], []
    reader, total = Reader(model, use_cache=False), torch.zeros(1, device=ids.device)

    def beams(ids: Tensor, total: Tensor) -> list[Beam]:
        new = ids.shape[1] - prompt_length
        return [Beam(row.clone(), value, value / max(1, new) ** length_power)
                for row, value in zip(ids, total.tolist())]

    with _reading(model):
        for _ in range(max_new_tokens):
            log_p = reader.read(ids)[:, -1].float().log_softmax(-1)  # (beams, V)
            V, every = log_p.shape[1], (total[:, None] + log_p).flatten()
            total, best = every.topk(min(beam_width - len(finished), len(every)))
            ids = torch.cat((ids[best // V], best[:, None] % V), dim=1)
            ended = torch.isin(ids[:, -1], torch.tensor(list(stop_tokens), device=ids.device))
            finished += beams(ids[ended], total[ended])
            ids, total = ids[~ended], total[~ended]
            if not len(ids):
                break
    return sorted(finished + beams(ids, total), key=lambda beam: -beam.score)


class Speculation(NamedTuple):
    """The result of `speculative_generate`."""

    ids: Tensor  # (1, T + new)
    proposed: int  # tokens that the draft proposed
    accepted: int  # of these, tokens that were kept
    model_calls: int  # forward passes of the large model


def speculative_generate(model: LanguageModel, draft: LanguageModel, prompt: Tensor, *,
                         max_new_tokens: int, draft_tokens: int = 4,
                         generator: torch.Generator | None = None, **options) -> Speculation:
    """Let a cheap draft write ahead and the model correct it: the model's own distribution.

    The draft proposes `draft_tokens` tokens x; the model reads them all in one pass. Each is kept
    with probability min(1, p(x) / q(x)), p the model's and q the draft's; the first that is not
    is replaced by a draw from max(0, p - q), normalised, and the rest is forgotten (Leviathan et
    al., 2023; Chen et al., 2023). One prompt, ids (T,) or (1, T); `options` are temperature,
    top_k, top_p and min_p, and hold for both models.
    """
    ids = _check_prompt(model, prompt, max_new_tokens, batch_size=1)
    reader, drafter, end = Reader(model), Reader(draft), ids.shape[1] + max_new_tokens
    proposed = accepted = calls = 0
    with _reading(model), _reading(draft):
        while (T := ids.shape[1]) < end:
            count = min(draft_tokens, end - T - 1, reader.room(T), drafter.room(T))
            guess, q = ids, []
            for _ in range(count):
                q.append(probabilities(drafter.read(guess)[:, -1], **options)[0])
                guess = torch.cat((guess, draw(q[-1][None], generator)[None]), dim=1)
            p = probabilities(reader.read(guess, last=count + 1)[0], **options)  # (count + 1, V)
            kept = 0
            for x in guess[0, T:]:
                if torch.rand((), generator=generator) * q[kept][x] >= p[kept, x]:
                    break
                kept += 1
            rest = p[kept] if kept == count else (p[kept] - q[kept]).clamp(min=0)
            rest = rest if rest.any() else p[kept]  # where p and q differ by rounding alone
            ids = torch.cat((guess[:, :T + kept], draw(rest[None], generator)[None]), dim=1)
            proposed, accepted, calls = proposed + count, accepted + kept, calls + 1
    return Speculation(ids.clone(), proposed, accepted, calls)


def _next(reader: Reader, ids: Tensor, penalty: float, stops: Tensor,
          generator: torch.Generator | None, options: dict, known: int | None = None,
          guard: Guard | None = None) -> Tensor:
    """One new token for each row, of the first `known` of the vocabulary: (B, T) to (B,)."""
    read = reader.read(ids)[:, -1]
    logits = penalise_repetition(read, ids, penalty)
    if penalty != 1 and len(stops):  # one that stands before the prompt makes no end unlikely
        vocabulary = torch.arange(read.shape[1], device=read.device)
        logits = torch.where(torch.isin(vocabulary, stops), read, logits)
    logits = logits[:, :known]
    if guard is None:
        return sample(logits, generator=generator, **options)
    new = sample(guard.restrict(logits), generator=generator, **options)
    guard.follow(new)
    return new


@contextlib.contextmanager
def _reading(model: LanguageModel) -> Iterator[None]:
    """No gradients and no dropout inside; afterwards the model is as it was."""
    with torch.inference_mode(), mode(model, training=False):
        yield


def _check_prompt(model: LanguageModel, prompt: Tensor, max_new_tokens: int,
                  batch_size: int | None = None) -> Tensor:
    """The prompt as (B, T) on the model's device."""
    ids = torch.as_tensor(prompt)
    ids = ids[None] if ids.dim() == 1 else ids
    if not ids.numel():
        raise ValueError("the prompt is empty; expected at least one token: begin with the "
                         "tokenizer's end-of-text token, or with a line break")
    if ids.dim() != 2 or ids.is_floating_point():
        raise ValueError(f"the prompt is {ids.dtype} of shape {tuple(ids.shape)}; expected token "
                         f"ids (B, T) or (T,): pass tokenizer.encode(text) as a tensor")
    if batch_size is not None and len(ids) != batch_size:
        raise ValueError(f"got {len(ids)} prompts; expected one, ids (T,) or (1, T)")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected 0 or more")
    limit = getattr(getattr(model, "config", None), "context_length", None)
    if limit is not None and ids.shape[1] > limit:
        raise ValueError(f"the prompt has {ids.shape[1]} tokens and the model's context_length is "
                         f"{limit}: shorten it, or keep its newest part, prompt[:, -{limit}:]")
    return ids.long().to(device_of(model))
