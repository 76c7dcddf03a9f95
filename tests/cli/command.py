"""The command line as tests use it, in this process or in one of its own; and what several tests try it on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from ddpm_lib import cli
from ddpm_lib.data import load_images

TINY = "--size 8 --width 8 --blocks 1 --batch-size 8 --log-every 1 --sample-every 0".split()
TINY += "--precision fp32 --device cpu --warmup 2".split()


def run(*words) -> int:
    return cli.main([str(word) for word in words])


def start(*words, module=("-m", "ddpm_lib"), **env) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *module, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def assert_equal(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def wait_for_step(folder: Path, step: int, process: subprocess.Popen, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    log = folder / "log.jsonl"
    while time.monotonic() < until:
        if log.exists() and len(log.read_text().splitlines()) >= step:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"step {step} not reached in {seconds} s")


def pictures(folder: Path, *sizes: int) -> Path:
    for n, size in enumerate(sizes):
        (folder / "cats").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), (n * 20, 0, 0)).save(folder / "cats" / f"{n}.png")
    return folder


def photographs(folder: Path, counts: dict[str, int], size: int = 8, mode: str = "RGB") -> Path:
    """A folder of pictures, one sub-folder a class, each picture of its own colour."""
    for shade, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            colour = (60 * shade % 256, 20 * n % 256, 100)
            Image.new("RGB", (size, size), colour).convert(mode).save(folder / name / f"{n:03}.png")
    return folder


def assert_one_line(capsys, words) -> None:
    said = capsys.readouterr().err.strip()
    lines = [line for line in said.splitlines() if "it/s" not in line]
    assert len(lines) == 1, said
    for word in words:
        assert word in lines[0], (word, said)


def evaluated(tmp_path, *words) -> dict:
    """What evaluate writes with --json."""
    assert run("evaluate", *words, "--json", tmp_path / "e.json") == 0
    result = json.loads((tmp_path / "e.json").read_text())
    return result | {row["name"]: row for row in result["metrics"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of 6 steps on the embedded MNIST at 8 pixels."""
    out = tmp_path_factory.mktemp("runs") / "trained"
    assert run("train", "--data", "mnist", "--steps", 6, "--out", out, *TINY) == 0
    return out


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """200 + 140 real digits of 8 pixels as a folder of pictures: enough for the 128 features, and quick."""
    folder = tmp_path_factory.mktemp("digits")
    for split, count in (("train", 200), ("test", 140)):
        for n, image in enumerate(load_images("mnist", split, size=8).images[:count]):
            path = folder / split / str(n % 10) / f"{n:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
    return folder


@pytest.fixture(scope="module")
def quick(digits) -> list:
    return ["--data", digits, "--count", 130]


@pytest.fixture
def pets(tmp_path) -> Path:
    return photographs(tmp_path / "pets", {"bird": 4, "cat": 5, "dog": 6})
