"""The derivation: equations one after another, each with its reason and a check by numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .common import Figure, assemble, draw_still, short
from .formulas import for_matplotlib, mark_new, mathml, prose


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
    alt, caption: as in scrubber. Raises ValueError for LaTeX that cannot be converted.
    """
    if not steps:
        raise ValueError("a derivation needs at least one Line")
    formulas = mark_new([mathml(line.tex, "block") for line in steps])
    lines = [
        {"math": formula, "words": prose(line.words)}
        | ({} if line.left is None else {"left": short(line.left), "right": short(line.right)})
        for formula, line in zip(formulas, steps, strict=True)
    ]
    png = draw_still((7.2, 0.2 + 0.75 * len(steps)), _draw, steps)
    return assemble("derivation", {"lines": lines}, png, alt, caption, "fewer lines")


def _draw(drawing, steps: Sequence[Line]) -> None:
    """All lines below each other, each with its words in grey."""
    from matplotlib.mathtext import MathTextParser

    drawing.set_layout_engine("none")
    parser, height = MathTextParser("path"), 1 / (len(steps) + 0.25)
    for i, line in enumerate(steps):
        top = 1 - (i + 0.15) * height
        _write(drawing, parser, f"${line.tex}$", top, 13, "black")
        _write(drawing, parser, line.words or " ", top - 0.6 * height, 9, "#555555")


def _write(drawing, parser, text: str, top: float, size: float, colour: str) -> None:
    """Text from the left margin, smaller than size if it is wider than the picture."""
    text = for_matplotlib(text)
    try:
        width = parser.parse(text, dpi=72)[0] * size / 12 / 72
    except ValueError:  # then its source, which needs no parser
        text, width = text.replace("$", ""), 0.007 * len(text) * size
    size *= min(1, 0.95 * drawing.get_figwidth() / width)
    drawing.text(0.02, top, text, fontsize=size, va="top", color=colour)
