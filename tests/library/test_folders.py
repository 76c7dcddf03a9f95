import io
import os
import re
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, features

from ddpm_lib import data, folders
from ddpm_lib.data import NoSplit, load_images


def raises(error: type[Exception], *words: str):
    """The error, with all these words, on one line."""
    return pytest.raises(
        error, match=r"\A" + "".join(f"(?=.*{re.escape(word)})" for word in words) + r"[^\n]*\Z"
    )


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def picture(path: Path, size=(4, 4), mode="RGB", shade=100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (
        shade
        if len(Image.new(mode, (1, 1)).getbands()) == 1
        else (shade,) * len(Image.new(mode, (1, 1)).getbands())
    )
    Image.new(mode, size, colour).save(path)
    return path


def tree(folder: Path, *paths: str) -> Path:
    """A folder with these pictures, files of one byte for other suffixes, and folders for what ends in a slash."""
    for path in paths:
        if path.endswith("/"):
            (folder / path).mkdir(parents=True, exist_ok=True)
        elif path.endswith(".png"):
            picture(folder / path)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(b"x")
    return folder


def told(folder: Path, split: str = "train", **options) -> tuple[dict[str, int], str]:
    """Class -> number of images, and the one warning, empty if there is none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counts = load_images(folder, split, **options).counts
    said = [str(warning.message) for warning in caught]
    assert len(said) <= 1 and all(text.startswith(f"{folder}: ") and "\n" not in text for text in said)
    assert all(warning.filename == __file__ for warning in caught)
    return counts, said[0].removeprefix(f"{folder}: ") if said else ""


# Classes and splits


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


@pytest.mark.parametrize(("name", "other"), [("train", "bus"), ("valid", "invalid"), ("test", "control")])
def test_a_class_may_be_called_like_a_split_and_that_is_said(tmp_path, name, other):
    tree(tmp_path, f"{name}/1.png", f"{other}/1.png")
    says = f"{name}/ (1 picture) is taken for a class, like those beside it"
    assert told(tmp_path) == ({name: 1, other: 1}, says)


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


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("training", "TESTING"),
        ("train_set", "test-set"),
        ("Training Images", "Test Images"),
    ],
)
def test_split_folders_are_splits_whatever_their_names_look_like(tmp_path, train, test):
    tree(tmp_path, f"{train}/cat/1.png", f"{train}/dog/1.png", f"{train}/dog/2.png", f"{test}/dog/1.png")
    assert told(tmp_path) == ({"cat": 1, "dog": 2}, "")
    assert told(tmp_path, "test") == ({"cat": 0, "dog": 1}, "")


@pytest.mark.parametrize("val", ["val", "Valid", "validation", "DEV"])
def test_a_validation_split_stands_in_for_the_test_split_and_says_so(tmp_path, val):
    tree(tmp_path, "train/cat/1.png", "train/dog/1.png", f"{val}/cat/1.png", f"{val}/cat/2.png")
    says = f"{val}/ (2 pictures) is taken for the test split"
    assert told(tmp_path) == ({"cat": 1, "dog": 1}, says)
    assert told(tmp_path, "test") == ({"cat": 2, "dog": 0}, says)


def test_what_is_beside_the_two_splits_is_said_not_to_be_used(tmp_path):
    tree(
        tmp_path,
        "train/cat/1.png",
        "val/cat/1.png",
        "val/cat/2.png",
        "test/cat/1.png",
        "extra/a/1.png",
        "x.png",
    )
    for split in ("train", "test"):
        assert told(tmp_path, split) == (
            {"cat": 1},
            "val/ (2 pictures) is not used: test/ is the test split; extra/ (1 picture) beside train/ and test/: not used; "
            "1 picture beside train/ and test/, e.g. x.png: not used",
        )


def test_two_folders_of_one_split_are_refused(tmp_path):
    tree(tmp_path, "train/1.png", "val/1.png", "valid/1.png")
    with raises(ValueError, "val and valid are the same split", "one folder"):
        load_images(tmp_path)


def test_a_lone_split(tmp_path):
    tree(tmp_path / "a", "Training/1.png")
    assert told(tmp_path / "a") == ({"all": 1}, "")
    tree(tmp_path / "b", "val/1.png")
    assert told(tmp_path / "b", "test")[0] == {"all": 1}
    with raises(
        NoSplit, "no train split (only test)", str(tmp_path / "b" / "train"), str(tmp_path / "b" / "val")
    ):
        load_images(tmp_path / "b")


def test_a_test_split_without_class_folders(tmp_path):
    tree(tmp_path, "train/cat/1.png", "test/1.png")
    assert told(tmp_path) == ({"cat": 1}, "")
    with raises(ValueError, "test has classes that train lacks: all", "in no class folder"):
        load_images(tmp_path, "test")


def test_of_two_folders_of_classes_the_larger_is_the_one_to_train_on(tmp_path):
    for name, count in (("seg_extra", 1), ("seg_pictures", 3)):
        for n in range(count):
            picture(tmp_path / name / "cat" / f"{n}.png")
            picture(tmp_path / name / "dog" / f"{n}.png")
    with raises(ValueError, "give one such folder", f"--data {tmp_path / 'seg_pictures'}"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("paths", "give"),
    [
        (["dataset/cat/1.png", "dataset/dog/1.png"], "dataset"),
        (["dataset/train/cat/1.png", "dataset/test/cat/1.png"], "dataset"),
        (["train/train/cat/1.png", "train/train/dog/1.png"], "train/train"),
        (["a/b/c/cat/1.png", "a/b/c/dog/1.png"], "a/b/c"),
        (["images/train/1.png", "images/val/1.png", "labels/train/1.txt"], "images"),
    ],
)
def test_one_level_too_deep_names_the_folder_to_give(tmp_path, paths, give):
    tree(tmp_path, *paths)
    for split in ("train", "test"):
        with raises(
            ValueError, "no pictures itself", f"give {tmp_path / give} instead", f"--data {tmp_path / give}"
        ):
            load_images(tmp_path, split)
    assert folders.listed(tmp_path / give, "train").files


@pytest.mark.parametrize("paths", [["a/x/1.png", "b/x/1.png"], ["a/x/1.png", "b/1.png"]])
def test_folders_of_folders_are_refused_with_advice(tmp_path, paths):
    tree(tmp_path, *paths)
    with raises(
        ValueError, "a/ holds no pictures itself", "(x)", f"--data {tmp_path / 'a'}", "move its pictures up"
    ):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("images", "masks"),
    [("images", "masks"), ("Images", "Labels"), ("img", "annotations"), ("JPEGImages", "SegmentationClass")],
)
@pytest.mark.parametrize("base", ["", "train/"])
def test_masks_are_no_class(tmp_path, images, masks, base):
    tree(tmp_path, f"{base}{images}/1.png", f"{base}{masks}/1.png", f"{base}{masks}/2.png")
    give = tmp_path / base / images
    with raises(ValueError, f"{masks}/ (2 pictures) looks like masks", f"give {give} (--data {give})"):
        load_images(tmp_path)
    assert told(give) == ({"all": 1}, "")


def test_a_class_may_be_called_masks_where_nothing_else_is_called_images(tmp_path):
    tree(tmp_path, "mask/1.png", "no_mask/1.png")
    assert told(tmp_path) == ({"mask": 1, "no_mask": 1}, "")


def test_pictures_in_folders_below_a_class_are_taken_and_said(tmp_path):
    tree(tmp_path, "cat/1.png", "cat/a/2.png", "cat/a/b/3.png", "dog/1.png", "dog/x/notes.txt")
    assert told(tmp_path) == ({"cat": 3, "dog": 1}, "taken from folders below: 2 of cat/ (3 pictures)")


def test_a_class_folder_without_a_picture_is_said(tmp_path):
    tree(tmp_path, "cat/1.png", "dog/", "bird/notes.txt")
    assert told(tmp_path) == ({"cat": 1}, "without a picture, so no class: bird, dog")
    other = tree(tmp_path.with_name("other"), "all/1.png", "none/")
    assert told(other) == ({"all": 1}, "without a picture, so no class: none")


RUN = ("run/checkpoint.safetensors", "run/samples/1.png", "old/log.jsonl", "old/samples/1.png")


@pytest.mark.parametrize("where", ["", "runs/"])
@pytest.mark.parametrize(("own", "counts"), [(["cat/1.png"], {"cat": 1}), (["1.png"], {"all": 1})])
def test_runs_of_ours_are_no_class(tmp_path, where, own, counts):
    tree(tmp_path, *own, *(where + path for path in RUN))
    assert told(tmp_path) == (
        counts,
        f"left out 2 folders of training runs (pictures drawn by a model, the first is {where}old)",
    )


def test_a_run_in_the_very_folder_of_its_pictures(tmp_path):
    tree(tmp_path, "cat/1.png", "checkpoint.safetensors", "log.jsonl", "samples/1.png")
    counts, said = told(tmp_path)
    assert counts == {"cat": 1} and "1 folder of training runs" in said and "samples" in said
    tree(tmp_path / "other", "checkpoint.safetensors", "samples/1.png")
    with raises(ValueError, "no pictures", "training run"):
        load_images(tmp_path / "other")


def test_samples_and_a_log_that_are_no_run(tmp_path):
    tree(tmp_path, "samples/1.png", "cat/1.png", "cat/log.jsonl")
    assert told(tmp_path) == ({"cat": 1, "samples": 1}, "")


# What is left out


def test_what_is_left_out_is_counted_with_its_reason_in_one_warning(tmp_path):
    tree(
        tmp_path, "cat/1.png", "cat/a.heic", "cat/b.HEIC", "cat/c.heif", "d.svg", "cat/e.nef", "f.mp4", "cat/plain", "cat/plain2",
        "cat/deep/plain3",
    )  # fmt: skip
    (tmp_path / "cat" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "cat" / "loop").symlink_to("loop")
    assert told(tmp_path) == (
        {"cat": 1},
        "left out 2 .heic, 1 .svg, 1 .heif, 1 .nef (Pillow cannot read them: convert to .png or .jpg), 3 files without "
        "a suffix (the first is cat/plain: if it is a picture, name it .png or the like), 2 broken links (the first "
        "is cat/gone.png), 1 .mp4 (not read)",
    )


def test_one_kind_and_an_empty_folder_that_says_why(tmp_path):
    tree(tmp_path / "a", "1.png", "1.heic", "2.heic", "3.heic")
    assert told(tmp_path / "a")[1] == "left out 3 .heic (Pillow cannot read them: convert to .png or .jpg)"
    tree(tmp_path / "b", "cat/1.heic")
    with raises(ValueError, "no pictures for split 'train'", "left out 1 .heic", "convert"):
        load_images(tmp_path / "b")
    tree(tmp_path / "c", "train/cat/1.png", "test/cat/1.heic")
    assert "left out 1 .heic" in told(tmp_path / "c")[1]
    with raises(NoSplit, "no test split", "left out 1 .heic"):
        load_images(tmp_path / "c", "test")


def test_only_what_lies_in_the_split_that_is_read_is_counted(tmp_path):
    tree(tmp_path, "train/cat/1.png", "train/cat/1.heic", "test/cat/1.png", "test/cat/1.svg", "extra.mp4")
    assert ".heic" in told(tmp_path)[1] and ".mp4" in told(tmp_path)[1] and ".svg" not in told(tmp_path)[1]
    assert ".svg" in told(tmp_path, "test")[1] and ".heic" not in told(tmp_path, "test")[1]


def test_harmless_companions_need_no_word(tmp_path):
    tree(
        tmp_path, "cat/1.png", "cat/1.txt", "Thumbs.db", "desktop.ini", ".DS_Store", "captions.json", "labels.csv", "README",
        "README.md", "LICENSE", "cat/._1.png", "__MACOSX/cat/._1.png", ".ipynb_checkpoints/1.png", "cat/@eaDir/1.png",
    )  # fmt: skip
    assert told(tmp_path) == ({"cat": 1}, "")


def test_linked_folders_are_followed_where_they_are_classes_and_nowhere_else(tmp_path):
    elsewhere = tree(tmp_path / "elsewhere", "1.png", "2.png")
    for base in ("flat", "split/train"):
        folder = tree(tmp_path / base, "cat/1.png")
        (folder / "dog").symlink_to(elsewhere)
        (folder / "cat" / "more").symlink_to(elsewhere)
        (folder / "up").symlink_to(folder)
        counts, said = told(tmp_path / base.partition("/")[0])
        assert counts == {"cat": 1, "dog": 2}
        first = (folder / "up").relative_to(tmp_path / base.partition("/")[0])
        assert said == f"left out 2 linked sub-folders (not followed, the first is {first})"


def test_linked_pictures_are_pictures(tmp_path):
    picture(tmp_path / "elsewhere.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").symlink_to(tmp_path / "elsewhere.png")
    assert told(tmp_path / "set") == ({"all": 1}, "")


def test_what_is_neither_a_file_nor_a_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tree(tmp_path, "1.png") / "pipe.png")
    listing = folders.listed(tmp_path, "train")  # not read, or a failure would wait for ever
    assert [path.name for path in listing.files] == ["1.png"]
    assert listing.said == "left out 1 special file (the first is pipe.png)"


def test_a_class_that_loses_all_its_pictures_is_kept_and_said(tmp_path):
    tree(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "dog" / "1.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning) as caught:
        loaded = load_images(tmp_path, skip_corrupt=True)
    assert loaded.counts == {"cat": 1, "dog": 0} and loaded.labels.tolist() == [0]
    assert f"{tmp_path}: 1 of 2 classes have no image, the first is dog" in {str(w.message) for w in caught}


@pytest.mark.parametrize(
    ("suffix", "written"),
    [
        (".jfif", "JPEG"),
        (".jpe", "JPEG"),
        (".tga", "TGA"),
        (".avif", "AVIF"),
        (".jp2", "JPEG2000"),
        (".pbm", "PPM"),
        (".apng", "PNG"),
    ],
)
def test_every_suffix_that_this_pillow_reads_is_read(tmp_path, suffix, written, monkeypatch):
    needs = {".avif": "avif", ".jp2": "jpg_2000"}.get(suffix)
    if needs and needs not in features.get_supported():
        pytest.skip(f"this Pillow has no {needs}")
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / f"a{suffix}", format=written)
    (red, green, _) = load_images(tmp_path).images.float().mean((0, 2, 3))
    assert abs(red - 200) < 5 and green < 5


def test_what_this_pillow_lacks_is_left_out_and_said(tmp_path, monkeypatch):
    tree(tmp_path, "1.png", "2.jp2", "3.avif")
    monkeypatch.setattr(features, "check", lambda name: False)
    known = {suffix: name for suffix, name in Image.registered_extensions().items() if suffix != ".avif"}
    monkeypatch.setattr(Image, "registered_extensions", lambda: known)
    folders.readable.cache_clear()
    try:
        assert told(tmp_path) == (
            {"all": 1},
            "left out 1 .jp2, 1 .avif (Pillow cannot read them: convert to .png or .jpg)",
        )
    finally:
        folders.readable.cache_clear()


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    tree(tmp_path / "photos", "cat/1.png")
    loaded = load_images("~/photos")
    assert loaded.counts == {"cat": 1} and loaded.name == str(tmp_path / "photos")
    assert folders.listed("~/photos", "train").files == [tmp_path / "photos" / "cat" / "1.png"]


# Pictures


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


# Large pictures


def declared(path: Path, width: int, height: int) -> Path:
    """A PNG of zeros, made without the memory that its pixels would take."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return len(content).to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])  # one bit, grey
    packer = zlib.compressobj()
    rows = [packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)] + [packer.flush()]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(rows)) + chunk(b"IEND", b"")
    )
    return path


def test_a_picture_above_the_limit_is_never_dropped_nor_called_truncated(tmp_path):
    picture(tmp_path / "a.png")
    large = declared(tmp_path / "large.png", 13_400, 13_400)
    for skip in (False, True):
        with raises(ValueError, f"{large} has 180 megapixels", "at most 179", "shrink it") as caught:
            load_images(tmp_path, size=4, channels=3, skip_corrupt=skip)
        assert "truncated" not in str(caught.value)


def test_between_the_two_limits_a_picture_is_read_without_alarm(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    picture(tmp_path / "a.png", (15, 13))
    assert told(tmp_path, size=4) == ({"all": 1}, "")


def test_photographs_without_a_size_are_refused_before_they_are_all_read(tmp_path, monkeypatch):
    for n in range(3):
        picture(tmp_path / f"{n}.png", (1024, 768))
    read = []
    real = folders.read_picture
    monkeypatch.setattr(folders, "read_picture", lambda path: read.append(path) or real(path))
    with raises(ValueError, str(tmp_path), "pictures of 1024 x 768", "size=64 (--size 64)"):
        load_images(tmp_path)
    assert len(read) == 1
    assert load_images(tmp_path, size=8).images.shape == (3, 3, 8, 8)


def test_as_large_as_may_be_without_a_size(tmp_path):
    picture(tmp_path / "a.png", (512, 3))
    assert load_images(tmp_path).images.shape == (1, 3, 3, 512)


def test_more_than_half_of_the_memory_is_refused(tmp_path, monkeypatch):
    for n in range(4):
        picture(tmp_path / f"{n}.png", (32, 16))
    needed = 4 * 3 * 32 * 16
    monkeypatch.setattr(data, "_machine_memory", lambda: 2 * needed)
    assert len(load_images(tmp_path)) == 4
    monkeypatch.setattr(data, "_machine_memory", lambda: 2 * needed - 1)
    with raises(ValueError, str(tmp_path), "4 images of 32 x 16", "half of this machine's", "--size 64"):
        load_images(tmp_path)
    with raises(ValueError, "4 images of 23 x 23"):
        load_images(tmp_path, size=23)
    assert load_images(tmp_path, size=22).images.shape == (4, 3, 22, 22)


def test_no_memory_for_the_whole_is_one_line(tmp_path, monkeypatch):
    def starved(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    picture(tmp_path / "a.png")
    monkeypatch.setattr(torch.Tensor, "new_empty", starved)
    with raises(ValueError, str(tmp_path), "no memory is left for 1 images of 4 x 4", "--size 64"):
        load_images(tmp_path)


def test_no_memory_for_a_picture_is_one_line(tmp_path, monkeypatch):
    def starved(*args, **kwargs):
        raise MemoryError

    picture(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", starved)
    with raises(ValueError, "a.png", "needs more memory", "shrink it"):
        load_images(tmp_path, skip_corrupt=True)


@pytest.mark.parametrize("suffix", [".gif", ".bmp", ".ppm", ".tga", ".png"])
def test_a_few_bytes_that_ask_for_gigabytes_are_damaged(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (8, 8), 100).save(path)
    content, side = bytearray(path.read_bytes()), 13_000
    at, form = {
        ".gif": (6, "little"),
        ".bmp": (18, "little"),
        ".tga": (12, "little"),
        ".png": (16, "big"),
    }.get(suffix, (0, ""))
    if suffix == ".ppm":
        content = b"P6 13000 13000 255\n" + content[11:]
    else:
        length = 4 if suffix in (".bmp", ".png") else 2
        content[at : at + 2 * length] = 2 * side.to_bytes(length, form)
        if suffix == ".png":
            content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    began = time.process_time()
    with raises(folders.Damaged, str(path), "skip_corrupt"):
        folders.read_picture(path)
    assert time.process_time() - began < 0.5


def test_no_other_program_is_started_for_a_picture(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: started.append(args))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format="EPS")
    with raises(folders.Damaged, "a.png"):
        folders.read_picture(tmp_path / "a.png")
    assert not started


def test_a_suffix_may_lie_but_only_a_tga_is_read_as_one(tmp_path):
    picture(tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert (folders.read_picture(tmp_path / "a.png") == 100).all()
    Image.new("RGB", (8, 8), 100).save(tmp_path / "b.png", format="TGA")
    with raises(folders.Damaged, "b.png"):
        folders.read_picture(tmp_path / "b.png")
    (tmp_path / "b.png").rename(tmp_path / "b.tga")
    assert folders.read_picture(tmp_path / "b.tga").shape == (8, 8, 3)


# Mutated pictures

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
    "PPM": ("1", "L", "RGB"),
    "TGA": ("L", "P", "RGB", "RGBA"),
}
LENGTHS = (0, 1, 255, 13_000, 30_000, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**32 - 1)


def written(rng: np.random.Generator) -> tuple[str, bytes]:
    """A format and a small picture in it: any mode, packing, one frame or two."""
    name = str(rng.choice(list(MODES)))
    mode = str(rng.choice(MODES[name]))
    height, width = rng.integers(1, 40, 2)
    noise = Image.fromarray(rng.integers(256, size=(height, width, 4), dtype=np.uint8))
    frame = noise.convert("RGB").convert(mode) if mode != "RGBA" else noise
    options = {
        "JPEG": {"progressive": bool(rng.integers(2))},
        "WEBP": {"lossless": bool(rng.integers(2))},
        "TIFF": {"compression": str(rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]))},
    }.get(name, {})
    if name in ("PNG", "WEBP", "GIF") and rng.integers(3) == 0:
        options |= {"save_all": True, "append_images": [frame.rotate(90)]}
    buffer = io.BytesIO()
    frame.save(buffer, name, **options)
    return name, buffer.getvalue()


def mutated(rng: np.random.Generator, whole: bytes) -> bytes:
    """One to three faults: a flipped bit, another byte, the end or a piece lost, another length, a piece too much."""
    content = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(content) if rng.integers(2) else min(64, len(content)))) if content else 0
        some = int(rng.integers(1, 20))
        match rng.integers(6):
            case 0 if content:
                content[at] ^= 1 << int(rng.integers(8))
            case 1 if content:
                content[at] = int(rng.integers(256))
            case 2:
                del content[at:]
            case 3:
                del content[at : at + some]
            case 4:
                length = int(rng.choice((2, 3, 4)))
                value = int(rng.choice(LENGTHS)) % 256**length
                content[at : at + length] = value.to_bytes(length, str(rng.choice(("big", "little"))))
            case 5:
                content[at:at] = rng.bytes(some)
    return bytes(checked(content) if rng.integers(2) else content)


def checked(content: bytearray) -> bytearray:
    """A PNG with its checksums made right again, so that its faults are met further on; all else as it is."""
    at = 8 if content.startswith(b"\x89PNG\r\n\x1a\n") else len(content)
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        content[end : end + 4] = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return content


def outcome(path: Path, seed: int) -> str:
    """What becomes of mutated picture number seed: "read", "damaged" or "refused"."""
    rng = np.random.default_rng(seed)
    name, whole = written(rng)
    path = path / f"{seed}.{name.lower()}"
    path.write_bytes(mutated(rng, whole))
    began = time.process_time()
    try:
        pixels = folders.read_picture(path)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.size
        found = "read"
    except (folders.Damaged, folders.Refused) as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        found = type(error).__name__.lower()
    assert time.process_time() - began < 2, (path, found)
    path.unlink()
    return found


def test_a_mutated_picture_is_read_or_refused_in_one_line(tmp_path):
    found = [outcome(tmp_path, seed) for seed in range(300)]
    # As many as this for the mutations to mean something: a quarter is read in spite of them.
    assert {"read", "damaged", "refused"} == set(found) and 30 < found.count("read") < 270


@settings(max_examples=30)
@given(st.binary(max_size=200))
def test_no_bytes_at_all_surprise_the_reader(tmp_path_factory, content):
    for suffix in (".png", ".tga"):
        path = tmp_path_factory.mktemp("bytes") / f"a{suffix}"
        path.write_bytes(content)
        try:
            assert folders.read_picture(path).dtype == np.uint8
        except (folders.Damaged, folders.Refused):
            pass
