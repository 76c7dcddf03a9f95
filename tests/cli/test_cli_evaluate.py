"""Measuring from the command line."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command import (
    TINY,
    assert_one_line,
    evaluated,
    pictures,
    run,
)
from hypothesis import given
from hypothesis import strategies as st

from ddpm_lib import checkpoint, evaluate
from ddpm_lib.data import load_images
from ddpm_lib.judge import make_judge


def test_evaluate_prints_and_writes_what_it_measured(tmp_path, capsys, trained):
    result = evaluated(tmp_path, trained, "--count", 150, "--steps", 2)
    said = capsys.readouterr().out
    # 6 steps of training draw noise: chance level, and far from the floor
    assert result["label accuracy"]["value"] < 0.35
    assert result["Fréchet distance"]["value"] > 5 * result["Fréchet distance"]["real"]
    assert result["recall"]["value"] < result["recall"]["real"]
    assert result["nearest distance"]["value"] > 2 * result["nearest distance"]["real"] > 0
    assert ("below 0" in said) == (result["kernel distance"]["value"] < 0)
    assert result["coverage"]["interval"] is not None
    for row in result["metrics"]:
        assert f"{row['value']:.4f}" in said and f"{row['real']:.4f}" in said
        low, high = row["interval"] or (row["value"], row["value"])
        assert low <= row["value"] <= high
    assert "real test images" in said and "measured in" in said and "bits per dim" not in said
    assert result["features"] == "classifier mnist" and result["reference"] == "mnist"
    assert [result[name] for name in ("count", "sampler", "steps", "scale")] == [150, "dpm++2m", 2, 1.0]


def test_a_kernel_distance_below_zero_is_explained_in_one_line():
    rows = [evaluate.Row("kernel distance", -2e-4), evaluate.Row("recall", 0.9)]
    line = evaluate.below_zero(rows, "kernel distance")
    assert line.startswith("kernel distance: below 0") and "label" in line and line.count("\n") == 1
    assert evaluate.below_zero([evaluate.Row("KID", 1e-4), evaluate.Row("other", -1.0)], "KID") == ""


def test_real_images_evaluated_as_samples_measure_as_real_ones(digits):
    from ddpm_lib import evaluate

    train, test = (load_images(digits, split) for split in ("train", "test"))
    judge = make_judge("classifier", test.classes)
    for row in evaluate.measure(test.images, test.labels, train, test, judge):
        assert row.value == pytest.approx(row.real, abs=1e-9), row
    rows = {row.name: row for row in evaluate.measure(train.images, train.labels, train, test, judge)}
    assert rows["nearest distance"].value == 0 and rows["coverage"].value == 1
    assert rows["Fréchet distance"].value == pytest.approx(0, abs=1e-6)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any), st.integers(1, 200), st.randoms())
def test_labels_are_asked_for_in_the_proportions_of_real_ones(often, count, chance):
    real = torch.arange(len(often)).repeat_interleave(torch.tensor(often))
    order = list(range(len(real)))
    chance.shuffle(order)
    asked = evaluate.labels_like(real[order], count)
    exact = torch.tensor(often) * count / len(real)
    assert len(asked) == count and ((asked.bincount(minlength=len(often)) - exact).abs() < 1).all()
    # spread evenly: the first half holds half of each
    first = asked[: count // 2].bincount(minlength=len(often))
    assert ((first - exact / 2).abs() <= 2).all()


def test_as_many_of_each_where_real_ones_are():
    asked = evaluate.labels_like(torch.arange(30) % 10, 40)
    assert asked.tolist() == [*range(10)] * 4


def test_evaluate_bounds_the_bits_of_test_images(tmp_path, capsys, trained, quick):
    row = evaluated(tmp_path, trained, *quick, "--steps", 1, "--bits", 6)["bits per dim"]
    # uniform noise over 256 levels takes 8 bits; a network that knows little does not do much better
    assert (
        2 < row["value"] < 30
        and row["interval"][0] < row["value"] < row["interval"][1]
        and row["real"] is None
    )
    assert "bits per dim" in capsys.readouterr().out
    assert evaluated(tmp_path, trained, *quick, "--steps", 1, "--bits", 1)["bits per dim"]["interval"] is None


def test_evaluate_draws_as_the_model_file_recommends(tmp_path, capsys, trained, quick):
    model = tmp_path / "m.safetensors"
    checkpoint.export(checkpoint.load(trained), model, sampling={"sampler": "ddim", "steps": 3, "scale": 1.5})
    result = evaluated(tmp_path, model, *quick)
    assert [result[name] for name in ("sampler", "steps", "scale")] == ["ddim", 3, 1.5]
    assert "sampler, steps, scale: as the model file recommends" in capsys.readouterr().out
    result = evaluated(tmp_path, model, *quick, "--scale", 0, "--steps", 2)
    assert [result[name] for name in ("sampler", "steps", "scale")] == ["ddim", 2, 0]
    assert "(sampler: as the model file recommends)" in capsys.readouterr().out
    for bad in ({"steps": "3"}, {"stps": 3}, [3]):
        checkpoint.export(checkpoint.load(trained), model, sampling=bad)
        assert run("evaluate", model, *quick) == 2
        assert_one_line(capsys, ["recommends", "--steps"])


def test_evaluate_tells_whether_the_stored_numbers_come_out_again(tmp_path, capsys, trained, quick):
    options = [*quick, "--steps", 2]
    stored = evaluated(tmp_path, trained, *options)
    model = tmp_path / "m.safetensors"

    def said(metrics, *more) -> str:
        checkpoint.export(checkpoint.load(trained), model, metrics=metrics)
        capsys.readouterr()
        assert run("evaluate", model, *options, *more) == 0
        return capsys.readouterr().out

    # half precision moves the numbers a little, within their intervals
    assert said([stored]).count("as stored") == len(stored["metrics"])
    stored["metrics"][1]["value"] += 1000
    changed = said([stored])
    assert changed.count("as stored") == len(stored["metrics"]) - 1 and changed.count("differs") == 1
    assert "as stored" not in said([stored], "--seed", 5) and "differs" not in said([])
    checkpoint.export(checkpoint.load(trained), model, metrics={"label accuracy": 1})
    assert run("evaluate", model, *options) == 2
    assert_one_line(capsys, ["list of evaluations"])


def test_two_values_agree_within_both_intervals():
    from ddpm_lib.evaluate import Row, agrees

    wide, narrow = Row("x", 1.0, (0.0, 2.0)), Row("x", 1.5, (1.4, 1.6))
    assert agrees(wide, Row("x", 1.5, (0.9, 2.1))) and not agrees(wide, narrow) and not agrees(narrow, wide)
    assert agrees(Row("x", 0.5), Row("x", 0.51)) and not agrees(Row("x", 0.5), Row("x", 0.53))


def test_evaluate_through_inception_calls_the_distances_by_their_names(
    tmp_path, capsys, monkeypatch, trained, quick
):
    from ddpm_lib import metrics

    def four_numbers(images, batch_size=50, device="cpu"):
        found = images.double().flatten(2).mean(1).unfold(1, 16, 16).mean(2)[:, :4]
        return metrics.Features(found, metrics.INCEPTION)

    monkeypatch.setattr(metrics, "inception_features", four_numbers)
    result = evaluated(tmp_path, trained, *quick, "--steps", 1, "--features", "inception")
    said = capsys.readouterr().out
    assert (
        result["FID"]["value"] > result["FID"]["real"]
        and "KID" in result
        and "Fréchet distance" not in result
    )
    assert "Inception-v3" in said and result["features"] == "Inception-v3" and "label accuracy" in result
    # no classifier knows these classes, but Inception needs none
    pictures(tmp_path / "cats", 8, 8)
    assert run("train", "--data", tmp_path / "cats", "--steps", 1, "--out", tmp_path / "run", *TINY) == 0
    result = evaluated(tmp_path, tmp_path / "run", *quick, "--steps", 1, "--features", "inception")
    assert "FID" in result and "label accuracy" not in result
    # more samples than test images: no interval for what cannot be measured
    few = evaluated(
        tmp_path,
        trained,
        "--data",
        fewer(quick[1], tmp_path / "few"),
        "--count",
        9,
        "--steps",
        1,
        "--features",
        "inception",
    )
    assert few["FID"]["real"] is None and few["KID"]["real"] is not None and "recall" not in few


def fewer(digits: Path, folder: Path) -> Path:
    """The same pictures, 4 of them to test with, which is no more than the features have dimensions."""
    for split, most in (("train", 20), ("test", 4)):
        for path in sorted((digits / split).rglob("*.png"), key=lambda path: path.name)[:most]:
            target = folder / split / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def without_arrays(folder: Path) -> Path:
    np.savez(folder / "x.npz", pictures=np.zeros((3, 8, 8), "uint8"))
    return folder / "x.npz"


BAD_EVALUATION = {
    "features": (["--features", "vgg"], ["vgg", "classifier", "inception"]),
    "inception without its package": (["--features", "inception"], ["pip install 'ddpm-lib[inception]'"]),
    "too few samples": (["--count", "100"], ["--count 100", "128", "129"]),
    "no samples": (["--count", "0"], ["count", "at least 1", "0"]),
    "steps": (["--steps", "0"], ["0", "at least 1"]),
    "scale": (["--scale", "nan"], ["nan"]),
    "sampler": (["--sampler", "euler"], ["euler", "dpm++2m"]),
    "eta": (["--eta", "0.5", "--sampler", "dpm++2m"], ["eta", "ddim"]),
    "bits": (["--bits", "-1"], ["--bits -1", "0 to 140"]),
    "too many bits": (["--bits", "141"], ["--bits 141", "0 to 140"]),
    "json in a folder": (["--json", "."], ["--json", "folder"]),
    "ledger in a folder": (["--ledger", "."], ["--ledger", "folder"]),
    "ledger outside the repository": (["--ledger"], ["--ledger", "give a path"]),
    "data": (["--data", "mnits"], ["mnits", "mnist"]),
}


@pytest.mark.parametrize("case", BAD_EVALUATION)
def test_bad_evaluation_input(tmp_path, capsys, monkeypatch, trained, quick, case):
    from ddpm_lib import metrics

    options, words = BAD_EVALUATION[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    metrics._inception.cache_clear()
    assert run("evaluate", trained, *quick, "--steps", 2, *options) == 2
    assert_one_line(capsys, words)
    assert not list(tmp_path.iterdir())


def test_evaluate_refuses_data_that_it_cannot_use(tmp_path, capsys, trained):
    assert run("evaluate", trained, "--data", without_arrays(tmp_path)) == 2
    assert_one_line(capsys, ["x.npz", "images and labels", "pictures"])
    folder = pictures(tmp_path / "pictures", 8, 8)
    assert run("train", "--data", folder, "--steps", 1, "--out", tmp_path / "run", *TINY) == 0
    capsys.readouterr()
    assert run("evaluate", tmp_path / "run", "--count", 200) == 2
    assert_one_line(capsys, ["cats", "mnist"])
    model = checkpoint.load(trained)
    model.data = {}
    checkpoint.save(model, tmp_path / "bare.safetensors")
    assert run("evaluate", tmp_path / "bare.safetensors") == 2
    assert_one_line(capsys, ["--data"])


def test_evaluate_through_many_features_wants_more_samples_before_it_draws(
    capsys, monkeypatch, trained, digits
):
    from ddpm_lib import metrics

    wide = lambda images, **_: metrics.Features(torch.zeros(len(images), 2048), metrics.INCEPTION)  # noqa: E731
    monkeypatch.setattr(metrics, "inception_features", wide)
    monkeypatch.setattr(evaluate, "draw", lambda *_, **__: pytest.fail("drew before it looked"))
    assert run("evaluate", trained, "--data", digits, "--features", "inception", "--count", 2000) == 2
    assert_one_line(capsys, ["--count 2000", "2048", "2049"])
    assert run("evaluate", trained, "--data", digits, "--features", "inception", "--count", 3000) == 2
    assert_one_line(capsys, ["200 images", "2048"])


@pytest.mark.parametrize("damage", ["missing", "truncated", "no header"])
def test_a_damaged_or_missing_shipped_classifier(tmp_path, capsys, monkeypatch, trained, quick, damage):
    from safetensors.torch import save_file

    from ddpm_lib import classifier

    if damage == "truncated":
        data = (classifier.FOLDER / "mnist.safetensors").read_bytes()
        (tmp_path / "mnist.safetensors").write_bytes(data[:5000])
    if damage == "no header":
        save_file({"x": torch.zeros(1)}, tmp_path / "mnist.safetensors")
    monkeypatch.setattr(classifier, "FOLDER", tmp_path)
    assert run("evaluate", trained, *quick, "--steps", 1) == 2
    assert_one_line(capsys, ["no classifier" if damage == "missing" else "mnist.safetensors: damaged"])


def test_evaluate_adds_to_the_ledger_and_leaves_one_that_it_cannot_read(
    tmp_path, capsys, monkeypatch, trained, quick
):
    path = tmp_path / "results" / "ledger.json"
    options = [*quick, "--steps", 2, "--ledger", path]
    assert run("evaluate", trained, *options) == 0
    assert f"{path}: a new row for {trained.name}" in capsys.readouterr().out
    assert run("evaluate", trained, *options) == 0
    assert "replaced" in capsys.readouterr().out
    assert run("evaluate", trained, *options, "--scale", 0) == 0
    rows = json.loads(path.read_text())
    assert [row["scale"] for row in rows] == [1.0, 0.0]
    assert rows[0]["model"] == trained.name and rows[0]["training"]["images_seen"] == 48
    assert str(tmp_path) not in path.read_text()
    path.write_text("[{")
    monkeypatch.setattr(evaluate, "draw", lambda *_, **__: pytest.fail("drew before it looked"))
    assert run("evaluate", trained, *options) == 2
    assert_one_line(capsys, ["ledger.json", "left as it is"])
    assert path.read_text() == "[{"
