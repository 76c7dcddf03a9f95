"""A run in its folder: what it says, what it keeps, what it refuses, how it stops and goes on, and where it starts."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from command import assert_equal, wait_for_step, weights
from tiny_runs import TINY, resumed, started, tiny

import ddpm_lib
from ddpm_lib import checkpoint, files, prepare, run, work

# --- what it says and keeps ----------------------------------------------------------------------


def test_a_run_is_started_and_gone_on_with_from_python(tmp_path):
    out = tmp_path / "runs" / "first"
    outcome, said = started(out)
    assert outcome.finished and outcome.signal == 0 and outcome.model.step == 4 and outcome.folder == out
    assert said[0].startswith("mnist: 10,000 pictures of 8 x 8, grey; 10 classes of 1,000 each: 0, 1, 2")
    assert said[1].startswith("cost: ") and said[2 - 1].count("\n") == 1
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.safetensors", "log.jsonl"]
    outcome, _ = resumed(out, steps=6)
    assert outcome.finished and checkpoint.load(out).step == 6
    started(tmp_path / "whole", steps=6)
    assert_equal(weights(out), weights(tmp_path / "whole"))


def test_a_run_without_labels_trains_and_knows_none(tmp_path, pets):
    outcome, _ = started(tmp_path / "run", data=str(pets), labels=False, sample_every=4)
    assert outcome.finished and outcome.model.classes == [] and outcome.model.net.config.num_classes == 0
    assert (tmp_path / "run" / "samples" / "step_000004.png").exists()


def test_a_run_in_a_thread_of_a_notebook(tmp_path):
    """Signals belong to the main thread; a run elsewhere does without them."""
    found = []
    thread = threading.Thread(target=lambda: found.append(started(tmp_path / "run")[0]))
    thread.start()
    thread.join(120)
    assert found and found[0].finished


# --- what it refuses -----------------------------------------------------------------------------


def test_a_run_within_its_own_pictures_is_refused(tmp_path, pets):
    for out in (pets / "run", pets, pets / "cat" / "deep" / "run"):
        with pytest.raises(ValueError, match="lies within --data"):
            started(out, data=str(pets))
    assert sorted(path.name for path in pets.iterdir()) == ["bird", "cat", "dog"]


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 16},
        {"schedule": "cosine"},
        {"lr": 0.1},
        {"data": "cifar10"},
        {"labels": False},
        {"init": "mnist28"},
    ],
    ids=str,
)
def test_what_a_run_was_started_with_stays(tmp_path, changes):
    started(tmp_path / "run")
    (name,) = changes
    with pytest.raises(ValueError, match=f"was started with(out)? {prepare.option(name)}[ :].*another --out"):
        resumed(tmp_path / "run", steps=9, **changes)


def test_what_may_change_and_what_is_no_setting(tmp_path):
    started(tmp_path / "run")
    with pytest.raises(ValueError, match="larger --steps"):
        resumed(tmp_path / "run")
    with pytest.raises(ValueError, match="unknown settings speed .did you mean seed.*; known: steps"):
        resumed(tmp_path / "run", speed=2)
    with pytest.raises(ValueError, match="steps must be a whole number, got '9'"):
        resumed(tmp_path / "run", steps="9")
    assert resumed(tmp_path / "run", steps=5, save_every=1, data_root=str(tmp_path))[0].finished


def test_a_checkpoint_of_the_library_is_no_run(tmp_path):
    outcome, _ = started(tmp_path / "run")
    for provenance in ({}, {"device": "a processor"}):
        bare = replace(outcome.model, provenance=provenance)
        checkpoint.save(bare, tmp_path / "bare" / "checkpoint.safetensors")
        with pytest.raises(ValueError, match="was not saved by a training run.*--init"):
            resumed(tmp_path / "bare", steps=9)
    odd = replace(outcome.model, provenance={"settings": {"steps": 4, "colour": "red"}})
    checkpoint.save(odd, tmp_path / "odd" / "checkpoint.safetensors")
    with pytest.raises(checkpoint.CheckpointError, match="settings do not fit this version"):
        resumed(tmp_path / "odd", steps=9)


@pytest.mark.parametrize(
    ("asked", "fine"), [("", True), ("1", True), ("two", False), ("0", False), ("-1", False)]
)
def test_a_strange_number_of_processes(tmp_path, monkeypatch, asked, fine):
    monkeypatch.setenv("WORLD_SIZE", asked)
    if fine:
        assert started(tmp_path / "run")[0].finished
    else:
        with pytest.raises(ValueError, match=f"WORLD_SIZE={asked}"):
            started(tmp_path / "run")


def test_tensorboard_that_is_not_there_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        started(tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_a_compiler_that_is_not_there_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="--compile needs a C.. compiler"):
        started(tmp_path / "run", compile=True)
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_full_at_the_first_save_leaves_nothing(tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    out = tmp_path / "new" / "run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            started(out)
    assert not out.parent.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            started(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert started(tmp_path / "mine")[0].finished


# --- how it stops and goes on --------------------------------------------------------------------


SCRIPT = """
import json, sys
from ddpm_lib import run
from ddpm_lib.settings import Settings
folder, settings = sys.argv[1], json.loads(sys.argv[2])
if settings is None:
    outcome = run.resume(folder, progress=False)
else:
    outcome = run.start(Settings(**settings), folder, progress=False)
sys.exit(outcome.signal)
"""


def process(folder: Path, settings: dict | None, **options) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(ddpm_lib.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        **options,
    )


@pytest.mark.slow
def test_killed_twice_and_resumed_is_bit_equal_and_leaves_nothing_over(tmp_path):
    settings = TINY | {"steps": 40, "save_every": 3, "sample_every": 7, "dropout": 0.2, "flip": True}
    started(tmp_path / "whole", **settings)
    broken = tmp_path / "broken"
    for first in (True, False):
        at_work = process(broken, settings if first else None)
        wait_for_step(broken, random.randint(1, 10) if first else random.randint(12, 30), at_work)
        at_work.kill()
        at_work.communicate()
    assert resumed(broken)[0].finished
    assert_equal(weights(broken), weights(tmp_path / "whole"))
    names = [sorted(path.name for path in folder.rglob("*")) for folder in (broken, tmp_path / "whole")]
    assert names[0] == names[1]
    logged = [json.loads(line) for line in (broken / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == list(range(1, 41))


def test_killed_before_its_first_step_it_goes_on_from_there(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*args, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(work, "train", kill)
        with pytest.raises(Killed):
            started(tmp_path / "run")
    assert checkpoint.load(tmp_path / "run").step == 0
    assert resumed(tmp_path / "run")[0].finished
    started(tmp_path / "whole")
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_closed_terminal_saves(tmp_path):
    out = tmp_path / "run"
    at_work = process(out, TINY | {"steps": 100_000, "save_every": 100_000})
    wait_for_step(out, 3, at_work)
    at_work.send_signal(signal.SIGHUP)
    at_work.communicate(timeout=60)
    assert at_work.returncode == signal.SIGHUP
    assert 3 <= checkpoint.load(out).step == len((out / "log.jsonl").read_text().splitlines())


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_run_under_nohup_goes_on(tmp_path):
    out = tmp_path / "run"
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    at_work = process(out, TINY | {"steps": 100_000, "save_every": 100_000}, preexec_fn=ignore)
    wait_for_step(out, 3, at_work)
    at_work.send_signal(signal.SIGHUP)
    wait_for_step(out, len((out / "log.jsonl").read_text().splitlines()) + 3, at_work)
    at_work.terminate()
    at_work.communicate(timeout=60)
    assert at_work.returncode == signal.SIGTERM


def test_two_cannot_work_in_one_folder_and_a_killed_one_frees_it(tmp_path):
    out = tmp_path / "run"
    at_work = process(out, TINY | {"steps": 100_000, "save_every": 5})
    wait_for_step(out, 6, at_work)
    for second in (lambda: resumed(out), lambda: resumed(out, steps=9)):
        with pytest.raises(ValueError, match="another process is at work in this folder"):
            second()
    assert at_work.poll() is None
    at_work.kill()
    at_work.communicate()
    step = checkpoint.load(out).step
    assert resumed(out, steps=step + 2)[0].finished
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.safetensors", "log.jsonl"]


def test_two_that_start_at_once_in_one_folder(tmp_path):
    both = [process(tmp_path / "run", TINY | {"steps": 30}) for _ in range(2)]
    said = [each.communicate(timeout=120)[1] for each in both]
    codes = sorted(each.returncode for each in both)
    assert codes == [0, 1], said
    (refused,) = (text for text, each in zip(said, both, strict=True) if each.returncode)
    assert "another process is at work" in refused or "another run" in refused
    assert checkpoint.load(tmp_path / "run").step == 30


def test_a_terminal_that_is_gone_does_not_end_a_run(tmp_path, monkeypatch):
    class Gone:
        def write(self, text):
            raise OSError(5, "Input/output error")

        flush = isatty = lambda self: False

    monkeypatch.setattr(sys, "stderr", Gone())
    outcome = run.start(tiny(), tmp_path / "run", tell=lambda text: None)
    assert outcome.finished and checkpoint.load(tmp_path / "run").step == 4


# --- where it starts -----------------------------------------------------------------------------


def test_files_of_a_model_by_each_of_its_names(tmp_path):
    started(tmp_path / "run")
    assert files.model_file(tmp_path / "run") == tmp_path / "run" / "checkpoint.safetensors"
    assert files.model_file("mnist28") == files.shipped()["mnist28"]
    assert files.model_file("nowhere") == Path("nowhere")


def test_time_is_counted_over_all_parts_of_a_run(tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    first, _ = started(tmp_path / "run", log_every=50)
    before = first.model.provenance["seconds"]
    second, _ = resumed(tmp_path / "run", steps=8)
    assert before > 0 and second.model.provenance["seconds"] > before
