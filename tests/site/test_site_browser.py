"""The built book in Chromium, with every other host cut off: a reader on a phone, without JavaScript, on paper."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
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

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(not PAGES, reason="the book is not built: make site"),
]


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


@pytest.mark.parametrize("name", PAGES)
def test_a_page_on_a_phone_is_whole_and_asks_nobody_else(reader, name):
    page = reader(viewport={"width": 360, "height": 740})
    page.goto(at(name))
    read_through(page)
    assert page.seen == []
    assert page.context.cookies() == [] and page.evaluate("document.cookie") == ""
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    figures = page.locator(".ddpm-figure").count()
    assert page.locator(".ddpm-figure > .ddpm-stage").count() == figures
    pictures = "[...document.querySelectorAll('article img')].filter(img => img.checkVisibility() && !img.naturalWidth)"
    assert page.evaluate(f"{pictures}.map(img => img.src)") == []


def test_on_a_phone_a_figure_keeps_its_labels_and_scrolls_in_its_own_box(reader):
    page = reader(viewport={"width": 360, "height": 740})
    page.goto(at(CHAPTER))
    shrunk = "img => img.getBoundingClientRect().width / img.getAttribute('width')"
    boxes = page.locator("figure.align-default:visible").all()
    assert boxes
    for box in boxes:
        assert box.locator("> img").evaluate(shrunk) > 0.65
        wide = box.evaluate("box => box.scrollWidth > box.clientWidth + 1")
        assert (box.get_attribute("tabindex") == "0") == wide
    assert page.locator("figure.align-default[tabindex]").count() > 3
    box = page.locator("figure.align-default[tabindex]").first
    box.evaluate("box => box.scrollLeft = box.scrollWidth")
    picture, caption = (box.locator(f"> {part}").bounding_box() for part in ("img", "figcaption"))
    assert picture["x"] < 0 <= caption["x"] and caption["x"] + caption["width"] <= 360
    assert picture["x"] + picture["width"] <= 360
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


SCROLLING = """folded => [...document.querySelectorAll(".bd-article pre")]
  .filter(box => box.clientWidth && box.scrollWidth > box.clientWidth + 1 && (!folded || box.closest("details, .dropdown")))"""


def test_lines_that_scroll_in_an_opened_fold_can_be_reached_by_keyboard(reader):
    page = reader(viewport={"width": 390, "height": 800})
    page.goto(at(CHAPTER))
    before = page.evaluate(f"({SCROLLING})(true).length")
    page.evaluate(
        """() => {
          for (const fold of document.querySelectorAll("details")) fold.open = true;
          for (const fold of document.querySelectorAll(".toggle-hidden")) fold.classList.remove("toggle-hidden");
        }"""
    )
    assert page.evaluate(f"({SCROLLING})(true).length") > before
    page.wait_for_function(f"() => ({SCROLLING})(false).every(box => box.tabIndex === 0)")


def test_previous_and_next_lead_through_the_book(reader):
    page = reader()
    page.goto(at(CHAPTER))
    title = page.title()
    page.locator(".prev-next-area .right-next").click()
    page.wait_for_url(at("04_*"))
    page.locator(".prev-next-area .left-prev").click()
    page.wait_for_url(at(CHAPTER))
    assert page.title() == title and page.seen == []


def test_the_search_finds_the_page_that_explains_a_word(reader):
    page = reader()
    page.goto(at("notation"))
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input").fill("Tweedie")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=Tweedie*")
    page.locator("#search-results li a").first.wait_for()
    found = page.locator("#search-results li a").evaluate_all("links => links.map(link => link.href)")
    assert any(CHAPTER in link for link in found)
    assert page.seen == []


def test_the_dark_page_stays_dark_on_the_next(reader):
    page = reader(color_scheme="light")
    page.goto(at("notation"))
    shade = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(shade)
    # system, light, dark
    for _ in range(3):
        page.locator(".theme-switch-button:visible").first.click()
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
    assert page.evaluate(shade) != light
    page.goto(at("references"))
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate(shade))[:3])
    assert max(red, green, blue) < 60 and page.seen == []


def test_code_is_copied_by_its_button(reader):
    page = reader(permissions=["clipboard-read", "clipboard-write"])
    page.goto(at("how_to_use"))
    block = page.locator("div.highlight").first
    block.hover()
    block.locator(".copybtn").click()
    block.locator(".copybtn.success").wait_for()
    assert (
        page.evaluate("navigator.clipboard.readText()").strip() == block.locator("pre").text_content().strip()
    )


def test_a_wrong_address_at_any_depth_is_answered_by_a_page_of_the_book(reader):
    for path in ("nothing", "book/nothing/at/all.html"):
        page = reader()
        page.goto(f"{HOST}{PREFIX}{path}")
        # the answer itself is an error to the browser
        assert [text for text in page.seen if "404" not in text] == []
        assert page.locator(".bd-sidebar-primary").bounding_box()["x"] < 100
        page.locator(".bd-sidebar-primary a.reference").first.click()
        page.wait_for_url(at("index"))
        assert page.locator("article h1").count() == 1


# The landing page


def test_the_film_plays_and_can_be_paused(reader):
    page = reader()
    page.clock.install()
    page.goto(at("index"))
    film, canvas = page.locator(".film"), page.locator(".film canvas")
    canvas.wait_for()
    later = datetime.now() + timedelta(hours=1)
    page.clock.pause_at(later)  # real time would let the test see how slow the machine is
    drawn = "canvas => canvas.toDataURL()"
    first = canvas.evaluate(drawn)
    page.clock.run_for(1500)
    assert film.get_attribute("data-playing") == "true" and canvas.evaluate(drawn) != first
    film.locator("button").press("Enter")
    second = canvas.evaluate(drawn)
    page.clock.run_for(1500)
    assert film.get_attribute("data-playing") == "false" and canvas.evaluate(drawn) == second


def test_the_film_rests_at_its_end_for_those_who_want_less_motion(reader):
    page = reader(reduced_motion="reduce")
    page.clock.install()
    page.goto(at("index"))
    canvas = page.locator(".film canvas")
    canvas.wait_for()
    later = datetime.now() + timedelta(hours=1)
    page.clock.pause_at(later)
    still = canvas.evaluate("canvas => canvas.toDataURL()")
    page.clock.run_for(3000)
    assert canvas.evaluate("canvas => canvas.toDataURL()") == still
    page.locator(".film button").click()
    page.clock.run_for(300)
    assert canvas.evaluate("canvas => canvas.toDataURL()") != still


def test_the_first_screen_says_what_the_book_is_for(reader):
    page = reader()
    page.goto(at("index"))
    page.locator(".film canvas").wait_for()
    for part in (".film", ".promises", ".ways-in"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 800, part


def test_the_map_is_walked_by_keyboard(reader):
    page = reader()
    page.goto(at("index"))
    page.locator(".live-model button, .live-model input, .live-model select").last.focus()
    reached = []
    for _ in range(len([name for name in PAGES if name[:2].isdigit()])):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.getAttribute('href')"))
    assert reached == [f"{name}.html" for name in PAGES if name[:2].isdigit()]
    page.keyboard.press("Enter")
    page.wait_for_url(at(reached[-1].removesuffix(".html")))


# Without JavaScript, and on paper


@pytest.mark.parametrize("name", ["index", CHAPTER])
def test_without_javascript_text_formulas_and_pictures_remain(reader, name):
    page = reader(java_script_enabled=False)
    page.goto(at(name))
    formulas = page.locator("article math")
    assert formulas.count() > 10
    assert all(
        width > 1
        for width in formulas.evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
    )
    text = page.locator("article").inner_text()
    assert not re.search(r"\\(frac|alpha|varepsilon|mathbb)|\$\$|\\\(", text)
    for picture in page.locator("article img:visible").all():
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        assert box["width"] > 20 and box["height"] > 20
    if name == CHAPTER:
        assert page.locator(".ddpm-still img:visible").count() == page.locator(".ddpm-figure").count() > 0
    assert page.seen == []


def test_on_paper_a_chapter_is_text_code_and_still_figures(reader):
    page = reader(viewport={"width": 700, "height": 1000})
    page.goto(at(CHAPTER))
    read_through(page)
    page.emulate_media(media="print")
    for part in (
        ".bd-sidebar-primary",
        ".bd-sidebar-secondary",
        ".bd-header-article",
        ".prev-next-footer",
        ".ddpm-stage",
        ".copybtn",
    ):
        assert page.locator(f"{part}:visible").count() == 0, part
    figures = page.locator(".ddpm-figure").count()
    assert page.locator(".ddpm-still img:visible").count() == figures > 0
    cut = "[...document.querySelectorAll('article pre, article img, div.math')].filter(box => box.scrollWidth > box.clientWidth + 2 || box.getBoundingClientRect().right > innerWidth)"
    assert page.evaluate(f"{cut}.map(box => box.outerHTML.slice(0, 80))") == []
    folded = "[...document.querySelectorAll('article details pre')].filter(code => !code.checkVisibility())"
    assert page.locator("article details pre").count() > 0
    assert page.evaluate(f"{folded}.length") == 0
