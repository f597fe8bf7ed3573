"""A text of twenty documents and the settings of a run of half a second, for tests of runs."""

import random

import pytest

from gptlib.training.run_config import RunConfig


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    """Twenty documents of small sentences."""
    draw = random.Random(0)
    names, acts = "Anna Ben Cora Dan Eve".split(), "runs walks sings sleeps jumps".split()
    documents = [" ".join(f"{draw.choice(names)} {draw.choice(acts)}." for _ in range(25))
                 for _ in range(20)]
    file = tmp_path_factory.mktemp("text") / "tiny.txt"
    file.write_text("<|endoftext|>".join(documents), encoding="utf-8")
    return file


@pytest.fixture
def config(text_file):
    return RunConfig(corpus=(str(text_file),), vocab_size=280, context_length=16, n_layer=1,
                     n_head=2, n_embd=16, dropout=0.2, batch_size=2, max_steps=24,
                     evaluate_every=12, checkpoint_every=10)
