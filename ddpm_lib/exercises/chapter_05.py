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


def _noisy_inputs(generator: torch.Generator) -> tuple:
    # larger than pictures are: an attempt that clips is seen to
    x0, eps = 4 * torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    logsnr = 6 * torch.rand((), generator=generator, dtype=torch.float64) - 3
    return x0, eps, logsnr.sigmoid().sqrt().item(), (-logsnr).sigmoid().sqrt().item()


def _all_ways(attempt: Callable, arguments: tuple) -> Calls:
    """Every name into every other and back."""
    x0, eps, a, s = arguments
    x_t, found = a * x0 + s * eps, {}
    for given in NAMES:
        p, q = PAIRS[given](a, s)
        for wanted in NAMES:
            way = f"From {given!r} to {wanted!r}"
            # a tensor whatever it was given as: the way back is asked as the way there
            there = shaped(attempt(x_t, p * x0 + q * eps, a, s, given, wanted), x_t, way).double()
            found[way] = there, attempt(x_t, there, a, s, wanted, given)
    return Calls(found)


def _explain_ways(arguments: tuple, got: Calls, wanted: Calls) -> str:
    wrong = [
        way
        for way in wanted
        if ((got[way][0] - wanted[way][0]).abs() / (1 + wanted[way][0].abs()) > 1e-5).any()
    ]
    if not wrong:
        return "There it is right, and on the way back it is off by a little: is precision lost on the way?"
    return f"{25 - len(wrong)} of the 25 conversions are right. {wrong[0]} it is not."


# --- targets.min_snr

WEIGHED = ("eps", "x0", "v")


def _min_snr(logsnr, gamma, name):
    snr = logsnr.exp()
    return snr.clamp(max=gamma) / {"eps": snr, "x0": torch.ones_like(snr), "v": snr + 1}[name]


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
            Slip("That is the larger of SNR and gamma. The smaller is wanted.", _maximum),
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
            Slip("The picture forgets the score: what is its D, and what is left of it where a is near 0?", (("noisy", "never", "never", "never", "never"), IN_NOISE)),
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
            Slip("The picture is right. That is the noise multiplied by its share, 1 - tau.", lambda x, u, tau: (x + (1 - tau) * u, (1 - tau) * (x - tau * u))),
        ),
        _published_inputs,
        explain=_explain_published,
    ),
)  # fmt: skip
