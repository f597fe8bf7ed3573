#!/usr/bin/env bash
# peft 0.21.2 with torch 2.13.0; a model of one's own whose output matrix is its embedding
#   (tied).
# Expected: merge_and_unload folds the LoRA change into the weight and the model computes the
#   same.
# Happens: with LoRA on the tied output layer the change is added to the shared matrix in place.
#   While training only the output sees it; after merging the embedding is changed as well, and
#   so are the logits (here by 0.7). For a plain torch module no warning is given; a Transformers
#   model that declares its tying does get one.
# Matters: small language models nearly all tie, and the loss at the end of training says nothing
#   about the merged file that is shipped. Compare logits before and after merging, or give the
#   output a copy of the matrix first.
# Documented: as a warning for Transformers models (peft issue 2777), not for other modules.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="$(command -v python3.11 || command -v python3)"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-compile --disable-pip-version-check \
    torch==2.13.0 peft==0.21.2 transformers==5.23.0 numpy==2.4.6
cd "$work"

cat > tied.py <<'PY'
"""Merge LoRA on the output layer of a tiny model, tied and untied."""
import sys
import warnings
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from torch import nn


class Tiny(nn.Module):
    """Embedding, one hidden layer, output; the output matrix may be the embedding."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.hidden = nn.Linear(16, 16)
        self.output = nn.Linear(16, 40, bias=False)
        if tied:
            self.output.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.output(torch.tanh(self.hidden(self.embedding(ids))))


@torch.no_grad()
def changes(tied: bool) -> tuple[float, float, int]:
    """Largest change of logits and of the embedding by merging; the number of warnings."""
    torch.manual_seed(0)
    ids = torch.arange(40)[None]
    model = Tiny(tied)
    before = model.embedding.weight.clone()
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["output"], init_lora_weights=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adapted = get_peft_model(model, config).eval()
        trained = adapted(ids)
        merged = adapted.merge_and_unload()
    gap = (merged(ids) - trained).abs().max().item()
    return gap, (merged.embedding.weight - before).abs().max().item(), len(caught)


tied, untied = changes(True), changes(False)
print("version: ", "peft", version("peft"), "torch", version("torch"))
print("expected: logits change by 0 and the embedding by 0, tied or not")
for name, row in (("tied", tied), ("untied", untied)):
    print("seen:     {}: logits {:.6f}, embedding {:.6f}, warnings {}".format(name, *row))
if max(untied[:2]) > 1e-4 or min(tied[:2]) < 0.05 or tied[2]:
    sys.exit("CHANGED; so far merging changed embedding and logits of a tied model, silently")
print("unchanged")
PY
"$work/venv/bin/python" tied.py
