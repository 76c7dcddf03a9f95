"""Chapter 3: the code that it writes out is the library's, its equations are true, its claims hold."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from conftest import cells_of, close, f64

from ddpm_lib import chain, schedule
from ddpm_lib.checkpoint import pretrained
from ddpm_lib.data import load_images
from ddpm_lib.exercises import check
from ddpm_lib.toy import FiniteSet, Gaussian, Mixture, shape_points

T = 200
TABLE = schedule.linear(T, 0.0005, 0.1)
ALPHA_BAR = chain.linear(T, 0.0005, 0.1).alpha_bar
A, S = ALPHA_BAR.sqrt(), (1 - ALPHA_BAR).sqrt()
STEPS = pytest.mark.parametrize("t", [1, 20, 60, 120, 200])
DEFINITIONS = ("tweedie", "gaussian-guess", "mixture-guess", "perfect-guess")


@pytest.fixture(scope="module")
def cells() -> dict:
    return cells_of("03_the_perfect_denoiser")


@pytest.fixture(scope="module")
def book(cells) -> dict:
    """What the cells that define functions leave behind."""
    names = {"torch": torch, "math": math, "a": A, "s": S, "T": T, "schedule": TABLE}
    for name in DEFINITIONS:
        exec(cells[name].source, names)
    bug = cells["bug-code"].source
    exec(bug[: bug.index("\n\n\nfor")], names)
    bug = cells["bug-check"].source
    exec(bug[: bug.index("\n\n\nfor")], names)
    return names


@pytest.fixture(autouse=True)
def progress(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_LIB_PROGRESS", str(tmp_path / "progress.json"))


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bumps() -> Mixture:
    return Mixture(f64([0.5, 0.3, 0.2]), f64([[-1.2], [0.4], [1.4]]), f64([0.15, 0.3, 0.1]))


def plane() -> Mixture:
    return Mixture(f64([0.2, 0.5, 0.3]), f64([[-1.0, 0], [1, 1], [0.5, -2]]), f64([0.3, 0.1, 0.5]))


def bell() -> Gaussian:
    return Gaussian(f64([0.5, -1.0]), f64([[1.0, 0.6], [0.6, 0.5]]))


def cat(count: int = 300) -> torch.Tensor:
    return shape_points("cat", count, torch.Generator().manual_seed(1)).double()


def by_quadrature(world: Mixture, t: int, f) -> torch.Tensor:
    """E f(x_0, x_t) for a mixture in one dimension, by sums over grids of both; f takes (N, 1) and (1, M)."""
    x0 = torch.linspace(-4, 4, 2001, dtype=torch.float64)[:, None]
    x = torch.linspace(-8, 8, 2001, dtype=torch.float64)[None]
    normal = torch.distributions.Normal
    prior = sum(
        w * normal(m, d).log_prob(x0).exp()
        for w, m, d in zip(world.weights, world.means[:, 0], world.stds, strict=True)
    )
    joint = prior * normal(A[t] * x0, S[t]).log_prob(x).exp()
    return (joint * f(x0, x)).sum() / joint.sum()


def guess_of(world, t: int):
    return lambda x: world.denoiser(TABLE)(x.reshape(-1, 1), t / T).reshape(x.shape)


# --- equations


@pytest.mark.equation("eq-two-errors")
@pytest.mark.parametrize("t", [20, 60, 150])
def test_the_error_splits_in_two_by_quadrature(t):
    mean = guess_of(bumps(), t)
    for f in (lambda x: x / A[t], torch.tanh, lambda x: 0 * x + 0.3):
        whole = by_quadrature(bumps(), t, lambda x0, x: (x0 - f(x)).square())  # noqa: B023
        floor = by_quadrature(bumps(), t, lambda x0, x: (x0 - mean(x)).square())
        distance = by_quadrature(bumps(), t, lambda x0, x: (mean(x) - f(x)).square() + 0 * x0)  # noqa: B023
        assert distance > 0.01
        close(whole, floor + distance, 1e-8)


@pytest.mark.equation("eq-noisy-density")
@STEPS
def test_the_density_is_an_average_of_hills(book, t):
    points, x = draws(6, 2), draws(9, 2, seed=1)
    hills = torch.distributions.MultivariateNormal(A[t] * points, S[t] ** 2 * torch.eye(2).double())
    close(book["log_density"](x, t, points).exp(), hills.log_prob(x[:, None]).exp().mean(1), 1e-12)


@pytest.mark.equation("eq-score-mean")
@pytest.mark.parametrize("t", [20, 60, 150])
def test_the_slope_is_the_mean_slope_of_the_hills(t):
    # left by autograd of the log density, right by a sum over a grid of x_0
    x = f64([[-1.5], [0.1], [0.9]]).requires_grad_()
    (slope,) = torch.autograd.grad(bumps().log_prob(x, TABLE, t / T).sum(), x)
    grid = torch.linspace(-4, 4, 40_001, dtype=torch.float64)
    normal = torch.distributions.Normal
    prior = sum(
        w * normal(m, d).log_prob(grid).exp()
        for w, m, d in zip(bumps().weights, bumps().means[:, 0], bumps().stds, strict=True)
    )
    for here, expected in zip(x.detach()[:, 0], slope[:, 0], strict=True):
        chance = prior * normal(A[t] * grid, S[t]).log_prob(here).exp()
        mean = (chance / chance.sum() * (A[t] * grid - here) / S[t] ** 2).sum()
        close(mean, expected, 1e-7)


@pytest.mark.equation("eq-tweedie")
@STEPS
def test_tweedie_is_bayes_rule(book, t):
    points, x = cat(), draws(40, 2, seed=2)
    close(book["tweedie"](x, t, points), FiniteSet(points).denoiser(TABLE)(x, t / T), 1e-8)


@pytest.mark.equation("eq-tweedie", "eq-noise-from-score")
@pytest.mark.parametrize("world", [bell(), plane(), FiniteSet(cat(50))], ids=["bell", "plane", "set"])
@STEPS
def test_the_guessed_noise_is_the_autograd_score(world, t):
    x = draws(20, 2, seed=3).requires_grad_()
    (score,) = torch.autograd.grad(world.log_prob(x, TABLE, t / T).sum(), x)
    guess = world.denoiser(TABLE)(x.detach(), t / T)
    close((x + S[t] ** 2 * score) / A[t], guess, 1e-7)
    close(-S[t] * score, (x - A[t] * guess) / S[t], 1e-7 / S[t])


@pytest.mark.equation("eq-gaussian-guess")
@STEPS
def test_the_gaussian_guess_is_bayes_rule_on_a_grid(book, t):
    side = torch.linspace(-7, 7, 1401, dtype=torch.float64)
    grid, prior = torch.cartesian_prod(side, side), bell()
    law = torch.distributions.MultivariateNormal(prior.mean, prior.covariance)
    x = A[t] * prior.mean + f64([0.3, -0.4])
    p = torch.softmax(law.log_prob(grid) - (x - A[t] * grid).square().sum(1) / (2 * S[t] ** 2), 0)
    ours = book["gaussian_guess"](x[None], t, prior.mean, prior.covariance)[0]
    close(ours, p @ grid, 1e-6)
    close(ours, prior.denoiser(TABLE)(x[None], t / T)[0], 1e-10)


@pytest.mark.equation("eq-mixture-guess")
@STEPS
def test_the_mixture_guess_is_the_librarys_and_bayes_rule_on_a_grid(book, t):
    world, x = plane(), draws(60, 2, seed=4)
    ours = book["mixture_guess"](x, t, world.weights, world.means, world.stds)
    close(ours, world.denoiser(TABLE)(x, t / T), 1e-10)
    line = bumps()
    grid = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    parts = torch.distributions.Normal(line.means[:, 0], line.stds).log_prob(grid[:, None])
    logits = torch.logsumexp(parts + line.weights.log(), 1)
    for here in (-0.8, 0.2):
        p = torch.softmax(logits - (here - A[t] * grid).square() / (2 * S[t] ** 2), 0)
        guess = book["mixture_guess"](f64([[here]]), t, line.weights, line.means, line.stds)
        close(guess[0, 0], (p * grid).sum(), 1e-7)


@pytest.mark.equation("eq-mixture-score")
@STEPS
def test_the_mixture_score_is_autograd(t):
    world = plane()
    x = draws(30, 2, seed=5).requires_grad_()
    (score,) = torch.autograd.grad(world.log_prob(x, TABLE, t / T).sum(), x)
    variance = A[t] ** 2 * world.stds**2 + S[t] ** 2
    chances = world.posterior(x.detach(), TABLE, t / T)
    pulls = (A[t] * world.means - x.detach()[:, None]) / variance[:, None]
    close((chances[..., None] * pulls).sum(1), score, 1e-8)


@pytest.mark.equation("eq-guess-by-products")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@STEPS
def test_the_perfect_guess_is_the_librarys(book, t, dtype):
    points = draws(200, 1, 8, 8).to(dtype)
    x = TABLE.add_noise(points[:20], t / T, draws(20, 1, 8, 8, seed=6).to(dtype))
    answer = book["perfect_guess"](x, t, points)
    assert answer.dtype == dtype and answer.shape == x.shape
    close(answer, FiniteSet(points).denoiser(TABLE)(x, t / T), 1e-6)


@pytest.mark.equation("eq-guess-by-products")
@pytest.mark.parametrize("t", [20, 120])
def test_products_are_the_densities_written_out(book, t):
    points, x = draws(7, 2), draws(5, 2, seed=7)
    noisy = torch.distributions.MultivariateNormal(A[t] * points, S[t] ** 2 * torch.eye(2).double())
    density = noisy.log_prob(x[:, None]).exp()
    close(book["perfect_guess"](x, t, points), density / density.sum(1, keepdim=True) @ points, 1e-10)


def floor_within_four_errors(errors: torch.Tensor, exact: float) -> None:
    assert abs(errors.mean() - exact) < 4 * errors.std() / len(errors) ** 0.5


@pytest.mark.equation("eq-error-floor", "eq-gaussian-floor")
@pytest.mark.parametrize("t", [10, 60, 150])
def test_the_gaussian_floor_by_monte_carlo(t):
    v, n = 0.7, 200_000
    world = Gaussian(f64([0.3]), v)
    x0 = 0.3 + v**0.5 * draws(n, 1)
    x = A[t] * x0 + S[t] * draws(n, 1, seed=1)
    errors = (x0 - world.denoiser(TABLE)(x, t / T)).square()
    floor_within_four_errors(errors, float(v * S[t] ** 2 / (A[t] ** 2 * v + S[t] ** 2)))
    # in the world's own terms: what remains uncertain once x_t was seen
    close(world.given(A[t] * torch.eye(1), x[0], S[t].item()).covariance, errors.mean(), 0.01)


@pytest.mark.equation("eq-error-floor")
@pytest.mark.parametrize("t", [20, 60, 150])
def test_nobody_is_below_the_floor(t):
    x0 = bumps().sample(50_000, torch.Generator().manual_seed(1)).double()
    x = A[t] * x0 + S[t] * draws(50_000, 1)
    mean = bumps().denoiser(TABLE)(x, t / T)
    floor = by_quadrature(bumps(), t, lambda x0, x: (x0 - guess_of(bumps(), t)(x)).square())
    floor_within_four_errors((x0 - mean).square(), float(floor))
    for other in (0.9 * mean, mean + 0.05, mean + 0.1 * torch.sin(3 * x)):
        extra = (x0 - other).square() - (x0 - mean).square() - (mean - other).square()
        floor_within_four_errors(extra, 0.0)


@pytest.mark.equation("eq-noise-floor")
@pytest.mark.parametrize("t", [10, 60, 150])
def test_the_floor_of_the_noise_loss(t):
    # the best guess of the noise by its own quadrature: E[eps | x_t], not by way of x_0
    normal, v = torch.distributions.Normal, 0.7
    eps = torch.linspace(-8, 8, 2001, dtype=torch.float64)[:, None]
    x = torch.linspace(-7, 7, 2001, dtype=torch.float64)[None]
    joint = (normal(0.0, 1.0).log_prob(eps) + normal(0.0, A[t] * v**0.5).log_prob(x - S[t] * eps)).exp()
    best = (joint * eps).sum(0) / joint.sum(0)
    loss = (joint * (eps - best).square()).sum() / joint.sum()
    floor = v * S[t] ** 2 / (A[t] ** 2 * v + S[t] ** 2)
    close(loss, A[t] ** 2 / S[t] ** 2 * floor, 1e-6)


# --- the bug


def test_the_bug_is_in_the_dimension_and_not_in_the_step(book):
    for t in (5, 60, 150):
        for dims, fails in ((2, False), (784, True)):
            points = draws(50, dims).float()
            x = TABLE.add_noise(points, t / T, draws(50, dims, seed=8).float())
            assert bool(book["naive_guess"](x, t, points).isnan().all()) == fails
            patched = book["naive_guess"](x, t, points, tiny=1e-8)
            assert bool((patched == 0).all()) == fails


def test_the_check_of_the_bug_finds_it(cells, book, capsys):
    exec(cells["bug-check"].source, dict(book, generator=torch.Generator().manual_seed(0)))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["ok", "FAILS", "FAILS", "ok", "ok", "ok"]


# --- what the prose says of the outputs


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_verdicts_are_printed_only_where_they_are_the_lesson(cells):
    # on the cat the naive softmax passes its test, and that is the trouble with it
    said = {name: printed(cell) for name, cell in cells.items() if cell.cell_type == "code"}
    assert said.pop("bug-code").count("True") == 3
    assert not re.search("True|False", "".join(said.values()))


@pytest.mark.parametrize(
    ("prose", "run", "others"),
    [
        ("two-errors-saw", "two-errors", set()),
        # those of 1,000 digits, and the mean squared distance, are in test_chapter_03_numbers.py
        ("curves-saw", "curves-plot", {"0.0192", "0.0193", "0.0002", "0.12"}),
        ("hills-saw", "hills", {"0.36", "0.28", "0.8", "0.5"}),
        ("copies-saw", "distances", {"0.99", "0.049", "0.030", "0.058", "2.9", "5.5", "0.089", "0.147"}),
        ("ex-duplicates-solution", "ex-duplicates-solved", {"0.5"}),
    ],
)
def test_numbers_in_the_prose_are_those_of_the_run(cells, prose, run, others):
    said = set(re.findall(r"(?<![\w.])\d\.\d+", cells[prose].source))
    assert others < said
    came = [float(number) for number in re.findall(r"\d\.\d+", printed(cells[run]))]
    for number in said - others:
        digits = len(number) - 2
        assert any(round(each, digits) == float(number) for each in came), number


def test_the_mean_is_the_cheapest_answer_of_the_example(cells):
    answers = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    cost = 0.75 * (1 - answers) ** 2 + 0.25 * (-1 - answers) ** 2
    close(answers[cost.argmin()], 0.5, 1e-9)
    close(cost.min(), 0.75)
    assert "you pay 1 on average" in cells["mean"].source
    close(cost[3000], 1.0)


def test_the_three_hills_have_the_slope_and_the_guess_that_are_told():
    x = f64(-0.5).requires_grad_()
    normal = torch.distributions.Normal(0.8 * f64([-2, 0, 1]), 0.6)
    parts = normal.log_prob(x)
    (slope,) = torch.autograd.grad(torch.logsumexp(parts, 0), x)
    share = torch.softmax(parts.detach(), 0)
    assert [round(value, 2) for value in share.tolist()] == [0.19, 0.71, 0.10]
    assert round(slope.item(), 2) == 0.77
    close((x.detach() + 0.36 * slope) / 0.8, share @ f64([-2, 0, 1]), 1e-9)
    assert round((share @ f64([-2, 0, 1])).item(), 2) == -0.28


def test_from_outside_the_late_field_leads_to_the_outline_only():
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        angle = 2 * math.pi * torch.rand(300, generator=generator).double()
        around = 3 * torch.stack([angle.cos(), angle.sin()], 1)
        drawing = shape_points("cat", 1500, generator).double()
        face = lambda x: (x[:, 0].abs() < 1) & (x[:, 1].abs() < 0.75)  # noqa: E731
        assert face(drawing).double().mean() > 0.2
        assert not face(FiniteSet(drawing).denoiser(TABLE)(around, 5 / T)).any()


def test_the_choice_is_made_in_a_quarter_of_the_chain(cells):
    known = load_images("mnist").images.float().div(127.5).sub(1)
    generator = torch.Generator().manual_seed(0)
    digits, eps = known[torch.randperm(10_000, generator=generator)[:100]], draws(100, 1, 28, 28).float()
    found = {}
    for t in (79, 80, 100, 130):
        w = FiniteSet(known).posterior(TABLE.add_noise(digits, t / T, eps), TABLE, t / T)
        found[t] = (-torch.special.xlogy(w, w).sum(1)).exp()
    assert (found[79] < 1.5).double().mean() > 0.6
    assert found[130].median() > 2000 and found[130].min() > 500
    assert found[100].quantile(0.1) < 3 and found[100].quantile(0.9) > 100
    said = dict(re.findall(r"t = +(\d+): effective images \(median\) ([\d,]+)", printed(cells["effective"])))
    assert said["60"] == said["80"] == "1" and said["200"] == "9,968"


def test_the_dial_shows_the_real_guess(cells):
    train, test = load_images("mnist"), load_images("mnist", split="test")
    known, strangers = (split.images.float().div(127.5).sub(1) for split in (train, test))
    names = {"torch": torch, "T": T, "schedule": TABLE, "FiniteSet": FiniteSet}
    names |= {"known": known, "strangers": strangers}
    exec(cells["dial"].source, names)
    source, digit, t, images, noise = names["knobs"]
    weights = lambda: [float(w) for w in re.findall(r"\d\.\d{3}", names["words"].value)]  # noqa: E731
    shown = lambda: bytes(names["picture"].value)  # noqa: E731

    first = shown()
    assert len(weights()) == 5 and sum(weights()) <= 1.001
    t.value = 120
    assert shown() != first and max(weights()) < 0.2
    source.value, digit.value, t.value = "training", 51, 60
    assert weights()[1] > 0.4, "two images share the weight, says the text before it"
    digit.value, t.value = 28, 40
    certain = shown()
    assert weights()[0] == 1
    noise.value = 1
    assert shown() != certain and weights()[0] == 1
    # among the first ten images there is no digit A, and with a hundred it is
    images.value = 10
    eps = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    seen = TABLE.add_noise(known[28:29], 40 / T, eps)
    exact = FiniteSet(known[:10]).posterior(seen, TABLE, 40 / T)[0].topk(5).values
    close(weights(), exact, 6e-4)
    few = shown()
    images.value = 100
    enough = shown()
    assert enough != few and weights()[0] == 1
    digit.value = 29
    assert shown() != enough


def test_what_the_prose_says_of_the_data_and_of_the_training(cells):
    images = load_images("mnist").images.flatten(1)
    assert (images == images[0]).all(0).sum() == 104 and images[:, (images == images[0]).all(0)].max() == 0
    assert "104 are black in all" in cells["finite"].source
    assert "seven or eight times" in cells["why-training"].source
    assert 7 < pretrained("mnist28").provenance["images_seen"] / 60_000 < 8
    assert "2.4 million weights" in cells["why-training"].source
    assert round(sum(p.numel() for p in pretrained("mnist28").denoiser().net.parameters()) / 1e5) == 24


def test_the_networks_digits_are_farther_from_the_training_images_than_test_digits(cells):
    rows = printed(cells["distances"]).splitlines()[1:]
    (mean, a, low, _), (others, b, lowest, _) = (
        [float(n) for n in re.findall(r"\d\.\d+", row)] for row in rows[1:]
    )
    assert mean - others > 3 * math.hypot(a, b) and low >= lowest
    assert re.findall(r"\d\.\d+", rows[0]) == ["0.000"] * 4


def test_the_perfect_denoiser_copies_and_the_network_does_not(cells):
    perfect, network = (line for line in printed(cells["ex-copies-solved"]).splitlines()[:2])
    assert "100% copies of 300" in perfect and ": 0% copies of 150" in network
    # all of n are copies: if 1 % were none, that would come one time in twenty
    assert round(0.99**300, 3) == 0.049


def test_the_network_errs_alike_on_old_and_new_digits_and_the_perfect_denoiser_does_not(cells):
    error = {}
    for line in printed(cells["curves-plot"]).splitlines()[1:]:
        where, who = line.split(" images, ")
        who, numbers = who.split(":")
        error[where.strip(), who.strip()] = tuple(map(float, numbers.split("±")))
    assert error["training", "10,000 points"][0] == 0
    ranks = [error["test", who] for who in ("network", "Gaussian", "10,000 points")]
    for (low, a), (high, b) in zip(ranks, ranks[1:], strict=False):
        assert high - low > 4 * math.hypot(a, b)
    (new, a), (old, b) = error["test", "network"], error["training", "network"]
    assert abs(new - old) < 2 * math.hypot(a, b)
    shares = {
        int(t): int(share)
        for t, share in re.findall(r"t = +(\d+): .* (\d+)% is floor", printed(cells["shares"]))
    }
    assert shares[20] == 0 and shares[60] < 5 and shares[120] > 95


def test_a_gaussian_says_the_mean_where_its_covariance_is_singular():
    # a row of the table of beliefs: as t -> 0 the guess is x only if S can be inverted
    flat, x = Gaussian(f64([0.5, -1.0]), f64([[1.0, 1.0], [1.0, 1.0]])), f64([[2.0, 3.0]])
    full = Gaussian(f64([0.5, -1.0]), f64([[1.0, 0.9], [0.9, 1.0]]))
    nearly = schedule.linear(T, 1e-9, 0.1)
    across = flat.denoiser(nearly)(x, 1 / T) - flat.mean
    close(across[0, 0] - across[0, 1], 0, 1e-9)
    close(full.denoiser(nearly)(x, 1 / T), x, 1e-6)


# --- exercises: right in another way, and nearly right


def score_by_formula(x, a, s, weights, means, stds):
    variance = a**2 * stds**2 + s**2
    pull = (a * means[None] - x[:, None]) / variance[None, :, None]
    density = weights * variance ** (-x.shape[1] / 2) * torch.exp(-(pull.square().sum(2)) * variance / 2)
    return torch.einsum("bk,bkd->bd", density / density.sum(1, keepdim=True), pull)


def score_in_loops(x, a, s, weights, means, stds):
    rows = []
    for point in x.tolist():
        total, sums = 0.0, [0.0] * len(point)
        for w, m, d in zip(weights.tolist(), means.tolist(), stds.tolist(), strict=True):
            variance = a * a * d * d + s * s
            away = [a * mi - xi for mi, xi in zip(m, point, strict=True)]
            chance = (
                w * math.exp(-sum(v * v for v in away) / (2 * variance)) / math.sqrt(variance) ** len(point)
            )
            total += chance
            sums = [u + chance * v / variance for u, v in zip(sums, away, strict=True)]
        rows.append([u / total for u in sums])
    return rows


def score_in_float32(*given):
    return score_by_formula(*(each.float() if torch.is_tensor(each) else each for each in given))


def denoiser_by_differences(x, points, a, s):
    logits = -(x[:, None] - a * points).square().sum(2).div_(2 * s**2)
    return torch.softmax(logits, 1) @ points


def denoiser_in_numpy(x, points, a, s):
    x, points = (each.numpy().astype(np.float64) for each in (x, points))
    logits = -((x[:, None] - a * points) ** 2).sum(2) / (2 * s**2)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights @ points / weights.sum(1, keepdims=True)


def denoiser_by_the_library(x, points, a, s):
    from ddpm_lib.schedule import Schedule

    flat = Schedule("one", lambda t: torch.full_like(t, 2 * math.log(a / s)))
    return FiniteSet(points).denoiser(flat)(x, 0.5)


def floor_in_numpy(x0, eps, a, s, guess):
    errors = ((guess(a * x0 + s * eps) - x0).numpy() ** 2).mean(1)
    return errors.mean(), errors.std(ddof=1) / np.sqrt(len(errors))


def floor_without_bessel(x0, eps, a, s, guess):
    wrong = guess((a * x0).add_(eps, alpha=s)) - x0
    errors = wrong.square().mean(1)
    return [errors.mean(), errors.std(unbiased=False) / len(errors) ** 0.5]


def copies_in_loops(samples, points, limit):
    found = 0
    for sample in samples:
        found += any((sample - point).square().mean() < limit**2 for point in points)
    return found / len(samples)


def copies_in_numpy(samples, points, limit):
    squares = ((samples.numpy()[:, None] - points.numpy()) ** 2).mean(-1)
    return (squares.min(1) ** 0.5 < limit).mean()


@pytest.mark.parametrize(
    ("name", "attempt"),
    [
        ("score.mixture", score_by_formula),
        ("score.mixture", score_in_loops),
        ("score.mixture", score_in_float32),
        ("softmax.stable", denoiser_by_differences),
        ("softmax.stable", denoiser_in_numpy),
        ("softmax.stable", denoiser_by_the_library),
        ("floor.monte_carlo", floor_in_numpy),
        ("floor.monte_carlo", floor_without_bessel),
        ("softmax.duplicates", (3 / 4, 0.5, -0.586)),
        ("softmax.duplicates", [f64(0.75), np.float32(0.5), -0.585927]),
        ("copies.count", copies_in_loops),
        ("copies.count", copies_in_numpy),
    ],
)
def test_the_same_thing_written_differently_is_correct(name, attempt):
    for _ in range(3):
        verdict = check(name, attempt)
        assert verdict, verdict


def denoiser_in_float32(x, points, a, s):
    """Stable, but the expanded square loses its digits at small s."""
    return torch.softmax((a * x @ points.T - a**2 / 2 * points.square().sum(1)) / s**2, 1) @ points


def score_twice_as_long(*given):
    return 2 * score_by_formula(*given)


def score_of_the_plane(x, a, s, weights, means, stds):
    """As it is in two dimensions: the factor in front of the exponential is one over the variance."""
    variance = a**2 * stds**2 + s**2
    pull = (a * means - x[:, None]) / variance[:, None]
    density = weights / variance * torch.exp(-pull.square().sum(2) * variance / 2)
    return (density[..., None] * pull).sum(1) / density.sum(1, keepdim=True)


def copies_by_pairs(samples, points, limit):
    near = torch.cdist(samples, points) / samples.shape[1] ** 0.5 < limit
    return near.sum() / len(samples)


def floor_of_the_noise(x0, eps, a, s, guess):
    x = a * x0 + s * eps
    errors = ((x - a * guess(x)) / s - eps).square().mean(1)
    return errors.mean(), errors.std() / len(errors) ** 0.5


@pytest.mark.parametrize(
    ("name", "attempt", "says"),
    [
        ("score.mixture", score_twice_as_long, "2 times what it should be"),
        ("score.mixture", lambda x, *rest: score_by_formula(x, *rest).sum(1), "shape"),
        ("score.mixture", score_of_the_plane, "D = 2"),
        ("softmax.stable", denoiser_in_float32, "lost to rounding"),
        ("softmax.stable", lambda x, points, a, s: denoiser_by_differences(x, points, 1.0, s), ""),
        ("floor.monte_carlo", floor_of_the_noise, ""),
        ("floor.monte_carlo", lambda *given: floor_in_numpy(*given)[0], "2 values"),
        ("softmax.duplicates", (0.75, 0.5, -0.6), ""),
        ("softmax.duplicates", (0.75, 0.5, -0.549), ""),
        ("copies.count", lambda samples, points, limit: 1.0, ""),
        ("copies.count", copies_by_pairs, "one sample"),
        ("copies.count", lambda *given: copies_in_loops(*given[:2], 1.3 * given[2]), ""),
    ],
)
def test_a_near_miss_is_not_correct(name, attempt, says):
    verdict = check(name, attempt)
    assert verdict.status == "not yet" and says in verdict.text
