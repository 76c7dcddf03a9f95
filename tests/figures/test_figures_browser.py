"""Interactive figures in Chromium: moved by keyboard and pointer, and what they show compared with Python's numbers."""

from __future__ import annotations

import math
import os
import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_lib import chain as chains
from ddpm_lib import schedule, toy
from ddpm_lib.chain import Chain, rescale_zero_terminal
from ddpm_lib.denoiser import target, to_x0
from ddpm_lib.figures import (
    QUANTITIES,
    Line,
    converter,
    derivation,
    gallery,
    hover_weights,
    network,
    sample_size,
    schedule_designer,
    scrubber,
)
from ddpm_lib.unet import UNet, UNetConfig, anatomy

FRAMES, POINTS = 9, 50
STEPS = [round(100 - 12.5 * i) for i in range(FRAMES)]


def cloud(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed))


TRACKS = {"own noise": cloud(FRAMES, POINTS), "same noise": 0.5 * cloud(FRAMES, POINTS, seed=1)}
IMAGE = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
DATA = toy.shape_points("heart", 80, torch.Generator().manual_seed(0))
CHAIN = schedule.linear(200, 5e-4, 0.1)
TIMES = [0, 1, 20, 60, 120, 200]
LINES = [
    Line(r"\log(a b) = \log a + \log b", "The log of $a b$.", 1.23456789, 1.23456789 * (1 + 9e-7)),
    Line(r"-\log(a b) = -\log a - \log b", "Both sides times $-1$.", 1.5, 1.5 * (1 - 1.2e-6)),
    Line(r"x = " + " + ".join(f"a_{{{i}}}" for i in range(40)), "A line wider than any phone."),
]
# Each set of pictures is grey in a shade of its own.
SHEET_STEPS = [0, 10, 50, 100]
SHEETS = torch.linspace(-1, 1, 8).view(4, 2, 1, 1, 1, 1).expand(4, 2, 6, 1, 12, 12)
SHEET_NUMBERS = {"loss": torch.tensor([[1, 2], [0.5, 0.25], [0.125, 0.1], [torch.nan, 0.05]])}
BODY, BODY_SIZES = UNetConfig(28, 1, 10, 48, (1, 2), 2, (1,), 16, 2), (28, 32, 64)
COUNTS = [150, 300, 600, 1200, 2400]


def measured(scale: float, add: float, seed: int) -> torch.Tensor:
    """(5, 8): a distance measured eight times at each of COUNTS, with a bias of 100 / n."""
    noise = torch.randn(5, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (100 / torch.tensor(COUNTS, dtype=torch.float64)[:, None]) * scale * (1 + 0.08 * noise) + add


MEASURED = {
    "pixels": {"real": measured(1, 0, 0), "blurred": measured(1, 0.3, 1), "no nines": measured(1, 0.01, 2)},
    "network": {"real": measured(2, 0, 3), "blurred": measured(2, 0.1, 4), "no nines": measured(2, 1.0, 5)},
}
FIGURES = {
    "scrubber": lambda: scrubber(TRACKS, STEPS),
    "schedule_designer": lambda: schedule_designer(IMAGE),
    "hover_weights": lambda: hover_weights(DATA, CHAIN, TIMES),
    "derivation": lambda: derivation(LINES),
    "converter": lambda: converter(schedule.flow()),
    "gallery": lambda: gallery(SHEETS, {"step": SHEET_STEPS, "weights": ["raw", "EMA"]}, SHEET_NUMBERS, 3),
    "network": lambda: network(BODY, BODY_SIZES),
    "sample_size": lambda: sample_size(COUNTS, MEASURED),
}
KINDS = sorted(FIGURES)
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>figure</title><style>body {{ margin: 12px; background: #fff; color: #222832 }}
[data-theme="dark"] body {{ background: #14181e; color: #ced6dd }}</style><body>{}</body></html>"""


@pytest.fixture
def open_page(browser):
    """open_page(html, **context) -> a page; at the end no error, no message and no request may have been seen."""
    seen, contexts = [], []

    def opened(html: str, **options):
        contexts.append(browser.new_context(**({"viewport": {"width": 900, "height": 800}} | options)))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url) if ":" in request.url[:12] else None)
        page.clock.install()
        page.set_content(PAGE.format(html))
        later = datetime.now() + timedelta(hours=1)
        page.clock.pause_at(later)  # real time would let the test see how slow the machine is
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [text for text in seen if not re.match("data:image/(png|webp);base64,", text)] == []


@pytest.fixture(scope="module")
def figures():
    made = {}

    def figure(kind: str):
        if kind not in made:
            made[kind] = FIGURES[kind]()
        return made[kind]

    return figure


def shown(page, name: str, at: int = 0) -> float:
    """A number on show, with all its digits; its text must be the same number, to the digits it has."""
    node = page.locator(f'output[data-name="{name}"]').nth(at)
    text, value = node.text_content(), float(node.get_attribute("data-value").replace("Infinity", "inf"))
    read = re.search(r"([−]?[\d.]+)(?: × 10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?", text)
    if read and math.isfinite(value):
        power = (read[2] or "0").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
        assert float(read[1].replace("−", "-")) * 10 ** int(power) == pytest.approx(value, rel=6e-3, abs=1e-9)
    return value


def control(page, name: str, at: int = 0):
    return page.locator(f'[data-input="{name}"]').nth(at)


def choose(page, name: str, value: str):
    page.locator(f'input[type="radio"][data-input="{name}"][value="{value}"]').check()


def pull(page, name: str, share: float):
    """Clicks on a slider at this share of its length."""
    box = control(page, name).bounding_box()
    page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)


# All figures


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_gives_way_to_the_controls(open_page, figures, kind):
    page = open_page(figures(kind).html)
    assert page.locator("figure > img").count() == 0
    assert page.locator(".ddpm-stage").get_attribute("aria-label") == figures(kind).alt
    assert page.locator(".ddpm-stage").bounding_box()["height"] > 100


@pytest.mark.parametrize("kind", KINDS)
def test_without_scripts_the_picture_and_its_text_remain(open_page, figures, kind):
    page = open_page(figures(kind).html, java_script_enabled=False, viewport={"width": 360, "height": 740})
    image = page.locator("figure > img")
    assert image.is_visible() and image.get_attribute("alt") == figures(kind).alt
    assert 100 < image.bounding_box()["width"] <= 336
    assert page.locator(".ddpm-stage").count() == 0


@pytest.mark.parametrize("width", [320, 360, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_wider_than_the_window(open_page, figures, kind, width):
    page = open_page(figures(kind).html, viewport={"width": width, "height": 740})
    if kind == "derivation":
        control(page, "all").click()
    wide = page.evaluate("document.documentElement.scrollWidth") - width
    assert wide <= 0
    sticking_out = page.evaluate(
        """width => [...document.querySelectorAll(".ddpm-stage *")].filter(node => !node.closest(".df-math, svg, .df-line"))
        .filter(node => node.getBoundingClientRect().right > width).map(node => node.outerHTML.slice(0, 80))""",
        width,
    )
    assert sticking_out == []


# How notebooks put HTML on a page: JupyterLab and Colab put a new script in place of each, VS Code adds it to the output.
INSERT = {
    "in place": """(box, old, script) => old.replaceWith(script)""",
    "at the end": """(box, old, script) => { box.append(script); script.remove(); }""",
}


@pytest.mark.parametrize("way", INSERT)
@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_starts_wherever_its_script_is_put(open_page, figures, kind, way):
    page = open_page("<div></div><div></div>")
    page.evaluate(
        """([html, place]) => { for (const box of document.querySelectorAll("div")) {
            box.innerHTML = html;
            for (const old of [...box.querySelectorAll("script")]) {
                const script = document.createElement("script");
                script.textContent = old.textContent;
                eval(place)(box, old, script);
            }
        } }""",
        [figures(kind).html, INSERT[way]],
    )
    assert page.locator("figure").count() == 2 and page.locator("figure > img").count() == 0
    for at in range(2):
        assert page.locator("figure").nth(at).locator("> .ddpm-stage").count() == 1


FIRST = {
    "scrubber": "t",
    "schedule_designer": "T",
    "hover_weights": "t",
    "converter": "t",
    "gallery": "step",
    "network": "part",
    "sample_size": "n of A",
}


@pytest.mark.parametrize("kind", sorted(FIRST))
def test_figures_on_one_page_leave_each_other_alone(open_page, figures, kind):
    page = open_page(figures(kind).html + figures("scrubber").html + figures(kind).html)
    last = page.locator(f'[data-input="{FIRST[kind]}"]').count() - 1
    before = [shown(page, FIRST[kind], at) for at in (0, last)]
    control(page, FIRST[kind], last).press("ArrowRight" if kind in ("scrubber", "gallery") else "ArrowLeft")
    after = [shown(page, FIRST[kind], at) for at in (0, last)]
    assert after[0] == before[0] and after[1] != before[1]
    radios = page.locator('figure:last-of-type input[type="radio"]')
    if radios.count():
        radios.last.check()
        assert page.locator('figure:first-of-type input[type="radio"]').first.is_checked()


@pytest.mark.parametrize("kind", KINDS)
def test_every_control_has_a_name_and_is_reached_by_tab(open_page, figures, kind):
    page = open_page(figures(kind).html)
    named = page.evaluate(
        """[...document.querySelectorAll("[data-input]")].filter(node => node.checkVisibility() && !node.disabled)
        .map(node => (node.getAttribute("aria-label") || node.labels?.[0]?.textContent || node.textContent).trim())"""
    )
    assert named and all(named)
    # Without it JupyterLab, in command mode, keeps arrow keys and Enter for itself.
    assert (
        page.locator("[data-input]").count()
        == page.locator("[data-input][data-lm-suppress-shortcuts]").count()
    )
    legends = page.locator("fieldset > legend").all_text_contents()
    assert len(legends) == page.locator("fieldset").count() and all(legends)
    reached = set()
    for _ in range(len(named) + 3):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.input ?? ''"))
        frame = "(node => node.dataset.input ? getComputedStyle(node).outline : '3px solid')(document.activeElement)"
        assert "3px" in (seen := page.evaluate(frame)) and "solid" in seen
    wanted = page.evaluate(
        """[...document.querySelectorAll("[data-input]")].filter(node => node.checkVisibility() && !node.disabled)
        .map(node => node.dataset.input)"""
    )
    assert set(wanted) <= reached
    assert (
        page.locator('input[type="range"]').count()
        == page.locator('input[type="range"][aria-valuetext]').count()
    )


# The contrast of letters with the page behind them, as WCAG defines it; opacity counts.
CONTRAST = """() => {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const rgb = css => { context.clearRect(0, 0, 1, 1); context.fillStyle = css; context.fillRect(0, 0, 1, 1); return [...context.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const back = rgb(getComputedStyle(document.body).backgroundColor);
  const poor = [];
  for (const node of document.querySelectorAll(".ddpm-figure *")) {
    const text = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    if (!text || !node.checkVisibility() || ["STYLE", "SCRIPT"].includes(node.tagName) || node.closest("[aria-disabled=true], [aria-hidden=true]")) continue;
    let alpha = 1;
    for (let up = node; up; up = up.parentElement) alpha *= getComputedStyle(up).opacity;
    const ink = rgb(getComputedStyle(node)[node instanceof SVGElement ? "fill" : "color"]).map((c, i) => alpha * c + (1 - alpha) * back[i]);
    const [low, high] = [light(ink), light(back)].sort((a, b) => a - b);
    if ((high + 0.05) / (low + 0.05) < 4.5) poor.push(node.outerHTML.slice(0, 90));
  }
  return poor;
}"""


@pytest.mark.parametrize("kind", KINDS)
def test_letters_can_be_read_in_light_and_dark(open_page, figures, kind):
    page = open_page(figures(kind).html)
    if kind == "derivation":
        control(page, "all").click()
    colour = "getComputedStyle(document.querySelector('.ddpm-figure')).getPropertyValue('--data')"
    light = page.evaluate(colour)
    assert page.evaluate(CONTRAST) == []
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.clock.run_for(200)
    assert page.evaluate(colour) != light
    assert page.evaluate(CONTRAST) == []


# The scrubber


def mean_square(name: str, frame: int) -> float:
    return TRACKS[name][frame].double().square().mean().item()


def test_the_scrubber_steps_by_keyboard_and_pointer(open_page, figures):
    page = open_page(figures("scrubber").html)
    slider = control(page, "t")
    assert shown(page, "t") == STEPS[0] and slider.get_attribute("aria-valuetext") == f"t = {STEPS[0]}"
    for frame in (1, 2, 3):
        slider.press("ArrowRight")
        assert shown(page, "t") == STEPS[frame]
        assert shown(page, "mean square") == pytest.approx(mean_square("own noise", frame), rel=1e-4)
    assert slider.get_attribute("aria-valuetext") == f"t = {STEPS[3]}"
    choose(page, "track", "same noise")
    assert shown(page, "mean square") == pytest.approx(mean_square("same noise", 3), rel=1e-4)
    pull(page, "t", 0.5)
    assert shown(page, "t") == STEPS[4]
    assert shown(page, "mean square") == pytest.approx(mean_square("same noise", 4), rel=1e-4)


INK = """canvas => {
  const { width, height } = canvas, copy = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  let ink = 0, x = 0, y = 0, red = 0;
  for (let i = 0; i < width * height; i++) {
    const weight = data[4 * i + 3] / 255;
    ink += weight; x += weight * (i % width + 0.5); y += weight * (Math.floor(i / width) + 0.5); red = Math.max(red, data[4 * i]);
  }
  return [ink, x / ink / width, y / ink / height, red];
}"""


@pytest.mark.parametrize("ratio", [1, 2])
def test_the_scrubber_draws_a_point_where_it_is(open_page, ratio):
    path = torch.tensor([[[-1.0, 1.5]], [[0.5, -0.25]], [[2.0, 0.0]]])
    figure = scrubber({"only": path}, [2, 1, 0], colours=torch.tensor([[1.0, 0.0, 0.0]]), limit=2.5)
    page = open_page(figure.html, device_scale_factor=ratio)
    assert page.locator('input[type="radio"]').count() == 0
    canvas = page.locator("canvas")
    for x, y in path[:, 0].tolist():
        ink, left, top, red = canvas.evaluate(INK)
        assert (left, top) == pytest.approx(((x + 2.5) / 5, (2.5 - y) / 5), abs=0.004) and red > 250
        dot = ink
        control(page, "t").press("ArrowRight")
    assert canvas.evaluate("canvas => canvas.width / canvas.clientWidth") == pytest.approx(ratio, rel=0.01)
    control(page, "paths").check()
    assert canvas.evaluate(INK)[0] > 3 * dot


def test_the_paths_of_the_scrubber_end_where_their_points_are(open_page):
    path = torch.tensor([[[-1.0, 1.5]], [[0.5, -0.25]], [[2.0, 0.0]]])
    page = open_page(scrubber({"only": path}, [2, 1, 0], limit=2.5).html)
    control(page, "paths").check()
    _, left, top, _ = page.locator("canvas").evaluate(INK)
    assert (left, top) == pytest.approx(((-1 + 2.5) / 5, (2.5 - 1.5) / 5), abs=0.004)


GREEN = """canvas => {
  const { width, height } = canvas, copy = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  let most = 0;
  for (let i = 0; i < width * height; i++) if (data[4 * i + 3] === 255) most = Math.max(most, data[4 * i + 1]);
  return most;
}"""


def test_colours_of_points_are_lighter_on_a_dark_page_whoever_made_it_dark(open_page):
    figure = scrubber({"only": torch.zeros(2, 1, 2)}, [1, 0], colours=torch.tensor([[1.0, 0.0, 0.0]]))
    page = open_page(figure.html)
    page.add_style_tag(
        content="@media (prefers-color-scheme: dark) { body { background: #111 !important; color: #ddd !important } }"
    )
    green = lambda: page.locator("canvas").evaluate(GREEN)  # noqa: E731
    assert green() == 0
    for theme, expected in (("dark", 97), ("light", 0)):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        page.clock.run_for(200)
        assert green() == expected
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.querySelector('.ddpm-dark')")
    assert green() == 97


def test_a_hand_on_the_slider_stops_the_film(open_page, figures):
    page = open_page(figures("scrubber").html)
    control(page, "play").click()
    page.clock.run_for(900)
    control(page, "t").press("ArrowRight")
    at = shown(page, "t")
    page.clock.run_for(3000)
    assert shown(page, "t") == at and "play" in control(page, "play").text_content()


def test_the_scrubber_plays_to_the_end_and_again(open_page, figures):
    page = open_page(figures("scrubber").html)
    play = control(page, "play")
    play.press("Enter")
    assert "pause" in play.text_content()
    page.clock.run_for(1500)
    middle = shown(page, "t")
    assert STEPS[-1] < middle < STEPS[0]
    play.click()
    page.clock.run_for(3000)
    assert shown(page, "t") == middle and "play" in play.text_content()
    play.click()
    page.clock.run_for(9000)
    assert shown(page, "t") == STEPS[-1] and "play" in play.text_content()
    play.click()
    page.clock.run_for(1500)
    assert STEPS[-1] < shown(page, "t") < STEPS[0]


def test_who_asks_for_less_motion_sees_few_stills(open_page):
    path = cloud(60, 5)
    page = open_page(scrubber({"a": path}, range(60)).html, reduced_motion="reduce")
    control(page, "play").click()
    page.clock.run_for(900)
    assert shown(page, "t") == 0
    page.clock.run_for(200)
    assert shown(page, "t") == 8


# The schedule designer


def designed(page) -> Chain:
    """The chain that Python makes of what the controls show."""
    family = page.locator('input[data-input="family"]:checked').get_attribute("value")
    steps = int(shown(page, "T"))
    if family == "linear":
        chain = chains.linear(steps, shown(page, "first"), shown(page, "last"))
    elif family == "scaled":
        roots = torch.linspace(
            shown(page, "first") ** 0.5, shown(page, "last") ** 0.5, steps, dtype=torch.float64
        )
        chain = Chain(torch.cat([torch.zeros(1), roots**2]))
    elif family == "cosine":
        chain = chains.cosine(steps, shown(page, "offset"))
    else:
        chain = chains.sigmoid(steps, shown(page, "start"), shown(page, "end"))
    return rescale_zero_terminal(chain) if control(page, "rescale").is_checked() else chain


def agrees(page) -> None:
    bar = designed(page).alpha_bar
    last, middle = float(bar[-1]), float(bar[len(bar) // 2])
    assert shown(page, "signal at T") == pytest.approx(last**0.5, rel=1e-6)
    assert shown(page, "SNR at T") == pytest.approx(last / (1 - last), rel=1e-6)
    assert shown(page, "log-SNR at T/2") == pytest.approx(math.log(middle) - math.log1p(-middle), rel=1e-6)
    for plot, height in enumerate((bar, (torch.log(bar) - torch.log1p(-bar)).clamp(-12, 12))):
        path = page.locator(".df-plot svg").nth(plot).locator("path").nth(1).get_attribute("d")
        drawn = np.array([float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)])
        low, high = (0, 1) if plot == 0 else (-12, 12)
        expected = 8 + (high - height.numpy()) / (high - low) * (190 - 8 - 24)
        assert len(drawn) == len(bar) and np.abs(drawn - expected).max() < 0.006
        # the dots are where the pictures below are taken from
        dots = page.locator(".df-plot svg").nth(plot).locator("circle")
        places = dots.evaluate_all(
            "all => all.map(dot => [+dot.getAttribute('cx'), +dot.getAttribute('cy')])"
        )
        stops = [round(i * (len(bar) - 1) / 7 + 1e-9) for i in range(8)]
        for (x, y), t in zip(places, stops, strict=True):
            assert (x, y) == pytest.approx((40 + t / (len(bar) - 1) * (320 - 48), expected[t]), abs=0.006)
    assert page.locator('[data-name="verdict"].df-warn').count() == (last**0.5 > 0.01)


def test_the_designer_keeps_ddpms_schedule_and_its_axes_beside_the_chosen_one(open_page, figures):
    page = open_page(figures("schedule_designer").html)
    choose(page, "family", "cosine")
    bar = chains.linear(1000, 1e-4, 0.02).alpha_bar
    for plot, (height, low, high) in enumerate(((bar, 0, 1), (torch.logit(bar).clamp(-12, 12), -12, 12))):
        svg = page.locator(".df-plot svg").nth(plot)
        above = lambda y, low=low, high=high: 8 + (high - y) / (high - low) * (190 - 8 - 24)  # noqa: E731
        drawn = re.findall(r"[ML][\d.]+ ([\d.]+)", svg.locator("path").first.get_attribute("d"))
        assert np.abs(np.array(drawn, float) - above(height.numpy())).max() < 0.006
        ticks = svg.locator('text[text-anchor="end"]').evaluate_all(
            "all => all.map(one => [+one.textContent.replace('−', '-'), +one.getAttribute('y') - 4])"
        )
        assert len(ticks) > 2 and all(y == pytest.approx(above(value)) for value, y in ticks)


def test_the_designer_starts_from_ddpm(open_page, figures):
    page = open_page(figures("schedule_designer").html)
    assert [shown(page, name) for name in ("T", "first", "last")] == [1000, 1e-4, 0.02]
    agrees(page)
    assert "0.64 % of the image's amplitude is left" in page.locator('[data-name="verdict"]').text_content()


@pytest.mark.parametrize(
    "family, sliders",
    [
        ("linear", ("T", "first", "last")),
        ("scaled", ("T", "first", "last")),
        ("cosine", ("T", "offset")),
        ("sigmoid", ("T", "start", "end")),
    ],
)
def test_the_designer_agrees_with_the_chain(open_page, figures, family, sliders):
    page = open_page(figures("schedule_designer").html)
    choose(page, "family", family)
    visible = [node.get_attribute("data-input") for node in page.locator('input[type="range"]:visible').all()]
    assert visible == list(sliders)
    agrees(page)
    for name in sliders:
        for move in (lambda n: control(page, n).press("ArrowLeft"), lambda n: pull(page, n, 0.7)):
            before = shown(page, name)
            move(name)
            assert shown(page, name) != before
            agrees(page)
    for key in ("Home", "End"):
        for name in sliders:
            control(page, name).press(key)
        agrees(page)


@pytest.mark.parametrize("family", ["linear", "scaled", "cosine", "sigmoid"])
def test_rescaled_schedules_leave_nothing(open_page, figures, family):
    page = open_page(figures("schedule_designer").html)
    choose(page, "family", family)
    pull(page, "T", 0.4)
    control(page, "rescale").press("Space")
    agrees(page)
    assert shown(page, "signal at T") == 0 == shown(page, "SNR at T")
    assert page.locator('[data-name="verdict"]').text_content() == "Nothing of the image is left at T."


def normal_noise(count: int) -> np.ndarray:
    """The figure's noise: mulberry32 with seed 1, Box and Muller."""
    seed, draws, mask = 1, [], 2**32 - 1
    for _ in range(2 * count):
        seed = (seed + 0x6D2B79F5) & mask
        z = ((seed ^ (seed >> 15)) * (seed | 1)) & mask
        z ^= (z + (((z ^ (z >> 7)) * (z | 61)) & mask)) & mask
        draws.append((z ^ (z >> 14)) / 2**32)
    first, second = np.array(draws).reshape(-1, 2).T
    return np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_designer_s_pictures_are_the_image_under_its_schedule(open_page, channels):
    image = IMAGE[:channels]
    page = open_page(schedule_designer(image).html)
    choose(page, "family", "cosine")
    x0 = image.permute(1, 2, 0).numpy() / 127.5 - 1
    eps = normal_noise(x0.size).reshape(x0.shape)
    assert abs(eps.mean()) < 0.15 and abs(eps.std() - 1) < 0.1
    bar = designed(page).alpha_bar.numpy()
    for i in range(8):
        t = round(i * 1000 / 7)
        canvas = page.locator(f'canvas[data-picture="{i}"]')
        assert canvas.locator("xpath=..").text_content() == f"t = {t}"
        pixels = canvas.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
        drawn = np.array(pixels).reshape(16, 16, 4)
        x_t = np.sqrt(bar[t]) * x0 + np.sqrt(1 - bar[t]) * eps
        assert np.abs(drawn[..., :3] - np.clip((x_t + 1) * 127.5, 0, 255)).max() <= 0.51
        assert (drawn[..., 3] == 255).all()


# The weights of the perfect denoiser


def perfect(page) -> None:
    """What is shown is the posterior of the finite set at the probe and the time shown."""
    probe = torch.tensor([[shown(page, "probe x"), shown(page, "probe y")]], dtype=torch.float64)
    world, time = toy.FiniteSet(DATA), shown(page, "t") / CHAIN.steps
    weights = world.posterior(probe, CHAIN, time)[0]
    mean = world.denoiser(CHAIN)(probe, time)[0]
    entropy = -(weights * weights.log().nan_to_num(neginf=0)).sum()
    assert shown(page, "effective points") == pytest.approx(math.exp(entropy), rel=1e-6)
    assert shown(page, "largest weight") == pytest.approx(weights.max().item(), rel=1e-6)
    assert [shown(page, "mean x"), shown(page, "mean y")] == pytest.approx(mean.tolist(), rel=1e-6, abs=1e-9)
    drawn = page.locator("circle[data-weight]").evaluate_all(
        "all => all.map(c => [+c.dataset.weight, +c.getAttribute('r'), +c.getAttribute('opacity')])"
    )
    drawn = torch.tensor(drawn, dtype=torch.float64)
    torch.testing.assert_close(drawn[:, 0], weights, rtol=1e-6, atol=1e-12)
    assert drawn[weights.argmax(), 1] == drawn[:, 1].max() and drawn[weights.argmax(), 2] == 1
    # and all stands where it is
    limit, (a, s) = max(2.5, 1.25 * DATA.abs().max().item()), CHAIN.signal_noise(time)
    place = lambda xy: torch.stack([200 * (1 + xy[:, 0] / limit), 200 * (1 - xy[:, 1] / limit)], 1)  # noqa: E731
    stands = lambda css, *names: torch.tensor(  # noqa: E731
        page.locator(f".df-plane {css}").evaluate_all(
            "(all, names) => all.map(one => names.map(name => +one.getAttribute(name)))", names
        ),
        dtype=torch.float64,
    )
    off = {"rtol": 0, "atol": 0.02}
    torch.testing.assert_close(stands("circle[data-weight]", "cx", "cy"), place(DATA.double()), **off)
    torch.testing.assert_close(stands('circle[r="1"]', "cx", "cy"), place(float(a) * DATA.double()), **off)
    torch.testing.assert_close(stands('circle[r="8"]', "cx", "cy"), place(probe), **off)
    circle = torch.cat([place(probe), torch.tensor([[200 * float(s) / limit]], dtype=torch.float64)], 1)
    torch.testing.assert_close(stands("circle[stroke-dasharray]", "cx", "cy", "r"), circle, **off)
    ends = torch.cat([place(probe), place(mean[None])], 1)
    torch.testing.assert_close(stands("line", "x1", "y1", "x2", "y2"), ends, **off)
    moved = re.findall(r"[-\d.]+", page.locator(".df-plane path").get_attribute("transform"))
    assert [float(value) for value in moved] == pytest.approx(place(mean[None])[0].tolist(), abs=0.02)


def test_the_weights_are_right_at_every_time(open_page, figures):
    page = open_page(figures("hover_weights").html)
    control(page, "t").press("Home")
    for t in TIMES:
        assert shown(page, "t") == t
        perfect(page)
        a, s = CHAIN.signal_noise(t / CHAIN.steps)
        assert (shown(page, "signal"), shown(page, "noise")) == pytest.approx((float(a), float(s)), rel=1e-9)
        control(page, "t").press("ArrowRight")


def test_the_probe_follows_the_pointer_until_it_is_held(open_page, figures):
    page = open_page(figures("hover_weights").html)
    box = control(page, "probe").bounding_box()
    limit = max(2.5, 1.25 * DATA.abs().max().item())
    for share in ((0.2, 0.3), (0.8, 0.6)):
        page.mouse.move(
            *(box[k] + f * box[size] for k, f, size in zip("xy", share, ("width", "height"), strict=True))
        )
        expected = limit * (2 * share[0] - 1), limit * (1 - 2 * share[1])
        assert (shown(page, "probe x"), shown(page, "probe y")) == pytest.approx(expected, abs=0.03)
        perfect(page)
    page.mouse.down()
    page.mouse.up()
    held = shown(page, "probe x")
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    assert shown(page, "probe x") == held and control(page, "hold").get_attribute("aria-pressed") == "true"
    control(page, "hold").press("Enter")
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    assert shown(page, "probe x") != held


def test_the_probe_moves_by_keyboard_and_stays_in_the_plane(open_page, figures):
    page = open_page(figures("hover_weights").html)
    plane = control(page, "probe")
    x, y = shown(page, "probe x"), shown(page, "probe y")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowDown"):
        plane.press(key)
    assert (shown(page, "probe x"), shown(page, "probe y")) == pytest.approx((x + 0.19, y + 0.09))
    perfect(page)
    for _ in range(40):
        plane.press("ArrowLeft")
    assert shown(page, "probe x") == pytest.approx(-max(2.5, 1.25 * DATA.abs().max().item()), abs=0.05)
    perfect(page)
    page.clock.run_for(600)
    assert "effective points" in page.locator(".df-heard").text_content()


def test_a_tap_puts_the_probe(open_page, figures):
    page = open_page(figures("hover_weights").html, has_touch=True, viewport={"width": 360, "height": 740})
    box = control(page, "probe").bounding_box()
    page.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    assert shown(page, "probe x") < -1 and shown(page, "probe y") > 1
    perfect(page)


# The derivation


def test_a_derivation_is_walked_by_buttons(open_page, figures):
    page = open_page(figures("derivation").html)
    lines = page.locator("[data-line]")
    visible = lambda: [line.is_visible() for line in lines.all()]  # noqa: E731
    back, forth, whole = (control(page, name) for name in ("back", "next", "all"))
    assert visible() == [True, False, False] and back.get_attribute("aria-disabled") == "true"
    forth.click()
    assert visible() == [True, True, False] and shown(page, "line") == 2
    back.click()
    assert visible() == [True, False, False]
    whole.click()
    assert visible() == [True, True, True] and forth.get_attribute("aria-disabled") == "true"
    assert whole.text_content() == "start again"
    # what is wider than the page is set smaller, to a point
    sizes = [line.locator(".df-math").evaluate("node => node.style.fontSize") for line in lines.all()]
    assert sizes == ["", "", "0.8em"]
    whole.click()
    assert visible() == [True, False, False]


def test_a_derivation_is_walked_by_keyboard_and_heard(open_page, figures):
    page = open_page(figures("derivation").html)
    page.keyboard.press("Tab")
    for key, line in (
        ("ArrowDown", 2),
        ("ArrowUp", 1),
        ("ArrowUp", 1),
        ("ArrowRight", 2),
        ("ArrowDown", 3),
        ("ArrowDown", 3),
        ("ArrowLeft", 2),
    ):
        page.keyboard.press(key)
        assert shown(page, "line") == line
        assert page.locator(".df-now").get_attribute("data-line") == f"{line - 1}"
    page.clock.run_for(600)
    said = page.locator(".df-heard").text_content()
    assert said.startswith("line 2 of 3: Both sides times") and "DISAGREE" in said


def test_nothing_is_said_until_something_moves(open_page, figures):
    page = open_page("".join(figures(kind).html for kind in KINDS))
    page.clock.run_for(2000)
    assert "".join(page.locator("div.df-heard").all_text_contents()) == ""
    choose(page, "family", "cosine")
    page.clock.run_for(600)
    assert "amplitude is left" in "".join(page.locator("div.df-heard").all_text_contents())


def test_a_derivation_says_where_the_sides_disagree(open_page, figures):
    page = open_page(figures("derivation").html)
    control(page, "all").click()
    assert page.locator('[data-name="verdict"]').all_text_contents() == ["agree ✓", "DISAGREE ✗"]
    check = page.locator(".df-check").first.text_content()
    assert check == "left side 1.23457, right side 1.23457, agree ✓"
    for i in (0, 1):
        assert (shown(page, "left", i), shown(page, "right", i)) == pytest.approx(
            (LINES[i].left, LINES[i].right), rel=1e-11
        )


def test_formulas_are_drawn_and_what_is_new_is_coloured(open_page, figures):
    page = open_page(figures("derivation").html)
    control(page, "all").click()
    formula = page.locator("[data-line] .df-math math").first.bounding_box()
    assert formula["height"] > 14 and 100 < formula["width"] < 400
    new = page.locator('[data-line="1"] .new')
    assert set(new.all_text_contents()) == {"−"}
    ink = [
        page.evaluate("n => getComputedStyle(n).color", node.element_handle())
        for node in (new.first, page.locator("mi").first)
    ]
    assert ink[0] != ink[1]


# The converter


def five(page) -> dict[str, float]:
    return {name: shown(page, name) for name in ("eps", "x0", "v", "score", "flow")}


def expected_five(one, t, x_t, chosen, value) -> dict[str, float]:
    """By the library, in float64: to x_0, to eps, and from there to all."""
    x_t, value = (torch.tensor([number], dtype=torch.float64) for number in (x_t, value))
    a, s = one.signal_noise(t)
    if chosen == "score":
        chosen, value = "eps", -s * value
    x0 = to_x0(x_t, value, a, s, chosen)
    eps = value if chosen == "eps" else (x_t - a * x0) / s
    every = {name: float(target(x0, eps, a, s, name)) for name in ("eps", "x0", "v", "flow")}
    return every | {"score": float(-eps / s)}


@pytest.mark.parametrize("chosen", ["eps", "x0", "v", "score", "flow"])
@pytest.mark.parametrize("one", [schedule.cosine(1000), schedule.flow()], ids=["vp", "flow"])
def test_the_converter_agrees_with_the_library(open_page, one, chosen):
    page = open_page(converter(one).html)
    kept = five(page)
    choose(page, "chosen", chosen)
    assert five(page) == pytest.approx(kept, rel=1e-9, abs=1e-12)
    pull(page, "x_t", 0.8)
    for share in (0.02, 0.3, 0.9):
        pull(page, "t", share)
        pull(page, "value", 0.6)
        t, x_t, value = shown(page, "t") / (one.steps or 1), shown(page, "x_t"), shown(page, "value")
        expected = expected_five(one, t, x_t, chosen, value)
        assert five(page) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        off = expected_five(one, t, x_t, chosen, value + 0.1)
        for name in expected:
            error = abs(off[name] - expected[name])
            assert shown(page, f"error {name}") == pytest.approx(error, rel=1e-6, abs=1e-9)
            # marker and band lie on a line from -reach to reach
            row = page.locator(f'[data-quantity="{name}"]')
            reach = {"score": 3 / float(one.signal_noise(t)[1]), "flow": 5}.get(name, 3)
            at = lambda y, reach=reach: 50 + 50 * max(-1, min(1, y / reach))  # noqa: E731
            left, right = at(expected[name] - error), at(expected[name] + error)
            lies = row.evaluate(
                """row => [row.querySelector(".df-marker").style.left, row.querySelector(".df-band").style.left,
                row.querySelector(".df-band").style.width].map(parseFloat)"""
            )
            assert lies == pytest.approx([at(expected[name]), left, right - left], abs=0.01)
            off_line = row.locator(".df-off").count() == 1
            assert off_line == (abs(expected[name]) > reach)
            low, high = row.locator(".df-end").all_text_contents()
            assert -float(low.replace("−", "-")) == float(high) == pytest.approx(reach, rel=0.06)
        assert page.locator(".df-chosen").evaluate_all("all => all.map(row => row.dataset.quantity)") == [
            chosen
        ]
        assert control(page, "value").get_attribute("aria-label") == QUANTITIES[chosen][0]


def test_the_converter_says_what_is_undefined_without_signal(open_page, figures):
    page = open_page(figures("converter").html)
    control(page, "t").press("End")
    x_t = shown(page, "x_t")
    assert shown(page, "signal") == 0 and control(page, "value").is_disabled()
    words = {name: page.locator(f'output[data-name="{name}"]').text_content() for name in ("x0", "v", "flow")}
    assert set(words.values()) == {"undefined: signal is 0"}
    assert (shown(page, "eps"), shown(page, "score")) == (x_t, -x_t) and shown(page, "value") == x_t
    assert page.locator('output[data-name="error x0"]').text_content() == "∞"
    assert "signal is 0" in page.locator('[data-name="note"]').text_content()
    # v and the image itself are still worth asking for
    choose(page, "chosen", "v")
    pull(page, "value", 0.3)
    assert all(map(math.isfinite, five(page).values()))
    assert shown(page, "x0") == pytest.approx(-shown(page, "value"), rel=1e-9)
    assert shown(page, "error eps") == 0


def test_the_converter_warns_of_impossible_pixels(open_page, figures):
    page = open_page(figures("converter").html)
    choose(page, "chosen", "x0")
    note = page.locator('[data-name="note"]')
    pull(page, "value", 0.55)
    assert note.text_content() == ""
    pull(page, "value", 0.72)
    assert 1 < shown(page, "x0") < 1.6
    assert "outside [−1, 1]" in note.text_content()


# The network

UNITS = {"thousand": 1e3, "million": 1e6, "billion": 1e9}


def counted(page, name: str) -> int:
    """A count on show, all of it; its text must be the same number in words, to the digits it has."""
    node = page.locator(f'output[data-name="{name}"]')
    number, _, unit = node.text_content().partition(" ")
    value = int(node.get_attribute("data-value"))
    assert float(number) * UNITS.get(unit, 1) == pytest.approx(value, rel=6e-3)
    return value


def told(page, size: int, at: int) -> None:
    """What is shown is what the model says about this part."""
    parts = anatomy(UNet(BODY), size)
    part, text = parts[at], lambda name: page.locator(f'[data-name="{name}"]').text_content()
    assert shown(page, "part") == at + 1
    assert (counted(page, "parameters"), counted(page, "macs")) == (part.parameters, part.macs)
    for name in ("parameters", "macs"):
        whole = sum(getattr(other, name) for other in parts)
        assert counted(page, f"all {name}") == whole
        assert shown(page, f"share of {name}") == pytest.approx(100 * getattr(part, name) / whole)
    if part.kind == "told":
        assert (text("given"), text("made")) == ("log-SNR and label", f"{part.made[0]} numbers")
    else:
        assert text("given") == " × ".join(map(str, part.given))
        assert text("made") == " × ".join(map(str, part.made))
    if part.skip:
        across = next(other for other in parts if other.name == part.skip)
        assert f"joined with {across.made[0]} channels" in text("words")


def test_the_network_tells_each_part_as_the_model_is(open_page, figures):
    page = open_page(figures("network").html)
    plane, count = control(page, "part"), len(anatomy(UNet(BODY)))
    plane.press("Home")
    for at in range(count):
        told(page, 28, at)
        plane.press("ArrowRight")
    told(page, 28, count - 1)
    assert plane.get_attribute("aria-valuenow") == str(count)
    for size, at in ((32, 5), (64, 6), (28, 20)):
        choose(page, "size", str(BODY_SIZES.index(size)))
        plane.press("Home")
        for _ in range(at):
            plane.press("ArrowDown")
        told(page, size, at)
    assert page.locator(".df-grid").all_text_contents() == ["14 × 14", "7 × 7"]


@pytest.mark.parametrize("width", [360, 900])
def test_a_part_of_the_network_is_chosen_by_a_click(open_page, figures, width):
    page = open_page(figures("network").html, viewport={"width": width, "height": 740})
    parts = anatomy(UNet(BODY))
    for at in (0, 1, 6, 12, 22):
        box = page.locator(f'[data-part="{parts[at].name}"] rect').first.bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        told(page, 28, at)
        # its frame is drawn, and the skips that end in it
        frame = page.locator(f'[data-part="{parts[at].name}"] rect').last
        assert frame.get_attribute("stroke-width") == "3.5"
    assert page.locator('.df-part rect[stroke-width="3.5"]').count() == 1


def test_the_network_is_drawn_as_the_model_is(open_page, figures):
    page, parts = open_page(figures("network").html), anatomy(UNet(BODY))
    plane = control(page, "part")
    drawn = page.locator(".df-part").evaluate_all(
        """all => all.map(node => [node.querySelector("text").textContent, node.querySelectorAll("rect")[1].getAttribute("fill"),
        ...["x", "y", "width", "height"].map(name => +node.querySelector("rect").getAttribute(name))])"""
    )
    middles = []
    for part, (text, fill, x, y, width, height) in zip(parts, drawn, strict=True):
        if part.kind == "attention":
            assert text in ("a", "att") and fill == "var(--noise)"
            continue
        assert fill == ("var(--prediction)" if part.kind in ("up", "down") else "var(--data)")
        if part.kind != "told":
            assert text == str(part.made[0])
            middles.append(f"{x + width / 2:.2f} {y + height / 2:.2f}")
    way = re.findall(
        r"([\d.]+) ([\d.]+)", page.locator('.df-network path[opacity="0.45"]').get_attribute("d")
    )
    assert [f"{float(x):.2f} {float(y):.2f}" for x, y in way] == middles
    # the skips of a part that is chosen are thick, at both of their ends
    plane.press("Home")
    for part in parts:
        ends = sum(part.name in (other.name, other.skip) for other in parts if other.skip)
        assert page.locator('.df-network path[stroke-width="3.5"]').count() == ends
        plane.press("ArrowRight")


def test_the_shade_of_the_network_follows_what_is_chosen(open_page, figures):
    page, parts = open_page(figures("network").html), anatomy(UNet(BODY))
    for name in ("macs", "parameters"):
        choose(page, "shade", name)
        drawn = page.locator(".df-part rect[fill-opacity]").evaluate_all(
            "all => all.map(rect => +rect.getAttribute('fill-opacity'))"
        )
        amounts = [getattr(part, name) for part in parts]
        assert drawn == pytest.approx([0.06 + 0.5 * (n / max(amounts)) ** 0.5 for n in amounts], abs=6e-4)


# Sample sizes


def compared(page, look: str, other: str) -> None:
    """The numbers on show are those of the measurements at the two sizes."""
    a, b = (
        MEASURED[look][name][COUNTS.index(int(shown(page, f"n of {letter}")))]
        for letter, name in (("A", "real"), ("B", other))
    )
    for letter, values in (("A", a), ("B", b)):
        assert shown(page, f"value {letter}") == pytest.approx(values.mean().item(), rel=1e-5)
        # values are kept to six digits, and a spread is a difference of them
        assert shown(page, f"spread {letter}") == pytest.approx(2 * values.std().item(), rel=1e-3)
    wrong = 100 * (b[:, None] < a).double().mean().item()
    assert shown(page, "wrong") == pytest.approx(wrong, abs=1e-9)


def test_sample_sizes_agree_with_the_measurements(open_page, figures):
    page = open_page(figures("sample_size").html)
    compared(page, "pixels", "blurred")
    for look, other in (("network", "no nines"), ("pixels", "no nines"), ("network", "blurred")):
        choose(page, "look", look)
        choose(page, "other", other)
        for name, move in (
            ("n of A", "ArrowLeft"),
            ("n of B", "ArrowRight"),
            ("n of A", "End"),
            ("n of B", "Home"),
        ):
            control(page, name).press(move)
            compared(page, look, other)
        pull(page, "n of A", 0.02)
        pull(page, "n of B", 0.98)
        assert (shown(page, "n of A"), shown(page, "n of B")) == (150, 2400)
        compared(page, look, other)


def test_two_numbers_of_pictures_turn_the_order_round(open_page, figures):
    page = open_page(figures("sample_size").html)
    verdict = page.locator('[data-name="verdict"]')
    warned = page.locator('[data-name="verdict"].df-warn')
    assert shown(page, "wrong") == 0 and verdict.text_content() == "A is better than B, and you can see it."
    assert warned.count() == 0
    control(page, "n of A").press("Home")
    control(page, "n of B").press("End")
    assert shown(page, "wrong") == 100 and warned.count() == 1
    assert verdict.text_content() == "B looks better than A, and the two have different n."
    page.clock.run_for(600)
    assert page.locator(".df-heard").text_content() == verdict.text_content()
    choose(page, "other", "no nines")
    control(page, "n of B").press("Home")
    assert verdict.text_content() == "You cannot tell them apart."


@pytest.mark.parametrize("look", MEASURED)
def test_curves_bands_and_axes_are_those_of_the_measurements(open_page, figures, look):
    page = open_page(figures("sample_size").html)
    choose(page, "look", look)
    control(page, "n of B").press("End")
    every = torch.stack(list(MEASURED[look].values())).log10()
    low, high = math.floor(every.min()), math.ceil(every.max())
    above = lambda y: 8 + (high - max(low, math.log10(max(y, 1e-12)))) / (high - low) * (250 - 8 - 38)  # noqa: E731
    right = [56 + math.log(n / 150) / math.log(16) * (420 - 48 - 30) for n in COUNTS]
    svg = page.locator(".ddpm-stage svg")
    corners = lambda path: [float(value) for value in re.findall(r"[\d.]+", path.get_attribute("d"))]  # noqa: E731
    bands, curves = svg.locator('path[opacity="0.22"]').all(), svg.locator('path[fill="none"]').all()
    for name, band, curve in zip(("real", "blurred"), bands, curves, strict=True):
        mean, twice = MEASURED[look][name].mean(1), 2 * MEASURED[look][name].std(1)
        upper, lower = (mean + twice).tolist(), (mean - twice).tolist()
        middle = [value for x, y in zip(right, mean.tolist(), strict=True) for value in (x, above(y))]
        assert corners(curve) == pytest.approx(middle, abs=0.02)
        around = [*zip(right, upper, strict=True), *zip(right[::-1], lower[::-1], strict=True)]
        assert corners(band) == pytest.approx([value for x, y in around for value in (x, above(y))], abs=0.05)
    bar = svg.locator('line[stroke-width="3"]').last
    ends = [float(bar.get_attribute(name)) for name in ("x1", "y1", "y2")]
    assert ends == pytest.approx([right[-1], above(upper[-1]), above(lower[-1])], abs=0.05)
    square = [float(svg.locator("rect").get_attribute(name)) for name in ("x", "y", "width", "height")]
    assert [square[0] + square[2] / 2, square[1] + square[3] / 2] == pytest.approx(middle[-2:], abs=0.02)
    ticks = svg.locator('text[text-anchor="end"]').evaluate_all(
        "all => all.map(one => [+one.textContent, +one.getAttribute('y') - 4])"
    )
    assert len(ticks) == high - low + 1 and all(y == pytest.approx(above(value)) for value, y in ticks)


def test_the_markers_stand_on_the_curves(open_page, figures):
    page = open_page(figures("sample_size").html)
    circle = page.locator(".ddpm-stage svg circle")
    curve = page.locator('.ddpm-stage svg path[fill="none"]').first
    for key, end in (("Home", 0), ("End", -1)):
        control(page, "n of A").press(key)
        corners = [list(map(float, corner.split())) for corner in curve.get_attribute("d")[1:].split("L")]
        assert len(corners) == len(COUNTS)
        middle = [float(circle.get_attribute(name)) for name in ("cx", "cy")]
        assert middle == pytest.approx(corners[end], abs=0.02)


# On the pages of the book, under its theme

HTML = Path(__file__).resolve().parents[2] / "_build" / "html" / "book"
PUT = """html => {
  const box = document.querySelector("article.bd-article");
  box.innerHTML = `<div class="cell"><div class="cell_output"><div class="output text_html">${html}</div></div></div>`;
  for (const old of [...box.querySelectorAll("script")]) {
    const script = document.createElement("script");
    script.textContent = old.textContent;
    old.replaceWith(script);
  }
}"""
built = pytest.mark.skipif(not (HTML / "index.html").exists(), reason="the book is not built: make site")


@pytest.mark.site
@built
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_figures_are_at_home_in_the_theme(browser, figures, width, theme):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((HTML / "index.html").as_uri())
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    before = page.evaluate("document.documentElement.scrollWidth")
    page.evaluate(PUT, "".join(figures(kind).html for kind in KINDS))
    control(page, "all").click()
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= max(width, before)
    assert page.evaluate(CONTRAST) == []
    # The theme has rules for rows, cards and formulas of its own.
    assert page.locator('[data-input="play"]').first.bounding_box()["width"] < 140
    line = page.locator("[data-line]").first
    gap = line.locator("math").first.bounding_box()["x"] - line.bounding_box()["x"]
    assert gap < 30
    page.close()


@pytest.mark.site
@built
def test_every_figure_of_the_book_starts_and_fits(browser):
    paths = [path for path in sorted(HTML.glob("*.html")) if "data-ddpm-figure=" in path.read_text("utf-8")]
    for path in paths:
        page = browser.new_page(viewport={"width": 360, "height": 740})
        page.goto(path.as_uri())
        count = page.locator(".ddpm-figure").count()
        # each waits until it is nearly in view
        for at in range(count):
            page.locator(".ddpm-figure").nth(at).scroll_into_view_if_needed()
            page.locator(".ddpm-figure").nth(at).locator(":scope > .ddpm-stage").wait_for()
        assert page.locator(".ddpm-figure > .ddpm-stage").count() == count > 0, path.name
        wide = "[...document.querySelectorAll('.ddpm-figure')].map(figure => figure.scrollWidth - figure.clientWidth)"
        assert page.evaluate(wide) == [0] * count, path.name
        page.close()


if folder := os.environ.get("FIGURE_SHOTS"):

    @pytest.mark.parametrize("kind", KINDS)
    def test_pictures_to_look_at(open_page, figures, kind):
        for theme in ("light", "dark"):
            for width in (360, 900):
                page = open_page(figures(kind).html, viewport={"width": width, "height": 600})
                page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
                page.clock.run_for(200)
                page.screenshot(path=f"{folder}/{kind}-{theme}-{width}.png", full_page=True)


# The gallery

SHADE = """image => {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  context.drawImage(image, 0, 0, 5, 5, 0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data[0];
}"""


def on_show(page, step: int, weights: int) -> None:
    """The picture, the number and the marker are those of this choice."""
    page.wait_for_function("document.querySelector('.df-picture').complete")
    shade = page.locator(".df-picture").evaluate(SHADE)
    assert shade == pytest.approx(255 * (2 * step + weights) / 7, abs=9)
    assert shown(page, "step") == SHEET_STEPS[step]
    lit = page.locator(".df-plot path").evaluate_all(
        "all => all.map(one => +one.getAttribute('stroke-width'))"
    )
    assert lit == [2.5 if column == weights else 1.2 for column in range(2)]
    loss, marker = SHEET_NUMBERS["loss"][step, weights].item(), page.locator("[data-marker]")
    if math.isnan(loss):
        assert page.locator('output[data-name="loss"]').text_content() == "not measured"
        assert marker.get_attribute("hidden") is not None
        return
    assert shown(page, "loss") == pytest.approx(loss, rel=1e-5)
    place = 8 + SHEET_STEPS[step] / 100 * (260 - 16), 84 - 8 - (loss - 0.05) / 1.95 * (84 - 16)
    drawn = float(marker.get_attribute("cx")), float(marker.get_attribute("cy"))
    assert drawn == pytest.approx(place, abs=0.01) and marker.get_attribute("hidden") is None


def test_the_gallery_is_moved_by_keyboard_and_pointer(open_page, figures):
    page = open_page(figures("gallery").html)
    on_show(page, 0, 0)
    for step in (1, 2, 3):
        control(page, "step").press("ArrowRight")
        on_show(page, step, 0)
    choose(page, "weights", "1")
    on_show(page, 3, 1)
    pull(page, "step", 0.34)
    on_show(page, 1, 1)
    page.clock.run_for(600)
    assert page.locator(".df-heard").text_content() == "step 10, weights EMA, loss 0.250"


def test_a_click_on_the_curve_of_the_gallery_goes_there(open_page, figures):
    page = open_page(figures("gallery").html)
    plot = page.locator(".df-plot svg")
    for share, step in ((0.97, 3), (0.45, 2), (0.12, 1), (0.0, 0)):
        box = plot.bounding_box()
        page.mouse.click(box["x"] + share * box["width"] + 1, box["y"] + box["height"] / 2)
        on_show(page, step, 0)


def test_the_curves_of_the_gallery_are_its_numbers_and_a_pointer_is_dragged_along_them(open_page, figures):
    page = open_page(figures("gallery").html)
    for column, values in enumerate(SHEET_NUMBERS["loss"].T.tolist()):
        path = page.locator(".df-plot path").nth(column).get_attribute("d")
        drawn = [[float(x), float(y)] for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]
        expected = [
            [8 + step / 100 * (260 - 16), 84 - 8 - (value - 0.05) / 1.95 * (84 - 16)]
            for step, value in zip(SHEET_STEPS, values, strict=True)
            if not math.isnan(value)
        ]
        assert np.abs(np.array(drawn) - np.array(expected)).max() < 0.01
    assert page.locator(".df-plot .df-small").text_content() == "from 0.0500 to 2.00"
    box = page.locator(".df-plot svg").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 1, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.97 * box["width"], middle)
    on_show(page, 3, 0)
    page.mouse.up()
    page.mouse.move(box["x"] + 1, middle)
    on_show(page, 3, 0)


def test_the_gallery_plays_to_its_end(open_page, figures):
    page = open_page(figures("gallery").html)
    control(page, "play").press("Enter")
    page.clock.run_for(1500)
    assert 0 < shown(page, "step") < 100
    page.clock.run_for(3000)
    on_show(page, 3, 0)


def test_a_gallery_of_one_axis_in_words_and_of_two_sliders(open_page):
    page = open_page(gallery(SHEETS[:, 0], {"change": ["none", "cosine", "EMA", "flips"]}, start=(2,)).html)
    slider = control(page, "change")
    assert slider.get_attribute("aria-valuetext") == "EMA" and page.locator(".df-plot").count() == 0
    slider.press("Home")
    assert slider.get_attribute("aria-valuetext") == "none"
    page = open_page(gallery(SHEETS, {"scale": [1, 1.5, 2, 4], "digit": [3, 7]}, start=(1, 1)).html)
    assert (shown(page, "scale"), shown(page, "digit")) == (1.5, 7)
    control(page, "digit").press("ArrowLeft")
    assert (shown(page, "scale"), shown(page, "digit")) == (1.5, 3)
    page.wait_for_function("document.querySelector('.df-picture').complete")
    assert page.locator(".df-picture").evaluate(SHADE) == pytest.approx(255 * 2 / 7, abs=9)
