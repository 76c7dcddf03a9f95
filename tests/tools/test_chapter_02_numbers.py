"""The seeds and the network of chapter 2: what the record holds, what the chapter says of it, and how it was measured."""

from __future__ import annotations

import json

import chapter_02 as experiment
import pytest
import torch
from conftest import cells_of

from ddpm_lib.data import load_images, to_float

ARMS = ("short chain", "short chain, true start", "betas times 5", "zero terminal SNR")


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return json.loads(experiment.RECORD.read_text())["runs"]


@pytest.fixture(scope="module")
def cells() -> dict[str, str]:
    return {
        name: " ".join(cell.source.split())
        for name, cell in cells_of("02_destroying_data_on_purpose").items()
    }


def of(rows, who, arm, what) -> list[float]:
    return [row[what] for row in rows if (row["who"], row["arm"]) == (who, arm)]


def test_the_record_is_whole(rows):
    exact = {(arm, seed, 500) for arm in ARMS for seed in range(5)}
    assert {(row["arm"], row["seed"], row["count"]) for row in rows if row["who"] == "exact"} == exact
    network = {("data", 10_000), *((arm, 200) for arm in ARMS[:3])}
    assert {(row["arm"], row["count"]) for row in rows if row["who"] == "network"} == network
    assert len(rows) == 24


def test_what_the_chapter_says_of_other_seeds(rows, cells):
    bright, ones = (of(rows, "exact", "short chain", what) for what in ("brightness", "percent_ones"))
    text = cells["bug-hunt"]
    assert f"between ${min(bright):.3f}$ and ${max(bright):.3f}$" in text
    assert f"between {min(ones):.1f} and {max(ones):.1f} %" in text and "Five other seeds" in text


def test_the_cures_hold_with_other_seeds(rows):
    # the 500 digits have -0.737 and 10 %; four standard errors of 500 draws
    for arm in ARMS[1:]:
        spread = max(of(rows, "exact", arm, "brightness_sd"))
        bright, ones = (of(rows, "exact", arm, what) for what in ("brightness", "percent_ones"))
        assert all(abs(value + 0.737) < 4 * spread / 500**0.5 for value in bright)
        assert all(abs(value - 10) < 4 * (10 * 90 / 500) ** 0.5 for value in ones)
        assert max(bright) < min(of(rows, "exact", "short chain", "brightness")) - 0.05


def test_what_the_chapter_says_of_the_network(rows, cells):
    text = cells["bug-hunt"]
    for arm in ("short chain", "short chain, true start"):
        assert f"${of(rows, 'network', arm, 'brightness')[0]:.2f}$" in text
    for arm in ("short chain, true start", "betas times 5"):
        [row] = [row for row in rows if (row["who"], row["arm"]) == ("network", arm)]
        error = row["brightness_sd"] / row["count"] ** 0.5
        assert abs(row["brightness"] - of(rows, "network", "data", "brightness")[0]) < 3 * error
    [short] = of(rows, "network", "short chain", "brightness")
    assert short > of(rows, "network", "short chain, true start", "brightness")[0] + 0.04


def test_one_seed_is_what_the_chapter_does():
    rows = experiment.exact(0, count=4)
    assert [row["arm"] for row in rows] == list(ARMS)
    assert all(-1 < row["brightness"] < -0.3 and row["count"] == 4 for row in rows)
    # the starts of the arms: one noise, and true digits in the second
    digits = to_float(load_images("mnist").images[:8])
    noise = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    starts = {name: start for name, (_, start) in experiment.arms(digits, noise, torch.Generator()).items()}
    assert starts["short chain"] is noise and starts["betas times 5"] is noise
    a, s = experiment.SHORT.signal_noise(1.0)
    back = (starts["short chain, true start"] - s.float() * noise) / a.float()
    assert torch.cdist(back.flatten(1), digits.flatten(1)).min(1).values.max() < 1e-3


def test_the_network_can_be_measured():
    rows = experiment.network(count=2, steps=2)
    assert [row["arm"] for row in rows] == ["data", *ARMS[:3]]
    assert rows[0]["percent_ones"] == pytest.approx(10, abs=0.1)
