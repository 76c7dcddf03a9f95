"""Drawing from the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command import TINY, assert_one_line, run
from PIL import Image

from ddpm_lib import checkpoint, draw, files, prepare
from ddpm_lib.data import load_images
from ddpm_lib.sampling import SAMPLERS


def test_sample_writes_a_picture_and_arrays_that_load_images_reads(tmp_path, trained):
    assert (
        run("sample", trained, "--count", 12, "--steps", 3, "--columns", 4, "--out", tmp_path / "a.png") == 0
    )
    assert Image.open(tmp_path / "a.png").size[0] > Image.open(tmp_path / "a.png").size[1]
    assert run("sample", trained, "--count", 12, "--steps", 3, "--out", tmp_path / "a.npz") == 0
    drawn = load_images(tmp_path / "a.npz")
    assert drawn.images.shape == (12, 1, 8, 8) and drawn.labels.tolist() == [n % 10 for n in range(12)]
    assert drawn.classes == tuple("0123456789")


def test_the_seed_decides_and_the_batch_size_does_not(tmp_path, trained):
    def drawn(name, *options):
        assert (
            run("sample", trained, "--count", 6, "--steps", 4, "--out", tmp_path / f"{name}.npz", *options)
            == 0
        )
        return np.load(tmp_path / f"{name}.npz")["images"].astype(int)

    first = drawn("a", "--seed", 3)
    assert (drawn("b", "--seed", 3) == first).all()
    assert abs(drawn("c", "--seed", 3, "--batch-size", 4) - first).max() <= 1
    assert abs(drawn("d", "--seed", 4) - first).max() > 10
    stochastic = drawn("e", "--seed", 3, "--sampler", "ddpm")
    assert (drawn("f", "--seed", 3, "--sampler", "ddpm") == stochastic).all() and (stochastic != first).any()


def test_samples_are_drawn_as_the_file_recommends_unless_asked_otherwise(
    tmp_path, trained, monkeypatch, capsys
):
    def settings(*options):
        assert run("sample", trained, "--count", 1, "--out", tmp_path / "a.npz", *options) == 0
        return capsys.readouterr().out.strip().partition("; ")[2]

    assert settings() == "dpm++2m, 20 steps, scale 1"
    advice = {"sampler": "heun", "steps": 3, "scale": 1.5}
    plain = checkpoint.load

    def advised(*args):
        model = plain(*args)
        model.provenance["sampling"] = advice
        return model

    monkeypatch.setattr(checkpoint, "load", advised)
    assert settings() == "heun, 3 steps, scale 1.5"
    assert settings("--steps", 2, "--scale", 1) == "heun, 2 steps, scale 1"
    assert settings("--eta", 0.5) == "ddim, 3 steps, scale 1.5, eta 0.5"


def test_labels_by_number_name_or_list(trained):
    model = checkpoint.load(trained)
    assert draw.asked_labels(model, "7", 3).tolist() == [7, 7, 7]
    assert draw.asked_labels(model, "3, 1", 3).tolist() == [3, 1, 3]
    assert draw.asked_labels(model, None, 12).tolist() == [*range(10), 0, 1]
    model.data["classes"] = ["zero", *"123456789"]
    assert draw.asked_labels(model, "zero", 1).tolist() == [0]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "schedule, predict",
    [("linear", "eps"), ("cosine", "v"), ("sigmoid", "x0"), ("flow", "flow"), ("edm", "edm")],
)
def test_every_sampler_draws_from_every_process(tmp_path, sampler, schedule, predict):
    out = tmp_path / "run"
    assert run("train", "--steps", 1, "--schedule", schedule, "--predict", predict, "--out", out, *TINY) == 0
    assert (
        run("sample", out, "--sampler", sampler, "--steps", 5, "--count", 2, "--out", tmp_path / "x.npz") == 0
    )


def test_half_precision_reaches_the_network_and_hardly_the_pictures():
    model, seen = checkpoint.pretrained("mnist28"), set()
    model.net.register_forward_pre_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    model.ema.net.register_forward_pre_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    drawn = {}
    for precision, autocast in (("fp32", False), ("bf16", True)):
        seen.clear()
        images = draw.draw(model, 4, torch.arange(4), steps=4, sampler="dpm++2m", precision=precision)
        assert seen == {autocast} and images.dtype == torch.uint8
        drawn[precision] = images.float()
    assert 0 < (drawn["fp32"] - drawn["bf16"]).abs().mean() < 3
    with pytest.raises(ValueError, match="unknown precision 'half': choose from fp32, bf16, auto"):
        draw.draw(model, 4, torch.arange(4), precision="half")


@pytest.mark.parametrize(
    ("slowdown", "asked", "warns"), [(40.0, "bf16", True), (0.6, "bf16", False), (40.0, "fp32", False)]
)
def test_bf16_that_is_emulated_is_said_to_be_slow(tmp_path, monkeypatch, capsys, slowdown, asked, warns):
    monkeypatch.setattr(prepare, "bf16_slowdown", lambda: slowdown)
    options = [each if each != "fp32" else asked for each in TINY]
    assert run("train", "--steps", 1, "--out", tmp_path / "run", *options) == 0
    trained = capsys.readouterr().err
    drawing = (
        "--count",
        1,
        "--steps",
        1,
        "--device",
        "cpu",
        "--out",
        tmp_path / "x.png",
        "--precision",
        asked,
    )
    assert run("sample", tmp_path / "run", *drawing) == 0
    for said in (trained, capsys.readouterr().err):
        assert ("40 times as long" in said and "--precision auto" in said) == warns


BAD_SAMPLING = {
    "sampler": (["--sampler", "euler"], ["euler", "ddim", "heun"]),
    "label": (["--label", "10"], ["10", "0 to 9"]),
    "label below": (["--label", "-1"], ["-1", "0 to 9"]),
    "label name": (["--label", "cat"], ["cat", "0, 1, 2"]),
    "steps": (["--steps", "0"], ["0", "at least 1"]),
    "too many steps": (["--steps", "1001"], ["1001", "1000"]),
    "scale": (["--scale", "-1"], ["-1"]),
    "scale nan": (["--scale", "nan"], ["nan"]),
    "count": (["--count", "0"], ["0"]),
    "eta": (["--eta", "2"], ["2"]),
    "out": (["--out", "x.jpg"], [".jpg", ".png", ".npz"]),
}


@pytest.mark.parametrize("case", BAD_SAMPLING)
def test_bad_sampling_input(tmp_path, capsys, monkeypatch, trained, case):
    monkeypatch.chdir(tmp_path)
    options, words = BAD_SAMPLING[case]
    out = [] if "--out" in options else ["--out", "x.png"]
    assert run("sample", trained, "--count", 2, "--steps", 2, *out, *[f"{a}" for a in options]) == 2
    assert_one_line(capsys, words)
    assert not list(tmp_path.iterdir())


def _another_version(path: Path, source: Path) -> None:
    data = (source / "checkpoint.safetensors").read_bytes()
    path.write_bytes(data.replace(b'\\"format\\": 1', b'\\"format\\": 9'))


BAD_CHECKPOINTS = {
    "absent": (lambda path, source: None, ["no checkpoint"]),
    "truncated": (
        lambda path, source: path.write_bytes((source / "checkpoint.safetensors").read_bytes()[:-100]),
        ["truncated"],
    ),
    "empty": (lambda path, source: path.write_bytes(b""), ["truncated"]),
    "pickle": (lambda path, source: torch.save({"net": torch.zeros(1)}, path), ["pickle", ".safetensors"]),
    "version": (_another_version, ["format 9", "reads format 1"]),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_bad_checkpoints(tmp_path, capsys, trained, case):
    make, words = BAD_CHECKPOINTS[case]
    make(tmp_path / "model.safetensors", trained)
    assert run("sample", tmp_path / "model.safetensors", "--out", tmp_path / "x.png") == 2
    assert_one_line(capsys, words)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_or_missing_shipped_model(tmp_path, capsys, monkeypatch, command, damage):
    whole = files.shipped()["mnist28"]
    broken = tmp_path / "mnist28.safetensors"
    if damage != "missing":
        broken.write_bytes(whole.read_bytes()[: 100_000 if damage == "truncated" else 0])
    monkeypatch.setattr(files, "shipped", lambda: {"mnist28": broken} if damage != "missing" else {})
    out = ["--out", tmp_path / "x.png"] if command == "sample" else []
    assert run(command, "mnist28", *out) == 2
    assert_one_line(capsys, ["mnist28", "no checkpoint" if damage == "missing" else "truncated"])
