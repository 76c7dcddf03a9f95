"""Which test checks which numbered equation of the book.

    python tools/equations.py        a line for each equation; exit code 1 if one is not checked

An equation is numbered by a label: `$$ ... $$ (eq-name)`, or `:label: eq-name` in a `{math}` block. A test says
`@pytest.mark.equation("eq-name")`.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
LABEL = re.compile(r"\$\$\s*\((eq-[\w-]+)\)|^:label: (eq-[\w-]+)", re.MULTILINE)
REFERENCE = re.compile(r"\{eq\}`(eq-[\w-]+)`")


@dataclass(frozen=True)
class Check:
    """A test, where it stands, and the first line of it."""

    file: str
    name: str
    line: int


def labels(book: Path = ROOT / "book") -> dict[str, str]:
    """Label -> the page that it is on, in the order of the pages. Raises ValueError for one that is used twice."""
    found: dict[str, str] = {}
    for path in sorted([*book.glob("*.ipynb"), *book.glob("*.md")]):
        for label in map("".join, LABEL.findall(_text(path))):
            if label in found:
                raise ValueError(f"{label} is the label of two equations, in {found[label]} and {path.name}")
            found[label] = path.name
    return found


def _text(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, 4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def checks(tests: Path = ROOT / "tests") -> dict[str, list[Check]]:
    """Label -> the tests that say they check it."""
    found: dict[str, list[Check]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for label in _marked(node):
                    check = Check(path.relative_to(tests.parent).as_posix(), node.name, node.lineno)
                    found.setdefault(label, []).append(check)
    return found


def _marked(test: ast.FunctionDef) -> list[str]:
    calls = [mark for mark in test.decorator_list if isinstance(mark, ast.Call)]
    marks = [call for call in calls if ast.unparse(call.func) == "pytest.mark.equation"]
    return [argument.value for call in marks for argument in call.args if isinstance(argument, ast.Constant)]


def main() -> int:
    known, checked = labels(), checks()
    for label, page in known.items():
        names = ", ".join(f"{check.file}::{check.name}" for check in checked.get(label, []))
        print(f"{label:<24} {page:<36} {names or 'NOT CHECKED'}")
    return int(not known.keys() <= checked.keys())


if __name__ == "__main__":
    sys.exit(main())
