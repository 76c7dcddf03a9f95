"""The built book as GitHub would serve it, for the tests that look at it in a browser; a plugin, see tests/conftest.py."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import address as address_tool
import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
PAGES = sorted(path.stem for path in (HTML / "book").glob("*.html"))
# A host that nobody has; the book lies where GitHub would put it.
HOST = "https://book.test"
PREFIX = urlsplit(address_tool.current(ROOT).pages).path
CHAPTER = "03_the_perfect_denoiser"
WIDTHS = [360, 390, 1300]

needs_the_book = [
    pytest.mark.site,
    pytest.mark.skipif(not PAGES, reason="the book is not built: make site"),
]


def answer(route, seen: list[str]) -> None:
    """What GitHub Pages would answer: the file, or 404.html; nothing from another host."""
    address = route.request.url
    if not address.startswith(HOST):
        seen.append(f"asked for {address}")
        return route.abort()
    path = HTML / unquote(urlsplit(address).path).removeprefix(PREFIX)
    if path.is_file():
        return route.fulfill(path=path)
    return route.fulfill(path=HTML / "404.html", status=404, content_type="text/html")


def at(name: str) -> str:
    return f"{HOST}{PREFIX}book/{name}.html"


def read_through(page) -> None:
    """Scrolls to the end as a reader would, so that all that waits to be seen is fetched."""
    page.evaluate(
        """async () => {
          for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
            scrollTo({ top: y, behavior: "instant" });
            await new Promise(done => setTimeout(done, 20));
          }
        }"""
    )
    page.wait_for_load_state("networkidle")


@pytest.fixture
def reader(browser):
    """reader(**context) -> a page whose `seen` lists errors on the console and requests to other hosts."""
    contexts = []

    def opened(**options):
        context = browser.new_context(**({"viewport": {"width": 1300, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        page.seen = []
        context.route("**/*", lambda route: answer(route, page.seen))
        page.set_default_timeout(20_000)
        page.on(
            "console", lambda message: page.seen.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: page.seen.append(str(error)))
        return page

    yield opened
    for context in contexts:
        context.close()
