"""The exercises of chapter 1, with their answers and the slips that people make."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import chain
from .compare import apart
from .engine import Exercise, Slip
from .results import Calls

TITLE = "From noise to a picture"
CHAIN = chain.linear(200, 0.0005, 0.1)


def _noising_inputs(generator: torch.Generator) -> tuple:
    t = torch.randint(1, CHAIN.steps + 1, (6,), generator=generator)
    t[-2:] = torch.tensor([1, CHAIN.steps])
    x0, eps = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    return x0, t, eps


def _shares(t: Tensor) -> tuple[Tensor, Tensor]:
    share = CHAIN.alpha_bar[t][:, None]
    return share, CHAIN.alpha[t][:, None]


def _noising(x0, t, eps):
    return CHAIN.add_noise(x0, t, eps)


def _without_axis(x0, t, eps):
    share = CHAIN.alpha_bar[t]
    return share.sqrt() * x0 + (1 - share).sqrt() * eps


def _weights_used(arguments: tuple, got: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of x0 and eps in each row of got, by least squares, and what they leave over."""
    x0, _, eps = (each.double() for each in arguments)
    basis = torch.stack([x0, eps], dim=-1)
    factors = torch.linalg.lstsq(basis, got[..., None]).solution
    left = (basis @ factors - got[..., None]).abs().amax((1, 2))
    return factors[..., 0], left


def _explain_noising(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    factors, left = _weights_used(arguments, got)
    if left.max() > 1e-4:
        return "It is no mixture of x0 and eps: each row must be a number times x0 plus a number times eps."
    (mine, right), t = (_weights_used(arguments, each)[0] for each in (got, wanted)), arguments[1]
    wrong = (mine - right).abs() > 1e-5 * (1 + right.abs())
    if not wrong.any():
        return ""
    row = int(wrong.any(1).double().argmax())
    x0, eps = (
        f"the factor of {name} "
        + (
            "is {}, should be {}".format(*apart(mine[row, i], right[row, i], 3))
            if wrong[row, i]
            else "is right"
        )
        for i, name in enumerate(("x0", "eps"))
    )
    return f"At t = {int(t[row])} {x0}, and {eps}."


def _step_inputs(generator: torch.Generator) -> tuple:
    return tuple(torch.randn(3, 5, 2, generator=generator, dtype=torch.float64))


def _all_steps(attempt: Callable, arguments: tuple) -> Calls:
    """Every step of the chain: a slip at a single one of them is seen too."""
    x, x0, z = arguments
    return Calls({f"At t = {t}": attempt(x, x0, t, z) for t in range(CHAIN.steps, 0, -1)})


def _step(x, x0, t, z):
    mean, variance = CHAIN.posterior(x, x0, t)
    return mean + variance.sqrt() * z


def _step_beta(x, x0, t, z):
    return CHAIN.posterior(x, x0, t)[0] + CHAIN.beta[t].sqrt() * z


def _step_beta_until_the_last(x, x0, t, z):
    """The chapter's own step."""
    return CHAIN.step(x, (x - CHAIN.alpha_bar[t].sqrt() * x0) / (1 - CHAIN.alpha_bar[t]).sqrt(), t, z)


def _step_eps(x, x0, t, z):
    """Takes the guess of the picture for a guess of the noise."""
    mean = (x - CHAIN.beta[t] / (1 - CHAIN.alpha_bar[t]).sqrt() * x0) / CHAIN.alpha[t].sqrt()
    return mean + CHAIN.posterior(x, x0, t)[1].sqrt() * z


def _step_slip(**wrong: Callable) -> Callable:
    """The narrow step with some of its parts replaced; each gets alpha, alpha_bar now and before, and beta."""
    parts = {
        "of_x0": lambda a, now, before, beta: before.sqrt() * beta / (1 - now),
        "of_x": lambda a, now, before, beta: a.sqrt() * (1 - before) / (1 - now),
        "of_z": lambda a, now, before, beta: ((1 - before) / (1 - now) * beta).sqrt(),
    } | wrong

    def attempt(x, x0, t, z):
        at_t = CHAIN.alpha[t], CHAIN.alpha_bar[t], CHAIN.alpha_bar[t - 1], CHAIN.beta[t]
        return parts["of_x0"](*at_t) * x0 + parts["of_x"](*at_t) * x + parts["of_z"](*at_t) * z

    return attempt


def _step_explain(arguments: tuple, got: Calls, wanted: Calls) -> str:
    names, basis = ("x", "x0", "z"), torch.stack([each.flatten() for each in arguments], dim=1)
    where = max(wanted, key=lambda each: float((got[each] - wanted[each]).abs().max()))
    mine, right = (
        torch.linalg.lstsq(basis, each[where].flatten()[:, None]).solution[:, 0] for each in (got, wanted)
    )
    if (basis @ mine - got[where].flatten()).abs().max() > 1e-4:
        return f"{where} it is no mixture of x, x0 and z: it must be a number times each, and their sum."
    wrong = [place for place in range(3) if abs(mine[place] - right[place]) > 1e-6]
    if wrong == [2]:
        is_now, should_be = apart(mine[2], right[2], 4)
        return f"The mean is right. {where} the noise is multiplied by {is_now}, should be {should_be}."
    factors = (
        f"{names[place]} has the factor {{}}, should have {{}}".format(*apart(mine[place], right[place], 4))
        for place in wrong
    )
    end = " The noise is right." if 2 not in wrong else ""
    return f"{where} the mean is not right: {'; '.join(factors)}.{end}"


def _explain_calls(arguments: tuple, got: tuple, wanted: tuple) -> str:
    right = [mine == true for mine, true in zip(got, wanted, strict=True)]
    if right == [True, False]:
        return "The calls are right, the images are not."
    if right == [False, True]:
        return "The images are right, the calls are not."
    return "Neither is right. How many steps are there, and how many images does each step look at?"


EXERCISES = (
    Exercise(
        "chain.noising",
        "Noise a whole batch",
        _noising,
        (
            Slip(
                "It looks as if alpha_bar and 1 - alpha_bar were used where their square roots are needed.",
                lambda x0, t, eps: _shares(t)[0] * x0 + (1 - _shares(t)[0]) * eps,
            ),
            Slip(
                "The picture's share is right. It looks as if 1 - alpha_bar was used where its square root is needed: "
                "a variance, and not a standard deviation.",
                lambda x0, t, eps: _shares(t)[0].sqrt() * x0 + (1 - _shares(t)[0]) * eps,
            ),
            Slip(
                "The picture's share is right. The noise has the factor 1 - sqrt(alpha_bar). But it is the squares of the two factors that add up to 1.",
                lambda x0, t, eps: _shares(t)[0].sqrt() * x0 + (1 - _shares(t)[0].sqrt()) * eps,
            ),
            Slip(
                "It looks like the misprint of this chapter: sqrt(alpha) x0 + sqrt(alpha_bar) eps.",
                lambda x0, t, eps: _shares(t)[1].sqrt() * x0 + _shares(t)[0].sqrt() * eps,
            ),
            Slip(
                "It looks as if alpha was used where alpha_bar is needed: that is one push, not t of them.",
                lambda x0, t, eps: _shares(t)[1].sqrt() * x0 + (1 - _shares(t)[1]).sqrt() * eps,
            ),
            Slip(
                "Each row has the share of the step before. Entry 0 of the table is the clean picture, so t needs no shift.",
                lambda x0, t, eps: _noising(x0, t - 1, eps),
            ),
            Slip(
                "Picture and noise have each other's shares.",
                lambda x0, t, eps: (1 - _shares(t)[0]).sqrt() * x0 + _shares(t)[0].sqrt() * eps,
            ),
            Slip(
                "It looks as if the whole batch got the step of its first example: each row has its own t.",
                lambda x0, t, eps: _noising(x0, t[:1].expand_as(t), eps),
            ),
            Slip(
                "alpha_bar[t] has the shape (B,), and x0 has (B, D). Give it a second axis: value[:, None].",
                _without_axis,
            ),
        ),
        _noising_inputs,
        explain=_explain_noising,
    ),
    Exercise(
        "chain.narrow_step",
        "The narrow step",
        _step,
        (
            Slip("The mean is right. The noise has variance beta_t: that is the wide step.", _step_beta),
            Slip(
                "That is the wide step of this chapter: its noise has variance beta_t, and there is none at t = 1. The narrow one is asked for.",
                _step_beta_until_the_last,
            ),
            Slip(
                "The mean is right. It looks as if the noise was multiplied by a variance, without the square root.",
                _step_slip(of_z=lambda a, now, before, beta: (1 - before) / (1 - now) * beta),
            ),
            Slip(
                "The mean is right. In the variance of the noise 1 - alpha_bar at t - 1 and at t have each other's place.",
                _step_slip(of_z=lambda a, now, before, beta: ((1 - now) / (1 - before) * beta).sqrt()),
            ),
            Slip(
                "It looks as if x0, a guess of the picture, was taken for a guess of the noise.",
                _step_eps,
                # the chapter's own step with it
                (lambda x, x0, t, z: CHAIN.step(x, x0, t, z),),
            ),
            Slip(
                "In the mean it looks as if alpha_bar was used where the alpha of one push is needed.",
                _step_slip(of_x=lambda a, now, before, beta: now.sqrt() * (1 - before) / (1 - now)),
            ),
            Slip(
                "In the mean x and x0 have each other's factors.",
                _step_slip(of_x0=lambda a, now, before, beta: a.sqrt() * (1 - before) / (1 - now), of_x=lambda a, now, before, beta: before.sqrt() * beta / (1 - now)),
            ),
            Slip(
                "The factor of x0 has alpha_bar at step t. It should have that of the step before.",
                _step_slip(of_x0=lambda a, now, before, beta: now.sqrt() * beta / (1 - now)),
            ),
            Slip(
                "The factor of x0 has alpha_bar in it where its square root is needed.",
                _step_slip(of_x0=lambda a, now, before, beta: before * beta / (1 - now)),
            ),
            Slip("The mean is right. There is no fresh noise in it.", lambda x, x0, t, z: CHAIN.posterior(x, x0, t)[0]),
        ),
        _step_inputs,
        _all_steps,
        explain=_step_explain,
        trials=1,
    ),
    Exercise(
        "chain.last_step",
        "Noise at the last step",
        float(CHAIN.beta[1]),
        (
            Slip("That is the standard deviation. The variance is its square.", float(CHAIN.beta[1].sqrt()), (0.022, 0.0224, 0.02236)),
            Slip("That is the standard deviation in grey levels. The variance is asked for, in the units of the picture.", float(CHAIN.beta[1].sqrt()) / (2 / 255), (3, 2.87, 2.9, 2.85)),
            Slip("z has variance 1, and the loop multiplies it by something before it adds it.", 1.0),
            Slip("Multiplied by a number, noise has the square of that number as the factor of its variance. Here the number is sqrt(beta_t).", float(CHAIN.beta[1] ** 2)),
            Slip("That is beta at t = 2. The step from t = 1 to t = 0 is the last.", float(CHAIN.beta[2])),
            Slip("The earlier steps add noise in both cases. Only what the last step adds is asked for.", float(CHAIN.beta.sum())),
            Slip("That is beta at the noisy end. The last step of drawing is t = 1.", float(CHAIN.beta[-1])),
            Slip("Entry 0 belongs to the clean picture. The last step goes from t = 1 to t = 0.", float(CHAIN.beta[0])),
        ),
        # the number is small itself
        tolerance=1e-7,
        explain=lambda arguments, got, wanted: "A variance is never negative." if got < 0 else "",
    ),
    Exercise(
        "sampling.calls",
        "Count the network calls",
        (200, 12_800),
        (
            Slip("The images are right. A batch of 64 needs one call, not 64.", (12_800, 12_800)),
            Slip("The calls are right. But every call looks at the whole batch.", (200, 64)),
            Slip("The calls are right. But every call looks at 64 images, not at one.", (200, 200)),
            Slip("t = 0 is the finished picture: nothing is guessed there. Count from t = 200 down to t = 1.", (201, 12_864)),
            Slip("Both ends count: from t = 200 down to t = 1, and at t = 1 something is guessed too.", (199, 12_736)),
            Slip("The two are exchanged: first the calls, then the images.", (12_800, 200)),
            Slip("The images are right. `guess` is called once for each step, and the batch has nothing to do with it.", (64, 12_800)),
        ),
        explain=_explain_calls,
    ),
)  # fmt: skip
