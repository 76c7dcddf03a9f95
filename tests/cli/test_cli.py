"""What all commands have in common."""

import pytest
from command import run, start


def test_data_list_shows_the_sets(capsys):
    assert run("data", "list") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("mnist", "cifar10", "mnist-full", "cifar10-full"))


def test_help_teaches(capsys):
    for command in ("train", "sample", "evaluate", "export", "data", "exercises"):
        with pytest.raises(SystemExit) as stopped:
            run(command, "--help")
        assert stopped.value.code == 0 and "Examples:" in capsys.readouterr().out


def test_no_traceback_reaches_the_reader(tmp_path):
    process = start("train", "--data", "nowhere", "--steps", 1, "--out", tmp_path / "run")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in errors and len(errors.splitlines()) == 1
