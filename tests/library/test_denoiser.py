"""Prediction types: five names for one network, converted exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conftest import close, f64
from torch import nn

from ddpm_lib import chain as chains
from ddpm_lib.denoiser import SIGMA_DATA, TARGETS, Denoiser, target, to_x0
from ddpm_lib.schedule import SCHEDULES, Schedule, flow, from_chain, linear, make

TIMES = f64([0.001, 0.01, 0.2, 0.5, 0.9, 0.999, 1.0])


def allowed(predict: str, schedule: Schedule) -> bool:
    return predict != "eps" or float(schedule.signal_noise(1.0)[0]) > 0


PAIRS = [(p, name) for p in TARGETS for name in SCHEDULES if allowed(p, make(name))]


def answering(y):
    return lambda x, logsnr, label: y


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("predict", "name"), PAIRS)
def test_the_exact_target_gives_back_the_image(predict, name, dtype):
    """To 1e-10 and 1e-5 everywhere, but for eps where little signal is left.

    There x_0 = (x_t - s eps) / a divides what is left of two near equal numbers by a: a rounding error u
    of either comes out as u s / a. On cosine a(1) = 5e-5 and on edm s(1) = 80, so float32 cannot do better
    than 5e-3 and 2e-5; every other target stays exact to the end.
    """
    schedule = make(name)
    x0, eps = (
        torch.rand(len(TIMES), 3, 4, 4, dtype=dtype) * 2 - 1,
        torch.randn(len(TIMES), 3, 4, 4, dtype=dtype),
    )
    a, s = schedule.signal_noise(TIMES)
    y = target(x0, eps, a, s, predict)
    assert y.dtype == dtype
    x_t = schedule.add_noise(x0, TIMES, eps)
    estimate = Denoiser(answering(y), schedule, predict)(x_t, TIMES)
    assert estimate.dtype == dtype and estimate.shape == x0.shape
    error = (estimate - x0).flatten(1).abs().amax(1)
    tolerance = torch.full_like(TIMES, 1e-10 if dtype == torch.float64 else 1e-5)
    if predict == "eps":
        tolerance = torch.maximum(tolerance, 16 * torch.finfo(dtype).eps * s / a)
    assert (error <= tolerance).all(), error


def test_eps_is_ill_conditioned_where_no_signal_is_left_and_v_is_not():
    """The reason for the exception above is real: were it gone, the exception should go."""
    schedule, one = make("cosine"), f64([1.0])
    x0, eps = torch.rand(1, 1000), torch.randn(1, 1000)
    x_t, (a, s) = schedule.add_noise(x0, one, eps), schedule.signal_noise(one)
    errors = {p: float((to_x0(x_t, target(x0, eps, a, s, p), a, s, p) - x0).abs().max()) for p in TARGETS}
    assert errors.pop("eps") > 1e-4
    assert max(errors.values()) < 1e-5


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("there", TARGETS)
@pytest.mark.parametrize("here", TARGETS)
def test_five_by_five_round_trips(here, there, name):
    schedule = make(name)
    t = TIMES[TIMES < 1]
    a, s = schedule.signal_noise(t)
    x0, eps = torch.randn(2, len(t), 5, dtype=torch.float64)
    x_t = schedule.add_noise(x0, t, eps)

    def convert(y, source, goal):
        estimate = to_x0(x_t, y, a, s, source)
        return target(estimate, (x_t - a[:, None] * estimate) / s[:, None], a, s, goal)

    y = target(x0, eps, a, s, here)
    # eps = (x_t - a x_0) / s costs a factor 1 / s on the way
    close((convert(y, here, there) - target(x0, eps, a, s, there)) * s[:, None], 0.0)
    close((convert(convert(y, here, there), there, here) - y) * s[:, None], 0.0)


def test_targets_are_the_papers():
    x0, eps = torch.randn(2, 4, 6, dtype=torch.float64)
    t = f64([0.1, 0.4, 0.7, 0.9])
    vp, straight, ve = linear(), flow(), make("edm")
    column = lambda value: value[:, None]  # noqa: E731

    a, s = vp.signal_noise(t)
    close(target(x0, eps, a, s, "eps"), eps)
    close(target(x0, eps, a, s, "x0"), x0)
    v = column(a) * eps - column(s) * x0
    close(target(x0, eps, a, s, "v"), v)
    x_t = vp.add_noise(x0, t, eps)
    close(to_x0(x_t, v, a, s, "v"), column(a) * x_t - column(s) * v)
    close(to_x0(x_t, eps, a, s, "eps"), (x_t - column((1 - a**2).sqrt()) * eps) / column(a))

    a, s = straight.signal_noise(t)
    x_t = straight.add_noise(x0, t, eps)
    velocity = target(x0, eps, a, s, "flow")
    # the velocity is the slope of the path, and following it back for the time t leads to x_0
    later = straight.add_noise(x0, t + 1e-3, eps)
    close((later - x_t) / 1e-3, velocity)
    close(to_x0(x_t, velocity, a, s, "flow"), x_t - column(t) * velocity)

    # arXiv 2206.00364, table 1: D = c_skip x + c_out F
    a, s = ve.signal_noise(t)
    x_t = ve.add_noise(x0, t, eps)
    c_skip = SIGMA_DATA**2 / (s**2 + SIGMA_DATA**2)
    c_out = s * SIGMA_DATA / (s**2 + SIGMA_DATA**2).sqrt()
    answer = torch.randn(4, 6, dtype=torch.float64)
    close(to_x0(x_t, answer, a, s, "edm"), column(c_skip) * x_t + column(c_out) * answer)
    close(target(x0, eps, a, s, "edm"), (x0 - column(c_skip) * x_t) / column(c_out))


def test_edms_target_has_unit_variance_at_every_noise():
    """Its reason: for data of standard deviation 1/2 the network's target is never large or small."""
    for name in SCHEDULES:
        p, q = TARGETS["edm"](*make(name).signal_noise(TIMES))
        close((p * SIGMA_DATA) ** 2 + q**2, 1.0, 1e-12)


@pytest.mark.parametrize("predict", [p for p in TARGETS if p != "eps"])
@pytest.mark.parametrize("schedule", [flow(), from_chain(chains.rescale_zero_terminal(chains.linear()))])
def test_every_target_but_eps_works_with_no_signal_at_all(predict, schedule):
    a, s = schedule.signal_noise(f64([1.0]))
    assert a == 0
    x0, eps = torch.randn(2, 1, 8, dtype=torch.float64)
    y = target(x0, eps, a, s, predict)
    close(to_x0(schedule.add_noise(x0, f64([1.0]), eps), y, a, s, predict), x0)


@pytest.mark.parametrize(
    "schedule", [flow(), from_chain(chains.rescale_zero_terminal(chains.linear()), "mine")]
)
def test_eps_without_signal_is_refused_with_the_choices(schedule):
    with pytest.raises(ValueError, match=f"{schedule.name}.*'v', 'flow' or 'x0'.*'linear', 'cosine'"):
        Denoiser(answering(None), schedule, "eps")
    with pytest.raises(ValueError, match="'noise'.*eps, x0, v, flow, edm"):
        Denoiser(answering(None), linear(), "noise")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("predict", "name"), PAIRS)
def test_loss_of_the_exact_target_is_zero_and_of_another_its_distance(predict, name, dtype):
    schedule = make(name)
    x0, eps, off = torch.randn(3, len(TIMES), 1, 4, 4, dtype=dtype)
    y = target(x0, eps, *schedule.signal_noise(TIMES), predict)
    loss = Denoiser(answering(y), schedule, predict).loss(x0, TIMES, eps)
    assert loss.shape == (len(TIMES),) and loss.dtype == dtype
    assert (loss == 0).all()
    loss = Denoiser(answering(y + off), schedule, predict).loss(x0, TIMES, eps)
    # each image by itself, averaged over its pixels, not summed
    torch.testing.assert_close(
        loss, off.square().mean((1, 2, 3)), rtol=1e-3 if dtype == torch.float32 else 1e-9, atol=0
    )


def test_eps_loss_without_weight_is_l_simple():
    schedule, t = linear(), f64([0.25, 0.75])
    x0, eps = torch.randn(2, 2, 3, 4, 4)
    net = nn.Conv2d(3, 3, 1)
    loss = Denoiser(lambda x, logsnr, label: net(x), schedule, "eps").loss(x0, t, eps)
    x_t = chains.linear().add_noise(x0, torch.tensor([250, 750]), eps)
    close(loss.detach(), (eps - net(x_t)).square().mean((1, 2, 3)).detach(), 1e-6)


@pytest.mark.parametrize(("predict", "name"), PAIRS)
def test_losses_of_all_targets_are_one_up_to_the_known_weight(predict, name):
    """One estimate of x_0, said in two languages: the losses differ by ((a q - s p) / s)^2."""
    schedule = make(name)
    x0, eps, off = torch.randn(3, len(TIMES), 2, 3, dtype=torch.float64)
    a, s = schedule.signal_noise(TIMES)
    x_t = schedule.add_noise(x0, TIMES, eps)
    shape = (-1, 1, 1)
    estimate = x0 + 0.3 * off
    implied_eps = (x_t - a.view(shape) * estimate) / s.view(shape)
    y = target(estimate, implied_eps, a, s, predict)
    loss = Denoiser(answering(y), schedule, predict).loss(x0, TIMES, eps)
    p, q = TARGETS[predict](a, s)
    in_x0 = (estimate - x0).square().mean((1, 2))
    torch.testing.assert_close(loss, ((a * q - s * p) / s) ** 2 * in_x0, rtol=1e-8, atol=1e-10)
    known = {"eps": (a / s) ** 2, "x0": torch.ones_like(a)}
    if schedule.path == "vp":
        known["v"] = 1 / s**2
    if schedule.path == "flow":
        known["flow"] = 1 / s**2
    if schedule.path == "ve":
        known["edm"] = (s**2 + SIGMA_DATA**2) / (s * SIGMA_DATA) ** 2  # lambda(sigma) of table 1
    if predict in known:
        torch.testing.assert_close(((a * q - s * p) / s) ** 2, known[predict], rtol=1e-9, atol=0)


def test_weight_multiplies_each_images_loss():
    schedule, t = linear(), f64([0.1, 0.5, 0.9])
    x0, eps = torch.randn(2, 3, 1, 4, 4)
    denoiser = Denoiser(answering(torch.zeros_like(x0)), schedule)
    seen = []

    def weight(logsnr):
        seen.append(logsnr)
        return logsnr.exp()

    plain, weighted = denoiser.loss(x0, t, eps), denoiser.loss(x0, t, eps, weight=weight)
    torch.testing.assert_close(weighted, plain * schedule.logsnr(t).exp().float())
    assert torch.equal(seen[0], schedule.logsnr(t))


def test_the_network_sees_one_picture_on_every_path():
    def logsnr(t):
        return 8 - 14 * t

    seen = {}
    x0, eps = torch.randn(2, 4, 1, 3, 3, dtype=torch.float64)
    t, label = f64([0.1, 0.3, 0.6, 1.0]), torch.arange(4)
    for path in ("vp", "flow", "ve"):

        def net(x, told, given, path=path):
            seen.setdefault(path, []).append((x, told, given))
            return torch.zeros_like(x)

        schedule = Schedule("mine", logsnr, path)
        denoiser = Denoiser(net, schedule, "v")
        denoiser(schedule.add_noise(x0, t, eps), t, label)
        denoiser.loss(x0, t, eps, label)
    a, s = Schedule("mine", logsnr, "vp").signal_noise(t)
    for path, calls in seen.items():
        for x, told, given in calls:
            close(x, a.view(-1, 1, 1, 1) * x0 + s.view(-1, 1, 1, 1) * eps, 1e-12)
            assert told.dtype == torch.float32 and told.shape == (4,), path
            close(told, logsnr(t), 1e-5)
            assert given is label


def test_one_time_serves_the_whole_batch():
    schedule = linear()
    told = []

    def net(x, logsnr, label):
        told.append(logsnr)
        return x * logsnr.view(-1, 1)

    denoiser, x = Denoiser(net, schedule), torch.randn(3, 5)
    together = denoiser(x, 0.3)
    each = denoiser(x, f64([0.3, 0.3, 0.3]))
    close(together, each, 1e-6)
    assert told[0].shape == (3,) and torch.equal(told[0], told[1])


@pytest.mark.parametrize("predict", TARGETS)
@pytest.mark.parametrize("schedule", [linear(50), flow(), make("edm")], ids=lambda schedule: schedule.name)
def test_a_number_and_a_tensor_of_times_give_the_same_estimate_again_and_again(schedule, predict):
    if predict == "eps" and schedule.path == "flow":
        return  # refused: no signal is left at t = 1
    told = []

    def net(x, logsnr, label):
        told.append((x, logsnr))
        return torch.sin(3 * x) + logsnr[:, None]

    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoiser = Denoiser(net, schedule, predict)
    for t in (0.9, 0.2, 0.9):
        close(denoiser(x, t), denoiser(x, torch.full((4,), t, dtype=torch.float64)), 1e-9)
        (number, mine), (tensor, other) = told[-2:]
        assert torch.equal(number, tensor) and torch.equal(mine, other)


def test_a_denoiser_holds_no_weights_and_changes_nothing():
    net = nn.Linear(2, 2)
    denoiser = Denoiser(lambda x, logsnr, label: net(x), linear())
    assert not hasattr(denoiser, "parameters")
    other = replace(denoiser, net=answering(torch.zeros(1, 2)))
    assert other.schedule is denoiser.schedule and other.predict == denoiser.predict
    # under autocast a network answers in half precision; the estimate keeps the image's
    half = Denoiser(lambda x, logsnr, label: torch.zeros_like(x, dtype=torch.bfloat16), linear())
    x = torch.randn(2, 4)
    assert half(x, 0.5).dtype == torch.float32
    # and so does the arithmetic after it
    y = torch.randn(2, 4).bfloat16()
    (a, s), rough = linear().signal_noise(0.9), Denoiser(answering(y), linear())
    close(rough(x, 0.9), to_x0(x, y.float(), a, s, "eps"), 1e-5)
    assert half.loss(x, f64([0.5, 0.5]), x).dtype == torch.float32
    assert math.isfinite(float(half(x, 0.5).sum()))


def test_an_unknown_prediction_is_refused_wherever_it_is_named():
    x, a = torch.zeros(2, 1), torch.tensor(0.5)
    for call in (lambda: to_x0(x, x, a, a, "noise"), lambda: target(x, x, a, a, "noise")):
        with pytest.raises(ValueError, match="noise.*eps.*x0"):
            call()
