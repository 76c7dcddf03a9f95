"""The first use of a word of the glossary on each chapter's page leads to the glossary, and says on hover what the word means."""

from __future__ import annotations

import re

import chapter_links
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform

PAGE = "book/glossary"
CHAPTER = re.compile(r"book/\d\d_")
# Words that also have an ordinary meaning, or that every second sentence uses.
NOT_LINKED = """batch bias chain channel checkpoint class density features gradient inference interpolation label latent
loss noising precision prior recall sample sampler schedule score seed spectrum surprise target tensor token variance weights epsilon eta
timestep clipping posterior backbone classifier guidance""".split()
NOT_IN = (*chapter_links.NOT_IN, nodes.caption, nodes.table)


def entries(env: BuildEnvironment) -> dict[str, tuple[str, str]]:
    """Term -> its anchor in the glossary, and the first sentence of what it means."""
    found = {}
    for item in env.get_doctree(PAGE).findall(nodes.definition_list_item):
        term, definition = (
            item.next_node(nodes.term),
            item.next_node(nodes.definition),
        )
        meaning = re.split(
            r"(?<=[.])\s", " ".join(definition.astext().split())
        )[0]
        found[term.astext()] = (term["ids"][0], meaning)
    return found


def pattern(terms: list[str]) -> re.Pattern:
    """Finds a term or its plural as a whole word. Capitals within a term must be there; its first letter may be one."""
    words = []
    for term in sorted(terms, key=len, reverse=True):
        first, rest = term[0], re.escape(term[1:]).replace(r"\ ", r"[\s-]")
        start = f"[{first}{first.upper()}]" if first.islower() else first
        words.append(f"{start}{rest}s?")
    return re.compile(rf"(?<![\w-])({'|'.join(words)})(?![\w-])")


class GlossaryLinks(SphinxPostTransform):
    # after the links to chapters
    default_priority = 910

    def run(self, **kwargs) -> None:
        if (
            not CHAPTER.match(self.env.docname)
            or PAGE not in self.env.found_docs
        ):
            return
        known = {
            term: told
            for term, told in entries(self.env).items()
            if term not in NOT_LINKED
        }
        for part in list(self.document.findall(nodes.TextElement)):
            if known and not any(
                isinstance(each, NOT_IN)
                for each in chapter_links.and_above(part)
            ):
                self.link(part, known)

    def link(
        self, part: nodes.TextElement, known: dict[str, tuple[str, str]]
    ) -> None:
        linked = []
        for child in part.children:
            if not isinstance(child, nodes.Text):
                linked.append(child)
                continue
            rest = child.astext()
            while known and (match := pattern(list(known)).search(rest)):
                term = next(
                    each
                    for each in known
                    if pattern([each]).fullmatch(match[0])
                )
                anchor, meaning = known.pop(term)
                page = self.app.builder.get_relative_uri(self.env.docname, PAGE)
                linked += [
                    nodes.Text(rest[: match.start()]),
                    nodes.reference(
                        "",
                        match[0],
                        internal=True,
                        refuri=f"{page}#{anchor}",
                        reftitle=meaning,
                        classes=["glossary-link"],
                    ),
                ]
                rest = rest[match.end() :]
            linked.append(nodes.Text(rest))
        if len(linked) > len(part.children):
            part.children = []
            part += linked


def setup(app: Sphinx) -> dict:
    app.add_css_file("glossary.css")
    app.add_post_transform(GlossaryLinks)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
