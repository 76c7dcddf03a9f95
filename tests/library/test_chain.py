"""The discrete chain, against Bayes' rule, exact recursions and the papers' numbers."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import close, f64
from hypothesis import given
from hypothesis import strategies as st

from ddpm_lib import chain as chains
from ddpm_lib.chain import CHAINS, Chain

EVERY = {
    "linear": chains.linear(1000),
    "linear, short": chains.linear(7, 0.01, 0.5),
    "one step": chains.linear(1, 0.3, 0.3),
    "cosine": chains.cosine(1000),
    "cosine, short": chains.cosine(10),
    "sigmoid": chains.sigmoid(1000),
    "zero terminal": chains.rescale_zero_terminal(chains.linear(50)),
}
every = pytest.mark.parametrize("chain", EVERY.values(), ids=EVERY.keys())


@st.composite
def random_chains(draw, most: float = 0.99):
    betas = draw(st.lists(st.floats(1e-4, most), min_size=1, max_size=12))
    return Chain(torch.tensor([0.0, *betas], dtype=torch.float64))


@every
def test_tables_have_a_clean_entry_and_agree(chain):
    assert len(chain.beta) == len(chain.alpha) == len(chain.alpha_bar) == chain.steps + 1
    assert chain.beta[0] == 0 and chain.alpha[0] == 1 and chain.alpha_bar[0] == 1
    assert chain.beta.dtype == chain.alpha_bar.dtype == torch.float64
    product = 1.0
    for t in range(1, chain.steps + 1):
        product *= 1 - float(chain.beta[t])
        assert float(chain.alpha_bar[t]) == pytest.approx(product, rel=1e-12, abs=1e-300)


def test_linear_betas_are_the_papers():
    chain = chains.linear()
    assert chain.steps == 1000
    assert float(chain.beta[1]) == 1e-4 and float(chain.beta[1000]) == 0.02
    close(chain.beta[1:].diff(), (0.02 - 1e-4) / 999, 1e-15)
    # the number that everyone who coded DDPM knows
    assert float(chain.alpha_bar[1000]) == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize(("steps", "left"), [(50, 0.78), (200, 0.36), (300, 0.22), (1000, 0.006)])
def test_signal_left_at_the_end_of_short_linear_chains(steps, left):
    amplitude = float(chains.linear(steps).alpha_bar[-1].sqrt())
    assert round(amplitude, 3 if left < 0.01 else 2) == left


@pytest.mark.parametrize("steps", [10, 200, 1000])
def test_cosine_is_equation_17(steps):
    chain, offset = chains.cosine(steps), 0.008

    def f(t):
        return math.cos((t / steps + offset) / (1 + offset) * math.pi / 2) ** 2

    betas = [min(1 - f(t) / f(t - 1), 0.999) for t in range(1, steps + 1)]
    close(chain.beta[1:], betas, 1e-12)
    # only the last beta is cut off, so that before it the closed form holds
    close(chain.alpha_bar[:-1], [f(t) / f(0) for t in range(steps)], 1e-12)
    assert chain.beta[-1] == 0.999 and (chain.beta[1:-1] < 0.999).all()


def test_sigmoid_is_algorithm_1():
    start, end, tau, steps = -2.0, 4.0, 0.7, 40
    chain = chains.sigmoid(steps, start, end, tau)

    def sigma(x):
        return 1 / (1 + math.exp(-x))

    low, high = sigma(start / tau), sigma(end / tau)
    gamma = [(high - sigma((t / steps * (end - start) + start) / tau)) / (high - low) for t in range(steps)]
    close(chain.alpha_bar[:-1], gamma, 1e-12)
    assert 0 < float(chain.alpha_bar[-1]) < 0.002


@given(random_chains(), st.floats(-3, 3))
def test_steps_composed_are_the_closed_form(chain, x0):
    # q(x_t | x_{t-1}) = N(sqrt(alpha) x, beta): its mean and variance, one step after another
    mean, variance = x0, 0.0
    for t in range(1, chain.steps + 1):
        mean = math.sqrt(float(chain.alpha[t])) * mean
        variance = float(chain.alpha[t]) * variance + float(chain.beta[t])
        x, zero, one = (torch.full((1, 1), value, dtype=torch.float64) for value in (x0, 0.0, 1.0))
        close(chain.add_noise(x, t, zero), mean)
        close((chain.add_noise(x, t, one) - chain.add_noise(x, t, zero)).square(), variance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_add_noise_takes_a_time_for_each_image(dtype):
    chain = chains.linear()
    x0, eps = torch.randn(2, 4, 3, 5, 5, dtype=dtype)
    t = torch.tensor([0, 1, 500, 1000])
    x_t = chain.add_noise(x0, t, eps)
    assert x_t.dtype == dtype and x_t.shape == x0.shape
    for i, step in enumerate(t.tolist()):
        bar = float(chain.alpha_bar[step])
        wanted = math.sqrt(bar) * x0[i].double() + math.sqrt(1 - bar) * eps[i].double()
        close(x_t[i], wanted, 1e-6 if dtype == torch.float32 else 1e-14)
    assert torch.equal(x_t[0], x0[0])
    assert torch.equal(chain.add_noise(x0, 500, eps)[2], x_t[2])


def test_noise_scale_keeps_its_digits_in_float32():
    noise = chains.linear().add_noise(torch.zeros(1, 1), 1, torch.ones(1, 1))
    assert float(noise) == pytest.approx(0.01, rel=2e-7)


@given(random_chains(), st.floats(-1, 1), st.floats(-2, 2), st.data())
def test_posterior_is_the_product_of_two_gaussians(chain, x0, x_t, data):
    t = data.draw(st.integers(1, chain.steps))
    mean, variance = chain.posterior(f64([x_t]), f64([x0]), t)
    if t == 1:
        # q(x_0 | x_1, x_0) is a point
        close(mean, [x0])
        assert variance == 0
        return
    # prior q(x_{t-1} | x_0), likelihood q(x_t | x_{t-1}), both Gaussian in x_{t-1}: precisions add
    bar, alpha, beta = float(chain.alpha_bar[t - 1]), float(chain.alpha[t]), float(chain.beta[t])
    precision = 1 / (1 - bar) + alpha / beta
    wanted = (math.sqrt(bar) * x0 / (1 - bar) + math.sqrt(alpha) * x_t / beta) / precision
    close(mean, [wanted])
    close(variance, 1 / precision)


@pytest.mark.parametrize("t", [2, 3, 5, 7])
def test_posterior_is_bayes_on_a_grid(t):
    chain = EVERY["linear, short"]
    x0, x_t = 0.4, -0.7
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)

    def log_normal(x, mean, variance):
        return -((x - mean) ** 2) / (2 * variance)

    bar, alpha, beta = (
        float(table[i]) for table, i in ((chain.alpha_bar, t - 1), (chain.alpha, t), (chain.beta, t))
    )
    joint = log_normal(grid, math.sqrt(bar) * x0, 1 - bar) + log_normal(x_t, math.sqrt(alpha) * grid, beta)
    weight = joint.softmax(0)
    grid_mean = (weight * grid).sum()
    grid_variance = (weight * (grid - grid_mean).square()).sum()
    mean, variance = chain.posterior(f64([x_t]), f64([x0]), t)
    close(mean, grid_mean[None])
    close(variance, grid_variance)


@every
@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_step_is_the_posterior_mean_plus_noise(chain, variance):
    x, eps, z = torch.randn(3, 4, 2, 3, 3, dtype=torch.float64)
    last = chain.steps - 1 if chain.alpha_bar[-1] == 0 else chain.steps
    for t in {1, min(2, last), (last + 1) // 2, last}:
        bar = float(chain.alpha_bar[t])
        x0 = (x - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        mean, beta_tilde = chain.posterior(x, x0, t)
        sigma2 = float(chain.beta[t]) if variance == "beta" else float(beta_tilde)
        wanted = mean if t == 1 else mean + math.sqrt(sigma2) * z
        scale = 1 / math.sqrt(float(chain.alpha[t]))
        close(chain.step(x, eps, t, z, variance) / scale, wanted / scale)


def test_step_is_the_notes_formula():
    """new_x = 1 / sqrt(alpha) (x - (1 - alpha) / sqrt(1 - alpha_hat) eps) + sqrt(beta) noise."""
    chain = chains.linear()
    x, eps, z = torch.randn(3, 8, dtype=torch.float64)
    for t in (2, 400, 1000):
        alpha, alpha_hat, beta = chain.alpha[t], chain.alpha_bar[t], chain.beta[t]
        new_x = 1 / alpha.sqrt() * (x - ((1 - alpha) / (1 - alpha_hat).sqrt()) * eps) + beta.sqrt() * z
        close(chain.step(x, eps, t, z), new_x, 1e-12)


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_the_last_step_adds_no_noise(variance):
    chain, (x, eps, z) = chains.linear(), torch.randn(3, 6)
    assert torch.equal(chain.step(x, eps, 1, z, variance), chain.step(x, eps, 1, 100 * z, variance))
    assert torch.equal(chain.step(x, eps, 1, z, variance), chain.step(x, eps, 1, None, variance))
    # the true noise leads back to the true image
    x0 = torch.rand(6)
    close(chain.step(chain.add_noise(x0, 1, eps), eps, 1), x0, 1e-6)
    with pytest.raises(ValueError, match="pass z"):
        chain.step(x, eps, 2)


def test_a_reverse_step_with_the_true_noise_keeps_the_law():
    """Variances by recursion, no sampling: what is left of the noise, plus the fresh noise."""
    chain = chains.linear(200)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for t in range(2, 201):
        s = (1 - chain.alpha_bar[t]).sqrt()
        left = chain.step(s * one, one, t, zero)
        fresh = {v: chain.step(zero, zero, t, one, v) for v in ("posterior", "beta")}
        close(left**2 + fresh["posterior"] ** 2, (1 - chain.alpha_bar[t - 1])[None], 1e-12)
        # DDPM's other choice is right for data that is itself standard normal, and adds more here
        close(fresh["beta"] ** 2, chain.beta[t][None], 1e-12)
        assert fresh["beta"] > fresh["posterior"]


@pytest.mark.parametrize("chain", [chains.linear(20), chains.linear(1000), chains.cosine(100)])
def test_rescaling_ends_at_exactly_zero(chain):
    rescaled = chains.rescale_zero_terminal(chain)
    assert rescaled.steps == chain.steps
    assert rescaled.alpha_bar[-1] == 0 and rescaled.beta[-1] == 1
    close(rescaled.alpha_bar[1], chain.alpha_bar[1], 1e-14)
    # the square roots are shifted and scaled by the same numbers: straight lines of each other
    old, new = chain.alpha_bar[1:].sqrt(), rescaled.alpha_bar[1:].sqrt()
    slope = (new[0] - new[-1]) / (old[0] - old[-1])
    close(new - new[-1], slope * (old - old[-1]), 1e-12)
    close(chains.rescale_zero_terminal(rescaled).alpha_bar, rescaled.alpha_bar, 1e-12)


def test_posterior_works_where_no_signal_is_left_but_eps_cannot():
    chain = EVERY["zero terminal"]
    x, x0 = torch.randn(2, 5, dtype=torch.float64)
    mean, variance = chain.posterior(x, x0, 50)
    # x_T is independent of x_0, so the posterior is q(x_{T-1} | x_0)
    close(mean, chain.alpha_bar[49].sqrt() * x0)
    close(variance, 1 - chain.alpha_bar[49])
    with pytest.raises(ValueError, match="no image can be recovered"):
        chain.step(x, x, 50, x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Chain(torch.tensor([0.1, 0.2])), "must be 0"),
        (lambda: Chain(torch.tensor([0.0])), "T >= 1"),
        (lambda: Chain(torch.zeros(2, 2)), "vector"),
        (lambda: Chain(torch.tensor([0.0, 0.0])), r"\(0, 1\]"),
        (lambda: Chain(torch.tensor([0.0, 1.1])), r"\(0, 1\]"),
        (lambda: Chain(torch.tensor([0.0, -0.1])), r"\(0, 1\]"),
        (lambda: Chain(torch.tensor([0.0, math.nan])), r"\(0, 1\]"),
        (lambda: chains.linear(0), "at least 1 step"),
        (lambda: chains.cosine(-3), "at least 1 step"),
        (lambda: chains.sigmoid(2.5), "at least 1 step"),
    ],
)
def test_impossible_chains_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("t", [-1, 11, 0.5, torch.tensor([3, 11]), torch.tensor([0.5])])
def test_times_off_the_chain_are_refused(t):
    chain, x = chains.linear(10), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="from 0 to 10"):
        chain.add_noise(x, t, x)
    with pytest.raises(ValueError, match="from 1 to 10"):
        chain.posterior(x, x, t)


def test_no_reverse_step_from_the_clean_image():
    chain, x = chains.linear(10), torch.zeros(2, 3)
    for call in (lambda: chain.posterior(x, x, 0), lambda: chain.step(x, x, 0, x)):
        with pytest.raises(ValueError, match="from 1 to 10"):
            call()
    with pytest.raises(ValueError, match="'beta' or 'posterior'"):
        chain.step(x, x, 3, x, "bta")


def test_posterior_takes_a_time_for_each_image():
    chain, (x, x0) = chains.linear(10), torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    t = torch.tensor([1, 5, 10])
    mean, variance = chain.posterior(x, x0, t)
    for i, step in enumerate(t.tolist()):
        one_mean, one_variance = chain.posterior(x[i : i + 1], x0[i : i + 1], step)
        close(mean[i : i + 1], one_mean)
        close(variance[i].squeeze(), one_variance)


@pytest.mark.parametrize("name", CHAINS)
def test_every_named_chain_noises_more_and_more(name):
    bar = CHAINS[name](300).alpha_bar
    assert (bar.diff() < 0).all() and 0 <= bar[-1] < 0.3
