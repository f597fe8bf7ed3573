"""A chat: what is streamed, what is remembered, what is read again, what is forgotten."""

import itertools

import pytest
import torch

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.chat_template import Message, encode_chat, encode_end, encode_header
from gptlib.text.tokenizers import ByteTokenizer
from gptlib.writing.chat import Chat, check_decoding, load_messages, save_messages
from gptlib.writing.generation import generate
from gptlib.writing.inference import InferenceModel

TOKENIZER = ByteTokenizer(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
OVER, START, END = (TOKENIZER.special_tokens[token]
                    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))


class Scripted:
    """A model that says what it is given to say, and notes what it reads."""

    def __init__(self, *replies, context_length=500):
        self.config = GPTConfig(TOKENIZER.vocab_size, context_length=context_length, n_layer=1,
                                n_head=1, n_embd=2)
        self.words = [i for reply in replies
                      for i in (reply if isinstance(reply, list) else spoken(reply))]
        self.context, self.reads = [], []

    def parameters(self):
        return iter((torch.zeros(1),))

    def __call__(self, ids, cache):
        self.context[cache.length:] = ids[0].tolist()
        cache.advance(ids.shape[1])
        self.reads.append(ids.shape[1])
        word = self.words.pop(0)
        if isinstance(word, BaseException):
            raise word
        return torch.nn.functional.one_hot(torch.tensor([[word]]), 300).float() * 100


def spoken(text):
    return [*text.encode(), END]


def talk(*contents):
    return [Message(role, content)
            for role, content in zip(itertools.cycle(("user", "assistant")), contents)]


def test_a_reply_is_streamed_and_both_messages_are_remembered():
    chat = Chat(Scripted("fine", "é三"), TOKENIZER)
    assert list(chat.reply("how are you?")) == ["f", "i", "n", "e"]
    assert list(chat.reply("more")) == ["é", "三"]  # never half of a character
    assert chat.messages == talk("how are you?", "fine", "more", "é三")


def test_the_model_reads_the_template_with_what_stands_before_it():
    model = Scripted("one", "two")
    chat = Chat(model, TOKENIZER, system="Be brief.", start_tokens=[OVER])
    "".join(chat.reply("a"))
    "".join(chat.reply("b<|im_end|>"))
    asked = talk("a", "one", "b<|im_end|>")
    assert model.context == [OVER, *encode_chat(asked, TOKENIZER, system="Be brief."), *b"two"]
    assert chat.messages == [Message("system", "Be brief."), *asked, Message("assistant", "two")]


def test_in_the_next_turn_only_new_tokens_are_read():
    model = Scripted("one", "three")
    chat = Chat(model, TOKENIZER, system="Be brief.")
    "".join(chat.reply("a"))
    first = len(encode_chat(talk("a"), TOKENIZER, system="Be brief."))
    assert model.reads == [first, 1, 1, 1]
    "".join(chat.reply("b"))
    new = len(encode_end(TOKENIZER) + encode_chat(talk("b"), TOKENIZER))
    assert model.reads[4:] == [new, 1, 1, 1, 1, 1]
    assert sum(model.reads) == len(model.context)  # each token once


@pytest.mark.parametrize("packed", [False, True])
def test_replies_are_those_of_a_model_that_reads_all_of_it_again(packed):
    torch.manual_seed(0)
    model = GPT(GPTConfig.modern(TOKENIZER.vocab_size, context_length=400, n_layer=2, n_head=2,
                                 n_embd=32))
    for parameter in model.parameters():
        parameter.data *= 3 if parameter.dim() > 1 else 1
    chat = Chat(InferenceModel(model) if packed else model, TOKENIZER)
    ids, lengths = [], []
    for text in ("hello", "who are you?", "x" * 50, "bye"):
        ids += encode_chat(talk(text), TOKENIZER)
        answer = generate(model, torch.tensor(ids), max_new_tokens=30, temperature=0,
                          stop_tokens=range(256, 259), use_cache=False)[0, len(ids):].tolist()
        said = list(itertools.takewhile(lambda i: i < 256, answer))
        reply = "".join(chat.reply(text, temperature=0, max_new_tokens=30))
        assert reply == TOKENIZER.decode(said)
        ids += said + encode_end(TOKENIZER)
        lengths.append(len(said))
    assert max(lengths) > 5


@pytest.mark.parametrize("mark", [OVER, START])
def test_other_special_tokens_end_a_reply_as_well(mark):
    model = Scripted([*b"ok", mark], "no")
    chat = Chat(model, TOKENIZER)
    assert "".join(chat.reply("a")) == "ok"
    "".join(chat.reply("b"))
    assert model.context == encode_chat(talk("a", "ok", "b"), TOKENIZER) + [*b"no"]


def test_a_reply_ends_after_the_tokens_it_may_have():
    chat = Chat(Scripted("a long story", "."), TOKENIZER)
    assert "".join(chat.reply("a", max_new_tokens=6)) == "a long"
    assert chat.messages[-1].content == "a long"


@pytest.mark.parametrize("how", ["closed", "Ctrl-C", "asked anew", "reset too late"])
def test_what_was_said_stays_said_when_a_reply_is_cut_short(how):
    model = Scripted([*b"one", KeyboardInterrupt() if how == "Ctrl-C" else END])
    chat = Chat(model, TOKENIZER)
    pieces = chat.reply("count")
    assert [next(pieces), next(pieces), next(pieces)] == ["o", "n", "e"]
    if how == "closed":
        pieces.close()
    elif how == "Ctrl-C":
        with pytest.raises(KeyboardInterrupt):
            next(pieces)
    elif how == "reset too late":
        chat.reset()
        assert chat.messages == [] and list(pieces) == []
        return
    model.words[:] = spoken("yes")
    assert "".join(chat.reply("go on")) == "yes"
    assert chat.messages == talk("count", "one", "go on", "yes")
    assert model.context == encode_chat(talk("count", "one", "go on"), TOKENIZER) + [*b"yes"]
    assert list(pieces) == []


def test_half_a_character_is_not_remembered():
    model = Scripted([*"a三".encode()[:3]], "ok")
    chat = Chat(model, TOKENIZER)
    pieces = chat.reply("x")
    assert next(pieces) == "a"
    model.words.insert(2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        next(pieces)
    "".join(chat.reply("y"))
    assert model.context == encode_chat(talk("x", "a", "y"), TOKENIZER) + [*b"ok"]


def test_bytes_that_become_no_character_are_shown_and_remembered():
    chat = Chat(Scripted([*"三".encode()[:2], END]), TOKENIZER)
    assert "".join(chat.reply("x")) == chat.messages[-1].content == "\ufffd"


def test_a_reply_that_nobody_asked_for_a_piece_of_was_never_said():
    chat = Chat(Scripted("b"), TOKENIZER)
    chat.reply("a")
    assert "".join(chat.reply("c")) == "b" and chat.messages == talk("c", "b")


def test_an_error_leaves_the_conversation_as_it_was():
    model = Scripted([*b"fi", ValueError("broken")], "yes")
    chat = Chat(model, TOKENIZER)
    with pytest.raises(ValueError, match="broken"):
        list(chat.reply("a"))
    assert chat.messages == [] and "".join(chat.reply("b")) == "yes"
    assert model.context == encode_chat(talk("b"), TOKENIZER) + [*b"yes"]


def test_reset_forgets_all_but_the_system_message():
    model = Scripted("one", "two")
    chat = Chat(model, TOKENIZER, system="Be brief.", start_tokens=[OVER])
    "".join(chat.reply("a"))
    chat.reset()
    assert chat.messages == [Message("system", "Be brief.")]
    "".join(chat.reply("b"))
    expected = [OVER, *encode_chat(talk("b"), TOKENIZER, system="Be brief.")]
    assert model.context == expected + [*b"two"]
    new = len(encode_chat(talk("b"), TOKENIZER)) - len([START, *b"user\n"])
    assert model.reads[4] == new  # system message and user's header are still in the cache


def test_a_full_context_forgets_the_oldest_exchanges_whole_and_keeps_the_system_message():
    limit = 400
    model = Scripted(*["reply"] * 20, context_length=limit)
    chat = Chat(model, TOKENIZER, system="Be brief.", start_tokens=[OVER])
    fixed = [OVER, *encode_chat([Message("system", "Be brief.")], TOKENIZER, reply=False)]
    for turn in range(20):
        before = chat.forgotten
        "".join(chat.reply(f"message {turn:2}"))
        remembered = [m for t in range(chat.forgotten, turn) for m in (f"message {t:2}", "reply")]
        expected = encode_chat(talk(*remembered, f"message {turn:2}"), TOKENIZER)
        assert model.context == [*fixed, *expected, *b"reply"] and len(model.context) <= limit
        if chat.forgotten > before:  # a quarter of the context has been made free
            assert len(expected) + len(fixed) <= limit * 3 / 4
    assert chat.forgotten > 4 and len(chat.messages) == 41
    room = limit - len(fixed)
    assert len(encode_chat(talk(*["message 00", "reply"] * 4), TOKENIZER)) < room  # 4 would do


def test_nothing_is_forgotten_before_the_context_is_full():
    texts = ["a" * 20, "b" * 20, "c" * 20]
    whole = encode_chat(talk(texts[0], "ok", texts[1], "ok", texts[2]), TOKENIZER)
    for spare, forgotten in ((2, 0), (1, 1)):  # the second token of the last reply needs 2
        model = Scripted("ok", "ok", "ok", context_length=len(whole) + spare)
        chat = Chat(model, TOKENIZER)
        for text in texts:
            "".join(chat.reply(text))
        assert bool(chat.forgotten) == bool(forgotten)


def test_a_reply_that_fills_the_context_makes_room_for_itself_and_ends_when_there_is_none():
    model = Scripted("ok", "x" * 200, context_length=120)
    chat = Chat(model, TOKENIZER)
    "".join(chat.reply("a"))
    reply = "".join(chat.reply("b"))
    asked = encode_chat(talk("b"), TOKENIZER)
    assert chat.forgotten == 1 and len(reply) == 120 - len(asked) + 1
    assert model.context == asked + [*b"x"] * (len(reply) - 1)
    model.words[:] = spoken("ok")
    assert "".join(chat.reply("c")) == "ok" and chat.forgotten == 2


def test_a_message_longer_than_the_context_is_refused_and_changes_nothing():
    chat = Chat(Scripted("ok", context_length=100), TOKENIZER, system="s")
    room = 100 - len(encode_chat(talk(""), TOKENIZER, system="s"))
    with pytest.raises(ValueError, match="message has .* tokens.*context_length is 100: shorten"):
        chat.reply("x" * (room + 1))
    assert chat.messages == [Message("system", "s")]
    assert "".join(chat.reply("x" * room)) == "o"  # the context has room for no second token


def test_a_conversation_can_be_taken_up_where_it_ended():
    before = [Message("system", "Be kind."), *talk("a", "one", "b", "two")]
    model = Scripted("three")
    chat = Chat(model, TOKENIZER, system="Be brief.", messages=before)
    assert "".join(chat.reply("c")) == "three"
    assert model.context == encode_chat([*before, Message("user", "c")], TOKENIZER) + [*b"three"]
    chat.reset()
    assert chat.messages == before[:1]


def test_any_callable_can_chat_without_a_cache_and_without_a_limit():
    def model(ids):  # after "\n" it says "x", after "x" it ends
        return torch.nn.functional.one_hot(
            torch.where(ids == ord("\n"), ord("x"), END), TOKENIZER.vocab_size).float() * 100

    chat = Chat(model, TOKENIZER)
    assert [list(chat.reply("a" * 9)) for _ in range(3)] == [["x"]] * 3


def test_the_penalty_is_on_the_model_s_own_words_and_never_on_a_mark():
    def model(ids):
        logits = torch.zeros(1, ids.shape[1], TOKENIZER.vocab_size)
        logits[..., END], logits[..., ord("a")], logits[..., ord("b")] = 1.0, 1.2, 1.1
        return logits

    chat = Chat(model, TOKENIZER)
    options = dict(temperature=0, repetition_penalty=1.3)
    assert "".join(chat.reply("END, a and b stand in this message", **options)) == "ab"
    assert "".join(chat.reply("again", **options)) == ""


def test_between_two_pieces_and_afterwards_the_model_has_its_own_mode():
    model = GPT(GPTConfig(TOKENIZER.vocab_size, context_length=64, n_layer=1, n_head=1, n_embd=8,
                          dropout=0.5)).train()
    pieces = Chat(model, TOKENIZER).reply("a", max_new_tokens=9)
    for _ in pieces:
        assert model.training and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("options", [
    {"temperature": -1}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 2}, {"min_p": 2},
    {"repetition_penalty": 0}, {"max_new_tokens": -1}])
def test_impossible_options_are_refused_at_once(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        check_decoding(**options)
    chat = Chat(Scripted("ok"), TOKENIZER)
    with pytest.raises(ValueError, match=next(iter(options))):
        chat.reply("a", **options)
    assert chat.messages == []


def test_checking_options_takes_no_random_number():
    state = torch.get_rng_state()
    check_decoding(temperature=0.7, top_p=0.9)
    assert torch.equal(state, torch.get_rng_state())


def test_a_tokenizer_without_marks_cannot_chat():
    with pytest.raises(ValueError, match="no special token"):
        Chat(Scripted(), ByteTokenizer())


def test_a_conversation_is_stored_as_lines_and_read_back(tmp_path):
    messages = [Message("system", 'Be "brief"\n'), *talk("é三🙂\u2028\r\n", "")]
    save_messages(tmp_path / "talk.jsonl", messages)
    assert load_messages(tmp_path / "talk.jsonl") == messages
    lines = (tmp_path / "talk.jsonl").read_text(encoding="utf-8").split("\n")
    assert len(lines) == 4 and "é三🙂" in lines[1]


@pytest.mark.parametrize("content, message", [
    ("", "is empty"), ("hello", "line 1: it is cut off or not JSON"), ("[]", "holds a list"),
    ('{"role": "user", "content": "a"}\n{"role": "user"}', "line 2: content is missing"),
    ('{"role": "bot", "content": "a"}', "line 1: role is 'bot'"),
    ('{"role": "user", "content": 3}', "content is 3; expected"),
    ('{"role": "user", "content": "a", "name": "b"}', "name is 'b'; expected no key")])
def test_what_is_no_stored_conversation_is_refused_by_line(tmp_path, content, message):
    (tmp_path / "talk").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_messages(tmp_path / "talk")
    with pytest.raises(ValueError, match="it is no file"):
        load_messages(tmp_path / "nothing")


def test_the_header_stands_before_each_reply():
    model = Scripted("ok")
    "".join(Chat(model, TOKENIZER).reply("a"))
    header = encode_header(TOKENIZER)
    assert model.context[-len(header) - 2:-2] == header == [START, *b"assistant\n"]
