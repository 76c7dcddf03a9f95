"""Run chapters in place and keep their files in one normal form, so that diffs show what changed.

    python tools/chapters.py run [book/NAME.ipynb ...]         run from the top, normalise, write
    python tools/chapters.py normalise [book/NAME.ipynb ...]   normalise and write, without running
    python tools/chapters.py check [book/NAME.ipynb ...]       say what is not as it should be; exit code 1

Without names: every chapter in book/. A chapter runs in a fresh kernel of this Python, in its own folder.
Cells tagged `gpu` are skipped and keep their stored outputs, unless `run --gpu` is given. A cell that
raises stops its chapter, whose file then stays as it was, unless the cell is tagged `raises-exception`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
BUDGET_SECONDS = 90
CELL_TIMEOUT = 600

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
KEPT_CELL_METADATA = ("mystnb", "slideshow", "tags")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# Where the fingerprint of the code that made the outputs is kept, in the notebook's metadata.
STAMP = "ddpm_book"
NOT_RUN = "not-yet-run"
"""The tag of a cell for a machine that nobody had."""


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def normalise(nb: NotebookNode) -> NotebookNode:
    """The notebook without what changes from run to run or from machine to machine; in place."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    stamp = nb.metadata.get(STAMP)
    nb.metadata = NotebookNode(kernelspec=NotebookNode(KERNEL), language_info=NotebookNode(name="python"))
    if stamp:
        nb.metadata[STAMP] = stamp
    _keep_or_make_ids(nb.cells)
    number = 0
    for cell in nb.cells:
        cell.metadata = NotebookNode(
            {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        )
        if cell.cell_type == "code":
            # Numbered as a run from the top numbers them; nbval takes outputs without a number for a slip.
            ran = bool(cell.source.strip()) and NOT_RUN not in tags(cell)
            number += ran
            cell.execution_count = number if ran else None
            cell.outputs = _normal_outputs(cell.outputs, cell.execution_count)
    return nb


def _keep_or_make_ids(cells: Iterable[NotebookNode]) -> None:
    seen = set()
    for cell in cells:
        name, tries = cell.get("id"), 0
        while not name or name in seen:
            name = hashlib.sha256(f"{cell.source}{tries}".encode()).hexdigest()[:8]
            tries += 1
        seen.add(name)
        cell.id = name


def _normal_outputs(outputs: Iterable[NotebookNode], number: int | None) -> list[NotebookNode]:
    normal: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            # How the kernel cuts a stream into pieces depends on timing.
            if normal and normal[-1].output_type == "stream" and normal[-1].name == output.name:
                normal[-1].text += output.text
                continue
        elif output.output_type in ("display_data", "execute_result"):
            output.data.pop(WIDGET_VIEW, None)
            if not output.data:
                continue
            if "text/plain" in output.data:
                output.data["text/plain"] = _without_addresses(output.data["text/plain"])
            if output.output_type == "execute_result":
                output.execution_count = number
        normal.append(output)
    for output in normal:
        if output.output_type == "stream":
            output.text = _without_addresses(_as_a_terminal_shows(output.text))
    return [output for output in normal if output.output_type != "stream" or output.text.strip()]


def _as_a_terminal_shows(text: str) -> str:
    """Progress bars rewrite their line; only what stands at the end is kept."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _without_addresses(text: str) -> str:
    """Memory addresses differ from run to run."""
    return re.sub(r"\b0x[0-9a-f]{8,16}\b", "0x...", text)


def fingerprint(nb: NotebookNode) -> str:
    """Changes when code that a run executes changes; not with prose, gpu cells or the repository's address."""
    code = [cell.source for cell in nb.cells if cell.cell_type == "code" and "gpu" not in tags(cell)]
    text = re.sub(r"git\+https://github\.com/[\w./-]+", "git+", "\0".join(code))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def dumps(nb: NotebookNode) -> str:
    return nbformat.writes(nb, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"


def write(nb: NotebookNode, path: Path) -> None:
    """Whole or not at all: a stopped run leaves the old file."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(dumps(nb), encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read(path: Path) -> NotebookNode:
    # nbformat.reads would give cells without an id a random one.
    return nbformat.v4.reads(path.read_text(encoding="utf-8"))


def execute(
    nb: NotebookNode,
    folder: Path,
    gpu: bool = False,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Run the notebook in place, in that folder, by that Python, which may see other variables than this one.

    Cell id -> the seconds that it took; the start of the kernel is in none of them.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class ThisPython(KernelSpecManager):
        """A kernel named python3 may belong to another environment; this one cannot."""

        def get_kernel_spec(self, kernel_name):
            kernel = get_kernel_dict()
            return KernelSpec(resource_dir="", **kernel | {"argv": [python, *kernel["argv"][1:]]})

    started: dict[int, float] = {}
    seconds: dict[str, float] = {}

    def begin(cell, cell_index):
        started[cell_index] = time.perf_counter()

    def end(cell, cell_index, **_):
        seconds[cell.id] = time.perf_counter() - started.pop(cell_index)

    NotebookClient(
        nb,
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisPython()),
        timeout=CELL_TIMEOUT,
        resources={"metadata": {"path": str(folder)}},
        skip_cells_with_tag="" if gpu else "gpu",
        store_widget_state=False,
        record_timing=False,
        on_cell_execute=begin,
        on_cell_executed=end,
    ).execute(cleanup_kc=True, env=dict(os.environ if env is None else env))
    return seconds


def run(path: Path, gpu: bool = False) -> float:
    """Run, normalise and write one chapter; the seconds that its cells took."""
    nb = read(path)
    # Before the run: nbclient gives a cell without an id a random one.
    _keep_or_make_ids(nb.cells)
    seconds = sum(execute(nb, path.parent, gpu).values())
    normalise(nb)
    nb.metadata[STAMP] = NotebookNode(code_that_ran=fingerprint(nb))
    write(nb, path)
    return seconds


def problems(path: Path) -> list[str]:
    """What is not as it should be in a stored chapter; empty if all is well."""
    text = path.read_text(encoding="utf-8")
    try:
        nb = nbformat.reads(text, as_version=4)
        nbformat.validate(nb)
    except Exception as error:
        return [f"is no valid notebook: {str(error).splitlines()[0]}"]
    found = []
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    ran = nb.metadata.get(STAMP, {}).get("code_that_ran")
    if ran is None:
        found.append("was never run by `make chapters`")
    elif ran != fingerprint(nb):
        found.append("has code that changed after its outputs were made")
    elif dumps(normalise(read(path))) != text:
        found.append("is not in normal form (python tools/chapters.py normalise)")
    if code and not any(cell.outputs for cell in code):
        found.append("has no outputs")
    for number, cell in enumerate(nb.cells):
        where = f"cell {number}"
        if cell.cell_type != "code":
            continue
        if "gpu" in tags(cell) and bool(cell.outputs) == (NOT_RUN in tags(cell)):
            found.append(f"{where} is tagged gpu: it needs either a stored output or the tag {NOT_RUN}")
        if ("gpu" in tags(cell)) != ("nbval-skip" in tags(cell)):
            found.append(f"{where} needs both tags, gpu and nbval-skip, or neither")
        if "raises-exception" not in tags(cell) and any(
            output.output_type == "error" for output in cell.outputs
        ):
            found.append(f"{where} shows an error and is not tagged raises-exception")
        if leaked := _paths_of_this_machine(cell.outputs):
            found.append(f"{where} prints a path of this machine: {leaked}")
    return found


def _paths_of_this_machine(outputs: Iterable[NotebookNode]) -> str | None:
    folders = {str(ROOT), str(Path.home()), sys.prefix} - {"/"}
    shown = []
    for output in outputs:
        shown += [output.get("text", ""), *output.get("traceback", [])]
        shown += [value for key, value in output.get("data", {}).items() if key.startswith("text/")]
    return next((folder for folder in sorted(folders, key=len) for text in shown if folder in text), None)


def error_text(error: Exception) -> str:
    """What the error says, without colours, and not all of a long one."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text if len(text) < 4_000 else text[:1_000] + "\n...\n" + text[-3_000:]


def _run_all(paths: list[Path], gpu: bool) -> int:
    failed, total = 0, 0.0
    for path in paths:
        print(f"{path.name} ...", end=" ", flush=True)
        try:
            seconds = run(path, gpu)
        except KeyboardInterrupt:
            print("stopped; the file stays as it was")
            return 130
        except Exception as error:
            failed += 1
            print(f"failed; the file stays as it was\n{error_text(error)}\n", file=sys.stderr)
            continue
        total += seconds
        late = f"  (over {BUDGET_SECONDS} s)" if seconds > BUDGET_SECONDS else ""
        print(f"{seconds:.1f} s in cells, {path.stat().st_size / 1000:.0f} kB{late}")
    print(f"{len(paths) - failed} of {len(paths)} chapters ran, {total:.1f} s in cells")
    return 1 if failed else 0


def _check_all(paths: list[Path]) -> int:
    found = [f"{path.name} {problem}" for path in paths for problem in problems(path)]
    print("\n".join(found) or f"{len(paths)} chapters are normalised, and their code is the code that ran")
    return 1 if found else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("action", choices=("run", "normalise", "check"))
    parser.add_argument("chapters", nargs="*", type=Path, help="notebooks; all of book/ without names")
    parser.add_argument("--gpu", action="store_true", help="run cells tagged gpu too")
    arguments = parser.parse_args(argv)
    paths = arguments.chapters or sorted((ROOT / "book").glob("*.ipynb"))
    if missing := [path for path in paths if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(map(str, missing))}")
    paths = [path.resolve() for path in paths]
    if arguments.action == "run":
        return _run_all(paths, arguments.gpu)
    if arguments.action == "check":
        return _check_all(paths)
    for path in paths:
        write(normalise(read(path)), path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
