"""This library beside others, measured here: training, sampling, reading images, memory and import.

    python benchmarks/compare.py                 all sections, two threads
    python benchmarks/compare.py --only train    one section; the stored results of the others stay
    python benchmarks/compare.py --quick         does everything work? (stores nothing)

Contestants take turns round by round, so that a machine that slows down slows all of them; a ratio is the median
of the rounds' ratios, with their quartiles. Results: benchmarks/results/compare.json and compare.md. Everything
runs on the CPU. The others come with `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from tqdm import tqdm

from ddpm_lib import checkpoint, data, files, sampling, schedule
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.layers import group_norm
from ddpm_lib.training import EMA, TrainConfig, make_optimizer, resolve_precision, train
from ddpm_lib.unet import UNet, UNetConfig, ddpm_cifar10

RESULTS = Path(__file__).parent / "results"
LR = 1e-4
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Case:
    """A network to compare, its batch size, how many steps a contestant makes in its turn, and lucidrains'
    nearest networks: name -> options of its Unet."""

    title: str
    config: UNetConfig
    batch: int
    repeats: int
    lucidrains: dict[str, dict]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.batch, self.config.channels, self.config.image_size, self.config.image_size


# An attention like that of DDPM's net: one head of 256 channels at 16x16, as lucidrains' Unet is told of it.
_DDPM_HEADS = {
    "full_attn": (False, True, False, True),
    "attn_heads": (4, 1, 1, 1),
    "attn_dim_head": (32, 256, 256, 256),
}
CASES = {
    "small": Case(
        "small net, 28x28",
        UNetConfig(28, 1, 0, 32, (1, 2, 2), 2, (), 32, 1, 0.0, "add"),
        64,
        3,
        {"lucidrains": {}, "lucidrains, narrow heads": {"attn_heads": (1, 2, 2)}},
    ),
    "cifar10": Case(
        "DDPM's net, 32x32",
        ddpm_cifar10(),
        8,
        1,
        {"lucidrains": _DDPM_HEADS, "lucidrains, wider": _DDPM_HEADS | {"dim": 144}},
    ),
}
RECIPE = UNetConfig(patch=2)
"""What the command line trains by default, without labels: patches of 2 pixels, twice the small net's width."""

IMPORTS = {
    "ours": "from ddpm_lib import checkpoint, data, denoiser, sampling, training, unet",
    "diffusers": "from diffusers import DDIMPipeline, DDPMPipeline, DDPMScheduler, UNet2DModel; "
    "from diffusers.training_utils import EMAModel",
    "lucidrains": "from denoising_diffusion_pytorch import GaussianDiffusion, Unet; from ema_pytorch import EMA",
}
"""What a script that trains and samples imports."""
AFTER_TORCH = {"the package": "import ddpm_lib", "its training and sampling": IMPORTS["ours"]}


@dataclass(frozen=True)
class Plan:
    """What was asked for. rounds: None for each section's own number."""

    threads: int = 2
    rounds: int | None = None
    quick: bool = False
    profile: bool = False

    def turns(self, usual: int) -> int:
        return self.rounds or (1 if self.quick else usual)

    def case(self, key: str) -> Case:
        return replace(CASES[key], batch=1, repeats=1) if self.quick else CASES[key]


@dataclass(eq=False)
class Contestant:
    """net; predict: (noisy, t) -> noise, a bare call of net; step: one training step, True for bf16 autocast."""

    net: nn.Module
    predict: Callable[[Tensor, Tensor], Tensor]
    step: Callable[[bool], float]


def ours(case: Case) -> Contestant:
    net = UNet(case.config)
    denoiser, ema = Denoiser(net, schedule.linear(), "eps"), EMA(net)
    config = TrainConfig(steps=10**9, lr=LR, warmup=0)
    batches, optimizer = itertools.repeat((_images(case), None)), make_optimizer(net, config)
    fp32, bf16 = (train(denoiser, batches, replace(config, precision=p), ema, optimizer) for p in PRECISIONS)
    return Contestant(net, net, lambda autocast: next(bf16 if autocast else fp32).loss.item())


def diffusers(case: Case) -> Contestant:
    """The same architecture in diffusers' words, trained as its example of unconditional generation is."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    config = case.config
    attends = ["Attn" if level in config.attention else "" for level in range(len(config.multipliers))]
    net = UNet2DModel(
        sample_size=config.image_size,
        in_channels=config.channels,
        out_channels=config.channels,
        block_out_channels=tuple(config.width * multiplier for multiplier in config.multipliers),
        layers_per_block=config.blocks,
        down_block_types=tuple(f"{attend}DownBlock2D" for attend in attends),
        up_block_types=tuple(f"{attend}UpBlock2D" for attend in reversed(attends)),
        attention_head_dim=config.head_dim,
        norm_num_groups=group_norm(config.width).num_groups,
        dropout=config.dropout,
        resnet_time_scale_shift={"add": "default", "scale_shift": "scale_shift"}[config.modulation],
    )
    chain, ema = DDPMScheduler(1000), EMAModel(net.parameters(), use_ema_warmup=True)
    x0 = _images(case)

    def loss() -> Tensor:
        eps, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        return F.mse_loss(net(chain.add_noise(x0, eps, t), t).sample.float(), eps)

    step = _their_step(net, loss, lambda: ema.step(net.parameters()))
    return Contestant(net, lambda x, t: net(x, t).sample, step)


def lucidrains(case: Case, variant: str = "lucidrains") -> Contestant:
    """The nearest that its options allow, trained as its Trainer does, but averaged at every step, not every tenth."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA as TheirEMA

    config, options = case.config, case.lucidrains[variant]
    shape = {"dim": config.width, "dim_mults": config.multipliers, "channels": config.channels}
    net = Unet(**shape | options, dropout=config.dropout, flash_attn=True)
    diffusion = GaussianDiffusion(
        net, image_size=config.image_size, objective="pred_noise", beta_schedule="linear"
    )
    ema = TheirEMA(diffusion, update_every=1, update_after_step=0)
    images = (_images(case) + 1) / 2
    return Contestant(net, net, _their_step(net, lambda: diffusion(images), ema.update))


def _their_step(net: nn.Module, loss: Callable[[], Tensor], average: Callable[[], None]) -> Callable:
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, betas=(0.9, 0.99))

    def step(bf16: bool) -> float:
        net.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average()
        return value.item()

    return step


SIDES = {"ours": ours, "diffusers": diffusers, "lucidrains": lucidrains}


def _images(case: Case) -> Tensor:
    return torch.rand(case.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def contestants(case: Case) -> dict[str, Contestant]:
    """All sides of a case. Raises SystemExit if diffusers' network is not of the same size as ours."""
    sides = {"ours": ours(case), "diffusers": diffusers(case)}
    mine, theirs = (parameters(side.net) for side in sides.values())
    if abs(theirs / mine - 1) > 0.01:
        raise SystemExit(f"{case.title}: diffusers has {theirs:,} parameters, ours {mine:,}: not one network")
    return sides | {variant: lucidrains(case, variant) for variant in case.lucidrains}


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def gflop(side: Contestant, config: UNetConfig) -> float:
    """Giga floating-point operations of one image's forward pass, 2 for a multiplication and an addition."""
    # torch's own table lacks the CPU's flash attention
    flash = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *qkv, **_: sdpa_flop_count(
            *qkv[:3]
        )
    }
    x = torch.zeros(1, config.channels, config.image_size, config.image_size)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=flash) as counter:
        side.predict(x, torch.full((1,), 0.5))
    return counter.get_total_flops() / 1e9


def take_turns(measures: dict[str, Callable[[], float]], rounds: int, title: str) -> dict[str, list[float]]:
    """What each measure returns, one number a round; every other round goes in the opposite order."""
    found = {name: [] for name in measures}
    with tqdm(total=rounds * len(measures), desc=title, file=sys.stderr) as bar:
        for number in range(rounds):
            for name in list(measures)[:: -1 if number % 2 else 1]:
                found[name].append(measures[name]())
                bar.update()
    return found


def race(runs: dict[str, tuple[int, Callable]], rounds: int, title: str) -> dict[str, list[float]]:
    """Seconds that each run takes for one of the things it does (runs: name -> how many, what to call); one number
    a round, after a round to warm up that does not count."""

    def seconds(count: int, run: Callable) -> float:
        began = time.perf_counter()
        run()
        return (time.perf_counter() - began) / count

    found = take_turns({name: partial(seconds, *run) for name, run in runs.items()}, rounds + 1, title)
    return {name: values[1:] for name, values in found.items()}


def ratios(mine: list[float], theirs: list[float]) -> list[float]:
    """Round by round, mine / theirs."""
    return [a / b for a, b in zip(mine, theirs, strict=True)]


def middle(values: list[float]) -> float:
    return float(np.median(values))


def target(what: str, values: list[float], limit: float, unit: str = "x", at_least: bool = False) -> dict:
    """A number that we want on one side of a limit: median and quartiles over the rounds, and whether it is there."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    reached = median >= limit if at_least else median <= limit
    wanted = f"at {'least' if at_least else 'most'} {limit:g} {unit}"
    return {"what": what, "median": median, "low": low, "high": high, "wanted": wanted, "reached": reached}


def table(title: str, columns: str, rows: list[tuple]) -> dict:
    cells = [[str(cell) for cell in row] for row in rows]
    return {"title": title, "columns": columns.split(" | "), "rows": cells}


def report(targets: list[dict], tables: list[dict], notes: list[str], measured: dict) -> dict:
    return {"targets": targets, "tables": tables, "notes": notes, "measured": measured}


def training(plan: Plan) -> dict:
    """A training step and a bare forward pass, at equal precision and at each side's defaults."""
    auto = resolve_precision("auto", torch.device("cpu"))
    rows, targets, measured, parts = [], [], {}, []
    for key in CASES:
        case = plan.case(key)
        sides = contestants(case)
        recipe = {"our recipe's net": ours(replace(case, config=RECIPE))} if key == "small" else {}
        entries = {f"{n}, {p}": (side, p) for n, side in (sides | recipe).items() for p in PRECISIONS}
        seconds = {}
        for what, work in (("step", _steps), ("forward", _forward)):
            runs = {
                name: (case.repeats, partial(work, side, case, p == "bf16", case.repeats))
                for name, (side, p) in entries.items()
            }
            seconds[what] = race(runs, plan.turns(7), f"{what}, {case.title}")
        measured[key] = seconds
        for name, (side, _) in entries.items():
            size, flops = f"{parameters(side.net) / 1e6:.2f} M", gflop(side, case.config)
            step, forward = (middle(seconds[what][name]) for what in ("step", "forward"))
            speed = (f"{1e3 * step:.0f}", f"{case.batch / step:.1f}", f"{3 * flops * case.batch / step:.0f}")
            rows.append((case.title, name, size, f"{flops:.3f}", *speed, f"{1e3 * forward:.0f}"))
        for other, what, precision in itertools.product(list(sides)[1:], seconds, PRECISIONS):
            values = ratios(*(seconds[what][f"{name}, {precision}"] for name in ("ours", other)))
            limit = 1.03 if other == "diffusers" else 0.6
            targets.append(target(f"{case.title}, {precision} {what}: ours / {other}", values, limit))
        values = ratios(seconds["step"][f"ours, {auto}"], seconds["step"]["diffusers, fp32"])
        title = f"{case.title}, step at defaults: ours ({auto}) / diffusers (fp32)"
        targets.append(target(title, values, 0.62))
        if plan.profile:
            measured[key]["profile"] = shares = profile(sides["ours"])
            parts += [(case.title, part, f"{share:.1%}") for part, share in shares.items()]
    title = "GFLOP: one image, forward. GFLOP/s: three times that for each image of a step."
    columns = "net | library, precision | parameters | GFLOP | step, ms | images/s | GFLOP/s | forward, ms"
    tables = [table(title, columns, rows)]
    if parts:
        tables.append(table("Where our training step (fp32) spends its time", "net | part | share", parts))
    batches = " and ".join(str(plan.case(key).batch) for key in CASES)
    notes = [
        f"Batches of {batches} images. A step: noise, forward, squared error, backward, clipping, Adam, average. "
        f"Precision auto means {auto} here; the examples of the others train in fp32 on a CPU.",
        "diffusers' network is ours. lucidrains' has one block less a level on the way up, and linear attention where "
        "ours has none: with four heads of 32, its default and nearest to our counts, or narrow heads, as wide as their "
        "layer. Wider: 144 channels for 128, to come nearer to our counts.",
        "Averages: our EMA, diffusers' EMAModel, ema_pytorch's EMA at every step (by default every tenth).",
        "Our recipe's net is no contestant: it is what the command line trains by default.",
    ]
    return report(targets, tables, notes, measured)


def _steps(side: Contestant, case: Case, bf16: bool, count: int) -> None:
    for _ in range(count):
        side.step(bf16)


@torch.no_grad()
def _forward(side: Contestant, case: Case, bf16: bool, count: int) -> None:
    side.net.eval()
    for _ in range(count):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            side.predict(torch.zeros(case.shape), torch.full((case.batch,), 0.5))


PARTS = {
    "Adam": ("Optimizer.step",),
    "average": ("_foreach_lerp",),
    "clipping": ("_foreach_norm", "_foreach_mul"),
    "attention": ("scaled_dot_product", "ScaledDotProduct", "BmmBackward", "SoftmaxBackward"),
    "norm": ("group_norm", "GroupNorm"),
    "convolution": ("convolution", "conv2d", "Convolution"),
    "SiLU": ("silu", "Silu"),
    "linear": ("aten::linear", "AddmmBackward"),
    "dropout": ("dropout",),
    "concatenation": ("aten::cat", "CatBackward"),
    "upsampling": ("upsample", "Upsample"),
}
"""Parts of a training step, and what the names of their operators contain."""


def profile(side: Contestant, steps: int = 2) -> dict[str, float]:
    """Part of the training step -> its share of the operators' own time, largest first."""
    side.step(False)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            side.step(False)
    spent = Counter()
    for event in profiler.events():
        spent[_part(event)] += event.self_cpu_time_total
    return {part: microseconds / spent.total() for part, microseconds in spent.most_common()}


def _part(event) -> str:
    """The part that an operator, or else the nearest operator that called it, belongs to."""
    while event is not None:
        for part, marks in PARTS.items():
            if any(mark in event.name for mark in marks):
                return part
        event = event.cpu_parent
    return "other"


def drawing(plan: Plan) -> dict:
    """Sampling with the small nets, beside bare calls of the same nets; and with nets that answer at once."""
    case = plan.case("small")
    sides = {name: side for name, side in contestants(case).items() if name in SIDES}
    nets = {name: side.net.eval() for name, side in sides.items()}
    stubs = {name: _answering_at_once(net, name, case) for name, net in nets.items()}
    # with a net, only the beginning of DDPM's chain: every step costs the same
    whole = {"ddim": 5, "ddpm": 50} if plan.quick else {"ddim": 50, "ddpm": 1000}
    begun = {"ddim": 2, "ddpm": 2} if plan.quick else {"ddim": 50, "ddpm": 20}

    def runs(nets: dict[str, nn.Module], steps: dict[str, int]) -> dict[str, tuple[int, Callable]]:
        return {f"{k}, {n}": (steps[k], SAMPLERS[n](nets[n], case, k, steps[k])) for k in steps for n in nets}

    with _threads(1):
        empty = race(runs(stubs, whole), plan.turns(5), "sampling, no net")
    calls = begun["ddpm"]
    bare = {f"bare, {n}": (calls, partial(_forward, side, case, False, calls)) for n, side in sides.items()}
    full = race(runs(nets, begun) | bare, plan.turns(5), "sampling")
    rows, targets = [], []
    for kind, limit in (("ddim", 0.15), ("ddpm", 0.3)):
        for name in sides:
            no_net, with_net, bare_net = (
                empty[f"{kind}, {name}"],
                full[f"{kind}, {name}"],
                full[f"bare, {name}"],
            )
            times = (
                f"{1e3 * middle(no_net):.3f}",
                *(f"{1e3 * middle(each):.1f}" for each in (with_net, bare_net)),
            )
            beside = [
                (empty[f"{kind}, ours"], no_net),
                (full[f"{kind}, ours"], with_net),
                (with_net, bare_net),
            ]
            rows.append((kind.upper(), name, *times, *(f"{middle(ratios(*pair)):.2f}" for pair in beside)))
        own = [1e3 * value for value in empty[f"{kind}, ours"]]
        targets.append(target(f"{kind.upper()} step without its network, one thread", own, limit, "ms"))
    columns = (
        "sampler | library | no net | with net | bare net | ours / theirs, no net | ours / theirs, with net | "
        "with net / bare net"
    )
    notes = [
        f"{case.batch} images of 1x28x28, x_0 clipped to [-1, 1]. No net: {whole['ddim']} steps of DDIM and "
        f"{whole['ddpm']} of DDPM on one thread, with a network that answers at once.",
        f"With net: each library's own small net, {begun['ddim']} steps of DDIM, but only {begun['ddpm']} of DDPM's "
        f"{whole['ddpm']}. Bare net: {calls} calls of it and nothing else.",
    ]
    tables = [table("Milliseconds a step", columns, rows)]
    return report(targets, tables, notes, {"no net": empty, "with net": full})


def _our_sampler(net: nn.Module, case: Case, kind: str, steps: int) -> Callable:
    chain = schedule.linear()
    denoise = sampling.clipped(Denoiser(net, chain, "eps"))
    times = chain.times(1000 if kind == "ddpm" else steps)[: steps + 1]
    draw = sampling.SAMPLERS[kind]
    return lambda: sampling.last(draw(denoise, sampling.pure_noise(case.shape, chain), chain, times))


def _diffusers_sampler(net: nn.Module, case: Case, kind: str, steps: int) -> Callable:
    import diffusers as them

    scheduler = getattr(them, f"{kind.upper()}Scheduler")(1000, beta_schedule="linear")
    pipeline = getattr(them, f"{kind.upper()}Pipeline")(unet=net, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    scheduler = pipeline.scheduler
    all_steps = scheduler.set_timesteps

    def first_steps(*args, **options) -> None:
        all_steps(*args, **options)
        scheduler.timesteps = scheduler.timesteps[:steps]

    scheduler.set_timesteps = first_steps
    count = 1000 if kind == "ddpm" else steps
    return lambda: pipeline(case.batch, num_inference_steps=count, output_type="pt")


def _lucidrains_sampler(net: nn.Module, case: Case, kind: str, steps: int) -> Callable:
    from denoising_diffusion_pytorch import denoising_diffusion_pytorch as them

    them.tqdm = partial(tqdm, disable=True)
    count = 1000 if kind == "ddpm" else steps
    options = {"objective": "pred_noise", "beta_schedule": "linear", "sampling_timesteps": count}
    diffusion = them.GaussianDiffusion(net, image_size=case.config.image_size, **options)
    if kind == "ddpm":
        diffusion.num_timesteps = steps
    return lambda: diffusion.sample(case.batch)


SAMPLERS = {"ours": _our_sampler, "diffusers": _diffusers_sampler, "lucidrains": _lucidrains_sampler}


def _answering_at_once(net: nn.Module, name: str, case: Case) -> nn.Module:
    answer, net = torch.randn(case.shape), copy.deepcopy(net)
    if name == "diffusers":
        from diffusers.models.unets.unet_2d import UNet2DOutput

        answer = UNet2DOutput(sample=answer)
    net.forward = lambda *args, **options: answer
    return net


@contextmanager
def _threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reading(plan: Plan) -> dict:
    """Images a second into flipped and scaled batches of 64: one tensor in memory against a folder of PNG files."""
    from torchvision import datasets, transforms

    images = data.load_images("cifar10")
    count, passes = (256, 2) if plan.quick else (len(images), 20)
    normal = transforms.Normalize((0.5,) * 3, (0.5,) * 3)
    steps = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor(), normal])
    ahead = passes * count // 64
    runs = {"ours": (64 * ahead, partial(_drain, data.batches(images, 64, flip=True), ahead))}
    with tempfile.TemporaryDirectory() as folder:
        _write_pngs(images, count, Path(folder))
        files = datasets.ImageFolder(folder, steps)
        for workers in (0, 2):
            options = {"shuffle": True, "num_workers": workers, "persistent_workers": workers > 0}
            loader = torch.utils.data.DataLoader(files, 64, **options)
            runs[f"ImageFolder, {workers} workers"] = (count, partial(_drain, loader, len(loader)))
        seconds = race(runs, plan.turns(5), "reading images")
    targets = [
        target(f"images/s: ours / {name}", ratios(values, seconds["ours"]), 20, at_least=True)
        for name, values in seconds.items()
        if name != "ours"
    ]
    rows = [(name, f"{1 / middle(values):,.0f}") for name, values in seconds.items()]
    notes = [
        f"{count:,} images of 3x32x32. Theirs: PIL, RandomHorizontalFlip, ToTensor, Normalize, workers that stay alive. "
        "Ours has read its images before the clock starts."
    ]
    return report(targets, [table("Images a second", "what | images/s", rows)], notes, seconds)


def _drain(batches, count: int) -> None:
    for _ in itertools.islice(batches, count):
        pass


def _write_pngs(images: data.ImageSet, count: int, folder: Path) -> None:
    from PIL import Image

    for name in images.classes:
        (folder / name).mkdir()
    for number, (pixels, label) in enumerate(zip(images.images[:count], images.labels, strict=False)):
        file = folder / images.classes[label] / f"{number}.png"
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)


def memory(plan: Plan) -> dict:
    """Peak memory of a training step, each in a process of its own."""
    keys = ["small"] if plan.quick else list(CASES)
    measures = {f"{key}, {name}": partial(_peak_alone, name, key, plan) for key in keys for name in SIDES}
    found = take_turns(measures, plan.turns(3), "memory")
    targets = []
    for key in keys:
        values = ratios(found[f"{key}, ours"], found[f"{key}, diffusers"])
        targets.append(target(f"peak memory, {CASES[key].title}: ours / diffusers", values, 1))
    rows = [(name, *(f"{middle(found[f'{key}, {name}']):.0f}" for key in keys)) for name in SIDES]
    columns = " | ".join(["library", *(f"{CASES[key].title}, batch {plan.case(key).batch}" for key in keys)])
    title = "Peak memory of training steps in fp32, beyond what the imports take, MiB"
    return report(targets, [table(title, columns, rows)], [], found)


def importing(plan: Plan) -> dict:
    """The time to import, each in a process of its own: what this library adds to torch, and the whole of each."""
    measures = {words: partial(_import_alone, words, plan) for words in ("import torch", *IMPORTS.values())}
    extra = {name: partial(_import_alone, words, plan, "import torch") for name, words in AFTER_TORCH.items()}
    found = take_turns(measures | extra, plan.turns(7), "import")
    targets = [
        target(f"`{words}` after `import torch`", found[name], 0.1, "s")
        for name, words in AFTER_TORCH.items()
    ]
    imports = [(f"`{words}`", f"{middle(found[words]):.2f}") for words in measures]
    tables = [table("The whole, seconds", "what | s", imports)]
    return report(targets, tables, [], found)


def peak_mib(name: str, key: str, plan: Plan) -> float:
    """Peak memory of two training steps beyond what the imports take; for a process that does nothing else."""
    torch.set_num_threads(plan.threads)
    exec(IMPORTS[name], {})
    layer = nn.Conv2d(1, 1, 3)
    layer(torch.zeros(1, 1, 8, 8)).sum().backward()
    # torch imports another 80 MiB at an optimiser's first step, unless an import above has done so
    torch.optim.Adam(layer.parameters()).step()
    # the high-water mark goes back to what is in use now
    Path("/proc/self/clear_refs").write_text("5")
    before = _high_water()
    side = SIDES[name](plan.case(key))
    _steps(side, plan.case(key), False, 2)
    return _high_water() - before


def _high_water() -> float:
    # not getrusage: ru_maxrss of a child starts at the peak of its parent, however little the child takes
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status does not say VmHWM")


def _peak_alone(name: str, key: str, plan: Plan) -> float:
    here = str(Path(__file__).resolve().parent)
    return _alone(
        f"import sys; sys.path.insert(0, {here!r})\n"
        f"from compare import Plan, peak_mib\nprint(peak_mib({name!r}, {key!r}, {plan!r}))",
        plan,
    )


def _import_alone(words: str, plan: Plan, before: str = "") -> float:
    return _alone(
        f"import time\n{before}\nbegan = time.perf_counter()\n{words}\nprint(time.perf_counter() - began)",
        plan,
    )


def _alone(code: str, plan: Plan) -> float:
    """The number that code prints last, run in a process of its own."""
    threads = {"OMP_NUM_THREADS": str(plan.threads)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | threads
    )
    if run.returncode:
        raise SystemExit(f"a measurement in a process of its own failed:\n{run.stderr[-2000:]}")
    return float(run.stdout.split()[-1])


@dataclass(frozen=True)
class Section:
    """heading; what measures it; the packages that it needs, distribution -> module."""

    heading: str
    measure: Callable[[Plan], dict]
    needs: dict[str, str]


_OTHERS = {
    "diffusers": "diffusers",
    "denoising-diffusion-pytorch": "denoising_diffusion_pytorch",
    "ema-pytorch": "ema_pytorch",
}
SECTIONS = {
    "train": Section("Training", training, _OTHERS),
    "sample": Section("Sampling", drawing, _OTHERS),
    "data": Section("Reading images", reading, {"torchvision": "torchvision"}),
    "memory": Section("Memory", memory, _OTHERS),
    "import": Section("Import", importing, _OTHERS),
}


def markdown(stored: dict, quick: bool = False) -> str:
    """One page of tables; a target that was not reached is marked **missed**."""
    lines = ["# This library beside others", ""]
    if quick:
        lines += ["**QUICK RUN: tiny sizes, to see that everything works. Not measurements.**", ""]
    for name, section in SECTIONS.items():
        if name in stored:
            lines += [f"## {section.heading}", "", _origin(stored[name]["where"]), "", *_tables(stored[name])]
    return "\n".join(lines)


def _origin(where: dict) -> str:
    peers = ", ".join(f"{name} {version}" for name, version in where["peers"].items())
    return (
        f"`{where['command']}`, {where['date']}. {where['device']}, torch {where['torch']}, Python {where['python']}, "
        f"commit {where['commit']}; {peers}."
    )


def _tables(result: dict) -> list[str]:
    wanted = [
        (row["what"], f"{row['median']:.3g}", f"{row['low']:.3g} to {row['high']:.3g}", row["wanted"])
        + ("reached" if row["reached"] else "**missed**",)
        for row in result["targets"]
    ]
    lines = []
    for each in (table("", "target | median | quartiles | wanted | ", wanted), *result["tables"]):
        rows = [each["columns"], ["---"] * len(each["columns"]), *each["rows"]]
        lines += [each["title"], ""] if each["title"] else []
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return lines + [f"- {note}" for note in result["notes"]] + [""] * bool(result["notes"])


def where(argv: list[str], needs: dict[str, str]) -> dict:
    """Where and how one section was measured."""
    found = checkpoint.provenance(torch.device("cpu"))
    command = shlex.join(["python", "benchmarks/compare.py", *argv])
    peers = {name: metadata.version(name) for name in needs}
    return found | {"command": command, "peers": peers}


def read_stored() -> dict:
    """The stored sections. Raises SystemExit if the file is not what this script writes."""
    path = RESULTS / "compare.json"
    try:
        return json.loads(path.read_text())["sections"] if path.exists() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} holds no results ({error!r}): move it away and run again") from error


def store(sections: dict) -> None:
    """Writes compare.json and compare.md, each whole or not at all."""
    pages = {
        "compare.json": json.dumps({"sections": sections}, indent=1) + "\n",
        "compare.md": markdown(sections),
    }
    for name, text in pages.items():
        files.write_whole(RESULTS / name, lambda part, text=text: Path(part).write_text(text))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = ", ".join(SECTIONS)
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"sections, with commas between: {names}")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    parser.add_argument("--rounds", type=int, help="rounds (train and import 7, sample and data 5, memory 3)")
    parser.add_argument("--profile", action="store_true", help="also where our training step spends its time")
    parser.add_argument(
        "--quick", action="store_true", help="does everything work? tiny sizes, stores nothing"
    )
    options = parser.parse_args(argv)
    options.only = list(dict.fromkeys(options.only.split(",")))
    unknown = [name for name in options.only if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}: choose from {names}")
    if options.threads < 1 or (options.rounds is not None and options.rounds < 1):
        parser.error("--threads and --rounds must be at least 1")
    if options.profile and "train" not in options.only:
        parser.error("--profile belongs to the section train, which --only leaves out")
    if "memory" in options.only and not Path("/proc/self/clear_refs").exists():
        parser.error(
            "memory is read from /proc, as Linux has it: leave it out, --only train,sample,data,import"
        )
    needs = {name: module for chosen in options.only for name, module in SECTIONS[chosen].needs.items()}
    missing = [name for name, module in needs.items() if find_spec(module) is None]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}. Install with: pip install -e '.[bench]'")
    return options


def main(argv: list[str]) -> None:
    options = parse(argv)
    plan = Plan(options.threads, options.rounds, options.quick, options.profile)
    stored, done = {} if plan.quick else read_stored(), {}
    with _threads(plan.threads):
        # now: the first section that is stored changes a file, and the commit would be called dirty from then on
        places = {name: where(argv, SECTIONS[name].needs) for name in options.only}
        for name in options.only:
            done[name] = SECTIONS[name].measure(plan) | {"where": places[name]}
            if not plan.quick:
                store(stored | done)
    print(markdown(done, plan.quick))


if __name__ == "__main__":
    main(sys.argv[1:])
