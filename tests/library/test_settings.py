"""A run's settings: written once, checked once, whether they come from Python, from words or from a file."""

import json
from dataclasses import asdict, fields

import numpy as np
import pytest

from ddpm_lib import denoiser, sampling, schedule, settings, training
from ddpm_lib.settings import Settings, TrainConfig


def test_the_names_are_those_of_the_librarys_tables():
    assert settings.SCHEDULES == tuple(schedule.SCHEDULES)
    assert settings.TARGETS == tuple(denoiser.TARGETS)
    assert settings.OPTIMIZERS == tuple(training.OPTIMIZERS)
    assert settings.DECAYS == tuple(training.DECAYS)
    assert settings.TIMES == tuple(training.TIMES)
    assert settings.SAMPLERS == tuple(sampling.SAMPLERS)


def test_every_setting_says_what_it_is_and_where_it_belongs():
    for each in fields(Settings):
        assert each.metadata["about"] and each.metadata["group"], each.name


def test_a_run_keeps_its_settings_as_json_that_makes_them_again(tmp_path):
    made = Settings(steps=3, multipliers=(1, 2), attention=(), lr=2e-3, labels=False, size=16)
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(made.kept()))
    assert Settings(**settings.read(path)) == made


def test_what_numpy_counts_with_is_a_whole_number():
    made = Settings(
        steps=np.int64(3), batch_size=np.int32(8), lr=np.float32(0.5), multipliers=[np.int64(1), 2]
    )
    assert asdict(made) == asdict(Settings(steps=3, batch_size=8, lr=0.5, multipliers=(1, 2)))
    assert {type(made.steps), type(made.batch_size), type(made.multipliers[0])} == {int}


def test_a_train_config_is_part_of_the_settings():
    made = Settings(steps=3, lr=2e-3, precision="fp32", width=16)
    assert made.train_config() == TrainConfig(steps=3, lr=2e-3, precision="fp32")
    assert made.train_config(precision="bf16").precision == "bf16"


def test_how_long_to_train_must_be_said():
    with pytest.raises(ValueError, match="how long to train: --steps N"):
        Settings()


BAD = {
    "flip": ("no", "flip must be true or false, got 'no'"),
    "labels": ("false", "labels must be true or false, got 'false'"),
    "steps": ("10", "steps must be a whole number, got '10'"),
    "batch_size": (8.0, "batch_size must be a whole number, got 8.0"),
    "save_every": (True, "save_every must be a whole number, got True"),
    "lr": ("1e-3", "lr must be a number, got '1e-3'"),
    "warmup": (-1, "warmup must be at least 0, got -1"),
    "label_dropout": (1.5, "label_dropout must be at most 1, got 1.5"),
    "min_snr": (float("nan"), "min_snr must be a finite number, got nan"),
    "lr ": (10**400, "lr must be a finite number, got inf"),
    "clip": (float("inf"), "clip must be a finite number, got inf"),
    "ema_half_life": (0, "ema_half_life must be positive, got 0.0"),
    "seed": (2**63, f"seed must be at most {2**63 - 1}, got {2**63}"),
    "channels": (2, "channels must be 1 or 3, got 2"),
    "device": (3, "device must be a text, got 3"),
    "multipliers": ([1, "2"], "multipliers must be a list of whole numbers, got [1, '2']"),
    "attention": (1, "attention must be a list of whole numbers, got 1"),
    "width": (None, ""),
    "data": (None, "data must be a text, got None"),
    "schedule": ("quadratic", "unknown schedule 'quadratic': choose from linear, cosine, sigmoid, flow, edm"),
    "optimizer": ("adamw", "unknown optimizer 'adamw': choose from adam, muon"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_value_from_a_file_is_checked_like_any_other(tmp_path, name):
    value, said = BAD[name]
    name = name.strip()
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"steps": 5} | {name: value}))
    if not said:  # what is open is decided when the run starts
        assert settings.read(path)[name] is None
        return
    with pytest.raises(ValueError) as refused:
        Settings(**{"steps": 5} | {name: value})
    assert str(refused.value) == said
    with pytest.raises(ValueError) as refused:
        settings.read(path)
    assert str(refused.value) == f"{path}: {said}"


@pytest.mark.parametrize("text", ["[]", "null", "3", '"steps"', "{", "", '{"steps": 1', "[" * 100_000])
def test_a_file_that_is_no_object_of_settings(tmp_path, text):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"recipe\.json: (must be a JSON object|not a JSON file)"):
        settings.read(path)


def test_names_that_are_no_settings(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text('{"learning_rate": 1, "steps": 3}')
    with pytest.raises(ValueError, match=r"recipe\.json: unknown settings learning_rate; known: steps, .*lr"):
        settings.read(path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path, mark):
    path = tmp_path / "recipe.json"
    path.write_bytes(mark + '{"steps": 3, "data": "für/später"}'.encode())
    assert settings.read(path) == {"steps": 3, "data": "für/später"}


def test_what_stays_as_it_is_in_a_run():
    old = Settings(steps=3, width=16, lr=1e-3)
    assert settings.differences(old, {"steps": 9, "device": "cuda", "save_every": 1, "width": 16}) == []
    assert settings.differences(old, {"width": 32, "lr": 1e-3}) == [("width", 16, 32)]
