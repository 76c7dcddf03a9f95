"""A reader of the built book: a browser with every other host cut off."""

from __future__ import annotations

import pytest
from built_book import answer


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
