"""How good samples are: functions on features and logits. What the features come from is the caller's to say."""

from __future__ import annotations

from collections.abc import Callable

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
    for name, features in (("first", a), ("second", b)):
        if features.ndim != 2:
            raise ValueError(f"features must be (N, D), the {name} set is {tuple(features.shape)}")
        if len(features) <= features.shape[1]:
            raise ValueError(
                f"the {name} set has {len(features)} samples for {features.shape[1]} features: its covariance is "
                f"singular. Use at least {features.shape[1] + 1} samples, better 10 times the features"
            )
        if not features.isfinite().all():
            raise ValueError(f"the {name} set of features holds values that are not finite")
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"features of {a.shape[1]} and {b.shape[1]} dimensions come from different extractors"
        )
    a, b = a.double(), b.double()
    # torch.cov of a single feature is a number, not a matrix
    cov_a, cov_b = (torch.cov(each.T).reshape(a.shape[1], -1) for each in (a, b))
    root = _psd_root(cov_a)
    # tr (S_a S_b)^(1/2) = tr (S_a^(1/2) S_b S_a^(1/2))^(1/2), and the latter is symmetric
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)


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
