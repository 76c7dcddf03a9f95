"""How an attempt is marked: tried on fresh inputs, compared with the answer, and told what is wrong.

The hints come in this order: the exercise's own slips, random numbers in it, what may be wrong in any exercise (see
`suspects`), the exercise's own words, and the usual words for a difference.
"""

from __future__ import annotations

import dis
import inspect
import secrets
from collections.abc import Iterator
from types import FunctionType
from typing import TYPE_CHECKING

import torch

from . import suspects
from .attempts import Attempt, Failed, in_words, outcome, read, signature_of, theirs
from .compare import NO_RETURN, comparable, difference, same, what
from .limits import TooLong, undisturbed, within
from .results import Unfit, fitted, in_double

if TYPE_CHECKING:
    from .engine import Exercise


def mark(exercise: Exercise, attempt: object, limit: float) -> tuple[str, str]:
    """The status and the text of a verdict. Nothing that the reader's code does raises, except KeyboardInterrupt."""
    with undisturbed():
        generator = torch.Generator().manual_seed(secrets.randbits(62))
        trials = trials_of(exercise, generator)
        wanted = [_answer(exercise, arguments) for arguments in trials]
        mine = Attempt(attempt)
        try:
            with undisturbed():
                # the first trial twice
                *got, again = within(limit, lambda: _results(exercise, mine, [*trials, trials[0]]))
        except TooLong:
            late = f"It was still running after {limit:g} s and was stopped: is there a loop without end?"
            return "not yet", f"not yet. {late}"
        if any(map(_unwritten, [*got, again])):
            return "not attempted", "not attempted yet."
        got = [fitted(result, true) for result, true in zip(got, wanted, strict=True)]
        text = _judged(exercise, trials, wanted, got, fitted(again, wanted[0]))
        named = text.startswith(tuple(slip.hint for slip in exercise.slips))
        if text and not named and not any(isinstance(each, Failed) for each in got):
            text += _about_overwriting(mine)
        return ("not yet", f"not yet. {text}") if text else ("correct", "correct.")


def trials_of(exercise: Exercise, generator: torch.Generator) -> list[tuple]:
    """Fresh inputs."""
    if not callable(exercise.answer):
        return [exercise.inputs(generator)]
    trials = {}
    while len(trials) < exercise.trials:
        arguments = exercise.inputs(generator)
        trials.setdefault(exercise.apart(arguments) if exercise.apart else len(trials), arguments)
    return list(trials.values())


def _answer(exercise: Exercise, arguments: tuple) -> object:
    """What is wanted, in the form in which it is compared."""
    wanted = _tried(exercise, Attempt(exercise.answer), arguments)
    if isinstance(wanted, Failed):
        raise RuntimeError(f"the answer to {exercise.name} is broken: {wanted.text}")
    return fitted(wanted, wanted)


def _tried(exercise: Exercise, attempt: Attempt, arguments: tuple) -> object:
    if not callable(attempt.given):
        return outcome(lambda: read(attempt.given))
    return outcome(lambda: exercise.run(attempt, arguments))


def _results(exercise: Exercise, attempt: Attempt, trials: list[tuple]) -> list:
    """What the attempt gives for each of the trials; `...` where nothing is written yet."""
    before = outcome(lambda: theirs(_before)(exercise, attempt.given))
    if before is None:
        return [_tried(exercise, attempt, arguments) for arguments in trials]
    # a value is read once: it may be one that is used up by that
    return [before] * len(trials)


def _before(exercise: Exercise, given: object) -> object:
    """What can be said before anything is run: a value, `...` if nothing is written yet, None if a function is to be run.

    Raises Unfit if the other kind is asked for, or other arguments.
    """
    if not callable(given):
        value = read(given)
        if _empty(value):
            return ...
        if callable(exercise.answer):
            raise Unfit(
                f"A function is asked for, this is {what(value)}. Pass the function itself, without calling it."
            )
        return value
    if type(given) is FunctionType and _does_nothing(given):
        return ...
    if not callable(exercise.answer):
        raise Unfit("A value is asked for, this is a function. Pass what it returns.")
    if inspect.isgeneratorfunction(given) or inspect.isasyncgenfunction(given):
        raise Unfit(
            "There is a `yield` in it, which makes it a generator. Give the result back with `return`."
        )
    if inspect.iscoroutinefunction(given):
        raise Unfit(
            "It is `async`, and so its calls do not run. Write `def` without `async`, and `return` the result."
        )
    takes, expected = signature_of(given), signature_of(exercise.answer)
    if takes is None or expected is None:
        return None
    try:
        takes.bind(*expected.parameters)
    except TypeError:
        raise Unfit(f"It must take the arguments {expected}, and takes {takes}.") from None
    return None


def _stub(): ...


def _documented_stub():
    """Stands for any docstring."""


def _does_nothing(function: FunctionType) -> bool:
    code = function.__code__
    constants = {step.argval for step in dis.get_instructions(code) if "CONST" in step.opname}
    return code.co_code in {stub.__code__.co_code for stub in (_stub, _documented_stub)} and constants == {
        None
    }


def _empty(value: object) -> bool:
    """Whether nothing stands in a plain value yet."""
    if isinstance(value, tuple | dict):
        inside = value.values() if isinstance(value, dict) else value
        return len(value) > 0 and all(map(_empty, inside))
    return value is None or value is ...


def _unwritten(result: object) -> bool:
    """Whether an attempt has returned `...`, or several of them."""
    if isinstance(result, dict):
        result = tuple(result.values())
    return result is ... or (isinstance(result, tuple) and _empty(result) and ... in result)


def _judged(exercise: Exercise, trials: list[tuple], wanted: list, got: list, again: object) -> str:
    """What is wrong, or "". All results are fitted."""
    problems = [_problem(exercise, *pair) for pair in zip(got, wanted, strict=True)]
    if not any(problems):
        unsteady = _problem(exercise, again, wanted[0])
        return "Called twice with the same arguments, it gave two answers." if unsteady else ""
    hint = _known_slip(exercise, trials, wanted, got)
    if hint:
        return hint
    if not _same(exercise, again, got[0]):
        return (
            "Called twice with the same arguments, it gives two answers. Draw no random numbers of your own, and keep "
            "nothing from one call to the next: all that you need is passed in."
        )
    text = _in_any_exercise(exercise, trials, wanted, got)
    if text:
        return text
    first = next(place for place, problem in enumerate(problems) if problem)
    text = _in_its_words(exercise, trials[first], got[first], wanted[first])
    if not text and callable(exercise.answer) and all(map(comparable, got, wanted)):
        text = suspects.regularity(got, wanted, exercise.tolerance)
    return text or problems[first]


def _in_any_exercise(exercise: Exercise, trials: list[tuple], wanted: list, got: list) -> str:
    """What may be wrong in any exercise, or ""."""
    if any(isinstance(each, Failed) for each in got):
        return ""
    fixed = not callable(exercise.answer)
    # of an answer that does not change this says nothing that is not known
    text = suspects.arrangement(got, wanted, exercise.tolerance)
    if text or not all(map(comparable, got, wanted)):
        return text
    text = _coarse_slip(exercise, trials, wanted, got) or suspects.too_coarse(got, wanted)
    if text or fixed:
        return text
    text = suspects.relation(got, wanted, exercise.tolerance)
    if not text and suspects.size_of(got) > 0.3:
        for found in suspects.coarse(got):
            text = suspects.relation(got, wanted, found.tolerance)
            if text:
                return f"{text} {_also_coarse(found)}"
    return text


def _coarse_slip(exercise: Exercise, trials: list[tuple], wanted: list, got: list) -> str:
    """The hint for the slip that the results come from by rounding, or ""."""
    for found in suspects.coarse(got):
        # the right ones must be far away
        nearest, hint = min(found.tolerance, suspects.distance(got, wanted) / 3), ""
        for slip, results in _slips_tried(exercise, trials, wanted):
            away = suspects.distance(got, results)
            if away < nearest:
                nearest, hint = away, slip.hint
        if hint:
            return f"{hint} {_also_coarse(found)}"
    return ""


def _also_coarse(found: suspects.Coarse) -> str:
    return f"It also looks as if it was {found.words}, which is too coarse."


def _problem(exercise: Exercise, got: object, wanted: object) -> str:
    """What is wrong with one result in the usual words, or ""."""
    if isinstance(got, Failed):
        return got.text
    if got is None and callable(exercise.answer):
        return NO_RETURN
    return difference(got, wanted, exercise.tolerance, reveal=callable(exercise.answer))


def _known_slip(exercise: Exercise, trials: list[tuple], wanted: list, got: list) -> str:
    def gives(attempt: object, arguments: tuple, true: object, mine: object) -> bool:
        return _same(exercise, _slipped(exercise, attempt, arguments, true), mine)

    for slip in exercise.slips:
        for attempt in (slip.attempt, *slip.also):
            if all(gives(attempt, *each) for each in zip(trials, wanted, got, strict=True)):
                return slip.hint
    return ""


def _slips_tried(exercise: Exercise, trials: list[tuple], wanted: list) -> Iterator[tuple]:
    """(slip, its results) for every slip that has any."""
    for slip in exercise.slips:
        for attempt in (slip.attempt, *slip.also):
            results = [_slipped(exercise, attempt, *each) for each in zip(trials, wanted, strict=True)]
            if not any(isinstance(each, Failed) for each in results):
                yield slip, results


def _slipped(exercise: Exercise, attempt: object, arguments: tuple, true: object) -> object:
    return fitted(_tried(exercise, Attempt(attempt), arguments), true)


def _same(exercise: Exercise, a: object, b: object) -> bool:
    if isinstance(a, Failed) or isinstance(b, Failed):
        return a == b
    return same(a, b, exercise.tolerance)


def _in_its_words(exercise: Exercise, arguments: tuple, got: object, wanted: object) -> str:
    if isinstance(got, Failed) or not comparable(got, wanted):
        return ""
    try:
        return exercise.explain(arguments, in_double(got), in_double(wanted))
    except Exception as error:
        usual = difference(got, wanted, exercise.tolerance, reveal=callable(exercise.answer))
        reason = " ".join(in_words(error).split())
        return f"{usual} (A better hint failed, by our mistake: {reason}.)"


def _about_overwriting(attempt: Attempt) -> str:
    signature = signature_of(attempt.given)
    names = list(signature.parameters) if signature else []
    written = [f"`{names[place]}`" for place in sorted(attempt.overwritten) if place < len(names)]
    return (
        f" It also writes into {' and '.join(written)}, which it was given: is that meant?" if written else ""
    )
