"""The schedule designer: families of noise schedules, their curves, and an image under them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..chain import CHAINS
from ..plotting import image_grid
from .common import Figure, assemble, draw_still, pack


def schedule_designer(
    image: Tensor,
    alt: str = "Controls for a noise schedule, its curves, and a picture at eight steps under it.",
    caption: str = "",
) -> Figure:
    """Choose a family of schedules and its parameters; see alpha_bar, log-SNR, a noised image, and what is left at T.

    image: uint8 (C, H, W), C 1 or 3, at most 64 pixels wide and high; raises ValueError for another. The tables are
    those of chain.CHAINS, and of chain.rescale_zero_terminal; "scaled linear" has the square roots of beta at equal
    steps (Rombach et al. 2021, arXiv 2112.10752, in the code). alt, caption: as in scrubber.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3) or max(image.shape) > 64:
        raise ValueError(
            f"image must be uint8 (C, H, W), C 1 or 3, at most 64 pixels a side; got {tuple(image.shape)} {image.dtype}"
        )
    channels, height, width = image.shape
    packed = pack(image.permute(1, 2, 0).cpu().numpy())
    data = {"image": packed, "width": width, "height": height, "channels": channels}
    png = draw_still((7.2, 4.0), _draw, image)
    return assemble("schedule_designer", data, png, alt, caption, "a smaller image")


def _draw(drawing, image: Tensor) -> None:
    """The chains of the library with 1000 steps as two plots, above the image under DDPM's."""
    grid = drawing.add_gridspec(2, 2, height_ratios=(2, 1))
    bars = {name: make(1000).alpha_bar[1:] for name, make in CHAINS.items()}
    titles = "$\\bar\\alpha$, the image's share of the variance", "log-SNR"
    for column, value in enumerate((lambda bar: bar, torch.logit)):
        ax = drawing.add_subplot(grid[0, column])
        for name, bar in bars.items():
            ax.plot(value(bar).clamp(-12, 12), label=name)
        ax.set(title=titles[column], xlabel="t")
    ax.legend()
    ax = drawing.add_subplot(grid[1, :])
    ax.imshow(_noised(image).numpy(), interpolation="nearest")
    ax.axis("off")


def _noised(image: Tensor) -> Tensor:
    """The image at eight steps of DDPM's chain, side by side, with the same noise in each: uint8 (H, W, 3)."""
    eps = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    chain = CHAINS["linear"](1000)
    x0 = image.cpu().float() / 127.5 - 1
    return image_grid(torch.stack([chain.add_noise(x0, round(i * 1000 / 7), eps) for i in range(8)]), 8)
