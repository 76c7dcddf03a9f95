"""Images as one uint8 tensor, and endless batches of them scaled to [-1, 1].

``mnist`` and ``cifar10`` are subsets embedded in the package and need no network; ``mnist-full`` and
``cifar10-full`` are fetched by torchvision when they are first asked for. An ``.npz`` file or a folder of
pictures works wherever a name does. See ``embedded/DATA_CARD.md`` for sources, licences and checksums.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import itertools
import os
import shutil
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

SPLITS = ("train", "test")
EMBEDDED = Path(__file__).parent / "embedded"
PICTURES = frozenset(".png .jpg .jpeg .webp .bmp .gif .tif .tiff .ppm .pgm".split())
# ITU-R BT.601, the weights behind Pillow's own conversion to grey.
LUMINANCE = (0.299, 0.587, 0.114)
# Without names, labels beyond this are taken for a mistake (a hash, a date), not for a billion classes.
MOST_UNNAMED_CLASSES = 10_000


@dataclass(frozen=True)
class Source:
    """One row of ``DATASETS``: what a name stands for and where its pixels are.

    train and test count the images, shape is (C, H, W). ``torchvision`` is empty for a subset embedded in
    the package; for a full set it is the name of the class in ``torchvision.datasets``, ``files`` are what
    must be there, ``archives`` what a reader without a network may put there by hand (all relative to the
    cache folder), and ``stand_in`` is the embedded subset of the same pictures.
    """

    title: str
    train: int
    test: int
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    torchvision: str = ""
    files: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    stand_in: str = ""


_DIGITS = tuple("0123456789")
_OBJECTS = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
_MNIST_FILES = tuple(
    f"MNIST/raw/{part}-ubyte"
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
)
_CIFAR10_FILES = tuple(
    f"cifar-10-batches-py/{part}"
    for part in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta")
)

DATASETS: dict[str, Source] = {
    "mnist": Source("MNIST subset", 10_000, 1_000, (1, 28, 28), _DIGITS),
    "cifar10": Source("CIFAR-10 subset", 5_000, 500, (3, 32, 32), _OBJECTS),
    "mnist-full": Source(
        "MNIST", 60_000, 10_000, (1, 28, 28), _DIGITS,
        torchvision="MNIST",
        files=_MNIST_FILES,
        archives=tuple(f"{file}.gz" for file in _MNIST_FILES),
        stand_in="mnist",
    ),
    "cifar10-full": Source(
        "CIFAR-10", 50_000, 10_000, (3, 32, 32), _OBJECTS,
        torchvision="CIFAR10",
        files=_CIFAR10_FILES,
        archives=("cifar-10-python.tar.gz",),
        stand_in="cifar10",
    ),
}  # fmt: skip


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

    def to(self, device: str | torch.device) -> ImageSet:
        """The same set with images and labels on ``device``."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def resized(self, size: int | None = None, channels: int | None = None) -> ImageSet:
        """The same set at ``size`` x ``size`` pixels, with 1 or 3 ``channels``; None leaves either as it is.

        Antialiased bilinear; an image that is not square is first cut to its central square. One channel
        becomes three by repetition, three become one by luminance (ITU-R BT.601). Raises ValueError for a
        size below 1 or another number of channels.
        """
        _check_size(size, channels)
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
        integer (N,) and, if you like, ``classes`` (names); or a folder: one sub-folder a class (a flat folder
        is one class, "all"), directly inside or inside ``train/`` and ``test/``. Where a name and a folder
        clash, the name wins: write ``./mnist`` for the folder.
    split: "train" or "test". A folder without ``test/`` and an ``.npz`` are all "train".
    size, channels: as in ``ImageSet.resized``; pictures of different sizes or modes need them.
    root: where the full sets lie or go (default: ``data_folder()``). They are fetched if they are not there;
        ``cifar10-train.npz`` and ``cifar10-test.npz`` in that folder serve for ``cifar10-full`` too, and
        likewise for MNIST.
    skip_corrupt: leave out pictures of a folder that cannot be read, with a warning that counts them.

    Raises ValueError for bad arguments and bad contents, FileNotFoundError for a path that is not there, and
    OSError when a full set cannot be fetched.
    """
    _check_split(split)
    _check_size(size, channels)
    if isinstance(source, str) and source in DATASETS:
        read = _read_full if DATASETS[source].torchvision else _read_embedded
        return read(source, split, root).resized(size, channels)
    if source == "":  # what an unset shell variable gives, and Path would take for the current folder
        raise ValueError(_unknown_name(source))
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, split, size, channels, skip_corrupt)
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise ValueError(f"{path} is neither a folder of pictures nor an .npz file")
        return _read_npz(path, split).resized(size, channels)
    if len(path.parts) > 1 or path.suffix:
        raise FileNotFoundError(f"{path} not found: expected a folder of pictures or an .npz file")
    raise ValueError(_unknown_name(str(source)) + ", or give a folder of pictures or an .npz file")


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
    what one process would. Raises ValueError at once, not at the first batch, for a batch size below 1 or
    not divisible by ``world``, a negative ``start``, or a rank outside 0..world-1.
    """
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


def data_folder(root: str | os.PathLike | None = None) -> Path:
    """Where full data sets lie: ``root``, else $DDPM_LIB_DATA, else ddpm_lib in the platform's cache."""
    chosen = root or os.environ.get("DDPM_LIB_DATA")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ddpm_lib"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "ddpm_lib"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddpm_lib"


def describe(root: str | os.PathLike | None = None) -> list[dict[str, str]]:
    """One row a named data set, all text: name, images, size, classes, source, here ("yes" or "no")."""
    return [
        {
            "name": name,
            "images": f"{known.train:,} + {known.test:,} test",
            "size": f"{known.shape[1]} x {known.shape[2]}, {'grey' if known.shape[0] == 1 else 'colour'}",
            "classes": str(len(known.classes)),
            "source": "torchvision, on first use" if known.torchvision else "in the package",
            "here": "yes" if _is_here(known, data_folder(root)) else "no",
        }
        for name, known in DATASETS.items()
    ]


def get(name: str, root: str | os.PathLike | None = None) -> Path:
    """Make sure that data set ``name`` is on this machine, and return the folder that holds it.

    Fetches a full set with a progress bar into ``data_folder(root)``, unless it is there; what is embedded
    needs nothing. The files appear in their places only when all of them are fetched, checked and unpacked.
    Archives put into the folder by hand are used instead of the network. Raises ValueError for an unknown
    name and OSError when fetching fails; the message says what to do without a network.
    """
    if name not in DATASETS:
        raise ValueError(_unknown_name(name))
    known = DATASETS[name]
    if not known.torchvision:
        return EMBEDDED
    folder = data_folder(root)
    if _is_here(known, folder):
        return folder
    reader = _torchvision(name)
    try:
        _fetch(reader, name, folder)
    except (OSError, RuntimeError, EOFError, zlib.error, HTTPException) as error:
        # Where torchvision has tried several mirrors, it tells of each; the last one's reason is enough.
        reason = " ".join(str(error).split()).rpartition("got: ")[2].strip("<>") or type(error).__name__
        stand_in = DATASETS[known.stand_in]
        raise OSError(
            f"could not fetch {name} ({reason}); without a network use --data {known.stand_in} "
            f"({stand_in.train:,} images, in the package), or put {', '.join(known.archives)} into {folder} "
            "by hand"
        ) from error
    return folder


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
    own = _own_files(known, folder)[SPLITS.index(split)]
    if own.is_file():
        return _as_named(_read_npz(own, "train"), name, split, own)
    reader = _torchvision(name)
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


def _own_files(known: Source, folder: Path) -> list[Path]:
    return [folder / f"{known.stand_in}-{split}.npz" for split in SPLITS]


def _as_named(found: ImageSet, name: str, split: str, path: Path) -> ImageSet:
    known = DATASETS[name]
    expected = (getattr(known, split), *known.shape), known.classes
    if (tuple(found.images.shape), found.classes) != expected:
        raise ValueError(
            f"{path} does not hold {name}'s {split} images: it has {tuple(found.images.shape)} of the classes "
            f"{', '.join(found.classes)}; expected {expected[0]} of {', '.join(known.classes)}"
        )
    return replace(found, name=name, split=split)


def _is_here(known: Source, folder: Path) -> bool:
    as_fetched = [folder / file for file in known.files]
    return any(all(path.is_file() for path in files) for files in (as_fetched, _own_files(known, folder)))


def _torchvision(name: str):
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another version of torch
        raise ValueError(
            f"{name} needs torchvision, which cannot be imported ({' '.join(str(error).split())}): install it "
            f"to match your torch, or use {DATASETS[name].stand_in} (in the package)"
        ) from error
    return getattr(datasets, DATASETS[name].torchvision)


def _fetch(reader, name: str, folder: Path) -> None:
    known = DATASETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as staging:
        staging = Path(staging)
        for archive in known.archives:
            if (folder / archive).is_file():
                (staging / archive).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / archive, staging / archive)
        reader(root=staging, download=True)
        for file in known.files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / file, folder / file)


def _read_npz(path: Path, split: str) -> ImageSet:
    if split == "test":
        raise ValueError(f"{path} has no test split: an .npz is all train; give the test images' own file")
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
    labels = torch.from_numpy(labels.astype("int64"))
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return ImageSet(images, labels, _class_names(path, classes, labels), str(path), split)


def _class_names(path: Path, classes, labels: Tensor) -> tuple[str, ...]:
    if classes is None:
        top = int(labels.max()) if len(labels) else 0
        if top > MOST_UNNAMED_CLASSES:
            raise ValueError(f"{path}: label {top} with no array classes to name it: is that really a class?")
        return tuple(str(n) for n in range(max(top, 0) + 1))
    if classes.ndim != 1 or classes.dtype.kind not in "Uiu":
        raise ValueError(f"{path}: classes must be a list of names, not {classes.dtype} {classes.shape}")
    return tuple(str(name) for name in classes)


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
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, TypeError) as error:
        reason = " ".join(str(error).split())
        if reason.startswith(str(path)):
            raise
        if "pickle" in reason:
            reason = "it holds pickled objects, which could run code when read: save plain arrays"
        raise ValueError(f"{path}: cannot be read as an .npz file ({reason})") from error


def _read_folder(folder: Path, split: str, size, channels, skip_corrupt: bool) -> ImageSet:
    files, labels, classes = _listed(folder, split)
    images, kept, first, skipped = None, [], None, []
    for path, label in zip(files, labels, strict=True):
        image = _decode(path)
        if image is None:
            if not skip_corrupt:
                raise ValueError(
                    f"{path} cannot be read as a picture (truncated, or no picture at all): mend or delete "
                    "it, or leave such files out with skip_corrupt=True (--skip-corrupt)"
                )
            skipped.append(path)
            continue
        image = _converted(image[None], size, channels)[0]
        if images is None:
            images, first = image.new_empty(len(files), *image.shape), path
        _check_alike(folder, first, images.shape[1:], path, image.shape)
        images[len(kept)] = image
        kept.append(label)
    if not kept:
        raise ValueError(f"{folder}: none of the {len(files)} pictures can be read, the first is {files[0]}")
    if skipped:
        warnings.warn(
            f"{folder}: left out {len(skipped)} of {len(files)} pictures that cannot be read, the first is "
            f"{skipped[0]}",
            stacklevel=3,
        )
    return ImageSet(images[: len(kept)], torch.tensor(kept), classes, str(folder), split)


def _listed(folder: Path, split: str) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Picture files, their labels and the class names; classes are numbered alike in both splits."""
    names = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    # A set that merely has a class called "train" is not split: so both, or nothing but these two.
    if names and (names >= set(SPLITS) or names <= set(SPLITS)):
        by_split = {part: _by_class(folder / part) for part in SPLITS if part in names}
    else:
        by_split = {"train": _by_class(folder)}
    if split not in by_split:
        raise ValueError(
            f"{folder} has no {split} split (only {', '.join(by_split)}): pictures for it go into "
            f"{folder / split}, those for the other into {folder / next(iter(by_split))}"
        )
    chosen = by_split[split]
    if not chosen:
        raise ValueError(
            f"{folder}: no pictures for split {split!r}; expected one sub-folder a class, or all in one "
            f"folder, of {' '.join(sorted(PICTURES))}"
        )
    classes = tuple(sorted(by_split.get("train") or chosen))
    if unknown := sorted(set(chosen) - set(classes)):
        raise ValueError(f"{folder}: {split} has classes that train lacks: {', '.join(unknown)}")
    files = [path for name in classes for path in chosen.get(name, ())]
    labels = [label for label, name in enumerate(classes) for _ in chosen.get(name, ())]
    return files, labels, classes


def _by_class(base: Path) -> dict[str, list[Path]]:
    loose = _pictures(base, base.glob("*"))
    pictures = {sub.name: _pictures(sub, sub.rglob("*")) for sub in base.iterdir() if sub.is_dir()}
    pictures = {name: files for name, files in pictures.items() if files and not name.startswith(".")}
    if loose and pictures:
        raise ValueError(
            f"{base}: pictures both inside and outside of class folders, e.g. {loose[0]}: move those into one"
        )
    return {"all": loose} if loose else pictures


def _pictures(base: Path, paths: Iterable[Path]) -> list[Path]:
    def belongs(path: Path) -> bool:
        # Hidden files and folders are what editors, notebooks and unpackers leave behind.
        hidden = any(part.startswith(".") for part in path.relative_to(base).parts)
        return path.suffix.lower() in PICTURES and not hidden and path.is_file()

    return sorted(filter(belongs, paths), key=lambda path: path.relative_to(base).as_posix())


def _decode(path: Path) -> Tensor | None:
    """uint8 (1 or 3, H, W); None if the file cannot be read. Transparent parts become white."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            picture.load()
    except (PermissionError, MemoryError):
        raise
    except Exception:  # Pillow's decoders raise almost anything on a damaged file
        return None
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        raise ValueError(
            f"{path} has more than 8 bits a channel ({picture.mode}): convert it to 8 bits first"
        )
    mode = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    if "transparency" in picture.info or picture.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    pixels = torch.from_numpy(np.array(picture.convert(mode)))
    return pixels[None] if mode == "L" else pixels.permute(2, 0, 1)


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


def _check_size(size: int | None, channels: int | None) -> None:
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ValueError(f"size {size!r} must be a whole number of pixels, at least 1 (e.g. 28, 32 or 64)")
    if channels not in (None, 1, 3) or isinstance(channels, bool):
        raise ValueError(f"channels {channels!r}: choose 1 (grey) or 3 (colour)")


def _unknown_name(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown data set {name!r}{hint}: choose from {', '.join(DATASETS)}"


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
