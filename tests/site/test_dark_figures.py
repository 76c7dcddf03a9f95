"""Plots have a twin for the dark theme, and pictures in them keep their colours."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import sphinx_book_theme
import torch
from built_book import at
from PIL import Image

from ddpm_lib.plotting import COLOURS, figure_png, show_images

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/_ext"))

import dark_figures  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def both(tmp_path: Path) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """The current figure in the light and in the dark, and where it holds pictures."""
    light, dark = tmp_path / "a.png", tmp_path / "a.dark.png"
    light.write_bytes(figure_png(plt.gcf()))
    dark_figures.write_dark(light, dark)
    pixels = [np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (light, dark)]
    return *pixels, dark_figures.pictures_in(light)


def test_ink_and_ground_change_places_and_colours_keep_their_hue(tmp_path):
    _, ax = plt.subplots()
    ax.plot([0, 1], [0, 1], color=COLOURS["noise"], lw=8)
    light, dark, pictures = both(tmp_path)
    assert pictures == []
    white = (light == 255).all(-1)
    assert white.mean() > 0.5
    assert np.abs(dark[white] - dark_figures.GROUND).max() <= 3
    black = (light < 5).all(-1)
    assert black.any() and np.abs(dark[black] - dark_figures.INK).max() <= 3
    line = (np.abs(light - [0xD5, 0x5E, 0x00]).max(-1) < 3).nonzero()
    red, green, blue = dark[line].mean(0)
    assert red > green > blue + 20


def test_pictures_keep_every_pixel_and_the_ground_between_them_does_not(tmp_path):
    images = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    show_images(images, columns=3, titles=list("abcde"))
    light, dark, pictures = both(tmp_path)
    assert len(pictures) == 5
    for left, top, right, bottom in pictures:
        assert right - left > 40
        assert np.array_equal(light[top:bottom, left:right], dark[top:bottom, left:right])
        assert light[top + 3 : bottom - 3, left + 3 : right - 3].std() > 50
    gap = dark[pictures[0][1] + 9 : pictures[0][3] - 9, pictures[0][2] + 3 : pictures[1][0] - 3]
    assert gap.size and (gap == dark_figures.GROUND).all()


@pytest.mark.parametrize("draw", ["imshow", "pcolormesh"])
def test_a_picture_s_rectangle_lies_where_it_was_drawn(draw, tmp_path):
    _, axes = plt.subplots(1, 2)
    getattr(axes[1], draw)(np.full((4, 4), 0.5), cmap="gray", vmin=0, vmax=1)
    for ax in axes:
        ax.axis("off")
    light, _, [(left, top, right, bottom)] = both(tmp_path)
    grey = (np.abs(light - 128).max(-1) <= 1).nonzero()
    assert abs(grey[1].min() - left) <= 1 and abs(grey[1].max() + 1 - right) <= 1
    assert abs(grey[0].min() - top) <= 1 and abs(grey[0].max() + 1 - bottom) <= 1


def test_a_picture_that_is_not_shown_and_what_lies_off_the_axes_are_left_out(tmp_path):
    _, ax = plt.subplots()
    ax.imshow(np.zeros((4, 4))).set_visible(False)
    ax.imshow(np.zeros((4, 4)), extent=(0, 10, 0, 10))
    ax.set(xlim=(0, 5), ylim=(0, 5))
    light, _, pictures = both(tmp_path)
    assert len(pictures) == 1
    assert pictures[0][2] <= light.shape[1]


def test_the_ground_is_the_theme_s():
    """sphinx-book-theme names one dark background, and pages show plots upon it."""
    folder = Path(sphinx_book_theme.__file__).parent
    css = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("static/styles/*.css"))
    (named,) = set(re.findall(r"--pst-color-background: ?(#\w{6})", css))
    assert named == "#" + "".join(f"{value:02x}" for value in dark_figures.GROUND)


def test_a_file_that_does_not_say_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert dark_figures.pictures_in(tmp_path / "a.png") is None
    with pytest.raises(ValueError, match=r"a\.png does not say"):
        dark_figures.write_dark(tmp_path / "a.png", tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "book").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_stored_plot_says_where_its_pictures_are(path):
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data and "<Figure" in data.get("text/plain", ""):
                image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
                assert isinstance(json.loads(image.text["Pictures"]), list), (
                    f"cell {cell.id}: run the chapter again"
                )


@pytest.mark.site
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_theme_shows_its_own_plots_without_a_frame(reader, theme):
    page = reader(color_scheme=theme)
    page.goto(at("05_five_names_for_one_network"))
    page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
    shown, hidden = ("in-light", "in-dark") if theme == "light" else ("in-dark", "in-light")
    plots = page.locator(f".cell_output img.{shown}")
    assert plots.count() >= 5
    for plot in plots.all():
        assert plot.is_visible()
        style = plot.evaluate("e => [getComputedStyle(e).padding, getComputedStyle(e).backgroundColor]")
        assert style[0] == "0px" and (theme == "light" or style[1] == "rgba(0, 0, 0, 0)")
    assert not any(each.is_visible() for each in page.locator(f".cell_output img.{hidden}").all())
