"""Chapter 5: where may a network that is asked for the noise start, and does `v` draw better than clipped noise?

    python experiments/chapter_05.py             half an hour on one core; stored after each run
    python experiments/chapter_05.py --seeds 3   the first three

The code that trains and draws is the chapter's own, taken from its cells as in five_names.py. With the chapter's recipe
(Adam at 1e-2, 700 steps) each network also draws without clipping from other first steps than T, and the grain of its
gradient is measured at the chapter's stops. The other recipes change the rate or the number of steps. Each run is stored in
experiments/results/chapter_05.json with a fingerprint of that code: if the chapter changes, they are made again.

What it found (seeds 0 to 5, one CPU thread): the failure of unclipped noise is one step. From t = 1000 at most 1 % of the dots
are valid, from 999 13 to 33 %, from 980 89 to 92 %, as many as with clipping. Which of clipped eps, v and flow draws best
depends on the recipe: with 300 steps eps beats v in five seeds of six, at a rate of 3e-3 v beats eps in five of six, and flow
is ahead of both with every seed there; with 2,000 steps they are within two points of each other.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
from pathlib import Path

import five_names
import torch

from ddpm_lib import checkpoint, files

RECORD = Path(__file__).parent / "results" / "chapter_05.json"
USUAL = (1e-2, 700)
RECIPES = (USUAL, (1e-2, 300), (3e-3, 700), (1e-2, 2000))
"""Rate at the start and number of steps."""
STARTS = (1000, 999, 998, 995, 990, 980, 960)
NAMES = ("eps", "x0", "v", "score", "flow")
WITHOUT_SCORE = ("eps", "x0", "v", "flow")


def grain_source() -> str:
    """The function of the chapter that measures the grain of a gradient."""
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(five_names.CHAPTER.read_text())["cells"]}  # fmt: skip
    (function,) = (node for node in ast.parse(cells["grain-code"]).body if isinstance(node, ast.FunctionDef))
    return ast.get_source_segment(cells["grain-code"], function)


def fingerprint() -> str:
    return hashlib.sha256((five_names.source() + grain_source()).encode()).hexdigest()[:16]


def chapter() -> dict:
    """The names that the chapter has at hand, its measure of the grain among them."""
    book = five_names.chapter()
    exec(grain_source(), book)
    return book


def planned(seeds: int) -> list[tuple[str, int, float, int]]:
    """name, seed, rate, steps of every run; under the score the chapter's recipe alone."""
    return [
        (name, seed, rate, steps)
        for rate, steps in RECIPES
        for seed in range(seeds)
        for name in (NAMES if (rate, steps) == USUAL else WITHOUT_SCORE)
    ]


def one(book: dict, name: str, seed: int, rate: float, steps: int, starts=STARTS) -> dict:
    """Trains one network and measures it. With the chapter's recipe: from several first steps, and its grain."""
    net = book["train"](name, seed=seed, rate=rate, steps=steps)
    free, clipped = book["draw_both"](net, name)
    row = {"name": name, "seed": seed, "rate": rate, "steps": steps}
    row |= {"valid": round(book["valid"](free), 4), "clipped": round(book["valid"](clipped), 4)}
    row["width"] = round(width(book, clipped), 4)
    if (rate, steps) == USUAL:
        guess = book["guess_of"](net, name)
        row["starts"] = {str(t): round(book["valid"](book["draw"](guess, t)), 4) for t in starts}
        row["grain"] = {str(t): float(f"{book['grain'](net, name, t):.3g}") for t in book["stops"]}
    return row


def width(book: dict, dots: torch.Tensor) -> float:
    """Root mean square distance, in one coordinate, of the valid dots from the centre of their spot."""
    distance = torch.cdist(dots, book["ring"]).amin(1)
    return distance[distance < 0.42].square().mean().div(2).sqrt().item()


def starts_table(rows: list[dict], starts=(1000, 999, 998, 990, 980)) -> str:
    """Lowest and highest share of valid dots without clipping, by the first step, as Markdown."""
    lines = ["| first step | " + " | ".join(map(str, starts)) + " |", "| --- |" + " ---: |" * len(starts)]
    for name in NAMES:
        cells = [_span([row["starts"][str(t)] for row in rows if row["name"] == name and "starts" in row]) for t in starts]  # fmt: skip
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def recipes_table(rows: list[dict]) -> str:
    """Lowest and highest share of valid dots, by the recipe, as Markdown. eps is clipped, the others are as they are."""
    lines = ["| rate, steps | `eps`, clipped | `x0` | `v` | `flow` |", "| --- | ---: | ---: | ---: | ---: |"]
    for rate, steps in RECIPES:
        same = [row for row in rows if (row["rate"], row["steps"]) == (rate, steps)]
        cells = [
            _span([row["clipped" if name == "eps" else "valid"] for row in same if row["name"] == name])
            for name in WITHOUT_SCORE
        ]
        lines.append(f"| {rate:g}, {steps:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _span(shares: list[float]) -> str:
    return f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"


def spreads(rows: list[dict]) -> dict[str, list[float]]:
    """name -> largest over smallest grain at the chapter's stops, a number for each seed."""
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for row in rows:
        if "grain" in row:
            found[row["name"]].append(max(row["grain"].values()) / min(row["grain"].values()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6, help="how many, from 0 on")
    seeds = parser.parse_args().seeds
    record = {"code": fingerprint(), "runs": []}
    if RECORD.exists() and (known := json.loads(RECORD.read_text()))["code"] == record["code"]:
        record = known
    done = {(row["name"], row["seed"], row["rate"], row["steps"]) for row in record["runs"]}
    # now: the first run that is stored changes a file, and the commit would be called dirty from then on
    where = checkpoint.provenance(torch.device("cpu"))
    here = {name: where[name] for name in ("device", "torch", "commit", "date")}
    book = chapter()
    for run in planned(seeds):
        if run in done:
            continue
        record["runs"].append(one(book, *run))
        record |= here
        text = json.dumps(record, indent=1)
        files.write_whole(RECORD, lambda path, text=text: Path(path).write_text(text + "\n"))
        print(*run, flush=True)
    print(starts_table(record["runs"]), recipes_table(record["runs"]), sep="\n\n")
    for name, each in spreads(record["runs"]).items():
        print(f"{name:5s}: grain spreads over a factor of {min(each):.0f} to {max(each):.0f}")


if __name__ == "__main__":
    main()
