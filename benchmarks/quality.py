"""How good are samples for what they cost? Every sampler, from 5 to 250 network evaluations a picture.

    python benchmarks/quality.py mnist28                 an hour or two on two cores; stops and goes on as you like
    python benchmarks/quality.py cifar32 --scale 2.5 --most 20     with guidance (which doubles the cost of an evaluation)
    python benchmarks/quality.py mnist28 --only ddpm:1000    one row, the chain step by step

Each row is stored as soon as it is measured, in benchmarks/results/quality_MODEL.json, and the table and the
figure beside it are made from that. A row is measured again only with --again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from speedrun import Judge

from ddpm_lib import checkpoint, data, draw, files
from ddpm_lib.metrics import wilson_interval

RESULTS = Path(__file__).parent / "results"
STEPS = {
    "dpm++2m": (5, 10, 20, 50),
    "dpm++2m-sde": (5, 10, 20, 50),
    "heun": (3, 5, 10, 25),
    "ddim": (5, 10, 20, 50, 100, 250),
    "ddpm": (10, 20, 50, 100, 250, 1000),
}
"""Steps of each sampler. Heun's method takes two evaluations a step, but one for the last."""
STYLES = {"dpm++2m": "o-", "dpm++2m-sde": "v-", "heun": "s-", "ddim": "^-", "ddpm": "D-"}


def evaluations(sampler: str, steps: int) -> int:
    """Network evaluations a picture takes, without guidance."""
    return 2 * steps - 1 if sampler == "heun" else steps


def measure(
    model: checkpoint.Checkpoint,
    judge: Judge,
    sampler: str,
    steps: int,
    scale: float,
    count: int,
    precision: str,
    here: dict,
) -> dict:
    """One row: count samples of the model, each class in turn, from seed 0. here: as checkpoint.provenance says it."""
    labels = draw.asked_labels(model, None, count)
    began = time.perf_counter()
    samples = draw.draw(
        model, count, labels, steps=steps, sampler=sampler, scale=scale, progress=sys.stderr.isatty(), precision=precision
    )  # fmt: skip
    seconds = time.perf_counter() - began
    verdict = judge.verdict(samples, labels)
    return {
        "sampler": sampler,
        "steps": steps,
        "scale": scale,
        "count": count,
        "arithmetic": precision,
        "evaluations": evaluations(sampler, steps),
        "seconds": round(seconds, 1),
        **{name: here[name] for name in ("device", "commit")},
        **verdict,
    }


def key(row: dict) -> tuple:
    """What makes two rows the same measurement."""
    return row["sampler"], row["steps"], row["scale"], row["count"], row["arithmetic"]


def markdown(name: str, rows: list[dict], features: str) -> str:
    """The table, best sampler for the cost first within each number of evaluations."""
    real = rows[0]
    settings = sorted({(row["scale"], row["arithmetic"]) for row in rows})
    commands = ", ".join(f"`{_command(name, *each)}`" for each in settings)
    lines = [
        f"# Quality against cost: {name}\n",
        f"Made by {commands}. Fréchet distance, recall and coverage by the features of the "
        f"classifier `{features}`; held-out real images get {real['real_frechet']:.3f} and {real['real_recall']:.3f}. "
        "Evaluations: network calls a picture, twice as costly with guidance (scale not 1). Seconds depend on what else the machine does. Seed 0.\n",
        "| evaluations | sampler | scale | samples | arithmetic | as asked | Fréchet distance | recall | coverage | seconds |",
        "| ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(rows, key=lambda row: (row["scale"], row["evaluations"], row["frechet"])):
        low, high = wilson_interval(row["label_accuracy"], row["count"])
        lines.append(
            f"| {row['evaluations']} | {row['sampler']}, {row['steps']} steps | {row['scale']:g} | {row['count']:,} | {row['arithmetic']} | "
            f"{row['label_accuracy']:.1%} ({low:.1%} to {high:.1%}) | {row['frechet']:.3f} | {row['recall']:.2f} | "
            f"{row['coverage']:.2f} | {row['seconds']:.0f} |"
        )
    devices = sorted({f"{row['device']}, commit {row['commit']}" for row in rows})
    return "\n".join([*lines, "", f"Measured on {'; '.join(devices)}."]) + "\n"


def _command(name: str, scale: float, precision: str) -> str:
    """What measures rows of this scale in this arithmetic."""
    options = [
        "" if scale == 1 else f" --scale {scale:g}",
        "" if precision == "fp32" else f" --precision {precision}",
    ]
    return f"python benchmarks/quality.py {name}{''.join(options)}"


def draw_figure(name: str, rows: list[dict], path: Path) -> None:
    """Fréchet distance against network evaluations, a line a sampler."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4), dpi=96, layout="constrained")
    scales = sorted({row["scale"] for row in rows})
    for scale in scales:
        for sampler in STEPS:
            line = sorted(
                (row["evaluations"], row["frechet"])
                for row in rows
                if (row["sampler"], row["scale"]) == (sampler, scale)
            )
            if line:
                title = sampler if len(scales) == 1 else f"{sampler}, scale {scale:g}"
                axes.loglog(*zip(*line, strict=True), STYLES[sampler], label=title)
    axes.axhline(rows[0]["real_frechet"], color="0.5", linestyle="--", label="held-out real images")
    axes.set(
        xlabel="network evaluations a picture", ylabel="Fréchet distance (classifier features)", title=name
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    figure.legend(frameon=False, loc="outside right upper")
    files.write_whole(path, lambda part: figure.savefig(part, format="png"))
    plt.close(figure)


def one_row(text: str) -> tuple[str, int]:
    """("ddpm", 1000) of "ddpm:1000"."""
    sampler, _, steps = text.partition(":")
    if sampler not in STEPS or not steps.isdecimal() or int(steps) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no row: write SAMPLER:STEPS, ddpm:1000 for example, with one of {', '.join(STEPS)}"
        )
    return sampler, int(steps)


def main() -> None:
    """Measures what is not stored yet, and writes the table and the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help=f"a shipped model: {', '.join(files.shipped())}")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--most", type=int, default=250, help="no more evaluations than this (default: 250)")
    parser.add_argument(
        "--only",
        type=one_row,
        action="append",
        metavar="SAMPLER:STEPS",
        help="measure this row; may be repeated",
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--again", action="store_true", help="measure also what is stored")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        model = checkpoint.pretrained(args.model)
    except checkpoint.CheckpointError as error:
        parser.error(str(error))
    # now: the first row that is stored changes a file, and the commit would be called dirty from then on
    here = checkpoint.provenance(torch.device("cpu"))
    source = data.DATASETS[model.data["source"]].stand_in or model.data["source"]
    judge = Judge(*(data.load_images(source, split) for split in ("train", "test")))
    path = RESULTS / f"quality_{args.model}.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    grid = [(sampler, steps) for sampler, counts in STEPS.items() for steps in counts]
    for sampler, steps in args.only or [each for each in grid if evaluations(*each) <= args.most]:
        wanted = (sampler, steps, args.scale, args.count, args.precision)
        if wanted in map(key, rows) and not args.again:
            continue
        row = measure(model, judge, sampler, steps, args.scale, args.count, args.precision, here)
        rows = [each for each in rows if key(each) != wanted] + [row]
        _write(path, json.dumps(rows, indent=1) + "\n")
        print(
            f"{sampler}, {steps} steps: {row['label_accuracy']:.1%}, {row['frechet']:.3f}, {row['seconds']} s",
            flush=True,
        )
    _write(path.with_suffix(".md"), markdown(args.model, rows, judge.about["name"]))
    draw_figure(args.model, rows, path.with_suffix(".png"))


def _write(path: Path, text: str) -> None:
    files.write_whole(path, lambda part: Path(part).write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
