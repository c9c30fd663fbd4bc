"""How long the board of 10,000 cells takes, beside MLflow's own search of the same store. Part of `make perf`.

The store is made for it, in SQLite and, where there is one, in PostgreSQL: one suite of 50 contestants and 5 seeds on
as many tasks as it takes, 40 metrics a run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.perf.bulk import add_cells
from tests.perf.line import Line, print_each
from tests.perf.paint import NoBrowserError, first_paints
from tests.postgresql import NoServerError, serving
from whitebench.catalog import load_catalog
from whitebench.ledger import plan_cells
from whitebench.store import Store
from whitebench.suite import load_suite
from whitebench_leaderboards.commands import board_of
from whitebench_leaderboards.index import Index

CELLS, CONTESTANTS, SEEDS = 10_000, 50, 5
NEW, TIMES = 10, 3
"""Cells that are finished between two looks, and how often."""

REFRESH, BOARD, PAINT = 0.5, 0.3, 1.0
"""Seconds that are aimed at."""

SUITE = """
name = "large"
version = 1
summary = "A grid that nobody ever ran"
primary = "accuracy"
tasks = [{tasks}]
seeds = {seeds}
metrics = ["accuracy"]

[budget]
epochs = 15
batch_size = 128
trials = 8

[recipes.plain]
learning_rate = {{ value = 4e-3, low = 1e-3, high = 2e-2, log = true }}

{contestants}
"""

Found = TypeVar("Found")


def main() -> None:
    """Measure and print; a number says how many cells instead of 10,000."""
    cells = int(sys.argv[1]) if len(sys.argv) > 1 else CELLS
    if cells < CONTESTANTS * SEEDS or cells % (CONTESTANTS * SEEDS):
        sys.exit(f"{cells} cells make no grid of {CONTESTANTS} contestants and {SEEDS} seeds: "
                 f"give a multiple of {CONTESTANTS * SEEDS}")  # fmt: skip
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whitebench-perf-")))
        os.environ["XDG_STATE_HOME"] = str(folder / "state")  # where artifacts go beside a server
        measures: list[Callable[[], list[Line | str]]] = [
            lambda: measure("SQLite", f"sqlite:///{folder}/whitebench.db", folder / "sqlite", cells)
        ]
        try:
            server = stack.enter_context(serving()).address
            measures.append(lambda: measure("PostgreSQL", server, folder / "postgresql", cells))
        except NoServerError as error:
            reason = str(error)
            measures.append(lambda: [f"PostgreSQL: not measured: {reason}"])
        print_each(measures)


def measure(kind: str, uri: str, folder: Path, count: int) -> list[Line | str]:
    """Make a store of `count` cells at `uri`, and time what is read of it."""
    folder.mkdir()
    suite = _write_suite(folder, count)
    catalog = load_catalog([])
    planned = plan_cells(load_suite(str(suite)), catalog)
    store, fit = Store(uri), folder / "fit"
    fit.mkdir()
    late = NEW * TIMES
    making, _ = _timed(lambda: add_cells(store, planned[late:], fit))
    searching, found = _timed(lambda: _search(uri))
    index = Index(uri, folder / "cache")
    building, _ = _timed(index.refresh)
    reading, ledger = _timed(lambda: index.ledger(str(suite)))
    board = board_of(ledger)
    looks, readings, next_boards = [], [], []
    for start in range(0, late, NEW):
        add_cells(store, planned[start : start + NEW], fit)
        looks.append(_timed(index.refresh)[0])
        seconds, ledger = _timed(lambda: index.ledger(str(suite)))
        readings.append(seconds)
        seconds, board = _timed(partial(board_of, ledger, board))
        next_boards.append(seconds)
    boards = [_timed(lambda: board_of(ledger)) for _ in range(TIMES)]
    again = _in_a_new_process(uri, folder / "cache", suite)
    pairs, of = len(boards[0][1].comparisons), f"of {count:,} cells in {kind}"
    finished = sum(record.state == "finished" for record in ledger.records)
    assert finished == count, f"{finished} of {count} cells are on the board"
    return [
        Line(what=f"first build of the index {of} / MLflow's search_runs", aim=1.0, first=[building],
             second=[searching], note=f"; {found:,} runs of 40 metrics, made in {making:.0f} s"),
        Line(what=f"refresh after {NEW} new ones / {REFRESH} s", aim=1.0, first=looks, second=[REFRESH]),
        Line(what=f"board computed, {pairs:,} pairs / {BOARD} s", aim=1.0, first=[one for one, _ in boards],
             second=[BOARD]),
        Line(what=f"the same after {NEW} new ones / {BOARD} s", aim=1.0, first=next_boards, second=[BOARD]),
        f"    ledger: {reading:.2f} s the first time, {statistics.median(readings):.2f} s after {NEW} new ones",
        f"    in a new process with the plugins loaded, from the cache: {again}",
        *_paints(of, uri, suite),
    ]  # fmt: skip


def _paints(of: str, uri: str, suite: Path) -> list[Line | str]:
    try:
        first, later = first_paints(uri, suite)
    except NoBrowserError as error:
        return [f"    first paint: not measured: {error}"]
    return [
        Line(what=f"first paint {of} / {PAINT} s", aim=1.0, first=later, second=[PAINT],
             note=f"; {first:.2f} s for the first to open the board"),
    ]  # fmt: skip


def _write_suite(folder: Path, count: int) -> Path:
    tasks = [f'"digits[label_noise={number / 1000}]"' for number in range(count // (CONTESTANTS * SEEDS))]
    models = [f"vit[dim={8 * (number + 1)},depth=4,heads=4,patch=4]" for number in range(CONTESTANTS)]
    lines = [f'[[contestants]]\nlabel = "vit-{place}"\nmodel = "{model}"' for place, model in enumerate(models)]
    file = folder / "large.toml"
    text = SUITE.format(tasks=", ".join(tasks), seeds=SEEDS, contestants="\n".join(lines))
    file.write_text(text, encoding="utf-8")
    return file


def _search(uri: str) -> int:
    """Read all runs as MLflow does, and return how many there are."""
    from mlflow.tracking import MlflowClient

    client, token, found = MlflowClient(uri), None, 0
    experiments = [one.experiment_id for one in client.search_experiments()]
    while True:
        page = client.search_runs(experiments, max_results=1000, page_token=token)
        found += len(page)
        token = page.token
        if not token:
            return found


def _in_a_new_process(uri: str, cache: Path, suite: Path) -> str:
    """Return how long a process that was just started takes, in words."""
    script = f"""
import time
import psutil
from pathlib import Path
from whitebench.catalog import load_catalog
from whitebench_leaderboards.index import Index
load_catalog([])
began = time.monotonic()
index = Index({uri!r}, Path({str(cache)!r}))
index.refresh()
before = psutil.Process().memory_full_info().uss / 1e6
looked = time.monotonic()
ledger = index.ledger({str(suite)!r})
read = time.monotonic()
held = psutil.Process().memory_full_info().uss / 1e6 - before
print(f"{{looked - began:.2f}} s to look, {{read - looked:.2f}} s for the ledger, which holds {{held:.0f}} MB", end="")
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def _timed(do: Callable[[], Found]) -> tuple[float, Found]:
    started = time.monotonic()
    found = do()
    return time.monotonic() - started, found


if __name__ == "__main__":
    main()
