"""Answers to the exercises of chapter 5.1: right ones written otherwise, and wrong ones."""

import numpy as np
import torch

CONSTANT = ("check_same_words",)


def real_positions(lengths, S):
    return torch.arange(S) < lengths[:, None]


def positions_by_filling(lengths, S):
    real = torch.zeros(len(lengths), S, dtype=torch.bool)
    for row, length in zip(real, lengths):
        row[:length] = True
    return real


def mean_of_real(vectors, real):
    return vectors.masked_fill(~real[..., None], 0).sum(1) / real.sum(1, keepdim=True)


def mean_by_product(vectors, real):
    weights = real.float() / real.float().sum(1, keepdim=True)
    return (weights[:, None] @ vectors)[:, 0]


def mean_of_the_first(vectors, real):
    return torch.stack([rows[:n].mean(0) for rows, n in zip(vectors, real.sum(1).tolist())])


def encoder_layer(x, real, norm1, attention, norm2, feed_forward):
    y = norm1(x)
    x = x + attention(y, y, real)
    return x + feed_forward(norm2(x))


def layer_with_names(x, real, norm1, attention, norm2, feed_forward):
    y = norm1(x)
    h = torch.add(attention(queries_from=y, keys_and_values_from=y, real=real), x)
    return torch.stack([h, feed_forward(norm2(h))]).sum(0).double()


def layer_in_place(x, real, norm1, attention, norm2, feed_forward):
    stream = x.clone()
    stream += attention(norm1(stream), norm1(stream), real)
    stream += feed_forward(norm2(stream))
    return stream


def post_norm(x, real, norm1, attention, norm2, feed_forward):
    x = norm1(x + attention(x, x, real))
    return norm2(x + feed_forward(x))


def without_second_residual(x, real, norm1, attention, norm2, feed_forward):
    y = norm1(x)
    return feed_forward(norm2(x + attention(y, y, real)))


def without_first_residual(x, real, norm1, attention, norm2, feed_forward):
    y = norm1(x)
    x = attention(y, y, real)
    return x + feed_forward(norm2(x))


def without_residuals(x, real, norm1, attention, norm2, feed_forward):
    y = norm1(x)
    return feed_forward(norm2(attention(y, y, real)))


def on_the_normalised(x, real, norm1, attention, norm2, feed_forward):
    x = norm1(x)
    x = norm2(x + attention(x, x, real))
    return x + feed_forward(x)


def side_by_side(x, real, norm1, attention, norm2, feed_forward):
    y = norm1(x)
    return x + attention(y, y, real) + feed_forward(norm2(x))


def feed_forward_first(x, real, norm1, attention, norm2, feed_forward):
    x = x + feed_forward(norm2(x))
    y = norm1(x)
    return x + attention(y, y, real)


def raw_source(x, real, norm1, attention, norm2, feed_forward):
    x = x + attention(norm1(x), x, real)
    return x + feed_forward(norm2(x))


def no_mask(x, real, norm1, attention, norm2, feed_forward):
    y = norm1(x)
    x = x + attention(y, y)
    return x + feed_forward(norm2(x))


def mask_of_three_positions(x, real, norm1, attention, norm2, feed_forward):
    real = torch.tensor([[True, True, True], [True, False, False]])
    return encoder_layer(x, real, norm1, attention, norm2, feed_forward)


def same(z):
    return z


def same_words():
    return [("not dull but funny", "not funny but dull"),
            ("slow at first, then gripping", "gripping at first, then slow"),
            ("the jokes work, the plot does not", "the plot work does not, the jokes"),
            ("it is good, not bad", "it is bad, not good"),
            ("clumsy but full of charm", "full of charm but clumsy")]


PAIRS = same_words()

OTHERWISE = [
    ("check_real_positions", positions_by_filling),
    ("check_real_positions", lambda lengths, S: [[s < n for s in range(S)] for n in lengths]),
    ("check_real_positions", lambda lengths, S: np.arange(S) < lengths.numpy()[:, None]),
    ("check_real_positions",
     lambda lengths, S: (torch.ones(len(lengths), S).cumsum(1) - 1 >= lengths[:, None]) == 0),
    ("check_mean_of_real", mean_by_product),
    ("check_mean_of_real", lambda x, r: [rows[mask].mean(0) for rows, mask in zip(x, r)]),
    ("check_mean_of_real", lambda x, r: x.where(r[..., None], torch.nan).nanmean(1).tolist()),
    ("check_mean_of_real", lambda x, r: np.stack(
        [rows[mask].numpy().mean(0) for rows, mask in zip(x, r)])),
    ("check_encoder_layer", layer_with_names),
    ("check_encoder_layer", layer_in_place),
    ("check_same_words", lambda: tuple([praise.upper() + "!", blame] for praise, blame in PAIRS)),
    ("check_same_words", lambda: [*PAIRS, ("it's more 'wow' than ho-hum", "it's more ho-hum than "
                                           "'wow'")]),
    ("check_same_words", lambda: zip(*zip(*PAIRS))),
]

MISTAKES = [
    ("check_real_positions", lambda n, S: ~real_positions(n, S), "True at padding"),
    ("check_real_positions", lambda n, S: torch.arange(S) <= n[:, None], "one position too many"),
    ("check_real_positions", lambda n, S: real_positions(n, S).T, "is (S, B)"),
    ("check_real_positions", lambda n, S: real_positions(n, S)[:, :4], "has shape (3, 4)"),
    ("check_real_positions", lambda n, S: real_positions(n, S).float(), "is torch.float32"),
    ("check_real_positions", lambda n, S: real_positions(n, S).flip(1), "on the left"),
    ("check_real_positions", lambda n, S: torch.ones(3, S, dtype=torch.bool), "yours are [[1, 1"),
    ("check_real_positions", lambda n, S: real_positions(n, max(n)), "S may be larger"),
    ("check_real_positions", lambda n, S: real_positions(n.clamp(min=1), S), "([2, 0], 4)"),
    ("check_real_positions", lambda n, S: [[True]], "expected (B, S)"),
    ("check_mean_of_real", lambda x, r: x.mean(1), "the padding is in your mean"),
    ("check_mean_of_real", lambda x, r: (x * r[..., None]).mean(1), "still divide by S"),
    ("check_mean_of_real", lambda x, r: (x * r[..., None]).sum(1), "this is the sum"),
    ("check_mean_of_real", lambda x, r: (x * r[..., None]).sum(1) / r.sum(), "the whole batch"),
    ("check_mean_of_real", lambda x, r: x[:, 0], "the first position"),
    ("check_mean_of_real", lambda x, r: (x * r[..., None]).amax(1), "the largest number"),
    ("check_mean_of_real", lambda x, r: x[r].mean(0), "for the whole batch"),
    ("check_mean_of_real", lambda x, r: x.mean(2), "have shape (2, 4)"),
    ("check_mean_of_real", lambda x, r: (x * r[..., None]).sum(1) / (
        r.sum(1) if x.shape[0] == x.shape[2] else r.sum(1, keepdim=True)), "divide each column"),
    ("check_mean_of_real", mean_of_the_first, "wherever they stand"),
    ("check_mean_of_real", lambda x, r: mean_of_real(x, r) + 1, "yours is"),
    ("check_mean_of_real", lambda x, r: mean_of_real(x[:2], r[:2]), "wrong for ("),
    ("check_encoder_layer", post_norm, "this is post-norm"),
    ("check_encoder_layer", without_second_residual, "the feed-forward network replaces"),
    ("check_encoder_layer", without_first_residual, "the attention replaces"),
    ("check_encoder_layer", without_residuals, "both residual connections"),
    ("check_encoder_layer", on_the_normalised, "the sum takes x itself"),
    ("check_encoder_layer", side_by_side, "feed-forward network reads x"),
    ("check_encoder_layer", feed_forward_first, "comes first"),
    ("check_encoder_layer", raw_source, "keys and values from x"),
    ("check_encoder_layer", no_mask, "the mask is missing"),
    ("check_encoder_layer", lambda x, r, n1, a, n2, f: encoder_layer(x, r, same, a, same, f),
     "the norms are missing"),
    ("check_encoder_layer", lambda x, r, n1, a, n2, f: encoder_layer(x, r, n1, a, same, f),
     "before the feed-forward network is missing"),
    ("check_encoder_layer", lambda x, r, n1, a, n2, f: encoder_layer(x, r, same, a, n2, f),
     "before the attention is missing"),
    ("check_encoder_layer", lambda x, r, n1, a, n2, f: encoder_layer(x, r, n1, a, n1, f),
     "used twice"),
    ("check_encoder_layer", lambda x, r, n1, a, n2, f: encoder_layer(x, r, n2, a, n1, f),
     "the norms are exchanged"),
    ("check_encoder_layer", lambda x, r, n1, a, n2, f: x, "the result differs"),
    ("check_encoder_layer", lambda x, r, n1, a, n2, f: x[0], "of the shape of x"),
    ("check_encoder_layer", lambda x, r, n1, a, n2, f: x.add_(a(n1(x), n1(x), r)), "in place"),
    ("check_encoder_layer", mask_of_three_positions, "your function raised RuntimeError"),
    ("check_encoder_layer", lambda x, *parts: encoder_layer(x, *parts) if len(x) > 1 else x,
     "wrong for x of shape (1, 5, 2)"),
    ("check_same_words", lambda: PAIRS[:4], "4 pairs so far"),
    ("check_same_words", lambda: [("not dull but funny", "funny and dull")],
     "and, but, not stands"),
    ("check_same_words", lambda: [("Not dull but funny", "not dull, but funny!")], "same order"),
    ("check_same_words", lambda: [("good not bad", "bad not good")], "has 3 words"),
    ("check_same_words", lambda: [*PAIRS, PAIRS[0]], "use the bag of 'not dull"),
    ("check_same_words", lambda: ["not dull but funny"], "a list of pairs"),
]
