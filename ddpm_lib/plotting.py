"""Pictures: image grids, clouds of points, schedules, and films that play on a page.

matplotlib and Pillow are imported when a picture is made, not before.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .files import write_whole
from .schedule import Schedule

COLOURS = {"data": "#0072B2", "noise": "#D55E00", "prediction": "#009E73", "truth": "#222222"}
"""What has which colour in every figure of the book (from the palette of Okabe and Ito, safe for the colour-blind)."""
LARGEST_FILM = 300_000
"""Bytes of HTML that a film may take, so that a page stays quick to load."""


def setup(seed: int = 0) -> None:
    """The first line of every chapter: seeds torch, numpy and random, and sets the style of figures."""
    import matplotlib.pyplot as plt

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    torch.set_printoptions(precision=4, sci_mode=False)
    plt.rcParams.update(
        {
            "figure.dpi": 96,
            "savefig.dpi": 96,
            "figure.figsize": (6.4, 3.2),
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=list(COLOURS.values())),
            "legend.frameon": False,
            "image.cmap": "gray",
        }
    )
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):
        import matplotlib_inline.backend_inline  # noqa: F401  # sets its own formatter when it is first imported
        from matplotlib.figure import Figure

        shell.display_formatter.formatters["image/png"].for_type(
            Figure, lambda figure: base64.b64encode(figure_png(figure)).decode()
        )


def figure_png(figure) -> bytes:
    """A matplotlib figure as a PNG, cut to what is on it, which says where it holds pictures.

    The text chunk ``Pictures`` is a JSON list of rectangles [left, top, right, bottom] in pixels: images and colour
    meshes, whose colours are their content. The pages of the book recolour everything else in the dark.
    """
    import matplotlib
    from matplotlib.collections import QuadMesh
    from matplotlib.image import AxesImage

    figure.draw_without_rendering()
    renderer, dpi = figure.canvas.get_renderer(), figure.dpi
    area = figure.get_tightbbox(renderer).padded(matplotlib.rcParams["savefig.pad_inches"])
    left, top = area.x0 * dpi, area.y1 * dpi
    rectangles = []
    for artist in figure.findobj(lambda each: isinstance(each, AxesImage | QuadMesh) and each.get_visible()):
        tiles = getattr(artist, "tiles", None)
        boxes = [artist.get_window_extent(renderer)]
        if tiles is not None:
            boxes = [artist.axes.transData.transform(tile) for tile in tiles]
        for box in boxes:
            (x0, y0), (x1, y1) = np.asarray(box)
            frame = artist.axes.bbox
            x0, x1 = np.clip(sorted((x0, x1)), frame.x0, frame.x1)
            y0, y1 = np.clip(sorted((y0, y1)), frame.y0, frame.y1)
            rectangles.append([round(x0 - left), round(top - y1), round(x1 - left), round(top - y0)])
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=dpi, bbox_inches=area, metadata={"Pictures": json.dumps(rectangles)}
    )
    return buffer.getvalue()


def image_grid(images: Tensor, columns: int | None = None, padding: int = 2) -> Tensor:
    """Images side by side on white, as one picture: uint8 (H, W, 3) on the CPU.

    images: (N, C, H, W), C 1 or 3, uint8 or floats in [-1, 1] (what lies outside is clipped).
    columns: by default as many as make the grid about square. padding: pixels between images.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(
            f"images must be (N, C, H, W) with C 1 or 3 and N at least 1, got {tuple(images.shape)}"
        )
    columns = _columns(len(images), columns)
    images = images.detach().cpu()
    if images.dtype != torch.uint8:
        images = images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    images = F.pad(images.expand(-1, 3, -1, -1), (0, padding, 0, padding), value=255)
    rows = math.ceil(len(images) / columns)
    blank = images.new_full((rows * columns - len(images), *images.shape[1:]), 255)
    grid = torch.cat([images, blank]).unflatten(0, (rows, columns))
    grid = grid.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    return grid[: len(grid) - padding, : grid.shape[1] - padding].contiguous()


def save_grid(images: Tensor, path: str | os.PathLike, columns: int | None = None) -> Path:
    """Writes image_grid(images, columns) as a PNG: whole, or not at all. Creates the folder if need be."""
    data = png_bytes(image_grid(images, columns))
    write_whole(path, lambda part: Path(part).write_bytes(data))
    return Path(path)


def show_images(
    images: Tensor,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    scale: float = 1.0,
    rows: Sequence[str] = (),
) -> None:
    """Draws images as a grid, with a title over each if titles are given.

    images, columns: as in image_grid. scale: 1 makes an image 0.7 inches wide. rows: names of the rows, written to
    the left of them.
    """
    columns = _columns(len(images), columns)
    padding = max(1, images.shape[-1] // 14) if titles is None else images.shape[-1] // 3
    ax = _grid_axes(images, columns, padding, scale)
    _name_rows(ax, images, rows, padding)
    for index, title in enumerate(titles or []):
        ax.text(
            *_above(images, index % columns, index // columns, padding),
            title,
            ha="center",
            va="bottom",
            fontsize=9,
        )


def show_steps(
    steps: Sequence[Tensor],
    titles: Sequence[str] | None = None,
    scale: float = 1.0,
    rows: Sequence[str] = (),
) -> None:
    """Draws a film as a strip: one row for each image, one column for each step.

    steps: S batches (N, C, H, W). titles: S names of the columns. scale, rows: as in show_images.
    """
    images = torch.stack([step.detach().cpu() for step in steps], dim=1).flatten(0, 1)
    padding = max(1, images.shape[-1] // 14)
    ax = _grid_axes(images, len(steps), padding, scale)
    _name_rows(ax, images, rows, padding)
    for index, title in enumerate(titles or []):
        ax.text(*_above(images, index, 0, padding), title, ha="center", va="bottom", fontsize=9)


def plot_schedules(*schedules: Schedule) -> None:
    """Draws the signal scale and the noise scale of each schedule against its steps (or its time, 0 to 1)."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, len(schedules), figsize=(4.8 * len(schedules), 2.8), squeeze=False, sharey=True)
    t = torch.linspace(0, 1, 401, dtype=torch.float64)
    for ax, schedule in zip(axes[0], schedules, strict=True):
        signal, noise = schedule.signal_noise(t)
        ax.plot(t * (schedule.steps or 1), signal, color=COLOURS["data"], lw=2, label="signal")
        ax.plot(t * (schedule.steps or 1), noise, color=COLOURS["noise"], lw=2, ls="--", label="noise")
        ax.set(xlabel="step t" if schedule.steps else "time t", title=schedule.name)
    axes[0, 0].set_ylabel("scale")
    axes[0, 0].legend()


def plot_points(
    clouds: Sequence[Tensor],
    titles: Sequence[str] | None = None,
    colour: str | Tensor = COLOURS["data"],
    limit: float = 3.0,
    rows: int = 1,
) -> None:
    """Draws clouds of points (N, 2) side by side, each in the square [-limit, limit]^2.

    colour: one for all points, or (N, 3) shares of red, green and blue, so that points can be followed.
    """
    import matplotlib.pyplot as plt

    columns = math.ceil(len(clouds) / rows)
    side = min(3.2, 9.6 / columns)
    _, axes = plt.subplots(rows, columns, figsize=(side * columns, (side + 0.25) * rows), squeeze=False)
    for index, (ax, cloud) in enumerate(zip(axes.flat, clouds, strict=True)):
        # Smoothed edges would treble the size of the stored picture.
        ax.scatter(*cloud.cpu().T, s=1.5 if columns > 1 else 4.0, c=colour, linewidths=0, antialiased=False)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_visible(False)
        if titles:
            ax.set_title(titles[index])


def place_colours(points: Tensor) -> Tensor:
    """A colour for each point (N, 2), by where it lies from left to right: (N, 3) shares of red, green and blue."""
    import matplotlib as mpl

    x = points[:, 0].cpu()
    share = (x - x.min()) / (x.max() - x.min()).clamp(min=1e-12)
    return torch.tensor(mpl.colormaps["plasma"](0.85 * share.numpy())[:, :3], dtype=torch.float32)


def draw_points(points: Tensor, colour: Tensor | None = None, size: int = 300, limit: float = 3.0) -> Tensor:
    """A cloud (N, 2) in the square [-limit, limit]^2 as a picture, uint8 (size, size, 3): a frame for animate.

    colour: (N, 3) shares of red, green and blue; by default the colour of data. Much quicker than a plot.
    """
    if colour is None:
        data = COLOURS["data"]
        colour = torch.tensor([int(data[i : i + 2], 16) / 255 for i in (1, 3, 5)]).expand(len(points), 3)
    fine = 3 * size
    canvas = torch.ones(fine, fine, 3)
    disc = [(i, j) for i in range(-4, 5) for j in range(-4, 5) if i * i + j * j <= 17]
    column, row = (
        ((points.float() * points.new_tensor([1, -1]) + limit) / (2 * limit) * fine).long().unbind(1)
    )
    for i, j in disc:
        y, x = row + i, column + j
        seen = (y >= 0) & (y < fine) & (x >= 0) & (x < fine)
        canvas[y[seen], x[seen]] = colour[seen]
    smooth = F.avg_pool2d(canvas.permute(2, 0, 1)[None], 3)[0]
    return smooth.permute(1, 2, 0).mul(255).round().to(torch.uint8)


class Film:
    """Frames with a slider and a play button; see animate. Shows itself in a notebook and on a page."""

    def __init__(self, html_text: str, strip: bytes):
        self.html, self.strip = html_text, strip

    def _repr_mimebundle_(self, **_) -> dict[str, object]:
        return {"text/html": self.html, "image/png": base64.b64encode(self.strip).decode()}

    def __repr__(self) -> str:
        return "<Film>"


def animate(
    frames: Sequence[Tensor], captions: Sequence[str], alt: str, caption: str = "", strip: int = 6
) -> Film:
    """A film to step through by slider, keyboard or play button, in plain HTML: it needs no kernel and no network.

    frames: S pictures, uint8 (H, W, 3). captions: S short texts, shown with their frames. alt: what the film
    shows, for those who cannot see it. caption: printed below. strip: how many of the frames stand side
    by side in the still picture that is shown where scripts do not run.

    Raises ValueError if it would take more than 300 kB.
    """
    if not len(frames) or len(frames) != len(captions):
        raise ValueError(
            f"a film needs one caption for each frame, got {len(frames)} frames, {len(captions)} captions"
        )
    shown = torch.linspace(0, len(frames) - 1, min(strip, len(frames))).round().long().tolist()
    # (H, W, 3) -> (N, 3, H, W), at half size
    still = torch.stack([frames[i].permute(2, 0, 1) for i in shown])
    still = F.avg_pool2d(still.float(), 2).round().to(torch.uint8)
    poster = png_bytes(image_grid(still, len(shown)), colours=64)
    page = _FILM % {
        "poster": _data_uri(poster, "png"),
        "alt": html.escape(alt),
        "caption": html.escape(caption),
        "width": frames[0].shape[1],
        "last": len(frames) - 1,
        "frames": json.dumps([_data_uri(webp_bytes(frame), "webp") for frame in frames]),
        # "</" inside a script would end it
        "captions": json.dumps(list(captions)).replace("</", "<\\/"),
    }
    if len(page) > LARGEST_FILM:
        raise ValueError(
            f"this film takes {len(page) / 1e3:.0f} kB of 300: use fewer, smaller or plainer frames"
        )
    return Film(page, poster)


_FILM = """<figure class="film" style="text-align:center;margin:1em 0">
<img src="%(poster)s" alt="%(alt)s" style="max-width:100%%;background:#fff">
<div class="film-controls" data-lm-suppress-shortcuts="true" style="display:none;gap:.6em;justify-content:center;align-items:center;max-width:26em;margin:.4em auto">
<button type="button" aria-label="play the film">▶</button>
<input type="range" min="0" max="%(last)d" value="0" style="flex:1" aria-label="step of the film">
<output style="min-width:6em;text-align:left"></output></div>
<figcaption>%(caption)s</figcaption>
<script>(() => {
const film = document.currentScript.parentElement, [image, controls] = film.children;
const [button, slider, text] = controls.children;
const frames = %(frames)s, captions = %(captions)s;
let timer = null;
const show = i => { slider.value = i; image.src = frames[i]; text.textContent = captions[i];
  slider.setAttribute("aria-valuetext", captions[i]); };
const stop = () => { clearInterval(timer); timer = null; button.textContent = "▶"; button.setAttribute("aria-label", "play the film"); };
const next = () => +slider.value < frames.length - 1 ? show(+slider.value + 1) : stop();
const play = () => { if (+slider.value == frames.length - 1) show(0);
  timer = setInterval(next, 150); button.textContent = "❚❚"; button.setAttribute("aria-label", "pause the film"); };
button.onclick = () => timer ? stop() : play();
slider.oninput = () => { stop(); show(+slider.value); };
image.width = %(width)d;
controls.style.display = "flex";
show(0);
})();</script>
</figure>"""


def _columns(count: int, columns: int | None) -> int:
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    return min(count, columns or math.ceil(math.sqrt(count)))


def _grid_axes(images: Tensor, columns: int, padding: int, scale: float):
    import matplotlib.pyplot as plt

    grid = image_grid(images, columns, padding)
    inches = 0.7 * scale / images.shape[-1]
    _, ax = plt.subplots(figsize=(grid.shape[1] * inches, grid.shape[0] * inches + 0.3))
    shown = ax.imshow(grid.numpy(), interpolation="nearest")
    height, width = images.shape[-2:]
    places = [divmod(index, columns) for index in range(len(images))]
    corners = [(column * (width + padding) - 0.5, row * (height + padding) - 0.5) for row, column in places]
    shown.tiles = [((x, y), (x + width, y + height)) for x, y in corners]  # see figure_png
    ax.axis("off")
    return ax


def _above(images: Tensor, column: int, row: int, padding: int) -> tuple[float, float]:
    height, width = images.shape[-2:]
    return column * (width + padding) + width / 2, row * (height + padding) - 1.5


def _name_rows(ax, images: Tensor, names: Sequence[str], padding: int) -> None:
    height = images.shape[-2]
    for row, name in enumerate(names):
        middle = row * (height + padding) + height / 2
        ax.text(-height / 10, middle, name, ha="right", va="center", fontsize=9)


def png_bytes(picture: Tensor, colours: int | None = None) -> bytes:
    """A PNG of picture, uint8 (H, W, 3); in no more than so many colours, if given, for a smaller file."""
    from PIL import Image

    image = Image.fromarray(picture.numpy())
    return _encoded(image.quantize(colours) if colours else image, "PNG", optimize=True)


def grey_png_bytes(picture: Tensor) -> bytes:
    """A PNG of picture, uint8 (H, W), in 16 even shades of grey."""
    from PIL import Image

    image = Image.fromarray(picture.float().div(17).round().byte().numpy()).convert("P")
    image.putpalette([17 * (i // 3) for i in range(48)])
    return _encoded(image, "PNG", optimize=True)


def webp_bytes(picture: Tensor, quality: int = 60) -> bytes:
    """A WebP of picture, uint8 (H, W, 3), lossy; quality from 0 to 100."""
    from PIL import Image

    return _encoded(Image.fromarray(picture.numpy()), "WEBP", quality=quality, method=6)


def _encoded(image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
