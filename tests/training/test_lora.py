"""LoRA: starts at the model, trains beside it, merges and comes apart, and is peft's."""

import peft
import pytest
import torch
from torch import nn

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.training.config import TrainConfig
from gptlib.training.loop import next_token_loss, train
from gptlib.training.lora import LoRALinear, add_lora, lora_layers, merge, remove_lora, unmerge
from gptlib.writing.generation import generate

BLOCK = ["attention.qkv", "attention.output", "feed_forward.up", "feed_forward.down"]


def small(**changes):
    torch.manual_seed(1)
    return GPT(GPTConfig(31, 12, n_layer=2, n_head=2, n_embd=16, **changes))


def trained(model):
    """The model with changes of every LoRA layer that are not zero."""
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.B, std=0.2)
    return model


IDS = torch.randint(31, (3, 12), generator=torch.Generator().manual_seed(0))


def test_a_worked_example():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    lora = LoRALinear(layer, rank=1, alpha=2.0)
    lora.A.data, lora.B.data = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.5], [0.0]])
    # W + 2 B A = [[1, 0], [0, 1]] + 2 [[0.5, 0.5], [0, 0]] = [[2, 1], [0, 1]]
    assert lora(torch.tensor([3.0, 4.0])).tolist() == [10.0, 4.0]
    lora.merge()
    assert lora.weight.tolist() == [[2.0, 1.0], [0.0, 1.0]]


def test_it_starts_at_the_trained_model_and_only_the_change_is_trained():
    model = small()
    before, whole = model(IDS), {n: p.clone() for n, p in model.named_parameters()}
    names = add_lora(model, rank=3)
    assert names == [f"blocks.{i}.{name}" for i in range(2) for name in BLOCK]
    assert torch.equal(model(IDS), before)
    learned = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in learned) == 2 * 3 * (16 * 4 + 16 * 2 + 16 * 5 + 16 * 5)
    optimizer = torch.optim.SGD(learned, 0.5)
    losses = [step.loss for step in train(model, iter([(IDS[:, :-1], IDS[:, 1:])] * 30), optimizer,
                                          TrainConfig(max_steps=30))]
    assert losses[-1] < losses[0] - 0.1
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, whole[name.replace(".base.", ".")]), name


def test_merged_computes_the_same_and_unmerged_is_the_old_model_bit_for_bit():
    model = small()
    add_lora(model, rank=4)
    trained(model)
    before = {name: layer.weight.clone() for name, layer in lora_layers(model).items()}
    beside = model(IDS)
    merge(model)
    torch.testing.assert_close(model(IDS), beside, atol=1e-5, rtol=1e-5)
    merge(model)  # a second time changes nothing
    torch.testing.assert_close(model(IDS), beside, atol=1e-5, rtol=1e-5)
    unmerge(model)
    assert torch.equal(model(IDS), beside)
    assert all(torch.equal(layer.weight, before[n]) for n, layer in lora_layers(model).items())


def test_removed_after_merging_it_is_a_plain_model_with_the_same_text():
    model = small()
    add_lora(model)
    prompt = trained(model).eval() and IDS[:1, :3]
    wanted = generate(model, prompt, max_new_tokens=6, temperature=0.0)
    merge(model)
    remove_lora(model)
    assert not lora_layers(model) and set(model.state_dict()) == set(small().state_dict())
    assert torch.equal(generate(model, prompt, max_new_tokens=6, temperature=0.0), wanted)


@pytest.mark.parametrize("options, message", [
    ({"rank": 0}, "rank is 0"), ({"rank": 2.0}, "rank is 2.0"),
    ({"targets": ("query",)}, "no linear layer is named query; the model has down, output, qkv"),
])
def test_what_cannot_be_done_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        add_lora(small(), **options)


def test_a_second_lora_on_top_is_refused():
    model = small()
    add_lora(model)
    with pytest.raises(ValueError, match="already"):
        add_lora(model)


@pytest.mark.parametrize("shape", [{}, {"bias": False, "norm": "rmsnorm", "position": "rope",
                                        "activation": "swiglu", "n_kv_head": 1}])
def test_it_learns_step_by_step_what_peft_learns(shape):
    ours, theirs = small(**shape), small(**shape)
    names = add_lora(ours, rank=4, alpha=8)
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=names, lora_dropout=0.0)
    peft.inject_adapter_in_model(settings, theirs)
    found = dict(theirs.named_modules())
    for name, layer in lora_layers(ours).items():
        layer.A.data = found[name].lora_A["default"].weight.data.clone()
    optimizers = [torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], 1e-2)
                  for m in (ours, theirs)]
    for _ in range(20):
        losses = []
        for model, optimizer in zip((ours, theirs), optimizers):
            loss = next_token_loss(model(IDS[:, :-1]), IDS[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
