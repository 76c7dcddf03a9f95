"""Samplers: every one is a repeated `move` from a time to an earlier one, given an estimate of x_0.

A denoiser is any function denoise(x, t) -> x_0. DDPM and DDIM move with its answer as it is; Heun and
DPM-Solver++(2M) move with a better one. On the flow path, DDIM is Euler's method.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .schedule import Schedule

Denoise = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, eq=False)
class Step:
    """What a sampler yields after each move: its number (1 to N), the time reached, the noisy image x
    there (B, ...), and the estimate of x_0 that it moved with."""

    index: int
    t: float
    x: Tensor
    x0: Tensor


@dataclass(frozen=True)
class _Knot:
    """One time of a sampling run, with Python floats: a tensor operation each would cost more than the move."""

    t: float
    logsnr: float
    a: float
    s: float


def _knots(schedule: Schedule, times: Tensor) -> list[_Knot]:
    times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    if (
        times.ndim != 1
        or len(times) < 2
        or not (times[1:] < times[:-1]).all()
        or times[0] > 1
        or times[-1] < 0
    ):
        raise ValueError("times must fall strictly, from at most 1 to at least 0: see schedule.times(steps)")
    return [
        _Knot(*row)
        for row in zip(times.tolist(), *(column.tolist() for column in schedule.at(times)), strict=True)
    ]


def move(
    x: Tensor,
    x0: Tensor,
    start: _Knot,
    end: _Knot,
    sigma: float = 0.0,
    spread: float = 0.0,
    z: Tensor | None = None,
):
    """x at an earlier time, given x_0: a' x_0 + sqrt(s'^2 - spread^2) eps + sigma z, with eps = (x - a x_0) / s.

    x, x0, z: (B, ...). With spread = sigma this keeps the law q(x | x_0) at every time
    (Song et al. 2020, arXiv 2010.02502, eq. 12).
    """
    of_x = math.sqrt(max(end.s**2 - spread**2, 0.0)) / start.s
    x = torch.add(of_x * x, x0, alpha=end.a - of_x * start.a)
    return x if sigma == 0 else x.add_(z, alpha=sigma)


def _posterior_std(start: _Knot, end: _Knot) -> float:
    """Standard deviation of q(x' | x, x_0): s' sqrt(1 - SNR / SNR')."""
    return end.s * math.sqrt(max(-math.expm1(start.logsnr - end.logsnr), 0.0))


def _transition_std(start: _Knot, end: _Knot) -> float:
    """Standard deviation of q(x | x'), sqrt(beta_t) for neighbours on DDPM's chain; 0 at the last step."""
    return 0.0 if end.s == 0 else start.s * math.sqrt(max(-math.expm1(start.logsnr - end.logsnr), 0.0))


def ddim(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    times: Tensor,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Step]:
    """DDIM (arXiv 2010.02502). eta = 0 adds no noise, eta = 1 is DDPM's ancestral sampling.

    denoise: (x, t) -> x_0; x: (B, ...) noise at times[0]; times: falling, see schedule.times.
    Yields a Step after each move. generator: for the noise, on x's device.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    return _moves(denoise, x, schedule, times, generator, lambda *knots: (eta * _posterior_std(*knots),) * 2)


def ddpm(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    times: Tensor,
    variance: str = "posterior",
    generator: torch.Generator | None = None,
) -> Iterator[Step]:
    """Ancestral sampling (arXiv 2006.11239, algorithm 2), also with fewer steps than the chain has.

    variance: "posterior" (beta_tilde, then this is ddim with eta = 1) or "beta". Arguments as in ddim.
    """
    if variance not in ("posterior", "beta"):
        raise ValueError(f"unknown variance {variance!r}: choose 'posterior' or 'beta'")
    std = _posterior_std if variance == "posterior" else _transition_std
    return _moves(
        denoise, x, schedule, times, generator, lambda *knots: (std(*knots), _posterior_std(*knots))
    )


def _moves(
    denoise, x, schedule, times, generator, noise, estimate=lambda answer, start, end: answer
) -> Iterator[Step]:
    """The loop of every sampler that asks once a step. noise: two knots -> (sigma, spread), see move; estimate:
    the network's answer and two knots -> the x_0 to move with."""
    knots, denoise = _knots(schedule, times), torch.no_grad()(denoise)
    for index, (start, end) in enumerate(zip(knots, knots[1:], strict=False), 1):
        x0 = estimate(denoise(x, start.t), start, end)
        sigma, spread = noise(start, end)
        z = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) if sigma else None
        x = move(x, x0, start, end, sigma, spread, z)
        yield Step(index, end.t, x, x0)


def heun(denoise: Denoise, x: Tensor, schedule: Schedule, times: Tensor) -> Iterator[Step]:
    """Heun's method of second order, two network calls a step but for the last (arXiv 2206.00364, algorithm 1).

    On the ve path this is EDM's step in sigma, on the flow path Heun's in t; averaging the slopes at both
    ends moves with x_0 + (s / 2 s') (x_0' - x_0), which serves the vp path as well. Arguments as in ddim.
    """
    knots, denoise = _knots(schedule, times), torch.no_grad()(denoise)
    for index, (start, end) in enumerate(zip(knots, knots[1:], strict=False), 1):
        x0 = denoise(x, start.t)
        if end.s > 0:
            there = denoise(move(x, x0, start, end), end.t)
            x0 = x0 + start.s / (2 * end.s) * (there - x0)
        x = move(x, x0, start, end)
        yield Step(index, end.t, x, x0)


def dpm_solver_2m(denoise: Denoise, x: Tensor, schedule: Schedule, times: Tensor) -> Iterator[Step]:
    """DPM-Solver++(2M): second order with one network call a step, by remembering the last answer
    (Lu et al. 2022, arXiv 2211.01095, algorithm 2). First and last steps are DDIM's. Arguments as in ddim."""
    return _moves(denoise, x, schedule, times, None, lambda *knots: (0.0, 0.0), _second_order())


def dpm_solver_2m_sde(
    denoise: Denoise, x: Tensor, schedule: Schedule, times: Tensor, generator: torch.Generator | None = None
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M): DDPM's step with 2M's estimate (Lu et al. 2022, arXiv 2211.01095); the law of the
    samples is right to second order. Arguments as in ddpm."""
    return _moves(
        denoise, x, schedule, times, generator, lambda *knots: (_posterior_std(*knots),) * 2, _second_order()
    )


def _second_order() -> Callable[[Tensor, _Knot, _Knot], Tensor]:
    """An estimate for _moves: the answers of this step and the last, extrapolated in log-SNR."""
    previous = before = None

    def estimate(answer: Tensor, start: _Knot, end: _Knot) -> Tensor:
        nonlocal previous, before
        x0 = answer
        if previous is not None and end.s > 0 and math.isfinite(before.logsnr):
            half = (end.logsnr - start.logsnr) / (start.logsnr - before.logsnr) / 2
            x0 = (1 + half) * answer - half * previous
        previous, before = answer, start
        return x0

    return estimate


SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "heun": heun,
    "dpm++2m": dpm_solver_2m,
    "dpm++2m-sde": dpm_solver_2m_sde,
}
"""Samplers by name."""
NOISY = ("ddpm", "ddim", "dpm++2m-sde")
"""Those that also take a generator, for the noise on the way."""


def guided(
    denoise: Callable[..., Tensor],
    label: Tensor | None,
    scale: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Denoise:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598): x_u + scale (x_c - x_u).

    denoise: (x, t, label) -> x_0, where label None is the null label; label: (B,) ints or None.
    scale: 1 is the plain conditional model, 0 the unconditional one; the paper's w is scale - 1.
    interval: the times (low, high) in which to guide, outside them scale is 1.
    Both answers come from one call on a doubled batch; scales 0 and 1 need no second half.
    """
    if not scale >= 0 or math.isinf(scale):
        raise ValueError(
            f"guidance scale must be at least 0, got {scale}: 1 is plain conditional, 2 to 4 steers harder"
        )
    if not interval[0] <= interval[1]:
        raise ValueError(f"guidance interval must be (low, high) with low <= high, got {interval}")
    if label is None:
        return lambda x, t: denoise(x, t, None)

    def estimate(x: Tensor, t: float) -> Tensor:
        strength = scale if interval[0] <= float(t) <= interval[1] else 1.0
        if strength in (0, 1):
            return denoise(x, t, label if strength else None)
        null = torch.full_like(label, -1)
        with_label, without = denoise(torch.cat([x, x]), t, torch.cat([label, null])).chunk(2)
        return torch.lerp(without, with_label, strength)

    return estimate


def clipped(denoise: Denoise, low: float = -1.0, high: float = 1.0) -> Denoise:
    """Keeps the estimate of x_0 within the range of the data, as DDPM's own code does."""
    return lambda x, t: denoise(x, t).clamp(low, high)


def pure_noise(
    shape: tuple[int, ...],
    schedule: Schedule,
    generator: torch.Generator | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Where sampling starts: N(0, I) scaled to the size of x_t at t = 1, which is 1 on vp and flow paths.

    generator: on the CPU, so that a seed means the same picture on every device.
    """
    a, s = schedule.signal_noise(1.0)
    return (torch.randn(shape, generator=generator) * math.hypot(float(a), float(s))).to(device)


def last(steps: Iterable[Step]) -> Tensor:
    """Runs a sampler to its end and returns the final image (B, ...)."""
    return deque(steps, maxlen=1)[0].x
