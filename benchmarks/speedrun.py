"""What the two speedruns share: a recipe, the clock, the verdict and the table of records."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm_lib import checkpoint, data, files, sampling, schedule
from ddpm_lib.checkpoint import device_name
from ddpm_lib.classifier import shipped_classifier
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.metrics import frechet_distance, label_accuracy, support
from ddpm_lib.training import EMA, TrainConfig, resolve_precision, train
from ddpm_lib.unet import UNet, UNetConfig

RECORDS = Path(__file__).parent / "records"
SAMPLES = 1000
JUDGED_AT_ONCE = 500


@dataclass(frozen=True)
class Recipe:
    """All that a run is made of. bf16 is used, for training and sampling, where the device gains from it."""

    net: UNetConfig
    train: TrainConfig
    batch_size: int
    schedule: str
    predict: str
    ema_half_life: float
    sampler: str
    steps: int
    scale: float
    flip: bool = False
    interval: tuple[float, float] = (0.0, 1.0)
    samples_at_once: int = 125


@dataclass(frozen=True)
class Result:
    """One run: its clock, in seconds, and what the judge said of its samples beside the real images."""

    seed: int
    seconds: float
    of_training: float
    images_seen: int
    label_accuracy: float
    recall: float
    real_recall: float
    precision: float
    coverage: float
    frechet: float
    real_frechet: float

    def passes(self, accuracy: float) -> bool:
        """Enough samples as asked, and at least half of the variety that real images have."""
        return self.label_accuracy >= accuracy and self.recall >= self.real_recall / 2


def run(
    recipe: Recipe, images: data.ImageSet, seed: int, device: torch.device
) -> tuple[Tensor, Tensor, float, float]:
    """Trains from nothing and draws 1,000 samples, each class in turn.

    Returns the samples, uint8 (1000, C, H, W), their labels, the seconds that it all took, and those of
    the training alone. The clock starts with the images in memory as uint8, and nothing else made.
    """
    began = time.perf_counter()
    torch.manual_seed(seed)
    precision = resolve_precision(recipe.train.precision, device)
    net = UNet(recipe.net).to(device)
    denoiser = Denoiser(net, schedule.make(recipe.schedule), recipe.predict)
    ema = EMA(net, recipe.ema_half_life)
    stream = data.batches(images, recipe.batch_size, seed=seed, flip=recipe.flip, device=device)
    config = replace(recipe.train, seed=seed, precision=precision)
    for _ in tqdm(train(denoiser, stream, config, ema), total=config.steps, leave=False, unit="step"):
        pass
    _wait(device)
    trained = time.perf_counter()
    labels = torch.arange(SAMPLES) % len(images.classes)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        samples = _draw(recipe, replace(denoiser, net=ema.net), labels, seed, device)
    ended = time.perf_counter()
    return samples, labels, ended - began, trained - began


def _draw(recipe: Recipe, denoiser: Denoiser, labels: Tensor, seed: int, device: torch.device) -> Tensor:
    size = recipe.net.image_size
    noise = sampling.pure_noise(
        (len(labels), recipe.net.channels, size, size), denoiser.schedule, torch.Generator().manual_seed(seed)
    )
    times, drawn = denoiser.schedule.times(recipe.steps), []
    for x, label in zip(
        noise.split(recipe.samples_at_once), labels.split(recipe.samples_at_once), strict=True
    ):
        guided = sampling.guided(denoiser, label.to(device), recipe.scale, recipe.interval)
        steps = sampling.SAMPLERS[recipe.sampler](
            sampling.clipped(guided), x.to(device), denoiser.schedule, times
        )
        drawn.append(data.to_uint8(sampling.last(steps).float()).cpu())
    return torch.cat(drawn)


class Judge:
    """The shipped classifier of these classes, and what it sees in real images. It takes no part in training."""

    def __init__(self, train_images: data.ImageSet, test_images: data.ImageSet):
        self.net, self.about = shipped_classifier(train_images.classes)
        self.reference = self._features(train_images.images)
        held_out = self._features(test_images.images)
        self.real = _support_and_distance(held_out, self.reference)

    def _features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat(
                [self.net.features(data.to_float(part)) for part in images.split(JUDGED_AT_ONCE)]
            )

    def accuracy(self, samples: Tensor, labels: Tensor) -> float:
        """Share of samples, uint8 (N, C, H, W), that are read as asked, labels (N,)."""
        with torch.no_grad():
            return label_accuracy(self.net.head(self._features(samples)), labels)

    def verdict(self, samples: Tensor, labels: Tensor) -> dict[str, float]:
        """samples uint8 (N, C, H, W), labels (N,) -> what a Result holds of them."""
        features = self._features(samples)
        with torch.no_grad():
            accuracy = label_accuracy(self.net.head(features), labels)
        mine = _support_and_distance(features, self.reference)
        return {"label_accuracy": accuracy, **mine} | {
            f"real_{name}": self.real[name] for name in ("recall", "frechet")
        }


def _support_and_distance(features: Tensor, reference: Tensor) -> dict[str, float]:
    found = support(features, reference[: len(features)])
    return {
        "recall": found.recall,
        "precision": found.precision,
        "coverage": found.coverage,
        "frechet": frechet_distance(features, reference),
    }


@dataclass(frozen=True)
class Track:
    """A speedrun: its name, its data, what must be reached, and the recipe that holds the record.

    threads: of the CPU, None for a track that is run on a GPU.
    """

    name: str
    title: str
    data: str
    accuracy: float
    recipe: Recipe
    threads: int | None = None
    note: str = field(default="", kw_only=True)


def main(track: Track, description: str, argv: list[str] | None = None) -> None:
    """The command: runs the recipe over a few seeds, prints each run, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=at_least_one, default=3, help="runs, each from its own seed (default: 3)"
    )
    parser.add_argument("--device", default=None, help="default: cuda if there is one, else cpu")
    parser.add_argument("--data-root", default=None, help="folder of the full sets")
    parser.add_argument(
        "--record", action="store_true", help=f"add the outcome to benchmarks/records/{track.name}.md"
    )
    parser.add_argument("--out", type=Path, help="also write the first run's samples to this picture")
    parser.add_argument(
        "--steps",
        type=at_least_one,
        help="train for so many steps instead: a quick look, kept out of the records",
    )
    args = parser.parse_args(argv)
    recipe = track.recipe
    if args.steps:
        if args.record:
            parser.error("--steps changes the recipe: leave out --record, or change the recipe in the file")
        recipe = replace(recipe, train=replace(recipe.train, steps=args.steps))
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if track.threads and device.type == "cpu":
        torch.set_num_threads(track.threads)
    images, held_out = (
        data.load_images(track.data, split, root=args.data_root) for split in ("train", "test")
    )
    judge = Judge(images, held_out)
    weights = sum(parameter.numel() for parameter in UNet(recipe.net).parameters())
    print(
        f"{track.title}: {weights:,} weights, {recipe.train.steps} steps of {recipe.batch_size}, on {device_name(device)}"
    )
    print(f"judge: {judge.about['name']}, {judge.about['test_accuracy']:.2%} right on its own test images\n")
    print(HEAD)
    results = []
    for seed in range(args.seeds):
        results.append(measure(recipe, images, judge, seed, device, args.out if seed == 0 else None))
        print(line(results[-1], results[-1].passes(track.accuracy)), flush=True)
    middle = summary(results)
    passed = middle.passes(track.accuracy)
    print(line(middle, passed, f"mean of {len(results)}"))
    print(
        f"\n{'PASSED' if passed else 'NOT PASSED'}: wanted are {track.accuracy:.0%} as asked, and a recall of at "
        f"least half of the real images' {middle.real_recall:.2f}, in the mean over the runs"
    )
    if args.record:
        print(f"kept in {keep(track, results, passed, device, judge.about['name'])}")


HEAD = f"{'seed':>10}{'seconds':>10}{'training':>10}{'as asked':>10}{'recall':>8}{'precision':>11}{'coverage':>10}{'Fréchet':>9}"


def measure(
    recipe: Recipe,
    images: data.ImageSet,
    judge: Judge,
    seed: int,
    device: torch.device,
    picture: Path | None = None,
) -> Result:
    """One run and its verdict; the first 100 samples go to a picture if one is named."""
    samples, labels, seconds, of_training = run(recipe, images, seed, device)
    if picture:
        from ddpm_lib.plotting import save_grid

        save_grid(samples[:100], picture, columns=10)
    seen = recipe.train.steps * recipe.batch_size
    return Result(seed, seconds, of_training, seen, **judge.verdict(samples, labels))


def line(result: Result, passed: bool, name: str | None = None, width: int = 10) -> str:
    """A result as a row under HEAD; name: instead of the seed."""
    return (
        f"{name or result.seed:>{width}}{result.seconds:>10.1f}{result.of_training:>10.1f}{result.label_accuracy:>10.1%}"
        f"{result.recall:>8.2f}{result.precision:>11.2f}{result.coverage:>10.2f}{result.frechet:>9.2f}"
        f"  {'passed' if passed else 'not passed'}"
    )


def summary(results: list[Result]) -> Result:
    """The mean of each number over the runs; of the times, the median, which a busy moment moves less."""
    rows = [asdict(result) for result in results]
    middle = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
    times = {name: statistics.median(row[name] for row in rows) for name in ("seconds", "of_training")}
    return Result(**middle | times | {"seed": len(rows), "images_seen": rows[0]["images_seen"]})


def keep(track: Track, results: list[Result], passed: bool, device: torch.device, features: str) -> Path:
    """Adds the outcome to the track's records, JSON and the table made from it; returns the table's path."""
    path = RECORDS / f"{track.name}.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    about = checkpoint.provenance(device)
    rows.append(
        {
            **{name: about[name] for name in ("date", "device", "torch", "commit")},
            "passed": passed,
            "features": f"classifier {features}",
            "recipe": asdict(track.recipe),
            "runs": [asdict(result) for result in results],
        }
    )
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    files.write_whole(path, lambda part: Path(part).write_text(text, encoding="utf-8"))
    table = path.with_suffix(".md")
    text = markdown(track, rows)
    files.write_whole(table, lambda part: Path(part).write_text(text, encoding="utf-8"))
    return table


def markdown(track: Track, rows: list[dict]) -> str:
    """The table of records, newest first."""
    lines = [
        f"# {track.title}\n",
        f"Made by `python benchmarks/{track.name}.py --record`. Seconds: the median over the runs, training and drawing "
        "1,000 samples; the rest: the mean. Fréchet distance, recall and verdicts by the features named; in brackets "
        f"what held-out real images get. {track.note}\n",
        "| date | device | runs | seconds | images seen | as asked | recall | Fréchet distance | features | commit | passed |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |",
    ]
    for row in reversed(rows):
        mean = summary([Result(**each) for each in row["runs"]])
        lines.append(
            f"| {row['date']} | {row['device']}, torch {row['torch']} | {len(row['runs'])} | {mean.seconds:.1f} | "
            f"{mean.images_seen:,} | {mean.label_accuracy:.1%} | {mean.recall:.2f} ({mean.real_recall:.2f}) | "
            f"{mean.frechet:.2f} ({mean.real_frechet:.2f}) | {row['features']} | {row['commit']} | "
            f"{'yes' if row['passed'] else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def at_least_one(text: str) -> int:
    """A number of runs or steps, as the command line takes it."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
