"""Chapter 2: the code that it writes out is the library's, its equations are true, its exercises know right from wrong."""

from __future__ import annotations

import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import cells_of, close, f64
from PIL import Image
from torch.nn import functional as F

from ddpm_lib import chain, sampling, schedule
from ddpm_lib.data import load_images, to_float
from ddpm_lib.exercises import check
from ddpm_lib.toy import FiniteSet, Gaussian

LENGTHS = (2, 10, 200, 1000)


@pytest.fixture(scope="module")
def cells():
    return list(cells_of("02_destroying_data_on_purpose").values())


@pytest.fixture(scope="module")
def printed(cells) -> dict[str, str]:
    return {
        cell.id: "".join(output.get("text", "") for output in cell.outputs)
        for cell in cells
        if cell.cell_type == "code"
    }


@pytest.fixture(scope="module")
def book(cells) -> dict:
    """What the cells that define functions leave behind."""
    sources, names = {cell.id: cell.source for cell in cells}, {"torch": torch, "math": math}
    exec(sources["tables"], names)
    exec(sources["sigmoid-table"].split("\n\n")[0], names)
    exec(sources["log-snr"].split("\n\n")[0], names)
    exec(sources["bug-check-code"], names)
    exec("def spectrum" + sources["spectrum"].split("def spectrum")[1].split("\n\n\n")[0], names)
    names["ring"] = rings(32).flatten()
    return names


def rings(side: int) -> torch.Tensor:
    k = torch.tensor([min(i, side - i) for i in range(side)])
    return (k[:, None] ** 2 + k**2).float().sqrt().round().long()


def draws(*shape: int, count: int, seed: int = 0):
    return torch.randn(
        count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).unbind(0)


# --- the code of the chapter


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("family", ["linear", "sigmoid"])
def test_the_tables_are_the_librarys(book, family, steps):
    close(book[family](steps), chain.CHAINS[family](steps).beta, 1e-6)


@pytest.mark.parametrize("steps", LENGTHS)
def test_the_check_of_the_end_knows_good_chains_from_bad(book, steps, capsys):
    assert book["ends_in_noise"](chain.cosine(max(steps, 10)).beta)
    assert book["ends_in_noise"](chain.linear(steps).beta) == (steps == 1000)
    assert ("FAILS" in capsys.readouterr().out) == (steps != 1000)


def test_the_check_of_the_end_asks_for_the_amplitude(book):
    # Stable Diffusion's table: 0.5 % of the variance is left, and 7 % of the amplitude
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    assert not book["ends_in_noise"](beta)


@pytest.mark.parametrize("family", ["cosine", "sigmoid"])
def test_a_chain_by_its_alpha_bar_ends_in_noise_from_six_steps_up(book, family):
    ends = [book["ends_in_noise"](chain.CHAINS[family](T).beta) for T in range(1, 60)]
    assert all(ends[5:]) and not any(ends[:4])


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return to_float(load_images("cifar10", "test").images)


@pytest.fixture(scope="module")
def P(book, pictures) -> torch.Tensor:
    """Power of light and dark: the three colours added, in units where the noise keeps variance 1."""
    return book["spectrum"](pictures.sum(1) / 3**0.5)


def test_noise_has_the_same_power_at_every_frequency(book, pictures):
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    power = book["spectrum"](noise.sum(1) / 3**0.5)
    # brightness is the square of one normal number in each picture, and a ring has more
    close(power[0], 1.0, 4 * (2 / len(noise)) ** 0.5)
    close(power[1:], 1.0, 0.1)
    close(power[4:].mean(), 1.0, 0.01)


def test_the_timetable_is_when_a_wave_sinks_below_the_noise(book, printed, P):
    lines = printed["timetable"].splitlines()[1:]
    assert len(lines) == 3
    for line in lines:
        name, *steps = line.split()
        share = chain.CHAINS[name](1000).alpha_bar
        for f, t in zip((0, 1, 2, 4, 8, 16), map(int, steps), strict=True):
            above = share * P[f] > 1 - share
            assert above[:t].all() and not above[t:].any(), line


def test_the_car_in_noise_is_shown_where_the_waves_above_it_drown(cells, printed):
    source = next(cell.source for cell in cells if cell.id == "waves")
    shown = re.search(r"zip\(\(([\d, ]+)\), \(([\d, ]+)\)", source)
    frequencies, steps = ([int(number) for number in part.split(",")] for part in shown.groups())
    assert frequencies == [1, 2, 4, 8, 16]
    assert steps == [int(word) for word in printed["timetable"].splitlines()[1].split()[2:]]


def test_what_the_prose_says_of_the_tide(book, P, pictures):
    share = chain.linear(1000).alpha_bar
    for t, count in ((20, 16), (100, 9), (250, 4), (450, 2)):
        above = share[t] * P[1:] > 1 - share[t]
        assert above[:count].all() and above.sum() == count
    assert P[1] / P[16] == pytest.approx(2500, rel=0.05) and P[1:].diff().max() < 0 and P[0] > 5 * P[1]
    first = {name: int((book["log_snr"](family(1000).alpha_bar) < math.log(0.01)).nonzero()[0]) for name, family in chain.CHAINS.items()}  # fmt: skip
    assert first["linear"] == 675
    # a photograph's pixel has a variance of about a quarter
    assert abs(pictures.var() - 0.25) < 0.03
    # at the moment when it drowns, half of a wave's squared error is left
    assert 1 / (1 / P[1] + 1 / P[1]) == pytest.approx(float(P[1]) / 2)


def test_the_numbers_that_the_prose_repeats(book, printed):
    for T, left in ((50, 0.78), (200, 0.36), (300, 0.22), (1000, 0.006)):
        exact = math.exp(0.5 * sum(math.log1p(-b) for b in np.linspace(1e-4, 0.02, T)))
        assert exact == pytest.approx(left, rel=0.06)
        assert f"T = {T:4d}: {exact:.3g} is left" in printed["left-table"]
    rows = [line.split() for line in printed["level-shares"].splitlines()[1:]]
    assert [row[1] for row in rows] == ["33%", "6%", "3%"]
    assert [row[2] for row in rows] == ["39%", "62%", "64%"]
    ratio = book["log_snr"](chain.linear(1000).alpha_bar[1:]).exp()
    assert ratio[0] == pytest.approx(10_000, rel=0.01) and ratio[-1] == pytest.approx(0.00004, rel=0.02)
    # flat on an axis that reaches to the first
    assert ratio[29] < 0.01 * ratio[0]
    assert "0.0683 is left FAILS" in printed["ends"]
    assert "cosine, step 563: log-SNR -0.42" in printed["twin"]
    assert "rule of thumb 917, exactly 911" in printed["ex-steps-solved"]


def test_the_clamp_leaves_less_than_half_a_per_cent(printed):
    for line in printed["crumbs"].splitlines():
        name, *numbers = line.replace("%", "").split()
        left = [100 * chain.CHAINS[name](T).alpha_bar[-1].sqrt().item() for T in (20, 100, 1000)]
        assert [float(number) for number in numbers] == pytest.approx(left, abs=6e-4)
        assert 0.5 > left[0] > left[1] > left[2]
        bar = chain.CHAINS[name](100).alpha_bar
        assert bar[-1] / bar[-2] == pytest.approx(0.001)


def test_how_much_of_the_mean_comes_back_at_each_size(printed, pictures):
    at_32 = 3072 * pictures.mean((1, 2, 3)).var().item()
    assert at_32 == pytest.approx(196, abs=0.5)
    # the coordinate along (1, ..., 1): noise of variance 1, and the variance of the pictures that the text gives
    along = torch.full((3072,), 3072**-0.5)
    assert (pictures.flatten(1) @ along).var().item() == pytest.approx(at_32, rel=1e-4)
    lines = [line.split() for line in printed["little-code"].splitlines()[2:]]
    assert [int(line[0]) for line in lines] == [32, 64, 128, 256, 512]
    end = chain.linear(1000).alpha_bar[-1]
    for side, v, *shares in lines:
        wide = at_32 * (int(side) / 32) ** 2
        assert float(v) == pytest.approx(wide, abs=0.6)
        ends = 1e-4, float(end / (1 - end)), 1e-4 * (32 / int(side)) ** 2
        assert shares == [f"{1 / (1 + wide * snr):.0%}" for snr in ends]
    assert [line[2] for line in lines] == ["98%", "93%", "76%", "44%", "17%"]
    assert lines[-1][3] == "33%" and {line[4] for line in lines} == {"98%"}


def test_what_the_formula_makes_of_digits_and_of_stable_diffusions_table(printed):
    digits = to_float(load_images("mnist").images[:500])
    bright, end = digits.mean((1, 2, 3)), chain.linear(200).alpha_bar[-1]
    v = 784 * bright.var().item()
    promised = bright.mean().item() / (1 + v * float(end / (1 - end)))
    assert (v, promised) == (pytest.approx(5.7, abs=0.05), pytest.approx(-0.39, abs=0.005))
    assert (bright > -0.4).sum() == 1 and bright.max() == pytest.approx(-0.39, abs=0.005)
    left = (
        torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square().neg().log1p().sum().exp()
    )
    snr = float(left / (1 - left))
    assert snr == pytest.approx(0.0047, abs=5e-5) and 1 / (1 + 196 * snr) == pytest.approx(0.52, abs=0.005)
    text = printed["little-check"]
    assert "v 5.7, formula -0.39" in text and "as bright as that: 1" in text and "52% comes back" in text


def test_a_network_that_knows_step_numbers_errs_by_half_as_much_again(printed):
    right, twin, misled = (float(line.split()[-1]) for line in printed["told-code"].splitlines())
    assert right == twin and misled > 1.5 * right


# --- its dial


@pytest.fixture
def dial(cells, book):
    """What the cell with the controls defines, and the list of the pictures that it shows."""
    shown = []
    names = dict(book) | {
        "chain": chain,
        "load_images": load_images,
        "to_float": to_float,
        "plt": plt,
        "show_images": lambda images, *options, **more: shown.append(images),
    }
    exec(next(cell.source for cell in cells if cell.id == "dial"), names)
    return names["destroy"], shown


def turned(destroy, **values):
    """Sets the controls of these names and presses the button."""
    controls = {child.description: child for child in destroy.widget.children if hasattr(child, "value")}
    for name, value in values.items():
        controls[name].value = value
    destroy.widget.manual_button.click()


def test_the_dial_shows_a_test_picture_under_the_schedule_that_is_set(dial, capsys):
    destroy, shown = dial
    turned(destroy)
    assert "0.0064 is left ok" in capsys.readouterr().out
    car = to_float(load_images("cifar10", "test").images[11])
    close(shown[-1][0], car, 1e-6)
    assert shown[-1].shape == (8, 3, 32, 32) and abs(shown[-1][7].std() - 1) < 0.05
    turned(destroy, T=200)
    assert "0.3636 is left FAILS" in capsys.readouterr().out
    turned(destroy, rescale=True)
    assert "0.0000 is left ok" in capsys.readouterr().out
    turned(destroy, rescale=False, family="cosine", number=12)
    assert "is left ok" in capsys.readouterr().out
    close(shown[-1][0], to_float(load_images("cifar10", "test").images[12]), 1e-6)
    assert len(shown) == 4


def test_the_dial_takes_a_picture_of_the_readers_in_the_size_that_is_set(dial, tmp_path, capsys):
    destroy, shown = dial
    red = Image.new("RGB", (90, 60), (255, 0, 0))
    red.save(tmp_path / "red.png")
    red.convert("L").save(tmp_path / "grey.png")
    turned(destroy, path=str(tmp_path / "red.png"), side=256)
    assert shown[-1].shape == (8, 3, 256, 256)
    close(shown[-1][0, :, 100, 100], [1, -1, -1], 1e-6)
    turned(destroy, path=str(tmp_path / "grey.png"), side=64)
    assert shown[-1].shape == (8, 3, 64, 64) and "is left ok" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="nowhere"):
        destroy("nowhere.png", 0, 32, "linear", 1000, False)


def test_the_short_chain_spoils_brightness_and_the_cures_do_not(printed):
    def row(cell, name):
        line = next(line for line in printed[cell].splitlines() if line.startswith(name))
        bright, ones = line.split("brightness")[1].split(", % of ones")
        return [[float(number) for number in part.split("+-")] for part in (bright, ones)]

    # all the data there are: no standard error
    [mean], [share] = row("bug-symptom", "data")
    assert share == 10
    (wrong, error), (few, _) = row("bug-symptom", "short chain")
    assert wrong - mean > 4 * error and few < share / 3
    for cell, name in (
        ("bug-hunt-code", "short chain, true start"),
        ("cured", "betas times 5"),
        ("rescaled", "zero terminal SNR"),
    ):
        for (got, error), wanted in zip(row(cell, name), (mean, share), strict=True):
            assert abs(got - wanted) <= 4 * error, name


# --- its equations


@pytest.mark.equation("eq-beta-back")
@pytest.mark.parametrize("family", chain.CHAINS)
def test_eq_beta_back_undoes_the_product(book, family):
    beta = chain.CHAINS[family](300).beta
    close(book["to_beta"]((1 - beta).cumprod(0)), beta, 1e-12)


@pytest.mark.equation("eq-linear-beta")
def test_eq_linear_beta_goes_in_equal_steps(book):
    T, first, last = 37, 0.003, 0.04
    expected = [0.0] + [first + (t - 1) / (T - 1) * (last - first) for t in range(1, T + 1)]
    close(book["linear"](T, first, last), expected, 1e-15)
    close(chain.linear(T, first, last).beta, expected, 1e-15)


@pytest.mark.equation("eq-cosine")
@pytest.mark.parametrize("steps", LENGTHS)
def test_eq_cosine_is_the_librarys_but_for_the_clipped_end(steps):
    f = [math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(steps + 1)]
    alpha_bar = chain.cosine(steps).alpha_bar
    close(alpha_bar[:-1], [value / f[0] for value in f[:-1]], 1e-12)
    close(alpha_bar[-1] / alpha_bar[-2], 0.001, 1e-12)


@pytest.mark.equation("eq-cosine-tangent")
def test_eq_cosine_tangent(book):
    for T in (10, 400):
        t = torch.arange(1, T, dtype=torch.float64)
        expected = -2 * torch.tan(math.pi / 2 * t / T).log()
        close(book["log_snr"](chain.cosine(T, offset=0.0).alpha_bar[1:-1]), expected, 1e-9)


@pytest.mark.equation("eq-sigmoid")
@pytest.mark.parametrize("steps", LENGTHS)
def test_eq_sigmoid_is_the_librarys_but_for_the_clipped_end(steps):
    g = [1 / (1 + math.exp(3 - 6 * t / steps)) for t in range(steps + 1)]
    alpha_bar = chain.sigmoid(steps).alpha_bar
    close(alpha_bar[:-1], [(g[-1] - value) / (g[-1] - g[0]) for value in g[:-1]], 1e-12)


@pytest.mark.equation("eq-log-snr")
@pytest.mark.parametrize("family", chain.CHAINS)
def test_eq_log_snr_is_the_schedules_and_the_sigmoid_undoes_it(book, family):
    table, alpha_bar = schedule.make(family, steps=50), chain.CHAINS[family](50).alpha_bar[1:]
    level, a, s = table.at(torch.arange(1, 51, dtype=torch.float64) / 50)
    close(book["log_snr"](alpha_bar), level, 1e-9)
    close((a / s) ** 2 / level.exp(), 1.0, 1e-9)
    close(1 / (1 + (-level).exp()), alpha_bar, 1e-12)


@pytest.mark.equation("eq-error-left")
@pytest.mark.parametrize("level", [-4.0, 0.0, 3.0])
def test_eq_error_left_is_what_the_exact_guess_leaves(level):
    n, v, generator = 200_000, 0.3, torch.Generator().manual_seed(1)
    pixel, table = Gaussian([0.7], v), schedule.Schedule("flat", lambda t: level + 0 * t)
    x0 = pixel.sample(n, generator)
    x_t = table.add_noise(x0, 0.5, torch.randn(n, 1, generator=generator))
    error2 = (x0 - pixel.denoiser(table)(x_t, 0.5)).square()
    expected = v / (1 + v * math.exp(level))
    assert abs(error2.mean() - expected) < 4 * error2.std() / n**0.5


@pytest.mark.equation("eq-spectrum")
def test_eq_spectrum_is_the_power_measured_in_noisy_pictures(book):
    # pictures whose spectrum is known: smooth ones, and one known wave
    n, share, generator = 4000, 0.6, torch.Generator().manual_seed(2)
    x0 = torch.randn(n, 32, 32, generator=generator)
    x0 = x0 + x0.roll(1, 1) + 0.5 * torch.cos(2 * math.pi * 3 * torch.arange(32) / 32)
    noisy = share**0.5 * x0 + (1 - share) ** 0.5 * torch.randn(x0.shape, generator=generator)
    k, ring = torch.arange(32), rings(32)
    power = (2 + 2 * torch.cos(2 * math.pi * k / 32)).double()[:, None].repeat(1, 32)
    power[0, [3, 29]] += (0.5 * 32 / 2) ** 2
    for f in (1, 3, 8, 16):
        P = power[ring == f].mean()
        per_picture = torch.fft.fft2(noisy, norm="ortho").abs().square()[:, ring == f].mean(1)
        close(book["spectrum"](noisy)[f], per_picture.mean(), 1e-3)
        error = 4 * per_picture.std() / n**0.5
        assert abs(per_picture.mean() - (share * P + 1 - share)) < error


@pytest.mark.equation("eq-drowned")
def test_eq_drowned_is_when_the_floor_stands_higher(book):
    alpha_bar, P = chain.linear(1000).alpha_bar[1:], f64([10.0, 0.4, 0.004])[:, None]
    by_level = book["log_snr"](alpha_bar) < -P.log()
    assert by_level.equal(alpha_bar * P < 1 - alpha_bar)
    assert 0 < by_level[0].sum() < by_level[1].sum() < by_level[2].sum() < 1000


@pytest.mark.equation("eq-larger")
@pytest.mark.parametrize("k", [2, 6])
def test_eq_larger_is_the_noise_that_averaging_leaves(k):
    level, n = -1.3, 300_000
    a, s = torch.sigmoid(f64([level, -level])).sqrt()
    large = F.interpolate(torch.full((1, 1, 2, 2), 0.7, dtype=torch.float64), scale_factor=k)
    blocks = s * torch.randn(n, k * k, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    close(F.avg_pool2d(a * large, k), 0.7 * a, 1e-12)
    variance = blocks.mean(1).var()
    assert abs(variance / (s**2 / k**2) - 1) < 4 * (2 / n) ** 0.5
    assert (a**2 / variance).log() == pytest.approx(level + 2 * math.log(k), abs=4 * (2 / n) ** 0.5)


@pytest.mark.equation("eq-left")
@pytest.mark.parametrize(("T", "first", "last"), [(50, 1e-4, 0.02), (1000, 1e-4, 0.02), (200, 5e-4, 0.02)])
def test_eq_left_is_close_and_errs_by_the_square_of_beta(T, first, last):
    beta = chain.linear(T, first, last).beta
    rule = math.exp(-T * (first + last) / 4)
    assert math.exp(-beta.sum() / 2) == pytest.approx(rule, rel=1e-12)
    exact = chain.linear(T, first, last).alpha_bar[-1].sqrt().item()
    # log(1 - b) lies between -b - b^2 / 2 - b^3 and -b - b^2 / 2
    squares, cubes = (beta**2).sum().item() / 4, (beta**3).sum().item()
    assert -squares - cubes < math.log(exact / rule) < -squares


@pytest.mark.equation("eq-mean-lost")
@pytest.mark.parametrize(("steps", "v"), [(200, 4.0), (50, 0.5), (1000, 4.0), (1000, 50_093.0)])
def test_eq_mean_lost_is_the_mean_that_the_loop_returns(steps, v):
    # in a normal world the mean of a step is linear in x: without fresh noise the loop carries the mean
    m, table, bell = -1.0, schedule.linear(steps), Gaussian([-1.0], v)
    x, denoise = torch.zeros(1, 1, dtype=torch.float64), bell.denoiser(table)
    ddpm = chain.linear(steps)
    for t in range(steps, 0, -1):
        x = ddpm.posterior(x, denoise(x, t / steps), t)[0]
    a, s = table.signal_noise(1.0)
    expected = m / (1 + v * (a / s) ** 2)
    close(x, expected, 1e-9)
    n = 20_000
    starts = torch.randn(n, 1, generator=torch.Generator().manual_seed(4))
    steps_back = sampling.ddpm(
        denoise, starts, table, table.times(min(steps, 200)), "posterior", torch.Generator().manual_seed(5)
    )
    samples = sampling.last(steps_back)
    assert abs(samples.mean() - expected) < 4 * samples.std() / n**0.5


@pytest.mark.equation("eq-spread-lost")
@pytest.mark.parametrize("v", [0.25, 1.0, 4.0, 20.0, 1000.0])
@pytest.mark.parametrize("level", [-1.88, -5.4])
def test_eq_spread_lost_is_the_variance_of_samples_on_an_exact_way_back(v, level):
    n, generator = 400_000, torch.Generator().manual_seed(7)
    S = math.exp(level)
    a = math.sqrt(S / (1 + S))
    # one draw from the exact distribution of x_0 given x_T, by Bayes' rule for normal variables
    x_T = torch.randn(n, generator=generator, dtype=torch.float64)
    precision = 1 / v + S
    x0 = S * x_T / a / precision + torch.randn(n, generator=generator, dtype=torch.float64) / precision**0.5
    expected = v * (1 + 2 * v * S + v * S**2) / (1 + v * S) ** 2
    assert abs(x0.var() / expected - 1) < 4 * (2 / n) ** 0.5
    assert expected < 1 + 2 / S or v <= 1
    assert (expected < v) == (v > 1) or v == 1


def test_the_loop_narrows_wide_directions_as_the_table_says(printed):
    end = chain.linear(200).alpha_bar[-1]
    S = float(end / (1 - end))
    assert (1 + 2 / S) ** 0.5 == pytest.approx(3.8, abs=0.05)
    lines = [re.findall(r"[\d.]+", line) for line in printed["spread-check"].splitlines()]
    assert [float(line[0]) for line in lines] == [0.25, 1, 4, 20, 100]
    for v, true, formula, loop in (map(float, line) for line in lines):
        exact = (v * (1 + 2 * v * S + v * S**2)) ** 0.5 / (1 + v * S)
        assert (true, formula) == (pytest.approx(v**0.5, abs=0.006), pytest.approx(exact, abs=0.006))
        assert 0.98 * exact - 0.006 < loop <= exact + 0.006


@pytest.mark.equation("eq-zero-terminal")
@pytest.mark.parametrize("T", [20, 200, 1000])
def test_eq_zero_terminal_is_the_librarys(T):
    a = chain.linear(T).alpha_bar.sqrt().tolist()
    expected = [1.0] + [(value - a[-1]) * a[1] / (a[1] - a[-1]) for value in a[1:]]
    after = chain.rescale_zero_terminal(chain.linear(T)).alpha_bar.sqrt()
    close(after, expected, 1e-9)
    assert after[-1] == 0 and after[1].item() == pytest.approx(a[1], abs=1e-12)


@pytest.mark.equation("eq-exploding")
@pytest.mark.parametrize("t", [1, 30, 200])
def test_eq_exploding_is_the_same_picture_at_another_size(t):
    x0, eps = draws(40, 2, count=2, seed=6)
    table, share = schedule.linear(200, 5e-4, 0.1), chain.linear(200, 5e-4, 0.1).alpha_bar[t]
    sigma = ((1 - share) / share).sqrt()
    other = schedule.Schedule("linear", table.logsnr, "ve", 200)
    y = x0 + sigma * eps
    close(table.add_noise(x0, t / 200, eps) / share.sqrt(), y, 1e-10 * float(sigma + 1))
    close(other.add_noise(x0, t / 200, eps), y, 1e-9 * float(sigma + 1))
    world = FiniteSet(x0)
    x_t = share.sqrt() * y
    close(world.denoiser(table)(x_t, t / 200), world.denoiser(other)(y, t / 200), 1e-8)


# --- its exercises


def pushed_one_by_one(x, t, k, eps, alpha_bar):
    """Follows the factor of x and the variance of the noise through k pushes."""
    factor, variance = 1.0, 0.0
    for i in range(t + 1, t + k + 1):
        beta = 1 - float(alpha_bar[i]) / float(alpha_bar[i - 1])
        factor, variance = factor * math.sqrt(1 - beta), variance * (1 - beta) + beta
    return factor * x + math.sqrt(variance) * eps


def jump_in_float32_and_in_place(x, t, k, eps, alpha_bar):
    r = (alpha_bar[t + k] / alpha_bar[t]).float()
    return x.float().mul_(r**0.5).add_(eps.float(), alpha=float(1 - r) ** 0.5)


def cosine_in_numpy(T):
    angle = (np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2
    share = np.cos(angle) ** 2 / np.cos(angle[0]) ** 2
    return np.concatenate([[0.0], np.minimum(1 - share[1:] / share[:-1], 0.999)])


def cosine_in_float32_and_loops(T):
    f = lambda t: torch.cos(torch.tensor((t / T + 0.008) / 1.008) * math.pi / 2) ** 2  # noqa: E731
    return [0.0] + [min(1 - (f(t) / f(t - 1)).item(), 0.999) for t in range(1, T + 1)]


def rescale_by_the_library(alpha_bar):
    beta = torch.cat([alpha_bar.new_zeros(1), 1 - alpha_bar[1:] / alpha_bar[:-1]])
    return chain.rescale_zero_terminal(chain.Chain(beta)).alpha_bar


def rescale_in_place(alpha_bar):
    a = alpha_bar.sqrt_()
    first, last = a[1].item(), a[-1].item()
    a[1:] -= last
    a[1:] *= first / (first - last)
    return a.square_().float()


def table_in_loops(T, first, last):
    bar = [1.0]
    for i in range(T):
        root = first**0.5 + i / (T - 1) * (last**0.5 - first**0.5)
        bar.append(bar[-1] * (1 - root * root))
    return bar


def table_in_float32(T, first, last):
    beta = torch.linspace(first**0.5, last**0.5, T) ** 2
    return torch.cat([torch.ones(1), (1 - beta).cumprod(0)])


def steps_by_halving(first, last):
    left = lambda T: np.sqrt(np.prod(1 - np.linspace(first, last, T)))  # noqa: E731
    low, high = 1, 5000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if left(middle) < 0.01 else (middle, high)
    return high


def steps_by_the_library(first, last):
    T = 2
    while chain.linear(T, first, last).alpha_bar[-1] >= 1e-4:
        T += 1
    return torch.tensor(T)


@pytest.mark.parametrize(
    ("name", "attempt"),
    [
        ("schedule.jump", pushed_one_by_one),
        ("schedule.jump", jump_in_float32_and_in_place),
        ("schedule.cosine", cosine_in_numpy),
        ("schedule.cosine", cosine_in_float32_and_loops),
        ("schedule.zero_terminal", rescale_by_the_library),
        ("schedule.zero_terminal", rescale_in_place),
        ("schedule.hardly_spoils", table_in_loops),
        ("schedule.hardly_spoils", table_in_float32),
        ("schedule.steps_needed", steps_by_halving),
        ("schedule.steps_needed", steps_by_the_library),
    ],
)
def test_the_same_thing_written_differently_is_correct(name, attempt, tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_LIB_PROGRESS", str(tmp_path / "progress.json"))
    for _ in range(3):
        verdict = check(name, attempt)
        assert verdict, verdict


def off_by_one_push(x, t, k, eps, alpha_bar):
    return pushed_one_by_one(x, t, k + 1 if t + k + 1 < len(alpha_bar) else k - 1, eps, alpha_bar)


def cosine_with_offset(offset):
    def attempt(T):
        angle = (np.arange(T + 1) / T + offset) / (1 + offset) * np.pi / 2
        share = np.cos(angle) ** 2
        return np.concatenate([[0.0], np.minimum(1 - share[1:] / share[:-1], 0.999)])

    return attempt


@pytest.mark.parametrize(
    ("name", "attempt", "said"),
    [
        ("schedule.jump", off_by_one_push, "the factor of x is"),
        ("schedule.jump", lambda x, t, k, eps, alpha_bar: pushed_one_by_one(x, t, k, eps, alpha_bar).sin(), "no mixture"),
        ("schedule.jump", lambda x, t, k, eps, alpha_bar: pushed_one_by_one(x, t, k, eps, alpha_bar) ** 2, "the square of"),
        ("schedule.jump", lambda x, t, k, eps, alpha_bar: 1.001 * pushed_one_by_one(x, t, k, eps, alpha_bar), "of x is"),
        ("schedule.cosine", cosine_with_offset(0.01), "The first is beta_1"),
        ("schedule.cosine", lambda T: np.minimum(cosine_in_numpy(T), 0.99), "1 of"),
        ("schedule.cosine", lambda T: cosine_in_numpy(T) + 0.01, "Entry 0"),
        ("schedule.zero_terminal", lambda alpha_bar: rescale_in_place(alpha_bar) * 0.999, "The clean picture"),
        ("schedule.zero_terminal", lambda alpha_bar: torch.lerp(alpha_bar, rescale_in_place(alpha_bar.clone()).double(), 0.999), "The last step"),
        ("schedule.hardly_spoils", lambda T, first, last: table_in_loops(T, first, 1.01 * last), "the last has"),
        ("schedule.hardly_spoils", lambda T, first, last: [0.5, *table_in_loops(T, first, last)[1:]], "alpha_bar[0]"),
        ("schedule.steps_needed", lambda first, last: steps_by_halving(first, last) + 1, "a smaller T"),
        ("schedule.steps_needed", lambda first, last: steps_by_halving(first, last) - 2, "of the amplitude"),
        ("schedule.steps_needed", lambda first, last: steps_by_halving(first, last) + 0.5, ""),
    ],
)  # fmt: skip
def test_what_is_nearly_right_does_not_pass_and_is_told_why(name, attempt, said, tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_LIB_PROGRESS", str(tmp_path / "progress.json"))
    for _ in range(3):
        verdict = check(name, attempt)
        assert verdict.status == "not yet" and said in verdict.text, verdict
