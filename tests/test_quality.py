import json
import sys

import pytest
import quality
import torch

from ddpm_lib import checkpoint, sampling
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
    quality.main()
    rows = json.loads((tmp_path / "quality_mnist28.json").read_text())
    assert [row["sampler"] for row in rows] == ["dpm++2m", "heun", "ddpm"], "more than --most was measured"
    table = (tmp_path / "quality_mnist28.md").read_text()
    assert len([line for line in table.splitlines() if line.startswith("| 1 |")]) == 3
    assert (tmp_path / "quality_mnist28.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(quality, "measure", lambda *_: pytest.fail("measured again"))
    quality.main()
    assert json.loads((tmp_path / "quality_mnist28.json").read_text()) == rows


def test_an_unknown_model_is_refused_with_the_choices(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["quality.py", "nosuch"])
    with pytest.raises(SystemExit):
        quality.main()
    assert "mnist28" in capsys.readouterr().err and "mnist28" in checkpoint.shipped()
