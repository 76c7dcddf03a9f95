"""The exercises of chapter 9, with their answers and the slips that people make."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .attempts import Attempt
from .compare import apart, shaped
from .engine import Exercise, Slip
from .results import Calls, Findings

TITLE = "Asking for a seven: conditioning and guidance"

# --- guidance.convert

SOURCES = ("ho", "imagen", "classifier", "classifier, labels")


def _scales(**other: Callable[[float], float]) -> Callable:
    """The answer, with some sources read in another way; "labels" stands for "classifier, labels"."""
    known = {
        "ho": lambda w: 1 + w,
        "imagen": lambda w: w,
        "classifier": lambda w: w,
        "labels": lambda w: 1 + w,
    } | other
    return lambda weight, source: known["labels" if source == SOURCES[3] else source](weight)


def _all_sources(attempt: Callable, arguments: tuple) -> Calls:
    return Calls({f"For {source!r}": attempt(*arguments, source) for source in SOURCES})


def _explain_scales(arguments: tuple, got: Calls, wanted: Calls) -> str:
    pairs = zip(SOURCES, got.values(), wanted.values(), strict=True)
    wrong = [source for source, mine, true in pairs if abs(mine - true) > 1e-5 * (1 + abs(true))]
    return f"{4 - len(wrong)} of the four are right. Look again at {wrong[0]!r}: what is the factor of eps_c there?"


# --- guidance.band


def _band(count, share):
    error = math.sqrt(share * (1 - share) * count)
    return share * count - 4 * error, share * count + 4 * error


def _around(error: Callable[[int, float], float], centre: Callable = lambda n, p: n * p) -> Callable:
    return lambda n, p: (centre(n, p) - error(n, p), centre(n, p) + error(n, p))


def _band_inputs(generator: torch.Generator) -> tuple:
    # so few that n and n - 1 differ by more than the tolerance
    count = int(torch.randint(100, 2000, (), generator=generator))
    return count, 0.05 + 0.35 * torch.rand((), generator=generator, dtype=torch.float64).item()


def _explain_band(arguments: tuple, got: tuple, wanted: tuple) -> str:
    count, share = arguments
    low, high = map(float, got)
    if high < low:
        return "The first number is larger than the second."
    if abs(low + high - 2 * count * share) > 1e-4 * count * share:
        middle, mean = apart((low + high) / 2, count * share)
        return f"The middle of the band is {middle}, and the mean of the count is {mean}."
    error = (wanted[1] - wanted[0]) / 8
    reach, four = apart((high - low) / 2 / error, 4, 3)
    return f"The middle is right. To each side it reaches {reach} standard errors, not {four}."


# --- guidance.dial

REFUSED = object()
FIXED = (0.0, 1e-6, 0.5, 1 - 1e-6, 1.0, 1 + 1e-6, 2.5, 8.0, -0.7)
"""Scales that are always tried; beside them some that no attempt can know."""


def _dial_inputs(generator: torch.Generator) -> tuple:
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    weights = torch.randn(6, 3, generator=generator, dtype=torch.float64)  # five classes and the null label
    label = torch.randint(1, 5, (4,), generator=generator)
    one, two, three, far, below = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    # between and on either side, near 1 at all distances, and far out
    scales = (
        *FIXED,
        one,
        1 + 6 * two,
        1 + 10 ** (-1 - 3 * three),
        1 - 10 ** (-1 - 3 * three),
        20 + 200 * far,
        -3 - 100 * below,
    )
    return x, 0.1 + 0.8 * torch.rand((), generator=generator).item(), label, weights, scales


def _turned(attempt: Attempt, arguments: tuple) -> Findings:
    """The answers at all scales; whether those at 0 and 1 are the network's to the bit; pictures asked about."""
    x, t, label, weights, scales = arguments
    asked = 0

    def denoise(x, t, label=None):
        nonlocal asked
        asked += len(x)
        label = torch.full((len(x),), -1) if label is None else torch.as_tensor(label).expand(len(x))
        if bool((label < -1).any()) or bool((label > 4).any()):
            raise ValueError("this network knows the labels 0 to 4, and -1 for none")
        return torch.tanh(x * weights[label] + t) + 0.3 * weights[label]

    answers, counts = {}, []
    for scale in scales:
        asked = 0
        # the library's dial refuses to be turned below 0; another one may be turned, and must not stand still there
        call = partial(attempt.or_refused, REFUSED) if scale < 0 else attempt
        answer = call(denoise, x, t, label, scale)
        if answer is REFUSED:
            asked = 0
            answer = _dial(denoise, x, t, label, scale)
        answers[scale] = shaped(answer, x, f"At scale {scale:g}", finite=True).double()
        counts.append(asked / len(x))
    own = {1.0: denoise(x, t, label), 0.0: denoise(x, t)}
    exact = [torch.equal(answers[scale], own[scale]) for scale in own]
    return Findings((torch.stack(list(answers.values())), *exact, torch.tensor(counts, dtype=torch.float64)))


def _explain_dial(arguments: tuple, got: tuple, wanted: tuple) -> str:
    x, t, label, weights, scales = arguments
    (answers, at_one, at_zero, counts), (right, _, _, calls) = got, wanted
    wrong = ((answers - right).abs() / (1 + right.abs())).amax((1, 2)) > 1e-5
    if wrong.any():
        at = int(wrong.int().argmax())
        if all(wrong[place] == (scale < 0) for place, scale in enumerate(scales)):
            return "Down to 0 it is right. Below 0 it is not: negative scales are turns of the dial too, away from the label."
        outside = [place for place, scale in enumerate(scales) if wrong[place] and not -0.7 <= scale <= 8]
        if len(outside) == int(wrong.sum()):
            return f"At scale {scales[outside[0]]:.4g} the guess is not right: the dial goes on as far as it is turned."
        return f"At scale {scales[at]:.6g} the guess is not right."
    if not (at_one and at_zero):
        return "The values are right up to rounding. At 0 and at 1 they should be the network's own, to the last bit."
    at = int(((counts - calls).abs() > 1e-6).int().argmax())
    if counts[at] < calls[at]:
        return f"At scale {scales[at]:.7g} one of the two answers was never asked for. Only 0 and 1 can do with one."
    return (
        f"The values are right. At scale {scales[at]:.4g} the network was asked {counts[at]:g} times about each picture, "
        f"and {calls[at]:g} would do."
    )


def _dial(denoise, x, t, label, scale):
    if scale == 1:
        return denoise(x, t, label)
    without = denoise(x, t, torch.full_like(label, -1))
    return without if scale == 0 else without + scale * (denoise(x, t, label) - without)


def _both(denoise, x, t, label) -> tuple[Tensor, Tensor]:
    return denoise(x, t, label), denoise(x, t, torch.full_like(label, -1))


def _jumps(denoise, x, t, label, scale):
    return _dial(denoise, x, t, label, scale) if scale > 0 else denoise(x, t, label)


def _off_up_to_one(denoise, x, t, label, scale):
    return _dial(denoise, x, t, label, scale) if scale > 1 else denoise(x, t, label)


def _from_the_label(denoise, x, t, label, scale):
    with_label, without = _both(denoise, x, t, label)
    return with_label + scale * (with_label - without)


def _from_the_label_saving(denoise, x, t, label, scale):
    return denoise(x, t, label) if scale == 0 else _from_the_label(denoise, x, t, label, scale)


def _turned_round(denoise, x, t, label, scale):
    with_label, without = _both(denoise, x, t, label)
    return with_label + scale * (without - with_label)


def _always_twice(denoise, x, t, label, scale):
    with_label, without = _both(denoise, x, t, label)
    return without + scale * (with_label - without)


def _up_to(largest: float) -> Callable:
    return lambda denoise, x, t, label, scale: _dial(denoise, x, t, label, min(scale, largest))


def _not_below_zero(denoise, x, t, label, scale):
    return _dial(denoise, x, t, label, max(scale, 0))


def _off_near(far: float, end: float = 1) -> Callable:
    return lambda denoise, x, t, label, scale: _dial(
        denoise, x, t, label, end if abs(scale - end) < far else scale
    )


def _at_ends(label_at_one: bool, label_at_zero: bool) -> Callable:
    """The dial with these answers at 1 and at 0; everywhere else it is right."""

    def turned(denoise, x, t, label, scale):
        if scale in (0, 1):
            with_label = label_at_one if scale == 1 else label_at_zero
            return denoise(x, t, label if with_label else torch.full_like(label, -1))
        return _dial(denoise, x, t, label, scale)

    return turned


def _in_between(mix: Callable) -> Callable:
    """The dial that is right at 0 and 1, and mixes the two answers in another way elsewhere."""

    def turned(denoise, x, t, label, scale):
        return (
            _dial(denoise, x, t, label, scale)
            if scale in (0, 1)
            else mix(*_both(denoise, x, t, label), scale)
        )

    return turned


def _zero_for_none(denoise, x, t, label, scale):
    return _dial(lambda x, t, label: denoise(x, t, label.clamp(min=0)), x, t, label, scale)


# --- guidance.widths


def _widths(wide, narrow, scale):
    return 1 / ((1 - scale) / wide + scale / narrow), wide ** (1 - scale) * narrow**scale


def _with_noise(r: float, scale: float) -> float:
    return (r - r ** (2 * scale)) / ((2 * scale - 1) * (1 - r))


def _width_inputs(generator: torch.Generator) -> tuple:
    first, second, third = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    wide = 1.3 + 1.7 * first
    return wide, wide * (0.2 + 0.6 * second), 1.5 + 2.5 * third


def _explain_widths(arguments: tuple, got: tuple, wanted: tuple) -> str:
    right = [abs(float(mine) / true - 1) < 1e-4 for mine, true in zip(got, wanted, strict=True)]
    if right == [True, False]:
        return "The promised variance is right, the drawn one is not. At scale 1 it must be `narrow`, at scale 0 `wide`."
    if right == [False, True]:
        return "The drawn variance is right, the promised one is not. At scale 1 it must be `narrow`, at scale 0 `wide`."
    return ""


# --- guidance.accuracy


def _accuracy(logits, label):
    return _share_of((logits.argmax(1) == label).double().mean(), len(label))


def _share_of(share: Tensor, n: int) -> tuple[Tensor, Tensor]:
    return share, (share * (1 - share) / n).sqrt()


def _share_and(error: Callable[[Tensor, int], Tensor]) -> Callable:
    def attempt(logits, label):
        share = _accuracy(logits, label)[0]
        return share, error(share, len(label))

    return attempt


def _confidence(logits, label):
    return _share_of(logits.softmax(1).gather(1, label[:, None]).double().mean(), len(label))


def _misread(logits, label):
    share, error = _accuracy(logits, label)
    return 1 - share, error


def _accuracy_inputs(generator: torch.Generator) -> tuple:
    # other numbers each time: what is divided by the wrong one is not always off by the same factor
    n, classes = (
        int(torch.randint(low, high, (), generator=generator)) for low, high in ((200, 400), (6, 13))
    )
    label = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    # now and then what was asked for is the last that the classifier thinks of
    logits[torch.arange(n), label] += torch.where(torch.arange(n) % 16 == 0, -5.0, 2.5)
    return logits, label


def _explain_accuracy(arguments: tuple, got: tuple, wanted: tuple) -> str:
    share, error = ("is {}, should be {}".format(*apart(*pair, 4)) for pair in zip(got, wanted, strict=True))
    if abs(got[0] - wanted[0]) > 1e-4:
        return f"The share {share}."
    return f"The share is right. Its standard error {error}."


EXERCISES = (
    Exercise(
        "guidance.convert",
        "Whose three is it?",
        _scales(),
        (
            Slip("Ho and Salimans' weight was taken as it is. Which of their weights switches guidance off?", _scales(ho=lambda w: w)),
            Slip("For Ho and Salimans 1 was subtracted. That is the way from our scale to theirs.", _scales(ho=lambda w: w - 1)),
            Slip("Imagen's weight 1 switches guidance off, and so does ours. It needs no change.", _scales(imagen=lambda w: 1 + w)),
            Slip("A network with labels starts from eps_c. Adding the classifier counts the label once more.", _scales(labels=lambda w: w)),
            Slip("A network without labels starts from eps_u. With the classifier's weight 0 nobody has asked for anything.", _scales(classifier=lambda w: 1 + w)),
            Slip("The two classifiers are exchanged: which network starts from eps_c?", _scales(classifier=lambda w: 1 + w, labels=lambda w: w)),
            Slip("It adds 1 to every weight. Two of the four sources count as we do.", lambda weight, source: weight + 1),
            Slip("For Ho and Salimans and for Imagen the scales are exchanged: which of the two has 1 + w in front of eps_c?", _scales(ho=lambda w: w, imagen=lambda w: 1 + w)),
            Slip("The classifier counts as in our formula on a network without labels. Adding it to one with labels counts the label once more, and not twice more.", _scales(labels=lambda w: 2 + w), (_scales(labels=lambda w: 2 * w),)),
            Slip("For Imagen it looks as if the factor of eps_u was taken, 1 - w. It is the factor of eps_c that is our scale.", _scales(imagen=lambda w: 1 - w)),
            Slip("For Imagen 1 was subtracted. Imagen's weight 1 switches guidance off, and so does ours.", _scales(imagen=lambda w: w - 1)),
            Slip("For Ho and Salimans it looks as if the factor of eps_u was taken, -w. It is the factor of eps_c that is our scale.", _scales(ho=lambda w: -w)),
            Slip("It returns every weight as it is. For two of the four sources 0, and not 1, is the plain conditional model.", _scales(ho=lambda w: w, labels=lambda w: w)),
        ),
        lambda generator: (0.5 + 6 * torch.rand((), generator=generator, dtype=torch.float64).item(),),
        _all_sources,
        explain=_explain_scales,
    ),
    Exercise(
        "guidance.band",
        "How far may a count stray?",
        _band,
        (
            Slip("It looks as if the variance was used where its square root is needed.", _around(lambda n, p: 4 * p * (1 - p) * n)),
            Slip("It looks as if the variance of a coin was taken to be its share. A coin that always falls has no variance.", _around(lambda n, p: 4 * math.sqrt(p * n))),
            Slip("The middle is right. That is one standard error to each side, not four.", _around(lambda n, p: math.sqrt(p * (1 - p) * n))),
            Slip("That is the band of the share. The count was asked for.", _around(lambda n, p: 4 * math.sqrt(p * (1 - p) / n), lambda n, p: p)),
            Slip("That is the band if one coin decides for all pictures at once: the bug of this chapter.", _around(lambda n, p: 4 * n * math.sqrt(p * (1 - p)))),
            Slip("It looks as if n - 1 was used for n. That is for a variance estimated from a sample; here it is known.", _around(lambda n, p: 4 * math.sqrt(p * (1 - p) * (n - 1)))),
            Slip("That is the mean, and how far the band reaches to either side. Its two ends are asked for.", lambda n, p: (p * n, 4 * math.sqrt(p * (1 - p) * n))),
            Slip("The middle is right. The root is that of n alone: the variance is share (1 - share) n, and its root is the root of all of that.", _around(lambda n, p: 4 * p * (1 - p) * math.sqrt(n))),
            Slip("The middle is right. To each side it reaches four standard errors of the share, and the count is asked for.", _around(lambda n, p: 4 * math.sqrt(p * (1 - p) / n))),
            Slip("The middle is right. To each side it is divided by the root of n once too often: the count is not a mean.", _around(lambda n, p: 4 * math.sqrt(p * (1 - p)))),
            Slip("The middle is right. To each side it reaches four standard errors of a fair coin. This one falls with the chance `share`.", _around(lambda n, p: 2 * math.sqrt(n))),
            Slip("That is the band of the labels that stay.", _around(lambda n, p: 4 * math.sqrt(p * (1 - p) * n), lambda n, p: (1 - p) * n)),
        ),
        _band_inputs,
        explain=_explain_band,
    ),
    Exercise(
        "guidance.dial",
        "A dial without a jump",
        _dial,
        (
            Slip("Below scale 1 it gives the plain conditional answer, whatever the scale. Then the dial has no way down to 0.", _off_up_to_one),
            Slip("It counts from the conditional answer: at scale 0 it gives that, and at 1 it is guided already.", _from_the_label),
            Slip("At 0 and 1 it is right. Elsewhere it counts from the conditional answer, as Ho and Salimans do.", _in_between(lambda with_label, without, scale: with_label + scale * (with_label - without))),
            Slip("At 0 and 1 it is right. Elsewhere it moves from the conditional answer to the one without a label as the scale grows: the wrong way.", _in_between(lambda with_label, without, scale: with_label + scale * (without - with_label))),
            Slip("It counts from the conditional answer, and saves a call at 0. In this book 1 switches guidance off.", _from_the_label_saving),
            Slip("It moves from the conditional answer to the one without a label as the scale grows: the wrong way.", _turned_round),
            Slip("The formula is right. At 0 and 1 it asks twice, and rounding makes 1 differ from the network's own answer.", _always_twice),
            Slip("Large scales are held down. The dial goes on as far as it is turned.", _up_to(3), tuple(map(_up_to, (2, 2.5, 4, 5, 7, 7.5, 8, 10, 15, 20)))),
            Slip("Below 0 it stays where it is at 0. Negative scales are turns of the dial too: away from the label.", _not_below_zero),
            Slip("Close to 1 it gives the plain conditional answer: the dial jumps at both ends of that stretch. Only 1 itself is 1.", _off_near(0.01), tuple(_off_near(far) for far in (0.1, 0.05, 1e-3, 1e-4, 1e-5))),
            Slip("Close to 0 it gives the plain answer without a label: the dial jumps at both ends of that stretch. Only 0 itself is 0.", _off_near(0.01, 0), tuple(_off_near(far, 0) for far in (0.1, 0.05, 1e-3, 1e-4, 1e-5))),
            Slip("At scale 0 it gives the answer with the label. Nobody has asked for anything there: the answer without is right.", _at_ends(True, True)),
            Slip("The two ends are exchanged: at scale 1 it gives the answer without a label, and at 0 the one with it.", _at_ends(False, True)),
            Slip("At scale 0 and below it gives the answer with the label, and next to 0 the one without: the dial jumps.", _jumps),
            Slip("Between 0 and 1 it gives one of the two plain answers. The dial has no flat part.", lambda denoise, x, t, label, scale: denoise(x, t, label) if 0 < scale <= 1 else _dial(denoise, x, t, label, scale), (lambda denoise, x, t, label, scale: _dial(denoise, x, t, label, 0 if 0 <= scale < 1 else scale),)),
            Slip("The answer without a label was not subtracted: it is the difference of the two that is scaled.", _in_between(lambda with_label, without, scale: without + scale * with_label)),
            Slip("The guess was clipped. Then it is not the guided guess: clip it outside, if you want to.", _in_between(lambda with_label, without, scale: (without + scale * (with_label - without)).clamp(-1, 1)), (lambda *given: _dial(*given).clamp(-1, 1),)),
            Slip("The sign of the scale is lost: a scale and its negative give the same.", lambda denoise, x, t, label, scale: _dial(denoise, x, t, label, abs(scale))),
            Slip("The scale was rounded. The dial turns smoothly.", lambda denoise, x, t, label, scale: _dial(denoise, x, t, label, round(scale, 1)), (lambda denoise, x, t, label, scale: _dial(denoise, x, t, label, round(scale, 2)), lambda denoise, x, t, label, scale: _dial(denoise, x, t, label, int(scale)), lambda denoise, x, t, label, scale: _dial(denoise, x, t, label, round(scale)))),
            Slip("For the answer without a label it asks for class 0. The null label is -1.", _zero_for_none),
        ),
        _dial_inputs,
        _turned,
        explain=_explain_dial,
    ),
    Exercise(
        "guidance.widths",
        "Promise and draw, for any two bells",
        _widths,
        (
            Slip("The two are exchanged: first the promised variance, then the drawn one.", lambda wide, narrow, scale: _widths(wide, narrow, scale)[::-1]),
            Slip("The promised variance is right. The samples do not keep the promise: follow the distance of two paths.", lambda wide, narrow, scale: (_widths(wide, narrow, scale)[0],) * 2),
            Slip("These are the formulas for data of variance 1, with `narrow` for r. Here the data have the variance `wide`.", lambda wide, narrow, scale: _widths(1, narrow, scale)),
            Slip("These are right for data of variance 1 and r = `narrow` / `wide`. Scale the two variances back.", lambda wide, narrow, scale: _widths(1, narrow / wide, scale)),
            Slip("The drawn variance is right. The first number is the precision, one over the promised variance.", lambda wide, narrow, scale: (1 / _widths(wide, narrow, scale)[0], _widths(wide, narrow, scale)[1])),
            Slip("The promised variance is right. The drawn variance is that for data of variance 1: `wide` is missing in it.", lambda wide, narrow, scale: (_widths(wide, narrow, scale)[0], narrow**scale)),
            Slip("The promised variance is right. The drawn variance is relative to `wide`: multiply it by `wide`.", lambda wide, narrow, scale: (_widths(wide, narrow, scale)[0], (narrow / wide) ** scale)),
            Slip("The promised variance is right. The drawn variance is that of drawing with fresh noise.", lambda wide, narrow, scale: (_widths(wide, narrow, scale)[0], _with_noise(narrow / wide, scale) * wide), (lambda wide, narrow, scale: (_widths(wide, narrow, scale)[0], _with_noise(narrow, scale)), lambda wide, narrow, scale: (_widths(wide, narrow, scale)[0], _with_noise(narrow / wide, scale)))),
            Slip("The promised variance is right. The second number is the logarithm of the drawn variance.", lambda wide, narrow, scale: (_widths(wide, narrow, scale)[0], math.log(_widths(wide, narrow, scale)[1]))),
            Slip("It looks as if `wide` and `narrow` were taken for standard deviations. They are variances.", lambda wide, narrow, scale: _widths(wide**2, narrow**2, scale), (lambda wide, narrow, scale: tuple(each**0.5 for each in _widths(wide**2, narrow**2, scale)),)),
            Slip("It looks as if the factor of what has no label is 1. Its share is 1 - scale.", lambda wide, narrow, scale: (1 / (1 / wide + scale / narrow), wide * narrow**scale), (lambda wide, narrow, scale: (1 / ((1 - scale) / wide + scale / narrow), wide * narrow**scale),)),
            Slip("The promised variance is right. In the drawn variance the sign of the scale is turned.", lambda wide, narrow, scale: (_widths(wide, narrow, scale)[0], wide * (wide / narrow) ** scale)),
            Slip("The two distributions have each other's variance.", lambda wide, narrow, scale: _widths(narrow, wide, scale)),
            Slip("The promised variance is right. The other number is the drawn standard deviation, and the variance is asked for.", lambda wide, narrow, scale: (_widths(wide, narrow, scale)[0], _widths(wide, narrow, scale)[1] ** 0.5)),
            Slip("The drawn variance is right. For the promised one the variances were averaged, and not the precisions.", lambda wide, narrow, scale: ((1 - scale) * wide + scale * narrow, _widths(wide, narrow, scale)[1])),
        ),
        _width_inputs,
        explain=_explain_widths,
    ),
    Exercise(
        "guidance.accuracy",
        "Read as asked",
        _accuracy,
        (
            Slip("The share is right. The second number is its variance, without the root.", _share_and(lambda p, n: p * (1 - p) / n)),
            Slip("The share is right. The second number is how much one picture scatters, and not how much the share of all of them does.", _share_and(lambda p, n: (p * (1 - p)).sqrt())),
            Slip("The share is right. Its standard error was taken as one over the root of n, as if the share were 0.5 or worse.", _share_and(lambda p, n: torch.tensor(n**-0.5))),
            Slip("The share is right. The error is that of a count whose variance is its mean: near 1 a share scatters less.", _share_and(lambda p, n: (p / n).sqrt())),
            Slip("It averages how sure the classifier is. Its verdict is asked for: right or wrong.", _confidence),
            Slip("That is the share that was misread.", _misread),
            Slip("The share is right. Its standard error is divided by n, and not by the root of n.", _share_and(lambda p, n: (p * (1 - p)).sqrt() / n)),
            Slip("The share is right. The second number is 1.96 standard errors, half the width of an interval.", _share_and(lambda p, n: 1.96 * (p * (1 - p) / n).sqrt())),
            Slip("The share is right. Its standard error was taken as one half over the root of n, as if the share were 0.5.", _share_and(lambda p, n: torch.tensor(0.5 * n**-0.5))),
            Slip("The share is right. For its standard error it was divided by the root of the number of classes. It is the n pictures that are averaged over.", lambda logits, label: (_accuracy(logits, label)[0], _accuracy(logits, label)[1] * (len(label) / logits.shape[1]) ** 0.5)),
            Slip("Those are the number that was read as asked and its standard error. The share is asked for.", lambda logits, label: tuple(len(label) * each for each in _accuracy(logits, label))),
            Slip("The smallest entry of a row was taken for the verdict. It is the largest.", lambda logits, label: _accuracy(-logits, label)),
            Slip("The classes are counted from 0: it looks as if the verdicts were moved by one.", lambda logits, label: _accuracy(logits, label - 1), (lambda logits, label: _accuracy(logits, label + 1),)),
            Slip("It looks as if one verdict was taken for all pictures: the largest entry of the whole table.", lambda logits, label: _share_of((logits.argmax() == label).double().mean(), len(label))),
            Slip("Both are in percent. Shares are asked for.", lambda logits, label: tuple(100 * each for each in _accuracy(logits, label))),
        ),
        _accuracy_inputs,
        apart=lambda arguments: arguments[0].shape[1],
        explain=_explain_accuracy,
        # so that n - 1 for n in the error is right too
        tolerance=(1e-5, 2e-4),
    ),
)  # fmt: skip
