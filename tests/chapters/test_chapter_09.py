"""Chapter 9: the code that it writes out is the library's, its equations are true, its claims hold."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import cells_of, close, f64

from ddpm_lib import sampling
from ddpm_lib.checkpoint import pretrained
from ddpm_lib.exercises import check
from ddpm_lib.layers import Conditioning
from ddpm_lib.schedule import cosine
from ddpm_lib.toy import Gaussian, Mixture

SCHEDULE = cosine(1000)
DEFINITIONS = (
    "tell-code", "drop", "world", "hidden", "steer", "with-labels", "flow-steps", "hint", "promise-code", "flow-code",
    "gauss-code", "gauss-check",
    "styles-code", "styles-promise-code", "bug-code", "bug-symptom", "bug-check", "interval-check",
)  # fmt: skip
HINTS = [(1.0, 0.5), (-0.7, 0.8), (1.6, 0.15)]
"""Mean and variance of a class whose data are N(0, 1)."""


@pytest.fixture(scope="module")
def cells() -> dict[str, str]:
    return {name: cell.source for name, cell in cells_of("09_asking_for_a_seven").items()}


@pytest.fixture(scope="module")
def book(cells) -> dict:
    """What the cells that define things leave behind, in the order of the chapter; what they print is kept."""
    said: list[str] = []
    names = {
        "torch": torch,
        "model": pretrained("mnist28").denoiser(),
        "print": lambda *values, end="\n", sep=" ": said.append(sep.join(map(str, values)) + end),
        "said": said,
    }
    for library in ("guided", "last"):
        names[library] = getattr(sampling, library)
    for name in DEFINITIONS:
        exec(cells[name], names)
    exec(cells["noisy-check"].split("\nn, generator")[0], names)
    return names


def uneven() -> tuple[Mixture, list[Mixture]]:
    """A world of three classes of unlike weights and widths, and its classes; the last has two spots."""
    weights, stds = f64([0.2, 0.5, 0.2, 0.1]), f64([0.5, 0.3, 0.4, 0.2])
    means = torch.randn(4, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    classes = [[0], [1], [2, 3]]
    return Mixture(weights, means, stds), [Mixture(weights[k], means[k], stds[k]) for k in classes]


def chances(world: Mixture, x: torch.Tensor, t: float) -> torch.Tensor:
    spot = world.posterior(x, SCHEDULE, t)
    return torch.stack([spot[:, 0], spot[:, 1], spot[:, 2] + spot[:, 3]], dim=1)


def points(count: int = 60, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def times(steps: int) -> torch.Tensor:
    """As schedule.times, but finer than the chain if need be."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


def gaussian_hint(m: float, r: float):
    """An exact denoiser for N(0, 1) without and N(m, r) with the label 0."""
    known = Gaussian(f64([m]), r).denoiser(SCHEDULE)
    unknown = Gaussian(f64([0.0]), 1.0).denoiser(SCHEDULE)

    def denoise(x, t, label=None):
        if label is None:
            return unknown(x, t)
        return torch.where(label[:, None] == 0, known(x, t), unknown(x, t))

    return denoise


def drawn(m: float, r: float, scale: float, steps: int = 200, interval=(0.0, 1.0)) -> tuple[float, float]:
    """Mean and variance of guided draws without fresh noise, from two starts: the path is affine in its start."""
    guess = sampling.guided(gaussian_hint(m, r), torch.zeros(2).long(), scale, interval)
    starts = f64([[0.0], [1.0]])
    low, high = sampling.last(sampling.heun(guess, starts, SCHEDULE, times(steps)))
    return low.item(), (high - low).item() ** 2


# --- the code is the library's


@pytest.mark.equation("eq-told-label")
def test_tell_is_what_the_shipped_network_does(book):
    part = book["model"].net.conditioning
    label = torch.tensor([-1, *range(10), 3])
    logsnr = torch.linspace(-9, 9, len(label))
    with torch.no_grad():
        close(book["tell"](logsnr, label), part(logsnr, label), 1e-6)
        close(book["tell"](logsnr, torch.full_like(label, -1)), part(logsnr), 1e-6)


@pytest.mark.equation("eq-told-label")
def test_eq_told_the_label_adds_its_row_at_any_time():
    torch.manual_seed(0)
    part = Conditioning(16, 24, num_classes=5)
    logsnr, label = torch.linspace(-5, 5, 6), torch.tensor([0, 1, 2, 3, 4, -1])
    with torch.no_grad():
        for k in range(5):
            moved = part(logsnr, torch.full((6,), k)) - part(logsnr)
            close(moved, (part.label.weight[k] - part.label.weight[5]).expand(6, 24), 1e-5)
        close(part(logsnr, label)[-1:], part(logsnr[-1:]), 1e-6)


@pytest.mark.equation("eq-guidance")
@pytest.mark.parametrize("scale", [0, 0.3, 1, 2.5, 7])
def test_steer_is_the_librarys(book, scale):
    world, classes = uneven()
    denoise, x, label = book["with_labels"](classes, world), points(), torch.arange(60) % 3
    ours = book["steer"](denoise, label, scale)(x, 0.6)
    close(ours, sampling.guided(denoise, label, scale)(x, 0.6), 1e-6)
    assert scale != 1 or torch.equal(ours, denoise(x, 0.6, label))
    assert scale != 0 or torch.equal(ours, denoise(x, 0.6))


def test_with_labels_gives_each_row_its_own_class(book):
    world, classes = uneven()
    x, label = points(), torch.arange(60) % 4 - 1
    mixed = book["with_labels"](classes, world)(x, 0.5, label)
    for k, one in enumerate([world, *classes], -1):
        close(mixed[label == k], one.denoiser(SCHEDULE)(x, 0.5)[label == k], 1e-12)


# --- the equations


@pytest.mark.equation("eq-drop", "eq-dropped")
def test_labels_are_hidden_each_on_its_own(book):
    generator = torch.Generator().manual_seed(0)
    batches, size, share = 4000, 64, 0.1
    label = torch.randint(10, (batches, size), generator=generator)
    new = torch.stack([book["drop_labels"](row, share, generator) for row in label])
    hidden = new < 0
    assert torch.equal(new[~hidden], label[~hidden]) and bool((new[hidden] == -1).all())
    count, variance = hidden.sum(1).double(), share * (1 - share) * size
    assert abs(count.mean() - share * size) < 4 * (variance / batches) ** 0.5
    assert abs(count.var() / variance - 1) < 4 * (2 / batches) ** 0.5
    for k in range(10):
        mine = hidden[label == k].double()
        assert abs(mine.mean() - share) < 4 * (share * (1 - share) / len(mine)) ** 0.5
    pairs = (hidden[:, :-1] & hidden[:, 1:]).double().mean().item()
    assert abs(pairs - share**2) < 4 * (share**2 / (batches * (size - 1))) ** 0.5


@pytest.mark.equation("eq-average")
@pytest.mark.parametrize("t", [0.05, 0.4, 0.8, 0.99])
def test_eq_average_of_the_answers_with_a_label(t):
    world, classes = uneven()
    x = points()
    parts = [one.denoiser(SCHEDULE)(x, t) for one in classes]
    average = sum(w[:, None] * part for w, part in zip(chances(world, x, t).T, parts, strict=True))
    close(average, world.denoiser(SCHEDULE)(x, t), 1e-9)


@pytest.mark.equation("eq-hidden-classifier")
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("k", [0, 2])
def test_eq_hidden_classifier_by_autograd(book, t, k):
    world, classes = uneven()
    x = points().requires_grad_()
    (gradient,) = torch.autograd.grad(chances(world, x, t)[:, k].log().sum(), x)
    x = x.detach()
    told, untold = (book["score_of"](w.denoiser(SCHEDULE)(x, t), x, t) for w in (classes[k], world))
    close(told - untold, gradient, 1e-8)


@pytest.mark.equation("eq-guided-score", "eq-guidance")
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_eq_guided_score_is_the_gradient_of_the_tilted_noisy_density(book, t, scale):
    world, classes = uneven()
    x = points().requires_grad_()
    log_tilted = world.log_prob(x, SCHEDULE, t) + scale * chances(world, x, t)[:, 2].log()
    (gradient,) = torch.autograd.grad(log_tilted.sum(), x)
    x = x.detach()
    denoise, label = book["with_labels"](classes, world), torch.full((60,), 2)
    close(book["score_of"](sampling.guided(denoise, label, scale)(x, t), x, t), gradient, 1e-7)


@pytest.mark.equation("eq-guidance")
@pytest.mark.parametrize("scale", [0.0, 0.5, 4.0])
def test_eq_guidance_is_one_formula_under_every_name(scale):
    a, s = SCHEDULE.signal_noise(0.6)
    x, told, untold = points(seed=1), points(seed=2), points(seed=3)
    under = {
        "x0": lambda x0: x0,
        "eps": lambda x0: (x - a * x0) / s,
        "v": lambda x0: (a * x - x0) / s,
    }
    guess = untold + scale * (told - untold)
    for name in under.values():
        close(name(untold) + scale * (name(told) - name(untold)), name(guess), 1e-10)


@pytest.mark.equation("eq-promise")
@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_eq_promise_is_what_the_guided_score_says_at_the_clean_end(book, scale):
    x = torch.linspace(-0.8, 2, 40, dtype=torch.float64)[:, None]
    score = book["score_of"](sampling.guided(book["styles"], torch.ones(40).long(), scale)(x, 1e-4), x, 1e-4)
    x.requires_grad_()
    chance = book["line"].posterior(x, SCHEDULE, 0.0)[:, 1:].sum(1)
    (gradient,) = torch.autograd.grad(
        (book["line"].log_prob(x, SCHEDULE, 0.0) + scale * chance.log()).sum(), x
    )
    torch.testing.assert_close(score, gradient, rtol=2e-3, atol=2e-3)


@pytest.mark.equation("eq-promise", "eq-promise-gaussian")
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0, 6.0])
@pytest.mark.parametrize(("seen", "std"), [(2.0, 1.0), (-1.0, 0.6), (0.4, 2.0)])
def test_eq_promise_gaussian_by_quadrature(book, seen, std, scale):
    x = torch.linspace(-12, 12, 48_001, dtype=torch.float64)
    height = (-(x**2) / 2 - scale * (seen - x) ** 2 / (2 * std**2)).exp()  # p(x) p(y | x)^s
    height = height / height.sum()
    mean = (height * x).sum().item()
    hinted = Gaussian(f64([0.0]), 1.0).given(f64([[1.0]]), f64([seen]), std)
    wanted = book["promised"](hinted.mean.item(), hinted.covariance.item(), scale)
    close(f64([mean, (height * (x - mean) ** 2).sum().item()]), f64(wanted), 1e-8)


@pytest.mark.equation("eq-guided-flow")
@pytest.mark.parametrize(("m", "r"), HINTS)
@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("t", [0.2, 0.6, 0.9])
def test_eq_guided_flow_is_the_slope_of_a_plain_step(book, m, r, scale, t):
    ratio = [sn / a for a, sn in (SCHEDULE.signal_noise(u) for u in (t, t - 2e-4))]
    x = f64([[-1.3], [0.2], [0.9]])
    guess = sampling.guided(gaussian_hint(m, r), torch.zeros(3).long(), scale)
    moved = sampling.last(sampling.ddim(guess, x, SCHEDULE, torch.tensor([t, t - 2e-4], dtype=torch.float64)))
    z, after = (y / SCHEDULE.signal_noise(u)[0] for y, u in ((x, t), (moved, t - 2e-4)))
    sigma = ratio[0]
    formula = sigma * ((1 - scale) * z / (1 + sigma**2) + scale * (z - m) / (r + sigma**2))
    torch.testing.assert_close((after - z) / (ratio[1] - sigma), formula, rtol=5e-3, atol=1e-3)
    if (m, r) == (1.0, 0.5):  # the chapter's own
        close(book["slope"](z, sigma, scale), formula, 1e-9)


@pytest.mark.equation("eq-guided-variance", "eq-guided-mean")
@pytest.mark.parametrize(("m", "r"), HINTS)
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0, 4.5])
def test_eq_guided_mean_and_variance_are_the_samplers(book, m, r, scale):
    mean, variance = drawn(m, r, scale, steps=300)
    formula = book["flowed"](m, r, scale)
    assert mean == pytest.approx(formula[0], rel=3e-3, abs=1e-3)
    assert variance == pytest.approx(formula[1], rel=5e-3)


@pytest.mark.equation("eq-guided-mean")
@pytest.mark.parametrize(("m", "r"), HINTS)
def test_eq_guided_mean_where_the_integral_is_known(book, m, r):
    for scale, wanted in (
        (1, m),
        (3, m * (1 + 2 * r)),
        (5, 5 * m * (r**2 + 2 * r * (1 - r) / 3 + (1 - r) ** 2 / 5)),
    ):
        assert book["flowed"](m, r, scale)[0] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.equation("eq-guided-variance")
def test_eq_guided_variance_is_below_the_promise(book):
    for r in (0.05, 0.3, 0.5, 0.9):
        for scale in (1.01, 1.5, 3, 8):
            assert book["flowed"](1.0, r, scale)[1] < book["promised"](1.0, r, scale)[1]
        assert book["flowed"](1.0, r, 1)[1] == pytest.approx(book["promised"](1.0, r, 1)[1])


def law_of_the_loop(m: float, r: float, scale: float, steps: int) -> torch.Tensor:
    """Mean and variance of DDPM's loop, step by step: each is affine in x, plus noise of a known variance."""
    guess = sampling.guided(gaussian_hint(m, r), torch.zeros(2).long(), scale)
    mean, variance = 0.0, 1.0
    knots = sampling._knots(SCHEDULE, times(steps))
    for start, end in zip(knots, knots[1:], strict=False):
        x = f64([[0.0], [1.0]])
        sigma = sampling._posterior_std(start, end)
        low, high = sampling.move(x, guess(x, start.t), start, end, sigma, sigma, torch.zeros(2, 1)).flatten()
        mean = (low + (high - low) * mean).item()
        variance = ((high - low) ** 2 * variance + sigma**2).item()
    return f64([mean, variance])


@pytest.mark.equation("eq-guided-noisy")
@pytest.mark.parametrize(("m", "r"), HINTS)
@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_eq_guided_noisy_by_the_law_of_each_step(book, m, r, scale):
    # the error falls like 1 / steps, so two step numbers tell the limit
    limit = 2 * law_of_the_loop(m, r, scale, 800) - law_of_the_loop(m, r, scale, 400)
    torch.testing.assert_close(limit, f64(book["noisy"](m, r, scale)), rtol=5e-3, atol=1e-4)


@pytest.mark.equation("eq-guided-noisy")
def test_eq_guided_noisy_is_the_class_at_scale_one(book):
    for m, r in HINTS:
        close(f64(book["noisy"](m, r, 1.0)), f64([m, r]), 1e-12)


@pytest.mark.equation("eq-guided-noisy")
def test_eq_guided_noisy_has_a_limit_at_one_half(book):
    for m, r in HINTS:
        variance = r * math.log(1 / r) / (1 - r)
        assert book["noisy"](m, r, 0.5 + 1e-7)[1] == pytest.approx(variance, rel=1e-5)
    limit = 2 * law_of_the_loop(m, r, 0.5, 400) - law_of_the_loop(m, r, 0.5, 200)
    assert limit[1].item() == pytest.approx(variance, rel=1e-2)


@pytest.mark.equation("eq-interval")
@pytest.mark.parametrize(("m", "r"), HINTS)
@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.3, 0.7), (0.4, 1.0)])
def test_eq_interval_by_quadrature_of_the_distance_of_two_paths(m, r, low, high):
    scale = 3.5
    sigma = torch.logspace(-4, 4, 400_001, dtype=torch.float64)
    noise = [(sn / a).item() for a, sn in (SCHEDULE.signal_noise(u) for u in (low, high))]
    inside = (sigma >= noise[0]) & (sigma <= noise[1])
    strength = torch.where(inside, scale, 1.0)
    slope = sigma * ((1 - strength) / (1 + sigma**2) + strength / (r + sigma**2))
    variance = (sigma[-1] / torch.trapezoid(slope, sigma).exp()).item() ** 2
    rho = [(r + n**2) / (1 + n**2) for n in noise]
    formula = r * (rho[0] / rho[1]) ** (scale - 1)
    assert variance == pytest.approx(formula, rel=2e-3)
    assert drawn(m, r, scale, 500, (low, high))[1] == pytest.approx(formula, rel=2e-2)


# --- the claims


def test_one_bell_at_scale_three_is_as_the_chapter_says(book):
    m, r = book["m"], book["r"]
    close(f64([m, r]), f64([1.0, 0.5]), 1e-12)
    close(f64(book["promised"](m, r, 3)), f64([1.5, 0.25]), 1e-9)
    close(f64(book["flowed"](m, r, 3)), f64([2.0, 0.125]), 1e-6)
    close(f64(book["noisy"](m, r, 3)), f64([1.75, 0.19375]), 1e-9)


def test_with_equal_variances_the_promise_is_kept():
    told, untold = (Gaussian(f64([m]), 0.6).denoiser(SCHEDULE) for m in (1.0, 0.0))
    x = f64([[0.0], [1.0]])
    guess = lambda x, t: untold(x, t) + 4 * (told(x, t) - untold(x, t))  # noqa: E731
    low, high = sampling.last(sampling.heun(guess, x, SCHEDULE, SCHEDULE.times(400)))
    close(f64([low.item(), (high - low).item() ** 2]), f64([4.0, 0.6]), 5e-3)


def test_a_style_is_lost_that_was_promised(book):
    grid = book["grid"][:, 0]
    near = (grid > -0.25) & (grid < 1)
    for scale in (1, 2, 4):
        promised = torch.trapezoid(book["promise_on_grid"](scale) * near, grid).item()
        assert abs(promised - 0.5) < 0.02
    drawn = {
        s: book["near_style"](book["flow"](book["styles"], 1, s, book["percentiles"], 100)) for s in (1, 4)
    }
    assert abs(drawn[1] - 0.5) < 0.02 and drawn[4] < 0.01


def test_percentiles_keep_their_order(book):
    ends = book["flow"](book["styles"], 1, 4, book["percentiles"], 100)
    assert bool((ends[1:] > ends[:-1]).all())


def test_later_guidance_keeps_more_of_the_style(book):
    shares = [
        book["near_style"](book["flow"](book["styles"], 1, 4, book["percentiles"], 100, (0.0, high)))
        for high in (1.0, 0.8, 0.6, 0.5)
    ]
    assert shares == sorted(shares) and shares[0] < 0.01 and shares[-1] > 0.35


def test_the_bug_makes_class_0_ill_and_the_dial_deaf_to_it(book):
    learned, fog = book["learned"], torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))
    got = {}
    for asked in (0, 1):
        for scale in (1, 3):
            ends = book["flow"](learned, asked, scale, fog)
            got[asked, scale] = (torch.cdist(ends, book["ring"]).argmin(1) == asked).double().mean().item()
    share = 1 / 1.9
    assert abs(got[0, 1] - share) < 4 * (share * (1 - share) / 1000) ** 0.5
    assert got[0, 1] == got[0, 3] and min(got[1, 1], got[1, 3]) > 0.99


def test_the_check_of_the_bug_fails_for_it_and_passes_for_the_cure(book):
    failures = {}
    for name in ("drop_labels_bug", "drop_labels_half_cured", "drop_labels"):
        book["said"].clear()
        book["check_dropping"](book[name])
        failures[name] = [line.split()[0] for line in book["said"] if "FAILS" in line]
    assert failures == {
        "drop_labels_bug": ["hidden", "variance"],
        "drop_labels_half_cured": ["variance"],
        "drop_labels": [],
    }


def test_what_one_coin_does_to_the_share_of_a_hundred_steps():
    p, size, steps = 0.1, 64, 100
    assert (p * (1 - p) / steps) ** 0.5 == pytest.approx(0.03)
    assert (p * (1 - p) / (steps * size)) ** 0.5 == pytest.approx(0.004, abs=5e-4)


def test_the_ledger_says_what_the_chapter_says_of_it():
    rows = json.loads((Path(__file__).parents[2] / "book" / "ledger.json").read_text(encoding="utf-8"))
    said = {}
    for row in rows:
        if (row["model"], row["count"], row["sampler"], row["steps"]) == ("mnist28", 1000, "dpm++2m", 20):
            values = {metric["name"]: metric["value"] for metric in row["metrics"]}
            said[row["scale"]] = (round(values["label accuracy"], 3), round(values["recall"], 2))
    assert said[1.0] == (0.964, 0.95) and said[1.5] == (0.999, 0.88)


# --- the exercises, solved in other ways


def convert_by_tables(weight, source):
    return {"ho": 1.0, "imagen": 0.0, "classifier": 0.0, "classifier, labels": 1.0}[source] + weight


def convert_by_solving(weight, source):
    cond, uncond = np.float64(1), np.float64(0)  # then the guided answer is s itself
    guided = {
        "ho": (1 + weight) * cond - weight * uncond,
        "imagen": weight * cond + (1 - weight) * uncond,
        "classifier": uncond + weight * (cond - uncond),
        "classifier, labels": cond + weight * (cond - uncond),
    }[source]
    return torch.tensor(guided)


@pytest.mark.parametrize("attempt", [convert_by_tables, convert_by_solving])
def test_other_ways_to_convert_are_correct(attempt):
    assert check("guidance.convert", attempt, record=False)


def band_in_numpy(count, share):
    return np.array([count * share]).repeat(2) + np.array([-4, 4]) * np.sqrt(count * share * (1 - share))


def band_by_adding_coins(count, share):
    mean = variance = 0.0
    for _ in range(count):
        mean, variance = mean + share, variance + share - share**2
    return [mean - 4 * math.sqrt(variance), mean + 4 * math.sqrt(variance)]


@pytest.mark.parametrize("attempt", [lambda n, p: tuple(band_in_numpy(n, p)), band_by_adding_coins])
def test_other_ways_to_the_band_are_correct(attempt):
    assert check("guidance.band", attempt, record=False)


def dial_by_the_library(denoise, x, t, label, scale):
    return sampling.guided(denoise, label, scale)(x, t)


def dial_with_two_factors(denoise, x, t, label, scale):
    if scale in (0, 1):
        return denoise(x, t, label if scale else None)
    return scale * denoise(x, t, label) + (1 - scale) * denoise(x, t, None)


def dial_row_by_row(denoise, x, t, label, scale):
    rows = []
    for i in range(len(x)):
        one, asked = x[i : i + 1], label[i : i + 1]
        parts = [w * denoise(one, t, y) for w, y in ((scale, asked), (1 - scale, -1)) if w]
        rows.append(sum(parts[1:], parts[0]))
    return torch.cat(rows)


@pytest.mark.parametrize("attempt", [dial_by_the_library, dial_with_two_factors, dial_row_by_row])
def test_other_dials_are_correct(attempt):
    assert check("guidance.dial", attempt, record=False)


def widths_by_logarithms(v_u, v_c, scale):
    drawn = math.exp((1 - scale) * math.log(v_u) + scale * math.log(v_c))
    return torch.tensor(v_u * v_c / ((1 - scale) * v_c + scale * v_u)), torch.tensor(drawn)


def widths_by_integration(v_u, v_c, scale):
    sigma = np.logspace(-4, 5, 400_001)
    slope = sigma * ((1 - scale) / (v_u + sigma**2) + scale / (v_c + sigma**2))
    area = ((slope[1:] + slope[:-1]) / 2 * np.diff(sigma)).sum()
    return 1 / ((1 - scale) / v_u + scale / v_c), (sigma[-1] / np.exp(area)) ** 2


@pytest.mark.parametrize("attempt", [widths_by_logarithms, widths_by_integration])
def test_other_ways_to_the_widths_are_correct(attempt):
    assert check("guidance.widths", attempt, record=False)


def accuracy_in_loops(logits, label):
    right = sum(
        max(range(len(row)), key=row.__getitem__) == y
        for row, y in zip(logits.tolist(), label.tolist(), strict=True)
    )
    share = right / len(label)
    return share, math.sqrt(share * (1 - share) / len(label))


def accuracy_in_numpy(logits, label):
    right = np.asarray(logits).argmax(1) == np.asarray(label)
    return right.mean(), right.std(ddof=1) / np.sqrt(len(right))


@pytest.mark.parametrize("attempt", [accuracy_in_loops, accuracy_in_numpy])
def test_other_ways_to_count_are_correct(attempt):
    assert check("guidance.accuracy", attempt, record=False)


def test_near_misses_fail_and_are_described():
    def said(name, attempt):
        text = check(name, attempt, record=False).text
        assert text.startswith("not yet"), text
        return text

    text = said("guidance.convert", lambda w, source: convert_by_tables(w, source) + (source == "imagen") / 2)
    assert "3 of the four" in text and "'imagen'" in text
    text = said("guidance.band", lambda n, p: (n * p - 1, n * p + 1))
    assert "The middle is right" in text
    assert "The middle of the band is" in said("guidance.band", lambda n, p: (0, n))
    assert "in the other order" in said("guidance.band", lambda n, p: band_by_adding_coins(n, p)[::-1])
    assert "larger than the second" in said("guidance.band", lambda n, p: (n, 0))

    def lerp_always(denoise, x, t, label, scale):
        return torch.lerp(denoise(x, t, None), denoise(x, t, label), scale)

    text = said("guidance.dial", lerp_always)
    assert "The values are right" in text and "asked 2 times" in text

    def nearly_exact(denoise, x, t, label, scale):
        return dial_with_two_factors(denoise, x, t, label, scale) * (1 + 1e-9)

    assert "to the last bit" in said("guidance.dial", nearly_exact)

    def jumps_near_zero(denoise, x, t, label, scale):
        return dial_with_two_factors(denoise, x, t, label, 0.01 if 0 < scale < 0.01 else scale)

    assert "At scale 1e-06" in said("guidance.dial", jumps_near_zero)

    def off_near_zero(denoise, x, t, label, scale):
        return dial_with_two_factors(denoise, x, t, label, 0 if abs(scale) < 0.01 else scale)

    assert "jumps at both ends" in said("guidance.dial", off_near_zero)
    text = said("guidance.widths", lambda v_u, v_c, s: (widths_by_logarithms(v_u, v_c, s)[0], v_c**s))
    assert "promised variance is right" in text
    text = said("guidance.widths", lambda v_u, v_c, s: (v_c, widths_by_logarithms(v_u, v_c, s)[1]))
    assert "drawn variance is right" in text
    text = said("guidance.accuracy", lambda logits, label: (accuracy_in_loops(logits, label)[0], 0.1))
    assert "The share is right" in text
    text = said("guidance.accuracy", lambda logits, label: (0.5, 0.1))
    assert "The share is 0.5, should be 0." in text
