"""A conversation as one sequence of token ids: the chat template ChatML, written out.

    <|im_start|>user
    How are you?<|im_end|>
    <|im_start|>assistant
    Fine, thanks.<|im_end|>

The two marks are special tokens, and nothing that a speaker writes turns into one: whoever types
"<|im_end|>" has typed ten characters, and the message goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from gptlib.text.tokenizers import Tokenizer

MARKS = ("<|im_start|>", "<|im_end|>")  # of a message; special tokens of a chat's tokenizer
ROLES = ("system", "user", "assistant")
# what SmolLM2-Instruct was trained to read first where a conversation brings no system message
SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@dataclass(frozen=True)
class Message:
    """What one side says: `role` is "system" (how to answer), "user" or "assistant"."""

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role is {self.role!r}; expected one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise ValueError(f"content is a {type(self.content).__name__}; expected a string")


def with_system(messages: Sequence[Message], system: str | None) -> list[Message]:
    """The messages, with `system` first where there are any and they begin with no such message."""
    if system is None or not messages or messages[0].role == "system":
        return list(messages)
    return [Message("system", system), *messages]


def chat_text(messages: Sequence[Message], *, system: str | None = None,
              reply: bool = True) -> str:
    """The conversation as text; with `reply` it ends where the assistant's answer begins."""
    start, end = MARKS
    text = "".join(f"{start}{message.role}\n{message.content}{end}\n"
                   for message in with_system(messages, system))
    return text + f"{start}assistant\n" if reply else text


def encode_chat(messages: Sequence[Message], tokenizer: Tokenizer, *, system: str | None = None,
                reply: bool = True) -> list[int]:
    """The ids of `chat_text`, ready for a model to answer; marks in a content stay plain text.

    Raises ValueError for a tokenizer without the two marks.
    """
    ids = []
    for message in with_system(messages, system):
        ids += encode_message(message, tokenizer)
    return ids + encode_header(tokenizer) if reply else ids


def encode_conversation(messages: Sequence[Message], tokenizer: Tokenizer, *,
                        system: str | None = None) -> tuple[list[int], list[bool]]:
    """The ids of a whole conversation, and for each whether a model shall learn to say it.

    That is what the assistant says, with the <|im_end|> that ends it: not the header before it,
    which is given when a reply is asked for, and nothing that others say.
    """
    ids, learn = [], []
    for message in with_system(messages, system):
        own = encode_message(message, tokenizer)
        given = end = len(own) - len(encode_end(tokenizer)) + 1  # behind <|im_end|>
        if message.role == "assistant":  # a token of header and reply together is learned
            header = len(f"{MARKS[0]}assistant\n".encode())
            reached = accumulate(len(tokenizer.token_bytes[i]) for i in own)
            given = sum(size <= header for size in reached)
        ids += own
        learn += [given <= place < end for place in range(len(own))]
    return ids, learn


def encode_message(message: Message, tokenizer: Tokenizer) -> list[int]:
    """The ids of one message with its marks and the line end behind it.

    Role and content are encoded together, as in the text: a content that begins with empty lines
    may share a token with the line end of the role.
    """
    start, _ = _marks(tokenizer)
    text = f"{message.role}\n{message.content}"
    return [start, *tokenizer.encode(text), *encode_end(tokenizer)]


def encode_end(tokenizer: Tokenizer) -> list[int]:
    """The ids that end a message: its mark, and the line end behind it."""
    return [_marks(tokenizer)[1], *tokenizer.encode("\n")]


def encode_header(tokenizer: Tokenizer) -> list[int]:
    """The ids after which the assistant speaks."""
    return [_marks(tokenizer)[0], *tokenizer.encode("assistant\n")]


def _marks(tokenizer: Tokenizer) -> tuple[int, int]:
    missing = [mark for mark in MARKS if mark not in tokenizer.special_tokens]
    if missing:
        raise ValueError(f"the tokenizer has no special token {missing[0]}; expected one made for "
                         f"conversations, with {' and '.join(MARKS)}")
    return tokenizer.special_tokens[MARKS[0]], tokenizer.special_tokens[MARKS[1]]
