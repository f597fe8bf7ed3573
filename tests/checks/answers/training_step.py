"""Answers to the exercises of chapter 3.4: right ones written otherwise, and wrong ones."""

import torch
from torch.nn import functional


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


def loss_gradient_on_a_copy(logits, targets):
    gradient = torch.softmax(logits, dim=1)
    gradient[torch.arange(len(targets)), targets] -= 1
    return (gradient / len(targets)).tolist()


def sum_over_three(logits, targets):
    return loss_gradient(logits, targets) * len(targets) / 3


def softmax_backward_by_jacobian(weights, d_weights):
    rows = []
    for a, d in zip(weights, d_weights):
        rows.append((torch.diag(a) - torch.outer(a, a)) @ d)
    return rows


def embedding_gradient_in_a_loop(ids, d_x, vocab_size):
    table = [[0.0] * d_x.shape[1] for _ in range(vocab_size)]
    for token, row in zip(ids.tolist(), d_x.tolist()):
        table[token] = [a + b for a, b in zip(table[token], row)]
    return table


def embedding_gradient_by_autograd(ids, d_x, vocab_size):
    table = torch.zeros(vocab_size, d_x.shape[1], dtype=d_x.dtype, requires_grad=True)
    table[ids].backward(d_x)
    return table.grad.numpy()


def only_tokens_that_occur(ids, d_x, vocab_size):
    return embedding_gradient(ids, d_x, int(ids.max()) + 1)


def up_to_three(ids, d_x, vocab_size):
    table = torch.zeros(vocab_size, d_x.shape[1], dtype=d_x.dtype)
    for token in ids.unique().tolist():
        table[token] = d_x[ids == token][:3].sum(0)
    return table


OTHERWISE = [
    ("check_loss_gradient", loss_gradient_by_autograd),
    ("check_loss_gradient", loss_gradient_on_a_copy),
    ("check_softmax_backward", softmax_backward_by_jacobian),
    ("check_softmax_backward", lambda a, d: a * d - a * torch.einsum("ts,ts->t", a, d)[:, None]),
    ("check_embedding_gradient", embedding_gradient_in_a_loop),
    ("check_embedding_gradient", embedding_gradient_by_autograd),
    ("check_layer_norm_backward", layer_norm_backward),
    ("check_layer_norm_backward", norm_by_hand()),
]

MISTAKES = [
    ("check_loss_gradient", lambda z, t: 3 * loss_gradient(z, t), "division by T"),
    ("check_loss_gradient", lambda z, t: -loss_gradient(z, t), "the sign"),
    ("check_loss_gradient", lambda z, t: z.softmax(-1) / 3, "subtract 1 at the right token"),
    ("check_loss_gradient", lambda z, t: loss_gradient(z, t) / 4, "T times V"),
    ("check_loss_gradient", raw_logits, "from the logits"),
    ("check_loss_gradient", lambda z, t: (z.softmax(0) - functional.one_hot(t, 4)) / 3,
     "over the positions"),
    ("check_loss_gradient", right_token_only, "only the right token"),
    ("check_loss_gradient", lambda z, t: loss_gradient(z, t).sum(), "has shape ()"),
    ("check_loss_gradient", lambda z, t: 0.5, "has shape ()"),
    ("check_loss_gradient", lambda z, t: z * 0, "the first row should be"),
    ("check_softmax_backward", through_scores, "holds nan"),
    ("check_softmax_backward", lambda a, d: a * (1 - a) * d, "from all the others"),
    ("check_softmax_backward", lambda a, d: a * d, "this is a * d"),
    ("check_softmax_backward", lambda a, d: d - (a * d).sum(-1, keepdim=True), "the factor a"),
    ("check_softmax_backward", lambda a, d: a * (d - d.mean(-1, keepdim=True)), "the plain mean"),
    ("check_softmax_backward", lambda a, d: a * (d - d.sum(-1, keepdim=True)), "the sum of d"),
    ("check_softmax_backward", lambda a, d: a * (d - (a * d).sum(0)), "down the columns"),
    ("check_softmax_backward", lambda a, d: -softmax_backward(a, d), "the sign"),
    ("check_softmax_backward", lambda a, d: a, "the last row should be"),
    ("check_embedding_gradient", overwritten, "last occurrence"),
    ("check_embedding_gradient", first_only, "first occurrence"),
    ("check_embedding_gradient", averaged, "you averaged"),
    ("check_embedding_gradient", lambda i, d, v: embedding_gradient(i, d, v).T, "on its side"),
    ("check_embedding_gradient", lambda i, d, v: d, "one row for each position"),
    ("check_embedding_gradient", lambda i, d, v: embedding_gradient(i, d, v) + 1,
     "their gradient is 0"),
    ("check_embedding_gradient", lambda i, d, v: embedding_gradient(i, d, v) * 2, "yours is"),
    ("check_layer_norm_backward", norm_by_hand(centre=False, project=False), "were constants"),
    ("check_layer_norm_backward", norm_by_hand(project=False), "through the variance"),
    ("check_layer_norm_backward", norm_by_hand(centre=False), "through the mean"),
    ("check_layer_norm_backward", norm_by_hand(divide=False), "forgot to divide"),
    ("check_layer_norm_backward", norm_by_hand(correction=1), "by C - 1"),
    ("check_layer_norm_backward", norm_by_hand(with_eps=False), "you left out eps"),
    ("check_layer_norm_backward", norm_by_hand(dim=0), "must sum to 0"),
    ("check_layer_norm_backward", lambda x, d, eps: x * 0, "the first row should be"),
    ("check_loss_gradient", sum_over_three, "wrong for"),
    ("check_softmax_backward", lambda a, d: softmax_backward(a, d) if a.shape[0] == a.shape[1]
     else a * (d - (a * d).sum(0)), "wrong for"),
    ("check_embedding_gradient", only_tokens_that_occur, "has shape (4, 2)"),
    ("check_embedding_gradient", up_to_three, "wrong for"),
    ("check_layer_norm_backward", lambda x, d, eps: layer_norm_backward(x, d, 0.5), "wrong for"),
    ("check_layer_norm_backward", lambda x, d, eps: layer_norm_backward(x, d, eps)[0],
     "has shape (4,)"),
]
