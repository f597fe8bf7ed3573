"""The solutions of chapter 3.2 pass; each named mistake gets its own message."""

import pytest

from gptlib.checks import architecture as checks


def solution_norm(x, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def solution_block(x, norm1, attention, norm2, feed_forward):
    x = x + attention(norm1(x))
    return x + feed_forward(norm2(x))


def solution_count(V, T, L, C):
    return V * C + T * C + L * (12 * C**2 + 13 * C) + 2 * C


def solution_bytes(parameters):
    return 16 * parameters


SOLUTIONS = [(checks.check_layer_norm, solution_norm), (checks.check_block, solution_block),
             (checks.check_count_parameters, solution_count),
             (checks.check_training_bytes, solution_bytes)]


@pytest.mark.parametrize("check, solution", SOLUTIONS)
def test_solutions_pass_and_stubs_are_not_attempted(check, solution, capsys):
    check(solution)
    assert capsys.readouterr().out == "correct\n"

    def stub(*_):
        ...

    assert check.judge(stub).status == "not attempted"


def norm(dim=-1, correction=0, eps_scale=1.0, root=True, centre=True):
    def answer(x, eps):
        y = x - x.mean(dim, keepdim=True) if centre else x
        square = y.square().sum(dim, keepdim=True) / (x.shape[dim] - correction)
        return y / ((square + eps * eps_scale).sqrt() if root else square + eps)
    return answer


def no_residual(x, norm1, attention, norm2, feed_forward):
    return feed_forward(norm2(attention(norm1(x))))


def post_norm(x, norm1, attention, norm2, feed_forward):
    x = norm1(x + attention(x))
    return norm2(x + feed_forward(x))


def adds_to_the_norm(x, norm1, attention, norm2, feed_forward):
    x = norm1(x)
    x = norm2(x + attention(x))
    return x + feed_forward(x)


def parallel(x, norm1, attention, norm2, feed_forward):
    return x + attention(norm1(x)) + feed_forward(norm2(x))


@pytest.mark.parametrize("check, answer, message", [
    (checks.check_layer_norm, lambda x, eps: x.mean(-1), "same shape"),
    (checks.check_layer_norm, norm(eps_scale=0.0), "gives nan"),
    (checks.check_layer_norm, norm(dim=0), "over the positions"),
    (checks.check_layer_norm, norm(centre=False), "that is RMS norm"),
    (checks.check_layer_norm, norm(correction=1), "sample variance"),
    (checks.check_layer_norm, norm(root=False), "by its root"),
    (checks.check_layer_norm, lambda x, eps: x, "mean 0 and variance 1"),
    (checks.check_layer_norm,
     lambda x, eps: (x - x.mean(-1, keepdim=True)) / (x.std(-1, correction=0, keepdim=True) + eps),
     "under the root"),
    (checks.check_block, no_residual, "no residual connection"),
    (checks.check_block, lambda x, n1, a, n2, f: x + a(n1(x)), "network is missing"),
    (checks.check_block, post_norm, "post-norm"),
    (checks.check_block, adds_to_the_norm, "add to x itself"),
    (checks.check_block, parallel, "read the same x"),
    (checks.check_block,
     lambda x, n1, a, n2, f: x + a(n1(x)) + f(x + a(n1(x))), "without its norm"),
    (checks.check_block, lambda x, n1, a, n2, f: x, "expected y ="),
    (checks.check_count_parameters,
     lambda V, T, L, C: solution_count(V, T, L, C) + V * C, "its own"),
    (checks.check_count_parameters, lambda V, T, L, C: solution_count(V, 0, L, C),
     "position table"),
    (checks.check_count_parameters, lambda V, T, L, C: solution_count(V, T, L, C) - 2 * C,
     "final norm"),
    (checks.check_count_parameters, lambda V, T, L, C: solution_count(V, T, L, C) - 9 * L * C,
     "biases of the linear layers"),
    (checks.check_count_parameters, lambda V, T, L, C: solution_count(V, T, L, C) - 4 * L * C,
     "two norms"),
    (checks.check_count_parameters, lambda V, T, L, C: 12 * L * C**2, "12 C^2 weights"),
    (checks.check_training_bytes, lambda n: 4 * n, "weights alone"),
    (checks.check_training_bytes, lambda n: 8 * n, "state is missing"),
    (checks.check_training_bytes, lambda n: 12 * n, "one of four"),
    (checks.check_training_bytes, lambda n: 16, "for one parameter"),
    (checks.check_training_bytes, lambda n: 16 * n / 1e6, "not megabytes"),
    (checks.check_training_bytes, lambda n: 2 * n, "expected 16,000 bytes"),
])
def test_each_mistake_is_named(check, answer, message):
    verdict = check.judge(answer)
    assert verdict.status == "mistake"
    assert message in verdict.message
