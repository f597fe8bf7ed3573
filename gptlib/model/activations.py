"""Looking inside a running model: attention maps, the residual stream, any module's output."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from gptlib.model.attention import attention_weights
from gptlib.model.gpt import GPT
from gptlib.runtime import mode


@contextmanager
def record(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Collect the outputs of the named modules during forward passes inside the `with` block.

    Names are those of `model.named_modules()`, such as "blocks.0.attention". The tensors are
    detached; a second forward pass replaces them. The model is left as it was.
    """
    modules = dict(model.named_modules())
    unknown = [name for name in names if name not in modules]
    if unknown:
        raise ValueError(f"the model has no module {unknown[0]!r}; names are those of "
                         f"model.named_modules(), such as {list(modules)[1]!r}")
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(_module, _inputs, output):
            outputs[name] = output.detach()
        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def attention_maps(model: GPT, ids: torch.Tensor) -> list[torch.Tensor]:
    """Attention weights of every layer for ids (B, T): a list of L tensors (B, H, T, T).

    The model runs with its fused kernel, which keeps no weights; they are computed again from the
    same inputs, in evaluation mode.
    """
    names = [f"blocks.{layer}.norm1" for layer in range(len(model.blocks))]
    with mode(model, training=False), record(model, names) as inputs:
        model(ids)
    rotation = model.rotation(0, ids.shape[1])
    maps = []
    for name, block in zip(names, model.blocks, strict=True):
        q, k, _ = block.attention.project(inputs[name], rotation)
        maps.append(attention_weights(q, k))
    return maps


@torch.no_grad()
def residual_streams(model: GPT, ids: torch.Tensor) -> list[torch.Tensor]:
    """The residual stream before the first block and after each: L + 1 tensors (B, T, C).

    `model.unembed` of each is the logit lens (nostalgebraist, 2020): what the model would predict
    if it stopped there.
    """
    names = [f"blocks.{layer}" for layer in range(len(model.blocks))]
    with mode(model, training=False), record(model, names) as outputs:
        model(ids)
        embedded = model.embed(ids)
    return [embedded, *(outputs[name] for name in names)]
