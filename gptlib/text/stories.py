"""The data of case 1: children's stories, cleaned, split by story, mixed for training.

Chapters before case 1 use `stories` and `split`, two parts. Case 1 adds the tales of Grimm and
Andersen and judges on a third part, that nothing else reads: `tales` and `parts`.

`python -m gptlib.text.stories FOLDER` writes what `python -m gptlib train` reads: stories.txt
(every story once; the command holds every tenth out) and mixture.txt (the training stories
repeated, and five novels, all to learn from); and what `gptlib.training.adapt` reads: tales.txt
and validation.txt.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gptlib.text import corpora
from gptlib.text.corpora import END as END  # the chapters of case 1 take it from here
from gptlib.text.corpora import HELD_OUT

# Left out by hand, with the reason. Titles as in `corpora.documents("stories")`.
LEFT_OUT = {
    "Eton Montem": "a play",
    "Old Poz": "a play",
    "The Story Of The Little Rid Hin": "verse in a written-out accent",
    "The Story Of Epaminondas And His Auntie": "a caricature of Black people",
    "The Little Merchants": "a caricature of a Jewish trader",
    "The Juniper Tree": "a child is killed and eaten",
    "The Robber Bridegroom": "a girl is killed and eaten",
    "The Elves and the Shoemaker": "Bryant tells it too, and that telling is in the test part",
}
GRIMM = 54  # of the corpus "tales"; the rest is Andersen's
LONGEST = 15_000  # characters: longer stories are only trained on, or one would outweigh the rest
# How often a story of each book is seen for one reading of the novels. The three books told to
# small children are what the model shall sound like, and they are small.
REPEATS = {
    "burgess-busterbrown": 4,
    "edgeworth-parents": 2,
    "carroll-alice": 3,
    "bryant-stories": 4,
}


@dataclass(frozen=True)
class Story:
    """One story or chapter."""

    book: str
    title: str
    text: str  # cleaned: without the title, in double quotation marks


def clean(text: str) -> str:
    """Straight double quotation marks for speech ('So!' becomes "So!"), apostrophes kept."""
    text = re.sub(r"(?<![\w.,!?;:)'])'(?=[\w\"-])", '"', text)
    return re.sub(r"(?<=[^\s'\"])'(?!\w)", '"', text)


def stories() -> list[Story]:
    """All stories of the four books in order, without those of `LEFT_OUT`."""
    found = []
    for book in REPEATS:
        for document in corpora.documents(f"gutenberg/{book}"):
            title, text = document.split("\n\n", 1)
            if title not in LEFT_OUT:  # only Alice puts speech in single quotation marks
                found.append(Story(book, title, clean(text) if "alice" in book else text))
    return found


def split(found: Sequence[Story]) -> tuple[list[Story], list[Story]]:
    """(train, held out): every tenth story is held out, as `python -m gptlib train` does.

    Whole stories, because windows of one story share its names, places and refrains.
    """
    held_out = [story for i, story in enumerate(found) if i % HELD_OUT == HELD_OUT - 1]
    return [story for i, story in enumerate(found) if i % HELD_OUT != HELD_OUT - 1], held_out


@dataclass(frozen=True)
class Parts:
    """The tales of case 1: what is learned, what chooses settings, what judges at the end."""

    train: list[Story]
    validation: list[Story]
    test: list[Story]


def tales() -> list[Story]:
    """The stories of the four books, then the tales of Grimm and Andersen without `LEFT_OUT`."""
    found = []
    for i, document in enumerate(corpora.documents("tales")):
        title, text = document.split("\n\n", 1)
        if title not in LEFT_OUT:
            found.append(Story("grimm" if i < GRIMM else "andersen", title, text))
    return stories() + found


def parts(found: Sequence[Story]) -> Parts:
    """Split `tales()` in three by whole stories; only those up to `LONGEST` are held out.

    Every tenth of these judges (the test part); every tenth of Grimm's, and what `split` holds
    out, validates. What `split` holds out and is too long is not used at all, because earlier
    chapters judge with it. No story of a held-out part makes up a fifth of it.
    """
    kept_away = split(stories())[1]
    validation = [story for story in kept_away if len(story.text) <= LONGEST]
    rest = [story for story in found if story not in kept_away]
    short = [story for story in rest if len(story.text) <= LONGEST]
    test = short[HELD_OUT // 2::HELD_OUT]
    validation += [story for story in short[HELD_OUT - 2::HELD_OUT] if story.book == "grimm"]
    held_out = {*validation, *test}
    return Parts([story for story in rest if story not in held_out], validation, test)


def short_tales(found: Sequence[Story]) -> list[Story]:
    """What a pretrained model adapts to: all but Edgeworth's long moral tales."""
    return [story for story in found if story.book != "edgeworth-parents"]


def novels() -> list[str]:
    """The chapters of five novels without their headings: more English to learn from."""
    return [document.split("\n\n", 1)[1] for document in corpora.documents("prose")]


def mixture(train: Sequence[Story]) -> list[str]:
    """What is read besides the stories themselves: their repetitions, then the novels."""
    repeated = [story.text for turn in range(1, max(REPEATS.values()))
                for story in train if turn < REPEATS[story.book]]
    return repeated + novels()


def write(folder: Path) -> None:
    """Write the four files, with <|endoftext|> between the documents.

    The pretrained model knows English: of the train part it reads the `short_tales`. The test part
    is in no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found, case = stories(), parts(tales())
    files = {"stories.txt": [story.text for story in found],
             "mixture.txt": mixture(split(found)[0]),
             "tales.txt": [story.text for story in short_tales(case.train)],
             "validation.txt": [story.text for story in case.validation]}
    for name, texts in files.items():
        corpora.write_documents(folder / name, texts)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("expected one folder: python -m gptlib.text.stories runs/stories-data")
    write(Path(sys.argv[1]))
    print(f"written to {sys.argv[1]}: stories.txt, mixture.txt, tales.txt and validation.txt")
