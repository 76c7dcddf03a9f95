"""The built book in Chromium, with every other host cut off: a reader on a phone, without JavaScript, on paper."""

from __future__ import annotations

import io
import re
from datetime import datetime, timedelta

import numpy as np
import pytest
from built_book import CHAPTER, HOST, PAGES, PREFIX, WIDTHS, at, needs_the_book, read_through
from PIL import Image

pytestmark = needs_the_book


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
        assert box.locator("> img:visible").evaluate(shrunk) > 0.65
        wide = box.evaluate("box => box.scrollWidth > box.clientWidth + 1")
        assert (box.get_attribute("tabindex") == "0") == wide
    assert page.locator("figure.align-default[tabindex]").count() > 3
    box = page.locator("figure.align-default[tabindex]").first
    box.evaluate("box => box.scrollLeft = box.scrollWidth")
    picture, caption = (box.locator(f"> {part}").bounding_box() for part in ("img:visible", "figcaption"))
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


# The two lists at the sides


@pytest.mark.parametrize("width", [*WIDTHS, 800, 1000])
def test_the_menu_shows_the_chapters_and_leads_to_one(reader, width):
    page = reader(viewport={"width": width, "height": 800})
    page.goto(at(CHAPTER))
    narrow, menu = width < 992, page.locator(".primary-toggle:visible")
    assert menu.count() == 1
    link = page.locator("#pst-primary-sidebar-modal, #pst-primary-sidebar").get_by_text(
        "A U-Net you can hold"
    )
    in_view = lambda: link.evaluate("a => a.checkVisibility() && a.getBoundingClientRect().right > 0")  # noqa: E731
    page.wait_for_function("document.readyState === 'complete'")
    assert in_view() != narrow
    menu.click()
    page.wait_for_timeout(600)  # it slides
    assert in_view() == narrow
    if narrow:
        page.keyboard.press("Escape")
        page.wait_for_timeout(600)
        assert not in_view() and page.locator("dialog[open]").count() == 0
    menu.click()
    page.wait_for_timeout(600)
    assert in_view()
    link.click()
    page.wait_for_url(at("06_*"))
    assert page.seen == []


@pytest.mark.parametrize("width", [360, 390, 800, 1000])
def test_the_contents_of_a_page_lead_to_a_section_and_get_out_of_the_way(reader, width):
    page = reader(viewport={"width": width, "height": 800})
    page.goto(at(CHAPTER))
    button, drawer = page.locator(".secondary-toggle:visible"), page.locator("#pst-secondary-sidebar-modal")
    assert button.count() == 1
    button.click()
    link = drawer.locator("a[href='#the-floor']")
    link.wait_for()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    button.click()
    link.click()
    page.wait_for_function("location.hash === '#the-floor' && !document.querySelector('dialog[open]')")
    page.wait_for_timeout(300)
    top = page.evaluate("document.querySelector('#the-floor').getBoundingClientRect().top")
    assert 0 <= top < 200 and page.seen == []
    # and once more, from there
    button.click()
    drawer.locator("a[href='#exercises']").click()
    page.wait_for_function("location.hash === '#exercises' && !document.querySelector('dialog[open]')")


@pytest.mark.parametrize("width", [360, 390])
def test_no_button_of_the_head_is_dead(reader, width):
    """The page without a list of its contents has no button for one."""
    page = reader(viewport={"width": width, "height": 800})
    for name in ("index", CHAPTER, "notation"):
        page.goto(at(name))
        drawers = page.locator("#pst-secondary-sidebar-modal").count()
        assert page.locator(".secondary-toggle:visible").count() == drawers == (name != "index")


def test_beside_a_wide_page_its_contents_follow_the_reader(reader):
    page = reader()
    page.goto(at(CHAPTER))
    entry = page.locator("#pst-page-toc-nav a[href='#the-floor']")
    entry.click()
    page.wait_for_function(
        "document.querySelector(\"#pst-page-toc-nav a[href='#the-floor']\").classList.contains('active')"
    )
    assert page.seen == []


# Formulas

MEETING = """() => [...document.querySelectorAll("div.math:has(.eqno)")].filter(box => box.checkVisibility()).map(box => {
  const number = box.querySelector(".eqno"), at = number.getBoundingClientRect();
  const meets = [...box.querySelectorAll("mi, mo, mn, mtext")].some(part => {
    const { left, right, top, bottom } = part.getBoundingClientRect();
    return right > left && Math.min(right, at.right) - Math.max(left, at.left) > 1 && Math.min(bottom, at.bottom) - Math.max(top, at.top) > 1;
  });
  return [number.textContent, meets, at.right <= innerWidth && at.left >= 0];
})"""


@pytest.mark.parametrize("width", WIDTHS)
def test_the_number_of_a_formula_stands_beside_or_below_it_and_in_view(reader, width):
    page, count = reader(viewport={"width": width, "height": 800}), 0
    for name in PAGES:
        page.goto(at(name))
        numbers = page.evaluate(MEETING)
        assert [number for number, meets, _ in numbers if meets] == [], name
        assert [number for number, _, shown in numbers if not shown] == [], name
        count += len(numbers)
    assert count > 100


INK = """() => {
  const box = document.createElement("div");
  box.innerHTML = "<math style='font-size: 100px'><mi>a</mi><msub><mi>α</mi><mi>t</mi></msub><msub><mi>β</mi><mi>t</mi></msub><msub><mi>γ</mi><mi>t</mi></msub><msup><mi>a</mi><mn>2</mn></msup><msup><mi>β</mi><mn>2</mn></msup><msup><mi>a</mi><mo>′</mo></msup></math>";
  box.style = "position: fixed; inset: 0; z-index: 99999; background: #fff; color: #000; padding: 120px 40px";
  document.body.append(box);
  const bottom = node => node.getBoundingClientRect().bottom;
  const low = [...box.querySelectorAll("msub > :last-child")].map(bottom), high = [...box.querySelectorAll("msup > mn")].map(bottom);
  const letter = box.querySelector("msup:last-child > mi").getBoundingClientRect(), prime = box.querySelector("msup:last-child > mo").getBoundingClientRect();
  return { low, high, letter: letter.toJSON(), prime: prime.toJSON() };
}"""


def test_indices_stand_in_one_line_and_primes_at_their_letters(reader):
    page = reader(viewport={"width": 1300, "height": 600})
    page.goto(at(CHAPTER))
    page.evaluate("document.fonts.load('100px \"Book Math\"').then(() => null)")
    found = page.evaluate(INK)
    page.wait_for_timeout(200)
    for places in (found["low"], found["high"]):
        assert max(places) - min(places) < 1, places
    prime, letter = found["prime"], found["letter"]
    # Where the ink is, only a picture says.
    clip = {
        "x": prime["left"],
        "y": letter["top"] - 60,
        "width": prime["width"] + 5,
        "height": letter["height"] + 100,
    }
    with Image.open(io.BytesIO(page.screenshot(clip=clip))) as picture:
        dark = np.asarray(picture.convert("L")) < 128
    rows = np.flatnonzero(dark.any(1))
    baseline = letter["bottom"] - clip["y"] - ink_below(page, letter)
    top, bottom = (baseline - rows[[0, -1]]) / 100
    assert 0.3 < bottom < 0.55 and 0.65 < top < 0.9, (bottom, top)


def ink_below(page, letter) -> float:
    """From the last row of ink of a letter to the end of its box, in pixels: its baseline, if nothing hangs below."""
    clip = {"x": letter["left"], "y": letter["top"], "width": letter["width"], "height": letter["height"]}
    with Image.open(io.BytesIO(page.screenshot(clip=clip))) as picture:
        rows = np.flatnonzero((np.asarray(picture.convert("L")) < 128).any(1))
        return picture.height - 1 - rows[-1]


# What the theme does to links, headings and tables


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_links_have_one_colour(reader, scheme):
    page = reader(color_scheme=scheme)
    colours = {}
    for name in ("index", "09_asking_for_a_seven", "notation", "reference", "troubleshooting"):
        page.goto(at(name))
        page.wait_for_timeout(300)
        for colour, text in page.evaluate(
            """() => [...document.querySelectorAll("article a.reference, .bd-links .current > a, #pst-page-toc-nav a.active")]
              .filter(a => a.checkVisibility() && !a.closest(".cards, .ways-in") && !a.href.includes("glossary.html#term-")).map(a => [getComputedStyle(a).color, a.textContent])"""
        ):
            colours.setdefault(colour, []).append(f"{name}: {text}")
    assert len(colours) == 1, {colour: texts[:3] for colour, texts in colours.items()}


def test_headings_grow_lighter_with_their_depth(reader):
    for width in WIDTHS:
        page = reader(viewport={"width": width, "height": 800})
        page.goto(at("09_asking_for_a_seven"))
        weights = page.evaluate(
            """() => ["h1", "h2", "h3"].map(name => {
              const { fontSize, fontWeight } = getComputedStyle(document.querySelector(`article ${name}`));
              return [parseFloat(fontSize), +fontWeight];
            })"""
        )
        sizes, heavy = zip(*weights, strict=True)
        assert (
            sizes[0] > 1.15 * sizes[1]
            and sizes[1] > 1.15 * sizes[2] > 16
            and list(heavy) == sorted(heavy, reverse=True)
        )


@pytest.mark.parametrize("width", [360, 390])
def test_no_column_of_a_table_is_too_narrow_to_read_on_a_phone(reader, width):
    page, count = reader(viewport={"width": width, "height": 740}), 0
    for name in PAGES:
        page.goto(at(name))
        narrow, tables = page.evaluate(
            """() => {
              for (const fold of document.querySelectorAll("details")) fold.open = true;
              for (const fold of document.querySelectorAll(".toggle-hidden")) fold.classList.remove("toggle-hidden");
              const cells = [...document.querySelectorAll(".bd-article :is(td, th)")];
              const narrow = cells.filter(cell => {
                const range = document.createRange();
                range.selectNodeContents(cell);
                const box = cell.getBoundingClientRect(), { height, right } = range.getBoundingClientRect();
                return box.width < 110 && height > 3.5 * parseFloat(getComputedStyle(cell).lineHeight) || right > box.right + 1;
              });
              return [narrow.map(cell => cell.textContent.trim().slice(0, 40)), document.querySelectorAll(".bd-article table").length];
            }"""
        )
        assert narrow == [], name
        count += tables
    assert count > 30


def test_the_text_of_the_landing_page_has_lines_of_a_books_length(reader):
    page = reader()
    page.goto(at("index"))
    widths = page.evaluate(
        "[...document.querySelectorAll('article :is(p, li)')].filter(one => one.textContent.length > 200).map(one => one.clientWidth)"
    )
    assert len(widths) > 2 and max(widths) <= 44 * 16


def test_previous_and_next_lead_through_the_book(reader):
    page = reader()
    page.goto(at(CHAPTER))
    title = page.title()
    page.locator(".prev-next-area .right-next").click()
    page.wait_for_url(at("04_*"))
    page.locator(".prev-next-area .left-prev").click()
    page.wait_for_url(at(CHAPTER))
    assert page.title() == title and page.seen == []


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
    for part in (".film", ".lead", ".ways-in"):
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
    # what stands beside a formula on the screen stands beside it on paper
    below = "[...document.querySelectorAll('div.math:has(.eqno)')].filter(box => getComputedStyle(box).display === 'flex')"
    assert page.evaluate(f"{below}.length") == 0
    folded = "[...document.querySelectorAll('article details pre')].filter(code => !code.checkVisibility())"
    assert page.locator("article details pre").count() > 0
    assert page.evaluate(f"{folded}.length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_printed_page_is_black_on_white_and_full(reader, tmp_path, scheme):
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed: make install")
    page = reader(color_scheme=scheme)
    page.goto(at("09_asking_for_a_seven"))
    read_through(page)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    themes = page.evaluate(
        """() => {
          const seen = [], note = () => seen.push(document.documentElement.dataset.theme);
          dispatchEvent(new Event("beforeprint")); note();
          dispatchEvent(new Event("afterprint")); note();
          return seen;
        }"""
    )
    assert themes == ["light", scheme]
    page.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True)
    sheets = pypdf.PdfReader(tmp_path / "page.pdf").pages
    text = [sheet.extract_text() for sheet in sheets]
    whole = " ".join("".join(text).replace("ﬁ", "fi").split())
    assert "A stored film of the model at work" in whole and "other noise" not in whole
    # the last page may end anywhere
    assert min(len(words) for words in text[:-1]) > 100
    assert page.evaluate("document.documentElement.dataset.theme") == scheme


@pytest.mark.parametrize("name", ["index", "09_asking_for_a_seven"])
def test_code_goes_on_over_the_page_and_the_model_is_its_film_on_paper(reader, name):
    page = reader(viewport={"width": 700, "height": 1000})
    page.goto(at(name))
    page.emulate_media(media="print")
    whole = page.evaluate(
        """() => [...document.querySelectorAll("article pre")].flatMap(pre => {
          const found = [];
          if (pre.closest(".cell_output, figure")) return [];
          for (let node = pre; node.matches("pre, [class*=highlight], .cell_input"); node = node.parentElement) {
            const { overflow, breakInside, display } = getComputedStyle(node);
            if (overflow !== "visible" || breakInside !== "auto" || display === "flex") found.push(node.className || node.tagName);
          }
          return found;
        })"""
    )
    assert set(whole) == set()
    assert (
        page.locator(".live-model .lm-printed img:visible").count()
        == page.locator(".live-model").count()
        == 1
    )
    assert page.locator(".live-model :is(canvas, input, button, .lm-status):visible").count() == 0
