"""How long a chapter takes to read: counted from its words, formulas, visible code, figures and exercises.

    python tools/reading.py [book/NAME.ipynb ...]         minutes, section by section
    python tools/reading.py write [book/NAME.ipynb ...]   write the line at the head of a chapter; without names also
                                                          the minutes on the map and in the plan for teachers
    python tools/reading.py check [book/NAME.ipynb ...]   say what is not as it should be; exit code 1

A section whose heading begins with "Deeper:" is off the core path, and so are the sections within it. A folded text is
read by those who want everything: it counts in the whole chapter. Folded code, the references and printed results count nowhere;
exercises are counted by their number, whatever they say. A core path that needs a Deeper section is reported: no
code of it may use a name that a Deeper section makes or changes.

The rates were chosen so that ten chapters came out near the time that careful readers took for them. A reader of your kind may be faster or slower.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]

WORDS_A_MINUTE = 130
LINES_A_MINUTE = 12
"""Lines of visible code, blank ones left out."""
MINUTES_A_FORMULA = 1.5
"""A displayed one; one within a sentence is read like a word."""
MINUTES_A_FIGURE = 1.0
MINUTES_AN_EXERCISE = 10.0
CORE_LIMIT = 45
PAGES = (ROOT / "book/for_teachers.md",)
"""Pages that say the minutes of chapters; the cards of the landing page count them when they are built."""
LONG = ("06", "07", "08", "09", "10")
"""Chapters of which the core path is not chosen yet: they say how long they are, and may be longer than the limit."""

HEAD = re.compile(r"^\*Core path (\d+) min · whole chapter (\d+) min · exercises (\d+) min\*$", re.MULTILINE)
DEEPER = "Deeper:"
MARKDOWN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, allow_labels=True)


@dataclass
class Section:
    """What one heading covers, down to the next heading of any level."""

    title: str
    level: int
    deeper: bool
    kind: str = "text"
    """text, exercises or references."""
    words: int = 0
    formulas: int = 0
    lines: int = 0
    figures: int = 0
    exercises: int = 0
    folded_words: int = 0
    folded_formulas: int = 0

    @property
    def minutes(self) -> float:
        """Without what is folded and without exercises."""
        return self._read(self.words, self.formulas) + (
            self.lines / LINES_A_MINUTE + self.figures * MINUTES_A_FIGURE
        )

    @property
    def folded_minutes(self) -> float:
        return self._read(self.folded_words, self.folded_formulas)

    @staticmethod
    def _read(words: int, formulas: int) -> float:
        return words / WORDS_A_MINUTE + formulas * MINUTES_A_FORMULA


@dataclass(frozen=True)
class Times:
    """Whole minutes."""

    core: int
    whole: int
    exercises: int

    def __str__(self) -> str:
        return (
            f"*Core path {self.core} min · whole chapter {self.whole} min · exercises {self.exercises} min*"
        )


def sections(nb: NotebookNode) -> list[Section]:
    """Every section of a chapter, in its order; the text before the first heading belongs to an empty title."""
    found = [Section("", 0, False)]
    solution = False
    for cell in nb.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            solution = _count_text(MARKDOWN.parse(cell.source), found, solution)
        elif cell.cell_type == "code" and "remove-cell" not in tags and not solution:
            here = found[-1]
            if here.kind != "text":
                continue
            if "hide-input" not in tags:
                here.lines += sum(bool(line.strip()) for line in cell.source.splitlines())
            here.figures += sum(_is_figure(output) for output in cell.outputs)
    return [each for each in found if each.title or each.minutes]


def _count_text(tokens: list[Token], found: list[Section], solution: bool) -> bool:
    """Adds what the tokens of a cell hold to the last section, or to new ones; whether a solution is open at the end."""
    for before, token in zip([None, *tokens], tokens, strict=False):
        here = found[-1]
        if token.type == "inline" and before is not None and before.type == "heading_open":
            found.append(_next_section(_plain(token), int(before.tag[1]), found))
        elif token.type == "fence" and token.info.startswith("{"):
            name = token.info[1:].split("}")[0]
            if name in ("solution-start", "solution-end"):
                solution = name == "solution-start"
            elif name == "exercise":
                here.exercises += 1
            elif not solution and here.kind == "text":
                _count_directive(token, here)
        elif not solution and here.kind == "text":
            if token.type == "inline":
                here.words += len(_plain(token).split())
            elif token.type.startswith("math_block"):
                here.formulas += 1
            elif token.type == "fence":
                here.lines += sum(bool(line.strip()) for line in token.content.splitlines())
    return solution


def _next_section(title: str, level: int, before: list[Section]) -> Section:
    parents: list[Section] = []
    for each in before:
        while parents and parents[-1].level >= each.level:
            parents.pop()
        parents.append(each)
    above = [each for each in parents if each.level < level]
    kinds = {"Exercises": "exercises", "References": "references"}
    kind = kinds.get(title, next((each.kind for each in above if each.kind != "text"), "text"))
    return Section(title, level, title.startswith(DEEPER) or any(each.deeper for each in above), kind)


def _count_directive(token: Token, here: Section) -> None:
    """An admonition or a figure written in the text. One with the class `dropdown` is folded."""
    options = re.findall(r"^:([\w-]+): *(.*)$", token.content, re.MULTILINE)
    body = re.sub(r"^:[\w-]+:.*$\n?", "", token.content, flags=re.MULTILINE)
    inside = Section("", 0, False)
    _count_text(MARKDOWN.parse(body), [inside], False)
    if token.info.startswith(("{figure}", "{image}")):
        here.figures += 1
    if "dropdown" in dict(options).get("class", ""):
        here.folded_words += inside.words
        here.folded_formulas += inside.formulas
    else:
        here.words += inside.words
        here.formulas += inside.formulas


def _plain(token: Token) -> str:
    """The text of a paragraph or heading as one reads it: a formula or a role is one word."""
    words = []
    for child in token.children or []:
        if child.type in ("text", "code_inline"):
            words.append(re.sub(r"\{[\w:]+\}$", "", child.content))
        elif child.type.startswith("math_inline"):
            words.append("x")
        elif child.type in ("softbreak", "hardbreak"):
            words.append(" ")
    return "".join(words)


def _is_figure(output: NotebookNode) -> bool:
    data = output.get("data", {})
    return "image/png" in data or "image/svg+xml" in data


def times(nb: NotebookNode) -> Times:
    """The three times of a chapter, in minutes."""
    parts = sections(nb)
    core = sum(part.minutes for part in parts if not part.deeper)
    whole = sum(part.minutes + part.folded_minutes for part in parts)
    exercises = sum(part.exercises for part in parts) * MINUTES_AN_EXERCISE
    return Times(round(core), round(whole), round(exercises))


def needs_deeper(nb: NotebookNode) -> list[str]:
    """Names that a cell of the core path takes from a Deeper section, each as a sentence."""
    said, owner, changed = [], {}, {}
    for title, deeper, cell in _code_by_section(nb):
        uses, makes = _names(cell.source)
        for name in sorted(uses):
            if not deeper and name in changed:
                said.append(f'cell {cell.id} uses `{name}`, which "{changed[name]}" makes or changes')
        for name in makes:
            if deeper:
                changed[name] = title
            else:
                owner[name] = title
                changed.pop(name, None)
    return said


def _code_by_section(nb: NotebookNode) -> Iterator[tuple[str, bool, NotebookNode]]:
    """The cells of code on the page, each with its heading and whether that is a Deeper one. Exercises are left out."""
    found = [Section("", 0, False)]
    solution = False
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            solution = _count_text(MARKDOWN.parse(cell.source), found, solution)
        elif cell.cell_type == "code" and not solution and found[-1].kind == "text":
            yield found[-1].title, found[-1].deeper, cell


def _names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell uses before it makes them, and names that it makes, at the top level."""
    python = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
    uses: set[str] = set()
    makes: set[str] = set()
    for statement in ast.parse(python).body:
        loads, stores = set(), set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                (loads if isinstance(node.ctx, ast.Load) else stores).add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                stores.add(node.name)
            elif isinstance(node, ast.alias):
                stores.add((node.asname or node.name).split(".")[0])
        local = _local_names(statement)
        uses |= loads - makes - local - (stores if isinstance(statement, ast.For | ast.With) else set())
        makes |= stores - local
    return uses, makes


def _local_names(statement: ast.stmt) -> set[str]:
    """Names that live within a function, a lambda or a comprehension of the statement, and nowhere else."""
    inner: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            inner |= {each.arg for each in [*every, arguments.vararg, arguments.kwarg] if each}
            if isinstance(node, ast.FunctionDef):
                within = (inside for each in node.body for inside in ast.walk(each))
                inner |= {
                    each.id
                    for each in within
                    if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
                }
        elif isinstance(node, ast.comprehension):
            inner |= {each.id for each in ast.walk(node.target) if isinstance(each, ast.Name)}
    return inner


def faults(nb: NotebookNode, limit: int | None = CORE_LIMIT) -> list[str]:
    """What is wrong with the times of a chapter and with its core path. limit: its minutes, None for a chapter of LONG."""
    said = needs_deeper(nb)
    counted = times(nb)
    head = HEAD.search(nb.cells[0].source)
    if not head:
        said.append(f"its first cell has no line of the form {counted}")
    elif str(counted) != head.group():
        said.append(
            f"its first cell says {head.group()}, counted are {counted}: run `tools/reading.py write`"
        )
    if limit is not None and counted.core > limit:
        said.append(f"the core path takes {counted.core} minutes, more than {limit}")
    return said


def limit_of(path: Path) -> int | None:
    return None if path.name[:2] in LONG else CORE_LIMIT


def chapters(book: Path = ROOT / "book") -> list[Path]:
    return sorted(book.glob("[0-9][0-9]_*.ipynb"))


def write(path: Path) -> bool:
    """Puts the counted times into the head of a chapter; whether the file changed. Raises ValueError if the line is missing."""
    text = path.read_text(encoding="utf-8")
    nb = nbformat.reads(text, 4)
    head = HEAD.search(nb.cells[0].source)
    if not head:
        raise ValueError(f"{path.name}: its first cell has no line of the form {Times(0, 0, 0)}")
    new = text.replace(head.group(), str(times(nb)), 1)
    if new != text:
        path.write_text(new, encoding="utf-8")
    return new != text


def page_with_times(text: str, core: dict[str, int]) -> str:
    """A page in which each line that links to chapters says the minutes of their core paths, in the order of the links.

    `core` has the minutes by the name of the chapter's file, without its ending. Only a line that already says minutes changes.
    """

    def line_with_times(line: str) -> str:
        linked = list(dict.fromkeys(re.findall(r"\b(\d\d_\w+)\.(?:ipynb|html)", line)))
        minutes = iter([core[name] for name in linked if name in core])
        return re.sub(r"\b\d+ min\b", lambda old: f"{next(minutes, old.group().split()[0])} min", line)

    return "\n".join(map(line_with_times, text.split("\n")))


def core_times() -> dict[str, int]:
    return {path.stem: times(nbformat.read(path, 4)).core for path in chapters()}


def show(path: Path) -> None:
    nb = nbformat.read(path, 4)
    print(f"{path.name}: {str(times(nb)).strip('*')}")
    print("  min  folded  words formulas lines figures")
    for part in sections(nb):
        if part.kind == "text":
            place = "  " * max(part.level - 1, 0) + part.title
            print(
                f"{part.minutes:5.1f} {part.folded_minutes:7.1f} {part.words:6d} {part.formulas:8d}"
                f" {part.lines:5d} {part.figures:7d}  {place}"
            )


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", metavar="write|check|NOTEBOOK")
    words = parser.parse_args(arguments).words
    what = words.pop(0) if words and words[0] in ("write", "check") else "show"
    wrong = 0
    if what == "write" and not words:
        for page in PAGES:
            page.write_text(page_with_times(page.read_text(encoding="utf-8"), core_times()), encoding="utf-8")
    for path in map(Path, words or chapters()):
        if what == "write":
            print(f"{path.name}: {'changed' if write(path) else 'as it was'}")
        elif what == "check":
            for fault in faults(nbformat.read(path, 4), limit_of(path)):
                print(f"{path.name}: {fault}")
                wrong = 1
        else:
            show(path)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
