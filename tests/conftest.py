"""What every wing's tests share: the command line as a person types it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

# A shell makes what it starts in the background deaf to Ctrl-C, nohup to a closed terminal, and all that this starts
# in turn.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent

Type = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what whitebench writes into its user's own folder out of the tester's."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


@pytest.fixture
def type_in(tmp_path: Path) -> Type:
    """Return a function that runs a command in an empty folder and returns what it printed and its exit code."""

    def run(
        *command: str,
        env: Mapping[str, str] | None = None,
        cwd: Path = tmp_path,
        timeout: float = 240,
        said: str = "",
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=cwd,
            env=person(env or {}),
            input=said,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def person(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of somebody who has activated the virtual environment and set nothing else."""
    ours = ("WHITEBENCH", "MLFLOW", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", **extra}
