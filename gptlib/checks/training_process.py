"""Checks of chapter 3.3, the training process."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gptlib.checks import (
    as_number,
    as_tensor,
    attempt,
    close,
    exercise,
    expect,
    expect_agreement,
)
from gptlib.training.loop import next_token_loss

_IDS = torch.tensor([5, 2, 7, 1, 9, 4, 8, 3, 6, 0])


@exercise
def check_windows(answer: Any) -> None:
    """`windows(ids, T, starts)` -> x, y, both (B, T): one window for each place in `starts`."""
    starts, T = [0, 3, 5], 4
    result = attempt(answer, _IDS, T, starts)
    expect(len(result) == 2, "return two tensors, x and y: `return x, y`")
    x, y = map(as_tensor, result)
    right_x = torch.stack([_IDS[s:s + T] for s in starts])
    right_y = torch.stack([_IDS[s + 1:s + T + 1] for s in starts])
    expect(x.shape != (T, len(starts)),
           "x has shape (T, B): a window is a row, so the shape should be (B, T)")
    expect(x.shape != (len(starts), T + 1),
           "x has T + 1 columns: the last token of the window is an answer only, not a question")
    expect(x.shape == (len(starts), T) == y.shape, f"x has shape {tuple(x.shape)} and y "
           f"{tuple(y.shape)}; expected (B, T) = {(len(starts), T)} for both")
    expect(not torch.equal(x, right_x[:1].expand(3, T)),
           "every row is the first window: row b starts at starts[b]")
    expect(torch.equal(x, right_x), f"for starts {starts} the rows of x should begin with the ids "
           f"{right_x[:, 0].tolist()}; yours begin with {x[:, 0].tolist()}")
    expect(not torch.equal(y, x), "y equals x: the model would be asked for the token that it is "
           "reading; y is x one token later")
    expect(not torch.equal(y[:, 1:], x[:, :-1]),
           "y holds the token before each position: that trains a model to write backwards")
    expect(not torch.equal(y[0], _IDS[T:2 * T]),
           "y is the next window: at every position the answer is the very next token, so y "
           "overlaps x in all but one token")
    expect(torch.equal(y, right_y), f"the first row of x is {x[0].tolist()}; its y should be "
           f"{right_y[0].tolist()}, yours is {y[0].tolist()}")
    expect_agreement(answer, _windows, [
        (_IDS, 1, [8]), (_IDS, 7, [2, 0]), (torch.arange(30) * 3, 5, [9, 9, 24, 0])])


def _windows(ids: torch.Tensor, T: int, starts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.stack([ids[s:s + T] for s in starts]),
            torch.stack([ids[s + 1:s + T + 1] for s in starts]))


class _Table(nn.Module):
    """A model with one row of logits per token; it stops a loop that would never end."""

    def __init__(self, vocab_size: int = 5) -> None:
        super().__init__()
        self.rows = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.rows.weight)
        self.calls = 0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        expect(self.calls <= 300, "300 forward passes and no end: is the loss computed anew in "
               "each round, and does optimizer.step() come after loss.backward()?")
        return self.rows(ids)


_X, _Y = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[1, 2, 3, 4]])


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.5)


def _steps(goal: float, clear: bool = True) -> tuple[int, torch.Tensor]:
    """The right answer, or that of a loop without `zero_grad`, and the weights it ends with."""
    model = _Table()
    steps = _train(model, _X, _Y, _sgd(model), goal, clear)
    return steps, model.rows.weight.detach()


def _train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, optimizer: torch.optim.Optimizer,
           goal: float, clear: bool = True) -> int:
    steps = 0
    while (loss := next_token_loss(model(x), y)).item() >= goal:
        if clear:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return steps


@exercise
def check_steps_to_memorise(answer: Any) -> None:
    """`steps_to_memorise(model, x, y, optimizer, goal)` -> updates until the loss is below goal."""
    goal = 1.0
    model = _Table()
    got = as_number(attempt(answer, model, _X, _Y, _sgd(model), goal))
    (right, weights), (careless, _) = _steps(goal), _steps(goal, clear=False)
    expect(got == round(got), f"you returned {got:.4f}, which looks like a loss: return the number "
           "of updates")
    expect(got != careless, f"you returned {careless}, what a loop without zero_grad takes: each "
           "backward adds to the gradients of the steps before")
    expect(got != right + 1, "one too many: the last look, which finds the loss below the goal, is "
           "not followed by an update")
    expect(got != right - 1, "one too few: count every call of optimizer.step()")
    expect(got == right, f"a small test model needs {right} updates; you returned {got:.0f}")
    expect(close(model.rows.weight, weights),
           "the number is right, but the model was updated once more after reaching the goal")
    done = _Table()
    none = as_number(attempt(answer, done, _X, _Y, _sgd(done), 5.0))
    expect(none == 0, f"a model that is below the goal already needs 0 updates; you returned "
           f"{none:.0f}: look at the loss before you update")
    _expect_other_trainings(answer)


def _expect_other_trainings(answer: Callable) -> None:
    """A goal that is met exactly is not below itself; another model, batch and optimizer."""
    level = _Table()
    exact = next_token_loss(level(_X), _Y).item()
    got = as_number(attempt(answer, level, _X, _Y, _sgd(level), exact))
    expect(got == 1, f"a loss that equals the goal is not below it: 1 update is needed, you "
           f"returned {got:.0f}")
    x, y = torch.tensor([[2, 0, 1], [1, 2, 2]]), torch.tensor([[0, 1, 1], [2, 2, 0]])
    mine, yours = _Table(3), _Table(3)
    right = _train(mine, x, y, torch.optim.Adam(mine.parameters(), lr=0.2), 0.8)
    adam = torch.optim.Adam(yours.parameters(), lr=0.2)
    got = as_number(attempt(answer, yours, x, y, adam, 0.8))
    expect(got == right and close(yours.rows.weight, mine.rows.weight),
           f"right for one batch of one row and SGD, wrong for x (2, 3) and Adam: expected {right} "
           f"updates with the optimizer that is passed in, got {got:.0f}")


@exercise
def check_frequency_loss(answer: Any) -> None:
    """`frequency_loss(train_ids, val_ids, vocab_size)` -> nats per token of add-one frequencies."""
    train, val, V = torch.tensor([0, 0, 1, 2, 0, 1]), torch.tensor([0, 1, 1, 2, 0, 0, 2, 1]), 4
    got = as_number(attempt(answer, train, val, V))
    counts = torch.bincount(train, minlength=V).double()
    p = (counts + 1) / (counts.sum() + V)
    surprise = -p.log()[val]
    right = surprise.mean().item()
    own = (torch.bincount(val, minlength=V) + 1.0) / (len(val) + V)
    expect(not close(got, -own.log()[val].mean()),
           "you counted in the held-out text: the model would have seen the answers; count in "
           "train_ids, measure on val_ids")
    expect(not close(got, -(counts / counts.sum()).log()[val].mean()),
           "you left out the 1 that is added to each count: a token that training never showed "
           "would get probability 0 and the loss would be infinite")
    expect(not close(got, -((counts + 1) / counts.sum()).log()[val].mean()),
           "your probabilities sum to more than 1: with 1 added to each of the V counts, divide by "
           "N + V")
    expect(not close(got, surprise.sum()), "this is the sum over the tokens: take the mean")
    expect(not close(got, -right), "the sign: a loss is minus the logarithm")
    expect(not close(got, right / math.log(2)), "these are bits: use the natural logarithm")
    expect(not close(got, -p.log().mean()),
           "you averaged over the vocabulary: average over the tokens of val_ids, so that frequent "
           "ones count often")
    expect(not close(got, -(p * p.log()).sum()),
           "this is the entropy of the frequencies, the loss on the training text's own "
           "distribution: average -log p over the tokens of val_ids")
    expect(close(got, right), f"for train_ids {train.tolist()}, val_ids {val.tolist()} and V = 4 "
           f"the loss is {right:.4f}; yours is {got:.4f}")
    unseen = as_number(attempt(answer, train, torch.tensor([3]), V))
    expect(close(unseen, math.log(10)), "token 3 never occurs in train_ids: with one added its "
           f"probability is 1/10 and its loss {math.log(10):.4f}; yours is {unseen:.4f}")
    expect_agreement(answer, _frequency_loss, [
        (torch.tensor([1]), torch.tensor([0]), 2), (torch.arange(50) ** 2 % 11,
                                                    torch.arange(20) % 17, 17)])


def _frequency_loss(train: torch.Tensor, val: torch.Tensor, vocab_size: int) -> float:
    counts = [1 + (train == token).sum().item() for token in range(vocab_size)]
    return -sum(math.log(counts[token] / sum(counts)) for token in val.tolist()) / len(val)


_VERDICTS = ("better", "worse", "not established")


@exercise
def check_decide(answer: Any) -> None:
    """`decide(old, new)`: held-out losses, one per seed -> one of three verdicts."""

    def verdict(old: list[float], new: list[float]) -> str:
        got = attempt(answer, old, new)
        expect(got in _VERDICTS, f"expected one of {', '.join(_VERDICTS)}; got {got!r}")
        return got

    clear = verdict([2.10, 2.12, 2.11], [1.95, 1.97, 1.94])
    expect(clear != "worse", "2.11 fell to 1.95 and you call it worse: a loss is better when it "
           "is lower")
    expect(clear == "better", "2.10, 2.12, 2.11 against 1.95, 1.97, 1.94: every seed gained far "
           "more than seeds differ among themselves; that is established")
    expect(verdict([1.95, 1.97, 1.94], [2.10, 2.12, 2.11]) == "worse",
           "1.95, 1.97, 1.94 against 2.10, 2.12, 2.11 is worse in every seed by far more than "
           "seeds differ")
    expect(verdict([2.10, 2.11, 2.12, 2.10], [2.12, 2.13, 1.60, 2.11]) == "not established",
           "2.10, 2.11, 2.12, 2.10 against 2.12, 2.13, 1.60, 2.11: the mean fell because of one "
           "lucky seed; the three others got worse. Look at the spread, not only at the means")
    expect(verdict([2.10, 2.00, 2.10], [1.99, 2.15, 2.16]) == "not established",
           "2.10, 2.00, 2.10 against 1.99, 2.15, 2.16: the best run is new, but two of three "
           "seeds got worse; never compare the best runs only")
    expect(verdict([2.10, 2.15, 2.05], [2.11, 2.04, 2.14]) == "not established",
           "2.10, 2.15, 2.05 against 2.11, 2.04, 2.14: the means differ by 0.003, the seeds by "
           "0.1; nothing is established")
    expect(verdict([2.00, 2.20, 2.40], [1.95, 2.14, 2.36]) == "better",
           "2.00, 2.20, 2.40 against 1.95, 2.14, 2.36: both lists use the same seeds, and each "
           "seed gained 0.04 to 0.06. Compare seed by seed: what the seeds share cancels")
    expect(verdict([3.0, 3.3, 2.8, 3.1, 2.9], [3.06, 3.35, 2.86, 3.15, 2.96]) == "worse",
           "3.0, 3.3, 2.8, 3.1, 2.9 against 3.06, 3.35, 2.86, 3.15, 2.96: each of five seeds lost "
           "0.05 or 0.06; that is worse, as clearly as a gain would be better")
    expect(verdict([2.1], [1.9]) == "not established",
           "one run of each: you cannot know how much the seed alone would have changed")
    expect(verdict([2.1, 2.2, 2.0], [2.1, 2.2, 2.0]) == "not established",
           "the two lists are equal, and you see a difference")
