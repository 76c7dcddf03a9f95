"""Checkpoints: bit-equal, never unpickled, never half written."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

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
from ddpm_lib.checkpoint import (
    Checkpoint,
    CheckpointError,
    load,
    pretrained,
    restore_optimizer,
    save,
    shipped,
)
from ddpm_lib.denoiser import Denoiser
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
        (setting("train", "steps", value=0), "does not fit this version"),
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
    root = os.pathsep.join([str(Path(ddpm_lib.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
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
