"""What is wrong does not pass, what is right does, and a hint says what is the matter: by kinds, and exercise by exercise."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddpm_lib import chain
from ddpm_lib.exercises import check, exercises, find
from ddpm_lib.exercises.suspects import too_coarse

ALL = [exercise for _, group in exercises().values() for exercise in group]
FUNCTIONS = [exercise for exercise in ALL if callable(exercise.answer)]
VALUES = [exercise for exercise in ALL if not callable(exercise.answer)]


@pytest.fixture(autouse=True)
def progress(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_LIB_PROGRESS", str(tmp_path / "progress.json"))


def by_name(exercise):
    return exercise.name


def told(name, attempt) -> str:
    """The text of a verdict that finds fault with the attempt."""
    verdict = check(name, attempt)
    assert verdict.status == "not yet", verdict
    return verdict.text


def answer_of(name):
    return find(name).answer


def changed(value, change):
    """The same with a change made to every number that is no truth."""
    if isinstance(value, dict):
        return {key: changed(each, change) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(changed(each, change) for each in value)
    if isinstance(value, torch.Tensor) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return change(value)
    return value


# --- answers that do not change are never told


def wrong_values(answer):
    """Values of the answer's form with one part wrong, in many ways."""
    if isinstance(answer, dict):
        for key in answer:
            yield from (answer | {key: wrong} for wrong in wrong_values(answer[key]))
    elif isinstance(answer, tuple):
        for place, part in enumerate(answer):
            yield from (answer[:place] + (wrong,) + answer[place + 1 :] for wrong in wrong_values(part))
    elif isinstance(answer, str):
        yield from ("something else", 3.0, None, ("a", "b"))
    else:
        yield from (7.25, -1.0, 1e9, 0.3141, answer * 1.7, answer + 0.77, "many", None, math.nan, (1.0, 2.0))


def numbers_of(answer):
    if isinstance(answer, tuple):
        return [number for part in answer for number in numbers_of(part)]
    return [answer] if isinstance(answer, int | float) else []


@pytest.mark.parametrize("exercise", VALUES, ids=by_name)
def test_an_answer_that_does_not_change_is_never_told(exercise):
    hints = [f"not yet. {slip.hint}" for slip in exercise.slips]
    for wrong in filter(None, itertools.islice(wrong_values(exercise.answer), 60)):
        text = told(exercise.name, wrong)
        if text in hints:
            continue
        for number in numbers_of(exercise.answer):
            said = re.sub(r"^not yet. (Value \d of \d: )*", "", text.replace(repr(wrong), ""))
            for form in (f"{number:g}", f"{number:.6g}", f"{number:,}", f"{number:.4g}"):
                assert not re.search(rf"(?<![\w.,-]){re.escape(form)}(?![\w,]|\.\d)", said), text


def test_the_part_that_is_wrong_is_named_where_the_answer_is_not():
    assert told("chain.last_step", 0.3) == "not yet. 0.3 is not right."
    assert told("sampling.calls", (200, 7)) == "not yet. The calls are right, the images are not."
    assert told("sampling.calls", (7, 12_800)) == "not yet. The images are right, the calls are not."
    assert "Neither is right" in told("sampling.calls", (7, 8))
    assert (
        told("softmax.duplicates", (0.75, 0.3, -0.3))
        == "not yet. Look again at the best guess and the place of doubt."
    )


# --- numbers that differ are shown so that they do


@pytest.mark.parametrize("exercise", FUNCTIONS, ids=by_name)
@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4, 1e-5])
def test_no_hint_says_that_a_number_should_be_itself(exercise, size):
    def spoil(value):
        return changed(value, lambda x: x * (1 + size))

    if exercise.name in ("training.one_batch", "unet.identity"):
        return  # what they return is no number
    # with the names of the answer, which a signature is asked for
    verdict = check(exercise.name, lambda *arguments: spoil(exercise.answer(*arguments)))
    assert verdict.status in ("not yet", "correct")
    same = r"(-?[\d.,]+(?:e[+-]?\d+)?)(?: %| times)?(?:, (?:should be|and should have|not)| instead of) \1(?![\d.])"
    assert not re.search(same, verdict.text), verdict
    assert not re.search(r"\b1(?:\.0*)? times|by 0\.0+ ?%", verdict.text), verdict


def test_standard_errors_are_told_apart():
    def wider(n, p):
        error = (n * p * (1 - p)) ** 0.5
        return n * p - 4.002 * error, n * p + 4.002 * error

    assert "reaches 4.002 standard errors, not 4." in told("guidance.band", wider)


# --- too coarse


def in_bfloat16(x0, t, eps):
    share = chain.linear(200, 0.0005, 0.1).alpha_bar[t][:, None].bfloat16()
    return share.sqrt() * x0.bfloat16() + (1 - share).sqrt() * eps.bfloat16()


@pytest.mark.parametrize(
    ("name", "attempt", "words"),
    [
        ("chain.noising", in_bfloat16, "bfloat16"),
        ("chain.noising", lambda x0, t, eps: in_bfloat16(x0, t, eps).float(), "bfloat16"),
        ("chain.noising", lambda x0, t, eps: answer_of("chain.noising")(x0, t, eps).half(), "float16"),
        ("chain.noising", lambda x0, t, eps: answer_of("chain.noising")(x0, t, eps).round(decimals=2), "2 decimals"),
        ("schedule.jump", lambda *a: np.round(answer_of("schedule.jump")(*a).numpy(), 3), "3 decimals"),
        ("guidance.accuracy", lambda *a: tuple(round(float(x), 3) for x in answer_of("guidance.accuracy")(*a)), "3 decimals"),
        ("metrics.halfway", lambda *a: tuple(x.bfloat16() for x in answer_of("metrics.halfway")(*a)), "bfloat16"),
    ],
)  # fmt: skip
def test_a_result_of_too_few_digits_is_called_too_coarse(name, attempt, words):
    text = told(name, attempt)
    assert words in text and "too coarse" in text and "mixture" not in text


def test_a_wrong_number_is_not_called_coarse():
    assert "coarse" not in told("training.first_loss", lambda target, a, s, m: 1.25)
    assert "coarse" not in told("chain.last_step", 0.001)
    assert "coarse" not in told("chain.last_step", 0.00049)
    assert "coarse" not in told("unet.memory", (4, 4, 15, 1))
    assert "coarse" not in told("chain.noising", lambda x0, t, eps: x0.round(decimals=1))


def test_whole_numbers_are_named_where_they_are_the_matter():
    missing = answer_of("metrics.missing")
    assert "whole numbers" in told("metrics.missing", lambda *given: missing(*given).round().long())
    assert "whole numbers" not in told("metrics.missing", lambda *given: 2 + missing(*given).round().long())


def test_right_numbers_beside_a_wrong_truth_are_not_called_coarse():
    half = torch.tensor(0.5, dtype=torch.float64)
    assert too_coarse([(half, False)], [(half, True)]) == ""


# --- what may be wrong anywhere


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda mean, error: (error, mean), "in the other order"),
        (lambda mean, error: (-mean, -error), "The sign is turned."),
        (lambda mean, error: (mean, -error), "Value 2: The sign is turned."),
        (lambda mean, error: (100 * mean, 100 * error), "100 times what it should be: is it in per cent?"),
        (lambda mean, error: (mean / 100, error), "Value 1: It is a hundredth"),
        (lambda mean, error: (mean / math.log(2), error), "Value 1: It is 1 / log 2 times"),
        (lambda mean, error: (mean * math.log(2), error), "Value 1: It is log 2 times"),
        (lambda mean, error: (mean**2, error), "Value 1: It is the square of what it should be."),
        (lambda mean, error: (mean**0.5, error), "Value 1: It is the square root of what it should be."),
        (lambda mean, error: (5 * mean, 5 * error), "It is 5 times what it should be, always."),
    ],
)
def test_simple_relations_are_seen(change, words):
    text = told("floor.monte_carlo", lambda *given: change(*answer_of("floor.monte_carlo")(*given)))
    assert words in text, text


def test_exchanged_axes_and_a_reversed_order_are_seen():
    halfway = answer_of("metrics.halfway")
    assert "order is turned round" in told(
        "metrics.missing", lambda *a: answer_of("metrics.missing")(*a).flip(0)
    )
    assert "Value 1: The numbers are right. Their order" in told(
        "metrics.halfway", lambda *a: (halfway(*a)[0].flip(0), halfway(*a)[1])
    )
    square = lambda large, E: answer_of("pixels.shrink")(large, E).mT  # noqa: E731
    assert "Rows and columns are exchanged" in told("pixels.shrink", square)


def test_one_call_of_several_is_named():
    convert = answer_of("guidance.convert")
    text = told(
        "guidance.convert",
        lambda weight, source: -convert(weight, source) if source == "imagen" else convert(weight, source),
    )
    assert text == "not yet. For 'imagen': The sign is turned."


# --- 1: chain, schedule


@pytest.mark.parametrize("at", [1, 2, 3, 77, 199, 200])
def test_a_slip_at_a_single_step_is_seen(at):
    narrow = answer_of("chain.narrow_step")

    def attempt(x, x0, t, z):
        return narrow(x, x0, t, 2 * z if t == at and at == 1 else 0 * z if t == at else z) + (
            0.01 * z if t == at == 1 else 0
        )

    for _ in range(3):
        text = told("chain.narrow_step", attempt)
        assert f"At t = {at} the noise is multiplied by" in text


def test_a_table_whose_ends_are_right_is_told_so():
    def bent(T, first, last):
        beta = torch.linspace(first**0.3, last**0.3, T, dtype=torch.float64) ** (1 / 0.3)
        return torch.cat([beta.new_ones(1), (1 - beta).cumprod(0)])

    def equal_factors(T, first, last):
        return np.concatenate([[1.0], np.cumprod(1 - np.geomspace(first, last, T))])

    assert "The first push and the last are right. Those between are not." in told(
        "schedule.hardly_spoils", bent
    )
    assert "equal factors" in told("schedule.hardly_spoils", equal_factors)


@pytest.mark.parametrize("off", [-2, 2])
def test_what_is_left_is_told_apart_from_one_per_cent(off):
    steps = answer_of("schedule.steps_needed")
    text = told("schedule.steps_needed", lambda first, last: steps(first, last) + off)
    left = float(re.search(r"leaves ([\d.]+) %", text)[1])
    assert left != 1 and (left < 1) == (off > 0)
    assert "whole number" in told("schedule.steps_needed", lambda first, last: steps(first, last) + 0.5)


# --- 3: softmax


@pytest.mark.parametrize("place", [-0.59, -0.58, -0.6, -0.585, -0.587])
def test_three_digits_are_asked_for(place):
    told("softmax.duplicates", (0.75, 0.5, place))


def test_two_digits_are_called_too_coarse():
    assert "2 decimals. That is too coarse" in told("softmax.duplicates", (0.75, 0.5, -0.59))


def test_three_digits_are_enough():
    for place in (-0.586, -0.5859, -0.64 * math.log(3) / 1.2):
        assert check("softmax.duplicates", (3 / 4, 0.5, place))


def test_one_tensor_in_the_place_of_several_is_told_by_the_call():
    text = told("softmax.stable", lambda x, points, a, s: points.mean(0))
    assert text == "not yet. At s = 0.001: The shape is (784,), should be (5, 784)."
    text = told("targets.published", lambda x, u, tau: x)
    assert text == "not yet. It should be 2 values, and is a tensor of shape (5, 3)."


@pytest.mark.parametrize("name", ["softmax.stable", "flips.best_guess", "score.mixture", "unet.attention"])
def test_a_softmax_over_the_wrong_axis_is_a_known_slip(name):
    assert any(re.search("softmax runs over", slip.hint) for slip in find(name).slips)


# --- 4: variances, alpha_bar


def test_the_weight_knows_alpha_bar_for_alpha_and_beta_for_sigma2():
    def with_bar(t, beta, sigma2):
        bar = (1 - beta).cumprod(0)
        return (beta**2 / (2 * sigma2 * bar * (1 - bar)))[t]

    def with_beta(t, beta, sigma2):
        alpha = 1 - beta
        return (beta / (2 * alpha * (1 - alpha.cumprod(0))))[t].numpy()

    assert "alpha_bar was used" in told("elbo.weight", with_bar)
    assert "beta was taken for sigma^2" in told("elbo.weight", with_beta)


# --- 5: targets


def convert(x_t, y, a, s, given, wanted):
    pairs = {"eps": (0, 1), "x0": (1, 0), "v": (-s, a), "score": (0, -1 / s), "flow": (-1, 1)}
    (p, q), (r, u) = pairs[given], pairs[wanted]
    x0, eps = (q * x_t - s * y) / (a * q - s * p), (a * y - p * x_t) / (a * q - s * p)
    return r * x0 + u * eps


def convert_in_numpy(x_t, y, a, s, given, wanted):
    return convert(x_t.numpy(), y.numpy(), a, s, given, wanted)


def convert_in_lists(x_t, y, a, s, given, wanted):
    rows = zip(x_t.tolist(), y.tolist(), strict=True)
    return [[convert(x, z, a, s, given, wanted) for x, z in zip(*row, strict=True)] for row in rows]


def convert_on_tensors_only(x_t, y, a, s, given, wanted):
    return convert(x_t, y.view_as(x_t), a, s, given, wanted)


def convert_to_float32(x_t, y, a, s, given, wanted):
    assert x_t.dtype == y.dtype  # also on the way back
    return convert(x_t, y, a, s, given, wanted).float()


@pytest.mark.parametrize(
    "attempt", [convert, convert_in_numpy, convert_in_lists, convert_on_tensors_only, convert_to_float32]
)
def test_five_by_five_in_any_form(attempt):
    assert check("targets.convert", attempt)


def test_a_conversion_of_the_wrong_form_is_told_by_its_names():
    text = told("targets.convert", lambda x_t, y, a, s, given, wanted: y if given == wanted else y.sum(1))
    assert text == "not yet. From 'eps' to 'x0': The shape is (5,), should be (5, 3)."
    text = told("targets.convert", lambda x_t, y, a, s, given, wanted: y if wanted != "score" else None)
    assert "From 'eps' to 'score': It returns None" in text


def test_words_may_come_in_an_array():
    assert check("targets.blow_up", np.array(answer_of("targets.blow_up")))
    rows = [np.array(row) for row in answer_of("targets.blow_up")]
    assert check("targets.blow_up", rows)
    swapped = np.array(answer_of("targets.blow_up"))[::-1]
    assert "The two rows are exchanged" in told("targets.blow_up", swapped)


# --- 6: blocks


class Block(nn.Module):
    """x + conv(relu(conv(x))), which starts as nothing, and what may be done to it."""

    def __init__(self, channels, after=lambda x: x, biases_only=False):
        super().__init__()
        self.first, self.last = (
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        for layer in (self.first, self.last) if biases_only else (self.last,):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.after = after

    def forward(self, x):
        return self.after(x + self.last(F.relu(self.first(x))))


class InAList(nn.Module):
    def __init__(self, channels, box=list):
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)]
        nn.init.zeros_(layers[1].weight)
        nn.init.zeros_(layers[1].bias)
        self.layers = box(layers)

    def forward(self, x):
        first, last = self.layers
        return x + last(F.silu(first(x)))


class InADict(InAList):
    def __init__(self, channels):
        super().__init__(channels, lambda layers: dict(enumerate(layers)))

    def forward(self, x):
        return x + self.layers[1](F.silu(self.layers[0](x)))


class Bias(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x):
        return x + self.bias


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda h: h, "It is called with the number of channels, and should return a block, an nn.Module"),
        (lambda channels: lambda h: h, "should return a block, an nn.Module"),
        (Block(32), "This is a finished block. Hand over what builds one"),
        (lambda channels: Block, "It returns a class. Call it"),
        (lambda channels: Block(channels, F.relu), "one comes after the sum"),
        (lambda channels: Block(channels, F.silu), "one comes after the sum"),
        (lambda channels: Block(channels, nn.LeakyReLU()), "one comes after the sum"),
        (lambda channels: Block(channels, biases_only=True), "only a bias moves"),
        (Bias, "only a bias moves"),
        (InAList, "layers in a Python list"),
        (lambda channels: InAList(channels, tuple), "layers in a Python list"),
        (InADict, "layers in a Python list"),
        (lambda channels: nn.Identity(), "it has no weights"),
        (lambda channels: nn.Conv2d(channels, channels, 3), "For x of shape (2, "),
        (lambda channels: Block(channels, lambda x: x.flatten(2)), "The shape is"),
    ],
)
def test_a_block_is_told_its_own_fault(attempt, words):
    assert words in told("unet.identity", attempt)


@pytest.mark.parametrize(
    "attempt",
    [
        Block,
        lambda channels: InAList(channels, nn.ModuleList),
        lambda channels: nn.Sequential(Block(channels)),
    ],
)
def test_blocks_that_start_as_nothing_are_right(attempt):
    assert check("unet.identity", attempt)


def test_a_block_that_is_not_written_is_not_attempted():
    class Unwritten(nn.Module):
        def __init__(self, channels):
            super().__init__()

        def forward(self, x):
            raise NotImplementedError

    assert check("unet.identity", Unwritten).status == "not attempted"
    assert check("unet.identity", lambda channels: ...).status == "not attempted"


def test_attention_that_is_not_turned_back_is_told_so():
    def rows(q, heads):
        return q.flatten(2).unflatten(1, (heads, -1)).mT

    def reshaped(q, k, v, heads):
        return F.scaled_dot_product_attention(*(rows(each, heads) for each in (q, k, v))).reshape(v.shape)

    def by_positions(q, k, v, heads):
        mixed = F.scaled_dot_product_attention(*(rows(each, heads) for each in (q, k, v)))
        return mixed.transpose(1, 2).reshape(len(q), -1, q.shape[1]).view(v.shape).numpy()

    def as_it_lies(q, k, v, heads):
        cut = (each.reshape(len(q), heads, -1, q.shape[1] // heads) for each in (q, k, v))
        return F.scaled_dot_product_attention(*cut).reshape(v.shape)

    assert "must be turned back" in told("unet.attention", reshaped)
    assert "must be turned back" in told("unet.attention", by_positions)
    assert "A reshape alone moves no axis" in told("unet.attention", as_it_lies)


# --- 7: training


def test_shares_alone_are_known():
    assert "share of the start" in told(
        "training.average", lambda start, constant, half_life, updates: 0.5 ** (updates / half_life)
    )
    assert "constant's share" in told(
        "training.average", lambda start, constant, half_life, updates: 1 - 0.5 ** (updates / half_life)
    )


def test_a_target_that_is_forgotten_is_named():
    def without_flow(target, a, s, m):
        if target == "eps":
            return 1.0
        if target == "x0":
            return m
        if target == "v":
            return a**2 + s**2 * m

    assert (
        told("training.first_loss", without_flow)
        == "not yet. For 'flow': It returns None: is there a `return` missing?"
    )


def held(pairs):
    batch = next(pairs)
    return itertools.repeat(batch)


def step_by_step(training, net, target, pairs, draw, steps):
    batch = held(pairs)
    return [training(net, target, batch, 1, lambda step, x0: draw(0, x0))[0] for _ in range(steps)]


def own_draw(training, net, target, pairs, draw, steps):
    def mine(step, x0):
        generator = torch.Generator().manual_seed(11)
        return torch.randint(1, 1001, (len(x0),), generator=generator), torch.randn(
            x0.shape, generator=generator
        )

    return training(net, target, held(pairs), steps, mine)


def own_noise(training, net, target, pairs, draw, steps):
    def mine(step, x0):
        return draw(0, x0)[0], torch.randn(x0.shape, generator=torch.Generator().manual_seed(11))

    return training(net, target, held(pairs), steps, mine)


def returning(change):
    def attempt(training, net, target, pairs, draw, steps):
        return change(training(net, target, held(pairs), steps, lambda step, x0: draw(0, x0)))

    return attempt


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (step_by_step, "the optimiser begins anew: call it once"),
        (own_draw, "not what `draw` returned"),
        (own_noise, "not what `draw` returned"),
        (
            returning(lambda losses: losses[-1]),
            "It should return a list of losses, one number for each step, and returns a number.",
        ),
        (returning(lambda losses: [losses]), "It should return a list of losses"),
        (returning(lambda losses: None), "It returns None"),
        (returning(lambda losses: "low"), "and returns a text"),
        (lambda training, net, target, pairs, draw, steps: [0.5] * steps, "never called"),
    ],
)
def test_one_batch_is_told_what_the_loop_saw(attempt, words):
    assert words in told("training.one_batch", attempt)


@pytest.mark.parametrize(
    "form", [torch.tensor, np.array, tuple, lambda losses: [torch.tensor(each) for each in losses]]
)
def test_the_losses_of_one_batch_may_come_in_any_form(form):
    assert check("training.one_batch", returning(form))


def test_losses_added_by_index_and_medians_are_known():
    def by_index(t, loss, T, bins):
        which = (t - 1) * bins // T
        total, count = torch.zeros(bins, dtype=loss.dtype), torch.zeros(bins)
        total[which] += loss
        count[which] += 1
        return total / count

    def by_index_in_numpy(t, loss, T, bins):
        which = (t.numpy() - 1) * bins // T
        total = np.zeros(bins)
        total[which] += loss.numpy()
        return total / np.bincount(which)

    def medians(t, loss, T, bins):
        which = (t - 1) * bins // T
        return [np.median(loss[which == k].numpy()) for k in range(bins)]

    def lower_medians(t, loss, T, bins):
        which = (t - 1) * bins // T
        return torch.stack([loss[which == k].median() for k in range(bins)])

    for attempt in (by_index, by_index_in_numpy):
        assert "adds only one example to each bin" in told("training.per_time", attempt)
    for attempt in (medians, lower_medians):
        assert "Those are medians" in told("training.per_time", attempt)


# --- 8: entries and steps


@pytest.mark.parametrize(
    "cut", [round, lambda x: int(x + 0.5), math.ceil, lambda x: math.floor(x) + 1, lambda x: int(np.rint(x))]
)
def test_steps_that_are_not_paid_for_never_pass(cut):
    def attempt(flop, convolutions, attention, told, k, batch):
        return cut(flop / (6 * batch * (k**2 * convolutions + k**4 * attention + told)))

    for _ in range(10):
        assert "round down, not up and not to the nearest" in told("compute.steps", attempt)


def test_a_step_too_few_is_counted():
    text = told("compute.steps", lambda *given: answer_of("compute.steps")(*given) - 1)
    assert "one step less" in text
    text = told("compute.steps", lambda *given: answer_of("compute.steps")(*given) - 2)
    assert text.endswith("which is 2 too few.")


DOWN = lambda T: list(range(T - 1, -1, -1))  # noqa: E731


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda u, T: ((u * T).ceil().long() - 1, DOWN(T)), "for u = 0: there it gives -1"),
        (lambda u, T: ((u * T).long().to(torch.uint8), DOWN(T)), "8 bits"),
        (lambda u, T: ((u * T).long().numpy().astype(np.uint8), DOWN(T)), "8 bits"),
        (lambda u, T: ((u * T).long().numpy().astype(np.int8), DOWN(T)), "8 bits"),
        (lambda u, T: (u * T, DOWN(T)), "whole numbers are asked for"),
        (lambda u, T: (u * (T - 1), DOWN(T)), "Entries of a table have whole numbers"),
        (lambda u, T: ((u * T).long(), [i + 0.5 for i in DOWN(T)]), "The loop uses"),
    ],
)
def test_entries_are_whole_numbers_from_0_on(attempt, words):
    for _ in range(5):
        assert words in told("index.all_steps", attempt)


@pytest.mark.parametrize("form", [tuple, range, reversed, np.array, torch.tensor, iter])
def test_the_entries_of_a_drawing_may_come_in_any_form(form):
    down = {range: lambda T: range(T - 1, -1, -1), reversed: lambda T: reversed(range(T))}.get(
        form, lambda T: form(DOWN(T))
    )
    assert check("index.all_steps", lambda u, T: ((u * T).long(), down(T)))
    assert check("index.all_steps", lambda u, T: ((u * T).floor(), down(T)))


# --- 9: guidance


def dial(denoise, x, t, label, scale):
    if scale in (0, 1):
        return denoise(x, t, label if scale else None)
    without = denoise(x, t, None)
    return without + scale * (denoise(x, t, label) - without)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scale: min(scale, 3), "Large scales are held down"),
        (lambda scale: min(scale, 7.5), "Large scales are held down"),
        (lambda scale: min(scale, 2.2), "At scale 2.5 the guess is not right"),
        (lambda scale: min(scale, 15.5), "goes on as far as it is turned"),
        (lambda scale: max(min(scale, 9), -2.5), "goes on as far as it is turned"),
        (lambda scale: max(scale, 0), "Below 0 it stays"),
        (lambda scale: abs(scale), "The sign of the scale is lost"),
        (lambda scale: 1 if abs(scale - 1) < 1e-2 else scale, "Close to 1"),
        (lambda scale: 1 if abs(scale - 1) < 1e-3 else scale, "Close to 1"),
        (lambda scale: 1 if abs(scale - 1) < 3e-6 else scale, "Close to 1"),
        (lambda scale: 0 if abs(scale) < 1e-2 else scale, "Close to 0"),
    ],
)
def test_a_dial_goes_its_whole_way(change, words):
    text = told(
        "guidance.dial", lambda denoise, x, t, label, scale: dial(denoise, x, t, label, change(scale))
    )
    assert words in text


def test_a_dial_may_refuse_to_be_turned_below_0_and_nowhere_else():
    def refusing(lowest):
        def attempt(denoise, x, t, label, scale):
            if scale < lowest:
                raise ValueError("not so low")
            return dial(denoise, x, t, label, scale)

        return attempt

    assert check("guidance.dial", refusing(0))
    assert "not so low" in told("guidance.dial", refusing(0.5))


def test_a_dial_of_another_shape_is_told_at_which_scale():
    assert "At scale 0: The shape is (3,), should be (4, 3)." in told(
        "guidance.dial", lambda denoise, x, t, label, scale: x[0]
    )
    assert check("guidance.dial", dial)
    assert check("guidance.dial", lambda *given: dial(*given).numpy())


def test_the_band_knows_n_minus_1():
    def attempt(count, share):
        error = np.sqrt(share * (1 - share) * (count - 1))
        return np.array([count * share - 4 * error, count * share + 4 * error])

    for _ in range(10):
        assert "n - 1 was used for n" in told("guidance.band", attempt)


# --- 10: claims and shares


def claim(times=1.96, within=lambda gap, width: gap <= width):
    def attempt(a, b):
        if any(a[key] != b[key] for key in ("count", "features", "reference")):
            return "not comparable"
        gap = b["value"] - a["value"]
        if within(abs(gap), times * math.hypot(a["error"], b["error"])):
            return "cannot say"
        return "better" if gap > 0 else "worse"

    return attempt


def test_claims_hold_to_1_96_and_to_the_edge():
    for _ in range(10):
        assert check("metrics.claim", claim())
        for times in (2, 3, 1.645, 2.576):
            assert "another number of standard errors than 1.96" in told("metrics.claim", claim(times))
        assert "you say" in told("metrics.claim", claim(1.95))
        assert "exactly 1.96" in told("metrics.claim", claim(within=lambda gap, width: gap < width))


def test_counts_in_the_place_of_shares_are_known():
    def counts(samples, real, labels, k):
        radius = torch.cdist(real, real).topk(k + 1, largest=False).values[:, -1]
        held = torch.cdist(real, samples).amin(1) <= radius
        return torch.stack([held[labels == c].sum() for c in range(int(labels.max()) + 1)])

    assert "Shares are asked for" in told("metrics.missing", counts)
