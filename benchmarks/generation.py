"""Tokens a second of small GPTs: Transformers, ONNX Runtime and this book, on the same weights.

    python benchmarks/generation.py

GPT-2's block at two shapes, a vocabulary of characters, a context of 256: each competitor writes
240 tokens after a prompt of 8, for one prompt and for 16 at once. "Drawing alone" has no model,
every token is as likely as any other: what the loop of `generate` costs. Before anything is timed,
all that claim the same weights must write the same greedy text. What rounding the weights costs is
measured on the book's story model and its held-out stories.
"""

import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import transformers
from measure import ratio, take_turns, write
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gptlib.formats.checkpoint import load_checkpoint, model_path
from gptlib.formats.huggingface import from_huggingface
from gptlib.model.gpt import GPT
from gptlib.runtime import setup
from gptlib.text.datasets import TokenDataset
from gptlib.training.evaluation import evaluate_loss
from gptlib.training.runs import encode_documents, split_documents
from gptlib.writing.generation import generate
from gptlib.writing.inference import InferenceModel
from gptlib.writing.sampling import sample

SHAPES = {"4 x 128": (4, 4, 128), "6 x 384": (6, 6, 384)}  # layers, heads, width
VOCABULARY, CONTEXT, PROMPT, NEW = 65, 256, 8, 240
Write = Callable[[Tensor, float], Tensor]  # a prompt (B, T) and a temperature to ids (B, T + NEW)


def main() -> None:
    """Measure all shapes and batch sizes, then the loss of quality; store both tables."""
    setup(0, int(os.environ.get("GPTLIB_THREADS", "2")))
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    rows, facts = [], {}
    for shape, (n_layer, n_head, n_embd) in SHAPES.items():
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=CONTEXT, n_layer=n_layer, n_head=n_head,
            n_embd=n_embd, bos_token_id=0, eos_token_id=0)).eval()
        model = from_huggingface(theirs)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            writers = competitors(theirs, model, Path(folder))
            check(writers)
            for batch_size in (1, 16):
                rows += measured(shape, writers, batch_size, facts)
    rounding = quality(facts)
    packages = ("transformers", "onnxruntime")
    write("generation", command="python benchmarks/generation.py", packages=packages, rows=rows,
          facts=facts, columns=["model", "prompts", "written by", "tokens a second",
                                "times Transformers", "in single rounds",
                                "operations a token in PyTorch"])
    write("rounding", command="python benchmarks/generation.py", rows=rounding, facts={},
          columns=["weights", "loss in nats a token", "difference"])


def competitors(theirs: nn.Module, model: GPT, folder: Path) -> dict[str, Write]:
    """All that write, by the name in the table; Transformers first, it is the measure."""
    session = export(model, folder / "model.onnx")
    quantize_dynamic(folder / "model.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8)
    writers = {
        "Transformers": lambda ids, temperature: write_with_transformers(theirs, ids, temperature),
        "ONNX Runtime": lambda ids, temperature: write_with_onnx(session, model, ids, temperature),
        "GPT, without a cache": _ours(model, use_cache=False), "GPT": _ours(model)}
    small = open_session(folder / "int8.onnx")
    writers["ONNX Runtime, int8"] = lambda ids, t: write_with_onnx(small, model, ids, t)
    for weights in ("float32", "bfloat16", "int8", "int4"):
        writers[f"InferenceModel, {weights}"] = _ours(InferenceModel(model, weights))
    writers["drawing alone"] = _ours(lambda ids: torch.zeros(len(ids), 1, VOCABULARY))
    return writers


def _ours(model: Callable, use_cache: bool = True) -> Write:
    return lambda ids, temperature: generate(model, ids, max_new_tokens=NEW, use_cache=use_cache,
                                             temperature=temperature)


def write_with_transformers(model: nn.Module, ids: Tensor, temperature: float) -> Tensor:
    """Its `generate` with its cache; sampling without filters."""
    choice = dict(do_sample=True, top_k=0, temperature=temperature) if temperature else {}
    with torch.inference_mode():
        return model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0,
                              max_new_tokens=NEW, min_new_tokens=NEW, use_cache=True,
                              **({"do_sample": False} | choice))


class WithPast(nn.Module):
    """One step as an ONNX graph has it: the cache goes in, and comes out longer."""

    def __init__(self, model: GPT):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, T), past (L, 2, B, H, S, D) to logits (B, V) and past (L, 2, B, H, S + T, D)."""
        model, S, T = self.model, past.shape[4], ids.shape[1]
        x = model.embedding(ids) + model.position_embedding.weight[S:S + T]
        grown = []
        for layer, block in enumerate(model.blocks):
            q, k, v = block.attention.project(block.norm1(x))
            k, v = torch.cat((past[layer, 0], k), dim=2), torch.cat((past[layer, 1], v), dim=2)
            scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
            later = torch.ones(T, S + T, dtype=torch.bool).triu(S + 1)
            y = scores.masked_fill(later, -1e9).softmax(-1) @ v
            x = x + block.attention.output(y.transpose(1, 2).flatten(2))
            x = x + block.feed_forward(block.norm2(x))
            grown.append(torch.stack((k, v)))
        return model.unembed(x)[:, -1], torch.stack(grown)


def export(model: GPT, path: Path) -> onnxruntime.InferenceSession:
    """Write the step as a graph with free batch and lengths, and open it."""
    config = model.config
    past = torch.zeros(config.n_layer, 2, 2, config.n_head, 5, config.head_dim)
    free = {"ids": {0: "B", 1: "T"}, "past": {2: "B", 4: "S"}, "grown": {2: "B", 4: "end"}}
    with torch.no_grad():
        torch.onnx.export(WithPast(model), (torch.zeros(2, 3, dtype=torch.long), past), str(path),
                          input_names=["ids", "past"], output_names=["logits", "grown"],
                          dynamic_axes=free, dynamo=False, opset_version=17)
    return open_session(path)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A session on as many threads as PyTorch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def write_with_onnx(session: onnxruntime.InferenceSession, model: GPT, ids: Tensor,
                    temperature: float) -> Tensor:
    """The usual loop: the past of one call is the input of the next."""
    config = model.config
    shape = (config.n_layer, 2, len(ids), config.n_head, 0, config.head_dim)
    past, new = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)), ids
    for _ in range(NEW):
        given = {"ids": onnxruntime.OrtValue.ortvalue_from_numpy(new.numpy()), "past": past}
        logits, past = session.run_with_ort_values(["logits", "grown"], given)
        new = sample(torch.from_numpy(logits.numpy()), temperature=temperature)[:, None]
        ids = torch.cat((ids, new), dim=1)
    return ids


def check(writers: dict[str, Write]) -> None:
    """The same weights write the same greedy text, whoever multiplies."""
    prompt = torch.randint(VOCABULARY, (2, PROMPT))
    other = ("int", "bfloat", "drawing")
    exact = [name for name in writers if not any(part in name for part in other)]
    texts = {name: writers[name](prompt, 0.0) for name in exact}
    for name, ids in texts.items():
        if not torch.equal(ids, texts["Transformers"]):
            raise SystemExit(f"{name} writes another text than Transformers: not comparable")


class Count(TorchDispatchMode):
    """Counts the operations that PyTorch starts inside `with`, views included."""

    number = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        """Count it, then do it."""
        self.number += 1
        return operation(*arguments, **(options or {}))


def operations(work: Write, prompt: Tensor) -> float:
    """How many operations a writer starts in PyTorch for a token."""
    with Count() as count:
        work(prompt, 1.0)
    return count.number / NEW


def measured(shape: str, writers: dict[str, Write], batch_size: int, facts: dict) -> list[list]:
    """Rows of the table for one model and one number of prompts; adds to `facts`."""
    prompt = torch.randint(VOCABULARY, (batch_size, PROMPT))
    chosen = {name: (lambda work=work: work(prompt, 1.0)) for name, work in writers.items()
              if batch_size == 1 or "without a cache" not in name}
    times, rows = take_turns(chosen, rounds=3), []
    for name, seconds in times.items():
        speed = batch_size * NEW / statistics.median(seconds)
        gain = ratio(times, "Transformers", name)
        single = [a / b for a, b in zip(times["Transformers"], seconds)]
        count = "" if "ONNX" in name else f"{operations(writers[name], prompt):.0f}"
        rows.append([shape, batch_size, name, f"{speed:,.0f}", f"{gain:.2f}",
                     f"{min(single):.2f} to {max(single):.2f}", count])
        key = f"{shape}, {batch_size}, {name}".replace(" ", "")
        facts[key] = f"{gain:.2f}"
        facts[f"{key},speed"], facts[f"{key},operations"] = f"{speed:,.0f}", count
    return rows


def quality(facts: dict) -> list[list]:
    """What rounding costs the story model, in nats a token on the held-out stories."""
    model, tokenizer, _ = load_checkpoint(model_path("stories"))
    held_out = TokenDataset(encode_documents(split_documents(["stories"])[1], tokenizer),
                            model.config.context_length)
    exact, rows = evaluate_loss(model, held_out), []
    for weights in ("float32", "bfloat16", "int8", "int4"):
        loss = evaluate_loss(InferenceModel(model, weights), held_out)
        rows.append([weights, f"{loss:.4f}", f"{loss - exact:+.4f}"])
        facts[f"rounding,{weights}"] = f"{loss - exact:.4f}"
    return rows


if __name__ == "__main__":
    main()
