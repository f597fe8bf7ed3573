#!/usr/bin/env bash
# tiktoken 0.14.0, beside tokenizers 0.23.3 on the same vocabulary.
# Expected: byte-pair encoding reaches a token by merging pairs; a token whose halves are missing
#   from the vocabulary is never produced. Two libraries with the same vocabulary agree.
# Happens: tiktoken first looks the whole piece (what the split pattern cut out) up in the
#   vocabulary and merges only if it is not there. A token that no merge reaches is used when it
#   is a piece of its own and never inside a longer piece; tokenizers uses it in neither place,
#   unless ignore_merges is on.
# Matters: words added to mergeable_ranks, or a vocabulary that was pruned or repaired, encode
#   one way in tiktoken and another after a conversion to tokenizer.json, so the model sees other
#   ids. Check that every token encodes to itself by merges alone before the two are called
#   equal.
# Documented: not in tiktoken; the reason is in tokenizers pull request 1493 (ignore_merges).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="$(command -v python3.11 || command -v python3)"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-compile --disable-pip-version-check \
    tiktoken==0.14.0 tokenizers==0.23.3
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import tiktoken
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

WORDS = r"[a-z]+|[^a-z]"
ranks = {bytes([byte]): byte for byte in range(256)}
ranks[b"xyz"] = 256  # neither "xy" nor "yz" is a token, so no merge leads here
tik = tiktoken.Encoding("toy", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={})

vocabulary = {chr(byte): byte for byte in range(128)} | {"xyz": 256}
seen = {}
for text in ("xyz", "xyzzy"):
    seen[text] = {"tiktoken": [tik.decode([token]) for token in tik.encode(text)]}
    for name, ignore in (("tokenizers", False), ("tokenizers, ignore_merges", True)):
        rust = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=ignore))
        rust.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
        seen[text][name] = rust.encode(text).tokens
print("version: ", "tiktoken", version("tiktoken"), "tokenizers", version("tokenizers"))
print("expected: the same tokens from both, x y z each on its own")
print("seen:")
for text, row in seen.items():
    for name, tokens in row.items():
        print(f"          {text:6} {name:26} {tokens}")
letters, longer = list("xyz"), list("xyzzy")
if seen != {
    "xyz": {"tiktoken": ["xyz"], "tokenizers": letters, "tokenizers, ignore_merges": ["xyz"]},
    "xyzzy": {"tiktoken": longer, "tokenizers": longer, "tokenizers, ignore_merges": longer},
}:
    sys.exit("CHANGED; so far tiktoken and ignore_merges took the token for whole pieces")
print("unchanged")
PY
