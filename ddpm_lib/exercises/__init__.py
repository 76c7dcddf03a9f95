"""Exercises that mark themselves: ``check(name, attempt)`` compares an attempt with an exact answer.

The exercises of chapter N stand in ``chapter_NN``; ``engine`` marks, and ``progress`` keeps the reader's record. The
names below are imported when they are first used: marking needs torch, and the record does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine import LIMIT, Exercise, Slip, Verdict, check, exercises, find
    from .progress import CHAPTERS, forget, marks, progress_file, report

# in the order of the reference
__all__ = [
    "check",
    "Verdict",
    "Exercise",
    "Slip",
    "exercises",
    "find",
    "LIMIT",
    "report",
    "marks",
    "progress_file",
    "forget",
    "CHAPTERS",
]
_RECORD = {"CHAPTERS", "forget", "marks", "progress_file", "report"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".progress" if name in _RECORD else ".engine", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
