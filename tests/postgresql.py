"""A PostgreSQL server of one's own, for as long as a test or a measurement takes."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoServerError(RuntimeError):
    """PostgreSQL cannot be started here; says why."""


@contextmanager
def serving() -> Iterator[str]:
    """Run a server, and give the address of an empty database in it.

    Raises:
        NoServerError: it is not installed, or may not run as this user.
    """
    folder = _programs()
    if folder is None:
        raise NoServerError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    user, account = [], None
    if os.getuid() == 0:  # it refuses to run as root
        account = next((one for one in pwd.getpwall() if one.pw_name == "postgres"), None)
        if account is None or shutil.which("runuser") is None:
            raise NoServerError("PostgreSQL does not run as root, and there is no user for it")
        user = ["runuser", "-u", "postgres", "--"]
    # Below pytest's own folders nobody but their owner may look.
    home = Path(tempfile.mkdtemp(prefix="whitebench-postgresql-"))
    if account is not None:
        os.chown(home, account.pw_uid, account.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def do(program: str, *arguments: str) -> None:
        subprocess.run(
            [*user, str(folder / program), *arguments], cwd=home, check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    do("initdb", "-D", str(home / "data"), "-A", "trust", "-U", "tester", "--no-sync")
    do("pg_ctl", "-D", str(home / "data"), "-o", f"-p {port} -k {home}", "-l", str(home / "log"), "-w", "start")
    try:
        do("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "tester", "whitebench")
        yield f"postgresql://tester@127.0.0.1:{port}/whitebench"
    finally:
        do("pg_ctl", "-D", str(home / "data"), "-m", "immediate", "stop")
        shutil.rmtree(home)


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, if it is installed."""
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    return Path(found).resolve().parent if found else None
