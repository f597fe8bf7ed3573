#!/usr/bin/env bash
# tokenizers 0.23.3, WordPieceTrainer (and BpeTrainer with a continuing_subword_prefix).
# Expected: training has no random part and no seed, so the same text gives the same vocabulary.
# Happens: every process gives other ids, and where two pairs are equally frequent even other
#   tokens: the "##" characters get their ids in the order of a hash map with a random start, and
#   ties are broken by id. BpeTrainer without a prefix gives one and the same vocabulary each
#   time.
# Matters: a model trained beside its tokenizer script is lost if only the script is kept, two
#   ranks that each train their own tokenizer do not understand each other, and an experiment
#   repeated with the same seed differs. Train once, store tokenizer.json, load it everywhere.
# Documented: no; reported upstream (tokenizers issue 1794).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="$(command -v python3.11 || command -v python3)"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-compile --disable-pip-version-check tokenizers==0.23.3
cd "$work"

cat > train.py <<'PY'
"""Train on one fixed text, print the vocabulary in the order of its ids."""
import json
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

text = ["the cat sat on the mat and the dog sat on the log"] * 3
text.append("a quick brown fox jumps over lazy dogs unhappily while running to the runner")
if sys.argv[1] == "wordpiece":
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=100, special_tokens=["[UNK]"], show_progress=False
    )
else:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    trainer = trainers.BpeTrainer(vocab_size=100, special_tokens=["[UNK]"], show_progress=False)
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.train_from_iterator(text, trainer)
vocabulary = tokenizer.get_vocab()
print(json.dumps(sorted(vocabulary, key=vocabulary.get)))
PY

"$work/venv/bin/python" - <<'PY'
import json
import subprocess
import sys
from importlib.metadata import version


def trainings(kind: str, count: int = 6) -> list[list[str]]:
    """Vocabularies of `count` trainings, each in a process of its own."""
    command = [sys.executable, "train.py", kind]
    return [json.loads(subprocess.check_output(command)) for _ in range(count)]


wordpiece, bpe = trainings("wordpiece"), trainings("bpe")
orders = {tuple(vocabulary) for vocabulary in wordpiece}
sets = {frozenset(vocabulary) for vocabulary in wordpiece}
not_shared = sorted(frozenset.union(*sets) - frozenset.intersection(*sets))
print("version: ", "tokenizers", version("tokenizers"))
print("expected: one vocabulary from six trainings on the same text")
print(f"seen:     WordPiece {len(orders)} numberings, {len(sets)} sets of tokens;",
      f"BPE {len({tuple(vocabulary) for vocabulary in bpe})}")
print("          tokens that only some of the trainings learned:", " ".join(not_shared[:8]))
if len(orders) == 1 or any(vocabulary != bpe[0] for vocabulary in bpe):
    sys.exit("CHANGED; so far WordPiece differed from process to process, BPE did not")
print("unchanged")
PY
