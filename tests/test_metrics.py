"""Metrics against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
from ddpm_lib.metrics import (
    bootstrap_interval,
    frechet_distance,
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
    losses = list(train_classifier(net, batches(digits, 64), steps=60, lr=1e-2))
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
    assert kernel_distance(x, y, subsets=3, size=6)[0] == pytest.approx(exact, rel=1e-12)


def test_kernel_distance_has_no_bias_at_any_size():
    g = torch.Generator().manual_seed(1)
    for count in (10, 40):
        values = torch.tensor(
            [
                kernel_distance(*torch.randn(2, count, 4, generator=g), subsets=1, size=count)[0]
                for _ in range(400)
            ]
        )
        assert abs(values.mean()) < 4 * values.std() / 20
    assert kernel_distance(torch.randn(200, 4, generator=g), torch.randn(200, 4, generator=g) + 1)[0] > 0.5


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


def test_nearest_finds_copies():
    g = torch.Generator().manual_seed(4)
    real = torch.randn(50, 1, 4, 4, generator=g)
    samples = torch.cat([real[[7, 31]], real[[3]] + 0.5])
    distance, which = nearest(samples, real, chunk=2)
    assert which.tolist() == [7, 31, 3]
    torch.testing.assert_close(distance, torch.tensor([0.0, 0.0, 0.5]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("metric", [kernel_distance, support])
def test_metrics_refuse_mixed_extractors_and_too_few(metric):
    with pytest.raises(ValueError, match="different extractors"):
        metric(torch.randn(20, 3), torch.randn(20, 4))
    with pytest.raises(ValueError, match="at least"):
        metric(torch.randn(1, 3), torch.randn(20, 3))
