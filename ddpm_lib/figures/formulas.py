"""LaTeX as MathML, which browsers draw without a script, and in the smaller dialect that matplotlib draws."""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Sequence
from itertools import count, pairwise

LEAF = re.compile(r"<(mi|mn|mo)\b([^>]*)>([^<]*)</\1>")
"""A letter, number or sign of a formula in MathML."""
SIMPLER = {
    r"\\le(?![a-zA-Z])": r"\\leq",
    r"\\ge(?![a-zA-Z])": r"\\geq",
    r"\\[bB]igg?[lrm]?(?![a-zA-Z])": "",
    r"\\[td]frac": r"\\frac",
    r"\\frac(\d)(\d)": r"\\frac{\1}{\2}",
    r"\\mathcal ?([A-Z])": r"\\mathcal{\1}",
    r"\\[lr]Vert": r"\\|",
}
"""What matplotlib does not know -> how it writes the same."""


def mathml(tex: str, display: str = "inline") -> str:
    """One equation in LaTeX, on one line and without dollars, as a <math> element.

    display: "inline", or "block" for large sums and fractions. Raises ValueError for arrays, for braces that do not
    match and for commands that the converter does not know.
    """
    from latex2mathml.converter import convert

    if "&" in tex or "\\\\" in tex:
        raise ValueError(f"one equation on one line, please, not an array of them: {tex!r}")
    bare = re.sub(r"\\[{}]", "", tex)
    if bare.count("{") != bare.count("}"):
        raise ValueError(f"cannot convert {tex!r} to MathML: its braces do not match")
    try:
        made = convert(re.sub(r"\\[lr]Vert(?![a-zA-Z])", r"\\|", tex), display=display)
    except Exception as error:
        raise ValueError(f"cannot convert {tex!r} to MathML: {error!r}") from error
    # It leaves commands that it does not know as they are.
    if unknown := re.search(r"\\[A-Za-z]+", made):
        raise ValueError(f"cannot convert {unknown[0]} in {tex!r} to MathML: write it in plainer LaTeX")
    # "log x" needs the space that TeX puts there.
    made = re.sub(
        r"(?<!<msub>)(?<!<msup>)(?<!<msubsup>)(<mi>(?:log|exp|ln|sin|cos|tr|det|max|min)</mi>)(?=<m(?!o|space))",
        r'\1<mspace width="0.167em" />',
        made,
    )
    # A block would stand in the middle; ours begins at the left, with the same large sums and fractions.
    made = made.replace('display="block"', 'displaystyle="true"', 1)
    return made.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")


def prose(text: str) -> str:
    """Text as HTML, with the LaTeX between dollars as MathML. Raises ValueError as mathml does."""
    parts = re.split(r"\$(.+?)\$", text)
    return "".join(mathml(part) if i % 2 else html.escape(part, quote=False) for i, part in enumerate(parts))


def mark_new(formulas: Sequence[str]) -> list[str]:
    """The formulas, in MathML, with class "new" on the letters, numbers and signs that the one before does not have."""
    leaves = [[match[3] for match in LEAF.finditer(formula)] for formula in formulas]
    new = [set(), *(_new_places(before, after) for before, after in pairwise(leaves))]
    return [_marked(formula, places) for formula, places in zip(formulas, new, strict=True)]


def _new_places(before: Sequence[str], after: Sequence[str]) -> set[int]:
    """Where in the leaves after stands what is not in those before; nowhere if more than half of them are new."""
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    kept = {i for _, start, size in blocks for i in range(start, start + size)}
    new = set(range(len(after))) - kept
    # Where most is new, it is another formula, and colour would tell nothing.
    return set() if len(new) > len(after) / 2 else new


def _marked(formula: str, places: set[int]) -> str:
    at = count()

    def mark(leaf: re.Match) -> str:
        kind = ' class="new"' if next(at) in places else ""
        return f"<{leaf[1]}{kind}{leaf[2]}>{leaf[3]}</{leaf[1]}>"

    return LEAF.sub(mark, formula)


def for_matplotlib(text: str) -> str:
    """Text with LaTeX in it, as matplotlib can read it."""
    for pattern, simple in SIMPLER.items():
        text = re.sub(pattern, simple, text)
    return text
