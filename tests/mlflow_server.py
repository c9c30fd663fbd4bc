"""An MLflow tracking server of one's own, for as long as a test takes: SQLite behind it, artifacts served by it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import person

PATIENCE = 180.0
"""Seconds until it answers: it makes its tables first."""

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""No message home, and none of the seven processes for jobs that nobody gives it."""


@dataclass(kw_only=True)
class TrackingServer:
    """A server that can be killed and started again at the same address."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [
            str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(self.port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--serve-artifacts",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=person(QUIET), stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text(encoding="utf-8")
            time.sleep(0.2)

    @property
    def group(self) -> int:
        """The process group that is to be killed."""
        assert self._process is not None
        return self._process.pid

    def wait(self) -> None:
        """Wait until somebody has killed it."""
        assert self._process is not None
        self._process.wait()

    def kill(self) -> None:
        """End it as if the power had failed."""
        with suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)
        self.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=2.0) as said:
                return bool(said.status == 200)
        except OSError:
            return False


@contextmanager
def tracking_server(folder: Path) -> Iterator[TrackingServer]:
    """Run a server that keeps everything in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = TrackingServer(folder=folder, port=free.getsockname()[1])
    server.start()
    try:
        yield server
    finally:
        server.kill()
