"""The PDF of the book: its list of contents is true, its links lead somewhere, nothing of the screen is on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]

import pdf  # noqa: E402

PAGE = """<html><head><link rel="stylesheet" href="../_static/a.css"></head><body><article class="bd-article">
<section id="title"><h1>One<a class="headerlink" href="#title">#</a></h1><p id="here">Text, <a href="two.html#there">two</a>,
<a href="#here">here</a>, <a href="three.html">three</a> and <a href="https://example.org">far</a>.</p>
<details><summary>Why</summary><p>Because</p></details><img class="in-dark" src="../_images/a.dark.png">
<img src="../_images/a.png" loading="lazy"><button>x</button></section></article></body></html>"""


@pytest.fixture
def text():
    return pdf.article(PAGE, "book/one", ["book/one", "book/two"])


def test_ids_and_links_hold_in_one_document(text):
    assert text["id"] == "one"
    assert [each["id"] for each in text.select("[id]")] == ["one--title", "one--here"]
    assert [each.get("href") for each in text.select("a")] == [
        "#two--there",
        "#one--here",
        None,
        "https://example.org",
    ]


def test_what_is_for_a_screen_is_left_out_and_folds_are_open(text):
    assert not text.select("button, .headerlink, .in-dark")
    assert text.details.has_attr("open")
    (image,) = text.select("img")
    assert image["src"] == "/_images/a.png" and not image.has_attr("loading")


def test_contents_have_a_line_for_each_page(text):
    made = BeautifulSoup(pdf.whole({"book/one": text}, pdf.styles(PAGE), {"book/one": 7}), "html.parser")
    assert made.select_one(".contents a")["href"] == "#one"
    assert made.select_one(".contents a").get_text(" ").split() == ["One", "7"]
    assert made.select_one("link")["href"] == "/_static/a.css"


def test_a_page_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="book/one is not built: run make book first"):
        pdf.make(["book/one"], tmp_path / "a.pdf", tmp_path)
    with pytest.raises(ValueError, match="book/one: no text in the built page"):
        pdf.article("<html></html>", "book/one", [])


def test_every_page_of_the_book_is_in_it():
    for name in pdf.pages():
        assert any((ROOT / f"{name}{ending}").is_file() for ending in (".md", ".ipynb")), name


@pytest.mark.site
def test_printed_pages_are_numbered_and_begin_where_the_contents_say(tmp_path):
    from headless import program
    from pypdf import PdfReader

    if program() is None:
        pytest.skip("no Chromium on this machine")
    names = ["book/how_to_use", "book/notation", "book/how_to_cite"]
    numbers = pdf.make(names, tmp_path / "book.pdf")
    assert not (pdf.HTML / pdf.COMBINED).exists()
    reader = PdfReader(tmp_path / "book.pdf")
    contents = reader.pages[1].extract_text()
    for name in names:
        title = BeautifulSoup(
            (pdf.HTML / f"{name}.html").read_text(encoding="utf-8"), "html.parser"
        ).select_one("h1")
        for link in title.select("a.headerlink"):
            link.decompose()
        first = reader.pages[numbers[name] - 1].extract_text()
        words = title.get_text(" ", strip=True).split()
        assert words[-1] in first[:200], name
        assert str(numbers[name]) in contents
        assert first.rstrip().endswith(str(numbers[name])) or first.lstrip().startswith(str(numbers[name]))
    assert len(reader.outline) > 0
