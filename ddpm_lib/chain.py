"""The discrete chain of DDPM, as the papers print it.

A chain of T steps is three tables of T + 1 entries: ``beta``, ``alpha = 1 - beta`` and
``alpha_bar``, the running product of alpha. Entry 0 is the clean image (beta = 0,
alpha_bar = 1), so the code's t is the paper's t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Chain:
    """A chain of T noising steps (Ho et al. 2020, arXiv 2006.11239).

    beta: (T + 1,) float64, entry 0 is 0, the others lie in (0, 1].
    """

    beta: Tensor

    def __post_init__(self):
        beta = self.beta
        if beta.ndim != 1 or len(beta) < 2:
            raise ValueError(f"beta must be a vector of T + 1 entries, T >= 1; got shape {tuple(beta.shape)}")
        if beta[0] != 0:
            raise ValueError(f"beta[0] is the clean image and must be 0, got {beta[0]:.3g}: prepend a 0")
        if not ((beta[1:] > 0) & (beta[1:] <= 1)).all():
            raise ValueError("beta[1:] must lie in (0, 1]")
        object.__setattr__(self, "beta", beta.double())

    @property
    def steps(self) -> int:
        """T, the number of noising steps."""
        return len(self.beta) - 1

    @property
    def alpha(self) -> Tensor:
        """(T + 1,), 1 - beta."""
        return 1 - self.beta

    @property
    def alpha_bar(self) -> Tensor:
        """(T + 1,), the product alpha_1 ... alpha_t; many repositories call it alpha hat."""
        return self.alpha.cumprod(0)

    def add_noise(self, x0: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """x_t from x_0 in one step (arXiv 2006.11239, eq. 4).

        x0, eps: (B, ...); t: an int or (B,) ints in 0..T. Returns x_t of x0's shape and dtype.
        """
        index = torch.as_tensor(t).cpu()
        if index.is_floating_point() or index.min() < 0 or index.max() > self.steps:
            raise ValueError(f"t must be whole numbers from 0 to {self.steps}, got {t}")
        alpha_bar = self.alpha_bar[index]
        return _shaped(alpha_bar.sqrt(), x0) * x0 + _shaped((1 - alpha_bar).sqrt(), x0) * eps

    def posterior(self, x_t: Tensor, x0: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(x_{t-1} | x_t, x_0) (arXiv 2006.11239, eqs. 6 and 7).

        x_t, x0: (B, ...); t: an int or (B,) ints in 1..T. Returns the mean (B, ...) and the
        variance beta_tilde, which broadcasts against it; at t = 1 the variance is 0.
        """
        self._check_reverse(t)
        alpha_bar, before = self.alpha_bar, self.alpha_bar[torch.as_tensor(t).cpu() - 1]
        now, beta = alpha_bar[torch.as_tensor(t).cpu()], self.beta[torch.as_tensor(t).cpu()]
        of_x0 = before.sqrt() * beta / (1 - now)
        of_xt = (1 - beta).sqrt() * (1 - before) / (1 - now)
        variance = beta * (1 - before) / (1 - now)
        like = lambda value: _shaped(value, x_t)  # noqa: E731
        return like(of_x0) * x0 + like(of_xt) * x_t, like(variance)

    def step(
        self, x_t: Tensor, eps: Tensor, t: int, z: Tensor | None = None, variance: str = "beta"
    ) -> Tensor:
        """One reverse step x_t -> x_{t-1}, given the predicted noise (arXiv 2006.11239, algorithm 2).

        x_t, eps: (B, ...); t: an int in 1..T; z: standard normal of x_t's shape, ignored at t = 1,
        where no noise is added. variance: "beta" (sigma_t^2 = beta_t) or "posterior" (beta_tilde_t).
        """
        self._check_reverse(t)
        if variance not in ("beta", "posterior"):
            raise ValueError(f"unknown variance {variance!r}: choose 'beta' or 'posterior'")
        alpha, alpha_bar, beta = (float(table[t]) for table in (self.alpha, self.alpha_bar, self.beta))
        if alpha == 0:
            raise ValueError(f"alpha at t = {t} is 0: no image can be recovered from predicted noise there")
        mean = (x_t - (1 - alpha) / math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha)
        if t == 1:
            return mean
        if z is None:
            raise ValueError(f"step t = {t} adds noise: pass z, standard normal of x_t's shape")
        sigma2 = beta if variance == "beta" else beta * (1 - float(self.alpha_bar[t - 1])) / (1 - alpha_bar)
        return mean + math.sqrt(sigma2) * z

    def _check_reverse(self, t: int | Tensor) -> None:
        index = torch.as_tensor(t)
        if index.is_floating_point() or index.min() < 1 or index.max() > self.steps:
            raise ValueError(f"a reverse step needs t from 1 to {self.steps}, got {t}")


def _shaped(value: Tensor, like: Tensor) -> Tensor:
    """value, a scalar or (B,), made to broadcast against like (B, ...)."""
    value = value.to(like.device, like.dtype)
    return value.view(-1, *[1] * (like.ndim - 1)) if value.ndim else value


def _check_steps(steps: int) -> None:
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"a chain needs at least 1 step, got steps={steps!r}")


def _from_alpha_bar(alpha_bar: Tensor, max_beta: float) -> Chain:
    beta = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(1e-12, max_beta)
    return Chain(torch.cat([beta.new_zeros(1), beta]))


def linear(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Chain:
    """T betas at equal steps from first to last (arXiv 2006.11239, section 4)."""
    _check_steps(steps)
    beta = torch.linspace(first, last, steps, dtype=torch.float64)
    return Chain(torch.cat([beta.new_zeros(1), beta]))


def cosine(steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Chain:
    """alpha_bar falls as a squared cosine (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17).

    offset keeps the first betas from vanishing; max_beta keeps the last from reaching 1.
    """
    _check_steps(steps)
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = torch.cos((t + offset) / (1 + offset) * math.pi / 2).square()
    return _from_alpha_bar(f / f[0], max_beta)


def sigmoid(
    steps: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
) -> Chain:
    """alpha_bar falls as a sigmoid between start and end (Jabri et al. 2022, arXiv 2212.11972; Chen 2023,
    arXiv 2301.10972, algorithm 1). Larger tau flattens the fall."""
    _check_steps(steps)
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = torch.sigmoid((t * (end - start) + start) / tau)
    alpha_bar = (f[-1] - f) / (f[-1] - f[0])
    return _from_alpha_bar(alpha_bar, max_beta)


def rescale_zero_terminal(chain: Chain) -> Chain:
    """The same chain, shifted and scaled so that nothing of the image is left at T
    (Lin et al. 2023, arXiv 2305.08891, algorithm 1). The first step keeps its alpha_bar."""
    signal = chain.alpha_bar.sqrt()
    first, last = signal[1].clone(), signal[-1].clone()
    rescaled = (signal[1:] - last) * first / (first - last)
    return _from_alpha_bar(torch.cat([signal[:1], rescaled]).square(), max_beta=1.0)


CHAINS = {"linear": linear, "cosine": cosine, "sigmoid": sigmoid}
