"""Chapter 3 shows one noise, and 150 or 200 digits at a time. What do many say?

    python experiments/chapter_03.py               about ten minutes on one core; stored after each part
    python experiments/chapter_03.py drawn walk    only these parts, made anew

Everything is measured on the digits that come with the library, 10,000 for training and 1,000 for testing, under the chapter's chain of
200 steps, and stored in experiments/results/chapter_03.json.

What it found (seeds 0 to 19 or as stored, one CPU thread):
- rivals: between a digit and the nearest other training digit lies a squared distance of 93 (median), for ones of 16.
- counts: of 200 noisy digits the median effective number at t = 100 is 19 to 34; at t = 60 the weight is shared for half of the ones
  and for almost none of the others.
- underflow: exponentials in float64 are all zero for all test digits at t = 5, for six in ten at t = 20, for no training digit.
- mistaken: at t = 20 the perfect denoiser names a wrong digit for one test digit in twenty; digit B is a three or a five, never an eight.
- errors: on 1,000 training and 1,000 test digits the network errs alike at every step.
- walk: on the way from one noisy test digit to another, cut in 40, the perfect denoiser's guess goes 50 to 89 % of its way in one
  step, the network's 6 to 12 %.
- drawn: the network's digits lie 0.030 to 0.058 farther from the training images than test digits do (2.9 to 5.5 standard errors).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ddpm_lib import files, schedule
from ddpm_lib.checkpoint import pretrained
from ddpm_lib.data import load_images, to_float
from ddpm_lib.metrics import nearest
from ddpm_lib.sampling import ddpm, last
from ddpm_lib.toy import FiniteSet, Gaussian, shape_points

RECORD = Path(__file__).parent / "results" / "chapter_03.json"
T = 200
TABLE = schedule.linear(T, 0.0005, 0.1)
STEPS = (1, 5, 20, 40, 60, 80, 100, 120, 150, 200)


class Digits:
    """The digits, their labels, and the chapter's three guessers by name."""

    def __init__(self):
        train, test = load_images("mnist"), load_images("mnist", split="test")
        self.known, self.strangers = to_float(train.images), to_float(test.images)
        self.labels, self.test_labels = train.labels, test.labels
        self.world = FiniteSet(self.known)
        pixels = self.known.flatten(1).double()
        bell = Gaussian(pixels.mean(0), pixels.T.cov()).denoiser(TABLE)
        model = replace(pretrained("mnist28").denoiser(), schedule=TABLE)
        self.guessers = {
            "10,000 points": self.world.denoiser(TABLE),
            "Gaussian": lambda x, t: bell(x.flatten(1), t).view(x.shape),
            "network": lambda x, t: model(x, t, None),
        }

    def noisy(self, clean: Tensor, t: int, seed: int) -> Tensor:
        eps = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        return TABLE.add_noise(clean, t / T, eps)

    def weights(self, noisy: Tensor, t: int) -> Tensor:
        """Of all training digits, for each noisy one: (B, 10000)."""
        return torch.cat([self.world.posterior(part, TABLE, t / T) for part in noisy.split(250)])


def rivals(digits: Digits, count: int = 2000) -> dict:
    """Squared distances from training digits to the nearest other one, and from test digits to the nearest."""
    pixels = digits.known.flatten(1).double()
    squares = torch.cdist(pixels[:count], pixels).square()
    squares[torch.arange(count), torch.arange(count)] = torch.inf
    near, ones = squares.min(1).values, digits.labels[:count] == 1
    test = torch.cdist(digits.strangers.flatten(1).double(), pixels).min(1).values.square()
    return {
        "median": near.median().item(),
        "median of ones": near[ones].median().item(),
        "test, mean per pixel": test.mean().item() / 784,
    }


def counts(digits: Digits, seeds: range = range(20), count: int = 200) -> dict:
    """The medians of effective numbers at t = 100, and how often the weight is shared at t = 60."""
    medians, shared, one = [], [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(digits.known), generator=generator)[:count]
        one.append(digits.labels[chosen] == 1)
        for t in (60, 100):
            w = digits.weights(digits.noisy(digits.known[chosen], t, seed + 1000), t)
            number = (-torch.special.xlogy(w, w).sum(1)).exp()
            medians += [number.median().item()] * (t == 100)
            shared += [number > 1.5] * (t == 60)
    shared, one = torch.cat(shared).double(), torch.cat(one)
    return {
        "medians at t = 100": medians,
        "shared at t = 60, ones": shared[one].mean().item(),
        "shared at t = 60, others": shared[~one].mean().item(),
    }


def underflow(digits: Digits, count: int = 1000) -> dict:
    """The share of digits for which exp(-distance^2 / 2s^2) in float64 is zero for every training image; the same for dots of a
    cat in float32, where the probes are N(0, I) and not noisy dots of the cat."""
    found = {}
    for name, clean in (("training", digits.known[:count]), ("test", digits.strangers[:count])):
        found[name] = {}
        for t in (5, 10, 20, 40):
            a, s = (float(value) for value in TABLE.signal_noise(t / T))
            x = digits.noisy(clean, t, 0).flatten(1).double()
            squares = torch.cdist(x, a * digits.known.flatten(1).double()).square()
            zero = torch.exp(-squares / (2 * s**2)).sum(1) == 0
            found[name][str(t)] = zero.double().mean().item()
    found["cat, other probes"] = {}
    for t in (1, 2, 5, 20):
        a, s = (value.float() for value in TABLE.signal_noise(t / T))
        shares = []
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            cat, x = shape_points("cat", 400, generator), torch.randn(2000, 2, generator=generator)
            weights = torch.exp(-torch.cdist(x, a * cat).square() / (2 * s**2))
            shares.append((weights.sum(1) == 0).double().mean().item())
        found["cat, other probes"][str(t)] = sum(shares) / len(shares)
    return found


def mistaken(digits: Digits, seeds: range = range(20), t: int = 20) -> dict:
    """The share of test digits whose most probable label is wrong, and what digit B is taken for."""

    def named(noisy: Tensor) -> Tensor:
        weights = digits.weights(noisy, t)
        return torch.zeros(len(noisy), 10).double().index_add_(1, digits.labels, weights).argmax(1)

    wrong = [
        (named(digits.noisy(digits.strangers, t, seed)) != digits.test_labels).double().mean().item()
        for seed in seeds[:3]
    ]
    eight = digits.strangers[28:29]
    return {"wrong": wrong, "B": [named(digits.noisy(eight, t, seed)).item() for seed in seeds]}


@torch.no_grad()
def errors(digits: Digits, count: int = 1000, steps: tuple[int, ...] = STEPS) -> dict:
    """Squared errors per pixel of the three guessers, with standard errors; on test digits also their differences from the network."""
    chosen = torch.randperm(len(digits.known), generator=torch.Generator().manual_seed(0))[:count]
    sets = {"training": digits.known[chosen], "test": digits.strangers[:count]}
    found = {}
    for t in steps:
        for seed, (where, clean) in enumerate(sets.items(), 1):
            noisy = digits.noisy(clean, t, seed)
            each = {}
            for who, guess in digits.guessers.items():
                parts = zip(noisy.split(200), clean.split(200), strict=True)
                each[who] = torch.cat([(guess(x, t / T) - x0).square().mean((1, 2, 3)) for x, x0 in parts])
            row = {who: _mean_and_error(value) for who, value in each.items()}
            for who in ("10,000 points", "Gaussian"):
                row[f"{who} - network"] = _mean_and_error(each[who] - each["network"])
            found.setdefault(where, {})[str(t)] = row
    return found


@torch.no_grad()
def walk(digits: Digits, pairs: int = 12, steps: tuple[int, ...] = (40,)) -> dict:
    """From one noisy test digit to another in 40 equal steps: the longest step of the guess, as a share of the way between its ends."""
    found = {}
    for t in steps:
        generator = torch.Generator().manual_seed(11)
        shares = {who: [] for who in digits.guessers}
        for _ in range(pairs):
            first, second = digits.strangers[torch.randperm(1000, generator=generator)[:2]]
            eps = torch.randn(1, 1, 28, 28, generator=generator)
            along = torch.linspace(0, 1, 41)[:, None, None, None]
            noisy = TABLE.add_noise(torch.lerp(first, second, along), t / T, eps)
            for who, guess in digits.guessers.items():
                said = guess(noisy, t / T).flatten(1)
                longest = (said[1:] - said[:-1]).norm(dim=1).max()
                shares[who].append((longest / (said[-1] - said[0]).norm()).item())
        found[str(t)] = shares
    return found


@torch.no_grad()
def drawn(digits: Digits, seeds: range = range(5, 15), count: int = 150) -> list[dict]:
    """Distances of the network's digits to the nearest training image, beside those of as many test digits."""
    test = nearest(digits.strangers[:count], digits.known)[0]
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, 1, 28, 28, generator=generator)
        guess, times = digits.guessers["network"], TABLE.times(50)
        samples = last(ddpm(guess, noise, TABLE, times, "posterior", generator))
        far = nearest(samples, digits.known)[0]
        gap, error = (far.mean() - test.mean()).item(), ((far.var() + test.var()) / count).sqrt().item()
        row = {"seed": seed, "mean": far.mean().item(), "nearest": far.min().item(), "gap": gap}
        rows.append(row | {"standard errors": gap / error, "nearest of test": test.min().item()})
        print(rows[-1], flush=True)
    return rows


def _mean_and_error(values: Tensor) -> list[float]:
    return [values.mean().item(), values.double().std().item() / len(values) ** 0.5]


PARTS: tuple[Callable, ...] = (rivals, counts, underflow, mistaken, errors, walk, drawn)


def rounded(value):
    """Four significant digits, in whatever lists and dictionaries."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    names = [part.__name__ for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*names, []], help="only these")
    asked = parser.parse_args().parts or names
    torch.set_num_threads(1)
    record = (
        json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {"device": "cpu, 1 thread"}
    )
    digits = Digits()
    for part in PARTS:
        if part.__name__ in asked:
            began = time.process_time()
            record[part.__name__] = rounded(part(digits))
            seconds = round(time.process_time() - began)
            record.setdefault("seconds", {})[part.__name__] = seconds
            text = json.dumps(record, indent=1)
            files.write_whole(
                RECORD, lambda to, text=text: Path(to).write_text(text + "\n", encoding="utf-8")
            )
            print(f"{part.__name__}: {seconds} s", flush=True)


if __name__ == "__main__":
    main()
