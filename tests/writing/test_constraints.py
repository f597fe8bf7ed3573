import json
import re

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib.formats.checkpoint import load_checkpoint, model_path
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer
from gptlib.writing.automata import START, Automaton
from gptlib.writing.constraints import Constraint, Guard, heal
from gptlib.writing.generation import generate, stream

TOKENIZER = BPETokenizer([(b"a", b"b"), (b"ab", b"ab"), (b":", b"/"), (b":/", b"/"),
                          (b"\xc3", b"\xa9"), (b" ", b"a")], ["<end>", "ab?"])
END = TOKENIZER.special_tokens["<end>"]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "kind": {"enum": ["fox", "girl", "king", None]},
        "age": {"type": "integer", "minimum": 1, "maximum": 120},
        "wishes": {"type": "array", "minItems": 1, "maxItems": 3,
                   "items": {"type": "string", "maxLength": 20}},
        "size": {"type": "object", "properties": {"m": {"type": "number"},
                                                  "tall": {"type": "boolean"}}},
    },
    "required": ["name", "kind", "age", "wishes", "size"], "additionalProperties": False,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny_gpt(vocab_size=TOKENIZER.vocab_size, **changes):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**(dict(vocab_size=vocab_size, context_length=256, n_layer=1, n_head=2,
                                  n_embd=16) | changes)))
    for parameter in model.parameters():
        parameter.data *= 5
    return model


def texts(model, tokenizer, constraint, count, budget, prompt=(5,), **options):
    end = tokenizer.special_tokens[min(tokenizer.special_tokens)]
    ids = generate(model, torch.tensor([prompt] * count), max_new_tokens=budget,
                   constraint=constraint, stop_tokens=[end], **options)
    for row in ids[:, len(prompt):].tolist():
        yield tokenizer.decode(row[:row.index(end)] if end in row else row)


def test_a_thousand_documents_of_a_random_model_are_valid():
    constraint = Constraint.from_schema(SCHEMA, TOKENIZER)
    shortest = int(constraint.fewest[START])
    written = []
    for budget, count in ((shortest, 50), (shortest + 3, 250), (160, 700)):
        written += texts(tiny_gpt(), TOKENIZER, constraint, count, budget, generator=seeded(budget))
    assert len(written) == 1000 and len(set(written)) > 900
    for text in written:
        jsonschema.validate(json.loads(text), SCHEMA)


def test_documents_of_the_story_model_are_valid():
    model, tokenizer = load_checkpoint(model_path("stories"))[:2]
    constraint = Constraint.from_schema(SCHEMA, tokenizer)
    prompt = tokenizer.encode("Once upon a time there was a ")
    for temperature, seed in ((1.0, 0), (0.7, 1)):
        for text in texts(model, tokenizer, constraint, 50, 120, prompt, temperature=temperature,
                          top_k=50, generator=seeded(seed)):
            jsonschema.validate(json.loads(text), SCHEMA)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["(ab)*", "a(b|é)+", "[^b]{2,4}", "ab|a", ".*b"]), st.integers(0, 99))
def test_texts_stay_in_the_language_whatever_the_budget(pattern, seed):
    constraint = Constraint.from_pattern(pattern, TOKENIZER)
    for budget in (int(constraint.fewest[START]) or 1, 7):
        for text in texts(tiny_gpt(), TOKENIZER, constraint, 4, budget, generator=seeded(seed)):
            assert re.fullmatch(pattern, text), (pattern, text)


@pytest.mark.parametrize("pattern", ["(ab)*", "a{3}é", "[^b]*:", "(a|ab)(c|bcd)"])
def test_a_token_is_allowed_exactly_if_its_bytes_lead_on(pattern):
    constraint, automaton = (Constraint.from_pattern(pattern, TOKENIZER),
                             Automaton.from_pattern(pattern))
    special = set(TOKENIZER.special_tokens.values())
    for text in (b"", b"a", b"ab", b"aaa", b"aaa\xc3"):
        state = automaton.run(text)
        if state:
            mask = constraint.allowed(state, remaining=50)
            for token, piece in enumerate(TOKENIZER.token_bytes):
                leads_on = token not in special and automaton.run(piece, state) != 0
                assert mask[token] == leads_on, (text, piece)
                assert not leads_on or constraint.step(state, token) == automaton.run(piece, state)


def test_the_fewest_tokens_are_counted_in_tokens_not_in_bytes():
    constraint = Constraint.from_pattern("(abab){3}", TOKENIZER)
    assert constraint.fewest[START] == 3
    assert Constraint.from_pattern("(abab){3}", ByteTokenizer(["<end>"])).fewest[START] == 12


def test_near_the_end_only_tokens_that_lead_there_in_time_are_allowed():
    constraint = Constraint.from_pattern("abab|a{9}", TOKENIZER)
    a, ab, abab = (TOKENIZER.token_bytes.index(piece) for piece in (b"a", b"ab", b"abab"))
    assert [i for i, ok in enumerate(constraint.allowed(START, 9)) if ok] == [a, ab, abab]
    assert [i for i, ok in enumerate(constraint.allowed(START, 2)) if ok] == [ab, abab]
    assert [i for i, ok in enumerate(constraint.allowed(START, 1)) if ok] == [abab]
    assert constraint.allowed(START, 9).sum() == 3  # what was kept has not been changed


def test_a_text_ends_only_where_it_is_complete():
    class WantsToEnd:
        def __call__(self, ids):
            logits = torch.zeros(*ids.shape, TOKENIZER.vocab_size)
            logits[..., END] = 50.0
            return logits

    constraint = Constraint.from_pattern("a{3,}", TOKENIZER)
    ids = generate(WantsToEnd(), torch.tensor([[5]]), max_new_tokens=9, constraint=constraint,
                   stop_tokens=[END], generator=seeded())
    assert TOKENIZER.decode(ids[0, 1:-1]) == "aaa" and ids[0, -1] == END
    pieces = stream(WantsToEnd(), TOKENIZER, "b", max_new_tokens=9, constraint=constraint)
    assert "".join(pieces) == "aaa"


def test_special_tokens_are_no_text_even_where_their_names_would_be():
    constraint = Constraint.from_pattern(r"ab\?|<end>", TOKENIZER)
    assert not constraint.allowed(START, 20)[list(TOKENIZER.special_tokens.values())].any()


def test_the_constraint_comes_before_the_filters():
    constraint = Constraint.from_pattern("[0-9]+", TOKENIZER)
    for options in ({"top_k": 1}, {"top_p": 0.01}, {"temperature": 0}, {"min_p": 1.0}):
        for text in texts(tiny_gpt(), TOKENIZER, constraint, 3, 5, **options):
            assert re.fullmatch("[0-9]+", text)


def test_a_model_with_more_rows_than_tokens_never_draws_them():
    model = tiny_gpt(vocab_size=TOKENIZER.vocab_size + 40)
    for text in texts(model, TOKENIZER, Constraint.from_pattern("a*b", TOKENIZER), 5, 9):
        assert re.fullmatch("a*b", text)


def test_mistakes_are_told_before_anything_is_written():
    constraint = Constraint.from_pattern("a{5}", ByteTokenizer(["<end>"]))
    prompt = torch.tensor([[5]])
    options = dict(constraint=constraint, stop_tokens=[256])
    with pytest.raises(ValueError, match="expected at least 5"):
        generate(tiny_gpt(257), prompt, max_new_tokens=4, **options)
    with pytest.raises(ValueError, match="expected at least 5"):
        stream(tiny_gpt(257), ByteTokenizer(["<end>"]), "b", max_new_tokens=4,
               constraint=constraint)
    for stops in ((), (97,)):
        with pytest.raises(ValueError, match="special token"):
            generate(tiny_gpt(257), prompt, max_new_tokens=9, constraint=constraint,
                     stop_tokens=stops)
    with pytest.raises(ValueError, match="do they belong together"):
        generate(tiny_gpt(256), prompt, max_new_tokens=9, **options)
    with pytest.raises(ValueError, match="no tokens of this tokenizer"):
        Constraint.from_pattern("xyz", CharTokenizer("abc"))


def test_a_guard_moves_each_row_by_its_own_tokens():
    guard = Guard(Constraint.from_pattern("ab|ba", TOKENIZER), 2, 6, [END])
    a, b = TOKENIZER.token_bytes.index(b"a"), TOKENIZER.token_bytes.index(b"b")
    guard.follow(torch.tensor([a, b]))
    left = guard.restrict(torch.zeros(2, TOKENIZER.vocab_size)).isfinite()
    assert left[0].nonzero()[:, 0].tolist() == [b] and left[1].nonzero()[:, 0].tolist() == [a]
    guard.follow(torch.tensor([b, a]))
    left = guard.restrict(torch.zeros(2, TOKENIZER.vocab_size)).isfinite()
    assert left.nonzero().tolist() == [[0, END], [1, END]]


def test_healing_takes_back_what_could_begin_a_longer_token():
    def ids_of(*pieces):
        return [TOKENIZER.token_bytes.index(piece) for piece in pieces]

    assert heal("http:", TOKENIZER) == (ids_of(b"h", b"t", b"t", b"p"), b":")
    assert heal("x:/", TOKENIZER) == (ids_of(b"x"), b":/")
    assert heal("b ", TOKENIZER) == (ids_of(b"b"), b" ")  # " a" begins with a blank
    assert heal("xyz", TOKENIZER) == (ids_of(b"x", b"y", b"z"), b"")
    assert heal("ab", TOKENIZER) == ([], b"ab")  # "abab" begins so: all of it goes
    assert heal("", TOKENIZER) == ([], b"")


def test_a_healed_prompt_is_continued_from_its_last_letter_and_may_take_the_longer_token():
    class LikesLongTokens:
        def __call__(self, ids):
            sizes = torch.tensor([float(len(piece)) for piece in TOKENIZER.token_bytes])
            return sizes.expand(*ids.shape, -1)

    for prompt, ending in (("http:", "http://"), ("xab", "xabab"), ("pé", "pé")):
        ids, removed = heal(prompt, TOKENIZER)
        out = generate(LikesLongTokens(), torch.tensor(ids), max_new_tokens=1, temperature=0,
                       constraint=Constraint(Automaton.beginning(removed), TOKENIZER),
                       stop_tokens=[END])
        assert TOKENIZER.decode(out[0]).startswith(ending)
