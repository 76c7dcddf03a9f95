"""The directive `live-model`: the shipped MNIST model, drawing in the reader's own browser.

Its argument is a form, "small" or "whole"; its content stands where no browser runs it, in print or in a notebook.
The build puts beside the scripts in _static/live_model what they fetch when a reader presses play: ONNX Runtime's
engine, the model's graph and weights, and the knots of its schedule. Nothing is fetched before.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from ddpm_lib import draw, sampling
from ddpm_lib.checkpoint import Checkpoint, pretrained
from ddpm_lib.denoiser import coefficients
from ddpm_lib.files import shipped, write_whole

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "site"))

import export_onnx  # noqa: E402

# The engine, from npm. Its digest is that of the package's archive, as npm states it.
PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
ENGINE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
CACHE = ROOT / "_build" / f"{PACKAGE}-{VERSION}"

MODEL = "mnist28"
FOLDER = "_static/live_model"
STEPS = (5, 10, 20, 50, 100, 200)
# What a form begins with, beside what the model's file recommends. Scale 1 needs half the work of any other.
FORMS = {"small": {"scale": 1.0}, "whole": {}}
ALT = (
    "The digits 0 to 9, one in each row. From left to right a square of noise turns, "
    "step by step, into a white digit on black."
)
FILM = "A stored film of the model at work, to be read from left to right."

logger = logging.getLogger(__name__)


class EngineError(SphinxError):
    """ONNX Runtime could not be had, for a reason that the message names."""

    category = "Live model"


def engine() -> Path:
    """The folder with ONNX Runtime's two files, the larger one gzipped; asks npm for them if they are not there.

    Raises EngineError if there is no npm, if it gets no answer, or if what came is not what was pinned.
    """
    if all((CACHE / name).exists() for name in (ENGINE, f"{WASM}.gz")):
        return CACHE
    with tempfile.TemporaryDirectory() as place:
        command = [
            "npm",
            "pack",
            f"{PACKAGE}@{VERSION}",
            "--pack-destination",
            place,
            "--silent",
        ]
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=300
            )
        except FileNotFoundError as error:
            raise EngineError(
                "npm is not installed: on Debian and Ubuntu, apt install npm"
            ) from error
        except subprocess.SubprocessError as error:
            said = getattr(error, "stderr", None) or str(error)
            last = said.strip().splitlines()[-1:]
            raise EngineError(
                f"npm could not get {PACKAGE} {VERSION}: {''.join(last)}"
            ) from error
        unpack(next(Path(place).glob("*.tgz")), CACHE)
    return CACHE


def unpack(archive: Path, folder: Path) -> None:
    """Takes the engine out of npm's archive. Raises EngineError if it is not the one that was pinned."""
    digest = base64.b64encode(
        hashlib.sha512(archive.read_bytes()).digest()
    ).decode()
    if digest != SHA512:
        raise EngineError(
            f"{archive.name} is not what was pinned: sha512 {digest}, expected {SHA512}"
        )
    with tarfile.open(archive) as package:
        script, wasm = (
            package.extractfile(f"package/dist/{name}").read()
            for name in (ENGINE, WASM)
        )
    for name, data in (
        (ENGINE, script),
        (f"{WASM}.gz", gzip.compress(wasm, 9, mtime=0)),
    ):
        write_whole(
            folder / name, lambda part, data=data: Path(part).write_bytes(data)
        )


def engine_or_none() -> Path | None:
    """The engine; without it the pages play the stored film. Where LIVE_MODEL=required, as before publishing, that is a warning."""
    try:
        return engine()
    except EngineError as error:
        required = os.environ.get("LIVE_MODEL") == "required"
        say = logger.warning if required else logger.info
        say(
            "live-model: %s. The pages will play a stored film instead of running the model.",
            error,
        )
        return None


@cache
def model() -> Checkpoint:
    return pretrained(MODEL)


def knots(saved: Checkpoint) -> dict[str, list[dict]]:
    """For each number of steps, the times of a run: log-SNR, a, s, and the estimate x_0 = of_x x - of_y y.

    At the last, clean one log-SNR is infinite, which JSON cannot say: there it is left out.
    Raises ValueError for a schedule whose network sees a rescaled picture.
    """
    schedule = saved.schedule
    if schedule.path != "vp":
        raise ValueError(
            f"the browser's samplers know the path 'vp', and this model has {schedule.path!r}"
        )
    runs = {}
    for steps in STEPS:
        columns = schedule.at(schedule.times(steps))
        rows = []
        for logsnr, a, s in zip(*columns, strict=True):
            p, q = coefficients(saved.predict, a, s)
            of = a * q - s * p
            row = {
                "logsnr": logsnr,
                "a": a,
                "s": s,
                "ofX": q / of,
                "ofY": s / of,
            }
            rows.append(
                {
                    name: value.item()
                    for name, value in row.items()
                    if value.isfinite()
                }
            )
        runs[str(steps)] = rows
    return runs


def write_files(folder: Path, runtime: Path | None) -> dict:
    """Puts beside the scripts what they fetch on play; returns what they must know before."""
    saved = model()
    shutil.copytree(export_onnx.OUT, folder, dirs_exist_ok=True)
    _, weights = export_onnx.contents(shipped()[MODEL])
    for name, data in {
        f"{MODEL}.weights": weights,
        "knots.json": json.dumps(knots(saved)).encode(),
    }.items():
        write_whole(
            folder / name, lambda part, data=data: Path(part).write_bytes(data)
        )
    files = {
        "graph": f"{MODEL}.onnx",
        "weights": f"{MODEL}.weights",
        "knots": "knots.json",
    }
    if runtime:
        files |= {"engine": ENGINE, "wasm": f"{WASM}.gz"}
        for name in (ENGINE, f"{WASM}.gz"):
            shutil.copyfile(runtime / name, folder / name)
    return about(saved, folder, files)


def about(saved: Checkpoint, folder: Path, files: dict) -> dict:
    recommended, _ = draw.recommended(saved, {})
    config = saved.ema.net.config
    return {
        "files": files if "engine" in files else None,
        "bytes": sum((folder / name).stat().st_size for name in files.values()),
        "size": config.image_size,
        "samplers": list(sampling.SAMPLERS),
        "steps": list(STEPS),
        "classes": saved.classes,
        "settings": recommended,
        "film": recommended
        | {
            "file": f"{MODEL}.webp",
            "pitch": config.image_size + export_onnx.FILM_PADDING,
        },
    }


class live_model(nodes.General, nodes.Element):
    """The figure on a page; its children stand for it elsewhere."""


class LiveModel(SphinxDirective):
    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        form = self.arguments[0]
        if form not in FORMS:
            raise self.error(
                f"live-model has no form {form!r}: choose from {', '.join(FORMS)}"
            )
        node = live_model(form=form)
        self.set_source_info(node)
        self.state.nested_parse(self.content, self.content_offset, node)
        return [node]


def visit_html(self, node: live_model) -> None:
    up = "../" * self.builder.current_docname.count("/")
    self.body.append(figure(node["form"], self.builder.app.live_model, up))
    raise nodes.SkipNode


def figure(form: str, known: dict, up: str) -> str:
    """The figure as HTML. known: what write_files returned; up: the way from the page to the top of the site."""
    with Image.open(export_onnx.OUT / f"{MODEL}.webp") as picture:
        width, height = picture.size
    known = known | {"settings": known["settings"] | FORMS[form]}
    data = html.escape(json.dumps(known), quote=True)
    picture = f'src="{up}{FOLDER}/{MODEL}.webp" width="{width}" height="{height}" loading="lazy" alt="{ALT}"'
    return (
        f'<figure class="live-model" data-form="{form}" data-about="{data}">'
        f"<noscript><img {picture}><p>{FILM} With scripts switched on, it draws here.</p></noscript>"
        f'<div class="lm-printed"><img {picture}><p>{FILM} On the page of the book, it draws here.</p></div></figure>'
    )


def visit_other(self, node: live_model) -> None:
    """Elsewhere the children speak for it."""


def prepare(app: Sphinx) -> None:
    if app.builder.format == "html":
        app.live_model = write_files(Path(app.outdir, FOLDER), engine_or_none())
        size = app.live_model["bytes"] / 1e6
        if app.live_model["files"]:
            logger.info("live-model: pressing play fetches %.1f MB", size)


def add_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree
) -> None:
    if (
        doctree is not None
        and next(doctree.findall(live_model), None) is not None
    ):
        app.add_css_file("live_model/live_model.css")
        app.add_js_file("live_model/sampling.js", loading_method="defer")
        app.add_js_file("live_model/live_model.js", loading_method="defer")


def setup(app: Sphinx) -> dict:
    elsewhere = (visit_other, visit_other)
    app.add_node(
        live_model,
        html=(visit_html, None),
        latex=elsewhere,
        text=elsewhere,
        man=elsewhere,
    )
    app.add_directive("live-model", LiveModel)
    app.connect("builder-inited", prepare)
    app.connect("html-page-context", add_scripts)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
