"""The search of the built book, as readers use it: what they type, what they find, where it leads them."""

from __future__ import annotations

import re
import time
from urllib.parse import urlsplit

import pytest
from built_book import CHAPTER, HOST, HTML, PREFIX, WIDTHS, at, needs_the_book

pytestmark = needs_the_book


def found(page) -> list[tuple[str, str]]:
    """(page, address) of the results, in order: the first place of each page."""
    page.wait_for_function(
        "[...document.querySelectorAll('.found [role=status]')].some(one => /Found|Nothing/.test(one.textContent))"
    )
    return page.locator(".found > ol > li:visible").evaluate_all(
        "all => all.map(one => [one.querySelector('.found-page').textContent, one.querySelector('a').href])"
    )


def names(page) -> list[str]:
    return [urlsplit(address).path.rsplit("/", 1)[1].removesuffix(".html") for _, address in found(page)]


def ask(page, query: str) -> list[str]:
    """The names of the pages that the open dialog finds."""
    field = page.locator("#pst-search-dialog input")
    field.fill("")
    page.wait_for_function("!document.querySelector('#pst-search-dialog [role=status]').textContent")
    field.fill(query)
    return names(page)


@pytest.fixture
def asking(reader):
    """A page with the dialog open."""

    def opened(width: int = 1300, name: str = CHAPTER):
        page = reader(viewport={"width": width, "height": 800})
        page.goto(at(name))
        page.keyboard.press("Control+k")
        page.locator("#pst-search-dialog input").wait_for()
        return page

    return opened


@pytest.mark.parametrize("width", WIDTHS)
def test_the_search_opens_by_its_button_and_results_come_while_one_types(reader, width):
    page, asked = reader(viewport={"width": width, "height": 800}), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(at(CHAPTER))
    page.wait_for_load_state("networkidle")
    # nothing of the index before somebody searches
    assert not any("search_passages" in url for url in asked)
    page.locator(".search-button__button:visible").first.click()
    field = page.locator("#pst-search-dialog input")
    assert field.evaluate("field => field === document.activeElement")
    for typed in ("gu", "guid", "guidance"):
        field.fill(typed)
        assert names(page)[0] == "09_asking_for_a_seven", typed
    assert sum("search_passages" in url for url in asked) == 1
    box = page.locator("#pst-search-dialog").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 800
    assert page.locator("#pst-search-dialog").evaluate("box => box.scrollWidth <= box.clientWidth")
    # what is typed is not covered by a sign
    signs = page.locator("#pst-search-dialog form i, #pst-search-dialog form svg")
    assert signs.count() == 0
    with page.expect_navigation():
        page.locator(".found a:visible").first.click()
    assert urlsplit(page.url).path == urlsplit(at("09_asking_for_a_seven")).path
    assert page.seen == []


@pytest.mark.parametrize(
    ("query", "first", "before"),
    [
        ("guidance", ["09_asking_for_a_seven"], []),
        ("classifier-free guidance", ["09_asking_for_a_seven"], ["references", "reference"]),
        ("classifier free guidance", ["09_asking_for_a_seven"], ["references", "reference"]),
        ("CFG", ["09_asking_for_a_seven"], []),
        (
            "posterior",
            ["04_why_predicting_noise_is_maximum_likelihood", "01_from_noise_to_a_picture"],
            ["reference"],
        ),
        ("alpha hat", ["notation"], ["reference", "where_this_book_came_from"]),
        ("\u03b1\u0302", ["notation"], []),
        ("Tweedie", [CHAPTER], ["references"]),
        ("ELBO", ["04_why_predicting_noise_is_maximum_likelihood"], []),
        ("log-SNR", ["02_destroying_data_on_purpose"], []),
        ("v-prediction", ["05_five_names_for_one_network"], []),
        ("my loss is nan", ["troubleshooting"], []),
        ("why is the learning rate", ["07_training_on_mnist"], []),
        ("FID", ["10_how_good_is_it"], ["references"]),
        ("chain.alpha_bar", ["reference"], []),
        ("how to cite", ["how_to_cite", "how_to_use"], []),
        # slips of the hand
        ("posteriour", ["04_why_predicting_noise_is_maximum_likelihood"], []),
        ("guidence", ["09_asking_for_a_seven"], []),
    ],
)
def test_readers_find_what_they_mean(asking, query, first, before):
    """first: one of these pages comes first, all of them before those in `before`."""
    pages = ask(asking(), query)
    assert pages[0] in first, pages
    for name in before:
        if name in pages:
            known = [one for one in first if one in pages]
            assert all(pages.index(one) < pages.index(name) for one in known), pages


def test_posterior_leads_to_chapters_before_methods(asking):
    pages = ask(asking(), "posterior")
    library = pages.index("reference") if "reference" in pages else len(pages)
    for name in ("01_from_noise_to_a_picture", "04_why_predicting_noise_is_maximum_likelihood"):
        assert pages.index(name) < library, pages


def test_what_is_nowhere_is_said_to_be_nowhere(asking):
    page = asking()
    assert ask(page, "zeppelin") == []
    assert page.locator("#pst-search-dialog [role=status]").text_content().startswith("Nothing found")
    assert page.locator("#pst-search-dialog .found a").count() == 0


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   ",
        "the",
        "(",
        "[a-z",
        "\\",
        "*",
        "“”",
        "x",
        "0.1",
        "a" * 300,
        "α",
        "<b>noise</b>",
        "it's",
        "-",
        "_",
    ],
)
def test_no_query_breaks_it(asking, query):
    page = asking()
    page.locator("#pst-search-dialog input").fill("noise")
    found(page)
    page.locator("#pst-search-dialog input").fill(query)
    page.wait_for_timeout(100)
    assert page.seen == [] and page.locator("#pst-search-dialog .found b").count() == 0
    assert ask(page, "Tweedie")[0] == CHAPTER


def test_an_excerpt_is_the_passage_with_the_words(asking):
    page = asking()
    contents = page.locator("#pst-page-toc-nav").inner_text()
    for query, words in (
        ("Tweedie", {"tweedie"}),
        ("perfect denoiser", {"perfect", "denoiser"}),
        ("classifier-free guidance", {"guidance"}),
    ):
        ask(page, query)
        for link in page.locator("#pst-search-dialog .found a").all()[:6]:
            marks = " ".join(link.locator("mark").all_text_contents()).lower()
            assert any(word in marks for word in words), (query, link.inner_text())
            text = link.locator("> span, > code").inner_text()
            assert 5 < len(text) < 320 and text not in contents
    # formulas are read as letters
    ask(page, "jump noising line")
    assert "\\" not in page.locator("#pst-search-dialog .found").inner_text()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("query", "name", "most"),
    [("alpha hat", "notation", 4), ("Tweedie", CHAPTER, 6), ("posterior", "04_", 6)],
)
def test_a_result_leads_to_its_passage_with_few_words_marked(asking, width, query, name, most):
    page = asking(width)
    ask(page, query)
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page.locator("mark.found-word").first.wait_for()
    marks = page.locator("mark.found-word")
    assert 1 <= marks.count() <= most
    assert urlsplit(page.url).path.startswith(f"{PREFIX}book/{name}")
    page.wait_for_timeout(300)
    seen = marks.first.evaluate(
        "mark => [mark.getBoundingClientRect().top, mark.checkVisibility(), innerHeight]"
    )
    assert 0 < seen[0] < seen[2] and seen[1]
    # the address is one to keep: without what was marked
    assert urlsplit(page.url).query == "" and urlsplit(page.url).fragment
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.seen == []


def test_what_stands_in_formulas_leads_to_its_section(asking):
    page = asking()
    ask(page, "alpha tilde")
    assert ask(page, "ε̂")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page.wait_for_load_state()
    assert urlsplit(page.url).query == "" and page.locator(":target").count() == 1
    assert page.seen == []


def test_a_passage_in_a_fold_is_unfolded(reader):
    """An address as a result has it, to a passage that the page keeps folded."""
    page, done = reader(), 0
    for name in ("04_why_predicting_noise_is_maximum_likelihood", "09_asking_for_a_seven"):
        page.goto(at(name))
        page.locator(".toggle-hidden").first.wait_for(state="attached")
        place = page.evaluate(
            """() => {
              for (const fold of document.querySelectorAll(".admonition.toggle-hidden")) {
                const passage = [...fold.querySelectorAll("p:not(.admonition-title)")].find(one => /\\b[a-z]{9,}\\b/.test(one.firstChild?.data ?? ""));
                const word = passage?.firstChild.data.match(/\\b[a-z]{9,}\\b/)[0];
                const section = fold.closest("section[id]");
                const blocks = [...section.querySelectorAll("p, li, td")];
                if (word && blocks.find(block => block.textContent.includes(word)) === passage) return [word, section.id];
              }
            }"""
        )
        if place is None:
            continue
        word, anchor = place
        page.goto(f"{at(name)}?marks={word}#{anchor}")
        page.locator("mark.found-word").first.wait_for()
        assert page.locator("mark.found-word").first.evaluate("mark => mark.checkVisibility()"), place
        done += 1
    assert done


def test_it_is_used_by_keyboard_alone(reader):
    page = reader()
    page.goto(at(CHAPTER))
    page.wait_for_load_state("networkidle")
    focused = "document.activeElement.tagName"
    page.keyboard.press("/")
    assert page.evaluate(focused) == "INPUT"
    # in the field it is a letter like others
    page.keyboard.type("a/b")
    assert page.locator("#pst-search-dialog input").input_value() == "a/b"
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input").fill("schedule")
    found(page)
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == "INPUT"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.locator("#pst-search-dialog .found a").nth(1)
    assert second.evaluate("link => link === document.activeElement")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == "INPUT"
    for _ in range(60):
        page.keyboard.press("ArrowDown")
    last = page.locator("#pst-search-dialog .found a").last
    assert last.evaluate("link => link === document.activeElement")
    box = last.bounding_box()
    assert 0 < box["y"] < 800
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0 and page.seen == []


def test_the_slash_is_a_letter_where_one_writes(reader):
    page = reader()
    page.goto(at("index"))
    page.evaluate(
        "document.querySelector('article').prepend(Object.assign(document.createElement('input'), { id: 'own' }))"
    )
    page.locator("#own").focus()
    page.keyboard.press("/")
    assert page.locator("dialog[open]").count() == 0 and page.locator("#own").input_value() == "/"


def test_a_result_on_the_same_page_closes_the_dialog(asking):
    page = asking()
    ask(page, "Tweedie")
    page.locator("#pst-search-dialog .found a").first.click()
    page.locator("mark.found-word").first.wait_for()
    assert page.locator("dialog[open]").count() == 0 and CHAPTER in page.url


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_of_the_search_has_an_address_for_each_question(reader, width):
    page = reader(viewport={"width": width, "height": 800})
    page.goto(f"{HOST}{PREFIX}search.html?q=Tweedie")
    assert names(page)[0] == CHAPTER
    field = page.locator("article form.bd-search input")
    assert field.input_value() == "Tweedie" and field.evaluate("field => field === document.activeElement")
    field.fill("GroupNorm")
    page.wait_for_function("location.search === '?q=GroupNorm'")
    assert "06_a_unet_you_can_hold_in_your_head" in names(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("Enter")
    page.wait_for_url("**/book/**")
    assert page.seen == []


def test_from_a_page_that_is_not_there_it_leads_into_the_book(reader):
    page = reader()
    page.goto(f"{HOST}{PREFIX}book/nothing/at/all.html")
    page.keyboard.press("Control+k")
    assert ask(page, "Tweedie")[0] == CHAPTER
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert urlsplit(page.url).path == urlsplit(at(CHAPTER)).path
    assert [text for text in page.seen if "404" not in text] == []


def test_it_works_in_a_book_that_is_opened_as_a_file(browser):
    page = browser.new_page()
    page.goto((HTML / "book" / f"{CHAPTER}.html").as_uri())
    page.keyboard.press("Control+k")
    assert ask(page, "guidance")[0] == "09_asking_for_a_seven"
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url.startswith((HTML / "book" / "09_asking_for_a_seven.html").as_uri())
    page.close()


def test_when_the_index_does_not_come_it_says_so_and_tries_again(reader):
    page, cut = reader(), [True]
    page.context.route("**/search_passages.js", lambda route: route.abort() if cut else route.fallback())
    page.goto(at(CHAPTER))
    page.keyboard.press("Control+k")
    field = page.locator("#pst-search-dialog input")
    field.fill("Twee")
    page.wait_for_function(
        "document.querySelector('#pst-search-dialog [role=status]').textContent.includes('did not come')"
    )
    cut.clear()
    field.fill("Tweedie")
    assert names(page)[0] == CHAPTER


def test_without_javascript_no_button_promises_a_search(reader):
    page = reader(java_script_enabled=False)
    page.goto(at(CHAPTER))
    assert page.locator(".search-button__button:visible").count() == 0
    page.goto(f"{HOST}{PREFIX}search.html")
    assert "needs JavaScript" in page.locator("article").inner_text()


def test_results_are_named_for_those_who_hear_them(asking):
    page = asking()
    ask(page, "noise")
    assert page.locator("#pst-search-dialog").get_attribute("aria-label")
    assert page.locator("#pst-search-dialog input").get_attribute("aria-label")
    status = page.locator("#pst-search-dialog [role=status]").text_content()
    assert re.match(r"Found on \d+ pages; here are the 8 that say most\.", status)
    assert all(text.strip() for text in page.locator("#pst-search-dialog .found a").all_inner_texts())


def test_a_search_takes_a_moment(asking):
    page = asking()
    ask(page, "noise")
    spent = page.evaluate(
        """() => {
          const times = [];
          for (const query of ["noise", "classifier-free guidance", "how many steps do I need", "alpha_bar", "a"]) {
            const began = performance.now();
            bookSearching.search(query);
            times.push(performance.now() - began);
          }
          return Math.max(...times);
        }"""
    )
    assert spent < 500
    began = time.monotonic()
    ask(page, "posterior")
    assert time.monotonic() - began < 5


def test_the_index_is_light():
    """Bytes as they lie there; servers that zip send a third."""
    assert (HTML / "_static" / "search_passages.js").stat().st_size < 1_500_000
