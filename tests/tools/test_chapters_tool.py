"""Stored chapters have one normal form, and a run changes nothing else."""

import copy
import json

import chapters
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output


def result(text, **data):
    return new_output("execute_result", data={"text/plain": text, **data}, execution_count=7)


@pytest.fixture
def nb():
    code = new_code_cell(
        "print('x')",
        id="code-1",
        execution_count=7,
        metadata={
            "tags": ["hide-input"],
            "execution": {"iopub.execute_input": "2001-01-01"},
            "collapsed": False,
        },
        outputs=[
            new_output("stream", name="stdout", text="10%\r50%\r100%\ndo"),
            new_output("stream", name="stdout", text="ne\n"),
            result("<Thing at 0x7f12a4bc9d10>", **{chapters.WIDGET_VIEW: {"model_id": "abc"}}),
        ],
    )
    metadata = {
        "widgets": {"state": 1},
        "language_info": {"name": "python", "version": "3.11.7"},
        "colab": {},
    }
    return new_notebook(cells=[new_markdown_cell("# A title", id="prose"), code], metadata=metadata)


def test_volatile_parts_go_and_the_rest_stays(nb):
    chapters.normalise(nb)
    assert set(nb.metadata) == {"kernelspec", "language_info"}
    assert nb.metadata.language_info == {"name": "python"}
    code = nb.cells[1]
    assert code.id == "code-1" and code.source == "print('x')" and code.execution_count == 1
    assert code.metadata == {"tags": ["hide-input"]}
    stream, shown = code.outputs
    assert stream.text == "100%\ndone\n"
    assert shown.data == {"text/plain": "<Thing at 0x...>"} and shown.execution_count == 1
    nbformat.validate(nb)


def test_normalising_twice_changes_nothing(nb):
    once = chapters.dumps(chapters.normalise(nb))
    assert chapters.dumps(chapters.normalise(copy.deepcopy(nb))) == once
    assert once.endswith("}\n")


def test_missing_and_repeated_ids_are_replaced_the_same_way_each_time(tmp_path):
    path = tmp_path / "a.ipynb"
    cell = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    cells = [cell | {"source": ["1"]}, cell | {"source": ["1"]}]
    cells += [cell | {"source": ["2"], "id": "same"}, cell | {"source": ["3"], "id": "same"}]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))

    def ids():
        return [cell.id for cell in chapters.normalise(chapters.read(path)).cells]

    assert ids() == ids() and len(set(ids())) == 4 and ids()[2] == "same"


def test_fingerprint_follows_code_that_runs_and_not_prose_gpu_cells_or_the_address(nb):
    nb.cells.append(new_code_cell("train_long()", metadata={"tags": ["gpu", "nbval-skip"]}))
    nb.cells.append(new_code_cell('%pip install "ddpm-lib @ git+https://github.com/your_name/ddpm-book"'))
    before = chapters.fingerprint(nb)
    nb.cells[0].source = "# Another title"
    nb.cells[2].source = "train_longer()"
    nb.cells[3].source = nb.cells[3].source.replace("your_name", "ada")
    assert chapters.fingerprint(nb) == before
    nb.cells[1].source = "print('y')"
    assert chapters.fingerprint(nb) != before


def test_a_cell_that_was_not_run_has_no_number_and_takes_none_from_the_next(nb):
    nb.cells = [new_code_cell(source) for source in ("1", "train_long()", "", "2")]
    nb.cells[1].metadata["tags"] = ["gpu", "nbval-skip", "not-yet-run"]
    assert [cell.execution_count for cell in chapters.normalise(nb).cells] == [1, None, None, 2]


def stored(nb, folder):
    path = folder / "01_chapter.ipynb"
    chapters.normalise(nb)
    nb.metadata[chapters.STAMP] = {"code_that_ran": chapters.fingerprint(nb)}
    chapters.write(nb, path)
    return path


def test_check_accepts_what_run_writes_and_names_each_fault(nb, tmp_path):
    path = stored(nb, tmp_path)
    assert chapters.problems(path) == []

    path.write_text(path.read_text().replace("print('x')", "print('z')"))
    assert chapters.problems(path) == ["has code that changed after its outputs were made"]

    nb.cells[1].outputs = [new_output("error", ename="E", evalue="", traceback=[f"{chapters.ROOT}/a.py"])]
    nb.cells.append(new_code_cell("train_long()", metadata={"tags": ["gpu"]}))
    found = "\n".join(chapters.problems(stored(nb, tmp_path)))
    for fault in (
        "not tagged raises-exception",
        "path of this machine",
        "either a stored output or the tag not-yet-run",
        "nbval-skip",
    ):
        assert fault in found

    nb.cells = [nb.cells[0], new_code_cell("6 * 7", outputs=[result("42")]), new_code_cell("train_long()")]
    for outputs, more, right in (([], [], 0), ([], ["not-yet-run"], 1), ([result("1")], ["not-yet-run"], 0)):
        nb.cells[2].outputs, nb.cells[2].metadata["tags"] = outputs, ["gpu", "nbval-skip", *more]
        found = "\n".join(chapters.problems(stored(nb, tmp_path)))
        assert ("not-yet-run" not in found) == right

    path.write_text("{")
    assert "no valid notebook" in chapters.problems(path)[0]


def test_check_sees_a_file_that_is_not_normal(nb, tmp_path):
    path = stored(nb, tmp_path)
    path.write_text(path.read_text().replace('"execution_count": 1', '"execution_count": 3', 1))
    assert chapters.problems(path) == ["is not in normal form (python tools/chapters.py normalise)"]


def test_write_leaves_the_old_file_when_it_fails(nb, tmp_path, monkeypatch):
    path = tmp_path / "a.ipynb"
    path.write_text("old")
    monkeypatch.setattr(chapters.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        chapters.write(nb, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_no_kernel_is_left_behind(tmp_path, monkeypatch):
    from jupyter_client.manager import AsyncKernelManager

    kernels = []
    real = AsyncKernelManager.__init__

    def remembered(self, *args, **kwargs):
        real(self, *args, **kwargs)
        kernels.append(self)

    monkeypatch.setattr(AsyncKernelManager, "__init__", remembered)
    for code in ("6 * 7", "1 / 0"):
        path = tmp_path / "01_chapter.ipynb"
        chapters.write(new_notebook(cells=[new_code_cell(code)]), path)
        chapters.main(["run", str(path)])
    assert len(kernels) == 2 and not any(kernel.has_kernel for kernel in kernels)


def test_run_skips_gpu_cells_and_keeps_the_file_when_a_cell_raises(tmp_path, capsys):
    path = tmp_path / "01_chapter.ipynb"
    gpu = new_code_cell(
        "1 / 0", metadata={"tags": ["gpu", "nbval-skip"]}, outputs=[result("one hour on a GPU")]
    )
    lesson = new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]})
    cells = [new_code_cell("import sys; sys.prefix == 'x'"), gpu, lesson, new_code_cell("6 * 7")]
    chapters.write(new_notebook(cells=cells), path)
    assert chapters.main(["run", str(path)]) == 0
    assert "1 of 1 chapters ran" in capsys.readouterr().out
    nb = chapters.read(path)
    assert [cell.outputs[0].get("data", {}).get("text/plain") for cell in nb.cells] == [
        "False",
        "one hour on a GPU",
        None,
        "42",
    ]
    assert nb.cells[2].outputs[0].ename == "ZeroDivisionError"

    nb.cells[2].metadata.tags = []
    chapters.write(nb, path)
    before = path.read_bytes()
    assert chapters.main(["run", str(path)]) == 1
    assert path.read_bytes() == before and "ZeroDivisionError" in capsys.readouterr().err
