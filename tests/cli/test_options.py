"""Every option of every command, tried once from the words to what they change. An option without a case here fails."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from command import TINY, photographs, run
from PIL import Image

from ddpm_lib import checkpoint, cli
from ddpm_lib.data import load_images


def options(command: str) -> set[str]:
    """The options of a command, each by its longest word."""
    (commands,) = (each for each in cli.parser()._actions if isinstance(each, argparse._SubParsersAction))
    actions = commands.choices[command]._actions
    return {max(action.option_strings, key=len) for action in actions if action.option_strings} - {"--help"}


TRAINED = {  # option -> (words, what the run keeps of it)
    "--steps": (["3"], ("steps", 3)),
    "--seed": (["7"], ("seed", 7)),
    "--device": (["cpu"], ("device", "cpu")),
    "--save-every": (["1"], ("save_every", 1)),
    "--sample-every": (["1"], ("sample_every", 1)),
    "--log-every": (["2"], ("log_every", 2)),
    "--tensorboard": ([], ("tensorboard", True)),
    "--data": (["cifar10"], ("data", "cifar10")),
    "--data-root": (["."], ("data_root", ".")),
    "--size": (["12"], ("size", 12)),
    "--channels": (["3"], ("channels", 3)),
    "--flip": ([], ("flip", True)),
    "--no-labels": ([], ("labels", False)),
    "--skip-corrupt": ([], ("skip_corrupt", True)),
    "--schedule": (["cosine"], ("schedule", "cosine")),
    "--predict": (["x0"], ("predict", "x0")),
    "--label-dropout": (["0.5"], ("label_dropout", 0.5)),
    "--times": (["logit-normal"], ("times", "logit-normal")),
    "--min-snr": (["5"], ("min_snr", 5.0)),
    "--width": (["16"], ("width", 16)),
    "--multipliers": (["1,2"], ("multipliers", [1, 2])),
    "--blocks": (["2"], ("blocks", 2)),
    "--attention": ([""], ("attention", [])),
    "--patch": (["1"], ("patch", 1)),
    "--dropout": (["0.2"], ("dropout", 0.2)),
    "--batch-size": (["4"], ("batch_size", 4)),
    "--optimizer": (["muon"], ("optimizer", "muon")),
    "--lr": (["0.01"], ("lr", 0.01)),
    "--warmup": (["0"], ("warmup", 0)),
    "--decay": (["cosine", "--warmup", "0"], ("decay", "cosine")),
    "--clip": (["0"], ("clip", 0.0)),
    "--ema-half-life": (["3"], ("ema_half_life", 3.0)),
    "--precision": (["bf16"], ("precision", "bf16")),
}
ELSEWHERE = {"--out", "--resume", "--config", "--init", "--compile"}
"""Options of train that have tests of their own, below or in test_cli_train.py and test_run.py."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict:
    """The weights of two steps with no option but the smallest."""
    out = tmp_path_factory.mktemp("plain") / "run"
    assert run("train", "--steps", 2, "--out", out, *TINY) == 0
    return checkpoint.load(out).net.state_dict()


def test_every_option_of_train_has_a_case():
    assert options("train") == set(TRAINED) | ELSEWHERE


@pytest.mark.parametrize("option", TRAINED)
def test_an_option_of_train_is_kept_and_changes_the_run(tmp_path, plain, option):
    words, (name, value) = TRAINED[option]
    out = tmp_path / "run"
    if option == "--tensorboard":
        pytest.importorskip("tensorboard")
    assert run("train", "--steps", 2, "--out", out, *TINY, option, *words) == 0
    model = checkpoint.load(out)
    assert model.provenance["settings"][name] == value
    idle = {"--device", "--save-every", "--log-every", "--sample-every", "--tensorboard", "--data-root"}
    idle |= {"--skip-corrupt", "--precision", "--ema-half-life", "--clip", "--dropout"}
    after = model.net.state_dict()
    same = after.keys() == plain.keys() and all(after[key].equal(plain[key]) for key in plain)
    if option in idle - {"--precision", "--clip", "--dropout"}:
        assert same
    elif option not in idle:
        assert not same
    if option == "--sample-every":
        assert len(list((out / "samples").glob("*.png"))) == 2


@pytest.mark.slow
def test_a_compiled_run_saves_what_loads(tmp_path):
    out = tmp_path / "run"
    assert run("train", "--steps", 2, "--out", out, *TINY, "--compile") == 0
    names = checkpoint.load(out).net.state_dict()
    assert not any("_orig_mod" in name for name in names)
    assert run("sample", out, "--count", 2, "--steps", 2, "--out", tmp_path / "x.png") == 0
    assert run("train", "--resume", out, "--steps", 3) == 0


def test_a_file_of_settings_is_read_when_a_run_goes_on(tmp_path, capsys, trained):
    assert run("train", "--resume", trained, "--config", tmp_path / "missing.json") == 2
    assert "missing.json" in capsys.readouterr().err
    (tmp_path / "other.json").write_text('{"width": 16}')
    assert run("train", "--resume", trained, "--config", tmp_path / "other.json", "--steps", 9) == 2
    assert "--width 8, which cannot become 16" in capsys.readouterr().err
    (tmp_path / "wrong.json").write_text('{"flip": "no", "steps": 2}')
    assert run("train", "--config", tmp_path / "wrong.json", "--out", tmp_path / "run") == 2
    assert "wrong.json: flip must be true or false, got 'no'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- sample --------------------------------------------------------------------------------------


def sampled(tmp_path: Path, model: Path, *words) -> np.ndarray:
    out = tmp_path / "x.npz"
    assert run("sample", model, "--count", 6, "--steps", 3, "--out", out, *words) == 0
    return np.load(out)["images"].astype(int)


CHANGES = {
    "--label": ["3"],
    "--raw": [],
    "--precision": ["bf16"],
    "--steps": ["5"],
    "--sampler": ["ddim"],
    "--scale": ["3"],
    "--eta": ["0.5"],
    "--seed": ["5"],
}
OTHERWISE = {"--count", "--out", "--film", "--columns", "--zoom", "--batch-size", "--device", "--interval"}


def test_every_option_of_sample_has_a_case():
    assert options("sample") == set(CHANGES) | OTHERWISE


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Path:
    """A run of 60 steps: long enough that its labels, its guidance and its average make a difference."""
    out = tmp_path_factory.mktemp("taught") / "run"
    words = [word if word != "8" else "16" for word in TINY]
    assert run("train", "--steps", 60, "--lr", 0.02, "--predict", "x0", "--out", out, *words) == 0
    return out


@pytest.mark.parametrize("option", CHANGES)
def test_an_option_of_sample_changes_the_pictures(tmp_path, taught, option):
    before, after = sampled(tmp_path, taught), sampled(tmp_path, taught, option, *CHANGES[option])
    assert before.shape == after.shape and (before != after).any()


def test_the_interval_of_guidance(tmp_path, taught):
    strong, plain = sampled(tmp_path, taught, "--scale", 5), sampled(tmp_path, taught)
    assert (sampled(tmp_path, taught, "--scale", 5, "--interval", 0, 1) == strong).all()
    assert (sampled(tmp_path, taught, "--scale", 5, "--interval", 0, 0) == plain).all()


def test_pictures_are_as_large_and_as_many_in_a_row_as_asked(tmp_path, taught):
    out = tmp_path / "x.png"
    drawing = (
        "sample",
        taught,
        "--count",
        6,
        "--steps",
        2,
        "--device",
        "cpu",
        "--batch-size",
        4,
        "--out",
        out,
    )
    assert run(*drawing, "--columns", 3, "--zoom", 3) == 0
    assert Image.open(out).size == (3 * 48 + 2 * 2, 2 * 48 + 2)


def test_a_film_beside_the_pictures(tmp_path, taught, capsys):
    film = tmp_path / "film.gif"
    assert (
        run(
            "sample",
            taught,
            "--count",
            4,
            "--steps",
            5,
            "--out",
            tmp_path / "x.npz",
            "--film",
            film,
            "--zoom",
            1,
        )
        == 0
    )
    assert f"{film}: 5 frames of 5 steps" in capsys.readouterr().out
    assert Image.open(film).n_frames == 5 and (tmp_path / "x.npz").exists()


def test_what_would_be_dropped_without_a_word_is_refused(tmp_path, taught, capsys):
    exported = tmp_path / "small.safetensors"
    assert run("export", taught, "--out", exported) == 0
    for words, said in (
        ([exported, "--raw"], "holds only the average"),
        ([taught, "--zoom", 2, "--out", tmp_path / "x.npz"], "--zoom is for a picture"),
        ([taught, "--columns", 2, "--out", tmp_path / "x.npz"], "--columns is for a picture"),
        ([taught, "--film", tmp_path / "x.mp4"], ".gif or .webp"),
    ):
        capsys.readouterr()
        assert run("sample", *words) == 2
        assert said in capsys.readouterr().err
    folder = photographs(tmp_path / "pets", {"cat": 3})
    assert run("train", "--data", folder, "--no-labels", "--steps", 1, "--out", tmp_path / "bare", *TINY) == 0
    for option in (["--label", "0"], ["--scale", "2"], ["--interval", "0", "1"]):
        assert run("sample", tmp_path / "bare", "--out", tmp_path / "y.png", *option) == 2
        assert "leave" in capsys.readouterr().err.splitlines()[-1]
    assert run("sample", tmp_path / "bare", "--count", 2, "--steps", 2, "--out", tmp_path / "y.png") == 0
    assert run("data", "list", "mnist") == 2 and "leave mnist out" in capsys.readouterr().err
    assert run("exercises", "--marks", tmp_path / "a.json", "--forget") == 2
    assert "leave --all and --forget out" in capsys.readouterr().err


# --- evaluate, export, data, exercises ------------------------------------------------------------


def test_every_other_option_has_a_case():
    """Where they are tried: test_cli_evaluate.py, test_cli_export.py, test_exercises.py, and below."""
    drawing = {
        "--count",
        "--steps",
        "--sampler",
        "--scale",
        "--interval",
        "--eta",
        "--seed",
        "--batch-size",
        "--device",
    }
    assert options("evaluate") == drawing | {
        "--data", "--data-root", "--skip-corrupt", "--features", "--bits", "--json", "--ledger",
    }  # fmt: skip
    assert options("export") == {"--out", "--metrics"}
    assert options("data") == {"--data-root"}
    assert options("exercises") == {"--all", "--marks", "--forget"}


EVALUATED = {
    "--steps": ["2"],
    "--sampler": ["ddim"],
    "--scale": ["3"],
    "--interval": ["0", "0.5"],
    "--eta": ["0.5"],
    "--seed": ["3"],
    "--count": ["131"],
    "--data-root": ["."],
    "--skip-corrupt": [],
    "--batch-size": ["50"],
    "--device": ["cpu"],
}


def evaluated(out: Path, taught: Path, quick: list, *words) -> dict:
    assert run("evaluate", taught, *quick, "--steps", 3, "--scale", 2, *words, "--json", out) == 0
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def usual(tmp_path_factory, taught, quick) -> dict:
    return evaluated(tmp_path_factory.mktemp("usual") / "e.json", taught, quick)


@pytest.mark.parametrize("option", EVALUATED)
def test_an_option_of_evaluate_reaches_the_numbers(tmp_path, taught, quick, usual, option):
    found = evaluated(tmp_path / "e.json", taught, quick, option, *EVALUATED[option])
    rows = [[row["value"] for row in each["metrics"]] for each in (usual, found)]
    if option in ("--data-root", "--skip-corrupt", "--batch-size", "--device"):
        assert rows[0] == pytest.approx(rows[1], rel=1e-3)
    else:
        assert rows[0] != rows[1] and usual.get(option[2:]) != found[option[2:]]


def test_the_sets_in_another_folder(tmp_path, capsys):
    for split, count in (("train", 3), ("test", 2)):
        images = load_images("cifar10", split).images[:count].permute(0, 2, 3, 1).numpy()
        np.savez(tmp_path / f"cifar10-{split}.npz", images=images, labels=np.zeros(count, int))
    assert run("data", "list", "--data-root", tmp_path) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("cifar10-full"))
    assert line.endswith("yes")
    assert run("data", "get", "cifar10-full", "--data-root", tmp_path) == 0
    assert str(tmp_path) in capsys.readouterr().out
