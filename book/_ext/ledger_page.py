"""The results ledger as a page: what was evaluated, and what each change that the book tried was worth."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import mean, stdev

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ddpm_lib import ledger
from ddpm_lib.data import DATASETS

ROOT = Path(__file__).resolve().parents[2]

# What a reader can do without, beside the Fréchet distance, precision and coverage.
NOT_SHOWN = ("kernel distance", "density")


class Ledger(SphinxDirective):
    """The results ledger as tables, made when the page is built. The argument is the path of its JSON file."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(name)
        try:
            rows = ledger.read(path)
        except ledger.LedgerError as error:
            raise self.error(str(error)) from error
        if not rows:
            raise self.error(f"{name}: no ledger there, or no row in it")
        sections = ledger_sections(rows)
        for section in sections:
            self.state.document.note_implicit_target(section, section)
        return sections


def ledger_sections(rows: list[dict]) -> list[nodes.section]:
    """A section for each data set, and in it a table for each way of measuring: only its rows may be compared."""
    alike: dict[tuple, list[dict]] = {}
    for row in rows:
        size = tuple(row.get("size", ()))
        way = row["reference"], row["features"], row["count"], size
        alike.setdefault(way, []).append(row)
    sections: dict[str, nodes.section] = {}
    for (reference, features, count, size), group in alike.items():
        if reference not in sections:
            known = DATASETS.get(reference)
            title = f"{known.title}: {reference}" if known else reference
            sections[reference] = nodes.section(ids=[nodes.make_id(title)])
            sections[reference] += nodes.title("", title)
        of_size = " of " + " × ".join(map(str, size)) if size else ""
        seen = f"{count:,} samples{of_size}, seen through {features}:"
        made = nodes.admonition(classes=["dropdown"])
        made += nodes.title("", "How these models were made and measured")
        made += nodes.bullet_list("", *map(_origin, group))
        sections[reference] += nodes.paragraph("", seen)
        sections[reference] += [_ledger_table(group), made]
    return list(sections.values())


def _ledger_table(rows: list[dict]) -> nodes.table:
    """A row a model, a column a metric; below each value, small, its interval. The last row is the real images'."""
    found = [{each["name"]: each for each in row["metrics"]} for row in rows]
    names = [
        name
        for name in dict.fromkeys(name for row in found for name in row)
        if name not in NOT_SHOWN
    ]
    lines = [["model", *names]]
    known = Counter(
        name for name, _ in {(row["model"], row["file"]) for row in rows}
    )
    for row, metrics in zip(rows, found, strict=True):
        about = f"{row['model']}\n{row['sampler']}\n{row['steps']} steps\nscale {row['scale']:g}"
        if known[row["model"]] > 1:  # a later model took an earlier one's name
            about += f"\n{row['training']['steps']:,} steps of training"
        cells = (
            _value(metrics[name]) if name in metrics else "" for name in names
        )
        lines.append([about, *cells])
    real = {name: each["real"] for row in found for name, each in row.items()}
    cells = (
        "" if real[name] is None else _digits(real[name]) for name in names
    )
    lines.append(["real test images", *cells])

    return _table(lines)


def _table(lines: list[list[str]]) -> nodes.table:
    """Of cells of text, the first line is the head."""
    group = nodes.tgroup(cols=len(lines[0]))
    group += [nodes.colspec(colwidth=1) for _ in lines[0]]
    group += nodes.thead("", _table_row(lines[0]))
    group += nodes.tbody("", *map(_table_row, lines[1:]))
    return nodes.table("", group, classes=["ledger", "table-sm"])


def _table_row(cells: list[str]) -> nodes.row:
    """The first line of a cell as it is, the others small."""
    row = nodes.row()
    for cell in cells:
        first, *others = cell.split("\n")
        row += nodes.entry("", nodes.paragraph("", first, classes=["mb-0"]))
        row[-1] += [
            nodes.paragraph("", line, classes=["mb-0", "small", "text-muted"])
            for line in others
        ]
    return row


def _value(metric: dict) -> str:
    if metric["interval"] is None:
        return _digits(metric["value"])
    low, high = map(_digits, metric["interval"])
    return f"{_digits(metric['value'])}\n{low} to {high}"


def _digits(value: float) -> str:
    if 0 < abs(value) < 0.01:
        return f"{value:.4f}"
    return f"{value:#.3g}".removesuffix(".")


def _origin(row: dict) -> nodes.list_item:
    training, evaluation = row["training"], row["evaluation"]
    how = [f"trained on {training['data']}"]
    if training["recipe"]:
        how.append(f"by {training['recipe']}")
    how.append(f"for {training['steps']:,} steps")
    if training["images_seen"]:
        how.append(f"({training['images_seen']:,} images)")
    if training["seconds"]:
        how.append(f"in {_duration(training['seconds'])}")
    how += [f"on {training['device']}," if training["device"] else ""]
    how += [f"seed {training['seed']}, commit {training['commit']}."]
    how += [f"Measured on {row['date']} in {_duration(evaluation['seconds'])}"]
    how += [
        f"on {evaluation['device']}, seed {row['seed']}, commit {evaluation['commit']};"
    ]
    if row["bits"]:
        how += [f"bits per dim over {row['bits']} test images;"]
    how += [f"model {row['file']}."]
    eta = "" if row["eta"] is None else f", eta {row['eta']:g}"
    sampling = (
        f"{row['sampler']}, {row['steps']} steps, scale {row['scale']:g}{eta}"
    )
    text = f" ({sampling}): " + " ".join(filter(None, how))
    paragraph = nodes.paragraph(
        "", "", nodes.strong("", row["model"]), nodes.Text(text)
    )
    return nodes.list_item("", paragraph)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


# --- changes ------------------------------------------------------------------------------------


def ladder(found: dict) -> tuple[list[list[str]], str]:
    """Lines of the table, the first its head, and how it was made: chapter 8's rungs."""
    about = found["about"]
    lines = [["change", "pictures", "error", "better by", "as asked", "Fréchet distance", "training"]]  # fmt: skip
    for row in found["rungs"]:
        low, high = row["accuracy_interval"]
        better = f"{row['better']:+.4f}\n± {1.96 * row['better_se']:.4f}"
        lines.append(
            [
                row["title"],
                f"{row['images']:,}",
                f"{row['score']:.3f}",
                "" if row is found["rungs"][0] else better,
                f"{row['accuracy']:.1%}\n{low:.1%} to {high:.1%}",
                _distance(row),
                f"{row['seconds'] / 60:.1f} min",
            ]
        )
    real = found["real"]
    lines.append(["real test images", "", "", "", f"{real['accuracy']:.1%}", _distance(real), ""])  # fmt: skip
    made = (
        f"{about['tflop']:g} TFLOP of training a rung on {about['training_images']:,} images of {about['data']}; errors on "
        f"{about['pictures']} test images, the rest on {about['samples']} samples, {about['sampler']}, {about['sampler_steps']} steps. "
        f"{about['device']}, {about['precision']}, seed {about['seed']}, {about['date']}, commit {about['commit']}."
    )
    return lines, made


def five_names(found: dict) -> tuple[list[list[str]], str]:
    """The same of chapter 5's networks."""
    lines = [
        [
            "network is asked for",
            "loss",
            "valid dots",
            "valid, with clipped guesses",
        ]
    ]
    runs: dict[tuple, list[dict]] = {}
    for run in found["runs"]:
        runs.setdefault((run["name"], run["loss"]), []).append(run)
    for (name, loss), same in runs.items():
        shares = [
            _share([run[kind] for run in same]) for kind in ("valid", "clipped")
        ]
        lines.append([name, loss, *shares])
    seeds = len({run["seed"] for run in found["runs"]})
    made = (
        f"Mean over {seeds} seeds and, after ±, the standard deviation of one. {found['device']}, {found['date']}, "
        f"commit {found['commit']}."
    )
    return lines, made


def _distance(row: dict) -> str:
    if row["frechet"] is None:
        return ""
    low, high = row["frechet_interval"]
    return f"{row['frechet']:.2f}\n{low:.2f} to {high:.2f}"


def _share(values: list[float]) -> str:
    return f"{mean(values):.1%}\n± {stdev(values):.1%}"


TABLES = {
    "ladder": (ladder, "ddpm_lib/embedded/ladder_cifar10.json"),
    "five_names": (five_names, "experiments/results/five_names.json"),
}


class Changes(SphinxDirective):
    """A table of changes; the argument is a name in TABLES."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in TABLES:
            raise self.error(
                f"no changes are called {name}: choose from {', '.join(TABLES)}"
            )
        read, path = TABLES[name]
        self.env.note_dependency(str(ROOT / path))
        lines, made = read(
            json.loads((ROOT / path).read_text(encoding="utf-8"))
        )
        return [
            _table(lines),
            nodes.paragraph("", made, classes=["small", "text-muted"]),
        ]


def setup(app: Sphinx) -> dict:
    app.add_directive("ledger", Ledger)
    app.add_directive("changes", Changes)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
