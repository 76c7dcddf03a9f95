"""The Rosetta stone: every translation comes back, and says of the library what the page says."""

from __future__ import annotations

import math
import re

import nbformat
import numpy as np
import pytest
import torch
from conftest import cells_of, close, f64
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from ddpm_lib import chain, denoiser, sampling, schedule
from ddpm_lib.training import min_snr

shares = st.floats(1e-6, 1 - 1e-6)
numbers = st.floats(-5, 5)
CHAINS = {"linear": chain.linear(1000), "cosine": chain.cosine(200), "short": chain.linear(50, 0.002, 0.4)}


@pytest.fixture(scope="module")
def cells() -> dict[str, nbformat.NotebookNode]:
    return cells_of("rosetta")


def run(cells, out: list[str] | None = None) -> dict:
    said = [] if out is None else out
    names = {"print": lambda *words: said.append(" ".join(map(str, words)))}
    for cell in cells.values():
        if cell.cell_type == "code" and cell.id != "setup":
            exec(cell.source, names)
    return names


@pytest.fixture(scope="module")
def page(cells) -> dict:
    return run(cells)


def test_every_round_trip_on_the_page_comes_back(cells):
    said = []
    run(cells, said)
    answers = [line.partition(": ")[2] for line in said if ": " in line]
    assert sum("yes" in answer or answer == "True" for answer in answers) >= 18
    assert not any("NO" in answer or answer == "False" for answer in answers)


def test_a_trip_that_does_not_come_back_is_said(page):
    assert page["same"](f64([1.0]), f64([1.0 + 1e-6])) == "NO"


def test_each_section_goes_there_and_back(cells):
    code = [cell.source for cell in cells.values() if cell.cell_type == "code"]
    assert sum("there and back" in source for source in code) >= 8


# --- DDIM


@pytest.mark.equation("eq-rosetta-ddim-alpha")
@pytest.mark.parametrize("name", CHAINS)
def test_ddims_alpha_is_our_alpha_bar(page, name):
    ours = CHAINS[name]
    close(page["to_ddim"](ours.beta), ours.alpha_bar, 1e-12)
    alpha_bar, beta = page["from_ddim"](ours.alpha_bar)
    close(alpha_bar, ours.alpha_bar, 0)
    close(beta, ours.beta, 1e-9)
    close(alpha_bar[1:] / alpha_bar[:-1], ours.alpha[1:], 1e-9)


@pytest.mark.equation("eq-rosetta-ddim-step")
@pytest.mark.parametrize("t", [1, 2, 300, 1000])
def test_ddims_step_in_its_letters_is_the_librarys(page, t):
    ours, table = CHAINS["linear"], schedule.linear(1000)
    x, eps = torch.randn(2, 4, 3, dtype=torch.float64)
    bar = ours.alpha_bar[t]
    x0 = (x - (1 - bar).sqrt() * eps) / bar.sqrt()
    moves = sampling.ddim(lambda *_: x0, x, table, f64([t / 1000, (t - 1) / 1000]))
    close(page["ddim_step"](x, eps, page["to_ddim"](ours.beta), t), sampling.last(moves), 1e-6)
    if t > 1:  # with the other paper's alpha it is another step
        wrong = page["ddim_step"](x, eps, ours.alpha, t)
        assert (wrong - page["ddim_step"](x, eps, ours.alpha_bar, t)).abs().max() > 1e-4


# --- improved-diffusion, diffusers


@pytest.mark.equation("eq-rosetta-index")
@pytest.mark.parametrize(("steps", "first", "last"), [(1000, 1e-4, 0.02), (50, 0.002, 0.4)])
def test_their_table_begins_one_step_later(page, steps, first, last):
    theirs = np.cumprod(1 - np.linspace(first, last, steps))
    ours = chain.linear(steps, first, last).alpha_bar
    close(page["from_cumprod"](f64(theirs)), ours, 1e-12)
    close(page["to_cumprod"](ours), theirs, 1e-12)
    for i in (0, 1, steps - 1):
        assert theirs[i] == pytest.approx(ours[i + 1].item(), abs=1e-12)
    assert len(ours) == steps + 1 and ours[0] == 1


# --- variational diffusion models


@pytest.mark.equation("eq-rosetta-gamma")
@given(shares)
def test_gamma_goes_there_and_back(page, share):
    gamma = page["to_gamma"](f64(share))
    close(page["from_gamma"](gamma), share, 1e-9)
    close(torch.sigmoid(gamma), 1 - share, 1e-9)
    assert gamma.item() == pytest.approx(-math.log(share / (1 - share)), abs=1e-6)


@pytest.mark.equation("eq-rosetta-gamma")
@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid"])
def test_gamma_is_minus_our_logsnr(page, name):
    time = torch.arange(1, 1000, dtype=torch.float64) / 1000
    logsnr, a, s = schedule.make(name).at(time)
    close(page["to_gamma"](a**2), -logsnr, 1e-6)
    close(page["from_gamma"](-logsnr), a**2, 1e-12)


# --- EDM


@pytest.mark.equation("eq-rosetta-sigma")
@given(st.floats(1e-3, 1 - 1e-6), numbers, numbers)
def test_sigma_goes_there_and_back(page, share, picture, noise):
    share, x0, eps = f64(share), f64(picture), f64(noise)
    x_t = share.sqrt() * x0 + (1 - share).sqrt() * eps
    x_edm, sigma = page["to_edm"](x_t, share)
    close(x_edm, x0 + sigma * eps, 1e-6)
    back, bar = page["from_edm"](x_edm, sigma)
    close(back, x_t, 1e-6)
    close(bar, share, 1e-6)
    close(share.sqrt(), 1 / (1 + sigma**2).sqrt(), 1e-9)


@pytest.mark.equation("eq-rosetta-sigma")
def test_edms_schedule_has_signal_one_and_noise_sigma():
    edm, low, high = schedule.edm(), 0.002 ** (1 / 7), 80 ** (1 / 7)
    for time in (0.0, 0.3, 1.0):
        a, s = edm.signal_noise(time)
        assert (a.item(), s.item()) == pytest.approx((1, (low + time * (high - low)) ** 7), rel=1e-9)


@pytest.mark.equation("eq-rosetta-precondition", "eq-rosetta-edm-target")
@pytest.mark.parametrize("data", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("sigma", [0.002, 0.3, 1.0, 80.0])
def test_edms_network_is_asked_for_a_pair(page, monkeypatch, sigma, data):
    monkeypatch.setattr(denoiser, "SIGMA_DATA", data)
    x0, eps, sigma = *torch.randn(2, 50, dtype=torch.float64), f64(sigma)
    noisy = x0 + sigma * eps
    c_skip, c_out, c_in = page["factors"](sigma, data)
    p, q = page["edm_target"](sigma, data)
    target = p * x0 + q * eps
    close(c_skip * noisy + c_out * target, x0, 1e-9)
    close((x0 - c_skip * noisy) / c_out, target, 1e-6)
    # the reason for the factors: the network's input and target have variance 1 for data of that spread
    n = 200_000
    draws = torch.randn(2, n, dtype=torch.float64)
    for seen in (c_in * (data * draws[0] + sigma * draws[1]), p * data * draws[0] + q * draws[1]):
        assert abs(seen.var().item() - 1) < 4 * (2 / n) ** 0.5
    # the same pair in the library, whichever path x_t takes
    for a in (f64(1.0), 1 / (1 + sigma**2).sqrt()):
        close(denoiser.target(x0, eps, a, a * sigma, "edm"), target, 1e-9)


@pytest.mark.equation("eq-rosetta-edm-target")
@given(shares)
def test_edm_with_unit_data_is_minus_v(page, share):
    a, s = f64(share).sqrt(), (1 - f64(share)).sqrt()
    p, q = page["edm_target"](s / a, data=1.0)
    expected = denoiser.coefficients("v", a, s)
    close(torch.stack([p, q]), -torch.stack(expected), 1e-9)


# --- flow matching


@pytest.mark.equation("eq-rosetta-flow")
@given(st.floats(0.001, 0.999), numbers, numbers)
def test_flow_goes_there_and_back(page, tau, picture, noise):
    x1, x0 = f64([picture]), f64([noise])  # their letters
    position = lambda tau: tau * x1 + (1 - tau) * x0  # noqa: E731
    t, y = page["from_flow"](tau, x1 - x0)
    close(schedule.flow().add_noise(x1, t, x0), position(tau), 1e-9)
    close(denoiser.target(x1, x0, *schedule.flow().signal_noise(t), "flow"), y, 1e-9)
    back_time, back = page["to_flow"](t, y)
    close(back, x1 - x0, 1e-9)
    assert back_time == pytest.approx(tau, abs=1e-9)
    # the velocity is the slope: in their time of the path, in our time its negative
    close((position(tau + 1e-4) - position(tau - 1e-4)) / 2e-4, x1 - x0, 1e-6)


# --- score SDEs


@pytest.mark.equation("eq-rosetta-vpsde")
@pytest.mark.parametrize("time", [0.0, 0.1, 0.5, 1.0])
def test_the_vp_sde_is_where_the_page_says(page, time):
    """Against the moments of the SDE: its mean and variance obey ordinary differential equations."""
    beta = lambda u: 0.1 + u * (20 - 0.1)  # noqa: E731
    moments = lambda u, m: [-beta(u) / 2 * m[0], beta(u) * (1 - m[1])]  # noqa: E731
    solved = integrate.solve_ivp(moments, (0, time), [1.0, 0.0], rtol=1e-10, atol=1e-12).y[:, -1]
    share = page["from_vpsde"](f64(time)).item()
    assert (share**0.5, 1 - share) == pytest.approx(tuple(solved), abs=1e-8)
    assert share == pytest.approx(math.exp(-integrate.quad(beta, 0, time)[0]), abs=1e-9)


@given(st.floats(0, 1), st.floats(0.01, 1), st.floats(2, 40))
def test_the_time_of_the_sde_goes_there_and_back(page, time, low, high):
    share = page["from_vpsde"](f64(time), low, high)
    if share > 1e-12:
        close(page["to_vpsde"](share, low, high), time, 1e-6)


@pytest.mark.equation("eq-rosetta-vpsde")
def test_a_chain_of_many_steps_is_nearly_the_sde(page):
    gaps = []
    for steps in (100, 1000, 10_000):
        time = torch.arange(steps + 1, dtype=torch.float64) / steps
        ours = chain.linear(steps, 0.1 / steps, 20 / steps).alpha_bar
        gaps.append((page["from_vpsde"](time) - ours).abs().max().item())
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2] and gaps[1] < 1e-3
    ddpm = CHAINS["linear"].beta
    assert (ddpm[1].item(), ddpm[-1].item()) == pytest.approx((0.1 / 1000, 20 / 1000))


@pytest.mark.equation("eq-rosetta-score")
@given(shares, numbers, numbers)
def test_score_and_noise(page, share, picture, noise):
    a, s = f64(share).sqrt(), (1 - f64(share)).sqrt()
    x0, eps = f64([picture]), f64([noise])
    x_t = (a * x0 + s * eps).requires_grad_(True)
    log_density = torch.distributions.Normal(a * x0, s).log_prob(x_t).sum()
    (gradient,) = torch.autograd.grad(log_density, x_t)
    close(gradient * s, page["to_score"](eps, s) * s, 1e-6)
    close(gradient * s, -(x_t.detach() - a * x0) / s, 1e-6)
    close(page["from_score"](page["to_score"](eps, s), s), eps, 1e-9)


# --- guidance


@pytest.mark.equation("eq-rosetta-guidance")
@given(st.floats(0, 10), numbers, numbers)
def test_three_ways_to_write_guidance(page, scale, with_label, without):
    cond, uncond = f64([with_label]), f64([without])
    ours = page["ours_guided"](cond, uncond, scale)
    close(page["ho_salimans"](cond, uncond, page["to_ho_salimans"](scale)), ours, 1e-9)
    close(page["imagen"](cond, uncond, scale), ours, 1e-9)
    assert page["from_ho_salimans"](page["to_ho_salimans"](scale)) == pytest.approx(scale, abs=1e-9)


@pytest.mark.equation("eq-rosetta-guidance")
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_ours_is_the_librarys(page, scale):
    answers = {1: f64([[1.0, -2.0]]), 0: f64([[0.5, 4.0]])}

    def denoise(x, t, label):
        known = torch.ones(len(x)) if label is None else (label >= 0).float()
        known = torch.zeros(len(x)) if label is None else known
        return torch.cat([answers[int(k)] for k in known])

    guided = sampling.guided(denoise, torch.tensor([3]), scale)(torch.zeros(1, 2, dtype=torch.float64), 0.5)
    close(guided, page["ours_guided"](answers[1], answers[0], scale), 1e-9)


# --- min-SNR


@pytest.mark.equation("eq-rosetta-min-snr")
@pytest.mark.parametrize("predict", ["x0", "eps", "v"])
@given(shares, numbers)
def test_three_weights_say_the_same(page, predict, share, wrong_by):
    """An error in x_0, expressed in the units of each target for the same x_t, costs the same."""
    a, s = f64(share).sqrt(), (1 - f64(share)).sqrt()
    snr = (a / s) ** 2
    x0, eps = f64([0.3]), f64([-1.1])
    x_t, guess = a * x0 + s * eps, x0 + wrong_by
    guessed_eps = (x_t - a * guess) / s
    error = denoiser.target(guess, guessed_eps, a, s, predict) - denoiser.target(x0, eps, a, s, predict)
    loss = page["min_snr"](snr, predict) * error.square()
    close(loss, snr.clamp(max=5) * wrong_by**2, 1e-6 * (1 + wrong_by**2))


@pytest.mark.equation("eq-rosetta-min-snr")
@pytest.mark.parametrize("predict", ["x0", "eps", "v"])
def test_the_weights_are_the_librarys(page, predict):
    logsnr = torch.linspace(-9, 9, 50, dtype=torch.float64)
    weigh = min_snr(5.0, denoiser.Denoiser(lambda x, *_: x, schedule.linear(), predict))
    close(page["min_snr"](logsnr.exp(), predict), weigh(logsnr), 1e-9)


# --- the table


def test_the_table_has_at_least_six_papers_and_five_libraries(cells):
    rows = [line for line in cells["table"].source.splitlines() if line.startswith("| ")]
    assert sum("](https://arxiv.org/abs/" in row for row in rows) >= 6
    assert sum(re.match(r"\| (`ddpm_lib`|improved-|diffusers|lucidrains|k-diffusion|DDIM's)", row) is not None for row in rows) == 6  # fmt: skip
