"""Every exercise: its answer passes, every known slip gets its own hint, nothing that is wrong passes."""

from __future__ import annotations

import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from einops import rearrange

from ddpm_lib import chain, exercises
from ddpm_lib.exercises import Exercise, Slip, check, engine, find

BOOK = Path(__file__).parents[2] / "book"
ALL = [exercise for _, group in exercises.exercises().values() for exercise in group]
SLIPS = [(exercise, slip) for exercise in ALL for slip in exercise.slips]


@pytest.fixture(autouse=True)
def progress(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "progress.json"
    monkeypatch.setenv("DDPM_LIB_PROGRESS", str(path))
    return path


def by_name(exercise):
    return exercise.name if isinstance(exercise, Exercise) else ""


# --- the exercises of the book


def test_names_are_unique_and_say_what_they_are_about():
    names = [exercise.name for exercise in ALL]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name) for name in names)


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_an_exercise_knows_at_least_three_slips_each_with_a_hint_of_its_own(exercise):
    hints = [slip.hint for slip in exercise.slips]
    assert len(hints) >= 3 and len(set(hints)) == len(hints)


@pytest.mark.parametrize("exercise", ALL, ids=by_name)
def test_the_answer_is_correct(exercise):
    for _ in range(3):
        assert repr(check(exercise.name, exercise.answer)) == f"{exercise.name}: correct."


@pytest.mark.parametrize(("exercise", "slip"), SLIPS, ids=by_name)
def test_a_known_slip_gets_its_own_hint_and_no_other(exercise, slip):
    for attempt in (slip.attempt, *slip.also):
        verdict = check(exercise.name, attempt)
        assert verdict.status == "not yet" and verdict.text == f"not yet. {slip.hint}"


# --- the exercises in the chapters


def notebooks():
    return {
        path.stem: nbformat.read(path, 4).cells
        for path in sorted(BOOK.glob("*.ipynb"))
        if path.name[:2].isdigit() and int(path.name[:2]) in exercises.CHAPTERS
    }


CHECKED = re.compile(r'^check\("([\w.]+)"', re.MULTILINE)


@pytest.mark.parametrize("chapter", notebooks())
def test_a_chapter_has_every_exercise_with_a_starter_and_a_solution(chapter):
    cells = notebooks()[chapter]
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    group = exercises.exercises()[int(chapter[:2])][1]
    assert 3 <= len(group) <= 5
    for exercise in group:
        calls = [source for source in sources if f'check("{exercise.name}"' in source]
        assert len(calls) == 2, f"{exercise.name}: one check after the starter, one in the solution"
        assert "record=False" not in calls[0] and "record=False" in calls[1]
    named = [name for source in sources for name in CHECKED.findall(source)]
    assert set(named) == {exercise.name for exercise in group}


@pytest.mark.parametrize("chapter", notebooks())
def test_the_stored_outputs_say_that_starters_are_untouched_and_solutions_correct(chapter):
    for cell in notebooks()[chapter]:
        if cell.cell_type == "code" and CHECKED.search(cell.source):
            said = "".join(output.get("data", {}).get("text/plain", "") for output in cell.outputs)
            expected = "correct." if "record=False" in cell.source else "not attempted yet."
            assert said.endswith(f": {expected}"), f"{cell.id}: {said}"


# --- correct in another way


def in_place(x0, t, eps):
    share = chain.linear(200, 0.0005, 0.1).alpha_bar[t].unsqueeze(-1)
    eps.mul_((1 - share).sqrt())
    return x0.mul_(share.sqrt()).add_(eps)


def in_float32(x0, t, eps):
    share = chain.linear(200, 0.0005, 0.1).alpha_bar.float()[t]
    share = rearrange(share, "b -> b 1")
    return (1 - share) ** 0.5 * eps.float() + share**0.5 * x0.float()


def in_loops(x0, t, eps):
    bar = [1.0]
    for beta in torch.linspace(0.0005, 0.1, 200, dtype=torch.float64):
        bar.append(bar[-1] * (1 - float(beta)))
    rows = zip(x0.tolist(), t.tolist(), eps.tolist(), strict=True)
    return [
        [bar[i] ** 0.5 * a + (1 - bar[i]) ** 0.5 * b for a, b in zip(row, noise, strict=True)]
        for row, i, noise in rows
    ]


def in_numpy(x0, t, eps):
    bar = chain.linear(200, 0.0005, 0.1).alpha_bar.numpy()[t.numpy()][:, None]
    return np.sqrt(bar) * x0.numpy() + np.sqrt(1 - bar) * eps.numpy()


def with_other_names(image, step, noise, unused=None):
    return chain.linear(200, 0.0005, 0.1).add_noise(image, step, noise)


def with_gradient(x0, t, eps):
    return in_float32(torch.nn.Parameter(x0), t, eps)


@pytest.mark.parametrize(
    "attempt", [in_place, in_float32, in_loops, in_numpy, with_other_names, with_gradient]
)
def test_the_same_thing_written_differently_is_correct(attempt):
    assert check("chain.noising", attempt)


def test_a_value_may_be_a_number_of_any_kind():
    beta = chain.linear(200, 0.0005, 0.1).beta[1]
    for value in (beta, beta.float(), beta.numpy(), beta.item(), 5e-4, np.float32(5e-4)):
        assert check("chain.last_step", value)
    for values in ([torch.tensor(200), 12_800.0], torch.tensor([200, 12_800]), np.array([200.0, 12_800])):
        assert check("sampling.calls", values)


def test_several_values_may_come_in_one_tensor():
    answer = find("floor.monte_carlo").answer
    assert check("floor.monte_carlo", lambda *given: torch.stack(answer(*given)))
    # and the slips are known in that form too
    slips = {slip.hint: slip.attempt for slip in find("floor.monte_carlo").slips}
    for hint, attempt in slips.items():
        assert hint in check("floor.monte_carlo", lambda *given: np.array(attempt(*given))).text  # noqa: B023
    assert "It should be 2 values, and is 3" in said("sampling.calls", torch.tensor([200, 1, 2]))


# --- what people do


def said(name, attempt, **options) -> str:
    return check(name, attempt, **options).text


def test_an_untouched_starter_is_not_attempted():
    def bare(x0, t, eps): ...

    def documented(x0, t, eps):
        """x_t, of shape (B, D)."""

    def given_in_part(x0, t, eps):
        share = x0.mean()
        assert share is not None
        return ...

    def to_be_written(x0, t, eps):
        raise NotImplementedError("write me")

    for starter in (bare, documented, given_in_part, to_be_written, None, ...):
        assert repr(check("chain.noising", starter)) == "chain.noising: not attempted yet."
    assert said("sampling.calls", (None, None)) == "not attempted yet."
    assert said("sampling.calls", (200, None)) != "not attempted yet."


def test_a_forgotten_return_is_said():
    def forgetful(x0, t, eps):
        x0 + eps

    assert "`return` missing" in said("chain.noising", forgetful)


def test_an_exception_is_shown_as_the_readers_own():
    def helper(a, b):
        return a @ b

    def attempt(x0, t, eps):
        return helper(x0, eps)

    text = said("chain.noising", attempt)
    assert "Your code raised RuntimeError: mat1 and mat2" in text
    assert re.search(r"in attempt, line \d+: return helper\(x0, eps\)", text)
    assert re.search(r"in helper, line \d+: return a @ b", text)
    assert "exercises.py" not in text and "_outcome" not in text


def test_what_goes_wrong_inside_a_package_is_shown_at_the_readers_line():
    text = said("chain.noising", lambda x0, t, eps: np.linalg.inv(x0.numpy()))
    assert "LinAlgError" in text and "site-packages" not in text and "linalg.inv(x0.numpy())" in text


def endless(x0, t, eps):
    while True:
        pass


def endless_and_stubborn(x0, t, eps):
    for _ in range(2):
        try:
            endless(x0, t, eps)
        except:  # noqa: E722
            pass
    return x0


@pytest.mark.parametrize("attempt", [endless, endless_and_stubborn])
def test_a_loop_without_end_is_stopped(attempt):
    began = time.monotonic()
    text = said("chain.noising", attempt, limit=0.2)
    assert "was stopped" in text and time.monotonic() - began < 10
    assert check("chain.noising", in_place)


def test_the_readers_own_interrupt_is_theirs():
    with pytest.raises(KeyboardInterrupt):
        check("chain.noising", lambda x0, t, eps: signal.raise_signal(signal.SIGINT))


def test_a_loop_is_stopped_where_interrupts_are_ignored():
    """As in a job that a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert "was stopped" in said("chain.noising", endless, limit=0.2)
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_too():
    verdicts = []

    def work():
        verdicts.append(check("chain.noising", in_place))
        verdicts.append(check("chain.noising", endless, limit=0.2))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert verdicts[0] and "was stopped" in verdicts[1].text


def test_a_limit_that_comes_as_the_attempt_ends_does_no_harm():
    def about_as_long(x0, t, eps):
        end = time.monotonic() + 0.0033
        while time.monotonic() < end:
            pass
        return in_place(x0, t, eps)

    for _ in range(60):
        text = said("chain.noising", about_as_long, limit=0.0133)
        assert text == "correct." or "was stopped" in text


@pytest.mark.parametrize("limit", [0, 1e-4, 1e-3])
def test_a_limit_that_comes_as_the_attempt_begins_does_no_harm(limit):
    for _ in range(60):
        text = said("chain.noising", in_place, limit=limit)
        assert text == "correct." or "was stopped" in text
    assert check("chain.noising", in_place)


def test_a_function_for_a_value_and_a_value_for_a_function():
    assert "without calling it" in said("chain.noising", torch.zeros(6, 3))
    assert "Pass what it returns" in said("chain.last_step", lambda: 0.0005)


def test_other_arguments_than_asked_for():
    assert "must take the arguments (x0, t, eps), and takes (x0, t)" in said(
        "chain.noising", lambda x0, t: x0
    )


def test_noise_of_ones_own():
    text = said("chain.noising", lambda x0, t, eps: in_place(x0, t, torch.randn_like(eps)))
    assert "two answers" in text and "passed in" in text


def test_wrong_shapes_types_and_numbers_are_described():
    tell = lambda change: said("chain.noising", lambda *a: change(in_place(*a)))  # noqa: E731
    assert "The shape is (3, 6), should be (6, 3)" in tell(lambda x: 2 * x.T)
    assert "It should be a tensor of shape (6, 3), and is a text" in tell(lambda x: "x")
    assert "2 of 18 numbers are NaN or infinite" in tell(
        lambda x: x.flatten().index_fill(0, torch.tensor([0, 5]), torch.nan).view(6, 3)
    )
    assert "torch.complex" in tell(lambda x: x + 1j) and "torch.bool" in tell(lambda x: x > 0)
    assert "It should be 2 values, and is a number" in said("sampling.calls", 200)
    assert "It should be 2 values, and is 3" in said("sampling.calls", (200, 1, 2))
    assert "Value 1 of 2: It should be a number, and is a text" in said("sampling.calls", ("x", 7))
    assert "factor of x0 is right" in said("chain.noising", lambda x0, t, eps: in_place(x0, t, 2 * eps))
    assert "no mixture" in said("chain.noising", lambda x0, t, eps: in_place(x0, t, eps).sin())
    assert "should be" in said("chain.noising", lambda x0, t, eps: (2 * x0).tolist())
    assert "mean is not right" in said("chain.narrow_step", lambda x, x0, t, z: (2 * x).numpy())


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda x: x + 1e-3,
        lambda x: x * (1 + 1e-3),
        lambda x: torch.cat([x[:-1], x[-1:] + 0.01]),
        lambda x: x.round(decimals=2),
        lambda x: x.flip(0),
        lambda x: x.clamp(-0.5, 0.5),
        lambda x: x.half() + 0.01,
        lambda x: torch.full_like(x, torch.nan),
        lambda x: x[:, :1],
        lambda x: x[None],
    ],
)
@pytest.mark.parametrize("name", ["chain.noising", "chain.narrow_step"])
def test_nothing_passes_that_is_nearly_right(name, spoiled):
    answer = find(name).answer
    verdict = check(name, lambda *arguments: spoiled(answer(*arguments)))
    # and not for its signature alone
    assert not verdict and "arguments" not in verdict.text


# --- the engine on an exercise of its own


def use(monkeypatch, **changes) -> Exercise:
    made = Exercise(
        "test.double",
        "Double",
        lambda x: 2 * x,
        (Slip("squared", lambda x: x**2),),
        lambda generator: (torch.randn(3, generator=generator),),
    )
    made = replace(made, **changes)
    monkeypatch.setattr(engine, "exercises", lambda: {1: ("Test", (made,))})
    return made


def test_a_dict_is_compared_by_its_keys(monkeypatch):
    slip = Slip("exchanged", {"a": "two", "b": "one"})
    told = lambda arguments, got, wanted: f"a is {got['a']}" if got["a"] != "one" else ""  # noqa: E731
    use(monkeypatch, answer={"a": "one", "b": "two"}, slips=(slip,), explain=told)
    assert check("test.double", {"b": "two", "a": "one"})
    assert said("test.double", {"a": None, "b": ...}) == "not attempted yet."
    assert said("test.double", {"a": "two", "b": "one"}) == "not yet. exchanged"
    assert said("test.double", {"a": None, "b": "two"}) == "not yet. a is None"
    assert said("test.double", {"a": "one", "b": "x"}) == "not yet. 'b': 'x' is not right."
    assert "keys should be 'a', 'b', and are 'a'" in said("test.double", {"a": "one"})
    assert "a dict with the keys 'a', 'b', and is 2 values" in said("test.double", ("one", "two"))


def test_inputs_are_fresh_each_time(monkeypatch):
    seen = []
    use(monkeypatch)
    for _ in range(2):
        check("test.double", lambda x: seen.append(x.clone()) or 2 * x)
    assert len({tuple(x.tolist()) for x in seen}) == 6  # three trials each; the first is called twice


def test_an_attempt_may_be_judged_by_what_many_calls_give(monkeypatch):
    use(
        monkeypatch,
        answer=lambda: 0,
        slips=(Slip("uniform", lambda: torch.rand(())),),
        run=lambda attempt, _: torch.stack([(x := torch.tensor([float(attempt()) for _ in range(4_000)])).mean(), x.var()]),
        tolerance=0.05,
    )  # fmt: skip
    assert check("test.double", lambda: 0.0)
    assert said("test.double", lambda: torch.rand(())) == "not yet. uniform"
    assert not check("test.double", lambda: 2 * torch.rand(()))


def test_a_broken_answer_is_an_error_and_not_the_readers_fault(monkeypatch):
    use(monkeypatch, answer=lambda x: x @ torch.ones(5))
    verdict = check("test.double", lambda x: x)
    assert verdict.status == "not marked" and "the answer to test.double is broken" in verdict.text


def test_an_unknown_name_is_told_its_neighbours():
    with pytest.raises(ValueError, match="'chain.noisin'.*did you mean 'chain.noising'"):
        check("chain.noisin", None)
