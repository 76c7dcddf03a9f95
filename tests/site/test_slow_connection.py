"""The built book over a slow connection: the text is there before scripts and pictures are, and stays where it is."""

from __future__ import annotations

from pathlib import Path

import headless
import pytest

HTML = Path(__file__).resolve().parents[2] / "_build" / "html"
pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(
        not (HTML / "book" / "index.html").exists(), reason="the book is not built: make site"
    ),
]
LATE = (".js", ".mjs", ".png", ".webp", ".svg")

# What jumps is seen by the browser itself; nobody has touched the page, so every shift counts.
WATCH = """
window.jumped = [];
new PerformanceObserver(list => jumped.push(...list.getEntries().map(entry => ({
  by: entry.value, who: entry.sources.map(({ node }) => (node?.outerHTML ?? "").slice(0, 90)),
})))).observe({ type: "layout-shift", buffered: true });
"""
# Where the first screen's blocks and formulas begin.
PLACES = """() => [...document.querySelectorAll("article :is(h1, h2, p, pre, math, figure)")]
  .filter(node => node.checkVisibility()).map(node => [node.tagName, Math.round(node.getBoundingClientRect().top)])
  .filter(([_, top]) => top < innerHeight)"""


@pytest.fixture(scope="module")
def site():
    with headless.served(HTML) as address:
        yield address


@pytest.mark.parametrize("width", [360, 1300])
@pytest.mark.parametrize("name", ["index", "05_five_names_for_one_network", "03_the_perfect_denoiser"])
def test_text_and_formulas_come_first_and_nothing_jumps(browser, site, name, width):
    context, held, slow = browser.new_context(viewport={"width": width, "height": 800}), [], [True]
    context.add_init_script(WATCH)
    late = lambda url: url.split("?")[0].endswith(LATE)  # noqa: E731
    context.route(late, lambda route: held.append(route) if slow else route.continue_())
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(f"{site}/book/{name}.html", wait_until="commit")
    page.locator("footer.bd-footer, .prev-next-footer").last.wait_for(state="attached")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    page.evaluate("document.fonts.ready.then(() => null)")
    assert len(held) > 5
    widths = page.locator("article math").evaluate_all(
        "all => all.filter(one => one.checkVisibility()).map(one => one.getBoundingClientRect().width)"
    )
    assert len(widths) > 5 and min(widths) > 1
    before = page.evaluate(PLACES)
    slow.clear()
    for route in held:
        route.continue_()
    page.wait_for_load_state("networkidle")
    assert page.evaluate(PLACES) == before and len(before) > 2
    jumped = page.evaluate("jumped")
    assert sum(jump["by"] for jump in jumped) < 0.02, jumped
    context.close()
