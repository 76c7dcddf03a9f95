"""The exercises of chapter 7, with their answers and the slips that people make."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from itertools import count, islice, repeat

import numpy as np
import torch
from torch import Tensor

from .compare import NO_RETURN, apart, shown, what
from .engine import Exercise, Slip
from .results import Calls, Findings, Unfit, fitted

TITLE = "Training on MNIST, end to end"


# --- training.average


def _average(start, constant, half_life, updates):
    return constant + (start - constant) * 2 ** (-updates / half_life)


def _average_inputs(generator: torch.Generator) -> tuple:
    start, constant, half_life, share = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    return 4 * start - 6, 4 * constant + 1, 5 + 40 * half_life, int(3 + 14 * share)


def _average_explain(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    start, constant, half_life, updates = arguments
    mine, right = (100 * float((each - constant) / (start - constant)) for each in (got, wanted))
    has, should_have = apart(mine, right, 3)
    return (
        f"From {start:.2f} to {constant:.2f} with half-life {half_life:.1f}: after {updates} updates "
        f"yours has {has} % of the start left, and should have {should_have} %."
    )


# --- training.first_loss

TARGETS = ("eps", "x0", "v", "flow")


def _first_loss(**other: Callable) -> Callable:
    """first_loss with some targets answered in another way."""
    losses = {
        "eps": lambda a, s, m: 1.0,
        "x0": lambda a, s, m: m,
        "v": lambda a, s, m: a**2 + s**2 * m,
        "flow": lambda a, s, m: 1 + m,
    } | other
    return lambda target, a, s, m: losses[target](a, s, m)


def _first_loss_inputs(generator: torch.Generator) -> tuple:
    angle, m = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    angle = torch.tensor(0.3 + 0.3 * angle, dtype=torch.float64)
    return angle.cos().item(), angle.sin().item(), 0.2 + 0.7 * m


def _of_all_targets(attempt: Callable, arguments: tuple) -> Calls:
    return Calls({f"For {target!r}": attempt(target, *arguments) for target in TARGETS})


def _explain_first_loss(arguments: tuple, got: Calls, wanted: Calls) -> str:
    pairs = zip(TARGETS, got.values(), wanted.values(), strict=True)
    right = [target for target, mine, true in pairs if abs(mine - true) <= 1e-5 * (1 + true)]
    wrong = [target for target in TARGETS if target not in right]
    if not right:
        return "None of the four is right. What is the mean square of the target?"
    return f"Right for {', '.join(right)}; not for {', '.join(wrong)}. What is the mean square of the target?"


# --- training.one_batch


@dataclass
class _Seen:
    """What a training loop was shown and what it returned, one entry a step; what it was called with; and all draws."""

    batches: list = field(default_factory=list)
    times: list = field(default_factory=list)
    noises: list = field(default_factory=list)
    losses: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    drawn: list = field(default_factory=list)


def _loop(seen: _Seen) -> Callable:
    """A loop like the chapter's that trains nothing and remembers what it was given."""

    def training(net, target, pairs, steps, draw, lr=1e-3):
        seen.calls.append((net, target))
        losses = []
        for step, (x0, label) in enumerate(islice(pairs, steps)):
            t, eps = draw(step, x0)
            seen.batches.append((_numbers(x0), _numbers(label)))
            seen.times.append(_numbers(t))
            seen.noises.append(torch.as_tensor(eps).clone())
            losses.append(1 / (3 + step))
        seen.losses.extend(losses)
        return losses

    return training


def _stream(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    for step in count():
        generator = torch.Generator().manual_seed(seed + step)
        yield torch.randn(4, 1, 4, 4, generator=generator), torch.randint(10, (4,), generator=generator)


def _draws(seen: _Seen) -> Callable:
    def draw(step, x0):
        generator = torch.Generator().manual_seed(int(step))
        t = torch.randint(1, 1001, (len(x0),), generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        seen.drawn.append((_numbers(t), _numbers(eps)))
        return t, eps

    return draw


def _numbers(value: Tensor) -> tuple:
    return tuple(torch.as_tensor(value).flatten().tolist())


def _show_one_batch(attempt: Callable, arguments: tuple) -> Findings:
    """How many losses it returned, how often `training` was called, and how many different batches, times and noises
    the loop saw; then truths: the batches are the stream's, the noise is noise, times and noise are of `draw`, and all
    else is passed on and back."""
    steps, seed = arguments
    seen, given = _Seen(), (object(), object())
    losses = _row(attempt(_loop(seen), *given, _stream(seed), _draws(seen), steps))
    there = [(_numbers(x0), _numbers(label)) for x0, label in islice(_stream(seed), steps)]
    noises = list(map(_numbers, seen.noises))
    times_drawn, noises_drawn = {t for t, _ in seen.drawn}, {eps for _, eps in seen.drawn}
    found = (
        len(losses),
        len(seen.calls),
        *(len(set(each)) for each in (seen.batches, seen.times, noises)),
        set(seen.batches) <= set(there),
        # 64 numbers of a fixed seed: the spread of honest noise is never that far from 1
        all(eps.shape == (4, 1, 4, 4) and 0.5 < float(eps.double().std()) < 1.5 for eps in seen.noises),
        set(seen.times) <= times_drawn and set(noises) <= noises_drawn,
        len(losses) == len(seen.losses) and np.allclose(losses, seen.losses),
        all(mine is true for pair in seen.calls for mine, true in zip(pair, given, strict=True)),
    )
    return Findings(found)


def _row(losses: object) -> list[float]:
    """The losses that an attempt returned. Raises Unfit if they are no row of numbers."""
    if losses is None:
        raise Unfit(NO_RETURN)
    row = fitted(losses, torch.zeros(1))
    if not isinstance(row, Tensor) or row.ndim != 1 or row.is_complex() or row.is_meta:
        raise Unfit(
            f"It should return a list of losses, one number for each step, and returns {what(losses)}."
        )
    return row.tolist()


def _one_batch(training, net, target, pairs, draw, steps):
    return training(net, target, repeat(next(pairs)), steps, lambda step, x0: draw(0, x0))


def _same_noise_only(training, net, target, pairs, draw, steps):
    def half(step, x0):
        return draw(step, x0)[0], draw(0, x0)[1]

    return training(net, target, repeat(next(pairs)), steps, half)


def _same_time_only(training, net, target, pairs, draw, steps):
    def half(step, x0):
        return draw(0, x0)[0], draw(step, x0)[1]

    return training(net, target, repeat(next(pairs)), steps, half)


def _explain_one_batch(arguments: tuple, got: tuple, wanted: tuple) -> str:
    count, calls, *different = (int(each) for each in got[:5])
    if calls == 0:
        return "`training` was never called."
    if calls > 1:
        return f"`training` was called {calls} times. Each time the optimiser begins anew: call it once, for all steps."
    if count != arguments[0]:
        return f"It should return the losses of {arguments[0]} steps, and returns {count}."
    if different != [1, 1, 1]:
        words = zip(("batches", "sets of times", "sets of noises"), different, strict=True)
        return f"The loop saw {', '.join(f'{n} different {of}' for of, n in words)}. One of each is needed."
    return next(words for truth, words in zip(got[5:], ONE_BATCH_GONE, strict=True) if not truth)


ONE_BATCH_GONE = (
    "The batch that the loop saw is none of the stream's: pictures and labels pass as they are, all of them.",
    "The noise that the loop saw is not standard normal numbers in the shape of the pictures.",
    "The times and the noise that the loop saw are not what `draw` returned: take one draw of it, and hold that fixed.",
    "The losses are not those that `training` returned.",
    "`training` was not given the network and the target that were passed in.",
)


# --- training.per_time


def _bin(t, T, bins):
    return torch.div((t - 1) * bins, T, rounding_mode="floor")


def _sums(loss, which, bins):
    return torch.zeros(bins, dtype=loss.dtype).index_add(0, which, loss)


def _per_time(t, loss, T, bins):
    return _means(loss, _bin(t, T, bins), bins)


def _means(loss, which, bins):
    return _sums(loss, which, bins) / _sums(torch.ones_like(loss), which, bins)


def _ranges(t, loss, T, bins, inside):
    """The means of what lies inside the edges of each bin."""
    width = T // bins
    return torch.stack([loss[inside(t, k * width, (k + 1) * width)].mean() for k in range(bins)])


def _per_time_from_zero(t, loss, T, bins):
    """With t in 0..T-1 in mind; the last step is squeezed into the last bin."""
    return _means(loss, torch.div(t * bins, T, rounding_mode="floor").clamp(max=bins - 1), bins)


def _per_time_equal(t, loss, T, bins):
    return _sums(loss, _bin(t, T, bins), bins) * bins / len(t)


def _per_time_last(t, loss, T, bins, count=None):
    """An assignment by index: of several examples in a bin, the last one wins."""
    which, total = _bin(t, T, bins), torch.zeros(bins, dtype=loss.dtype)
    total[which] += loss
    return total / (which.bincount(minlength=bins) if count is None else count)


def _per_time_median(t, loss, T, bins, middle=torch.median):
    which = _bin(t, T, bins)
    return torch.stack([middle(loss[which == k]) for k in range(bins)])


def _per_time_inputs(generator: torch.Generator) -> tuple:
    bins = int(torch.randint(3, 8, (), generator=generator))
    width = int(torch.randint(4, 30, (), generator=generator))
    edges = torch.arange(1, bins + 1) * width
    # no 1 among them: the range is what is told, not what is seen
    free = torch.randint(2, bins * width + 1, (60,), generator=generator)
    t = torch.cat([edges, edges[:-1] + 1, free, free[:20] // 3 + 2])
    t = t[torch.randperm(len(t), generator=generator)]
    return t, torch.rand(len(t), generator=generator, dtype=torch.float64) + 1 / t, bins * width, bins


def _explain_per_time(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    wrong = ((got - wanted).abs() > 1e-5 * (1 + wanted)).nonzero().flatten().tolist()
    _, _, T, bins = arguments
    first = wrong[0]
    low, high = first * T // bins + 1, (first + 1) * T // bins
    is_now, should_be = apart(got[first], wanted[first], 4)
    return (
        f"T = {T}, {bins} bins, of which {bins - len(wrong)} are right. Bin {first} holds the steps {low} to {high}. The mean of "
        f"their losses is {should_be}, and yours is {is_now}."
    )


# --- training.diagnose: the runs of experiments/broken_runs.py


@dataclass(frozen=True)
class StoredRun:
    """What is kept of a training run. loss: (steps,). tested: step -> loss on test pictures of the weights as
    they are. samples: (20, 1, 28, 28) in [-1, 1], two rows of the digits 0 to 9, drawn with the average."""

    loss: Tensor
    tested: dict[int, float]
    samples: Tensor


LETTERS = {"healthy": "none", "A": "average", "B": "zero", "C": "rate", "D": "batch", "E": "copy"}


def stored_runs() -> dict[str, StoredRun]:
    """The runs to diagnose, "A" to "E", after a "healthy" one."""
    text = resources.files("ddpm_lib").joinpath("embedded", "broken_runs.json").read_text(encoding="utf-8")
    kept = json.loads(text)
    return {letter: _stored(kept["runs"][bug], kept["shades"]) for letter, bug in LETTERS.items()}


def _stored(run: dict, shades: int) -> StoredRun:
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(run["samples"])), dtype=np.uint8)
    samples = torch.from_numpy(pixels.astype(np.float32)).view(-1, 1, 28, 28) * 2 / (shades - 1) - 1
    return StoredRun(
        torch.tensor(run["loss"]), {int(step): loss for step, loss in run["tested"].items()}, samples
    )


CAUSES = {
    "average": "the average of the weights forgets far too slowly",
    "batch": "one batch is taken before the loop and used in every step",
    "copy": "the optimiser holds the weights of another copy of the network",
    "labels": "the labels were shuffled and the pictures were not",
    "range": "pictures in [0, 1]",
    "rate": "the learning rate is thirty times too large",
    "target": "the target is the picture of another row of the batch",
    "zero": "label 0 is taken for no label",
}
"""What may be wrong with a run; five of these are."""

# What each cause does to the loss, to the loss on the test, and to the samples; and what that looks like.
EFFECTS = {
    "average": ("falls", "follows", "empty"),
    "batch": ("falls", "parts", "learned"),
    "copy": ("stays", "stays", "empty"),
    "labels": ("falls", "follows", "misread"),
    "range": ("small", "follows", "paper"),
    "rate": ("jumps", "follows", "alike"),
    "target": ("stuck", "follows", "alike"),
    "zero": ("falls", "follows", "one"),
}
LOOKS = {
    "falls": "the loss fall as in the healthy run, or further",
    "stays": "the loss stay where it began",
    "jumps": "the loss jump far above where it began",
    "stuck": "the loss stop early, far above the healthy run's",
    "small": "the loss begin ten times smaller than in the healthy run, because the target has half the contrast and its black is 0",
    "follows": "the loss on the test go with that of training",
    "parts": "the loss on the test turn and rise while that of training falls",
    "empty": "the samples all but empty",
    "learned": "the samples well drawn, but as few as the pictures that it saw",
    "misread": "the digits of every column wrong",
    "paper": "digits on grey paper",
    "alike": "the same blot in every column",
    "one": "one column wrong and nine right",
}
ANSWER = {letter: LETTERS[letter] for letter in "ABCDE"}


def _explain_diagnosis(arguments: tuple, got: dict, wanted: dict) -> str:
    hints = []
    for letter, cause in wanted.items():
        said = got[letter]
        if said is None or said is ...:
            hints.append(f"{letter}: no diagnosis yet.")
        elif not isinstance(said, str) or said not in CAUSES:
            hints.append(f"{letter}: {shown(said)} is none of {', '.join(CAUSES)}.")
        elif said != cause:
            effect, seen = next(
                (mine, true) for mine, true in zip(EFFECTS[said], EFFECTS[cause], strict=True) if mine != true
            )
            hints.append(f"{letter}: {said!r} would make {LOOKS[effect]}. Here you see {SEEN[seen]}.")
    return f"{5 - len(hints)} of 5 right. " + " ".join(hints)


SEEN = {
    "falls": "it fall as it should",
    "stays": "that it does not move",
    "jumps": "it jump far above where it began",
    "follows": "the two go together",
    "parts": "the two part",
    "empty": "next to nothing",
    "learned": "clear digits, and rows that repeat",
    "one": "nine columns that are right",
}


def _but(**other: str) -> dict[str, str]:
    return ANSWER | other


EXERCISES = (
    Exercise(
        "training.diagnose",
        "Five broken runs",
        ANSWER,
        (
            Slip("Three are right. Two runs draw the same empty pictures. Only one of the two has learned: which? The loss knows.", _but(A="copy", E="average")),
            Slip("Four are right. In B, nine columns show what was asked for. Shuffled labels would spoil all ten.", _but(B="labels")),
            Slip("Four are right. In C the loss begins as it should and jumps up. What is asked for is not the trouble, but how far each step goes.", _but(C="target")),
            Slip("Four are right. D is not the average: the curves are those of the weights as they are, and they part.", _but(D="average")),
            Slip("Four are right. D learns very well, but what? A large rate does not make one loss fall and the other rise.", _but(D="rate")),
            Slip("Four are right. A's samples are empty, not digits on grey paper, and its loss begins where it should.", _but(A="range")),
        ),
        explain=_explain_diagnosis,
    ),
    Exercise(
        "training.average",
        "The average of a constant",
        _average,
        (
            Slip("The two shares are exchanged: it begins at the constant and goes to the start.", lambda start, constant, half_life, updates: _average(constant, start, half_life, updates)),
            Slip("It looks as if e was the base. After half_life updates one half is left, and not 37 %.", lambda start, constant, half_life, updates: constant + (start - constant) * np.exp(-updates / half_life)),
            Slip("It looks as if each update kept 1 - 1 / half_life of the average. That forgets faster than a half in half_life updates.", lambda start, constant, half_life, updates: constant + (start - constant) * (1 - 1 / half_life) ** updates),
            Slip("That is the share of the start that is left. The average is made of it and of the constant's share.", lambda start, constant, half_life, updates: 2 ** (-updates / half_life)),
            Slip("That is the constant's share. The average is made of it and of what is left of the start.", lambda start, constant, half_life, updates: 1 - 2 ** (-updates / half_life)),
            Slip("It looks like the average after one update.", lambda start, constant, half_life, updates: _average(start, constant, half_life, 1)),
            Slip("What is left of the start is right. The share of the constant is missing.", lambda start, constant, half_life, updates: start * 2 ** (-updates / half_life)),
            Slip("It looks as if the average shrank one update too few or too many: each of the `updates` shrinks the distance once.", lambda start, constant, half_life, updates: _average(start, constant, half_life, updates - 1), (lambda start, constant, half_life, updates: _average(start, constant, half_life, updates + 1),)),
            Slip("It looks as if half_life and updates have each other's place in the exponent.", lambda start, constant, half_life, updates: _average(start, constant, updates, half_life)),
            Slip("The distance to the constant grows. Each update shrinks it: a sign in the exponent is turned.", lambda start, constant, half_life, updates: _average(start, constant, half_life, -updates)),
            Slip("It looks as if each update halved the distance. It takes half_life updates to halve it.", lambda start, constant, half_life, updates: _average(start, constant, 1, updates)),
            Slip("It looks as if the distance shrank by equal amounts. It shrinks by equal factors.", lambda start, constant, half_life, updates: constant + (start - constant) * (1 - updates / half_life), (lambda start, constant, half_life, updates: constant + (start - constant) * (1 - updates / (2 * half_life)), lambda start, constant, half_life, updates: constant + (start - constant) * max(0, 1 - updates / half_life))),
            Slip("What is left of the start is right. The constant has to be multiplied by its share.", lambda start, constant, half_life, updates: constant + start * 2 ** (-updates / half_life)),
            Slip("It looks as if updates was divided by half_life without a remainder. The exponent need not be whole.", lambda start, constant, half_life, updates: constant + (start - constant) * 2 ** -(updates // half_life)),
            Slip("That is the constant. After a number of updates something of the start is still left.", lambda start, constant, half_life, updates: constant),
            Slip("It looks like the constant's share alone. Something of the start is left too.", lambda start, constant, half_life, updates: constant * (1 - 2 ** (-updates / half_life))),
        ),
        _average_inputs,
        explain=_average_explain,
    ),
    Exercise(
        "training.first_loss",
        "The loss at the start",
        _first_loss(),
        (
            Slip("All right except for v. The mean square of a multiple has the square of the factor in it.", _first_loss(v=lambda a, s, m: a + s * m)),
            Slip("All right except for v. The two parts of v have a minus between them, and their squares have not.", _first_loss(v=lambda a, s, m: a**2 - s**2 * m)),
            Slip("All right except for v. Picture and noise have each other's factors.", _first_loss(v=lambda a, s, m: s**2 + a**2 * m)),
            Slip("All right except for v. It is 1 only for data whose mean square is 1.", _first_loss(v=lambda a, s, m: 1.0)),
            Slip("All right except for flow. A difference of independent things varies more than either, and not less.", _first_loss(flow=lambda a, s, m: 1 - m)),
            Slip("All right except for flow. Its target has the factors 1 and -1 at every t.", _first_loss(flow=lambda a, s, m: a**2 + s**2 * m)),
            Slip("Four times 1: only the noise has mean square 1.", lambda target, a, s, m: 1.0),
            Slip("It looks as if m was taken to be 1. The data need not have mean square 1.", lambda target, a, s, m: _first_loss()(target, a, s, 1.0)),
            Slip("It looks as if m was squared. It is a mean square already.", lambda target, a, s, m: _first_loss()(target, a, s, m**2), (_first_loss(v=lambda a, s, m: a**2 + s**2 * m**2, flow=lambda a, s, m: 1 + m**2), _first_loss(v=lambda a, s, m: a**2 + s**2 * m**2))),
            Slip("It looks as if m was taken for a root mean square. It is a mean square already.", lambda target, a, s, m: _first_loss()(target, a, s, m**0.5), (_first_loss(v=lambda a, s, m: a**2 + s**2 * m**0.5, flow=lambda a, s, m: 1 + m**0.5),)),
            Slip("Right for v and flow. Those for eps and x0 are exchanged.", _first_loss(eps=lambda a, s, m: m, x0=lambda a, s, m: 1.0)),
            Slip("The noise is missing: its mean is 0, and its mean square is not.", _first_loss(eps=lambda a, s, m: 0.0, v=lambda a, s, m: s**2 * m, flow=lambda a, s, m: m)),
            Slip("All right except for flow. Its target has a part from the picture and one from the noise, and m is the mean square of the picture.", _first_loss(flow=lambda a, s, m: 2.0), (_first_loss(flow=lambda a, s, m: 2 * m), _first_loss(flow=lambda a, s, m: 1.0), _first_loss(flow=lambda a, s, m: m))),
            Slip("All right except for v. Those are the factors of flow, 1 and -1. v has a and -s.", _first_loss(v=lambda a, s, m: 1 + m)),
            Slip("Right for eps and x0. In a mean square of a sum the mixed term is 0, because noise and picture are independent and the noise has mean 0.", _first_loss(v=lambda a, s, m: (a - s * m) ** 2, flow=lambda a, s, m: (1 - m) ** 2), (_first_loss(v=lambda a, s, m: (a - s * m**0.5) ** 2, flow=lambda a, s, m: (1 - m**0.5) ** 2), _first_loss(v=lambda a, s, m: (a + s * m**0.5) ** 2, flow=lambda a, s, m: (1 + m**0.5) ** 2))),
            Slip("Right for v and flow. The targets eps and x0 are the noise and the picture themselves, and not their shares in x_t.", _first_loss(eps=lambda a, s, m: s**2, x0=lambda a, s, m: a**2 * m)),
            Slip("Right for eps and x0. The parts of v and flow have a minus between them, and their squares have not.", _first_loss(v=lambda a, s, m: a**2 - s**2 * m, flow=lambda a, s, m: 1 - m)),
        ),
        _first_loss_inputs,
        _of_all_targets,
        explain=_explain_first_loss,
    ),
    Exercise(
        "training.one_batch",
        "Overfit one batch",
        _one_batch,
        (
            Slip("Time and noise are held fixed. The pictures are new in every step.", lambda training, net, target, pairs, draw, steps: training(net, target, pairs, steps, lambda step, x0: draw(0, x0))),
            Slip("The pictures are held fixed. Time and noise are new in every step.", lambda training, net, target, pairs, draw, steps: training(net, target, repeat(next(pairs)), steps, draw)),
            Slip("Nothing is held fixed: that is the ordinary training.", lambda training, net, target, pairs, draw, steps: training(net, target, pairs, steps, draw)),
            Slip("Pictures and times are held fixed. The noise is new in every step.", _same_time_only),
            Slip("Pictures and noise are held fixed. The times are new in every step.", _same_noise_only),
            Slip("One batch ends after one step. The loop needs it `steps` times.", lambda training, net, target, pairs, draw, steps: training(net, target, [next(pairs)], steps, lambda step, x0: draw(0, x0))),
        ),
        lambda generator: (int(torch.randint(5, 12, (), generator=generator)), int(torch.randint(10**6, (), generator=generator))),
        _show_one_batch,
        apart=lambda arguments: arguments[0],
        explain=_explain_one_batch,
    ),
    Exercise(
        "training.per_time",
        "Log the loss per t",
        _per_time,
        (
            Slip("It looks as if steps began at 0. Ours go from 1 to T, so the last step of each bin has slipped into the next.", _per_time_from_zero, (lambda t, loss, T, bins: _ranges(t, loss, T, bins, lambda t, low, high: (t >= low) & (t < high)),)),
            Slip("These are sums. Divide each by the number of examples in its bin.", lambda t, loss, T, bins: _sums(loss, _bin(t, T, bins), bins)),
            Slip(
                "Only the last example of each bin is in it. `total[which] += loss` adds only one example to each bin: where an index comes twice, the last one wins. `index_add` and `bincount` add all.",
                _per_time_last,
                (lambda t, loss, T, bins: _per_time_last(t, loss, T, bins, count=1),),
            ),
            Slip(
                "Those are medians. The mean of each bin is asked for.",
                _per_time_median,
                (lambda t, loss, T, bins: _per_time_median(t, loss, T, bins, lambda each: each.quantile(0.5)),),
            ),
            Slip("Each sum is divided as if all bins held equally many examples. They do not: count.", _per_time_equal),
            Slip("Each sum is divided by the number of all examples: the shares of the mean, not the means.", lambda t, loss, T, bins: _sums(loss, _bin(t, T, bins), bins) / len(t)),
            Slip("Those are the numbers of examples. The mean of their losses is asked for.", lambda t, loss, T, bins: _bin(t, T, bins).bincount(minlength=bins).double()),
            Slip("It looks as if the examples were cut into equal parts in the order in which they came. Their t says to which bin they belong.", lambda t, loss, T, bins: torch.stack([each.mean() for each in loss.tensor_split(bins)]), (lambda t, loss, T, bins: torch.stack([each.mean() for each in loss.chunk(bins)]),)),
            Slip("It looks as if every bin got equally many examples. The ranges of t are equal, whatever falls into them.", lambda t, loss, T, bins: torch.stack([each.mean() for each in loss[t.argsort()].tensor_split(bins)]), (lambda t, loss, T, bins: torch.stack([each.mean() for each in loss[t.argsort()].chunk(bins)]), lambda t, loss, T, bins: torch.stack([each.mean() for each in loss[t.argsort(stable=True)].chunk(bins)]))),
            Slip("It looks as if the remainder of t was used. A bin is a range of neighbouring t.", lambda t, loss, T, bins: _means(loss, (t - 1) % bins, bins), (lambda t, loss, T, bins: _means(loss, t % bins, bins),)),
            Slip("The edges are not right: a bin ends where the next one begins, and each t lies in just one of them.", lambda t, loss, T, bins: _ranges(t, loss, T, bins, lambda t, low, high: (t > low) & (t < high)), (lambda t, loss, T, bins: _ranges(t, loss, T, bins, lambda t, low, high: (t >= low) & (t <= high)),)),
            Slip("Those are roots of mean squares. The plain mean is asked for.", lambda t, loss, T, bins: _per_time(t, loss.square(), T, bins).sqrt()),
            Slip("Those are the largest losses. The mean of each bin is asked for.", lambda t, loss, T, bins: torch.stack([loss[_bin(t, T, bins) == k].max() for k in range(bins)])),
            Slip("The bins run from T down to 1. The first should hold the smallest t.", lambda t, loss, T, bins: _per_time(t, loss, T, bins).flip(0)),
        ),
        _per_time_inputs,
        apart=lambda arguments: arguments[3],
        explain=_explain_per_time,
    ),
)  # fmt: skip
