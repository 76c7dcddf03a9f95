"""Sample sizes: what a distance between sets of pictures does with the number of pictures it is measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

from torch import Tensor

from ..plotting import COLOURS
from .common import Figure, assemble, draw_still, short


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
    _check(counts, measured)
    data = {
        "counts": counts,
        "sets": list(next(iter(measured.values()))),
        "looks": {
            look: {
                name: [[short(value, 6) for value in row] for row in values.tolist()]
                for name, values in each.items()
            }
            for look, each in measured.items()
        },
    }
    png = draw_still((7.2, 3.4), _draw, counts, measured)
    return assemble("sample_size", data, png, alt, caption, "fewer draws, sets or features")


def _check(counts: Sequence[int], measured: Mapping[str, Mapping[str, Tensor]]) -> None:
    sets = list(next(iter(measured.values()), {}))
    every = [values for each in measured.values() for values in each.values()]
    shapes = {tuple(values.shape) for values in every}
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
    if not all((values > 0).all() and values.isfinite().all() for values in every):
        raise ValueError("measured values must be finite and above 0: they stand on a logarithmic axis")


def _draw(drawing, counts: Sequence[int], measured: Mapping[str, Mapping[str, Tensor]]) -> None:
    """A plot for each of the features, with the curve and the band of each set."""
    axes = drawing.subplots(1, len(measured), sharey=False, squeeze=False)[0]
    for ax, (look, each) in zip(axes, measured.items(), strict=True):
        styles = cycle(zip(COLOURS.values(), ("-", "--", ":", "-."), strict=True))
        for (name, values), (tint, line) in zip(each.items(), styles, strict=False):
            mean, spread = values.double().mean(1), values.double().std(1)
            # A band that reached 0 would have no end on a logarithmic axis.
            low = (mean - 2 * spread).clamp(min=mean.min() / 10)
            ax.plot(counts, mean, line, color=tint, lw=2, label=name)
            ax.fill_between(counts, low, mean + 2 * spread, color=tint, alpha=0.2)
        ax.set(xscale="log", yscale="log", title=look, xlabel="number of pictures n")
        ax.set_xticks(counts, [str(count) for count in counts], fontsize=7)
        ax.minorticks_off()
    axes[0].legend()
