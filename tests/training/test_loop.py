"""The training loop: gradients, schedules, failures, repeatability, several processes."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.datasets import TokenDataset, batches
from gptlib.training import loop
from gptlib.training.config import TrainConfig
from gptlib.training.loop import accumulate_gradients, next_token_loss, train
from gptlib.training.optim import SGD, AdamW, Muon, parameter_groups

DATA = TokenDataset((torch.arange(2000) ** 2 // 7) % 13, context_length=8)


def small_gpt(seed=0, **changes):
    torch.manual_seed(seed)
    return GPT(GPTConfig.modern(13, 8, **({"n_layer": 1, "n_head": 2, "n_embd": 16} | changes)))


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


def run(model, optimizer, config, **options):
    return list(train(model, batches(DATA, 4), optimizer, config, **options))


def test_the_loss_of_a_uniform_model_is_the_log_of_the_vocabulary():
    loss = next_token_loss(torch.zeros(2, 3, 13), torch.randint(13, (2, 3)))
    assert loss.item() == pytest.approx(torch.tensor(13.0).log().item())


def test_the_loss_is_that_of_cross_entropy_with_classes_in_dimension_one():
    logits, targets = torch.randn(2, 5, 13), torch.randint(13, (2, 5))
    targets[0, 1] = targets[1, 4] = -100
    expected = functional.cross_entropy(logits.transpose(1, 2), targets)
    torch.testing.assert_close(next_token_loss(logits, targets), expected)


def test_logits_that_do_not_fit_the_targets_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 13\) and targets \(2, 5\); expected"):
        next_token_loss(torch.zeros(2, 13), torch.zeros(2, 5, dtype=torch.long))


def test_training_learns():
    model, counting = small_gpt(), TokenDataset(torch.arange(2000) % 13, context_length=8)
    steps = list(train(model, batches(counting, 4), AdamW(parameter_groups(model), lr=1e-2),
                       TrainConfig(max_steps=60)))
    assert steps[0].loss == pytest.approx(2.565, abs=0.1)  # ln 13
    assert steps[-1].loss < 0.5 * steps[0].loss
    assert [step.step for step in steps] == list(range(1, 61))
    assert all(step.tokens_per_second > 0 for step in steps)


def test_training_is_the_plain_loop():
    model, plain = small_gpt(), small_gpt()
    config = TrainConfig(max_steps=3, grad_clip=0.1)
    steps = run(model, SGD(model.parameters(), lr=0.5), config)
    for step, (x, y) in zip(steps, batches(DATA, 4)):
        plain.zero_grad()
        loss = next_token_loss(plain(x), y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        with torch.no_grad():
            for p in plain.parameters():
                p -= 0.5 * p.grad
        assert step.loss == pytest.approx(loss.item())
        assert step.grad_norm == pytest.approx(norm.item(), rel=1e-5)
        assert norm > 0.1  # otherwise the clipping would not be tested
    for p, q in zip(model.parameters(), plain.parameters()):
        torch.testing.assert_close(p, q)


def test_seeded_training_repeats_bitwise():
    finals = []
    for _ in range(2):
        model = small_gpt(dropout=0.2)
        run(model, Muon(parameter_groups(model, muon=True)), TrainConfig(max_steps=20))
        finals.append(list(model.parameters()))
    assert all(torch.equal(p, q) for p, q in zip(*finals))


def test_the_learning_rate_follows_the_schedule_in_every_group():
    model = small_gpt()
    optimizer = Muon(parameter_groups(model, muon=True), lr=0.02, adamw_lr=0.003)
    config = TrainConfig(max_steps=10, warmup_steps=4, schedule="linear")
    rates = []
    for _ in train(model, batches(DATA, 4), optimizer, config):
        rates.append([group["lr"] / group["initial_lr"] for group in optimizer.param_groups])
    assert rates[0] == pytest.approx([0.2] * len(optimizer.param_groups))
    assert rates[4] == pytest.approx([1.0] * len(optimizer.param_groups))
    assert rates[9] == pytest.approx([1 / 6] * len(optimizer.param_groups))


def test_accumulated_gradients_equal_the_big_batch():
    big, small = small_gpt(), small_gpt()
    x, y = next(batches(DATA, 8))
    y[:3, :7] = -100  # the halves predict different numbers of tokens
    loss, tokens = accumulate_gradients(big, [(x, y)])
    halves = [(x[:4], y[:4]), (x[4:], y[4:])]
    assert accumulate_gradients(small, halves) == (pytest.approx(loss), tokens)
    assert tokens == int((y >= 0).sum()) == 43
    assert loss == pytest.approx(next_token_loss(big(x), y).item())
    for p, q in zip(gradients(big), gradients(small)):
        torch.testing.assert_close(p, q)


def test_the_mean_of_batch_means_would_be_another_gradient():
    """What `accumulate_gradients` avoids; without this the test above could pass by chance."""
    model = small_gpt()
    x, y = next(batches(DATA, 8))
    y[:3, :7] = -100
    whole = next_token_loss(model(x), y)
    means = (next_token_loss(model(x[:4]), y[:4]) + next_token_loss(model(x[4:]), y[4:])) / 2
    assert abs(whole - means) > 1e-4


def test_training_with_accumulation_equals_training_on_the_joined_batches():
    def joined():
        source = batches(DATA, 4)
        while True:
            pairs = [next(source), next(source)]
            yield torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])

    model, other = small_gpt(), small_gpt()
    run(model, SGD(model.parameters(), lr=0.5), TrainConfig(max_steps=5, accumulation=2))
    list(train(other, joined(), SGD(other.parameters(), lr=0.5), TrainConfig(max_steps=5)))
    for p, q in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(p, q)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change():
    model = small_gpt()
    optimizer = AdamW(parameter_groups(model), lr=2e-3)
    steps = train(model, batches(DATA, 4), optimizer, TrainConfig(max_steps=9))
    next(steps)
    with torch.no_grad():
        model.final_norm.weight[0] = float("inf")
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(FloatingPointError, match="loss is nan at step 2 with learning rate 0.002"):
        next(steps)
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters()))


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change():
    model = small_gpt()
    before = [p.clone() for p in model.parameters()]
    model.output.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(FloatingPointError, match="gradient is nan at step 1"):
        run(model, SGD(model.parameters(), lr=0.1), TrainConfig(max_steps=9))
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters()))


def test_the_mode_of_every_module_comes_back_however_the_loop_ends():
    model = small_gpt().eval()
    model.blocks[0].train()
    before = [module.training for module in model.modules()]
    steps = train(model, batches(DATA, 4), SGD(model.parameters()), TrainConfig(max_steps=9))
    next(steps)
    assert all(module.training for module in model.modules())
    steps.close()
    assert [module.training for module in model.modules()] == before
    run(model, SGD(model.parameters()), TrainConfig(max_steps=2))
    assert [module.training for module in model.modules()] == before


def test_a_loop_body_that_leaves_the_model_in_eval_mode_does_not_switch_dropout_off():
    model = small_gpt(dropout=0.2)
    modes = []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    for _ in train(model, batches(DATA, 4), SGD(model.parameters()), TrainConfig(max_steps=3)):
        model.eval()
    assert modes == [True, True, True]


def test_batches_that_end_too_soon_are_named():
    model = small_gpt()
    few = itertools.islice(batches(DATA, 4), 3)
    with pytest.raises(ValueError, match="the batches ended at step 4 of 9"):
        list(train(model, few, SGD(model.parameters()), TrainConfig(max_steps=9)))


def test_targets_that_are_all_ignored_are_refused():
    x, y = next(batches(DATA, 4))
    with pytest.raises(ValueError, match="every target of the batch is ignored"):
        accumulate_gradients(small_gpt(), [(x, y.fill_(-100))])


def test_bfloat16_stays_close_to_float32_and_keeps_float32_weights():
    losses = {}
    for precision in ("float32", "bfloat16"):
        model = small_gpt()
        steps = run(model, AdamW(parameter_groups(model), lr=1e-2),
                    TrainConfig(max_steps=30, precision=precision))
        losses[precision] = steps[-1].loss
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.1)


def test_float16_without_a_gpu_is_refused():
    model = small_gpt()
    with pytest.raises(ValueError, match="float16.*on cpu.*'bfloat16'"):
        run(model, SGD(model.parameters()), TrainConfig(max_steps=1, precision="float16"))


def test_the_compiled_model_is_the_one_that_is_called(monkeypatch):
    """Compiling takes half a minute and a C++ compiler, so we look at what is handed over."""
    model, compiled = small_gpt(), []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    run(model, SGD(model.parameters()), TrainConfig(max_steps=1, compile=True))
    assert compiled == [model]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_a_gpu_learns_in_every_precision(precision):
    model = small_gpt().to("cuda")
    counting = TokenDataset(torch.arange(2000) % 13, context_length=8)
    steps = list(train(model, batches(counting, 4), AdamW(parameter_groups(model), lr=1e-2),
                       TrainConfig(max_steps=60, precision=precision)))
    assert steps[-1].loss < 0.5 * steps[0].loss


PROCESS = """
import sys, torch
import torch.distributed as distributed
sys.path.insert(0, sys.argv[1])
import test_loop as t
rank = int(sys.argv[2])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[3] + "/meet",
                               rank=rank, world_size=2)
torch.set_num_threads(1)
model = t.small_gpt(seed=rank)      # the second process starts elsewhere and must be corrected
x, y = next(t.batches(t.DATA, 4))
y[0, :6] = -100
t.loop._prepare(model, t.SGD(model.parameters()), t.TrainConfig())
loss, tokens = t.accumulate_gradients(model, [(x, y)])
grads = t.gradients(model)
model = t.small_gpt(seed=rank)
steps = t.run(model, t.SGD(model.parameters(), lr=0.5), t.TrainConfig(max_steps=5))
torch.save([loss, tokens, grads, [s.loss for s in steps], list(model.parameters())],
           sys.argv[3] + f"/{rank}.pt")
distributed.destroy_process_group()
"""


def test_two_processes_do_what_one_does_with_the_same_global_batch(tmp_path):
    command = [sys.executable, "-c", PROCESS, os.path.dirname(__file__)]
    workers = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]

    model = small_gpt()
    x, y = next(batches(DATA, 4))
    y[0, :6] = -100
    loss, tokens = accumulate_gradients(model, [(x, y)])
    grads = gradients(model)
    model = small_gpt()
    steps = run(model, SGD(model.parameters(), lr=0.5), TrainConfig(max_steps=5))
    for rank in range(2):
        saved = torch.load(tmp_path / f"{rank}.pt")
        assert saved[0] == pytest.approx(loss, abs=1e-6)
        assert saved[1] == tokens
        assert saved[3] == pytest.approx([step.loss for step in steps], abs=1e-5)
        for p, q in zip(grads, saved[2], strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-7)
        for p, q in zip(model.parameters(), saved[4], strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


def test_a_batch_that_cannot_be_shared_out_is_refused(monkeypatch):
    monkeypatch.setattr(loop, "rank", lambda: (0, 3))
    with pytest.raises(ValueError, match="4 rows for 3 processes"):
        accumulate_gradients(small_gpt(), [next(batches(DATA, 4))])


class WeightedRows:
    """A loss of another kind: each row counts as much as its weight says."""

    def count(self, targets, weights):
        return int(weights.sum())

    def total(self, logits, targets, weights):
        losses = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return (losses.mean(1) * weights).sum()


def test_another_loss_reads_what_follows_x_and_is_a_mean_over_what_it_counts():
    x, y = next(batches(DATA, 4))
    weights = torch.tensor([1.0, 2.0, 3.0, 0.0])
    parts = [(x[:1], y[:1], weights[:1]), (x[1:], y[1:], weights[1:])]
    model, plain = small_gpt(), small_gpt()
    step = next(train(model, iter(parts), SGD(model.parameters(), lr=0.5),
                      TrainConfig(max_steps=1, accumulation=2, grad_clip=None),
                      loss=WeightedRows()))
    losses = functional.cross_entropy(plain(x).transpose(1, 2), y, reduction="none").mean(1)
    loss = (losses * weights).sum() / 6
    assert step.loss == pytest.approx(loss.item())
    loss.backward()
    for p, q in zip(model.parameters(), plain.parameters()):
        torch.testing.assert_close(p, q - 0.5 * q.grad)


@pytest.mark.parametrize("start", [-1, 4, 1.0, True])
def test_a_start_that_is_no_step_of_the_run_is_refused(start):
    model = small_gpt()
    with pytest.raises(ValueError, match="start is .*; expected a whole number from 0 to 3"):
        next(train(model, batches(DATA, 4), SGD(model.parameters()), TrainConfig(max_steps=3),
                   start))
