"""A reader who runs a cell before those above it is told which cell makes what is missing."""

import ast
import builtins
import json
import os
import queue
from pathlib import Path

import lab
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, writes

from ddpm_lib import order

CHAPTERS = sorted(lab.BOOK.glob("*.ipynb"))


def chapter(tmp_path, *cells, metadata=None) -> Path:
    path = tmp_path / "chapter.ipynb"
    stamp = {"ddpm_book": {}} if metadata is None else metadata
    path.write_text(writes(new_notebook(cells=list(cells), metadata=stamp)))
    return path


def loaded_at_once(source: str) -> set[str]:
    """Names that a cell reads while it runs, outside the functions that it defines."""
    names, left = set(), [ast.parse(source)]
    while left:
        node = left.pop()
        if isinstance(
            node,
            ast.FunctionDef
            | ast.ClassDef
            | ast.Lambda
            | ast.ListComp
            | ast.SetComp
            | ast.DictComp
            | ast.GeneratorExp,
        ):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names.add(node.id)
        left += ast.iter_child_nodes(node)
    return names - set(dir(builtins))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_whatever_a_chapters_cells_miss_is_found_in_a_cell_above(path):
    sources = [
        cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    sources = ["".join(source) for source in sources]
    asked = 0
    for number, source in enumerate(sources[1:], 1):
        for name in loaded_at_once(source):
            if order.line_that_makes(name, source):
                continue
            above = [order.line_that_makes(name, each) for each in sources[:number]]
            assert any(above), f"cell {number} needs {name}, which no cell above it makes"
            assert f"    {next(filter(None, above))}\n" in order.advice(name, path)
            asked += 1
    assert asked > 10


def test_the_advice_names_the_heading_and_the_line(tmp_path):
    path = chapter(
        tmp_path,
        new_markdown_cell("# Title\n\n## The plan\n\n```python\n# no heading\n```"),
        new_code_cell(
            "try:\n    import a_library\nexcept ImportError:\n    %pip install a_library\nx = [y for y in range(3)]"
        ),
        new_markdown_cell("words"),
        new_code_cell("def f(inside):\n    local = 1\n    return local\n\n\n(first, second), *rest = g()"),
    )
    assert 'under the heading "The plan":\n\n    x = [y for y in range(3)]\n' in order.advice("x", path)
    assert "    (first, second), *rest = g()\n" in order.advice("rest", path)
    assert "    try:\n" in order.advice("a_library", path)
    assert "    def f(inside):\n" in order.advice("f", path)
    for name in ("y", "inside", "local", "g", "nonsense"):
        assert order.advice(name, path) == ""


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"cells": []}', '{"metadata": {"ddpm_book": 1}}'])
def test_a_notebook_that_is_no_chapter_gets_no_advice(tmp_path, broken):
    path = chapter(tmp_path, new_code_cell("x = 1"), metadata={})
    assert order.advice("x", path) == ""
    path.write_text(broken)
    assert order.advice("x", path) == ""
    assert order.advice("x", tmp_path / "gone.ipynb") == ""


def test_without_the_file_the_advice_is_general():
    assert "If a cell further up makes `x`" in order.advice("x", None)


class Kernel:
    """A kernel as `make lab` describes it, or a plain one, and what its cells print."""

    def __init__(self, folder: Path, plain: bool = False, **variables: str):
        described = lab.kernels(folder) / "kernels" / "python3" / "kernel.json"
        if plain:
            spec = json.loads(described.read_text())
            spec["argv"] = [word for word in spec["argv"] if "extensions" not in word]
            described.write_text(json.dumps(spec))
        specs = KernelSpecManager(kernel_dirs=[str(described.parents[1])], ensure_native_kernel=False)
        self.manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
        self.manager.start_kernel(env=os.environ | {"JPY_SESSION_NAME": ""} | variables)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, source: str) -> str:
        asked = self.client.execute(source)
        said = []
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=120)
            except queue.Empty as error:
                raise AssertionError(f"the kernel did not answer to {source!r}") from error
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                said.append(content["text"])
            if message["msg_type"] == "error":
                said.append(content["ename"])
            if content.get("execution_state") == "idle":
                return "\n".join(said)

    def stop(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def test_a_kernel_says_it_from_its_first_cell_on(tmp_path):
    path = chapter(
        tmp_path,
        new_markdown_cell("## Tables"),
        new_code_cell("alpha = 0.5"),
        new_code_cell("beta = 1 - alpha"),
    )
    kernel = Kernel(tmp_path, JPY_SESSION_NAME=str(path))
    try:
        said = kernel.run("beta = 1 - alpha")
        assert (
            said.startswith("NameError")
            and said.count('under the heading "Tables":\n\n    alpha = 0.5\n') == 1
        )
        assert kernel.run("alpha = 0.5\nbeta = 1 - alpha") == ""
        assert kernel.run("alpa") == "NameError"  # a slip of the reader's own
        assert kernel.run("1 / 0") == "ZeroDivisionError"
        assert kernel.run("''.nothing") == "AttributeError"
    finally:
        kernel.stop()


def test_importing_the_library_is_enough_where_the_file_is_not_known(tmp_path):
    kernel = Kernel(tmp_path, plain=True)
    try:
        assert kernel.run("gamma") == "NameError"  # nothing of this book has run
        kernel.run("import ddpm_lib")
        assert kernel.run("gamma").count("If a cell further up makes `gamma`") == 1
    finally:
        kernel.stop()
