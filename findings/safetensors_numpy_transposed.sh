#!/usr/bin/env bash
# safetensors 0.8.0, NumPy writer.
# Expected: an array that is saved and loaded again is equal to itself, however it lies in
#   memory.
# Happens: a transposed (or otherwise not C-contiguous) array is written in the order of its
#   memory under the shape of the view. The file is valid, nothing is raised, and the numbers are
#   in other places. Version 0.7.0 wrote the same array correctly.
# Matters: linear layers are often stored transposed on export (`weight.T`); the exported model
#   loads everywhere and writes noise. Call np.ascontiguousarray on every array before saving.
# Documented: not in the manual; reported upstream (safetensors issue 825).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="$(command -v python3.11 || command -v python3)"

for version in 0.7.0 0.8.0; do
    "$python" -m venv "$work/$version"
    "$work/$version/bin/pip" install -qq --no-compile --disable-pip-version-check \
        "safetensors==$version" numpy==2.4.6
    cd "$work"
    "$work/$version/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from safetensors.numpy import load, save

weight = np.arange(6, dtype=np.float32).reshape(2, 3)
copied = np.ascontiguousarray(weight.T)
back = load(save({"transposed": weight.T, "copied": copied}))
print("version: ", "safetensors", version("safetensors"))
print("expected:", weight.T.tolist())
print("seen:    ", back["transposed"].tolist())
assert np.array_equal(back["copied"], weight.T), "even the contiguous copy came back changed"
intact = np.array_equal(back["transposed"], weight.T)
if intact != (version("safetensors") == "0.7.0"):
    sys.exit("CHANGED; so far 0.7.0 kept a transposed array and 0.8.0 scrambled it")
PY
done
echo "unchanged"
