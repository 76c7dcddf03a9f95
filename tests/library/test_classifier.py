"""The judges: their stages, their files, and what they read of pictures that they never saw."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ddpm_lib.checkpoint import CheckpointError
from ddpm_lib.classifier import (
    Classifier,
    ClassifierConfig,
    _shifted,
    load_classifier,
    save_classifier,
    shipped_classifier,
)
from ddpm_lib.data import load_images, to_float
from ddpm_lib.metrics import label_accuracy


@pytest.mark.parametrize("early_pool", [False, True])
def test_every_stage_but_a_late_pools_last_halves_the_picture(early_pool):
    config = ClassifierConfig(3, 32, ("a", "b"), widths=(4, 6, 8), patch=1, early_pool=early_pool)
    net = Classifier(config).eval()
    x = torch.randn(2, 3, 32, 32)
    assert net.stages(x).shape == ((2, 8, 4, 4) if early_pool else (2, 8, 8, 8))
    assert net.features(x).shape == (2, 8) and net(x).shape == (2, 2)


@pytest.mark.parametrize(("name", "claimed", "here"), [("mnist", 0.99, 0.985), ("cifar10", 0.9, 0.87)])
def test_the_shipped_classifiers_read_test_images(name, claimed, here):
    """here: on the embedded test images, four standard errors below what is claimed of all of them."""
    test = load_images(name, "test")
    net, about = shipped_classifier(test.classes)
    with torch.no_grad():
        right = label_accuracy(net(to_float(test.images)), test.labels)
    assert about["test_accuracy"] >= claimed and about["test_images"] == 10_000 and right >= here


def test_images_are_moved_each_by_its_own_shift_and_mirrored_at_the_border():
    x = torch.arange(64.0).reshape(8, 8).expand(200, 1, 8, 8) + torch.arange(200.0)[:, None, None, None] * 64
    moved = _shifted(x, 2, torch.Generator().manual_seed(0))
    wide = torch.nn.functional.pad(x, (2,) * 4, mode="reflect")
    found = []
    for image, source in zip(moved[:, 0], wide[:, 0], strict=True):
        fits = [
            (dy, dx) for dy in range(5) for dx in range(5)
            if torch.equal(image, source[dy : dy + 8, dx : dx + 8])
        ]  # fmt: skip
        assert len(fits) == 1
        found += fits
    assert len(set(found)) == 25
    assert torch.equal(_shifted(x, 0, torch.Generator()), x)


SMALL = ClassifierConfig(1, 8, ("a", "b"), widths=(2, 4))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": [10**6, 10**6]}, "another architecture"),
        ({"widths": [2] * 10**6}, "another architecture"),
        ({"widths": [10**18, 4]}, "damaged"),
        ({"widths": [2.0, 4]}, "widths must be whole and at least 1"),
        ({"widths": []}, "widths must be"),
        ({"patch": 0}, "patch must be whole and at least 1, got 0"),
        ({"patch": "2"}, "patch must be"),
        ({"channels": True}, "channels must be"),
        ({"size": None}, "size must be"),
        ({"classes": []}, "classes must be names"),
        ({"classes": ["a", 2]}, "classes must be names"),
        ({"classes": ["a", "b", "c"]}, "another architecture"),
        ({"colour": 1}, "unexpected keyword"),
    ],
)  # fmt: skip
def test_a_header_that_does_not_fit_its_weights_is_refused_in_one_line(tmp_path, change, words):
    path = tmp_path / "c.safetensors"
    save_classifier(Classifier(SMALL), path, {})
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["ddpm_lib_classifier"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    header["classifier"] |= change
    save_file(tensors, path, metadata={"ddpm_lib_classifier": json.dumps(header)})
    with pytest.raises(CheckpointError, match=words) as caught:
        load_classifier(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_classifier_without_finite_weights_is_refused(tmp_path):
    net = Classifier(SMALL)
    with torch.no_grad():
        net.head.bias[0] = np.nan
    save_classifier(net, tmp_path / "c.safetensors", {})
    with pytest.raises(CheckpointError, match="not finite"):
        load_classifier(tmp_path / "c.safetensors")
