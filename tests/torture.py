"""Kill `whitebench run smoke` again and again, let it end, and compare it with a run that nobody disturbed.

`make torture N=200` kills it 200 times, at random moments and in four ways, and prints what was lost, doubled or
different. Every round is a new folder, whose suite is killed some ten times before it may end.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import person
from whitebench.ledger import Ledger, read_ledger
from whitebench.store import Store
from whitebench.tags import Tag
from whitebench.tuning import Storage

SUITE = "smoke"
CELLS, TRIALS = 9, 6
WAYS = ("SIGKILL of the whole tree", "SIGKILL of the conductor", "SIGTERM", "SIGINT")
EARLY = 0.2
"""The share of kills that come while the run still starts."""
LONGEST = 3.0
"""Seconds after its start, or for the others after its work has begun, at which a run is killed at the latest."""
GONE = 10.0
"""Seconds after a kill in which everything of a run is to be gone; a fit is within 5 (`test_launch`)."""
PER_ROUND = 10
"""Kills after which a suite may end."""
TOO_LATE = 5.0
"""Seconds after a signal in which a run may still end as if it had not come: it had nothing left to stop."""


@dataclass(kw_only=True)
class Damage:
    """What kills did that they must not."""

    kills: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Processes that outlived their conductor, runs that stayed open, exit codes that say something else."""

    @property
    def is_none(self) -> bool:
        return not (self.lost or self.doubled or self.different or self.left)


def numbers_of(ledger: Ledger) -> dict[str, Any]:
    """Return every number of every cell that must not depend on how the suite was run."""
    return {
        str(record.cell): {
            "scores": [(one.name, one.value, one.unscored, *one.profile, *one.spread) for one in record.result.scores],
            "hyperparameters": dict(record.result.chosen.hyperparameters),
            "choice": record.result.chosen.digest,
            "trial": (record.result.chosen.trial, record.result.chosen.validation),
            "validation": (record.result.reported_epoch, record.result.validation),
            "predictions": record.result.predictions_sha256,
            "per sample": record.per_sample,
            "weights": record.result.weights_sha256,
        }
        for record in ledger.records
        if record.result is not None and record.state == "finished"
    }


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the suite in `folder`, as a person does."""
    command = [str(Path(sys.executable).with_name("whitebench")), "run", SUITE, "--parallel", "2"]
    log = (folder / "screen.txt").open("a", encoding="utf-8")
    with log:
        return subprocess.Popen(command, cwd=folder, env=person({}), stdout=log, stderr=log, text=True)


def finish(folder: Path, damage: Damage) -> None:
    """Let the suite end."""
    code = start(folder).wait(300)
    if code != 0:
        damage.left.append(f"exit code {code} of the run that was let end: {tail(folder)}")


def kill(folder: Path, process: subprocess.Popen[str], way: str, damage: Damage) -> None:
    """End a run in one of the WAYS and see that nothing of it goes on."""
    tree = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    born = {pid: psutil.Process(pid).create_time() for pid in tree if psutil.pid_exists(pid)}
    if way == "SIGKILL of the whole tree":
        for pid in tree:
            _signal(pid, signal.SIGKILL)
    elif way == "SIGKILL of the conductor":
        process.kill()
    else:
        process.send_signal(signal.Signals[way])
    sent = time.monotonic()
    code = process.wait(60)
    took = time.monotonic() - sent
    # A signal that comes before anything has begun ends the interpreter itself.
    expected = {-signal.SIGKILL} if way.startswith("SIGKILL") else {130, -signal.Signals[way]}
    if code not in expected and not (code == 0 and not way.startswith("SIGKILL") and took < TOO_LATE):
        damage.left.append(f"exit code {code} {took:.1f} s after {way}: {tail(folder)}")
    deadline = time.monotonic() + GONE
    while living := [pid for pid, moment in born.items() if _is_alive(pid, moment)]:
        if time.monotonic() > deadline:
            names = [" ".join(psutil.Process(pid).cmdline())[:80] for pid in living if psutil.pid_exists(pid)]
            damage.left.append(f"{len(living)} processes {GONE:g} s after {way}: {names}")
            return
        time.sleep(0.02)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        psutil.Process(pid).send_signal(number)
    except psutil.NoSuchProcess:
        return


def _is_alive(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - born) < 1.0
    except psutil.NoSuchProcess:
        return False


def kill_at_random(folder: Path, moments: random.Random, times: int, damage: Damage) -> None:
    """Start the suite and kill it, up to `times` times or until it has ended before its moment."""
    for _ in range(times):
        begun = screen(folder).count("cells to do")
        if "cells to do: 0," in screen(folder):
            return
        process = start(folder)
        is_early, moment = moments.random() < EARLY, moments.uniform(0.0, LONGEST)
        while not is_early and process.poll() is None and screen(folder).count("cells to do") == begun:
            time.sleep(0.05)
        try:
            code = process.wait(moment)
        except subprocess.TimeoutExpired:
            way = moments.choice(WAYS)
            damage.kills[way] += 1
            kill(folder, process, way, damage)
            continue
        if code != 0:
            damage.left.append(f"exit code {code} of a run that nobody killed: {tail(folder)}")
        return


def compare(folder: Path, undisturbed: Mapping[str, Any], damage: Damage) -> None:
    """Note in what the suite in `folder` is not what one run without a kill makes of it."""
    uri = f"sqlite:///{folder}/whitebench.db"
    found = numbers_of(read_ledger(SUITE, store=uri))
    damage.lost += [f"{folder.name}: {cell}" for cell in undisturbed if cell not in found]
    damage.different += [
        f"{folder.name}: {cell}: {what}"
        for cell, numbers in found.items()
        for what, value in numbers.items()
        if value != undisturbed[cell][what]
    ]
    store = Store(uri)
    runs = store.tracking.runs(SUITE, {Tag.KIND: "cell", Tag.STATE: "finished"})
    done = Counter(run.tags["mlflow.runName"] for run in runs)
    trials = Counter(run.tags["mlflow.runName"] for run in store.tracking.runs(f"{SUITE}/tuning", {Tag.KIND: "trial"}))
    studies = store.tracking.runs(f"{SUITE}/tuning", {Tag.KIND: "study"})
    recorded = Counter(
        (study.tags[Tag.CONTESTANT], trial.user_attrs["number"])
        for study in studies
        for trial in Storage.of_store(uri).trials(study.tags[Tag.IDENTITY])
    )
    for what, count, expected in (
        ("cell", done, CELLS),
        ("trial", trials, TRIALS),
        ("recorded trial", recorded, TRIALS),
    ):
        damage.doubled += [f"{folder.name}: {what} {name}, {times} times" for name, times in count.items() if times > 1]
        damage.lost += [f"{folder.name}: {expected - len(count)} of what is a {what}"] * (len(count) < expected)
    if len(studies) != 2:
        damage.doubled.append(f"{folder.name}: {len(studies)} studies")
    damage.left += [f"{folder.name}: run {run} is {status}" for run, status in _open_runs(uri)]
    left = [one for kind in ("fits", "spool") for one in (folder / ".whitebench" / kind).glob("*")]
    damage.left += [f"{folder.name}: {one} is left" for one in left]
    damage.left += [f"{folder.name}: claim {name} is left" for name in store.claims.living()]


def _open_runs(uri: str) -> Iterator[tuple[str, str]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    for run in client.search_runs([one.experiment_id for one in client.search_experiments()]):
        if run.info.status == "RUNNING" or run.data.tags[Tag.STATE] == "running":
            yield run.data.tags["mlflow.runName"], run.info.status


def screen(folder: Path) -> str:
    file = folder / "screen.txt"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def tail(folder: Path) -> str:
    return " / ".join(screen(folder).splitlines()[-3:])


def undisturbed_run(folder: Path, damage: Damage) -> dict[str, Any]:
    """Run the suite in `folder` from its beginning to its end and return its numbers."""
    folder.mkdir()
    finish(folder, damage)
    return numbers_of(read_ledger(SUITE, store=f"sqlite:///{folder}/whitebench.db"))


def torture(home: Path, times: int, seed: int) -> Damage:
    """Kill the suite `times` times over as many rounds as that takes."""
    # Where this was started in the background it is deaf to Ctrl-C, and what it starts would be too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    damage, moments = Damage(), random.Random(seed)
    undisturbed = undisturbed_run(home / "undisturbed", damage)
    number = 0
    while (left := times - damage.kills.total()) > 0:
        number += 1
        folder = home / f"round-{number}"
        folder.mkdir()
        kill_at_random(folder, moments, min(left, PER_ROUND), damage)
        finish(folder, damage)
        compare(folder, undisturbed, damage)
        print(f"{damage.kills.total()} kills in {number} rounds: {verdict(damage)}", *damage.left[-1:], flush=True)
        if damage.is_none:
            shutil.rmtree(folder)
    return damage


def verdict(damage: Damage) -> str:
    return (
        f"lost {len(damage.lost)}, doubled {len(damage.doubled)}, different {len(damage.different)}, "
        f"left behind {len(damage.left)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("times", type=int, help="kills in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="whitebench-torture-")
    damage = torture(Path(folder), given.times, given.seed)
    for way, count in sorted(damage.kills.items()):
        print(f"{way}: {count}")
    for what in ("lost", "doubled", "different", "left"):
        for one in getattr(damage, what):
            print(f"{what}: {one}")
    print(verdict(damage))
    if damage.is_none:
        shutil.rmtree(folder)
    else:
        print(f"The folders are kept: {folder}")
    return 0 if damage.is_none else 1


if __name__ == "__main__":
    sys.exit(main())
