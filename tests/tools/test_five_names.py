"""The six seeds of chapter 5: the record is of the code that the chapter has now, and says what the chapter says."""

from __future__ import annotations

import json
import re

import five_names
import pytest
import torch
from conftest import cells_of

NAMES = ("eps", "x0", "v", "score", "flow")


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return json.loads(five_names.RECORD.read_text())["runs"]


@pytest.fixture(scope="module")
def book() -> dict:
    return five_names.chapter()


def shares(rows, name, loss, how) -> list[float]:
    return [row[how] for row in rows if (row["name"], row["loss"]) == (name, loss)]


def test_the_record_is_whole_and_of_the_chapters_present_code(rows):
    assert json.loads(five_names.RECORD.read_text())["code"] == five_names.fingerprint()
    expected = {(name, loss, seed) for name in NAMES for loss in five_names.LOSSES for seed in range(6)}
    assert {(row["name"], row["loss"], row["seed"]) for row in rows} == expected and len(rows) == 60


def test_the_chapters_table_is_the_records(rows):
    text = "\n".join(cell.source for cell in cells_of("05_five_names_for_one_network").values())
    assert five_names.table(rows) in text


def test_the_words_around_the_table_are_true_of_the_record(rows):
    for name in ("eps", "x0", "v", "flow"):
        for how in ("valid", "clipped"):
            found = shares(rows, name, "plain", how)
            assert max(found) - min(found) < 0.045
    first, second, *others = shares(rows, "score", "plain", "valid")
    assert first < 0.01 and second > 0.9 and max(others) < 0.055
    gain = lambda name, how: [  # noqa: E731
        after - before
        for before, after in zip(
            shares(rows, name, "plain", how), shares(rows, name, "min-SNR", how), strict=True
        )
    ]
    assert min(gain("x0", "valid")) > 0 and max(gain("eps", "clipped")) < 0
    assert max(map(abs, gain("v", "valid") + gain("flow", "valid"))) < 0.035
    assert sum(each > -0.005 for each in gain("score", "clipped")) == 2


def test_one_run_is_what_the_chapter_does(book, monkeypatch):
    row = five_names.one(book, "v", "plain", seed=0, steps=3)
    net = book["train"]("v", seed=0, steps=3)
    free, clipped = book["draw_both"](net, "v")
    assert (row["valid"], row["clipped"]) == pytest.approx((book["valid"](free), book["valid"](clipped)), abs=1e-4)  # fmt: skip
    assert row["errors"]["10"] == pytest.approx(book["error_of"](net, "v", 10), rel=1e-2)
    # min-SNR trains with another loss, from the same weights and examples
    other = five_names.one(book, "v", "min-SNR", seed=0, steps=3)
    assert other["loss"] == "min-SNR" and other["errors"] != row["errors"]


@pytest.mark.slow
def test_a_stored_run_comes_back(book, rows):
    torch.manual_seed(5)  # a run has a seed of its own
    fresh = five_names.one(book, "v", "plain", seed=1)
    (stored,) = [row for row in rows if (row["name"], row["loss"], row["seed"]) == ("v", "plain", 1)]
    assert abs(fresh["valid"] - stored["valid"]) < 0.03  # training amplifies the last digits
    assert re.fullmatch(r"[0-9a-f]{16}", five_names.fingerprint())
