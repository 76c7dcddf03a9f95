"""What may be wrong in any exercise: rounding, the wrong order, a sign, a factor, a square.

Each function looks at the results of all trials at once. They are fitted, and of the answer's form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .compare import same
from .results import in_double

RELATIONS: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("The sign is turned.", torch.neg),
    ("It is 100 times what it should be: is it in per cent?", lambda x: 100 * x),
    ("It is a hundredth of what it should be: was it taken for per cent?", lambda x: x / 100),
    (
        "It is 1 / log 2 times what it should be: in bits, where nats are asked for?",
        lambda x: x / math.log(2),
    ),
    ("It is log 2 times what it should be: in nats, where bits are asked for?", lambda x: x * math.log(2)),
    ("It is the square of what it should be.", torch.square),
    ("It is the square root of what it should be.", torch.sqrt),
    ("The numbers are right. Rows and columns are exchanged.", lambda x: x.mT if x.ndim > 1 else x),
    ("The numbers are right. Their order is turned round.", lambda x: x.flip(0) if x.ndim else x),
)


def too_coarse(got: list, wanted: list) -> str:
    """Whether the results are near the right ones and in a precision of few digits; or ""."""
    mine, true = _numbers(got), _numbers(wanted)
    if not mine.numel() or mine.numel() != true.numel():
        return ""
    error, size = (mine - true).abs(), true.abs()
    # what is wrong may be no number
    if error.max() < 1e-9 or (mine == mine.round()).all():
        return ""
    # simple fractions fit into any precision
    if (64 * mine).frac().any() and (error <= 0.3 * (size + size.mean())).all():
        for kind, digits in ((torch.bfloat16, "two or three"), (torch.float16, "three or four")):
            if (mine.to(kind).double() == mine).all():
                name = str(kind).removeprefix("torch.")
                return f"It looks as if it was computed in {name}, which holds {digits} digits. That is too coarse: use float32 or float64."
    for decimals in range(1, 7):
        step = 10.0**-decimals
        cut_off = [true.round(decimals=decimals), (true / step).trunc() * step]
        # at least two digits, or any wrong number would do
        if any((mine - each).abs().max() < 1e-9 for each in cut_off) and step <= 0.1 * size.mean():
            plural = "" if decimals == 1 else "s"
            return f"It looks as if it was rounded to {decimals} decimal{plural}. That is too coarse: more digits are needed."
    return ""


def _numbers(values: object) -> Tensor:
    """All numbers that are no truths, in one row."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, tuple | list):
        return torch.cat([torch.zeros(0, dtype=torch.float64), *map(_numbers, values)])
    if isinstance(values, Tensor) and not (
        values.dtype == torch.bool or values.is_complex() or values.is_meta
    ):
        return values.double().flatten()
    return torch.zeros(0, dtype=torch.float64)


def relation(got: list, wanted: list, tolerance: float) -> str:
    """In which simple way the results come from the right ones, or ""."""
    if all(_exchanged(mine, true, tolerance) for mine, true in zip(got, wanted, strict=True)):
        return "Both values are right, and they are in the other order."
    names = _names(wanted[0])
    wrong = {}
    for place, name in enumerate(names):
        mine, true = [_parts(each)[place] for each in got], [_parts(each)[place] for each in wanted]
        if not _all_same(mine, true, tolerance):
            known = (words for words, change in RELATIONS if _is_changed(change, mine, true, tolerance))
            wrong[name] = next(known, "")
    words = set(wrong.values())
    if len(words) != 1 or not all(words) or 3 < len(wrong) < len(names):
        return ""
    where = "" if len(wrong) == len(names) else f"{', '.join(wrong)}: "
    return where + words.pop()


def factor(got: list, wanted: list, tolerance: float) -> str:
    """Whether all numbers are one and the same factor away from the right ones, or ""."""
    mine, true = _numbers(got), _numbers(wanted)
    if mine.numel() != true.numel() or mine.numel() < 2 or not true.square().sum():
        return ""
    times = (mine * true).sum() / true.square().sum()
    if not times or not same(mine, times * true, tolerance):
        return ""
    return f"It is {times.item():.6g} times what it should be, always."


def _exchanged(got: object, wanted: object, tolerance: float) -> bool:
    two = isinstance(wanted, tuple) and isinstance(got, tuple) and len(wanted) == len(got) == 2
    return two and same(got, wanted[::-1], tolerance)


def _parts(value: object) -> list:
    return list(value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value])


def _names(value: object) -> list[str]:
    """What the parts are called."""
    if isinstance(value, dict):
        return list(map(str, value))
    return [f"Value {place + 1}" for place in range(len(_parts(value)))]


def _all_same(got: list, wanted: list, tolerance: float) -> bool:
    return all(same(mine, true, tolerance) for mine, true in zip(got, wanted, strict=True))


def _is_changed(change: Callable, got: list, wanted: list, tolerance: float) -> bool:
    if not all(isinstance(true, Tensor) and true.dtype != torch.bool for true in wanted):
        return False
    changed = [change(in_double(true)) for true in wanted]
    return _all_same(got, changed, tolerance)
