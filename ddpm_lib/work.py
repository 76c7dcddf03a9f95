"""A run at work in its folder: what it logs, saves and draws on the way, and how a signal stops it.

checkpoint.safetensors is written whole or not at all: before the first step, every so often, and when the run stops;
log.jsonl has a row for every so many steps; samples/ has grids of pictures, always from the same noise.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm.auto import tqdm

from . import checkpoint
from .checkpoint import Checkpoint
from .denoiser import Denoiser
from .draw import draw
from .files import CHECKPOINT, leftovers, locked, write_whole
from .settings import Settings
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


class Work:
    """A run at work in its folder.

    resumed: the folder is held already, and has a checkpoint to go on from.
    """

    def __init__(
        self,
        out: Path,
        model: Checkpoint,
        settings: Settings,
        device: torch.device,
        rank: int,
        progress: bool,
        resumed: bool = False,
    ):
        self.out, self.model, self.settings, self.device = out, model, settings, device
        self.leads, self.progress, self.resumed = rank == 0, progress, resumed
        self.signal, self.bar, self.log, self.board = 0, None, None, None
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
        with held(self.out, self.leads and not self.resumed):
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
        if self.settings.tensorboard:
            self.board = tensorboard()(self.out / "tensorboard", purge_step=step)

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


def held(out: Path, leads: bool):
    """The run's folder, for the one process that writes there."""
    return locked(out) if leads else nullcontext()


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


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _rows(path: Path) -> Iterator[dict]:
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the line that was being written when the run was killed
            return


def tensorboard() -> type:
    """The writer of TensorBoard's events. Raises ValueError if the package is not there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--tensorboard needs the tensorboard package: pip install tensorboard") from error
    return SummaryWriter
