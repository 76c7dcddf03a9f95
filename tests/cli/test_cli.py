"""The command line as a reader meets it: real files, real processes, real signals."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open

from ddpm_lib import checkpoint, cli, evaluate, ledger, schedule
from ddpm_lib.data import DATASETS, load_images
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.training import TrainConfig
from ddpm_lib.unet import UNet

TINY = [
    "--size",
    "8",
    "--width",
    "8",
    "--blocks",
    "1",
    "--batch-size",
    "8",
    "--log-every",
    "1",
    "--sample-every",
    "0",
]
TINY += ["--precision", "fp32", "--device", "cpu", "--warmup", "2"]


def run(*words) -> int:
    return cli.main([str(word) for word in words])


def start(*words, module=("-m", "ddpm_lib"), **env) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *module, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def assert_equal(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def wait_for_step(folder: Path, step: int, process: subprocess.Popen, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    log = folder / "log.jsonl"
    while time.monotonic() < until:
        if log.exists() and len(log.read_text().splitlines()) >= step:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"step {step} not reached in {seconds} s")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of 6 steps on the embedded MNIST at 8 pixels."""
    out = tmp_path_factory.mktemp("runs") / "trained"
    assert run("train", "--data", "mnist", "--steps", 6, "--out", out, *TINY) == 0
    return out


# --- training ------------------------------------------------------------------------------------


def test_a_run_leaves_a_whole_folder(tmp_path, capsys):
    out = tmp_path / "first"
    assert run("train", "--steps", 4, "--out", out, *TINY, "--sample-every", 2, "--save-every", 2) == 0
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.safetensors", "log.jsonl", "samples"]
    assert sorted(path.name for path in (out / "samples").iterdir()) == ["step_000002.png", "step_000004.png"]
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and rows[-1]["images"] == 32
    saved = checkpoint.load(out)
    assert saved.step == 4 and saved.provenance["images_seen"] == 32
    assert saved.classes == [str(n) for n in range(10)]
    assert f"sample {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "extra", [[], ["--dropout", "0.2", "--schedule", "cosine", "--predict", "v", "--flip"]]
)
def test_killed_at_any_step_and_resumed_is_bit_equal(tmp_path, extra):
    steps, every = 14, 4
    recipe = ["--data", "mnist", *TINY, "--save-every", every, *extra]
    assert run("train", "--steps", steps, "--out", tmp_path / "whole", *recipe) == 0
    broken = tmp_path / "broken"
    process = start("train", "--steps", steps, "--out", broken, *recipe)
    wait_for_step(broken, random.randint(1, steps - 2), process)
    process.kill()
    process.communicate()
    assert run("train", "--resume", broken) == 0
    assert_equal(weights(broken), weights(tmp_path / "whole"))
    logged = [json.loads(line)["step"] for line in (broken / "log.jsonl").read_text().splitlines()]
    assert logged == list(range(1, steps + 1))
    assert not list(broken.glob(".checkpoint*"))


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number, code):
    out = tmp_path / "run"
    process = start("train", "--steps", 100_000, "--save-every", 100_000, "--out", out, *TINY)
    wait_for_step(out, 3, process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert f"train --resume {out}" in output and "Traceback" not in errors
    assert 3 <= checkpoint.load(out).step == len((out / "log.jsonl").read_text().splitlines())


def test_resume_can_lengthen_a_run_but_not_change_it(tmp_path, capsys, trained):
    out = tmp_path / "run"
    assert run("train", "--steps", 3, "--out", out, *TINY) == 0
    assert run("train", "--out", out, "--resume", "--steps", 6) == 0
    assert_equal(weights(out), weights(trained))
    for option, value in (("--width", 16), ("--schedule", "cosine"), ("--lr", 0.1), ("--data", "cifar10")):
        assert run("train", "--resume", out, "--steps", 9, option, value) == 2
        assert f"{option} " in (said := capsys.readouterr().err) and "another --out" in said
    assert run("train", "--resume", out) == 2
    assert "larger --steps" in capsys.readouterr().err


def test_two_processes_give_the_weights_of_one(tmp_path, trained):
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "ddpm_lib")
    process = start(
        "train", "--data", "mnist", "--steps", 6, "--out", tmp_path / "two", *TINY, module=torchrun
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    one, two = weights(trained), weights(tmp_path / "two")
    for name in one:
        if name.startswith(("net.", "ema.")):
            torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, capsys, monkeypatch):
    from ddpm_lib.denoiser import Denoiser

    calls, whole = [], Denoiser.loss

    def breaks(self, *args):
        calls.append(1)
        return whole(self, *args) * (float("nan") if len(calls) == 5 else 1.0)

    monkeypatch.setattr(Denoiser, "loss", breaks)
    out = tmp_path / "run"
    assert run("train", "--steps", 9, "--save-every", 2, "--out", out, *TINY) == 2
    said = capsys.readouterr().err
    assert "step 5" in said and "learning rate" in said and "step 4" in said
    saved = checkpoint.load(out)
    assert saved.step == 4 and all(p.isfinite().all() for p in saved.net.parameters())


def test_weights_that_went_bad_unnoticed_are_not_saved(tmp_path, capsys, monkeypatch):
    from ddpm_lib import training
    from ddpm_lib.denoiser import Denoiser

    calls, whole = [], Denoiser.loss

    def breaks(self, *args):
        calls.append(1)
        return whole(self, *args) * (float("nan") if len(calls) > 2 else 1.0)

    monkeypatch.setattr(Denoiser, "loss", breaks)
    # as on a GPU, where train itself looks only now and then
    monkeypatch.setattr(training, "_check_finite", lambda *_: None)
    out = tmp_path / "run"
    assert run("train", "--steps", 9, "--save-every", 2, "--out", out, *TINY) == 2
    assert "step 4: the loss is nan" in (said := capsys.readouterr().err) and "step 2" in said
    assert checkpoint.load(out).step == 2


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    assert run("train", "--steps", 2, "--out", out, *TINY) == 0
    before = (out / "checkpoint.safetensors").read_bytes()

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert run("train", "--resume", out, "--steps", 4) == 2
    said = capsys.readouterr().err
    assert "No space left" in said and "untouched" in said and "Traceback" not in said
    assert (out / "checkpoint.safetensors").read_bytes() == before
    assert not list(out.glob(".checkpoint*"))


def test_a_config_file_is_the_same_as_its_options(tmp_path, trained, capsys):
    names = {"size": 8, "width": 8, "blocks": 1, "batch_size": 8, "log_every": 1, "sample_every": 0}
    config = tmp_path / "recipe.json"
    config.write_text(
        json.dumps(names | {"precision": "fp32", "device": "cpu", "warmup": 2, "steps": 6, "lr": 5.0})
    )
    assert run("train", "--config", config, "--lr", 1e-3, "--out", tmp_path / "run") == 0
    assert_equal(weights(tmp_path / "run"), weights(trained))
    config.write_text('{"learning_rate": 1}')
    assert run("train", "--config", config, "--out", tmp_path / "other") == 2
    assert "learning_rate" in capsys.readouterr().err


def test_tensorboard_is_written_when_asked(tmp_path):
    pytest.importorskip("tensorboard")
    assert run("train", "--steps", 2, "--out", tmp_path / "run", *TINY, "--tensorboard") == 0
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


# --- sampling ------------------------------------------------------------------------------------


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
    assert settings("--eta", 0.5) == "ddim, 3 steps, scale 1.5"


def test_labels_by_number_name_or_list(trained):
    model = checkpoint.load(trained)
    assert cli.asked_labels(model, "7", 3).tolist() == [7, 7, 7]
    assert cli.asked_labels(model, "3, 1", 3).tolist() == [3, 1, 3]
    assert cli.asked_labels(model, None, 12).tolist() == [*range(10), 0, 1]
    model.data["classes"] = ["zero", *"123456789"]
    assert cli.asked_labels(model, "zero", 1).tolist() == [0]


@pytest.mark.parametrize("sampler", cli.sampling.SAMPLERS)
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
        images = cli.draw(model, 4, torch.arange(4), steps=4, sampler="dpm++2m", precision=precision)
        assert seen == {autocast} and images.dtype == torch.uint8
        drawn[precision] = images.float()
    assert 0 < (drawn["fp32"] - drawn["bf16"]).abs().mean() < 3
    with pytest.raises(ValueError, match="unknown precision 'half': choose from fp32, bf16, auto"):
        cli.draw(model, 4, torch.arange(4), precision="half")


@pytest.mark.parametrize(
    ("slowdown", "asked", "warns"), [(40.0, "bf16", True), (0.6, "bf16", False), (40.0, "fp32", False)]
)
def test_bf16_that_is_emulated_is_said_to_be_slow(tmp_path, monkeypatch, capsys, slowdown, asked, warns):
    monkeypatch.setattr(cli, "bf16_slowdown", lambda: slowdown)
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


def test_data_list_shows_the_sets(capsys):
    assert run("data", "list") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("mnist", "cifar10", "mnist-full", "cifar10-full"))


def test_help_teaches(capsys):
    for command in ("train", "sample", "evaluate", "export", "data", "exercises"):
        with pytest.raises(SystemExit) as stopped:
            run(command, "--help")
        assert stopped.value.code == 0 and "Examples:" in capsys.readouterr().out


# --- bad input: one line that says what, the choices, and the way out; exit code 2 --------------


def pictures(folder: Path, *sizes: int) -> Path:
    for n, size in enumerate(sizes):
        (folder / "cats").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), (n * 20, 0, 0)).save(folder / "cats" / f"{n}.png")
    return folder


def corrupt(folder: Path) -> Path:
    pictures(folder, 8, 8)
    broken = folder / "cats" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    return folder


BAD_TRAINING = {
    "unknown data": (["--data", "mnits"], ["mnits", "mnist"]),
    "unknown schedule": (["--schedule", "quadratic"], ["quadratic", "linear", "cosine"]),
    "unknown prediction": (["--predict", "noise"], ["noise", "eps", "x0"]),
    "eps without signal": (["--schedule", "flow", "--predict", "eps"], ["eps", "flow", "x0"]),
    "size": (["--size", "30", "--multipliers", "1,2,2"], ["30", "8", "32"]),
    "no steps": (["--steps", "0"], ["steps", "0"]),
    "negative rate": (["--lr", "-1"], ["-1", "positive"]),
    "rate nan": (["--lr", "nan"], ["nan"]),
    "batch": (["--batch-size", "0"], ["0", "at least 1"]),
    "precision": (["--precision", "fp16"], ["fp16", "bf16"]),
    "decay": (["--decay", "step"], ["step", "cosine"]),
    "dropout": (["--dropout", "1.5"], ["1.5"]),
    "device": (["--device", "gpu"], ["gpu", "cuda"]),
    "config": (["--config", "nowhere.json"], ["nowhere.json"]),
    "npz": (["--data", "nowhere.npz"], ["nowhere.npz"]),
}


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_bad_training_input(tmp_path, capsys, case):
    options, words = BAD_TRAINING[case]
    out = tmp_path / "run"
    assert run("train", "--steps", 2, "--out", out, *TINY, *options) == 2
    assert_one_line(capsys, words)
    assert not out.exists()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda folder: folder, ["no pictures"]),
        (corrupt, ["1.png"]),
        (lambda folder: pictures(folder, 8, 10), ["8", "10", "size"]),
    ],
    ids=["empty", "corrupt", "mixed"],
)
def test_bad_folders(tmp_path, capsys, make, words):
    (tmp_path / "pictures").mkdir()
    folder = make(tmp_path / "pictures")
    options = [*TINY[2:], "--steps", 1, "--out", tmp_path / "run"]
    assert run("train", "--data", folder, *options) == 2
    assert_one_line(capsys, words)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_pictures_trains(tmp_path):
    folder = pictures(tmp_path / "pictures", 8, 12, 8)
    assert run("train", "--data", folder, "--steps", 1, "--out", tmp_path / "run", *TINY) == 0
    assert checkpoint.load(tmp_path / "run").classes == ["cats"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there(tmp_path, capsys, trained):
    assert run("train", "--steps", 2, "--out", tmp_path / "run", *TINY, "--device", "cuda") == 2
    assert_one_line(capsys, ["cuda", "--device cpu"])
    assert run("sample", trained, "--device", "cuda", "--out", tmp_path / "x.png") == 2


def test_a_full_set_without_a_network_names_the_embedded_one(tmp_path, capsys, monkeypatch):
    from urllib.error import URLError

    def refuse(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    options = ["--data-root", tmp_path / "cache", "--steps", 1, "--out", tmp_path / "run"]
    assert run("train", "--data", "mnist-full", *options, *TINY) == 2
    assert_one_line(capsys, ["mnist-full", "mnist"])
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_run_is_not_overwritten(trained, capsys):
    before = (trained / "checkpoint.safetensors").read_bytes()
    assert run("train", "--steps", 2, "--out", trained, *TINY) == 2
    assert_one_line(capsys, ["another run", "--resume"])
    assert (trained / "checkpoint.safetensors").read_bytes() == before


def test_nothing_to_resume(tmp_path, capsys):
    assert run("train", "--resume", tmp_path) == 2
    assert_one_line(capsys, ["nothing to resume", "without --resume"])
    assert run("train", "--out", tmp_path / "x") == 2
    assert_one_line(capsys, ["--steps"])
    assert run("train", "--steps", 3) == 2
    assert_one_line(capsys, ["--out"])


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


def test_no_traceback_reaches_the_reader(tmp_path):
    process = start("train", "--data", "nowhere", "--steps", 1, "--out", tmp_path / "run")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in errors and len(errors.splitlines()) == 1


def assert_one_line(capsys, words) -> None:
    said = capsys.readouterr().err.strip()
    lines = [line for line in said.splitlines() if "it/s" not in line]
    assert len(lines) == 1, said
    for word in words:
        assert word in lines[0], (word, said)


# --- evaluation ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """200 + 140 real digits of 8 pixels as a folder of pictures: enough for the 128 features, and quick."""
    folder = tmp_path_factory.mktemp("digits")
    for split, count in (("train", 200), ("test", 140)):
        for n, image in enumerate(load_images("mnist", split, size=8).images[:count]):
            path = folder / split / str(n % 10) / f"{n:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
    return folder


@pytest.fixture(scope="module")
def quick(digits) -> list:
    return ["--data", digits, "--count", 130]


def evaluated(tmp_path, *words) -> dict:
    """What evaluate writes with --json."""
    assert run("evaluate", *words, "--json", tmp_path / "e.json") == 0
    result = json.loads((tmp_path / "e.json").read_text())
    return result | {row["name"]: row for row in result["metrics"]}


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
    judge = evaluate.make_judge("classifier", test.classes)
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
    "no samples": (["--count", "0"], ["--count 0"]),
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
    monkeypatch.setattr(cli, "draw", lambda *_, **__: pytest.fail("drew before it looked"))
    assert run("evaluate", trained, "--data", digits, "--features", "inception", "--count", 2000) == 2
    assert_one_line(capsys, ["--count 2000", "2048", "2049"])
    assert run("evaluate", trained, "--data", digits, "--features", "inception", "--count", 3000) == 2
    assert_one_line(capsys, ["200 images", "2048"])


@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_or_missing_shipped_model(tmp_path, capsys, monkeypatch, command, damage):
    whole = checkpoint.shipped()["mnist28"]
    broken = tmp_path / "mnist28.safetensors"
    if damage != "missing":
        broken.write_bytes(whole.read_bytes()[: 100_000 if damage == "truncated" else 0])
    monkeypatch.setattr(checkpoint, "shipped", lambda: {"mnist28": broken} if damage != "missing" else {})
    out = ["--out", tmp_path / "x.png"] if command == "sample" else []
    assert run(command, "mnist28", *out) == 2
    assert_one_line(capsys, ["mnist28", "no checkpoint" if damage == "missing" else "truncated"])


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
    monkeypatch.setattr(cli, "draw", lambda *_, **__: pytest.fail("drew before it looked"))
    assert run("evaluate", trained, *options) == 2
    assert_one_line(capsys, ["ledger.json", "left as it is"])
    assert path.read_text() == "[{"


RECIPES = {path.stem: path for path in (Path(__file__).parents[2] / "recipes").glob("*.json")}


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_recipe_is_one_command(recipe):
    """Read as the command reads it, it makes a network, a configuration and a pair that can be sampled."""
    settings = cli.RECIPE | cli._read_config(RECIPES[recipe])
    stand_in = DATASETS[settings["data"]].stand_in or settings["data"]
    channels, size, _ = DATASETS[stand_in].shape
    size, channels = settings["size"] or size, settings["channels"] or channels
    UNet(cli.network_config(settings, size, channels, len(DATASETS[stand_in].classes)))
    TrainConfig(**{field.name: settings[field.name] for field in dataclasses.fields(TrainConfig)})
    Denoiser(lambda *_: None, schedule.make(settings["schedule"]), settings["predict"])


@pytest.mark.parametrize("name", sorted(checkpoint.shipped()))
def test_a_shipped_model_is_what_its_recipe_makes(name):
    settings = cli.RECIPE | cli._read_config(RECIPES[name])
    model = checkpoint.pretrained(name)
    made_with = cli.RECIPE | model.provenance["settings"]
    # what was faster on the processor that trained it
    assert settings["precision"] == "auto" and made_with["precision"] in ("auto", "bf16", "fp32")
    for setting in cli.RECIPE:
        if setting not in ("data_root", "precision"):
            assert made_with[setting] == settings[setting], setting
    assert model.step == settings["steps"] and not model.moments
    assert {"device", "date", "commit", "seconds", "seed"} <= model.provenance.keys()
