"""The converter: one network output under its five names, for one pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..denoiser import coefficients
from ..plotting import COLOURS
from ..schedule import Schedule
from .common import Figure, assemble, draw_still, short

QUANTITIES = {
    "eps": ("ε", "the noise"),
    "x0": ("x₀", "the clean pixel"),
    "v": ("v", "a ε − s x₀"),
    "score": ("score", "−ε / s"),
    "flow": ("velocity", "ε − x₀"),
}
"""The symbol of each quantity, and what it is."""
LOOKS = {
    "eps": (COLOURS["noise"], "--", "var(--noise)"),
    "x0": (COLOURS["data"], "-.", "var(--data)"),
    "v": (COLOURS["prediction"], "-", "var(--prediction)"),
    "score": ("#CC79A7", ":", "#CC79A7"),
    "flow": ("#666666", (0, (6, 1, 1, 1, 1, 1)), "#808080"),
}
"""Colour and line of each quantity in the still picture, and its colour on the page, light or dark."""


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
    pairs = _pairs(a, s)
    data = {
        "times": steps if schedule.steps else [step / count for step in steps],
        "signal": [short(value) for value in a.tolist()],
        "noise": [short(value) for value in s.tolist()],
        "quantities": {
            name: {
                "symbol": symbol,
                "text": text,
                "colour": LOOKS[name][2],
                "p": [short(value) for value in pairs[name][0].tolist()],
                "q": [short(value) for value in pairs[name][1].tolist()],
            }
            for name, (symbol, text) in QUANTITIES.items()
        },
    }
    # With x_t kept, an error in x_0 becomes |a q - s p| / s times as large; ratios do without the s.
    growth = {name: (a * q - s * p).abs() for name, (p, q) in pairs.items()}
    png = draw_still((7.2, 3.2), _draw, steps, growth)
    return assemble("converter", data, png, alt, caption, "a shorter caption")


def _pairs(a: Tensor, s: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """name -> p and q at each time, each (K,): the quantity is p x_0 + q eps."""
    pairs = {name: coefficients(name, a, s) for name in ("eps", "x0", "v", "flow")}
    return pairs | {"score": (torch.zeros_like(s), -1 / s)}


def _draw(drawing, steps: Sequence[int], growth: Mapping[str, Tensor]) -> None:
    """What an error in eps, and one in v, becomes in the others, over the times."""
    share = torch.tensor(steps) / steps[-1]
    left, right = drawing.subplots(1, 2, sharey=True)
    for ax, chosen in ((left, "eps"), (right, "v")):
        for name in QUANTITIES:
            ratio = (growth[name] / growth[chosen]).clamp(1e-3, 1e4)
            colour, line, _ = LOOKS[name]
            ax.plot(share, ratio, label=name, color=colour, ls=line, lw=2)
        ax.set(yscale="log", xlabel="t / T", title=f"what an error of 1 in {chosen} becomes")
    right.legend()
