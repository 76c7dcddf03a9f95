"""The judges of pictures: the classifier in the package, or Inception, as functions of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import metrics
from .checkpoint import CheckpointError
from .classifier import shipped_classifier
from .data import ImageSet, to_float

FEATURES = ("classifier", "inception")


@dataclass(frozen=True, eq=False)
class Judge:
    """What looks at images, uint8 (N, C, H, W) of any size.

    features: images -> Features; dims: their D; extractor: their name. verdicts: images -> logits (N, K), one for
    each of classes; None if no classifier knows the model's. frechet, kernel: what the two distances are
    called. about: what it is, for the reader.
    """

    features: Callable[[Tensor], metrics.Features]
    dims: int
    extractor: str
    classes: tuple[str, ...]
    verdicts: Callable[[Tensor], Tensor] | None
    frechet: str
    kernel: str
    about: str


def make_judge(features: str, classes: Iterable[str], device: str | torch.device = "cpu") -> Judge:
    """The judge for --features: the shipped classifier for these classes, or Inception.

    Raises ValueError for another name, CheckpointError if there is no classifier for the classes and it is
    needed for features, and what metrics.inception_features raises.
    """
    if features not in FEATURES:
        raise ValueError(f"unknown features {features!r}: choose from {', '.join(FEATURES)}")
    classes = tuple(classes)
    if features == "classifier":
        return _classifier_judge(classes)
    try:
        known = _classifier_judge(classes)
        verdicts, known_as = known.verdicts, known.about.replace("features and verdicts", "verdicts")
    except CheckpointError as error:
        verdicts, known_as = None, f"no label accuracy: {error}"

    def look(images: Tensor) -> metrics.Features:
        return metrics.inception_features(images, device=device)

    # one grey image, so that a missing package or missing weights are known before anything is drawn
    dims = look(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).values.shape[1]
    about = f"features: {metrics.INCEPTION} as ported by torch-fidelity, {dims} dimensions\n{known_as}"
    return Judge(look, dims, metrics.INCEPTION, classes, verdicts, "FID", "KID", about)


def _classifier_judge(classes: tuple[str, ...]) -> Judge:
    net, known = shipped_classifier(classes)
    name = f"classifier {known['name']}"

    def through(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], metrics.Features]:
        def look(images: Tensor) -> metrics.Features:
            view = _resized(images, net.config.size, net.config.channels)
            return metrics.extract(view, lambda part: function(to_float(part)), name)

        return look

    about = (
        f"features and verdicts: classifier {known['name']!r}, {known['test_accuracy']:.2%} right on "
        f"{known['test_images']:,} test images"
    )
    verdicts = through(net)
    return Judge(
        through(net.features), net.head.in_features, name, classes, lambda images: verdicts(images).values,
        "Fréchet distance", "kernel distance", about,
    )  # fmt: skip


def _resized(images: Tensor, size: int, channels: int) -> Tensor:
    labels = torch.zeros(len(images), dtype=torch.long)
    return ImageSet(images, labels, ("all",), "images", "train").resized(size, channels).images
