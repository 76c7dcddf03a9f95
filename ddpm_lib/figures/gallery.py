"""The gallery: sets of images to look through, with what was measured on each."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..plotting import grey_png_bytes, image_grid, webp_bytes
from .common import Figure, assemble, draw_still, number, short


def gallery(
    pictures: Tensor,
    axes: Mapping[str, Sequence[str | float]],
    numbers: Mapping[str, Tensor | Sequence] | None = None,
    columns: int | None = None,
    start: Sequence[int] = (0, 0),
    alt: str = "Pictures to choose from by slider, with the numbers measured on each choice.",
    caption: str = "",
) -> Figure:
    """Sets of images to look through along one or two axes: training steps, guidance scales, raw or averaged weights.

    pictures: (A, N, C, H, W) or (A, B, N, C, H, W), N images shown together for each choice; uint8 or floats
    in [-1, 1]. axes: name -> labels, one or two of them, in the order of the dimensions: the first is a slider,
    the second a slider too if all its labels are numbers, else radio buttons. numbers: name -> (A,) or (A, B),
    told for the choice and drawn over the first axis; nan where nothing was measured. columns: of the grid of N
    images. start: the place on each axis at first. alt, caption: as in scrubber.

    Grey images are kept in 16 shades, coloured ones as WebP. Raises ValueError if shapes do not fit or the
    figure would take more than 300 kB: some 1,000 grey images of 28 x 28.
    """
    sizes = _sizes(pictures, axes)
    values = _values(numbers or {}, sizes)
    start = _start(start, sizes)
    grids = [image_grid(images, columns, 1) for images in pictures.flatten(0, len(sizes) - 1)]
    grey = pictures.shape[-3] == 1
    data = {
        "axes": [{"name": name, "labels": [_label(one) for one in labels]} for name, labels in axes.items()],
        "pictures": [_address(grid, grey) for grid in grids],
        "numbers": {
            name: [None if math.isnan(value) else short(value, 6) for value in given.flatten().tolist()]
            for name, given in values.items()
        },
        "at": list(start),
    }
    shown = torch.linspace(0, sizes[0] - 1, min(4, sizes[0])).round().long().tolist()
    # The second axis, if there is one, stays where it starts.
    sheets = [grids[i] for i in torch.arange(len(grids)).view(sizes)[(shown, *start[1:])]]
    name, labels = next(iter(axes.items()))
    high = min(1.5, sheets[0].shape[0] / sheets[0].shape[1])
    size = 7.2, 7.2 / len(sheets) * high + 0.4
    png = draw_still(size, _draw, sheets, name, [labels[i] for i in shown])
    return assemble("gallery", data, png, alt, caption, "fewer or smaller images")


def _sizes(pictures: Tensor, axes: Mapping[str, Sequence]) -> tuple[int, ...]:
    """(A,) or (A, B). Raises ValueError if pictures and axes do not fit."""
    sizes = tuple(len(labels) for labels in axes.values())
    if len(sizes) not in (1, 2) or pictures.ndim != len(sizes) + 4 or pictures.shape[: len(sizes)] != sizes:
        raise ValueError(
            "pictures must be (A, N, C, H, W) with one axis of A labels, or (A, B, N, C, H, W) with two of A and B; "
            f"got {tuple(pictures.shape)} and axes of {sizes}"
        )
    return sizes


def _values(numbers: Mapping[str, Tensor | Sequence], sizes: tuple[int, ...]) -> dict[str, Tensor]:
    """The numbers in float64. Raises ValueError if they are not of the sizes of the axes."""
    values = {name: torch.as_tensor(given, dtype=torch.float64) for name, given in numbers.items()}
    if wrong := {name: tuple(given.shape) for name, given in values.items() if tuple(given.shape) != sizes}:
        raise ValueError(f"numbers must be {sizes}, as the axes are; got {wrong}")
    return values


def _start(start: Sequence[int], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """One place for each axis. Raises ValueError if one is missing or lies beyond its axis."""
    start = tuple(start)[: len(sizes)]
    if len(start) != len(sizes) or not all(0 <= at < size for at, size in zip(start, sizes, strict=True)):
        raise ValueError(f"start must be a place on each axis, of {sizes}; got {start}")
    return start


def _label(label: str | float) -> str | int | float:
    return label if isinstance(label, str) else number(label)


def _address(grid: Tensor, grey: bool) -> str:
    """The address of a picture that stands in the page itself."""
    kind, content = ("png", grey_png_bytes(grid[..., 0])) if grey else ("webp", webp_bytes(grid, quality=80))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _draw(drawing, sheets: Sequence[Tensor], name: str, labels: Sequence[str | float]) -> None:
    """A few of the sheets of images side by side, with their labels above; the first has the axis's name too."""
    plots = drawing.subplots(1, len(sheets), squeeze=False)[0]
    for i, (ax, sheet, label) in enumerate(zip(plots, sheets, labels, strict=True)):
        ax.imshow(sheet.numpy(), interpolation="nearest")
        ax.axis("off")
        text = label if isinstance(label, str) else f"{number(label):g}"
        ax.set_title(f"{name} {text}" if i == 0 else text)
