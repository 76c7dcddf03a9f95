"""Sections off the core path, whose headings begin with "Deeper:": what they cost, and a way past them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import plain  # noqa: E402
from reading import DEEPER  # noqa: E402


def mark_deeper(app: Sphinx, doctree: nodes.document) -> None:
    """Below the heading of such a section: its minutes, and a link to the next one on the core path."""
    sections = list(doctree.findall(nodes.section))
    deeper = [each for each in sections if _is_deeper(each)]
    if not deeper:
        return
    minutes = plain.deeper_minutes(
        nbformat.read(app.env.doc2path(app.env.docname), 4)
    )
    for section, needed in zip(deeper, minutes, strict=True):
        within = set(map(id, section.findall(nodes.section)))
        later = (
            each
            for each in sections[sections.index(section) + 1 :]
            if id(each) not in within and not _is_deeper(each)
        )
        note = nodes.paragraph(classes=["deeper-note"])
        note += nodes.inline(
            "", f"Off the core path · {needed} min", classes=["deeper-badge"]
        )
        if following := next(later, None):
            note += nodes.Text(" ")
            note += nodes.reference(
                "",
                "skip to the next section",
                internal=True,
                refid=following["ids"][0],
                reftitle=following[0].astext(),
            )
        section["classes"].append("deeper")
        section.insert(1, note)


def _is_deeper(section: nodes.section) -> bool:
    return section[0].astext().startswith(DEEPER)


def mark_contents(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict,
    doctree: nodes.document | None,
) -> None:
    """The same in the list of a page's sections."""
    if "toc" in context:
        context["toc"] = re.sub(
            rf'<a class="reference internal"( href="[^"]*">{DEEPER})',
            r'<a class="reference internal deeper"\1',
            context["toc"],
        )


def setup(app: Sphinx) -> dict:
    app.add_css_file("reading.css")
    app.connect("doctree-read", mark_deeper)
    app.connect("html-page-context", mark_contents)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
