"""Every line of the page of conversions, run on random pictures and compared with what the names mean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import close

from ddpm_lib.denoiser import target, to_x0

PAGE = (Path(__file__).resolve().parents[2] / "book/conversions.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^## You have (.+?)\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
GIVEN = {
    "the clean picture": "x0",
    "the noise": "eps",
    "the score": "score",
    "v": "v",
    "the velocity of flow matching": "flow",
    "EDM's inner network": "F",
}
NAMES = list(GIVEN.values())
PREDICT = {"x0": "x0", "eps": "eps", "v": "v", "flow": "flow", "F": "edm"}
PATHS = {
    "vp": lambda s: ((1 - s**2).sqrt(), s),
    "flow": lambda s: (1 - s, s),
    "ve": lambda s: (torch.ones_like(s), 80 * s),
}


def a_world(path: str) -> dict:
    generator = torch.Generator().manual_seed(0)
    a, s = PATHS[path](torch.tensor([0.02, 0.3, 0.77, 0.98], dtype=torch.float64).reshape(4, 1, 1, 1))
    x0, eps = torch.randn(2, 4, 3, 5, 5, generator=generator, dtype=torch.float64)
    return {"a": a, "s": s, "x": a * x0 + s * eps, "x0": x0, "eps": eps}


def meanings(world: dict) -> dict:
    """The six answers, from the definitions."""
    a, s, x0, eps = (world[name] for name in ("a", "s", "x0", "eps"))
    answers = {name: target(x0, eps, a.flatten(), s.flatten(), kind) for name, kind in PREDICT.items()}
    return answers | {"score": -(world["x"] - a * x0) / s**2}


def test_every_name_has_its_section_and_every_section_its_five_lines():
    assert list(BLOCKS) == list(GIVEN)
    for title, block in BLOCKS.items():
        made = re.findall(r"^(\w+) = ", block, re.MULTILINE)
        assert sorted([*made, GIVEN[title]]) == sorted(NAMES)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("title", GIVEN)
def test_each_line_alone_gives_what_its_name_means(title, path):
    world = a_world(path)
    true = meanings(world)
    given = {name: world[name] for name in ("a", "s", "x")} | {GIVEN[title]: true[GIVEN[title]]}
    exec(re.search(r"^sd = .*?(?=^```)", PAGE, re.MULTILINE | re.DOTALL).group(), given)
    for line in BLOCKS[title].strip().split("\n"):
        names = dict(given)
        exec(line, names)
        made = line.partition(" = ")[0]
        close(names[made], true[made], 1e-9 * float(true[made].abs().max()))


def test_the_table_of_ddpm_gives_a_and_s():
    names = {"alpha_bar": torch.tensor([1.0, 0.64]), "t": 1}
    exec(re.search(r"^a, s = .*$", PAGE, re.MULTILINE).group(), names)
    close(names["a"], torch.tensor(0.8), 1e-6)
    close(names["s"], torch.tensor(0.6), 1e-6)


def test_the_names_for_predict_are_the_library_s():
    rows = dict(re.findall(r'^\| `(\w+)` \|.*\| `"(\w+)"` \|$', PAGE, re.MULTILINE))
    assert rows == PREDICT
    world = a_world("vp")
    for name, kind in rows.items():
        found = to_x0(world["x"], meanings(world)[name], world["a"].flatten(), world["s"].flatten(), kind)
        close(found, world["x0"], 1e-9)
