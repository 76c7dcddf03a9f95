"""Chapter 1: the code that it writes out is the library's, and its equations are true."""

from __future__ import annotations

import io
import json
import math
import re

import pytest
import torch
from conftest import cells_of
from PIL import Image

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


@pytest.fixture(scope="module")
def outputs() -> dict[str, list]:
    return {name: cell.get("outputs", []) for name, cell in cells_of("01_from_noise_to_a_picture").items()}


def printed(outputs) -> str:
    return "".join(each["text"] for each in outputs if each["output_type"] == "stream")


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
    # the cell that the reader sees, and the last function of the folded whole
    assert cells["the-loop"].strip().endswith(cells["draw"].strip())


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


@pytest.fixture(scope="module")
def misprint(cells, book) -> dict:
    functions = cells["bug-symptom"].split("bug_generator")[0]
    names = dict(book, cat=shape_points("cat", 300, torch.Generator().manual_seed(0)))
    exec(functions, names)
    return names


def test_the_misprint_fails_its_check(cells, misprint):
    said = []
    names = dict(misprint, print=lambda *values: said.append(" ".join(map(str, values))))
    exec(cells["bug-check"], names)
    assert sum("FAILS" in line for line in said) == 3
    assert all("FAILS" in line for line in said[1:4])


def test_the_guess_of_the_misprint_is_exact_for_it(misprint):
    """Bayes' rule once more, with the misprint's own densities."""
    cat, t = misprint["cat"].double(), 60
    x = misprint["add_noise_misprint"](cat[:20], t, torch.zeros(20, 2, dtype=torch.float64)) + 0.3
    a, variance = misprint["alpha"][t].sqrt(), misprint["alpha_bar"][t]
    noisy = torch.distributions.MultivariateNormal(a * cat, variance * torch.eye(2, dtype=torch.float64))
    weights = torch.softmax(noisy.log_prob(x[:, None]), 1)
    torch.testing.assert_close(
        misprint["guess_misprint"](x.float(), t), (weights @ cat).float(), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_misprint_draws_a_smear_where_the_right_guess_draws_a_cat(misprint, seed):
    def end(guess):
        generator = torch.Generator().manual_seed(seed)
        return misprint["draw"](guess, torch.randn(100, 2, generator=generator), generator)[0].square().mean()

    assert end(misprint["guess_misprint"]) < 0.15
    assert end(lambda x, t: misprint["best_guess"](x, t, misprint["cat"])) > 0.7


def test_the_words_about_the_misprint(book):
    ratio = book["alpha_bar"] / (1 - book["alpha_bar"])
    assert ratio[51] > 1 > ratio[52] and book["alpha_bar"][52].sqrt().item() == pytest.approx(0.71, abs=0.005)
    # at t = 1, picture and noise of the misprint are equally strong
    assert (book["alpha"][1] / book["alpha_bar"][1]).item() == pytest.approx(1)


def test_pushes_and_jump_are_printed_side_by_side(outputs):
    rows = [list(map(float, line.split())) for line in printed(outputs["check-jump-code"]).splitlines()[2:]]
    assert len(rows) == 5 and all(row[1:3] == row[3:5] for row in rows)
    assert rows[-1][:2] == [200, 0.0055]


def test_two_thermometers():
    precisions = torch.tensor([1 / 1**2, 1 / 2**2])
    mean = (precisions * torch.tensor([20.0, 23.0])).sum() / precisions.sum()
    assert mean.item() == pytest.approx(20.6)
    assert precisions.sum().item() == 1.25 and (1 / precisions.sum()).sqrt().item() == pytest.approx(
        0.9, abs=0.01
    )


def widths(outputs) -> dict[int, list[float]]:
    """What the chapter printed: step -> the true variance of four drawings, and beta, in units of beta tilde."""
    rows = [line.split() for line in printed(outputs["width"]).splitlines()[1:]]
    return {int(row[0]): list(map(float, row[1:])) for row in rows}


def test_the_width_of_a_step_is_what_a_grid_of_origins_gives(cells, book):
    """Var[x_{t-1} | x_t] from the mixture that it is, point by point, without the formula of the cell."""
    names = dict(book, shape_points=shape_points, print=lambda *_: None)
    exec(cells["width"], names)
    points, t = shape_points("heart", 200, torch.Generator().manual_seed(1)), 5
    found = names["width_of_step"](points, t, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(3)
    x = points[torch.randint(200, (4000,), generator=generator)]
    x = book["add_noise"](x, t, torch.randn(4000, 2, generator=generator)).double()
    points = points.double()
    distance2 = torch.cdist(x, book["alpha_bar"][t].sqrt() * points).square()
    weights = torch.softmax(-distance2 / (2 * (1 - book["alpha_bar"][t])), 1)
    means, variance = book["between"](x[:, None], points, t)
    mean = (weights[..., None] * means).sum(1)
    spread = (weights[..., None] * (means - mean[:, None]).square()).sum(1).mean()
    assert found == pytest.approx(1 + (spread / variance).item(), rel=0.03)


def test_the_words_about_the_width(cells, outputs, book):
    table = widths(outputs)
    assert list(table) == [50, 20, 5, 2]
    for row in table.values():
        assert all(1 < each <= row[-1] for each in row[:-1])
    assert table[50][-1] == 1.03 and table[2][-1] == 3 and 1.8 < min(table[2]) and max(table[2][:-1]) < 2.3

    def step(t, data_variance):
        """The variance of x_{t-1} given x_t, for normal data of this variance."""
        bar = book["alpha_bar"][t]
        factor, known = book["between"](0.0, 1.0, t)[0], book["between"](0.0, 0.0, t)[1]
        return known + factor**2 * data_variance * (1 - bar) / (bar * data_variance + 1 - bar)

    for t in (2, 50, 200):
        assert step(t, 1.0).item() == pytest.approx(book["beta"][t].item(), rel=1e-9)
        assert step(t, 0.0).item() == book["between"](0.0, 0.0, t)[1].item()
        assert step(t, 2.0) > book["beta"][t]
    assert (step(50, 2.0) / book["beta"][50] - 1).item() == pytest.approx(0.009, abs=5e-4)
    assert "0.9 %" in cells["width-saw"]


def test_the_film_is_drawn_by_the_page_and_light(outputs):
    """A canvas is as sharp as the screen; frames stored as pictures would not be."""
    html = outputs["film"][0]["data"]["text/html"]
    steps = json.loads(re.search(r'"steps":(\[[\d,]+\])', html)[1])
    assert 'data-ddpm-figure="scrubber' in html and "data:image/webp" not in html and len(html) < 230_000
    assert steps == steps[::-1] and (steps[0], max(steps)) == (0, 200)


@pytest.fixture
def dial(cells, book, monkeypatch) -> dict:
    """The cells of the dial, run as they stand; what draw_own was asked for is kept in "asked"."""
    widgets = pytest.importorskip("ipywidgets")
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(plt, "show", plt.close)
    from ddpm_lib.plotting import place_colours, plot_points

    names = dict(book, plt=plt, plot_points=plot_points, place_colours=place_colours, asked=[])
    exec(cells["own-dots"], names)
    exec(cells["dial"], names)
    inner = names["draw_own"]

    def draw_own(picture, count, seed):
        names["asked"].append((picture, count, seed))
        names["film"], names["points"] = inner(picture, count, seed)

    names["draw_own"] = draw_own
    names["controls"] = {
        child.description: child for child in names["mine"].widget.children if hasattr(child, "description")
    }
    names["button"] = next(
        child
        for child in names["mine"].widget.children
        if isinstance(child, widgets.Button) and hasattr(child, "click")
    )
    return names


def test_the_dial_draws_the_word_that_was_typed(dial):
    dial["controls"]["dots"].value, dial["controls"]["seed"].value = 60, 3
    assert not dial["asked"]  # a slider alone draws nothing
    dial["controls"]["word"].value = "I"
    dial["button"].click()
    picture, count, seed = dial["asked"][-1]
    assert (count, seed) == (60, 3) and dial["film"][0].shape == (60, 2)
    assert picture.height > 1.5 * picture.width  # an I is tall
    ends, points = dial["film"][0], dial["points"]
    assert torch.cdist(ends, points).min(1).values.max() < 0.2
    assert ends[:, 1].std() > 1.5 * ends[:, 0].std()


@pytest.mark.parametrize("form", ["ipywidgets 7", "ipywidgets 8"])
def test_the_dial_takes_the_readers_picture(dial, form):
    """Black on the right half only: that is where the dots go."""
    picture = Image.new("RGB", (400, 300), "white")
    picture.paste("black", (200, 0, 400, 300))
    file = io.BytesIO()
    picture.save(file, "PNG")
    one = {"name": "a.png", "content": file.getvalue()}
    dial["mine"](upload={"a.png": one} if form.endswith("7") else (one,), dots=40)
    assert dial["asked"][0][0].size == (400, 300)
    dots = dial["dots_of"](picture, 2000, torch.Generator().manual_seed(0))
    assert dots.mean(0).abs().max() < 1e-5 and dots.square().mean().item() == pytest.approx(1, abs=1e-5)
    # an even rectangle, 100 wide and 150 high
    assert (dots[:, 1].std() / dots[:, 0].std()).item() == pytest.approx(1.5, rel=0.06)
    assert dots[:, 0].std().item() == pytest.approx(math.sqrt(2 / (1 + 1.5**2)), rel=0.06)


def test_dots_stand_upright(dial):
    """What is high in a picture is high in the plane."""
    picture = Image.new("L", (100, 100), 255)
    picture.paste(0, (0, 0, 100, 10))
    picture.paste(0, (0, 10, 10, 100))  # a capital gamma: more ink above, more ink on the left
    dots = dial["dots_of"](picture, 4000, torch.Generator().manual_seed(0))
    assert dots[:, 1].median() > 0 > dots[:, 0].median()


def test_nothing_typed_is_no_error(dial):
    assert dial["written"]("").size == dial["written"]("?").size
    assert dial["written"](" ").size[0] > 0
