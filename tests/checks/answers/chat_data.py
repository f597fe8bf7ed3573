"""Answers to the exercises of 9.1 and 9.2: right ones written otherwise, and wrong ones."""

import torch


def as_text(messages, reply):
    lines = []
    for role, content in messages:
        lines += [f"<|im_start|>{role}", f"{content}<|im_end|>"]
    lines += ["<|im_start|>assistant"] if reply else []
    return "".join(line + "\n" for line in lines)


def form(one, header="<|im_start|>assistant\n"):
    """The answer with another form of a message, or of the reply's header."""
    return lambda messages, reply: "".join(
        one.format(role=role, content=content) for role, content in messages) + (
        header if reply else "")


RIGHT = "<|im_start|>{role}\n{content}<|im_end|>\n"


def reply_loss(losses, learn):
    total = count = 0
    for i in range(len(losses)):
        if learn[i + 1]:
            total, count = total + losses[i], count + 1
    return total / count


def of_replies(losses, learn):
    means, own = [], []
    for loss, wanted in zip(losses.tolist() + [0.0], learn[1:].tolist() + [False]):
        if wanted:
            own.append(loss)
        elif own:
            means.append(sum(own) / len(own))
            own = []
    return sum(means) / len(means)


def pairs_right(right):
    return torch.tensor(right).view(-1, 2).all(1).float().mean()


def speakers_apart(chats, held_out):
    learn = test = 0
    for one, other in chats:
        learn += one not in held_out and other not in held_out
        test += one in held_out and other in held_out
    return learn, test, len(chats) - learn - test


def either(chats, held_out):
    test = sum(one in held_out or other in held_out for one, other in chats)
    return len(chats) - test, test, 0


def not_both(chats, held_out):
    test = sum(one in held_out and other in held_out for one, other in chats)
    return len(chats) - test, test, 0


OTHERWISE = [
    ("check_as_text", as_text),
    ("check_as_text", form(RIGHT)),
    ("check_reply_loss", reply_loss),
    ("check_reply_loss", lambda x, m: (x * m[1:]).sum() / m[1:].sum()),
    ("check_pairs_right", pairs_right),
    ("check_pairs_right", lambda r: sum(r[i] * r[i + 1] for i in range(0, len(r), 2))
     / (len(r) / 2)),
    ("check_speakers_apart", speakers_apart),
    ("check_speakers_apart", lambda c, h: torch.tensor(speakers_apart(c, h))),
]

MISTAKES = [
    ("check_as_text", form("<|im_start|>{role}\n{content}<|im_end|>"), "behind each <|im_end|>"),
    ("check_as_text", form("<|im_start|>{role} {content}<|im_end|>\n"), "behind the role"),
    ("check_as_text", form("<|im_start|>{role}: {content}<|im_end|>\n"), "behind the role"),
    ("check_as_text", form("{role}\n{content}<|im_end|>\n"), "each message begins with"),
    ("check_as_text", form("<|im_start|>{role}\n{content}\n<|im_end|>\n"), "a part of what is"),
    ("check_as_text", form("<|im_start|>{role}\n{content}\n"), "never learns to stop"),
    ("check_as_text", lambda m, r: form(RIGHT)(m, True), "although `reply` is False"),
    ("check_as_text", lambda m, r: form(RIGHT)(m, False), "go on as anybody"),
    ("check_as_text", form(RIGHT, "<|im_start|>assistant"), "behind the header's role, too"),
    ("check_as_text", form(RIGHT, "<|im_start|>assistant\n<|im_end|>\n"), "is left open"),
    ("check_as_text", form(RIGHT, "<|im_start|>user\n"), "with reply=True expected"),
    ("check_as_text", lambda m, r: 3, "expected a string"),
    ("check_as_text", lambda m, r: form(RIGHT)(m[-1:], r), "wrong for"),
    ("check_reply_loss", lambda x, m: x.mean(), "the mean over all tokens"),
    ("check_reply_loss", lambda x, m: x[m[:-1]].mean(), "one token late"),
    ("check_reply_loss", lambda x, m: x[m[1:]].sum(), "this is the sum"),
    ("check_reply_loss", lambda x, m: x[m[1:]].sum() / len(x), "the number of all tokens"),
    ("check_reply_loss", of_replies, "two replies' means"),
    ("check_reply_loss", lambda x, m: x[m[1:]].sum() / m.sum(), "predicted from nothing"),
    ("check_pairs_right", lambda r: sum(r) / len(r), "single dialogues"),
    ("check_pairs_right", lambda r: sum(a or b for a, b in zip(r[::2], r[1::2])) / (len(r) / 2),
     "both have to be"),
    ("check_pairs_right", lambda r: sum(a and b for a, b in zip(r[::2], r[1::2])) / len(r),
     "not of dialogues"),
    ("check_pairs_right", lambda r: sum(a and b for a, b in zip(r, r[1:])) / (len(r) - 1),
     "no dialogue has two"),
    ("check_pairs_right", lambda r: sum(a == b for a, b in zip(r[::2], r[1::2])) / (len(r) / 2),
     "both wrong"),
    ("check_speakers_apart", either, "is no test"),
    ("check_speakers_apart", not_both, "is nothing to learn from"),
    ("check_speakers_apart", lambda c, h: speakers_apart(c, h)[1:] + speakers_apart(c, h)[:1],
     "the order is"),
    ("check_speakers_apart", lambda c, h: (*speakers_apart(c, h)[:2], 0), "yours sum to"),
    ("check_speakers_apart", lambda c, h: speakers_apart(c, h)[:2], "expected three numbers"),
]
