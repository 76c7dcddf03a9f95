"""Chapter 7: its equations, its written-out loop beside `train`, and what its table of symptoms claims."""

import json
import math
from dataclasses import replace
from itertools import islice, repeat
from pathlib import Path
from types import SimpleNamespace

import broken_runs
import numpy as np
import pytest
import torch
from conftest import cells_of
from torch import nn

from ddpm_lib.chain import cosine as cosine_chain
from ddpm_lib.classifier import shipped_classifier
from ddpm_lib.data import batches, load_images, to_float
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.exercises import chapter_07, check
from ddpm_lib.muon import Muon, orthogonalized
from ddpm_lib.schedule import cosine
from ddpm_lib.toy import FiniteSet
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

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "benchmarks" / "records"
TINY = UNetConfig(8, 1, num_classes=3, width=8, multipliers=(1,), blocks=1, attention=(), head_dim=8, patch=2)


@pytest.fixture(scope="module")
def cells():
    return {name: cell.source for name, cell in cells_of("07_training_on_mnist").items()}


@pytest.fixture(scope="module")
def chapter(cells):
    """The functions that the chapter writes out, run from its own cells."""
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


@pytest.mark.equation("eq-ema")
def test_eq_ema(chapter):
    """A weight of h steps ago counts half, whatever h."""
    for half_life in (3, 20, 71):
        average = 1.0
        for _ in range(half_life):
            average = chapter["ema_update"](average, 0.0, half_life)
        assert average == pytest.approx(0.5, abs=1e-12)


@pytest.mark.equation("eq-newton-schulz")
def test_eq_newton_schulz(chapter):
    """One round is the polynomial on the singular values; five bring those above 0.0015 near 1."""
    generator = torch.Generator().manual_seed(0)
    p, q, r = 3.4445, -4.7750, 2.0315
    for shape in ((5, 12), (12, 5), (6, 6)):
        matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
        u, values, vt = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
        expected = u @ torch.diag(p * values + q * values**3 + r * values**5) @ vt
        torch.testing.assert_close(chapter["orthogonal"](matrix, rounds=1), expected)
    # a matrix of given singular values, so that the whole range from 0.0015 to 1 is met
    levelled = torch.logspace(math.log10(0.0015), 0, 100_000, dtype=torch.float64)
    for _ in range(5):
        levelled = p * levelled + q * levelled**3 + r * levelled**5
    assert levelled.min() > 0.65 and levelled.max() < 1.25


def test_a_step_of_muon_is_as_long_as_the_chapter_says(chapter):
    """The library's first step is the chapter's, and its root mean square is 0.2 of the learning rate."""
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


@pytest.fixture(scope="module")
def floor_of(cells):
    """The chapter's floor on a small labelled set, and that set."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 1, 3, 3), generator=generator, dtype=torch.uint8)
    data = SimpleNamespace(images=images, labels=torch.arange(40) % 10)
    x0 = to_float(images)
    names = {"torch": torch, "data": data, "schedule": cosine(1000), "print": lambda *_: None}
    names |= {"some_x0": x0, "some_label": data.labels, "test_eps": torch.zeros_like(x0)}
    exec(cells["floor"], names)
    return names["floor"], x0, data.labels


@pytest.mark.equation("eq-label-floor")
def test_eq_label_floor_is_bayes_rule_among_the_pictures_of_the_class(floor_of):
    floor, known, labels = floor_of
    eps = torch.randn(known.shape, generator=torch.Generator().manual_seed(1))
    for t in (0.02, 0.6, 0.9, 1.0):
        a, s = (scale.item() for scale in cosine(1000).signal_noise(t))
        errors = []
        for x0, label, noise in zip(known, labels, eps, strict=True):
            x = a * x0 + s * noise
            meant = [k for k, of in zip(known, labels, strict=True) if of == label]
            logs = [-((x - a * k) ** 2).double().sum().item() / (2 * s * s) for k in meant]
            weights = [math.exp(log - max(logs)) for log in logs]
            mean = sum(w * k for w, k in zip(weights, meant, strict=True)) / sum(weights)
            errors.append((x0 - mean).square().mean().item())
        assert floor(known, labels, t, eps) == pytest.approx(sum(errors) / len(errors), rel=1e-4, abs=1e-9)


@pytest.mark.equation("eq-label-floor")
@pytest.mark.parametrize("t", [0.7, 0.85, 0.95])
def test_nobody_is_below_the_floor(floor_of, t):
    """Neither who does not know the label nor who is a little off, within 4 standard errors; and both are above."""
    floor, known, labels = floor_of
    schedule, generator = cosine(1000), torch.Generator().manual_seed(2)
    everything, n = FiniteSet(known).denoiser(schedule), 100
    gaps = {"without the label": [], "less bold": []}
    classes = {label: FiniteSet(known[labels == label]).denoiser(schedule) for label in range(10)}
    for _ in range(n):
        eps = torch.randn(known.shape, generator=generator)
        x_t, best = schedule.add_noise(known, t, eps), floor(known, labels, t, eps)
        guess = torch.cat([classes[int(y)](x, t) for x, y in zip(x_t.split(1), labels, strict=True)])
        for name, other in (("without the label", everything(x_t, t)), ("less bold", 0.9 * guess)):
            gaps[name].append((known - other).square().mean().item() - best)
    for name, gap in gaps.items():
        mean, error = np.mean(gap), np.std(gap) / math.sqrt(n)
        assert mean > 4 * error, name


# --- what the speedrun measured ---------------------------------------------------------------------


def rows_of(table):
    """The rows of the Markdown tables in a text, by their first cell."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line[:1] == "|"
    ]
    return {name: cells for name, *cells in rows}


def test_the_chapter_prints_the_measured_worth_of_each_choice(cells):
    chosen = rows_of(cells["choices"])
    measured = rows_of((RECORDS / "speedrun_mnist_ablation.md").read_text(encoding="utf-8"))
    first, *_ = json.loads((RECORDS / "speedrun_mnist.json").read_text(encoding="utf-8"))
    record = first["runs"]
    mean = {key: sum(run[key] for run in record) / 5 for key in ("label_accuracy", "recall")}
    seconds = sorted(run["seconds"] for run in record)[2]
    five = [f"{seconds:.1f}", f"{mean['label_accuracy']:.1%}", f"{mean['recall']:.2f}"]
    assert chosen.pop("the recipe, five runs") == five and len(record) == 5
    chosen["the recipe"] = chosen.pop("the recipe, two of them")
    names = [name for name in chosen if name in measured and "%" in measured[name][2]]
    assert len(names) == len(chosen) - 2 == 12  # all but the head and the line under it
    for name in names:
        seconds, _, as_asked, recall = measured[name][:4]
        assert chosen[name] == [seconds, as_asked, recall], name
    shares = sorted(run["label_accuracy"] for run in record)
    assert f"between\n{100 * shares[0]:.1f} % and {100 * shares[-1]:.1f} %" in cells["choices"]
    # the two seeds of the table are the record's first, and its best
    assert sorted(run["label_accuracy"] for run in record[:2]) == shares[-2:]


def test_the_live_recipe_is_the_records(cells):
    from speedrun_mnist import TRACK

    recipe = TRACK.recipe
    source = cells["live-train"]
    made = {"torch": torch, "UNet": UNet, "UNetConfig": UNetConfig, "EMA": EMA, "TrainConfig": TrainConfig}
    exec(source.split("\nrun = ")[0], made)
    assert made["config"] == replace(recipe.train, steps=500)
    assert made["net"].config == recipe.net
    assert made["ema"].half_life == recipe.ema_half_life
    assert 300_000 < sum(weight.numel() for weight in made["net"].parameters()) < 310_000
    assert f"batches(data, {recipe.batch_size})" in source
    assert f'"{recipe.predict}", scale={recipe.scale}' in source
    assert (broken_runs.NET, broken_runs.CONFIG) == (recipe.net, replace(recipe.train, precision="fp32"))


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


def test_pictures_from_0_to_255_keep_the_loss_near_one(chapter, tiny, pairs):
    wrong = [(127.5 * x0 + 127.5, label) for x0, label in pairs]
    losses = chapter["plain_training"](tiny, TARGETS["eps"], wrong * 8, 60, chapter["draw"])
    assert sum(losses[-20:]) / 20 > 0.8


# --- the broken runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs():
    return {chapter_07.LETTERS[letter]: run for letter, run in chapter_07.stored_runs().items()}


def end(values):
    return float(sum(values[-20:]) / 20)


def test_the_healthy_run_learns(runs):
    run = runs["none"]
    assert end(run.loss) < 0.13 and run.tested[240] < 0.13 and run.tested[240] < run.tested[120]


def test_an_average_that_is_far_too_long_spoils_the_samples_and_no_loss(runs):
    assert torch.equal(runs["average"].loss, runs["none"].loss)
    assert runs["average"].tested == runs["none"].tested
    assert contrast(runs["average"]) < 0.3 * contrast(runs["none"])


def test_an_optimiser_of_another_copy_leaves_the_test_where_it_was(runs):
    assert len(set(runs["copy"].tested.values())) == 1
    assert runs["copy"].samples.abs().max() < 0.1


def test_a_rate_that_is_too_large_never_comes_down(runs):
    assert end(runs["rate"].loss) > 2.5 * end(runs["none"].loss)
    assert runs["rate"].loss[:40].max() > 1.2 * runs["none"].loss[:40].max()


def test_a_batch_that_is_never_renewed_parts_training_from_test(runs):
    run = runs["batch"]
    assert end(run.loss) < 0.8 * end(runs["none"].loss)
    assert run.tested[240] > 1.3 * min(run.tested.values())
    assert run.tested[240] > 2 * end(run.loss)


def test_a_label_taken_for_none_spoils_one_column(runs):
    run = runs["zero"]
    assert end(run.loss) == pytest.approx(end(runs["none"].loss), rel=0.1)
    judge, _ = shipped_classifier(load_images("mnist", split="test").classes)
    with torch.no_grad():
        read = {bug: judge(runs[bug].samples).argmax(1).view(2, 10) for bug in ("zero", "none")}
    asked = torch.arange(10)
    assert (read["none"] == asked).sum() >= 17
    assert (read["zero"] == asked)[:, 1:].sum() >= 15 and (read["zero"][:, 0] != 0).all()


def contrast(run):
    return run.samples.flatten(1).std(1).mean().item()


@pytest.mark.parametrize("bug", broken_runs.BUGS)
def test_the_stored_runs_are_what_the_script_makes(runs, bug):
    losses = list(islice(broken_runs.Run(bug).losses(), 3))
    assert losses == pytest.approx(runs[bug].loss[:3].tolist(), rel=0.02)


def test_the_bugs_that_no_loss_shows_are_there():
    (_, label), (_, broken) = (next(broken_runs.Run(bug).pairs) for bug in ("none", "zero"))
    assert (label == 0).any() and torch.equal(broken, torch.where(label == 0, -1, label))
    moved = {}
    for bug in ("none", "average"):
        run = broken_runs.Run(bug)
        first = next(run.net.parameters())
        start = first.detach().clone()
        nn.init.constant_(first, 1.0)
        run.ema.update(run.net)
        now = next(run.ema.net.parameters())
        moved[bug] = ((now - start) / (1 - start)).mean().item()
    assert moved["none"] > 0.5 and moved["average"] == pytest.approx(1 - 2 ** (-1 / 5_000), rel=0.05)


def test_the_stored_runs_are_small():
    assert broken_runs.PATH.stat().st_size < 150_000


# --- the exercises, solved in other ways -------------------------------------------------------------


def average_by_updates(start, constant, half_life, updates):
    for _ in range(updates):
        start += (1 - 0.5 ** (1 / half_life)) * (constant - start)
    return np.float32(start)


def average_by_shares(start, constant, half_life, updates):
    left = torch.tensor(0.5) ** (updates / half_life)
    return torch.lerp(torch.tensor(float(constant)), torch.tensor(float(start)), left)


@pytest.mark.parametrize("attempt", [average_by_updates, average_by_shares])
def test_other_ways_to_average_are_correct(attempt):
    assert check("training.average", attempt, record=False)


def first_loss_by_pairs(target, a, s, m):
    p, q = {"eps": (0, 1), "x0": (1, 0), "v": (-s, a), "flow": (-1, 1)}[target]
    return torch.tensor(p * p * m + q * q)


def first_loss_by_drawing(target, a, s, m):
    """Exact for two values of each: x0 is a root of m or minus it, eps is 1 or -1."""
    total = 0.0
    for x0 in (math.sqrt(m), -math.sqrt(m)):
        for eps in (-1, 1):
            answer = {"eps": eps, "x0": x0, "v": a * eps - s * x0, "flow": eps - x0}[target]
            total += answer**2 / 4
    return total


@pytest.mark.parametrize("attempt", [first_loss_by_pairs, first_loss_by_drawing])
def test_other_ways_to_the_first_loss_are_correct(attempt):
    assert check("training.first_loss", attempt, record=False)


def batch_as_a_list(training, net, target, pairs, draw, steps):
    batch = next(iter(pairs))
    fixed = draw(17, batch[0])
    return training(net, target, [batch] * steps, steps, lambda step, x0: fixed)


def batch_by_a_generator(training, net, target, pairs, draw, steps):
    first = list(islice(pairs, 1))[0]

    def always():
        while True:
            yield first

    t, eps = draw(4, first[0])
    return training(net, target, always(), steps, lambda step, x0: (t.int(), eps.double()), lr=1e-2)


@pytest.mark.parametrize("attempt", [batch_as_a_list, batch_by_a_generator])
def test_other_ways_to_one_batch_are_correct(attempt):
    assert check("training.one_batch", attempt, record=False)


def per_time_in_loops(t, loss, T, bins):
    means = []
    for k in range(bins):
        inside = [
            x for step, x in zip(t.tolist(), loss.tolist(), strict=True) if k * T < step * bins <= (k + 1) * T
        ]
        means.append(sum(inside) / len(inside))
    return means


def per_time_in_numpy(t, loss, T, bins):
    which = (t.numpy() - 1) // (T // bins)
    return np.bincount(which, loss.numpy()) / np.bincount(which)


def per_time_in_float32(t, loss, T, bins):
    rows = torch.bucketize(t, torch.arange(1, bins + 1) * (T // bins))
    return torch.stack([loss.float()[rows == k].mean() for k in range(bins)])


@pytest.mark.parametrize("attempt", [per_time_in_loops, per_time_in_numpy, per_time_in_float32])
def test_other_ways_to_the_loss_per_time_are_correct(attempt):
    assert check("training.per_time", attempt, record=False)


def test_the_right_diagnosis_passes_in_any_order():
    assert check("training.diagnose", dict(reversed(chapter_07.ANSWER.items())), record=False)


@pytest.mark.parametrize("letter", "ABCDE")
@pytest.mark.parametrize("cause", chapter_07.CAUSES)
def test_every_wrong_diagnosis_gets_a_hint_and_no_hint_names_the_answer(letter, cause):
    right = chapter_07.ANSWER[letter]
    text = check("training.diagnose", chapter_07.ANSWER | {letter: cause}, record=False).text
    if cause == right:
        assert text == "correct."
        return
    assert letter in text and f"'{right}'" not in text and "not right" not in text
    others = [f"{other}:" for other in "ABCDE" if other != letter]
    assert not any(other in text for other in others)


def test_near_misses_fail_and_are_described():
    said = lambda name, attempt: check(name, attempt, record=False).text  # noqa: E731

    def off(start, constant, half_life, updates):
        return average_by_updates(start, constant, half_life, updates + 1)

    assert "one update too few or too many" in said("training.average", off)
    near = lambda target, a, s, m: first_loss_by_pairs(target, a, s, m) * (1.001 if target == "v" else 1)  # noqa: E731
    assert "Right for eps, x0, flow; not for v" in said("training.first_loss", near)

    def short(training, net, target, pairs, draw, steps):
        return batch_as_a_list(training, net, target, pairs, draw, steps - 1)

    assert "the losses of" in said("training.one_batch", short)

    def two(training, net, target, pairs, draw, steps):
        both = list(islice(pairs, 2)) * steps
        return training(net, target, both, steps, lambda step, x0: draw(0, x0))

    assert "2 different batches, 1 different sets of times" in said("training.one_batch", two)
    spoilt = lambda t, loss, T, bins: per_time_in_numpy(t, loss, T, bins) + 0.01 * (np.arange(bins) == 1)  # noqa: E731
    assert "Bin 1 holds the steps" in said("training.per_time", spoilt)
    partly = {"A": None, "B": "none", "C": "rate", "D": "zero", "E": "copy"}
    text = said("training.diagnose", partly)
    assert "2 of 5 right. A: no diagnosis yet. B: 'none' is none of" in text and "D: 'zero'" in text
    odd = chapter_07.ANSWER | {"A": ["average"]}
    assert "4 of 5 right. A: ('average',) is none of" in said("training.diagnose", odd)
    assert said("training.diagnose", dict.fromkeys("ABCDE")) == "not attempted yet."
    assert "keys should be" in said("training.diagnose", {"A": "rate"})


def other_pictures(training, net, target, pairs, draw, steps):
    x0, label = next(pairs)
    return training(net, target, repeat((0 * x0, label)), steps, lambda step, x0: draw(0, x0))


def one_picture(training, net, target, pairs, draw, steps):
    x0, label = next(pairs)
    return training(net, target, repeat((x0[:1], label[:1])), steps, lambda step, x0: draw(0, x0))


def other_labels(training, net, target, pairs, draw, steps):
    x0, label = next(pairs)
    return training(net, target, repeat((x0, label.flip(0))), steps, lambda step, x0: draw(0, x0))


def no_noise(training, net, target, pairs, draw, steps):
    fixed = repeat(next(pairs))
    return training(net, target, fixed, steps, lambda step, x0: (draw(0, x0)[0], 0 * x0))


def own_losses(training, net, target, pairs, draw, steps):
    batch_as_a_list(training, net, target, pairs, draw, steps)
    return [0.0] * steps


def other_network(training, net, target, pairs, draw, steps):
    return batch_as_a_list(training, None, target, pairs, draw, steps)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (other_pictures, "none of the stream's"),
        (one_picture, "none of the stream's"),
        (other_labels, "none of the stream's"),
        (no_noise, "not standard normal"),
        (own_losses, "not those that `training` returned"),
        (other_network, "was not given the network"),
    ],
)
def test_one_batch_is_the_streams_and_all_else_is_passed_on(attempt, words):
    text = check("training.one_batch", attempt, record=False).text
    assert text.startswith("not yet.") and words in text


def test_ranges_of_t_are_those_of_T_and_not_of_what_was_seen():
    def seen_only(t, loss, T, bins):
        which = (t - t.min()) * bins // (t.max() - t.min() + 1)
        return torch.stack([loss[which == k].mean() for k in range(bins)])

    assert not check("training.per_time", seen_only, record=False)


# --- the stored chapter ------------------------------------------------------------------------------


def test_pictures_have_alt_text_and_are_small():
    for cell in cells_of("07_training_on_mnist").values():
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).get("image/png")
            if picture is None:
                continue
            figure = "text/html" in output.data
            assert figure or cell.metadata["mystnb"]["image"]["alt"], cell.id
            assert len(picture) * 3 / 4 < 100_000, f"{cell.id}: {len(picture) * 3 / 4 / 1000:.0f} kB"
