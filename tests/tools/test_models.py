"""`make models` runs what the model cards say."""

import json

import pytest

import models as tool


def test_the_commands_are_the_lines_of_the_first_bash_block():
    card = "# Card\n```python\nx\n```\n```bash\n# why\na --x \\\n  --y\n\nb\n```\n```bash\nc\n```\n"
    assert tool.commands(card) == ["a --x    --y", "b"]


def test_a_card_without_commands_is_refused():
    with pytest.raises(ValueError, match="no ```bash block"):
        tool.commands("# A model\n")


def test_every_model_has_a_card_with_its_commands_and_a_log():
    folders = [path for path in (tool.ROOT / "models").iterdir() if path.is_dir()]
    assert {"stories", "storyteller", "chatter-sft"} <= {folder.name for folder in folders}
    for folder in folders:
        assert tool.commands((folder / "README.md").read_text(encoding="utf-8"))
        assert list(folder.glob("log*")), "no training log"


def test_a_card_replaces_the_model_it_stands_beside():
    """Without --force, `make models` would train for hours and then refuse to write."""
    for card in (tool.ROOT / "models").glob("*/README.md"):
        last = [line for line in tool.commands(card.read_text(encoding="utf-8"))
                if f"models/{card.parent.name}" in line]
        assert last and all(line.startswith("cp ") or "gptlib export" in line and "--force" in line
                            for line in last), card


def test_the_card_of_the_storyteller_quotes_its_logs():
    folder = tool.ROOT / "models" / "storyteller"
    card = (folder / "README.md").read_text(encoding="utf-8")
    losses = {}
    for name in ("log.jsonl", "log-700-steps.jsonl"):
        entries = map(json.loads, (folder / name).read_text(encoding="utf-8").splitlines())
        losses[name] = {e["step"]: e["val_loss"] for e in entries if e["val_loss"] is not None}
    ours, longer = losses.values()
    assert min(ours, key=ours.get) == 400 and f"{ours[400]:.3f} nats" in card
    assert min(longer, key=longer.get) == 200 and f"({longer[200]:.3f} nats)" in card
    assert f"{longer[700]:.3f} at the end" in card


def test_the_card_of_the_chatter_quotes_its_log():
    folder = tool.ROOT / "models" / "chatter-sft"
    entries = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    losses = [entry["val_loss"] for entry in entries if entry["val_loss"] is not None]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert len(losses) == 4 and f"{min(losses):.3f} for this one" in card


def test_the_card_of_the_made_world_is_that_of_the_stored_run():
    folder = tool.ROOT / "models" / "storyworld"
    card = (folder / "README.md").read_text(encoding="utf-8")
    run = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    log = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(log[-1])
    steps, settings = run["step"], run["metadata"]["run"]
    assert f"--resume --max-steps {steps}" in card and last["step"] == steps
    for name in ("block", "embedding_std", "context_length", "windows", "batch_size",
                 "learning_rate", "warmup_steps", "decay_fraction", "evaluate_every"):
        assert f"--{name.replace('_', '-')} {settings[name]}" in card
    assert f"took {last['seconds'] / 60:.0f} minutes" in card
