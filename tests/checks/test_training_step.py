import pytest
import torch
from torch.nn import functional

from gptlib.checks import training_step as checks


def loss_gradient(logits, targets):
    p = logits.softmax(-1)
    return (p - functional.one_hot(targets, logits.shape[1])) / len(targets)


def loss_gradient_by_autograd(logits, targets):
    logits = logits.requires_grad_(True)
    return torch.autograd.grad(functional.cross_entropy(logits, targets), logits)[0]


def right_token_only(logits, targets):
    return loss_gradient(logits, targets) * functional.one_hot(targets, logits.shape[1])


def raw_logits(logits, targets):
    return (logits - functional.one_hot(targets, logits.shape[1])) / len(targets)


def softmax_backward(weights, d_weights):
    return weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True))


def through_scores(weights, d_weights):
    scores = weights.log().requires_grad_(True)
    return torch.autograd.grad((scores.softmax(-1) * d_weights).sum(), scores)[0] / weights


def embedding_gradient(ids, d_x, vocab_size):
    return functional.one_hot(ids, vocab_size).to(d_x.dtype).T @ d_x


def overwritten(ids, d_x, vocab_size):
    table = torch.zeros(vocab_size, d_x.shape[1], dtype=d_x.dtype)
    table[ids] += d_x
    return table


def first_only(ids, d_x, vocab_size):
    return overwritten(ids.flip(0), d_x.flip(0), vocab_size)


def averaged(ids, d_x, vocab_size):
    counts = torch.bincount(ids, minlength=vocab_size).clamp(min=1)
    return embedding_gradient(ids, d_x, vocab_size) / counts[:, None]


def layer_norm_backward(x, d_out, eps):
    x = x.requires_grad_(True)
    out = functional.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.autograd.grad(out, x, d_out)[0]


def norm_by_hand(centre=True, project=True, divide=True, correction=0, dim=-1, with_eps=True):
    def answer(x, d, eps):
        sigma = (x.var(-1, keepdim=True, correction=correction) + eps * with_eps).sqrt()
        n = (x - x.mean(-1, keepdim=True)) / sigma
        inner = d - centre * d.mean(dim, keepdim=True)
        inner = inner - project * n * (d * n).mean(dim, keepdim=True)
        return inner / sigma if divide else inner
    return answer


CASES = [
    ("loss_gradient", lambda z, t: 3 * loss_gradient(z, t), "division by T"),
    ("loss_gradient", lambda z, t: -loss_gradient(z, t), "the sign"),
    ("loss_gradient", lambda z, t: z.softmax(-1) / 3, "subtract 1 at the right token"),
    ("loss_gradient", lambda z, t: loss_gradient(z, t) / 4, "T times V"),
    ("loss_gradient", raw_logits, "from the logits"),
    ("loss_gradient", lambda z, t: (z.softmax(0) - functional.one_hot(t, 4)) / 3,
     "over the positions"),
    ("loss_gradient", right_token_only, "only the right token"),
    ("loss_gradient", lambda z, t: loss_gradient(z, t).sum(), "has shape ()"),
    ("loss_gradient", lambda z, t: 0.5, "expected a tensor, got float"),
    ("loss_gradient", lambda z, t: z * 0, "the first row should be"),
    ("softmax_backward", through_scores, "holds nan"),
    ("softmax_backward", lambda a, d: a * (1 - a) * d, "from all the others"),
    ("softmax_backward", lambda a, d: a * d, "this is a * d"),
    ("softmax_backward", lambda a, d: d - (a * d).sum(-1, keepdim=True), "the factor a"),
    ("softmax_backward", lambda a, d: a * (d - d.mean(-1, keepdim=True)), "the plain mean"),
    ("softmax_backward", lambda a, d: a * (d - d.sum(-1, keepdim=True)), "the sum of d"),
    ("softmax_backward", lambda a, d: a * (d - (a * d).sum(0)), "down the columns"),
    ("softmax_backward", lambda a, d: -softmax_backward(a, d), "the sign"),
    ("softmax_backward", lambda a, d: a, "the last row should be"),
    ("embedding_gradient", overwritten, "last occurrence"),
    ("embedding_gradient", first_only, "first occurrence"),
    ("embedding_gradient", averaged, "you averaged"),
    ("embedding_gradient", lambda i, d, v: embedding_gradient(i, d, v).T, "on its side"),
    ("embedding_gradient", lambda i, d, v: d, "one row for each position"),
    ("embedding_gradient", lambda i, d, v: embedding_gradient(i, d, v) + 1, "their gradient is 0"),
    ("embedding_gradient", lambda i, d, v: embedding_gradient(i, d, v) * 2, "yours is"),
    ("layer_norm_backward", norm_by_hand(centre=False, project=False), "were constants"),
    ("layer_norm_backward", norm_by_hand(project=False), "through the variance"),
    ("layer_norm_backward", norm_by_hand(centre=False), "through the mean"),
    ("layer_norm_backward", norm_by_hand(divide=False), "forgot to divide"),
    ("layer_norm_backward", norm_by_hand(correction=1), "by C - 1"),
    ("layer_norm_backward", norm_by_hand(with_eps=False), "you left out eps"),
    ("layer_norm_backward", norm_by_hand(dim=0), "must sum to 0"),
    ("layer_norm_backward", lambda x, d, eps: x * 0, "the first row should be"),
]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


SOLUTIONS = [("loss_gradient", loss_gradient), ("loss_gradient", loss_gradient_by_autograd),
             ("softmax_backward", softmax_backward), ("embedding_gradient", embedding_gradient),
             ("layer_norm_backward", layer_norm_backward),
             ("layer_norm_backward", norm_by_hand())]


@pytest.mark.parametrize("name, answer", SOLUTIONS)
def test_the_solution_passes_and_the_stub_is_not_attempted(name, answer):
    check = getattr(checks, f"check_{name}")
    assert check.judge(answer).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"
