"""Shared by all tests: one thread, fixed hypothesis settings, small worlds with known answers."""

from __future__ import annotations

import os
from pathlib import Path

# before torch is imported: workers side by side with several threads each are many times slower
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nbformat
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

torch.set_num_threads(1)

pytest_plugins = ["command", "built_book"]

# a deadline measures the machine, and one run must find what the last one found
settings.register_profile(
    "book",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    # explaining a failure takes minutes where an example trains a network
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("book")


def cells_of(page: str) -> dict[str, nbformat.NotebookNode]:
    """The cells of book/PAGE.ipynb by their ids, in order."""
    path = Path(__file__).parents[1] / "book" / f"{page}.ipynb"
    return {cell.id: cell for cell in nbformat.read(path, 4).cells}


def f64(values) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def close(actual, expected, tolerance: float = 1e-10) -> None:
    """Equal to an absolute tolerance, compared in float64; expected may be a number for all entries."""
    actual, expected = f64(actual), f64(expected)
    if expected.ndim == 0 or actual.numel() == 1:
        expected = expected.reshape(-1)[0].expand_as(actual)
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.fixture(scope="session")
def browser():
    """A Chromium without a window; where there is none, its tests are skipped."""
    import headless  # some tests import this file where tools/ is not on the path

    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make install")
    if headless.program() is None:
        pytest.skip("no Chromium here: apt install chromium")
    with headless.chromium() as browser:
        yield browser


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
