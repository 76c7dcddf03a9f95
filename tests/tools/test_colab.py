"""Chapters run as Colab would run them. `make colab` does it for all; here one, in the packages that are installed."""

import subprocess
import sys
from pathlib import Path

import address
import chapters
import colab
import plain
import pytest
from nbformat.v4 import new_code_cell, new_notebook, writes

HERE = Path(sys.executable)
CHAPTERS = sorted((colab.ROOT / "book").glob("*.ipynb"))


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def code(path: Path) -> list:
    return [cell for cell in chapters.read(path).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_begins_with_the_same_cell(path):
    assert code(path)[0].source == code(CHAPTERS[0])[0].source
    assert not any("%pip" in cell.source for cell in code(path)[1:])


def test_chapters_run_in_the_form_that_the_branch_has(tmp_path, monkeypatch):
    seen = []

    def run(path, *_):
        seen.append(code(path))
        return colab.Outcome(path.stem, 0, 0, "", "")

    monkeypatch.setattr(colab, "environment", lambda *_: HERE)
    monkeypatch.setattr(colab, "copy_of_the_repository", lambda target: target)
    monkeypatch.setattr(colab, "run", run)
    assert colab.main(["oldest", str(CHAPTERS[-1]), "--folder", str(tmp_path)]) == 0
    (cells,) = seen
    assert cells[0].source == code(CHAPTERS[-1])[0].source
    folded = {cell.id for cell in code(CHAPTERS[0]) if "hide-input" in chapters.tags(cell)}
    (made,) = plain.write([CHAPTERS[0]], "colab", tmp_path)
    titled = {cell.id for cell in code(made) if cell.source.startswith("#@title")}
    assert folded and folded <= titled


def test_the_oldest_end_is_the_one_that_pyproject_allows():
    oldest = colab.requirements("oldest")
    assert {"torch==2.6.*", "torchvision==0.21.*", "numpy==1.26.*", "matplotlib==3.8.*"} <= set(oldest)
    assert {"torch", "torchvision", "numpy"} <= set(colab.requirements("newest"))
    assert not any(each.startswith("ddpm") for each in oldest)
    with pytest.raises(ValueError, match="'middle'.*oldest, newest"):
        colab.requirements("middle")


def test_the_copy_is_the_working_tree_without_what_git_ignores(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    git(root, "init", "-q")
    (root / ".gitignore").write_text("ignored\n")
    for name in ("changed", "gone"):
        (root / name).write_text("committed")
    git(root, "add", ".")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
    (root / "changed").write_text("now")
    (root / "gone").unlink()
    for name in ("new", "ignored"):
        (root / name).write_text("new")
    copy = colab.copy_of_the_repository(tmp_path / "copy", root)
    assert git(copy, "ls-files").split() == [".gitignore", "changed", "new"]
    assert git(copy, "show", "HEAD:changed") == "now" and git(copy, "status", "--short") == ""


def test_git_finds_the_published_address_in_the_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(colab.ROOT))
    copy = tmp_path / "copy"
    copy.mkdir()
    git(copy, "init", "-q")
    git(copy, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first", "--allow-empty")
    env = colab.surroundings(tmp_path / "home", HERE, copy)
    assert "PYTHONPATH" not in env and env["HOME"] == str(tmp_path / "home")
    command = ["git", "ls-remote", address.committed().url, "HEAD"]
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    assert said.split()[0] == git(copy, "rev-parse", "HEAD").strip()


def test_an_environment_that_has_the_library_is_refused(tmp_path):
    subprocess.run([HERE, "-m", "venv", "--without-pip", tmp_path / "base"], check=True)
    base = tmp_path / "base" / "bin" / "python"
    assert colab.layer(base, tmp_path / "first").is_file()
    site = subprocess.run(
        [base, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    ).stdout.strip()
    Path(site, "ddpm_lib.py").write_text("")
    with pytest.raises(ValueError, match="ddpm_lib is installed in"):
        colab.layer(base, tmp_path / "second")


def test_a_chapter_that_needs_what_lies_beside_it_fails_at_that_cell(tmp_path):
    path = tmp_path / "chapter.ipynb"
    (tmp_path / "beside.txt").write_text("here")
    cells = [
        new_code_cell("x = 1", id="fine"),
        new_code_cell("1 / 0", id="a-lesson", metadata={"tags": ["raises-exception"]}),
        new_code_cell("raise RuntimeError('no GPU')", id="gpu", metadata={"tags": ["gpu", "nbval-skip"]}),
        new_code_cell("open('beside.txt')", id="needs-more"),
        new_code_cell("x", id="never"),
    ]
    if colab._says(HERE, "import torch; print(torch.cuda.is_available())") == "True":
        del cells[2]
    path.write_text(writes(new_notebook(cells=cells)))
    outcome = colab.run(path, HERE, tmp_path)
    assert (
        outcome.failed == f"code cell {len(cells) - 1}, `needs-more`" and "FileNotFoundError" in outcome.error
    )
    assert f"| chapter | 0 s | {outcome.cells:.0f} s | failed at code cell" in colab.table([outcome])


def test_ctrl_c_stops_all_chapters(tmp_path):
    path = tmp_path / "chapter.ipynb"
    path.write_text(writes(new_notebook(cells=[new_code_cell("raise KeyboardInterrupt", id="stopped")])))
    with pytest.raises(KeyboardInterrupt):
        colab.run(path, HERE, tmp_path)


@pytest.mark.slow
def test_a_chapter_runs_alone_and_installs_the_library_itself(tmp_path):
    repository = colab.copy_of_the_repository(tmp_path / "copy")
    (rosetta,) = plain.write([colab.ROOT / "book" / "rosetta.ipynb"], "colab", tmp_path / "plain")
    outcome = colab.run(rosetta, HERE, repository)
    if "No matching distribution found for setuptools" in outcome.error:
        pytest.skip("no package index within reach: the library cannot be built")
    assert outcome.failed == "", outcome.error
    assert "| passed |" in colab.table([outcome])
