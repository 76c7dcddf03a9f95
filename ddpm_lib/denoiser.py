"""From a network to an estimate of the clean image.

A network may be asked for the noise, the image, a velocity: all are linear in (x_0, eps), so one pair
of numbers (p, q) names each, y = p x_0 + q eps, and one line turns any of them into x_0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .schedule import Schedule, expand

SIGMA_DATA = 0.5
"""Standard deviation of the data that EDM's preconditioning assumes (arXiv 2206.00364, table 1)."""


def _edm(a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    norm = (s**2 + (SIGMA_DATA * a) ** 2).sqrt()
    return s / (SIGMA_DATA * norm), -SIGMA_DATA * a / norm


TARGETS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "eps": lambda a, s: (torch.zeros_like(a), torch.ones_like(a)),
    "x0": lambda a, s: (torch.ones_like(a), torch.zeros_like(a)),
    "v": lambda a, s: (-s, a),
    "flow": lambda a, s: (-torch.ones_like(a), torch.ones_like(a)),
    "edm": _edm,
}
"""Prediction types: (a, s) -> (p, q), the network outputs y = p x_0 + q eps.

eps: arXiv 2006.11239; v: arXiv 2202.00512 (with the sign of that paper, v = a eps - s x_0);
flow: arXiv 2210.02747 (eps - x_0); edm: arXiv 2206.00364, eq. 7.
"""


def coefficients(predict: str, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """(p, q) of a prediction type, y = p x_0 + q eps. Raises ValueError with the choices for another name."""
    if predict not in TARGETS:
        raise ValueError(f"unknown prediction {predict!r}: choose from {', '.join(TARGETS)}")
    return TARGETS[predict](a, s)


def to_x0(x_t: Tensor, y: Tensor, a: Tensor, s: Tensor, predict: str) -> Tensor:
    """The clean image that x_t and the network's output y imply.

    x_t, y: (B, ...); a, s: scalars or (B,). From x_t = a x_0 + s eps and y = p x_0 + q eps,
    x_0 = (q x_t - s y) / (a q - s p).
    """
    p, q = coefficients(predict, a, s)
    determinant = a * q - s * p
    return expand(q / determinant, x_t) * x_t - expand(s / determinant, x_t) * y


def target(x0: Tensor, eps: Tensor, a: Tensor, s: Tensor, predict: str) -> Tensor:
    """What the network should output, y = p x_0 + q eps. x0, eps: (B, ...); a, s: scalars or (B,)."""
    p, q = coefficients(predict, a, s)
    return expand(p, x0) * x0 + expand(q, x0) * eps


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A network, a schedule and a prediction type: together an estimate of x_0.

    net: module (x, logsnr, label) -> y of x's shape. It sees x_t / sqrt(a^2 + s^2), the same picture
    whichever path the schedule takes, and log-SNR, which is time seen through the schedule.
    It holds no weights of its own: EMA, compile and data-parallel wrappers act on the bare network.

    Raises ValueError for an unknown prediction type, and for eps on a schedule whose signal is 0 at
    t = 1: x_0 = (x_t - s eps) / a would divide by zero.
    """

    net: nn.Module | Callable
    schedule: Schedule
    predict: str = "eps"
    _known: dict[float, tuple[float, ...]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        coefficients(self.predict, *self.schedule.signal_noise(0.5))
        if self.predict == "eps" and float(self.schedule.signal_noise(1.0)[0]) == 0:
            raise ValueError(
                f"predict='eps' cannot start from t = 1 on the {self.schedule.name!r} schedule, where no signal is left: "
                "choose predict 'v', 'flow' or 'x0', or a schedule that leaves some signal ('linear', 'cosine')"
            )

    def output(self, x_t: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """The network's raw answer y at x_t (B, ...), time t (a number or (B,)), label (B,) or None."""
        return self._ask(x_t, *self.schedule.at(t), label)

    def __call__(self, x_t: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """Estimate of x_0, of x_t's shape and dtype. t: a number or (B,) in (0, 1]; label: (B,) or None."""
        if isinstance(t, Tensor):
            logsnr, a, s = self.schedule.at(t)
            return to_x0(x_t, self._ask(x_t, logsnr, a, s, label).to(x_t.dtype), a, s, self.predict)
        # a sampler asks for a few times again and again, and arithmetic on 0-d tensors costs as much as the rest
        if t not in self._known:
            logsnr, a, s = self.schedule.at(t)
            p, q = coefficients(self.predict, a, s)
            known = logsnr, (a**2 + s**2).rsqrt(), q / (a * q - s * p), s / (a * q - s * p)
            self._known[t] = tuple(value.item() for value in known)
        logsnr, scale, of_x, of_y = self._known[t]
        scaled = x_t if self.schedule.path == "vp" else x_t * scale
        y = self.net(scaled, torch.full((len(x_t),), logsnr, device=x_t.device), label).to(x_t.dtype)
        return torch.sub(of_x * x_t, y, alpha=of_y)

    def _ask(self, x_t: Tensor, logsnr: Tensor, a: Tensor, s: Tensor, label: Tensor | None) -> Tensor:
        scaled = x_t if self.schedule.path == "vp" else x_t * expand((a**2 + s**2).rsqrt(), x_t)
        return self.net(scaled, logsnr.to(x_t.device, torch.float32).expand(len(x_t)), label)

    def loss(
        self,
        x0: Tensor,
        t: Tensor,
        eps: Tensor,
        label: Tensor | None = None,
        weight: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Squared error of the network's answer, averaged over each image; (B,).

        x0, eps: (B, ...); t: (B,). weight: logsnr -> factor, by which each image's error is multiplied.
        With predict="eps" and no weight this is L_simple (arXiv 2006.11239, eq. 14).
        """
        logsnr, a, s = self.schedule.at(t)
        x_t = expand(a, x0) * x0 + expand(s, x0) * eps
        error = self._ask(x_t, logsnr, a, s, label).to(x0.dtype) - target(x0, eps, a, s, self.predict)
        loss = error.square().flatten(1).mean(1)
        return loss if weight is None else loss * weight(logsnr).to(loss)
