"""From settings and pictures to a model: what is said, what is refused, and where a run starts."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from command import photographs
from PIL import Image
from tiny_runs import resumed, started, tiny

from ddpm_lib import checkpoint, prepare
from ddpm_lib.data import load_images
from ddpm_lib.training import EMA
from ddpm_lib.unet import UNet


def test_fine_tuning_starts_from_the_weights_of_a_run(tmp_path):
    origin, _ = started(tmp_path / "first", steps=6, schedule="cosine", predict="v")
    outcome, said = started(
        tmp_path / "tuned", init=str(tmp_path / "first"), width=None, blocks=None, size=32
    )
    assert "cheaper: --size 16 (" in said[2] and "--blocks" not in said[2]
    assert "starts from" in said[1] and "keeps what it knows of 0, 1, 2" in said[1]
    settings, came_from = outcome.model.provenance["settings"], outcome.model.provenance["init"]
    assert [settings[name] for name in ("schedule", "predict", "width", "blocks")] == ["cosine", "v", 8, 1]
    assert came_from["model"] == "first" and came_from["step"] == 6 and len(came_from["file"]) == 16
    assert str(tmp_path) not in json.dumps(came_from)


def test_the_first_weights_are_the_average_of_the_model_that_it_starts_from(tmp_path):
    """With a learning rate of nearly nothing, one step leaves the weights where they were."""
    origin, _ = started(tmp_path / "first", steps=6)
    outcome, _ = started(tmp_path / "tuned", init=str(tmp_path / "first"), steps=1, lr=1e-12)
    for name, value in origin.model.ema.net.state_dict().items():
        torch.testing.assert_close(outcome.model.net.state_dict()[name], value, rtol=0, atol=1e-8)


def test_classes_that_a_model_knows_keep_their_rows_and_others_start_as_no_label(tmp_path):
    folder = photographs(tmp_path / "digits", {"seven": 3, "3": 4, "7": 5}, mode="L")
    outcome, said = started(
        tmp_path / "run",
        data=str(folder),
        init="mnist28",
        width=None,
        blocks=None,
        size=None,
        steps=1,
        lr=1e-12,
    )
    origin = checkpoint.pretrained("mnist28").ema.net.state_dict()["conditioning.label.weight"].float()
    table = outcome.model.net.state_dict()["conditioning.label.weight"]
    assert outcome.model.classes == ["3", "7", "seven"]
    torch.testing.assert_close(table, origin[[3, 7, -1, -1]], rtol=0, atol=1e-6)
    assert "keeps what it knows of 3, 7; new to it: seven" in said[1]
    assert outcome.model.net.config.image_size == 28 and outcome.model.provenance["init"]["classes_kept"] == [
        "3",
        "7",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 32}, "--width 32 does not fit --init mnist28, whose weights are for 48"),
        ({"predict": "eps"}, "--predict eps does not fit --init mnist28, whose weights are for v"),
        ({"channels": 3}, "--channels 3 does not fit --init mnist28, whose weights are for 1"),
        ({"multipliers": (1, 2, 4)}, "--multipliers 1,2,4 does not fit"),
        ({"init": "mnist29"}, "no checkpoint at mnist29, and no shipped model"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_refused(tmp_path, changes, said):
    with pytest.raises((ValueError, OSError), match=said):
        started(tmp_path / "run", **{"init": "mnist28", "width": None, "blocks": None} | changes)
    assert not (tmp_path / "run").exists()


def test_a_grey_model_takes_colour_pictures_as_grey_and_another_size(tmp_path, pets):
    outcome, said = started(
        tmp_path / "run", data=str(pets), init="mnist28", width=None, blocks=None, size=None, steps=1
    )
    assert said[0].startswith(f"{pets}: 15 pictures of 28 x 28, grey")
    outcome, _ = started(
        tmp_path / "large", data=str(pets), init="mnist28", width=None, blocks=None, size=32, steps=1
    )
    assert outcome.model.net.config.image_size == 32


def test_fine_tuning_without_labels_and_from_a_model_without(tmp_path, pets):
    plain = {"width": None, "blocks": None, "steps": 1}
    started(tmp_path / "without", data=str(pets), labels=False)
    outcome, said = started(tmp_path / "with", data=str(pets), init=str(tmp_path / "without"), **plain)
    assert outcome.model.classes == ["bird", "cat", "dog"] and "new to it: bird, cat, dog" in said[1]
    outcome, _ = started(
        tmp_path / "none", data=str(pets), init=str(tmp_path / "with"), labels=False, **plain
    )
    assert outcome.model.net.config.num_classes == 0


def test_it_learns_from_where_it_starts(tmp_path):
    """After a few steps on the same digits, a model that starts from the shipped one is far ahead of a fresh one."""
    losses = []
    for init in ("mnist28", None):
        shape = {} if init else {"schedule": "cosine", "predict": "v", "width": 48, "blocks": 2}
        settings = {"init": init, "width": None, "blocks": None, "size": None, "steps": 3} | shape
        started(tmp_path / str(init), **settings)
        rows = [json.loads(line) for line in (tmp_path / str(init) / "log.jsonl").read_text().splitlines()]
        losses.append(rows[-1]["loss"])
    assert losses[0] < losses[1] / 3


def test_a_run_of_thousands_of_classes_says_some(tmp_path):
    images = load_images("mnist", size=8)
    many = replace(
        images, labels=torch.arange(len(images)) % 1000, classes=tuple(f"c{n}" for n in range(1000))
    )
    said = prepare.understood(many, tiny())
    assert "1000 classes of 10 each: c0, c1" in said and "and 980 more" in said and len(said) < 300


def test_pictures_of_other_classes_are_refused_and_nothing_changes(tmp_path, pets):
    out = tmp_path / "run"
    started(out, data=str(pets))
    before = (out / "checkpoint.safetensors").read_bytes()
    shutil.rmtree(pets / "bird")
    with pytest.raises(ValueError, match=r"classes cat,dog, was bird,cat,dog.*bring the pictures back"):
        resumed(out, steps=6)
    photographs(pets, {"ant": 2, "bird": 4})
    with pytest.raises(ValueError, match="classes ant,bird,cat,dog, was bird,cat,dog"):
        resumed(out, steps=6)
    shutil.rmtree(pets / "ant")
    assert (out / "checkpoint.safetensors").read_bytes() == before
    assert resumed(out, steps=6)[0].finished


@pytest.mark.parametrize(
    ("size", "mode", "said"), [(12, "RGB", "size 12, was 8"), (8, "L", "channels 1, was 3")]
)
def test_pictures_of_another_size_or_kind_are_refused(tmp_path, pets, size, mode, said):
    out = tmp_path / "run"
    started(out, data=str(pets), size=None)
    shutil.rmtree(pets)
    photographs(pets, {"bird": 4, "cat": 5, "dog": 6}, size, mode)
    with pytest.raises(ValueError, match=said):
        resumed(out, steps=6)


def test_more_or_other_pictures_are_said(tmp_path, pets):
    out = tmp_path / "run"
    started(out, data=str(pets))
    Image.new("RGB", (8, 8), (1, 2, 3)).save(pets / "cat" / "new.png")
    outcome, said = resumed(out, steps=6)
    assert (
        outcome.finished and said[0] == f"note: {pets} has 16 pictures now, 15 when this run was last saved"
    )
    Image.new("RGB", (8, 8), (9, 9, 9)).save(pets / "cat" / "new.png")
    outcome, said = resumed(out, steps=8)
    assert said[0] == f"note: the pictures in {pets} are not those that this run was last saved with"
    _, said = resumed(out, steps=10)
    assert not any(line.startswith("note:") for line in said)


def test_what_was_left_open_is_kept_as_it_was_decided(tmp_path):
    outcome, _ = started(tmp_path / "run")
    settings = outcome.model.provenance["settings"]
    assert [settings[name] for name in ("schedule", "predict", "dropout")] == ["linear", "eps", 0.0]


def test_classes_are_said_with_their_counts(tmp_path, pets):
    _, said = started(tmp_path / "run", data=str(pets))
    assert said[0] == f"{pets}: 15 pictures of 8 x 8, colour; 3 classes: bird (4), cat (5), dog (6)"
    _, said = started(tmp_path / "without", data=str(pets), labels=False)
    assert said[0] == f"{pets}: 15 pictures of 8 x 8, colour, trained without labels"
    kept = checkpoint.load(tmp_path / "run").data
    assert kept["classes"] == ["bird", "cat", "dog"] and kept["counts"] == [4, 5, 6] and kept["images"] == 15


def test_what_settings_do_not_name_stays_as_the_weights_learned_it(tmp_path):
    """The size of a head is in no shape of the weights: another one would read them wrongly without an error."""
    origin, _ = started(tmp_path / "first", width=16)
    shape = replace(origin.model.net.config, head_dim=4, modulation="add")
    net = UNet(shape)
    with torch.no_grad():
        for parameter in net.parameters():  # a fresh network answers 0, whatever its heads
            parameter.normal_(0, 0.2)
    odd = replace(origin.model, net=net, ema=EMA(net), moments={})
    checkpoint.save(odd, tmp_path / "odd.safetensors")
    tuned, _ = started(
        tmp_path / "tuned", init=str(tmp_path / "odd.safetensors"), width=None, blocks=None, steps=1, lr=1e-12
    )
    assert tuned.model.net.config == shape
    x, logsnr = torch.randn(2, 1, 8, 8), torch.zeros(2)
    answer = odd.ema.net(x, logsnr)
    assert answer.abs().max() > 0.1
    torch.testing.assert_close(tuned.model.net.eval()(x, logsnr), answer, rtol=1e-4, atol=1e-4)
