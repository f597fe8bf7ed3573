#!/usr/bin/env bash
# torch 2.13.0, nn.TransformerEncoderLayer with src_key_padding_mask.
# Expected: no_grad saves memory and changes no number.
# Happens: a text that is all padding gives finite numbers while gradients are recorded and NaN
#   under no_grad in eval mode. Without gradients the layer takes another path, whose softmax
#   over nothing is NaN, where the usual path gives zero.
# Matters: an empty text in a batch trains without a trace and turns the mean loss of the
#   evaluation into NaN, so the fault is sought in the training. Refuse empty rows, or call
#   torch.backends.mha.set_fastpath_enabled(False).
# Documented: the second path is, the different result is not (pytorch pull request 190486).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="$(command -v python3.11 || command -v python3)"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import torch
from torch import nn

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
x = torch.randn(2, 3, 8)
padding = torch.tensor([[False, False, True], [True, True, True]])  # the second text is empty

recorded = layer(x, src_key_padding_mask=padding)
with torch.no_grad():
    silent = layer(x, src_key_padding_mask=padding)
    torch.backends.mha.set_fastpath_enabled(False)
    slow = layer(x, src_key_padding_mask=padding)

print("version: ", "torch", torch.__version__.split("+")[0])
print("expected: the same numbers with and without gradients")
rows = {"with gradients": recorded, "under no_grad": silent, "no_grad, fast path off": slow}
for name, out in rows.items():
    print(f"seen:     {name}: text finite {bool(out[0, :2].isfinite().all())},",
          f"empty text finite {bool(out[1].isfinite().all())}")
torch.testing.assert_close(recorded[0, :2], silent[0, :2])
finite = [bool(out[1].isfinite().all()) for out in rows.values()]
if finite != [True, False, True]:
    sys.exit("CHANGED; so far the empty text was NaN under no_grad only")
print("unchanged")
PY
