"""The exercises of chapter 10, with their answers and the slips that people make."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from operator import le, lt

import torch
from torch import Tensor

from .compare import NO_RETURN, number, shown
from .engine import Exercise, Slip
from .results import Calls

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


def _mean_of_entry_roots(S: Tensor, S2: Tensor, whole: bool) -> Tensor:
    """With roots taken entry by entry; some are no numbers."""
    roots = (S.sqrt() + S2.sqrt()) / 2
    return roots @ roots if whole else roots * roots


def _mean_of_roots(S: Tensor, S2: Tensor) -> Tensor:
    mean = (_root(S) + _root(S2)) / 2
    return mean @ mean


def _explain_halfway(arguments: tuple, got: tuple, wanted: tuple) -> str:
    near = [bool(torch.allclose(mine, true, atol=1e-4)) for mine, true in zip(got, wanted, strict=True)]
    if near == [True, False]:
        return "The mean is right, the covariance matrix is not. `frechet` should find the distribution half way at d2 / 4 from either end."
    if near == [False, True]:
        return "The covariance matrix is right, the mean is not."
    return ""


# --- the kernel distance


ON_TWO, ON_AVERAGE = "On two different sets", "On average over all pairs of samples of one distribution"


def _kernel_inputs(generator: torch.Generator) -> tuple:
    return _normal(generator, 5, 3), _normal(generator, 4, 3) + 0.5, _normal(generator, 2, 2)


def _kernel_run(attempt, arguments: tuple):
    """The value, and the mean over all pairs of two-point samples of one distribution with two values: exactly 0."""
    x, y, points = arguments
    value = number(attempt(x, y))
    samples = [points[list(picks)] for picks in product(range(2), repeat=2)]
    mean = sum(number(attempt(one, two)) for one in samples for two in samples)
    return Calls({ON_TWO: value, ON_AVERAGE: mean / len(samples) ** 2})


def _kernel_distance(
    diagonal: bool = False,
    pairs: bool = True,
    cross: float = 2,
    kernel: Callable = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3,
):
    def attempt(x, y):
        def within(a):
            table, n = kernel(a, a), len(a)
            total = table.sum() - (0 if diagonal else table.diagonal().sum())
            return total / (n * (n - 1) if pairs else n * n)

        return within(x) + within(y) - cross * kernel(x, y).mean()

    return attempt


def _cross(x, y) -> Tensor:
    return ((x @ y.T / x.shape[1] + 1) ** 3).mean()


def _one_within(x) -> Tensor:
    """The mean over the pairs of different points."""
    table = (x @ x.T / x.shape[1] + 1) ** 3
    return (table.sum() - table.diagonal().sum()) / (len(x) * (len(x) - 1))


def _without_one(x, y):
    """Without the diagonal of the cross term too."""
    cross, few = (x @ y.T / x.shape[1] + 1) ** 3, min(len(x), len(y))
    right = _kernel_distance()(x, y) + 2 * cross.mean()
    return right - 2 * (cross.sum() - cross.diagonal().sum()) / (cross.numel() - few)


def _kernel_explain(arguments: tuple, got: Calls, wanted: Calls) -> str:
    if abs(got[ON_AVERAGE]) > 1e-6:
        found = float(got[ON_AVERAGE])
        return f"Averaged over all pairs of samples of one distribution it is {found:.4g}, and should be 0."
    return "For two samples of one distribution it is 0 on average, as it should be. On two different sets the value is not right."


# --- the floor


def _floor_inputs(generator: torch.Generator) -> tuple:
    n, m = torch.randint(200, 5000, (2,), generator=generator).tolist()
    return _covariance(generator, 4), n, m


def _floor_of(
    mean: float = 1,
    width: float = 1,
    twice: float = 1,
    all_pairs: float = 1,
    own=None,
    sets=lambda n, M: 1 / n + 1 / M,
):
    def attempt(S, n, M):
        spread = torch.linalg.eigvalsh(S) if own is None else own(S)
        pairs = torch.outer(spread, spread) / (spread[:, None] + spread)
        widths = (all_pairs * pairs.sum() + twice * pairs.diagonal().sum()) / 2
        return (mean * spread.sum() + width * widths) * sets(n, M)

    return attempt


def _floor(S, n, M):
    return _floor_of()(S, n, M)


# --- what is missing


def _missing_inputs(generator: torch.Generator) -> tuple:
    centres = 1.6 * torch.tensor([[0.0, 1.0], [1.0, -0.6], [-1.0, -0.6]], dtype=torch.float64)
    # any of the three may be the one without samples
    centres = centres[torch.randperm(3, generator=generator)]
    # other sizes each time, and classes of different sizes
    count, few = (
        int(torch.randint(low, high, (), generator=generator)) for low, high in ((70, 90), (40, 56))
    )
    labels = torch.arange(count) % 6 % 4 % 3
    labels = labels[torch.randperm(count, generator=generator)]
    real = centres[labels] + _normal(generator, count, 2)
    # two classes of three, one of them rare
    which = torch.randperm(3, generator=generator)[:2][(torch.rand(few, generator=generator) < 0.2).long()]
    samples = centres[which] + 0.8 * _normal(generator, few, 2)
    return samples, real, labels, int(torch.randint(2, 5, (), generator=generator))


def _kth(distances: Tensor, k: int) -> Tensor:
    return distances.sort(1).values[:, k]


def _shares(hit: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([hit[labels == c].double().mean() for c in range(int(labels.max()) + 1)])


def _missing(samples, real, labels, k):
    radius = _kth(torch.cdist(real, real), k)
    return _shares((torch.cdist(real, samples) <= radius[:, None]).any(1), labels)


def _covered_if(
    held=lambda near: near.any(1), radius=lambda samples, real, k: _kth(torch.cdist(real, real), k)
) -> Callable:
    """Coverage with the radius, or what covers a ball, replaced; `held` gets which samples are near: (M, n)."""

    def attempt(samples, real, labels, k):
        edge = radius(samples, real, k)
        edge = edge[:, None] if edge.ndim else edge
        return _shares(held(torch.cdist(real, samples) <= edge).double(), labels)

    return attempt


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
VERDICTS = ("better", "worse", "cannot say", "not comparable")
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
    # where the square of the error is wider, and nothing is not
    close.append((a := report(), _away(a, 0.015, a["error"])))
    close.append((a := dict(report(), error=0.039), _away(a, 0.09, 0.039)))
    close.append((a := report(), dict(a, error=0.02)))
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


MEASURED = ("count", "features", "reference")


def _claim_if(different: Callable) -> Callable:
    """The answer with another word for what cannot be compared."""
    plain = _claim_of(keys=())
    return lambda a, b: "not comparable" if different(a, b) else plain(a, b)


def _claim_late(a, b):
    said = _claim_of(keys=())(a, b)
    return said if said == "cannot say" else _claim_of()(a, b)


def _claim_one_way(sign: int) -> Callable:
    """A difference without its size: what is negative is always within the error."""

    def attempt(a, b):
        said = _claim_of()(a, b)
        return "cannot say" if said in VERDICTS[:2] and sign * (a["value"] - b["value"]) < 0 else said

    return attempt


def _claim(a, b):
    return _claim_of()(a, b)


def _claim_explain(arguments: tuple, got: tuple, wanted: tuple) -> str:
    for (a, b), mine, right in zip(arguments[0], got, wanted, strict=True):
        if mine is None:
            return f"a is {_report(a)}, b is {_report(b)}. {NO_RETURN}"
        if mine not in VERDICTS:
            return f"a is {_report(a)}, b is {_report(b)}: you say {shown(mine)}, which is none of the four texts."
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
            Slip("The mean is right. That is the covariance matrix at the other end.", _halfway_with(lambda S, S2: S2)),
            Slip("The mean is right. That is the covariance matrix at the beginning.", _halfway_with(lambda S, S2: S)),
            Slip(
                "The mean is right. The middle of two points is half of their sum, on both sides of S: a factor 1/2 is missing.",
                _halfway_with(lambda S, S2: 4 * _between(S, _best_map(S, S2))),
                (_halfway_with(lambda S, S2: 2 * _between(S, _best_map(S, S2))),),
            ),
            Slip(
                "The mean is right. That is the matrix that moves the points. Their covariance has S between it and its transpose.",
                _halfway_with(lambda S, S2: (torch.eye(len(S), dtype=S.dtype) + _best_map(S, S2)) / 2),
                (_halfway_with(_best_map),),
            ),
            Slip(
                "The mean is right. In A the inverse roots of S are missing on both sides.",
                _halfway_with(lambda S, S2: _between(S, _root(_root(S) @ S2 @ _root(S)))),
            ),
            Slip(
                "The mean is right. The root of a matrix was taken entry by entry. It is the matrix whose product with itself is S.",
                _halfway_with(lambda S, S2: ((S.sqrt() + S2.sqrt()) / 2).square()),
                (
                    _halfway_with(lambda S, S2: _mean_of_entry_roots(S, S2, False)),
                    _halfway_with(lambda S, S2: _mean_of_entry_roots(S, S2, True)),
                ),
            ),
            Slip(
                "The mean is right. Only the diagonals were used. The two matrices do not have the same axes, and these are not the axes of the space.",
                _halfway_with(lambda S, S2: torch.diag(((S.diagonal().sqrt() + S2.diagonal().sqrt()) / 2) ** 2)),
                (_halfway_with(lambda S, S2: torch.diag((S.diagonal() + S2.diagonal()) / 2)),),
            ),
            Slip(
                "The mean is right. That is a mean of precisions, and no move of points.",
                _halfway_with(lambda S, S2: torch.linalg.inv((torch.linalg.inv(S) + torch.linalg.inv(S2)) / 2)),
            ),
            Slip("The covariance matrix is right. The mean is the sum of the two, and half of it is the middle.", lambda m, S, m2, S2: (m + m2, _halfway(m, S, m2, S2)[1])),
            Slip(
                "The mean is right. Half of A was used. The middle of x and y keeps half of x, too.",
                _halfway_with(lambda S, S2: S2 / 4),
            ),
            Slip("That is the distribution at the other end. Go half of the way.", lambda m, S, m2, S2: (m2, S2)),
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
            Slip("It looks as if the scalar product was not divided by D.", _kernel_distance(kernel=lambda a, b: (a @ b.T + 1) ** 3)),
            Slip("It looks as if the scalar product was divided by the root of D.", _kernel_distance(kernel=lambda a, b: (a @ b.T / a.shape[1] ** 0.5 + 1) ** 3)),
            Slip("It looks as if the scalar product was divided by the number of points. D is the number of features.", _kernel_distance(kernel=lambda a, b: (a @ b.T / len(a) + 1) ** 3), (_kernel_distance(kernel=lambda a, b: (a @ b.T / len(b) + 1) ** 3),)),
            Slip("The kernel is a third power.", _kernel_distance(kernel=lambda a, b: (a @ b.T / a.shape[1] + 1) ** 2), (_kernel_distance(kernel=lambda a, b: a @ b.T / a.shape[1] + 1),)),
            Slip("In the kernel the 1 is missing.", _kernel_distance(kernel=lambda a, b: (a @ b.T / a.shape[1]) ** 3)),
            Slip("In the kernel only the scalar product is divided by D, and not the 1.", _kernel_distance(kernel=lambda a, b: ((a @ b.T + 1) / a.shape[1]) ** 3)),
            Slip("That is another kernel, of distances. The one that is asked for is a third power of a scalar product.", _kernel_distance(kernel=lambda a, b: (-torch.cdist(a, b).square() / 2).exp()), (_kernel_distance(kernel=lambda a, b: (-torch.cdist(a, b).square()).exp()), _kernel_distance(kernel=lambda a, b: (-torch.cdist(a, b).square() / (2 * a.shape[1])).exp()))),
            Slip("The cross term is subtracted, and not added.", _kernel_distance(cross=-2), (_kernel_distance(cross=-1),)),
            Slip("Every point of one set meets every point of the other. It looks as if pairs of the same number were left out there as well.", _without_one),
            Slip("The sign of the value is lost. An estimate without bias falls below 0 now and then.", lambda x, y: _kernel_distance()(x, y).abs(), (lambda x, y: _kernel_distance()(x, y).clamp(min=0), lambda x, y: _kernel_distance()(x, y).abs().sqrt(), lambda x, y: _kernel_distance()(x, y).clamp(min=0).sqrt())),
            Slip("One of the three terms is missing: points of x with each other, points of y with each other, and x with y.", lambda x, y: _kernel_distance(cross=0)(x, y), (lambda x, y: _one_within(x) - 2 * _cross(x, y), lambda x, y: _one_within(y) - 2 * _cross(x, y))),
            Slip("The pairs of a set were counted once, and divided as if they were counted twice.", lambda x, y: (_one_within(x) + _one_within(y)) / 2 - 2 * _cross(x, y)),
            Slip("In the cross term there are n M pairs.", lambda x, y: _one_within(x) + _one_within(y) - 2 * _cross(x, y) * len(y) / len(x), (lambda x, y: _one_within(x) + _one_within(y) - 2 * _cross(x, y) * len(x) / len(y), lambda x, y: _one_within(x) + _one_within(y) - 2 * _cross(x, y) * len(x) * len(y))),
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
            Slip("Both sets are finite, and both have a bias.", _floor_of(sets=lambda n, M: 1 / n), (_floor_of(sets=lambda n, M: 1 / M), _floor_of(sets=lambda n, M: max(1 / n, 1 / M)), _floor_of(sets=lambda n, M: min(1 / n, 1 / M)))),
            Slip("The two sets' biases add. Two sets of n and M are not one set of n + M.", _floor_of(sets=lambda n, M: 1 / (n + M))),
            Slip(
                "The square of a coordinate varies twice as much as the product of two different ones, if their variances are equal: look at i = j.",
                _floor_of(twice=0),
            ),
            Slip("For i = j the variance is twice as large, and for all other pairs it is not.", _floor_of(all_pairs=2, twice=0)),
            Slip("It looks as if only pairs of different i and j were summed.", _floor_of(twice=-1)),
            Slip("It looks as if only i = j was summed. The estimated covariances between different axes miss as well.", _floor_of(all_pairs=0, twice=2)),
            Slip("The half in front of the double sum is missing.", _floor_of(width=2)),
            Slip("The two sets' biases add. It looks as if 1/n and 1/M were multiplied.", _floor_of(sets=lambda n, M: 1 / (n * M))),
            Slip("It looks as if the two biases were subtracted. The two sets miss independently, and the misses add.", _floor_of(sets=lambda n, M: 1 / n - 1 / M), (_floor_of(sets=lambda n, M: abs(1 / n - 1 / M)),)),
            Slip("It looks as if both sets had n pictures, or both M.", _floor_of(sets=lambda n, M: 2 / n), (_floor_of(sets=lambda n, M: 2 / M), _floor_of(sets=lambda n, M: 4 / (n + M)))),
            Slip("It looks as if n - 1 was used for n. To first order the floor goes with 1/n.", _floor_of(sets=lambda n, M: 1 / (n - 1) + 1 / (M - 1))),
            Slip("It looks as if standard deviations were used. lambda is a variance.", _floor_of(own=lambda S: torch.linalg.eigvalsh(S).sqrt())),
            Slip("It looks as if lambda was squared: the eigenvalues of S are variances already.", _floor_of(own=lambda S: torch.linalg.eigvalsh(S).square())),
            Slip("D (D + 5) / 4 is for the covariance matrix 1. This one has other axes.", _floor_of(own=lambda S: torch.ones(len(S), dtype=S.dtype))),
            Slip("That is kappa. It is to be multiplied by 1/n + 1/M.", _floor_of(sets=lambda n, M: 1)),
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
        # a floor is a small number
        tolerance=2e-7,
    ),
    Exercise(
        "metrics.missing",
        "Which digit is missing?",
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
            Slip("Those are the shares that are not covered.", lambda *given: 1 - _missing(*given)),
            Slip("The point itself is not counted among its neighbours already: it looks as if it was left out twice.", lambda samples, real, labels, k: _missing(samples, real, labels, k + 1)),
            Slip("It looks as if a ball had to hold all samples. One is enough.", _covered_if(lambda near: near.all(1))),
            Slip("It looks as if the share of the samples in a ball was averaged. A ball holds a sample or it does not.", _covered_if(lambda near: near.double().mean(1))),
            Slip("It looks as if the samples in each ball were counted. A ball holds a sample or it does not.", _covered_if(lambda near: near.double().sum(1))),
            Slip("It looks as if all balls had one radius. Each real point has its own.", _covered_if(radius=lambda samples, real, k: _kth(torch.cdist(real, real), k).mean()), (_covered_if(radius=lambda samples, real, k: _kth(torch.cdist(real, real), k).median()),)),
            Slip("The distance to the k-th neighbour was squared, or not rooted, on one side of the comparison.", _covered_if(radius=lambda samples, real, k: _kth(torch.cdist(real, real), k).square()), (_covered_if(radius=lambda samples, real, k: _kth(torch.cdist(real, real), k).sqrt()),)),
            Slip(
                "Every ball holds a sample, so the radius is too large. It is the distance to the k-th nearest real point, not to a sample and not to the far end of the cloud.",
                _covered_if(radius=lambda samples, real, k: _kth(torch.cdist(real, samples), k)),
            ),
            Slip("It looks as if the covered points of a class were divided by all covered points. A class is divided by its own real points.", lambda samples, real, labels, k: (counts := _missing_counts(samples, real, labels, k)) / counts.sum()),
            Slip("The first class or the last is left out: there is one entry for each of 0, 1, ..., labels.max().", lambda *given: _missing(*given)[:-1], (lambda *given: _missing(*given)[1:],)),
            Slip("That is one share for all classes together.", lambda samples, real, labels, k: _missing_whole(samples, real, labels, k)[0]),
            Slip("That is how many are covered. Shares are asked for: divide by the number of real points of the class.", _missing_counts),
            Slip("That is the coverage of all real points, once for each class.", _missing_whole),
            Slip("It looks as if the covered points of a class were divided by the number of all real points.", _missing_of_all),
            Slip("It looks as if each class had its balls to itself. The radius is that to the k-th real neighbour of any class.", _missing_own_class),
        ),
        _missing_inputs,
        apart=lambda arguments: arguments[3],
    ),
    Exercise(
        "metrics.claim",
        "When may you claim it?",
        _claim,
        (
            Slip("Some of these pairs have different numbers of samples, and are not comparable.", _claim_of(keys=("features", "reference"))),
            Slip("Some of these pairs have different features, and are not comparable.", _claim_of(keys=("count", "reference"))),
            Slip("Some of these pairs have different real images, and are not comparable.", _claim_of(keys=("count", "features"))),
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
            Slip("None of the pairs is called not comparable. One difference in how they were measured is enough.", _claim_of(keys=())),
            Slip("It looks as if the difference was looked at first. Ask first whether the two can be compared.", _claim_late),
            Slip("It looks as if `value` or `error` had to be the same for a comparison. Only how it was measured has to be.", _claim_if(lambda a, b: a["value"] != b["value"] or a["error"] != b["error"]), (_claim_if(lambda a, b: a["error"] != b["error"] or any(a[key] != b[key] for key in MEASURED)),)),
            Slip("It looks as if the larger of the two errors was used. Errors of independent measurements add as squares.", _claim_of(width=max)),
            Slip("It looks as if the smaller of the two errors was used. Errors of independent measurements add as squares.", _claim_of(width=min)),
            Slip("It looks as if variances were added and no root was taken.", _claim_of(width=lambda a, b: a**2 + b**2)),
            Slip("It looks as if a mean of the two errors was used. The error of a difference is larger than either: errors of independent measurements add as squares.", _claim_of(width=lambda a, b: (a + b) / 2), (_claim_of(width=lambda a, b: math.sqrt((a * a + b * b) / 2)),)),
            Slip("It looks as if the squares of the two errors were subtracted. They add.", _claim_of(width=lambda a, b: math.sqrt(abs(a * a - b * b)))),
            Slip("A difference in one of the two directions is never seen: compare its size, without the sign.", _claim_one_way(1), (_claim_one_way(-1),)),
            Slip("It looks as if the errors were not used.", _claim_of(width=lambda a, b: 0.0)),
            Slip("It looks as if only the error of one of the two was used.", _claim_of(width=lambda a, b: a)),
            Slip("A distance is better when it is smaller.", _claim_of(sign=-1)),
        ),
        _claim_inputs,
        _claim_run,
        explain=_claim_explain,
    ),
)  # fmt: skip
