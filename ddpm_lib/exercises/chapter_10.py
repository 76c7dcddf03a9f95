"""The exercises of chapter 10, with their answers and the slips that people make."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from operator import le, lt

import torch
from torch import Tensor

from .compare import NO_RETURN, apart, number, shown
from .engine import Exercise, Slip

TITLE = "How good is it?"


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _covariance(generator: torch.Generator, dims: int) -> Tensor:
    a = _normal(generator, dims, dims)
    return 0.4 * a @ a.T + 0.3 * torch.eye(dims, dtype=torch.float64)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


# --- half way along the cheapest plan


def _halfway_inputs(generator: torch.Generator) -> tuple:
    return (
        _normal(generator, 3),
        _covariance(generator, 3),
        _normal(generator, 3),
        _covariance(generator, 3),
    )


def _best_map(S: Tensor, S2: Tensor) -> Tensor:
    half = _root(S)
    inverse = torch.linalg.inv(half)
    return inverse @ _root(half @ S2 @ half) @ inverse


def _halfway(m, S, m2, S2):
    B = (torch.eye(len(m), dtype=S.dtype) + _best_map(S, S2)) / 2
    return (m + m2) / 2, B @ S @ B.T


def _halfway_with(covariance: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    return lambda m, S, m2, S2: ((m + m2) / 2, covariance(S, S2))


def _between(S: Tensor, map_: Tensor) -> Tensor:
    B = (torch.eye(len(S), dtype=S.dtype) + map_) / 2
    return B @ S @ B.T


def _by_triangles(S: Tensor, S2: Tensor) -> Tensor:
    lower, lower2 = torch.linalg.cholesky(S), torch.linalg.cholesky(S2)
    return _between(S, lower2 @ torch.linalg.inv(lower))


def _one_sided(S: Tensor, S2: Tensor) -> Tensor:
    return (torch.eye(len(S), dtype=S.dtype) + _best_map(S, S2)) / 2 @ S


def _mean_of_roots(S: Tensor, S2: Tensor) -> Tensor:
    mean = (_root(S) + _root(S2)) / 2
    return mean @ mean


def _explain_halfway(arguments: tuple, got: tuple, wanted: tuple) -> str:
    near = [bool(torch.allclose(mine, true, atol=1e-4)) for mine, true in zip(got, wanted, strict=True)]
    if near == [True, False]:
        return "The mean is right, the covariance matrix is not. `frechet` should find the law at d2 / 4 from either end."
    if near == [False, True]:
        return "The covariance matrix is right, the mean is not."
    return ""


# --- the kernel distance


def _kernel_inputs(generator: torch.Generator) -> tuple:
    return _normal(generator, 5, 3), _normal(generator, 4, 3) + 0.5, _normal(generator, 3, 2)


def _kernel_run(attempt, arguments: tuple):
    """The value, and the mean over all pairs of two-point samples of one law with three values: exactly 0."""
    x, y, law = arguments
    value = number(attempt(x, y))
    samples = [law[list(picks)] for picks in product(range(3), repeat=2)]
    mean = sum(number(attempt(one, two)) for one in samples for two in samples)
    return value, mean / len(samples) ** 2


def _kernel_distance(
    diagonal: bool = False, pairs: bool = True, scaled: bool = True, cross: float = 2, power: int = 3
):
    def attempt(x, y):
        kernel = lambda a, b: (a @ b.T / (a.shape[1] if scaled else 1) + 1) ** power  # noqa: E731

        def within(a):
            table, n = kernel(a, a), len(a)
            total = table.sum() - (0 if diagonal else table.diagonal().sum())
            return total / (n * (n - 1) if pairs else n * n)

        return within(x) + within(y) - cross * kernel(x, y).mean()

    return attempt


def _kernel_explain(arguments: tuple, got: tuple, wanted: tuple) -> str:
    if abs(got[1]) > 1e-6:
        return f"Two samples of one law, averaged over all such samples, give {float(got[1]):.4g}; it should be 0."
    return "On equal laws it is 0 on average, as it should be. On two different sets the value is not right."


# --- the floor


def _floor_inputs(generator: torch.Generator) -> tuple:
    n, m = torch.randint(200, 5000, (2,), generator=generator).tolist()
    return _covariance(generator, 4), n, m


def _floor_of(
    mean: float = 1, width: float = 1, twice: bool = True, own=None, sets=lambda n, M: 1 / n + 1 / M
):
    def attempt(S, n, M):
        spread = torch.linalg.eigvalsh(S) if own is None else own(S)
        pairs = torch.outer(spread, spread) / (spread[:, None] + spread)
        widths = (pairs.sum() + (pairs.diagonal().sum() if twice else 0)) / 2
        return (mean * spread.sum() + width * widths) * sets(n, M)

    return attempt


def _floor(S, n, M):
    return _floor_of()(S, n, M)


def _floor_run(attempt, arguments: tuple):
    """In thousandths: a floor is a small number, and the tolerance is relative to 1 + |answer|."""
    return 1e3 * number(attempt(*arguments))


# --- what is missing


def _missing_inputs(generator: torch.Generator) -> tuple:
    centres = 1.6 * torch.tensor([[0.0, 1.0], [1.0, -0.6], [-1.0, -0.6]], dtype=torch.float64)
    labels = torch.arange(150) % 3
    labels = labels[torch.randperm(150, generator=generator)]
    real = centres[labels] + _normal(generator, 150, 2)
    # two classes of three, one of them rare
    which = (torch.rand(90, generator=generator) < 0.2).long()
    samples = centres[which] + 0.8 * _normal(generator, 90, 2)
    return samples, real, labels, int(torch.randint(2, 5, (), generator=generator))


def _kth(distances: Tensor, k: int) -> Tensor:
    return distances.sort(1).values[:, k]


def _shares(hit: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([hit[labels == c].double().mean() for c in range(int(labels.max()) + 1)])


def _missing(samples, real, labels, k):
    radius = _kth(torch.cdist(real, real), k)
    return _shares((torch.cdist(real, samples) <= radius[:, None]).any(1), labels)


def _missing_itself(samples, real, labels, k):
    return _missing(samples, real, labels, k - 1)


def _missing_swapped(samples, real, labels, k):
    radius = _kth(torch.cdist(samples, samples), k)
    return _shares((torch.cdist(real, samples) <= radius).any(1), labels)


def _missing_counts(samples, real, labels, k):
    return _missing(samples, real, labels, k) * labels.bincount()


def _missing_whole(samples, real, labels, k):
    radius = _kth(torch.cdist(real, real), k)
    share = (torch.cdist(real, samples) <= radius[:, None]).any(1).double().mean()
    return share.repeat(int(labels.max()) + 1)


def _missing_of_all(samples, real, labels, k):
    return _missing(samples, real, labels, k) * labels.bincount() / len(labels)


def _missing_own_class(samples, real, labels, k):
    radius = torch.empty(len(real), dtype=real.dtype)
    for c in range(int(labels.max()) + 1):
        mine = real[labels == c]
        radius[labels == c] = _kth(torch.cdist(mine, mine), k)
    return _shares((torch.cdist(real, samples) <= radius[:, None]).any(1), labels)


# --- a fair comparison

TWICE = 1.96
_ALIKE = {"count": 1000, "features": "classifier", "reference": "test"}


def _claim_inputs(generator: torch.Generator) -> tuple:
    """60 pairs of reports: one in three cannot be compared, the rest lie from 0 to 4 standard errors apart; some just
    outside and just inside 1.96, and two exactly there."""
    draw = lambda: torch.rand((), generator=generator).item()  # noqa: E731
    report = lambda: dict(_ALIKE, value=0.5 + draw(), error=0.01 + 0.03 * draw())  # noqa: E731
    pairs = []
    while len(pairs) < 53:
        a, z = report(), 8 * draw() - 4
        b = _away(a, z, 0.01 + 0.03 * draw())
        change = draw()
        if change < 1 / 9:
            b["count"] = 10_000
        elif change < 2 / 9:
            b["features"] = "pixels"
        elif change < 3 / 9:
            b["reference"] = "train"
        if abs(abs(z) - TWICE) > 0.01:
            pairs.append((a, b))
    close = [(a := report(), _away(a, z, 0.01 + 0.03 * draw())) for z in (-1.965, 1.965, -1.9595, 1.9595)]
    # between 2.576 and what two intervals that do not touch ask for
    strict = (a := report(), _away(a, 2.68, a["error"]))
    # with errors of 0 and 1 / 32 no way to compute it rounds
    edge = dict(_ALIKE, value=0.0, error=0.0), dict(_ALIKE, value=TWICE / 32, error=1 / 32)
    return ([*pairs, *close, strict, edge, edge[::-1]],)


def _away(a: dict, z: float, error: float) -> dict:
    """A report like a, so many standard errors of the difference away."""
    return dict(a, error=error, value=a["value"] + z * math.hypot(a["error"], error))


def _claim_run(attempt, arguments: tuple) -> tuple:
    return tuple(attempt(a, b) for a, b in arguments[0])


def _claim_of(
    keys=("count", "features", "reference"), width=math.hypot, sign: int = 1, times=TWICE, within=le
):
    def attempt(a, b):
        if any(a[key] != b[key] for key in keys):
            return "not comparable"
        gap = sign * (b["value"] - a["value"])
        if within(abs(gap), times * width(a["error"], b["error"])):
            return "cannot say"
        return "better" if gap > 0 else "worse"

    return attempt


def _claim(a, b):
    return _claim_of()(a, b)


def _claim_explain(arguments: tuple, got: tuple, wanted: tuple) -> str:
    for (a, b), mine, right in zip(arguments[0], got, wanted, strict=True):
        if mine is None:
            return f"a is {_report(a)}, b is {_report(b)}. {NO_RETURN}"
        if mine != right:
            return f"a is {_report(a)}, b is {_report(b)}: you say {shown(mine)}, and it is {right!r}."
    return ""


def _report(each: dict) -> str:
    about = f"n = {each['count']:,}, {each['features']}, {each['reference']}"
    return f"{each['value']:.3f} ± {each['error']:.3f} ({about})"


EXERCISES = (
    Exercise(
        "metrics.halfway",
        "Half way",
        _halfway,
        (
            Slip(
                "The mean is right. The two matrices were averaged: that is no move of points. Where does a point go, and how "
                "do such points scatter?",
                _halfway_with(lambda S, S2: (S + S2) / 2),
            ),
            Slip(
                "The mean is right. That is how the middles scatter if y is drawn without looking at x. The cheapest plan ties y to x.",
                _halfway_with(lambda S, S2: (S + S2) / 4),
            ),
            Slip(
                "The mean is right. The roots were averaged: that is right only where both matrices have the same axes.",
                _halfway_with(_mean_of_roots),
            ),
            Slip(
                "The mean is right. The map used does turn S into S', but it is not the cheapest: that one is a symmetric matrix.",
                _halfway_with(_by_triangles),
            ),
            Slip(
                "The mean is right. A matrix that moves the points enters their covariance twice, once from either side.",
                _halfway_with(_one_sided),
            ),
            Slip(
                "The mean is right. Half of A was used. The middle of x and y keeps half of x, too.",
                _halfway_with(lambda S, S2: S2 / 4),
            ),
            Slip("That is the law at the other end. Go half of the way.", lambda m, S, m2, S2: (m2, S2)),
            Slip(
                "The covariance matrix is right. The mean is half of the way itself: begin it at m.",
                lambda m, S, m2, S2: ((m2 - m) / 2, _halfway(m, S, m2, S2)[1]),
            ),
            Slip(
                "The mean is right. The map turns S' into S. The one that is needed turns S into S'.",
                _halfway_with(lambda S, S2: _between(S, _best_map(S2, S))),
            ),
        ),
        _halfway_inputs,
        explain=_explain_halfway,
    ),
    Exercise(
        "metrics.kernel",
        "Zero, on average",
        _kernel_distance(),
        (
            Slip(
                "It looks as if each point was compared with itself too: such pairs are not independent, and they raise the value.",
                _kernel_distance(diagonal=True, pairs=False),
            ),
            Slip(
                "The pairs of a point with itself are left out, and still counted: there are n (n - 1) others, not n n.",
                _kernel_distance(pairs=False),
            ),
            Slip("The cross term counts twice.", _kernel_distance(cross=1)),
            Slip("It looks as if the scalar product was not divided by D.", _kernel_distance(scaled=False)),
            Slip("The kernel is a third power.", _kernel_distance(power=2)),
            Slip("The pairs of a point with itself are counted in the sum, and not in the number.", _kernel_distance(diagonal=True)),
        ),
        _kernel_inputs,
        _kernel_run,
        explain=_kernel_explain,
    ),
    Exercise(
        "metrics.floor",
        "The floor, without a picture",
        _floor,
        (
            Slip("That is the share of the means. The widths are estimated too.", _floor_of(width=0)),
            Slip("That is the share of the widths. The means are estimated too.", _floor_of(mean=0)),
            Slip("Both sets are finite, and both have a bias.", _floor_of(sets=lambda n, M: 1 / n)),
            Slip("The two sets' biases add. Two sets of n and M are not one set of n + M.", _floor_of(sets=lambda n, M: 1 / (n + M))),
            Slip(
                "The square of a coordinate varies twice as much as the product of two different ones, if their variances are equal: look at i = j.",
                _floor_of(twice=False),
            ),
            Slip(
                "It looks as if the diagonal of S was used. The formula needs the variances along its own axes, the eigenvalues.",
                _floor_of(own=lambda S: S.diagonal()),
            ),
            Slip(
                "D (D + 5) / 4 is for a covariance of one number times the identity. This one has axes of different lengths.",
                _floor_of(own=lambda S: S.trace().expand(len(S)) / len(S)),
            ),
        ),
        _floor_inputs,
        _floor_run,
        explain=lambda arguments, got, wanted: "It is {}, should be {}.".format(*apart(got / 1e3, wanted / 1e3)),
    ),
    Exercise(
        "metrics.missing",
        "Coverage, class by class",
        _missing,
        (
            Slip(
                "The nearest neighbour of a point in its own cloud is the point itself, at distance 0. It does not count.",
                _missing_itself,
            ),
            Slip(
                "Those are the balls of the samples: recall, class by class. Coverage takes the balls of the real points.",
                _missing_swapped,
            ),
            Slip("That is how many are covered. Shares are asked for: divide by the number of real points of the class.", _missing_counts),
            Slip("That is the coverage of all real points, once for each class.", _missing_whole),
            Slip("It looks as if the covered points of a class were divided by the number of all real points.", _missing_of_all),
            Slip("It looks as if each class had its balls to itself. The radius is that to the k-th real neighbour of any class.", _missing_own_class),
        ),
        _missing_inputs,
        trials=4,
    ),
    Exercise(
        "metrics.claim",
        "When may you claim it?",
        _claim,
        (
            Slip("Some of these pairs have different numbers of samples.", _claim_of(keys=("features", "reference"))),
            Slip("Some of these pairs have different features.", _claim_of(keys=("count", "reference"))),
            Slip("Some of these pairs have different real images.", _claim_of(keys=("count", "features"))),
            Slip(
                "It looks as if you ask for two intervals that do not touch. That is too strict: errors of independent measurements add as squares.",
                _claim_of(width=lambda a, b: a + b),
            ),
            Slip(
                "It looks as if the difference was held against another number of standard errors than 1.96.",
                _claim_of(times=2),
                tuple(_claim_of(times=times) for times in (1, 1.645, 2.576, 3)),
            ),
            Slip("A difference of exactly 1.96 standard errors is within it.", _claim_of(within=lt)),
            Slip("It looks as if the errors were not used.", _claim_of(width=lambda a, b: 0.0)),
            Slip("It looks as if only the error of one of the two was used.", _claim_of(width=lambda a, b: a)),
            Slip("A distance is better when it is smaller.", _claim_of(sign=-1)),
        ),
        _claim_inputs,
        _claim_run,
        explain=_claim_explain,
    ),
)  # fmt: skip
