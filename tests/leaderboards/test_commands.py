"""`whitebench board`, with a ledger made by hand in place of a store's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from whitebench.budget import Budget
from whitebench.ledger import Ledger
from whitebench.recipe import Recipe, Tuned
from whitebench.result import CellRecord
from whitebench.suite import Contestant, Suite
from whitebench_leaderboards.commands import board

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs `board` over records: `show(records, "--format", "csv")`."""

    def run(records: Sequence[CellRecord], *arguments: str) -> Result:
        suite = Suite(
            name="tiny",
            version=1,
            summary="",
            primary="accuracy",
            tasks=("digits",),
            seeds=(0, 1, 2),
            metrics=("accuracy",),
            budget=Budget(epochs=10, batch_size=64, trials=3),
            recipes={"plain": Recipe(learning_rate=Tuned(value=1e-3))},
            contestants=(Contestant(model="vit", recipe="plain"),),
        )

        def read(name: str, *, store: str | None, plugins: Sequence[Path], overrides: Sequence[str]) -> Ledger:
            assert name == "tiny"
            return Ledger(
                suite=suite,
                overrides=tuple(overrides),
                direction="higher",
                unit="",
                records=tuple(records),
                store_uri=store or "",
            )

        monkeypatch.setattr("whitebench_leaderboards.index.read_ledger", read)
        return CliRunner().invoke(board, ["tiny", *arguments], env={"COLUMNS": "80"})

    return run


def test_it_prints_a_table_unless_told_otherwise(world: World, show: Any) -> None:
    done = show(world.full())
    assert done.exit_code == 0
    assert "rank  contestant" in done.output


def test_json_is_short_for_the_format(world: World, show: Any) -> None:
    short, long = show(world.full(), "--json"), show(world.full(), "--format", "json")
    assert json.loads(short.output)["suite"]["seeds"] == [0, 1, 2]
    assert short.output == long.output


def test_json_and_another_format_contradict_each_other(world: World, show: Any) -> None:
    done = show(world.full(), "--json", "--format", "latex")
    assert done.exit_code == 2
    assert "--json and --format latex contradict each other" in done.output


def test_html_is_a_page_of_its_own_that_says_by_which_command_it_was_made(world: World, show: Any) -> None:
    done = show(world.full(), "--format", "html", "--set", "budget.epochs=3", "--store", "sqlite:////home/me/x.db")
    assert done.exit_code == 0
    assert done.output.startswith("<!doctype html>")
    assert "(whitebench board tiny --format html --set budget.epochs=3)" in done.output
    assert "/home/me" not in done.output
    done = show(world.full(), "--format", "html", "--set", "contestants.0.weights=/home/me/secret/w.safetensors")
    assert "overridden: contestants.0.weights=…/w.safetensors" in done.output
    assert "/home/me" not in done.output


def test_with_nothing_finished_it_says_what_to_run(world: World, show: Any) -> None:
    records = [world.absent("vit", seed, "missing", "not run yet") for seed in range(3)]
    done = show(records, "--set", "budget.epochs=3", "--store", "sqlite:///my results.db")
    assert done.exit_code == 0
    assert "Nothing is finished yet: 0 of 3 cells." in done.output
    assert "whitebench run tiny --set budget.epochs=3 --store 'sqlite:///my results.db'" in done.output
    assert "overridden: budget.epochs=3" in done.output


def test_what_programs_read_is_not_mixed_with_advice(world: World, show: Any) -> None:
    done = show([world.absent("vit", 0, "missing")], "--json")
    assert json.loads(done.stdout)["entries"][0]["rank"] is None
    assert "Nothing is finished yet" in done.stderr


def test_a_store_from_the_environment_is_not_repeated(world: World, show: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@server/db")
    for wanted in ("table", "json", "csv", "markdown", "latex", "html"):
        assert "secret" not in show([world.absent("vit", 0, "missing")], "--format", wanted).output


def test_help_has_an_example() -> None:
    text = CliRunner().invoke(board, ["--help"]).output
    assert "  whitebench board smoke --format latex > smoke.tex\n" in text


def test_the_command_loads_nothing_heavy_until_it_runs() -> None:
    code = (
        "import sys, whitebench_leaderboards.commands;"
        "print(*{'numpy', 'scipy', 'rich', 'torch', 'mlflow', 'pydantic', 'jinja2'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
