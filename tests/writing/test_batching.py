import pytest
import torch

from gptlib.formats.checkpoint import load_checkpoint, model_path
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.writing.batching import Request, pad, serve
from gptlib.writing.constraints import Constraint
from gptlib.writing.generation import generate
from gptlib.writing.inference import InferenceModel

SHAPE = dict(vocab_size=19, context_length=32, n_layer=2, n_head=2, n_embd=16)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small_gpt(**changes):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**(SHAPE | changes)))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= 8
    return model


def requests(count, seed=0, context=32, **shared):
    """Prompts of 1 to 20 tokens that ask for 1 to 12, some of them up to the last position."""
    g = seeded(seed)
    for number in range(count):
        length, most = (int(torch.randint(1, high, (), generator=g)) for high in (21, 13))
        most = context - length if number % 5 == 4 else most
        prompt = torch.randint(19, (length,), generator=g).tolist()
        yield Request(prompt, most, generator=seeded(number), **shared)


def alone(model, request, **options):
    """What `generate` writes for one request."""
    ids = generate(model, torch.tensor(request.prompt), max_new_tokens=request.max_new_tokens,
                   generator=request.generator, constraint=request.constraint, **options)
    return ids[0, len(request.prompt):].tolist()


def test_rows_are_filled_up_on_the_side_that_was_asked_for():
    ids, filling = pad([[1, 2, 3], [4]], fill=9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]] and filling.tolist() == [0, 2]
    ids, filling = pad([[1, 2, 3], [4]], side="right")
    assert ids.tolist() == [[1, 2, 3], [4, 0, 0]] and filling.tolist() == [0, 2]
    for rows, side in (([], "left"), ([[1], []], "left"), ([[1]], "middle")):
        with pytest.raises(ValueError, match="expected"):
            pad(rows, side)


@pytest.mark.parametrize("position", ["learned", "rope"])
@pytest.mark.parametrize("slots", [1, 3, 8, 50])
@pytest.mark.parametrize("options", [
    {"temperature": 0}, {"temperature": 1.3, "top_k": 7, "repetition_penalty": 1.5}])
def test_each_request_gets_the_text_that_it_gets_alone(position, slots, options):
    model = small_gpt(position=position, n_kv_head=1)
    options = options | {"stop_tokens": [3, 4]}
    expected = [alone(model, request, **options) for request in requests(23)]
    replies = list(serve(model, list(requests(23)), slots=slots, **options))
    assert sorted(reply.number for reply in replies) == list(range(23))
    for reply in replies:
        assert reply.ids == expected[reply.number]
        assert 0 < reply.first <= reply.last


def test_the_penalty_makes_ending_no_harder():
    model, asked = small_gpt(), [Request([12, 0, 8, 4, 1, 6], 9), Request([0], 1)]
    options = dict(temperature=0, repetition_penalty=1000.0)
    assert alone(model, asked[0], temperature=0)[0] == 0  # which stands in the prompt
    for stops, first in (((0, 99), 0), ((1,), 10), ((), 10)):
        replies = {reply.number: reply.ids for reply in serve(model, asked, stop_tokens=stops,
                                                              **options)}
        assert replies[0][0] == first
        assert replies[0] == alone(model, asked[0], stop_tokens=stops, **options)


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_a_model_prepared_for_writing_serves_requests_too(position):
    model = InferenceModel(small_gpt(position=position, n_kv_head=1))
    options = dict(temperature=1.3, top_k=7, stop_tokens=[3, 4])
    expected = [alone(model, request, **options) for request in requests(23)]
    for reply in serve(model, list(requests(23)), slots=3, **options):
        assert reply.ids == expected[reply.number]


def test_a_request_that_has_ended_leaves_its_place_to_one_that_waits():
    rows = []

    class Watched(GPT):
        def forward(self, ids, cache=None, padding=None):
            if padding is not None:
                rows.append(len(ids))
            return super().forward(ids, cache, padding)

    model = Watched(GPTConfig(**SHAPE))
    asked = [Request([1], 1), Request([1, 2], 2), Request([1], 6), Request([3] * 9, 3)]
    replies = list(serve(model, asked, slots=2, temperature=0))
    assert [reply.number for reply in replies] == [0, 1, 3, 2]  # each as soon as it ends
    assert rows == [2, 2, 2, 2, 1, 1]  # one place stays empty when nobody waits


def test_the_story_model_writes_the_same_texts_side_by_side():
    model, tokenizer = load_checkpoint(model_path("stories"))[:2]
    beginnings = ["Once upon a time", "The fox", "“Where are you going?” said the old woman to"]
    options = dict(temperature=0.8, top_p=0.9)

    def asked():
        return [Request(tokenizer.encode(text), 12 + 5 * i, generator=seeded(i))
                for i, text in enumerate(beginnings)]

    expected = [alone(model, request, **options) for request in asked()]
    for reply in serve(model, asked(), slots=2, **options):
        assert reply.ids == expected[reply.number]


def test_a_request_may_have_a_constraint_of_its_own():
    tokenizer = ByteTokenizer(["<end>"])
    model = small_gpt(vocab_size=257)
    digits, letters = (Constraint.from_pattern(p, tokenizer) for p in ("[0-9]{2,5}", "[a-z]{3}"))
    options = dict(stop_tokens=[256])

    def asked():
        return [Request([65 + i] * (i + 1), 4 + i % 3, seeded(i), (digits, letters, None)[i % 3])
                for i in range(7)]

    expected = [alone(model, request, **options) for request in asked()]
    for reply in serve(model, asked(), slots=3, **options):
        assert reply.ids == expected[reply.number]


def test_mistakes_are_told_before_anything_is_read():
    model = small_gpt()
    for request in (Request([], 3), Request([1], 0), Request([1] * 30, 3)):
        with pytest.raises(ValueError, match="request 1 has a prompt"):
            serve(model, [Request([1], 3), request])
    with pytest.raises(ValueError, match="slots is 0"):
        serve(model, [Request([1], 3)], slots=0)
    with pytest.raises(ValueError, match="expected a GPT"):
        serve(lambda ids: ids, [Request([1], 3)])
    assert list(serve(model, [])) == []


def test_between_two_replies_the_model_is_as_it_was():
    model = small_gpt(dropout=0.5)
    for _ in serve(model, list(requests(5)), slots=2):
        assert model.training and not torch.is_inference_mode_enabled()
