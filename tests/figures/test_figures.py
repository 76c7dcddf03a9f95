"""Interactive figures as Python makes them; tests/figures/test_figures_browser.py moves them in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_lib import figures, schedule
from ddpm_lib.data import load_images
from ddpm_lib.figures import (
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
from ddpm_lib.plotting import COLOURS, image_grid, place_colours
from ddpm_lib.unet import UNet, UNetConfig, anatomy


def cloud(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed))


def picture(channels: int = 3, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (channels, size, size), dtype=torch.uint8, generator=generator)


def samples(*shape: int, count: int = 6, channels: int = 1, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*shape, count, channels, size, size, generator=generator) * 2 - 1


LINES = [
    Line(r"\log(a b) = \log a + \log b", "The log of $a b$.", 1.5, 1.5 + 1e-9),
    Line(r"\log(a b) = \log b + \log a + 0", "Sums commute, 1 < 2.", 1.5, 1.6),
    Line(r"\bar\alpha_t = \prod_{i=1}^{t} \alpha_i", "By definition."),
]
BODY = UNetConfig(16, 3, 10, 8, (1, 2), 2, (1,), 8)
COUNTS = [100, 200, 400]


def draws(scale: float = 1.0) -> torch.Tensor:
    """(3, 5): five measurements at each of COUNTS, falling like one over n."""
    noise = torch.rand(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return scale * (1 + noise) * 100 / torch.tensor(COUNTS)[:, None]


MEASURED = {look: {"real": draws(), "blurred": draws(1.3), "few": draws(2)} for look in ("pixels", "network")}
MAKE = {
    "scrubber": lambda **text: scrubber({"a": cloud(5, 20), "b": cloud(5, 20, seed=1)}, range(5), **text),
    "schedule_designer": lambda **text: schedule_designer(picture(), **text),
    "hover_weights": lambda **text: hover_weights(cloud(30), schedule.linear(50), [0, 1, 25, 50], **text),
    "derivation": lambda **text: derivation(LINES, **text),
    "converter": lambda **text: converter(schedule.cosine(100), **text),
    "gallery": lambda **text: gallery(
        samples(4), {"step": [0, 10, 20, 50]}, {"loss": [1, 0.5, 0.2, 0.1]}, **text
    ),
    "network": lambda **text: network(BODY, (8, 16), **text),
    "sample_size": lambda **text: sample_size(COUNTS, MEASURED, **text),
}
KINDS = sorted(MAKE)


def stored(figure: figures.Figure) -> dict:
    """What Python gave to the script."""
    return json.loads(re.search(r'const key = "[^"]*", data = (\{.*\});\n', figure.html)[1])


class Tags(HTMLParser):
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_is_one_element_that_asks_no_other_host(kind):
    figure = MAKE[kind](alt='a "cat" </script> < b', caption="from $x_0$ to <fog> & back")
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
    figure = MAKE[kind](alt="what it shows")
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
    first = MAKE[kind]()
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "lines.linewidth": 9}):
        torch.manual_seed(5)
        second = MAKE[kind]()
    assert first.html == second.html and first.png == second.png
    assert mpl.rcParams == before


@pytest.mark.parametrize("kind", KINDS)
def test_two_different_figures_have_different_keys(kind):
    keys = [re.search('data-ddpm-figure="(.*?)"', MAKE[kind](alt=alt).html)[1] for alt in ("a", "b")]
    assert keys[0] != keys[1] and all(key.startswith(kind) for key in keys)


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_without_words_or_too_heavy_is_refused(kind, monkeypatch):
    with pytest.raises(ValueError, match="needs alt"):
        MAKE[kind](alt=" ")
    monkeypatch.setattr(figures, "LARGEST_FIGURE", 1000)
    with pytest.raises(ValueError, match=rf"kB of 1: use {figures.LIGHTER[kind]}"):
        MAKE[kind]()


def test_importing_costs_neither_matplotlib_nor_latex2mathml():
    program = "import sys, ddpm_lib.figures; print({'matplotlib', 'PIL', 'latex2mathml', 'IPython'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("name", ["common.js", *(f"{kind}.js" for kind in KINDS)])
def test_no_script_can_end_itself(name):
    source = figures._source(name)
    assert "</" not in source and "<!--" not in source and "// TODO" not in source


def test_the_style_has_the_colours_of_the_book():
    style = figures._style()
    assert "@data@" not in style and all(
        f"--{name}: {COLOURS[name]}" in style for name in ("data", "noise", "prediction")
    )


# The scrubber


def test_the_scrubber_stores_paths_to_a_ten_thousandth():
    tracks = {"own": 1.2 * cloud(7, 40), "</script>": cloud(7, 40, seed=1)}
    figure = scrubber(tracks, range(0, 70, 10), place_colours(tracks["own"][0]))
    data = stored(figure)
    assert data["steps"] == list(range(0, 70, 10)) and list(data["tracks"]) == list(tracks)
    for name, track in tracks.items():
        kept = np.frombuffer(base64.b64decode(data["tracks"][name]), "<i2").reshape(7, 40, 2) * data["scale"]
        assert np.abs(kept - track.numpy()).max() < 1e-4
    assert len(data["colours"]) == 40 and all(re.fullmatch("#[0-9a-f]{6}", tint) for tint in data["colours"])


def test_sixty_steps_of_three_hundred_points_on_two_tracks_are_light_enough():
    points = cloud(60, 300)
    figure = scrubber({"a": points, "b": points}, range(60), place_colours(points[0]))
    assert 200_000 < len(figure.html) < 260_000
    with pytest.raises(ValueError, match=r"takes \d+ kB of 300: use fewer points, steps or tracks"):
        scrubber({"a": cloud(100, 600)}, range(100))


@pytest.mark.parametrize(
    "tracks, steps",
    [
        ({}, []),
        ({"a": cloud(5, 20)}, range(4)),
        ({"a": cloud(5, 20), "b": cloud(5, 21)}, range(5)),
        ({"a": torch.zeros(5, 20, 3)}, range(5)),
    ],
)
def test_the_scrubber_names_shapes_that_do_not_fit(tracks, steps):
    with pytest.raises(ValueError, match=r"\(S, N, 2\)"):
        scrubber(tracks, steps)


def test_the_scrubber_refuses_other_slips():
    with pytest.raises(ValueError, match=r"colours must be \(20, 3\)"):
        scrubber({"a": cloud(5, 20)}, range(5), colours=torch.zeros(5, 3))
    with pytest.raises(ValueError, match="finite"):
        scrubber({"a": torch.full((5, 20, 2), torch.nan)}, range(5))


# The others


@pytest.mark.parametrize("channels, size", [(1, 28), (3, 64)])
def test_the_schedule_designer_keeps_the_picture_as_it_is(channels, size):
    image = picture(channels, size)
    data = stored(schedule_designer(image))
    kept = np.frombuffer(base64.b64decode(data["image"]), np.uint8).reshape(size, size, channels)
    assert np.array_equal(kept, image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("image", [picture()[0], picture(size=65), picture().float(), picture()[:2]])
def test_the_schedule_designer_refuses_what_is_no_small_picture(image):
    with pytest.raises(ValueError, match="uint8"):
        schedule_designer(image)


@pytest.mark.parametrize("one, steps", [(schedule.linear(50), [1, 50]), (schedule.flow(), [0.001, 0.5, 1.0])])
def test_hover_weights_stores_points_and_scales(one, steps):
    points = cloud(30)
    data = stored(hover_weights(points, one, steps))
    assert np.array_equal(np.frombuffer(base64.b64decode(data["points"]), "<f4").reshape(30, 2), points)
    a, s = one.signal_noise(torch.tensor(steps, dtype=torch.float64) / (one.steps or 1))
    assert data["signal"] == pytest.approx(a.tolist(), rel=1e-11) and data["noise"] == pytest.approx(
        s.tolist(), rel=1e-11
    )
    assert data["times"] == steps


def test_hover_weights_names_slips():
    with pytest.raises(ValueError, match="N from 1 to 400"):
        hover_weights(cloud(401), schedule.linear(50), [1])
    with pytest.raises(ValueError, match="finite"):
        hover_weights(torch.full((5, 2), torch.inf), schedule.linear(50), [1])
    with pytest.raises(ValueError, match=r"whole numbers in 0\.\.50"):
        hover_weights(cloud(5), schedule.linear(50), [51])
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\]"):
        hover_weights(cloud(5), schedule.flow(), [2])
    with pytest.raises(ValueError, match="at least one"):
        hover_weights(cloud(5), schedule.flow(), [])


def test_a_derivation_marks_what_is_new_and_keeps_the_numbers():
    lines = stored(derivation(LINES))["lines"]
    new = [re.findall(r'class="new"[^>]*>([^<]*)<', line["math"]) for line in lines]
    # The second line swaps a and b and adds 0; the third is another formula.
    assert new[0] == [] and "0" in new[1] and len(new[1]) < 8 and new[2] == []
    assert (lines[0]["left"], lines[0]["right"]) == (1.5, 1.5 + 1e-9) and "left" not in lines[2]
    assert "1 &lt; 2" in lines[1]["words"] and "<math" in lines[0]["words"]


@pytest.mark.parametrize(
    "tex",
    [
        r"\mathbb{E}_q\left[\log\frac{q(x_{1:T}\mid x_0)}{p_\theta(x_{0:T})}\right]",
        r"D_{\mathrm{KL}}\big(q(x_T\mid x_0)\,\|\,p(x_T)\big) \ge 0",
        r"\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0, \qquad \varepsilon \sim \mathcal N(0, I)",
        r"\underbrace{\sum_{t>1} L_{t-1}}_{\text{denoising}} + \int \hat\varepsilon \, \mathrm{d}x \propto \left\|x\right\|^2",
        r"\tfrac12 \lVert x \rVert_2^2 \le \operatorname{Var}[x]",
        r"f(x) = \left\{ x^2 \right. \quad \max_x f \ge \log x",
    ],
)
def test_the_latex_of_the_book_becomes_mathml(tex):
    mathml = figures._mathml(tex)
    Tags(mathml)
    assert mathml.startswith("<math") and "\\" not in mathml


@pytest.mark.parametrize(
    "tex", [r"\begin{aligned} a &= b \end{aligned}", r"a \\ b", r"\frac{a", r"\nonsense x"]
)
def test_latex_that_cannot_be_shown_is_refused(tex):
    with pytest.raises(ValueError, match="one line|cannot convert"):
        derivation([Line(tex, "")])


def test_lines_name_slips():
    with pytest.raises(ValueError, match="at least one Line"):
        derivation([])
    with pytest.raises(ValueError, match="both sides"):
        Line("a", "", left=1.0)
    with pytest.raises(ValueError, match="finite"):
        Line("a", "", float("nan"), 1.0)


def test_the_converter_stores_the_library_s_definitions():
    one = schedule.flow()
    data = stored(converter(one))
    assert list(data["quantities"]) == ["eps", "x0", "v", "score", "flow"]
    a, s = (values.numpy() for values in one.signal_noise(torch.tensor(data["times"], dtype=torch.float64)))
    assert data["times"][-1] == 1.0 and data["signal"][-1] == 0.0
    expected = {"eps": (0, 1), "x0": (1, 0), "v": (-s, a), "score": (0, -1 / s), "flow": (-1, 1)}
    for name, (p, q) in expected.items():
        assert np.allclose(data["quantities"][name]["p"], p, rtol=1e-11)
        assert np.allclose(data["quantities"][name]["q"], q, rtol=1e-11)


def opened(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


@pytest.mark.parametrize("name, most", [("mnist", 4.3), ("cifar10", 9)])
def test_the_gallery_keeps_each_picture_in_its_place(name, most):
    images = load_images(name, "test").images[:36].unflatten(0, (3, 2, 6))
    data = stored(gallery(images, {"step": [1, 2, 5], "weights": ["raw", "EMA"]}, columns=3))
    assert data["axes"] == [
        {"name": "step", "labels": [1, 2, 5]},
        {"name": "weights", "labels": ["raw", "EMA"]},
    ]
    for i, address in enumerate(data["pictures"]):
        grid = image_grid(images[i // 2, i % 2], 3, 1).numpy().astype(int)
        away = np.abs(opened(address) - grid)
        assert away.mean() < most and (name == "cifar10" or away.max() <= 8)


def test_the_gallery_keeps_numbers_and_where_there_are_none():
    data = stored(
        gallery(samples(3), {"scale": [0.5, 1, 4]}, {"as asked": torch.tensor([0.25, torch.nan, 1])})
    )
    assert data["numbers"] == {"as asked": [0.25, None, 1]} and data["at"] == [0]
    two = stored(
        gallery(
            samples(2, 3),
            {"a": [1, 2], "b": ["x", "y", "z"]},
            {"n": torch.arange(6.0).view(2, 3)},
            start=(1, 2),
        )
    )
    assert two["numbers"] == {"n": [0, 1, 2, 3, 4, 5]} and two["at"] == [1, 2]


def test_a_thousand_digits_are_light_enough():
    digits = load_images("mnist").images[:1000].view(20, 50, 1, 28, 28)
    assert len(gallery(digits, {"step": range(20)}, columns=10).html) < figures.LARGEST_FIGURE


@pytest.mark.parametrize(
    "shape, axes, more, message",
    [
        ((3,), {"a": [1, 2]}, {}, r"\(A, N, C, H, W\)"),
        ((3,), {"a": [1, 2, 3], "b": [1]}, {}, r"\(A, N, C, H, W\)"),
        ((3,), {}, {}, "with one axis"),
        ((3,), {"a": [1, 2, 3]}, {"numbers": {"loss": [1, 2]}}, r"numbers must be \(3,\).*'loss': \(2,\)"),
        ((3,), {"a": [1, 2, 3]}, {"start": (3,)}, "start must be a place"),
        ((2, 2), {"a": [1, 2], "b": [1, 2]}, {"start": (1,)}, "start must be a place"),
    ],
)
def test_the_gallery_names_slips(shape, axes, more, message):
    with pytest.raises(ValueError, match=message):
        gallery(samples(*shape), axes, **more)


@pytest.mark.parametrize("config", [BODY, UNetConfig(16, 1, 0, 8, (1, 1, 2, 2), 1, (), 8)])
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


@pytest.mark.parametrize("config", [BODY, UNetConfig(16, 1, 0, 8, (1, 1, 2, 2), 3, (0, 1, 2, 3), 8)])
def test_no_box_of_the_network_covers_another(config):
    data = stored(network(config, (16,)))
    boxes = torch.tensor([part["box"] for part in data["parts"]])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 0] + boxes[:, 2] <= data["width"] + 1e-6).all()
    assert (boxes[:, 1] + boxes[:, 3] <= data["height"] + 1e-6).all()
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    cover = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(2)
    assert torch.equal(cover, torch.eye(len(boxes), dtype=torch.bool))


def test_the_network_refuses_sizes_that_it_cannot_take():
    with pytest.raises(ValueError, match="image size 9 .*resize"):
        network(BODY, (8, 9))
    with pytest.raises(ValueError, match="at least one size"):
        network(BODY, ())


def test_the_sample_sizes_are_stored_to_six_digits():
    data = stored(sample_size(COUNTS, MEASURED))
    assert data["counts"] == COUNTS and data["sets"] == ["real", "blurred", "few"]
    assert list(data["looks"]) == ["pixels", "network"]
    for look, each in MEASURED.items():
        for name, values in each.items():
            assert np.allclose(data["looks"][look][name], values, rtol=1e-5)


def test_the_sample_sizes_name_slips():
    with pytest.raises(ValueError, match="two at least"):
        sample_size(COUNTS, {"pixels": {"real": draws()}})
    with pytest.raises(ValueError, match="the same sets"):
        sample_size(COUNTS, MEASURED | {"other": {"real": draws(), "else": draws(), "few": draws()}})
    with pytest.raises(ValueError, match=r"\(K, R\) with K = 2"):
        sample_size(COUNTS[:2], MEASURED)
    with pytest.raises(ValueError, match="must rise"):
        sample_size([100, 400, 200], MEASURED)
    with pytest.raises(ValueError, match="above 0"):
        sample_size(COUNTS, {"pixels": {"real": draws(), "blurred": draws() - 1}})
