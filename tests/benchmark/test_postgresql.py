"""A store on a real PostgreSQL server: claims, trials and results in one database, shared by several runs."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import person
from whitebench.claims import Claims, Owner
from whitebench.ledger import read_ledger
from whitebench.store import Store
from whitebench.tags import Tag
from whitebench.tuning import Storage

WriteSuite = Callable[..., Path]


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, if it is installed."""
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    return Path(found).resolve().parent if found else None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of our own, and the address of an empty database in it."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # Below pytest's own folders nobody but their owner may look.
    home = Path(tempfile.mkdtemp(prefix="whitebench-postgresql-"))
    user: list[str] = []
    if os.getuid() == 0:  # it refuses to run as root
        account = next((one for one in pwd.getpwall() if one.pw_name == "postgres"), None)
        if account is None or shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no user for it")
        user = ["runuser", "-u", "postgres", "--"]
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


@pytest.mark.slow
def test_runs_that_begin_at_once_on_an_empty_database_share_the_suite(
    server: str, write_suite: WriteSuite, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite("searching", seeds=4, trials=3)
    command = [str(Path(sys.executable).with_name("whitebench")), "run", str(suite), "--plugin", str(plugin)]
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    monkeypatch.setenv("XDG_STATE_HOME", state["XDG_STATE_HOME"])
    runs = [
        subprocess.Popen(
            [*command, "--store", server, "--parallel", "1"],
            cwd=tmp_path,
            env=person(state),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [run.communicate(timeout=240)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert [record.state for record in read_ledger(str(suite), store=server, plugins=[plugin]).records] == [
        "finished"
    ] * 4
    store = Store(server)
    assert len(store.tracking.runs("blobs", {Tag.KIND: "cell", Tag.STATE: "finished"})) == 4
    [study] = store.tracking.runs("blobs/tuning", {Tag.KIND: "study"})
    assert len(Storage.of_store(server).trials(study.tags[Tag.IDENTITY])) == 3
    assert len(store.tracking.runs("blobs/tuning", {Tag.KIND: "trial"})) == 3
    assert store.claims.living() == {}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["blobs.toml", "state"]  # nothing in the working folder


def test_a_claim_is_judged_by_the_databases_clock(server: str) -> None:
    here, far = Claims(server), Claims(server, Owner(token="far", host="far/away", pid=1, born=0.0))
    assert far.take("cell/a")
    assert not here.take("cell/a")
    assert far.holds("cell/a")
    assert here.living("cell/").keys() == {"cell/a"}
    far.close()
    assert here.take("cell/a")
    here.close()
