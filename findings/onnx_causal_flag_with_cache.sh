#!/usr/bin/env bash
# ONNX operator Attention (opset 23), in onnxruntime 1.32.0 and in onnx 1.23.2's own reference.
# Expected: is_causal=1 means that a query sees all keys up to its own place; whether the cached
#   keys come through past_key or are joined to the new ones outside makes no difference.
# Happens: the triangle starts at the upper left corner of queries x keys, and only keys given
#   through past_key shift it. One new query with five joined keys sees the FIRST key alone: the
#   result is that key's value, a smooth and plausible vector, with no error.
# Matters: a decoder exported with its own concatenation of the cache is right in prefill and
#   ignores all but the first token in every later step. Give the cache through past_key, or
#   leave is_causal out when there is one query. (PyTorch's scaled_dot_product_attention aligns
#   in the same way.)
# Documented: one clause in the operator's text ("upper left"); nothing on the two ways
#   differing.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="$(command -v python3.11 || command -v python3)"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-compile --disable-pip-version-check \
    onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator


def model(past: bool) -> ModelProto:
    """One Attention node with is_causal, with or without inputs for the cache."""
    inputs = ["q", "k", "v"] + (["", "past_k", "past_v"] if past else [])
    outputs = ["y"] + (["present_k", "present_v"] if past else [])

    def info(name: str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, None, 8])

    graph = helper.make_graph(
        [helper.make_node("Attention", inputs, outputs, is_causal=1)],
        "attention", [info(name) for name in inputs if name], [info(name) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def onnx_runtime(past: bool, **feed: np.ndarray) -> np.ndarray:
    """Last row of the output in ONNX Runtime."""
    binary = model(past).SerializeToString()
    session = onnxruntime.InferenceSession(binary, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0][0, 0, -1]


def reference(past: bool, **feed: np.ndarray) -> np.ndarray:
    """Last row of the output in ONNX's reference evaluator."""
    return ReferenceEvaluator(model(past)).run(None, feed)[0][0, 0, -1]


rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((1, 1, 5, 8)).astype(np.float32) for _ in range(3))
new, old = np.s_[:, :, -1:], np.s_[:, :, :-1]
print("version: ", "onnxruntime", version("onnxruntime"), "onnx", version("onnx"))
print("expected: the last of five positions is the same in prefill, past_key, joined keys")
print("seen:")
for run in (onnx_runtime, reference):
    whole = run(False, q=q, k=k, v=v)
    past = run(True, q=q[new], k=k[new], v=v[new], past_k=k[old], past_v=v[old])
    joined = run(False, q=q[new], k=k, v=v)
    gap_past, gap_joined = (float(np.abs(row - whole).max()) for row in (past, joined))
    gap_first = float(np.abs(joined - v[0, 0, 0]).max())
    print(f"          {run.__name__:12} distance to prefill: past_key {gap_past:.6f},",
          f"joined {gap_joined:.3f}; joined to the first value {gap_first:.6f}")
    if gap_past > 1e-5 or gap_joined < 0.1 or gap_first > 1e-5:
        sys.exit("CHANGED; so far joined keys gave the first value, past_key that of prefill")
print("unchanged")
PY
