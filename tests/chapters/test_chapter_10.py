"""Chapter 10: the code that it writes out is the library's, its equations are true, and its bug is caught."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest
import torch
from conftest import cells_of, close, f64

from ddpm_lib import metrics
from ddpm_lib.exercises import check, find
from ddpm_lib.toy import shape_points


@pytest.fixture(scope="module")
def cells() -> dict[str, str]:
    return {name: cell.source for name, cell in cells_of("10_how_good_is_it").items()}


@pytest.fixture(scope="module")
def book(cells) -> dict:
    """What the cells that define functions leave behind, in the order of the chapter."""
    names = {"torch": torch, "generator": torch.Generator().manual_seed(0), "print": lambda *_: None}
    code = ("frechet-code", "redrawn", "check-bias-mean", "check-bias-line", "slope-code", "kernel-code")
    for name in (*code, "support-code", "resampled"):
        exec(cells[name], names)
    return names


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(dims: int, seed: int) -> torch.Tensor:
    a = draws(dims, dims, seed=seed)
    return a @ a.T / dims + 0.1 * torch.eye(dims, dtype=torch.float64)


def within_errors(values: torch.Tensor, exact: float, errors: float = 4, slack: float = 0.0) -> None:
    error = values.std().item() / len(values) ** 0.5
    assert abs(values.mean().item() - exact) < errors * error + slack


# --- the Fréchet distance


@pytest.mark.equation("eq-transport")
@pytest.mark.parametrize("seed", range(4))
def test_the_cheapest_of_all_plans_on_a_line_keeps_the_order(seed):
    x, y = draws(2, 6, seed=seed)
    cheapest = min((x - y[list(plan)]).square().mean() for plan in permutations(range(6)))
    close((x.sort().values - y.sort().values).square().mean(), cheapest, 1e-12)
    assert cheapest > 0
    close(min((x - x[list(plan)]).square().mean() for plan in permutations(range(6))), 0)


def line(m: float, s: float, m2: float, s2: float) -> float:
    return (m - m2) ** 2 + (s - s2) ** 2


@pytest.mark.equation("eq-transport-line", "eq-transport")
@pytest.mark.parametrize("laws", [(0.5, 1.0, 2.0, 0.4), (0.0, 0.3, -1.0, 2.0)])
def test_normal_laws_on_a_line_moved_quantile_by_quantile(laws):
    m, s, m2, s2 = laws
    u = (torch.arange(2_000_000, dtype=torch.float64) + 0.5) / 2_000_000
    z = torch.special.ndtri(u)
    moved = (m + s * z - m2 - s2 * z).square().mean().item()
    assert moved == pytest.approx(line(*laws), rel=1e-4)
    # a plan with less correlation: the same laws at either end, at a higher price
    x, w = draws(2, 200_000)
    y = 0.9 * x + math.sqrt(1 - 0.81) * w
    assert (m + s * x - m2 - s2 * y).square().mean() > line(*laws) + 0.02


@pytest.mark.equation("eq-frechet", "eq-transport-line")
def test_in_one_dimension_the_formula_is_that_of_the_line(book):
    m, s, m2, s2 = 0.5, 1.3, 2.0, 0.4
    found = book["frechet"](f64([m]), f64([[s**2]]), f64([m2]), f64([[s2**2]]))
    close(found, line(m, s, m2, s2), 1e-12)


@pytest.mark.equation("eq-frechet")
def test_the_formula_is_the_library_s(book):
    for seed in range(5):
        x = draws(60, 4, seed=seed) @ draws(4, 4, seed=seed + 10)
        y = draws(50, 4, seed=seed + 20) + 0.5
        assert book["distance"](x, y) == pytest.approx(metrics.frechet_distance(x, y), rel=1e-6)


@pytest.mark.equation("eq-frechet")
def test_no_plan_that_a_search_finds_is_cheaper(book):
    m, m2, S, S2 = draws(3), draws(3, seed=1), covariance(3, 2), covariance(3, 3)
    half, other = book["root"](S), book["root"](S2)
    skew = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([skew], lr=0.05)
    for _ in range(300):
        # the covariance of x and y: S^(1/2) K S'^(1/2) with a rotation K
        cost = (m - m2).square().sum() + S.trace() + S2.trace()
        cost = cost - 2 * (half @ torch.matrix_exp(skew - skew.T) @ other).trace()
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
    close(cost.detach(), book["frechet"](m, S, m2, S2), 1e-5)


@pytest.mark.equation("eq-best-map", "eq-frechet")
def test_the_best_map_makes_one_law_into_the_other_at_the_price_of_the_distance(book):
    S, S2 = covariance(4, 5), covariance(4, 6)
    half = book["root"](S)
    inverse = torch.linalg.inv(half)
    A = inverse @ book["root"](half @ S2 @ half) @ inverse
    close(A, A.T)
    close(A @ S @ A, S2)
    x = draws(100_000, 4) @ half
    y = x @ A
    exact = book["frechet"](torch.zeros(4).double(), S, torch.zeros(4).double(), S2).item()
    within_errors((x - y).square().sum(1), exact)


def test_a_cat_and_a_fog_have_the_distance_0(cells, book):
    names = dict(book, plot_points=lambda *_, **__: None, shape_points=shape_points)
    source = cells["cat-fog"].replace("from ddpm_lib.plotting import plot_points\n", "")
    exec(source, names)
    cat, fog = names["cat"], names["fog"]
    assert book["distance"](cat, fog) < 1e-12
    for cloud in (cat, fog):
        close(cloud.mean(0), 0.0)
        close(torch.cov(cloud.T), torch.eye(2))
    assert metrics.support(fog, cat).precision < 0.9


def test_the_law_half_way_is_at_a_quarter_of_the_distance_from_both_ends(book):
    one, other = (draws(4), covariance(4, 5)), (draws(4, seed=1), covariance(4, 6))
    middle = find("metrics.halfway").answer(*one, *other)
    for end in (one, other):
        close(book["frechet"](*end, *middle), book["frechet"](*one, *other) / 4, 1e-9)


# --- the bias


@pytest.mark.equation("eq-bias-mean")
def test_the_mean_of_a_sample_misses_by_its_variance():
    values, goal = draws(4, 2), draws(2, seed=1)
    samples = [values[list(rows)] for rows in product(range(4), repeat=3)]
    average = torch.stack([(each.mean(0) - goal).square().sum() for each in samples]).mean()
    S = torch.cov(values.T, correction=0)
    close(average, (values.mean(0) - goal).square().sum() + S.trace() / 3, 1e-12)


@pytest.mark.equation("eq-bias-line")
@pytest.mark.parametrize("n", [3, 5, 20, 200])
def test_the_width_of_a_sample_misses_as_the_formula_says(book, n):
    # (n - 1) s^2 is chi squared with n - 1 degrees of freedom: its root's mean by quadrature
    s = torch.linspace(1e-6, 6, 600_001, dtype=torch.float64)
    chi2 = torch.distributions.Chi2(torch.tensor(n - 1.0, dtype=torch.float64))
    density = chi2.log_prob((n - 1) * s.square()).exp() * 2 * (n - 1) * s
    close(torch.trapezoid(density, s), 1.0, 1e-5)
    exact = 1 / n + torch.trapezoid(density * (s - 1).square(), s).item()
    assert 1 / n + 2 * (1 - book["c"](n)) == pytest.approx(exact, abs=1e-5)
    assert n * exact == pytest.approx(1.5, abs=1.5 / n + 0.001)


def kappa_normal(S: torch.Tensor) -> float:
    spread = torch.linalg.eigvalsh(S)
    pairs = torch.outer(spread, spread) / (spread[:, None] + spread)
    return (spread.sum() + (pairs.sum() + pairs.diagonal().sum()) / 2).item()


def measured_slope(book, x: torch.Tensor, S: torch.Tensor) -> torch.Tensor:
    """n d^2 for each of the samples x (R, n, D) of a law with mean 0 and covariance S."""
    zero = torch.zeros(len(S), dtype=torch.float64)
    return torch.stack([len(each) * book["frechet"](zero, S, *book["moments"](each)) for each in x])


@pytest.mark.equation("eq-bias-slope")
def test_the_slope_of_the_bias_of_a_normal_law(book):
    S = covariance(4, 7)
    x = draws(1500, 400, 4) @ book["root"](S)
    kappa = kappa_normal(S)
    within_errors(measured_slope(book, x, S), kappa, slack=0.02 * kappa)
    assert book["slope"](draws(200_000, 4, seed=8) @ book["root"](S)).item() == pytest.approx(kappa, rel=0.03)


@pytest.mark.equation("eq-bias-slope")
def test_the_slope_of_the_bias_of_a_law_with_long_tails(book):
    generator = torch.Generator().manual_seed(0)
    sign = torch.randint(2, (1500, 500, 2), generator=generator) * 2.0 - 1
    x = sign * -torch.rand(1500, 500, 2, generator=generator, dtype=torch.float64).log() / math.sqrt(2)
    # Laplace, variance 1: the square of a coordinate has the variance 5, and the product of two has 1
    kappa = 2 + (5 / 2 + 5 / 2 + 2 * 1 / 2) / 2
    within_errors(measured_slope(book, x, torch.eye(2, dtype=torch.float64)), kappa, slack=0.04 * kappa)
    assert book["slope"](x.flatten(0, 1)).item() == pytest.approx(kappa, rel=0.05)
    assert kappa > 1.3 * kappa_normal(torch.eye(2, dtype=torch.float64))


@pytest.mark.equation("eq-bias-slope")
def test_with_fixed_shares_only_the_scatter_within_the_classes_counts(book):
    label = torch.arange(400) % 2
    centre = f64([[1.5, 0.0], [-1.5, 0.0]])[label]
    x = centre + 0.5 * draws(1000, 400, 2)
    S = torch.diag(f64([2.5, 0.25]))
    many = (centre + 0.5 * draws(300, 400, 2, seed=1)).flatten(0, 1)
    kappa = book["slope"](many, label.repeat(300)).item()
    within_errors(measured_slope(book, x, S), kappa, slack=0.03 * kappa)
    assert book["slope"](many).item() > 1.5 * kappa


@pytest.mark.equation("eq-bias-normal", "eq-bias-slope")
@pytest.mark.parametrize("dims", [2, 3, 10])
def test_the_slope_of_a_round_normal_law(book, dims):
    S = 0.49 * torch.eye(dims, dtype=torch.float64)
    kappa = 0.49 * dims * (dims + 5) / 4
    assert kappa_normal(S) == pytest.approx(kappa)
    x = 0.7 * draws(800, 500, dims)
    within_errors(measured_slope(book, x, S), kappa, slack=0.03 * kappa)


@pytest.mark.equation("eq-real-floor")
def test_two_finite_sets_of_one_law_are_at_the_floor(book):
    S = covariance(3, 9)
    half = book["root"](S)
    x, y = draws(1000, 250, 3) @ half, draws(1000, 600, 3, seed=1) @ half
    found = torch.tensor([book["distance"](a, b) for a, b in zip(x, y, strict=True)])
    floor = kappa_normal(S) * (1 / 250 + 1 / 600)
    within_errors(found, floor, slack=0.03 * floor)


# --- the kernel distance


def monomials(x: torch.Tensor) -> torch.Tensor:
    """phi: all products of up to three of (1, x_1 / sqrt D, ..., x_D / sqrt D), each order counted; (n, (D + 1)^3)."""
    one = torch.cat([torch.ones(len(x), 1).double(), x / x.shape[1] ** 0.5], dim=1)
    return torch.einsum("na,nb,nc->nabc", one, one, one).flatten(1)


@pytest.mark.equation("eq-cubic-kernel")
@pytest.mark.parametrize("dims", [1, 3])
def test_the_kernel_is_a_scalar_product_of_monomials(book, dims):
    x, y = draws(5, dims), draws(4, dims, seed=1)
    close(book["kernel"](x, y), monomials(x) @ monomials(y).T, 1e-10)
    if dims == 1:
        phi = lambda z: torch.cat([z**0, 3**0.5 * z, 3**0.5 * z**2, z**3], dim=1)  # noqa: E731
        close(book["kernel"](x, y), phi(x) @ phi(y).T, 1e-10)


def law_distance(law: torch.Tensor, other: torch.Tensor) -> float:
    """Of two laws with equally likely values, by the means of the monomials."""
    return (monomials(law).mean(0) - monomials(other).mean(0)).square().sum().item()


def average(estimate, law, other, n, m) -> float:
    """Over all samples of n from one law and m from the other."""
    rows = [list(product(range(len(law)), repeat=count)) for count in (n, m)]
    values = [float(estimate(law[list(a)], other[list(b)])) for a in rows[0] for b in rows[1]]
    return sum(values) / len(values)


@pytest.mark.equation("eq-kernel-distance")
def test_the_kernel_distance_compares_the_means_of_the_monomials(book):
    law, other = draws(3, 2), draws(3, 2, seed=1)
    k = book["kernel"]
    means = k(law, law).mean() + k(other, other).mean() - 2 * k(law, other).mean()
    close(means, law_distance(law, other), 1e-10)


@pytest.mark.equation("eq-kernel-unbiased")
@pytest.mark.parametrize("n, m", [(2, 2), (3, 2)])
def test_the_estimate_is_right_on_average_over_all_samples(book, n, m):
    law, other = draws(3, 2), draws(3, 2, seed=1)
    assert average(book["kid"], law, other, n, m) == pytest.approx(law_distance(law, other), abs=1e-10)
    assert average(book["kid"], law, law, n, m) == pytest.approx(0, abs=1e-10)


@pytest.mark.equation("eq-kernel-bias")
@pytest.mark.parametrize("n, m", [(2, 2), (3, 2)])
def test_points_that_meet_themselves_add_what_the_formula_says(book, n, m):
    law, other = draws(3, 2), draws(3, 2, seed=1)
    k = book["kernel"]
    extra = [k(z, z).diagonal().mean() - k(z, z).mean() for z in (law, other)]
    wrong = average(lambda x, y: book["kid"](x, y, themselves=True), law, other, n, m)
    expected = law_distance(law, other) + (extra[0] / n + extra[1] / m).item()
    assert wrong == pytest.approx(expected, abs=1e-10) and min(extra) > 0


def test_only_sets_whose_classes_are_left_to_chance_have_no_bias(cells, book):
    """Ten classes far apart: the estimate is 0 on average for independent points, and below for sets in tens."""
    centre = 2 * draws(10, 3)
    known, others = ((centre + 0.1 * draws(400, 10, 3, seed=seed)).flatten(0, 1) for seed in (1, 2))
    names = dict(
        book, KNOWN={"classifier": known}, OTHERS={"classifier": others}, SOFT={"classifier": others}
    )
    exec(cells["kernel-digits"].split("\n\n\nfor n in")[0].replace("1500", "150"), names)
    picked = names["by_chance"](torch.arange(4000), 500, torch.Generator().manual_seed(0))
    assert len(picked.unique()) == 500 and (picked % 10).bincount().double().std() > 2
    within_errors(names["kernel_draws"](others, 100, seed=0, draws=400), 0.0)
    k = book["kernel"](centre, centre)
    apart = k.diagonal().mean() - k[~torch.eye(10, dtype=torch.bool)].mean()
    rows = [(10 * torch.randperm(400)[:10, None] + torch.arange(10)).flatten() for _ in range(100)]
    tens = torch.tensor(
        [book["kid"](others[one], known[two]) for one, two in zip(rows, rows[::-1], strict=True)]
    )
    assert tens.mean().item() == pytest.approx(-0.9 * apart.item() * (1 / 99 + 1 / 99), rel=0.05)


def test_the_kernel_distance_is_the_library_s(book):
    x, y = draws(30, 3), draws(30, 3, seed=1) + 0.2
    assert book["kid"](x, y) == pytest.approx(metrics.kernel_distance(x, y)[0], abs=1e-6)


# --- the four shares


@pytest.mark.equation("eq-neighbourhoods")
@pytest.mark.parametrize("k", [1, 3])
def test_the_shares_are_their_definition_in_loops_and_the_library_s(book, k):
    x, y = draws(12, 2), 1.4 * draws(15, 2, seed=1) + 0.3

    def ball(cloud, i):
        return sorted(math.dist(cloud[i], cloud[j]) for j in range(len(cloud)) if j != i)[k - 1]

    in_real = [[math.dist(a, b) <= ball(y, j) for j, b in enumerate(y)] for a in x]
    in_sample = [[math.dist(a, b) <= ball(x, i) for i, a in enumerate(x)] for b in y]
    found = book["shares"](x, y, k)
    assert found["precision"] == pytest.approx(np.mean([any(row) for row in in_real]))
    assert found["recall"] == pytest.approx(np.mean([any(row) for row in in_sample]))
    assert found["density"] == pytest.approx(np.mean([sum(row) for row in in_real]) / k)
    assert found["coverage"] == pytest.approx(np.mean(np.any(in_real, axis=0)))
    theirs = metrics.support(x, y, k)
    assert all(getattr(theirs, name) == pytest.approx(value, abs=1e-6) for name, value in found.items())


@pytest.mark.equation("eq-equal-laws")
@pytest.mark.parametrize("n, M, k", [(5, 8, 2), (9, 6, 3)])
def test_density_and_coverage_of_equal_laws_need_no_law(book, n, M, k):
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(2000):
        # far from normal, and not round
        points = torch.rand(M + n, 2, generator=generator, dtype=torch.float64) ** 3 * f64([1.0, 4.0])
        now = book["shares"](points[M:], points[:M], k)
        found.append([now["density"], now["coverage"]])
    density, coverage = f64(found).T
    within_errors(density, 1.0)
    within_errors(coverage, 1 - math.prod((M - i) / (M - i + n) for i in range(1, k + 1)))
    limit = 1 - math.prod((1e6 - i) / (2e6 - i) for i in range(1, k + 1))
    assert limit == pytest.approx(1 - 2**-k, abs=1e-5)


# --- errors


@pytest.mark.equation("eq-bootstrap-mean")
def test_all_resamples_of_a_mean_vary_as_the_formula_says():
    x = draws(5)
    means = torch.stack([x[list(rows)].mean() for rows in product(range(5), repeat=5)])
    close(means.var(correction=0), (x - x.mean()).square().sum() / 25, 1e-12)


def test_resampling_finds_the_error_of_a_mean(book):
    x = draws(400)
    found = book["resampled"](lambda z: z.mean().item(), x, rounds=400).std().item()
    assert found == pytest.approx(x.std().item() / 20, rel=4 / math.sqrt(800))


def test_resamples_of_a_distance_carry_its_bias_a_second_time(book):
    x, y = draws(200, 6), draws(2000, 6, seed=1)
    values = book["resampled"](lambda z: book["distance"](z, y), x, rounds=200)
    extra = values.mean().item() - book["distance"](x, y)
    assert extra == pytest.approx(6 * 11 / 4 / 200, rel=0.25)


@pytest.mark.equation("eq-wilson")
@pytest.mark.parametrize("share, n", [(0.985, 250), (1.0, 40), (0.3, 17)])
def test_the_ends_of_the_interval_of_a_share_solve_the_equation(share, n):
    for p in metrics.wilson_interval(share, n):
        assert (share - p) ** 2 == pytest.approx(1.96**2 * p * (1 - p) / n, abs=1e-12)
    a, b, c = 1 + 1.96**2 / n, -(2 * share + 1.96**2 / n), share**2
    ends = sorted(np.roots([a, b, c]).real)
    assert metrics.wilson_interval(share, n) == pytest.approx(ends, abs=1e-9)


@pytest.mark.equation("eq-difference")
def test_equal_models_are_told_apart_in_one_case_of_twenty():
    errors = f64([0.3, 1.1])
    a, b = draws(2, 40_000) * errors[:, None]
    claimed = ((a - b).abs() > 1.96 * errors.norm()).double()
    within_errors(claimed, 0.05)
    strict = ((a - b).abs() > 1.96 * errors.sum()).double().mean()
    assert strict < 0.02


@pytest.mark.equation("eq-spoilt-likelihood")
@pytest.mark.parametrize("w", [0.5, 0.01])
def test_spoiling_nearly_all_samples_costs_few_bits(w):
    dims = 50
    x = draws(500, dims)
    normal = torch.distributions.Normal(f64(0.0), f64(1.0))
    model = normal.log_prob(x).sum(1)
    rubbish = torch.distributions.Uniform(f64(-6.0), f64(6.0)).log_prob(x).sum(1)
    spoilt = torch.logaddexp(model + math.log(w), rubbish + math.log(1 - w))
    bits, spoilt_bits = (-each / (dims * math.log(2)) for each in (model, spoilt))
    more = (spoilt_bits - bits).mean().item()
    most = math.log2(1 / w) / dims
    assert 0.9 * most < more <= most + 1e-12


# --- the bug


def test_the_yardstick_fails_for_two_numbers_of_samples(cells, book):
    printed = []
    names = dict(
        book,
        print=lambda *values: printed.append(" ".join(map(str, values))),
        OTHERS={"classifier": draws(6000, 12)},
        known=draws(4000, 12, seed=1),
    )
    exec(cells["bug-check"], names)
    verdicts = [text.split()[-1] for text in printed if text.startswith("  n =")]
    assert verdicts == ["FAILS", "ok"]


# --- the exercises


def halfway_by_the_covariance_between(m, S, m2, S2):
    S, S2 = S.numpy(), S2.numpy()
    values, axes = np.linalg.eig(S @ S2)
    between = (axes * np.sqrt(values)) @ np.linalg.inv(axes)
    return [(m.numpy() + m2.numpy()) / 2, (S + S2 + between + between.T) / 4]


def halfway_from_the_other_end_in_place(m, S, m2, S2):
    m += m2
    m /= 2
    S, S2 = S.float(), S2.float()
    values, axes = torch.linalg.eigh(S2)
    half, inverse = axes * values.sqrt() @ axes.T, axes / values.sqrt() @ axes.T
    values, axes = torch.linalg.eigh(half @ S @ half)
    back = inverse @ (axes * values.sqrt() @ axes.T) @ inverse
    step = (torch.eye(len(m)) + back) / 2
    return m, step @ S2 @ step.T


def kernel_in_loops(x, y):
    k = lambda a, b: (float(a @ b) / len(a) + 1) ** 3  # noqa: E731
    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * n - n)
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * m - m)
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def kernel_in_place(x, y):
    x /= math.sqrt(x.shape[1])
    y /= math.sqrt(y.shape[1])
    table = (torch.cat([x, y]) @ torch.cat([x, y]).T + 1).pow_(3).numpy()
    n, m = len(x), len(y)
    weight = np.full((n + m, n + m), -1 / (n * m))
    weight[:n, :n], weight[n:, n:] = 1 / (n * (n - 1)), 1 / (m * (m - 1))
    np.fill_diagonal(weight, 0)
    return (weight * table).sum()


def floor_in_loops(S, n, M):
    spread = np.linalg.eigvalsh(S.numpy())
    kappa = sum(spread)
    for i, a in enumerate(spread):
        for j, b in enumerate(spread):
            kappa += 0.5 * a * b * (2 if i == j else 1) / (a + b)
    return kappa / n + kappa / M


def floor_in_float32(S, n, M):
    own = torch.linalg.svdvals(S.float())
    ratio = (own[:, None] * own) / (own[:, None] + own)
    return (1.25 * own.sum() + ratio.sum() / 2) * (n + M) / (n * M)


def missing_in_loops(samples, real, labels, k):
    held = []
    for i, y in enumerate(real):
        apart = sorted(math.dist(y, other) for j, other in enumerate(real) if j != i)
        held.append(any(math.dist(y, x) <= apart[k - 1] for x in samples))
    held, labels = np.array(held), labels.numpy()
    return [held[labels == c].mean() for c in range(labels.max() + 1)]


def missing_by_bincount(samples, real, labels, k):
    radius = torch.cdist(real, real).topk(k + 1, largest=False).values[:, -1]
    nearest = torch.cdist(real, samples).amin(1)
    return labels.bincount((nearest <= radius).float()) / labels.bincount()


def claim_by_z(a, b):
    if {a["count"], a["features"], a["reference"]} != {b["count"], b["features"], b["reference"]}:
        return "not comparable"
    z = (a["value"] - b["value"]) / (a["error"] ** 2 + b["error"] ** 2) ** 0.5
    return "better" if z < -1.96 else "worse" if z > 1.96 else "cannot say"


def claim_by_squares(a, b):
    for key in a:
        if key not in ("value", "error") and a[key] != b[key]:
            return "not comparable"
    if (a["value"] - b["value"]) ** 2 <= 1.96**2 * (a["error"] ** 2 + b["error"] ** 2):
        return "cannot say"
    return ("better", "worse")[a["value"] > b["value"]]


RIGHT = {
    "metrics.halfway": (halfway_by_the_covariance_between, halfway_from_the_other_end_in_place),
    "metrics.kernel": (kernel_in_loops, kernel_in_place),
    "metrics.floor": (floor_in_loops, floor_in_float32),
    "metrics.missing": (missing_in_loops, missing_by_bincount),
    "metrics.claim": (claim_by_z, claim_by_squares),
}
WRONG = {
    "metrics.halfway": (
        lambda m, S, m2, S2: (m, halfway_by_the_covariance_between(m, S, m2, S2)[1]),
        lambda m, S, m2, S2: halfway_by_the_covariance_between(m, S, m2, 1.002 * S2),
        lambda m, S, m2, S2: ((m + m2) / 2, S),
        lambda m, S, m2, S2: ((m + m2) / 2, S @ S2),
    ),
    "metrics.kernel": (
        lambda x, y: kernel_in_loops(x, y) + 1e-3,
        lambda x, y: kernel_in_loops(x[1:], y),
    ),
    "metrics.floor": (
        lambda S, n, M: floor_in_loops(S, n - 1, M),
        lambda S, n, M: floor_in_loops(S, n, M) * 1.01,
    ),
    "metrics.missing": (
        lambda samples, real, labels, k: missing_by_bincount(samples[1:], real, labels, k + 1),
        lambda samples, real, labels, k: missing_by_bincount(samples, real, labels, k).flip(0),
    ),
    "metrics.claim": (
        lambda a, b: claim_by_z(b, a) if a["value"] > b["value"] + 0.1 else claim_by_z(a, b),
        lambda a, b: "cannot say",
    ),
}


@pytest.mark.parametrize(("name", "attempt"), [(n, f) for n, each in RIGHT.items() for f in each])
def test_a_right_answer_written_differently_is_correct(name, attempt):
    verdict = check(name, attempt, record=False)
    assert verdict, verdict


@pytest.mark.parametrize(("name", "attempt"), [(n, f) for n, each in WRONG.items() for f in each])
def test_a_near_miss_is_not_correct(name, attempt):
    assert check(name, attempt, record=False).status == "not yet"


def test_what_is_wrong_is_said_in_the_exercise_s_words():
    assert "should be 0" in check("metrics.kernel", WRONG["metrics.kernel"][0], record=False).text
    assert "you say 'cannot say'" in check("metrics.claim", WRONG["metrics.claim"][1], record=False).text
    assert "should be" in check("metrics.floor", WRONG["metrics.floor"][1], record=False).text
    assert "d2 / 4" in check("metrics.halfway", WRONG["metrics.halfway"][1], record=False).text
    assert "the mean is not" in check("metrics.halfway", WRONG["metrics.halfway"][0], record=False).text
    assert all(find(name).slips for name in RIGHT)
