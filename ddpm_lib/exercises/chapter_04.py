"""The exercises of chapter 4, with their answers and the slips that people make."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Normal

from .compare import apart
from .engine import Exercise, Slip

TITLE = "Why predicting noise is maximum likelihood"


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _close_to(got: float, wanted: float, tolerance: float = 1e-5) -> bool:
    return abs(got - wanted) <= tolerance * (1 + abs(wanted))


# One step back, by brute force


def _posterior_inputs(generator: torch.Generator) -> tuple:
    points = _normal(generator, 4)
    grid = torch.linspace(-8, 8, 8001, dtype=torch.float64)
    bar_before, beta_t = _uniform(generator, 0.4, 0.7), _uniform(generator, 0.15, 0.4)
    x_t = torch.tensor(_uniform(generator, -1.0, 1.0), dtype=torch.float64)
    return x_t, points, bar_before, beta_t, grid


def _moments(log_p: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    p = torch.softmax(log_p, 0)
    mean = (p * grid).sum()
    return mean, (p * (grid - mean) ** 2).sum()


def _posterior(x_t, points, bar_before, beta_t, grid):
    return _step_back(x_t, points, bar_before, beta_t, grid)


def _step_back(
    x_t,
    points,
    bar_before,
    beta_t,
    grid,
    prior=True,
    push=True,
    bar_std=0.5,
    beta_std=0.5,
    signal=0.5,
    shrink=0.5,
    mixed=torch.logsumexp,
):
    """The answer, and with other settings its slips."""
    log_p = torch.zeros_like(grid)
    if prior:
        parts = Normal(bar_before**signal * points, (1 - bar_before) ** bar_std).log_prob(grid[:, None])
        log_p = log_p + mixed(parts, 1)
    if push:
        log_p = log_p + Normal((1 - beta_t) ** shrink * grid, beta_t**beta_std).log_prob(x_t)
    return _moments(log_p, grid)


def _most_likely(*arguments):
    """The value of the largest density in the place of the mean."""
    x_t, points, bar_before, beta_t, grid = arguments
    parts = Normal(bar_before**0.5 * points, (1 - bar_before) ** 0.5).log_prob(grid[:, None])
    log_p = torch.logsumexp(parts, 1) + Normal((1 - beta_t) ** 0.5 * grid, beta_t**0.5).log_prob(x_t)
    peak = grid[log_p.argmax()]
    return peak, (torch.softmax(log_p, 0) * (grid - peak) ** 2).sum()


def _unnormalised(x_t, points, bar_before, beta_t, grid):
    """Sums over the grid with the joint density in the place of that of x_{t-1} given x_t."""
    parts = Normal(bar_before**0.5 * points, (1 - bar_before) ** 0.5).log_prob(grid[:, None])
    joint = parts.exp().mean(1) * Normal((1 - beta_t) ** 0.5 * grid, beta_t**0.5).log_prob(x_t).exp()
    weight = joint * (grid[1] - grid[0])
    mean = (weight * grid).sum()
    return mean, (weight * (grid - mean) ** 2).sum()


def _posterior_of_the_guess(x_t, points, bar_before, beta_t, grid):
    """Chapter 1's step with the best guess in it: the right mean, and only the width of one point's step."""
    now = bar_before * (1 - beta_t)
    mean = _posterior(x_t, points, bar_before, beta_t, grid)[0]
    return mean, torch.tensor((1 - bar_before) / (1 - now) * beta_t, dtype=grid.dtype)


def _posterior_now(x_t, points, bar_before, beta_t, grid):
    return _posterior(x_t, points, bar_before * (1 - beta_t), beta_t, grid)


def _posterior_mean_point(x_t, points, bar_before, beta_t, grid):
    return _posterior(x_t, points.mean().expand(1), bar_before, beta_t, grid)


def _posterior_std(*arguments):
    mean, variance = _posterior(*arguments)
    return mean, variance.sqrt()


def _posterior_second_moment(*arguments):
    mean, variance = _posterior(*arguments)
    return mean, variance + mean**2


def _explain_posterior(arguments: tuple, got: tuple, wanted: tuple) -> str:
    right = [_close_to(float(mine), float(true)) for mine, true in zip(got, wanted, strict=True)]
    mean, variance = (
        "is {}, should be {}".format(*apart(*pair, 4)) for pair in zip(got, wanted, strict=True)
    )
    if right[0]:
        return f"The mean is right. The variance {variance}."
    end = "The variance is right." if right[1] else "The variance is not right either."
    return f"The mean {mean}. {end}"


# A divergence by Monte Carlo


def _kl_inputs(generator: torch.Generator) -> tuple:
    mean_1, mean_2 = _uniform(generator, -1, 1), _uniform(generator, 1.5, 2.5)
    return (
        mean_1,
        _uniform(generator, 0.2, 0.6),
        mean_2,
        _uniform(generator, 1.3, 2.5),
        _normal(generator, 20_000),
    )


def _log_n(x, mean, variance):
    return -0.5 * (math.log(2 * math.pi * variance) + (x - mean) ** 2 / variance)


def _divergence(mean_1, var_1, mean_2, var_2, z):
    x = mean_1 + var_1**0.5 * z
    return (_log_n(x, mean_1, var_1) - _log_n(x, mean_2, var_2)).mean()


def _divergence_from_second(mean_1, var_1, mean_2, var_2, z):
    x = mean_2 + var_2**0.5 * z
    return (_log_n(x, mean_1, var_1) - _log_n(x, mean_2, var_2)).mean()


def _divergence_wide(mean_1, var_1, mean_2, var_2, z):
    x = mean_1 + var_1 * z
    return (_log_n(x, mean_1, var_1) - _log_n(x, mean_2, var_2)).mean()


def _divergence_squared(mean_1, var_1, mean_2, var_2, z):
    return _divergence(mean_1, var_1**2, mean_2, var_2**2, z)


def _divergence_mixed(mean_1, var_1, mean_2, var_2, z):
    """Draws with the right spread, but densities that take variances for standard deviations."""
    x = mean_1 + var_1**0.5 * z
    return (_log_n(x, mean_1, var_1**2) - _log_n(x, mean_2, var_2**2)).mean()


def _divergence_no_norm(mean_1, var_1, mean_2, var_2, z):
    x = mean_1 + var_1**0.5 * z
    return (-0.5 * (x - mean_1) ** 2 / var_1 + 0.5 * (x - mean_2) ** 2 / var_2).mean()


def _divergence_of(value, draw=lambda m, v, z: m + v**0.5 * z):
    """An average over samples of something else, of log q and log p."""

    def attempt(mean_1, var_1, mean_2, var_2, z):
        x = draw(mean_1, var_1, z)
        return value(_log_n(x, mean_1, var_1), _log_n(x, mean_2, var_2))

    return attempt


def _divergence_exact(mean_1, var_1, mean_2, var_2, z):
    ratio = var_1 / var_2
    return torch.tensor(
        0.5 * (ratio - 1 - math.log(ratio) + (mean_1 - mean_2) ** 2 / var_2), dtype=torch.float64
    )


# The weight


def _weight_inputs(generator: torch.Generator) -> tuple:
    beta = torch.rand(61, generator=generator, dtype=torch.float64) * 0.2 + 0.02
    beta[0] = 0
    sigma2 = beta * (0.4 + 0.6 * torch.rand(61, generator=generator, dtype=torch.float64))
    return torch.randint(2, 61, (8,), generator=generator), beta, sigma2


def _weight(t, beta, sigma2):
    return beta[t] ** 2 / (2 * sigma2[t] * (1 - beta[t]) * (1 - (1 - beta).cumprod(0))[t])


def _weight_before(t, beta, sigma2):
    return beta[t] ** 2 / (2 * sigma2[t] * (1 - beta[t]) * (1 - (1 - beta).cumprod(0))[t - 1])


def _weight_without_bar(t, beta, sigma2):
    return beta[t] ** 2 / (2 * sigma2[t] * (1 - beta[t]) * beta[t])


def _weight_with_bar(t, beta, sigma2):
    return _weight(t, beta, sigma2) * (1 - beta[t]) / (1 - beta).cumprod(0)[t]


def _weight_of(value):
    """The weight made in another way of beta, sigma2, alpha and alpha_bar at t."""
    return lambda t, beta, sigma2: value(beta[t], sigma2[t], 1 - beta[t], (1 - beta).cumprod(0)[t])


def _explain_weight(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    ratio = got / wanted
    if (ratio - ratio[0]).abs().max() < 1e-6:
        return f"It is {apart(ratio[0], 1, 4)[0]} times the right weight, at every t."
    return ""


# The gap


def _gap_inputs(generator: torch.Generator) -> tuple:
    return (
        _uniform(generator, 0.5, 1.5),
        _uniform(generator, 0.3, 0.7),
        _uniform(generator, 0.4, 0.9),
        _uniform(generator, 0.1, 0.4),
    )


def _kl(mean_1, var_1, mean_2, var_2) -> float:
    return 0.5 * (var_1 / var_2 - 1 - math.log(var_1 / var_2) + (mean_1 - mean_2) ** 2 / var_2)


def _back(x0, w, v) -> tuple[float, float]:
    """Mean and variance of the model's x_1, given x_0."""
    variance = 1 / (1 + w**2 / v)
    return variance * w * x0 / v, variance


def _gap(x0, alpha_bar, w, v):
    return _kl(alpha_bar**0.5 * x0, 1 - alpha_bar, *_back(x0, w, v))


def _gap_reversed(x0, alpha_bar, w, v):
    return _kl(*_back(x0, w, v), alpha_bar**0.5 * x0, 1 - alpha_bar)


def _gap_to_prior(x0, alpha_bar, w, v):
    return _kl(alpha_bar**0.5 * x0, 1 - alpha_bar, 0.0, 1.0)


def _surprise(x0, w, v) -> float:
    return 0.5 * (math.log(2 * math.pi * (w**2 + v)) + x0**2 / (w**2 + v))


def _gap_bound_only(x0, alpha_bar, w, v):
    return _gap(x0, alpha_bar, w, v) + _surprise(x0, w, v)


def _gap_narrow_surprise(x0, alpha_bar, w, v):
    """Forgets that the model's x_1 spreads its x_0."""
    narrow = 0.5 * (math.log(2 * math.pi * v) + x0**2 / v)
    return _gap_bound_only(x0, alpha_bar, w, v) - narrow


def _gap_no_prior(x0, alpha_bar, w, v):
    return _kl(alpha_bar**0.5 * x0, 1 - alpha_bar, x0 / w, v / w**2)


def _gap_mean_only(x0, alpha_bar, w, v):
    """L_0 at the mean of x_1 in the place of its average."""
    mean = alpha_bar**0.5 * x0
    last = 0.5 * (math.log(2 * math.pi * v) + (x0 - w * mean) ** 2 / v)
    return _gap_to_prior(x0, alpha_bar, w, v) + last - _surprise(x0, w, v)


def _gap_from(bound_and_surprise):
    """The gap as a difference, with something else in it. Gets x0, alpha_bar, w, v and the right bound and surprise."""

    def attempt(x0, alpha_bar, w, v):
        surprise = _surprise(x0, w, v)
        return bound_and_surprise(x0, alpha_bar, w, v, _gap(x0, alpha_bar, w, v) + surprise, surprise)

    return attempt


def _normal_surprise(x0, variance) -> float:
    return 0.5 * (math.log(2 * math.pi * variance) + x0**2 / variance)


# The wrong index


def _index_inputs(generator: torch.Generator) -> tuple:
    beta = torch.rand(31, generator=generator, dtype=torch.float64) * 0.15 + 0.02
    beta[0] = 0
    return int(torch.randint(3, 30, (), generator=generator)), _uniform(generator, 0.1, 1.0), beta


def _index(t, error, beta):
    return _with_indices(t, error, beta)


def _with_indices(t, error, beta, width_at=0, factor_at=0, factor_before=-1):
    """The answer, and with other indices its slips."""
    bar = (1 - beta).cumprod(0)
    before, now = bar[t - 1], bar[t]
    width = (1 - before) / (1 - now) * beta[t + width_at]
    factor = bar[t + factor_before].sqrt() * beta[t + factor_at] / (1 - now)
    return factor**2 * error / (2 * width)


def _of_the_snr(value):
    """Made of SNR or alpha_bar before and now."""

    def attempt(t, error, beta):
        bar = (1 - beta).cumprod(0)
        return value(bar[t - 1], bar[t], beta[t]) * error

    return attempt


def _shifted(t, error, beta):
    bar = (1 - beta).cumprod(0)
    snr = bar / (1 - bar)
    return 0.5 * (snr[t] - snr[t + 1]) * error


def _explain_index(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    return f"At t = {arguments[0]} it is {apart(got / wanted, 1, 4)[0]} times the right cost."


EXERCISES = (
    Exercise(
        "elbo.posterior",
        "One step back, by brute force",
        _posterior,
        (
            Slip(
                "It looks as if only the push to x_t was used. But before you see x_t, some values of x_{t-1} are more likely than others.",
                lambda *a: _step_back(*a, prior=False),
            ),
            Slip(
                "That is the distribution of x_{t-1} before you see x_t. The push that leads to x_t is missing.",
                lambda *a: _step_back(*a, push=False),
            ),
            Slip(
                "It looks as if beta was taken for the standard deviation of the push: it is its variance.",
                lambda *a: _step_back(*a, beta_std=1),
            ),
            Slip(
                "It looks as if 1 - alpha_bar was taken for a standard deviation: it is a variance.",
                lambda *a: _step_back(*a, bar_std=1),
            ),
            Slip(
                "It looks as if the push does not shrink: in a push, x_{t-1} has the factor sqrt(alpha_t).",
                lambda *a: _step_back(*a, shrink=0),
            ),
            Slip(
                "It looks as if x_{t-1} was given the alpha_bar of step t. bar_before is what you need, as it is.",
                _posterior_now,
            ),
            Slip(
                "It looks as if the points were replaced by their mean. Each point makes a normal distribution of its own.",
                _posterior_mean_point,
            ),
            Slip(
                "It looks as if variances were taken for standard deviations throughout: Normal(mean, std) takes a standard deviation.",
                lambda *a: _step_back(*a, beta_std=1, bar_std=1),
            ),
            Slip(
                "It looks as if a root is missing: in x_{t-1} a point has the factor sqrt(alpha_bar), and in the push x_{t-1} has the factor sqrt(alpha_t).",
                lambda *a: _step_back(*a, signal=1),
                (lambda *a: _step_back(*a, shrink=1), lambda *a: _step_back(*a, shrink=1, signal=1)),
            ),
            Slip(
                "It looks as if the clean points themselves were used: in x_{t-1} each has the factor sqrt(alpha_bar).",
                lambda *a: _step_back(*a, signal=0),
            ),
            Slip(
                "It looks as if the densities of the points were multiplied. x_0 is one of the points, so their densities are added.",
                lambda *a: _step_back(*a, mixed=torch.sum),
            ),
            Slip(
                "The weights on the grid do not sum to 1: divide by their sum.",
                _unnormalised,
                (lambda x, points, *rest: tuple(len(points) * each for each in _unnormalised(x, points, *rest)),),
            ),
            Slip("That is the most likely value. The mean is asked for.", _most_likely),
            Slip(
                "The mean is right. The variance is that of a step with x_0 known. Here x_0 is not known, and that adds to it.",
                _posterior_of_the_guess,
            ),
            Slip("The mean is right. The second number is the standard deviation, and the variance is asked for.", _posterior_std),
            Slip("The mean is right. The second number is the mean of the square: measure from the mean.", _posterior_second_moment),
        ),
        _posterior_inputs,
        explain=_explain_posterior,
    ),
    Exercise(
        "elbo.kl",
        "A divergence by Monte Carlo",
        _divergence,
        (
            Slip("The samples are from the second distribution. The average in D(q || p) is over q, the first.", _divergence_from_second),
            Slip("That is the divergence of the second distribution from the first: the order matters.", lambda a, b, c, d, z: _divergence(c, d, a, b, z)),
            Slip("The sign is turned: the log-ratio is log q - log p.", lambda *a: -_divergence(*a)),
            Slip("That is an estimate too, from the samples mean - std * z. Take mean + std * z, so that the numbers can be compared.", lambda a, b, c, d, z: _divergence(a, b, c, d, -z)),
            Slip("The densities are right. The samples have the variance for a standard deviation.", _divergence_wide),
            Slip("It looks as if variances were taken for standard deviations throughout: Normal(mean, std) takes a standard deviation.", _divergence_squared),
            Slip("The samples are right. In the densities it looks as if variances were taken for standard deviations.", _divergence_mixed),
            Slip("It looks as if the factors in front of the exponentials were left out: they do not cancel, because the widths differ.", _divergence_no_norm),
            Slip("That is the sum over the samples, and the average is asked for.", lambda *a: _divergence(*a) * len(a[-1])),
            Slip("It looks as if z itself was used as samples. Samples of the first distribution have its mean and its variance.", _divergence_of(lambda q, p: (q - p).mean(), lambda m, v, z: z)),
            Slip("That is the average ratio of the densities. The average of its logarithm is asked for.", _divergence_of(lambda q, p: (q - p).exp().mean()), (_divergence_of(lambda q, p: (p - q).exp().mean()),)),
            Slip("That is the logarithm of an average. The average of the logarithm is asked for.", _divergence_of(lambda q, p: (q - p).exp().mean().log()), (_divergence_of(lambda q, p: (p - q).exp().mean().log()), _divergence_of(lambda q, p: -(p - q).exp().mean().log()))),
            Slip("It looks as if the log-ratio was weighted with the density once more. The samples come from q already, so their plain average is enough.", _divergence_of(lambda q, p: (q.exp() * (q - p)).mean()), (_divergence_of(lambda q, p: (q.exp() * (q - p)).sum()),)),
            Slip("That is the average of log q alone. log p is to be subtracted.", _divergence_of(lambda q, p: q.mean())),
            Slip("Those are the log-ratios of all samples. Their average is asked for.", _divergence_of(lambda q, p: q - p)),
            Slip("That is the closed form. Here it is to be estimated, from z, as a check of the closed form.", _divergence_exact),
        ),
        _kl_inputs,
        tolerance=1e-5,
    ),
    Exercise(
        "elbo.weight",
        "The weight",
        _weight,
        (
            Slip("It is twice the right weight: the 2 in the denominator is missing.", lambda *a: 2 * _weight(*a)),
            Slip("It looks as if alpha_bar was taken at t - 1: the jump leads to x_t.", _weight_before),
            Slip("It looks as if 1 - alpha was used where 1 - alpha_bar is needed.", _weight_without_bar),
            Slip("It looks as if alpha_bar was used where the alpha of one push is needed.", _weight_with_bar),
            Slip("It looks as if beta was taken for sigma^2. That is one choice of the width; sigma2 is passed in.", lambda t, beta, sigma2: _weight(t, beta, beta)),
            Slip("alpha_t is missing in the denominator.", lambda t, beta, sigma2: _weight(t, beta, sigma2) * (1 - beta[t])),
            Slip("beta_t is needed squared.", lambda t, beta, sigma2: _weight(t, beta, sigma2) / beta[t]),
            Slip(
                "It looks as if sigma2 was squared: it is a variance already.",
                lambda t, beta, sigma2: _weight(t, beta, sigma2**2),
            ),
            Slip(
                "It looks as if the square root of sigma2 was taken: the divergence has the variance in its denominator.",
                lambda t, beta, sigma2: _weight(t, beta, sigma2.sqrt()),
            ),
            Slip("In the denominator stands alpha_bar where 1 - alpha_bar is needed.", _weight_of(lambda b, s, a, bar: b**2 / (2 * s * a * bar))),
            Slip("In the denominator stands 1 - alpha_t where alpha_t is needed.", _weight_of(lambda b, s, a, bar: b**2 / (2 * s * b * (1 - bar)))),
            Slip("It looks as if only the 2 divides: brackets are missing around the denominator.", _weight_of(lambda b, s, a, bar: b**2 / 2 * s * a * (1 - bar))),
            Slip("It looks as if square roots of alpha and of 1 - alpha_bar stand in the denominator: they are squared in the weight.", _weight_of(lambda b, s, a, bar: b**2 / (2 * s * (a * (1 - bar)).sqrt())), (_weight_of(lambda b, s, a, bar: b**2 / (2 * s * a * (1 - bar).sqrt())), _weight_of(lambda b, s, a, bar: b**2 / (2 * s * a.sqrt() * (1 - bar))))),
            Slip("That is the weight of the plain loss: there is no sigma^2 in it.", _weight_of(lambda b, s, a, bar: b**2 / (2 * a * (1 - bar)))),
            Slip("It looks as if the tables were read at t - 1. Entry 0 is the clean picture, so step t is entry t.", lambda t, *a: _weight(t - 1, *a)),
        ),
        _weight_inputs,
        explain=_explain_weight,
    ),
    Exercise(
        "elbo.gap",
        "The gap",
        _gap,
        (
            Slip("That is the divergence the other way round: the average is over our spoiling.", _gap_reversed),
            Slip("That is L_T, the divergence from N(0, 1). The gap compares with the model's x_1 once it is told x_0.", _gap_to_prior),
            Slip("That is the bound. The surprise is still to be subtracted.", _gap_bound_only),
            Slip("It looks as if the surprise has the variance v: x_0 is spread by x_1 too.", _gap_narrow_surprise),
            Slip("It looks as if the model's x_1 is found from x_0 alone, as x_0 / w. It has a prior too, N(0, 1).", _gap_no_prior),
            Slip("It looks as if L_0 was taken at the mean of x_1. It is an average over x_1, whose spread counts.", _gap_mean_only),
            Slip("The sign is turned: the bound lies above the surprise.", lambda *a: -_gap(*a)),
            Slip("The bound and the surprise were added. The gap is their difference.", _gap_from(lambda x0, bar, w, v, bound, surprise: bound + surprise)),
            Slip("That is the surprise, -log p(x_0).", _gap_from(lambda x0, bar, w, v, bound, surprise: surprise)),
            Slip("In the surprise w is not squared: w x_1 has the variance w^2.", _gap_from(lambda x0, bar, w, v, bound, surprise: bound - _normal_surprise(x0, w + v))),
            Slip("It looks as if x_1 was given the mean alpha_bar x_0. Its factor is the square root.", lambda x0, bar, w, v: _kl(bar * x0, 1 - bar, *_back(x0, w, v))),
            Slip(
                "It looks as if a standard deviation stands where a variance is needed: 1 - alpha_bar is a variance.",
                lambda x0, bar, w, v: _kl(bar**0.5 * x0, (1 - bar) ** 0.5, *_back(x0, w, v)),
                (lambda x0, bar, w, v: _kl(bar**0.5 * x0, (1 - bar) ** 2, *_back(x0, w, v)),),
            ),
            Slip(
                "It looks as if v was taken for a standard deviation: it is a variance.",
                lambda x0, bar, w, v: _gap(x0, bar, w, v**2),
                (lambda x0, bar, w, v: _gap(x0, bar, w, v**0.5),),
            ),
            Slip("It looks as if the model's x_1, given x_0, has the mean w x_0 and the variance v. That is how x_0 follows from x_1: Bayes' rule turns it round.", lambda x0, bar, w, v: _kl(bar**0.5 * x0, 1 - bar, w * x0, v)),
            Slip("In the model's x_1, given x_0, w is not squared: the precision that x_0 adds is w^2 / v.", lambda x0, bar, w, v: _kl(bar**0.5 * x0, 1 - bar, w * x0 / (v + w), v / (v + w))),
            Slip("The means of the two distributions are compared. Their widths differ as well.", lambda x0, bar, w, v: 0.5 * (bar**0.5 * x0 - _back(x0, w, v)[0]) ** 2 / _back(x0, w, v)[1]),
            Slip("The widths of the two distributions are compared. Their means differ as well.", lambda x0, bar, w, v: _kl(0.0, 1 - bar, 0.0, _back(x0, w, v)[1])),
        ),
        _gap_inputs,
        tolerance=2e-6,
    ),
    Exercise(
        "elbo.wrong_index",
        "Find the wrong index",
        _index,
        (
            Slip("That is the function as it was printed: one index in it is still wrong.", lambda *a: _with_indices(*a, width_at=-1)),
            Slip("Two betas are now read at t - 1: the one in factor was right.", lambda *a: _with_indices(*a, width_at=-1, factor_at=-1)),
            Slip("The width is right now, but factor has the beta of another step.", lambda *a: _with_indices(*a, factor_at=-1)),
            Slip("In factor, alpha_bar is now that of t: it was right at t - 1.", lambda *a: _with_indices(*a, factor_before=0)),
            Slip("In factor, alpha_bar is now that of t, and the wrong index is still there.", lambda *a: _with_indices(*a, factor_before=0, width_at=-1)),
            Slip("That is the shift of the bug of this chapter: the difference of SNR from t to t + 1, with the error of t.",
                 _shifted),
            Slip("It looks as if the half of the divergence is missing.", lambda *a: 2 * _index(*a)),
            Slip("The width is that of beta_t, sigma_t^2 = beta_t. beta tilde is asked for.", _of_the_snr(lambda before, now, beta: (before.sqrt() * beta / (1 - now)) ** 2 / (2 * beta))),
            Slip("In the width the two parts of its fraction have each other's place.", _of_the_snr(lambda before, now, beta: (before.sqrt() * beta / (1 - now)) ** 2 / (2 * (1 - now) / (1 - before) * beta))),
            Slip("It looks as if `factor` is not squared.", _of_the_snr(lambda before, now, beta: before.sqrt() * beta / (1 - now) / (2 * (1 - before) / (1 - now) * beta))),
            Slip("In factor, 1 - alpha_bar is now that of t - 1: it was right at t.", _of_the_snr(lambda before, now, beta: (before.sqrt() * beta / (1 - before)) ** 2 / (2 * (1 - before) / (1 - now) * beta))),
            Slip("It looks as if a difference of alpha_bar was taken where a difference of SNR is needed.", _of_the_snr(lambda before, now, beta: 0.5 * (before - now))),
            Slip("It looks as if the error was squared. It is a squared error already.", lambda t, error, beta: error * _index(t, error, beta)),
            Slip("That is the weight of the error of the noise. `error` is that of x_0.", _of_the_snr(lambda before, now, beta: beta**2 / (2 * (1 - before) / (1 - now) * beta * (1 - beta) * (1 - now)))),
            Slip(
                "Now one of the indices is t + 1: step t is entry t.",
                lambda *a: _with_indices(*a, width_at=1),
                (lambda *a: _with_indices(*a, factor_at=1), lambda *a: _with_indices(*a, width_at=1, factor_at=1)),
            ),
        ),
        _index_inputs,
        apart=lambda arguments: arguments[0],
        explain=_explain_index,
        tolerance=1e-6,
    ),
)  # fmt: skip
