"""The derivation: what it stores and refuses, and how it is walked in the browser."""

from __future__ import annotations

import importlib
import itertools
import re

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ddpm_lib.figures import Line, derivation
from ddpm_lib.figures.common import draw_still

from .examples import LINES
from .hands import control, shown, stored

module = importlib.import_module("ddpm_lib.figures.derivation")  # the function has its module's name
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


def drawn(lines: list[Line]) -> tuple[Figure, list[Text]]:
    """The still picture of the lines, as matplotlib's own drawing, and the texts on it from above."""
    kept = []

    def keep(size, draw, *given):
        drawing = Figure(figsize=size, dpi=96)
        draw(drawing, *given)
        kept.append(drawing)
        return draw_still(size, draw, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "draw_still", keep)
        derivation(lines)
    FigureCanvasAgg(kept[0]).draw()
    return kept[0], sorted(kept[0].texts, key=lambda text: -text.get_position()[1])


def test_the_still_picture_shows_the_numbers_of_each_line():
    _, texts = drawn(LINES)
    words = [text.get_text() for text in texts]
    below_formula_and_words = [2, 5]
    assert [i for i, text in enumerate(words) if "left side" in text] == below_formula_and_words
    assert words[2] == "left side 1.23457, right side 1.23457, agree ✓"
    assert words[5] == "left side 1.50000, right side 1.50000, DISAGREE ✗"
    assert texts[2].get_color() != texts[5].get_color()
    assert drawn([Line("a", "Below zero.", -0.25, -0.25)])[1][2].get_text().startswith("left side −0.250000,")


def test_the_texts_of_the_still_picture_keep_apart_and_within_it():
    fraction = Line(
        r"L = \frac{\beta_2^2}{2 \sigma_2^2 \alpha_2 (1 - \bar\alpha_2)} E_q (a - b)^2", "Words.", 2.0, 2.0
    )
    wordy = Line(
        "a", "Words that go on and on, until they are as wide as the picture, and then a little more. " * 2
    )
    picture, texts = drawn([fraction, LINES[2], wordy, fraction, fraction])
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == 13
    for above, below in itertools.pairwise(boxes):
        assert above.y0 >= below.y1
    assert boxes[-1].y0 >= 0 and boxes[0].y1 <= picture.bbox.y1
    assert max(box.x1 for box in boxes) <= picture.bbox.x1


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
