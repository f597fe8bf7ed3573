"""From the raw files of `gptlib.text.corpora` to documents: pure functions."""

import csv
import html
import io
import json
import re
import string
from collections.abc import Iterator

# A heading starts the file or stands after at least two empty lines. What comes before the first
# one (title page, dedication, extracts) is dropped.
_CHAPTER = (r"(?:VOLUME [IV]+\n+)?(?: *CHAPTER|Chapter|Epilogue)\b[^\n]*"
            r"(?:\n\n +Alice's Evidence)?")
_TITLE = r"(?!CHAPTER|SCENE|ACT\b)[A-Z](?:[^a-z\n]| or )+"
_HEADINGS = {
    "bryant-stories": _TITLE,
    "edgeworth-parents": _TITLE,
    "burgess-busterbrown": r"[IVXL]+\n\n[A-Z][^a-z\n]+",
    "carroll-alice": _CHAPTER,
    "austen-emma": _CHAPTER,
    "austen-persuasion": _CHAPTER,
    "austen-sense": _CHAPTER,
    "melville-moby_dick": _CHAPTER,
    "chesterton-thursday": _CHAPTER,
}
_VERSE = ("blake-poems", "milton-paradise", "shakespeare-caesar", "shakespeare-hamlet",
          "shakespeare-macbeth", "whitman-leaves")
# Paragraphs that are not the story: chapter numbers inside one, [notes and captions], the end.
_APPARATUS = re.compile(r"CHAPTER [IVX]+\.?|\*?\[.*\]|FINIS|Finis|THE END|[^A-Za-z]*", re.DOTALL)

# Contact details, addresses of pages, the few profanities of the chats, and one word typed nine
# times or more in a row: a conversation with one is left out. So is one with the name of an account
# by which somebody can be found: "@ann.lee", "ann_lee7", "my insta is annlee".
_UNWANTED = re.compile(
    r"https?://|www\.|\w\.(?:com|net|org|edu|io)/|\S@\S+\.\S|\+?\d[\d \-().]{7,}\d"
    r"|\b(?:f+u+c+k|sh[i1]t|bitch|cunt|nigg|fag|retard|whore|slut|porn|dick\b|pussy|asshole)"
    r"|\b(\w+)(?:\s+\1\b){8}"
    r"|@\w|[^\W_]{2}_[^\W_]{2}|\bmy (?:insta|ig\b|snap)\w* (?:name )?is\b", re.IGNORECASE)

# What the file of the Three Kingdoms has instead of a sign: the parts of a rare one in brackets,
# "?" or a square for one that its encoding lacked, dots for an ellipsis, an advertisement.
_CHINESE = {
    "www.xyyuedu.com ": "",
    "......": "……",
    "[犭票]": "\U00024851", "[火票]": "熛", "【左玄右旅去方】": "玈", "【舟冓】": "\U00026a77",
    "【舟鹿】": "\U00026a87", "【上雨下单】": "\U00029166",  # Sun Wan, the heir of Wu
    "垂头□翼": "垂头搨翼",  # with drooping heads and folded wings
    "刘?": "刘邠",  # Liu Bin, governor of Pingyuan
    "?吓": "唬吓", "?得": "唬得", "受惊?": "受惊唬",  # to frighten
    "如之奈何？“": "如之奈何？”",  # the wrong mark closes the speech
}


def decode(content: bytes, where: str, encoding: str | None = None) -> str:
    """Bytes to text with "\\n" as the only line end; ValueError says what is wrong with them."""
    if not content.strip():
        raise ValueError(f"{where} is empty; expected a text")
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    encoding = encoding or ("utf-16" if marked else "utf-8-sig")
    if b"\0" in content[:4096] and not encoding.lower().replace("_", "-").startswith("utf-"):
        raise ValueError(f"{where} looks like a binary file (it holds zero bytes), not like text")
    try:
        text = content.decode(encoding)
    except LookupError:
        raise ValueError(f"unknown encoding {encoding!r}; expected a name such as 'utf-8', "
                         "'latin-1', 'gb18030' or 'utf-16'") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not {encoding}: byte {error.start} is "
                         f"0x{content[error.start]:02x}; name its encoding, say "
                         "encoding='latin-1' or 'gb18030'") from None
    if "\0" in text:
        raise ValueError(f"{where} looks like a binary file (it holds zero bytes), not like text")
    text = text.removeprefix("\ufeff")  # the byte order mark, which some named encodings keep
    return text.replace("\r\n", "\n").replace("\r", "\n")


def unwrap(text: str, verse: bool = False) -> str:
    """Join hard-wrapped lines into paragraphs separated by one empty line.

    A paragraph whose lines are all indented is verse or a letter's head and keeps its lines, as
    does everything with `verse`. Marks of emphasis (_so_, =so=), notes in brackets and rows of
    stars are dropped.
    """
    paragraphs = []
    for block in re.split(r"\n\s*\n", re.sub("[_=]", "", text)):
        if _APPARATUS.fullmatch(block.strip()):
            continue
        lines = [line for line in block.split("\n") if line.strip()]
        keep = verse or (len(lines) > 1 and all(line.startswith("  ") for line in lines))
        words = [" ".join(line.split()) for line in lines]
        paragraphs.append(("\n" if keep else " ").join(words))
    return "\n\n".join(paragraphs)


def book(name: str, raw: str) -> list[str]:
    """The stories or chapters of a Gutenberg book, each with its title as first paragraph."""
    text = "\n".join(line.rstrip() for line in raw.split("\n"))
    text = re.sub(r"\A\s*\[[^\]]*\]\s*|\x1a", "", text)  # the header: [Emma by Jane Austen 1816]
    if name not in _HEADINGS:
        return [unwrap(text, verse=name in _VERSE)]
    pattern = re.compile(rf"(?:\A|\n\n\n+)({_HEADINGS[name]})\n(?=\n)")
    pieces = pattern.split("\n\n\n" + text)
    chapters = zip(pieces[1::2], pieces[2::2])
    return [f"{_title(heading)}\n\n{body}" for heading, raw_body in chapters
            if (body := unwrap(raw_body))]


def _title(heading: str) -> str:
    title = re.sub(r"^[IVXL]+\n", "", heading.strip()).strip(" \n.")
    title = " ".join(title.split())
    return string.capwords(title) if title.isupper() and "CHAPTER" not in title else title


def play(raw: str) -> str:
    """One play: "NAME:" and the speech below it; stage directions in brackets."""
    text = re.sub(r"^\*\*(.+?)\*\* *$", r"\1:", html.unescape(raw), flags=re.MULTILINE)
    text = re.sub(r"^#+ *", "", text, flags=re.MULTILINE)
    text = re.sub(r"_([^_\n]+)_", r"[\1]", text)
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def tales(raw: str) -> Iterator[str]:
    """The tales of one of Orange's tables, each with its title as first paragraph.

    Two blanks end a paragraph there, three a line of verse. Speech gets straight double quotation
    marks and apostrophes are straight, as in the other books.
    """
    csv.field_size_limit(1 << 20)
    header, _, _, *rows = csv.reader(io.StringIO(raw), delimiter="\t")
    title, content = header.index("Title") if "Title" in header else 0, header.index("Content")
    for row in filter(None, rows):
        text = re.sub("^CThe ", "The ", row[content].strip())  # a slip at the start of Clever Hans
        text = _straight(re.sub(r"_|\[\*\]", "", text))
        text = re.sub(" {3,}", "\n", text)
        yield row[title].strip() + "\n\n" + re.sub(" *  +", "\n\n", text)


def _straight(text: str) -> str:
    """Curly quotation marks as straight ones: double for speech, single for speech in speech."""
    if text.count("“") > text.count("‘"):
        return re.sub("[“”]", '"', text).replace("‘", "'").replace("’", "'")
    text = re.sub("[“”]", "'", text).replace("‘", '"')
    text = re.sub(r"(?<!\S)’(?=\w)", '"', text)  # some open with the closing mark
    text = re.sub(r"(?<=[.,!?;:-])’(?!\w)|’(?=;)", '"', text)  # beside a stop it closes
    return text.replace("’", "'")


def conversations(raw: str, least_turns: int = 6) -> Iterator[str]:
    """Chats of two students with at least `least_turns` turns, as lines "A: ..." and "B: ...".

    Whoever said nothing in his turn has no line, and the other one then has two in a row.
    """
    for chat in json.loads(raw).values():
        turns = [" ".join(" ".join(message["text"].split()) for message in turn)
                 for turn in chat["messages"]]
        lines = [f"{'AB'[i % 2]}: {turn}" for i, turn in enumerate(turns) if turn]
        text = "\n".join(lines)
        if len(lines) >= least_turns and not _UNWANTED.search(text):
            yield text


def chinese_chapters(raw: str) -> Iterator[str]:
    """Chapters as paragraphs separated by an empty line; ideographic spaces become plain ones.

    A line that does not end with a sentence (in chapter 22, a proclamation is wrapped by hand)
    goes on in the next one. Signs that the file lacks or spells are put back.
    """
    for chapter in json.loads(raw):
        for lost, found in _CHINESE.items():
            chapter = chapter.replace(lost, found)
        title, *lines = (line for line in map(_one_line, chapter.split("\n")) if line)
        yield title + "\n\n" + re.sub(r"(?<![。！？：”’》；])\n\n", "", "\n\n".join(lines))


def _one_line(line: str) -> str:
    return " ".join(line.split())
