"""The directive `chapter-cards`: a card for each chapter, with its number, its first figure and the minutes of its core path.

A line of it is the name of a chapter's file, the id of the cell whose figure is shown (or nothing: the first figure), and what
one can do after reading:

    01_from_noise_to_a_picture @paths-plot: write the whole loop
"""

from __future__ import annotations

import base64
import html
import io
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ddpm_lib.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import dark_figures  # noqa: E402
import reading  # noqa: E402

LINE = re.compile(r"(\d\d)_(\w+)(?: @([\w-]+))?: (.+)")
WIDTH, HEIGHT = 480, 240
FOLDER = "_cards"


class Cards(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        made = []
        for line in filter(str.strip, self.content):
            match = LINE.fullmatch(line.strip())
            if not match:
                raise self.error(
                    f"a card is `NN_name @cell: what one can do`, got {line!r}"
                )
            path = ROOT / "book" / f"{match[1]}_{match[2]}.ipynb"
            if not path.is_file():
                raise self.error(f"no chapter {path.name} for a card")
            self.env.note_dependency(str(path))
            made.append(self.card(path, int(match[1]), match[3], match[4]))
        return [
            nodes.raw(
                "",
                '<ol class="cards">' + "".join(made) + "</ol>",
                format="html",
            )
        ]

    def card(self, path: Path, number: int, cell: str | None, text: str) -> str:
        nb = nbformat.read(path, 4)
        title = nb.cells[0].source.partition("\n")[0].removeprefix("# ")
        name, (_, about) = f"{number:02}", first_figure(nb, cell)
        # the page is cached between builds, its pictures are not: see write_pictures
        wanted = getattr(self.env, "card_pictures", {})
        self.env.card_pictures = wanted | {name: (str(path), cell)}
        pictures = "".join(
            f'<img class="{kind}" src="../{FOLDER}/{name}{ending}.webp" alt="{html.escape(about)}" '
            f'width="{WIDTH}" height="{HEIGHT}" loading="lazy">'
            for kind, ending in (
                ("in-light", ""),
                ("in-dark dark-light", ".dark"),
            )
        )
        return (
            f'<li class="chapter-card"><a href="{path.stem}.html">{pictures}'
            f'<span class="card-title"><span class="card-number">{number}</span> {html.escape(title)}</span>'
            f'<span class="card-text">{html.escape(text)}</span>'
            f'<span class="card-time">{reading.times(nb).core} min</span></a></li>'
        )


def first_figure(
    nb: nbformat.NotebookNode, cell_id: str | None = None
) -> tuple[bytes, str]:
    """The first figure of a chapter, or of one cell: its PNG, and the text for those who cannot see it.

    Raises ValueError where there is none.
    """
    for cell in nb.cells:
        if cell_id is None or cell.id == cell_id:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    told = cell.metadata.get("mystnb", {}).get("image", {})
                    alt = told.get("alt", "A figure of this chapter.")
                    return base64.b64decode(output.data["image/png"]), alt
    raise ValueError(
        f"no figure in cell {cell_id}"
        if cell_id
        else "the chapter has no figure"
    )


def fitted(pixels: np.ndarray, ground: tuple[int, int, int]) -> Image.Image:
    """A picture (H, W, 3) shrunk into the room of a card, in the middle of its ground."""
    image = Image.fromarray(pixels)
    image.thumbnail((WIDTH - 24, HEIGHT - 24), Image.Resampling.LANCZOS)
    card = Image.new("RGB", (WIDTH, HEIGHT), ground)
    card.paste(
        image, ((WIDTH - image.width) // 2, (HEIGHT - image.height) // 2)
    )
    return card


def write_pictures(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    for name, (path, cell) in getattr(app.env, "card_pictures", {}).items():
        data, _ = first_figure(nbformat.read(path, 4), cell)
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        told = Image.open(io.BytesIO(data)).text.get("Pictures", "[]")
        boxes = dark_figures.rectangles(told)
        for ending, image in (
            ("", fitted(pixels, (255, 255, 255))),
            (
                ".dark",
                fitted(dark_figures.dark(pixels, boxes), dark_figures.GROUND),
            ),
        ):
            write_whole(
                Path(app.outdir, FOLDER, f"{name}{ending}.webp"),
                lambda part, image=image: image.save(
                    part, format="WEBP", quality=82
                ),
            )


def setup(app: Sphinx) -> dict:
    app.add_directive("chapter-cards", Cards)
    app.connect("build-finished", write_pictures)
    return {
        "version": "1",
        "parallel_read_safe": False,
        "parallel_write_safe": True,
    }
