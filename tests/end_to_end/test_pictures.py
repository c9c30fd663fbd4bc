"""A folder of pictures through the real command: planned, run on one device and on two, ranked, and found wanting."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Type
from tests.plugins.pictures import drawn, write_folder

pytest.importorskip("datasets")

SUITE = """
name = "pets"
version = 1
summary = "pets"
primary = "accuracy"
tasks = ["imagefolder[path=pets,size=8]"]
seeds = 1
metrics = ["accuracy", "coding-rate"]

[budget]
epochs = 3
batch_size = 16
trials = 0

[recipes.plain]
learning_rate = { value = 1e-2 }
crop = 1
flip = true

[[contestants]]
model = "vit[dim=16,depth=2,heads=2,patch=4]"
label = "vit"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pets.toml").write_text(SUITE, encoding="utf-8")
    return write_folder(tmp_path / "pets", {"train": drawn(20, seed=1, side=9), "test": drawn(7, seed=2, side=9)})


def predicted(tmp_path: Path, suite: str) -> dict[str, torch.Tensor]:
    (file,) = (tmp_path / "whitebench-artifacts" / suite).rglob("predictions.safetensors")
    return load_file(file)


def test_pictures_of_your_own_are_run_on_one_device_and_streamed_to_two_alike(
    folder: Path, tmp_path: Path, type_here: Type
) -> None:
    planned = type_here("whitebench", "plan", "pets.toml").stdout
    assert "its pictures have not been read on this machine, or have changed since: run reads them" in planned
    one = type_here("whitebench", "run", "pets.toml")
    assert (one.returncode, "Reading the data of imagefolder[size=8]: once" in one.stderr) == (0, True), one.stderr
    (tmp_path / "two.toml").write_text(SUITE.replace('name = "pets"', 'name = "two"'), encoding="utf-8")
    two = type_here("whitebench", "run", "two.toml", "--devices", "2", "--set", "limits.data_gib=0")
    assert (two.returncode, two.stderr) == (0, "")
    assert "Overridden" not in two.stdout
    expected, found = (predicted(tmp_path, suite) for suite in ("pets", "two"))
    assert torch.equal(found["labels"], expected["labels"])
    torch.testing.assert_close(found["logits"], expected["logits"], rtol=1e-3, atol=1e-3)
    shown = type_here("whitebench", "board", "pets.toml", "--format", "json").stdout
    (entry,) = json.loads(shown)["entries"]
    assert entry["primary"]["mean"] > 0.9  # classes differ in colour
    assert str(folder) not in shown


def test_a_folder_that_is_missing_or_holds_a_damaged_file_is_said_before_anything_runs(
    folder: Path, type_here: Type
) -> None:
    (folder / "train" / "cat" / "0001.png").write_bytes(b"no picture")
    damaged = type_here("whitebench", "run", "pets.toml")
    assert damaged.returncode == 2
    assert "train/cat/0001.png: cannot be read as a picture (UnidentifiedImageError" in damaged.stderr
    shutil.rmtree(folder)
    for command in ("plan", "run"):
        told = type_here("whitebench", command, "pets.toml")
        assert f"there is nothing at {folder}: put pictures, a folder for each class there" in told.stdout + told.stderr
