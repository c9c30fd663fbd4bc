"""A suite on a real Ray cluster of two nodes, one of which is killed in the middle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.benchmark.test_conductor import World, numbers
from whitebench.catalog import Catalog
from whitebench.conductor import Conductor
from whitebench.events import CellFinished, EpochEnded, Event, FitLost
from whitebench.launch import Launcher
from whitebench.launching import LaunchOptions
from whitebench.ledger import ledger_of, select
from whitebench.store import Store
from whitebench.suite import load_suite

WriteSuite = Callable[..., Path]
NewStore = Callable[[Path], Store]

SOON = {
    "health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 10,
    "worker_niceness": 0,
}  # fmt: skip
"""Ray asks a node after its health every 3 s, and gives it up after 15: here after 5, which a busy machine may need.
What it runs has a lower priority than all other tests; here it has the same."""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head and a second node, each a process group of its own with one CPU, on loopback."""
    pytest.importorskip("ray", reason="whitebench[ray] is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # which lets Ray's addresses be 127.0.0.1 here too
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        from ray._private import ray_constants
        from ray.cluster_utils import Cluster

        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": SOON}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def kill(node: Any) -> None:
    """End all that runs on a node at once, as when its power fails."""
    root = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for one in [root, *root.children(recursive=True)]:
        one.kill()


@pytest.mark.slow
def test_a_node_that_dies_takes_no_cell_along_and_none_is_done_twice(
    cluster: Any, tmp_path: Path, catalog: Catalog, launcher: Launcher, plugin: Path, new_store: NewStore,
    write_suite: WriteSuite,
) -> None:  # fmt: skip
    suite = write_suite("tiny", "searching", trials=1, seeds=2)
    here = World(store=new_store(tmp_path / "here"), catalog=catalog, launcher=launcher, plugins=[plugin])
    here.run(suite)

    victim = cluster.add_node(num_cpus=1)
    spec = catalog.launcher("ray").spec
    fleet: Any = spec.build(spec.config(address=cluster.address), LaunchOptions(threads=1))
    assert fleet.places == 2
    assert "PYTHONBREAKPOINT" not in os.environ  # Ray's own debugger waits for somebody to attach it
    assert not sys.path[0].startswith(str(Path(sys.modules["ray"].__file__ or "").parent))  # nor is its psutil ours
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        if isinstance(event, EpochEnded) and not any(isinstance(one, FitLost) for one in told):
            [fit] = [fit for fit in conductor.fits if fit.plan.name == event.fit]
            if fit.node == victim.node_id and psutil.pid_exists(raylet):
                kill(victim)

    raylet = victim.all_processes["raylet"][0].process.pid
    store = new_store(tmp_path / "there")
    whole, cells = select(load_suite(str(suite)), catalog)
    conductor: Any = Conductor(
        suite=whole, catalog=catalog, store=store, launcher=fleet, home=tmp_path / "there", plugins=[plugin],
        overrides=(), parallel=fleet.places, tell=tell,
    )  # fmt: skip
    summary = conductor.run(ledger_of(whole, catalog, store), cells)

    assert (summary.finished, summary.failed) == (4, 0)
    assert [event for event in told if isinstance(event, FitLost)]
    finished = [event.cell for event in told if isinstance(event, CellFinished)]
    assert sorted(finished) == sorted(str(cell.name) for cell in cells)  # each once
    assert numbers(ledger_of(whole, catalog, store)) == numbers(here.ledger(suite))
