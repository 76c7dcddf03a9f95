"""The exact worlds against autograd, quadrature and Monte Carlo; the shapes and the small network."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import close, f64
from torch import nn

from ddpm_lib import schedule as schedules
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.sampling import ddim, last
from ddpm_lib.toy import LARGEST_TABLE, MLP, SHAPES, FiniteSet, Gaussian, Mixture, shape_points
from ddpm_lib.training import EMA, TrainConfig, train

PATHS = {"vp": schedules.cosine(), "flow": schedules.flow(), "ve": schedules.edm()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian() -> Gaussian:
    return Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 0.5]]))


def mixture() -> Mixture:
    return Mixture(
        torch.tensor([0.2, 0.5, 0.3]),
        torch.tensor([[-1.0, 0], [1, 1], [0.5, -2]]),
        torch.tensor([0.3, 0.1, 0.5]),
    )


def finite() -> FiniteSet:
    return FiniteSet(torch.randn(7, 2, generator=generator(1)))


WORLDS = {"gaussian": gaussian, "mixture": mixture, "finite": finite}


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param]()


@pytest.fixture(params=PATHS)
def schedule(request):
    return PATHS[request.param]


@pytest.mark.parametrize("t", [0.05, 0.4, 0.95])
def test_denoiser_is_tweedies_formula_of_the_autograd_score(world, schedule, t):
    a, s = schedule.signal_noise(t)
    x = a * world.sample(20, generator(2)).double() + s * torch.randn(20, 2, generator=generator(3))
    x.requires_grad_()
    (score,) = torch.autograd.grad(world.log_prob(x, schedule, t).sum(), x)
    expected = (x + s**2 * score) / a
    torch.testing.assert_close(world.denoiser(schedule)(x, t), expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(world.score(x, schedule, t), score, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_log_prob_integrates_to_one_and_denoiser_to_the_mean(schedule, t):
    # E[E[x_0 | x_t]] = E[x_0], both sides by quadrature over x_t in one dimension
    world = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [0.8]]), torch.tensor([0.2, 0.4]))
    a, s = (float(value) for value in schedule.signal_noise(t))
    half = 3 * a + 9 * s
    x = torch.linspace(-half, half, 20_001, dtype=torch.float64)[:, None]
    density = world.log_prob(x, schedule, t).exp() * (2 * half / 20_000)
    assert density.sum().item() == pytest.approx(1, abs=1e-6)
    assert (density[:, None] * world.denoiser(schedule)(x, t)).sum().item() == pytest.approx(0.26, abs=1e-6)


def test_denoiser_is_the_best_guess_by_monte_carlo(world, schedule):
    # The error of the best guess is uncorrelated with every function of x_t: here with 1, x and tanh(x).
    n, t = 100_000, 0.45
    x0 = world.sample(n, generator(4))
    x = schedule.add_noise(x0, t, torch.randn(n, 2, generator=generator(5)))
    error = world.denoiser(schedule)(x, t) - x0
    for of_x in (torch.ones_like(x), x, torch.tanh(x)):
        product = (error * of_x).double()
        assert (product.mean(0).abs() < 4 * product.std(0) / n**0.5).all()


def test_samples_have_the_law_that_log_prob_states(world):
    # At a time with noise of its own, so that the finite set has a density too.
    schedule, t, n = PATHS["vp"], 0.5, 50_000
    x = schedule.add_noise(world.sample(n, generator(6)), t, torch.randn(n, 2, generator=generator(7)))
    inside = ((x - 0.2).abs() < 0.7).all(1).double().mean()
    side = torch.linspace(-0.5, 0.9, 400, dtype=torch.float64)
    step = side[1] - side[0]
    middles = torch.cartesian_prod(side[:-1] + step / 2, side[:-1] + step / 2)
    expected = world.log_prob(middles, schedule, t).exp().sum() * step**2
    assert abs(inside - expected) < 4 * (expected * (1 - expected) / n).sqrt() + 1e-4


def test_denoiser_takes_a_time_for_each_point(world, schedule):
    x, t = torch.randn(4, 2, generator=generator(8)), torch.tensor([0.1, 0.4, 0.7, 1.0])
    denoise = world.denoiser(schedule)
    one_by_one = torch.cat([denoise(x[i : i + 1], float(t[i])) for i in range(4)])
    torch.testing.assert_close(denoise(x, t), one_by_one, atol=1e-6, rtol=1e-5)


def test_denoiser_is_finite_at_both_ends(world, schedule):
    x = torch.randn(5, 2, generator=generator(9)) * 2
    for t in (0.0, 1e-9, 1 - 1e-9, 1.0):
        assert world.denoiser(schedule)(x, t).isfinite().all()


def test_denoiser_answers_with_x_where_there_is_no_noise():
    x = torch.randn(5, 2, generator=generator(9))
    for world in (gaussian(), mixture()):
        torch.testing.assert_close(world.denoiser(PATHS["flow"])(x, 0.0), x, atol=1e-5, rtol=1e-5)


def test_denoiser_answers_with_the_mean_where_nothing_is_left():
    for world, mean in ((gaussian(), gaussian().mean), (finite(), finite().means.mean(0))):
        answer = world.denoiser(PATHS["flow"])(torch.randn(5, 2, generator=generator(9)), 1.0)
        torch.testing.assert_close(answer, mean.float().expand(5, 2))


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.001, 0.01, 0.3, 1.0])
def test_finite_set_in_float32_equals_float64(schedule, t):
    # With 784 coordinates the squared distances are large, and float32 would lose the differences between them.
    points = torch.rand(300, 1, 28, 28, generator=generator(10)) * 2 - 1
    world, eps = FiniteSet(points), torch.randn(16, 1, 28, 28, generator=generator(11))
    x = schedule.add_noise(points[:16], t, eps)
    a, s = (value.double() for value in schedule.signal_noise(t))
    distance2 = ((x.double()[:, None] - a * points.double()) ** 2).flatten(2).sum(2)
    logits = -(distance2 - distance2.min(1, keepdim=True).values) / (2 * s**2).clamp(min=1e-300)
    expected = torch.einsum("bn,nchw->bchw", torch.softmax(logits, 1), points.double())
    answer = world.denoiser(schedule)(x, t)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer.double(), expected, atol=2e-6, rtol=0)


def test_finite_set_goes_through_a_large_batch_in_pieces():
    world = FiniteSet(torch.randn(100_000, 2, generator=generator(12)))
    x = torch.randn(100, 2, generator=generator(13))
    assert len(x) * len(world.means) > 2 * LARGEST_TABLE
    together = world.denoiser(PATHS["vp"])(x, torch.linspace(0.1, 1, 100))
    apart = torch.cat(
        [world.denoiser(PATHS["vp"])(x[i : i + 1], 0.1 + 0.9 * i / 99) for i in range(0, 100, 33)]
    )
    torch.testing.assert_close(together[::33], apart, atol=1e-5, rtol=1e-5)


def test_two_points_are_a_tanh():
    x, schedule = torch.linspace(-3, 3, 31, dtype=torch.float64)[:, None], PATHS["vp"]
    a, s = schedule.signal_noise(0.4)
    two = FiniteSet(torch.tensor([[-1.0], [1.0]]))
    torch.testing.assert_close(two.denoiser(schedule)(x, 0.4), torch.tanh(a * x / s**2), atol=1e-12, rtol=0)


def test_posterior_sums_to_one_and_makes_the_denoiser():
    world, x = finite(), torch.randn(9, 2, generator=generator(14), dtype=torch.float64)
    weights = world.posterior(x, PATHS["ve"], 0.4)
    torch.testing.assert_close(weights.sum(1), torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close(weights @ world.means, world.denoiser(PATHS["ve"])(x, 0.4))


def test_a_mixture_of_one_is_a_gaussian(schedule):
    one = Mixture(torch.ones(1), torch.tensor([[0.3, -0.2]]), 0.7)
    same = Gaussian(torch.tensor([0.3, -0.2]), 0.49)
    x = torch.randn(6, 2, generator=generator(15), dtype=torch.float64)
    torch.testing.assert_close(one.log_prob(x, schedule, 0.3), same.log_prob(x, schedule, 0.3))
    torch.testing.assert_close(one.denoiser(schedule)(x, 0.3), same.denoiser(schedule)(x, 0.3))


def test_gaussian_samples_have_its_moments():
    world, n = gaussian(), 100_000
    x = world.sample(n, generator(16)).double()
    deviation = (x - world.mean)[:, :, None] * (x - world.mean)[:, None]
    assert ((x.mean(0) - world.mean).abs() < 4 * x.std(0) / n**0.5).all()
    assert ((deviation.mean(0) - world.covariance).abs() < 4 * deviation.std(0) / n**0.5).all()


def test_gaussian_flow_is_what_many_small_ddim_steps_reach(schedule):
    world, times = gaussian(), torch.linspace(0.9, 0.1, 4001, dtype=torch.float64)
    if schedule.steps:
        times = (times * schedule.steps).round().unique().flip(0) / schedule.steps
    a, s = schedule.signal_noise(0.9)
    x = a * world.mean + (a**2 + s**2).sqrt() * torch.randn(
        8, 2, generator=generator(17), dtype=torch.float64
    )
    reached = last(ddim(world.denoiser(schedule), x, schedule, times))
    exact = world.flow(x, schedule, 0.9, 0.1)
    # Euler's error falls with the step: 800 knots on the chain, 4,000 elsewhere
    assert (reached - exact).abs().max() < (2e-2 if schedule.steps else 4e-3)
    torch.testing.assert_close(world.flow(exact, schedule, 0.1, 0.9), x)


# --- a Gaussian that was observed

EYE = torch.eye(2, dtype=torch.float64)

LOOKS = {
    "one number": ([[0.7, -0.4]], [0.9], 0.3),
    "both": ([[1.0, 0.0], [0.5, 2.0]], [0.2, -1.5], 0.5),
    "more than there are": ([[1.0, 0.2], [0.3, 1.0], [1.0, 1.0]], [0.1, -0.8, 0.4], 0.6),
}


@pytest.fixture(params=LOOKS)
def look(request):
    matrix, observation, std = LOOKS[request.param]
    return f64(matrix), f64(observation), std


def on_a_grid(log_density) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points of a fine grid in the plane, and mean and covariance of a law given by its log density there."""
    side = torch.linspace(-7, 7, 701, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    p = torch.softmax(log_density(points), 0)
    mean = p @ points
    return p, mean, ((points - mean) * p[:, None]).T @ (points - mean)


def test_a_gaussian_given_an_observation_is_bayes_rule_on_a_grid(look):
    matrix, y, std = look
    prior = torch.distributions.MultivariateNormal(gaussian().mean, gaussian().covariance)
    _, mean, covariance = on_a_grid(
        lambda x: prior.log_prob(x) - (y - x @ matrix.T).square().sum(1) / (2 * std**2)
    )
    world = gaussian().given(matrix, y, std)
    close(world.mean, mean, 1e-8)
    close(world.covariance, covariance, 1e-8)


def test_a_gaussian_given_an_observation_adds_precisions(look):
    matrix, y, std = look
    prior, world = gaussian(), gaussian().given(*look)
    precision = prior.covariance.inverse() + matrix.T @ matrix / std**2
    close(world.covariance.inverse(), precision, 1e-9)
    close(precision @ world.mean, prior.covariance.inverse() @ prior.mean + matrix.T @ y / std**2, 1e-9)


@pytest.mark.parametrize("t", [0.2, 0.6])
def test_an_observed_gaussian_is_a_world(look, schedule, t):
    # its denoiser is E[x_0 | x_t, y], its score that of q(x_t | y): both by Bayes' rule on a grid of x_0
    matrix, y, std = look
    prior, world = gaussian(), gaussian().given(*look)
    a, s = (float(value) for value in schedule.signal_noise(t))
    law = torch.distributions.MultivariateNormal(prior.mean, prior.covariance)
    x = a * world.mean + torch.tensor([0.4, -0.7], dtype=torch.float64) * (a + s)
    _, mean, _ = on_a_grid(
        lambda x0: (
            law.log_prob(x0)
            - (y - x0 @ matrix.T).square().sum(1) / (2 * std**2)
            - (x - a * x0).square().sum(1) / (2 * s**2)
        )
    )
    close(world.denoiser(schedule)(x[None], t)[0], mean, 1e-6)
    close(world.score(x[None], schedule, t)[0], (a * mean - x) / s**2, 1e-6 / s**2)
    together = prior.given(torch.cat([matrix / std, a / s * EYE]), torch.cat([y / std, x / s]), 1.0)
    close(together.mean, mean, 1e-8)


def test_the_likelihood_of_an_observed_gaussian_is_bayes_rule(look, schedule):
    # q(x_t | y) = q(x_t) p(y | x_t) / p(y), and p(y | x_t) from the prior given x_t
    matrix, y, std = look
    prior, (a, s) = gaussian(), (float(value) for value in schedule.signal_noise(0.5))
    x = torch.tensor([0.3, -0.9], dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal

    def log_y(world):
        noise = std**2 * torch.eye(len(y), dtype=torch.float64)
        return normal(matrix @ world.mean, matrix @ world.covariance @ matrix.T + noise).log_prob(y)

    expected = prior.log_prob(x[None], schedule, 0.5) + log_y(prior.given(a * EYE, x, s)) - log_y(prior)
    close(prior.given(matrix, y, std).log_prob(x[None], schedule, 0.5), expected, 1e-10)


def test_two_observations_may_come_one_after_the_other():
    matrix, y, std = (*map(f64, LOOKS["both"][:2]), LOOKS["both"][2])
    first = gaussian().given(matrix[0], y[0], std).given(matrix[1], y[1], std)
    both = gaussian().given(matrix, y, std)
    close(first.mean, both.mean)
    close(first.covariance, both.covariance)


def test_an_observation_without_error_holds_exactly():
    world = gaussian().given(f64([[1.0, 2.0]]), f64([0.3]), 0.0)
    samples = world.sample(50, generator(19)).double()
    close(samples @ f64([1.0, 2.0]), 0.3, 1e-6)
    assert samples[:, 0].std() > 0.1


def test_a_gaussian_that_was_seen_with_much_noise_is_as_it_was():
    world = gaussian().given(torch.eye(2), f64([5.0, 5.0]), 1e6)
    close(world.mean, gaussian().mean, 1e-8)
    close(world.covariance, gaussian().covariance, 1e-8)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_centred_and_scaled(name):
    n = 40_000
    points = shape_points(name, n, generator(18)).double()
    squares = points.square().mean(1)
    assert points.shape == (n, 2) and points.isfinite().all()
    assert (points.mean(0).abs() < 4 * points.std(0) / n**0.5).all()
    assert abs(squares.mean() - 1) < 4 * squares.std() / n**0.5


def test_shapes_repeat_with_the_seed_and_keep_their_frame():
    assert shape_points("cat", 50, generator(1)).equal(shape_points("cat", 50, generator(1)))
    many, few = shape_points("heart", 20_000, generator(2)), shape_points("heart", 20, generator(3))
    assert torch.cdist(few, many).min(1).values.max() < 0.01


def test_mlp_learns_the_exact_denoiser():
    world, schedule = Gaussian(torch.tensor([0.5, -0.5]), 0.25), PATHS["vp"]
    torch.manual_seed(0)
    denoiser = Denoiser(MLP(width=32, depth=2), schedule, "v")
    batches = ((world.sample(256, generator(i)), None) for i in range(300))
    ema = EMA(denoiser.net, 30)
    for _ in train(denoiser, batches, TrainConfig(steps=300, lr=3e-3, warmup=10), ema):
        pass
    x = schedule.add_noise(
        world.sample(500, generator(900)), 0.5, torch.randn(500, 2, generator=generator(901))
    )
    with torch.no_grad():
        error = (Denoiser(ema.net, schedule, "v")(x, 0.5) - world.denoiser(schedule)(x, 0.5)).square().mean()
    assert error < 0.01


def test_mlp_hears_labels_and_time():
    torch.manual_seed(0)
    net, x = MLP(dims=3, num_classes=2), torch.randn(4, 3)
    nn.init.normal_(net.label.weight)
    logsnr = torch.zeros(4)
    none = net(x, logsnr)
    assert none.shape == x.shape
    assert none.equal(net(x, logsnr, torch.full((4,), -1)))
    assert not none.allclose(net(x, logsnr, torch.tensor([0, 0, 1, 1])))
    assert not none.allclose(net(x, logsnr + 1))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Gaussian(torch.zeros(2, 2), 1.0), "vector"),
        (lambda: Gaussian(torch.zeros(2), torch.eye(3)), "symmetric"),
        (lambda: Gaussian(torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "negative eigenvalue"),
        (lambda: gaussian().given(torch.eye(3), torch.zeros(3), 1.0), r"\(M, D\) with D = 2"),
        (lambda: gaussian().given(torch.eye(2), torch.zeros(1), 1.0), r"observation \(M,\)"),
        (lambda: gaussian().given(torch.eye(2), torch.zeros(2), -1.0), "negative"),
        (lambda: gaussian().given(torch.ones(2, 2), torch.zeros(2), 0.0), "follow from others"),
        (lambda: Mixture(torch.ones(2), torch.zeros(3, 2), 1.0), "K weights"),
        (lambda: Mixture(torch.tensor([1.0, -1.0]), torch.zeros(2, 2), 1.0), "positive"),
        (lambda: FiniteSet(torch.zeros(3, 1, 2, 2, dtype=torch.uint8)), "floats"),
        (lambda: shape_points("dog", 5), "cat, heart"),
        (lambda: finite().denoiser(PATHS["vp"])(torch.zeros(2, 3), 0.5), r"shape \(2,\)"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_worlds_have_a_scale_that_log_prob_knows():
    # A plain number, so that a lost factor 2 pi or a forgotten dimension shows.
    world = Gaussian(torch.zeros(3), 1.0)
    value = world.log_prob(torch.zeros(1, 3), PATHS["flow"], 0.0)
    assert value.item() == pytest.approx(-1.5 * math.log(2 * math.pi))
