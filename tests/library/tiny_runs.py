"""Runs of a few steps of a tiny network, as tests of runs start them."""

from pathlib import Path

from ddpm_lib import run
from ddpm_lib.settings import Settings

TINY = {"size": 8, "width": 8, "blocks": 1, "batch_size": 8, "log_every": 1, "sample_every": 0, "warmup": 2}
TINY |= {"precision": "fp32", "device": "cpu"}


def tiny(**changes) -> Settings:
    return Settings(**{"steps": 4} | TINY | changes)


def started(folder: Path, **changes) -> tuple[run.Outcome, list[str]]:
    said = []
    return run.start(tiny(**changes), folder, progress=False, tell=said.append), said


def resumed(folder: Path, **changes) -> tuple[run.Outcome, list[str]]:
    said = []
    return run.resume(folder, progress=False, tell=said.append, **changes), said
