"""Drawing pictures with a trained model, as its file recommends or as you ask, and keeping them.

`draw` gives pictures, `Drawing` says how; `asked_labels` understands which classes are wanted.
"""

from __future__ import annotations

import csv
import math
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import sampling
from .checkpoint import Checkpoint
from .data import to_uint8
from .files import write_whole
from .settings import LARGEST_SEED, PRECISIONS
from .training import resolve_precision

RECOMMENDED = {"sampler": "dpm++2m", "steps": 20, "scale": 1.0}
"""How samples are drawn where neither the reader nor the model file says."""
FRAMES = 60
"""Most frames of a film: more make a large file and show nothing new."""


@torch.no_grad()
def draw(
    model: Checkpoint,
    count: int,
    labels: Tensor | None,
    *,
    steps: int = 50,
    sampler: str = "ddim",
    scale: float = 1.0,
    interval: tuple[float, float] | None = None,
    seed: int = 0,
    eta: float | None = None,
    ema: bool = True,
    progress: bool = False,
    batch_size: int = 64,
    precision: str = "fp32",
    watch: Callable[[sampling.Step, slice], object] | None = None,
) -> Tensor:
    """count images of a model as uint8 (count, C, H, W) on the CPU; labels (count,) or None.

    scale: guidance, within the times of `interval` (low, high) in [0, 1] only, if one is given. With a sampler that
    adds no noise, each image depends on the seed and its own number only. precision: "bf16" is faster where the
    processor gains from it, "auto" tries; pictures differ by a shade or two. watch: called with each step of the
    sampler and with the images that it is about, see `Film`.

    Raises ValueError, before anything is drawn, for a sampler, number of steps, scale, precision or label that cannot be.
    """
    check(count, batch_size, seed, sampler, eta, precision)
    if labels is not None:
        check_labels(model, labels)
    elif scale != 1 or interval is not None:
        raise ValueError(
            "guidance steers towards a label, and none is asked for: leave scale and interval out"
        )
    if interval is not None and not 0 <= interval[0] <= interval[1] <= 1:
        raise ValueError(f"guidance interval must be LOW HIGH with 0 <= low <= high <= 1, got {interval}")
    if interval is not None and scale == 1:
        raise ValueError("an interval is where to guide, and scale 1 does not: give a scale above 1 as well")
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
    guidance = {"scale": scale} | ({} if interval is None else {"interval": interval})
    images = []
    with tqdm(total=steps * math.ceil(count / batch_size), unit="step", disable=not progress) as bar:
        for begin in range(0, count, batch_size):
            part = slice(begin, begin + batch_size)
            asked = None if labels is None else labels[part].to(device)
            denoise = sampling.clipped(sampling.guided(denoiser, asked, **guidance))
            steps_taken = sampling.SAMPLERS[sampler](
                denoise, noise[part].to(device), denoiser.schedule, times, **noisy
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                images.append(to_uint8(sampling.last(_ticking(steps_taken, bar, part, watch)).cpu()))
    return torch.cat(images)


def _ticking(steps: Iterable, bar: tqdm, part: slice, watch) -> Iterator:
    for step in steps:
        bar.update()
        if watch is not None:
            watch(step, part)
        yield step


def check(
    count: int,
    batch_size: int = 64,
    seed: int = 0,
    sampler: str = "ddim",
    eta: float | None = None,
    precision: str = "fp32",
) -> None:
    """Raises ValueError, naming the choices, for what draw could not do with any model."""
    if sampler not in sampling.SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}: choose from {', '.join(sampling.SAMPLERS)}")
    if eta is not None and sampler != "ddim":
        raise ValueError(f"eta is a setting of the sampler 'ddim', not of {sampler!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if batch_size < 1:
        raise ValueError(f"batch size must be at least 1, got {batch_size}")
    if not 0 <= seed < LARGEST_SEED:
        raise ValueError(f"seed must be a whole number from 0 to {LARGEST_SEED - 1}, got {seed}")
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: choose from {', '.join(PRECISIONS)}")


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


def recommended(model: Checkpoint, given: dict) -> tuple[dict, list[str]]:
    """Sampler, steps, scale and interval, and which of them the model file recommends and the reader did not override.

    given: those that the reader asked for. What is left open is as provenance["sampling"] says, or as RECOMMENDED.
    Raises ValueError if the file's recommendation cannot be read.
    """
    advice = model.provenance.get("sampling", {})
    kinds = {"sampler": str, "steps": int, "scale": int | float, "interval": list}
    readable = isinstance(advice, dict) and all(
        name in kinds and isinstance(value, kinds[name]) for name, value in advice.items()
    )
    if not readable:
        raise ValueError(
            f"the model file recommends settings that cannot be read, {advice!r}: give --sampler, --steps and --scale"
        )
    advice = dict(advice)
    if not model.net.config.num_classes:
        advice = {name: value for name, value in advice.items() if name not in ("scale", "interval")}
    how = RECOMMENDED | advice | given
    if how["scale"] == 1 and "interval" not in given:
        advice.pop("interval", None)
        how.pop("interval", None)
    return how, [name for name in advice if name not in given]


# --- which classes -------------------------------------------------------------------------------


def asked_labels(model: Checkpoint, asked: str | None, count: int) -> Tensor | None:
    """Labels (count,) for "7", "cat" or "3,1,4"; all classes in turn for None; None for a model without labels.

    A word is the name of a class; or, if no class has a number for its name, the number of a class. So "1" is the class
    named 1 or 01 where there is one, and otherwise the second class. Names with a comma stand in double quotes.
    Raises ValueError, with the choices, for a word that is neither, and for one that could be two.
    """
    known = model.net.config.num_classes
    if asked is None:
        return torch.arange(count) % known if known else None
    if not known:
        raise ValueError("this model was trained without labels: leave --label out")
    whole = _named(model.classes, asked)
    words = next(csv.reader([asked], skipinitialspace=True), [])
    numbers = (
        [whole] if whole is not None else [_label(model.classes, word) for word in words if word.strip()]
    )
    if not numbers:
        raise ValueError(f"no label in {asked!r}: choose from {', '.join(model.classes)}")
    labels = torch.tensor(numbers)
    if count < len(labels):
        raise ValueError(f"--count {count} is too few for the {len(labels)} labels in {asked!r}")
    return labels.repeat(math.ceil(count / len(labels)))[:count]


def _named(classes: Sequence[str], word: str) -> int | None:
    """The class of this name: to the letter, else but for spaces around it and for how accents are written."""
    for like in (lambda text: text, lambda text: unicodedata.normalize("NFC", text.strip())):
        if [like(name) for name in classes].count(like(word)) == 1:
            return [like(name) for name in classes].index(like(word))
    return None


def _label(classes: Sequence[str], word: str) -> int:
    if (found := _named(classes, word)) is not None:
        return found
    number, choices = _number(word), ", ".join(classes)
    if number is None:
        raise ValueError(f"unknown label {word.strip()!r}: choose from {choices}")
    named = [_number(name) for name in classes]
    if named != [*range(len(classes))] and any(each is not None for each in named):
        if named.count(number) == 1:
            return named.index(number)
        asked = (
            ", and which of them is meant is not clear" if number in named else " (numbers are names here)"
        )
        raise ValueError(f"no single class is called {word.strip()!r}{asked}; choose from {choices}")
    if not 0 <= number < len(classes):
        raise ValueError(
            f"label {number} is out of range: this model knows 0 to {len(classes) - 1} ({choices})"
        )
    return number


def _number(word: str) -> int | None:
    word = word.strip()
    return int(word) if word.removeprefix("-").isdecimal() and len(word) < 20 else None


# --- what is kept --------------------------------------------------------------------------------


def save_npz(path: str | os.PathLike, images: Tensor, labels: Tensor | None, classes: Sequence[str]) -> None:
    """images uint8 (N, C, H, W) as (N, H, W, C), labels, and classes, in the form that load_images reads."""
    import numpy as np

    named = {"classes": np.array(classes)} if classes else {}
    labels = torch.zeros(len(images), dtype=torch.long) if labels is None else labels

    def write(part: str) -> None:
        with open(part, "wb") as file:
            np.savez_compressed(
                file, images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy(), **named
            )

    write_whole(path, write)


@dataclass(eq=False)
class Film:
    """The steps of a drawing, to be shown one after the other: pass `film.add` to draw as `watch`.

    steps: of the sampler; count: images. A frame shows the noisy pictures as the network sees them.
    """

    model: Checkpoint
    steps: int
    count: int

    def __post_init__(self):
        shown = torch.linspace(0, self.steps, min(self.steps + 1, FRAMES)).round().long().tolist()
        self.frames: dict[int, list[Tensor]] = {index: [] for index in shown if index}

    def add(self, step: sampling.Step, part: slice) -> None:
        """Keeps what a step of the sampler made of the images in part."""
        if step.index in self.frames:
            _, a, s = self.model.schedule.at(step.t)
            self.frames[step.index].append(to_uint8((step.x * (a**2 + s**2).rsqrt().item()).cpu()))

    def save(
        self, path: str | os.PathLike, columns: int | None = None, zoom: int = 1, seconds: float = 4.0
    ) -> None:
        """Writes an animated .gif or .webp of about so many seconds; the last frame stays for two more."""
        from PIL import Image

        from .plotting import image_grid

        grids = [image_grid(zoomed(torch.cat(parts), zoom), columns) for parts in self.frames.values()]
        first, *others = [Image.fromarray(grid.numpy()) for grid in grids]
        each = max(20, round(1000 * seconds / len(grids)))
        kind = Path(path).suffix[1:].upper()
        durations = [each] * (len(grids) - 1) + [2000]
        write_whole(
            path,
            lambda part: first.save(
                part, kind, save_all=True, append_images=others, duration=durations, loop=0
            ),
        )


def zoomed(images: Tensor, zoom: int) -> Tensor:
    """Images (N, C, H, W) with each pixel as a square of zoom x zoom."""
    return images.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
