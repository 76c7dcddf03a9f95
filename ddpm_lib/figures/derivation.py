"""The derivation: equations one after another, each with its reason and a check by numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..plotting import COLOURS
from .common import Figure, assemble, draw_still, short
from .formulas import for_matplotlib, mark_new, mathml, prose

FORMULA, WORDS, NUMBERS = 0.53, 0.22, 0.22
"""Inches of the still picture that the parts of a line take, from above."""


@dataclass(frozen=True)
class Line:
    """One line of a derivation.

    tex: an equation in LaTeX, on one line, without dollars. words: why it follows from the line before; what
    stands in them between dollars is LaTeX too. left, right: its two sides at some numbers, computed in
    two ways, to be shown side by side; both or none. Raises ValueError for one of them alone, for inf and for nan.
    """

    tex: str
    words: str
    left: float | None = None
    right: float | None = None

    def __post_init__(self):
        if (self.left is None) != (self.right is None):
            raise ValueError(f"give both sides of {self.tex!r} or none")
        if self.left is not None and not (math.isfinite(self.left) and math.isfinite(self.right)):
            raise ValueError(f"the sides of {self.tex!r} must be finite, got {self.left} and {self.right}")


def derivation(
    steps: Sequence[Line],
    alt: str = "A derivation, line by line, each with its reason and a numeric check.",
    caption: str = "",
) -> Figure:
    """A derivation to walk through, one line after another, by buttons or arrow keys.

    steps: the lines. Where a line has its two sides as numbers, both are shown, with "agree", or with
    "DISAGREE" if they lie more than 1e-6 apart, relative to the larger. What is new in a line is coloured.
    The still picture shows all lines with their numbers. alt, caption: as in scrubber. Raises ValueError for LaTeX
    that cannot be converted.
    """
    if not steps:
        raise ValueError("a derivation needs at least one Line")
    formulas = mark_new([mathml(line.tex, "block") for line in steps])
    lines = [
        {"math": formula, "words": prose(line.words)}
        | ({} if line.left is None else {"left": short(line.left), "right": short(line.right)})
        for formula, line in zip(formulas, steps, strict=True)
    ]
    png = draw_still((7.2, sum(map(_height, steps)) + 0.15), _draw, steps)
    return assemble("derivation", {"lines": lines}, png, alt, caption, "fewer lines")


def _height(line: Line) -> float:
    return FORMULA + WORDS + (0 if line.left is None else NUMBERS)


def _draw(drawing, steps: Sequence[Line]) -> None:
    """All lines below each other, each with its words in grey and its two sides as numbers."""
    drawing.set_layout_engine("none")
    top = whole = drawing.get_figheight()
    for line in steps:
        words = top - FORMULA
        _write(drawing, f"${line.tex}$", (words + 0.05) / whole, 13, "black", "bottom")
        _write(drawing, line.words or " ", words / whole, 9, "#555555", "top")
        if line.left is not None:
            colour = COLOURS["prediction"] if _agree(line) else COLOURS["noise"]
            _write(drawing, _check(line), (words - WORDS) / whole, 9, colour, "top")
        top -= _height(line)


def _agree(line: Line) -> bool:
    """As the script decides it."""
    return abs(line.left - line.right) <= 1e-6 * max(abs(line.left), abs(line.right))


def _check(line: Line) -> str:
    """The two sides as the script writes them."""
    left, right = (f"{value:#.6g}".replace("-", "−") for value in (line.left, line.right))
    return f"left side {left}, right side {right}, {'agree ✓' if _agree(line) else 'DISAGREE ✗'}"


def _write(drawing, text: str, at: float, size: float, colour: str, side: str) -> None:
    """Text from the left margin, smaller than size if it is wider than the picture. side: of the text that lies at."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    text = for_matplotlib(text)
    try:
        width = MathTextParser("path").parse(text, dpi=72, prop=FontProperties(size=size))[0] / 72
    except ValueError:  # then its source, which needs no parser
        text, width = text.replace("$", ""), 0.007 * len(text) * size
    size *= min(1, 0.92 * drawing.get_figwidth() / width)
    drawing.text(0.02, at, text, fontsize=size, va=side, color=colour)
