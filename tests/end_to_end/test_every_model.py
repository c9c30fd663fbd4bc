"""Every registered model through the real command: two epochs on 256 digits, scored and stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Type
from whitebench.testing import items

HEAD = """
name = "everyone"
version = 1
summary = "every model for two epochs"
primary = "accuracy"
tasks = ["digits[train=256]"]
seeds = 1
metrics = ["accuracy", "cross-entropy", "coding-rate", "subspace-coding-rate", "sparsity"]
readouts = ["nearest-subspace", "linear-probe"]

[budget]
epochs = 2
batch_size = 16
trials = 0

[recipes.plain]
learning_rate = { value = 3e-3 }
warmup_epochs = 0
"""

NEEDS_MORE = {"timm"}
"""Models of an optional extra, which have a test of their own."""


@pytest.mark.slow
def test_every_model_trains_for_two_epochs_on_256_digits(tmp_path: Path, type_here: Type) -> None:
    names = [spec.name for spec in items("model") if spec.head and spec.name not in NEEDS_MORE]
    contestants = [f'[[contestants]]\nmodel = "{name}"\n' for name in names]
    contestants += [
        f'[[contestants]]\nlabel = "{name}-mcr2"\nmodel = "{name}"\nobjective = "mcr2"\n' for name in ("crate", "vit")
    ]
    (tmp_path / "everyone.toml").write_text(HEAD + "\n".join(contestants), encoding="utf-8")
    ran = type_here("whitebench", "run", "everyone.toml", "--parallel", "2")
    assert ran.returncode == 0, ran.stderr
    board = json.loads(type_here("whitebench", "board", "everyone.toml", "--format", "json").stdout)
    entries = {entry["contestant"]: entry for entry in board["entries"]}
    assert entries.keys() == {*names, "crate-mcr2", "vit-mcr2"}
    accuracies = {name: entry["primary"]["mean"] for name, entry in entries.items()}
    assert min(accuracies.values()) > 0.15  # one class in ten is guessed right
