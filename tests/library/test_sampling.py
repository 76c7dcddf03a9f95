"""Samplers, against DDPM's own formulas, other people's algorithms and one Gaussian known exactly."""

from __future__ import annotations

import math
import weakref

import pytest
import torch
from conftest import close, f64
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ddpm_lib import chain as chains
from ddpm_lib import sampling
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.sampling import (
    NOISY,
    SAMPLERS,
    clipped,
    ddim,
    ddpm,
    dpm_solver_2m,
    dpm_solver_2m_sde,
    guided,
    heun,
    last,
    pure_noise,
)
from ddpm_lib.schedule import Schedule, cosine, edm, flow, from_chain, linear, make

MEAN, VARIANCE = f64([0.3, -0.5, 0.0, 0.8]), f64([0.25, 0.04, 1.0, 0.5])


def exact(schedule, mean=MEAN, variance=VARIANCE):
    """E[x_0 | x_t] for data N(mean, variance)."""

    def denoise(x, t):
        a, s = (float(value) for value in schedule.signal_noise(t))
        return mean + a * variance / (a**2 * variance + s**2) * (x - a * mean)

    return denoise


def law(schedule, t, mean=MEAN, variance=VARIANCE):
    a, s = (float(value) for value in schedule.signal_noise(t))
    return a * mean, (a**2 * variance + s**2).sqrt()


def exact_flow(schedule, x, start, end):
    """Where the probability flow takes x: for a Gaussian, the same number of standard deviations out."""
    (mean, std), (mean_then, std_then) = law(schedule, float(start)), law(schedule, float(end))
    return mean_then + (x - mean) / std * std_then


def a_net(x, logsnr, label):
    """Any smooth function will do where two formulas must agree whatever the network says."""
    return torch.sin(2 * x + 0.1 * logsnr.clamp(-20, 20).view(-1, *[1] * (x.ndim - 1)).to(x))


def draws(seed, count, like):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(like.shape, generator=generator, dtype=like.dtype) for _ in range(count)]


# ---------------------------------------------------------------- DDPM, DDIM and Euler are one


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_ancestral_sampling_is_the_chain_over_all_1000_steps(name, variance):
    schedule, chain = make(name), chains.CHAINS[name]()
    x = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    noise = draws(5, 999, x)
    mine = ddpm(
        Denoiser(a_net, schedule, "eps"),
        x,
        schedule,
        schedule.times(1000),
        variance,
        torch.Generator().manual_seed(5),
    )
    worst = 0.0
    for step, t in zip(mine, range(1000, 0, -1), strict=True):
        logsnr = schedule.logsnr(f64(t / 1000)).float().expand(2)
        wanted = chain.step(x, a_net(x, logsnr, None), t, noise[1000 - t] if t > 1 else None, variance)
        worst = max(worst, float(((step.x - wanted) / (1 + wanted.abs())).abs().max()))
        assert step.index == 1001 - t and step.t == pytest.approx((t - 1) / 1000)
        # go on from the sampler's own x, so that a sensitive network does not enlarge rounding errors
        x = step.x
    assert worst < 1e-10


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("schedule", [linear(), cosine(), linear(50)], ids=["linear", "cosine", "short"])
def test_ddim_with_eta_1_is_the_posterior(schedule, dtype, tolerance):
    chain = {"linear": chains.linear, "cosine": chains.cosine}[schedule.name](schedule.steps)
    estimate = torch.rand(2, 1, 4, 4, dtype=dtype) * 2 - 1
    x = torch.randn(2, 1, 4, 4, dtype=dtype)
    noise = draws(3, chain.steps, x)
    steps = ddim(
        lambda x, t: estimate, x, schedule, schedule.times(chain.steps), 1.0, torch.Generator().manual_seed(3)
    )
    for step, t in zip(steps, range(chain.steps, 0, -1), strict=True):
        mean, variance = chain.posterior(x, estimate, t)
        close(step.x, mean + variance.sqrt() * noise[chain.steps - t], tolerance)
        x = step.x
    # no noise at the last step: what is left is the last estimate
    close(step.x, estimate, 1e-12 if dtype == torch.float64 else 1e-6)


@settings(max_examples=10)
@given(st.integers(1, 60), st.integers(0, 9))
def test_ddpm_with_few_steps_is_ddim_with_eta_1(count, seed):
    schedule, x = (
        linear(60),
        torch.randn(2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64),
    )
    one, two = (torch.Generator().manual_seed(seed) for _ in range(2))
    denoise, times = Denoiser(a_net, schedule, "v"), schedule.times(count)
    assert torch.equal(
        last(ddpm(denoise, x, schedule, times, generator=one)),
        last(ddim(denoise, x, schedule, times, 1.0, two)),
    )


def test_variance_beta_is_the_notes_formula():
    """new_x = 1 / sqrt(alpha) (x - (1 - alpha) / sqrt(1 - alpha_hat) eps) + sqrt(beta) noise."""
    schedule = linear()
    beta = torch.cat([torch.zeros(1), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)])
    alpha, alpha_hat = 1 - beta, (1 - beta).cumprod(0)
    x = torch.randn(3, 4, dtype=torch.float64)
    for t in (2, 10, 500, 1000):
        eps = a_net(x, schedule.logsnr(f64(t / 1000)).float().expand(3), None)
        times = f64([t / 1000, (t - 1) / 1000])
        mine = last(
            ddpm(
                Denoiser(a_net, schedule, "eps"), x, schedule, times, "beta", torch.Generator().manual_seed(t)
            )
        )
        (z,) = draws(t, 1, x)
        new_x = (
            1 / alpha[t].sqrt() * (x - ((1 - alpha[t]) / (1 - alpha_hat[t]).sqrt()) * eps)
            + beta[t].sqrt() * z
        )
        close(mine, new_x)


@pytest.mark.parametrize("count", [1, 2, 10, 100])
def test_eulers_method_on_the_flow_path_is_ddim(count):
    schedule, x = flow(), torch.randn(2, 3, 4, dtype=torch.float64)
    denoiser = Denoiser(a_net, schedule, "flow")
    euler, times = x, schedule.times(count)
    for t, then in zip(times[:-1], times[1:], strict=True):
        euler = euler + (then - t) * denoiser.output(euler, t)
    close(last(ddim(denoiser, x, schedule, times)), euler)


# ---------------------------------------------------------------- other people's algorithms


def test_heun_on_the_ve_path_is_edms_algorithm_1():
    schedule, denoise = edm(), exact(edm())
    times = schedule.times(12)
    sigmas = schedule.signal_noise(times)[1].tolist()
    x = wanted = torch.randn(3, 4, dtype=torch.float64) * 80

    for t, t_then, sigma, sigma_then in zip(times[:-1], times[1:], sigmas, sigmas[1:], strict=False):
        slope = (wanted - denoise(wanted, t)) / sigma
        euler = wanted + (sigma_then - sigma) * slope
        slope_then = (euler - denoise(euler, t_then)) / sigma_then
        wanted = wanted + (sigma_then - sigma) * (slope + slope_then) / 2
    close(last(heun(denoise, x, schedule, times)), wanted)


def test_heun_on_the_flow_path_is_the_textbooks():
    schedule, denoise = flow(), exact(flow())
    times = schedule.times(9)
    x = wanted = torch.randn(3, 4, dtype=torch.float64)
    for t, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        slope = (wanted - denoise(wanted, t)) / t
        euler = wanted + (then - t) * slope
        if then > 0:
            slope = (slope + (euler - denoise(euler, then)) / then) / 2
        wanted = wanted + (then - t) * slope
    close(last(heun(denoise, x, schedule, times)), wanted)


@pytest.mark.parametrize("schedule", [cosine(), edm(), flow()], ids=["vp", "ve", "flow"])
def test_2m_is_algorithm_2_of_dpm_solver_plus_plus(schedule):
    """x' = s'/s x - a' (e^-h - 1) D, with lambda = log(a / s) and D extrapolated from two answers."""
    denoise, times = exact(schedule), f64([0.9, 0.7, 0.6, 0.35, 0.1])
    logsnr, a, s = schedule.at(times)
    lam = logsnr / 2
    x = wanted = torch.randn(3, 4, dtype=torch.float64)
    answers = []
    for i in range(1, 5):
        answers.append(denoise(wanted, float(times[i - 1])))
        h, direction = lam[i] - lam[i - 1], answers[-1]
        if i > 1:
            r = (lam[i - 1] - lam[i - 2]) / h
            direction = (1 + 1 / (2 * r)) * answers[-1] - 1 / (2 * r) * answers[-2]
        wanted = s[i] / s[i - 1] * wanted - a[i] * torch.expm1(-h) * direction
    close(last(dpm_solver_2m(denoise, x, schedule, times)), wanted)


@pytest.mark.parametrize("schedule", [cosine(), edm(), flow()], ids=["vp", "ve", "flow"])
def test_2m_sde_is_the_papers(schedule):
    """x' = s'/s e^-h x + a' (1 - e^-2h) (D + (D - D_before) / 2r) + s' sqrt(1 - e^-2h) z."""
    denoise, times = exact(schedule), f64([0.9, 0.7, 0.6, 0.35, 0.1])
    logsnr, a, s = schedule.at(times)
    lam = logsnr / 2
    x = wanted = torch.randn(3, 4, dtype=torch.float64)
    generator, before = torch.Generator().manual_seed(5), None
    for i in range(1, 5):
        h, answer = lam[i] - lam[i - 1], denoise(wanted, float(times[i - 1]))
        better = answer
        if before is not None:
            r = (lam[i - 1] - lam[i - 2]) / h
            better = answer + (answer - before) / (2 * r)
        before = answer
        z = torch.randn(3, 4, dtype=torch.float64, generator=generator)
        wanted = s[i] / s[i - 1] * torch.exp(-h) * wanted - a[i] * torch.expm1(-2 * h) * better
        wanted = wanted + s[i] * (-torch.expm1(-2 * h)).sqrt() * z
    ours = last(dpm_solver_2m_sde(denoise, x, schedule, times, torch.Generator().manual_seed(5)))
    close(ours, wanted)


# ---------------------------------------------------------------- one Gaussian, exactly

SMOOTH = Schedule("smooth", flow().logsnr, "vp")
PATHS = {
    "vp": SMOOTH,
    "flow": flow(),
    "ve": edm(),
    "linear chain": linear(3200),
    "cosine chain": cosine(3200),
}


def order(sampler, schedule, count, high, low):
    """How many times the error halves when the number of steps doubles, in powers of two."""
    start = f64([[-2.0], [-0.5], [1.0], [2.0]])
    mean, std = law(schedule, high)
    x, errors = mean + start * std, []
    for steps in (count, 2 * count):
        times = torch.linspace(high, low, steps + 1, dtype=torch.float64)
        out = last(sampler(exact(schedule), x, schedule, times))
        errors.append(float((out - exact_flow(schedule, x, high, low)).abs().max()))
    return math.log2(errors[0] / errors[1]), errors[1]


@pytest.mark.parametrize("name", PATHS)
def test_orders_of_convergence(name):
    schedule = PATHS[name]
    # from 0.9 to 0.1 in 40 and 80 steps, so that a chain of 3200 is met at its knots
    first, _ = order(ddim, schedule, 40, 0.9, 0.1)
    assert 0.85 <= first <= 1.15
    second, error = order(heun, schedule, 40, 0.9, 0.1)
    assert second >= 1.8 and error < 5e-3
    second, error = order(dpm_solver_2m, schedule, 40, 0.9, 0.1)
    assert second >= 1.7 and error < 5e-3


@pytest.mark.parametrize("name", ["vp", "flow", "ve"])
def test_orders_of_convergence_from_pure_noise_to_the_end(name):
    schedule = PATHS[name]
    assert 0.9 <= order(ddim, schedule, 160, 1.0, 0.0)[0] <= 1.1
    assert order(heun, schedule, 160, 1.0, 0.0)[0] >= 1.8
    # near both ends log-SNR runs off to infinity, and 2M needs more steps to show its order
    assert order(dpm_solver_2m, schedule, 640, 1.0, 0.0)[0] >= 1.7


@pytest.mark.parametrize("name", ["linear", "cosine", "flow", "edm"])
@pytest.mark.parametrize("sampler", [heun, dpm_solver_2m])
def test_better_samplers_beat_ddim_at_20_steps(name, sampler):
    """An order of convergence says nothing about few steps, which is where these are used."""
    schedule = make(name)
    errors = {}
    for method in (ddim, sampler):
        mean, std = law(schedule, 1.0)
        x = mean + f64([[-2.0], [-0.5], [1.0], [2.0]]) * std
        out = last(method(exact(schedule), x, schedule, schedule.times(20)))
        errors[method] = float((out - exact_flow(schedule, x, 1.0, 0.0)).abs().max())
    assert errors[sampler] < 0.7 * errors[ddim]


def moments(monkeypatch, run, x_mean, x_variance, calls):
    """Exact mean and variance of a sampler's result, for a denoiser that is linear in x.

    The result is then linear in x_T and in the noise of each step: feed unit vectors and read off
    the coefficients. Rows: nothing, x_T = 1, then z_k = 1 for each step k.
    """
    shape, count = (calls + 2, len(MEAN)), iter(range(2, calls + 2))

    def unit(*size, **_):
        z = torch.zeros(shape, dtype=torch.float64)
        z[next(count)] = 1
        return z

    monkeypatch.setattr(torch, "randn", unit)
    x = torch.zeros(shape, dtype=torch.float64)
    x[1] = 1
    out = run(x)
    monkeypatch.undo()
    of_x, of_z = out[1] - out[0], out[2:] - out[0]
    return out[0] + of_x * x_mean, of_x**2 * x_variance + of_z.square().sum(0)


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_sampling_a_gaussian_converges_to_its_mean_and_variance(monkeypatch, name, eta):
    schedule, gaps = make(name), []
    mean_then, std_then = law(schedule, 1.0)
    for count in (100, 200):
        mean, variance = moments(
            monkeypatch,
            lambda x, count=count: last(ddim(exact(schedule), x, schedule, schedule.times(count), eta)),
            mean_then,
            std_then**2,
            count,
        )
        close(mean, MEAN, 1e-3 if eta else 1e-2)
        gaps.append(float(((variance - VARIANCE) / VARIANCE).abs().max()))
    # what is wrong is the number of steps alone: it halves with every doubling
    assert gaps[1] < 0.2 and 1.6 < gaps[0] / gaps[1] < 2.4


def test_the_whole_ddpm_chain_draws_the_gaussian(monkeypatch):
    schedule = linear()
    for variance in ("posterior", "beta"):
        mean, drawn = moments(
            monkeypatch,
            lambda x, v=variance: last(ddpm(exact(schedule), x, schedule, schedule.times(1000), v)),
            torch.zeros(4, dtype=torch.float64),
            torch.ones(4, dtype=torch.float64),
            1000,
        )
        close(mean, MEAN, 1e-2)
        assert float(((drawn - VARIANCE) / VARIANCE).abs().max()) < 0.05


@pytest.mark.parametrize("name", ["vp", "flow", "ve"])
def test_2m_sde_is_nearer_to_the_exact_law_than_ddpm(monkeypatch, name):
    schedule = PATHS[name]
    mean, std = law(schedule, 0.9)
    wanted_mean, wanted_std = law(schedule, 0.1)
    errors = {}
    for sampler in (ddpm, dpm_solver_2m_sde):
        for count in (20, 40):
            times = torch.linspace(0.9, 0.1, count + 1, dtype=torch.float64)
            run = lambda x, times=times, sampler=sampler: last(sampler(exact(schedule), x, schedule, times))  # noqa: E731
            found_mean, variance = moments(monkeypatch, run, mean, std**2, count)
            errors[sampler, count] = float(
                torch.maximum((found_mean - wanted_mean).abs(), (variance.sqrt() - wanted_std).abs()).max()
            )
    assert errors[dpm_solver_2m_sde, 20] < 0.4 * errors[ddpm, 20]
    # first order, and second
    assert errors[ddpm, 20] / errors[ddpm, 40] < 2.3
    assert errors[dpm_solver_2m_sde, 20] / errors[dpm_solver_2m_sde, 40] > 3.5


@pytest.mark.parametrize("name", ["vp", "flow", "ve"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.8, 1.0])
def test_eta_keeps_the_law_of_every_time(monkeypatch, name, eta):
    """With one data point the denoiser is exact at any step size: so are all marginals, N(a x_0, s^2)."""
    schedule, point = PATHS[name], MEAN
    times = f64([1.0, 0.8, 0.5, 0.45, 0.1])
    a, s = schedule.signal_noise(times)
    for upto in range(2, 6):
        mean, variance = moments(
            monkeypatch,
            lambda x, upto=upto: last(ddim(lambda x, t: point.expand_as(x), x, schedule, times[:upto], eta)),
            a[0] * point,
            s[0] ** 2,
            upto - 1,
        )
        close(mean, a[upto - 1] * point)
        close(variance / s[upto - 1] ** 2, 1.0)


def test_stochastic_steps_add_the_noise_that_they_should(monkeypatch):
    # the test above would pass with eta ignored
    schedule, times = linear(), f64([0.5, 0.4])
    a, s = schedule.signal_noise(times)
    beta_tilde = s[1] ** 2 / s[0] ** 2 * (1 - a[0] ** 2 / a[1] ** 2)
    x = torch.zeros(1, 1, dtype=torch.float64)
    for eta in (0.0, 0.3, 1.0):
        (z,) = draws(1, 1, x)
        out = last(ddim(lambda x, t: x, x, schedule, times, eta, torch.Generator().manual_seed(1)))
        close(out, eta * beta_tilde.sqrt() * z)


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
def test_no_noise_at_the_last_step(name):
    schedule, x = make(name), torch.randn(2, 3)
    for steps in (
        ddpm(clipped(exact(schedule, 0.0, 0.5)), x, schedule, schedule.times(5), "beta"),
        ddpm(clipped(exact(schedule, 0.0, 0.5)), x, schedule, schedule.times(5), "posterior"),
        ddim(clipped(exact(schedule, 0.0, 0.5)), x, schedule, schedule.times(5), 0.5),
    ):
        *_, end = steps
        close(end.x, end.x0, 1e-6)


# ---------------------------------------------------------------- guidance and clipping


class Labelled:
    """A conditional denoiser that keeps count; -1 and None are the null label."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, label=None):
        self.calls.append((len(x), float(t), label))
        label = torch.full((len(x),), -1) if label is None else label
        return torch.tanh(x) + 0.3 * label.to(x).view(-1, 1) * x.cos()


def test_guidance_0_and_1_are_the_plain_models_exactly():
    x, label, model = torch.randn(3, 5), torch.tensor([0, 4, 7]), Labelled()
    assert torch.equal(guided(model, label, 1.0)(x, 0.5), model(x, 0.5, label))
    assert torch.equal(guided(model, label)(x, 0.5), model(x, 0.5, label))
    assert torch.equal(guided(model, label, 0.0)(x, 0.5), model(x, 0.5, None))
    assert torch.equal(guided(model, None, 3.0)(x, 0.5), model(x, 0.5, None))
    # neither needs the doubled batch
    assert {count for count, _, _ in model.calls} == {3}


@given(st.floats(0, 12))
def test_guidance_is_linear_in_its_scale(scale):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    label, model = torch.tensor([0, 4, 7]), Labelled()
    with_label, without = model(x, 0.5, label), model(x, 0.5, None)
    close(guided(model, label, scale)(x, 0.5), without + scale * (with_label - without), 1e-12)


@pytest.mark.parametrize("near", [0.0, 1.0])
def test_guidance_does_not_jump(near):
    x, label, model = torch.randn(3, 5, dtype=torch.float64), torch.tensor([0, 4, 7]), Labelled()
    there = guided(model, label, near)(x, 0.5)
    for scale in (near + 1e-9, max(near - 1e-9, 0.0)):
        close(guided(model, label, scale)(x, 0.5), there, 1e-7)


def test_guidance_asks_once_with_both_labels():
    x, label, model = torch.randn(3, 5), torch.tensor([0, 4, 7]), Labelled()
    guided(model, label, 2.0)(x, 0.5)
    ((count, t, asked),) = model.calls
    assert count == 6 and t == 0.5 and asked.tolist() == [0, 4, 7, -1, -1, -1]


def test_guidance_keeps_to_its_interval():
    x, label, model = torch.randn(3, 5), torch.tensor([0, 4, 7]), Labelled()
    estimate = guided(model, label, 4.0, (0.2, 0.6))
    for t, inside in ((0.1, False), (0.2, True), (0.4, True), (0.6, True), (0.7, False)):
        model.calls.clear()
        out = estimate(x, t)
        assert len(model.calls) == 1 and model.calls[0][0] == (6 if inside else 3)
        plain = model(x, t, label)
        assert torch.equal(out, plain) != inside


@pytest.mark.parametrize("scale", [-1e-9, -1.0, math.nan, math.inf, -math.inf])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(ValueError, match="at least 0.*1 is plain conditional"):
        guided(Labelled(), torch.tensor([1]), scale)


def test_clipping_comes_after_guidance():
    x, label, model = 3 * torch.randn(3, 5), torch.tensor([0, 4, 7]), Labelled()
    out = clipped(guided(model, label, 5.0))(x, 0.5)
    assert torch.equal(out, guided(model, label, 5.0)(x, 0.5).clamp(-1, 1))
    assert out.max() == 1 and out.min() == -1
    assert clipped(guided(model, label, 5.0), -0.5, 0.25)(x, 0.5).max() == 0.25


# ---------------------------------------------------------------- what a run costs and keeps


@pytest.mark.parametrize(
    ("name", "sampler", "calls"),
    [
        (n, s, c)
        for n in ("linear", "cosine", "flow")
        for s, c in (("ddpm", 9), ("ddim", 9), ("heun", 17), ("dpm++2m", 9), ("dpm++2m-sde", 9))
    ]
    # EDM's times end at sigma_min, not at 0: its last step is of second order too
    + [("edm", "ddim", 9), ("edm", "heun", 18), ("edm", "dpm++2m", 9)],
)
def test_network_calls(name, sampler, calls):
    schedule, seen = make(name), []

    def denoise(x, t):
        seen.append(t)
        assert type(t) is float
        return x * 0.5

    steps = list(SAMPLERS[sampler](denoise, torch.randn(2, 3), schedule, schedule.times(9)))
    assert len(seen) == calls
    assert [step.index for step in steps] == list(range(1, 10))
    close(f64([step.t for step in steps]), schedule.times(9)[1:])
    assert max(seen) == 1 and min(seen) > 0 or name == "edm"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_run_builds_no_graph_and_forgets_its_past(name):
    net, schedule = nn.Linear(3, 3), linear()
    alive, most = [], 0
    x = torch.randn(2, 3)
    for step in SAMPLERS[name](lambda x, t: net(x), x, schedule, schedule.times(20)):
        assert not step.x.requires_grad and not step.x0.requires_grad
        alive.append(weakref.ref(step.x))
        del step
        most = max(most, sum(ref() is not None for ref in alive))
    assert most == 1
    assert torch.is_grad_enabled() and net.weight.grad is None


def test_last_is_the_last_image():
    schedule, x = linear(), torch.randn(2, 3)
    steps = list(ddim(exact(schedule, 0.0, 1.0), x, schedule, schedule.times(7)))
    assert torch.equal(last(iter(steps)), steps[-1].x) and steps[-1].t == 0


@pytest.mark.parametrize("name", NOISY)
def test_a_generator_makes_a_run_reproducible(name):
    schedule, x = linear(), torch.randn(2, 3)
    options = {"eta": 0.7} if name == "ddim" else {}

    def run(seed):
        torch.rand(seed)  # the global state must not matter
        generator = torch.Generator().manual_seed(seed)
        return last(
            SAMPLERS[name](
                exact(schedule, 0.0, 0.5), x, schedule, schedule.times(6), generator=generator, **options
            )
        )

    assert torch.equal(run(3), run(3)) and not torch.equal(run(3), run(4))


def test_inputs_are_left_alone():
    schedule, x = linear(), torch.randn(2, 3)
    before = x.clone()
    for name in SAMPLERS:
        # an estimate that is x itself must not be written to either
        last(SAMPLERS[name](lambda x, t: x, x, schedule, schedule.times(4)))
        assert torch.equal(x, before)


@pytest.mark.parametrize(
    "times",
    [[1.0], [], [0.0, 1.0], [1.0, 0.5, 0.5, 0.0], [1.1, 0.0], [1.0, -0.1], [1.0, math.nan], [[1.0, 0.0]]],
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_impossible_times_are_refused(name, times):
    with pytest.raises(ValueError, match="times must fall strictly"):
        last(SAMPLERS[name](lambda x, t: x, torch.zeros(1, 2), linear(), f64(times)))


def test_other_impossible_wishes_are_refused():
    schedule, x = linear(), torch.zeros(1, 2)
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
            ddim(lambda x, t: x, x, schedule, schedule.times(2), eta)
    with pytest.raises(ValueError, match="'posterior' or 'beta'"):
        ddpm(lambda x, t: x, x, schedule, schedule.times(2), "fixed")


def test_sampling_starts_from_the_law_at_the_end():
    for name in ("linear", "cosine", "flow", "edm"):
        schedule = make(name)
        a, s = (float(value) for value in schedule.signal_noise(1.0))
        x = pure_noise((20_000,), schedule, torch.Generator().manual_seed(0))
        assert x.dtype == torch.float32
        # standard error of a standard deviation: std / sqrt(2 n)
        assert float(x.std()) == pytest.approx(math.hypot(a, s), rel=4 / math.sqrt(40_000))
        assert torch.equal(x, pure_noise((20_000,), schedule, torch.Generator().manual_seed(0)))


def test_sampling_from_zero_terminal_chains_works():
    schedule = from_chain(chains.rescale_zero_terminal(chains.linear(200)))
    x = f64([[-2.0], [-0.5], [1.0], [2.0]]) * torch.ones(4, dtype=torch.float64)
    wanted = exact_flow(schedule, x, 1.0, 0.0)
    for name in ("ddim", "heun", "dpm++2m"):
        out = last(SAMPLERS[name](exact(schedule), x, schedule, schedule.times(200)))
        close(out, wanted, 0.03)
    assert last(ddpm(exact(schedule), x, schedule, schedule.times(200))).isfinite().all()


def test_moves_are_the_only_place_where_samplers_touch_x():
    """A run in steps is a run in one go: no sampler but 2M carries anything between steps."""
    schedule, x = flow(), torch.randn(2, 4, dtype=torch.float64)
    for name in ("ddim", "heun"):
        whole = last(SAMPLERS[name](exact(schedule), x, schedule, schedule.times(4)))
        part = last(SAMPLERS[name](exact(schedule), x, schedule, schedule.times(4)[:3]))
        rest = last(SAMPLERS[name](exact(schedule), part, schedule, schedule.times(4)[2:]))
        assert torch.equal(whole, rest)
    assert set(sampling.SAMPLERS) == {"ddpm", "ddim", "heun", "dpm++2m", "dpm++2m-sde"}


def test_a_guidance_interval_that_is_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match="low <= high"):
        guided(lambda x, t, label: x, torch.zeros(1), 2.0, interval=(0.8, 0.2))
