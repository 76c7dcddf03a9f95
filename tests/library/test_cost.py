"""What a run is said to cost, and what would be cheaper."""

from dataclasses import replace

import pytest
from command import assert_equal, weights
from tiny_runs import started

from ddpm_lib import checkpoint, cost, prepare
from ddpm_lib.settings import Settings


def test_the_cost_is_two_lines_and_changes_nothing(tmp_path, monkeypatch):
    settings = {"steps": cost.WORTH_A_TRIAL, "dropout": 0.3, "size": 32}
    _, said = started(tmp_path / "timed", **settings)
    first, second = said[1].split("\n")
    count = sum(p.numel() for p in checkpoint.load(tmp_path / "timed").net.parameters())
    assert first.startswith(f"cost: {count:,} weights, ") and "GFLOP a picture" in first
    assert "a step of 8 pictures takes" in first and "10 steps take about" in first
    assert second.startswith("cheaper: --size 16 (") and "% of it)" in second
    monkeypatch.setattr(cost, "WORTH_A_TRIAL", 1000)
    _, said = started(tmp_path / "untimed", **settings)
    assert "not timed" in said[1]
    assert_equal(weights(tmp_path / "timed"), weights(tmp_path / "untimed"))


@pytest.mark.parametrize("width", [32, 48, 64, 128])
def test_what_is_said_to_be_cheaper_is(width):
    config = prepare.network_config(prepare.resolved(Settings(steps=1, width=width)), 64, 3, 10)
    offers = cost.cheaper(config)
    assert {how.split()[0] for how, _ in offers} >= {"--size", "--width", "--blocks"}
    for how, other in offers:
        option, value = how.split()
        given = {"--size": "image_size", "--width": "width", "--blocks": "blocks", "--patch": "patch"}[option]
        assert getattr(other, given) == int(value) and cost.macs(other) < cost.macs(config), how


def test_a_convolution_is_counted_as_it_is():
    """By hand: a net without levels has six convolutions a block pair; doubling the width nearly quadruples them."""
    narrow = prepare.network_config(prepare.resolved(Settings(steps=1, width=32)), 32, 3, 0)
    ratio = cost.macs(replace(narrow, width=64)) / cost.macs(narrow)
    assert 3.5 < ratio < 4
