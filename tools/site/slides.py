"""Slides for teaching, made by rule from the built pages of the book: chapters need no marks for it.

    python tools/site/slides.py book/07_training_on_mnist.ipynb ...   write _build/slides/NAME.html; all chapters without names

A section of a chapter is a column of slides. A heading begins a slide, and so does what does not fit below it any
more: the browser measures that. A slide shows the first sentence of a paragraph, more of them if that is short, and
all of one that leads to a formula; the whole of it is in the speaker's notes (press S). Left out are code that is
folded on the page, solutions, folded algebra, the set-up cell, the cells of the exercises, and the references. A
"predict first" is shown whole, and its answer comes on a slide of its own. Interactive figures work. The slides ask no
other host: reveal.js comes from a package, formulas, figures and pictures from the book.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[2]
HTML, SLIDES = ROOT / "_build" / "html", ROOT / "_build" / "slides"
PARTS = Path(__file__).with_name("slides")
REVEAL = ("dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js")

NOT_SHOWN = "a.headerlink, p.equation-check, p.deeper-note, div.solution, details.hide, .tag_hide-cell, .tag_remove-output .cell_output"
ANSWER = "Our answer"
# A first sentence with fewer letters than this says too little alone: "They agree."
ENOUGH = 40
_END = re.compile(r"[.?!][\"'”’)]*(?=\s)")
_ENDED = re.compile(r"[.?!][\"'”’)]*$")


def slides_of(page: str, name: str) -> str:
    """The slides of one built page, for the browser to lay out. Raises ValueError for a page without a chapter."""
    soup = BeautifulSoup(page, "html.parser")
    chapter = soup.select_one("article.bd-article section:has(> h1)")
    if chapter is None:
        raise ValueError(
            f"{name}: there is no chapter in it; name a chapter, and build the book first: make book"
        )
    for each in chapter.select(NOT_SHOWN):
        each.decompose()
    for each in chapter.select(".admonition.dropdown"):
        if each.select_one(".admonition-title").get_text(strip=True) != ANSWER:
            each.decompose()
    for each in chapter.select(".admonition section"):
        each.name = "div"  # to reveal.js a section is a slide
    chapter.select_one("div.cell").decompose()  # the set-up cell
    title = chapter.h1.get_text()
    sections = [
        each for each in chapter.find_all("section", recursive=False) if each.get("id") != "references"
    ]
    opening = [each for each in chapter.find_all(recursive=False) if each.name != "section"]
    columns = [_column(soup, opening), *(_column(soup, each.find_all(recursive=False)) for each in sections)]
    if len(first := columns[0].select(":scope > .block")) > 2:
        first[2]["data-begins"] = ""  # title and question stand alone
    kept = soup.head.select("link[rel=stylesheet][href*='pygments']")
    text = (PARTS / "page.html").read_text(encoding="utf-8")
    for mark, value in (
        ("title", title),
        ("head", "\n".join(map(str, kept))),
        ("columns", "\n".join(map(str, columns))),
    ):
        text = text.replace("{{" + mark + "}}", value)
    # _build/slides lies beside _build/html, whose chapters are in book/
    text = re.sub(r'((?:src|href|data-script)=")\.\./(?!html/)', r"\1../html/", text)
    return re.sub(r'(href=")(?=[\w-]+\.html)', r"\1../html/book/", text)


def _column(soup: BeautifulSoup, parts: list[Tag]) -> Tag:
    column = soup.new_tag("div", attrs={"class": "column"})
    exercises = bool(parts) and parts[0].get_text(strip=True) == "Exercises"
    for part in parts:
        for block in _blocks(part):
            if exercises and "cell" in part.get("class", []):
                continue
            column.append(_as_block(soup, block))
    return column


def _blocks(part: Tag) -> Iterator[Tag]:
    """What may stand on a slide of its own, from top to bottom."""
    classes = part.get("class", [])
    if part.name == "section" or "cell" in classes or "cell_output" in classes:
        for each in part.find_all(recursive=False):
            yield from _blocks(each)
    elif part.name in ("ul", "ol") and part.parent.name != "li":
        yield part
    elif part.name not in ("script", "span") or part.get_text(strip=True):
        yield part


def _as_block(soup: BeautifulSoup, part: Tag) -> Tag:
    """part: shortened to what a slide shows, with the whole of it as a note."""
    block = soup.new_tag("div", attrs={"class": "block"})
    classes = part.get("class", [])
    if part.name in ("h2", "h3", "h4") or {"exercise", "dropdown"} & set(classes):
        block["data-begins"] = ""
    if "dropdown" in classes:
        block["data-alone"] = ""
    if part.name == "p":
        if _leads(part):
            block["data-leads"] = ""
        if isinstance(first := next(part.children, None), str) and first[:1].islower():
            block["data-follows"] = ""
    if part.name in ("p", "ul", "ol"):
        note = soup.new_tag("div", attrs={"class": "note"})
        note.append(_copy(soup, part))
        block.append(note)
        asks = part.find_next_sibling(class_="dropdown")  # only answers are left of these
        for each in [part] if part.name == "p" else part.find_all("li", recursive=False):
            if not asks:
                _shorten(each.p if each.name == "li" and each.p else each)
    block.append(part.extract())
    return block


def _copy(soup: BeautifulSoup, part: Tag) -> Tag:
    copied = BeautifulSoup(str(part), "html.parser")
    for each in copied.select("[id]"):
        del each["id"]
    return copied


def _leads(paragraph: Tag) -> bool:
    """Whether its last sentence ends only in what follows: a formula, a list, code."""
    return not _ENDED.search(paragraph.get_text().strip())


def _shorten(paragraph: Tag) -> None:
    """Leaves the first sentence, and those after it until there is ENOUGH; all of what leads to something."""
    if _leads(paragraph):
        return
    said, ended = 0, False
    for node in list(paragraph.children):
        if ended:
            node.extract()
        elif isinstance(node, str):
            end = next((end.end() for end in _END.finditer(node) if said + end.end() >= ENOUGH), None)
            if ended := end is not None:
                node.replace_with(node[:end])
        said += len(node.get_text())


def write_slides(chapters: list[Path], html: Path = HTML, slides: Path = SLIDES) -> list[Path]:
    """Writes the slides of these chapters, and what all of them need; the files. Raises ValueError if the book is not built."""
    reveal = Path(
        importlib.util.find_spec("sphinx_revealjs").submodule_search_locations[0], "_static", "revealjs"
    )
    shared = slides / "_static"
    shared.mkdir(parents=True, exist_ok=True)
    for file in (*(reveal / name for name in REVEAL), PARTS / "slides.js", PARTS / "slides.css"):
        shutil.copy(file, shared)
    written = []
    for chapter in chapters:
        page = html / "book" / f"{chapter.stem}.html"
        if not page.is_file():
            raise ValueError(
                f"{page} is not there: build the book first (make book), and name a chapter of it"
            )
        written.append(slides / page.name)
        written[-1].write_text(slides_of(page.read_text(encoding="utf-8"), page.name), encoding="utf-8")
    return written


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("chapters", nargs="*", type=Path, help="notebooks; all of book/ without names")
    chapters = parser.parse_args(argv).chapters or sorted((ROOT / "book").glob("[0-9]*.ipynb"))
    try:
        written = write_slides(chapters)
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(map(str, written)))
    print("Open one in a browser. Arrow keys move, S shows the notes, ?print-pdf after the address prints.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
