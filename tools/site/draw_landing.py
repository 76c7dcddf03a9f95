"""Draw the film of the landing page, its last frame, and the picture that a shared link shows.

    python tools/site/draw_landing.py

Thirty digits by the shipped model, three of each, the first that it drew from seed 0; none was left out.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from ddpm_lib.checkpoint import pretrained
from ddpm_lib.files import write_whole
from ddpm_lib.plotting import grey_png_bytes, image_grid, png_bytes, webp_bytes
from ddpm_lib.sampling import clipped, ddim, guided, pure_noise

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"
STEPS, ROWS, SCALE = 30, 3, 1.5
# Most happens late: of the first half of the steps, every second one is shown.
SHOWN = [*range(0, STEPS // 2, 2), *range(STEPS // 2, STEPS + 1)]


def film() -> Tensor:
    """(F, 30, 1, 28, 28): the digits 0 to 9 in three rows, from pure noise to drawn, in [-1, 1]."""
    model = pretrained("mnist28").denoiser()
    labels = torch.arange(10).repeat(ROWS)
    noise = pure_noise((len(labels), 1, 28, 28), model.schedule, torch.Generator().manual_seed(0))
    steps = ddim(clipped(guided(model, labels, SCALE)), noise, model.schedule, model.schedule.times(STEPS))
    frames = [noise, *(step.x for step in steps)]
    return torch.stack([frames[i].clamp(-1, 1) for i in SHOWN])


def shared_picture(frames: Tensor) -> bytes:
    """1200 x 630: one row of the digits at four moments under the book's title."""
    figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="#14181e")
    figure.text(
        0.5,
        0.885,
        "Diffusion models, from noise to a picture",
        ha="center",
        va="center",
        color="white",
        size=30,
    )
    figure.text(
        0.5,
        0.045,
        "a book in PyTorch: every formula beside the code that computes it",
        ha="center",
        color="#a9b4c0",
        size=18,
    )
    moments = [frames[round(i * (len(frames) - 1) / 3), :10] for i in range(4)]
    axes = figure.add_axes((0.08, 0.13, 0.84, 0.66))
    axes.imshow(image_grid(torch.cat(moments), 10, 0).numpy(), interpolation="nearest", aspect="auto")
    axes.axis("off")
    figure.canvas.draw()
    pixels = torch.frombuffer(bytearray(figure.canvas.buffer_rgba()), dtype=torch.uint8)
    return png_bytes(pixels.view(630, 1200, 4)[..., :3].contiguous(), 64)


def main() -> None:
    frames = film()
    sheets = [image_grid(frame, 10, 0) for frame in frames]
    for name, content in {
        "film.webp": webp_bytes(torch.cat(sheets), quality=50),
        "film-last.png": grey_png_bytes(sheets[-1][..., 0]),
        "social.png": shared_picture(frames),
    }.items():
        write_whole(STATIC / name, lambda part, content=content: Path(part).write_bytes(content))
        print(f"book/_static/{name}: {len(content):,} bytes")
    print(f"{len(frames)} frames of {sheets[0].shape[1]} x {sheets[0].shape[0]} pixels")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
