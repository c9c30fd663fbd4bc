"""One suite, one store, one conductor at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from whitebench.errors import AlreadyRunningError
from whitebench.lock import only_one


def test_a_second_conductor_is_told_who_holds_the_suite_and_since_when(tmp_path: Path) -> None:
    told = rf"suite blobs is already being run on this store by process {os.getpid()}, since \d{{4}}-\d\d-\d\dT"
    with only_one("blobs", tmp_path), pytest.raises(AlreadyRunningError, match=told), only_one("blobs", tmp_path):
        raise AssertionError("two at once")


def test_other_suites_and_later_runs_are_not_in_the_way(tmp_path: Path) -> None:
    with only_one("blobs", tmp_path), only_one("spirals", tmp_path), only_one("blobs", tmp_path / "elsewhere"):
        pass
    with only_one("blobs", tmp_path):
        pass


def test_a_lock_left_by_a_process_that_was_killed_holds_nobody_up(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom whitebench.lock import only_one\n"
        "with only_one('blobs', Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == -9
    with only_one("blobs", tmp_path):
        pass
