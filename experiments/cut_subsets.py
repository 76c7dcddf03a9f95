"""Cut the embedded subsets of MNIST and CIFAR-10 from the full sets.

    python experiments/cut_subsets.py --mnist ROOT --cifar10 ROOT_OR_FOLDER

MNIST is read from torchvision's layout (ROOT/MNIST/raw). CIFAR-10 is read from torchvision's layout
(ROOT/cifar-10-batches-py), from a folder with cifar10-train.npz and cifar10-test.npz (images, labels,
classes), or from a folder of pictures (train/ and test/, one sub-folder a class). Prints what the data card
records; the pixels, and so the checksums, do not depend on which layout of CIFAR-10 was read.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ddpm_lib.data import DATASETS, EMBEDDED, SPLITS, ImageSet, load_images

PER_ROW = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", metavar="ROOT", help="folder that holds MNIST/raw")
    parser.add_argument(
        "--cifar10", metavar="ROOT", help="folder that holds CIFAR-10, in any of the three layouts"
    )
    parser.add_argument(
        "--out", type=Path, default=EMBEDDED, help="where the mosaics go (default: %(default)s)"
    )
    args = parser.parse_args()
    if not (args.mnist or args.cifar10):
        parser.error("nothing to cut: give --mnist, --cifar10 or both")
    args.out.mkdir(parents=True, exist_ok=True)
    print("| file | images | bytes | sha256 of the decoded pixels |\n| --- | --- | --- | --- |")
    for split in SPLITS:
        if args.mnist:
            write(
                "mnist", split, cut_mnist(load_images("mnist-full", split, root=args.mnist), split), args.out
            )
    for split in SPLITS:
        if args.cifar10:
            write("cifar10", split, cut_cifar10(read_cifar10(Path(args.cifar10), split), split), args.out)


def cut_mnist(full: ImageSet, split: str) -> Tensor:
    """Evenly spaced in the file's order, because the first half of MNIST's test set is the easier one."""
    count = getattr(DATASETS["mnist"], split) // 10
    return interleaved([by_digest(spaced(full.images[full.labels == label], count)) for label in range(10)])


def cut_cifar10(full: ImageSet, split: str) -> Tensor:
    """Evenly spaced in the order of the pixels' digests, which every copy of CIFAR-10 shares."""
    known = DATASETS["cifar10"]
    if full.classes != known.classes or full.images.shape[1:] != known.shape:
        sys.exit(f"{full.name}: not CIFAR-10: classes {full.classes}, images {tuple(full.images.shape)}")
    count = getattr(known, split) // 10
    return interleaved([spaced(by_digest(full.images[full.labels == label]), count) for label in range(10)])


def spaced(images: Tensor, count: int) -> Tensor:
    """The middles of ``count`` equal stretches."""
    return images[(torch.arange(count) * 2 + 1) * len(images) // (2 * count)]


def by_digest(images: Tensor) -> Tensor:
    digests = [hashlib.sha256(image.numpy().tobytes()).digest() for image in images]
    return images[sorted(range(len(images)), key=digests.__getitem__)]


def interleaved(classes: list[Tensor]) -> Tensor:
    """Image i has label i % 10, so that no label file is needed and any first rows show every class."""
    return torch.stack(classes, dim=1).flatten(0, 1)


def read_cifar10(root: Path, split: str) -> ImageSet:
    if (root / "cifar-10-batches-py").is_dir():
        return load_images("cifar10-full", split, root=root)
    npz = root / f"cifar10-{split}.npz"
    return load_images(npz) if npz.is_file() else load_images(root, split)


def write(name: str, split: str, images: Tensor, out: Path, effort: int = 6) -> None:
    count, c, h, w = images.shape
    mosaic = images.reshape(-1, PER_ROW, c, h, w).permute(0, 3, 1, 4, 2).reshape(-1, PER_ROW * w, c)
    path = out / f"{name}-{split}.webp"
    picture = Image.fromarray(mosaic.expand(-1, -1, 3).contiguous().numpy())
    picture.save(path, lossless=True, quality=100, method=effort, exact=True)
    digest = hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()
    print(f"| `{path.name}` | {count:,} | {path.stat().st_size:,} | `{digest}` |", flush=True)


if __name__ == "__main__":
    main()
