"""The docs' code works, and every field of every Spec and of a suite's file is explained where a reader looks."""

from __future__ import annotations

import dataclasses
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest

import whitebench
from tests.conftest import ROOT
from whitebench.budget import Budget, Limits, Tuning
from whitebench.catalog import load_catalog
from whitebench.recipe import Recipe, Tuned
from whitebench.result import FailureKind
from whitebench.suite import Contestant, Match, Suite, load_suite
from whitebench.tracing import offered_kinds

PLUGINS = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
TRACES = PLUGINS.partition("| trace | per layer | read by |")[2].partition("\n\n")[0]
SUITES = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "explained.py"
    file.write_text("\n\n".join(re.findall(r"```python\n(.*?)```", PLUGINS, re.DOTALL)), encoding="utf-8")
    return file


def test_the_plugin_shown_loads_with_all_its_items(plugin: Path) -> None:
    catalog = load_catalog([plugin])
    assert catalog.quarantined == ()
    assert catalog.metric("macro-f1").owner.plugin == str(plugin)
    assert catalog.objective("brier").owner.plugin == str(plugin)
    assert catalog.task("rings").owner.plugin == str(plugin)
    assert catalog.model("gaussians").owner.plugin == str(plugin)
    assert catalog.launcher("considerate").owner.plugin == str(plugin)
    assert len(catalog.observers) == 1


def test_the_plugin_shown_keeps_every_rule(plugin: Path) -> None:
    runpy.run_path(str(plugin))["test_my_items"]()


def test_the_suite_shown_is_one(tmp_path: Path) -> None:
    (tmp_path / "my_suite.toml").write_text(re.findall(r"```toml\n(.*?)```", SUITES, re.DOTALL)[0], encoding="utf-8")
    suite = load_suite(str(tmp_path / "my_suite.toml"))
    assert suite.seeds == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("kind", [whitebench.ModelSpec, whitebench.TaskSpec, whitebench.MetricSpec,
                                  whitebench.ObjectiveSpec, whitebench.ReadoutSpec, whitebench.LauncherSpec,
                                  whitebench.Reading, whitebench.Layout, whitebench.Samples, whitebench.Stream,
                                  whitebench.Solution])  # fmt: skip
def test_every_field_of_a_spec_is_explained(kind: type) -> None:
    section = PLUGINS.partition(f"### {kind.__name__}\n")[2].partition("\n### ")[0]
    for field in dataclasses.fields(kind):
        assert f"| `{field.name}` |" in section, f"{kind.__name__}.{field.name}"


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_of_failure_is_explained(kind: FailureKind) -> None:
    assert f"| `{kind}` |" in SUITES


SCALE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_every_launcher_of_ours_is_explained_with_its_options() -> None:
    for name, entry in load_catalog().entries["launcher"].items():
        if entry.owner.distribution == "whitebench":
            row, *_ = re.findall(rf"^\| `{name}[`\[].*$", SCALE, re.MULTILINE)
            for field in dataclasses.fields(entry.spec.config):
                assert f"{field.name}=" in row, f"{name}[{field.name}]"


@pytest.mark.parametrize("script", sorted((ROOT / "examples" / "slurm").glob("*.sbatch")), ids=lambda file: file.name)
def test_every_script_for_slurm_is_one_and_is_explained(script: Path) -> None:
    assert f"(../examples/slurm/{script.name})" in SCALE
    subprocess.run(["bash", "-n", str(script)], check=True)


def ours(kind: Literal["model", "metric"]) -> list[Any]:
    return [entry.spec for entry in load_catalog().entries[kind].values() if entry.owner.distribution == "whitebench"]


def test_every_metric_of_ours_is_explained() -> None:
    rows = [line for line in METRICS.splitlines() if line.startswith("| `")]
    for spec in ours("metric"):
        assert any(re.match(rf"\| `{spec.name}[`/]", row) for row in rows), spec.name


def test_every_kind_of_trace_is_explained_with_the_metrics_that_read_it() -> None:
    table = dict(re.findall(r"^\| `([a-z-]+)` \|.*\| ([^|]*) \|$", TRACES, re.MULTILINE))
    offered = {kind for spec in ours("model") for kind in offered_kinds(spec.trace) or ()}
    assert offered == set(table)
    for kind, readers in table.items():
        expected = {spec.name for spec in ours("metric") if kind in spec.needs}
        assert set(re.findall(r"`([a-z-]+)`", readers)) == expected, kind


def test_every_option_of_our_tasks_is_explained() -> None:
    for name, entry in load_catalog().entries["task"].items():
        if entry.owner.distribution == "whitebench":
            for field in dataclasses.fields(entry.spec.config):
                row = rf"^\| `{name}` \|[^|]*`{field.name}`[^|]*\|"
                assert re.search(row, SUITES, re.MULTILINE), f"{name}[{field.name}]"


@pytest.mark.parametrize("kind", [Suite, Budget, Limits, Tuning, Recipe, Tuned, Match, Contestant])
def test_every_key_of_a_suite_is_explained(kind: type) -> None:
    for field in dataclasses.fields(kind):
        if field.name != "guests":  # from the command line, never from the file
            assert f"| `{field.name}` |" in SUITES, f"{kind.__name__}.{field.name}"
