"""How soon can two processor cores draw digits on request, starting from nothing?

    python benchmarks/speedrun_mnist.py                     our recipe, from three seeds
    python benchmarks/speedrun_mnist.py --record            and keep the outcome in benchmarks/records/
    python benchmarks/speedrun_mnist.py --ablate            what each part of the recipe is worth
    python benchmarks/speedrun_mnist.py --peer diffusers    diffusers' network, by its own documentation
    python benchmarks/speedrun_mnist.py --peer lucidrains   denoising-diffusion-pytorch's, likewise

The rules. The clock starts with the 10,000 embedded training images in memory and nothing else made; it stops
when 1,000 new digits are drawn, 100 of each kind. At least 90 % of them must be read as asked by the classifier
in the package, which is itself 99 % right and takes no part in training. Their recall must be at least half of
what real digits get, so that ten good pictures drawn over and over do not count. Both in the mean over the seeds.

Peers train for 15 minutes, and are looked at with the clock stopped, so that drawing costs them nothing: now and
then, or once at the end where drawing takes minutes. They come with `pip install -e '.[bench]'`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from speedrun import RECORDS, Judge, Recipe, Track, at_least_one, line, main, measure, summary
from torch import Tensor
from tqdm import tqdm

from ddpm_lib import data, files
from ddpm_lib.checkpoint import device_name
from ddpm_lib.training import TrainConfig
from ddpm_lib.unet import UNetConfig

TRACK = Track(
    name="speedrun_mnist",
    title="Speedrun: conditional MNIST, 28 x 28, two processor cores",
    data="mnist",
    accuracy=0.9,
    threads=2,
    note="The rules stand in the first lines of the script; [what each part is worth](speedrun_mnist_ablation.md).",
    recipe=Recipe(
        net=UNetConfig(28, 1, 10, width=32, multipliers=(1, 1), blocks=1, attention=(), head_dim=16, patch=2),
        train=TrainConfig(
            steps=240,
            optimizer="muon",
            lr=1e-2,
            warmup=10,
            decay="linear",
            label_dropout=0.1,
            precision="auto",
        ),
        batch_size=32,
        schedule="cosine",
        predict="x0",
        ema_half_life=30,
        sampler="dpm++2m",
        steps=5,
        scale=2.5,
    ),
)
R = TRACK.recipe
WITHOUT = {
    "the recipe": R,
    "Adam at its usual rate, 3e-3": replace(R, train=replace(R.train, optimizer="adam", lr=3e-3)),
    "predicts v": replace(R, predict="v"),
    "predicts the noise": replace(R, predict="eps"),
    "predicts velocity on the flow path": replace(R, schedule="flow", predict="flow"),
    "times logit-normal": replace(R, train=replace(R.train, times="logit-normal")),
    "no guidance": replace(R, scale=1.0),
    "no average of the weights": replace(R, ema_half_life=0.1),
    "rate does not decay": replace(R, train=replace(R.train, decay="none")),
    "batches of 16, twice the steps": replace(
        R, batch_size=16, train=replace(R.train, steps=2 * R.train.steps)
    ),
    "batches of 64, half the steps": replace(
        R, batch_size=64, train=replace(R.train, steps=R.train.steps // 2)
    ),
    "attention on 7 x 7 too": replace(R, net=replace(R.net, attention=(1,))),
    "twice the width on 7 x 7": replace(R, net=replace(R.net, multipliers=(1, 2))),
    "patches of 4": replace(R, net=replace(R.net, patch=4, multipliers=(2,))),
    "no patches, an eighth of the steps": replace(
        R,
        net=replace(R.net, patch=1, multipliers=(1, 1, 1)),
        train=replace(R.train, steps=R.train.steps // 8),
    ),
}
"""The recipe with one thing changed at a time. A half-life of 0.1 steps forgets all but the last weights."""
MINUTES = 15
LOOKS = {"diffusers": (1, 2, 4, 8), "lucidrains": ()}
LOOKED_AT = {"diffusers": 200, "lucidrains": 100}


def diffusers(digits: data.ImageSet) -> tuple[Callable[[], None], Callable[[Tensor], Tensor]]:
    """Class-conditioned MNIST as in the second unit of Hugging Face's diffusion course."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    net = UNet2DModel(
        sample_size=28, in_channels=5, out_channels=1, layers_per_block=2, block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    embedding = torch.nn.Embedding(10, 4)
    optimizer = torch.optim.Adam([*net.parameters(), *embedding.parameters()], lr=1e-3)
    noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    pairs = data.batches(digits, 128)

    def predict(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        maps = embedding(label)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return net(torch.cat([x, maps], 1), t).sample

    def step() -> None:
        x, label = next(pairs)
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        loss = F.mse_loss(predict(noising.add_noise(x, noise, t), t, label), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def draw(labels: Tensor) -> Tensor:
        # the course draws with all 1000 steps; 50 of DDIM cost a twentieth
        sampler = DDIMScheduler.from_config(noising.config)
        sampler.set_timesteps(50)
        x = torch.randn(len(labels), 1, 28, 28)
        for t in sampler.timesteps:
            x = sampler.step(predict(x, t, labels), t, x).prev_sample
        return x

    return step, draw


def lucidrains(digits: data.ImageSet) -> tuple[Callable[[], None], Callable[[Tensor], Tensor]]:
    """Classifier-free guidance as its README shows it, with the batch, rate and average of its Trainer."""
    from denoising_diffusion_pytorch.classifier_free_guidance import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    # four levels halve the picture three times: 28 does not divide by 8, so the digits get a margin
    net = Unet(dim=64, dim_mults=(1, 2, 4, 8), num_classes=10, cond_drop_prob=0.5, channels=1)
    diffusion = GaussianDiffusion(net, image_size=32, timesteps=1000, sampling_timesteps=50)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99))
    average = EMA(diffusion, beta=0.995, update_every=10)
    pairs = data.batches(digits, 16)

    def step() -> None:
        x, label = next(pairs)
        loss = diffusion(F.pad(x, (2,) * 4, value=-1.0) / 2 + 0.5, classes=label)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    def draw(labels: Tensor) -> Tensor:
        drawn = average.ema_model.sample(classes=labels, cond_scale=3.0)
        return drawn[:, :, 2:-2, 2:-2] * 2 - 1

    return step, draw


def ablate(seeds: int) -> None:
    """Runs every changed recipe over the seeds; prints the means and writes them to a table."""
    torch.set_num_threads(TRACK.threads)
    digits, held_out = data.load_images("mnist"), data.load_images("mnist", "test")
    judge = Judge(digits, held_out)
    rows = {}
    for name, recipe in WITHOUT.items():
        rows[name] = summary(
            [measure(recipe, digits, judge, seed, torch.device("cpu")) for seed in range(seeds)]
        )
        print(line(rows[name], rows[name].passes(TRACK.accuracy), name, width=36), flush=True)
    lines = [
        "# What each part of the MNIST recipe is worth\n",
        f"Made by `python benchmarks/speedrun_mnist.py --ablate --seeds {seeds}` on {device_name(torch.device('cpu'))}: the "
        f"recipe with one thing changed at a time, the mean over {seeds} seeds (of the seconds, the median). It passes with "
        "90 % as asked and a recall of half of what real digits get.\n",
        "| changed | seconds | of training | as asked | recall | precision | coverage | Fréchet distance | passes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {name} | {row.seconds:.1f} | {row.of_training:.1f} | {row.label_accuracy:.1%} | {row.recall:.2f} | "
        f"{row.precision:.2f} | {row.coverage:.2f} | {row.frechet:.2f} | {'yes' if row.passes(TRACK.accuracy) else 'no'} |"
        for name, row in rows.items()
    ]
    path = RECORDS / "speedrun_mnist_ablation.md"
    files.write_whole(path, lambda part: Path(part).write_text("\n".join(lines) + "\n", encoding="utf-8"))
    print(path)


PEERS = {"diffusers": diffusers, "lucidrains": lucidrains}
PACKAGES = {"diffusers": ("diffusers",), "lucidrains": ("denoising_diffusion_pytorch", "ema_pytorch")}


def race_peer(
    name: str, minutes: float = MINUTES, looked_at: int | None = None
) -> Iterator[tuple[float, int, float]]:
    """Trains a peer; yields (seconds of training, steps, share of samples as asked) at each look."""
    digits, held_out = data.load_images("mnist"), data.load_images("mnist", "test")
    judge = Judge(digits, held_out)
    labels = torch.arange(looked_at or LOOKED_AT[name]) % 10
    torch.manual_seed(0)
    clock, steps, looks = 0.0, 0, [60 * look for look in LOOKS[name] if look < minutes] + [60 * minutes]
    step, draw = PEERS[name](digits)
    bar = tqdm(total=round(60 * minutes), unit="s", leave=False, bar_format="{l_bar}{bar}| {n:.0f}/{total} s")
    for look in looks:
        while clock < look:
            began = time.perf_counter()
            step()
            took = time.perf_counter() - began
            clock, steps = clock + took, steps + 1
            bar.update(took)
        with torch.no_grad():
            samples = torch.cat([data.to_uint8(draw(part)) for part in labels.split(50)])
        yield clock, steps, judge.accuracy(samples, labels)
    bar.close()


def run_peer(name: str, minutes: float, record: bool) -> None:
    """Prints how far a peer gets; keeps it in the table of peers if asked to."""
    missing = [package for package in PACKAGES[name] if not find_spec(package)]
    if missing:
        sys.exit(f"{name} is not installed ({', '.join(missing)}): pip install -e '.[bench]'")
    torch.set_num_threads(TRACK.threads)
    device = device_name(torch.device("cpu"))
    print(
        f"{name} on {device}, up to {minutes:g} minutes of training; looked at with {LOOKED_AT[name]} samples"
    )
    looks = []
    for seconds, steps, accuracy in race_peer(name, minutes):
        print(f"{seconds:>8.0f} s{steps:>8,} steps{accuracy:>8.1%} as asked", flush=True)
        looks.append({"seconds": round(seconds), "steps": steps, "label_accuracy": accuracy})
        if accuracy >= TRACK.accuracy:
            break
    print(("reached" if accuracy >= TRACK.accuracy else "did not reach") + f" {TRACK.accuracy:.0%}")
    if record:
        keep_peer(RECORDS, {"name": name, "device": device, "samples": LOOKED_AT[name], "looks": looks})


def keep_peer(folder: Path, run: dict) -> Path:
    """Puts a peer's run in the place of its last one, and writes the table of all peers anew."""
    stored, table = folder / "speedrun_mnist_peers.json", folder / "speedrun_mnist_peers.md"
    runs = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else []
    runs = sorted([*(r for r in runs if r["name"] != run["name"]), run], key=lambda r: r["name"])
    lines = [
        "# Peers on the MNIST track\n",
        "Made by `python benchmarks/speedrun_mnist.py --peer NAME --record`, one seed each, with the recipe of each "
        "package's own documentation. The clock counts training alone; our [record](speedrun_mnist.md) counts drawing too. 10% is chance.\n",
        "| package | device | seconds of training | steps | samples | as asked |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r['name']} | {r['device']} | {look['seconds']} | {look['steps']:,} | {r['samples']} | {look['label_accuracy']:.1%} |"
        for r in runs
        for look in r["looks"]
    ]
    for path, text in (stored, json.dumps(runs, indent=1)), (table, "\n".join(lines)):
        files.write_whole(path, lambda part, text=text: Path(part).write_text(text + "\n", encoding="utf-8"))
    return table


if __name__ == "__main__":
    peer = argparse.ArgumentParser(add_help=False)
    peer.add_argument("--peer", choices=PEERS)
    peer.add_argument("--minutes", type=float, default=MINUTES)
    peer.add_argument("--ablate", action="store_true")
    chosen, rest = peer.parse_known_args()
    if chosen.peer:
        run_peer(chosen.peer, chosen.minutes, record="--record" in rest)
    elif chosen.ablate:
        seeds = argparse.ArgumentParser(description="What each part of the recipe is worth.")
        seeds.add_argument("--seeds", type=at_least_one, default=2, help="runs of each (default: 2)")
        ablate(seeds.parse_args(rest).seeds)
    else:
        main(TRACK, __doc__, rest)
