"""The scrubber: what it stores and refuses, and how it plays in the browser."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
import torch

from ddpm_lib.figures import scrubber
from ddpm_lib.plotting import place_colours

from .examples import STEPS, TRACKS, cloud
from .hands import choose, control, pull, shown, stored


def test_the_scrubber_stores_paths_to_a_ten_thousandth():
    tracks = {"own": 1.2 * cloud(7, 40), "</script>": cloud(7, 40, seed=1)}
    figure = scrubber(tracks, range(0, 70, 10), place_colours(tracks["own"][0]))
    data = stored(figure)
    assert data["steps"] == list(range(0, 70, 10)) and list(data["tracks"]) == list(tracks)
    for name, track in tracks.items():
        kept = np.frombuffer(base64.b64decode(data["tracks"][name]), "<i2").reshape(7, 40, 2) * data["scale"]
        assert np.abs(kept - track.numpy()).max() < 1e-4
    assert len(data["colours"]) == 40 and all(re.fullmatch("#[0-9a-f]{6}", tint) for tint in data["colours"])


def test_sixty_steps_of_three_hundred_points_on_two_tracks_are_light_enough():
    points = cloud(60, 300)
    figure = scrubber({"a": points, "b": points}, range(60), place_colours(points[0]))
    assert 200_000 < len(figure.html) < 260_000
    with pytest.raises(ValueError, match=r"takes \d+ kB of 300: use fewer points, steps or tracks"):
        scrubber({"a": cloud(100, 600)}, range(100))


@pytest.mark.parametrize(
    "tracks, steps",
    [
        ({}, []),
        ({"a": cloud(5, 20)}, range(4)),
        ({"a": cloud(5, 20), "b": cloud(5, 21)}, range(5)),
        ({"a": torch.zeros(5, 20, 3)}, range(5)),
    ],
)
def test_the_scrubber_names_shapes_that_do_not_fit(tracks, steps):
    with pytest.raises(ValueError, match=r"\(S, N, 2\)"):
        scrubber(tracks, steps)


def test_the_scrubber_refuses_other_slips():
    with pytest.raises(ValueError, match=r"colours must be \(20, 3\)"):
        scrubber({"a": cloud(5, 20)}, range(5), colours=torch.zeros(5, 3))
    with pytest.raises(ValueError, match="finite"):
        scrubber({"a": torch.full((5, 20, 2), torch.nan)}, range(5))


# In the browser


def mean_square(name: str, frame: int) -> float:
    return TRACKS[name][frame].double().square().mean().item()


def test_the_scrubber_steps_by_keyboard_and_pointer(open_page, figures):
    page = open_page(figures("scrubber").html)
    slider = control(page, "t")
    assert shown(page, "t") == STEPS[0] and slider.get_attribute("aria-valuetext") == f"t = {STEPS[0]}"
    for frame in (1, 2, 3):
        slider.press("ArrowRight")
        assert shown(page, "t") == STEPS[frame]
        assert shown(page, "mean square") == pytest.approx(mean_square("own noise", frame), rel=1e-4)
    assert slider.get_attribute("aria-valuetext") == f"t = {STEPS[3]}"
    choose(page, "track", "same noise")
    assert shown(page, "mean square") == pytest.approx(mean_square("same noise", 3), rel=1e-4)
    pull(page, "t", 0.5)
    assert shown(page, "t") == STEPS[4]
    assert shown(page, "mean square") == pytest.approx(mean_square("same noise", 4), rel=1e-4)


INK = """canvas => {
  const { width, height } = canvas, copy = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  let ink = 0, x = 0, y = 0, red = 0;
  for (let i = 0; i < width * height; i++) {
    const weight = data[4 * i + 3] / 255;
    ink += weight; x += weight * (i % width + 0.5); y += weight * (Math.floor(i / width) + 0.5); red = Math.max(red, data[4 * i]);
  }
  return [ink, x / ink / width, y / ink / height, red];
}"""


@pytest.mark.parametrize("ratio", [1, 2])
def test_the_scrubber_draws_a_point_where_it_is(open_page, ratio):
    path = torch.tensor([[[-1.0, 1.5]], [[0.5, -0.25]], [[2.0, 0.0]]])
    figure = scrubber({"only": path}, [2, 1, 0], colours=torch.tensor([[1.0, 0.0, 0.0]]), limit=2.5)
    page = open_page(figure.html, device_scale_factor=ratio)
    assert page.locator('input[type="radio"]').count() == 0
    canvas = page.locator("canvas")
    for x, y in path[:, 0].tolist():
        ink, left, top, red = canvas.evaluate(INK)
        assert (left, top) == pytest.approx(((x + 2.5) / 5, (2.5 - y) / 5), abs=0.004) and red > 250
        dot = ink
        control(page, "t").press("ArrowRight")
    assert canvas.evaluate("canvas => canvas.width / canvas.clientWidth") == pytest.approx(ratio, rel=0.01)
    control(page, "paths").check()
    assert canvas.evaluate(INK)[0] > 3 * dot


def test_the_paths_of_the_scrubber_end_where_their_points_are(open_page):
    path = torch.tensor([[[-1.0, 1.5]], [[0.5, -0.25]], [[2.0, 0.0]]])
    page = open_page(scrubber({"only": path}, [2, 1, 0], limit=2.5).html)
    control(page, "paths").check()
    _, left, top, _ = page.locator("canvas").evaluate(INK)
    assert (left, top) == pytest.approx(((-1 + 2.5) / 5, (2.5 - 1.5) / 5), abs=0.004)


GREEN = """canvas => {
  const { width, height } = canvas, copy = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  let most = 0;
  for (let i = 0; i < width * height; i++) if (data[4 * i + 3] === 255) most = Math.max(most, data[4 * i + 1]);
  return most;
}"""


def test_colours_of_points_are_lighter_on_a_dark_page_whoever_made_it_dark(open_page):
    figure = scrubber({"only": torch.zeros(2, 1, 2)}, [1, 0], colours=torch.tensor([[1.0, 0.0, 0.0]]))
    page = open_page(figure.html)
    page.add_style_tag(
        content="@media (prefers-color-scheme: dark) { body { background: #111 !important; color: #ddd !important } }"
    )
    green = lambda: page.locator("canvas").evaluate(GREEN)  # noqa: E731
    assert green() == 0
    for theme, expected in (("dark", 97), ("light", 0)):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        page.clock.run_for(200)
        assert green() == expected
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.querySelector('.ddpm-dark')")
    assert green() == 97


def test_a_hand_on_the_slider_stops_the_film(open_page, figures):
    page = open_page(figures("scrubber").html)
    control(page, "play").click()
    page.clock.run_for(900)
    control(page, "t").press("ArrowRight")
    at = shown(page, "t")
    page.clock.run_for(3000)
    assert shown(page, "t") == at and "play" in control(page, "play").text_content()


def test_the_scrubber_plays_to_the_end_and_again(open_page, figures):
    page = open_page(figures("scrubber").html)
    play = control(page, "play")
    play.press("Enter")
    assert "pause" in play.text_content()
    page.clock.run_for(1500)
    middle = shown(page, "t")
    assert STEPS[-1] < middle < STEPS[0]
    play.click()
    page.clock.run_for(3000)
    assert shown(page, "t") == middle and "play" in play.text_content()
    play.click()
    page.clock.run_for(9000)
    assert shown(page, "t") == STEPS[-1] and "play" in play.text_content()
    play.click()
    page.clock.run_for(1500)
    assert STEPS[-1] < shown(page, "t") < STEPS[0]


def test_who_asks_for_less_motion_sees_few_stills(open_page):
    path = cloud(60, 5)
    page = open_page(scrubber({"a": path}, range(60)).html, reduced_motion="reduce")
    control(page, "play").click()
    page.clock.run_for(900)
    assert shown(page, "t") == 0
    page.clock.run_for(200)
    assert shown(page, "t") == 8
