"""Images as one uint8 tensor, and endless batches of them scaled to [-1, 1].

``load_images`` takes the name of a set (``ddpm_lib.sources`` knows those), an ``.npz`` file or a folder of
pictures (``ddpm_lib.folders`` says what is in it).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import operator
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import folders
from .files import user_path
from .folders import PICTURES, NoSplit
from .sources import (
    DATASETS,
    EMBEDDED,
    SPLITS,
    Source,
    data_folder,
    describe,
    get,
    torchvision_reader,
    unknown_name,
)

__all__ = [
    "DATASETS",
    "EMBEDDED",
    "PICTURES",
    "SPLITS",
    "ImageSet",
    "NoSplit",
    "Source",
    "batches",
    "data_folder",
    "describe",
    "get",
    "load_images",
    "to_float",
    "to_uint8",
]

# ITU-R BT.601, the weights behind Pillow's own conversion to grey.
LUMINANCE = (0.299, 0.587, 0.114)
# Without names, labels beyond this are taken for a mistake (a hash, a date), not for a billion classes.
MOST_UNNAMED_CLASSES = 10_000
# Pictures with a longer side are photographs that someone forgot to give a size for.
MOST_PIXELS_A_SIDE = 512


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images, whole in memory.

    images: uint8 (N, C, H, W) in 0..255. labels: int64 (N,) in 0..len(classes)-1. classes: one name a label.
    name: what was asked for. split: "train" or "test". Raises ValueError if the parts do not fit together.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    split: str

    def __post_init__(self) -> None:
        _check_split(self.split)
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"{self.name}: images must be uint8 (N, C, H, W), not {_kind(self.images.dtype)} "
                f"{tuple(self.images.shape)}"
            )
        if 0 in self.images.shape:
            raise ValueError(f"{self.name}: no images (shape {tuple(self.images.shape)})")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"{self.name}: labels must be int64 ({len(self.images)},), one an image, not "
                f"{_kind(self.labels.dtype)} {tuple(self.labels.shape)}"
            )
        low, high = self.labels.min().item(), self.labels.max().item()
        if low < 0 or high >= len(self.classes):
            raise ValueError(
                f"{self.name}: label {low if low < 0 else high} is out of range: {len(self.classes)} classes "
                f"take labels 0 to {len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def counts(self) -> dict[str, int]:
        """Class -> how many images it has, in the order of the classes. Classes of one name count together."""
        counts = dict.fromkeys(self.classes, 0)
        numbers = self.labels.bincount(minlength=len(self.classes)).tolist()
        for name, number in zip(self.classes, numbers, strict=True):
            counts[name] += number
        return counts

    def digest(self) -> str:
        """16 hexadecimal digits that tell this set from another: of its shape, its images and its labels.

        The same on every machine and device; names do not enter. 150 MB of images take about 0.3 s.
        """
        found = hashlib.blake2b(str(tuple(self.images.shape)).encode(), digest_size=8)
        for part in (self.images, self.labels):
            found.update(part.cpu().contiguous().numpy())
        return found.hexdigest()

    def to(self, device: str | torch.device) -> ImageSet:
        """The same set with images and labels on ``device``."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def resized(self, size: int | None = None, channels: int | None = None) -> ImageSet:
        """The same set at ``size`` x ``size`` pixels, with 1 or 3 ``channels``; None leaves either as it is.

        Antialiased bilinear; an image that is not square is first cut to its central square. One channel
        becomes three by repetition, three become one by luminance (ITU-R BT.601). Raises ValueError for a
        size below 1, another number of channels, or more images of that size than memory holds.
        """
        size, channels = _checked_size(size, channels)
        if size and self.images.shape[-2:] != (size, size):
            _check_memory(self.name, len(self), channels or self.images.shape[1], size, size)
        return replace(self, images=_converted(self.images, size, channels))


def load_images(
    source: str | os.PathLike,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    root: str | os.PathLike | None = None,
    skip_corrupt: bool = False,
) -> ImageSet:
    """Images and labels of a named data set, an ``.npz`` file or a folder of pictures.

    source: a key of ``DATASETS``; or an ``.npz`` with ``images`` uint8 (N, H, W) or (N, H, W, C), ``labels``
        integer (N,) and, if you like, ``classes`` (names; without them the classes are the labels that
        occur); or a folder: one sub-folder a class (a flat folder is one class, "all"), directly inside or
        inside ``train/`` and ``test/``. Where a name and a folder clash, the name wins: write ``./mnist``
        for the folder.
    split: "train" or "test". A folder without ``test/`` (or ``val/``) and an ``.npz`` are all "train".
    size, channels: as in ``ImageSet.resized``; pictures of different sizes or modes need them, and those
        larger than 512 pixels a size.
    root: where the full sets lie or go (default: ``data_folder()``). They are fetched if they are not there;
        ``cifar10-train.npz`` and ``cifar10-test.npz`` in that folder serve for ``cifar10-full`` too, and
        likewise for MNIST.
    skip_corrupt: leave out pictures of a folder that cannot be read, with a warning that counts them.

    What had to be guessed about a folder, and what is left out, is said in one warning. Raises ValueError
    for bad arguments and bad contents (NoSplit for a split that is not there), FileNotFoundError for a path
    that is not there, and OSError when a full set cannot be fetched.
    """
    _check_split(split)
    size, channels = _checked_size(size, channels)
    if isinstance(source, str) and source in DATASETS:
        read = _read_embedded if DATASETS[source].shipped else _read_full
        return read(source, split, root).resized(size, channels)
    if source == "":  # what an unset shell variable gives, and Path would take for the current folder
        raise ValueError(unknown_name(source))
    path = user_path(source)
    if path.is_dir():
        return _read_folder(path, split, size, channels, skip_corrupt)
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise ValueError(f"{path} is neither a folder of pictures nor an .npz file")
        return _read_npz(path, split).resized(size, channels)
    if len(path.parts) > 1 or path.suffix:
        raise FileNotFoundError(f"{path} not found: expected a folder of pictures or an .npz file")
    raise ValueError(unknown_name(str(source)) + ", or give a folder of pictures or an .npz file")


def batches(
    data: ImageSet,
    batch_size: int,
    *,
    seed: int = 0,
    start: int = 0,
    flip: bool = False,
    device: str | torch.device = "cpu",
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches on ``device``: float32 (batch_size / world, C, H, W) in [-1, 1], int64 labels.

    The images are one endless stream, epoch after epoch, each epoch a fresh order of the whole set; batch k
    is the stream's k-th piece of ``batch_size``, so it may straddle epochs, and a batch larger than the set
    spans several. Batch k depends on (data, batch_size, seed, k) alone: a run resumed with ``start=k`` sees
    exactly what the uninterrupted one would. ``flip`` mirrors each image left to right with probability 1/2.

    Of each batch, process ``rank`` of ``world`` takes every world-th image, so together the processes see
    what one process would. Raises ValueError at once, not at the first batch, for a number that is not whole,
    a batch size below 1 or not divisible by ``world``, a negative ``start``, or a rank outside 0..world-1.
    """
    batch_size = _whole("batch size", batch_size, "batch_size=128 (--batch-size 128)")
    start = _whole("start", start, "start=0")
    rank, world = _whole("rank", rank, "rank=0"), _whole("world", world, "world=1")
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size} must be at least 1")
    if world < 1 or not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}: world must be at least 1 and the rank in 0..world-1")
    if batch_size % world:
        raise ValueError(
            f"batch size {batch_size} is not divisible by {world} processes: use a multiple of {world}, "
            f"e.g. {batch_size + world - batch_size % world}"
        )
    if start < 0:
        raise ValueError(f"start {start} must be at least 0")
    return _stream(data.to(device), batch_size, seed, start, flip, rank, world)


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [-1, 1], any shape; 0 and 255 land exactly on the ends.

    Raises ValueError if the images are not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"expected uint8 images, not {_kind(images.dtype)}: are they scaled already?")
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(x: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8 0..255, any shape: rounds to nearest, clamps what lies outside.

    Undoes ``to_float`` exactly. Raises ValueError if x is not floating point or holds NaN.
    """
    if not x.is_floating_point():
        raise ValueError(f"expected floating-point images in [-1, 1], not {_kind(x.dtype)}")
    if x.isnan().any():
        raise ValueError("images hold NaN: the network or the sampler that made them has diverged")
    return x.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def _stream(
    data: ImageSet, batch_size: int, seed: int, start: int, flip: bool, rank: int, world: int
) -> Iterator[tuple[Tensor, Tensor]]:
    device, count = data.images.device, len(data)

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> Tensor:
        return torch.randperm(count, generator=_generator(seed, "order", epoch))

    for k in itertools.count(start):
        index = _piece(order, count, k * batch_size, batch_size)[rank::world].to(device)
        x = data.images.index_select(0, index)
        if flip:
            coins = torch.rand(batch_size, generator=_generator(seed, "flip", k)) < 0.5
            x = torch.where(coins[rank::world].to(device)[:, None, None, None], x.flip(-1), x)
        yield to_float(x), data.labels.index_select(0, index)


def _piece(order, count: int, begin: int, length: int) -> Tensor:
    """Image indices at positions begin .. begin + length - 1 of the stream epoch 0, epoch 1, ..."""
    parts = []
    while length > 0:
        epoch, offset = divmod(begin, count)
        part = order(epoch)[offset : offset + length]
        parts.append(part)
        begin, length = begin + len(part), length - len(part)
    return torch.cat(parts)


def _generator(seed: int, purpose: str, number: int) -> torch.Generator:
    # A hash, because seed + number would give seed 1, epoch 0 the order of seed 0, epoch 1.
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _converted(images: Tensor, size: int | None, channels: int | None) -> Tensor:
    _, c, h, w = images.shape
    channels = channels or c
    if c != channels and c not in (1, 3):
        raise ValueError(f"images have {c} channels: only 1 and 3 convert into one another")
    grey, resize = c == 3 and channels == 1, size is not None and (h, w) != (size, size)
    if grey or resize:
        # In pieces of about 64 MB as float32, so that a large set does not need five times its memory.
        step = max(1, 2**24 // (c * max(h * w, (size or 1) ** 2)))
        images = torch.cat([_in_float(part, size if resize else None, grey) for part in images.split(step)])
    return images.repeat(1, channels, 1, 1) if channels > images.shape[1] else images


def _in_float(images: Tensor, size: int | None, grey: bool) -> Tensor:
    x = images.float()
    if grey:
        x = torch.einsum("bchw,c->bhw", x, x.new_tensor(LUMINANCE))[:, None]
    if size is not None:
        h, w = x.shape[-2:]
        side = min(h, w)
        top, left = (h - side) // 2, (w - side) // 2
        x = x[..., top : top + side, left : left + side]
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return x.round_().clamp_(0, 255).to(torch.uint8)


def _read_embedded(name: str, split: str, root) -> ImageSet:
    # A copy, because whoever changes their images in place must not change the next reader's.
    images = _decoded(name, split).clone()
    labels = torch.arange(len(images)) % 10
    return ImageSet(images, labels, DATASETS[name].classes, name, split)


@functools.cache
def _decoded(name: str, split: str) -> Tensor:
    import numpy as np
    from PIL import Image

    known = DATASETS[name]
    c, h, w = known.shape
    with Image.open(EMBEDDED / f"{name}-{split}.webp") as mosaic:
        pixels = np.asarray(mosaic.convert("RGB"))[..., :c]
    tiles = pixels.reshape(pixels.shape[0] // h, h, pixels.shape[1] // w, w, c).transpose(0, 2, 4, 1, 3)
    return torch.from_numpy(np.ascontiguousarray(tiles)).reshape(-1, c, h, w)


def _read_full(name: str, split: str, root) -> ImageSet:
    folder, known = get(name, root), DATASETS[name]
    own = known.own_files(folder)[split]
    if own.is_file():
        return _as_named(_read_npz(own, "train"), name, split, own)
    reader = torchvision_reader(name)
    try:
        full = reader(root=folder, train=split == "train")
        images, labels = torch.as_tensor(full.data), torch.as_tensor(full.targets)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        return ImageSet(images, labels, known.classes, name, split)
    except (RuntimeError, ValueError, AssertionError, TypeError, LookupError) as error:
        damaged = (folder / known.files[0]).parent
        raise ValueError(
            f"{name}: the files in {damaged} are damaged; delete that folder and it will be fetched again"
        ) from error


def _as_named(found: ImageSet, name: str, split: str, path: Path) -> ImageSet:
    known = DATASETS[name]
    expected = (getattr(known, split), *known.shape), known.classes
    if (tuple(found.images.shape), found.classes) != expected:
        raise ValueError(
            f"{path} does not hold {name}'s {split} images: it has {tuple(found.images.shape)} of the classes "
            f"{', '.join(found.classes)}; expected {expected[0]} of {', '.join(known.classes)}"
        )
    return replace(found, name=name, split=split)


def _read_npz(path: Path, split: str) -> ImageSet:
    if split == "test":
        raise NoSplit(f"{path} has no test split: an .npz is all train; give the test images' own file")
    images, labels, classes = _npz_arrays(path)
    if images.dtype != "uint8":
        raise ValueError(f"{path}: images must be uint8 in 0..255, not {images.dtype}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        first = images.ndim == 4 and images.shape[1] in (1, 3)
        hint = "; channels come last: images.transpose(0, 2, 3, 1)" if first else ""
        raise ValueError(
            f"{path}: images must be (N, H, W) or (N, H, W, C) with C = 1 or 3, not {images.shape}{hint}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{path}: labels must be integers of shape ({len(images)},), one an image, not {labels.dtype} "
            f"{labels.shape}"
        )
    labels, named = _named_labels(path, labels, classes)
    if classes is None and named != tuple(str(n) for n in range(len(named))):
        warnings.warn(
            f"{path}: no array classes, so that the classes are the {len(named)} labels that occur, from "
            f"{named[0]} to {named[-1]}, and are called by those numbers",
            stacklevel=3,
        )
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    found = ImageSet(images, labels, named, str(path), split)
    _say_empty(found, stacklevel=4)
    return found


def _named_labels(path: Path, labels, classes) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as int64 and one name each; without names, the labels that occur are the classes."""
    import numpy as np

    if classes is not None:
        if classes.ndim != 1 or classes.dtype.kind not in "Uiu":
            raise ValueError(f"{path}: classes must be a list of names, not {classes.dtype} {classes.shape}")
        names = tuple(str(name) for name in classes)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"{path}: two classes are called {twice[0]!r}: give each class a name of its own"
            )
        return torch.from_numpy(labels.astype("int64")), names
    occurring, ranks = np.unique(labels, return_inverse=True)
    if len(labels) and occurring[0] < 0:
        raise ValueError(f"{path}: label {occurring[0]} is out of range: labels are at least 0")
    if len(labels) and occurring[-1] > MOST_UNNAMED_CLASSES:
        raise ValueError(
            f"{path}: label {occurring[-1]} with no array classes to name it: is that really a class?"
        )
    return torch.from_numpy(ranks.astype("int64")), tuple(str(label) for label in occurring)


def _npz_arrays(path: Path):
    import numpy as np

    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: is truncated or not an .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            if not {"images", "labels"} <= set(file.files):
                found = ", ".join(file.files) or "none"
                raise ValueError(f"{path}: needs the arrays images and labels, has: {found}")
            return file["images"], file["labels"], file["classes"] if "classes" in file.files else None
    except (
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        TypeError,
        MemoryError,
    ) as error:
        reason = " ".join(str(error).split())
        if reason.startswith(str(path)):
            raise
        if "pickle" in reason:
            reason = "it holds pickled objects, which could run code when read: save plain arrays"
        raise ValueError(f"{path}: cannot be read as an .npz file ({reason})") from error


def _read_folder(folder: Path, split: str, size, channels, skip_corrupt: bool) -> ImageSet:
    listing = folders.listed(folder, split)
    if listing.said:
        warnings.warn(f"{folder}: {listing.said}", stacklevel=3)
    files, count = listing.files, len(listing.files)
    images, kept, first, skipped = None, [], None, []
    for path, label in zip(files, listing.labels, strict=True):
        try:
            image = torch.from_numpy(folders.read_picture(path)).permute(2, 0, 1)
        except folders.Damaged:
            if not skip_corrupt:
                raise
            skipped.append(path)
            continue
        image = _converted(image[None], size, channels)[0]
        if images is None:
            images, first = _room(folder, count, image, size), path
        _check_alike(folder, first, images.shape[1:], path, image.shape)
        images[len(kept)] = image
        kept.append(label)
    if not kept:
        raise ValueError(f"{folder}: none of the {count} pictures can be read, the first is {files[0]}")
    if skipped:
        warnings.warn(
            f"{folder}: left out {len(skipped)} of {count} pictures that cannot be read, the first is "
            f"{skipped[0]}",
            stacklevel=3,
        )
    found = ImageSet(images[: len(kept)], torch.tensor(kept), listing.classes, str(folder), split)
    if split == "train":
        _say_empty(found, stacklevel=4)
    return found


def _room(folder: Path, count: int, image: Tensor, size: int | None) -> Tensor:
    """An empty tensor for count images like this one. Raises ValueError if that cannot be meant."""
    c, h, w = image.shape
    if size is None and max(h, w) > MOST_PIXELS_A_SIDE:
        raise ValueError(
            f"{folder}: pictures of {w} x {h} are too large to train on as they are: bring them to one size "
            "with e.g. size=64 (--size 64)"
        )
    _check_memory(str(folder), count, c, h, w)
    try:
        return image.new_empty(count, c, h, w)
    except (MemoryError, RuntimeError) as error:
        raise ValueError(
            f"{folder}: no memory is left for {count:,} images of {w} x {h}: give a smaller size, e.g. size=64 "
            "(--size 64)"
        ) from error


def _check_alike(folder: Path, first: Path, expected, path: Path, found) -> None:
    (c0, h0, w0), (c, h, w) = expected, found
    if (h0, w0) != (h, w):
        raise ValueError(
            f"{folder}: pictures differ in size: {first} is {w0} x {h0}, {path} is {w} x {h}; bring them to "
            "one size with e.g. size=32 (--size 32)"
        )
    if c0 != c:
        kind = {1: "grey", 3: "colour"}
        raise ValueError(
            f"{folder}: grey and colour are mixed: {first} is {kind[c0]}, {path} is {kind[c]}; bring them to "
            "one mode with channels=3 or channels=1 (--channels)"
        )


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose from {', '.join(SPLITS)}")


def _checked_size(size, channels) -> tuple[int | None, int | None]:
    """Both as Python's own integers, or None."""
    pixels, planes = _index(size), _index(channels)
    if size is not None and (pixels is None or pixels < 1):
        raise ValueError(f"size {size!r} must be a whole number of pixels, at least 1 (e.g. 28, 32 or 64)")
    if channels is not None and planes not in (1, 3):
        raise ValueError(f"channels {channels!r}: choose 1 (grey) or 3 (colour)")
    return pixels, planes


def _whole(what: str, value, example: str) -> int:
    if (number := _index(value)) is None:
        raise ValueError(f"{what} {value!r} must be a whole number, e.g. {example}")
    return number


def _index(value) -> int | None:
    """A whole number of any library as Python's own; None for what is not whole by its type: 8.0, True, "8"."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _check_memory(name: str, count: int, c: int, h: int, w: int) -> None:
    memory, needed = _machine_memory(), count * c * h * w
    if needed > memory / 2:
        raise ValueError(
            f"{name}: {count:,} images of {w} x {h} take {needed / 2**30:,.1f} GiB, more than half of this "
            f"machine's {memory / 2**30:,.1f}: give a smaller size, e.g. size=64 (--size 64), or fewer images"
        )


def _machine_memory() -> float:
    """In bytes; infinite where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def _say_empty(images: ImageSet, stacklevel: int) -> None:
    """Warns of classes that no image shows: nothing will be learnt of them."""
    if empty := [name for name, count in images.counts.items() if not count]:
        warnings.warn(
            f"{images.name}: {len(empty)} of {len(images.counts)} classes have no image, the first is {empty[0]}",
            stacklevel=stacklevel,
        )


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
