"""The file to share."""

import json

import numpy as np
import pytest
from command import assert_one_line, run

from ddpm_lib import checkpoint, ledger


def test_export_is_small_samples_alike_and_tells_nothing_of_this_machine(tmp_path, trained, capsys):
    path = tmp_path / "tiny.safetensors"
    assert run("export", trained, "--out", path) == 0
    assert path.stat().st_size < (trained / "checkpoint.safetensors").stat().st_size / 4
    model = checkpoint.load(path)
    assert "data_root" not in model.provenance["settings"] and str(tmp_path) not in json.dumps(
        model.provenance
    )
    for name, source in (("a", trained), ("b", path)):
        assert run("sample", source, "--count", 4, "--steps", 4, "--out", tmp_path / f"{name}.npz") == 0
    a, b = (np.load(tmp_path / f"{name}.npz")["images"].astype(int) for name in "ab")
    assert abs(a - b).max() <= 4
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    path.rename(resumed / "checkpoint.safetensors")
    assert run("train", "--resume", resumed, "--steps", 9) == 2
    assert "cannot be trained on" in capsys.readouterr().err


def test_export_keeps_evaluations_and_recommends_their_sampling(tmp_path, capsys, trained, quick):
    first, model = tmp_path / "first.json", tmp_path / "m.safetensors"
    how = ("--sampler", "ddim", "--steps", 2, "--scale", 1.5)
    assert run("evaluate", trained, *quick, *how, "--json", first) == 0
    assert run("export", trained, "--out", model, "--metrics", first) == 0
    found = checkpoint.load(model).provenance
    assert found["sampling"] == {"sampler": "ddim", "steps": 2, "scale": 1.5}
    assert found["metrics"][0]["metrics"] == json.loads(first.read_text())["metrics"]
    assert str(tmp_path) not in json.dumps(found)
    capsys.readouterr()
    assert run("evaluate", model, *quick) == 0
    assert "as stored" in capsys.readouterr().out
    # what is known about a model does not make it another one
    bare = tmp_path / "bare.safetensors"
    assert run("export", trained, "--out", bare) == 0
    assert (
        ledger.file_mark(bare)
        == ledger.file_mark(model)
        != ledger.file_mark(trained / "checkpoint.safetensors")
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"count": 10}'])
def test_export_refuses_what_is_no_evaluation(tmp_path, capsys, trained, text):
    (tmp_path / "bad.json").write_text(text)
    out = tmp_path / "m.safetensors"
    assert run("export", trained, "--out", out, "--metrics", tmp_path / "bad.json") == 2
    assert_one_line(capsys, ["--metrics", "evaluate --json"])
    assert not out.exists()
