"""One example of each kind of figure, on which the tests try what holds for all kinds, and what it is made from."""

from __future__ import annotations

import torch

from ddpm_lib import schedule, toy
from ddpm_lib.figures import (
    Line,
    converter,
    derivation,
    gallery,
    hover_weights,
    network,
    sample_size,
    schedule_designer,
    scrubber,
)
from ddpm_lib.unet import UNetConfig


def cloud(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal points in the plane: (*shape, 2)."""
    return torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed))


FRAMES, POINTS = 9, 50
STEPS = [round(100 - 12.5 * i) for i in range(FRAMES)]
TRACKS = {"own noise": cloud(FRAMES, POINTS), "same noise": 0.5 * cloud(FRAMES, POINTS, seed=1)}
IMAGE = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
DATA = toy.shape_points("heart", 80, torch.Generator().manual_seed(0))
CHAIN = schedule.linear(200, 5e-4, 0.1)
TIMES = [0, 1, 20, 60, 120, 200]
LINES = [
    Line(r"\log(a b) = \log a + \log b", "The log of $a b$.", 1.23456789, 1.23456789 * (1 + 9e-7)),
    Line(r"-\log(a b) = -\log a - \log b", "Both sides times $-1$.", 1.5, 1.5 * (1 - 1.2e-6)),
    Line(r"x = " + " + ".join(f"a_{{{i}}}" for i in range(40)), "A line wider than any phone."),
]
# Each set of pictures is grey in a shade of its own.
SHEET_STEPS = [0, 10, 50, 100]
SHEETS = torch.linspace(-1, 1, 8).view(4, 2, 1, 1, 1, 1).expand(4, 2, 6, 1, 12, 12)
SHEET_NUMBERS = {"loss": torch.tensor([[1, 2], [0.5, 0.25], [0.125, 0.1], [torch.nan, 0.05]])}
BODY, BODY_SIZES = UNetConfig(28, 1, 10, 48, (1, 2), 2, (1,), 16, 2), (28, 32, 64)
COUNTS = [150, 300, 600, 1200, 2400]


def measured(scale: float, add: float, seed: int) -> torch.Tensor:
    """(5, 8): a distance measured eight times at each of COUNTS, with a bias of 100 / n."""
    noise = torch.randn(5, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (100 / torch.tensor(COUNTS, dtype=torch.float64)[:, None]) * scale * (1 + 0.08 * noise) + add


MEASURED = {
    "pixels": {"real": measured(1, 0, 0), "blurred": measured(1, 0.3, 1), "no nines": measured(1, 0.01, 2)},
    "network": {"real": measured(2, 0, 3), "blurred": measured(2, 0.1, 4), "no nines": measured(2, 1.0, 5)},
}
EXAMPLES = {
    "scrubber": lambda **text: scrubber(TRACKS, STEPS, **text),
    "schedule_designer": lambda **text: schedule_designer(IMAGE, **text),
    "hover_weights": lambda **text: hover_weights(DATA, CHAIN, TIMES, **text),
    "derivation": lambda **text: derivation(LINES, **text),
    "converter": lambda **text: converter(schedule.flow(), **text),
    "gallery": lambda **text: gallery(
        SHEETS, {"step": SHEET_STEPS, "weights": ["raw", "EMA"]}, SHEET_NUMBERS, 3, **text
    ),
    "network": lambda **text: network(BODY, BODY_SIZES, **text),
    "sample_size": lambda **text: sample_size(COUNTS, MEASURED, **text),
}
"""kind -> its example; alt and caption may be given."""
KINDS = sorted(EXAMPLES)
