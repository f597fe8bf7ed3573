"""A conversation with a language model: history, streamed replies, a cache kept between turns.

How a conversation becomes ids is written in `gptlib.text.chat_template`.
"""

import codecs
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gptlib.files import Fields, broken, parse_json, write_text
from gptlib.runtime import device_of, mode
from gptlib.text.chat_template import Message, encode_end, encode_header, encode_message
from gptlib.text.tokenizers import Tokenizer
from gptlib.writing.generation import LanguageModel, Reader
from gptlib.writing.sampling import penalise_repetition, probabilities, sample

FREED = 4  # when the context is full, one part in so many is made free
LARGEST_FILE = 2**26  # bytes of a stored conversation


class Chat:
    """A model, its tokenizer and what was said so far.

    `messages` is everything that was said, the system message included. What stands in the model's
    cache is not read again in the next turn. When the context is full, the oldest exchanges (a
    user's message and what was replied) are forgotten whole, the system message never; `forgotten`
    counts them. `start_tokens` stand before it all, such as the <|endoftext|> that began each
    conversation in training. `system` is the first message, unless `messages`, a conversation to
    go on with, brings its own. ValueError for a tokenizer without the marks of a chat.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, *, system: str | None = None,
                 start_tokens: Sequence[int] = (), messages: Sequence[Message] = ()) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._header, self._end = encode_header(tokenizer), encode_end(tokenizer)
        self._reader, self._read_ids = Reader(model), []
        self._running: Generator[str] | None = None
        own = list(messages[:1]) if messages and messages[0].role == "system" else []
        first = own or ([] if system is None else [Message("system", system)])
        self._first, self._fixed = first, list(start_tokens)
        for message in first:
            self._fixed += encode_message(message, tokenizer)
        self.reset()
        for message in messages[len(own):]:
            self._append(message, encode_message(message, tokenizer))

    def reset(self) -> None:
        """Begin again: only the system message stays."""
        self._stop()
        self.messages, self.forgotten = self._first[:], 0
        self._exchanges: list[list[int]] = []  # ids of what is not forgotten
        self._said: list[int] = []  # ids of the model's own words

    def reply(self, text: str, *, max_new_tokens: int = 256, temperature: float = 1.0,
              top_k: int | None = None, top_p: float | None = None, min_p: float | None = None,
              repetition_penalty: float = 1.0,
              generator: torch.Generator | None = None) -> Iterator[str]:
        """Say something and get the answer piece by piece, as `stream` gives it.

        It ends at <|im_end|> or another special token, after `max_new_tokens` tokens, or when it
        and the message fill the context. Then both stand in `messages`; also when it is cut short,
        by Ctrl-C or because the pieces are no longer asked for: what was said stays said. The
        penalty is on the model's own words. Options as in `gptlib.writing.sampling`.
        ValueError for a message that does not fit into the context, and for impossible options.
        """
        self._stop()
        filters = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        check_decoding(max_new_tokens=max_new_tokens, repetition_penalty=repetition_penalty,
                       **filters)
        message = Message("user", text)
        asked, limit = encode_message(message, self.tokenizer), self._reader.limit
        needed = len(self._fixed) + len(asked) + len(self._header)
        if limit is not None and needed > limit:
            raise ValueError(f"the message has {len(asked)} tokens, with what always stands before "
                             f"and behind it {needed}; the model's context_length is {limit}: "
                             f"shorten the message")

        def choose(ids: list[int], spoken: list[int]) -> int:
            with torch.inference_mode(), mode(self.model, training=False):
                logits = self._logits(ids)[:, :self.tokenizer.vocab_size]
                if repetition_penalty != 1:
                    seen = torch.tensor([self._said + spoken], dtype=torch.long)
                    logits = penalise_repetition(logits, seen.to(logits.device),
                                                 repetition_penalty)
                return sample(logits, generator=generator, **filters).item()

        self._running = self._answer(message, asked, max_new_tokens, choose)
        return self._running

    def _answer(self, message: Message, asked: list[int], max_new_tokens: int,
                choose: Callable[[list[int], list[int]], int]) -> Generator[str]:
        """The pieces of a reply; both messages are remembered however it ends, except by an error.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        ends = self.tokenizer.special_tokens.values()  # another mark would be no word either
        spoken, pieces, certain = [], [], 0

        def remember() -> None:
            self._append(message, asked)
            self._append(Message("assistant", "".join(pieces)),
                         self._header + spoken[:certain] + self._end)
            self._said += spoken[:certain]

        try:
            while len(spoken) < max_new_tokens:
                ids = self._context(asked + self._header + spoken)
                if ids is None or (new := choose(ids, spoken)) in ends:
                    break
                spoken.append(new)
                if piece := decoder.decode(self.tokenizer.token_bytes[new]):
                    pieces.append(piece)
                    certain = len(spoken)
                    yield piece
            if rest := decoder.decode(b"", final=True):  # bytes that never became a character
                pieces.append(rest)
                certain = len(spoken)
                yield rest
        except (GeneratorExit, KeyboardInterrupt):
            remember()
            raise
        remember()

    def _append(self, message: Message, ids: list[int]) -> None:
        self.messages.append(message)
        if message.role == "user" or not self._exchanges:
            self._exchanges.append([])
        self._exchanges[-1] += ids

    def _context(self, newest: list[int]) -> list[int] | None:
        """What the model reads before its next word; None if it would not fit even alone."""
        limit = self._reader.limit
        length = len(self._fixed) + sum(map(len, self._exchanges)) + len(newest)
        if limit is not None and length > limit:
            while self._exchanges and length > limit - limit // FREED:
                length -= len(self._exchanges.pop(0))
                self.forgotten += 1
            if length > limit:
                return None
        return [*self._fixed, *(i for ids in self._exchanges for i in ids), *newest]

    def _logits(self, ids: list[int]) -> Tensor:
        """Logits (1, V) behind `ids`, of which only what differs from the last time is read."""
        if self._reader.cache is not None:
            same = len(self._read_ids)
            if ids[:same] != self._read_ids:
                pairs = enumerate(zip(ids, self._read_ids))
                same = next((i for i, (new, old) in pairs if new != old), len(ids))
            self._reader.cache.crop(min(self._reader.cache.length, same))
        self._read_ids = ids
        return self._reader.read(torch.tensor([ids], device=device_of(self.model)))[:, -1]

    def _stop(self) -> None:
        """End a reply that nobody has read to its end."""
        if self._running is not None:
            self._running.close()


def check_decoding(*, max_new_tokens: int = 0, repetition_penalty: float = 1.0,
                   **filters: float | None) -> None:
    """Refuse impossible options of `Chat.reply` before anything is written (ValueError)."""
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected 0 or more")
    nothing = torch.zeros(1, 2)
    penalise_repetition(nothing, torch.zeros(1, 1, dtype=torch.long), repetition_penalty)
    probabilities(nothing, **filters)


def save_messages(file: str | Path, messages: Sequence[Message]) -> None:
    """Write a conversation as JSON lines, {"role": ..., "content": ...} for each message."""
    lines = (json.dumps({"role": each.role, "content": each.content}, ensure_ascii=False)
             for each in messages)
    write_text(file, "".join(line + "\n" for line in lines))


def load_messages(file: str | Path) -> list[Message]:
    """Read what `save_messages` wrote; ValueError for any other file, naming the line."""
    file = Path(file)
    if not file.is_file() or file.stat().st_size > LARGEST_FILE:
        raise broken(file, "it is no file, or a large one", "expected a stored conversation")
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        place = f"{file}, line {number}"
        fields = Fields(place, parse_json(line, place))
        role, content = fields.read("role", str), fields.read("content", str)
        fields.finish()
        try:
            found.append(Message(role, content))
        except ValueError as error:
            raise broken(place, str(error)) from error
    if not found:
        raise broken(file, "it is empty; expected a message on each line")
    return found
