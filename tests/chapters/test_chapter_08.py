"""Chapter 8: the code that it writes out is the library's, its equations are true, its claims hold."""

from __future__ import annotations

import json
import math

import ladder
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import cells_of, close
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ddpm_lib import chain, checkpoint, sampling
from ddpm_lib.data import EMBEDDED, load_images, to_float
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.exercises import check
from ddpm_lib.metrics import denoising_errors
from ddpm_lib.schedule import cosine, linear
from ddpm_lib.toy import FiniteSet, Mixture
from ddpm_lib.unet import UNet, UNetConfig

DEFINE = (
    "count", "bill-code", "enlarge", "shrink-code", "mirror-code", "same-guess", "loss-code", "errors", "colour",
    "wiener", "bug-check",
)  # fmt: skip


@pytest.fixture(scope="module")
def cells() -> dict[str, str]:
    return {name: cell.source for name, cell in cells_of("08_cifar10_in_colour").items()}


@pytest.fixture(scope="module")
def book(cells) -> dict:
    """What the cells that define functions leave behind, in the order of the chapter."""
    names = {
        "torch": torch,
        "F": F,
        "train": load_images("cifar10"),
        "test": load_images("cifar10", "test"),
        "to_float": to_float,
        "print": lambda *values, **_: None,
        "at": {64: {"convolutions": 1}, 32: {"convolutions": 1}},
        "generator": torch.Generator().manual_seed(0),
        "noise": torch.randn(8, 3, 64, 64, dtype=torch.float64),
        "T": 5,
        "asked": [],
    }
    for name in DEFINE:
        exec(cells[name], names)
    return names


def draws(*shape: int, count: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64).unbind(0)


# --- the code is the library's, and the tool's


def test_the_errors_are_the_librarys(book):
    torch.manual_seed(0)
    net = UNet(book["network"](32, width=32))
    for parameter in net.parameters():  # a fresh network answers 0
        parameter.data += 0.02 * torch.randn_like(parameter)
    x0, label, levels = to_float(book["test"].images[:6]), torch.arange(6), torch.tensor([-3.0, 0.5, 4.0])
    for predict in ("eps", "v"):
        denoiser = Denoiser(net.eval(), cosine(), predict)
        for clip in (True, False):
            ours = book["errors_at"](denoiser, x0, levels.double(), label, seed=4, clip=clip)
            theirs = denoising_errors(denoiser, x0, levels, label, seed=4, clip=clip)
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)


def test_the_chapter_counts_and_shrinks_as_the_ladder_does(book):
    for key in ("origin", "native", "wide"):
        config = ladder.network(ladder.recipes()[key], ladder.Settings(), 10)
        assert sum(book["multiply_adds"](config).values()) == ladder.multiply_adds(config)
    settings = ladder.Settings()
    assert ladder.network(ladder.recipes()["origin"], settings, 10) == book["network"](64)
    assert ladder.network(ladder.recipes()["native"], settings, 10) == book["network"](32)
    (large,) = draws(2, 3, 64, 64, count=1)
    close(book["shrink"](large), ladder.shrink(large), 1e-9)


# --- the equations


@pytest.mark.equation("eq-cost")
@pytest.mark.parametrize("size", [32, 64])
def test_eq_cost_is_what_torch_counts(book, size):
    config = book["network"](size)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = UNet(config)
        net(torch.empty(1, 3, size, size), torch.empty(1))
    counts = book["multiply_adds"](config)
    assert 2 * sum(counts.values()) == counter.get_total_flops()
    # by hand: three levels of a quarter each, attention in three places of the coarsest and in the middle
    positions, width = (size // 8) ** 2, 128
    assert counts["attention"] == 4 * 2 * positions**2 * width
    conv = net.down[0][0].conv_in
    assert conv.weight.numel() * (size // 2) ** 2 == (size // 2) ** 2 * 3 * 3 * 32 * 32


@pytest.mark.equation("eq-cost-scale")
@pytest.mark.parametrize("k", [2, 3, 4])
def test_eq_cost_scale_is_exact(book, k):
    small, large = (book["multiply_adds"](book["network"](size)) for size in (32, 32 * k))
    assert large["convolutions"] == k**2 * small["convolutions"]
    assert large["attention"] == k**4 * small["attention"]
    assert large["told"] == small["told"]


@pytest.mark.equation("eq-compute")
def test_eq_compute_counts_the_way_there_and_back(book):
    config = book["network"](32)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = UNet(config)
        net(torch.empty(4, 3, 32, 32), torch.empty(4)).square().sum().backward()
    macs = sum(book["multiply_adds"](config).values())
    # the first layers need no gradient of their input: a little less than three times
    ratio = counter.get_total_flops() / book["operations"](macs, batch=4, steps=1)
    assert 0.98 < ratio <= 1


@pytest.mark.equation("eq-fair-steps")
def test_eq_fair_steps_spends_the_compute_and_no_more(book):
    for macs, batch in ((96_268_288, 32), (387_444_736, 32), (1_000_003, 7)):
        steps = ladder.steps_for(90.0, macs, batch)
        assert book["operations"](macs, batch, steps) <= 90e12 < book["operations"](macs, batch, steps + 1)


@pytest.mark.equation("eq-enlarge")
def test_eq_enlarge_is_the_librarys_enlarging(book):
    images = book["test"].images[:5]
    x = to_float(images).double()
    by_matrix = book["E"] @ x @ book["E"].T
    stored = to_float(book["test"].resized(64).images[:5])
    assert (by_matrix - stored).abs().max() <= 0.5 / 127.5 + 1e-5
    assert book["E"].shape == (64, 32) and torch.linalg.matrix_rank(book["E"]) == 32


@pytest.mark.equation("eq-shrink")
def test_eq_shrink_undoes_it_and_is_the_nearest_picture(book):
    x, stray = draws(3, 32, 32)
    E = book["E"]
    close(book["shrink"](E @ x @ E.T), x, 1e-9)
    inverse = torch.linalg.inv(E.T @ E) @ E.T
    close(inverse, book["back"], 1e-9)
    (large,) = draws(64, 64, count=1, seed=1)
    nearest = book["shrink"](large)
    for step in (1e-3, -1e-3):
        off = [(E @ each @ E.T - large).square().sum() for each in (nearest, nearest + step * stray[0])]
        assert off[0] < off[1]


@pytest.mark.equation("eq-mirror")
@pytest.mark.parametrize(("mode", "m"), [("nearest", 1), ("bilinear", 3)])
@pytest.mark.parametrize("n", [8, 32])
def test_eq_mirror_for_a_row_and_for_a_picture(book, mode, m, n):
    (x,) = draws(1, 1, n, n, count=1)
    k = torch.arange(2 * n)
    kept = 2 * torch.cos(math.pi * k.double() / (2 * n)) ** (2 * m)
    copies = torch.fft.fft2(x, norm="ortho").abs().square()[..., k % n, :][..., k % n]
    large = book["enlarged"](x, mode)
    close(torch.fft.fft2(large, norm="ortho").abs().square(), kept[:, None] * kept * copies, 1e-9)
    # no shift, which power would not show: away from the border it is the library's enlarging
    inside = slice(2, -2)
    close(large[..., inside, inside], F.interpolate(x, scale_factor=2, mode=mode)[..., inside, inside], 1e-12)
    # a single row: the same picture in every row
    row = x[:, :, :1].expand(1, 1, n, n)
    found = torch.fft.fft(book["enlarged"](row, mode)[0, 0, 0], norm="ortho").abs().square()
    close(found, kept * torch.fft.fft(row[0, 0, 0], norm="ortho").abs().square()[k % n], 1e-9)


@pytest.mark.equation("eq-block-mean")
@pytest.mark.parametrize("k", [2, 3])
def test_eq_block_mean_and_what_is_left_is_independent_of_it(book, k):
    generator, a, s, n = torch.Generator().manual_seed(2), 0.6, 0.8, 40_000
    x0 = torch.full((n, 1, 1, 1), 0.7, dtype=torch.float64)
    noise = torch.randn(n, 1, k, k, generator=generator, dtype=torch.float64)
    x_t = a * book["repeat"](x0, k) + s * noise
    m = F.avg_pool2d(x_t, k).flatten()
    assert abs(m.mean() - a * 0.7) < 4 * m.std() / n**0.5
    assert abs(m.var() / (s / k) ** 2 - 1) < 4 * (2 / n) ** 0.5
    left = (x_t - m.view(-1, 1, 1, 1)).flatten(1)
    together = torch.corrcoef(torch.cat([m[:, None], left], 1).T)[0, 1:]
    assert together.abs().max() < 4 / n**0.5


@pytest.mark.equation("eq-same-guess")
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("t", [0.3, 0.6, 0.9])
def test_eq_same_guess_holds_for_every_schedule(book, k, t):
    (points,) = draws(12, 1, 4, 4, count=1)
    for base in (cosine(1000), linear(1000)):
        large = FiniteSet(book["repeat"](points, k)).denoiser(base)
        small = FiniteSet(points).denoiser(book["shifted"](base, 2 * math.log(k)))
        a, s = base.signal_noise(t)
        noise = torch.randn(12, 1, 4 * k, 4 * k, dtype=torch.float64)
        x_t = a * book["repeat"](points, k) + s * noise
        m = F.avg_pool2d(x_t, k) / (a**2 + (s / k) ** 2).sqrt()
        close(large(x_t, t), book["repeat"](small(m, t), k), 1e-9)


@pytest.mark.equation("eq-loss-by-size")
@pytest.mark.parametrize("k", [2, 3])
def test_eq_loss_by_size(book, k):
    (points,) = draws(12, 1, 4, 4, count=1)
    base, seen = cosine(1000), book["shifted"](cosine(1000), 2 * math.log(k))
    large, small = FiniteSet(book["repeat"](points, k)), FiniteSet(points)
    for t in (0.3, 0.6, 0.9):
        (a, s), (A, S) = base.signal_noise(t), seen.signal_noise(t)
        x_t = a * book["repeat"](points, k) + s * torch.randn(12, 1, 4 * k, 4 * k, dtype=torch.float64)
        m = F.avg_pool2d(x_t, k) / (a**2 + (s / k) ** 2).sqrt()
        # written out: the noise that each guess implies, less the noise that was added
        loss = []
        for world, x, clean, (signal, scale), schedule in (
            (large, x_t, book["repeat"](points, k), (a, s), base), (small, m, points, (A, S), seen),
        ):  # fmt: skip
            guess = world.denoiser(schedule)(x, t)
            loss.append(((x - signal * guess) / scale - (x - signal * clean) / scale).square().mean())
            close(book["noise_loss"](guess, clean, x, signal, scale), loss[-1], 1e-12)
        assert loss[0].item() == pytest.approx(loss[1].item() / k**2, rel=1e-6)


@pytest.mark.equation("eq-seen")
def test_eq_seen_is_the_signal_to_noise_ratio_of_the_block_means(book):
    for name, schedule in (("linear", linear(1000)), ("cosine", cosine(1000))):
        for k in (2, 4):
            t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
            a, s = schedule.signal_noise(t)
            ratio = (a / (s / k)) ** 2
            close(book["shifted"](schedule, 2 * math.log(k)).logsnr(t), ratio.log(), 1e-9), name


@pytest.mark.equation("eq-bilinear-seen")
def test_eq_bilinear_seen_is_the_noise_that_least_squares_leaves(book):
    n, s = 16, 0.7
    unit = F.pad(torch.eye(n, dtype=torch.float64)[:, None], (1, 1), mode="circular")
    E = F.interpolate(unit, scale_factor=2, mode="linear")[..., 2:-2][:, 0].T
    back = torch.linalg.pinv(E)
    fourier = torch.fft.fft(torch.eye(n, dtype=torch.complex128), norm="ortho")
    # variance of each wave (k, l) of the noise that is brought back
    side = (fourier @ (back @ back.T).to(fourier) @ fourier.conj().T).diagonal().real
    variance = s**2 * side[:, None] * side
    g = 1.25 + 0.75 * torch.cos(2 * math.pi * torch.arange(n).double() / n)
    close(-variance.log(), -2 * math.log(s) + g.log()[:, None] + g.log(), 1e-9)


@pytest.mark.equation("eq-paired")
def test_eq_paired_and_its_gain(book):
    shared, a, b = draws(200_000, count=3)
    A, B = 2 * shared + 0.1 * a, 2 * shared + 0.1 * b + 0.01
    covariance = torch.cov(torch.stack([A, B]))
    N = len(A)
    formula = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / N
    assert formula.item() == pytest.approx(((A - B).var() / N).item(), rel=1e-9)
    # and it is the spread of the mean difference over many test sets
    means = (A - B).view(2000, 100).mean(1)
    assert abs(means.var() / (N * formula / 100) - 1) < 4 * (2 / 2000) ** 0.5


@pytest.mark.equation("eq-wiener")
def test_eq_wiener_is_the_best_linear_guess_and_its_error_is_right_for_pictures(book):
    levels = torch.tensor([-3.0, 0.0, 3.0], dtype=torch.float64)
    x0, P = to_float(book["test"].images), book["P_test"]
    found = book["errors_at"](book["wiener"](P), x0, levels, clip=False)
    for level, row in zip(levels, found, strict=True):
        formula = (P / (1 + P * level.exp())).mean()
        assert abs(row.mean() - formula) < 4 * row.std() / len(row) ** 0.5
    for factor in (0.8, 1.25):  # any other powers are worse
        other = book["errors_at"](book["wiener"](factor * P), x0, levels, clip=False)
        assert (other.mean(1) > found.mean(1)).all()
    # for one normal wave it is the mean of the posterior
    variance, snr, x = 0.3, 5.0, torch.tensor(0.9)
    precision = 1 / variance + snr
    assert (variance * snr / (1 + variance * snr) * x).item() == pytest.approx((snr * x / precision).item())


@pytest.mark.equation("eq-flips")
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_eq_flips_is_the_law_of_flipped_pictures(p):
    (points,) = draws(5, 1, 3, 4, count=1)
    base, plain = cosine(1000), FiniteSet(points)
    chance = torch.cat([torch.full((5,), 1 - p), torch.full((5,), p)])
    shown = Mixture(chance, torch.cat([points, points.flip(-1)]), 0.0)
    (x,) = draws(9, 1, 3, 4, count=1, seed=5)
    here, there = (plain.log_prob(each, base, 0.7).exp() for each in (x, x.flip(-1)))
    close(shown.log_prob(x, base, 0.7).exp() / ((1 - p) * here + p * there), 1.0, 1e-9)
    # and by drawing: the share of pictures that were flipped
    coins = torch.rand(40_000, generator=torch.Generator().manual_seed(0)) < p
    pictures = torch.where(coins[:, None], points[0].flip(-1).flatten(), points[0].flatten())
    share = (pictures == points[0].flip(-1).flatten()).all(1).double().mean().item()
    assert abs(share - p) < 4 * (p * (1 - p) / 40_000) ** 0.5


@pytest.mark.equation("eq-flipped-guess")
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_eq_flipped_guess_is_the_perfect_denoiser_of_flipped_data(p):
    (points,) = draws(5, 1, 3, 4, count=1)
    base = cosine(1000)
    plain = FiniteSet(points)
    both = torch.cat([points, points.flip(-1)])
    for t in (0.4, 0.7):
        a, s = base.signal_noise(t)
        x = a * (points + 0.8 * points.flip(-1)) / 1.8 + s * torch.randn(5, 1, 3, 4, dtype=torch.float64)
        here, there = (plain.log_prob(each, base, t).exp() for each in (x, x.flip(-1)))
        w = (p * there / ((1 - p) * here + p * there)).view(-1, 1, 1, 1)
        guess = plain.denoiser(base)
        formula = (1 - w) * guess(x, t) + w * guess(x.flip(-1), t).flip(-1)
        # brute force: Bayes' rule over all pictures and mirror images
        chance = torch.cat([torch.full((5,), 1 - p), torch.full((5,), p)]).double()
        apart = (x[:, None] - a * both).square().flatten(2).sum(2)
        weight = torch.softmax(chance.log() - apart / (2 * s**2), 1)
        close(formula, torch.einsum("bn,nchw->bchw", weight, both), 1e-9)


@pytest.mark.equation("eq-flipped-guess")
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_eq_flipped_guess_as_the_chapter_writes_it(cells, book, p):
    (points,) = draws(5, 1, 3, 4, count=1)
    names = dict(book, FiniteSet=FiniteSet, load_images=load_images, base=cosine(1000))
    exec(cells["flips-check"].split("for t in")[0], names)
    names |= {"plain": FiniteSet(points), "p": p}
    chance = torch.cat([torch.full((5,), 1 - p), torch.full((5,), p)])
    shown = Mixture(chance, torch.cat([points, points.flip(-1)]), 0.0).denoiser(cosine(1000))
    (x,) = draws(7, 1, 3, 4, count=1, seed=9)
    close(names["flipped_guess"](x, 0.6), shown(x, 0.6), 1e-6)


@pytest.mark.equation("eq-flipped-guess")
def test_with_half_of_the_pictures_flipped_a_flipped_question_gets_the_flipped_answer():
    (points,) = draws(5, 1, 3, 4, count=1)
    both = FiniteSet(torch.cat([points, points.flip(-1)])).denoiser(cosine(1000))
    (x,) = draws(7, 1, 3, 4, count=1, seed=9)
    close(both(x.flip(-1), 0.6), both(x, 0.6).flip(-1), 1e-9)


@pytest.mark.equation("eq-missing-step")
def test_eq_missing_step_is_the_spectrum_of_a_loop_that_stops_early():
    table = chain.linear(40, 0.004, 0.4)
    (points,) = draws(30, 1, 16, 16, count=1)
    points = F.avg_pool2d(F.pad(points, (2, 2, 2, 2), mode="circular"), 5, stride=1)
    from ddpm_lib.schedule import from_chain

    schedule, n = from_chain(table), 300
    noise = torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    times = schedule.times(40)[:-1]  # the last step is never taken
    steps = sampling.ddpm(
        FiniteSet(points).denoiser(schedule), noise, schedule, times, generator=torch.Generator().manual_seed(1)
    )  # fmt: skip
    x = sampling.last(steps)
    ended = points[torch.cdist(x.flatten(1), points.flatten(1)).argmin(1)]
    beta = table.beta[1]

    def power(x):
        return torch.fft.fft2(x, norm="ortho").abs().square().mean((0, 1))

    formula = (1 - beta) * power(ended) + beta
    # the mixed term of picture and noise has mean 0; allow four of its standard errors, and the noise's own
    error = (2 * beta * power(ended) / n).sqrt() + beta * (2 / n) ** 0.5
    assert ((power(x) - formula).abs() < 4 * error).double().mean() > 0.99
    assert power(x)[8, 8] > 3 * power(ended)[8, 8]


# --- the claims


def test_enlarged_pictures_hold_the_small_ones_and_their_own_rounding(book):
    off = book["shrink"](book["test"].resized(64).images.double()) - book["test"].images
    assert abs(off.std().item() - (1 / 12) ** 0.5) < 0.02
    # why it is one rounding error: the mean of 1 / g over all waves is 1
    g = 1.25 + 0.75 * torch.cos(2 * math.pi * torch.arange(4096).double() / 4096)
    close((1 / g).mean(), 1.0, 1e-9)
    again = off.round()
    assert again.abs().max() == 1 and (again == 0).double().mean() > 0.9


def test_repeated_pixels_have_more_power_above_the_old_limit_and_bilinear_ones_next_to_none(cells, book):
    names = dict(book)
    exec(cells["spectra"] + "\n" + cells["spectra-numbers"], names)
    real, repeated, bilinear, zeros = names["above"].values()
    assert 1.1 < repeated / real < 1.3 and bilinear / real < 0.06 and zeros / real < 1e-9
    # every wave is counted once
    fast = torch.maximum(names["f"][:, None], names["f"]) > 8
    close(real, book["power"](book["x"]).mean((0, 1))[fast].sum(), 1e-9)


def test_every_class_spreads_along_the_same_three_colours(book):
    train = book["train"]
    for label in range(10):
        pixels = to_float(train.images[train.labels == label]).transpose(0, 1).flatten(1).double()
        axes = torch.linalg.eigh(torch.cov(pixels))[1].flip(1)
        assert ((axes * book["colours"]).sum(0).abs() > 0.95).all()


def test_the_public_lines_fail_their_check_and_the_mended_ones_pass(cells, book):
    said = []
    names = dict(book, print=lambda *values, **_: said.append(" ".join(map(str, values))))
    exec(cells["bug-check"].split("index =")[0], names)
    for entries in (reversed(range(1, 50)), torch.randint(1, 50, (5000,)).tolist(), reversed(range(50))):
        names["uses_every_entry"](entries, 50)
    assert ["FAILS" in line for line in said] == [True, True, False]
    assert "[0]" in said[0]


def test_the_cell_for_a_gpu_trains_and_draws_on_a_processor_too(cells, book):
    source, call = cells["gpu-train"].split("\n\n\nlong_net, drawn = ")
    names = dict(book) | {"torch": torch, "UNet": UNet, "Denoiser": Denoiser, "cosine": cosine}
    exec(cells["count"], names)
    exec(source, names)
    small = {"device": "cpu", "width": 32, "steps": 2, "batch": 4, "each": 1}
    net, drawn = names["train_long"](book["train"], **small)
    assert drawn.shape == (10, 3, 32, 32) and drawn.isfinite().all() and drawn.abs().max() <= 1
    assert call.startswith('train_long(load_images("cifar10-full"))')
    # what the words before it say
    config = UNetConfig(32, 3, 10, 96, (1, 2, 2), 2, (1, 2))
    with torch.device("meta"):
        weights = sum(p.numel() for p in UNet(config).parameters())
    tflop = 6 * ladder.multiply_adds(config) * 128 * 20_000 / 1e12
    said = cells["gpu-words"]
    assert "16 million weights" in said and round(weights / 1e6) == 16
    assert "55 thousand TFLOP" in said and round(tflop / 1e3) == 55
    assert "six days" in said and round(tflop / 0.1 / 86_400) == 6
    assert "an hour and a half" in said and tflop / 10 / 3600 == pytest.approx(1.5, abs=0.05)


def test_what_the_chapter_says_of_the_ladder_is_in_it(cells, book):
    found = json.loads((EMBEDDED / "ladder_cifar10.json").read_text())
    rungs = {row["key"]: row for row in found["rungs"]}
    said = cells["ladder-ours"]
    minutes = [row["seconds"] / 60 for row in found["rungs"]]
    assert "seven to fifteen minutes" in said and (round(min(minutes)), round(max(minutes))) == (7, 15)
    assert "483 steps" in said and rungs["origin"]["steps"] == 483
    assert "1,947 steps" in said and rungs["native"]["steps"] == 1947
    assert "falls to a third" in said and rungs["native"]["score"] == pytest.approx(1 / 3, abs=0.03)
    error = {key: np.array(row["error"]) for key, row in rungs.items()}
    levels = torch.tensor(found["levels"])
    wiener = denoising_errors(book["wiener"](book["P_train"]), book["held_out"], levels).mean(1).numpy()
    assert levels[0] == -4
    assert "2.6 times that of Wiener's filter" in said and round(error["native"][0] / wiener[0], 1) == 2.6
    before = error[list(rungs)[list(rungs).index("v") - 1]]
    assert error["v"][0] / before[0] == pytest.approx(1 / 3, abs=0.03)
    rise = (error["v"] / before - 1)[levels.numpy() >= 0]
    assert "rises by 7 to 21 %" in said and (round(rise.min(), 2), round(rise.max(), 2)) == (0.07, 0.21)
    assert "22 % are read as asked" in said and round(rungs["v"]["accuracy"], 2) == 0.22
    assert "seen twelve times" in said
    assert round(rungs["native"]["images"] / found["about"]["training_images"]) == 12
    best = min(rungs.values(), key=lambda row: row["score"])["key"]
    gain = 1 - error[best] / wiener
    assert (
        best == "muon"
        and "4 to 25 % better" in said
        and (round(gain.min(), 2), round(gain.max(), 2)) == (0.04, 0.25)
    )
    seen = checkpoint.pretrained("cifar32").provenance["images_seen"]
    assert f"saw {seen:,} pictures" in said and "eight times as many as a rung" in said
    assert round(seen / rungs["native"]["images"]) == 8


def test_the_ladder_that_the_chapter_reads_is_whole():
    found = json.loads((EMBEDDED / "ladder_cifar10.json").read_text())
    assert [row["key"] for row in found["rungs"]] == [rung.key for rung in ladder.RUNGS]
    known = ladder.recipes()
    for row in found["rungs"]:
        assert ladder.Recipe(**row["recipe"]) == known[row["key"]]
        settings = ladder.Settings(width=found["about"]["width"])
        assert row["macs"] == ladder.multiply_adds(ladder.network(known[row["key"]], settings, 10))
        assert row["images"] == row["steps"] * found["about"]["batch_size"]
        spent = 6 * row["macs"] * row["images"] / 1e12
        assert spent <= found["about"]["tflop"] or row["steps"] == 1
        assert len(row["error"]) == len(found["levels"]) and all(np.isfinite(row["error"]))
    with Image.open(EMBEDDED / "ladder_cifar10.webp") as sheet:
        assert sheet.size == (32 * found["about"]["shown"], 32 * len(found["rungs"]))
    paths = EMBEDDED.glob("ladder_cifar10.*")
    assert sum(path.stat().st_size for path in paths) < 250_000


# --- the exercises, solved in other ways


def shrink_by_solving(large, E):
    rows = torch.linalg.lstsq(E.expand(*large.shape[:2], *E.shape), large).solution
    return torch.linalg.lstsq(E.expand(*large.shape[:2], *E.shape), rows.mT).solution.mT


def shrink_from_half_of_the_rows(large, E):
    inverse = np.linalg.inv(E[::2].numpy())
    return inverse @ large.numpy()[..., ::2, ::2] @ inverse.T


def shrink_in_loops(large, E):
    back = torch.linalg.pinv(E)
    return torch.stack([torch.stack([back @ channel @ back.T for channel in picture]) for picture in large])


@pytest.mark.parametrize("attempt", [shrink_by_solving, shrink_from_half_of_the_rows, shrink_in_loops])
def test_shrinking_written_differently_is_correct(attempt):
    assert check("pixels.shrink", attempt, record=False)


def entries_by_comparing(u, T):
    edges = torch.arange(1, T, dtype=u.dtype) / T
    return torch.bucketize(u, edges, right=True), list(range(T))[::-1]


def entries_in_numpy(u, T):
    return np.floor(u.numpy() * T).astype(int), np.arange(T)[::-1].copy()


def entries_as_a_range(u, T):
    return torch.floor(u * T).to(torch.int32), reversed(range(T))


@pytest.mark.parametrize("attempt", [entries_by_comparing, entries_in_numpy, entries_as_a_range])
def test_entries_written_differently_are_correct(attempt):
    assert check("index.all_steps", attempt, record=False)


def flips_in_float32(x, points, a, s, p):
    both = torch.cat([points, points.flip(-1)]).float()
    chance = torch.cat([torch.full((len(points),), 1 - p), torch.full((len(points),), p)])
    apart = torch.cdist(x.float().flatten(1), a * both.flatten(1)) ** 2
    weight = chance * torch.exp(-(apart - apart.amin(1, keepdim=True)) / (2 * s**2))
    return ((weight / weight.sum(1, keepdim=True)) @ both.flatten(1)).view_as(x)


def flips_in_loops(x, points, a, s, p):
    answers = []
    for each in x.numpy():
        total, mean = 0.0, np.zeros_like(each)
        for point in points.numpy():
            for picture, chance in ((point, 1 - p), (point[:, ::-1], p)):
                weight = chance * math.exp(-np.sum((each - a * picture) ** 2) / (2 * s**2))
                total, mean = total + weight, mean + weight * picture
        answers.append(mean / total)
    return np.stack(answers)


@pytest.mark.parametrize("attempt", [flips_in_loops])
def test_flips_written_differently_are_correct(attempt):
    assert check("flips.best_guess", attempt, record=False)


def test_flips_in_single_precision_are_correct():
    exercise_tolerance = 1e-4
    from ddpm_lib.exercises import find

    assert find("flips.best_guess").tolerance <= exercise_tolerance
    assert check("flips.best_guess", flips_in_float32, record=False)


def steps_one_by_one(flop, convolutions, attention, told, k, batch):
    cost = 6 * batch * (k * k * convolutions + k**4 * attention + told)
    steps = 0
    while (steps + 1) * cost <= flop:
        steps += 1
    return steps


def steps_as_a_tensor(flop, convolutions, attention, told, k, batch):
    forward = 2 * (k**2 * (convolutions + k**2 * attention) + told)
    return torch.tensor(flop / (3 * forward * batch)).floor().long()


@pytest.mark.parametrize("attempt", [steps_one_by_one, steps_as_a_tensor])
def test_steps_written_differently_are_correct(attempt):
    assert check("compute.steps", attempt, record=False)


@pytest.mark.parametrize(
    ("name", "attempt"),
    [
        ("pixels.shrink", lambda large, E: torch.linalg.pinv(E) @ large @ torch.linalg.pinv(E).T * 1.001),
        (
            "pixels.shrink",
            lambda large, E: F.interpolate(large, size=E.shape[1], mode="bilinear", antialias=True),
        ),
        (
            "index.all_steps",
            lambda u, T: ((u * T).round().long().clamp(max=T - 1), list(range(T - 1, -1, -1))),
        ),
        ("index.all_steps", lambda u, T: ((u * T).long(), list(range(T - 2, -1, -1)))),
        ("flips.best_guess", lambda x, points, a, s, p: (points + points.flip(-1)).mean(0).expand_as(x) / 2),
        ("compute.steps", lambda flop, c, at, told, k, batch: int(flop // (6 * batch * (k * k * c + told)))),
    ],
)
def test_near_misses_are_not_correct(name, attempt):
    assert not check(name, attempt, record=False)
