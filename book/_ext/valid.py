"""Mends what Sphinx's extensions and our own figures write that is not valid HTML: repeated ids, paragraphs in a
summary, lists of what is no list item, a style below its figure's first line. Notebooks need figures whole, so theirs are
mended on the page.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from ddpm_lib.files import write_whole

# The ids that sphinx-exercise gives to every exercise and every solution of a page.
REPEATED = re.compile(r'(<section) id="(?:exercise|solution)-content"')

# myst-nb calls every fold "Toggle hidden content", which hides its own words from screen readers.
SUMMARY = re.compile(
    r'<summary aria-label="Toggle hidden content">\s*<p class="collapsed admonition-title">(.*?)</p>\s*'
    r'<p class="expanded admonition-title">(.*?)</p>\s*</summary>'
)
FOLD = (
    r'<summary><span class="collapsed admonition-title">\1</span>'
    r'<span class="expanded admonition-title">\2</span></summary>'
)
# docutils puts this role, which is deprecated, into a list, which may hold list items alone.
ENTRY = 'role="doc-biblioentry"', 'role="listitem"'
FIGURE = re.compile(
    r'(<figure [^>]*class="(?:ddpm-figure|film)"[^>]*>)(.*?)</figure>', re.S
)
STYLE = re.compile(r"<style>.*?</style>\n?", re.S)
CAPTION = re.compile(r"<figcaption>.*?</figcaption>\n?", re.S)

FIRST_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url={page}">
<title>{title}</title>
<p><a href="{page}">{title}</a></p>
</html>
"""


def valid_page(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict,
    doctree: nodes.document | None,
) -> None:
    if "body" in context:
        body = REPEATED.sub(r"\1", context["body"]).replace(*ENTRY)
        body = SUMMARY.sub(FOLD, body)
        context["body"] = FIGURE.sub(
            lambda match: f"{match[1]}{in_order(match[2])}</figure>", body
        )


def in_order(figure: str) -> str:
    """What stands in a figure with its style first and its caption last; a script then finds the same first children."""
    style, caption = STYLE.search(figure), CAPTION.search(figure)
    first, last = (found[0] if found else "" for found in (style, caption))
    return first + CAPTION.sub("", STYLE.sub("", figure)) + last


def write_first_page(app: Sphinx, error: Exception | None) -> None:
    """The way from the root of the site to its first page. Jupyter Book's own has no title and no language."""
    if error or app.builder.format != "html":
        return
    page = app.builder.get_target_uri(app.config.root_doc)
    whole = FIRST_PAGE.format(
        page=page, title=html.escape(app.config.html_title)
    )
    write_whole(
        Path(app.outdir, "index.html"),
        lambda part: Path(part).write_text(whole, encoding="utf-8"),
    )


def setup(app: Sphinx) -> dict:
    # After what takes figures apart.
    app.connect("html-page-context", valid_page, priority=990)
    app.connect("build-finished", write_first_page)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
