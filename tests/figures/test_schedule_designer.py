"""The schedule designer: what it stores and refuses, and its curves and pictures in the browser against the library's."""

from __future__ import annotations

import base64
import math
import re

import numpy as np
import pytest
import torch

from ddpm_lib import chain as chains
from ddpm_lib.chain import Chain, rescale_zero_terminal
from ddpm_lib.figures import schedule_designer

from .examples import IMAGE
from .hands import choose, control, pull, shown, stored


def picture(channels: int = 3, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (channels, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels, size", [(1, 28), (3, 64)])
def test_the_schedule_designer_keeps_the_picture_as_it_is(channels, size):
    image = picture(channels, size)
    data = stored(schedule_designer(image))
    kept = np.frombuffer(base64.b64decode(data["image"]), np.uint8).reshape(size, size, channels)
    assert np.array_equal(kept, image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("image", [picture()[0], picture(size=65), picture().float(), picture()[:2]])
def test_the_schedule_designer_refuses_what_is_no_small_picture(image):
    with pytest.raises(ValueError, match="uint8"):
        schedule_designer(image)


# In the browser


def designed(page) -> Chain:
    """The chain that Python makes of what the controls show."""
    family = page.locator('input[data-input="family"]:checked').get_attribute("value")
    steps = int(shown(page, "T"))
    if family == "linear":
        chain = chains.linear(steps, shown(page, "first"), shown(page, "last"))
    elif family == "scaled":
        roots = torch.linspace(
            shown(page, "first") ** 0.5, shown(page, "last") ** 0.5, steps, dtype=torch.float64
        )
        chain = Chain(torch.cat([torch.zeros(1), roots**2]))
    elif family == "cosine":
        chain = chains.cosine(steps, shown(page, "offset"))
    else:
        chain = chains.sigmoid(steps, shown(page, "start"), shown(page, "end"))
    return rescale_zero_terminal(chain) if control(page, "rescale").is_checked() else chain


def agrees(page) -> None:
    bar = designed(page).alpha_bar
    last, middle = float(bar[-1]), float(bar[len(bar) // 2])
    assert shown(page, "signal at T") == pytest.approx(last**0.5, rel=1e-6)
    assert shown(page, "SNR at T") == pytest.approx(last / (1 - last), rel=1e-6)
    assert shown(page, "log-SNR at T/2") == pytest.approx(math.log(middle) - math.log1p(-middle), rel=1e-6)
    for plot, height in enumerate((bar, (torch.log(bar) - torch.log1p(-bar)).clamp(-12, 12))):
        path = page.locator(".df-plot svg").nth(plot).locator("path").nth(1).get_attribute("d")
        drawn = np.array([float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)])
        low, high = (0, 1) if plot == 0 else (-12, 12)
        expected = 8 + (high - height.numpy()) / (high - low) * (190 - 8 - 24)
        assert len(drawn) == len(bar) and np.abs(drawn - expected).max() < 0.006
        # the dots are where the pictures below are taken from
        dots = page.locator(".df-plot svg").nth(plot).locator("circle")
        places = dots.evaluate_all(
            "all => all.map(dot => [+dot.getAttribute('cx'), +dot.getAttribute('cy')])"
        )
        stops = [round(i * (len(bar) - 1) / 7 + 1e-9) for i in range(8)]
        for (x, y), t in zip(places, stops, strict=True):
            assert (x, y) == pytest.approx((40 + t / (len(bar) - 1) * (320 - 48), expected[t]), abs=0.006)
    assert page.locator('[data-name="verdict"].df-warn').count() == (last**0.5 > 0.01)


def test_the_designer_keeps_ddpms_schedule_and_its_axes_beside_the_chosen_one(open_page, figures):
    page = open_page(figures("schedule_designer").html)
    choose(page, "family", "cosine")
    bar = chains.linear(1000, 1e-4, 0.02).alpha_bar
    for plot, (height, low, high) in enumerate(((bar, 0, 1), (torch.logit(bar).clamp(-12, 12), -12, 12))):
        svg = page.locator(".df-plot svg").nth(plot)
        above = lambda y, low=low, high=high: 8 + (high - y) / (high - low) * (190 - 8 - 24)  # noqa: E731
        drawn = re.findall(r"[ML][\d.]+ ([\d.]+)", svg.locator("path").first.get_attribute("d"))
        assert np.abs(np.array(drawn, float) - above(height.numpy())).max() < 0.006
        ticks = svg.locator('text[text-anchor="end"]').evaluate_all(
            "all => all.map(one => [+one.textContent.replace('−', '-'), +one.getAttribute('y') - 4])"
        )
        assert len(ticks) > 2 and all(y == pytest.approx(above(value)) for value, y in ticks)


def test_the_designer_starts_from_ddpm(open_page, figures):
    page = open_page(figures("schedule_designer").html)
    assert [shown(page, name) for name in ("T", "first", "last")] == [1000, 1e-4, 0.02]
    agrees(page)
    assert "0.64 % of the image's amplitude is left" in page.locator('[data-name="verdict"]').text_content()


@pytest.mark.parametrize(
    "family, sliders",
    [
        ("linear", ("T", "first", "last")),
        ("scaled", ("T", "first", "last")),
        ("cosine", ("T", "offset")),
        ("sigmoid", ("T", "start", "end")),
    ],
)
def test_the_designer_agrees_with_the_chain(open_page, figures, family, sliders):
    page = open_page(figures("schedule_designer").html)
    choose(page, "family", family)
    visible = [node.get_attribute("data-input") for node in page.locator('input[type="range"]:visible').all()]
    assert visible == list(sliders)
    agrees(page)
    for name in sliders:
        for move in (lambda n: control(page, n).press("ArrowLeft"), lambda n: pull(page, n, 0.7)):
            before = shown(page, name)
            move(name)
            assert shown(page, name) != before
            agrees(page)
    for key in ("Home", "End"):
        for name in sliders:
            control(page, name).press(key)
        agrees(page)


@pytest.mark.parametrize("family", ["linear", "scaled", "cosine", "sigmoid"])
def test_rescaled_schedules_leave_nothing(open_page, figures, family):
    page = open_page(figures("schedule_designer").html)
    choose(page, "family", family)
    pull(page, "T", 0.4)
    control(page, "rescale").press("Space")
    agrees(page)
    assert shown(page, "signal at T") == 0 == shown(page, "SNR at T")
    assert page.locator('[data-name="verdict"]').text_content() == "Nothing of the image is left at T."


def normal_noise(count: int) -> np.ndarray:
    """The figure's noise: mulberry32 with seed 1, Box and Muller."""
    seed, draws, mask = 1, [], 2**32 - 1
    for _ in range(2 * count):
        seed = (seed + 0x6D2B79F5) & mask
        z = ((seed ^ (seed >> 15)) * (seed | 1)) & mask
        z ^= (z + (((z ^ (z >> 7)) * (z | 61)) & mask)) & mask
        draws.append((z ^ (z >> 14)) / 2**32)
    first, second = np.array(draws).reshape(-1, 2).T
    return np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_designer_s_pictures_are_the_image_under_its_schedule(open_page, channels):
    image = IMAGE[:channels]
    page = open_page(schedule_designer(image).html)
    choose(page, "family", "cosine")
    x0 = image.permute(1, 2, 0).numpy() / 127.5 - 1
    eps = normal_noise(x0.size).reshape(x0.shape)
    assert abs(eps.mean()) < 0.15 and abs(eps.std() - 1) < 0.1
    bar = designed(page).alpha_bar.numpy()
    for i in range(8):
        t = round(i * 1000 / 7)
        canvas = page.locator(f'canvas[data-picture="{i}"]')
        assert canvas.locator("xpath=..").text_content() == f"t = {t}"
        pixels = canvas.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
        drawn = np.array(pixels).reshape(16, 16, 4)
        x_t = np.sqrt(bar[t]) * x0 + np.sqrt(1 - bar[t]) * eps
        assert np.abs(drawn[..., :3] - np.clip((x_t + 1) * 127.5, 0, 255)).max() <= 0.51
        assert (drawn[..., 3] == 255).all()
