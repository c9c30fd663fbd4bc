"""What a cell costs the harness when its fit costs nothing, and whether any is lost or done twice. Part of `make perf`.

Conductors as `whitebench run` has them share one suite on one store: they plan, claim, open, store and finish its
cells, but in place of a fit there is one that has its files and its scores at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.perf.bulk import CHOSEN, LAYERS, PROVENANCE, SAMPLES, score
from tests.perf.line import Line, print_each
from tests.postgresql import NoServerError, serving
from whitebench.address import home_of
from whitebench.catalog import load_catalog
from whitebench.events import CellFinished, Event
from whitebench.fit import PREDICTIONS, WEIGHTS, AskTest, FitPlan, Fitted, Message, Outcome
from whitebench.here import FitHere, Here
from whitebench.ledger import ledger_of, plan_cells
from whitebench.store import Store
from whitebench.suite import load_suite

CELLS, CONDUCTORS, SEEDS = 200, 4, 5
"""How many there are unless a number says otherwise, who shares them, and seeds a contestant."""

BARE = 20
"""Runs written by MLflow alone, with what a cell of ours has in it."""

ALONE, SHARED, SERVED = 0.1, 0.1, 0.05
"""Seconds a cell that are aimed at: one conductor on SQLite, four on SQLite, four on PostgreSQL."""

SUITE = """
name = "idle"
version = 1
summary = "Cells whose fits do nothing"
primary = "accuracy"
tasks = ["digits"]
seeds = {seeds}
metrics = ["accuracy"]

[budget]
epochs = 15
batch_size = 128
trials = 0

[recipes.plain]
learning_rate = {{ value = 4e-3 }}

{contestants}
"""


def main() -> None:
    """Measure and print; a number says how many cells instead of 200: 10,000 take their time."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # its conductors go with it, as at Ctrl-C
    cells = int(sys.argv[1]) if len(sys.argv) > 1 else CELLS
    if cells < SEEDS or cells % SEEDS:
        sys.exit(f"{cells} cells make no grid of {SEEDS} seeds: give a multiple of {SEEDS}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whitebench-perf-")))
        os.environ["XDG_STATE_HOME"] = str(folder / "state")  # where artifacts go beside a server
        measures: list[Callable[[], Sequence[Line | str]]] = [
            lambda: measure("SQLite", f"sqlite:///{folder}/alone/whitebench.db", cells, conductors=1, aim=ALONE),
            lambda: measure(
                "SQLite", f"sqlite:///{folder}/shared/whitebench.db", cells, conductors=CONDUCTORS, aim=SHARED
            ),
        ]
        try:
            server = stack.enter_context(serving(is_durable=True)).address
            measures.append(lambda: measure("PostgreSQL", server, cells, conductors=CONDUCTORS, aim=SERVED))
        except NoServerError as error:
            reason = str(error)
            measures.append(lambda: [f"PostgreSQL: not measured: {reason}"])
        print_each(measures)


def measure(kind: str, uri: str, cells: int, *, conductors: int, aim: float) -> list[Line | str]:
    """Let conductors do the cells of a new store at `uri`, and compare with MLflow alone on the same store."""
    home = home_of(uri)
    home.mkdir(parents=True, exist_ok=True)
    suite = home / "idle.toml"
    suite.write_text(_suite(cells // SEEDS), encoding="utf-8")
    store = Store(uri)  # makes the tables
    bare = _bare(uri, home)
    context = multiprocessing.get_context("spawn")
    together, told = context.Barrier(conductors), context.Queue()
    processes = [context.Process(target=_conduct, args=(uri, suite, together, told)) for _ in range(conductors)]
    try:
        for process in processes:
            process.start()
        spans = [told.get() for _ in processes]
    finally:
        for process in processes:
            process.kill()  # one that has told what it did has nothing left to do
            process.join()
    wall = max(ended for _, ended, _, _ in spans) - min(began for began, _, _, _ in spans)
    cpu = sum(used for _, _, used, _ in spans)
    finished = sum(count for *_, count in spans)
    runs = Counter(str(run.cell) for run in store.cells("idle", ""))
    lost, doubled = cells - len(runs), sum(count - 1 for count in runs.values())
    told_twice = finished - len(runs)
    name = "one conductor" if conductors == 1 else f"{conductors} conductors"
    return [
        Line(what=f"{cells:,} idle cells, {name} on {kind}: seconds a cell / {aim} s", aim=1.0, first=[wall / cells],
             second=[aim]),
        f"    {cpu / cells:.3f} s of CPU a cell; a run of MLflow's alone with the same in it: {bare:.3f} s; "
        f"lost: {lost}, doubled: {doubled + told_twice}",
    ]  # fmt: skip


def _suite(contestants: int) -> str:
    models = [f"vit[dim={4 * (number + 1)},depth=4,heads=4,patch=4]" for number in range(contestants)]
    lines = [f'[[contestants]]\nlabel = "vit-{place}"\nmodel = "{model}"' for place, model in enumerate(models)]
    return SUITE.format(seeds=SEEDS, contestants="\n".join(lines))


def _conduct(uri: str, suite_file: Path, together: Any, told: Any) -> None:
    from whitebench.conductor import Conductor

    suite, catalog, store = load_suite(str(suite_file)), load_catalog([]), Store(uri)
    planned = plan_cells(suite, catalog)
    ledger = ledger_of(suite, catalog, store, uri=uri, planned=planned)
    done = 0

    def tell(event: Event) -> None:
        nonlocal done
        done += isinstance(event, CellFinished) and not event.is_elsewhere

    conductor = Conductor(
        suite=suite, catalog=catalog, store=store, launcher=Idle(), home=home_of(uri), plugins=[], overrides=[],
        parallel=1, tell=tell,
    )  # fmt: skip
    together.wait()
    began, used = time.time(), time.process_time()
    conductor.run(ledger, planned)
    told.put((began, time.time(), time.process_time() - used, done))


class Idle(Here):
    """Stands in for a launcher: its fits do nothing."""

    def start(self, plan: FitPlan) -> FitHere:
        plan.folder.mkdir(parents=True, exist_ok=True)
        return IdleFit(plan)


class IdleFit(FitHere):
    """A fit that has its files at once, asks for the test split, and has its scores."""

    def attend(self, heard: Callable[[FitHere, Message | Outcome], None], _idle: Callable[[], None]) -> None:
        _leave_files(self.plan.folder)
        heard(self, AskTest(weights_sha256="e" * 64))
        if self._answers:
            heard(self, FITTED)


FITTED = Fitted(
    reported_epoch=15, validation=0.9, validation_loss=0.3, training_seconds=1.0,
    scores=[score("accuracy", 0.9), *(score(f"inside/{number}", 0.5, [0.5] * LAYERS) for number in range(4))],
    costs=[score(f"cost-{number}", 1.0) for number in range(4)], test_samples=SAMPLES,
    predictions_sha256="d" * 64, weights_sha256="e" * 64, provenance=PROVENANCE,
)  # fmt: skip


def _leave_files(folder: Path) -> None:
    save_file({"logits": np.zeros((SAMPLES, 10), np.float32)}, folder / PREDICTIONS)
    save_file({"weight": np.zeros((64, 64), np.float32)}, folder / WEIGHTS)
    (folder / "fit.log").write_text("nothing to say\n", encoding="utf-8")


def _bare(uri: str, home: Path) -> float:
    """Return the seconds in which MLflow writes a run with what a cell of ours has in it, without a harness."""
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client, files = MlflowClient(uri), home / "bare"
    files.mkdir()
    _leave_files(files)
    experiment = client.create_experiment("bare", artifact_location=(home / "bare-artifacts").as_uri())
    began = time.perf_counter()
    for number in range(BARE):
        tags = {f"tag-{one}": "some value" for one in range(15)}
        run = client.create_run(experiment, tags=tags, run_name=f"run-{number}").info.run_id
        client.log_text(run, "{}", "identity.json")
        client.log_batch(run, params=[Param(name, "0.1") for name in CHOSEN.hyperparameters])
        for file in sorted(files.iterdir()):
            client.log_artifact(run, str(file))
        client.log_text(run, "{}", "result.json")
        client.log_batch(run, metrics=[Metric(f"score-{one}", 0.5, 0, 0) for one in range(25)])
        client.set_terminated(run)
        client.set_tag(run, "result", "f" * 64)
    return (time.perf_counter() - began) / BARE


if __name__ == "__main__":
    main()
