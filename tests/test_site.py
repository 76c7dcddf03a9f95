"""The built book: what a browser gets. `make site` builds it and then runs these tests."""

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import address as address_tool
import pytest

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(
        not (HTML / "book" / "index.html").exists(), reason="the book is not built: make site"
    ),
]

# Elements whose addresses a browser fetches without being asked.
FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}
NOT_FETCHED_LINKS = {"canonical", "next", "prev", "search", "index", "author", "alternate"}


class Page(HTMLParser):
    def __init__(self, path: Path):
        super().__init__()
        self.path, self.tags, self.ids = path, [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.ids |= {attrs.get("id"), attrs.get("name")} - {None}

    def fetched(self):
        for tag, attrs in self.tags:
            if tag == "link" and NOT_FETCHED_LINKS & set(attrs.get("rel", "").split()):
                continue
            if address := attrs.get(FETCHED.get(tag)):
                yield address

    def links(self):
        return [attrs["href"] for tag, attrs in self.tags if tag == "a" and attrs.get("href")]


@cache
def page(path: Path) -> Page:
    return Page(path)


def pages() -> list[Page]:
    return [page(path) for path in sorted((HTML / "book").glob("*.html"))]


def target(source: Page, address: str) -> tuple[Path, str]:
    parts = urlsplit(address)
    path = (source.path.parent / unquote(parts.path)).resolve() if parts.path else source.path
    return path, unquote(parts.fragment)


def is_local(address: str) -> bool:
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc


def test_every_chapter_has_a_page():
    assert CHAPTERS, "no chapters in book/"
    assert set(CHAPTERS) <= {page.path.stem for page in pages()}


def test_pages_ask_no_other_host_for_anything():
    foreign = {
        (page.path.name, address)
        for page in pages()
        for address in page.fetched()
        if not is_local(address) and not address.startswith("data:")
    }
    assert not foreign


def test_style_sheets_ask_no_other_host_for_anything():
    urls = re.compile(r"""(?:url\(\s*['"]?|@import\s+['"])((?:https?:)?//[^'")]+)""")
    foreign = {
        (path.name, url)
        for path in HTML.rglob("*.css")
        for url in urls.findall(path.read_text(encoding="utf-8"))
    }
    assert not foreign


def test_what_pages_fetch_and_link_to_exists():
    missing = set()
    for source in pages():
        for address in [*source.fetched(), *source.links()]:
            if not is_local(address):
                continue
            path, fragment = target(source, address)
            if path.is_dir():
                path /= "index.html"
            if not path.exists():
                missing.add((source.path.name, address))
            elif fragment and path.suffix == ".html" and fragment not in page(path).ids:
                missing.add((source.path.name, address))
    assert not missing


def test_chapters_open_in_colab_from_the_branch_with_their_address_in_them():
    slug = address_tool.current(ROOT).slug
    for name in CHAPTERS:
        expected = f"https://colab.research.google.com/github/{slug}/blob/colab/book/{name}.ipynb"
        assert expected in page(HTML / "book" / f"{name}.html").links()


def has_text(picture: dict) -> bool:
    # Without a text of its own a picture gets its path for one.
    text = picture.get("alt", "")
    return bool(text.strip()) and not text.endswith((".png", ".svg", ".jpg", ".jpeg", ".gif", ".webp"))


def test_every_picture_has_a_text_for_those_who_cannot_see_it():
    bare = {
        (source.path.name, attrs.get("src", "")[:60])
        for source in pages()
        for tag, attrs in source.tags
        if tag == "img" and attrs.get("aria-hidden") != "true" and not has_text(attrs)
    }
    assert not bare


def test_mathjax_is_served_with_the_book():
    scripts = [address for address in page(HTML / "book" / "notation.html").fetched() if "mathjax" in address]
    assert scripts and all(is_local(address) for address in scripts)
    assert list((HTML / "_static" / "mathjax" / "output" / "chtml" / "fonts").rglob("*.woff"))
