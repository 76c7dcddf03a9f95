"""The network: a U-Net drawn as boxes, each of which tells its shapes and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..plotting import COLOURS
from ..unet import Part, UNet, UNetConfig, anatomy
from .common import Figure, assemble, draw_still

WIDTH = 760
"""Of the drawing, in units of its own, in which all below are too."""
MARGIN = 70.0
"""At the left, for the side of each row's grid."""
BOX, LOW_BOX = 40.0, 17.0
"""Heights of a part's box, and of the one of attention below it."""
LIFT = 9.0
"""How far each skip runs above the one inside it."""
WORDS = {
    "told": "time and label, told to every block",
    "stem": "stem: one convolution",
    "block": "residual block",
    "attention": "self-attention",
    "down": "down: halves the grid",
    "up": "up: doubles the grid",
    "head": "head: norm, SiLU, convolution",
}
OWN_COLOURS = {"attention": "noise", "down": "prediction", "up": "prediction"}
"""Kinds of parts that are not drawn in the colour of data."""


def network(
    config: UNetConfig,
    sizes: Sequence[int] = (28, 32, 64),
    alt: str = "A U-Net drawn as boxes, each of which tells its shapes, parameters and multiply-adds.",
    caption: str = "",
) -> Figure:
    """A U-Net, part by part: choose one, and see its shapes, its parameters and what it costs.

    config: what the network is made of; nothing in the figure is typed by hand, all comes from unet.anatomy.
    sizes: heights and widths of the pictures to choose from; raises ValueError for one that the network
    cannot take. Boxes are the darker the larger their share. alt, caption: as in scrubber.
    """
    with torch.device("meta"):
        net = UNet(config)
    passes = [anatomy(net, size) for size in sizes]
    if not passes:
        raise ValueError("a network needs at least one size of picture to be drawn for")
    start = list(sizes).index(config.image_size) if config.image_size in sizes else 0
    parts = passes[start]
    plan = _plan(parts)
    data = {
        "sizes": list(sizes),
        "start": start,
        "width": WIDTH,
        "height": plan.height,
        "rows": [
            {"y": y, "sides": [_side(each, level) for each in passes]} for level, y in enumerate(plan.rows)
        ],
        "skips": [{"from": source, "to": goal, "path": path} for source, goal, path in plan.skips],
        "parts": [
            {
                "name": part.name,
                "kind": part.kind,
                "words": _words(part, parts),
                "box": plan.places[part.name],
                "parameters": part.parameters,
                "given": [list(same.given) for same in alike],
                "made": [list(same.made) for same in alike],
                "macs": [same.macs for same in alike],
            }
            for part, *alike in zip(parts, *passes, strict=True)
        ],
        "first": next(i for i, part in enumerate(parts) if part.kind == "block"),
    }
    png = draw_still((7.2, 7.2 * plan.height / WIDTH + 0.1), _draw, parts, plan)
    return assemble("network", data, png, alt, caption, "fewer blocks or sizes")


def _side(parts: Sequence[Part], level: int) -> int:
    """Height and width of the grid at this level."""
    return next(part.made[-1] for part in parts if part.level == level)


def _words(part: Part, parts: Sequence[Part]) -> str:
    words = WORDS[part.kind]
    if part.skip:
        across = next(other for other in parts if other.name == part.skip)
        words += f", joined with {across.made[0]} channels from the way down"
    return words


@dataclass(frozen=True)
class Plan:
    """Where the parts of a network stand. y grows downwards.

    places: name -> [x, y, width, height]. skips: (from, to, the corners of the way between them). rows: the middle
    of each level's row. height: of it all.
    """

    places: dict[str, list[float]]
    skips: list[tuple[str, str, list[list[float]]]]
    rows: list[float]
    height: float


def _plan(parts: Sequence[Part]) -> Plan:
    """A row for each level and a column for each part, in order; attention stands below its block, and what is
    told to all blocks below everything."""
    columns, column = {}, -1
    for part in parts:
        column += part.kind not in ("attention", "told")
        columns[part.name] = column
    pitch = (WIDTH - MARGIN - 2) / (column + 1)
    width = round(pitch - min(8, pitch / 4), 1)
    tops, bottom = _rows(parts)
    places = {}
    for part in parts:
        x = round(MARGIN + columns[part.name] * pitch, 1)
        if part.kind == "told":
            places[part.name] = [MARGIN, bottom + 4, round((column + 1) * pitch - pitch + width, 1), 20]
        elif part.kind == "attention":
            places[part.name] = [x, tops[part.level] + BOX + 2, width, LOW_BOX]
        else:
            places[part.name] = [x, tops[part.level], width, BOX]
    return Plan(places, _skips(parts, places), [top + BOX / 2 for top in tops], bottom + 28)


def _rows(parts: Sequence[Part]) -> tuple[list[float], float]:
    """The top of the boxes of each level, with room above them for its skips; and where the last row ends."""
    tops, y = [], 2.0
    for level in range(1 + max(part.level for part in parts)):
        skips = sum(part.level == level and bool(part.skip) for part in parts)
        tops.append(y + LIFT * skips + 5)
        y = tops[-1] + BOX + LOW_BOX + 8
    return tops, y


def _skips(parts: Sequence[Part], places: dict[str, list[float]]) -> list[tuple[str, str, list[list[float]]]]:
    """Up from the one part, across above the row, and down to the other; level by level as the way up meets them."""
    within: dict[int, list[Part]] = {}
    for part in parts:
        if part.skip:
            within.setdefault(part.level, []).append(part)
    skips = []
    for group in within.values():
        # The first to come is the innermost.
        for above, part in enumerate(group, 1):
            (x, top, width, _), (other, *_) = places[part.name], places[part.skip]
            high, near, far = top - LIFT * above, round(x + width / 2, 1), round(other + width / 2, 1)
            skips.append((part.skip, part.name, [[far, top], [far, high], [near, high], [near, top]]))
    return skips


def _draw(drawing, parts: Sequence[Part], plan: Plan) -> None:
    """The plan, with the channels that each part makes in its box."""
    ax = drawing.add_subplot()
    main = [plan.places[part.name] for part in parts if part.kind not in ("told", "attention")]
    middles = [(x + width / 2, y + height / 2) for x, y, width, height in main]
    ax.plot(*zip(*middles, strict=True), color="#999999", lw=1, zorder=0)
    for _, _, corners in plan.skips:
        ax.plot(*zip(*corners, strict=True), color=COLOURS["data"], lw=1)
    most = max(part.macs for part in parts)
    for part in parts:
        _draw_part(ax, part, plan.places[part.name], 0.08 + 0.6 * (part.macs / most) ** 0.5)
    for level, y in enumerate(plan.rows):
        side = _side(parts, level)
        ax.text(2, y, f"{side} × {side}", va="center", fontsize=9)
    ax.set(xlim=(0, WIDTH), ylim=(plan.height, 0), aspect="equal")
    ax.axis("off")


def _draw_part(ax, part: Part, place: Sequence[float], strength: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, width, height = place
    colour = COLOURS[OWN_COLOURS.get(part.kind, "data")]
    for look in (
        {"fc": "white", "ec": "none"},
        {"fc": colour, "ec": "none", "alpha": strength},
        {"fc": "none", "ec": colour},
    ):
        ax.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=3", **look))
    narrow = width < 24
    text = {"told": WORDS["told"], "attention": "a" if narrow else "att"}.get(part.kind, str(part.made[0]))
    turned = 90 if narrow and part.kind != "attention" else 0
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8, rotation=turned)
