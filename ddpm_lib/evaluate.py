"""How a model is measured: its samples and its bound, beside real images that it was not trained on.

`evaluate` draws the samples and measures them. A row is one metric; an evaluation is what was asked and all its rows,
in the form that ``--json`` writes, the results ledger keeps and a model file may hold.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from . import metrics
from .checkpoint import Checkpoint
from .data import DATASETS, ImageSet, NoSplit, load_images, to_float
from .draw import asked_labels, check, draw, recommended
from .judge import Judge, make_judge

ASKED = ("count", "sampler", "steps", "scale", "eta", "seed", "features", "reference")
"""What decides the numbers of an evaluation, besides the model."""
NEAREST_SAMPLES = 1000
NEIGHBOURS = 5
BOUND_DRAWS = 10
"""Steps of the chain that the bound looks at for each image; what differs between images outweighs the rest."""
CLOSE = 0.02
"""Two values without intervals agree if they are no further apart: shares of 1,000 vary by up to 0.016."""


@dataclass(frozen=True)
class Row:
    """One metric of the samples: value, 95 % interval (or None), and the same of real test images (or None)."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    real: float | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was asked, what was found, and how long it took.

    asked: what decides the numbers, see ASKED, and "bits" and "interval"; recommended: those of it that the model file
    recommends; train, test: the real images, test None where the set has none; seconds, drawing: in all, and of drawing.
    """

    asked: dict
    rows: list[Row]
    recommended: list[str]
    judge: Judge
    train: ImageSet
    test: ImageSet | None
    seconds: float
    drawing: float

    def result(self) -> dict:
        """In the form of ``--json``."""
        return {
            **self.asked,
            "metrics": [asdict(row) for row in self.rows],
            "seconds": round(self.seconds, 1),
        }

    def about(self) -> str:
        """What the numbers are, in words."""
        count, source = self.asked["count"], self.asked["reference"]
        if self.test is None:
            real = f"real: {source} has no test images, so nothing real is measured beside the samples"
        else:
            real = f"real: {min(count, len(self.test))} test images of {source}, measured in the same way"
        return (
            f"{real}; {'both ' * (self.test is not None)}against its {len(self.train):,} training images, brought to the "
            "samples' size\n"
            "nearest distance: median over samples of the root mean square distance to the nearest training image\n"
            f"{below_zero(self.rows, self.judge.kernel)}{self.judge.about}\n"
            f"measured in {self.seconds:.0f} s, of which drawing the samples took {self.drawing:.0f} s"
        )


def evaluate(
    model: Checkpoint,
    source: str | None = None,
    *,
    data_root: str | os.PathLike | None = None,
    skip_corrupt: bool = False,
    features: str = "classifier",
    count: int = 1000,
    bits: int = 0,
    seed: int = 0,
    eta: float | None = None,
    batch_size: int = 64,
    progress: bool = False,
    **asked: object,
) -> Evaluation:
    """Draws count samples of a model and measures them beside real images.

    source: of the real images; None for those that the model was trained on, read as the run read them (the embedded
    subset for a full set). asked: sampler, steps, scale and interval that the model file shall not decide. bits: test
    images of which the bits per dimension are bounded as well.

    Raises ValueError, before anything is drawn, for what cannot be measured: pictures of other classes than the run was
    trained on, too few images for the features, no classifier that knows the classes.
    """
    began = time.monotonic()
    how, theirs = recommended(model, asked)
    check(count, batch_size, seed, how["sampler"], eta)
    train, test = _real(model, source, data_root, skip_corrupt)
    device = next(model.net.parameters()).device
    judge = make_judge(features, model.classes or train.classes, device)
    reference = source or stand_in(model.data["source"])
    known = 0 if test is None else len(test)
    if not 0 <= bits <= known:
        choices = (
            f"choose 0 to {known}, the number of test images" if known else "there are no test images here"
        )
        raise ValueError(f"--bits {bits}: {choices}")
    if min(count, len(train)) <= judge.dims:
        few = f"--count {count}" if count <= judge.dims else f"{reference}, with {len(train)} images,"
        raise ValueError(
            f"{few} is too small: the features have {judge.dims} dimensions, so take at least "
            f"{judge.dims + 1}, better {max(1000, 10 * judge.dims):,}"
        )
    settled = {"count": count, **how, "eta": eta, "seed": seed, "features": judge.extractor}
    settled |= {"reference": reference, "bits": bits}
    stored_rows(model, settled)  # a file whose metrics cannot be read is better known now

    labels = asked_labels(model, None, count)
    if labels is not None and list(train.classes) == list(model.classes):
        labels = labels_like(train.labels, count)
    images = draw(model, count, labels, **how, seed=seed, eta=eta, progress=progress, batch_size=batch_size)
    drawn = time.monotonic()
    rows = measure(images, labels, train, test, judge)
    if bits:
        rows.append(bits_row(model, test, bits, seed))
    seconds = time.monotonic() - began
    return Evaluation(settled, rows, theirs, judge, train, test, seconds, drawn - began)


def _real(
    model: Checkpoint, source: str | None, data_root, skip_corrupt: bool
) -> tuple[ImageSet, ImageSet | None]:
    """Training and test images, at the model's size; no test images where the set has none."""
    own = model.data.get("source", "")
    settings = model.provenance.get("settings", {})
    if source is None and not own:
        raise ValueError("the model does not say what it was trained on: give --data")
    read = {"size": model.net.config.image_size, "channels": model.net.config.channels}
    if source is None:
        read |= {"root": data_root or settings.get("data_root")}
        read |= {"skip_corrupt": skip_corrupt or settings.get("skip_corrupt", False)}
        source = stand_in(own)
    else:
        read |= {"root": data_root, "skip_corrupt": skip_corrupt}
    train = load_images(source, "train", **read)
    was = model.data.get("classes", [])
    if source == stand_in(own) and was and list(train.classes) != list(was):
        raise ValueError(
            f"{source} has the classes {', '.join(train.classes)}, and the model was trained on {', '.join(was)}: bring the "
            "pictures back, or name others with --data"
        )
    try:
        return train, load_images(source, "test", **read)
    except NoSplit:
        return train, None


def stand_in(source: str) -> str:
    """The set embedded in the package that stands for a full one, so that all readers compare with the same."""
    known = DATASETS.get(source)
    return known.stand_in if known and known.stand_in else source


def labels_like(labels: Tensor, count: int) -> Tensor:
    """(count,) labels in the proportions of labels (N,), to the nearest whole number, each spread evenly.

    Samples with as many of each class as of any other differ by that alone from real images whose classes differ
    in size, as those of the full MNIST do.
    """
    exact = labels.bincount().double() * count / len(labels)
    often = exact.floor().long()
    most_cut_off = (exact - often).argsort(descending=True, stable=True)
    often[most_cut_off[: count - int(often.sum())]] += 1
    names = torch.arange(len(often)).repeat_interleave(often)
    places = torch.cat([(torch.arange(n) + 0.5) / max(n, 1) for n in often.tolist()])
    return names[places.argsort(stable=True)]


def measure(
    images: Tensor, labels: Tensor | None, train: ImageSet, test: ImageSet | None, judge: Judge
) -> list[Row]:
    """Rows for samples (N, C, H, W) uint8, asked for as labels (N,) or None, beside up to N real test images.

    Real images are brought to the samples' size first. Distances and support are taken to the training
    images; test images take the samples' place for a row's real value, where there are enough of them. Without test
    images (None) no row has a real value.
    """
    train = train.resized(images.shape[-1], images.shape[1])
    held_out = (
        images[:0] if test is None else test.resized(images.shape[-1], images.shape[1]).images[: len(images)]
    )
    reference, found = (judge.features(each) for each in (train.images, images))
    real = judge.features(held_out) if len(held_out) else None
    enough = real is not None and len(real) > judge.dims
    kernel, error = metrics.kernel_distance(found, reference, groups=labels)
    return [
        *_label_rows(images, labels, held_out, test, judge),
        Row(
            judge.frechet,
            metrics.frechet_distance(found, reference),
            metrics.bootstrap_interval(
                lambda sample: metrics.frechet_distance(sample, reference), found, groups=labels
            ),
            metrics.frechet_distance(real, reference) if enough else None,
        ),
        Row(
            judge.kernel,
            kernel,
            (kernel - 1.96 * error, kernel + 1.96 * error),
            metrics.kernel_distance(real, reference)[0] if real is not None and len(real) > 1 else None,
        ),
        *_support_rows(found, real, reference, labels),
        _nearest_row(images, held_out, train.images),
    ]


def _label_rows(images: Tensor, labels: Tensor | None, held_out: Tensor, test: ImageSet | None, judge: Judge):
    if labels is None or judge.verdicts is None:
        return
    best = None
    if test is not None and test.classes == judge.classes:
        best = metrics.label_accuracy(judge.verdicts(held_out), test.labels[: len(held_out)])
    accuracy = metrics.label_accuracy(judge.verdicts(images), labels)
    yield Row("label accuracy", accuracy, metrics.wilson_interval(accuracy, len(images)), best)


def _support_rows(
    found: metrics.Features, real: metrics.Features | None, reference: metrics.Features, labels: Tensor | None
):
    # equal numbers on both sides, as the closed form of coverage's best value assumes
    shared = min(len(each) for each in (found, real, reference) if each is not None)
    if shared <= NEIGHBOURS:
        return
    mine, best = (
        {} if each is None else asdict(metrics.support(each[:shared], reference[:shared], NEIGHBOURS))
        for each in (found, real)
    )
    groups = None if labels is None else labels[:shared]
    covered = metrics.coverage_interval(found[:shared], reference[:shared], NEIGHBOURS, groups=groups)
    for name, value in mine.items():
        yield Row(name, value, covered if name == "coverage" else None, best.get(name))


def _nearest_row(images: Tensor, held_out: Tensor, train: Tensor) -> Row:
    train = to_float(train)
    mine, real = (
        metrics.nearest(to_float(each[:NEAREST_SAMPLES]), train)[0] if len(each) else None
        for each in (images, held_out)
    )
    interval = metrics.bootstrap_interval(lambda sample: sample.median().item(), mine, rounds=200)
    return Row(
        "nearest distance", mine.median().item(), interval, None if real is None else real.median().item()
    )


def bits_row(model: Checkpoint, test: ImageSet, count: int, seed: int = 0) -> Row:
    """The bound of the first `count` test images, given their labels if the model knows these classes."""
    if count > len(test):
        raise ValueError(f"--bits {count}: there are only {len(test)} test images")
    config = model.net.config
    images = test.resized(config.image_size, config.channels).images[:count]
    device = next(model.net.parameters()).device
    bound = metrics.bits_per_dim(
        model.denoiser(),
        images.to(device),
        test.labels[:count] if model.classes == list(test.classes) else None,
        draws=BOUND_DRAWS,
        generator=torch.Generator().manual_seed(seed),
    )
    half = 1.96 * bound.error
    return Row("bits per dim", bound.total, (bound.total - half, bound.total + half) if count > 1 else None)


def table(rows: Iterable[Row]) -> str:
    """The rows as text, real values beside the samples'."""
    lines = [f"{'':<18}{'samples':>10}   {'95 % interval':<18}{'real test images':>18}"]
    for row in rows:
        within = f"{row.interval[0]:.4f} to {row.interval[1]:.4f}" if row.interval else ""
        real = "" if row.real is None else f"{row.real:.4f}"
        lines.append(f"{row.name:<18}{row.value:>10.4f}   {within:<18}{real:>18}".rstrip())
    return "\n".join(lines)


def below_zero(rows: Iterable[Row], name: str) -> str:
    """A line that says why the distance called name is negative; none if it is not."""
    if all(row.value >= 0 for row in rows if row.name == name):
        return ""
    return (
        f"{name}: below 0 means no distance seen. It has no bias, so chance puts it on either side of 0, and "
        "a fixed number of samples of each label lowers it a little\n"
    )


def stored_rows(model: Checkpoint, evaluation: dict) -> list[Row]:
    """The rows that the model file holds of an evaluation asked in the same way; none if it holds no such.

    The file's provenance["metrics"] is a list of evaluations in the form of --json. Raises ValueError if it is not.
    """
    try:
        for stored in model.provenance.get("metrics", []):
            if all(stored.get(name) == evaluation.get(name) for name in (*ASKED, "interval")):
                return [Row(**row) for row in stored["metrics"]]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"the metrics in the model file are not a list of evaluations ({error!r})"
        ) from error
    return []


def agrees(fresh: Row, stored: Row) -> bool:
    """Whether each of two values lies within the other's interval; without intervals, whether they are CLOSE."""
    if fresh.interval is None or stored.interval is None:
        return abs(fresh.value - stored.value) <= CLOSE
    return all(
        one.interval[0] <= other.value <= one.interval[1] for one, other in ((fresh, stored), (stored, fresh))
    )


def comparison(rows: Iterable[Row], stored: Iterable[Row]) -> str:
    """One line for each row that is stored too: as stored, or how it differs."""
    before, lines = {row.name: row for row in stored}, []
    for row in rows:
        if row.name in before:
            then = before[row.name]
            within = f" ({then.interval[0]:.4f} to {then.interval[1]:.4f})" if then.interval else ""
            verdict = "as stored" if agrees(row, then) else f"differs: stored is {then.value:.4f}{within}"
            lines.append(f"{row.name:<18}{verdict}")
    return "\n".join(lines)
