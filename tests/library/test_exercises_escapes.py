"""Nothing that an attempt does escapes `check`: exceptions, odd results, endless work, and changed settings."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import warnings
from collections import UserDict, deque
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from ddpm_lib import chain
from ddpm_lib.exercises import Exercise, Slip, Verdict, check, engine, find, limits


@pytest.fixture(autouse=True)
def progress(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_LIB_PROGRESS", str(tmp_path / "progress.json"))


def answer_of(name):
    return find(name).answer


def noising(x0, t, eps):
    return answer_of("chain.noising")(x0, t, eps)


def told(name, attempt) -> str:
    """The text of a verdict that finds fault with the attempt, in few words, and not with ourselves."""
    verdict = check(name, attempt)
    assert isinstance(verdict, Verdict) and verdict.status == "not yet", verdict
    assert len(verdict.text) < 1500 and len(verdict.text.splitlines()) < 16
    assert "our mistake" not in verdict.text
    return verdict.text


ALL = [exercise for _, group in engine.exercises().values() for exercise in group]
# one exercise of each form: a tensor, a number, several values, several calls
FORMS = (
    "chain.noising",
    "metrics.floor",
    "floor.monte_carlo",
    "targets.convert",
    "guidance.dial",
    "training.one_batch",
)

# --- exceptions


class Mute(Exception):
    def __str__(self):
        raise LookupError("no words")

    __repr__ = __str__


class NoText(Exception):
    def __str__(self):
        return 3


class Group(BaseException):
    pass


class Renamed(type):
    @property
    def __name__(cls):
        raise SystemExit


class Nameless(Exception, metaclass=Renamed):
    pass


EXCEPTIONS = (
    SystemExit(3),
    asyncio.CancelledError(),
    GeneratorExit(),
    Group("odd"),
    Mute(),
    NoText(),
    Nameless("nameless"),
    StopIteration(1),
    MemoryError(),
    RecursionError(),
    BaseExceptionGroup("two", [SystemExit(), Mute()]),
    ValueError("x" * 100_000),
    ValueError("line\n" * 10_000),
)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: f"{error.__class__.__qualname__}")
def test_whatever_is_raised_is_reported(name, error):
    def attempt(*arguments):
        raise error

    assert "Your code raised" in told(name, attempt)


def test_an_exception_is_named_with_its_text_and_its_line():
    text = told("chain.noising", lambda x0, t, eps: sys.exit("enough"))
    assert "SystemExit: enough\n  in <lambda>, line " in text and 'sys.exit("enough")' in text


def test_only_the_readers_own_interrupt_goes_through():
    with pytest.raises(KeyboardInterrupt):
        check("chain.noising", lambda x0, t, eps: signal.raise_signal(signal.SIGINT))

    def passed_on(x0, t, eps):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise

    with pytest.raises(KeyboardInterrupt):
        check("chain.noising", passed_on)

    def raised(x0, t, eps):
        raise KeyboardInterrupt

    assert "Your code raised KeyboardInterrupt" in told("chain.noising", raised)


def test_a_deep_recursion_is_told_by_its_ends():
    def deeper(x0, t, eps):
        return deeper(x0, t, eps)

    def outer(x0, t, eps):
        return deeper(x0, t, eps)

    lines = told("chain.noising", outer).splitlines()
    assert "RecursionError" in lines[0] and len(lines) == 8
    assert "in outer" in lines[1] and "more lines" in lines[4]
    assert all("in deeper" in line for line in lines[2:4] + lines[5:])


def test_frames_of_installed_packages_are_not_the_readers():
    """Colab and Debian keep packages in dist-packages."""
    code = compile(
        "def fail(x):\n    raise ValueError(x)\n", "/usr/lib/python3/dist-packages/torch/x.py", "exec"
    )
    names = {}
    exec(code, names)
    text = told("chain.noising", lambda x0, t, eps: names["fail"](1))
    assert "in <lambda>" in text and "in fail" not in text


# --- not attempted, or an error


def test_only_a_raise_of_ones_own_says_that_nothing_is_written():
    def bare(x0, t, eps):
        raise NotImplementedError

    def begun(x0, t, eps):
        share = x0.mean()
        raise NotImplementedError(f"the rest, with {share}")

    for attempt in (bare, begun):
        assert check("chain.noising", attempt).status == "not attempted"


@pytest.mark.parametrize(
    "attempt",
    [
        lambda x0, t, eps: torch.nn.Module()(x0),
        lambda x0, t, eps: torch.ones(2, device="meta").to_sparse_csr(),
        lambda x0, t, eps: torch.ones(3, device="meta").cpu(),
    ],
)
def test_an_error_of_torch_is_shown_though_it_is_called_not_implemented(attempt):
    assert "Your code raised NotImplementedError: " in told("chain.noising", attempt)


# --- results that cannot be compared


class Raising:
    """Raises in whatever one may ask of a result."""

    def fail(self, *arguments, **named):
        raise LookupError("no")

    __array__ = __eq__ = __len__ = __bool__ = __iter__ = __float__ = __getattr__ = __repr__ = __hash__ = fail


class Exits(Raising):
    def __array__(self, *arguments, **named):
        sys.exit()


class Disguised:
    @property
    def __class__(self):
        raise SystemExit


class BadDict(dict):
    def items(self):
        raise LookupError("no items")

    keys = values = __iter__ = items


class BadTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        raise LookupError("no function")


def raising_in_an_array():
    array = np.empty(2, dtype=object)
    array[0] = Raising()
    return array


def itself():
    row = []
    row.append(row)
    return row


def deep():
    row = [1.0]
    for _ in range(100_000):
        row = [row]
    return row


ODD = {
    "raising": Raising,
    "raising in a tuple": lambda: (Raising(), Raising()),
    "raising in a list": lambda: [[Raising()]],
    "raising in an array": raising_in_an_array,
    "exits": Exits,
    "disguised": Disguised,
    "bad dict": BadDict,
    "bad tensor": lambda: torch.ones(6, 3, dtype=torch.float64).as_subclass(BadTensor),
    "text": lambda: "x" * 10_000,
    "bytes": lambda: b"x",
    "nothing in a tuple": lambda: (None, None),
    "empty": lambda: (),
    "empty dict": dict,
    "set": lambda: {1.0, 2.0},
    "function": lambda: noising,
    "class": lambda: Raising,
    "itself": itself,
    "deep": deep,
    "huge number": lambda: 10**400,
    "complex": lambda: 1j,
    "ragged": lambda: [[1.0], [1.0, 2.0]],
    "mixed": lambda: [1.0, "a", None],
    "dates": lambda: np.array(["2026-01-01"], dtype="datetime64[D]"),
    "records": lambda: np.zeros(3, dtype=[("a", float), ("b", int)]),
    "words": lambda: np.array(["a", "b"]),
    "endless": lambda: itertools.count(),
    "meta": lambda: torch.ones(6, 3, device="meta"),
    "meta in a list": lambda: [torch.ones(3, device="meta"), torch.ones(3)],
    "sparse": lambda: torch.eye(6, 3).to_sparse(),
    "sparse rows": lambda: torch.eye(6, 3).to_sparse_csr(),
    "large and sparse": lambda: torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6)),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(6, 3), 0.1, 0, torch.qint8),
    "float8": lambda: torch.ones(6, 3).to(torch.float8_e4m3fn),
    "unsigned": lambda: np.ones((6, 3), dtype=np.uint64),
    "foreign bytes": lambda: np.ones((6, 3), dtype=">f8"),
    "expanded": lambda: torch.zeros(1).expand(10**9),
    "expanded array": lambda: np.broadcast_to(np.zeros(1), (10**9,)),
    "expanded in a list": lambda: [torch.zeros(1).expand(10**7)] * 1000,
    "lists of one list": lambda: [[0.0] * 10**4] * 10**6,
    "needs gradient": lambda: torch.ones(6, 3, requires_grad=True),
    "conjugate": lambda: torch.ones(6, 3, dtype=torch.complex64).conj(),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*(sparse|nested|quantiz|Sparse|Nested).*")
@pytest.mark.parametrize("name", ["chain.noising", "metrics.floor", "targets.convert"])
@pytest.mark.parametrize("odd", ODD)
def test_whatever_is_returned_is_described(name, odd):
    told(name, lambda *arguments: ODD[odd]())


@pytest.mark.filterwarnings("ignore:.*(sparse|nested|quantiz|Sparse|Nested).*")
@pytest.mark.parametrize("name", ["chain.last_step", "training.diagnose"])
@pytest.mark.parametrize("odd", ODD)
def test_whatever_is_given_for_a_value_is_described(name, odd):
    value = ODD[odd]()
    if odd == "nothing in a tuple":
        assert check(name, value).status == "not attempted"
    else:
        told(name, value)


@pytest.mark.parametrize("exercise", ALL, ids=lambda each: each.name)
def test_no_exercise_fails_on_what_it_did_not_expect(exercise):
    for odd in ("text", "nothing in a tuple", "ragged", "expanded", "raising", "disguised"):
        value = ODD[odd]()
        if callable(exercise.answer):
            told(exercise.name, lambda *arguments: value)  # noqa: B023
            assert "It returns None" in told(exercise.name, lambda *arguments: print(end=""))
        elif odd != "nothing in a tuple":
            told(exercise.name, value)


def test_a_shape_is_looked_at_before_the_numbers():
    assert "The shape is (1000000000,), should be (6, 3)" in told(
        "chain.noising", lambda *_: ODD["expanded"]()
    )
    assert "'meta', which holds no numbers" in told("chain.noising", lambda *_: ODD["meta"]())


@pytest.mark.parametrize("odd", ["endless", "lists of one list", "expanded in a list"])
def test_more_than_any_answer_has_is_read_to_the_end_of_patience(odd):
    assert "It has far too many values" in told("sampling.calls", ODD[odd]())


def test_a_huge_result_takes_no_memory():
    """10^9 numbers that are one number 10^9 times, in a process that may have 3 GB more than torch takes."""
    code = (
        "import resource, torch\n"
        "from ddpm_lib.exercises import check\n"
        "check('chain.noising', lambda x0, t, eps: x0, record=False)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30,) * 2)\n"
        "print(check('chain.noising', lambda x0, t, eps: torch.zeros(1).expand(10**9), record=False))\n"
    )
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("this system does not tell how much memory a process has")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "The shape is (1000000000,)" in run.stdout, run.stderr


# --- results in another form that are right


@pytest.mark.filterwarnings("ignore:.*(sparse|Sparse).*")
@pytest.mark.parametrize(
    "form",
    [
        lambda x: x.to_sparse(),
        lambda x: x.numpy().astype(">f8"),
        lambda x: x.numpy().astype(np.longdouble),
        lambda x: np.asfortranarray(x.numpy())[::-1][::-1],
        lambda x: np.array(x.tolist(), dtype=object),
        lambda x: x.numpy().view(np.matrix),
        lambda x: torch.nn.Parameter(x),
        lambda x: x.to(torch.complex128).conj().real,
        lambda x: [torch.tensor(row, requires_grad=True) for row in x.tolist()],
        lambda x: (list(row) for row in x.numpy()).__iter__() and [map(float, row) for row in x],
        lambda x: deque(map(tuple, x.tolist())),
        lambda x: [[Fraction(each) for each in row] for row in x.tolist()],
        lambda x: x.expand(6, 3),
    ],
)
def test_right_numbers_are_right_in_any_form(form):
    assert check("chain.noising", lambda *arguments: form(noising(*arguments)))


@pytest.mark.parametrize(
    "form",
    [
        torch.tensor,
        np.array,
        np.float32,
        lambda x: [x],
        lambda x: torch.tensor([[x]]),
        lambda x: (np.array([x]),),
    ],
)
def test_one_number_may_come_in_any_shape(form):
    answer = answer_of("metrics.floor")
    assert check("metrics.floor", lambda *arguments: form(float(answer(*arguments))))
    assert check("chain.last_step", form(5e-4))


def test_values_that_are_used_up_by_reading_are_read_once():
    assert check("sampling.calls", map(int, ("200", "12800")))
    assert check("training.diagnose", UserDict(answer_of("training.diagnose")))


@pytest.mark.filterwarnings("ignore")
def test_quantised_numbers_are_read():
    whole = torch.tensor([4.0, 4.0, 16.0, 1.0])
    assert check("unet.memory", torch.quantize_per_tensor(whole, 1.0, 0, torch.qint8))


def test_a_buffer_that_is_used_again_for_every_result_is_not_confused():
    buffer = torch.empty(6, 3, dtype=torch.float64)
    assert check("chain.noising", lambda *arguments: buffer.copy_(noising(*arguments)))


def every_form_of(x):
    return x.tolist(), x.numpy(), x.float(), x.numpy().astype(np.float32), [*map(tuple, x.tolist())]


@pytest.mark.parametrize("slip", find("chain.noising").slips[:-1], ids=lambda slip: slip.hint[:30])
def test_a_slip_is_known_in_every_form(slip):
    for form in range(5):
        text = told("chain.noising", lambda *arguments: every_form_of(slip.attempt(*arguments))[form])  # noqa: B023
        assert text == f"not yet. {slip.hint}"


def test_shapes_that_do_not_fit_are_the_same_slip_in_numpy():
    def without_axis(x0, t, eps):
        share = chain.linear(200, 0.0005, 0.1).alpha_bar.numpy()[t.numpy()]
        return np.sqrt(share) * x0.numpy() + np.sqrt(1 - share) * eps.numpy()

    assert told("chain.noising", without_axis) == f"not yet. {find('chain.noising').slips[-1].hint}"
    assert "could not be broadcast" in told("chain.noising", lambda x0, t, eps: x0.numpy() + np.ones((2, 5)))


# --- generators, coroutines, classes


def generating(x0, t, eps):
    yield noising(x0, t, eps)


async def waiting(x0, t, eps):
    return noising(x0, t, eps)


async def both(x0, t, eps):
    yield noising(x0, t, eps)


class Callable:
    def __init__(self, x0, t, eps):
        self.result = noising(x0, t, eps)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (generating, "`return`"),
        (lambda x0, t, eps: generating(x0, t, eps), "`return`, not with `yield`"),
        (waiting, "without `async`"),
        (lambda x0, t, eps: waiting(x0, t, eps), "without `async`"),
        (both, "`return`"),
        (Callable, "this is a class"),
    ],
)
def test_what_gives_no_result_is_told_to_return_one(attempt, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody waited for a coroutine
        text = told("chain.noising", attempt)
    assert words in text and "two answers" not in text


def test_an_attempt_that_is_no_plain_function_may_be_right():
    class Noiser:
        def __call__(self, x0, t, eps):
            return noising(x0, t, eps)

        @classmethod
        def of(cls, x0, t, eps):
            return noising(x0, t, eps)

    for attempt in (Noiser(), Noiser.of, torch.no_grad()(noising)):
        assert check("chain.noising", attempt)


# --- settings that belong to everybody


def settings() -> dict:
    return {
        "python": random.getstate(),
        "numpy": [np.asarray(each).tolist() for each in np.random.get_state()],  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "recursion": sys.getrecursionlimit(),
        "numpy errors": np.geterr(),
        "warnings": list(warnings.filters),
    }


def change_everything(device="meta"):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float16)
    torch.set_default_device(device)
    torch.set_grad_enabled(False)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(True)
    sys.setrecursionlimit(sys.getrecursionlimit() + 7)
    np.seterr(all="raise")
    warnings.simplefilter("error")


def test_settings_are_put_back_and_do_not_touch_the_mark():
    before = settings()

    def right(x0, t, eps):
        change_everything("cpu")
        return noising(x0, t, eps)

    def wrong(x0, t, eps):
        change_everything()
        return 2 * x0

    def fails(x0, t, eps):
        change_everything()
        raise ValueError

    assert check("chain.noising", right)
    assert settings() == before
    told("chain.noising", wrong)
    assert settings() == before
    told("chain.noising", fails)
    assert settings() == before


@pytest.mark.parametrize("name", FORMS)
def test_marking_draws_no_numbers_of_the_readers(name):
    before = settings()
    check(name, answer_of(name))
    assert settings() == before


def test_the_marks_are_the_same_whatever_a_notebook_has_set():
    kept = limits.SETTINGS, np.geterr()
    values = [get() for get, _ in kept[0]]
    try:
        torch.set_default_dtype(torch.float16)
        torch.set_default_device("meta")
        np.seterr(all="raise")
        with torch.no_grad(), torch.inference_mode():
            for name in (*FORMS, "unet.identity"):
                assert check(name, answer_of(name)), check(name, answer_of(name))
            assert torch.is_inference_mode_enabled()
        assert torch.get_default_dtype() == torch.float16 and torch.get_default_device().type == "meta"
    finally:
        for (_, put), value in zip(kept[0], values, strict=True):
            put(value)
        np.seterr(**kept[1])


@pytest.mark.parametrize("exercise", ALL, ids=lambda each: each.name)
def test_every_answer_is_right_in_double_precision_and_without_gradients(exercise):
    """As chapter 4 sets it, and as readers do who only draw."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            assert check(exercise.name, exercise.answer)
            assert not torch.is_grad_enabled() and torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_attempt_sees_the_precision_of_its_notebook():
    torch.set_default_dtype(torch.float64)
    try:
        assert check("chain.noising", lambda *a: noising(*a) + (torch.zeros(()).dtype != torch.float64))
    finally:
        torch.set_default_dtype(torch.float32)


def test_settings_are_put_back_after_an_attempt_that_was_stopped():
    before = settings()

    def endless(x0, t, eps):
        change_everything()
        while True:
            pass

    assert "was stopped" in check("chain.noising", endless, limit=0.2).text
    assert settings() == before


def test_looking_at_a_result_is_a_part_of_the_time():
    class Slow:
        def __array__(self, *arguments, **named):
            while True:
                pass

    assert "was stopped" in check("chain.noising", lambda x0, t, eps: Slow(), limit=0.2).text
    assert "was stopped" in check("chain.last_step", Slow(), limit=0.2).text


# --- errors of our own


def use(monkeypatch, **changes) -> None:
    made = Exercise(
        "test.double",
        "Double",
        lambda x: 2 * x,
        (Slip("squared", lambda x: x**2),),
        lambda generator: (torch.randn(3, generator=generator),),
    )
    monkeypatch.setattr(engine, "exercises", lambda: {1: ("Test", (replace(made, **changes),))})


def fail(*arguments):
    raise ValueError("a slip\nof our own")


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": lambda x: fail()},
        {"inputs": fail},
        {"run": fail},
        {"answer": lambda x: x @ torch.ones(5)},
        {"run": lambda attempt, arguments: attempt(*arguments) + ["a"]},
    ],
)
def test_an_error_of_the_marker_is_called_ours(monkeypatch, changes, tmp_path):
    use(monkeypatch, **changes)
    verdict = check("test.double", lambda x: x)
    assert not verdict and verdict.status == "not marked"
    assert "our mistake and not yours" in verdict.text and "Your code" not in verdict.text.partition("(")[0]
    assert len(verdict.text.splitlines()) == 1
    # and it is no try of the reader's
    assert not (tmp_path / "progress.json").exists()


def test_a_hint_that_fails_leaves_the_usual_words(monkeypatch):
    use(monkeypatch, explain=fail)
    text = check("test.double", lambda x: x + 5).text
    assert text.startswith("not yet. At [") and "by our mistake: ValueError: a slip of our own." in text


def test_a_name_that_is_no_text_is_unknown():
    for name in (3, ["chain.noising"], None):
        with pytest.raises(ValueError, match="no exercise is called"):
            check(name, None)


def test_an_attempt_that_writes_into_its_arguments_is_told_so_where_nothing_else_is_known():
    def attempt(x0, t, eps):
        eps.mul_(3)
        return noising(x0, t, eps)

    assert told("chain.noising", attempt).endswith(
        "It also writes into `eps`, which it was given: is that meant?"
    )
    assert "writes into" not in told("chain.noising", lambda x0, t, eps: noising(x0, t, 3 * eps))
