"""Who may import whom: only what stands further up on the map, without circles; and the core costs torch and nothing more."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ddpm_lib

PACKAGE = Path(ddpm_lib.__file__).parent
ROOT = PACKAGE.parent

# what each module, or room of modules, may import of the package, besides what those may import themselves
MAY = {
    "__init__": {"order"},
    "order": set(),
    "files": set(),
    "settings": {"files"},
    "sources": {"files"},
    "folders": {"files", "sources"},
    "device": set(),
    "chain": set(),
    "schedule": {"chain"},
    "denoiser": {"schedule"},
    "sampling": {"schedule"},
    "layers": set(),
    "unet": {"layers", "settings"},
    "muon": set(),
    "training": {"denoiser", "muon", "settings"},
    "checkpoint": {"training", "unet", "files"},
    "data": {"sources", "folders", "files"},
    "toy": {"schedule"},
    "plotting": {"schedule", "files"},
    "draw": {"sampling", "checkpoint", "data", "plotting"},
    "cost": {"training", "unet"},
    "prepare": {"checkpoint", "data"},
    "work": {"draw", "training"},
    "run": {"prepare", "work", "cost", "device"},
    "classifier": {"layers", "data", "checkpoint"},
    "metrics": {"denoiser", "classifier"},
    "judge": {"metrics", "classifier", "data"},
    "evaluate": {"judge", "draw"},
    "ledger": {"evaluate"},
    "figures": {"plotting", "toy", "denoiser", "unet"},
    "exercises": {"denoiser", "sampling", "toy", "files"},
    "cli": {"run", "ledger", "exercises", "device"},
    "__main__": {"cli"},
}
CORE = (
    "chain",
    "schedule",
    "denoiser",
    "sampling",
    "layers",
    "unet",
    "muon",
    "training",
    "checkpoint",
    "metrics",
    "toy",
)
CORE_PACKAGES = {"torch", "einops", "safetensors", "numpy"}
HEAVY = {
    "matplotlib",
    "torchvision",
    "IPython",
    "jupyter",
    "ipywidgets",
    "PIL",
    "scipy",
    "pandas",
    "tensorboard",
    "diffusers",
}


def modules() -> dict[str, str]:
    """Name within the package, "cli.train" -> source."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = (
            path.read_text()
        )
    return found


SOURCES = modules()
MODULES = sorted(SOURCES)
PACKAGES = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def room(module: str) -> str:
    return module.partition(".")[0]


def imports(source: str, module: str = "here") -> tuple[set[str], set[str]]:
    """(modules of the package, packages of others), with those inside functions only in the first."""
    tree = ast.parse(source)
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    never = {  # what only a type checker reads
        node
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    here = ["ddpm_lib", *module.split(".")][: None if module in PACKAGES else -1]
    own, others = set(), set()
    for node in set(ast.walk(tree)) - never:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "ddpm_lib":
                own |= {found for found in (rest, rest.rpartition(".")[0]) if found in SOURCES}
            elif node not in inside:
                others.add(first)
    return own - {"__init__", module}, others


def reach(name: str) -> set[str]:
    allowed = {name} | MAY[name]
    for other in MAY[name]:
        allowed |= reach(other)
    return allowed


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    assert room(module) in MAY, f"{module} has no line in this test's table: say what it may import"
    own, _ = imports(SOURCES[module], module)
    wrong = {other for other in own if room(other) not in reach(room(module))}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


def test_there_are_no_circles():
    graph = {module: imports(source, module)[0] for module, source in SOURCES.items()}
    for package in PACKAGES:  # a package's __init__ is imported with each of its modules, and gathers them
        graph[package] = {other for other in graph[package] if room(other) != package}
    assert list(TopologicalSorter(graph).static_order())


def test_the_table_has_no_room_that_is_gone():
    assert set(MAY) == {room(module) for module in MODULES}


def test_the_map_for_contributors_names_every_room_below_those_that_it_imports():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    rank = {
        name: n
        for n, line in enumerate(lines)
        for name in re.findall(r"`([a-z]+)(?:\.py|/)`", line.split("|")[1])
    }
    rooms = set(MAY) - {"__init__", "__main__"}
    assert rooms <= set(rank), f"not on the map: {sorted(rooms - set(rank))}"
    for module in rooms:
        above = [other for other in MAY[module] if rank[other] > rank[module]]
        assert not above, f"{module} stands above {above}, which it may import"


@pytest.mark.parametrize("module", [m for m in CORE if m in MODULES])
def test_the_core_imports_no_more_than_it_needs(module):
    _, others = imports(SOURCES[module], module)
    assert others <= CORE_PACKAGES | set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_are_imported_inside_functions_only(module):
    _, others = imports(SOURCES[module], module)
    assert not others & HEAVY


def test_the_check_sees_every_way_to_import():
    own, others = imports(
        "import torch.nn as nn\nfrom matplotlib import pyplot\nimport ddpm_lib.unet\nfrom ddpm_lib import data\n"
        "from . import toy as t\nfrom .chain import Chain\n"
        "def f():\n    import torchvision\n    from .training import EMA\n"
    )
    assert own == {"unet", "data", "toy", "chain", "training"} and others == {"torch", "matplotlib"}
    own, _ = imports("from ..data import load_images\nfrom . import words\nfrom .. import run", "cli.train")
    assert own == {"data", "cli", "cli.words", "run"}


FREE = """
import sys
from ddpm_lib.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stopped:
    code = stopped.code
print("code", code, "loaded", ",".join({"torch", "numpy"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words, code",
    [
        (["--help"], 0),
        (["--version"], 0),
        (["train", "--help"], 0),
        (["sample", "--help"], 0),
        (["evaluate", "--help"], 0),
        (["export", "--help"], 0),
        (["data", "list"], 0),
        (["exercises"], 0),
        (["exercises", "--all"], 0),
        (["trian"], 2),
        (["train", "--stpes", "3"], 2),
        (["train", "--steps", "x"], 2),
        (["train", "--batch-size", "0", "--steps", "3", "--out", "x"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_lists_and_mistakes_are_answered_without_torch(tmp_path, words, code):
    run = subprocess.run(
        [sys.executable, "-c", FREE, *words],
        env=environment() | {"DDPM_LIB_PROGRESS": str(tmp_path / "progress.json")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stderr.splitlines()[-1].strip() == f"code {code} loaded", run.stderr
    assert (run.stdout != "") == (code == 0) and len(run.stderr.splitlines()) == 1 + bool(code)
    assert not list(tmp_path.glob("x"))


def environment() -> dict[str, str]:
    root = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


COST = """
import sys, time
import torch
before = set(sys.modules)
began = time.process_time()
import ddpm_lib
bare = time.process_time() - began
for name in sys.argv[1].split(","):
    __import__(f"ddpm_lib.{name}")
print(bare)
print(",".join(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_importing_the_core_loads_nothing_heavy_and_costs_nothing():
    core = ",".join(m for m in CORE if m in MODULES)
    run = subprocess.run(
        [sys.executable, "-c", COST, core],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    bare, loaded = run.stdout.split("\n")[:2]
    assert float(bare) < 0.1
    assert not set(loaded.split(",")) & HEAVY
    assert "ddpm_lib" in loaded.split(",") and "einops" in loaded.split(",")
