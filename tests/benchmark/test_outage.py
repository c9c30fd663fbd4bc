"""A store that cannot be used: waited for where that can help, else one clear message, and no result lost."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient
from optuna.trial import create_trial
from sqlalchemy import Engine, event

from tests.conftest import Type
from whitebench.errors import BusyStoreError, StoreError
from whitebench.identity import CellName
from whitebench.ledger import read_ledger
from whitebench.outage import explain
from whitebench.result import Chosen
from whitebench.store import Store
from whitebench.suite import Contestant
from whitebench.tuning import Storage

WriteSuite = Callable[..., Path]
NewStore = Callable[[Path], Store]
PARTS = {"contestant": {"model": "tiny", "options": {}, "objective": "cross-entropy", "readout": "head"}}


def open_cell(store: Store) -> str:
    return store.open_cell(
        CellName(suite="blobs", contestant="tiny", task="blobs", seed=0),
        contestant=Contestant(model="tiny"),
        overrides="",
        identity="1" * 64,
        parts=PARTS,
        chosen=Chosen(hyperparameters={}, trial=None, validation=None),
        is_guest=False,
        claim="cell/a",
    )


@contextmanager
def locked(file: Path) -> Iterator[sqlite3.Connection]:
    """Hold a database's write lock."""
    with closing(sqlite3.connect(file, check_same_thread=False)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield database


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a file system of its own on `folder`."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "whitebench", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount a file system: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_store_that_is_locked_for_a_while_is_waited_for(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path)
    with locked(tmp_path / "whitebench.db") as database:
        timer = threading.Timer(1.0, database.rollback)
        timer.start()
        run_id = open_cell(store)
        timer.join()
    assert store.tracking.run(run_id).tags["whitebench.state"] == "running"


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let MLflow ask for a lock for 0.1 s, where it asks for 20."""

    def shorten(_connection: object, _cursor: object, statement: str, given: object, *_: object) -> tuple[str, object]:
        return statement.replace("PRAGMA busy_timeout = 20000", "PRAGMA busy_timeout = 100"), given

    event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorten)


@pytest.mark.usefixtures("hasty")
def test_a_store_that_stays_locked_says_so(tmp_path: Path, new_store: NewStore) -> None:
    store = Store(new_store(tmp_path).tracking.uri, patience=0.0)
    store.claims.take("cell/a")
    with locked(tmp_path / "whitebench.db"), pytest.raises(BusyStoreError, match="it is locked by another process"):
        open_cell(store)


def test_of_several_threads_that_share_a_store_each_is_told_plainly(tmp_path: Path, new_store: NewStore) -> None:
    store = Store(new_store(tmp_path).tracking.uri, patience=0.5)
    store.claims.take("cell/a")
    told: list[type[BaseException]] = []

    def write() -> None:
        try:
            store.claims.take("cell/b")
        except Exception as error:  # which one it is is the question
            told.append(type(error))

    with locked(tmp_path / "whitebench.db"):
        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert told == [BusyStoreError] * 4


def test_a_store_that_was_deleted_or_replaced_while_it_was_open_is_written_to_no_more(
    tmp_path: Path, new_store: NewStore
) -> None:
    store = new_store(tmp_path)
    file = tmp_path / "whitebench.db"
    shutil.copy(file, tmp_path / "copy")
    file.unlink()
    for _ in ("deleted", "replaced"):
        with pytest.raises(StoreError, match=rf"the store's file {file} is gone: it was deleted, moved or replaced"):
            open_cell(store)
        shutil.copy(tmp_path / "copy", file)


def test_a_run_that_was_deleted_in_mlflow_while_it_was_open_is_said_to_be(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path)
    run_id = open_cell(store)
    MlflowClient(store.tracking.uri).delete_run(run_id)
    with pytest.raises(StoreError, match="one of its runs was deleted in MLflow meanwhile: the same command goes on"):
        store.record_opening(run_id, "1" * 64)


def test_a_damaged_database_is_said_to_be(tmp_path: Path, new_store: NewStore) -> None:
    new_store(tmp_path)
    file = tmp_path / "whitebench.db"
    with file.open("r+b") as content:
        content.seek(4096)
        content.write(os.urandom(file.stat().st_size - 4096))
    with pytest.raises(StoreError, match="its file is damaged or was taken away"):
        Store(f"sqlite:///{file}", patience=0.0)


class Usage(NamedTuple):
    free: int


def test_a_full_disk_is_not_taken_for_a_damaged_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, place = sqlite3.OperationalError("disk I/O error"), f"sqlite:///{tmp_path}/whitebench.db"
    assert "could not be used: its file is damaged or was taken away" in str(explain(said, place))
    monkeypatch.setattr(shutil, "disk_usage", {tmp_path: Usage(free=0)}.get)
    assert "could not be used: the disk is full: free some space" in str(explain(said, place))
    assert "could not be used: its file is damaged" in str(explain(said, "postgresql://***@host/db"))


def revise(file: Path, revision: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        database.commit()


@pytest.mark.parametrize(
    ("revision", "told"),
    [
        ("ffffffffffff", "newer than .*: `python -m pip install --upgrade mlflow`"),
        ("0a8213491aaa", "older than .*: copy it for safety, then bring it up to date with `mlflow db upgrade sqlite:"),
    ],
)
def test_a_store_of_another_version_of_mlflow_says_which_way_to_go(
    tmp_path: Path, new_store: NewStore, revision: str, told: str
) -> None:
    (tmp_path / "other").mkdir()  # MLflow remembers a database that it has looked at
    uri = empty_store(tmp_path / "other", new_store, tmp_path)
    revise(tmp_path / "other" / "whitebench.db", revision)
    with pytest.raises(StoreError, match=told):
        Store(uri)


def test_trials_of_a_newer_version_of_optuna_say_so(tmp_path: Path) -> None:
    storage = Storage.of_store(f"sqlite:///{tmp_path}/whitebench.db")
    storage.add("s", "minimize", create_trial(value=0.5))
    with closing(sqlite3.connect(tmp_path / "whitebench.optuna.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
        database.execute("UPDATE version_info SET schema_version = 99")
        database.commit()
    with pytest.raises(StoreError, match=r"the trials in sqlite:///.*: The runtime optuna version .* is no longer"):
        Storage.of_store(f"sqlite:///{tmp_path}/whitebench.db").find("s")


def test_a_server_that_nobody_answers_at_is_said_at_once(type_here: Type) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for uri in (f"http://127.0.0.1:{port}", f"postgresql://user:secret@127.0.0.1:{port}/db"):
        with pytest.raises(
            BusyStoreError, match=rf"the store at 127.0.0.1:{port} does not answer \(Connection refused"
        ):
            Store(uri, patience=0.0)
    told = type_here("whitebench", "status", "smoke", "--store", f"http://127.0.0.1:{port}")
    assert told.returncode == 2
    assert "does not answer" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_server_that_is_overloaded_is_tried_again_and_then_said_to_be() -> None:
    class Overloaded(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def do_POST(self) -> None:
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Overloaded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(
            StoreError, match=r"the store http://127.0.0.1:.* could not be used: it (is overloaded|does)"
        ):
            Store(f"http://127.0.0.1:{server.server_port}", patience=0.0)
        server.shutdown()


@pytest.mark.parametrize(
    ("said", "meaning", "is_busy"),
    [
        (OSError(28, "No space left on device"), "the disk is full: free some space", False),
        (OSError(122, "Disk quota exceeded"), "the disk is full", False),
        (OSError(30, "Read-only file system"), "it cannot be written: see who owns", False),
        (sqlite3.OperationalError("attempt to write a readonly database"), "it cannot be written", False),
        (sqlite3.OperationalError("database is locked"), "it is locked by another process", True),
        (ConnectionResetError(104, "Connection reset by peer"), "it does not answer", True),
        (
            ConnectionError("('Connection aborted.', RemoteDisconnected('Remote end closed'))"),
            "it does not answer",
            True,
        ),
        (sqlite3.OperationalError("password authentication failed for user"), "it does not let us in", False),
    ],
)
def test_what_libraries_say_is_put_into_words(said: Exception, meaning: str, is_busy: bool) -> None:
    told = explain(said, "sqlite:///x.db")
    assert str(told).startswith(f"the store sqlite:///x.db could not be used: {meaning}")
    assert isinstance(told, BusyStoreError) is is_busy


CONNECTION = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  '


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (f'{CONNECTION}password authentication failed for user "me"', "it does not let us in: see user and password"),
        (f"{CONNECTION}fe_sendauth: no password supplied", "it does not let us in: see user and password"),
        (f'{CONNECTION}database "My bench" does not exist', "there is no such database: createdb 'My bench' ("),
        (
            f'{CONNECTION}role "Me" does not exist',
            "it has no such user: see the user in its address, or createuser Me (",
        ),
        (
            f'{CONNECTION}no pg_hba.conf entry for host "10.0.0.1", user "me", database "b"',
            "its pg_hba.conf has no line",
        ),
    ],
)
def test_what_a_server_will_refuse_again_is_said_at_once_and_not_waited_for(said: str, meaning: str) -> None:
    told = explain(sqlite3.OperationalError(said), "postgresql://***@127.0.0.1/b")
    assert str(told).startswith(f"the store postgresql://***@127.0.0.1/b could not be used: {meaning}")
    assert not isinstance(told, BusyStoreError)


@pytest.mark.parametrize(
    "said",
    [
        "(psycopg.errors.InsufficientPrivilege) permission denied for schema public LINE 2: CREATE TABLE claims (",
        f'{CONNECTION}permission denied for database "b" DETAIL: User does not have CONNECT privilege.',
        "must be owner of table runs",
        "(1142, \"CREATE command denied to user 'me'@'h' for table 't'\")",
    ],
)
def test_a_user_without_rights_on_a_server_is_not_sent_to_look_at_files(said: str) -> None:
    told = explain(sqlite3.OperationalError(said), "postgresql://***@127.0.0.1/b")
    assert "could not be used: the user in its address lacks rights: " in str(told)
    assert not isinstance(told, BusyStoreError)


def empty_store(folder: Path, new_store: NewStore, template: Path) -> str:
    """Put an empty store into `folder` without keeping it open here, and return its URI."""
    made = new_store(template)
    made.claims.close()
    places = (template, folder)
    full, empty = (sqlite3.connect(place / "whitebench.db") for place in places)
    with closing(full), closing(empty):
        full.backup(empty)
    return f"sqlite:///{folder}/whitebench.db"


FILLING = """
import os, shutil
from pathlib import Path
from whitebench import hookimpl

DISK = Path({disk!r})


@hookimpl
def observe(event):
    if type(event).__name__ == {moment!r} and not (DISK / "filler").exists():
        (DISK / "filler").write_bytes(os.urandom(shutil.disk_usage(DISK).free - {left}))
"""


def test_a_password_in_what_a_library_says_is_not_repeated() -> None:
    told = explain(
        ConnectionError("API request to http://me:secret@host:5000/api failed: timed out"), "http://***@host"
    )
    assert isinstance(told, BusyStoreError)
    assert "http://***@host:5000/api failed" in str(told)
    assert "secret" not in str(told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("FitStarted", 64 * 1024),  # too little for a checkpoint
        ("EpochEnded", 64 * 1024),
        ("TestOpened", 64 * 1024),  # the fit can end, but a second copy of its weights has no room in the store
    ],
)
def test_a_full_disk_is_said_in_one_message_and_the_next_run_goes_on(
    write_suite: WriteSuite,
    plugin: Path,
    tmp_path: Path,
    new_store: NewStore,
    type_in: Type,
    type_here: Type,
    moment: str,
    left: int,
) -> None:
    suite = write_suite("tiny[width=20000]", trials=0, seeds=1)
    disk, filling = tmp_path / "disk", tmp_path / "filling.py"
    filling.write_text(FILLING.format(disk=str(disk), moment=moment, left=left), encoding="utf-8")
    with small_disk(disk, "24m"):
        store = empty_store(disk, new_store, tmp_path / "template")
        items = (str(suite), "--plugin", str(plugin), "--store", store)
        full = type_in("whitebench", "run", *items, "--plugin", str(filling))
        said = full.stdout + full.stderr
        assert full.returncode in (1, 2), said  # the fit has failed, or the store could not be used
        assert "disk is full" in said or "No space left" in said
        assert "Traceback" not in said
        if moment == "TestOpened":
            assert "Nothing is lost: the result of blobs/tiny[width=20000]/blobs/0 waits in" in said
        (disk / "filler").unlink()
        again = type_here("whitebench", "run", *items)
        if again.returncode == 1:  # what has failed is done again on demand
            again = type_here("whitebench", "retry", *items)
        assert again.returncode == 0, again.stdout + again.stderr
        assert ("its result had waited for the store and is in it now" in again.stdout) is (moment == "TestOpened")
        [record] = read_ledger(str(suite), store=store, plugins=[plugin]).records
        assert record.state == "finished"
        if moment == "TestOpened":
            assert record.test_openings == 1


@pytest.mark.slow
def test_a_disk_that_became_read_only_is_said_to_be(
    write_suite: WriteSuite, plugin: Path, tmp_path: Path, new_store: NewStore, type_here: Type
) -> None:
    suite = write_suite(trials=0, seeds=1)
    disk = tmp_path / "disk"
    with small_disk(disk, "16m"):
        store = empty_store(disk, new_store, tmp_path / "template")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        told = type_here("whitebench", "run", str(suite), "--plugin", str(plugin), "--store", store)
        assert told.returncode == 2, told.stdout + told.stderr
        assert "cannot be written" in told.stderr
        assert "Traceback" not in told.stderr


VANDAL = """
import os, shutil
from dataclasses import dataclass
from torch import nn
from whitebench import ModelSpec, hookimpl


@dataclass(frozen=True)
class Nothing:
    pass


class Vandal(nn.Sequential):
    def forward(self, x):
        if self.training:
            for one in os.listdir("."):
                shutil.rmtree(one) if os.path.isdir(one) else os.remove(one)
        return super().forward(x)


@hookimpl
def register_models():
    build = lambda config, shape, classes: Vandal(nn.Flatten(), nn.Linear(4, classes))
    return [ModelSpec(name="vandal", summary="deletes the working folder", config=Nothing, build=build, head="1")]
"""


@pytest.mark.slow
def test_a_model_that_deletes_the_working_folder_is_survived_and_what_is_gone_is_said(
    write_suite: WriteSuite, plugin: Path, tmp_path: Path, type_in: Type
) -> None:
    work, vandal = tmp_path / "work", tmp_path / "vandal.py"
    work.mkdir()
    vandal.write_text(VANDAL, encoding="utf-8")
    suite = write_suite("vandal", "tiny", trials=0, seeds=1)
    command = ("whitebench", "run", str(suite), "--plugin", str(plugin))
    told = type_in(*command, "--plugin", str(vandal), cwd=work)
    assert told.returncode == 2, told.stdout + told.stderr
    assert f"file {work}/whitebench.db is gone: it was deleted, moved or replaced in the meantime" in told.stderr
    assert "Traceback" not in told.stderr
    # Nothing of it stands in the way of others.
    assert type_in(*command, "--plugin", str(vandal), "-m", "tiny", cwd=work).returncode == 0
