"""The judge of case 1 as a command: it runs, goes on where it stopped, and knows its models."""

import json

import case1
import case1_judges
import case1_roads
import pytest
import torch

from gptlib.formats.checkpoint import save_checkpoint
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text import stories, storyworld
from gptlib.text.chat_template import MARKS
from gptlib.text.corpora import END
from gptlib.text.tokenizers import BPETokenizer

TALES = [tale.text for tale in storyworld.tales(60)]


def small_parts():
    made = [stories.Story("made", f"tale {i}", "\n\n".join(TALES[i:i + 3])) for i in range(12)]
    return stories.Parts(made[:6], made[6:9], made[9:])


@pytest.fixture
def small(monkeypatch):
    """Every road is one small untrained model, and the stories are made tales."""
    tokenizer = BPETokenizer.train(TALES[0], 300, (END, *MARKS))
    model = GPT(GPTConfig.modern(tokenizer.vocab_size, 1024, n_layer=1, n_head=2, n_embd=16)).eval()
    monkeypatch.setattr(case1_roads, "open_road", lambda name, folder=None: case1_roads.Road(
        name, model, tokenizer, {"sha256": "one"}))
    monkeypatch.setattr(case1_roads, "parts", small_parts)
    monkeypatch.setattr(case1_roads, "learned", lambda name: TALES[:20])
    monkeypatch.setattr(case1_roads, "dictionary", lambda: frozenset(["once", "upon"]))
    return monkeypatch


def run(monkeypatch, path, *options):
    command = ["case1.py", "--part", "validation", "--quick", "--out", str(path), *options]
    monkeypatch.setattr("sys.argv", command)
    assert case1.main() == 0
    return json.loads(path.read_text(encoding="utf-8"))


def test_all_is_measured_once_and_a_second_run_measures_nothing(small, tmp_path, capsys):
    path = tmp_path / "deeper" / "case1.json"
    found = run(small, path)
    assert set(found) >= {"about", "controls", "judges", "conclusions", *case1.ROADS}
    for name in case1.ROADS:
        value, low, high = found[name]["bits"]["bits_per_byte"]
        assert low <= value <= high and len(found[name]["bits"]["stories"]) == 3
        assert found[name]["scenes"]["other"]["without context"][0] <= 1
        assert len(found[name]["samples, plain"]["texts"]) == case1.QUICK.samples
    assert found["conclusions"]["bits per byte"]["adapted minus pretrained"] == [0, 0, 0]
    assert found["world"]["samples, plain"]["holds"] == 0
    before, _ = path.read_bytes(), capsys.readouterr()
    run(small, path)
    assert path.read_bytes() == before and capsys.readouterr().out == ""


def test_a_run_goes_on_with_what_is_missing(small, tmp_path, capsys):
    path = tmp_path / "case1.json"
    part = run(small, path, "--road", "books")
    assert "books" in part and "world" not in part
    del part["books"]["bits"]
    path.write_text(json.dumps(part), encoding="utf-8")
    capsys.readouterr()
    run(small, path, "--road", "books")
    assert capsys.readouterr().out.startswith("books, bits:")


def test_another_model_under_the_same_name_is_refused(small, tmp_path):
    path = tmp_path / "case1.json"
    stored = run(small, path, "--road", "books")
    stored["books"]["about"]["sha256"] = "another"
    del stored["books"]["bits"]
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(SystemExit, match="remove its part 'books'"):
        run(small, path, "--road", "books")


def test_other_stories_than_those_of_the_file_are_refused(small, tmp_path):
    path = tmp_path / "case1.json"
    run(small, path, "--road", "books")
    small.setattr("sys.argv", ["case1.py", "--quick", "--out", str(path)])
    with pytest.raises(SystemExit, match="other stories or sizes"):
        case1.main()
    small.setattr("sys.argv", ["case1.py", "--quick"])
    with pytest.raises(SystemExit) as refusal:
        case1.main()
    assert refusal.value.code == 2


def test_a_road_that_is_not_there_is_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(case1_roads, "parts", small_parts)
    command = ["case1.py", "--part", "validation", "--quick", "--road", "world"]
    files = ["--world", str(tmp_path / "nothing"), "--out", str(tmp_path / "case1.json")]
    monkeypatch.setattr("sys.argv", command + files)
    assert case1.main() == 0 and not list(tmp_path.iterdir())
    assert "world, about: left out, there is no folder nothing" in capsys.readouterr().out


def test_a_road_is_opened_from_its_folder_and_known_by_its_weights(tmp_path):
    tokenizer = BPETokenizer.train(TALES[0], 300, (END,))
    model = GPT(GPTConfig.modern(tokenizer.vocab_size, 64, n_layer=1, n_head=2, n_embd=16))
    save_checkpoint(tmp_path, model, tokenizer)
    road = case1_roads.open_road("world", tmp_path)
    assert road.about["parameters"] == sum(p.numel() for p in model.parameters())
    assert len(road.about["sha256"]) == 64 and not road.model.training
    case1_roads.open_road.cache_clear()


def test_the_exchanged_hero_begins_with_the_last_third():
    tale = storyworld.tell(storyworld.TEST)
    person, spoiled = tale.facts[0].roles["hero"], case1_judges.exchanged(tale)
    cut = len(tale.text.split()) - len(tale.text.split()) // 3
    assert spoiled.split()[:cut] == tale.text.split()[:cut] and spoiled != tale.text
    assert person.name not in " ".join(spoiled.split()[cut:])


def test_passages_are_whole_sentences_of_about_one_length(monkeypatch):
    monkeypatch.setattr(case1_roads, "parts", small_parts)
    found = case1_judges.passages("validation", 8, words=60)
    assert len(set(found)) == 8 and found == case1_judges.passages("validation", 8, words=60)
    for text in found:
        assert 30 < len(text.split()) <= 60 and text[-1] in '.!?"'


def test_intervals_stand_on_one_line_and_numbers_are_short():
    text = case1.as_text({"share": torch.tensor([1 / 3]).tolist() + [0.25, 1], "name": ["a", "b"]})
    assert '"share": [0.3333, 0.25, 1]' in text and json.loads(text)["name"] == ["a", "b"]
