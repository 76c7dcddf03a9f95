"""From symptom to cause: what the page says of its rows, and that every symptom leads to a check and to a page."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

PAGE = Path(__file__).parents[2] / "book" / "troubleshooting.ipynb"
WORDS = {"sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20}


@pytest.fixture(scope="module")
def cells():
    return {cell.id: cell for cell in nbformat.read(PAGE, as_version=4).cells}


def rows_shown(source: str) -> list[str]:
    """The names of the rows of every show_rows({...}) in a cell."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    tables = [call.args[0] for call in calls if getattr(call.func, "id", "") == "show_rows"]
    return [key.value for table in tables if isinstance(table, ast.Dict) for key in table.keys]


def test_there_are_as_many_faults_as_the_page_says(cells):
    said = re.search(r"broken in (\w+) ways", cells["title"].source)[1]
    code = [cell.source for cell in cells.values() if cell.cell_type == "code" and cell.id != "setup"]
    named = [name for source in code for name in rows_shown(source) if name != "healthy"]
    # One more is the average of weights, in three strengths.
    assert len(named) + 1 == WORDS[said]


def test_every_symptom_has_a_cause_a_check_and_a_page(cells):
    lines = [line for cell in cells.values() for line in cell.source.splitlines() if line.startswith("| ")]
    symptoms = [line for line in lines if line.count(" | ") == 3 and not line.startswith(("| What", "| ---"))]
    assert len(symptoms) > 20
    for line in symptoms:
        what, cause, check, page = (part.strip() for part in line.strip("|").split(" | "))
        assert what and cause and check
        assert re.search(r"\]\([\w.]+\.(ipynb|md)\)", page) or page == "the same", line


def test_the_questions_lead_to_places_on_this_page(cells):
    asked = re.findall(r"\]\(#([\w-]+)\)", cells["tree"].source)
    places = {place for cell in cells.values() for place in re.findall(r"^\(([\w-]+)\)=$", cell.source, re.M)}
    assert asked and set(asked) == places
