"""The sweep over the made world: what it asks of a model, and what its files say."""

import dataclasses

import pytest
import storyworld as tool
import torch

from gptlib.formats.checkpoint import save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text import storyworld
from gptlib.text.corpora import END
from gptlib.text.tokenizers import BPETokenizer
from gptlib.training import runs
from gptlib.training.run_config import RunConfig

TALES = list(storyworld.tales(20, storyworld.TEST))


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(END.join(t.text for t in storyworld.tales(400)), 2048, (END,))


class Knowing(torch.nn.Module):
    """Knows each tale by heart, to the last token, and reads `context_length` tokens at once.

    One that is `blind` gives all tokens the same score.
    """

    def __init__(self, tokenizer, context_length=384, blind=False):
        super().__init__()
        self.config = GPTConfig(tokenizer.vocab_size, context_length)
        self.blind = blind
        end = tokenizer.special_tokens[END]
        self.tales = [torch.tensor([end, *tokenizer.encode(tale.text)]) for tale in TALES]

    def forward(self, ids):
        assert ids.shape[1] <= self.config.context_length
        logits = torch.zeros(*ids.shape, self.config.vocab_size)
        for tale in self.tales:
            for start in range(len(tale) - ids.shape[1] + 1):
                if not self.blind and torch.equal(tale[start:start + ids.shape[1]], ids[0]):
                    following = tale[start + 1:start + 1 + ids.shape[1]]
                    logits[0, range(len(following)), following] = 1.0
        return logits


def test_a_word_is_asked_for_from_its_second_mention_and_the_tool_from_its_first(tokenizer):
    for tale in TALES:
        lists, asked = tool.decided(tale), {}
        ids = [tokenizer.special_tokens[END], *tokenizer.encode(tale.text)]
        for name, i, options in tool.questions(tale, tokenizer):
            assert ids[i] in options
            word = tokenizer.decode([ids[i]]).strip()
            assert lists[word] == name
            asked[word] = asked.get(word, 0) + 1
        pieces = [tokenizer.decode([i]).strip() for i in ids]
        assert asked and all(
            count == pieces.count(word) - (lists[word] != "help") for word, count in asked.items())


def test_the_options_are_the_words_of_the_list_in_the_form_that_fits(tokenizer):
    found = {}
    for tale in TALES:
        for name, _, options in tool.questions(tale, tokenizer):
            words = [tokenizer.decode([i]) for i in options]
            assert {word.strip() for word in words} <= set(tool.LISTS[name])
            assert len({word.startswith(" ") for word in words}) == 1
            found[name] = max(found.get(name, 0), len(words))
    assert found == {name: len(words) for name, words in tool.LISTS.items()}


def test_who_knows_the_tales_gets_everything_right_and_who_knows_nothing_very_little(tokenizer):
    for T in (384, 60):
        assert set(tool.kept(Knowing(tokenizer, T), tokenizer, TALES[:3]).values()) == {1.0}
    blind = tool.kept(Knowing(tokenizer, blind=True), tokenizer, TALES)
    assert max(blind.values()) < 0.5 and blind["names"] < 0.1


def test_every_run_differs_from_the_base_in_one_thing_besides_its_seed():
    assert len(set(tool.RUNS)) == len(tool.RUNS)
    recipe = RunConfig(corpus=("stories",), **tool.RECIPE)
    base = (2, *(getattr(recipe, name) for name in tool.SETTINGS[1:]))
    assert all(sum(a != b for a, b in zip(settings, base[:3])) <= 1 for settings in tool.RUNS)


def test_a_run_that_is_in_the_file_to_its_end_is_not_repeated():
    rows = [dict(zip(tool.SETTINGS, tool.RUNS[0])) | {"step": tool.STEPS},
            dict(zip(tool.SETTINGS, tool.RUNS[1])) | {"step": tool.EVERY}]
    assert tool.missing([]) == tool.RUNS and tool.missing(rows) == tool.RUNS[1:]


def test_a_short_sweep_and_a_course_write_what_their_columns_say(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "STEPS", 2)
    monkeypatch.setattr(tool, "EVERY", 1)
    monkeypatch.setattr(tool, "TALES", 2)
    ids = runs.encode_documents([t.text for t in storyworld.tales(30)], tokenizer)
    rows = list(tool.run((1, "anywhere", 0.1, 0), ids, tokenizer))
    assert [row["step"] for row in rows] == [1, 2]
    tool.write(tmp_path / "a.csv", tool.COLUMNS, rows, "")
    assert [row["step"] for row in tool.read(tmp_path / "a.csv")] == [1, 2]
    config = RunConfig(corpus=("stories",), **(tool.RECIPE | {"n_layer": 1}))
    for step in (3, 0):
        save_checkpoint(tmp_path / str(step), GPT(config.model_config(tokenizer.vocab_size)),
                        tokenizer, step=step, metadata={"run": dataclasses.asdict(config)})
    folders = [tmp_path / "3", tmp_path / "0"]
    for _ in range(2):  # the second time everything is there
        tool.course(tmp_path / "b.csv", folders, 2)
    read = tool.read(tmp_path / "b.csv")
    assert [row["step"] for row in read] == [0, 3] and list(read[0]) == tool.COURSE
    assert all(row["hold"] == 0 and row["unread broken"] == 2 for row in read)


def test_the_stored_results_are_complete_and_name_their_commands():
    swept = tool.read(tool.RESULTS / "storyworld.csv")
    course = tool.read(tool.RESULTS / "storyworld_course.csv")
    assert list(swept[0]) == tool.COLUMNS and list(course[0]) == tool.COURSE
    assert not tool.missing(swept)
    assert {tuple(row[name] for name in tool.SETTINGS) for row in course} == {
        tuple(tool.RECIPE.get(name, 0) for name in tool.SETTINGS)}
    for path in ("storyworld.csv", "storyworld_course.csv"):
        head = (tool.RESULTS / path).read_text(encoding="utf-8").split("\n")[0]
        assert head.startswith("# command: python tools/storyworld.py")
    for row in swept + course:
        assert all(0 <= row[name] <= 1 for name in tool.LISTS)
