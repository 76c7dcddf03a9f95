"""The words that the house avoids are in no text of the book."""

from __future__ import annotations

import nbformat
import prose
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

WORDS = prose.avoided()


@pytest.mark.parametrize("path", prose.texts(), ids=lambda path: path.name)
def test_no_text_says_what_the_house_avoids(path):
    found = [(place, *fault) for place, text in prose.prose(path) for fault in prose.faults(text, WORDS)]
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize(
    "text",
    [
        "It is the law of the data.",
        "Mind that the noise is fresh.",
        "The rest is left out. May one?",
        "Nothing is left but for the noise.",
        "Three lines want a word.",
        "How much is lost? What is lost, we compute.",
    ],
)
def test_what_is_avoided_is_found(text):
    assert len(prose.faults(text, WORDS)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "The law of large numbers and a power law.",
        "`law = normal` and $law$ and [a link](law.md)",
        "```python\nlaw = 1\n```",
        "$$\nlaw\n$$",
        "$$a$$ (eq-equal-laws)",
        "Keep in mind that no law of nature says so.",
    ],
)
def test_code_formulas_and_names_are_not_prose(text):
    assert prose.faults(text, WORDS) == []


def test_a_fault_says_where_it_is_and_what_to_say_instead(tmp_path, capsys):
    cells = [new_code_cell("law = 1"), new_markdown_cell("One.\n\nThe law of the data.", id="here")]
    cells[0].metadata.mystnb = {"figure": {"caption": "A law."}}
    cells[0].id = "figure-cell"
    nbformat.write(new_notebook(cells=cells), tmp_path / "a.ipynb")
    assert prose.main([str(tmp_path / "a.ipynb")]) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert said[0].startswith("a.ipynb, cell here: “One. The law of the data.” → distribution")
    assert said[1].startswith("a.ipynb, caption of figure-cell")


def test_admonitions_are_prose():
    assert prose.faults("```{admonition} The law\n:class: dropdown\nanother law\n```", WORDS)


def test_a_line_of_the_list_needs_a_way_out(tmp_path):
    (tmp_path / "words.txt").write_text("# why\nword\n")
    with pytest.raises(ValueError, match="words.txt, line 2"):
        prose.avoided(tmp_path / "words.txt")
