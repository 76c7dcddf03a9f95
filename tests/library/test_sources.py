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
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_lib import data, folders, sources
from ddpm_lib.data import batches, load_images, to_float
from ddpm_lib.sources import DATASETS, EMBEDDED, data_folder, describe, get

SUBSETS = [name for name in DATASETS if DATASETS[name].shipped]
FULL_SETS = [name for name in DATASETS if not DATASETS[name].shipped]


def raises(error: type[Exception], *words: str):
    """The error, with all these words, on one line."""
    return pytest.raises(
        error, match=r"\A" + "".join(f"(?=.*{re.escape(word)})" for word in words) + r"[^\n]*\Z"
    )


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


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


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("sources", "torch torchvision numpy PIL matplotlib"),
        ("folders", "torch torchvision numpy PIL matplotlib"),
        ("data", "torchvision PIL matplotlib"),
    ],
)
def test_importing_costs_no_more_than_it_must(module, spared):
    code = f"import sys, ddpm_lib.{module}; print(set({spared.split()}) & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_the_sets_are_described_and_a_folder_is_listed_without_torch(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from ddpm_lib import folders, sources\n"
        "print(len(sources.describe(sys.argv[1])), sources.get('mnist').name)\n"
        "Image = __import__('PIL.Image').Image; Image.new('L', (2, 3)).save(sys.argv[1] + '/a.png')\n"
        "(file,) = folders.listed(sys.argv[1], 'train').files\n"
        "print(folders.read_picture(file).shape)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert run.stdout == f"{len(DATASETS)} embedded\n(3, 2, 1)\n", run.stderr


def test_what_data_gives_is_what_sources_and_folders_have():
    for name in ("DATASETS", "EMBEDDED", "SPLITS", "Source", "data_folder", "describe", "get"):
        assert getattr(data, name) is getattr(sources, name) and name in data.__all__
    assert data.PICTURES is folders.PICTURES and data.NoSplit is folders.NoSplit
    assert all(hasattr(data, name) for name in data.__all__)


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
    (tmp_path / "mnist").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "mnist" / "a.png")
    assert len(load_images("mnist", "test")) == 1_000
    assert len(load_images("./mnist")) == 1


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
    assert data_folder() == tmp_path and data_folder("elsewhere") == Path("elsewhere")
    monkeypatch.delenv("DDPM_LIB_DATA")
    assert data_folder().name == "ddpm_lib"


@pytest.fixture
def no_home(monkeypatch):
    """A user of whom the system knows neither a home folder nor a name, as in many a container."""
    pwd = pytest.importorskip("pwd")
    for name in ("HOME", "DDPM_LIB_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_without_a_home_folder_the_way_out_is_named(no_home, tmp_path, monkeypatch):
    for ask in (data_folder, describe, lambda: get("mnist-full"), lambda: load_images("cifar10-full")):
        with raises(ValueError, "no home folder", "$DDPM_LIB_DATA", "root=", "--data-root"):
            ask()
    assert get("mnist") == EMBEDDED and len(load_images("mnist", "test")) == 1_000
    assert describe(tmp_path)[0]["here"] == "yes"
    monkeypatch.setenv("DDPM_LIB_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("DDPM_LIB_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "ddpm_lib" or sys.platform == "darwin"
    for ask in (lambda: data_folder("~/sets"), lambda: load_images("~/sets")):
        with raises(ValueError, "~/sets", "whole path"):
            ask()


def test_a_tilde_is_the_home_folder_everywhere(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    assert data_folder("~/sets") == tmp_path / "sets"
    for name in ("DDPM_LIB_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform not in ("darwin", "win32"):
        assert data_folder() == tmp_path / ".cache" / "ddpm_lib"
        monkeypatch.setenv("XDG_CACHE_HOME", "~/scratch")
        assert data_folder() == tmp_path / "scratch" / "ddpm_lib"
    monkeypatch.setenv("DDPM_LIB_DATA", "~/mine")
    assert data_folder() == tmp_path / "mine"
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 2, 2), np.uint8), labels=[0])
    assert load_images("~/a.npz").name == str(tmp_path / "a.npz")


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


@pytest.mark.filterwarnings("ignore:.*have no image")
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


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data._decoded.cache_clear()
        for name in SUBSETS:
            next(batches(load_images(name, "test", size=32, channels=3), 16, flip=True))
