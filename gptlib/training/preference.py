"""DPO: teach a model by pairs of answers of which one is better (Rafailov et al., 2023,
arXiv:2305.18290).

Of all models that earn a reward r and pay beta for each nat of distance to a reference model, the
best one is p(y) = p_ref(y) exp(r(y) / beta) / Z. Read backwards, every model p stands for a reward:
r(y) = beta log(p(y) / p_ref(y)), up to a constant that two answers to one prompt share. DPO puts it
into the probability that y beats y', sigmoid(r(y) - r(y')), and trains p on the pairs themselves:

    reference = pair_log_probabilities(model, pairs)  # once, before the first step
    batches = pair_batches(pairs, reference, batch_size=4)
    for step in train(model, batches, optimizer, config, loss=DPO()):

Before the first step the model is its own reference, also with LoRA, whose change is then zero or
what an earlier training left there. Train without dropout, whose noise would be taken for reward.

What length does: the reward is a sum over tokens, so a long answer has more room to earn or to lose
it. Where chosen answers are longer than rejected ones, the model learns to write longer, further
than the pairs do (Park et al., 2024, arXiv:2403.19159); where they are shorter, to stop sooner.
Print both mean lengths before you train. And only the difference of two rewards counts: the chosen
answers may become less likely while the rejected ones fall faster (`PairScores` shows both).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gptlib.runtime import device_of, mode
from gptlib.text.datasets import IGNORED

BETA = 0.1  # the price of a nat of distance to the reference: the default of the paper and of TRL


class Pair(NamedTuple):
    """Two answers to one prompt, as token ids. An answer includes the token that ends it."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


def pair_rows(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Inputs and targets (2 B, T) of B pairs: the chosen answers, below them the rejected ones.

    Targets are the inputs one token later and IGNORED in the prompt and in the padding on the
    right, which a causal model does not see. Raises ValueError for a pair with an empty part.
    """
    rows = [(list(pair.prompt), list(pair.chosen)) for pair in pairs]
    rows += [(list(pair.prompt), list(pair.rejected)) for pair in pairs]
    for prompt, answer in rows:
        if not prompt or not answer:
            raise ValueError(f"a pair has a prompt of {len(prompt)} tokens and an answer of "
                             f"{len(answer)}; expected 1 or more in each: an empty reply is its "
                             f"end token")
    x = [(prompt + answer)[:-1] for prompt, answer in rows]
    y = [[IGNORED] * (len(prompt) - 1) + answer for prompt, answer in rows]
    return _padded(x, 0), _padded(y, IGNORED)


def _padded(rows: list[list[int]], filler: int) -> Tensor:
    T = max(map(len, rows))
    return torch.tensor([row + [filler] * (T - len(row)) for row in rows])


def completion_log_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability in nats of each row's answer, (B,), from logits (B, T, V): the sum over all
    targets (B, T) that are not IGNORED."""
    counted = targets != IGNORED
    log_p = logits[counted].float().log_softmax(-1)  # (tokens, V): prompts and padding left out
    taken = log_p.gather(1, targets[counted][:, None])[:, 0]
    return torch.zeros_like(targets, dtype=torch.float32).masked_scatter(counted, taken).sum(1)


@torch.no_grad()
def pair_log_probabilities(model: Callable[[Tensor], Tensor], pairs: Sequence[Pair],
                           batch_size: int = 4) -> Tensor:
    """Log-probabilities in nats of the answers of N pairs, (N, 2): chosen, rejected.

    `model` is any callable (B, T) -> (B, T, V) logits; modules are in eval mode meanwhile.
    """
    if not len(pairs):
        raise ValueError("there are no pairs; expected at least one")
    found, device = [], device_of(model)
    with mode(model, training=False):
        for i in range(0, len(pairs), batch_size):
            x, y = (rows.to(device) for rows in pair_rows(pairs[i:i + batch_size]))
            found.append(completion_log_probabilities(model(x), y).view(2, -1).T.cpu())
    return torch.cat(found)


def pair_batches(pairs: Sequence[Pair], reference: Tensor, batch_size: int, seed: int = 0,
                 start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless batches for `train` with the loss `DPO`: inputs and targets of `pair_rows`, and the
    reference's log-probabilities (2 B,) of the same rows, drawn from `reference` (N, 2).

    Pairs are drawn with replacement. Batch number i depends on (seed, i) alone, so a run that
    stopped after k batches goes on with `start=k`.
    """
    if reference.shape != (len(pairs), 2):
        raise ValueError(f"the reference has shape {tuple(reference.shape)} for {len(pairs)} "
                         f"pairs; expected ({len(pairs)}, 2): pass what pair_log_probabilities "
                         f"returned for these pairs before the training")
    if batch_size < 1 or seed < 0 or start < 0:
        raise ValueError(f"batch_size is {batch_size}, seed {seed} and start {start}; expected 1 "
                         f"or more pairs in a batch, and numbers from 0 on")
    return _batches(pairs, reference, batch_size, seed, start)


def _batches(pairs, reference, batch_size, seed, number):
    while True:
        drawn = np.random.default_rng((seed, number)).integers(len(pairs), size=batch_size)
        yield *pair_rows([pairs[i] for i in drawn]), reference[drawn].T.flatten()
        number += 1


def dpo_loss(chosen: Tensor, rejected: Tensor, reference_chosen: Tensor,
             reference_rejected: Tensor, beta: float = BETA) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of each pair in nats and the rewards of its two answers, each (B,).

    The four arguments are log-probabilities (B,) of whole answers. The loss is the surprise that
    the chosen answer won: -log sigmoid(reward of the chosen one - reward of the rejected one).
    """
    winner = beta * (chosen - reference_chosen)
    loser = beta * (rejected - reference_rejected)
    return -functional.logsigmoid(winner - loser), winner, loser


class DPO:
    """The loss of preference pairs, for `train(..., loss=DPO(beta))`: items are pairs."""

    def __init__(self, beta: float = BETA):
        if not beta > 0:
            raise ValueError(f"beta is {beta}; expected a number above 0, such as {BETA}")
        self.beta = beta

    def count(self, targets: Tensor, reference: Tensor) -> int:
        """Pairs in a batch: half of its rows."""
        return len(targets) // 2

    def total(self, logits: Tensor, targets: Tensor, reference: Tensor) -> Tensor:
        """The sum of the pairs' losses in nats, for logits (2 B, T, V), see `pair_batches`."""
        if len(targets) % 2 or reference.shape != targets.shape[:1]:
            raise ValueError(f"got {len(targets)} rows and a reference of shape "
                             f"{tuple(reference.shape)}; expected the chosen answers, below them "
                             f"as many rejected ones, and a number for each row. Of several "
                             f"processes each needs whole pairs: change batch_size")
        log_p = completion_log_probabilities(logits, targets)
        losses, _, _ = dpo_loss(*log_p.chunk(2), *reference.chunk(2), self.beta)
        return losses.sum()


class PairScores(NamedTuple):
    """How well a model tells better answers from worse ones, as means over pairs."""

    loss: float  # nats; log 2 = 0.693 is guessing
    accuracy: float  # share of pairs whose chosen answer has the larger reward; a tie is half
    margin: float  # reward of the chosen answer minus that of the rejected one
    chosen: float  # log-probability of the chosen answer, in nats
    rejected: float  # log-probability of the rejected one


def pair_scores(log_p: Tensor, reference: Tensor, beta: float = BETA) -> PairScores:
    """The scores of a model on pairs, from its log-probabilities and the reference's, (N, 2) each.

    Both are what `pair_log_probabilities` returns, of pairs that were held out.
    """
    losses, winner, loser = dpo_loss(*log_p.T, *reference.T, beta)
    margins = winner - loser
    right = (margins > 0).float() + (margins == 0).float() / 2
    means = (losses, right, margins, log_p[:, 0], log_p[:, 1])
    return PairScores(*(values.mean().item() for values in means))
