"""Maths in two pages: every formula against quadrature, a sum written out, autograd or random draws."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import close, f64
from torch.distributions import MultivariateNormal, Normal, kl_divergence

N = 200_000
GRID = torch.linspace(-14, 14, 56_001, dtype=torch.float64)


def area(values: torch.Tensor) -> float:
    return torch.trapezoid(values, GRID).item()


def density(x, mean, covariance) -> torch.Tensor:
    """The formula of the page, written out. x (..., D), mean (D,), covariance (D, D)."""
    away = f64(x) - mean
    squares = torch.einsum("...i,ij,...j->...", away, torch.linalg.inv(covariance), away)
    return torch.exp(-squares / 2) / torch.sqrt((2 * math.pi) ** len(mean) * torch.det(covariance))


def bell(x, mean, variance) -> torch.Tensor:
    return density(f64(x)[..., None], f64([mean]), f64([[variance]]))


def within_four_errors(draws: torch.Tensor, expected) -> None:
    """The mean of draws (N, ...) is the expected one, within 4 standard errors."""
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - f64(expected)).abs() <= 4 * error).all()


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def draw(generator):
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def covariance(draw, size: int) -> torch.Tensor:
    root = draw(size, size)
    return root @ root.T + 0.3 * torch.eye(size, dtype=torch.float64)


@pytest.mark.equation("eq-maths-mean")
def test_the_average_of_draws_is_the_integral(draw):
    expected = area(torch.cos(GRID) * bell(GRID, 0.5, 0.8))
    assert expected == pytest.approx(math.cos(0.5) * math.exp(-0.4), abs=1e-10)
    within_four_errors(torch.cos(0.5 + 0.8**0.5 * draw(N)), expected)


@pytest.mark.equation("eq-maths-standard-error")
@pytest.mark.parametrize("n", [1, 10, 100])
def test_the_variance_of_an_average_falls_as_one_over_n(draw, n):
    averages = draw(20_000, n).square().mean(1)  # squares of normal draws: variance 2
    assert averages.var().item() == pytest.approx(2 / n, rel=4 * (2 * (1 + 6 / n) / 20_000) ** 0.5)


@pytest.mark.equation("eq-maths-variance")
def test_variance_is_mean_square_less_squared_mean():
    p = 0.3 * bell(GRID, -2, 0.5) + 0.7 * bell(GRID, 1, 1.5)
    mean = area(GRID * p)
    assert area((GRID - mean).square() * p) == pytest.approx(area(GRID.square() * p) - mean**2, abs=1e-10)
    x = f64([1.0, 4.0, 4.0, -3.0])
    close(x.var(correction=0), x.square().mean() - x.mean() ** 2, 1e-12)


@pytest.mark.equation("eq-maths-variance-sum")
def test_variances_of_independent_draws_add():
    """Exactly, over all pairs of two dice with odd faces."""
    x, y, a, b = f64([1.0, 2, 7]), f64([0.0, -1, 5, 5]), 0.6, -1.3
    every_pair = (a * x[:, None] + b * y).flatten()
    expected = a**2 * x.var(correction=0) + b**2 * y.var(correction=0)
    close(every_pair.var(correction=0), expected, 1e-12)
    dependent = (a * x + b * x).var(correction=0)
    assert (dependent - (a**2 + b**2) * x.var(correction=0)).abs() > 1


@pytest.fixture
def joint(draw):
    """A table of probabilities of (x, y), and the values of x."""
    table = draw(5, 4).exp()
    return table / table.sum(), draw(5)


def given(joint):
    table, x = joint
    of_y = table.sum(0)
    mean = (x[:, None] * table).sum(0) / of_y
    variance = (x[:, None].square() * table).sum(0) / of_y - mean**2
    return of_y, mean, variance


@pytest.mark.equation("eq-maths-tower")
def test_averages_in_two_stages(joint):
    (table, x), (of_y, mean, variance) = joint, given(joint)
    all_mean = (table.sum(1) * x).sum()
    close(all_mean, (of_y * mean).sum(), 1e-12)
    spread = (of_y * mean.square()).sum() - all_mean**2
    close((table.sum(1) * x.square()).sum() - all_mean**2, (of_y * variance).sum() + spread, 1e-12)


@pytest.mark.equation("eq-maths-best-guess")
def test_the_conditional_mean_is_the_best_guess(joint, draw):
    (table, x), (of_y, mean, _) = joint, given(joint)
    error = lambda f: (table * (x[:, None] - f).square()).sum()  # noqa: E731
    for guess in draw(20, 4):
        close(error(guess), error(mean) + (of_y * (mean - guess).square()).sum(), 1e-12)
        assert error(guess) > error(mean)


@pytest.mark.equation("eq-maths-gaussian")
def test_the_density_is_torchs_and_has_area_one(draw):
    mean, cov = draw(3), covariance(draw, 3)
    x = draw(50, 3)
    close(density(x, mean, cov), MultivariateNormal(mean, cov).log_prob(x).exp(), 1e-12)
    assert area(bell(GRID, 0.7, 2.1)) == pytest.approx(1, abs=1e-10)


@pytest.mark.equation("eq-maths-gaussian-affine")
def test_a_linear_map_of_a_gaussian(draw):
    mean, cov, a, b = draw(3), covariance(draw, 3), draw(3, 3), draw(3)
    new_mean, new_cov = a @ mean + b, a @ cov @ a.T
    x = draw(50, 3)
    # the density of y = A x + b, by the change of variables
    close(density(x @ a.T + b, new_mean, new_cov), density(x, mean, cov) / torch.det(a).abs(), 1e-10)
    x = mean + draw(N, 3) @ torch.linalg.cholesky(cov).T
    y = x @ a.T + b
    within_four_errors(y, new_mean)
    away = y - new_mean
    within_four_errors(away[:, :, None] * away[:, None], new_cov)


@pytest.mark.equation("eq-maths-gaussian-sum")
@pytest.mark.parametrize("z", [-2.0, 0.3, 1.9])
def test_a_sum_of_gaussians_is_their_convolution(z):
    a, b, m_x, m_y, v_x, v_y = 0.8, -0.5, 0.4, 1.1, 0.9, 1.7
    # density of a x at u, times that of b y at z - u
    convolved = area(bell(GRID, a * m_x, a**2 * v_x) * bell(z - GRID, b * m_y, b**2 * v_y))
    expected = bell(z, a * m_x + b * m_y, a**2 * v_x + b**2 * v_y).item()
    assert convolved == pytest.approx(expected, abs=1e-10)


@pytest.mark.equation("eq-maths-gaussian-product")
def test_a_product_of_bells_is_a_bell_times_a_number():
    m_1, v_1, m_2, v_2 = -0.6, 0.5, 1.3, 2.0
    v = 1 / (1 / v_1 + 1 / v_2)
    m = v * (m_1 / v_1 + m_2 / v_2)
    right = bell(m_1, m_2, v_1 + v_2) * bell(GRID, m, v)
    close(bell(GRID, m_1, v_1) * bell(GRID, m_2, v_2), right, 1e-12)


@pytest.mark.equation("eq-maths-gaussian-conditional")
def test_a_slice_of_a_joint_gaussian(draw):
    mean, cov = draw(4), covariance(draw, 4)
    (m_x, m_y), (s_x, s_y, c) = mean.split(2), (cov[:2, :2], cov[2:, 2:], cov[:2, 2:])
    y = draw(2)
    m = m_x + c @ torch.linalg.inv(s_y) @ (y - m_y)
    s = s_x - c @ torch.linalg.inv(s_y) @ c.T
    x = draw(50, 2)
    whole = density(torch.cat([x, y.expand(50, 2)], 1), mean, cov)
    close(density(x, m, s), whole / density(y, m_y, s_y), 1e-9)


@pytest.mark.equation("eq-maths-gaussian-score")
def test_the_score_is_the_gradient_of_the_log_density(draw):
    mean, cov, x = draw(3), covariance(draw, 3), draw(7, 3).requires_grad_(True)
    (gradient,) = torch.autograd.grad(MultivariateNormal(mean, cov).log_prob(x).sum(), x)
    close(gradient, -(x.detach() - mean) @ torch.linalg.inv(cov), 1e-10)


@pytest.mark.equation("eq-maths-bayes")
def test_bayes_rule_by_counting(generator):
    """x a bag, y a colour: draw pairs, keep those with the colour seen, and count the bags."""
    prior, likelihood = f64([0.2, 0.5, 0.3]), f64([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    x = torch.multinomial(prior, N, replacement=True, generator=generator)
    y = (torch.rand(N, generator=generator) < likelihood[x, 1]).long()
    for seen in (0, 1):
        posterior = likelihood[:, seen] * prior / (likelihood[:, seen] * prior).sum()
        within_four_errors(torch.nn.functional.one_hot(x[y == seen], 3).double(), posterior)


@pytest.mark.equation("eq-maths-chain")
def test_a_chain_is_a_product_of_steps():
    """Three Gaussian steps against their joint density with its full covariance."""
    keep, noise = 0.8, 0.36
    cov = f64([[keep ** abs(i - j) for j in range(4)] for i in range(4)])  # of a stationary chain
    x = f64([[0.3, -1.0, 0.5, 2.0], [0.0, 0.1, -0.2, 0.4]])
    product = bell(x[:, 0], 0, 1)
    for t in (1, 2, 3):
        product = product * Normal(keep * x[:, t - 1], noise**0.5).log_prob(x[:, t]).exp()
    close(product, density(x, torch.zeros(4, dtype=torch.float64), cov), 1e-12)


@pytest.mark.equation("eq-maths-jensen")
def test_jensen(draw):
    for _ in range(20):
        w, p = draw(6).exp(), torch.softmax(draw(6), 0)
        assert (p * w).sum().log() > (p * w.log()).sum()
    same = torch.full((6,), 2.5, dtype=torch.float64)
    close((p * same).sum().log(), (p * same.log()).sum(), 1e-12)


@pytest.mark.equation("eq-maths-kl")
def test_kl_is_an_expectation_and_not_negative(draw):
    p, q = bell(GRID, 0, 1), 0.5 * bell(GRID, -1, 0.7) + 0.5 * bell(GRID, 1, 0.7)
    kl = area(p * (p / q).log())
    assert kl > 0 and area(p * (p / p).log()) == 0
    assert abs(kl - area(q * (q / p).log())) > 1e-3
    x = draw(N)
    mixed = 0.5 * bell(x, -1, 0.7) + 0.5 * bell(x, 1, 0.7)
    within_four_errors((bell(x, 0, 1) / mixed).log(), kl)


@pytest.mark.equation("eq-maths-kl-gaussians")
def test_kl_of_gaussians(draw):
    m_1, m_2, s_1, s_2 = draw(3), draw(3), covariance(draw, 3), covariance(draw, 3)
    inverse, away = torch.linalg.inv(s_2), m_2 - m_1
    trace, logs = torch.trace(inverse @ s_1), torch.log(torch.det(s_2) / torch.det(s_1))
    kl = (trace + away @ inverse @ away - 3 + logs) / 2
    close(kl, kl_divergence(MultivariateNormal(m_1, s_1), MultivariateNormal(m_2, s_2)), 1e-9)
    same = 0.7 * torch.eye(3, dtype=torch.float64)
    alike = kl_divergence(MultivariateNormal(m_1, same), MultivariateNormal(m_2, same))
    close(alike, away.square().sum() / (2 * 0.7), 1e-10)


@pytest.mark.equation("eq-maths-logsumexp")
def test_log_sum_exp_is_the_same_and_stable(draw):
    u = draw(8)
    stable = lambda u: u.max() + (u - u.max()).exp().sum().log()  # noqa: E731
    close(stable(u), u.exp().sum().log(), 1e-12)
    far = u - 800
    assert far.exp().sum().log() == -math.inf
    close(stable(far), stable(u) - 800, 1e-10)


@pytest.mark.equation("eq-maths-softmax")
def test_softmax_is_the_gradient_of_log_sum_exp(draw):
    u = draw(8).requires_grad_(True)
    (gradient,) = torch.autograd.grad(torch.logsumexp(u, 0), u)
    close(gradient, u.detach().exp() / u.detach().exp().sum(), 1e-12)


@pytest.mark.equation("eq-maths-jacobian")
def test_change_of_variables():
    """y = x + x^3 / 3 of a normal x: the formula's area over y, from y(-1) to y(2), is the chance of -1 < x < 2."""
    x = torch.linspace(-1, 2, 20_001, dtype=torch.float64)
    y, slope = x + x**3 / 3, 1 + x**2
    chance = torch.trapezoid(bell(x, 0, 1) / slope.abs(), y).item()
    assert chance == pytest.approx((math.erf(2 / 2**0.5) + math.erf(1 / 2**0.5)) / 2, abs=1e-8)
