"""Chapter 1 shows one drawing of each kind. What do many seeds say?

    python experiments/chapter_01.py               some ten minutes on one idle core; stored after each part
    python experiments/chapter_01.py --noises 4    fewer digits

It repeats two of the chapter's experiments, with the chapter's own loop. *Ends*: eight dots with their own starts and one noise for
all, and eight with one start and their own noises; how far apart are the two ends that are farthest apart? *Style*: the ten digits
from one noise, for many noises; how much of the ink and of the slant of a digit does the noise settle? Everything is stored in
experiments/results/chapter_01.json.

What it found (40 seeds, 32 noises, one CPU thread, 33 minutes on a busy machine): with one noise for all, eight dots end within 0.15
of each other; with one start and their own noises, at least 2.4 apart. Among digits of one label the noise explains 64 % of the
variance of the ink (52 to 72, 95 % of resampled noises) and 43 % of that of the slant (26 to 56), 22 points less (7 to 37); 14 % would
be reached by chance in one of twenty tries.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from ddpm_lib import checkpoint, files, schedule
from ddpm_lib.data import load_images, to_float
from ddpm_lib.toy import shape_points

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = ROOT / "book" / "01_from_noise_to_a_picture.ipynb"
RECORD = Path(__file__).parent / "results" / "chapter_01.json"
SEEDS = range(100, 140)
NOISES = 32


def chapter() -> dict:
    """The chapter's tables, functions and cat."""
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(CHAPTER.read_text())["cells"]}
    names = {"torch": torch}
    for name in ("the-loop", "best-guess"):
        exec(cells[name], names)
    names["cat"] = shape_points("cat", 1500, torch.Generator().manual_seed(0))
    return names


def ends(book: dict, seed: int) -> dict:
    """The largest distance between two of eight ends, in both experiments."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randn(8, 2, generator=generator)

    def guess(x, t):
        return book["best_guess"](x, t, book["cat"])

    one_noise = book["draw"](guess, starts, generator, same_noise=True)[0]
    one_start = book["draw"](guess, starts[:1].expand(8, 2), generator)[0]
    far = [round(torch.cdist(each, each).max().item(), 4) for each in (one_noise, one_start)]
    return {"seed": seed, "one noise": far[0], "one start": far[1]}


@torch.no_grad()
def siblings(book: dict, seeds: range) -> Tensor:
    """The digits 0 to 9 from one noise each seed, before and on the way: (seeds, 10, 1, 28, 28)."""
    noises = [torch.randn(201, 1, 28, 28, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    noises = torch.stack(noises, 1).repeat_interleave(10, 1)  # (201, seeds * 10, 1, 28, 28)
    model = checkpoint.pretrained("mnist28").denoiser()
    table = schedule.linear(book["T"], 0.0005, 0.1)
    model = type(model)(model.net, table, model.predict)
    labels = torch.arange(10).repeat(len(seeds))
    x = noises[0]
    for t in range(book["T"], 0, -1):
        eps = book["noise_in"](x, model(x, t / book["T"], labels), t)
        x = book["step_back"](x, eps, t, noises[t])
    return x.unflatten(0, (len(seeds), 10))


def ink(images: Tensor) -> Tensor:
    """The mean brightness, from 0 to 1: of (..., 1, 28, 28), (...)."""
    return images.add(1).div(2).clamp(0, 1).mean((-3, -2, -1))


def slant(images: Tensor) -> Tensor:
    """How far a digit leans to the right, in columns for each row upwards: its second moments' ratio; (...)."""
    weights = images.add(1).div(2).clamp(0, 1).squeeze(-3)
    weights = weights / weights.sum((-2, -1), keepdim=True)
    up, right = torch.arange(28.0).flip(0)[:, None], torch.arange(28.0)
    up, right = (axis - (weights * axis).sum((-2, -1), keepdim=True) for axis in (up, right))
    return (weights * up * right).sum((-2, -1)) / (weights * up**2).sum((-2, -1))


def settled(values: Tensor) -> float:
    """The share of the variance within a label that the noise explains. values: (noises, 10).

    Where the noise settles nothing it is about a tenth, since the mean of ten values keeps a tenth of their variance.
    """
    rest = values - values.mean(0)
    return (rest.mean(1).square().mean() / rest.square().mean()).item()


def by_chance(values: Tensor, tries: int = 10_000) -> float:
    """What settled reaches in one of twenty tries where each label has its noises in an order of its own."""
    generator = torch.Generator().manual_seed(0)
    orders = torch.rand(tries, *values.shape, generator=generator).argsort(1)
    rest = (values - values.mean(0)).expand(tries, -1, -1).gather(1, orders)
    return (rest.mean(2).square().mean(1) / rest.square().mean((1, 2))).quantile(0.95).item()


def interval(measure, tries: int = 5_000) -> tuple[float, float]:
    """Between what 95 % of tries lie that take the noises anew, with replacement. measure(rows) -> a number, rows whole numbers."""
    generator = torch.Generator().manual_seed(0)
    found = [measure(torch.randint(NOISES, (NOISES,), generator=generator)) for _ in range(tries)]
    low, high = torch.tensor(found).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def written(record: dict) -> str:
    """JSON with a line for each entry of a list."""
    lines = []
    for key, value in record.items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--noises", type=int, default=NOISES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began, book = time.time(), chapter()
    record = {"device": "cpu", "ends": [ends(book, seed) for seed in SEEDS], "ink": [], "slant": []}
    digits = to_float(load_images("mnist").images)
    record["mnist leans right"] = round((slant(digits) > 0).float().mean().item(), 3)
    for first in range(0, arguments.noises, 4):
        images = siblings(book, range(first, min(first + 4, arguments.noises)))
        for name, measure in (("ink", ink), ("slant", slant)):
            record[name] += [[round(value, 4) for value in row] for row in measure(images).tolist()]
        record["seconds"] = round(time.time() - began)
        text = written(record)
        files.write_whole(RECORD, lambda part, text=text: Path(part).write_text(text, encoding="utf-8"))
        print(f"{len(record['ink'])} noises, {record['seconds']} s", flush=True)
    for name in ("ink", "slant"):
        values = torch.tensor(record[name])
        low, high = (
            interval(lambda rows, values=values: settled(values[rows])) if len(values) == NOISES else (0, 1)
        )
        print(f"{name}: {settled(values):.0%} ({low:.0%} to {high:.0%}), {by_chance(values):.0%} by chance")


if __name__ == "__main__":
    main()
