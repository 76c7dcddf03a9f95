"""What the build gives to the model in the page: the exported graph, the schedule's knots, the engine."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from ddpm_lib import sampling, schedule
from ddpm_lib.checkpoint import Checkpoint, export, load, pretrained
from ddpm_lib.files import shipped
from ddpm_lib.training import EMA, TrainConfig
from ddpm_lib.unet import UNet, UNetConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
live_model = pytest.importorskip("live_model", reason="the book's packages are not installed: make install")
export_onnx = live_model.export_onnx

TINY = UNetConfig(
    image_size=8,
    channels=1,
    num_classes=3,
    width=16,
    multipliers=(1, 2),
    blocks=1,
    attention=(1,),
    head_dim=16,
    patch=2,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small model with weights that matter, saved as one to share, and its file."""
    torch.manual_seed(1)
    net = UNet(TINY)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    saved = Checkpoint(net, schedule.cosine(), "v", TrainConfig(steps=1), EMA(net, 10), 1)
    path = export(saved, tmp_path_factory.mktemp("tiny") / "tiny.safetensors")
    return path


@pytest.mark.slow
def test_the_exported_graph_answers_as_the_network(tiny, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: make install")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: make install")
    from onnx.reference import ReferenceEvaluator

    net = load(tiny).ema.net.float().eval()
    model = export_onnx.graph(net, tiny, "tiny.weights")
    # no weight is left in the graph
    assert max(len(constant.raw_data) for constant in model.graph.initializer) <= 256
    places, numbers = export_onnx.contents(tiny)
    wide = np.frombuffer(numbers, "<f2").astype("<f4")
    (tmp_path / "tiny.weights").write_bytes(wide.tobytes())
    onnx.save(model, tmp_path / "tiny.onnx")
    program = ReferenceEvaluator(onnx.load(tmp_path / "tiny.onnx"))
    for labels in ([2], [0, -1, 1]):
        x, logsnr = torch.randn(len(labels), 1, 8, 8), torch.linspace(-5, 5, len(labels))
        with torch.no_grad():
            expected = net(x, logsnr, torch.tensor(labels))
        given = {"x": x.numpy(), "logsnr": logsnr.numpy(), "label": torch.tensor(labels).numpy()}
        (y,) = program.run(None, given)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(torch.from_numpy(y), expected, atol=1e-4, rtol=1e-4)


def test_only_half_precision_is_exported(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match="F32; export a model first"):
        export_onnx.contents(tmp_path / "wide.safetensors")


def test_places_are_those_of_the_tensors():
    path = shipped()["mnist28"]
    places, numbers = export_onnx.contents(path)
    with safe_open(path, "pt") as file:
        assert {place.name for place in places} == set(file.keys())
        for place in places[::20]:
            found = torch.frombuffer(bytearray(numbers[place.begin : place.end]), dtype=torch.float16)
            assert torch.equal(found, file.get_tensor(place.name).flatten())


def test_the_stored_files_are_small():
    sizes = {name: (export_onnx.OUT / f"mnist28.{name}").stat().st_size for name in ("onnx", "webp")}
    assert sizes["onnx"] < 150_000 and sizes["webp"] < 150_000


def test_the_stored_graph_names_places_in_the_weights_of_today():
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: make install")
    model = onnx.load(export_onnx.OUT / "mnist28.onnx", load_external_data=False)
    places, _ = export_onnx.contents(shipped()["mnist28"])
    known = {(place.begin, place.end) for place in places}
    used = set()
    for constant in model.graph.initializer:
        about = {entry.key: entry.value for entry in constant.external_data}
        if about:
            assert about["location"] == "mnist28.weights"
            begin, length = int(about["offset"]) // 2, int(about["length"]) // 2
            used.add((begin, begin + length))
    assert used == known


def test_the_film_is_of_every_digit_and_step():
    known = live_model.about(pretrained("mnist28"), export_onnx.OUT, {})
    pitch, steps = known["film"]["pitch"], known["film"]["steps"]
    with Image.open(export_onnx.OUT / known["film"]["file"]) as picture:
        assert picture.size == ((steps + 1) * pitch - 4, 10 * pitch - 4)


@pytest.mark.parametrize("predict", ["v", "x0"])
def test_knots_are_the_librarys(predict):
    saved = pretrained("mnist28")
    saved.predict = predict
    table = json.loads(json.dumps(live_model.knots(saved), allow_nan=False))
    assert set(table) == set(map(str, live_model.STEPS))
    denoiser = saved.denoiser()
    x = torch.randn(1, 1, 28, 28)
    for steps in (5, 20):
        times = saved.schedule.times(steps)
        expected = sampling._knots(saved.schedule, times)
        rows = table[str(steps)]
        assert len(rows) == steps + 1
        for row, knot in zip(rows, expected, strict=True):
            assert row["a"] == knot.a and row["s"] == knot.s
            assert row.get("logsnr", torch.inf) == knot.logsnr
        row, t = rows[2], float(times[2])
        with torch.no_grad():
            y = denoiser.net(x, torch.tensor([row["logsnr"]]), None)
            answer = denoiser(x, t)
        torch.testing.assert_close(row["ofX"] * x - row["ofY"] * y, answer, atol=1e-5, rtol=1e-5)


def test_a_path_that_the_browser_does_not_know_is_refused():
    saved = pretrained("mnist28")
    saved.schedule = schedule.flow()
    with pytest.raises(ValueError, match="'flow'"):
        live_model.knots(saved)


# The engine


def archive(folder: Path) -> Path:
    path = folder / "onnxruntime-web.tgz"
    with tarfile.open(path, "w:gz") as package:
        for name in (live_model.ENGINE, live_model.WASM, "another.js"):
            data = f"this is {name}".encode()
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(data)
            package.addfile(entry, io.BytesIO(data))
    return path


def test_the_engine_is_taken_from_the_pinned_archive_alone(tmp_path, monkeypatch):
    path = archive(tmp_path)
    with pytest.raises(live_model.EngineError, match="not what was pinned"):
        live_model.unpack(path, tmp_path / "engine")
    assert not (tmp_path / "engine").exists()
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(live_model, "SHA512", digest)
    live_model.unpack(path, tmp_path / "engine")
    names = {file.name for file in (tmp_path / "engine").iterdir()}
    assert names == {live_model.ENGINE, f"{live_model.WASM}.gz"}
    wasm = gzip.decompress((tmp_path / "engine" / f"{live_model.WASM}.gz").read_bytes())
    assert wasm.decode() == f"this is {live_model.WASM}"


def failing(error):
    def run(*_, **__):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError("npm"), "npm is not installed"),
        (subprocess.CalledProcessError(1, "npm", stderr="npm error\nno answer"), "no answer"),
        (subprocess.TimeoutExpired("npm", 300), "timed out"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_without_the_engine_the_build_goes_on_and_says_so(tmp_path, monkeypatch, error, said, strict):
    monkeypatch.setattr(live_model, "CACHE", tmp_path / "nothing")
    monkeypatch.setattr(live_model.subprocess, "run", failing(error))
    if strict:
        monkeypatch.setenv("LIVE_MODEL", "required")
    else:
        monkeypatch.delenv("LIVE_MODEL", raising=False)
    heard = []
    for level in ("info", "warning"):
        monkeypatch.setattr(
            live_model.logger, level, lambda text, *args, level=level: heard.append((level, text % args))
        )
    assert live_model.engine_or_none() is None
    ((level, text),) = heard
    assert level == ("warning" if strict else "info") and said in text and "stored film" in text


def test_without_the_engine_pages_know_that_there_is_only_the_film(tmp_path):
    known = live_model.write_files(tmp_path, None)
    assert known["files"] is None
    assert not list(tmp_path.glob("*.gz")) and (tmp_path / "mnist28.webp").exists()
    html = live_model.figure("small", known, "../")
    assert 'src="../_static/live_model/mnist28.webp"' in html and "<noscript>" in html


def test_a_form_knows_its_settings(tmp_path):
    known = live_model.write_files(tmp_path, None)
    for form, scale in (("small", 1.0), ("whole", known["settings"]["scale"])):
        figure = live_model.figure(form, known, "")
        told = json.loads(unescape(re.search(r'data-about="([^"]*)"', figure)[1]))
        assert told == known | {"settings": known["settings"] | {"scale": scale}}
    assert known["settings"]["scale"] > 1


def test_half_an_engine_is_fetched_again(tmp_path, monkeypatch):
    (tmp_path / live_model.ENGINE).write_text("one of two", encoding="utf-8")
    monkeypatch.setattr(live_model, "CACHE", tmp_path)
    monkeypatch.setattr(live_model.subprocess, "run", failing(FileNotFoundError("npm")))
    with pytest.raises(live_model.EngineError, match="npm is not installed"):
        live_model.engine()
    (tmp_path / f"{live_model.WASM}.gz").write_text("the other", encoding="utf-8")
    assert live_model.engine() == tmp_path


# The directive

PAGES = {
    "index": "# Top\n\n```{toctree}\ndeep/model\n```\n",
    "deep/model": "# Model\n\n:::{live-model} whole\n\nIt draws on [the page](https://example.org).\n\n:::\n",
}


def built(folder: Path, builder: str, pages: dict[str, str]) -> tuple[Path, str]:
    """Builds these pages with the directive; the output folder and the warnings."""
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    warnings = io.StringIO()
    options = {"extensions": ["myst_parser", "live_model"], "myst_enable_extensions": ["colon_fence"]}
    out = folder / "out" / builder
    with docutils_namespace():
        Sphinx(folder, None, out, folder / "doctrees", builder, options, None, warnings).build()
    return out, warnings.getvalue()


@pytest.fixture
def no_engine(monkeypatch):
    monkeypatch.setattr(live_model, "engine_or_none", lambda: None)


def test_the_directive_puts_the_model_and_its_scripts_on_its_page_alone(tmp_path, no_engine):
    out, warnings = built(tmp_path, "html", PAGES)
    assert warnings == ""
    html = {name: (out / f"{name}.html").read_text("utf-8") for name in PAGES}
    assert 'class="live-model" data-form="whole"' in html["deep/model"]
    assert 'src="../_static/live_model/mnist28.webp"' in html["deep/model"]
    assert "example.org" not in html["deep/model"]
    for part in ("sampling.js", "live_model.js", "live_model.css"):
        assert html["deep/model"].count(part) == 1 and part not in html["index"]
    assert (out / "_static/live_model/mnist28.weights").exists()


def test_elsewhere_the_directives_content_speaks_for_it(tmp_path, no_engine):
    out, warnings = built(tmp_path, "text", PAGES)
    assert warnings == ""
    assert "It draws on the page" in (out / "deep/model.txt").read_text("utf-8")


def test_an_unknown_form_is_named_with_the_choices(tmp_path, no_engine):
    _, warnings = built(tmp_path, "html", {"index": "# Top\n\n```{live-model} huge\n```\n"})
    assert "no form 'huge': choose from small, whole" in warnings
