"""Figures for the dark theme: of every plot that says where it holds pictures, a second file with light ink on a dark ground.

`ddpm_lib.plotting.figure_png` writes the rectangles of pictures into a plot's PNG; what lies in them keeps its
colours. Both files stand in the page, and a browser fetches only the one that is shown.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx

from ddpm_lib.files import write_whole

GROUND, INK = (18, 18, 18), (206, 214, 221)
"""Background and text of sphinx-book-theme in the dark: --pst-color-background and --pst-color-text-base."""
PICTURE = re.compile(
    r'<img (?=[^>]*src="((?:\.\./)*_images/([^"]+)\.png)")[^>]*>'
)


def pictures_in(path: Path) -> list[list[int]] | None:
    """The rectangles [left, top, right, bottom] of a plot that hold pictures; None for a file that does not say."""
    with Image.open(path) as image:
        told = getattr(image, "text", {}).get("Pictures")
    return None if told is None else rectangles(told)


def rectangles(told: str) -> list[list[int]]:
    """What the text chunk of a plot says."""
    return json.loads(told)


def dark(pixels: np.ndarray, pictures: list[list[int]]) -> np.ndarray:
    """(H, W, 3) uint8 with the lightness turned over and the hue kept, except for what lies within the rectangles."""
    share = pixels.astype(np.float64) / 255
    turned = (
        share + 1 - share.max(-1, keepdims=True) - share.min(-1, keepdims=True)
    )
    ground, ink = np.array(GROUND), np.array(INK)
    made = (ground + turned * (ink - ground)).round().astype(np.uint8)
    for left, top, right, bottom in pictures:
        box = np.s_[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        made[box] = pixels[box]
    return made


def write_dark(source: Path, target: Path) -> None:
    """Writes the dark twin of a plot. Raises ValueError for a file that does not say where its pictures are."""
    pictures = pictures_in(source)
    if pictures is None:
        raise ValueError(f"{source.name} does not say where it holds pictures")
    with Image.open(source) as image:
        pixels = np.asarray(
            Image.alpha_composite(
                Image.new("RGBA", image.size, "white"), image.convert("RGBA")
            ).convert("RGB")
        )
    made = Image.fromarray(dark(pixels, pictures))
    if not pictures:
        made = made.quantize(128, dither=Image.Dither.NONE)
    write_whole(
        target, lambda part: made.save(part, format="PNG", optimize=True)
    )


def two_themes(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict,
    doctree: nodes.document | None,
) -> None:
    if "body" not in context or app.builder.format != "html":
        return
    sources = {name: path for path, name in app.builder.images.items()}
    folder = Path(app.outdir, app.builder.imagedir)

    def pair(match: re.Match) -> str:
        name = unquote(match[2])
        source = sources.get(f"{name}.png")
        if source is None or pictures_in(Path(app.srcdir, source)) is None:
            return match[0]
        write_dark(Path(app.srcdir, source), folder / f"{name}.dark.png")
        light = with_class(match[0], "in-light")
        other = with_class(match[0], "in-dark dark-light")
        return light + other.replace(match[1], match[1][:-4] + ".dark.png")

    context["body"] = PICTURE.sub(pair, context["body"])


def with_class(tag: str, name: str) -> str:
    if ' class="' in tag:
        return tag.replace(' class="', f' class="{name} ', 1)
    return tag.replace("<img ", f'<img class="{name}" ', 1)


def setup(app: Sphinx) -> dict:
    app.add_css_file("dark.css")
    app.connect("html-page-context", two_themes, priority=960)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
