import json
from dataclasses import replace

import pytest
import speedrun
import speedrun_cifar10
import speedrun_mnist
import torch
from speedrun import Result

from ddpm_lib.data import load_images
from ddpm_lib.schedule import SCHEDULES

RESULT = Result(0, 50.0, 40.0, 9600, 0.92, 0.6, 0.95, 0.7, 0.5, 3.0, 0.05)


def test_a_run_passes_with_enough_as_asked_and_half_of_the_variety():
    assert RESULT.passes(0.9)
    assert not replace(RESULT, label_accuracy=0.899).passes(0.9)
    assert not replace(RESULT, recall=0.47).passes(0.9) and replace(RESULT, recall=0.475).passes(0.9)


def test_the_summary_is_the_median_time_and_the_mean_of_the_rest():
    others = (
        replace(RESULT, seconds=54.0, label_accuracy=0.9),
        replace(RESULT, seconds=90.0, label_accuracy=0.88),
    )
    middle = speedrun.summary([RESULT, *others])
    assert middle.seconds == 54 and middle.label_accuracy == pytest.approx(0.9) and middle.images_seen == 9600


@pytest.mark.parametrize(
    "track", [speedrun_mnist.TRACK, speedrun_cifar10.TRACK], ids=lambda track: track.name
)
def test_a_tracks_recipe_can_be_built_for_its_data(track):
    recipe, images = track.recipe, load_images(track.data.removesuffix("-full"))
    assert images.images.shape[1:] == (recipe.net.channels, recipe.net.image_size, recipe.net.image_size)
    assert recipe.net.num_classes == len(images.classes)
    assert recipe.schedule in SCHEDULES and speedrun.SAMPLES % len(images.classes) == 0


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The MNIST track with a network of nothing, few samples, and records elsewhere."""
    monkeypatch.setattr(speedrun, "RECORDS", tmp_path)
    monkeypatch.setattr(speedrun, "SAMPLES", 200)
    track = speedrun_mnist.TRACK
    net = replace(track.recipe.net, width=8, head_dim=8, attention=())
    train = replace(track.recipe.train, steps=2, precision="fp32")
    return replace(
        track, threads=None, recipe=replace(track.recipe, net=net, train=train, batch_size=4, steps=1)
    )


def test_a_record_is_kept_as_json_and_as_a_table(small, tmp_path, capsys):
    for _ in range(2):
        speedrun.main(small, "what it is", ["--seeds", "2", "--device", "cpu", "--record"])
    assert "NOT PASSED" in capsys.readouterr().out
    rows = json.loads((tmp_path / "speedrun_mnist.json").read_text())
    assert len(rows) == 2 and [run["seed"] for run in rows[1]["runs"]] == [0, 1] and not rows[0]["passed"]
    assert rows[0]["runs"][0]["images_seen"] == 8 and rows[0]["features"] == "classifier mnist"
    same = [
        {k: v for k, v in row["runs"][0].items() if "second" not in k and "train" not in k} for row in rows
    ]
    assert same[0] == same[1], "the same seed must give the same samples"
    table = (tmp_path / "speedrun_mnist.md").read_text()
    assert len([line for line in table.splitlines() if line.startswith("| 20")]) == 2 and "| no |" in table


def test_a_changed_recipe_is_no_record(small, tmp_path, capsys):
    with pytest.raises(SystemExit):
        speedrun.main(small, "what it is", ["--steps", "1", "--record"])
    assert "leave out --record" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_judge_tells_real_digits_from_noise():
    judge = speedrun.Judge(load_images("mnist"), load_images("mnist", "test"))
    digits = load_images("mnist", "test")
    verdict = judge.verdict(digits.images, digits.labels)
    assert verdict["label_accuracy"] > 0.985 and verdict["recall"] == verdict["real_recall"] > 0.9
    noise = torch.randint(256, (200, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
    verdict = judge.verdict(noise, digits.labels[:200])
    assert verdict["label_accuracy"] < 0.3 and verdict["recall"] < 0.1 and verdict["frechet"] > 50


@pytest.mark.parametrize("name", speedrun_mnist.PEERS)
def test_a_peer_without_its_package_is_told_how_to_get_it(name, monkeypatch):
    monkeypatch.setattr(speedrun_mnist, "find_spec", lambda package: None)
    with pytest.raises(SystemExit, match=r"pip install -e '\.\[bench\]'"):
        speedrun_mnist.run_peer(name, 1, record=False)


def test_a_peers_new_run_takes_the_place_of_its_old_one(tmp_path):
    def run(name, *shares):
        looks = [{"seconds": 60, "steps": 9, "label_accuracy": share} for share in shares]
        return {"name": name, "device": "here", "samples": 200, "looks": looks}

    for peer in (run("lucidrains", 0.1), run("diffusers", 0.2), run("lucidrains", 0.3, 0.4)):
        table = speedrun_mnist.keep_peer(tmp_path, peer)
    rows = [line.split(" | ") for line in table.read_text().splitlines()[6:]]
    assert [(row[0], row[-1]) for row in rows] == [
        ("| diffusers", "20.0% |"),
        ("| lucidrains", "30.0% |"),
        ("| lucidrains", "40.0% |"),
    ]


@pytest.mark.parametrize("name", speedrun_mnist.PEERS)
def test_a_peer_runs(name):
    for package in speedrun_mnist.PACKAGES[name]:
        pytest.importorskip(package)
    ((seconds, steps, share),) = speedrun_mnist.race_peer(name, minutes=1e-4, looked_at=2)
    assert seconds > 0 and steps == 1 and 0 <= share <= 1
