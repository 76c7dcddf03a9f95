"""How good samples are: functions on features and logits; and how likely a model finds images: its bound.

Features are a tensor (N, D), or ``Features``, the same with the name of what they come from: two sets of
different origin are then refused.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoiser import Denoiser, to_x0
from .schedule import PATHS, Schedule, expand

LEVELS = 256
"""Values of a pixel, of which a bound in bits per dimension is a probability."""
INCEPTION = "Inception-v3"
"""Name of the extractor whose Fréchet distance is FID and whose kernel distance is KID."""
CANDIDATES = 8
"""How many likely nearest neighbours of a sample ``nearest`` looks at closely."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features and where they come from. values: (N, D); extractor: the name of what made them."""

    values: Tensor
    extractor: str

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows) -> Features:
        return Features(self.values[rows], self.extractor)


def extract(
    images: Tensor, function: Callable[[Tensor], Tensor], name: str, batch_size: int = 500
) -> Features:
    """The features that a function finds in images, batch by batch, under the name given.

    images: (N, ...), at least one; function: (B, ...) -> (B, D). Raises ValueError for any other answer.
    """
    _check(batch_size=batch_size)
    if not len(images):
        raise ValueError("there are no images to find features in")
    with torch.no_grad():
        found = [function(part) for part in images.split(batch_size)]
    for part, batch in zip(found, images.split(batch_size), strict=True):
        if part.ndim != 2 or len(part) != len(batch):
            raise ValueError(
                f"{name}: features of {len(batch)} images must be ({len(batch)}, D), got {tuple(part.shape)}"
            )
    return Features(torch.cat(found), name)


def inception_features(images: Tensor, batch_size: int = 50, device: str | torch.device = "cpu") -> Features:
    """Features of the Inception network that FID and KID are defined by, (N, 2048) on the CPU.

    images: uint8 (N, 1 or 3, H, W) in 0..255 of any size; the network enlarges them to 299 pixels, and grey
    ones are repeated to three channels. The network is torch-fidelity's port of the original
    (Heusel et al. 2017, arXiv 1706.08500); that package fetches its weights, 91 MB, when it first needs them.

    Raises ValueError for other images and if the package is missing, OSError if the weights cannot be had.
    """
    _check(batch_size=batch_size)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(
            "Inception takes uint8 images (N, 1 or 3, H, W) in 0..255, N at least 1, got "
            f"{images.dtype} {tuple(images.shape)}"
        )
    network = _inception(str(device))

    def look(part: Tensor) -> Tensor:
        return network(part.expand(-1, 3, -1, -1).contiguous().to(device))[0].float().cpu()

    return extract(images, look, INCEPTION, batch_size)


@functools.cache
def _inception(device: str) -> Callable[[Tensor], tuple[Tensor, ...]]:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
        from torch_fidelity.utils import create_feature_extractor
    except ImportError as error:
        raise ValueError(
            f"Inception features need the package torch-fidelity ({error}): pip install 'ddpm-lib[inception]'"
        ) from error
    try:
        network = create_feature_extractor("inception-v3-compat", ["2048"], cuda=False, verbose=False)
    except Exception as error:  # whatever that package meets on the way: no network, a damaged file
        raise OSError(
            f"the weights of the Inception network cannot be had ({error or type(error).__name__}): download "
            f"{URL_INCEPTION_V3} where there is a network, and put that file into {torch.hub.get_dir()}/checkpoints"
        ) from error
    return network.to(device)


def frechet_distance(a: Tensor | Features, b: Tensor | Features) -> float:
    """Fréchet distance between the Gaussians fitted to two sets of features, (N, D) and (M, D).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) (Heusel et al. 2017, arXiv 1706.08500, eq. 6).
    It is "FID" only if the features come from that paper's Inception network. Always state what they
    come from and N, for the estimate is biased upwards when N is small.

    Raises ValueError if extractors or dimensions differ, a value is not finite, or a set has no more rows
    than columns, when its covariance is singular.
    """
    a, b = _matrices(a, b)
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
    a: Tensor | Features,
    b: Tensor | Features,
    blocks: int = 10,
    seed: int = 0,
    groups: Tensor | None = None,
) -> tuple[float, float]:
    """Kernel distance of two sets of features, (N, D) and (M, D), and its standard error.

    The unbiased squared MMD over all pairs, with the kernel (x . y / D + 1)^3 (KID if the features are Inception's;
    Bińkowski et al. 2018, arXiv 1801.01401, eq. 4). Unlike the Fréchet distance its mean does not depend on N, and it
    may come out below 0. The error is that of a delete-a-group jackknife over both sets (Kott 2001): each is dealt into
    blocks, and each block is left out in turn. A test of this library holds that 1.96 of these errors to each
    side cover the true distance; the spread of overlapping random subsets, which is often printed, is far too small.
    blocks: at least 2, and at most a fifth of N and of M, else lowered; the error is NaN where not even two blocks are left.
    groups: (N,), such as labels, where it was fixed how many samples of `a` each group gets: dealt evenly. Raises ValueError
    as ``frechet_distance`` does, for fewer than two samples or blocks, and groups that do not fit.
    """
    _check(2, blocks=blocks)
    _check_groups(groups, len(a))
    a, b = _matrices(a, b)
    fewest = min(len(a), len(b))
    if fewest < 2:
        raise ValueError(f"a kernel distance needs at least 2 samples a set, got {len(a)} and {len(b)}")
    blocks = max(min(blocks, fewest // 5), 1)
    within_a, cross, without_a = _kernel_sides(a, b, blocks, seed, groups)
    within_b, _, without_b = _kernel_sides(b, a, blocks, seed, None)
    value = (within_a + within_b - 2 * cross).item()
    if blocks < 2:
        return value, float("nan")
    variance = sum(each.var(correction=0) * (blocks - 1) for each in (without_a, without_b))
    return value, variance.sqrt().item()


def _kernel_sides(
    x: Tensor, y: Tensor, blocks: int, seed: int, groups: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean kernel of two points of x, of x with y; and without each block of x, (blocks,), the part that depends on x."""
    dealt = [x[each].double() for each in _deal(len(x), blocks, seed, groups)]
    y = y.double()
    pairs = torch.stack([torch.stack([_cubic(one, other).sum() for other in dealt]) for one in dealt])
    pairs -= torch.diag(
        torch.stack([((each * each).sum(1) / each.shape[1] + 1).pow(3).sum() for each in dealt])
    )
    with_y = torch.stack([_cubic(each, y).sum() for each in dealt])
    left = len(x) - torch.tensor([len(each) for each in dealt], dtype=torch.double, device=y.device)
    without = pairs.sum() - 2 * pairs.sum(1) + pairs.diagonal()
    without = without / (left * (left - 1)) - 2 * (with_y.sum() - with_y) / (left * len(y))
    return pairs.sum() / (len(x) * (len(x) - 1)), with_y.sum() / (len(x) * len(y)), without


def _deal(count: int, blocks: int, seed: int, groups: Tensor | None) -> list[Tensor]:
    """The places 0 to count - 1 in random blocks of nearly one size, each group spread evenly over them."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if groups is not None:
        order = order[groups[order].argsort(stable=True)]
    return [order[block::blocks] for block in range(blocks)]


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


def support(samples: Tensor | Features, real: Tensor | Features, neighbours: int = 5) -> Support:
    """Precision, recall, density and coverage of samples (N, D) against real features (M, D).

    A point lies among others if it is no further from one of them than that one's k-th neighbour among
    its own. Raises ValueError if a set has no more than `neighbours` members, and as ``frechet_distance`` does for
    features that cannot be compared.
    """
    _check(neighbours=neighbours)
    samples, real = _matrices(samples, real)
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


def coverage_interval(
    samples: Tensor | Features,
    real: Tensor | Features,
    neighbours: int = 5,
    z: float = 1.96,
    blocks: int = 10,
    seed: int = 0,
    groups: Tensor | None = None,
) -> tuple[float, float]:
    """Interval of ``support(samples, real).coverage`` for these real images, within [0, 1]: a jackknife.

    The samples are dealt into blocks, and each is left out in turn; z standard errors to each side (Kott 2001, "The
    delete-a-group jackknife"). Resampling with repeats would find too little, for a repeat covers nothing new,
    and Wilson's interval takes neighbouring balls for independent. This one was not too narrow in any
    trial with normal features and digits; near 1 it is up to twice as wide as need be.
    blocks: at least 2, and at most N, else lowered. groups: (N,), such as labels, where it was fixed how many
    samples each group gets: dealt evenly. Raises ValueError as ``support`` does, for fewer blocks, a z below 0 and
    groups that do not fit.
    """
    _check(2, blocks=blocks)
    _check(0, whole=False, z=z)
    _check_groups(groups, len(samples))
    coverage = support(samples, real, neighbours).coverage
    samples, real = _matrices(samples, real)
    blocks = min(blocks, len(samples))
    # how near a real point its nearest sample of each block is, (blocks, M)
    nearest_of = torch.stack([
        torch.cdist(real.double(), samples[block].double()).amin(1)
        for block in _deal(len(samples), blocks, seed, groups)
    ])  # fmt: skip
    radius, kept = _kth_neighbour(real, neighbours), ~torch.eye(blocks, dtype=torch.bool)
    values = torch.stack([(nearest_of[rows].amin(0) <= radius).double().mean() for rows in kept])
    error = (values.var(correction=0) * (blocks - 1)).sqrt().item()
    return max(coverage - z * error, 0.0), min(coverage + z * error, 1.0)


def nearest(samples: Tensor, real: Tensor, chunk: int = 256) -> tuple[Tensor, Tensor]:
    """Root mean square distance of each sample to its nearest real one, (N,), and which one that is, (N,).

    samples (N, ...), real (M, ...): pixels or features, of one shape. A copy has distance 0.
    Raises ValueError for shapes that differ, an empty set and values that are not finite.
    """
    _check(chunk=chunk)
    if samples.shape[1:] != real.shape[1:]:
        raise ValueError(f"shapes differ: {tuple(samples.shape[1:])} and {tuple(real.shape[1:])}")
    if not len(samples) or not len(real):
        raise ValueError(f"need at least one sample and one real image, got {len(samples)} and {len(real)}")
    flat, others = samples.flatten(1).float(), real.flatten(1).float()
    for name, points in (("samples", flat), ("real images", others)):
        _refuse(~points.isfinite(), f"the {name} hold values that are not finite")
    middle = others.mean(0)
    centred = others - middle
    halves = centred.square().sum(1) / 2
    distances, which = [], []
    for part in flat.split(chunk):
        # matrix products are many times quicker, but their rounding error hides a copy: they choose, differences measure
        rough = halves - (part - middle) @ centred.T
        near = rough.topk(min(CANDIDATES, len(others)), largest=False).indices.sort().values
        distance, first = (part[:, None] - others[near]).square().mean(2).min(1)
        distances.append(distance.sqrt())
        which.append(near.gather(1, first[:, None])[:, 0])
    return torch.cat(distances), torch.cat(which)


def label_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of samples that a classifier names as asked. logits (N, K), labels (N,) -> [0, 1].

    A logit may be -inf, of a class that is out of the question. Raises ValueError for NaN, of which the largest
    would be the first, and for shapes that do not fit.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not logits.numel():
        raise ValueError(
            f"need logits (N, K) and labels (N,), N and K at least 1, got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    _refuse(logits.isnan(), "the logits hold values that are no numbers")
    return (logits.argmax(1) == labels).double().mean().item()


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Interval for a share seen in count independent trials, sound near 0 and 1 too (Wilson 1927).

    z: standard errors to each side, 1.96 for 95 %. Raises ValueError for a share outside [0, 1], fewer trials than
    one and a z below 0.
    """
    _check(0, 1, whole=False, share=share)
    _check(count=count)
    _check(0, whole=False, z=z)
    middle = share + z**2 / (2 * count)
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    scale = 1 + z**2 / count
    return (middle - half) / scale, (middle + half) / scale


def bootstrap_interval(
    statistic: Callable[[Tensor | Features], float],
    samples: Tensor | Features,
    rounds: int = 50,
    z: float = 1.96,
    seed: int = 0,
    groups: Tensor | None = None,
) -> tuple[float, float]:
    """Interval of statistic(samples): z standard errors to each side, their size found by resampling.

    samples: (N, ...) or Features. Centred on the statistic itself, not on its values under resampling: a resample
    holds repeats, which raises a Fréchet distance as a smaller N would (Efron 1979). groups: (N,), such as labels,
    where it was fixed how many samples each group gets. Resamples then keep these numbers; else
    the groups' chance shares would widen the interval, of a Fréchet distance of digits to three times its width.
    Raises ValueError for no samples, fewer than two rounds, a z below 0, groups that do not fit, and a statistic
    that is not finite.
    """
    if not len(samples):
        raise ValueError("there are no samples to draw from")
    _check(2, rounds=rounds)
    _check(0, whole=False, z=z)
    _check_groups(groups, len(samples))
    generator = torch.Generator().manual_seed(seed)
    groups = torch.zeros(len(samples)) if groups is None else groups
    members = [(groups == group).nonzero()[:, 0] for group in groups.unique()]

    def resampled() -> Tensor | Features:
        picks = [rows[torch.randint(len(rows), rows.shape, generator=generator)] for rows in members]
        return samples[torch.cat(picks)]

    values = torch.tensor([statistic(resampled()) for _ in range(rounds)], dtype=torch.float64)
    middle, error = statistic(samples), values.std().item()
    if not (values.isfinite().all() and math.isfinite(middle)):
        raise ValueError(
            f"the statistic is not a finite number: {middle} of all samples, {values.mean()} in resamples"
        )
    return middle - z * error, middle + z * error


def denoising_errors(
    denoiser: Denoiser,
    x0: Tensor,
    logsnr: Tensor,
    labels: Tensor | None = None,
    *,
    seed: int = 0,
    clip: bool = True,
    view: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 64,
) -> Tensor:
    """How far the guess of each image is from the image, at fixed noise levels: mean squared error, (L, N) float64.

    x0: (N, ...) floats in [-1, 1]; logsnr: (L,) levels; labels: (N,) or None. The noise depends on seed and on the
    shape of x0 only. So two networks get the same noisy images, whatever their schedule and prediction, and may be
    compared image by image, which is far sharper than to compare their means. clip: hold guesses within [-1, 1].
    view: compare view(guess) with view(x0), batch by batch.

    Raises ValueError for no images or no levels, levels, images or guesses that are not finite, and labels that do
    not fit.
    """
    _check(batch_size=batch_size)
    logsnr = torch.as_tensor(logsnr, dtype=torch.float64)
    if logsnr.ndim != 1 or not len(logsnr) or not logsnr.isfinite().all():
        raise ValueError(f"levels must be finite log-SNRs, (L,) with L at least 1, got {logsnr.tolist()}")
    if x0.ndim < 2 or not x0.numel():
        raise ValueError(f"images must be (N, ...) with N at least 1, got shape {tuple(x0.shape)}")
    _refuse(~x0.isfinite(), "the images hold values that are not finite")
    if labels is not None and labels.shape != x0.shape[:1]:
        raise ValueError(f"labels must be ({len(x0)},), one an image, got {tuple(labels.shape)}")
    generator, errors = torch.Generator().manual_seed(seed), []
    view = view or (lambda image: image)
    for level in logsnr:
        a, s = PATHS[denoiser.schedule.path](level)
        eps = torch.randn(x0.shape, generator=generator)
        row = []
        for part in torch.arange(len(x0)).split(batch_size):
            clean, label = x0[part], None if labels is None else labels[part].to(x0.device)
            x_t = expand(a, clean) * clean + expand(s, clean) * eps[part].to(clean)
            told = level.to(x0.device, torch.float32).expand(len(part))
            with torch.no_grad():
                y = denoiser.net(x_t * expand((a**2 + s**2).rsqrt(), x_t), told, label)
            guess = to_x0(x_t, y.to(x_t.dtype), a, s, denoiser.predict)
            _refuse(~guess.isfinite(), f"at log-SNR {level:.4g} the guesses hold values that are not finite")
            guess = view(guess.clamp(-1, 1) if clip else guess)
            row.append((guess - view(clean)).square().flatten(1).mean(1).double().cpu())
        errors.append(torch.cat(row))
    return torch.stack(errors)


@dataclass(frozen=True, eq=False)
class Bound:
    """An upper bound of -log p(x_0) in bits per dimension, averaged over N images.

    total = prior + diffusion + reconstruction. error: the standard error of total, over images and over the
    noise drawn. terms: (S,), the parts of diffusion: terms[i] is the step from times[i] to times[i + 1].
    totals: (N,), the bound of each image.
    """

    total: float
    prior: float
    diffusion: float
    reconstruction: float
    error: float
    terms: Tensor
    totals: Tensor


def bits_per_dim(
    denoiser: Callable[..., Tensor],
    images: Tensor,
    labels: Tensor | None = None,
    *,
    schedule: Schedule | None = None,
    times: Tensor | None = None,
    draws: int | None = None,
    clip: bool = True,
    generator: torch.Generator | None = None,
    batch_size: int = 64,
) -> Bound:
    """The variational bound of the chain that a denoiser and a list of times make (arXiv 2006.11239, eq. 5).

    denoiser: (x_t, t) -> x_0, or (x_t, t, label) -> x_0 if labels are given; t is (B,).
    images: (N, ...) uint8, or floats on the 256 levels k / 127.5 - 1; labels: (N,) or None.
    schedule: by default the denoiser's own. times: falling from 1 to 0, as schedule.times gives them; by
    default all steps of a chain, or 1000. clip: hold estimates of x_0 within [-1, 1], where the data are.
    draws: how many steps to look at for each image; None for every one, exact but for the noise.
    generator: for noise and steps, on the CPU, so that a seed means the same on every device.

    Let t_0 = 0 < t_1 < ... < t_T = 1 and u < t be neighbours, SNR = a^2 / s^2 and r = 1 - SNR_t / SNR_u. In
    the mean of q(x_u | x_t, x_0) x_0 has the factor a_u r, and the variance is s_u^2 r (eqs. 6 and 7, written
    for any path). The model puts its estimate in the place of x_0 and keeps the variance, so the divergence of
    the two is (a_u r)^2 / (2 s_u^2 r) |x_0 - estimate|^2 = 1/2 (SNR_u - SNR_t) |x_0 - estimate|^2: a diffusion
    term (Kingma et al. 2021, arXiv 2107.00630, eq. 13). The prior term compares q(x_t | x_0)
    at t = 1 with the noise that sampling starts from. The step from t_1 to the clean image is no such term,
    for there the variance is 0: the reconstruction term is -log p(x_0 | x_{t_1}), a Gaussian around the
    estimate, of variance beta_1 (on any path s^2 / (a^2 + s^2) at t_1), summed over the bin of a pixel's
    level; the outermost bins reach to infinity (arXiv 2006.11239, eq. 13). If the schedule leaves noise at
    t = 0, then t_0 takes the place of t_1 (Kingma et al., eq. 11).

    With draws, a law over the steps is cut into slices of equal weight, and each image looks at one step
    from each slice, weighted by one over its chance: unbiased, whatever the law. The law is proportional to
    (SNR_u - SNR_t) / (1 + SNR_t), which the terms would be if each pixel were a standard normal.

    Raises ValueError for images that are not on the levels, labels that do not fit, times that do not fall
    from 1 to 0, a schedule without noise before t = 0, and estimates that are not finite.
    """
    _check(batch_size=batch_size)
    if draws is not None:
        _check(draws=draws)
    schedule = schedule or getattr(denoiser, "schedule", None)
    if schedule is None:
        raise ValueError("this denoiser has no schedule of its own: give schedule=...")
    x0 = _on_levels(images)
    if labels is not None and labels.shape != x0.shape[:1]:
        raise ValueError(f"labels must be ({len(x0)},), one an image, got {tuple(labels.shape)}")
    times, logsnr = _noisy_knots(schedule, times)

    def estimate(rows: Tensor, t: Tensor) -> Tensor:
        clean, rows = x0[rows], rows.to(x0.device)
        eps = torch.randn(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)
        asked = () if labels is None else (labels.to(x0.device)[rows],)
        with torch.no_grad():
            answer = denoiser(schedule.add_noise(clean, t, eps), t, *asked).double()
        if not answer.isfinite().all():
            raise ValueError("the denoiser's estimate of x_0 holds values that are not finite")
        return answer.clamp(-1, 1) if clip else answer

    everyone, dims = torch.arange(len(x0)), x0[0].numel()
    snr = logsnr.exp()
    fall = snr[1:] - snr[:-1]
    steps, weights = _drawn_steps(fall / (1 + snr[:-1]), len(x0), draws, generator)
    looks = (everyone.repeat_interleave(steps.shape[1]), steps.flatten(), weights.flatten())
    diffusion, terms = torch.zeros(len(x0), dtype=torch.float64), torch.zeros_like(fall)
    for rows, step, weight in zip(*(each.split(batch_size) for each in looks), strict=True):
        if not len(rows):  # a single step has a decoder only
            continue
        error = (x0[rows] - estimate(rows, times[step])).square().flatten(1).sum(1).cpu()
        nats = weight * fall[step] / 2 * error
        diffusion.index_add_(0, rows, nats)
        terms.index_add_(0, step, nats / len(x0))
    std = torch.sigmoid(-logsnr[-1]).sqrt()
    reconstruction = torch.cat([
        _decoder_nats(x0[rows], estimate(rows, times[-1].expand(len(rows))), std).flatten(1).sum(1).cpu()
        for rows in everyone.split(batch_size)
    ])  # fmt: skip
    parts = torch.stack([_prior_nats(x0, logsnr[0]), diffusion, reconstruction]) / (dims * math.log(2))
    totals = parts.sum(0)
    return Bound(
        totals.mean().item(),
        *parts.mean(1).tolist(),
        error=(totals.std() / len(x0) ** 0.5).item() if len(x0) > 1 else float("nan"),
        terms=terms / (dims * math.log(2)),
        totals=totals,
    )


def _on_levels(images: Tensor) -> Tensor:
    """Images in [-1, 1], exactly on the 256 levels: float32 from uint8, else of the floats' own type."""
    if images.ndim < 2 or not images.numel():
        raise ValueError(f"images must be (N, ...) with N at least 1, got shape {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images.float() / 127.5 - 1
    level = (images + 1) * 127.5
    off = not images.is_floating_point() or not (images.abs() <= 1).all()
    if off or (level - level.round()).abs().max() > 0.01:
        kind = str(images.dtype).removeprefix("torch.")
        raise ValueError(
            f"bits per dimension need images of {LEVELS} levels: uint8 in 0..255, or floats on k / 127.5 - 1 in "
            f"[-1, 1] (data.to_float makes them so); got {kind} from {images.min():.4g} to {images.max():.4g}"
            f"{'' if off else ', between the levels'}"
        )
    return level.round() / 127.5 - 1


def _noisy_knots(schedule: Schedule, times: Tensor | None) -> tuple[Tensor, Tensor]:
    """The times that still hold noise, falling from 1, and their log-SNR. (K,) float64 both."""
    if times is None:
        times = schedule.times(schedule.steps or 1000)
    times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    falls = times.ndim == 1 and len(times) > 1 and bool((times[1:] < times[:-1]).all())
    if not falls or times[0] != 1 or times[-1] != 0:
        raise ValueError("times must fall strictly, from 1 to 0: see schedule.times(steps)")
    logsnr = schedule.at(times)[0]
    if logsnr[-1] == math.inf:
        times, logsnr = times[:-1], logsnr[:-1]
    if not (logsnr < math.inf).all():
        clean = times[~(logsnr < math.inf)][0]
        raise ValueError(
            f"the {schedule.name!r} schedule holds no noise at t = {clean:.4g}, where the bound is infinite: "
            "only t = 0 may be clean"
        )
    return times, logsnr


def _drawn_steps(
    law: Tensor, count: int, draws: int | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """For each of count images the steps to look at, and what each stands for: (count, draws), int64 and float64."""
    if draws is None or not len(law):
        steps = torch.arange(len(law)).expand(count, -1)
        return steps, torch.ones(steps.shape, dtype=torch.float64)
    law = law / law.sum()
    spots = torch.rand(count, draws, generator=generator, dtype=torch.float64)
    spots = (torch.arange(draws) + spots) / draws
    steps = torch.searchsorted(law.cumsum(0), spots, right=True).clamp(max=len(law) - 1)
    return steps, 1 / (draws * law[steps])


def _prior_nats(x0: Tensor, logsnr: Tensor) -> Tensor:
    """KL of q(x_1 | x_0), scaled to a^2 + s^2 = 1, from N(0, I); (N,)."""
    signal, noise = torch.sigmoid(logsnr), torch.sigmoid(-logsnr)
    squares = x0.double().square().flatten(1)
    return 0.5 * (signal * squares + noise - 1 - noise.log()).sum(1).cpu()


def _decoder_nats(x0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """-log of a Gaussian's mass on the bin of each pixel's level; of x0's shape, float64."""
    half, x0, std = 1 / (LEVELS - 1), x0.double(), std.to(x0.device)
    below, above = (x0 - half - mean) / std, (x0 + half - mean) / std
    below = below.masked_fill(x0 <= half - 1, -math.inf)
    above = above.masked_fill(x0 >= 1 - half, math.inf)
    # a bin above the mean and its mirror image below have one mass, but only below does the difference keep its digits
    mirrored = below + above > 0
    low, high = torch.where(mirrored, -above, below), torch.where(mirrored, -below, above)
    low, high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return -(high + torch.log(-torch.expm1(low - high)))


def _check(least: float = 1, most: float = math.inf, *, whole: bool = True, **values: float) -> None:
    """Raises ValueError unless each value is a number from least to most, a whole one if so asked. NaN is none."""
    for name, value in values.items():
        try:
            number = operator.index(value) if whole else float(value)
        except TypeError:
            number = math.nan
        if not (math.isfinite(number) and least <= number <= most):
            limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
            raise ValueError(f"{name} must be a {'whole ' if whole else ''}number {limits}, got {value!r}")


def _refuse(bad: Tensor, what: str) -> None:
    """Raises ValueError, with the number of rows, if anything is bad. bad: (N, ...) truth values."""
    if bad.any():
        rows = int(bad.flatten(1).any(1).sum())
        raise ValueError(f"{what}, in {rows} of {len(bad)} rows")


def _check_groups(groups: Tensor | None, count: int) -> None:
    if groups is not None and (groups.shape != (count,) or groups.isnan().any()):
        raise ValueError(
            f"groups must be ({count},), one number a sample and no NaN, got shape {tuple(groups.shape)}"
        )


def _psd_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _matrices(a: Tensor | Features, b: Tensor | Features) -> tuple[Tensor, Tensor]:
    """The two sets as bare tensors, once it is sure that they may be compared."""
    tagged = isinstance(a, Features) and isinstance(b, Features)
    if tagged and a.extractor != b.extractor:
        raise ValueError(
            f"features of different extractors cannot be compared: the first set is from {a.extractor!r}, "
            f"the second from {b.extractor!r}"
        )
    a, b = (each.values if isinstance(each, Features) else each for each in (a, b))
    for name, features in (("first", a), ("second", b)):
        if features.ndim != 2:
            raise ValueError(f"features must be (N, D), the {name} set is {tuple(features.shape)}")
        if not features.shape[1]:
            raise ValueError(f"the {name} set has no features: it is {tuple(features.shape)}")
        _refuse(~features.isfinite(), f"the {name} set of features holds values that are not finite")
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"features of {a.shape[1]} and {b.shape[1]} dimensions come from different extractors"
        )
    return a, b


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _kth_neighbour(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th neighbour, itself not counted; (N,)."""
    return torch.cdist(points.double(), points.double()).kthvalue(k + 1, dim=1).values
