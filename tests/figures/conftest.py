"""A page in the browser that must stay silent, and the example of each kind, made once for a module of tests."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest

from .examples import EXAMPLES

# Its assertions too should say what they compared.
pytest.register_assert_rewrite(f"{__package__}.hands")

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>figure</title><style>body {{ margin: 12px; background: #fff; color: #222832 }}
[data-theme="dark"] body {{ background: #14181e; color: #ced6dd }}</style><body>{}</body></html>"""


@pytest.fixture
def open_page(browser):
    """open_page(html, **context) -> a page; at the end no error, no message and no request may have been seen."""
    seen, contexts = [], []

    def opened(html: str, **options):
        contexts.append(browser.new_context(**({"viewport": {"width": 900, "height": 800}} | options)))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url) if ":" in request.url[:12] else None)
        page.clock.install()
        page.set_content(PAGE.format(html))
        later = datetime.now() + timedelta(hours=1)
        page.clock.pause_at(later)  # real time would let the test see how slow the machine is
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [text for text in seen if not re.match("data:image/(png|webp);base64,", text)] == []


@pytest.fixture(scope="module")
def figures():
    made = {}

    def figure(kind: str):
        if kind not in made:
            made[kind] = EXAMPLES[kind]()
        return made[kind]

    return figure
