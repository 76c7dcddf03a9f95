"""What the book counts: chapters, appendices, and within them equations, figures and exercises.

    python tools/numbering.py        a line for each label: how it is printed, and where it stands

A chapter's number goes on from part to part; an appendix has a letter. The pages get their numbers from Sphinx; this
counts the same without a build, for the notebooks that readers open, and tests hold the two together.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase

import nbformat
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_blocks import myst_block_plugin
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
SPACE = "\u2002"
"""Between the number of a page and its title."""
PRINTED = {"equation": "({})", "figure": "Figure {}", "exercise": "Exercise {}"}
# What a directive holds is text, unless it is one of these.
NO_TEXT = ("math", "code", "code-block", "raw", "eval-rst", "literalinclude", "include", "bibliography")

_NUMBER = r"\s+\d\d?\b(?!\s+min\b)"
MENTION = re.compile(
    rf"\b(?:[Cc]hapter{_NUMBER}|[Cc]hapters{_NUMBER}(?:,{_NUMBER})*(?:,?\s+(?:and|or|to){_NUMBER})?)"
)
"""How a text names chapters: "chapter 9", "chapters 3 and 4", "chapters 1, 2 and 7", "chapters 6 to 10"; "whole chapter 90 min" names none."""

MARKDOWN = MarkdownIt("commonmark").enable("table")
for plugin in (dollarmath_plugin, amsmath_plugin, colon_fence_plugin, myst_block_plugin):
    MARKDOWN.use(plugin)


@dataclass(frozen=True)
class Page:
    """A chapter, an appendix or another page. number: as it is printed, "9" or "B", or ""."""

    path: Path
    number: str
    title: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def is_notebook(self) -> bool:
        return self.path.suffix == ".ipynb"

    @property
    def heading(self) -> str:
        return f"{self.number}{SPACE}{self.title}" if self.number else self.title


@dataclass(frozen=True)
class Label:
    """Something that a text can refer to. kind: a key of PRINTED, or "heading"."""

    name: str
    kind: str
    page: str
    number: str
    title: str = ""

    @property
    def printed(self) -> str:
        return PRINTED[self.kind].format(self.number) if self.kind in PRINTED else self.title

    @property
    def anchor(self) -> str:
        """Its place on the page of the site."""
        return f"equation-{self.name}" if self.kind == "equation" else self.name


@dataclass(frozen=True)
class Directive:
    """MyST's ```{name} argument, with its options and its text."""

    name: str
    argument: str
    options: dict[str, str] = field(hash=False)
    body: str

    @property
    def classes(self) -> list[str]:
        return self.options.get("class", "").split()


def directive(token: Token) -> Directive | None:
    """The directive that a token is, if it is one."""
    found = re.match(r"\{([\w:+-]+)\}\s*(.*)", token.info) if token.type in ("fence", "colon_fence") else None
    if not found:
        return None
    lines, options = token.content.split("\n"), {}
    while lines and (option := re.match(r":([\w-]+):\s*(.*)", lines[0])):
        options[option[1]] = option[2].strip()
        lines.pop(0)
    return Directive(found[1], found[2].strip(), options, "\n".join(lines).strip("\n"))


class Book:
    """The pages that _toc.yml lists, and what is numbered on them."""

    def __init__(self, root: Path = ROOT):
        self.root = root
        self.pages = {page.name: page for page in _pages(root)}

    @cached_property
    def chapters(self) -> dict[int, Page]:
        return {int(page.number): page for page in self.pages.values() if page.number.isdigit()}

    @cached_property
    def labels(self) -> dict[str, Label]:
        """Every label of the book. Raises ValueError for one that stands twice."""
        found: dict[str, Label] = {}
        count = Counter()
        for page in self.pages.values():
            for kind, name, title in _labels(page.path):
                count[page.number, kind] += 1
                if name in found:
                    raise ValueError(f"{page.path.name}: the label {name} stands on {found[name].page} too")
                number = ".".join(filter(None, [page.number, str(count[page.number, kind])]))
                found[name] = Label(name, kind, page.name, number, title)
        return found


def _pages(root: Path) -> Iterator[Page]:
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    count = Counter()
    for part in [{"chapters": [{"file": toc["root"]}]}, *toc["parts"]]:
        style = part.get("style", "numerical") if part.get("numbered") else ""
        for entry in part["chapters"]:
            count[style] += 1
            number = {"numerical": str(count[style]), "alphaupper": ascii_uppercase[count[style] - 1]}
            path = next(root.glob(f"{entry['file']}.*"), None)
            if not path:
                raise FileNotFoundError(f"_toc.yml lists {entry['file']}, and there is no such page")
            yield Page(path, number.get(style, ""), _title(path))


def _title(path: Path) -> str:
    text = next(iter(_texts(path)))
    return re.search(r"^# +(.+?)\s*$", text, re.MULTILINE)[1]


def _texts(path: Path) -> Iterator[str]:
    if path.suffix == ".md":
        yield path.read_text(encoding="utf-8")
    else:
        cells = nbformat.read(path, 4).cells
        yield from (cell.source for cell in cells if cell.cell_type == "markdown")


def _labels(path: Path) -> Iterator[tuple[str, str, str]]:
    """Kind, label and title of all that is counted on a page, and of its headings with a label, in their order."""
    if path.suffix == ".md":
        yield from _labels_of_text(path.read_text(encoding="utf-8"))
        return
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            yield from _labels_of_text(cell.source)
        elif name := figure_name(cell):
            yield "figure", name, ""


def _labels_of_text(text: str) -> Iterator[tuple[str, str, str]]:
    tokens = MARKDOWN.parse(text)
    for place, token in enumerate(tokens):
        part = directive(token)
        if token.type == "math_block_label":
            yield "equation", token.info, ""
        elif token.type == "myst_target":
            below = tokens[place + 1 : place + 3]
            is_heading = below and below[0].type == "heading_open"
            yield "heading", token.content, below[1].content if is_heading else ""
        elif part and part.name == "math" and "label" in part.options:
            yield "equation", part.options["label"], ""
        elif part and part.name == "figure" and "name" in part.options:
            yield "figure", part.options["name"], ""
        elif part and part.name == "exercise" and "label" in part.options:
            yield "exercise", part.options["label"], part.argument
        if part and part.name not in NO_TEXT:
            yield from _labels_of_text(part.body)


def mentions(text: str) -> list[tuple[int, int, int]]:
    """Where a text names chapters: the start, the end and the number. The first of several takes the word with it."""
    return [
        (mention.start() + piece.start(), mention.start() + piece.end(), int(piece[1]))
        for mention in MENTION.finditer(text)
        for piece in re.finditer(r"(?:[Cc]hapters?\s+)?(\d+)", mention[0])
    ]


def figure_name(cell: NotebookNode) -> str:
    """The label of the figure that a cell makes on the page, or ""."""
    figure = cell.metadata.get("mystnb", {}).get("figure", {})
    tags = {"remove-cell", "remove-output"} & set(cell.metadata.get("tags", []))
    drawn = any(
        key.startswith("image/") and "text/html" not in output.get("data", {})
        for output in cell.get("outputs", [])
        for key in output.get("data", {})
    )
    return figure.get("name", "") if drawn and not tags else ""


def main() -> int:
    for name, label in Book().labels.items():
        print(f"{label.page:<46} {label.printed:<16} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
