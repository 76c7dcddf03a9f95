"""Files: whole or not at all, as the umask says, never over what was read, one process at a time."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ddpm_lib
from ddpm_lib.files import (
    CHECKPOINT,
    keep_apart,
    leftovers,
    locked,
    model_file,
    shipped,
    user_path,
    write_whole,
)

POSIX = pytest.mark.skipif(os.name != "posix", reason="this system has no umask and no SIGKILL")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def text(words: str):
    return lambda part: Path(part).write_text(words)


def tensors(part: str) -> None:
    save_file({"x": torch.zeros(2)}, part)


# ---------------------------------------------------------------- whole or not at all


@POSIX
@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
@pytest.mark.parametrize("write", [text("new"), tensors], ids=["text", "safetensors"])
@pytest.mark.parametrize("there", [True, False])
def test_who_may_read_a_file_is_as_the_umask_says(tmp_path, mask, mode, write, there):
    path = tmp_path / "a.txt"
    before = os.umask(mask)
    try:
        if there:
            write_whole(path, text("old"))
        write_whole(path, write)
        plain = tmp_path / "plain"
        plain.touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode == stat.S_IMODE(plain.stat().st_mode)


def test_a_file_is_written_into_a_folder_that_is_not_there_yet(tmp_path):
    path, seen = tmp_path / "new" / "er" / "a.json", []

    def write(part: str) -> None:
        seen.append(Path(part))
        assert not path.exists() and Path(part).parent == path.parent and Path(part).suffix == path.suffix
        assert list(leftovers(path)) == [Path(part)]
        Path(part).write_text("{}")

    write_whole(path, write)
    assert path.read_text() == "{}" and names(path.parent) == ["a.json"] and list(leftovers(path)) == []
    write_whole(str(path), text("[]"))
    assert path.read_text() == "[]"
    tensors_too = tmp_path / "t.safetensors"
    write_whole(tensors_too, tensors)
    assert load_file(tensors_too)["x"].tolist() == [0, 0]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("what", ["write", "fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("mine")]
)
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, there, what, error):
    path = tmp_path / "a.txt"
    if there:
        path.write_text("old")

    def fail(part, *rest):
        if what == "write":
            Path(part).write_text("half of it")
        raise error

    if what != "write":
        monkeypatch.setattr(os, what, fail)
    with pytest.raises(type(error)) as caught:
        write_whole(path, fail if what == "write" else text("new"))
    monkeypatch.undo()
    assert names(tmp_path) == ["a.txt"] * there and (not there or path.read_text() == "old")
    if isinstance(error, OSError):
        said = str(caught.value)
        assert said.startswith(f"could not write {path} (") and "No space left" in said and "\n" not in said
        assert ("the file that was there is untouched" if there else "nothing was written") in said
    else:
        # what the writer says of its own goes through as it is
        assert caught.value is error


def test_a_write_that_safetensors_cannot_do_is_an_os_error(tmp_path):
    class SafetensorError(Exception):
        """As the package calls its own, which is no OSError."""

    def fail(part):
        raise SafetensorError("I/O error: No space left on device")

    with pytest.raises(OSError, match="could not write .*nothing was written.*Free some space"):
        write_whole(tmp_path / "a", fail)


def test_a_place_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        write_whole(tmp_path / "file" / "a.txt", text("new"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="could not write .*folder "):
        write_whole(tmp_path / "folder", text("new"))
    assert names(tmp_path) == ["file", "folder"] and names(tmp_path / "folder") == []


# ---------------------------------------------------------------- never over what was read


def test_outputs_are_kept_apart_from_inputs(tmp_path):
    model, other, link = tmp_path / "c.safetensors", tmp_path / "d.safetensors", tmp_path / "link"
    model.write_text("x")
    link.symlink_to(model)
    crooked = tmp_path / "." / "sub" / ".." / model.name
    (tmp_path / "sub").mkdir()
    for same in (model, str(model), link, crooked):
        with pytest.raises(
            ValueError, match=f"--out .* would overwrite {model}, which this command reads"
        ) as caught:
            keep_apart("--out", same, [None, other, model])
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="would overwrite .*link"):
        keep_apart("--out", model, [link])
    # two names for one file that is not there yet: the second would overwrite the first
    with pytest.raises(ValueError, match="would overwrite"):
        keep_apart("--out", other, [model, other, None, "mnist"])
    keep_apart("--out", other, [model, None, "mnist"])
    keep_apart("--out", None, [model])
    keep_apart("--out", model, [])
    other.write_text("x")
    keep_apart("--out", other, [model])
    with pytest.raises(ValueError, match="--json .*sub is a folder: give the name of a file"):
        keep_apart("--json", tmp_path / "sub", [])


def test_nothing_is_written_over_a_runs_checkpoint_or_among_pictures(tmp_path):
    (tmp_path / "run").mkdir()
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    keep_apart("--out", checkpoint, [])
    checkpoint.write_text("x")
    with pytest.raises(ValueError, match="would overwrite the checkpoint of a run"):
        keep_apart("--out", checkpoint, [])
    (tmp_path / "pets").mkdir()
    with pytest.raises(ValueError, match="lies among the pictures"):
        keep_apart("--out", tmp_path / "pets" / "cat" / "new.png", [tmp_path / "pets"])
    keep_apart("--json", tmp_path / "pets" / "numbers.json", [tmp_path / "pets"])


def test_an_output_in_the_readers_home_is_kept_apart_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "c.safetensors").write_text("x")
    with pytest.raises(ValueError, match="would overwrite"):
        keep_apart("--out", "~/c.safetensors", [tmp_path / "c.safetensors"])


# ---------------------------------------------------------------- one process at a time

HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from ddpm_lib.files import locked
with locked(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(Path(ddpm_lib.__file__).parents[1]), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    process = holder(tmp_path)
    try:
        with (
            pytest.raises(ValueError, match="another process is at work in this folder") as caught,
            locked(tmp_path),
        ):
            raise AssertionError("held twice")
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
        # others are free
        (tmp_path / "sub").mkdir()
        with locked(tmp_path / "sub"):
            pass
        process.communicate("go\n", timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and names(tmp_path) == ["sub"] and names(tmp_path / "sub") == []
    with locked(tmp_path):
        pass
    assert names(tmp_path) == ["sub"]


@POSIX
def test_a_killed_process_holds_nothing_and_leaves_nothing_over(tmp_path):
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    with locked(tmp_path):
        (tmp_path / "work").touch()
    assert names(tmp_path) == ["work"]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_a_folder_is_free_again_after_a_failure(tmp_path, error):
    with pytest.raises(type(error)) as caught, locked(tmp_path):
        raise error
    assert caught.value is error and names(tmp_path) == []
    with locked(tmp_path), pytest.raises(ValueError, match="another process"), locked(tmp_path):
        raise AssertionError("held twice")
    assert names(tmp_path) == []


# ---------------------------------------------------------------- names and paths


def test_a_tilde_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert user_path("~/runs/a") == tmp_path / "runs" / "a" and user_path("~") == tmp_path
    assert user_path("runs/~a") == Path("runs/~a") and user_path(tmp_path) == tmp_path


def test_a_home_that_the_system_does_not_know_is_said():
    with pytest.raises(
        ValueError, match="~no_such_user_here/x: this system knows no home folder.*whole path"
    ):
        user_path("~no_such_user_here/x")


def test_a_models_name_is_a_shipped_model_a_run_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert set(shipped()) >= {"mnist28", "cifar32"}
    for name, path in shipped().items():
        assert model_file(name) == path and path.is_file()
    run = tmp_path / "run"
    assert model_file(run) == run, "it need not be there"
    run.mkdir()
    assert model_file(run) == model_file("~/run") == run / CHECKPOINT
    assert model_file("run") == Path("run") / CHECKPOINT
    (run / CHECKPOINT).write_text("x")
    assert model_file(run / CHECKPOINT) == run / CHECKPOINT
    # what the reader has made goes before what is shipped
    (tmp_path / "mnist28").mkdir()
    assert model_file("mnist28") == Path("mnist28") / CHECKPOINT
