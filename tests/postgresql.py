"""A PostgreSQL server of one's own, for as long as a test or a measurement takes."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class NoServerError(RuntimeError):
    """PostgreSQL cannot be started here; says why."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server under way."""

    address: str
    """Of an empty database in it."""
    restart: Sequence[str]
    """The command that ends it as if the power had failed, and starts it again."""


@contextmanager
def serving(*, is_durable: bool = False) -> Iterator[Server]:
    """Run a server with an empty database in it; only a durable one waits for the disk, as a real one does.

    Raises:
        NoServerError: it is not installed, or may not run as this user.
    """
    folder = _programs()
    if folder is None:
        raise NoServerError("PostgreSQL is not installed: `apt-get install postgresql` (Debian), then tests start one")
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

    def command(program: str, *arguments: str) -> list[str]:
        return [*user, str(folder / program), *arguments]

    def do(*command: str) -> None:
        subprocess.run(command, cwd=home, check=True, stdout=subprocess.DEVNULL, timeout=60)

    control = command("pg_ctl", "-D", str(home / "data"), "-l", str(home / "log"), "-w")
    do(*command("initdb", "-D", str(home / "data"), "-A", "trust", "-U", "tester", "--no-sync"))
    do(*control, "-o", f"-p {port} -k {home} -c fsync={'on' if is_durable else 'off'}", "start")
    try:
        do(*command("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "tester", "whitebench"))
        yield Server(
            address=f"postgresql://tester@127.0.0.1:{port}/whitebench", restart=[*control, "-m", "immediate", "restart"]
        )
    finally:
        do(*control, "-m", "immediate", "stop")
        shutil.rmtree(home)


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, if it is installed."""
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    return Path(found).resolve().parent if found else None
