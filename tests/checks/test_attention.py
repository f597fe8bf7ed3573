"""The solutions of chapter 3.1 pass; each named mistake gets its own message."""

import math

import pytest
import torch

from gptlib.checks import attention as checks


def solution_weights(query, keys):
    scores = [sum(q * k for q, k in zip(query, key)) / math.sqrt(len(query)) for key in keys]
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [value / sum(exponentials) for value in exponentials]


def weights(scale=2.0, normalise=True, safe=True, softmax=True):
    def answer(query, keys):
        scores = [sum(q * k for q, k in zip(query, key)) / scale for key in keys]
        if not softmax:
            return scores
        largest = max(scores) if safe else 0
        exponentials = [math.exp(score - largest) for score in scores]
        return [value / (sum(exponentials) if normalise else 1) for value in exponentials]
    return answer


def solution_may_look(T, S):
    return torch.ones(T, S, dtype=torch.bool).tril(S - T)


def solution_split(x, n_head):
    return x.view(x.shape[0], n_head, -1).transpose(0, 1)


def solution_previous():
    return 30 * torch.eye(8), torch.eye(8).roll(1, dims=1)


SOLUTIONS = [(checks.check_weights_of_one_query, solution_weights),
             (checks.check_may_look, solution_may_look),
             (checks.check_split_heads, solution_split),
             (checks.check_previous_token, solution_previous)]


@pytest.mark.parametrize("check, solution", SOLUTIONS)
def test_solutions_pass_and_stubs_are_not_attempted(check, solution, capsys):
    check(solution)
    assert capsys.readouterr().out == "correct\n"

    def stub(*_):
        ...

    assert check.judge(stub).status == "not attempted"


@pytest.mark.parametrize("check, answer, message", [
    (checks.check_weights_of_one_query, weights(softmax=False), "these are scores"),
    (checks.check_weights_of_one_query, weights(normalise=False), "don't add up to 1"),
    (checks.check_weights_of_one_query, weights(scale=1.0), "forgot the scaling"),
    (checks.check_weights_of_one_query, weights(scale=4.0), "by its square root"),
    (checks.check_weights_of_one_query, weights(safe=False), "math range error"),
    (checks.check_weights_of_one_query, lambda q, k: [0.2, 0.3, 0.5], "are not softmax"),
    (checks.check_weights_of_one_query, lambda q, k: 0.5, "one weight for each key"),
    (checks.check_may_look, lambda T, S: ~solution_may_look(T, S), "turn it round"),
    (checks.check_may_look, lambda T, S: torch.ones(T, S).tril(S - T - 1), "hides the diagonal"),
    (checks.check_may_look, lambda T, S: torch.ones(T, S).triu(), "rows and columns"),
    (checks.check_may_look, lambda T, S: torch.ones(T, S).tril(1), "above the diagonal"),
    (checks.check_may_look, lambda T, S: torch.eye(T, S), "all of its past"),
    (checks.check_may_look, lambda T, S: torch.ones(T, S).tril(), "aligned top-left"),
    (checks.check_may_look, lambda T, S: torch.ones(T, T).tril(), "has shape (2, 5), got (2, 2)"),
    (checks.check_split_heads, lambda x, H: x.view(H, x.shape[0], -1), "cuts the sequence"),
    (checks.check_split_heads, lambda x, H: x.view(x.shape[0], H, -1), "heads must come first"),
    (checks.check_split_heads, lambda x, H: x.view(x.shape[0], -1, H).permute(2, 0, 1),
     "dealt the features out"),
    (checks.check_split_heads, lambda x, H: x, "expected shape (2, 4, 3), got (4, 6)"),
    (checks.check_previous_token, lambda: (30 * torch.eye(8), torch.eye(8)), "looks at itself"),
    (checks.check_previous_token, lambda: (30 * torch.eye(8).roll(1, dims=1), torch.eye(8)),
     "the mask hides"),
    (checks.check_previous_token,
     lambda: (30 * torch.eye(8).roll(-1, dims=1), torch.eye(8).roll(1, dims=1)), "two back"),
    (checks.check_previous_token, lambda: (torch.eye(8), torch.eye(8).roll(1, dims=1)),
     "larger number"),
    (checks.check_previous_token, lambda: torch.eye(8), "two matrices W_q, W_k"),
])
def test_each_mistake_is_named(check, answer, message):
    verdict = check.judge(answer)
    assert verdict.status == "mistake"
    assert message in verdict.message
