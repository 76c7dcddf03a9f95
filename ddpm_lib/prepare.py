"""From settings and pictures to a model: what was left open is decided, what was understood is said in words.

`resolved` fills in the settings, `new_model` makes the network, fresh or from another model's weights, and `compare`
holds the pictures of a run that goes on against those that it was started on.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from . import checkpoint, schedule
from .checkpoint import Checkpoint
from .data import ImageSet, load_images
from .files import model_file
from .settings import Settings, option
from .training import EMA, bf16_slowdown, resolve_precision
from .unet import UNet, UNetConfig, default_levels

NETWORK = {"width": 48, "blocks": 2, "dropout": 0.0}
PROCESS = {"schedule": "linear", "predict": "eps"}
"""What a run takes where neither the reader nor the model that it starts from says."""

Tell = Callable[[str], object]


def resolved(settings: Settings, origin: Checkpoint | None = None) -> Settings:
    """The settings with what was left open decided: as the model that the run starts from, else as this library does.

    Raises ValueError if they ask for a network that the weights of that model do not fit.
    """
    if origin is None:
        decided = NETWORK | PROCESS
    else:
        config = origin.net.config
        decided = {name: getattr(config, name) for name in (*NETWORK, "multipliers", "attention", "patch")}
        decided |= {"channels": config.channels, "size": config.image_size}
        decided |= {"schedule": origin.schedule.name, "predict": origin.predict}
        for name in (*NETWORK, "multipliers", "attention", "patch", "channels", "predict"):
            asked = getattr(settings, name)
            if asked is not None and asked != decided[name] and name != "dropout":
                raise ValueError(
                    f"{option(name)} {words(asked)} does not fit --init {settings.init}, whose weights are for "
                    f"{words(decided[name])}: leave {option(name)} out"
                )
    open_ones = {name: value for name, value in decided.items() if getattr(settings, name) is None}
    return replace(settings, **open_ones)


def network_config(settings: Settings, size: int, channels: int, num_classes: int) -> UNetConfig:
    """The U-Net for these settings; what they leave open is as unet.default_levels says."""
    patch, multipliers, attention = default_levels(size, settings.patch)
    if settings.multipliers is not None:
        multipliers = settings.multipliers
        attention = (len(multipliers) - 1,)
    return UNetConfig(
        image_size=size,
        channels=channels,
        num_classes=num_classes,
        width=settings.width,
        multipliers=multipliers,
        blocks=settings.blocks,
        attention=attention if settings.attention is None else settings.attention,
        head_dim=math.gcd(32, settings.width),
        patch=patch,
        dropout=settings.dropout,
    )


def understood(images: ImageSet, settings: Settings) -> str:
    """One line: how many pictures of which kind, and how many of each class."""
    channels, height, width = images.images.shape[1:]
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    told = f"{settings.data}: {len(images):,} pictures of {height} x {width}, {kind}"
    if not settings.labels:
        return f"{told}, trained without labels"
    often = set(images.counts.values())
    named = (
        list(images.counts) if len(often) == 1 else [f"{name} ({n:,})" for name, n in images.counts.items()]
    )
    if len(named) > 24:
        named = [*named[:20], f"and {len(named) - 20} more"]
    each = f" of {often.pop():,} each" if len(often) == 1 and len(named) > 1 else ""
    return f"{told}; {len(images.classes)} class{'es' * (len(images.classes) != 1)}{each}: {', '.join(named)}"


def load(settings: Settings) -> ImageSet:
    """The pictures of a run. Raises ValueError for what is not square, and as load_images does."""
    images = load_images(
        settings.data,
        size=settings.size,
        channels=settings.channels,
        root=settings.data_root,
        skip_corrupt=settings.skip_corrupt,
    )
    height, width = images.images.shape[2:]
    if height != width:
        raise ValueError(
            f"images are {height} x {width}, the U-Net takes squares: give --size, such as --size 32"
        )
    return images


def new_model(
    settings: Settings, images: ImageSet, device: torch.device, origin: Checkpoint | None, tell: Tell
) -> Checkpoint:
    """A model before its first step: fresh, or with the averaged weights of origin."""
    warn_of_slow_bf16(settings.precision, device, tell)
    _check_compiler(settings, device)
    # decided once: a trial may come out otherwise in another process, or when the run goes on
    precision = [resolve_precision(settings.precision, device)]
    if dist.is_initialized():
        dist.broadcast_object_list(precision)
    config = settings.train_config(precision=precision[0])
    channels, size = images.images.shape[1:3]
    classes = list(images.classes) if settings.labels else []
    torch.manual_seed(config.seed)
    if origin is None:
        shape = network_config(settings, size, channels, len(classes))
    else:  # what settings do not name, such as the size of a head, stays as its weights learned it
        shape = replace(
            origin.net.config,
            image_size=size,
            channels=channels,
            num_classes=len(classes),
            dropout=settings.dropout,
        )
    net = UNet(shape).to(device)
    tell(understood(images, settings))
    came_from = {} if origin is None else {"init": _take_over(net, origin, classes, settings.init, tell)}
    about = {
        "source": settings.data,
        "size": size,
        "channels": channels,
        "images": len(images),
        "classes": classes,
        "counts": list(images.counts.values()),
        "digest": images.digest(),
    }
    return Checkpoint(
        net,
        schedule.make(settings.schedule),
        settings.predict,
        config,
        EMA(net, settings.ema_half_life),
        data=about,
        provenance=checkpoint.provenance(device)
        | {"seed": config.seed, "settings": settings.kept()}
        | came_from,
    )


def _take_over(net: UNet, origin: Checkpoint, classes: list[str], name: str, tell: Tell) -> dict:
    """Gives net the averaged weights of a model; returns where they came from.

    A class that the model knows by name keeps its row of the label table. Any other starts as "no label", so that it is
    drawn as the model draws without a label until it has learned more.
    """
    weights = origin.denoiser().net.state_dict()
    table = "conditioning.label.weight"
    known = {each: row for row, each in enumerate(origin.classes)}
    kept = [each for each in classes if each in known]
    if table in weights and classes:
        rows = [known.get(each, -1) for each in classes] + [-1]
        weights[table] = weights[table][rows]
    elif classes:
        weights[table] = torch.zeros_like(net.state_dict()[table], device="cpu")
    else:
        weights.pop(table, None)
    net.load_state_dict(weights)
    mark = checkpoint.file_mark(model_file(name))
    fresh = [each for each in classes if each not in known]
    tell(
        f"starts from {name}, step {origin.step}"
        + (f"; keeps what it knows of {', '.join(kept)}" if kept else "")
        + (f"; new to it: {', '.join(fresh[:20])}{' ...' * (len(fresh) > 20)}" if fresh else "")
    )
    return {"model": Path(name).name, "file": mark, "step": origin.step, "classes_kept": kept}


def compare(images: ImageSet, model: Checkpoint, settings: Settings, tell: Tell) -> None:
    """Refuses pictures that the run was not started on; says what else is not as it was."""
    was, source = model.data, settings.data
    channels, size = images.images.shape[1:3]
    fixed = {"size": size, "channels": channels}
    if settings.labels:
        fixed["classes"] = list(images.classes)
    for name, value in fixed.items():
        if name in was and was[name] != value:
            raise ValueError(
                f"{source} is not what this run was started on: {name} {words(value)}, was {words(was[name])}. Going on would "
                "teach it something else: bring the pictures back, or start a new run with --init and another --out"
            )
    now = {"images": len(images), "counts": list(images.counts.values()), "digest": images.digest()}
    if was.get("images", len(images)) != len(images):
        tell(
            f"note: {source} has {len(images):,} pictures now, {was['images']:,} when this run was last saved"
        )
    elif was.get("digest", now["digest"]) != now["digest"]:
        tell(f"note: the pictures in {source} are not those that this run was last saved with")
    model.data |= now | {"source": source}


def warn_of_slow_bf16(asked: str, device: torch.device, tell: Tell) -> None:
    """Says what bf16 costs where it was asked for and the processor can only emulate it."""
    if asked == "bf16" and device.type == "cpu" and (slowdown := bf16_slowdown()) > 2:
        tell(
            f"bf16 takes about {slowdown:.0f} times as long as fp32 on this processor, which can only emulate it: "
            "--precision auto takes what is faster"
        )


def _check_compiler(settings: Settings, device: torch.device) -> None:
    """torch.compile looks for its compiler only when the first step is being made, and may then look for minutes."""
    if not settings.compile:
        return
    wanted = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
    if device.type == "cpu" and not any(shutil.which(name) for name in wanted if name):
        raise ValueError(
            "--compile needs a C++ compiler, and none was found (CXX, g++, clang++): install one, on Debian and "
            "Ubuntu with apt install g++, or leave --compile out"
        )


def words(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
