"""DPO is TRL's: the same losses, rewards, gradients and weights, step by step."""

import pytest
import torch
from torch import nn

from gptlib.training.config import TrainConfig
from gptlib.training.loop import train
from gptlib.training.preference import (
    DPO,
    Pair,
    pair_log_probabilities,
    pair_rows,
    pair_scores,
)

WORDS, END, STEPS, RATE = 30, 30, 4, 0.5
PAIRS = [Pair([3, 4, 5], [6, 7, 8, END], [9, END]), Pair([1, 2], [END], [4, 4, 1, 6, END]),
         Pair([7], [1, 2, END], [2, 1, END]), Pair([8, 9, 2, 5], [3, END], [6, 0, 6, END])]


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=WORDS + 1, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, initializer_range=0.3))


class Logits(nn.Module):
    """A model of Transformers as this book calls models: ids (B, T) to logits (B, T, V)."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, ids):
        return self.inner(ids).logits


def words(ids):
    return " ".join(f"w{i}" for i in ids if i != END)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """TRL's own training on two pairs a step, from texts: its log and its last weights."""
    import datasets
    import trl
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)} | {"<end>": END}, "w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>",
                                        pad_token="<end>")
    model = llama()
    settings = trl.DPOConfig(
        str(tmp_path_factory.mktemp("trl")), per_device_train_batch_size=2, max_steps=STEPS,
        learning_rate=RATE, lr_scheduler_type="constant", optim="sgd", max_grad_norm=1e9,
        train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to=[],
        use_cpu=True, bf16=False, activation_checkpointing=False, disable_tqdm=True)
    rows = [{"prompt": words(pair.prompt), "chosen": " " + words(pair.chosen) + " ",
             "rejected": " " + words(pair.rejected) + " "} for pair in PAIRS]
    trainer = trl.DPOTrainer(model, llama(), settings, processing_class=tokenizer,
                             train_dataset=datasets.Dataset.from_list(rows))
    trainer.train()
    log = [line for line in trainer.state.log_history if "loss" in line]
    assert len(log) == STEPS
    return log, model


def test_each_step_has_trl_s_loss_rewards_and_gradient_and_the_weights_end_alike(theirs):
    log, trained = theirs
    model = Logits(llama())
    reference = pair_log_probabilities(model, PAIRS)
    groups = [slice(0, 2), slice(2, 4)] * (STEPS // 2)
    batches = ((*pair_rows(PAIRS[part]), reference[part].T.flatten()) for part in groups)
    steps = train(model, batches, torch.optim.SGD(model.parameters(), RATE),
                  TrainConfig(max_steps=STEPS, grad_clip=None), loss=DPO())
    for line, part in zip(log, groups, strict=True):
        now = pair_log_probabilities(model, PAIRS[part])
        scores, step = pair_scores(now, reference[part]), next(steps)
        assert step.loss == pytest.approx(line["loss"], abs=1e-5)
        assert step.grad_norm == pytest.approx(line["grad_norm"], rel=1e-5)
        assert scores.loss == pytest.approx(line["loss"], abs=1e-5)
        assert scores.margin == pytest.approx(line["rewards/margins"], abs=1e-5)
        assert scores.chosen == pytest.approx(line["logps/chosen"], abs=1e-4)
        assert scores.rejected == pytest.approx(line["logps/rejected"], abs=1e-4)
        rewards = 0.1 * (now - reference[part]).mean(0)
        assert rewards[0] == pytest.approx(line["rewards/chosen"], abs=1e-5)
        assert rewards[1] == pytest.approx(line["rewards/rejected"], abs=1e-5)
    moved = 0.0
    for p, q, start in zip(model.parameters(), trained.parameters(), llama().parameters()):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)
        moved = max(moved, (p - start).abs().max().item())
    assert moved > 0.1  # otherwise equal weights would say little


def test_rows_are_those_of_trl_s_collator():
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    x, y = pair_rows(PAIRS)
    theirs = DataCollatorForPreference(pad_token_id=0)(
        [{"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
         for pair in PAIRS])
    answers = theirs["completion_mask"][:, 1:].bool()
    assert torch.equal(y != -100, answers)
    assert torch.equal(y[answers], theirs["input_ids"][:, 1:][answers])
    read = theirs["attention_mask"][:, 1:].bool()  # a row reads all of its tokens but the last
    assert torch.equal(x[read], theirs["input_ids"][:, :-1][read])
