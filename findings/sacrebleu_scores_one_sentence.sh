#!/usr/bin/env bash
# sacrebleu 2.6.0, corpus_bleu and corpus_chrf.
# Expected: with three hypotheses and references given per sentence ([[r1], [r2], [r3]], the
#   layout of NLTK and of most data sets), either the same score or an error about the lengths.
# Happens: the outer list is a list of complete reference sets, so this reads as three sets of
#   one sentence. The first hypothesis is scored against all three references and the others are
#   left out, without a warning: two wrong sentences of three, and BLEU is 100.
# Matters: a model that is right on the first sentence of the test set is reported as perfect,
#   and one can only tell by the length in the detailed output. Assert len(references[0]) ==
#   len(hypotheses).
# Documented: the layout is; that surplus hypotheses are dropped is not (sacrebleu issue 275).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="$(command -v python3.11 || command -v python3)"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-compile --disable-pip-version-check sacrebleu==2.6.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import sacrebleu

hypotheses = ["the small boat left the harbour", "nothing right here at all", "nor in this one"]
references = ["the small boat left the harbour", "an old man waved from the pier",
              "then it was quiet again"]
by_set, by_sentence = [references], [[reference] for reference in references]
print("version: ", "sacrebleu", version("sacrebleu"))
print("expected: references by sentence: the score of references by set, or an error")
print("seen:")
for name, metric in (("BLEU", sacrebleu.corpus_bleu), ("chrF", sacrebleu.corpus_chrf)):
    right, wrong = (metric(hypotheses, layout).score for layout in (by_set, by_sentence))
    print(f"          {name} by set {right:.1f}, by sentence {wrong:.1f}")
    if right > 70 or wrong < 99:
        sys.exit("CHANGED; so far with references by sentence only the first of three was scored")
length = sacrebleu.corpus_bleu(hypotheses, by_sentence).sys_len
words = sum(len(hypothesis.split()) for hypothesis in hypotheses)
print(f"          words scored: {length} of {words}")
if length != len(hypotheses[0].split()):
    sys.exit("CHANGED; so far with references by sentence only the first of three was scored")
print("unchanged")
PY
