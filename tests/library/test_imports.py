"""Who may import whom: imports point down only, and the core costs torch and nothing more."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ddpm_lib

PACKAGE = Path(ddpm_lib.__file__).parent

# what each module may import of the package, besides what those may import themselves
MAY = {
    "__init__": {"order"},
    "order": set(),
    "chain": set(),
    "schedule": {"chain"},
    "denoiser": {"schedule"},
    "sampling": {"schedule"},
    "layers": set(),
    "unet": {"layers"},
    "dit": {"layers"},
    "muon": set(),
    "training": {"denoiser", "muon"},
    "checkpoint": {"training", "unet", "dit"},
    "data": set(),
    "toy": {"schedule"},
    "plotting": {"schedule"},
    "classifier": {"layers", "data", "checkpoint"},
    "metrics": {"denoiser", "classifier"},
    "evaluate": {"metrics", "data"},
    "ledger": {"evaluate"},
    "figures": {"plotting", "toy", "denoiser", "unet"},
    "exercises": {"checkpoint"},
}
for chapter in range(1, 21):
    MAY[f"exercises_{chapter:02d}"] = {"exercises", "chain", "schedule", "denoiser", "sampling", "toy"}
ABOVE_ALL = {"cli", "__main__"}
CORE = (
    "chain",
    "schedule",
    "denoiser",
    "sampling",
    "layers",
    "unet",
    "dit",
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


def reach(module: str) -> set[str]:
    allowed = set(MAY[module])
    for other in MAY[module]:
        allowed |= reach(other)
    return allowed


def imports(source: str) -> tuple[set[str], set[str]]:
    """(modules of the package, packages of others), with those inside functions only in the first."""
    tree = ast.parse(source)
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    own, others = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
            if node.module == "ddpm_lib":
                names = [f"ddpm_lib.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = (
                [f"ddpm_lib.{node.module}"]
                if node.module
                else [f"ddpm_lib.{alias.name}" for alias in node.names]
            )
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "ddpm_lib":
                own |= {rest.partition(".")[0]} - {""}
            elif node not in inside:
                others.add(first)
    return own & {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}, others


MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


@pytest.mark.parametrize("module", [m for m in MODULES if m not in ABOVE_ALL])
def test_imports_point_down(module):
    assert module in MAY, f"{module} has no line in this test's table: say what it may import"
    own, _ = imports((PACKAGE / f"{module}.py").read_text())
    assert own <= reach(module), f"{module} may not import {sorted(own - reach(module))}"


@pytest.mark.parametrize("module", [m for m in CORE if m in MODULES])
def test_the_core_imports_no_more_than_it_needs(module):
    _, others = imports((PACKAGE / f"{module}.py").read_text())
    assert others <= CORE_PACKAGES | set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_are_imported_inside_functions_only(module):
    _, others = imports((PACKAGE / f"{module}.py").read_text())
    assert not others & HEAVY


def test_the_check_sees_every_way_to_import():
    own, others = imports(
        "import torch.nn as nn\nfrom matplotlib import pyplot\nimport ddpm_lib.unet\nfrom ddpm_lib import data\n"
        "from . import toy as t\nfrom .chain import Chain\n"
        "def f():\n    import torchvision\n    from .training import EMA\n"
    )
    assert own == {"unet", "data", "toy", "chain", "training"} & set(MODULES) and others == {
        "torch",
        "matplotlib",
    }


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
    root = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", COST, core],
        env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    bare, loaded = run.stdout.split("\n")[:2]
    assert float(bare) < 0.1
    assert not set(loaded.split(",")) & HEAVY
    assert "ddpm_lib" in loaded.split(",") and "einops" in loaded.split(",")
