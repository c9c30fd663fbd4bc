"""What every wing's tests share: the command line as a person types it."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from whitebench import cli

# Read when torch is imported: where workers of pytest share few cores, threads wait for each other six times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.set_threshold(*cli.COLLECTED)  # thousands of tests are no garbage either

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


@pytest.fixture
def type_here(tmp_path: Path) -> Type:
    """Return `type_in` that needs no process of its own: where its libraries are loaded, and the server of fits warm.

    A `run` saves 7 s so. A command that ends, spoils or is to be kept from the tester's process is typed in.
    """

    def run(
        *command: str, env: Mapping[str, str] | None = None, cwd: Path = tmp_path
    ) -> subprocess.CompletedProcess[str]:
        assert command[0] == "whitebench"
        out, err = io.StringIO(), io.StringIO()
        theirs = person(env or {})
        with pytest.MonkeyPatch.context() as patch, _own_logs():
            patch.chdir(cwd)
            patch.setattr(sys, "argv", list(command))
            for name in os.environ.keys() - theirs.keys():
                patch.delenv(name)
            for name, value in theirs.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                cli.main()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(command, ended.value.code, out.getvalue(), err.getvalue())

    return run


@contextlib.contextmanager
def _own_logs() -> Iterator[None]:
    """Give a command that logs to a file of its own the loggers of a process, and take them back."""
    root, outage = logging.getLogger(), logging.getLogger("whitebench.outage")
    kept = root.handlers[:], root.level, outage.handlers[:], logging.raiseExceptions
    root.handlers.clear()
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for handler in root.handlers:
            handler.close()
        root.handlers[:], root.level, outage.handlers[:], logging.raiseExceptions = kept


def person(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of somebody who has activated the virtual environment and set nothing else."""
    ours = ("WHITEBENCH", "MLFLOW", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", **extra}
