"""The server under way: the store opened, the token read, the address said."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import click
import uvicorn

from whitebench.address import resolve_uri, without_password
from whitebench.errors import WhitebenchError
from whitebench.wording import plain
from whitebench_leaderboards.server.app import make_app
from whitebench_leaderboards.server.guard import SHORTEST_TOKEN, is_loopback
from whitebench_leaderboards.server.mlflow_pages import load_mlflow, make_mlflow_pages, tell_mlflow
from whitebench_leaderboards.server.reader import open_reader
from whitebench_leaderboards.server.users import open_users

TOKEN = "WHITEBENCH_TOKEN"

Auth: TypeAlias = Literal["token", "mlflow"]
"""How others show that they may read: by a token, or as users of MLflow's basic auth."""


def serve(
    suites: Sequence[str],
    *,
    port: int,
    host: str,
    auth: Auth,
    token_file: Path | None,
    store: str | None,
    plugins: Sequence[Path],
) -> None:
    """Serve until Ctrl-C.

    Raises:
        WhitebenchError: others could reach the server without a token or a password, the token can be guessed, MLflow's
            users cannot be read, the port is taken, or a suite or the store cannot be read.
    """
    if auth == "mlflow" and token_file is not None:
        raise WhitebenchError("--auth mlflow and --token-file are two ways to let others in: give one")
    token = read_token(token_file) if auth == "token" else ""
    if not is_loopback(host) and not token and auth == "token":
        raise WhitebenchError(
            f"--host {plain(host, 80)} lets others in, and there is no token: set {TOKEN} or give --token-file, "
            "or --auth mlflow for the users of MLflow's basic auth, "
            "or leave --host out and reach this machine through ssh -L"
        )
    listening = listen(host, port)
    uri = resolve_uri(store)
    click.echo(f"Reading {without_password(uri)} …", err=True)
    reader = open_reader(uri, files=suites, plugins=plugins)
    reader.refresh()
    # MLflow's pages name folders of this machine, and those of a server are at its own address.
    is_own = is_loopback(host) and not uri.startswith("http")
    if is_own:
        tell_mlflow(uri)
    users = open_users() if auth == "mlflow" else None
    mlflow = make_mlflow_pages(lambda: load_mlflow(uri)) if is_own else None
    app = make_app(reader, token=token, users=users, plugins=tuple(path.name for path in plugins), mlflow=mlflow)
    address = f"[{host}]" if ":" in host else host
    click.echo(f"http://{address}:{listening.getsockname()[1]}/   (Ctrl-C to stop)")
    settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
    uvicorn.Server(settings).run(sockets=[listening])


def read_token(file: Path | None) -> str:
    """Return the token that the file or the environment holds; empty where there is none.

    Raises:
        WhitebenchError: the file cannot be read, or the token can be guessed.
    """
    token = os.environ.get(TOKEN, "")
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise WhitebenchError(f"--token-file {plain(str(file), 200)}: cannot be read: give a text file") from error
    if (token or file is not None) and len(token) < SHORTEST_TOKEN:
        raise WhitebenchError(
            f"the token has {len(token)} characters, {SHORTEST_TOKEN} at least cannot be guessed: "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'` makes one"
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises WhitebenchError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)  # whoever comes before all is loaded waits
    except OSError as error:
        listening.close()
        raise WhitebenchError(
            f"{plain(host, 80)}:{port} cannot be listened on ({error.strerror or error}): "
            "give another --port, or --port 0 for any that is free"
        ) from error
    listening.set_inheritable(False)
    return listening
