"""Evaluation: every token once, token-weighted; intervals that mean what they say."""

import math

import pytest
import torch
from torch import nn

from gptlib.text import datasets
from gptlib.text.datasets import TokenDataset, batches
from gptlib.training import loop
from gptlib.training.evaluation import (
    bits_per_byte,
    bits_per_character,
    bootstrap_interval,
    evaluate_loss,
    paired_bootstrap,
    perplexity,
    token_losses,
)
from gptlib.training.loop import next_token_loss


class Dropped(nn.Module):
    """A bigram model with dropout on its logits."""

    def __init__(self, vocab_size=7):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(vocab_size, vocab_size)
        self.dropout = nn.Dropout(0.5)

    def forward(self, ids):
        return self.dropout(self.table(ids))


class Pieces:
    """Tokens of different lengths: "é" is cut into its two bytes, <end> stands for no text."""

    token_bytes = [b"a", b"the ", "é".encode()[:1], "é".encode()[1:], b"<end>"]
    special_tokens = {"<end>": 4}
    vocab_size = 5


def uniform(vocab_size):
    """A model that is a plain function, without parameters."""
    return lambda ids: torch.zeros(*ids.shape, vocab_size)


@pytest.mark.parametrize("length", [9, 10, 16, 17, 40])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_each_token_but_the_first_is_predicted_once(length, batch_size):
    ids = torch.randint(7, (length,), generator=torch.Generator().manual_seed(1))
    model = Dropped().eval()
    losses = token_losses(model, TokenDataset(ids, 8), batch_size)
    # a bigram model needs one token of context only, so the windows cannot matter
    log_p = model.table.weight.log_softmax(1)
    expected = -log_p[ids[:-1], ids[1:]].detach()
    torch.testing.assert_close(losses, expected)


def test_a_token_is_predicted_from_its_window_and_nothing_later():
    seen = []

    def spy(ids):
        seen.extend(ids.tolist())
        return torch.zeros(*ids.shape, 20)

    token_losses(spy, TokenDataset(torch.arange(20), 8), batch_size=2)
    assert seen == [list(range(8)), list(range(8, 16)), list(range(16, 19))]


def test_the_loss_weighs_tokens_and_not_batches():
    # 8 tokens that the model expects and 2 that it does not, which stand in a batch of their own
    ids = torch.tensor([0] * 9 + [1, 1])

    def model(ids):
        logits = torch.zeros(*ids.shape, 2)
        logits[..., 0] = math.log(3)  # p(0) = 3/4
        return logits

    expected = (8 * math.log(4 / 3) + 2 * math.log(4)) / 10
    mean_of_means = (math.log(4 / 3) + math.log(4)) / 2
    loss = evaluate_loss(model, TokenDataset(ids, 8), batch_size=1)
    assert loss == pytest.approx(expected, abs=1e-6)
    assert abs(loss - mean_of_means) > 0.3


def test_the_batch_size_does_not_matter():
    dataset = TokenDataset(torch.randint(7, (500,)), 8)
    losses = [evaluate_loss(Dropped(), dataset, size) for size in (1, 7, 64)]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)


def test_dropout_is_off_during_evaluation_and_on_again_afterwards():
    model, dataset = Dropped().train(), TokenDataset(torch.randint(7, (100,)), 8)
    assert evaluate_loss(model, dataset) == evaluate_loss(model, dataset)
    assert model.training and model.dropout.training
    model.dropout.eval()  # a part that was frozen on purpose stays so
    evaluate_loss(model, dataset)
    assert model.training and not model.dropout.training


def test_evaluation_leaves_no_gradients_and_takes_no_random_numbers():
    model, dataset = Dropped(), TokenDataset(torch.randint(7, (100,)), 8)
    state = torch.get_rng_state()
    assert not token_losses(model, dataset).requires_grad
    assert model.table.weight.grad is None
    assert torch.equal(state, torch.get_rng_state())


def test_a_uniform_model_hesitates_among_all_tokens():
    dataset = TokenDataset(torch.randint(7, (100,)), 8)
    assert perplexity(uniform(7), dataset) == pytest.approx(7, abs=1e-5)


def test_a_model_that_rules_out_what_comes_has_an_infinite_perplexity():
    def model(ids):  # sure of token 0, which never comes: 2,000 nats a token
        return torch.tensor([2000.0, 0.0]).expand(*ids.shape, 2)

    assert perplexity(model, TokenDataset(torch.ones(20, dtype=torch.long), 8)) == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_of_16_bits_is_evaluated_in_float32(dtype):
    dataset = TokenDataset(torch.randint(7, (5000,)), 8)
    exact, half = Dropped(), Dropped().to(dtype)
    losses = token_losses(half, dataset)
    assert losses.dtype == torch.float32 and len(losses.unique()) > 40  # 49 pairs of tokens
    assert evaluate_loss(half, dataset) == pytest.approx(evaluate_loss(exact, dataset), abs=2e-3)


def test_ids_that_the_tokenizer_lacks_are_named():
    with pytest.raises(ValueError, match="ids beyond the 5 tokens of the tokenizer"):
        bits_per_byte(uniform(9), TokenDataset([0, 1, 8, 0, 0], 4), Pieces())


def test_bits_are_divided_by_the_text_of_the_predicted_tokens():
    # "the " is not predicted; then a, é (two tokens), <end>, "the ", 9 times "a"
    ids = torch.tensor([1, 0, 2, 3, 4, 1] + [0] * 9)
    dataset = TokenDataset(ids, 4)
    bits = 14 * math.log2(5)
    assert bits_per_byte(uniform(5), dataset, Pieces()) == pytest.approx(bits / (1 + 2 + 4 + 9))
    assert bits_per_character(uniform(5), dataset, Pieces()) == pytest.approx(
        bits / (1 + 1 + 4 + 9))


def test_a_text_of_special_tokens_only_has_no_size():
    with pytest.raises(ValueError, match="special tokens only"):
        bits_per_byte(uniform(5), TokenDataset([4] * 9, 4), Pieces())


def test_the_bootstrap_interval_covers_the_true_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for seed in range(100):
        losses = torch.randn(1200, generator=generator).exp()  # skewed, like token losses
        low, high = bootstrap_interval(losses, 0.9, block=10, resamples=200, seed=seed)
        covered += low < math.exp(0.5) < high
    assert 80 <= covered <= 98  # 90 expected, standard deviation 3


def test_blocks_widen_the_interval_where_neighbours_are_alike():
    generator = torch.Generator().manual_seed(0)
    losses = torch.randn(200, generator=generator).repeat_interleave(32)

    def width(block):
        low, high = bootstrap_interval(losses, block=block)
        return high - low

    # 6,400 losses, but 200 independent ones: the interval must be sqrt(32) times as wide
    assert width(64) / width(1) == pytest.approx(32**0.5, rel=0.2)


def test_the_paired_interval_is_narrower_than_the_difference_of_two():
    generator = torch.Generator().manual_seed(0)
    hard = torch.randn(4000, generator=generator).exp()
    a = hard + 0.05 + 0.1 * torch.randn(4000, generator=generator)
    low, high = paired_bootstrap(a, hard)
    assert 0.03 < low < 0.05 < high < 0.07
    low_a, high_a = bootstrap_interval(a)
    assert high_a - low_a > 5 * (high - low)


def test_the_interval_repeats_with_its_seed_and_leaves_the_global_one_alone():
    losses = torch.rand(1000)
    state = torch.get_rng_state()
    assert bootstrap_interval(losses, seed=1) == bootstrap_interval(losses, seed=1)
    assert bootstrap_interval(losses, seed=1) != bootstrap_interval(losses, seed=2)
    assert torch.equal(state, torch.get_rng_state())


def test_intervals_that_cannot_be_computed_are_refused():
    with pytest.raises(ValueError, match="got 100 losses for blocks of 64; expected at least 128"):
        bootstrap_interval(torch.rand(100))
    with pytest.raises(ValueError, match="level is 95"):
        bootstrap_interval(torch.rand(1000), level=95)
    with pytest.raises(ValueError, match="expected the same tokens"):
        paired_bootstrap(torch.rand(1000), torch.rand(999))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_of_a_masked_data_set_only_learned_tokens_count(batch_size):
    ids = torch.randint(7, (45,), generator=torch.Generator().manual_seed(1))
    learn = torch.rand(45, generator=torch.Generator().manual_seed(2)) < 0.3
    learn[0], learn[44] = True, True  # the first is never predicted, the last in a short window
    model = Dropped().eval()
    dataset = TokenDataset(ids, 8, learn=learn)
    losses = token_losses(model, dataset, batch_size)
    expected = -model.table.weight.log_softmax(1)[ids[:-1], ids[1:]].detach()[learn[1:]]
    torch.testing.assert_close(losses, expected)
    assert evaluate_loss(model, dataset, batch_size) == pytest.approx(expected.mean().item())
    assert perplexity(model, dataset) == pytest.approx(expected.mean().exp().item(), rel=1e-5)


def test_the_loss_is_the_one_that_training_sees():
    ids = torch.randint(7, (33,), generator=torch.Generator().manual_seed(1))
    dataset = TokenDataset(ids, 32, learn=torch.arange(33) % 3 == 0)
    model = Dropped().eval()
    x, y = next(batches(dataset, 1))  # there is one window
    assert evaluate_loss(model, dataset) == pytest.approx(next_token_loss(model(x), y).item())


def test_bits_of_learned_tokens_are_divided_by_their_own_text():
    # learned are a, é (two tokens) and <end>, of "the a é <end> the aa"
    ids, learn = [1, 0, 2, 3, 4, 1, 0, 0], [False, True, True, True, True, False, False, False]
    dataset = TokenDataset(ids, 4, learn=torch.tensor(learn))
    bits = 4 * math.log2(5)
    assert bits_per_byte(uniform(5), dataset, Pieces()) == pytest.approx(bits / 3)
    assert bits_per_character(uniform(5), dataset, Pieces()) == pytest.approx(bits / 2)


def test_one_constant_says_what_is_ignored():
    assert loop.IGNORED is datasets.IGNORED == -100
