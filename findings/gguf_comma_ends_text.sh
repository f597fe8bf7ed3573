#!/usr/bin/env bash
# llama.cpp as packed in xllamacpp 2026.10.11549; the file is written with gguf 0.19.0.
# Expected: a GGUF file that names no end-of-text token has none; writing goes on to the limit.
# Happens: for a byte-level BPE ("gpt2") vocabulary the loader falls back to token 11. In GPT-2's
#   order of bytes, which a vocabulary has unless special tokens stand first, token 11 is the
#   comma, and the model's answers stop at their first comma, with finish_reason "stop".
# Matters: everything else about the export works, and text up to the first comma is right, so it
#   looks like a badly trained model. Always write tokenizer.ggml.eos_token_id.
# Documented: no; at start the loader warns that special_eos_id is not among the end tokens, not
#   what it took instead.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="$(command -v python3.11 || command -v python3)"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-compile --disable-pip-version-check \
    xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
cd "$work"

cat > comma.py <<'PY'
"""A GPT-2 of one layer that always wants a comma next; run it with and without an end token."""
import sys
from importlib.metadata import version

import gguf
import numpy as np
import xllamacpp

WIDTH, CONTEXT = 32, 64


def vocabulary() -> list[str]:
    """256 byte tokens in GPT-2's order (printable bytes first), then the end of text."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))] + ["<|end|>"]


def write_model(path: str, tokens: list[str], end: int | None) -> None:
    """Weights are zero except the last norm's bias and the output row of the comma."""
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3])
    writer.add_token_merges(["a b"])
    if end is not None:
        writer.add_eos_token_id(end)
    shapes = {
        "token_embd.weight": (len(tokens), WIDTH), "position_embd.weight": (CONTEXT, WIDTH),
        "output_norm.weight": (WIDTH,), "output_norm.bias": (WIDTH,),
        "output.weight": (len(tokens), WIDTH),
    }
    for name, rows in (("attn_qkv", 3 * WIDTH), ("attn_output", WIDTH), ("ffn_up", WIDTH),
                       ("ffn_down", WIDTH)):
        shapes |= {f"blk.0.{name}.weight": (rows, WIDTH), f"blk.0.{name}.bias": (rows,)}
    for name in ("attn_norm", "ffn_norm"):
        shapes |= {f"blk.0.{name}.weight": (WIDTH,), f"blk.0.{name}.bias": (WIDTH,)}
    for name, shape in shapes.items():
        weight = np.zeros(shape, dtype=np.float32)
        if name == "output_norm.bias":
            weight[0] = 1.0
        if name == "output.weight":
            weight[tokens.index(","), 0] = 5.0
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def answer(path: str) -> tuple[str, int]:
    """Why greedy writing of at most eight tokens ended, and after how many tokens."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = 1
    params.verbosity = -1
    server = xllamacpp.Server(params)
    reply = server.handle_completions({"prompt": "Once", "max_tokens": 8, "temperature": 0})
    return reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]


tokens = vocabulary()
write_model("without.gguf", tokens, None)
write_model("with.gguf", tokens, tokens.index("<|end|>"))
without, named = answer("without.gguf"), answer("with.gguf")
print("version: ", "xllamacpp", version("xllamacpp"), "gguf", version("gguf"))
print("expected: no end token named, so 8 tokens and finish_reason length")
print(f"seen:     token 11 is {tokens[11]!r}; no end token named: {without[0]} after {without[1]};",
      f"end token named: {named[0]} after {named[1]}")
if (without, named) != (("stop", 1), ("length", 8)):
    sys.exit("CHANGED; so far without an end token in the file the comma ended the text")
print("unchanged")
PY
"$work/venv/bin/python" comma.py 2> log || { cat log >&2; exit 1; }
