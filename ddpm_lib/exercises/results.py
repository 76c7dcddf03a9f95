"""What an attempt returned, made plain, and put into the form of the answer.

Plain are numbers, texts, None, `...`, tensors without gradient on the CPU, and tuples and dicts of these; all else
is `Other`. Nothing of the reader's is left in a plain value: comparing it calls no code of theirs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from types import AsyncGeneratorType, CoroutineType, EllipsisType, GeneratorType

import numpy as np
import torch
from torch import Tensor

LARGE = 10**7
"""No answer has so many numbers. A tensor that has is known by its shape only."""
KINDS = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
KINDS |= {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128}
"""The kinds of number that torch can do all with."""


class Unfit(Exception):
    """What an attempt returned is not what is asked for. Its text says so to the reader."""


class Calls(dict):
    """What several calls of an attempt returned: words like "At t = 3" -> result."""


class Findings(tuple):
    """What was seen of an attempt, where that is not what it returned: no hint speaks of "Value 1" of it."""


@dataclass(frozen=True)
class Other:
    """A result that holds nothing to compare. advice: what to do about it."""

    what: str
    advice: str = ""


# --- Plain values --------------------------------------------------------------------------------


def plain(value: object) -> object:
    """The same in plain values. Runs code of the reader's, where an object has its own: it may raise anything."""
    return _Reading().plain(value)


class _Reading:
    """Reads one result, and stops where it is larger than any answer."""

    def __init__(self) -> None:
        self.left = LARGE

    def plain(self, value: object) -> object:
        # in a list a number costs more time and memory than in a tensor
        self._spend(100)
        if value is None or isinstance(value, EllipsisType | Other):
            return value
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value)
        for kind in (bool, str, int, float, complex):
            if isinstance(value, kind):
                return kind(value)
        if isinstance(value, Mapping):
            inside = {_plain_key(key): self.plain(each) for key, each in value.items()}
            return Calls(inside) if type(value) is Calls else inside
        if isinstance(value, GeneratorType | CoroutineType | AsyncGeneratorType):
            return _unfinished(value)
        if isinstance(value, tuple | list | range | deque | KeysView | ValuesView | Iterator):
            inside = tuple(self.plain(each) for each in value)
            return Findings(inside) if type(value) is Findings else inside
        if hasattr(type(value), "__array__"):
            return self._array(np.array(value))
        if hasattr(type(value), "__float__"):
            return float(value)
        return Other(f"of type {type(value).__name__}")

    def _spend(self, numbers: int) -> None:
        self.left -= numbers
        if self.left < 0:
            raise Unfit("It has far too many values.")

    def _array(self, value: np.ndarray | np.generic) -> object:
        if value.size > LARGE:
            return torch.empty(value.shape, device="meta")
        if value.dtype.kind in "USO":
            return self.plain(value.tolist())
        if value.dtype.kind not in "biufc":
            return Other(f"of type {value.dtype}")
        self._spend(value.size)
        # torch lacks some kinds of number: more than 64 bits, without sign, bytes in the other order
        wide = {"f": np.float64, "c": np.complex128, "u": np.int64, "i": np.int64}.get(value.dtype.kind, bool)
        return torch.from_numpy(np.array(value, dtype=_native(value.dtype, wide)))

    def _tensor(self, value: Tensor) -> object:
        with torch._C.DisableTorchFunctionSubclass():
            if value.is_nested:
                return Other("a nested tensor", "Tensors of one shape can be compared.")
            if value.is_meta or value.numel() > LARGE:
                return torch.empty(value.shape, dtype=value.dtype, device="meta")
            self._spend(value.numel())
            value = value.detach()
            if value.is_quantized:
                value = value.dequantize()
            if value.layout != torch.strided:
                value = value.to_dense()
            if value.dtype not in KINDS:
                value = value.to(torch.complex128 if value.is_complex() else torch.float64)
            # a copy: the reader may write into theirs later
            return value.as_subclass(Tensor).cpu().clone().resolve_conj().resolve_neg()


def _plain_key(key: object) -> object:
    if isinstance(key, str):
        return str(key)
    return key if type(key) in (int, bool) else Other("a key that is no text")


def _native(dtype: np.dtype, wide: type) -> np.dtype | type:
    known = dtype.itemsize <= np.dtype(wide).itemsize and (dtype.kind != "u" or dtype.itemsize == 1)
    return dtype.newbyteorder("=") if known else wide


def _unfinished(value: GeneratorType | CoroutineType | AsyncGeneratorType) -> Other:
    if isinstance(value, CoroutineType):
        value.close()  # or Python warns that nobody waited for it
        return Other("a coroutine", "Write `def` without `async`.")
    return Other("a generator", "Give the result back with `return`, not with `yield`.")


# --- In the form of the answer -------------------------------------------------------------------


def fitted(got: object, wanted: object) -> object:
    """A plain value in the form of the answer, where that changes form only: numbers and lists of them become tensors
    where numbers are wanted, and a tensor becomes a tuple where several values are."""
    if isinstance(wanted, dict):
        alike = isinstance(got, dict) and got.keys() == wanted.keys()
        return type(wanted)({key: fitted(got[key], wanted[key]) for key in wanted}) if alike else got
    if isinstance(wanted, tuple):
        if isinstance(got, Tensor) and got.ndim and len(got) == len(wanted):
            got = tuple(got)
        alike = isinstance(got, tuple) and len(got) == len(wanted)
        return type(wanted)(map(fitted, got, wanted)) if alike else got
    if isinstance(wanted, bool):
        return got.item() == 1 if isinstance(got, Tensor) and _one_truth(got) else got
    if not isinstance(wanted, Tensor | int | float | complex):
        return got
    tensor = _stacked(got)
    if tensor is None or _are_several(got, wanted):
        return got
    # one number may come in any shape, and in a list of numbers each may
    if not np.ndim(wanted) and tensor.numel() == 1:
        return tensor.reshape(())
    singles = isinstance(got, tuple) and np.ndim(wanted) == 1 and tensor.shape == (*wanted.shape, 1)
    return tensor.flatten() if singles else tensor


def _are_several(got: object, wanted: object) -> bool:
    """Whether these are several tensors where one is wanted, and not the rows of it."""
    rows = getattr(wanted, "ndim", 0)
    if not rows or not isinstance(got, tuple):
        return False
    return any(isinstance(each, Tensor) and each.ndim >= rows and each.numel() > 1 for each in got)


def _one_truth(got: Tensor) -> bool:
    return got.numel() == 1 and got.dtype == torch.bool and not got.is_meta


def _stacked(value: object) -> Tensor | None:
    """The numbers in a plain value; None if it holds anything else, or lists of different lengths."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, bool | int | float | complex):
        return _number(value)
    if not isinstance(value, tuple):
        return None
    if all(type(each) is float for each in value):
        return torch.tensor(value, dtype=torch.float64)
    parts = list(map(_stacked, value))
    if any(part is None or part.is_meta for part in parts) or len({part.shape for part in parts}) > 1:
        return None
    kind = parts[0].dtype
    for part in parts:
        kind = torch.promote_types(kind, part.dtype)
    return torch.stack([part.to(kind) for part in parts])


def _number(value: complex) -> Tensor:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    # whatever torch takes by default
    kind = {float: torch.float64, complex: torch.complex128}.get(type(value))
    return torch.tensor(value, dtype=kind)


def in_double(value: object) -> object:
    """A fitted value with its tensors in double precision."""
    if isinstance(value, dict):
        return type(value)({key: in_double(each) for key, each in value.items()})
    if isinstance(value, tuple):
        return type(value)(map(in_double, value))
    if isinstance(value, Tensor) and value.dtype != torch.bool:
        return value.to(torch.complex128 if value.is_complex() else torch.float64)
    return value
