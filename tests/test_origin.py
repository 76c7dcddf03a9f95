"""Where this book came from: every test, function and recipe that the page points to is there."""

import importlib
import json
import re
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "where_this_book_came_from.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line[:2] == "| "
]
STATEMENTS = [row for row in ROWS if row[0] not in ("The notes say", "---")]


def test_every_statement_is_treated_implemented_and_held():
    assert len(STATEMENTS) > 15 and all(len(row) == 4 and all(row) for row in STATEMENTS)
    assert [row[0] for row in STATEMENTS if "tests/test_" not in row[3]] == []


@pytest.mark.parametrize("name", re.findall(r"`(tests/[\w.]+::\w+)`", PAGE))
def test_the_tests_exist(name):
    file, _, test = name.partition("::")
    assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("name", re.findall(r"\{py:\w+\}`ddpm_lib\.([\w.]+)`", PAGE))
def test_the_functions_exist(name):
    module, *parts = name.split(".")
    assert reduce(getattr, parts, importlib.import_module(f"ddpm_lib.{module}")).__doc__


@pytest.mark.parametrize("recipe", ["mnist64", "cifar64"])
def test_the_recipe_of_the_notes_is_theirs(recipe):
    settings = json.loads((ROOT / "recipes" / f"{recipe}.json").read_text(encoding="utf-8"))
    wanted = {"size": 64, "channels": 3, "schedule": "linear", "predict": "eps", "optimizer": "adam"}
    assert wanted.items() <= settings.items() and f"{recipe}.json" in PAGE
