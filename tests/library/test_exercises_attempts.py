"""Attempts as people hand them in: what is wrong anywhere is known everywhere, in any form, and nothing passes by luck."""

from __future__ import annotations

import io
import math
import os
import re
import signal
import sys
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddpm_lib import chain
from ddpm_lib.exercises import Exercise, check, engine, exercises, find
from ddpm_lib.exercises.marking import trials_of

ALL = [exercise for _, group in exercises().values() for exercise in group]
# those whose results are numbers of the attempt's own
OF_NUMBERS = [
    exercise
    for exercise in ALL
    if callable(exercise.answer)
    and exercise.name not in ("training.one_batch", "unet.identity", "guidance.dial", "metrics.claim")
]


@pytest.fixture(autouse=True)
def progress(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_LIB_PROGRESS", str(tmp_path / "progress.json"))


def by_name(exercise):
    return exercise.name


def told(name, attempt) -> str:
    """The text of a verdict that finds fault with the attempt, and not with ourselves."""
    verdict = check(name, attempt)
    assert verdict.status == "not yet", verdict
    assert "our mistake" not in verdict.text, verdict
    return verdict.text


def answer_of(name):
    return find(name).answer


def changed(value, change):
    """The same with a change made to all numbers."""
    if isinstance(value, tuple):
        return tuple(changed(each, change) for each in value)
    return change(torch.as_tensor(value, dtype=torch.float64))


# --- what may be wrong anywhere is known everywhere

CHANGES = {
    "The sign is turned": torch.neg,
    "100 times": lambda x: 100 * x,
    "in bits": lambda x: x / math.log(2),
    "3 times": lambda x: 3 * x,
}


@pytest.mark.parametrize("words", CHANGES)
@pytest.mark.parametrize("exercise", OF_NUMBERS, ids=by_name)
def test_a_sign_and_a_factor_are_named_in_every_exercise(exercise, words):
    def attempt(*arguments):
        return changed(exercise.answer(*arguments), CHANGES[words])

    verdict = check(exercise.name, attempt)
    assert verdict.status == "not yet", verdict
    named = [slip.hint for slip in exercise.slips]
    assert words in verdict.text or verdict.text.removeprefix("not yet. ") in named, verdict


@pytest.mark.parametrize(
    "name",
    [
        "elbo.posterior",
        "floor.monte_carlo",
        "targets.published",
        "index.all_steps",
        "guidance.band",
        "guidance.widths",
        "guidance.accuracy",
        "metrics.halfway",
    ],
)
def test_exchanged_values_are_named_also_where_their_shapes_differ(name):
    exercise = find(name)
    text = told(name, lambda *arguments: exercise.answer(*arguments)[::-1])
    named = [slip.hint for slip in exercise.slips]
    assert "in the other order" in text or text.removeprefix("not yet. ") in named


def test_values_in_another_order_are_named_also_where_they_do_not_change():
    assert "in another order" in told("softmax.duplicates", (0.5, 0.75, -0.586))
    assert "in another order" in told("unet.memory", (1, 4, 4, 16))


def noising(x0, t, eps):
    return answer_of("chain.noising")(x0, t, eps)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.T, "Rows and columns are exchanged"),
        (lambda x: x[None], "right, and in another shape: (1, 6, 3) where (6, 3) is asked for"),
        (lambda x: x.flatten().numpy(), "right, and in another shape: (18,)"),
        (lambda x: (x, x + 1), "Only the first of the values that it gives is asked for"),
        (lambda x: (x - 1, x), "Only the second of the values"),
        (lambda x: (x - 1, x + 1), "It should be a tensor of shape (6, 3), and is 2 values"),
        (lambda x: x + 1, "It is 1 too large, always"),
        (lambda x: x / 7, "It is 1/7 of what it should be, always"),
        (lambda x: 1 - x, "It is 1 minus what it should be"),
        (lambda x: 1 / x, "It is 1 divided by what it should be"),
        (lambda x: x.exp(), "It is the exponential of what it should be"),
        (lambda x: x.flip(1), "Along the last axis their order is turned round"),
    ],
)
def test_the_right_numbers_in_another_form_are_told_so(change, words):
    assert words in told("chain.noising", lambda *arguments: change(noising(*arguments)))


def test_axes_of_other_lengths_may_be_exchanged():
    features = answer_of("unet.time_features")
    assert "Rows and columns" in told("unet.time_features", lambda logsnr, width: features(logsnr, width).T)
    attention = answer_of("unet.attention")
    assert "axes are in another order" in told(
        "unet.attention", lambda *given: attention(*given).permute(0, 2, 3, 1)
    )


def test_one_place_too_far_is_off_by_one():
    table = answer_of("schedule.zero_terminal")
    assert "one place too far" in told("schedule.zero_terminal", lambda bar: table(bar).roll(1))

    def shifted(t, beta, sigma2):
        return (1 - beta[1:]).cumprod(0)[t + beta.numel() - 1 - t]  # one beyond the last

    assert "the last of 60 has the number 59: is an index off by one?" in told("elbo.weight", shifted)


def test_what_is_written_through_numpy_is_seen():
    def attempt(x0, t, eps):
        x0.numpy()[:] *= 2
        return x0 * eps

    assert "also writes into `x0`" in told("chain.noising", attempt)


# --- hints in every form


@pytest.mark.parametrize(
    ("form", "also"),
    [
        (lambda x: x.bfloat16(), "computed in bfloat16"),
        (lambda x: x.half().numpy(), "computed in float16"),
        (lambda x: x.half().tolist(), "computed in float16"),
        (lambda x: x.round(decimals=3), "rounded to 3 decimals"),
        (lambda x: x.numpy().astype(np.float32), ""),
        (lambda x: [torch.tensor(row) for row in x.tolist()], ""),
    ],
)
@pytest.mark.parametrize("name", ["chain.noising", "targets.published", "unet.attention", "pixels.shrink"])
def test_a_slip_is_known_in_every_precision(name, form, also):
    slip = find(name).slips[0]

    def attempt(*arguments):
        result = slip.attempt(*arguments)
        return tuple(map(form, result)) if isinstance(result, tuple) else form(result)

    text = told(name, attempt)
    assert slip.hint in text and also in text


def test_a_sign_is_seen_through_few_digits():
    text = told("chain.noising", lambda *arguments: (-noising(*arguments)).bfloat16())
    assert "The sign is turned." in text and "computed in bfloat16" in text
    text = told("softmax.duplicates", (0.75, 0.5, 0.59))
    assert "not its side" in text and "rounded to 2 decimals" in text


def test_a_list_of_tensors_of_one_number_is_a_row():
    mean = answer_of("training.per_time")
    assert check("training.per_time", lambda *given: [each.reshape(1) for each in mean(*given)])


def test_numbers_that_are_whole_by_rounding_are_called_coarse():
    band = answer_of("guidance.band")
    for cut in (round, math.floor):
        text = told("guidance.band", lambda *given: (cut(band(*given)[0]), math.ceil(band(*given)[1])))  # noqa: B023
        assert "rounded to whole numbers" in text


def test_what_is_no_number_is_told_before_small_differences():
    def upside_down(x, x0, t, z):
        mean, variance = chain.linear(200, 0.0005, 0.1).posterior(x, x0, t)
        return mean + 1.0001 * variance.sqrt() * z / (1 if t > 1 else 0)

    assert "At t = 1: " in told("chain.narrow_step", upside_down)


# --- nothing wrong passes by luck


def softmax_of(distance2):
    def attempt(x, points, a, s):
        return torch.softmax(-distance2(x, a * points) / (2 * s**2), 1) @ points

    return attempt


def dial(change):
    def attempt(denoise, x, t, label, scale):
        scale = change(scale)
        if scale in (0, 1):
            return denoise(x, t, label if scale else torch.full_like(label, -1))
        without = denoise(x, t, torch.full_like(label, -1))
        return without + scale * (denoise(x, t, label) - without)

    return attempt


class Block(nn.Module):
    def __init__(self, channels, cut=lambda x: x, frozen=False):
        super().__init__()
        self.first, self.last = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.cut = cut
        self.requires_grad_(not frozen)

    def forward(self, x):
        return x + self.cut(self.last(F.relu(self.first(x))))


def without_gradient(x):
    with torch.no_grad():
        return x.clone()


def referee(width, times=1.96):
    def attempt(a, b):
        if any(a[key] != b[key] for key in ("count", "features", "reference")):
            return "not comparable"
        if abs(a["value"] - b["value"]) <= times * width(a["error"], b["error"]):
            return "cannot say"
        return "better" if a["value"] < b["value"] else "worse"

    return attempt


PASSED_ONCE = {
    # points so few that torch.cdist takes them one by one
    "float32 by products": ("softmax.stable", softmax_of(lambda x, c: torch.cdist(x, c).square())),
    "near a small number": ("chain.last_step", 0.00050024),
    "square of a rounded root": ("chain.last_step", 0.0224**2),
    "held down far out": ("guidance.dial", dial(lambda scale: min(scale, 10))),
    "held down on both sides": ("guidance.dial", dial(lambda scale: max(min(scale, 8), -2))),
    "flat near 1": ("guidance.dial", dial(lambda scale: 1 if abs(scale - 1) < 1e-3 else scale)),
    "always 64 channels": ("unet.identity", lambda channels: Block(64)),
}


@pytest.mark.parametrize("case", PASSED_ONCE)
def test_what_passed_once_does_not_pass(case):
    for _ in range(8):
        told(*PASSED_ONCE[case])


def test_differences_before_squares_keep_the_digits():
    assert check("softmax.stable", softmax_of(lambda x, c: (x[:, None] - c).square().sum(2)))
    assert check("chain.last_step", 0.02236**2)


# --- rows: an exercise, an attempt, what it should be told


def mixture(change):
    """The score with the parts of each component changed: logits, pulls, variances."""

    def attempt(x, a, s, weights, means, stds):
        variances, away = a**2 * stds**2 + s**2, a * means - x[:, None]
        logits = -away.square().sum(2) / (2 * variances) - x.shape[1] / 2 * variances.log()
        chances, divisor = change(logits, weights, variances, s)
        return (chances[..., None] * away / divisor[:, None]).sum(1)

    return attempt


def attention(weigh):
    def attempt(q, k, v, heads):
        q, k, mixed = (each.flatten(2).unflatten(1, (heads, -1)).mT for each in (q, k, v))
        return (weigh(q @ k.mT / q.shape[-1] ** 0.5) @ mixed).mT.reshape(v.shape)

    return attempt


def of_floor(change):
    def attempt(x0, eps, a, s, guess):
        return change((guess(a * x0 + s * eps) - x0).square())

    return attempt


def flips(weigh):
    def attempt(x, points, a, s, p):
        both = torch.cat([points, points.flip(-1)])
        chances = torch.tensor([1 - p, p], dtype=x.dtype).repeat_interleave(len(points))
        away = (x[:, None] - a * both).square().sum((2, 3)) / (2 * s**2)
        return torch.einsum("bn,nhw->bhw", weigh(away, chances), both)

    return attempt


ROWS = [
    ("chain.narrow_step", lambda x, x0, t, z: answer_of("chain.narrow_step")(x0, x, t, z), "x and x0 have each other's factors"),
    ("chain.last_step", 2.87, "in grey levels"),
    ("chain.last_step", -0.0005, "never negative"),
    ("schedule.cosine", lambda T: answer_of("schedule.cosine")(T - 1), "There are T entries"),
    ("schedule.jump", lambda x, t, k, eps, bar: (bar[t] / bar[t + k]).sqrt() * x + (1 - bar[t] / bar[t + k]).sqrt() * eps, "upside down"),
    ("score.mixture", mixture(lambda logits, w, v, s: ((logits + w).softmax(1), v)), "what is that in the exponent?"),
    ("score.mixture", mixture(lambda logits, w, v, s: ((logits + w.log()).softmax(1), v.sqrt())), "divided by its standard deviation"),
    ("score.mixture", mixture(lambda logits, w, v, s: ((logits + w.log()).exp(), v)), "do not sum to 1"),
    ("floor.monte_carlo", of_floor(lambda e: (e.mean(), e.mean(1).std() / len(e))), "and not by the root of n"),
    ("floor.monte_carlo", of_floor(lambda e: (e.mean(), e.mean(1).std() / e.shape[1] ** 0.5)), "the root of D"),
    ("copies.count", lambda samples, points, limit: (torch.cdist(samples, points).amin(1) / samples.shape[1] < limit).double().mean(), "the root of D that divides"),
    ("elbo.weight", lambda t, beta, sigma2: (beta**2 / 2 * sigma2 * (1 - beta) * (1 - (1 - beta).cumprod(0)))[t], "brackets are missing"),
    ("elbo.gap", lambda x0, bar, w, v: answer_of("elbo.gap")(x0, bar, w, v**2), "v was taken for a standard deviation"),
    ("targets.convert", lambda x_t, y, a, s, given, wanted: answer_of("targets.convert")(x_t, y, s, a, given, wanted), "a and s were exchanged"),
    ("targets.min_snr", lambda logsnr, gamma, name: answer_of("targets.min_snr")(logsnr, 5.0, name), "gamma was taken to be 5"),
    ("unet.attention", attention(lambda products: products.softmax(-1).mT), "they are turned round"),
    ("unet.attention", attention(lambda products: products.softmax(1)), "runs over the heads"),
    ("unet.attention", attention(lambda products: products), "The softmax is missing"),
    ("unet.identity", lambda channels: Block(channels, frozen=True), "weights are frozen"),
    ("unet.identity", lambda channels: Block(channels, without_gradient), "no gradient leads back"),
    ("training.average", lambda start, constant, half_life, updates: answer_of("training.average")(start, constant, half_life, updates + 1), "one update too few or too many"),
    ("training.first_loss", lambda target, a, s, m: answer_of("training.first_loss")(target, a, s, m) / 2, "It is 1/2 of what it should be"),
    ("training.first_loss", lambda target, a, s, m: answer_of("training.first_loss")(target, a, s, 1.0), "m was taken to be 1"),
    ("flips.best_guess", flips(lambda away, chances: (-away).softmax(1) * chances), "no longer sum to 1"),
    ("flips.best_guess", flips(lambda away, chances: 0.9 * (chances.log() - away).softmax(1)), "It is 0.9 times what it should be"),
    ("guidance.convert", lambda weight, source: weight + 1, "adds 1 to every weight"),
    ("guidance.accuracy", lambda logits, label: F.cross_entropy(logits, label), "It should be 2 values, and is a number"),
    ("guidance.accuracy", lambda logits, label: (answer_of("guidance.accuracy")(logits, label)[0], 0.5 / len(label) ** 0.5), "as if the share were 0.5"),
    ("guidance.dial", lambda denoise, x, t, label, scale: denoise(x, t, label) * math.nan, "At scale 0: 12 of 12 numbers are NaN"),
    ("metrics.kernel", lambda x, y: -answer_of("metrics.kernel")(x, y), "On two different sets: The sign is turned"),
    ("metrics.claim", referee(lambda a, b: a**2 + b**2), "no root was taken"),
    ("metrics.claim", referee(max), "the larger of the two errors"),
    ("metrics.claim", lambda a, b: "can't say", "which is none of the four texts"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "attempt", "words"), ROWS, ids=[f"{row[0]}: {row[2]}" for row in ROWS])
def test_an_attempt_is_told_what_is_wrong_with_it(name, attempt, words):
    text = told(name, attempt)
    assert words in text, text


def test_a_value_of_the_marker_is_never_called_a_value_of_the_readers():
    """Where what is compared is not what the attempt returned."""
    for name in ("guidance.dial", "training.one_batch", "unet.identity"):
        attempt = {"guidance.dial": dial(lambda scale: -scale)}.get(name, lambda *arguments: arguments[0])
        assert not re.search(r"Value \d", check(name, attempt).text)


def test_a_block_gets_the_same_hint_each_time():
    """Its weights are random, and what is wrong with it is not."""

    class Mean(Block):
        def forward(self, x):
            return x + self.last(F.relu(self.first(x))).mean()

    for _ in range(3):
        assert "two answers" not in told("unet.identity", Mean)


# --- the titles are those of the chapters


def test_a_title_is_the_one_that_stands_over_the_exercise():
    from test_exercises import notebooks

    for cells in notebooks().values():
        title = ""
        for cell in cells:
            heading = re.search(r"\{exercise\} (.+)", cell.source)
            title = heading[1] if heading else title
            for name in re.findall(r'^check\("([\w.]+)"', cell.source, re.MULTILINE):
                assert find(name).title == title


# --- a tolerance for each of several values


def test_each_of_several_values_has_its_own_tolerance(monkeypatch):
    made = Exercise(
        "test.two",
        "Two",
        lambda x: (x, 2 * x),
        (),
        lambda generator: (torch.rand((), generator=generator),),
        tolerance=(1e-6, 1e-2),
    )
    monkeypatch.setattr(engine, "exercises", lambda: {1: ("Test", (made,))})
    assert check("test.two", lambda x: (x, 2.001 * x))
    assert not check("test.two", lambda x: (1.001 * x, 2 * x))
    for other in (lambda x: x, lambda x: (x, x, x), lambda x: torch.ones(3, 2), lambda x: (1.5, None)):
        assert check("test.two", other).status == "not yet"


# --- signals, sleep, and what belongs to everybody

UNIX = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system has other signals")


@UNIX
def test_a_signal_that_an_attempt_sends_itself_is_reported():
    def alarmed(x0, t, eps):
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(5)

    def sent(x0, t, eps):
        signal.raise_signal(signal.SIGUSR1)

    assert "Your code raised Alarm: SIGALRM" in told("chain.noising", alarmed)
    assert "Your code raised Alarm: SIGUSR1" in told("chain.noising", sent)


@UNIX
def test_timers_and_handlers_of_an_attempt_end_with_it():
    def attempt(x0, t, eps):
        signal.signal(signal.SIGALRM, lambda *given: 1 / 0)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        return noising(x0, t, eps)

    before = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)
    assert check("chain.noising", attempt)
    time.sleep(0.1)
    assert (signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@UNIX
def test_a_sleep_is_stopped():
    began = time.monotonic()
    text = check("chain.noising", lambda x0, t, eps: time.sleep(60), limit=0.2).text
    assert "was stopped" in text and time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
    assert check("chain.noising", noising)


def test_streams_folders_and_precision_of_products_are_put_back(tmp_path):
    before = sys.stdout, sys.stderr, os.getcwd(), torch.get_float32_matmul_precision()

    def attempt(x0, t, eps):
        sys.stdout = sys.stderr = io.StringIO()
        os.chdir(tmp_path)
        torch.set_float32_matmul_precision("medium")
        torch.autograd.set_detect_anomaly(True)
        return noising(x0, t, eps)

    assert check("chain.noising", attempt)
    assert (sys.stdout, sys.stderr, os.getcwd(), torch.get_float32_matmul_precision()) == before
    assert not torch.is_anomaly_enabled()


# --- a number that is passed in and taken for granted

FIXED = {
    "unet.attention": lambda q, k, v, heads: answer_of("unet.attention")(q, k, v, 3 if q.shape[1] % 3 == 0 else 1),
    "compute.steps": lambda flop, convolutions, attention, told, k, batch: answer_of("compute.steps")(flop, convolutions, attention, told, 2, batch),
    "metrics.missing": lambda samples, real, labels, k: answer_of("metrics.missing")(samples, real, labels, 3),
    "training.per_time": lambda t, loss, T, bins: answer_of("training.per_time")(t, loss, T, 4),
    "unet.time_features": lambda logsnr, width: answer_of("unet.time_features")(logsnr, 12),
    "schedule.cosine": lambda T: answer_of("schedule.cosine")(50),
}  # fmt: skip


@pytest.mark.parametrize("name", FIXED)
def test_what_is_passed_in_is_another_number_in_each_trial(name):
    apart = find(name).apart
    for seed in range(20):
        trials = trials_of(find(name), torch.Generator().manual_seed(seed))
        assert len(set(map(apart, trials))) == len(trials) == 3
        told(name, FIXED[name])
