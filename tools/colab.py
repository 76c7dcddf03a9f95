"""Run chapters as a reader meets them in Colab: the notebook alone, and its own first cell installs the library.

    python tools/colab.py oldest                      every chapter, with the oldest versions that pyproject.toml allows
    python tools/colab.py newest book/NAME.ipynb ...  these chapters, with the newest versions

An environment of its own holds what Colab has, but not this library. For each chapter a thin layer is laid over
it, so that each one begins without the library. The chapter, as plain as the branch `colab` has it, stands in an
empty folder, and its first cell installs from the address that is in it, which git is told to find in a copy of this
working tree. Cells tagged `gpu` run where there is one. The environment stays in --folder for the next time; remove
it when you like.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import address
import chapters
import plain

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "3.12"  # Colab's
# From the list of packages that Colab publishes, June 2026: what runs the cells, and what it draws with.
COLAB = (
    "pip==24.1.2",
    "setuptools==75.2.0",
    "ipykernel==6.17.1",
    "ipython==7.34.0",
    "ipywidgets==7.7.1",
    "jupyter_client==7.4.9",
    "matplotlib-inline==0.2.2",
    "pyzmq==26.2.1",
    "tornado==6.5.1",
    "traitlets==5.7.1",
)
ENDS = ("oldest", "newest")
# Colab brings these; what else a chapter needs, its first cell has to install.
BROUGHT = ("torch", "torchvision", "numpy", "matplotlib", "pillow", "einops", "safetensors", "tqdm")


@dataclass(frozen=True)
class Outcome:
    """How one chapter went. failed: the first cell that did, by its number and id, or ""."""

    chapter: str
    install: float
    cells: float
    failed: str
    error: str


def requirements(end: str, root: Path = ROOT) -> tuple[str, ...]:
    """What to install for one end of the range in pyproject.toml. Raises ValueError for another end."""
    if end not in ENDS:
        raise ValueError(f"{end!r} is no end of the supported range: choose one of {', '.join(ENDS)}")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [
        *project["dependencies"],
        *(each for group in project["optional-dependencies"].values() for each in group),
    ]
    lowest = dict(each.split(">=") for each in asked if ">=" in each)
    ours = [f"{name}=={lowest[name].split(',')[0]}.*" if end == "oldest" else name for name in BROUGHT]
    return (*COLAB, *ours)


def find_python() -> str:
    """Colab's version of Python if this machine has it, else the one that runs this."""
    here = shutil.which(f"python{PYTHON}")
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{PYTHON}.*/bin/python"))
    for found in filter(None, (here, *map(str, kept))):
        # a shim of pyenv is there and does not run
        if subprocess.run([found, "-c", "import ensurepip"], capture_output=True).returncode == 0:
            return found
    return sys.executable


def environment(end: str, folder: Path) -> Path:
    """The Python of an environment with Colab's packages, made once; made anew when what it should hold changes."""
    place, wanted = folder / end, requirements(end)
    python, made_of = place / "bin" / "python", place / "made_of.json"
    if made_of.exists() and json.loads(made_of.read_text()) == list(wanted):
        return python
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([find_python(), "-m", "venv", place], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted], check=True)
    made_of.write_text(json.dumps(wanted))
    return python


def copy_of_the_repository(target: Path, root: Path = ROOT) -> Path:
    """A git repository with one commit: the working tree as it is, without what git ignores."""
    target.mkdir(parents=True, exist_ok=True)
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, target / name)
    _git(target, "init", "-q")
    _git(target, "add", "--all", "--force")
    _git(
        target,
        "-c",
        "user.name=colab",
        "-c",
        "user.email=colab@localhost",
        "commit",
        "-qm",
        "The working tree",
    )
    return target


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def layer(python: Path, folder: Path) -> Path:
    """A bare environment in folder that sees the packages of `python` and gets what is installed from now on.

    Raises ValueError if the library is among those packages: the first cell would have nothing to do.
    """
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    mine = folder / "bin" / "python"
    # A folder named in a .pth file lends its packages, but not its own .pth files: no editable installs.
    Path(_site(mine), "lent.pth").write_text(_site(python))
    if _where_is_the_library(mine):
        raise ValueError(
            f"ddpm_lib is installed in {python}: uninstall it there, or install it with pip's -e"
        )
    return mine


def _site(python: Path) -> str:
    return _says(python, "import sysconfig; print(sysconfig.get_path('purelib'))")


def _where_is_the_library(python: Path) -> str:
    return _says(
        python, "import importlib.util as u; s = u.find_spec('ddpm_lib'); print(s.origin if s else '')"
    )


def _says(python: Path, code: str) -> str:
    run = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True)
    return run.stdout.strip()


def surroundings(home: Path, python: Path, repository: Path, root: Path = ROOT) -> dict[str, str]:
    """The variables that a chapter's kernel sees: a home of its own, and this repository's address made a local copy."""
    foreign = ("PYTHON", "VIRTUAL_ENV", "JUPYTER", "JPY_", "IPYTHON", "DDPM_LIB", "MPL", "GIT_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    published = address.committed(root).url
    return env | {
        "HOME": str(home),
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
        "PIP_CACHE_DIR": str(home.parent / "pip"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": published,
    }


def run(chapter: Path, python: Path, repository: Path, extra: Mapping[str, str] | None = None) -> Outcome:
    """Runs one chapter as Colab would; extra: further variables for its kernel.

    What a cell raises is in the outcome; KeyboardInterrupt stops it all. ValueError: `python` has the library already.
    """
    with tempfile.TemporaryDirectory(prefix="colab-") as name:
        place = Path(name)
        mine = layer(python, place / "layer")
        (place / "home").mkdir()
        (place / "content").mkdir()
        shutil.copy(chapter, place / "content")
        nb = chapters.read(chapter)
        code = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
        for cell in code:
            cell.execution_count, cell.outputs = None, []
        gpu = _says(mine, "import torch; print(torch.cuda.is_available())") == "True"
        env = surroundings(place / "home", mine, repository) | (extra or {})
        began = time.perf_counter()
        try:
            seconds = chapters.execute(nb, place / "content", gpu, str(mine), env)
        except Exception as problem:
            # Ctrl-C reaches the kernel first
            if getattr(problem, "ename", "") == "KeyboardInterrupt":
                raise KeyboardInterrupt from None
            took, failed = time.perf_counter() - began, _first_failure(code, gpu)
            return Outcome(chapter.stem, 0, took, failed, chapters.error_text(problem))
        install = seconds.pop(code[0].id)
        return Outcome(chapter.stem, install, sum(seconds.values()), "", "")


def _first_failure(code: list, gpu: bool) -> str:
    for number, cell in enumerate(code, 1):
        wrong = any(output.output_type == "error" for output in cell.outputs)
        skipped = "gpu" in chapters.tags(cell) and not gpu
        if (
            cell.execution_count is None
            and not skipped
            or wrong
            and "raises-exception" not in chapters.tags(cell)
        ):
            return f"code cell {number}, `{cell.id}`"
    return "none: the kernel did not start"


def table(outcomes: list[Outcome]) -> str:
    lines = ["| chapter | install | cells | result |", "| --- | ---: | ---: | --- |"]
    for each in outcomes:
        result = f"failed at {each.failed}" if each.failed else "passed"
        lines.append(f"| {each.chapter} | {each.install:.0f} s | {each.cells:.0f} s | {result} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("end", choices=ENDS)
    parser.add_argument("chapters", nargs="*", type=Path, help="notebooks; all of book/ without names")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "ddpm-book-colab"))
    arguments = parser.parse_args(argv)
    paths = arguments.chapters or sorted((ROOT / "book").glob("*.ipynb"))
    if missing := [path for path in paths if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(map(str, missing))}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    python = environment(arguments.end, arguments.folder.resolve())
    versions = "import platform, torch, torchvision, numpy, IPython; "
    names = "'Python', platform.python_version(), *(f'{m.__name__} {m.__version__}' for m in (torch, torchvision, numpy, IPython))"
    print(f"{arguments.end}: {_says(python, f'{versions}print({names})')}", flush=True)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="colab-repository-") as name, suppress(KeyboardInterrupt):
        repository = copy_of_the_repository(Path(name, "repository"))
        for path in plain.write([path.resolve() for path in paths], "colab", Path(name, "plain")):
            print(f"{path.name} ...", end=" ", flush=True)
            outcomes.append(run(path, python, repository))
            print(outcomes[-1].error or f"{outcomes[-1].cells:.0f} s", flush=True)
    print(f"\n{table(outcomes)}")
    return int(len(outcomes) < len(paths) or any(each.failed for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
