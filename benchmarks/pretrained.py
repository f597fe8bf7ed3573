"""A pretrained model of 135 million weights, one token at a time: how near to the memory's limit?

    python benchmarks/pretrained.py

SmolLM2-135M-Instruct is stored with 4 bits a weight (8 in the table that reads and predicts
tokens). To write a token, every weight is needed once, so the memory's speed sets a limit: the
bytes of the weights over the bytes that the memory delivers in a second. Transformers reads the
same file. Then the products themselves: weights a second from the processor's cache and from
memory. A product that is no faster from the cache waits for its own arithmetic.
"""

import os
import statistics
import time

import torch
import transformers
from measure import ratio, take_turns, write
from torch import Tensor, nn

from gptlib.formats.gguf import load_gguf
from gptlib.runtime import setup
from gptlib.text.corpora import load_text, member_path
from gptlib.text.datasets import TokenDataset
from gptlib.training.evaluation import evaluate_loss
from gptlib.writing.generation import generate
from gptlib.writing.inference import GROUP, PACKED, Function, InferenceModel

NEW, PROMPT = 32, "Once upon a time there was a little fox who"
COMMAND = "python benchmarks/pretrained.py"
BITS = {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 4 + 2 * 16 / GROUP}


def main() -> None:
    """Measure the speed of the memory, then of all who write, then of the products alone."""
    setup(0, int(os.environ.get("GPTLIB_THREADS", "2")))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model, tokenizer = load_gguf(context_length=512)
    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    speed = memory_speed()
    path = member_path("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    half = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.bfloat16).eval()
    ours = {weights: InferenceModel(model, weights) for weights in BITS}

    def reader(competitor: nn.Module | InferenceModel) -> Tensor:
        return generate(competitor, prompt, max_new_tokens=NEW, temperature=0)

    competitors = {
        "Transformers, float32": lambda: write_with_transformers(theirs, prompt),
        "Transformers, bfloat16": lambda: write_with_transformers(half, prompt),
        "GPT, float32": lambda: reader(model),
        **{f"InferenceModel, {w}": (lambda w=w: reader(ours[w])) for w in BITS}}
    if not torch.equal(competitors["Transformers, float32"](), reader(ours["float32"])):
        raise SystemExit("Transformers writes another text: not the same weights")
    times = take_turns(competitors, rounds=5)
    ids = tokenizer.encode(load_text("stories")[20_000:32_000])
    held_out = TokenDataset(torch.tensor(ids), 256)
    losses = {w: evaluate_loss(ours[w], held_out) for w in BITS if w != "bfloat16"}
    rows, facts = [], {"memory": f"{speed / 1e9:.1f}"}
    for name, seconds in times.items():
        weights = name.split(", ")[1]
        rate = NEW / statistics.median(seconds)
        limit = speed / weight_bytes(model, weights)
        gain = ratio(times, "Transformers, float32", name)
        loss = f"{losses[weights]:.4f}" if weights in losses and "Inf" in name else ""
        rows.append([name, f"{weight_bytes(model, weights) / 1e6:.0f}", f"{rate:.1f}",
                     f"{gain:.2f}", f"{limit:.0f}", f"{100 * rate / limit:.0f} %", loss])
        facts |= {name: f"{rate:.0f}", f"{name}, times": f"{gain:.1f}",
                  f"{name}, share": f"{100 * rate / limit:.0f}", f"{name}, limit": f"{limit:.0f}"}
    write("pretrained", command=COMMAND, rows=rows, facts=facts, packages=("transformers",),
          columns=["written by", "MB of weights", "tokens a second", "times Transformers, float32",
                   "memory's limit", "share of it", "loss on 12,000 characters"])
    products(weight_bytes(model, "int8"))


def write_with_transformers(model: nn.Module, prompt: Tensor) -> Tensor:
    """Greedy, with its cache."""
    with torch.inference_mode():
        return model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                              max_new_tokens=NEW, min_new_tokens=NEW, pad_token_id=0)


def weight_bytes(model: nn.Module, weights: str) -> float:
    """Bytes of all matrices that a token is multiplied with."""
    table = model.embedding.weight.numel()  # tied: it is the output layer too
    inside = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    return (inside * BITS[weights] + table * (8 if weights == "int4" else BITS[weights])) / 8


def memory_speed() -> float:
    """Bytes a second of the fastest pass over 512 MB: a sum reads each byte once."""
    numbers = torch.ones(2**27)
    numbers.sum()
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - began)
    return numbers.numel() * 4 / best


def products(size: float) -> None:
    """One row times matrices of 1,536 x 576: one of them again and again, or 160 in turn; and how
    many times a second a model of `size` weights could be multiplied so."""
    rows, facts = [], {}
    x = torch.randn(1, 576)
    row = x[0].numpy()
    for weights, pack in PACKED.items():
        linears = [pack(nn.Linear(576, 1536, bias=False)) for _ in range(160)]
        orders = {"cache": linears[:1] * 160, "memory": linears}

        def multiply(order: list[Function]) -> None:
            for linear in order:  # as InferenceModel does it for one token
                linear.row(row) if linear.row else linear.rows(x)

        with torch.inference_mode():
            times = take_turns({where: (lambda order=order: multiply(order))
                                for where, order in orders.items()}, rounds=7)
        speeds = {where: 160 * 576 * 1536 / statistics.median(times[where]) / 1e9
                  for where in orders}
        rows.append([weights, *(f"{speed:.1f}" for speed in speeds.values())])
        facts |= {f"{weights}, {where}": f"{speed:.1f}" for where, speed in speeds.items()}
        facts[f"{weights}, tokens"] = f"{speeds['memory'] * 1e9 / size:.0f}"
    write("products", command=COMMAND, rows=rows, facts=facts,
          columns=["weights", "billion weights a second from the cache", "from memory"])


if __name__ == "__main__":
    main()
