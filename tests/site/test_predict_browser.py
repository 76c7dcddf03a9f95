"""What the book remembers for a reader: predictions, and where one was. Nothing of it leaves the browser."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import pytest
from built_book import HOST, PAGES, PREFIX, WIDTHS, at, needs_the_book

pytestmark = needs_the_book

CHAPTER = "09_asking_for_a_seven"
STORES = ("book-predictions", "book-where")


def stored(page, name: str):
    return json.loads(page.evaluate("name => localStorage.getItem(name)", name) or "null")


class Question:
    """The first question of a page that can be clicked."""

    def __init__(self, page, at: int = 0):
        self.list = page.locator(".predict-choices").nth(at)
        self.section = self.list.locator("xpath=ancestor::section[1]")
        self.note = self.section.locator(".predict-note")
        self.answer = self.section.locator(".admonition.dropdown", has_text="Our answer").first
        self.right = re.match(
            r"\(([a-z])\)", self.answer.locator("p:not(.admonition-title)").first.text_content()
        )[1]

    def choice(self, letter: str):
        return self.list.locator(".predict-choice").nth("abcdefgh".index(letter))

    def is_open(self) -> bool:
        return "toggle-hidden" not in self.answer.get_attribute("class")

    def wrong(self) -> str:
        return next(letter for letter in "abc" if letter != self.right)


@pytest.fixture
def visit(reader):
    def opened(name: str = CHAPTER, **options):
        page = reader(**options)
        page.goto(at(name))
        page.wait_for_load_state("load")
        return page

    return opened


@pytest.mark.parametrize("width", WIDTHS)
def test_a_click_records_the_choice_and_opens_the_answer(visit, width):
    page = visit(viewport={"width": width, "height": 800})
    question = Question(page)
    assert not question.is_open() and not question.note.is_visible()
    assert stored(page, "book-predictions") is None
    wrong = question.wrong()
    # on the words, not on the letter
    question.choice(wrong).locator(".predict-text").click(position={"x": 5, "y": 8})
    assert question.is_open()
    (record,) = stored(page, "book-predictions").values()
    assert record == {"choice": wrong, "right": False}
    assert question.choice(wrong).locator(".predict-verdict").inner_text() == "your prediction"
    assert question.choice(question.right).locator(".predict-verdict").inner_text() == "✓ what happens"
    said = question.note.inner_text()
    assert f"({wrong})" in said and f"({question.right})" in said
    # a prediction is made once
    question.choice(question.right).click()
    assert stored(page, "book-predictions").popitem()[1] == record
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.seen == []


@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_remembered_after_a_reload_and_can_be_forgotten(visit, width):
    page = visit(viewport={"width": width, "height": 800})
    question = Question(page)
    question.choice(question.right).locator("button").click()
    assert "and so it is" in question.note.inner_text()
    page.reload()
    page.wait_for_load_state("load")
    question = Question(page)
    assert question.choice(question.right).locator(".predict-verdict").inner_text() == "✓ you saw it coming"
    assert question.choice(question.right).locator("button").get_attribute("aria-pressed") == "true"
    page.wait_for_function(
        "!document.querySelector('.predict-choices ~ .admonition.dropdown').matches('.toggle-hidden')"
    )
    question.note.locator("button").click()
    assert stored(page, "book-predictions") == {}
    assert not question.is_open() and not question.note.is_visible()
    assert set(question.list.locator(".predict-verdict").all_text_contents()) == {""}
    # and made anew
    question.choice(question.wrong()).click()
    page.reload()
    assert len(stored(page, "book-predictions")) == 1
    assert page.seen == []


def test_it_is_answered_by_keyboard_and_named_for_those_who_hear_it(visit):
    page = visit()
    question = Question(page)
    buttons = question.list.locator("button.predict-letter")
    assert buttons.count() == question.list.locator("li").count() >= 2
    names = buttons.evaluate_all(
        "all => all.map(one => one.getAttribute('aria-labelledby').split(' ').map(id => document.getElementById(id).textContent.trim()).join(' '))"
    )
    assert all(re.match(r"\([a-h]\) \w.{8,}", name, re.S) for name in names) and len(set(names)) == len(names)
    buttons.first.focus()
    page.keyboard.press("Tab")
    assert buttons.nth(1).evaluate("one => one === document.activeElement")
    page.keyboard.press("Space")
    assert question.is_open() and buttons.nth(1).get_attribute("aria-pressed") == "true"
    assert buttons.first.get_attribute("aria-disabled") == "true"
    assert question.note.locator("[role=status]").inner_text().startswith("You chose (b)")
    question.note.locator("button").press("Enter")
    assert buttons.first.evaluate("one => one === document.activeElement")
    page.keyboard.press("Enter")
    assert stored(page, "book-predictions").popitem()[1]["choice"] == "a"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_can_be_read_in_both_themes(visit, scheme):
    page = visit(color_scheme=scheme)
    question = Question(page)
    question.choice(question.wrong()).click()
    page.wait_for_timeout(300)
    poor = page.evaluate(
        """() => {
          const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
          const rgb = css => { context.clearRect(0, 0, 1, 1); context.fillStyle = css; context.fillRect(0, 0, 1, 1); return [...context.getImageData(0, 0, 1, 1).data]; };
          const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const under = node => { for (; node; node = node.parentElement) { const back = rgb(getComputedStyle(node).backgroundColor); if (back[3] === 255) return back; } return [255, 255, 255]; };
          return [...document.querySelectorAll(".predict-done :is(.predict-letter, .predict-text, .predict-verdict), .predict-note span, .predict-note button")]
            .filter(node => node.textContent.trim() && node.checkVisibility()).map(node => {
              const [low, high] = [light(rgb(getComputedStyle(node).color)), light(under(node))].sort((a, b) => a - b);
              return [node.className, (high + 0.05) / (low + 0.05)];
            }).filter(([, contrast]) => contrast < 4.5);
        }"""
    )
    assert poor == []


def test_every_question_of_the_asked_form_can_be_clicked(reader):
    """And no list that is not of that form has become buttons."""
    page, count = reader(), 0
    for name in (name for name in PAGES if name[:2].isdigit()):
        page.goto(at(name))
        page.wait_for_load_state("load")
        plain = reader(java_script_enabled=False)
        plain.goto(at(name))
        asked = 0
        for section in plain.locator("section:has(> h3)").all():
            if not section.locator("> h3").inner_text().startswith("Predict first"):
                continue
            lists = [
                [item.inner_text().strip()[:3] for item in found.locator("> li").all()]
                for found in section.locator("> ul").all()
            ]
            answer = section.locator("> .admonition.dropdown > p:not(.admonition-title)")
            begins = answer.first.inner_text() if answer.count() else ""
            letters = [
                found for found in lists if found == [f"({letter})" for letter in "abcdefgh"[: len(found)]]
            ]
            if letters and re.match(r"\([a-h]\)", begins):
                asked += 1
        assert page.locator(".predict-choices").count() == asked, name
        count += asked
        assert page.seen == [], name
    assert count >= 15


def test_links_in_a_choice_stay_links(visit):
    page = visit()
    page.evaluate(
        """() => {
          const link = Object.assign(document.createElement("a"), { href: "#elsewhere", textContent: "a link" });
          link.onclick = event => { event.preventDefault(); window.followed = true; };
          document.querySelector(".predict-choice .predict-text").append(link);
        }"""
    )
    page.locator(".predict-choice a", has_text="a link").click()
    assert page.evaluate("window.followed") and stored(page, "book-predictions") is None


def test_without_javascript_and_on_paper_choices_are_a_list(visit):
    page = visit(java_script_enabled=False)
    section = page.locator("section:has(> h3)", has_text="Predict first").last
    assert "(a)" in section.inner_text() and page.locator(".predict-choices").count() == 0
    page = visit()
    Question(page).choice("a").click()
    page.emulate_media(media="print")
    assert "(a)" in Question(page).choice("a").inner_text()
    assert page.locator(".predict-note:visible, .predict-verdict:visible").count() == 0


def test_where_nothing_can_be_stored_it_works_until_the_page_is_left(visit):
    page = visit()
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    # the theme itself asks for it in the head, and reports that there is none
    page.goto(at(CHAPTER))
    page.wait_for_load_state("load")
    question = Question(page)
    question.choice("a").click()
    assert question.is_open() and question.note.is_visible()


def test_what_is_stored_may_be_anything(visit):
    for rubbish in ("{", "null", "[]", "3", '{"book": 1}', '"x"'):
        page = visit()
        page.evaluate(
            "([names, text]) => names.forEach(name => localStorage.setItem(name, text))",
            [list(STORES), rubbish],
        )
        page.goto(at("index"))
        page.goto(at(CHAPTER))
        page.wait_for_load_state("load")
        question = Question(page)
        question.choice("a").click()
        assert question.is_open() and page.seen == [], rubbish


# Where was I


@pytest.mark.parametrize("width", WIDTHS)
def test_the_landing_page_leads_back_to_where_the_reader_was(visit, width):
    page = visit("index", viewport={"width": width, "height": 800})
    assert page.locator(".where").count() == 0
    page.goto(at(CHAPTER))
    page.wait_for_load_state("load")
    page.locator("#digits").evaluate("one => one.scrollIntoView({ behavior: 'instant' })")
    page.wait_for_function("JSON.parse(localStorage.getItem('book-where') ?? '{}').id === 'digits'")
    page.goto(at("notation"))  # not a chapter, so not a place to go on
    page.goto(at("index"))
    box = page.locator(".where")
    assert box.is_visible() and "Asking for a seven" in box.inner_text() and "“Digits”" in box.inner_text()
    assert "prediction" not in box.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box.locator("a").click()
    page.wait_for_url(f"**/{CHAPTER}.html#digits")
    assert page.seen == []


def test_the_landing_page_counts_predictions_and_forgets_them(visit):
    page = visit()
    first, second = Question(page), Question(page, 1)
    first.choice(first.right).click()
    page.goto(at("index"))
    assert "one prediction, and it was right" in page.locator(".where").inner_text()
    page.goto(at(CHAPTER))
    page.wait_for_load_state("load")
    second = Question(page, 1)
    second.choice(second.wrong()).click()
    page.goto(at("index"))
    assert "2 predictions, and one was right" in page.locator(".where").inner_text()
    page.locator(".where button").click()
    assert page.locator(".where").count() == 0
    assert [stored(page, name) for name in STORES] == [None, None]
    page.reload()
    assert page.locator(".where").count() == 0
    page.goto(at(CHAPTER))
    page.wait_for_load_state("load")
    assert not Question(page).is_open()


def test_the_beginning_of_a_chapter_is_a_place_too(visit):
    page = visit()
    page.goto(at("index"))
    text = page.locator(".where").inner_text()
    assert "Asking for a seven" in text and "“" not in text
    assert urlsplit(page.locator(".where a").evaluate("a => a.href")).path == f"{PREFIX}book/{CHAPTER}.html"
    assert HOST in page.url
