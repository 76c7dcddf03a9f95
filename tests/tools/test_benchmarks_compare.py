"""The comparison with other libraries: its arithmetic, its networks, and what it stores; not its timings."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from ddpm_lib import data
from ddpm_lib.unet import UNet

FILE = Path(__file__).parents[2] / "benchmarks" / "compare.py"


@pytest.fixture(scope="module")
def compare():
    spec = importlib.util.spec_from_file_location("compare", FILE)
    module = sys.modules["compare"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compare"]


@pytest.fixture
def stage(compare, tmp_path, monkeypatch):
    """Two sections that measure nothing and write to a folder of their own; returns the folder."""

    def section(heading, value):
        def measure(plan):
            found = compare.target("a ratio", [value], 1.0)
            return compare.report(
                [found], [compare.table("", "a | b", [(1, value)])], ["a note"], {"a": [value]}
            )

        return compare.Section(heading, measure, {})

    sections = {"train": section("Training", 0.5), "data": section("Reading", 2.0)}
    monkeypatch.setattr(compare, "SECTIONS", sections)
    monkeypatch.setattr(compare, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(compare, "stage_section", section, raising=False)
    return tmp_path / "results"


def stored(stage) -> dict:
    return json.loads((stage / "compare.json").read_text())["sections"]


@pytest.mark.parametrize(
    ("key", "parameters", "gflop"), [("small", 1_539_329, 0.543296), ("cifar10", 35_746_307, 12.443714)]
)
def test_our_networks_have_the_size_that_the_comparison_is_about(compare, key, parameters, gflop):
    config = compare.CASES[key].config
    net = UNet(config)
    side = compare.Contestant(net, net, None)
    assert compare.parameters(net) == parameters
    assert compare.gflop(side, config) == pytest.approx(gflop, rel=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_flops_of_attention_are_counted_whichever_kernel_computes_it(compare, transposed):
    q = torch.randn(2, 3, 16, 16)
    q = q.transpose(2, 3) if transposed else q
    side = compare.Contestant(None, lambda x, t: F.scaled_dot_product_attention(q, q, q), None)
    assert compare.gflop(side, compare.CASES["small"].config) == pytest.approx(4 * 2 * 3 * 16**2 * 16 / 1e9)


def test_ratios_are_taken_within_a_round(compare):
    mine, theirs = [1.0, 10.0, 3.0], [2.0, 10.0, 1.0]
    values = compare.ratios(mine, theirs)
    assert values == [0.5, 1.0, 3.0]
    found = compare.target("x", values, 1.03)
    assert (found["low"], found["median"], found["high"]) == (0.75, 1.0, 2.0)
    with pytest.raises(ValueError):
        compare.ratios(mine, theirs[:2])


@pytest.mark.parametrize(("at_least", "limit", "reached"), [(False, 2, True), (False, 1.9, False), (True, 2, True), (True, 2.1, False)])  # fmt: skip
def test_a_target_is_reached_on_its_own_side_of_the_limit(compare, at_least, limit, reached):
    assert compare.target("x", [2.0], limit, at_least=at_least)["reached"] is reached


def test_a_race_drops_the_first_round_and_divides_by_what_a_run_does(compare, monkeypatch):
    clock, order = [0.0], []

    def run(name, seconds):
        def work():
            order.append(name)
            clock[0] += seconds if order.count(name) > 1 else 100

        return work

    monkeypatch.setattr(compare.time, "perf_counter", lambda: clock[0])
    found = compare.race({"a": (3, run("a", 6.0)), "b": (1, run("b", 5.0))}, 2, "test")
    assert found == {"a": [2.0, 2.0], "b": [5.0, 5.0]}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_an_operator_belongs_to_the_nearest_part_above_it(compare):
    def event(name, parent=None):
        return SimpleNamespace(name=name, cpu_parent=parent)

    step = event("Optimizer.step#Adam.step")
    attention = event("aten::scaled_dot_product_attention")
    assert compare._part(event("aten::lerp_", step)) == "Adam"
    assert compare._part(event("aten::mm", event("aten::linear", attention))) == "linear"
    assert compare._part(event("aten::bmm", event("aten::matmul", attention))) == "attention"
    assert compare._part(event("aten::randn")) == "other"


def test_a_quick_run_stores_nothing(compare, stage, capsys):
    compare.main(["--quick"])
    assert not stage.exists()
    compare.main([])
    before = {path.name: path.read_bytes() for path in stage.iterdir()}
    capsys.readouterr()
    compare.main(["--quick"])
    assert {path.name: path.read_bytes() for path in stage.iterdir()} == before
    assert "QUICK RUN" in capsys.readouterr().out


def test_a_section_run_alone_leaves_the_others_as_they_are(compare, stage, monkeypatch):
    compare.main(["--threads", "1"])
    before = stored(stage)
    changed = compare.SECTIONS | {"data": compare.stage_section("Reading", 3.0)}
    monkeypatch.setattr(compare, "SECTIONS", changed)
    compare.main(["--only", "data"])
    after = stored(stage)
    assert after["train"] == before["train"]
    assert after["data"]["measured"] == {"a": [3.0]}
    assert after["data"]["where"]["command"] == "python benchmarks/compare.py --only data"
    page = (stage / "compare.md").read_text()
    assert "## Training" in page and "## Reading" in page


def test_the_page_says_what_was_reached_and_what_was_missed(compare, stage):
    compare.main([])
    rows = [line for line in (stage / "compare.md").read_text().splitlines() if line.startswith("| a ratio")]
    assert rows == [
        "| a ratio | 0.5 | 0.5 to 0.5 | at most 1 x | reached |",
        "| a ratio | 2 | 2 to 2 | at most 1 x | **missed** |",
    ]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_page_says_how_and_where_it_was_measured(compare, stage, threads):
    compare.main(["--threads", str(threads)])
    where = stored(stage)["train"]["where"]
    assert set(where) == {"command", "date", "device", "torch", "python", "commit", "peers"}
    assert f"{threads} thread" in where["device"] and where["torch"] == torch.__version__
    page = (stage / "compare.md").read_text()
    assert f"`{where['command']}`, {where['date']}" in page and where["commit"] in page


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_file_that_holds_no_results_is_named_before_anything_is_measured(compare, stage, text, monkeypatch):
    stage.mkdir()
    (stage / "compare.json").write_text(text)
    monkeypatch.setattr(compare, "take_turns", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit, match="compare.json holds no results"):
        compare.main([])
    assert (stage / "compare.json").read_text() == text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "train,dta"], "unknown section 'dta': choose from train, data"),
        (["--rounds", "0"], "must be at least 1"),
        (["--threads", "-1"], "must be at least 1"),
        (["--only", "data", "--profile"], "--profile belongs to the section train"),
    ],
)
def test_bad_arguments_are_explained(compare, stage, capsys, argv, message):
    with pytest.raises(SystemExit):
        compare.main(argv)
    assert message in capsys.readouterr().err


def test_a_library_that_is_not_installed_is_named_with_the_command_that_installs_it(compare, stage, capsys):
    compare.SECTIONS["data"] = replace(compare.SECTIONS["data"], needs={"no-such": "no_such_library"})
    with pytest.raises(SystemExit):
        compare.main([])
    assert "not installed: no-such. Install with: pip install -e '.[bench]'" in capsys.readouterr().err
    compare.main(["--only", "train"])


def test_our_side_trains_in_both_precisions(compare):
    side = compare.ours(compare.Plan(quick=True).case("small"))
    before = [parameter.detach().clone() for parameter in side.net.parameters()]
    assert all(math.isfinite(side.step(bf16)) for bf16 in (False, True))
    assert any(not torch.equal(a, b) for a, b in zip(before, side.net.parameters(), strict=True))


@pytest.mark.parametrize("side", ["ours", "diffusers", "lucidrains"])
@pytest.mark.parametrize(("kind", "steps"), [("ddim", 4), ("ddpm", 3), ("ddpm", 1000)])
def test_every_sampler_calls_its_network_once_a_step(compare, side, kind, steps):
    if side != "ours":
        pytest.importorskip(
            {"lucidrains": "denoising_diffusion_pytorch"}.get(side, side), reason=f"needs {side}"
        )
    case = compare.Plan(quick=True).case("small")
    net = compare._answering_at_once(compare.SIDES[side](case).net, side, case)
    answer, calls = net.forward, []
    net.forward = lambda *args, **options: calls.append(1) or answer()
    compare.SAMPLERS[side](net, case, kind, steps)()
    assert len(calls) == steps


@pytest.mark.parametrize("key", ["small", "cifar10"])
def test_diffusers_network_is_ours(compare, key):
    pytest.importorskip("diffusers", reason="needs diffusers")
    case = replace(compare.CASES[key], batch=1)
    mine, theirs = compare.ours(case), compare.diffusers(case)
    assert compare.parameters(theirs.net) == compare.parameters(mine.net)
    assert compare.gflop(theirs, case.config) == pytest.approx(compare.gflop(mine, case.config))


@pytest.mark.parametrize("side", ["diffusers", "lucidrains"])
def test_the_other_sides_train(compare, side):
    pytest.importorskip({"lucidrains": "denoising_diffusion_pytorch"}.get(side, side), reason=f"needs {side}")
    contestant = compare.SIDES[side](compare.Plan(quick=True).case("small"))
    assert all(math.isfinite(contestant.step(bf16)) for bf16 in (False, True))


def test_pictures_are_written_as_they_are(compare, tmp_path):
    images = data.load_images("cifar10")
    compare._write_pngs(images, 20, tmp_path)
    back = data.load_images(tmp_path)
    assert len(back) == 20 and back.classes == tuple(sorted(images.classes))
    first = next(i for i in range(20) if images.classes[images.labels[i]] == back.classes[0])
    assert torch.equal(back.images[0], images.images[first])


def test_code_run_alone_gives_its_last_number_or_its_error(compare):
    plan = compare.Plan(threads=1)
    assert compare._alone("print('chatter')\nprint(2.5)", plan) == 2.5
    with pytest.raises(SystemExit, match="no luck"):
        compare._alone("raise ValueError('no luck')", plan)


def test_its_own_results_do_not_make_the_commit_dirty(compare, stage, monkeypatch):
    real = compare.checkpoint.provenance

    def provenance(device):
        return real(device) | {"commit": "abc1234-dirty" if (stage / "compare.json").exists() else "abc1234"}

    monkeypatch.setattr(compare.checkpoint, "provenance", provenance)
    compare.main([])
    assert {each["where"]["commit"] for each in stored(stage).values()} == {"abc1234"}
