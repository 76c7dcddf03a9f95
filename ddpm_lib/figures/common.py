"""What every figure shares: the HTML it becomes, its still picture, and how values are stored in it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
import torch

from ..plotting import COLOURS, png_bytes
from .formulas import prose

LARGEST_FIGURE = 300_000
"""Bytes of HTML that a figure may take, so that a page stays quick to load."""
COLOURS_OF_PICTURES = 64
"""In the still pictures: enough for lines and points, in fewer bytes."""


@dataclass(frozen=True)
class Figure:
    """An interactive figure. html: all of it, with its picture inside. png: that picture. alt: what it shows, in words."""

    html: str = field(repr=False)
    png: bytes = field(repr=False)
    alt: str

    def _repr_mimebundle_(self, **_) -> dict[str, str]:
        return {
            "text/html": self.html,
            "image/png": base64.b64encode(self.png).decode(),
            "text/plain": self.alt,
        }


def assemble(kind: str, data: dict, png: bytes, alt: str, caption: str, lighter: str) -> Figure:
    """The figure that the script of this kind draws from data.

    kind: of the figure, "scrubber": the name of its script. data: what the script finds under that name; it must
    fit into JSON, without inf and nan. png: the still picture. alt: what the figure shows, in words. caption: printed
    below; what stands between dollars is LaTeX. lighter: what makes such a figure smaller, "fewer points".

    Raises ValueError without alt, and if the figure would take more than 300 kB, with lighter as advice.
    """
    if not alt.strip():
        raise ValueError("a figure needs alt: say in words what it shows, for those who cannot see it")
    # "<" would let a text end the script.
    stored = json.dumps(data | {"alt": alt}, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    key = f"{kind}-{hashlib.sha256((kind + stored + caption).encode()).hexdigest()[:12]}"
    script = f'(() => {{\nconst key = "{key}", data = {stored};\n{_source("common.js")}{_source(f"{kind}.js")}}})();'
    picture = base64.b64encode(png).decode()
    page = (
        f'<figure class="ddpm-figure" data-ddpm-figure="{key}">\n'
        f'<img src="data:image/png;base64,{picture}" alt="{html.escape(alt)}" style="max-width:100%">\n'
        f"<style>\n{_style()}</style>\n"
        f"<figcaption>{prose(caption)}</figcaption>\n<script>{script}</script>\n</figure>"
    )
    if (size := len(page.encode())) > LARGEST_FIGURE:
        raise ValueError(
            f"this figure takes {size / 1e3:.0f} kB of {LARGEST_FIGURE / 1e3:.0f}: use {lighter}"
        )
    return Figure(page, png, alt)


def _style() -> str:
    style = _source("common.css")
    for name, colour in COLOURS.items():
        style = style.replace(f"@{name}@", colour)
    return style


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def draw_still(size: tuple[float, float], draw: Callable, *given) -> bytes:
    """The PNG of what draw(drawing, *given) draws, in matplotlib's own style, whatever the chapter has set.

    size: width and height in inches, at 96 dpi. draw: gets a matplotlib Figure to draw on.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    with mpl.rc_context(mpl.rcParamsDefault):
        mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
        mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=[*COLOURS.values(), "#CC79A7"])
        drawing = Drawing(figsize=size, dpi=96, layout="constrained")
        draw(drawing, *given)
        canvas = FigureCanvasAgg(drawing)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        return png_bytes(torch.from_numpy(pixels), COLOURS_OF_PICTURES)


def pack(array: np.ndarray) -> str:
    """The bytes of an array in base64; unpack in common.js takes them out again."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def short(value: float, digits: int = 12) -> float:
    """To so many digits: the last ones differ between processors, and stored outputs should not."""
    return float(f"{value:.{digits}g}")


def number(value: float) -> int | float:
    """A step or a label as people write it: 3.0 as 3, others to six digits."""
    return int(value) if float(value).is_integer() else short(float(value), 6)
