"""Exercises that mark themselves: ``check(name, attempt)`` compares an attempt with an exact answer.

An exercise is an answer, a source of fresh inputs, and the slips that people make, each with a hint. An
attempt is run on inputs that were never used before. If its results are the answer's, it is correct; if they
are those of a known slip, that slip is named; else the difference is described. The exercises of chapter N
stand in ``chapter_NN``.
"""

from __future__ import annotations

import copy
import ctypes
import datetime
import difflib
import dis
import importlib
import inspect
import json
import linecache
import os
import secrets
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import write_whole

CHAPTERS = tuple(int(path.stem[-2:]) for path in sorted(Path(__file__).parent.glob("chapter_[0-9][0-9].py")))
LIMIT = 20.0
"""Seconds that an attempt may take."""
AGAIN = 0.5
"""Seconds after which an attempt that goes on is stopped once more."""


@dataclass(frozen=True)
class Slip:
    """A known wrong attempt and the hint for those who made it. The hint says what is wrong, not the answer."""

    hint: str
    attempt: object


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    name: "topic.task". answer: a function like the one asked for, or the value asked for (a number, a text,
    a tensor, a tuple or a dict of them). slips: known wrong attempts; they are told apart by what they return.
    inputs: Generator -> the arguments of one trial; functions only. run: how an attempt is tried on them,
    by default a call; it may return anything that can be compared, statistics of many calls for instance.
    tolerance: largest |difference| / (1 + |answer|).
    explain: (arguments, got, wanted) -> what is wrong in words of the exercise, or "" for the usual words.
    trials: how many fresh inputs an attempt is tried on.
    """

    name: str
    title: str
    answer: object
    slips: tuple[Slip, ...]
    inputs: Callable[[torch.Generator], tuple] = lambda generator: ()
    run: Callable[[Callable, tuple], object] = lambda attempt, arguments: attempt(*arguments)
    tolerance: float = 1e-5
    explain: Callable[[tuple, object, object], str] = lambda arguments, got, wanted: ""
    trials: int = 3


@dataclass(frozen=True)
class Verdict:
    """What check found. Its text form is the line that the reader sees; it is true if the attempt is correct."""

    name: str
    status: str
    """"correct", "not yet" or "not attempted"."""
    text: str = field(repr=False)

    def __repr__(self) -> str:
        return f"{self.name}: {self.text}"

    def __bool__(self) -> bool:
        return self.status == "correct"


def check(name: str, attempt: object, record: bool = True, limit: float = LIMIT) -> Verdict:
    """Marks an attempt at an exercise.

    name: of the exercise. attempt: the function itself, not its result; or the value, where a value is asked for.
    record: count it in the reader's progress. limit: seconds after which an attempt is stopped.

    Raises ValueError for a name that no exercise has. Nothing that the attempt does raises: it is reported.
    """
    exercise = find(name)
    status, text = _mark(exercise, attempt, limit)
    verdict = Verdict(name, status, text)
    if record and status != "not attempted":
        try:
            _keep(verdict)
        except OSError as error:
            warnings.warn(f"your progress could not be kept: {error}", stacklevel=2)
    return verdict


@cache
def exercises() -> dict[int, tuple[str, tuple[Exercise, ...]]]:
    """Chapter number -> (title, exercises), in the order of the book."""
    found = {}
    for chapter in CHAPTERS:
        module = importlib.import_module(f".chapter_{chapter:02d}", __package__)
        found[chapter] = module.TITLE, module.EXERCISES
    return found


def find(name: str) -> Exercise:
    """The exercise of this name. Raises ValueError that names those it may have meant."""
    known = {exercise.name: exercise for _, group in exercises().values() for exercise in group}
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=3) or known
        raise ValueError(f"no exercise is called {name!r}: did you mean {', '.join(map(repr, near))}?")
    return known[name]


# --- Marking -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Failed:
    """An attempt raised; kind and message tell whether a slip raises the same."""

    kind: type
    message: str
    text: str = field(compare=False)


class _TooLong(BaseException):
    """The time of an attempt is up."""


def _mark(exercise: Exercise, attempt: object, limit: float) -> tuple[str, str]:
    if _untouched(attempt):
        return "not attempted", "not attempted yet."
    wrong_kind = _kind(exercise, attempt)
    if wrong_kind:
        return "not yet", f"not yet. {wrong_kind}"
    generator = torch.Generator().manual_seed(secrets.randbits(62))
    trials = [exercise.inputs(generator) for _ in range(exercise.trials if callable(exercise.answer) else 1)]
    wanted = [_outcome(exercise, exercise.answer, arguments) for arguments in trials]
    try:
        # the first trial twice
        *got, again = _within(
            limit, lambda: [_outcome(exercise, attempt, arguments) for arguments in [*trials, trials[0]]]
        )
    except _TooLong:
        return (
            "not yet",
            f"not yet. It was still running after {limit:g} s and was stopped: is there a loop without end?",
        )
    if any(result is ... for result in got):
        return "not attempted", "not attempted yet."
    got, again = list(map(_unpacked, got, wanted)), _unpacked(again, wanted[0])
    problems = [_problem(exercise, *each) for each in zip(trials, got, wanted, strict=True)]
    if not any(problems):
        if _problem(exercise, trials[0], again, wanted[0]):
            return "not yet", "not yet. Called twice with the same arguments, it gave two answers."
        return "correct", "correct."
    hint = _known_slip(exercise, trials, got)
    if hint:
        return "not yet", f"not yet. {hint}"
    if not _same(exercise, again, got[0]):
        return "not yet", (
            "not yet. Called twice with the same arguments, it gives two answers. "
            "Draw no random numbers of your own: all that you need is passed in."
        )
    return "not yet", f"not yet. {next(filter(None, problems))}"


def _stub(): ...


def _documented_stub():
    """Stands for any docstring."""


def _untouched(attempt: object) -> bool:
    if isinstance(attempt, tuple | list):
        return len(attempt) > 0 and all(map(_untouched, attempt))
    if isinstance(attempt, dict):
        return len(attempt) > 0 and all(map(_untouched, attempt.values()))
    if inspect.isfunction(attempt):
        code = attempt.__code__
        does_nothing = code.co_code in {stub.__code__.co_code for stub in (_stub, _documented_stub)}
        constants = {step.argval for step in dis.get_instructions(code) if "CONST" in step.opname}
        return does_nothing and constants == {None}
    return attempt is None or attempt is ...


def _kind(exercise: Exercise, attempt: object) -> str:
    """What is wrong about the attempt before it is run, or ""."""
    if callable(exercise.answer) and not callable(attempt):
        return f"A function is asked for, this is {_what(attempt)}. Pass the function itself, without calling it."
    if not callable(exercise.answer) and callable(attempt):
        return "A value is asked for, this is a function. Pass what it returns."
    if not callable(attempt):
        return ""
    try:
        takes, expected = inspect.signature(attempt), inspect.signature(exercise.answer)
        takes.bind(*expected.parameters)
    except TypeError:
        return f"It must take the arguments {expected}, and takes {takes}."
    except ValueError:  # built-in functions have no signature
        pass
    return ""


def _outcome(exercise: Exercise, attempt: object, arguments: tuple) -> object:
    if not callable(attempt):
        return attempt
    try:
        return exercise.run(attempt, tuple(map(_fresh, arguments)))
    except NotImplementedError:
        return ...
    except Exception as error:
        return _Failed(type(error), str(error), _as_theirs(error))


def _unpacked(got: object, wanted: object) -> object:
    """The values in a tensor or an array, where several values are asked for."""
    if isinstance(wanted, tuple | list) and isinstance(got, Tensor | np.ndarray) and got.ndim:
        return tuple(got)
    return got


def _fresh(argument: object) -> object:
    """A copy, so that an attempt may work in place."""
    if isinstance(argument, Tensor):
        return argument.clone()
    if isinstance(argument, torch.Generator):
        generator = torch.Generator(argument.device)
        generator.set_state(argument.get_state())
        return generator
    return argument if callable(argument) else copy.deepcopy(argument)


def _as_theirs(error: Exception) -> str:
    """The error as the reader would see it in their own cell: their lines only."""
    here = str(Path(__file__).parents[1])
    theirs = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(here) and "site-packages" not in frame.filename
    ]
    lines = [f"Your code raised {type(error).__name__}: {error}"]
    for frame in theirs:
        source = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
        lines.append(f"  in {frame.name}, line {frame.lineno}: {source}")
    return "\n".join(lines)


def _within(limit: float, work: Callable[[], object]) -> object:
    """What work() returns; or raises _TooLong in this thread when the time is up, at its next line of Python."""
    shoot = ctypes.pythonapi.PyThreadState_SetAsyncExc
    here, kind = ctypes.c_ulong(threading.get_ident()), ctypes.py_object(_TooLong)
    done, state = threading.Event(), SimpleNamespace(over=False, fired=False)

    def watch() -> None:
        pause = limit
        # again and again: the attempt may catch what it should not
        while not done.wait(pause):
            pause = AGAIN
            if not state.over:
                # no call between the question and the shot, so that no other thread comes between them
                state.fired = True
                shoot(here, kind)

    watcher = threading.Thread(target=watch, daemon=True)
    try:
        watcher.start()
        return work()
    finally:
        # an exception of another thread comes at a call or a loop, so not before this line is done
        state.over = True
        # takes back a shot that has not arrived
        shoot(here, None)
        done.set()
        if state.fired:
            raise _TooLong


def _known_slip(exercise: Exercise, trials: list[tuple], got: list) -> str:
    for slip in exercise.slips:
        results = [_outcome(exercise, slip.attempt, arguments) for arguments in trials]
        if all(_same(exercise, result, mine) for result, mine in zip(results, got, strict=True)):
            return slip.hint
    return ""


def _same(exercise: Exercise, a: object, b: object) -> bool:
    if isinstance(a, _Failed) or isinstance(b, _Failed):
        return a == b
    return not _difference(a, b, exercise.tolerance, equal_nan=True)


def _problem(exercise: Exercise, arguments: tuple, got: object, wanted: object) -> str:
    """What is wrong with one result, or ""."""
    if isinstance(wanted, _Failed):
        raise RuntimeError(f"the answer to {exercise.name} is broken: {wanted.text}")
    if isinstance(got, _Failed):
        return got.text
    if got is None:
        return "It returns None: is there a `return` missing?"
    text = _difference(got, wanted, exercise.tolerance)
    if text and _comparable(got, wanted):
        return exercise.explain(arguments, _plain(got, wanted), _plain(wanted, wanted)) or text
    return text


def _comparable(got: object, wanted: object) -> bool:
    """Whether explain may take both for the same kind of thing, with finite numbers in it."""
    if isinstance(wanted, dict):
        alike = isinstance(got, dict) and set(got) == set(wanted)
        return alike and all(_comparable(got[key], wanted[key]) for key in wanted)
    if isinstance(wanted, tuple | list):
        alike = isinstance(got, tuple | list) and len(got) == len(wanted)
        return alike and all(map(_comparable, got, wanted))
    if isinstance(wanted, bool | str):
        return True
    got, wanted = _tensor(got), _tensor(wanted)
    alike = got is not None and got.shape == wanted.shape and _sort(got) == _sort(wanted)
    return alike and bool(got.isfinite().all())


def _plain(value: object, wanted: object) -> object:
    """For explain: whatever way it was given, tensors in float64 where tensors are wanted."""
    if isinstance(wanted, dict):
        return {key: _plain(value[key], wanted[key]) for key in wanted}
    if isinstance(wanted, tuple | list):
        return tuple(map(_plain, value, wanted))
    if isinstance(wanted, Tensor):
        return _tensor(value).double()
    return value


def _difference(got: object, wanted: object, tolerance: float, equal_nan: bool = False) -> str:
    """In what got differs from wanted, or ""."""
    if isinstance(wanted, dict):
        names = ", ".join(map(repr, wanted))
        if not isinstance(got, dict):
            return f"It should be a dict with the keys {names}, and is {_what(got)}."
        if set(got) != set(wanted):
            return f"Its keys should be {names}, and are {', '.join(map(repr, got))}."
        for key in wanted:
            text = _difference(got[key], wanted[key], tolerance, equal_nan)
            if text:
                return f"{key!r}: {text}"
        return ""
    if isinstance(wanted, tuple | list):
        if not isinstance(got, tuple | list):
            return f"It should be {len(wanted)} values, and is {_what(got)}."
        if len(got) != len(wanted):
            return f"It should be {len(wanted)} values, and is {len(got)}."
        for number, pair in enumerate(zip(got, wanted, strict=True), 1):
            text = _difference(*pair, tolerance, equal_nan)
            if text:
                return f"Value {number} of {len(wanted)}: {text}"
        return ""
    if isinstance(wanted, bool | str):
        if isinstance(got, Tensor | np.generic | np.ndarray) and np.size(got) == 1:
            got = got.item()
        return "" if type(got) is type(wanted) and got == wanted else f"{got!r} is not right."
    tensor, wanted_tensor = _tensor(got), _tensor(wanted)
    if tensor is None or wanted_tensor is None:
        return "" if got is wanted else f"It should be {_what(wanted)}, and is {_what(got)}."
    wanted = wanted_tensor
    if tensor.shape != wanted.shape:
        return f"The shape is {tuple(tensor.shape)}, should be {tuple(wanted.shape)}."
    if tensor.is_complex() and wanted.is_complex():
        tensor, wanted = torch.view_as_real(tensor), torch.view_as_real(wanted)
    if _sort(tensor) != _sort(wanted):
        return f"The numbers are of type {tensor.dtype}, should be {wanted.dtype}."
    whole = tensor.dtype != torch.bool and not tensor.is_floating_point()
    tensor, wanted = tensor.double(), wanted.double()
    if not equal_nan and not tensor.isfinite().all():
        return f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} numbers are NaN or infinite."
    error = (tensor - wanted).abs() / (1 + wanted.abs())
    if equal_nan:
        error = error.masked_fill((tensor == wanted) | (tensor.isnan() & wanted.isnan()), 0)
        error = error.nan_to_num(nan=float("inf"))
    if not wanted.numel() or bool((error <= tolerance).all()):
        return ""
    if not tensor.ndim:
        return f"It is {tensor.item():.6g}, should be {wanted.item():.6g}."
    if whole and wanted.frac().any():
        return "It gives whole numbers: a table or a tensor of integers was used where floats are needed."
    at = np.unravel_index(int(error.argmax()), tensor.shape)
    return (
        f"At {list(map(int, at))} it is {tensor[at].item():.6g}, should be {wanted[at].item():.6g} "
        f"(where they differ most; {(error > tolerance).double().mean().item():.0%} of the numbers differ)."
    )


def _tensor(value: object) -> Tensor | None:
    """The numbers in value; None if it holds none."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    try:
        return torch.as_tensor(np.array(value))
    except (TypeError, ValueError, RuntimeError):
        return None


def _sort(tensor: Tensor) -> str:
    return "truth" if tensor.dtype == torch.bool else "complex" if tensor.is_complex() else "real"


def _what(value: object) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"a tensor of shape {tuple(value.shape)}" if value.ndim else "a number"
    names = {
        int: "a number",
        float: "a number",
        str: "a text",
        bool: "True or False",
        type(None): "None",
        dict: "a dict",
    }
    if isinstance(value, tuple | list):
        return f"{len(value)} values"
    return names.get(type(value), f"of type {type(value).__name__}")


# --- Progress ------------------------------------------------------------------------------------


def progress_file() -> Path:
    """Where the reader's progress is kept: $DDPM_LIB_PROGRESS, else .ddpm_lib/progress.json in their home."""
    chosen = os.environ.get("DDPM_LIB_PROGRESS")
    return Path(chosen).expanduser() if chosen else Path.home() / ".ddpm_lib" / "progress.json"


def progress() -> dict[str, dict]:
    """Exercise -> {"correct": date of the first correct attempt or None, "tries": attempts up to it}.

    A file that cannot be understood is moved aside, never overwritten.
    """
    path = progress_file()
    try:
        return _read_progress(path)
    except FileNotFoundError:
        return {}
    except ValueError:
        aside = path.with_name(f"{path.name}.unreadable")
        os.replace(path, aside)
        warnings.warn(f"{path} could not be read; it is now {aside}, and counting begins anew", stacklevel=2)
        return {}


def _read_progress(path: Path) -> dict[str, dict]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {name: {"correct": row["correct"], "tries": int(row["tries"])} for name, row in kept.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no file of progress, as `check` keeps it in progress.json") from error


def forget() -> None:
    """Begins anew: removes the file of progress."""
    progress_file().unlink(missing_ok=True)


def report(everything: bool = False) -> str:
    """How far the reader is: a line for each chapter, what is next, and the exercises of the chapters under way.

    everything: the exercises of all chapters.
    """
    kept, lines, done_in_book, in_book, following = progress(), [], 0, 0, ""
    for chapter, (title, group) in exercises().items():
        rows = [kept.get(exercise.name, {"correct": None, "tries": 0}) for exercise in group]
        done = sum(bool(row["correct"]) for row in rows)
        done_in_book, in_book = done_in_book + done, in_book + len(group)
        bar = "#" * done + "." * (len(group) - done)
        lines.append(f"{chapter:>2}  {bar:<6}  {done} of {len(group)}  {title}")
        under_way = any(row["tries"] for row in rows) and done < len(group)
        if under_way or everything:
            lines += map(_line, group, rows)
        if not following and done < len(group):
            first = next(each for each, row in zip(group, rows, strict=True) if not row["correct"])
            following = f"Next: chapter {chapter}, {first.title} ({first.name})\n"
    total = f"{done_in_book} of {in_book} exercises correct. Kept in {progress_file()}"
    return "\n".join([*lines, "", following or "All of them. Well done.\n", total])


def _line(exercise: Exercise, row: dict) -> str:
    tries = f"{row['tries']} {'try' if row['tries'] == 1 else 'tries'}"
    state = f"{row['correct']}, {tries}" if row["correct"] else tries if row["tries"] else ""
    mark = "x" if row["correct"] else " "
    return f"      [{mark}] {exercise.name:<24} {exercise.title:<44} {state}".rstrip()


def marks(files: Sequence[str | os.PathLike]) -> str:
    """A table for a teacher, from the files of progress that a class handed in: a line a file, a column a chapter.

    Separated by tabs: it reads in a terminal and pastes into a spreadsheet. Raises ValueError for a file that is none.
    """
    groups = {chapter: [each.name for each in group] for chapter, (_, group) in exercises().items()}
    lines = [["file", *(f"{chapter} (of {len(names)})" for chapter, names in groups.items()), "all"]]
    for file in map(Path, files):
        kept = _read_progress(file)
        done = [sum(bool(kept.get(name, {}).get("correct")) for name in names) for names in groups.values()]
        lines.append([str(file), *map(str, done), str(sum(done))])
    return "\n".join("\t".join(line) for line in lines)


def _keep(verdict: Verdict) -> None:
    kept = progress()
    row = kept.setdefault(verdict.name, {"correct": None, "tries": 0})
    if row["correct"]:
        return
    row["tries"] += 1
    if verdict:
        row["correct"] = datetime.date.today().isoformat()
    text = json.dumps(kept, indent=1, sort_keys=True)
    write_whole(progress_file(), lambda part: Path(part).write_text(text, encoding="utf-8"))
