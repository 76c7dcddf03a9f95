"""Training from the command line: real files, real processes, real signals."""

import json
import random
import signal
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from command import (
    TINY,
    assert_equal,
    assert_one_line,
    pictures,
    run,
    start,
    wait_for_step,
    weights,
)

from ddpm_lib import checkpoint, files, prepare, schedule, settings
from ddpm_lib.data import DATASETS
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.settings import Settings
from ddpm_lib.unet import UNet


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
    "size": (["--size", "0"], ["size", "at least 1", "0"]),
    "channels": (["--channels", "2"], ["channels", "1 or 3", "2"]),
    "width": (["--width", "9"], ["width", "even", "9"]),
    "attention": (["--attention", "5"], ["attention", "5"]),
    "seed": (["--seed", str(2**64)], ["seed", str(2**63 - 1)]),
    "clip nan": (["--clip", "nan"], ["clip", "finite", "nan"]),
    "half-life": (["--ema-half-life", "0"], ["ema_half_life", "positive", "0"]),
    "save": (["--save-every", "0"], ["save_every", "at least 1"]),
    "log": (["--log-every", "-1"], ["log_every", "at least 1"]),
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


RECIPES = {path.stem: path for path in (Path(__file__).parents[2] / "recipes").glob("*.json")}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_one_command(name):
    """Read as the command reads it, it makes a network, a configuration and a pair that can be sampled."""
    chosen = prepare.resolved(Settings(**settings.read(RECIPES[name])))
    stand_in = DATASETS[chosen.data].stand_in or chosen.data
    channels, size, _ = DATASETS[stand_in].shape
    size, channels = chosen.size or size, chosen.channels or channels
    UNet(prepare.network_config(chosen, size, channels, len(DATASETS[stand_in].classes)))
    chosen.train_config()
    Denoiser(lambda *_: None, schedule.make(chosen.schedule), chosen.predict)


@pytest.mark.parametrize("name", sorted(files.shipped()))
def test_a_shipped_model_is_what_its_recipe_makes(name):
    wanted = prepare.resolved(Settings(**settings.read(RECIPES[name])))
    model = checkpoint.pretrained(name)
    made_with = prepare.resolved(Settings(**model.provenance["settings"]))
    # what was faster on the processor that trained it
    assert wanted.precision == "auto" and made_with.precision in ("auto", "bf16", "fp32")
    fixed = {each.name: getattr(made_with, each.name) for each in fields(Settings) if each.metadata["fixed"]}
    assert settings.differences(wanted, fixed | {"precision": "auto"}) == []
    assert model.step == wanted.steps and not model.moments
    assert {"device", "date", "commit", "seconds", "seed"} <= model.provenance.keys()
