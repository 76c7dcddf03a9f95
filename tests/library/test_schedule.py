"""Noise schedules, against the chains and the papers' formulas that they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import close, f64
from hypothesis import given
from hypothesis import strategies as st

from ddpm_lib import chain as chains
from ddpm_lib import schedule as schedules
from ddpm_lib.schedule import PATHS, SCHEDULES, Schedule, from_chain, make

EVERY = {name: make(name) for name in SCHEDULES} | {
    "linear, short": schedules.linear(10),
    "zero terminal": from_chain(chains.rescale_zero_terminal(chains.linear(100))),
    "edm, other": schedules.edm(0.01, 20.0, 3.0),
}
every = pytest.mark.parametrize("schedule", EVERY.values(), ids=EVERY.keys())
CHAINS = {
    "linear": chains.linear(),
    "linear, 4000": chains.linear(4000, 2.5e-5, 0.005),
    "cosine": chains.cosine(),
    "sigmoid": chains.sigmoid(777),
    "zero terminal": chains.rescale_zero_terminal(chains.cosine(64)),
    "one step": chains.linear(1),
}


@every
def test_logsnr_falls_strictly(schedule):
    logsnr = schedule.logsnr(torch.linspace(0, 1, 4001, dtype=torch.float64))
    assert (logsnr[1:] < logsnr[:-1]).all()
    assert not logsnr.isnan().any()


@given(st.sampled_from(sorted(EVERY)), st.floats(0, 1), st.floats(0, 1))
def test_logsnr_falls_between_any_two_times(name, t, u):
    # a chain's knots are a few 1e-6 wide, so that a rounded t still meets them
    if abs(t - u) > 1e-5:
        early, late = EVERY[name].logsnr(f64([min(t, u), max(t, u)])).tolist()
        assert early > late


@every
def test_signal_and_noise_are_the_logsnr_and_lie_on_the_path(schedule):
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    logsnr, a, s = schedule.at(t)
    assert torch.equal(torch.stack(schedule.signal_noise(t)), torch.stack([a, s]))
    assert a.dtype == s.dtype == torch.float64 and a.shape == s.shape == t.shape
    assert (a >= 0).all() and (s >= 0).all()
    on_path = {"vp": a**2 + s**2, "flow": a + s, "ve": a}[schedule.path]
    close(on_path, 1.0, 1e-14)
    inner = logsnr.isfinite()
    assert inner.sum() >= 999
    close(2 * (a[inner].log() - s[inner].log()), logsnr[inner], 1e-10)
    assert ((s[~inner] == 0) | (a[~inner] == 0)).all()


@pytest.mark.parametrize("schedule", [EVERY[n] for n in ("linear", "cosine", "sigmoid", "flow")])
def test_time_0_is_the_clean_image(schedule):
    a, s = schedule.signal_noise(0.0)
    assert float(a) == 1 and float(s) == 0
    x0, eps = torch.randn(2, 2, 3)
    assert torch.equal(schedule.add_noise(x0, 0.0, eps), x0)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_chain_is_met_exactly_at_its_knots(chain, dtype):
    schedule, steps = from_chain(chain), chain.steps
    t = (torch.arange(steps + 1, dtype=torch.float64) / steps).to(dtype)
    a, s = schedule.signal_noise(t)
    close(a**2, chain.alpha_bar, 1e-14)
    close(s, (1 - chain.alpha_bar).sqrt(), 1e-12)
    # relative, where log-SNR is compared: the last alpha_bar of a cosine chain is 2e-9
    inner = chain.alpha_bar[1:] > 0
    wanted = (chain.alpha_bar / (1 - chain.alpha_bar)).log()[1:][inner]
    close(schedule.logsnr(t.double())[1:][inner], wanted, 1e-10 if dtype == torch.float64 else 1e-5)
    for i in {0, 1, steps // 2, steps}:
        assert float(schedule.signal_noise(i / steps)[0]) == pytest.approx(float(chain.alpha_bar[i]) ** 0.5)


def test_alpha_bar_is_linear_between_knots():
    chain = chains.cosine(10)
    a, _ = from_chain(chain).signal_noise(f64([0.03, 0.57, 0.99]))
    bar = chain.alpha_bar
    close(
        a**2,
        torch.stack([0.7 * bar[0] + 0.3 * bar[1], 0.3 * bar[5] + 0.7 * bar[6], 0.1 * bar[9] + 0.9 * bar[10]]),
    )


@given(st.sampled_from(["linear", "cosine", "sigmoid"]), st.integers(2, 400), st.data())
def test_times_fall_strictly_along_knots(name, steps, data):
    schedule = make(name, steps=steps)
    count = data.draw(st.integers(1, steps))
    times = schedule.times(count)
    assert times.shape == (count + 1,) and times.dtype == torch.float64
    assert times[0] == 1 and times[-1] == 0
    assert (times[1:] < times[:-1]).all()
    knots = times * steps
    assert (knots - knots.round()).abs().max() < 1e-9
    # as evenly as whole steps allow
    assert (knots - torch.linspace(steps, 0, count + 1, dtype=torch.float64)).abs().max() <= 0.5 + 1e-9


@pytest.mark.parametrize("name", ["flow", "edm"])
@pytest.mark.parametrize("count", [1, 7, 1000])
def test_times_without_a_chain_are_even(name, count):
    times = make(name).times(count)
    close(times, torch.linspace(1, 0, count + 1, dtype=torch.float64), 1e-15)
    assert times[0] == 1 and times[-1] == 0


@pytest.mark.parametrize("count", [0, -1, 2.5, 11])
def test_impossible_numbers_of_steps_are_refused(count):
    with pytest.raises(ValueError, match="11" if count == 11 else "at least 1 step"):
        schedules.linear(10).times(count)


def test_flow_is_the_straight_path():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    a, s = schedules.flow().signal_noise(t)
    close(a, 1 - t, 1e-15)
    close(s, t, 1e-15)
    x0, eps = torch.randn(2, 3, 4, dtype=torch.float64)
    close(schedules.flow().add_noise(x0, f64([0, 0.3, 1]), eps)[1], 0.7 * x0[1] + 0.3 * eps[1], 1e-15)


def test_edm_is_equation_5():
    sigma_min, sigma_max, rho, count = 0.002, 80.0, 7.0, 18
    sigmas = [
        (sigma_max ** (1 / rho) + i / (count - 1) * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
        for i in range(count)
    ]
    schedule = schedules.edm()
    a, s = schedule.signal_noise(schedule.times(count - 1))
    assert (a == 1).all()
    torch.testing.assert_close(s, f64(sigmas), rtol=1e-12, atol=0)


def test_a_number_keeps_its_digits():
    # a Python number that passes through float32 is another time, and a sampler's a and s then miss the denoiser's
    t = 1 / 3
    for name in SCHEDULES:
        assert make(name).signal_noise(t)[1] == make(name).signal_noise(f64(t))[1]
    assert float(schedules.flow().signal_noise(t)[1]) == pytest.approx(t, rel=1e-15)


def test_splits_share_one_logsnr():
    logsnr = torch.linspace(-30, 30, 61, dtype=torch.float64)
    for split in PATHS.values():
        a, s = split(logsnr)
        close(2 * (a.log() - s.log()), logsnr, 1e-12)


@pytest.mark.parametrize(
    ("name", "left"), [("linear", 0.00635), ("cosine", 4.9e-5), ("flow", 0.0), ("edm", 0.0125)]
)
def test_signal_left_at_the_end(name, left):
    assert schedules.signal_left(make(name)) == pytest.approx(left, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noising_keeps_the_images_dtype_and_the_scales_digits(dtype):
    schedule = schedules.linear()
    x0, eps = torch.randn(2, 3, 1, 4, 4, dtype=dtype)
    t = f64([0.001, 0.5, 1.0])
    x_t = schedule.add_noise(x0, t, eps)
    assert x_t.dtype == dtype
    torch.testing.assert_close(
        x_t, chains.linear().add_noise(x0, (t * 1000).round().long(), eps), rtol=0, atol=1e-6
    )
    noise = schedule.add_noise(torch.zeros(1, 1, dtype=dtype), 0.001, torch.ones(1, 1, dtype=dtype))
    assert float(noise) == pytest.approx(0.01, rel=2e-7)
    assert torch.equal(schedule.add_noise(x0, 0.5, eps)[1], x_t[1])


def test_a_schedule_can_be_made_again_from_its_name_and_options():
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    for name, options in {
        "linear": {"steps": 30, "first": 1e-3, "last": 0.3},
        "cosine": {"steps": 30, "offset": 0.02, "max_beta": 0.9},
        "sigmoid": {"steps": 30, "start": -2.0, "end": 5.0, "tau": 0.5},
        "flow": {},
        "edm": {"sigma_min": 0.1, "sigma_max": 9.0, "rho": 2.0},
    }.items():
        schedule = make(name, **options)
        assert schedule.name == name and schedule.options == options
        again = make(schedule.name, **schedule.options)
        assert torch.equal(again.logsnr(t), schedule.logsnr(t))
        if options:
            assert not torch.equal(make(name).logsnr(t), schedule.logsnr(t))


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match="'quadratic'.*linear, cosine, sigmoid, flow, edm"):
        make("quadratic")
    with pytest.raises(ValueError, match="'sub-vp'.*vp, flow, ve"):
        Schedule("mine", lambda t: -t, "sub-vp")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (math.nan, 1.0)])
def test_impossible_edm_ranges_are_refused(low, high):
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        schedules.edm(low, high)
