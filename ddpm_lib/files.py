"""Files as the rest writes them: whole or not at all, never over what was read, one process at a time; and where models lie.

Nothing here needs torch, so that the command line can answer at once.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

MODELS = Path(__file__).parent / "models"
CHECKPOINT = "checkpoint.safetensors"
"""The name of the model in a run's folder."""
MADE = (".png", ".gif", ".webp", ".npz")
"""What is drawn, and would be taken for a picture to learn from where pictures lie."""


def write_whole(path: str | os.PathLike, write: Callable[[str], object]) -> None:
    """Calls write with a temporary name beside path, flushes it to disk and renames it to path.

    Either path is complete or it is as it was; who may read it is as the system's umask says. Raises OSError that
    says so if writing fails.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o666))
        mode = part.stat().st_mode
        write(str(part))
        os.chmod(
            part, mode
        )  # safetensors puts a file of its own in this one's place, which only its owner may read
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except Exception as error:
        # safetensors has an exception of its own for a full disk, which is no OSError
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        kept = f"the file that was there is untouched: {path}" if path.exists() else "nothing was written"
        raise OSError(
            f"could not write {path} ({error}); {kept}. Free some space or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def leftovers(*paths: Path) -> Iterator[Path]:
    """What write_whole leaves beside these paths, whose names may be patterns, when its process is killed."""
    for path in paths:
        yield from path.parent.glob(f".{path.name}.????????*")


def keep_apart(
    option: str, out: str | os.PathLike | None, inputs: Iterable[str | os.PathLike | None]
) -> None:
    """Raises ValueError if an output would take the place of an input, of a picture among inputs, or of a run's checkpoint."""
    if out is None:
        return
    path = user_path(out)
    if path.is_dir():
        raise ValueError(f"{option} {out} is a folder: give the name of a file")
    if path.name == CHECKPOINT and path.exists():
        raise ValueError(f"{option} {out} would overwrite the checkpoint of a run: give another name")
    for read in map(user_path, filter(None, inputs)):
        if path.resolve() == read.resolve() or (path.exists() and read.exists() and path.samefile(read)):
            raise ValueError(
                f"{option} {out} would overwrite {read}, which this command reads: give another name"
            )
        if read.is_dir() and path.suffix in MADE and path.resolve().is_relative_to(read.resolve()):
            raise ValueError(f"{option} {out} lies among the pictures of {read}: give a name outside")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder for this process. Raises ValueError if another one holds it. A killed process holds nothing."""
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(
            f"{folder}: another process is at work in this folder: wait for it, or choose another folder"
        ) from None
    try:
        yield
    finally:
        # before the release: whoever waits for this file sees that it is gone, and makes a new one
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def shipped() -> dict[str, Path]:
    """Name -> file of the models in the package."""
    return {path.stem: path for path in sorted(MODELS.glob("*.safetensors"))}


def model_file(name: str | os.PathLike) -> Path:
    """The file behind a model's name: a shipped model, a run's folder, or a file. It need not be there."""
    path = user_path(name)
    if not path.exists() and str(name) in shipped():
        return shipped()[str(name)]
    return path / CHECKPOINT if path.is_dir() else path


def user_path(path: str | os.PathLike) -> Path:
    """The path with ~ as the user's home. Raises ValueError where the system knows no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{path}: this system knows no home folder for ~ ({error}): give a whole path"
        ) from error
