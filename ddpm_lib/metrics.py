"""How good samples are: functions on features and logits. What the features come from is the caller's to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between the Gaussians fitted to two sets of features, (N, D) and (M, D).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) (Heusel et al. 2017, arXiv 1706.08500, eq. 6).
    It is "FID" only if the features come from that paper's Inception network. Always state what they
    come from and N, for the estimate is biased upwards when N is small.

    Raises ValueError if the dimensions differ, a value is not finite, or a set has no more rows than
    columns, when its covariance is singular.
    """
    _check_features(a, b)
    for name, features in (("first", a), ("second", b)):
        if len(features) <= features.shape[1]:
            raise ValueError(
                f"the {name} set has {len(features)} samples for {features.shape[1]} features: its covariance is "
                f"singular. Use at least {features.shape[1] + 1} samples, better 10 times the features"
            )
    a, b = a.double(), b.double()
    # torch.cov of a single feature is a number, not a matrix
    cov_a, cov_b = (torch.cov(each.T).reshape(a.shape[1], -1) for each in (a, b))
    root = _psd_root(cov_a)
    # tr (S_a S_b)^(1/2) = tr (S_a^(1/2) S_b S_a^(1/2))^(1/2), and the latter is symmetric
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = 50, size: int = 500, seed: int = 0
) -> tuple[float, float]:
    """Kernel distance of two sets of features, (N, D) and (M, D), and its standard error.

    The unbiased squared MMD with the kernel (x . y / D + 1)^3, averaged over random subsets (KID if the
    features are Inception's; Bińkowski et al. 2018, arXiv 1801.01401). Unlike the Fréchet distance its
    mean does not depend on N, and it may come out below 0. size: at most N and M, else it is lowered.
    """
    _check_features(a, b)
    size = min(size, len(a), len(b))
    if size < 2:
        raise ValueError(f"a kernel distance needs at least 2 samples a set, got {len(a)} and {len(b)}")
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        x, y = (each[torch.randperm(len(each), generator=generator)[:size]].double() for each in (a, b))
        within = sum(_cubic(each, each).fill_diagonal_(0).sum() for each in (x, y)) / (size * (size - 1))
        values.append(within - 2 * _cubic(x, y).mean())
    values = torch.stack(values)
    return values.mean().item(), (values.std() / subsets**0.5).item() if subsets > 1 else float("nan")


@dataclass(frozen=True)
class Support:
    """How two clouds of features cover each other, each a share of 1 (density may be above).

    precision: samples that lie among the real ones; recall: real ones that lie among the samples
    (Kynkäänniemi et al. 2019, arXiv 1904.06991). density, coverage: the same two questions, asked of
    the real cloud's neighbourhoods only, which outliers distort less (Naeem et al. 2020, arXiv 2002.09797).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def support(samples: Tensor, real: Tensor, neighbours: int = 5) -> Support:
    """Precision, recall, density and coverage of samples (N, D) against real features (M, D).

    A point lies among others if it is no further from one of them than that one's k-th neighbour among
    its own. Raises ValueError if a set has no more than `neighbours` members.
    """
    _check_features(samples, real)
    if min(len(samples), len(real)) <= neighbours:
        raise ValueError(f"{neighbours} neighbours need at least {neighbours + 1} samples in each set")
    apart = torch.cdist(samples.double(), real.double())
    real_radius, own_radius = _kth_neighbour(real, neighbours), _kth_neighbour(samples, neighbours)
    inside = apart <= real_radius
    return Support(
        precision=inside.any(1).double().mean().item(),
        recall=(apart <= own_radius[:, None]).any(0).double().mean().item(),
        density=inside.double().sum(1).mean().item() / neighbours,
        coverage=inside.any(0).double().mean().item(),
    )


def nearest(samples: Tensor, real: Tensor, chunk: int = 256) -> tuple[Tensor, Tensor]:
    """Root mean square distance of each sample to its nearest real one, (N,), and which one that is, (N,).

    samples (N, ...), real (M, ...): pixels or features, of one shape. A copy has distance 0.
    """
    if samples.shape[1:] != real.shape[1:]:
        raise ValueError(f"shapes differ: {tuple(samples.shape[1:])} and {tuple(real.shape[1:])}")
    flat, others = samples.flatten(1).float(), real.flatten(1).float()
    # the quicker way by matrix products leaves a rounding error where a copy should show 0
    exact = "donot_use_mm_for_euclid_dist"
    found = [torch.cdist(part, others, compute_mode=exact).min(1) for part in flat.split(chunk)]
    distance = torch.cat([each.values for each in found]) / flat.shape[1] ** 0.5
    return distance, torch.cat([each.indices for each in found])


def label_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of samples that a classifier names as asked. logits (N, K), labels (N,) -> [0, 1]."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"need logits (N, K) and labels (N,), got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    return (logits.argmax(1) == labels).double().mean().item()


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Interval for a share seen in count independent trials, sound near 0 and 1 too (Wilson 1927)."""
    middle = share + z**2 / (2 * count)
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    scale = 1 + z**2 / count
    return (middle - half) / scale, (middle + half) / scale


def bootstrap_interval(
    statistic: Callable[[Tensor], float], samples: Tensor, rounds: int = 50, z: float = 1.96, seed: int = 0
) -> tuple[float, float]:
    """Interval of statistic(samples): z standard errors to each side, their size found by resampling.

    samples: (N, ...). Centred on the statistic itself, not on its values under resampling: a resample
    holds repeats, which raises a Fréchet distance as a smaller N would (Efron 1979).
    """
    generator = torch.Generator().manual_seed(seed)
    picks = (torch.randint(len(samples), (len(samples),), generator=generator) for _ in range(rounds))
    values = torch.tensor([statistic(samples[pick]) for pick in picks], dtype=torch.float64)
    middle, error = statistic(samples), values.std().item()
    return middle - z * error, middle + z * error


def _psd_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _check_features(a: Tensor, b: Tensor) -> None:
    for name, features in (("first", a), ("second", b)):
        if features.ndim != 2:
            raise ValueError(f"features must be (N, D), the {name} set is {tuple(features.shape)}")
        if not features.isfinite().all():
            raise ValueError(f"the {name} set of features holds values that are not finite")
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"features of {a.shape[1]} and {b.shape[1]} dimensions come from different extractors"
        )


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _kth_neighbour(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th neighbour, itself not counted; (N,)."""
    return torch.cdist(points.double(), points.double()).kthvalue(k + 1, dim=1).values
