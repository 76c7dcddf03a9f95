"""The many seeds of chapter 1: what the record holds, what the chapter says of it, and how it was measured."""

from __future__ import annotations

import json
import re

import chapter_01 as experiment
import pytest
import torch
from conftest import cells_of


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads(experiment.RECORD.read_text())


@pytest.fixture(scope="module")
def cells() -> dict[str, str]:
    return {name: cell.source for name, cell in cells_of("01_from_noise_to_a_picture").items()}


@pytest.fixture(scope="module")
def book() -> dict:
    return experiment.chapter()


def test_the_record_is_whole(record):
    assert [each["seed"] for each in record["ends"]] == list(experiment.SEEDS)
    for name in ("ink", "slant"):
        assert torch.tensor(record[name]).shape == (experiment.NOISES, 10)


def test_what_the_chapter_says_about_the_ends(record, cells):
    said = " ".join(cells["paths-saw"].split())
    assert f"{len(record['ends'])} other seeds" in said
    together = float(re.search(r"never more than ([\d.]+) apart", said)[1])
    apart = float(re.search(r"never less than ([\d.]+),", said)[1])
    assert together - 0.01 < max(each["one noise"] for each in record["ends"]) < together
    assert apart < min(each["one start"] for each in record["ends"]) < apart + 0.1
    cat = experiment.chapter()["cat"]
    assert f"the cat is {(cat[:, 0].max() - cat[:, 0].min()).item():.1f} wide" in said


def test_what_the_chapter_says_about_style(record, cells):
    said = " ".join(cells["siblings-saw"].split())
    ink, slant = torch.tensor(record["ink"]), torch.tensor(record["slant"])
    assert f"with {len(ink)} noises" in said
    for name, values, words in (("ink", ink, "95 % interval "), ("slant", slant, "")):
        low, high = experiment.interval(lambda rows, values=values: experiment.settled(values[rows]))
        share = f"{100 * experiment.settled(values):.0f} % of the variance of the {name}"
        assert f"{share} ({words}{100 * low:.0f} to {100 * high:.0f} %)" in said
        assert f"would reach {100 * experiment.by_chance(values):.0f} %" in said
    # paired: the same noises for both
    low, high = experiment.interval(
        lambda rows: experiment.settled(ink[rows]) - experiment.settled(slant[rows])
    )
    difference = experiment.settled(ink) - experiment.settled(slant)
    points = [round(100 * each) for each in (difference, low, high)]
    assert "The difference is {} points ({} to {})".format(*points) in said


def test_a_seed_comes_back(book, record):
    fresh, stored = experiment.ends(book, 100), record["ends"][0]
    for name in ("one noise", "one start"):
        assert fresh[name] == pytest.approx(stored[name], abs=2e-3)


@pytest.mark.slow
def test_digits_come_back(book, record):
    images = experiment.siblings(book, range(1))
    for name, measure in (("ink", experiment.ink), ("slant", experiment.slant)):
        assert measure(images)[0].tolist() == pytest.approx(record[name][0], abs=5e-3)


def test_settled_knows_all_and_nothing():
    generator = torch.Generator().manual_seed(0)
    noise, labels = torch.randn(200, 1, generator=generator), torch.randn(1, 10, generator=generator)
    own = torch.randn(200, 10, generator=generator)
    assert experiment.settled(noise + labels) == pytest.approx(1)
    # a tenth by chance, more in one of twenty tries
    assert experiment.settled(labels + own) == pytest.approx(0.1, abs=0.02)
    assert 0.1 < experiment.by_chance(labels + own, tries=500) < 0.13
    # half of the variance is shared: 0.5 + 0.5 / 10
    assert experiment.settled(noise + own) == pytest.approx(0.55, abs=0.07)


def test_ink_and_slant_of_a_stroke():
    image = torch.full((2, 1, 28, 28), -1.0)
    for row in range(4, 24):
        image[0, 0, row, 14] = 1.0  # upright
        image[1, 0, row, 14 + (14 - row) // 2] = 1.0  # a column to the right for two rows upwards
    assert experiment.ink(image).tolist() == pytest.approx([20 / 784] * 2)
    upright, leaning = experiment.slant(image).tolist()
    assert upright == pytest.approx(0, abs=1e-6) and leaning == pytest.approx(0.5, abs=0.02)
    assert experiment.slant(image.flip(-1))[1].item() == pytest.approx(-leaning, abs=1e-6)
