"""How an attempt is run: on copies, and so that nothing of it escapes.

An attempt may raise anything, and return what cannot be looked at. What comes out of here is plain (see `results`),
or it is Failed, or `...` where nothing is written yet.
"""

from __future__ import annotations

import dis
import inspect
import linecache
import re
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .limits import TooLong
from .results import Unfit, plain


@dataclass(frozen=True)
class Failed:
    """An attempt gave nothing that can be compared. kind and message tell whether a slip fails in the same way."""

    kind: str
    message: str
    text: str = field(compare=False)


class _Theirs(BaseException):
    """Carries the end of the reader's code past that of the marker."""

    def __init__(self, outcome: object) -> None:
        super().__init__()
        self.outcome = outcome


class Attempt:
    """What the reader handed in. If that is a function, a trial calls it with copies, so that it may work in place; and
    what it returns is plain."""

    def __init__(self, given: object) -> None:
        self.given = given
        self.overwritten: set[int] = set()
        """The places of the arguments into which it wrote."""

    def __call__(self, *arguments: object) -> object:
        result = self.raw(*arguments)
        if issubclass(type(self.given), type):
            raise Unfit(
                "A function is asked for, and this is a class: calling it makes an object. Use `def` and `return`."
            )
        value = read(result)
        if value is ...:
            raise _Theirs(...)
        return value

    def or_refused(self, refused: object, *arguments: object) -> object:
        """The same; and `refused` where it says by a ValueError that these arguments are none of its."""
        try:
            return self(*arguments)
        except _Theirs as end:
            if isinstance(end.outcome, Failed) and end.outcome.kind == "ValueError":
                return refused
            raise

    def raw(self, *arguments: object) -> object:
        """What it returns, as it is."""
        copies = [_fresh(each) for each in arguments]
        try:
            return theirs(self.given)(*copies)
        finally:
            pairs = zip(copies, arguments, strict=True)
            self.overwritten |= {place for place, pair in enumerate(pairs) if _written(*pair)}


def theirs(function: Callable) -> Callable:
    """The same function. What it raises is told to the reader as the end of their own code."""

    def call(*arguments: object) -> object:
        try:
            return function(*arguments)
        except (TooLong, _Theirs, Unfit):
            raise
        except BaseException as error:
            if issubclass(type(error), KeyboardInterrupt) and not _is_raised_by_them(error):
                raise
            outcome = _told(error)
        raise _Theirs(outcome)

    return call


def read(result: object) -> object:
    """The result as a plain value. Raises Unfit if that cannot be had."""
    try:
        return plain(result)
    except (TooLong, KeyboardInterrupt, Unfit):
        raise
    except BaseException as error:
        raise Unfit(
            f"What it gives cannot be read ({in_words(error)}). Numbers can, in tensors, arrays or lists."
        ) from None


def outcome(run: Callable[[Attempt], object]) -> object:
    """What run returns, in plain values; or how the reader's code in it ended."""
    try:
        return plain(run())
    except _Theirs as end:
        return end.outcome
    except Unfit as unfit:
        return Failed("Unfit", str(unfit), str(unfit))


def _fresh(argument: object) -> object:
    if isinstance(argument, Tensor):
        return argument.clone()
    if isinstance(argument, torch.Generator):
        generator = torch.Generator(argument.device)
        generator.set_state(argument.get_state())
        return generator
    if isinstance(argument, dict):
        return {key: _fresh(each) for key, each in argument.items()}
    return type(argument)(map(_fresh, argument)) if type(argument) in (tuple, list) else argument


def _written(copy: object, argument: object) -> bool:
    """Whether a copy is no longer what it was, also where it was written into through an array of NumPy's."""
    if isinstance(argument, Tensor):
        try:
            return copy.dtype != argument.dtype or not torch.equal(copy, argument)
        except RuntimeError:
            return True
    if type(argument) in (tuple, list):
        return len(copy) != len(argument) or any(map(_written, copy, argument))
    if isinstance(argument, dict):
        return copy.keys() != argument.keys() or any(_written(copy[key], argument[key]) for key in argument)
    return type(argument) in (bool, int, float, str) and copy != argument


# --- What an exception is told as ----------------------------------------------------------------

LONGEST, FRAMES = 400, 3
"""Characters of an error's text that are shown; lines of the reader's from either end of the way to it."""
ELSEWHERE = (
    str(Path(__file__).parents[1]),
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)
"""Where code lies that is not the reader's."""


def in_words(error: BaseException) -> str:
    """The name of an exception and its text, cut if that is long."""
    name, text = _name(error), _text(error)
    return f"{name}: {text}" if text else name


def _name(error: BaseException) -> str:
    # past what a class may put in its place
    return cut(type.__dict__["__name__"].__get__(type(error)))


def _text(error: BaseException) -> str:
    """The text of an exception may raise one itself."""
    try:
        return cut(str(error).strip())
    except (TooLong, KeyboardInterrupt):
        raise
    except BaseException:
        return "(its text cannot be shown)"


def cut(text: str, longest: int = LONGEST) -> str:
    """Its beginning, if it is long."""
    lines = text.splitlines()
    short = "\n".join(lines[: 2 * FRAMES])
    if len(short) > longest:
        return short[:longest] + " ..."
    return short if len(lines) <= 2 * FRAMES else f"{short}\n..."


def _told(error: BaseException) -> object:
    """The exception as the reader would see it in their own cell, with their lines only; `...` for that of a stub."""
    if issubclass(type(error), NotImplementedError) and _is_raised_by_them(error):
        return ...
    lines = [f"Your code raised {in_words(error)}"]
    way = [each for each in traceback.walk_tb(error.__traceback__) if _is_theirs(each[0].f_code.co_filename)]
    left_out = len(way) - 2 * FRAMES
    if left_out > 0:
        way[FRAMES:-FRAMES] = []
    for place, frame in enumerate(traceback.StackSummary.extract(iter(way))):
        if place == FRAMES and left_out > 0:
            lines.append(f"  ... and {left_out} more lines, until")
        source = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
        lines.append(f"  in {cut(frame.name, 80)}, line {frame.lineno}: {cut(source, 120)}")
    if advice := _about_an_index(error):
        lines.append(advice)
    return Failed(*_without_style(_name(error), _text(error)), "\n".join(lines))


def _is_raised_by_them(error: BaseException) -> bool:
    """Whether it comes from a `raise` of the reader's own, and not from something that they called or from Ctrl-C."""
    last = error.__traceback__
    while last.tb_next:
        last = last.tb_next
    code = last.tb_frame.f_code
    return _is_theirs(code.co_filename) and dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"


def _is_theirs(filename: str) -> bool:
    # dist-packages is what Debian and Colab call it
    installed = "site-packages" in filename or "dist-packages" in filename
    return not installed and not filename.startswith((*ELSEWHERE, "<frozen"))


BEYOND = re.compile(r"index (\d+) is out of bounds for (?:dimension|axis) \d+ with size (\d+)")


def _about_an_index(error: BaseException) -> str:
    """A word about an index that is one too large."""
    found = BEYOND.search(_text(error))
    if not found or found[1] != found[2]:
        return ""
    return f"Entries are counted from 0, so the last of {found[2]} has the number {int(found[2]) - 1}: is an index off by one?"


NUMPY_SHAPES = re.compile(r"operands could not be broadcast together with shapes (\([\d, ]*\)) (\([\d, ]*\))")


def _without_style(kind: str, message: str) -> tuple[str, str]:
    """Shapes that do not fit are one and the same failure in NumPy and in torch: in torch's words."""
    found = NUMPY_SHAPES.search(message)
    if not found:
        return kind, message
    first, second = ([int(side) for side in re.findall(r"\d+", shape)] for shape in found.groups())
    depth = max(len(first), len(second))
    for back, (a, b) in enumerate(zip(first[::-1], second[::-1], strict=False), 1):
        if a != b and 1 not in (a, b):
            return "RuntimeError", (
                f"The size of tensor a ({a}) must match the size of tensor b ({b}) at non-singleton dimension {depth - back}"
            )
    return kind, message


def signature_of(function: Callable) -> inspect.Signature | None:
    """The signature of a function of the reader's. None for built-in ones, and for objects that have a broken one."""
    try:
        return inspect.signature(function)
    except (TooLong, KeyboardInterrupt):
        raise
    except BaseException:
        return None
