"""Where the command line meets the machine: outputs and inputs, terminals, homes, devices, memory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import TINY, assert_one_line, photographs, run, start, weights
from PIL import Image

from ddpm_lib import checkpoint, cli, draw, evaluate

# --- outputs never take the place of inputs ------------------------------------------------------


def test_an_output_never_takes_the_place_of_an_input(tmp_path, capsys, monkeypatch, trained, quick):
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "run" / "checkpoint.safetensors"
    shutil.copytree(trained, tmp_path / "run")
    pictures = tmp_path / "pictures.npz"
    draw.save_npz(
        pictures, torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ["a", "b"]
    )
    assert run("train", "--data", pictures, "--steps", 1, "--out", tmp_path / "other", *TINY) == 0
    photographs(tmp_path / "pets", {"cat": 2, "dog": 2})
    assert run("train", "--data", "pets", "--steps", 1, "--out", tmp_path / "pets-run", *TINY) == 0
    (tmp_path / "ledger.json").write_text("[]")
    (tmp_path / "link.safetensors").symlink_to(model)
    monkeypatch.setattr(evaluate, "draw", lambda *_, **__: pytest.fail("drew before it looked"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words in (
        ("export", "run", "--out", model),
        ("export", "run", "--out", "link.safetensors"),
        ("export", model, "--out", "run/../run/checkpoint.safetensors"),
        ("sample", "other", "--out", pictures),
        ("export", "other", "--out", model),
        ("sample", "pets-run", "--out", "pets/cat/000.png"),
        ("sample", "pets-run", "--out", "x.npz", "--film", "pets/new.gif"),
        ("evaluate", "run", *quick, "--ledger", "new.json", "--json", "new.json"),
        ("evaluate", "run", *quick, "--ledger", model),
        ("evaluate", "run", *quick, "--ledger", "ledger.json", "--json", "ledger.json"),
    ):
        capsys.readouterr()
        assert run(*words) == 2, words
        said = capsys.readouterr().err
        assert ("would overwrite" in said and "another name" in said) or "lies among the pictures" in said, (
            said
        )
        assert len(said.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# --- files before prints, and streams that replace what they cannot show -------------------------


@pytest.mark.parametrize("encoding", ["cp1251", "ascii"])
def test_a_terminal_that_cannot_show_a_letter_loses_nothing(tmp_path, trained, quick, encoding):
    folder = photographs(tmp_path / "Tierfotos é", {"žába": 2, "ねこ": 2})
    out = tmp_path / "läuft"
    asked = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for words, made in (
        (("train", "--data", folder, "--steps", 1, "--out", out, *TINY), out / "checkpoint.safetensors"),
        (("sample", out, "--count", 2, "--steps", 1, "--out", tmp_path / "é.png"), tmp_path / "é.png"),
        (("evaluate", trained, *quick, "--steps", 1, "--json", tmp_path / "é.json"), tmp_path / "é.json"),
    ):
        process = start(*words, **asked)
        process.stdout.reconfigure(errors="replace")
        process.stderr.reconfigure(errors="replace")
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0 and made.exists() and "Traceback" not in said, said


def test_a_reader_who_has_seen_enough_costs_nothing(tmp_path, trained, quick):
    """As in `evaluate ... | head -1`: the reader of the output leaves before it is written."""
    process = start("evaluate", trained, *quick, "--steps", 1, "--json", tmp_path / "e.json")
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=120) == 0 and "Traceback" not in said and "Broken pipe" not in said, said
    assert (tmp_path / "e.json").exists()


# --- homes and environments ----------------------------------------------------------------------


def test_the_users_home_after_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run("train", "--steps", 1, "--out=~/runs/first", *TINY) == 0
    assert run("sample", "~/runs/first", "--count", 2, "--steps", 1, "--out=~/x.png") == 0
    assert (tmp_path / "x.png").exists() and not (tmp_path / "~").exists()


NO_HOME = """
import os, sys
from pathlib import Path
def nobody(path):
    raise RuntimeError("Could not determine home directory.")
Path.expanduser = lambda path: nobody(path) if str(path)[:1] == "~" else path
Path.home = classmethod(nobody)
from ddpm_lib.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "words",
    [["data", "list"], ["exercises"], ["train", "--steps", "1", "--out", "~/x"], ["sample", "~/x"]],
    ids=str,
)
def test_a_user_without_a_home(tmp_path, words):
    hidden = ("HOME", "USERPROFILE", "DDPM_LIB_DATA", "DDPM_LIB_PROGRESS", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    path = os.pathsep.join([str(Path(cli.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", NO_HOME, *words],
        env=env | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "home" in done.stderr, done.stderr


# --- devices and memory --------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["xpu", "hpu", "meta", "gpu", "cpu:x", "cuda:99", ""])
@pytest.mark.parametrize("command", ["train", "sample", "evaluate"])
def test_a_device_that_cannot_be_used(tmp_path, capsys, trained, command, device):
    words = {
        "train": ["train", "--steps", 1, "--out", tmp_path / "run", *TINY, "--device", device],
        "sample": ["sample", trained, "--out", tmp_path / "x.png", "--device", device],
        "evaluate": ["evaluate", trained, "--device", device],
    }[command]
    assert run(*words) == 2
    assert_one_line(capsys, ["device"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["--batch-size", 0], ["--batch-size", -4], ["--seed", 2**64], ["--count", -1]], ids=str
)
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_numbers_that_cannot_be(tmp_path, capsys, monkeypatch, trained, command, words):
    monkeypatch.chdir(tmp_path)
    assert run(command, trained, *words) == 2
    assert_one_line(capsys, [str(words[1])])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail at alloc_cpu.cpp:117] not enough memory: you tried to allocate 9 bytes"),
              RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
              torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), MemoryError()], ids=repr,
)  # fmt: skip
def test_too_little_memory_is_one_line(tmp_path, capsys, monkeypatch, trained, error):
    def full(*args, **options):
        raise error

    monkeypatch.setattr(draw, "draw", full)
    assert run("sample", trained, "--out", tmp_path / "x.png") == 2
    assert_one_line(capsys, ["not enough memory", "--batch-size"])


def test_an_error_of_ours_is_not_hidden(tmp_path, monkeypatch, trained):
    monkeypatch.setattr(draw, "draw", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run("sample", trained, "--out", tmp_path / "x.png")


# --- pictures ------------------------------------------------------------------------------------


def test_photographs_without_a_size_are_refused_before_they_are_read(tmp_path, capsys):
    photographs(tmp_path / "photos", {"cat": 1}, size=1200)
    words = [word for n, word in enumerate(TINY) if word != "--size" and TINY[n - 1] != "--size"]
    assert run("train", "--data", tmp_path / "photos", "--steps", 1, "--out", tmp_path / "run", *words) == 2
    assert_one_line(capsys, ["1200", "--size"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("inside", ["photos/cats/run", "photos/run"])
def test_a_run_is_not_started_among_its_own_pictures(tmp_path, capsys, inside):
    photographs(tmp_path / "photos", {"cats": 2, "dogs": 2})
    assert run("train", "--data", tmp_path / "photos", "--steps", 1, "--out", tmp_path / inside, *TINY) == 2
    assert_one_line(capsys, ["within", "outside"])
    assert not (tmp_path / inside).exists()


def test_a_class_that_is_gone_stops_a_run_that_would_go_on(tmp_path, capsys):
    folder = photographs(tmp_path / "photos", {"bird": 2, "cat": 2, "dog": 2})
    assert run("train", "--data", folder, "--steps", 2, "--out", tmp_path / "run", *TINY) == 0
    before = weights(tmp_path / "run")
    shutil.rmtree(folder / "bird")
    capsys.readouterr()
    assert run("train", "--resume", tmp_path / "run", "--steps", 4) == 2
    assert_one_line(capsys, ["cat,dog", "bird,cat,dog", "--init"])
    assert all(torch.equal(value, before[name]) for name, value in weights(tmp_path / "run").items())
    # measured beside what it was trained on: the same question, the same answer
    assert run("evaluate", tmp_path / "run", "--count", 200) == 2
    assert_one_line(capsys, ["cat, dog", "bird, cat, dog"])


def test_a_run_is_measured_as_it_read_its_pictures(tmp_path, capsys):
    """Sizes, kinds and damaged pictures are as the run's settings say, and a set without test images will do."""
    folder = tmp_path / "digits"
    from ddpm_lib.data import load_images

    for n, image in enumerate(load_images("mnist", size=12).images[:160]):
        path = folder / str(n % 10) / f"{n:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).resize((12 + n % 3, 12)).convert("RGB" if n % 2 else "L").save(path)
    (folder / "0" / "bad.png").write_bytes(b"no picture")
    made = ["--data", folder, "--channels", 1, "--skip-corrupt"]
    assert run("train", *made, "--steps", 1, "--out", tmp_path / "run", *TINY) == 0
    capsys.readouterr()
    assert run("evaluate", tmp_path / "run", "--count", 130, "--steps", 1) == 0
    said = capsys.readouterr().out
    assert "has no test images" in said and "label accuracy" in said and "recall" in said
    assert run("evaluate", tmp_path / "run", "--count", 130, "--steps", 1, "--bits", 2) == 2
    left_out, refused = capsys.readouterr().err.strip().splitlines()
    assert "left out 1 of 161" in left_out and "--bits 2: there are no test images" in refused


def test_a_checkpoint_of_the_library_can_be_drawn_from(tmp_path, capsys, trained):
    from dataclasses import replace

    bare = replace(checkpoint.load(trained), data={}, provenance={})
    checkpoint.save(bare, tmp_path / "bare.safetensors")
    words = ["--count", 3, "--steps", 1, "--out", tmp_path / "x.png"]
    assert run("sample", tmp_path / "bare.safetensors", *words, "--label", "3,1") == 0
    assert "labels 1, 3" in capsys.readouterr().out
    assert run("train", "--resume", tmp_path, "--steps", 9) == 2
    capsys.readouterr()
    (tmp_path / "run").mkdir()
    (tmp_path / "bare.safetensors").rename(tmp_path / "run" / "checkpoint.safetensors")
    assert run("train", "--resume", tmp_path / "run", "--steps", 9) == 2
    assert_one_line(capsys, ["not saved by a training run", "--init"])


def test_pictures_that_were_moved_are_named_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "photos", {"cat": 2, "dog": 2})
    assert run("train", "--data", "photos", "--steps", 2, "--out", "run", *TINY) == 0
    (tmp_path / "photos").rename(tmp_path / "moved")
    capsys.readouterr()
    assert run("train", "--resume", "run", "--steps", 4) == 2
    assert_one_line(capsys, ["photos", "is not there as seen from", "--data"])
    assert run("train", "--resume", "run/checkpoint.safetensors", "--data", "moved", "--steps", 4) == 0
    said = capsys.readouterr().err
    went_on = checkpoint.load(tmp_path / "run")
    assert "note:" not in said and went_on.step == 4 and went_on.data["source"] == "moved"
    photographs(tmp_path / "others", {"cat": 2, "fish": 2})
    assert run("train", "--resume", "run", "--data", "others", "--steps", 6) == 2
    assert_one_line(capsys, ["cat,fish", "cat,dog"])


def test_an_evaluation_of_another_model_is_not_kept(tmp_path, capsys, trained, quick):
    assert run("evaluate", trained, *quick, "--steps", 1, "--json", tmp_path / "e.json") == 0
    assert run("train", "--steps", 1, "--out", tmp_path / "run", *TINY) == 0
    capsys.readouterr()
    words = ["--out", tmp_path / "m.safetensors", "--metrics", tmp_path / "e.json"]
    assert run("export", tmp_path / "run", *words) == 2
    assert_one_line(capsys, ["e.json", "another model"])
    assert run("export", trained, *words) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--steps", "1", "--out", ""], "the name is empty"),
        (["train", "--steps", "1", "--data", "", "--out", "run"], "--data is empty"),
        (["sample", "mnist28", "--zoom", "65"], "--zoom 65: choose 1 to 64"),
        (["sample", "mnist28", "--label", "1,2,3", "--count", "2"], "--count 2 is too few for the 3 labels"),
        (["sample", "mnist28", "--scale", "2", "--interval", "-1", "2"], "0 <= low <= high <= 1"),
        (["sample", "mnist28", "--scale", "2", "--interval", "nan", "1"], "0 <= low <= high <= 1"),
        (["sample", "mnist28", "--scale", "1", "--interval", "0", "0.5"], "give a scale above 1"),
        (["evaluate", "mnist28", "--json", "x.txt"], "a name ending in .json"),
    ],
    ids=str,
)
def test_a_request_that_would_do_nothing_or_harm_is_refused(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    try:
        code = run(*words)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert_one_line(capsys, [said])
    assert not list(tmp_path.iterdir())
