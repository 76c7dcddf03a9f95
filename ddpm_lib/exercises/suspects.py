"""What may be wrong in any exercise: rounding, the wrong order or form, a sign, a factor, a square, a step too far.

Each function looks at the results of all trials at once. They are fitted to the answer (see `results`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from .compare import Tolerance, comparable, of_parts, same
from .results import Findings, in_double

RELATIONS: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("The sign is turned.", torch.neg),
    ("It is 100 times what it should be: is it in per cent?", lambda x: 100 * x),
    ("It is a hundredth of what it should be: was it taken for per cent?", lambda x: x / 100),
    ("It is 1 / log 2 times what it should be: in bits, where nats are asked for?", lambda x: x / math.log(2)),
    ("It is log 2 times what it should be: in nats, where bits are asked for?", lambda x: x * math.log(2)),
    ("It is the square of what it should be.", torch.square),
    ("It is the square root of what it should be.", torch.sqrt),
    ("It is 1 minus what it should be.", lambda x: 1 - x),
    ("It is 1 divided by what it should be.", torch.reciprocal),
    ("It is the logarithm of what it should be.", torch.log),
    ("It is the exponential of what it should be: is a logarithm missing?", torch.exp),
    ("The numbers are right. Rows and columns are exchanged.", lambda x: x.mT if x.ndim > 1 else x),
    ("The numbers are right. Their order is turned round.", lambda x: x.flip(0) if x.ndim else x),
    ("The numbers are right. Along the last axis their order is turned round.", lambda x: x.flip(-1) if x.ndim > 1 else x),
)  # fmt: skip


# --- too few digits


class Coarse(NamedTuple):
    """In what too few digits the results look as if they were, and how far off that may make them."""

    words: str
    digits: str
    tolerance: float


KINDS = (
    (torch.bfloat16, "two or three", 3e-2),
    (torch.float16, "three or four", 4e-3),
)


def coarse(got: list, decimals: range = range(2, 5)) -> Iterator[Coarse]:
    """The precisions of few digits that all numbers of the results have."""
    mine = _numbers(got)
    # simple fractions fit into any precision
    if not mine.numel() or not mine.isfinite().all() or not (64 * mine).frac().any():
        return
    for kind, digits, off in KINDS:
        if (mine.to(kind).double() == mine).all():
            yield Coarse(
                f"computed in {str(kind).removeprefix('torch.')}", f"which holds {digits} digits", off
            )
    for places in decimals:
        if (mine - mine.round(decimals=places)).abs().max() < 1e-9:
            step = 10.0**-places
            if step <= 0.1 * mine.abs().mean():
                yield Coarse(f"rounded to {places} decimals", "", 0.51 * step / float(mine.abs().mean()))


def too_coarse(got: list, wanted: list) -> str:
    """Whether the results are near the right ones and in a precision of few digits; or ""."""
    mine, true = _numbers(got), _numbers(wanted)
    if not mine.numel() or mine.numel() != true.numel():
        return ""
    error, size = (mine - true).abs(), true.abs()
    # what is wrong may be no number; and what is whole is not rounded
    if error.max() < 1e-9 or (true == true.round()).all():
        return ""
    if (error <= 0.3 * (size + size.mean())).all():
        found = next(coarse(got, range(0)), None)
        if found:
            return f"It looks as if it was {found.words}, {found.digits}. That is too coarse: use float32 or float64."
    for decimals in range(7):
        step = 10.0**-decimals
        on_steps = ((mine / step).round() * step - mine).abs().max() < 1e-9
        # at least two digits, or any wrong number would do
        if on_steps and (error < 0.999 * step).all() and step <= 0.1 * size.mean():
            to = f"{decimals} decimal{'' if decimals == 1 else 's'}" if decimals else "whole numbers"
            return f"It looks as if it was rounded to {to}. That is too coarse: more digits are needed."
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


def size_of(got: list) -> float:
    """The mean size of all numbers."""
    mine = _numbers(got)
    return float(mine.abs().mean()) if mine.numel() else 0.0


def distance(got: list, other: list) -> float:
    """The largest |difference| of all numbers, in units of their own size or of the mean size of all; infinite if they
    cannot be compared."""
    if not all(map(comparable, got, other)):
        return math.inf
    mine, theirs = _numbers(got), _numbers(other)
    if not mine.numel():
        return math.inf
    unit = theirs.abs() + theirs.abs().mean()
    return float(((mine - theirs).abs() / unit.clamp(min=1e-30)).max())


# --- the right numbers in the wrong place


def arrangement(got: list, wanted: list, tolerance: Tolerance) -> str:
    """Whether the right values are there in another arrangement, also where their form differs; or ""."""
    if isinstance(wanted[0], Findings):
        return ""
    text = _exchanged(got, wanted, tolerance)
    if text or (all(map(comparable, got, wanted)) and not isinstance(wanted[0], dict | tuple)):
        return text
    return _of_all_parts(got, wanted, tolerance, _placed)


def _exchanged(got: list, wanted: list, tolerance: Tolerance) -> str:
    first = wanted[0]
    if type(first) is not tuple or not 2 <= len(first) <= 4:
        return ""
    if not all(isinstance(each, tuple) and len(each) == len(first) for each in got):
        return ""
    for order in permutations(range(len(first))):
        turned = [tuple(true[place] for place in order) for true in wanted]
        if order != tuple(range(len(first))) and all(
            same(mine, true, tolerance) for mine, true in zip(got, turned, strict=True)
        ):
            return (
                "Both values are right, and they are in the other order."
                if len(first) == 2
                else "The values are right, and they are in another order."
            )
    return ""


def _placed(got: list, wanted: list, tolerance: float) -> str:
    """The same for one part of the results."""
    if not all(isinstance(true, Tensor) and true.ndim for true in wanted):
        return ""
    for words, there in (
        ("Only the {} of the values that it gives is asked for.", _one_of_several),
        ("The numbers are right. Their axes are in another order.", _other_axes),
        ("The numbers are right, and in another shape: {} where {} is asked for.", _other_shape),
    ):
        found = [there(mine, true, tolerance) for mine, true in zip(got, wanted, strict=True)]
        if all(each is not None for each in found):
            text = words.format(*found[0])
            return (
                text.replace("Their axes are in another order", "Rows and columns are exchanged")
                if wanted[0].ndim == 2
                else text
            )
    return ""


def _one_of_several(got: object, wanted: Tensor, tolerance: float) -> tuple | None:
    if isinstance(got, Tensor):
        return None
    for place, each in enumerate(got if isinstance(got, tuple) else ()):
        if isinstance(each, Tensor) and same(each, wanted, tolerance):
            return (("first", "second", "third")[place] if place < 3 else f"{place + 1}th",)
    return None


def _other_axes(got: object, wanted: Tensor, tolerance: float) -> tuple | None:
    if not isinstance(got, Tensor) or got.is_meta or not 1 < wanted.ndim <= 4 or got.ndim != wanted.ndim:
        return None
    if sorted(got.shape) != sorted(wanted.shape) or got.shape == wanted.shape:
        return None
    for order in permutations(range(wanted.ndim)):
        if same(got, wanted.permute(order), tolerance):
            return ()
    return None


def _other_shape(got: object, wanted: Tensor, tolerance: float) -> tuple | None:
    if (
        not isinstance(got, Tensor)
        or got.is_meta
        or got.shape == wanted.shape
        or got.numel() != wanted.numel()
    ):
        return None
    there = same(got.reshape(wanted.shape), wanted, tolerance)
    return (tuple(got.shape), tuple(wanted.shape)) if there else None


# --- in which simple way a result comes from the right one


def relation(got: list, wanted: list, tolerance: Tolerance) -> str:
    """In which simple way the results come from the right ones, or ""."""
    return "" if isinstance(wanted[0], Findings) else _of_all_parts(got, wanted, tolerance, _related)


def regularity(got: list, wanted: list, tolerance: Tolerance) -> str:
    """Whether the results are off by one and the same factor or number, whatever it is; or ""."""
    return "" if isinstance(wanted[0], Findings) else _of_all_parts(got, wanted, tolerance, _regular)


def _related(got: list, wanted: list, tolerance: float) -> str:
    for words, change in RELATIONS:
        if _is_changed(change, got, wanted, tolerance):
            return words
    if not _have_numbers(wanted):
        return ""
    # what is nearly right is better told in the exercise's own words
    return (
        _factor(got, wanted, tolerance, nearest=0.05)
        or _shift(got, wanted, tolerance, only_by_one=True)
        or _moved(got, wanted, tolerance)
    )


def _regular(got: list, wanted: list, tolerance: float) -> str:
    return _factor(got, wanted, tolerance) or _shift(got, wanted, tolerance) if _have_numbers(wanted) else ""


def _have_numbers(values: list) -> bool:
    return all(isinstance(each, Tensor) and each.dtype != torch.bool for each in values)


def _of_all_parts(got: list, wanted: list, tolerance: Tolerance, look: Callable) -> str:
    """What `look` says of the wrong parts of the results, if it says the same of each."""
    mine = [_parts(*pair) for pair in zip(got, wanted, strict=True)]
    true = [_parts(each, each) for each in wanted]
    # what the parts are called may be different in each trial, how many there are not
    names = [name for name, _ in true[0]]
    if any(len(each) != len(names) for each in [*mine, *true]):
        return ""
    wrong = {}
    for place, (name, allowed) in enumerate(zip(names, of_parts(tolerance, len(names)), strict=True)):
        pair = [each[place][1] for each in mine], [each[place][1] for each in true]
        if _all_same(*pair, allowed):
            continue
        text = look(*pair, allowed)
        if not text or text != next(iter(wrong.values()), text):
            return ""
        wrong[name] = text
    count = len(set(names))
    if not wrong or 3 < len(wrong) < count:
        return ""
    where = "" if len(wrong) == count else f"{', '.join(wrong)}: "
    return where + next(iter(wrong.values()))


def _parts(value: object, like: object) -> list[tuple[str, object]]:
    """(name, value) of the parts that the answer has; of a call that returns several values, each under its name."""
    if isinstance(like, dict):
        found = []
        for key, true in like.items():
            each = value.get(key) if isinstance(value, dict) else None
            several = isinstance(true, tuple) and isinstance(each, tuple) and len(each) == len(true)
            found += [(str(key), part) for part in (each if several else (each,))]
        return found
    if isinstance(like, tuple):
        inside = value if isinstance(value, tuple) else ()
        return [(f"Value {place + 1}", each) for place, each in enumerate(inside)]
    return [("", value)]


def _all_same(got: list, wanted: list, tolerance: float) -> bool:
    return all(same(mine, true, tolerance) for mine, true in zip(got, wanted, strict=True))


def _is_changed(change: Callable, got: list, wanted: list, tolerance: float) -> bool:
    if not _have_numbers(wanted):
        return False
    changed = [change(in_double(true)) for true in wanted]
    return all(each.isfinite().all() for each in changed) and _all_same(got, changed, tolerance)


def _factor(got: list, wanted: list, tolerance: float, nearest: float = 0.0) -> str:
    """Whether all numbers are one and the same factor away from the right ones, not nearer to 1 than this; or ""."""
    mine, true = _numbers(got), _numbers(wanted)
    # two numbers may have any ratio by chance, and 0 has none
    if mine.numel() < 3 or int((true != 0).sum()) < 2:
        return ""
    times = float((mine * true).sum() / true.square().sum())
    if abs(times) < 1e-12 or abs(times - 1) < nearest or not same(mine, times * true, tolerance):
        return ""
    part = 1 / times
    if abs(part) > 1 and abs(part - round(part)) < 1e-5 * abs(part):
        return f"It is 1/{round(part)} of what it should be, always."
    return f"It is {times:.6g} times what it should be, always."


def _shift(got: list, wanted: list, tolerance: float, only_by_one: bool = False) -> str:
    """Whether all numbers are too large by one and the same; or ""."""
    mine, true = _numbers(got), _numbers(wanted)
    if mine.numel() < 3 or float(true.std()) < 10 * tolerance:
        return ""
    more = float((mine - true).mean())
    whole = abs(more - round(more)) < 1e-5
    if abs(more) < 10 * tolerance or (only_by_one and not (whole and abs(round(more)) == 1)):
        return ""
    if not same(mine, true + more, tolerance):
        return ""
    return f"It is {abs(round(more)) if whole else f'{abs(more):.6g}'} too {'large' if more > 0 else 'small'}, always."


def _moved(got: list, wanted: list, tolerance: float) -> str:
    """Whether every number stands one place too far on; or ""."""
    if not all(true.ndim == 1 and len(true) >= 4 for true in wanted):
        return ""
    for mine_at, true_at in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        if all(same(a[mine_at], b[true_at], tolerance) for a, b in zip(got, wanted, strict=True)):
            return "The numbers are right, and each is one place too far: is an index off by one?"
    return ""
