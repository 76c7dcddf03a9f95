"""The README's commands, in the order it gives them, in a copy of what is committed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import photographs

from ddpm_lib import checkpoint, files

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
# Minutes of training become seconds; every other word of every command stays as it is.
QUICKER = {
    "--steps 600": "--steps 12",
    "--steps 900": "--steps 18",
    "--config recipes/minute.json": "--config recipes/minute.json --steps 12",
    "--init cifar32 --flip --steps 1000": "--init cifar32 --flip --steps 2 --batch-size 4",
    "TrainConfig(steps=300)": "TrainConfig(steps=3)",
    "steps=600,": "steps=2, batch_size=4,",
    "steps=900)": "steps=3)",
}
LIKELY_SECONDS = 600


def commands() -> list[str]:
    """What a reader types after cloning; cloning, building and activating have tests or CI of their own."""
    lines = [line for block in BLOCKS for line in block.splitlines()]
    return [line for line in lines if line.startswith(("python -m ddpm_lib", "torchrun"))]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    target = tmp_path_factory.mktemp("clone") / "ddpm-book"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    photographs(target / "photos", {"cat": 3, "garden": 4}, size=40)
    return target


def run(command: str, where: Path) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "PYTHONPATH": str(where), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, shell=True, cwd=where, env=env, capture_output=True, text=True, timeout=LIKELY_SECONDS
    )


def quicker(text: str) -> str:
    for before, after in QUICKER.items():
        text = text.replace(before, after)
    return text


def test_the_readme_has_what_it_should():
    said = "\n".join(commands())
    for words in (
        "train --data mnist --size 28",
        "--resume",
        "--label 7 --count 16 --steps 50",
        "evaluate",
        "data list",
    ):
        assert words in said
    assert all(before in README for before in QUICKER)


def test_the_ratios_are_those_of_the_stored_benchmark():
    stored = json.loads((ROOT / "benchmarks" / "results" / "compare.json").read_text(encoding="utf-8"))
    median = {row["what"]: row["median"] for part in stored["sections"].values() for row in part["targets"]}
    small, large = "small net, 28x28", "DDPM's net, 32x32"
    said = {
        f"{small}, fp32 step: ours / diffusers": r"precision \| ([\d.]+) times its time",
        f"{large}, fp32 step: ours / diffusers": r"28 x 28\), ([\d.]+) times \(DDPM",
        f"{small}, step at defaults: ours (bf16) / diffusers (fp32)": r"gains from it \| ([\d.]+) and",
        f"{large}, step at defaults: ours (bf16) / diffusers (fp32)": r"gains from it \| [\d.]+ and ([\d.]+) times",
        f"{small}, fp32 step: ours / lucidrains": r"networks \| ([\d.]+) times \(small",
        f"{large}, fp32 step: ours / lucidrains": r"\(small\), ([\d.]+) times \(large",
        "images/s: ours / ImageFolder, 0 workers": r"DataLoader \| ([\d.]+) times as many",
    }
    for what, pattern in said.items():
        assert float(re.search(pattern, README)[1]) == pytest.approx(
            median[what], abs=0.51 if "images/s" in what else 0.0051
        )


@pytest.mark.parametrize("name", sorted(files.shipped()))
def test_what_is_said_of_a_shipped_model_is_in_its_file(name):
    (row,) = re.findall(rf"^\| `{name}` .*$", README, re.MULTILINE)
    facts = checkpoint.pretrained(name).provenance
    assert f"{facts['images_seen']:,} images" in row and f"seed {facts['seed']}" in row
    (found,) = (each for each in facts["metrics"] if f" {each['count']:,} samples" in row)
    said = {
        "label accuracy": (r"([\d.]+) % classified as asked \(([\d.]+) %\)", 100),
        "Fréchet distance": (r"Fréchet distance ([\d.]+) \(([\d.]+)\)", 1),
        "recall": (r"recall ([\d.]+) \(([\d.]+)\)", 1),
        "coverage": (r"coverage ([\d.]+) \(([\d.]+)\)", 1),
    }
    for each in found["metrics"]:
        if each["name"] in said:
            pattern, unit = said.pop(each["name"])
            for printed, kind in zip(re.search(pattern, row).groups(), ("value", "real"), strict=True):
                last_digit = 10.0 ** -len(printed.partition(".")[2])
                assert float(printed) == pytest.approx(unit * each[kind], abs=0.51 * last_digit)
    assert not said
    hours, minutes = divmod(round(facts["seconds"] / 60), 60)
    assert (
        f"{hours} hour and {minutes} minutes" if "hour" in row else f"{60 * hours + minutes} minutes"
    ) in row


def test_every_command_works_in_order(clone):
    for command in commands():
        done = run(quicker(command), clone)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{command}\n{done.stderr}"
    for made in (
        "seven.png",
        "all.png",
        "first.png",
        "threes.npz",
        "runs/first/checkpoint.safetensors",
        "runs/second/checkpoint.safetensors",
        "runs/two/log.jsonl",
        "runs/tuned/checkpoint.safetensors",
    ):
        assert (clone / made).exists(), made


def test_the_library_snippet_runs(clone, tmp_path):
    snippet, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = tmp_path / "snippet.py"
    script.write_text(quicker(snippet) + "\nassert x.shape == (10, 1, 28, 28) and x.isfinite().all()\n")
    done = run(f"python {script}", clone)
    assert done.returncode == 0, done.stderr


def test_the_snippet_of_a_whole_run(clone, tmp_path):
    _, snippet = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "snippet.py").write_text(quicker(snippet))
    done = run(f"python {tmp_path / 'snippet.py'}", clone)
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(clone / "runs" / "third").step == 3


def test_the_pictures_it_shows_are_committed():
    for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README):
        assert (ROOT / name).exists(), name
