"""Where this book came from: every test, function and recipe that the page points to is there."""

import importlib
import json
import re
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "where_this_book_came_from.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line[:2] == "| "
]
STATEMENTS = [row for row in ROWS if row[0] not in ("The notes say", "---")]


def test_every_statement_is_treated_implemented_and_held():
    assert len(STATEMENTS) > 15 and all(len(row) == 4 and all(row) for row in STATEMENTS)
    assert [row[0] for row in STATEMENTS if "`tests/" not in row[3]] == []


@pytest.mark.parametrize("name", re.findall(r"`(tests/[\w./]+::\w+)`", PAGE))
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


def test_what_the_page_says_of_the_recipe_is_in_the_ledger():
    ledger = json.loads((ROOT / "book" / "ledger.json").read_text(encoding="utf-8"))
    rows = {row["model"]: row for row in ledger if row["size"] == [64, 64, 3]}
    value = {name: {each["name"]: each["value"] for each in row["metrics"]} for name, row in rows.items()}
    noise, v, colour = value["mnist64"], value["mnist64-v"], value["cifar64"]
    (real,) = (each["real"] for each in rows["mnist64"]["metrics"] if each["name"] == "Fréchet distance")
    for said in (
        f"names {100 * v['label accuracy']:.1f} % as asked",
        f"With the noise it is {100 * noise['label accuracy']:.1f} %",
        f"{v['Fréchet distance']:.1f} and {noise['Fréchet distance']:.0f}; that of real digits is {real:.2f}",
        f"names {100 * colour['label accuracy']:.0f} % of {rows['cifar64']['count']:,} samples as asked",
    ):
        assert said in " ".join(PAGE.split())
    training = [row["training"] for row in rows.values()]
    assert {each["steps"] for each in training} == {4000} and {each["images_seen"] for each in training} == {
        128000
    }
    minutes = [round(each["seconds"] / 60) for each in training]
    assert f"{min(minutes)} to {max(minutes)} minutes" in " ".join(PAGE.split())
