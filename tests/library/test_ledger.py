"""The results ledger: what is written, what is refused, and that the page shows it all."""

import importlib
import json
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from ddpm_lib import checkpoint, files, ledger

ROOT = Path(__file__).parents[2]
METRICS = [
    {"name": "label accuracy", "value": 0.96512345, "interval": (0.95, 0.975), "real": 0.995},
    {"name": "Fréchet distance", "value": 0.1812, "interval": [0.17, 0.1911], "real": 0.0491},
    {"name": "kernel distance", "value": 0.00012, "interval": [-0.0001, 0.0003], "real": 0.0},
    {"name": "recall", "value": 0.931, "interval": None, "real": 0.952},
    {"name": "bits per dim", "value": 1.85, "interval": [1.81, 1.89], "real": None},
]
RESULT = {
    "count": 1000,
    "sampler": "ddim",
    "steps": 50,
    "scale": 1.5,
    "eta": None,
    "seed": 0,
    "features": "classifier mnist",
    "reference": "mnist",
    "bits": 64,
    "metrics": METRICS,
    "seconds": 312.4,
}


def a_row(**changes) -> dict:
    model = checkpoint.pretrained("mnist28")
    return ledger.make_row("mnist28", model, deepcopy(RESULT) | changes, torch.device("cpu"))


def test_a_row_says_what_was_measured_and_how_it_was_made():
    row = a_row()
    assert row["model"] == "mnist28" and row["scale"] == 1.5 and row["bits"] == 64
    assert row["training"]["recipe"] == "recipes/mnist28.json" and row["training"]["data"] == "mnist-full"
    model = checkpoint.pretrained("mnist28")
    for name in ("images_seen", "seconds", "device", "commit", "seed"):
        assert row["training"][name] == model.provenance[name]
    assert row["training"]["steps"] == model.step and row["evaluation"]["seconds"] == 312.4
    assert row["metrics"][0] == {
        "name": "label accuracy",
        "value": 0.965123,
        "interval": [0.95, 0.975],
        "real": 0.995,
    }
    assert len(row["metrics"]) == len(METRICS)


def test_a_recipe_is_named_only_if_it_made_the_model(tmp_path):
    model = checkpoint.pretrained("mnist28")
    model.provenance["settings"]["lr"] = 0.5
    assert ledger.make_row("mnist28", model, RESULT, torch.device("cpu"))["training"]["recipe"] is None
    checkpoint.export(checkpoint.pretrained("mnist28"), tmp_path / "other.safetensors")
    row = ledger.make_row(str(tmp_path / "other.safetensors"), model, RESULT, torch.device("cpu"))
    assert row["training"]["recipe"] is None


def test_a_row_tells_nothing_of_the_machine(tmp_path):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    file = tmp_path / "runs" / "first" / "checkpoint.safetensors"
    model = checkpoint.pretrained("mnist28")
    checkpoint.export(model, file)
    model.data["source"] = str(tmp_path / "photos")
    for name in (file, file.parent):
        row = ledger.make_row(
            str(name), model, RESULT | {"reference": str(tmp_path / "x.npz")}, torch.device("cpu")
        )
        assert row["model"] == "first" and row["training"]["data"] == "photos" and row["reference"] == "x.npz"
        assert str(tmp_path) not in json.dumps(row)


def test_the_same_measurement_takes_its_own_place_and_another_does_not(tmp_path):
    path = tmp_path / "folder" / "ledger.json"
    assert not ledger.record(path, a_row())
    assert not ledger.record(path, a_row(scale=1.0))
    again = a_row(seconds=1.0)
    assert ledger.record(path, again)
    rows = ledger.read(path)
    assert [row["scale"] for row in rows] == [1.5, 1.0] and rows[0]["evaluation"]["seconds"] == 1.0
    for name, value in (
        ("seed", 1),
        ("count", 2),
        ("features", "x"),
        ("reference", "x"),
        ("bits", 0),
        ("steps", 3),
    ):
        assert not ledger.record(path, a_row(**{name: value}))
    assert not ledger.record(path, again | {"file": "another"})
    assert len(ledger.read(path)) == 9
    assert ledger.read(path)[0] == json.loads(json.dumps(again))


def without(name: str) -> list:
    return [{key: value for key, value in a_row().items() if key != name}]


BAD = {
    "cut off": '[{"date": "2026',
    "bytes": b"\xff\xfe\x00",
    "no list": "{}",
    "no rows": "[1]",
    "no seed": json.dumps(without("seed")),
    "no metrics": json.dumps([without("metrics")[0] | {"metrics": {"recall": 1}}]),
    "metric without a value": json.dumps([without("metrics")[0] | {"metrics": [{"name": "recall"}]}]),
    "no training": json.dumps([without("training")[0] | {"training": None}]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_ledger_is_named_and_left_alone(tmp_path, case):
    path, text = tmp_path / "ledger.json", BAD[case]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = path.read_bytes()
    for use in (lambda: ledger.read(path), lambda: ledger.record(path, a_row())):
        with pytest.raises(ledger.LedgerError, match="ledger.json.*left as it is"):
            use()
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_ledger(tmp_path, monkeypatch):
    path = tmp_path / "ledger.json"
    ledger.record(path, a_row())
    before = path.read_bytes()

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="untouched"):
        ledger.record(path, a_row(seed=1))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_without_a_path_the_ledger_is_the_repositorys(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert ledger.where() == Path("book/ledger.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="give a path"):
        ledger.where()
    assert ledger.where("x.json") == Path("x.json")


# --- the page ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def book():
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    try:
        return importlib.import_module("ledger_page")
    finally:
        sys.path.pop(0)


def cells(table) -> list[list[str]]:
    from docutils import nodes

    return [[entry.astext() for entry in row.findall(nodes.entry)] for row in table.findall(nodes.row)]


def test_the_page_has_a_table_for_each_way_of_measuring(book):
    from docutils import nodes

    rows = [
        a_row(),
        a_row(reference="cifar10"),
        a_row(scale=1.0),
        a_row(count=500),
        a_row(features="Inception-v3"),
    ]
    sections = book.ledger_sections(rows)
    assert [section[0].astext() for section in sections] == [
        "MNIST subset: mnist",
        "CIFAR-10 subset: cifar10",
    ]
    tables = [list(section.findall(nodes.table)) for section in sections]
    assert [len(each) for each in tables] == [3, 1]
    assert [len(cells(table)) for table in tables[0]] == [4, 3, 3]
    shown = [row[0] for row in cells(tables[0][0])]
    assert "scale 1.5" in shown[1] and "scale 1" in shown[2] and shown[3] == "real test images"
    assert "500 samples" in sections[0].astext() and "Inception-v3" in sections[0].astext()


def test_samples_of_another_size_have_a_table_and_real_images_of_their_own(book):
    from docutils import nodes

    wide = a_row(scale=1.0) | {"size": [64, 64, 3]}
    wide["metrics"] = [each | {"value": 297.7, "real": 0.25} for each in wide["metrics"]]
    (section,) = book.ledger_sections([a_row(), wide])
    native, enlarged = map(cells, section.findall(nodes.table))
    assert native[-1][1] == "0.995" and enlarged[-1][1] == "0.250"
    assert enlarged[1][1].startswith("298\n")
    assert "samples of 28 × 28 × 1" in section.astext() and "samples of 64 × 64 × 3" in section.astext()


def test_the_page_shows_the_numbers_their_intervals_and_their_origin(book):
    (section,) = book.ledger_sections([a_row()])
    from docutils import nodes

    head, measured, real = cells(next(iter(section.findall(nodes.table))))
    assert head == ["model", "label accuracy", "Fréchet distance", "recall", "bits per dim"]
    assert [cell.split() for cell in measured[1:]] == [
        ["0.965", "0.950", "to", "0.975"],
        ["0.181", "0.170", "to", "0.191"],
        ["0.931"],
        ["1.85", "1.81", "to", "1.89"],
    ]
    assert real[1:] == ["0.995", "0.0491", "0.952", ""]
    origin = section.astext()
    for words in (
        "recipes/mnist28.json",
        "7,000 steps",
        "448,000 images",
        "69 min",
        "64 test images",
        "seed 0",
    ):
        assert words in origin


def test_two_models_of_one_name_are_told_apart_by_their_training(book):
    from docutils import nodes

    earlier, later = a_row(), a_row(scale=1.0)
    earlier["file"], earlier["training"] = "another", earlier["training"] | {"steps": 3000}
    for rows, said in (
        ([earlier, later], ["3,000 steps of training", "7,000 steps of training"]),
        ([later], [None]),
    ):
        (section,) = book.ledger_sections(rows)
        names = [row[0] for row in cells(next(iter(section.findall(nodes.table))))[1:-1]]
        assert [name.split("\n\n")[4] if said[0] else None for name in names] == said
        assert all(("training" in name) == (said[0] is not None) for name in names)


def test_a_metric_that_one_row_lacks_leaves_a_gap(book):
    from docutils import nodes

    bare = a_row(scale=1.0, metrics=METRICS[:1], bits=0)
    (section,) = book.ledger_sections([a_row(), bare])
    assert cells(next(iter(section.findall(nodes.table))))[2][1:] == ["0.965\n\n0.950 to 0.975", "", "", ""]


def test_the_books_ledger_holds_the_shipped_models_as_they_are(book):
    """After a shipped model changed: python -m ddpm_lib evaluate NAME --bits 100 --ledger."""
    rows = ledger.read(ROOT / "book" / "ledger.json")
    assert book.ledger_sections(rows)
    measured = {(row["model"], row["file"]) for row in rows}
    assert measured >= {(name, ledger.file_mark(path)) for name, path in files.shipped().items()}


def test_a_ladder_becomes_a_line_for_each_rung_and_one_for_real_images(book):
    measured = {
        "images": 19_328,
        "accuracy": 0.1,
        "accuracy_interval": [0.08, 0.13],
        "frechet": 29.93,
        "frechet_interval": [29.7, 30.2],
        "seconds": 90,
    }
    first = measured | {"title": "old", "score": 1.0, "better": 0.0, "better_se": 0.0}
    second = measured | {"title": "new", "score": 0.58, "better": 0.418, "better_se": 0.001, "frechet": None}
    about = {
        "tflop": 36, "training_images": 5000, "data": "cifar10", "pictures": 500, "samples": 400, "sampler": "ddim",
        "sampler_steps": 7, "device": "a processor", "precision": "bf16", "seed": 3, "date": "2026-01-01", "commit": "abc",
    }  # fmt: skip
    lines, made = book.ladder({"about": about, "rungs": [first, second], "real": measured})
    assert [line[0] for line in lines] == ["change", "old", "new", "real test images"]
    assert lines[1][1:4] == ["19,328", "1.000", ""] and lines[1][-1] == "1.5 min"
    assert lines[2][2:6] == ["0.580", "+0.4180\n± 0.0020", "10.0%\n8.0% to 13.0%", ""]
    assert lines[3][5] == "29.93\n29.70 to 30.20" and {len(line) for line in lines} == {7}
    for words in ("36 TFLOP", "5,000 images", "400 samples", "seed 3", "a processor", "commit abc"):
        assert words in made


def test_networks_of_many_seeds_become_a_mean_and_its_spread(book):
    runs = [
        {"name": name, "loss": "plain", "seed": seed, "valid": 0.9 + 0.02 * seed, "clipped": 0.5}
        for name in ("eps", "v")
        for seed in range(3)
    ]
    lines, made = book.five_names({"runs": runs, "device": "CPU", "date": "today", "commit": "abc"})
    assert lines[1:] == [[name, "plain", "92.0%\n± 2.0%", "50.0%\n± 0.0%"] for name in ("eps", "v")]
    assert made.startswith("Mean over 3 seeds")


def test_every_stored_change_can_be_shown(book):
    for read, path in book.TABLES.values():
        lines, made = read(json.loads((ROOT / path).read_text(encoding="utf-8")))
        assert len(lines) > 2 and len({len(line) for line in lines}) == 1 and "commit" in made
