"""Many who read while a suite runs: all are answered, and the run is what it would be without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Type
from tests.crowd import READERS, Crowd, serving_boards
from whitebench.ledger import read_ledger

PATHS = (
    "/",
    "/suite/blobs",
    "/suite/blobs/cell/tiny/blobs/0",
    "/api/v1/boards/blobs",
    "/suite/blobs/charts",
    "/suite/blobs/contestant/tiny",
    "/api/v1/cells/blobs/searching/blobs/1",
    "/suite/blobs/compare?with=tiny&with=searching",
)


@pytest.mark.slow
def test_fifty_readers_meet_no_error_while_a_suite_runs_and_it_runs_to_its_end(
    tmp_path: Path, write_suite: Callable[..., Path], plugin: Path, type_in: Type
) -> None:
    suite, uri = write_suite("tiny", "searching"), f"sqlite:///{tmp_path / 'whitebench.db'}"
    with (
        serving_boards(tmp_path, uri, str(suite), "--plugin", str(plugin)) as (_, address),
        Crowd(address, PATHS, pause=0.3) as crowd,
    ):
        done = type_in("whitebench", "run", str(suite), "--plugin", str(plugin), "--store", uri)
    assert crowd.errors == {}
    assert len({(one.method, one.path, one.status) for one in crowd.answers if one.status == 200}) >= len(PATHS)
    assert len(crowd.answers) >= 2 * READERS
    assert (done.returncode, "locked" in done.stderr + done.stdout) == (0, False)
    records = read_ledger(str(suite), store=uri, plugins=[plugin]).records
    assert [record.state for record in records] == ["finished"] * 4
