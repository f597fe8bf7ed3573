"""What a run remembers of its data: sizes and hashes, so that it goes on with the same or stops.

The record is stored with the settings in training.json, under "data".
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor


def make(names: Sequence[str], parts: Sequence[Sequence[str]], training: Tensor,
         held_out: Tensor) -> dict[str, Any]:
    """The record of corpora, their documents, and the ids (N,) that these became."""
    record: dict[str, Any] = {"corpora": []}
    for name, documents in zip(names, parts):
        content = "\0".join(documents).encode("utf-8")  # no text holds this character
        record["corpora"].append({
            "name": name, "documents": len(documents), "characters": sum(map(len, documents)),
            "sha256": hashlib.sha256(content).hexdigest()})
    for name, ids in (("training", training), ("held_out", held_out)):
        sha256 = hashlib.sha256(ids.numpy()).hexdigest()
        record[name] = {"tokens": len(ids), "sha256": sha256}
    return record


def require_same(folder: Path, own: Any, now: dict[str, Any]) -> None:
    """Raise a ValueError that names the corpus unless the run in `folder`, with the record `own`,
    finds the data `now` with which it began."""
    if own == now:
        return
    if not isinstance(own, dict) or not isinstance(own.get("corpora"), list):
        raise ValueError(f"{folder} has no record of the texts that it was trained on; expected a "
                         f"run of this version of gptlib: begin a new one")
    for before, after in zip(own["corpora"], now["corpora"]):
        if before != after:
            raise ValueError(f"{after['name']} is not the text that the run in {folder} began "
                             f"with: it is now {_told(after)}, then it was {_told(before)}. Bring "
                             f"the old text back, or begin a new run in another folder")
    raise ValueError(f"the texts are those of the run in {folder}, but they are divided or encoded "
                     f"otherwise: go on with the version of gptlib that began it")


def _told(corpus: Any) -> str:
    if not isinstance(corpus, dict):
        return "unknown"
    return (f"{corpus.get('characters')} characters in {corpus.get('documents')} documents "
            f"(SHA-256 {str(corpus.get('sha256'))[:8]})")
