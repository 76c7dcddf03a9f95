"""In what a result differs from the answer, in words. Both are plain, and fitted to the answer (see `results`)."""

from __future__ import annotations

import reprlib
from types import EllipsisType

import numpy as np
import torch
from torch import Tensor

from .results import Calls, Other, Unfit, fitted

Tolerance = float | tuple[float, ...]
"""Largest |difference| / (1 + |answer|); in a tuple, one for each value of an answer that has several."""
NO_RETURN = "It returns None: is there a `return` missing?"


def comparable(got: object, wanted: object) -> bool:
    """Whether two fitted values are the same kind of thing, with finite numbers in it."""
    if isinstance(wanted, dict):
        alike = isinstance(got, dict) and got.keys() == wanted.keys()
        return alike and all(comparable(got[key], wanted[key]) for key in wanted)
    if isinstance(wanted, tuple):
        alike = isinstance(got, tuple) and len(got) == len(wanted)
        return alike and all(map(comparable, got, wanted))
    if not isinstance(wanted, Tensor):
        return True
    alike = isinstance(got, Tensor) and got.shape == wanted.shape and _sort(got) == _sort(wanted)
    return alike and not got.is_meta and bool(got.isfinite().all())


def number(value: object, where: str = "") -> float:
    """The number that an attempt returned, for the marker to go on with. Raises Unfit if it is none."""
    return shaped(value, torch.zeros((), dtype=torch.float64), where).item()


def shaped(value: object, like: Tensor, where: str = "", finite: bool = False) -> Tensor:
    """The real numbers that an attempt returned, in the shape of `like`, as a tensor. Raises Unfit if they are none."""
    tensor = fitted(value, like)
    text = NO_RETURN if value is None else _of_other_form(tensor, like) or (finite and _of_no_numbers(tensor))
    if text:
        raise Unfit(f"{where}: {text}" if where else text)
    return tensor


def of_parts(tolerance: Tolerance, count: int) -> tuple[float, ...]:
    """The tolerance of each of so many parts."""
    if not isinstance(tolerance, tuple):
        return (tolerance,) * count
    return tolerance if len(tolerance) == count else (min(tolerance),) * count


def same(a: object, b: object, tolerance: Tolerance) -> bool:
    """Whether two fitted values are equal up to a tolerance; NaN is equal to NaN."""
    return not difference(a, b, tolerance, equal_nan=True)


def difference(
    got: object, wanted: object, tolerance: Tolerance, equal_nan: bool = False, reveal: bool = True
) -> str:
    """In what a fitted value differs from the fitted answer, or "".

    reveal: whether the text may hold the answer.
    """
    if isinstance(wanted, Tensor) and wanted.is_meta:
        # no answer is: here an attempt is compared with itself or with a slip
        alike = isinstance(got, Tensor) and got.is_meta and got.shape == wanted.shape
        return "" if alike else "It is another tensor."
    if isinstance(wanted, Tensor):
        (allowed,) = of_parts(tolerance, 1)
        return _of_other_form(got, wanted) or _of_other_numbers(got, wanted, allowed, equal_nan, reveal)
    if not isinstance(wanted, dict | tuple):
        right = type(got) is type(wanted) and got == wanted
        return "" if right else f"{shown(got)} is not right.{_advice(got)}"
    text = _of_other_parts(got, wanted)
    if text:
        return text
    found = ""
    for (name, mine, true), each in zip(_parts(got, wanted), of_parts(tolerance, len(wanted)), strict=True):
        text = difference(mine, true, each, equal_nan, reveal)
        # what is no number, or of another form, before numbers that differ
        if text and (not found or equal_nan or not comparable(mine, true)):
            found = f"{name}: {NO_RETURN if mine is None and isinstance(wanted, Calls) else text}"
            if equal_nan or not comparable(mine, true):
                break
    return found


def _of_other_parts(got: object, wanted: dict | tuple) -> str:
    if isinstance(wanted, tuple):
        if isinstance(got, tuple) and len(got) == len(wanted):
            return ""
        numbers = all(isinstance(each, Tensor) and not each.ndim for each in wanted)
        row = isinstance(got, tuple) or (numbers and isinstance(got, Tensor) and got.ndim == 1)
        is_what = len(got) if row else what(got)
        return f"It should be {len(wanted)} values, and is {is_what}.{_advice(got)}"
    names = ", ".join(map(shown, wanted))
    if not isinstance(got, dict):
        return f"It should be a dict with the keys {names}, and is {what(got)}.{_advice(got)}"
    if got.keys() != wanted.keys():
        return f"Its keys should be {names}, and are {', '.join(map(shown, got))}."
    return ""


def _parts(got: dict | tuple, wanted: dict | tuple) -> list[tuple[str, object, object]]:
    """(name, got, wanted) of the parts."""
    if isinstance(wanted, tuple):
        names = [f"Value {i + 1} of {len(wanted)}" for i in range(len(wanted))]
        return list(zip(names, got, wanted, strict=True))
    name = str if isinstance(wanted, Calls) else shown
    return [(name(key), got[key], wanted[key]) for key in wanted]


def _of_other_form(got: object, wanted: Tensor) -> str:
    if not isinstance(got, Tensor):
        return f"It should be {what(wanted)}, and is {what(got)}.{_advice(got)}"
    if got.shape != wanted.shape:
        if not wanted.ndim or not got.ndim:
            return f"It should be {what(wanted)}, and is {what(got)}."
        return f"The shape is {tuple(got.shape)}, should be {tuple(wanted.shape)}."
    if got.is_meta:
        return "It is a tensor on the device 'meta', which holds no numbers."
    if _sort(got) != _sort(wanted):
        return f"The numbers are of type {got.dtype}, should be {wanted.dtype}."
    return ""


def _of_no_numbers(got: Tensor) -> str:
    """Whether some are NaN or infinite."""
    if got.isfinite().all():
        return ""
    if not got.ndim:
        return f"It is {got.item()}."
    return f"{int((~got.isfinite()).sum())} of {got.numel()} numbers are NaN or infinite."


def _of_other_numbers(got: Tensor, wanted: Tensor, tolerance: float, equal_nan: bool, reveal: bool) -> str:
    whole = not (got.is_floating_point() or got.is_complex() or got.dtype == torch.bool)
    if got.is_complex():
        got, wanted = torch.view_as_real(got), torch.view_as_real(wanted)
    got, wanted = got.double(), wanted.double()
    if not equal_nan and (text := _of_no_numbers(got)):
        return text
    error = (got - wanted).abs() / (1 + wanted.abs())
    if equal_nan:
        error = error.masked_fill((got == wanted) | (got.isnan() & wanted.isnan()), 0)
        error = error.nan_to_num(nan=float("inf"))
    if bool((error <= tolerance).all()):
        return ""
    if (
        whole
        and got.numel() > 1
        and wanted.frac().any()
        and ((got == wanted.trunc()) | (got == wanted.round())).all()
    ):
        return "It gives whole numbers: a table or a tensor of integers was used where floats are needed."
    at = np.unravel_index(int(error.argmax()), got.shape)
    is_now, should_be = apart(got[at].item(), wanted[at].item())
    if not got.ndim:
        return f"It is {is_now}, should be {should_be}." if reveal else f"{is_now} is not right."
    share = (error > tolerance).double().mean().item()
    place = f"At {list(map(int, at))} it is {is_now}"
    most = f"(where they differ most; {share:.0%} of the numbers differ)."
    return f"{place}, should be {should_be} {most}" if reveal else f"{place}, which is not right."


def apart(a: float, b: float, digits: int = 6) -> tuple[str, str]:
    """Two different numbers in as many significant digits as it takes to tell them apart, at least so many."""
    # what is left over by rounding is 0
    a, b = (0.0 if abs(x) < 1e-12 * abs(y) else x for x, y in ((float(a), float(b)), (float(b), float(a))))
    for more in range(digits, 18):
        texts = f"{a:.{more}g}", f"{b:.{more}g}"
        if texts[0] != texts[1]:
            break
    return texts


def _sort(tensor: Tensor) -> str:
    return "truth" if tensor.dtype == torch.bool else "complex" if tensor.is_complex() else "real"


def _advice(got: object) -> str:
    return f" {got.advice}" if isinstance(got, Other) and got.advice else ""


def what(value: object) -> str:
    """A plain value in a word or two, as what it is and not which."""
    if isinstance(value, Other):
        return value.what
    if isinstance(value, Tensor) and value.ndim:
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple):
        return f"{len(value)} value{'' if len(value) == 1 else 's'}"
    names = {bool: "True or False", str: "a text", dict: "a dict", type(None): "None", EllipsisType: "..."}
    return names.get(type(value), "a number")


def shown(value: object) -> str:
    """A plain value as the reader would write it, if that is short."""
    if isinstance(value, Tensor) and not value.ndim and not value.is_meta:
        return f"{value.item():.6g}"
    if isinstance(value, Tensor | Other):
        return what(value)
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    short.repr_Tensor = short.repr_Other = lambda each, level: what(each)
    return short.repr(value)
