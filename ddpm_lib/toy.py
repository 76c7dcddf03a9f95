"""Worlds where the best denoiser has a closed form, and point clouds and a small network for 2D.

A world is a law of x_0 whose noisy versions x_t = a x_0 + s eps can be written down. Each has
``sample(count, generator)``; ``denoiser(schedule)``, the exact E[x_0 | x_t] that a network can at best
learn; ``log_prob(x, schedule, t)`` and ``score(x, schedule, t)`` of x_t. They take any path and any
dtype, and compute in float64 inside, so that small noise loses no digits. A Gaussian that was observed
through a linear map with noise is a world again: ``Gaussian.given``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .schedule import Schedule, expand

LARGEST_TABLE = 2**22
"""Entries of the (B, K) tables that a mixture makes at once: 32 MiB in float64."""
TINY = 1e-30
"""Added variance where there is none (t = 0 on a finite set), so that nothing divides by zero."""


class _World:
    """What every world does alike. Subclasses own _mean_given and log_prob."""

    shape: torch.Size

    def denoiser(self, schedule: Schedule) -> Callable[[Tensor, float | Tensor], Tensor]:
        """denoise(x, t) -> E[x_0 | x_t = x], for the samplers.

        x: (B, ...) of the world's shape; t: a number or (B,), in [0, 1]. Returns x's shape and dtype.
        """

        def denoise(x: Tensor, t: float | Tensor) -> Tensor:
            flat, a, s = self._noisy(x, schedule, t)
            return self._mean_given(flat, a, s).to(x.dtype).view(x.shape)

        return denoise

    def score(self, x: Tensor, schedule: Schedule, t: float | Tensor) -> Tensor:
        """Gradient of log_prob with respect to x, of x's shape and dtype: (a E[x_0 | x] - x) / s^2
        (Efron 2011, "Tweedie's formula and selection bias"). Needs noise: t > 0."""
        flat, a, s = self._noisy(x, schedule, t)
        return ((a * self._mean_given(flat, a, s) - flat) / s**2).to(x.dtype).view(x.shape)

    def _noisy(self, x: Tensor, schedule: Schedule, t: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x as (B, D) float64; a and s as (B, 1) or (1, 1)."""
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"this world has points of shape {tuple(self.shape)}, got x of shape {tuple(x.shape)}"
            )
        a, s = schedule.signal_noise(t)
        return x.flatten(1).double(), a.reshape(-1, 1).to(x.device), s.reshape(-1, 1).to(x.device)


class Gaussian(_World):
    """One Gaussian N(mean, covariance).

    mean: (D,). covariance: (D, D), symmetric, eigenvalues >= 0; a number or (D,) stands for a diagonal.
    Raises ValueError for shapes that do not fit and for a matrix that is no covariance.
    """

    def __init__(self, mean: Tensor, covariance: Tensor | float):
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        if self.mean.ndim != 1:
            raise ValueError(f"mean must be a vector (D,), got shape {tuple(self.mean.shape)}")
        covariance = torch.as_tensor(covariance, dtype=torch.float64)
        if covariance.ndim < 2:
            covariance = torch.diag(covariance.expand_as(self.mean))
        if covariance.shape != (len(self.mean), len(self.mean)) or not torch.allclose(
            covariance, covariance.T
        ):
            raise ValueError(
                f"covariance must be a symmetric (D, D) matrix, got shape {tuple(covariance.shape)}"
            )
        self.covariance, self.shape = covariance, self.mean.shape
        self._variances, self._axes = torch.linalg.eigh(covariance)
        if self._variances[0] < -1e-12 * self._variances[-1].abs():
            raise ValueError(f"covariance has a negative eigenvalue, {float(self._variances[0]):.3g}")
        self._variances = self._variances.clamp(min=0)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """count points, (count, D) float32."""
        z = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64)
        return (self.mean + (z * self._variances.sqrt()) @ self._axes.T).float()

    def log_prob(self, x: Tensor, schedule: Schedule, t: float | Tensor) -> Tensor:
        """log q(x_t) at x (B, D); (B,) float64."""
        flat, a, s = self._noisy(x, schedule, t)
        variances = a**2 * self._variances + s**2
        along = (flat - a * self.mean) @ self._axes
        return -0.5 * (along**2 / variances + torch.log(2 * math.pi * variances)).sum(1)

    def flow(self, x: Tensor, schedule: Schedule, start: float, end: float) -> Tensor:
        """Where the probability-flow ODE takes x (B, D) from time start to time end: what DDIM, Heun and
        DPM-Solver++ converge to. Along each axis it only rescales, because x_t is Gaussian at every t
        (Song et al. 2021, arXiv 2011.13456, eq. 13, solved for a Gaussian)."""
        flat, a, s = self._noisy(x, schedule, start)
        _, a_end, s_end = self._noisy(x, schedule, end)
        ratio = ((a_end**2 * self._variances + s_end**2) / (a**2 * self._variances + s**2)).sqrt()
        return (a_end * self.mean + ((flat - a * self.mean) @ self._axes * ratio) @ self._axes.T).to(x.dtype)

    def given(self, matrix: Tensor, observation: Tensor, std: float) -> Gaussian:
        """The law of x_0 once y = A x_0 + std z was seen, z ~ N(0, I): again a Gaussian, and a world of its own.

        matrix: A, (M, D); a row (D,) stands for one measurement. observation: y, (M,). std: of each of the M errors, >= 0;
        with 0 the measurements hold exactly. Raises ValueError for shapes that do not fit, and where
        a measurement repeats others (almost) without error, so that nothing can be divided by
        (Bishop 2006, "Pattern recognition and machine learning", section 2.3.3).
        """
        a, y = (torch.as_tensor(value, dtype=torch.float64) for value in (matrix, observation))
        a = a.reshape(1, -1) if a.ndim == 1 else a
        y = y.reshape(-1)
        if a.ndim != 2 or a.shape != (len(y), len(self.mean)):
            raise ValueError(
                f"matrix must be (M, D) with D = {len(self.mean)}, and observation (M,); "
                f"got {tuple(a.shape)} and {tuple(y.shape)}"
            )
        if not std >= 0:
            raise ValueError(f"std must not be negative, got {std}")
        # along the axes of y's own covariance, A S A^T + std^2 I
        variances, axes = torch.linalg.eigh(a @ self.covariance @ a.T)
        variances = variances.clamp(min=0) + std**2
        if not variances.min() > 1e-13 * variances.max():
            raise ValueError(
                "the observation has measurements that follow from others without error: "
                "raise std, or drop rows of the matrix"
            )
        gain = self.covariance @ a.T @ (axes / variances) @ axes.T
        left = torch.eye(len(self.mean), dtype=torch.float64) - gain @ a
        # a sum of squares, which stays a covariance however it is rounded
        covariance = left @ self.covariance @ left.T + std**2 * gain @ gain.T
        return Gaussian(self.mean + gain @ (y - a @ self.mean), (covariance + covariance.T) / 2)

    def _mean_given(self, flat: Tensor, a: Tensor, s: Tensor) -> Tensor:
        shrink = a * self._variances / (a**2 * self._variances + s**2).clamp(min=TINY)
        return self.mean + ((flat - a * self.mean) @ self._axes * shrink) @ self._axes.T


class Mixture(_World):
    """A mixture of K round Gaussians in any dimension, sum_k weight_k N(mean_k, std_k^2 I).

    weights: (K,), positive, made to sum to 1. means: (K, ...). stds: (K,) or a number, >= 0.
    """

    def __init__(self, weights: Tensor, means: Tensor, stds: Tensor | float):
        means = torch.as_tensor(means, dtype=torch.float64)
        weights = torch.as_tensor(weights, dtype=torch.float64)
        if means.ndim < 2 or weights.shape != means.shape[:1]:
            raise ValueError(
                f"K weights (K,) and K means (K, ...) are needed, got {tuple(weights.shape)} and {tuple(means.shape)}"
            )
        stds = torch.as_tensor(stds, dtype=torch.float64).expand(len(means))
        if not ((weights > 0).all() and (stds >= 0).all()):
            raise ValueError("weights must be positive and stds must not be negative")
        self.weights, self.means, self.stds = weights / weights.sum(), means, stds
        self.shape = means.shape[1:]
        self._flat = means.flatten(1)
        self._norms = self._flat.square().sum(1)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """count points, (count, ...) float32."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        z = torch.randn(count, *self.shape, generator=generator, dtype=torch.float64)
        return (self.means[which] + expand(self.stds[which], z) * z).float()

    def log_prob(self, x: Tensor, schedule: Schedule, t: float | Tensor) -> Tensor:
        """log q(x_t) at x (B, ...); (B,) float64. On a finite set it needs noise: t > 0."""
        return torch.logsumexp(self._log_joint(*self._noisy(x, schedule, t)), dim=1)

    def posterior(self, x: Tensor, schedule: Schedule, t: float | Tensor) -> Tensor:
        """The chance that each component k made x_t = x; (B, K) float64, rows sum to 1."""
        return torch.softmax(self._log_joint(*self._noisy(x, schedule, t)), dim=1)

    def _log_joint(self, flat: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """log weight_k + log N(x; a mean_k, a^2 std_k^2 + s^2), (B, K)."""
        variances = (a**2 * self.stds**2 + s**2).clamp(min=TINY)
        squares = flat.square().sum(1, keepdim=True) + a**2 * self._norms - 2 * a * (flat @ self._flat.T)
        log_scale = 0.5 * flat.shape[1] * torch.log(2 * math.pi * variances)
        return self.weights.log() - log_scale - 0.5 * squares / variances

    def _mean_given(self, flat: Tensor, a: Tensor, s: Tensor) -> Tensor:
        rows = max(1, LARGEST_TABLE // len(self._flat))
        a, s = (value.expand(len(flat), 1) for value in (a, s))
        parts = zip(flat.split(rows), a.split(rows), s.split(rows), strict=True)
        return torch.cat([self._mean_of_rows(*part) for part in parts])

    def _mean_of_rows(self, flat: Tensor, a: Tensor, s: Tensor) -> Tensor:
        weights = torch.softmax(self._log_joint(flat, a, s), dim=1)
        if not self.stds.any():
            return weights @ self._flat
        # Each component answers with a point between its mean and x / a, nearer the mean the more noise there is.
        towards_x = a * self.stds**2 / (a**2 * self.stds**2 + s**2).clamp(min=TINY)
        return (weights * (1 - a * towards_x)) @ self._flat + (weights * towards_x).sum(
            1, keepdim=True
        ) * flat


class FiniteSet(Mixture):
    """N points, all equally likely: a data set taken at its word. Works for images too.

    points: (N, ...) floats. The exact denoiser is a softmax over the points, and as t -> 0 it answers
    with the nearest one. It goes through a large batch in pieces, so 10,000 images fit in memory.
    """

    def __init__(self, points: Tensor):
        if not points.is_floating_point():
            raise ValueError(
                f"points must be floats, as models see them, not {points.dtype}: see data.to_float"
            )
        super().__init__(torch.ones(len(points)), points, 0.0)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """count of the points, drawn with replacement; (count, ...) float32."""
        return self.means[torch.randint(len(self.means), (count,), generator=generator)].float()


class MLP(nn.Module):
    """A small network (x, logsnr, label) -> y for points in the plane: x (B, D) -> (B, D).

    dims: D. width, depth: of the hidden layers. num_classes: 0 for no labels; label -1 or None is "no label".
    """

    def __init__(self, dims: int = 2, width: int = 128, depth: int = 3, num_classes: int = 0):
        super().__init__()
        self.register_buffer("frequencies", torch.tensor([0.1, 0.2, 0.4, 0.8]))
        self.first = nn.Linear(dims + 8, width)
        self.label = nn.Embedding(num_classes + 1, width)
        self.rest = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, dims)

    def forward(self, x: Tensor, logsnr: Tensor, label: Tensor | None = None) -> Tensor:
        """x (B, D), logsnr (B,), label (B,) whole numbers or None -> (B, D)."""
        angles = logsnr.clamp(-20, 20)[:, None] * self.frequencies
        null = self.label.num_embeddings - 1
        label = (
            torch.full_like(logsnr, null, dtype=torch.long)
            if label is None
            else torch.where(label < 0, null, label)
        )
        h = self.first(torch.cat([x, angles.sin(), angles.cos()], dim=1)) + self.label(label)
        for layer in self.rest:
            h = h + layer(F.silu(h))
        return self.last(F.silu(h))


def shape_points(name: str, count: int, generator: torch.Generator | None = None) -> Tensor:
    """count random points of a drawing, (count, 2) float32: mean 0, and variance 1 over both coordinates together.

    name: a key of SHAPES. Raises ValueError with the choices for any other.
    """
    if name not in SHAPES:
        raise ValueError(f"unknown shape {name!r}: choose from {', '.join(SHAPES)}")
    lines = SHAPES[name]()
    starts, ends = torch.cat([line[:-1] for line in lines]), torch.cat([line[1:] for line in lines])
    lengths = (ends - starts).norm(dim=1)
    which = torch.multinomial(lengths, count, replacement=True, generator=generator)
    along = torch.rand(count, 1, generator=generator, dtype=torch.float64)
    points = torch.lerp(starts[which], ends[which], along)
    # The frame of the whole drawing, not of these points: two draws of one shape lie on one another.
    middles, share = (starts + ends) / 2, (lengths / lengths.sum())[:, None]
    centre = (share * middles).sum(0)
    mean_square = (share * (middles - centre) ** 2).sum() / 2
    return ((points - centre) / mean_square.sqrt()).float()


def _curve(*corners: tuple[float, float], closed: bool = False) -> Tensor:
    """A smooth line through the corners (Catmull-Rom), as (M, 2) points close together."""
    knots = torch.tensor(corners, dtype=torch.float64)
    around = (
        torch.cat([knots[-1:], knots, knots[:2]]) if closed else torch.cat([knots[:1], knots, knots[-1:]])
    )
    p0, p1, p2, p3 = (around[i : len(around) - 3 + i, None] for i in range(4))
    u = torch.linspace(0, 1, 25, dtype=torch.float64)[:, None]
    cubic = p1 + u / 2 * (p2 - p0 + u * (2 * p0 - 5 * p1 + 4 * p2 - p3 + u * (3 * (p1 - p2) + p3 - p0)))
    return cubic.reshape(-1, 2)


def _arc(x: float, y: float, width: float, height: float, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Part of an ellipse, from and to a share of the full turn, as (M, 2) points."""
    angle = 2 * math.pi * torch.linspace(start, end, 100, dtype=torch.float64)
    return torch.stack([x + width * angle.cos(), y + height * angle.sin()], dim=1)


def _mirrored(*lines: Tensor) -> list[Tensor]:
    return [*lines, *(line * torch.tensor([-1.0, 1.0], dtype=torch.float64) for line in lines)]


def _cat() -> list[Tensor]:
    half = torch.cat(
        [
            _curve((0, 0.72), (0.2, 0.71), (0.38, 0.66)),
            _curve((0.38, 0.66), (0.55, 0.9), (0.74, 1.12)),
            _curve((0.74, 1.12), (0.83, 0.8), (0.86, 0.4)),
            _curve((0.86, 0.4), (0.96, 0.1), (0.9, -0.22), (0.66, -0.56), (0.33, -0.74), (0, -0.78)),
        ]
    )
    eye = [_arc(0.4, 0.12, size * 0.17, size * 0.13) for size in (1.0, 0.55)] + [_arc(0.4, 0.12, 0.03, 0.12)]
    mouth = _arc(0.14, -0.33, 0.14, 0.12, 0.5, 0.97)
    nose = _curve((0, -0.17), (0.05, -0.155), (0.1, -0.17), (0.06, -0.23), (0, -0.28))
    stem = _curve((0, -0.28), (0, -0.34))
    whiskers = [_curve((0.5, y), (0.9, y + 0.6 * rise), (1.3, y + rise)) for y, rise in WHISKERS]
    ear = _curve((0.54, 0.66), (0.63, 0.8), (0.7, 0.88)), _curve((0.7, 0.88), (0.74, 0.74), (0.75, 0.56))
    return _mirrored(half, *eye, mouth, nose, stem, *whiskers, *ear)


WHISKERS = ((-0.2, 0.12), (-0.29, 0.0), (-0.38, -0.12))


def _heart() -> list[Tensor]:
    u = torch.linspace(0, 2 * math.pi, 400, dtype=torch.float64)
    x = 16 * u.sin() ** 3
    y = 13 * u.cos() - 5 * (2 * u).cos() - 2 * (3 * u).cos() - (4 * u).cos()
    return [torch.stack([x, y], dim=1)]


def _spiral() -> list[Tensor]:
    angle = torch.linspace(0.1, 6.0, 400, dtype=torch.float64).sqrt() * 2 * math.pi
    return [torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)]


def _moons() -> list[Tensor]:
    return [_arc(0, 0, 1, 1, 0, 0.5), _arc(1, 0.5, 1, 1, 0.5, 1)]


SHAPES: dict[str, Callable[[], list[Tensor]]] = {
    "cat": _cat,
    "heart": _heart,
    "spiral": _spiral,
    "moons": _moons,
}
"""Drawings as lines of (M, 2) points, for shape_points."""
