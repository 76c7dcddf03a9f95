"""The times at the head of chapters, on the map and in the plan for teachers are those that are counted."""

from __future__ import annotations

import nbformat
import pytest
import reading
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

HEAD = "# Title\n\n**A question?**\n\n*Core path 00 min · whole chapter 00 min · exercises 00 min*"
CHAPTERS = {path.stem: path for path in reading.chapters()}


def chapter(*cells: str) -> nbformat.NotebookNode:
    """A chapter of these cells; one that begins with `>>>` is code."""
    made = [
        new_code_cell(text[3:].strip("\n")) if text.startswith(">>>") else new_markdown_cell(text)
        for text in cells
    ]
    return new_notebook(cells=made)


def core(*cells: str) -> float:
    return sum(part.minutes for part in reading.sections(chapter(*cells)) if not part.deeper)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_says_its_times_and_its_core_path_stands_alone(name):
    path = CHAPTERS[name]
    assert reading.faults(nbformat.read(path, 4), reading.limit_of(path)) == []


@pytest.mark.parametrize("page", reading.PAGES, ids=lambda page: page.name)
def test_pages_say_the_minutes_of_chapters(page):
    text = page.read_text(encoding="utf-8")
    assert text == reading.page_with_times(text, reading.core_times())
    for number in range(1, len(CHAPTERS) + 1):
        lines = [line for line in text.splitlines() if f"({number:02}_" in line]
        assert any(" min" in line for line in lines), f"{page.name} says nothing about chapter {number}"


def test_words_formulas_lines_and_figures_are_counted():
    words = "one two three $x_0 + y$ five"
    assert core(words) == pytest.approx(5 / reading.WORDS_A_MINUTE)
    assert core("$$a = b$$ (eq-a)") == core("$$a\n= b$$") == pytest.approx(reading.MINUTES_A_FORMULA)
    assert core(">>>a = 1\n\nb = 2") == pytest.approx(2 / reading.LINES_A_MINUTE)
    nb = chapter(">>>a = 1")
    nb.cells[0].outputs = [new_output("display_data", {"image/png": ""}), new_output("stream", text="1 2 3")]
    assert reading.sections(nb)[0].figures == 1


def test_what_is_folded_counts_in_the_whole_only():
    text = "one two three\n\n```{admonition} Why\n:class: dropdown\nfour five\n\n$$a$$\n```\n"
    (part,) = reading.sections(chapter(text))
    assert (part.words, part.formulas) == (3, 0)
    assert (part.folded_words, part.folded_formulas) == (2, 1)
    (part,) = reading.sections(chapter(text.replace(":class: dropdown\n", "")))
    assert (part.words, part.folded_words) == (5, 0)


@pytest.mark.parametrize("tag", ["hide-input", "remove-cell"])
def test_code_that_is_not_seen_takes_no_time(tag):
    nb = chapter(">>>a = 1")
    nb.cells[0].metadata.tags = [tag]
    assert sum(part.lines for part in reading.sections(nb)) == 0


def test_a_deeper_section_ends_at_a_heading_of_its_level():
    nb = chapter(
        "# T\n\na",
        "## One\n\nb",
        "### Deeper: x\n\nc",
        "#### y\n\nd",
        "### z\n\ne",
        "## Deeper: v\n\nf",
        "### w\n\ng",
        "## u",
    )
    found = {part.title: part.deeper for part in reading.sections(nb)}
    assert found == {
        "T": False,
        "One": False,
        "Deeper: x": True,
        "y": True,
        "z": False,
        "Deeper: v": True,
        "w": True,
        "u": False,
    }


def test_two_headings_in_one_cell_are_two_sections():
    assert [part.words for part in reading.sections(chapter("## a\n\none\n\n## b\n\none two"))] == [1, 2]


def test_exercises_and_references_are_apart():
    exercise = "```{exercise} Name\n:label: ex-a\n\nten words\n```"
    nb = chapter(HEAD, "## Exercises\n\nwords", exercise, ">>>a = 1", "```{solution-start} ex-a\n```", ">>>b = 1", "```{solution-end}\n```",
                 exercise, "## Summary\n\none\n\n## References\n\none two three")  # fmt: skip
    parts = {part.title: part for part in reading.sections(nb)}
    assert reading.times(nb).exercises == 2 * reading.MINUTES_AN_EXERCISE
    assert parts["Exercises"].minutes == parts["References"].minutes == 0
    assert parts["Summary"].words == 1


def test_a_solution_takes_no_time_wherever_it_stands():
    opened = "```{solution-start} ex-a\n```\n\nsome words"
    assert core("one", opened, ">>>a = 1", "two\n\n```{solution-end}\n```", "three") == core("one", "three")


@pytest.mark.parametrize(
    "deep, used, fine",
    [
        ("a = 1", "print(a)", False),
        ("def a(): ...", "a()", False),
        ("import math", "math.pi", False),
        ("for a in x: ...", "print(a)", False),
        ("a = 1", "a = 2\nprint(a)", True),
        ("x = 2", "print(x)", False),  # the core made it, a Deeper cell changed it
        ("x += 1", "print(x)", False),
        ("a = 1", "def f(a): return a", True),
        ("a = 1", "[a for a in x]", True),
        ("a = 1", "def f():\n    return a", False),
        ("def f():\n    b = 1", "def g():\n    b = 2\n    return b", True),
        ("a = 1", "def f():\n    return 1", True),
    ],
)
def test_a_core_path_that_needs_a_deeper_section_is_reported(deep, used, fine):
    nb = chapter(HEAD, ">>>x = [1]", "## Deeper: b", f">>>{deep}", "## c", f">>>{used}")
    said = reading.needs_deeper(nb)
    assert bool(said) is not fine, said
    if not fine:
        assert nb.cells[-1].id in said[0] and "Deeper: b" in said[0]


def test_a_deeper_section_may_use_another():
    assert not reading.needs_deeper(chapter(HEAD, "## Deeper: b", ">>>a = 1", "## Deeper: c", ">>>print(a)"))


def test_exercises_may_use_a_deeper_section():
    assert not reading.needs_deeper(chapter(HEAD, "## Deeper: b", ">>>a = 1", "## Exercises", ">>>print(a)"))


def test_write_puts_the_count_into_the_head_and_check_sees_what_is_old(tmp_path):
    path = tmp_path / "01_name.ipynb"
    nbformat.write(chapter(HEAD, "word " * 10 * reading.WORDS_A_MINUTE), path)
    assert any("counted are *Core path 10 min" in fault for fault in reading.faults(nbformat.read(path, 4)))
    assert reading.write(path) and not reading.write(path)
    assert reading.faults(nbformat.read(path, 4)) == []


def test_a_long_core_path_and_a_missing_line_are_faults(tmp_path):
    limit = reading.CORE_LIMIT * reading.WORDS_A_MINUTE
    nb = chapter(HEAD, "word " * limit)
    assert not any("more than" in fault for fault in reading.faults(nb))
    nb.cells[1].source += "word " * reading.WORDS_A_MINUTE
    assert any("46 minutes, more than 45" in fault for fault in reading.faults(nb))
    path = tmp_path / "01_name.ipynb"
    nbformat.write(chapter("# Title"), path)
    with pytest.raises(ValueError, match="01_name.ipynb: its first cell has no line"):
        reading.write(path)


def test_a_chapter_is_called_long_only_while_it_is():
    for number in reading.LONG:
        (path,) = (path for name, path in CHAPTERS.items() if name.startswith(number))
        assert reading.times(nbformat.read(path, 4)).core > reading.CORE_LIMIT


def test_minutes_on_a_page_follow_the_links_of_their_line():
    core = {"01_a": 41, "02_b": 42}
    page = "[1](01_a.ipynb), [2](02_b.ipynb): 1 min, 2 min, 3 min\n<a href='02_b.html'>0 min\n7 min\n[1](01_a.ipynb)"
    expected = "[1](01_a.ipynb), [2](02_b.ipynb): 41 min, 42 min, 3 min\n<a href='02_b.html'>42 min\n7 min\n[1](01_a.ipynb)"
    assert reading.page_with_times(page, core) == expected
