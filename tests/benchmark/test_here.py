"""A cell trained in the conductor's own process: for a debugger, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Type
from whitebench.ledger import read_ledger
from whitebench.result import CellRecord

WriteSuite = Callable[..., Path]

STOPPING = """
from whitebench import ModelSpec, hookimpl
from {stem} import Tiny, Width


class Stopping(Tiny):
    def forward(self, x):
        if self.training:
            breakpoint()
        return super().forward(x)


@hookimpl
def register_models():
    return [ModelSpec(name="stopping", summary="", config=Width, build=Stopping, head="head")]
"""


@pytest.mark.slow
def test_it_has_the_numbers_of_an_isolated_fit_and_no_measured_costs(
    write_suite: WriteSuite, plugin: Path, tmp_path: Path, type_in: Type, type_here: Type
) -> None:
    suite = write_suite("searching", trials=2, seeds=2)
    one = ("-m", "searching", "--seeds", "1-1", "--plugin", str(plugin))

    def cell(type_it: Type, store: str, *options: str) -> CellRecord:
        done = type_it("whitebench", "run", str(suite), *one, *options, "--store", store)
        assert done.returncode == 0, done.stderr
        return read_ledger(str(suite), store=store, plugins=[plugin]).records[1]

    isolated = cell(type_here, f"sqlite:///{tmp_path}/isolated.db").result
    here = cell(type_in, f"sqlite:///{tmp_path}/here/here.db", "--in-process").result
    assert isolated is not None
    assert here is not None
    for what in ("scores", "predictions_sha256", "weights_sha256", "validation", "identity"):
        assert getattr(here, what) == getattr(isolated, what), what
    assert here.chosen.hyperparameters == isolated.chosen.hyperparameters
    costs = {cost.name: cost.value for cost in here.costs}
    assert costs["parameters"] == 67
    assert (costs["training-time"], costs["peak-memory"]) == (None, None)


@pytest.mark.slow
def test_a_breakpoint_stops_in_the_terminal_and_leaving_the_debugger_stops_the_run(
    write_suite: WriteSuite, plugin: Path, tmp_path: Path, type_in: Type
) -> None:
    file = tmp_path / "stopping.py"
    file.write_text(STOPPING.format(stem=plugin.stem), encoding="utf-8")
    suite = write_suite("stopping", trials=0, seeds=1)
    command = ("whitebench", "run", str(suite), "--plugin", str(plugin), "--plugin", str(file), "--in-process")
    done = type_in(*command, env={"PYTHONPATH": str(plugin.parent)}, said="p tuple(x.shape)\nq\n")
    assert "(Pdb) (16, 1, 2, 2)" in done.stdout
    assert done.returncode == 130, done.stderr
    assert "interrupted (the same command goes on)" in done.stdout


def test_more_than_one_cell_is_refused_with_how_to_narrow_it(
    write_suite: WriteSuite, plugin: Path, type_here: Type
) -> None:
    done = type_here("whitebench", "run", str(write_suite(seeds=2)), "--plugin", str(plugin), "--in-process")
    assert done.returncode == 2
    assert (
        "--in-process trains one cell, and this selects 2: narrow it, as in -m tiny -t blobs --seeds 0-0" in done.stderr
    )
