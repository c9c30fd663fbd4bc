"""`whitebench serve`: who is let in, and what is said before anything is served."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import person
from whitebench.errors import WhitebenchError
from whitebench_leaderboards.commands import serve
from whitebench_leaderboards.server.serving import listen, read_token

LONG = "a-token-that-nobody-guesses"


def test_others_are_not_let_in_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHITEBENCH_TOKEN", raising=False)
    done = CliRunner().invoke(serve, ["--host", "0.0.0.0"])
    assert isinstance(done.exception, WhitebenchError)
    assert "lets others in, and there is no token: set WHITEBENCH_TOKEN or give --token-file" in str(done.exception)


def test_a_token_beside_mlflows_users_is_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(LONG)
    done = CliRunner().invoke(serve, ["--auth", "mlflow", "--token-file", str(tmp_path / "token")])
    assert "--auth mlflow and --token-file are two ways to let others in: give one" in str(done.exception)


def test_a_token_comes_from_the_environment_or_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHITEBENCH_TOKEN", raising=False)
    assert read_token(None) == ""
    monkeypatch.setenv("WHITEBENCH_TOKEN", LONG)
    assert read_token(None) == LONG
    (tmp_path / "token").write_text(f"{LONG}-in-a-file\n")
    assert read_token(tmp_path / "token") == f"{LONG}-in-a-file"


@pytest.mark.parametrize("content", ["", "short", " " * 40])
def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(WhitebenchError, match=r"16 at least cannot be guessed"):
        read_token(tmp_path / "token")


def test_a_token_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(WhitebenchError, match=r"--token-file .*none: cannot be read"):
        read_token(tmp_path / "none")


def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(WhitebenchError, match=r"give another --port, or --port 0"):
            listen("127.0.0.1", taken.getsockname()[1])


def test_help_has_an_example_and_loads_nothing_heavy() -> None:
    assert "whitebench serve my_suite.toml" in CliRunner().invoke(serve, ["--help"]).output
    code = "import sys, whitebench_leaderboards.commands; print({'fastapi', 'uvicorn', 'jinja2'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_it_serves_before_there_is_a_store_and_stops_by_ctrl_c(tmp_path: Path) -> None:
    code = "from whitebench_leaderboards.commands import serve; serve()"
    words = [sys.executable, "-c", code, "--port", "0", "--store", f"sqlite:///{tmp_path / 'none.db'}"]
    server = subprocess.Popen(
        words, cwd=tmp_path, env=person({"PYTHONPATH": os.environ.get("PYTHONPATH", "")}), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())
        assert address is not None
        with urllib.request.urlopen(address[0], timeout=30) as answer:
            assert b"Nothing is stored yet" in answer.read()
        assert not (tmp_path / "none.db").exists()
    finally:
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=30)
    assert "Traceback" not in said
