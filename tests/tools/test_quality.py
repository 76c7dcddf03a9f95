import json
import sys

import pytest
import quality
import torch

from ddpm_lib import checkpoint, files, sampling
from ddpm_lib.schedule import cosine


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_evaluations_are_the_calls_that_a_sampler_makes(sampler):
    calls = []

    def denoise(x, t):
        calls.append(t)
        return x

    schedule = cosine()
    sampling.last(sampling.SAMPLERS[sampler](denoise, torch.zeros(1, 1), schedule, schedule.times(7)))
    assert len(calls) == quality.evaluations(sampler, 7)
    assert sampler in quality.STEPS


def test_rows_are_kept_and_not_measured_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    monkeypatch.setattr(quality, "STEPS", {"dpm++2m": (1, 2), "heun": (1,), "ddpm": (1,)})
    command = ["quality.py", "mnist28", "--count", "150", "--most", "1"]
    monkeypatch.setattr(sys, "argv", command)
    stored = tmp_path / "quality_mnist28.json"
    real = checkpoint.provenance
    monkeypatch.setattr(
        checkpoint,
        "provenance",
        lambda device: real(device) | {"commit": "abc-dirty" if stored.exists() else "abc"},
    )
    quality.main()
    rows = json.loads((tmp_path / "quality_mnist28.json").read_text())
    assert [row["sampler"] for row in rows] == ["dpm++2m", "heun", "ddpm"], "more than --most was measured"
    assert {row["commit"] for row in rows} == {"abc"}, "its own results made the commit dirty"
    table = (tmp_path / "quality_mnist28.md").read_text()
    assert len([line for line in table.splitlines() if line.startswith("| 1 |")]) == 3
    assert "Made by `python benchmarks/quality.py mnist28`." in table
    assert (tmp_path / "quality_mnist28.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(quality, "measure", lambda *_: pytest.fail("measured again"))
    quality.main()
    assert json.loads((tmp_path / "quality_mnist28.json").read_text()) == rows


def test_the_table_names_a_command_for_each_setting_and_the_figure_has_a_line_for_each_scale(tmp_path):
    rows = json.loads((quality.RESULTS / "quality_mnist28.json").read_text())
    rows += [rows[0] | {"scale": 2.5, "arithmetic": "fp32"}]
    said = quality.markdown("mnist28", rows, "mnist")
    for options in ("--precision bf16", "--scale 2.5"):
        assert f"`python benchmarks/quality.py mnist28 {options}`" in said
    quality.draw_figure("mnist28", rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_stored_tables_are_made_of_stored_rows():
    for path in quality.RESULTS.glob("quality_*.json"):
        name, rows = path.stem.removeprefix("quality_"), json.loads(path.read_text())
        judged_by = (
            checkpoint.pretrained(name).provenance["metrics"][0]["features"].removeprefix("classifier ")
        )
        assert path.with_suffix(".md").read_text() == quality.markdown(name, rows, judged_by)


def test_one_row_is_measured_when_it_is_named_whatever_its_cost(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    command = [
        "quality.py",
        "mnist28",
        "--count",
        "150",
        "--only",
        "heun:2",
        "--only",
        "ddpm:3",
        "--most",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", command)
    quality.main()
    rows = json.loads((tmp_path / "quality_mnist28.json").read_text())
    assert [(row["sampler"], row["steps"], row["evaluations"]) for row in rows] == [
        ("heun", 2, 3),
        ("ddpm", 3, 3),
    ]
    for wrong in ("ddpm", "nosuch:5", "ddpm:0", "ddpm:-5", "ddpm:x"):
        monkeypatch.setattr(sys, "argv", [*command, "--only", wrong])
        with pytest.raises(SystemExit):
            quality.main()
        error = capsys.readouterr().err
        assert repr(wrong) in error and "ddpm:1000" in error and "dpm++2m-sde" in error


def test_an_unknown_model_is_refused_with_the_choices(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["quality.py", "nosuch"])
    with pytest.raises(SystemExit):
        quality.main()
    assert "mnist28" in capsys.readouterr().err and "mnist28" in files.shipped()
