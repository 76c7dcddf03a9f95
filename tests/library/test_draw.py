"""Drawing with a trained model: which classes are meant, when guidance steers, and what is kept of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_lib import checkpoint, draw
from ddpm_lib.data import load_images


def knowing(*classes: str):
    """What asked_labels needs of a model."""
    return SimpleNamespace(
        classes=list(classes), net=SimpleNamespace(config=SimpleNamespace(num_classes=len(classes)))
    )


PETS, PADDED, COUNTED = ("bird", "cat", "dog"), ("01", "02", "03"), ("1", "10", "11", "2")
ODD = ("cat, grey", " dog", "cafe\u0301", '"quoted"', "7up")


@pytest.mark.parametrize(
    ("classes", "asked", "meant"),
    [
        (PETS, "cat", [1]),
        (PETS, "1", [1]),
        (PETS, "dog,0", [2, 0]),
        (PETS, " dog , bird ", [2, 0]),
        (PADDED, "01", [0]),
        (PADDED, "1", [0]),
        (PADDED, "3,2", [2, 1]),
        (COUNTED, "2", [3]),
        (COUNTED, "10,2,1", [1, 3, 0]),
        (("0", "1", "2"), "2,0", [2, 0]),
        (("zero", "1", "2"), "zero,2", [0, 2]),
        (ODD, "cat, grey", [0]),
        (ODD, '"cat, grey",7up', [0, 4]),
        (ODD, "dog", [1]),
        (ODD, " dog", [1]),
        (ODD, "caf\u00e9", [2]),
        (ODD, "7up", [4]),
        (("1", "01"), "01", [1]),
    ],
)
def test_a_word_is_the_class_that_it_names(classes, asked, meant):
    assert draw.asked_labels(knowing(*classes), asked, len(meant)).tolist() == meant


@pytest.mark.parametrize(
    ("classes", "asked", "said"),
    [
        (PETS, "fish", "unknown label 'fish': choose from bird, cat, dog"),
        (PETS, "3", "label 3 is out of range: this model knows 0 to 2"),
        (PETS, "-1", "label -1 is out of range"),
        (PETS, "9" * 30, "unknown label"),
        (PETS, "", "no label in ''"),
        (PETS, " , ", "no label in"),
        (PADDED, "0", "no single class is called '0' .numbers are names here.; choose from 01, 02, 03"),
        (COUNTED, "3", "no single class is called '3' .numbers are names here."),
        (("1", "01"), "001", "no single class is called '001', and which of them is meant is not clear"),
        (("0", "1", "2"), "3", "label 3 is out of range: this model knows 0 to 2"),
    ],
)
def test_a_word_that_names_no_class_is_refused(classes, asked, said):
    with pytest.raises(ValueError, match=said):
        draw.asked_labels(knowing(*classes), asked, 1)


def test_labels_are_repeated_to_the_count_and_all_in_turn_when_none_is_asked_for():
    assert draw.asked_labels(knowing(*PETS), "dog,cat", 5).tolist() == [2, 1, 2, 1, 2]
    with pytest.raises(ValueError, match="--count 1 is too few for the 2 labels in 'dog,cat'"):
        draw.asked_labels(knowing(*PETS), "dog,cat", 1)
    assert draw.asked_labels(knowing(*PETS), None, 5).tolist() == [0, 1, 2, 0, 1]
    assert draw.asked_labels(knowing(), None, 5) is None
    with pytest.raises(ValueError, match="without labels: leave --label out"):
        draw.asked_labels(knowing(), "0", 1)


@pytest.fixture(scope="module")
def digits() -> checkpoint.Checkpoint:
    return checkpoint.pretrained("mnist28")


def drawn(model, **how) -> torch.Tensor:
    return draw.draw(model, 2, torch.tensor([3, 7]), **{"steps": 4} | how).float()


def test_guidance_steers_within_its_interval_only(digits):
    plain, strong = drawn(digits), drawn(digits, scale=4.0)
    assert (drawn(digits, scale=4.0, interval=(0.0, 1.0)) - strong).abs().max() == 0
    assert (drawn(digits, scale=4.0, interval=(0.0, 0.0)) - plain).abs().max() == 0
    partly = drawn(digits, scale=4.0, interval=(0.3, 0.8))
    assert (partly - strong).abs().max() > 10 and (partly - plain).abs().max() > 10
    with pytest.raises(ValueError, match="low <= high"):
        drawn(digits, interval=(0.8, 0.3))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"batch_size": 0}, "batch size must be at least 1, got 0"),
        ({"batch_size": -4}, "batch size must be at least 1, got -4"),
        ({"seed": 2**64}, "seed must be a whole number from 0"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"sampler": "euler"}, "unknown sampler 'euler': choose from ddpm"),
        ({"sampler": "heun", "eta": 0.5}, "eta is a setting of the sampler 'ddim'"),
        ({"precision": "half"}, "unknown precision 'half': choose from fp32, bf16, auto"),
        ({"scale": float("nan")}, "guidance scale must be at least 0, got nan"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused(digits, how, said):
    with pytest.raises(ValueError, match=said):
        drawn(digits, **how)


def test_guidance_without_a_label_is_refused(digits):
    for how in ({"scale": 2.0}, {"interval": (0.0, 0.5)}):
        with pytest.raises(ValueError, match="guidance steers towards a label"):
            draw.draw(digits, 2, None, steps=2, **how)


def test_what_a_file_recommends(digits):
    advised = SimpleNamespace(
        provenance={"sampling": {"sampler": "heun", "scale": 2.0, "interval": [0.1, 0.9]}}, net=digits.net
    )
    how, theirs = draw.recommended(advised, {"scale": 3.0})
    assert how == {"sampler": "heun", "steps": 20, "scale": 3.0, "interval": [0.1, 0.9]}
    assert theirs == ["sampler", "interval"]
    bare = SimpleNamespace(config=SimpleNamespace(num_classes=0))
    how, theirs = draw.recommended(SimpleNamespace(provenance=advised.provenance, net=bare), {})
    assert how == {"sampler": "heun", "steps": 20, "scale": 1.0} and theirs == ["sampler"]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_film_has_the_steps_as_frames_and_ends_with_the_pictures(tmp_path, digits, kind):
    film = draw.Film(digits, steps=5, count=3)
    images = draw.draw(digits, 3, torch.tensor([1, 2, 3]), steps=5, batch_size=2, watch=film.add)
    film.save(tmp_path / f"film.{kind}", columns=3, zoom=2)
    assert (torch.cat(film.frames[5]) == images).all() and sorted(film.frames) == [1, 2, 3, 4, 5]
    rough = [torch.cat(film.frames[n]).float().diff(dim=-1).abs().mean() for n in (1, 5)]
    assert rough[0] > 2 * rough[1]  # noise first
    with Image.open(tmp_path / f"film.{kind}") as shown:
        assert shown.n_frames == 5 and shown.size == (3 * 56 + 2 * 2, 56) and shown.info.get("loop", 0) == 0
        shown.seek(4)
        seen = np.asarray(shown.convert("L")).astype(int)[:, :56]
    wanted = draw.zoomed(images[:1], 2)[0, 0].numpy().astype(int)
    assert abs(seen - wanted).mean() < 12


def test_a_long_film_keeps_sixty_frames_the_last_among_them(digits):
    film = draw.Film(digits, steps=1000, count=1)
    assert len(film.frames) <= draw.FRAMES and max(film.frames) == 1000 and 0 not in film.frames


def test_arrays_are_kept_as_load_images_reads_them(tmp_path):
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    labels = torch.tensor([1, 0, 1, 1])
    draw.save_npz(tmp_path / "x.npz", images, labels, ["a", "b"])
    back = load_images(tmp_path / "x.npz")
    assert (back.images == images).all() and (back.labels == labels).all() and back.classes == ("a", "b")
