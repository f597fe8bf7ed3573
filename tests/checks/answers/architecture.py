"""Answers to the exercises of chapter 3.2: right ones written otherwise, and wrong ones."""

import numpy as np
import torch


def norm(dim=-1, correction=0, eps_scale=1.0, root=True, centre=True):
    def answer(x, eps):
        y = x - x.mean(dim, keepdim=True) if centre else x
        square = y.square().sum(dim, keepdim=True) / (x.shape[dim] - correction)
        return y / ((square + eps * eps_scale).sqrt() if root else square + eps)
    return answer


def norm_by_rows(x, eps):
    """A list of tensors, one for each position, the variance as E[x^2] - E[x]^2."""
    rows = []
    for row in x:
        mean = row.mean()
        rows.append((row - mean) * torch.rsqrt((row * row).mean() - mean * mean + eps))
    return rows


def norm_in_numpy(x, eps):
    x = x.double().numpy()
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + eps)


def norm_in_place(x, eps):
    x = x.clone()
    x -= x.mean(dim=-1, keepdim=True)
    x /= torch.sqrt(x.var(dim=-1, unbiased=False, keepdim=True) + eps)
    return x


def block(first, second):
    """A block out of two steps, each a function of the stream, the norm and the part."""
    def answer(x, norm1, attention, norm2, feed_forward):
        return second(first(x, norm1, attention), norm2, feed_forward)
    return answer


def add(x, norm, part):
    return x + part(norm(x))


def block_in_three_lines(x, norm1, attention, norm2, feed_forward):
    a = attention(norm1(x))
    y = a.add(x)
    return feed_forward(norm2(y)) + a + x


def add_and_normalise(x, norm, part):
    return norm(x + part(x))


def parallel(x, norm1, attention, norm2, feed_forward):
    return x + attention(norm1(x)) + feed_forward(norm2(x))


def adds_to_the_norm(x, norm1, attention, norm2, feed_forward):
    x = norm1(x)
    x = norm2(x + attention(x))
    return x + feed_forward(x)


def feed_forward_first(x, norm1, attention, norm2, feed_forward):
    x = x + feed_forward(norm2(x))
    return x + attention(norm1(x))


def in_the_callers_tensor(x, norm1, attention, norm2, feed_forward):
    x += attention(norm1(x))
    return x.add_(feed_forward(norm2(x)))


def only_for_one_feature(x, norm1, attention, norm2, feed_forward):
    x = x + attention(norm1(x))
    return (x + feed_forward(norm2(x)))[..., :1]


def count(V, T, L, C):
    return V * C + T * C + L * (12 * C**2 + 13 * C) + 2 * C


def count_matrix_by_matrix(V, T, L, C):
    norm = 2 * C
    attention = (C * 3 * C + 3 * C) + (C * C + C)
    feed_forward = (C * 4 * C + 4 * C) + (4 * C * C + C)
    return np.int64((V + T) * C + L * (norm + attention + norm + feed_forward) + norm)


OTHERWISE = [
    ("check_layer_norm", norm_by_rows),
    ("check_layer_norm", norm_in_numpy),
    ("check_layer_norm", norm_in_place),
    ("check_layer_norm", lambda x, eps: norm_in_numpy(x, eps).tolist()),
    ("check_block", block_in_three_lines),
    ("check_block", lambda *inputs: block(add, add)(*inputs).numpy()),
    ("check_count_parameters", count_matrix_by_matrix),
    ("check_count_parameters", lambda V, T, L, C: C * (V + T + 2 + L * (12.0 * C + 13))),
    ("check_count_parameters", lambda V, T, L, C: torch.tensor(count(V, T, L, C))),
    ("check_training_bytes", lambda n: n * 32 * 4 / 8),
    ("check_training_bytes", lambda n: sum([4 * n, 4 * n, 2 * 4 * n])),
]

MISTAKES = [
    ("check_layer_norm", lambda x, eps: x.mean(-1), "of the shape of x, (3, 4), got (3,)"),
    ("check_layer_norm", norm(eps_scale=0.0), "gives nan"),
    ("check_layer_norm", norm(dim=0), "over the positions"),
    ("check_layer_norm",
     lambda x, eps: (x - x.mean()) / (x.var(correction=0) + eps).sqrt(), "for the whole tensor"),
    ("check_layer_norm", norm(centre=False), "that is RMS norm"),
    ("check_layer_norm", norm(correction=1), "sample variance"),
    ("check_layer_norm", norm(root=False), "by its root"),
    ("check_layer_norm", lambda x, eps: x - x.mean(-1, keepdim=True), "now divide by"),
    ("check_layer_norm", lambda x, eps: x, "mean 0 and variance 1"),
    ("check_layer_norm",
     lambda x, eps: (x - x.mean(-1, keepdim=True)) / (x.std(-1, correction=0, keepdim=True) + eps),
     "under the root"),
    ("check_layer_norm", lambda x, eps: norm()(x, 1e-5), "don't use eps as it is given"),
    ("check_layer_norm", lambda x, eps: norm()(x, min(eps, 1e-2)), "wrong for ("),
    ("check_layer_norm", lambda x, eps: x.sub_(x.mean(-1, keepdim=True)), "in place"),
    ("check_block", block(lambda x, n, f: f(n(x)), lambda x, n, f: f(n(x))),
     "no residual connection"),
    ("check_block", block(add, lambda x, n, f: x), "network is missing"),
    ("check_block", block(add, lambda x, n, f: f(n(x))), "network replaces the stream"),
    ("check_block", block(lambda x, n, f: f(n(x)), add), "attention replaces the stream"),
    ("check_block", block(add_and_normalise, add_and_normalise), "post-norm"),
    ("check_block", adds_to_the_norm, "add to x itself"),
    ("check_block", parallel, "read the same x"),
    ("check_block", block(add, lambda x, n, f: x + f(x)), "without its norm"),
    ("check_block", lambda x, n1, a, n2, f: block(add, add)(x, n1, a, n1, f), "is used twice"),
    ("check_block", feed_forward_first, "comes first"),
    ("check_block", block(lambda x, n, f: x + n(f(x)), lambda x, n, f: x + n(f(x))),
     "what a part returns"),
    ("check_block", lambda x, n1, a, n2, f: x, "expected y ="),
    ("check_block", in_the_callers_tensor, "in place"),
    ("check_block", only_for_one_feature, "wrong for ("),
    ("check_count_parameters", lambda V, T, L, C: count(V, T, L, C) + V * C, "its own"),
    ("check_count_parameters", lambda V, T, L, C: count(V, 0, L, C), "position table"),
    ("check_count_parameters", lambda V, T, L, C: count(0, T, L, C), "token table"),
    ("check_count_parameters", lambda V, T, L, C: count(V, T, L, C) - 2 * C, "final norm"),
    ("check_count_parameters", lambda V, T, L, C: count(V, T, L, C) - 9 * L * C,
     "biases of the linear layers"),
    ("check_count_parameters", lambda V, T, L, C: count(V, T, L, C) - 4 * L * C, "two norms"),
    ("check_count_parameters", lambda V, T, L, C: count(V, T, L, C) - 8 * L * C * C,
     "feed-forward network is missing"),
    ("check_count_parameters", lambda V, T, L, C: count(V, T, L, C) - 4 * L * C * C,
     "4 C^2 per block are missing"),
    ("check_count_parameters", lambda V, T, L, C: count(V, T, 1, C), "you counted one block"),
    ("check_count_parameters", lambda V, T, L, C: 12 * L * C**2, "12 C^2 weights"),
    ("check_count_parameters",
     lambda V, T, L, C: count(V, T, L, C) if C < 100 else 124e6, "for GPT-2 you got"),
    ("check_count_parameters",
     lambda V, T, L, C: count(V, T, L, C) if V > 100 else round(count(V, T, L, C), -2),
     "wrong for (7, 3, 1, 4)"),
    ("check_training_bytes", lambda n: 4 * n, "weights alone"),
    ("check_training_bytes", lambda n: 8 * n, "state is missing"),
    ("check_training_bytes", lambda n: 12 * n, "one of four"),
    ("check_training_bytes", lambda n: 16, "for one parameter"),
    ("check_training_bytes", lambda n: 16 * n / 1e6, "not megabytes"),
    ("check_training_bytes", lambda n: 16 * n / 2**30, "not megabytes"),
    ("check_training_bytes", lambda n: 16 * 8 * n, "are bits"),
    ("check_training_bytes", lambda n: 2 * n, "expected 16,000 bytes"),
    ("check_training_bytes", lambda n: 16_000, "wrong for (1): expected 16, got 16000"),
]
