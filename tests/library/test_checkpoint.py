"""Checkpoints: bit-equal, never unpickled, never half written."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import random
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import close, f64
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import ddpm_lib
from ddpm_lib import chain as chains
from ddpm_lib import checkpoint as checkpoints
from ddpm_lib.checkpoint import Checkpoint, CheckpointError, load, pretrained, restore_optimizer, save
from ddpm_lib.denoiser import Denoiser
from ddpm_lib.files import shipped
from ddpm_lib.sampling import ddim, guided, last
from ddpm_lib.schedule import Schedule, cosine, edm, flow, from_chain, linear, sigmoid
from ddpm_lib.training import EMA, TrainConfig, make_optimizer, train
from ddpm_lib.unet import UNet, UNetConfig

TINY = UNetConfig(4, 1, 2, 4, (1,), 1, (), 4)
DATA = {"name": "mnist", "size": 4, "channels": 1, "classes": ["cat", "Größe"]}


def batches():
    while True:
        yield torch.rand(3, 1, 4, 4) * 2 - 1, torch.tensor([0, 1, 0])


def trained(steps: int = 3, schedule=None, predict: str = "v", averaged: bool = True):
    torch.manual_seed(1)
    net, config = UNet(TINY), TrainConfig(steps=9, lr=1e-2, decay="cosine")
    ema = EMA(net, 4.5) if averaged else None
    optimizer = make_optimizer(net, config)
    for step in train(Denoiser(net, schedule or cosine(50), predict), batches(), config, ema, optimizer):
        if step.index == steps:
            break
    checkpoint = Checkpoint(
        net, schedule or cosine(50), predict, config, ema, steps, data=DATA, provenance={"device": "here"}
    )
    return checkpoint, optimizer


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    checkpoint, optimizer = trained()
    return save(checkpoint, tmp_path_factory.mktemp("whole") / "c.safetensors", optimizer).read_bytes()


def header_of(raw: bytes) -> tuple[dict, int]:
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), 8 + length


def with_header(raw: bytes, change) -> bytes:
    """The same tensors under another ddpm_lib header."""
    outer, start = header_of(raw)
    inner = json.loads(outer["__metadata__"]["ddpm_lib"])
    changed = change(inner)
    outer["__metadata__"]["ddpm_lib"] = json.dumps(inner if changed is None else changed)
    text = json.dumps(outer).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + raw[start:]


def states(checkpoint):
    yield from checkpoint.net.state_dict().items()
    if checkpoint.ema is not None:
        yield from checkpoint.ema.net.state_dict().items()


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize(
    "schedule",
    [linear(30, 1e-3, 0.2), cosine(20, 0.01), sigmoid(20, -2.0), flow(), edm(0.01, 40.0)],
    ids=lambda s: s.name,
)
@pytest.mark.parametrize("averaged", [True, False])
def test_round_trip_is_bit_equal(tmp_path, schedule, averaged):
    checkpoint, optimizer = trained(schedule=schedule, averaged=averaged)
    path = save(checkpoint, tmp_path / "new" / "c.safetensors", optimizer)
    again = load(path)
    for (name, mine), (other, theirs) in zip(states(checkpoint), states(again), strict=True):
        assert name == other and mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    for field in ("predict", "config", "step", "data", "provenance"):
        assert getattr(again, field) == getattr(checkpoint, field)
    assert again.net.config == checkpoint.net.config and again.classes == ["cat", "Größe"]
    t = torch.linspace(0, 1, 77, dtype=torch.float64)
    assert torch.equal(again.schedule.logsnr(t), schedule.logsnr(t)) and again.schedule.path == schedule.path
    assert (again.ema is not None) == averaged
    if averaged:
        assert (again.ema.half_life, again.ema.updates) == (4.5, 3)

    theirs = make_optimizer(again.net, again.config)
    restore_optimizer(again, theirs)
    for mine, other in zip(checkpoint.net.parameters(), again.net.parameters(), strict=True):
        for key, value in optimizer.state[mine].items():
            assert torch.equal(value, theirs.state[other][key]), key
    # saved again, it is the same file
    assert save(again, tmp_path / "again.safetensors", theirs).read_bytes() == path.read_bytes()


def test_adams_step_counts_are_not_shared(tmp_path):
    checkpoint, optimizer = trained()
    again = load(save(checkpoint, tmp_path / "c.safetensors", optimizer))
    theirs = make_optimizer(again.net, again.config)
    restore_optimizer(again, theirs)
    counts = [state["step"] for state in theirs.state.values()]
    assert len({count.data_ptr() for count in counts}) == len(counts) and {
        int(count) for count in counts
    } == {3}


def test_header_is_json_that_anyone_can_read(whole):
    outer, _ = header_of(whole)
    header = json.loads(outer["__metadata__"]["ddpm_lib"])
    assert header["format"] == checkpoints.FORMAT and header["network"]["kind"] == "unet"
    assert header["network"]["config"]["image_size"] == 4 and header["schedule"] == {
        "name": "cosine",
        "options": {"steps": 50, "offset": 0.008, "max_beta": 0.999},
    }
    assert header["step"] == 3 and header["predict"] == "v" and header["train"]["decay"] == "cosine"
    assert {name.split(".")[0] for name in outer if name != "__metadata__"} == {"net", "ema", "adam"}


@pytest.mark.parametrize("first_byte", range(0, 256, 8))
def test_every_length_of_header_loads(tmp_path, whole, first_byte):
    """A file begins with the length of its header: 0x80 or "PK" there is no pickle."""
    for pad in range(0, 300, 8):
        raw = with_header(whole, lambda inner, pad=pad: inner["provenance"].update(note="x" * pad))
        if raw[0] == first_byte:
            break
    assert raw[0] == first_byte
    (tmp_path / "c.safetensors").write_bytes(raw)
    assert load(tmp_path / "c.safetensors").step == 3


def test_a_header_as_long_as_pk_loads(tmp_path, whole):
    wanted = 0x10000 + int.from_bytes(b"PK", "little")

    def noted(count):
        return with_header(whole, lambda inner: inner["provenance"].update(note="x" * count))

    raw = noted(wanted - int.from_bytes(noted(0)[:8], "little"))
    assert raw[:2] == b"PK"
    (tmp_path / "c.safetensors").write_bytes(raw)
    assert load(tmp_path / "c.safetensors").step == 3


def test_a_folder_means_its_checkpoint(tmp_path):
    checkpoint, optimizer = trained()
    save(checkpoint, tmp_path / "run" / "checkpoint.safetensors", optimizer)
    assert load(tmp_path / "run").step == 3


def test_saved_before_the_first_step_and_resumed(tmp_path):
    net, config = UNet(TINY), TrainConfig(steps=2)
    optimizer = make_optimizer(net, config)
    again = load(save(Checkpoint(net, flow(), "flow", config), tmp_path / "c.safetensors", optimizer))
    optimizer = make_optimizer(again.net, config)
    restore_optimizer(again, optimizer)
    assert len(list(train(again.denoiser(), batches(), config, optimizer=optimizer))) == 2


def test_denoiser_prefers_the_average(tmp_path):
    checkpoint, _ = trained()
    assert (
        checkpoint.denoiser().net is checkpoint.ema.net
        and checkpoint.denoiser(ema=False).net is checkpoint.net
    )
    assert not checkpoint.denoiser().net.training
    bare = replace_field(checkpoint, ema=None)
    assert bare.denoiser().net is checkpoint.net


def replace_field(checkpoint, **changes):
    return Checkpoint(
        **({name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__} | changes)
    )


# ---------------------------------------------------------------- files that are not checkpoints


@settings(max_examples=60)
@given(st.data())
def test_truncated_anywhere_is_said(whole, tmp_path_factory, data):
    cut = data.draw(
        st.integers(0, len(whole) - 1) | st.integers(0, 64) | st.integers(len(whole) - 64, len(whole) - 1)
    )
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    path.write_bytes(whole[:cut])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file.*earlier checkpoint"):
        load(path)


@settings(max_examples=150)
@given(st.data())
def test_no_changed_byte_of_the_header_gives_a_traceback(whole, tmp_path_factory, data):
    _, start = header_of(whole)
    place = data.draw(st.integers(0, start - 1))
    raw = bytearray(whole)
    raw[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(raw)
    try:
        load(path)
    except CheckpointError as error:
        assert str(path) in str(error)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("kind", ["torch", "torch, legacy", "protocol 2", "protocol 5", "protocol 0"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_pickle_is_refused_and_never_run(tmp_path, kind, suffix):
    path, mark = tmp_path / f"model{suffix}", tmp_path / "exploded"
    if kind.startswith("torch"):
        torch.save(Bomb(mark), path, _use_new_zipfile_serialization=kind == "torch")
    else:
        path.write_bytes(pickle.dumps(Bomb(mark), protocol=int(kind[-1])))
    words = "truncated or not" if kind == "protocol 0" else "a pickle .*any code.*never"
    with pytest.raises(CheckpointError, match=words):
        load(path)
    assert not mark.exists()
    pickle.load(io.BytesIO(pickle.dumps(Bomb(mark))))
    assert mark.exists(), "the bomb must be live for this test to mean anything"


def test_the_library_never_unpickles():
    for source in Path(ddpm_lib.__file__).parent.glob("*.py"):
        text = source.read_text()
        assert "torch.load(" not in text and "import pickle" not in text, source.name


def test_foreign_files_are_refused(tmp_path, whole):
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "b.safetensors", metadata={"format": "pt"})
    save_file({"weight": torch.zeros(2)}, tmp_path / "c.safetensors", metadata={"ddpm_lib": "not JSON"})
    save_file({"weight": torch.zeros(2)}, tmp_path / "d.safetensors", metadata={"ddpm_lib": "[1, 2]"})
    for name in "abcd":
        with pytest.raises(CheckpointError, match="not one that ddpm_lib wrote"):
            load(tmp_path / f"{name}.safetensors")
    (tmp_path / "e.safetensors").write_text("a letter to my aunt")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load(tmp_path / "e.safetensors")
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*nowhere.*shipped"):
        load(tmp_path / "nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load(tmp_path)


def nested(depth: int) -> list:
    value = []
    for _ in range(depth):
        value = [value]
    return value


def setting(*keys, value):
    def change(header):
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setting("format", value=99), "format 99, this version of ddpm_lib reads format 1"),
        (lambda header: {}, "format None"),
        (setting("network", "kind", value="transformer"), "'transformer', this version knows unet"),
        (setting("network", "config", "width", value=8), "another architecture"),
        (setting("network", "config", "blocks", value=2), "another architecture"),
        (setting("network", "config", "colour", value=1), "does not fit this version.*colour"),
        (setting("network", value=None), "does not fit this version"),
        (setting("schedule", "name", value="spiral"), "does not fit this version.*'spiral'"),
        (setting("schedule", "options", value={"steps": 0}), "does not fit this version"),
        (setting("predict", value="score"), "does not fit this version.*'score'"),
        (setting("train", "steps", value=0), "does not fit this version.*steps must be at least 1, got 0"),
        (setting("train", "clip", value=math.nan), "clip must be a finite number, got nan"),
        (setting("train", "seed", value=-1), "seed must be at least 0, got -1"),
        (setting("network", "config", "head_dim", value=4.0), "head_dim must be a whole number, got 4.0"),
        (setting("step", value=2.5), "step must be a whole number of at least 0, got 2.5"),
        (setting("step", value=-1), "step must be"),
        (setting("ema", "updates", value=True), "updates must be"),
        (setting("ema", "half_life", value=math.nan), "half_life must be positive, got nan"),
        (setting("schedule", "options", "steps", value=10**9), "at most 1000000 steps, got 1000000000"),
        (setting("schedule", value={"name": "edm", "options": {"rho": 0}}), "ZeroDivisionError"),
        (setting("schedule", value={"name": "edm", "options": {"sigma_max": math.nan}}), "edm needs"),
        (setting("schedule", value={"name": "edm", "options": {"rho": math.inf}}), "does not fall"),
        (setting("data", value=[]), "data must be a table"),
        (setting("data", "classes", value="cat"), r"data\['classes'\] must be list, got 'cat'"),
        (setting("data", "source", value=3), r"data\['source'\] must be str, got 3"),
        (setting("provenance", "settings", value=None), r"provenance\['settings'\] must be dict, got None"),
        (setting("provenance", "seconds", value="9"), r"provenance\['seconds'\] must be int or float"),
        (setting("data", "classes", value=["cat", "dog", "bird"]), "names 3 classes, .* knows 2 labels"),
        (setting("data", "classes", value=["cat"]), "names 1 classes, .* knows 2 labels"),
        (setting("provenance", "note", value=nested(33)), "more than 32 deep"),
        # asked for before anything is allocated
        (setting("network", "config", "width", value=10**6), "another architecture .*has the shape"),
        (setting("network", "config", "width", value=10**18), "does not fit this version"),
        (setting("network", "config", "blocks", value=10**9), "residual blocks cannot have only"),
        (
            setting("network", "config", "num_classes", value=10**9),
            "names 2 classes, .* knows 1000000000 labels",
        ),
        (setting("network", "config", "image_size", value=10**6), "at most 4096, got 1000000"),
        (setting("ema", value=None), "it should not have 'ema"),
        (setting("train", value=3), "does not fit this version"),
        (setting("ema", value={"half_life": 3}), "does not fit this version.*updates"),
        (lambda header: {k: v for k, v in header.items() if k != "step"}, "does not fit this version.*step"),
    ],
)
def test_headers_of_other_versions_and_architectures_are_refused(tmp_path, whole, change, words):
    path = tmp_path / "c.safetensors"
    path.write_bytes(with_header(whole, change))
    with pytest.raises(CheckpointError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    checkpoint, _ = trained()
    odd = [
        from_chain(chains.rescale_zero_terminal(chains.linear(50))),
        # under a known name it would come back as another schedule, without a word
        from_chain(chains.rescale_zero_terminal(chains.linear(50)), "linear", steps=50),
        Schedule("flow", flow().logsnr, "vp"),
        Schedule("flow", lambda t: -t, "flow"),
    ]
    for schedule in odd:
        with pytest.raises(CheckpointError, match=f"{schedule.name!r}.*schedule.SCHEDULES"):
            save(replace_field(checkpoint, schedule=schedule), tmp_path / "c.safetensors")
    other = nn.Linear(1, 1)
    other.config = object()
    with pytest.raises(CheckpointError, match="type Linear.*NETWORKS"):
        save(replace_field(checkpoint, net=other, ema=None), tmp_path / "c.safetensors")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- tensors of any kind


def retold(whole: bytes, change, folder: Path) -> Path:
    """The same header over other tensors: change gets and gives the dictionary of them."""
    path = folder / "c.safetensors"
    path.write_bytes(whole)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    save_file(change(tensors), path, metadata=metadata)
    return path


STEM = "net.stem.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {k: v for k, v in t.items() if k != STEM}, "net.stem.weight is missing"),
        (lambda t: t | {"net.trunk": torch.zeros(1)}, "should not have 'net.trunk'"),
        (lambda t: t | {"passenger": torch.zeros(1)}, "should not have 'passenger'"),
        (lambda t: t | {STEM: t[STEM][..., :2].clone()}, r"net.stem.weight has the shape \(4, 1, 3, 2\), not \(4, 1, 3, 3\)"),
        (lambda t: t | {STEM: torch.zeros(0, 10**18)}, "has the shape"),
        (lambda t: t | {STEM: torch.zeros(4, 1, 3, 3, dtype=torch.int32)}, "of the type I32, not F16"),
        (lambda t: t | {STEM: torch.zeros(4, 1, 3, 3, dtype=torch.complex64)}, "of the type C64, not F16"),
        (lambda t: t | {"adam.step": torch.zeros(3)}, "adam.step has the shape"),
        (lambda t: t | {"muon.momentum.stem.weight": torch.zeros(5)}, "muon.momentum.stem.weight has the shape"),
        (lambda t: {k: v for k, v in t.items() if k.startswith("adam.")}, "missing"),
        (lambda t: {k: v for k, v in t.items() if not k.startswith("net.")}, "should not have 'adam"),
        (lambda t: t | {STEM: torch.full((4, 1, 3, 3), math.nan)}, "36 of the 36 values of net.stem.weight are not finite"),
        (lambda t: t | {STEM: torch.full((4, 1, 3, 3), 1e300, dtype=torch.float64)}, "are not finite"),
        (lambda t: t | {"adam.exp_avg.stem.bias": torch.tensor([0, 0, math.inf, 0])}, "1 of the 4 values of adam.exp_avg"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_the_networks_are_refused(tmp_path, whole, change, words):
    path = retold(whole, change, tmp_path)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_every_float_type_load_as_the_networks_own(tmp_path, whole, kind):
    again = load(retold(whole, lambda tensors: {k: v.to(kind) for k, v in tensors.items()}, tmp_path))
    assert {value.dtype for _, value in states(again)} == {torch.float32}
    optimizer = make_optimizer(again.net, again.config)
    restore_optimizer(again, optimizer)
    steps = train(again.denoiser(ema=False), batches(), again.config, again.ema, optimizer, start=again.step)
    assert next(steps).index == 4


def test_loading_draws_as_many_random_numbers_as_making_the_network(tmp_path, whole):
    """Chapters draw after they have loaded a model: their pictures must not change with the way of loading."""
    (tmp_path / "c.safetensors").write_bytes(whole)
    torch.manual_seed(3)
    checkpoint = load(tmp_path / "c.safetensors")
    drawn = torch.rand(3)
    save(checkpoint, tmp_path / "d.safetensors")
    after = torch.rand(3)
    torch.manual_seed(3)
    UNet(TINY)
    assert torch.equal(torch.rand(3), drawn) and torch.equal(torch.rand(3), after)


def test_weights_that_are_not_finite_do_not_take_the_place_of_good_ones(tmp_path):
    """On a GPU training looks for NaN now and then only, and may be asked to save in between."""
    checkpoint, optimizer = trained()
    path = save(checkpoint, tmp_path / "c.safetensors", optimizer)
    before = path.read_bytes()
    with torch.no_grad():
        checkpoint.net.stem.bias[1] = math.nan
    with pytest.raises(
        CheckpointError, match="cannot save.*1 of the 4 values of net.stem.bias are not finite"
    ):
        save(checkpoint, path, optimizer)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == [path.name]
    # nor does half precision hold what is too large for it
    with torch.no_grad():
        checkpoint.ema.net.stem.bias[1] = 1e6
    with pytest.raises(CheckpointError, match="ema.stem.bias are not finite"):
        checkpoints.export(checkpoint, tmp_path / "small.safetensors")


# ---------------------------------------------------------------- wrapped networks


class Compiled(nn.Module):
    """As torch.compile wraps a network: its weights under other names, all else passed on."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self._orig_mod = net

    def __getattr__(self, name):
        return super().__getattr__(name) if name == "_orig_mod" else getattr(self._orig_mod, name)

    def forward(self, *given):
        return self._orig_mod(*given)


@pytest.mark.parametrize(
    "wrap", [Compiled, nn.DataParallel, lambda net: nn.DataParallel(Compiled(net)), lambda net: Compiled(nn.DataParallel(net))]
)  # fmt: skip
@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("name", ["adam", "muon"])
def test_a_wrapped_network_is_saved_as_it_is_without(tmp_path, wrap, averaged, name):
    def run(wrap):
        torch.manual_seed(2)
        net, config = wrap(UNet(TINY)), TrainConfig(steps=9, optimizer=name)
        ema, optimizer = EMA(net, 4.5) if averaged else None, make_optimizer(net, config)
        list(
            zip(range(2), train(Denoiser(net, flow(), "v"), batches(), config, ema, optimizer), strict=False)
        )
        checkpoint = Checkpoint(net, flow(), "v", config, ema, 2, data=DATA)
        assert checkpoint.classes == ["cat", "Größe"] and type(checkpoint.net) is UNet
        # and if it is wrapped afterwards, for speed
        checkpoint.net = wrap(checkpoint.net)
        assert checkpoint.net.config == TINY
        if averaged:
            ema.net = wrap(ema.net)
        return save(checkpoint, tmp_path / "c.safetensors", optimizer), checkpoints.export(
            checkpoint, tmp_path / "small.safetensors"
        )

    plain = [path.read_bytes() for path in run(lambda net: net)]
    assert [path.read_bytes() for path in run(wrap)] == plain
    again = load(tmp_path / "c.safetensors")
    again.net = wrap(again.net)
    optimizer = make_optimizer(again.net, again.config)
    restore_optimizer(again, optimizer)
    assert save(again, tmp_path / "d.safetensors", optimizer).read_bytes() == plain[0]
    assert load(tmp_path / "small.safetensors").averaged_only


def test_a_network_of_which_a_part_is_compiled_is_saved_with_bare_names(tmp_path):
    checkpoint, optimizer = trained()
    plain = save(checkpoint, tmp_path / "c.safetensors", optimizer).read_bytes()
    for net in (checkpoint.net, checkpoint.ema.net):
        net.middle[0] = Compiled(net.middle[0])
    assert save(checkpoint, tmp_path / "d.safetensors", optimizer).read_bytes() == plain
    again = load(tmp_path / "d.safetensors")
    again.net.middle[0] = Compiled(again.net.middle[0])
    optimizer = make_optimizer(again.net, again.config)
    restore_optimizer(again, optimizer)
    assert len(optimizer.state) == len(list(again.net.parameters()))


def test_a_network_that_was_changed_is_refused_before_it_is_written(tmp_path):
    checkpoint, _ = trained()
    nn.utils.parametrizations.weight_norm(checkpoint.net.stem)
    with pytest.raises(CheckpointError, match="cannot save this model: .*net.stem.weight is missing"):
        save(checkpoint, tmp_path / "c.safetensors")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- saved with the library


@pytest.mark.parametrize("data", [{}, {"name": "mine"}, {"classes": []}])
def test_labels_without_names_are_called_by_their_numbers(tmp_path, data):
    net = UNet(replace(TINY, num_classes=12))
    checkpoint = Checkpoint(net, flow(), "v", TrainConfig(steps=1), data=data)
    wanted = [str(n) for n in range(12)]
    assert (
        checkpoint.classes == wanted and load(save(checkpoint, tmp_path / "c.safetensors")).classes == wanted
    )
    without = Checkpoint(UNet(replace(TINY, num_classes=0)), flow(), "v", TrainConfig(steps=1), data=data)
    assert without.classes == load(save(without, tmp_path / "c.safetensors")).classes == []


def test_names_may_be_numbers_but_must_be_one_for_each_label(tmp_path):
    net = UNet(replace(TINY, num_classes=3))
    numbered = Checkpoint(net, flow(), "v", TrainConfig(steps=1), data={"classes": (7, 8, 9)})
    again = load(save(numbered, tmp_path / "c.safetensors"))
    assert numbered.classes == again.classes == again.data["classes"] == ["7", "8", "9"]
    for names in (["a"], ["a", "b", "c", "d"]):
        numbered.data = {"classes": names}
        with pytest.raises(
            CheckpointError, match=f"names {len(names)} classes, and its network knows 3 labels"
        ):
            save(numbered, tmp_path / "d.safetensors")
    # a network without labels may have learned from pictures that have them
    without = Checkpoint(
        UNet(replace(TINY, num_classes=0)), flow(), "v", TrainConfig(steps=1), data={"classes": ["a"]}
    )
    assert load(save(without, tmp_path / "d.safetensors")).classes == []


def test_numbers_of_numpy_and_torch_are_kept_and_other_things_refused(tmp_path):
    checkpoint, _ = trained()
    checkpoint.data = DATA | {"images": np.int64(6000), "mean": torch.tensor(0.5)}
    checkpoint.provenance = {"seconds": np.float32(0.25), "loss": {"last": torch.tensor(3)}}
    again = load(save(checkpoint, tmp_path / "c.safetensors"))
    assert again.data == DATA | {"images": 6000, "mean": 0.5}
    assert again.provenance == {"seconds": 0.25, "loss": {"last": 3}}
    for odd, words in (
        ({"path": tmp_path}, "must be JSON, and hold a .*Path"),
        ({"losses": torch.zeros(3)}, "must be JSON, and hold a Tensor"),
        ({"losses": np.zeros(3)}, "must be JSON, and hold a ndarray"),
        ({"deep": nested(40)}, "more than 32 deep"),
        ({"deep": nested(5000)}, "recursion"),
    ):
        checkpoint.provenance = odd
        with pytest.raises(CheckpointError, match=words) as caught:
            save(checkpoint, tmp_path / "d.safetensors")
        assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_model_that_was_saved_without_its_optimiser_says_so(tmp_path):
    checkpoint, _ = trained()
    again = load(save(checkpoint, tmp_path / "c.safetensors"))
    with pytest.raises(CheckpointError, match="without its optimiser.*new run"):
        restore_optimizer(again, make_optimizer(again.net, again.config))


@pytest.mark.parametrize(("saved", "restored"), [("adam", "muon"), ("muon", "adam")])
def test_the_state_of_another_optimiser_is_refused(tmp_path, saved, restored):
    net, config = UNet(TINY), TrainConfig(steps=9)
    optimizer = make_optimizer(net, replace(config, optimizer=saved))
    next(train(Denoiser(net, flow(), "v"), batches(), config, optimizer=optimizer))
    again = load(save(Checkpoint(net, flow(), "v", config, step=1), tmp_path / "c.safetensors", optimizer))
    with pytest.raises(CheckpointError, match=f"not one of {restored.title()}"):
        restore_optimizer(again, make_optimizer(again.net, replace(config, optimizer=restored)))


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_a_run_with_a_frozen_part_goes_on_to_the_bit(tmp_path, name):
    config = TrainConfig(steps=4, optimizer=name)

    def begin(net):
        net.stem.requires_grad_(False)
        return net, make_optimizer(net, config)

    torch.manual_seed(0)
    net, optimizer = begin(UNet(TINY))
    pairs = [batch for batch, _ in zip(batches(), range(4), strict=False)]
    path = tmp_path / "c.safetensors"
    for step in train(Denoiser(net, flow(), "v"), pairs, config, optimizer=optimizer):
        if step.index == 2:
            save(Checkpoint(net, flow(), "v", config, step=2), path, optimizer)
    again = load(path)
    other, optimizer = begin(again.net)
    restore_optimizer(again, optimizer)
    list(train(Denoiser(other, flow(), "v"), pairs[2:], config, optimizer=optimizer, start=2))
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


# ---------------------------------------------------------------- any file at all


def odd(rng: random.Random):
    """A value that a header may hold in the place of another; "HUGE" stands for a number of 5,000 digits."""
    whole = [0, -1, 1, 2, 3, 7, 10**6, 10**12, 10**18, 2**63, 2**64, 10**400, -(10**9)]
    other = [None, True, False, 0.5, -0.0, 1e-320, 1e308, math.inf, -math.inf, math.nan]
    texts = ["", "x", "1", "unet", "cosine", "flow", "v", "two\nlines", "\ud800", "x" * 100_000, "HUGE"]
    lists = [
        [],
        [0],
        [1, 2],
        [1.5],
        [None],
        [[]],
        {},
        {"a": 1},
        {"steps": 5},
        nested(40),
        nested(600),
        [1] * 1000,
    ]
    return rng.choice(rng.choice([whole, other, texts, lists]))


KINDS = "BOOL U8 I8 I16 I32 I64 U64 F16 BF16 F32 F64 F8_E4M3 F8_E5M2 C64 F4 X9".split()


def places(value) -> list[tuple]:
    """The paths of all values in a header."""
    found, left = [], [((), value)]
    while left:
        path, each = left.pop()
        found.append(path)
        pairs = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
        left += [((*path, key), inside) for key, inside in pairs]
    return found


def changed(value, rng: random.Random):
    """A JSON value of which one part was replaced, removed, renamed, copied or added to."""
    path = rng.choice(places(value))
    if not path:
        return odd(rng) if rng.random() < 0.2 else value
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    how, key = rng.choice(["replace"] * 6 + ["remove", "rename", "copy", "nudge"]), path[-1]
    if how == "remove":
        del parent[key]
    elif how == "rename" and isinstance(parent, dict):
        parent[rng.choice(["x", key + "_", key[:-1], ""])] = parent.pop(key)
    elif how == "copy":
        parent[key] = [parent[key]] * rng.choice([1, 2, 5])
    elif how == "nudge" and type(parent[key]) in (int, float):
        parent[key] *= rng.choice([-1, 2, 3, 0.5, 1000, 2**40])
    else:
        parent[key] = odd(rng)
    return value


SIZES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "F32": 4,
}
"""Bytes of a value; 8 of those not named."""


def retyped(outer: dict, body: bytes, rng: random.Random) -> tuple[dict, bytes]:
    """The tensors laid out anew, one of them of another type, shape or name, gone or there twice."""
    told = {"__metadata__": outer["__metadata__"]}
    kept = {
        k: (v["dtype"], v["shape"], body[slice(*v["data_offsets"])])
        for k, v in outer.items()
        if k not in told
    }
    name = rng.choice(list(kept))
    kind, shape, values = kept[name]
    how = rng.choice(["kind", "kind", "shape", "shape", "name", "gone", "twice", "values"])
    if how == "kind":
        kind = rng.choice(KINDS)
    elif how == "shape":
        huge = [[0, 10**18], [0] + [10**18] * 3, [10**12], [2**62, 4]]
        near = [[], [0], [*shape, 1], [1, *shape], shape[::-1], [math.prod(shape)], [n + 1 for n in shape]]
        shape = rng.choice(huge + near)
    elif how == "values":
        kind, values = (
            "F32",
            struct.pack("<f", rng.choice([math.nan, math.inf, 3e38, -1e30, 1e-40])) * math.prod(shape),
        )
    elif how != "twice":
        del kept[name]
    if how in ("name", "twice"):
        name = rng.choice(
            [
                "net.x",
                "x",
                "",
                name + ".x",
                "adam.step",
                "muon.momentum.stem.bias",
                name.replace("net.", "ema."),
            ]
        )
    if how != "gone":
        length = SIZES.get(kind, 8) * math.prod(shape)
        kept[name] = kind, shape, values if len(values) == length or length > 10**6 else rng.randbytes(length)
    laid = b""
    for name, (kind, shape, values) in kept.items():
        told[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(laid), len(laid) + len(values)]}
        laid += values
    return told, laid


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """A checkpoint file that was changed somewhere, in one of many ways."""
    outer, start = header_of(raw)
    body = raw[start:]
    how = rng.choice(
        ["inner"] * 8 + ["tensor"] * 5 + ["body"] * 2 + ["outer", "length", "bytes", "cut", "longer"]
    )
    if how == "inner":
        inner = json.loads(outer["__metadata__"]["ddpm_lib"])
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            inner = changed(inner, rng)
        outer["__metadata__"]["ddpm_lib"] = json.dumps(inner).replace('"HUGE"', "9" * 5000)
    elif how == "tensor":
        outer, body = retyped(outer, body, rng)
    elif how == "outer":
        outer = changed(outer, rng)
    text = json.dumps(outer).replace('"HUGE"', "9" * 5000).encode()
    whole = bytearray(struct.pack("<Q", len(text)) + text + body)
    if how == "length":
        lengths = [0, 1, 7, 8, len(text) - 1, len(text) + 1, 10**8, 2**40, 2**63, 2**64 - 1]
        whole[:8] = struct.pack("<Q", rng.choice(lengths))
    elif how in ("bytes", "body"):
        first, last = (0, 8 + len(text)) if how == "bytes" else (8 + len(text), len(whole))
        for _ in range(rng.choice([1, 1, 2, 8, 64])):
            whole[rng.randrange(first, last)] = rng.choice([0, 255, 127, 128, rng.randrange(256)])
    elif how == "cut":
        del whole[rng.randrange(len(whole)) :]
    elif how == "longer":
        whole += rng.randbytes(rng.choice([1, 8, 1000]))
    return bytes(whole)


def originals() -> list[bytes]:
    """Checkpoints of every kind that the library writes."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.safetensors"
        for schedule, predict, averaged in (
            (cosine(50), "v", True),
            (flow(), "flow", False),
            (edm(), "edm", True),
        ):
            checkpoint, optimizer = trained(2, schedule, predict, averaged)
            checkpoint.provenance |= {"settings": {"steps": 9}, "seconds": 1.5, "sampling": {"steps": 5}}
            found.append(save(checkpoint, path, optimizer).read_bytes())
            found.append(checkpoints.export(checkpoint, path).read_bytes())
        net = UNet(UNetConfig(6, 3, 0, 4, (1, 2), 1, (1,), 4, 2, 0.1, "add"))
        config = TrainConfig(steps=3, optimizer="muon", min_snr=5.0)
        optimizer = make_optimizer(net, config)
        next(
            train(
                Denoiser(net, linear(30), "eps"),
                ((torch.zeros(2, 3, 6, 6), None) for _ in range(1)),
                config,
                None,
                optimizer,
            )
        )
        found.append(
            save(Checkpoint(net, linear(30), "eps", config, EMA(net), 1), path, optimizer).read_bytes()
        )
    return found


def held(path: Path) -> bool:
    """Whether a file loads; it must then draw and be saved again, and be refused in one line else."""
    try:
        checkpoint = load(path)
    except (CheckpointError, OSError) as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, str(error)[:2000]
        return False
    config = checkpoint.net.config
    label = torch.zeros(1, dtype=torch.long) if config.num_classes else None
    assert len(checkpoint.classes) == config.num_classes
    x = torch.zeros(1, config.channels, *[min(config.image_size, 9)] * 2)
    for ema in (True, False):
        with torch.no_grad():
            assert checkpoint.denoiser(ema)(x, 0.5, label).shape == x.shape
    load(save(checkpoint, path))
    return True


def test_what_a_file_says_of_itself_is_quoted_in_one_line(tmp_path, whole):
    outer, start = header_of(whole)
    outer["net.stem.bias"]["dtype"] = "two\nlines" * 1000
    text = json.dumps(outer).encode()
    (tmp_path / "c.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + whole[start:])
    with pytest.raises(CheckpointError, match="two lines") as caught:
        load(tmp_path / "c.safetensors")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_file_that_was_changed_anyhow_loads_or_is_refused_in_one_line(tmp_path):
    rng, bases, path, loaded = random.Random(0), originals(), tmp_path / "c.safetensors", 0
    assert all(path.write_bytes(raw) and held(path) for raw in bases)
    for case in range(200):
        path.write_bytes(mutated(rng.choice(bases), rng))
        began = time.process_time()
        loaded += held(path)
        assert time.process_time() - began < 5, case
    # both ends are reached
    assert 20 < loaded < 180


# ---------------------------------------------------------------- crashes while writing


@pytest.mark.parametrize("what", ["save_file", "fsync", "replace", "interrupt"])
@pytest.mark.parametrize("there", [True, False])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, what, there):
    checkpoint, optimizer = trained()
    path = tmp_path / "c.safetensors"
    if there:
        save(checkpoint, path, optimizer)
    before = path.read_bytes() if there else None

    def fail(*args, **kwargs):
        if what == "save_file":
            Path(args[1]).write_bytes(b"half of it")
        raise KeyboardInterrupt if what == "interrupt" else OSError(28, "No space left on device")

    if what in ("save_file", "interrupt"):
        monkeypatch.setattr(checkpoints, "save_file", fail)
    else:
        monkeypatch.setattr(os, what, fail)
    checkpoint.step = 4
    with pytest.raises(KeyboardInterrupt if what == "interrupt" else OSError) as caught:
        save(checkpoint, path, optimizer)
    if what != "interrupt":
        assert "No space left" in str(caught.value) and str(path) in str(caught.value)
        assert ("untouched" if there else "nothing was written") in str(caught.value)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == (["c.safetensors"] if there else [])
    if there:
        assert path.read_bytes() == before and load(path).step == 3


FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from test_checkpoint import save, trained
checkpoint, optimizer = trained()
path = sys.argv[2]
save(checkpoint, path, optimizer)
checkpoint.step = 4
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save(checkpoint, path, optimizer)
except OSError as error:
    print("told:", error)
"""


def test_a_disk_that_is_really_full(tmp_path):
    """A limit on the size of files is the full disk that any machine can have."""
    pytest.importorskip("resource")
    path = tmp_path / "c.safetensors"
    # the package from where this process has it, and conftest
    places = Path(ddpm_lib.__file__).parents[1], Path(__file__).parents[1], os.environ.get("PYTHONPATH", "")
    root = os.pathsep.join(map(str, places))
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(Path(__file__).parent), str(path)],
        env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.startswith("told: could not write") and "untouched" in run.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]
    assert path.stat().st_size > 4096 and load(path).step == 3


def test_provenance_needs_no_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    facts = checkpoints.provenance(torch.device("cpu"))
    assert facts["commit"] == "unknown" and facts["torch"] == torch.__version__
    json.dumps(facts)


def test_the_device_is_named_as_the_system_names_it(monkeypatch):
    cpu, threads = torch.device("cpu"), torch.get_num_threads()
    monkeypatch.setattr(checkpoints.Path, "exists", lambda path: True)
    monkeypatch.setattr(
        checkpoints.Path, "read_text", lambda path: "processor\t: 0\nmodel name\t: ACME 7 @ 2 GHz \n" * 2
    )
    try:
        for count, said in ((1, "ACME 7 @ 2 GHz, 1 thread"), (2, "ACME 7 @ 2 GHz, 2 threads")):
            torch.set_num_threads(count)
            assert checkpoints.provenance(cpu)["device"] == said
        monkeypatch.setattr(checkpoints.Path, "exists", lambda path: False)
        monkeypatch.setattr(checkpoints.platform, "processor", lambda: "")
        monkeypatch.setattr(checkpoints.platform, "machine", lambda: "arm64")
        assert checkpoints.device_name(cpu) == "arm64, 2 threads"
    finally:
        torch.set_num_threads(threads)


# ---------------------------------------------------------------- export


def test_export_is_half_precision_loads_samples_and_cannot_be_resumed(tmp_path):
    checkpoint, optimizer = trained()
    full = save(checkpoint, tmp_path / "full.safetensors", optimizer)
    path = checkpoints.export(checkpoint, tmp_path / "small.safetensors", seconds=12)
    assert path.stat().st_size < full.stat().st_size / 4
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    assert all(name.startswith("ema.") and value.dtype == torch.float16 for name, value in tensors.items())

    again = load(path)
    assert again.averaged_only and not load(full).averaged_only and not checkpoint.averaged_only
    assert (
        again.provenance == {"device": "here", "seconds": 12}
        and again.step == 3
        and again.classes == ["cat", "Größe"]
    )
    for name, mine in checkpoint.ema.net.state_dict().items():
        for net in (again.net, again.ema.net):
            theirs = net.state_dict()[name]
            assert theirs.dtype == torch.float32 and torch.equal(theirs, mine.half().float())
    x, label = torch.randn(2, 1, 4, 4), torch.tensor([0, 1])
    pictures = []
    for model in (checkpoint, again):
        denoise = guided(model.denoiser(), label, 2.0)
        pictures.append(last(ddim(denoise, x, model.schedule, model.schedule.times(10))))
    close(pictures[0], pictures[1], 0.05)
    with pytest.raises(CheckpointError, match="without its optimiser.*new run"):
        restore_optimizer(again, make_optimizer(again.net, again.config))


def test_export_leaves_the_run_as_it_was(tmp_path):
    """Training goes on after an export: its average must not have become half precision."""
    checkpoint, _ = trained()
    before = [parameter.clone() for parameter in checkpoint.ema.net.parameters()]
    checkpoints.export(checkpoint, tmp_path / "small.safetensors")
    for mine, theirs in zip(before, checkpoint.ema.net.parameters(), strict=True):
        assert theirs.dtype == torch.float32 and torch.equal(mine, theirs)
    checkpoint.ema.update(checkpoint.net)
    assert checkpoint.provenance == {"device": "here"}


def test_export_of_a_run_without_average(tmp_path):
    checkpoint, _ = trained(averaged=False)
    again = load(checkpoints.export(checkpoint, tmp_path / "small.safetensors"))
    for name, mine in checkpoint.net.state_dict().items():
        assert torch.equal(again.denoiser().net.state_dict()[name], mine.half().float())


def test_shipped_models_load_by_name():
    with pytest.raises(
        CheckpointError, match="no shipped model is called 'a model that is not there': choose from"
    ):
        pretrained("a model that is not there")
    for name in shipped():
        model = load(name)
        assert (
            model.provenance
            and model.denoiser()(
                torch.zeros(1, model.net.config.channels, *[model.net.config.image_size] * 2), 0.5
            )
            .isfinite()
            .all()
        )
        close(model.schedule.signal_noise(f64(0.5))[0], pretrained(name).schedule.signal_noise(f64(0.5))[0])


def test_a_config_is_saved_whole(tmp_path):
    checkpoint, _ = trained()
    config = replace(checkpoint.config, min_snr=5.0, label_dropout=0.2, seed=7, times="logit-normal")
    assert load(save(replace_field(checkpoint, config=config), tmp_path / "c.safetensors")).config == config
