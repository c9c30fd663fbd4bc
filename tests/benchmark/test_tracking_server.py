"""A store behind a real MLflow server, reached over HTTP: the same commands, and a server that is killed meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Type
from tests.mlflow_server import tracking_server

WriteSuite = Callable[..., Path]

KILLING = """
import os, signal
from pathlib import Path
from whitebench import hookimpl

MARK = Path({mark!r})


@hookimpl
def observe(event):
    if type(event).__name__ == "TestOpened" and not MARK.exists():
        MARK.touch()
        os.killpg({group}, signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_suite_runs_over_http_though_its_server_is_killed_and_is_read_and_resumed(
    write_suite: WriteSuite, plugin: Path, tmp_path: Path, type_here: Type
) -> None:
    suite = str(write_suite("searching", seeds=2, trials=1))
    killing, home = tmp_path / "killing.py", tmp_path / "server"
    home.mkdir()
    with tracking_server(home) as server:
        killing.write_text(KILLING.format(mark=str(tmp_path / "mark"), group=server.group), encoding="utf-8")

        def told(*words: str) -> str:
            done = type_here("whitebench", *words, "--store", server.address, "--plugin", str(plugin))
            assert "Traceback" not in done.stdout + done.stderr
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        def revive() -> None:
            server.wait()
            server.start()

        reviver = threading.Thread(target=revive)
        reviver.start()
        first = told("run", suite, "--parallel", "1", "--plugin", str(killing))
        reviver.join()
        assert "claims of a store behind an MLflow server are kept on this machine" in first
        assert "it does not answer" in first
        assert "cells to do: 0, done: 2, trials owed: 0" in told("run", suite)
        status = json.loads(told("status", suite, "--json"))
        assert [cell["state"] for cell in status["cells"]] == ["finished", "finished"]
        shown = json.loads(told("show", "--json", f"{suite}/searching/blobs/1"))
        assert shown["result"]["test_openings"] == 2, "a cell was done twice"
        board = json.loads(told("board", suite, "--json"))
        assert [entry["contestant"] for entry in board["entries"]] == ["searching"]
    assert not (tmp_path / "mlruns").exists()
