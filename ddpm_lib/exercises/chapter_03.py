"""The exercises of chapter 3, with their answers and the slips that people make."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..toy import Gaussian
from .compare import apart
from .engine import Exercise, Slip
from .results import Calls

TITLE = "The perfect denoiser"
TINY = 1e-30

# --- the score of a mixture


def _mixture_inputs(generator: torch.Generator) -> tuple:
    draw = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    # not in the plane, where a variance to the power D / 2 is the variance itself
    x, means = 3 * draw(7, 3) - 1.5, 3 * draw(4, 3) - 1.5
    a = 0.4 + 0.5 * draw(()).item()
    return x, a, math.sqrt(1 - a**2), 0.2 + draw(4), means, 0.1 + 0.5 * draw(4)


def _parts(x, a, s, weights, means, stds) -> tuple[Tensor, Tensor, Tensor]:
    """Differences a mean - x (B, K, D), variances (K,), chances of the components (B, K)."""
    variances = a**2 * stds**2 + s**2
    difference = a * means - x[:, None]
    log_weight = (weights / weights.sum()).log() - 0.5 * x.shape[1] * variances.log()
    return (
        difference,
        variances,
        torch.softmax(log_weight - difference.square().sum(2) / (2 * variances), 1),
    )


def _pull(difference: Tensor, variances: Tensor, chances: Tensor) -> Tensor:
    return (chances[..., None] * difference / variances[:, None]).sum(1)


def _score(x, a, s, weights, means, stds):
    return _pull(*_parts(x, a, s, weights, means, stds))


def _score_with_factor_of(dims):
    """The factor in front of the exponential as it is in so many dimensions."""

    def attempt(x, a, s, weights, means, stds):
        difference, variances, _ = _parts(x, a, s, weights, means, stds)
        logits = weights.log() - difference.square().sum(2) / (2 * variances) - dims / 2 * variances.log()
        return _pull(difference, variances, torch.softmax(logits, 1))

    return attempt


def _score_of(weigh=torch.log, variance=lambda a, s, d: a**2 * d**2 + s**2, pull=lambda v, s: v, normal=True):
    """The formula with the log of the weights, the variances and what divides the pull replaced."""

    def attempt(x, a, s, weights, means, stds):
        difference, variances = a * means - x[:, None], variance(a, s, stds)
        logits = (
            weigh(weights) - difference.square().sum(2) / (2 * variances) - x.shape[1] / 2 * variances.log()
        )
        chances = torch.softmax(logits, 1) if normal else logits.exp()
        return _pull(difference, pull(variances, s), chances)

    return attempt


def _slope_of_the_density(x, a, s, weights, means, stds):
    difference, variances, _ = _parts(x, a, s, weights, means, stds)
    heights = -difference.square().sum(2) / (2 * variances) - x.shape[1] / 2 * (2 * math.pi * variances).log()
    return _pull(difference, variances, weights / weights.sum() * heights.exp())


def _score_over_points(x, a, s, weights, means, stds):
    """The softmax along the other axis: the chances of a component sum to 1 over the points."""
    difference, variances, _ = _parts(x, a, s, weights, means, stds)
    logits = weights.log() - difference.square().sum(2) / (2 * variances) - x.shape[1] / 2 * variances.log()
    return _pull(difference, variances, torch.softmax(logits, 0))


def _score_with_prior_weights(x, a, s, weights, means, stds):
    difference, variances, chances = _parts(x, a, s, weights, means, stds)
    return _pull(difference, variances, (weights / weights.sum()).expand_as(chances))


def _score_explain(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    flat = (got * wanted).sum() / wanted.square().sum()
    if (got - flat * wanted).abs().max() < 1e-6:
        way = "The directions are right." if flat > 0 else "The arrows point the wrong way."
        return f"{way} They are {apart(abs(flat), 1, 3)[0]} times as long as they should be."
    return ""


# --- a softmax that holds

LEVELS = (1e-3, 3e-2, 0.5)
"""Noise scales at which a denoiser is tried."""


def _stable_inputs(generator: torch.Generator) -> tuple:
    """Noisy points for each level, float32: two that hesitate between neighbours, two noisy ones, one far away."""
    # more than 25, from where on torch.cdist goes by products, which costs digits
    points = torch.rand(30, 784, generator=generator, dtype=torch.float64) * 2 - 1
    noise = torch.randn(len(LEVELS), 4, 784, generator=generator, dtype=torch.float64)
    rows = []
    for s, z in zip(LEVELS, noise, strict=True):
        a = math.sqrt(1 - s**2)
        near = points.clone()
        near[1] = near[0]
        near[1, :4] += s
        middle = a * (near[0] + near[1]) / 2 + s * z[:2]
        middle[:, :4] -= s * z[:2, :4] / 2
        noisy = a * near[4:6] + s * z[2:4]
        rows.append((torch.cat([middle, noisy, 30 * near[7:8]]).float(), near.float(), a, s))
    return (rows,)


def _stable_run(attempt, arguments: tuple) -> Calls:
    return Calls({f"At s = {s:g}": attempt(x, points, a, s) for x, points, a, s in arguments[0]})


def _distance2(x: Tensor, centres: Tensor) -> Tensor:
    return (x[:, None] - centres).square().sum(2)


def _stable(x, points, a, s):
    x, wide = x.double(), points.double()
    return (torch.softmax(-_distance2(x, a * wide) / (2 * s**2), 1) @ wide).float()


def _softmax_of(scale=lambda s: 1 / (2 * s**2), axis=1, distance=_distance2, guess=True):
    def attempt(x, points, a, s):
        x, wide = x.double(), points.double()
        weights = torch.softmax(-distance(x, a * wide) * scale(s), axis)
        return (weights @ wide if guess else weights).float()

    return attempt


def _unscaled(x, points, a, s):
    x, wide = x.double(), points.double()
    return (torch.softmax(-_distance2(x, wide) / (2 * s**2), 1) @ wide).float()


def _nearest(x, points, a, s):
    return points[_distance2(x.double(), a * points.double()).argmin(1)]


def _products_only(x, points, a, s):
    wide = points.double()
    return (torch.softmax(a * x.double() @ wide.T / s**2, 1) @ wide).float()


def _naive(change=lambda x: x, add=0.0, lowest=-math.inf):
    def attempt(x, points, a, s):
        x, points = change(x), change(points)
        weights = (-_distance2(x, a * points) / (2 * s**2)).clamp(min=lowest).exp()
        return (weights @ points / (weights.sum(1, keepdim=True) + add)).float()

    return attempt


def _stable_explain(arguments: tuple, got: Calls, wanted: Calls) -> str:
    for (_, _, _, s), mine, right in zip(arguments[0], got.values(), wanted.values(), strict=True):
        wrong = (mine - right).abs().amax(1) > 3e-5
        if wrong[:2].any() and not wrong[2:].any():
            return (
                f"At s = {s:g}, noisy points near one clean point are right. Those that hesitate between two neighbours are not: "
                + ("either a small difference of large numbers was lost to rounding, or " if s < 0.1 else "")
                + "the exponents are not what they should be."
            )
    return ""


# --- the floor


def _floor_inputs(generator: torch.Generator) -> tuple:
    # other numbers each time: what is divided by the wrong one is not always off by the same factor
    n, dims = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((200, 600), (3, 7)))
    root = torch.randn(dims, 1, generator=generator, dtype=torch.float64)
    world = Gaussian(
        torch.randn(dims, generator=generator), root @ root.T + 0.05 * torch.eye(dims, dtype=torch.float64)
    )
    a = 0.4 + 0.5 * torch.rand((), generator=generator).item()
    s = math.sqrt(1 - a**2)
    x0 = world.sample(n, generator).double()
    eps = torch.randn(n, dims, generator=generator, dtype=torch.float64)
    gain = a * torch.linalg.inv(a**2 * world.covariance + s**2 * torch.eye(dims)) @ world.covariance
    return x0, eps, a, s, lambda x: world.mean + (x - a * world.mean) @ gain


def _errors(x0, eps, a, s, guess) -> Tensor:
    return (guess(a * x0 + s * eps) - x0).square()


def _mean_and_error(errors: Tensor) -> tuple[Tensor, Tensor]:
    return errors.mean(), errors.std() / math.sqrt(len(errors))


def _floor(x0, eps, a, s, guess):
    return _mean_and_error(_errors(x0, eps, a, s, guess).mean(1))


def _error_by(count):
    """The floor with its error from the spread of single errors and `count`, of the examples' errors (n, D)."""

    def attempt(*given):
        errors = _errors(*given)
        return errors.mean(), errors.mean(1).std() / count(errors)

    return attempt


def _floor_of_noise(x0, eps, a, s, guess):
    x = a * x0 + s * eps
    return _mean_and_error((eps - (x - a * guess(x)) / s).square().mean(1))


def _floor_spread(x0, eps, a, s, guess):
    errors = _errors(x0, eps, a, s, guess).mean(1)
    return errors.mean(), errors.std()


# --- copies


def _copies_inputs(generator: torch.Generator) -> tuple:
    # other sizes each time, never equal ones
    few, count, dims = (
        int(torch.randint(low, high, (), generator=generator)) for low, high in ((22, 30), (60, 90), (5, 9))
    )
    points = torch.randn(few, dims, generator=generator, dtype=torch.float64)
    # some are there almost twice, so a sample may be near two; and near the last five there is none
    points[10:17] = points[:7] + 0.01 * points[10:17]
    which = torch.randint(few - 5, (count,), generator=generator)
    # some near the point of their own number
    which[:5] = torch.arange(5)
    z = torch.randn(count, dims, generator=generator, dtype=torch.float64)
    far = 0.02 + 0.48 * torch.rand(count, 1, generator=generator, dtype=torch.float64) ** 2
    far[:5] = 0.03
    return points[which] + far * z, points, 0.1


def _rms(samples, points) -> Tensor:
    return (samples[:, None] - points).square().mean(2).sqrt()


def _copies(samples, points, limit):
    return (_rms(samples, points).min(1).values < limit).double().mean()


# --- duplicates

INDIFFERENT = -0.64 * math.log(3) / 1.2


def _explain_duplicates(arguments: tuple, got: tuple, wanted: tuple) -> str:
    names = ("the share", "the best guess", "the place of doubt")
    wrong = [name for name, mine, true in zip(names, got, wanted, strict=True) if abs(mine - true) > 6e-4]
    return f"Look again at {' and '.join(wrong)}."


EXERCISES = (
    Exercise(
        "score.mixture",
        "The score of a noisy mixture",
        _score,
        (
            Slip(
                "That is the score of the clean mixture. The noise in x_t widens every component and pulls its centre inwards.",
                lambda x, a, s, *mixture: _score(x, 1.0, TINY, *mixture),
            ),
            Slip(
                "The centres of the components lie at the clean means. In x_t they are multiplied by the signal scale a.",
                lambda x, a, s, w, m, d: _score(x, a, s, w, m / a, d),
            ),
            Slip(
                "The centres are right. The signal scale shrinks the width of a component too, and not only its centre.",
                lambda x, a, s, w, m, d: _score(x, a, s, w, m, d / a),
            ),
            Slip(
                "It looks as if a standard deviation stands where a variance is needed: std and s enter squared.",
                lambda x, a, s, w, m, d: _score(x, a, s**0.5, w, m, d**0.5),
            ),
            Slip("The arrows point the wrong way: they should point towards the data.", lambda *given: -_score(*given)),
            Slip("That is the best guess of the noise. The score is asked for.", lambda x, a, s, *mixture: -s * _score(x, a, s, *mixture)),
            Slip("That is the best guess of the clean x_0. The score is asked for.", lambda x, a, s, *mixture: (x + s**2 * _score(x, a, s, *mixture)) / a),
            Slip(
                "It looks as if all components were equally likely beforehand. They have weights.",
                lambda x, a, s, w, m, d: _score(x, a, s, torch.ones_like(w), m, d),
            ),
            Slip(
                "A normal density has a factor in front of its exponential, which depends on the variance. "
                "The components have different variances, so it does not cancel.",
                _score_with_factor_of(0),
            ),
            Slip(
                "The factor in front of the exponential is that of the plane, D = 2. It goes with D.",
                _score_with_factor_of(2),
            ),
            Slip(
                "The factor in front of the exponential is that of a single number, D = 1. It goes with D.",
                _score_with_factor_of(1),
            ),
            Slip(
                "Each component pulls with its weight from before x was seen. Bayes' rule changes the weights, at every x.",
                _score_with_prior_weights,
            ),
            Slip(
                "The softmax runs over the points: the chances sum to 1 for each component, and it should be so for each point.",
                _score_over_points,
            ),
            Slip(
                "The weights were added to the exponents. A weight multiplies the exponential: what is that in the exponent?",
                _score_of(weigh=lambda w: w),
                (_score_of(weigh=lambda w: w / w.sum()),),
            ),
            Slip(
                "In the variance of a component a is not squared: a * x_0 has the variance of x_0 times a^2.",
                _score_of(variance=lambda a, s, d: a * d**2 + s**2),
            ),
            Slip(
                "In the variance of a component std is not squared: it is a standard deviation.",
                _score_of(variance=lambda a, s, d: a**2 * d + s**2),
            ),
            Slip(
                "In the variance of a component s is not squared: it is a standard deviation.",
                _score_of(variance=lambda a, s, d: a**2 * d**2 + s),
            ),
            Slip(
                "The chances are right. The pull of a component was divided by its standard deviation, and not by its variance.",
                _score_of(pull=lambda v, s: v.sqrt()),
            ),
            Slip(
                "The chances are right. The pull was divided by s^2 alone. A component has a width of its own as well.",
                _score_of(pull=lambda v, s: s**2 + 0 * v),
            ),
            Slip(
                "It looks as if the noise alone had a variance: each component was taken for a single point.",
                _score_of(variance=lambda a, s, d: s**2 + 0 * d),
            ),
            Slip(
                "The chances of the components do not sum to 1 at each point.",
                _score_of(normal=False),
                (lambda x, a, s, w, m, d: _score_of(normal=False)(x, a, s, w / w.sum(), m, d),),
            ),
            Slip(
                "That is the slope of the density. The slope of its logarithm is asked for: divide by the density.",
                _slope_of_the_density,
                (lambda x, a, s, w, m, d: w.sum() * _slope_of_the_density(x, a, s, w, m, d),),
            ),
            Slip(
                "It was divided by the number of points: it looks like the slope of a mean over the batch. Each point has a score of its own.",
                lambda x, *rest: _score(x, *rest) / len(x),
            ),
        ),
        _mixture_inputs,
        explain=_score_explain,
    ),
    Exercise(
        "softmax.stable",
        "A softmax that holds",
        _stable,
        (
            Slip("NaN: every exponential was rounded to zero before it was divided by their sum.", _naive()),
            Slip(
                "float64 only moves the cliff: for a point far from all data the exponentials are still all zero.",
                _naive(Tensor.double),
            ),
            Slip(
                "No NaN, but grey: the small number below the fraction line hides that all weights are zero. They must sum to 1.",
                _naive(add=1e-8),
            ),
            Slip(
                "It looks as if the exponents were clamped from below: then all that lies far away weighs the same.",
                _naive(lowest=-80.0),
            ),
            Slip("It looks as if the squared distance was divided by 2 s, a standard deviation, and not by a variance.", _softmax_of(lambda s: 1 / (2 * s))),
            Slip("The squared distance is divided by s^2. A normal density has a 2 there as well.", _softmax_of(lambda s: 1 / s**2)),
            Slip("The softmax runs over the noisy pictures. For each of them the weights of the clean points sum to 1.", _softmax_of(axis=0)),
            Slip("The clean points were not multiplied by the signal scale before the distance was taken.", _unscaled),
            Slip("It looks as if the squares were averaged over the coordinates. A squared distance is their sum.", _softmax_of(lambda s: 1 / (2 * s**2 * 784))),
            Slip("That is the nearest clean point. A best guess is an average, also where only two points have a say.", _nearest),
            Slip("The inner products are right. In the expanded square there is one more term that differs from point to point.", _products_only),
            Slip("That is a times the best guess. The weights average the clean points, not the points times a.", lambda x, points, a, s: a * _stable(x, points, a, s)),
            Slip("It looks as if the distance was not squared.", _softmax_of(distance=lambda x, centres: _distance2(x, centres).sqrt())),
            Slip("Those are the weights. Their average of the points is asked for.", lambda x, points, a, s: _softmax_of(guess=False)(x, points, a, s)),
        ),
        _stable_inputs,
        run=_stable_run,
        tolerance=3e-5,
        explain=_stable_explain,
    ),
    Exercise(
        "floor.monte_carlo",
        "The floor by Monte Carlo",
        _floor,
        (
            Slip(
                "The floor is right. The second value is the spread of single errors. That of their mean is smaller.",
                _floor_spread,
            ),
            Slip(
                "The floor is right. The second value is the variance of the estimate. Its root is the standard error.",
                lambda *given: (_floor(*given)[0], _floor(*given)[1] ** 2),
            ),
            Slip(
                "The floor is right. The coordinates of one example share their luck, so they are not independent: "
                "average over them first, then measure the spread over examples.",
                lambda *given: _mean_and_error(_errors(*given).flatten()),
            ),
            Slip(
                "It looks as if the errors of an example were summed over its coordinates. Per coordinate means their mean.",
                lambda *given: _mean_and_error(_errors(*given).sum(1)),
            ),
            Slip(
                "It looks as if the guess was asked about the clean x0. It must see the noisy x_t.",
                lambda x0, eps, a, s, guess: _mean_and_error((guess(x0) - x0).square().mean(1)),
            ),
            Slip(
                "It looks as if the guess was compared with what it saw. Compare it with the truth, x0.",
                lambda x0, eps, a, s, guess: _mean_and_error(
                    (guess(a * x0 + s * eps) - a * x0 - s * eps).square().mean(1)
                ),
            ),
            Slip(
                "The floor is right. For its error the spread was divided by n, and not by the root of n.",
                _error_by(len),
            ),
            Slip(
                "The floor is right. For its error the spread was divided by the root of D. It is the n examples that are averaged over.",
                _error_by(lambda errors: math.sqrt(errors.shape[1])),
            ),
            Slip(
                "The floor is right. For its error the spread of single examples was divided by the root of n D. There are n independent examples.",
                _error_by(lambda errors: math.sqrt(errors.numel())),
            ),
            Slip(
                "The floor is right. Its error was taken from the spread of the D coordinates, averaged over the examples first. It is the examples that are independent.",
                lambda *given: _mean_and_error(_errors(*given).mean(0)),
            ),
            Slip(
                "It looks as if a root was taken of each example's error. The floor is a mean of squares.",
                lambda *given: _mean_and_error(_errors(*given).mean(1).sqrt()),
            ),
            Slip(
                "It looks as if absolute differences were averaged. The floor is a mean of squares.",
                lambda *given: _mean_and_error(_errors(*given).sqrt().mean(1)),
            ),
            Slip(
                "That is the error of the noise. The floor is the error of the picture.",
                _floor_of_noise,
            ),
            Slip(
                "It looks as if a and s were exchanged in the noising line.",
                lambda x0, eps, a, s, guess: _floor(x0, eps, s, a, guess),
            ),
        ),
        _floor_inputs,
        apart=lambda arguments: arguments[0].shape[1],
        # so that n for n - 1 in the spread is right too
        tolerance=(1e-5, 1.5e-4),
    ),
    Exercise(
        "softmax.duplicates",
        "Predict what duplicates do",
        (0.75, 0.5, INDIFFERENT),
        (
            Slip("Those are the numbers without duplicates. Each of the four entries counts.", (0.5, 0.0, 0.0)),
            Slip("The share is right. A best guess is a mean, not a share: +1 and -1 both enter it.", (0.75, 0.75, INDIFFERENT)),
            Slip("The first two are right. But x = 0 is no longer the place of doubt: there +1 is three times as likely.", (0.75, 0.5, 0.0)),
            Slip("The first two are right. The size of the third is too, but not its side: who has more copies is believed earlier.", (0.75, 0.5, -INDIFFERENT)),
            Slip("The first two are right. The third is too large by a factor of 2: both distances change when x moves.", (0.75, 0.5, 2 * INDIFFERENT)),
            Slip("The first is in per cent. A share from 0 to 1 is asked for.", (75.0, 0.5, INDIFFERENT)),
            Slip("That is the share at -1.", (0.25, 0.5, INDIFFERENT)),
            Slip("The first two are right. In the third s stands where its square is needed: the exponents are divided by 2 s^2.", (0.75, 0.5, INDIFFERENT / 0.8)),
            Slip("The first two are right. In the third the number of copies stands where its logarithm is needed.", (0.75, 0.5, INDIFFERENT * 3 / math.log(3))),
            Slip("The first two are right. The third has a logarithm to the base 10. The natural one belongs to the exponential.", (0.75, 0.5, INDIFFERENT / math.log(10))),
            Slip("The first two are right. For the third, compare -1 and +1 with each other, and not with all four.", (0.75, 0.5, INDIFFERENT * math.log(4) / math.log(3)), ((0.75, 0.5, INDIFFERENT * math.log(2) / math.log(3)), (0.75, 0.5, INDIFFERENT * math.log(0.75) / math.log(3)))),
        ),
        # three digits are asked for, and two are not enough
        tolerance=4e-4,
        explain=_explain_duplicates,
    ),
    Exercise(
        "copies.count",
        "Count the copies",
        _copies,
        (
            Slip(
                "The limit is per coordinate: a root *mean* square. It looks as if the squares were summed.",
                lambda samples, points, limit: (torch.cdist(samples, points).min(1).values < limit).double().mean(),
            ),
            Slip(
                "That is the share of training points that were copied. The share of samples that are copies is asked for.",
                lambda samples, points, limit: (_rms(samples, points).min(0).values < limit).double().mean(),
            ),
            Slip(
                "A sample that is near two training points is still one sample. It looks as if pairs were counted.",
                lambda samples, points, limit: (_rms(samples, points) < limit).double().sum() / len(samples),
            ),
            Slip(
                "That is how many there are. A share is asked for.",
                lambda samples, points, limit: (_rms(samples, points).min(1).values < limit).double().sum(),
            ),
            Slip(
                "It looks as if a sample had to be near all training points. One is enough.",
                lambda samples, points, limit: (_rms(samples, points).max(1).values < limit).double().mean(),
                (lambda samples, points, limit: (_rms(samples, points).mean(1) < limit).double().mean(),),
            ),
            Slip(
                "That is the share that are no copies.",
                lambda samples, points, limit: 1 - _copies(samples, points, limit),
            ),
            Slip(
                "It looks as if the mean square was compared with the limit. Take its root first.",
                lambda samples, points, limit: (_rms(samples, points).square().min(1).values < limit).double().mean(),
            ),
            Slip(
                "The root of the sum of squares was divided by D. The mean is under the root, so it is the root of D that divides.",
                lambda samples, points, limit: (torch.cdist(samples, points).min(1).values / samples.shape[1] < limit).double().mean(),
            ),
            Slip(
                "It looks as if all pairs were counted, and divided by their number. A sample counts once, if it is near some point.",
                lambda samples, points, limit: (_rms(samples, points) < limit).double().mean(),
            ),
            Slip(
                "The number of copies was divided by the number of training points. It is a share of the samples.",
                lambda samples, points, limit: (_rms(samples, points).min(1).values < limit).double().sum() / len(points),
            ),
            Slip(
                "It looks as if each sample was compared with one point only, the one of its own number.",
                lambda samples, points, limit: ((samples[: len(points)] - points).square().mean(1).sqrt() < limit).double().mean(),
                (lambda samples, points, limit: ((samples[: len(points)] - points).square().mean(1).sqrt() < limit).double().sum() / len(samples),),
            ),
            Slip(
                "It looks as if absolute differences were averaged. A root mean square is asked for.",
                lambda samples, points, limit: ((samples[:, None] - points).abs().mean(2).min(1).values < limit).double().mean(),
            ),
            Slip(
                "It looks as if the largest difference of a coordinate was compared with the limit. A root mean square is asked for.",
                lambda samples, points, limit: ((samples[:, None] - points).abs().amax(2).min(1).values < limit).double().mean(),
            ),
        ),
        _copies_inputs,
        apart=lambda arguments: arguments[0].shape[1],
    ),
)  # fmt: skip
