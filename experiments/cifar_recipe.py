"""A better recipe for CIFAR-10, sought in short runs at equal seconds, one change at a time.

    OMP_NUM_THREADS=1 python experiments/cifar_recipe.py --data cifar10-full --data-root FOLDER      hours
    python experiments/cifar_recipe.py --data cifar10-full --data-root FOLDER --only lr8,batch32,lr8+batch32
    python experiments/cifar_recipe.py --steps 2 --long 0 --pictures 20 --samples 20 --only lr8 --precision fp32 \\
        --out runs/try --into runs/try                                              does everything work?

The baseline is recipes/cifar32.json, shortened to --steps. A variant whose step takes r times the processor
time of the baseline's gets 1 / r as many steps. r is measured before anything is trained, a step of one and a step of
the other in turn, so that whoever else works on the machine changes the seconds and not the numbers of steps.

Each run keeps averages of its weights at several half-lives, and the one with the least error is judged. The error is
that of the guess of x_0 on test pictures at ten noise levels, the same noise for all, so that variants are
compared picture by picture. Samples are judged by the classifier in the package. A second run of the
baseline differs by its seed alone: a variant that is no further from the baseline than that one is a tie.

When all are done, the best change of each factor is taken, and all these together run against the baseline
for --long steps; so does the same on a wider network, for width pays in long runs what it costs in short ones.
A run is saved every minute and a finished one is kept: after Ctrl-C the same command goes on.

At 600 steps of 64 hardly a picture is seen twice, so that dropout and flips cannot gain here what they gain in a
long run. Not tried, for the library cannot do it: training times shifted towards noise, and pictures augmented in a way
that the network is told of.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from ladder import LEVELS, mean_and_error, rounded
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ddpm_lib import checkpoint, data, evaluate, metrics, sampling, schedule
from ddpm_lib.checkpoint import Checkpoint
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.files import locked, write_whole
from ddpm_lib.judge import make_judge
from ddpm_lib.training import EMA, TrainConfig, TrainingDiverged, make_optimizer, train
from ddpm_lib.unet import UNet, UNetConfig

NAME = "cifar_recipe"
RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
EMA_SHARES = (0.01, 0.03, 0.07, 0.15)
"""Half-lives of the averages, as shares of a run's steps."""
SCALES = (1.0, 2.5)
"""Guidance of the samples; the model that the package ships recommends 2.5."""
SAMPLER, SAMPLER_STEPS = "dpm++2m-sde", 20
ROUNDS = 7
"""Steps of each kind that are timed."""
SAVE_SECONDS = 60


@dataclass(frozen=True)
class Recipe:
    """What variants differ in. The first values are those of recipes/cifar32.json, network included."""

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    patch: int = 2
    dropout: float = 0.0
    schedule: str = "cosine"
    predict: str = "v"
    times: str = "uniform"
    min_snr: float = 0.0
    optimizer: str = "muon"
    lr: float = 4e-3
    decay: str = "cosine"
    batch_size: int = 64
    flip: bool = True
    label_dropout: float = 0.1


BASE = Recipe()


@dataclass(frozen=True)
class Variant:
    """A change of the baseline. factor: of variants with the same one at most one can win. luck: added to the seed."""

    key: str
    factor: str = ""
    change: dict = field(default_factory=dict)
    luck: int = 0


VARIANTS = (
    Variant("base"),
    Variant("again", luck=1),
    Variant("lr8", "rate", {"lr": 8e-3}),
    Variant("min-snr", "weight", {"min_snr": 5.0}),
    Variant("batch32", "batch", {"batch_size": 32}),
    Variant("levels3", "shape", {"multipliers": (1, 2, 2), "attention": (1, 2)}),
    Variant("flow", "target", {"schedule": "flow", "predict": "flow"}),
    Variant("width48", "shape", {"width": 48}),
    Variant("batch128", "batch", {"batch_size": 128}),
    Variant("width96", "shape", {"width": 96}),
    Variant("middle", "weight", {"times": "logit-normal"}),
    Variant("blocks1", "shape", {"blocks": 1}),
    Variant("x0", "target", {"predict": "x0"}),
    Variant("flow-middle", "target", {"schedule": "flow", "predict": "flow", "times": "logit-normal"}),
    Variant("lr2", "rate", {"lr": 2e-3}),
    Variant("patch1", "shape", {"patch": 1, "width": 32, "multipliers": (1, 2, 4), "attention": (2,)}),
    Variant("attention16", "attention", {"attention": (0, 1)}),
    Variant("lr16", "rate", {"lr": 1.6e-2}),
    Variant("linear-decay", "decay", {"decay": "linear"}),
    Variant("no-attention", "attention", {"attention": ()}),
    Variant("blocks3", "shape", {"blocks": 3}),
    Variant("adam10", "rate", {"optimizer": "adam", "lr": 1e-3}),
    Variant("adam20", "rate", {"optimizer": "adam", "lr": 2e-3}),
    Variant("adam5", "rate", {"optimizer": "adam", "lr": 5e-4}),
    Variant("label-dropout20", "label dropout", {"label_dropout": 0.2}),
    Variant("dropout", "dropout", {"dropout": 0.1}),
    Variant("no-flip", "flip", {"flip": False}),
)
"""In the order of the gain expected of them, so that a sweep cut short has looked at what matters."""
KNOWN = {variant.key: variant for variant in VARIANTS}
WIDER = "width96"
COSTLY = ("width", "multipliers", "blocks", "attention", "patch", "dropout", "optimizer", "batch_size")
"""What a step's seconds depend on: recipes that agree in these get equally many steps, not almost."""


@dataclass(frozen=True)
class Settings:
    """What all runs of a stage share. steps: the baseline's. pictures: test pictures for the errors.

    precision: of training and of judging.
    """

    steps: int = 600
    data: str = "cifar10"
    seed: int = 0
    pictures: int = 500
    samples: int = 500
    precision: str = "bf16"


def parts(key: str) -> list[Variant]:
    """The variants that a key such as "lr8+batch32" joins. Raises ValueError with the choices for an unknown one."""
    if unknown := [part for part in key.split("+") if part not in KNOWN]:
        raise ValueError(f"no variant is called {', '.join(unknown)}: choose from {', '.join(KNOWN)}")
    return [KNOWN[part] for part in key.split("+")]


def recipe_of(key: str) -> Recipe:
    recipe = BASE
    for variant in parts(key):
        recipe = replace(recipe, **variant.change)
    return recipe


def network(recipe: Recipe, classes: int) -> UNet:
    shape = recipe.width, recipe.multipliers, recipe.blocks, recipe.attention, math.gcd(32, recipe.width)
    return UNet(UNetConfig(32, 3, classes, *shape, recipe.patch, recipe.dropout))


def train_config(recipe: Recipe, settings: Settings, steps: int, seed: int) -> TrainConfig:
    return TrainConfig(
        steps=steps, optimizer=recipe.optimizer, lr=recipe.lr, warmup=min(200, steps // 10), decay=recipe.decay,
        label_dropout=recipe.label_dropout, times=recipe.times, min_snr=recipe.min_snr,
        precision=settings.precision, seed=seed,
    )  # fmt: skip


class Averages:
    """Averages of one run's weights, short and long; train updates them as if they were one."""

    def __init__(self, net: nn.Module, steps: int):
        self.each = [EMA(net, max(1.0, share * steps)) for share in EMA_SHARES]

    def update(self, net: nn.Module) -> None:
        for ema in self.each:
            ema.update(net)

    def save(self, path: Path) -> None:
        tensors = {
            f"{number}.{name}": value
            for number, ema in enumerate(self.each)
            for name, value in ema.net.state_dict().items()
        }
        write_whole(path, lambda part: save_file(tensors, part))

    def load(self, path: Path, step: int) -> None:
        tensors = load_file(path)
        for number, ema in enumerate(self.each):
            ema.net.load_state_dict({name: tensors[f"{number}.{name}"] for name in ema.net.state_dict()})
            ema.updates = step


class Sweep:
    """Runs variants in a folder, one sub-folder each, and measures them."""

    def __init__(self, settings: Settings, out: Path, root: str | None = None):
        self.settings, self.out = settings, out
        self.train_set = data.load_images(settings.data, root=root)
        real = data.load_images(evaluate.stand_in(settings.data))
        self.held_out = data.load_images(evaluate.stand_in(settings.data), "test")
        self.judge = make_judge("classifier", self.train_set.classes)
        self.real = self.judge.features(real.images)
        # once: the results change a file, and a commit would be called dirty from then on
        self.where = checkpoint.provenance(CPU)

    # --- seconds ---

    def ratio(self, key: str) -> float:
        """Processor time of a variant's training step over that of the baseline's; measured once and kept."""
        path = self.out / "ratios.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        base, mine = ({name: asdict(recipe)[name] for name in COSTLY} for recipe in (BASE, recipe_of(key)))
        if mine == base:
            return 1.0
        name = json.dumps({name: value for name, value in mine.items() if value != base[name]})
        if name not in known:
            steps = [self._timed("base"), self._timed(key)]
            next(zip(*steps, strict=True))  # the first step also plans and allocates
            pairs = [mine / base for base, mine in zip(*steps, strict=True)]
            known[name] = round(statistics.median(pairs), 3)
            write_whole(path, lambda part: Path(part).write_text(json.dumps(known, indent=1)))
            print(f"{key}: a step takes {known[name]:.2f} times the baseline's", flush=True)
        return known[name]

    def _timed(self, key: str):
        """Seconds of processor time of one training step after the other."""
        recipe = recipe_of(key)
        net = network(recipe, len(self.train_set.classes))
        config = train_config(recipe, self.settings, ROUNDS + 1, seed=0)
        denoiser = Denoiser(net, schedule.make(recipe.schedule), recipe.predict)
        stream = data.batches(self.train_set, recipe.batch_size, flip=recipe.flip)
        steps = train(denoiser, stream, config, EMA(net))
        for _ in range(config.steps):
            began = time.process_time()
            next(steps)
            yield time.process_time() - began

    # --- one run ---

    def run(self, key: str) -> dict:
        """The result of a variant: read if it is there, else made, from where it was left."""
        folder = self.out / str(self.settings.steps) / key
        asked = {"recipe": asdict(recipe_of(key)), "settings": asdict(self.settings)}
        asked = json.loads(json.dumps(asked))  # as a file gives it back
        path = folder / "result.json"
        if path.exists():
            result = json.loads(path.read_text())
            self._same(folder, asked, result)
            return result
        result = {"key": key} | asked
        try:
            model, averages = self._trained(key, folder, asked)
            result |= self._measured(key, model, averages, folder)
        except TrainingDiverged as error:
            result["diverged"] = str(error)
        write_whole(path, lambda part: Path(part).write_text(json.dumps(rounded(result), indent=1)))
        for left in (*folder.glob("averages-*"), folder / "checkpoint.safetensors"):
            left.unlink(missing_ok=True)
        return json.loads(path.read_text())

    def _same(self, folder: Path, asked: dict, found: dict) -> None:
        if any(found[name] != asked[name] for name in asked):
            raise ValueError(
                f"{folder} holds a run with other settings: go on with the same ones, or choose another --out"
            )

    def _trained(self, key: str, folder: Path, asked: dict) -> tuple[Checkpoint, Averages]:
        path, recipe = folder / "checkpoint.safetensors", recipe_of(key)
        if path.exists():
            model = checkpoint.load(path)
            self._same(folder, asked, model.provenance)
        else:
            model = self._fresh(key, asked)
        config, optimizer = model.config, make_optimizer(model.net, model.config)
        averages = Averages(model.net, config.steps)
        if model.step:
            checkpoint.restore_optimizer(model, optimizer)
            averages.load(folder / f"averages-{model.step}.safetensors", model.step)
        stream = data.batches(
            self.train_set, recipe.batch_size, seed=config.seed, start=model.step, flip=recipe.flip
        )
        denoiser = Denoiser(model.net, model.schedule, model.predict)
        began, before, saved = time.process_time(), model.provenance["seconds"], time.monotonic()
        for step in train(denoiser, stream, config, averages, optimizer, start=model.step):
            model.step = step.index
            if time.monotonic() - saved > SAVE_SECONDS or step.index == config.steps:
                model.provenance["seconds"] = before + time.process_time() - began
                print(f"{key}: step {step.index} of {config.steps}, loss {step.loss:.3f}", flush=True)
                # averages first, under a name of their own: the checkpoint names the step, and both are there
                averages.save(folder / f"averages-{step.index}.safetensors")
                checkpoint.save(model, path, optimizer)
                for old in folder.glob("averages-*"):
                    if old.stem != f"averages-{step.index}":
                        old.unlink()
                saved = time.monotonic()
        return model, averages

    def _fresh(self, key: str, asked: dict) -> Checkpoint:
        recipe = recipe_of(key)
        seed = self.settings.seed + sum(variant.luck for variant in parts(key))
        config = train_config(recipe, self.settings, self.steps(key), seed)
        torch.manual_seed(seed)
        net = network(recipe, len(self.train_set.classes))
        where = self.where | asked | {"seconds": 0.0}
        return Checkpoint(net, schedule.make(recipe.schedule), recipe.predict, config, provenance=where)

    def steps(self, key: str) -> int:
        """Training steps that take as long as the baseline's do."""
        return max(1, round(self.settings.steps / self.ratio(key)))

    # --- how good it is ---

    def _measured(self, key: str, model: Checkpoint, averages: Averages, folder: Path) -> dict:
        denoisers = [Denoiser(ema.net, model.schedule, model.predict) for ema in averages.each]
        errors = torch.stack([self._errors(denoiser) for denoiser in denoisers])
        # every level counts alike, though the errors of noisy ones are a hundred times larger
        scores = (errors / errors[0].mean(1, keepdim=True)).mean((1, 2))
        best = int(scores.argmin())
        save_file({"errors": errors[best].contiguous()}, folder / "errors.safetensors")
        recipe = recipe_of(key)
        return {
            "ratio": self.ratio(key),
            "steps": model.step,
            "images": model.step * recipe.batch_size,
            "parameters": sum(parameter.numel() for parameter in model.net.parameters()),
            "seconds": round(model.provenance["seconds"], 1),
            "seed": model.config.seed,
            "ema_share": EMA_SHARES[best],
            "ema_scores": scores / scores[best],
            "error": errors[best].mean(1),
            "samples": {f"{scale:g}": self._samples(key, denoisers[best], scale) for scale in SCALES},
        } | {name: model.provenance[name] for name in ("device", "torch", "commit", "date")}

    def _autocast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.settings.precision == "bf16")

    def _errors(self, denoiser: Denoiser) -> Tensor:
        """(levels, pictures)."""
        count = self.settings.pictures
        images, labels = data.to_float(self.held_out.images[:count]), self.held_out.labels[:count]
        with self._autocast():
            return metrics.denoising_errors(denoiser, images, torch.tensor(LEVELS), labels)

    def _samples(self, key: str, denoiser: Denoiser, scale: float) -> dict:
        print(f"{key}: samples at guidance {scale:g}", flush=True)
        count, plan, drawn = self.settings.samples, denoiser.schedule, []
        labels = torch.arange(count) % len(self.train_set.classes)
        generator = torch.Generator().manual_seed(self.settings.seed)
        noise = sampling.pure_noise((count, 3, 32, 32), plan, generator)
        for x, label in zip(noise.split(50), labels.split(50), strict=True):
            denoise = sampling.clipped(sampling.guided(denoiser, label, scale))
            with self._autocast():
                steps = sampling.SAMPLERS[SAMPLER](denoise, x, plan, plan.times(SAMPLER_STEPS), generator=generator)  # fmt: skip
                x = sampling.last(steps)
            drawn.append(data.to_uint8(x.float().clamp(-1, 1)))
        return self.verdict(torch.cat(drawn), labels)

    def verdict(self, images: Tensor, labels: Tensor) -> dict:
        """What the classifier thinks of images asked for as labels."""
        logits, features = self.judge.verdicts(images), self.judge.features(images)
        right = (logits.argmax(1) == labels).double()
        found = {
            "accuracy": right.mean(),
            "by_class": [right[labels == label].mean() for label in range(len(self.train_set.classes))],
            "frechet": None,
            "frechet_interval": None,
            "recall": metrics.support(features, self.real[: len(features)]).recall,
        }
        if len(features) > self.judge.dims:
            distance = lambda some: metrics.frechet_distance(some, self.real)  # noqa: E731
            found["frechet"] = distance(features)
            found["frechet_interval"] = metrics.bootstrap_interval(distance, features, groups=labels)
        return found

    # --- all of them ---

    def rows(self, keys: list[str]) -> list[dict]:
        """The results of finished variants, the baseline first, each compared with it picture by picture."""
        results = [self.run(key) for key in keys]
        folder = self.out / str(self.settings.steps)
        errors = {
            row["key"]: load_file(folder / row["key"] / "errors.safetensors")["errors"]
            for row in results
            if "diverged" not in row
        }
        base = errors["base"]
        paired = {key: ((mine - base) / base.mean(1, keepdim=True)).mean(0) for key, mine in errors.items()}
        spread = abs(paired["again"].mean().item()) if "again" in paired else 0.0
        rows = []
        for row in results:
            row = {name: value for name, value in row.items() if name not in ("settings", "recipe")}
            row["change"] = {name: value for part in parts(row["key"]) for name, value in part.change.items()}
            if row["key"] in paired:
                change, error = (each.item() for each in mean_and_error(paired[row["key"]]))
                row |= {"score": 1 + change, "score_se": error, "verdict": "tie" if change else ""}
                if abs(change) > max(spread, 2 * error):
                    row["verdict"] = "better" if change < 0 else "worse"
            rows.append(row)
        return rounded(rows)


def winners(rows: list[dict]) -> list[str]:
    """The best variant of each factor: better in its errors, and no worse in its guided samples."""
    base = next(row for row in rows if row["key"] == "base")
    limit = base["samples"]["2.5"]["frechet"]
    best: dict[str, dict] = {}
    for row in rows:
        if row.get("verdict") != "better" or "+" in row["key"]:
            continue
        interval = row["samples"]["2.5"]["frechet_interval"]
        if interval and interval[0] > limit:
            continue
        factor = KNOWN[row["key"]].factor
        if factor not in best or row["score"] < best[factor]["score"]:
            best[factor] = row
    return [row["key"] for row in best.values()]


def finals(rows: list[dict]) -> list[str]:
    """What runs longer: the baseline, all winners together, these on a wider network, and the baseline's other seed."""
    won = winners(rows)
    wide = [key for key in won if KNOWN[key].factor != "shape"] + [WIDER]
    return list(dict.fromkeys(["base", "+".join(won) or "base", "+".join(wide), "again"]))


def table(found: dict) -> str:
    """The stages as Markdown, best first. Samples: at guidance 1 and at 2.5."""
    lines = []
    for stage in found["stages"]:
        lines += [
            f"{stage['steps']:,} steps of the baseline:\n",
            "| variant | step takes | images | error | ± | | EMA | as asked | Fréchet | recall |",
            "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
        ]
        for row in sorted(stage["rows"], key=lambda row: row.get("score", math.inf)):
            if "diverged" in row:
                lines.append(f"| {row['key']} | | | | | diverged | | | | |")
                continue
            how = {
                name: [row["samples"][f"{scale:g}"][name] for scale in SCALES]
                for name in ("accuracy", "frechet", "recall")
            }
            asked, recall = (" / ".join(f"{value:.0%}" for value in how[name]) for name in ("accuracy", "recall"))  # fmt: skip
            frechet = " / ".join("" if value is None else f"{value:.2f}" for value in how["frechet"])
            lines.append(
                f"| {row['key']} | {row['ratio']:.2f} | {row['images']:,} | {row['score']:.3f} | {row['score_se']:.3f} "
                f"| {row['verdict']} | {row['ema_share']:.0%} | {asked} | {frechet} | {recall} |"
            )
        lines.append("")
    return "\n".join(lines)


def publish(stages: list[tuple[Sweep, list[str]]], into: Path) -> dict:
    """Writes what is finished as JSON and as a table."""
    sweep = stages[0][0]
    where = {name: sweep.where[name] for name in ("device", "torch", "commit", "date")}
    about = where | asdict(sweep.settings) | {
        "sampler": SAMPLER, "sampler_steps": SAMPLER_STEPS, "ema_shares": list(EMA_SHARES),
        "features": sweep.judge.extractor, "training_images": len(sweep.train_set),
        "classes": list(sweep.train_set.classes),
    }  # fmt: skip
    about.pop("steps")
    count = sweep.settings.samples
    real = sweep.verdict(sweep.held_out.images[:count], sweep.held_out.labels[:count])
    found = rounded({
        "about": about,
        "levels": list(LEVELS),
        "real": real,
        "stages": [{"steps": each.settings.steps, "rows": each.rows(keys)} for each, keys in stages],
    })  # fmt: skip
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    for suffix, content in (("json", text), ("md", table(found))):
        write_whole(
            into / f"{NAME}.{suffix}",
            lambda part, content=content: Path(part).write_text(content, encoding="utf-8"),
        )
    return found


def main(argv: list[str] | None = None) -> int:
    default = Settings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps", type=int, default=default.steps, help="of the baseline (default: %(default)s)"
    )
    parser.add_argument(
        "--long", type=int, default=3000, help="steps of the finals, 0 for none (default: %(default)s)"
    )
    parser.add_argument("--only", help=f"these beside the baseline, with commas; from {','.join(KNOWN)}")
    parser.add_argument("--data", default=default.data, help="cifar10 or cifar10-full (default: %(default)s)")
    parser.add_argument("--data-root", help="folder of the full set")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--pictures", type=int, default=default.pictures, help="test pictures for the errors")
    parser.add_argument("--samples", type=int, default=default.samples, help="samples to judge")
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), default=default.precision, help="fp32 where there is no bf16"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs") / NAME, help="folder of the runs")
    parser.add_argument("--into", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)

    torch.set_num_threads(args.threads)
    settings = Settings(args.steps, args.data, args.seed, args.pictures, args.samples, args.precision)
    keys = args.only.split(",") if args.only else list(KNOWN)
    keys = list(dict.fromkeys(["base", *keys]))
    try:
        for key in keys:
            parts(key)
        args.out.mkdir(parents=True, exist_ok=True)
        with locked(args.out):
            sweep = Sweep(settings, args.out, args.data_root)
            for key in keys:
                sweep.ratio(key)
            stages = [(sweep, [])]
            _run(stages, keys, args.out)
            if args.long:
                longer = copy.copy(sweep)
                longer.settings = replace(settings, steps=args.long)
                stages.append((longer, []))
                _run(stages, finals(sweep.rows(keys)), args.out)
            # the folder of the results gets a whole sweep or none
            publish(stages, args.into)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last save", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"{NAME}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _run(stages: list[tuple[Sweep, list[str]]], keys: list[str], out: Path) -> None:
    """Runs the keys of the last stage; after each, all that is finished can be looked at in the folder of the runs."""
    sweep, done = stages[-1]
    for key in keys:
        sweep.run(key)
        done.append(key)
        print("\n" + table(publish(stages, out)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
