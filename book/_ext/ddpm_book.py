"""What the theme cannot know: the repository's address, what a page is about, how the text cites, how docstrings are
written, which test checks which equation.

Colab opens chapters from the branch `colab`, where their first cell names the repository that they were
published from; the edit and source links go to `main`.
"""

from __future__ import annotations

import functools
import html
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from docutils import nodes
from pybtex.plugin import register_plugin
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinxcontrib.bibtex.plugin import register_plugin as register_citing
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import (
    AuthorYearReferenceStyle,
)

from ddpm_lib.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import address as address_tool  # noqa: E402
import citations  # noqa: E402
import equations  # noqa: E402

BRANCH, COLAB_BRANCH = "main", "colab"


def use_address(app: Sphinx, config: Config) -> None:
    """Buttons to the repository and whole addresses are for a book that has an address."""
    address = address_tool.current(ROOT)
    known = not address.is_placeholder
    config.html_baseurl = address.pages if known else ""
    # GitHub answers from 404.html whatever address was asked for.
    config.notfound_urls_prefix = urlsplit(address.pages).path
    config.html_theme_options |= {
        "repository_url": address.url,
        "repository_branch": BRANCH,
        "use_repository_button": known,
        "use_edit_page_button": known,
        "use_issues_button": known,
    }


def colab_button_to_its_branch(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree
) -> None:
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = button["url"].replace(
                    f"/blob/{BRANCH}/", f"/blob/{COLAB_BRANCH}/", 1
                )


ABOUT = "Learn diffusion models by building one: every formula beside the few lines of PyTorch that compute it, and checked."
SOCIAL = "_static/social.png"
SOCIAL_ALT = "Ten handwritten digits that a model drew, and the same ten while they still were noise."


def say_what_a_page_is_about(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict,
    doctree: nodes.document | None,
) -> None:
    """What search engines and those who share a link show of it. Pictures and addresses there must be whole ones."""
    if doctree is None:
        return
    site = app.config.html_baseurl
    title, about = _plain(context["title"]), description(doctree)
    tags = {
        "name": {
            "description": about,
            "twitter:card": "summary_large_image" if site else "summary",
        },
        "property": {
            "og:type": "article",
            "og:site_name": app.config.html_title,
            "og:title": title,
        },
    }
    tags["name"] |= {"twitter:title": title, "twitter:description": about}
    tags["property"] |= {"og:description": about}
    if site:
        picture = site + SOCIAL
        tags["name"] |= {
            "twitter:image": picture,
            "twitter:image:alt": SOCIAL_ALT,
        }
        tags["property"] |= {
            "og:url": site + app.builder.get_target_uri(pagename)
        }
        tags["property"] |= {"og:image": picture, "og:image:alt": SOCIAL_ALT}
        tags["property"] |= {"og:image:width": "1200", "og:image:height": "630"}
    context["metatags"] += "".join(
        f'\n    <meta {kind}="{name}" content="{html.escape(text)}">'
        for kind, found in tags.items()
        for name, text in found.items()
    )


def _plain(title: str) -> str:
    """The title alone: a shared link shows no number."""
    title = re.sub(r'<span class="section-number">.*?</span>', "", title)
    return html.unescape(re.sub(r"<[^>]+>", "", title))


def description(doctree: nodes.document) -> str:
    """The first paragraph of some length and without a formula, as many of its sentences as fit in 240 letters."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        of_page = isinstance(paragraph.parent, nodes.section)
        if of_page and len(text) > 60 and not paragraph.next_node(nodes.math):
            whole = re.match(r".{1,239}[.?!](?!\S)", text)
            return whole[0] if whole else text[:200].rsplit(" ", 1)[0] + " …"
    return ABOUT


def write_sitemap(app: Sphinx, error: Exception | None) -> None:
    """sitemap.xml lists whole addresses, so there is none while the book has no address."""
    site = app.config.html_baseurl
    if error or app.builder.format != "html" or not site:
        return
    pages = "".join(
        f"<url><loc>{html.escape(site + app.builder.get_target_uri(name))}</loc></url>\n"
        for name in sorted(app.env.found_docs)
    )
    schema = "http://www.sitemaps.org/schemas/sitemap/0.9"
    whole = f'<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="{schema}">\n{pages}</urlset>\n'
    write_whole(
        Path(app.outdir, "sitemap.xml"),
        lambda part: Path(part).write_text(whole, encoding="utf-8"),
    )


def _round() -> BracketStyle:
    return BracketStyle(left="(", right=")", sep="; ")


@dataclass
class RoundAuthorYear(AuthorYearReferenceStyle):
    """Ho et al. (2020), and in passing (Ho et al., 2020)."""

    bracket_textual: BracketStyle = field(
        default_factory=lambda: BracketStyle(left="(", right=")")
    )
    bracket_parenthetical: BracketStyle = field(default_factory=_round)


_CODE = re.compile(r"(``.+?``|`.+?`)")
_ARGUMENT = re.compile(r"([a-zA-Z_]\w*(?:, [a-zA-Z_]\w*)*): (?=\S)")


def docstring_to_rst(text: str) -> str:
    """Our docstrings are plain text to read in an editor: paragraphs, some of them lines of `argument: meaning`.

    Arguments become lines of their own; what reStructuredText would take for markup stays as it was typed.
    """
    return "\n\n".join(
        map(_paragraph_to_rst, re.split(r"\n\s*\n", text.strip()))
    )


def _paragraph_to_rst(paragraph: str) -> str:
    items: list[tuple[str, str]] = []
    for line in paragraph.splitlines():
        argument = _ARGUMENT.match(line)
        if argument:
            names = ", ".join(f"``{name}``" for name in argument[1].split(", "))
            items.append((f"{names}: ", line[argument.end() :].strip()))
        elif items:
            items[-1] = (items[-1][0], f"{items[-1][1]} {line.strip()}")
        else:
            items.append(("", line.strip()))
    mark = "| " if any(names for names, _ in items) else ""
    return "\n".join(f"{mark}{names}{_escaped(text)}" for names, text in items)


def _escaped(text: str) -> str:
    parts = _CODE.split(text)
    parts[::2] = [
        re.sub(
            r"([\\*|]|\w_(?!\w))",
            lambda match: match[1][:-1] + "\\" + match[1][-1],
            part,
        )
        for part in parts[::2]
    ]
    return "".join(parts)


def process_docstring(
    app: Sphinx, what: str, name: str, obj, options, lines: list[str]
) -> None:
    lines[:] = [*docstring_to_rst("\n".join(lines)).splitlines(), ""]


# Reading all tests takes half a second, and every page asks.
checks_of_equations = functools.cache(equations.checks)


def name_the_checks(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """After each numbered equation, a small mark that leads to the test that checks it."""
    if app.builder.format != "html":
        return
    checked = checks_of_equations()
    address = address_tool.current(ROOT).url
    numbers = app.env.toc_fignumbers.get(docname, {}).get("displaymath", {})
    for formula in list(doctree.findall(nodes.math_block)):
        found = checked.get(formula.get("label"), [])
        if not found:
            continue
        first, names = found[0], ", ".join(check.name for check in found)
        number = ".".join(map(str, numbers.get(formula["ids"][0], ())))
        link = nodes.reference(
            "",
            "✓ checked",
            refuri=f"{address}/blob/{BRANCH}/{first.file}#L{first.line}",
            reftitle=f"({number}) in {first.file}: {names}",
            internal=False,
        )
        mark = nodes.paragraph("", "", link, classes=["equation-check"])
        formula.parent.insert(formula.parent.index(formula) + 1, mark)


def setup(app: Sphinx) -> dict:
    register_plugin("pybtex.style.formatting", "book", citations.BookStyle)
    register_citing(
        "sphinxcontrib.bibtex.style.referencing",
        "author_year_round",
        RoundAuthorYear,
    )
    app.connect("config-inited", use_address)
    app.connect("html-page-context", colab_button_to_its_branch, priority=900)
    app.connect("html-page-context", say_what_a_page_is_about)
    app.connect("build-finished", write_sitemap)
    app.connect("doctree-resolved", name_the_checks)
    app.connect("autodoc-process-docstring", process_docstring)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
