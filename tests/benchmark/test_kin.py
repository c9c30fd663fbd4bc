"""What descends from a process is found and ended, wherever it has gone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

from whitebench import kin


def family(code: str) -> subprocess.Popen[str]:
    """Start a process of its own group that runs `code` and prints pids, a line each."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


PARENT = """
    import subprocess, sys, time
    child = [sys.executable, "-c", "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"]
    print(subprocess.Popen(child).pid, flush=True)
    time.sleep(60)
"""  # noqa: E501


def test_children_and_grandchildren_are_found_and_ended_and_named() -> None:
    with family(PARENT) as parent:
        child, grandchild = int(line(parent)), int(line(parent))
        found = kin.descendants(parent.pid)
        assert {one.pid for one in found} == {child, grandchild}
        assert kin.descendants(parent.pid, but=[child]) == []
        assert f"sleep ({grandchild})" in kin.end(found)
        parent.kill()


def test_processes_that_are_gone_have_no_kin_and_are_not_ended_again() -> None:
    with family("pass") as process:
        process.wait()
    assert kin.is_gone(process.pid)
    assert kin.descendants(process.pid) == []
    assert kin.end_descendants(process.pid, seconds=1.0) == []
    kin.end_group(process.pid)
    assert kin.is_group_gone(process.pid)


def test_a_group_is_there_as_long_as_one_of_it_is() -> None:
    with family("import os, time; print(os.getpid(), flush=True); time.sleep(60)") as process:
        line(process)
        assert not kin.is_group_gone(process.pid)
        assert not kin.is_gone(process.pid)
        kin.end_group(process.pid)
        process.wait()
        assert kin.is_group_gone(process.pid)


ADOPTING = """
    import subprocess, sys, os
    from whitebench import kin
    kin.adopt_orphans()
    daemon = "import os, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\nprint(os.getpid(), flush=True)\\ntime.sleep(60)"
    print(subprocess.Popen([sys.executable, "-c", daemon], stdout=subprocess.PIPE, text=True).stdout.readline(), end="")
    ended = kin.end_descendants(os.getpid(), seconds=10.0)
    print(len(ended), kin.descendants(os.getpid()), flush=True)
"""  # noqa: E501


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_who_adopts_orphans_ends_daemons_too() -> None:
    with family(ADOPTING) as process:
        daemon = int(line(process))
        assert line(process) == "1 []"
        process.wait(10)
    started = time.monotonic()
    while time.monotonic() - started < 10.0:
        try:
            os.kill(daemon, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError("the daemon lives on")
