"""The ablation ladder of chapter 8: the recipe that this book began with, improved one change at a time.

    python experiments/ladder.py                                  every rung, about ten minutes each on one core
    python experiments/ladder.py --tflop 0.002 --width 8 --pictures 20 --samples 20 --out runs/try --into runs/try
                                                            does everything work? (a minute)
    python experiments/ladder.py --data cifar10-full --data-root FOLDER --tflop 5000 --batch-size 128

Every rung gets the same compute, counted and not timed: `--tflop` million million floating-point operations of
training, two for a multiplication and an addition. So a busy machine changes the seconds and nothing else. A rung
that is half-way is saved every minute, and a finished one is kept: after Ctrl-C the same command goes on.

What it found (36 million million operations a rung, seed 0, one CPU thread in bf16, 7 to 15 minutes each, commit 07c698e; the
error of the old recipe is 1): native 32 x 32 leaves 0.35 of the error, and with the average of the weights, v, min-SNR and
Muon 0.27 is left. Flips and dropout cannot be told from another seed. The cosine schedule alone, a falling rate and twice the
width are worse at this compute. The best rung draws scenes, and 26 % of them are read as asked (real pictures: 90 %).

Measured for each rung: the error of its guess of x_0 on test pictures at ten noise levels, the same noise for all
rungs, so that rungs are compared picture by picture; and samples, judged by the classifier in the package.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ddpm_lib import checkpoint, data, evaluate, metrics, sampling, schedule
from ddpm_lib.checkpoint import Checkpoint
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.files import write_whole
from ddpm_lib.judge import make_judge
from ddpm_lib.training import EMA, TrainConfig, make_optimizer, resolve_precision, train
from ddpm_lib.unet import UNet, UNetConfig, anatomy

NAME = "ladder_cifar10"
SIZE = 32
"""Pixels of the pictures that all rungs are judged by."""
LEVELS = tuple(range(-4, 6))
"""Log-SNR at which the guesses are compared, as a 32 x 32 picture sees it."""
SHOWN = 20
"""Samples of a rung that are kept as pictures, two of each class."""
SAMPLER_STEPS = 20
SAVE_SECONDS = 60
FORMAT = 1


@dataclass(frozen=True)
class Recipe:
    """What differs between rungs. The first values are those of the recipe that this book began with."""

    size: int = 64
    schedule: str = "linear"
    predict: str = "eps"
    ema: bool = False
    flip: bool = False
    dropout: float = 0.0
    min_snr: float = 0.0
    optimizer: str = "adam"
    lr: float = 5e-4
    decay: str = "none"
    wider: int = 1


@dataclass(frozen=True)
class Rung:
    """One change, made on top of those before it. luck: added to the seed."""

    key: str
    title: str
    change: dict = field(default_factory=dict)
    luck: int = 0


RUNGS = (
    Rung("origin", "the old recipe"),
    Rung("native", "native 32 x 32", {"size": 32}),
    Rung("cosine", "cosine schedule", {"schedule": "cosine"}),
    Rung("ema", "average of the weights", {"ema": True}),
    Rung("flip", "flips", {"flip": True}),
    Rung("dropout", "dropout 0.1", {"dropout": 0.1}),
    Rung("v", "asks for v", {"predict": "v"}),
    Rung("min_snr", "min-SNR, 5", {"min_snr": 5.0}),
    Rung("again", "the same, other luck", luck=1),
    Rung("decay", "rate decays", {"decay": "cosine"}),
    Rung("muon", "Muon, rate 4e-3", {"optimizer": "muon", "lr": 4e-3}),
    Rung("wide", "twice as wide", {"wider": 2}),
)


def recipes() -> dict[str, Recipe]:
    """Key -> the recipe of each rung: its change and all before it."""
    recipe, found = Recipe(), {}
    for rung in RUNGS:
        recipe = replace(recipe, **rung.change)
        found[rung.key] = recipe
    return found


@dataclass(frozen=True)
class Settings:
    """What all rungs of a ladder share; two ladders are comparable only if these agree.

    tflop: compute of a rung's training. pictures: test pictures for the errors. samples: for the two distances.
    precision: of training and sampling; errors are measured in fp32.
    """

    tflop: float = 36.0
    data: str = "cifar10"
    seed: int = 0
    width: int = 32
    batch_size: int = 32
    pictures: int = 500
    samples: int = 500
    precision: str = "fp32"
    label_dropout: float = 0.1
    ema_share: float = 0.05


# --- cost ----------------------------------------------------------------------------------------


def network(recipe: Recipe, settings: Settings, classes: int) -> UNetConfig:
    """The same layers for every rung, on patches of 2 x 2 pixels; only the grid and the width differ."""
    width = settings.width * recipe.wider
    return UNetConfig(
        recipe.size, 3, classes, width, (1, 2, 4), 1, (2,), math.gcd(32, width), 2, recipe.dropout
    )


def multiply_adds(config: UNetConfig) -> int:
    """Multiply-adds of one image's way through the network."""
    with torch.device("meta"):
        return sum(part.macs for part in anatomy(UNet(config)))


def steps_for(tflop: float, macs: int, batch_size: int) -> int:
    """Training steps that the compute pays for: two operations a multiply-add, and the way back costs twice the way there."""
    return max(1, int(tflop * 1e12 / (3 * 2 * macs * batch_size)))


# --- from 32 to 64 pixels and back ---------------------------------------------------------------


def stretching(size: int, small: int = SIZE) -> Tensor:
    """The matrix (size, small) by which the library enlarges one side of a picture."""
    unit = torch.eye(small, dtype=torch.float64)[:, None]
    return F.interpolate(unit, size=size, mode="linear", align_corners=False)[:, 0].T


def shrink(x: Tensor) -> Tensor:
    """The picture of SIZE pixels whose enlargement is nearest to x (N, C, H, W): undoes enlarging, keeps nothing else."""
    if x.shape[-1] == SIZE:
        return x
    back = torch.linalg.pinv(stretching(x.shape[-1])).to(x)
    return back @ x @ back.T


# --- one rung ------------------------------------------------------------------------------------


class Ladder:
    """Runs rungs in a folder, one sub-folder each, and measures them."""

    def __init__(self, settings: Settings, out: Path, device: torch.device, root: str | None = None):
        self.settings, self.out, self.device = settings, out, device
        self.train_set, self.test_set = (
            data.load_images(settings.data, split, root=root) for split in ("train", "test")
        )
        reference = data.load_images(evaluate.stand_in(settings.data), root=root)
        self.judge = make_judge("classifier", self.train_set.classes)
        self.real = self.judge.features(reference.images)
        self.held_out = data.load_images(evaluate.stand_in(settings.data), "test", root=root)

    def run(self, rung: Rung) -> dict:
        """The result of a rung: read if it is there, else made, from where it was left."""
        folder = self.out / rung.key
        recipe = recipes()[rung.key]
        asked = {"recipe": asdict(recipe), "settings": asdict(self.settings)}
        if (folder / "result.json").exists():
            result = json.loads((folder / "result.json").read_text())
            self._same(folder, asked, {name: result[name] for name in asked})
            return result
        model = self._trained(rung, recipe, folder, asked)
        result = asked | self._measured(rung, model, folder)
        write_whole(folder / "result.json", lambda part: Path(part).write_text(json.dumps(result, indent=1)))
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        return result

    def _same(self, folder: Path, asked: dict, found: dict) -> None:
        if asked != found:
            raise ValueError(
                f"{folder} holds a rung with other settings: go on with the same ones, or choose another --out"
            )

    def _trained(self, rung: Rung, recipe: Recipe, folder: Path, asked: dict) -> Checkpoint:
        path = folder / "checkpoint.safetensors"
        if path.exists():
            model = checkpoint.load(path, self.device)
            self._same(folder, asked, {name: model.provenance[name] for name in asked})
        else:
            model = self._fresh(rung, recipe, asked)
        config, images = model.config, self.train_set.resized(recipe.size)
        optimizer = make_optimizer(model.net, config)
        if model.step:
            checkpoint.restore_optimizer(model, optimizer)
        stream = data.batches(
            images, self.settings.batch_size, seed=config.seed, start=model.step, flip=recipe.flip, device=self.device
        )  # fmt: skip
        denoiser = Denoiser(model.net, model.schedule, model.predict)
        began, before, saved = time.monotonic(), model.provenance["seconds"], time.monotonic()
        bar = tqdm(total=config.steps, initial=model.step, unit="step", desc=f"{rung.key:>8}", mininterval=2)
        with bar:
            for step in train(denoiser, stream, config, model.ema, optimizer, start=model.step):
                model.step = step.index
                bar.update()
                model.provenance["seconds"] = before + time.monotonic() - began
                if time.monotonic() - saved > SAVE_SECONDS or step.index == config.steps:
                    bar.set_postfix(loss=f"{step.loss.item():.3f}")
                    checkpoint.save(model, path, optimizer)
                    saved = time.monotonic()
        return model

    def _fresh(self, rung: Rung, recipe: Recipe, asked: dict) -> Checkpoint:
        settings = self.settings
        net_config = network(recipe, settings, len(self.train_set.classes))
        steps = steps_for(settings.tflop, multiply_adds(net_config), settings.batch_size)
        config = TrainConfig(
            steps=steps, optimizer=recipe.optimizer, lr=recipe.lr, warmup=min(100, steps // 10), decay=recipe.decay,
            label_dropout=settings.label_dropout, min_snr=recipe.min_snr, precision=settings.precision,
            seed=settings.seed + rung.luck,
        )  # fmt: skip
        torch.manual_seed(config.seed)
        net = UNet(net_config).to(self.device)
        ema = EMA(net, max(1.0, settings.ema_share * steps)) if recipe.ema else None
        about = {"source": settings.data, "size": recipe.size, "classes": list(self.train_set.classes)}
        where = checkpoint.provenance(self.device)
        return Checkpoint(
            net, schedule.make(recipe.schedule), recipe.predict, config, ema, data=about,
            provenance=where | asked | {"seconds": 0.0},
        )  # fmt: skip

    def _measured(self, rung: Rung, model: Checkpoint, folder: Path) -> dict:
        began, config = time.monotonic(), model.net.config
        errors = self._errors(model)
        save_file({"errors": errors}, folder / "errors.safetensors")
        samples, labels = self._samples(rung, model)
        save_file({"samples": samples[:SHOWN].contiguous()}, folder / "samples.safetensors")
        macs = multiply_adds(config)
        images = model.step * self.settings.batch_size
        return {
            "key": rung.key,
            "title": rung.title,
            "parameters": sum(parameter.numel() for parameter in model.net.parameters()),
            "macs": macs,
            "steps": model.step,
            "images": images,
            "tflop": 3 * 2 * macs * images / 1e12,
            "seconds": round(model.provenance["seconds"], 1),
            "measuring_seconds": round(time.monotonic() - began, 1),
            **self._verdict(samples, labels),
            **{name: model.provenance[name] for name in ("device", "torch", "commit", "date")},
        }

    def _errors(self, model: Checkpoint) -> Tensor:
        """(levels, pictures), the errors of the guesses as pictures of SIZE pixels.

        A picture of k SIZE pixels gets 2 log k more noise: then its average over k x k pixels is as noisy as a
        picture of SIZE pixels is (arXiv 2301.11093).
        """
        size = model.net.config.image_size
        count = self.settings.pictures
        images = self.test_set.resized(size).images[:count]
        levels = torch.tensor(LEVELS, dtype=torch.float64) - 2 * math.log(size / SIZE)
        view = shrink if size != SIZE else None
        return metrics.denoising_errors(
            model.denoiser(), data.to_float(images).to(self.device), levels, self.test_set.labels[:count], view=view
        )  # fmt: skip

    def _samples(self, rung: Rung, model: Checkpoint) -> tuple[Tensor, Tensor]:
        denoiser, config, drawn = model.denoiser(), model.net.config, []
        labels = torch.arange(self.settings.samples) % len(self.train_set.classes)
        shape = (len(labels), 3, config.image_size, config.image_size)
        noise = sampling.pure_noise(
            shape, model.schedule, torch.Generator().manual_seed(self.settings.seed)
        ).to(self.device)
        times = model.schedule.times(SAMPLER_STEPS)
        bf16 = self.settings.precision == "bf16"
        for x, label in zip(
            tqdm(noise.split(50), desc=f"{rung.key:>8}: samples"), labels.split(50), strict=True
        ):
            denoise = sampling.clipped(sampling.guided(denoiser, label.to(self.device)))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                x = sampling.last(sampling.dpm_solver_2m(denoise, x, model.schedule, times))
            drawn.append(data.to_uint8(shrink(x.float()).clamp(-1, 1).cpu()))
        return torch.cat(drawn), labels

    def _verdict(self, samples: Tensor, labels: Tensor) -> dict:
        accuracy = metrics.label_accuracy(self.judge.verdicts(samples), labels)
        found = {
            "accuracy": accuracy,
            "accuracy_interval": metrics.wilson_interval(accuracy, len(labels)),
            "frechet": None,
            "frechet_interval": None,
        }
        features = self.judge.features(samples)
        if len(features) > self.judge.dims:
            distance = lambda some: metrics.frechet_distance(some, self.real)  # noqa: E731
            found["frechet"] = distance(features)
            found["frechet_interval"] = metrics.bootstrap_interval(distance, features, groups=labels)
        return found

    # --- all of them ---

    def collected(self, rungs: list[Rung]) -> dict:
        """What chapter 8 reads: the finished rungs, each with its errors and its gain over the one before it."""
        results = [self.run(rung) for rung in rungs]
        errors = [load_file(self.out / rung.key / "errors.safetensors")["errors"] for rung in rungs]
        # as shares of the first rung's, so that every level counts alike; one number for each picture
        scores = [(each / errors[0].mean(1, keepdim=True)).mean(0) for each in errors]
        rows = []
        for number, (rung, result) in enumerate(zip(rungs, results, strict=True)):
            # a rung that differs by luck alone is nobody's predecessor
            before = max((n for n in range(number) if not rungs[n].luck), default=0)
            mean, error = mean_and_error(errors[number])
            gain, gain_error = mean_and_error(errors[before] - errors[number])
            score, score_error = mean_and_error(scores[number])
            better, better_error = mean_and_error(scores[before] - scores[number])
            unpaired = mean_and_error(scores[before])[1].hypot(score_error)
            rows.append(
                {name: value for name, value in result.items() if name != "settings"}
                | {
                    "title": rung.title,
                    "change": rung.change,
                    "error": mean,
                    "error_se": error,
                    "gain": gain,
                    "gain_se": gain_error,
                    "score": score,
                    "score_se": score_error,
                    "better": better,
                    "better_se": better_error,
                    "unpaired_se": unpaired,
                    "against": rungs[before].key,
                }
            )
        test = self.held_out.images[: self.settings.samples]
        verdict = self._verdict(test, self.held_out.labels[: len(test)])
        about = {name: results[0][name] for name in ("device", "torch", "commit", "date")}
        about |= asdict(self.settings) | {
            "format": FORMAT,
            "sampler": "dpm++2m",
            "sampler_steps": SAMPLER_STEPS,
            "features": self.judge.extractor,
            "training_images": len(self.train_set),
            "shown": SHOWN,
            "level": "log-SNR as a 32 x 32 picture sees it",
        }
        return rounded({"about": about, "levels": list(LEVELS), "real": verdict, "rungs": rows})

    def write(self, rungs: list[Rung], into: Path) -> list[Path]:
        """The two files of the package: the numbers, and one picture with a row of samples for each rung."""
        from PIL import Image

        found = self.collected(rungs)
        rows = [load_file(self.out / rung.key / "samples.safetensors")["samples"] for rung in rungs]
        # (rungs, shown, 3, 32, 32) -> (rungs * 32, shown * 32, 3)
        sheet = torch.stack(rows).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        paths = [into / f"{NAME}.json", into / f"{NAME}.webp"]
        write_whole(paths[0], lambda part: Path(part).write_text(text, encoding="utf-8"))
        picture = Image.fromarray(sheet.numpy())
        write_whole(paths[1], lambda part: picture.save(part, "WEBP", quality=75, method=6))
        return paths


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the last dimension and its standard error."""
    return values.mean(-1), values.std(-1) / values.shape[-1] ** 0.5


def rounded(value):
    """Tensors as lists, and five digits of each number: more say nothing."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    if isinstance(value, Tensor):
        return rounded(value.tolist())
    return float(f"{value:.5g}") if isinstance(value, float) and math.isfinite(value) else value


def table(found: dict) -> str:
    """The ladder as text."""
    lines = [
        f"{'rung':<24}{'images':>9}{'score':>8}{'better':>9}{'+-':>8}{'as asked':>10}{'Fréchet':>9}{'seconds':>9}"
    ]
    for row in found["rungs"]:
        frechet = "" if row["frechet"] is None else f"{row['frechet']:.2f}"
        lines.append(
            f"{row['title']:<24}{row['images']:>9,}{row['score']:>8.3f}{row['better']:>9.4f}{row['better_se']:>8.4f}"
            f"{row['accuracy']:>10.1%}{frechet:>9}{row['seconds']:>9.0f}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    default = Settings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tflop", type=float, default=default.tflop, help="compute of each rung (default: %(default)s)"
    )
    parser.add_argument("--data", default=default.data, help="cifar10 or cifar10-full (default: %(default)s)")
    parser.add_argument("--data-root", help="folder of the full sets")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--width", type=int, default=default.width, help="channels at the finest level")
    parser.add_argument("--batch-size", type=int, default=default.batch_size)
    parser.add_argument("--pictures", type=int, default=default.pictures, help="test pictures for the errors")
    parser.add_argument("--samples", type=int, default=default.samples, help="samples to judge")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16, of training and sampling")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rungs", help=f"only these, with commas: {','.join(rung.key for rung in RUNGS)}")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ladder"), help="folder of the runs (default: %(default)s)"
    )
    parser.add_argument(
        "--into", type=Path, default=data.EMBEDDED, help="folder of the results (default: the package)"
    )
    args = parser.parse_args(argv)

    from ddpm_lib.device import pick_device

    known = {rung.key: rung for rung in RUNGS}
    keys = args.rungs.split(",") if args.rungs else list(known)
    if unknown := [key for key in keys if key not in known]:
        parser.error(f"no rung is called {', '.join(unknown)}: choose from {', '.join(known)}")
    device = pick_device(args.device)
    settings = Settings(
        args.tflop, args.data, args.seed, args.width, args.batch_size, args.pictures, args.samples,
        _precision(args.precision, args.out, device),
    )  # fmt: skip
    try:
        ladder = Ladder(settings, args.out, device, args.data_root)
        rungs = [rung for rung in RUNGS if rung.key in keys]
        for number in range(1, len(rungs) + 1):
            ladder.run(rungs[number - 1])
            # the package gets a whole ladder or none; what is there so far can be looked at in the folder of the runs
            paths = ladder.write(rungs[:number], args.into if number == len(rungs) else args.out)
            print("\n" + table(json.loads(paths[0].read_text(encoding="utf-8"))), flush=True)
        print("\n" + ", ".join(f"{path}: {path.stat().st_size / 1e3:.0f} kB" for path in paths))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last save", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"ladder: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _precision(asked: str, out: Path, device: torch.device) -> str:
    """Decided once for a ladder: a trial may come out otherwise when it goes on."""
    path = out / "precision.txt"
    if asked != "auto":
        return asked
    if not path.exists():
        chosen = resolve_precision("auto", device)
        write_whole(path, lambda part: Path(part).write_text(chosen))
    return path.read_text().strip()


if __name__ == "__main__":
    sys.exit(main())
