"""A stranger's pip package: a model, a metric and a task, found through its entry point alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Type

SUITE = """
name = "strange"
version = 1
summary = "a stranger's items only"
primary = "top-2-accuracy"
tasks = ["wine"]
seeds = 2
metrics = ["top-2-accuracy", "accuracy", "sparsity"]
[budget]
epochs = 2
batch_size = 32
trials = 2
[recipes.plain]
learning_rate = { value = 1e-2, low = 3e-3, high = 3e-2, log = true }
[[contestants]]
model = "hopfield"
[[contestants]]
model = "vit"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which pip has installed the package, as from an index."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*pip, str(folder), str(ROOT / "tests" / "third_party")], check=True, timeout=120)
    return folder


def test_its_items_are_listed_under_its_own_name_and_version(site: Path, type_in: Type) -> None:
    listed = json.loads(type_in("whitebench", "list", "--json", env={"PYTHONPATH": str(site)}).stdout)
    owned = {(item["kind"], item["name"]) for item in listed["items"] if item["distribution"] != "whitebench"}
    assert owned == {("model", "hopfield"), ("metric", "top-2-accuracy"), ("task", "wine")}
    versions = {item["version"] for item in listed["items"] if item["distribution"] == "whitebench-thirdparty-example"}
    assert versions == {"0.1.0"}
    assert listed["quarantined"] == []


def test_without_it_the_suite_says_what_is_missing(tmp_path: Path, type_here: Type) -> None:
    (tmp_path / "strange.toml").write_text(SUITE)
    refused = type_here("whitebench", "plan", "strange.toml")
    assert refused.returncode == 2
    assert "unknown metric 'top-2-accuracy', did you mean 'accuracy'?" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_its_suite_is_refused_while_a_contestant_fits_no_task_and_nothing_is_left(
    site: Path, tmp_path: Path, type_in: Type
) -> None:
    (tmp_path / "strange.toml").write_text(SUITE)
    refused = type_in("whitebench", "run", "strange.toml", env={"PYTHONPATH": str(site)})
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "contestant vit fits none of the tasks to be run: wine: " in refused.stderr
    assert "are no images" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["strange.toml"]


@pytest.mark.slow
def test_its_suite_runs_and_what_does_not_fit_fails_by_its_kind(site: Path, tmp_path: Path, type_in: Type) -> None:
    (tmp_path / "strange.toml").write_text(SUITE.replace('["wine"]', '["wine", "digits"]'))
    env = {"PYTHONPATH": str(site)}
    done = type_in("whitebench", "run", "strange.toml", env=env)
    assert done.returncode == 1, done.stdout + done.stderr  # vit cannot take a wine for an image
    cells = json.loads(type_in("whitebench", "status", "strange.toml", "--json", env=env).stdout)["cells"]
    states = {cell["cell"]: cell["state"] for cell in cells}
    assert states == {
        "strange/hopfield/wine/0": "finished",
        "strange/hopfield/wine/1": "finished",
        "strange/hopfield/digits/0": "finished",
        "strange/hopfield/digits/1": "finished",
        "strange/vit/wine/0": "failed",
        "strange/vit/wine/1": "failed",
        "strange/vit/digits/0": "finished",
        "strange/vit/digits/1": "finished",
    }
    assert all("config: " in cell["reason"] for cell in cells if cell["state"] == "failed")
    board = json.loads(type_in("whitebench", "board", "strange.toml", "--json", env=env).stdout)
    first = next(entry for entry in board["entries"] if entry["task"] == "wine")
    assert (first["contestant"], first["primary"]["name"]) == ("hopfield", "top-2-accuracy")
