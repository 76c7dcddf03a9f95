"""A training run in its folder: start it, stop it when you like, go on with it, start another from its weights.

    run.start(Settings(data="mnist", steps=600), "runs/first")
    run.resume("runs/first", steps=1200)

Ctrl-C (in a notebook, the stop button) saves and stops; SIGTERM, and the SIGHUP of a closed terminal, do the same. A run
that goes on does what it would have done, to the last bit. What is saved, and when, is in `work`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from . import checkpoint, cost, data, prepare, schedule
from .checkpoint import Checkpoint, CheckpointError
from .denoiser import Denoiser
from .device import pick_device
from .files import CHECKPOINT, user_path
from .prepare import Tell, words
from .settings import Settings, differences, known, option
from .work import LOG, Outcome, Work, held, tensorboard


def start(
    settings: Settings, folder: str | os.PathLike, *, progress: bool = True, tell: Tell = print
) -> Outcome:
    """Trains a new model in a folder of its own, to the end or until it is stopped.

    progress: show a bar. tell: called with each line that says what was understood.

    Raises ValueError, before anything is written, for settings, pictures or a folder that cannot be; TrainingDiverged
    if the loss is no longer a number; OSError if the disk is full. What was saved before stays.
    """
    out = user_path(folder)
    _check_new(out, settings)
    if settings.tensorboard:
        tensorboard()  # its absence is better known now than after the first save
    with _processes() as (rank, world):
        tell = tell if rank == 0 else _silent
        device = pick_device(settings.device, rank)
        origin = None if settings.init is None else checkpoint.load(settings.init)
        settings = prepare.resolved(settings, origin)
        # a pair that cannot be sampled is refused before the pictures are read
        Denoiser(_nothing, schedule.make(settings.schedule), settings.predict)
        images = prepare.load(settings)
        model = prepare.new_model(settings, images, device, origin, tell)
        stream = _stream(model, settings, images, device, rank, world)
        _tell_cost(model, settings, stream, tell)
        return Work(out, model, settings, device, rank, progress).follow(stream)


def resume(folder: str | os.PathLike, *, progress: bool = True, tell: Tell = print, **changes) -> Outcome:
    """Goes on with the run in a folder, to the bit as if it had not been stopped.

    changes: settings that may become others: steps (a larger number), device, data_root, how often it logs, saves and
    draws, and data, where the same pictures lie elsewhere now. Raises ValueError for any other change, for a folder without a run, and for pictures of other classes,
    size or channels than it was trained on.
    """
    out = user_path(folder)
    out = out.parent if out.name == CHECKPOINT else out
    if not (out / CHECKPOINT).exists():
        raise ValueError(f"nothing to resume in {out}: there is no {CHECKPOINT}. Start it without --resume")
    with _processes() as (rank, world), held(out, rank == 0):
        tell = tell if rank == 0 else _silent
        model, settings = _saved(out, changes)
        device = pick_device(settings.device, rank)
        if model.step >= settings.steps:
            raise ValueError(
                f"{out}: this run has done its {model.step} steps; to go on, give a larger --steps"
            )
        model.net.to(device)
        model.ema.net.to(device)
        images = prepare.load(settings)
        prepare.compare(images, model, settings, tell)
        tell(prepare.understood(images, settings))
        stream = _stream(model, settings, images, device, rank, world)
        return Work(out, model, settings, device, rank, progress, resumed=True).follow(stream)


def _check_new(out: Path, settings: Settings) -> None:
    if not settings.data:
        raise ValueError(
            f"--data is empty: choose from {', '.join(data.DATASETS)}, or give a folder or an .npz file"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; give a folder")
    if (out / CHECKPOINT).exists() or (out / LOG).exists():
        raise ValueError(f"{out} holds another run: go on with it (--resume {out}) or choose another --out")
    pictures = user_path(settings.data)
    if settings.data not in data.DATASETS and pictures.is_dir():
        if out.resolve().is_relative_to(pictures.resolve()):
            raise ValueError(
                f"--out {out} lies within --data {settings.data}, where its sample grids would be taken for pictures: "
                "choose a folder outside"
            )


def _saved(out: Path, changes: dict) -> tuple[Checkpoint, Settings]:
    model = checkpoint.load(out)
    if not isinstance(model.provenance.get("settings"), dict) or model.ema is None:
        raise ValueError(
            f"{out / CHECKPOINT} was not saved by a training run, so how to go on is not known: start one from its weights "
            f"with --init {out} and another --out"
        )
    if model.averaged_only:
        raise CheckpointError(
            f"{out / CHECKPOINT} was exported without its optimiser and cannot be trained on: start a new run from its "
            f"weights with --init {out} and another --out"
        )
    try:
        settings = Settings(**model.provenance["settings"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{out / CHECKPOINT}: its settings do not fit this version of ddpm_lib ({error})"
        ) from error
    settings = prepare.resolved(settings)
    changes = known(changes)
    for name, was, asked in differences(settings, changes):
        if name == "data" and not {was, asked} & set(data.DATASETS):
            continue  # the same pictures may lie elsewhere now: they are compared when they are read
        word = option(name)
        how = (
            f"without {word}"
            if was in (None, False)
            else f"with {word} {words(was)}, which cannot become {words(asked)}"
        )
        raise ValueError(f"{out} was started {how}: leave {word} out, or start a new run with another --out")
    settings = replace(settings, **changes)
    if settings.data not in data.DATASETS and not user_path(settings.data).exists():
        raise ValueError(
            f"{settings.data}, the pictures of this run, is not there as seen from {Path.cwd()}: say where they are now "
            "with --data"
        )
    model.config = replace(model.config, steps=settings.steps)
    model.provenance["settings"] = settings.kept()
    return model, settings


def _stream(model: Checkpoint, settings: Settings, images: data.ImageSet, device, rank: int, world: int):
    """A function: from which step on -> the batches, without labels where the run has none."""

    def batches(begin: int) -> Iterator:
        drawn = data.batches(
            images,
            settings.batch_size,
            seed=settings.seed,
            start=begin,
            flip=settings.flip,
            device=device,
            rank=rank,
            world=world,
        )
        return drawn if settings.labels else ((x, None) for x, _ in drawn)

    return batches


def _tell_cost(model: Checkpoint, settings: Settings, stream, tell: Tell) -> None:
    denoiser = Denoiser(model.net, model.schedule, model.predict)
    worth_it = settings.steps >= cost.WORTH_A_TRIAL and not settings.compile
    seconds = cost.trial(denoiser, stream(0), model.config) if worth_it else None
    tell(cost.described(model.net, model.config, settings.batch_size, seconds, settings.init is not None))


@contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """Rank and number of processes; more than one if torchrun started us."""
    asked = os.environ.get("WORLD_SIZE") or "1"
    if not asked.isdecimal() or asked == "0":
        raise ValueError(
            f"the environment says WORLD_SIZE={asked}, which is no number of processes: unset it, or start with torchrun"
        )
    if int(asked) == 1:
        yield 0, 1
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


def _silent(text: str) -> None:
    """What processes other than the first one say."""


def _nothing(*_) -> None:
    """Stands for a network that is never asked."""
