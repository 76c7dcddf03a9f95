"""Chapter 7: its equations, its written-out loop beside `train`, and what its table of symptoms claims."""

import math
import re
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

from ddpm_lib.chain import cosine as cosine_chain
from ddpm_lib.data import batches, load_images
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.muon import Muon, orthogonalized
from ddpm_lib.schedule import cosine
from ddpm_lib.training import (
    EMA,
    TrainConfig,
    TrainingDiverged,
    learning_rate,
    sample_times,
    step_generator,
    train,
)
from ddpm_lib.unet import UNet, UNetConfig

ROOT = Path(__file__).parents[1]
CHAPTER = ROOT / "book" / "07_training_on_mnist.ipynb"
RECORDS = ROOT / "benchmarks" / "records"
TINY = UNetConfig(8, 1, num_classes=3, width=8, multipliers=(1,), blocks=1, attention=(), head_dim=8, patch=2)


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(CHAPTER, as_version=4)


@pytest.fixture(scope="module")
def chapter(notebook):
    """The functions that the chapter writes out, run from its own cells."""
    cells = {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}
    names = {"torch": torch}
    for cell in ("draw", "plain-loop", "ema-check", "rate-code", "muon-code"):
        exec(cells[cell].split("\nprint(")[0], names)
    return names


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return UNet(TINY)


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.rand(6, 1, 8, 8, generator=generator) * 2 - 1, torch.randint(3, (6,), generator=generator))
        for _ in range(8)
    ]


def drawn_as_train_does(step, x0):
    """t and eps of `train`, for a loop that takes its draws from outside."""
    generator = step_generator(0, step)
    t = sample_times(cosine(1000), len(x0), "uniform", generator)
    torch.randint(2**62, (), generator=generator)
    return (t * 1000).round().long(), torch.randn(x0.shape, generator=generator)


TARGETS = {"eps": lambda x0, eps, a, s: eps, "v": lambda x0, eps, a, s: a * eps - s * x0}


@pytest.mark.parametrize("predict", TARGETS)
def test_the_written_loop_is_train(chapter, tiny, pairs, predict):
    mine, theirs = tiny, UNet(TINY)
    theirs.load_state_dict(mine.state_dict())
    losses = chapter["plain_training"](mine, TARGETS[predict], pairs, 8, drawn_as_train_does, lr=1e-3)
    config = TrainConfig(steps=8, lr=1e-3, warmup=0, clip=0, label_dropout=0, seed=0)
    steps = list(train(Denoiser(theirs, cosine(1000), predict), pairs, config))
    assert losses == pytest.approx([step.loss.item() for step in steps], abs=1e-6)
    for one, two in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_the_written_rate_and_average_are_the_librarys(chapter):
    config = TrainConfig(steps=90, lr=2e-3, warmup=20, decay="cosine")
    for step in range(90):
        assert chapter["rate"](step, 90, 2e-3, 20) == pytest.approx(learning_rate(config, step), abs=1e-12)
    net = nn.Linear(1, 1)
    ema = EMA(net, half_life=5)
    ema.updates = 10_000  # past the part where the library's average is shorter
    expected = ema.net.weight.item()
    for value in (0.3, -2.0, 7.0):
        nn.init.constant_(net.weight, value)
        ema.update(net)
        expected = chapter["ema_update"](expected, value, half_life=5)
        assert ema.net.weight.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(32, 288), (64, 16), (9, 9)])
def test_the_written_orthogonal_is_the_librarys(chapter, shape):
    matrix = 0.01 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(chapter["orthogonal"](matrix), orthogonalized(matrix), rtol=0, atol=1e-5)


# --- the equations, each by its label -------------------------------------------------------------


@pytest.mark.equation("eq-training-loss")
def test_eq_training_loss(chapter, pairs):
    """The loop's loss is the mean over pixels and pictures of |eps_net(x_t, t) - eps|^2, per picture and by hand."""
    x0, label = pairs[0]
    seen = {}

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))

        def forward(self, x, logsnr, label):
            seen["x"], seen["logsnr"] = x.detach(), logsnr
            return self.scale * x

    (loss,) = chapter["plain_training"](Half(), TARGETS["eps"], [(x0, label)], 1, chapter["draw"])
    t, eps = chapter["draw"](0, x0)
    alpha_bar = cosine_chain(1000).alpha_bar
    marks = []
    for i in range(len(x0)):
        x_t = math.sqrt(alpha_bar[t[i]]) * x0[i] + math.sqrt(1 - alpha_bar[t[i]]) * eps[i]
        torch.testing.assert_close(seen["x"][i], x_t)
        assert seen["logsnr"][i].item() == pytest.approx(
            math.log(alpha_bar[t[i]] / (1 - alpha_bar[t[i]])), rel=1e-5
        )
        marks.append(((0.5 * x_t - eps[i]) ** 2).sum().item() / x0[i].numel())
    assert loss == pytest.approx(sum(marks) / len(marks), rel=1e-5)


@pytest.mark.equation("eq-loss-at-start")
def test_eq_loss_at_start(chapter):
    """1 within 4 standard errors, for data of any scale; and the standard error itself."""
    for scale in (1.0, 0.1, 100.0):
        torch.manual_seed(0)
        x0 = scale * torch.randn(64, 1, 8, 8)
        (loss,) = chapter["plain_training"](
            UNet(TINY), TARGETS["eps"], [(x0, torch.zeros(64).long())], 1, chapter["draw"]
        )
        assert abs(loss - 1) < 4 * math.sqrt(2 / (64 * 64))
    means = torch.randn(4000, 256, generator=torch.Generator().manual_seed(0)).square().mean(1)
    assert means.std().item() == pytest.approx(math.sqrt(2 / 256), rel=4 / math.sqrt(2 * 4000))


@pytest.mark.equation("eq-v-target")
def test_eq_v_target():
    """x_0 = a x_t - s v, at each step of the chain."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(1001, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    alpha_bar = cosine_chain(1000).alpha_bar[:, None]
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    v = TARGETS["v"](x0, eps, a, s)
    torch.testing.assert_close(a * (a * x0 + s * eps) - s * v, x0, rtol=0, atol=1e-12)


@pytest.mark.equation("eq-ema")
def test_eq_ema(chapter):
    """A weight of h steps ago counts half, whatever h."""
    for half_life in (3, 20, 71):
        average = 1.0
        for _ in range(half_life):
            average = chapter["ema_update"](average, 0.0, half_life)
        assert average == pytest.approx(0.5, abs=1e-12)


@pytest.mark.equation("eq-error-in-x0")
def test_eq_error_in_x0():
    """The picture is wrong by s times what v is wrong by, whatever the network answers."""
    generator, schedule = torch.Generator().manual_seed(0), cosine(1000)
    x0, eps, delta = (torch.randn(4, 1, 8, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    for t in (0.01, 0.3, 0.9, 1.0):
        a, s = schedule.signal_noise(t)
        wrong = Denoiser(lambda x, logsnr, label, a=a, s=s: a * eps - s * x0 + delta, schedule, "v")
        of_picture = (wrong(a * x0 + s * eps, t) - x0).square().sum()
        torch.testing.assert_close(of_picture, s**2 * delta.square().sum())


@pytest.mark.equation("eq-newton-schulz")
def test_eq_newton_schulz(chapter):
    """One round is the polynomial on the singular values; five bring those above 0.0015 near 1."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = 3.4445, -4.7750, 2.0315
    for shape in ((5, 12), (12, 5), (6, 6)):
        matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
        u, values, vt = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
        expected = u @ torch.diag(a * values + b * values**3 + c * values**5) @ vt
        torch.testing.assert_close(chapter["orthogonal"](matrix, rounds=1), expected)
    # a matrix of given singular values, so that the whole range from 0.0015 to 1 is met
    levelled = torch.logspace(math.log10(0.0015), 0, 100_000, dtype=torch.float64)
    for _ in range(5):
        levelled = a * levelled + b * levelled**3 + c * levelled**5
    assert levelled.min() > 0.65 and levelled.max() < 1.25


@pytest.mark.equation("eq-muon-step")
def test_eq_muon_step(chapter):
    """The library's first step is the equation's, and its root mean square is 0.2 of the learning rate."""
    for rows, columns in ((8, 64), (64, 16), (30, 30)):
        net = nn.Linear(columns, rows, bias=False)
        gradient = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
        net.weight.grad, before = gradient, net.weight.detach().clone()
        Muon(net, lr=0.1).step()
        step = 0.1 * 0.2 * math.sqrt(max(rows, columns)) * chapter["orthogonal"](gradient)
        torch.testing.assert_close(net.weight.detach(), before - step)
        u, _, vt = torch.linalg.svd(gradient.double(), full_matrices=False)
        exact = 0.1 * 0.2 * math.sqrt(max(rows, columns)) * u @ vt
        assert exact.square().mean().sqrt().item() == pytest.approx(0.2 * 0.1)


@pytest.mark.equation("eq-loss-at-zero")
def test_eq_loss_at_zero():
    """a^2 + s^2 m for v, within 4 standard errors at several t, on real pictures."""
    schedule, x0 = cosine(1000), next(batches(load_images("mnist", "test"), 400))[0]
    generator = torch.Generator().manual_seed(0)
    silent = Denoiser(lambda x, logsnr, label: torch.zeros_like(x), schedule, "v")
    for t in (0.01, 0.2, 0.5, 0.9):
        loss = silent.loss(x0, torch.full((400,), t), torch.randn(x0.shape, generator=generator))
        a, s = schedule.signal_noise(t)
        expected = float(a**2 + s**2 * x0.square().mean())
        # given x0 the only luck is in eps, so the spread over pictures bounds the standard error
        assert abs(loss.mean().item() - expected) < 4 * loss.std().item() / math.sqrt(400)


# --- what the speedrun measured ---------------------------------------------------------------------


def rows_of(table):
    """The rows of the Markdown tables in a text, by their first cell."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line[:1] == "|"
    ]
    return {name: cells for name, *cells in rows}


def test_the_chapter_prints_the_measured_worth_of_each_choice(notebook):
    chosen = rows_of(next(cell.source for cell in notebook.cells if cell.id == "choices"))
    measured = rows_of((RECORDS / "speedrun_mnist_ablation.md").read_text(encoding="utf-8"))
    names = [name for name in chosen if name in measured and "%" in measured[name][2]]
    assert len(names) == len(chosen) - 2 == 12  # all but the head and the line under it
    for name in names:
        seconds, _, as_asked, recall = measured[name][:4]
        assert chosen[name] == [seconds, as_asked, recall], name


def test_the_live_recipe_is_the_records(notebook):
    from speedrun_mnist import TRACK

    recipe = TRACK.recipe
    source = next(cell.source for cell in notebook.cells if cell.id == "live-train")
    made = {"torch": torch, "UNet": UNet, "UNetConfig": UNetConfig, "EMA": EMA, "TrainConfig": TrainConfig}
    exec(source.split("\nrun = ")[0], made)
    assert made["config"] == replace(recipe.train, steps=500)
    assert made["net"].config == recipe.net
    assert made["ema"].half_life == recipe.ema_half_life
    assert 300_000 < sum(weight.numel() for weight in made["net"].parameters()) < 310_000
    assert f"batches(data, {recipe.batch_size})" in source
    assert f'"{recipe.predict}", scale={recipe.scale}' in source


# --- the table of symptoms -------------------------------------------------------------------------


def test_noise_that_is_not_in_the_picture_keeps_the_loss_at_one(chapter, tiny):
    luck = torch.Generator().manual_seed(9)
    stream = repeat((torch.zeros(64, 1, 8, 8), torch.zeros(64).long()))
    losses = chapter["plain_training"](
        tiny, lambda x0, eps, a, s: torch.randn(eps.shape, generator=luck), stream, 60, chapter["draw"]
    )
    assert abs(sum(losses[-20:]) / 20 - 1) < 0.05
    learns = chapter["plain_training"](UNet(TINY), TARGETS["eps"], stream, 60, chapter["draw"], lr=1e-2)
    assert sum(learns[-20:]) / 20 < 0.5


def test_an_optimiser_of_another_copy_moves_nothing(tiny, pairs):
    other = torch.optim.Adam(UNet(TINY).parameters(), lr=1e-2)
    steps = train(Denoiser(tiny, cosine(), "v"), repeat(pairs[0]), TrainConfig(steps=3, seed=1), None, other)
    before = [p.clone() for p in tiny.parameters()]
    list(steps)
    assert all(torch.equal(p, q) for p, q in zip(before, tiny.parameters(), strict=True))


def test_a_picture_that_is_not_finite_is_refused_by_step_number(tiny, pairs):
    bad = (pairs[3][0].clone(), pairs[3][1])
    bad[0][0, 0, 0, 0] = math.nan
    with pytest.raises(TrainingDiverged, match="step 4"):
        list(train(Denoiser(tiny, cosine(), "v"), [*pairs[:3], bad], TrainConfig(steps=4)))


def test_an_average_with_too_long_a_half_life_remembers_the_start(chapter):
    average = 1.0
    for _ in range(300):
        average = chapter["ema_update"](average, 0.0, 1_000)
    assert average == pytest.approx(2**-0.3) and round(average, 2) == 0.81


@pytest.mark.parametrize("arrives", [True, False])
def test_labels_that_never_arrive_leave_the_table_as_it_was(tiny, pairs, arrives):
    before = tiny.conditioning.label.weight.detach().clone()
    stream = pairs if arrives else [(x0, None) for x0, _ in pairs]
    list(train(Denoiser(tiny, cosine(), "v"), stream, TrainConfig(steps=8, warmup=0, label_dropout=0)))
    moved = (tiny.conditioning.label.weight != before).any(1)
    assert moved[:3].all() if arrives else not moved[:3].any()


def test_a_perfect_model_of_data_from_0_to_1_draws_grey_paper():
    """The best denoiser of such data never answers below 0, which is shown as mid-grey."""
    from ddpm_lib.plotting import image_grid
    from ddpm_lib.sampling import ddim, last

    paper = torch.zeros(4, 1, 8, 8)
    schedule = cosine()
    noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = last(ddim(lambda x, t: paper, noise, schedule, schedule.times(10)))
    assert drawn.abs().max() < 1e-6
    assert 127 <= int(image_grid(drawn, padding=0).min()) <= int(image_grid(drawn, padding=0).max()) <= 128


# --- the stored chapter ------------------------------------------------------------------------------


def test_pictures_have_alt_text_and_are_small(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).get("image/png")
            if picture is None:
                continue
            film = "text/html" in output.data
            assert film or cell.metadata["mystnb"]["image"]["alt"], cell.id
            assert len(picture) * 3 / 4 < 100_000, f"{cell.id}: {len(picture) * 3 / 4 / 1000:.0f} kB"


def test_exercises_say_that_they_were_not_attempted_and_their_solutions_pass(notebook):
    said = {
        cell.id: "".join(o.get("text", "") for o in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    checks = [name for name in said if re.fullmatch(r"ex\d-check", name)]
    assert len(checks) >= 3
    for name in checks:
        assert "not attempted yet" in said[name], name
        assert ": correct" in said[name.replace("check", "solution")], name
