"""How well a model predicts a held-out text: one full pass, every token counted once."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from gptlib.runtime import device_of, mode
from gptlib.text.datasets import PIECE, TokenDataset
from gptlib.text.tokenizers import Tokenizer
from gptlib.theory import information
from gptlib.writing.judging import ratio_interval

LanguageModel = Callable[[Tensor], Tensor]  # (B, T) ids -> (B, T, V) logits


@torch.no_grad()
def token_losses(model: LanguageModel, dataset: TokenDataset, batch_size: int = 32) -> Tensor:
    """The loss in nats of each token of the data set but the first, (N - 1,) float32 on the CPU.

    The text is cut into windows of `context_length` inputs that do not overlap: each token is
    predicted once, from the 1 to `context_length` tokens before it. Where the data set says what
    to learn, only the losses of those tokens are returned, in their order.
    `model` is any callable (B, T) -> (B, T, V) logits; modules are in eval mode meanwhile.
    """
    return torch.cat(list(_batch_losses(model, dataset, batch_size)))


@torch.no_grad()
def _batch_losses(model: LanguageModel, dataset: TokenDataset, batch_size: int) -> Iterator[Tensor]:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more windows")
    device, ids, T = device_of(model), dataset.ids, dataset.context_length
    whole = (len(ids) - 1) // T  # windows that are full; what is left is a shorter one

    def losses(begin: int, end: int, T: int) -> Tensor:
        """Of the tokens after those from `begin` to `end`, which are windows of T."""
        logits = model(ids[begin:end].view(-1, T).long().to(device)).flatten(0, 1).float()
        targets = ids[begin + 1 : end + 1].long().to(device)
        found = functional.cross_entropy(logits, targets, reduction="none").cpu()
        return found if dataset.learn is None else found[dataset.learn[begin + 1 : end + 1]]

    with mode(model, training=False):
        for i in range(0, whole, batch_size):
            yield losses(i * T, min(i + batch_size, whole) * T, T)
        if (rest := len(ids) - 1 - whole * T):
            yield losses(whole * T, len(ids) - 1, rest)


def evaluate_loss(model: LanguageModel, dataset: TokenDataset, batch_size: int = 32) -> float:
    """Mean loss in nats per token over the whole data set: every token weighs the same.

    Where the data set says what to learn, the mean is over those tokens alone.
    """
    count = len(dataset.ids) - 1 if dataset.learn is None else int(dataset.learn[1:].sum())
    return _sum_of_losses(model, dataset, batch_size) / count


def perplexity(model: LanguageModel, dataset: TokenDataset, batch_size: int = 32) -> float:
    """exp of the loss: among how many equally likely tokens the model hesitates, on average."""
    return information.perplexity(evaluate_loss(model, dataset, batch_size))


def bits_per_byte(model: LanguageModel, dataset: TokenDataset, tokenizer: Tokenizer,
                  batch_size: int = 32) -> float:
    """Bits that the model needs for each byte (UTF-8) of the text it predicts.

    Unlike the loss per token, this compares models with different tokenizers. A special token
    costs bits and stands for no byte. Only tokens that the data set learns are counted.
    """
    return _bits(model, dataset, batch_size) / _text_size(dataset, tokenizer, characters=False)


def bits_per_character(model: LanguageModel, dataset: TokenDataset, tokenizer: Tokenizer,
                       batch_size: int = 32) -> float:
    """Bits that the model needs for each character (Unicode code point) of the text."""
    return _bits(model, dataset, batch_size) / _text_size(dataset, tokenizer, characters=True)


def bootstrap_interval(losses: Tensor, level: float = 0.95, *, block: int = 64,
                       resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The interval of the mean of `losses` (N,) that holds a share `level` of its resamples.

    Neighbouring tokens are hard or easy together, so blocks of `block` tokens are drawn with
    replacement, not single tokens (Efron, 1979; in blocks: Künsch, 1989). At least 2 blocks.
    """
    losses = losses.detach().double().flatten()
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.95")
    if len(losses) < 2 * block:
        raise ValueError(f"got {len(losses)} losses for blocks of {block}; expected at least "
                         f"{2 * block}: evaluate on a longer text or pass a smaller block")
    blocks = losses.split(block)
    sums = torch.stack([part.sum() for part in blocks])
    sizes = torch.tensor([len(part) for part in blocks], dtype=torch.double)
    return ratio_interval(sums, sizes, level, resamples=resamples, seed=seed)[1:]


def paired_bootstrap(losses_a: Tensor, losses_b: Tensor, level: float = 0.95, *, block: int = 64,
                     resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The interval of mean(losses_a) - mean(losses_b) for two models on the same tokens (N,).

    The same tokens are drawn for both, so what makes a passage hard for both cancels. If the
    interval does not contain 0, the difference is larger than the choice of text explains.
    """
    if losses_a.shape != losses_b.shape:
        raise ValueError(f"the losses have shapes {tuple(losses_a.shape)} and "
                         f"{tuple(losses_b.shape)}; expected the same tokens for both models")
    return bootstrap_interval(losses_a - losses_b, level, block=block, resamples=resamples,
                              seed=seed)


def _bits(model: LanguageModel, dataset: TokenDataset, batch_size: int) -> float:
    return _sum_of_losses(model, dataset, batch_size) / math.log(2)


def _sum_of_losses(model: LanguageModel, dataset: TokenDataset, batch_size: int) -> float:
    """In float64, some million losses at a time: the data may be larger than memory."""
    total, losses, count = 0.0, [], 0
    for batch in _batch_losses(model, dataset, batch_size):
        losses.append(batch)
        count += len(batch)
        if count >= 4 * PIECE:
            total, losses, count = total + torch.cat(losses).double().sum().item(), [], 0
    return total + (torch.cat(losses).double().sum().item() if losses else 0.0)


def _text_size(dataset: TokenDataset, tokenizer: Tokenizer, characters: bool) -> int:
    """Bytes or characters of all tokens that are predicted: not of the first."""
    sizes = torch.zeros(tokenizer.vocab_size, dtype=torch.long)
    special = set(tokenizer.special_tokens.values())
    for token in range(tokenizer.vocab_size):
        if token not in special:
            text = tokenizer.token_bytes[token]
            # a character has one byte that is not a continuation byte (10xxxxxx) of UTF-8
            sizes[token] = sum(b & 0xC0 != 0x80 for b in text) if characters else len(text)
    try:
        size = 0
        for begin in range(1, len(dataset.ids), PIECE):
            piece = slice(begin, begin + PIECE)
            found = sizes[dataset.ids[piece].long()]
            size += int((found if dataset.learn is None else found[dataset.learn[piece]]).sum())
    except IndexError:
        raise ValueError(f"the data hold ids beyond the {tokenizer.vocab_size} tokens of the "
                         f"tokenizer; expected the one that they were encoded with") from None
    if size == 0:
        raise ValueError("the text holds special tokens only; expected some characters")
    return size
