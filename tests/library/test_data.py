import hashlib
import io
import os
import re
import time
import warnings
import zipfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm_lib import data
from ddpm_lib.data import DATASETS, ImageSet, batches, load_images, to_float, to_uint8


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
        ({"batch_size": 8.0}, ["batch size 8.0", "whole number", "--batch-size 128"]),
        ({"batch_size": np.float64(8)}, ["batch size", "whole number"]),
        ({"batch_size": True}, ["batch size True", "whole number"]),
        ({"batch_size": "8"}, ["batch size '8'", "whole number"]),
        ({"batch_size": None}, ["batch size None", "whole number"]),
        ({"batch_size": 4, "start": 1.0}, ["start 1.0", "whole number"]),
        ({"batch_size": 4, "rank": 0.0, "world": 2}, ["rank 0.0", "whole number"]),
        ({"batch_size": 4, "world": "2"}, ["world '2'", "whole number"]),
    ],
)
def test_bad_batches_are_refused_at_the_call(bad, words):
    with raises(ValueError, *words):
        batches(numbered(8), **bad)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_whole_numbers_of_every_library_are_whole(kind):
    images = numbered(9, c=3, h=4, w=4)
    plain = first(2, images, 4, start=3, rank=1, world=2)
    assert same(plain, first(2, images, kind(4), start=kind(3), rank=kind(1), world=kind(2)))
    assert torch.equal(images.resized(kind(2), kind(1)).images, images.resized(2, 1).images)


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


@pytest.mark.parametrize("channels", [0, 2, 4, "3", True, 3.0])
def test_bad_channels(channels):
    with raises(ValueError, "channels", repr(channels), "1 (grey) or 3 (colour)"):
        load_images("mnist", channels=channels)


def test_a_size_that_memory_cannot_hold_is_refused(monkeypatch):
    digits = load_images("mnist", "test")
    monkeypatch.setattr(data, "_machine_memory", lambda: 2 * 1_000 * 64 * 64)
    assert digits.resized(64).images.shape == (1_000, 1, 64, 64)
    for size, channels in ((65, None), (64, 3)):
        with raises(ValueError, "mnist", f"1,000 images of {size} x {size}", "give a smaller size"):
            digits.resized(size, channels)
    monkeypatch.setattr(data, "_machine_memory", lambda: 1)
    assert digits.resized(28).images.shape == digits.images.shape  # nothing new is needed


def test_this_machine_says_how_much_memory_it_has():
    assert 2**28 < data._machine_memory() < 2**50


# What a set says of itself


def a_set(images=None, labels=(0, 2, 0, 2, 2), classes=("ant", "bee", "cat")) -> ImageSet:
    if images is None:
        images = torch.arange(5 * 3 * 2 * 4).to(torch.uint8).reshape(5, 3, 2, 4)
    return ImageSet(images, torch.tensor(labels), classes, "a set", "train")


def test_counts_are_in_the_order_of_the_classes():
    assert list(a_set().counts.items()) == [("ant", 2), ("bee", 0), ("cat", 3)]
    assert a_set(classes=("z", "a", "z")).counts == {"z": 5, "a": 0}
    assert set(load_images("cifar10", "test").counts.values()) == {50}


def test_a_digest_is_the_hash_of_the_shape_the_images_and_the_labels():
    images = a_set()
    content = b"(5, 3, 2, 4)" + bytes(range(120)) + np.array([0, 2, 0, 2, 2], "<i8").tobytes()
    assert images.digest() == hashlib.blake2b(content, digest_size=8).hexdigest()
    assert images.digest() == a_set(classes=("x", "y", "z")).digest() and len(images.digest()) == 16


def test_a_digest_knows_every_change():
    images = a_set()
    pixel = images.images.clone()
    pixel[4, 2, 1, 3] ^= 1
    others = [
        a_set(pixel),
        a_set(labels=(0, 2, 0, 2, 1)),
        a_set(images.images.reshape(5, 3, 4, 2)),
        a_set(images.images.flip(0)),
        a_set(images.images[:4], labels=(0, 2, 0, 2)),
    ]
    assert len({other.digest() for other in [images, *others]}) == 6


def test_a_digest_does_not_depend_on_how_the_images_lie_in_memory():
    images = a_set()
    assert a_set(images.images.contiguous(memory_format=torch.channels_last)).digest() == images.digest()
    assert a_set(images.images.repeat_interleave(2, 0)[::2]).digest() == images.digest()


def test_a_digest_of_all_of_cifar10_takes_well_under_a_second():
    full = a_set(torch.zeros(50_000, 3, 32, 32, dtype=torch.uint8), labels=[0] * 50_000)
    began = time.process_time()
    full.digest()
    assert time.process_time() - began < 1


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


def npz(path: Path, labels, **classes) -> Path:
    np.savez(path, images=np.zeros((len(labels), 2, 2), np.uint8), labels=labels, **classes)
    return path


@pytest.mark.parametrize(
    ("labels", "counts", "numbered"),
    [
        ([0, 7, 900, 7], {"0": 1, "7": 2, "900": 1}, [0, 1, 2, 1]),
        ([3, 1, 2], {"1": 1, "2": 1, "3": 1}, [2, 0, 1]),
        ([10, 9, 2], {"2": 1, "9": 1, "10": 1}, [2, 1, 0]),
        ([5, 5], {"5": 2}, [0, 0]),
    ],
)
@pytest.mark.parametrize("kind", [np.int64, np.uint16])
def test_labels_without_names_are_the_classes_that_occur(tmp_path, labels, counts, numbered, kind):
    path = npz(tmp_path / "a.npz", np.array(labels, kind))
    with pytest.warns(UserWarning, match=rf"a\.npz: .* {len(counts)} labels that occur") as caught:
        loaded = load_images(path)
    assert list(loaded.counts.items()) == list(counts.items()) and loaded.labels.tolist() == numbered
    assert loaded.labels.dtype == torch.int64 and caught[0].filename == __file__


def test_labels_that_count_from_nought_are_their_own_classes(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_images(npz(tmp_path / "a.npz", [2, 0, 1, 1]))
    assert loaded.classes == ("0", "1", "2") and loaded.labels.tolist() == [2, 0, 1, 1]


def test_a_class_that_was_named_and_has_no_picture_is_kept_and_said(tmp_path):
    path = npz(tmp_path / "a.npz", [0, 3], classes=["ant", "bee", "cat", "dog"])
    with pytest.warns(UserWarning) as caught:
        loaded = load_images(path)
    assert loaded.counts == {"ant": 1, "bee": 0, "cat": 0, "dog": 1} and loaded.labels.tolist() == [0, 3]
    assert [str(warning.message) for warning in caught] == [
        f"{path}: 2 of 4 classes have no image, the first is bee"
    ]
    assert caught[0].filename == __file__


def test_an_array_larger_than_memory_is_one_line(tmp_path):
    path, header = tmp_path / "a.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 999, 999)}
    )
    np.savez(path, labels=LABELS)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("images.npy", header.getvalue())
    with raises(ValueError, str(path), "cannot be read as an .npz", "allocate"):
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
