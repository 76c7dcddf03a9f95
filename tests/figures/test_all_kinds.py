"""What holds for every kind of figure as Python makes it; test_all_kinds_browser.py moves them in a browser."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_lib import figures
from ddpm_lib.figures import common
from ddpm_lib.plotting import COLOURS

from .examples import EXAMPLES, KINDS
from .hands import Tags

# What a figure of each kind that is too heavy is told to use.
LIGHTER = {
    "scrubber": "fewer points, steps or tracks",
    "schedule_designer": "a smaller image",
    "hover_weights": "fewer points or steps",
    "derivation": "fewer lines",
    "converter": "a shorter caption",
    "gallery": "fewer or smaller images",
    "network": "fewer blocks or sizes",
    "sample_size": "fewer draws, sets or features",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_is_one_element_that_asks_no_other_host(kind):
    figure = EXAMPLES[kind](alt='a "cat" </script> < b', caption="from $x_0$ to <fog> & back")
    # The name of SVG is no address; nothing fetches it.
    assert "://" not in figure.html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"\b(import[ (]|require|fetch|src=\"(?!data:)|url\()", figure.html)
    page = Tags(figure.html)
    assert not page.open and page.tags[0][0] == "figure" and page.tags[1][0] == "img"
    assert page.tags[1][1]["alt"] == 'a "cat" </script> < b'
    # GitHub drops the style sheet and keeps this.
    assert page.tags[1][1]["style"] == "max-width:100%"
    assert page.tags[1][1]["src"] == "data:image/png;base64," + base64.b64encode(figure.png).decode()
    assert "".join(page.text).split() == ["from", "x0", "to", "<fog>", "&", "back"]
    assert not [attrs for _, attrs in page.tags if "id" in attrs]


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_shows_itself_with_its_picture_and_its_text(kind):
    figure = EXAMPLES[kind](alt="what it shows")
    bundle = figure._repr_mimebundle_(include=None, exclude=None)
    assert bundle["text/html"] == figure.html and bundle["text/plain"] == "what it shows" == figure.alt
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGB")
    assert 100 < image.width < 800 and 100 < image.height < 800
    assert np.asarray(image).std() > 5
    assert len(repr(figure)) < 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_is_the_same_each_time_and_changes_no_style(kind):
    import matplotlib as mpl

    before = mpl.rcParams.copy()
    first = EXAMPLES[kind]()
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "lines.linewidth": 9}):
        torch.manual_seed(5)
        second = EXAMPLES[kind]()
    assert first.html == second.html and first.png == second.png
    assert mpl.rcParams == before


@pytest.mark.parametrize("kind", KINDS)
def test_two_different_figures_have_different_keys(kind):
    keys = [re.search('data-ddpm-figure="(.*?)"', EXAMPLES[kind](alt=alt).html)[1] for alt in ("a", "b")]
    assert keys[0] != keys[1] and all(key.startswith(kind) for key in keys)


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_without_words_or_too_heavy_is_refused(kind, monkeypatch):
    with pytest.raises(ValueError, match="needs alt"):
        EXAMPLES[kind](alt=" ")
    monkeypatch.setattr(common, "LARGEST_FIGURE", 1000)
    with pytest.raises(ValueError, match=rf"kB of 1: use {LIGHTER[kind]}"):
        EXAMPLES[kind]()


def test_importing_costs_neither_matplotlib_nor_latex2mathml():
    program = "import sys, ddpm_lib.figures; print({'matplotlib', 'PIL', 'latex2mathml', 'IPython'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


# A module and its function have one name, and Python gives a package's attribute to the module it has just loaded.
FIRST_IMPORTED = """
import importlib, sys
import ddpm_lib
for kind in sys.argv[1:]:
    for name in [name for name in sys.modules if name.startswith("ddpm_lib.figures")]:
        del sys.modules[name]
    vars(ddpm_lib).pop("figures", None)
    module = importlib.import_module(f"ddpm_lib.figures.{kind}")
    from ddpm_lib import figures
    for each in sys.argv[1:]:
        again = importlib.import_module(f"ddpm_lib.figures.{each}")
        assert getattr(figures, each) is getattr(again, each), (kind, each)
    exec(f"from ddpm_lib.figures import {kind}; assert {kind} is module.{kind}")
    exec(f"import ddpm_lib.figures.{kind} as {kind}; assert {kind} is module.{kind}")
print("all are functions")
"""


def test_the_names_of_figures_are_functions_whichever_module_is_imported_first():
    run = subprocess.run([sys.executable, "-c", FIRST_IMPORTED, *KINDS], capture_output=True, text=True)
    assert run.stdout == "all are functions\n", run.stderr


def test_each_figure_is_a_module_a_script_and_a_public_name():
    folder = Path(common.__file__).parent
    scripts = {path.stem for path in folder.glob("*.js")} - {"common"}
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "common", "formulas"}
    assert scripts == modules == set(KINDS) == set(figures.__all__) - {"Figure", "Line"}


@pytest.mark.parametrize("name", ["common.js", *(f"{kind}.js" for kind in KINDS)])
def test_no_script_can_end_itself(name):
    source = common._source(name)
    assert "</" not in source and "<!--" not in source and "// TODO" not in source


def test_the_style_has_the_colours_of_the_book():
    style = common._style()
    assert "@data@" not in style and all(
        f"--{name}: {COLOURS[name]}" in style for name in ("data", "noise", "prediction")
    )
