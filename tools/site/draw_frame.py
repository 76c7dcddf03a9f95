"""Draw the book's logo, its favicon and the figure of the landing page.

    python tools/site/draw_frame.py

A seven made of points is noised by DDPM's chain, and brought back from fresh noise with the exact
denoiser of that finite set of points: nothing in these pictures is drawn by hand but the seven.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from ddpm_lib import chain as chains

BOOK = Path(__file__).resolve().parents[2] / "book"
DATA, NOISE, INK = "#0072B2", "#D55E00", "#333333"
SEVEN = np.array([[-0.75, 1.0], [0.75, 1.0], [-0.25, -1.15]])
NOISING = r"$x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1-\bar\alpha_t}\, \varepsilon$"
REVERSE = (
    r"$x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{1-\alpha_t}{\sqrt{1-\bar\alpha_t}}\,"
    r"\varepsilon_\theta(x_t, t)\right) + \sigma_t z$"
)
CROSSBAR = np.array([[-0.35, -0.05], [0.6, -0.05]])


def seven(count: int, generator: np.random.Generator, thickness: float) -> Tensor:
    """(N, 2) points spread evenly along the strokes of a seven."""
    strokes = [(SEVEN[0], SEVEN[1]), (SEVEN[1], SEVEN[2]), (CROSSBAR[0], CROSSBAR[1])]
    lengths = np.array([np.linalg.norm(end - start) for start, end in strokes])
    marks = (np.arange(count) + 0.5) / count * lengths.sum()
    stroke = np.minimum(np.searchsorted(lengths.cumsum(), marks), len(strokes) - 1)
    along = (marks - np.concatenate([[0], lengths.cumsum()])[stroke]) / lengths[stroke]
    starts, ends = (np.array([pair[i] for pair in strokes])[stroke] for i in (0, 1))
    points = starts + along[:, None] * (ends - starts)
    return torch.from_numpy(points + thickness * generator.uniform(-1, 1, points.shape))


def colour(share_of_data: float) -> str:
    data, noise = (np.array(to_rgb(name)) for name in (DATA, NOISE))
    return to_hex(share_of_data * data + (1 - share_of_data) * noise)


def noised(chain: chains.Chain, x0: Tensor, t: int, seed: int) -> Tensor:
    return chain.add_noise(
        x0, t, torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed), dtype=x0.dtype)
    )


def exact_noise(chain: chains.Chain, x: Tensor, t: int, data: Tensor) -> Tensor:
    """E[eps | x_t], when the data are these points and no others: a softmax over them."""
    alpha_bar = chain.alpha_bar[t]
    distance = torch.cdist(x, alpha_bar.sqrt() * data).square()
    x0 = torch.softmax(-distance / (2 * (1 - alpha_bar)), dim=1) @ data
    return (x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()


def drawn(chain: chains.Chain, data: Tensor, count: int, stops: list[int], seed: int) -> dict[int, Tensor]:
    """DDPM's sampling from fresh noise, with the points at some of the steps."""
    generator = torch.Generator().manual_seed(seed)
    fresh = lambda: torch.randn(count, 2, generator=generator, dtype=data.dtype)  # noqa: E731
    x, film = fresh(), {}
    for t in range(chain.steps, 0, -1):
        if t in stops:
            film[t] = x
        x = chain.step(x, exact_noise(chain, x, t, data), t, fresh())
    return film | {0: x}


def svg(groups: list[tuple[Tensor, str, float, float]], width: float, height: float, radius: float) -> str:
    circles = []
    for points, fill, left, scale in groups:
        dots = [
            f'<circle cx="{left + scale * x:.1f}" cy="{height / 2 - scale * y:.1f}" r="{radius}"/>'
            for x, y in points
        ]
        circles.append(f'<g fill="{fill}">{"".join(dots)}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="A seven made of points comes out of noise">{"".join(circles)}</svg>\n'
    )


def draw_logo(chain: chains.Chain) -> None:
    points = seven(46, np.random.default_rng(1), 0.04)
    groups = []
    for place, t in enumerate((700, 320, 120, 0)):
        share = float(chain.alpha_bar[t].sqrt())
        groups.append((noised(chain, points, t, seed=3), colour(share), 50 + 82 * place, 25))
    (BOOK / "_static" / "logo.svg").write_text(svg(groups, 346, 90, 3.1))
    points = seven(30, np.random.default_rng(1), 0.0)
    (BOOK / "_static" / "favicon.svg").write_text(svg([(points, DATA, 16, 11.5)], 32, 32, 2.3))


def draw_system(chain: chains.Chain) -> None:
    stops = [0, 60, 180, 400, 1000]
    data = 1.45 * seven(1500, np.random.default_rng(0), 0.08)
    some = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(2))[:450]]
    back = drawn(chain, data, 450, stops, seed=4)
    figure, axes = plt.subplots(2, len(stops), figsize=(10, 5.4))
    figure.subplots_adjust(left=0.015, right=0.985, top=0.81, bottom=0.06, wspace=0.14, hspace=0.66)
    for column, t in enumerate(stops):
        share = float(chain.alpha_bar[t].sqrt())
        for row, points in enumerate((noised(chain, some, t, seed=5), back[t])):
            axis = axes[row, column]
            axis.scatter(*points.T, s=5, color=colour(share), linewidths=0)
            axis.set(xlim=(-3.1, 3.1), ylim=(-2.6, 2.6), xticks=[], yticks=[], aspect="equal")
            for spine in axis.spines.values():
                spine.set_color("#bbbbbb")
        name = "0" if t == 0 else "T" if t == chain.steps else str(t)
        axes[1, column].set_xlabel(f"$x_{{{name}}}$", color=INK, fontsize=13)
    rows = (
        (0.95, NOISE, (0.03, 0.97), "Destroy: one line of code, nothing to learn", NOISING),
        (0.482, DATA, (0.97, 0.03), "Draw: start from noise and undo it, step by step", REVERSE),
    )
    for top, shade, (start, end), title, formula in rows:
        figure.text(0.5, top, title, ha="center", color=INK, fontsize=13)
        figure.text(0.5, top - 0.07, formula, ha="center", color=shade, fontsize=13)
        ends = [(start, top - 0.105), (end, top - 0.105)]
        arrow = FancyArrowPatch(
            *ends, transform=figure.transFigure, arrowstyle="-|>", mutation_scale=14, color=shade, lw=1.4
        )
        figure.add_artist(arrow)
    figure.savefig(
        BOOK / "images" / "one_system.png", dpi=144, facecolor="white", metadata={"Software": None}
    )
    plt.close(figure)


def main() -> None:
    chain = chains.linear()
    draw_logo(chain)
    draw_system(chain)


if __name__ == "__main__":
    main()
