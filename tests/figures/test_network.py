"""The network: what it stores and refuses, and what the browser shows against the model's."""

from __future__ import annotations

import re

import pytest
import torch

from ddpm_lib.figures import network
from ddpm_lib.unet import UNet, UNetConfig, anatomy

from .examples import BODY, BODY_SIZES
from .hands import choose, control, shown, stored

SMALL = UNetConfig(16, 3, 10, 8, (1, 2), 2, (1,), 8)


@pytest.mark.parametrize("config", [SMALL, UNetConfig(16, 1, 0, 8, (1, 1, 2, 2), 1, (), 8)])
def test_the_network_stores_what_the_model_says(config):
    data = stored(network(config, (16, 32)))
    assert data["sizes"] == [16, 32] and data["start"] == 0
    for at, size in enumerate((16, 32)):
        parts = anatomy(UNet(config), size)
        assert [part["name"] for part in data["parts"]] == [part.name for part in parts]
        for kept, part in zip(data["parts"], parts, strict=True):
            assert (kept["parameters"], kept["macs"][at]) == (part.parameters, part.macs)
            assert (kept["given"][at], kept["made"][at]) == (list(part.given), list(part.made))
        for level, row in enumerate(data["rows"]):
            assert row["sides"][at] == size >> level
    assert {(way["from"], way["to"]) for way in data["skips"]} == {(p.skip, p.name) for p in parts if p.skip}


@pytest.mark.parametrize("config", [SMALL, UNetConfig(16, 1, 0, 8, (1, 1, 2, 2), 3, (0, 1, 2, 3), 8)])
def test_no_box_of_the_network_covers_another(config):
    data = stored(network(config, (16,)))
    boxes = torch.tensor([part["box"] for part in data["parts"]])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 0] + boxes[:, 2] <= data["width"] + 1e-6).all()
    assert (boxes[:, 1] + boxes[:, 3] <= data["height"] + 1e-6).all()
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    cover = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(2)
    assert torch.equal(cover, torch.eye(len(boxes), dtype=torch.bool))


def test_the_network_refuses_sizes_that_it_cannot_take():
    with pytest.raises(ValueError, match="image.size 1 "):
        network(SMALL, (8, 1))
    with pytest.raises(ValueError, match="at least one size"):
        network(SMALL, ())


# In the browser

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
