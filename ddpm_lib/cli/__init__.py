"""The command line: ``python -m ddpm_lib train / sample / evaluate / export / data / exercises``.

It calls the functions that the chapters use, and adds what long work needs: a progress bar, a log,
sample grids, checkpoints, and a way on after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from .. import __version__, checkpoint, data, exercises, sampling, schedule
from ..checkpoint import Checkpoint
from ..denoiser import TARGETS, Denoiser
from ..training import (
    DECAYS,
    EMA,
    OPTIMIZERS,
    PRECISIONS,
    TIMES,
    TrainConfig,
    TrainingDiverged,
    bf16_slowdown,
    make_optimizer,
    resolve_precision,
    train,
)
from ..unet import UNet, UNetConfig

# What a run is made of: fixed when it starts, kept in its checkpoints, the same after --resume.
RECIPE = (
    {
        "data": "mnist",
        "data_root": None,
        "size": None,
        "channels": None,
        "skip_corrupt": False,
        "flip": False,
        "labels": True,
        "schedule": "linear",
        "predict": "eps",
        "width": 48,
        "multipliers": None,
        "blocks": 2,
        "attention": None,
        "patch": None,
        "dropout": 0.0,
        "batch_size": 128,
        "ema_half_life": 500.0,
    }
    | {f.name: f.default for f in fields(TrainConfig)}
    | {"precision": "auto", "steps": None}
)
# Kept too, but may change when a run goes on.
RUNNING = {"device": "auto", "save_every": 500, "sample_every": 500, "log_every": 50, "tensorboard": False}


class UsageError(ValueError):
    """A request that cannot be carried out, for a reason the reader can mend."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 2 a request that cannot be met, 130 or 143 interrupted."""
    parser = _parser()
    args = parser.parse_args(argv)
    warnings.showwarning = lambda message, *_: print(f"ddpm_lib: {message}", file=sys.stderr)
    try:
        return args.run(args) or 0
    except (ValueError, OSError) as error:
        print(f"ddpm_lib {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


# --- train ---------------------------------------------------------------------------------------


def run_train(args: argparse.Namespace) -> int:
    """Trains a model: see ``python -m ddpm_lib train --help``."""
    given = {name: value for name, value in vars(args).items() if name in RECIPE | RUNNING}
    out, resuming = _where(args)
    rank, world = _join_processes()
    saved = checkpoint.load(out) if resuming else None
    if saved is not None:
        settings = _resumed_settings(saved, given, out)
    else:
        settings = RECIPE | RUNNING | _read_config(args.config) | given
        if settings["steps"] is None:
            raise UsageError(
                "say how long to train: --steps N (two cores take about 80 steps of 128 small images a minute)"
            )
    _check_running(settings)
    device = pick_device(settings["device"], rank)

    images = data.load_images(
        settings["data"],
        size=settings["size"],
        channels=settings["channels"],
        root=settings["data_root"],
        skip_corrupt=settings["skip_corrupt"],
    )
    if saved is None:
        saved = _new_run(settings, images, device)
    else:
        saved.net.to(device)
        saved.ema.net.to(device)
    step = saved.step
    config = saved.config
    if step >= config.steps:
        raise UsageError(f"{out}: this run has done its {step} steps; to go on, give a larger --steps")
    optimizer = make_optimizer(saved.net, config)
    if step:
        checkpoint.restore_optimizer(saved, optimizer)

    stream = data.batches(
        images,
        settings["batch_size"],
        seed=config.seed,
        start=step,
        flip=settings["flip"],
        device=device,
        rank=rank,
        world=world,
    )
    denoiser = Denoiser(saved.net, saved.schedule, saved.predict)
    steps = train(denoiser, stream, config, saved.ema, optimizer, start=step)
    return _Run(out, saved, optimizer, settings, rank).follow(steps)


class _Run:
    """A run in its folder: checkpoint.safetensors, log.jsonl, samples/."""

    def __init__(self, out: Path, saved: Checkpoint, optimizer, settings: dict, rank: int):
        self.out, self.saved, self.optimizer, self.settings, self.leads = (
            out,
            saved,
            optimizer,
            settings,
            rank == 0,
        )
        self.signal = 0
        self.before = saved.provenance.get("seconds", 0.0)
        self.began = time.monotonic()
        self.last_saved = saved.step

    def follow(self, steps: Iterable) -> int:
        """Takes the training steps as they come; returns the exit code."""
        total, device = self.saved.config.steps, next(self.saved.net.parameters()).device
        if self.leads:
            self._open(device)
        previous = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        quiet = not sys.stderr.isatty()
        bar = tqdm(
            total=total, initial=self.saved.step, unit="step", disable=not self.leads, dynamic_ncols=True,
            mininterval=10 if quiet else 0.2, desc=str(self.out),
        )  # fmt: skip
        losses, done = [], self.saved.step
        try:
            for done in steps:
                self.saved.step, step = done.index, done.index
                losses.append(done.loss)
                bar.update()
                ends = step == total or self._told_to_stop(device)
                if self.leads and (ends or step % self.settings["log_every"] == 0):
                    loss, losses = torch.stack(losses).mean().item(), []
                    self._log(done, loss)
                    rate = bar.format_dict["rate"] or 0
                    bar.set_postfix_str(
                        f"loss {loss:.4f}, {rate * self.settings['batch_size']:.0f} images/s", refresh=False
                    )
                if self.leads and (ends or step % self.settings["save_every"] == 0):
                    if not done.loss.isfinite():
                        raise TrainingDiverged(f"step {step}: the loss is {done.loss.item():.3g}")
                    self._save()
                if (
                    self.leads
                    and self.settings["sample_every"]
                    and (step == total or step % self.settings["sample_every"] == 0)
                ):
                    self._draw(step)
                if ends and step < total:
                    break
        except TrainingDiverged as error:
            raise TrainingDiverged(
                f"{error}. The last good checkpoint is {self.path}, step {self.last_saved}"
            ) from error
        finally:
            bar.close()
            for number, handler in previous.items():
                signal.signal(number, handler)
            if self.leads:
                self.log.close()
        if not self.leads:
            return 128 + self.signal if self.signal else 0
        if self.signal and self.saved.step < total:
            print(f"stopped at step {self.saved.step} of {total}; saved. Go on with:\n"
                  f"  python -m ddpm_lib train --resume {self.out}")  # fmt: skip
            return 128 + self.signal
        print(f"{total} steps done: {self.path}\n  python -m ddpm_lib sample {self.out} --out samples.png")
        return 0

    @property
    def path(self) -> Path:
        return self.out / "checkpoint.safetensors"

    def _open(self, device: torch.device) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        for left_over in self.out.glob(".checkpoint.safetensors.*"):
            left_over.unlink()
        log = self.out / "log.jsonl"
        rows = [row for row in _read_rows(log) if row["step"] <= self.saved.step] if self.saved.step else []
        checkpoint.write_whole(
            log, lambda part: Path(part).write_text("".join(json.dumps(row) + "\n" for row in rows))
        )
        self.log = log.open("a", buffering=1)
        self.board = None
        if self.settings["tensorboard"]:
            self.board = _tensorboard(self.out / "tensorboard", self.saved.step)
        if not self.saved.step:
            self._save()
        count = sum(parameter.numel() for parameter in self.saved.net.parameters())
        size = self.saved.data
        print(f"{size['source']}: {size['images']:,} images of {size['channels']} x {size['size']} x {size['size']}; network of "
              f"{count:,} weights; {self.saved.schedule.name} schedule, predicts {self.saved.predict}; {device}, "
              f"{self.saved.config.precision}", file=sys.stderr)  # fmt: skip

    def _stop(self, number: int, frame) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number

    def _told_to_stop(self, device: torch.device) -> bool:
        if not dist.is_initialized():
            return bool(self.signal)
        # every process must stop after the same step, or the others wait for its gradients for ever
        told = torch.tensor([self.signal], device=device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        self.signal = self.signal or int(told)
        return bool(told)

    def _log(self, done, loss: float) -> None:
        row = {
            "step": done.index,
            "loss": round(loss, 6),
            "grad_norm": round(float(done.grad_norm), 4),
            "lr": done.lr,
            "images": done.images,
            "seconds": round(self._seconds(), 1),
        }
        self.log.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name in ("loss", "grad_norm", "lr"):
                self.board.add_scalar(name, row[name], done.index)

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def _save(self) -> None:
        self.saved.provenance["seconds"] = round(self._seconds(), 1)
        self.saved.provenance["images_seen"] = self.saved.step * self.settings["batch_size"]
        checkpoint.save(self.saved, self.path, self.optimizer)
        self.last_saved = self.saved.step

    def _draw(self, step: int) -> None:
        from ..plotting import save_grid

        labels = torch.arange(10).repeat(4) % max(len(self.saved.classes), 1) if self.saved.classes else None
        drawn = draw(self.saved, 40, labels, steps=20, sampler="dpm++2m", seed=0)
        save_grid(drawn, self.out / "samples" / f"step_{step:06d}.png", columns=10)
        if self.board is not None:
            from ..plotting import image_grid

            self.board.add_image("samples", torch.as_tensor(image_grid(drawn, 10)), step, dataformats="HWC")


def _where(args: argparse.Namespace) -> tuple[Path, bool]:
    """The run's folder, and whether a run in it is to go on."""
    resume = getattr(args, "resume", None)
    if resume is not None:
        if args.out and resume not in ("", args.out):
            raise UsageError(f"--resume {resume} and --out {args.out} name two folders: give one")
        if not (args.out or resume):
            raise UsageError("say which run to go on with: --resume runs/first")
        out = Path(resume or args.out)
        if not (out / "checkpoint.safetensors").exists():
            raise UsageError(
                f"nothing to resume in {out}: there is no checkpoint.safetensors. Start it without --resume"
            )
        return out, True
    if not args.out:
        raise UsageError("say where the run goes: --out runs/first")
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")
    if (out / "checkpoint.safetensors").exists() or (out / "log.jsonl").exists():
        raise UsageError(f"{out} holds another run: go on with it (--resume {out}) or choose another --out")
    return out, False


def _read_config(path: str | None) -> dict:
    if path is None:
        return {}
    try:
        settings = json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(settings, dict) or (unknown := set(settings) - set(RECIPE | RUNNING)):
        raise UsageError(
            f"{path}: unknown settings {', '.join(sorted(unknown))}; known: {', '.join(RECIPE | RUNNING)}"
        )
    return settings


def _resumed_settings(saved: Checkpoint, given: dict, out: Path) -> dict:
    settings = RECIPE | RUNNING | saved.provenance["settings"]
    for name, value in given.items():
        if name in RECIPE and name != "steps" and value != settings[name]:
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{out} was started with {option} {settings[name]}, which cannot become {value}: "
                f"leave {option} out, or start a new run with another --out"
            )
    settings |= given
    saved.config = TrainConfig(**{**asdict(saved.config), "steps": settings["steps"]})
    saved.provenance["settings"] = {name: settings[name] for name in RECIPE | RUNNING}
    return settings


def _new_run(settings: dict, images: data.ImageSet, device: torch.device) -> Checkpoint:
    for name, known in (("schedule", schedule.SCHEDULES), ("predict", TARGETS)):
        if settings[name] not in known:
            raise UsageError(f"unknown {name} {settings[name]!r}: choose from {', '.join(known)}")
    config = TrainConfig(**{f.name: settings[f.name] for f in fields(TrainConfig)})
    _warn_of_slow_bf16(config.precision, device)
    # decided once: a trial may come out otherwise in another process, or when the run goes on
    precision = [resolve_precision(config.precision, device)]
    if dist.is_initialized():
        dist.broadcast_object_list(precision)
    config = TrainConfig(**{**asdict(config), "precision": precision[0]})
    channels, height, width = images.images.shape[1:]
    if height != width:
        raise UsageError(
            f"images are {height} x {width}, the U-Net takes squares: give --size, such as --size 32"
        )
    classes = list(images.classes) if settings["labels"] else []
    torch.manual_seed(config.seed)
    net = UNet(network_config(settings, height, channels, len(classes))).to(device)
    # built before any work, so that a pair that cannot be sampled is refused now
    denoiser = Denoiser(net, schedule.make(settings["schedule"]), settings["predict"])
    about = {
        "source": settings["data"],
        "size": height,
        "channels": channels,
        "images": len(images),
        "classes": classes,
    }
    kept = {name: settings[name] for name in RECIPE | RUNNING}
    return Checkpoint(
        net, denoiser.schedule, denoiser.predict, config, EMA(net, settings["ema_half_life"]), data=about,
        provenance=checkpoint.provenance(device) | {"seed": config.seed, "settings": kept},
    )  # fmt: skip


def _warn_of_slow_bf16(asked: str, device: torch.device) -> None:
    if asked != "bf16" or device.type != "cpu":
        return
    if (slowdown := bf16_slowdown()) > 2:
        print(
            f"bf16 takes about {slowdown:.0f} times as long as fp32 on this processor, which can only emulate it: "
            "--precision auto takes what is faster",
            file=sys.stderr,
        )


def network_config(settings: dict, size: int, channels: int, num_classes: int) -> UNetConfig:
    """The U-Net for these settings. Left open: patches of 2 pixels, levels down to a grid of 8 or less, and
    attention on the coarsest."""
    patch = settings["patch"] or (2 if size % 2 == 0 else 1)
    multipliers = settings["multipliers"]
    if multipliers is None:
        grid, multipliers = size // patch, (1,)
        while grid > 8 and grid % 2 == 0:
            grid, multipliers = grid // 2, (*multipliers, 2)
    attention = settings["attention"]
    if attention is None:
        attention = (len(multipliers) - 1,)
    return UNetConfig(
        image_size=size, channels=channels, num_classes=num_classes, width=settings["width"], multipliers=multipliers,
        blocks=settings["blocks"], attention=attention, head_dim=math.gcd(32, settings["width"]), patch=patch,
        dropout=settings["dropout"],
    )  # fmt: skip


def _check_running(settings: dict) -> None:
    if settings["batch_size"] < 1:
        raise UsageError(f"--batch-size must be at least 1, got {settings['batch_size']}")
    if settings["save_every"] < 1 or settings["log_every"] < 1 or settings["sample_every"] < 0:
        raise UsageError("--save-every and --log-every must be at least 1; --sample-every 0 draws nothing")


def _join_processes() -> tuple[int, int]:
    """Rank and number of processes; more than one if torchrun started us."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return 0, 1
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), dist.get_world_size()


def _read_rows(path: Path) -> Iterator[dict]:
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the line that was being written when the run was killed
            return


def _tensorboard(folder: Path, step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard needs the tensorboard package: pip install tensorboard") from error
    return SummaryWriter(folder, purge_step=step)


# --- sample --------------------------------------------------------------------------------------


DRAWING = {"sampler": "dpm++2m", "steps": 20, "scale": 1.0}
"""How samples are drawn where neither the reader nor the model file says."""


def draw(
    model: Checkpoint,
    count: int,
    labels: Tensor | None,
    *,
    steps: int = 50,
    sampler: str = "ddim",
    scale: float = 1.0,
    seed: int = 0,
    eta: float | None = None,
    ema: bool = True,
    progress: bool = False,
    batch_size: int = 64,
    precision: str = "fp32",
) -> Tensor:
    """count images of a model as uint8 (count, C, H, W) on the CPU; labels (count,) or None.

    With a sampler that adds no noise, each image depends on the seed and its own number only. precision:
    "bf16" is faster where the processor gains from it, "auto" tries; pictures differ by a shade or two.
    Raises ValueError for a sampler, number of steps, scale, precision or label that cannot be.
    """
    if sampler not in sampling.SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}: choose from {', '.join(sampling.SAMPLERS)}")
    if eta is not None and sampler != "ddim":
        raise ValueError(f"eta is a setting of the sampler 'ddim', not of {sampler!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: choose from {', '.join(PRECISIONS)}")
    if labels is not None:
        check_labels(model, labels)
    denoiser = model.denoiser(ema)
    device = next(denoiser.net.parameters()).device
    bf16 = resolve_precision(precision, device) == "bf16"
    times = denoiser.schedule.times(steps)
    config = denoiser.net.config
    noise = sampling.pure_noise(
        (count, config.channels, config.image_size, config.image_size),
        denoiser.schedule,
        torch.Generator().manual_seed(seed),
    )
    noisy = {"generator": torch.Generator(device).manual_seed(seed + 1)} if sampler in sampling.NOISY else {}
    noisy |= {} if eta is None else {"eta": eta}
    images = []
    with tqdm(total=steps * math.ceil(count / batch_size), unit="step", disable=not progress) as bar:
        for begin in range(0, count, batch_size):
            part = slice(begin, begin + batch_size)
            asked = None if labels is None else labels[part].to(device)
            denoise = sampling.clipped(sampling.guided(denoiser, asked, scale))
            steps_taken = sampling.SAMPLERS[sampler](
                denoise, noise[part].to(device), denoiser.schedule, times, **noisy
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                images.append(data.to_uint8(sampling.last(_ticking(steps_taken, bar)).cpu()))
    return torch.cat(images)


def _ticking(steps: Iterable, bar: tqdm) -> Iterator:
    for step in steps:
        bar.update()
        yield step


def sampling_settings(model: Checkpoint, given: dict) -> tuple[dict, list[str]]:
    """Sampler, steps and scale, and which of them the model file recommends and the reader did not override.

    given: those that the reader asked for. What is left open is as provenance["sampling"] says, or as DRAWING.
    Raises ValueError if the file's recommendation cannot be read.
    """
    recommended = model.provenance.get("sampling", {})
    kinds = {"sampler": str, "steps": int, "scale": int | float}
    readable = isinstance(recommended, dict) and all(
        name in kinds and isinstance(value, kinds[name]) for name, value in recommended.items()
    )
    if not readable:
        raise ValueError(
            f"the model file recommends settings that cannot be read, {recommended!r}: give --sampler, --steps and --scale"
        )
    return DRAWING | recommended | given, [name for name in recommended if name not in given]


def check_labels(model: Checkpoint, labels: Tensor) -> None:
    """Raises ValueError, naming the choices, if the model does not know these labels (N,)."""
    known = model.net.config.num_classes
    if not known:
        raise ValueError("this model was trained without labels: leave --label out")
    if int(labels.min()) < 0 or int(labels.max()) >= known:
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise ValueError(
            f"label {wrong} is out of range: this model knows 0 to {known - 1} ({', '.join(model.classes)})"
        )


def run_sample(args: argparse.Namespace) -> int:
    """Draws images from a model: see ``python -m ddpm_lib sample --help``."""
    out = Path(args.out)
    if out.suffix not in (".png", ".npz"):
        raise UsageError(
            f"--out {out}: choose a name ending in .png (a picture of all) or .npz (images and labels)"
        )
    device = pick_device(args.device)
    model = checkpoint.load(args.checkpoint, device)
    how, _ = sampling_settings(model, _asked_settings(args))
    labels = asked_labels(model, args.label, args.count)
    _warn_of_slow_bf16(args.precision, device)
    images = draw(
        model, args.count, labels, **how, seed=args.seed, eta=args.eta, ema=not args.raw,
        progress=sys.stderr.isatty(), batch_size=args.batch_size, precision=args.precision,
    )  # fmt: skip
    if out.suffix == ".png":
        from ..plotting import save_grid

        known = model.net.config.num_classes
        columns = args.columns or (known if known and args.label is None and args.count >= known else None)
        large = images.repeat_interleave(args.zoom, 2).repeat_interleave(args.zoom, 3)
        save_grid(large, out, columns=columns)
    else:
        save_npz(out, images, labels, model.classes)
    shown = (
        "no labels"
        if labels is None
        else "labels " + ", ".join(model.classes[int(n)] for n in labels.unique())
    )
    print(
        f"{out}: {len(images)} images, {shown}; {how['sampler']}, {how['steps']} steps, scale {how['scale']:g}"
    )
    return 0


def _asked_settings(args: argparse.Namespace) -> dict:
    """Of sampler, steps and scale, those that the reader asked for; eta is a wish for ddim."""
    asked = {name: getattr(args, name) for name in DRAWING}
    if args.eta is not None and args.sampler is None:
        asked["sampler"] = "ddim"
    return {name: value for name, value in asked.items() if value is not None}


def asked_labels(model: Checkpoint, asked: str | None, count: int) -> Tensor | None:
    """Labels (count,) for "7", "cat" or "3,1,4"; all classes in turn for None; None for a model without labels."""
    if asked is None:
        known = model.net.config.num_classes
        return torch.arange(count) % known if known else None
    numbers = []
    for word in asked.split(","):
        if word.strip() in model.classes:
            numbers.append(model.classes.index(word.strip()))
        elif word.strip().lstrip("-").isdigit():
            numbers.append(int(word))
        else:
            raise ValueError(
                f"unknown label {word.strip()!r}: choose from {', '.join(model.classes) or '(no labels)'}"
            )
    labels = torch.tensor(numbers)
    check_labels(model, labels)
    return labels.repeat(math.ceil(count / len(labels)))[:count]


def save_npz(path: Path, images: Tensor, labels: Tensor | None, classes: list[str]) -> None:
    """images uint8 (N, C, H, W) as (N, H, W, C), labels, and classes, in the form that load_images reads."""
    import numpy as np

    named = {"classes": np.array(classes)} if classes else {}
    labels = torch.zeros(len(images), dtype=torch.long) if labels is None else labels

    def write(part: str) -> None:
        with open(part, "wb") as file:
            np.savez_compressed(
                file, images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy(), **named
            )

    checkpoint.write_whole(path, write)


# --- evaluate, export, data ----------------------------------------------------------------------


def run_evaluate(args: argparse.Namespace) -> int:
    """Measures a model: see ``python -m ddpm_lib evaluate --help``."""
    from .. import evaluate, ledger

    began = time.monotonic()
    book = None if args.ledger is None else ledger.where(args.ledger)
    if book is not None:
        ledger.read(book)  # a ledger that cannot be read is better known now than after minutes of work
    if args.json and Path(args.json).is_dir():
        raise UsageError(f"--json {args.json} is a folder: give a file")
    device = pick_device(args.device)
    model = checkpoint.load(args.checkpoint, device)
    how, recommended = sampling_settings(model, _asked_settings(args))
    source = args.data or evaluate.stand_in(model.data.get("source", ""))
    if not source:
        raise UsageError(f"{args.checkpoint} does not say what it was trained on: give --data")
    judge = evaluate.make_judge(args.features, model.data.get("classes", []), device)
    train, test = (data.load_images(source, split, root=args.data_root) for split in ("train", "test"))
    if not 0 <= args.bits <= len(test):
        raise UsageError(f"--bits {args.bits}: choose 0 to {len(test)}, the number of test images")
    if min(args.count, len(train)) <= judge.dims:
        few = f"--count {args.count}" if args.count <= judge.dims else f"{source}, with {len(train)} images,"
        raise UsageError(f"{few} is too small: the features have {judge.dims} dimensions, so take at least "
                         f"{judge.dims + 1}, better {max(1000, 10 * judge.dims):,}")  # fmt: skip
    asked = {"count": args.count, **how, "eta": args.eta, "seed": args.seed, "features": judge.extractor}
    asked |= {"reference": source, "bits": args.bits}
    stored = evaluate.stored_rows(model, asked)

    labels = asked_labels(model, None, args.count)
    if labels is not None and list(train.classes) == list(model.classes):
        labels = evaluate.labels_like(train.labels, args.count)
    images = draw(
        model, args.count, labels, **how, seed=args.seed, eta=args.eta, progress=sys.stderr.isatty(),
        batch_size=args.batch_size,
    )  # fmt: skip
    drawn = time.monotonic()
    rows = evaluate.measure(images, labels, train, test, judge)
    if args.bits:
        rows.append(evaluate.bits_row(model, test, args.bits, args.seed))
    seconds = time.monotonic() - began
    result = {"checkpoint": str(args.checkpoint), **asked, "metrics": [asdict(row) for row in rows]}
    result |= {"seconds": round(seconds, 1)}

    noise = "" if args.eta is None else f", eta {args.eta:g}"
    theirs = f" ({', '.join(recommended)}: as the model file recommends)" if recommended else ""
    print(
        f"{args.checkpoint}: {args.count} samples, {how['sampler']}, {how['steps']} steps, scale {how['scale']:g}{noise}, "
        f"seed {args.seed}{theirs}\n{evaluate.table(rows)}\n"
        f"real: {min(args.count, len(test))} test images of {source}, measured in the same way; both against its "
        f"{len(train):,} training images, brought to the samples' size\n"
        f"nearest distance: median over samples of the root mean square distance to the nearest training image\n"
        f"{evaluate.below_zero(rows, judge.kernel)}{judge.about}\n"
        f"measured in {seconds:.0f} s, of which drawing the samples took {drawn - began:.0f} s"
    )
    if stored:
        print(f"beside the numbers in the model file:\n{evaluate.comparison(rows, stored)}")
    if args.json:
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        checkpoint.write_whole(args.json, lambda part: Path(part).write_text(text, encoding="utf-8"))
    if book is not None:
        row = ledger.make_row(str(args.checkpoint), model, result, device)
        print(
            f"{book}: {'replaced its row of' if ledger.record(book, row) else 'a new row for'} {row['model']}"
        )
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Writes the file to share: see ``python -m ddpm_lib export --help``."""
    if Path(args.out).suffix != ".safetensors":
        raise UsageError(f"--out {args.out}: give a name ending in .safetensors")
    model = checkpoint.load(args.checkpoint)
    local = ("data_root",)
    model.provenance["settings"] = {
        k: v for k, v in model.provenance.get("settings", {}).items() if k not in local
    }
    measured = [_read_evaluation(path) for path in args.metrics]
    notes = {}
    if measured:
        notes = {"metrics": measured, "sampling": {name: measured[0][name] for name in DRAWING}}
    path = checkpoint.export(model, args.out, **notes)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, the average after {model.step} steps, in half precision"
    )
    return 0


def _read_evaluation(path: str) -> dict:
    """What --json wrote, without what says nothing of the model."""
    from .. import evaluate

    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return {key: found[key] for key in (*evaluate.ASKED, "bits", "metrics")}
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"--metrics {path}: not what `evaluate --json` writes ({error!r})") from error


def run_data(args: argparse.Namespace) -> int:
    """Lists the image sets, or fetches one: see ``python -m ddpm_lib data --help``."""
    if args.action == "get":
        if not args.name:
            raise UsageError("say which set to fetch: data get mnist-full")
        print(f"{args.name}: {data.get(args.name, args.data_root)}")
        return 0
    rows = data.describe(args.data_root)
    columns = list(rows[0])
    widths = [max(len(column), *(len(row[column]) for row in rows)) for column in columns]
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        print(
            "  ".join(
                row[column].ljust(width) for column, width in zip(columns, widths, strict=True)
            ).rstrip()
        )
    print("An .npz file (images, labels) or a folder of pictures works wherever a name does.")
    return 0


# --- exercises -----------------------------------------------------------------------------------


def run_exercises(args: argparse.Namespace) -> None:
    """Shows the reader's progress: see ``python -m ddpm_lib exercises --help``."""
    if args.forget:
        exercises.forget()
    print(exercises.marks(args.marks) if args.marks else exercises.report(args.all))


# --- shared --------------------------------------------------------------------------------------


def pick_device(name: str = "auto", rank: int = 0) -> torch.device:
    """The device of that name; "auto" takes the best there is. Raises ValueError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}: choose cpu, cuda, cuda:0 ..., mps or auto") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: this torch sees no CUDA device; use --device cpu, or install a CUDA build of torch"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: there is no Apple GPU here; use --device cpu")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", rank % torch.cuda.device_count())
    return device


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _whole(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ddpm_lib",
        description="Train, sample and measure diffusion models.",
        epilog="First steps, none of which needs a network:\n"
        "  python -m ddpm_lib sample mnist28 --label 7 --out seven.png     draw sevens with the shipped model\n"
        "  python -m ddpm_lib train --data mnist --size 28 --steps 600 --out runs/first\n"
        "  python -m ddpm_lib sample runs/first --out all.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"ddpm_lib {__version__}, torch {torch.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, summary: str, examples: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=summary, description=summary, epilog="Examples:\n" + examples,
            formatter_class=argparse.RawDescriptionHelpFormatter, argument_default=argparse.SUPPRESS,
        )  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    _train_options(command(
        "train", run_train, "Train a model, or go on training one.",
        "  python -m ddpm_lib train --data mnist --size 28 --steps 600 --out runs/first\n"
        "  python -m ddpm_lib train --resume runs/first --steps 1200\n"
        "  python -m ddpm_lib train --data photos/ --size 32 --flip --schedule cosine --predict v --steps 5000 --out runs/photos\n"
        "  torchrun --nproc_per_node=2 -m ddpm_lib train --data cifar10 --steps 1000 --out runs/two",
    ))  # fmt: skip

    sample = command(
        "sample", run_sample, "Draw images from a checkpoint or a shipped model.",
        "  python -m ddpm_lib sample mnist28 --label 7 --count 16 --scale 2 --out seven.png\n"
        "  python -m ddpm_lib sample runs/first --count 100 --steps 20 --sampler dpm++2m --out all.npz",
    )  # fmt: skip
    sample.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help=f"a run's folder, a file, or a shipped model: {', '.join(checkpoint.shipped()) or 'none yet'}",
    )
    sample.add_argument(
        "--label",
        default=None,
        help="number or name of a class, or several with commas (default: all in turn)",
    )
    sample.add_argument(
        "--out",
        default="samples.png",
        help="x.png for a picture, x.npz for arrays images and labels (default: %(default)s)",
    )
    sample.add_argument(
        "--columns",
        type=_count,
        default=None,
        help="pictures in a row of the PNG (default: one of each class, or a square)",
    )
    sample.add_argument(
        "--zoom", type=_count, default=2, help="size of a pixel in the PNG (default: %(default)s)"
    )
    sample.add_argument(
        "--raw", action="store_true", default=False, help="the last weights instead of their average"
    )
    sample.add_argument(
        "--precision",
        default="fp32",
        help=f"{', '.join(PRECISIONS)}: auto takes bf16 where the processor has it and is faster so (default: %(default)s)",
    )
    _sampling_options(sample, count=16)

    evaluate = command(
        "evaluate", run_evaluate, "Measure a model: how good, how varied and how new its samples are, beside real images.",
        "  python -m ddpm_lib evaluate mnist28 --scale 1.5\n"
        "  python -m ddpm_lib evaluate runs/first --count 500 --bits 50 --json first.json\n"
        "  python -m ddpm_lib evaluate mnist28 --ledger                      add a row to the book's results ledger",
    )  # fmt: skip
    evaluate.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a run's folder, a file, or a shipped model"
    )
    evaluate.add_argument(
        "--data",
        default=None,
        help="real images to compare with (default: what the model was trained on; the embedded subset for a full set)",
    )
    evaluate.add_argument("--data-root", default=None, help="folder of the full sets")
    evaluate.add_argument(
        "--features",
        default="classifier",
        help="what looks at the images: classifier (in the package) or inception (for FID and KID; needs "
        "pip install 'ddpm-lib[inception]', a download and --count above 2048); default: %(default)s",
    )
    evaluate.add_argument(
        "--bits",
        type=int,
        default=0,
        metavar="N",
        help="also bound the bits per dimension of N test images, about half a second each (default: 0, none)",
    )
    evaluate.add_argument("--json", default=None, help="also write the numbers to this file")
    evaluate.add_argument(
        "--ledger",
        nargs="?",
        const="",
        default=None,
        metavar="PATH",
        help="also add a row to this results ledger (no PATH: book/ledger.json, in the repository)",
    )
    _sampling_options(evaluate, count=1000)

    export = command(
        "export", run_export, "Write the file to share: the average weights in half precision.",
        "  python -m ddpm_lib export runs/first --out first.safetensors",
    )  # fmt: skip
    export.add_argument("checkpoint", metavar="CHECKPOINT")
    export.add_argument("--out", required=True)
    export.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="JSON",
        help="evaluations of it (evaluate --json) to keep in the file; it will recommend the first one's sampling",
    )

    sets = command("data", run_data, "List the image sets, or fetch one.",
                   "  python -m ddpm_lib data list\n  python -m ddpm_lib data get mnist-full")  # fmt: skip
    sets.add_argument("action", choices=("list", "get"))
    sets.add_argument("name", nargs="?", default=None, help="for get: mnist-full or cifar10-full")
    sets.add_argument("--data-root", default=None, help="folder of the full sets")

    marks = command("exercises", run_exercises, "Show which of the book's exercises you have solved.",
                    "  python -m ddpm_lib exercises\n  python -m ddpm_lib exercises --marks handed_in/*.json")  # fmt: skip
    marks.add_argument(
        "--all", action="store_true", default=False, help="the exercises of chapters not begun, too"
    )
    marks.add_argument(
        "--marks",
        nargs="+",
        metavar="FILE",
        default=None,
        help="for teachers: a table of several readers' progress.json",
    )
    marks.add_argument(
        "--forget", action="store_true", default=False, help="begin anew: remove the record of your progress"
    )
    return parser


def _train_options(train: argparse.ArgumentParser) -> None:
    run = train.add_argument_group("the run")
    run.add_argument("--out", default=None, help="folder for checkpoint, log and sample grids")
    run.add_argument(
        "--resume",
        nargs="?",
        const="",
        default=None,
        metavar="RUN",
        help="go on with the run in this folder (or in --out)",
    )
    run.add_argument(
        "--config", default=None, help="JSON file of settings, by these options' names; options win over it"
    )
    run.add_argument("--steps", type=int, help="optimiser steps in all")
    run.add_argument("--device", help="cpu, cuda, mps or auto (default: auto)")
    run.add_argument("--seed", type=int, help="default: 0")
    run.add_argument("--save-every", type=int, metavar="N", help="steps between checkpoints (default: 500)")
    run.add_argument(
        "--sample-every", type=int, metavar="N", help="steps between sample grids, 0 for none (default: 500)"
    )
    run.add_argument(
        "--log-every", type=int, metavar="N", help="steps between rows of log.jsonl (default: 50)"
    )
    run.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")

    images = train.add_argument_group("the images")
    images.add_argument(
        "--data",
        help="mnist, cifar10 (embedded subsets), mnist-full, cifar10-full (downloaded), an .npz or a folder; default: mnist",
    )
    images.add_argument("--data-root", help="folder of the full sets")
    images.add_argument("--size", type=int, help="resize to this many pixels (default: as they are)")
    images.add_argument("--channels", type=int, help="1 or 3 (default: as they are)")
    images.add_argument("--flip", action="store_true", help="mirror half of the images, at random")
    images.add_argument("--no-labels", dest="labels", action="store_false", help="train without labels")
    images.add_argument("--skip-corrupt", action="store_true", help="leave out pictures that cannot be read")

    process = train.add_argument_group("the diffusion")
    process.add_argument("--schedule", help=f"{', '.join(schedule.SCHEDULES)} (default: linear)")
    process.add_argument("--predict", help=f"what the network predicts: {', '.join(TARGETS)} (default: eps)")
    process.add_argument(
        "--label-dropout", type=float, help="share of images shown without label (default: 0.1)"
    )
    process.add_argument("--times", help=f"how training times spread: {', '.join(TIMES)} (default: uniform)")
    process.add_argument(
        "--min-snr", type=float, metavar="GAMMA", help="min-SNR weighting, 5 is usual (default: 0, none)"
    )

    network = train.add_argument_group("the network")
    network.add_argument("--width", type=int, help="channels at the finest level (default: 48)")
    network.add_argument(
        "--multipliers", type=_whole, metavar="1,2", help="width of each level, as a multiple"
    )
    network.add_argument("--blocks", type=int, help="residual blocks a level (default: 2)")
    network.add_argument(
        "--attention",
        type=_whole,
        metavar="1",
        help="levels that attend, 0 the finest (default: the coarsest)",
    )
    network.add_argument(
        "--patch", type=int, help="fold patches of this many pixels into channels first (default: 2)"
    )
    network.add_argument("--dropout", type=float, help="default: 0")

    optimiser = train.add_argument_group("the optimiser")
    optimiser.add_argument("--batch-size", type=int, help="images a step, over all processes (default: 128)")
    optimiser.add_argument("--optimizer", help=f"{', '.join(OPTIMIZERS)} (default: adam)")
    optimiser.add_argument("--lr", type=float, help="peak learning rate (default: 1e-3)")
    optimiser.add_argument("--warmup", type=int, help="steps of linear warm-up (default: 100)")
    optimiser.add_argument("--decay", help=f"{', '.join(DECAYS)} (default: none)")
    optimiser.add_argument("--clip", type=float, help="largest gradient norm, 0 for none (default: 1)")
    optimiser.add_argument(
        "--ema-half-life", type=float, metavar="STEPS", help="of the average of the weights (default: 500)"
    )
    optimiser.add_argument(
        "--precision", help=f"{', '.join(PRECISIONS)} (default: auto, which tries what is faster)"
    )
    optimiser.add_argument("--compile", action="store_true", help="pass the network through torch.compile")


def _sampling_options(parser: argparse.ArgumentParser, count: int) -> None:
    """Options of sample and evaluate; None leaves the choice to the model file."""
    default = "default: as the model file recommends, else"
    parser.add_argument("--count", type=int, default=count, help="how many images (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=None, help=f"sampling steps ({default} 20)")
    parser.add_argument("--sampler", default=None, help=f"{', '.join(sampling.SAMPLERS)} ({default} dpm++2m)")
    parser.add_argument(
        "--scale",
        type=float,
        default=None,
        help=f"guidance: 0 ignores the label, 1 is plain, 2 to 4 steer harder ({default} 1)",
    )
    parser.add_argument("--eta", type=float, default=None, help="noise of ddim, 0 to 1 (default: 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time (default: %(default)s)")
    parser.add_argument("--device", default="auto")
