import pytest
import torch

from gptlib.checks import encoder as checks


def real_positions(lengths, S):
    return torch.arange(S) < lengths[:, None]


def mean_of_real(vectors, real):
    return vectors.masked_fill(~real[..., None], 0).sum(1) / real.sum(1, keepdim=True)


def encoder_layer(x, real, norm1, attention, norm2, feed_forward):
    y = norm1(x)
    x = x + attention(y, y, real)
    return x + feed_forward(norm2(x))


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


def same(z):
    return z


def same_words():
    return [("not dull but funny", "not funny but dull"),
            ("slow at first, then gripping", "gripping at first, then slow"),
            ("the jokes work, the plot does not", "the plot work does not, the jokes"),
            ("it is good, not bad", "it is bad, not good"),
            ("clumsy but full of charm", "full of charm but clumsy")]


PAIRS = same_words()
CASES = [
    ("real_positions", lambda n, S: ~real_positions(n, S), "True at padding"),
    ("real_positions", lambda n, S: torch.arange(S) <= n[:, None], "one position too many"),
    ("real_positions", lambda n, S: real_positions(n, S).T, "is (S, B)"),
    ("real_positions", lambda n, S: real_positions(n, S)[:, :4], "has shape (3, 4)"),
    ("real_positions", lambda n, S: real_positions(n, S).float(), "is torch.float32"),
    ("real_positions", lambda n, S: real_positions(n, S).flip(1), "on the left"),
    ("real_positions", lambda n, S: torch.ones(3, S, dtype=torch.bool), "yours are [[1, 1"),
    ("real_positions", lambda n, S: [[True]], "got list"),
    ("mean_of_real", lambda x, r: x.mean(1), "the padding is in your mean"),
    ("mean_of_real", lambda x, r: (x * r[..., None]).mean(1), "still divide by S"),
    ("mean_of_real", lambda x, r: (x * r[..., None]).sum(1), "this is the sum"),
    ("mean_of_real", lambda x, r: x[:, 0], "the first position"),
    ("mean_of_real", lambda x, r: x[r].mean(0), "for the whole batch"),
    ("mean_of_real", lambda x, r: x.mean(2), "have shape (2, 4)"),
    ("mean_of_real", lambda x, r: mean_of_real(x, r).tolist(), "got list"),
    ("mean_of_real", lambda x, r: mean_of_real(x, r) + 1, "yours is"),
    ("encoder_layer", post_norm, "this is post-norm"),
    ("encoder_layer", without_second_residual, "the feed-forward network replaces"),
    ("encoder_layer", without_first_residual, "the attention replaces"),
    ("encoder_layer", without_residuals, "both residual connections"),
    ("encoder_layer", on_the_normalised, "the sum takes x itself"),
    ("encoder_layer", side_by_side, "feed-forward network reads x"),
    ("encoder_layer", feed_forward_first, "comes first"),
    ("encoder_layer", raw_source, "keys and values from x"),
    ("encoder_layer", no_mask, "the mask is missing"),
    ("encoder_layer", lambda x, r, n1, a, n2, f: encoder_layer(x, r, same, a, same, f),
     "the norms are missing"),
    ("encoder_layer", lambda x, r, n1, a, n2, f: encoder_layer(x, r, n1, a, same, f),
     "before the feed-forward network is missing"),
    ("encoder_layer", lambda x, r, n1, a, n2, f: encoder_layer(x, r, same, a, n2, f),
     "before the attention is missing"),
    ("encoder_layer", lambda x, r, n1, a, n2, f: encoder_layer(x, r, n1, a, n1, f), "used twice"),
    ("encoder_layer", lambda x, r, n1, a, n2, f: x, "the result differs"),
    ("encoder_layer", lambda x, r, n1, a, n2, f: x[0], "of the shape of x"),
    ("same_words", lambda: PAIRS[:4], "4 pairs so far"),
    ("same_words", lambda: [("not dull but funny", "funny and dull")], "and, but, not stands"),
    ("same_words", lambda: [("Not dull but funny", "not dull, but funny!")], "same order"),
    ("same_words", lambda: [("good not bad", "bad not good")], "has 3 words"),
    ("same_words", lambda: [*PAIRS, PAIRS[0]], "use the bag of 'not dull"),
    ("same_words", lambda: ["not dull but funny"], "a list of pairs"),
]


@pytest.mark.parametrize("name, wrong, message", CASES)
def test_each_wrong_answer_gets_its_own_message(name, wrong, message):
    verdict = getattr(checks, f"check_{name}").judge(wrong)
    assert verdict.status == "mistake" and message in verdict.message


@pytest.mark.parametrize("name", ["real_positions", "mean_of_real", "encoder_layer", "same_words"])
def test_the_solution_passes_and_the_stub_is_not_attempted(name):
    check = getattr(checks, f"check_{name}")
    assert check.judge(globals()[name]).status == "correct"
    assert check.judge(lambda *inputs: ...).status == "not attempted"
