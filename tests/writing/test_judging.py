"""The judge: every measure on cases small enough to work out by hand, and every control."""

import math
import random
from collections import Counter

import pytest
import torch

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text import storyworld
from gptlib.text.chat_template import MARKS
from gptlib.text.corpora import END
from gptlib.text.tokenizers import BPETokenizer, ByteTokenizer
from gptlib.writing import judging

BYTES = ByteTokenizer((END, *MARKS))
TALES = [tale.text for tale in storyworld.tales(12)]


def uniform(ids):
    """A language model that knows nothing."""
    return torch.zeros(*ids.shape, BYTES.vocab_size)


# ---- intervals


def test_a_ratio_is_that_of_the_sums_and_its_interval_spans_the_resampled_stories():
    # two stories: drawn are both of the first (10/5), both of the second (20/20), or one of each
    value, low, high = judging.ratio_interval([10, 20], [5, 20])
    assert value == pytest.approx(30 / 25)  # not the mean of 2 and 1
    assert (low, high) == (1.0, 2.0)


def test_stories_that_are_equally_hard_leave_no_doubt_and_pairing_removes_what_they_share():
    assert judging.ratio_interval([2, 4, 6], [1, 2, 3]) == (2, 2, 2)
    hard, small = torch.tensor([1.0, 9.0, 2.0, 7.0]), torch.tensor([0.5, 0.4, 0.6, 0.5])
    sizes = torch.ones(4)
    alone = judging.ratio_interval(hard + small, sizes), judging.ratio_interval(hard, sizes)
    assert alone[0].low < alone[1].high  # seen one by one, the models could be equal
    assert judging.ratio_interval(small, sizes).low > 0.39


@pytest.mark.parametrize("tops, bottoms, level", [([1], [1], 0.95), ([1, 2], [1], 0.95),
                                                  ([1, 2], [1, 1], 95)])
def test_too_few_stories_or_a_level_that_is_no_share_are_refused(tops, bottoms, level):
    with pytest.raises(ValueError, match="at least 2 units"):
        judging.ratio_interval(tops, bottoms, level)


def test_shares_have_wilson_s_interval():
    assert judging.share(8, 10) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    none, all_ = judging.share(0, 5), judging.share(5, 5)
    assert none == pytest.approx((0, 0, 0.4345), abs=1e-4) and none.low >= 0
    assert all_ == pytest.approx((1, 0.5655, 1), abs=1e-4) and all_.high <= 1
    for right, count in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="expected 0 to count"):
            judging.share(right, count)


# ---- bits


def test_special_tokens_stand_for_no_bytes():
    ids = [BYTES.special_tokens[END], *BYTES.encode("é!")]
    assert judging.byte_sizes(ids, BYTES).tolist() == [0, 1, 1, 1]


def test_bits_by_position_by_hand():
    bit = math.log(2)  # nats
    losses = bit * torch.tensor([8.0, 4, 2, 1, 6, 4, 1, 2, 99])  # two windows of 4, and a rest
    sizes = torch.tensor([1, 2, 1, 1, 1, 2, 3, 1, 1])
    found = judging.by_position(losses, sizes, 4, edges=(1, 2, 4))
    assert found.tolist() == [pytest.approx([14, 2]), pytest.approx([8, 4]), pytest.approx([6, 6])]
    assert judging.by_position(losses[:3], sizes[:3], 4, (4,)).tolist() == [[0, 0]]
    for edges in ((2, 1), (0, 2), (5,)):
        with pytest.raises(ValueError, match="rising positions, 1 to 4"):
            judging.by_position(losses, sizes, 4, edges)


def test_a_model_that_knows_nothing_needs_log2_of_its_vocabulary_for_each_byte():
    expected = pytest.approx(math.log2(BYTES.vocab_size))
    assert judging.continuation_bits(uniform, BYTES, "Once upon", " a time") == expected
    assert judging.continuation_bits(uniform, BYTES, "", "é") == expected  # two bytes, two tokens


def test_only_the_passage_counts_and_it_is_seen_behind_its_context():
    def copies(ids):  # expects the token that came two before: "abab" and on
        logits = torch.zeros(*ids.shape, BYTES.vocab_size)
        return logits.scatter(-1, ids.roll(1, dims=1)[..., None], 50.0)

    assert judging.continuation_bits(copies, BYTES, "abab", "abab") == pytest.approx(0, abs=1e-6)
    assert judging.continuation_bits(copies, BYTES, "abab", "ba") > 50
    assert judging.continuation_bits(copies, BYTES, "xyzzy ab", "ab") == pytest.approx(0, abs=1e-6)


def test_a_token_of_both_sides_counts_for_the_passage():
    tokenizer = BPETokenizer.train("ab ab ab ab", 258, (END,))
    assert len(tokenizer.encode("ab")) == 1

    def flat(ids):
        return torch.zeros(*ids.shape, tokenizer.vocab_size)

    assert judging.continuation_bits(flat, tokenizer, "a", "b") == pytest.approx(
        math.log2(tokenizer.vocab_size))


def test_where_the_context_is_too_long_the_oldest_tokens_go():
    model = GPT(GPTConfig.modern(BYTES.vocab_size, 8, n_layer=1, n_head=2, n_embd=16)).eval()
    for parameter in model.parameters():  # fresh, a block would add nothing
        torch.nn.init.normal_(parameter)
    near = judging.continuation_bits(model, BYTES, "56", "abc")
    assert judging.continuation_bits(model, BYTES, "12345678 9 56", "abc") != near
    long = [judging.continuation_bits(model, BYTES, start + "345678", "abc") for start in "xyz"]
    assert long[0] == long[1] == long[2]
    with pytest.raises(ValueError, match="9 tokens and the model's context_length is 8"):
        judging.continuation_bits(model, BYTES, "", "123456789")
    with pytest.raises(ValueError, match="the passage is empty"):
        judging.continuation_bits(model, BYTES, "abc", "")


# ---- scenes


def scenes(seed=0):
    return judging.scenes(TALES, 2, context=40, length=20, seed=seed)


def test_scenes_stand_in_their_stories_as_they_say():
    for scene in scenes():
        story = TALES[scene.story]
        start = story.index(scene.true)
        assert story[:start].endswith(scene.context) and scene.context.endswith("\n\n")
        assert len(scene.context.split()) == 40
        assert [len(text.split()) for text in (scene.true, scene.same, scene.other)] == [20] * 3
        between = story[start + len(scene.true):story.index(scene.same)]
        assert len(between.split()) >= 20 and between.endswith("\n\n")
        assert scene.other not in story and scene.same in story


def test_every_true_passage_is_the_other_one_of_exactly_one_scene():
    assert len(scenes()) > 12
    assert Counter(s.other for s in scenes()) == Counter(s.true for s in scenes())
    assert len({scene.story for scene in scenes()}) > 6


def test_the_seed_chooses_and_nothing_else_does():
    assert scenes() == scenes() and scenes() != scenes(seed=1)


@pytest.mark.parametrize("texts", [TALES[:1], ["too short"], []])
def test_scenes_of_one_story_alone_are_refused(texts):
    with pytest.raises(ValueError, match="no story to have more than half"):
        judging.scenes(texts, 2, context=40, length=20)


def test_the_margin_is_what_the_rival_costs_more():
    def score(context, passage):
        return len(passage) + len(context) / 100

    found = [judging.Scene(0, "before", "four", "sixsix", "two")]
    assert judging.margins(score, found, "same") == pytest.approx([2.0])
    assert judging.margins(score, found, "other") == pytest.approx([-1.0])
    assert judging.accuracy([0.5, -1.0, 0.0, 2.0]).value == 2.5 / 4  # a tie is half right


def test_without_the_context_nothing_tells_the_passages_apart():
    draw = random.Random(0)
    taste = {scene.true: draw.random() for scene in scenes()}  # any score of passages alone
    margins = judging.margins(lambda context, passage: taste[passage], scenes(), "other")
    assert sum(margins) == pytest.approx(0)  # each passage is once true and once the other


def test_shared_words_by_hand_and_on_made_tales():
    score = judging.shared_words(["a b", "a c"], weight=0.5)
    # a: 2 of 4 words, one of 3 + 1 kinds added to each: 3 / 8; in the context 1 of 2
    assert score("a d", "a") == pytest.approx(-math.log2(0.5 * 3 / 8 + 0.5 * 1 / 2))
    assert score("", "a") == pytest.approx(-math.log2(3 / 8))
    assert score("a d", "a d") == pytest.approx(
        -(math.log2(0.5 * 3 / 8 + 0.25) + math.log2(0.5 / 8 + 0.25)) / 2)
    by_names = judging.shared_words(TALES)

    def gain(context, passage):
        return by_names(context, passage) - by_names("", passage)

    assert judging.accuracy(judging.margins(gain, scenes(), "other")).value > 0.8


# ---- pairs

TEXT = 'The hen ran. "Stop!" cried the fox. She did not stop! "Why should I?" And so on.'


def test_a_sentence_keeps_the_quotation_mark_that_closes_it():
    assert judging.sentences(TEXT) == ["The hen ran.", '"Stop!"', "cried the fox.",
                                       "She did not stop!", '"Why should I?"', "And so on."]


@pytest.mark.parametrize("seed", range(5))
def test_shuffling_changes_the_order_and_nothing_else(seed):
    for how, parts in (("words", str.split), ("sentences", judging.sentences)):
        spoiled = judging.spoil(TEXT, how, seed=seed)
        assert spoiled != TEXT and sorted(spoiled.split()) == sorted(TEXT.split())
        assert how == "words" or sorted(parts(spoiled)) == sorted(parts(TEXT))
        assert spoiled == judging.spoil(TEXT, how, seed=seed)


def test_other_ways_to_spoil_by_hand():
    assert judging.halves("a b c d", "1 2 3 4") == "a b 3 4"
    assert judging.spoil("a b c d", "other half", "1 2 3 4") == "a b 3 4"
    assert judging.spoil("a b c d", "cut") == "a b"
    long = " ".join(map(str, range(40)))
    assert judging.spoil(long, "repeated").split() == (long.split()[:15] * 3)[:40]


def test_what_cannot_be_spoiled_is_refused():
    with pytest.raises(ValueError, match="expected one of sentences, words"):
        judging.spoil(TEXT, "turned round")
    for text, how in (("One sentence only.", "sentences"), ("so so so", "words")):
        with pytest.raises(ValueError, match="fewer than two different"):
            judging.spoil(text, how)


def test_both_orders_part_the_preference_from_the_place():
    def likes_long_and_first(first, second):
        return 3.0 + len(first) - len(second)

    verdict = judging.both_orders(likes_long_and_first, "longer", "long")
    assert verdict == (2.0, 3.0) and not verdict.firm
    assert judging.both_orders(likes_long_and_first, "much longer", "long").firm
    assert judging.both_orders(likes_long_and_first, "one", "two").preference == 0


@pytest.mark.parametrize("wording", judging.WORDINGS)
def test_the_model_is_asked_in_its_chat_format_and_answers_with_a_letter(wording):
    shown = []

    def model(ids):
        shown.append(BYTES.decode(ids[0]))
        logits = torch.zeros(*ids.shape, BYTES.vocab_size)
        logits[0, -1, ord("A")], logits[0, -1, ord("B")] = 2.5, 1.0
        logits[0, -2, ord("B")] = 100.0  # not the answer
        return logits

    assert judging.ask(model, BYTES, wording)("the one", "<|im_end|>") == 1.5
    text = shown[0]
    assert text.endswith("<|im_start|>assistant\n") and "<|im_start|>user\n" in text
    assert text.index("the one") < text.index("<|im_end|>\n\n") < text.index("A or B?")


def test_the_order_of_sentences_gains_nothing_in_a_text_that_repeats_itself():
    def falls(context, passage):  # likes the sentences in alphabetical order
        parts = judging.sentences(passage)
        return float(sum(a > b for a, b in zip(parts, parts[1:])))

    assert judging.order_gain(falls, "Ants. Bees. Cats. Dogs.") > 0
    assert judging.order_gain(falls, "Dogs. Cats. Bees. Ants.") < 0
    assert judging.order_gain(falls, "Ants. Ants. Ants.") == 0
    assert judging.order_gain(falls, "Ants") == 0
