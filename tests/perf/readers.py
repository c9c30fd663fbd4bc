"""What fifty readers of `whitebench serve` cost a suite that runs, and how soon they are answered. Part of `make perf`.

The readers are real ones, over the loopback, of the store that the run writes into: first as windows that are open,
a question every three seconds each; then without any pause. The run has one fit at a time. Readers, server and run
share the machine's cores, so a ratio above 1 without a pause is first of all that: the line says how much computing
went to reading. What readers keep a run from writing shows as time in which no fit computes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.crowd import READERS, Crowd, serving_boards
from tests.perf.conductor import Share, share_of
from tests.perf.line import Line, print_each
from tests.postgresql import serving

TIMES = 3
RUN = ("smoke", "--seeds", "0-0", "--parallel", "1")
PATHS = (
    "/suite/smoke",
    "/suite/smoke/cell/crate/digits/0",
    "/",
    "/api/v1/boards/smoke",
    "/suite/smoke/charts",
    "/api/v1/cells/smoke/vit/digits/0",
    "/suite/smoke/contestant/vit",
)
WINDOW = 3.0
"""Seconds between two questions of an open window, as in live.js."""
LONGEST = 1.1
"""What a run beside open windows may take of a run without."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A run that was read from."""

    share: Share
    crowd: Crowd
    cpu_seconds: float
    """Of the readers and of the server, while the run went on."""
    wall_seconds: float


def main() -> None:
    """Measure and print; arguments: `postgresql` for a store there, and a number for how often."""
    arguments = set(sys.argv[1:])
    times = next((int(one) for one in arguments if one.isdigit()), TIMES)
    print_each([lambda: measure("PostgreSQL" if "postgresql" in arguments else "SQLite", times)])


def measure(kind: str, times: int) -> list[Line | str]:
    """Run the suite without readers, beside open windows, and beside readers without a pause, in turns."""
    alone: list[Share] = []
    windows: list[Reading] = []
    flat_out: list[Reading] = []
    for _ in range(times):
        alone.append(run_alone(kind))
        windows.append(run_beside(kind, WINDOW))
        flat_out.append(run_beside(kind, 0.0))
    what = f"a run into {kind} beside {READERS}"
    errors = sorted({error for one in (*windows, *flat_out) for error in one.crowd.errors})
    return [
        _line(f"{what} open windows / without", windows, alone, aim=LONGEST),
        *(f"    {one.crowd}" for one in windows),
        _line(f"{what} readers without a pause / without", flat_out, alone, aim=None),
        *(f"    {one.crowd}" for one in flat_out),
        f"    errors: {'; '.join(errors) or 'none'}",
    ]


def _line(what: str, read: Sequence[Reading], alone: Sequence[Share], *, aim: float | None) -> Line:
    idle = [statistics.median(one.idle_seconds for one in shares) for shares in ([one.share for one in read], alone)]
    reading = sum(one.cpu_seconds for one in read) / sum(one.wall_seconds for one in read)
    return Line(
        what=what,
        aim=aim,
        first=[one.share.seconds for one in read],
        second=[one.seconds for one in alone],
        note=f"; no fit computed for {idle[0]:.2f} / {idle[1]:.2f} s; readers and server kept {reading:.2f} of "
        f"{psutil.cpu_count()} cores busy",
    )


def run_alone(kind: str) -> Share:
    """Run the suite into an empty store that nobody reads."""
    with _store(kind) as (folder, uri):
        return share_of([*RUN, "--store", uri], folder, "smoke")


def run_beside(kind: str, pause: float) -> Reading:
    """Run the suite into an empty store while it is read."""
    with _store(kind) as (folder, uri), serving_boards(folder, uri) as (process, address):
        with Crowd(address, PATHS, pause=pause) as crowd:
            before, began = _cpu(process), time.monotonic()
            share = share_of([*RUN, "--store", uri], folder, "smoke")
            cpu, wall = _cpu(process) - before, time.monotonic() - began
        return Reading(share=share, crowd=crowd, cpu_seconds=cpu, wall_seconds=wall)


@contextmanager
def _store(kind: str) -> Iterator[tuple[Path, str]]:
    """Yield an empty folder, and where a store is to be."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whitebench-perf-")))
        yield (
            folder,
            stack.enter_context(serving()).address if kind == "PostgreSQL" else f"sqlite:///{folder}/whitebench.db",
        )


def _cpu(server: psutil.Popen) -> float:
    return sum(times.user + times.system for times in (server.cpu_times(), psutil.Process().cpu_times()))


if __name__ == "__main__":
    main()
