"""Pictures: what the pixels are, not only that there are some."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_lib import plotting, schedule
from ddpm_lib.device import best_device
from ddpm_lib.plotting import (
    COLOURS,
    animate,
    draw_points,
    image_grid,
    place_colours,
    plot_points,
    plot_schedules,
    save_grid,
    setup,
    show_images,
    show_steps,
)


@pytest.fixture
def plt():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    before = plt.rcParams.copy()
    yield plt
    plt.close("all")
    plt.rcParams.update(before)


def picture(level: int = 255, size: int = 40) -> torch.Tensor:
    return torch.full((size, size, 3), level, dtype=torch.uint8)


def test_importing_costs_neither_matplotlib_nor_pillow():
    program = "import sys, ddpm_lib.plotting; print({'matplotlib', 'PIL', 'torchvision'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


def test_setup_makes_runs_repeat_and_shows_nothing(plt, capsys):
    draws = []
    for _ in range(2):
        assert setup(seed=3) is None
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))  # noqa: NPY002
    threads = torch.get_num_threads()
    assert draws[0] == draws[1]
    setup(seed=4)
    assert torch.rand(()).item() != draws[0][2]
    assert torch.get_num_threads() == threads
    assert plt.rcParams["figure.dpi"] == 96
    assert capsys.readouterr().out == ""


def test_best_device_is_one_that_works():
    assert torch.ones(1, device=best_device()).item() == 1


@pytest.mark.parametrize("columns, shape", [(None, (16, 24)), (1, (38, 7)), (3, (16, 24)), (9, (5, 41))])
def test_image_grid_has_the_size_of_its_parts(columns, shape):
    # 5 images of 5 x 7 pixels, 2 pixels between: by default 3 columns, 2 rows
    grid = image_grid(torch.zeros(5, 1, 5, 7), columns)
    rows_columns = {None: (2, 3), 1: (5, 1), 3: (2, 3), 9: (1, 5)}[columns]
    expected = tuple(n * side + (n - 1) * 2 for n, side in zip(rows_columns, (5, 7), strict=True))
    assert grid.shape == (*expected, 3) and grid.dtype == torch.uint8


def test_image_grid_puts_each_pixel_in_its_place():
    images = torch.randint(
        0, 256, (5, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    grid = image_grid(images, columns=2, padding=3)
    for index in range(5):
        top, left = index // 2 * 7, index % 2 * 9
        assert grid[top : top + 4, left : left + 6].equal(images[index].permute(1, 2, 0))
    assert (grid[:, 6:9] == 255).all() and (grid[4:7] == 255).all() and (grid[14:, 9:] == 255).all()


def test_image_grid_scales_floats_and_clips():
    values = torch.tensor([-9.0, -1, 0, 1, 9]).view(5, 1, 1, 1)
    assert image_grid(values, 5, padding=0)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_image_grid_leaves_its_input_alone():
    images = torch.full((2, 1, 3, 3), 0.5, requires_grad=True)
    image_grid(images)
    assert (images == 0.5).all()


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 2, 4, 4), (0, 1, 4, 4)])
def test_image_grid_names_bad_shapes(shape):
    with pytest.raises(ValueError, match="N, C, H, W"):
        image_grid(torch.zeros(shape))
    with pytest.raises(ValueError, match="columns"):
        image_grid(torch.zeros(2, 1, 4, 4), columns=0)


def test_save_grid_writes_the_grid_and_nothing_else(tmp_path):
    images = torch.rand(6, 3, 8, 8) * 2 - 1
    path = save_grid(images, tmp_path / "new" / "grid.png", columns=3)
    assert np.array_equal(np.asarray(Image.open(path)), image_grid(images, 3).numpy())
    assert os.listdir(path.parent) == ["grid.png"]


def test_save_grid_keeps_the_old_file_when_it_cannot_write(tmp_path, monkeypatch):
    path = save_grid(torch.zeros(1, 1, 4, 4), tmp_path / "grid.png")
    before = path.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(plotting.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_grid(torch.ones(1, 1, 4, 4), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["grid.png"]


def test_save_grid_needs_no_matplotlib(tmp_path):
    program = (
        "import sys, torch; sys.modules['matplotlib'] = None\n"
        "from ddpm_lib.plotting import save_grid; save_grid(torch.zeros(2, 1, 4, 4), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "grid.png")], check=True)


def test_show_images_draws_the_grid_and_its_titles(plt):
    images = torch.rand(6, 1, 28, 28) * 2 - 1
    show_images(images, columns=3)
    assert np.array_equal(plt.gca().images[0].get_array(), image_grid(images, 3, padding=2).numpy())
    show_images(images, columns=3, titles=list("abcdef"))
    texts = plt.gca().texts
    assert [text.get_text() for text in texts] == list("abcdef")
    assert texts[4].get_position()[1] > texts[1].get_position()[1]
    assert texts[4].get_position()[0] == texts[1].get_position()[0]


def test_show_steps_has_a_row_for_each_image(plt):
    steps = [torch.full((2, 1, 14, 14), value) for value in (-1.0, 0.0, 1.0)]
    show_steps(steps, titles=["a", "b", "c"])
    grid = plt.gca().images[0].get_array()
    assert grid.shape[0] == 2 * 14 + 1 and grid.shape[1] == 3 * 14 + 2
    assert [grid[20, column, 0] for column in (5, 20, 35)] == [0, 128, 255]


@pytest.mark.parametrize("titles", [None, list("abcdef")])
def test_rows_are_named_at_their_left(plt, titles):
    images = torch.zeros(6, 1, 28, 28)
    show_images(images, columns=3, titles=titles, rows=["up", "low"])
    up, low = (text for text in plt.gca().texts if text.get_text() in ("up", "low"))
    grid = plt.gca().images[0].get_array()
    for text, top in ((up, 0), (low, grid.shape[0] - 28)):
        assert text.get_position()[0] < 0 and text.get_position()[1] == pytest.approx(top + 14, abs=0.5)
    show_steps([images[:2]] * 4, rows=["one", "two"])
    assert [text.get_position()[1] for text in plt.gca().texts] == [14, 28 + 2 + 14]


def test_plot_schedules_draws_the_scales(plt):
    schedules = schedule.linear(50), schedule.flow()
    plot_schedules(*schedules)
    for ax, one in zip(plt.gcf().axes, schedules, strict=True):
        signal, noise = ax.lines
        assert signal.get_color() == COLOURS["data"] and noise.get_color() == COLOURS["noise"]
        middle = one.signal_noise(0.5)
        assert (signal.get_ydata()[200], noise.get_ydata()[200]) == pytest.approx(tuple(map(float, middle)))
    assert plt.gcf().axes[0].lines[0].get_xdata()[-1] == 50


def test_plot_points_draws_what_it_is_given(plt):
    cloud = torch.randn(30, 2)
    plot_points([cloud, cloud + 1, cloud - 1], titles=list("abc"), colour=place_colours(cloud))
    axes = plt.gcf().axes
    assert [ax.get_title() for ax in axes] == list("abc")
    assert np.allclose(axes[1].collections[0].get_offsets(), cloud + 1)


def test_place_colours_are_colours():
    colours = place_colours(torch.randn(20, 2))
    assert colours.shape == (20, 3) and 0 <= colours.min() and colours.max() <= 1
    assert place_colours(torch.zeros(3, 2)).isfinite().all()


def test_draw_points_puts_a_dot_where_the_point_is():
    frame = draw_points(torch.tensor([[1.5, 1.5], [9.0, 0.0]]), size=100, limit=3.0)
    rows, columns = (frame != 255).any(2).nonzero().unbind(1)
    # up and to the right; the point outside leaves no mark
    assert abs(rows.float().mean() - 25) < 1 and abs(columns.float().mean() - 75) < 1
    assert tuple(frame[25, 75].tolist()) == tuple(int(COLOURS["data"][i : i + 2], 16) for i in (1, 3, 5))


def test_a_film_holds_its_frames_and_asks_no_other_host():
    frames = [picture(level) for level in (0, 120, 255)]
    film = animate(frames, ["t = 2", "t = 1", "</script>"], alt='a "grey" square', caption="x < y")
    bundle = film._repr_mimebundle_()
    page = bundle["text/html"]
    assert "http" not in page and "import" not in page
    assert 'alt="a &quot;grey&quot; square"' in page and "x &lt; y" in page
    assert page.count("</script>") == 1
    stored = json.loads(re.search(r"const frames = (\[.*?\]), captions", page)[1])
    for uri, frame in zip(stored, frames, strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")
        assert abs(np.asarray(shown, dtype=int) - frame.numpy()).max() <= 2
    still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert still.size == (3 * 20 + 2 * 2, 20)
    assert f'src="data:image/png;base64,{bundle["image/png"]}"' in page


def test_a_film_is_the_same_each_time():
    frames = [picture(level) for level in (0, 255)]
    assert animate(frames, ["a", "b"], "alt").html == animate(frames, ["a", "b"], "alt").html


def test_a_film_that_is_too_heavy_or_wrong_is_refused():
    noise = torch.randint(0, 256, (400, 400, 3), dtype=torch.uint8)
    with pytest.raises(ValueError, match="kB of 300"):
        animate([noise] * 12, ["t"] * 12, "noise")
    with pytest.raises(ValueError, match="one caption for each frame"):
        animate([picture()], [], "nothing")
