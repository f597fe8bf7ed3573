"""The built pages in _build/html: no other server is asked, pictures speak, links lead on."""

import functools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
PAGES = sorted(path for path in SITE.rglob("*.html") if "_static" not in path.parts)
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src",
          "audio": "src", "embed": "src", "object": "data", "link": "href"}
NETWORKS = r"unpkg\.|jsdelivr|cdnjs|googleapis|gstatic|esm\.sh|polyfill|plausible|google-analytics"


class Page(HTMLParser):
    """The parts of a page that the tests ask for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.images: list[dict] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.prose, self.scripts = "", ""
        self.stack: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.stack.append(tag)
        self.names |= {values[key] for key in ("id", "name") if values.get(key)}
        if values.get(LOADED.get(tag, "")):
            self.loads.append(values[LOADED[tag]])
        if tag == "img":
            self.images.append(values)
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])

    def handle_endtag(self, tag: str) -> None:
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self.stack:
            self.scripts += data
        elif not {"pre", "code", "style"} & set(self.stack):
            self.prose += data


@functools.cache
def parse(path: Path) -> Page:
    return Page(path)


def identify(path: Path) -> str:
    return path.relative_to(SITE).as_posix()


every_page = pytest.mark.parametrize("path", PAGES, ids=identify)


def test_the_site_was_built_and_has_a_page_for_each_entry_of_the_contents():
    assert PAGES, "no site in _build/html: run `make book` first"
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [toc["root"]] + [c["file"] for part in toc["parts"] for c in part["chapters"]]
    missing = [file for file in files if not (SITE / f"{file}.html").exists()]
    assert not missing


@every_page
def test_opening_a_page_asks_no_other_server(path):
    page = parse(path)
    foreign = [address for address in page.loads if re.match(r"(https?:)?//", address)]
    assert not foreign, foreign
    assert not re.search(NETWORKS, page.scripts), "an inline script names another server"


@pytest.mark.parametrize("pattern", ["*.css", "*.js"])
def test_style_sheets_and_scripts_load_nothing_from_elsewhere(pattern):
    for path in SITE.rglob(pattern):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", text), path.name
        if "mathjax" not in path.parts:  # names a server for a menu entry, never by itself
            assert not re.search(rf"(src\s*=|import\()\s*['\"]https?://[^'\"]*({NETWORKS})", text)


@every_page
def test_every_file_that_a_page_loads_exists(path):
    for address in parse(path).loads:
        if not address.startswith("data:"):
            assert (path.parent / unquote(urlsplit(address).path)).exists(), address


@every_page
def test_every_picture_says_what_it_shows(path):
    for image in parse(path).images:
        alt = image.get("alt")
        assert alt and not re.search(r"[0-9a-f]{24,}", alt), image


@every_page
def test_links_inside_the_site_lead_to_a_page_and_a_place_on_it(path):
    for link in parse(path).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or link == "#":
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        assert target.exists(), f"{link} leads nowhere"
        if parts.fragment and target.suffix == ".html":
            assert unquote(parts.fragment) in parse(target).names, f"{link}: no such place"


@every_page
def test_no_directive_is_left_unread(path):
    left = re.findall(r":{3,}\{[\w-]+\}.*|\{(?:doc|term|cite:?p?|ref|numref)\}`.*|\{\{.*\}\}",
                      parse(path).prose)
    assert not left, left


@pytest.mark.parametrize("path", [p for p in PAGES if p.parent.name == "notebooks"], ids=identify)
def test_a_chapter_can_be_downloaded_and_launched(path):
    links = parse(path).links
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    place = config["repository"]["url"].removeprefix("https://github.com/")
    branch, name = config["repository"]["branch"], f"notebooks/{path.stem}.ipynb"
    assert f"../_sources/{name}" in links
    assert f"https://colab.research.google.com/github/{place}/blob/{branch}/{name}" in links
    assert f"https://mybinder.org/v2/gh/{place}/{branch}?urlpath=lab/tree/{name}" in links
    assert (ROOT / name).exists()


@every_page
def test_a_page_tells_its_language_and_holds_its_formulas_scripts_itself(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "index.html" and path.parent == SITE:  # the redirection to the first page
        return
    assert '<html lang="en"' in text
    if 'class="math' in text:
        assert any("mathjax/tex-chtml-full.js" in address for address in parse(path).loads)


def test_the_page_on_speed_says_yes_to_an_aim_that_was_met_and_no_to_one_that_was_missed():
    def fact(table: str, name: str) -> float:
        path = ROOT / "benchmarks" / "results" / f"{table}.json"
        return float(json.loads(path.read_text(encoding="utf-8"))["facts"][name])

    page = (SITE / "book" / "speed.html").read_text(encoding="utf-8")
    table = page.partition("<table")[2].partition("</table>")[0]
    cells = [re.sub(r"<[^>]+>", "", cell).strip()
             for cell in re.findall(r"<td[^>]*>(.*?)</td>", table, flags=re.DOTALL)]
    met = dict(zip(cells[::3], cells[2::3]))  # of the columns aim, measured, met
    yes = {True: "yes", False: "no"}
    assert {word for verdict in met.values() for word in verdict.split(", ")} <= {"yes", "no"}
    assert met["with n-gram tables in 1/25"] == (
        yes[fact("training", "with n-gram tables, times") >= 25])
    shares = [fact("pretrained", f"InferenceModel, {weights}, share")
              for weights in ("float32", "int4")]
    assert met["a pretrained model at 80 % of the memory’s limit"] == ", ".join(
        yes[share >= 80] for share in shares)
