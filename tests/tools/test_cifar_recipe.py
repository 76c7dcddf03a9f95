"""The search for a better CIFAR-10 recipe, with networks of nothing: equal seconds, resumable, compared in pairs."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import cifar_recipe
import pytest
import torch
from conftest import close
from mean_colours import JUDGE
from safetensors.torch import load_file

from ddpm_lib import checkpoint
from ddpm_lib.training import EMA
from ddpm_lib.unet import UNet

TINY = cifar_recipe.Settings(steps=4, pictures=4, samples=20, precision="fp32")
ROOT = Path(__file__).parents[2]
RECORD = cifar_recipe.RESULTS / "cifar_recipe.json"
TIMED = cifar_recipe.Sweep._timed


@pytest.fixture
def quick(monkeypatch):
    """A network of nothing, few sampling steps, a judge that looks at mean colours, and seconds that a test can know."""
    monkeypatch.setattr(cifar_recipe, "make_judge", lambda *_: JUDGE)
    monkeypatch.setattr(cifar_recipe, "SAMPLER_STEPS", 2)
    small = replace(cifar_recipe.BASE, width=8, blocks=1, batch_size=2)
    monkeypatch.setattr(cifar_recipe, "BASE", small)
    seconds = {"base": 1.0, "batch32": 0.5}
    monkeypatch.setattr(cifar_recipe.Sweep, "_timed", lambda self, key: iter([9.0, seconds[key], seconds[key]]))  # fmt: skip


def result(key: str, score: float, verdict: str, frechet: float = 1.0) -> dict:
    guided = {"frechet": frechet, "frechet_interval": [frechet - 0.1, frechet + 0.1]}
    return {"key": key, "score": score, "verdict": verdict, "samples": {"2.5": guided}}


# --- what is compared


def test_the_baseline_is_the_recipe_of_the_shipped_model():
    base, shipped = cifar_recipe.BASE, json.loads((ROOT / "recipes" / "cifar32.json").read_text())
    shared = {name: value for name, value in asdict(base).items() if name in shipped}
    assert shared == {name: shipped[name] for name in shared} and len(shared) == 8
    config = checkpoint.load("cifar32").net.config
    assert cifar_recipe.network(base, 10).config == config
    assert any(math.isclose(share, shipped["ema_half_life"] / shipped["steps"], rel_tol=0.1) for share in cifar_recipe.EMA_SHARES)  # fmt: skip


@pytest.mark.parametrize("variant", cifar_recipe.VARIANTS, ids=lambda variant: variant.key)
def test_a_variant_differs_and_can_be_built(variant):
    recipe = cifar_recipe.recipe_of(variant.key)
    assert (recipe == cifar_recipe.BASE) == (not variant.change)
    assert not variant.change or variant.factor
    cifar_recipe.train_config(recipe, TINY, 10, seed=0)
    with torch.device("meta"):
        assert isinstance(cifar_recipe.network(recipe, 10), UNet)


def test_variants_are_joined_and_an_unknown_one_is_named():
    joined = cifar_recipe.recipe_of("lr8+batch32")
    assert joined == replace(cifar_recipe.BASE, lr=8e-3, batch_size=32)
    with pytest.raises(ValueError, match="no variant is called lr9: choose from base"):
        cifar_recipe.recipe_of("lr8+lr9")


def test_a_winner_is_the_best_of_its_factor_and_no_worse_in_its_samples():
    rows = [
        result("base", 1.0, ""),
        result("lr8", 0.97, "better"),
        result("lr16", 0.95, "better"),
        result("lr2", 0.99, "tie"),
        result("width48", 0.9, "better", frechet=1.3),
        result("blocks1", 0.98, "better", frechet=1.05),
        result("lr8+batch32", 0.8, "better"),
        {"key": "adam20", "diverged": "loss is nan"},
    ]
    assert cifar_recipe.winners(rows) == ["lr16", "blocks1"]
    assert cifar_recipe.finals(rows) == ["base", "lr16+blocks1", "lr16+width96", "again"]
    assert cifar_recipe.finals(rows[:1]) == ["base", "width96", "again"]


# --- equal seconds


def test_a_quicker_step_buys_more_steps_and_is_timed_once(tmp_path, quick, monkeypatch):
    sweep = cifar_recipe.Sweep(TINY, tmp_path)
    assert (sweep.ratio("batch32"), sweep.steps("batch32")) == (0.5, 8)
    # what costs nothing is not timed, and what costs the same is not timed again
    monkeypatch.setattr(cifar_recipe.Sweep, "_timed", None)
    assert sweep.steps("lr8") == sweep.steps("again") == 4
    assert sweep.steps("lr8+batch32") == 8


def test_a_timed_step_is_a_training_step(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(cifar_recipe.Sweep, "_timed", TIMED)
    monkeypatch.setattr(cifar_recipe, "ROUNDS", 3)
    sweep = cifar_recipe.Sweep(TINY, tmp_path)
    seconds = list(sweep._timed("lr8"))
    assert len(seconds) == 4 and min(seconds) > 0
    # 32 pictures a step for 2
    assert sweep.ratio("batch32") > 1.5


# --- averages


def test_averages_are_those_that_one_average_would_be_and_come_back(tmp_path):
    net = torch.nn.Linear(3, 2)
    averages = cifar_recipe.Averages(net, steps=100)
    alone = [EMA(net, 100 * share) for share in cifar_recipe.EMA_SHARES]
    for _ in range(20):
        torch.nn.init.normal_(net.weight)
        averages.update(net)
        for ema in alone:
            ema.update(net)
    for mine, other in zip(averages.each, alone, strict=True):
        assert torch.equal(mine.net.weight, other.net.weight)
    averages.save(tmp_path / "averages.safetensors")
    again = cifar_recipe.Averages(torch.nn.Linear(3, 2), steps=100)
    again.load(tmp_path / "averages.safetensors", step=20)
    for mine, other in zip(again.each, alone, strict=True):
        assert torch.equal(mine.net.weight, other.net.weight)
        assert (mine.updates, mine.half_life) == (other.updates, other.half_life)


# --- a sweep


def test_a_sweep_is_written_whole_with_its_finals(tmp_path, quick, capsys):
    out, into = tmp_path / "runs", tmp_path / "results"
    command = ["--steps", "3", "--long", "4", "--pictures", "4", "--samples", "20", "--precision", "fp32"]
    command += ["--only", "again,batch32,flow", "--out", str(out), "--into", str(into)]
    real = cifar_recipe.finals
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar_recipe, "finals", lambda rows: [*real(rows)[:1], "flow"])
        assert cifar_recipe.main(command) == 0
    found = json.loads((into / "cifar_recipe.json").read_text())
    short, long = found["stages"]
    assert [row["key"] for row in short["rows"]] == ["base", "again", "batch32", "flow"]
    assert [row["key"] for row in long["rows"]] == ["base", "flow"]
    errors = {
        row["key"]: load_file(out / "3" / row["key"] / "errors.safetensors")["errors"]
        for row in short["rows"]
    }
    base = errors["base"]
    shares = {key: (mine / base.mean(1, keepdim=True)).mean(0) for key, mine in errors.items()}
    for row in short["rows"]:
        key, images = row["key"], row["steps"] * cifar_recipe.recipe_of(row["key"]).batch_size
        assert errors[key].shape == (len(found["levels"]), 4) and row["images"] == images
        close(torch.tensor(row["score"]), shares[key].mean(), 1e-4)
        close(torch.tensor(row["score_se"]), (shares[key] - shares["base"]).std() / 2, 1e-4)
        close(torch.tensor(row["error"]), errors[key].mean(1), 1e-4)
        assert min(row["ema_scores"]) == 1 and row["ema_share"] in cifar_recipe.EMA_SHARES
        for samples in row["samples"].values():
            assert samples["accuracy"] == 0.1 and samples["by_class"] == [0] * 9 + [1]
            assert samples["frechet"] >= 0 and 0 <= samples["recall"] <= 1
    rows = {row["key"]: row for row in short["rows"]}
    assert rows["batch32"]["steps"] == 6 and rows["again"]["seed"] == 1
    assert rows["base"]["score"] == 1 and rows["again"]["verdict"] == "tie"
    for name in ("device", "torch", "commit", "date", "seed", "data", "precision"):
        assert name in found["about"]
    assert (into / "cifar_recipe.md").read_text() == cifar_recipe.table(found)
    assert "| flow | 1.00 |" in cifar_recipe.table(found)

    # what is finished is read and not made again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar_recipe, "finals", lambda rows: ["base", "flow"])
        patch.setattr(cifar_recipe, "train", None)
        assert cifar_recipe.main(command) == 0
    assert json.loads((into / "cifar_recipe.json").read_text())["stages"] == found["stages"]
    assert cifar_recipe.main([*command, "--seed", "5"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert cifar_recipe.main([*command, "--only", "lr9"]) == 2
    assert "choose from base" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path, quick, monkeypatch):
    straight = cifar_recipe.Sweep(TINY, tmp_path / "straight")
    straight.run("lr8")

    monkeypatch.setattr(cifar_recipe, "SAVE_SECONDS", 0)
    real = cifar_recipe.train

    def stops(*args, **kwargs):
        for step in real(*args, **kwargs):
            yield step
            if step.index == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(cifar_recipe, "train", stops)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        cifar_recipe.Sweep(TINY, broken).run("lr8")
    folder = broken / "4" / "lr8"
    assert {path.name for path in folder.iterdir()} == {"checkpoint.safetensors", "averages-2.safetensors"}
    # killed after the averages of the next save and before its checkpoint
    (folder / "averages-3.safetensors").write_bytes(b"")
    monkeypatch.setattr(cifar_recipe, "train", real)
    cifar_recipe.Sweep(TINY, broken).run("lr8")
    first, second = (
        load_file(tmp_path / name / "4" / "lr8" / "errors.safetensors")["errors"]
        for name in ("straight", "broken")
    )
    assert torch.equal(first, second)
    assert {path.name for path in folder.iterdir()} == {"result.json", "errors.safetensors"}


def test_a_run_that_diverges_is_said_to(tmp_path, quick, monkeypatch):
    sweep = cifar_recipe.Sweep(TINY, tmp_path)
    sweep.run("base")

    def diverges(*args, **kwargs):
        raise cifar_recipe.TrainingDiverged("step 3: loss is nan")

    monkeypatch.setattr(cifar_recipe, "train", diverges)
    rows = sweep.rows(["base", "lr16"])
    assert rows[1]["diverged"] == "step 3: loss is nan"
    text = cifar_recipe.table({"stages": [{"steps": 4, "rows": rows}]})
    assert "| lr16 | | | | | diverged | | | | |" in text


# --- what is stored


@pytest.fixture(scope="module")
def stored() -> dict:
    if not RECORD.exists():
        pytest.skip("experiments/cifar_recipe.py has not stored its results yet")
    return json.loads(RECORD.read_text())


def test_the_stored_runs_took_equal_seconds_and_are_of_these_variants(stored):
    for stage in stored["stages"]:
        assert stage["rows"][0]["key"] == "base"
        for row in stage["rows"]:
            recipe = cifar_recipe.recipe_of(row["key"])
            if "diverged" in row:
                continue
            assert row["steps"] == round(stage["steps"] / row["ratio"])
            assert row["images"] == row["steps"] * recipe.batch_size
            parameters = sum(each.numel() for each in cifar_recipe.network(recipe, 10).parameters())
            assert row["parameters"] == parameters
            assert all(getattr(recipe, name) == (tuple(value) if isinstance(value, list) else value) for name, value in row["change"].items())  # fmt: skip


def test_the_stored_table_and_the_scripts_own_words_are_of_the_stored_numbers(stored):
    assert RECORD.with_suffix(".md").read_text(encoding="utf-8") == cifar_recipe.table(stored)
    scores = {f"{row['key']} {row.get('score', 0):.3f}" for stage in stored["stages"] for row in stage["rows"]}  # fmt: skip
    told = re.findall(r"^ +([\w+-]+) +(\d\.\d{3})$", cifar_recipe.__doc__, re.MULTILINE)
    assert {" ".join(pair) for pair in told} <= scores
