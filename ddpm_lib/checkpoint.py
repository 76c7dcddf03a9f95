"""Checkpoints: one safetensors file, with everything else as JSON in its header. Nothing is ever unpickled.

Tensors are named ``net.*``, ``ema.*``, and ``adam.*`` and ``muon.*`` for the optimiser; the header holds format, network, schedule,
prediction, training configuration, step and provenance. Because training draws its randomness from
(seed, step), no random state is needed to resume to the bit.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from . import schedule as schedules
from .denoiser import Denoiser
from .training import EMA, TrainConfig
from .unet import UNet, UNetConfig

FORMAT = 1
NETWORKS: dict[str, tuple[type, type]] = {"unet": (UNetConfig, UNet)}
"""Architectures that a checkpoint can hold: name -> (config, network)."""
MOMENTS = {"exp_avg": "adam", "exp_avg_sq": "adam", "momentum": "muon"}
"""What optimisers remember of each weight, and whose it is."""


class CheckpointError(ValueError):
    """A file that is not a checkpoint this version can use; the message says what it is and what to do."""


@dataclass(eq=False)
class Checkpoint:
    """A model and all that is needed to sample it or to train it on.

    net: the network being trained; ema: its average, None if it has none; step: optimiser steps done;
    config: how it was trained; moments: the optimiser's state, empty in an exported model.
    data: what it was trained on ({"name", "size", "channels", "classes", ...}).
    provenance: where it came from (device, versions, date, commit, seconds, metrics ...).
    """

    net: nn.Module
    schedule: schedules.Schedule
    predict: str
    config: TrainConfig
    ema: EMA | None = None
    step: int = 0
    moments: dict[str, Tensor] = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """The names of the labels; empty for a model without labels."""
        return list(self.data.get("classes", [])) if self.net.config.num_classes else []

    def denoiser(self, ema: bool = True) -> Denoiser:
        """The denoiser to sample with: of the average if there is one and ema is true, else of the network."""
        net = self.ema.net if ema and self.ema is not None else self.net
        return Denoiser(net.eval(), self.schedule, self.predict)


def save(
    checkpoint: Checkpoint, path: str | os.PathLike, optimizer: torch.optim.Optimizer | None = None
) -> Path:
    """Writes a checkpoint: to a temporary file beside it, then renamed, so that path is always whole.

    optimizer: also saved, so that training can go on from here. Raises OSError, naming what is
    still there, if the disk is full, and CheckpointError for what load could not make again.
    """
    path = Path(path)
    _check_schedule(checkpoint.schedule)
    tensors = {f"net.{name}": value for name, value in checkpoint.net.state_dict().items()}
    if checkpoint.ema is not None:
        tensors |= {f"ema.{name}": value for name, value in checkpoint.ema.net.state_dict().items()}
    tensors |= _moments(checkpoint.net, optimizer) if optimizer else {}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {
        "format": FORMAT,
        "network": {"kind": _kind(checkpoint.net), "config": asdict(checkpoint.net.config)},
        "schedule": {"name": checkpoint.schedule.name, "options": checkpoint.schedule.options},
        "predict": checkpoint.predict,
        "train": asdict(checkpoint.config),
        "step": checkpoint.step,
        "ema": None
        if checkpoint.ema is None
        else {k: getattr(checkpoint.ema, k) for k in ("half_life", "updates")},
        "data": checkpoint.data,
        "provenance": checkpoint.provenance,
    }
    write_whole(path, lambda part: save_file(tensors, part, metadata={"ddpm_lib": json.dumps(header)}))
    return path


def load(path: str | os.PathLike, device: str | torch.device = "cpu") -> Checkpoint:
    """Reads a checkpoint file, or a shipped model by its name (see pretrained).

    Raises CheckpointError for a file that is truncated, a pickle, of another version or architecture,
    and FileNotFoundError, with the names of the shipped models, if there is nothing there.
    """
    header, tensors = _read(path)
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint of format {header.get('format')!r}, this version of ddpm_lib reads format {FORMAT}: "
            "use the version that wrote it, or train again"
        )
    try:
        kind = header["network"]["kind"]
        if kind not in NETWORKS:
            raise CheckpointError(
                f"{path}: holds a network of kind {kind!r}, this version knows {', '.join(NETWORKS)}"
            )
        make_config, make_net = NETWORKS[kind]
        net = make_net(make_config(**header["network"]["config"])).to(device)
        schedule = schedules.make(header["schedule"]["name"], **header["schedule"]["options"])
        Denoiser(net, schedule, header["predict"])
        config = TrainConfig(**header["train"])
        ema = None
        if header["ema"] is not None:
            ema = EMA(net, header["ema"]["half_life"])
            ema.updates = header["ema"]["updates"]
        step, data, origin = header["step"], header["data"], header["provenance"]
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its header does not fit this version of ddpm_lib ({error!r})"
        ) from error
    if ema is not None:
        _fill(ema.net, tensors, "ema.", path)
    # an exported model keeps only the average
    _fill(net, tensors, "net." if any(name.startswith("net.") for name in tensors) else "ema.", path)
    moments = {name: value for name, value in tensors.items() if name.startswith(("adam.", "muon."))}
    return Checkpoint(net, schedule, header["predict"], config, ema, step, moments, data, origin)


def restore_optimizer(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
    """Puts the saved state into an optimizer made for checkpoint.net."""
    if not checkpoint.moments and checkpoint.step == 0:
        return  # saved before the first step, when there was nothing to remember
    if not checkpoint.moments:
        raise CheckpointError(
            "this model was exported without its optimiser and cannot be trained on; start a new run"
        )
    fused = any(group.get("fused") for group in optimizer.param_groups)
    for name, parameter in checkpoint.net.named_parameters():
        saved = {key: checkpoint.moments.get(f"{kind}.{key}.{name}") for key, kind in MOMENTS.items()}
        state = {key: value.to(parameter.device) for key, value in saved.items() if value is not None}
        if "exp_avg" in state:
            step = checkpoint.moments["adam.step"].clone()
            state["step"] = step.to(parameter.device) if fused else step
        optimizer.state[parameter] = state


def export(checkpoint: Checkpoint, path: str | os.PathLike, **provenance) -> Path:
    """Writes only the average, in half precision: the file to share. provenance is added to the header."""
    half = Checkpoint(
        nn.Module(),
        checkpoint.schedule,
        checkpoint.predict,
        checkpoint.config,
        copy.deepcopy(checkpoint.ema) or EMA(checkpoint.net),
        checkpoint.step,
        {},
        checkpoint.data,
        checkpoint.provenance | provenance,
    )
    half.net.config = checkpoint.net.config
    half.ema.net.half()
    return save(half, path)


def shipped() -> dict[str, Path]:
    """Name -> file of the models in the package."""
    folder = resources.files("ddpm_lib") / "models"
    return {path.stem: Path(str(path)) for path in sorted(Path(str(folder)).glob("*.safetensors"))}


def pretrained(name: str, device: str | torch.device = "cpu") -> Checkpoint:
    """A model that comes with the package, by name; nothing is downloaded."""
    if name not in shipped():
        raise CheckpointError(
            f"no shipped model is called {name!r}: choose from {', '.join(shipped()) or '(none)'}"
        )
    return load(shipped()[name], device)


def provenance(device: torch.device) -> dict:
    """Where a run happens: device, versions, commit if in a git checkout, date."""
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def device_name(device: torch.device) -> str:
    """A GPU's name; or the processor's, where the system tells it, and how many threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info, threads = Path("/proc/cpuinfo"), torch.get_num_threads()
    named = re.search(r"^model name\s*:\s*(.*\S)", info.read_text(), re.MULTILINE) if info.exists() else None
    cpu = named[1] if named else platform.processor() or platform.machine()
    return f"{cpu}, {threads} thread{'s' * (threads > 1)}"


def write_whole(path: str | os.PathLike, write: Callable[[str], object]) -> None:
    """Calls write with a temporary name beside path, flushes it to disk and renames it to path.

    Either path is complete or it is as it was. Raises OSError that says so if writing fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        kept = f"the file that was there is untouched: {path}" if path.exists() else "nothing was written"
        raise OSError(
            f"could not write {path} ({error}); {kept}. Free some space or choose another folder"
        ) from error
    finally:
        Path(part).unlink(missing_ok=True)


def _read(path: str | os.PathLike) -> tuple[dict, dict[str, Tensor]]:
    path = Path(path)
    if not path.exists() and str(path) in shipped():
        path = shipped()[str(path)]
    if path.is_dir():
        path = path / "checkpoint.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"no checkpoint at {path}, and no shipped model of that name (there are: {', '.join(shipped()) or 'none'})"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError) as error:
        # only now: a safetensors file starts with the length of its header, which may look like a pickle's mark
        with open(path, "rb") as file:
            mark = file.read(2)
        if mark in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise CheckpointError(
                f"{path}: a pickle (a .pt or .ckpt file). Loading one can run any code, so ddpm_lib never does: "
                "give a .safetensors file that it wrote"
            ) from error
        raise CheckpointError(
            f"{path}: truncated or not a safetensors file ({error}): use an earlier checkpoint"
        ) from error
    try:
        header = json.loads(metadata["ddpm_lib"])
    except (KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: a safetensors file, but not one that ddpm_lib wrote") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: a safetensors file, but not one that ddpm_lib wrote")
    return header, tensors


def _fill(net: nn.Module, tensors: dict[str, Tensor], prefix: str, path: str | os.PathLike) -> None:
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(
            f"{path}: its weights are of another architecture than its header says ({first})"
        ) from error


def _check_schedule(schedule: schedules.Schedule) -> None:
    """A file keeps a schedule's name and options: refuse one that they would not bring back."""
    try:
        again = schedules.make(schedule.name, **schedule.options)
        mine, others = (each.logsnr(torch.linspace(0, 1, 101).double()) for each in (schedule, again))
        same = again.path == schedule.path and torch.allclose(mine, others, rtol=1e-9, atol=1e-9)
    except (TypeError, ValueError):
        same = False
    if not same:
        raise CheckpointError(
            f"cannot save a model on the schedule {schedule.name!r}: its name and options do not make it again. "
            "Add a function that does to schedule.SCHEDULES"
        )


def _kind(net: nn.Module) -> str:
    for kind, (config, _) in NETWORKS.items():
        if isinstance(net.config, config):
            return kind
    raise CheckpointError(
        f"cannot save a network of type {type(net).__name__}: add it to checkpoint.NETWORKS"
    )


def _moments(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in net.named_parameters():
        state = optimizer.state.get(parameter)
        if not state:  # before the first step
            return {}
        if "step" in state:
            tensors["adam.step"] = torch.as_tensor(state["step"], dtype=torch.float32)
        tensors |= {f"{kind}.{key}.{name}": state[key] for key, kind in MOMENTS.items() if key in state}
    return tensors


def _commit() -> str:
    here = Path(__file__)

    def git(*words: str) -> str | None:
        try:
            run = subprocess.run(["git", "-C", str(here.parent), *words], capture_output=True, text=True)
        except OSError:
            return None
        return run.stdout.strip() if run.returncode == 0 else None

    # an installed copy may lie in an environment within somebody else's repository
    if git("ls-files", "--error-unmatch", here.name) is None:
        return "unknown"
    return git("describe", "--always", "--dirty") or "unknown"
