"""A text comes to its end: the end token's logit grows with the length, and nothing else does."""

import pytest
import torch

from gptlib.model.cache import KVCache
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.writing.closing import Closing
from gptlib.writing.generation import generate
from gptlib.writing.inference import InferenceModel

END = 5


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(GPTConfig(11, 64, n_layer=1, n_head=2, n_embd=16)).eval()


def test_only_the_end_token_is_raised_at_each_position_by_the_length_so_far(model):
    ids = torch.randint(11, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = model(ids), Closing(model, END, after=10, per_hundred=50)(ids)
    expected = torch.zeros_like(before)
    expected[:, :, END] = torch.tensor([max(0, length - 10) / 2 for length in range(1, 31)])
    torch.testing.assert_close(after - before, expected)
    assert torch.equal(Closing(model, END, after=30, per_hundred=50)(ids), before)


@pytest.mark.parametrize("prepare", [lambda model: model, InferenceModel])
def test_with_a_cache_it_counts_the_whole_text(model, prepare):
    closing = Closing(prepare(model), END, after=4, per_hundred=100)
    ids = torch.randint(11, (1, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = closing(ids)[:, -1]
        cache = KVCache(model.config, 1)
        closing(ids[:, :-1], cache=cache)
        torch.testing.assert_close(closing(ids[:, -1:], cache=cache)[:, -1], whole)


def test_greedy_texts_are_the_same_with_and_without_a_cache(model):
    closing = Closing(model, END, after=3, per_hundred=50)
    ids = torch.tensor([[1, 2, 3]])
    texts = [generate(closing, ids, max_new_tokens=30, temperature=0, stop_tokens=(END,),
                      use_cache=use).tolist() for use in (True, False)]
    assert texts[0] == texts[1]


def test_generated_texts_end_sooner(model):
    def length(model):
        rows = generate(model, torch.zeros(40, 1, dtype=torch.long), max_new_tokens=60,
                        stop_tokens=(END,), generator=torch.Generator().manual_seed(0))
        return (rows != END).sum(1).float().mean()

    closing = Closing(model, END, after=0, per_hundred=40)
    assert length(closing) < 0.8 * length(model)


@pytest.mark.parametrize("mistake, message", [
    (dict(end_token=11), "from 0 to 10"), (dict(after=-1), "from 0 on"),
    (dict(per_hundred=float("nan")), "from 0 on")])
def test_mistakes_are_told(model, mistake, message):
    options = dict(end_token=END, after=3, per_hundred=1.0) | mistake
    with pytest.raises(ValueError, match=message):
        Closing(model, **options)
