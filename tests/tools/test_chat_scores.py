"""The scores of the chat partners: measured once, resumed, and never of another model."""

import json

import chat_scores
import pytest
import torch

from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT
from gptlib.text.chat_template import MARKS, Message
from gptlib.text.conversations import Parts, Turn
from gptlib.text.corpora import END
from gptlib.text.tokenizers import BPETokenizer
from gptlib.writing.replies import Reply

LINES = ["Hi there!", "Hello, how are you?", "Fine, thanks. Do you like soup?",
         "I love soup, above all in winter.", "Me too.", "See you at lunch then!"]


def chat(first):
    return [Turn("AB"[i % 2], f"{first} {line}") for i, line in enumerate(LINES)]


@pytest.fixture
def small(monkeypatch):
    """Every model is one small untrained one, and the chats are made."""
    tokenizer = BPETokenizer.train(" ".join(LINES) * 3, 300, (END, *MARKS))
    model = GPT(GPTConfig.modern(tokenizer.vocab_size, 512, n_layer=1, n_head=2, n_embd=16)).eval()
    parts = Parts(*([chat(f"{name}{i}") for i in range(5)] for name in "abc"))
    options = {"start_tokens": [tokenizer.special_tokens[END]]}
    monkeypatch.setattr(chat_scores, "open_partner", lambda name, folder=None: chat_scores.Partner(
        model, tokenizer, options, {"sha256": "one"}, "float32"))
    monkeypatch.setattr(chat_scores, "parts", lambda: parts)
    chat_scores._index.cache_clear()
    yield monkeypatch
    chat_scores._index.cache_clear()


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "choices.jsonl"
    row = {"prompt": ["Do you {like} it?"], "chosen": "Yes, a lot.", "rejected": "Yes yes yes yes"}
    path.write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n", encoding="utf-8")
    return path


def run(monkeypatch, tmp_path, pairs, *options):
    path = tmp_path / "out" / "chat.json"
    command = ["chat_scores.py", "--part", "validation", "--quick", "--out", str(path),
               "--choices", str(pairs), *options]
    for name in chat_scores.FOLDERS:
        command += [f"--{name}", str(tmp_path / name)] if f"--{name}" not in options else []
    monkeypatch.setattr("sys.argv", command)
    assert chat_scores.main() == 0
    return json.loads(path.read_text(encoding="utf-8"))


def test_all_is_measured_once_and_a_second_run_measures_nothing(small, tmp_path, pairs, capsys):
    found = run(small, tmp_path, pairs)
    assert set(found) == {"about", "conclusions", "judge", *chat_scores.MODELS, "short",
                          *chat_scores.BASELINES}
    assert set(found["short"]) == {"about", "replies"}
    for name in chat_scores.MODELS:
        value, low, high = found[name]["loss"]["bits_per_byte"]
        assert low <= value <= high and len(found[name]["loss"]["conversations"]) == 3
        assert len(found[name]["replies"]["texts"]) == 4
        assert len(found[name]["talks"]["texts"][0]) == 2 * len(chat_scores.OPENINGS[0])
        assert found[name]["speed"]["tokens_per_second"] > 0
    assert found["own"]["recall by choice"]["single"][0] <= 1
    assert found["conclusions"]["bits per byte"]["tuned minus preferred"] == [0, 0, 0]
    assert found["judge"]["pairs"]["the two wordings agree"][0] <= 1
    before, _ = (tmp_path / "out" / "chat.json").read_bytes(), capsys.readouterr()
    run(small, tmp_path, pairs)
    assert (tmp_path / "out" / "chat.json").read_bytes() == before
    assert capsys.readouterr().out == ""


def test_one_partner_can_be_measured_and_what_is_missing_is_added(small, tmp_path, pairs, capsys):
    found = run(small, tmp_path, pairs, "--model", "parrot")
    assert set(found) == {"about", "conclusions", "parrot"}
    del found["parrot"]["safety"]
    (tmp_path / "out" / "chat.json").write_text(json.dumps(found), encoding="utf-8")
    capsys.readouterr()
    run(small, tmp_path, pairs, "--model", "parrot")
    assert capsys.readouterr().out.startswith("parrot, safety:")


def test_a_model_that_is_not_there_is_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["chat_scores.py", "--quick", "--model", "own", "--own",
                                     str(tmp_path / "own"), "--out", str(tmp_path / "new.json")])
    assert chat_scores.main() == 0
    assert "own, about: left out" in capsys.readouterr().out
    assert not (tmp_path / "new.json").exists()


def test_another_model_under_the_same_name_is_refused(small, tmp_path, pairs):
    run(small, tmp_path, pairs, "--model", "tuned")
    folder = tmp_path / "tuned"
    folder.mkdir()
    (folder / "adapter.safetensors").write_bytes(b"another")
    with pytest.raises(SystemExit, match="remove its part 'tuned'"):
        run(small, tmp_path, pairs, "--model", "tuned")


def test_other_sizes_are_not_mixed_into_a_file(small, tmp_path, pairs):
    path = tmp_path / "out" / "chat.json"
    found = run(small, tmp_path, pairs, "--model", "parrot")
    found["about"]["sizes"]["prompts"] = 7
    path.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(SystemExit, match="other sizes"):
        run(small, tmp_path, pairs, "--model", "parrot")


def test_the_loss_counts_the_replies_alone_and_their_bytes(small):
    partner = chat_scores.open_partner("own")
    found = chat_scores.loss(partner, "test", chat_scores.QUICK)
    replies = [f"c0 {LINES[1]}", f"c0 {LINES[3]}"]  # 4 turns: what B says
    assert found["conversations"][0][1] == sum(len(text.encode()) for text in replies)
    with torch.no_grad():  # an untrained model is near ln V for each token of the replies
        partner.model.embedding.weight.zero_()
    flat = chat_scores.loss(partner, "test", chat_scores.QUICK)
    counts = [len(partner.tokenizer.encode(text)) + 1 for text in replies]
    bits = sum(counts) * torch.tensor(float(partner.tokenizer.vocab_size)).log2().item()
    assert flat["conversations"][0][0] == pytest.approx(bits, rel=0.05)


def test_retrieval_says_what_was_said_to_the_most_similar_message(small):
    talk = [Message("user", "a1 Fine, do you like soup?")]
    assert chat_scores.retrieval(talk).text == f"a1 {LINES[3]}"
    assert chat_scores.parrot(talk) == chat_scores.parrot([]) == Reply("haha yeah", True)


def test_a_blind_answer_is_judged_beside_the_one_that_could_know():
    sizes = chat_scores.QUICK
    tests = chat_scores.dialogues.dialogues(sizes.dialogues)
    right = [Reply(f"It is {test.answer}.", True) for test in tests]
    found = chat_scores.recall_by_reply(right, [Reply("No idea.", True)] * 5, sizes)
    assert found["pairs"].value == found["single"].value == 1 and found["blind"].value == 0
