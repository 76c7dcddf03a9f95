"""Numbers and links on the pages: what is counted, where it is named, and in the notebooks that readers open."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, Tag

pytest.importorskip("sphinx", reason="Sphinx is not installed: make install")

import nbformat
import numbering
import plain
import slides
from nbformat.v4 import new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
BOOK = numbering.Book()
NUMBERED = [page for page in BOOK.pages.values() if page.number]
NOTEBOOKS = [page for page in BOOK.pages.values() if page.is_notebook]
ANCHOR = {"equation": "equation-{}", "figure": "{}", "exercise": "{}"}


def site(test):
    """A test that looks at the built book."""
    built = (HTML / "book" / "index.html").exists()
    return pytest.mark.site(pytest.mark.skipif(not built, reason="the book is not built: make site")(test))


@cache
def soup(name: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / "book" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


def article(name: str) -> Tag:
    return soup(name).select_one("article.bd-article")


def said(part: Tag) -> str:
    """Its text, without the sign of a link to it."""
    copy = BeautifulSoup(str(part), "html.parser")
    for sign in copy.select(".headerlink"):
        sign.decompose()
    return " ".join(copy.get_text().split())


def spaced(text: str) -> str:
    return " ".join(text.split())


# The built book


@site
@pytest.mark.parametrize("page", NUMBERED, ids=lambda page: page.name)
def test_a_page_carries_its_number_wherever_it_is_named(page):
    whole = soup(page.name)
    title = BeautifulSoup(plain_title(page.title), "html.parser").get_text()
    assert said(article(page.name).h1) == f"{page.number} {title}"
    assert said(whole.select_one("#jb-print-docs-body h1")) == f"{page.number} {title}"
    assert spaced(whole.title.get_text()).startswith(f"{page.number} {title} — ")
    for other in BOOK.pages.values():
        for link in soup(other.name).select(".bd-sidebar-primary li a[href]"):
            if link["href"].split("/")[-1] == f"{page.name}.html":
                assert said(link) == f"{page.number} {title}"


def plain_title(title: str) -> str:
    """Titles are set in Markdown."""
    return re.sub(r"`([^`]*)`", r"\1", title)


@site
def test_next_and_previous_carry_numbers():
    order = list(BOOK.pages.values())
    for before, page, after in zip(order, order[1:], order[2:], strict=False):
        for kind, other in (("prev", before), ("next", after)):
            link = soup(page.name).select_one(
                f".prev-next-area a.{'left' if kind == 'prev' else 'right'}-{kind}"
            )
            assert said(link.select_one(".prev-next-title")) == spaced(other.heading)


@site
def test_the_page_for_a_lost_reader_lists_numbered_chapters():
    lost = BeautifulSoup((HTML / "404.html").read_text(encoding="utf-8"), "html.parser")
    listed = [said(link) for link in lost.select(".bd-sidebar-primary li.toctree-l1 > a")]
    assert {spaced(page.heading) for page in NUMBERED} <= set(listed)


@site
@pytest.mark.parametrize("page", BOOK.pages.values(), ids=lambda page: page.name)
def test_what_is_counted_without_a_build_is_what_the_page_prints(page):
    labels = {name: label for name, label in BOOK.labels.items() if label.page == page.name}
    for name, label in labels.items():
        if label.kind not in ANCHOR:
            continue
        part = article(page.name).find(id=ANCHOR[label.kind].format(name))
        number = part.select_one(".eqno" if label.kind == "equation" else ".caption-number")
        assert said(number) == label.printed, name
    printed = [said(part) for part in article(page.name).select(".eqno, .caption-number")]
    counted = [label.printed for label in labels.values() if label.kind in ANCHOR]
    assert sorted(printed) == sorted(counted)


@site
def test_no_number_is_printed_twice_and_each_says_its_chapter():
    printed = [label for label in BOOK.labels.values() if label.kind in ANCHOR]
    assert len({label.printed for label in printed}) == len(printed) > 200
    for label in printed:
        page = BOOK.pages[label.page]
        assert label.number.startswith(f"{page.number}." if page.number else "")


@site
@pytest.mark.parametrize("page", BOOK.pages.values(), ids=lambda page: page.name)
def test_references_print_the_number_of_what_they_lead_to(page):
    anchors = {
        ANCHOR[label.kind].format(name): label for name, label in BOOK.labels.items() if label.kind in ANCHOR
    }
    for link in article(page.name).select("a.reference.internal[href*='#']"):
        place = link["href"].partition("#")[2]
        words = said(link)
        if place in anchors and re.fullmatch(r"\(?(?:Figure|Exercise)? ?[\dA-Z.]+\)?", words):
            assert words == anchors[place].printed
    for check in article(page.name).select("p.equation-check a"):
        number = check.find_parent("p").find_previous_sibling("div", class_="math").select_one(".eqno")
        assert check["title"].startswith(f"{said(number)} in tests/")


NOT_TEXT = (
    "a, h1, h2, h3, h4, h5, h6, pre, code, math, script, style, svg, .admonition-title, .caption-number"
)


@site
@pytest.mark.parametrize("page", BOOK.pages.values(), ids=lambda page: page.name)
def test_a_chapter_that_is_named_is_a_link_to_it(page):
    for link in article(page.name).select("a[href]"):
        if found := re.fullmatch(r"[Cc]hapters? (\d+)", said(link)):
            assert link["href"].split("#")[0] == f"{BOOK.chapters[int(found[1])].name}.html"
    text = BeautifulSoup(str(article(page.name)), "html.parser")
    for part in text.select(NOT_TEXT):
        part.replace_with(" ")
    for _, _, number in numbering.mentions(spaced(text.get_text())):
        assert number not in BOOK.chapters or BOOK.chapters[number] == page, number


@site
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_the_notebook_to_download_prints_the_numbers_of_the_page(page):
    nb = nbformat.read(HTML / "_sources" / "book" / page.path.name, 4)
    assert nb == nbformat.from_dict(plain.Plain("download").notebook(page))
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    printed = {
        "equation": [said(part).strip("()") for part in article(page.name).select(".eqno")],
        "figure": re.findall(
            r"Figure (\S+)", " ".join(map(said, article(page.name).select(".caption-number")))
        ),
        "exercise": re.findall(
            r"Exercise (\S+)", " ".join(map(said, article(page.name).select(".exercise .caption-number")))
        ),
    }
    assert re.findall(r"\\tag\{(.*?)\}", text) == printed["equation"]
    assert re.findall(r"^\*\*Figure (\S+)\.\*\*", text, re.MULTILINE) == printed["figure"]
    assert re.findall(r"^> \*\*Exercise (\S+)", text, re.MULTILINE) == printed["exercise"]
    cited = [spaced(part.get_text()) for part in article(page.name).select(".bibtex-citation")]
    unlinked = spaced(re.sub(r"\[([^\]]*)\]\(http[^)]*\)", r"\1", text))
    assert [each for each in cited if each not in unlinked] == []


@site
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_sections_off_the_core_path_say_so(page):
    minutes = plain.deeper_minutes(nbformat.read(page.path, 4))
    deeper = article(page.name).select("section.deeper")
    assert len(deeper) == len(minutes)
    contents = soup(page.name).select(".bd-sidebar-secondary a.deeper")
    assert [said(link) for link in contents] == [said(section.find(["h2", "h3", "h4"])) for section in deeper]
    for section, count in zip(deeper, minutes, strict=True):
        note = section.select_one(":scope > .deeper-note")
        assert f"{count} min" in note.get_text()
        if skip := note.a:
            target = article(page.name).find(id=skip["href"].lstrip("#"))
            assert target not in section.descendants and "deeper" not in target.get("class", [])


@site
def test_slides_begin_with_the_number_of_their_chapter():
    for page in BOOK.chapters.values():
        made = slides.slides_of((HTML / "book" / f"{page.name}.html").read_text("utf-8"), page.path.name)
        assert said(BeautifulSoup(made, "html.parser").h1) == spaced(page.heading)
        assert "deeper-note" not in made


# A small book, built

FIRST = """# The *first*

As in chapter 1, in chapter 2, and in
chapter
2. See chapters 1 and 2, **chapters 2 to 3**; `chapter 2`, $chapter 2$, [chapter 2](https://a.b).

## In chapter 2

A planned chapter 3. We plan chapter 4.

> Quoted: chapter 5 shows more. Chapter 2 is there.

| a | b |
| - | - |
| chapter 2 | (chapters 2 and 6) |
"""
CONF = """
extensions = ["myst_nb", "chapter_links", "deeper"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
html_theme = "basic"
root_doc = "start"
html_secnumber_suffix = "\\u2002"
"""


def cell(text: str):
    return new_markdown_cell(text, id=f"c{abs(hash(text))}"[:12])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """small(name) -> a page of a built book of two chapters; small.said: what the build said."""
    source = tmp_path_factory.mktemp("book")
    toc = "```{toctree}\n:numbered: 1\nfirst\nsecond\n```\n"
    (source / "start.md").write_text(f"# Start\n\n{toc}")
    (source / "first.md").write_text(FIRST)
    words = "word " * 400
    second = new_notebook(
        cells=[
            cell("# Second"),
            cell("## Deeper: *why*\n\nBecause."),
            cell(f"### Within\n\n{words}"),
            cell("## Deeper: how\n\nSo."),
            cell("## Core\n\nText."),
            cell("### Deeper: at the end\n\nText."),
        ]
    )
    (source / "second.ipynb").write_text(json.dumps(second))
    (source / "conf.py").write_text(CONF)
    # in a process of its own: MyST-NB leaves traces in Sphinx that the next book would find
    command = [sys.executable, "-m", "sphinx", "-b", "html", source, source / "out"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "book" / "_ext")])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)

    def page(name: str) -> BeautifulSoup:
        return BeautifulSoup((source / "out" / f"{name}.html").read_text("utf-8"), "html.parser")

    page.said = done.stderr
    return page


def test_chapters_that_are_there_become_links(small):
    body = small("first").select_one("div.body")
    links = [
        (said(link), link.get("title", ""))
        for link in body.select("a[href='second.html'], a[title]:not(.headerlink)")
    ]
    to_second = [words for words, title in links if title == "2\u2002Second"]
    assert to_second == ["chapter 2", "chapter 2", "2", "chapters 2", "Chapter 2", "chapter 2", "chapters 2"]
    assert body.select_one("a[href='https://a.b']").get_text() == "chapter 2"
    assert not body.h2.select("a:not(.headerlink)")
    # none leads to its own page
    assert not [link for link in body.select("a") if "1" in said(link)]
    assert "chapter 1, in chapter 2" in said(body)


def test_a_chapter_that_is_not_there_has_to_be_called_planned(small):
    wrong = re.findall(r'does not say "planned": (.*)', small.said)
    wrong = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in wrong]
    assert wrong == [
        "See chapters 1 and 2, chapters 2 to 3; chapter 2, chapter 2, chapter 2.",
        "Quoted: chapter 5 shows more",
        "(chapters 2 and 6)",
    ]


def test_a_section_off_the_core_path_has_its_minutes_and_a_way_past_it(small):
    body = small("second")
    notes = {
        said(section.find(["h2", "h3"])): section.select_one(":scope > p.deeper-note")
        for section in body.select("section.deeper")
    }
    assert {name: said(note) for name, note in notes.items()} == {
        "Deeper: why": "Off the core path · 3 min skip to the next section",
        "Deeper: how": "Off the core path · 1 min skip to the next section",
        "Deeper: at the end": "Off the core path · 1 min",
    }
    assert {note.a["href"] for note in notes.values() if note.a} == {"#core"}
    assert any("reading.css" in link["href"] for link in body.select("link[rel=stylesheet]"))
    listed = [said(link) for link in body.select(".sphinxsidebar a.deeper")]
    assert listed == ["Deeper: why", "Deeper: how", "Deeper: at the end"]
