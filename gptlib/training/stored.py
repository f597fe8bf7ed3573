"""Stored models by name or folder, opened to write or chat with."""

from pathlib import Path

from gptlib.files import Fields, broken, shown
from gptlib.formats.checkpoint import load_checkpoint, model_path
from gptlib.formats.gguf import load_gguf
from gptlib.model.gpt import GPT
from gptlib.text.chat_template import SMOLLM2_SYSTEM
from gptlib.text.corpora import END
from gptlib.text.tokenizers import Tokenizer
from gptlib.training.adapters import has_adapter, load_adapted
from gptlib.writing.closing import Closing
from gptlib.writing.inference import InferenceModel

PRETRAINED = "smollm2"  # the name of SmolLM2-135M-Instruct, of `gptlib.text.corpora`
CONTEXT = 2048  # of its 8,192 positions; each takes 46 KB of cache
# How an adapted model tells: without the penalty it circles, and by itself it rarely ends.
TELLING = {"repetition_penalty": 1.1, "after": 150, "per_hundred": 6.0}


def open_model(name: str) -> tuple[GPT, Tokenizer, dict]:
    """A model by name or folder, its tokenizer, and what is known about it.

    That is the metadata of a checkpoint or an adapter, and "chat", the options of
    `gptlib.writing.chat.Chat` that the model was trained with, "weights", how `InferenceModel`
    keeps them on a CPU, and "telling", its own repetition penalty and the options of `Closing`, or
    nothing. ValueError for unknown names, damaged folders, and models without a tokenizer.
    """
    if name == PRETRAINED and not Path(name).exists():
        model, tokenizer = load_gguf(context_length=CONTEXT)
        about = {"chat": {"system": SMOLLM2_SYSTEM}, "weights": "int8", "telling": {}}
        return model, tokenizer, about
    folder = model_folder(name)
    if has_adapter(folder):  # 8 bits: 4 would round the learned change away
        model, tokenizer, metadata = load_adapted(folder, CONTEXT)
        own = _chat_options(folder, metadata, tokenizer.vocab_size)
        about = {"chat": own or {"system": SMOLLM2_SYSTEM}, "weights": "int8",
                 "telling": {} if own else TELLING}
        return model, tokenizer, metadata | about
    model, tokenizer, metadata = open_checkpoint(folder)
    about = {"chat": {"start_tokens": start_of_text(tokenizer)}, "weights": "float32",
             "telling": {}}
    return model, tokenizer, metadata | about


def _chat_options(folder: Path, metadata: dict, vocab_size: int) -> dict:
    """What stood before each conversation that an adapter learned from; nothing for others."""
    if "chat" not in metadata:
        return {}
    fields = Fields(folder / "adapter.json", metadata["chat"], "about.chat.")
    ids = fields.read("start_tokens", list)
    fields.finish()
    if not all(type(i) is int and 0 <= i < vocab_size for i in ids):
        raise broken(fields.file, f"about.chat.start_tokens is {shown(ids)}; expected ids below "
                                  f"{vocab_size}")
    return {"start_tokens": ids}


def prepared(model: GPT, about: dict, device: str = "cpu") -> InferenceModel:
    """What `open_model` returned, made ready for writing."""
    return InferenceModel(model.to(device), about["weights"] if device == "cpu" else "float32")


def storyteller(model: GPT, tokenizer: Tokenizer, about: dict,
                device: str = "cpu") -> tuple[InferenceModel | Closing, float]:
    """What `open_model` returned, made ready to tell: it comes to an end where the model is known
    to need that. Beside it the model's own repetition penalty."""
    writer, own = prepared(model, about, device), dict(about["telling"])
    penalty = own.pop("repetition_penalty", 1.0)
    if own:
        writer = Closing(writer, tokenizer.special_tokens[END], **own)
    return writer, penalty


def start_of_text(tokenizer: Tokenizer) -> list[int]:
    """What the book's models read first: the token that ended the document before, if any."""
    return [i for token, i in tokenizer.special_tokens.items() if token == END]


def model_folder(name: str) -> Path:
    """The folder of a model: a path, or the name of one that comes with the book."""
    is_folder = Path(name).exists() or "/" in name or "\\" in name
    return Path(name) if is_folder else model_path(name)


def open_checkpoint(folder: Path) -> tuple[GPT, Tokenizer, dict]:
    """A checkpoint's model with its tokenizer and metadata; ValueError where it has none."""
    model, tokenizer, metadata = load_checkpoint(folder)
    if tokenizer is None:
        raise ValueError(f"{folder} holds no tokenizer; expected a checkpoint saved with one")
    return model, tokenizer, metadata
