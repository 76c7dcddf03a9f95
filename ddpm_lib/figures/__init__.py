"""Interactive figures: self-contained HTML that needs no kernel and no network, each with a still picture.

Each kind of figure is one file of JavaScript beside this one, which draws what Python gives it. A
figure shows itself as the last expression of a cell, on a page, in Jupyter, VS Code and Colab; where
scripts do not run, its picture remains. matplotlib and latex2mathml are imported when one is made.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import html
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from ..chain import CHAINS
from ..denoiser import coefficients
from ..plotting import COLOURS, draw_points, grey_png_bytes, image_grid, png_bytes, webp_bytes
from ..schedule import Schedule
from ..toy import FiniteSet
from ..unet import Part, UNet, UNetConfig, anatomy

LARGEST_FIGURE = 300_000
"""Bytes of HTML that a figure may take, so that a page stays quick to load."""
COLOURS_OF_PICTURES = 64
"""In the still pictures: enough for lines and points, in fewer bytes."""
AGREE = 1e-6
"""How far, relative to the larger, the two sides of a line of a derivation may lie apart."""


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


@dataclass(frozen=True)
class Line:
    """One line of a derivation.

    tex: an equation in LaTeX, on one line, without dollars. words: why it follows from the line before; what
    stands in them between dollars is LaTeX too. left, right: its two sides at some numbers, computed in
    two ways, to be shown side by side; both or none.
    """

    tex: str
    words: str
    left: float | None = None
    right: float | None = None

    def __post_init__(self):
        if (self.left is None) != (self.right is None):
            raise ValueError(f"give both sides of {self.tex!r} or none")
        if self.left is not None and not (math.isfinite(self.left) and math.isfinite(self.right)):
            raise ValueError(f"the sides of {self.tex!r} must be finite, got {self.left} and {self.right}")


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

    Raises ValueError if shapes do not fit or the figure would take more than 300 kB: two tracks of 300 points
    at 60 steps take 245.
    """
    shapes = {name: tuple(track.shape) for name, track in tracks.items()}
    shape = next(iter(shapes.values()), ())
    if len(shape) != 3 or shape[2] != 2 or set(shapes.values()) != {shape} or shape[0] != len(steps):
        raise ValueError(
            f"tracks must all be (S, N, 2) with S = {len(steps)}, one for each step; got {shapes}"
        )
    if colours is not None and colours.shape != (shape[1], 3):
        raise ValueError(f"colours must be ({shape[1]}, 3), one for each point; got {tuple(colours.shape)}")
    largest = max(float(track.abs().max()) for track in tracks.values())
    if not math.isfinite(largest):
        raise ValueError("tracks must be finite, and some entries are inf or nan")
    scale = math.ceil(largest + 1e-9) / 32767
    tints = None if colours is None else [_hex(colour) for colour in colours.tolist()]
    shown = torch.linspace(0, len(steps) - 1, min(6, len(steps))).round().long().tolist()
    small = [draw_points(track[i].cpu(), colours, 110, limit) for track in tracks.values() for i in shown]
    still = image_grid(torch.stack(small).permute(0, 3, 1, 2), len(shown))
    data = {
        "steps": [int(step) for step in steps],
        "tracks": {
            name: _packed((track.double().cpu().numpy() / scale).round().astype("<i2"))
            for name, track in tracks.items()
        },
        "scale": scale,
        "count": shape[1],
        "colours": tints,
        "limit": limit,
    }
    return _figure("scrubber", data, png_bytes(still, COLOURS_OF_PICTURES), alt, caption)


def schedule_designer(
    image: Tensor,
    alt: str = "Controls for a noise schedule, its curves, and a picture at eight steps under it.",
    caption: str = "",
) -> Figure:
    """Choose a family of schedules and its parameters; see alpha_bar, log-SNR, a noised image, and what is left at T.

    image: uint8 (C, H, W), C 1 or 3, at most 64 pixels wide and high. The tables are those of chain.CHAINS, and
    of chain.rescale_zero_terminal; "scaled linear" has the square roots of beta at equal steps (Rombach
    et al. 2021, arXiv 2112.10752, in the code). alt, caption: as in scrubber.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3) or max(image.shape) > 64:
        raise ValueError(
            f"image must be uint8 (C, H, W), C 1 or 3, at most 64 pixels a side; got {tuple(image.shape)} {image.dtype}"
        )
    channels, height, width = image.shape
    packed = _packed(image.permute(1, 2, 0).cpu().numpy())
    data = {"image": packed, "width": width, "height": height, "channels": channels}
    return _figure("schedule_designer", data, _drawn(_families(image), (7.2, 4.0)), alt, caption)


def hover_weights(
    points: Tensor,
    schedule: Schedule,
    steps: Sequence[float],
    alt: str = "Points in the plane, each as large as its weight in the best guess for a probe.",
    caption: str = "",
) -> Figure:
    """Move a probe x_t over the plane and see the perfect denoiser of a finite data set at work.

    points: (N, 2), the data, N at most 400. steps: the times of the slider: whole numbers t in 0..T if schedule is
    the table of a chain of T steps, else numbers in [0, 1]. Each point is drawn as large as its weight, the
    chance that it made x_t (toy.FiniteSet(points).posterior); their mean is joined to the probe.
    alt, caption: as in scrubber.
    """
    if points.ndim != 2 or points.shape[1] != 2 or not 1 <= len(points) <= 400 or not points.isfinite().all():
        raise ValueError(f"points must be finite and (N, 2) with N from 1 to 400, got {tuple(points.shape)}")
    points = points.float().cpu()
    limit = _short(max(2.5, 1.25 * float(points.abs().max())), 2)
    middle = (len(steps) - 1) // 2
    a, s = schedule.signal_noise(_times(steps, schedule))
    probe = torch.tensor([0.35, 0.25])
    data = {
        "points": _packed(points.numpy().astype("<f4")),
        "times": [_number(step) for step in steps],
        "signal": [_short(value) for value in a.tolist()],
        "noise": [_short(value) for value in s.tolist()],
        "first": middle,
        "probe": [round(value, 2) for value in (limit * probe).tolist()],
        "limit": limit,
    }
    time = float(_times(steps, schedule)[middle])
    png = _drawn(_weights(points, limit * probe, schedule, time, limit, steps[middle]), (4.4, 4.4))
    return _figure("hover_weights", data, png, alt, caption)


def derivation(
    steps: Sequence[Line],
    alt: str = "A derivation, line by line, each with its reason and a numeric check.",
    caption: str = "",
) -> Figure:
    """A derivation to walk through, one line after another, by buttons or arrow keys.

    steps: the lines. Where a line has its two sides as numbers, both are shown, with "agree", or with
    "DISAGREE" if they lie more than 1e-6 apart, relative to the larger. What is new in a line is coloured.
    alt, caption: as in scrubber. Raises ValueError for LaTeX that cannot be converted.
    """
    if not steps:
        raise ValueError("a derivation needs at least one Line")
    marked = _marked([_mathml(line.tex, "block") for line in steps])
    lines = [
        {"math": mathml, "words": _prose(line.words)}
        | ({} if line.left is None else {"left": _short(line.left), "right": _short(line.right)})
        for mathml, line in zip(marked, steps, strict=True)
    ]
    png = _drawn(_written(steps), (7.2, 0.2 + 0.75 * len(steps)))
    return _figure("derivation", {"lines": lines}, png, alt, caption)


def converter(
    schedule: Schedule,
    alt: str = "One network output under five names, with sliders for t, x_t and one of the five.",
    caption: str = "",
) -> Figure:
    """For one pixel: choose x_t, t and one of eps, x_0, v, score and velocity, and see all five, and what an
    error of 0.1 in the chosen one becomes in each.

    schedule: its signal and noise at 100 times are used. The names are those of denoiser.TARGETS ("flow" is the
    velocity), with score = -eps / s. alt, caption: as in scrubber.
    """
    count = schedule.steps or 1000
    steps = sorted({max(1, round(i * count / 100)) for i in range(101)})
    a, s = schedule.signal_noise(torch.tensor(steps, dtype=torch.float64) / count)
    pairs = {name: coefficients(name, a, s) for name in ("eps", "x0", "v", "flow")}
    pairs["score"] = torch.zeros_like(s), -1 / s
    data = {
        "times": steps if schedule.steps else [step / count for step in steps],
        "signal": [_short(value) for value in a.tolist()],
        "noise": [_short(value) for value in s.tolist()],
        "quantities": {
            name: {
                "symbol": symbol,
                "text": text,
                "p": [_short(value) for value in pairs[name][0].tolist()],
                "q": [_short(value) for value in pairs[name][1].tolist()],
            }
            for name, (symbol, text) in QUANTITIES.items()
        },
    }
    growth = {name: (a * q - s * p).abs() for name, (p, q) in pairs.items()}
    return _figure("converter", data, _drawn(_growth(steps, growth), (7.2, 3.2)), alt, caption)


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
    sizes = tuple(len(labels) for labels in axes.values())
    if len(sizes) not in (1, 2) or pictures.ndim != len(sizes) + 4 or pictures.shape[: len(sizes)] != sizes:
        raise ValueError(
            "pictures must be (A, N, C, H, W) with one axis of A labels, or (A, B, N, C, H, W) with two of A and B; "
            f"got {tuple(pictures.shape)} and axes of {sizes}"
        )
    values = {name: torch.as_tensor(given, dtype=torch.float64) for name, given in (numbers or {}).items()}
    if wrong := {name: tuple(given.shape) for name, given in values.items() if tuple(given.shape) != sizes}:
        raise ValueError(f"numbers must be {sizes}, as the axes are; got {wrong}")
    start = tuple(start)[: len(sizes)]
    if len(start) != len(sizes) or not all(0 <= at < size for at, size in zip(start, sizes, strict=True)):
        raise ValueError(f"start must be a place on each axis, of {sizes}; got {start}")
    grids = [image_grid(images, columns, 1) for images in pictures.flatten(0, len(sizes) - 1)]
    grey = pictures.shape[-3] == 1
    data = {
        "axes": [
            {
                "name": name,
                "labels": [label if isinstance(label, str) else _number(label) for label in labels],
            }
            for name, labels in axes.items()
        ],
        "pictures": [_picture(grid, grey) for grid in grids],
        "numbers": {
            name: [None if math.isnan(value) else _short(value, 6) for value in given.flatten().tolist()]
            for name, given in values.items()
        },
        "at": list(start),
    }
    shown = torch.linspace(0, sizes[0] - 1, min(4, sizes[0])).round().long().tolist()
    step = math.prod(sizes[1:])
    still = [(list(axes.values())[0][i], grids[i * step + (start[1] if step > 1 else 0)]) for i in shown]
    png = _drawn(_sheets(still, next(iter(axes))), (7.2, 7.2 / len(still) * _height(grids[0]) + 0.4))
    return _figure("gallery", data, png, alt, caption)


def _height(grid: Tensor) -> float:
    return min(1.5, grid.shape[0] / grid.shape[1])


def _picture(grid: Tensor, grey: bool) -> str:
    """The address of a picture that stands in the page itself."""
    kind, content = ("png", grey_png_bytes(grid[..., 0])) if grey else ("webp", webp_bytes(grid, quality=80))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


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
    places, ways, rows, height = _plan(passes[start])
    data = {
        "sizes": list(sizes),
        "start": start,
        "width": PLAN_WIDTH,
        "height": height,
        "rows": [
            {"y": y, "sides": [_grid_at(parts, level) for parts in passes]} for level, y in enumerate(rows)
        ],
        "skips": [{"from": source, "to": goal, "path": path} for source, goal, path in ways],
        "parts": [
            {
                "name": part.name,
                "kind": part.kind,
                "words": _part_words(part, passes[start]),
                "box": places[part.name],
                "parameters": part.parameters,
                "given": [list(same.given) for same in alike],
                "made": [list(same.made) for same in alike],
                "macs": [same.macs for same in alike],
            }
            for part, *alike in zip(passes[start], *passes, strict=True)
        ],
        "first": next(i for i, part in enumerate(passes[start]) if part.kind == "block"),
    }
    still = _drawn(_plan_drawn(passes[start]), (7.2, 7.2 * height / PLAN_WIDTH + 0.1))
    return _figure("network", data, still, alt, caption)


PLAN_WIDTH = 760
"""Of the drawing of a network, in units of its own."""
PART_WORDS = {
    "told": "time and label, told to every block",
    "stem": "stem: one convolution",
    "block": "residual block",
    "attention": "self-attention",
    "down": "down: halves the grid",
    "up": "up: doubles the grid",
    "head": "head: norm, SiLU, convolution",
}
PART_COLOURS = {"attention": "noise", "down": "prediction", "up": "prediction"}
"""Kinds of parts that are not drawn in the colour of data."""


def _part_words(part: Part, parts: Sequence[Part]) -> str:
    words = PART_WORDS[part.kind]
    if part.skip:
        across = next(other for other in parts if other.name == part.skip)
        words += f", joined with {across.made[0]} channels from the way down"
    return words


def _grid_at(parts: Sequence[Part], level: int) -> int:
    return next(part.made[-1] for part in parts if part.level == level)


def _plan(
    parts: Sequence[Part],
) -> tuple[dict[str, list[float]], list[tuple[str, str, list]], list[float], float]:
    """Where the parts stand: name -> [x, y, width, height], the skips as (from, to, corners), the middle of each
    level's row, and the height of it all. A column for each part, in order; attention stands below its block."""
    left, box, low, room = 70.0, 40.0, 17.0, 9.0
    columns, column = {}, -1
    for part in parts:
        column += part.kind not in ("attention", "told")
        columns[part.name] = column
    pitch = (PLAN_WIDTH - left - 2) / (column + 1)
    within: dict[int, list[Part]] = {}
    for part in parts:
        if part.skip:
            within.setdefault(part.level, []).append(part)
    tops, y = [], 2.0
    for level in range(1 + max(part.level for part in parts)):
        y += room * len(within.get(level, [])) + 5
        tops.append(y)
        y += box + low + 8
    wide = round(pitch - min(8, pitch / 4), 1)
    places = {}
    for part in parts:
        x = round(left + columns[part.name] * pitch, 1)
        if part.kind == "told":
            places[part.name] = [left, y + 4, round((column + 1) * pitch - pitch + wide, 1), 20]
        elif part.kind == "attention":
            places[part.name] = [x, tops[part.level] + box + 2, wide, low]
        else:
            places[part.name] = [x, tops[part.level], wide, box]
    ways = []
    for level, group in within.items():
        # the first to come is the innermost
        for lift, part in enumerate(group, 1):
            (x, _, *_), (other, *_) = places[part.name], places[part.skip]
            top = tops[level]
            high, near, far = top - room * lift, round(x + wide / 2, 1), round(other + wide / 2, 1)
            ways.append((part.skip, part.name, [[far, top], [far, high], [near, high], [near, top]]))
    return places, ways, [top + box / 2 for top in tops], y + 28


def sample_size(
    counts: Sequence[int],
    measured: Mapping[str, Mapping[str, Tensor]],
    alt: str = "Two curves of a distance against the number of pictures, with bands, and a slider for the number of each.",
    caption: str = "",
) -> Figure:
    """Measure one set of pictures, A, with one number of them and another, B, with another, and see which looks better.

    counts: the K numbers of pictures, rising. measured: features -> set -> (K, R), a distance measured anew R times at
    each number; the same sets for each of the features, two at least. The first set is A, radio buttons choose
    B among the others. Curves are means, bands two standard deviations; the figure counts in how many of the
    R x R pairs B comes out below A. alt, caption: as in scrubber.

    Raises ValueError for shapes that do not fit and for values that are not above 0, for the axes are logarithmic.
    """
    counts = [int(count) for count in counts]
    sets = list(next(iter(measured.values()), {}))
    shapes = {tuple(values.shape) for each in measured.values() for values in each.values()}
    fits = len(shapes) == 1 and all(
        len(shape) == 2 and shape[0] == len(counts) and shape[1] > 1 for shape in shapes
    )
    if not fits or len(sets) < 2 or any(list(each) != sets for each in measured.values()):
        raise ValueError(
            f"measured must hold the same sets, two at least, for each of the features, each (K, R) with K = {len(counts)} "
            f"and R at least 2; got {[{name: tuple(v.shape) for name, v in each.items()} for each in measured.values()]}"
        )
    if len(counts) < 2 or counts[0] < 1 or any(a >= b for a, b in zip(counts[:-1], counts[1:], strict=True)):
        raise ValueError(f"counts must rise, from 1 at least, and be two or more; got {counts}")
    if not all(
        (values > 0).all() and values.isfinite().all()
        for each in measured.values()
        for values in each.values()
    ):
        raise ValueError("measured values must be finite and above 0: they stand on a logarithmic axis")
    looks = {
        look: {
            name: [[_short(v, 6) for v in row] for row in values.tolist()] for name, values in each.items()
        }
        for look, each in measured.items()
    }
    png = _drawn(_measured(counts, measured), (7.2, 3.4))
    return _figure("sample_size", {"counts": counts, "sets": sets, "looks": looks}, png, alt, caption)


QUANTITIES = {
    "eps": ("ε", "the noise"),
    "x0": ("x₀", "the clean pixel"),
    "v": ("v", "a ε − s x₀"),
    "score": ("score", "−ε / s"),
    "flow": ("velocity", "ε − x₀"),
}
"""The symbol of each quantity of the converter, and what it is."""


def _figure(kind: str, data: dict, png: bytes, alt: str, caption: str) -> Figure:
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
        f"<figcaption>{_prose(caption)}</figcaption>\n<script>{script}</script>\n</figure>"
    )
    if (size := len(page.encode())) > LARGEST_FIGURE:
        raise ValueError(
            f"this figure takes {size / 1e3:.0f} kB of {LARGEST_FIGURE / 1e3:.0f}: use {LIGHTER[kind]}"
        )
    return Figure(page, png, alt)


LIGHTER = {
    "scrubber": "fewer points, steps or tracks",
    "schedule_designer": "a smaller image",
    "hover_weights": "fewer points or steps",
    "derivation": "fewer lines",
    "converter": "a shorter caption",
    "gallery": "fewer or smaller images",
    "network": "fewer blocks or sizes",
    "sample_size": "fewer draws, sets or features",
}
"""What makes a figure of each kind lighter."""


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _style() -> str:
    style = _source("common.css")
    for name, colour in COLOURS.items():
        style = style.replace(f"@{name}@", colour)
    return style


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _short(value: float, digits: int = 12) -> float:
    """To so many digits: the last ones differ between processors, and stored outputs should not."""
    return float(f"{value:.{digits}g}")


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else _short(float(value), 6)


def _hex(shares: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * share):02x}" for share in shares)


def _times(steps: Sequence[float], schedule: Schedule) -> Tensor:
    times = torch.tensor([float(step) for step in steps], dtype=torch.float64) / (schedule.steps or 1)
    if not len(times) or not ((times >= 0) & (times <= 1)).all():
        allowed = f"whole numbers in 0..{schedule.steps}" if schedule.steps else "numbers in [0, 1]"
        raise ValueError(
            f"steps of the {schedule.name!r} schedule must be {allowed}, at least one; got {steps}"
        )
    return times


# LaTeX to MathML, which browsers draw without a script


def _mathml(tex: str, display: str = "inline") -> str:
    from latex2mathml.converter import convert

    if "&" in tex or "\\\\" in tex:
        raise ValueError(f"one equation on one line, please, not an array of them: {tex!r}")
    bare = re.sub(r"\\[{}]", "", tex)
    if bare.count("{") != bare.count("}"):
        raise ValueError(f"cannot convert {tex!r} to MathML: its braces do not match")
    try:
        mathml = convert(re.sub(r"\\[lr]Vert(?![a-zA-Z])", r"\\|", tex), display=display)
    except Exception as error:
        raise ValueError(f"cannot convert {tex!r} to MathML: {error!r}") from error
    # It leaves commands that it does not know as they are.
    if unknown := re.search(r"\\[A-Za-z]+", mathml):
        raise ValueError(f"cannot convert {unknown[0]} in {tex!r} to MathML: write it in plainer LaTeX")
    # "log x" needs the space that TeX puts there.
    mathml = re.sub(
        r"(?<!<msub>)(?<!<msup>)(?<!<msubsup>)(<mi>(?:log|exp|ln|sin|cos|tr|det|max|min)</mi>)(?=<m(?!o|space))",
        r'\1<mspace width="0.167em" />',
        mathml,
    )
    # A block would stand in the middle; ours begins at the left, with the same large sums and fractions.
    mathml = mathml.replace('display="block"', 'displaystyle="true"', 1)
    return mathml.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")


def _prose(text: str) -> str:
    """Text as HTML, with the LaTeX between dollars as MathML."""
    parts = re.split(r"\$(.+?)\$", text)
    return "".join(_mathml(part) if i % 2 else html.escape(part, quote=False) for i, part in enumerate(parts))


LEAF = re.compile(r"<(mi|mn|mo)\b([^>]*)>([^<]*)</\1>")


def _marked(formulas: Sequence[str]) -> list[str]:
    """The formulas, with class "new" on the letters, numbers and signs that the one before does not have.
    Where more than half would be new, nothing is marked: it is then another formula."""
    marked, before = [], None
    for formula in formulas:
        leaves = [match[3] for match in LEAF.finditer(formula)]
        new: set[int] = set()
        if before is not None:
            blocks = difflib.SequenceMatcher(None, before, leaves, autojunk=False).get_matching_blocks()
            new = set(range(len(leaves))) - {
                i for _, start, size in blocks for i in range(start, start + size)
            }
        if len(new) > len(leaves) / 2:
            new = set()
        count = iter(range(len(leaves)))

        def mark(match: re.Match, count=count, new=new) -> str:
            kind = ' class="new"' if next(count) in new else ""
            return f"<{match[1]}{kind}{match[2]}>{match[3]}</{match[1]}>"

        marked.append(LEAF.sub(mark, formula))
        before = leaves
    return marked


# The still pictures


def _drawn(draw: Callable, size: tuple[float, float]) -> bytes:
    """What draw(figure) draws, in matplotlib's own style, whatever the chapter has set."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    with mpl.rc_context(mpl.rcParamsDefault):
        mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
        mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=[*COLOURS.values(), "#CC79A7"])
        drawing = Drawing(figsize=size, dpi=96, layout="constrained")
        draw(drawing)
        canvas = FigureCanvasAgg(drawing)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        return png_bytes(torch.from_numpy(pixels), COLOURS_OF_PICTURES)


def _families(image: Tensor) -> Callable:
    def draw(drawing):
        grid = drawing.add_gridspec(2, 2, height_ratios=(2, 1))
        bars = {name: make(1000).alpha_bar[1:] for name, make in CHAINS.items()}
        titles = "$\\bar\\alpha$, the image's share of the variance", "log-SNR"
        for column, value in enumerate((lambda bar: bar, lambda bar: torch.logit(bar))):
            ax = drawing.add_subplot(grid[0, column])
            for name, bar in bars.items():
                ax.plot(value(bar).clamp(-12, 12), label=name)
            ax.set(title=titles[column], xlabel="t")
        ax.legend()
        generator = torch.Generator().manual_seed(0)
        eps = torch.randn(image.shape, generator=generator)
        chain = CHAINS["linear"](1000)
        x0 = image.cpu().float() / 127.5 - 1
        noised = torch.stack([chain.add_noise(x0, round(i * 1000 / 7), eps) for i in range(8)])
        ax = drawing.add_subplot(grid[1, :])
        ax.imshow(image_grid(noised, 8).numpy(), interpolation="nearest")
        ax.axis("off")

    return draw


def _weights(points: Tensor, probe: Tensor, schedule: Schedule, time: float, limit: float, step) -> Callable:
    def draw(drawing):
        world = FiniteSet(points)
        weight = world.posterior(probe[None], schedule, time)[0]
        mean = world.denoiser(schedule)(probe[None], time)[0]
        ax = drawing.add_subplot()
        opacity = (0.15 + 0.85 * (weight / weight.max()).sqrt()).tolist()
        ax.scatter(*points.T, s=(6 + 300 * weight).tolist(), c=COLOURS["data"], alpha=opacity, linewidths=0)
        ax.plot([probe[0], mean[0]], [probe[1], mean[1]], color=COLOURS["prediction"])
        ax.plot(*probe, "o", color=COLOURS["noise"], label="probe")
        ax.plot(*mean, "D", color=COLOURS["prediction"], label="posterior mean")
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=f"t = {_number(step)}")
        ax.legend(loc="lower right")

    return draw


def _sheets(sheets: Sequence[tuple[str | float, Tensor]], name: str) -> Callable:
    def draw(drawing):
        for i, (ax, (label, grid)) in enumerate(
            zip(drawing.subplots(1, len(sheets), squeeze=False)[0], sheets, strict=True)
        ):
            ax.imshow(grid.numpy(), interpolation="nearest")
            ax.axis("off")
            text = label if isinstance(label, str) else f"{_number(label):g}"
            ax.set_title(f"{name} {text}" if i == 0 else text)

    return draw


# How matplotlib, which knows less LaTeX than we do, writes the same.
SIMPLER = {
    r"\\le(?![a-zA-Z])": r"\\leq",
    r"\\ge(?![a-zA-Z])": r"\\geq",
    r"\\[bB]igg?[lrm]?(?![a-zA-Z])": "",
    r"\\[td]frac": r"\\frac",
    r"\\frac(\d)(\d)": r"\\frac{\1}{\2}",
    r"\\mathcal ?([A-Z])": r"\\mathcal{\1}",
    r"\\[lr]Vert": r"\\|",
}


def _written(steps: Sequence[Line]) -> Callable:
    def draw(drawing):
        from matplotlib.mathtext import MathTextParser

        drawing.set_layout_engine("none")
        parser, height = MathTextParser("path"), 1 / (len(steps) + 0.25)

        def write(text: str, top: float, size: float, colour: str) -> None:
            for pattern, simple in SIMPLER.items():
                text = re.sub(pattern, simple, text)
            try:
                width = parser.parse(text, dpi=72)[0] * size / 12 / 72
            except ValueError:  # then its source, which needs no parser
                text, width = text.replace("$", ""), 0.007 * len(text) * size
            size *= min(1, 0.95 * drawing.get_figwidth() / width)
            drawing.text(0.02, top, text, fontsize=size, va="top", color=colour)

        for i, line in enumerate(steps):
            top = 1 - (i + 0.15) * height
            write(f"${line.tex}$", top, 13, "black")
            write(line.words or " ", top - 0.6 * height, 9, "#555555")

    return draw


def _growth(steps: Sequence[int], growth: Mapping[str, Tensor]) -> Callable:
    def draw(drawing):
        share = torch.tensor(steps) / steps[-1]
        left, right = drawing.subplots(1, 2, sharey=True)
        for ax, chosen in ((left, "eps"), (right, "v")):
            for name in QUANTITIES:
                ratio = (growth[name] / growth[chosen]).clamp(1e-3, 1e4)
                ax.plot(share, ratio, label=name, ls="--" if name == chosen else "-")
            ax.set(yscale="log", xlabel="t / T", title=f"how an error in {chosen} grows")
        right.legend()

    return draw


def _plan_drawn(parts: Sequence[Part]) -> Callable:
    places, ways, rows, height = _plan(parts)
    most = max(part.macs for part in parts)

    def draw(drawing):
        from matplotlib.patches import FancyBboxPatch

        ax = drawing.add_subplot()
        main = [places[part.name] for part in parts if part.kind not in ("told", "attention")]
        ax.plot(
            *zip(*[(x + w / 2, y + h / 2) for x, y, w, h in main], strict=True),
            color="#999999",
            lw=1,
            zorder=0,
        )
        for _, _, corners in ways:
            ax.plot(*zip(*corners, strict=True), color=COLOURS["data"], lw=1)
        for part in parts:
            x, y, w, h = places[part.name]
            colour = COLOURS[PART_COLOURS.get(part.kind, "data")]
            shape = "round,pad=0,rounding_size=3"
            ax.add_patch(FancyBboxPatch((x, y), w, h, shape, fc="white", ec="none"))
            strength = 0.08 + 0.6 * (part.macs / most) ** 0.5
            ax.add_patch(FancyBboxPatch((x, y), w, h, shape, fc=colour, ec="none", alpha=strength))
            ax.add_patch(FancyBboxPatch((x, y), w, h, shape, fc="none", ec=colour))
            narrow = w < 24
            text = {"told": PART_WORDS["told"], "attention": "a" if narrow else "att"}.get(
                part.kind, str(part.made[0])
            )
            turned = 90 if narrow and part.kind != "attention" else 0
            ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=8, rotation=turned)
        for level, y in enumerate(rows):
            side = _grid_at(parts, level)
            ax.text(2, y, f"{side} × {side}", va="center", fontsize=9)
        ax.set(xlim=(0, PLAN_WIDTH), ylim=(height, 0), aspect="equal")
        ax.axis("off")

    return draw


def _measured(counts: Sequence[int], measured: Mapping[str, Mapping[str, Tensor]]) -> Callable:
    def draw(drawing):
        axes = drawing.subplots(1, len(measured), sharey=False, squeeze=False)[0]
        for ax, (look, each) in zip(axes, measured.items(), strict=True):
            styles = cycle(zip(COLOURS.values(), ("-", "--", ":", "-."), strict=True))
            for (name, values), (tint, line) in zip(each.items(), styles, strict=False):
                mean, spread = values.double().mean(1), values.double().std(1)
                ax.plot(counts, mean, line, color=tint, lw=2, label=name)
                ax.fill_between(
                    counts,
                    (mean - 2 * spread).clamp(min=mean.min() / 10),
                    mean + 2 * spread,
                    color=tint,
                    alpha=0.2,
                )
            ax.set(xscale="log", yscale="log", title=look, xlabel="number of pictures n")
            ax.set_xticks(counts, [str(count) for count in counts], fontsize=7)
            ax.minorticks_off()
        axes[0].legend()

    return draw
