"""The many seeds of chapter 3: the record says what the chapter says, and its parts do what they claim."""

from __future__ import annotations

import json
import math
import re

import chapter_03
import pytest
import torch
from conftest import cells_of, close

BOOK = cells_of("03_the_perfect_denoiser")
RECORD = json.loads(chapter_03.RECORD.read_text(encoding="utf-8"))


def told(cell: str) -> str:
    return re.sub(r"\s+", " ", BOOK[cell].source)


@pytest.fixture(scope="module")
def digits() -> chapter_03.Digits:
    return chapter_03.Digits()


def test_the_record_is_whole():
    assert {part.__name__ for part in chapter_03.PARTS} == RECORD.keys() - {"device", "seconds"}
    assert len(RECORD["drawn"]) == 10 and len(RECORD["counts"]["medians at t = 100"]) == 20
    assert [len(row) for row in RECORD["walk"]["40"].values()] == [12, 12, 12]


def test_the_rivals_are_those_of_the_prediction():
    text, found = told("predict-1"), RECORD["rivals"]
    assert f"is typically {found['median']:.0f} (" in text
    assert f"only {found['median of ones']:.0f}." in text
    a, s = (float(value) for value in chapter_03.TABLE.signal_noise(60 / 200))
    assert f"{a:.2f} to {s:.2f} with noise" in text and f"= {a**2 / (2 * s**2):.2f}$ times" in text
    rival = round(a**2 / (2 * s**2) * found["median"])
    assert f"That makes {rival}" in text and f"$e^{{-{rival}}}$" in text
    counts = RECORD["counts"]
    assert "half of all ones" in text and 0.45 < counts["shared at t = 60, ones"] < 0.55
    assert "fewer than one in a hundred" in text and counts["shared at t = 60, others"] < 0.01
    # the squared distance per pixel from a new digit to the nearest known one
    assert "stays near 0.12" in told("curves-saw") and round(found["test, mean per pixel"], 2) == 0.12


def test_the_errors_of_a_thousand_digits():
    text, errors = told("curves-saw"), RECORD["errors"]
    old, new = (errors[where]["40"]["network"] for where in ("training", "test"))
    assert f"we measured {old[0]:.4f} and {new[0]:.4f}, each ± {old[1]:.4f}" in text
    assert f"{new[1]:.4f}" == f"{old[1]:.4f}"
    for t in map(str, chapter_03.STEPS):
        (old, a), (new, b) = (errors[where][t]["network"] for where in ("training", "test"))
        assert abs(old - new) < 3 * math.hypot(a, b)
    # on new digits they meet between t = 100 and t = 120
    gaps = {t: errors["test"][str(t)]["10,000 points - network"] for t in (80, 100, 120)}
    assert gaps[80][0] > 4 * gaps[80][1] and gaps[100][0] > 0 and gaps[120][0] < -4 * gaps[120][1]
    for where in errors.values():
        for t in ("150", "200"):
            means = [where[t][who][0] for who in ("10,000 points", "Gaussian", "network")]
            assert max(means) < 1.01 * min(means)
        assert where["40"]["Gaussian - network"][0] > 0
    training = errors["training"]
    for t in (20, 40, 60, 80):
        assert training[str(t)]["network"][0] > 8 * training[str(t)]["10,000 points"][0]


def test_the_underflows_of_the_bug():
    text, found = told("bug-float64"), RECORD["underflow"]
    assert f"zero for {found['test']['20']:.0%} of".replace("%", " %") in text and found["test"]["5"] == 1
    assert set(found["training"].values()) == {0.0}
    cat = found["cat, other probes"]
    assert f"{cat['1']:.0%} of them at $t = 1$ and for {cat['5']:.0%} at".replace("%", " %") in text


def test_digit_b_is_one_in_twenty():
    text, found = told("why-answer"), RECORD["mistaken"]
    assert all(0.045 < share < 0.055 for share in found["wrong"])
    assert "one test digit in twenty" in text
    assert "in 20 trials it never said eight" in text and len(found["B"]) == 20 and set(found["B"]) == {3, 5}


def test_the_walks():
    text, found = told("why-training"), RECORD["walk"]["40"]
    perfect, network = found["10,000 points"], found["network"]
    assert "half to nine tenths" in text and 0.49 < min(perfect) and max(perfect) < 0.91
    assert "more than an eighth" in text and max(network) < 1 / 8
    assert "twelve such walks" in text


def test_the_drawn_digits_are_farther_than_test_digits():
    text, rows = told("copies-saw"), RECORD["drawn"]
    span = lambda key: sorted(row[key] for row in rows)[:: len(rows) - 1]  # noqa: E731
    (low, high), (least, most), (near, far) = span("gap"), span("standard errors"), span("nearest")
    assert f"{low:.3f} to {high:.3f}, or {least:.1f} to {most:.1f} standard errors" in text
    assert f"at a distance of {near:.3f} to {far:.3f}" in text
    # the chapter's own run is one of them
    run = "".join(output.get("text", "") for output in BOOK["distances"].outputs)
    own = rows[0]
    assert own["seed"] == 5 and f"mean {own['mean']:.3f}" in run and f"from {own['nearest']:.3f}" in run
    assert f"from {own['nearest of test']:.3f}" in run


def test_the_measures_agree_with_loops(digits):
    found = chapter_03.rivals(digits, 20)
    pixels = digits.known.flatten(1).double()
    nearest = []
    for i in range(20):
        squares = (pixels - pixels[i]).square().sum(1)
        nearest.append(squares[torch.arange(10_000) != i].min())
    close(found["median"], torch.stack(nearest).median(), 1e-6)

    found = chapter_03.errors(digits, count=6, steps=(40,))["test"]["40"]
    noisy = digits.noisy(digits.strangers[:6], 40, 2)
    flat = noisy.flatten(1).double()
    a, s = chapter_03.TABLE.signal_noise(40 / 200)
    weights = torch.softmax(-(torch.cdist(flat, a * pixels) ** 2) / (2 * s**2), 1)
    each = (weights @ pixels - digits.strangers[:6].flatten(1)).square().mean(1)
    close(found["10,000 points"], [each.mean(), each.std() / 6**0.5], 1e-5)


def test_the_parts_run_small(digits):
    counts = chapter_03.counts(digits, range(1), 20)
    assert 2 < counts["medians at t = 100"][0] < 200
    zero = chapter_03.underflow(digits, 10)
    assert zero["test"]["5"] == 1 and zero["training"]["5"] == 0
    assert chapter_03.mistaken(digits, range(1))["B"] == RECORD["mistaken"]["B"][:1]
    walk = chapter_03.walk(digits, pairs=1)["40"]
    assert walk["network"][0] < walk["10,000 points"][0]
    close(walk["Gaussian"], 1 / 40, 1e-4)
    [row] = chapter_03.drawn(digits, range(5, 6), 4)
    assert row["nearest"] > 0.02 and row["mean"] > row["nearest"]
    assert chapter_03.rounded({"a": [0.123456, 2]}) == {"a": [0.1235, 2]}
