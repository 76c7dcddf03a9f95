"""The runs of experiments/chapter_05.py: the record is of the code that the chapter has now, and says what the chapter says."""

from __future__ import annotations

import json

import chapter_05
import pytest
from conftest import cells_of


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return json.loads(chapter_05.RECORD.read_text())["runs"]


@pytest.fixture(scope="module")
def text() -> dict[str, str]:
    return {name: cell.source for name, cell in cells_of("05_five_names_for_one_network").items()}


def of(rows, name, recipe, key) -> list[float]:
    """A number of each seed's run, in the order of the seeds."""
    found = [row for row in rows if (row["name"], row["rate"], row["steps"]) == (name, *recipe)]
    assert [row["seed"] for row in found] == list(range(6))
    return [row[key] for row in found]


def test_the_record_is_whole_and_of_the_chapters_present_code(rows):
    assert json.loads(chapter_05.RECORD.read_text())["code"] == chapter_05.fingerprint()
    made = [(row["name"], row["seed"], row["rate"], row["steps"]) for row in rows]
    assert sorted(made) == sorted(chapter_05.planned(6)) and len(made) == len(set(made)) == 102


def test_the_chapters_table_of_recipes_is_the_records(rows, text):
    assert chapter_05.recipes_table(rows) in text["which"]


def test_the_words_about_the_recipes_are_true_of_the_record(rows, text):
    said = text["which"]
    _, short, slow, long = chapter_05.RECIPES
    every = lambda recipe: [of(rows, name, recipe, "clipped" if name == "eps" else "valid") for name in ("eps", "x0", "v", "flow")]  # noqa: E731  # fmt: skip
    for recipe, ahead, behind in ((short, 0, 2), (slow, 2, 0)):
        shares = every(recipe)
        won = [one > other for one, other in zip(shares[ahead], shares[behind], strict=True)]
        assert sum(won) == 5
        assert all(flow > max(others) for *others, flow in zip(*shares, strict=True))
    assert (
        "clipped `eps` beats `v` in five seeds of six" in said
        and "`v` beats clipped `eps` in five of six" in said
    )
    shares = every(long)
    assert all(max(eps, v, flow) - min(eps, v, flow) < 0.02 for eps, _, v, flow in zip(*shares, strict=True))
    assert sum(flow > max(eps, v) for eps, _, v, flow in zip(*shares, strict=True)) < 3


def test_the_words_about_the_first_step_are_true_of_the_record(rows, text):
    starts = of(rows, "eps", chapter_05.USUAL, "starts")
    shares = {t: [100 * each[t] for each in starts] for t in ("1000", "999", "998", "980")}
    low, high = min(shares["999"]), max(shares["999"])
    words = f"at most 1 % from 1000, {low:.0f} to {high:.0f} % from 999, and {min(shares['980']):.0f} to {max(shares['980']):.0f} % from 980"
    assert words in text["starts-saw"] and max(shares["1000"]) <= 1
    assert min(shares["998"]) > 50  # "most of them"
    clipped = of(rows, "eps", chapter_05.USUAL, "clipped")
    together = zip(starts, clipped, strict=True)
    assert max(abs(each["980"] - other) for each, other in together) < 0.035  # "as good as with clipping"
    for name in ("v", "flow"):
        for each in of(rows, name, chapter_05.USUAL, "starts"):
            assert min(each.values()) > 0.89 and max(each.values()) - min(each.values()) < 0.02


def test_the_words_about_the_width_of_the_spots_are_true_of_the_record(rows, text):
    x0, v = (of(rows, name, chapter_05.USUAL, "width") for name in ("x0", "v"))
    words = f"a width of {min(x0):.2f} to {max(x0):.2f}, those of `v` {min(v):.2f} to {max(v):.2f}"
    assert words in text["draw-five-saw"]


def test_the_words_about_the_grain_are_true_of_the_record(rows, text):
    spread = chapter_05.spreads(rows)
    said = text["grain-2-saw"]
    for name, words in (("flow", "{:.0f} to {:.0f} for `flow`"), ("v", "{:.0f} to {:.0f} for `v`"), ("x0", "{:.0f} to {:.0f} for `x0`")):  # fmt: skip
        assert words.format(min(spread[name]), max(spread[name])) in said
    low, high = (round(each, -1) for each in (min(spread["eps"]), max(spread["eps"])))
    assert f"{low:.0f} to {high:.0f} for `eps`" in said
    assert min(spread["score"]) > 20_000 and "more than 20,000 for `score`" in said


def test_one_run_is_what_the_chapter_does(rows, monkeypatch):
    book = chapter_05.chapter()
    short = lambda train: lambda name, **options: train(name, **options | {"steps": 3})  # noqa: E731
    book["train"] = short(book["train"])
    book["stops"] = [500]
    row = chapter_05.one(book, "v", 0, *chapter_05.USUAL, starts=(1000, 980))
    net = book["train"]("v", seed=0, rate=1e-2)
    free, clipped = book["draw_both"](net, "v")
    assert (row["valid"], row["clipped"]) == pytest.approx((book["valid"](free), book["valid"](clipped)), abs=1e-4)  # fmt: skip
    assert row["starts"]["1000"] == row["valid"] != row["starts"]["980"]
    assert row["grain"] == {"500": pytest.approx(book["grain"](net, "v", 500), rel=1e-2)}
    other = chapter_05.one(book, "v", 0, 1e-3, 700)
    assert "grain" not in other and "starts" not in other and other["valid"] != row["valid"]


def test_the_width_is_that_of_the_dots_within_a_spot():
    book = chapter_05.chapter()
    assert chapter_05.width(book, book["data"]) == pytest.approx(0.137, abs=0.002)  # 0.14 without its tails
    assert chapter_05.width(book, book["ring"] + 0.1) == pytest.approx(0.1, abs=1e-6)
