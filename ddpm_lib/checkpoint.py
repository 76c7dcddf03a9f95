"""Checkpoints: one safetensors file, with everything else as JSON in its header. Nothing is ever unpickled.

Tensors are named ``net.*``, ``ema.*``, and ``adam.*`` and ``muon.*`` for the optimiser; the header holds format, network, schedule,
prediction, training configuration, step and provenance. Because training draws its randomness from
(seed, step), no random state is needed to resume to the bit.

A file may come from anywhere: its header is compared with the names and shapes of its tensors before anything is
allocated. save holds a model to the same comparison, so that what it writes can be loaded.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from . import files
from . import schedule as schedules
from .denoiser import Denoiser
from .training import EMA, TrainConfig, bare
from .unet import UNet, UNetConfig

FORMAT = 1
NETWORKS: dict[str, tuple[type, type]] = {"unet": (UNetConfig, UNet)}
"""Architectures that a checkpoint can hold: name -> (config, network)."""
MOMENTS = {"exp_avg": "adam", "exp_avg_sq": "adam", "momentum": "muon"}
"""What optimisers remember of each weight, and whose it is."""
FLOATS = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
"""Types that weights may have in a file, and their names there."""
DEEPEST = 32
"""Levels of lists and dictionaries in each other in a header: Python reads and writes some hundreds, and not always as many."""
LONGEST_CHAIN = 1_000_000
"""Steps of a chain, beyond which a header is not believed: its tables would fill the memory."""
KNOWN = {
    "data": {"source": (str,), "images": (int,), "classes": (list,)},
    "provenance": {"settings": (dict,), "seconds": (int, float)},
}
"""Entries of a header that others reckon with, and their types; each may be missing, and there may be more."""


class CheckpointError(ValueError):
    """A file that is not a checkpoint this version can use; the message says what it is and what to do."""


@dataclass(eq=False)
class Checkpoint:
    """A model and all that is needed to sample it or to train it on.

    net: the network being trained; ema: its average, None if it has none; step: optimiser steps done;
    config: how it was trained; moments: the optimiser's state, empty in an exported model.
    data: what it was trained on ({"source", "size", "channels", "classes", ...}).
    provenance: where it came from (device, versions, date, commit, seconds, metrics ...).
    averaged_only: it comes from a file without raw weights, an exported model: net is then a copy of the average.

    A compiled or data-parallel network is taken out of its wrapper, see training.bare, whenever it becomes net.
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
    averaged_only: bool = False

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, bare(value) if name == "net" else value)

    @property
    def classes(self) -> list[str]:
        """The names of the labels, their numbers if data has no names; empty for a model without labels."""
        count = self.net.config.num_classes
        return [str(name) for name in self.data.get("classes") or range(count)] if count else []

    def denoiser(self, ema: bool = True) -> Denoiser:
        """The denoiser to sample with: of the average if there is one and ema is true, else of the network."""
        net = self.ema.net if ema and self.ema is not None else self.net
        return Denoiser(net.eval(), self.schedule, self.predict)


def save(
    checkpoint: Checkpoint, path: str | os.PathLike, optimizer: torch.optim.Optimizer | None = None
) -> Path:
    """Writes a checkpoint: to a temporary file beside it, then renamed, so that path is always whole.

    optimizer: also saved, so that training can go on from here. Raises OSError, naming what is still there, if the disk is
    full, and CheckpointError, before anything is written, for what load would refuse: weights that are not finite among it.
    """
    path, net = Path(path), checkpoint.net
    _check_schedule(checkpoint.schedule)
    tensors = {f"net.{name}": value for name, value in _named(net.state_dict().items())}
    if checkpoint.ema is not None:
        average = bare(checkpoint.ema.net).state_dict()
        tensors |= {f"ema.{name}": value for name, value in _named(average.items())}
    tensors |= _moments(net, optimizer) if optimizer else {}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {
        "format": FORMAT,
        "network": {"kind": _kind(net), "config": asdict(net.config)},
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
    try:
        text = json.dumps(header, default=_plain)
        kept = {n: (FLOATS.get(v.dtype, str(v.dtype)), tuple(v.shape)) for n, v in tensors.items()}
        _understood(json.loads(text), kept)
        _check_finite(tensors)
    except (RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot save this model: {error}") from error
    files.write_whole(path, lambda part: save_file(tensors, part, metadata={"ddpm_lib": text}))
    return path


def load(path: str | os.PathLike, device: str | torch.device = "cpu") -> Checkpoint:
    """Reads a checkpoint file, or a shipped model by its name (see pretrained).

    Raises CheckpointError, in one line, for a file that is truncated, a pickle, of another version or architecture, or whose
    weights are not finite, and FileNotFoundError, with the names of the shipped models, if there is nothing there.
    """
    found = files.model_file(path)
    if not found.exists():
        raise FileNotFoundError(
            f"no checkpoint at {found}, and no shipped model of that name (there are: {', '.join(files.shipped()) or 'none'})"
        )
    try:
        with _opened(found) as file:
            header = _header(file)
            slices = {name: file.get_slice(name) for name in file.keys()}
            kept = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
            checkpoint = _understood(header, kept)
            tensors = {name: file.get_tensor(name) for name in kept}
        _check_finite(tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{found}: {error}") from error
    # what was understood has no values yet
    net = type(checkpoint.net)(checkpoint.net.config).to(device)
    if checkpoint.ema is not None:
        checkpoint.ema.net = EMA(net).net
        checkpoint.ema.net.load_state_dict(_part(tensors, "ema."))
    # an exported model keeps only the average
    net.load_state_dict(_part(tensors, "ema." if checkpoint.averaged_only else "net."))
    checkpoint.net = net
    checkpoint.moments = {k: v for k, v in tensors.items() if k.startswith(("adam.", "muon."))}
    return checkpoint


def restore_optimizer(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
    """Puts the saved state into an optimizer made for checkpoint.net. Raises CheckpointError if it has none of that kind."""
    if not checkpoint.moments and checkpoint.step == 0:
        return  # saved before the first step, when there was nothing to remember
    if not checkpoint.moments:
        raise CheckpointError(
            "this model was exported or saved without its optimiser and cannot be trained on; start a new run"
        )
    fused = any(group.get("fused") for group in optimizer.param_groups)
    names = {parameter: name for name, parameter in _named(checkpoint.net.named_parameters())}
    for group in optimizer.param_groups:
        kind = "adam" if "betas" in group else "muon"
        for parameter in group["params"]:
            found = {key: f"{owner}.{key}.{names.get(parameter)}" for key, owner in MOMENTS.items()}
            saved = {
                key: checkpoint.moments[name] for key, name in found.items() if name in checkpoint.moments
            }
            if not saved:  # never moved: frozen, or Muon's stand-in where it has nothing for its Adam
                continue
            counted = kind == "muon" or "adam.step" in checkpoint.moments
            if set(saved) != {key for key, owner in MOMENTS.items() if owner == kind} or not counted:
                raise CheckpointError(
                    f"the state of the optimiser in this file is not one of {type(optimizer).__name__}: make the optimiser that "
                    "the model was trained by, or start a new run"
                )
            state = {key: value.to(parameter) for key, value in saved.items()}
            if kind == "adam":
                # torch wants the count on the CPU, but for its fused kernels; and a tensor of its own for each weight
                step = checkpoint.moments["adam.step"]
                state["step"] = step.to(parameter.device if fused else "cpu", copy=True)
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


def pretrained(name: str, device: str | torch.device = "cpu") -> Checkpoint:
    """A model that comes with the package, by name; nothing is downloaded."""
    if name not in files.shipped():
        raise CheckpointError(
            f"no shipped model is called {name!r}: choose from {', '.join(files.shipped()) or '(none)'}"
        )
    return load(files.shipped()[name], device)


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


def file_mark(path: Path) -> str:
    """16 digits that are the same for the same model only: of a checkpoint's network, schedule, prediction and
    weights, and not of how it was trained and measured."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["ddpm_lib"])
        drawing = {name: header[name] for name in ("network", "schedule", "predict")}
        digest = hashlib.sha256(json.dumps(drawing, sort_keys=True).encode())
        for name in sorted(file.keys()):
            digest.update(name.encode())
            digest.update(file.get_tensor(name).reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except CheckpointError:
        raise
    except (SafetensorError, ValueError) as error:
        # only now: a safetensors file starts with the length of its header, which may look like a pickle's mark
        with open(path, "rb") as file:
            mark = file.read(2)
        if path.suffix.lower() == ".npz":
            raise CheckpointError(
                "an .npz file holds pictures and no model: give a .safetensors file"
            ) from error
        if mark in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise CheckpointError(
                "a pickle (a .pt or .ckpt file). Loading one can run any code, so ddpm_lib never does: "
                "give a .safetensors file that it wrote"
            ) from error
        why = " ".join(str(error).split())  # which quotes the file
        raise CheckpointError(
            f"truncated or not a safetensors file ({why:.300}): use an earlier checkpoint"
        ) from error


def _header(file: safe_open) -> dict:
    try:
        header = json.loads((file.metadata() or {})["ddpm_lib"])
    except (KeyError, ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CheckpointError("a safetensors file, but not one that ddpm_lib wrote")
    return header


def _understood(header: dict, kept: dict[str, tuple[str, tuple[int, ...]]]) -> Checkpoint:
    """The checkpoint that a header describes, its networks without values, once it is sure that the tensors fit it.

    kept: name -> (type, shape) of the tensors. Nothing is allocated, however large the network that the header asks for.
    Raises CheckpointError.
    """
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint of format {header.get('format')!r:.99}, this version of ddpm_lib reads format {FORMAT}: "
            "use the version that wrote it, or train again"
        )
    if _deeper(header, DEEPEST):
        raise CheckpointError(f"its header has lists and tables in each other, more than {DEEPEST} deep")
    try:
        kind = header["network"]["kind"]
        if kind not in NETWORKS:
            raise CheckpointError(
                f"holds a network of kind {kind!r:.99}, this version knows {', '.join(NETWORKS)}"
            )
        make_config, make_net = NETWORKS[kind]
        config = make_config(**header["network"]["config"])
        if config.residual_blocks > len(kept):
            raise _misfit(f"{config.residual_blocks} residual blocks cannot have only {len(kept)} tensors")
        with torch.device("meta"):
            net = make_net(config)
        schedule = _made(**header["schedule"])
        Denoiser(net, schedule, header["predict"])
        ema = None
        if header["ema"] is not None:
            ema = EMA(net, header["ema"]["half_life"])
            ema.updates = _whole("updates", header["ema"]["updates"])
        train, step = TrainConfig(**header["train"]), _whole("step", header["step"])
        for part, entries in KNOWN.items():
            _check_entries(part, header[part], entries)
    except CheckpointError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"its header does not fit this version of ddpm_lib ({error!r:.300})") from error
    data = header["data"]
    if names := data.get("classes"):
        data = data | {"classes": list(map(str, names))}
    if config.num_classes and names and len(names) != config.num_classes:
        raise CheckpointError(
            f"names {len(names)} classes, and its network knows {config.num_classes} labels: name each or none"
        )
    raw = any(name.startswith("net.") for name in kept)
    _check_fit(kept, net, raw, ema is not None)
    return Checkpoint(
        net, schedule, header["predict"], train, ema, step, data=data, provenance=header["provenance"],
        averaged_only=not raw,
    )  # fmt: skip


def _check_fit(
    kept: dict[str, tuple[str, tuple[int, ...]]], net: nn.Module, raw: bool, averaged: bool
) -> None:
    """Raises CheckpointError unless the tensors are those of a network and of its average."""
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    weights = {f"net.{name}": shape for name, shape in shapes.items()} if raw else {}
    weights |= {f"ema.{name}": shape for name, shape in shapes.items()} if averaged else {}
    moments = {f"{owner}.{key}.{name}": shapes[name] for key, owner in MOMENTS.items() for name in shapes}
    allowed = weights | (moments | {"adam.step": ()} if raw else {})
    if not weights:
        raise _misfit("it has none")
    for name in weights:
        if name not in kept:
            raise _misfit(f"{name} is missing")
    for name, (kind, shape) in kept.items():
        if name not in allowed:
            raise _misfit(f"it should not have {name!r:.99}")
        if shape != allowed[name]:
            raise _misfit(f"{name} has the shape {shape!s:.99}, not {allowed[name]}")
        if kind not in FLOATS.values():
            raise _misfit(f"{name} is of the type {kind}, not {', '.join(FLOATS.values())}")


def _misfit(why: str) -> CheckpointError:
    return CheckpointError(f"its weights are of another architecture than its header says ({why})")


def _check_finite(tensors: dict[str, Tensor]) -> None:
    """Raises CheckpointError for values that are no finite numbers, as weights are in the network (float32)."""
    for name, value in tensors.items():
        value = value.float()
        # the two ends are found many times quicker than all that is not finite
        if not all(math.isfinite(end) for end in value.aminmax()):
            raise CheckpointError(
                f"{int((~value.isfinite()).sum())} of the {value.numel()} values of {name} are not finite: a network with such "
                "weights draws nothing"
            )


def _made(name: str, options: dict) -> schedules.Schedule:
    """The schedule of a header. Raises ValueError for one that no time or memory suffices for, or that is none."""
    steps = options.get("steps")
    if isinstance(steps, int) and steps > LONGEST_CHAIN:
        raise ValueError(f"a chain has at most {LONGEST_CHAIN} steps, got {steps}")
    schedule = schedules.make(name, **options)
    logsnr = schedule.logsnr(torch.linspace(0, 1, 101).double())
    if not (logsnr[1:] <= logsnr[:-1]).all():
        raise ValueError(f"the log-SNR of the schedule {name!r} with {options} does not fall")
    return schedule


def _whole(name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}")
    return value


def _check_entries(part: str, entries: object, kinds: dict[str, tuple[type, ...]]) -> None:
    if not isinstance(entries, dict):
        raise ValueError(f"{part} must be a table of names and values, got {entries!r}")
    for name, kind in kinds.items():
        if name in entries and type(entries[name]) not in kind:
            raise ValueError(
                f"{part}[{name!r}] must be {' or '.join(each.__name__ for each in kind)}, got {entries[name]!r}"
            )


def _deeper(value: object, levels: int) -> bool:
    """Whether lists and dictionaries lie more than so many levels deep in each other."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(each, levels - 1) for each in inside)


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
        if isinstance(getattr(net, "config", None), config):
            return kind
    raise CheckpointError(
        f"cannot save a network of type {type(net).__name__}: add it to checkpoint.NETWORKS"
    )


def _moments(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in _named(net.named_parameters()):
        state = optimizer.state.get(parameter)
        if not state:  # before the first step, or frozen
            continue
        if "step" in state:
            tensors["adam.step"] = torch.as_tensor(state["step"], dtype=torch.float32)
        tensors |= {f"{kind}.{key}.{name}": state[key] for key, kind in MOMENTS.items() if key in state}
    return tensors


def _named(pairs: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a network, the names as they are if none of its parts is compiled."""
    return ((name.replace("_orig_mod.", ""), value) for name, value in pairs)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _plain(value: object) -> object:
    """Numbers of NumPy and torch as Python's, for JSON."""
    try:
        return value.item()
    except (AttributeError, RuntimeError, ValueError):
        raise TypeError(f"data and provenance must be JSON, and hold a {type(value).__name__}") from None


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
