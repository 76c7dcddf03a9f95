"""Where the text says "chapter 9", a link to it; and the number of a page in the heading that is printed.

A chapter that is not written yet gets no link, and the sentence that names it has to say that it is planned.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import compact_paragraph
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import numbering  # noqa: E402

logger = logging.getLogger(__name__)

# Headings, links, code and formulas stay as they are.
NOT_IN = (
    nodes.Titular,
    nodes.reference,
    nodes.FixedTextElement,
    nodes.literal,
    nodes.math,
    nodes.math_block,
    compact_paragraph,
)
SENTENCE_ENDS = re.compile(r"(?<!et al)[.?!][\"'”’)\]]*\s+")


class ChapterLinks(SphinxPostTransform):
    # when references have been resolved
    default_priority = 900

    def run(self, **kwargs) -> None:
        known = chapters(self.env)
        for part in list(self.document.findall(nodes.TextElement)):
            if not any(isinstance(each, NOT_IN) for each in and_above(part)):
                self.link(part, known)
        for sentence in unplanned(self.document, known):
            logger.warning(
                'a chapter that is not written yet is named, and the sentence does not say "planned": %s',
                sentence,
                location=self.env.docname,
            )

    def link(self, part: nodes.TextElement, known: dict[int, str]) -> None:
        children: list[nodes.Node] = []
        for child in part.children:
            # a line of the source ends in a text of its own
            if isinstance(child, nodes.Text) and children:
                if isinstance(children[-1], nodes.Text):
                    child = nodes.Text(children.pop() + child)
            children.append(child)
        linked = []
        for child in children:
            plain = not isinstance(child, nodes.Text)
            linked += [child] if plain else self.linked(child.astext(), known)
        if len(linked) > len(children):
            part.children = []
            part += linked

    def linked(self, text: str, known: dict[int, str]) -> Iterator[nodes.Node]:
        done = 0
        for start, end, number in numbering.mentions(text):
            page = known.get(number)
            if page in (None, self.env.docname):
                continue
            yield nodes.Text(text[done:start])
            yield nodes.reference(
                "",
                text[start:end],
                internal=True,
                refuri=self.app.builder.get_relative_uri(
                    self.env.docname, page
                ),
                reftitle=heading(self.env, page),
            )
            done = end
        yield nodes.Text(text[done:])


def and_above(node: nodes.Node | None) -> Iterator[nodes.Node]:
    """A node, and all that it stands in."""
    while node is not None:
        yield node
        node = node.parent


def chapters(env: BuildEnvironment) -> dict[int, str]:
    """Number -> the page of each chapter that is there."""
    numbers = {
        page: title.get("secnumber") for page, title in env.titles.items()
    }
    return {
        number[0]: page
        for page, number in numbers.items()
        if number and isinstance(number[0], int)
    }


def heading(env: BuildEnvironment, page: str) -> str:
    """The title of a page, with its number if it has one."""
    title = env.titles[page]
    number = ".".join(map(str, title.get("secnumber") or ()))
    return number + numbering.SPACE * bool(number) + title.astext()


def unplanned(document: nodes.document, known: dict[int, str]) -> list[str]:
    """Sentences that name a chapter which is not there as if it were."""
    blocks = (
        block.astext()
        for block in document.findall(nodes.TextElement)
        if not isinstance(block, (nodes.Inline, *NOT_IN))
    )
    sentences = (
        sentence
        for block in blocks
        for sentence in SENTENCE_ENDS.split(" ".join(block.split()))
    )
    return [
        sentence
        for sentence in sentences
        if any(each not in known for _, _, each in numbering.mentions(sentence))
        and not re.search(r"\bplan(s|ned)?\b", sentence, re.IGNORECASE)
    ]


def number_on_paper(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict,
    doctree: nodes.document | None,
) -> None:
    """In print the theme sets a heading of its own."""
    if pagename in app.env.titles:
        context["pagetitle"] = heading(app.env, pagename)


def setup(app: Sphinx) -> dict:
    app.add_post_transform(ChapterLinks)
    # after the theme's own
    app.connect("html-page-context", number_on_paper, priority=900)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
