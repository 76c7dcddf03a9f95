"""The results ledger: a JSON file of evaluations, which the book shows as a page.

A row says what was measured (model, its file, how it was trained), how (sampling, features, reference) and
the numbers, each with its interval and the real images' value.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import torch

from .checkpoint import Checkpoint, file_mark, provenance
from .evaluate import ASKED
from .files import model_file, write_whole

DEFAULT = Path("book/ledger.json")
SAME = ("file", *ASKED, "bits")
"""Rows that agree in these are one measurement made twice."""
METRIC = ("name", "value", "interval", "real")
NEEDED = ("date", "model", *SAME, "training", "metrics", "evaluation")


class LedgerError(ValueError):
    """A file that is no ledger. It is left as it is."""


def where(asked: str = "") -> Path:
    """The ledger's path: as asked, else the repository's, if that is where we are. Raises ValueError if not."""
    if asked:
        if Path(asked).is_dir():
            raise ValueError(f"--ledger {asked} is a folder: give a file, such as {asked}/ledger.json")
        return Path(asked)
    if not (DEFAULT.parent.is_dir() and Path("_toc.yml").is_file()):
        raise ValueError(
            f"--ledger: this is not the book's repository, so there is no {DEFAULT} here: give a path, "
            "--ledger results.json"
        )
    return DEFAULT


def read(path: str | os.PathLike) -> list[dict]:
    """The rows of a ledger, oldest first; none if there is no file. Raises LedgerError for any other file."""
    path = Path(path)
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: not a JSON file ({error}); it is left as it is") from error
    if not isinstance(rows, list):
        raise LedgerError(f"{path}: not a ledger, which is a list of rows; it is left as it is")
    for number, row in enumerate(rows, 1):
        if problem := _problem(row):
            raise LedgerError(f"{path}: row {number} {problem}; it is left as it is")
    return rows


def _problem(row) -> str:
    if not isinstance(row, dict):
        return "is not a row"
    if missing := [name for name in NEEDED if name not in row]:
        return f"lacks {', '.join(missing)}"
    if not isinstance(row["training"], dict) or not isinstance(row["evaluation"], dict):
        return "has no training or no evaluation"
    metrics = row["metrics"]
    whole = isinstance(metrics, list) and all(
        isinstance(each, dict) and set(METRIC) <= set(each) and isinstance(each["value"], int | float)
        for each in metrics
    )
    return "" if whole else f"has metrics without {', '.join(METRIC)}"


def make_row(name: str, model: Checkpoint, result: dict, device: torch.device) -> dict:
    """The row of an evaluation (in the form of --json) of the model called `name` on the command line."""
    settings = model.provenance.get("settings", {})
    here, shape = provenance(device), model.net.config
    return {
        "date": here["date"],
        "model": _bare(name),
        "file": file_mark(model_file(name)),
        "size": [shape.image_size, shape.image_size, shape.channels],
        **{key: result[key] for key in (*ASKED, "bits")},
        **({"interval": result["interval"]} if result.get("interval") else {}),
        "reference": _bare(result["reference"]),
        "metrics": [_rounded(each) for each in result["metrics"]],
        "training": {
            "data": _bare(model.data.get("source", "unknown")),
            "recipe": _recipe(_bare(name), settings, model.step),
            "steps": model.step,
            **{
                key: model.provenance.get(key)
                for key in ("images_seen", "seconds", "device", "commit", "date", "seed")
            },
        },
        "evaluation": {"seconds": result["seconds"], "device": here["device"], "commit": here["commit"]},
    }


def record(path: str | os.PathLike, row: dict) -> bool:
    """Adds a row, or puts it in the place of the same measurement made before; True if it took such a place.

    The file is written whole or not at all. Raises LedgerError, and leaves the file alone, if it is no ledger.
    """
    rows = read(path)
    same = [
        n for n, old in enumerate(rows) if all(old.get(key) == row.get(key) for key in (*SAME, "interval"))
    ]
    for n in reversed(same[1:]):
        del rows[n]
    if same:
        rows[same[0]] = row
    else:
        rows.append(row)
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, lambda part: Path(part).write_text(text, encoding="utf-8"))
    return bool(same)


def _bare(name: str) -> str:
    """A name that tells nothing of the machine: of a path, its last part; of a run's checkpoint, the run's."""
    path = Path(name).resolve()
    return (
        path.parent.name if path.name == "checkpoint.safetensors" else path.name.removesuffix(".safetensors")
    )


def _recipe(name: str, settings: dict, step: int) -> str | None:
    """The recipe of that name in the repository, if it is what the model was trained by."""
    path = Path(__file__).parents[1] / "recipes" / f"{name}.json"
    if not path.is_file():
        return None
    asked = json.loads(path.read_text(encoding="utf-8"))
    made = all(settings.get(key) == value for key, value in asked.items() if key in settings)
    return f"recipes/{path.name}" if made and step == asked.get("steps") else None


def _rounded(metric: dict) -> dict:
    """Six digits: more say nothing, and make the file hard to read."""

    def short(value):
        if isinstance(value, list | tuple):
            return [short(each) for each in value]
        return float(f"{value:.6g}") if isinstance(value, float) and math.isfinite(value) else value

    return {key: short(metric[key]) for key in METRIC}
