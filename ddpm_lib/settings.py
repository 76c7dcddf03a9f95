"""A training run's settings: each is written once, with its type, its default, its range and what it means.

The options of ``train``, what a ``--config`` file may hold, what a checkpoint keeps and what is compared when a run
goes on all follow from the fields of `Settings`. Nothing here needs torch, so that ``train --help`` answers at once.
"""

from __future__ import annotations

import difflib
import json
import math
import operator
import os
import typing
from dataclasses import Field, asdict, dataclass, field, fields
from functools import cache

from .files import user_path

SCHEDULES = ("linear", "cosine", "sigmoid", "flow", "edm")
TARGETS = ("eps", "x0", "v", "flow", "edm")
OPTIMIZERS = ("adam", "muon")
DECAYS = ("none", "linear", "cosine")
TIMES = ("uniform", "logit-normal")
PRECISIONS = ("fp32", "bf16", "auto")
SAMPLERS = ("ddpm", "ddim", "heun", "dpm++2m", "dpm++2m-sde")
"""The names in the library's tables, which a test compares with these."""

LARGEST_SEED = 2**63 - 1


def setting(
    default: object,
    about: str,
    group: str = "",
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    choices: tuple = (),
    metavar: str | None = None,
    fixed: bool = True,
):
    """A field of Settings: its default, one line about it, its range, and whether it stays as it is in a run."""
    about = {"about": about, "group": group, "least": least, "above": above, "most": most, "choices": choices}
    return field(default=default, metadata=about | {"metavar": metavar, "fixed": fixed})


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    steps: optimiser steps in all. optimizer: "adam", or "muon" for muon.Muon, which learns more from each
    step of a few thousand. lr: its peak learning rate. warmup: steps of linear warm-up.
    decay: what lr does after warm-up, "none", "linear" or "cosine" (the latter two end at 0).
    clip: largest gradient norm, 0 for no clipping. label_dropout: share of images shown without their
    label (arXiv 2207.12598). times: "uniform" or "logit-normal". min_snr: gamma of min-SNR weighting
    (arXiv 2303.09556), 0 for plain mean squared error. precision: "fp32", "bf16" or "auto" (bf16 where
    the device has it and gains from it). compile: pass the network through torch.compile.

    Raises ValueError that names the field, its value and what it may be.
    """

    steps: int = setting(5_000, "optimiser steps in all", "the run", least=1, metavar="N", fixed=False)
    optimizer: str = setting(
        "adam", "muon learns more from each step of a few thousand", "the optimiser", choices=OPTIMIZERS
    )
    lr: float = setting(
        1e-3, "peak learning rate; 2e-4 to 2e-3 suit adam, 4e-3 to 1e-2 muon", "the optimiser", above=0
    )
    warmup: int = setting(100, "steps of linear warm-up", "the optimiser", least=0, metavar="STEPS")
    decay: str = setting("none", "of the learning rate after the warm-up", "the optimiser", choices=DECAYS)
    clip: float = setting(1.0, "largest gradient norm, 0 for none", "the optimiser", least=0, metavar="NORM")
    label_dropout: float = setting(
        0.1, "share of images shown without their label", "the diffusion", least=0, most=1, metavar="SHARE"
    )
    times: str = setting("uniform", "how training times spread", "the diffusion", choices=TIMES)
    min_snr: float = setting(
        0.0, "min-SNR weighting, 5 is usual, 0 for none", "the diffusion", least=0, metavar="GAMMA"
    )
    precision: str = setting(
        "fp32", "of the arithmetic; auto tries which is faster here", "the optimiser", choices=PRECISIONS
    )
    compile: bool = setting(False, "pass the network through torch.compile", "the optimiser")
    seed: int = setting(
        0, "of the initial weights and of everything random", "the run", least=0, most=LARGEST_SEED
    )

    def __post_init__(self):
        check(self)


@dataclass(frozen=True, kw_only=True)
class Settings(TrainConfig):
    """What a run is: what to train on, what network, how to train it, and how to keep it.

    ``python -m ddpm_lib train --help`` says what each of them means. What is None is decided when the run starts, from the
    pictures and from `init`. Raises ValueError that names the
    field, its value and what it may be.
    """

    steps: int = setting(None, "optimiser steps in all", "the run", least=1, metavar="N", fixed=False)
    precision: str = setting(
        "auto", "of the arithmetic; auto tries which is faster here", "the optimiser", choices=PRECISIONS
    )

    init: str | None = setting(
        None,
        "start from the weights of this model: a run's folder, a file, or a shipped model (fine-tuning)",
        "the run",
        metavar="MODEL",
    )
    device: str = setting("auto", "cpu, cuda, cuda:1, mps or auto", "the run", fixed=False)
    save_every: int = setting(500, "steps between checkpoints", "the run", least=1, metavar="N", fixed=False)
    sample_every: int = setting(
        500, "steps between sample grids, 0 for none", "the run", least=0, metavar="N", fixed=False
    )
    log_every: int = setting(
        50, "steps between rows of log.jsonl", "the run", least=1, metavar="N", fixed=False
    )
    tensorboard: bool = setting(False, "also write TensorBoard events", "the run", fixed=False)

    data: str = setting(
        "mnist",
        "mnist, cifar10 (embedded subsets), mnist-full, cifar10-full (downloaded), an .npz or a folder",
        "the images",
    )
    data_root: str | None = setting(
        None, "folder of the full sets", "the images", metavar="FOLDER", fixed=False
    )
    size: int | None = setting(
        None,
        "resize to this many pixels a side (default: as they are)",
        "the images",
        least=1,
        metavar="PIXELS",
    )
    channels: int | None = setting(
        None, "1 for grey, 3 for colour (default: as they are)", "the images", choices=(1, 3)
    )
    flip: bool = setting(False, "mirror half of the images, at random", "the images")
    labels: bool = setting(True, "train without labels", "the images")
    skip_corrupt: bool = setting(False, "leave out pictures that cannot be read", "the images")

    schedule: str | None = setting(
        None, "how noise grows (default: linear, or that of --init)", "the diffusion", choices=SCHEDULES
    )
    predict: str | None = setting(
        None, "what the network predicts (default: eps, or that of --init)", "the diffusion", choices=TARGETS
    )

    width: int | None = setting(
        None, "channels at the finest level (default: 48, or that of --init)", "the network", least=2
    )
    multipliers: tuple[int, ...] | None = setting(
        None,
        "width of each level, as a multiple (default: levels down to a grid of 8 or so)",
        "the network",
        metavar="1,2",
    )
    blocks: int | None = setting(
        None, "residual blocks a level (default: 2, or that of --init)", "the network", least=1
    )
    attention: tuple[int, ...] | None = setting(
        None, "levels that attend, 0 the finest (default: the coarsest)", "the network", metavar="1"
    )
    patch: int | None = setting(
        None,
        "fold patches of this many pixels into channels first (default: 2, or 1 where the size is odd)",
        "the network",
        least=1,
    )
    dropout: float | None = setting(
        None,
        "share of activations dropped in training (default: 0, or that of --init)",
        "the network",
        least=0,
        most=0.99,
        metavar="SHARE",
    )

    batch_size: int = setting(128, "images a step, over all processes", "the optimiser", least=1, metavar="N")
    ema_half_life: float = setting(
        500.0, "of the average of the weights", "the optimiser", above=0, metavar="STEPS"
    )

    def __post_init__(self):
        if self.steps is None:
            raise ValueError(
                "say how long to train: --steps N, or steps=N (two cores take about 80 steps of 128 small images a minute)"
            )
        check(self)

    def train_config(self, **changes) -> TrainConfig:
        """The part that `training.train` needs."""
        return TrainConfig(**{each.name: getattr(self, each.name) for each in fields(TrainConfig)} | changes)

    def kept(self) -> dict:
        """As JSON keeps them."""
        return asdict(self)


def read(path: str | os.PathLike) -> dict:
    """The settings in a JSON file, by name, checked one by one.

    Raises ValueError, naming the file, for one that is no JSON object, for names that are no settings and for values
    that a setting cannot take; OSError if it cannot be read.
    """
    path = user_path(path)
    try:
        # Notepad and PowerShell begin a file with a byte order mark
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f'{path}: must be a JSON object of settings, such as {{"steps": 600}}')
    try:
        return known(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def known(found: dict) -> dict:
    """Settings by name, each checked and in its type. Raises ValueError for a name or a value that cannot be."""
    by_name = {each.name: each for each in fields(Settings)}
    if unknown := sorted(set(found) - set(by_name)):
        near = difflib.get_close_matches(unknown[0], by_name, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown settings {', '.join(unknown)}{meant}; known: {', '.join(by_name)}")
    return {name: checked(Settings, by_name[name], value) for name, value in found.items()}


def differences(old: Settings, new: dict) -> list[tuple[str, object, object]]:
    """Of the settings that stay as they are in a run, those that new asks to be otherwise: (name, was, asked)."""
    fixed = [each.name for each in fields(old) if each.metadata["fixed"] and each.name in new]
    return [(name, getattr(old, name), new[name]) for name in fixed if getattr(old, name) != new[name]]


def option(name: str) -> str:
    """The command line's word for a setting: --name, or --no-name for one that is on unless it is turned off."""
    word = name.replace("_", "-")
    on = any(each.name == name and each.default is True for each in fields(Settings))
    return f"--no-{word}" if on else f"--{word}"


def check(config) -> None:
    """Brings each field of a config to its type, as `checked` does."""
    for each in fields(config):
        object.__setattr__(config, each.name, checked(type(config), each, getattr(config, each.name)))


def checked(owner: type, each: Field, value: object) -> object:
    """The value of a field, in the field's type. Raises ValueError that says what it must be."""
    kind, optional = kinds(owner)[each.name]
    if value is None and optional:
        return None
    try:
        value = _CONVERT[kind](value)
    except TypeError:
        raise ValueError(f"{each.name} must be {_WORDS[kind]}, got {value!r}") from None
    about = each.metadata
    if about["choices"] and value not in about["choices"]:
        raise ValueError(
            f"unknown {each.name} {value!r}: choose from {', '.join(map(str, about['choices']))}"
            if kind is str
            else f"{each.name} must be {' or '.join(map(str, about['choices']))}, got {value}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{each.name} must be a finite number, got {value}")
    _check_range(each.name, about, value)
    return value


def _check_range(name: str, about, value) -> None:
    least, above, most = about["least"], about["above"], about["most"]
    if above is not None and not value > above:
        raise ValueError(
            f"{name} must be positive, got {value}"
            if above == 0
            else f"{name} must be above {above}, got {value}"
        )
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}")


def _whole(value: object) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _number(value: object) -> float:
    if isinstance(value, bool | str):
        raise TypeError
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _exactly(kind: type):
    def convert(value: object):
        if not isinstance(value, kind):
            raise TypeError
        return value

    return convert


def _wholes(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return tuple(map(_whole, value))


def _text(value: object) -> str:
    return os.fspath(value)


_CONVERT = {int: _whole, float: _number, bool: _exactly(bool), str: _text, tuple: _wholes}
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "a list of whole numbers",
}


@cache
def kinds(owner: type) -> dict[str, tuple[type, bool]]:
    """Name of a field -> (its type, whether it may be None)."""
    found = {}
    for name, hint in typing.get_type_hints(owner).items():
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        optional = type(None) in typing.get_args(hint)
        bare = parts[0] if optional else hint
        found[name] = typing.get_origin(bare) or bare, optional
    return found
