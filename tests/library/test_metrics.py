"""Metrics against closed forms."""

import math
import sys
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from ddpm_lib import chain as chains
from ddpm_lib import metrics, schedule, toy
from ddpm_lib.checkpoint import CheckpointError
from ddpm_lib.classifier import (
    Classifier,
    ClassifierConfig,
    load_classifier,
    save_classifier,
    shipped_classifier,
    train_classifier,
)
from ddpm_lib.data import batches, load_images, to_float
from ddpm_lib.denoiser import TARGETS, Denoiser
from ddpm_lib.metrics import (
    Features,
    bits_per_dim,
    bootstrap_interval,
    coverage_interval,
    extract,
    frechet_distance,
    inception_features,
    kernel_distance,
    label_accuracy,
    nearest,
    support,
    wilson_interval,
)


def with_moments(mean: torch.Tensor, covariance: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Samples (count, D) whose sample mean and covariance are exactly these."""
    x = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T).reshape(len(mean), -1))).T
    return x @ whiten @ torch.linalg.cholesky(covariance).T + mean


@given(st.integers(1, 6), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_frechet_of_gaussians_that_commute_is_the_closed_form(dim, seed):
    g = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=g, dtype=torch.float64))[0]
    a, b = (torch.rand(dim, generator=g, dtype=torch.float64) + 0.1 for _ in range(2))
    means = torch.randn(2, dim, generator=g, dtype=torch.float64)
    x = with_moments(means[0], basis * a @ basis.T, 3 * dim + 5, seed)
    y = with_moments(means[1], basis * b @ basis.T, 2 * dim + 9, seed + 1)
    exact = (means[0] - means[1]).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(x, y) == pytest.approx(exact.item(), rel=1e-8, abs=1e-10)


@given(st.integers(2, 6), st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_frechet_is_a_distance_that_rotations_and_shifts_leave_alone(dim, seed):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(40, dim, generator=g, dtype=torch.float64) * (1 + n) + n for n in range(2))
    y = y @ torch.randn(dim, dim, generator=g, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=g, dtype=torch.float64))[0]
    distance = frechet_distance(x, y)
    assert distance > 0 and frechet_distance(x, x) == pytest.approx(0, abs=1e-9 * (1 + distance))
    assert frechet_distance(y, x) == pytest.approx(distance, rel=1e-8)
    assert frechet_distance(x @ turn + 3, y @ turn + 3) == pytest.approx(distance, rel=1e-7)
    assert frechet_distance(2 * x, 2 * y) == pytest.approx(4 * distance, rel=1e-8)


def test_frechet_survives_a_feature_that_never_fires():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "a, b, words",
    [
        (torch.zeros(9, 9), torch.zeros(20, 9), "singular"),
        (torch.randn(20, 3), torch.randn(20, 4), "different extractors"),
        (torch.full((20, 3), math.nan), torch.randn(20, 3), "not finite"),
        (torch.randn(20), torch.randn(20, 3), "must be"),
    ],
)
def test_frechet_refuses(a, b, words):
    with pytest.raises(ValueError, match=words):
        frechet_distance(a, b)


def test_label_accuracy_counts():
    logits = torch.eye(4)[[0, 1, 2, 0]]
    assert label_accuracy(logits, torch.tensor([0, 1, 2, 3])) == 0.75
    with pytest.raises(ValueError, match="logits"):
        label_accuracy(logits, torch.tensor([0, 1]))
    # a class that is out of the question is no error
    assert label_accuracy(logits.log(), torch.tensor([0, 1, 2, 3])) == 0.75


@pytest.mark.parametrize("bad", [1, 3])
def test_logits_that_are_no_numbers_have_no_accuracy(bad):
    """The largest of NaNs is the first, so that they would be as good as label 0 is common."""
    logits = torch.eye(4)
    logits[:bad, 2] = math.nan
    with pytest.raises(ValueError, match=f"no numbers, in {bad} of 4 rows"):
        label_accuracy(logits, torch.zeros(4, dtype=torch.long))


X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
BYTES = torch.zeros(2, 3, dtype=torch.uint8)
HOLE = X.clone()
HOLE[[4, 7], [0, 2]] = math.nan


def mean(sample):
    return sample.mean().item()


def guess_errors(times=1.0, **changes):
    guesser = Denoiser(lambda x, logsnr, label: x * times, schedule.cosine(), "x0")
    asked = {"x0": torch.zeros(2, 1, 4, 4), "logsnr": torch.zeros(1)} | changes
    return metrics.denoising_errors(guesser, asked.pop("x0"), asked.pop("logsnr"), **asked)


def bound(**changes):
    return bits_per_dim(lambda x, t: x * 0, BYTES, schedule=schedule.cosine(10), **changes)


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        # nothing to measure
        (lambda: label_accuracy(torch.zeros(0, 3), torch.zeros(0)), "N and K at least 1"),
        (lambda: label_accuracy(torch.zeros(4, 0), torch.zeros(4)), "N and K at least 1"),
        (lambda: wilson_interval(0.5, 0), "count must be a whole number of at least 1, got 0"),
        (lambda: frechet_distance(X[:, :0], X[:, :0]), "no features"),
        (lambda: kernel_distance(X[:0], X), "at least 2 samples a set, got 0 and 40"),
        (lambda: support(X[:0], X), "at least 6 samples"),
        (lambda: coverage_interval(X[:0], X), "at least 6 samples"),
        (lambda: bootstrap_interval(mean, X[:0]), "no samples"),
        (lambda: inception_features(torch.zeros(0, 3, 4, 4, dtype=torch.uint8)), "N at least 1"),
        (lambda: guess_errors(x0=torch.zeros(0, 1, 4, 4)), "N at least 1"),
        (lambda: guess_errors(logsnr=torch.zeros(0)), "L at least 1"),
        # no numbers
        (lambda: wilson_interval(math.nan, 10), r"share must be a number from 0 to 1, got nan"),
        (lambda: wilson_interval(0.5, math.nan), "count must be a whole number"),
        (lambda: wilson_interval(0.5, 10, math.nan), "z must be a number of at least 0, got nan"),
        (lambda: wilson_interval(0.5, 10, math.inf), "z must be a number of at least 0, got inf"),
        (lambda: frechet_distance(X, HOLE), "second set .* not finite, in 2 of 40 rows"),
        (lambda: kernel_distance(HOLE, X), "first set .* not finite, in 2 of 40 rows"),
        (lambda: support(HOLE, X), "not finite"),
        (lambda: coverage_interval(X, HOLE), "not finite"),
        (lambda: coverage_interval(X, X, z=math.nan), "z must be"),
        (lambda: nearest(HOLE, X), "samples hold values that are not finite, in 2 of 40 rows"),
        (lambda: nearest(X, HOLE), "real images hold values that are not finite, in 2 of 40 rows"),
        (lambda: bootstrap_interval(mean, HOLE), "not a finite number: nan"),
        (lambda: bootstrap_interval(mean, X, z=math.nan), "z must be"),
        (lambda: bootstrap_interval(mean, X, groups=HOLE[:, 0]), "no NaN"),
        (lambda: guess_errors(times=math.nan), "at log-SNR 0 the guesses .* not finite, in 2 of 2 rows"),
        (
            lambda: guess_errors(x0=torch.full((2, 1, 4, 4), math.nan)),
            "images hold values that are not finite",
        ),
        # counts below what there can be
        (lambda: wilson_interval(0.5, -3), "got -3"),
        (lambda: wilson_interval(0.5, 2.5), "count must be a whole number"),
        (lambda: wilson_interval(0.5, 10, -2), "z must be"),
        (lambda: kernel_distance(X, X, blocks=1), "blocks must be a whole number of at least 2, got 1"),
        (lambda: kernel_distance(X, X, blocks=2.5), "blocks must be a whole number"),
        (lambda: kernel_distance(X, X, groups=torch.zeros(3)), r"groups must be \(40,\).*\(3,\)"),
        (lambda: support(X, X, 0), "neighbours must be a whole number of at least 1, got 0"),
        (lambda: support(X, X, -1), "neighbours must be"),
        (lambda: support(X, X, 1.5), "neighbours must be"),
        (lambda: coverage_interval(X, X, neighbours=0), "neighbours must be"),
        (lambda: coverage_interval(X, X, blocks=1), "blocks must be a whole number of at least 2, got 1"),
        (lambda: nearest(X, X, chunk=0), "chunk must be"),
        (lambda: bootstrap_interval(mean, X, rounds=1), "rounds must be a whole number of at least 2, got 1"),
        (lambda: extract(X, lambda part: part, "x", 0), "batch_size must be"),
        (lambda: guess_errors(batch_size=0), "batch_size must be"),
        (lambda: bound(batch_size=-1), "batch_size must be"),
        (lambda: bound(draws=1.5), "draws must be"),
        # shares, and what does not fit
        (lambda: wilson_interval(1.5, 10), r"share must be a number from 0 to 1, got 1.5"),
        (lambda: wilson_interval(-0.1, 10), "share must be"),
        (lambda: coverage_interval(X, X, groups=torch.zeros(3)), r"groups must be \(40,\).*\(3,\)"),
        (lambda: bootstrap_interval(mean, X, groups=torch.zeros(50)), r"groups must be \(40,\).*\(50,\)"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(measure, words):
    with pytest.raises(ValueError, match=words) as caught:
        measure()
    assert "\n" not in str(caught.value)


def test_counts_of_numpy_are_counts():
    assert wilson_interval(np.float64(0.5), np.int64(10)) == wilson_interval(0.5, 10)


@pytest.mark.parametrize("share, count", [(0.5, 100), (0.97, 1000), (1.0, 50), (0.0, 50)])
def test_wilson_solves_its_own_equation(share, count):
    for end in wilson_interval(share, count):
        # the ends are the p whose own standard error reaches share
        assert abs(share - end) == pytest.approx(1.96 * math.sqrt(max(end * (1 - end), 0) / count), abs=1e-9)


def test_bootstrap_interval_of_a_mean_is_its_standard_error():
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap_interval(lambda s: s.mean().item(), x, rounds=400)
    exact = 1.96 * x.std().item() / math.sqrt(len(x))
    assert (low + high) / 2 == pytest.approx(x.mean().item(), abs=1e-6)
    assert (high - low) / 2 == pytest.approx(exact, rel=4 / math.sqrt(2 * 400))


def test_bootstrap_interval_of_groups_of_fixed_size_knows_that_their_shares_do_not_vary():
    g = torch.Generator().manual_seed(0)
    groups = torch.arange(900) % 3
    x = 100.0 * groups + torch.randn(900, generator=g) * (1 + groups)
    low, high = bootstrap_interval(lambda s: s.mean().item(), x, rounds=400, groups=groups)
    exact = 1.96 * math.sqrt(sum(x[groups == n].var().item() for n in range(3)) / 3 / 900)
    assert (high - low) / 2 == pytest.approx(exact, rel=4 / math.sqrt(2 * 400))
    loose = bootstrap_interval(lambda s: s.mean().item(), x, rounds=50)
    assert loose[1] - loose[0] > 10 * (high - low)


def test_the_shipped_classifier_reads_digits():
    test = load_images("mnist", "test")
    net, about = shipped_classifier(test.classes)
    with torch.no_grad():
        right = label_accuracy(net(to_float(test.images)), test.labels)
    assert about["test_accuracy"] >= 0.99 and right >= 0.985


def test_a_classifier_learns_and_survives_its_file(tmp_path):
    digits = load_images("mnist", size=14)
    torch.manual_seed(0)
    net = Classifier(ClassifierConfig(1, 14, digits.classes, widths=(16, 32)))
    losses = list(train_classifier(net, batches(digits, 64), steps=60))
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    save_classifier(net, tmp_path / "c.safetensors", {"seed": 0})
    again, about = load_classifier(tmp_path / "c.safetensors")
    x = to_float(digits.images[:32])
    with torch.no_grad():
        torch.testing.assert_close(again(x), net(x), rtol=0, atol=0.05)
        torch.testing.assert_close(again.head(again.features(x)), again(x))
    assert about == {"seed": 0} and again.config == net.config


def test_damaged_and_absent_classifiers_are_named(tmp_path):
    path = tmp_path / "c.safetensors"
    with pytest.raises(CheckpointError, match="no classifier at"):
        load_classifier(path)
    path.write_bytes(b"rubbish" * 10)
    with pytest.raises(CheckpointError, match="damaged"):
        load_classifier(path)
    with pytest.raises(CheckpointError, match="cat, dog"):
        shipped_classifier(["cat", "dog"])


# --- kernel distance, support, nearest -----------------------------------------------------------


def test_kernel_distance_is_the_unbiased_mmd_written_as_loops():
    x, y = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def kernel(a, b):
        return (float(a @ b) / 3 + 1) ** 3

    def within(z):
        return sum(kernel(z[i], z[j]) for i in range(6) for j in range(6) if i != j) / 30

    exact = within(x) + within(y) - 2 * sum(kernel(a, b) for a in x for b in y) / 36
    assert kernel_distance(x, y)[0] == pytest.approx(exact, rel=1e-12)


def test_kernel_distance_has_no_bias_at_any_size():
    g = torch.Generator().manual_seed(1)
    for count in (10, 40):
        values = torch.tensor(
            [kernel_distance(*torch.randn(2, count, 4, generator=g))[0] for _ in range(400)]
        )
        assert abs(values.mean()) < 4 * values.std() / 20
    assert kernel_distance(torch.randn(200, 4, generator=g), torch.randn(200, 4, generator=g) + 1)[0] > 0.5


def test_the_error_of_the_kernel_distance_knows_that_the_shares_of_groups_do_not_vary():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(5, 3, generator=g).double().repeat_interleave(4, 0)
    y = torch.randn(20, 3, generator=g).double()
    # four blocks with one row of each group are all the same, so only y is uncertain
    _, error = kernel_distance(x, y, blocks=4, groups=torch.arange(5).repeat_interleave(4))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    without = torch.tensor(
        [kernel_distance(x, y[[i for i in range(20) if i not in order[k::4]]])[0] for k in range(4)]
    )
    assert error == pytest.approx(float(without.std(correction=0)) * 3**0.5, rel=1e-4)
    assert kernel_distance(x, y, blocks=4)[1] > error


def test_the_error_of_the_kernel_distance_is_the_jackknife_written_as_a_loop():
    g = torch.Generator().manual_seed(4)
    x, y = torch.randn(20, 3, generator=g).double(), torch.randn(15, 3, generator=g).double() + 0.5
    _, error = kernel_distance(x, y, blocks=3, seed=7)
    total = 0.0
    for mine, other in ((x, y), (y, x)):
        order = torch.randperm(len(mine), generator=torch.Generator().manual_seed(7))
        blocks = [order[k::3].tolist() for k in range(3)]
        values = torch.tensor([
            kernel_distance(mine[[i for i in range(len(mine)) if i not in block]], other)[0] for block in blocks
        ])  # fmt: skip
        total += 2 / 3 * (values - values.mean()).square().sum().item()
    assert error == pytest.approx(math.sqrt(total), rel=1e-4)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_interval_of_the_kernel_distance_holds_the_truth(shift):
    """Over worlds of normal features; the spread of random subsets held it in less than a quarter of them."""
    g = torch.Generator().manual_seed(5)
    truth = sum(
        kernel_distance(torch.randn(1500, 8, generator=g) + shift, torch.randn(1500, 8, generator=g))[0]
        for _ in range(8)
    ) / 8 if shift else 0.0  # fmt: skip
    held = 0
    for _ in range(200):
        value, error = kernel_distance(
            torch.randn(150, 8, generator=g) + shift, torch.randn(300, 8, generator=g)
        )
        held += abs(value - truth) < 1.96 * error
    assert held >= 180


def test_the_spread_of_overlapping_subsets_would_be_far_too_small():
    """What the jackknife is for: for equal distributions, where the distance is 0."""
    g = torch.Generator().manual_seed(6)
    held = 0
    for _ in range(60):
        x, y = torch.randn(2, 200, 8, generator=g)
        values = torch.tensor([
            kernel_distance(x[torch.randperm(200, generator=g)[:150]], y[torch.randperm(200, generator=g)[:150]])[0]
            for _ in range(20)
        ])  # fmt: skip
        held += abs(values.mean()) < 1.96 * values.std() / 20**0.5
    assert held < 36


def test_too_few_samples_for_two_blocks_have_no_error():
    value, error = kernel_distance(X[:9], X[9:])
    assert math.isfinite(value) and math.isnan(error)
    assert math.isfinite(kernel_distance(X[:10], X[10:])[1])


def test_support_is_its_definition_written_as_loops():
    g = torch.Generator().manual_seed(2)
    fake, real, k = torch.randn(9, 2, generator=g), torch.randn(11, 2, generator=g) * 1.5, 2

    def radius(points, i):
        return sorted(math.dist(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    within = [[math.dist(f, r) <= radius(real, j) for j, r in enumerate(real)] for f in fake]
    mirrored = [[math.dist(f, r) <= radius(fake, i) for i, f in enumerate(fake)] for r in real]
    found = support(fake, real, k)
    assert found.precision == pytest.approx(sum(map(any, within)) / 9)
    assert found.recall == pytest.approx(sum(map(any, mirrored)) / 11)
    assert found.density == pytest.approx(sum(map(sum, within)) / (9 * k))
    assert found.coverage == pytest.approx(sum(map(any, zip(*within, strict=True))) / 11)


def test_support_of_equal_laws_and_of_a_dropped_mode():
    g = torch.Generator().manual_seed(3)
    modes = torch.tensor([[0.0, 0.0], [30.0, 0.0]])
    real = modes.repeat(500, 1) + torch.randn(1000, 2, generator=g)
    whole = support(modes.repeat(500, 1) + torch.randn(1000, 2, generator=g), real)
    # arXiv 2002.09797: for equal laws density has mean 1 and coverage 1 - 2^-k, at k = 5 and equal N
    assert whole.density == pytest.approx(1, abs=0.1) and whole.coverage == pytest.approx(1 - 2**-5, abs=0.03)
    dropped = support(modes[:1] + torch.randn(1000, 2, generator=g), real)
    assert dropped.precision > 0.9 and dropped.recall < 0.6 and dropped.coverage < 0.6
    far = support(real + 1000, real)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


@pytest.mark.parametrize(("shift", "dims"), [(0.0, 2), (1.0, 2), (0.5, 8)])
def test_the_interval_of_coverage_holds_its_mean_and_is_not_much_too_wide(shift, dims):
    g = torch.Generator().manual_seed(4)
    real = torch.randn(120, dims, generator=g)
    worlds = shift + torch.randn(300, 120, dims, generator=g)
    values = torch.tensor([support(x, real).coverage for x in worlds], dtype=torch.float64)
    ends = torch.tensor([coverage_interval(x, real) for x in worlds[:150]], dtype=torch.float64)
    held = (ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1])
    # 95 % were promised; ten blocks leave the error itself uncertain
    assert held.double().mean() > 0.9
    assert (ends[:, 1] - ends[:, 0]).mean() < 2.2 * 2 * 1.96 * values.std()
    assert ends.min() >= 0 and ends.max() <= 1


def test_the_interval_of_coverage_leaves_out_each_block_once_and_keeps_the_shares_of_groups():
    g = torch.Generator().manual_seed(5)
    x, y = (
        torch.randn(6, 2, generator=g, dtype=torch.float64),
        torch.randn(30, 2, generator=g, dtype=torch.float64),
    )
    without = torch.tensor([support(x[torch.arange(6) != i], y, 3).coverage for i in range(6)])
    error = ((without - without.mean()).square().sum() * 5 / 6).sqrt().item()
    whole = support(x, y, 3).coverage
    assert coverage_interval(x, y, 3) == pytest.approx((whole - 1.96 * error, whole + 1.96 * error), abs=1e-6)
    # five heaps of two samples, either of which covers its heap: a block with at most one of each leaves all covered
    heap = 100 * torch.arange(5.0)[:, None]
    samples, groups = heap.repeat_interleave(2, 0), torch.arange(5).repeat_interleave(2)
    real = heap.repeat_interleave(8, 0) + torch.tensor([[1.0], [-1.0]]).repeat(20, 1)
    assert coverage_interval(samples, real, 7, blocks=3, groups=groups) == (1, 1)
    assert coverage_interval(samples, real, 7, blocks=3)[0] < 1


def test_nearest_finds_copies():
    g = torch.Generator().manual_seed(4)
    real = torch.randn(50, 1, 4, 4, generator=g)
    samples = torch.cat([real[[7, 31]], real[[3]] + 0.5])
    distance, which = nearest(samples, real, chunk=2)
    assert which.tolist() == [7, 31, 3]
    torch.testing.assert_close(distance, torch.tensor([0.0, 0.0, 0.5]), atol=1e-6, rtol=0)


def test_nearest_is_exact_far_from_the_origin_and_among_many_likely_ones():
    g = torch.Generator().manual_seed(5)
    real, samples = (1000 + torch.randn(count, 30, generator=g) for count in (400, 40))
    samples[0] = real[99]
    apart = (samples[:, None].double() - real.double()).square().mean(2).sqrt().min(1)
    distance, which = nearest(samples, real, chunk=7)
    assert which.tolist() == apart.indices.tolist() and distance[0] == 0
    close(distance, apart.values, 1e-6)
    # two real ones so near that the quick way cannot tell which is nearer
    point = torch.randn(40, 30, generator=g)
    step = torch.randn(40, 30, generator=g)
    distance, which = nearest(point, torch.cat([point + 2e-4 * step, point + 1e-4 * step]))
    assert which.tolist() == list(range(40, 80)) and (distance < 2e-4).all()
    few, which = nearest(samples[:2], real[:3])
    assert len(few) == 2 and which.max() < 3
    with pytest.raises(ValueError, match="at least one"):
        nearest(samples, real[:0])


@pytest.mark.parametrize("metric", [kernel_distance, support])
def test_metrics_refuse_mixed_extractors_and_too_few(metric):
    with pytest.raises(ValueError, match="different extractors"):
        metric(torch.randn(20, 3), torch.randn(20, 4))
    with pytest.raises(ValueError, match="at least"):
        metric(torch.randn(1, 3), torch.randn(20, 3))


# --- where features come from --------------------------------------------------------------------


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance, support])
def test_features_of_two_extractors_are_refused_though_their_dimensions_agree(metric):
    x, y = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="'one'.*'another'"):
        metric(Features(x, "one"), Features(y, "another"))
    bare = metric(x, y)
    assert metric(Features(x, "one"), Features(y, "one")) == bare == metric(x, Features(y, "one"))


def test_features_are_cut_and_resampled_with_their_name():
    x = Features(torch.randn(60, 2, generator=torch.Generator().manual_seed(1)), "one")
    assert len(x) == 60 and x[:7].extractor == "one" and len(x[:7]) == 7
    by_name = bootstrap_interval(lambda sample: frechet_distance(sample, x), x, rounds=5)
    assert by_name == bootstrap_interval(
        lambda sample: frechet_distance(sample, x.values), x.values, rounds=5
    )


def test_extract_goes_batch_by_batch_and_checks_the_answer():
    images, seen = torch.arange(10.0).view(10, 1), []

    def function(part):
        seen.append(len(part))
        return part * torch.tensor([1.0, 2.0])

    found = extract(images, function, "twice", batch_size=4)
    assert seen == [4, 4, 2] and found.extractor == "twice"
    close(found.values, images * torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="twice.*\\(10, D\\)"):
        extract(images, lambda part: part.sum(0, keepdim=True), "twice")
    with pytest.raises(ValueError, match="no images"):
        extract(images[:0], function, "twice")


class FakeInception(torch.nn.Module):
    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3 and x.is_contiguous()
        return (x.double().mean((2, 3)),)


@pytest.fixture
def torch_fidelity(monkeypatch):
    """Stands for the package; what it does when asked for the network is in `.made` and can be set."""
    package, utils, inception = (
        ModuleType(f"torch_fidelity{part}") for part in ("", ".utils", ".feature_extractor_inceptionv3")
    )
    package.calls, package.made = [], FakeInception

    def create_feature_extractor(name, list_features, cuda=True, **kwargs):
        package.calls.append((name, list_features, cuda))
        return package.made()

    utils.create_feature_extractor = create_feature_extractor
    inception.URL_INCEPTION_V3 = "https://example.org/weights.pth"
    for module in (package, utils, inception):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    metrics._inception.cache_clear()
    yield package
    metrics._inception.cache_clear()


def test_inception_sees_three_channels_of_bytes_and_is_made_once(torch_fidelity):
    grey = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 4, 4)
    found = inception_features(grey, batch_size=2)
    assert found.extractor == metrics.INCEPTION and found.values.dtype == torch.float32
    close(found.values, torch.arange(5.0)[:, None].expand(5, 3))
    colour = torch.stack([grey[:, 0], grey[:, 0] * 2, grey[:, 0] * 3], dim=1)
    close(inception_features(colour).values, torch.arange(5.0)[:, None] * torch.tensor([1.0, 2.0, 3.0]))
    assert torch_fidelity.calls == [("inception-v3-compat", ["2048"], False)]


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 4, 4), torch.zeros(2, 2, 4, 4, dtype=torch.uint8)])
def test_inception_refuses_other_images(torch_fidelity, images):
    with pytest.raises(ValueError, match="uint8 images"):
        inception_features(images)


def test_inception_without_its_package_says_how_to_install_it(monkeypatch):
    metrics._inception.cache_clear()
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r"pip install 'ddpm-lib\[inception\]'"):
        inception_features(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(
    "error",
    [URLError("no network"), RuntimeError("invalid hash value"), EOFError()],
    ids=lambda e: type(e).__name__,
)
def test_inception_without_its_weights_says_what_to_put_where(torch_fidelity, monkeypatch, tmp_path, error):
    def fails():
        raise error

    torch_fidelity.made = fails
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(OSError, match="download https://example.org/weights.pth") as stopped:
        inception_features(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    assert str(tmp_path / "hub" / "checkpoints") in str(stopped.value)


# --- bits per dimension --------------------------------------------------------------------------

BIN = 2 / 255


def test_the_bound_is_the_sum_of_explicit_gaussian_divergences():
    # arXiv 2006.11239, eqs. 5, 7 and 13, term by term, from the chain's own posterior
    chain = chains.linear(5, first=0.02, last=0.5)
    pixels = torch.tensor([[0, 255, 100, 3], [7, 128, 254, 0], [50, 60, 70, 80]], dtype=torch.uint8)
    x0, calls = pixels.double() / 127.5 - 1, []

    def denoiser(x_t, t, label):
        guess = 0.9 * torch.tanh(x_t * (1 + t[:, None]))
        calls.append((x_t, t, label, guess))
        return guess

    found = bits_per_dim(
        denoiser, x0, torch.arange(3), schedule=schedule.from_chain(chain), clip=False, batch_size=4
    )

    a, s = chain.alpha_bar[5].sqrt(), (1 - chain.alpha_bar[5]).sqrt()
    prior = kl_divergence(Normal(a * x0, s.expand_as(x0)), Normal(0.0, 1.0)).sum(1)
    diffusion, reconstruction, seen = torch.zeros(3).double(), torch.zeros(3).double(), []
    terms = torch.zeros(4).double()
    for x_t, t, label, guess in calls:
        for row, k in enumerate((t * 5).round().long().tolist()):
            image = int(label[row])
            seen.append((image, k))
            if k == 1:
                law = Normal(guess[row], chain.beta[1].sqrt())
                below, above = law.cdf(x0[image] - BIN / 2), law.cdf(x0[image] + BIN / 2)
                below[pixels[image] == 0], above[pixels[image] == 255] = 0, 1
                reconstruction[image] -= (above - below).log().sum()
                continue
            truth, variance = chain.posterior(x_t[row], x0[image], k)
            model, _ = chain.posterior(x_t[row], guess[row], k)
            term = kl_divergence(Normal(truth, variance.sqrt()), Normal(model, variance.sqrt())).sum()
            diffusion[image] += term
            terms[5 - k] += term / 3
    assert sorted(seen) == [(image, k) for image in range(3) for k in range(1, 6)]
    nat = 4 * math.log(2)
    close(found.totals, (prior + diffusion + reconstruction) / nat, 1e-10)
    for mine, exact in (
        (found.prior, prior),
        (found.diffusion, diffusion),
        (found.reconstruction, reconstruction),
    ):
        close(mine, exact.mean() / nat, 1e-10)
    close(found.terms, terms / nat, 1e-10)
    assert found.total == pytest.approx(found.prior + found.diffusion + found.reconstruction, abs=1e-12)
    assert found.error == pytest.approx(found.totals.std().item() / math.sqrt(3))


def gaussian_pixels(count: int, dims: int = 16, seed: int = 0):
    """A world of independent pixels, images of it on the 256 levels, and their exact -log2 p per pixel."""
    g = torch.Generator().manual_seed(seed)
    mean = torch.rand(dims, generator=g, dtype=torch.float64) - 0.5
    std = 0.15 + 0.15 * torch.rand(dims, generator=g, dtype=torch.float64)
    world = toy.Gaussian(mean, std**2)
    pixels = ((world.sample(count, g) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    x0, law = pixels.double() / 127.5 - 1, Normal(mean, std)
    below, above = law.cdf(x0 - BIN / 2), law.cdf(x0 + BIN / 2)
    below[pixels == 0], above[pixels == 255] = 0, 1
    return world, pixels, -(above - below).log2().mean(1)


def test_with_the_best_denoiser_the_bound_falls_to_the_exact_likelihood_like_one_over_t():
    world, pixels, exact = gaussian_pixels(2000)
    # noise of one level at t = 0: far wider than the steps between levels matter, far narrower than the law
    process = schedule.edm(sigma_min=BIN)
    gaps, errors = [], []
    for steps in (128, 256, 512):
        found = bits_per_dim(
            world.denoiser(process), pixels, schedule=process, times=process.times(steps), batch_size=2048
        )
        gap = found.totals - exact
        gaps.append(gap.mean().item())
        errors.append((gap.std() / math.sqrt(len(gap))).item())
    assert all(gap > 4 * error for gap, error in zip(gaps, errors, strict=True))
    for n in (0, 1):
        # twice the steps, half the gap: the next order is worth a few per cent here
        assert gaps[n] == pytest.approx(
            2 * gaps[n + 1], abs=4 * math.hypot(errors[n], 2 * errors[n + 1]) + 0.05 * gaps[n]
        )
    assert gaps[-1] < 0.03 * exact.mean()


def test_on_the_chain_of_ddpm_the_gap_is_what_its_steps_cost():
    world, pixels, exact = gaussian_pixels(1000)
    process = schedule.linear()
    found = bits_per_dim(world.denoiser(process), pixels, schedule=process, draws=50, batch_size=2048)
    gap = found.totals - exact
    # the terms are a sum of rectangles above the integral of 1/2 (best mean squared error) over SNR, a logarithm
    snr = process.at(process.times(1000))[0].exp()[:-1, None]
    variance = torch.diagonal(world.covariance)
    known = 1 + variance * snr
    steps = (snr.diff(dim=0) * variance / known[:-1] - known.log().diff(dim=0)) / 2
    cost = steps.sum(0).mean() / math.log(2)
    assert abs(gap.mean() - cost) < 4 * gap.std() / math.sqrt(len(gap)) + 0.005
    assert cost > 0.5 and found.prior < 1e-4


def test_a_worse_denoiser_has_a_higher_bound():
    world, pixels, _ = gaussian_pixels(300)
    process = schedule.cosine()
    best = world.denoiser(process)

    def bits(denoiser):
        g = torch.Generator().manual_seed(1)
        return bits_per_dim(denoiser, pixels, schedule=process, draws=30, generator=g, batch_size=2048).totals

    for worse in (
        lambda x, t: best(x, t) + 0.02,
        lambda x, t: 0.95 * best(x, t),
        lambda x, t: best(x, t / 2),
    ):
        extra = bits(worse) - bits(best)
        assert extra.mean() > 4 * extra.std() / math.sqrt(len(extra))


@pytest.mark.parametrize(
    "process", [schedule.linear(50, 1e-3, 0.2), schedule.edm(), schedule.flow()], ids=lambda p: p.name
)
def test_a_few_drawn_steps_estimate_the_whole_sum_without_bias(process):
    x0 = torch.linspace(-1, 1, 8).mul(127.5).add(127.5).round().to(torch.uint8)
    clean = x0.float() / 127.5 - 1

    def denoiser(x, t):
        return clean * (1 - t[:, None].float() * (0.3 + t[:, None].float()))

    times = process.times(50)
    whole = bits_per_dim(denoiser, x0[None], schedule=process, times=times)
    some = bits_per_dim(denoiser, x0.expand(4000, 8), schedule=process, times=times, draws=3, batch_size=4096)
    assert some.totals.std() > 0
    assert abs(some.total - whole.total) < 4 * some.error
    assert some.terms.sum().item() == pytest.approx(some.diffusion)
    snr = process.at(times)[0].exp()[: len(whole.terms) + 1]
    share = snr.diff() / (1 + snr[:-1])
    seen = 4000 * 3 * share / share.sum()
    often = seen > 20
    assert often.sum() > 10
    assert ((some.terms / whole.terms - 1).abs() * seen.sqrt())[often].max() < 5


def test_one_draw_a_step_from_a_law_of_equal_weights_is_the_whole_sum():
    steps, weights = metrics._drawn_steps(torch.ones(20, dtype=torch.float64), 3, 20, None)
    assert (steps == torch.arange(20)).all()
    close(weights, 1.0, 1e-12)


def test_the_prediction_type_and_the_path_change_nothing():
    m, v = torch.tensor([0.3, -0.4]).double(), torch.tensor([0.04, 0.09]).double()
    pixels = ((toy.Gaussian(m, v).sample(20) + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    logsnr = schedule.cosine().logsnr
    found = []
    for path in schedule.PATHS:
        process = schedule.Schedule("cosine", logsnr, path, 1000)
        for predict in TARGETS:

            def net(x, logsnr, label, process=process, predict=predict):
                """The exact answer of this type, from x scaled to a^2 + s^2 = 1."""
                a, s = (each[:, None] for each in schedule.PATHS["vp"](logsnr.double()))
                x0 = m + a * v / (a**2 * v + s**2) * (x - a * m)
                eps = (x - a * x0) / s
                own = schedule.PATHS[process.path](logsnr.double())
                p, q = (each[:, None] for each in TARGETS[predict](*own))
                return p * x0 + q * eps

            found.append(
                bits_per_dim(
                    Denoiser(net, process, predict), pixels.double(), times=process.times(25),
                    generator=torch.Generator().manual_seed(0),
                ).totals
            )  # fmt: skip
    for other in found[1:]:
        close(other, found[0], 1e-4)


@pytest.mark.parametrize("std", [1e-4, 0.006, 0.5, 50.0])
@pytest.mark.parametrize("mean", [-1.0, -0.31, 0.77, 1.0])
def test_the_decoder_is_a_law_over_the_levels(std, mean):
    levels = torch.arange(256).double() / 127.5 - 1
    nats = metrics._decoder_nats(levels, torch.tensor(mean).double(), torch.tensor(std).double())
    assert nats.isfinite().all()
    assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_a_step_that_ends_clean_has_a_decoder_only():
    process = schedule.flow()
    found = bits_per_dim(
        lambda x, t: x * 0, torch.zeros(2, 3, dtype=torch.uint8), schedule=process, times=process.times(1)
    )
    # from pure noise the guess is the middle, with variance 1: the lowest level has the mass below -1 + 1 / 255
    exact = -Normal(0.0, 1.0).cdf(torch.tensor(-1 + BIN / 2).double()).log2()
    assert found.diffusion == 0 and found.prior == 0 and len(found.terms) == 0
    close(found.total, exact, 1e-8)


def test_estimates_are_held_within_the_range_of_the_data():
    _, pixels, _ = gaussian_pixels(4)
    process = schedule.cosine()

    def bits(guess, clip):
        g = torch.Generator().manual_seed(0)
        return bits_per_dim(
            lambda x, t: x * 0 + guess, pixels, schedule=process, draws=9, generator=g, clip=clip
        ).total

    assert bits(1.5, True) == bits(1.0, False) < bits(1.5, False)


def test_bytes_and_floats_on_the_levels_are_one():
    world, pixels, _ = gaussian_pixels(5)
    process = schedule.cosine()
    bits = [
        bits_per_dim(
            world.denoiser(process),
            images,
            schedule=process,
            draws=4,
            generator=torch.Generator().manual_seed(0),
        ).total
        for images in (pixels, to_float(pixels))
    ]
    assert bits[0] == bits[1]


FINE = torch.zeros(2, 3, dtype=torch.uint8)
CLEAN_EARLY = schedule.Schedule("early", lambda t: torch.where(t < 0.6, math.inf, 0.0 * t))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"images": FINE.long()}, "uint8 in 0..255"),
        ({"images": FINE.float() + 1.5}, "from 1.5 to 1.5"),
        ({"images": FINE.float() + 0.331}, "between the levels"),
        ({"images": FINE.float() + math.nan}, "256 levels"),
        ({"images": FINE[:0]}, "N at least 1"),
        ({"labels": torch.zeros(3).long()}, "labels must be"),
        ({"draws": 0}, "draws must be"),
        ({"times": torch.tensor([1.0, 0.5])}, "from 1 to 0"),
        ({"times": torch.tensor([1.0, 0.0, 0.5])}, "fall strictly"),
        ({"times": torch.tensor([0.9, 0.5, 0.0])}, "from 1 to 0"),
        ({"schedule": CLEAN_EARLY}, "no noise at t = 0.5"),
        ({"schedule": None}, "give schedule="),
        ({"denoiser": lambda x, t: x * math.nan}, "not finite"),
    ],
)  # fmt: skip
def test_the_bound_refuses(changes, words):
    asked = {
        "denoiser": lambda x, t: x * 0,
        "images": FINE,
        "schedule": schedule.cosine(),
        "times": schedule.cosine().times(10),
    }
    asked |= changes
    with pytest.raises(ValueError, match=words):
        bits_per_dim(asked.pop("denoiser"), asked.pop("images"), **asked)


# Errors of the guesses at fixed noise levels


def told(path: str, predict: str, variance: float) -> Denoiser:
    """The best guess for pixels that are normal with mean 0, said under any name, on any path."""

    def net(x, logsnr, label):
        # x comes scaled to a^2 + s^2 = 1
        a, s = (part.view(-1, 1) for part in schedule.PATHS["vp"](logsnr.double()))
        x0 = a * variance * x / (a**2 * variance + s**2)
        eps = (x - a * x0) / s
        a, s = (part.view(-1, 1) for part in schedule.PATHS[path](logsnr.double()))
        p, q = TARGETS[predict](a, s)
        return p * x0 + q * eps

    return Denoiser(net, schedule.flow() if path == "flow" else schedule.cosine(), predict)


def test_errors_of_the_best_guess_are_the_ones_that_theory_leaves():
    variance, levels = 0.25, torch.tensor([-2.0, 0.0, 3.0])
    x0 = variance**0.5 * torch.randn(400, 50, generator=torch.Generator().manual_seed(1)).double()
    found = metrics.denoising_errors(told("vp", "eps", variance), x0, levels, clip=False)
    assert found.shape == (3, 400)
    wanted = variance / (1 + variance * levels.double().exp())
    error = found.std(1) / 400**0.5
    assert ((found.mean(1) - wanted).abs() < 4 * error).all()


@pytest.mark.parametrize("path, predict", [("vp", "x0"), ("vp", "v"), ("flow", "flow"), ("flow", "x0")])
def test_one_guess_has_one_error_whatever_it_is_called_and_whatever_path_it_is_on(path, predict):
    x0, levels = torch.randn(30, 8, dtype=torch.float64) / 2, torch.linspace(-4, 5, 4)
    wanted = metrics.denoising_errors(told("vp", "eps", 0.3), x0, levels, seed=3)
    found = metrics.denoising_errors(told(path, predict, 0.3), x0, levels, seed=3, batch_size=7)
    close(found, wanted, 1e-6)


def test_errors_are_those_of_the_clipped_guess_as_it_is_viewed():
    wild = Denoiser(lambda x, logsnr, label: torch.full_like(x, 7.0), schedule.cosine(), "x0")
    x0, levels = torch.zeros(2, 1, 4, 4), torch.zeros(1)
    close(metrics.denoising_errors(wild, x0, levels), 1.0)
    close(metrics.denoising_errors(wild, x0, levels, clip=False), 49.0)
    half = metrics.denoising_errors(wild, x0, levels, view=lambda image: image / 2)
    close(half, 0.25)


def test_errors_pass_on_each_images_label_and_refuse_what_does_not_fit():
    seen = []

    def net(x, logsnr, label):
        seen.extend(label.tolist())
        return x

    denoiser, x0 = Denoiser(net, schedule.cosine(), "x0"), torch.zeros(5, 1, 2, 2)
    metrics.denoising_errors(denoiser, x0, torch.zeros(1), torch.arange(5), batch_size=2)
    assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="labels must be"):
        metrics.denoising_errors(denoiser, x0, torch.zeros(1), torch.arange(4))
    with pytest.raises(ValueError, match="finite"):
        metrics.denoising_errors(denoiser, x0, torch.tensor([math.inf]))
