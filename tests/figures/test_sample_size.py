"""Sample sizes: what is stored and refused, and what the browser shows against the measurements."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from ddpm_lib.figures import sample_size

from .examples import COUNTS, MEASURED
from .hands import choose, control, pull, shown, stored

REAL = MEASURED["pixels"]["real"]


def test_the_sample_sizes_are_stored_to_six_digits():
    data = stored(sample_size(COUNTS, MEASURED))
    assert data["counts"] == COUNTS and data["sets"] == ["real", "blurred", "no nines"]
    assert list(data["looks"]) == ["pixels", "network"]
    for look, each in MEASURED.items():
        for name, values in each.items():
            assert np.allclose(data["looks"][look][name], values, rtol=1e-5)


def test_the_sample_sizes_name_slips():
    with pytest.raises(ValueError, match="two at least"):
        sample_size(COUNTS, {"pixels": {"real": REAL}})
    with pytest.raises(ValueError, match="the same sets"):
        sample_size(COUNTS, MEASURED | {"other": {"real": REAL, "else": REAL, "no nines": REAL}})
    with pytest.raises(ValueError, match=r"\(K, R\) with K = 2"):
        sample_size(COUNTS[:2], MEASURED)
    with pytest.raises(ValueError, match="must rise"):
        sample_size([150, 300, 1200, 600, 2400], MEASURED)
    with pytest.raises(ValueError, match="above 0"):
        sample_size(COUNTS, {"pixels": {"real": REAL, "blurred": REAL - 1}})


# In the browser


def compared(page, look: str, other: str) -> None:
    """The numbers on show are those of the measurements at the two sizes."""
    a, b = (
        MEASURED[look][name][COUNTS.index(int(shown(page, f"n of {letter}")))]
        for letter, name in (("A", "real"), ("B", other))
    )
    for letter, values in (("A", a), ("B", b)):
        assert shown(page, f"value {letter}") == pytest.approx(values.mean().item(), rel=1e-5)
        # values are kept to six digits, and a spread is a difference of them
        assert shown(page, f"spread {letter}") == pytest.approx(2 * values.std().item(), rel=1e-3)
    wrong = 100 * (b[:, None] < a).double().mean().item()
    assert shown(page, "wrong") == pytest.approx(wrong, abs=1e-9)


def test_sample_sizes_agree_with_the_measurements(open_page, figures):
    page = open_page(figures("sample_size").html)
    compared(page, "pixels", "blurred")
    for look, other in (("network", "no nines"), ("pixels", "no nines"), ("network", "blurred")):
        choose(page, "look", look)
        choose(page, "other", other)
        for name, move in (
            ("n of A", "ArrowLeft"),
            ("n of B", "ArrowRight"),
            ("n of A", "End"),
            ("n of B", "Home"),
        ):
            control(page, name).press(move)
            compared(page, look, other)
        pull(page, "n of A", 0.02)
        pull(page, "n of B", 0.98)
        assert (shown(page, "n of A"), shown(page, "n of B")) == (150, 2400)
        compared(page, look, other)


def test_two_numbers_of_pictures_turn_the_order_round(open_page, figures):
    page = open_page(figures("sample_size").html)
    verdict = page.locator('[data-name="verdict"]')
    warned = page.locator('[data-name="verdict"].df-warn')
    assert shown(page, "wrong") == 0 and verdict.text_content() == "A is better than B, and you can see it."
    assert warned.count() == 0
    control(page, "n of A").press("Home")
    control(page, "n of B").press("End")
    assert shown(page, "wrong") == 100 and warned.count() == 1
    assert verdict.text_content() == "B looks better than A, and the two have different n."
    page.clock.run_for(600)
    assert page.locator(".df-heard").text_content() == verdict.text_content()
    choose(page, "other", "no nines")
    control(page, "n of B").press("Home")
    assert verdict.text_content() == "You cannot tell them apart."


@pytest.mark.parametrize("look", MEASURED)
def test_curves_bands_and_axes_are_those_of_the_measurements(open_page, figures, look):
    page = open_page(figures("sample_size").html)
    choose(page, "look", look)
    control(page, "n of B").press("End")
    every = torch.stack(list(MEASURED[look].values())).log10()
    low, high = math.floor(every.min()), math.ceil(every.max())
    above = lambda y: 8 + (high - max(low, math.log10(max(y, 1e-12)))) / (high - low) * (250 - 8 - 38)  # noqa: E731
    right = [56 + math.log(n / 150) / math.log(16) * (420 - 48 - 30) for n in COUNTS]
    svg = page.locator(".ddpm-stage svg")
    corners = lambda path: [float(value) for value in re.findall(r"[\d.]+", path.get_attribute("d"))]  # noqa: E731
    bands, curves = svg.locator('path[opacity="0.22"]').all(), svg.locator('path[fill="none"]').all()
    for name, band, curve in zip(("real", "blurred"), bands, curves, strict=True):
        mean, twice = MEASURED[look][name].mean(1), 2 * MEASURED[look][name].std(1)
        upper, lower = (mean + twice).tolist(), (mean - twice).tolist()
        middle = [value for x, y in zip(right, mean.tolist(), strict=True) for value in (x, above(y))]
        assert corners(curve) == pytest.approx(middle, abs=0.02)
        around = [*zip(right, upper, strict=True), *zip(right[::-1], lower[::-1], strict=True)]
        assert corners(band) == pytest.approx([value for x, y in around for value in (x, above(y))], abs=0.05)
    bar = svg.locator('line[stroke-width="3"]').last
    ends = [float(bar.get_attribute(name)) for name in ("x1", "y1", "y2")]
    assert ends == pytest.approx([right[-1], above(upper[-1]), above(lower[-1])], abs=0.05)
    square = [float(svg.locator("rect").get_attribute(name)) for name in ("x", "y", "width", "height")]
    assert [square[0] + square[2] / 2, square[1] + square[3] / 2] == pytest.approx(middle[-2:], abs=0.02)
    ticks = svg.locator('text[text-anchor="end"]').evaluate_all(
        "all => all.map(one => [+one.textContent, +one.getAttribute('y') - 4])"
    )
    assert len(ticks) == high - low + 1 and all(y == pytest.approx(above(value)) for value, y in ticks)


def test_the_markers_stand_on_the_curves(open_page, figures):
    page = open_page(figures("sample_size").html)
    circle = page.locator(".ddpm-stage svg circle")
    curve = page.locator('.ddpm-stage svg path[fill="none"]').first
    for key, end in (("Home", 0), ("End", -1)):
        control(page, "n of A").press(key)
        corners = [list(map(float, corner.split())) for corner in curve.get_attribute("d")[1:].split("L")]
        assert len(corners) == len(COUNTS)
        middle = [float(circle.get_attribute(name)) for name in ("cx", "cy")]
        assert middle == pytest.approx(corners[end], abs=0.02)
