"""The exercises of chapter 2, with their answers and the slips that people make."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import chain
from .compare import apart
from .engine import Exercise, Slip

TITLE = "Destroying data on purpose: schedules"


def _whole(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


# --- several steps at once


def _jump_inputs(generator: torch.Generator) -> tuple:
    beta = 0.02 + 0.2 * torch.rand(40, generator=generator, dtype=torch.float64)
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])
    x, eps = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    return x, _whole(2, 20, generator), _whole(2, 20, generator), eps, alpha_bar


def _mixed(x: Tensor, share: Tensor, eps: Tensor) -> Tensor:
    return share.sqrt() * x + (1 - share).sqrt() * eps


def _jump(x, t, k, eps, alpha_bar):
    return _mixed(x, alpha_bar[t + k] / alpha_bar[t], eps)


def _jump_without_roots(x, t, k, eps, alpha_bar):
    share = alpha_bar[t + k] / alpha_bar[t]
    return share * x + (1 - share) * eps


def _jump_variance(x, t, k, eps, alpha_bar):
    share = alpha_bar[t + k] / alpha_bar[t]
    return share.sqrt() * x + (1 - share) * eps


def _jump_difference(x, t, k, eps, alpha_bar):
    return (alpha_bar[t + k] / alpha_bar[t]).sqrt() * x + (alpha_bar[t] - alpha_bar[t + k]).sqrt() * eps


def _jump_in_steps(x, t, k, eps, alpha_bar):
    """k pushes in a row, all with the same noise."""
    for step in range(t + 1, t + k + 1):
        x = _mixed(x, alpha_bar[step] / alpha_bar[step - 1], eps)
    return x


def _jump_explain(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    x, t, k, eps, _ = arguments
    basis = torch.stack([x.flatten(), eps.flatten()], dim=1)
    mine, right = (
        torch.linalg.lstsq(basis, each.flatten()[:, None]).solution[:, 0] for each in (got, wanted)
    )
    if (basis @ mine - got.flatten()).abs().max() > 1e-4:
        return "It is no mixture of x and eps: it must be a number times x plus a number times eps."
    wrong = (mine - right).abs() > 1e-6 * (1 + right.abs())
    if not wrong.any():
        return ""
    of_x, of_eps = (
        f"the factor of {name} " + ("is {}, should be {}".format(*apart(a, b, 4)) if differs else "is right")
        for name, a, b, differs in zip(("x", "eps"), mine, right, wrong, strict=True)
    )
    return f"From step {t} to step {t + k} {of_x}, and {of_eps}."


# --- the cosine schedule


def _cosine(T):
    return chain.cosine(T).beta


def _cosine_fall(
    T: int, power: int = 2, offset: float = 0.008, stretch: bool = True, turn: float = 0.5, last: float = 1.0
) -> Tensor:
    t = torch.arange(T + 1, dtype=torch.float64) / T * last
    angle = (t + offset) / (1 + offset if stretch else 1)
    f = torch.cos(angle * math.pi * turn) ** power
    return f / f[0]


def _pushes(alpha_bar: Tensor, largest: float = 0.999) -> Tensor:
    beta = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=largest)
    return torch.cat([beta.new_zeros(1), beta])


def _cosine_explain(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    if abs(got[0]) > 1e-9:
        return f"Entry 0 belongs to the clean picture: beta_0 must be 0, and is {float(got[0]):.4g}."
    wrong = ((got - wanted).abs() > 2e-5).nonzero()[:, 0].tolist()
    t = wrong[0]
    is_now, should_be = apart(got[t], wanted[t])
    return (
        f"With T = {arguments[0]}, {len(wrong)} of {len(got)} betas differ. "
        f"The first is beta_{t}: it is {is_now}, should be {should_be}."
    )


# --- nothing left at T


def _rescale_inputs(generator: torch.Generator) -> tuple:
    return (chain.linear(_whole(50, 300, generator)).alpha_bar,)


def _rescale(alpha_bar):
    signal = alpha_bar.sqrt()
    first, last = signal[1].clone(), signal[-1].clone()
    return torch.cat([signal[:1], (signal[1:] - last) * first / (first - last)]).square()


def _rescale_shares(alpha_bar):
    first, last = alpha_bar[1], alpha_bar[-1]
    return torch.cat([alpha_bar[:1], (alpha_bar[1:] - last) * first / (first - last)])


def _rescale_shift_only(alpha_bar):
    signal = alpha_bar.sqrt()
    return torch.cat([signal[:1], signal[1:] - signal[-1]]).square()


def _rescale_all(alpha_bar):
    signal = alpha_bar.sqrt()
    return ((signal - signal[-1]) * signal[1] / (signal[1] - signal[-1])).square()


def _rescale_from_clean(alpha_bar):
    signal = alpha_bar.sqrt()
    return ((signal - signal[-1]) / (1 - signal[-1])).square()


def _rescale_last_only(alpha_bar):
    return torch.cat([alpha_bar[:-1], alpha_bar.new_zeros(1)])


def _rescale_explain(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    for t, name in ((0, "clean picture"), (1, "first step"), (-1, "last step")):
        if abs(got[t] - wanted[t]) > 1e-6:
            is_now, should_be = apart(got[t], wanted[t])
            return f"The {name} should have alpha_bar {should_be}, and has {is_now}."
    return "The clean picture, the first and the last step are right. Those between are not."


# --- a schedule that squares twice


def _table_inputs(generator: torch.Generator) -> tuple:
    return _whole(100, 1000, generator), _between(5e-4, 1e-3, generator), _between(0.01, 0.02, generator)


def _roots(T: int, first: float, last: float) -> Tensor:
    return torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64)


def _falling(beta: Tensor) -> Tensor:
    return torch.cat([beta.new_ones(1), (1 - beta).cumprod(0)])


def _table(T, first, last):
    return _falling(_roots(T, first, last) ** 2)


def _table_explain(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    if abs(got[0] - 1) > 1e-9:
        return f"alpha_bar[0] belongs to the clean picture: it must be 1, and is {float(got[0]):.4g}."
    beta, right = (1 - each[1:] / each[:-1] for each in (got, wanted))
    ends = [abs(beta[end] / right[end] - 1) < 1e-4 for end in (0, -1)]
    if all(ends):
        return "The first push and the last are right. Those between are not."
    first, last = (
        "is right"
        if ends[end]
        else "has variance {}, should have {}".format(*apart(beta[end], right[end], 3))
        for end in (0, -1)
    )
    return f"The first push {first}; the last {last}."


def _equal_factors(T, first, last):
    return _falling(torch.logspace(math.log10(first), math.log10(last), T, dtype=torch.float64))


# --- how many steps


def _steps_inputs(generator: torch.Generator) -> tuple:
    return _between(1e-4, 1e-2, generator), _between(0.02, 0.05, generator)


def _left(T: int, first: float, last: float) -> float:
    return float(torch.linspace(first, last, T, dtype=torch.float64).neg().log1p().sum().div(2).exp())


def _steps(first, last):
    T = 1
    while _left(T, first, last) >= 0.01:
        T += 1
    return T


def _steps_variance(first, last):
    T = 1
    while _left(T, first, last) ** 2 >= 0.01:
        T += 1
    return T


def _steps_explain(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    T = float(got)
    if T != round(T):
        return f"T is a whole number, and this is {T:.6g}."
    if not 1 <= T <= 100_000:
        return ""
    percent, _ = apart(100 * _left(int(T), *arguments), 1, 3)
    # the largest T that is too small leaves 1 % and a trace
    if T < wanted:
        return f"T = {T:.0f} leaves {percent} % of the amplitude. Less than 1 % is asked for."
    return f"T = {T:.0f} leaves {percent} % of the amplitude: a smaller T does with less than 1 %, too."


EXERCISES = (
    Exercise(
        "schedule.jump",
        "Several steps at once",
        _jump,
        (
            Slip(
                "It looks as if x were the clean picture. It is noisy already: t pushes are behind it.",
                lambda x, t, k, eps, alpha_bar: _mixed(x, alpha_bar[t + k], eps),
            ),
            Slip(
                "It looks as if the pushes 1 to k were used. From step t on, other pushes come.",
                lambda x, t, k, eps, alpha_bar: _mixed(x, alpha_bar[k], eps),
            ),
            Slip(
                "That is one push too many: the push that led to step t has been made.",
                lambda x, t, k, eps, alpha_bar: _mixed(x, alpha_bar[t + k] / alpha_bar[t - 1], eps),
            ),
            Slip(
                "Both factors look like shares of the variance. It is their square roots that multiply x and eps.",
                _jump_without_roots,
            ),
            Slip(
                "The factor of x is right. That of eps looks like a variance, without the square root.",
                _jump_variance,
            ),
            Slip(
                "The factor of x is right. The noise looks like the difference of two variances. "
                "But the noise that was there shrinks too.",
                _jump_difference,
            ),
            Slip(
                "The factor of x is right. The noise is that of the whole way from the clean picture. Part of it is in x already.",
                lambda x, t, k, eps, alpha_bar: _jump(x, t, k, 0 * eps, alpha_bar) + (1 - alpha_bar[t + k]).sqrt() * eps,
            ),
            Slip(
                "The factor of x is right. That of eps is 1 minus it. But it is the squares of the two factors that add up to 1.",
                lambda x, t, k, eps, alpha_bar: _jump(x, t, k, 0 * eps, alpha_bar) + (1 - (alpha_bar[t + k] / alpha_bar[t]).sqrt()) * eps,
            ),
            Slip(
                "The factor of x is right. That of eps is the sum of the noise scales of k pushes. Independent noises add their variances, and the sum is one noise.",
                _jump_in_steps,
            ),
            Slip(
                "It looks as if the entries of alpha_bar were multiplied. They are products already, of all alphas so far.",
                lambda x, t, k, eps, alpha_bar: _mixed(x, alpha_bar[t + 1 : t + k + 1].prod(), eps),
            ),
            Slip(
                "It looks as if one push was taken k times. The pushes from t + 1 to t + k have alphas of their own.",
                lambda x, t, k, eps, alpha_bar: _mixed(x, (alpha_bar[t + 1] / alpha_bar[t]) ** k, eps),
                (lambda x, t, k, eps, alpha_bar: _mixed(x, (alpha_bar[t] / alpha_bar[t - 1]) ** k, eps),),
            ),
            Slip(
                "The ratio is upside down: a picture fades from step t to step t + k, so its factor is below 1.",
                lambda x, t, k, eps, alpha_bar: _mixed(x, alpha_bar[t] / alpha_bar[t + k], eps),
            ),
            Slip(
                "That is the last of the k pushes alone.",
                lambda x, t, k, eps, alpha_bar: _mixed(x, alpha_bar[t + k] / alpha_bar[t + k - 1], eps),
            ),
        ),
        _jump_inputs,
        apart=lambda arguments: arguments[2],
        tolerance=1e-6,
        explain=_jump_explain,
    ),
    Exercise(
        "schedule.cosine",
        "The cosine schedule",
        _cosine,
        (
            Slip("The last beta is not clipped at 0.999.", lambda T: _pushes(_cosine_fall(T), largest=1.0)),
            Slip("It looks as if the cosine were not squared.", lambda T: _pushes(_cosine_fall(T, power=1))),
            Slip("It looks as if the offset s were missing.", lambda T: _pushes(_cosine_fall(T, offset=0.0))),
            Slip(
                "It looks as if the angle were not divided by 1 + s: it goes beyond a right angle.",
                lambda T: _pushes(_cosine_fall(T, stretch=False)),
            ),
            Slip("That is alpha_bar. The betas are asked for.", _cosine_fall),
            Slip(
                "That is 1 - alpha_bar, the variance of all the noise at step t. The variance of one push is asked for.",
                lambda T: (1 - _cosine_fall(T)).clamp(max=0.999),
            ),
            Slip("The table needs T + 1 entries, with 0 for the clean picture.", lambda T: _cosine(T)[1:]),
            Slip("There are T entries. T pushes lie between T + 1 values of the curve, at the times 0 to T.", lambda T: _pushes(_cosine_fall(T - 1))),
            Slip("Those are the alphas. The betas are asked for.", lambda T: 1 - _cosine(T)),
            Slip("It looks as if the angle goes to a whole pi. It should end at a right angle, pi / 2.", lambda T: _pushes(_cosine_fall(T, turn=1.0))),
            Slip("It looks as if the time was divided by T + 1. It goes from 0 to 1 in T steps.", lambda T: _cosine(T + 1)[:-1], (lambda T: _pushes(_cosine_fall(T, last=T / (T + 1))),)),
        ),
        lambda generator: (_whole(20, 100, generator),),
        apart=lambda arguments: arguments[0],
        tolerance=2e-5,
        explain=_cosine_explain,
    ),
    Exercise(
        "schedule.zero_terminal",
        "Nothing left at T",
        _rescale,
        (
            Slip("It looks as if alpha_bar were shifted and stretched. The signal scale, its root, is to be.", _rescale_shares),
            Slip(
                "The last entry is 0. But after the shift the first step has moved, and nothing puts it back. "
                "(If you write into the tensor: its entries, kept under another name, change with it.)",
                _rescale_shift_only,
            ),
            Slip("Entry 0 was rescaled too. It is the clean picture and no step: it stays 1.", _rescale_all),
            Slip("It looks as if entry 0 were held fixed instead of step 1: the first step has moved.", _rescale_from_clean),
            Slip("Only the last entry changed. That makes one huge step of it, and leaves the others.", _rescale_last_only),
            Slip("That is the signal scale. Its square, alpha_bar, is asked for.", lambda alpha_bar: _rescale(alpha_bar).sqrt()),
            Slip("The table needs T + 1 entries, with 1 for the clean picture.", lambda alpha_bar: _rescale(alpha_bar)[1:]),
            Slip("The table is as it was.", lambda alpha_bar: alpha_bar.clone()),
            Slip("Those are betas. alpha_bar is asked for.", lambda alpha_bar: _pushes(_rescale(alpha_bar), 1.0), (lambda alpha_bar: _pushes(_rescale(alpha_bar)),)),
            Slip("The formula is right from step 1 on. Entry 0, the clean picture, should be 1, and is 0.", lambda alpha_bar: torch.cat([alpha_bar.new_zeros(1), _rescale(alpha_bar)[1:]])),
        ),
        _rescale_inputs,
        tolerance=1e-6,
        explain=_rescale_explain,
    ),
    Exercise(
        "schedule.hardly_spoils",
        "A schedule that hardly spoils",
        _table,
        (
            Slip("That is the table as it was: each push is far too small.", lambda T, first, last: _falling(_roots(T, first, last) ** 4)),
            Slip("Now nothing is squared: it looks as if the roots were used as betas.", lambda T, first, last: _falling(_roots(T, first, last))),
            Slip("It looks as if the betas grow by equal factors. Their square roots should grow by equal steps.", _equal_factors),
            Slip(
                "It looks as if the betas lie at equal steps. Their square roots should.",
                lambda T, first, last: _falling(torch.linspace(first, last, T, dtype=torch.float64)),
            ),
            Slip("That is the signal scale. Its square, alpha_bar, is asked for.", lambda T, first, last: _table(T, first, last).sqrt()),
            Slip(
                "Those are the betas. alpha_bar is asked for.",
                lambda T, first, last: torch.cat([torch.zeros(1, dtype=torch.float64), _roots(T, first, last) ** 2]),
            ),
            Slip("The table needs T + 1 entries, with 1 for the clean picture.", lambda T, first, last: _table(T, first, last)[1:]),
            Slip("It looks as if the betas lie at equal steps and were squared after that. Their square roots should lie at equal steps.", lambda T, first, last: _falling(torch.linspace(first, last, T, dtype=torch.float64) ** 2)),
            Slip("The betas run from `last` to `first`.", lambda T, first, last: _falling(_roots(T, last, first) ** 2)),
            Slip("It looks as if the betas were summed. What is left after several pushes is a product of alphas.", lambda T, first, last: torch.cat([torch.ones(1, dtype=torch.float64), 1 - (_roots(T, first, last) ** 2).cumsum(0)])),
            Slip("It looks as if the betas were multiplied. alpha_bar is the product of the alphas, which are 1 - beta.", lambda T, first, last: torch.cat([torch.ones(1, dtype=torch.float64), (_roots(T, first, last) ** 2).cumprod(0)])),
            Slip("There are T + 1 betas in it. Between T + 1 entries lie T pushes, and entry 0 is 1.", lambda T, first, last: (1 - _roots(T + 1, first, last) ** 2).cumprod(0)),
        ),
        _table_inputs,
        tolerance=1e-5,
        explain=_table_explain,
    ),
    Exercise(
        "schedule.steps_needed",
        "How many steps?",
        _steps,
        (
            Slip("That T leaves under 1 % of the variance. The amplitude is its square root.", _steps_variance),
            Slip(
                "That is what the rule of thumb gives. It is a little too large; the product itself decides.",
                lambda first, last: math.ceil(4 * math.log(100) / (first + last)),
            ),
            Slip("That is the largest T that still leaves 1 % or more.", lambda first, last: _steps(first, last) - 1),
            Slip("That is one step too many: a smaller T does with less than 1 %, too.", lambda first, last: _steps(first, last) + 1),
            Slip(
                "It looks as if the betas had to sum to log 100. The amplitude is the square root of a product, so its logarithm has a half in front of the sum.",
                lambda first, last: math.ceil(2 * math.log(100) / (first + last)),
                tuple(lambda first, last, off=off: math.ceil(2 * math.log(100) / (first + last)) + off for off in (-1, 1)),
            ),
            Slip(
                "That looks like a step of the chain with T = 1000. A chain of another T has other betas: first to last in T steps.",
                lambda first, last: int((chain.linear(1000, first, last).alpha_bar.sqrt() < 0.01).nonzero()[0]),
            ),
        ),
        _steps_inputs,
        tolerance=1e-6,
        explain=_steps_explain,
    ),
)  # fmt: skip
