"""The model in the page, in Chromium: its numbers against PyTorch's, and what a reader meets when things go wrong."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import sys
from pathlib import Path

import headless
import numpy as np
import pytest
import torch

from ddpm_lib import sampling
from ddpm_lib.checkpoint import pretrained
from ddpm_lib.denoiser import Denoiser

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
live_model = pytest.importorskip("live_model", reason="the book's packages are not installed: make install")

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>live model</title><link rel="icon" href="data:,"><link rel="stylesheet" href="_static/live_model/live_model.css">
<style>body {{ margin: 12px; background: #fff; color: #222832 }}
[data-theme="dark"] body {{ background: #14181e; color: #ced6dd }}</style>
<script defer src="_static/live_model/sampling.js"></script>
<script defer src="_static/live_model/live_model.js"></script><body>{}</body></html>"""
BEFORE_PLAY = {"live_model.css", "sampling.js", "live_model.js"}
ON_PLAY = {
    "worker.js",
    "knots.json",
    "ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.wasm.gz",
    "mnist28.onnx",
    "mnist28.weights",
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A folder with a page for each form of the figure."""
    try:
        runtime = live_model.engine()
    except live_model.EngineError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("site")
    known = live_model.write_files(folder / live_model.FOLDER, runtime)
    # the small form has no choice of steps: here it takes few
    quick = known | {"settings": known["settings"] | {"sampler": "ddim", "steps": 5}}
    for form, given in (("whole", known), ("small", quick)):
        html = PAGE.format(live_model.figure(form, given, ""))
        (folder / f"{form}.html").write_text(html, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def site(copied):
    """Its address."""
    with headless.served(copied) as address:
        yield f"{address}/"


@pytest.fixture
def open_page(browser, site):
    """open_page(form, **context) -> a page; page.asked: the files that it asked for. No other host, no error."""
    contexts, seen = [], []

    def opened(form: str = "whole", before=lambda page: None, **options):
        contexts.append(browser.new_context(**({"viewport": {"width": 900, "height": 900}} | options)))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.asked = []
        contexts[-1].on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: seen.append(str(error)))
        before(page)
        page.goto(f"{site}{form}.html")
        return page

    yield opened
    foreign = [
        url
        for context in contexts
        for page in context.pages
        for url in page.asked
        if not url.startswith((site, "data:", "blob:"))
    ]
    for context in contexts:
        context.close()
    assert foreign == [] and seen == []


def files(page) -> set[str]:
    return {url.rsplit("/", 1)[1] for url in page.asked} - {"whole.html", "small.html", ""}


def control(page, name: str):
    return page.locator(f'[data-input="{name}"]')


def status(page) -> str:
    return page.locator(".lm-status").text_content()


def heard(page) -> str:
    return page.locator(".lm-heard").text_content()


def finished(page, word: str = "Done in") -> str:
    page.wait_for_function(
        "word => document.querySelector('.lm-status').textContent.includes(word)", arg=word
    )
    return status(page)


def choose(page, name: str, value: str) -> None:
    page.locator(f'input[data-input="{name}"][value="{value}"]').check(force=True)


def slide(page, name: str, value: float) -> None:
    control(page, name).evaluate(
        "(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }", value
    )


def draw_one(page) -> str:
    """The least work: one picture in five steps, as the whole form can be told; what it says then."""
    if control(page, "count").count():
        choose(page, "steps", "5")
        slide(page, "count", 1)
    control(page, "play").click()
    return finished(page)


def packed(x: torch.Tensor) -> str:
    return base64.b64encode(x.float().numpy().tobytes()).decode()


def unpacked(text: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f4").copy()).view(*shape)


def pictures(page) -> torch.Tensor:
    """What the tiles show, as grey values; (N, 28, 28)."""
    rows = page.locator(".lm-tile canvas").evaluate_all(
        "all => all.map(one => [...one.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0))"
    )
    return torch.tensor(rows).view(-1, 28, 28)


@pytest.fixture(scope="module")
def model():
    return pretrained("mnist28")


# Its numbers

HELP = """
const floats = text => new Float32Array(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
const text = array => btoa(Array.from(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), byte => String.fromCharCode(byte)).join(""));
const run = async (network, { x, z, sampler, steps, labels, scale, knots }) => {
  const way = knots[steps].map(knot => ({ logsnr: Infinity, ...knot }));
  const denoise = ddpmSampling.clipped(ddpmSampling.guided(ddpmSampling.denoiser(network), labels, scale));
  const fresh = z.map(floats), steps_ = ddpmSampling.sample(sampler, denoise, floats(x), way, () => fresh.shift());
  let last;
  for await (const step of steps_) last = step;
  return text(last.x);
};
"""


def drawn(denoiser, sampler: str, steps: int, labels, scale: float, seed: int = 0):
    """What the library draws with these settings, and the noise it took: (final x, start, noise on the way)."""
    count, generator = len(labels), torch.Generator().manual_seed(seed)
    start = sampling.pure_noise((count, 1, 28, 28), denoiser.schedule, generator)
    state = generator.get_state()
    denoise = sampling.clipped(sampling.guided(denoiser, torch.tensor(labels), scale))
    noisy = {"generator": generator} if sampler in sampling.NOISY else {}
    x = sampling.last(
        sampling.SAMPLERS[sampler](denoise, start, denoiser.schedule, denoiser.schedule.times(steps), **noisy)
    )
    generator.set_state(state)
    fresh = [torch.randn(start.shape, generator=generator) for _ in range(steps)] if noisy else []
    return x, start, fresh


def task(start, fresh, sampler, steps, labels, scale, knots) -> dict:
    return {
        "x": packed(start),
        "z": [packed(z) for z in fresh],
        "sampler": sampler,
        "steps": steps,
        "labels": labels,
        "scale": scale,
        "knots": {str(steps): knots[str(steps)]},
    }


def stand_in(x, logsnr, label=None):
    """A network of one line, which hears all that it is told and answers at once."""
    label = torch.full((len(x),), -1) if label is None else label
    told = torch.cos(logsnr / 5) + 0.1 * label
    return torch.tanh(1.5 * x) * told.view(-1, 1, 1, 1)


STAND_IN = """async (x, logsnr, labels) => x.map((value, i) =>
  Math.tanh(1.5 * value) * (Math.cos(logsnr / 5) + 0.1 * labels[Math.floor(i * labels.length / x.length)]))"""


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_samplers_and_guidance_are_the_librarys(open_page, model, sampler):
    page, knots = open_page(), live_model.knots(model)
    denoiser = Denoiser(stand_in, model.schedule, model.predict)
    for steps, scale in itertools.product(live_model.STEPS, (0, 1, 1.1, 4)):
        labels = [3, 7]
        expected, start, fresh = drawn(denoiser, sampler, steps, labels, scale)
        got = page.evaluate(
            f"given => {{ {HELP} return run({STAND_IN}, given); }}",
            task(start, fresh, sampler, steps, labels, scale, knots),
        )
        error = (unpacked(got, 2, 1, 28, 28) - expected).abs().max().item()
        assert error < 1e-4, (sampler, steps, scale)


NETWORK = f"""async given => {{
  {HELP}
  if (!window.worker) {{
    window.worker = new Worker("_static/live_model/worker.js", {{ type: "module" }});
    window.send = message => new Promise((resolve, reject) => {{
      worker.onmessage = ({{ data }}) => "loaded" in data ? 0 : "failed" in data ? reject(data.failed) : resolve(data.answer);
      worker.postMessage(message);
    }});
    await send({{ load: given.files }});
  }}
  const network = (x, logsnr, labels) => send({{ ask: {{ x, logsnr, labels }} }});
  return given.steps ? run(network, given) : text(await network(floats(given.x), given.logsnr, given.labels));
}}"""


@pytest.fixture(scope="module")
def asked(browser, site):
    """A page whose worker has loaded the model: asked(task) -> its answer."""
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{site}whole.html")
    known = json.loads(page.locator(".live-model").get_attribute("data-about"))
    yield lambda given: page.evaluate(NETWORK, given | {"files": known["files"]})
    page.close()


@pytest.mark.parametrize("logsnr", [-9.5, -2.0, 0.3, 7.0])
def test_the_network_answers_as_pytorchs(asked, model, logsnr):
    for labels in ([4], [-1, 0, 9]):
        x = torch.randn(len(labels), 1, 28, 28)
        with torch.no_grad():
            expected = model.ema.net.eval()(x, torch.full((len(x),), logsnr), torch.tensor(labels))
        y = unpacked(asked({"x": packed(x), "logsnr": logsnr, "labels": labels}), *x.shape)
        assert (y - expected).abs().max().item() < 1e-4


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_drawings_are_pytorchs_to_a_thousandth(asked, model, sampler):
    knots = live_model.knots(model)
    for steps, labels, scale in ((5, [7, 2], 4), (10, [5], 1), (10, [-1], 2)):
        expected, start, fresh = drawn(model.denoiser(), sampler, steps, labels, scale)
        got = asked(task(start, fresh, sampler, steps, labels, scale, knots))
        error = (unpacked(got, len(labels), 1, 28, 28) - expected).abs().max().item()
        assert error < 1e-3, (steps, labels, scale)


def test_noise_is_normal_and_belongs_to_seed_and_place(open_page):
    page = open_page()
    noise = lambda seed, count: unpacked(  # noqa: E731
        page.evaluate(
            f"([seed, count]) => {{ {HELP} return text(ddpmSampling.noise(seed, count, 10000)()); }}",
            [seed, count],
        ),
        count,
        10_000,
    )
    one, more, other = noise(1, 3), noise(1, 8), noise(2, 3)
    assert torch.equal(one, more[:3]) and not torch.equal(one, other)
    values = more.flatten().double()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert values.pow(power).mean().item() == pytest.approx(
            moment, abs=5 * (variance / len(values)) ** 0.5
        )
    # seeds that follow each other begin apart
    first = page.evaluate(
        "Array.from({ length: 400 }, (_, seed) => ddpmSampling.noise(seed, 1, 4)()).map(noise => [noise[0], noise[1]])"
    )
    assert torch.tensor(first).std(0).sub(1).abs().max() < 0.15
    # neither two pictures nor two seeds hold alike noise
    alike = torch.corrcoef(torch.cat([more, other])).fill_diagonal_(0).abs().max().item()
    assert alike < 5 / 10_000**0.5


# What a reader sees


def test_a_drawing_from_the_keyboard_is_the_one_that_was_asked_for(open_page, model):
    page = open_page()
    choose(page, "digit", "5")
    choose(page, "sampler", "dpm++2m")
    choose(page, "steps", "5")
    slide(page, "count", 2)
    slide(page, "scale", 2.5)
    control(page, "seed").fill("42")
    start = page.evaluate(f"() => {{ {HELP} return text(ddpmSampling.noise(42, 2, 784)()); }}")
    start = unpacked(start, 2, 1, 28, 28)
    grey = lambda x: x[:, 0].add(1).mul(127.5).round().clamp(0, 255)  # noqa: E731
    assert (pictures(page) - grey(start)).abs().max() <= 1
    control(page, "play").focus()
    page.keyboard.press("Enter")
    finished(page)
    denoise = sampling.clipped(sampling.guided(model.denoiser(), torch.tensor([5, 5]), 2.5))
    steps = list(sampling.SAMPLERS["dpm++2m"](denoise, start, model.schedule, model.schedule.times(5)))
    assert (pictures(page) - grey(steps[-1].x)).abs().max() <= 1
    # and back through the run, by the arrow keys
    control(page, "step").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    knot = model.schedule.at(model.schedule.times(5)[3])[0].item()
    assert status(page) == f"step 3 of 5 · log-SNR {knot:.1f}".replace("-", "−").replace("log−", "log-")
    assert (pictures(page) - grey(steps[2].x)).abs().max() <= 1
    assert control(page, "step").get_attribute("aria-valuetext") == status(page)
    choose(page, "show", "x0")
    assert (pictures(page) - grey(steps[2].x0)).abs().max() <= 1


@pytest.mark.parametrize(("digit", "labels"), [("each", [0, 1]), ("any", [-1, -1])])
def test_a_drawing_is_named_as_what_was_drawn(open_page, model, digit, labels):
    page = open_page()
    for name, value in (("digit", digit), ("sampler", "ddim"), ("steps", "5")):
        choose(page, name, value)
    slide(page, "count", 2)
    slide(page, "scale", 1)
    start = unpacked(
        page.evaluate(f"() => {{ {HELP} return text(ddpmSampling.noise(1, 2, 784)()); }}"), 2, 1, 28, 28
    )
    control(page, "play").click()
    assert finished(page) == heard(page)
    denoise = sampling.clipped(sampling.guided(model.denoiser(), torch.tensor(labels), 1))
    x = sampling.last(sampling.ddim(denoise, start, model.schedule, model.schedule.times(5)))
    assert (pictures(page) - x[:, 0].add(1).mul(127.5).round().clamp(0, 255)).abs().max() <= 1
    names = ["any" if label < 0 else str(label) for label in labels]
    assert page.locator(".lm-tile span").all_text_contents() == names
    assert page.locator(".lm-tiles").get_attribute("aria-label") == f"Drawn: {', '.join(names)}"
    assert status(page).endswith(f". {' '.join(names)}")


def test_other_noise_is_the_next_seeds_and_no_seed_changes_nothing(open_page):
    page = open_page()
    first = pictures(page)
    for wrong in ("", "1000000", "-1"):
        control(page, "seed").fill(wrong)
        assert torch.equal(pictures(page), first)
    control(page, "other").click()
    second = pictures(page)
    assert control(page, "seed").input_value() == "2" and not torch.equal(second, first)
    control(page, "seed").fill("1")
    assert torch.equal(pictures(page), first)
    # after the largest comes the smallest
    control(page, "seed").fill("999999")
    control(page, "other").click()
    assert control(page, "seed").input_value() == "0"
    assert control(page, "seed").evaluate("seed => seed.validity.valid")
    control(page, "other").click()
    assert torch.equal(pictures(page), first)


def test_nothing_is_shown_as_minus_nought(open_page):
    def even(page):
        """A schedule whose log-SNR passes so near to 0 that no digit of it is left."""
        page.context.route(
            "**/knots.json",
            lambda route: route.fulfill(
                json={
                    steps: [row | ({"logsnr": -0.04} if "logsnr" in row else {}) for row in rows]
                    for steps, rows in route.fetch().json().items()
                }
            ),
        )

    page = open_page(before=even)
    draw_one(page)
    said = []
    for _ in range(6):
        control(page, "step").press("ArrowLeft")
        said.append(status(page))
    assert said[-1] == "step 0 of 5 · log-SNR 0.0" and not any("0.0" in text and "−" in text for text in said)


@pytest.mark.parametrize("form", live_model.FORMS)
def test_nothing_is_fetched_before_play(open_page, form):
    page = open_page(form)
    page.mouse.wheel(0, 400)
    page.wait_for_timeout(300)
    assert files(page) == BEFORE_PLAY
    draw_one(page)
    assert files(page) == BEFORE_PLAY | ON_PLAY
    # the second drawing asks for nothing
    before = len(page.asked)
    control(page, "other").click()
    draw_one(page)
    assert len(page.asked) == before


def test_the_button_says_what_it_fetches(open_page):
    page = open_page()
    said, sizes = status(page), []
    page.on("response", lambda response: sizes.append(response))
    draw_one(page)
    counted = sum(
        len(response.body())
        for response in sizes
        if response.url.rsplit("/", 1)[1] in ON_PLAY - {"worker.js"}
    )
    assert f"{counted / 1e6:.1f} MB" in said


def test_stop_ends_a_drawing_and_the_next_one_is_whole(open_page):
    page = open_page()
    for name, value in (("sampler", "ddim"), ("steps", "10"), ("digit", "each")):
        choose(page, name, value)
    slide(page, "count", 3)
    control(page, "play").click()
    finished(page)
    whole = pictures(page)
    choose(page, "steps", "200")
    control(page, "play").click()
    finished(page, "step 2 of 200")
    # until it is done there is no way back through it
    assert control(page, "step").is_disabled() and heard(page) == "Drawing 3 pictures"
    control(page, "play").click()
    assert control(page, "step").is_enabled()
    assert status(page) == "Stopped."
    at = control(page, "step").input_value()
    page.wait_for_timeout(500)
    assert control(page, "step").input_value() == at and status(page) == "Stopped."
    # at once, while the worker still computes what nobody wants any more
    choose(page, "steps", "200")
    control(page, "play").click()
    finished(page, "step 1 of 200")
    choose(page, "steps", "10")
    control(page, "play").click()
    finished(page)
    assert torch.equal(pictures(page), whole)


WIDTHS = [360, 390, 1300]


@pytest.mark.parametrize("width", WIDTHS)
def test_after_a_stop_the_slider_leads_through_what_was_drawn(open_page, width):
    page = open_page(viewport={"width": width, "height": 800})
    for name, value in (("sampler", "ddim"), ("steps", "200"), ("digit", "7")):
        choose(page, name, value)
    slide(page, "count", 1)
    slide(page, "scale", 1)
    control(page, "play").click()
    finished(page, "step 3 of 200")
    control(page, "play").click()
    last = int(control(page, "step").get_attribute("max"))
    assert 3 <= last < 200 and control(page, "step").input_value() == str(last)
    newest = pictures(page)
    box = control(page, "step").bounding_box()
    across = lambda share: (box["x"] + share * box["width"], box["y"] + box["height"] / 2)  # noqa: E731
    page.mouse.move(*across(0.5))
    page.mouse.down()
    page.mouse.move(*across(0.02), steps=4)
    assert status(page).startswith("step 0 of 200")
    assert not torch.equal(pictures(page), newest)
    # as far to the right as it goes, and beyond
    page.mouse.move(*across(1.4), steps=8)
    page.mouse.up()
    assert status(page).startswith(f"step {last} of 200") and torch.equal(pictures(page), newest)


def test_the_answer_to_a_drawing_that_was_stopped_is_not_the_next_ones(open_page):
    def slow(page):
        script = (live_model.export_onnx.OUT / "worker.js").read_text("utf-8")
        late = "const now = self.onmessage; self.onmessage = event => setTimeout(now, event.data.ask ? 400 : 0, event);"
        page.context.route(
            "**/worker.js", lambda route: route.fulfill(body=script + late, content_type="text/javascript")
        )

    drawings = []
    for stopped in (False, True):
        page = open_page(before=slow)
        for name, value in (("sampler", "ddim"), ("steps", "5"), ("digit", "8")):
            choose(page, name, value)
        slide(page, "count", 1)
        slide(page, "scale", 1)
        if stopped:
            control(page, "play").click()
            finished(page, "step 1 of 5")
            control(page, "play").click()
        choose(page, "digit", "3")
        control(page, "play").click()
        finished(page)
        drawings.append(pictures(page))
    assert torch.equal(*drawings)


def test_stop_ends_the_loading(open_page):
    held = []
    page = open_page(before=lambda page: page.route("**/*.weights", lambda route: held.append(route)))
    control(page, "play").click()
    finished(page, "Fetching")
    while not held:
        page.wait_for_timeout(50)
    # all but the weights is here, and the engine's script, which is imported, is not counted
    known = json.loads(page.locator(".live-model").get_attribute("data-about"))
    script = (live_model.CACHE / live_model.ENGINE).stat().st_size
    weights = len(live_model.export_onnx.contents(live_model.shipped()[live_model.MODEL])[1])
    here, whole = known["bytes"] - weights - script, known["bytes"]
    finished(page, f"Fetching the model: {here / 1e6:.1f} of {whole / 1e6:.1f} MB")
    assert len(page.workers) == 1
    control(page, "play").click()
    assert status(page) == "Stopped." and control(page, "play").text_content() == "▶ Draw"
    page.wait_for_timeout(300)
    assert page.locator("[data-film]").count() == 0 and page.workers == []
    page.unroute("**/*.weights")
    draw_one(page)


# Where the model cannot run


@pytest.fixture(scope="module")
def film(model):
    """The film, as the tool that made it computed it; (10, 21, 28, 28) grey values."""
    import export_onnx

    from ddpm_lib import draw

    settings, _ = draw.recommended(model, {})
    return export_onnx.film(model, settings)[:, :, 0].add(1).mul(127.5).clamp(0, 255)


def frame_on_show(page, film) -> int:
    """The frame that is nearest to what is shown: the sheet is lossy."""
    away = (pictures(page).float()[:, None] - film).abs().mean((0, 2, 3))
    assert away.min() < 12
    return int(away.argmin())


def plays_its_film(page, why: str, film) -> None:
    control(page, "play").click()
    finished(page, "A stored film · step")
    said = finished(page, "This was a stored film")
    assert why in said and "cannot run here" in said
    assert said == page.locator(".lm-heard").text_content()
    assert page.locator(".lm-tile").count() == len(film) and frame_on_show(page, film) == 20
    assert page.locator(".lm-settings input:enabled").count() == 0
    control(page, "step").press("Home")
    assert status(page) == "step 0 of 20" and frame_on_show(page, film) == 0
    # and again
    control(page, "play").click()
    finished(page, "This was a stored film")


def test_without_webassembly_the_film_plays(open_page, film):
    page = open_page(before=lambda page: page.add_init_script("delete window.WebAssembly"))
    plays_its_film(page, "WebAssembly is switched off", film)
    assert files(page) == BEFORE_PLAY | {"mnist28.webp"}


def test_a_browser_that_cannot_unpack_plays_the_film_of_all_digits(open_page, film):
    page = open_page(before=lambda page: page.add_init_script("delete window.DecompressionStream"))
    choose(page, "digit", "5")
    slide(page, "count", 3)
    plays_its_film(page, "this browser is too old to unpack it", film)
    assert page.locator(".lm-tile span").all_text_contents() == [str(digit) for digit in range(10)]


def test_a_page_opened_as_a_file_plays_the_film(browser, copied):
    page = browser.new_page()
    page.goto((copied / "whole.html").as_uri())
    control(page, "play").click()
    assert "from a web server only, not from a file" in finished(page, "This was a stored film")
    page.close()


def test_an_engine_that_the_server_unpacked_runs(open_page, copied):
    zipped = (copied / live_model.FOLDER / f"{live_model.WASM}.gz").read_bytes()
    page = open_page(
        before=lambda page: page.context.route(
            "**/*.wasm.gz", lambda route: route.fulfill(body=gzip.decompress(zipped))
        )
    )
    draw_one(page)


@pytest.mark.parametrize(
    ("pattern", "answer", "why"),
    [
        ("**/mnist28.weights", {"status": 404}, "mnist28.weights did not come (404)"),
        ("**/mnist28.onnx", {"status": 404}, "mnist28.onnx did not come (404)"),
        ("**/*.wasm.gz", {"status": 404}, "wasm.gz did not come (404)"),
        ("**/knots.json", {"status": 404}, "knots.json did not come (404)"),
        ("**/worker.js", {"status": 404}, "its program did not start"),
        ("**/mnist28.weights", {"body": b"short"}, "ONNX Runtime could not start it"),
        ("**/mnist28.onnx", {"body": b"no graph"}, "ONNX Runtime could not start it"),
        ("**/*.wasm.gz", {"body": b"no engine"}, "ONNX Runtime could not start it"),
    ],
)
def test_what_does_not_come_or_comes_broken_is_named_and_the_film_plays(
    open_page, film, pattern, answer, why
):
    page = open_page(before=lambda page: page.context.route(pattern, lambda route: route.fulfill(**answer)))
    plays_its_film(page, why, film)


def test_without_memory_the_film_plays(open_page, film):
    def starve(page):
        script = (live_model.export_onnx.OUT / "worker.js").read_text("utf-8")
        full = "WebAssembly.Memory = class { constructor() { throw new RangeError('could not allocate memory'); } };"
        page.context.route(
            "**/worker.js",
            lambda route: route.fulfill(body=full + script, content_type="text/javascript"),
        )

    plays_its_film(open_page(before=starve), "ONNX Runtime could not start it", film)


@pytest.mark.parametrize("width", WIDTHS)
def test_after_a_fault_of_the_network_the_model_is_tried_again(open_page, width):
    cut = [True]

    def once(page):
        fault = lambda route: route.abort("connectionreset") if cut else route.continue_()  # noqa: E731
        page.context.route("**/mnist28.weights", fault)

    page = open_page(before=once, viewport={"width": width, "height": 800})
    again = control(page, "again")
    assert not again.is_visible()
    for name, value in (("digit", "3"), ("sampler", "ddim"), ("steps", "5")):
        choose(page, name, value)
    slide(page, "count", 2)
    control(page, "play").click()
    finished(page, "A stored film · step")
    finished(page, "This was a stored film")
    assert again.is_visible() and page.evaluate("document.documentElement.scrollWidth") <= width
    # the first try again may fail as well
    again.click()
    finished(page, "This was a stored film")
    cut.clear()
    again.focus()
    page.keyboard.press("Enter")
    assert finished(page).endswith(". 3 3")
    assert not again.is_visible() and page.locator("[data-film]").count() == 0
    assert page.locator(".lm-settings input:disabled").count() == 0 and page.locator(".lm-tile").count() == 2
    control(page, "step").press("Home")
    assert status(page).startswith("step 0 of 5 · log-SNR")


def test_what_another_try_cannot_mend_is_not_tried_again(open_page, film):
    page = open_page(before=lambda page: page.add_init_script("delete window.WebAssembly"))
    plays_its_film(page, "WebAssembly is switched off", film)
    assert not control(page, "again").is_visible()


@pytest.mark.parametrize("form", live_model.FORMS)
def test_on_paper_it_is_its_film(open_page, form):
    for scripts in (True, False):
        page = open_page(form, java_script_enabled=scripts)
        assert page.locator(".lm-printed:visible").count() == 0
        page.emulate_media(media="print")
        assert page.locator(".lm-printed img:visible").count() == 1
        shown = page.locator(".live-model *").evaluate_all(
            "all => all.filter(one => one.checkVisibility()).map(one => one.tagName)"
        )
        assert set(shown) == {"DIV", "IMG", "P"}, shown
        assert page.locator(".live-model canvas:visible, .live-model input:visible").count() == 0


def test_with_the_network_cut_it_says_so(open_page):
    page = open_page()
    page.context.set_offline(True)
    control(page, "play").click()
    assert "Its film did not come either" in finished(page, "cannot run here")
    assert heard(page) == status(page)
    assert control(page, "play").text_content() == "▶ Draw"
    page.context.set_offline(False)
    draw_one(page)


def test_once_it_is_here_it_needs_no_network(open_page):
    page = open_page()
    draw_one(page)
    page.context.set_offline(True)
    choose(page, "digit", "3")
    assert draw_one(page).endswith(". 3")


def test_without_scripts_the_film_is_a_picture(open_page):
    page = open_page(java_script_enabled=False, viewport={"width": 360, "height": 740})
    image = page.locator("figure img:visible")
    assert image.get_attribute("alt") == live_model.ALT
    assert 200 < image.bounding_box()["width"] <= 336


# At home on any page


@pytest.mark.parametrize("form", live_model.FORMS)
@pytest.mark.parametrize("width", [320, 360, 900])
def test_nothing_is_wider_than_the_window(open_page, form, width):
    page = open_page(form, viewport={"width": width, "height": 740})
    for count in (1, 7, 10, 16) if form == "whole" else (10,):
        if form == "whole":
            slide(page, "count", count)
        assert page.locator(".lm-tile").count() == count
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("form", live_model.FORMS)
def test_every_control_has_a_name_and_is_reached_by_tab(open_page, form):
    page = open_page(form)
    named = page.evaluate(
        """[...document.querySelectorAll("[data-input]")]
        .map(node => (node.getAttribute("aria-label") || node.labels?.[0]?.textContent || node.textContent).trim())"""
    )
    assert len(named) > 12 and all(named)
    legends = page.locator("fieldset > legend").all_text_contents()
    assert len(legends) == page.locator("fieldset").count() and all(legends)
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.input ?? ''"))
    every = set(
        page.locator("[data-input]:enabled:not([hidden])").evaluate_all(
            "all => all.map(one => one.dataset.input)"
        )
    )
    assert every <= reached
    assert page.locator('[aria-live="polite"]').count() == 1
    assert "Noise" in page.locator('[role="img"]').get_attribute("aria-label")


# On the pages of the book

HTML = ROOT / "_build" / "html"


@pytest.mark.parametrize("form", live_model.FORMS)
@pytest.mark.parametrize("width", [360, 480, 768, 1300])
def test_its_room_is_kept_until_its_script_comes(open_page, form, width):
    page = open_page(form, viewport={"width": width, "height": 800})
    page.locator(".lm-bar").wait_for()
    figure = page.locator(".live-model")
    kept = figure.evaluate("figure => parseFloat(getComputedStyle(figure).minHeight)")
    filled = figure.evaluate("figure => { figure.style.minHeight = 0; return figure.offsetHeight; }")
    assert 0.85 * filled < kept < 1.1 * filled  # the theme adds some margins


@pytest.mark.site
@pytest.mark.skipif(not (HTML / "book" / "index.html").exists(), reason="the book is not built: make site")
def test_the_models_of_the_book_draw(browser):
    pages = [
        path for path in (HTML / "book").glob("*.html") if 'class="live-model"' in path.read_text("utf-8")
    ]
    assert pages
    with headless.served(HTML) as site:
        for path in pages:
            context = browser.new_context(viewport={"width": 360, "height": 740})
            page, asked = context.new_page(), []
            page.set_default_timeout(60_000)
            context.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(f"{site}/book/{path.name}")
            assert not any(
                "/live_model/" in url and url.endswith((".onnx", ".weights", ".gz", ".webp")) for url in asked
            )
            wide = (
                "[...document.querySelectorAll('.live-model')].map(one => one.scrollWidth - one.clientWidth)"
            )
            assert set(page.evaluate(wide)) == {0}
            choose(page, "digit", "any")
            for name, value in (("steps", "5"), ("sampler", "ddim")):
                if control(page, name).count():
                    choose(page, name, value)
            control(page, "play").click()
            finished(page)
            assert all(url.startswith((site, "data:", "blob:")) for url in asked)
            context.close()


if folder := os.environ.get("FIGURE_SHOTS"):

    @pytest.mark.parametrize("form", live_model.FORMS)
    def test_pictures_to_look_at(open_page, form):
        for theme, width in itertools.product(("light", "dark"), (360, 900)):
            page = open_page(form, viewport={"width": width, "height": 700})
            page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
            page.screenshot(path=f"{folder}/live-{form}-{theme}-{width}-0.png", full_page=True)
            control(page, "play").click()
            finished(page, "step 8 of")
            page.screenshot(path=f"{folder}/live-{form}-{theme}-{width}-1.png", full_page=True)
            finished(page)
            page.screenshot(path=f"{folder}/live-{form}-{theme}-{width}-2.png", full_page=True)
