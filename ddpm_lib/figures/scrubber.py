"""The scrubber: stored paths of points in the plane, to step through."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..plotting import draw_points, image_grid, png_bytes
from .common import COLOURS_OF_PICTURES, Figure, assemble, pack


def scrubber(
    tracks: Mapping[str, Tensor],
    steps: Sequence[int],
    colours: Tensor | None = None,
    limit: float = 3.0,
    alt: str = "A cloud of points in the plane, step by step, with a slider for the step.",
    caption: str = "",
) -> Figure:
    """Stored paths of points, to step through by slider or play button; radio buttons choose among tracks.

    tracks: name -> (S, N, 2), where N points are at S steps; the same S and N in each. steps: the t of each
    frame, S whole numbers. colours: (N, 3) shares of red, green and blue (plotting.place_colours); by default
    the colour of data. limit: the square [-limit, limit]^2 is shown. alt: what the figure shows, for those who
    cannot see it. caption: printed below; what stands between dollars is LaTeX.

    Raises ValueError if shapes do not fit, if a place is inf or nan, or if the figure would take more than 300 kB:
    two tracks of 300 points at 60 steps take 245.
    """
    count = _points(tracks, len(steps))
    if colours is not None and colours.shape != (count, 3):
        raise ValueError(f"colours must be ({count}, 3), one for each point; got {tuple(colours.shape)}")
    scale = _scale(tracks)
    data = {
        "steps": [int(step) for step in steps],
        "tracks": {
            name: pack((track.double().cpu().numpy() / scale).round().astype("<i2"))
            for name, track in tracks.items()
        },
        "scale": scale,
        "count": count,
        "colours": None if colours is None else [_hex(colour) for colour in colours.tolist()],
        "limit": limit,
    }
    png = png_bytes(_strips(tracks, colours, limit), COLOURS_OF_PICTURES)
    return assemble("scrubber", data, png, alt, caption, "fewer points, steps or tracks")


def _points(tracks: Mapping[str, Tensor], steps: int) -> int:
    """How many points the tracks have. Raises ValueError if their shapes do not fit."""
    shapes = {name: tuple(track.shape) for name, track in tracks.items()}
    shape = next(iter(shapes.values()), ())
    if len(shape) != 3 or shape[2] != 2 or set(shapes.values()) != {shape} or shape[0] != steps:
        raise ValueError(f"tracks must all be (S, N, 2) with S = {steps}, one for each step; got {shapes}")
    return shape[1]


def _scale(tracks: Mapping[str, Tensor]) -> float:
    """What one step of the whole numbers of 16 bits stands for, in which places are stored."""
    largest = max(float(track.abs().max()) for track in tracks.values())
    if not math.isfinite(largest):
        raise ValueError("tracks must be finite, and some entries are inf or nan")
    return math.ceil(largest + 1e-9) / 32767


def _hex(shares: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * share):02x}" for share in shares)


def _strips(tracks: Mapping[str, Tensor], colours: Tensor | None, limit: float) -> Tensor:
    """Up to six frames of each track side by side, one track below the other: uint8 (H, W, 3)."""
    steps = len(next(iter(tracks.values())))
    shown = torch.linspace(0, steps - 1, min(6, steps)).round().long().tolist()
    small = [draw_points(track[i].cpu(), colours, 110, limit) for track in tracks.values() for i in shown]
    return image_grid(torch.stack(small).permute(0, 3, 1, 2), len(shown))
