"""Chapter 1: the code that it writes out is the library's, and its equations are true."""

from __future__ import annotations

import pytest
import torch
from conftest import cells_of

from ddpm_lib import chain, sampling, schedule
from ddpm_lib.toy import FiniteSet, shape_points

BETAS = (200, 0.0005, 0.1)


@pytest.fixture(scope="module")
def cells() -> dict[str, str]:
    return {name: cell.source for name, cell in cells_of("01_from_noise_to_a_picture").items()}


@pytest.fixture(scope="module")
def book(cells) -> dict:
    """What the cells that define functions leave behind, in the order of the chapter."""
    names = {"torch": torch, "T": 200}
    for name in ("tables", "add-noise", "best-guess", "posterior", "the-loop"):
        exec(cells[name], names)
    return names


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def draws(*shape: int, count: int = 3, seed: int = 0) -> tuple[torch.Tensor, ...]:
    return torch.randn(
        count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).unbind(0)


def test_the_loop_stands_alone(cells):
    alone = {}
    exec(cells["the-loop"], alone)
    assert {"add_noise", "noise_in", "step_back", "draw", "alpha_bar"} <= set(alone)
    assert len(cells["the-loop"].strip().splitlines()) <= 45


def test_the_loop_repeats_the_cells_before_it(cells, book):
    for name in ("tables", "add-noise", "step-back"):
        earlier = {"torch": torch, **({} if name == "tables" else book)}
        exec(cells[name], earlier)
        for function in ("add_noise", "noise_in", "step_back"):
            if f"def {function}" in cells[name]:
                x, y, z = draws(4, 2)
                arguments = (
                    (x, 50, y) if function == "add_noise" else (x, y, 50, z)[: 4 if "step" in function else 3]
                )
                assert earlier[function](*arguments).equal(book[function](*arguments))
        for table in ("beta", "alpha"):
            assert earlier[table].equal(book[table])


def test_tables_are_the_librarys(book):
    reference = chain.linear(*BETAS)
    assert len(book["beta"]) == book["T"] + 1
    for name in ("beta", "alpha", "alpha_bar"):
        torch.testing.assert_close(book[name], getattr(reference, name), atol=1e-12, rtol=0)


@pytest.mark.equation("eq-noising")
@pytest.mark.parametrize("t", [1, 2, 50, 199, 200])
def test_eq_noising_is_the_librarys(book, t):
    x0, eps, _ = draws(5, 1, 4, 4)
    ours = book["add_noise"](x0, t, eps)
    torch.testing.assert_close(ours, chain.linear(*BETAS).add_noise(x0, t, eps), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours, schedule.linear(*BETAS).add_noise(x0, t / 200, eps), atol=1e-6, rtol=0)


@pytest.mark.equation("eq-posterior")
@pytest.mark.parametrize("t", [1, 2, 50, 199, 200])
def test_eq_posterior_is_the_librarys(book, t):
    x_t, x0, _ = draws(5, 2)
    for ours, theirs in zip(
        book["between"](x_t, x0, t), chain.linear(*BETAS).posterior(x_t, x0, t), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.equation("eq-reverse")
@pytest.mark.parametrize("t", [1, 2, 50, 199, 200])
def test_eq_reverse_is_the_librarys(book, t):
    x_t, eps, z = draws(5, 2)
    expected = chain.linear(*BETAS).step(x_t, eps, t, z, variance="beta")
    torch.testing.assert_close(book["step_back"](x_t, eps, t, z), expected, atol=1e-6, rtol=0)


@pytest.mark.equation("eq-noise-in")
@pytest.mark.parametrize("t", [1, 50, 200])
def test_eq_noise_in_undoes_the_jump(book, t):
    x0, eps, _ = draws(5, 2)
    torch.testing.assert_close(book["noise_in"](book["add_noise"](x0, t, eps), x0, t), eps, atol=1e-6, rtol=0)


@pytest.mark.equation("eq-guess")
@pytest.mark.parametrize("t", [1, 20, 100, 200])
def test_eq_guess_is_the_exact_denoiser(book, t):
    cat = shape_points("cat", 300, torch.Generator().manual_seed(1)).double()
    x, _, _ = draws(40, 2)
    exact = FiniteSet(cat).denoiser(schedule.linear(*BETAS))(x, t / 200)
    torch.testing.assert_close(book["best_guess"](x, t, cat), exact, atol=1e-6, rtol=0)


def test_the_whole_loop_is_ddpm(book, float64):
    cat = shape_points("cat", 200, torch.Generator().manual_seed(1)).double()
    noise, _, _ = draws(30, 2, seed=2)
    film = book["draw"](lambda x, t: book["best_guess"](x, t, cat), noise, torch.Generator().manual_seed(3))
    world, table = FiniteSet(cat), schedule.linear(*BETAS)
    steps = sampling.ddpm(
        world.denoiser(table), noise, table, table.times(200), "beta", torch.Generator().manual_seed(3)
    )
    for step in steps:
        torch.testing.assert_close(film[200 - step.index], step.x, atol=1e-6, rtol=0)
    assert sorted(film) == list(range(201))


def test_same_noise_gives_the_batch_one_z(book):
    film = book["draw"](
        lambda x, t: 0 * x, torch.zeros(6, 2), torch.Generator().manual_seed(4), same_noise=True
    )
    assert film[50].equal(film[50][:1].expand(6, 2)) and film[50].abs().min() > 0


@pytest.mark.equation("eq-one-step", "eq-variance-kept")
def test_eq_one_step_keeps_variance_one(book):
    n = 200_000
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, generator=generator)
    for t in (1, 100, 200):
        assert abs(book["push"](x, t, generator).var() - 1) < 4 * (2 / n) ** 0.5


@pytest.mark.equation("eq-one-step", "eq-alpha-bar", "eq-noising")
def test_pushes_with_the_same_noise_make_one_jump(book):
    x0, *noises = draws(5, 2, count=41)
    x, weights = x0, torch.zeros(41, dtype=torch.float64)
    for t, eps in enumerate(noises, 1):
        share = 1 - book["beta"][t]
        x = share.sqrt() * x + book["beta"][t].sqrt() * eps
        weights = share.sqrt() * weights
        weights[t] = book["beta"][t].sqrt()
    bar = (1 - book["beta"][1:41]).prod()
    torch.testing.assert_close(book["alpha_bar"][40], bar, rtol=0, atol=1e-12)
    # the pushes' noises, each with the weight that reached step 40, are one noise of variance 1 - alpha_bar
    assert weights.square().sum().item() == pytest.approx(1 - bar.item(), abs=1e-12)
    eps = sum(weights[t] * noise for t, noise in enumerate(noises, 1)) / weights.norm()
    torch.testing.assert_close(x, book["add_noise"](x0, 40, eps), rtol=0, atol=1e-12)


@pytest.mark.equation("eq-weights", "eq-guess")
@pytest.mark.parametrize("t", [5, 60, 200])
def test_the_guess_is_bayes_rule_with_the_densities_written_out(book, t):
    points, x, _ = draws(7, 2)
    a, variance = book["alpha_bar"][t].sqrt(), 1 - book["alpha_bar"][t]
    noisy = torch.distributions.MultivariateNormal(a * points, variance * torch.eye(2, dtype=torch.float64))
    density = noisy.log_prob(x[:, None]).exp()
    weights = density / density.sum(1, keepdim=True)
    torch.testing.assert_close(book["best_guess"](x, t, points), weights @ points, rtol=0, atol=1e-10)


@pytest.mark.equation("eq-tanh")
@pytest.mark.parametrize("t", [2, 50, 200])
def test_two_numbers_make_a_tanh(book, t):
    x, _, _ = draws(40, 1)
    by_hand = torch.tanh(book["alpha_bar"][t].sqrt() * x / (1 - book["alpha_bar"][t]))
    two = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(book["best_guess"](x, t, two), by_hand, rtol=0, atol=1e-10)


@pytest.mark.equation("eq-posterior")
@pytest.mark.parametrize("t", [2, 60, 200])
def test_the_step_back_is_bayes_rule_on_a_grid(book, t):
    x0, x_t = torch.tensor([0.8, -0.3], dtype=torch.float64)
    grid = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    normal = torch.distributions.Normal
    bar, step = book["alpha_bar"][t - 1], book["beta"][t]
    p = normal(bar.sqrt() * x0, (1 - bar).sqrt()).log_prob(grid)
    p = torch.softmax(p + normal((1 - step).sqrt() * grid, step.sqrt()).log_prob(x_t), 0)
    mean, variance = book["between"](x_t, x0, t)
    assert (p * grid).sum().item() == pytest.approx(mean.item(), abs=1e-8)
    assert (p * (grid - mean).square()).sum().item() == pytest.approx(variance.item(), abs=1e-8)


def test_the_misprint_fails_its_check(cells, book):
    printed = []
    names = dict(book, print=lambda *values: printed.append(" ".join(map(str, values))))
    exec(
        "def add_noise_misprint" + cells["bug-symptom"].split("def add_noise_misprint")[1].split("\n\n")[0],
        names,
    )
    exec(cells["bug-check"], names)
    assert sum("FAILS" in line for line in printed) == 3
    assert all("FAILS" in line for line in printed[1:4])
