import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm_lib import data
from ddpm_lib.data import (
    DATASETS,
    EMBEDDED,
    ImageSet,
    batches,
    describe,
    get,
    load_images,
    to_float,
    to_uint8,
)

SUBSETS = [name for name in DATASETS if not DATASETS[name].torchvision]
FULL_SETS = [name for name in DATASETS if DATASETS[name].torchvision]


def numbered(count: int, c: int = 1, h: int = 2, w: int = 3) -> ImageSet:
    """A set whose image n is recognised by its label n, and whose rows are not symmetric."""
    images = (torch.arange(count * c * h * w) % 251).to(torch.uint8).reshape(count, c, h, w)
    return ImageSet(images, torch.arange(count), tuple(map(str, range(count))), "numbered", "train")


def first(count: int, *args, **kwargs):
    return list(islice(batches(*args, **kwargs), count))


def same(left, right) -> bool:
    return all(
        torch.equal(a, b)
        for one, other in zip(left, right, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def raises(error: type[Exception], *words: str):
    """The error, with all these words, on one line."""
    return pytest.raises(
        error, match=r"\A" + "".join(f"(?=.*{re.escape(word)})" for word in words) + r"[^\n]*\Z"
    )


def picture(path: Path, size=(4, 4), mode="RGB", shade=100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (
        shade
        if len(Image.new(mode, (1, 1)).getbands()) == 1
        else (shade,) * len(Image.new(mode, (1, 1)).getbands())
    )
    Image.new(mode, size, colour).save(path)
    return path


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# A busy machine may take its time over a single example.
unhurried = settings(deadline=None)


# Batches


@unhurried
@given(
    count=st.integers(1, 40),
    per_rank=st.integers(1, 30),
    world=st.integers(1, 4),
    seed=st.integers(0, 2**40),
    epochs=st.integers(1, 3),
)
def test_every_epoch_uses_every_image_once(count, per_rank, world, seed, epochs):
    size = per_rank * world
    steps = -(-epochs * count // size)
    streams = [
        first(steps, numbered(count), size, seed=seed, rank=rank, world=world) for rank in range(world)
    ]
    seen = torch.cat(
        [torch.stack([y for _, y in step], dim=1).flatten() for step in zip(*streams, strict=True)]
    )
    for epoch in seen[: epochs * count].split(count):
        assert sorted(epoch.tolist()) == list(range(count))


@unhurried
@given(
    count=st.integers(1, 40),
    size=st.integers(1, 60),
    start=st.integers(0, 25),
    seed=st.integers(),
    flip=st.booleans(),
)
def test_restart_continues_the_uninterrupted_stream(count, size, start, seed, flip):
    images = numbered(count)
    whole = first(start + 4, images, size, seed=seed, flip=flip)
    assert same(whole[start:], first(4, images, size, seed=seed, flip=flip, start=start))


@unhurried
@given(count=st.integers(1, 40), per_rank=st.integers(1, 12), world=st.integers(1, 5), flip=st.booleans())
def test_ranks_together_see_what_one_process_sees(count, per_rank, world, flip):
    images, size = numbered(count), per_rank * world
    alone = first(5, images, size, flip=flip)
    ranks = [first(5, images, size, flip=flip, rank=rank, world=world) for rank in range(world)]
    for k, (x, y) in enumerate(alone):
        assert torch.equal(x, torch.stack([rank[k][0] for rank in ranks], dim=1).flatten(0, 1))
        assert torch.equal(y, torch.stack([rank[k][1] for rank in ranks], dim=1).flatten())


@unhurried
@given(count=st.integers(1, 20), size=st.integers(1, 30), flip=st.booleans())
def test_each_image_keeps_its_label_and_its_pixels(count, size, flip):
    images = numbered(count, c=3)
    for x, y in first(3, images, size, flip=flip):
        assert x.dtype == torch.float32 and x.shape == (size, 3, 2, 3)
        straight, mirrored = to_float(images.images[y]), to_float(images.images[y]).flip(-1)
        kept, turned = ((x == other).flatten(1).all(1) for other in (straight, mirrored))
        assert (kept | turned).all() and (flip or kept.all())


def test_every_image_of_every_batch_has_its_own_fair_coin():
    images = numbered(10)
    flipped = [
        (x != to_float(images.images[y])).flatten(1).any(1) for x, y in first(400, images, 10, flip=True)
    ]
    flipped = torch.stack(flipped).float()
    # 4,000 fair coins, 400 of them a column: five standard errors.
    assert abs(flipped.mean() - 0.5) < 5 * 0.5 / 4_000**0.5
    assert ((flipped.mean(0) - 0.5).abs() < 5 * 0.5 / 400**0.5).all()
    # One coin for a whole batch would have the mean right too, with a variance of 0.25.
    assert flipped.mean(1).var() < 2 * 0.25 / 10
    assert not torch.equal(flipped[0], flipped[1])


def test_epochs_and_seeds_differ():
    images = numbered(50)
    orders = {tuple(y.tolist()) for seed in range(4) for _, y in first(4, images, 50, seed=seed)}
    assert len(orders) == 16


def test_flips_do_not_change_the_order():
    images = numbered(30)
    assert all(
        torch.equal(a[1], b[1])
        for a, b in zip(first(6, images, 8), first(6, images, 8, flip=True), strict=True)
    )


def test_batches_leave_the_set_alone():
    images = numbered(12)
    before = images.images.clone()
    for x, _ in first(4, images, 5, flip=True):
        x.zero_()
    assert torch.equal(images.images, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_equal_those_on_the_cpu():
    images = numbered(40, c=3)
    on_gpu = [(x.cpu(), y.cpu()) for x, y in first(6, images, 16, flip=True, device="cuda")]
    assert same(on_gpu, first(6, images, 16, flip=True))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"batch_size": 0}, ["batch size 0", "at least 1"]),
        ({"batch_size": -3}, ["batch size -3"]),
        ({"batch_size": 5, "world": 2}, ["5", "not divisible by 2", "6"]),
        ({"batch_size": 4, "rank": 2, "world": 2}, ["rank 2 of 2"]),
        ({"batch_size": 4, "rank": -1, "world": 2}, ["rank -1"]),
        ({"batch_size": 4, "world": 0}, ["rank 0 of 0"]),
        ({"batch_size": 4, "start": -1}, ["start -1"]),
    ],
)
def test_bad_batches_are_refused_at_the_call(bad, words):
    with raises(ValueError, *words):
        batches(numbered(8), **bad)


# Scaling and resizing


def test_scaling_there_and_back_is_exact():
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_float(levels)
    assert x.dtype == torch.float32 and x[0] == -1 and x[255] == 1
    assert torch.equal(to_uint8(x), levels)
    assert torch.equal(to_uint8(x.double()), levels)


@unhurried
@given(st.floats(-4, 4))
def test_to_uint8_rounds_to_nearest_and_clamps(value):
    level = to_uint8(torch.tensor([value], dtype=torch.float64)).item()
    assert abs(level - min(max((value + 1) * 127.5, 0), 255)) <= 0.5 + 1e-4


@pytest.mark.parametrize("bad", [torch.zeros(2), torch.zeros(2, dtype=torch.int64)])
def test_to_float_takes_uint8_only(bad):
    with raises(ValueError, "uint8"):
        to_float(bad)


def test_to_uint8_refuses_what_is_no_image():
    with raises(ValueError, "NaN", "diverged"):
        to_uint8(torch.tensor([0.0, float("nan")]))
    with raises(ValueError, "floating-point", "uint8"):
        to_uint8(torch.zeros(2, dtype=torch.uint8))


@unhurried
@given(
    level=st.integers(0, 255),
    c=st.sampled_from([1, 3]),
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    size=st.integers(1, 70),
    channels=st.sampled_from([None, 1, 3]),
)
def test_a_constant_image_stays_constant(level, c, h, w, size, channels):
    images = ImageSet(
        torch.full((2, c, h, w), level, dtype=torch.uint8),
        torch.zeros(2, dtype=torch.int64),
        ("a",),
        "x",
        "train",
    )
    resized = images.resized(size, channels)
    assert resized.images.shape == (2, channels or c, size, size)
    assert (resized.images == level).all() and resized.images.dtype == torch.uint8


def test_resizing_agrees_with_pillow():
    digits = load_images("cifar10", "test")
    for size in (12, 28, 64):
        ours = digits.resized(size).images[:20].permute(0, 2, 3, 1).numpy().astype(int)
        for image, found in zip(digits.images[:20].permute(0, 2, 3, 1).numpy(), ours, strict=True):
            expected = np.asarray(
                Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
            ).astype(int)
            assert np.abs(found - expected).max() <= 1


def test_channels():
    digits, objects = load_images("mnist", "test"), load_images("cifar10", "test")
    coloured = digits.resized(channels=3)
    assert all(torch.equal(coloured.images[:, [c]], digits.images) for c in range(3))
    assert torch.equal(coloured.resized(channels=1).images, digits.images)
    grey = objects.resized(channels=1).images[0, 0].numpy().astype(int)
    pillow = np.asarray(Image.fromarray(objects.images[0].permute(1, 2, 0).numpy()).convert("L")).astype(int)
    assert np.abs(grey - pillow).max() <= 1


def test_pieces_do_not_show():
    objects = load_images("cifar10", channels=1, size=64)
    few = load_images("cifar10")
    few = ImageSet(few.images[-3:], few.labels[-3:], few.classes, few.name, few.split).resized(64, 1)
    assert torch.equal(objects.images[-3:], few.images)


def test_an_oblong_image_keeps_its_centre():
    wide = torch.zeros(1, 1, 4, 10, dtype=torch.uint8)
    wide[..., 3:7] = 200
    images = ImageSet(wide, torch.zeros(1, dtype=torch.int64), ("a",), "wide", "train")
    assert (images.resized(4).images == 200).all()


@pytest.mark.parametrize("size", [0, -1, 2.5, "28", True])
def test_bad_size(size):
    with raises(ValueError, "size", repr(size)):
        load_images("mnist", size=size)


@pytest.mark.parametrize("channels", [0, 2, 4, "3", True])
def test_bad_channels(channels):
    with raises(ValueError, "channels", repr(channels), "1 (grey) or 3 (colour)"):
        load_images("mnist", channels=channels)


# The embedded subsets


@pytest.mark.parametrize("name", SUBSETS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_subset_is_what_the_data_card_says(name, split):
    subset, known = load_images(name, split), DATASETS[name]
    count = getattr(known, split)
    assert subset.images.shape == (count, *known.shape) and len(subset) == count
    assert subset.labels.bincount().tolist() == [count // 10] * 10
    assert torch.equal(subset.labels[:20], torch.arange(20) % 10)
    row = re.search(
        rf"`{name}-{split}.webp` \| ([\d,]+) \| ([\d,]+) \| `(\w+)`", (EMBEDDED / "DATA_CARD.md").read_text()
    )
    assert int(row[1].replace(",", "")) == count
    assert int(row[2].replace(",", "")) == (EMBEDDED / f"{name}-{split}.webp").stat().st_size
    assert row[3] == hashlib.sha256(subset.images.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("name", SUBSETS)
def test_no_image_is_in_both_splits_or_twice_in_one(name):
    images = [
        image.numpy().tobytes() for split in ("train", "test") for image in load_images(name, split).images
    ]
    assert len(set(images)) == len(images)


def test_labels_fit_the_pictures():
    # The nearest class mean is right for four digits in five; with shuffled labels for one in ten.
    train, test = load_images("mnist"), load_images("mnist", "test")
    means = torch.stack(
        [to_float(train.images[train.labels == label]).mean(0).flatten() for label in range(10)]
    )
    guesses = torch.cdist(to_float(test.images).flatten(1), means).argmin(1)
    assert (guesses == test.labels).float().mean() > 0.75


def test_changing_images_in_place_does_not_reach_the_next_reader():
    mine = load_images("mnist", "test")
    mine.images.zero_()
    assert load_images("mnist", "test").images.any()


def test_importing_the_module_brings_no_pillow_and_no_torchvision():
    code = "import sys, ddpm_lib.data; print({'torchvision', 'PIL', 'matplotlib'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_describe_has_a_row_for_every_name(tmp_path):
    rows = describe(tmp_path)
    assert [row["name"] for row in rows] == list(DATASETS)
    assert {row["name"]: row["here"] for row in rows} == {
        name: "yes" if name in SUBSETS else "no" for name in DATASETS
    }
    assert not contents(tmp_path)


# Names


@pytest.mark.parametrize(
    ("typed", "meant"), [("mnits", "mnist"), ("MNIST", "mnist"), ("cifar-10", "cifar10")]
)
def test_a_mistyped_name_is_recognised(typed, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for ask in (load_images, get):
        with raises(ValueError, repr(typed), f"did you mean {meant}?", *DATASETS):
            ask(typed)
    assert not contents(tmp_path)


def test_unknown_names_paths_and_splits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with raises(ValueError, "unknown data set 'zebras'", "folder of pictures", ".npz", *DATASETS):
        load_images("zebras")
    with raises(ValueError, "unknown data set ''"):
        load_images("")
    with raises(FileNotFoundError, "zebras", "not found"):
        load_images("some/zebras")
    with raises(FileNotFoundError, "zebras.npz", "not found"):
        load_images("zebras.npz")
    with raises(ValueError, "'valid'", "train, test"):
        load_images("mnist", "valid")
    (tmp_path / "notes.txt").write_text("zebras")
    with raises(ValueError, "notes.txt", "neither a folder of pictures nor an .npz"):
        load_images("notes.txt")


def test_a_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "mnist" / "a.png")
    assert len(load_images("mnist", "test")) == 1_000
    assert len(load_images("./mnist")) == 1


# Folders


@settings(max_examples=10, deadline=None)
@given(
    count=st.integers(1, 12),
    c=st.sampled_from([1, 3]),
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_npz_and_folder_give_back_what_was_saved(tmp_path_factory, count, c, h, w, seed):
    folder = tmp_path_factory.mktemp("round")
    g = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, h, w, c), generator=g, dtype=torch.uint8).numpy()
    labels = (torch.arange(count) % 3).sort().values
    classes = ("ant", "bee", "cat")[: int(labels.max()) + 1]
    np.savez(folder / "set.npz", images=pixels[..., 0] if c == 1 else pixels, labels=labels, classes=classes)
    for n, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / "set" / classes[label] / f"{n:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if c == 1 else image).save(path)
    for source in (folder / "set.npz", str(folder / "set")):
        loaded = load_images(source)
        assert np.array_equal(loaded.images.permute(0, 2, 3, 1).numpy(), pixels)
        assert torch.equal(loaded.labels, labels) and loaded.classes == classes
        assert (loaded.name, loaded.split) == (str(source), "train")
        assert torch.equal(load_images(source, size=5, channels=3).images, loaded.resized(5, 3).images)


def test_a_flat_folder_is_one_class_and_what_is_no_picture_is_ignored(tmp_path):
    picture(tmp_path / "b.PNG", shade=2)
    picture(tmp_path / "a.webp", shade=1)
    picture(tmp_path / ".ipynb_checkpoints" / "a.png")
    (tmp_path / "._a.png").write_bytes(b"left by an unpacker")
    (tmp_path / "labels.txt").write_text("a b")
    loaded = load_images(tmp_path)
    assert loaded.classes == ("all",) and loaded.labels.tolist() == [0, 0] and len(loaded) == 2


def test_both_splits_number_their_classes_alike(tmp_path):
    for path in ("train/ant/1.png", "train/bee/1.png", "train/cat/1.png", "test/cat/1.png"):
        picture(tmp_path / path)
    assert load_images(tmp_path).labels.tolist() == [0, 1, 2]
    test = load_images(tmp_path, "test")
    assert test.labels.tolist() == [2] and test.classes == ("ant", "bee", "cat") and test.split == "test"
    picture(tmp_path / "test" / "dog" / "1.png")
    with raises(ValueError, "test has classes that train lacks", "dog"):
        load_images(tmp_path, "test")


def test_a_class_may_be_called_train(tmp_path):
    picture(tmp_path / "train" / "1.png")
    picture(tmp_path / "bus" / "1.png")
    assert load_images(tmp_path).classes == ("bus", "train")


def test_no_test_split(tmp_path):
    picture(tmp_path / "set" / "ant" / "1.png")
    np.savez(tmp_path / "set.npz", images=np.zeros((1, 2, 2), np.uint8), labels=[0])
    for source in (tmp_path / "set", tmp_path / "set.npz"):
        with raises(ValueError, "no test split", str(source)):
            load_images(source, "test")


def test_a_folder_without_images(tmp_path):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("no ants")
    with raises(ValueError, str(tmp_path), "no pictures", ".png"):
        load_images(tmp_path)


def test_pictures_beside_class_folders(tmp_path):
    picture(tmp_path / "ant" / "1.png")
    picture(tmp_path / "stray.png")
    with raises(ValueError, "stray.png", "class folders"):
        load_images(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_corrupt_picture_is_named_and_skipped_only_when_asked(tmp_path, damage):
    for n in range(3):
        rng = np.random.default_rng(n)
        path = tmp_path / "ant" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(path)
    bad = tmp_path / "ant" / "1.png"
    whole = bad.read_bytes()
    bad.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not a picture"}[damage])
    before = contents(tmp_path)
    with raises(ValueError, str(bad), "cannot be read", "skip_corrupt"):
        load_images(tmp_path)
    with pytest.warns(UserWarning, match=r"left out 1 of 3 .*1\.png") as caught:
        loaded = load_images(tmp_path, skip_corrupt=True)
    assert caught[0].filename == __file__
    assert len(loaded) == 2 and loaded.labels.tolist() == [0, 0]
    for path in (tmp_path / "ant").iterdir():
        path.write_bytes(b"")
    with raises(ValueError, "none of the 3 pictures"):
        load_images(tmp_path, skip_corrupt=True)
    assert contents(tmp_path) == before


def test_mixed_sizes(tmp_path):
    one, other = picture(tmp_path / "1.png", (4, 4)), picture(tmp_path / "2.png", (6, 5))
    with raises(ValueError, f"{one} is 4 x 4", f"{other} is 6 x 5", "size=32"):
        load_images(tmp_path)
    assert load_images(tmp_path, size=8).images.shape == (2, 3, 8, 8)


def test_mixed_modes(tmp_path):
    one, other = picture(tmp_path / "1.png", mode="L"), picture(tmp_path / "2.png", mode="RGB")
    with raises(ValueError, f"{one} is grey", f"{other} is colour", "channels=3"):
        load_images(tmp_path)
    for channels in (1, 3):
        assert (load_images(tmp_path, channels=channels).images == 100).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes(tmp_path, mode):
    clear = Image.new(mode, (4, 4), 0 if mode in ("1", "L", "P") else (0,) * len(mode))
    clear.save(tmp_path / ("1.tif" if mode == "CMYK" else "1.png"))
    loaded = load_images(tmp_path).images
    assert loaded.shape[1] == (1 if mode in ("1", "L", "LA") else 3)
    # What is transparent becomes white, and no ink at all is white too; the rest is black.
    assert (loaded == (255 if mode in ("LA", "RGBA", "CMYK") else 0)).all()


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with raises(ValueError, "deep.png", "8 bits"):
        load_images(tmp_path)


def test_a_turned_photograph_is_turned_back(tmp_path):
    upright = np.zeros((6, 4, 3), np.uint8)
    upright[:3] = 255
    exif = Image.Exif()
    exif[274] = 6  # orientation: the camera lay on its side, turn a quarter clockwise to see it upright
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_images(tmp_path).images[0].permute(1, 2, 0).numpy(), upright)


# .npz


IMAGES, LABELS = np.zeros((4, 5, 5), np.uint8), np.arange(4)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": IMAGES, "y": LABELS}, ["needs the arrays images and labels", "x, y"]),
        ({"images": IMAGES}, ["needs the arrays images and labels", "has: images"]),
        ({"images": IMAGES / 255, "labels": LABELS}, ["images must be uint8", "float64"]),
        ({"images": IMAGES[0], "labels": LABELS}, ["(N, H, W)", "(5, 5)"]),
        (
            {"images": np.zeros((4, 3, 5, 5), np.uint8), "labels": LABELS},
            ["(4, 3, 5, 5)", "transpose(0, 2, 3, 1)"],
        ),
        ({"images": np.zeros((4, 5, 5, 2), np.uint8), "labels": LABELS}, ["(4, 5, 5, 2)", "C = 1 or 3"]),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, ["no images"]),
        ({"images": IMAGES, "labels": LABELS[:3]}, ["labels", "(4,)", "(3,)"]),
        ({"images": IMAGES, "labels": LABELS / 2}, ["labels must be integers", "float64"]),
        ({"images": IMAGES, "labels": LABELS[:, None]}, ["labels", "(4, 1)"]),
        ({"images": IMAGES, "labels": LABELS - 1}, ["label -1 is out of range"]),
        ({"images": IMAGES, "labels": LABELS, "classes": ["a", "b"]}, ["label 3 is out of range", "0 to 1"]),
        ({"images": IMAGES, "labels": LABELS + 10**12}, ["1000000000003", "no array classes"]),
        ({"images": IMAGES, "labels": LABELS, "classes": 4}, ["classes must be a list of names"]),
        ({"images": IMAGES, "labels": LABELS.astype(object)}, ["pickled objects", "save plain arrays"]),
    ],
)
def test_a_bad_npz_says_what_is_wrong(tmp_path, arrays, words):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    with raises(ValueError, str(path), *words):
        load_images(path)
    assert contents(tmp_path) == {"set.npz"}


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 0.999), compressed=st.booleans())
def test_a_truncated_npz(tmp_path_factory, share, compressed):
    path = tmp_path_factory.mktemp("npz") / "set.npz"
    (np.savez_compressed if compressed else np.savez)(path, images=IMAGES, labels=LABELS)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with raises(ValueError, str(path), "truncated or not an .npz"):
        load_images(path)


def test_a_flipped_byte_in_an_npz(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, images=IMAGES + 7, labels=LABELS)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"\7" * 50) + 20] ^= 255
    path.write_bytes(damaged)
    with raises(ValueError, str(path), "cannot be read"):
        load_images(path)


def test_a_pickle_called_npz_is_never_run(tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes(b"cos\nmkdir\n(S'" + str(tmp_path / "owned").encode() + b"'\ntR.")
    with raises(ValueError, str(path), "not an .npz"):
        load_images(path)
    assert contents(tmp_path) == {"set.npz"}


def test_an_image_set_checks_its_parts():
    images, labels = torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.tensor([0, 1])
    for bad, words in [
        ({"images": images.float()}, ["uint8", "float32"]),
        ({"images": images[0]}, ["(N, C, H, W)", "(1, 3, 3)"]),
        ({"labels": labels.int()}, ["int64", "int32"]),
        ({"labels": labels[:1]}, ["(2,)", "(1,)"]),
        ({"classes": ("a",)}, ["label 1 is out of range"]),
        ({"split": "valid"}, ["'valid'", "train, test"]),
    ]:
        with raises(ValueError, *words):
            ImageSet(
                **{
                    "images": images,
                    "labels": labels,
                    "classes": ("a", "b"),
                    "name": "x",
                    "split": "train",
                    **bad,
                }
            )


# Full sets


@pytest.fixture
def no_network(monkeypatch):
    pytest.importorskip("torchvision")

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.parametrize("name", FULL_SETS)
def test_without_a_network_the_embedded_subset_is_named(name, tmp_path, no_network):
    known = DATASETS[name]
    for ask in (load_images, get):
        with raises(
            OSError, name, "no route to host", f"--data {known.stand_in}", known.archives[0], str(tmp_path)
        ):
            ask(name, root=tmp_path)
    assert not contents(tmp_path)
    assert f"{DATASETS[known.stand_in].train:,} images, in the package" in str(
        pytest.raises(OSError, get, name, tmp_path).value
    )


def test_the_cache_folder_is_taken_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_LIB_DATA", str(tmp_path))
    assert data.data_folder() == tmp_path and data.data_folder("elsewhere") == Path("elsewhere")
    monkeypatch.delenv("DDPM_LIB_DATA")
    assert data.data_folder().name == "ddpm_lib"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files: 0, 0, type, number of axes, lengths as big-endian int32, bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.fixture
def tiny_mnist(monkeypatch):
    """torchvision's MNIST with archives of 5 and 3 images, and a network that serves them."""
    torchvision = pytest.importorskip("torchvision")
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 5), ("t10k", 3)):
        parts[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(
            idx(rng.integers(256, size=(count, 28, 28), dtype=np.uint8))
        )
        parts[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(count, dtype=np.uint8)))
    sums = [(name, md5(content)) for name, content in parts.items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    parts["requests"] = []

    class Answer(io.BytesIO):
        def __init__(self, url):
            super().__init__(parts[url.rsplit("/", 1)[1]])
            self.url, self.length = url, len(self.getbuffer())

    def serve(request, *args, **kwargs):
        parts["requests"].append(request.full_url)
        return Answer(request.full_url)

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    return parts


def test_fetching_shows_progress_leaves_only_the_files_and_happens_once(tiny_mnist, tmp_path, capfd):
    assert get("mnist-full", tmp_path) == tmp_path
    assert "100%" in capfd.readouterr().err
    files = {path for path in contents(tmp_path) if (tmp_path / path).is_file()}
    assert files == set(DATASETS["mnist-full"].files)
    asked = len(tiny_mnist["requests"])
    train, test = (
        load_images("mnist-full", root=tmp_path),
        load_images("mnist-full", "test", size=32, root=tmp_path),
    )
    assert train.images.shape == (5, 1, 28, 28) and test.images.shape == (3, 1, 32, 32)
    assert train.labels.tolist() == [0, 1, 2, 3, 4] and len(tiny_mnist["requests"]) == asked


@pytest.mark.parametrize("damage", ["cut short", "wrong"])
def test_what_is_half_fetched_is_never_taken_for_complete(tiny_mnist, tmp_path, damage):
    name = "t10k-images-idx3-ubyte.gz"
    whole = tiny_mnist[name]
    tiny_mnist[name] = whole[:100] if damage == "cut short" else whole[:-1] + b"\0\0"
    with raises(OSError, "could not fetch mnist-full", "--data mnist"):
        get("mnist-full", tmp_path)
    assert not contents(tmp_path)
    tiny_mnist[name] = whole
    assert len(load_images("mnist-full", "test", root=tmp_path)) == 3


def test_interrupting_leaves_nothing(tiny_mnist, tmp_path, monkeypatch):
    serve = urllib.request.urlopen

    def interrupted(request, *args, **kwargs):
        if "t10k" in request.full_url:
            raise KeyboardInterrupt
        return serve(request)

    monkeypatch.setattr(urllib.request, "urlopen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get("mnist-full", tmp_path)
    assert not contents(tmp_path)


def test_archives_put_there_by_hand_need_no_network(tiny_mnist, tmp_path, monkeypatch):
    for archive in DATASETS["mnist-full"].archives:
        (tmp_path / archive).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / archive).write_bytes(tiny_mnist[Path(archive).name])
    assert len(load_images("mnist-full", root=tmp_path)) == 5
    assert not tiny_mnist["requests"]


def test_full_cifar10_is_read_from_an_archive_put_there_by_hand(tmp_path, monkeypatch, no_network):
    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    parts = {f"data_batch_{n}": [n % 10, 7] for n in range(1, 6)} | {"test_batch": [3, 9, 0]}
    pixels = {
        name: rng.integers(256, size=(len(labels), 3, 32, 32), dtype=np.uint8)
        for name, labels in parts.items()
    }
    files = {name: {"data": pixels[name].reshape(-1, 3072), "labels": parts[name]} for name in parts}
    files["batches.meta"] = {"label_names": list(DATASETS["cifar10"].classes)}
    files = {name: pickle.dumps(content) for name, content in files.items()}
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5((tmp_path / "cifar-10-python.tar.gz").read_bytes()))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(files[name])] for name in files if "data" in name])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(files["batches.meta"])})

    train, test = (load_images("cifar10-full", split, root=tmp_path) for split in ("train", "test"))
    assert train.labels.tolist() == [1, 7, 2, 7, 3, 7, 4, 7, 5, 7] and test.labels.tolist() == [3, 9, 0]
    assert np.array_equal(test.images.numpy(), pixels["test_batch"]) and test.classes[3] == "cat"
    assert {row["name"]: row["here"] for row in describe(tmp_path)}["cifar10-full"] == "yes"
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(files["test_batch"][:-1])
    with raises(ValueError, "cifar10-full", "damaged"):
        load_images("cifar10-full", root=tmp_path)


def test_damaged_files_are_named(tiny_mnist, tmp_path):
    get("mnist-full", tmp_path)
    file = tmp_path / DATASETS["mnist-full"].files[0]
    for content in (file.read_bytes()[:1000], b""):
        file.write_bytes(content)
        with raises(ValueError, "mnist-full", str(file.parent), "damaged", "delete"):
            load_images("mnist-full", root=tmp_path)


def test_a_full_disk_is_told_as_such(tiny_mnist, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with raises(OSError, "No space left on device"):
        get("mnist-full", tmp_path)
    assert not [path for path in contents(tmp_path) if (tmp_path / path).is_file()]


def test_without_torchvision(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with raises(ValueError, "mnist-full needs torchvision", "use mnist"):
        load_images("mnist-full", root=tmp_path)
    assert not contents(tmp_path)


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data._decoded.cache_clear()
        for name in SUBSETS:
            next(batches(load_images(name, "test", size=32, channels=3), 16, flip=True))


# The cutting tool


@pytest.fixture(scope="module")
def cut():
    path = Path(__file__).parents[2] / "experiments" / "cut_subsets.py"
    namespace = {"__name__": "cut_subsets", "__file__": str(path)}
    exec(compile(path.read_text(), path, "exec"), namespace)
    return namespace


@unhurried
@given(count=st.integers(1, 30), extra=st.integers(0, 60))
def test_spacing_is_even_and_never_repeats(cut, count, extra):
    full = count + extra
    chosen = cut["spaced"](torch.arange(full), count).tolist()
    assert len(set(chosen)) == count and chosen == sorted(chosen)
    gaps = {b - a for a, b in zip(chosen, chosen[1:], strict=False)}
    assert gaps <= {full // count, -(-full // count)}
    assert abs(chosen[0] - (full - 1 - chosen[-1])) <= 1


def test_a_written_mosaic_reads_back_and_does_not_depend_on_the_order(cut, tmp_path, monkeypatch, capsys):
    full = load_images("cifar10")
    shuffled = torch.randperm(len(full), generator=torch.Generator().manual_seed(0))
    other = ImageSet(full.images[shuffled], full.labels[shuffled], full.classes, "shuffled", "train")
    one, two = cut["cut_cifar10"](full, "test"), cut["cut_cifar10"](other, "test")
    assert torch.equal(one, two)
    monkeypatch.setattr(data, "EMBEDDED", tmp_path)
    for name, images in (("cifar10", one[:100]), ("mnist", load_images("mnist", "test").images[:200])):
        cut["write"](name, "test", images, tmp_path, effort=0)
        assert torch.equal(data._decoded.__wrapped__(name, "test"), images)
        assert hashlib.sha256(images.numpy().tobytes()).hexdigest() in capsys.readouterr().out


@pytest.mark.skipif(not os.environ.get("DDPM_LIB_DATA"), reason="needs the full MNIST (set DDPM_LIB_DATA)")
def test_the_embedded_mnist_is_cut_from_the_full_one(cut):
    if not (data.data_folder() / DATASETS["mnist-full"].files[0]).is_file():
        pytest.skip("the full MNIST is not in DDPM_LIB_DATA")
    for split in ("train", "test"):
        assert torch.equal(
            cut["cut_mnist"](load_images("mnist-full", split), split), load_images("mnist", split).images
        )


def test_a_full_set_may_lie_there_as_two_npz_files(tmp_path, monkeypatch, no_network):
    small = dataclasses.replace(DATASETS["cifar10-full"], train=3, test=2)
    monkeypatch.setitem(DATASETS, "cifar10-full", small)
    rng = np.random.default_rng(0)
    pixels = {n: rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8) for n in (3, 2)}
    for split, count in (("train", 3), ("test", 2)):
        assert {row["name"]: row["here"] for row in describe(tmp_path)}["cifar10-full"] == "no"
        np.savez(
            tmp_path / f"cifar10-{split}.npz",
            images=pixels[count],
            labels=np.arange(count),
            classes=small.classes,
        )
    train, test = (load_images("cifar10-full", split, root=tmp_path) for split in ("train", "test"))
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), pixels[2])
    assert (train.name, train.split, test.split) == ("cifar10-full", "train", "test") and len(train) == 3
    np.savez(tmp_path / "cifar10-test.npz", images=pixels[3], labels=np.arange(3), classes=small.classes)
    with raises(ValueError, "cifar10-test.npz", "expected (2, 3, 32, 32)"):
        load_images("cifar10-full", "test", root=tmp_path)
