import itertools
import math

import pytest
import torch

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.writing import generation
from gptlib.writing.generation import beam_search, generate, speculative_generate, stream

SHAPE = dict(vocab_size=19, context_length=12, n_layer=2, n_head=2, n_embd=16)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small_gpt(seed=0, scale=8.0, **changes):
    """Random weights, large enough that the distributions are far from uniform."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**(SHAPE | changes)))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= scale
    return model


class TableModel:
    """A language model without `config`: the next token depends on the last one alone."""

    def __init__(self, probabilities):
        self.logits = torch.tensor(probabilities).log()

    def __call__(self, ids):
        return self.logits[ids]


CYCLE = TableModel([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # 0, 1, 2, 0, 1, ...
CHAIN = TableModel([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])
DRAFT = TableModel([[0.2, 0.2, 0.6], [0.4, 0.3, 0.3], [0.6, 0.3, 0.1]])


def test_any_callable_is_a_language_model():
    ids = generate(CYCLE, torch.tensor([0]), max_new_tokens=5)
    assert ids.tolist() == [[0, 1, 2, 0, 1, 2]]


@pytest.mark.parametrize("position", ["learned", "rope"])
@pytest.mark.parametrize("length", [1, 5, 12])
@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 5, "temperature": 0.9}])
def test_cached_equals_uncached_also_after_the_window_has_moved(position, length, options):
    model = small_gpt(position=position)
    prompt = torch.randint(19, (3, length), generator=seeded(1))
    runs = [generate(model, prompt, max_new_tokens=30, generator=seeded(2), use_cache=use_cache,
                     **options) for use_cache in (True, False)]
    assert torch.equal(*runs)
    assert runs[0].shape == (3, length + 30) and torch.equal(runs[0][:, :length], prompt)


def test_greedy_follows_the_newest_half_of_a_full_context():
    model = small_gpt()
    prompt = torch.randint(19, (1, 12), generator=seeded(1))
    ids = generate(model, prompt, max_new_tokens=3, temperature=0)
    with torch.no_grad():
        assert ids[0, 12] == model.eval()(prompt)[0, -1].argmax()
        assert ids[0, 13] == model(ids[:, 7:13])[0, -1].argmax()  # 13 tokens: the newest 6
        assert ids[0, 14] == model(ids[:, 7:14])[0, -1].argmax()  # and the window grows again


def test_a_context_of_one_token_works():
    model = small_gpt(context_length=1)
    prompt = torch.tensor([[3]])
    runs = [generate(model, prompt, max_new_tokens=6, temperature=0, use_cache=use_cache)
            for use_cache in (True, False)]
    assert torch.equal(*runs)


def test_each_row_gets_what_it_would_get_alone():
    model = small_gpt()
    prompts = torch.randint(19, (4, 3), generator=seeded(3))
    together = generate(model, prompts, max_new_tokens=20, temperature=0)
    for row, prompt in zip(together, prompts):
        alone = generate(model, prompt, max_new_tokens=20, temperature=0)
        assert torch.equal(row, alone[0])


def test_same_seed_same_text_and_another_seed_another_text():
    model, prompt = small_gpt(), torch.tensor([1, 2])
    texts = [generate(model, prompt, max_new_tokens=15, generator=seeded(s)) for s in (4, 4, 5)]
    assert torch.equal(texts[0], texts[1]) and not torch.equal(texts[0], texts[2])


def test_a_row_that_stopped_is_filled_with_its_stop_token():
    ids = generate(CYCLE, torch.tensor([[0], [2]]), max_new_tokens=9, stop_tokens=(2,))
    assert ids.tolist() == [[0, 1, 2, 2], [2, 0, 1, 2]]  # the 2 of the prompt stops nothing


def test_zero_new_tokens_return_the_prompt():
    prompt = torch.tensor([[1, 2]])
    ids = generate(CHAIN, prompt, max_new_tokens=0)
    assert torch.equal(ids, prompt) and ids.data_ptr() != prompt.data_ptr()


def test_repetition_penalty_breaks_a_greedy_loop():
    model = TableModel([[0.6, 0.25, 0.15]] * 3)
    prompt = torch.tensor([0])
    options = dict(max_new_tokens=12, temperature=0)
    assert set(generate(model, prompt, **options).tolist()[0]) == {0}
    assert len(set(generate(model, prompt, repetition_penalty=5.0, **options).tolist()[0])) == 3


def test_the_penalty_makes_ending_no_harder():
    model = TableModel([[0.1, 0.5, 0.4], [0.5, 0.1, 0.4], [0.2, 0.3, 0.5]])
    options = dict(max_new_tokens=1, temperature=0, repetition_penalty=2.0)
    prompt = torch.tensor([[0, 1], [2, 1]])  # 0 ends a text; the first row also begins with it
    ids = generate(model, prompt, stop_tokens=(0, 9), **options)  # of 9 the model knows nothing
    assert ids[:, 2].tolist() == [0, 0]
    assert generate(model, prompt, stop_tokens=(2,), **options)[:, 2].tolist() == [2, 0]
    assert generate(model, prompt, **options)[:, 2].tolist() == [2, 0]


def test_dropout_is_off_during_generation_and_the_mode_comes_back():
    model = small_gpt(dropout=0.5)
    model.train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    prompt = torch.tensor([1])
    texts = [generate(model, prompt, max_new_tokens=20, temperature=0) for _ in range(2)]
    assert torch.equal(*texts)
    assert [module.training for module in model.modules()] == modes


def test_the_mode_comes_back_after_an_interruption():
    model = small_gpt()
    model.train()

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = model.blocks[1].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate(model, torch.tensor([1]), max_new_tokens=3)
    handle.remove()
    assert model.training and not torch.is_inference_mode_enabled()


def test_training_goes_on_after_generation_and_generated_ids_can_be_trained_on():
    model = small_gpt(position="rope")
    ids = generate(model, torch.tensor([1]), max_new_tokens=6)
    assert not ids.is_inference() and not ids.requires_grad
    model(ids).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_sampled_tokens_follow_the_models_distribution():
    n = 20_000
    ids = generate(CHAIN, torch.zeros(n, 1, dtype=torch.long), max_new_tokens=2,
                   generator=seeded())
    assert distance(ids[:, 1:], chain_of_two(CHAIN, 0)) < 0.02


def chain_of_two(model, first):
    p = model.logits.exp()
    return p[first][:, None] * p  # p(a | first) p(b | a), (3, 3)


def distance(pairs, expected):
    """Total variation between the frequencies of pairs (N, 2) and their probabilities (3, 3)."""
    counts = (pairs[:, 0] * 3 + pairs[:, 1]).bincount(minlength=9).double()
    return 0.5 * (counts / counts.sum() - expected.flatten()).abs().sum().item()


@pytest.mark.parametrize("prompt, message", [
    (torch.zeros(1, 0, dtype=torch.long), "empty"),
    ([], "empty"),
    (torch.zeros(1, 13, dtype=torch.long), r"context_length is 12.*prompt\[:, -12:\]"),
    (torch.tensor([19]), "0 to 18"),
    (torch.tensor([[0.5]]), "expected token ids"),
    (torch.tensor(3), "expected token ids"),
])
def test_bad_prompts_are_refused_with_the_cure(prompt, message):
    with pytest.raises(ValueError, match=message):
        generate(small_gpt(), prompt, max_new_tokens=1)


def test_a_negative_number_of_tokens_is_refused():
    with pytest.raises(ValueError, match="max_new_tokens is -1"):
        generate(CHAIN, torch.tensor([0]), max_new_tokens=-1)


# ---- stream


def spelling(text, after):
    """A model over bytes that writes `text` after the byte `after`, then the special token 256."""
    data = list(text.encode()) + [256]

    def model(ids):
        begin = ids[0].tolist().index(after)
        logits = torch.zeros(*ids.shape, 257)
        logits[0, -1, data[ids.shape[1] - begin - 1]] = 100.0
        return logits

    return model


def test_stream_yields_whole_characters_only_and_stops_at_special_tokens():
    text = "aé三🙂b"
    tokenizer = ByteTokenizer(["<|endoftext|>"])
    pieces = list(stream(spelling(text, ord(":")), tokenizer, "x:"))
    assert pieces == list(text)


def test_stream_says_what_decode_says_also_when_it_ends_inside_a_character():
    tokenizer = ByteTokenizer(["<|endoftext|>"])
    pieces = list(stream(spelling("a三", ord(":")), tokenizer, ":", max_new_tokens=3))
    assert pieces == ["a", tokenizer.decode("三".encode()[:2])] == ["a", "\ufffd"]


def test_stream_equals_generate():
    model, tokenizer = small_gpt(vocab_size=256), ByteTokenizer()
    text = "".join(stream(model, tokenizer, "ab", max_new_tokens=40, top_k=9,
                          generator=seeded(7)))
    ids = generate(model, torch.tensor(tokenizer.encode("ab")), max_new_tokens=40, top_k=9,
                   generator=seeded(7))
    assert text == tokenizer.decode(ids[0, 2:])


def test_stream_reads_start_tokens_before_the_prompt_and_does_not_yield_them():
    model, tokenizer = small_gpt(vocab_size=257), ByteTokenizer(["<|endoftext|>"])
    text = "".join(stream(model, tokenizer, "ab", max_new_tokens=9, start_tokens=[256],
                          stop_tokens=(), generator=seeded(7)))
    ids = generate(model, torch.tensor([256, *tokenizer.encode("ab")]), max_new_tokens=9,
                   generator=seeded(7))
    assert text == tokenizer.decode(ids[0, 3:])
    with pytest.raises(ValueError):
        stream(model, tokenizer, "", start_tokens=[256])


def test_the_penalty_lets_a_stream_end_where_its_model_ends():
    tokenizer = ByteTokenizer(["<|endoftext|>"])

    def model(ids):  # the end is a little likelier than the next best
        logits = torch.zeros(*ids.shape, 257)
        logits[..., 256], logits[..., ord("b")] = 1.2, 1.0
        return logits

    options = dict(start_tokens=[256], max_new_tokens=3, temperature=0)
    assert "".join(stream(model, tokenizer, "a", repetition_penalty=1.5, **options)) == ""
    forever = stream(model, tokenizer, "a", repetition_penalty=1.5, stop_tokens=(), **options)
    assert next(forever) == "b"


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 3}, {"top_p": 1e-9}, {}])
def test_stream_never_draws_an_id_that_the_tokenizer_lacks(options):
    tokenizer = ByteTokenizer(["<|endoftext|>"])  # ids 0 to 256; the model has 300 rows

    def model(ids):
        logits = torch.full((*ids.shape, 300), -20.0)
        logits[..., ord("a"):ord("d")] = 1.0
        logits[..., 257:] = 9.0  # rows that were never trained can be anything
        return logits

    text = "".join(stream(model, tokenizer, "x", max_new_tokens=20, generator=seeded(),
                          start_tokens=[299], repetition_penalty=1.1, **options))
    assert len(text) == 20 and set(text) <= set("abc")
    ids = generate(model, torch.tensor([1]), max_new_tokens=5, temperature=0)
    assert (ids[0, 1:] >= 257).all()  # without a tokenizer nobody knows that they mean nothing


def test_stream_leaves_the_model_as_it_was_between_two_pieces():
    model = small_gpt(vocab_size=256).train()
    pieces = stream(model, ByteTokenizer(), "ab", max_new_tokens=30)
    next(pieces)
    assert model.training and not torch.is_inference_mode_enabled()
    model(torch.tensor([[1]])).sum().backward()  # training between two pieces works


def test_stream_refuses_a_bad_prompt_at_once():
    with pytest.raises(ValueError, match="empty"):
        stream(CHAIN, ByteTokenizer(), "")


# ---- beam search


def exhaustive(model, prompt, length, stop, power):
    """Score every continuation of at most `length` tokens that ends at its first stop token."""
    found = []
    for size in range(1, length + 1):
        for new in itertools.product(range(3), repeat=size):
            whole = stop not in new and size == length
            if whole or (new[-1] == stop and stop not in new[:-1]):
                ids = torch.tensor([[*prompt, *new]])
                log_p = model(ids).log_softmax(-1)[0, len(prompt) - 1:-1]
                total = log_p.gather(-1, torch.tensor(new)[:, None]).sum().item()
                found.append((total / size**power, list(ids[0])))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("power", [0.0, 0.6, 1.0])
def test_a_wide_beam_finds_what_exhaustive_search_finds(power):
    model = small_gpt(vocab_size=3).eval()
    prompt = [0, 1]
    best = exhaustive(model, prompt, 4, 2, power)
    beams = beam_search(model, torch.tensor(prompt), max_new_tokens=4, beam_width=200,
                        length_power=power, stop_tokens=(2,))
    assert len(beams) == len(best)
    for beam, (score, _) in zip(beams, best):
        assert beam.score == pytest.approx(score, abs=1e-4)
    assert beams[0].ids.tolist() == best[0][1]


def test_a_beam_of_one_is_greedy():
    model, prompt = small_gpt(), torch.tensor([4, 2])
    greedy = generate(model, prompt, max_new_tokens=25, temperature=0)
    beam, = beam_search(model, prompt, max_new_tokens=25, beam_width=1)
    assert torch.equal(beam.ids, greedy[0])


def test_a_wider_beam_finds_the_likelier_text_that_greedy_misses():
    """Greedy takes 0.6 and then halves; the other first step leads to a certain second."""
    model = TableModel([[0.0, 0.6, 0.4], [0.34, 0.33, 0.33], [0.0, 0.0, 1.0]])
    beam = beam_search(model, torch.tensor([0]), max_new_tokens=2, beam_width=2)[0]
    assert beam.ids.tolist() == [0, 2, 2]
    assert beam.log_probability == pytest.approx(math.log(0.4))


def test_without_normalisation_the_shortest_beam_wins():
    model = TableModel([[0.8, 0.2]] * 2)
    options = dict(max_new_tokens=8, beam_width=4, stop_tokens=(1,))
    short = beam_search(model, torch.tensor([0]), length_power=0.0, **options)[0]
    long = beam_search(model, torch.tensor([0]), length_power=1.0, **options)[0]
    assert short.ids.tolist() == [0, 1] and len(long.ids) == 9


# ---- speculative generation


@pytest.mark.parametrize("draft_tokens", [1, 2, 5])
def test_speculation_follows_the_models_distribution_not_the_drafts(draft_tokens):
    ids = speculative_generate(CHAIN, DRAFT, torch.tensor([0]), max_new_tokens=2500,
                               draft_tokens=draft_tokens, generator=seeded(11)).ids[0]
    pairs = torch.stack((ids[:-1], ids[1:]), dim=1)
    share = ids[:-1].bincount(minlength=3).double() / (len(ids) - 1)
    assert distance(pairs, share[:, None] * CHAIN.logits.exp()) < 0.04  # noise: about 0.015
    assert distance(pairs, share[:, None] * DRAFT.logits.exp()) > 0.2


def test_greedy_speculation_equals_greedy_generation_also_across_window_moves():
    model, prompt = small_gpt(), torch.tensor([1, 2, 3])
    greedy = generate(model, prompt, max_new_tokens=40, temperature=0)
    for draft in (small_gpt(5), small_gpt(5, context_length=7), model):
        result = speculative_generate(model, draft, prompt, max_new_tokens=40, temperature=0)
        assert torch.equal(result.ids, greedy)
        assert result.model_calls + result.accepted == 40


def test_a_perfect_draft_is_always_accepted_and_saves_passes():
    result = speculative_generate(CHAIN, CHAIN, torch.tensor([0]), max_new_tokens=50,
                                  draft_tokens=4, generator=seeded())
    assert result.accepted == result.proposed == 40 and result.model_calls == 10


def test_a_draft_that_is_always_wrong_costs_a_pass_for_each_token():
    wrong = TableModel([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    result = speculative_generate(CYCLE, wrong, torch.tensor([0]), max_new_tokens=6,
                                  generator=seeded())
    assert result.ids.tolist() == [[0, 1, 2, 0, 1, 2, 0]]
    assert result.accepted == 0 and result.model_calls == 6


def test_speculation_draws_a_possible_token_where_model_and_draft_differ_by_rounding(monkeypatch):
    """The model's p is a hair below the draft's q, and nowhere above: p - q has nothing left."""
    p, q = torch.tensor([[0.0, 0.5, 0.49999997]]), torch.tensor([[0.0, 0.5, 0.5]])
    tables = iter([q, p.expand(2, -1), p])
    monkeypatch.setattr(generation, "probabilities", lambda *_, **__: next(tables))

    def rand(*shape, dtype=torch.float32, **_):  # proposes the last token, then refuses it
        return torch.tensor(1 - 2**-24) if shape == ((),) else torch.zeros(shape, dtype=dtype)

    monkeypatch.setattr(torch, "rand", rand)
    result = speculative_generate(CHAIN, DRAFT, torch.tensor([0]), max_new_tokens=2)
    assert result.accepted == 0 and 0 not in result.ids[0, 1:]


def test_beam_search_and_speculation_take_one_prompt():
    two = torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match="got 2 prompts"):
        beam_search(CHAIN, two, max_new_tokens=1)
    with pytest.raises(ValueError, match="got 2 prompts"):
        speculative_generate(CHAIN, DRAFT, two, max_new_tokens=1)
