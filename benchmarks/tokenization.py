"""Byte pair encoding against `tokenizers` and `tiktoken`: training, encoding, decoding.

    python benchmarks/tokenization.py

Two texts: 5 MB of English books and the *Romance of the Three Kingdoms*, 1.8 MB of Chinese. All
programs have the same word split, and must learn the same 4,096 tokens and give the same ids,
which is checked before anything is timed. gptlib and tiktoken use one thread. `tokenizers` is
measured with the threads that it takes by itself and with one. It is fastest, and parallel, only
if it gets a text in parts, so it gets parts; the same call with the whole text is a row of its own.
"""

import os
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import measure
import tiktoken
import tokenizers as library

from gptlib.text.bpe import SPLIT, split_parts
from gptlib.text.corpora import load_text
from gptlib.text.tokenizers import BPETokenizer

VOCABULARY = 4096
END = "<|endoftext|>"
ENGLISH, CHINESE = "English", "Chinese"
PART = 1 << 16  # characters; `tokenizers` is fastest with many parts of this size
OURS, OURS_AGAIN = "gptlib", "gptlib, words seen before"
LIBRARY, LIBRARY_SERIAL = "tokenizers", "tokenizers, one thread"
LIBRARY_WHOLE, TIKTOKEN = "tokenizers, text in one piece", "tiktoken"


def texts() -> dict[str, str]:
    """5,000,000 bytes of English (novels, stories, the beginning of a Bible), and the Chinese."""
    english = "".join(load_text(name) for name in ("prose", "stories", "gutenberg/bible-kjv"))
    return {ENGLISH: english.encode("utf-8")[:5_000_000].decode("utf-8", "ignore"),
            CHINESE: load_text("sanguo")}


def library_trained(parts: list[str]) -> library.Tokenizer:
    """The rules of `BPETokenizer.train`: all bytes first, the special token after the merges."""
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    tokenizer.train_from_iterator(parts, library.trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1, show_progress=False,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_special_tokens([END])
    return tokenizer


def one_thread(work: Callable[[], object]) -> Callable[[], float]:
    """The same work with `tokenizers` told to use one thread; it reads the variable each time."""
    def timed() -> float:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        return seconds
    return timed


def measure_training(text: str, rounds: int) -> measure.Times:
    """Seconds to learn the vocabulary from the text."""
    parts = list(split_parts(text, PART))
    return measure.take_turns({
        OURS: lambda: BPETokenizer.train(text, VOCABULARY, (END,)),
        LIBRARY: lambda: library_trained(parts),
        LIBRARY_SERIAL: one_thread(lambda: library_trained(parts)),
        LIBRARY_WHOLE: lambda: library_trained([text])}, rounds)


def check_training(text: str) -> BPETokenizer:
    """Our tokenizer, after its merges and ids are found equal to those of `tokenizers`."""
    ours = BPETokenizer.train(text, VOCABULARY, (END,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        library_trained(list(split_parts(text, PART))).save(str(path))
        other = BPETokenizer.load(path)
    assert other.vocab_size == VOCABULARY and other.special_tokens == ours.special_tokens
    assert other.merges == ours.merges and other.token_bytes == ours.token_bytes
    return ours


def peers(ours: BPETokenizer) -> tuple[library.Tokenizer, tiktoken.Encoding]:
    """The other two programs with our merges."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        ours.save(path)
        other = library.Tokenizer.from_file(str(path))
    ranks = {piece: i for i, piece in enumerate(ours.token_bytes[:-1])}
    return other, tiktoken.Encoding("ours", pat_str=SPLIT.pattern, mergeable_ranks=ranks,
                                    special_tokens=ours.special_tokens)


def measure_coding(ours: BPETokenizer, text: str, rounds: int,
                   ) -> tuple[measure.Times, measure.Times]:
    """Seconds to encode the text and to decode its ids."""
    other, rust = peers(ours)
    parts = list(split_parts(text, PART))

    def cold() -> float:
        fresh = BPETokenizer(ours.merges, ours.special_tokens)  # has no words in its cache
        began = time.perf_counter()
        fresh.encode(text)
        return time.perf_counter() - began

    def in_parts() -> list[int]:
        return list(chain.from_iterable(each.ids for each in other.encode_batch_fast(parts)))

    ids = ours.encode(text)
    assert ids == in_parts() == other.encode(text).ids == rust.encode_ordinary(text)
    assert ours.decode(ids) == other.decode(ids) == rust.decode(ids) == text
    encoding = measure.take_turns({
        OURS: cold, OURS_AGAIN: lambda: ours.encode(text), LIBRARY: in_parts,
        LIBRARY_SERIAL: one_thread(in_parts), LIBRARY_WHOLE: lambda: other.encode(text).ids,
        TIKTOKEN: lambda: rust.encode_ordinary(text)}, rounds)
    decoding = measure.take_turns({
        OURS: lambda: ours.decode(ids), LIBRARY: lambda: other.decode(ids),
        TIKTOKEN: lambda: rust.decode(ids)}, rounds)
    return encoding, decoding


def main() -> None:
    """Measure all, write benchmarks/results/tokenization.json."""
    rows, facts = [], {}
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    for language, text in texts().items():
        megabytes, rounds = len(text.encode("utf-8")) / 1e6, 5 if language == ENGLISH else 3
        ours = check_training(text)
        training = measure_training(text, rounds)
        encoding, decoding = measure_coding(ours, text, rounds)
        facts[f"{language} MB"] = f"{megabytes:.1f}"
        for work, times in (("train", training), ("encode", encoding), ("decode", decoding)):
            for program, seconds in times.items():
                median = sorted(seconds)[len(seconds) // 2]
                longer = measure.ratio(times, program, OURS)
                rows.append([work, language, program, f"{median:.2f}", f"{megabytes / median:.2f}",
                             f"{longer:.2f}"])
                facts[f"{language}, {work}, {program}: seconds"] = f"{median:.2f}"
                facts[f"{language}, {work}, {program}: times gptlib"] = f"{longer:.2f}"
    measure.write(
        "tokenization", command="python benchmarks/tokenization.py", rows=rows, facts=facts,
        columns=["work", "text", "program", "seconds", "MB/s", "time against gptlib's"],
        note=f"Vocabulary of {VOCABULARY:,} tokens; merges and ids are equal in all programs. "
             "gptlib and tiktoken use one thread, tokenizers those that it takes by itself.",
        packages=["tokenizers", "tiktoken", "regex"])


if __name__ == "__main__":
    main()
