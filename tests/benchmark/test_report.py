"""What the read commands print."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from whitebench import report
from whitebench.conductor import Summary
from whitebench.identity import CellName
from whitebench.ledger import Ledger
from whitebench.provenance import Provenance
from whitebench.result import CellRecord, CellState, Chosen, Result, Score
from whitebench.suite import load_suite


def record(contestant: str, seed: int, state: CellState, reason: str) -> CellRecord:
    cell = CellName(suite="smoke", contestant=contestant, task="digits", seed=seed)
    return CellRecord(cell=cell, state=state, reason=reason)


def ledger(*records: CellRecord) -> Ledger:
    return Ledger(
        suite=load_suite("smoke"), overrides=(), direction="higher", unit="share", records=records, store_uri="x"
    )


def shown(table: object, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def result(**provenance: Any) -> Result:
    source: dict[str, Any] = {
        "commit": None, "is_dirty": None, "distributions": {}, "python": "3.11", "torch": "2", "cuda": None,
        "platform": "Linux", "device": "cpu", "threads": 1, "precision": "32", "seed": 0, "started": "now",
    }  # fmt: skip
    return Result(
        cell=CellName(suite="smoke", contestant="vit", task="digits", seed=0), identity="a" * 64, primary="accuracy",
        scores=[], costs=[], chosen=Chosen(hyperparameters={}, trial=None, validation=None), epochs_allowed=2,
        reported_epoch=2, validation=0.5, test_samples=10, test_openings=1, predictions_sha256="", weights_sha256="",
        provenance=Provenance(**{**source, **provenance}),
    )  # fmt: skip


def test_a_result_says_whether_its_digits_come_again_and_why_not() -> None:
    assert "repeatable: the same seed, thread count and machine give the same digits" in report.result_lines(result())
    [line] = [line for line in report.result_lines(result(is_deterministic=False)) if line.startswith("repeatable: ")]
    assert line.startswith("repeatable: not to the last digit: on a GPU some of torch's kernels")


def test_a_task_that_solved_itself_says_so_and_has_no_hyperparameters_and_no_test_split() -> None:
    solved = dataclasses.replace(result(), test_openings=0, validation=None, test_samples=25, epochs_allowed=0)
    first, *others = report.result_lines(solved)
    assert first == "draws: 25, block 0; the task solved itself, nothing was trained"
    assert not [line for line in others if line.startswith(("hyperparameters", "reported epoch", "test split", "data"))]


def test_cells_with_the_same_reason_share_a_line() -> None:
    made = ledger(
        record("vit", 0, "stale", "seed changed"),
        record("vit", 1, "stale", "seed changed"),
        record("crate", 0, "failed", "oom: too large"),
        record("crate", 1, "missing", "not run yet"),
    )
    assert report.reasons(made) == [
        "smoke/vit/digits/0, smoke/vit/digits/1: stale: seed changed",
        "smoke/crate/digits/0: failed: oom: too large",
    ]


def test_states_are_counted_in_the_order_they_come() -> None:
    made = ledger(record("vit", 0, "missing", ""), record("vit", 1, "failed", ""), record("vit", 2, "missing", ""))
    assert report.counts(made) == {"missing": 2, "failed": 1}


def test_options_in_a_name_are_shown_as_they_are() -> None:
    table = report.status_table(ledger(record("crate[dim=32]", 0, "failed", "see [docs]")))
    assert "smoke/crate[dim=32]/digits/0" in shown(table)
    assert "see [docs]" in shown(table)


def test_the_heading_names_what_was_overridden() -> None:
    assert report.heading(ledger()) == "Suite smoke version 1: ViT and CRATE on 8 x 8 digits in half a minute"


def test_a_suggested_command_repeats_what_names_the_same_results() -> None:
    again = report.options_again("my suite.toml", plugins=[Path("p.py")], overrides=["seeds=5"], store="sqlite:///x.db")
    assert again == "'my suite.toml' --plugin p.py --set seeds=5 --store sqlite:///x.db"


def test_a_suggested_command_leaves_out_the_password_and_says_so() -> None:
    console = Console(file=io.StringIO(), width=60)
    summary = Summary(finished=1, failed=0, elsewhere=0, is_interrupted=False, is_cut_short=False, seconds=3.0)
    again = report.options_again("smoke", plugins=[], overrides=[], store="postgresql://me:p%40ss@host/db")
    report.print_end(console, summary, again, Path("log"), complaints=[])
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[1:] == [
        "See: whitebench board smoke --store 'postgresql://***@host/db'",
        "*** stands for what lets you in, which is not printed; MLFLOW_TRACKING_URI can hold the whole URI",
    ]
    for uri in ("postgresql://me@host/db", "http://host:5000"):
        assert report.options_again("smoke", plugins=[], overrides=[], store=uri) == f"smoke --store {uri}"


def test_the_end_of_a_run_names_failures_and_metrics_that_raised() -> None:
    console = Console(file=io.StringIO(), width=60)
    summary = Summary(finished=1, failed=2, elsewhere=3, is_interrupted=False, is_cut_short=True, seconds=3.0)
    complaints = ["f1: the metric raised ValueError: no"]
    report.print_end(console, summary, "smoke", Path("log"), complaints=complaints, failed_before=4)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "unscored: f1: the metric raised ValueError: no",
        "1 cell done, 3 by another run, 2 failed (why: whitebench status smoke), 4 failed earlier (once more: "
        "whitebench retry smoke), given up for its failures (the same command goes on) in 3 s. Log: log",
        "See: whitebench board smoke",
    ]


def test_the_parts_of_a_metric_stand_below_its_name_and_are_whole_at_80_columns() -> None:
    def score(name: str) -> Score:
        return Score(name=name, metric=name.partition("/")[0], version=1, direction="lower", unit="share", value=0.5,
                     nulls={"untrained": 0.25})  # fmt: skip

    names = (
        "accuracy",
        "compression-verdicts/normalised-change",
        "compression-verdicts/raw-undecided",
        "selection/self",
    )
    table = report.scores_table(dataclasses.replace(result(), scores=[score(name) for name in names], costs=[]))
    assert [line.split()[0] for line in shown(table, width=80).splitlines()[1:]] == [
        "accuracy", "compression-verdicts", "normalised-change", "raw-undecided", "selection", "self",
    ]  # fmt: skip
