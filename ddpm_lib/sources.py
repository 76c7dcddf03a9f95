"""The image sets that have a name: what each is, where it lies, and how a full one comes to this machine.

``mnist`` and ``cifar10`` are subsets embedded in the package and need no network; ``mnist-full`` and
``cifar10-full`` are fetched by torchvision when they are first asked for. See ``embedded/DATA_CARD.md`` for
sources, licences and checksums. Nothing here needs torch until a full set is fetched, so that
``python -m ddpm_lib data list`` answers at once. ``ddpm_lib.data.load_images`` reads the sets.
"""

from __future__ import annotations

import difflib
import os
import shutil
import sys
import tempfile
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from .files import user_path

SPLITS = ("train", "test")
EMBEDDED = Path(__file__).parent / "embedded"


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

    @property
    def shipped(self) -> bool:
        """Whether the set is in the package."""
        return not self.torchvision

    def own_files(self, folder: Path) -> dict[str, Path]:
        """Split -> the ``.npz`` in a folder that serves for this full set as well as torchvision's files do."""
        return {split: folder / f"{self.stand_in}-{split}.npz" for split in SPLITS}

    def is_in(self, folder: Path) -> bool:
        """Whether the set can be read without a network: from the package, or from this cache folder."""
        as_fetched = [folder / file for file in self.files]
        return self.shipped or any(
            all(path.is_file() for path in files) for files in (as_fetched, self.own_files(folder).values())
        )


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


def data_folder(root: str | os.PathLike | None = None) -> Path:
    """Where full data sets lie: ``root``, else $DDPM_LIB_DATA, else ddpm_lib in the platform's cache.

    Raises ValueError where the system knows no home folder and none of these says where to look.
    """
    chosen = root or os.environ.get("DDPM_LIB_DATA")
    if chosen:
        return user_path(chosen)
    try:
        return user_path(_cache()) / "ddpm_lib"
    except ValueError as error:
        raise ValueError(
            "no folder for data sets: this system knows no home folder. Say where they lie or may go with "
            "$DDPM_LIB_DATA, or with root=... (--data-root ...)"
        ) from error


def describe(root: str | os.PathLike | None = None) -> list[dict[str, str]]:
    """One row a named data set, all text: name, images, size, classes, source, here ("yes" or "no").

    Raises ValueError as ``data_folder`` does.
    """
    folder = data_folder(root)
    return [
        {
            "name": name,
            "images": f"{known.train:,} + {known.test:,} test",
            "size": f"{known.shape[1]} x {known.shape[2]}, {'grey' if known.shape[0] == 1 else 'colour'}",
            "classes": str(len(known.classes)),
            "source": "in the package" if known.shipped else "torchvision, on first use",
            "here": "yes" if known.is_in(folder) else "no",
        }
        for name, known in DATASETS.items()
    ]


def get(name: str, root: str | os.PathLike | None = None) -> Path:
    """Make sure that data set ``name`` is on this machine, and return the folder that holds it.

    Fetches a full set with a progress bar into ``data_folder(root)``, unless it is there; what is embedded
    needs nothing. The files appear in their places only when all of them are fetched, checked and unpacked.
    Archives put into the folder by hand are used instead of the network. Raises ValueError for an unknown
    name, or as ``data_folder`` does, and OSError when fetching fails; the message says what to do without a
    network.
    """
    if name not in DATASETS:
        raise ValueError(unknown_name(name))
    known = DATASETS[name]
    if known.shipped:
        return EMBEDDED
    folder = data_folder(root)
    if known.is_in(folder):
        return folder
    reader = torchvision_reader(name)
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


def torchvision_reader(name: str):
    """The class of ``torchvision.datasets`` that reads full set ``name``.

    Raises ValueError if torchvision cannot be imported.
    """
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another version of torch
        raise ValueError(
            f"{name} needs torchvision, which cannot be imported ({' '.join(str(error).split())}): install it "
            f"to match your torch, or use {DATASETS[name].stand_in} (in the package)"
        ) from error
    return getattr(datasets, DATASETS[name].torchvision)


def unknown_name(name: str) -> str:
    """What to tell whoever asks for a data set of a name that is not in ``DATASETS``."""
    close = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown data set {name!r}{hint}: choose from {', '.join(DATASETS)}"


def _cache() -> str:
    """Where this platform's programs keep what they can fetch again; ~ is the home folder."""
    if sys.platform == "darwin":
        return "~/Library/Caches"
    if sys.platform == "win32":
        return os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    return os.environ.get("XDG_CACHE_HOME") or "~/.cache"


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
