"""The converter: what it stores, and what the browser shows against the library's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ddpm_lib import schedule
from ddpm_lib.denoiser import target, to_x0
from ddpm_lib.figures import converter
from ddpm_lib.figures.converter import LOOKS, QUANTITIES, _draw, _pairs
from ddpm_lib.plotting import COLOURS

from .hands import choose, control, pull, shown, stored


def test_the_converter_stores_the_library_s_definitions():
    one = schedule.flow()
    data = stored(converter(one))
    assert list(data["quantities"]) == ["eps", "x0", "v", "score", "flow"]
    a, s = (values.numpy() for values in one.signal_noise(torch.tensor(data["times"], dtype=torch.float64)))
    assert data["times"][-1] == 1.0 and data["signal"][-1] == 0.0
    expected = {"eps": (0, 1), "x0": (1, 0), "v": (-s, a), "score": (0, -1 / s), "flow": (-1, 1)}
    for name, (p, q) in expected.items():
        assert np.allclose(data["quantities"][name]["p"], p, rtol=1e-11)
        assert np.allclose(data["quantities"][name]["q"], q, rtol=1e-11)


def test_the_still_picture_has_the_book_s_colours():
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

    a, s = schedule.cosine(1000).signal_noise(torch.tensor([0.1, 0.5, 0.9]))
    growth = {name: (a * q - s * p).abs() for name, (p, q) in _pairs(a, s).items()}
    drawing = Figure()
    _draw(drawing, [100, 500, 900], growth)
    book = {"eps": COLOURS["noise"], "x0": COLOURS["data"], "v": COLOURS["prediction"]}
    for ax, chosen in zip(drawing.axes, ("eps", "v"), strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        assert list(lines) == list(QUANTITIES) == list(LOOKS)
        for name, colour in book.items():
            assert to_hex(lines[name].get_color()) == colour.lower()
        assert len({to_hex(line.get_color()) for line in ax.lines}) == 5
        assert len({line.get_linestyle() for line in ax.lines}) >= 4  # told apart without colour as well
        assert np.allclose(lines[chosen].get_ydata(), 1)
    # what an error of 1 in eps becomes in the picture is s / a
    (x0,) = (line for line in drawing.axes[0].lines if line.get_label() == "x0")
    assert np.allclose(x0.get_ydata(), s / a)


# In the browser


def five(page) -> dict[str, float]:
    return {name: shown(page, name) for name in ("eps", "x0", "v", "score", "flow")}


def expected_five(one, t, x_t, chosen, value) -> dict[str, float]:
    """By the library, in float64: to x_0, to eps, and from there to all."""
    x_t, value = (torch.tensor([number], dtype=torch.float64) for number in (x_t, value))
    a, s = one.signal_noise(t)
    if chosen == "score":
        chosen, value = "eps", -s * value
    x0 = to_x0(x_t, value, a, s, chosen)
    eps = value if chosen == "eps" else (x_t - a * x0) / s
    every = {name: float(target(x0, eps, a, s, name)) for name in ("eps", "x0", "v", "flow")}
    return every | {"score": float(-eps / s)}


@pytest.mark.parametrize("chosen", ["eps", "x0", "v", "score", "flow"])
@pytest.mark.parametrize("one", [schedule.cosine(1000), schedule.flow()], ids=["vp", "flow"])
def test_the_converter_agrees_with_the_library(open_page, one, chosen):
    page = open_page(converter(one).html)
    kept = five(page)
    choose(page, "chosen", chosen)
    assert five(page) == pytest.approx(kept, rel=1e-9, abs=1e-12)
    pull(page, "x_t", 0.8)
    for share in (0.02, 0.3, 0.9):
        pull(page, "t", share)
        pull(page, "value", 0.6)
        t, x_t, value = shown(page, "t") / (one.steps or 1), shown(page, "x_t"), shown(page, "value")
        expected = expected_five(one, t, x_t, chosen, value)
        assert five(page) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        off = expected_five(one, t, x_t, chosen, value + 0.1)
        for name in expected:
            error = abs(off[name] - expected[name])
            assert shown(page, f"error {name}") == pytest.approx(error, rel=1e-6, abs=1e-9)
            # marker and band lie on a line from -reach to reach
            row = page.locator(f'[data-quantity="{name}"]')
            reach = {"score": 3 / float(one.signal_noise(t)[1]), "flow": 5}.get(name, 3)
            at = lambda y, reach=reach: 50 + 50 * max(-1, min(1, y / reach))  # noqa: E731
            left, right = at(expected[name] - error), at(expected[name] + error)
            lies = row.evaluate(
                """row => [row.querySelector(".df-marker").style.left, row.querySelector(".df-band").style.left,
                row.querySelector(".df-band").style.width].map(parseFloat)"""
            )
            assert lies == pytest.approx([at(expected[name]), left, right - left], abs=0.01)
            off_line = row.locator(".df-off").count() == 1
            assert off_line == (abs(expected[name]) > reach)
            low, high = row.locator(".df-end").all_text_contents()
            assert -float(low.replace("−", "-")) == float(high) == pytest.approx(reach, rel=0.06)
        assert page.locator(".df-chosen").evaluate_all("all => all.map(row => row.dataset.quantity)") == [
            chosen
        ]
        assert control(page, "value").get_attribute("aria-label") == QUANTITIES[chosen][0]


def test_marker_and_band_have_the_book_s_colours(open_page, figures):
    page = open_page(figures("converter").html)
    look = """row => ["marker", "band"].map(part =>
        getComputedStyle(row.querySelector(`.df-${part}`)).backgroundColor)"""
    rgb = {n: f"rgb({int(c[1:3], 16)}, {int(c[3:5], 16)}, {int(c[5:], 16)})" for n, c in COLOURS.items()}
    for chosen in ("eps", "v"):
        choose(page, "chosen", chosen)
        for name, colour in (("eps", "noise"), ("x0", "data"), ("v", "prediction")):
            assert page.locator(f'[data-quantity="{name}"]').evaluate(look) == [rgb[colour]] * 2
    colours = {tuple(page.locator(f'[data-quantity="{name}"]').evaluate(look)) for name in QUANTITIES}
    assert len(colours) == 5


def test_the_converter_says_what_is_undefined_without_signal(open_page, figures):
    page = open_page(figures("converter").html)
    control(page, "t").press("End")
    x_t = shown(page, "x_t")
    assert shown(page, "signal") == 0 and control(page, "value").is_disabled()
    words = {name: page.locator(f'output[data-name="{name}"]').text_content() for name in ("x0", "v", "flow")}
    assert set(words.values()) == {"undefined: signal is 0"}
    assert (shown(page, "eps"), shown(page, "score")) == (x_t, -x_t) and shown(page, "value") == x_t
    assert page.locator('output[data-name="error x0"]').text_content() == "∞"
    assert "signal is 0" in page.locator('[data-name="note"]').text_content()
    # v and the image itself are still worth asking for
    choose(page, "chosen", "v")
    pull(page, "value", 0.3)
    assert all(map(math.isfinite, five(page).values()))
    assert shown(page, "x0") == pytest.approx(-shown(page, "value"), rel=1e-9)
    assert shown(page, "error eps") == 0


def test_the_converter_warns_of_impossible_pixels(open_page, figures):
    page = open_page(figures("converter").html)
    choose(page, "chosen", "x0")
    note = page.locator('[data-name="note"]')
    pull(page, "value", 0.55)
    assert note.text_content() == ""
    pull(page, "value", 0.72)
    assert 1 < shown(page, "x0") < 1.6
    assert "outside [−1, 1]" in note.text_content()
