"""Chapters as plain notebooks, which JupyterLab and Colab show without an extension as the pages of the book show them.

    python tools/plain.py colab FOLDER [book/NAME.ipynb ...]      as the branch `colab` has them; all without names
    python tools/plain.py download FOLDER [book/NAME.ipynb ...]   as a page offers them

The notebooks in book/ are the source, in MyST. In a copy, folded text becomes <details>, a reference the number that
the page prints, a citation a link to the paper, and code that the page folds is folded. Code stays as it is; in
Colab a folded cell needs a line of its own at the top, `#@title`. What this does not know it names, and stops.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import address
import chapters
import citations
import nbformat
import numbering
import reading
from markdown_it.token import Token
from nbformat import NotebookNode
from numbering import MARKDOWN, Book, Directive, Label, Page

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("lab", "colab", "download")
SITE_ONLY = ("index", "ledger", "reference")
"""Pages that only the build can make."""

ADMONITIONS = ("admonition", "note", "tip", "hint", "important", "warning", "caution", "seealso", "attention")
WRAPPERS = ("div", "live-model")
"""Directives of which a notebook shows what they hold."""
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
OUTPUT_FOLDED = {"hide-output", "hide-cell", "remove-cell"}

INLINE = re.compile(
    rf"""(?P<as_is>\\.|<!--.*?-->|<[^>\s][^>]*>)
    |\{{(?P<role>[a-zA-Z][\w:+.-]*)\}}(?P<ticks>`+)(?P<content>.+?)(?<!`)(?P=ticks)(?!`)
    |(?P<code>(?P<fence>`+)(?!`).+?(?<!`)(?P=fence)(?!`))
    |(?P<math>\$\$(?:\\.|[^$\\])+\$\$|\$(?:\\.|[^$\\])+\$)
    |(?P<image>!?)\[(?P<words>(?:\\.|`[^`]*`|\$[^$]*\$|\[[^\]]*\]|[^\[\]])*)\]\((?P<target>[^\s()]*(?:\([^()]*\))?[^\s()]*)(?P<rest>[^)]*)\)
    |(?<=[\])`])(?P<attributes>\{{(?:[.\#:]|\w+=)[^}}\n]*\}})
    |(?P<mention>{numbering.MENTION.pattern})""",
    re.VERBOSE | re.DOTALL,
)


class PlainError(ValueError):
    """Something in a chapter that no plain notebook can show."""


@dataclass(frozen=True)
class Place:
    """Where the copies will lie, which decides where links lead. kind: one of PLACES."""

    kind: str
    address: address.Address

    def link(self, page: Page, anchor: str = "", heading: str = "") -> str:
        """To a page, or to a place on it: its anchor on the site, and the heading there, if there is one."""
        if self.kind == "lab" and page.name not in SITE_ONLY:
            # JupyterLab names a heading by its text
            fragment = heading.replace(" ", "-") if re.fullmatch(r"[\w ,.:;?'-]*", heading) else ""
            return page.path.name + (f"#{fragment}" if fragment else "")
        if self.kind == "colab" and page.is_notebook and not anchor:
            return f"https://colab.research.google.com/github/{self.address.slug}/blob/colab/book/{page.path.name}"
        return f"{self.address.pages}book/{page.name}.html" + (f"#{anchor}" if anchor else "")

    def file(self, path: str) -> str:
        """The address of a picture in book/."""
        if self.kind == "lab":
            return path
        return f"https://raw.githubusercontent.com/{self.address.slug}/main/book/{path}"


class Plain:
    """Makes the copies for one place. Raises PlainError for what it does not know."""

    def __init__(self, kind: str, root: Path = ROOT, repository: address.Address | None = None):
        self.book = Book(root)
        self.place = Place(kind, repository or address.current(root))

    @cached_property
    def citations(self) -> dict[str, citations.Citation]:
        return citations.read(self.book.root / "book" / "references.bib")

    def notebook(self, page: Page) -> NotebookNode:
        """The copy of a chapter."""
        nb = chapters.read(page.path)
        writer = _Writer(self, page, deeper_minutes(nb))
        nb.metadata.pop(chapters.STAMP, None)
        nb.cells = [made for cell in nb.cells for made in writer.cell(cell)]
        nbformat.validate(nb)
        return nb

    def text(self, page: Page) -> str:
        """The copy of a page without code."""
        return _Writer(self, page, []).text(page.path.read_text(encoding="utf-8"))

    def bytes_of(self, page: Page) -> bytes:
        made = chapters.dumps(self.notebook(page)) if page.is_notebook else f"{self.text(page)}\n"
        return made.encode()


def deeper_minutes(nb: NotebookNode) -> list[int]:
    """How long each section whose heading begins with "Deeper:" takes, in their order."""
    found: list[tuple[int, list[float]]] = []
    for section in reading.sections(nb):
        if section.title.startswith(reading.DEEPER):
            found.append((section.level, []))
        elif section.level <= (found[-1][0] if found else 0):
            found.append((7, []))  # none is so deep: what follows belongs to no Deeper section
        if found:
            found[-1][1].append(section.minutes)
    return [max(1, round(sum(minutes))) for level, minutes in found if level < 7]


class _Writer:
    """Writes one page. It goes through the cells in their order: a solution may begin in one and end in another."""

    def __init__(self, plain: Plain, page: Page, minutes: list[int]):
        self.plain, self.book, self.place, self.page = plain, plain.book, plain.place, page
        self.minutes = iter(minutes)
        self.where = "its text"
        self.solution = ""
        """The title of the solution that is open."""
        self.continued = False

    def wrong(self, what: str) -> PlainError:
        return PlainError(f"{self.page.path.name}, {self.where}: {what}")

    # Cells

    def cell(self, cell: NotebookNode) -> Iterator[NotebookNode]:
        """What becomes of a cell: itself changed, nothing, or itself and the caption of its figure."""
        self.where = f"cell {cell.id}"
        caption = self._caption(cell)
        if cell.cell_type == "code":
            self._fold(cell, f"Code of {caption[0]}" if caption else "Code")
        elif cell.cell_type == "markdown":
            cell.source = self.text(cell.source)
        cell.metadata.pop("mystnb", None)
        if cell.source:
            yield cell
        if caption:
            text = f"**{caption[0]}.** {caption[1]}"
            yield nbformat.v4.new_markdown_cell(text, id=f"{cell.id[:56]}-caption")

    def _caption(self, cell: NotebookNode) -> tuple[str, str] | None:
        """The number of the figure that a cell draws, and what stands below it."""
        if name := numbering.figure_name(cell):
            return self._label(name).printed, self.inline(cell.metadata.mystnb.figure.get("caption", ""))
        return None

    def _fold(self, cell: NotebookNode, title: str) -> None:
        tags = set(cell.metadata.get("tags", []))
        if "remove-output" in tags:
            cell.outputs, cell.execution_count = [], None
        if self.solution or tags & OUTPUT_FOLDED:
            cell.metadata["collapsed"] = True
            cell.metadata.setdefault("jupyter", {})["outputs_hidden"] = True
        if self.solution or tags & FOLDED:
            cell.metadata.setdefault("jupyter", {})["source_hidden"] = True
            cell.metadata["cellView"] = "form"
            if self.place.kind != "lab" and not cell.source.startswith("%%"):
                cell.source = f"#@title {self.solution or title}\n{cell.source}"

    def text(self, source: str) -> str:
        """A text; what of it lies between the start and the end of a solution is folded."""
        made = []
        for piece in self._pieces(source):
            if isinstance(piece, Directive):
                starts = piece.name == "solution-start"
                self.solution = self._solution_of(piece) if starts else ""
                self.continued = False
            elif written := self._blocks(piece):
                if self.solution:
                    written = _details(self._summary(self.solution), written, self.continued)
                    self.continued = True
                made.append(written)
        return "\n\n".join(made)

    def _pieces(self, source: str) -> Iterator[str | Directive]:
        """A text, cut where a solution starts or ends."""
        lines, position = source.split("\n"), 0
        for token in MARKDOWN.parse(source):
            part = numbering.directive(token)
            if part and part.name in ("solution-start", "solution-end"):
                yield "\n".join(lines[position : token.map[0]])
                yield part
                position = token.map[1]
        yield "\n".join(lines[position:])

    def _solution_of(self, part: Directive) -> str:
        exercise = self._label(part.argument)
        return f"Solution to {exercise.printed}" + (f" ({exercise.title})" if exercise.title else "")

    # Blocks

    def _blocks(self, source: str) -> str:
        lines, made, position = source.split("\n"), [], 0
        tokens = MARKDOWN.parse(source)
        for before, token in zip([None, *tokens], tokens, strict=False):
            if not token.map or token.map[0] < position:
                continue
            first, last = token.map
            if token.type == "inline":
                text = "\n".join(lines[first:last])
                is_heading = before.type == "heading_open"
                written = self._heading(text) if is_heading else self.inline(text)
            elif (block := self._block(token)) is not None:
                indent = re.match(r"[ \t>]*", lines[first])[0]
                written = "\n".join(f"{indent}{line}".rstrip() for line in f"\n{block}\n".split("\n"))
            else:
                continue
            made += [*lines[position:first], written]
            position = last
        return re.sub(r"\n{3,}", "\n\n", "\n".join([*made, *lines[position:]])).strip("\n")

    def _heading(self, text: str) -> str:
        text = self.inline(text, mentions=False)
        if re.match(r"#+ *" + reading.DEEPER, text):
            return f"{text}\n\n*Off the core path, about {next(self.minutes)} min*\n"
        return re.sub(r"^# +", f"# {self.page.number}{numbering.SPACE}", text) if self.page.number else text

    def _block(self, token: Token) -> str | None:
        """What becomes of a block; None for one that stays as it is."""
        if token.type in ("math_block", "math_block_label"):
            return self._formula(token.content, token.info if token.type == "math_block_label" else "")
        if token.type == "amsmath":
            raise self.wrong("a formula stands between \\begin and \\end: put it between $$ and $$")
        if token.type in ("myst_target", "myst_line_comment", "myst_block_break"):
            return ""
        part = numbering.directive(token)
        return self._directive(part) if part else None

    def _formula(self, tex: str, label: str = "") -> str:
        # In one line: where text is read before formulas, a line that begins with + or = would be a list or a heading.
        tag = f" \\tag{{{self._label(label).number}}}" if label else ""
        return f"$$ {' '.join(tex.split())}{tag} $$"

    def _directive(self, part: Directive) -> str:
        if part.name == "math":
            return self._formula(part.body, part.options.get("label", ""))
        if part.name in ADMONITIONS:
            title = part.argument if part.name == "admonition" else part.name.capitalize()
            body = part.body if part.name == "admonition" else f"{part.argument}\n{part.body}"
            fold = _details if "dropdown" in part.classes else _quote
            title = self._summary(title) if fold is _details else self.inline(title, mentions=False)
            return fold(title, self._blocks(body))
        if part.name == "exercise":
            number = self._label(part.options["label"]).printed if "label" in part.options else "Exercise"
            title = f" ({self.inline(part.argument, mentions=False)})" if part.argument else ""
            return _quote(f"{number}{title}", self._blocks(part.body))
        if part.name == "solution":
            return _details(self._summary(self._solution_of(part)), self._blocks(part.body))
        if part.name == "figure":
            number = f"**{self._label(part.options['name']).printed}.** " if "name" in part.options else ""
            picture = f"![{part.options.get('alt', '')}]({self.place.file(part.argument)})"
            return f"{picture}\n\n{number}{self._blocks(part.body)}".strip()
        if part.name in WRAPPERS:
            return self._blocks(part.body)
        if part.name == "glossary":
            return self._blocks(re.sub(r"^(\S.*)\n +", r"**\1.** ", part.body, flags=re.MULTILINE))
        if part.name == "code-block":
            return f"```{part.argument}\n{part.body}\n```"
        if part.name == "literalinclude":
            file = self.page.path.parent / part.argument
            return f"```{part.options.get('language', '')}\n{file.read_text(encoding='utf-8').strip()}\n```"
        if part.name == "bibliography":
            return "\n".join(f"- {each.text}" for each in self.plain.citations.values())
        raise self.wrong(f"nothing is known of a directive {{{part.name}}}")

    def _summary(self, title: str) -> str:
        """A title as HTML, in which formulas are found all the same."""
        plain = html.escape(self.inline(title, mentions=False, links=False), quote=False)
        return re.sub(r"`([^`]+)`", r"<code>\1</code>", plain)

    # Within a paragraph

    def inline(self, text: str, mentions: bool = True, links: bool = True) -> str:
        """mentions: whether "chapter 9" becomes a link; links: whether anything may."""

        def write(found: re.Match) -> str:
            if found["role"]:
                return self._role(found["role"], found["content"].strip(), links)
            if found["target"] is not None:
                words = self.inline(found["words"], mentions=False, links=False)
                return self._link(found, words) if links else words
            if found["attributes"]:
                return ""
            if found["mention"] and mentions and links:
                return self._mention(found["mention"])
            return found[0]

        return INLINE.sub(write, text)

    def _mention(self, text: str) -> str:
        for start, end, number in reversed(numbering.mentions(text)):
            page = self.book.chapters.get(number)
            if page and page != self.page:
                text = f"{text[:start]}[{text[start:end]}]({self.place.link(page)}){text[end:]}"
        return text

    def _link(self, found: re.Match, words: str) -> str:
        target, rest = found["target"], found["rest"]
        if re.match(r"[a-z]+:", target):
            return f"{found['image']}[{words}]({target}{rest})"
        if found["image"]:
            return f"![{words}]({self.place.file(target)}{rest})"
        file, _, anchor = target.partition("#")
        if not file or file in self.book.labels:
            return self._refer(self._label(anchor or file), words)
        page = self.book.pages.get(Path(file).stem)
        if not page:
            raise self.wrong(f"a link leads to {target}, which is no page of the book")
        if anchor:
            return self._refer(self._label(anchor), words)
        return f"[{words or page.heading}]({self.place.link(page)})"

    def _role(self, name: str, content: str, links: bool) -> str:
        given = re.fullmatch(r"(.+?)\s*<([^<>]+)>", content, re.DOTALL)
        words, target = (given[1], given[2]) if given else ("", content)
        if name in ("eq", "numref", "ref", "prf:ref"):
            label = self._label(target)
            words = words.replace("%s", label.number).replace("{number}", label.number)
            return self._refer(label, words) if links else words or label.printed
        if name == "doc":
            page = self.book.pages.get(Path(target).stem)
            if not page:
                raise self.wrong(f"{{doc}} names {target}, which is no page of the book")
            words = words or page.heading
            return f"[{words}]({self.place.link(page)})" if links else words
        if name in ("cite:t", "cite:p", "cite"):
            return self._cite([key.strip() for key in content.split(",")], name == "cite:t", links)
        if name.startswith("py:"):
            call = "()" if name in ("py:func", "py:meth") else ""
            words = f"`{words or target.removeprefix('~')}{call}`"
            link = self.place.link(self.book.pages["reference"], target.removeprefix("~"))
            return f"[{words}]({link})" if links else words
        if name == "math":
            return f"${content}$"
        if name in ("download", "term", "abbr", "kbd"):
            return words or (f"`{target}`" if name in ("download", "kbd") else target)
        raise self.wrong(f"nothing is known of a role {{{name}}}")

    def _label(self, name: str) -> Label:
        if name not in self.book.labels:
            raise self.wrong(f"nothing in the book has the label {name}")
        return self.book.labels[name]

    def _refer(self, label: Label, words: str) -> str:
        """What is counted on this page is near enough to do without a link."""
        words = words or label.printed
        page = self.book.pages[label.page]
        if page == self.page and label.kind != "heading":
            return words
        heading = label.title if label.kind == "heading" else ""
        return f"[{words}]({self.place.link(page, label.anchor, heading)})"

    def _cite(self, keys: list[str], in_text: bool, links: bool) -> str:
        known = self.plain.citations
        if missing := [key for key in keys if key not in known]:
            raise self.wrong(f"references.bib has no {', '.join(missing)}")
        made = []
        for entry in (entry for key, entry in known.items() if key in keys):
            words = f"{entry.who} ({entry.year})" if in_text else f"{entry.who}, {entry.year}"
            made.append(f"[{words}]({entry.url})" if entry.url and links else words)
        return ", ".join(made) if in_text else f"({'; '.join(made)})"


def _details(title: str, body: str, continued: bool = False) -> str:
    title += ", continued" if continued else ""
    return f"<details>\n<summary><b>{title}</b></summary>\n\n{body}\n\n</details>"


def _quote(title: str, body: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in f"**{title}**\n\n{body}".split("\n"))


def write(notebooks: list[Path], kind: str, folder: Path, root: Path = ROOT) -> list[Path]:
    """Writes the copies of these notebooks into a folder; the files. Raises PlainError."""
    plain = Plain(kind, root)
    pages = {page.path: page for page in plain.book.pages.values() if page.is_notebook}
    if unknown := [str(path) for path in notebooks if path not in pages]:
        raise PlainError(f"no notebook of the book: {', '.join(unknown)}")
    folder.mkdir(parents=True, exist_ok=True)
    for path in notebooks:
        (folder / path.name).write_bytes(plain.bytes_of(pages[path]))
    return [folder / path.name for path in notebooks]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("place", choices=PLACES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("chapters", nargs="*", type=Path, help="notebooks; all of book/ without names")
    arguments = parser.parse_args(argv)
    paths = arguments.chapters or sorted((ROOT / "book").glob("*.ipynb"))
    try:
        write([path.resolve() for path in paths], arguments.place, arguments.folder)
    except PlainError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
