"""Adapting a model: the best state is kept, and a stopped training goes on as if it had not."""

import dataclasses
import json

import pytest
import torch

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.datasets import TokenDataset
from gptlib.training.adapt import AdaptConfig, adapt
from gptlib.training.adapters import load_adapter, resume_adapter, save_adapter
from gptlib.training.evaluation import evaluate_loss
from gptlib.training.lora import add_lora, lora_layers
from gptlib.training.optim import AdamW

CONFIG = AdaptConfig(rank=2, learning_rate=0.3, max_steps=8, warmup_steps=1, evaluate_every=2)


def base():
    torch.manual_seed(1)
    return GPT(GPTConfig(29, 16, n_layer=2, n_head=2, n_embd=16))


def data(seed):
    ids = torch.randint(29, (200,), generator=torch.Generator().manual_seed(seed))
    return TokenDataset(ids, 16)


def run(folder, config=CONFIG, stop=None):
    torch.manual_seed(0)
    model, losses = base(), {}
    for step, val_loss in adapt(model, data(0), data(1), config, folder):
        if val_loss is not None:
            losses[step.step] = val_loss
        if step.step == stop:
            break
    return model, losses


def test_the_adapter_of_the_lowest_validation_loss_is_kept(tmp_path):
    losses = run(tmp_path, dataclasses.replace(CONFIG, max_steps=40, evaluate_every=10))[1]
    best = min(losses, key=losses.get)
    assert list(losses) == [10, 20, 30, 40] and best < 40  # random ids: it learns them by heart
    model = base()
    about = load_adapter(tmp_path / "best", model)
    assert about["step"] == best and about["val_loss"] == losses[best]
    assert evaluate_loss(model, data(1)) == pytest.approx(losses[best], abs=0.01)  # in bfloat16


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path):
    whole = run(tmp_path / "whole")[0]
    run(tmp_path / "parts", stop=5)  # one step after the last save
    parts = run(tmp_path / "parts")[0]
    for name, layer in lora_layers(whole).items():
        assert torch.equal(layer.B, lora_layers(parts)[name].B) and layer.B.any()
    logs = [[json.loads(line) for line in (tmp_path / each / "log.jsonl").open()]
            for each in ("whole", "parts")]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]


def test_other_settings_than_its_own_are_refused(tmp_path):
    run(tmp_path, stop=2)
    with pytest.raises(ValueError, match="go on with its own settings"):
        run(tmp_path, dataclasses.replace(CONFIG, learning_rate=0.01))
    with pytest.raises(ValueError, match="go on with its own settings"):  # another text
        next(adapt(base(), data(2), data(1), CONFIG, tmp_path))


def test_an_adapter_without_optimizer_and_one_that_is_not_finite_are_refused(tmp_path):
    model = base()
    add_lora(model, 2)
    save_adapter(tmp_path / "plain", model, "a base")
    parameters = [p for p in model.parameters() if p.requires_grad]
    with pytest.raises(ValueError, match="holds no optimizer state"):
        resume_adapter(tmp_path / "plain", AdamW(parameters, 0.1))
    with torch.no_grad():
        next(iter(lora_layers(model).values())).B[0, 0] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        save_adapter(tmp_path / "broken", model, "a base")
    assert not (tmp_path / "broken" / "adapter.json").exists()
