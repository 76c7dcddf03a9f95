"""What an exercise is, and `check`, which marks an attempt at one (see `marking`).

An exercise is an answer, a source of fresh inputs, and the slips that people make, each with a hint. An
attempt is run on inputs that were never used before. If its results are the answer's, it is correct; if they
are those of a known slip, that slip is named; else the difference is described.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch

from . import progress
from .attempts import Attempt, in_words
from .compare import Tolerance
from .marking import mark

LIMIT = 20.0
"""Seconds that an attempt may take."""


@dataclass(frozen=True)
class Slip:
    """A known wrong attempt and the hint for those who made it. The hint says what is wrong, not the answer.

    also: other attempts that deserve the same hint.
    """

    hint: str
    attempt: object
    also: tuple = ()


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    name: "topic.task". answer: a function like the one asked for, or the value asked for (a number, a text,
    a tensor, a tuple or a dict of them). slips: known wrong attempts; they are told apart by what they return.
    inputs: Generator -> the arguments of one trial; functions only. run: how an attempt is tried on them,
    by default a call; it may return anything that can be compared: `Findings`, such as statistics of many calls, or
    `Calls`. What attempt(...) returns in it is plain (see `results`). tolerance: largest |difference| / (1 + |answer|),
    or one for each of several values.
    explain: (arguments, got, wanted) -> what is wrong in words of the exercise, or "" for the usual words. It
    gets what has the form of the answer and is finite, with all numbers as tensors in float64.
    trials: how many fresh inputs an attempt is tried on. apart: what of the arguments is another one in each trial,
    where there are so few that all trials might have the same by chance.
    """

    name: str
    title: str
    answer: object
    slips: tuple[Slip, ...]
    inputs: Callable[[torch.Generator], tuple] = lambda generator: ()
    run: Callable[[Attempt, tuple], object] = lambda attempt, arguments: attempt(*arguments)
    tolerance: Tolerance = 1e-5
    explain: Callable[[tuple, object, object], str] = lambda arguments, got, wanted: ""
    trials: int = 3
    apart: Callable[[tuple], object] | None = None


@dataclass(frozen=True)
class Verdict:
    """What check found. Its text form is the line that the reader sees; it is true if the attempt is correct."""

    name: str
    status: str
    """"correct", "not yet", "not attempted", or "not marked" where our own code failed."""
    text: str = field(repr=False)

    def __repr__(self) -> str:
        return f"{self.name}: {self.text}"

    def __bool__(self) -> bool:
        return self.status == "correct"


def check(name: str, attempt: object, record: bool = True, limit: float = LIMIT) -> Verdict:
    """Marks an attempt at an exercise.

    name: of the exercise. attempt: the function itself, not its result; or the value, where a value is asked for.
    record: count it in the reader's progress. limit: seconds after which an attempt is stopped.

    Raises ValueError for a name that no exercise has. Nothing that the attempt does raises: it is reported; only
    the reader's own KeyboardInterrupt goes through. Seeds and settings that it changes are put back.
    """
    exercise = find(name)
    try:
        verdict = Verdict(name, *mark(exercise, attempt, limit))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        reason = " ".join(in_words(error).split())
        verdict = Verdict(
            name, "not marked", f"could not be marked. That is our mistake and not yours ({reason})."
        )
    if record and verdict.status in ("correct", "not yet"):
        try:
            progress.keep(name, bool(verdict))
        except Exception as error:
            warnings.warn(f"your progress could not be kept: {error}", stacklevel=2)
    return verdict


@cache
def exercises() -> dict[int, tuple[str, tuple[Exercise, ...]]]:
    """Chapter number -> (title, exercises), in the order of the book."""
    found = {}
    for chapter in progress.CHAPTERS:
        module = importlib.import_module(f".chapter_{chapter:02d}", __package__)
        found[chapter] = module.TITLE, module.EXERCISES
    return found


def find(name: str) -> Exercise:
    """The exercise of this name. Raises ValueError that names those it may have meant."""
    known = {exercise.name: exercise for _, group in exercises().values() for exercise in group}
    if not isinstance(name, str) or name not in known:
        near = difflib.get_close_matches(str(name), known, n=3) or known
        raise ValueError(f"no exercise is called {name!r}: did you mean {', '.join(map(repr, near))}?")
    return known[name]
