"""Chapter 2 lets an exact denoiser draw through a chain that is too short, with one seed. What do other seeds say, and a trained network?

    python experiments/chapter_02.py             about six minutes of one core
    python experiments/chapter_02.py --seeds 1   the first seed of the exact denoiser, and no network

The exact denoiser is that of the chapter's 500 digits, and one noise serves all arms of a seed. The network is `mnist28`, which comes
with the package. It draws 200 digits without a label, in 50 steps of each chain, and the shipped classifier reads them.

What it found (seeds 0 to 4, one CPU thread): from pure noise the short chain draws a brightness of -0.673 to -0.667 and 0.2 to 2.0 %
ones, where the data have -0.737 and 10 %. From true starts, with the betas times 5 and with zero terminal SNR, the brightness lies
between -0.748 and -0.735 and the ones between 8.8 and 13.6 %. The network (seed 0) draws -0.62 and no 1 from pure noise, -0.75 and
15.5 % from true starts, and -0.75 and 10.5 % with the betas times 5.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from ddpm_lib import chain, checkpoint, files, sampling, schedule
from ddpm_lib.data import load_images, to_float, to_uint8
from ddpm_lib.judge import make_judge
from ddpm_lib.toy import FiniteSet

RECORD = Path(__file__).parent / "results" / "chapter_02.json"
SHORT = schedule.linear(200)
CURES = {
    "betas times 5": schedule.linear(200, 0.0005, 0.1),
    "zero terminal SNR": schedule.from_chain(chain.rescale_zero_terminal(chain.linear(200))),
}
ONE = 1


def draw(denoise, table, start: Tensor, steps: int, seed: int) -> Tensor:
    """What the loop of the chapter returns: fresh noise of the posterior's variance, from a seed."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return sampling.last(sampling.ddpm(denoise, start, table, table.times(steps), "posterior", generator))


def arms(digits: Tensor, noise: Tensor, generator: torch.Generator) -> dict:
    """Name -> (schedule, start). All arms have the same noise."""
    chosen = torch.randint(len(digits), (len(noise),), generator=generator)
    true_start = SHORT.add_noise(digits[chosen], 1.0, noise)
    return {"short chain": (SHORT, noise), "short chain, true start": (SHORT, true_start)} | {
        name: (table, noise) for name, table in CURES.items()
    }


def row(who: str, arm: str, seed: int, x: Tensor, ones: Tensor) -> dict:
    bright = x.mean((1, 2, 3))
    return {
        "who": who,
        "arm": arm,
        "seed": seed,
        "count": len(x),
        "brightness": round(float(bright.mean()), 4),
        "brightness_sd": round(float(bright.std()), 4),
        "percent_ones": round(100 * float(ones.float().mean()), 2),
    }


def exact(seed: int, count: int = 500) -> list[dict]:
    """The chapter's 500 digits and their exact denoiser; a drawn digit is read by the nearest of the 500."""
    mnist = load_images("mnist")
    digits, labels = to_float(mnist.images[:500]), mnist.labels[:500]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, *digits.shape[1:], generator=generator)
    rows = []
    for arm, (table, start) in arms(digits, noise, generator).items():
        x = draw(FiniteSet(digits).denoiser(table), table, start, table.steps, seed)
        nearest = torch.cdist(x.flatten(1), digits.flatten(1)).argmin(1)
        rows.append(row("exact", arm, seed, x, labels[nearest] == ONE))
    return rows


def network(seed: int = 0, count: int = 200, steps: int = 50) -> list[dict]:
    """mnist28 without a label. True starts are digits of the package's 10,000; these are measured as well, as "data"."""
    model, judge = (
        checkpoint.pretrained("mnist28").denoiser(),
        make_judge("classifier", load_images("mnist").classes),
    )
    images = load_images("mnist").images
    read = lambda x: judge.verdicts(to_uint8(x)).argmax(1) == ONE  # noqa: E731
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, *images.shape[1:], generator=generator)
    rows = [row("network", "data", seed, to_float(images), read(to_float(images)))]
    tables = arms(to_float(images), noise, generator)
    del tables["zero terminal SNR"]
    for arm, (table, start) in tables.items():
        x = draw(type(model)(model.net, table, model.predict), table, start, steps, seed)
        rows.append(row("network", arm, seed, x, read(x)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    began = time.time()
    rows = [each for seed in range(seeds) for each in exact(seed)]
    if seeds > 1:
        rows += network()
    where = checkpoint.provenance(torch.device("cpu"))
    record = {name: where[name] for name in ("device", "torch", "date")} | {
        "minutes": round((time.time() - began) / 60)
    }
    text = json.dumps(record | {"runs": rows}, indent=1) + "\n"
    files.write_whole(RECORD, lambda path: Path(path).write_text(text))
    for each in rows:
        print(*each.values())


if __name__ == "__main__":
    main()
