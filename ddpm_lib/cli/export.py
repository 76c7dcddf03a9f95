"""``python -m ddpm_lib export``: the file to share."""

from __future__ import annotations

import argparse
import json

from ..files import keep_apart, model_file
from . import words

EXAMPLES = """\
  python -m ddpm_lib export runs/first --out first.safetensors
  python -m ddpm_lib export runs/first --out first.safetensors --metrics first.json"""

LOCAL = ("data_root", "init")
"""Settings that tell of this machine."""


def add_words(parser: argparse.ArgumentParser) -> None:
    """What to export, where to, and what is known of it."""
    parser.add_argument("checkpoint", metavar="MODEL", help=words.model_help())
    parser.add_argument("--out", type=words.path, required=True, help="a name ending in .safetensors")
    parser.add_argument(
        "--metrics",
        nargs="+",
        type=words.path,
        default=[],
        metavar="JSON",
        help="evaluations of it (evaluate --json) to keep in the file; it will recommend the first one's sampling",
    )


def run(args: argparse.Namespace) -> None:
    """Writes the file, and says how large it is."""
    if args.out.suffix != ".safetensors":
        raise ValueError(f"--out {args.out}: give a name ending in .safetensors")
    keep_apart("--out", args.out, [model_file(args.checkpoint), *args.metrics])
    from .. import checkpoint

    model = checkpoint.load(args.checkpoint)
    settings = model.provenance.get("settings", {})
    model.provenance["settings"] = {name: value for name, value in settings.items() if name not in LOCAL}
    mark = checkpoint.file_mark(model_file(args.checkpoint))
    measured = [_read_evaluation(path, mark) for path in args.metrics]
    notes = {}
    if measured:
        names = ("sampler", "steps", "scale", "interval")
        notes = {"metrics": measured}
        notes["sampling"] = {name: measured[0][name] for name in names if measured[0].get(name) is not None}
    path = checkpoint.export(model, args.out, **notes)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, the average after {model.step} steps, in half precision"
    )


def _read_evaluation(path, mark: str) -> dict:
    """What --json wrote of the model with this mark, without what says nothing of it."""
    from .. import evaluate

    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        kept = {key: found[key] for key in (*evaluate.ASKED, "bits", "metrics")}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"--metrics {path}: not what `evaluate --json` writes ({error!r})") from error
    if found.get("file", mark) != mark:
        raise ValueError(
            f"--metrics {path} was measured of another model, {found.get('checkpoint')}: evaluate this one, as it is now"
        )
    return kept | ({"interval": found["interval"]} if found.get("interval") else {})
