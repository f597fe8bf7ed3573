"""The tokenizer of a GGUF file: types of tokens as in llama.cpp, and what is refused."""

import pytest
from small_gguf import MERGES, TOKENS, TYPES, metadata, visible

from gptlib.formats.gguf_tokenizer import GGUFTokenizer


def tokenizer(extra=(), **changes) -> GGUFTokenizer:
    """The small file's tokenizer with more tokens, as (token, type), and other keys."""
    keys = {"tokens": TOKENS + [token for token, _ in extra],
            "token_type": TYPES + [kind for _, kind in extra]} | changes
    values = metadata() | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    return GGUFTokenizer({k: v for k, v in values.items() if v is not None}, "fox.gguf")


def pieces(tokenizer: GGUFTokenizer, text: str, allow_special: bool = False) -> list[str]:
    return [tokenizer.token_bytes[i].decode() for i in tokenizer.encode(text, allow_special)]


def test_it_splits_digits_and_keeps_special_tokens_apart():
    fox = tokenizer()
    ids = fox.encode("the 12<|im_end|>", allow_special=True)
    assert [fox.token_bytes[i] for i in ids] == [b"the", b" ", b"1", b"2", b"<|im_end|>"]
    assert ids[-1] == 1 == fox.special_tokens["<|im_end|>"]
    assert 1 not in fox.encode("<|im_end|>")  # ordinary text unless allowed
    for text in ("", "naïve 🎉\n\n x", "你好"):
        assert fox.decode(fox.encode(text)) == text


# The expected ids were read off llama.cpp's own tokenizer with the same vocabulary.
MORE = [("two words", 4), ("the fox", 4), ("你好", 4), ("  ", 4), ("   ", 4), ("<|im_start|>", 3),
        ("[UNK]", 2), ("[PAD1]", 5), ("ab", 4), ("bcd", 4), ("é!", 4), ("fox<|", 4)]


def test_user_defined_tokens_are_plain_text_and_always_whole():
    fox = tokenizer(MORE)
    assert pieces(fox, "the fox and two wordsx") == ["the fox", " and", " ", "two words", "x"]
    assert pieces(fox, "你好 你好") == ["你好", " ", "你好"]
    assert pieces(fox, "é! é!!") == ["é!", " ", "é!", "!"]
    assert fox.decode(fox.encode("a two words 你好 é!")) == "a two words 你好 é!"


def test_the_longest_whole_token_is_cut_out_first():
    fox = tokenizer(MORE)
    assert pieces(fox, "abcd ab") == ["a", "bcd", " ", "ab"]
    assert pieces(fox, "a     b") == ["a", "   ", "  ", "b"]
    assert pieces(fox, "a fox<|im_end|>", True) == ["a", " fox", "<|im_end|>"]
    assert pieces(fox, "a fox<|im_end|>")[:3] == ["a", " ", "fox<|"]


def test_unknown_tokens_are_special_and_unused_ones_come_from_no_text():
    fox = tokenizer(MORE)
    assert set(fox.special_tokens) == {"<|endoftext|>", "<|im_end|>", "<|im_start|>", "[UNK]"}
    assert "[UNK]" in pieces(fox, "[UNK]", True) and "[UNK]" not in pieces(fox, "[UNK]")
    unused = len(TOKENS) + MORE.index(("[PAD1]", 5))
    assert unused not in fox.encode("[PAD1]", allow_special=True)
    assert fox.decode([unused]) == "" and fox.vocab_size == len(TOKENS) + len(MORE)


def without(byte: bytes) -> dict:
    """Keys of a vocabulary that lacks a byte."""
    place = TOKENS.index(visible(byte))
    return {"tokens": [*TOKENS[:place], *TOKENS[place + 1:]],
            "token_type": [*TYPES[:place], *TYPES[place + 1:]]}


def test_a_character_that_the_vocabulary_lacks_is_named_with_its_position():
    lossy = tokenizer(**without("é".encode()[1:]))
    with pytest.raises(ValueError, match=r"character 'é' \(U\+00E9\) at position 8 "):
        lossy.encode("the fox é said")
    with pytest.raises(ValueError, match="'é' .* at position 15 "):
        lossy.encode("<|im_end|> the é", allow_special=True)
    assert lossy.decode(lossy.encode("the fox ë")) == "the fox ë"
    with pytest.raises(ValueError, match="surrogate at position 4"):
        lossy.encode("the \ud800")


@pytest.mark.parametrize("changes, message", [
    ({"tokens": None}, "tokens is missing"), ({"merges": None}, "merges is missing"),
    ({"model": "llama"}, "model is 'llama'; expected one of 'gpt2'"),
    ({"model": None}, "model is missing"), ({"pre": None}, "pre is missing"),
    ({"pre": "llama-bpe"}, "pre is 'llama-bpe'; expected one of 'smollm'"),
    ({"tokens": "the fox"}, "tokens is 'the fox'; expected a list"),
    ({"tokens": [], "token_type": []}, "tokens holds '' 0 times"),
    ({"tokens": [1, *TOKENS[1:]]}, "tokens is .*; expected a list of str"),
    ({"tokens": ["", *TOKENS[1:]]}, "tokens holds"),
    ({"tokens": ["the", *TOKENS[1:]]}, "tokens holds 'the' 2 times"),
    ({"tokens": [*TOKENS[:-1], "t h"]}, "tokens has 't h' as number 280, of type 1"),
    ({"token_type": TYPES[:-1]}, "token_type has 280 entries"),
    ({"token_type": [6, *TYPES[1:]]}, "token_type has .* the type 6 among them"),
    ({"token_type": [0, *TYPES[1:]]}, "token_type has .* the type 0 among them"),
    ({"token_type": [3.0, *TYPES[1:]]}, "token_type is .*; expected a list of int"),
    ({"merges": ["t h e"]}, "merges cannot be read"), ({"merges": ["the"]}, "merges cannot be"),
    ({"merges": ["th e"]}, "merge number 0 is"), ({"merges": ["t 你"]}, "merges cannot be read"),
    ({"merges": ["t h", "t h"]}, "merge number 1 is"),
    ({"merges": ["q z"]}, "merges has 'q z' as number 0; expected merges that make one"),
    ({"merges": []}, None), ({"eos_token_id": 281}, "eos_token_id is 281"),
    ({"padding_token_id": -1}, "padding_token_id is -1"), ({"fim_pad_token_id": 280}, None),
    ({"add_bos_token": True}, "add_bos_token is True"), ({"add_bos_token": False}, None),
    ({"add_eos_token": True}, "add_eos_token is True"), ({"add_bos_token": 1}, "is 1; expected"),
    ({"add_space_prefix": True}, "add_space_prefix is True"),
    ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces is True"),
    ({"precompiled_charsmap": [1, 2]}, "precompiled_charsmap is"),
    ({"token_type_count": 2}, "token_type_count is 2"), ({"added_tokens": ["a"]}, "added_tokens"),
    ({"normalizer.lowercase": True}, "normalizer.lowercase is True"),
])
def test_a_key_is_used_or_refused_by_name(changes, message):
    if message is None:
        assert tokenizer(**changes).encode("q")
        return
    with pytest.raises(ValueError, match=f"fox.gguf: tokenizer.ggml.*{message}"):
        tokenizer(**changes)


def test_other_keys_that_begin_with_tokenizer_are_refused_unless_they_say_nothing_of_ids():
    keys = {k: v for k, v in metadata().items() if k.startswith("tokenizer")}
    said = {"tokenizer.chat_template": "a", "tokenizer.chat_template.tool_use": "b",
            "tokenizer.chat_templates": ["tool_use"], "tokenizer.huggingface.json": "{}"}
    assert GGUFTokenizer(keys | said).encode("the") == tokenizer().encode("the")
    with pytest.raises(ValueError, match="the GGUF file: tokenizer.rwkv.world is 'x'"):
        GGUFTokenizer(keys | {"tokenizer.rwkv.world": "x"})


def test_a_merge_can_make_no_special_and_no_user_defined_token():
    made = TOKENS.index(visible(b"".join(MERGES[-1])))
    for kind in (2, 3, 4, 5):
        types = [*TYPES[:made], kind, *TYPES[made + 1:]]
        with pytest.raises(ValueError, match="expected merges that make one of the file's normal"):
            tokenizer(token_type=types)
