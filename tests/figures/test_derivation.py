"""The derivation: what it stores and refuses, and how it is walked in the browser."""

from __future__ import annotations

import re

import pytest

from ddpm_lib.figures import Line, derivation

from .examples import LINES
from .hands import control, shown, stored

SUMS = [
    Line(r"\log(a b) = \log a + \log b", "The log of $a b$.", 1.5, 1.5 + 1e-9),
    Line(r"\log(a b) = \log b + \log a + 0", "Sums commute, 1 < 2.", 1.5, 1.6),
    Line(r"\bar\alpha_t = \prod_{i=1}^{t} \alpha_i", "By definition."),
]


def test_a_derivation_marks_what_is_new_and_keeps_the_numbers():
    lines = stored(derivation(SUMS))["lines"]
    new = [re.findall(r'class="new"[^>]*>([^<]*)<', line["math"]) for line in lines]
    # The second line swaps a and b and adds 0; the third is another formula.
    assert new[0] == [] and "0" in new[1] and len(new[1]) < 8 and new[2] == []
    assert (lines[0]["left"], lines[0]["right"]) == (1.5, 1.5 + 1e-9) and "left" not in lines[2]
    assert "1 &lt; 2" in lines[1]["words"] and "<math" in lines[0]["words"]


@pytest.mark.parametrize(
    "tex", [r"\begin{aligned} a &= b \end{aligned}", r"a \\ b", r"\frac{a", r"\nonsense x"]
)
def test_latex_that_cannot_be_shown_is_refused(tex):
    with pytest.raises(ValueError, match="one line|cannot convert"):
        derivation([Line(tex, "")])


def test_lines_name_slips():
    with pytest.raises(ValueError, match="at least one Line"):
        derivation([])
    with pytest.raises(ValueError, match="both sides"):
        Line("a", "", left=1.0)
    with pytest.raises(ValueError, match="finite"):
        Line("a", "", float("nan"), 1.0)


# In the browser


def test_a_derivation_is_walked_by_buttons(open_page, figures):
    page = open_page(figures("derivation").html)
    lines = page.locator("[data-line]")
    visible = lambda: [line.is_visible() for line in lines.all()]  # noqa: E731
    back, forth, whole = (control(page, name) for name in ("back", "next", "all"))
    assert visible() == [True, False, False] and back.get_attribute("aria-disabled") == "true"
    forth.click()
    assert visible() == [True, True, False] and shown(page, "line") == 2
    back.click()
    assert visible() == [True, False, False]
    whole.click()
    assert visible() == [True, True, True] and forth.get_attribute("aria-disabled") == "true"
    assert whole.text_content() == "start again"
    # what is wider than the page is set smaller, to a point
    sizes = [line.locator(".df-math").evaluate("node => node.style.fontSize") for line in lines.all()]
    assert sizes == ["", "", "0.8em"]
    whole.click()
    assert visible() == [True, False, False]


def test_a_derivation_is_walked_by_keyboard_and_heard(open_page, figures):
    page = open_page(figures("derivation").html)
    page.keyboard.press("Tab")
    for key, line in (
        ("ArrowDown", 2),
        ("ArrowUp", 1),
        ("ArrowUp", 1),
        ("ArrowRight", 2),
        ("ArrowDown", 3),
        ("ArrowDown", 3),
        ("ArrowLeft", 2),
    ):
        page.keyboard.press(key)
        assert shown(page, "line") == line
        assert page.locator(".df-now").get_attribute("data-line") == f"{line - 1}"
    page.clock.run_for(600)
    said = page.locator(".df-heard").text_content()
    assert said.startswith("line 2 of 3: Both sides times") and "DISAGREE" in said


def test_a_derivation_says_where_the_sides_disagree(open_page, figures):
    page = open_page(figures("derivation").html)
    control(page, "all").click()
    assert page.locator('[data-name="verdict"]').all_text_contents() == ["agree ✓", "DISAGREE ✗"]
    check = page.locator(".df-check").first.text_content()
    assert check == "left side 1.23457, right side 1.23457, agree ✓"
    for i in (0, 1):
        assert (shown(page, "left", i), shown(page, "right", i)) == pytest.approx(
            (LINES[i].left, LINES[i].right), rel=1e-11
        )


def test_formulas_are_drawn_and_what_is_new_is_coloured(open_page, figures):
    page = open_page(figures("derivation").html)
    control(page, "all").click()
    formula = page.locator("[data-line] .df-math math").first.bounding_box()
    assert formula["height"] > 14 and 100 < formula["width"] < 400
    new = page.locator('[data-line="1"] .new')
    assert set(new.all_text_contents()) == {"−"}
    ink = [
        page.evaluate("n => getComputedStyle(n).color", node.element_handle())
        for node in (new.first, page.locator("mi").first)
    ]
    assert ink[0] != ink[1]
