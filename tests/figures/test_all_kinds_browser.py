"""What holds for every kind of figure in Chromium: alone, several on a page, and on the pages of the book."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .examples import KINDS
from .hands import CONTRAST, choose, control, shown


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_gives_way_to_the_controls(open_page, figures, kind):
    page = open_page(figures(kind).html)
    assert page.locator("figure > img").count() == 0
    assert page.locator(".ddpm-stage").get_attribute("aria-label") == figures(kind).alt
    assert page.locator(".ddpm-stage").bounding_box()["height"] > 100


@pytest.mark.parametrize("kind", KINDS)
def test_without_scripts_the_picture_and_its_text_remain(open_page, figures, kind):
    page = open_page(figures(kind).html, java_script_enabled=False, viewport={"width": 360, "height": 740})
    image = page.locator("figure > img")
    assert image.is_visible() and image.get_attribute("alt") == figures(kind).alt
    assert 100 < image.bounding_box()["width"] <= 336
    assert page.locator(".ddpm-stage").count() == 0


@pytest.mark.parametrize("width", [320, 360, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_wider_than_the_window(open_page, figures, kind, width):
    page = open_page(figures(kind).html, viewport={"width": width, "height": 740})
    if kind == "derivation":
        control(page, "all").click()
    wide = page.evaluate("document.documentElement.scrollWidth") - width
    assert wide <= 0
    sticking_out = page.evaluate(
        """width => [...document.querySelectorAll(".ddpm-stage *")].filter(node => !node.closest(".df-math, svg, .df-line"))
        .filter(node => node.getBoundingClientRect().right > width).map(node => node.outerHTML.slice(0, 80))""",
        width,
    )
    assert sticking_out == []


# How notebooks put HTML on a page: JupyterLab and Colab put a new script in place of each, VS Code adds it to the output.
INSERT = {
    "in place": """(box, old, script) => old.replaceWith(script)""",
    "at the end": """(box, old, script) => { box.append(script); script.remove(); }""",
}


@pytest.mark.parametrize("way", INSERT)
@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_starts_wherever_its_script_is_put(open_page, figures, kind, way):
    page = open_page("<div></div><div></div>")
    page.evaluate(
        """([html, place]) => { for (const box of document.querySelectorAll("div")) {
            box.innerHTML = html;
            for (const old of [...box.querySelectorAll("script")]) {
                const script = document.createElement("script");
                script.textContent = old.textContent;
                eval(place)(box, old, script);
            }
        } }""",
        [figures(kind).html, INSERT[way]],
    )
    assert page.locator("figure").count() == 2 and page.locator("figure > img").count() == 0
    for at in range(2):
        assert page.locator("figure").nth(at).locator("> .ddpm-stage").count() == 1


FIRST = {
    "scrubber": "t",
    "schedule_designer": "T",
    "hover_weights": "t",
    "converter": "t",
    "gallery": "step",
    "network": "part",
    "sample_size": "n of A",
}


@pytest.mark.parametrize("kind", sorted(FIRST))
def test_figures_on_one_page_leave_each_other_alone(open_page, figures, kind):
    page = open_page(figures(kind).html + figures("scrubber").html + figures(kind).html)
    last = page.locator(f'[data-input="{FIRST[kind]}"]').count() - 1
    before = [shown(page, FIRST[kind], at) for at in (0, last)]
    control(page, FIRST[kind], last).press("ArrowRight" if kind in ("scrubber", "gallery") else "ArrowLeft")
    after = [shown(page, FIRST[kind], at) for at in (0, last)]
    assert after[0] == before[0] and after[1] != before[1]
    radios = page.locator('figure:last-of-type input[type="radio"]')
    if radios.count():
        radios.last.check()
        assert page.locator('figure:first-of-type input[type="radio"]').first.is_checked()


@pytest.mark.parametrize("kind", KINDS)
def test_every_control_has_a_name_and_is_reached_by_tab(open_page, figures, kind):
    page = open_page(figures(kind).html)
    named = page.evaluate(
        """[...document.querySelectorAll("[data-input]")].filter(node => node.checkVisibility() && !node.disabled)
        .map(node => (node.getAttribute("aria-label") || node.labels?.[0]?.textContent || node.textContent).trim())"""
    )
    assert named and all(named)
    # Without it JupyterLab, in command mode, keeps arrow keys and Enter for itself.
    assert (
        page.locator("[data-input]").count()
        == page.locator("[data-input][data-lm-suppress-shortcuts]").count()
    )
    legends = page.locator("fieldset > legend").all_text_contents()
    assert len(legends) == page.locator("fieldset").count() and all(legends)
    reached = set()
    for _ in range(len(named) + 3):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.input ?? ''"))
        frame = "(node => node.dataset.input ? getComputedStyle(node).outline : '3px solid')(document.activeElement)"
        assert "3px" in (seen := page.evaluate(frame)) and "solid" in seen
    wanted = page.evaluate(
        """[...document.querySelectorAll("[data-input]")].filter(node => node.checkVisibility() && !node.disabled)
        .map(node => node.dataset.input)"""
    )
    assert set(wanted) <= reached
    assert (
        page.locator('input[type="range"]').count()
        == page.locator('input[type="range"][aria-valuetext]').count()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_letters_can_be_read_in_light_and_dark(open_page, figures, kind):
    page = open_page(figures(kind).html)
    if kind == "derivation":
        control(page, "all").click()
    colour = "getComputedStyle(document.querySelector('.ddpm-figure')).getPropertyValue('--data')"
    light = page.evaluate(colour)
    assert page.evaluate(CONTRAST) == []
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.clock.run_for(200)
    assert page.evaluate(colour) != light
    assert page.evaluate(CONTRAST) == []


def test_nothing_is_said_until_something_moves(open_page, figures):
    page = open_page("".join(figures(kind).html for kind in KINDS))
    page.clock.run_for(2000)
    assert "".join(page.locator("div.df-heard").all_text_contents()) == ""
    choose(page, "family", "cosine")
    page.clock.run_for(600)
    assert "amplitude is left" in "".join(page.locator("div.df-heard").all_text_contents())


# On the pages of the book, under its theme

HTML = Path(__file__).resolve().parents[2] / "_build" / "html" / "book"


PUT = """html => {
  const box = document.querySelector("article.bd-article");
  box.innerHTML = `<div class="cell"><div class="cell_output"><div class="output text_html">${html}</div></div></div>`;
  for (const old of [...box.querySelectorAll("script")]) {
    const script = document.createElement("script");
    script.textContent = old.textContent;
    old.replaceWith(script);
  }
}"""


built = pytest.mark.skipif(not (HTML / "index.html").exists(), reason="the book is not built: make site")


@pytest.mark.site
@built
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_figures_are_at_home_in_the_theme(browser, figures, width, theme):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((HTML / "index.html").as_uri())
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    before = page.evaluate("document.documentElement.scrollWidth")
    page.evaluate(PUT, "".join(figures(kind).html for kind in KINDS))
    control(page, "all").click()
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= max(width, before)
    assert page.evaluate(CONTRAST) == []
    # The theme has rules for rows, cards and formulas of its own.
    assert page.locator('[data-input="play"]').first.bounding_box()["width"] < 140
    line = page.locator("[data-line]").first
    gap = line.locator("math").first.bounding_box()["x"] - line.bounding_box()["x"]
    assert gap < 30
    page.close()


@pytest.mark.site
@built
def test_every_figure_of_the_book_starts_and_fits(browser):
    paths = [path for path in sorted(HTML.glob("*.html")) if "data-ddpm-figure=" in path.read_text("utf-8")]
    for path in paths:
        page = browser.new_page(viewport={"width": 360, "height": 740})
        page.goto(path.as_uri())
        count = page.locator(".ddpm-figure").count()
        # each waits until it is nearly in view
        for at in range(count):
            page.locator(".ddpm-figure").nth(at).scroll_into_view_if_needed()
            page.locator(".ddpm-figure").nth(at).locator(":scope > .ddpm-stage").wait_for()
        assert page.locator(".ddpm-figure > .ddpm-stage").count() == count > 0, path.name
        wide = "[...document.querySelectorAll('.ddpm-figure')].map(figure => figure.scrollWidth - figure.clientWidth)"
        assert page.evaluate(wide) == [0] * count, path.name
        page.close()


if folder := os.environ.get("FIGURE_SHOTS"):

    @pytest.mark.parametrize("kind", KINDS)
    def test_pictures_to_look_at(open_page, figures, kind):
        for theme in ("light", "dark"):
            for width in (360, 900):
                page = open_page(figures(kind).html, viewport={"width": width, "height": 600})
                page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
                page.clock.run_for(200)
                page.screenshot(path=f"{folder}/{kind}-{theme}-{width}.png", full_page=True)
