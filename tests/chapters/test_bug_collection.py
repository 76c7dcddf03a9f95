"""The bug collection: every cell runs, every check fails its bug and passes its cure, and the cures are the library's."""

from __future__ import annotations

import re
import time

import nbformat
import pytest
import torch
from conftest import cells_of, close, f64

from ddpm_lib import chain, checkpoint, denoiser, layers, sampling, schedule, training
from ddpm_lib.plotting import setup
from ddpm_lib.toy import MLP
from ddpm_lib.training import min_snr

ENTRIES = range(1, 17)


@pytest.fixture(scope="module")
def cells() -> dict[str, nbformat.NotebookNode]:
    return cells_of("bug_collection")


@pytest.fixture(scope="module")
def page(cells) -> dict:
    """What the cells leave behind; `reports` has what each entry handed to `report`, `printed` what it said."""
    import matplotlib.pyplot as plt

    names: dict = {"reports": {n: [] for n in ENTRIES}, "printed": {n: [] for n in ENTRIES}}
    plt.switch_backend("agg")
    with plt.rc_context():
        setup()
        exec(cells["tools"].source, names)
        report, entry = names["report"], 0

        def noted(check, bug, cure):
            names["reports"][entry].append((check, bug, cure))
            report(check, bug, cure)

        names["report"] = noted
        names["print"] = lambda *words: names["printed"][entry].append(" ".join(map(str, words)))
        began = time.process_time()
        for cell in cells.values():
            if cell.cell_type == "code" and cell.id not in ("setup", "tools"):
                entry = int(cell.id.split("-")[1])
                exec(cell.source, names)
                plt.close("all")
        names["seconds"] = time.process_time() - began
    return names


def test_there_are_sixteen_entries_of_five_parts_and_the_misprint_is_the_first(cells):
    text = "\n".join(cell.source for cell in cells.values() if cell.cell_type == "markdown")
    titles = re.findall(r"^## (\d+)\. (.*)$", text, re.MULTILINE)
    assert [int(number) for number, _ in titles] == list(ENTRIES)
    assert titles[0][1] == "The misprint"
    entries = re.split(r"^## .*$", text, flags=re.MULTILINE)[1:17]
    for entry in entries:
        for part in ("Symptom", "Hunt", "Check", "Cure", "Found in"):
            assert len(re.findall(rf"\*\*{part}\.?\*\*", entry)) == 1, f"{part} in {entry[:60]}"


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_check_fails_its_bug_and_passes_its_cure(page, entry):
    reports = page["reports"][entry]
    assert reports
    for check, bug, cure in reports:
        assert check(bug) is False
        assert check(cure) is True


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_page_says_so(page, cells, entry):
    expected = ["bug   FAILS", "cure  ok"] * len(page["reports"][entry])
    assert page["printed"][entry][-len(expected) :] == expected
    stored = "".join(output.get("text", "") for output in cells[f"bug-{entry}-check"].outputs)
    assert stored.splitlines() == expected


def test_all_cells_take_less_than_a_minute(page):
    assert page["seconds"] < 60


# --- the cures are what the library does, and the numbers are what theory says


def test_entries_1_and_2_noise_like_the_chain(page):
    x0, eps = torch.randn(2, 5, 3)
    for t in (1, 500, 1000):
        close(page["noising"](x0, t, eps), chain.linear(1000).add_noise(x0, t, eps), 1e-6)
    for wrong in (page["misprint"], page["rootless"]):
        assert not page["keeps_variance"](wrong) and not page["noise_has_its_size"](wrong)
    assert page["keeps_variance"](page["noising"]) and page["noise_has_its_size"](page["noising"])


def test_entry_3_what_is_left_of_the_amplitude(page):
    left = [page[name].alpha_bar[-1].sqrt().item() for name in ("copied", "rescaled")]
    assert left == pytest.approx([0.364, 0.0055], abs=5e-4)
    shares = [int(line.split()[-4]) for line in page["printed"][3] if line.endswith("near 1")]
    assert shares[0] == 80 and shares[1] < 77 and abs(shares[2] - 80) <= 2


def test_entry_4_keeps_variance_and_is_wrong_all_the_same(page):
    # "The check of entry 1 says ok here"
    bar = page["squared_twice"](torch.tensor([0.5])).item()
    close(page["cosine"](torch.tensor([0.5])), schedule.cosine().signal_noise(0.5)[0] ** 2, 1e-6)
    assert bar == pytest.approx(page["cosine"](torch.tensor([0.5])).item() ** 2, abs=1e-6)
    assert page["keeps_variance"](
        lambda x0, t, eps: (
            page["squared_twice"](torch.tensor(t / 1000)).sqrt() * x0
            + (1 - page["squared_twice"](torch.tensor(t / 1000))).sqrt() * eps
        )
    )


def test_entry_5_the_grain_has_the_size_of_beta_1(page):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20_000, generator=generator, dtype=torch.float64)
    end = page["grainy"](page["two_points"], x, generator)
    variance = (end - end.sign()).var().item()
    assert abs(variance - 0.002) < 4 * 0.002 * (2 / 20_000) ** 0.5


def test_entry_5_draws_as_the_chain_does(page):
    """Every x on the way is the one of Chain.step, from the noise that the guess implies."""
    x, asked = torch.randn(6, generator=torch.Generator().manual_seed(2), dtype=torch.float64), []

    def spy(x, bar):
        asked.append(x.clone())
        return page["two_points"](x, bar)

    end = page["draw"](spy, x.clone(), torch.Generator().manual_seed(3))
    short, generator = page["short"], torch.Generator().manual_seed(3)
    for t, ours in zip(range(50, 0, -1), asked, strict=True):
        close(ours, x, 1e-9)
        z = torch.randn(6, generator=generator, dtype=torch.float64)
        bar = short.alpha_bar[t]
        eps = (x - bar.sqrt() * page["two_points"](x, bar)) / (1 - bar).sqrt()
        x = short.step(x, eps, t, z)
    close(end, x, 1e-9)


def test_entry_6_is_the_loop_of_entry_5_in_other_tables(page):
    x = torch.randn(6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ends = {}
    for name in ("draw", "goes_to_the_end", "stops_early"):
        ends[name] = page[name](page["two_points"], x.clone(), torch.Generator().manual_seed(3))
    close(ends["goes_to_the_end"], ends["draw"], 1e-9)
    assert (ends["stops_early"].abs() - 1).abs().max() > 1e-4


def test_entry_7_half_the_contrast_is_log_4(page):
    data = page["digits"]
    assert page["bright"].var().item() == pytest.approx(data.var().item() / 4, rel=1e-5)
    assert [line for line in page["printed"][7] if "median" in line] == ["median pixel: 0.0"]


def test_entry_8_the_true_score_has_the_least_loss(page):
    losses = [float(line.split()[-1]) for line in page["printed"][8] if "loss" in line]
    assert losses[0] > 10 * losses[1]


def test_entry_9_is_the_librarys_weight(page):
    logsnr = torch.linspace(-8, 8, 33, dtype=torch.float64)
    library = min_snr(5.0, denoiser.Denoiser(lambda x, *_: x, schedule.linear(), "v"))
    close(page["for_v"](logsnr.exp()), library(logsnr), 1e-9)
    # for a network that predicts noise the line was right
    library = min_snr(5.0, denoiser.Denoiser(lambda x, *_: x, schedule.linear(), "eps"))
    close(page["kept_from_eps"](logsnr.exp()), library(logsnr), 1e-9)


@pytest.mark.parametrize("scale", [0.0, 0.02, 1.0, 2.5])
def test_entry_10_is_the_librarys_guidance(page, scale):
    def denoise(x, t, label):
        known = torch.zeros(len(x)) if label is None else (label >= 0).float()
        return known[:, None].double() * f64([1.0, 3.0])

    label = torch.tensor([0])
    guided = sampling.guided(denoise, label, scale)(torch.zeros(1, 2, dtype=torch.float64), 0.5)
    close(guided[0], page["steady"](f64([1.0, 3.0]), f64([0.0, 0.0]), scale), 1e-9)


def test_entry_11_a_copy_is_the_answer_where_there_is_no_picture(page):
    rows = [[float(number) for number in line.split()[1:]] for line in page["printed"][11] if "." in line]
    # E (x_t - eps)^2 = bar E x_0^2 + (1 - sqrt(1 - bar))^2
    share, power = chain.linear(1000).alpha_bar, page["digits"].square().mean().item()
    for row, bars in zip(rows, ([share[-1]] * 5, share[[1, 250, 500, 750, 1000]]), strict=True):
        wanted = [(bar * power + (1 - (1 - bar).sqrt()) ** 2).item() for bar in bars]
        assert row == pytest.approx(wanted, rel=0.05, abs=1e-5)
    assert max(rows[0]) < 1e-4 and rows[1][0] > 0.9
    for t in (0, 1, 999):
        close(page["running"](t), share[t], 1e-12)


def test_entry_12_only_the_fourth_power_tells_the_mended_noise(page):
    shares = [int(line.split()[1]) for line in page["printed"][12] if line.endswith("are 1")]
    assert shares[0] > 95 and max(abs(share - 50) for share in shares[1:]) < 4
    z = page["mended"](200_000, torch.Generator().manual_seed(1))
    moments = [z.pow(power).mean().item() for power in (1, 2, 4)]
    assert moments == pytest.approx([0, 1, 1.8], abs=0.02)
    # "a staircase": where both points are possible they are equally likely
    bar, x = 0.5, torch.linspace(-2, 2, 401, dtype=torch.float64)
    inside = [((x - sign * bar**0.5).abs() < (3 * (1 - bar)) ** 0.5).double() for sign in (1, -1)]
    guess = (inside[0] - inside[1]) / (inside[0] + inside[1])
    assert set(guess[~guess.isnan()].tolist()) == {-1.0, 0.0, 1.0}


def test_entry_13_the_library_hides_labels_one_by_one(page):
    seen = []

    class Spy(MLP):
        def forward(self, x, logsnr, label=None):
            seen.append(label.clone())
            return super().forward(x, logsnr, label)

    labels = torch.arange(64) % 10
    denoise = denoiser.Denoiser(Spy(width=4, depth=1, num_classes=10), schedule.cosine(50), "v")
    config = training.TrainConfig(steps=400, label_dropout=0.1)
    batches = iter(lambda: (torch.zeros(64, 2), labels), None)
    for _ in training.train(denoise, batches, config):
        pass
    counts = torch.stack([(label == -1).sum() for label in seen]).double()
    assert all(((label == labels) | (label == -1)).all() for label in seen)
    assert abs(counts.mean() - 6.4) < 4 * (5.76 / 400) ** 0.5
    assert abs(counts.var() / 5.76 - 1) < 4 * (2 / 400) ** 0.5


def test_entry_13_the_numbers(page):
    text = "\n".join(page["printed"][13])
    # 90 of 1,000 pictures are dropped into class 0 and belong elsewhere, 100 belong there
    share = int(re.search(r"digits, (\d+)% of them others", text)[1])
    assert abs(share - 100 * 9 / 19) < 20
    spreads = [float(each) for each in re.findall(r"give or take ([\d.]+)%", text)]
    assert spreads == pytest.approx([30, 3.75], rel=0.1)


def test_entry_14_the_librarys_attention_knows_no_size(page):
    torch.manual_seed(0)
    attention = layers.Attention(8, head_dim=4)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.3)
        assert page["knows_no_size"](attention)
        x = torch.randn(1, 8, 16, 16)
        close(page["one_size"](x), page["any_size"](x), 1e-6)
        with pytest.raises(RuntimeError):  # where nothing fits, it says so
            page["one_size"](torch.randn(1, 8, 20, 20))
    shares = [line.split()[-4] for line in page["printed"][14] if "heard" in line]
    assert shares == ["100%", "100%", "25%", "100%", "6%", "100%"]


def test_entry_15_a_checkpoint_answers_with_its_average(page, tmp_path):
    net = MLP(width=4)
    ema = training.EMA(net)
    with torch.no_grad():
        for parameter in ema.net.parameters():
            parameter.zero_()
    config = training.TrainConfig()
    kept = checkpoint.Checkpoint(net, schedule.cosine(50), "x0", config, ema)

    def draw(net, ema, noise):
        return sampling.last(sampling.ddim(kept.denoiser(), noise, kept.schedule, kept.schedule.times(5)))

    close(draw(net, ema, torch.randn(3, 2)), 0, 1e-6)
    assert page["asks_the_average"](page["draws_with_the_average"])
    off = [float(line.split()[-1]) for line in page["printed"][15] if "off by" in line]
    assert off[1] < off[0] / 3


def test_entry_16_the_surplus_falls_like_one_over_n(page):
    generator = torch.Generator().manual_seed(3)
    real, cloud, distance = page["real"], page["cloud"], page["frechet_distance"]
    few, many = (sum(distance(cloud(n, generator), real) for _ in range(4)) / 4 for n in (500, 2000))
    assert 3 < few / many < 5
    old, new = (float(line.split()[-1]) for line in page["printed"][16] if "distance" in line)
    assert old < new  # the wrong winner
    assert distance(cloud(20_000, generator), real) < distance(cloud(20_000, generator, 0.95), real)
    with pytest.raises(ValueError, match="singular"):
        distance(cloud(32, generator), real)
