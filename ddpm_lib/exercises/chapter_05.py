"""The exercises of chapter 5, with their answers and the slips that people make."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..denoiser import TARGETS
from .compare import shaped, shown
from .engine import Exercise, Slip
from .results import Calls

TITLE = "Five names for one network"


def _of_the_library(name: str) -> Callable:
    def pair(a: float, s: float) -> tuple[float, float]:
        p, q = TARGETS[name](torch.tensor(a, dtype=torch.float64), torch.tensor(s, dtype=torch.float64))
        return float(p), float(q)

    return pair


PAIRS = {name: _of_the_library(name) for name in ("eps", "x0", "v", "flow")}
PAIRS["score"] = lambda a, s: (0.0, -1 / s)
NAMES = ("eps", "x0", "v", "score", "flow")


# --- targets.convert


def _converter(**other: Callable) -> Callable:
    """convert with some pairs (p, q) replaced."""
    pairs = PAIRS | other

    def convert(x_t, y, a, s, given, wanted):
        (p, q), (r, u) = pairs[given](a, s), pairs[wanted](a, s)
        area = a * q - s * p
        x0, eps = (q * x_t - s * y) / area, (a * y - p * x_t) / area
        return r * x0 + u * eps

    return convert


def _converter_of(
    solve=lambda x0, eps: (x0, eps), area=lambda each: each, ends=lambda given, wanted: (given, wanted)
) -> Callable:
    """convert with the two unknowns, the area D or the names changed on the way."""

    def convert(x_t, y, a, s, given, wanted):
        given, wanted = ends(given, wanted)
        (p, q), (r, u) = PAIRS[given](a, s), PAIRS[wanted](a, s)
        D = area(a * q - s * p)
        x0, eps = solve((q * x_t - s * y) / D, (a * y - p * x_t) / D)
        return r * x0 + u * eps

    return convert


def _turned_factors(x_t, y, a, s, given, wanted):
    return _converter()(x_t, y, s, a, given, wanted)


def _noisy_inputs(generator: torch.Generator) -> tuple:
    # larger than pictures are: an attempt that clips is seen to
    x0, eps = 4 * torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    logsnr = 6 * torch.rand((), generator=generator, dtype=torch.float64) - 3
    return x0, eps, logsnr.sigmoid().sqrt().item(), (-logsnr).sigmoid().sqrt().item()


def _all_ways(attempt: Callable, arguments: tuple) -> Calls:
    """Every name into every other and back."""
    x0, eps, a, s = arguments
    x_t, found = a * x0 + s * eps, {}
    answers = {name: PAIRS[name](a, s)[0] * x0 + PAIRS[name](a, s)[1] * eps for name in NAMES}
    for given in NAMES:
        for wanted in NAMES:
            way = f"From {given!r} to {wanted!r}"
            # a tensor whatever it was given as: the way back is asked as the way there
            there = shaped(attempt(x_t, answers[given], a, s, given, wanted), x_t, way).double()
            # from a wrong answer there is no way back
            right = bool(((there - answers[wanted]).abs() <= 1e-4 * (1 + answers[wanted].abs())).all())
            back = attempt(x_t, there if right else answers[wanted], a, s, wanted, given)
            found[way] = there, back
    return Calls(found)


def _explain_ways(arguments: tuple, got: Calls, wanted: Calls) -> str:
    wrong = [
        way
        for way in wanted
        if ((got[way][0] - wanted[way][0]).abs() / (1 + wanted[way][0].abs()) > 1e-5).any()
    ]
    if not wrong:
        return "There it is right, and on the way back it is off by a little: is precision lost on the way?"
    words = f"{25 - len(wrong)} of the 25 conversions are right. {wrong[0]} it is not."
    for name in NAMES:
        # all that begins or ends with it, and nothing else, except its way into itself
        with_it = {way for way in wanted if repr(name) in way} - {f"From {name!r} to {name!r}"}
        if with_it == set(wrong):
            return f"{25 - len(wrong)} of the 25 conversions are right. All that are wrong have {name!r} in them."
    return words


# --- targets.min_snr

WEIGHED = ("eps", "x0", "v")


def _min_snr(logsnr, gamma, name):
    snr = logsnr.exp()
    return snr.clamp(max=gamma) / {"eps": snr, "x0": torch.ones_like(snr), "v": snr + 1}[name]


def _weights_of(
    snr=lambda logsnr, gamma: logsnr.exp(),
    least=lambda snr, gamma: snr.clamp(max=gamma),
    own=lambda snr, least: (snr, 1, snr + 1),
):
    """The three weights with the SNR, the smaller of it and gamma, or what is divided by replaced."""

    def weight(logsnr, gamma, name):
        value = snr(logsnr, gamma)
        smaller = least(value, gamma)
        return smaller / dict(zip(WEIGHED, own(value, smaller), strict=True))[name]

    return weight


def _v_like_eps(logsnr, gamma, name):
    return _min_snr(logsnr, gamma, "eps" if name == "v" else name)


def _v_shifted(logsnr, gamma, name):
    if name != "v":
        return _min_snr(logsnr, gamma, name)
    return (logsnr.exp() + 1).clamp(max=gamma) / (logsnr.exp() + 1)


def _multiplied(logsnr, gamma, name):
    least = _min_snr(logsnr, gamma, "x0")
    return least**2 / _min_snr(logsnr, gamma, name)


def _logsnr_for_snr(logsnr, gamma, name):
    return logsnr.clamp(max=gamma) / {"eps": logsnr, "x0": torch.ones_like(logsnr), "v": logsnr + 1}[name]


def _maximum(logsnr, gamma, name):
    snr = logsnr.exp()
    return snr.clamp(min=gamma) / {"eps": snr, "x0": torch.ones_like(snr), "v": snr + 1}[name]


def _weight_inputs(generator: torch.Generator) -> tuple:
    logsnr = 12 * torch.rand(9, generator=generator, dtype=torch.float64) - 6
    # above any gamma, itself and not only its exponential; and below
    logsnr[:2] = torch.tensor([8.5, -1.5], dtype=torch.float64)
    return logsnr, 2 + 6 * torch.rand((), generator=generator, dtype=torch.float64).item()


def _three_weights(attempt: Callable, arguments: tuple) -> Calls:
    return Calls({f"For {name!r}": attempt(*arguments, name) for name in WEIGHED})


def _explain_weights(arguments: tuple, got: Calls, wanted: Calls) -> str:
    pairs = zip(WEIGHED, got.values(), wanted.values(), strict=True)
    right = [name for name, mine, true in pairs if ((mine - true).abs() <= 1e-5 * (1 + true.abs())).all()]
    if not right:
        return "None of the three is right. Turn each into a weight on the squared error of x_0, and compare."
    wrong = " and ".join(name for name in WEIGHED if name not in right)
    return f"It is right for {' and '.join(right)}, and not for {wrong}: the same guess must cost the same there."


# --- targets.blow_up

IN_PICTURE = ("noisy", "never", "never", "noisy", "never")
IN_NOISE = ("never", "clean", "never", "never", "never")


def _explain_ends(arguments: tuple, got: tuple, wanted: tuple) -> str:
    for row, mine, true in zip(("picture", "noise"), got, wanted, strict=True):
        for name, said, right in zip(NAMES, mine, true, strict=True):
            if not isinstance(said, str) or said not in ("noisy", "clean", "never"):
                return f"{shown(said)} is none of 'noisy', 'clean' and 'never'."
            if said != right:
                return f"Look again at {name!r}, and what an error in it does to the {row}."
    return ""


# --- targets.published


def _published(x, u, tau):
    return x + (1 - tau) * u, x - tau * u


def _published_inputs(generator: torch.Generator) -> tuple:
    data, noise = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    tau = 0.1 + 0.8 * torch.rand((), generator=generator, dtype=torch.float64).item()
    if math.isclose(tau, 0.5, abs_tol=0.02):  # there its time and ours agree
        tau += 0.05
    return tau * data + (1 - tau) * noise, data - noise, tau


def _explain_published(arguments: tuple, got: tuple, wanted: tuple) -> str:
    right = [bool(((mine - true).abs() < 1e-4).all()) for mine, true in zip(got, wanted, strict=True)]
    if right == [True, False]:
        return "The picture is right, and the noise is not."
    if right == [False, True]:
        return "The noise is right, and the picture is not."
    return ""


EXERCISES = (
    Exercise(
        "targets.convert",
        "Five by five",
        _converter(),
        (
            Slip("It looks as if v had the other sign: v = a eps - s x_0, and not s x_0 - a eps.", _converter(v=lambda a, s: (s, -a))),
            Slip("It looks as if a and s were exchanged in v.", _converter(v=lambda a, s: (-a, s))),
            Slip("It looks as if the score had the wrong sign: it points away from the noise.", _converter(score=lambda a, s: (0, 1 / s))),
            Slip("It looks as if the score was taken for the noise with a minus sign: a factor is missing.", _converter(score=lambda a, s: (0, -1))),
            Slip("It looks as if the score was divided by the variance of the noise instead of its standard deviation.", _converter(score=lambda a, s: (0, -1 / s**2))),
            Slip("It looks as if the velocity went from noise to data. In this book it is eps - x_0.", _converter(flow=lambda a, s: (1, -1))),
            Slip("It returns the answer as it was given, whatever is wanted.", lambda x_t, y, a, s, given, wanted: y),
            Slip("It looks as if both parts of v had a plus. v = a eps - s x_0.", _converter(v=lambda a, s: (s, a))),
            Slip("It looks as if the noise was multiplied by s in the score, with a minus. It is divided by s.", _converter(score=lambda a, s: (0, -s))),
            Slip("It looks as if both parts of the velocity had a plus. It is eps - x_0.", _converter(flow=lambda a, s: (1, 1))),
            Slip("It looks as if `given` and `wanted` were exchanged.", _converter_of(ends=lambda given, wanted: (wanted, given))),
            Slip("It looks as if picture and noise were exchanged between taking apart and putting together.", _converter_of(lambda x0, eps: (eps, x0))),
            Slip("It looks as if it was not divided by the height h = a q - s p.", _converter_of(area=lambda D: 1.0)),
            Slip("It looks as if the height had the other sign: h = a q - s p.", _converter_of(area=lambda D: -D)),
            Slip("It looks as if it was multiplied by the height h, and not divided.", _converter_of(area=lambda D: 1 / D)),
            Slip("It looks as if a and s were exchanged.", _turned_factors),
            Slip("It returns the picture, whatever is wanted.", _converter_of(ends=lambda given, wanted: (given, "x0"))),
            Slip("It returns the noise, whatever is wanted.", _converter_of(ends=lambda given, wanted: (given, "eps"))),
            Slip("It looks as if x_t was taken for the picture.", lambda x_t, y, a, s, given, wanted: PAIRS[wanted](a, s)[0] * x_t + PAIRS[wanted](a, s)[1] * y),
            Slip("Where both names are the same it returns x_t. It should return the answer that it was given.", lambda x_t, y, a, s, given, wanted: x_t if given == wanted else _converter()(x_t, y, a, s, given, wanted)),
        ),
        _noisy_inputs,
        _all_ways,
        explain=_explain_ways,
    ),
    Exercise(
        "targets.min_snr",
        "Min-SNR for three names",
        _min_snr,
        (
            Slip("It is right for eps and x0. For v it is the weight of eps: the bug of this chapter.", _v_like_eps),
            Slip("It is right for eps and x0. For v, 1 was added to the SNR in two places, and it belongs in one.", _v_shifted),
            Slip("That is the weight in x_0 space for all three. A loss in eps or v has a weight there of its own already.", lambda logsnr, gamma, name: _min_snr(logsnr, gamma, "x0")),
            Slip("It looks as if the weight that a name brings along was multiplied in once more, and not taken out.", _multiplied),
            Slip("It looks as if log-SNR was taken for SNR.", _logsnr_for_snr),
            Slip("That is the larger of SNR and gamma. The smaller one is needed.", _maximum),
            Slip("It is right for eps and x0. For v it is the weight of x0.", _weights_of(own=lambda snr, least: (snr, 1, 1))),
            Slip("It is right for eps and x0. For v the 1 belongs to the SNR below the fraction line: brackets are missing.", lambda logsnr, gamma, name: _min_snr(logsnr, gamma, "eps") + 1 if name == "v" else _min_snr(logsnr, gamma, name)),
            Slip("It is right for eps and x0. For v it is the capped SNR that 1 was added to. The loss in v weighs the picture with the SNR itself, plus 1.", _weights_of(own=lambda snr, least: (snr, 1, least + 1))),
            Slip("It is right for eps and x0. For v 1 was added above the fraction line as well.", lambda logsnr, gamma, name: _min_snr(logsnr, gamma, name) + (1 / (1 + logsnr.exp()) if name == "v" else 0)),
            Slip("It is right for v. The weights of eps and x0 are exchanged.", _weights_of(own=lambda snr, least: (1, snr, snr + 1))),
            Slip("gamma is not in it: nothing caps the SNR.", _weights_of(least=lambda snr, gamma: snr)),
            Slip("The smaller of SNR and gamma is missing. That only takes out the weight that each name brings along.", _weights_of(least=lambda snr, gamma: torch.ones_like(snr))),
            Slip("It looks as if the SNR is that of amplitudes, a / s. It is a^2 / s^2, the exponential of log-SNR.", _weights_of(lambda logsnr, gamma: (logsnr / 2).exp())),
            Slip("It looks as if the logarithm was taken to the base 10. log-SNR is a natural one.", _weights_of(lambda logsnr, gamma: 10**logsnr)),
            Slip("It looks as if SNR is upside down: the exponential of -logsnr.", _weights_of(lambda logsnr, gamma: (-logsnr).exp())),
            Slip("It looks as if gamma caps the log-SNR. It caps the SNR.", _weights_of(least=lambda snr, gamma: snr.log().clamp(max=gamma).exp())),
            Slip("It looks as if gamma was taken to be 5. It is passed in.", _weights_of(least=lambda snr, gamma: snr.clamp(max=5.0))),
        ),
        _weight_inputs,
        _three_weights,
        explain=_explain_weights,
    ),
    Exercise(
        "targets.blow_up",
        "Which blows up where",
        (IN_PICTURE, IN_NOISE),
        (
            Slip("The two rows are exchanged: the first is about the picture.", (IN_NOISE, IN_PICTURE)),
            Slip("The names are right, the ends are not: look at what a and s are at t = 1 and at t = T.", (("clean", "never", "never", "clean", "never"), ("never", "noisy", "never", "never", "never"))),
            Slip("Noise is right. In the picture, the score's 1 / s is large at the clean end. But that is the score, not the error it makes.", (("noisy", "never", "never", "clean", "never"), IN_NOISE)),
            Slip("Picture is right. An error in the score becomes an error in the noise times s. Is that ever large?", (IN_PICTURE, ("never", "clean", "never", "clean", "never"))),
            Slip("Noise is right. An x0 network's error in the picture is the error itself.", (("noisy", "clean", "never", "noisy", "never"), IN_NOISE)),
            Slip("The picture forgets the score: what is its height h, and what is left of it where a is near 0?", (("noisy", "never", "never", "never", "never"), IN_NOISE)),
        ),
        explain=_explain_ends,
    ),
    Exercise(
        "targets.published",
        "Read a published formula",
        _published,
        (
            Slip("The time is turned round, and the sign of the velocity is not: theirs points at the data.", lambda x, u, tau: (x - (1 - tau) * u, x + tau * u)),
            Slip("The sign is right, and the time is not: their tau is 0 where all is noise.", lambda x, u, tau: (x + tau * u, x - (1 - tau) * u)),
            Slip("Either picture and noise are exchanged, or these are our formulas with their letters, and neither time nor sign is turned round.", lambda x, u, tau: (x - tau * u, x + (1 - tau) * u)),
            Slip("The picture is right. For the noise the sign of tau * u is turned.", lambda x, u, tau: (x + (1 - tau) * u, x + tau * u)),
            Slip("The noise is right. For the picture the sign of (1 - tau) u is turned.", lambda x, u, tau: (x - (1 - tau) * u, x - tau * u)),
            Slip("The picture is right. u is not the noise: it is data minus noise.", lambda x, u, tau: (x + (1 - tau) * u, u), (lambda x, u, tau: (x + (1 - tau) * u, -u),)),
            Slip("The time is not in it: x lies on the way from the noise to the data, and tau says where.", lambda x, u, tau: (x + u, x - u), (lambda x, u, tau: (x + u, x), lambda x, u, tau: (x, x - u))),
            Slip("The noise is right. That is the picture divided by tau once too often.", lambda x, u, tau: ((x + (1 - tau) * u) / tau, x - tau * u)),
            Slip("The picture is right. That is the noise divided by 1 - tau once too often.", lambda x, u, tau: (x + (1 - tau) * u, (x - tau * u) / (1 - tau))),
            Slip("The noise is right. That is the picture multiplied by its share, tau.", lambda x, u, tau: (tau * (x + (1 - tau) * u), x - tau * u)),
            Slip("The picture is right. That is the noise multiplied by its share, 1 - tau.", lambda x, u, tau: (x + (1 - tau) * u, (1 - tau) * (x - tau * u))),
        ),
        _published_inputs,
        explain=_explain_published,
    ),
)  # fmt: skip
