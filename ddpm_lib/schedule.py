"""Noise schedules: one falling function logsnr(t), and a way to split it into signal and noise.

Every schedule writes x_t = a x_0 + s eps with t in [0, 1]: a the signal scale, s the noise scale,
logsnr = log(a^2 / s^2). The chain of DDPM is a table of such a function, exact at t = i / T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import chain as chains
from .chain import Chain


def _split_vp(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()


def _split_flow(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(logsnr / 2), torch.sigmoid(-logsnr / 2)


def _split_ve(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(logsnr), torch.exp(-logsnr / 2)


PATHS = {"vp": _split_vp, "flow": _split_flow, "ve": _split_ve}
"""How log-SNR splits into (signal, noise): a^2 + s^2 = 1, a + s = 1, or a = 1."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """A noise schedule (Kingma et al. 2021, arXiv 2107.00630, for the log-SNR view).

    name: as in SCHEDULES; options: what made it, so that a checkpoint can make it again.
    logsnr: falling function of t (float64 tensor, values in [0, 1]) -> same shape.
    path: "vp", "flow" or "ve". steps: T if the schedule is the table of a chain, else None.
    """

    name: str
    logsnr: Callable[[Tensor], Tensor]
    path: str = "vp"
    steps: int | None = None
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.path not in PATHS:
            raise ValueError(f"unknown path {self.path!r}: choose from {', '.join(PATHS)}")

    def at(self, t: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(logsnr, a, s) at time t, float64 and of t's shape; float32 loses half of 1 - alpha_bar's digits."""
        time = t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)
        time = time.to("cpu" if time.device.type == "mps" else time.device, torch.float64)
        logsnr = self.logsnr(time)
        return logsnr, *PATHS[self.path](logsnr)

    def signal_noise(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """Signal scale a and noise scale s at time t in [0, 1]; float64, of t's shape."""
        return self.at(t)[1:]

    def add_noise(self, x0: Tensor, t: float | Tensor, eps: Tensor) -> Tensor:
        """x_t = a x_0 + s eps. x0, eps: (B, ...); t: a number or (B,), in [0, 1]."""
        a, s = (expand(value, x0) for value in self.signal_noise(t))
        return a * x0 + s * eps

    def times(self, steps: int) -> Tensor:
        """steps + 1 times from 1 down to 0, equally spaced; (steps + 1,) float64."""
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"sampling needs at least 1 step, got steps={steps!r}")
        if self.steps is not None and steps > self.steps:
            raise ValueError(
                f"this chain has {self.steps} steps, so sampling takes 1 to {self.steps}; got {steps}"
            )
        times = torch.arange(steps, -1, -1, dtype=torch.float64) / steps
        if self.steps is not None:
            times = (times * self.steps).round() / self.steps
        return times


def expand(value: Tensor, like: Tensor) -> Tensor:
    """value, a scalar or (B,), moved to like's device and dtype and shaped to broadcast against like (B, ...)."""
    value = value.to(like.device, like.dtype)
    return value.view(-1, *[1] * (like.ndim - 1)) if value.ndim else value


def from_chain(chain: Chain, name: str = "chain", **options) -> Schedule:
    """The continuous schedule of a discrete chain: exact at t = i / T, alpha_bar linear in between."""
    steps = chain.steps
    on_device = {torch.device("cpu"): chain.alpha_bar}

    def logsnr(t: Tensor) -> Tensor:
        if t.device not in on_device:
            on_device[t.device] = chain.alpha_bar.to(t.device)
        table = on_device[t.device]
        position = (t * steps).clamp(0, steps)
        # a float32 i / T comes back as i plus or minus a rounding error, which must still mean the knot
        nearest = position.round()
        position = torch.where((position - nearest).abs() < 1e-6 * steps, nearest, position)
        low = position.floor().clamp(max=steps - 1).long()
        weight = position - low
        alpha_bar = torch.lerp(table[low], table[low + 1], weight)
        return torch.log(alpha_bar) - torch.log1p(-alpha_bar)

    return Schedule(name, logsnr, "vp", steps, options)


def linear(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """DDPM's betas at equal steps (arXiv 2006.11239, section 4)."""
    options = {"steps": steps, "first": first, "last": last}
    return from_chain(chains.linear(**options), "linear", **options)


def cosine(steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """The cosine schedule (arXiv 2102.09672, eq. 17)."""
    options = {"steps": steps, "offset": offset, "max_beta": max_beta}
    return from_chain(chains.cosine(**options), "cosine", **options)


def sigmoid(steps: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """The sigmoid schedule (arXiv 2212.11972; 2301.10972, algorithm 1)."""
    options = {"steps": steps, "start": start, "end": end, "tau": tau}
    return from_chain(chains.sigmoid(**options), "sigmoid", **options)


def flow() -> Schedule:
    """The straight path of flow matching, x_t = (1 - t) x_0 + t eps (Lipman et al. 2022, arXiv 2210.02747;
    Liu et al. 2022, arXiv 2209.03003)."""
    return Schedule("flow", lambda t: 2 * (torch.log1p(-t) - torch.log(t)), "flow")


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """x_t = x_0 + sigma(t) eps, with sigma^(1/rho) linear in t (Karras et al. 2022, arXiv 2206.00364, eq. 5)."""
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"edm needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    logsnr = lambda t: -2 * rho * torch.log(low + t * (high - low))  # noqa: E731
    return Schedule("edm", logsnr, "ve", None, {"sigma_min": sigma_min, "sigma_max": sigma_max, "rho": rho})


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "flow": flow,
    "edm": edm,
}


def make(name: str, **options) -> Schedule:
    """The schedule of that name. Raises ValueError with the choices if there is none."""
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}: choose from {', '.join(SCHEDULES)}")
    return SCHEDULES[name](**options)


def signal_left(schedule: Schedule) -> float:
    """The amplitude of the image that is left at t = 1; 0 means none, sampling from pure noise is then exact."""
    a, s = schedule.signal_noise(1.0)
    return float(a) / math.hypot(float(a), float(s))
