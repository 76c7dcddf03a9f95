"""A training run in its folder: start it, stop it when you like, go on with it, start another from its weights.

    run.start(Settings(data="mnist", steps=600), "runs/first")
    run.resume("runs/first", steps=1200)

The folder holds checkpoint.safetensors, written whole or not at all; log.jsonl, a row for every so many steps; and
samples/, grids of pictures drawn on the way, always from the same noise. Ctrl-C (in a notebook, the stop button) saves
and stops; SIGTERM, and the SIGHUP of a closed terminal, do the same. A run that goes on does what it would have done,
to the last bit.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm.auto import tqdm

from . import checkpoint, cost, data, recipe, schedule
from .checkpoint import Checkpoint, CheckpointError
from .denoiser import Denoiser
from .device import pick_device
from .draw import draw
from .files import CHECKPOINT, leftovers, locked, user_path, write_whole
from .recipe import Tell, words
from .settings import Settings, differences, known, option
from .training import TrainingDiverged, make_optimizer, train

LOG = "log.jsonl"
SAMPLES = "samples"


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a run ended.

    folder: where it lies; model: as it is there; signal: what stopped it, 0 if it came to its end; leads: whether this
    is the process that keeps the folder, of those that torchrun started.
    """

    folder: Path
    model: Checkpoint
    signal: int = 0
    leads: bool = True

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.model.step >= self.model.config.steps

    def __repr__(self) -> str:
        done = f"{self.folder}: step {self.model.step} of {self.model.config.steps}"
        return done if self.finished else f"{done}; go on with run.resume({str(self.folder)!r})"


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
        _tensorboard()  # its absence is better known now than after the first save
    with _processes() as (rank, world):
        tell = tell if rank == 0 else _silent
        device = pick_device(settings.device, rank)
        origin = None if settings.init is None else checkpoint.load(settings.init)
        settings = recipe.resolved(settings, origin)
        # a pair that cannot be sampled is refused before the pictures are read
        Denoiser(_nothing, schedule.make(settings.schedule), settings.predict)
        images = recipe.load(settings)
        model = recipe.new_model(settings, images, device, origin, tell)
        stream = _stream(model, settings, images, device, rank, world)
        _tell_cost(model, settings, stream, tell)
        return _Work(out, model, settings, device, rank, progress, tell).follow(stream)


def resume(folder: str | os.PathLike, *, progress: bool = True, tell: Tell = print, **changes) -> Outcome:
    """Goes on with the run in a folder, to the bit as if it had not been stopped.

    changes: settings that may become others: steps (a larger number), device, data_root, and how often it logs, saves
    and draws. Raises ValueError for any other change, for a folder without a run, and for pictures of other classes,
    size or channels than it was trained on.
    """
    out = user_path(folder)
    if not (out / CHECKPOINT).exists():
        raise ValueError(f"nothing to resume in {out}: there is no {CHECKPOINT}. Start it without --resume")
    with _processes() as (rank, world), _held(out, rank == 0):
        tell = tell if rank == 0 else _silent
        model, settings = _saved(out, changes)
        device = pick_device(settings.device, rank)
        if model.step >= settings.steps:
            raise ValueError(
                f"{out}: this run has done its {model.step} steps; to go on, give a larger --steps"
            )
        model.net.to(device)
        model.ema.net.to(device)
        images = recipe.load(settings)
        recipe.compare(images, model, settings, tell)
        tell(recipe.understood(images, settings))
        stream = _stream(model, settings, images, device, rank, world)
        return _Work(out, model, settings, device, rank, progress, tell, resumed=True).follow(stream)


def _check_new(out: Path, settings: Settings) -> None:
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
    settings = recipe.resolved(settings)
    changes = known(changes)
    for name, was, asked in differences(settings, changes):
        raise ValueError(
            f"{out} was started with {option(name)} {words(was)}, which cannot become {words(asked)}: "
            f"leave {option(name)} out, or start a new run with another --out"
        )
    settings = replace(settings, **changes)
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


# --- at work -------------------------------------------------------------------------------------


class _Work:
    """A run at work in its folder."""

    def __init__(
        self,
        out: Path,
        model: Checkpoint,
        settings: Settings,
        device: torch.device,
        rank: int,
        progress: bool,
        tell: Tell,
        resumed: bool = False,
    ):
        self.out, self.model, self.settings, self.device, self.tell = out, model, settings, device, tell
        self.leads, self.progress, self.resumed = rank == 0, progress, resumed
        self.signal, self.bar = 0, None
        self.before = model.provenance.get("seconds", 0.0)
        self.began = time.monotonic()
        self.last_saved = model.step

    @property
    def path(self) -> Path:
        return self.out / CHECKPOINT

    def follow(self, stream: Callable[[int], Iterator]) -> Outcome:
        """Trains from the step that the model is at, and keeps the folder up to date."""
        model, settings = self.model, self.settings
        self.optimizer = make_optimizer(model.net, model.config)
        if model.step:
            checkpoint.restore_optimizer(model, self.optimizer)
        made = [folder for folder in (self.out, *self.out.parents) if not folder.exists()]
        self.out.mkdir(parents=True, exist_ok=True)
        with _held(self.out, self.leads and not self.resumed):
            if self.leads:
                self._open(made)
            denoiser = Denoiser(model.net, model.schedule, model.predict)
            steps = train(
                denoiser, stream(model.step), model.config, model.ema, self.optimizer, start=model.step
            )
            with _signals(self._stop):
                self._take(steps, model.config.steps)
        return Outcome(self.out, model, self.signal if model.step < settings.steps else 0, self.leads)

    def _take(self, steps: Iterator, total: int) -> None:
        quiet = not sys.stderr.isatty()
        self.bar = tqdm(
            total=total,
            initial=self.model.step,
            unit="step",
            disable=not (self.leads and self.progress),
            dynamic_ncols=True,
            mininterval=10 if quiet else 0.2,
            desc=str(self.out),
        )
        losses = []
        try:
            for done in steps:
                self.model.step = step = done.index
                losses.append(done.loss)
                _show(self.bar.update)
                ends = step == total or self._told_to_stop()
                if self.leads:
                    if ends or step % self.settings.log_every == 0:
                        losses = self._log(done, losses)
                    if ends or step % self.settings.save_every == 0:
                        self._save(done.loss)
                    if self.settings.sample_every and (
                        step == total or step % self.settings.sample_every == 0
                    ):
                        self._draw(step)
                if ends:
                    break
        except TrainingDiverged as error:
            raise TrainingDiverged(
                f"{error}. The last good checkpoint is {self.path}, step {self.last_saved}"
            ) from error
        finally:
            _show(self.bar.close)
            if self.leads:
                self.log.close()
                if self.board is not None:
                    self.board.close()

    def _open(self, made: list[Path]) -> None:
        for killed in leftovers(self.path, self.out / LOG, self.out / SAMPLES / "step_*.png"):
            killed.unlink(missing_ok=True)
        step = self.model.step
        if not self.resumed:
            if self.path.exists():
                raise ValueError(f"{self.out} holds another run, begun a moment ago: choose another --out")
            try:
                self._save()
            except BaseException:
                # a folder without a checkpoint could neither be started in nor gone on with
                for folder in made:
                    shutil.rmtree(folder, ignore_errors=True) if folder == self.out else _remove_empty(folder)
                raise
        log = self.out / LOG
        rows = [row for row in _rows(log) if row["step"] <= step] if step else []
        write_whole(log, lambda part: Path(part).write_text("".join(json.dumps(row) + "\n" for row in rows)))
        self.log = log.open("a", buffering=1)
        self.board = None
        if self.settings.tensorboard:
            self.board = _tensorboard()(self.out / "tensorboard", purge_step=step)

    def _stop(self, number: int, frame) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        if number == getattr(signal, "SIGHUP", None) and self.bar is not None:
            self.bar.disable = True  # there is no terminal left to draw it on

    def _told_to_stop(self) -> bool:
        if not dist.is_initialized():
            return bool(self.signal)
        # every process must stop after the same step, or the others wait for its gradients for ever
        told = torch.tensor([self.signal], device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        self.signal = self.signal or int(told)
        return bool(told)

    def _log(self, done, losses: list) -> list:
        loss = torch.stack(losses).mean().item()
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
        rate = (self.bar.format_dict["rate"] or 0) * self.settings.batch_size
        _show(self.bar.set_postfix_str, f"loss {loss:.4f}, {rate:.0f} images/s", refresh=False)
        return []

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def _save(self, loss: torch.Tensor | None = None) -> None:
        if loss is not None and not loss.isfinite():
            raise TrainingDiverged(f"step {self.model.step}: the loss is {loss.item():.3g}")
        self.model.provenance["seconds"] = round(self._seconds(), 1)
        self.model.provenance["images_seen"] = self.model.step * self.settings.batch_size
        checkpoint.save(self.model, self.path, self.optimizer)
        self.last_saved = self.model.step

    def _draw(self, step: int) -> None:
        from .plotting import image_grid, save_grid

        labels = torch.arange(10).repeat(4) % len(self.model.classes) if self.model.classes else None
        drawn = draw(self.model, 40, labels, steps=20, sampler="dpm++2m", seed=0)
        save_grid(drawn, self.out / SAMPLES / f"step_{step:06d}.png", columns=10)
        if self.board is not None:
            self.board.add_image("samples", torch.as_tensor(image_grid(drawn, 10)), step, dataformats="HWC")


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


def _held(out: Path, leads: bool):
    """The run's folder, for the one process that writes there."""
    return locked(out) if leads else nullcontext()


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _signals(stop: Callable) -> Iterator[None]:
    """Calls stop for Ctrl-C, SIGTERM and SIGHUP; one that was being ignored, as under nohup, still is."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(show: Callable, *args, **options) -> None:
    """Progress that cannot be shown, because its terminal is gone, is no reason to stop a run."""
    with suppress(OSError):
        show(*args, **options)


def _rows(path: Path) -> Iterator[dict]:
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the line that was being written when the run was killed
            return


def _tensorboard() -> type:
    """The writer of TensorBoard's events. Raises ValueError if the package is not there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--tensorboard needs the tensorboard package: pip install tensorboard") from error
    return SummaryWriter


def _silent(text: str) -> None:
    """What processes other than the first one say."""


def _nothing(*_) -> None:
    """Stands for a network that is never asked."""
