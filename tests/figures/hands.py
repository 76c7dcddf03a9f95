"""What the tests of several figures do: read what one is made of, and move it in the browser and read what it shows."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest

from ddpm_lib.figures import Figure


def stored(figure: Figure) -> dict:
    """What Python gave to the script."""
    return json.loads(re.search(r'const key = "[^"]*", data = (\{.*\});\n', figure.html)[1])


class Tags(HTMLParser):
    """The tags of a page, those still open at its end, and its text without scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if not {"script", "style"} & set(self.open):
            self.text.append(text)


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
