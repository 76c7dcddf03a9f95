"""Training: resumed to the bit, fair times, honest averages, many processes like one."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import close, f64
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import ddpm_lib
from ddpm_lib import checkpoint as checkpoints
from ddpm_lib.checkpoint import Checkpoint
from ddpm_lib.denoiser import TARGETS, Denoiser
from ddpm_lib.schedule import SCHEDULES, cosine, flow, linear, make
from ddpm_lib.training import (
    EMA,
    TIMES,
    TrainConfig,
    TrainingDiverged,
    bare,
    learning_rate,
    make_optimizer,
    min_snr,
    resolve_precision,
    sample_times,
    step_generator,
    train,
)
from ddpm_lib.unet import UNet, UNetConfig

TINY = UNetConfig(4, 1, 3, 4, (1,), 1, (), 4)
CONFIG = TrainConfig(steps=9, lr=3e-3, warmup=3, decay="cosine", label_dropout=0.3, seed=4)


def batches(start: int = 0, size: int = 4, config: UNetConfig = TINY):
    """Batch k is a function of k alone, as data.batches promises."""
    for k in itertools.count(start):
        generator = torch.Generator().manual_seed(1000 + k)
        x0 = (
            torch.rand(size, config.channels, config.image_size, config.image_size, generator=generator) * 2
            - 1
        )
        yield x0, torch.randint(0, 3, (size,), generator=generator)


def fresh(dropout: float = 0.0, seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(replace(TINY, dropout=dropout))


def weights(net: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in net.parameters()]


def same(mine, theirs) -> bool:
    return all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


class Recorder(nn.Module):
    """A network of one weight that notes what it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, x, logsnr, label=None):
        self.seen.append((x.detach().clone(), logsnr.clone(), None if label is None else label.clone()))
        return self.weight * x


# ---------------------------------------------------------------- stopped and resumed


@settings(max_examples=7)
@given(
    st.integers(0, 8),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from(["v", "eps"]),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from(["adam", "muon"]),
)
def test_stopped_anywhere_and_resumed_is_never_stopped_to_the_bit(
    stop, dropout, predict, averaged, disturb, optimizer_name
):
    config = replace(CONFIG, optimizer=optimizer_name)

    def begin():
        net = fresh(dropout)
        return net, EMA(net, half_life=5) if averaged else None

    net, ema = begin()
    whole = [float(step.loss) for step in train(Denoiser(net, cosine(), predict), batches(), config, ema)]

    other, other_ema = begin()
    optimizer = make_optimizer(other, config)
    run = train(Denoiser(other, cosine(), predict), batches(), config, other_ema, optimizer)
    losses = [float(step.loss) for step in itertools.islice(run, stop)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.safetensors"
        checkpoints.save(Checkpoint(other, cosine(), predict, config, other_ema, stop), path, optimizer)
        # nothing but the file may carry over: other random state, other memory
        torch.manual_seed(77 + disturb)
        torch.rand(disturb)
        again = checkpoints.load(path)
    assert again.step == stop
    optimizer = make_optimizer(again.net, again.config)
    checkpoints.restore_optimizer(again, optimizer)
    denoiser = Denoiser(again.net, again.schedule, again.predict)
    for step in train(denoiser, batches(stop), again.config, again.ema, optimizer, start=stop):
        losses.append(float(step.loss))
        assert step.index == len(losses) and step.images == 4 * step.index
    assert losses == whole
    assert same(weights(again.net), weights(net))
    if averaged:
        assert same(weights(again.ema.net), weights(ema.net)) and again.ema.updates == ema.updates == 9


def test_a_preview_between_steps_changes_nothing():
    """Sampling switches dropout off and draws random numbers; the next step must not notice."""
    plain, looked_at = fresh(0.4), fresh(0.4)
    list(train(Denoiser(plain, linear()), batches(), CONFIG))
    for _ in train(Denoiser(looked_at, linear()), batches(), CONFIG):
        looked_at.eval()
        torch.rand(100)
    assert same(weights(plain), weights(looked_at))


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(train(Denoiser(Recorder(), linear()), batches(), replace(CONFIG, steps=2)))
    net = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 1, 1))
    torch.set_rng_state(before)

    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, logsnr, label=None):
            return self.net(x)

    list(train(Denoiser(Dropping(), linear()), batches(), replace(CONFIG, steps=2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_and_steps_differ():
    draws = {}
    for seed, index in itertools.product((0, 1, 2), (0, 1, 2)):
        draws[seed, index] = torch.rand(4, generator=step_generator(seed, index))
        assert torch.equal(draws[seed, index], torch.rand(4, generator=step_generator(seed, index)))
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 9


def test_noise_times_and_dropout_are_drawn_independently():
    """Streams of one seed share their first numbers: the first pixel's noise would tell the time."""
    net, shifts, first, kept = Recorder(), [], [], []
    net.drop = nn.Dropout(0.5)
    schedule = flow()
    zeros = ((torch.zeros(1, 1, 4, 4), None) for _ in itertools.count())

    def forward(x, logsnr, label=None):
        shifts.append(float(torch.sigmoid(-logsnr[0] / 2)))
        first.append(x.flatten()[[0, 8]].clone())
        kept.append(float(net.drop(torch.ones(16))[0] > 0))
        return net.weight * x

    net.forward = forward
    list(train(Denoiser(net, schedule, "v"), zeros, TrainConfig(steps=1200)))
    t, noise, kept = f64(shifts), torch.stack(first).double(), f64(kept)
    # x_t = t eps, shown as x_t / sqrt(a^2 + s^2): give back eps, then its uniform
    noise = noise / t[:, None] * (t**2 + (1 - t) ** 2).sqrt()[:, None]
    # torch makes pixels 0 and 8 from two uniforms by Box and Muller: the first of these is the pair's radius
    uniform = (-noise.square().sum(1) / 2).exp()
    band = 4 / math.sqrt(1200)
    for one, two in ((t, uniform), (t, kept), (uniform, kept)):
        for stretch in (1, 2, 4, 8, 16):
            # a shared stream shows up as one being a saw-tooth of the other
            for a, b in ((one * stretch % 1, two), (one, two * stretch % 1)):
                if a.std() > 0 and b.std() > 0:
                    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < band
    assert abs(float(kept.mean()) - 0.5) < 4 * 0.5 / math.sqrt(1200)


# ---------------------------------------------------------------- the average


def test_average_of_a_constant_is_the_constant():
    net = fresh()
    ema = EMA(net, 3)
    before = weights(net)
    for _ in range(50):
        ema.update(net)
    for mine, theirs in zip(weights(ema.net), before, strict=True):
        close(mine, theirs, 1e-7)


@pytest.mark.parametrize("half_life", [1.0, 20.0, 1000.0])
def test_average_is_its_formula(half_life):
    net = nn.Linear(3, 2)
    net.register_buffer("count", torch.zeros(()))
    ema = EMA(net, half_life)
    wanted = net.weight.detach().double()
    for n in range(60):
        with torch.no_grad():
            net.weight.normal_()
            net.count.fill_(n)
        decay = min(0.5 ** (1 / half_life), (1 + n) / (10 + n))
        wanted = decay * wanted + (1 - decay) * net.weight.detach().double()
        ema.update(net)
        close(ema.net.weight, wanted, 1e-5)
        assert ema.net.count == n and ema.updates == n + 1
    assert not ema.net.weight.requires_grad and not ema.net.training


def test_a_weight_counts_half_after_the_half_life():
    net = nn.Linear(1, 1, bias=False)
    ema = EMA(net, 100)
    ema.updates = 10**6
    with torch.no_grad():
        ema.net.weight.fill_(1.0)
        net.weight.fill_(0.0)
    for _ in range(100):
        ema.update(net)
    assert float(ema.net.weight) == pytest.approx(0.5, abs=1e-5)


def compiled(net: nn.Module) -> nn.Module:
    """As torch.compile wraps it; nothing is compiled before the first call."""
    return torch.compile(net)


WRAPPERS = [
    compiled,
    nn.DataParallel,
    lambda net: nn.DataParallel(compiled(net)),
    lambda net: compiled(nn.DataParallel(net)),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_network_is_bare_in_the_average(wrap):
    net = fresh()
    wrapped = wrap(net)
    assert bare(wrapped) is net and bare(net) is net
    ema = EMA(wrapped, 2)
    assert type(ema.net) is UNet and ema.net is not net and ema.net.config == TINY
    for mine, theirs in zip(EMA(net).net.state_dict(), ema.net.state_dict(), strict=True):
        assert mine == theirs
    with torch.no_grad():
        net.head[2].bias.fill_(1.0)
    ema.update(wrapped)
    # the first update of a young average keeps a tenth
    close(ema.net.head[2].bias, 0.9, 1e-6)


def test_a_network_that_only_looks_like_a_wrapper_is_left_alone():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.net = nn.Linear(1, 1), nn.Linear(1, 1)

    outer = Outer()
    assert bare(outer) is outer and set(EMA(outer).net.state_dict()) == set(outer.state_dict())


@pytest.mark.parametrize("name", ["adam", "muon"])
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_the_optimiser_of_a_wrapped_network_moves_the_network(wrap, name):
    config = replace(CONFIG, optimizer=name)
    alone, net = fresh(), fresh()
    optimizer = make_optimizer(wrap(net), config)
    list(train(Denoiser(alone, linear(), "v"), batches(), config))
    list(train(Denoiser(net, linear(), "v"), batches(), config, optimizer=optimizer))
    assert same(weights(alone), weights(net))


@pytest.mark.parametrize("half_life", [0, -1, math.nan])
def test_impossible_half_lives_are_refused(half_life):
    with pytest.raises(ValueError, match="half_life must be positive"):
        EMA(nn.Linear(1, 1), half_life)


def test_average_follows_training_and_does_not_disturb_it():
    alone, followed = fresh(), fresh()
    ema = EMA(followed, 2)
    list(train(Denoiser(alone, linear()), batches(), CONFIG))
    list(train(Denoiser(followed, linear()), batches(), CONFIG, ema))
    assert same(weights(alone), weights(followed)) and ema.updates == 9
    assert not same(weights(ema.net), weights(followed))


# ---------------------------------------------------------------- learning rate


def test_learning_rate_warms_up_and_decays():
    config = TrainConfig(steps=100, lr=2.0, warmup=10, decay="none")
    rates = [learning_rate(config, i) for i in range(100)]
    close(f64(rates[:10]), torch.arange(1, 11) * 0.2, 1e-6)
    assert rates[10:] == [2.0] * 90
    for decay in ("linear", "cosine"):
        rates = f64([learning_rate(replace(config, decay=decay), i) for i in range(101)])
        assert rates.max() == 2 and (rates[10:].diff() < 0).all() and abs(rates[100]) < 1e-12
        assert rates[55] == pytest.approx(1.0)
        # a cosine starts flat, a line does not
        assert (rates[10] - rates[11] < 0.01) == (decay == "cosine")
    assert learning_rate(TrainConfig(steps=5, warmup=0, lr=0.3), 0) == 0.3
    assert learning_rate(TrainConfig(steps=5, warmup=50, lr=0.5), 4) == pytest.approx(0.05)


def test_the_optimiser_uses_the_rate_of_its_step():
    config = replace(CONFIG, decay="linear")
    net = Recorder()
    optimizer = make_optimizer(net, config)
    for step in train(Denoiser(net, linear()), batches(), config, optimizer=optimizer):
        assert step.lr == optimizer.param_groups[0]["lr"] == learning_rate(config, step.index - 1)


def test_clipping_bounds_the_gradient_that_adam_sees():
    for clip, bound in ((0.05, 0.05), (0.0, math.inf)):
        net, norms = fresh(), []
        optimizer = make_optimizer(net, CONFIG)
        optimizer.register_step_pre_hook(
            lambda opt, *_, norms=norms: norms.append(
                float(torch.stack([p.grad.norm() for g in opt.param_groups for p in g["params"]]).norm())
            )
        )
        steps = list(
            train(Denoiser(net, linear()), batches(), replace(CONFIG, clip=clip), optimizer=optimizer)
        )
        for step, norm in zip(steps, norms, strict=True):
            assert norm == pytest.approx(min(float(step.grad_norm), bound), rel=1e-3)
        assert max(float(step.grad_norm) for step in steps) > 0.05


# ---------------------------------------------------------------- times


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 10**6))
def test_a_batch_of_k_times_the_knots_meets_every_knot_k_times(steps, k, seed):
    """Exact, whatever the shift: so no knot, first and last included, is missed or favoured."""
    schedule = linear(steps, 0.01, 0.02)
    t = sample_times(schedule, k * steps, "uniform", torch.Generator().manual_seed(seed))
    assert torch.bincount((t * steps).round().long(), minlength=steps + 1).tolist() == [0] + [k] * steps
    close(t * steps, (t * steps).round(), 1e-9)


@pytest.mark.parametrize("count", [1, 7])
def test_each_images_time_is_uniform_on_the_knots(count):
    schedule, draws = linear(10), 4000
    table = torch.zeros(count, 11)
    for seed in range(draws):
        t = sample_times(schedule, count, "uniform", torch.Generator().manual_seed(seed))
        table[torch.arange(count), (t * 10).round().long()] += 1
    assert (table[:, 0] == 0).all()
    chi2 = ((table[:, 1:] - draws / 10) ** 2 / (draws / 10)).sum(1)
    # 9 degrees of freedom: mean 9, standard deviation sqrt(18); 36 has probability 4e-5
    assert (chi2 < 36).all(), chi2


def test_very_long_chains_lose_no_knot():
    schedule = linear(40_000, 1e-6, 1e-3)
    knots = (sample_times(schedule, 40_000, "uniform", torch.Generator().manual_seed(0)) * 40_000).round()
    assert knots.min() == 1 and knots.max() == 40_000 and len(knots.unique()) == 40_000


@pytest.mark.parametrize("times", TIMES)
def test_continuous_times_have_their_law_and_stay_inside(times):
    count = 20_000
    t = sample_times(flow(), count, times, torch.Generator().manual_seed(0))
    assert t.dtype == torch.float64 and t.shape == (count,) and 0 < t.min() and t.max() < 1
    u = t if times == "uniform" else torch.special.ndtr(torch.log(t / (1 - t)))
    # stratified: the empirical law is within one tooth of the comb everywhere
    gap = (u.sort().values - (torch.arange(count).double() + 0.5) / count).abs()
    assert gap[3:-3].max() < 1.01 / count


def test_stratified_times_make_the_mean_vary_less():
    schedule = linear(1000)

    def spread(count):
        draws = (
            sample_times(schedule, count, "uniform", torch.Generator().manual_seed(i)) for i in range(300)
        )
        return float(torch.stack([(t**2).mean() for t in draws]).var())

    # independent draws: var(t^2) / 16 = 0.0056
    assert spread(16) < 0.0056 / 10


def test_training_shows_times_of_the_chain_and_noise_of_the_schedule():
    net = Recorder()
    schedule = linear(20)
    list(train(Denoiser(net, schedule), batches(size=20), replace(CONFIG, steps=1)))
    ((_, logsnr, _),) = net.seen
    knots = schedule.logsnr(torch.arange(1, 21).double() / 20).float()
    close(logsnr.sort().values, knots.sort().values, 1e-5)


# ---------------------------------------------------------------- labels


def test_labels_are_dropped_image_by_image():
    rate, size, steps, net = 0.3, 40, 60, Recorder()
    list(train(Denoiser(net, linear()), batches(size=size), TrainConfig(steps=steps, label_dropout=rate)))
    given_labels = [label for _, label in itertools.islice(batches(size=size), steps)]
    dropped = torch.stack([label == -1 for _, _, label in net.seen])
    # kept labels are the ones that were given
    for mine, theirs in zip(net.seen, given_labels, strict=True):
        keep = mine[2] >= 0
        assert torch.equal(mine[2][keep], theirs[keep])
    n = size * steps
    assert abs(int(dropped.sum()) - n * rate) < 4 * math.sqrt(n * rate * (1 - rate))
    # a coin for each image, not one for the batch: the shares of batches scatter like a binomial's
    shares = dropped.double().mean(1)
    assert 0 < shares.min() and shares.max() < 1
    assert float(shares.var()) == pytest.approx(rate * (1 - rate) / size, rel=4 * math.sqrt(2 / steps))
    # and no image of the batch is favoured
    assert (dropped.double().mean(0) - rate).abs().max() < 4.5 * math.sqrt(rate * (1 - rate) / steps)


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_label_dropout_of_none_and_all(rate, share):
    net = Recorder()
    list(train(Denoiser(net, linear()), batches(), replace(CONFIG, label_dropout=rate)))
    assert torch.stack([label == -1 for _, _, label in net.seen]).double().mean() == share


def test_data_without_labels_trains():
    net = Recorder()
    list(train(Denoiser(net, linear()), ((x, None) for x, _ in batches()), CONFIG))
    assert all(label is None for _, _, label in net.seen)


# ---------------------------------------------------------------- the loss


def test_loss_at_initialisation_is_1_for_eps():
    # a fresh network answers 0, so the loss is the mean square of the noise: chi-square over its count
    losses = [
        float(s.loss) for s in train(Denoiser(fresh(), linear()), batches(size=256), TrainConfig(steps=1))
    ]
    assert abs(losses[0] - 1) < 4 * math.sqrt(2 / (256 * 16))


def test_overfits_one_batch():
    torch.manual_seed(0)
    net = UNet(UNetConfig(4, 1, 0, 16, (1,), 1, (), 16))
    x0 = torch.rand(1, 1, 4, 4).round() * 2 - 1
    config = TrainConfig(steps=150, lr=5e-3, warmup=10, decay="cosine", label_dropout=0.0)
    one_batch = ((x0.expand(16, 1, 4, 4), None) for _ in itertools.count())
    losses = f64([float(step.loss) for step in train(Denoiser(net, flow(), "flow"), one_batch, config)])
    assert losses[:3].mean() > 1.5
    assert losses[-20:].mean() < 0.25


@pytest.mark.parametrize(
    ("predict", "name"), [(p, n) for p in TARGETS for n in SCHEDULES if (p, n) != ("eps", "flow")]
)
def test_min_snr_is_one_weight_in_x0_space_whatever_the_target(predict, name):
    schedule, gamma = make(name), 5.0
    t = f64([0.01, 0.1, 0.3, 0.6, 0.95])
    x0, off = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    eps = torch.randn(5, 3, 4, dtype=torch.float64)
    a, s = (value.view(-1, 1, 1) for value in schedule.signal_noise(t))
    estimate = x0 + off
    implied = (a * x0 + s * eps - a * estimate) / s
    p, q = (value.view(-1, 1, 1) for value in TARGETS[predict](a.flatten(), s.flatten()))
    denoiser = Denoiser(lambda x, logsnr, label: p * estimate + q * implied, schedule, predict)
    loss = denoiser.loss(x0, t, eps, weight=min_snr(gamma, denoiser))
    snr = ((a / s) ** 2).flatten()
    wanted = snr.clamp(max=gamma) * off.square().mean((1, 2))
    close(loss / wanted, 1.0)
    assert (snr > gamma).any() and (snr < gamma).any()


def test_min_snr_is_the_papers_weight_for_eps_and_v():
    # arXiv 2303.09556, section 3.4
    logsnr = torch.linspace(-8, 8, 17, dtype=torch.float64)
    snr = logsnr.exp()
    for predict, wanted in (("eps", 1 / snr), ("v", 1 / (snr + 1)), ("x0", torch.ones_like(snr))):
        weight = min_snr(5.0, Denoiser(lambda *_: None, cosine(), predict))(logsnr)
        torch.testing.assert_close(weight, snr.clamp(max=5.0) * wanted, rtol=1e-12, atol=0)


def test_min_snr_reaches_training():
    runs = []
    for gamma in (0.0, 5.0):
        (step,) = train(Denoiser(fresh(), linear(), "v"), batches(), TrainConfig(steps=1, min_snr=gamma))
        runs.append(float(step.loss))
    assert runs[1] < 0.9 * runs[0]


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("poison", [math.nan, math.inf, 3e38])
def test_divergence_is_raised_before_weights_are_touched(poison):
    net = fresh()
    ema = EMA(net, 2)

    def data():
        for k, (x0, label) in enumerate(batches()):
            yield (x0 * poison if k == 3 else x0), label

    seen = []
    with pytest.raises(
        TrainingDiverged, match="step 4: loss is .*learning rate too high .*0.003.*\\[-1, 1\\]"
    ):
        for step in train(Denoiser(net, linear(), "v"), data(), CONFIG, ema):
            seen.append((step.index, weights(net), weights(ema.net)))
    index, net_before, ema_before = seen[-1]
    assert index == 3 and same(weights(net), net_before) and same(weights(ema.net), ema_before)
    assert issubclass(TrainingDiverged, ValueError)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": -4}, "steps must be at least 1, got -4"),
        ({"steps": 3.0}, "steps must be a whole number, got 3.0"),
        ({"steps": "3"}, "steps must be a whole number, got '3'"),
        ({"steps": None}, "steps must be a whole number, got None"),
        ({"steps": True}, "steps must be a whole number, got True"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"lr": -1e-3}, "lr must be positive, got -0.001"),
        ({"lr": "1e-3"}, "lr must be a number, got '1e-3'"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"clip": -1.0}, "clip must be at least 0, got -1.0"),
        ({"min_snr": -5.0}, "min_snr must be at least 0, got -5.0"),
        ({"label_dropout": 1.5}, "label_dropout must be at most 1, got 1.5"),
        ({"label_dropout": -0.1}, "label_dropout must be at least 0, got -0.1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**63}, "seed must be at most 9223372036854775807, got 9223372036854775808"),
        ({"seed": 1.0}, "seed must be a whole number, got 1.0"),
        ({"compile": "no"}, "compile must be true or false, got 'no'"),
        ({"decay": "step"}, "'step'.*none, linear, cosine"),
        ({"times": "normal"}, "'normal'.*uniform, logit-normal"),
        ({"precision": "fp16"}, "'fp16'.*fp32, bf16, auto"),
    ],
)
def test_impossible_configurations_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words) as caught:
        TrainConfig(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name", [field.name for field in fields(TrainConfig) if field.type in ("int", "float")]
)
def test_no_setting_is_nan_or_infinite(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        TrainConfig(**{name: value})


def test_numbers_of_numpy_are_numbers_and_become_pythons():
    config = TrainConfig(
        np.int64(7), lr=np.float64(0.5), clip=np.float32(0.25), seed=np.uint8(3), warmup=np.int32(0)
    )
    assert config == TrainConfig(7, lr=0.5, clip=0.25, seed=3, warmup=0)
    assert TrainConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_the_first_and_the_last_seed_train():
    for seed in (0, 2**63 - 1):
        (step,) = train(Denoiser(Recorder(), linear()), batches(), TrainConfig(1, seed=seed))
        assert step.loss.isfinite()


def test_precision():
    cpu = torch.device("cpu")
    assert resolve_precision("fp32", cpu) == "fp32" and resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("auto", cpu) in ("fp32", "bf16")
    net, start = fresh(), None
    for step in train(Denoiser(net, linear(), "v"), batches(), replace(CONFIG, precision="bf16", steps=3)):
        start = start or step.loss
        assert step.loss.dtype == torch.float32 and step.loss.isfinite()
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen", "trials"), [(3, 2, "bf16", 8), (3, 2.6, "fp32", 8), (3, 60, "fp32", 2)]
)
def test_auto_takes_bf16_where_it_is_faster_and_does_not_wait_where_it_is_emulated(
    monkeypatch, fp32, bf16, chosen, trials
):
    """The clock moves by what a convolution is said to cost in its arithmetic."""
    now, took = [0.0], []

    def forward(self, x):
        took.append(bf16 if torch.is_autocast_enabled("cpu") else fp32)
        now[0] += took[-1]
        return x * self.weight.sum()

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    monkeypatch.setattr("ddpm_lib.training.time.perf_counter", lambda: now[0])
    assert resolve_precision("auto", torch.device("cpu")) == chosen
    assert len(took) == trials


def test_a_run_takes_no_batch_that_it_does_not_train_on():
    taken = []

    def counted():
        for k, batch in enumerate(batches()):
            taken.append(k)
            yield batch

    steps = list(train(Denoiser(Recorder(), linear()), counted(), replace(CONFIG, steps=7), start=2))
    assert [step.index for step in steps] == [3, 4, 5, 6, 7] and taken == [0, 1, 2, 3, 4]


# ---------------------------------------------------------------- two processes

WORKER = """
import itertools, os, sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from test_training import CONFIG, Denoiser, EMA, batches, fresh, linear, train, weights
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
net = fresh(seed=rank)  # the processes agree on the first one's weights
ema = EMA(fresh(), 3)
mine = ((x[rank::world], label[rank::world]) for x, label in batches(size=8))
steps = list(train(Denoiser(net, linear(), "v"), mine, CONFIG, ema))
torch.save({"net": weights(net), "ema": weights(ema.net), "images": steps[-1].images}, f"{sys.argv[2]}/{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_are_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # the package from where this process has it, and conftest
    places = Path(ddpm_lib.__file__).parents[1], Path(__file__).parents[1], os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join(map(str, places))
    run = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(tmp_path)],
            env=os.environ | run | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        try:
            _, error = worker.communicate(timeout=240)
        finally:
            worker.kill()
        assert worker.returncode == 0, error[-3000:]

    net = fresh()
    ema = EMA(net, 3)
    start = copy.deepcopy(weights(net))
    steps = list(train(Denoiser(net, linear(), "v"), batches(size=8), CONFIG, ema))
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for result in results:
        assert result["images"] == steps[-1].images == 72
        for name, wanted in (("net", weights(net)), ("ema", weights(ema.net))):
            for mine, theirs in zip(result[name], wanted, strict=True):
                close(mine, theirs, 1e-5)
    assert same(results[0]["net"], results[1]["net"])
    # they did move, by far more than the tolerance
    assert max(float((a - b).abs().max()) for a, b in zip(start, weights(net), strict=True)) > 1e-3


def test_batches_that_run_out_are_said():
    net = UNet(UNetConfig(8, 1, width=8, multipliers=(1,), blocks=1, attention=(), head_dim=8))
    batch = (torch.zeros(2, 1, 8, 8), None)
    steps = train(Denoiser(net, linear()), [batch, batch], TrainConfig(steps=3))
    assert [next(steps).index, next(steps).index] == [1, 2]
    with pytest.raises(ValueError, match="2 of 3"):
        next(steps)


def test_no_gradients_lie_beside_the_forward_pass():
    """They would hold as much memory as the weights while the activations pile up."""
    net, held = fresh(0.0), []
    net.register_forward_pre_hook(
        lambda *_: held.append(sum(parameter.grad is not None for parameter in net.parameters()))
    )
    list(train(Denoiser(net, cosine(), "v"), batches(), CONFIG))
    assert held == [0] * CONFIG.steps
