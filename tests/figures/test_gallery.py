"""The gallery: what it stores and refuses, and how it is looked through in the browser."""

from __future__ import annotations

import base64
import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_lib.data import load_images
from ddpm_lib.figures import gallery
from ddpm_lib.figures.common import LARGEST_FIGURE
from ddpm_lib.plotting import image_grid

from .examples import SHEET_NUMBERS, SHEET_STEPS, SHEETS
from .hands import choose, control, pull, shown, stored


def samples(*shape: int, count: int = 6, channels: int = 1, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*shape, count, channels, size, size, generator=generator) * 2 - 1


def opened(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


@pytest.mark.parametrize("name, most", [("mnist", 4.3), ("cifar10", 9)])
def test_the_gallery_keeps_each_picture_in_its_place(name, most):
    images = load_images(name, "test").images[:36].unflatten(0, (3, 2, 6))
    data = stored(gallery(images, {"step": [1, 2, 5], "weights": ["raw", "EMA"]}, columns=3))
    assert data["axes"] == [
        {"name": "step", "labels": [1, 2, 5]},
        {"name": "weights", "labels": ["raw", "EMA"]},
    ]
    for i, address in enumerate(data["pictures"]):
        grid = image_grid(images[i // 2, i % 2], 3, 1).numpy().astype(int)
        away = np.abs(opened(address) - grid)
        assert away.mean() < most and (name == "cifar10" or away.max() <= 8)


def test_the_gallery_keeps_numbers_and_where_there_are_none():
    data = stored(
        gallery(samples(3), {"scale": [0.5, 1, 4]}, {"as asked": torch.tensor([0.25, torch.nan, 1])})
    )
    assert data["numbers"] == {"as asked": [0.25, None, 1]} and data["at"] == [0]
    two = stored(
        gallery(
            samples(2, 3),
            {"a": [1, 2], "b": ["x", "y", "z"]},
            {"n": torch.arange(6.0).view(2, 3)},
            start=(1, 2),
        )
    )
    assert two["numbers"] == {"n": [0, 1, 2, 3, 4, 5]} and two["at"] == [1, 2]


def test_a_thousand_digits_are_light_enough():
    digits = load_images("mnist").images[:1000].view(20, 50, 1, 28, 28)
    assert len(gallery(digits, {"step": range(20)}, columns=10).html) < LARGEST_FIGURE


@pytest.mark.parametrize(
    "shape, axes, more, message",
    [
        ((3,), {"a": [1, 2]}, {}, r"\(A, N, C, H, W\)"),
        ((3,), {"a": [1, 2, 3], "b": [1]}, {}, r"\(A, N, C, H, W\)"),
        ((3,), {}, {}, "with one axis"),
        ((3,), {"a": [1, 2, 3]}, {"numbers": {"loss": [1, 2]}}, r"numbers must be \(3,\).*'loss': \(2,\)"),
        ((3,), {"a": [1, 2, 3]}, {"start": (3,)}, "start must be a place"),
        ((2, 2), {"a": [1, 2], "b": [1, 2]}, {"start": (1,)}, "start must be a place"),
    ],
)
def test_the_gallery_names_slips(shape, axes, more, message):
    with pytest.raises(ValueError, match=message):
        gallery(samples(*shape), axes, **more)


# In the browser

SHADE = """image => {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  context.drawImage(image, 0, 0, 5, 5, 0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data[0];
}"""


def place_of(step: float, loss: float) -> tuple[float, float]:
    """Where the example's plot has this point: between its axes, which leave room for their numbers."""
    return 46 + step / 100 * (340 - 46 - 12), 130 - 36 - (loss - 0.05) / 1.95 * (130 - 36 - 8)


def on_show(page, step: int, weights: int) -> None:
    """The picture, the number and the marker are those of this choice."""
    page.wait_for_function("document.querySelector('.df-picture').complete")
    shade = page.locator(".df-picture").evaluate(SHADE)
    assert shade == pytest.approx(255 * (2 * step + weights) / 7, abs=9)
    assert shown(page, "step") == SHEET_STEPS[step]
    lit = page.locator(".df-plot path").evaluate_all(
        "all => all.map(one => +one.getAttribute('stroke-width'))"
    )
    assert lit == [2.5 if column == weights else 1.2 for column in range(2)]
    loss, marker = SHEET_NUMBERS["loss"][step, weights].item(), page.locator("[data-marker]")
    if math.isnan(loss):
        assert page.locator('output[data-name="loss"]').text_content() == "not measured"
        assert marker.get_attribute("hidden") is not None
        return
    assert shown(page, "loss") == pytest.approx(loss, rel=1e-5)
    place = place_of(SHEET_STEPS[step], loss)
    drawn = float(marker.get_attribute("cx")), float(marker.get_attribute("cy"))
    assert drawn == pytest.approx(place, abs=0.01) and marker.get_attribute("hidden") is None


def test_the_gallery_is_moved_by_keyboard_and_pointer(open_page, figures):
    page = open_page(figures("gallery").html)
    on_show(page, 0, 0)
    for step in (1, 2, 3):
        control(page, "step").press("ArrowRight")
        on_show(page, step, 0)
    choose(page, "weights", "1")
    on_show(page, 3, 1)
    pull(page, "step", 0.34)
    on_show(page, 1, 1)
    page.clock.run_for(600)
    assert page.locator(".df-heard").text_content() == "step 10, weights EMA, loss 0.250"


def test_a_click_on_the_curve_of_the_gallery_goes_there(open_page, figures):
    page = open_page(figures("gallery").html)
    plot = page.locator(".df-plot svg")
    for share, step in ((0.97, 3), (0.45, 2), (0.22, 1), (0.0, 0)):
        box = plot.bounding_box()
        page.mouse.click(box["x"] + share * box["width"] + 1, box["y"] + box["height"] / 2)
        on_show(page, step, 0)


def test_the_curves_of_the_gallery_are_its_numbers_and_a_pointer_is_dragged_along_them(open_page, figures):
    page = open_page(figures("gallery").html)
    for column, values in enumerate(SHEET_NUMBERS["loss"].T.tolist()):
        path = page.locator(".df-plot path").nth(column).get_attribute("d")
        drawn = [[float(x), float(y)] for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]
        expected = [
            place_of(step, value)
            for step, value in zip(SHEET_STEPS, values, strict=True)
            if not math.isnan(value)
        ]
        assert np.abs(np.array(drawn) - np.array(expected)).max() < 0.01
    assert page.locator(".df-plot .df-small").text_content() == "from 0.0500 to 2.00"
    box = page.locator(".df-plot svg").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 1, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.97 * box["width"], middle)
    on_show(page, 3, 0)
    page.mouse.up()
    page.mouse.move(box["x"] + 1, middle)
    on_show(page, 3, 0)


@pytest.mark.parametrize("width", [360, 390, 1300])
def test_the_curves_of_the_gallery_have_axes_with_numbers(open_page, figures, width):
    page = open_page(figures("gallery").html, viewport={"width": width, "height": 800})
    ticks = page.locator(".df-plot text").evaluate_all(
        """all => all.map(one => [one.dataset.tick ?? "name", one.textContent, one.getAttribute("x"), one.getAttribute("y"),
             (({ left, right, top, bottom }) => [left, right, top, bottom])(one.getBoundingClientRect())])"""
    )
    across = {text: float(x) for kind, text, x, _, _ in ticks if kind == "x"}
    assert set(across) == {"0", "10", "50", "100"}
    for text, x in across.items():
        assert x == pytest.approx(place_of(float(text), 0)[0])
    upward = {text: float(y) for kind, text, _, y, _ in ticks if kind == "y"}
    assert set(upward) == {"0.5", "1", "1.5", "2"}
    for text, y in upward.items():
        assert y == pytest.approx(place_of(0, float(text))[1] + 4)
    assert [text for kind, text, *_ in ticks if kind == "name"] == ["step"]
    boxes = [box for *_, box in ticks]
    for i, (left, right, top, bottom) in enumerate(boxes):
        assert left >= 0 and right <= width and bottom - top > 9, ticks[i]
        for low, high, upper, lower in boxes[:i]:
            assert min(right, high) <= max(left, low) or min(bottom, lower) <= max(top, upper), ticks[i]


def test_of_numbers_that_would_meet_below_a_curve_the_second_is_left_out(open_page):
    page = open_page(gallery(samples(4), {"step": [0, 2, 4, 100]}, {"n": [1, 2, 3, 4]}).html)
    assert page.locator('.df-plot [data-tick="x"]').all_text_contents() == ["0", "100"]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.95, 1.0], {"0.96", "0.98", "1"}),
        ([-30, 40], {"−20", "0", "20", "40"}),
        ([3, 3], {"3"}),
        ([0, 1200], {"0", "500", "1000"}),
    ],
)
def test_the_numbers_beside_a_curve_are_round(open_page, values, ticks):
    page = open_page(gallery(samples(2), {"scale": [1, 2]}, {"n": values}).html)
    assert set(page.locator('.df-plot [data-tick="y"]').all_text_contents()) == ticks


def test_the_gallery_plays_to_its_end(open_page, figures):
    page = open_page(figures("gallery").html)
    control(page, "play").press("Enter")
    page.clock.run_for(1500)
    assert 0 < shown(page, "step") < 100
    page.clock.run_for(3000)
    on_show(page, 3, 0)


def test_a_gallery_of_one_axis_in_words_and_of_two_sliders(open_page):
    page = open_page(gallery(SHEETS[:, 0], {"change": ["none", "cosine", "EMA", "flips"]}, start=(2,)).html)
    slider = control(page, "change")
    assert slider.get_attribute("aria-valuetext") == "EMA" and page.locator(".df-plot").count() == 0
    slider.press("Home")
    assert slider.get_attribute("aria-valuetext") == "none"
    page = open_page(gallery(SHEETS, {"scale": [1, 1.5, 2, 4], "digit": [3, 7]}, start=(1, 1)).html)
    assert (shown(page, "scale"), shown(page, "digit")) == (1.5, 7)
    control(page, "digit").press("ArrowLeft")
    assert (shown(page, "scale"), shown(page, "digit")) == (1.5, 3)
    page.wait_for_function("document.querySelector('.df-picture').complete")
    assert page.locator(".df-picture").evaluate(SHADE) == pytest.approx(255 * 2 / 7, abs=9)
