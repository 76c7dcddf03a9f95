"""The weights of the perfect denoiser: what is stored and refused, and what the browser shows against the library's."""

from __future__ import annotations

import base64
import math
import re

import numpy as np
import pytest
import torch

from ddpm_lib import schedule, toy
from ddpm_lib.figures import hover_weights

from .examples import CHAIN, DATA, TIMES, cloud
from .hands import control, shown, stored


@pytest.mark.parametrize("one, steps", [(schedule.linear(50), [1, 50]), (schedule.flow(), [0.001, 0.5, 1.0])])
def test_hover_weights_stores_points_and_scales(one, steps):
    points = cloud(30)
    data = stored(hover_weights(points, one, steps))
    assert np.array_equal(np.frombuffer(base64.b64decode(data["points"]), "<f4").reshape(30, 2), points)
    a, s = one.signal_noise(torch.tensor(steps, dtype=torch.float64) / (one.steps or 1))
    assert data["signal"] == pytest.approx(a.tolist(), rel=1e-11) and data["noise"] == pytest.approx(
        s.tolist(), rel=1e-11
    )
    assert data["times"] == steps


def test_hover_weights_names_slips():
    with pytest.raises(ValueError, match="N from 1 to 400"):
        hover_weights(cloud(401), schedule.linear(50), [1])
    with pytest.raises(ValueError, match="finite"):
        hover_weights(torch.full((5, 2), torch.inf), schedule.linear(50), [1])
    with pytest.raises(ValueError, match=r"whole numbers in 0\.\.50"):
        hover_weights(cloud(5), schedule.linear(50), [51])
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\]"):
        hover_weights(cloud(5), schedule.flow(), [2])
    with pytest.raises(ValueError, match="at least one"):
        hover_weights(cloud(5), schedule.flow(), [])


# In the browser


def perfect(page) -> None:
    """What is shown is the posterior of the finite set at the probe and the time shown."""
    probe = torch.tensor([[shown(page, "probe x"), shown(page, "probe y")]], dtype=torch.float64)
    world, time = toy.FiniteSet(DATA), shown(page, "t") / CHAIN.steps
    weights = world.posterior(probe, CHAIN, time)[0]
    mean = world.denoiser(CHAIN)(probe, time)[0]
    entropy = -(weights * weights.log().nan_to_num(neginf=0)).sum()
    assert shown(page, "effective points") == pytest.approx(math.exp(entropy), rel=1e-6)
    assert shown(page, "largest weight") == pytest.approx(weights.max().item(), rel=1e-6)
    assert [shown(page, "mean x"), shown(page, "mean y")] == pytest.approx(mean.tolist(), rel=1e-6, abs=1e-9)
    drawn = page.locator("circle[data-weight]").evaluate_all(
        "all => all.map(c => [+c.dataset.weight, +c.getAttribute('r'), +c.getAttribute('opacity')])"
    )
    drawn = torch.tensor(drawn, dtype=torch.float64)
    torch.testing.assert_close(drawn[:, 0], weights, rtol=1e-6, atol=1e-12)
    assert drawn[weights.argmax(), 1] == drawn[:, 1].max() and drawn[weights.argmax(), 2] == 1
    # and all stands where it is
    limit, (a, s) = max(2.5, 1.25 * DATA.abs().max().item()), CHAIN.signal_noise(time)
    place = lambda xy: torch.stack([200 * (1 + xy[:, 0] / limit), 200 * (1 - xy[:, 1] / limit)], 1)  # noqa: E731
    stands = lambda css, *names: torch.tensor(  # noqa: E731
        page.locator(f".df-plane {css}").evaluate_all(
            "(all, names) => all.map(one => names.map(name => +one.getAttribute(name)))", names
        ),
        dtype=torch.float64,
    )
    off = {"rtol": 0, "atol": 0.02}
    torch.testing.assert_close(stands("circle[data-weight]", "cx", "cy"), place(DATA.double()), **off)
    torch.testing.assert_close(stands('circle[r="1"]', "cx", "cy"), place(float(a) * DATA.double()), **off)
    torch.testing.assert_close(stands('circle[r="8"]', "cx", "cy"), place(probe), **off)
    circle = torch.cat([place(probe), torch.tensor([[200 * float(s) / limit]], dtype=torch.float64)], 1)
    torch.testing.assert_close(stands("circle[stroke-dasharray]", "cx", "cy", "r"), circle, **off)
    ends = torch.cat([place(probe), place(mean[None])], 1)
    torch.testing.assert_close(stands("line", "x1", "y1", "x2", "y2"), ends, **off)
    moved = re.findall(r"[-\d.]+", page.locator(".df-plane path").get_attribute("transform"))
    assert [float(value) for value in moved] == pytest.approx(place(mean[None])[0].tolist(), abs=0.02)


def test_the_weights_are_right_at_every_time(open_page, figures):
    page = open_page(figures("hover_weights").html)
    control(page, "t").press("Home")
    for t in TIMES:
        assert shown(page, "t") == t
        perfect(page)
        a, s = CHAIN.signal_noise(t / CHAIN.steps)
        assert (shown(page, "signal"), shown(page, "noise")) == pytest.approx((float(a), float(s)), rel=1e-9)
        control(page, "t").press("ArrowRight")


def test_the_probe_follows_the_pointer_until_it_is_held(open_page, figures):
    page = open_page(figures("hover_weights").html)
    box = control(page, "probe").bounding_box()
    limit = max(2.5, 1.25 * DATA.abs().max().item())
    for share in ((0.2, 0.3), (0.8, 0.6)):
        page.mouse.move(
            *(box[k] + f * box[size] for k, f, size in zip("xy", share, ("width", "height"), strict=True))
        )
        expected = limit * (2 * share[0] - 1), limit * (1 - 2 * share[1])
        assert (shown(page, "probe x"), shown(page, "probe y")) == pytest.approx(expected, abs=0.03)
        perfect(page)
    page.mouse.down()
    page.mouse.up()
    held = shown(page, "probe x")
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    assert shown(page, "probe x") == held and control(page, "hold").get_attribute("aria-pressed") == "true"
    control(page, "hold").press("Enter")
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    assert shown(page, "probe x") != held


def test_the_probe_moves_by_keyboard_and_stays_in_the_plane(open_page, figures):
    page = open_page(figures("hover_weights").html)
    plane = control(page, "probe")
    x, y = shown(page, "probe x"), shown(page, "probe y")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowDown"):
        plane.press(key)
    assert (shown(page, "probe x"), shown(page, "probe y")) == pytest.approx((x + 0.19, y + 0.09))
    perfect(page)
    for _ in range(40):
        plane.press("ArrowLeft")
    assert shown(page, "probe x") == pytest.approx(-max(2.5, 1.25 * DATA.abs().max().item()), abs=0.05)
    perfect(page)
    page.clock.run_for(600)
    assert "effective points" in page.locator(".df-heard").text_content()


def test_a_tap_puts_the_probe(open_page, figures):
    page = open_page(figures("hover_weights").html, has_touch=True, viewport={"width": 360, "height": 740})
    box = control(page, "probe").bounding_box()
    page.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    assert shown(page, "probe x") < -1 and shown(page, "probe y") > 1
    perfect(page)
