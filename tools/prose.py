"""Looks for words and phrases that the house avoids, in every text of the book.

    python tools/prose.py [FILE ...]        a line for each, with what to say instead; exit code 1

The list is `tools/avoided.txt`; CONTRIBUTING.md, "Style of the house", says why. Code, formulas, addresses and quotations in the
form `"..."` within a line of a table are not looked at.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tools/avoided.txt"
SKIPPED = re.compile(
    r"^(```|~~~)(?!\{).*?^\1\s*$|\$\$.*?\$\$|\$[^$\n]+\$|(?<!`)``(?!`)[^\n]*?(?<!`)``(?!`)|(?<!`)`(?!`)[^`\n]*`|https?://\S+|\]\([^)\s]*\)|<!--.*?-->|\(eq-[\w-]+\)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Avoided:
    """A pattern, and what to say instead."""

    pattern: re.Pattern
    instead: str


def avoided(path: Path = LIST) -> list[Avoided]:
    """The list. Raises ValueError for a line without a way out."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        pattern, _, instead = line.partition("\t")
        if not instead.strip():
            raise ValueError(
                f"{path.name}, line {number}: a pattern, a tab and what to say instead, got {line!r}"
            )
        found.append(Avoided(re.compile(pattern, re.IGNORECASE), instead.strip()))
    return found


def texts(root: Path = ROOT) -> list[Path]:
    """Everything that readers read as prose, CONTRIBUTING's examples of what to avoid left out."""
    pages = [*(root / "book").glob("*.md"), *(root / "book").glob("*.ipynb"), root / "README.md"]
    return sorted(pages)


def prose(path: Path) -> list[tuple[str, str]]:
    """Pairs of a place and its text: the cells of a notebook, or the whole of a page."""
    if path.suffix != ".ipynb":
        return [(path.name, path.read_text(encoding="utf-8"))]
    cells = nbformat.read(path, 4).cells
    written = [
        (f"{path.name}, cell {cell.id}", cell.source) for cell in cells if cell.cell_type == "markdown"
    ]
    captions = []
    for cell in cells:
        told = cell.metadata.get("mystnb", {})
        for text in (told.get("figure", {}).get("caption"), told.get("image", {}).get("alt")):
            if text:
                captions.append((f"{path.name}, caption of {cell.id}", text))
    return written + captions


def faults(text: str, words: Iterable[Avoided]) -> list[tuple[str, str]]:
    """Pairs of what stands there, with its neighbours, and what to say instead."""
    plain = SKIPPED.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
    found = []
    for each in words:
        for match in each.pattern.finditer(plain):
            around = text[max(match.start() - 25, 0) : match.end() + 25]
            found.append((" ".join(around.split()), each.instead))
    return found


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    words, wrong = avoided(), 0
    for path in parser.parse_args(arguments).files or texts():
        for place, text in prose(path):
            for stands, instead in faults(text, words):
                print(f"{place}: “{stands}” → {instead}")
                wrong += 1
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
