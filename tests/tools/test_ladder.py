"""The ladder of chapter 8, with networks of nothing: equal compute, resumable, comparable picture by picture."""

from __future__ import annotations

import json
from dataclasses import replace

import ladder
import pytest
import torch
from conftest import close
from mean_colours import JUDGE
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_lib import data
from ddpm_lib.schedule import SCHEDULES
from ddpm_lib.unet import UNet

TINY = ladder.Settings(tflop=3e-5, width=8, batch_size=2, pictures=4, samples=20)
CPU = torch.device("cpu")


@pytest.fixture
def quick(monkeypatch):
    """One sampling step, and a judge that looks at mean colours."""
    monkeypatch.setattr(ladder, "make_judge", lambda *_: JUDGE)
    monkeypatch.setattr(ladder, "SAMPLER_STEPS", 1)


def rungs(*keys: str) -> list[ladder.Rung]:
    return [rung for rung in ladder.RUNGS if rung.key in keys]


# --- the rungs


def test_the_ladder_begins_with_the_recipe_of_the_book_and_changes_one_thing_at_a_time():
    first = ladder.recipes()["origin"]
    assert (first.size, first.schedule, first.predict, first.optimizer) == (64, "linear", "eps", "adam")
    assert not first.ema and not first.flip and first.dropout == first.min_snr == 0
    shipped = json.loads((data.EMBEDDED.parents[1] / "recipes" / "cifar64.json").read_text())
    for name in ("size", "schedule", "predict", "optimizer", "lr"):
        assert getattr(first, name) == shipped[name]
    # a learning rate belongs to its optimiser
    assert all(len(set(rung.change) - {"lr"}) <= 1 for rung in ladder.RUNGS)
    assert all(recipe.schedule in SCHEDULES for recipe in ladder.recipes().values())
    again = ladder.recipes()
    assert again["again"] == again["min_snr"] and sum(rung.luck for rung in ladder.RUNGS) == 1


# --- equal compute


@pytest.mark.parametrize("key", ["origin", "native", "wide"])
def test_multiply_adds_are_what_torch_counts(key):
    config = ladder.network(ladder.recipes()[key], ladder.Settings(), 10)
    # on this device attention is done by products that torch counts; the processor's own kernel it does not count
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = UNet(config)
        net(torch.empty(1, 3, config.image_size, config.image_size), torch.empty(1))
    assert 2 * ladder.multiply_adds(config) == counter.get_total_flops()


def test_a_training_step_costs_three_forward_passes():
    net = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(20)])
    x = torch.randn(8, 64)
    with FlopCounterMode(display=False) as counter:
        net(x).square().mean().backward()
    macs = 20 * 64 * 64
    # the first layer needs no gradient of its input
    assert counter.get_total_flops() == 3 * 2 * macs * 8 - 2 * 64 * 64 * 8


def test_every_rung_gets_the_same_compute_to_within_one_step():
    settings = ladder.Settings()
    for recipe in ladder.recipes().values():
        macs = ladder.multiply_adds(ladder.network(recipe, settings, 10))
        step = 6 * macs * settings.batch_size / 1e12
        spent = ladder.steps_for(settings.tflop, macs, settings.batch_size) * step
        assert settings.tflop - step < spent <= settings.tflop


# --- from 32 to 64 and back


def test_shrinking_undoes_the_librarys_enlarging():
    small = data.load_images("cifar10", "test").images[:4]
    large = data.ImageSet(small, torch.zeros(4).long(), ("all",), "x", "test").resized(64).images
    back = ladder.shrink(data.to_float(large))
    # the rounding of 64 x 64 pixels to 256 levels is all that is lost
    assert (back - data.to_float(small)).abs().max() < 2.5 / 127.5
    exact = ladder.stretching(64)
    picture = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    close(ladder.shrink(exact @ picture @ exact.T), picture, 1e-9)
    assert ladder.shrink(picture) is picture


# --- a run


@pytest.mark.slow
def test_a_ladder_is_written_whole_with_paired_differences(tmp_path, quick):
    chosen = rungs("origin", "native", "min_snr", "again")
    run = ladder.Ladder(TINY, tmp_path / "runs", CPU)
    paths = run.write(chosen, tmp_path)
    found = json.loads(paths[0].read_text())
    assert [row["key"] for row in found["rungs"]] == ["origin", "native", "min_snr", "again"]
    assert [row["against"] for row in found["rungs"]] == ["origin", "origin", "native", "min_snr"]
    errors = [load_file(tmp_path / "runs" / rung.key / "errors.safetensors")["errors"] for rung in chosen]
    for row, mine in zip(found["rungs"], errors, strict=True):
        other = errors[[rung.key for rung in chosen].index(row["against"])]
        assert mine.shape == (len(found["levels"]), TINY.pictures)
        close(torch.tensor(row["error"]), mine.mean(1), 1e-4)
        close(torch.tensor(row["gain"]), (other - mine).mean(1), 1e-4)
        close(torch.tensor(row["gain_se"]), (other - mine).std(1) / TINY.pictures**0.5, 1e-4)
        assert row["tflop"] <= TINY.tflop or row["steps"] == 1
        assert row["images"] == row["steps"] * TINY.batch_size
        assert row["accuracy"] == 0.1 and row["frechet"] >= 0
        assert row["accuracy_interval"][0] < 0.1 < row["accuracy_interval"][1]
    assert found["rungs"][0]["score"] == pytest.approx(1) and found["rungs"][0]["better"] == 0
    for name in ("device", "commit", "date", "seed", "data", "tflop", "precision"):
        assert name in found["about"]
    with Image.open(paths[1]) as sheet:
        assert sheet.size == (32 * ladder.SHOWN, 32 * len(chosen))
    assert "native 32 x 32" in ladder.table(found)


@pytest.mark.slow
def test_a_rung_that_was_stopped_goes_on_to_the_same_bits(tmp_path, quick, monkeypatch):
    settings = replace(TINY, tflop=5e-4, pictures=2)
    (rung,) = rungs("ema")
    straight = ladder.Ladder(settings, tmp_path / "straight", CPU)
    straight.run(rung)

    monkeypatch.setattr(ladder, "SAVE_SECONDS", 0)
    real, broken = ladder.train, tmp_path / "broken"

    def stops(*args, **kwargs):
        for step in real(*args, **kwargs):
            yield step
            if step.index == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(ladder, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        ladder.Ladder(settings, broken, CPU).run(rung)
    assert (broken / "ema" / "checkpoint.safetensors").exists()
    monkeypatch.setattr(ladder, "train", real)
    ladder.Ladder(settings, broken, CPU).run(rung)
    first, second = (
        load_file(folder / "ema" / "errors.safetensors")["errors"]
        for folder in (tmp_path / "straight", broken)
    )
    assert torch.equal(first, second)
    assert not (broken / "ema" / "checkpoint.safetensors").exists()


@pytest.mark.slow
def test_a_finished_rung_is_kept_and_another_ladders_is_refused(tmp_path, quick, monkeypatch):
    (rung,) = rungs("native")
    first = ladder.Ladder(TINY, tmp_path, CPU).run(rung)
    monkeypatch.setattr(ladder, "train", None)
    assert ladder.Ladder(TINY, tmp_path, CPU).run(rung) == json.loads(json.dumps(first))
    with pytest.raises(ValueError, match="other settings"):
        ladder.Ladder(replace(TINY, seed=1), tmp_path, CPU).run(rung)


@pytest.mark.slow
def test_the_command_runs_and_says_what_is_wrong(tmp_path, quick, capsys):
    out, into = str(tmp_path / "runs"), str(tmp_path / "package")
    command = ["--tflop", "1e-5", "--width", "8", "--batch-size", "2", "--pictures", "2", "--samples", "20"]
    command += ["--out", out, "--into", into, "--device", "cpu", "--precision", "fp32"]
    assert ladder.main([*command, "--rungs", "native"]) == 0
    assert "native 32 x 32" in capsys.readouterr().out
    assert ladder.main([*command, "--rungs", "native", "--seed", "5"]) == 2
    assert "other settings" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        ladder.main([*command, "--rungs", "nature"])
    assert "choose from origin" in capsys.readouterr().err
