"""README's promises: its code is the code, its commands run, in its order, in one folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, Type, person
from whitebench import hookspecs

README = (ROOT / "README.md").read_text(encoding="utf-8")

OWN_PROCESS = ("whitebench run smoke", "whitebench run smoke -m crate --seeds 0-0 --in-process")
"""Commands that are typed as a person does: one as the example of all, and one that trains in its own process."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """Return README's commands in its order, without those that would call this test again."""
    typed = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    return [command for command in typed if command not in ("make test", "make check")]


def test_every_picture_is_there_is_small_and_is_told_in_words() -> None:
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", README)
    assert len(pictures) == 2
    for words, file in pictures:
        assert (ROOT / file).stat().st_size < 200_000
        assert len(words) > 80


def test_the_example_model_is_the_one_in_the_examples_folder() -> None:
    shown, *_ = blocks("python")
    assert shown == (ROOT / "examples" / "my_model.py").read_text(encoding="utf-8")


def test_the_example_of_a_network_of_ones_own_is_shown_and_scores_it() -> None:
    example = ROOT / "examples" / "own_network.py"
    _, shown, _ = blocks("python")
    assert shown == example.read_text(encoding="utf-8")
    told = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, check=True, timeout=240)
    values = {line.split()[0]: line.split()[1] for line in told.stdout.splitlines()}
    assert float(values["accuracy"]) > 0.5
    assert {"coding-rate/share", "sparsity/nonzero", "margin/rho"} <= set(values)
    assert "unscored" not in told.stdout


def test_the_suite_shown_is_the_suite_run() -> None:
    shown = tomllib.loads(blocks("toml")[-1])
    assert shown == tomllib.loads((ROOT / "benchmark/whitebench/suites/smoke.toml").read_text(encoding="utf-8"))


def test_the_entry_point_shown_is_that_of_a_real_distribution() -> None:
    real = tomllib.loads((ROOT / "tests/third_party/pyproject.toml").read_text(encoding="utf-8"))
    shown = tomllib.loads(blocks("toml")[0])
    assert shown["project"]["entry-points"] == real["project"]["entry-points"]


def test_every_hook_is_in_the_table() -> None:
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, "whitebench_spec")]
    assert hooks
    for hook in hooks:
        assert f"`{hook}" in README


def test_every_suite_is_in_the_table() -> None:
    for file in (ROOT / "benchmark/whitebench/suites").glob("*.toml"):
        assert f"| `{file.stem}` |" in README


def test_continuous_integration_runs_the_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "make check" in script
    assert "make test" in script
    assert "$ make test\n" in README


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_does_what_it_says(tmp_path: Path, type_in: Type, type_here: Type) -> None:
    (tmp_path / "my_model.py").write_text(blocks("python")[0], encoding="utf-8")
    printed: dict[str, str] = {}
    for command in commands():
        if command.startswith("mlflow ui"):
            assert experiments_served(command, tmp_path) >= {"smoke", "smoke/tuning"}
            continue
        if command == "whitebench serve":
            assert "9 of 9 cells" in page_served(command, tmp_path)
            continue
        if command == "make bench":  # of this checkout and environment, but with its results in our folder
            store = f"sqlite:///{tmp_path}/whitebench.db"
            done = type_in("make", "bench", f"VENV={sys.prefix}", cwd=ROOT, env={"MLFLOW_TRACKING_URI": store})
        elif command in OWN_PROCESS:
            done = type_in(*shlex.split(command))
        else:
            done = type_here(*shlex.split(command))
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        printed[command] = done.stdout
    assert re.search(r"\bvit\b.* ± .*3/3", printed["make bench"])
    assert re.search(r"\bcrate\b.* ± .*3/3", printed["make bench"])
    assert "\\toprule" in printed["whitebench board smoke --format latex"]
    assert re.search(r"\bmy-model\b.* ± .*3/3", printed["whitebench board smoke --plugin my_model.py"])
    assert "cells to do: 0," in printed["whitebench run smoke"]
    assert "Overridden" in printed[next(command for command in printed if "--set" in command)]

    notebook = type_in("python", "-c", blocks("python")[2])
    assert re.search(r"\d +vit +\d +\d +0\.9", notebook.stdout), notebook.stderr

    board = json.loads(type_here("whitebench", "board", "smoke", "--json").stdout)
    means = {entry["contestant"]: entry["primary"]["mean"] for entry in board["entries"]}
    assert means["vit"] > 0.9
    assert means["crate"] > 0.9


def experiments_served(command: str, folder: Path) -> set[str]:
    """Start MLflow's own page on a free port, ask it which experiments it has, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(port) if word == "5000" else word for word in shlex.split(command)]
    ask = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search",
        data=b'{"max_results": 100}',
        headers={"Content-Type": "application/json"},
    )
    with serving(words, folder):
        for _ in range(120):
            try:
                with urllib.request.urlopen(ask, timeout=5) as answer:
                    return {one["name"] for one in json.load(answer)["experiments"]}
            except OSError:
                time.sleep(0.5)
    raise AssertionError((folder / "mlflow.log").read_text())


def page_served(command: str, folder: Path) -> str:
    """Start the boards' server on a free port, read its first page, and stop it."""
    with serving([*shlex.split(command), "--port", "0"], folder):
        for _ in range(240):
            if found := re.search(r"http://127\.0\.0\.1:\d+/", (folder / "mlflow.log").read_text()):
                with urllib.request.urlopen(found[0], timeout=60) as answer:
                    return str(answer.read().decode())
            time.sleep(0.5)
    raise AssertionError((folder / "mlflow.log").read_text())


@contextmanager
def serving(words: list[str], folder: Path) -> Iterator[None]:
    with (folder / "mlflow.log").open("w") as log:
        server = subprocess.Popen(
            words, cwd=folder, env=person({}), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=20)
