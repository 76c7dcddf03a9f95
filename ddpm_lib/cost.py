"""What a network costs and what a run will take, told before it starts; and what would be cheaper."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace

from .denoiser import Denoiser
from .training import TrainConfig, train
from .unet import UNet, UNetConfig, anatomy, default_levels

TRIAL_STEPS = 3
WORTH_A_TRIAL = 10
"""Steps of a run from which its time is worth knowing before it starts."""
LONGEST_TRIAL = 20.0
"""Seconds after which a trial is cut short."""


def trial(denoiser: Denoiser, stream, config: TrainConfig) -> float:
    """Seconds of a training step: the quickest of three, on a copy and hardly moving, so that the run does not notice."""
    learner = replace(denoiser, net=copy.deepcopy(denoiser.net))
    short = replace(config, steps=TRIAL_STEPS, warmup=0, lr=1e-9)
    took, began = [], time.perf_counter()
    for _ in train(learner, stream, short):
        took.append(time.perf_counter() - began - sum(took))
        if sum(took) > LONGEST_TRIAL:
            break
    return min(took)


def described(
    net: UNet, config: TrainConfig, batch_size: int, seconds: float | None, keeps_weights: bool = False
) -> str:
    """Two lines: what the network and the run cost, and what would be cheaper.

    seconds: of a training step, None if it was not tried. keeps_weights: the run starts from weights of this shape, so
    that only smaller pictures are cheaper.
    """
    weights = sum(parameter.numel() for parameter in net.parameters())
    operations = macs(net.config)
    told = f"cost: {weights:,} weights, {2 * operations / 1e9:.3g} GFLOP a picture (three times that in training); "
    if seconds is None:
        told += f"{config.steps:,} steps of {batch_size} pictures, not timed beforehand"
    else:
        told += (
            f"a step of {batch_size} pictures takes {_short(seconds)} here, so {config.steps:,} steps take about "
            f"{_short(seconds * config.steps)}"
        )
    offers = [(how, other) for how, other in cheaper(net.config) if "--size" in how or not keeps_weights]
    found = sorted((macs(other) / operations, how) for how, other in offers)
    ways = ", ".join(f"{how} ({share:.0%} of it)" for share, how in found if share < 0.8)
    return f"{told}\ncheaper: {ways or 'nothing that saves much'}"


def cheaper(config: UNetConfig) -> list[tuple[str, UNetConfig]]:
    """Networks like this one that cost less: what to say on the command line, and the configuration."""
    found = []

    def offer(how: str, **changes) -> None:
        found.append((how, replace(config, **changes)))

    if config.image_size >= 32:
        offer(f"--size {config.image_size // 2}", image_size=config.image_size // 2)
    if config.patch == 1 and config.image_size % 2 == 0:
        patch, multipliers, attention = default_levels(config.image_size, 2)
        offer("--patch 2", patch=2, multipliers=multipliers, attention=attention)
    thinner = config.width * 2 // 3 // 16 * 16
    if thinner >= 16:
        offer(f"--width {thinner}", width=thinner, head_dim=math.gcd(32, thinner))
    if config.blocks > 1:
        offer(f"--blocks {config.blocks - 1}", blocks=config.blocks - 1)
    return found


def macs(config: UNetConfig) -> int:
    """Multiply-adds of a network of this configuration for one picture, forward."""
    import torch

    with torch.device("meta"):
        return sum(part.macs for part in anatomy(UNet(config)))


def _short(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"
