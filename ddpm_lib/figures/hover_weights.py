"""The weights of the perfect denoiser of a finite data set, for a probe that is moved over the plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..plotting import COLOURS
from ..schedule import Schedule
from ..toy import FiniteSet
from .common import Figure, assemble, draw_still, number, pack, short


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

    Raises ValueError for other shapes of points, for inf and nan among them, and for steps out of range.
    """
    if points.ndim != 2 or points.shape[1] != 2 or not 1 <= len(points) <= 400 or not points.isfinite().all():
        raise ValueError(f"points must be finite and (N, 2) with N from 1 to 400, got {tuple(points.shape)}")
    points = points.float().cpu()
    limit = short(max(2.5, 1.25 * float(points.abs().max())), 2)
    times = _times(steps, schedule)
    a, s = schedule.signal_noise(times)
    first = (len(steps) - 1) // 2
    probe = limit * torch.tensor([0.35, 0.25])
    data = {
        "points": pack(points.numpy().astype("<f4")),
        "times": [number(step) for step in steps],
        "signal": [short(value) for value in a.tolist()],
        "noise": [short(value) for value in s.tolist()],
        "first": first,
        "probe": [round(value, 2) for value in probe.tolist()],
        "limit": limit,
    }
    png = draw_still((4.4, 4.4), _draw, points, probe, schedule, float(times[first]), limit, steps[first])
    return assemble("hover_weights", data, png, alt, caption, "fewer points or steps")


def _times(steps: Sequence[float], schedule: Schedule) -> Tensor:
    """The steps as times in [0, 1], float64. Raises ValueError if there are none, and for one out of range."""
    times = torch.tensor([float(step) for step in steps], dtype=torch.float64) / (schedule.steps or 1)
    if not len(times) or not ((times >= 0) & (times <= 1)).all():
        allowed = f"whole numbers in 0..{schedule.steps}" if schedule.steps else "numbers in [0, 1]"
        raise ValueError(
            f"steps of the {schedule.name!r} schedule must be {allowed}, at least one; got {steps}"
        )
    return times


def _draw(
    drawing, points: Tensor, probe: Tensor, schedule: Schedule, time: float, limit: float, step: float
) -> None:
    world = FiniteSet(points)
    weight = world.posterior(probe[None], schedule, time)[0]
    mean = world.denoiser(schedule)(probe[None], time)[0]
    ax = drawing.add_subplot()
    opacity = (0.15 + 0.85 * (weight / weight.max()).sqrt()).tolist()
    ax.scatter(*points.T, s=(6 + 300 * weight).tolist(), c=COLOURS["data"], alpha=opacity, linewidths=0)
    ax.plot([probe[0], mean[0]], [probe[1], mean[1]], color=COLOURS["prediction"])
    ax.plot(*probe, "o", color=COLOURS["noise"], label="probe")
    ax.plot(*mean, "D", color=COLOURS["prediction"], label="posterior mean")
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=f"t = {number(step)}")
    ax.legend(loc="lower right")
