"""Train the runs that chapter 7 asks its readers to diagnose: one that is healthy, five with one bug each.

    python experiments/broken_runs.py        some minutes on one thread; writes ddpm_lib/embedded/broken_runs.json

Network, recipe and sampler are those of the chapter's live run, with fewer steps. Each bug is one change to
what `train` is given. Kept of each run: the loss of every step; the loss on 64 test pictures, of the weights as
they are; and twenty digits, drawn with the average of the weights. Computed with 32 bits on one thread, so
that two machines agree in all that the eye can see.

What it found: each of the five bugs leaves a trace of its own in the losses, in the samples or in both, which is what makes the
exercise possible; the tests of chapter 7 hold the traces to the stored runs, whose file says device, seed and commit.
"""

from __future__ import annotations

import base64
import copy
import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor

from ddpm_lib.checkpoint import provenance
from ddpm_lib.data import batches, load_images, to_uint8
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.files import write_whole
from ddpm_lib.sampling import clipped, dpm_solver_2m, guided, last
from ddpm_lib.schedule import cosine
from ddpm_lib.training import EMA, TrainConfig, make_optimizer, train
from ddpm_lib.unet import UNet, UNetConfig

PATH = Path(__file__).parents[1] / "ddpm_lib" / "embedded" / "broken_runs.json"
NET = UNetConfig(28, 1, 10, width=32, multipliers=(1, 1), blocks=1, attention=(), head_dim=16, patch=2)
CONFIG = TrainConfig(steps=240, optimizer="muon", lr=1e-2, warmup=10, decay="linear")
EVERY = 20
"""Steps from one look at the test pictures to the next."""
SHADES = 16
BUGS = ("none", "rate", "copy", "average", "batch", "zero")


def none_for_zero(label: Tensor) -> Tensor:
    """The bug "zero": what `label or None` does to a label."""
    return torch.where(label == 0, -1, label)


class Run:
    """One training run. bug: one of BUGS."""

    def __init__(self, bug: str):
        torch.manual_seed(0)
        self.schedule = cosine(1000)
        self.relabel = none_for_zero if bug == "zero" else lambda label: label
        self.net = UNet(NET)
        self.config = replace(CONFIG, lr=30 * CONFIG.lr) if bug == "rate" else CONFIG
        self.ema = EMA(self.net, half_life=5_000 if bug == "average" else 30)
        if bug == "average":
            self.ema.updates = 10**6  # without the library's remedy, a shorter average at the start
        self.optimizer = make_optimizer(copy.deepcopy(self.net) if bug == "copy" else self.net, self.config)
        pairs = batches(load_images("mnist"), 32, seed=0)
        pairs = repeat(next(pairs)) if bug == "batch" else pairs
        self.pairs = ((x0, self.relabel(label)) for x0, label in pairs)

    def losses(self) -> Iterator[float]:
        """The loss of one step after another."""
        denoiser = Denoiser(self.net, self.schedule, "x0")
        for step in train(denoiser, self.pairs, self.config, self.ema, self.optimizer):
            yield step.loss.item()

    @torch.no_grad()
    def test_loss(self) -> float:
        """The loss of the weights as they are, always on the same pictures, times and noise."""
        x0, label = next(batches(load_images("mnist", split="test"), 64, seed=0))
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
        t = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
        return Denoiser(self.net, self.schedule, "x0").loss(x0, t, eps, self.relabel(label)).mean().item()

    @torch.no_grad()
    def samples(self) -> Tensor:
        """Two digits of each kind, drawn with the average; uint8 (20, 1, 28, 28)."""
        label = self.relabel(torch.arange(20) % 10)
        noise = torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        denoise = clipped(guided(Denoiser(self.ema.net, self.schedule, "x0"), label, 2.5))
        return to_uint8(last(dpm_solver_2m(denoise, noise, self.schedule, self.schedule.times(10))))


def record(bug: str) -> dict:
    """Runs to the end; what is kept of it."""
    run, losses = Run(bug), []
    tested = {0: run.test_loss()}
    for loss in run.losses():
        losses.append(loss)
        if len(losses) % EVERY == 0:
            tested[len(losses)] = run.test_loss()
    shades = (run.samples().float() / 255 * (SHADES - 1)).round().byte()
    return {
        "loss": [float(f"{loss:.3g}") for loss in losses],
        "tested": {step: float(f"{loss:.3g}") for step, loss in tested.items()},
        "samples": base64.b64encode(zlib.compress(shades.numpy().tobytes(), 9)).decode(),
    }


def main() -> None:
    torch.set_num_threads(1)
    began = time.perf_counter()
    runs = {}
    for bug in BUGS:
        runs[bug] = record(bug)
        end = sum(runs[bug]["loss"][-20:]) / 20
        print(f"{bug:8s} ends at {end:.3f}, {time.perf_counter() - began:.0f} s", flush=True)
    kept = {
        "made by": "python experiments/broken_runs.py",
        "with": {**provenance(torch.device("cpu")), "seed": 0, "seconds": round(time.perf_counter() - began)},
        "shades": SHADES,
        "runs": runs,
    }
    text = json.dumps(kept, separators=(",", ":")) + "\n"
    write_whole(PATH, lambda part: Path(part).write_text(text, encoding="utf-8"))
    print(f"{PATH.name}: {len(text) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
