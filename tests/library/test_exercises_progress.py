"""The reader's record: what is kept and shown, by code that needs no torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types

import pytest

import ddpm_lib.exercises as package
from ddpm_lib import chain, cli
from ddpm_lib.exercises import check, engine, progress

ALL = [exercise for _, group in engine.exercises().values() for exercise in group]


@pytest.fixture(autouse=True)
def record(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("DDPM_LIB_PROGRESS", str(path))
    return path


def right(x0, t, eps):
    return chain.linear(200, 0.0005, 0.1).add_noise(x0, t, eps)


# --- without torch


def run(code: str, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in (os.environ | environment).items() if value is not None},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_record_is_read_and_written_without_torch_and_numpy():
    done = run(
        "import sys\n"
        "from ddpm_lib.exercises import progress, report, marks, progress_file, forget, CHAPTERS\n"
        "progress.keep('chain.noising', True)\n"
        "print(progress.report(True), progress.marks([progress_file()]), report(), CHAPTERS)\n"
        "forget()\n"
        "print(sorted({'torch', 'numpy', 'ddpm_lib.exercises.engine'} & set(sys.modules)))\n"
    )
    assert done.returncode == 0 and done.stdout.endswith("\n[]\n"), done.stderr


def test_the_record_costs_little_time():
    done = run(
        "import time\n"
        "began = time.process_time()\n"
        "from ddpm_lib.exercises import progress\n"
        "progress.report(True)\n"
        "print(time.process_time() - began)\n"
    )
    assert float(done.stdout) < 0.3


def test_the_catalogue_is_what_the_engine_has():
    assert progress.catalogue() == {
        chapter: (title, tuple((each.name, each.title) for each in group))
        for chapter, (title, group) in engine.exercises().items()
    }


def test_the_package_has_every_name_that_it_promises():
    for name in package.__all__:
        assert getattr(package, name) is getattr(progress if hasattr(progress, name) else engine, name)
        assert name in dir(package)
    assert isinstance(package.progress, types.ModuleType)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
    with pytest.raises(ImportError):
        from ddpm_lib.exercises import nothing  # noqa: F401


# --- what is kept


def test_progress_counts_tries_up_to_the_first_correct_one(record):
    for attempt in (0.1, 0.2, None, 5e-4, 0.3):
        check("chain.last_step", attempt)
    check("chain.noising", right, record=False)
    kept = json.loads(record.read_text())
    assert kept.keys() == {"chain.last_step"} and kept["chain.last_step"]["tries"] == 3
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", kept["chain.last_step"]["correct"])


def test_the_command_line_shows_progress_and_forgets_it(record, capsys):
    check("chain.last_step", 5e-4)
    check("chain.noising", lambda x0, t, eps: x0)
    assert cli.main(["exercises"]) == 0
    lines = capsys.readouterr().out
    assert re.search(r"^ 1  #\.+ +1 of \d  From noise to a picture$", lines, re.MULTILINE)
    assert re.search(r"\[x\] chain.last_step .*, 1 try", lines)
    assert re.search(r"\[ \] chain.noising .* 1 try", lines)
    assert "Next: chapter 1, Noise a whole batch (chain.noising)" in lines
    assert "schedule.cosine" not in lines  # chapter 2 is not begun
    assert f"1 of {len(ALL)} exercises" in lines and str(record) in lines
    assert cli.main(["exercises", "--all"]) == 0
    out = capsys.readouterr().out
    assert all(f" {exercise.name} " in out for exercise in ALL)
    assert cli.main(["exercises", "--forget"]) == 0 and not record.exists()
    assert f"0 of {len(ALL)} exercises" in capsys.readouterr().out


def test_the_report_knows_the_end(record):
    record.write_text(json.dumps({each.name: {"correct": "2026-01-01", "tries": 1} for each in ALL}))
    assert "All of them" in progress.report() and "Next:" not in progress.report()


def test_a_teacher_sees_a_class(record, tmp_path, capsys):
    check("chain.last_step", 5e-4)
    check("chain.noising", lambda x0, t, eps: x0)
    ada, bob = tmp_path / "ada.json", tmp_path / "bob.json"
    # as an editor on Windows leaves it
    ada.write_text(record.read_text(), encoding="utf-8-sig")
    bob.write_text("{}")
    assert cli.main(["exercises", "--marks", str(ada), str(bob)]) == 0
    head, first, second = (line.split("\t") for line in capsys.readouterr().out.strip().split("\n"))
    assert head[0] == "file" and head[1].startswith("1 (of ") and head[-1] == "all"
    assert first == [str(ada), "1", *["0"] * (len(head) - 3), "1"]
    assert second == [str(bob), *["0"] * (len(head) - 1)]


# --- what cannot be read or written

UNREADABLE = (
    "{",
    "[]",
    '{"chain.noising": 3}',
    '{"chain.noising": {"correct": null}}',
    "[" * 100_000,
    "\udcff",
)


def write(path, text):
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


@pytest.mark.parametrize("text", [None, *UNREADABLE[:3]])
def test_a_file_that_was_not_handed_in_right_is_named(tmp_path, text, capsys):
    file = tmp_path / "ada.json"
    if text is not None:
        file.write_text(text)
    assert cli.main(["exercises", "--marks", str(file)]) != 0
    assert "ada.json" in capsys.readouterr().err
    assert text is None or file.read_text() == text


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_file_that_cannot_be_read_is_moved_aside(record, text):
    write(record, text)
    before = record.read_bytes()
    with pytest.warns(UserWarning, match="counting begins anew"):
        assert check("chain.last_step", 5e-4)
    assert record.with_name("progress.json.unreadable").read_bytes() == before
    assert json.loads(record.read_text())["chain.last_step"]["tries"] == 1


def test_a_mark_is_given_even_if_it_cannot_be_kept(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DDPM_LIB_PROGRESS", str(tmp_path / "file" / "progress.json"))
    with pytest.warns(UserWarning, match="could not be kept"):
        assert check("chain.last_step", 5e-4)


def nobody(monkeypatch):
    """A system that knows no home: no HOME, and a user id that has no name."""
    import pwd

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("DDPM_LIB_PROGRESS", raising=False)

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a home is found in another way")
def test_where_no_home_is_known_one_line_says_what_to_do(monkeypatch, capsys):
    nobody(monkeypatch)
    with pytest.raises(ValueError, match="no home folder.*DDPM_LIB_PROGRESS"):
        progress.report()
    with pytest.warns(UserWarning, match="could not be kept.*DDPM_LIB_PROGRESS"):
        assert check("chain.last_step", 5e-4)
    for words in (["exercises"], ["exercises", "--forget"]):
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert "DDPM_LIB_PROGRESS" in said and len(said.splitlines()) == 1 and "Traceback" not in said


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a home is found in another way")
def test_a_file_in_the_home_of_nobody_is_one_line_too(monkeypatch):
    monkeypatch.setenv("DDPM_LIB_PROGRESS", "~nobody_of_that_name/progress.json")
    with pytest.raises(ValueError, match="nobody_of_that_name"):
        progress.progress_file()


def test_a_file_named_with_a_tilde_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DDPM_LIB_PROGRESS", "~/mine/progress.json")
    assert check("chain.last_step", 5e-4)
    assert json.loads((tmp_path / "mine" / "progress.json").read_text()).keys() == {"chain.last_step"}
    monkeypatch.delenv("DDPM_LIB_PROGRESS")
    assert progress.progress_file() == tmp_path / ".ddpm_lib" / "progress.json"
