#!/usr/bin/env bash
# transformers 5.23.0, any tokenizer with a tokenizer.json.
# Expected: truncation=True, max_length=3 concerns the one call it is given to.
# Happens: the call also sets the state of the Rust tokenizer inside, and save_pretrained writes
#   that state into tokenizer.json. Transformers resets it at its next call, so there nothing is
#   seen; every other reader of the file (the tokenizers library, Rust and browser runtimes) cuts
#   each text to three tokens and pads, without a word.
# Matters: who tokenizes a batch and then exports the model ships a tokenizer that cuts prompts.
#   Call no_truncation() and no_padding() on backend_tokenizer before saving, and test the stored
#   file.
# Documented: that the file may hold truncation is; that a call changes it is not.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="$(command -v python3.11 || command -v python3)"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-compile --disable-pip-version-check \
    transformers==5.23.0 tokenizers==0.23.3
cd "$work"

TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

alphabet = pre_tokenizers.ByteLevel.alphabet()
rust = Tokenizer(models.BPE())
rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
trainer = trainers.BpeTrainer(
    vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
)
rust.train_from_iterator(["one small step for a model"] * 9, trainer)
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=rust, eos_token="<|end|>", pad_token="<|end|>"
)

prompt = "one small step for a model"
full = tokenizer(prompt)["input_ids"]
tokenizer.save_pretrained("before")
tokenizer([prompt, "one"], truncation=True, max_length=3, padding=True)  # one batch of some work
tokenizer.save_pretrained("after")

lengths = {
    folder: len(Tokenizer.from_file(f"{folder}/tokenizer.json").encode(prompt).ids)
    for folder in ("before", "after")
}
again = len(AutoTokenizer.from_pretrained("after")(prompt)["input_ids"])
print("version: ", "transformers", version("transformers"), "tokenizers", version("tokenizers"))
print(f"expected: {len(full)} tokens for the prompt, from both files, in both libraries")
print(f"seen:     saved before the batch {lengths['before']}, after it {lengths['after']};",
      f"the second file in Transformers {again}")
if (lengths["before"], lengths["after"], again) != (len(full), 3, len(full)):
    sys.exit("CHANGED; so far the file saved after a truncating call cut the prompt to 3 tokens")
print("unchanged")
PY
