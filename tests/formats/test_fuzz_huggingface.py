"""Changed folders of Transformers: refused by name, or read exactly as the files now say."""

import json
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from mutations import fuzz, limits, mutated_json_bytes, mutated_safetensors, strict_json
from safetensors.torch import load_file
from small_huggingface import write_folder

from gptlib.formats.huggingface import from_huggingface
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT

OF_TRAINING = {"attn_pdrop", "embd_pdrop", "initializer_range", "bos_token_id", "eos_token_id",
               "dtype", "torch_dtype", "architectures"}


class Whole:
    """A small folder, its files, and the model in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = write_folder(folder, n_embd=8, n_head=2, dropout=0.25)
        self.files = {name: (folder / name).read_bytes()
                      for name in ("config.json", "model.safetensors")}
        self.model = from_huggingface(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    return Whole(tmp_path_factory.mktemp("fuzz"))


def read(whole: Whole, name: str, content: bytes) -> GPT | None:
    """The model in the folder with one file changed, or None if it is refused by name."""
    for each, before in whole.files.items():
        (whole.folder / each).write_bytes(content if each == name else before)
    try:
        with limits():
            return from_huggingface(whole.folder)
    except ValueError as error:
        assert type(error) is ValueError and str(whole.folder) in str(error)
        assert name in str(error) or "model.safetensors" in str(error)  # config against weights
        hypothesis.event("refused")
        return None


def equal_weights(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


@fuzz
@hypothesis.given(st.data())
def test_a_changed_config_is_refused_or_followed(whole, data):
    before = json.loads(whole.files["config.json"])
    content = mutated_json_bytes(data.draw, before)
    model = read(whole, "config.json", content)
    if model is None:
        return
    values = strict_json(content)
    assert values.keys() <= before.keys() | OF_TRAINING | {"n_inner"}, "a strange key was accepted"
    for key in before.keys() - OF_TRAINING - {"layer_norm_epsilon", "resid_pdrop", "n_head",
                                              "n_inner"}:
        defaults = {"tie_word_embeddings": True, "activation_function": "gelu_new"}
        assert values.get(key, defaults.get(key)) in (before[key], "gelu_pytorch_tanh")
    expected = GPTConfig(
        270, 32, 2, n_head=values["n_head"], n_embd=8, mlp_hidden=values.get("n_inner"),
        norm_eps=values.get("layer_norm_epsilon", 1e-5), dropout=values.get("resid_pdrop", 0.1))
    assert model.config == expected
    assert equal_weights(model.state_dict(), whole.model.state_dict())
    same = expected == whole.model.config
    hypothesis.event("the same" if same else "other numbers")


@fuzz
@hypothesis.given(st.data())
def test_changed_weights_are_refused_or_read_as_safetensors_does(whole, data):
    content = mutated_safetensors(data.draw, whole.files["model.safetensors"])
    model = read(whole, "model.safetensors", content)
    if model is None:
        return
    theirs = {name.removeprefix("transformer."): tensor for name, tensor
              in load_file(whole.folder / "model.safetensors").items()}
    assert theirs.keys() == {name for name, _ in pairs()}
    for name, ours in pairs():
        tensor = theirs[name].float()
        tensor = tensor.mT if name.startswith("h.") and tensor.dim() == 2 else tensor
        assert torch.equal(model.state_dict()[ours], tensor), name
    same = equal_weights(model.state_dict(), whole.model.state_dict())
    hypothesis.event("the same" if same else "other numbers")


def pairs():
    """(their name, our name) of the weights of two layers, written out a second time."""
    yield from (("wte.weight", "embedding.weight"), ("wpe.weight", "position_embedding.weight"))
    for part in ("weight", "bias"):
        yield f"ln_f.{part}", f"final_norm.{part}"
        for i in range(2):
            yield f"h.{i}.ln_1.{part}", f"blocks.{i}.norm1.{part}"
            yield f"h.{i}.ln_2.{part}", f"blocks.{i}.norm2.{part}"
            yield f"h.{i}.attn.c_attn.{part}", f"blocks.{i}.attention.qkv.{part}"
            yield f"h.{i}.attn.c_proj.{part}", f"blocks.{i}.attention.output.{part}"
            yield f"h.{i}.mlp.c_fc.{part}", f"blocks.{i}.feed_forward.up.{part}"
            yield f"h.{i}.mlp.c_proj.{part}", f"blocks.{i}.feed_forward.down.{part}"
