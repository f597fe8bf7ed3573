"""DPO: rows, log-probabilities, loss and rewards by hand, and training in the same loop."""

import itertools
import math

import pytest
import torch
from torch.nn import functional

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.training import loop
from gptlib.training.config import TrainConfig
from gptlib.training.loop import accumulate_gradients, train
from gptlib.training.lora import add_lora, remove_lora
from gptlib.training.optim import AdamW, parameter_groups
from gptlib.training.preference import (
    DPO,
    Pair,
    completion_log_probabilities,
    dpo_loss,
    pair_batches,
    pair_log_probabilities,
    pair_rows,
    pair_scores,
)

END = 0


def drawn(count, seed=0):
    """Pairs of answers to prompts: the chosen one counts up from the prompt, the other does not."""
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(count):
        prompt = torch.randint(1, 11, (int(torch.randint(1, 4, (), generator=generator)),),
                               generator=generator).tolist()
        length = int(torch.randint(1, 4, (), generator=generator))
        counted = [(prompt[-1] + i) % 10 + 1 for i in range(length)]
        other = torch.randint(1, 11, (3,), generator=generator).tolist()
        pairs.append(Pair(prompt, [*counted, END], [*other, END]))
    return pairs


PAIRS = drawn(8)


def small(seed=1, **changes):
    torch.manual_seed(seed)
    return GPT(GPTConfig(11, 12, n_layer=1, n_head=2, n_embd=16, **changes))


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


def test_rows_hold_the_chosen_answers_above_the_rejected_ones_and_predict_answers_only():
    x, y = pair_rows([Pair([5, 6], [7, END], [8]), Pair([9], [1, 2, 3], [4, END])])
    assert x.tolist() == [[5, 6, 7], [9, 1, 2], [5, 6, 0], [9, 4, 0]]
    no = -100
    assert y.tolist() == [[no, 7, 0], [1, 2, 3], [no, 8, no], [4, 0, no]]


def test_the_log_probability_of_an_answer_is_the_sum_over_its_tokens_as_a_loop():
    model = small()
    x, y = pair_rows(PAIRS)
    found = completion_log_probabilities(model(x), y)
    answers = [pair.chosen for pair in PAIRS] + [pair.rejected for pair in PAIRS]
    for log_p, pair, answer in zip(found, [*PAIRS, *PAIRS], answers):
        read, total = list(pair.prompt), 0.0
        for token in answer:  # alone, without padding
            total += model(torch.tensor([read]))[0, -1].log_softmax(-1)[token].item()
            read.append(token)
        assert log_p.item() == pytest.approx(total, abs=1e-5)


def test_logits_that_forbid_padding_do_no_harm():
    logits = torch.zeros(1, 2, 3)
    logits[:, :, 0] = -math.inf
    found = completion_log_probabilities(logits, torch.tensor([[2, -100]]))
    assert found.tolist() == pytest.approx([-math.log(2)])


def test_log_probabilities_of_pairs_stand_side_by_side_for_every_batch_size():
    model = small(dropout=0.5).train()
    found = pair_log_probabilities(model, PAIRS, batch_size=3)
    assert model.training and not found.requires_grad
    model.eval()
    x, y = pair_rows(PAIRS)
    wanted = completion_log_probabilities(model(x), y)
    torch.testing.assert_close(found, torch.stack((wanted[:8], wanted[8:]), dim=1))


def test_a_worked_example_of_loss_and_rewards():
    # rewards 0.5 (-2 + 3) = 0.5 and 0.5 (-4 + 3) = -0.5; -log sigmoid(1) = log(1 + 1/e) = 0.3133
    losses, winner, loser = dpo_loss(*torch.tensor([[-2.0], [-4.0], [-3.0], [-3.0]]), beta=0.5)
    assert (winner.item(), loser.item()) == (0.5, -0.5)
    assert losses.item() == pytest.approx(0.3133, abs=1e-4)


def test_scores_before_training_are_those_of_guessing_and_afterwards_means_over_pairs():
    reference = torch.tensor([[-3.0, -3.0], [-5.0, -2.0]])
    assert pair_scores(reference, reference) == pytest.approx((math.log(2), 0.5, 0, -4.0, -2.5))
    now = torch.tensor([[-2.0, -4.0], [-6.0, -2.0]])  # rewards 0.1 and -0.1; -0.1 and 0
    scores = pair_scores(now, reference)
    assert (scores.accuracy, scores.chosen, scores.rejected) == (0.5, -4.0, -3.0)
    assert scores.margin == pytest.approx((0.2 - 0.1) / 2)
    wanted = (math.log(1 + math.exp(-0.2)) + math.log(1 + math.exp(0.1))) / 2
    assert scores.loss == pytest.approx(wanted)


def test_batches_depend_on_seed_and_number_alone_and_keep_each_reference_with_its_pair():
    reference = torch.arange(16.0).view(8, 2)
    first = list(itertools.islice(pair_batches(PAIRS, reference, 3, seed=5), 4))
    later = next(pair_batches(PAIRS, reference, 3, seed=5, start=3))
    assert all(torch.equal(a, b) for a, b in zip(first[3], later))
    other = next(pair_batches(PAIRS, reference, 3, seed=6))
    assert not torch.equal(other[2], first[0][2])
    for x, y, log_p in first:
        pairs = [PAIRS[int(number) // 2] for number in log_p[:3]]
        assert torch.equal(log_p[3:], log_p[:3] + 1)
        assert all(torch.equal(a, b) for a, b in zip(pair_rows(pairs), (x, y)))


def test_training_teaches_which_answer_is_better_also_on_pairs_held_out():
    model, pairs, held_out = small(), drawn(64), drawn(64, seed=1)
    reference, before = (pair_log_probabilities(model, part, 64) for part in (pairs, held_out))
    steps = list(train(model, pair_batches(pairs, reference, 16),
                       AdamW(parameter_groups(model), lr=1e-2), TrainConfig(max_steps=60),
                       loss=DPO()))
    assert steps[0].loss == pytest.approx(math.log(2), abs=1e-6)  # the model is its own reference
    scores = pair_scores(pair_log_probabilities(model, held_out, 64), before)
    assert scores.accuracy > 0.8 and scores.margin > 0.3 and scores.loss < 0.6
    assert scores.chosen - before[:, 0].mean() > scores.rejected - before[:, 1].mean()


def test_with_lora_the_model_is_the_reference_before_the_first_step_and_its_base_stays():
    model, plain = small(), small()
    add_lora(model, rank=4)
    reference = pair_log_probabilities(model, PAIRS)
    assert torch.equal(reference, pair_log_probabilities(plain, PAIRS))
    learned = [p for p in model.parameters() if p.requires_grad]
    steps = list(train(model, pair_batches(PAIRS, reference, 8), AdamW(learned, lr=2e-2),
                       TrainConfig(max_steps=20), loss=DPO()))
    assert steps[0].loss == pytest.approx(math.log(2), abs=1e-6)
    assert steps[-1].loss < steps[0].loss - 0.01
    remove_lora(model)  # without merging: the change is thrown away
    assert torch.equal(reference, pair_log_probabilities(model, PAIRS))


def test_accumulated_pairs_give_the_gradient_of_one_batch_of_all():
    whole, parts = small(), small()
    reference = pair_log_probabilities(small(seed=2), PAIRS)

    def batch(part):
        return *pair_rows(PAIRS[part]), reference[part].T.flatten()

    loss, count = accumulate_gradients(whole, [batch(slice(0, 8))], loss=DPO())
    assert accumulate_gradients(parts, [batch(slice(0, 2)), batch(slice(2, 8))],
                                loss=DPO()) == (pytest.approx(loss), 8)
    assert count == 8
    scores = pair_scores(pair_log_probabilities(whole, PAIRS), reference)
    assert scores.loss == pytest.approx(loss, abs=1e-6)
    for p, q in zip(gradients(whole), gradients(parts)):
        torch.testing.assert_close(p, q)


def test_the_shares_of_two_processes_are_whole_pairs_and_add_up(monkeypatch):
    reference = pair_log_probabilities(small(seed=2), PAIRS)
    batch = (*pair_rows(PAIRS), reference.T.flatten())
    model = small()
    loss, _ = accumulate_gradients(model, [batch], loss=DPO())
    whole, parts, losses = gradients(model), [], []
    monkeypatch.setattr(loop.distributed, "all_reduce", lambda tensor: None)
    for own in (0, 1):
        monkeypatch.setattr(loop, "rank", lambda: (own, 2))  # noqa: B023
        model.zero_grad()
        losses.append(accumulate_gradients(model, [batch], loss=DPO())[0])
        parts.append(gradients(model))
    assert sum(losses) == pytest.approx(loss)
    for p, a, b in zip(whole, *parts):
        torch.testing.assert_close(a + b, p)


@pytest.mark.parametrize("count", [1, 3])
def test_pairs_that_processes_would_tear_apart_are_refused(count, monkeypatch):
    batch = (*pair_rows(PAIRS[:count]), torch.zeros(2 * count))
    monkeypatch.setattr(loop, "rank", lambda: (0, 2))
    with pytest.raises(ValueError, match=f"got {count} rows.*needs whole pairs: change batch_size"):
        accumulate_gradients(small(), [batch], loss=DPO())


def test_only_the_difference_counts_so_a_larger_beta_is_a_steeper_loss():
    numbers = torch.tensor([[-2.0], [-4.0], [-3.0], [-3.0]])
    shifted = numbers - 7
    assert torch.equal(dpo_loss(*numbers)[0], dpo_loss(*shifted)[0])
    assert functional.logsigmoid(torch.tensor(2.0)) == -dpo_loss(*numbers, beta=1.0)[0]


@pytest.mark.parametrize("call, message", [
    (lambda: pair_rows([Pair([], [1], [2])]), "a prompt of 0 tokens and an answer of 1"),
    (lambda: pair_rows([Pair([3], [1], [])]), "an answer of 0; expected 1 or more in each"),
    (lambda: pair_log_probabilities(small(), []), "there are no pairs"),
    (lambda: pair_batches(PAIRS, torch.zeros(16), 2), r"shape \(16,\) for 8 pairs; expected \(8, "),
    (lambda: pair_batches(PAIRS, torch.zeros(8, 2), 0), "batch_size is 0"),
    (lambda: pair_batches(PAIRS, torch.zeros(8, 2), 2, seed=-1), "seed -1"),
    (lambda: DPO(0.0), "beta is 0.0; expected a number above 0"),
    (lambda: DPO().total(torch.zeros(4, 1, 2), torch.zeros(4, 1, dtype=torch.long),
                         torch.zeros(2)), r"4 rows and a reference of shape \(2,\)"),
])
def test_what_cannot_be_meant_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
