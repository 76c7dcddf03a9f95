"""What a folder of pictures means: which file is in which class and split, what is left out and why.

``listed`` decides, and what it had to guess or left out it says in one line; ``read_picture`` reads one file.
Nothing here needs torch.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .files import CHECKPOINT, user_path

PICTURES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .tga .avif .jp2 .j2k".split()
)
"""The suffixes that are read where this Pillow can: see ``readable``."""

# Pictures to whoever made them, which Pillow cannot read, or not without a program beside it.
FOREIGN = frozenset(
    ".heic .heif .hif .jxl .svg .psd .xcf .cr2 .cr3 .nef .arw .dng .orf .raf .rw2 .pef .srw .raw".split()
)
# What lies beside pictures in good order: captions, tables, licences, thumbnails, what a run of ours writes.
COMPANIONS = frozenset(
    ".txt .caption .json .jsonl .csv .tsv .xml .yaml .yml .md .rst .html .ini .db .safetensors".split()
)
COMPANION_NAMES = frozenset("readme license licence copying notice citation".split())
# What unpackers and storage systems leave behind, as invisible to people as what begins with a dot.
LITTER = frozenset(("__macosx", "@eadir"))

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "val"
)
IMAGE_NAMES = frozenset("image images img imgs jpegimages photo photos picture pictures input inputs".split())
MASK_NAMES = frozenset(
    "mask masks label labels annotation annotations segmentation segmentations seg groundtruth gt "
    "segmentationclass segmentationobject".split()
)
# Of more names than this, the rest are only counted.
MOST_NAMES = 8


# What else is left out, beside files of other suffixes, and what to say of it.
BROKEN, LINKED, RUN, NAMELESS, SPECIAL = "broken link", "linked folder", "training run", "", "special file"
WHY = {
    BROKEN: "{n} broken link{s} (the first is {first})",
    LINKED: "{n} linked sub-folder{s} (not followed, the first is {first})",
    RUN: "{n} folder{s} of training runs (pictures drawn by a model, the first is {first})",
    NAMELESS: "{n} file{s} without a suffix (the first is {first}: if it is a picture, name it .png or the like)",
    SPECIAL: "{n} special file{s} (the first is {first})",
}

# A damaged file of a few bytes may ask for gigabytes. No format packs pixels closer than this, but for a single
# colour; below 16 megapixels the time and the memory do no harm.
MOST_PIXELS_A_BYTE, NEVER_TOO_MANY = 10_000, 16_000_000


class NoSplit(ValueError):
    """A data set has no pictures for a split, "test" for instance."""


class Damaged(ValueError):
    """No picture can be read from this file; the message says what to do. ``skip_corrupt`` leaves it out."""


class Refused(ValueError):
    """A picture that is sound, perhaps, but is not taken: too large, or of more than 8 bits a channel."""


@dataclass(frozen=True)
class Listing:
    """The pictures of one split.

    labels: one a file, in 0..len(classes)-1. said: one line on what was left out and what was guessed, empty
    if there is nothing to say.
    """

    files: list[Path]
    labels: list[int]
    classes: tuple[str, ...]
    said: str


def listed(folder: str | os.PathLike, split: str) -> Listing:
    """What a folder holds for a split, "train" or "test".

    Each sub-folder with pictures is a class, and what lies in folders below it belongs to it; a folder with
    pictures and no such sub-folder is one class, "all". If the sub-folders are called train, val or test, or
    alike, they are splits; val is the test split where there is no other. Classes are in alphabetical order
    and numbered alike in both splits. Runs of this library are left out, and so is what Pillow cannot read.

    Raises NoSplit for a split that is not there, and ValueError if there is nothing to read and for layouts
    that could mean several things: pictures beside class folders, folders of folders, pictures beside masks.
    """
    folder = user_path(folder)
    top = _look(folder, links=2)
    parts, said = _splits(top)
    part = parts.get(split)
    if left_out := _told(_left_out(top, part), folder):
        left_out = f"left out {left_out}"
        said.insert(0, left_out)
    if not top.count:
        raise ValueError(
            f"{folder}: no pictures for split {split!r}; expected one sub-folder a class, or all in one "
            f"folder, of {' '.join(sorted(readable()))}" + (left_out and f"; {left_out}")
        )
    known = _classes(parts["train"]) if "train" in parts else {}
    if part is None:
        other = next(iter(parts.values())).path
        raise NoSplit(
            f"{folder} has no {split} split (only {', '.join(parts)}): pictures for it go into "
            f"{folder / split}, those for the other into {folder / 'train' if other == folder else other}"
            + (left_out and f"; {left_out}")
        )
    chosen = known if split == "train" else _classes(part)
    classes = tuple(sorted(known or chosen))
    if unknown := sorted(set(chosen) - set(classes)):
        loose = ": its pictures lie in no class folder" if unknown == ["all"] else ""
        raise ValueError(f"{folder}: {split} has classes that train lacks: {', '.join(unknown)}{loose}")
    if part not in chosen.values():  # or it is one class itself
        said += _remarks(part)
    files = {name: chosen[name].all_pictures() if name in chosen else [] for name in classes}
    return Listing(
        [path for name in classes for path in files[name]],
        [label for label, name in enumerate(classes) for _ in files[name]],
        classes,
        "; ".join(said),
    )


def read_picture(path: Path):
    """The pixels as a NumPy array, uint8 (H, W, 1 or 3), upright. Transparent parts become white.

    Raises Damaged if no picture can be read from the file, Refused if it is too large or has more than 8 bits
    a channel, and PermissionError.
    """
    import numpy as np
    from PIL import Image

    try:
        # What Pillow grumbles about and reads all the same, large pictures among it, is no cause for alarm.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = np.array(_opened(path))
    except (PermissionError, Refused):
        raise
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise Refused(
            f"{path} has {f'{int(found[1]) / 1e6:,.0f}' if found else 'too many'} megapixels; at most "
            f"{2 * Image.MAX_IMAGE_PIXELS / 1e6:,.0f} are read: shrink it, or delete it if it is damaged"
        ) from error
    except MemoryError as error:
        raise Refused(f"{path} needs more memory than there is: shrink it") from error
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file
        raise Damaged(
            f"{path} cannot be read as a picture (truncated, or no picture at all): mend or delete "
            "it, or leave such files out with skip_corrupt=True (--skip-corrupt)"
        ) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


@functools.cache
def readable() -> frozenset[str]:
    """Those of ``PICTURES`` that the Pillow of this machine can read."""
    return frozenset(suffix for suffix in PICTURES if _format(suffix))


def _format(suffix: str) -> str | None:
    """Pillow's name for what files of this suffix hold, None if it cannot read that here."""
    from PIL import Image, features

    name = Image.registered_extensions().get(suffix)
    if name == "JPEG2000" and not features.check("jpg_2000"):  # registered all the same
        return None
    return name


# --- reading ---------------------------------------------------------------------------------------


@functools.cache
def _formats(suffix: str) -> list[str]:
    """What may be inside a file of this suffix, in Pillow's names: any format that is read, whatever it says.

    Not all that Pillow knows: it would start other programs for some. And a TGA has no mark of its own, so
    that it would be seen in many a damaged file of another kind.
    """
    if _format(suffix) == "TGA":
        return ["TGA"]
    return sorted({_format(other) for other in readable()} - {"TGA"})


def _opened(path: Path):
    """A Pillow image of mode "L" or "RGB"; raises what Pillow raises, and Refused for deep pixels."""
    from PIL import Image, ImageOps

    with Image.open(path, formats=_formats(path.suffix.lower())) as picture:
        if picture.width * picture.height > max(NEVER_TOO_MANY, MOST_PIXELS_A_BYTE * path.stat().st_size):
            raise OSError("a size of the picture that its file is too short for")
        ImageOps.exif_transpose(picture, in_place=True)
        picture.load()
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        raise Refused(f"{path} has more than 8 bits a channel ({picture.mode}): convert it to 8 bits first")
    mode = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    if "transparency" in picture.info or picture.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture if picture.mode == mode else picture.convert(mode)


# --- looking ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Folder:
    """A folder as it lies on the disk, without what is hidden. left_out: (a key of ``WHY`` or a suffix, path)."""

    path: Path
    pictures: list[Path]
    folders: list[_Folder]
    left_out: list[tuple[str, Path]]

    def walk(self) -> Iterator[_Folder]:
        """This folder and all below."""
        yield self
        for sub in self.folders:
            yield from sub.walk()

    @functools.cached_property
    def count(self) -> int:
        """The number of pictures here and below."""
        return sum(len(folder.pictures) for folder in self.walk())

    @property
    def filled(self) -> list[_Folder]:
        """The sub-folders with pictures in them or below."""
        return [sub for sub in self.folders if sub.count]

    def everything_left_out(self) -> list[tuple[str, Path]]:
        """What was left out here and below."""
        return [left_out for folder in self.walk() for left_out in folder.left_out]

    def all_pictures(self) -> list[Path]:
        """The pictures here and below, in the order of their paths."""
        pictures = [picture for folder in self.walk() for picture in folder.pictures]
        return sorted(pictures, key=lambda picture: picture.relative_to(self.path).as_posix())


def _look(path: Path, links: int) -> _Folder:
    """Looks into a folder and those below. links: on how many levels linked folders are followed, which are
    meant to be splits or classes; below that, none is."""
    pictures, folders, left_out = [], [], []
    in_run = _is_run(path)
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name.lower() in LITTER:
            continue
        found = path / entry.name
        if entry.is_symlink() and not found.exists():
            left_out.append((BROKEN, found))
        elif entry.is_dir():
            if entry.is_symlink() and not (links and _leads_away(found)):
                left_out.append((LINKED, found))
            elif _is_run(found) or (in_run and entry.name == "samples"):
                left_out.append((RUN, found))
            else:
                folders.append(_look(found, links - 1 if links and _split_of(found) else 0))
        elif not entry.is_file():
            left_out.append((SPECIAL, found))
        elif found.suffix.lower() in readable():
            pictures.append(found)
        elif found.suffix.lower() not in COMPANIONS and found.name.lower() not in COMPANION_NAMES:
            left_out.append((found.suffix.lower(), found))
    return _Folder(path, pictures, folders, left_out)


def _leads_away(link: Path) -> bool:
    """Whether a linked folder is elsewhere, and not one of those that the link lies in."""
    return link.resolve() not in (folder.resolve() for folder in link.parents)


def _is_run(path: Path) -> bool:
    """Whether ``python -m ddpm_lib train`` wrote this folder: its samples are no pictures to train on."""
    has_log = (path / "log.jsonl").is_file() and (path / "samples").is_dir()
    return has_log or (path / CHECKPOINT).is_file()


# --- deciding --------------------------------------------------------------------------------------


def _split_of(path: Path) -> str | None:
    """ "train", "val" or "test" if a folder is called so in one of the usual ways: Train, test_set, val-images."""
    return SPLIT_NAMES.get(re.sub(r"[ _-]?(set|data|images)$", "", path.name.lower()))


def _splits(top: _Folder) -> tuple[dict[str, _Folder], list[str]]:
    """Split -> its folder, and what was guessed. A folder that is not split is its train split."""
    named, others = {}, []
    for sub in top.filled:
        if kind := _split_of(sub.path):
            named.setdefault(kind, []).append(sub)
        else:
            others.append(sub)
    # A set that merely has a class called "train" is not split: so two of them, or nothing else.
    if not named or (others and not ("train" in named and len(named) > 1)):
        likely = [sub for subs in named.values() for sub in subs]
        return {"train": top}, [f"{_sized(sub)} is taken for a class, like those beside it" for sub in likely]
    for subs in named.values():
        if len(subs) > 1:
            names = " and ".join(sub.path.name for sub in subs)
            raise ValueError(f"{top.path}: {names} are the same split: make them one folder")
    parts = {kind: named[kind][0] for kind in ("train", "test") if kind in named}
    said, val = [], named.get("val", [None])[0]
    if val and "test" in parts:
        said.append(f"{_sized(val)} is not used: {parts['test'].path.name}/ is the test split")
    elif val:
        parts["test"] = val
        said.append(f"{_sized(val)} is taken for the test split")
    used = " and ".join(f"{sub.path.name}/" for sub in parts.values())
    if others:
        said.append(f"{_some([_sized(sub) for sub in others])} beside {used}: not used")
    if loose := top.pictures:
        said.append(f"{_counted(len(loose), 'picture')} beside {used}, e.g. {loose[0].name}: not used")
    return parts, said


def _classes(base: _Folder) -> dict[str, _Folder]:
    """Class -> its folder, in one split. Raises ValueError if the folders below could mean something else."""
    subs = base.filled
    if base.pictures and subs:
        raise ValueError(
            f"{base.path}: pictures both inside and outside of class folders, e.g. {base.pictures[0]}: move "
            "those into one"
        )
    if base.pictures:
        return {"all": base}
    images = [sub for sub in subs if sub.path.name.lower() in IMAGE_NAMES]
    masks = [sub for sub in subs if sub.path.name.lower() in MASK_NAMES]
    if images and masks:
        raise ValueError(
            f"{base.path}: {_sized(masks[0])} looks like masks or labels of {_sized(images[0])}, not like a "
            f"class: to train on the pictures alone give {images[0].path} (--data {images[0].path})"
        )
    if hollow := [sub for sub in subs if not sub.pictures]:
        # the largest: seg_train/ rather than seg_test/
        raise ValueError(_too_deep(base, max(hollow, key=lambda sub: sub.count)))
    return {sub.path.name: sub for sub in subs}


def _too_deep(base: _Folder, deep: _Folder) -> str:
    inside = _some([sub.path.name for sub in deep.filled])
    below = f"{deep.path.name}/ holds no pictures itself, but folders of pictures ({inside})"
    if len(base.filled) == 1:
        while len(deep.filled) == 1 and not deep.filled[0].pictures:
            deep = deep.filled[0]
        return f"{base.path}: {below}: give {deep.path} instead (--data {deep.path})"
    return (
        f"{base.path}: {below}: give one such folder, e.g. {deep.path} (--data {deep.path}), or, if "
        f"{deep.path.name} is a class, move its pictures up into {deep.path}"
    )


# --- saying ----------------------------------------------------------------------------------------


def _remarks(part: _Folder) -> Iterator[str]:
    """On class folders that are not as simple as they should be."""
    if deeper := [sub for sub in part.filled if len(sub.pictures) < sub.count]:
        below = [f"{sub.count - len(sub.pictures)} of {_sized(sub)}" for sub in deeper]
        yield f"taken from folders below: {_some(below)}"
    # A folder with nothing but a run in it is told among what is left out.
    bare = [sub for sub in part.folders if not sub.count and RUN not in dict(sub.everything_left_out())]
    if bare:
        yield f"without a picture, so no class: {_some([sub.path.name for sub in bare])}"


def _left_out(top: _Folder, part: _Folder | None) -> Iterator[tuple[str, Path]]:
    """What was left out, but for what lies in the splits that were not asked for."""
    yield from top.left_out
    for sub in top.folders:
        if part is top or part is sub or not sub.count:
            yield from sub.everything_left_out()


def _told(left_out: Iterable[tuple[str, Path]], folder: Path) -> str:
    """Like "3 .heic (Pillow cannot read them: ...), 2 broken links (the first is ...)"; empty if all was taken."""
    groups: dict[str, list[Path]] = {}
    for kind, path in left_out:
        groups.setdefault(kind, []).append(path)
    told, foreign, other = [], [], []
    for kind, paths in sorted(groups.items(), key=lambda group: -len(group[1])):
        if kind in WHY:
            first, plural = paths[0].relative_to(folder), "" if len(paths) == 1 else "s"
            told.append(WHY[kind].format(n=f"{len(paths):,}", s=plural, first=first))
        else:
            (foreign if kind in FOREIGN | PICTURES else other).append(f"{len(paths):,} {kind}")
    if foreign:
        told.insert(0, f"{_some(foreign)} (Pillow cannot read them: convert to .png or .jpg)")
    if other:
        told.append(f"{_some(other)} (not read)")
    return ", ".join(told)


def _sized(sub: _Folder) -> str:
    return f"{sub.path.name}/ ({_counted(sub.count, 'picture')})"


def _some(names: list[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
